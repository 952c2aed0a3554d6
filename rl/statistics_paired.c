// Resampling of items that carry several columns: whether an answer was right, its tokens, its FLOPs, its price. One
// resample draws items, and all columns go with them, so that a difference and a ratio of one comparison speak of the same worlds.
#include "statistics.h"
#include "algorithm.h"
#include <math.h>
#include <stdlib.h>

// Columns side by side, row after row: [n][width].
static double *interleave(const PairedColumns *c, int width) {
    double *rows = xcalloc((size_t)c->n * (size_t)width + 1, sizeof *rows);
    for (int i = 0; i < c->n; i++) {
        double *row = rows + (size_t)i * (size_t)width;
        for (int k = 0; k < c->differences; k++) *row++ = c->difference[k][i];
        for (int k = 0; k < c->ratios; k++) *row++ = c->above[k][i], *row++ = c->below[k][i];
    }
    return rows;
}

void paired_intervals(const PairedColumns *c, int resamples, uint64_t seed, double confidence, Interval *differences, Interval *ratios) {
    int width = c->differences + 2 * c->ratios, outputs = c->differences + c->ratios;
    for (int k = 0; k < c->differences; k++) differences[k] = (Interval){NAN, NAN};
    for (int k = 0; k < c->ratios; k++) ratios[k] = (Interval){NAN, NAN};
    if (c->n <= 0 || resamples <= 0) return;
    double *rows = interleave(c, width), *values = xcalloc((size_t)resamples * (size_t)outputs, sizeof *values);
    Random random = random_start(seed, STREAM_BOOTSTRAP, 0);
    for (int r = 0; r < resamples; r++) {
        double sum[3 * MAX_PAIRED] = {0};
        for (int i = 0; i < c->n; i++) {
            const double *row = rows + (size_t)random_below(&random, (uint32_t)c->n) * (size_t)width;
            for (int k = 0; k < width; k++) sum[k] += row[k];
        }
        for (int k = 0; k < c->differences; k++) values[(size_t)k * (size_t)resamples + (size_t)r] = sum[k] / c->n;
        for (int k = 0; k < c->ratios; k++) {
            const double *s = sum + c->differences + 2 * k;
            values[(size_t)(c->differences + k) * (size_t)resamples + (size_t)r] = s[1] > 0 ? s[0] / s[1] : INFINITY;
        }
    }
    for (int k = 0; k < outputs; k++) {
        Interval interval = percentile_interval(values + (size_t)k * (size_t)resamples, resamples, confidence);
        if (k < c->differences) differences[k] = interval;
        else if (isfinite(interval.low) && isfinite(interval.high)) ratios[k - c->differences] = interval;
    }
    free(rows), free(values);
}

double sign_flips_sampled(const double *difference, int n, int flips, uint64_t seed) {
    double observed = 0, extreme = 0;
    for (int i = 0; i < n; i++) observed += difference[i];
    double near = 1e-12 * (fabs(observed) + 1);
    Random random = random_start(seed, STREAM_BOOTSTRAP, 1);
    for (int f = 0; f < flips; f++) {
        double sum = 0;
        uint32_t bits = 0;
        for (int i = 0; i < n; i++) {
            if (i % 32 == 0) bits = random_next(&random);
            sum += bits & 1 ? difference[i] : -difference[i];
            bits >>= 1;
        }
        extreme += fabs(sum) >= fabs(observed) - near;
    }
    return (extreme + 1) / (flips + 1.0);
}
