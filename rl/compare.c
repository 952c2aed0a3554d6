// What thinking is worth, and anything else that arms can be compared in: the document's replayable half, whose form is told in
// docs/compare.md. Arms answer the same held-out items; differences are paired by item (a bootstrap interval, 95 %, 10,000
// resamples, seeded by the recipe; McNemar's exact test; Holm's correction within a kind of task). Which levels count as hard
// follows from their order alone (the upper half of a task's levels).
#include "compare.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- groups of levels ----------------------------------------------------------------------------------------
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
int comparison_kinds(const Comparison *c, int *kind_of) {
    int kinds = 0;
    for (int i = 0; i < c->levels; i++) {
        int first = 0;
        while (strcmp(c->level[first].kind, c->level[i].kind) != 0) first++;
        kind_of[i] = first < i ? kind_of[first] : kinds++;
    }
    return kinds;
}
static const char *kind_name(const Comparison *c, const int *kind_of, int kind) {
    for (int i = 0; i < c->levels; i++)
        if (kind_of[i] == kind) return c->level[i].kind;
    return "";
}

// What the lists of the document go over: levels, then kinds, then all.
typedef struct Groups {
    int levels, kinds, count; // levels + kinds + 1
    int *kind_of;             // [levels]
    bool *which;              // [count][levels]
} Groups;
static Groups groups_of(const Comparison *c) {
    Groups g = {.levels = c->levels, .kind_of = xcalloc((size_t)c->levels + 1, sizeof(int))};
    g.kinds = comparison_kinds(c, g.kind_of);
    g.count = g.levels + g.kinds + 1;
    g.which = xcalloc((size_t)g.count * (size_t)(c->levels + 1), sizeof(bool));
    for (int i = 0; i < g.count; i++)
        for (int l = 0; l < g.levels; l++)
            g.which[i * g.levels + l] = i < g.levels ? l == i : i < g.levels + g.kinds ? g.kind_of[l] == i - g.levels : true;
    return g;
}
static void groups_free(Groups *g) { free(g->kind_of), free(g->which); }
static const bool *group(const Groups *g, int i) { return g->which + (size_t)i * (size_t)g->levels; }
// {"levels": [..], "kinds": [..], "all": ..} of a list in that order; takes it.
static void put_groups(json_t *to, const Groups *g, json_t *list) {
    json_t *levels = json_array(), *kinds = json_array();
    for (int i = 0; i < g->levels + g->kinds; i++) json_array_append(i < g->levels ? levels : kinds, json_array_get(list, (size_t)i));
    json_object_set_new(to, "levels", levels);
    json_object_set_new(to, "kinds", kinds);
    json_object_set(to, "all", json_array_get(list, (size_t)(g->count - 1)));
    json_decref(list);
}

// ---- an arm's results ----------------------------------------------------------------------------------------
static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
// Nearest rank for the 95th percentile, the middle for the median; sorts `values`.
static json_t *spread_json(double *values, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += values[i];
    if (n == 0 || isnan(sum)) return json_pack("{s:n,s:n,s:n}", "mean", "median", "p95");
    qsort(values, (size_t)n, sizeof *values, compare_numbers);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return json_pack("{s:f,s:f,s:f}", "mean", sum / n, "median", median, "p95", values[(int)ceil(0.95 * n) - 1]);
}

typedef struct Sums {
    int items, truncated, unscored, abstained, k;
    double correct, pass, prompt, tokens, flops, efficiency;
} Sums;
static void add_item(const ArmResult *r, const ArmItem *item, Sums *s) {
    int k = r->k[item->level];
    s->k = s->items == 0 ? k : s->k == k ? k : 0;
    s->items++;
    s->correct += item->correct, s->pass += item->pass, s->prompt += item->prompt_tokens, s->tokens += item->tokens;
    s->flops += item->flops, s->efficiency += item->efficiency;
    s->truncated += item->truncated, s->unscored += item->unscored, s->abstained += item->abstained;
}

// Of a mean over items that each have several seeds: between the seeds' means, and within them.
static json_t *seeds_json(const ArmResult *r, const bool *which, const Sums *s, double *error) {
    double mean = s->correct / s->items, squares = 0, between = 0, within = 0;
    *error = NAN;
    if (r->seeds < 2 || s->items == 0) return json_null();
    json_t *accuracy = json_array();
    for (int i = 0; i < r->count; i++)
        if (which[r->items[i].level]) squares += (r->items[i].correct - mean) * (r->items[i].correct - mean);
    for (int seed = 0; seed < r->seeds; seed++) {
        int right = 0;
        for (int i = 0; i < r->count; i++) right += which[r->items[i].level] && r->right[(int64_t)seed * r->count + i];
        double share = (double)right / s->items;
        json_array_append_new(accuracy, json_real(share));
        between += (share - mean) * (share - mean) / (r->seeds - 1);
        within += share * (1 - share) / s->items / r->seeds;
    }
    *error = s->items > 1 ? sqrt(squares / (s->items - 1.0) / s->items) : NAN;
    return json_pack("{s:o,s:f,s:f,s:o}", "accuracy", accuracy, "between", between, "within", within, "error", json_number_or_name(*error));
}

static json_t *per_correct(double amount, double correct) {
    return json_number_or_name(isnan(amount) ? NAN : correct > 0 ? amount / correct : INFINITY);
}

static json_t *result_json(const ArmResult *r, const bool *which) {
    Sums s = {0};
    double *column[3], error;
    char *outcomes = xcalloc((size_t)r->count + 1, 1);
    for (int i = 0; i < 3; i++) column[i] = xcalloc((size_t)r->count + 1, sizeof(double));
    for (int i = 0; i < r->count; i++) {
        const ArmItem *item = &r->items[i];
        if (!which[item->level]) continue;
        column[0][s.items] = item->tokens, column[1][s.items] = item->think_tokens, column[2][s.items] = item->answer_tokens;
        outcomes[s.items] = r->right[i] ? '1' : '0';
        add_item(r, item, &s);
    }
    double n = s.items, share = n > 0 ? s.correct / n : NAN;
    json_t *seeds = seeds_json(r, which, &s, &error);
    double trials = r->seeds > 1 ? effective_trials(share, error, n, n * r->seeds) : n;
    Interval wilson = wilson_share(share, trials, CONFIDENCE), exact = {0, 1};
    if (s.items) exact = clopper_pearson_interval(llround(share * trials), llround(trials), CONFIDENCE);
    json_t *out = json_pack("{s:i,s:o,s:o,s:f,s:f,s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:i,s:i,s:i,s:o,s:o,s:o,s:o,s:s,s:o}", "items", s.items, "correct",
                            json_number_or_name(s.correct), "accuracy", json_number_or_name(share), "low", wilson.low, "high", wilson.high,
                            "exact_low", exact.low, "exact_high", exact.high, "pass", json_number_or_name(s.pass / n), "k",
                            s.k ? json_integer(s.k) : json_null(), "prompt_tokens", json_number_or_name(s.prompt / n), "tokens",
                            spread_json(column[0], s.items), "think_tokens", spread_json(column[1], s.items), "answer_tokens",
                            spread_json(column[2], s.items), "truncated", s.truncated, "unscored", s.unscored, "abstained", s.abstained, "flops",
                            json_number_or_name(s.flops / n), "tokens_per_correct", per_correct(s.tokens, s.correct), "flops_per_correct",
                            per_correct(s.flops, s.correct), "outcome_efficiency", json_number_or_name(s.efficiency / n), "outcomes", outcomes,
                            "seeds", seeds);
    for (int i = 0; i < 3; i++) free(column[i]);
    free(outcomes);
    return out;
}

static json_t *arm_json(const Comparison *c, const Groups *g, int index) {
    const Arm *a = &c->arms.arms[index];
    json_t *list = json_array();
    json_t *out = json_pack("{s:s,s:i,s:s,s:o,s:s,s:o,s:i,s:f,s:s?,s:s?}", "name", a->name, "model", a->model, "mode",
                            a->strategy == STRATEGY_ROUTED ? "routed" : mode_names[a->mode], "budget",
                            a->budget ? json_integer(a->budget) : json_null(), "strategy", strategy_names[a->strategy], "k",
                            a->k ? json_integer(a->k) : json_null(), "seeds", a->seeds, "temperature", a->temperature, "reward", a->reward,
                            "equal_cost_to", a->equal_to >= 0 ? c->arms.arms[a->equal_to].name : NULL);
    for (int i = 0; i < g->count; i++) json_array_append_new(list, result_json(&c->results[index], group(g, i)));
    put_groups(out, g, list);
    return out;
}

// ---- pairs ---------------------------------------------------------------------------------------------------
// Within a model: think against direct, and every other arm against these two. Across models: the same arm of each later model
// against that of the first.
static const char *what_of(const Arm *a) {
    if (a->strategy == STRATEGY_ROUTED) return "routed";
    if (a->equal_to >= 0) return "votes";
    return a->budget && a->strategy == STRATEGY_GREEDY ? "budget" : "strategy";
}
static int same_arm_of(const Comparison *c, int index, int model) {
    const Arm *a = &c->arms.arms[index];
    for (int i = 0; i < c->arms.count; i++) {
        const Arm *b = &c->arms.arms[i];
        bool reward = a->reward && b->reward ? !strcmp(a->reward, b->reward) : a->reward == b->reward;
        if (b->model == model && a->mode == b->mode && a->budget == b->budget && a->strategy == b->strategy && a->k == b->k && reward &&
            (a->equal_to < 0) == (b->equal_to < 0)) return i;
    }
    return -1;
}
static void add_pair(ArmPair *pairs, int *count, int a, int b, const char *what) {
    if (a >= 0 && b >= 0 && a != b) pairs[(*count)++] = (ArmPair){a, b, what};
}
int comparison_pairs(const Comparison *c, ArmPair **out) {
    ArmPair *pairs = *out = xcalloc(4 * (size_t)c->arms.count + 1, sizeof *pairs);
    int count = 0;
    for (int m = 0; m < c->model_count; m++) {
        int think = arm_find(&c->arms, m, STRATEGY_GREEDY, MODE_THINK, 0), direct = arm_find(&c->arms, m, STRATEGY_GREEDY, MODE_DIRECT, 0);
        add_pair(pairs, &count, think, direct, "modes");
        for (int i = 0; i < c->arms.count; i++) {
            const Arm *a = &c->arms.arms[i];
            if (a->model != m || i == think || i == direct) continue;
            add_pair(pairs, &count, i, think, what_of(a));
            add_pair(pairs, &count, i, direct, what_of(a));
        }
    }
    for (int i = 0; i < c->arms.count; i++)
        if (c->arms.arms[i].model > 0) add_pair(pairs, &count, i, same_arm_of(c, i, 0), "models");
    return count;
}

// Holm's correction: the tests of a kind's levels over all pairs are one family, those of the kind as a whole another.
static void correct_family(const Groups *g, Contrast *all, int pairs, int kind, bool levels) {
    double *p = xcalloc((size_t)(pairs * g->count) + 1, sizeof *p), *adjusted = xcalloc((size_t)(pairs * g->count) + 1, sizeof *adjusted);
    for (int pass = 0; pass < 2; pass++) {
        int n = 0;
        for (int i = 0; i < pairs * g->count; i++) {
            int at = i % g->count;
            bool in = levels ? at < g->levels && g->kind_of[at] == kind : at == g->levels + kind; // kind g->kinds: everything
            if (!in || all[i].items <= 0) continue;
            if (pass == 0) p[n++] = all[i].p;
            else all[i].p_holm = adjusted[n++];
        }
        if (pass == 0) adjust_p_values(TESTS_HOLM, p, n, adjusted);
    }
    free(p), free(adjusted);
}

static json_t *pairs_json(const Comparison *c, const Groups *g) {
    ArmPair *pairs;
    int count = comparison_pairs(c, &pairs);
    Contrast *all = xcalloc((size_t)(count * g->count) + 1, sizeof *all);
    for (int i = 0; i < count * g->count; i++) {
        const ArmPair *p = &pairs[i / g->count];
        int at = i % g->count;
        bool single = g->kinds == 1 && at == g->count - 1; // all is that kind
        if (single) all[i] = all[i - 1];
        else contrast_make(&c->results[p->a], &c->results[p->b], group(g, at), c->seed, &all[i]);
    }
    for (int kind = 0; kind < g->kinds; kind++) correct_family(g, all, count, kind, true);
    for (int kind = 0; kind <= g->kinds; kind++) correct_family(g, all, count, kind, false);
    json_t *out = json_array();
    for (int k = 0; k < count; k++) {
        const char *a = c->arms.arms[pairs[k].a].name, *b = c->arms.arms[pairs[k].b].name;
        ContrastNames names = {a, b, !strcmp(pairs[k].what, "modes")};
        if (names.modes && c->model_count == 1) names.a = "think", names.b = "direct";
        json_t *list = json_array(), *pair = json_pack("{s:s,s:s,s:s}", "a", a, "b", b, "what", pairs[k].what);
        for (int i = 0; i < g->count; i++) {
            contrast_judge(&all[k * g->count + i], c->margin);
            json_array_append_new(list, contrast_json(&all[k * g->count + i], &names, c->margin));
        }
        put_groups(pair, g, list);
        json_array_append_new(out, pair);
    }
    free(all), free(pairs);
    return out;
}

// ---- what GRPO added -----------------------------------------------------------------------------------------
static json_t *gain_contrast(const Comparison *c, Mode m, const bool *which, Contrast *out) {
    contrast_make(&c->after[m], &c->before[m], which, c->seed, out);
    contrast_judge(out, c->margin);
    return contrast_json(out, &(ContrastNames){"after", "before", false}, c->margin);
}
static json_t *gain_json(const Comparison *c, const Groups *g, const bool *hard) {
    if (!c->before[MODE_THINK].count || !c->before[MODE_DIRECT].count) return json_null();
    json_t *levels = json_array();
    Contrast x;
    for (int i = 0; i < g->levels; i++) {
        json_t *think = gain_contrast(c, MODE_THINK, group(g, i), &x);
        json_array_append_new(levels, json_pack("{s:o,s:o}", "think", think, "direct", gain_contrast(c, MODE_DIRECT, group(g, i), &x)));
    }
    json_t *pooled = gain_contrast(c, MODE_THINK, hard, &x);
    bool differs = x.p < 1 - CONFIDENCE;
    char sentence[256], points[24], low[24], high[24];
    snprintf(sentence, sizeof sentence, "GRPO %s hard items in think mode: %s points (95 %%: %s to %s), %.1f %% to %.1f %%",
             x.interval.low > 0 && differs ? "improved" : x.interval.high < 0 && differs ? "worsened" : "made no settled difference on",
             points_signed(x.difference, points), points_signed(x.interval.low, low), points_signed(x.interval.high, high), 100 * x.b, 100 * x.a);
    return json_pack("{s:o,s:o,s:s}", "levels", levels, "hard_think", pooled, "sentence", sentence);
}

// ---- the document --------------------------------------------------------------------------------------------
static json_t *model_json(const ComparedModel *m) {
    return json_pack("{s:s,s:s,s:o,s:o,s:s?}", "name", m->name, "what", m->what, "step", m->step >= 0 ? json_integer(m->step) : json_null(),
                     "parameters", m->parameters > 0 ? json_integer(m->parameters) : json_null(), "hash", m->hash[0] ? m->hash : NULL);
}
static int items_of(const Comparison *c, const bool *which) {
    int n = 0;
    for (int i = 0; c->arms.count && i < c->results[0].count; i++) n += which[c->results[0].items[i].level];
    return n;
}
bool comparison_part(const Comparison *c, int index, const ArmResult **out, char name[160]) {
    int arms = c->arms.count, before = index - arms;
    if (index >= arms + MODES || (index >= arms && !c->before[before].count)) return false;
    *out = index < arms ? &c->results[index] : &c->before[before];
    if (index >= arms) snprintf(name, 160, "before GRPO, %s", mode_names[before]);
    else snprintf(name, 160, "%.120s%s", c->arms.arms[index].name, c->arms.arms[index].strategy == STRATEGY_ROUTED ? ", items to fit the router on" : "");
    return true;
}
// All that comparing took, and its parts.
static json_t *work_json(const Comparison *c) {
    double prompt = 0, tokens = 0, flops = 0;
    const ArmResult *r;
    char name[160];
    json_t *parts = json_array();
    for (int i = 0; comparison_part(c, i, &r, name); i++) {
        prompt += r->spent_prompt_tokens, tokens += r->spent_tokens, flops += r->spent_flops;
        json_array_append_new(parts, json_pack("{s:s,s:o,s:o,s:o}", "what", name, "prompt_tokens", json_number_or_name(r->spent_prompt_tokens), "new_tokens",
                                               json_number_or_name(r->spent_tokens), "flops", json_number_or_name(r->spent_flops)));
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "prompt_tokens", json_number_or_name(prompt), "new_tokens", json_number_or_name(tokens), "flops",
                     json_number_or_name(flops), "parts", parts);
}
static json_t *replayable_json(const Comparison *c) {
    Groups g = groups_of(c);
    bool *hard = xcalloc((size_t)c->levels + 1, sizeof(bool));
    json_t *levels = json_array(), *kinds = json_array(), *arms = json_array(), *models = json_array(), *routers = json_array();
    find_hard(c, hard);
    for (int i = 0; i < c->levels; i++)
        json_array_append_new(levels, json_pack("{s:s,s:i,s:i,s:b}", "kind", c->level[i].kind, "level", c->level[i].level, "items",
                                                items_of(c, group(&g, i)), "hard", (int)hard[i]));
    for (int i = 0; i < g.kinds; i++)
        json_array_append_new(kinds, json_pack("{s:s,s:i}", "kind", kind_name(c, g.kind_of, i), "items", items_of(c, group(&g, g.levels + i))));
    for (int i = 0; i < c->model_count; i++) json_array_append_new(models, model_json(&c->models[i]));
    for (int i = 0; i < c->model_count; i++)
        if (c->models[i].router) json_array_append(routers, c->models[i].router);
    for (int i = 0; i < c->arms.count; i++) json_array_append_new(arms, arm_json(c, &g, i));
    json_t *out = json_pack("{s:s?,s:s?,s:I,s:o,s:o,s:f,s:i,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "name", c->name, "recipe", c->recipe_hash, "seed",
                            (json_int_t)c->seed, "step", c->step >= 0 ? json_integer(c->step) : json_null(), "before_step",
                            c->before_step >= 0 ? json_integer(c->before_step) : json_null(), "confidence", CONFIDENCE, "resamples", RESAMPLES,
                            "margin", c->margin, "models", models, "levels", levels, "kinds", kinds, "arms", arms, "pairs", pairs_json(c, &g),
                            "gain", gain_json(c, &g, hard), "routers", routers, "work", work_json(c), "notes",
                            c->notes ? json_incref(c->notes) : json_array());
    free(hard);
    groups_free(&g);
    return out;
}

json_t *comparison_json(const Comparison *c) {
    return json_pack("{s:s,s:o,s:o,s:O?}", "format", "reckon comparison 2", "replayable", replayable_json(c), "measured", comparison_measured(c),
                     "samples", c->samples);
}
