// Sampling from the statistics and logits that `head` left: truncation where a row asks for it, then the draw (draw.cu).
//
// truncate_kernel: a block of 384 threads per row, where some row is truncated. The kept set is a prefix
// of the entries by (logit falling, id rising), so it is a Cut: a rank (logits as integers, likeliest first) and how many
// of that rank belong. No sort: a histogram finds in which bin the prefix ends, finer ones inside of it find the rank.
//   Bins: first 2,048 of equal width in max - logit (1/64), where logits spread well and few threads meet in a bin; then
//     11, 11 and 10 bits of the rank. After the first, blocks whose maximum lies before the bin in question aren't read, and as
//     borders lie among likely tokens these are nearly all.
//   Sums for top_p: exp(logit - max) by exp_of_logit as an integer with 62 - log2(V) bits after the point: integer sums
//     don't depend on their order, so atomics may add them. What rounding cuts off is below 1e-8 of the row, exp is within
//     2^-21; the CPU sums in double, so sets may differ where a border lies that close.
//   min_p is a rank found by trial, 33-fold per step, of the same double comparison as on the CPU.
// Then kept ids (ascending), masked logits and the blocks' statistics are written, these by block_stats, so that the
// draw's logprob is what `head` gives for this kept set. A row that is no distribution is left as it is.
// SampleArgs.order isn't used.
#include "vocabulary.h"

enum { THREADS = 384, WARPS = THREADS / 32, BINS = 2048, BIN_BITS = 11, BATCH = 4 };
static const unsigned ALL = 0xffffffffu;
static const uint32_t LEAST = 0xffffffffu; // a rank beyond that of every logit

static __device__ __forceinline__ int lane_of(void) { return (int)threadIdx.x % 32; }

// ---- ranks -----------------------------------------------------------------------------------------------
// Rises as the logit falls; equal for equal logits (both zeros too).
static __device__ __forceinline__ uint32_t rank_of(float logit) {
    uint32_t bits = __float_as_uint(logit + 0.0f);
    return bits >> 31 ? bits : ~bits & 0x7fffffff;
}
static __device__ __forceinline__ float logit_of(uint32_t rank) { return __uint_as_float(rank >> 31 ? rank : ~rank & 0x7fffffff); }

static __device__ __forceinline__ int bin_of(float logit, float max) {
    float distance = (max - logit) * 64.0f;
    return distance < (float)(BINS - 1) ? (int)distance : BINS - 1; // of NaN (no logit is finite) the last too
}

typedef unsigned long long Mass;
static __device__ __forceinline__ Mass mass_of(float logit, float max, float scale) {
    float e = exp_of_logit(logit - max);
    return e > 0 ? (Mass)(e * scale) : 0;
}

// The first entries by rank: all before `rank`, and `equals` of it.
typedef struct Cut {
    uint32_t rank, equals;
    Mass mass;
} Cut;

// ---- histograms ------------------------------------------------------------------------------------------
typedef struct Histogram {
    uint32_t count[BINS], low[BINS], high[BINS]; // the mass in two halves: shared memory adds words of 32 bits fast
} Histogram;
// What the block's threads tell each other.
typedef struct Board {
    float max;
    bool sound;            // the row is a distribution
    uint32_t last;         // that min_p keeps
    Cut cut;
    int bin;               // in which a prefix ends
    uint32_t count, in_bin; // entries before it and in it
    Mass mass;             // before it
    Mass all;
} Board;

typedef struct Row {
    float *logits;     // [V']
    VocabStats *stats; // [blocks]
    int32_t V, blocks; // ids are 32 bits wide
    float max, scale;
    bool masses;       // top_p asks for them
    Histogram *whole, *part;
    Board *board;
} Row;

static __device__ __forceinline__ int32_t column_of(int32_t block, int j) { return block * VOCAB_BLOCK + lane_of() + 32 * j; }
static __device__ __forceinline__ void block_load(const Row &r, int32_t block, float x[COLUMNS]) {
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) x[j] = r.logits[column_of(block, j)];
}

static __device__ void histogram_clear(Histogram *h) {
    for (int i = (int)threadIdx.x; i < BINS; i += THREADS) h->count[i] = h->low[i] = h->high[i] = 0;
    __syncthreads();
}
static __device__ __forceinline__ void histogram_add(const Row &r, Histogram *h, int bin, float logit) {
    atomicAdd(&h->count[bin], 1u);
    if (!r.masses) return;
    Mass mass = mass_of(logit, r.max, r.scale);
    uint32_t low = (uint32_t)mass, high = (uint32_t)(mass >> 32);
    if (mass == 0) return;
    if (atomicAdd(&h->low[bin], low) + low < low) high++; // carried over
    if (high) atomicAdd(&h->high[bin], high);
}
static __device__ __forceinline__ Mass bin_mass(const Histogram *h, int bin) { return (Mass)h->high[bin] << 32 | h->low[bin]; }

// All entries by distance.
static __device__ void histogram_of_row(const Row &r) {
    histogram_clear(r.whole);
    for (int32_t i = (int32_t)threadIdx.x; i < r.V; i += THREADS * BATCH) {
        float x[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++) x[j] = i + j * THREADS < r.V ? r.logits[i + j * THREADS] : 0.0f;
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            if (i + j * THREADS < r.V) histogram_add(r, r.whole, bin_of(x[j], r.max), x[j]);
    }
    __syncthreads();
}
// Those in the bin whose rank begins with `prefix` (above `shift` bits), by the bits from `next` on.
static __device__ void histogram_of_part(const Row &r, int bin, uint32_t prefix, int shift, int next) {
    histogram_clear(r.part);
    for (int32_t b = (int32_t)threadIdx.x / 32; b < r.blocks; b += WARPS) {
        if (bin_of(r.stats[b].max, r.max) > bin) continue;
#pragma unroll 1 // few blocks are left
        for (int j = 0; j < COLUMNS; j++) {
            if (column_of(b, j) >= r.V) break;
            float logit = r.logits[column_of(b, j)];
            uint32_t rank = rank_of(logit);
            bool inside = bin_of(logit, r.max) == bin && (uint64_t)rank >> shift == prefix;
            if (inside) histogram_add(r, r.part, (int)(rank >> next & (BINS - 1)), logit);
        }
    }
    __syncthreads();
}

// Where a prefix of the bins reaches `goal` entries, or that mass: left on the board. There is such a bin, and goal > 0.
static __device__ void find_border(const Row &r, const Histogram *h, bool by_count, Mass goal) {
    enum { SHARE = BINS / 32 };
    if (threadIdx.x < 32) {
        int first = lane_of() * SHARE;
        uint32_t own_count = 0, count = 0;
        Mass own_mass = 0, mass = 0, all = 0;
        for (int i = 0; i < SHARE; i++) {
            int bin = first + (i + lane_of()) % SHARE; // each lane in another bank
            own_count += h->count[bin], own_mass += bin_mass(h, bin);
        }
        for (int lane = 0; lane < 32; lane++) {
            uint32_t c = __shfl_sync(ALL, own_count, lane);
            Mass w = __shfl_sync(ALL, own_mass, lane);
            if (lane < lane_of()) count += c, mass += w;
            all += w;
        }
        Mass before = by_count ? count : mass, own = by_count ? own_count : own_mass;
        if (before < goal && before + own >= goal) {
            int bin = first;
            while ((by_count ? count + h->count[bin] : mass + bin_mass(h, bin)) < goal && bin < first + SHARE - 1)
                count += h->count[bin], mass += bin_mass(h, bin), bin++;
            r.board->bin = bin, r.board->count = count, r.board->in_bin = h->count[bin], r.board->mass = mass;
        }
        if (threadIdx.x == 0) r.board->all = all;
    }
    __syncthreads();
}

// The cut at which the entries reach `goal`; the histogram of the row is there. By the whole block; on the board.
static __device__ void descend(const Row &r, bool by_count, Mass goal) {
    find_border(r, r.whole, by_count, goal);
    int bin = r.board->bin;
    Mass count = r.board->count, mass = r.board->mass;
    uint32_t prefix = 0;
    for (int shift = 32; shift > 0;) {
        int next = shift > BIN_BITS ? shift - BIN_BITS : 0;
        histogram_of_part(r, bin, prefix, shift, next);
        find_border(r, r.part, by_count, goal - (by_count ? count : mass));
        count += r.board->count, mass += r.board->mass;
        prefix = prefix << (shift - next) | (uint32_t)r.board->bin;
        shift = next;
    }
    if (threadIdx.x == 0) {
        Mass each = mass_of(logit_of(prefix), r.max, r.scale);
        Mass equals = by_count ? goal - count : each ? (goal - mass + each - 1) / each : 1;
        if (equals > r.board->in_bin) equals = r.board->in_bin;
        r.board->cut.rank = prefix, r.board->cut.equals = (uint32_t)equals, r.board->cut.mass = mass + equals * each;
    }
    __syncthreads();
}

// The last rank that min_p keeps, by one warp. Narrows (kept, dropped] 33-fold per step.
static __device__ uint32_t last_of_min_p(float max, float min_p) {
    uint32_t kept = rank_of(max), dropped = rank_of(-INFINITY);
    while (dropped - kept > 1) {
        uint32_t range = dropped - kept;
        uint32_t trial = kept + (uint32_t)((uint64_t)range * (unsigned)(lane_of() + 1) / 33);
        int yes = __popc(__ballot_sync(ALL, exp_double((double)logit_of(trial) - max) >= (double)min_p));
        uint32_t low = __shfl_sync(ALL, trial, yes ? yes - 1 : 0), high = __shfl_sync(ALL, trial, yes < 32 ? yes : 31);
        if (yes) kept = low;
        if (yes < 32) dropped = high;
    }
    return kept;
}

// ---- truncation ------------------------------------------------------------------------------------------
static __device__ Cut find_cut(const Row &r, const SampleRow *row) {
    Cut cut = {LEAST, LEAST, 0};
    bool top_k = row->top_k > 0 && row->top_k < r.V, top_p = row->top_p < 1;
    if (top_k || top_p) histogram_of_row(r);
    if (top_k) {
        descend(r, true, (Mass)row->top_k);
        cut = r.board->cut;
    }
    if (top_p) {
        if (!top_k) {
            find_border(r, r.whole, true, 1);
            cut.mass = r.board->all;
        }
        __syncthreads(); // the board has been read
        Mass goal = (Mass)ceil((double)row->top_p * (double)cut.mass);
        if (goal > cut.mass) goal = cut.mass;
        if (goal < 1) goal = 1; // one entry at least
        if (cut.mass > 0) {
            descend(r, false, goal);
            cut = r.board->cut;
        } else {
            cut.rank = rank_of(-INFINITY), cut.equals = 1; // nothing is possible
        }
    }
    if (r.board->last < cut.rank) cut.rank = r.board->last, cut.equals = LEAST;
    return cut;
}

// Sum of x over the lanes before this one, and over all.
static __device__ uint32_t count_before_lane(uint32_t x, uint32_t *all) {
    uint32_t before = x;
    for (int delta = 1; delta < 32; delta *= 2) {
        uint32_t other = __shfl_up_sync(ALL, before, (unsigned)delta);
        if (lane_of() >= delta) before += other;
    }
    *all = __shfl_sync(ALL, before, 31);
    return before - x;
}

// For each block: where its ids go in `kept`, and how many entries of the cut's rank it may keep. Returns by row->kept_count
// how many there are in all.
static __device__ void place_blocks(const Row &r, Cut cut, uint32_t *place, uint32_t *equals, SampleRow *row) {
    for (int32_t b = (int32_t)threadIdx.x / 32; b < r.blocks; b += WARPS) {
        uint32_t before = 0, equal = 0;
        if (rank_of(r.stats[b].max) <= cut.rank) {
            float x[COLUMNS];
            block_load(r, b, x);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                bool in = column_of(b, j) < r.V;
                before += (uint32_t)__popc(__ballot_sync(ALL, in && rank_of(x[j]) < cut.rank));
                equal += (uint32_t)__popc(__ballot_sync(ALL, in && rank_of(x[j]) == cut.rank));
            }
        }
        if (lane_of() == 0) place[b] = before, equals[b] = equal;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        Run run = run_of_lane(r.blocks);
        uint32_t equal = 0, count = 0, all;
        for (int64_t b = run.from; b < run.to; b++) equal += equals[b];
        uint32_t used = count_before_lane(equal, &all), left = used < cut.equals ? cut.equals - used : 0;
        for (int64_t b = run.from; b < run.to; b++) {
            equals[b] = equals[b] < left ? equals[b] : left;
            left -= equals[b], count += place[b] += equals[b];
        }
        uint32_t at = count_before_lane(count, &all);
        for (int64_t b = run.from; b < run.to; b++) {
            uint32_t here = place[b];
            place[b] = at, at += here;
        }
        if (threadIdx.x == 0) row->kept_count = (int32_t)all;
    }
    __syncthreads();
}

// Writes ids, logits and statistics of what stays.
static __device__ void keep_blocks(const Row &r, Cut cut, const uint32_t *place, const uint32_t *equals, int32_t *kept) {
    for (int32_t b = (int32_t)threadIdx.x / 32; b < r.blocks; b += WARPS) {
        float x[COLUMNS];
        bool some = rank_of(r.stats[b].max) <= cut.rank;
        uint32_t at = place[b], left = equals[b], lanes_before = (1u << lane_of()) - 1;
        if (some) block_load(r, b, x);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            if (!some) x[j] = -INFINITY;
            bool in = some && column_of(b, j) < r.V, equal = in && rank_of(x[j]) == cut.rank;
            unsigned equal_lanes = __ballot_sync(ALL, equal);
            bool keep = (in && rank_of(x[j]) < cut.rank) || (equal && (uint32_t)__popc(equal_lanes & lanes_before) < left);
            unsigned keep_lanes = __ballot_sync(ALL, keep);
            if (keep)
                kept[at + (uint32_t)__popc(keep_lanes & lanes_before)] = column_of(b, j);
            else
                x[j] = -INFINITY;
            r.logits[column_of(b, j)] = x[j];
            uint32_t equal_count = (uint32_t)__popc(equal_lanes);
            at += (uint32_t)__popc(keep_lanes), left -= equal_count < left ? equal_count : left;
        }
        VocabStats s = block_stats(x);
        __syncwarp(); // all lanes have read the old ones
        if (lane_of() == 0) r.stats[b] = s;
    }
}

// Grid: rows. Shared memory: two histograms, the board, place and equals [blocks].
__global__ void __launch_bounds__(THREADS, 2) truncate_kernel(SampleArgs a) {
    SHARED(Histogram, histograms);
    SampleRow *row = &a.rows[blockIdx.x];
    if (!row->kept) return;
    Row r;
    r.V = (int32_t)a.V, r.blocks = (int32_t)((a.V + VOCAB_BLOCK - 1) / VOCAB_BLOCK);
    r.logits = a.logits + (int64_t)blockIdx.x * r.blocks * VOCAB_BLOCK;
    r.stats = a.stats + (int64_t)blockIdx.x * r.blocks;
    r.whole = histograms, r.part = histograms + 1, r.board = (Board *)(histograms + 2);
    uint32_t *place = (uint32_t *)(r.board + 1);
    if (threadIdx.x < 32) {
        Distribution d = merge_stats(r.stats, r.blocks);
        bool sound = d.sum == d.sum;
        uint32_t last = sound && row->min_p > 0 ? last_of_min_p(d.max, row->min_p) : LEAST;
        if (threadIdx.x == 0) r.board->max = d.max, r.board->sound = sound, r.board->last = last;
    }
    __syncthreads();
    if (!r.board->sound) return;
    r.max = r.board->max;
    r.scale = ldexpf(1.0f, 31 + __clz(r.V)); // V < 2^(32 - clz), so the sum stays below 2^63
    r.masses = row->top_p < 1;
    Cut cut = find_cut(r, row);
    place_blocks(r, cut, place, place + r.blocks, row);
    keep_blocks(r, cut, place, place + r.blocks, row->kept);
}

extern "C" void sample_cuda(const Device *device, const SampleArgs *args) {
    if (args->M <= 0 || args->V <= 0) return;
    cudaStream_t stream = cuda_context(device)->stream;
    if (args->truncated) {
        size_t shared = 2 * sizeof(Histogram) + sizeof(Board) + 2 * ceil_div(args->V, VOCAB_BLOCK) * sizeof(uint32_t);
        allow_shared(truncate_kernel, shared);
        LAUNCH(stream, truncate_kernel, dim3((unsigned)args->M), dim3(THREADS), shared, *args);
    }
    draw_tokens(device, args);
}
