// AdamW and the gradient's sum of squares, both bound by memory. AdamW is elementwise and has the CPU's bits. The sum of
// squares goes by blocks of NORM_BLOCK numbers, in double: a thread's numbers in four chains by their place modulo four,
// the four added in pairs, a warp's lanes by a halving tree, warps in order.
#include "cuda.h"

enum { THREADS = 256 };
static bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

// Four numbers at p, of which n are there. ALIGNED only says that whole fours can be taken at once.
template <bool ALIGNED> static __device__ __forceinline__ void load_four(const float *p, int64_t n, float x[4]) {
    if (ALIGNED && n >= 4) {
        float4 v = *(const float4 *)p;
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = i < n ? p[i] : 0.0f;
    }
}
template <bool ALIGNED> static __device__ __forceinline__ void store_four(float *p, int64_t n, const float x[4]) {
    if (ALIGNED && n >= 4) {
        *(float4 *)p = make_float4(x[0], x[1], x[2], x[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < n) p[i] = x[i];
    }
}

// Grid: a thread for four numbers.
struct AdamwStep {
    int64_t count;
    float *w, *m, *v;
    const float *gradient, *gradient2;
    float scale, beta1, beta2, keep1, keep2, decay, rate, root, eps;
};
template <bool ALIGNED> static __global__ void adamw_kernel(AdamwStep s) {
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4, n = s.count - at;
    if (n <= 0) return;
    float w[4], m[4], v[4], g[4], second[4] = {0, 0, 0, 0};
    load_four<ALIGNED>(s.w + at, n, w);
    load_four<ALIGNED>(s.m + at, n, m);
    load_four<ALIGNED>(s.v + at, n, v);
    load_four<ALIGNED>(s.gradient + at, n, g);
    if (s.gradient2) load_four<ALIGNED>(s.gradient2 + at, n, second);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float gradient = (s.gradient2 ? g[i] + second[i] : g[i]) * s.scale;
        m[i] = s.beta1 * m[i] + s.keep1 * gradient;
        v[i] = s.beta2 * v[i] + s.keep2 * gradient * gradient;
        w[i] = w[i] * s.decay - s.rate * m[i] / (sqrtf(v[i]) / s.root + s.eps);
    }
    store_four<ALIGNED>(s.w + at, n, w);
    store_four<ALIGNED>(s.m + at, n, m);
    store_four<ALIGNED>(s.v + at, n, v);
}
void adamw_cuda(const Device *device, const AdamwArgs *a) {
    if (a->count <= 0) return;
    AdamwStep s = {a->count, a->w, a->m, a->v, a->gradient, a->gradient2, a->scale, a->beta1, a->beta2, 1.0f - a->beta1,
                   1.0f - a->beta2, 1.0f - a->learning_rate * a->weight_decay, a->learning_rate / a->correction1,
                   sqrtf(a->correction2), a->eps};
    bool even = aligned(a->w) && aligned(a->m) && aligned(a->v) && aligned(a->gradient) && aligned(a->gradient2);
    auto kernel = even ? adamw_kernel<true> : adamw_kernel<false>;
    LAUNCH(cuda_context(device)->stream, kernel, dim3(ceil_div(a->count, 4 * THREADS)), dim3(THREADS), 0, s);
}

// Grid: a block for NORM_BLOCK numbers.
template <bool ALIGNED> static __global__ void square_sum_kernel(SquareSumArgs a) {
    SHARED(double, warps); // [THREADS / 32]
    int64_t begin = (int64_t)blockIdx.x * NORM_BLOCK, end = begin + NORM_BLOCK < a.count ? begin + NORM_BLOCK : a.count;
    double sums[4] = {0, 0, 0, 0};
#pragma unroll 4
    for (int64_t at = begin + (int64_t)threadIdx.x * 4; at < end; at += 4 * THREADS) {
        float x[4], y[4] = {0, 0, 0, 0};
        load_four<ALIGNED>(a.a + at, end - at, x);
        if (a.b) load_four<ALIGNED>(a.b + at, end - at, y);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            double value = a.b ? x[i] + y[i] : x[i];
            sums[i] += value * value;
        }
    }
    double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int mask = 16; mask; mask >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < THREADS / 32; w++) sum += warps[w];
    a.partial[blockIdx.x] = sum;
}
void square_sum_cuda(const Device *device, const SquareSumArgs *a) {
    if (a->count <= 0) return;
    auto kernel = aligned(a->a) && aligned(a->b) ? square_sum_kernel<true> : square_sum_kernel<false>;
    LAUNCH(cuda_context(device)->stream, kernel, dim3(ceil_div(a->count, NORM_BLOCK)), dim3(THREADS), THREADS / 32 * sizeof(double), *a);
}
