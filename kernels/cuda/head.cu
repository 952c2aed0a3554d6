// The head: logits of a tile of rows and one block of 256 of the vocabulary, and what follows from them while they lie in
// shared memory: statistics of the block, the target's logit, the logits themselves where they are wanted, or their
// gradient. [M, V'] exists in memory only where the caller gave it.
//
// tile_kernel: grid (tiles of rows, blocks of the vocabulary), 256 threads. Tiles of rows lie along x, so blocks that run
// at the same time share their weights in L2 and these come from memory once; the rows fit in L2 anyhow.
//   Loads: rows of 64 bytes (32 bf16 or 16 fp32) of 256 vocabulary entries and of the tile's tokens, four stages of
//     cp.async. The 16-byte parts of a row are swizzled by row / 2, so that neither ldmatrix nor fp32's float4 reads meet
//     in a bank. Rows of x that aren't multiples of 16 bytes are copied element by element, into the same places.
//   bf16: mma.m16n8k16 with the vocabulary on the side of 16 and tokens on the side of 8, in all tiles, so that the bits
//     of a logit can't depend on the tile. Few rows make narrow tiles (8, 32): then the weights are streamed at the speed
//     of memory, with 50 to 200 KiB under way per multiprocessor. Many rows make tiles of 64 or 96: with the chunk's sums
//     and the totals, 96 tokens are what 255 registers hold, and each weight read from L2 serves 96 products.
//   fp32: 8 entries by 4 tokens per thread, fused multiply-adds; tiles of 32 tokens.
//   Kept sets become a bitmap in shared memory before the product; a tile without any kept entry skips the product.
// merge_kernel: a warp per row merges the blocks (vocabulary.h).
//
// Sums: each logit is a chain per K_CHUNK, the chunks added in order, as cuda.h says, then one multiplication by the
// inverse temperature. head and head_grad run the same code up to there, for sampling and training alike.
// dlogits must be aligned to 16 bytes, which all memory of a device is.
#include "vocabulary.h"

enum { THREADS = 256, WARPS = THREADS / 32, STAGES = 4, ROW_BYTES = 64, PARTS = ROW_BYTES / 16 };
enum { OUT_STRIDE = VOCAB_BLOCK + 4 }; // of a token's logits in shared memory: writes by columns meet in no bank

typedef struct HeadTileArgs {
    HeadGradArgs grad;      // `forward` alone where no gradient is wanted
    int64_t x_bytes, w_bytes; // of a row
    bool whole_parts;       // rows of x begin and end at multiples of 16 bytes
} HeadTileArgs;

static __device__ __forceinline__ int part_offset(int row, int part) { return row * ROW_BYTES + ((part ^ (row / 2 % PARTS)) * 16); }

// ---- products --------------------------------------------------------------------------------------------
// A product holds the sums of [256, TOKENS] in registers. Its stage in shared memory: 256 rows of weights, then TOKENS
// rows of x. It hands the result over in GROUPS parts of TOKENS / GROUPS tokens.

// Warps lie 8 by 1, or 4 by 2 over wide tiles; each has ROWS x 16 entries by TILES x 8 tokens.
template <int N, int PER_MULTIPROCESSOR> struct HalfProduct {
    typedef bf16 Element;
    static constexpr int TOKENS = N, GROUPS = N >= 64 ? 2 : 1, RESIDENT = PER_MULTIPROCESSOR;
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

    __device__ __forceinline__ void multiply(const unsigned char *stage) {
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

// A warp has 4 tokens, a lane 8 entries of each.
struct FloatProduct {
    typedef float Element;
    static constexpr int TOKENS = 32, GROUPS = 1, RESIDENT = 2, EACH = TOKENS / WARPS;
    float chunk[COLUMNS][EACH], total[COLUMNS][EACH];

    __device__ __forceinline__ void clear(void) {
        for (int c = 0; c < COLUMNS; c++)
            for (int t = 0; t < EACH; t++) chunk[c][t] = total[c][t] = 0;
    }
    __device__ __forceinline__ void end_chunk(void) {
        for (int c = 0; c < COLUMNS; c++)
            for (int t = 0; t < EACH; t++) total[c][t] += chunk[c][t], chunk[c][t] = 0;
    }
    __device__ __forceinline__ void multiply(const unsigned char *stage) {
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
    static constexpr int BYTES = (VOCAB_BLOCK + Product::TOKENS) * ROW_BYTES;
};

// Bytes [at, at + 64) of the block's rows of weights and of the tile's tokens; zeros beyond vocabulary, M and rows.
template <class Product> static __device__ __forceinline__ void load_stage(const HeadTileArgs &t, unsigned char *stage, int64_t at) {
    const HeadArgs &a = t.grad.forward;
    const unsigned char *w = (const unsigned char *)a.w, *x = (const unsigned char *)a.x;
    int part = (int)threadIdx.x % PARTS;
    at += part * 16;
#pragma unroll
    for (int row = (int)threadIdx.x / PARTS; row < VOCAB_BLOCK; row += THREADS / PARTS) {
        int64_t v = (int64_t)blockIdx.y * VOCAB_BLOCK + row;
        bool valid = v < a.V && at < t.w_bytes;
        cp_async_16(stage + part_offset(row, part), valid ? w + v * t.w_bytes + at : w, valid);
    }
    for (int row = (int)threadIdx.x / PARTS; row < Product::TOKENS; row += THREADS / PARTS) {
        int64_t m = (int64_t)blockIdx.x * Product::TOKENS + row;
        bool valid = m < a.M && at < t.x_bytes;
        unsigned char *to = stage + part_offset(VOCAB_BLOCK + row, part);
        if (t.whole_parts)
            cp_async_16(to, valid ? x + m * t.x_bytes + at : x, valid);
        else
            *(uint4 *)to = gathered<typename Product::Element>(x + m * t.x_bytes, at, valid ? t.x_bytes : 0);
    }
}

// The whole sum over C.
template <class Product> static __device__ __forceinline__ void walk(const HeadTileArgs &t, unsigned char *stages, Product &product) {
    const int64_t steps = (t.w_bytes + ROW_BYTES - 1) / ROW_BYTES;
    const int chunk_steps = K_CHUNK * (int)sizeof(typename Product::Element) / ROW_BYTES;
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load_stage<Product>(t, stages + s * HeadStage<Product>::BYTES, (int64_t)s * ROW_BYTES);
        cp_async_commit();
    }
    for (int64_t step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); // the stage has come, and all have left the one that is filled next
        int64_t next = step + STAGES - 1;
        if (next < steps) load_stage<Product>(t, stages + (int)(next % STAGES) * HeadStage<Product>::BYTES, next * ROW_BYTES);
        cp_async_commit();
        product.multiply(stages + (int)(step % STAGES) * HeadStage<Product>::BYTES);
        if ((step + 1) % chunk_steps == 0 || step + 1 == steps) product.end_chunk();
    }
    cp_async_wait<0>();
}

// ---- kept sets -------------------------------------------------------------------------------------------
// keep [TOKENS][8]: a bit per entry of the block; first [TOKENS] is scratch. False where no row keeps anything here.
template <class Product> static __device__ bool mark_kept(const HeadArgs &a, uint32_t *keep, int32_t *first) {
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK, end_v = v0 + VOCAB_BLOCK;
    bool any = false;
    for (int i = (int)threadIdx.x; i < Product::TOKENS * 8; i += THREADS) keep[i] = 0;
    for (int r = (int)threadIdx.x; r < Product::TOKENS; r += THREADS) {
        int64_t m = (int64_t)blockIdx.x * Product::TOKENS + r;
        first[r] = -1;
        if (m >= a.M) continue;
        const int32_t *kept = a.kept + a.kept_start[m];
        int64_t count = a.kept_start[m + 1] - a.kept_start[m], low = 0, high = count;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (kept[middle] < v0)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < count && kept[low] < end_v) first[r] = (int32_t)low, any = true;
    }
    if (!__syncthreads_or(any)) return false;
    for (int r = (int)threadIdx.x / 32; r < Product::TOKENS; r += WARPS) {
        if (first[r] < 0) continue;
        int64_t m = (int64_t)blockIdx.x * Product::TOKENS + r, end = a.kept_start[m + 1];
        for (int64_t i = a.kept_start[m] + first[r] + threadIdx.x % 32;; i += 32) {
            bool inside = i < end && a.kept[i] < end_v;
            int column = inside ? (int)(a.kept[i] - v0) : 0;
            if (inside) atomicOr(&keep[r * 8 + column / 32], 1u << column % 32);
            if (!__all_sync(0xffffffffu, inside)) break;
        }
    }
    __syncthreads();
    return true;
}

// ---- what becomes of a row -------------------------------------------------------------------------------
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

// row [256]: products of row m with the block's entries; keep [8], or NULL: all. By one warp.
static __device__ __forceinline__ void finish_row(const HeadArgs &a, int64_t m, const float *row, const uint32_t *keep) {
    int lane = (int)threadIdx.x % 32;
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK, blocks = gridDim.y;
    float x[COLUMNS], capped, scale = a.inv_temperature[m];
    int64_t target = a.target && a.logprob ? a.target[m] - v0 : -1;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        int column = lane + 32 * j;
        bool in = v0 + column < a.V && (!keep || keep[j] >> lane & 1);
        x[j] = in ? logit_of(a, row[column], &capped) * scale : -INFINITY;
        if (a.logits) a.logits[(m * blocks + blockIdx.y) * VOCAB_BLOCK + column] = x[j];
        if (target == column) a.logprob[m] = x[j]; // merge_kernel makes a logprob of it
    }
    VocabStats s = block_stats(x);
    if (lane == 0) a.stats[m * blocks + blockIdx.y] = s;
}

static __device__ __forceinline__ void finish_gradient(const HeadGradArgs &g, int64_t m, const float *row, const uint32_t *keep) {
    const HeadArgs &a = g.forward;
    int lane = (int)threadIdx.x % 32, first = lane * COLUMNS; // 8 entries side by side, for wide stores
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK, at = (m * gridDim.y + blockIdx.y) * VOCAB_BLOCK + first;
    int64_t target = a.target[m] - v0;
    float scale = a.inv_temperature[m], max = a.max[m], log_sum = a.log_sum[m], entropy = a.entropy[m];
    float dlogprob = g.dlogprob[m], dentropy = g.dentropy ? g.dentropy[m] : 0.0f;
    uint32_t bits = keep ? keep[lane / 4] >> lane % 4 * COLUMNS : ~0u;
    float4 low = *(const float4 *)(row + first), high = *(const float4 *)(row + first + 4);
    float x[COLUMNS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        bool in = v0 + first + j < a.V && (bits >> j & 1);
        float capped, logprob = (in ? logit_of(a, x[j], &capped) * scale : -INFINITY) - max - log_sum, p = exp_of_logit(logprob);
        float d = p * fmaf(dentropy, (logprob > -200.0f ? logprob : -200.0f) + entropy, dlogprob);
        x[j] = (0.0f - d) * scale;
        if (target == first + j) x[j] += dlogprob * scale;
        if (a.softcap != 0) x[j] *= in ? fmaf(0.0f - capped, capped, 1.0f) : 0.0f;
    }
    if (a.dtype == DTYPE_BF16) {
        uint4 packed = make_uint4(pack_bf16x2(x[0], x[1]), pack_bf16x2(x[2], x[3]), pack_bf16x2(x[4], x[5]), pack_bf16x2(x[6], x[7]));
        *(uint4 *)((bf16 *)g.dlogits + at) = packed;
    } else {
        float4 *to = (float4 *)((float *)g.dlogits + at);
        to[0] = make_float4(x[0], x[1], x[2], x[3]), to[1] = make_float4(x[4], x[5], x[6], x[7]);
    }
}

// ---- kernels ---------------------------------------------------------------------------------------------

// Shared memory: the stages, later a group's logits in their place; the kept bits [TOKENS][8]; first [TOKENS].
template <class Product, bool GRADIENT>
__global__ void __launch_bounds__(THREADS, Product::RESIDENT) tile_kernel(HeadTileArgs t) {
    constexpr int EACH = Product::TOKENS / Product::GROUPS, STAGES_BYTES = STAGES * HeadStage<Product>::BYTES;
    static_assert(EACH * OUT_STRIDE * (int)sizeof(float) <= STAGES_BYTES, "a group's logits fit into the stages");
    SHARED(unsigned char, shared);
    const HeadArgs &a = t.grad.forward;
    uint32_t *keep = (uint32_t *)(shared + STAGES_BYTES);
    float *out = (float *)shared;
    Product product;
    product.clear();
    if (!a.kept_start || mark_kept<Product>(a, keep, (int32_t *)(keep + Product::TOKENS * 8))) walk(t, shared, product);
    for (int group = 0; group < Product::GROUPS; group++) {
        __syncthreads(); // the stages, or the group before, have been read
        product.hand_over(out, group);
        __syncthreads();
        for (int r = (int)threadIdx.x / 32; r < EACH; r += WARPS) {
            int64_t m = (int64_t)blockIdx.x * Product::TOKENS + group * EACH + r;
            if (m >= a.M) break;
            const uint32_t *bits = a.kept_start ? keep + (group * EACH + r) * 8 : NULL;
            if (GRADIENT)
                finish_gradient(t.grad, m, out + r * OUT_STRIDE, bits);
            else
                finish_row(a, m, out + r * OUT_STRIDE, bits);
        }
    }
}

enum { MERGE_WARPS = 4 };
__global__ void __launch_bounds__(MERGE_WARPS * 32) merge_kernel(HeadArgs a) {
    int64_t m = (int64_t)blockIdx.x * MERGE_WARPS + threadIdx.x / 32, blocks = (a.V + VOCAB_BLOCK - 1) / VOCAB_BLOCK;
    if (m >= a.M) return;
    Distribution d = merge_stats(a.stats + m * blocks, blocks);
    if (threadIdx.x % 32) return;
    if (a.target && a.logprob) a.logprob[m] = (float)(((double)a.logprob[m] - d.max) - d.log_sum);
    if (a.entropy) a.entropy[m] = (float)d.entropy;
    if (a.max) a.max[m] = d.max, a.log_sum[m] = (float)d.log_sum;
}

// ---- the operations --------------------------------------------------------------------------------------
template <class Product, bool GRADIENT> static void launch_tiles(const CudaContext *context, const HeadTileArgs &t) {
    const HeadArgs &a = t.grad.forward;
    size_t shared = (size_t)STAGES * HeadStage<Product>::BYTES + (size_t)Product::TOKENS * 9 * sizeof(uint32_t);
    dim3 grid(ceil_div(a.M, Product::TOKENS), ceil_div(a.V, VOCAB_BLOCK));
    auto *kernel = tile_kernel<Product, GRADIENT>;
    allow_shared(kernel, shared);
    LAUNCH(context->stream, kernel, grid, dim3(THREADS), shared, t);
}

// Rows alone choose the width of the tiles; it changes no bit.
template <bool GRADIENT> static void launch_head(const Device *device, const HeadGradArgs &grad) {
    const CudaContext *context = cuda_context(device);
    const HeadArgs &a = grad.forward;
    int64_t size = (int64_t)dtype_size(a.dtype);
    HeadTileArgs t;
    t.grad = grad;
    t.x_bytes = a.C * size, t.w_bytes = packed_stride(a.C) * size;
    t.whole_parts = t.x_bytes % 16 == 0 && (uintptr_t)a.x % 16 == 0;
    if (a.dtype == DTYPE_F32)
        launch_tiles<FloatProduct, GRADIENT>(context, t);
    else if (a.M <= 8)
        launch_tiles<HalfProduct<8, 3>, GRADIENT>(context, t);
    else if (a.M <= 32)
        launch_tiles<HalfProduct<32, 2>, GRADIENT>(context, t);
    else if (ceil_div(a.M, 64) == ceil_div(a.M, 96))
        launch_tiles<HalfProduct<64, 1>, GRADIENT>(context, t);
    else
        launch_tiles<HalfProduct<96, 1>, GRADIENT>(context, t);
}

extern "C" void head_cuda(const Device *device, const HeadArgs *args) {
    if (args->M <= 0 || args->V <= 0) return;
    HeadGradArgs alone = {};
    alone.forward = *args;
    launch_head<false>(device, alone);
    LAUNCH(cuda_context(device)->stream, merge_kernel, dim3(ceil_div(args->M, MERGE_WARPS)), dim3(MERGE_WARPS * 32), 0, *args);
}

extern "C" void head_grad_cuda(const Device *device, const HeadGradArgs *args) {
    if (args->forward.M <= 0 || args->forward.V <= 0) return;
    launch_head<true>(device, *args);
}
