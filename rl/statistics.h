// Intervals and tests for comparisons on the same items, and what repeated sampling promises and costs (statistics.c,
// statistics_sampling.c). NaN: not defined.
#ifndef RECKON_STATISTICS_H
#define RECKON_STATISTICS_H
#include "base.h"

typedef struct Interval {
    double low, high;
} Interval;
// ---- a share, successes of trials (at least one but for Wilson's) --------------------------------------------
Interval wilson_interval(int64_t successes, int64_t trials, double confidence);
Interval clopper_pearson_interval(int64_t successes, int64_t trials, double confidence); // exact, from the binomial's tails
Interval agresti_coull_interval(int64_t successes, int64_t trials, double confidence);
Interval wald_interval(int64_t successes, int64_t trials, double confidence);

// ---- paired right and wrong ----------------------------------------------------------------------------------
double mcnemar_exact(int64_t only_first, int64_t only_second); // two-sided p
typedef struct McNemar {
    double exact_p, mid_p, chi2, chi2_p, chi2_corrected, chi2_corrected_p; // NaN but exact_p where no pair differs
    double difference, difference_error; // of the two shares, and its standard error (Wald)
    Interval difference_95;
} McNemar;
McNemar mcnemar_test(int64_t only_first, int64_t only_second, int64_t both, int64_t neither);

// ---- paired differences --------------------------------------------------------------------------------------
// Where the middle `confidence` of the values lies, quantiles interpolated linearly. Sorts `values`; NaN if empty.
Interval percentile_interval(double *values, int count, double confidence);
// Paired bootstrap of mean(a) - mean(b): `resamples` seeded resamples, percentile interval. NaN if n is 0.
Interval paired_bootstrap(const double *a, const double *b, int n, int resamples, uint64_t seed, double confidence);
// The same on means of given resamples, which stay in their order: `difference` [n], `means` [count].
typedef struct Bootstrap {
    double mean, error, two_sided_p;
} Bootstrap;
Bootstrap bootstrap_summary(const double *difference, int n, const double *means, int count);
Interval bootstrap_percentile(const double *means, int count, double confidence);
Interval bootstrap_basic(double mean, const double *means, int count, double confidence);
Interval bootstrap_bca(const double *difference, int n, const double *means, int count, double confidence); // Efron 1987
// The mean of every one of the n^n resamples: means [n^n].
void bootstrap_every_mean(const double *difference, int n, double *means);
// All 2^n sign flips: the mean, and how often a flip is at least or at most as large.
double sign_flip_test(const double *difference, int n, double *at_least, double *at_most);

// ---- several columns on the same resamples (statistics_paired.c) ---------------------------------------------------
// Paired bootstrap of means and of ratios of sums, percentile intervals. `difference` draws as paired_bootstrap does.
enum { MAX_PAIRED = 8 };
typedef struct PairedColumns {
    int n;                                    // items
    int differences, ratios;
    const double *difference[MAX_PAIRED];     // [n] each
    const double *above[MAX_PAIRED], *below[MAX_PAIRED]; // [n] each: numerators and denominators of ratios
} PairedColumns;
// Out: [differences] and [ratios]; NaN where there are no items, or a denominator is 0 in the middle `confidence` of the resamples.
void paired_intervals(const PairedColumns *c, int resamples, uint64_t seed, double confidence, Interval *differences, Interval *ratios);
// How often seeded flips of the signs give a mean at least as far from 0: a two-sided p. Never 0.
double sign_flips_sampled(const double *difference, int n, int flips, uint64_t seed);
// Items with which a difference like the one seen would be settled with a chance of 80 %: told apart from 0, or held to the margin,
// whichever takes fewer. `deviation` is that of one item. Infinite where neither ever comes.
double items_to_settle(double difference, double deviation, double margin, double confidence);
// Of a mean of shares whose standard error is `error`: as many independent trials would have that error. At most `most`.
double effective_trials(double share, double error, double least, double most);
// Wilson's and the exact interval for trials that needn't be whole.
Interval wilson_share(double share, double trials, double confidence);

typedef enum MultipleTests { TESTS_BONFERRONI, TESTS_HOLM, TESTS_BENJAMINI_HOCHBERG } MultipleTests;
void adjust_p_values(MultipleTests method, const double *p, int n, double *adjusted);

// Standard errors of the mean score where answers come several to a problem.
typedef struct ClusteredError {
    double mean, clustered, naive, of_means;
} ClusteredError;
ClusteredError clustered_error(int problems, const int32_t *count, const double *score);

// ---- repeated sampling ---------------------------------------------------------------------------------------
// Of k samples drawn without replacement from `samples`, at least one or all are correct (Chen et al. 2021, arXiv 2107.03374).
double pass_at_k(int64_t samples, int64_t correct, int64_t k);
double all_k_correct(int64_t samples, int64_t correct, int64_t k);
// The most frequent of `draws` answers is the right one; ties are broken by chance, silent answers don't vote.
typedef struct VoteCase {
    int kinds;
    const int *votes; // [kinds] samples of each answer
    int silent;
    int right;        // which kind; -1: none
    int draws;
} VoteCase;
double majority_without_replacement(const VoteCase *v); // NaN if there are fewer samples than draws
double majority_with_replacement(const VoteCase *v);

// ---- costs ---------------------------------------------------------------------------------------------------
typedef struct AttemptCost {
    double pass_rate, tokens, cost; // of one attempt
} AttemptCost;
typedef struct PassCost {
    double cost, attempts, tokens; // expected up to the first pass; infinite where none passes
} PassCost;
PassCost cost_of_pass(const AttemptCost *a); // cost per attempt / pass rate (Erol et al. 2025, arXiv 2504.13359)
// What a further correct answer costs by changing from the first to the second; infinite if that gives none.
double incremental_cost(const AttemptCost *first, const AttemptCost *second);
// Correct answers after which `training` has paid; infinite if it never does, 0 if the first never passes.
double break_even_queries(double first_cost_of_pass, double second_cost_of_pass, double training);

#endif
