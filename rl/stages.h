// The stages that train.c calls, in the order of its sentence: rollout, rewards, advantage, update; and sft.
#ifndef RECKON_STAGES_H
#define RECKON_STAGES_H
#include "rl.h"

// What a stage's step works with; borrowed.
typedef struct Trainer {
    const Recipe *recipe;
    const Tasks *tasks;
    RewardPool *rewards;
    Policy *policy;
    Policy *teacher;   // another model that the stage works with, opened and closed by its row; NULL: none
    struct TeacherEndpoint *endpoint; // a teacher that is asked over HTTP, in place of `teacher`; NULL: none
    Policy *reference; // frozen at the start of the stage; NULL where the stage has no KL
    AlgoState *algo_state; // coefficients that move; NULL: the recipe's
    struct ObjectiveScript *script; // the stage's own objective; NULL: a loss of the table
    int stage_index;
    Ledger *ledger; // NULL outside of a run
    struct Energy *energy; // the run's meters; NULL outside of one
    struct Curriculum *curriculum; // of the stage; NULL: levels are drawn evenly
    struct Flight *flight; // what is sampled ahead; NULL: a step samples its own batch
    void *work; // what the stage's own row has opened; NULL: nothing
    bool (*progress)(void *context, const char *what, double share); // false: stop now; may be NULL
    void *progress_context;
} Trainer;

// What a kind of stage is: all that differs between kinds asks its row (stage_kinds.c).
struct Build;
typedef struct StageRow {
    const char *name;         // in recipes and on the ledger
    const struct Field *keys; // of a recipe (recipe_schema.c)
    bool samples;             // its steps sample: they have a Batch, whose prompts, samples and verdicts stand on the ledger
    bool trains;              // by gradients: training passes, an optimizer
    bool keeps_weights;       // the policy is the same afterwards
    bool makes_data;          // its end leaves a file of rows in the run's folder, which later stages may name (data.h)
    double likely;            // share of the plan's FLOPs that its steps are likely to take: max_tokens is an upper bound
    // What needs several keys of a recipe at once; NULL: nothing.
    bool (*check)(struct Build *b, json_t *stage, const char *path, Err *err);
    // Opens what its steps work with beside the policy, into t->work: at the start of the stage and of a resumed process.
    // Both may be NULL.
    bool (*open)(Trainer *t, const Stage *stage, Err *err);
    void (*close)(Trainer *t);
    // One step: a function of the policy, the recipe and the step's number alone, so that a checkpoint needs the weights, the
    // optimizer, AlgoState and nothing else. `batch` is empty before, and stays so where the kind doesn't sample.
    bool (*step)(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err);
    // After the last step, before the evaluations and the checkpoint of the stage's end: what is made of all its steps, which are on
    // t->ledger from `first` to `last`. A process that is killed here does it again. NULL: nothing.
    bool (*end)(const Trainer *t, const Stage *stage, int64_t first, int64_t last, Err *err);
    // With each evaluation and at the stage's end; NULL: nothing.
    bool (*validate)(const Trainer *t, const Stage *stage, int64_t step, Err *err);
    // FLOPs of a whole stage as the plan counts them, with so many tokens a prompt and an answer at most (plan.c).
    double (*flops)(const ModelConfig *c, const Stage *stage, double prompt, double answer);
} StageRow;
extern const StageRow stage_rows[STAGE_KINDS];
const StageRow *stage_row_named(const char *name); // NULL: there is none
static inline const StageRow *stage_row(const Stage *stage) { return &stage_rows[stage->kind]; }

// Which mode prompt `index` of a stage's step is asked in: a function of the recipe's seed.
Mode mode_of_prompt(const Recipe *r, const Stage *stage, int stage_index, uint64_t index);

// The step's batch: sampled now, or by an earlier step where the stage samples ahead (then the next ones are sampled now). Rewards
// are submitted while others still decode. Fills prompts, episodes' completions, texts and (after rewards_collect) verdicts.
// Groups without variance are replaced up to algo.refills times; what is still missing then is filled with such groups.
bool rollout_batch(const Trainer *t, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
// Waits for the verdicts and counts them; fails when too many are errors, budgets or kills.
bool rewards_collect(const Trainer *t, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
// A step in one line for a person; `left`: seconds to the end of the run, NaN: not known (step_line.c).
void step_line(const Stage *stage, const StepReport *s, double left, Buf *out);
// Adds the batch's samples to the report's pass rates by task and level.
void levels_count(const Batch *batch, StepReport *report);
// The same with the samples of groups that dynamic sampling replaced.
void batch_levels(const Batch *batch, StepReport *report);
// Waits until every verdict of the batch is there, and copies them to its episodes.
bool batch_verdicts(const Trainer *t, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
// What is sampled and not trained on yet (flight.h); it begins empty. Closed when no verdict can come any more.
typedef struct Flight Flight;
bool flight_open(Flight **out) MUST_CHECK;
// So many of the stage's steps are done, and nothing is in flight.
void flight_begin(Flight *f, const Stage *stage, int steps);
void flight_close(Flight *f);
bool flight_is_empty(const Flight *f); // NULL too
// As a file of a checkpoint (flight_file.c). Loading has what it holds scored again: verdicts are a function of the samples.
bool flight_save(const Flight *f, const char *path, Err *err) MUST_CHECK;
bool flight_load(const Trainer *t, const Stage *stage, const char *path, Flight *f, Err *err) MUST_CHECK;
#define FLIGHT_FILE "flight.json"
// What samples of the policy look like before a stage trains on them (probe.c).
typedef struct ProbeReport {
    int samples;
    double truncated, repetitive; // shares: cut off at max_tokens; mostly repeats of itself
    double cut_repetitive;        // of those cut off, the share that repeats itself
    double length;                // mean
    int64_t prompt_tokens, new_tokens;
} ProbeReport;
bool probe_stage(const Trainer *t, const Stage *stage, ProbeReport *out, Err *err) MUST_CHECK;
// Refuses, naming the setting, where most samples would be cut off.
bool probe_judge(const Stage *stage, int stage_index, const ProbeReport *probe, Err *err) MUST_CHECK;
// `t` may be NULL: the recipe's coefficients.
void advantages_assign(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report);
// Logprobs of the groups [from, to) under `policy`, into the field of their episodes (logprobs.c).
typedef enum LogprobField { LOGPROBS_REFERENCE, LOGPROBS_OLD, LOGPROBS_NOW } LogprobField;
bool batch_logprobs(Policy *policy, Batch *batch, LogprobField field, int from, int to, Err *err) MUST_CHECK;
// Minibatches and epochs of forward, objective, backward, AdamW.
bool update_batch(const Trainer *t, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
// One step of supervised fine-tuning: mean negative log-likelihood per target token (sft.c).
bool sft_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
bool sft_open(Trainer *t, const Stage *stage, Err *err) MUST_CHECK;
void sft_close(Trainer *t);
typedef struct Examples {
    int count, capacity;
    Ids *prompts, *targets; // [capacity]; targets: of demonstrations that are one text
    Completion *completions;
} Examples;
void examples_start(Examples *e, int count, Arena *arena);
// What a step of the stage completes, and with what: rows of t->work and the tasks' demonstrations (sft.c).
bool examples_make(const Trainer *t, const Stage *stage, int stage_step, Arena *arena, Examples *out, Err *err) MUST_CHECK;
void examples_free(Examples *e, Arena *arena);
// max_length and learn_prompts of the stage (sft_examples.c).
bool examples_shape(const Stage *stage, Arena *arena, Examples *e, Err *err) MUST_CHECK;
// Validation loss after `step`, onto the ledger (validation.c).
bool sft_validate(const Trainer *t, const Stage *stage, int64_t step, Err *err) MUST_CHECK;
// Distillation from a teacher's distributions (distill.c).
bool distill_open(Trainer *t, const Stage *stage, Err *err) MUST_CHECK;
void distill_close(Trainer *t);
bool distill_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
double plan_distill_flops(const ModelConfig *c, const Stage *stage, double prompt, double answer);
// The stage's teacher (teacher.c) into t->teacher, where it has one.
bool teacher_open(Trainer *t, const Stage *stage, Err *err) MUST_CHECK;
void teacher_close(Trainer *t);
// "https://host/v1#MODEL" instead of a model: asked over HTTP (teacher_endpoint.c).
bool teacher_is_endpoint(const Stage *stage);
bool teacher_endpoint_open(Trainer *t, const Stage *stage, Err *err) MUST_CHECK;
void teacher_endpoint_close(Trainer *t);
// Whether it can be asked at all: its URL, its key. Nothing is sent.
bool teacher_endpoint_check(const Stage *stage, Err *err) MUST_CHECK;
// {"host", "model"}, as data's rows name it; the caller's.
json_t *teacher_endpoint_name(const Stage *stage);
// FLOPs of a token's forward pass, from headers alone; 0 where they can't be read yet.
double teacher_flops(const char *path);
// SHA-256 over the files of all teachers, "" where there are none: a fact of the run.
bool teachers_hash(const Recipe *r, char out[65], Err *err) MUST_CHECK;
// Rollout and rewards of a step, and their times (grpo.c).
bool sample_and_score(const Trainer *t, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
// Rejection sampling (reject.c): samples, scores, and in the end keeps the best as a file.
bool reject_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
bool reject_end(const Trainer *t, const Stage *stage, int64_t first, int64_t last, Err *err) MUST_CHECK;
double plan_reject_flops(const ModelConfig *c, const Stage *stage, double prompt, double answer);
// The weighted mean of models (merge.c).
bool merge_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
bool merge_end(const Trainer *t, const Stage *stage, int64_t first, int64_t last, Err *err) MUST_CHECK;
double plan_merge_flops(const ModelConfig *c, const Stage *stage, double prompt, double answer);
// The last step of the stage of that name, 0 for "start"; -1: there is none.
int64_t stage_end_step(const Recipe *r, const char *name);
// One step of GRPO: rollout, rewards, advantage, update (grpo.c).
bool grpo_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) MUST_CHECK;
double plan_sft_flops(const ModelConfig *c, const Stage *stage, double prompt, double answer);
double plan_grpo_flops(const ModelConfig *c, const Stage *stage, double prompt, double answer);
// Clips, updates, or skips where the norm isn't finite. Shared by both kinds of stage.
bool optimizer_apply(Policy *p, const Optimizer *o, double learning_rate, StepReport *report, Err *err) MUST_CHECK;

void batch_free(Batch *batch);

// A user's own objective in Lua (objective_script.c). Opening checks its derivatives against differences of its loss.
typedef struct ObjectiveScript ObjectiveScript;
bool objective_script_open(const char *path, const Algo *algo, ObjectiveScript **out, Err *err) MUST_CHECK;
bool objective_script_compute(ObjectiveScript *s, const Algo *algo, const ObjectiveInput *in, ObjectiveOutput *out, Err *err) MUST_CHECK;
void objective_script_close(ObjectiveScript *s);

// Packed tokens of a forward and backward pass at most, where one group isn't more. Unless the recipe says otherwise: on the
// processor what keeps its products busy (more takes memory and no less time), on a GPU what its launches are worth.
static inline int64_t microbatch_limit(const Stage *s, bool on_host) {
    return s->microbatch_tokens > 0 ? s->microbatch_tokens : on_host ? 1024 : 8192;
}
// FLOPs of one step as the plan counts them: an upper bound, for the estimate of the end (plan.c).
double plan_step_flops(const ModelConfig *c, const Recipe *r, const Stage *s);

// ---- environments (dialogue.c) ---------------------------------------------------------------------------
// The environment's side of one rollout: the states of its episodes, and who waits for whom.
typedef struct Dialogues Dialogues;
typedef struct DialogueSetup {
    const Recipe *recipe;
    const Policy *policy;
    RewardPool *rewards;
    int count, samples;  // prompts, samples of each
    Item *const *items;  // [count]; what the environment opens with takes the place of their prompts and messages
    const Mode *modes;   // [count]
    Arena *arena;        // of the items
    uint64_t step;       // of training; 0: an evaluation
    uint32_t first_prompt; // number of the first prompt: a part of the seeds
} DialogueSetup;
// Resets the environment for every prompt; *out is NULL where the recipe has none. Before the prompts are rendered.
bool dialogues_open(const DialogueSetup *setup, Dialogues **out, Err *err) MUST_CHECK;
void dialogues_close(Dialogues *d); // NULL is fine
// The prompt's ids; a prompt whose reset failed gets one that says nothing. `d` may be NULL.
bool dialogue_prompt(const Dialogues *d, const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, int index, Ids *out,
                     Err *err) MUST_CHECK;
// The recipe's stop strings and, where the prompt is the environment's, those of it; the list is the dialogues'.
const char *const *dialogue_stops(Dialogues *d, int index, const char *const *stop);
// As RolloutOptions has them.
bool dialogue_turn_ended(Dialogues *d, int32_t request, int32_t sample, const Completion *c);
bool dialogue_next_turn(Dialogues *d, bool wait, NextTurn *out, Err *err) MUST_CHECK;
// What the episode came to; NULL without an environment. It lives as long as `d`.
const EnvironmentResult *dialogue_result(const Dialogues *d, int32_t request, int32_t sample);
double dialogues_waited(const Dialogues *d); // measured: seconds in which all samples waited for the environment
// Demonstrations for supervised fine-tuning, played by the environment itself: what its expert writes is sampled, what the
// environment says is given. The arrays are the arena's.
bool dialogues_demonstrate(const DialogueSetup *setup, Ids *prompts, Completion *out, Arena *arena, Err *err) MUST_CHECK;

// ---- packing (packing.c) ---------------------------------------------------------------------------------
// A Packed under construction: prompts and what is scored after them.
typedef struct Packing {
    Packed packed;
    Ids tokens, row, target;
    PackedGroup *groups;
    PackedSequence *sequences;
    int group_capacity, sequence_capacity;
    int64_t *kept_start;
    int32_t *kept_ids;
    int64_t kept_capacity, kept_starts_capacity;
    double router_balance, router_z; // of Packed; packing_routers sets them
} Packing;
void packing_reset(Packing *p, double temperature);
// Before the first packing_reset of an optimizer step whose passes have so many tokens.
void packing_routers(Packing *p, const Optimizer *o, int64_t tokens);
void packing_prompt(Packing *p, const int32_t *prompt, int32_t length); // starts a group
// A completion of the last prompt; its sampled tokens are targets, those given to it aren't. Its last token is sampled.
void packing_completion(Packing *p, const Completion *completion);
// A long group is cut between completions, each part with the prompt before it, so that no pass has to hold it whole. The cut
// depends on the group alone, never on what else a microbatch holds, so that no limit changes a gradient. A part is how
// many of `count` completions come next, and the tokens of a pass over them.
typedef struct PackingPart {
    int count;
    int64_t tokens;
} PackingPart;
PackingPart packing_part(int32_t prompt_length, const Completion *const *completions, int count);
int64_t packing_tokens(int32_t prompt_length, const Completion *const *completions, int count); // of all parts
int64_t packing_part_limit(int64_t prompt_length); // tokens of a part at most, where one completion isn't more
bool packing_is_full(const Packing *p, int64_t tokens, int64_t limit); // before so many more
void packing_group(Packing *p, const Ids *prompt, const Completion *const *completions, int count);
const Packed *packing_view(Packing *p);
void packing_free(Packing *p);
// One pass over what is packed: the negative log-likelihood of its targets, each over `total`, onto the report and the gradients (sft.c).
bool likelihood_microbatch(const Trainer *t, Packing *packing, double total, StepReport *report, Err *err) MUST_CHECK;

#endif
