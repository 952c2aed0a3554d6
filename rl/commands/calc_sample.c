// `calc sample`: the distribution that a token is drawn from, in double: repetition penalty, temperature, top-k, top-p,
// min-p, in the order of transformers' generate.
#include "calc.h"
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct SampleCase {
    double temperature, top_k, top_p, min_p, penalty, least;
} SampleCase;
#define AT(field) offsetof(SampleCase, field)
static const CalcOption options[] = {
    {"temperature", CALC_NUMBER, AT(temperature), NULL}, {"top_k", CALC_NUMBER, AT(top_k), NULL},
    {"top_p", CALC_NUMBER, AT(top_p), NULL},             {"min_p", CALC_NUMBER, AT(min_p), NULL},
    {"repetition_penalty", CALC_NUMBER, AT(penalty), NULL}, {"min_tokens_to_keep", CALC_COUNT, AT(least), NULL},
    {0},
};
#undef AT

typedef struct Candidate {
    double score;
    int id;
} Candidate;
// Highest first; equals by id.
static int higher_first(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

// log(sum(exp(x))) over what isn't minus infinity.
static double log_sum(const double *x, int n) {
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) most = fmax(most, x[i]);
    for (int i = 0; i < n; i++) sum += exact_exp(x[i] - most);
    return most + exact_log(sum);
}

static void penalize(const SampleCase *o, const double *history, int length, double *score, int n, bool *seen) {
    for (int i = 0; i < length; i++) {
        int id = (int)history[i];
        if (id < 0 || id >= n || seen[id]) continue;
        seen[id] = true;
        score[id] = score[id] < 0 ? score[id] * o->penalty : score[id] / o->penalty;
    }
}

static void keep_top_k(const SampleCase *o, double *score, int n, const Candidate *sorted) {
    int k = (int)fmin(fmax(o->top_k, o->least), n);
    double lowest = sorted[k - 1].score;
    for (int i = 0; i < n; i++)
        if (score[i] < lowest) score[i] = -INFINITY;
}

// The likeliest tokens until their mass reaches top_p: a token goes where the mass of it and all below is at most 1 - p.
static void keep_top_p(const SampleCase *o, double *score, int n, const Candidate *sorted) {
    double below = 0, sum = 0;
    for (int i = 0; i < n; i++) sum += exact_exp(sorted[i].score - sorted[0].score);
    for (int i = n - 1; i >= (int)o->least; i--) {
        below += exact_exp(sorted[i].score - sorted[0].score) / sum;
        if (below > 1 - o->top_p) return;
        score[sorted[i].id] = -INFINITY;
    }
}

static void keep_min_p(const SampleCase *o, double *score, int n, const Candidate *sorted) {
    double total = log_sum(score, n), lowest = o->min_p * exact_exp(sorted[0].score - total);
    for (int i = (int)o->least; i < n; i++)
        if (exact_exp(sorted[i].score - total) < lowest) score[sorted[i].id] = -INFINITY;
}

static void sort_scores(const double *score, int n, Candidate *sorted) {
    for (int i = 0; i < n; i++) sorted[i] = (Candidate){score[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, higher_first);
}

static bool logits_of(CalcCase *c, int *n, double **out, Err *err) {
    const json_t *logits = json_object_get(c->inputs, "logits");
    CalcCase named = *c;
    json_t *holder = json_object();
    if (json_is_string(logits)) logits = json_object_get(json_object_get(c->document, "rows"), json_string_value(logits));
    json_object_set(holder, "logits", (json_t *)(uintptr_t)logits);
    named.inputs = holder;
    bool ok = calc_list(&named, "logits", n, out, err);
    c->arena = named.arena;
    json_decref(holder);
    return ok && ((*out && *n > 0) || calc_malformed(c, "inputs.logits", "numbers, or the name of one of the file's rows", err));
}

// The tokens whose logprobs are asked for: the case lists them, beside its inputs or beside what is expected of it.
static const json_t *asked_tokens(const CalcCase *c) {
    const json_t *places[] = {json_object_get(c->inputs, "tokens"), json_object_get(c->given, "tokens"),
                              json_object_get(json_object_get(c->given, "expected"), "tokens")};
    for (int i = 0; i < COUNT(places); i++)
        if (json_is_array(places[i])) return places[i];
    return NULL;
}

static void tell_kept(const double *score, int n, double total, json_t *expected) {
    json_t *kept = json_array(), *logprobs = json_array();
    double entropy = 0;
    for (int i = 0; i < n; i++) {
        if (score[i] == -INFINITY) continue;
        double logprob = score[i] - total;
        json_array_append_new(kept, json_integer(i));
        json_array_append_new(logprobs, json_number_or_name(logprob));
        entropy -= exact_exp(logprob) * logprob;
    }
    json_object_set_new(expected, "kept", kept);
    json_object_set_new(expected, "logprobs_of_kept", logprobs);
    json_object_set_new(expected, "entropy", json_number_or_name(entropy));
}

bool calc_sample(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logits", "history", "tokens", NULL};
    SampleCase o = {.temperature = 1, .top_p = 1, .min_p = NAN, .penalty = 1, .least = 1};
    int n, length;
    double *plain, *history;
    TRY(calc_options(c, options, &o, err));
    TRY(calc_inputs_known(c, known));
    TRY(logits_of(c, &n, &plain, err) && calc_list(c, "history", &length, &history, err));
    if (!(o.temperature > 0)) return calc_unsupported(c, "temperature = %g, which transformers refuses", o.temperature);
    double *score = ARENA_NEW(&c->arena, double, n), *heated = ARENA_NEW(&c->arena, double, n);
    Candidate *sorted = ARENA_NEW(&c->arena, Candidate, n);
    memcpy(score, plain, (size_t)n * sizeof *score);
    if (history) penalize(&o, history, length, score, n, ARENA_NEW(&c->arena, bool, n));
    for (int i = 0; i < n; i++) score[i] /= o.temperature, heated[i] = plain[i] / o.temperature;
    sort_scores(score, n, sorted);
    if (o.top_k > 0) keep_top_k(&o, score, n, sorted), sort_scores(score, n, sorted);
    if (o.top_p < 1) keep_top_p(&o, score, n, sorted), sort_scores(score, n, sorted);
    if (!isnan(o.min_p)) keep_min_p(&o, score, n, sorted);
    double total = log_sum(score, n), heated_total = log_sum(heated, n), plain_total = log_sum(plain, n);
    tell_kept(score, n, total, expected);
    const json_t *tokens = asked_tokens(c);
    if (!tokens) return true;
    json_t *policy = json_array(), *warm = json_array(), *cold = json_array();
    json_object_set(expected, "tokens", (json_t *)(uintptr_t)tokens);
    json_object_set_new(expected, "policy_logprob", policy);
    json_object_set_new(expected, "temperature_only_logprob", warm);
    json_object_set_new(expected, "plain_logprob", cold);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_int_t id = json_integer_value(json_array_get(tokens, i));
        if (id < 0 || id >= n) return calc_malformed(c, "tokens", "ids of the logits", err);
        json_array_append_new(policy, json_number_or_name(score[id] - total));
        json_array_append_new(warm, json_number_or_name(heated[id] - heated_total));
        json_array_append_new(cold, json_number_or_name(plain[id] - plain_total));
    }
    return true;
}
