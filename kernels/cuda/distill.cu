// Divergences between a teacher's and a student's distribution, and their gradient (ops.h says which).
//
// distill_kernel: grid (tiles of 32 rows, blocks of 256 of the vocabulary), 256 threads, with the loads and products of
// head_tile.h. A block makes the teacher's product first and hands it over through shared memory into registers: a warp has
// four rows, a lane eight neighbouring entries of each. Then it makes the student's in the same stages; so two tiles of
// logits need the shared memory of one, and nothing of size [M, V] is ever written but the gradient's own.
// merge_distill_kernel: a thread per row adds up its blocks, in order, in double.
//
// Both widths of model go through the same code, each with its own number of steps. The width of the tile is one for all
// shapes: no bit depends on the rows beside a row.
#include "head_tile.h"

typedef struct DistillTileArgs {
    DistillGradArgs grad; // `forward` alone where no gradient is wanted
    HeadSide student, teacher;
    float log_beta, log_rest;
} DistillTileArgs;

// log(1 + e) for e in [0, 1]: 2 atanh(e / (2 + e)) as a series.
static __device__ __forceinline__ float log1p_of(float e) {
    float s = e / (2.0f + e), z = s * s, p = 1.0f / 15;
#pragma unroll
    for (int n = 13; n > 0; n -= 2) p = fmaf(p, z, 1.0f / (float)n);
    return (s + s) * p;
}
// log(beta p + (1 - beta) q)
static __device__ __forceinline__ float log_mixture(const DistillTileArgs &t, float lp, float lq) {
    float a = lp + t.log_beta, b = lq + t.log_rest, d = a - b;
    return (a > b ? a : b) + log1p_of(exp_of_logit(0.0f - (d > 0.0f - d ? d : 0.0f - d)));
}

// The eight entries of a lane: logits of row m of one side from its products; -infinity from V on.
static __device__ __forceinline__ void lane_logits(const HeadArgs &a, int64_t m, const float *row, float x[COLUMNS]) {
    int first = (int)threadIdx.x % 32 * COLUMNS;
    float4 low = *(const float4 *)(row + first), high = *(const float4 *)(row + first + 4);
    float products[COLUMNS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, capped, scale = a.inv_temperature[m];
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        x[j] = (int64_t)blockIdx.y * VOCAB_BLOCK + first + j < a.V ? logit_of(a, products[j], &capped) * scale : -INFINITY;
}

// student [8] are logits of the student, teacher [8] of the teacher. By one warp.
static __device__ __forceinline__ void distill_row(const DistillTileArgs &t, int64_t m, const float *student, const float *teacher) {
    const DistillArgs &a = t.grad.forward;
    float beta = a.beta, rest = 1.0f - beta, sum = 0, centre = 0;
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK + threadIdx.x % 32 * COLUMNS;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        if (v0 + j >= a.student.V) continue;
        float lq = student[j] - a.student.max[m] - a.student.log_sum[m], lp = teacher[j] - a.teacher.max[m] - a.teacher.log_sum[m];
        float p = exp_of_logit(lp), q = exp_of_logit(lq), value, own = 0;
        if (beta == 0) {
            value = p * (lp - lq);
        } else if (beta == 1) {
            value = own = q * (lq - lp);
        } else {
            float lm = log_mixture(t, lp, lq);
            own = rest * (q * (lq - lm)), value = fmaf(beta, p * (lp - lm), own);
        }
        sum += value, centre += own;
    }
    VocabStats s = {0, warp_sum(sum), warp_sum(centre)};
    if (threadIdx.x % 32 == 0) a.student.stats[m * gridDim.y + blockIdx.y] = s;
}

static __device__ __forceinline__ void distill_gradient(const DistillTileArgs &t, int64_t m, const float *student, const float *teacher) {
    const DistillArgs &a = t.grad.forward;
    const HeadArgs &s = a.student;
    float beta = a.beta, rest = 1.0f - beta, centre = a.centre[m], weight = t.grad.weight[m], scale = s.inv_temperature[m], x[COLUMNS];
    int64_t v0 = (int64_t)blockIdx.y * VOCAB_BLOCK + threadIdx.x % 32 * COLUMNS, at = m * t.grad.ld + v0;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        float lq = student[j] - s.max[m] - s.log_sum[m], lp = teacher[j] - a.teacher.max[m] - a.teacher.log_sum[m], q = exp_of_logit(lq), d;
        if (beta == 0)
            d = q - exp_of_logit(lp);
        else if (beta == 1)
            d = q * (lq - lp - centre);
        else
            d = q * (rest * (lq - log_mixture(t, lp, lq)) - centre);
        d = d * weight * scale;
        if (s.softcap != 0) {
            float capped = student[j] / (s.softcap * scale);
            d *= student[j] == -INFINITY ? 0.0f : fmaf(0.0f - capped, capped, 1.0f);
        }
        x[j] = v0 + j < s.V ? d : 0.0f;
    }
    if (s.dtype == DTYPE_BF16) {
        uint4 packed = make_uint4(pack_bf16x2(x[0], x[1]), pack_bf16x2(x[2], x[3]), pack_bf16x2(x[4], x[5]), pack_bf16x2(x[6], x[7]));
        *(uint4 *)((bf16 *)t.grad.dlogits + at) = packed;
    } else {
        float4 *to = (float4 *)((float *)t.grad.dlogits + at);
        to[0] = make_float4(x[0], x[1], x[2], x[3]), to[1] = make_float4(x[4], x[5], x[6], x[7]);
    }
}

// The gradient's columns beyond the vocabulary of both, up to ld, in blocks of their own behind it.
static __device__ __forceinline__ void clear_columns(const DistillTileArgs &t, int tokens) {
    const HeadArgs &s = t.grad.forward.student;
    for (int i = (int)threadIdx.x; i < tokens * VOCAB_BLOCK; i += THREADS) {
        int64_t m = (int64_t)blockIdx.x * tokens + i / VOCAB_BLOCK;
        if (m < s.M) act_put(t.grad.dlogits, m * t.grad.ld + (int64_t)blockIdx.y * VOCAB_BLOCK + i % VOCAB_BLOCK, 0.0f, s.dtype);
    }
}

template <class Product, bool GRADIENT> __global__ void __launch_bounds__(THREADS, 1) distill_kernel(DistillTileArgs t) {
    constexpr int EACH = Product::TOKENS / WARPS;
    static_assert(Product::GROUPS == 1 && Product::TOKENS * OUT_STRIDE * (int)sizeof(float) <= HeadStage<Product>::ALL_BYTES,
                  "a tile's logits fit into the stages");
    if (Product::BY_WARPGROUP && !HAS_WGMMA) return;
    SHARED(unsigned char, shared);
    shared = HeadStage<Product>::place(shared);
    const DistillArgs &a = t.grad.forward;
    float *out = (float *)shared, teacher[EACH][COLUMNS], student[COLUMNS];
    int64_t m0 = (int64_t)blockIdx.x * Product::TOKENS;
    int warp = (int)threadIdx.x / 32;
    if (GRADIENT && (int64_t)blockIdx.y * VOCAB_BLOCK >= a.student.V) {
        clear_columns(t, Product::TOKENS);
        return;
    }
    Product product;
    for (int side = 0; side < 2; side++) {
        product.clear();
        walk(side ? t.student : t.teacher, (int64_t)blockIdx.x * Product::TOKENS, (int64_t)blockIdx.y * VOCAB_BLOCK, shared, product);
        __syncthreads(); // the stages have been read
        product.hand_over(out, 0);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int64_t m = m0 + warp + e * WARPS;
            const float *row = out + (warp + e * WARPS) * OUT_STRIDE;
            if (m >= a.student.M) continue;
            if (side == 0) {
                lane_logits(a.teacher, m, row, teacher[e]);
                continue;
            }
            lane_logits(a.student, m, row, student);
            if (GRADIENT)
                distill_gradient(t, m, student, teacher[e]);
            else
                distill_row(t, m, student, teacher[e]);
        }
        __syncthreads(); // the logits have been read
    }
}

__global__ void __launch_bounds__(THREADS) merge_distill_kernel(DistillArgs a) {
    int64_t m = (int64_t)blockIdx.x * THREADS + threadIdx.x, blocks = (a.student.V + VOCAB_BLOCK - 1) / VOCAB_BLOCK;
    if (m >= a.student.M) return;
    double divergence = 0, centre = 0;
    for (int64_t b = 0; b < blocks; b++)
        divergence += (double)a.student.stats[m * blocks + b].sum, centre += (double)a.student.stats[m * blocks + b].weighted;
    a.divergence[m] = (float)divergence, a.centre[m] = (float)centre;
}

template <class Product, bool GRADIENT> static void launch_distill_tiles(const CudaContext *context, const DistillTileArgs &t, int64_t columns) {
    size_t shared = (size_t)HeadStage<Product>::SHARED_BYTES;
    dim3 grid(ceil_div(t.student.M, Product::TOKENS), ceil_div(columns, VOCAB_BLOCK));
    auto *kernel = distill_kernel<Product, GRADIENT>;
    allow_shared(kernel, shared);
    LAUNCH(context->stream, kernel, grid, dim3(THREADS), shared, t);
}
template <bool GRADIENT> static void launch_distill(const Device *device, const DistillGradArgs &given, int64_t columns) {
    const CudaContext *context = cuda_context(device);
    DistillGradArgs grad = given;
    grad.forward.student = head_decoded(device, given.forward.student);
    grad.forward.teacher = head_decoded(device, given.forward.teacher);
    const DistillArgs &a = grad.forward;
    DistillTileArgs t = {grad, head_side(a.student), head_side(a.teacher), (float)log_double((double)a.beta),
                         (float)log_double((double)(1.0f - a.beta))};
    if (a.student.dtype == DTYPE_F32)
        launch_distill_tiles<FloatProduct, GRADIENT>(context, t, columns);
    else if (context->wgmma)
        launch_distill_tiles<WarpgroupProduct<32, 1>, GRADIENT>(context, t, columns);
    else
        launch_distill_tiles<HalfProduct<32, 1>, GRADIENT>(context, t, columns);
}

extern "C" void distill_cuda(const Device *device, const DistillArgs *args) {
    if (args->student.M <= 0 || args->student.V <= 0) return;
    DistillGradArgs alone = {};
    alone.forward = *args;
    launch_distill<false>(device, alone, args->student.V);
    LAUNCH(cuda_context(device)->stream, merge_distill_kernel, dim3(ceil_div(args->student.M, THREADS)), dim3(THREADS), 0, *args);
}

extern "C" void distill_grad_cuda(const Device *device, const DistillGradArgs *args) {
    if (args->forward.student.M <= 0 || args->forward.student.V <= 0) return;
    launch_distill<true>(device, *args, args->ld);
}
