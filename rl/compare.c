// What thinking is worth: the same held-out items answered greedily in both modes by the run's final model, level by
// level, and what GRPO added over the checkpoint before it. Differences are paired by item: a bootstrap interval
// (95 %, 10,000 resamples, seeded by the recipe) and McNemar's exact test. Nothing here sees which outcome is hoped
// for: which levels count as hard follows from their order alone (the upper half of a task's levels).
//
// The document (`compare --json`, and on the ledger as evaluation "compare"):
//
// {"replayable": {                         // a function of the recipe
//    "step": 900, "before_step": 300,      // before_step is null where the run has no checkpoint from before GRPO
//    "confidence": 0.95, "resamples": 10000, "margin": 0.05,
//    "levels": [{"kind": "arithmetic", "level": 4, "hard": true,
//       "think": MODE, "direct": MODE,
//       "difference": PAIR,                // a: think, b: direct
//       "token_ratio": 9.2,                // new tokens of think over those of direct; null if unknown
//       "verdict": "thinking pays",        // or "direct is as good", "direct is better", "neither works", "not settled"
//       "sentence": "thinking pays: ..."}],
//    "all": {"think": MODE, "direct": MODE, "difference": PAIR, "token_ratio": 5.1},   // every level pooled
//    "gain": null | {                      // what GRPO added; in these PAIRs a: after, b: before
//       "levels": [{"kind", "level", "hard", "think": PAIR, "direct": PAIR}],
//       "hard_think": PAIR,                // think mode, all hard levels pooled
//       "sentence": "..."}},
//  "measured": {                           // from the clock, or stated in the recipe
//    "price_per_hour": 1.2 | "not stated", "currency": "EUR" | null, "watts": 45 | "not stated",
//    "levels": [{"kind", "level", "think": COST, "direct": COST}],
//    "all": {"think": COST, "direct": COST}}}
//
// MODE: {"items","correct","accuracy","low","high" (Wilson),"pass","tokens","think_tokens","answer_tokens",
//        "prompt_tokens","flops" (means per item),"truncated","unscored" (counts),"outcomes": "0110..."}
// PAIR: {"items","a","b" (accuracies),"difference" (a - b),"low","high","p" (McNemar),"only_a","only_b" (counts)}
// COST: {"seconds" (sampling, all items of the level),"seconds_per_item","cost_per_correct","joules_per_correct"}; a cost
//        is a number, "inf" if no answer was correct, or "not stated". What isn't known is never 0.
// Numbers that don't exist (means over no items) are null.
#include "compare.h"
#include "files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double confidence = 0.95, margin = 0.05;
enum { RESAMPLES = 10000 };

// ---- pairs -----------------------------------------------------------------------------------------------
// A set of levels as a bit a level.
typedef struct Selection {
    const bool *level; // [levels]; NULL: all
} Selection;

static int outcomes_of(const Evaluation *e, Selection which, double *out) {
    int n = 0;
    for (int i = 0; i < e->count; i++)
        if (!which.level || which.level[e->items[i].level_index]) out[n++] = e->items[i].correct;
    return n;
}

static json_t *pair_json(const Comparison *c, const Evaluation *a, const Evaluation *b, Selection which) {
    double *x = xcalloc((size_t)a->count + 1, sizeof *x), *y = xcalloc((size_t)b->count + 1, sizeof *y);
    int n = outcomes_of(a, which, x), only_a = 0, only_b = 0;
    int other = outcomes_of(b, which, y);
    if (other < n) n = other; // the same items by construction
    double sum_a = 0, sum_b = 0;
    for (int i = 0; i < n; i++) {
        sum_a += x[i], sum_b += y[i];
        only_a += x[i] > y[i], only_b += y[i] > x[i];
    }
    Interval interval = paired_bootstrap(x, y, n, RESAMPLES, c->seed, confidence);
    free(x), free(y);
    return json_pack("{s:i,s:o,s:o,s:o,s:o,s:o,s:f,s:i,s:i}", "items", n, "a", json_number_or_name(sum_a / n), "b",
                     json_number_or_name(sum_b / n), "difference", json_number_or_name((sum_a - sum_b) / n), "low",
                     json_number_or_name(interval.low), "high", json_number_or_name(interval.high), "p",
                     mcnemar_exact(only_a, only_b), "only_a", only_a, "only_b", only_b);
}

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

// ---- the upper half of each task's levels ----------------------------------------------------------------
static void find_hard(const Comparison *c, bool *hard) {
    for (int i = 0; i < c->levels; i++) {
        int of_kind = 0, below = 0;
        for (int k = 0; k < c->levels; k++) {
            if (strcmp(c->level[k].kind, c->level[i].kind) != 0) continue;
            of_kind++;
            below += c->level[k].level < c->level[i].level;
        }
        hard[i] = below >= of_kind - (of_kind > 1 ? of_kind / 2 : 1);
    }
}

// ---- verdicts --------------------------------------------------------------------------------------------
// An interval says nothing of what it has not seen: without one pair that differs its width is 0. So a difference also
// has to pass McNemar's test, and sameness needs so many items that a difference beyond the margin would have shown in
// one of them with 95 % confidence (the rule of three).
static const char *verdict_of(const json_t *pair) {
    double low = number(pair, "low"), high = number(pair, "high"), items = number(pair, "items");
    bool differs = number(pair, "p") < 1 - confidence;
    if (!(items > 0)) return "not settled";
    if (number(pair, "a") <= margin && number(pair, "b") <= margin) return "neither works";
    if (high < 0 && differs) return "direct is better";
    if (high <= margin && 3 / items <= margin) return "direct is as good"; // thinking gains at most the margin
    if (low > 0 && differs) return "thinking pays";
    return "not settled";
}

static void write_sentence(const char *verdict, const json_t *pair, double ratio, char *out, size_t size) {
    char interval[96], cost[96] = "";
    snprintf(interval, sizeof interval, "%+.1f points (95 %%: %+.1f to %+.1f)", 100 * number(pair, "difference"),
             100 * number(pair, "low"), 100 * number(pair, "high"));
    if (!strcmp(verdict, "thinking pays")) {
        if (isfinite(ratio)) snprintf(cost, sizeof cost, " for %.1f times the tokens", ratio);
        snprintf(out, size, "thinking pays: %s%s", interval, cost);
    } else if (!strcmp(verdict, "neither works")) {
        snprintf(out, size, "neither mode gets more than %.0f %% right", 100 * margin);
    } else if (!strcmp(verdict, "not settled")) {
        snprintf(out, size, "not settled: thinking makes %s of difference; more items would tell", interval);
    } else {
        if (ratio > 1 && isfinite(ratio)) snprintf(cost, sizeof cost, " and %.1f times cheaper in tokens", ratio);
        snprintf(out, size, "%s%s: thinking makes %s of difference", verdict, cost, interval);
    }
}

// ---- the replayable half ---------------------------------------------------------------------------------
static json_t *mode_json(const Evaluation *e, int level, const TaskLevel *name) {
    json_t *out = evaluation_level_json(e, level, name);
    json_object_del(out, "kind");
    json_object_del(out, "level");
    return out;
}

// All levels as if they were one.
static json_t *pooled_json(const Evaluation *e) {
    Evaluation flat = *e;
    flat.items = xcalloc((size_t)e->count + 1, sizeof *flat.items);
    for (int i = 0; i < e->count; i++) {
        flat.items[i] = e->items[i];
        flat.items[i].level_index = 0;
    }
    json_t *out = mode_json(&flat, 0, &(TaskLevel){.kind = "all"});
    free(flat.items);
    return out;
}

static double token_ratio(const json_t *think, const json_t *direct) {
    double t = number(think, "tokens"), d = number(direct, "tokens");
    return d > 0 ? t / d : NAN;
}

static json_t *level_comparison(const Comparison *c, int level, bool hard) {
    bool *only = xcalloc((size_t)c->levels, sizeof(bool));
    only[level] = true;
    json_t *think = mode_json(c->after[MODE_THINK], level, &c->level[level]);
    json_t *direct = mode_json(c->after[MODE_DIRECT], level, &c->level[level]);
    json_t *pair = pair_json(c, c->after[MODE_THINK], c->after[MODE_DIRECT], (Selection){only});
    double ratio = token_ratio(think, direct);
    const char *verdict = verdict_of(pair);
    char sentence[256];
    write_sentence(verdict, pair, ratio, sentence, sizeof sentence);
    free(only);
    return json_pack("{s:s,s:i,s:b,s:o,s:o,s:o,s:o,s:s,s:s}", "kind", c->level[level].kind, "level", c->level[level].level,
                     "hard", (int)hard, "think", think, "direct", direct, "difference", pair, "token_ratio",
                     json_number_or_name(ratio), "verdict", verdict, "sentence", sentence);
}

static json_t *gain_json(const Comparison *c, const bool *hard) {
    if (!c->before[MODE_THINK] || !c->before[MODE_DIRECT]) return json_null();
    json_t *levels = json_array(), *of_mode[MODES];
    for (int i = 0; i < c->levels; i++) {
        bool *only = xcalloc((size_t)c->levels, sizeof(bool));
        only[i] = true;
        for (Mode m = 0; m < MODES; m++) of_mode[m] = pair_json(c, c->after[m], c->before[m], (Selection){only});
        free(only);
        json_array_append_new(levels, json_pack("{s:s,s:i,s:b,s:o,s:o}", "kind", c->level[i].kind, "level", c->level[i].level,
                                                "hard", (int)hard[i], "think", of_mode[MODE_THINK], "direct",
                                                of_mode[MODE_DIRECT]));
    }
    json_t *pooled = pair_json(c, c->after[MODE_THINK], c->before[MODE_THINK], (Selection){hard});
    double low = number(pooled, "low"), high = number(pooled, "high");
    bool differs = number(pooled, "p") < 1 - confidence;
    char sentence[256];
    snprintf(sentence, sizeof sentence, "GRPO %s hard items in think mode: %+.1f points (95 %%: %+.1f to %+.1f), %.1f %% to %.1f %%",
             low > 0 && differs ? "improved" : high < 0 && differs ? "worsened" : "made no settled difference on", 100 * number(pooled, "difference"),
             100 * low, 100 * high, 100 * number(pooled, "b"), 100 * number(pooled, "a"));
    return json_pack("{s:o,s:o,s:s}", "levels", levels, "hard_think", pooled, "sentence", sentence);
}

static json_t *replayable_json(const Comparison *c) {
    bool *hard = xcalloc((size_t)c->levels + 1, sizeof(bool));
    find_hard(c, hard);
    json_t *levels = json_array();
    for (int i = 0; i < c->levels; i++) json_array_append_new(levels, level_comparison(c, i, hard[i]));
    json_t *think = pooled_json(c->after[MODE_THINK]), *direct = pooled_json(c->after[MODE_DIRECT]);
    json_t *ratio = json_number_or_name(token_ratio(think, direct));
    json_t *all = json_pack("{s:o,s:o,s:o,s:o}", "think", think, "direct", direct, "difference",
                            pair_json(c, c->after[MODE_THINK], c->after[MODE_DIRECT], (Selection){NULL}), "token_ratio", ratio);
    json_t *before = c->before[MODE_THINK] ? json_integer(c->before_step) : json_null();
    json_t *out = json_pack("{s:I,s:o,s:f,s:i,s:f,s:o,s:o,s:o}", "step", (json_int_t)c->step, "before_step", before,
                            "confidence", confidence, "resamples", RESAMPLES, "margin", margin, "levels", levels, "all", all,
                            "gain", gain_json(c, hard));
    free(hard);
    return out;
}

// ---- the measured half -----------------------------------------------------------------------------------
static json_t *stated(double value) { return value > 0 ? json_real(value) : json_string("not stated"); }
static json_t *per_correct(double rate, double amount, int correct) {
    if (!(rate > 0)) return json_string("not stated");
    return json_number_or_name(correct > 0 ? rate * amount / correct : INFINITY);
}

// `level` below 0: all of them.
static json_t *cost_json(const Comparison *c, const Evaluation *e, int level) {
    double seconds = 0;
    int items = 0, correct = 0;
    for (int i = 0; i < c->levels; i++)
        if (level < 0 || i == level) seconds += e->level_seconds[i];
    for (int i = 0; i < e->count; i++)
        if (level < 0 || e->items[i].level_index == level) items++, correct += e->items[i].correct;
    return json_pack("{s:f,s:o,s:o,s:o}", "seconds", seconds, "seconds_per_item",
                     json_number_or_name(items > 0 ? seconds / items : NAN), "cost_per_correct",
                     per_correct(c->price_per_hour, seconds / 3600, correct), "joules_per_correct",
                     per_correct(c->watts, seconds, correct));
}

static json_t *measured_json(const Comparison *c) {
    json_t *levels = json_array();
    for (int i = 0; i < c->levels; i++)
        json_array_append_new(levels, json_pack("{s:s,s:i,s:o,s:o}", "kind", c->level[i].kind, "level", c->level[i].level,
                                                "think", cost_json(c, c->after[MODE_THINK], i), "direct",
                                                cost_json(c, c->after[MODE_DIRECT], i)));
    json_t *all = json_pack("{s:o,s:o}", "think", cost_json(c, c->after[MODE_THINK], -1), "direct",
                            cost_json(c, c->after[MODE_DIRECT], -1));
    return json_pack("{s:o,s:s?,s:o,s:o,s:o}", "price_per_hour", stated(c->price_per_hour), "currency", c->currency, "watts",
                     stated(c->watts), "levels", levels, "all", all);
}

json_t *comparison_json(const Comparison *c) {
    return json_pack("{s:o,s:o}", "replayable", replayable_json(c), "measured", measured_json(c));
}

// ---- a run -----------------------------------------------------------------------------------------------
// The step at which the last GRPO stage that follows other stages began, where its checkpoint is still there.
static char *checkpoint_before_grpo(const Recipe *r, int64_t final_step, int64_t *step) {
    int64_t at = 0, found = 0;
    for (int i = 0; i < r->stage_count; i++) {
        if (r->stages[i].kind == STAGE_GRPO && i > 0 && r->stages[i - 1].kind != STAGE_GRPO) found = at;
        at += r->stages[i].steps;
    }
    if (found <= 0 || found >= final_step || !r->run_folder) return NULL;
    char *folder = xasprintf("%s/checkpoints/step-%lld", r->run_folder, (long long)found);
    *step = found;
    if (file_is_folder(folder)) return folder;
    free(folder);
    return NULL;
}

static bool evaluate_both(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, const char *which,
                          Evaluation out[MODES], Err *err) {
    for (Mode m = 0; m < MODES; m++) {
        log_line(LOG_INFO, "comparing: %s answers the held-out items in %s mode", which, mode_names[m]);
        TRY(evaluate(p, r, t, rewards, m, r->compare_items, 0, &out[m], err));
    }
    return true;
}

static bool evaluate_before(const Policy *policy, const char *folder, const Recipe *r, const Tasks *t, RewardPool *rewards,
                            Evaluation out[MODES], Err *err) {
    PolicyOptions options = {.precision = r->precision, .beside = policy, .keep_blocks = r->keep_blocks};
    Policy *before;
    TRY(policy_open(folder, &options, &before, err));
    bool ok = evaluate_both(before, r, t, rewards, "the model before GRPO", out, err);
    policy_close(before);
    return ok;
}

bool compare_run(Policy *policy, const Recipe *r, const Tasks *t, RewardPool *rewards, Ledger *ledger, int64_t step,
                 json_t **out, Err *err) {
    Evaluation after[MODES] = {0}, before[MODES] = {0};
    Comparison c = {.seed = r->seed, .levels = tasks_level_count(t), .step = step, .price_per_hour = r->price_per_hour,
                    .watts = r->watts, .currency = r->currency};
    TaskLevel *levels = xcalloc((size_t)c.levels + 1, sizeof *levels);
    for (int i = 0; i < c.levels; i++) tasks_level(t, i, &levels[i]);
    c.level = levels;
    char *folder = checkpoint_before_grpo(r, step, &c.before_step);
    bool ok = evaluate_both(policy, r, t, rewards, "the final model", after, err);
    if (ok && folder) ok = evaluate_before(policy, folder, r, t, rewards, before, err);
    for (Mode m = 0; m < MODES; m++) {
        c.after[m] = &after[m];
        c.before[m] = folder ? &before[m] : NULL;
    }
    *out = ok ? comparison_json(&c) : NULL;
    if (ok && !*out) ok = fail(err, ERR_DATA, r->name, "a task's kind or the currency isn't UTF-8");
    if (ok && ledger)
        ok = ledger_evaluation(ledger, step, "compare", json_object_get(*out, "replayable"), json_object_get(*out, "measured"), err);
    for (Mode m = 0; m < MODES; m++) evaluation_free(&after[m]), evaluation_free(&before[m]);
    free(levels), free(folder);
    if (!ok && *out) json_decref(*out), *out = NULL;
    return ok;
}
