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
// What may be chosen so that a run fits its device.
typedef struct PlanChoice {
    Precision precision;
    bool on_host;
    int64_t limit; // tokens of a microbatch at most, beside the stage's own; a part of a group isn't cut, so it is the least that a pass holds
} PlanChoice;
bool plan_memory(const ModelConfig *c, const Recipe *r, const PlanLength *lengths, const PlanChoice *choice, PlanMemory *out, Err *err) MUST_CHECK;

// Takes the memory of the policy's passes before the first step, so that a run that starts doesn't run out of it later, and
// needs what its plan says.
bool plan_reserve(const Recipe *r, const Tasks *tasks, Policy *policy, Err *err) MUST_CHECK;

#endif
