// An arm of a comparison: a model, a mode, a budget of thinking and a strategy; and what it made of each item. All arms answer
// the same items in the same order (arm.c: their names; strategy.c: from draws to answers).
#ifndef RECKON_ARM_H
#define RECKON_ARM_H
#include "rl.h"

typedef enum Strategy { STRATEGY_GREEDY, STRATEGY_SAMPLED, STRATEGY_MAJORITY, STRATEGY_BEST, STRATEGY_ROUTED } Strategy;
extern const char *const strategy_names[];

typedef struct Arm {
    char *name;
    int model;
    Mode mode;          // routed: of neither
    int32_t budget;     // thinking is closed after so many tokens; 0: as the recipe says
    Strategy strategy;
    int k;              // draws of one answer; 0: as many as equal cost allows, level by level
    int seeds;
    double temperature; // 0: greedy
    char *reward;       // of best of k; NULL otherwise
    int equal_to;       // arm whose tokens pay for the draws; -1: none
} Arm;
typedef struct ArmList {
    Arm *arms;
    int count;
} ArmList;

// What arms are named on the command line and in recipes:
//   [MODEL/]think, direct         optionally @N: thinking is closed after N tokens
//   ...:sampled  ...:majority=K  ...:best=K,REWARD
//   votes      direct answers, as many as think's tokens pay for at each level, put to the vote
//   budgets[=N,N,...]   think with each of these budgets (default: a half, a quarter, ... of max_tokens)
//   routed     the direct answer first, then thinking where the router says so
// Without a MODEL an arm is one of every model. What an arm is measured against (think, direct) is added where it is missing.
typedef struct ArmDefaults {
    const char *const *models; // [model_count] names
    int model_count;
    int seeds;          // of arms that sample
    double temperature; // of these
    int32_t max_tokens;
} ArmDefaults;
bool arms_parse(const char *const *texts, const ArmDefaults *d, ArmList *out, Err *err) MUST_CHECK;
void arms_free(ArmList *a);
int arm_find(const ArmList *a, int model, Strategy strategy, Mode mode, int32_t budget); // -1: none

// ---- what an arm made of the items -----------------------------------------------------------------------
typedef struct ArmItem { // means over seeds; an answer's draws together
    int level;
    double correct, pass;      // of answers, of draws
    double prompt_tokens, tokens, think_tokens, answer_tokens, flops;
    double efficiency;         // tokens up to the first correct answer over all; 0 where none was correct
    int truncated, unscored, abstained; // draws, draws, answers
} ArmItem;
typedef struct ArmResult {
    int count, seeds, levels;
    ArmItem *items;        // [count]
    uint8_t *right;        // [seeds][count]
    int *k;                // [levels]
    double *seconds, *joules; // [levels] of one answer to each of the level's items; NaN: not measured
    double *latency;       // [latency_count] seconds of an answer
    int latency_count;
    int64_t judged, unjudged;     // draws that the script of best of k was given, and on which it failed
    char unjudged_why[256];       // of the first of these
    double spent_tokens, spent_prompt_tokens, spent_flops, spent_seconds, spent_joules; // all of it, for the accounts
    double spent_cpu, spent_waiting; // of these seconds, over all threads: on a processor, and ready without one; NaN: not known
} ArmResult;
// From an evaluation with seeds * k draws an item. `judge` scores the draws of best of k.
bool arm_result(const Arm *arm, const Evaluation *e, int levels, RewardPool *judge, uint64_t seed, ArmResult *out, Err *err) MUST_CHECK;
// The direct answer first, and thinking as well where `thinks` [count] says so.
void arm_result_routed(const ArmResult *think, const ArmResult *direct, const bool *thinks, ArmResult *out);
void arm_result_free(ArmResult *r);

#endif
