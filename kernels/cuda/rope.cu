// Rotary positions: queries and keys turned, keys and values stored into pages, and the way back. The slow twin's bits:
// every product and sum is the same single operation.
//
// Forward. Grid: 32 tokens x heads (query, then key, then value heads). Queries and values go straight from row to row;
// keys lie transposed in a page, so a block turns its 32 tokens through shared memory and writes them with tokens along
// the lanes: consecutive positions of a page are then one piece of 64 or 128 bytes for each column.
// Backward. Grid: as forward; each thread one pair of columns, destinations summed in their order.
// Both are bound by memory: reads and writes run along rows, eight independent ones a thread.
#include "cuda.h"

enum { TOKENS = 32, ROPE_THREADS = 256 };

static __device__ __forceinline__ void turn(float x0, float x1, float cosine, float sine, float *y0, float *y1) {
    *y0 = x0 * cosine - x1 * sine;
    *y1 = x1 * cosine + x0 * sine;
}
// A thread has two columns: the pair c where it is turned, else two neighbours of what follows.
static __device__ __forceinline__ int first_of(int c, int pairs) { return c < pairs ? c : 2 * c; }
static __device__ __forceinline__ int second_of(int c, int pairs) { return c < pairs ? c + pairs : 2 * c + 1; }
template <typename Act> static __device__ __forceinline__ void put(Act *at, float x);
template <> __device__ __forceinline__ void put(float *at, float x) { *at = x; }
template <> __device__ __forceinline__ void put(bf16 *at, float x) { *at = to_bf16(x); }

// Shared memory: a tile [D][TOKENS + 1] of one key head.
template <typename Act> static __global__ void __launch_bounds__(ROPE_THREADS) rope_kernel(RopeArgs a) {
    SHARED(float, tile);
    int64_t first = (int64_t)blockIdx.x * TOKENS, D = a.D, half = D / 2, padded = padded_width(D), pairs = a.rotary / 2;
    int64_t columns = ((int64_t)a.heads + 2 * a.kv_heads) * D, page = page_stride(a.kv_heads, D);
    int count = (int)(a.T - first < TOKENS ? a.T - first : (int64_t)TOKENS), h = blockIdx.y, kv = (h - a.heads) % a.kv_heads;
    bool is_query = h < a.heads, is_key = !is_query && h < a.heads + a.kv_heads;
    const float *x = a.qkv + first * columns + h * D;
    Act *pages = (Act *)a.pages;
    if (is_query || is_key) {
        for (int i = threadIdx.x; i < count * half; i += ROPE_THREADS) {
            int token = i / (int)half, c = i % (int)half;
            const float *row = x + token * columns, *angle = a.cos_sin + (int64_t)a.position[first + token] * a.rotary;
            int c0 = first_of(c, (int)pairs), c1 = second_of(c, (int)pairs);
            float y0 = row[c0], y1 = row[c1];
            if (c < pairs) turn(y0, y1, angle[c], angle[c + pairs], &y0, &y1);
            if (is_query) {
                Act *q = (Act *)a.q + ((first + token) * a.heads + h) * D;
                put(q + c0, y0);
                put(q + c1, y1);
            } else {
                tile[c0 * (TOKENS + 1) + token] = y0;
                tile[c1 * (TOKENS + 1) + token] = y1;
            }
        }
        if (is_query) return;
        __syncthreads();
        int token = threadIdx.x % TOKENS;
        if (token >= count) return;
        for (int64_t i = a.slot_start[first + token]; i < a.slot_start[first + token + 1]; i++) {
            Act *keys = pages + a.slot[i] / PAGE * page + kv * 2 * PAGE * padded + a.slot[i] % PAGE;
            for (int64_t d = threadIdx.x / TOKENS; d < D; d += ROPE_THREADS / TOKENS) put(keys + d * PAGE, tile[d * (TOKENS + 1) + token]);
        }
        return;
    }
    for (int token = threadIdx.x / 32; token < count; token += ROPE_THREADS / 32)
        for (int64_t i = a.slot_start[first + token]; i < a.slot_start[first + token + 1]; i++) {
            Act *values = pages + a.slot[i] / PAGE * page + kv * 2 * PAGE * padded + PAGE * padded + a.slot[i] % PAGE * padded;
            for (int64_t d = threadIdx.x % 32; d < D; d += 32) put(values + d, x[token * columns + d]);
        }
}

template <typename Act> static __global__ void __launch_bounds__(ROPE_THREADS) rope_grad_kernel(RopeGradArgs a) {
    int64_t first = (int64_t)blockIdx.x * TOKENS, D = a.D, half = D / 2, padded = padded_width(D), pairs = a.rotary / 2;
    int64_t columns = ((int64_t)a.heads + 2 * a.kv_heads) * D, page = page_stride(a.kv_heads, D);
    int count = (int)(a.T - first < TOKENS ? a.T - first : (int64_t)TOKENS), h = blockIdx.y;
    bool is_query = h < a.heads, is_key = !is_query && h < a.heads + a.kv_heads;
    int64_t in_page = is_query ? 0 : (h - a.heads) % a.kv_heads * 2 * PAGE * padded + (is_key ? 0 : PAGE * padded);
    for (int i = threadIdx.x; i < count * half; i += ROPE_THREADS) {
        int c = i % (int)half, c0 = first_of(c, (int)pairs), c1 = second_of(c, (int)pairs);
        int64_t t = first + i / (int)half;
        float x0 = 0, x1 = 0;
        if (is_query) {
            const float *dq = a.dq + (t * a.heads + h) * D;
            x0 = dq[c0], x1 = dq[c1];
        } else {
            for (int64_t k = a.slot_start[t]; k < a.slot_start[t + 1]; k++) {
                const float *row = a.dpages + a.slot[k] / PAGE * page + in_page + a.slot[k] % PAGE * padded;
                x0 += row[c0], x1 += row[c1];
            }
        }
        if (c < pairs && (is_query || is_key)) {
            const float *angle = a.cos_sin + (int64_t)a.position[t] * a.rotary;
            turn(x0, x1, angle[c], -1.0f * angle[c + pairs], &x0, &x1);
        }
        if (a.dqk && (is_query || is_key)) {
            float *y = a.dqk + (t * (a.heads + a.kv_heads) + h) * D;
            y[c0] = x0, y[c1] = x1;
        } else {
            Act *y = (Act *)a.dqkv + t * columns + h * D;
            put(y + c0, x0);
            put(y + c1, x1);
        }
    }
}

extern "C" void rope_cuda(const Device *device, const RopeArgs *args) {
    RopeArgs a = *args;
    if (a.T <= 0) return;
    if (!a.rotary) a.rotary = a.D;
    auto kernel = a.dtype == DTYPE_F32 ? rope_kernel<float> : rope_kernel<bf16>;
    dim3 grid(ceil_div(a.T, TOKENS), (unsigned)(a.heads + 2 * a.kv_heads));
    LAUNCH(cuda_context(device)->stream, kernel, grid, ROPE_THREADS, (size_t)a.D * (TOKENS + 1) * sizeof(float), a);
}

extern "C" void rope_grad_cuda(const Device *device, const RopeGradArgs *args) {
    RopeGradArgs a = *args;
    if (a.T <= 0) return;
    if (!a.rotary) a.rotary = a.D;
    auto kernel = a.dtype == DTYPE_F32 ? rope_grad_kernel<float> : rope_grad_kernel<bf16>;
    dim3 grid(ceil_div(a.T, TOKENS), (unsigned)(a.heads + 2 * a.kv_heads));
    LAUNCH(cuda_context(device)->stream, kernel, grid, ROPE_THREADS, 0, a);
}
