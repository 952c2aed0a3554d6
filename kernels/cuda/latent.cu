// Latent attention on a CUDA device: rotation and the store into pages, attention of all heads over one key, gradients. The
// order of sums: scores are one chain over W, page after page with a running maximum, all pages of a row in one walk.
//
// rope, rope_grad: a block a token. attention: a warp a row and head, lanes over the 32 positions of a page for the scores, then
// over the columns for the outputs; the heads of a token are neighbours, so that a page's 74 KB (W = 576, fp32) come from L2
// once read. Backward: a warp a row and head for dq; for the keys' gradients a block a page and 128 columns, eight rows at a
// time in order. No row's numbers depend on what stands beside it.
#include "cuda.h"

enum { WARPS = 4, THREADS = WARPS * 32, ROPE_THREADS = 256, LANE_COLUMNS = MAX_LATENT / 32 };

static __host__ __device__ __forceinline__ int64_t latent_page(int64_t W) { return PAGE * padded_width(W); }

// ---- rotation and pages ----------------------------------------------------------------------------------
// Pair i of x [P]: which two columns it is.
static __device__ __forceinline__ void pair_of(int i, int P, bool interleaved, int *first, int *second) {
    *first = interleaved ? 2 * i : i;
    *second = interleaved ? 2 * i + 1 : i + P / 2;
}

static __global__ void __launch_bounds__(ROPE_THREADS) latent_rope_kernel(LatentRopeArgs a) {
    int64_t t = blockIdx.x, W = a.R + a.P, page = latent_page(W);
    int half = a.P / 2, first, second;
    const float *cosine = a.cos_sin + (int64_t)a.position[t] * a.P, *sine = cosine + half;
    for (int i = threadIdx.x; i < a.heads * a.N; i += ROPE_THREADS) {
        int64_t head = t * a.heads + i / a.N;
        act_put(a.q_plain, head * a.N + i % a.N, a.q[head * (a.N + a.P) + i % a.N], a.dtype);
    }
    for (int i = threadIdx.x; i < a.heads * half; i += ROPE_THREADS) {
        int64_t head = t * a.heads + i / half;
        const float *q = a.q + head * (a.N + a.P) + a.N;
        int c = i % half;
        pair_of(c, a.P, a.interleaved, &first, &second);
        act_put(a.q_full, head * W + a.R + c, q[first] * cosine[c] - q[second] * sine[c], a.dtype);
        act_put(a.q_full, head * W + a.R + half + c, q[second] * cosine[c] + q[first] * sine[c], a.dtype);
    }
    const float *key = a.key + t * a.ldkey;
    for (int64_t s = a.slot_start[t]; s < a.slot_start[t + 1]; s++) {
        int64_t base = a.slot[s] / PAGE * page + a.slot[s] % PAGE;
        for (int d = threadIdx.x; d < a.R; d += ROPE_THREADS) act_put(a.pages, base + (int64_t)d * PAGE, act_get(a.latent, t * a.R + d, a.dtype), a.dtype);
        for (int c = threadIdx.x; c < half; c += ROPE_THREADS) {
            pair_of(c, a.P, a.interleaved, &first, &second);
            act_put(a.pages, base + (int64_t)(a.R + c) * PAGE, key[first] * cosine[c] - key[second] * sine[c], a.dtype);
            act_put(a.pages, base + (int64_t)(a.R + half + c) * PAGE, key[second] * cosine[c] + key[first] * sine[c], a.dtype);
        }
    }
}
extern "C" void latent_rope_cuda(const Device *device, const LatentRopeArgs *a) {
    if (a->T <= 0) return;
    LAUNCH(cuda_context(device)->stream, latent_rope_kernel, dim3((unsigned)a->T), dim3(ROPE_THREADS), 0, *a);
}

static __global__ void __launch_bounds__(ROPE_THREADS) latent_rope_grad_kernel(LatentRopeGradArgs a) {
    SHARED(float, rotated); // [P] of the key's gradient
    int64_t t = blockIdx.x, W = a.R + a.P, Wp = padded_width(W);
    int half = a.P / 2, first, second;
    const float *cosine = a.cos_sin + (int64_t)a.position[t] * a.P, *sine = cosine + half;
    for (int i = threadIdx.x; i < a.heads * a.N; i += ROPE_THREADS) {
        int64_t head = t * a.heads + i / a.N;
        act_put(a.dq, head * (a.N + a.P) + i % a.N, a.dq_plain[head * a.N + i % a.N], a.dtype);
    }
    for (int i = threadIdx.x; i < a.heads * half; i += ROPE_THREADS) {
        int64_t head = t * a.heads + i / half, to = head * (a.N + a.P) + a.N;
        const float *y = a.dq_full + head * W + a.R;
        int c = i % half;
        pair_of(c, a.P, a.interleaved, &first, &second);
        act_put(a.dq, to + first, y[c] * cosine[c] + y[c + half] * sine[c], a.dtype);
        act_put(a.dq, to + second, y[c + half] * cosine[c] - y[c] * sine[c], a.dtype);
    }
    for (int d = threadIdx.x; d < W; d += ROPE_THREADS) {
        float sum = 0;
        for (int64_t s = a.slot_start[t]; s < a.slot_start[t + 1]; s++) sum += a.dpages[a.slot[s] * Wp + d];
        if (d < a.R)
            a.dlatent[t * a.R + d] = sum;
        else
            rotated[d - a.R] = sum;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < half; c += ROPE_THREADS) {
        pair_of(c, a.P, a.interleaved, &first, &second);
        act_put(a.dkey, t * a.ldkey + first, rotated[c] * cosine[c] + rotated[c + half] * sine[c], a.dtype);
        act_put(a.dkey, t * a.ldkey + second, rotated[c + half] * cosine[c] - rotated[c] * sine[c], a.dtype);
    }
}
extern "C" void latent_rope_grad_cuda(const Device *device, const LatentRopeGradArgs *a) {
    if (a->T <= 0) return;
    LAUNCH(cuda_context(device)->stream, latent_rope_grad_kernel, dim3((unsigned)a->T), dim3(ROPE_THREADS), (size_t)a->P * sizeof(float), *a);
}

// ---- forward ---------------------------------------------------------------------------------------------
// scale * q . key of position `lane` of a page.
template <Dtype D> static __device__ __forceinline__ float score_of(const LatentAttentionArgs &a, int64_t at, int64_t keys) {
    int lane = threadIdx.x % 32;
    float s = 0;
    for (int d = 0; d < a.W; d++) s = fmaf(act_get(a.q, at * a.W + d, D), act_get(a.pages, keys + d * PAGE + lane, D), s);
    return s * a.scale;
}

template <Dtype D> static __global__ void __launch_bounds__(THREADS) latent_attention_kernel(LatentAttentionArgs a) {
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= a.T * a.heads) return;
    int64_t t = at / a.heads, page = latent_page(a.W);
    int lane = threadIdx.x % 32, position = a.position[t];
    const int32_t *table = a.table + a.table_start[t];
    float out[LANE_COLUMNS] = {0}, max = -INFINITY, sum = 0;
    for (int chunk = 0; chunk * PAGE <= position; chunk++) {
        int64_t keys = table[chunk] * page;
        int valid = min(position + 1 - chunk * PAGE, (int)PAGE);
        float s = score_of<D>(a, at, keys);
        if (lane >= valid) s = -INFINITY;
        float top = s == s ? s : -INFINITY, next = fmaxf(max, warp_max(top)); // a NaN isn't a maximum, as in the slow twin
        float factor = expf(max - next), weight = expf(s - next);
        sum = fmaf(sum, factor, warp_sum(weight));
        max = next;
#pragma unroll
        for (int i = 0; i < LANE_COLUMNS; i++) {
            int c = lane + i * 32;
            if (i * 32 >= a.R) break;
            float value = out[i] * factor;
            for (int j = 0; j < valid; j++) {
                float w = __shfl_sync(0xffffffffu, weight, j);
                if (c < a.R) value = fmaf(w, act_get(a.pages, keys + c * PAGE + j, D), value);
            }
            out[i] = value;
        }
    }
    float inverse = 1.0f / sum;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        if (lane + i * 32 < a.R) act_put(a.y, at * a.R + lane + i * 32, out[i] * inverse, D);
    if (a.lse && lane == 0) a.lse[at] = max + logf(sum);
}
extern "C" void latent_attention_cuda(const Device *device, const LatentAttentionArgs *a) {
    if (a->T <= 0) return;
    auto kernel = a->dtype == DTYPE_F32 ? latent_attention_kernel<DTYPE_F32> : latent_attention_kernel<DTYPE_BF16>;
    LAUNCH(cuda_context(device)->stream, kernel, dim3(ceil_div(a->T * a->heads, WARPS)), dim3(THREADS), 0, *a);
}

// ---- backward --------------------------------------------------------------------------------------------
template <Dtype D> static __global__ void __launch_bounds__(THREADS) latent_delta_kernel(LatentAttentionGradArgs b) {
    const LatentAttentionArgs &a = b.forward;
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= a.T * a.heads) return;
    float sum = 0;
    for (int c = threadIdx.x % 32; c < a.R; c += 32) sum = fmaf(b.dy[at * a.R + c], act_get(a.y, at * a.R + c, D), sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) b.delta[at] = sum;
}

// Weight and its score's gradient of position `lane` of a page; zeros where it isn't seen.
template <Dtype D>
static __device__ __forceinline__ void weights_of(const LatentAttentionGradArgs &b, int64_t at, int64_t keys, int valid, float *weight, float *dscore) {
    const LatentAttentionArgs &a = b.forward;
    int lane = threadIdx.x % 32;
    float d = 0;
    *weight = *dscore = 0;
    if (lane >= valid) return;
    float s = score_of<D>(a, at, keys);
    for (int c = 0; c < a.R; c++) d = fmaf(b.dy[at * a.R + c], act_get(a.pages, keys + c * PAGE + lane, D), d);
    *weight = expf(s - a.lse[at]);
    *dscore = *weight * (d - b.delta[at]) * a.scale;
}

template <Dtype D> static __global__ void __launch_bounds__(THREADS) latent_rows_kernel(LatentAttentionGradArgs b) {
    const LatentAttentionArgs &a = b.forward;
    int64_t at = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= a.T * a.heads) return;
    int64_t t = at / a.heads;
    int lane = threadIdx.x % 32;
    float dq[LANE_COLUMNS] = {0};
    for (int chunk = 0; chunk * PAGE <= a.position[t]; chunk++) {
        int64_t keys = a.table[a.table_start[t] + chunk] * latent_page(a.W);
        int valid = min(a.position[t] + 1 - chunk * PAGE, (int)PAGE);
        float weight, dscore;
        weights_of<D>(b, at, keys, valid, &weight, &dscore);
        for (int j = 0; j < valid; j++) {
            float d = __shfl_sync(0xffffffffu, dscore, j);
#pragma unroll
            for (int i = 0; i < LANE_COLUMNS; i++)
                if (lane + i * 32 < a.W) dq[i] = fmaf(d, act_get(a.pages, keys + (lane + i * 32) * PAGE + j, D), dq[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++)
        if (lane + i * 32 < a.W) b.dq[at * a.W + lane + i * 32] = dq[i];
}

enum { PAGE_WARPS = 8, PAGE_THREADS = PAGE_WARPS * 32, PAGE_COLUMNS = 128 };
struct PageShared {
    float weights[PAGE_WARPS][PAGE], dscores[PAGE_WARPS][PAGE];
    int valid[PAGE_WARPS];
    int chunk;
};
// A page stands at the same place in every table it is in. By the whole block; -1 where no row sees it.
static __device__ int find_chunk(const LatentAttentionGradArgs &b, int page, int *found) {
    const LatentAttentionArgs &a = b.forward;
    if (b.page_first_row[page] > b.page_last_row[page]) return -1;
    int64_t t = b.page_first_row[page];
    for (int i = threadIdx.x; (int64_t)i * PAGE <= a.position[t]; i += blockDim.x)
        if (a.table[a.table_start[t] + i] == page) *found = i;
    __syncthreads();
    return *found;
}
// Eight rows at a time, one a warp; then warp w sums positions 4 w to 4 w + 3 over them, lanes along the block's columns.
template <Dtype D> static __global__ void __launch_bounds__(PAGE_THREADS) latent_pages_kernel(LatentAttentionGradArgs b) {
    SHARED(PageShared, shared);
    const LatentAttentionArgs &a = b.forward;
    int page = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.y * PAGE_COLUMNS + lane;
    int64_t Wp = padded_width(a.W), first = b.page_first_row[page];
    int chunk = find_chunk(b, page, &shared->chunk);
    int64_t rows = chunk < 0 ? 0 : (b.page_last_row[page] - first + 1) * a.heads;
    float sum[4][PAGE_COLUMNS / 32] = {{0}};
    for (int64_t row = 0; row < rows; row += PAGE_WARPS) {
        int64_t own = row + warp, t = first + own / a.heads;
        int valid = 0;
        if (own < rows && a.position[t] >= chunk * PAGE && a.table[a.table_start[t] + chunk] == page)
            valid = min(a.position[t] + 1 - chunk * PAGE, (int)PAGE);
        float weight = 0, dscore = 0;
        if (valid) weights_of<D>(b, first * a.heads + own, page * latent_page(a.W), valid, &weight, &dscore);
        __syncthreads();
        shared->weights[warp][lane] = weight, shared->dscores[warp][lane] = dscore;
        if (lane == 0) shared->valid[warp] = valid;
        __syncthreads();
        for (int r = 0; r < PAGE_WARPS; r++) {
            if (shared->valid[r] <= warp * 4) continue;
            int64_t at = first * a.heads + row + r;
#pragma unroll
            for (int i = 0; i < PAGE_COLUMNS / 32; i++) {
                int c = column + i * 32;
                if (c >= a.W) continue;
                float q = act_get(a.q, at * a.W + c, D), dy = c < a.R ? b.dy[at * a.R + c] : 0.0f;
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (warp * 4 + j < shared->valid[r]) {
                        sum[j][i] = fmaf(shared->dscores[r][warp * 4 + j], q, sum[j][i]);
                        if (c < a.R) sum[j][i] = fmaf(shared->weights[r][warp * 4 + j], dy, sum[j][i]);
                    }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < PAGE_COLUMNS / 32; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (column + i * 32 < Wp) b.dpages[((int64_t)page * PAGE + warp * 4 + j) * Wp + column + i * 32] = sum[j][i];
}

template <Dtype D> static void start_grad(const Device *device, const LatentAttentionGradArgs *b) {
    const LatentAttentionArgs *a = &b->forward;
    cudaStream_t stream = cuda_context(device)->stream;
    dim3 rows(ceil_div(a->T * a->heads, WARPS));
    auto delta = latent_delta_kernel<D>;
    auto queries = latent_rows_kernel<D>;
    auto pages = latent_pages_kernel<D>;
    LAUNCH(stream, delta, rows, dim3(THREADS), 0, *b);
    LAUNCH(stream, queries, rows, dim3(THREADS), 0, *b);
    if (b->page_count > 0)
        LAUNCH(stream, pages, dim3((unsigned)b->page_count, ceil_div(padded_width(a->W), PAGE_COLUMNS)), dim3(PAGE_THREADS), sizeof(PageShared), *b);
}
extern "C" void latent_attention_grad_cuda(const Device *device, const LatentAttentionGradArgs *b) {
    if (b->forward.T <= 0) return;
    if (b->forward.dtype == DTYPE_F32)
        start_grad<DTYPE_F32>(device, b);
    else
        start_grad<DTYPE_BF16>(device, b);
}
