// Whether an answer is equal to the true one: as numbers, formulas, sets, intervals and the like where both can be
// read as such (see verify.c), else as text.
#ifndef RECKON_VERIFY_H
#define RECKON_VERIFY_H
#include "reward.h"

// Bounded in time and memory, a pure function of the two texts. `steps` (may be NULL) gets the work it took, a step
// being worth about 20 ns.
bool verify_equal(TextSpan truth, TextSpan answer, uint64_t *steps);
TextSpan text_trim(TextSpan s);

#endif
