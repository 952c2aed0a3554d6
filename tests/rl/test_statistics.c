// Intervals and tests against statsmodels, numpy and exact enumeration.
#include "../test.h"
#include "json.h"
#include "rl.h"

static json_t *cases_file(void) {
    Err err = {0};
    json_t *file;
    OK(json_read_file(TEST_DATA "/rl/statistics.json", 1 << 20, &file, &err));
    return file;
}
static const json_t *field(const json_t *c, const char *part, const char *key) {
    return json_object_get(json_object_get(c, part), key);
}
static double number(const json_t *c, const char *part, const char *key) { return json_number_value(field(c, part, key)); }
static bool is_kind(const json_t *c, const char *kind) { return !strcmp(json_string_value(json_object_get(c, "kind")), kind); }

static void wilson(void) {
    json_t *file = cases_file(), *c;
    size_t i;
    int compared = 0;
    json_array_foreach(json_object_get(file, "cases"), i, c) {
        if (!is_kind(c, "proportion_interval")) continue;
        Interval got = wilson_interval(json_integer_value(field(c, "inputs", "successes")),
                                       json_integer_value(field(c, "inputs", "trials")), number(c, "config", "confidence"));
        const json_t *want = field(c, "expected", "wilson");
        CHECK_NEAR(got.low, json_number_value(json_array_get(want, 0)), 1e-12);
        CHECK_NEAR(got.high, json_number_value(json_array_get(want, 1)), 1e-12);
        compared++;
    }
    CHECK_INT(compared, 18);
    Interval nothing = wilson_interval(0, 0, 0.95);
    CHECK(nothing.low == 0 && nothing.high == 1);
    json_decref(file);
}

static void mcnemar(void) {
    json_t *file = cases_file(), *c;
    size_t i;
    int compared = 0;
    json_array_foreach(json_object_get(file, "cases"), i, c) {
        if (!is_kind(c, "mcnemar")) continue;
        int64_t b = json_integer_value(field(c, "inputs", "only_first")), d = json_integer_value(field(c, "inputs", "only_second"));
        double want = number(c, "expected", "exact_p");
        CHECK_NEAR(mcnemar_exact(b, d), want, 1e-12 * want);
        CHECK_NEAR(mcnemar_exact(d, b), want, 1e-12 * want);
        compared++;
    }
    CHECK_INT(compared, 8);
    // 2^-2999 is no double; the answer is 0, not NaN.
    CHECK(mcnemar_exact(0, 3000) == 0 && mcnemar_exact(50000, 50000) == 1);
    CHECK_NEAR(mcnemar_exact(50000, 50001), 1, 1e-9);
    json_decref(file);
}

static void percentiles(void) {
    json_t *file = cases_file(), *c;
    size_t i;
    int compared = 0;
    json_array_foreach(json_object_get(file, "cases"), i, c) {
        if (!is_kind(c, "paired_bootstrap")) continue;
        const json_t *means = field(c, "expected", "bootstrap_means");
        int n = (int)json_array_size(means);
        double *values = xcalloc((size_t)n, sizeof(double));
        for (int k = 0; k < n; k++) values[k] = json_number_value(json_array_get(means, (size_t)k));
        const char *const keys[] = {"percentile_95", "percentile_90"};
        for (int k = 0; k < 2; k++) {
            Interval got = percentile_interval(values, n, k ? 0.90 : 0.95);
            const json_t *want = field(c, "expected", keys[k]);
            CHECK_NEAR(got.low, json_number_value(json_array_get(want, 0)), 1e-12);
            CHECK_NEAR(got.high, json_number_value(json_array_get(want, 1)), 1e-12);
        }
        free(values);
        compared++;
    }
    CHECK_INT(compared, 4);
    CHECK(isnan(percentile_interval(NULL, 0, 0.95).low));
    json_decref(file);
}

// Against every one of the n^n resamples: the ends are where the exact distribution says, up to Monte-Carlo error.
static void bootstrap_approaches_enumeration(void) {
    json_t *file = cases_file(), *c;
    size_t i;
    json_array_foreach(json_object_get(file, "cases"), i, c) {
        if (!is_kind(c, "paired_bootstrap_exact")) continue;
        const json_t *differences = field(c, "inputs", "differences");
        int n = (int)json_array_size(differences), total = 1;
        double a[8], zero[8] = {0};
        for (int k = 0; k < n; k++) a[k] = json_number_value(json_array_get(differences, (size_t)k)), total *= n;
        Interval got = paired_bootstrap(a, zero, n, 100000, 1, 0.95);
        int below[2] = {0}, above[2] = {0};
        for (int r = 0; r < total; r++) {
            double mean = 0;
            for (int k = 0, digits = r; k < n; k++, digits /= n) mean += a[digits % n] / n;
            below[0] += mean < got.low - 1e-9, below[1] += mean < got.high - 1e-9;
            above[0] += mean > got.low + 1e-9, above[1] += mean > got.high + 1e-9;
        }
        CHECK(below[0] <= 0.027 * total && above[0] <= 0.977 * total);
        CHECK(below[1] <= 0.977 * total && above[1] <= 0.027 * total);
    }
    json_decref(file);
}

static void bootstrap_is_seeded(void) {
    double a[50], b[50];
    for (int k = 0; k < 50; k++) a[k] = k % 3 == 0, b[k] = k % 5 == 0;
    Interval x = paired_bootstrap(a, b, 50, 2000, 7, 0.95), y = paired_bootstrap(a, b, 50, 2000, 7, 0.95);
    CHECK(x.low == y.low && x.high == y.high && x.low < 0.14 && x.high > 0.14);
    Interval same = paired_bootstrap(a, a, 50, 100, 7, 0.95);
    CHECK(same.low == 0 && same.high == 0);
    CHECK(isnan(paired_bootstrap(a, b, 0, 100, 7, 0.95).low));
}

// In 95 of 100 experiments the interval has to hold the true difference; 400 experiments, so 90 to 99 is chance.
static void bootstrap_covers(void) {
    Random r = random_start(11, STREAM_TEST, 0);
    int covered = 0;
    for (int e = 0; e < 400; e++) {
        double a[80], b[80];
        for (int k = 0; k < 80; k++) a[k] = random_double(&r) < 0.7, b[k] = random_double(&r) < 0.5;
        Interval i = paired_bootstrap(a, b, 80, 400, (uint64_t)e, 0.95);
        covered += i.low <= 0.2 && 0.2 <= i.high;
    }
    CHECK(covered >= 360 && covered <= 396);
}

static const Test tests[] = {
    {"wilson", wilson},
    {"mcnemar", mcnemar},
    {"percentiles", percentiles},
    {"bootstrap_approaches_enumeration", bootstrap_approaches_enumeration},
    {"bootstrap_is_seeded", bootstrap_is_seeded},
    {"bootstrap_covers", bootstrap_covers},
};
TEST_MAIN(tests)
