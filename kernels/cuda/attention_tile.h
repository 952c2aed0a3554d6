// What the forward and the backward kernels of attention share, for bf16: a page of keys and values in shared memory, the
// fragments of tensor-core products read from it, and what a row must not see.
//
// A page lies in shared memory as in device memory, keys [DT][32] and values [32][DT], with rows eight elements longer:
// rows are then an odd number of 16-byte pieces apart, so that the eight rows of an ldmatrix never meet in a bank. DT is
// D' rounded up to one of five widths; columns beyond D' are zero and add nothing.
//
// Fragments of m16n8k16 (lane i, r = i / 4, c = 2 * (i % 4)): sums hold rows r, r + 8 at columns c, c + 1.
//
// What isn't seen adds nothing, not even zero times an infinity (the slow twin's rule). Weights of unseen positions are
// zero; a position that no row of the warp sees is cut out of the other factor too, whatever it holds. Where a position that
// only some of the rows see isn't finite, the product is taken row by row (add_product): rare, and the bits stay a row's own.
#ifndef RECKON_ATTENTION_TILE_H
#define RECKON_ATTENTION_TILE_H
#include "cuda.h"

enum { SPLIT = SPLIT_PAGES * PAGE, KEY_PITCH = PAGE + 8, MAX_BLOCK_HEADS = 16 };
static constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

template <int DT, int COLUMNS = DT> struct Page { // COLUMNS of the values
    static const int PITCH = COLUMNS + 8, KEYS = DT * KEY_PITCH, ELEMENTS = KEYS + PAGE * PITCH; // of values; in all
};

// The narrowest DT that holds D.
static inline int tile_width(int64_t D) { return D <= 32 ? 32 : D <= 64 ? 64 : D <= 96 ? 96 : D <= 128 ? 128 : 256; }
#define FOR_WIDTH(D, call)                                                                                   \
    switch (tile_width(D)) {                                                                                 \
    case 32: call(32); break;                                                                                \
    case 64: call(64); break;                                                                                \
    case 96: call(96); break;                                                                                \
    case 128: call(128); break;                                                                              \
    default: call(256); break;                                                                               \
    }

// A lane's row and first column in a fragment; signed, to be compared with what may be below zero.
static __device__ __forceinline__ int lane_row() { return (int)threadIdx.x % 32 / 4; }
static __device__ __forceinline__ int lane_column() { return (int)threadIdx.x % 4 * 2; }

// ---- loads -----------------------------------------------------------------------------------------------
// Copies of keys and of values (COLUMNS from `first` on) by `threads` threads; `from` is the kv head's place in the page.
template <int DT> static __device__ __forceinline__ void copy_keys(bf16 *keys, const bf16 *from, int Dp, int thread, int threads) {
    for (int i = thread; i < DT * 4; i += threads)
        cp_async_16(keys + i / 4 * KEY_PITCH + i % 4 * 8, from + i * 8, i / 4 < Dp);
}
template <int COLUMNS>
static __device__ __forceinline__ void copy_values(bf16 *values, const bf16 *from, int Dp, int first, int thread, int threads) {
    for (int i = thread; i < PAGE * (COLUMNS / 8); i += threads) {
        int j = i / (COLUMNS / 8), c = i % (COLUMNS / 8) * 8;
        cp_async_16(values + j * (COLUMNS + 8) + c, from + PAGE * Dp + j * Dp + first + c, first + c < Dp);
    }
}

// A fragments of 16 rows from device memory: row0 and row1 are those of r and r + 8, NULL for zeros.
static __device__ __forceinline__ uint32_t pair_at(const bf16 *row, int column, int D) {
    return row && column < D ? *(const uint32_t *)(row + column) : 0u;
}
static __device__ __forceinline__ void load_rows(uint32_t a[4], const bf16 *row0, const bf16 *row1, int step, int D) {
    int c = step * 16 + lane_column();
    a[0] = pair_at(row0, c, D), a[1] = pair_at(row1, c, D);
    a[2] = pair_at(row0, c + 8, D), a[3] = pair_at(row1, c + 8, D);
}

// Fragments from shared memory; `from` is the upper left corner. A [16, 16] as [m][k] and as [k][m]:
static __device__ __forceinline__ void load_a(uint32_t a[4], const bf16 *from, int pitch) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(a, from + lane % 16 * pitch + lane / 16 * 8);
}
static __device__ __forceinline__ void load_a_turned(uint32_t a[4], const bf16 *from, int pitch) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(a, from + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
}
// B [16, 16], two tiles of n (b[0..1], b[2..3]), as [k][n] and as [n][k]:
static __device__ __forceinline__ void load_b_turned(uint32_t b[4], const bf16 *from, int pitch) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(b, from + lane % 16 * pitch + lane / 16 * 8);
}
static __device__ __forceinline__ void load_b(uint32_t b[4], const bf16 *from, int pitch) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(b, from + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
}
// B [32, 8], both steps of k of one tile of n (b[0..1], b[2..3]); b[i] holds k = 8 i + c, c + 1.
static __device__ __forceinline__ void load_b_column_turned(uint32_t b[4], const bf16 *from, int pitch) { // [k][n]
    ldmatrix_x4_trans(b, from + threadIdx.x % 32 * pitch);
}
static __device__ __forceinline__ void load_b_column(uint32_t b[4], const bf16 *from, int pitch) { // [n][k]
    int lane = threadIdx.x % 32;
    ldmatrix_x4(b, from + lane % 8 * pitch + lane / 8 * 8);
}

// ---- products --------------------------------------------------------------------------------------------
// scores[16, 32] of 16 rows and a page's keys; q(a, step) fills the A fragment of columns 16 step, KEPT in registers or read.
template <int DT, bool KEPT, typename Queries> static __device__ __forceinline__ void page_scores(float s[4][4], const Queries &q, const bf16 *keys) {
#pragma unroll
    for (int n = 0; n < 4; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll(DT > 128 && !KEPT ? 2 : DT / 16)
    for (int step = 0; step < DT / 16; step++) {
        uint32_t a[4], b[4];
        q(a, step);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            load_b_turned(b, keys + step * 16 * KEY_PITCH + half * 16, KEY_PITCH);
            mma_m16n8k16_bf16(s[half * 2], a, b);
            mma_m16n8k16_bf16(s[half * 2 + 1], a, b + 2);
        }
    }
}

// Weights as the A fragments of both steps of 16 positions.
static __device__ __forceinline__ void weights_to_a(uint32_t a[2][4], const float w[4][4]) {
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[step][i] = pack_bf16x2(w[step * 2 + i / 2][i % 2 * 2], w[step * 2 + i / 2][i % 2 * 2 + 1]);
}

// The halves of a pair at k, k + 1 that lie in [from, limit).
static __device__ __forceinline__ uint32_t between(int k, int from, int limit) {
    return (k >= from && k < limit ? 0xffffu : 0u) | (k + 1 >= from && k + 1 < limit ? 0xffff0000u : 0u);
}
static __device__ __forceinline__ bool not_finite(uint32_t pair) {
    return (pair & 0x7f80u) == 0x7f80u || (pair & 0x7f800000u) == 0x7f800000u;
}

// What 16 rows of a warp see of a page: its positions [from, least) all of them, [first, most) at least one.
struct Sight {
    int low[2], valid[2]; // [low, valid) of this lane's rows r and r + 8, may be below 0 or beyond 32
    int first, from, least, most; // of the warp's rows
};
static __device__ __forceinline__ bool all_seen(const Sight &see) { return see.from <= 0 && see.least >= PAGE; }
static __device__ __forceinline__ void load_seen(uint32_t b[4], const bf16 *from, int pitch, bool turned, int first, int limit) {
    if (turned)
        load_b_column_turned(b, from, pitch);
    else
        load_b_column(b, from, pitch);
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] &= between(i * 8 + lane_column(), first, limit);
}

// sums[16, COLUMNS] += weights[16, 32] x[32, COLUMNS], a row's own positions only; weights beyond them are zero.
// x is [position][column] (TURNED) or [column][position].
template <int COLUMNS, bool TURNED>
static __device__ __forceinline__ void add_product(float (*sums)[4], const uint32_t a[2][4], const bf16 *x, int pitch, const Sight &see) {
    const int stride = TURNED ? 8 : 8 * pitch; // of a tile of eight columns
    if (all_seen(see)) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint32_t b[4];
            if (TURNED)
                load_b_column_turned(b, x + n * stride, pitch);
            else
                load_b_column(b, x + n * stride, pitch);
            mma_m16n8k16_bf16(sums[n], a[0], b);
            mma_m16n8k16_bf16(sums[n], a[1], b + 2);
        }
        return;
    }
    bool stained = false;
    if (see.least < see.most || see.first < see.from)
#pragma unroll 1
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint32_t b[4];
            load_seen(b, x + n * stride, pitch, TURNED, see.first, see.most);
            for (int i = 0; i < 4; i++) stained |= not_finite(b[i] & ~between(i * 8 + lane_column(), see.from, see.least));
        }
    if (!__any_sync(0xffffffffu, stained)) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint32_t b[4];
            load_seen(b, x + n * stride, pitch, TURNED, see.first, see.most);
            mma_m16n8k16_bf16(sums[n], a[0], b);
            mma_m16n8k16_bf16(sums[n], a[1], b + 2);
        }
        return;
    }
    // Rare and slow: the sums go through local memory, so that this way costs the others no registers.
    float kept[COLUMNS / 8][4];
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) kept[i / 4][i % 4] = sums[i / 4][i % 4];
#pragma unroll 1
    for (int row = 0; row < 16; row++) {
        int own = __shfl_sync(0xffffffffu, row < 8 ? see.valid[0] : see.valid[1], row % 8 * 4);
        int low = __shfl_sync(0xffffffffu, row < 8 ? see.low[0] : see.low[1], row % 8 * 4);
#pragma unroll 1
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint32_t b[4];
            float sum[4] = {kept[n][0], kept[n][1], kept[n][2], kept[n][3]};
            load_seen(b, x + n * stride, pitch, TURNED, low, own);
            mma_m16n8k16_bf16(sum, a[0], b);
            mma_m16n8k16_bf16(sum, a[1], b + 2);
            for (int e = 0; e < 4; e++)
                if (lane_row() + e / 2 * 8 == row) kept[n][e] = sum[e];
        }
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) sums[i / 4][i % 4] = kept[i / 4][i % 4];
}

// ---- rows of a block ---------------------------------------------------------------------------------------
// A block works on a window of consecutive tokens, and there on one run of tokens with the same table after the other.
// Its rows are the run's tokens times the block's query heads, the heads of a token next to each other.
struct Run {
    int64_t from;        // first token
    int count;           // tokens, at most 128
    int last;            // largest position
    int first;           // the first that some token sees
    const int32_t *table;
};
// The first position that the row at `position` sees.
static __device__ __forceinline__ int first_seen(const AttentionArgs &a, int position) {
    return a.window && position >= a.window ? position + 1 - a.window : 0;
}
// By every warp for itself: `from` to the last token before `end` that has the same table.
static __device__ __forceinline__ Run find_run(const AttentionArgs &a, int64_t from, int64_t end) {
    Run run = {from, (int)(end - from), -1, INT32_MAX, NULL};
    int32_t start = a.table_start[from];
    int lane = threadIdx.x % 32, found = run.count;
    for (int i = lane; i < run.count; i += 32)
        if (a.table_start[from + i] != start) {
            found = i;
            break;
        }
    for (int mask = 16; mask; mask >>= 1) found = min(found, __shfl_xor_sync(0xffffffffu, found, mask));
    run.count = found;
    for (int i = lane; i < run.count; i += 32) {
        run.last = max(run.last, a.position[from + i]);
        run.first = min(run.first, first_seen(a, a.position[from + i]));
    }
    for (int mask = 16; mask; mask >>= 1) {
        run.last = max(run.last, __shfl_xor_sync(0xffffffffu, run.last, mask));
        run.first = min(run.first, __shfl_xor_sync(0xffffffffu, run.first, mask));
    }
    run.table = a.table + start;
    return run;
}

// The two rows of this lane in 16 rows from `row` on.
struct RowPair {
    int64_t at[2];   // token * H + head, or -1 where there is no such row
    int position[2]; // NOWHERE where there is none: it sees zeros, and nobody looks at what it gives
    int start[2];    // the first position that it sees; the run's where there is no row
    int least, most; // positions of the warp's 16 rows; most is -1 where there is none
    int first, from; // least and largest start of them
};
enum { NOWHERE = INT32_MAX / 2 };
static __device__ __forceinline__ RowPair find_rows(const AttentionArgs &a, const Run &run, int row, int first_head, int heads) {
    RowPair p = {{-1, -1}, {NOWHERE, NOWHERE}, {run.first, run.first}, NOWHERE, -1, NOWHERE, 0};
    for (int i = 0; i < 2; i++) {
        int r = row + lane_row() + i * 8, token = r / heads;
        if (token >= run.count) continue;
        p.position[i] = a.position[run.from + token];
        p.at[i] = (run.from + token) * a.heads + first_head + r % heads;
        p.start[i] = first_seen(a, p.position[i]);
        p.least = min(p.least, p.position[i]), p.most = max(p.most, p.position[i]);
        p.first = min(p.first, p.start[i]), p.from = max(p.from, p.start[i]);
    }
    for (int mask = 16; mask; mask >>= 1) {
        p.least = min(p.least, __shfl_xor_sync(0xffffffffu, p.least, mask));
        p.most = max(p.most, __shfl_xor_sync(0xffffffffu, p.most, mask));
        p.first = min(p.first, __shfl_xor_sync(0xffffffffu, p.first, mask));
        p.from = max(p.from, __shfl_xor_sync(0xffffffffu, p.from, mask));
    }
    return p;
}
// Of the page whose first position is `first`.
static __device__ __forceinline__ bool unseen(const RowPair &p, int chunk) { // by all of the warp's rows
    return p.most < chunk * PAGE || p.first >= (chunk + 1) * PAGE;
}
static __device__ __forceinline__ Sight sight_of(const RowPair &p, int first) {
    return Sight{{p.start[0] - first, p.start[1] - first}, {p.position[0] + 1 - first, p.position[1] + 1 - first},
                 max(p.first - first, 0), max(p.from - first, 0), max(p.least + 1 - first, 0), min(p.most + 1 - first, PAGE)};
}

// What a block can have of shared memory (CUDA C++ Programming Guide, table of technical specifications).
static inline size_t shared_limit(int capability) {
    return (size_t)(capability == 86 || capability == 89 || capability >= 120 ? 99 : 163) * 1024;
}

// How a call is cut into blocks: y of the grid is a kv head and at most 16 of its query heads.
struct Cut {
    int kv_head, first_head, heads; // heads of this block
};
static __device__ __forceinline__ Cut cut_of(const AttentionArgs &a) {
    int group = a.heads / a.kv_heads, pieces = (group + MAX_BLOCK_HEADS - 1) / MAX_BLOCK_HEADS;
    int kv_head = blockIdx.y / pieces, first = blockIdx.y % pieces * MAX_BLOCK_HEADS;
    return Cut{kv_head, kv_head * group + first, min(group - first, (int)MAX_BLOCK_HEADS)};
}
static inline int cut_count(const AttentionArgs *a) {
    return a->kv_heads * (int)ceil_div(a->heads / a->kv_heads, MAX_BLOCK_HEADS);
}
static inline int cut_heads(const AttentionArgs *a) { // of the largest block
    int group = a->heads / a->kv_heads;
    return group < MAX_BLOCK_HEADS ? group : MAX_BLOCK_HEADS;
}

#endif
