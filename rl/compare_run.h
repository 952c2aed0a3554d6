// Making arms answer: what `compare` and the end of a run share.
#ifndef RECKON_COMPARE_RUN_H
#define RECKON_COMPARE_RUN_H
#include "accounts.h"
#include "compare.h"
#include "evaluate_endpoint.h"
#include "router.h"

// Reward scripts that choose the best of k, for all arms that name one. Their workers are forked before a model is loaded.
typedef struct Judges {
    char *name[16];
    RewardPool *pool[16];
    int count;
} Judges;
// Of the arms that these texts name (see arm.h); scripts are looked for beside the recipe, then here.
bool judges_open(const char *const *arms, const Recipe *r, Judges *out, Err *err) MUST_CHECK;
void judges_close(Judges *j);

// A model to be compared. Opened when its turn comes, unless `policy` is open already.
typedef struct ModelChoice {
    const char *name;
    const char *path;     // folder or file of the weights
    const char *what;     // as ComparedModel
    const Recipe *recipe; // how it is asked
    Policy *policy;       // borrowed; NULL: opened from `path`
    int adapter;          // of that policy
    bool has_adapter;
    int64_t step;         // -1: none
    const EndpointOptions *endpoint; // asked over HTTP, and there are no weights; NULL: a model of ours
} ModelChoice;

typedef struct CompareSetup {
    const Recipe *recipe; // of the items and the rewards
    const Tasks *tasks;
    RewardPool *rewards;
    const Judges *judges;
    const ModelChoice *models;
    int model_count;
    const char *const *arms;   // texts; empty: think and direct
    const char *device;        // NULL: the recipe's
    int items, seeds, latency;
    double temperature;        // of arms that sample
    double margin, worth;      // worth 0: not stated
    Prices prices;
    bool samples;              // keep every answer
    bool gain;                 // against the first model's checkpoint before GRPO, where there is one
    int64_t step;              // of the first model's run; -1: none
    json_t *notes;             // of the caller; may be NULL
} CompareSetup;
bool compare_models(const CompareSetup *s, json_t **out, Err *err) MUST_CHECK;
void compare_defaults(const Recipe *r, CompareSetup *out); // what the recipe says

// ---- parts -------------------------------------------------------------------------------------------------
// Seconds of answering `count` items one at a time, spread over the levels; *measured of them were there. Environments are left out: 0.
bool evaluate_latency(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, int count, double *seconds,
                      int *measured, Err *err) MUST_CHECK;
// The answers of an arm, for the document's `samples`.
bool samples_append(json_t *to, const Arm *arm, const Evaluation *e, const Tokenizer *t, Err *err) MUST_CHECK;
// Fits the router of a model, judges it on the items that `think` and `direct` answered, and adds what it came to.
typedef struct RouterSetup {
    const CompareSetup *compare;
    const ModelChoice *choice;
    Policy *policy;
    const Evaluation *think, *direct;               // greedy, of the comparison's items
    const ArmResult *think_result, *direct_result;
    Energy *energy;
} RouterSetup;
bool router_compare(const RouterSetup *s, ComparedModel *model, ArmResult *out, Err *err) MUST_CHECK;

#endif
