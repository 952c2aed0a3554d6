// The router: whether a question is worth thinking about, told from its direct answer. Fitted on a split of its own, judged on the
// held-out items of a comparison, kept beside the weights as router.json (router.c; router_file.c reads and writes it).
#ifndef RECKON_ROUTER_H
#define RECKON_ROUTER_H
#include "arm.h"

#define ROUTER_FILE "router.json"
enum { ROUTER_PLAIN = 3 }; // features beside the level: prompt length, mean and least logprob of the direct answer

// What the router is told of a question, and what came of both ways of answering it.
typedef struct RouterItem {
    int level;              // into the router's levels; -1: not told
    double prompt_tokens, mean_logprob, min_logprob;
    bool think_right, direct_right;
    double think_cost, direct_cost; // in any one unit
} RouterItem;
// A logistic model of "the answer will be right" for each mode; features are standardised.
typedef struct RouterModel {
    int width;              // 1 + ROUTER_PLAIN (+ levels)
    double *weight[MODES];  // [width]
} RouterModel;
typedef struct Router {
    int levels;
    char **kind;            // [levels]
    int *level;             // [levels]
    double mean[ROUTER_PLAIN], scale[ROUTER_PLAIN];
    RouterModel told, untold; // with the task's kind and level, and without
    double threshold[2];    // of the gain above which thinking is worth it: told, untold
    int fitted;             // items
    char model_hash[65];    // of the files of weights that it speaks of (policy_files_hash)
    char recipe_hash[65];
    bool chat;              // how its questions were put
    PromptStyle style[MODES];
    int32_t max_tokens;
    Arena arena;            // owns all of the above
} Router;

// Fits both models and their thresholds: the cheapest routing of these items that is right as often as the better of always
// thinking and always answering directly, less `tolerance`; with `price` (of a unit of cost, in right answers) above 0, the one
// where a thought's gain pays for it. A function of its arguments.
void router_fit(Router *r, const RouterItem *items, int count, double tolerance, double price);
// By how much thinking makes a right answer likelier.
double router_gain(const Router *r, const RouterItem *item);
bool router_thinks(const Router *r, const RouterItem *item);
// The same of a direct answer to a question that comes without a task; *gain may be NULL.
bool router_thinks_about(const Router *r, double prompt_tokens, const Completion *direct, double *gain);
void router_items(const Evaluation *think, const Evaluation *direct, RouterItem *out); // [count of both]

bool router_write(const Router *r, const char *path, Err *err) MUST_CHECK;
bool router_read(const char *path, Router *out, Err *err) MUST_CHECK;
void router_free(Router *r);
json_t *router_features(const Router *r); // their names
char *router_path(const char *model);     // beside the weights; the caller frees it
// That of a model's folder or file, checked against its weights. ERR_NOINPUT: it has none; the message names what makes one.
bool router_of_model(const char *model, Router *out, Err *err) MUST_CHECK;

#endif
