// Which levels a stage of GRPO asks, and how often, by what its samples have reached so far (curriculum.c).
#ifndef RECKON_CURRICULUM_H
#define RECKON_CURRICULUM_H
#include "rl.h"

typedef struct Curriculum Curriculum;
// *out is NULL where the stage has none. `state` is what curriculum_state gave at the checkpoint that the run goes on from; NULL: the
// stage's start.
bool curriculum_open(const Tasks *t, const Stage *stage, const json_t *state, Curriculum **out, Err *err) MUST_CHECK;
void curriculum_close(Curriculum *c);
// The share of the next prompts that each level gets: [tasks_level_count], sums to 1. NULL for no curriculum.
const double *curriculum_shares(const Curriculum *c);
// After a step: writes the shares it was drawn with into the counts (a row for each level of the stage), then takes the counts in.
void curriculum_step(Curriculum *c, LevelCounts *counts);
json_t *curriculum_state(const Curriculum *c); // the caller's; NULL for no curriculum

#endif
