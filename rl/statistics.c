// Intervals and tests for comparisons on the same items. Exact functions only, so that an interval on the ledger has
// the same bits on every machine.
#include "statistics.h"
#include "algorithm.h"
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

// The normal distribution up to z: the same series, and in the tails a continued fraction.
static double normal_below(double z) {
    double density = exact_exp(-z * z / 2) * 0.39894228040143267794, a = fabs(z);
    if (a > 6) {
        double fraction = a;
        for (int k = 60; k > 0; k--) fraction = a + k / fraction;
        return z < 0 ? density / fraction : 1 - density / fraction;
    }
    double term = a, sum = a;
    for (int k = 3; term > sum * 1e-18; k += 2) sum += term *= a * a / k;
    return z < 0 ? 0.5 - density * sum : 0.5 + density * sum;
}
// Its inverse, by Newton's method from 0.
static double normal_quantile(double share) {
    if (!(share > 0 && share < 1)) return share == share ? (share > 0 ? INFINITY : -INFINITY) : NAN;
    double two_sided = fabs(2 * share - 1), z = two_sided > 0 ? normal_two_sided(two_sided) : 0;
    return share < 0.5 ? -z : z;
}
// Chi-square with one degree of freedom, from x on.
static double chi_square_beyond(double x) { return 2 * normal_below(-sqrt(x)); }

// Wilson (1927): the score interval, which stays honest near 0 and 1. Nothing is known without trials.
Interval wilson_share(double p, double n, double confidence) {
    if (!(n > 0)) return (Interval){0, 1};
    double z = normal_two_sided(confidence), zz = z * z;
    double centre = (p + zz / (2 * n)) / (1 + zz / n);
    double half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n));
    return (Interval){p == 0 ? 0 : fmax(centre - half, 0), p == 1 ? 1 : fmin(centre + half, 1)};
}
Interval wilson_interval(int64_t successes, int64_t trials, double confidence) {
    return trials <= 0 ? (Interval){0, 1} : wilson_share((double)successes / (double)trials, (double)trials, confidence);
}

// A difference is settled where its interval, whose half width falls with the root of the items, leaves 0 out or lies within
// the margin; a chance of 80 % adds that quantile to the interval's.
double items_to_settle(double difference, double deviation, double margin, double confidence) {
    double z = normal_two_sided(confidence) + normal_quantile(0.8), d = fabs(difference), far = fmax(d, margin - d);
    if (!(far > 0) || !(deviation >= 0)) return INFINITY;
    double items = ceil(z * deviation / far * (z * deviation / far));
    return margin > 0 && margin - d > d ? fmax(items, ceil(3 / margin)) : items;
}
double effective_trials(double share, double error, double least, double most) {
    double trials = error > 0 ? share * (1 - share) / (error * error) : least;
    return fmin(fmax(trials, least), most);
}

Interval agresti_coull_interval(int64_t successes, int64_t trials, double confidence) {
    double z = normal_two_sided(confidence), n = (double)trials + z * z, p = ((double)successes + z * z / 2) / n;
    double half = z * sqrt(p * (1 - p) / n);
    return (Interval){fmax(p - half, 0), fmin(p + half, 1)};
}
Interval wald_interval(int64_t successes, int64_t trials, double confidence) {
    double n = (double)trials, p = (double)successes / n, half = normal_two_sided(confidence) * sqrt(p * (1 - p) / n);
    return (Interval){fmax(p - half, 0), fmin(p + half, 1)};
}

static double log_choose(int64_t n, int64_t k) {
    double sum = 0;
    if (k > n - k) k = n - k;
    for (int64_t i = 1; i <= k; i++) sum += exact_log((double)(n - k + i) / (double)i);
    return sum;
}
// P(X >= k), X binomial.
static double binomial_from(int64_t n, int64_t k, double p, double log_choose_k) {
    if (k <= 0) return 1;
    bool upwards = (double)k > (double)n * p; // away from the mode, so that terms fall
    double at = exact_exp(log_choose_k + (double)k * exact_log(p) + (double)(n - k) * exact_log(1 - p)), sum = 0, term = at, odds = p / (1 - p);
    for (int64_t i = k; upwards && i <= n && term > sum * 1e-18; i++) {
        sum += term;
        term *= odds * (double)(n - i) / (double)(i + 1);
    }
    for (int64_t i = k; !upwards && i > 0 && term > sum * 1e-18; i--) {
        term *= (double)i / (odds * (double)(n - i + 1));
        sum += term;
    }
    return fmin(1, upwards ? sum : 1 - sum);
}
// The p with P(X >= k) = tail, which rises with p.
static double binomial_root(int64_t n, int64_t k, double tail) {
    double low = 0, high = 1, choose = log_choose(n, k);
    for (int i = 0; i < 200 && low < high; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) break;
        if (binomial_from(n, k, middle, choose) < tail) low = middle;
        else high = middle;
    }
    return low + (high - low) / 2;
}
// Clopper and Pearson (1934).
Interval clopper_pearson_interval(int64_t successes, int64_t trials, double confidence) {
    double tail = (1 - confidence) / 2;
    return (Interval){successes == 0 ? 0 : binomial_root(trials, successes, tail),
                      successes == trials ? 1 : 1 - binomial_root(trials, trials - successes, tail)};
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

Interval percentile_interval(double *values, int count, double confidence) {
    if (count <= 0) return (Interval){NAN, NAN};
    double tail = (1 - confidence) / 2, low = quantile_sorting(values, count, tail);
    return (Interval){low, quantile_sorting(values, count, 1 - tail)};
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

McNemar mcnemar_test(int64_t only_first, int64_t only_second, int64_t both, int64_t neither) {
    double b = (double)only_first, c = (double)only_second, n = b + c, all = n + (double)both + (double)neither, apart = fabs(b - c);
    McNemar m = {.exact_p = mcnemar_exact(only_first, only_second), .mid_p = NAN, .chi2 = NAN, .chi2_p = NAN, .chi2_corrected = NAN,
                 .chi2_corrected_p = NAN, .difference = (b - c) / all};
    m.difference_error = sqrt(n - (b - c) * (b - c) / all) / all;
    double half = normal_two_sided(0.95) * m.difference_error;
    m.difference_95 = (Interval){m.difference - half, m.difference + half};
    if (n == 0) return m;
    int64_t k = only_first < only_second ? only_first : only_second;
    double at = exact_exp(log_choose(only_first + only_second, k) - n * exact_log(2)); // P(X = k)
    m.mid_p = only_first == only_second ? 1 - at : m.exact_p - at;
    if (only_first != only_second && m.exact_p == 1) { // where doubling the tail went past 1
        double below = 0, term = at;
        for (int64_t i = k; i > 0; i--) below += term *= (double)i / (n - (double)i + 1);
        m.mid_p = 2 * below + at;
    }
    m.chi2 = apart * apart / n, m.chi2_p = chi_square_beyond(m.chi2);
    m.chi2_corrected = (apart - 1) * (apart - 1) / n, m.chi2_corrected_p = chi_square_beyond(m.chi2_corrected);
    return m;
}

// ---- on given resamples --------------------------------------------------------------------------------------
static double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n > 0 ? sum / n : NAN;
}
static double quantile_of(const double *x, int n, double share) {
    double *copy = xcalloc((size_t)n + 1, sizeof *copy);
    for (int i = 0; i < n; i++) copy[i] = x[i];
    double q = quantile_sorting(copy, n, share);
    free(copy);
    return q;
}

Bootstrap bootstrap_summary(const double *difference, int n, const double *means, int count) {
    double centre = mean_of(means, count), squares = 0, low = 0, high = 0;
    for (int i = 0; i < count; i++) {
        squares += (means[i] - centre) * (means[i] - centre);
        low += means[i] <= 0, high += means[i] >= 0;
    }
    return (Bootstrap){.mean = mean_of(difference, n), .error = count > 1 ? sqrt(squares / (count - 1)) : NAN,
                       .two_sided_p = fmin(1, 2 * fmin(low, high) / count)};
}
Interval bootstrap_percentile(const double *means, int count, double confidence) {
    double tail = (1 - confidence) / 2;
    return (Interval){quantile_of(means, count, tail), quantile_of(means, count, 1 - tail)};
}
Interval bootstrap_basic(double mean, const double *means, int count, double confidence) {
    Interval p = bootstrap_percentile(means, count, confidence);
    return (Interval){2 * mean - p.high, 2 * mean - p.low};
}
// Bias-corrected and accelerated: the bias from where the mean stands among the resamples, the acceleration from the
// jackknife.
Interval bootstrap_bca(const double *difference, int n, const double *means, int count, double confidence) {
    double mean = mean_of(difference, n), below = 0, cubes = 0, squares = 0;
    for (int i = 0; i < count; i++) below += (means[i] < mean) + (means[i] <= mean);
    double bias = normal_quantile(below / (2.0 * count)), z = normal_quantile((1 - confidence) / 2);
    for (int i = 0; i < n; i++) {
        double u = difference[i] - mean; // the jackknife's deviations, but for their factor
        cubes += u * u * u, squares += u * u;
    }
    double acceleration = squares > 0 ? cubes / (6 * squares * sqrt(squares)) : 0, share[2];
    for (int i = 0; i < 2; i++) {
        double shifted = bias + (i ? -z : z);
        share[i] = normal_below(bias + shifted / (1 - acceleration * shifted));
    }
    return (Interval){quantile_of(means, count, share[0]), quantile_of(means, count, share[1])};
}

void bootstrap_every_mean(const double *difference, int n, double *means) {
    int64_t count = 1;
    for (int i = 0; i < n; i++) count *= n;
    for (int64_t r = 0; r < count; r++) {
        double sum = 0;
        int64_t rest = r;
        for (int i = 0; i < n; i++, rest /= n) sum += difference[rest % n];
        means[r] = sum / n;
    }
}

// Flips that give the observed mean count on both sides, whatever their rounding.
double sign_flip_test(const double *difference, int n, double *at_least, double *at_most) {
    double observed = mean_of(difference, n), near = 1e-14 * fmax(1e-300, fabs(observed)), more = 0, less = 0;
    uint64_t flips = (uint64_t)1 << n;
    for (uint64_t f = 0; f < flips; f++) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += f >> i & 1 ? -difference[i] : difference[i];
        more += sum / n >= observed - near, less += sum / n <= observed + near;
    }
    *at_least = more / (double)flips, *at_most = less / (double)flips;
    return observed;
}

// ---- several tests, several answers a problem ----------------------------------------------------------------
typedef struct Ranked {
    double p;
    int at;
} Ranked;
static int lower_first(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}
void adjust_p_values(MultipleTests method, const double *p, int n, double *adjusted) {
    Ranked *sorted = xcalloc((size_t)n + 1, sizeof *sorted);
    for (int i = 0; i < n; i++) sorted[i] = (Ranked){p[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, lower_first);
    double most = 0, least = 1;
    for (int i = 0; i < n; i++) {
        most = fmax(most, sorted[i].p * (n - i));
        if (method == TESTS_BONFERRONI) adjusted[i] = fmin(1, p[i] * n);
        if (method == TESTS_HOLM) adjusted[sorted[i].at] = fmin(1, most);
    }
    for (int i = n - 1; method == TESTS_BENJAMINI_HOCHBERG && i >= 0; i--) {
        least = fmin(least, sorted[i].p / ((i + 1) / (double)n)); // the largest p stays as it is, to the bit
        adjusted[sorted[i].at] = least;
    }
    free(sorted);
}

ClusteredError clustered_error(int problems, const int32_t *count, const double *score) {
    double sum = 0, n = 0, squares = 0, clustered = 0, means = 0, spread = 0;
    int64_t at = 0;
    for (int p = 0; p < problems; p++)
        for (int32_t i = 0; i < count[p]; i++) sum += score[at++], n++;
    double mean = sum / n;
    at = 0;
    for (int pass = 0; pass < 2; pass++, at = 0)
        for (int p = 0; p < problems; p++) {
            double residuals = 0;
            for (int32_t i = 0; i < count[p]; i++, at++) {
                residuals += score[at] - mean;
                if (pass == 0) squares += (score[at] - mean) * (score[at] - mean);
            }
            double of_problem = mean + residuals / count[p];
            if (pass == 0) clustered += residuals * residuals, means += of_problem / problems;
            else spread += (of_problem - means) * (of_problem - means);
        }
    return (ClusteredError){.mean = mean, .clustered = sqrt(clustered) / n, .naive = sqrt(squares / n / n),
                            .of_means = problems > 1 ? sqrt(spread / (problems - 1) / problems) : NAN};
}
