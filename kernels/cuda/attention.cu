// Attention over pages, forward. One definition of a row's numbers, three ways to share the work out; all give the same
// bits, as every product, maximum and sum of a row is the same chain:
//   scores x = (q . k) * (scale * log2 e), a tensor-core chain over D; page after page: the running maximum, weights
//   2^(x - maximum), their sum (a thread's eight, then the quad), outputs rescaled, then two tensor-core products of 16
//   positions with the weights rounded to bf16; a split of SPLIT_PAGES pages starts anew, splits are merged ascending.
//   With a window a row begins at the page of the first position it sees: pages before that leave its state as it starts.
//
//   tiles   bf16, prefill and training. Grid: windows of consecutive tokens (the last first, they see most) x kv heads x
//           halves of the columns where D > 128;
//           4 warps of 16 or 32 rows, a row being a token and one of the kv head's queries, so that a page is loaded once
//           for all of them. Pages pass through three stages of shared memory. A window that straddles sequences walks one
//           after the other. Per page and warp ldmatrix moves as many bytes as the tensor cores can use with 16
//           rows; 32 rows halve that where registers allow it (D <= 64). The splits' totals wait in shared memory.
//   decode  bf16, where no two rows in succession share a table. Grid: rows x kv heads x splits, or rows x kv heads where
//           that alone fills the device. The queries of one kv head are the rows of one product. Four pages at a time, one a
//           warp for the scores; then each warp takes a quarter of the columns of all four, in order. 32 KiB (D = 64) are
//           under way per block, several blocks a multiprocessor; rows are the fastest index, so that sequences of a group
//           meet in L2 at the prompt's pages. The block that finishes a row's last split merges them.
//   plain   fp32: a warp per row and head, lanes over positions and then over columns.
#include "attention_tile.h"

// ---- the running softmax ---------------------------------------------------------------------------------
struct Softmax {
    float max, sum; // in powers of two
};
static __device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
static __device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
// Scales scores and hides what row i / 8 of each half doesn't see; the maxima of the quad's columns.
static __device__ __forceinline__ void scale_scores(float s[4][4], float scale, const Sight &see, float top[2]) {
    bool all = all_seen(see);
    top[0] = top[1] = -INFINITY;
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = s[n][e] * scale;
            int position = n * 8 + lane_column() + e % 2;
            if (!all && (position < see.low[e / 2] || position >= see.valid[e / 2])) x = -INFINITY;
            s[n][e] = x;
            top[e / 2] = fmaxf(top[e / 2], x);
        }
    top[0] = quad_max(top[0]), top[1] = quad_max(top[1]);
}
// What is subtracted before the power. Where all scores are minus infinity the row's first split gives NaN, as a softmax over
// nothing does; a later one adds nothing, and neither does a page before the row's window.
static __device__ __forceinline__ bool begins(int start, int chunk) { // the page is of the first split of a row that sees positions from `start`
    return chunk / SPLIT_PAGES == start / SPLIT && start < (chunk + 1) * PAGE;
}
static __device__ __forceinline__ float base_of(float max, bool first_split) { return !first_split && max == -INFINITY ? 0.0f : max; }
// Scores of row half `i` become weights; their sum.
static __device__ __forceinline__ float weigh(float s[4][4], int i, float base) {
    float sum = 0;
#pragma unroll
    for (int n = 0; n < 4; n++) {
        s[n][i * 2] = exp2_approx(s[n][i * 2] - base);
        s[n][i * 2 + 1] = exp2_approx(s[n][i * 2 + 1] - base);
        sum += s[n][i * 2] + s[n][i * 2 + 1];
    }
    return quad_sum(sum);
}
// Adding zero keeps sums from being minus zero, which unseen positions (zeros of either sign) could turn.
static __device__ __forceinline__ float rescale(float sum, float factor) { return fmaf(sum, factor, 0.0f); }

// total = total merged with the next split; factors for what either has summed.
static __device__ __forceinline__ void merge(Softmax *total, const Softmax &next, float *old_factor, float *new_factor) {
    float max = fmaxf(total->max, next.max);
    *old_factor = exp2_approx(total->max - max);
    *new_factor = exp2_approx(next.max - max);
    total->sum = fmaf(next.sum, *new_factor, total->sum * *old_factor);
    total->max = max;
}
static __device__ __forceinline__ float merged(float total, float next, float old_factor, float new_factor) {
    return fmaf(next, new_factor, total * old_factor);
}
// One NaN for all, whatever arithmetic has left in it: the same bits on every path.
static __device__ __forceinline__ float lse_of(const Softmax &s) {
    return s.sum == s.sum ? fmaf(s.max, LN_2, logf(s.sum)) : __uint_as_float(0x7fffffffu);
}

// ---- tiles -----------------------------------------------------------------------------------------------
enum { WARPS = 4, THREADS = WARPS * 32 };
struct TileArgs {
    AttentionArgs a;
    float scale; // in powers of two
    int tokens;  // of a window
    bool splits; // some row may see more than one
};

// A block has at most 128 columns of the outputs in registers: wider heads have two blocks, each with all the scores.
template <int DT, int MT> struct Tile {
    static const int COLUMNS = DT <= 128 ? DT : 128, STAGES = DT <= 128 ? 3 : 2, SUMS = MT * (COLUMNS / 8) * 4;
    typedef Page<DT, COLUMNS> Stage;
    // The rows of a warp, 16 * MT, on their way through the pages.
    uint32_t q[MT][DT <= 128 ? DT / 16 : 1][4]; // wider ones are read again for each page
    float out[MT][COLUMNS / 8][4];
    Softmax split[MT][2], total[MT][2];
    RowPair rows[MT];
};

template <int DT, int MT> static __device__ __forceinline__ void tile_start(Tile<DT, MT> &t, const TileArgs &p, const Run &run, const Cut &cut) {
    const bf16 *q = (const bf16 *)p.a.q;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        t.rows[m] = find_rows(p.a, run, (threadIdx.x / 32 * MT + m) * 16, cut.first_head, cut.heads);
        const RowPair &r = t.rows[m];
        const bf16 *row0 = r.at[0] < 0 ? NULL : q + r.at[0] * p.a.D, *row1 = r.at[1] < 0 ? NULL : q + r.at[1] * p.a.D;
#pragma unroll
        for (int step = 0; step < (DT <= 128 ? DT / 16 : 0); step++) load_rows(t.q[m][step], row0, row1, step, p.a.D);
#pragma unroll
        for (int n = 0; n < Tile<DT, MT>::COLUMNS / 8; n++) t.out[m][n][0] = t.out[m][n][1] = t.out[m][n][2] = t.out[m][n][3] = 0;
        t.split[m][0] = t.split[m][1] = Softmax{-INFINITY, 0};
    }
}

template <int DT, int MT> static __device__ __forceinline__ void tile_page(Tile<DT, MT> &t, const TileArgs &p, int chunk, const bf16 *keys) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
        if (unseen(t.rows[m], chunk)) continue;
        float s[4][4], top[2], factor[2];
        uint32_t weights[2][4];
        Sight see = sight_of(t.rows[m], chunk * PAGE);
        const bf16 *q = (const bf16 *)p.a.q, *row0 = t.rows[m].at[0] < 0 ? NULL : q + t.rows[m].at[0] * p.a.D;
        const bf16 *row1 = t.rows[m].at[1] < 0 ? NULL : q + t.rows[m].at[1] * p.a.D;
        page_scores<DT, DT <= 128>(s, [&](uint32_t a[4], int step) {
            if (DT > 128)
                load_rows(a, row0, row1, step, p.a.D);
            else
                for (int i = 0; i < 4; i++) a[i] = t.q[m][step % (DT <= 128 ? DT / 16 : 1)][i];
        }, keys);
        scale_scores(s, p.scale, see, top);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float max = fmaxf(t.split[m][i].max, top[i]), base = base_of(max, begins(t.rows[m].start[i], chunk));
            factor[i] = exp2_approx(t.split[m][i].max - base);
            t.split[m][i].sum = fmaf(t.split[m][i].sum, factor[i], weigh(s, i, base));
            t.split[m][i].max = max;
        }
        weights_to_a(weights, s);
        if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f))
#pragma unroll
            for (int n = 0; n < Tile<DT, MT>::COLUMNS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) t.out[m][n][e] = rescale(t.out[m][n][e], factor[e / 2]);
        add_product<Tile<DT, MT>::COLUMNS, true>(t.out[m], weights, keys + Tile<DT, MT>::Stage::KEYS, Tile<DT, MT>::Stage::PITCH, see);
    }
}

// The split that began at page `first` has ended: it joins the total, which waits in `totals` [values of a thread][THREADS].
template <int DT, int MT> static __device__ __forceinline__ void tile_split_end(Tile<DT, MT> &t, int first, bool last, float *totals) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
        float old_factor[2], new_factor[2];
        bool joins[2], kept[2]; // what there is already
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bool begun = first > t.rows[m].start[i] / SPLIT * SPLIT_PAGES;
            joins[i] = begun && t.rows[m].position[i] >= first * PAGE;
            if (!begun) t.total[m][i] = t.split[m][i];
            kept[i] = begun;
            if (joins[i]) merge(&t.total[m][i], t.split[m][i], &old_factor[i], &new_factor[i]);
            t.split[m][i] = Softmax{-INFINITY, 0};
        }
#pragma unroll
        for (int n = 0; n < Tile<DT, MT>::COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *total = totals + ((m * (Tile<DT, MT>::COLUMNS / 8) + n) * 4 + e) * THREADS + threadIdx.x, value = t.out[m][n][e];
                if (kept[e / 2]) value = joins[e / 2] ? merged(*total, value, old_factor[e / 2], new_factor[e / 2]) : *total;
                if (!last) *total = value;
                t.out[m][n][e] = last ? value : 0.0f;
            }
    }
}

template <int DT, int MT> static __device__ __forceinline__ void tile_store(const Tile<DT, MT> &t, const TileArgs &p) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t at = t.rows[m].at[i];
            if (at < 0) continue;
            float inverse = 1.0f / t.total[m][i].sum;
            bf16 *y = (bf16 *)p.a.y + at * p.a.D;
#pragma unroll
            for (int n = 0; n < Tile<DT, MT>::COLUMNS / 8; n++) {
                int c = blockIdx.z * 128 + n * 8 + lane_column();
                if (c < p.a.D) *(uint32_t *)(y + c) = pack_bf16x2(t.out[m][n][i * 2] * inverse, t.out[m][n][i * 2 + 1] * inverse);
            }
            if (p.a.lse && threadIdx.x % 4 == 0 && blockIdx.z == 0) p.a.lse[at] = lse_of(t.total[m][i]);
        }
}

template <int DT, int MT>
static __global__ void __launch_bounds__(THREADS, DT > 128 ? 1 : 2) attention_tile_kernel(TileArgs p) {
    typedef typename Tile<DT, MT>::Stage Stage;
    const int STAGES = Tile<DT, MT>::STAGES;
    SHARED(bf16, shared);
    float *totals = (float *)(shared + STAGES * Stage::ELEMENTS);
    const AttentionArgs &a = p.a;
    Cut cut = cut_of(a);
    int Dp = (int)padded_width(a.D);
    int64_t page = page_stride(a.kv_heads, a.D), window = (int64_t)(gridDim.x - 1 - blockIdx.x) * p.tokens;
    int64_t end = window + p.tokens < a.T ? window + p.tokens : a.T;
    const bf16 *pages = (const bf16 *)a.pages + (int64_t)cut.kv_head * 2 * PAGE * Dp;
    for (int64_t from = window; from < end;) {
        Run run = find_run(a, from, end);
        int count = run.last / PAGE + 1, begin = run.first / PAGE;
        auto load = [&](int chunk, int32_t number) {
            bf16 *stage = shared + chunk % STAGES * Stage::ELEMENTS;
            copy_keys<DT>(stage, pages + number * page, Dp, threadIdx.x, THREADS);
            copy_values<Tile<DT, MT>::COLUMNS>(stage + Stage::KEYS, pages + number * page, Dp, blockIdx.z * 128, threadIdx.x, THREADS);
        };
        for (int chunk = begin; chunk < begin + STAGES - 1; chunk++) {
            if (chunk < count) load(chunk, run.table[chunk]);
            cp_async_commit();
        }
        Tile<DT, MT> t;
        tile_start(t, p, run, cut);
        int32_t ahead = begin + STAGES - 1 < count ? run.table[begin + STAGES - 1] : 0;
        for (int chunk = begin; chunk < count; chunk++) {
            cp_async_wait<STAGES - 2>();
            __syncthreads(); // the page is there, and nobody reads the stage that is filled next
            if (chunk + STAGES - 1 < count) load(chunk + STAGES - 1, ahead);
            cp_async_commit();
            if (chunk + STAGES < count) ahead = run.table[chunk + STAGES];
            tile_page(t, p, chunk, shared + chunk % STAGES * Stage::ELEMENTS);
            bool last = chunk == count - 1;
            if (last && chunk / SPLIT_PAGES == begin / SPLIT_PAGES) {
                for (int m = 0; m < MT; m++) t.total[m][0] = t.split[m][0], t.total[m][1] = t.split[m][1];
            } else if (last || (chunk + 1) % SPLIT_PAGES == 0) {
                tile_split_end(t, chunk / SPLIT_PAGES * SPLIT_PAGES, last, totals);
            }
        }
        tile_store(t, p);
        cp_async_wait<0>();
        __syncthreads(); // the next run fills the stages from the first
        from += run.count;
    }
}

template <int DT, int MT> static void start_tiles(const Device *device, const AttentionArgs *a) {
    const CudaContext *cuda = cuda_context(device);
    TileArgs p = {*a, a->scale * LOG2_E, WARPS * 16 * MT / cut_heads(a), a->max_position >= SPLIT};
    size_t shared = (size_t)Tile<DT, MT>::STAGES * Tile<DT, MT>::Stage::ELEMENTS * sizeof(bf16);
    if (p.splits) shared += (size_t)Tile<DT, MT>::SUMS * THREADS * sizeof(float);
    auto kernel = attention_tile_kernel<DT, MT>;
    allow_shared(kernel, shared);
    LAUNCH(cuda->stream, kernel, dim3(ceil_div(a->T, p.tokens), cut_count(a), DT > 128 ? 2 : 1), THREADS, shared, p);
}

// ---- decode ----------------------------------------------------------------------------------------------
struct DecodeArgs {
    AttentionArgs a;
    float scale;
    int splits;        // of the grid; 1: a block walks them all
    float *parts;      // [T, H, splits, D] outputs of splits, not yet divided
    Softmax *states;   // [T, H, splits]
    unsigned *tickets; // [T, cuts]
};
enum { WEIGHT_PITCH = PAGE + 8 };
template <int DT> struct DecodeShared {
    alignas(16) bf16 keys[WARPS][Page<DT>::KEYS];
    alignas(16) bf16 values[WARPS][PAGE * Page<DT>::PITCH];
    alignas(16) bf16 weights[WARPS][16 * WEIGHT_PITCH];
    float top[WARPS][16], factor[WARPS][16], sum[WARPS][16]; // of each page, by row
    unsigned ticket;
};

// A block's state: all warps hold maximum and sum of all rows, and outputs of their own columns.
template <int DT> struct Decode {
    static const int TILES = DT / 8 / WARPS; // of eight columns a warp
    uint32_t q[DT <= 128 ? DT / 16 : 1][4];
    const bf16 *q_row[2];
    float out[TILES][4], total[TILES][4];
    Softmax split[2], all[2];
};

// Weights of the warp's page `chunk` (if it is one of `count`), from scores in s, to shared memory.
template <int DT>
static __device__ __forceinline__ void decode_weights(const Decode<DT> &d, DecodeShared<DT> *shared, float s[4][4], int chunk, int count, int start) {
    int warp = threadIdx.x / 32, row = lane_row();
    if (chunk < count) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float before = d.split[i].max;
            for (int w = 0; w < warp; w++) before = fmaxf(before, shared->top[w][row + i * 8]);
            float base = base_of(fmaxf(before, shared->top[warp][row + i * 8]), begins(start, chunk));
            float sum = weigh(s, i, base);
            if (threadIdx.x % 4 == 0) {
                shared->factor[warp][row + i * 8] = exp2_approx(before - base);
                shared->sum[warp][row + i * 8] = sum;
            }
        }
        bf16 *weights = shared->weights[warp] + row * WEIGHT_PITCH + lane_column();
#pragma unroll
        for (int n = 0; n < 4; n++) {
            *(uint32_t *)(weights + n * 8) = pack_bf16x2(s[n][0], s[n][1]);
            *(uint32_t *)(weights + 8 * WEIGHT_PITCH + n * 8) = pack_bf16x2(s[n][2], s[n][3]);
        }
    }
}

// All rows of a decoding block are one token's.
static __device__ __forceinline__ Sight decode_sight(int position, int start, int chunk) {
    int valid = min(position + 1 - chunk * PAGE, (int)PAGE), low = max(start - chunk * PAGE, 0);
    return Sight{{low, low}, {valid, valid}, low, low, valid, valid};
}

// The warp's columns of up to four pages from `first` on.
template <int DT>
static __device__ __forceinline__ void decode_outputs(Decode<DT> &d, DecodeShared<DT> *shared, int first, int count, int position, int start) {
    int row = lane_row(), column = threadIdx.x / 32 * (DT / WARPS);
    for (int w = 0; w < WARPS && first + w < count; w++) {
        float factor[2] = {shared->factor[w][row], shared->factor[w][row + 8]};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            d.split[i].sum = fmaf(d.split[i].sum, factor[i], shared->sum[w][row + i * 8]);
            d.split[i].max = fmaxf(d.split[i].max, shared->top[w][row + i * 8]);
        }
#pragma unroll
        for (int n = 0; n < Decode<DT>::TILES; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) d.out[n][e] = rescale(d.out[n][e], factor[e / 2]);
        uint32_t weights[2][4];
        load_a(weights[0], shared->weights[w], WEIGHT_PITCH);
        load_a(weights[1], shared->weights[w] + 16, WEIGHT_PITCH);
        add_product<DT / WARPS, true>(d.out, weights, shared->values[w] + column, Page<DT>::PITCH, decode_sight(position, start, first + w));
    }
}

template <int DT> static __device__ __forceinline__ void decode_split_start(Decode<DT> &d) {
    d.split[0] = d.split[1] = Softmax{-INFINITY, 0};
#pragma unroll
    for (int n = 0; n < Decode<DT>::TILES; n++) d.out[n][0] = d.out[n][1] = d.out[n][2] = d.out[n][3] = 0;
}
template <int DT> static __device__ __forceinline__ void decode_split_join(Decode<DT> &d, bool first) {
    float old_factor[2], new_factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (first)
            d.all[i] = d.split[i];
        else
            merge(&d.all[i], d.split[i], &old_factor[i], &new_factor[i]);
    }
#pragma unroll
    for (int n = 0; n < Decode<DT>::TILES; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            d.total[n][e] = first ? d.out[n][e] : merged(d.total[n][e], d.out[n][e], old_factor[e / 2], new_factor[e / 2]);
}

// Pages [first, count) of row t through shared memory, four at a time. Groups of copies, in order: keys of a round, values
// of the round, keys of the next (as soon as the scores are done), values of the next (as soon as the outputs are).
template <int DT>
static __device__ __forceinline__ void decode_pages(Decode<DT> &d, DecodeShared<DT> *shared, const DecodeArgs &p, const bf16 *pages,
                                                    const int32_t *table, int position, int start, int first, int count) {
    int warp = threadIdx.x / 32, Dp = (int)padded_width(p.a.D);
    int64_t page = page_stride(p.a.kv_heads, p.a.D);
    auto load_keys = [&](int chunk) {
        if (chunk < count) copy_keys<DT>(shared->keys[warp], pages + table[chunk] * page, Dp, threadIdx.x % 32, 32);
        cp_async_commit();
    };
    auto load_values = [&](int chunk) {
        if (chunk < count) copy_values<DT>(shared->values[warp], pages + table[chunk] * page, Dp, 0, threadIdx.x % 32, 32);
        cp_async_commit();
    };
    load_keys(first + warp);
    load_values(first + warp);
    for (int round = first; round < count; round += WARPS) {
        int chunk = round + warp;
        float s[4][4], top[2] = {-INFINITY, -INFINITY};
        if (round == first || round % SPLIT_PAGES == 0) decode_split_start(d);
        cp_async_wait<1>();
        __syncwarp(); // the warp's own keys are there
        if (chunk < count) {
            page_scores<DT, DT <= 128>(s, [&](uint32_t a[4], int step) {
                if (DT > 128)
                    load_rows(a, d.q_row[0], d.q_row[1], step, p.a.D);
                else
                    for (int i = 0; i < 4; i++) a[i] = d.q[step % (DT <= 128 ? DT / 16 : 1)][i];
            }, shared->keys[warp]);
            scale_scores(s, p.scale, decode_sight(position, start, chunk), top);
        }
        if (threadIdx.x % 4 == 0)
            for (int i = 0; i < 2; i++) shared->top[warp][lane_row() + i * 8] = top[i];
        __syncwarp();
        load_keys(chunk + WARPS);
        __syncthreads(); // maxima of all four pages
        decode_weights(d, shared, s, chunk, count, start);
        cp_async_wait<1>();
        __syncthreads(); // weights and values of all four pages
        decode_outputs(d, shared, round, count, position, start);
        bool ends = round + WARPS >= count || (round + WARPS) % SPLIT_PAGES == 0;
        if (ends && p.splits == 1) decode_split_join(d, round / SPLIT_PAGES == start / SPLIT);
        __syncthreads(); // all have read them
        load_values(chunk + WARPS);
    }
    cp_async_wait<0>();
}

// Row pairs of one token's heads; -1 beyond them.
static __device__ __forceinline__ int64_t decode_at(const AttentionArgs &a, const Cut &cut, int64_t t, int i) {
    int row = lane_row() + i * 8;
    return row < cut.heads ? t * a.heads + cut.first_head + row : -1;
}

template <int DT> static __device__ __forceinline__ void decode_store(const Decode<DT> &d, const DecodeArgs &p, const Cut &cut, int64_t t) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t at = decode_at(p.a, cut, t, i);
        if (at < 0) continue;
        float inverse = 1.0f / d.all[i].sum;
#pragma unroll
        for (int n = 0; n < Decode<DT>::TILES; n++) {
            int c = threadIdx.x / 32 * (DT / WARPS) + n * 8 + lane_column();
            if (c < p.a.D) *(uint32_t *)((bf16 *)p.a.y + at * p.a.D + c) = pack_bf16x2(d.total[n][i * 2] * inverse, d.total[n][i * 2 + 1] * inverse);
        }
        if (p.a.lse && threadIdx.x < 32 && threadIdx.x % 4 == 0) p.a.lse[at] = lse_of(d.all[i]);
    }
}
template <int DT>
static __device__ __forceinline__ void decode_store_part(const Decode<DT> &d, const DecodeArgs &p, const Cut &cut, int64_t t, int split) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t at = decode_at(p.a, cut, t, i);
        if (at < 0) continue;
        at = at * p.splits + split;
#pragma unroll
        for (int n = 0; n < Decode<DT>::TILES; n++) {
            int c = threadIdx.x / 32 * (DT / WARPS) + n * 8 + lane_column();
            if (c < p.a.D) *(float2 *)(p.parts + at * p.a.D + c) = make_float2(d.out[n][i * 2], d.out[n][i * 2 + 1]);
        }
        if (threadIdx.x < 32 && threadIdx.x % 4 == 0) p.states[at] = d.split[i];
    }
}
// The parts of a row's splits, ascending, into its outputs. Other blocks wrote them: they are read past this one's L1.
static __device__ void decode_merge(const DecodeArgs &p, const Cut &cut, int64_t t, int begin, int splits) {
    for (int h = threadIdx.x / 32; h < cut.heads; h += WARPS) {
        int64_t at = t * p.a.heads + cut.first_head + h;
        const volatile float *states = (const float *)(p.states + at * p.splits), *parts = p.parts + at * p.splits * p.a.D;
        for (int c = threadIdx.x % 32; c < p.a.D; c += 32) {
            Softmax all = {states[begin * 2], states[begin * 2 + 1]};
            float total = parts[(int64_t)begin * p.a.D + c];
            for (int split = begin + 1; split < splits; split++) {
                float old_factor, new_factor;
                merge(&all, Softmax{states[split * 2], states[split * 2 + 1]}, &old_factor, &new_factor);
                total = merged(total, parts[(int64_t)split * p.a.D + c], old_factor, new_factor);
            }
            ((bf16 *)p.a.y)[at * p.a.D + c] = (bf16)pack_bf16x2(total * (1.0f / all.sum), 0.0f);
            if (p.a.lse && c == 0) p.a.lse[at] = lse_of(all);
        }
    }
}

template <int DT> static __global__ void __launch_bounds__(THREADS, DT <= 96 ? 4 : DT <= 128 ? 2 : 1) attention_decode_kernel(DecodeArgs p) {
    SHARED(DecodeShared<DT>, shared);
    const AttentionArgs &a = p.a;
    int64_t t = blockIdx.x;
    Cut cut = cut_of(a);
    int position = a.position[t], count = position / PAGE + 1, splits = (count + SPLIT_PAGES - 1) / SPLIT_PAGES;
    int start = first_seen(a, position), first = start / PAGE / WARPS * WARPS, begin = start / SPLIT; // pages in rounds of WARPS
    if (p.splits > 1) {
        first = max(first, (int)blockIdx.z * SPLIT_PAGES);
        if (first >= count || (int)blockIdx.z < begin) return;
        count = min(count, ((int)blockIdx.z + 1) * SPLIT_PAGES);
    }
    Decode<DT> d;
    for (int i = 0; i < 2; i++) {
        int64_t at = decode_at(a, cut, t, i);
        d.q_row[i] = at < 0 ? NULL : (const bf16 *)a.q + at * a.D;
    }
#pragma unroll
    for (int step = 0; step < (DT <= 128 ? DT / 16 : 0); step++) load_rows(d.q[step], d.q_row[0], d.q_row[1], step, a.D);
    const bf16 *pages = (const bf16 *)a.pages + (int64_t)cut.kv_head * 2 * PAGE * padded_width(a.D);
    decode_pages(d, shared, p, pages, a.table + a.table_start[t], position, start, first, count);
    if (p.splits == 1) {
        decode_store(d, p, cut, t);
        return;
    }
    decode_store_part(d, p, cut, t, (int)blockIdx.z);
    __threadfence();
    __syncthreads();
    unsigned *ticket = p.tickets + t * gridDim.y + blockIdx.y;
    if (threadIdx.x == 0) shared->ticket = atomicAdd(ticket, 1u);
    __syncthreads();
    if (shared->ticket != (unsigned)(splits - begin) - 1) return;
    __threadfence();
    decode_merge(p, cut, t, begin, splits);
    if (threadIdx.x == 0) *ticket = 0;
}

// Blocks for every split where rows alone wouldn't fill the device twice, and where the parts fit.
template <int DT> static void start_decode(const Device *device, const AttentionArgs *a) {
    const CudaContext *cuda = cuda_context(device);
    int64_t blocks = a->T * cut_count(a), splits = a->max_position / SPLIT + 1, parts = a->T * a->heads * splits;
    bool shares = blocks < 2 * cuda->multiprocessors && blocks <= CUDA_TICKETS && splits <= 65535 &&
                  (size_t)parts * ((size_t)a->D * sizeof(float) + sizeof(Softmax)) <= cuda->scratch_bytes;
    if (!shares) splits = 1;
    DecodeArgs p = {*a, a->scale * LOG2_E, (int)splits, (float *)cuda->scratch, NULL, cuda->tickets};
    p.states = (Softmax *)(p.parts + parts * a->D);
    auto kernel = attention_decode_kernel<DT>;
    allow_shared(kernel, sizeof(DecodeShared<DT>));
    LAUNCH(cuda->stream, kernel, dim3((unsigned)a->T, cut_count(a), (unsigned)splits), THREADS, sizeof(DecodeShared<DT>), p);
}

// ---- plain -----------------------------------------------------------------------------------------------
enum { LANE_COLUMNS = 256 / 32 }; // of a head, a lane's at most
static __global__ void __launch_bounds__(THREADS) attention_plain_kernel(AttentionArgs a) {
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, D = a.D, Dp = padded_width(D);
    if (at >= a.T * a.heads) return;
    int64_t t = at / a.heads, page = page_stride(a.kv_heads, D), head = at % a.heads / (a.heads / a.kv_heads) * 2 * PAGE * Dp;
    int lane = threadIdx.x % 32, position = a.position[t], start = first_seen(a, position);
    const float *q = (const float *)a.q + at * D;
    const int32_t *table = a.table + a.table_start[t];
    float out[LANE_COLUMNS] = {0}, total[LANE_COLUMNS] = {0};
    Softmax split = {-INFINITY, 0}, all = {-INFINITY, 0};
    for (int chunk = start / PAGE; chunk * PAGE <= position; chunk++) {
        const float *keys = (const float *)a.pages + table[chunk] * page + head, *values = keys + PAGE * Dp;
        int valid = min(position + 1 - chunk * PAGE, (int)PAGE), low = max(start - chunk * PAGE, 0);
        float s = 0;
        for (int64_t d = 0; d < D; d++) s = fmaf(q[d], keys[d * PAGE + lane], s);
        s = lane >= low && lane < valid ? s * a.scale : -INFINITY;
        float top = s == s ? s : -INFINITY; // a NaN isn't a maximum, as in the slow twin
        float max = fmaxf(split.max, warp_max(top)), base = base_of(max, begins(start, chunk)), factor = expf(split.max - base);
        float weight = expf(s - base);
        split.sum = fmaf(split.sum, factor, warp_sum(weight));
        split.max = max;
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; i++) {
            int64_t c = lane + i * 32;
            if (i * 32 >= D) break;
            out[i] *= factor;
            for (int j = low; j < valid; j++) {
                float w = __shfl_sync(0xffffffffu, weight, j);
                if (c < D) out[i] = fmaf(w, values[j * Dp + c], out[i]);
            }
        }
        if ((chunk + 1) % SPLIT_PAGES && (chunk + 1) * PAGE <= position) continue;
        float largest = fmaxf(all.max, split.max), old_factor = expf(all.max - largest), new_factor = expf(split.max - largest);
        bool first = chunk / SPLIT_PAGES == start / SPLIT;
        all = first ? split : Softmax{largest, fmaf(split.sum, new_factor, all.sum * old_factor)};
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; i++) {
            total[i] = first ? out[i] : merged(total[i], out[i], old_factor, new_factor);
            out[i] = 0;
        }
        split = Softmax{-INFINITY, 0};
    }
    float inverse = 1.0f / all.sum;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        if (lane + i * 32 < D) ((float *)a.y)[at * D + lane + i * 32] = total[i] * inverse;
    if (a.lse && lane == 0) a.lse[at] = all.max + logf(all.sum);
}

// ---- entry -----------------------------------------------------------------------------------------------
// 32 rows a warp need twice the registers, and only pay where enough blocks remain.
template <int DT> static void start_attention(const Device *device, const AttentionArgs *a) {
    bool alone = a->T == 1 || a->max_run == 1;
    int64_t rows = a->T * cut_heads(a) * cut_count(a);
    if (alone && sizeof(DecodeShared<DT>) <= shared_limit(cuda_context(device)->capability))
        start_decode<DT>(device, a);
    else if (DT <= 64 && rows >= (int64_t)128 * 2 * cuda_context(device)->multiprocessors)
        start_tiles<DT, DT <= 64 ? 2 : 1>(device, a);
    else
        start_tiles<DT, 1>(device, a);
}

extern "C" void attention_cuda(const Device *device, const AttentionArgs *a) {
    if (a->T <= 0) return;
    if (a->dtype == DTYPE_F32) {
        LAUNCH(cuda_context(device)->stream, attention_plain_kernel, ceil_div(a->T * a->heads, WARPS), THREADS, 0, *a);
        return;
    }
#define START(DT) start_attention<DT>(device, a)
    FOR_WIDTH(a->D, START)
#undef START
}
