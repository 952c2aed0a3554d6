// Intervals and tests for comparisons on the same items. Exact functions only, so that an interval on the ledger has
// the same bits on every machine.
#include "rl.h"
#include <math.h>
#include <stdlib.h>

// The z with P(|Z| <= z) = confidence: Newton's method on the normal distribution, whose integral from 0 is the
// density times the series z + z^3/3 + z^5/(3 5) + ... (Abramowitz and Stegun 26.2.11).
static double normal_two_sided(double confidence) {
    double z = 1;
    for (int round = 0; round < 60; round++) {
        double density = exact_exp(-z * z / 2) * 0.39894228040143267794, term = z, sum = z;
        for (int k = 3; term > sum * 1e-18; k += 2) sum += term *= z * z / k;
        double step = (density * sum - confidence / 2) / density;
        z -= step > 1 ? 1 : step < -1 ? -1 : step;
        if (z < 0) z = 0;
        if (fabs(step) < 1e-16) break;
    }
    return z;
}

// Wilson (1927): the score interval, which stays honest near 0 and 1. Nothing is known without trials.
Interval wilson_interval(int64_t successes, int64_t trials, double confidence) {
    if (trials <= 0) return (Interval){0, 1};
    double n = (double)trials, p = (double)successes / n, z = normal_two_sided(confidence), zz = z * z;
    double centre = (p + zz / (2 * n)) / (1 + zz / n);
    double half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n));
    return (Interval){successes == 0 ? 0 : fmax(centre - half, 0), successes == trials ? 1 : fmin(centre + half, 1)};
}

// McNemar's test without approximation: of the n pairs that differ, under the null hypothesis each falls on either side
// with probability 1/2. p = 2 P(X <= min), at most 1. The sum runs down from its largest term, so nothing underflows.
double mcnemar_exact(int64_t only_first, int64_t only_second) {
    int64_t n = only_first + only_second, k = only_first < only_second ? only_first : only_second;
    if (n == 0 || 2 * k == n) return 1;
    double log_top = -(double)n * exact_log(2), sum = 0, relative = 1;
    for (int64_t i = 1; i <= k; i++) log_top += exact_log((double)(n - k + i) / (double)i);
    for (int64_t i = k; i >= 0 && relative > 0; i--) {
        sum += relative;
        relative *= (double)i / (double)(n - i + 1);
    }
    return fmin(1, 2 * exact_exp(log_top) * sum);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double quantile(const double *sorted, int count, double q) {
    double at = q * (count - 1);
    int below = (int)at;
    if (below >= count - 1) return sorted[count - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}
Interval percentile_interval(double *values, int count, double confidence) {
    if (count <= 0) return (Interval){NAN, NAN};
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    double tail = (1 - confidence) / 2;
    return (Interval){quantile(values, count, tail), quantile(values, count, 1 - tail)};
}

Interval paired_bootstrap(const double *a, const double *b, int n, int resamples, uint64_t seed, double confidence) {
    if (n <= 0 || resamples <= 0) return (Interval){NAN, NAN};
    double *means = xcalloc((size_t)resamples, sizeof(double));
    Random random = random_start(seed, STREAM_BOOTSTRAP, 0);
    for (int r = 0; r < resamples; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            uint32_t k = random_below(&random, (uint32_t)n);
            sum += a[k] - b[k];
        }
        means[r] = sum / n;
    }
    Interval interval = percentile_interval(means, resamples, confidence);
    free(means);
    return interval;
}
