// What some losses have to know of all tokens of an optimizer step before any of them has a gradient: the entropy below
// which tokens are left alone, and the tokens that Clip-Cov and KL-Cov choose. Taken over the whole step, so that a split
// into microbatches changes nothing.
#include "algorithm.h"
#include <math.h>
#include <stdlib.h>

bool objective_surveys(const Algo *a) { return a->top_entropy < 1 || a->loss == LOSS_CLIP_COV || a->loss == LOSS_KL_COV; }

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
double quantile_sorting(double *values, int64_t count, double share) {
    if (count <= 0) return NAN;
    qsort(values, (size_t)count, sizeof *values, ascending);
    double at = share * (double)(count - 1), below = floor(at), part = at - below;
    double low = values[(int64_t)below], high = values[(int64_t)ceil(at)];
    return part < 0.5 ? low + part * (high - low) : high - (high - low) * (1 - part);
}

static int64_t token_count(const ObjectiveInput *in) {
    int64_t n = 0;
    for (int s = 0; s < in->sequences; s++) n += in->length[s];
    return n;
}
static bool is_active(const ObjectiveInput *in, int64_t t) { return !in->mask || in->mask[t]; }

static double entropy_threshold(const Algo *a, const ObjectiveInput *in, int64_t n) {
    double *values = xcalloc((size_t)n + 1, sizeof *values);
    int64_t active = 0;
    for (int64_t t = 0; t < n; t++)
        if (is_active(in, t)) values[active++] = in->entropy[t];
    double threshold = active ? quantile_sorting(values, active, 1 - a->top_entropy) : 0;
    free(values);
    return threshold;
}

// ---- covariances: (A - mean A)(lp - mean lp) ---------------------------------------------------------------
typedef struct Candidate {
    double covariance;
    int64_t token;
} Candidate;
static int higher_first(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->covariance != y->covariance) return x->covariance > y->covariance ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

// Active tokens in their order, with their covariances; returns how many.
static int64_t covariances(const ObjectiveInput *in, Candidate *out) {
    double advantages = 0, logprobs = 0;
    int64_t active = 0, t = 0;
    for (int pass = 0; pass < 2; pass++) {
        double mean_advantage = active ? advantages / (double)active : 0, mean_logprob = active ? logprobs / (double)active : 0;
        active = t = 0;
        for (int s = 0; s < in->sequences; s++)
            for (int32_t i = 0; i < in->length[s]; i++, t++) {
                if (!is_active(in, t)) continue;
                double advantage = in->token_advantage ? in->token_advantage[t] : in->advantage[s];
                if (pass == 0) advantages += advantage, logprobs += in->logprob[t];
                else out[active] = (Candidate){(advantage - mean_advantage) * (in->logprob[t] - mean_logprob), t};
                active++;
            }
    }
    return active;
}

// Not those that the clip range stops already.
static bool is_clipped(const Algo *a, const ObjectiveInput *in, int64_t t, double advantage) {
    double ratio = in->old_logprob ? exact_exp(in->logprob[t] - in->old_logprob[t]) : 1;
    double bounded = fmax(1 - a->epsilon_low, fmin(1 + a->epsilon_high, ratio));
    return -advantage * bounded > -advantage * ratio;
}

// Clip-Cov takes any tokens of the range, up to its share; the first ones, so that the choice repeats. KL-Cov takes those
// with the highest covariances.
static void choose(const Algo *a, const ObjectiveInput *in, int64_t n, uint8_t *chosen) {
    Candidate *all = xcalloc((size_t)n + 1, sizeof *all);
    int64_t active = covariances(in, all), budget = (int64_t)(a->cov_share * (double)active), taken = 0, start = 0;
    if (budget < 1) budget = 1;
    for (int64_t t = 0; t < n; t++) chosen[t] = 0;
    if (a->loss == LOSS_KL_COV) qsort(all, (size_t)active, sizeof *all, higher_first);
    for (int64_t i = 0, s = 0; i < active && taken < budget; i++) {
        if (a->loss == LOSS_CLIP_COV) {
            while (all[i].token >= start + in->length[s]) start += in->length[s++];
            double advantage = in->token_advantage ? in->token_advantage[all[i].token] : in->advantage[s];
            if (!(all[i].covariance > a->cov_low && all[i].covariance < a->cov_high)) continue;
            if (is_clipped(a, in, all[i].token, advantage)) continue;
        }
        chosen[all[i].token] = 1;
        taken++;
    }
    free(all);
}

void step_survey(const Algo *a, const ObjectiveInput *in, double *threshold, uint8_t *chosen) {
    int64_t n = token_count(in);
    *threshold = a->top_entropy < 1 ? entropy_threshold(a, in, n) : 0;
    if (a->loss == LOSS_CLIP_COV || a->loss == LOSS_KL_COV) choose(a, in, n, chosen);
}
