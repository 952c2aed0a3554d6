// `calc statistics`: intervals, tests, estimators of repeated sampling and costs, by the functions of rl/statistics.c that
// comparisons and reports use. A case names its `kind`.
#include "calc.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool number_at(CalcCase *c, const json_t *object, const char *where, const char *key, double *out, Err *err) {
    const json_t *value = json_object_get(object, key);
    char path[128];
    *out = NAN;
    snprintf(path, sizeof path, "%s.%s", where, key);
    if (!json_is_number(value)) return calc_malformed(c, path, "a number", err);
    *out = json_number_value(value);
    return true;
}
static bool input(CalcCase *c, const char *key, double *out, Err *err) { return number_at(c, c->inputs, "inputs", key, out, err); }
static bool setting(CalcCase *c, const char *key, double *out, Err *err) { return number_at(c, c->config, "config", key, out, err); }
static void tell(json_t *out, const char *key, double value) { json_object_set_new(out, key, json_number_or_name(value)); }
static void tell_interval(json_t *out, const char *key, Interval i) {
    json_object_set_new(out, key, json_pack("[o,o]", json_number_or_name(i.low), json_number_or_name(i.high)));
}

static bool proportion(CalcCase *c, json_t *out, Err *err) {
    double successes, trials, confidence = 0.95;
    TRY(input(c, "successes", &successes, err) && input(c, "trials", &trials, err));
    if (json_object_get(c->config, "confidence")) TRY(setting(c, "confidence", &confidence, err));
    if (!(trials > 0) || !(successes >= 0) || successes > trials || !(confidence > 0 && confidence < 1))
        return calc_malformed(c, "inputs.successes", "0 to trials, a trial at least, and a confidence between 0 and 1", err);
    if (trials > 1e7) return calc_unsupported(c, "an exact interval of %g trials", trials);
    tell_interval(out, "wilson", wilson_interval((int64_t)successes, (int64_t)trials, confidence));
    tell_interval(out, "clopper_pearson", clopper_pearson_interval((int64_t)successes, (int64_t)trials, confidence));
    tell_interval(out, "agresti_coull", agresti_coull_interval((int64_t)successes, (int64_t)trials, confidence));
    tell_interval(out, "wald", wald_interval((int64_t)successes, (int64_t)trials, confidence));
    return true;
}

static bool mcnemar(CalcCase *c, json_t *out, Err *err) {
    double first, second, both, neither;
    TRY(input(c, "only_first", &first, err) && input(c, "only_second", &second, err) && setting(c, "both", &both, err) &&
        setting(c, "neither", &neither, err));
    if (!(first >= 0 && second >= 0 && both >= 0 && neither >= 0) || first + second + both + neither > 1e9 || first + second + both + neither < 1)
        return calc_malformed(c, "inputs.only_first", "counts, a pair at least", err);
    McNemar m = mcnemar_test((int64_t)first, (int64_t)second, (int64_t)both, (int64_t)neither);
    tell(out, "exact_p", m.exact_p);
    tell(out, "difference", m.difference);
    tell(out, "wald_se", m.difference_error);
    tell_interval(out, "wald_95", m.difference_95);
    if (first + second == 0) return true;
    tell(out, "mid_p", m.mid_p);
    tell(out, "chi2_corrected", m.chi2_corrected), tell(out, "chi2_corrected_p", m.chi2_corrected_p);
    tell(out, "chi2", m.chi2), tell(out, "chi2_p", m.chi2_p);
    return true;
}

static bool two_lists(CalcCase *c, int *n, double **a, double **b, Err *err) {
    int other;
    TRY(calc_list(c, "first", n, a, err) && calc_list(c, "second", &other, b, err));
    return (*a && *b && *n == other && *n > 0) || calc_malformed(c, "inputs.first", "numbers, and as many in second", err);
}

static bool bootstrap(CalcCase *c, json_t *out, Err *err) {
    int n;
    double *a, *b;
    Ragged indices;
    TRY(two_lists(c, &n, &a, &b, err) && calc_ragged(c, "indices", NULL, &indices, err));
    if (!indices.values || indices.rows < 2) return calc_malformed(c, "inputs.indices", "two resamples at least", err);
    double *means = ARENA_NEW(&c->arena, double, indices.rows), *difference = ARENA_NEW(&c->arena, double, n);
    for (int i = 0; i < n; i++) difference[i] = a[i] - b[i];
    for (int64_t r = 0, at = 0; r < indices.rows; at += indices.length[r++]) {
        double sum = 0;
        for (int32_t i = 0; i < indices.length[r]; i++) {
            double index = indices.values[at + i];
            if (!(index >= 0 && index < n)) return calc_malformed(c, "inputs.indices", "positions of the lists", err);
            sum += difference[(int)index];
        }
        means[r] = sum / indices.length[r];
    }
    Bootstrap s = bootstrap_summary(difference, n, means, indices.rows);
    tell(out, "difference", s.mean);
    json_object_set_new(out, "bootstrap_means", calc_list_json(indices.rows, means));
    tell(out, "se", s.error);
    tell_interval(out, "percentile_95", bootstrap_percentile(means, indices.rows, 0.95));
    tell_interval(out, "percentile_90", bootstrap_percentile(means, indices.rows, 0.90));
    tell(out, "two_sided_p", s.two_sided_p);
    tell_interval(out, "scipy_percentile", bootstrap_percentile(means, indices.rows, 0.95));
    tell_interval(out, "scipy_basic", bootstrap_basic(s.mean, means, indices.rows, 0.95));
    tell_interval(out, "scipy_BCa", bootstrap_bca(difference, n, means, indices.rows, 0.95));
    return true;
}

static bool exact_bootstrap(CalcCase *c, json_t *out, Err *err) {
    int n;
    double *x, *means, count = 1;
    static const double shares[] = {0.025, 0.05, 0.5, 0.95, 0.975};
    TRY(calc_list(c, "differences", &n, &x, err));
    if (!x || n < 1) return calc_malformed(c, "inputs.differences", "numbers", err);
    for (int i = 0; i < n; i++) count *= n;
    if (count > 1e7) return calc_unsupported(c, "every resample of %d values", n);
    means = ARENA_NEW(&c->arena, double, (int64_t)count);
    bootstrap_every_mean(x, n, means);
    double mean = 0, squares = 0, at_most_zero = 0;
    for (int i = 0; i < n; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean) / n;
    for (int64_t i = 0; i < (int64_t)count; i++) at_most_zero += means[i] <= 0;
    tell(out, "mean", mean);
    tell(out, "se", sqrt(squares / n));
    tell(out, "p_le_0", at_most_zero / count);
    json_t *quantiles = json_object();
    json_object_set_new(out, "quantiles", quantiles);
    for (int i = 0; i < COUNT(shares); i++) {
        char key[16];
        snprintf(key, sizeof key, "%g", shares[i]);
        tell(quantiles, key, quantile_sorting(means, (int64_t)count, shares[i]));
    }
    return true;
}

static bool permutation(CalcCase *c, json_t *out, Err *err) {
    int n;
    double *a, *b;
    TRY(two_lists(c, &n, &a, &b, err));
    const char *side = json_string_value(json_object_get(c->config, "alternative"));
    if (side && strcmp(side, "two-sided") != 0 && strcmp(side, "greater") != 0 && strcmp(side, "less") != 0)
        return calc_unsupported(c, "alternative = \"%.60s\"", side);
    if (n > 24) return calc_unsupported(c, "every sign flip of %d pairs", n);
    double *difference = ARENA_NEW(&c->arena, double, n), greater, less;
    for (int i = 0; i < n; i++) difference[i] = a[i] - b[i];
    tell(out, "statistic", sign_flip_test(difference, n, &greater, &less));
    bool two = !side || !strcmp(side, "two-sided");
    tell(out, "p", two ? fmin(1, 2 * fmin(greater, less)) : !strcmp(side, "greater") ? greater : less);
    return true;
}

static bool pass_case(CalcCase *c, json_t *out, Err *err) {
    double samples, correct, k;
    TRY(input(c, "samples", &samples, err) && input(c, "correct", &correct, err) && setting(c, "k", &k, err));
    if (!(samples >= 0 && samples <= 1e7 && correct >= 0 && correct <= 1e7 && k >= 0 && k <= 1e7))
        return calc_malformed(c, "inputs.samples", "counts up to 10 million", err);
    tell(out, "pass_at_k", pass_at_k((int64_t)samples, (int64_t)correct, (int64_t)k));
    tell(out, "all_k_correct", all_k_correct((int64_t)samples, (int64_t)correct, (int64_t)k));
    return true;
}
static bool pass_mean(CalcCase *c, json_t *out, Err *err) {
    double samples, k, sum = 0;
    int n;
    double *correct;
    TRY(calc_list(c, "correct", &n, &correct, err) && setting(c, "samples", &samples, err) && setting(c, "k", &k, err));
    if (!correct || n < 1) return calc_malformed(c, "inputs.correct", "numbers", err);
    for (int i = 0; i < n; i++)
        if (!(samples >= 0 && samples <= 1e7 && correct[i] >= 0 && correct[i] <= 1e7 && k >= 0 && k <= 1e7))
            return calc_malformed(c, "inputs.correct", "counts up to 10 million", err);
    for (int i = 0; i < n; i++) sum += pass_at_k((int64_t)samples, (int64_t)correct[i], (int64_t)k);
    tell(out, "pass_at_k", sum / n);
    return true;
}

static bool majority(CalcCase *c, json_t *out, Err *err) {
    const json_t *answers = json_object_get(c->inputs, "answers"), *gold = json_object_get(c->inputs, "gold");
    double k;
    int n = (int)json_array_size(answers), kinds = 0, voters = 0;
    TRY(setting(c, "k", &k, err));
    if (!json_is_array(answers) || !gold) return calc_malformed(c, "inputs.answers", "a list of answers, and gold", err);
    if (!(k >= 1) || k > 150 || n > 1000) return calc_unsupported(c, "a vote of %g among %d answers", k, n);
    int *votes = ARENA_NEW(&c->arena, int, n + 2), *first = ARENA_NEW(&c->arena, int, n + 1), right = -1;
    for (int i = 0; i < n; i++) {
        const json_t *answer = json_array_get(answers, (size_t)i);
        if (json_is_null(answer)) continue;
        int kind = 0;
        while (kind < kinds && !json_equal(json_array_get(answers, (size_t)first[kind]), answer)) kind++;
        if (kind == kinds) {
            first[kinds++] = i;
            if (json_equal(answer, gold)) right = kind;
        }
        votes[kind]++, voters++;
    }
    VoteCase v = {.kinds = kinds, .votes = votes, .silent = n - voters, .right = right, .draws = (int)k};
    tell(out, "without_replacement", majority_without_replacement(&v));
    tell(out, "with_replacement", majority_with_replacement(&v));
    return true;
}

static bool multiple(CalcCase *c, json_t *out, Err *err) {
    static const struct {
        const char *name;
        MultipleTests method;
    } methods[] = {{"bonferroni", TESTS_BONFERRONI}, {"holm", TESTS_HOLM}, {"fdr_bh", TESTS_BENJAMINI_HOCHBERG}};
    const char *name = json_string_value(json_object_get(c->config, "method"));
    double alpha = 0.05, *p;
    int n, i = 0;
    while (name && i < COUNT(methods) && strcmp(methods[i].name, name) != 0) i++;
    if (!name || i == COUNT(methods)) return calc_unsupported(c, "method = \"%.60s\"", name ? name : "");
    if (json_object_get(c->config, "alpha")) TRY(setting(c, "alpha", &alpha, err));
    TRY(calc_list(c, "p", &n, &p, err));
    if (!p) return calc_malformed(c, "inputs.p", "a list of numbers", err);
    double *adjusted = ARENA_NEW(&c->arena, double, n + 1);
    adjust_p_values(methods[i].method, p, n, adjusted);
    json_t *reject = json_array();
    for (int k = 0; k < n; k++) json_array_append_new(reject, json_boolean(adjusted[k] <= alpha));
    json_object_set_new(out, "adjusted", calc_list_json(n, adjusted));
    json_object_set_new(out, "reject", reject);
    return true;
}

static bool clustered(CalcCase *c, json_t *out, Err *err) {
    Ragged scores;
    TRY(calc_ragged(c, "scores", NULL, &scores, err));
    if (!scores.values || scores.count < 1) return calc_malformed(c, "inputs.scores", "a list of lists of numbers", err);
    ClusteredError e = clustered_error(scores.rows, scores.length, scores.values);
    tell(out, "mean", e.mean), tell(out, "clustered_se", e.clustered), tell(out, "naive_se", e.naive);
    tell(out, "se_of_problem_means", e.of_means);
    return true;
}

static bool mode_cost(CalcCase *c, const char *key, AttemptCost *out, Err *err) {
    char where[64];
    snprintf(where, sizeof where, "inputs.%s", key);
    const json_t *mode = json_object_get(c->inputs, key);
    return number_at(c, mode, where, "pass_rate", &out->pass_rate, err) && number_at(c, mode, where, "tokens", &out->tokens, err);
}
static void tell_both(json_t *out, const char *key, double direct, double reasoning) {
    json_object_set_new(out, key, json_pack("{s:o,s:o}", "direct", json_number_or_name(direct), "reasoning", json_number_or_name(reasoning)));
}
static bool cost(CalcCase *c, json_t *out, Err *err) {
    AttemptCost direct, reasoning;
    double price, training;
    TRY(mode_cost(c, "direct", &direct, err) && mode_cost(c, "reasoning", &reasoning, err));
    TRY(setting(c, "price_per_million_tokens", &price, err) && setting(c, "training_cost", &training, err));
    direct.cost = direct.tokens * price / 1e6, reasoning.cost = reasoning.tokens * price / 1e6;
    PassCost d = cost_of_pass(&direct), r = cost_of_pass(&reasoning);
    double queries = break_even_queries(d.cost, r.cost, training);
    tell_both(out, "cost_per_attempt", direct.cost, reasoning.cost);
    tell_both(out, "cost_of_pass", d.cost, r.cost);
    tell(out, "frontier", fmin(d.cost, r.cost));
    tell_both(out, "attempts_to_first_pass", d.attempts, r.attempts);
    tell_both(out, "tokens_to_first_pass", d.tokens, r.tokens);
    tell(out, "incremental_cost_per_extra_correct", incremental_cost(&direct, &reasoning));
    tell(out, "break_even_queries", queries);
    if (isinf(queries)) tell(out, "break_even_queries_ceil", queries);
    else json_object_set_new(out, "break_even_queries_ceil", json_integer((json_int_t)ceil(queries)));
    return true;
}

bool calc_statistics(CalcCase *c, json_t *expected, Err *err) {
    static const struct {
        const char *kind;
        CalcFunction function;
    } kinds[] = {{"proportion_interval", proportion}, {"mcnemar", mcnemar}, {"paired_bootstrap", bootstrap},
                 {"paired_bootstrap_exact", exact_bootstrap}, {"paired_permutation", permutation}, {"pass_at_k", pass_case},
                 {"pass_at_k_mean", pass_mean}, {"maj_at_k", majority}, {"multiple_tests", multiple}, {"clustered_se", clustered},
                 {"cost", cost}};
    const json_t *kind = json_object_get(c->given, "kind");
    if (!kind) kind = json_object_get(c->document, "kind");
    if (!json_is_string(kind)) return calc_malformed(c, "kind", "a text", err);
    for (int i = 0; i < COUNT(kinds); i++)
        if (!strcmp(kinds[i].kind, json_string_value(kind))) return kinds[i].function(c, expected, err);
    return calc_unsupported(c, "kind = \"%.60s\"", json_string_value(kind));
}
