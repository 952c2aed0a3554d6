// What repeated sampling promises, and what a correct answer costs.
#include "statistics.h"
#include <math.h>
#include <stdlib.h>

// C(of, k) / C(samples, k), as a product of k ratios.
static double share_of_draws(int64_t of, int64_t samples, int64_t k) {
    double share = 1;
    if (of < k) return 0;
    for (int64_t i = 0; i < k; i++) share *= (double)(of - i) / (double)(samples - i);
    return share;
}
double pass_at_k(int64_t samples, int64_t correct, int64_t k) {
    if (k > samples || k < 1 || correct > samples || correct < 0) return NAN;
    return 1 - share_of_draws(samples - correct, samples, k);
}
double all_k_correct(int64_t samples, int64_t correct, int64_t k) {
    if (k > samples || k < 1 || correct > samples || correct < 0) return NAN;
    return share_of_draws(correct, samples, k);
}

// ---- majority votes ------------------------------------------------------------------------------------------
// Generating functions over draws and ties: weight(kind, m) is the number of ways (or the probability over m!) that m of
// the draws fall on a kind. For each count r of the right answer the other kinds are held to at most r, and those that
// reach r share the win.
typedef struct Vote {
    const VoteCase *v;
    bool replaced;
    double all; // samples
} Vote;

static double choose(double n, int m) {
    double ways = 1;
    for (int i = 0; i < m; i++) ways *= (n - i) / (i + 1);
    return m > n ? 0 : ways;
}
static double weight(const Vote *w, double samples, int m) {
    if (!w->replaced) return choose(samples, m);
    double x = 1;
    for (int i = 1; i <= m; i++) x *= samples / w->all / i;
    return x;
}

// ways [draws + 1][ties + 1] after one more kind that takes up to `most`; taking exactly `most` is a tie where it counts.
static void add_kind(const Vote *w, double samples, int most, bool ties_count, int ties, double *ways, double *next) {
    int draws = w->v->draws, columns = ties + 1;
    for (int i = 0; i < (draws + 1) * columns; i++) next[i] = 0;
    for (int m = 0; m <= most && m <= draws; m++) {
        double by = weight(w, samples, m);
        int tie = ties_count && m == most;
        for (int j = 0; by > 0 && j + m <= draws; j++)
            for (int t = 0; t + tie <= ties; t++) next[(j + m) * columns + t + tie] += by * ways[j * columns + t];
    }
    for (int i = 0; i < (draws + 1) * columns; i++) ways[i] = next[i];
}

static double right_wins_with(const Vote *w, int r) {
    const VoteCase *v = w->v;
    int ties = v->draws / r < v->kinds ? v->draws / r : v->kinds;
    size_t size = (size_t)(v->draws + 1) * (size_t)(ties + 1);
    double *ways = xcalloc(size, sizeof *ways), *next = xcalloc(size, sizeof *next), wins = 0;
    ways[r * (ties + 1)] = weight(w, v->votes[v->right], r);
    for (int kind = 0; kind < v->kinds; kind++)
        if (kind != v->right) add_kind(w, v->votes[kind], r, true, ties, ways, next);
    add_kind(w, v->silent, v->draws, false, ties, ways, next);
    for (int t = 0; t <= ties; t++) wins += ways[v->draws * (ties + 1) + t] / (t + 1);
    free(ways), free(next);
    return wins;
}
static double right_wins(const VoteCase *v, bool replaced) {
    Vote w = {.v = v, .replaced = replaced, .all = v->silent};
    double wins = 0;
    for (int kind = 0; kind < v->kinds; kind++) w.all += v->votes[kind];
    if (v->draws < 1 || w.all < 1 || (!replaced && v->draws > w.all)) return NAN;
    for (int r = 1; v->right >= 0 && r <= v->draws && (replaced || r <= v->votes[v->right]); r++) wins += right_wins_with(&w, r);
    double every = 1;
    if (!replaced) return wins / choose(w.all, v->draws);
    for (int i = 2; i <= v->draws; i++) every *= i;
    return wins * every;
}
double majority_without_replacement(const VoteCase *v) { return right_wins(v, false); }
double majority_with_replacement(const VoteCase *v) { return right_wins(v, true); }

// ---- costs ---------------------------------------------------------------------------------------------------
PassCost cost_of_pass(const AttemptCost *a) {
    if (!(a->pass_rate > 0)) return (PassCost){INFINITY, INFINITY, INFINITY};
    return (PassCost){.cost = a->cost / a->pass_rate, .attempts = 1 / a->pass_rate, .tokens = a->tokens / a->pass_rate};
}
double incremental_cost(const AttemptCost *first, const AttemptCost *second) {
    double more = second->pass_rate - first->pass_rate;
    return more > 0 ? (second->cost - first->cost) / more : INFINITY;
}
double break_even_queries(double first, double second, double training) {
    if (isinf(second)) return INFINITY;
    if (isinf(first)) return 0;
    return first > second ? training / (first - second) : INFINITY;
}
