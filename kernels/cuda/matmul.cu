// y = x w^T on CUDA devices, for decoding, prefill, training and input gradients alike.
//
// All of it is done by own kernels, none by cuBLASLt: the bits of a row must not change with the number of rows
// (invariant 1), and a library's choice of tile, split and order does (RECKON_CUDA_ALGORITHMS=free lets it, to measure that). mma.sync m16n8k16 serves sm_80 and later; on sm_90 all
// products are wgmma m64nNk16 instead, which alone reaches the peak of Hopper's tensor cores, or all are mma.sync: never both,
// since nothing promises that they round alike. A device is told which when it is opened (trial.cu).
//
// Order of sums (cuda.h): per output and per chunk of K_CHUNK one chain of mma steps from zero; chunks added in order to
// zero; then the bias; then y's own value. Weights are always the 16 (64) rows of the mma and tokens its 8 (8 to 192) columns, so
// that one token costs no more than eight, and an output is the same chain of 16 products a step in every shape of tile.
// Hence the shape, and how chunks are shared out, are free to depend on the number of rows.
//
// A block owns ROWS weights' rows x TOKENS tokens. Stages of 64 along K come by cp.async, several under way, in rows of
// 128 bytes whose 16-byte pieces are swizzled by the row's number: neither copies nor ldmatrix meet a bank twice.
//   64 x {8, 16, 32, 64}, 4 warps: up to 64 tokens, bound by reading w. A block has up to 45 KiB under way, and
//     where there are fewer tiles than multiprocessors, chunks are shared out over blocks: each writes its chunks' sums to
//     scratch, the tile's last block (a ticket says which) adds them in order. No second kernel, no order of arrival in the bits.
//   64 x 32 to 128 x 192: more tokens, bound by tensor cores. What limits mma.sync on Hopper is shared memory: a warp tile of 64 x 48
//     reads 7 KiB for 48 mma, which just keeps up; 96 registers of chunk and 96 of sum leave one block of 8 warps per
//     multiprocessor. The smaller shapes fill the machine when there are few tiles; `choose` weighs that.
// wgmma reads the same stages where they lie (the swizzle is its 128-byte one), 64 rows a warpgroup. It runs on while the next
// stage is waited for, so a slot is filled again one stage later. Its stages are brought by the copy engine (TMA): one thread asks
// for the two tiles, and a barrier in shared memory counts their bytes; only rows of x that aren't aligned come by cp.async.
// Many products: y tiles of tokens, numbered through the products where these have rows of their own, or z products.
// Grid: x tiles of weights' rows, y tiles of tokens, z runs of chunks. Neighbouring blocks share tokens, and w stays in L2.
#include "chain.h"
#include "cublas.h"
#include "tensor_map.h"
#include "../blocks.h"

enum { DEPTH = 64, PIECE = 8 }; // bf16 along K of a stage, and of 16 bytes
static_assert(K_CHUNK % DEPTH == 0, "a chunk is whole stages");

typedef struct Product {
    MatmulArgs args;
    bool vector_y;            // vector stores of y are aligned
    int chunks, block_chunks; // of K; of one block
    float *partial;           // [chunks][M][columns] where chunks are shared out, or NULL
    int64_t columns;          // N rounded up to whole tiles
    unsigned *tickets;        // [tiles]
} Product;
// What the copy engine reads, a matrix for each product.
typedef struct ProductMaps {
    TensorMap w, x;
} ProductMaps;

template <int ROWS_, int TOKENS_, int ROW_WARPS_, int TOKEN_WARPS_, int STAGES_, bool VECTOR_X_ = true, bool WGMMA_ = false>
struct ProductTile {
    enum {
        ROWS = ROWS_,
        TOKENS = TOKENS_,
        ROW_WARPS = ROW_WARPS_,
        STAGES = STAGES_,
        VECTOR_X = VECTOR_X_,  // rows of x are aligned to 16 bytes
        WGMMA = WGMMA_,
        COPY_ENGINE = WGMMA_ && VECTOR_X_,
        AHEAD = WGMMA_ ? STAGES_ - 2 : STAGES_ - 1, // stages under way; a slot more is read by products that still run
        SHARED_OUT = TOKENS_ <= 64, // chunks may be shared out over blocks
        THREADS = 32 * ROW_WARPS_ * TOKEN_WARPS_,
        WARP_ROWS = ROWS_ / ROW_WARPS_,
        WARP_TOKENS = TOKENS_ / TOKEN_WARPS_,
        I = WARP_ROWS / 16, // mma tiles of a warp
        J = WARP_TOKENS / 8,
        STAGE = (ROWS_ + TOKENS_) * DEPTH, // elements
        OUT_STRIDE = ROWS_ + 4,            // floats: the four token columns of a warp's sums fall on different banks
        PIPELINE_BYTES = STAGES_ * STAGE * 2,
        OUT_BYTES = TOKENS_ * OUT_STRIDE * 4,
        USED_BYTES = PIPELINE_BYTES > OUT_BYTES ? PIPELINE_BYTES : OUT_BYTES, // then the copy engine's barriers, one a stage
        SHARED_BYTES = USED_BYTES + (COPY_ENGINE ? 8 * STAGES_ : 0) + (WGMMA_ ? WGMMA_ALIGNMENT : 0),
    };
    static_assert(!WGMMA_ || (TOKEN_WARPS_ == 1 && WARP_ROWS == 16 && ROW_WARPS_ % 4 == 0), "64 rows a warpgroup, 16 a warp");
};
// A warpgroup has 64 rows and all tokens.
template <int ROWS, int TOKENS, int STAGES, bool VECTOR_X = true>
using WarpgroupTile = ProductTile<ROWS, TOKENS, ROWS / 16, 1, STAGES, VECTOR_X, true>;

// ---- loads -----------------------------------------------------------------------------------------------
static __device__ __forceinline__ bf16 *piece_of(bf16 *tile, int row, int piece) {
    return tile + row * DEPTH + ((piece ^ (row & 7)) * PIECE);
}

// Eight elements of x one by one, zero beyond K: rows that aren't aligned.
static __device__ void load_piece(bf16 *to, const bf16 *from, int64_t count) {
    uint32_t pair[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < PIECE; i++)
        if (i < count) pair[i / 2] |= (uint32_t)from[i] << (i % 2 * 16);
    *(uint4 *)to = make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

// Within a tile places are 32-bit, which leaves registers to the sums.
template <typename T>
static __device__ __forceinline__ void load_stage(const Product &p, bf16 *stage, int64_t n0, int64_t m0, int64_t k0) {
    const MatmulArgs &a = p.args;
    enum { STEP = T::THREADS / 8 }; // rows taken at once
    const int row = (int)threadIdx.x / 8, piece = (int)threadIdx.x % 8;
    const int64_t stride = packed_stride(a.K), rows_left = (a.N + PANEL - 1) / PANEL * PANEL - n0, tokens_left = a.M - m0;
    const int w_stride = (int)stride, x_stride = (int)a.ldx, k = piece * PIECE;
    const bf16 *w = (const bf16 *)a.w + n0 * stride + k0, *x = (const bf16 *)a.x + m0 * a.ldx + k0;
    bf16 *w_tile = stage, *x_tile = stage + T::ROWS * DEPTH;
#pragma unroll
    for (int i = 0; i < T::ROWS; i += STEP)
        cp_async_16(piece_of(w_tile, row + i, piece), w + ((row + i) * w_stride + k), k0 + k < stride && row + i < rows_left);
#pragma unroll(T::VECTOR_X ? 8 : 1)
    for (int i = 0; i < T::TOKENS; i += STEP) {
        if (T::TOKENS % STEP && row + i >= T::TOKENS) continue;
        bool valid = k0 + k < a.K && row + i < tokens_left;
        const bf16 *from = x + ((row + i) * x_stride + k);
        if (T::VECTOR_X)
            cp_async_16(piece_of(x_tile, row + i, piece), from, valid);
        else
            load_piece(piece_of(x_tile, row + i, piece), from, valid ? a.K - k0 - k : 0);
    }
}

// Where a block's tiles begin, and which matrix of many each is.
typedef struct TilePlace {
    int w_row, w_matrix, x_row, x_matrix;
} TilePlace;
template <typename T>
static __device__ __forceinline__ void copy_stage(const ProductMaps &maps, bf16 *stage, uint64_t *barrier, const TilePlace &place, int k0) {
    static_assert((int)DEPTH == (int)TILE_COLUMNS, "a stage's rows are a tile's");
    arrival_expect(barrier, T::STAGE * 2);
    copy_tile(stage, &maps.w, k0, place.w_row, place.w_matrix, barrier);
    copy_tile(stage + T::ROWS * DEPTH, &maps.x, k0, place.x_row, place.x_matrix, barrier);
}

// ---- products --------------------------------------------------------------------------------------------
// One stage: sum[weights' row][token] += w x. `sum` [i][j][4] is laid as an mma's result.
template <typename T> static __device__ __forceinline__ void multiply_stage(bf16 *stage, float (&sum)[T::I][T::J][4]) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int row = warp % T::ROW_WARPS * T::WARP_ROWS, token = warp / T::ROW_WARPS * T::WARP_TOKENS;
    bf16 *w_tile = stage, *x_tile = stage + T::ROWS * DEPTH;
#pragma unroll
    for (int k = 0; k < DEPTH / PIECE; k += 2) {
        uint32_t x[T::J * 2];
#pragma unroll
        for (int j = 0; j + 1 < T::J; j += 2) // two tiles of tokens by one load
            ldmatrix_x4(x + j * 2, piece_of(x_tile, token + j * 8 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2));
        if (T::J % 2) ldmatrix_x2(x + (T::J - 1) * 2, piece_of(x_tile, token + (T::J - 1) * 8 + lane % 8, k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < T::I; i++) {
            uint32_t w[4];
            ldmatrix_x4(w, piece_of(w_tile, row + i * 16 + lane % 16, k + lane / 16));
#pragma unroll
            for (int j = 0; j < T::J; j++) mma_m16n8k16_bf16(sum[i][j], w, x + j * 2);
        }
    }
}

// The same by warpgroups, left under way; the chain begins where `begins`.
template <typename T> static __device__ __forceinline__ void begin_stage(const bf16 *stage, bool begins, float (&sum)[T::J][4]) {
    uint64_t w = wgmma_tile(stage + (int)threadIdx.x / 128 * 64 * DEPTH), x = wgmma_tile(stage + T::ROWS * DEPTH);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DEPTH / 16; k++) wgmma_m64k16_bf16(sum, w + k * WGMMA_STEP, x + k * WGMMA_STEP, !begins || k > 0);
    wgmma_commit();
}

// ---- results ---------------------------------------------------------------------------------------------
// Four neighbouring outputs of token m.
static __device__ __forceinline__ void put_four(const MatmulArgs &a, bool vector, int64_t m, int64_t n, float4 sum) {
    float value[4] = {sum.x, sum.y, sum.z, sum.w};
    int64_t at = m * a.ldy + n;
    int count = a.N - n < 4 ? (int)(a.N - n) : 4;
    if (a.bias)
        for (int i = 0; i < 4; i++)
            if (i < count) value[i] += a.bias[n + i];
    if (a.store == STORE_ACT) {
        bf16 *y = (bf16 *)a.y + at;
        uint32_t low = pack_bf16x2(value[0], value[1]), high = pack_bf16x2(value[2], value[3]);
        if (vector && count == 4) {
            *(uint2 *)y = make_uint2(low, high);
            return;
        }
        for (int i = 0; i < 4; i++)
            if (i < count) y[i] = (bf16)((i < 2 ? low : high) >> (i % 2 * 16));
        return;
    }
    float *y = (float *)a.y + at;
    if (vector && count == 4) {
        float4 old = a.store == ADD_F32 ? *(float4 *)y : make_float4(0, 0, 0, 0);
        if (a.store == ADD_F32) value[0] = old.x + value[0], value[1] = old.y + value[1], value[2] = old.z + value[2], value[3] = old.w + value[3];
        *(float4 *)y = make_float4(value[0], value[1], value[2], value[3]);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (i < count) y[i] = a.store == ADD_F32 ? y[i] + value[i] : value[i];
}

// A warp's sums to out[token * token_stride + row], tokens below `tokens`.
template <typename T>
static __device__ __forceinline__ void put_sums(const float sum[T::I][T::J][4], float *out, int64_t token_stride, int64_t tokens) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int row = warp % T::ROW_WARPS * T::WARP_ROWS + lane / 4, token = warp / T::ROW_WARPS * T::WARP_TOKENS + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < T::I; i++)
#pragma unroll
        for (int j = 0; j < T::J; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int t = token + j * 8 + e % 2, r = row + i * 16 + e / 2 * 8;
                if (t < tokens) out[t * token_stride + r] = sum[i][j][e];
            }
}

// The last of a tile's blocks adds what all of them left in scratch. Its loads stand in order after the others' stores:
// fence, ticket, fence.
template <typename T> static __device__ void finish_tile(const Product &p, unsigned *shared, int64_t n0, int64_t m0) {
    const MatmulArgs &a = p.args;
    unsigned *ticket = p.tickets + (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *shared = atomicAdd(ticket, 1u);
    __syncthreads();
    if (*shared != gridDim.z - 1) return;
    __threadfence();
    for (int e = (int)threadIdx.x * 4; e < T::TOKENS * T::ROWS; e += T::THREADS * 4) {
        int64_t m = m0 + e / T::ROWS, n = n0 + e % T::ROWS, chunk_stride = a.M * p.columns;
        if (m >= a.M || n >= a.N) continue;
        const float *from = p.partial + m * p.columns + n;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
        for (int c = 0; c < p.chunks; c++) {
            float4 chunk = __ldcg((const float4 *)(from + c * chunk_stride));
            sum.x += chunk.x, sum.y += chunk.y, sum.z += chunk.z, sum.w += chunk.w;
        }
        put_four(a, p.vector_y, m, n, sum);
    }
    if (threadIdx.x == 0) *ticket = 0;
}

template <typename T> static __device__ __forceinline__ void put_tile(const Product &p, float *out, int64_t n0, int64_t m0) {
    for (int e = (int)threadIdx.x * 4; e < T::TOKENS * T::ROWS; e += T::THREADS * 4) {
        int token = e / T::ROWS, row = e % T::ROWS;
        if (m0 + token < p.args.M && n0 + row < p.args.N)
            put_four(p.args, p.vector_y, m0 + token, n0 + row, *(const float4 *)(out + token * T::OUT_STRIDE + row));
    }
}

// What this block makes of many products: p becomes that product alone, *m0 its first token. False where there is nothing left.
static __device__ __forceinline__ bool enter_products(Product &p, int tokens, int64_t *m0, TilePlace *place) {
    const Products &all = p.args.products;
    int i = (int)blockIdx.z;
    int64_t first = 0;
    if (all.start) {
        int64_t tile;
        if (!find_product(all.start, all.every, all.count, tokens, blockIdx.y, &i, &tile)) return false;
        const int32_t *rows = all.start + i * all.every;
        first = rows[0];
        *m0 = tile * tokens;
        p.args.M = rows[all.every] - first;
    }
    place->x_row = (int)(*m0 + first), place->w_matrix = i, place->x_matrix = all.x_step ? i : 0;
    MatmulArgs &a = p.args;
    int64_t at = first * a.ldy + i * all.y_step;
    a.x = (const bf16 *)a.x + first * a.ldx + i * all.x_step;
    a.y = a.store == STORE_ACT ? (void *)((bf16 *)a.y + at) : (void *)((float *)a.y + at);
    a.w = (const bf16 *)a.w + i * all.w_step;
    return true;
}

template <typename T, bool MANY> static __device__ __forceinline__ void multiply_tile(Product &p, const ProductMaps *maps) {
    SHARED(unsigned char, shared); // [STAGES] of [ROWS + TOKENS][DEPTH]; after the last product [TOKENS][OUT_STRIDE] floats
    if (T::WGMMA) shared = wgmma_aligned(shared);
    bf16 *stages = (bf16 *)shared;
    uint64_t *barriers = (uint64_t *)(shared + T::USED_BYTES); // [STAGES]
    const int64_t n0 = (int64_t)blockIdx.x * T::ROWS;
    int64_t m0 = (int64_t)blockIdx.y * T::TOKENS;
    TilePlace place = {(int)n0, 0, (int)m0, 0};
    if (MANY && !enter_products(p, T::TOKENS, &m0, &place)) return;
    const int per_chunk = K_CHUNK / DEPTH, all = (int)((p.args.K + DEPTH - 1) / DEPTH);
    const int from = MANY ? 0 : (int)blockIdx.z * p.block_chunks * per_chunk;
    const int to = from + p.block_chunks * per_chunk < all ? from + p.block_chunks * per_chunk : all;
    if (T::COPY_ENGINE) {
        if (threadIdx.x < T::STAGES) arrival_begin(barriers + threadIdx.x, 1);
        __syncthreads();
    }
    for (int s = 0; s < T::AHEAD; s++) {
        if (!T::COPY_ENGINE) {
            if (from + s < to) load_stage<T>(p, stages + s * T::STAGE, n0, m0, (int64_t)(from + s) * DEPTH);
            cp_async_commit();
        } else if (threadIdx.x == 0 && from + s < to) {
            copy_stage<T>(*maps, stages + s * T::STAGE, barriers + s, place, (from + s) * DEPTH);
        }
    }
    float chunk[T::I][T::J][4] = {}, sum[T::I][T::J][4] = {};
    int slot = 0, round = 0;
    auto multiply = [&](int at) { // stage `at`
        if (T::COPY_ENGINE)
            arrival_wait(barriers + slot, round);
        else
            cp_async_wait<T::AHEAD - 1>();
        if (T::WGMMA && !T::COPY_ENGINE) fence_proxy_async();
        __syncthreads(); // the stage is there for all, and the slot AHEAD of it is read by nobody any more
        int ahead = at + T::AHEAD, free_slot = slot + T::AHEAD < T::STAGES ? slot + T::AHEAD : slot + T::AHEAD - T::STAGES;
        if (!T::COPY_ENGINE) {
            if (ahead < to) load_stage<T>(p, stages + free_slot * T::STAGE, n0, m0, (int64_t)ahead * DEPTH);
            cp_async_commit();
        } else {
            if (threadIdx.x == 0 && ahead < to) copy_stage<T>(*maps, stages + free_slot * T::STAGE, barriers + free_slot, place, ahead * DEPTH);
            __syncwarp();
        }
        if constexpr (T::WGMMA) {
            begin_stage<T>(stages + slot * T::STAGE, at % per_chunk == 0, chunk[0]);
            wgmma_wait<1>(chunk[0]); // the stage before is done
        } else {
            multiply_stage<T>(stages + slot * T::STAGE, chunk);
        }
        if (++slot == T::STAGES) slot = 0, round ^= 1;
    };
    auto end_chunk = [&](int at) { // whose last stage is `at`
        if (!MANY && T::SHARED_OUT && p.partial) {
            float *out = p.partial + ((int64_t)(at / per_chunk) * p.args.M + m0) * p.columns + n0;
            put_sums<T>(chunk, out, p.columns, p.args.M - m0);
        }
#pragma unroll
        for (int i = 0; i < T::I; i++)
#pragma unroll
            for (int j = 0; j < T::J; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) sum[i][j][e] += chunk[i][j][e], chunk[i][j][e] = 0.0f;
    };
    if constexpr (T::WGMMA) { // a loop for each chunk: one that touches sums between products would have them wait for each other
        for (int at = from; at < to;) {
            do multiply(at++);
            while (at < to && at % per_chunk != 0);
            wgmma_wait<0>(chunk[0]);
            end_chunk(at - 1);
        }
    } else {
        for (int at = from; at < to; at++) {
            multiply(at);
            if ((at + 1) % per_chunk == 0 || at + 1 == to) end_chunk(at);
        }
    }
    if (!T::COPY_ENGINE) cp_async_wait<0>();
    __syncthreads(); // the stages' memory changes its use
    if (!MANY && T::SHARED_OUT && p.partial) {
        finish_tile<T>(p, (unsigned *)shared, n0, m0);
        return;
    }
    put_sums<T>(sum, (float *)shared, T::OUT_STRIDE, T::TOKENS);
    __syncthreads();
    put_tile<T>(p, (float *)shared, n0, m0);
}
template <typename T, bool MANY> static __global__ void __launch_bounds__(T::THREADS) matmul_kernel(Product p) {
    if (!T::WGMMA || HAS_WGMMA) multiply_tile<T, MANY>(p, NULL);
}
template <typename T, bool MANY>
static __global__ void __launch_bounds__(T::THREADS) matmul_copied_kernel(const __grid_constant__ ProductMaps maps, Product p) {
    if (HAS_WGMMA) multiply_tile<T, MANY>(p, &maps);
}

// ---- the choice of a shape -------------------------------------------------------------------------------
typedef struct Shape {
    void (*kernel)(Product), (*many)(Product); // NULL where the copy engine brings the stages
    void (*copied)(ProductMaps, Product), (*many_copied)(ProductMaps, Product);
    int rows, tokens, threads;
    size_t shared_bytes;
    bool vector_x, wgmma, shared_out;
    float rate; // products per cycle of a multiprocessor, of the largest shape's, where tensor cores are the limit
} Shape;
template <typename T> static constexpr Shape shape_of(float rate) {
    Shape s = {NULL, NULL, NULL, NULL, T::ROWS, T::TOKENS, T::THREADS, T::SHARED_BYTES, T::VECTOR_X, T::WGMMA, T::SHARED_OUT, rate};
    if constexpr (T::COPY_ENGINE)
        s.copied = matmul_copied_kernel<T, false>, s.many_copied = matmul_copied_kernel<T, true>;
    else
        s.kernel = matmul_kernel<T, false>, s.many = matmul_kernel<T, true>;
    return s;
}
static const Shape shapes[] = {
    shape_of<ProductTile<64, 8, 4, 1, 6>>(0.1f),          shape_of<ProductTile<64, 16, 4, 1, 6>>(0.2f),
    shape_of<ProductTile<64, 32, 4, 1, 4>>(0.35f),        shape_of<ProductTile<64, 64, 2, 2, 4>>(0.55f),
    shape_of<ProductTile<128, 64, 2, 2, 4>>(0.7f),        shape_of<ProductTile<128, 192, 2, 4, 4>>(1.0f),
    shape_of<ProductTile<64, 64, 2, 2, 4, false>>(0.3f), // whatever isn't aligned
    shape_of<WarpgroupTile<64, 8, 7>>(0.1f),              shape_of<WarpgroupTile<64, 16, 7>>(0.2f),
    shape_of<WarpgroupTile<64, 32, 6>>(0.35f),            shape_of<WarpgroupTile<64, 64, 6>>(0.55f),
    shape_of<WarpgroupTile<128, 64, 4>>(0.7f),            shape_of<WarpgroupTile<128, 192, 5>>(1.0f),
    shape_of<WarpgroupTile<64, 64, 5, false>>(0.3f),
};
enum { STREAMED = 64 }; // tokens up to which one tile takes all of them, and w is read once

// What a block may have of shared memory.
static size_t shared_limit(int capability) {
    if (capability == 80 || capability == 87) return 163 * 1024;
    return capability == 90 || capability == 100 || capability == 103 ? 227 * 1024 : 99 * 1024;
}
static int64_t tiles_of(const Shape *s, const MatmulArgs *a) {
    return (int64_t)ceil_div(a->N, s->rows) * ceil_div(a->M, s->tokens);
}
static bool is_aligned(const void *p, size_t bytes) { return (uintptr_t)p % bytes == 0; }

// Few tokens: the smallest tile that has them all. Otherwise the shape whose rounds over all multiprocessors take least.
static const Shape *choose(const CudaContext *context, const MatmulArgs *a) {
    bool vector_x = a->K % PIECE == 0 && a->ldx % PIECE == 0 && a->products.x_step % PIECE == 0 && is_aligned(a->x, 16);
    const Shape *best = NULL;
    double best_time = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const Shape *s = &shapes[i];
        if (s->vector_x != vector_x || s->wgmma != context->wgmma || s->shared_bytes > shared_limit(context->capability)) continue;
        if (a->M <= STREAMED) {
            if (a->M <= s->tokens) return s;
            continue;
        }
        double time = (double)ceil_div(tiles_of(s, a), context->multiprocessors) * s->rows * s->tokens / s->rate;
        if (best && time >= best_time) continue;
        best = s, best_time = time;
    }
    return best;
}

// Blocks that share one tile's chunks: enough for two per multiprocessor, where tiles alone wouldn't give every
// multiprocessor one (with many tokens: every second).
static int split_of(const CudaContext *context, const MatmulArgs *a, int64_t tiles, int64_t columns, int chunks) {
    int64_t enough = a->M <= STREAMED ? (int64_t)context->multiprocessors * 3 / 4 : context->multiprocessors / 2;
    if (tiles >= enough || tiles > CUDA_TICKETS) return 1;
    if ((double)chunks * (double)a->M * (double)columns * sizeof(float) > (double)context->scratch_bytes) return 1;
    int64_t split = ceil_div(2 * context->multiprocessors, tiles);
    return (int)(split < chunks ? split : chunks);
}

static bool maps_of(const CudaContext *context, const MatmulArgs *a, const Shape *shape, ProductMaps *maps) {
    const Products *all = &a->products;
    int64_t count = all->count ? all->count : 1;
    TensorMapArgs w = {a->w, packed_stride(a->K), (a->N + PANEL - 1) / PANEL * PANEL, count, packed_stride(a->K), all->w_step, shape->rows};
    TensorMapArgs x = {a->x, a->K, a->M, all->x_step ? count : 1, a->ldx, all->x_step, shape->tokens};
    return tensor_map(context, &w, &maps->w) && tensor_map(context, &x, &maps->x);
}
static void launch(const CudaContext *context, const Product &p, const Shape *shape, dim3 grid) {
    dim3 block((unsigned)shape->threads);
    bool many = p.args.products.count != 0;
    if (!shape->copied) {
        void (*kernel)(Product) = many ? shape->many : shape->kernel;
        allow_shared(kernel, shape->shared_bytes);
        LAUNCH(context->stream, kernel, grid, block, shape->shared_bytes, p);
        return;
    }
    ProductMaps maps;
    void (*kernel)(ProductMaps, Product) = many ? shape->many_copied : shape->copied;
    if (!maps_of(context, &p.args, shape, &maps)) grid = dim3(0, 1, 1); // the launch fails, which finish() tells
    allow_shared(kernel, shape->shared_bytes);
    LAUNCH(context->stream, kernel, grid, block, shape->shared_bytes, maps, p);
}

static void product_bf16(const CudaContext *context, const MatmulArgs *a) {
    const Shape *shape = choose(context, a);
    Product p = {};
    p.args = *a;
    p.vector_y = a->ldy % 4 == 0 && is_aligned(a->y, a->store == STORE_ACT ? 8 : 16);
    p.chunks = (int)ceil_div(a->K, K_CHUNK);
    p.columns = (int64_t)ceil_div(a->N, shape->rows) * shape->rows;
    int split = shape->shared_out ? split_of(context, a, tiles_of(shape, a), p.columns, p.chunks) : 1;
    p.block_chunks = split > 1 ? (int)ceil_div(p.chunks, split) : p.chunks;
    if (p.block_chunks < p.chunks) {
        p.partial = (float *)context->scratch;
        p.tickets = context->tickets;
    }
    unsigned runs = p.partial ? ceil_div(p.chunks, p.block_chunks) : 1;
    launch(context, p, shape, dim3(ceil_div(a->N, shape->rows), ceil_div(a->M, shape->tokens), runs));
}

// Chunks aren't shared out: products are many tiles already. The shape is chosen for the mean number of rows.
static void products_bf16(const CudaContext *context, const MatmulArgs *a) {
    const Products *all = &a->products;
    MatmulArgs mean = *a;
    if (all->start) mean.M = (a->M + all->count - 1) / all->count;
    const Shape *shape = choose(context, &mean);
    Product p = {};
    p.args = *a;
    p.vector_y = a->ldy % 4 == 0 && all->y_step % 4 == 0 && is_aligned(a->y, a->store == STORE_ACT ? 8 : 16);
    p.chunks = p.block_chunks = (int)ceil_div(a->K, K_CHUNK);
    p.columns = (int64_t)ceil_div(a->N, shape->rows) * shape->rows;
    unsigned tiles = ceil_div(a->M, shape->tokens) + (all->start ? (unsigned)all->count : 0);
    launch(context, p, shape, dim3(ceil_div(a->N, shape->rows), tiles, all->start ? 1 : (unsigned)all->count));
}

// ---- weights in blocks -----------------------------------------------------------------------------------
// Decoded into the caller's scratch in the packed form, then multiplied as any other: a thread decodes one group of 32.
// Grid: rows of the blocks (padded as the packed form is) times groups, 256 a block.
static __global__ void decode_kernel(MatmulArgs a, int64_t rows, int64_t rows_padded, int64_t columns) {
    int64_t groups = columns / 32, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = at / groups, group = at % groups;
    int64_t stride = packed_stride(a.K);
    if (row >= rows_padded) return;
    float values[32];
    for (int i = 0; i < 32; i++) values[i] = 0;
    if (row < rows) block_group(a.format, (const uint8_t *)a.w + interleaved_row(row, a.interleaved) * blocks_row_bytes(a.format, columns), group, values);
    for (int i = 0; i < 32; i++) {
        int64_t to = a.transposed ? (32 * group + i) * stride + row : row * stride + 32 * group + i;
        if (a.dtype == DTYPE_F32) ((float *)a.scratch)[to] = values[i];
        else ((bf16 *)a.scratch)[to] = to_bf16(values[i]);
    }
}
void decode_blocks(const Device *device, const MatmulArgs *args) {
    int64_t rows = args->transposed ? args->K : args->N, columns = args->transposed ? args->N : args->K;
    int64_t padded = args->transposed ? packed_stride(rows) : ceil_div(rows, PANEL) * PANEL;
    LAUNCH(cuda_context(device)->stream, decode_kernel, dim3((unsigned)ceil_div(padded * (columns / 32), 256)), dim3(256), 0, *args, rows,
           padded, columns);
}
// Of a matrix packed the other way round the same is done.
static void product_of_scratch(const Device *device, const MatmulArgs *args) {
    bool packed = args->format == WEIGHT_PACKED;
    MatmulArgs plain = *args;
    int64_t each = packed_elements(args->N, args->K);
    int many = args->products.count ? args->products.count : 1;
    for (int i = 0; i < many; i++) {
        MatmulArgs one = *args;
        one.w = (const char *)args->w + i * args->products.w_step * (packed ? (int64_t)dtype_size(args->dtype) : 1);
        one.scratch = (char *)args->scratch + (size_t)(i * each) * dtype_size(args->dtype);
        if (packed) turn_packed(device, &one);
        else decode_blocks(device, &one);
    }
    plain.w = args->scratch, plain.format = WEIGHT_PACKED, plain.transposed = false, plain.products.w_step = each;
    matmul_cuda(device, &plain);
}

extern "C" void matmul_cuda(const Device *device, const MatmulArgs *args) {
    const CudaContext *context = cuda_context(device);
    if (args->M == 0 || args->N == 0) return;
    if (args->format != WEIGHT_PACKED || args->transposed) {
        product_of_scratch(device, args);
        return;
    }
    if (args->dtype == DTYPE_BF16) {
        if (args->products.count)
            products_bf16(context, args);
        else if (!context->free_algorithms || !cublas_product(context, args))
            product_bf16(context, args);
        return;
    }
    ChainArgs chain = {};
    chain.products = args->products.count, chain.product_start = args->products.start, chain.every = args->products.every;
    chain.a_step = args->products.x_step, chain.b_step = args->products.w_step, chain.y_step = args->products.y_step;
    chain.rows = args->M, chain.columns = args->N, chain.depth = args->K;
    chain.a = (const float *)args->x, chain.a_row = args->ldx, chain.a_depth = 1;
    chain.b = (const float *)args->w, chain.b_row = packed_stride(args->K), chain.b_depth = 1;
    chain.bias = args->bias, chain.add = args->store == ADD_F32;
    chain.y = (float *)args->y, chain.ldy = args->ldy;
    chain_product(context, &chain);
}
