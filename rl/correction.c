// Corrections of samples that another policy drew than the one whose gradient is taken: quantised inference, or a rollout
// that is some updates old. rho = exp(old - sampler) weights the policy loss, truncated (TIS) or zeroed outside of bounds
// (IcePop); rejections leave tokens or whole sequences out. Where sampler and trainer are the same bits, rho is exactly 1
// and nothing is rejected.
#include "algorithm.h"
#include <math.h>

typedef struct Span {
    const double *old, *sampler;
    const uint8_t *mask; // or NULL
    int32_t length;
} Span;
static bool is_active(const Span *s, int32_t t) { return !s->mask || s->mask[t]; }
static double log_ratio(const Span *s, int32_t t) {
    double d = is_active(s, t) ? s->old[t] - s->sampler[t] : 0;
    return d != d ? 0 : d;
}
static double clamp(double x, double bound) { return bound > 0 ? fmax(-bound, fmin(bound, x)) : x; }

// ---- weights -----------------------------------------------------------------------------------------------
static double bounded(const Correction *c, double rho) {
    if (c->mode == CORRECTION_TRUNCATE) return fmin(fmax(rho, c->low), c->high);
    return rho < c->low || rho > c->high ? 0 : rho;
}
static void weigh(const Correction *c, const Span *s, double *weight) {
    double sum = 0;
    if (c->level == CORRECTION_SEQUENCE)
        for (int32_t t = 0; t < s->length; t++) sum += log_ratio(s, t);
    for (int32_t t = 0; t < s->length; t++) {
        double d = c->level == CORRECTION_SEQUENCE ? sum : log_ratio(s, t);
        weight[t] = c->level == CORRECTION_OFF ? 1 : bounded(c, exact_exp(clamp(d, c->log_bound)));
    }
}

// The mean over active tokens, or over sequences that have any.
static double mean_weight(const Correction *c, int sequences, const int32_t *length, const uint8_t *mask, const double *weight) {
    double sum = 0, count = 0;
    int64_t t = 0;
    for (int s = 0; s < sequences; s++) {
        double of_sequence = 0, active = 0;
        for (int32_t i = 0; i < length[s]; i++, t++)
            if (!mask || mask[t]) of_sequence += weight[t], active++;
        if (c->level == CORRECTION_TOKEN) sum += of_sequence, count += active;
        else if (active > 0) sum += of_sequence / (active + 1e-8), count++;
    }
    return count > 0 ? sum / (c->level == CORRECTION_TOKEN ? count + 1e-8 : count) : 0;
}

// ---- rejections --------------------------------------------------------------------------------------------
static double statistic_of(Statistic kind, double log_bound, const Span *s, int32_t t) {
    double d = clamp(log_ratio(s, t), log_bound), p, q;
    switch (kind) {
    case STATISTIC_K1: return -d;
    case STATISTIC_K2: return d * d / 2;
    case STATISTIC_K3: return exact_exp(d) - 1 - d;
    case STATISTIC_TV: return fabs(exact_exp(s->old[t]) - exact_exp(s->sampler[t]));
    case STATISTIC_BINARY_KL: break;
    }
    p = exact_exp(s->old[t]), q = exact_exp(s->sampler[t]);
    double other = fmax(1 - q, 1e-12), now = fmax(1 - p, 1e-12);
    return q * (s->sampler[t] - s->old[t]) + (1 - q) * exact_log(other / now);
}
static double pooled(const Rejection *r, double log_bound, const Span *s) {
    double sum = 0, most = -INFINITY, active = 0;
    for (int32_t t = 0; t < s->length; t++) {
        if (!is_active(s, t)) continue;
        double x = statistic_of(r->statistic, log_bound, s, t);
        sum += x, most = fmax(most, x), active++;
    }
    if (r->pool == POOL_MAX) return active > 0 ? most : 0;
    return r->pool == POOL_MEAN ? (active > 0 ? sum / active : 0) : sum;
}
static bool within(const Rejection *r, double x) { return x >= r->low && x <= r->high; }
static void reject(const Rejection *r, double log_bound, const Span *s, uint8_t *keep) {
    bool whole = r->pool == POOL_TOKEN || within(r, pooled(r, log_bound, s));
    for (int32_t t = 0; t < s->length; t++)
        if (!whole || (r->pool == POOL_TOKEN && is_active(s, t) && !within(r, statistic_of(r->statistic, log_bound, s, t)))) keep[t] = 0;
}

static bool outside(const Correction *c, const Span *s, int32_t t, double of_sequence) {
    double rho = exact_exp(clamp(c->level == CORRECTION_SEQUENCE ? of_sequence : log_ratio(s, t), c->log_bound));
    return c->level != CORRECTION_OFF && (rho < c->low || rho > c->high);
}
double correction_share(const Correction *c, int sequences, const int32_t *length, const double *old, const double *sampler, const uint8_t *mask,
                        const uint8_t *keep) {
    int64_t start = 0, active = 0, cut = 0;
    for (int s = 0; s < sequences; s++) {
        Span span = {old + start, sampler + start, mask ? mask + start : NULL, length[s]};
        double sum = 0;
        for (int32_t t = 0; t < length[s]; t++) sum += log_ratio(&span, t);
        for (int32_t t = 0; t < length[s]; t++) {
            if (!is_active(&span, t)) continue;
            active++;
            cut += !keep[start + t] || outside(c, &span, t, sum);
        }
        start += length[s];
    }
    return active ? (double)cut / (double)active : NAN;
}

void correction_compute(const Correction *c, int sequences, const int32_t *length, const double *old, const double *sampler,
                        const uint8_t *mask, double *weight, uint8_t *keep) {
    int64_t start = 0;
    for (int s = 0; s < sequences; s++) {
        Span span = {old + start, sampler + start, mask ? mask + start : NULL, length[s]};
        weigh(c, &span, weight + start);
        for (int32_t t = 0; t < length[s]; t++) keep[start + t] = 1;
        for (int i = 0; i < c->rejection_count; i++) reject(&c->rejections[i], c->log_bound, &span, keep + start);
        start += length[s];
    }
    double mean = c->normalize ? mean_weight(c, sequences, length, mask, weight) : 0;
    for (int64_t t = 0; mean > 1e-8 && t < start; t++) weight[t] /= mean;
}
