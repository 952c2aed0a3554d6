// The part of `compare` that only calculates: from what arms made of the same items to the comparison's document, whose form is
// told in docs/compare.md. Shared by compare_run.c, which makes arms answer, and the tests.
#ifndef RECKON_COMPARE_H
#define RECKON_COMPARE_H
#include "arm.h"
#include "prices.h"

typedef struct TrainingBill { // what training took; NaN: not known
    bool known;
    double seconds, joules, flops;
    char problem[384]; // why it isn't known of a run; empty: it is no run
} TrainingBill;
typedef struct ComparedModel {
    char *name, *path, *device;
    const char *what;    // "run", "checkpoint", "model", "adapter", "gguf", "endpoint"
    char variant[64];
    int64_t step;        // -1: none
    int64_t parameters;  // 0: not known
    char hash[65];       // of the weights; empty: not known
    json_t *router;      // ROUTER of the document; NULL: none
    char *router_file;   // NULL: not saved
    TrainingBill training; // of a run, all of it
} ComparedModel;

typedef struct Comparison {
    const char *name, *recipe_hash; // may be NULL
    uint64_t seed;
    int levels;
    const TaskLevel *level;          // [levels]
    ComparedModel *models;           // [model_count]
    int model_count;
    ArmList arms;
    ArmResult *results;              // [arms.count]
    // What GRPO added to models[0]: greedy answers of its last checkpoint before; count 0: none.
    ArmResult before[MODES], after[MODES]; // `after` is borrowed from results
    int64_t step, before_step;       // -1: none
    double margin, worth;            // worth 0: not stated
    Prices prices;
    const char *energy;              // "RAPL", ... what measured joules
    int latency_items;
    json_t *notes, *samples;         // may be NULL
    double spent_seconds, spent_joules, spent_device_joules; // on all of it: answering, loading, timing one at a time; joules NaN: not measured
} Comparison;

// What the work of comparing is made of, 0, 1, ...: each arm (of a routed one the items that its router was fitted on), then the model
// before GRPO in each mode. False: there are no more.
bool comparison_part(const Comparison *c, int index, const ArmResult **out, char name[160]);
// {"format", "replayable", "measured", "samples"}, the caller's.
json_t *comparison_json(const Comparison *c);

// ---- differences between two arms (verdict.c) --------------------------------------------------------------
typedef struct Ratio {
    double value, low, high; // NaN: not defined
} Ratio;
typedef enum VerdictWord { IS_OPEN, IS_A, IS_B, IS_SAME, IS_B_AT_LEAST, IS_A_AT_LEAST, IS_NEITHER } VerdictWord;
extern const char *const verdict_codes[];
typedef struct Contrast {
    int items, only_a, only_b;
    double a, b, difference, deviation; // deviation: of one item's difference
    Interval interval;
    double p, p_holm;
    const char *test;
    Ratio tokens, flops;
    VerdictWord verdict;
    bool uncounted;    // tokens of one of them
    double more_items; // NaN: none needed, or none would do
} Contrast;
typedef struct ContrastNames {
    const char *a, *b;
    bool modes; // think against direct
} ContrastNames;
enum { RESAMPLES = 10000 };
#define CONFIDENCE 0.95
// Over the items of the levels in `which` [levels]; NULL: all.
void contrast_make(const ArmResult *a, const ArmResult *b, const bool *which, uint64_t seed, Contrast *out);
// "+7.5", "-0.4", "0.0".
char *points_signed(double share, char out[24]);
// After p_holm is set.
void contrast_judge(Contrast *c, double margin);
json_t *contrast_json(const Contrast *c, const ContrastNames *names, double margin);
json_t *ratio_json(const Ratio *r);

// ---- the measured half (compare_costs.c) -------------------------------------------------------------------
json_t *comparison_measured(const Comparison *c);
// The pairs of arms that are held against each other, in the document's order (compare.c); the caller frees *out.
typedef struct ArmPair {
    int a, b;
    const char *what;
} ArmPair;
int comparison_pairs(const Comparison *c, ArmPair **out);
// Levels as kinds: kind_of [levels], returns how many.
int comparison_kinds(const Comparison *c, int *kind_of);

// One level of an evaluation, as evaluation_json lists it (evaluate.c).
json_t *evaluation_level_json(const Evaluation *e, int level, const TaskLevel *name);
// What is measured of one completion (evaluate_draws.c).
double prompt_flops(const ModelConfig *config, int32_t prompt_tokens);
void completion_confidence(const Completion *c, double *mean, double *least); // logprobs of its sampled tokens; 0 without any
void draw_measure(Draw *to, const ModelConfig *config, int32_t prompt_tokens, const Completion *c, int32_t think, int32_t answer);
bool draw_detail(Draw *to, const Tokenizer *t, const Completion *c, const Buf *text, const char *truth, Arena *arena, Err *err) MUST_CHECK;
// A level's first few answers, word for word, to be read beside those of another evaluation (evaluate_answers.c).
bool answer_is_kept(int item_of_level);
void answer_keep(EvaluatedItem *to, const Completion *c, Arena *arena);
json_t *evaluation_answers(const Evaluation *e);

#endif
