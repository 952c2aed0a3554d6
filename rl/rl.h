// The trainer's own words: Recipe, Item, Episode, Batch, StepReport, and the stages that pass a Batch along. Each
// stage reads earlier fields and writes only its own.
#ifndef RECKON_RL_H
#define RECKON_RL_H
#include "algorithm.h"
#include "policy.h"
#include "reward.h"
#include "statistics.h"

typedef struct Ledger Ledger;

// ---- recipe (recipe.c) -----------------------------------------------------------------------------------
typedef enum Mode { MODE_THINK, MODE_DIRECT, MODES } Mode;
extern const char *const mode_names[MODES];

typedef enum ScheduleKind {
    SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_COSINE_RESTARTS, SCHEDULE_POLYNOMIAL, SCHEDULE_INVERSE_SQRT,
    SCHEDULE_WSD // warm-up, stable, decay
} ScheduleKind;
typedef enum CurveKind { CURVE_LINEAR, CURVE_COSINE, CURVE_ONE_MINUS_SQRT } CurveKind;

typedef struct Optimizer {
    double learning_rate, beta1, beta2, eps, weight_decay;
    double max_gradient_norm; // 0: no clipping
    ScheduleKind schedule;
    int warmup;               // steps
    double final_share;       // of the learning rate, reached where the schedule ends
    double cycles;            // cosine: waves, 0: half a one; cosine_restarts: times it starts over
    double power;             // polynomial; 0: 1
    int timescale;            // inverse_sqrt; 0: the warm-up, else 10000
    int decay_steps;          // wsd: of its last part
    CurveKind warmup_curve, decay_curve; // wsd
    double expert_bias_rate;              // correction biases of experts move so far a step, against the load
    double router_balance, router_z;      // coefficients of losses on the routers of experts
} Optimizer;

typedef enum StageKind { STAGE_SFT, STAGE_GRPO, STAGE_REJECT, STAGE_DISTILL, STAGE_MERGE, STAGE_KINDS } StageKind; // a row of stage_rows each (stage_kinds.c)

// What a rollout multiplies by: the trainer's weights, or a copy in 8 bits.
typedef enum RolloutPrecision { ROLLOUT_SAME, ROLLOUT_INT8 } RolloutPrecision;

typedef enum OffPolicy { OFF_POLICY_EXAMPLES, OFF_POLICY_TEACHER } OffPolicy;

// How a stage chooses among its levels (curriculum.c).
typedef enum CurriculumKind { CURRICULUM_NONE, CURRICULUM_LEVEL, CURRICULUM_PASS_RATE } CurriculumKind;
typedef struct CurriculumRule {
    CurriculumKind by;
    double threshold; // level: pass rate beyond which the next level opens
    double floor;     // pass_rate: least weight
    int window;       // steps that pass rates are taken over
} CurriculumRule;

typedef struct Stage {
    StageKind kind;
    char *name;           // "sft", "grpo", made unique by the recipe
    char *from;           // the weights it starts with: of an earlier stage's end, or "start"; NULL: those of now
    int steps;            // 0: not known yet, of a stage that goes by epochs (stages_count_steps)
    double mode_share[MODES]; // share of prompts asked in each mode; sums to 1
    int *levels;          // restrict procedural tasks to these levels; NULL: all of the recipe
    int level_count;
    CurriculumRule curriculum; // grpo
    int batch;            // sft: examples a step. grpo: prompts a step (Q)
    int group_size;       // grpo, reject: samples a prompt (G)
    const char **data;    // sft: sources of rows, NULL-terminated: names of earlier stages, files; NULL: the tasks
    int epochs;           // sft: passes over these; 0: steps decides
    bool learn_prompts;   // sft: the loss is over all tokens
    int last_turn;        // sft: of a conversation's turns the last one alone is learned
    int max_length;       // sft: tokens of an example; 0: the model's
    int cut_long;         // sft: longer ones are cut, not an error
    const char **validation; // sft: files whose loss is measured, NULL-terminated
    int validation_items; // sft: held-out items of each task and level, the same
    double tasks_share;   // sft: of a step's examples that are the tasks' own beside them
    char *teacher;        // reject: a model or a run that samples instead of the policy; NULL: the policy. distill: whose distributions are learned
    char *teacher_key_env; // of an endpoint: the environment variable with its key; NULL: none
    int teacher_requests; // of an endpoint: at once
    double teacher_flops; // of a token's forward pass, for plans; 0: not known
    double beta;          // distill: which divergence
    double on_policy;     // distill: share of steps on the policy's own samples
    OffPolicy off_policy; // distill: what the others learn from
    double temperature;   // distill: of both distributions
    double threshold;     // reject: least score
    int keep;             // reject: samples of a prompt at most
    int choose;           // reject: among equal scores, in the order of the recipe's words
    double similarity;    // reject: from which two rows are near-duplicates
    int ngram;            // reject: characters that this is taken over
    const char **models;  // merge: names of earlier stages, or models; NULL-terminated
    double *shares;       // merge: [share_count], one of each; NULL: all the same
    int share_count;
    Sampling sampling;    // grpo
    Algo algo;            // grpo
    int reject;           // the recipe's words for algo.correction.rejections
    double reject_low, reject_high;
    Optimizer optimizer;
    RolloutPrecision rollout_precision; // grpo
    Retain activations;   // grpo: of rollouts, for training
    int staleness;        // grpo: steps that sampling is ahead of training
    int partial;          // grpo: groups in flight beside those of a step; 0: a step waits for all
    int carry;            // grpo: samplings after which such a group has to be complete
    int probe;            // grpo: samples drawn before the first step, to see whether they end; 0: none
    double max_truncated; // grpo: largest share of these that max_tokens may cut off
    int evaluate_every;   // 0: only at the end of the stage
    int checkpoint_every; // 0: only at the end of the stage
    int microbatch_tokens; // upper bound on packed tokens of one forward and backward (a whole group at least)
} Stage;

typedef struct TaskSpec {
    char *kind;       // "arithmetic", "countdown", "jsonl"
    char *file;       // jsonl: path, relative to the recipe
    char *script;     // of a task in Lua: the name of one that comes with reckon, or a path; else NULL
    int *levels;      // procedural
    int level_count;
    bool scores;      // of a task in Lua: it checks answers itself
    double weight;    // share among tasks
    json_t *options;  // the remaining keys, for the task itself
} TaskSpec;

typedef struct PromptStyle {
    char *system;      // system message; NULL: the template's default
    char *instruction; // put after the question, in a chat; may be NULL
    char *prefix;      // what the completion is made to begin with: "<think>" or "<think></think>"
} PromptStyle;

typedef struct Recipe {
    char *path, *folder; // of the recipe file
    char *name;
    uint64_t seed;
    char *model_path;     // or NULL: from scratch
    ModelConfig config;   // from scratch
    char *characters;     // from scratch: the vocabulary
    LoraOptions lora;     // rank 0: the model itself is trained
    bool keep_blocks;     // with an adapter: of a GGUF's weights
    Precision precision;
    int threads;          // 0: all
    char *device;         // "cpu", "cuda:0"; empty: RECKON_DEVICE's, else the CPU
    TaskSpec *tasks;
    int task_count;
    double held_out;      // share of problems kept for evaluation, by hash
    PromptStyle style[MODES];
    bool chat;            // render prompts through the chat template
    RewardSpec *rewards;
    int reward_count;
    RewardLimits reward_limits;
    int reward_workers;
    double max_failed_share; // of verdicts in error, budget or killed: the run stops beyond it (0.1)
    Stage *stages;
    int stage_count;
    int evaluate_items;   // held-out items per task and level in evaluations during training
    int evaluate_samples; // sampled pass@1: samples an item, 0: greedy only
    int compare_items;    // held-out items per task and level in `compare`
    Sampling evaluate_sampling;
    double watts, price_per_hour, price_per_kwh, co2_per_kwh; // stated by the user for costs; 0: not stated
    double million_tokens_in, million_tokens_out;
    char *currency, *price_source; // whose prices these are; NULL: not said
    char **compare_arms;  // NULL-terminated, as `compare --arm` takes them; empty: think and direct
    double compare_margin; // differences within it don't count
    double compare_worth;  // of a correct answer, in the currency; 0: not stated
    int compare_seeds;     // of arms that sample
    int compare_latency;   // items answered one at a time
    char *run_folder;     // default runs/NAME
    int keep_checkpoints; // newest kept besides the stages' last ones
    bool tensorboard;     // event files in RUN/tensorboard
    json_t *resolved;     // every value, defaults included: recipe.resolved.json
    char hash[65];        // SHA-256 of the resolved recipe
    Arena arena;          // owns all of the above but `resolved`
} Recipe;

// Reads, validates and completes a recipe; `sets` are "a.b=c" overrides (NULL-terminated). Errors name file, line,
// key, what was found, the valid range, and the nearest valid key.
bool recipe_read(const char *path, const char *const *sets, Recipe **out, Err *err) MUST_CHECK;
// The recipe that a run folder was made with, overrides included, from its recipe.resolved.json.
bool recipe_of_run(const char *run_folder, Recipe **out, Err *err) MUST_CHECK;
void recipe_free(Recipe *r);
// The reward of each task's own: a script's score function, the checker of countdown, or `correct`. What {"task"} among a
// recipe's rewards stands for. `out` has room for one a task; returns how many there are.
int recipe_task_rewards(const Recipe *r, double weight, RewardSpec *out);
// Whether a stage samples with weights in 8 bits.
bool recipe_samples_int8(const Recipe *r);
// As PolicyOptions wants it: NULL where the recipe leaves it to RECKON_DEVICE.
static inline const char *recipe_device(const Recipe *r) { return r->device && *r->device ? r->device : NULL; }

// ---- tasks (tasks.c) -------------------------------------------------------------------------------------
// One problem. `prompt` is the question in plain text; `messages` replaces it where the data has chat messages.
typedef struct Item {
    char *kind;
    int level;
    char *prompt;
    json_t *messages;
    char *truth;
    char *demonstration; // a chain of thought that leads to the answer, for cold-start SFT; may be NULL
    char *wrong;         // an answer that isn't one, where the task knows such; may be NULL
    json_t *row;         // every column; for procedural tasks the problem's numbers
    uint64_t hash;       // of the problem's text
} Item;

typedef struct Tasks Tasks;
bool tasks_open(const Recipe *r, Tasks **out, Err *err) MUST_CHECK;
void tasks_close(Tasks *t);
// Held out or for training is decided by a hash of the problem in which the order of commuting operands doesn't count,
// so that 12+34 is never trained on where 34+12 is asked.
// Training item number `index` of a stage: a function of (recipe, stage, index). `stage_levels` may be NULL.
// The item's memory is the arena's.
bool tasks_train_item(const Tasks *t, const Stage *stage, uint64_t index, Arena *arena, Item *out, Err *err) MUST_CHECK;
// The share of a stage's prompts that each level has: [tasks_level_count], sums to 1 (0 everywhere: none is the stage's).
void tasks_shares(const Tasks *t, const Stage *stage, double *shares);
// As tasks_train_item, the level drawn by `shares` [tasks_level_count]; rows of a data set come by chance, not in epochs.
bool tasks_train_item_of(const Tasks *t, const Stage *stage, const double *shares, uint64_t index, Arena *arena, Item *out, Err *err) MUST_CHECK;
// Held-out items, never seen in training: `count` distinct ones per task and level, always the same ones.
typedef struct TaskLevel {
    const char *kind;
    int level;
    int64_t distinct; // problems of this level, -1 if unknown
} TaskLevel;
int tasks_level_count(const Tasks *t);
void tasks_level(const Tasks *t, int index, TaskLevel *out);
bool tasks_held_out(const Tasks *t, int level_index, int count, Arena *arena, Item *out, int *found, Err *err) MUST_CHECK;
// Hash of the data read (files), for the ledger.
void tasks_hash(const Tasks *t, char out[65]);

// The ids a completion continues: chat template or plain text, the mode's style, its prefix ("<think>" or
// "<think></think>"). Appends to `out`. A chat template's own switch (enable_thinking, thinking) is set by the mode; where the
// template has then opened or closed the thinking itself, those prefixes are left out. strftime_now shows a fixed day.
bool prompt_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) MUST_CHECK;
// The same before any tokenizer: in a chat the messages with the style's words (the caller's; no prefix), otherwise the text,
// appended, and *messages is NULL.
bool prompt_words(const Recipe *r, const Item *item, Mode mode, json_t **messages, Buf *text, Err *err) MUST_CHECK;
// The variables that chat templates know as their switch for thinking.
json_t *thinking_variables(Mode mode);
// What a cold-start SFT example should complete that prompt with: in think mode the demonstration, "</think>" and the
// answer, in direct mode the answer; then end of sequence. An error if think mode has no demonstration.
bool completion_encode(const Recipe *r, const Tokenizer *t, const char *text, size_t size, bool ends, Ids *out, Err *err) MUST_CHECK; // a text as a completion; `ends`: with an end of sequence
bool demonstration_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) MUST_CHECK;

// What an environment says, as the ids that follow a model's turn whose last id was `end` (-1: it ended without one): a text
// as it is; messages through the chat template's continuation, or as lines of text, and then the mode's prefix.
bool words_render(const Recipe *r, const Tokenizer *t, const json_t *words, Mode mode, int32_t end, Ids *out, Err *err) MUST_CHECK;

// ---- one step's data -------------------------------------------------------------------------------------
// One sampled completion, from prompt to advantage.
typedef struct Episode {
    int prompt, sample;            // which group, which member
    Completion completion;         // rollout
    char *text;                    // decoded, rollout
    size_t text_size;
    int32_t think_tokens, answer_tokens;
    Verdict verdict;               // rewards
    double advantage;              // advantage; 0 where inactive
    double *token_advantage;       // [length] of estimators that differ from token to token; else NULL
    float *ref_logprob;            // [length] under the reference, where the reward needs it; else NULL
    float *old_logprob;            // [length] under the policy before this update, where stale samples are corrected; else NULL
    float *now_logprob, *now_entropy; // [length] of the current policy, where a loss surveys the step; else NULL
    double *weight;                // [length] of the correction; else NULL
    uint8_t *keep;                 // [length] 0 where a rejection leaves the token out; else NULL
    uint8_t *chosen;               // [length] clip_cov, kl_cov: within an optimizer step; else NULL
    bool active;                   // has a scored verdict and takes part in the loss
    struct TokenVersions *versions; // [version_count] whose weights drew its tokens, from the first token on
    int version_count;
} Episode;
typedef struct TokenVersions { // a stretch of sampled tokens
    int64_t version; // steps done when the weights were new
    int32_t length;
} TokenVersions;

typedef struct Prompt {
    Item item;
    Mode mode;
    Ids ids;
    bool has_variance; // advantage: not all rewards are equal
} Prompt;

typedef struct Batch {
    Arena arena;
    int64_t step;      // over the whole run, from 1
    const Stage *stage;
    int stage_step;    // within the stage, from 1
    int prompt_count, episode_count, group_size;
    Prompt *prompts;   // tasks
    Episode *episodes; // [prompt_count * group_size], rollout
    Rollout rollout;
    struct Group **groups; // [prompt_count] whose prompts and episodes these are; owned (flight.h)
} Batch;

// Coefficients that move from step to step; part of a checkpoint.
typedef struct AlgoState {
    bool started;        // within this stage; otherwise the recipe's values hold
    double kl, entropy;  // weights
    double last_entropy; // mean over the tokens of the step before
} AlgoState;

// Rows that experts had in a step's training passes.
typedef struct ExpertLoad {
    int layers, experts;
    int32_t *layer; // [layers] of the model
    int64_t *rows;  // [layers][experts]
} ExpertLoad;
// The busiest expert's rows over the mean; NaN without rows.
double expert_imbalance(const ExpertLoad *l, int layer);
void expert_load_free(ExpertLoad *l);

// Samples of one task and level within a step, those of replaced groups too.
typedef struct LevelCount {
    char kind[48];
    int level;
    int64_t prompts, samples;
    int64_t passed; // the first reward's score reached 1
    double share;   // of the prompts that the stage's curriculum gave this level; NaN without one
} LevelCount;
typedef struct LevelCounts {
    LevelCount *rows; // [count]
    int count;
} LevelCounts;
void level_counts_free(LevelCounts *c);
// The first reward's own score, without its weight; NaN where there is none.
double verdict_first_reward(const Verdict *v);

// What one step did. `measured` fields come from clocks and meters; all others are a function of the recipe.
typedef struct StepReport {
    int64_t step;
    int stage_index, stage_step;
    StageKind kind;
    double loss, learning_rate, gradient_norm;
    double reward_mean, reward_std;      // over scored episodes; NaN for sft
    double part_mean[MAX_REWARD_PARTS];
    char part_name[MAX_REWARD_PARTS][48];
    int part_count;
    double entropy, kl, clip_share, ratio_max; // token means; ratio_max: of |ratio - 1|
    double clip_low, clip_high;          // of clip_share: with a ratio below 1, above 1
    double length_mean, think_mean, answer_mean, truncated_share;
    double given_mean;                   // tokens given to a completion; they count as prompt_tokens
    int verdicts[VERDICT_STATES];
    int groups, groups_without_variance, groups_trained;
    int64_t prompt_tokens, new_tokens, trained_tokens;
    ExpertLoad experts;                  // owned; empty where the model has none
    LevelCounts levels;                  // owned; empty for sft
    int64_t stale_tokens, staleness;     // of its samples: tokens that older weights drew, and how many steps older at most
    double corrected_share;              // of the trained tokens, those that the correction cut back, zeroed or dropped; NaN: there is none
    int64_t flight_tokens;               // sampled so far, and not trained on yet
    int64_t spared_tokens;               // of trained_tokens: those whose forward pass the rollout had made (Stage.activations)
    double sampler_gap;                  // where samples are corrected: mean |logprob of the policy - of the sampler| of their tokens; else 0
    bool skipped;                        // a gradient was NaN or Inf: no update
    double flops;                        // computed from shapes
    struct {
        double seconds, rollout, reward, train, optimizer; // reward: that the trainer waited for verdicts
        double reward_idle;              // of a reward worker on average, while the step sampled and waited
        double cpu_seconds;
        double joules, device_joules;    // all, and of the device with a meter of its own; NaN: not measured
        size_t peak_bytes;
    } measured;
} StepReport;

// ---- schedule.c (advantages and losses: algorithm.h) -----------------------------------------------------
// Learning rate of step 1..steps (schedule.c). As transformers counts: step 1 of a warm-up has rate 0, and the end of
// the schedule would be the step after the last.
double schedule_rate(const Optimizer *o, int step, int steps);

// ---- evaluate.c ------------------------------------------------------------------------------------------
// Held-out items answered in one mode: what `eval`, the evaluations during training and `compare` share.
// One completion of an item, scored (evaluate_draws.c). Fields below `detail` are there where EvaluateOptions asks for them.
// Counts of tokens are -1, and FLOPs NaN, where nobody says (evaluate_endpoint.c).
typedef struct Draw {
    bool correct, truncated;
    bool unanswered;       // an endpoint gave no answer
    VerdictState verdict;
    int32_t tokens, think_tokens, answer_tokens; // sampled
    int32_t given_tokens;             // in between; they count as a prompt's
    double flops;                     // of its own, the prompt's left out
    double mean_logprob, min_logprob; // of its sampled tokens; 0 without any
    // detail
    char *text;
    size_t text_size;
    int32_t tokens_to_truth;          // up to the first place where the true answer stands; -1: nowhere, TRUTH_UNKNOWN
    const int32_t *course;            // [course_length] as below
    const float *logprob;             // [tokens]
    int32_t course_length;
} Draw;
enum { TRUTH_UNKNOWN = -2 };
typedef struct EvaluatedItem {
    int level_index;       // into tasks_level()
    bool correct;          // score of the first reward reaches 1 (greedy); share of samples otherwise in `pass`
    double pass;           // mean over sampled completions, or correct as 0/1 for greedy
    int32_t tokens, think_tokens, answer_tokens, prompt_tokens;
    bool truncated;
    double flops;
    VerdictState verdict;
    char *completion;      // text of the first sample
    const char *prompt, *truth;
    const json_t *messages; // where the question is a chat; borrowed from the tasks
    int32_t *course;       // [course_length] of the first sample, a given id as -1 - id; NULL: not kept (evaluate_answers.c)
    float *logprob;        // [tokens] of the sampled ones
    int32_t course_length;
    double prompt_flops;
    const Item *item;
    Draw *draws;           // [draw_count]
    int draw_count;
} EvaluatedItem;
typedef struct EvaluateOptions {
    Mode mode;
    int items;   // held-out items of each level
    int skip;    // of these, the first so many are left for another split
    int samples; // of each item; 0: one, greedy
    const int *level_samples; // [tasks_level_count] instead, at least 1 each; NULL: `samples` of all
    const Sampling *sampling; // NULL: the recipe's; greedy sets its temperature to 0
    bool detail; // texts and tokens of every draw
    struct Energy *energy; // counts joules by level; NULL: they aren't measured
} EvaluateOptions;
typedef struct Evaluation {
    Mode mode;
    int count;
    EvaluatedItem *items;
    double seconds;        // measured: sampling and scoring
    double *level_seconds; // measured, [tasks_level_count]: sampling of that level alone
    double *level_joules;  // the same; NaN: not measured
    double cpu_seconds, waited_seconds; // measured, of sampling: on a processor, and ready without one; NaN: not known
    int64_t new_tokens;
    Arena arena;
} Evaluation;
// `samples` 0: greedy. Deterministic: the seed is the recipe's.
bool evaluate(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, Mode mode, int items_per_level, int samples,
              Evaluation *out, Err *err) MUST_CHECK;
bool evaluate_with(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, Evaluation *out, Err *err) MUST_CHECK;
void evaluation_free(Evaluation *e);
// {"mode","levels":[{"kind","level","items","correct","accuracy","low","high","tokens","think_tokens","answer_tokens",
// "truncated","flops","outcomes":"0110..."}]} : means per item, Wilson 95 %. Replayable fields only.
json_t *evaluation_json(const Evaluation *e, const Tasks *t);
// A completion as reward scripts see it (decoded with what was given to it, the final end-of-sequence token left out,
// appended to `text`), and its sampled tokens up to and including "</think>" and after it. In think mode without "</think>" all is thinking; in direct mode
// all is answer. What rollouts, evaluations and `compare` share.
bool completion_text(const Tokenizer *t, const Completion *c, Mode mode, Buf *text, int32_t *think_tokens,
                     int32_t *answer_tokens, Err *err) MUST_CHECK;

// ---- compare.c -------------------------------------------------------------------------------------------
// Answers held-out items in the recipe's arms (think and direct) and says what thinking is worth; where the run keeps a checkpoint
// from before its GRPO stage, also what GRPO added. `policy` is the final one, at `step`. Stores the result in `ledger` (may be
// NULL) as evaluation "compare". *out is {"replayable","measured"}, the caller's; its form is told in compare.c.
// `judges` (compare_run.h) are there for the recipe's arms that choose by a reward; may be NULL without any.
struct Judges;
bool compare_run(Policy *policy, const Recipe *r, const Tasks *t, RewardPool *rewards, const struct Judges *judges, Ledger *ledger, int64_t step,
                 json_t **out, Err *err) MUST_CHECK;
// The table and the verdicts, in plain text, on stdout.
void compare_print(const json_t *comparison);

// ---- train.c ---------------------------------------------------------------------------------------------
typedef struct TrainOptions {
    bool resume;  // go on from the newest checkpoint of the run folder
    bool compare; // end with `compare` where the recipe asks for items
} TrainOptions;
// The whole run: reward workers, tasks, model, ledger, stages, checkpoints. TERM and INT save what is done and return
// ERR_TERMINATED and ERR_INTERRUPTED; a second one ends the process at once.
bool train(Recipe *r, const TrainOptions *options, Err *err) MUST_CHECK;
// What a run will need, told before it spends: {"parameters","memory":{..},"stages":[{"name","steps","flops",..}],
// "flops","seconds"}; lengths are upper bounds, seconds an estimate from a short probe of this machine. The caller's.
bool plan_make(const Recipe *r, json_t **out, Err *err) MUST_CHECK;
void plan_print(const json_t *plan); // plain sentences on stderr

// ---- ledger.c --------------------------------------------------------------------------------------------
// The run folder's ledger.db: WAL, synchronous=FULL, hash-chained. `resume`: it must exist; otherwise it must not.
bool ledger_open(const char *run_folder, bool resume, Ledger **out, Err *err) MUST_CHECK;
bool ledger_open_read(const char *run_folder, Ledger **out, Err *err) MUST_CHECK; // report, cost, audit
void ledger_close(Ledger *l);
// Facts of the run, once: recipe hash, versions, instruction variant, model and data hashes (replayable) and the
// machine (measured). Both are JSON objects, borrowed.
bool ledger_run(Ledger *l, const json_t *replayable, const json_t *measured, Err *err) MUST_CHECK;
// One step with its samples in one transaction. `batch` may be NULL (sft).
bool ledger_step(Ledger *l, const StepReport *step, const Batch *batch, Err *err) MUST_CHECK;
// The same on a thread of its own, beside whatever comes next: takes the report's lists and the batch, which are left empty. The
// next call with this ledger waits for it; where it failed, that call fails with its error and does nothing.
bool ledger_step_beside(Ledger *l, StepReport *step, Batch *batch, Err *err) MUST_CHECK;
// An evaluation's result: `replayable` enters the chain at its step, `measured` doesn't.
bool ledger_evaluation(Ledger *l, int64_t step, const char *name, const json_t *replayable, const json_t *measured,
                       Err *err) MUST_CHECK;
// Something that happened (start, resume, kill seen, checkpoint, warning): the chain of measured things.
bool ledger_event(Ledger *l, const char *kind, const json_t *detail, Err *err) MUST_CHECK;
#define NOT_REPLAYABLE "not replayable" // kind of event: verdicts that a clock or a process's death decided, answers of an endpoint
#define ANSWER_EVENT "answer" // kind of event: what an endpoint answered to a stage's request, and its tokens (teacher_endpoint.c)
// After a resume from the checkpoint of `step`: later steps move to the table of repeated work, so that the
// replayable chain ends at `step` again and no cost is forgotten.
bool ledger_rewind(Ledger *l, int64_t step, Err *err) MUST_CHECK;
// Head of the replayable chain (64 hex digits) and its last step.
bool ledger_head(Ledger *l, int64_t *step, char hash[65], Err *err) MUST_CHECK;

// ---- checkpoint.c ----------------------------------------------------------------------------------------
typedef struct TrainState {
    int64_t step; // steps done over the whole run
    int stage_index, stage_step;
    char chain[65]; // head of the replayable chain at this step
    AlgoState algo; // of the stage at this step
    const json_t *curriculum; // of the stage at this step, when saving; NULL: none. Read with checkpoint_curriculum
    struct Flight *flight; // what is sampled and not trained on yet; NULL: nothing. Written only; flight_load reads it
} TrainState;
// checkpoints/step-N: written aside, synced, renamed; every section's hash in state.json.
bool checkpoint_save(const char *run_folder, const Policy *p, const TrainState *state, const char *recipe_hash, Err *err) MUST_CHECK;
// The newest whole checkpoint: *found false if there is none. A damaged one is reported (the section named) and the
// one before it is taken. `folder` is the caller's to free.
bool checkpoint_latest(const char *run_folder, const char *recipe_hash, TrainState *state, char **folder, bool *found,
                       Err *err) MUST_CHECK;
// The model that a path means: of a run's folder the newest checkpoint, otherwise the path itself; the caller frees *out.
bool model_find(const char *path, char **out, Err *err) MUST_CHECK;
// What a checkpoint keeps of its stage's curriculum; *out is the caller's, NULL: nothing.
bool checkpoint_curriculum(const char *folder, json_t **out, Err *err) MUST_CHECK;
// Verifies all sections of one checkpoint folder.
bool checkpoint_verify(const char *folder, TrainState *state, Err *err) MUST_CHECK;
bool checkpoint_prune(const char *run_folder, int keep, const int64_t *keep_steps, int keep_step_count, Err *err) MUST_CHECK;
// The lock of a run folder: ERR_TEMPFAIL if another process holds it. Held until the process ends or run_unlock.
bool run_lock(const char *run_folder, int *fd, Err *err) MUST_CHECK;
void run_unlock(int fd);
// Whether another process writes to this run. Not for a process that holds the lock itself: the question would end it.
bool run_is_locked(const char *run_folder);

#endif
