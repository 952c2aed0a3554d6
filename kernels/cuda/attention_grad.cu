// Attention over pages, backward: weights are computed again from the scores and the log-sum-exp, nothing is summed by
// atomics, and no sum reaches beyond a unit (a group), so that units may be split into calls at will.
//
//   delta   A warp per row and head: delta = dy . y. For bf16 it also leaves dy rounded to bf16 in the first half of the
//           row's place in dq, where `pages` reads it in pieces of 16 bytes; dq itself is written last.
//   pages   Grid: pages x kv heads (x two halves of the columns where D > 128). A block walks the rows from page_first_row
//           to page_last_row, ascending from the first: it lists those of a window of 512 tokens that see the page, and
//           takes them, times the query heads of the kv head, 64 at a time through two stages of shared memory. Four
//           warps: two halves of the page's positions x two halves of the 64 rows; scores are computed transposed,
//           [positions, rows], so that weights are A fragments of the products with dy and q as they stand. dk and dv
//           stay in registers; the two halves of the rows are added at the end.
//   rows    Grid: windows of tokens x kv heads, as the forward kernel for tiles: a warp has 16 rows, and dq grows page by
//           page, ascending, one tensor-core chain.
//   plain   The same two for fp32: a warp per row; a block per page with eight rows at a time.
//
// dy is rounded to bf16 for all products of the bf16 kernels, delta included, so that it cancels.
#include "attention_tile.h"

enum { WARPS = 4, THREADS = WARPS * 32 };
struct GradArgs {
    AttentionGradArgs b;
    float scale;  // in powers of two
    int tokens;   // of a window of rows
    bool aligned; // rows of q and dq begin at multiples of 16 bytes
};

// The rounded dy of a row (token * H + head), in dq.
static __device__ __forceinline__ const bf16 *rounded_dy(const AttentionGradArgs &b, int64_t at) { return (const bf16 *)(b.dq + at * b.forward.D); }

// ---- delta -----------------------------------------------------------------------------------------------
template <bool HALF> static __global__ void __launch_bounds__(THREADS) attention_delta_kernel(AttentionGradArgs b) {
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, D = b.forward.D;
    if (at >= b.forward.T * b.forward.heads) return;
    float sum = 0;
    for (int64_t c = threadIdx.x % 32 * 2; c < D; c += 64) {
        float2 dy = *(const float2 *)(b.dy + at * D + c);
        if (HALF) {
            uint32_t pair = pack_bf16x2(dy.x, dy.y), y = *(const uint32_t *)((const bf16 *)b.forward.y + at * D + c);
            *(uint32_t *)((bf16 *)(b.dq + at * D) + c) = pair;
            sum = fmaf(__uint_as_float(pair << 16), __uint_as_float(y << 16), sum);
            sum = fmaf(__uint_as_float(pair & 0xffff0000u), __uint_as_float(y & 0xffff0000u), sum);
        } else {
            float2 y = *(const float2 *)((const float *)b.forward.y + at * D + c);
            sum = fmaf(dy.x, y.x, sum);
            sum = fmaf(dy.y, y.y, sum);
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) b.delta[at] = sum;
}

// ---- which rows see a page -------------------------------------------------------------------------------
// A page stands at the same place in every table it is in, as a position has one slot. By the whole block; -1 for none.
static __device__ int find_chunk(const AttentionGradArgs &b, int page, int *found) {
    const AttentionArgs &a = b.forward;
    int chunk = -1;
    for (int64_t t = b.page_first_row[page]; t <= b.page_last_row[page] && chunk < 0; t++) {
        if (threadIdx.x == 0) *found = -1;
        __syncthreads();
        for (int i = first_seen(a, a.position[t]) / PAGE + threadIdx.x; (int64_t)i * PAGE <= a.position[t]; i += blockDim.x)
            if (a.table[a.table_start[t] + i] == page) *found = i;
        __syncthreads();
        chunk = *found;
        __syncthreads();
    }
    return chunk;
}
// Which positions of the page row t sees, packed: those below end_of, from begin_of on; 0: none.
static __device__ __forceinline__ int seen_by(const AttentionArgs &a, int64_t t, int page, int chunk) {
    int valid = a.position[t] + 1 - chunk * PAGE, low = max(first_seen(a, a.position[t]) - chunk * PAGE, 0);
    return valid > 0 && low < PAGE && a.table[a.table_start[t] + chunk] == page ? low * 64 + min(valid, (int)PAGE) : 0;
}
static __device__ __forceinline__ int begin_of(int seen) { return seen / 64; }
static __device__ __forceinline__ int end_of(int seen) { return seen % 64; }
static __device__ __forceinline__ bool sees(int seen, int position) { return position >= begin_of(seen) && position < end_of(seen); }
enum { SEEN = 2048 }; // more than any

// ---- pages -----------------------------------------------------------------------------------------------
enum { WINDOW = 512 };
template <int DT> struct PagesShared {
    static const int ROWS = DT <= 128 ? 64 : 32, STAGES = DT <= 128 ? 2 : 1; // within what every device has
    alignas(16) bf16 keys[Page<DT>::KEYS];
    alignas(16) bf16 values[PAGE * Page<DT>::PITCH];
    alignas(16) bf16 q[STAGES][ROWS * Page<DT>::PITCH];
    alignas(16) bf16 dy[STAGES][ROWS * Page<DT>::PITCH];
    float lse[STAGES][ROWS], delta[STAGES][ROWS];
    int seen[STAGES][ROWS];
    int list[WINDOW]; // tokens of the window that see the page: SEEN * place + what they see
    int counts[WARPS];
    int chunk;
};

// A row by two neighbouring threads, in turns of 16 bytes, so that each pair fetches whole sectors.
template <int DT>
static __device__ __forceinline__ void load_row(PagesShared<DT> *shared, int stage, const GradArgs &p, int64_t at, int seen) {
    const AttentionArgs &a = p.b.forward;
    int row = threadIdx.x / 2, half = threadIdx.x % 2;
    bf16 *q = shared->q[stage] + row * Page<DT>::PITCH, *dy = shared->dy[stage] + row * Page<DT>::PITCH;
    const bf16 *from_q = (const bf16 *)a.q + at * a.D, *from_dy = rounded_dy(p.b, at);
    if (p.aligned) {
#pragma unroll
        for (int c = half * 8; c < DT; c += 16) {
            cp_async_16(q + c, from_q + c, seen && c < a.D);
            cp_async_16(dy + c, from_dy + c, seen && c < a.D);
        }
    } else {
        for (int c = half * 2; c < DT; c += 4) {
            cp_async_4(q + c, from_q + c, seen && c < a.D);
            cp_async_4(dy + c, from_dy + c, seen && c < a.D);
        }
    }
    cp_async_4(half ? &shared->delta[stage][row] : &shared->lse[stage][row], half ? p.b.delta + at : a.lse + at, seen);
    if (half) shared->seen[stage][row] = seen;
}

// Tokens of [from, from + WINDOW), up to `last`, that see the page; their number. Warp w looks at the w-th quarter.
template <int DT>
static __device__ __forceinline__ int list_tokens(PagesShared<DT> *shared, const AttentionArgs &a, int64_t from, int64_t last, int page, int chunk) {
    const int EACH = WINDOW / THREADS; // 32 tokens at a time
    int valid[EACH], before = 0, own = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned seen[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int64_t t = from + (warp * EACH + k) * 32 + lane;
        valid[k] = t <= last ? seen_by(a, t, page, chunk) : 0;
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        seen[k] = __ballot_sync(0xffffffffu, valid[k] > 0);
        own += __popc(seen[k]);
    }
    __syncthreads(); // the last window's list isn't read any more
    if (lane == 0) shared->counts[warp] = own;
    __syncthreads();
    int total = 0;
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) before = total;
        total += shared->counts[w];
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (valid[k] > 0) shared->list[before + __popc(seen[k] & ((1u << lane) - 1))] = ((warp * EACH + k) * 32 + lane) * SEEN + valid[k];
        before += __popc(seen[k]);
    }
    __syncthreads();
    return total;
}

// sums[16 positions, COLUMNS] += weights[16 positions, 16 rows] x[16 rows, COLUMNS]; seen[row] says which positions of the page
// count for a row, those of this product begin at `first`. Where only some count, and the row isn't finite, position by position.
template <int COLUMNS>
static __device__ __forceinline__ void add_rows(float (*sums)[4], const uint32_t a[4], const bf16 *x, int pitch, const int *seen, bool partial, int first) {
    int k = lane_column();
    int own_seen[2][2] = {{seen[k], seen[k + 1]}, {seen[k + 8], seen[k + 9]}}; // rows of b[0], b[2] and of b[1], b[3]
    bool stained = false;
#pragma unroll 1
    for (int n = 0; n < (partial ? COLUMNS / 16 : 0); n++) {
        uint32_t b[4];
        load_b_turned(b, x + n * 16, pitch);
        for (int i = 0; i < 4; i++) {
            uint32_t mask = (own_seen[i % 2][0] != PAGE ? 0xffffu : 0u) | (own_seen[i % 2][1] != PAGE ? 0xffff0000u : 0u);
            stained |= not_finite(b[i] & mask);
        }
    }
    if (!__any_sync(0xffffffffu, stained)) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            uint32_t b[4];
            load_b_turned(b, x + n * 16, pitch);
            mma_m16n8k16_bf16(sums[2 * n], a, b);
            mma_m16n8k16_bf16(sums[2 * n + 1], a, b + 2);
        }
        return;
    }
    float kept[COLUMNS / 8][4]; // in local memory, as in add_product
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) kept[i / 4][i % 4] = sums[i / 4][i % 4];
#pragma unroll 1
    for (int m = 0; m < 16; m++) {
        uint32_t mask[2];
        for (int i = 0; i < 2; i++) mask[i] = (sees(own_seen[i][0], first + m) ? 0xffffu : 0u) | (sees(own_seen[i][1], first + m) ? 0xffff0000u : 0u);
#pragma unroll 1
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint32_t b[4];
            float sum[4] = {kept[n][0], kept[n][1], kept[n][2], kept[n][3]};
            load_b_turned(b, x + n / 2 * 16, pitch);
            uint32_t own[2] = {(n % 2 ? b[2] : b[0]) & mask[0], (n % 2 ? b[3] : b[1]) & mask[1]};
            mma_m16n8k16_bf16(sum, a, own);
            for (int e = 0; e < 4; e++)
                if (lane_row() + e / 2 * 8 == m) kept[n][e] = sum[e];
        }
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) sums[i / 4][i % 4] = kept[i / 4][i % 4];
}

// Columns of dk and dv that a block has in registers.
template <int DT> struct PageGrad {
    static const int COLUMNS = DT < 128 ? DT : 128;
    float dk[COLUMNS / 8][4], dv[COLUMNS / 8][4];
};

// 16 rows from `row` of a stage, and the 16 positions from `first`: transposed scores, weights, products.
template <int DT>
static __device__ __forceinline__ void page_rows(PageGrad<DT> &g, const PagesShared<DT> *shared, int stage, int row, int first, int column, const GradArgs &p) {
    const int PITCH = Page<DT>::PITCH;
    const bf16 *q = shared->q[stage] + row * PITCH, *dy = shared->dy[stage] + row * PITCH;
    const int *seen = shared->seen[stage] + row;
    float s[2][4] = {{0}}, ds[2][4] = {{0}};
#pragma unroll
    for (int step = 0; step < DT / 16; step++) {
        uint32_t a[4], b[4];
        load_a_turned(a, shared->keys + step * 16 * KEY_PITCH + first, KEY_PITCH);
        load_b(b, q + step * 16, PITCH);
        mma_m16n8k16_bf16(s[0], a, b);
        mma_m16n8k16_bf16(s[1], a, b + 2);
        load_a(a, shared->values + first * PITCH + step * 16, PITCH);
        load_b(b, dy + step * 16, PITCH);
        mma_m16n8k16_bf16(ds[0], a, b);
        mma_m16n8k16_bf16(ds[1], a, b + 2);
    }
    bool partial = seen[threadIdx.x % 16] != 0 && seen[threadIdx.x % 16] != PAGE;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int r = n * 8 + lane_column() + e % 2, position = first + lane_row() + e / 2 * 8;
            bool counts = sees(seen[r], position);
            float weight = exp2_approx(s[n][e] * p.scale - shared->lse[stage][row + r] * LOG2_E);
            float d = weight * (ds[n][e] - shared->delta[stage][row + r]) * p.b.forward.scale;
            s[n][e] = counts ? weight : 0.0f;
            ds[n][e] = counts ? d : 0.0f;
        }
    partial = __any_sync(0xffffffffu, partial);
    uint32_t weights[4], dscores[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        weights[i] = pack_bf16x2(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
        dscores[i] = pack_bf16x2(ds[i / 2][i % 2 * 2], ds[i / 2][i % 2 * 2 + 1]);
    }
    add_rows<PageGrad<DT>::COLUMNS>(g.dv, weights, dy + column, PITCH, seen, partial, first);
    add_rows<PageGrad<DT>::COLUMNS>(g.dk, dscores, q + column, PITCH, seen, partial, first);
}

// The halves of the rows are added; columns beyond D are zero whatever they hold. `sums` is shared memory.
template <int DT>
static __device__ __forceinline__ void store_page(PageGrad<DT> &g, float *sums, const AttentionGradArgs &b, int page, int first, int column, bool second) {
    const int COLUMNS = PageGrad<DT>::COLUMNS;
    int64_t D = b.forward.D, Dp = padded_width(D);
    int lane = threadIdx.x % 64;
    __syncthreads();
    if (second)
#pragma unroll
        for (int i = 0; i < COLUMNS / 8 * 4; i++) {
            sums[i * 64 + lane] = g.dk[i / 4][i % 4];
            sums[(COLUMNS / 2 + i) * 64 + lane] = g.dv[i / 4][i % 4];
        }
    __syncthreads();
    if (second) return;
    float *out = b.dpages + page * page_stride(b.forward.kv_heads, D) + (int64_t)blockIdx.y * 2 * PAGE * Dp;
#pragma unroll
    for (int i = 0; i < COLUMNS / 8 * 4; i++) {
        int c = column + i / 4 * 8 + lane_column() + i % 2, position = first + lane_row() + i % 4 / 2 * 8;
        if (c >= Dp) continue;
        out[position * Dp + c] = c < D ? g.dk[i / 4][i % 4] + sums[i * 64 + lane] : 0.0f;
        out[(PAGE + position) * Dp + c] = c < D ? g.dv[i / 4][i % 4] + sums[(COLUMNS / 2 + i) * 64 + lane] : 0.0f;
    }
}

template <int DT> static __global__ void __launch_bounds__(THREADS) attention_pages_kernel(GradArgs p) {
    const int ROWS = PagesShared<DT>::ROWS, STAGES = PagesShared<DT>::STAGES;
    SHARED(PagesShared<DT>, shared);
    const AttentionArgs &a = p.b.forward;
    int page = blockIdx.x, group = a.heads / a.kv_heads, Dp = (int)padded_width(a.D), warp = threadIdx.x / 32;
    int first = warp % 2 * 16, column = blockIdx.z * 128;
    const bf16 *from = (const bf16 *)a.pages + page * page_stride(a.kv_heads, a.D) + (int64_t)blockIdx.y * 2 * PAGE * Dp;
    copy_keys<DT>(shared->keys, from, Dp, threadIdx.x, THREADS);
    copy_values<DT>(shared->values, from, Dp, 0, threadIdx.x, THREADS);
    cp_async_commit();
    PageGrad<DT> g;
#pragma unroll
    for (int i = 0; i < PageGrad<DT>::COLUMNS / 8 * 4; i++) g.dk[i / 4][i % 4] = g.dv[i / 4][i % 4] = 0;
    int chunk = find_chunk(p.b, page, &shared->chunk);
    int64_t last = chunk < 0 ? -1 : p.b.page_last_row[page];
    for (int64_t window = p.b.page_first_row[page]; window <= last; window += WINDOW) {
        int rows = list_tokens(shared, a, window, last, page, chunk) * group;
        auto load = [&](int tile) {
            int row = tile * ROWS + threadIdx.x / 2, token = row / group, entry = row < rows ? shared->list[token] : 0;
            int64_t at = (window + entry / SEEN) * a.heads + (int)blockIdx.y * group + (row - token * group);
            if (threadIdx.x < 2 * ROWS && tile * ROWS < rows) load_row(shared, tile % STAGES, p, row < rows ? at : 0, entry % SEEN);
            cp_async_commit();
        };
        load(0);
        for (int tile = 0; tile * ROWS < rows; tile++) {
            cp_async_wait<0>();
            __syncthreads(); // the tile is there, and nobody reads the other stage
            if (STAGES > 1) load(tile + 1);
#pragma unroll 1
            for (int row = warp / 2 * (ROWS / 2); row < (warp / 2 + 1) * (ROWS / 2); row += 16)
                if (tile * ROWS + row < rows) page_rows(g, shared, tile % STAGES, row, first, column, p);
            if (STAGES > 1) continue;
            __syncthreads();
            load(tile + 1);
        }
    }
    cp_async_wait<0>();
    store_page(g, (float *)shared->q, p.b, page, first, column, warp >= 2);
}

// ---- rows ------------------------------------------------------------------------------------------------
// 16 rows of a warp. The A fragments of q and dy stay in registers up to 64 columns, in shared memory (each thread its own)
// up to 128, and are read from device memory for each page beyond; then, as in the forward kernel, a block has 128 columns.
template <int DT> struct RowGrad {
    static const bool IN_REGISTERS = DT <= 64, IN_SHARED = DT > 64 && DT <= 128;
    static const int COLUMNS = DT <= 128 ? DT : 128, STEPS = DT / 16, STAGES = DT <= 128 ? 3 : 2, SHARED = IN_SHARED ? 2 * STEPS * THREADS : 0; // uint4
    uint32_t kept[2][IN_REGISTERS ? STEPS : 1][4]; // of q, of dy
    const bf16 *q_row[2];
    const float *dy_row[2];
    float dq[COLUMNS / 8][4];
    float lse[2], delta[2]; // lse in powers of two
    RowPair rows;
};
static __device__ __forceinline__ uint32_t rounded_pair(const float *row, int column, int D) {
    if (!row || column >= D) return 0;
    float2 dy = *(const float2 *)(row + column);
    return pack_bf16x2(dy.x, dy.y);
}
// The fragment of columns 16 step of q (0) or dy (1), from device memory and from where it is kept.
template <int DT> static __device__ __forceinline__ void load_fragment(uint32_t a[4], const RowGrad<DT> &g, int which, int step, int D) {
    int c = step * 16 + lane_column();
    if (which == 0)
        load_rows(a, g.q_row[0], g.q_row[1], step, D);
    else
        for (int i = 0; i < 4; i++) a[i] = rounded_pair(g.dy_row[i % 2], c + i / 2 * 8, D);
}
template <int DT>
static __device__ __forceinline__ void row_fragment(uint32_t a[4], const RowGrad<DT> &g, const uint4 *shared, int which, int step, int D) {
    if (RowGrad<DT>::IN_REGISTERS) {
        for (int i = 0; i < 4; i++) a[i] = g.kept[which][step % (RowGrad<DT>::IN_REGISTERS ? RowGrad<DT>::STEPS : 1)][i];
    } else if (RowGrad<DT>::IN_SHARED) {
        uint4 u = shared[(which * RowGrad<DT>::STEPS + step) * THREADS + threadIdx.x];
        a[0] = u.x, a[1] = u.y, a[2] = u.z, a[3] = u.w;
    } else {
        load_fragment(a, g, which, step, D);
    }
}

template <int DT>
static __device__ __forceinline__ void rows_start(RowGrad<DT> &g, uint4 *shared, const GradArgs &p, const Run &run, const Cut &cut) {
    const AttentionArgs &a = p.b.forward;
    g.rows = find_rows(a, run, threadIdx.x / 32 * 16, cut.first_head, cut.heads);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t at = g.rows.at[i];
        g.q_row[i] = at < 0 ? NULL : (const bf16 *)a.q + at * a.D;
        g.dy_row[i] = at < 0 ? NULL : p.b.dy + at * a.D;
        g.lse[i] = at < 0 ? 0.0f : a.lse[at] * LOG2_E;
        g.delta[i] = at < 0 ? 0.0f : p.b.delta[at];
    }
    for (int which = 0; which < 2; which++)
#pragma unroll
        for (int step = 0; step < (DT <= 128 ? DT / 16 : 0); step++) {
            uint32_t f[4];
            load_fragment(f, g, which, step, a.D);
            if (RowGrad<DT>::IN_SHARED) shared[(which * RowGrad<DT>::STEPS + step) * THREADS + threadIdx.x] = make_uint4(f[0], f[1], f[2], f[3]);
            for (int i = 0; i < 4 && RowGrad<DT>::IN_REGISTERS; i++) g.kept[which][step % (RowGrad<DT>::IN_REGISTERS ? RowGrad<DT>::STEPS : 1)][i] = f[i];
        }
#pragma unroll
    for (int n = 0; n < RowGrad<DT>::COLUMNS / 8; n++) g.dq[n][0] = g.dq[n][1] = g.dq[n][2] = g.dq[n][3] = 0;
}

template <int DT>
static __device__ __forceinline__ void rows_page(RowGrad<DT> &g, const uint4 *shared, const GradArgs &p, int chunk, const bf16 *keys) {
    if (unseen(g.rows, chunk)) return;
    const int PITCH = Page<DT>::PITCH, D = p.b.forward.D;
    const bf16 *values = keys + Page<DT>::KEYS;
    float s[4][4], ds[4][4] = {{0}};
    Sight see = sight_of(g.rows, chunk * PAGE);
    page_scores<DT, RowGrad<DT>::IN_REGISTERS>(s, [&](uint32_t a[4], int step) { row_fragment(a, g, shared, 0, step, D); }, keys);
#pragma unroll(DT > 128 ? 2 : DT / 16)
    for (int step = 0; step < DT / 16; step++) {
        uint32_t a[4], b[4];
        row_fragment(a, g, shared, 1, step, D);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            load_b(b, values + half * 16 * PITCH + step * 16, PITCH);
            mma_m16n8k16_bf16(ds[half * 2], a, b);
            mma_m16n8k16_bf16(ds[half * 2 + 1], a, b + 2);
        }
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float weight = exp2_approx(s[n][e] * p.scale - g.lse[e / 2]);
            float d = weight * (ds[n][e] - g.delta[e / 2]) * p.b.forward.scale;
            int position = n * 8 + lane_column() + e % 2;
            ds[n][e] = position >= see.low[e / 2] && position < see.valid[e / 2] ? d : 0.0f;
        }
    uint32_t dscores[2][4];
    weights_to_a(dscores, ds);
    add_product<RowGrad<DT>::COLUMNS, false>(g.dq, dscores, keys + (int)blockIdx.z * 128 * KEY_PITCH, KEY_PITCH, see);
}

template <int DT> static __global__ void __launch_bounds__(THREADS, DT <= 128 ? 2 : 1) attention_rows_kernel(GradArgs p) {
    const int STAGES = RowGrad<DT>::STAGES;
    SHARED(bf16, shared);
    uint4 *fragments = (uint4 *)(shared + STAGES * Page<DT>::ELEMENTS);
    const AttentionArgs &a = p.b.forward;
    Cut cut = cut_of(a);
    int Dp = (int)padded_width(a.D);
    int64_t page = page_stride(a.kv_heads, a.D), window = (int64_t)(gridDim.x - 1 - blockIdx.x) * p.tokens;
    int64_t end = window + p.tokens < a.T ? window + p.tokens : a.T;
    const bf16 *pages = (const bf16 *)a.pages + (int64_t)cut.kv_head * 2 * PAGE * Dp;
    for (int64_t from = window; from < end;) {
        Run run = find_run(a, from, end);
        int count = run.last / PAGE + 1, begin = run.first / PAGE;
        auto load = [&](int chunk, int32_t number) {
            bf16 *stage = shared + chunk % STAGES * Page<DT>::ELEMENTS;
            copy_keys<DT>(stage, pages + number * page, Dp, threadIdx.x, THREADS);
            copy_values<DT>(stage + Page<DT>::KEYS, pages + number * page, Dp, 0, threadIdx.x, THREADS);
        };
        for (int chunk = begin; chunk < begin + STAGES - 1; chunk++) {
            if (chunk < count) load(chunk, run.table[chunk]);
            cp_async_commit();
        }
        RowGrad<DT> g;
        rows_start(g, fragments, p, run, cut);
        int32_t ahead = begin + STAGES - 1 < count ? run.table[begin + STAGES - 1] : 0;
        for (int chunk = begin; chunk < count; chunk++) {
            cp_async_wait<STAGES - 2>();
            __syncthreads(); // the page is there, and nobody reads the stage that is filled next
            if (chunk + STAGES - 1 < count) load(chunk + STAGES - 1, ahead);
            cp_async_commit();
            if (chunk + STAGES < count) ahead = run.table[chunk + STAGES];
            rows_page(g, fragments, p, chunk, shared + chunk % STAGES * Page<DT>::ELEMENTS);
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int n = 0; n < RowGrad<DT>::COLUMNS / 8; n++) {
                int c = (int)blockIdx.z * 128 + n * 8 + lane_column();
                if (g.rows.at[i] >= 0 && c < a.D) *(float2 *)(p.b.dq + g.rows.at[i] * a.D + c) = make_float2(g.dq[n][i * 2], g.dq[n][i * 2 + 1]);
            }
        cp_async_wait<0>();
        __syncthreads(); // the next run fills the stages from the first
        from += run.count;
    }
}

// ---- plain -----------------------------------------------------------------------------------------------
enum { LANE_COLUMNS = 256 / 32, PLAIN_WARPS = 8, PLAIN_THREADS = PLAIN_WARPS * 32 };

// Weight and its gradient of position `lane` of a page, for one row; zeros where it isn't seen.
static __device__ __forceinline__ void plain_weights(const AttentionGradArgs &b, int64_t at, const float *keys, int low, int valid, float *weight, float *dscore) {
    const AttentionArgs &a = b.forward;
    int64_t D = a.D, Dp = padded_width(D), lane = threadIdx.x % 32;
    const float *q = (const float *)a.q + at * D, *dy = b.dy + at * D, *values = keys + PAGE * Dp + lane * Dp;
    float s = 0, d = 0;
    *weight = *dscore = 0;
    if (lane < low || lane >= valid) return;
    for (int64_t c = 0; c < D; c++) {
        s = fmaf(q[c], keys[c * PAGE + lane], s);
        d = fmaf(dy[c], values[c], d);
    }
    *weight = expf(s * a.scale - a.lse[at]);
    *dscore = *weight * (d - b.delta[at]) * a.scale;
}

static __global__ void __launch_bounds__(THREADS) attention_rows_plain_kernel(AttentionGradArgs b) {
    const AttentionArgs &a = b.forward;
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32, D = a.D, Dp = padded_width(D), lane = threadIdx.x % 32;
    if (at >= a.T * a.heads) return;
    int64_t t = at / a.heads, page = page_stride(a.kv_heads, D), head = at % a.heads / (a.heads / a.kv_heads) * 2 * PAGE * Dp;
    float dq[LANE_COLUMNS] = {0};
    int start = first_seen(a, a.position[t]);
    for (int chunk = start / PAGE; chunk * PAGE <= a.position[t]; chunk++) {
        const float *keys = (const float *)a.pages + a.table[a.table_start[t] + chunk] * page + head;
        int valid = min(a.position[t] + 1 - chunk * PAGE, (int)PAGE), low = max(start - chunk * PAGE, 0);
        float weight, dscore;
        plain_weights(b, at, keys, low, valid, &weight, &dscore);
        for (int j = low; j < valid; j++) {
            float d = __shfl_sync(0xffffffffu, dscore, j);
#pragma unroll
            for (int i = 0; i < LANE_COLUMNS; i++)
                if (lane + i * 32 < D) dq[i] = fmaf(d, keys[(lane + i * 32) * PAGE + j], dq[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        if (lane + i * 32 < D) b.dq[at * D + lane + i * 32] = dq[i];
}

struct PlainShared {
    float weights[PLAIN_WARPS][PAGE], dscores[PLAIN_WARPS][PAGE];
    int seen[PLAIN_WARPS];
    int chunk;
};
// Eight rows at a time, one a warp; then warp w sums positions 4 w to 4 w + 3 over them, lanes along the columns.
static __global__ void __launch_bounds__(PLAIN_THREADS) attention_pages_plain_kernel(AttentionGradArgs b) {
    SHARED(PlainShared, shared);
    const AttentionArgs &a = b.forward;
    int page = blockIdx.x, group = a.heads / a.kv_heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t D = a.D, Dp = padded_width(D), place = page * page_stride(a.kv_heads, D) + (int64_t)blockIdx.y * 2 * PAGE * Dp;
    int chunk = find_chunk(b, page, &shared->chunk);
    int64_t first = b.page_first_row[page], rows = chunk < 0 ? 0 : (b.page_last_row[page] - first + 1) * group;
    float dk[4][LANE_COLUMNS] = {{0}}, dv[4][LANE_COLUMNS] = {{0}};
    for (int64_t row = 0; row < rows; row += PLAIN_WARPS) {
        int64_t own = row + warp;
        int seen = own < rows ? seen_by(a, first + own / group, page, chunk) : 0;
        float weight = 0, dscore = 0;
        int64_t own_at = (first + own / group) * a.heads + (int)blockIdx.y * group + own % group;
        if (seen) plain_weights(b, own_at, (const float *)a.pages + place, begin_of(seen), end_of(seen), &weight, &dscore);
        __syncthreads();
        shared->weights[warp][lane] = weight, shared->dscores[warp][lane] = dscore;
        if (lane == 0) shared->seen[warp] = seen;
        __syncthreads();
        for (int r = 0; r < PLAIN_WARPS; r++) {
            if (end_of(shared->seen[r]) <= warp * 4 || begin_of(shared->seen[r]) >= warp * 4 + 4) continue;
            int64_t at = ((first + (row + r) / group) * a.heads + (int)blockIdx.y * group + (row + r) % group) * D;
#pragma unroll
            for (int i = 0; i < LANE_COLUMNS; i++) {
                if (lane + i * 32 >= D) continue;
                float q = ((const float *)a.q)[at + lane + i * 32], dy = b.dy[at + lane + i * 32];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (sees(shared->seen[r], warp * 4 + j)) {
                        dk[j][i] = fmaf(shared->dscores[r][warp * 4 + j], q, dk[j][i]);
                        dv[j][i] = fmaf(shared->weights[r][warp * 4 + j], dy, dv[j][i]);
                    }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (lane + i * 32 < Dp) {
                float *out = b.dpages + place + (warp * 4 + j) * Dp + lane + i * 32;
                out[0] = dk[j][i], out[PAGE * Dp] = dv[j][i]; // columns beyond D have stayed zero
            }
}

// ---- entry -----------------------------------------------------------------------------------------------
template <int DT> static void start_grad(const Device *device, const AttentionGradArgs *b) {
    const AttentionArgs *a = &b->forward;
    cudaStream_t stream = cuda_context(device)->stream;
    bool aligned = a->D % 8 == 0 && ((uintptr_t)a->q | (uintptr_t)b->dq) % 16 == 0;
    GradArgs p = {*b, a->scale * LOG2_E, WARPS * 16 / cut_heads(a), aligned};
    auto pages = attention_pages_kernel<DT>;
    allow_shared(pages, sizeof(PagesShared<DT>));
    if (b->page_count > 0)
        LAUNCH(stream, pages, dim3((unsigned)b->page_count, (unsigned)a->kv_heads, DT > 128 ? 2 : 1), THREADS, sizeof(PagesShared<DT>), p);
    auto rows = attention_rows_kernel<DT>;
    size_t shared = (size_t)RowGrad<DT>::STAGES * Page<DT>::ELEMENTS * sizeof(bf16) + RowGrad<DT>::SHARED * sizeof(uint4);
    allow_shared(rows, shared);
    LAUNCH(stream, rows, dim3(ceil_div(a->T, p.tokens), cut_count(a), DT > 128 ? 2 : 1), THREADS, shared, p);
}

extern "C" void attention_grad_cuda(const Device *device, const AttentionGradArgs *b) {
    const AttentionArgs *a = &b->forward;
    cudaStream_t stream = cuda_context(device)->stream;
    if (a->T <= 0) return;
    unsigned warps = ceil_div(a->T * a->heads, WARPS);
    if (a->dtype == DTYPE_F32) {
        LAUNCH(stream, attention_delta_kernel<false>, warps, THREADS, 0, *b);
        LAUNCH(stream, attention_rows_plain_kernel, warps, THREADS, 0, *b);
        if (b->page_count > 0)
            LAUNCH(stream, attention_pages_plain_kernel, dim3((unsigned)b->page_count, (unsigned)a->kv_heads), PLAIN_THREADS, sizeof(PlainShared), *b);
        return;
    }
    LAUNCH(stream, attention_delta_kernel<true>, warps, THREADS, 0, *b);
#define START(DT) start_grad<DT>(device, b)
    FOR_WIDTH(a->D, START)
#undef START
}
