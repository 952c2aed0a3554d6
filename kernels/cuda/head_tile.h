// What head.cu, distill.cu and draw.cu share: the product of a tile of rows with one block of 256 of the vocabulary, left in registers and
// handed over through shared memory, and what makes a logit of it. head.cu says why it is built so.
#ifndef RECKON_HEAD_TILE_H
#define RECKON_HEAD_TILE_H
#include "vocabulary.h"

enum { THREADS = 256, WARPS = THREADS / 32, ROW_BYTES = 64, PARTS = ROW_BYTES / 16 };
enum { OUT_STRIDE = VOCAB_BLOCK + 4 }; // of a token's logits in shared memory: writes by columns meet in no bank

// What a product is made of: rows x [M, C] and vocabulary w [V, C].
typedef struct HeadSide {
    const unsigned char *x, *w;
    int64_t M, V, x_bytes, w_bytes; // bytes of a row
    bool whole_parts;               // rows of x begin and end at multiples of 16 bytes
} HeadSide;
// Weights in blocks are decoded into the caller's scratch first; where that was done, this is how they are read.
static inline HeadArgs head_as_decoded(const HeadArgs &given) {
    HeadArgs a = given;
    if (a.format != WEIGHT_PACKED) a.w = a.blocks, a.format = WEIGHT_PACKED;
    return a;
}
static inline HeadArgs head_decoded(const Device *device, const HeadArgs &given) {
    MatmulArgs blocks = {};
    blocks.N = given.V, blocks.K = given.C, blocks.dtype = given.dtype, blocks.w = given.w, blocks.format = given.format, blocks.scratch = given.blocks;
    if (given.format != WEIGHT_PACKED) decode_blocks(device, &blocks);
    return head_as_decoded(given);
}
static inline HeadSide head_side(const HeadArgs &a) {
    int64_t size = (int64_t)dtype_size(a.dtype);
    HeadSide s = {(const unsigned char *)a.x, (const unsigned char *)a.w, a.M, a.V, a.C * size, packed_stride(a.C) * size, false};
    s.whole_parts = s.x_bytes % 16 == 0 && (uintptr_t)a.x % 16 == 0;
    return s;
}

static __device__ __forceinline__ int part_offset(int row, int part) { return row * ROW_BYTES + ((part ^ (row / 2 % PARTS)) * 16); }

// ---- products --------------------------------------------------------------------------------------------
// A product holds the sums of [256, TOKENS] in registers. Its stage in shared memory: 256 rows of weights, then TOKENS
// rows of x. It hands the result over in GROUPS parts of TOKENS / GROUPS tokens. Of its STAGES, AHEAD are under way.

// Warps lie 8 by 1, or 4 by 2 over wide tiles; each has ROWS x 16 entries by TILES x 8 tokens.
template <int N, int PER_MULTIPROCESSOR> struct HalfProduct {
    typedef bf16 Element;
    static constexpr bool BY_WARPGROUP = false;
    static constexpr int TOKENS = N, GROUPS = N >= 64 ? 2 : 1, RESIDENT = PER_MULTIPROCESSOR, STAGES = 4, AHEAD = STAGES - 1;
    static constexpr int ROWS = VOCAB_BLOCK / (WARPS / GROUPS) / 16, TILES = N / GROUPS / 8;
    float chunk[ROWS][TILES][4], total[ROWS][TILES][4];

    __device__ __forceinline__ void clear(void) {
        for (int r = 0; r < ROWS; r++)
            for (int t = 0; t < TILES; t++)
                for (int i = 0; i < 4; i++) chunk[r][t][i] = total[r][t][i] = 0;
    }
    __device__ __forceinline__ void end_chunk(void) {
        for (int r = 0; r < ROWS; r++)
            for (int t = 0; t < TILES; t++)
                for (int i = 0; i < 4; i++) total[r][t][i] += chunk[r][t][i], chunk[r][t][i] = 0;
    }
    static __device__ __forceinline__ int first_row(void) { return (int)threadIdx.x / 32 / GROUPS * ROWS * 16; }
    static __device__ __forceinline__ int group(void) { return (int)threadIdx.x / 32 % GROUPS; }

    __device__ __forceinline__ void multiply(const unsigned char *stage, bool) {
        int lane = (int)threadIdx.x % 32, token = VOCAB_BLOCK + group() * TILES * 8 + lane % 8;
#pragma unroll
        for (int part = 0; part < PARTS; part += 2) {
            uint32_t w[ROWS][4], x[TILES][2];
#pragma unroll
            for (int r = 0; r < ROWS; r++) ldmatrix_x4(w[r], stage + part_offset(first_row() + r * 16 + lane % 16, part + lane / 16));
            if constexpr (TILES == 1) {
                ldmatrix_x2(x[0], stage + part_offset(token, part + lane / 8 % 2));
            } else {
#pragma unroll
                for (int t = 0; t < TILES; t += 2) {
                    uint32_t two[4];
                    ldmatrix_x4(two, stage + part_offset(token + (t + lane / 16) * 8, part + lane / 8 % 2));
                    x[t][0] = two[0], x[t][1] = two[1], x[t + 1][0] = two[2], x[t + 1][1] = two[3];
                }
            }
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int r = 0; r < ROWS; r++) mma_m16n8k16_bf16(chunk[r][t], w[r], x[t]);
        }
    }
    // out [TOKENS / GROUPS][OUT_STRIDE]
    __device__ __forceinline__ void hand_over(float *out, int wanted_group) const {
        if (group() != wanted_group) return;
        int lane = (int)threadIdx.x % 32;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[(t * 8 + lane % 4 * 2 + i % 2) * OUT_STRIDE + first_row() + r * 16 + i / 2 * 8 + lane / 4] = total[r][t][i];
    }
};

// The same by wgmma (ptx_hopper.h), which a device has for all its products or for none (CudaContext.wgmma): a warpgroup has 128
// entries, in two halves of 64. A stage's products run on while the next is waited for.
template <int N, int PER_MULTIPROCESSOR> struct WarpgroupProduct {
    typedef bf16 Element;
    static constexpr bool BY_WARPGROUP = true;
    static constexpr int TOKENS = N, GROUPS = N >= 64 ? 2 : 1, RESIDENT = PER_MULTIPROCESSOR, STAGES = 5, AHEAD = STAGES - 2;
    static constexpr int HALVES = 2, TILES = N / 8;
    float chunk[HALVES][TILES][4], total[HALVES][TILES][4];

    __device__ __forceinline__ void clear(void) {
        for (int h = 0; h < HALVES; h++)
            for (int t = 0; t < TILES; t++)
                for (int i = 0; i < 4; i++) chunk[h][t][i] = total[h][t][i] = 0;
    }
    __device__ __forceinline__ void end_chunk(void) {
        wgmma_wait<0>(chunk[0], chunk[1]);
        for (int h = 0; h < HALVES; h++)
            for (int t = 0; t < TILES; t++)
                for (int i = 0; i < 4; i++) total[h][t][i] += chunk[h][t][i];
    }
    __device__ __forceinline__ void multiply(const unsigned char *stage, bool begins) {
        const unsigned char *rows = stage + (int)threadIdx.x / 128 * 128 * ROW_BYTES;
        uint64_t low = wgmma_narrow_tile(rows), high = wgmma_narrow_tile(rows + 64 * ROW_BYTES), x = wgmma_narrow_tile(stage + VOCAB_BLOCK * ROW_BYTES);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < PARTS / 2; k++) {
            wgmma_m64k16_bf16(chunk[0], low + k * WGMMA_STEP, x + k * WGMMA_STEP, !begins || k > 0);
            wgmma_m64k16_bf16(chunk[1], high + k * WGMMA_STEP, x + k * WGMMA_STEP, !begins || k > 0);
        }
        wgmma_commit();
        wgmma_wait<1>(chunk[0], chunk[1]); // the stage before is done
    }
    // out [TOKENS / GROUPS][OUT_STRIDE]
    __device__ __forceinline__ void hand_over(float *out, int group) const {
        int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 128 * 128 + (int)threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
        for (int h = 0; h < HALVES; h++)
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (t / (TILES / GROUPS) == group)
                        out[(t % (TILES / GROUPS) * 8 + lane % 4 * 2 + i % 2) * OUT_STRIDE + h * 64 + row + i / 2 * 8] = total[h][t][i];
    }
};

// A warp has 4 tokens, a lane 8 entries of each.
struct FloatProduct {
    typedef float Element;
    static constexpr bool BY_WARPGROUP = false;
    static constexpr int TOKENS = 32, GROUPS = 1, RESIDENT = 2, EACH = TOKENS / WARPS, STAGES = 4, AHEAD = STAGES - 1;
    float chunk[COLUMNS][EACH], total[COLUMNS][EACH];

    __device__ __forceinline__ void clear(void) {
        for (int c = 0; c < COLUMNS; c++)
            for (int t = 0; t < EACH; t++) chunk[c][t] = total[c][t] = 0;
    }
    __device__ __forceinline__ void end_chunk(void) {
        for (int c = 0; c < COLUMNS; c++)
            for (int t = 0; t < EACH; t++) total[c][t] += chunk[c][t], chunk[c][t] = 0;
    }
    __device__ __forceinline__ void multiply(const unsigned char *stage, bool) {
        int lane = (int)threadIdx.x % 32, token = VOCAB_BLOCK + (int)threadIdx.x / 32 * EACH;
#pragma unroll 1 // more would spill
        for (int part = 0; part < PARTS; part++) {
            float4 x[EACH];
#pragma unroll
            for (int t = 0; t < EACH; t++) x[t] = *(const float4 *)(stage + part_offset(token + t, part));
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float4 w = *(const float4 *)(stage + part_offset(lane + 32 * c, part));
#pragma unroll
                for (int t = 0; t < EACH; t++)
                    chunk[c][t] = fmaf(w.w, x[t].w, fmaf(w.z, x[t].z, fmaf(w.y, x[t].y, fmaf(w.x, x[t].x, chunk[c][t]))));
            }
        }
    }
    __device__ __forceinline__ void hand_over(float *out, int) const {
        int lane = (int)threadIdx.x % 32, token = (int)threadIdx.x / 32 * EACH;
#pragma unroll
        for (int t = 0; t < EACH; t++)
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) out[(token + t) * OUT_STRIDE + lane + 32 * c] = total[c][t];
    }
};

// ---- loads -----------------------------------------------------------------------------------------------
// 16 bytes of a row of x, its elements one by one; zero beyond the row.
template <class T> static __device__ uint4 gathered(const unsigned char *row, int64_t at, int64_t row_bytes) {
    T part[16 / sizeof(T)];
    for (int i = 0; i < (int)(16 / sizeof(T)); i++)
        part[i] = at + i * (int64_t)sizeof(T) < row_bytes ? ((const T *)(row + at))[i] : (T)0;
    uint4 packed;
    memcpy(&packed, part, sizeof packed);
    return packed;
}

template <class Product> struct HeadStage {
    static constexpr int BYTES = (VOCAB_BLOCK + Product::TOKENS) * ROW_BYTES, ALL_BYTES = Product::STAGES * BYTES;
    static constexpr int SHARED_BYTES = ALL_BYTES + (Product::BY_WARPGROUP ? WGMMA_ALIGNMENT : 0); // of the launch
    // Where they begin in the launch's shared memory.
    static __device__ __forceinline__ unsigned char *place(unsigned char *shared) {
        return Product::BY_WARPGROUP ? wgmma_aligned(shared) : shared;
    }
};

// Bytes [at, at + 64) of 256 rows of weights from v0 on, and of the tile's tokens from m0 on; zeros beyond vocabulary, M and rows.
template <class Product> static __device__ __forceinline__ void load_stage(const HeadSide &t, int64_t m0, int64_t v0, unsigned char *stage, int64_t at) {
    int part = (int)threadIdx.x % PARTS;
    at += part * 16;
#pragma unroll
    for (int row = (int)threadIdx.x / PARTS; row < VOCAB_BLOCK; row += THREADS / PARTS) {
        int64_t v = v0 + row;
        bool valid = v < t.V && at < t.w_bytes;
        cp_async_16(stage + part_offset(row, part), valid ? t.w + v * t.w_bytes + at : t.w, valid);
    }
    for (int row = (int)threadIdx.x / PARTS; row < Product::TOKENS; row += THREADS / PARTS) {
        int64_t m = m0 + row;
        bool valid = m < t.M && at < t.x_bytes;
        unsigned char *to = stage + part_offset(VOCAB_BLOCK + row, part);
        if (t.whole_parts)
            cp_async_16(to, valid ? t.x + m * t.x_bytes + at : t.x, valid);
        else
            *(uint4 *)to = gathered<typename Product::Element>(t.x + m * t.x_bytes, at, valid ? t.x_bytes : 0);
    }
}

// The whole sum over C.
template <class Product> static __device__ __forceinline__ void walk(const HeadSide &t, int64_t m0, int64_t v0, unsigned char *stages, Product &product) {
    const int64_t steps = (t.w_bytes + ROW_BYTES - 1) / ROW_BYTES;
    constexpr int chunk_steps = K_CHUNK * (int)sizeof(typename Product::Element) / ROW_BYTES;
    for (int s = 0; s < Product::AHEAD; s++) {
        if (s < steps) load_stage<Product>(t, m0, v0, stages + s * HeadStage<Product>::BYTES, (int64_t)s * ROW_BYTES);
        cp_async_commit();
    }
    auto multiply = [&](int64_t step) {
        cp_async_wait<Product::AHEAD - 1>();
        if (Product::BY_WARPGROUP) fence_proxy_async();
        __syncthreads(); // the stage has come, and all have left the one that is filled next
        int64_t next = step + Product::AHEAD;
        if (next < steps) load_stage<Product>(t, m0, v0, stages + (int)(next % Product::STAGES) * HeadStage<Product>::BYTES, next * ROW_BYTES);
        cp_async_commit();
        product.multiply(stages + (int)(step % Product::STAGES) * HeadStage<Product>::BYTES, step % chunk_steps == 0);
    };
    if constexpr (Product::BY_WARPGROUP) { // a loop for each chunk, as in matmul.cu
        for (int64_t step = 0; step < steps; product.end_chunk()) {
            do multiply(step++);
            while (step < steps && step % chunk_steps != 0);
        }
    } else {
        for (int64_t step = 0; step < steps; step++) {
            multiply(step);
            if ((step + 1) % chunk_steps == 0 || step + 1 == steps) product.end_chunk();
        }
    }
    cp_async_wait<0>();
}

// ---- logits ----------------------------------------------------------------------------------------------
// Cephes' tanhf, as the slow twin has it.
static __device__ __forceinline__ float tanh_of(float x) {
    float size = x < 0 ? -x : x, z = x * x;
    if (size >= 0.625f) {
        float y = 1.0f - 2.0f / (exp_of_logit(size + size < 80.0f ? size + size : 80.0f) + 1.0f);
        return x < 0 ? -y : y;
    }
    float p = fmaf(-5.70498872745e-3f, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    return fmaf(p * z, x, x);
}
// A product as a logit, capped where there is a cap; tanh in *capped.
static __device__ __forceinline__ float logit_of(const HeadArgs &a, float x, float *capped) {
    *capped = 0;
    if (a.softcap == 0) return x;
    *capped = tanh_of(x / a.softcap);
    return a.softcap * *capped;
}

#endif
