// Operations on rows of tokens: embedding, RMSNorm, SwiGLU, gather, scatter, conversion, the state of decoding. All of
// them are bound by memory, so what counts is that every byte moves once, in accesses of 16 bytes, with enough of them in
// flight: a thread takes eight neighbouring columns, loads them all before the first use, and a multiprocessor holds
// 1,000 to 2,000 such threads. Elementwise operations (embed, swiglu, gather, convert) have the slow twin's bits, exp included.
//
// Two instances of each kernel: ALIGNED, where C is a multiple of eight and all rows begin at multiples of 16 bytes, and
// one for everything else. Both give a column to the same thread, so they have the same bits.
//
// Orders of sums. RMSNorm: a thread's columns ascending in one chain, a warp's lanes by warp_sum, warps in order; the
// number of threads follows from C. Gradient of RMSNorm's weight: in GRAD_ROWS rows at a time a segment is dealt out to up
// to GRAD_LANES blocks, each one chain from zero; what the blocks give is added in order, then segments in order.
// Embedding's gradient and scatter: a target row is one chain in ascending order of its sources.
#include "cuda.h"
#include "../blocks.h"

// ---- eight columns ---------------------------------------------------------------------------------------
struct Eight {
    float x[8];
};
static __device__ __forceinline__ void spread(float *x, uint4 u) { // eight bf16
    uint32_t pairs[4] = {u.x, u.y, u.z, u.w};
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pairs[i] << 16);
        x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
}
static __device__ __forceinline__ float widen(float x) { return x; }
static __device__ __forceinline__ float widen(bf16 x) { return from_bf16(x); }
static __device__ __forceinline__ void narrow(float *y, float x) { *y = x; }
static __device__ __forceinline__ void narrow(bf16 *y, float x) { *y = to_bf16(x); }

static __device__ __forceinline__ void load_aligned(Eight &v, const float *p) {
    float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
    v.x[0] = a.x, v.x[1] = a.y, v.x[2] = a.z, v.x[3] = a.w, v.x[4] = b.x, v.x[5] = b.y, v.x[6] = b.z, v.x[7] = b.w;
}
static __device__ __forceinline__ void load_aligned(Eight &v, const bf16 *p) { spread(v.x, *(const uint4 *)p); }
static __device__ __forceinline__ void store_aligned(float *p, const Eight &v) {
    ((float4 *)p)[0] = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
    ((float4 *)p)[1] = make_float4(v.x[4], v.x[5], v.x[6], v.x[7]);
}
static __device__ __forceinline__ void store_aligned(bf16 *p, const Eight &v) {
    *(uint4 *)p = make_uint4(pack_bf16x2(v.x[0], v.x[1]), pack_bf16x2(v.x[2], v.x[3]), pack_bf16x2(v.x[4], v.x[5]),
                             pack_bf16x2(v.x[6], v.x[7]));
}
// The first n of eight columns, zeros beyond; n is 8 where ALIGNED.
template <bool ALIGNED, typename Act> static __device__ __forceinline__ Eight load(const Act *p, int n) {
    Eight v;
    if (ALIGNED) {
        load_aligned(v, p);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v.x[i] = i < n ? widen(p[i]) : 0.0f;
    }
    return v;
}
template <bool ALIGNED, typename Act> static __device__ __forceinline__ void store(Act *p, const Eight &v, int n) {
    if (ALIGNED) {
        store_aligned(p, v);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < n) narrow(p + i, v.x[i]);
    }
}
static __device__ __forceinline__ int columns_at(int64_t column, int64_t C) { return C - column < 8 ? (int)(C - column) : 8; }

static bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

// The instance of a kernel for a stored precision and alignment.
#define INSTANCE(kernel, dtype, is_aligned)                                                                  \
    ((dtype) == DTYPE_F32 ? ((is_aligned) ? kernel<true, float> : kernel<false, float>)                      \
                          : ((is_aligned) ? kernel<true, bf16> : kernel<false, bf16>))

// ---- elementwise over rows -------------------------------------------------------------------------------
// Grid: blocks of at most 256 threads, x along a row (eight columns each), y over rows; a long row has several pieces.
struct RowGrid {
    dim3 grid, block;
    unsigned pieces;
};
static RowGrid row_grid(int64_t T, int64_t C) {
    unsigned groups = ceil_div(C, 8), pieces = ceil_div(groups, 256), x = ceil_div(groups, pieces), y = 256 / x;
    return RowGrid{dim3(pieces * ceil_div(T, y)), dim3(x, y), pieces};
}
// This thread's row and first column; false beyond the last.
static __device__ __forceinline__ bool row_place(int64_t T, int64_t C, unsigned pieces, int64_t *row, int64_t *column) {
    *row = (int64_t)(blockIdx.x / pieces) * blockDim.y + threadIdx.y;
    *column = ((int64_t)(blockIdx.x % pieces) * blockDim.x + threadIdx.x) * 8;
    return *row < T && *column < C;
}

template <bool ALIGNED, typename Act> static __global__ void embed_kernel(EmbedArgs a, unsigned pieces) {
    int64_t t, c;
    if (!row_place(a.T, a.C, pieces, &t, &c)) return;
    int n = columns_at(c, a.C);
    const Act *row = (const Act *)a.table + a.tokens[t] * packed_stride(a.C) + c;
    Eight x = load<ALIGNED>(row, n);
    float scale = a.scale != 0 ? a.scale : 1.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) x.x[i] *= scale;
    store<ALIGNED>(a.y + t * a.C + c, x, n);
}
// A thread decodes a group of 32. Grid: tokens times groups, 256 a block.
template <typename Act> static __global__ void embed_blocks_kernel(EmbedArgs a) {
    int64_t groups = a.C / 32, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = at / groups, group = at % groups;
    if (t >= a.T) return;
    float values[32], scale = a.scale != 0 ? a.scale : 1.0f, *y = a.y + t * a.C + 32 * group;
    block_group(a.format, (const uint8_t *)a.table + a.tokens[t] * blocks_row_bytes(a.format, a.C), group, values);
    for (int i = 0; i < 32; i++) {
        Act rounded;
        narrow(&rounded, values[i]);
        y[i] = widen(rounded) * scale;
    }
}
void embed_cuda(const Device *device, const EmbedArgs *a) {
    if (a->T <= 0 || a->C <= 0) return;
    if (a->format != WEIGHT_PACKED) {
        dim3 grid((unsigned)ceil_div(a->T * (a->C / 32), 256));
        if (a->dtype == DTYPE_F32) LAUNCH(cuda_context(device)->stream, embed_blocks_kernel<float>, grid, dim3(256), 0, *a);
        else LAUNCH(cuda_context(device)->stream, embed_blocks_kernel<bf16>, grid, dim3(256), 0, *a);
        return;
    }
    RowGrid g = row_grid(a->T, a->C);
    auto kernel = INSTANCE(embed_kernel, a->dtype, a->C % 8 == 0 && aligned(a->table) && aligned(a->y));
    LAUNCH(cuda_context(device)->stream, kernel, g.grid, g.block, 0, *a, g.pieces);
}

// exp as the slow twin has it (Cephes' polynomial), so that SwiGLU has its bits.
static __device__ __forceinline__ float exp_float(float x) {
    float y = x < 88.3762626647949f ? x : 88.3762626647949f;
    float shifted = fmaf(y, 1.44269504088896341f, 12582912.0f), n = shifted - 12582912.0f;
    float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, y));
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    p *= __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
    return x != x ? x : x < -87.336544f ? 0.0f : p;
}
// Below the smallest normal number it is zero, as on the CPU, which flushes denormals: so silu(-infinity) is NaN on both.
static __device__ __forceinline__ float sigmoid(float x) {
    float s = 1.0f / (1.0f + exp_float(0.0f - x));
    return s < 0x1p-126f ? 0.0f : s;
}

// What the gate's sigmoid is of, and the slope of gate(x) given s = sigmoid of that: the twin's steps.
static __device__ __forceinline__ float gate_argument(Gate gate, float x) {
    return gate == GATE_SILU ? x : 1.5957691216057308f * x * fmaf(0.044715f, x * x, 1.0f);
}
static __device__ __forceinline__ float gate_slope(Gate gate, float x, float s) {
    float inner = gate == GATE_SILU ? x : x * (1.5957691216057308f * fmaf(0.134145f, x * x, 1.0f));
    return s * fmaf(inner, 1.0f - s, 1.0f);
}

template <bool ALIGNED, typename Act> static __global__ void swiglu_kernel(SwigluArgs a, unsigned pieces) {
    int64_t t, c;
    if (!row_place(a.T, a.F, pieces, &t, &c)) return;
    int n = columns_at(c, a.F);
    const Act *row = (const Act *)a.gate_up + t * 2 * a.F + c;
    Eight gate = load<ALIGNED>(row, n), up = load<ALIGNED>(row + a.F, n), y;
#pragma unroll
    for (int i = 0; i < 8; i++) y.x[i] = gate.x[i] * sigmoid(gate_argument(a.gate, gate.x[i])) * up.x[i];
    store<ALIGNED>((Act *)a.y + t * a.F + c, y, n);
}
void swiglu_cuda(const Device *device, const SwigluArgs *a) {
    if (a->T <= 0 || a->F <= 0) return;
    RowGrid g = row_grid(a->T, a->F);
    auto kernel = INSTANCE(swiglu_kernel, a->dtype, a->F % 8 == 0 && aligned(a->gate_up) && aligned(a->y));
    LAUNCH(cuda_context(device)->stream, kernel, g.grid, g.block, 0, *a, g.pieces);
}

template <bool ALIGNED, typename Act> static __global__ void swiglu_grad_kernel(SwigluGradArgs a, unsigned pieces) {
    int64_t t, c;
    if (!row_place(a.T, a.F, pieces, &t, &c)) return;
    int n = columns_at(c, a.F);
    int64_t at = t * 2 * a.F + c;
    const Act *row = (const Act *)a.gate_up + at;
    Eight gate = load<ALIGNED>(row, n), up = load<ALIGNED>(row + a.F, n), dy = load<ALIGNED>(a.dy + t * a.F + c, n);
    Eight dgate, dup, y;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float g = gate.x[i], s = sigmoid(gate_argument(a.gate, g));
        dgate.x[i] = dy.x[i] * up.x[i] * gate_slope(a.gate, g, s);
        dup.x[i] = dy.x[i] * (g * s);
        y.x[i] = g * s * up.x[i];
    }
    store<ALIGNED>((Act *)a.dgate_up + at, dgate, n);
    store<ALIGNED>((Act *)a.dgate_up + at + a.F, dup, n);
    if (a.y) store<ALIGNED>((Act *)a.y + t * a.F + c, y, n);
}
void swiglu_grad_cuda(const Device *device, const SwigluGradArgs *a) {
    if (a->T <= 0 || a->F <= 0) return;
    RowGrid g = row_grid(a->T, a->F);
    bool even = a->F % 8 == 0 && aligned(a->gate_up) && aligned(a->dy) && aligned(a->dgate_up) && aligned(a->y);
    auto kernel = INSTANCE(swiglu_grad_kernel, a->dtype, even);
    LAUNCH(cuda_context(device)->stream, kernel, g.grid, g.block, 0, *a, g.pieces);
}

template <bool ALIGNED, typename Act> static __global__ void gather_kernel(GatherArgs a, unsigned pieces) {
    int64_t t, c;
    if (!row_place(a.T, a.C, pieces, &t, &c)) return;
    int n = columns_at(c, a.C);
    const Act *from = (const Act *)a.x + a.row[t] * a.C + c;
    Act *to = (Act *)a.y + t * a.C + c;
    if (ALIGNED) {
        for (int i = 0; i < (int)(8 * sizeof(Act) / 16); i++) ((uint4 *)to)[i] = ((const uint4 *)from)[i];
    } else {
        for (int i = 0; i < n; i++) to[i] = from[i];
    }
}
void gather_cuda(const Device *device, const GatherArgs *a) {
    if (a->T <= 0 || a->C <= 0) return;
    RowGrid g = row_grid(a->T, a->C);
    auto kernel = INSTANCE(gather_kernel, a->dtype, a->C % 8 == 0 && aligned(a->x) && aligned(a->y));
    LAUNCH(cuda_context(device)->stream, kernel, g.grid, g.block, 0, *a, g.pieces);
}

// Grid: a block a row, array after array; 16 bytes a thread where a row begins and ends at multiples of 16, else one.
static __global__ void move_rows_kernel(MoveRowsArgs a) {
    int64_t from = a.from ? a.from[blockIdx.x] : blockIdx.x, to = a.to ? a.to[blockIdx.x] : blockIdx.x;
    for (int k = 0; k < a.count; k++) {
        int64_t bytes = (int64_t)a.arrays[k].bytes;
        const char *x = (const char *)a.arrays[k].x + from * bytes;
        char *y = (char *)a.arrays[k].y + to * bytes;
        if (((uintptr_t)x | (uintptr_t)y | (uintptr_t)bytes) % 16 == 0) {
            for (int64_t i = threadIdx.x; i < bytes / 16; i += blockDim.x) ((uint4 *)y)[i] = ((const uint4 *)x)[i];
        } else {
            for (int64_t i = threadIdx.x; i < bytes; i += blockDim.x) y[i] = x[i];
        }
    }
}
void move_rows_cuda(const Device *device, const MoveRowsArgs *a) {
    if (a->n <= 0) return;
    LAUNCH(cuda_context(device)->stream, move_rows_kernel, dim3((unsigned)a->n), dim3(128), 0, *a);
}

static __device__ int64_t converted_place(const ConvertArgs &a, int64_t i) { return a.columns ? i / a.columns * a.ldy + i % a.columns : i; }
// Grid: 256 threads of eight numbers each. Eight of one row stay together; rows whose width isn't a multiple of eight go one by one.
template <bool ALIGNED, typename Act> static __global__ void convert_kernel(ConvertArgs a) {
    int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= a.count) return;
    int n = columns_at(at, a.count);
    if (ALIGNED && n == 8)
        store<true>((Act *)a.y + converted_place(a, at), load<true>(a.x + at, 8), 8);
    else if (a.columns == 0)
        store<false>((Act *)a.y + at, load<false>(a.x + at, n), n);
    else
        for (int i = 0; i < n; i++) store<false>((Act *)a.y + converted_place(a, at + i), load<false>(a.x + at + i, 1), 1);
}
void convert_cuda(const Device *device, const ConvertArgs *a) {
    if (a->count <= 0) return;
    auto kernel = INSTANCE(convert_kernel, a->dtype, aligned(a->x) && aligned(a->y) && a->columns % 8 == 0 && a->ldy % 8 == 0);
    LAUNCH(cuda_context(device)->stream, kernel, dim3(ceil_div(a->count, 2048)), dim3(256), 0, *a);
}

// ---- RMSNorm ---------------------------------------------------------------------------------------------
// One block a row; its threads follow from C alone. The second pass over x finds it in the first-level cache.
static unsigned norm_threads(int64_t C) {
    unsigned threads = ceil_div(ceil_div(C, 8), 32) * 32;
    return threads < 256 ? threads : 256;
}
// The sum over the block, for every thread; warps [8] in shared memory.
static __device__ float block_sum(float x, float *warps) {
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    __syncthreads(); // what an earlier sum left has been read
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = warps[0];
    for (unsigned w = 1; w < blockDim.x / 32; w++) sum += warps[w];
    return sum;
}

// The multiplier of a norm's columns.
template <bool ALIGNED> static __device__ __forceinline__ Eight norm_weight(const float *weight, int n, bool offset) {
    Eight w = load<ALIGNED>(weight, n);
#pragma unroll
    for (int i = 0; i < 8; i++) w.x[i] = offset ? 1.0f + w.x[i] : w.x[i];
    return w;
}

// Act: of y, fp32 unless it is stored as an act array. A block's row: token t, and one of the rows beside each other in it.
template <bool ALIGNED, typename Act> static __global__ void rmsnorm_kernel(RmsnormArgs a) {
    SHARED(float, warps);
    int64_t t = (int64_t)blockIdx.x / a.heads, in_row = (int64_t)blockIdx.x % a.heads * a.C, stride = (int64_t)blockDim.x * 8;
    const float *row = a.x + t * a.ldx + in_row;
    Act *y_row = (Act *)a.y + t * a.ldy + in_row;
    float sum = 0;
    for (int64_t c = (int64_t)threadIdx.x * 8; c < a.C; c += stride) {
        Eight x = load<ALIGNED>(row + c, columns_at(c, a.C));
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(x.x[i], x.x[i], sum);
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, warps) / (float)a.C + a.eps);
    if (a.rstd && threadIdx.x == 0) a.rstd[blockIdx.x] = rstd;
    for (int64_t c = (int64_t)threadIdx.x * 8; c < a.C; c += stride) {
        int n = columns_at(c, a.C);
        Eight x = load<ALIGNED>(row + c, n), weight = norm_weight<ALIGNED>(a.weight + c, n, a.offset), y = {};
        if (a.store == ADD_F32) y = load<ALIGNED>(y_row + c, n);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float value = x.x[i] * rstd * weight.x[i];
            x.x[i] = a.store == ADD_F32 ? y.x[i] + value : value;
        }
        store<ALIGNED>(y_row + c, x, n);
    }
}
void rmsnorm_cuda(const Device *device, const RmsnormArgs *args) {
    RmsnormArgs a = *args;
    if (a.T <= 0 || a.C <= 0) return;
    if (!a.heads) a.heads = 1;
    if (!a.ldx) a.ldx = a.heads * a.C;
    if (!a.ldy) a.ldy = a.heads * a.C;
    bool even = a.C % 8 == 0 && a.ldx % 8 == 0 && a.ldy % 8 == 0 && aligned(a.x) && aligned(a.weight) && aligned(a.y);
    auto kernel = INSTANCE(rmsnorm_kernel, a.store == STORE_ACT ? a.dtype : DTYPE_F32, even);
    LAUNCH(cuda_context(device)->stream, kernel, dim3((unsigned)(a.T * a.heads)), dim3(norm_threads(a.C)), 8 * sizeof(float), a);
}

// Grid: (lane, segment). Lane l of a segment walks its rows in pieces l, l + lanes, ... of GRAD_ROWS: each row's dx, and
// in `sums` what the lane's rows add to dweight. A thread owns its columns of `sums`, so it may lie in shared memory or,
// for a width that doesn't fit, be the lane's row of `partial` itself.
enum { GRAD_ROWS = 8, GRAD_LANES = 256, GRAD_SHARED = 96 * 1024 };
struct NormGrad {
    RmsnormGradArgs a;
    float *partial;        // [segments of this launch][lanes][C]
    int lanes;             // of a segment; follows from C alone
    int first_segment, segment_count;
    bool in_shared;
};
static __device__ __forceinline__ int64_t segment_start(const NormGrad &g, int segment) { // in rows; without segments: one
    return (g.a.segments.count ? g.a.segments.start[segment] : segment ? g.a.T : 0) * g.a.heads;
}
static __device__ __forceinline__ int64_t lanes_used(const NormGrad &g, int64_t rows) {
    int64_t pieces = (rows + GRAD_ROWS - 1) / GRAD_ROWS;
    return pieces < g.lanes ? pieces : g.lanes;
}

// With xhat = x rstd and g = dy weight: dx = rstd (g - xhat mean(g xhat)); dweight = sum_t dy xhat.
template <bool ALIGNED> static __device__ void rmsnorm_grad_row(const RmsnormGradArgs &a, int64_t row, float *warps, float *sums) {
    int64_t stride = (int64_t)blockDim.x * 8, t = row / a.heads, in_row = row % a.heads * a.C, to = t * a.lddx + in_row;
    const float *x_row = a.x + t * a.ldx + in_row, *dy_row = a.dy + t * a.lddy + in_row;
    float rstd = a.rstd[row], sum = 0;
    for (int64_t c = (int64_t)threadIdx.x * 8; c < a.C; c += stride) {
        int n = columns_at(c, a.C);
        Eight x = load<ALIGNED>(x_row + c, n), dy = load<ALIGNED>(dy_row + c, n), weight = norm_weight<ALIGNED>(a.weight + c, n, a.offset);
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(dy.x[i] * weight.x[i], x.x[i] * rstd, sum);
    }
    float mean = block_sum(sum, warps) / (float)a.C;
    for (int64_t c = (int64_t)threadIdx.x * 8; c < a.C; c += stride) {
        int n = columns_at(c, a.C);
        Eight dx = {}, total = load<ALIGNED>(sums + c, n);
        if (!a.written) dx = load<ALIGNED>((const float *)a.dx + to + c, n);
        Eight x = load<ALIGNED>(x_row + c, n), dy = load<ALIGNED>(dy_row + c, n), weight = norm_weight<ALIGNED>(a.weight + c, n, a.offset);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float xhat = x.x[i] * rstd;
            float d = rstd * (dy.x[i] * weight.x[i] - xhat * mean);
            dx.x[i] = a.written ? d : dx.x[i] + d;
            total.x[i] = fmaf(dy.x[i], xhat, total.x[i]);
        }
        if (a.written && a.dtype == DTYPE_BF16)
            store<ALIGNED>((bf16 *)a.dx + to + c, dx, n);
        else
            store<ALIGNED>((float *)a.dx + to + c, dx, n);
        store<ALIGNED>(sums + c, total, n);
    }
}
template <bool ALIGNED> static __global__ void rmsnorm_grad_kernel(NormGrad g) {
    SHARED(float, shared); // [8] of block_sum, then the sums
    int segment = g.first_segment + (int)blockIdx.y;
    int64_t start = segment_start(g, segment), end = segment_start(g, segment + 1), stride = (int64_t)blockDim.x * 8;
    if ((int64_t)blockIdx.x >= lanes_used(g, end - start)) return;
    float *partial = g.partial + ((int64_t)blockIdx.y * g.lanes + blockIdx.x) * g.a.C, *sums = g.in_shared ? shared + 8 : partial;
    Eight zero = {};
    for (int64_t c = (int64_t)threadIdx.x * 8; c < g.a.C; c += stride) store<ALIGNED>(sums + c, zero, columns_at(c, g.a.C));
    for (int64_t piece = start + (int64_t)blockIdx.x * GRAD_ROWS; piece < end; piece += (int64_t)g.lanes * GRAD_ROWS)
        for (int64_t t = piece; t < end && t < piece + GRAD_ROWS; t++) rmsnorm_grad_row<ALIGNED>(g.a, t, shared, sums);
    for (int64_t c = (int64_t)threadIdx.x * 8; c < g.a.C && g.in_shared; c += stride)
        store<ALIGNED>(partial + c, load<ALIGNED>(sums + c, columns_at(c, g.a.C)), columns_at(c, g.a.C));
}

// dweight += the segments of this launch in order. Grid: 32 columns a block, WEIGHT_SEGMENTS segments at a time, a warp each.
enum { WEIGHT_SEGMENTS = 16 };
static __global__ void rmsnorm_weight_kernel(NormGrad g) {
    SHARED(float, sums); // [WEIGHT_SEGMENTS][32]
    int64_t c = (int64_t)blockIdx.x * 32 + threadIdx.x;
    bool inside = c < g.a.C, first = threadIdx.y == 0;
    float total = inside && first ? g.a.dweight[c] : 0.0f;
    for (int from = 0; from < g.segment_count; from += WEIGHT_SEGMENTS) {
        int at = from + (int)threadIdx.y, segment = g.first_segment + at;
        float sum = 0;
        if (inside && at < g.segment_count) {
            int64_t used = lanes_used(g, segment_start(g, segment + 1) - segment_start(g, segment));
            const float *partial = g.partial + (int64_t)at * g.lanes * g.a.C + c;
#pragma unroll 8
            for (int64_t lane = 0; lane < used; lane++) sum += partial[lane * g.a.C];
        }
        sums[threadIdx.y * 32 + threadIdx.x] = sum;
        __syncthreads();
        for (int i = 0; first && i < WEIGHT_SEGMENTS && from + i < g.segment_count; i++) total += sums[i * 32 + threadIdx.x];
        __syncthreads();
    }
    if (inside && first) g.a.dweight[c] = total;
}

static int segment_rows(const RmsnormGradArgs *a, int segment) {
    return (a->segments.count ? a->segments.host[segment + 1] - a->segments.host[segment] : (int)a->T) * a->heads;
}
void rmsnorm_grad_cuda(const Device *device, const RmsnormGradArgs *args) {
    RmsnormGradArgs given = *args, *a = &given;
    if (a->T <= 0 || a->C <= 0) return;
    if (!a->heads) a->heads = 1;
    if (!a->ldx) a->ldx = a->heads * a->C;
    if (!a->lddy) a->lddy = a->heads * a->C;
    if (!a->lddx) a->lddx = a->heads * a->C;
    CudaContext *cuda = cuda_context(device);
    int64_t room = (int64_t)CUDA_SCRATCH / 4 / a->C, segments = a->segments.count ? a->segments.count : 1;
    bool whole = a->C % 8 == 0 && a->ldx % 8 == 0 && a->lddy % 8 == 0 && a->lddx % 8 == 0;
    bool even = whole && aligned(a->x) && aligned(a->weight) && aligned(a->dy) && aligned(a->dx);
    auto kernel = even ? rmsnorm_grad_kernel<true> : rmsnorm_grad_kernel<false>;
    NormGrad g = {*a, (float *)cuda->scratch, room < GRAD_LANES ? (int)room : (int)GRAD_LANES, 0, 0, a->C * 4 <= GRAD_SHARED};
    int64_t at_once = room / g.lanes < 32768 ? room / g.lanes : 32768;
    size_t shared = (8 + (g.in_shared ? (size_t)a->C : 0)) * sizeof(float);
    allow_shared(kernel, shared);
    for (int64_t from = 0; from < segments; from += at_once) {
        g.first_segment = (int)from;
        g.segment_count = (int)(segments - from < at_once ? segments - from : at_once);
        int longest = 0;
        for (int s = 0; s < g.segment_count; s++) {
            int rows = segment_rows(a, g.first_segment + s);
            longest = rows > longest ? rows : longest;
        }
        if (!longest) continue;
        unsigned lanes = ceil_div(longest, GRAD_ROWS) < (unsigned)g.lanes ? ceil_div(longest, GRAD_ROWS) : (unsigned)g.lanes;
        LAUNCH(cuda->stream, kernel, dim3(lanes, (unsigned)g.segment_count), dim3(norm_threads(a->C)), shared, g);
        LAUNCH(cuda->stream, rmsnorm_weight_kernel, dim3(ceil_div(a->C, 32)), dim3(32, WEIGHT_SEGMENTS),
               WEIGHT_SEGMENTS * 32 * sizeof(float), g);
    }
}

// ---- y[row[t]] += x[t], t ascending -----------------------------------------------------------------------
// Target rows are dealt out to buckets by a hash; a block has one bucket and 1,024 columns. It reads all of `row` (from
// the second-level cache), lists the t of its bucket in order, and adds each target's sources in one chain, held in
// registers. So a frequent target costs one pass over its sources, and the number of buckets changes no bit.
enum { ADD_THREADS = 256, ADD_TILE = ADD_THREADS * 4, ADD_LIST = 2 * ADD_TILE, ADD_AHEAD = 8 };
struct AddRows {
    int64_t T, C;
    const int32_t *row; // [T]
    const float *x;     // [T, C]
    float *y;           // [., C]
    float scale;        // of x
    unsigned buckets;
};
struct AddList {
    int64_t base; // source of position 0
    int32_t position[ADD_LIST], target[ADD_LIST], next[ADD_LIST]; // next: index of the same target's next source, or -1
    bool first[ADD_LIST];
    int warps[ADD_THREADS / 32];
};

template <bool ALIGNED> static __device__ __forceinline__ float4 load_four(const float *p, int n) {
    if (ALIGNED) return *(const float4 *)p;
    return make_float4(p[0], n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f);
}
template <bool ALIGNED> static __device__ __forceinline__ void store_four(float *p, float4 v, int n) {
    if (ALIGNED) {
        *(float4 *)p = v;
        return;
    }
    p[0] = v.x;
    if (n > 1) p[1] = v.y;
    if (n > 2) p[2] = v.z;
    if (n > 3) p[3] = v.w;
}

// Adds what is listed; the block is together before and after.
template <bool ALIGNED> static __device__ void add_listed(const AddRows &a, AddList *list, int count) {
    int64_t c = ((int64_t)blockIdx.y * ADD_THREADS + threadIdx.x) * 4;
    int n = a.C - c < 4 ? (int)(a.C - c) : 4;
    for (int k = (int)threadIdx.x; k < count; k += ADD_THREADS) list->next[k] = -1;
    __syncthreads();
    for (int k = (int)threadIdx.x; k < count; k += ADD_THREADS) {
        int before = k - 1;
        while (before >= 0 && list->target[before] != list->target[k]) before--;
        list->first[k] = before < 0;
        if (before >= 0) list->next[before] = k;
    }
    __syncthreads();
    for (int i = 0; i < count && n > 0; i++) {
        if (!list->first[i]) continue;
        float *y = a.y + list->target[i] * a.C + c;
        float4 sum = load_four<ALIGNED>(y, n);
        for (int k = i; k >= 0;) {
            float4 x[ADD_AHEAD];
            int loaded = 0;
#pragma unroll
            for (int j = 0; j < ADD_AHEAD; j++)
                if (k >= 0) {
                    x[j] = load_four<ALIGNED>(a.x + (list->base + list->position[k]) * a.C + c, n);
                    k = list->next[k];
                    loaded = j + 1;
                }
#pragma unroll
            for (int j = 0; j < ADD_AHEAD; j++)
                if (j < loaded) sum.x += x[j].x * a.scale, sum.y += x[j].y * a.scale, sum.z += x[j].z * a.scale, sum.w += x[j].w * a.scale;
        }
        store_four<ALIGNED>(y, sum, n);
    }
    __syncthreads();
}

// Appends the sources of this bucket among [from, from + ADD_TILE); returns the list's new length.
static __device__ int add_list(const AddRows &a, AddList *list, int64_t from, int count) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, mine = 0, targets[4];
    int64_t t = from + (int64_t)threadIdx.x * 4;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        targets[j] = t + j < a.T ? a.row[t + j] : -1;
        uint32_t hash = (uint32_t)targets[j] * 2654435761u;
        if (targets[j] >= 0 && (uint32_t)((uint64_t)hash * a.buckets >> 32) != blockIdx.x) targets[j] = -1;
        mine += targets[j] >= 0;
    }
    int before = mine; // an inclusive sum over the warp, then without this thread's
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, before, step);
        if (lane >= step) before += other;
    }
    if (lane == 31) list->warps[warp] = before;
    __syncthreads();
    int at = count + before - mine, total = count;
    for (int w = 0; w < ADD_THREADS / 32; w++) {
        if (w < warp) at += list->warps[w];
        total += list->warps[w];
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (targets[j] >= 0) {
            list->position[at] = (int32_t)(t + j - list->base);
            list->target[at++] = targets[j];
        }
    __syncthreads();
    return total;
}

template <bool ALIGNED> static __global__ void add_rows_kernel(AddRows a) {
    SHARED(AddList, list);
    int count = 0;
    if (threadIdx.x == 0) list->base = 0;
    __syncthreads();
    for (int64_t from = 0; from < a.T; from += ADD_TILE) {
        count = add_list(a, list, from, count);
        bool last = from + ADD_TILE >= a.T;
        if (!last && count <= ADD_LIST - ADD_TILE && from - list->base < (1 << 30)) continue;
        add_listed<ALIGNED>(a, list, count);
        if (threadIdx.x == 0) list->base = from + ADD_TILE;
        __syncthreads();
        count = 0;
    }
}
static void add_rows(const Device *device, AddRows a) {
    if (a.T <= 0 || a.C <= 0) return;
    a.buckets = ceil_div(a.T, 4) < 1024 ? ceil_div(a.T, 4) : 1024;
    auto kernel = a.C % 4 == 0 && aligned(a.x) && aligned(a.y) ? add_rows_kernel<true> : add_rows_kernel<false>;
    dim3 grid(a.buckets, ceil_div(a.C, ADD_THREADS * 4));
    LAUNCH(cuda_context(device)->stream, kernel, grid, dim3(ADD_THREADS), sizeof(AddList), a);
}
void embed_grad_cuda(const Device *device, const EmbedGradArgs *a) {
    add_rows(device, AddRows{a->T, a->C, a->tokens, a->dy, a->dtable, a->scale != 0 ? a->scale : 1.0f, 0});
}
void scatter_cuda(const Device *device, const ScatterArgs *a) { add_rows(device, AddRows{a->T, a->C, a->row, a->x, a->y, 1.0f, 0}); }

// ---- decoding --------------------------------------------------------------------------------------------
// A warp per row; its first lane does all but copying the ids of a kept set.
enum { ADVANCE_WARPS = 4 };
static __global__ void __launch_bounds__(ADVANCE_WARPS * 32) advance_kernel(AdvanceArgs a) {
    int64_t m = (int64_t)blockIdx.x * ADVANCE_WARPS + threadIdx.x / 32;
    if (m >= a.M) return;
    DecodeRow state = a.state[m];
    __syncwarp(); // all have read it
    if (state.ended) return;
    SampleRow *row = &a.rows[m];
    int32_t token = row->token, lane = (int32_t)threadIdx.x % 32, kept = row->kept ? row->kept_count : 0;
    DrawRecord *record = record_at(a.record, a.kept_room, state.recorded++ % a.ring * a.M + m);
    for (int32_t i = lane; kept <= a.kept_room && i < kept; i += 32) record_ids(record)[i] = row->kept[i];
    if (lane) return;
    *record = DrawRecord{token, row->logprob, row->entropy, kept};
    state.ended = ++state.length >= state.max_tokens || kept > a.kept_room;
    for (int i = 0; i < a.stop_count && !state.ignore_stop; i++) state.ended |= a.stop[i] == token;
    if (!state.ended && a.tokens) {
        int32_t position = ++state.position;
        a.tokens[m] = token;
        a.position[m] = position;
        a.slot[m] = (int64_t)a.table[m * a.table_stride + position / PAGE] * PAGE + position % PAGE;
        row->uniform = philox_uniform(state.key.key, state.step, state.prompt, state.sample, (uint32_t)state.length);
    }
    a.state[m] = state;
}
void advance_cuda(const Device *device, const AdvanceArgs *a) {
    if (a->M <= 0) return;
    LAUNCH(cuda_context(device)->stream, advance_kernel, dim3(ceil_div(a->M, ADVANCE_WARPS)), dim3(ADVANCE_WARPS * 32), 0, *a);
}
