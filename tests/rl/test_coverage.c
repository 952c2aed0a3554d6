// How often the intervals of a comparison hold what they should: 2,000 simulated comparisons of 200 items at a rate, paired by
// items that are hard for both or easy for both. Nominal 95 %; between rates of 0.2 and 0.8 it must lie between 93.5 and
// 96.5. At the edges Wilson's interval may fall short, and the exact one (Clopper and Pearson) holds at least what it says.
#include "../test.h"
#include "statistics.h"

enum { COMPARISONS = 2000, ITEMS = 200, RESAMPLES = 500 };

// Outcomes of two arms on one item: with chance `alike` both are judged by one draw, else each by its own.
static void outcomes(Random *r, double rate_a, double rate_b, double alike, double *a, double *b) {
    double u = random_double(r), v = random_double(r) < alike ? u : random_double(r);
    *a = u < rate_a, *b = v < rate_b;
}

static void paired_differences(void) {
#ifdef RECKON_SANITIZED
    SKIP("millions of resamples are too slow under sanitizers");
#else
    static const struct {
        double a, b, alike;
    } cases[] = {{0.2, 0.2, 0}, {0.3, 0.2, 0.5}, {0.5, 0.5, 0.3}, {0.6, 0.5, 0.7}, {0.8, 0.7, 0.5}, {0.8, 0.2, 0}};
    double a[ITEMS], b[ITEMS];
    for (int c = 0; c < COUNT(cases); c++) {
        Random r = random_start(41, STREAM_TEST, (uint64_t)c);
        int held = 0;
        for (int i = 0; i < COMPARISONS; i++) {
            for (int k = 0; k < ITEMS; k++) outcomes(&r, cases[c].a, cases[c].b, cases[c].alike, &a[k], &b[k]);
            Interval found = paired_bootstrap(a, b, ITEMS, RESAMPLES, (uint64_t)i, 0.95);
            double truth = cases[c].a - cases[c].b;
            held += found.low <= truth + 1e-12 && truth <= found.high + 1e-12;
        }
        double share = (double)held / COMPARISONS;
        printf("# difference of %.1f and %.1f, alike %.1f: %.2f %%\n", cases[c].a, cases[c].b, cases[c].alike, 100 * share);
        CHECK(share >= 0.935 && share <= 0.965);
    }
#endif
}

static double coverage_of(Interval (*interval)(int64_t, int64_t, double), double rate, uint64_t seed, int trials) {
    Random r = random_start(seed, STREAM_TEST, (uint64_t)(rate * 1e6));
    int held = 0;
    for (int i = 0; i < 10 * COMPARISONS; i++) {
        int64_t successes = 0;
        for (int k = 0; k < trials; k++) successes += random_double(&r) < rate;
        Interval found = interval(successes, trials, 0.95);
        held += found.low <= rate && rate <= found.high;
    }
    return held / (10.0 * COMPARISONS);
}
static void rates(void) {
    static const double inner[] = {0.2, 0.35, 0.5, 0.65, 0.8}, edges[] = {0.005, 0.02, 0.98, 0.995};
    for (int i = 0; i < COUNT(inner); i++) {
        double share = coverage_of(wilson_interval, inner[i], 43, ITEMS);
        printf("# rate %.2f: Wilson %.2f %%\n", inner[i], 100 * share);
        CHECK(share >= 0.935 && share <= 0.965);
    }
    for (int i = 0; i < COUNT(edges); i++) {
        double wilson = coverage_of(wilson_interval, edges[i], 43, ITEMS), exact = coverage_of(clopper_pearson_interval, edges[i], 43, ITEMS);
        printf("# rate %.3f: Wilson %.2f %%, exact %.2f %%\n", edges[i], 100 * wilson, 100 * exact);
        CHECK(exact >= 0.948); // 95 less what 20,000 simulations may miss by chance
    }
}

static const Test tests[] = {{"paired differences", paired_differences}, {"rates, and at the edges", rates}};
TEST_MAIN(tests)
