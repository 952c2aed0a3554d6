// The memory part of a plan, for rl/plan.c.
#ifndef RECKON_PLAN_MEMORY_H
#define RECKON_PLAN_MEMORY_H
#include "rl.h"

typedef struct PlanLength {
    int64_t prompt, answer; // tokens of a stage's prompts and answers, at most
} PlanLength;
typedef struct PlanMemory {
    size_t weights, pass;    // weights: with what the optimizer and a reference hold
    size_t cache, one_group; // of sampling: keys, values and logits of all that is in flight; keys and values of one group
    size_t largest;          // parameter in fp32: read, hashed and written as a whole
} PlanMemory;
void plan_lengths(const Recipe *r, PlanLength *out); // [stage_count]
// With microbatches of at most `limit` tokens. A group isn't cut, so it is the least that a pass holds.
bool plan_memory(const ModelConfig *c, const Recipe *r, const PlanLength *lengths, Precision precision, int64_t limit, PlanMemory *out,
                 Err *err) MUST_CHECK;

#endif
