// Two logistic models, fitted by Newton's method with a ridge (a normal prior of variance 1 on standardised weights, none on the
// constant), from zero and in a fixed number of rounds: the same items give the same weights. Their difference is what thinking
// gains; a threshold turns that into a decision. A second pair knows nothing of the task, for questions that come without one.
#include "router.h"
#include "algorithm.h"
#include "compare.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 25 };

// ---- features ----------------------------------------------------------------------------------------------
static void plain_features(const RouterItem *item, double out[ROUTER_PLAIN]) {
    out[0] = exact_log(fmax(item->prompt_tokens, 1));
    out[1] = item->mean_logprob;
    out[2] = item->min_logprob;
}
static void standardise(Router *r, const RouterItem *items, int n) {
    double x[ROUTER_PLAIN], squares[ROUTER_PLAIN] = {0};
    for (int k = 0; k < ROUTER_PLAIN; k++) r->mean[k] = 0;
    for (int i = 0; i < n; i++) {
        plain_features(&items[i], x);
        for (int k = 0; k < ROUTER_PLAIN; k++) r->mean[k] += x[k] / n;
    }
    for (int i = 0; i < n; i++) {
        plain_features(&items[i], x);
        for (int k = 0; k < ROUTER_PLAIN; k++) squares[k] += (x[k] - r->mean[k]) * (x[k] - r->mean[k]) / n;
    }
    for (int k = 0; k < ROUTER_PLAIN; k++) r->scale[k] = squares[k] > 1e-24 ? sqrt(squares[k]) : 1;
}
// [width]: a constant, the plain features, and one for each level where it is told.
static void features_of(const Router *r, const RouterItem *item, int width, double *out) {
    double x[ROUTER_PLAIN];
    plain_features(item, x);
    memset(out, 0, (size_t)width * sizeof *out);
    out[0] = 1;
    for (int k = 0; k < ROUTER_PLAIN; k++) out[1 + k] = (x[k] - r->mean[k]) / r->scale[k];
    if (width > 1 + ROUTER_PLAIN && item->level >= 0) out[1 + ROUTER_PLAIN + item->level] = 1;
}

// ---- logistic regression -----------------------------------------------------------------------------------
static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
static double logistic(double z) { return z >= 0 ? 1 / (1 + exact_exp(-z)) : exact_exp(z) / (1 + exact_exp(z)); }

// Solves A x = b for a symmetric positive A [n][n] in place (Cholesky); x is in b.
static void solve(double *A, double *b, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = A[i * n + j] - dot(A + i * n, A + j * n, j);
            A[i * n + j] = i == j ? sqrt(fmax(sum, 1e-12)) : sum / A[j * n + j];
        }
    for (int i = 0; i < n; i++) b[i] = (b[i] - dot(A + i * n, b, i)) / A[i * n + i];
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++) b[i] -= A[k * n + i] * b[k];
        b[i] /= A[i * n + i];
    }
}
// x [n][width], y [n].
static void fit_logistic(const double *x, const bool *y, int n, int width, double *weight) {
    double *A = xcalloc((size_t)width * (size_t)width, sizeof *A), *step = xcalloc((size_t)width, sizeof *step);
    memset(weight, 0, (size_t)width * sizeof *weight);
    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; k < width * width; k++) A[k] = 0;
        for (int k = 0; k < width; k++) {
            double ridge = k == 0 ? 1e-6 : 1;
            A[k * width + k] = ridge;
            step[k] = -ridge * weight[k];
        }
        for (int i = 0; i < n; i++) {
            const double *row = x + (size_t)i * (size_t)width;
            double p = logistic(dot(row, weight, width)), curve = fmax(p * (1 - p), 1e-9);
            for (int j = 0; j < width; j++) {
                if (row[j] == 0) continue;
                step[j] += (y[i] - p) * row[j];
                for (int k = 0; k <= j; k++) A[j * width + k] += curve * row[j] * row[k];
            }
        }
        solve(A, step, width);
        for (int k = 0; k < width; k++) weight[k] += fmin(fmax(step[k], -4), 4); // far steps overshoot where classes part cleanly
    }
    free(A), free(step);
}

static double gain_of(const Router *r, const RouterModel *m, const RouterItem *item, double *x) {
    features_of(r, item, m->width, x);
    return logistic(dot(x, m->weight[MODE_THINK], m->width)) - logistic(dot(x, m->weight[MODE_DIRECT], m->width));
}
static const RouterModel *model_for(const Router *r, const RouterItem *item) { return item->level >= 0 && r->levels ? &r->told : &r->untold; }

double router_gain(const Router *r, const RouterItem *item) {
    const RouterModel *m = model_for(r, item);
    double *x = xcalloc((size_t)m->width, sizeof *x), gain = gain_of(r, m, item, x);
    free(x);
    return gain;
}
bool router_thinks(const Router *r, const RouterItem *item) {
    return router_gain(r, item) > r->threshold[model_for(r, item) == &r->untold];
}

bool router_thinks_about(const Router *r, double prompt_tokens, const Completion *direct, double *gain) {
    RouterItem item = {.level = -1, .prompt_tokens = prompt_tokens};
    completion_confidence(direct, &item.mean_logprob, &item.min_logprob);
    if (gain) *gain = router_gain(r, &item);
    return router_thinks(r, &item);
}

// ---- the threshold -----------------------------------------------------------------------------------------
typedef struct Ranked {
    double gain;
    int at;
} Ranked;
static int higher_first(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}
// Thinking about the items of the highest gains first: the fewest of them that are right often enough.
static double cheapest_threshold(const Ranked *ranked, const RouterItem *items, int n, double tolerance) {
    double think = 0, direct = 0;
    for (int i = 0; i < n; i++) think += items[i].think_right, direct += items[i].direct_right;
    double wanted = fmax(think, direct) - tolerance * n, right = direct;
    for (int i = 0; i <= n; i++) {
        bool boundary = i == 0 || i == n || ranked[i].gain < ranked[i - 1].gain;
        if (boundary && right >= wanted) {
            if (i == 0) return n ? ranked[0].gain + 1e-9 : 1;
            return i == n ? ranked[n - 1].gain - 1e-9 : (ranked[i - 1].gain + ranked[i].gain) / 2;
        }
        if (i < n) right += items[ranked[i].at].think_right - items[ranked[i].at].direct_right;
    }
    return 0; // always thinking would do, so this isn't reached
}
static double threshold_of(const Router *r, const RouterModel *m, const RouterItem *items, int n, double tolerance, double price) {
    if (price > 0) {
        double cost = 0;
        for (int i = 0; i < n; i++) cost += items[i].think_cost / n;
        return price * cost;
    }
    Ranked *ranked = xcalloc((size_t)n + 1, sizeof *ranked);
    double *x = xcalloc((size_t)m->width, sizeof *x);
    for (int i = 0; i < n; i++) ranked[i] = (Ranked){gain_of(r, m, &items[i], x), i};
    qsort(ranked, (size_t)n, sizeof *ranked, higher_first);
    double threshold = cheapest_threshold(ranked, items, n, tolerance);
    free(ranked), free(x);
    return threshold;
}

static void fit_model(Router *r, RouterModel *m, const RouterItem *items, int n, int width) {
    double *x = xcalloc((size_t)n * (size_t)width + 1, sizeof *x);
    bool *y = xcalloc((size_t)n + 1, sizeof *y);
    m->width = width;
    for (int i = 0; i < n; i++) features_of(r, &items[i], width, x + (size_t)i * (size_t)width);
    for (Mode mode = 0; mode < MODES; mode++) {
        m->weight[mode] = ARENA_NEW(&r->arena, double, width);
        for (int i = 0; i < n; i++) y[i] = mode == MODE_THINK ? items[i].think_right : items[i].direct_right;
        fit_logistic(x, y, n, width, m->weight[mode]);
    }
    free(x), free(y);
}
void router_fit(Router *r, const RouterItem *items, int count, double tolerance, double price) {
    r->fitted = count;
    standardise(r, items, count);
    fit_model(r, &r->told, items, count, 1 + ROUTER_PLAIN + r->levels);
    fit_model(r, &r->untold, items, count, 1 + ROUTER_PLAIN);
    r->threshold[0] = threshold_of(r, &r->told, items, count, tolerance, price);
    r->threshold[1] = threshold_of(r, &r->untold, items, count, tolerance, price);
}

void router_items(const Evaluation *think, const Evaluation *direct, RouterItem *out) {
    for (int i = 0; i < direct->count; i++) {
        const EvaluatedItem *t = &think->items[i], *d = &direct->items[i];
        out[i] = (RouterItem){.level = d->level_index, .prompt_tokens = d->prompt_tokens, .mean_logprob = d->draws[0].mean_logprob,
                              .min_logprob = d->draws[0].min_logprob, .think_right = t->correct, .direct_right = d->correct,
                              .think_cost = t->flops, .direct_cost = d->flops};
    }
}
