// dw += dy^T x and dbias += sum of dy, group by group, on CUDA devices.
//
// Order of sums (cuda.h): a segment is one sum from zero over its tokens in chunks of K_CHUNK, counted from the segment's
// start; segments are added to dw in order. So a call over two segments gives the bits of two calls over one each.
//
// Which product is done by which: a segment of bf16 with at least LIBRARY_TOKENS tokens goes to cuBLASLt where it is there
// (cublas.cu pins its algorithm): the sum needn't be equal to any other pass's, and wgmma is out of mma.sync's reach. Shorter
// segments, odd shapes and fp32 go to own kernels: the library would read and write all of dw for each short segment,
// which here stays in registers over all of a run of segments. The choice depends on the segment's own size and on the
// matrix, never on the segments beside it. dbias is always summed here.
//
// Own kernel: a block owns a tile of dw, 128 x 128 by 8 warps of 64 x 32 or, where those are fewer than the machine could
// take, 64 x 64 by 4 warps of 32 x 32. Stages of 32 tokens of dy and x come by cp.async as they lie, [tokens][columns],
// swizzled in pieces of 16 bytes, and ldmatrix.trans turns them: rows of the mma are n, its columns k, tokens are reduced.
// Three sets of sums live in registers: of the chunk, of the segment, and dw itself, which is read (unless it is only written) and
// written once.
// Grid: x tiles along K, y tiles along N, so that neighbours share dy; z products, where there are many.
#include "chain.h"
#include "cublas.h"

enum {
    STEP = 32,  // tokens of a stage
    PIECE = 8,  // bf16 in 16 bytes
    STAGES = 4,
    LIBRARY_TOKENS = 1024,
    BIAS_COLUMNS = 32, // of a block
    BIAS_CHUNKS = 32,  // taken at once
};
static_assert(K_CHUNK % STEP == 0, "a chunk is whole stages");

typedef struct Gradient {
    MatmulGradArgs args;
    int first, last; // segments
} Gradient;

template <int ROWS_, int COLUMNS_, int ROW_WARPS_, int COLUMN_WARPS_, bool VECTOR_> struct GradientTile {
    enum {
        ROWS = ROWS_,       // along N
        COLUMNS = COLUMNS_, // along K
        ROW_WARPS = ROW_WARPS_,
        THREADS = 32 * ROW_WARPS_ * COLUMN_WARPS_,
        WARP_ROWS = ROWS_ / ROW_WARPS_,
        WARP_COLUMNS = COLUMNS_ / COLUMN_WARPS_,
        I = WARP_ROWS / 16, // mma tiles of a warp
        J = WARP_COLUMNS / 8,
        VECTOR = VECTOR_, // 16-byte loads are aligned
        STAGE = (ROWS_ + COLUMNS_) * STEP, // elements
        SHARED_BYTES = STAGES * STAGE * 2 + STAGES * 4,
    };
};

// ---- the walk over tokens --------------------------------------------------------------------------------
// Stages of segments [segment, last), none empty.
typedef struct Walk {
    const int32_t *start;
    int segment, last;
    int begin, end, at; // of the segment; where the stage begins
} Walk;
static __device__ __forceinline__ void walk_enter(Walk *w) {
    while (w->segment < w->last && w->start[w->segment] == w->start[w->segment + 1]) w->segment++;
    if (w->segment == w->last) return;
    w->begin = w->at = w->start[w->segment];
    w->end = w->start[w->segment + 1];
}
typedef enum StageEnd { NO_STAGE, INSIDE, CHUNK_ENDS, SEGMENT_ENDS } StageEnd;
static __device__ __forceinline__ StageEnd walk_end(const Walk &w) {
    if (w.segment >= w.last) return NO_STAGE;
    if (w.at + STEP >= w.end) return SEGMENT_ENDS;
    return (w.at + STEP - w.begin) % K_CHUNK == 0 ? CHUNK_ENDS : INSIDE;
}
static __device__ __forceinline__ void walk_next(Walk *w) {
    w->at += STEP;
    if (w->at < w->end) return;
    w->segment++;
    walk_enter(w);
}

// ---- loads -----------------------------------------------------------------------------------------------
template <int WIDTH> static __device__ __forceinline__ bf16 *piece_of(bf16 *tile, int token, int piece) {
    return tile + token * WIDTH + ((piece ^ (token & 7)) * PIECE);
}

// Tokens [at, end) of columns from c0 to tile [STEP][WIDTH], zero beyond. In rows of whole pieces the columns between
// `columns` and the next multiple of eight come along: they only meet outputs that nobody stores.
template <typename T, int WIDTH>
static __device__ __forceinline__ void load_tokens(bf16 *tile, const bf16 *x, int64_t stride, int64_t columns, int64_t c0, const Walk &w) {
    enum { PIECES = WIDTH / PIECE };
#pragma unroll
    for (int first = 0; first < STEP * PIECES; first += T::THREADS) {
        int token = (first + (int)threadIdx.x) / PIECES, piece = (first + (int)threadIdx.x) % PIECES;
        int64_t c = c0 + piece * PIECE;
        const bf16 *from = x + (int64_t)(w.at + token) * stride + c;
        bool valid = w.at + token < w.end && c < columns;
        bf16 *to = piece_of<WIDTH>(tile, token, piece);
        if (T::VECTOR) {
            cp_async_16(to, from, valid);
            continue;
        }
        uint32_t pair[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < PIECE; i++)
            if (valid && c + i < columns) pair[i / 2] |= (uint32_t)from[i] << (i % 2 * 16);
        *(uint4 *)to = make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
}
// The next stage, if there is one, and what ends with it: those who sum needn't walk once more.
template <typename T>
static __device__ __forceinline__ void load_stage(const Gradient &g, bf16 *stage, StageEnd *end, int64_t n0, int64_t k0, Walk *w) {
    StageEnd what = walk_end(*w);
    if (threadIdx.x == 0) *end = what;
    if (what == NO_STAGE) return;
    load_tokens<T, T::ROWS>(stage, (const bf16 *)g.args.dy, g.args.ldy, g.args.N, n0, *w);
    load_tokens<T, T::COLUMNS>(stage + T::ROWS * STEP, (const bf16 *)g.args.x, g.args.ldx, g.args.K, k0, *w);
    walk_next(w);
}

// ---- products --------------------------------------------------------------------------------------------
template <typename T> static __device__ __forceinline__ void multiply_stage(bf16 *stage, float sum[T::I][T::J][4]) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int row = warp % T::ROW_WARPS * T::WARP_ROWS, column = warp / T::ROW_WARPS * T::WARP_COLUMNS;
    bf16 *dy = stage, *x = stage + T::ROWS * STEP;
#pragma unroll
    for (int t = 0; t < STEP; t += 16) {
        uint32_t a[T::I][4];
#pragma unroll
        for (int i = 0; i < T::I; i++) // 8 x 8: (n, t), (n + 8, t), (n, t + 8), (n + 8, t + 8)
            ldmatrix_x4_trans(a[i], piece_of<T::ROWS>(dy, t + lane / 16 * 8 + lane % 8, (row + i * 16) / PIECE + lane / 8 % 2));
#pragma unroll
        for (int j = 0; j < T::J; j += 2) { // (t, k), (t + 8, k), (t, k + 8), (t + 8, k + 8)
            uint32_t b[4];
            ldmatrix_x4_trans(b, piece_of<T::COLUMNS>(x, t + lane / 8 % 2 * 8 + lane % 8, (column + j * 8) / PIECE + lane / 16));
#pragma unroll
            for (int i = 0; i < T::I; i++) {
                mma_m16n8k16_bf16(sum[i][j], a[i], b);
                mma_m16n8k16_bf16(sum[i][j + 1], a[i], b + 2);
            }
        }
    }
}

template <typename T> static __device__ __forceinline__ void add_to(float total[T::I][T::J][4], float part[T::I][T::J][4]) {
#pragma unroll
    for (int i = 0; i < T::I; i++)
#pragma unroll
        for (int j = 0; j < T::J; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) total[i][j][e] += part[i][j][e], part[i][j][e] = 0.0f;
}

// The warp's part of dw, to or from registers.
template <typename T>
static __device__ __forceinline__ void move_dw(const MatmulGradArgs &a, int64_t n0, int64_t k0, float dw[T::I][T::J][4], bool store) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int64_t row = n0 + warp % T::ROW_WARPS * T::WARP_ROWS + lane / 4, column = k0 + warp / T::ROW_WARPS * T::WARP_COLUMNS + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < T::I; i++)
#pragma unroll
        for (int j = 0; j < T::J; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t n = row + i * 16 + e / 2 * 8, k = column + j * 8 + e % 2;
                bool valid = n < a.N && k < a.K;
                if (!store)
                    dw[i][j][e] = valid && !a.written ? a.dw[n * a.K + k] : 0.0f;
                else if (valid)
                    a.dw[n * a.K + k] = dw[i][j][e];
            }
}

template <typename T> static __global__ void __launch_bounds__(T::THREADS) gradient_kernel(Gradient g) {
    SHARED(bf16, stages); // [STAGES] of [STEP][ROWS] and [STEP][COLUMNS], then [STAGES] StageEnd
    StageEnd *ends = (StageEnd *)(stages + STAGES * T::STAGE);
    const int64_t n0 = (int64_t)blockIdx.y * T::ROWS, k0 = (int64_t)blockIdx.x * T::COLUMNS;
    const Products all = g.args.products;
    if (all.count) { // this block's becomes the only one
        g.args.x = (const bf16 *)g.args.x + blockIdx.z * all.x_step;
        g.args.dy = (const bf16 *)g.args.dy + blockIdx.z * all.y_step;
        g.args.dw += blockIdx.z * all.w_step;
        if (all.start) g.args.segments.start = all.start + blockIdx.z * all.every;
    }
    Walk walk = {g.args.segments.start, g.first, g.last, 0, 0, 0};
    walk_enter(&walk);
    for (int s = 0; s < STAGES - 1; s++) {
        load_stage<T>(g, stages + s * T::STAGE, ends + s, n0, k0, &walk);
        cp_async_commit();
    }
    float chunk[T::I][T::J][4] = {}, segment[T::I][T::J][4] = {}, dw[T::I][T::J][4];
    move_dw<T>(g.args, n0, k0, dw, false);
    for (int slot = 0;; slot = (slot + 1) % STAGES) {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); // this stage is there for all, and the slot before it is read by nobody any more
        StageEnd end = ends[slot];
        if (end == NO_STAGE) break;
        int free_slot = (slot + STAGES - 1) % STAGES;
        load_stage<T>(g, stages + free_slot * T::STAGE, ends + free_slot, n0, k0, &walk);
        cp_async_commit();
        multiply_stage<T>(stages + slot * T::STAGE, chunk);
        if (end == INSIDE) continue;
        add_to<T>(segment, chunk);
        if (end == SEGMENT_ENDS) add_to<T>(dw, segment);
    }
    move_dw<T>(g.args, n0, k0, dw, true);
}

// ---- dbias -----------------------------------------------------------------------------------------------
// A block owns BIAS_COLUMNS columns; each of its rows of threads sums one chunk, BIAS_CHUNKS of them at a time, and the
// first row adds those in order. Chunks are numbered through all segments.
typedef struct BiasChunk {
    int segment;
    int64_t from, to;
    bool ends; // the segment
} BiasChunk;
static __device__ BiasChunk bias_chunk(const Segments &s, int segment, int64_t number) {
    BiasChunk c = {segment, 0, 0, false};
    for (; c.segment < s.count; c.segment++) {
        int64_t begin = s.start[c.segment], end = s.start[c.segment + 1], chunks = (end - begin + K_CHUNK - 1) / K_CHUNK;
        if (number < chunks) {
            c.from = begin + number * K_CHUNK;
            c.to = c.from + K_CHUNK < end ? c.from + K_CHUNK : end;
            c.ends = c.to == end;
            return c;
        }
        number -= chunks;
    }
    return c;
}

static __global__ void __launch_bounds__(BIAS_COLUMNS *BIAS_CHUNKS) bias_kernel(MatmulGradArgs a, int chunks) {
    SHARED(float, sums); // [BIAS_CHUNKS][BIAS_COLUMNS], then whether the chunk ends its segment
    int *ends = (int *)(sums + BIAS_CHUNKS * BIAS_COLUMNS);
    int lane = (int)threadIdx.x % BIAS_COLUMNS, row = (int)threadIdx.x / BIAS_COLUMNS;
    int64_t n = (int64_t)blockIdx.x * BIAS_COLUMNS + lane;
    float segment = 0, total = row == 0 && n < a.N ? a.dbias[n] : 0.0f;
    for (int base = 0; base < chunks; base += BIAS_CHUNKS) {
        BiasChunk c = bias_chunk(a.segments, 0, base + row);
        float sum = 0;
        if (n < a.N) {
#pragma unroll 8
            for (int64_t t = c.from; t < c.to; t++) sum += act_get(a.dy, t * a.ldy + n, a.dtype);
        }
        sums[row * BIAS_COLUMNS + lane] = sum;
        if (lane == 0) ends[row] = c.ends;
        __syncthreads();
        for (int i = 0; row == 0 && i < BIAS_CHUNKS && base + i < chunks; i++) {
            segment += sums[i * BIAS_COLUMNS + lane];
            if (ends[i]) total += segment, segment = 0;
        }
        __syncthreads();
    }
    if (row == 0 && n < a.N) a.dbias[n] = total;
}
static void add_bias(const CudaContext *context, const MatmulGradArgs *a) {
    int chunks = 0;
    for (int s = 0; s < a->segments.count; s++) chunks += (int)ceil_div(a->segments.host[s + 1] - a->segments.host[s], K_CHUNK);
    LAUNCH(context->stream, bias_kernel, dim3(ceil_div(a->N, BIAS_COLUMNS)), dim3(BIAS_COLUMNS * BIAS_CHUNKS),
           (BIAS_COLUMNS + 1) * BIAS_CHUNKS * sizeof(float), *a, chunks);
}

// ---- who does it -----------------------------------------------------------------------------------------
template <typename T> static void start_gradient(const CudaContext *context, const Gradient &g) {
    void (*kernel)(Gradient) = gradient_kernel<T>;
    allow_shared(kernel, T::SHARED_BYTES);
    unsigned products = g.args.products.count ? (unsigned)g.args.products.count : 1;
    LAUNCH(context->stream, kernel, dim3(ceil_div(g.args.K, T::COLUMNS), ceil_div(g.args.N, T::ROWS), products), dim3(T::THREADS),
           T::SHARED_BYTES, g);
}

// Rows of `columns` can be read in whole pieces.
static bool has_pieces(const void *x, int64_t stride, int64_t columns) {
    return (uintptr_t)x % 16 == 0 && stride % PIECE == 0 && (columns + PIECE - 1) / PIECE * PIECE <= stride;
}
// Segments [first, last) by own kernels.
static void run_of_segments(const CudaContext *context, const MatmulGradArgs *a, int first, int last) {
    if (first == last) return;
    Gradient g = {*a, first, last};
    int64_t large = (int64_t)ceil_div(a->N, 128) * ceil_div(a->K, 128) * (a->products.count ? a->products.count : 1);
    if (a->products.x_step % PIECE || a->products.y_step % PIECE || !has_pieces(a->x, a->ldx, a->K) || !has_pieces(a->dy, a->ldy, a->N))
        start_gradient<GradientTile<64, 64, 2, 2, false>>(context, g);
    else if (large >= context->multiprocessors)
        start_gradient<GradientTile<128, 128, 2, 4, true>>(context, g);
    else
        start_gradient<GradientTile<64, 64, 2, 2, true>>(context, g);
}

static bool library_shape(const MatmulGradArgs *a) {
    return a->N % PIECE == 0 && a->K % PIECE == 0 && has_pieces(a->x, a->ldx, a->K) && has_pieces(a->dy, a->ldy, a->N) &&
           (uintptr_t)a->dw % 16 == 0;
}
static bool by_library(const CudaContext *context, const MatmulGradArgs *a, int segment) {
    const int32_t *start = a->segments.host + segment;
    if (!context->blas || start[1] - start[0] < LIBRARY_TOKENS || !library_shape(a)) return false;
    CublasGradient g = {start[1] - start[0], a->N, a->K, (const bf16 *)a->x + start[0] * a->ldx, a->ldx,
                        (const bf16 *)a->dy + start[0] * a->ldy, a->ldy, a->dw, a->written};
    return cublas_gradient(context, &g);
}

static void gradient_bf16(const CudaContext *context, const MatmulGradArgs *a) {
    if (a->products.count) {
        run_of_segments(context, a, 0, a->products.start ? a->products.every : a->segments.count);
        return;
    }
    MatmulGradArgs rest = *a; // what comes first writes dw where that is asked for, all others add
    int first = 0; // of the segments that wait for own kernels
    for (int s = 0; s < a->segments.count; s++) {
        const int32_t *start = a->segments.host + s;
        if (!context->blas || start[1] - start[0] < LIBRARY_TOKENS || !library_shape(a)) continue;
        run_of_segments(context, &rest, first, s);
        rest.written = rest.written && first == s;
        first = s;
        if (!by_library(context, &rest, s)) continue;
        rest.written = false;
        first = s + 1;
    }
    run_of_segments(context, &rest, first, a->segments.count);
}

static void gradient_f32(const CudaContext *context, const MatmulGradArgs *a) {
    ChainArgs chain = {};
    chain.rows = a->N, chain.columns = a->K, chain.depth = a->T;
    chain.a = (const float *)a->dy, chain.a_row = 1, chain.a_depth = a->ldy;
    chain.b = (const float *)a->x, chain.b_row = 1, chain.b_depth = a->ldx;
    chain.add = !a->written;
    chain.y = a->dw, chain.ldy = a->K;
    chain.segments = a->segments.count, chain.start = a->segments.start;
    chain.products = a->products.count, chain.product_start = a->products.start, chain.every = a->products.every;
    chain.a_step = a->products.y_step, chain.b_step = a->products.x_step, chain.y_step = a->products.w_step;
    if (a->products.count && a->products.start) chain.segments = a->products.every;
    chain_product(context, &chain);
}

static void no_tokens(const Device *device, const MatmulGradArgs *a) {
    for (int i = 0, count = a->products.count ? a->products.count : 1; a->written && i < count; i++)
        device->zero(device, a->dw + i * a->products.w_step, (size_t)(a->N * a->K) * sizeof *a->dw);
}

extern "C" void matmul_grad_cuda(const Device *device, const MatmulGradArgs *args) {
    const CudaContext *context = cuda_context(device);
    bool many = args->products.count && args->products.start;
    if (args->N == 0) return;
    if (args->T == 0 || (!many && args->segments.count == 0)) {
        no_tokens(device, args);
        return;
    }
    if (args->dbias) add_bias(context, args);
    if (args->K == 0) return;
    if (args->dtype == DTYPE_BF16)
        gradient_bf16(context, args);
    else
        gradient_f32(context, args);
}
