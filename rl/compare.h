// The part of `compare` that only calculates: from evaluations to the comparison's document. Shared by compare.c and
// its tests.
#ifndef RECKON_COMPARE_H
#define RECKON_COMPARE_H
#include "rl.h"

typedef struct Comparison {
    uint64_t seed;
    int levels;
    const TaskLevel *level;           // [levels]
    const Evaluation *after[MODES];   // the final checkpoint
    const Evaluation *before[MODES];  // the last one before GRPO; both NULL if the run has none
    int64_t step, before_step;
    double price_per_hour, watts;     // 0: not stated
    const char *currency;             // may be NULL
} Comparison;

// {"replayable":..,"measured":..}, the caller's.
json_t *comparison_json(const Comparison *c);
// One level of an evaluation, as evaluation_json lists it (evaluate.c).
json_t *evaluation_level_json(const Evaluation *e, int level, const TaskLevel *name);
// A level's first few answers, word for word, to be read beside those of another evaluation (evaluate_answers.c).
bool answer_is_kept(int item_of_level);
void answer_keep(EvaluatedItem *to, const Completion *c, Arena *arena);
json_t *evaluation_answers(const Evaluation *e);

#endif
