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
//     Where products are wgmma (cuda.h) they are m64nNk16 instead, which reads the stages where they lie.
//   fp32: 8 entries by 4 tokens per thread, fused multiply-adds; tiles of 32 tokens.
//   Kept sets become a bitmap in shared memory before the product; a tile without any kept entry skips the product.
// merge_kernel: a warp per row merges the blocks (vocabulary.h).
// For a draw the logits needn't be stored: it reads one block of each row, and can make it again (draw.cu). Truncation reads more.
//
// Sums: each logit is a chain per K_CHUNK, the chunks added in order, as cuda.h says, then one multiplication by the
// inverse temperature. head and head_grad run the same code up to there, for sampling and training alike.
// dlogits must be aligned to 16 bytes, which all memory of a device is.
#include "head_tile.h"

typedef struct HeadTileArgs {
    HeadGradArgs grad;      // `forward` alone where no gradient is wanted
    HeadSide side;
} HeadTileArgs;

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
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK, at = m * g.ld + v0 + first;
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
    constexpr int EACH = Product::TOKENS / Product::GROUPS, STAGES_BYTES = HeadStage<Product>::ALL_BYTES;
    static_assert(EACH * OUT_STRIDE * (int)sizeof(float) <= STAGES_BYTES, "a group's logits fit into the stages");
    if (Product::BY_WARPGROUP && !HAS_WGMMA) return;
    SHARED(unsigned char, shared);
    shared = HeadStage<Product>::place(shared);
    const HeadArgs &a = t.grad.forward;
    uint32_t *keep = (uint32_t *)(shared + STAGES_BYTES);
    float *out = (float *)shared;
    Product product;
    product.clear();
    if (!a.kept_start || mark_kept<Product>(a, keep, (int32_t *)(keep + Product::TOKENS * 8))) 
        walk(t.side, (int64_t)blockIdx.x * Product::TOKENS, (int64_t)blockIdx.y * VOCAB_BLOCK, shared, product);
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
    size_t shared = (size_t)HeadStage<Product>::SHARED_BYTES + (size_t)Product::TOKENS * 9 * sizeof(uint32_t);
    dim3 grid(ceil_div(a.M, Product::TOKENS), ceil_div(a.V, VOCAB_BLOCK));
    auto *kernel = tile_kernel<Product, GRADIENT>;
    allow_shared(kernel, shared);
    LAUNCH(context->stream, kernel, grid, dim3(THREADS), shared, t);
}

// Rows alone choose the width of the tiles; it changes no bit.
template <class Of8, class Of32, class Of64, class Of96, bool GRADIENT>
static void launch_by_rows(const CudaContext *context, const HeadTileArgs &t) {
    int64_t M = t.grad.forward.M;
    if (M <= 8)
        launch_tiles<Of8, GRADIENT>(context, t);
    else if (M <= 32)
        launch_tiles<Of32, GRADIENT>(context, t);
    else if (ceil_div(M, 64) == ceil_div(M, 96))
        launch_tiles<Of64, GRADIENT>(context, t);
    else
        launch_tiles<Of96, GRADIENT>(context, t);
}
template <bool GRADIENT> static void launch_head(const Device *device, const HeadGradArgs &given) {
    const CudaContext *context = cuda_context(device);
    HeadGradArgs grad = given;
    grad.forward = head_decoded(device, given.forward);
    const HeadArgs &a = grad.forward;
    HeadTileArgs t = {grad, head_side(a)};
    if (a.dtype == DTYPE_F32)
        launch_tiles<FloatProduct, GRADIENT>(context, t);
    else if (context->wgmma)
        launch_by_rows<WarpgroupProduct<8, 2>, WarpgroupProduct<32, 2>, WarpgroupProduct<64, 1>, WarpgroupProduct<96, 1>, GRADIENT>(context, t);
    else
        launch_by_rows<HalfProduct<8, 3>, HalfProduct<32, 2>, HalfProduct<64, 1>, HalfProduct<96, 1>, GRADIENT>(context, t);
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
