// A mixture of experts on a CUDA device: routing, sorting rows by expert, combining, their gradients, and the balance. The
// products themselves are matmul's (ops.h, Products).
//
// route, route_grad: a warp a token, the scores of its experts in shared memory, lanes over experts; sums are 32 lanes then the
// warp's tree. dispatch: three kernels, a block an expert to count and to place, one block to add up; places are found by
// counting from the first token on, so no order of arrival shows. combine: a thread four columns of a token, one chain over its
// experts. combine_grad: a warp a row. Everything here is bound by memory, and small beside the products.
#include "cuda.h"

enum { WARPS = 4, THREADS = WARPS * 32, SORT_THREADS = 256, SCAN_THREADS = 1024 };

static __device__ __forceinline__ float ordered(float x) { return x != x ? -INFINITY : x; }
static __device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Scores of one row to `score` [E], by a warp.
static __device__ void scores_of(const Router &r, const float *logits, float *score) {
    int lane = threadIdx.x % 32;
    float top = -INFINITY, sum = 0;
    for (int e = lane; e < r.experts; e += 32) top = fmaxf(top, logits[e]);
    top = warp_max(top);
    for (int e = lane; e < r.experts; e += 32) {
        score[e] = r.sigmoid ? sigmoid(logits[e]) : expf(logits[e] - top);
        sum += score[e];
    }
    sum = warp_sum(sum);
    for (int e = lane; e < r.experts && !r.sigmoid; e += 32) score[e] = score[e] / sum;
    __syncwarp();
}

// ---- routing ---------------------------------------------------------------------------------------------
// The largest of keys that are open, the lower number of equals; it is closed. By a warp, all lanes get it.
static __device__ int take_largest(const float *key, unsigned char *open, int count) {
    int best = -1;
    float best_key = -INFINITY;
    for (int i = threadIdx.x % 32; i < count; i += 32)
        if (open[i] && (best < 0 || key[i] > best_key)) best = i, best_key = key[i];
    for (int mask = 16; mask; mask >>= 1) {
        int other = __shfl_xor_sync(0xffffffffu, best, mask);
        float other_key = __shfl_xor_sync(0xffffffffu, best_key, mask);
        if (other >= 0 && (best < 0 || other_key > best_key || (other_key == best_key && other < best))) best = other, best_key = other_key;
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) open[best] = 0;
    __syncwarp();
    return best;
}

struct RouteShared {
    float score[WARPS][MAX_EXPERTS], key[WARPS][MAX_EXPERTS], group_key[WARPS][MAX_EXPERTS];
    unsigned char open[WARPS][MAX_EXPERTS], group_open[WARPS][MAX_EXPERTS];
};

static __device__ void open_groups(const Router &r, RouteShared *s, int warp) {
    int size = r.experts / r.groups, lane = threadIdx.x % 32;
    for (int g = lane; g < r.groups; g += 32) {
        float first = -INFINITY, second = -INFINITY;
        for (int e = g * size; e < (g + 1) * size; e++) {
            float key = s->key[warp][e];
            if (e == g * size || key > first) {
                if (e > g * size) second = first;
                first = key;
            } else if (key > second) {
                second = key;
            }
        }
        s->group_key[warp][g] = ordered(r.group_best > 1 ? first + second : first);
        s->group_open[warp][g] = 1;
    }
    __syncwarp();
    for (int i = 0; i < r.chosen_groups; i++) {
        int g = take_largest(s->group_key[warp], s->group_open[warp], r.groups);
        for (int e = lane; e < size; e += 32) s->open[warp][g * size + e] = 1;
    }
    __syncwarp();
}

static __global__ void __launch_bounds__(THREADS) route_kernel(RouteArgs a) {
    SHARED(RouteShared, s);
    const Router &r = a.router;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t t = (int64_t)blockIdx.x * WARPS + warp;
    if (t >= a.T) return;
    float *score = s->score[warp], *weight = a.weight + t * r.chosen, sum = 0;
    int32_t *choice = a.choice + t * r.chosen;
    bool grouped = r.groups > r.chosen_groups;
    scores_of(r, a.logits + t * r.experts, score);
    for (int e = lane; e < r.experts; e += 32) {
        s->key[warp][e] = ordered(a.bias ? score[e] + a.bias[e] : score[e]);
        s->open[warp][e] = !grouped;
    }
    __syncwarp();
    if (grouped) open_groups(r, s, warp);
    for (int j = 0; j < r.chosen; j++) {
        int e = take_largest(s->key[warp], s->open[warp], r.experts), at = j;
        if (lane) continue;
        for (; at > 0 && choice[at - 1] > e; at--) choice[at] = choice[at - 1];
        choice[at] = e;
    }
    if (lane) return;
    for (int j = 0; j < r.chosen; j++) sum += score[choice[j]];
    sum += 1e-20f;
    for (int j = 0; j < r.chosen; j++) weight[j] = (r.normalise ? score[choice[j]] / sum : score[choice[j]]) * r.scale;
}
extern "C" void route_cuda(const Device *device, const RouteArgs *a) {
    if (a->T <= 0) return;
    allow_shared(route_kernel, sizeof(RouteShared));
    LAUNCH(cuda_context(device)->stream, route_kernel, dim3(ceil_div(a->T, WARPS)), dim3(THREADS), sizeof(RouteShared), *a);
}

// ---- its gradient ----------------------------------------------------------------------------------------
struct RouteGradShared {
    float score[WARPS][MAX_EXPERTS], d[WARPS][MAX_EXPERTS];
};
// The segment of row t.
static __device__ int segment_of(const Segments &s, int64_t t) {
    int low = 0, high = s.count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (s.start[middle] <= t)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static __device__ void add_balance(const RouteGradArgs &a, int64_t t, const float *score, float *d) {
    const Router &r = a.router;
    int S = a.segments.count, s = segment_of(a.segments, t), lane = threadIdx.x % 32;
    float factor = a.balance * ((float)r.experts / ((float)r.chosen * (float)(a.segments.start[s + 1] - a.segments.start[s])));
    float all = 0, weighted = 0;
    for (int e = lane; e < r.experts; e += 32) {
        float b = factor * (float)(a.start[(int64_t)e * S + s + 1] - a.start[(int64_t)e * S + s]);
        all += score[e];
        weighted = fmaf(b, score[e], weighted);
    }
    all = warp_sum(all);
    float mean = warp_sum(weighted) / all;
    for (int e = lane; e < r.experts; e += 32) {
        float b = factor * (float)(a.start[(int64_t)e * S + s + 1] - a.start[(int64_t)e * S + s]);
        d[e] += r.sigmoid ? (b - mean) / all : b;
    }
}

static __device__ void add_z(const RouteGradArgs &a, const float *logits, float *d) {
    int lane = threadIdx.x % 32;
    float top = -INFINITY, all = 0;
    for (int e = lane; e < a.router.experts; e += 32) top = fmaxf(top, logits[e]);
    top = warp_max(top);
    for (int e = lane; e < a.router.experts; e += 32) all += expf(logits[e] - top);
    all = warp_sum(all);
    float factor = 2.0f * a.z * (top + logf(all)) / all;
    for (int e = lane; e < a.router.experts; e += 32) d[e] = fmaf(factor, expf(logits[e] - top), d[e]);
}

static __global__ void __launch_bounds__(THREADS) route_grad_kernel(RouteGradArgs a) {
    SHARED(RouteGradShared, s);
    const Router &r = a.router;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t t = (int64_t)blockIdx.x * WARPS + warp;
    if (t >= a.T) return;
    float *score = s->score[warp], *d = s->d[warp], sum = 0, dot = 0;
    const float *dweight = a.dweight + t * r.chosen;
    const int32_t *choice = a.choice + t * r.chosen;
    scores_of(r, a.logits + t * r.experts, score);
    for (int e = lane; e < r.experts; e += 32) d[e] = 0;
    for (int j = 0; j < r.chosen; j++) {
        sum += score[choice[j]];
        dot = fmaf(dweight[j], score[choice[j]], dot);
    }
    sum += 1e-20f;
    dot = dot / sum;
    __syncwarp();
    for (int j = lane; j < r.chosen; j += 32)
        d[choice[j]] = r.normalise ? (dweight[j] - dot) * r.scale / sum : dweight[j] * r.scale;
    __syncwarp();
    if (a.balance != 0) add_balance(a, t, score, d);
    float weighted = 0;
    for (int e = lane; e < r.experts; e += 32) weighted = fmaf(d[e], score[e], weighted);
    float mean = warp_sum(weighted);
    for (int e = lane; e < r.experts; e += 32)
        d[e] = r.sigmoid ? d[e] * (score[e] * (1.0f - score[e])) : score[e] * (d[e] - mean);
    if (a.z != 0) add_z(a, a.logits + t * r.experts, d);
    for (int e = lane; e < r.experts; e += 32) act_put(a.dlogits, t * r.experts + e, d[e], a.dtype);
}
extern "C" void route_grad_cuda(const Device *device, const RouteGradArgs *a) {
    if (a->T <= 0) return;
    LAUNCH(cuda_context(device)->stream, route_grad_kernel, dim3(ceil_div(a->T, WARPS)), dim3(THREADS), sizeof(RouteGradShared), *a);
}

// ---- sorting ---------------------------------------------------------------------------------------------
// start[e S + s] = rows of expert e in segment s. Counting whole numbers by atomics gives the same in any order.
static __global__ void __launch_bounds__(SORT_THREADS) count_kernel(DispatchArgs a) {
    int e = blockIdx.x, S = a.segments.count ? a.segments.count : 1;
    int32_t *counts = a.start + (int64_t)e * S;
    for (int s = threadIdx.x; s < S; s += SORT_THREADS) counts[s] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < a.T * a.chosen; i += SORT_THREADS)
        if (a.choice[i] == e) atomicAdd((unsigned *)&counts[a.segments.count ? segment_of(a.segments, i / a.chosen) : 0], 1u);
}
// Counts to places, in one block: each thread has a run of neighbours.
static __global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(DispatchArgs a) {
    SHARED(int32_t, sums); // [SCAN_THREADS]
    int64_t count = (int64_t)a.experts * (a.segments.count ? a.segments.count : 1), run = (count + SCAN_THREADS - 1) / SCAN_THREADS;
    int64_t from = threadIdx.x * run, to = from + run < count ? from + run : count;
    int32_t sum = 0, before = 0;
    for (int64_t i = from; i < to; i++) sum += a.start[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 1; step < SCAN_THREADS; step *= 2) {
        int32_t other = (int)threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += other;
        __syncthreads();
    }
    before = sums[threadIdx.x] - sum;
    for (int64_t i = from; i < to; i++) {
        int32_t here = a.start[i];
        a.start[i] = before;
        before += here;
    }
    if (threadIdx.x == SCAN_THREADS - 1) a.start[count] = sums[threadIdx.x];
}
static __global__ void __launch_bounds__(SORT_THREADS) place_kernel(DispatchArgs a) {
    SHARED(int32_t, warps); // [SORT_THREADS / 32]
    int e = blockIdx.x, S = a.segments.count ? a.segments.count : 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int32_t first = a.start[(int64_t)e * S], end = a.start[(int64_t)(e + 1) * S], at = first;
    for (int64_t base = 0; base < a.T * a.chosen && at < end; base += SORT_THREADS) {
        int64_t i = base + threadIdx.x;
        bool mine = i < a.T * a.chosen && a.choice[i] == e;
        unsigned ballot = __ballot_sync(0xffffffffu, mine);
        if (lane == 0) warps[warp] = __popc(ballot);
        __syncthreads();
        int32_t place = at + __popc(ballot & ((1u << lane) - 1));
        for (int w = 0; w < SORT_THREADS / 32; w++) {
            if (w < warp) place += warps[w];
            at += warps[w];
        }
        if (mine) {
            a.token[place] = (int32_t)(i / a.chosen);
            a.place[i] = place;
        }
        __syncthreads();
    }
    if (a.load && threadIdx.x == 0) a.load[e] += end - first;
}
extern "C" void dispatch_cuda(const Device *device, const DispatchArgs *a) {
    cudaStream_t stream = cuda_context(device)->stream;
    LAUNCH(stream, count_kernel, dim3((unsigned)a->experts), dim3(SORT_THREADS), 0, *a);
    LAUNCH(stream, scan_kernel, dim3(1), dim3(SCAN_THREADS), SCAN_THREADS * sizeof(int32_t), *a);
    LAUNCH(stream, place_kernel, dim3((unsigned)a->experts), dim3(SORT_THREADS), SORT_THREADS / 32 * sizeof(int32_t), *a);
}

// ---- combining -------------------------------------------------------------------------------------------
static __global__ void __launch_bounds__(SORT_THREADS) combine_kernel(CombineArgs a) {
    int64_t c = (int64_t)blockIdx.y * SORT_THREADS + threadIdx.x;
    if (c >= a.C) return;
    for (int64_t t = blockIdx.x; t < a.T; t += gridDim.x) {
        float sum = 0, *y = a.y + t * a.C + c;
        for (int j = 0; j < a.chosen; j++)
            sum = fmaf(a.weight ? a.weight[t * a.chosen + j] : 1.0f, a.x[a.place[t * a.chosen + j] * a.C + c], sum);
        *y = a.add ? *y + sum : sum;
    }
}
extern "C" void combine_cuda(const Device *device, const CombineArgs *a) {
    if (a->T <= 0 || a->C <= 0) return;
    LAUNCH(cuda_context(device)->stream, combine_kernel, dim3((unsigned)a->T, ceil_div(a->C, SORT_THREADS)), dim3(SORT_THREADS), 0, *a);
}

static __global__ void __launch_bounds__(THREADS) combine_grad_kernel(CombineGradArgs a) {
    int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= a.T * a.chosen) return;
    int64_t at = a.place[i] * a.F;
    float weight = a.weight[i], sum = 0;
    for (int64_t f = threadIdx.x % 32; f < a.F; f += 32) {
        float d = a.dff[at + f], x = act_get(a.ff, at + f, a.dtype);
        sum = fmaf(d, x, sum);
        a.dff[at + f] = d * weight;
        act_put(a.ff, at + f, x * weight, a.dtype);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) a.dweight[i] = sum;
}
extern "C" void combine_grad_cuda(const Device *device, const CombineGradArgs *a) {
    if (a->T <= 0) return;
    LAUNCH(cuda_context(device)->stream, combine_grad_kernel, dim3(ceil_div(a->T * a->chosen, WARPS)), dim3(THREADS), 0, *a);
}

// ---- balance ---------------------------------------------------------------------------------------------
// One block; each thread adds up the whole load, which is a few numbers.
static __global__ void __launch_bounds__(SORT_THREADS) balance_kernel(BalanceArgs a) {
    int64_t total = 0;
    for (int e = 0; e < a.experts; e++) total += a.load[e];
    __syncthreads();
    for (int e = threadIdx.x; e < a.experts; e += SORT_THREADS) {
        int64_t over = a.load[e] * a.experts - total;
        a.bias[e] += over < 0 ? a.rate : over > 0 ? -a.rate : 0.0f;
        a.load[e] = 0;
    }
}
extern "C" void balance_cuda(const Device *device, const BalanceArgs *a) {
    LAUNCH(cuda_context(device)->stream, balance_kernel, dim3(1), dim3(SORT_THREADS), 0, *a);
}
