// TensorBoard's event files: scalars of a run as its steps are done (tensorboard.c).
#ifndef RECKON_TENSORBOARD_H
#define RECKON_TENSORBOARD_H
#include "rl.h"

typedef struct Board Board;
// RUN/tensorboard/events.out.tfevents.0.reckon, made where there is none. What it tells of steps after `step`, and a record that a
// kill cut off, is taken off its end, so that a resumed run tells each step once.
bool board_open(const char *run_folder, int64_t step, Board **out, Err *err) MUST_CHECK;
// `b` may be NULL: nothing happens.
bool board_step(Board *b, const StepReport *s, Err *err) MUST_CHECK;
bool board_evaluation(Board *b, int64_t step, const char *name, const json_t *evaluation, Err *err) MUST_CHECK;
void board_close(Board *b);
// CRC-32C (Castagnoli), as RFC 3720 has it.
uint32_t crc32c(const void *data, size_t size);

#endif
