// Samples between the first token and the step that trains on them. A group is one prompt with its samples; a sampling gives a
// batch of groups. On policy a batch is sampled and trained on in the same step. With `staleness` S, batch t is sampled when the
// weights of step t - 1 - S are new, so S batches are in flight while a step trains, and their rewards are scored meanwhile. With
// `partial`, a sampling ends when enough groups are complete, and the next one goes on with the others. What is sampled when is
// a function of the recipe alone; what is in flight is part of a checkpoint (flight_file.c).
#ifndef RECKON_FLIGHT_H
#define RECKON_FLIGHT_H
#include "stages.h"

typedef struct Group {
    Arena arena;                // of all that hangs on it
    int64_t step;               // whose prompt it is, from 1 over the run; with `number` it names its random numbers
    uint32_t number;            // of the prompt in that step; attempts of dynamic sampling count on from the step's prompts
    int slot, attempt;          // place among the step's prompts; times that it was replaced before
    int began;                  // the sampling, from 1 within the stage, that gave it its first token
    int size;                   // samples
    Prompt prompt;
    Episode *episodes;          // [size]
    EnvironmentResult *results; // [size] of an environment; NULL without one
    struct Group *previous;     // the attempt that this one replaces; owned
    Dialogues *dialogues;       // while it is sampled; belongs to the arena of a group of the same sampling
    int dialogue;               // its index there
    int finished;               // samples, in this sampling
    bool submitted, settled;    // its samples are being scored; no attempt follows it
    const char **problems;      // [size] of an endpoint's samples: why there is none, or NULL; their texts are written. NULL: of a policy
    int32_t tick;               // tokens that its longest sample took in the last sampling
} Group;

typedef struct FlightBatch {
    Group **groups; // [prompts]
} FlightBatch;
struct Flight {
    int prompts;        // of a batch
    FlightBatch *ready; // [ready_count] sampled, oldest first
    int ready_count;
    Group **open;       // [open_count] carried over to the next sampling
    int open_count;
    int sampled;        // batches of the stage so far
    int64_t started;    // groups begun, replacements not counted
    int64_t tokens;     // sampled, and not trained on yet
    Group **lost;       // [lost_count] of a sampling that was interrupted: verdicts may still come
    int lost_count;
};

void group_free(Group *g); // with the attempts before it; NULL is fine
// Decodes the samples and has them scored; verdicts come to its episodes.
bool group_submit(const Trainer *t, Group *g, Err *err) MUST_CHECK;
// Waits until every verdict of the group is there.
bool group_await(const Trainer *t, const Group *g, Err *err) MUST_CHECK;
bool group_scored(const Group *g);
// A copy in the arena.
Completion completion_copy(Arena *a, const Completion *c);

// Group number `index` of the stage, from 0, with its problem and no prompt yet (rollout.c). Replacements come from beyond the
// stage's own prompts. *out is set in any case.
bool group_new(const Trainer *t, const Stage *stage, int64_t stage_start, int64_t index, int attempt, Group **out, Err *err) MUST_CHECK;
// One sampling (rollout.c): the next batch of the stage goes to flight->ready. `version` is of the policy: steps done.
bool flight_sample(const Trainer *t, Flight *f, const Stage *stage, int64_t stage_start, int64_t version, StepReport *report, Err *err) MUST_CHECK;
// The same from an endpoint (teacher_endpoint.c): what it answers, with the ids that the policy's tokenizer gives it.
bool endpoint_sample(const Trainer *t, Flight *f, const Stage *stage, int64_t stage_start, Err *err) MUST_CHECK;

#endif
