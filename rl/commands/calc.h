// What `calc` and the option tables of the other programs share: one case of a file, and its readers. A reader or a
// table ends a case in one of three ways: a result, "unsupported" with the reason (false, `why` filled, `err` not),
// or a malformed file (false, `err` filled with the place).
#ifndef RECKON_CALC_H
#define RECKON_CALC_H
#include "rl.h"

typedef struct CalcCase {
    const char *file;
    int index;
    const char *source;     // the program and version whose numbers the case holds; NULL if the file doesn't say
    const json_t *config, *inputs; // empty objects where the case has none
    const json_t *given;           // the case as a whole
    const json_t *document;        // the file: its keys hold for all cases
    Arena arena;            // of everything read from the case
    char why[256];          // unsupported: the option and its value
} CalcCase;

// Ragged numbers of an input, [rows][length[row]], concatenated.
typedef struct Ragged {
    int rows;
    int32_t *length;
    int64_t count;
    double *values;
} Ragged;

bool calc_unsupported(CalcCase *c, const char *format, ...) PRINTF_LIKE(2, 3); // returns false
// `path` is where in the case, such as "inputs.mask"; returns false.
bool calc_malformed(const CalcCase *c, const char *path, const char *expected, Err *err);

// Each reads inputs[key]. An absent or null input gives `values` NULL. Numbers may be null (NaN), "inf" and "-inf".
// `shape` (may be NULL) is what a ragged input has to agree with.
bool calc_ragged(CalcCase *c, const char *key, const Ragged *shape, Ragged *out, Err *err) MUST_CHECK;
bool calc_list(CalcCase *c, const char *key, int *count, double **values, Err *err) MUST_CHECK;
bool calc_mask(CalcCase *c, const char *key, const Ragged *shape, uint8_t **mask, Err *err) MUST_CHECK;
// Every input of the case is one of `names` (NULL-terminated) or null; otherwise the case is unsupported.
bool calc_inputs_known(CalcCase *c, const char *const *names);

json_t *calc_ragged_json(const Ragged *shape, const double *values);
json_t *calc_list_json(int count, const double *values);
// inputs.group, any JSON values, as numbers 0, 1, ... in the order of their first row.
bool calc_groups(CalcCase *c, int rows, int **group, int *groups, Err *err) MUST_CHECK;
// "kl" and "dsum_dlogprobs" of a list of tokens; `weight` (may be NULL) multiplies the gradient.
bool calc_kl_terms(CalcCase *c, const Kl *kl, const double *weight, int64_t count, const double *logprob, const double *ref, json_t *expected);

// What every policy loss reads: [B][T] arrays of the same shape, of which only logprobs and advantages are needed.
typedef struct LossInputs {
    Ragged shape;                  // of the logprobs, which are its values
    const double *old, *ref, *sampler, *entropy; // [N] or NULL
    const uint8_t *mask;           // [N] or NULL
    const double *advantage;       // [B], or
    const double *token_advantage; // [N]
    double active;                 // tokens under the mask
    double nonempty;               // sequences that have any
} LossInputs;
bool calc_loss_inputs(CalcCase *c, LossInputs *out, Err *err) MUST_CHECK;
// An objective's input over the whole file's case: denominators are to be filled in.
ObjectiveInput calc_objective_input(const LossInputs *in);
// Surveys where the loss asks for it, computes, and adds to `out`, whose arrays hold what came before, times `scale`.
bool calc_add_objective(CalcCase *c, const Algo *algo, ObjectiveInput *in, const LossInputs *inputs, double scale, ObjectiveOutput *out, Err *err) MUST_CHECK;
ObjectiveOutput calc_objective_output(CalcCase *c, const LossInputs *inputs);

// A row of a program's option table.
typedef enum CalcOptionKind {
    CALC_NUMBER,  // to a double at `offset`; null leaves what is there
    CALC_COUNT,   // to a double, an integer of at least 1; a text means 1
    CALC_FLAG,    // to a bool
    CALC_TEXT,    // to a const char *; null leaves what is there
    CALC_RANGE,   // to two doubles, from a list of two numbers; null leaves what is there
    CALC_VALUE,   // to a const json_t *
    CALC_NEUTRAL, // only the value `neutral` (as JSON) is what reckon computes
    CALC_IDLE,    // plays no part in these numbers
} CalcOptionKind;
typedef struct CalcOption {
    const char *name;
    CalcOptionKind kind;
    size_t offset;
    const char *neutral;
} CalcOption;
// Reads the case's config through a table that ends with a row without a name; an option without a row is unsupported.
bool calc_options(CalcCase *c, const CalcOption *table, void *out, Err *err) MUST_CHECK;

// The same, where further options are those of a program (programs.c): such as set one of `keys` ("loss", "epsilon_low": a recipe's, below
// algo) go to the stage, in the order of the program's table. A null leaves what is there.
bool calc_program_options(CalcCase *c, const char *program, const char *const *keys, const CalcOption *table, void *out, Stage *stage, Err *err) MUST_CHECK;
// What an option's word stands for in a recipe's key ("algo.advantage"), as its position among the key's choices. False: for nothing there.
bool calc_choice(const char *program, const char *option, const char *key, const char *word, int *out) MUST_CHECK;

// One program's tables: calc_trl.c and its like.
typedef bool (*CalcFunction)(CalcCase *c, json_t *expected, Err *err);
bool trl_objective(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool trl_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool verl_objective(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool verl_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool verl_kl(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool openrlhf_objective(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool openrlhf_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool openrlhf_kl(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool prime_objective(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool prime_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool skyrl_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_schedule(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_optimizer(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_sample(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_statistics(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_verify(CalcCase *c, json_t *expected, Err *err) MUST_CHECK; // calc_rewards.c
bool calc_extract(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool calc_shaping(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
// `calc template`: a file of chat templates, conversations and cases; results are appended in the order of the cases.
bool calc_template(const char *file, const json_t *document, json_t *results, Err *err) MUST_CHECK; // calc_template.c

#endif
