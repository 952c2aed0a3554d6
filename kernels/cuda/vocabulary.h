// What head.cu, sample.cu and draw.cu share: the statistics of a block of 256 logits and their merging, both by one warp. Sampling
// computes them anew after truncation, and must get the bits that the head gets with the same kept set, so both call
// these and nothing else.
//   Within a block lane l has columns l, l + 32, ...: a chain each for sum and weighted, then the tree of warp_sum.
//   Over blocks lane l has the l-th of 32 equal runs of blocks: a chain in order in double, then the lanes in order. So the
//     sum of all blocks before a block is a by-product, which the draw walks along.
#ifndef RECKON_VOCABULARY_H
#define RECKON_VOCABULARY_H
#include "cuda.h"

enum { COLUMNS = VOCAB_BLOCK / 32 }; // of a block, per lane

// The last part of sample_cuda: a token for each row, by what truncation left (draw.cu).
void draw_tokens(const Device *device, const SampleArgs *args);

// exp(x) for x <= 0 or a little more: within 2^-21 of itself, 0 below 2^-126. What multiplying by log2(e) rounded away
// is put back.
static inline __device__ float exp_of_logit(float x) {
    const float log2e = 1.44269504f, ln2 = 0.693147181f;
    float t = x * log2e, y = exp2_approx(t);
    if (!(x > -100.0f)) return y; // 0 or NaN: no correction of infinity
    return fmaf(y, fmaf(x, log2e, -t) * ln2, y);
}

// x[j]: logit of column lane + 32 j. A NaN stays: the row must not pass for a distribution without it.
static inline __device__ VocabStats block_stats(const float x[COLUMNS]) {
    float top = x[0];
    for (int j = 1; j < COLUMNS; j++) top = x[j] > top || x[j] != x[j] ? x[j] : top;
    VocabStats s;
    s.max = warp_max(top), s.sum = 0, s.weighted = 0;
    if (s.max == -INFINITY) return s;
    for (int j = 0; j < COLUMNS; j++) {
        float d = x[j] - s.max, e = exp_of_logit(d);
        s.sum += e;
        s.weighted = fmaf(e, d > -200.0f ? d : -200.0f, s.weighted); // keeps 0 * infinity out
    }
    s.sum = warp_sum(s.sum), s.weighted = warp_sum(s.weighted);
    return s;
}

// start + x of lane 0 + x of lane 1 + ... in this order: what precedes this lane's x, and all of it.
static inline __device__ double before_lane(double start, double x, double *all) {
    double before = start, sum = start;
    for (int lane = 0; lane < 32; lane++) {
        if (lane == (int)(threadIdx.x % 32)) before = sum;
        sum += __shfl_sync(0xffffffffu, x, lane);
    }
    *all = sum;
    return before;
}

// The blocks of this lane.
typedef struct Run {
    int64_t from, to;
} Run;
static inline __device__ Run run_of_lane(int64_t blocks) {
    int64_t length = (blocks + 31) / 32, from = length * (threadIdx.x % 32);
    Run r = {from < blocks ? from : blocks, from + length < blocks ? from + length : blocks};
    return r;
}

typedef struct Distribution {
    float max;
    double sum, log_sum, entropy;
    double before, own; // sums of the blocks before this lane's run, and of its run
} Distribution;

// A block's part of the sum, relative to the row's maximum.
static inline __device__ double block_mass(VocabStats s, float max) {
    return s.max == -INFINITY ? 0.0 : s.sum * exp_double((double)s.max - max);
}

// stats [blocks]; by a whole warp, every lane gets the result.
static inline __device__ Distribution merge_stats(const VocabStats *stats, int64_t blocks) {
    Distribution d;
    Run run = run_of_lane(blocks);
    d.max = -INFINITY;
    for (int64_t b = run.from; b < run.to; b++) {
        float max = stats[b].max;
        d.max = max > d.max || max != max ? max : d.max;
    }
    d.max = warp_max(d.max);
    double weighted = 0, all;
    d.own = 0;
    for (int64_t b = run.from; b < run.to; b++) {
        VocabStats s = stats[b];
        if (s.max == -INFINITY) continue;
        double shift = (double)s.max - d.max, e = exp_double(shift);
        d.own += s.sum * e;
        weighted += (s.weighted + s.sum * shift) * e;
    }
    d.before = before_lane(0, d.own, &d.sum);
    before_lane(0, weighted, &all);
    d.log_sum = log_double(d.sum);
    d.entropy = d.log_sum - all / d.sum;
    if (d.entropy < 0) d.entropy = 0; // one token has it all, rounded
    return d;
}

#endif
