// Scoring completions with Lua scripts in a pool of pre-forked worker processes. The pool must be made before the
// model is loaded and before any thread is started. A dead, hanging or hostile script can't harm the run.
#ifndef RECKON_REWARD_H
#define RECKON_REWARD_H
#include "json.h"

typedef enum VerdictState {
    VERDICT_SCORED,
    VERDICT_ABSTAINED, // the script returned nil, "why"
    VERDICT_ERROR,     // it failed, or returned a bad value
    VERDICT_BUDGET,    // fuel, memory, depth or output ran out
    VERDICT_KILLED,    // the process died twice or the clock ended it
    VERDICT_STATES,
} VerdictState;
extern const char *const verdict_state_names[VERDICT_STATES]; // "scored", "abstained", "error", "budget", "killed"

// What an environment has given an episode so far, added up by the caller (episode_add).
struct EnvironmentResult;

// All strings are UTF-8, borrowed for the call.
typedef struct RewardSample {
    const char *id;        // names the sample in errors, such as "step 3 prompt 5 sample 2"
    const char *prompt;    // question as the task states it
    const json_t *messages; // may be NULL
    const char *completion; // everything the model wrote
    size_t completion_size; // may hold NUL
    const char *truth;      // may be NULL
    const json_t *row;      // every column of the data; may be NULL
    int32_t tokens, think_tokens, answer_tokens;
    const char *finish; // "stop", "length"
    const char *mode;   // "think", "direct"
    const char *task;   // kind of its problem, such as "gcd"; may be NULL
    int64_t step;
    int32_t group; // samples with the same group, next to each other, answer the same prompt
    uint64_t seed; // of math.random in the script
    const struct EnvironmentResult *environment; // of an episode in one: the score of that script; NULL otherwise
} RewardSample;
// `think` and `answer`, which scripts also see, are cut from completion by the pool: text before "</think>" and after.

enum { MAX_REWARD_PARTS = 24 };
typedef struct RewardPart {
    char name[48]; // "correct", or "script.part" for a table's parts
    double value;  // unweighted; NaN if this script abstained
} RewardPart;

typedef struct Verdict {
    VerdictState state; // the worst of the scripts' (killed, budget, error), else scored if any scored
    double score;       // weighted sum over scripts that scored; NaN unless scored
    RewardPart parts[MAX_REWARD_PARTS];
    int part_count;
    uint64_t fuel;
    bool not_replayable; // a clock, or a process's death, had a say: another run may come to another verdict
    char why[256]; // reason of an abstention, error (script:line: message) or budget
} Verdict;

// ---- environments ----------------------------------------------------------------------------------------
// A script that returns { reset = .., step = .. } is an environment: it and the model take turns in one episode. Its state
// is plain data that the caller holds and hands in at each call, so that any worker can serve any turn and a worker's
// death loses nothing. It gives rewards as it goes; their sum is its score, combined with those of the other scripts.
typedef struct EnvironmentResult {
    VerdictState state; // VERDICT_SCORED while nothing has gone wrong
    int script;         // which of the pool's
    RewardPart parts[MAX_REWARD_PARTS]; // of an unnamed reward: name ""
    int part_count;
    uint64_t fuel;
    bool not_replayable;
    char why[256];
} EnvironmentResult;

typedef enum EnvironmentCallKind { ENVIRONMENT_RESET, ENVIRONMENT_STEP, ENVIRONMENT_DEMONSTRATE } EnvironmentCallKind;
typedef struct EnvironmentCall { // strings as in RewardSample
    EnvironmentCallKind kind;
    const char *id;
    const json_t *row;
    const char *prompt, *truth; // reset; may be NULL
    const char *mode;
    const json_t *state;        // step, demonstrate
    const char *action;         // step: what the model wrote in its turn
    size_t action_size;
    int32_t turn;               // step, demonstrate: which of the model's, from 1
    const char *finish;         // step: "stop", or "length" where a limit ended the turn
    bool last;                  // step: the episode ends with this turn, whatever the script says
    uint64_t seed;              // of math.random
} EnvironmentCall;
typedef struct EnvironmentReply {
    bool arrived;
    VerdictState state; // VERDICT_SCORED: the script answered
    json_t *data;       // its new state; demonstrate: the action, a text
    json_t *messages;   // what it says: a text, or a list of {"role","content"}; NULL: nothing
    RewardPart parts[MAX_REWARD_PARTS];
    int part_count;
    bool done;
    uint64_t fuel;
    bool not_replayable;
    char why[256];
} EnvironmentReply;
void environment_reply_free(EnvironmentReply *r);

typedef struct RewardEnvironment {
    int script;       // which of the pool's
    char name[24];
    char *task;       // it is for samples of this task only; NULL: for all
    int32_t turns;    // of the model in an episode, at most
    char **stop;      // texts that end a turn, NULL-terminated
    bool demonstrates; // it has a function `demonstrate`
} RewardEnvironment;

typedef struct RewardSpec {
    const char *script;  // name of a shipped reward ("correct") or a path ending in .lua
    double weight;
    const char *task; // only samples of this task are scored; "*": of tasks that no other script is for; NULL: all
    // The spec's further keys, visible to the script as the global `options`; may be NULL. `allow` lists what the script may
    // do that others may not: "program.python", "program.c" (run.program).
    const json_t *options;
} RewardSpec;

typedef struct RewardLimits {
    uint64_t fuel;         // a sample and script
    size_t memory;         // bytes a worker
    double seconds;        // CPU time a sample before the worker is killed
    bool unsafe;           // allow running without seccomp
    bool bare;             // tests only, no option sets it: no wall in the interpreter, to try the one around the process alone
} RewardLimits;
RewardLimits reward_default_limits(void);

typedef struct RewardPool RewardPool;
// Forks `workers` processes (0: one per core). Scripts are read and compiled first: a syntax error is ERR_DATA with
// script:line; a missing one ERR_NOINPUT. ERR_UNAVAILABLE where seccomp is missing and not `unsafe`.
bool reward_pool_open(const RewardSpec *specs, int spec_count, int workers, const RewardLimits *limits,
                      RewardPool **out, Err *err) MUST_CHECK;
void reward_pool_close(RewardPool *pool);
// Starts scoring a sample; returns at once. Strings are copied. The verdict is written to *out by a later
// reward_pool_finish. Scripts with a `group` function run when all of a group were submitted.
bool reward_pool_submit(RewardPool *pool, const RewardSample *sample, Verdict *out, Err *err) MUST_CHECK;
// Lets everything submitted begin and takes in what is finished, without waiting. A group must be complete.
bool reward_pool_start(RewardPool *pool, Err *err) MUST_CHECK;
// Waits for everything submitted.
bool reward_pool_finish(RewardPool *pool, Err *err) MUST_CHECK;
// The environment among the scripts; NULL if there is none.
const RewardEnvironment *reward_pool_environment(const RewardPool *pool);
// Starts a call of the environment; returns at once. A later reward_pool_poll or _finish writes *out and sets `arrived`;
// *out is the caller's to free, and must stay where it is until then.
bool reward_pool_call(RewardPool *pool, const EnvironmentCall *call, EnvironmentReply *out, Err *err) MUST_CHECK;
// Sends what waits and takes what has come; with `wait`, stays until something happened.
bool reward_pool_poll(RewardPool *pool, bool wait, Err *err) MUST_CHECK;
// Adds a reply to an episode's result; false where the episode must end because the call failed.
bool episode_add(EnvironmentResult *result, const EnvironmentReply *reply);
// Plays one episode: `about` tells of the sample (row, prompt, truth, mode, seed), `actions` is a list of texts, or NULL:
// the script's own demonstration. *said (the caller's; may be NULL) lists what the script said, from reset on; null: nothing.
bool episode_play(RewardPool *pool, const EnvironmentCall *about, const json_t *actions, json_t **said, EnvironmentResult *out,
                  Err *err) MUST_CHECK;
// The seed of the call for the model's turn number `turn` (0: reset) of an episode.
uint64_t episode_seed(uint64_t seed, int32_t turn);
// Workers that died since the pool was opened.
int64_t reward_pool_deaths(const RewardPool *pool);
typedef struct RewardCounts { // since the pool was opened
    int workers;
    double busy, cpu;       // seconds that workers were at a batch, and of their processor time; summed over them
    int64_t not_replayable; // verdicts in which a clock or a death had a say
    char why[256];          // of the first of these
} RewardCounts;
void reward_pool_counts(const RewardPool *pool, RewardCounts *out);
// SHA-256 over the scripts' sources, for the ledger.
void reward_pool_hash(const RewardPool *pool, char out[65]);
// Which walls this system offers, each tried in a child: {"seccomp":true,"memory_limit":true,...,
// "programs_in_bubblewrap":{"python":true,"c":true,"why":null}}; the caller owns it. It forks: no threads may run yet.
json_t *reward_walls(void);

// Cuts a completion into thinking and answer as scripts see them. In think mode the text before the first "</think>"
// is thinking (all of it if there is none, the answer is then empty); in direct mode all is answer. The answer is
// what stands inside the last <answer>...</answer> after the thinking, or all after it, trimmed.
typedef struct TextSpan {
    const char *data;
    size_t size;
} TextSpan;
void completion_cut(const char *completion, size_t size, bool think_mode, TextSpan *think, TextSpan *answer);

#endif
