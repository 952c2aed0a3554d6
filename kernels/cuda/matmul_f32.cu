// Matrix products in fp32, which tensor cores don't have: forward and gradients of weights by one kernel, told apart by
// strides alone. fp32 is for checking and for small models; this kernel aims at plainness and at about half of the
// machine's fused multiply-adds, not at more.
//
// Grid: tiles of 64 x 64 outputs, columns first (z: products, or one list of tiles where these have rows of their own); 256 threads of 4 x 4 outputs. The reduced index passes through shared
// memory in steps of 16, laid [16][64], so that a thread reads its four operands as one vector. Each output is a chain of
// fmaf per chunk of K_CHUNK from zero, chunks added in order: no tile, row count or place in the tile changes a bit.
#include "chain.h"

enum { SIDE = 64, DEPTH = 16, STRIDE = SIDE + 4, CHAIN_THREADS = 256 };
static_assert(K_CHUNK % DEPTH == 0, "a chunk is whole steps");

// Elements (first .. +63, from .. +15) to tile [DEPTH][STRIDE], zero beyond `count` and `end`. Neighbouring threads take
// neighbouring addresses, whichever index those belong to.
static __device__ void load_tile(float *tile, const float *from, int64_t row_stride, int64_t depth_stride, int64_t first,
                                 int64_t count, int64_t begin, int64_t end) {
    for (int e = (int)threadIdx.x; e < SIDE * DEPTH; e += CHAIN_THREADS) {
        int i = depth_stride == 1 ? e / DEPTH : e % SIDE, r = depth_stride == 1 ? e % DEPTH : e / SIDE;
        bool valid = first + i < count && begin + r < end;
        tile[r * STRIDE + i] = valid ? from[(first + i) * row_stride + (begin + r) * depth_stride] : 0.0f;
    }
}

// One segment's sums.
static __device__ void sum_segment(const ChainArgs &p, float *tiles, int64_t i0, int64_t j0, int64_t begin, int64_t end,
                                   float total[4][4]) {
    float *a_tile = tiles, *b_tile = tiles + DEPTH * STRIDE, chunk[4][4] = {};
    int row = (int)threadIdx.x / 16 * 4, column = (int)threadIdx.x % 16 * 4;
    for (int64_t at = begin; at < end; at += DEPTH) {
        __syncthreads();
        load_tile(a_tile, p.a, p.a_row, p.a_depth, i0, p.rows, at, end);
        load_tile(b_tile, p.b, p.b_row, p.b_depth, j0, p.columns, at, end);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < DEPTH; r++) {
            float4 a = *(const float4 *)(a_tile + r * STRIDE + row), b = *(const float4 *)(b_tile + r * STRIDE + column);
            float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) chunk[i][j] = fmaf(left[i], right[j], chunk[i][j]);
        }
        if ((at + DEPTH - begin) % K_CHUNK != 0 && at + DEPTH < end) continue;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) total[i][j] += chunk[i][j], chunk[i][j] = 0.0f;
    }
}

// This block's product becomes the only one; false where there is none.
static __device__ bool enter_product(ChainArgs *p, int64_t *i0) {
    int product = blockIdx.z;
    if (p->product_start && !p->segments) {
        int64_t tile;
        if (!find_product(p->product_start, p->every, p->products, SIDE, blockIdx.y, &product, &tile)) return false;
        const int32_t *rows = p->product_start + product * p->every;
        *i0 = tile * SIDE;
        p->rows = rows[p->every] - rows[0];
        p->a += rows[0] * p->a_row;
        p->y += rows[0] * p->ldy;
    }
    p->a += product * p->a_step;
    p->b += product * p->b_step;
    p->y += product * p->y_step;
    if (p->product_start && p->segments) p->start = p->product_start + product * p->every;
    return true;
}

static __global__ void __launch_bounds__(CHAIN_THREADS) chain_kernel(ChainArgs p) {
    SHARED(float, tiles); // [2][DEPTH][STRIDE]
    int64_t i0 = (int64_t)blockIdx.y * SIDE, j0 = (int64_t)blockIdx.x * SIDE;
    if (p.products && !enter_product(&p, &i0)) return;
    int64_t row = i0 + threadIdx.x / 16 * 4, column = j0 + threadIdx.x % 16 * 4;
    int segments = p.segments ? p.segments : 1;
    for (int s = 0; s < segments; s++) {
        float total[4][4] = {};
        sum_segment(p, tiles, i0, j0, p.segments ? p.start[s] : 0, p.segments ? p.start[s + 1] : p.depth, total);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (row + i >= p.rows || column + j >= p.columns) continue;
                float *y = p.y + (row + i) * p.ldy + column + j, value = total[i][j];
                if (p.bias) value += p.bias[column + j];
                *y = p.add || s > 0 ? *y + value : value;
            }
    }
}

// Launches of at most 65,535 rows of tiles, which is what a grid's second side takes.
void chain_product(const CudaContext *context, const ChainArgs *args) {
    const int64_t most = 65535LL * SIDE;
    if (args->products) {
        bool ragged = args->product_start && !args->segments;
        unsigned tiles = ceil_div(args->rows, SIDE) + (ragged ? (unsigned)args->products : 0);
        if (args->rows && args->columns)
            LAUNCH(context->stream, chain_kernel, dim3(ceil_div(args->columns, SIDE), tiles, ragged ? 1 : (unsigned)args->products),
                   dim3(CHAIN_THREADS), 2 * DEPTH * STRIDE * sizeof(float), *args);
        return;
    }
    for (int64_t from = 0; from < args->rows && args->columns; from += most) {
        ChainArgs part = *args;
        part.rows = args->rows - from < most ? args->rows - from : most;
        part.a += from * args->a_row;
        part.y += from * args->ldy;
        LAUNCH(context->stream, chain_kernel, dim3(ceil_div(part.columns, SIDE), ceil_div(part.rows, SIDE)), dim3(CHAIN_THREADS),
               2 * DEPTH * STRIDE * sizeof(float), part);
    }
}
