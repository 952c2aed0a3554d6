// The draw: a token per row, from the statistics of blocks that `head` left and one block of the row's logits.
//
// Which block: the sums of blocks before a block come from merge_stats (vocabulary.h: double, runs of blocks per lane, lanes in
// order). It is the first in which the sum exceeds the draw. There the same is done with entries: 8 side by side per lane, a chain
// in double, lanes in order. Greedy rows need one block too: its maximum names it.
//
// draw_kernel: a warp per row, where logits are stored.
// redraw_kernel: a block of 256 threads per row, where they aren't. The row's block is multiplied out again by the head's own tile
// (head_tile.h), one of 8 tokens wide of which one is used, so its logits have the head's bits. It reads 256 rows of weights, 459 KB at
// a width of 896, where storing the row's logits would write 608 KB (V 152k); rows that chose the same block find it in L2. Above all
// [M, V'] isn't needed: 622 MB at 1,024 rows. With few rows the reads of one multiprocessor aren't hidden by others', so there
// the caller had better store (policies/model.h).
#include "head_tile.h"

enum { DRAW_WARPS = 4 };
static const unsigned ALL = 0xffffffffu;

static __device__ __forceinline__ int lane_of(void) { return (int)threadIdx.x % 32; }

// ---- where -----------------------------------------------------------------------------------------------
// The block that a row's token is in. `likeliest`: it is the first with the row's maximum, and the token the first that has it.
typedef struct Site {
    int64_t block;
    bool sound, likeliest; // not sound: the row is no distribution
    float max;
    double log_sum, entropy;
    double before, goal; // the sum of all blocks before it, and what the sum must exceed
} Site;

static __device__ int64_t likeliest_block(const VocabStats *stats, int64_t blocks, float max) {
    Run run = run_of_lane(blocks);
    int64_t block = run.from;
    while (block < run.to && stats[block].max != max) block++;
    unsigned found = __ballot_sync(ALL, block < run.to);
    return found ? __shfl_sync(ALL, block, __ffs((int)found) - 1) : 0;
}

// By a whole warp, every lane gets the result.
static __device__ Site site_of(const SampleRow *row, const VocabStats *stats, int64_t blocks) {
    Distribution d = merge_stats(stats, blocks);
    Site s = {0, d.sum == d.sum, row->greedy, d.max, d.log_sum, d.entropy, d.before, row->uniform * d.sum};
    unsigned lanes = __ballot_sync(ALL, d.before + d.own > s.goal);
    if (s.likeliest || !lanes) {
        s.likeliest = true;
        s.block = likeliest_block(stats, blocks, d.max);
        return s;
    }
    Run run = run_of_lane(blocks);
    double sum = 0;
    for (s.block = run.from; s.block < run.to; s.block++) {
        sum += block_mass(stats[s.block], d.max);
        if (d.before + sum > s.goal) break;
        s.before = d.before + sum;
    }
    int lane = __ffs((int)lanes) - 1;
    s.block = __shfl_sync(ALL, s.block, lane), s.before = __shfl_sync(ALL, s.before, lane);
    return s;
}

// ---- which -----------------------------------------------------------------------------------------------
// The lowest entry with the largest logit.
static __device__ int likeliest_in(const float logits[VOCAB_BLOCK], float max) {
    for (int j = 0; j < COLUMNS; j++) {
        unsigned found = __ballot_sync(ALL, logits[lane_of() + 32 * j] == max);
        if (found) return 32 * j + __ffs((int)found) - 1;
    }
    return 0;
}

// The first entry with some probability at which the sum exceeds the goal; where rounding leaves the goal beyond the block, the last
// with some probability. There is one, as the block has a share of the sum.
static __device__ int draw_in(const float logits[VOCAB_BLOCK], const Site &s) {
    int first = lane_of() * COLUMNS;
    double p[COLUMNS], own = 0, all;
    for (int j = 0; j < COLUMNS; j++) {
        p[j] = logits[first + j] != -INFINITY ? exp_double((double)logits[first + j] - s.max) : 0.0;
        own += p[j];
    }
    double before = before_lane(s.before, own, &all), sum = 0;
    int hit = -1, last = -1;
    for (int j = 0; j < COLUMNS; j++) {
        sum += p[j];
        if (p[j] > 0) last = j;
        if (hit < 0 && p[j] > 0 && before + sum > s.goal) hit = j;
    }
    unsigned hits = __ballot_sync(ALL, hit >= 0), possible = __ballot_sync(ALL, last >= 0);
    int lane = hits ? __ffs((int)hits) - 1 : 31 - __clz((int)possible);
    return __shfl_sync(ALL, first + (hits ? hit : last), lane);
}

// logits: of the site's block, minus infinity beyond the vocabulary. By a whole warp.
static __device__ void finish_draw(const SampleArgs &a, int64_t m, const Site &s, const float logits[VOCAB_BLOCK]) {
    SampleRow *row = &a.rows[m];
    int entry = s.likeliest ? likeliest_in(logits, s.max) : draw_in(logits, s);
    if (lane_of()) return;
    row->token = (int32_t)(s.block * VOCAB_BLOCK + entry);
    row->logprob = (float)(((double)logits[entry] - s.max) - s.log_sum);
    row->entropy = row->kept ? (float)s.entropy : a.entropy[m];
}

static __device__ void refuse(SampleRow *row) {
    row->token = 0;
    row->logprob = row->entropy = NAN;
    if (row->kept) row->kept[0] = 0, row->kept_count = 1;
}

// ---- kernels ---------------------------------------------------------------------------------------------
// Grid: rows / 4.
__global__ void __launch_bounds__(DRAW_WARPS * 32, 2) draw_kernel(SampleArgs a) {
    int64_t m = (int64_t)blockIdx.x * DRAW_WARPS + threadIdx.x / 32, blocks = (a.V + VOCAB_BLOCK - 1) / VOCAB_BLOCK;
    if (m >= a.M) return;
    Site s = site_of(&a.rows[m], a.stats + m * blocks, blocks);
    if (s.sound)
        finish_draw(a, m, s, a.logits + (m * blocks + s.block) * VOCAB_BLOCK);
    else if (lane_of() == 0)
        refuse(&a.rows[m]);
}

// Grid: rows. Shared memory: the stages, later the logits in their place; the site.
template <class Product> __global__ void __launch_bounds__(THREADS, Product::RESIDENT) redraw_kernel(SampleArgs a, HeadSide side) {
    if (Product::BY_WARPGROUP && !HAS_WGMMA) return;
    SHARED(unsigned char, shared);
    shared = HeadStage<Product>::place(shared);
    Site &s = *(Site *)(shared + HeadStage<Product>::ALL_BYTES);
    float *logits = (float *)shared;
    int64_t m = blockIdx.x, blocks = (a.V + VOCAB_BLOCK - 1) / VOCAB_BLOCK;
    if (threadIdx.x < 32) {
        Site found = site_of(&a.rows[m], a.stats + m * blocks, blocks);
        if (threadIdx.x == 0) s = found;
    }
    __syncthreads();
    if (!s.sound) {
        if (threadIdx.x == 0) refuse(&a.rows[m]);
        return;
    }
    Product product;
    product.clear();
    side.M = m + 1; // of the tile's tokens this one only
    walk(side, m, s.block * VOCAB_BLOCK, shared, product);
    __syncthreads(); // the stages have been read
    product.hand_over(logits, 0);
    __syncthreads();
    float capped;
    int64_t v = s.block * VOCAB_BLOCK + threadIdx.x;
    logits[threadIdx.x] = v < a.V ? logit_of(a.head, logits[threadIdx.x], &capped) * a.head.inv_temperature[m] : -INFINITY;
    __syncthreads();
    if (threadIdx.x < 32) finish_draw(a, m, s, logits);
}

template <class Product> static void launch_redraw(cudaStream_t stream, const SampleArgs &a) {
    static_assert((int)THREADS == (int)VOCAB_BLOCK, "a thread per entry");
    size_t shared = (size_t)HeadStage<Product>::SHARED_BYTES + sizeof(Site);
    auto *kernel = redraw_kernel<Product>;
    allow_shared(kernel, shared);
    LAUNCH(stream, kernel, dim3((unsigned)a.M), dim3(THREADS), shared, a, head_side(a.head));
}

void draw_tokens(const Device *device, const SampleArgs *args) {
    const CudaContext *context = cuda_context(device);
    SampleArgs a = *args;
    a.head = head_as_decoded(args->head);
    if (a.logits)
        LAUNCH(context->stream, draw_kernel, dim3(ceil_div(a.M, DRAW_WARPS)), dim3(DRAW_WARPS * 32), 0, a);
    else if (a.head.dtype == DTYPE_F32)
        launch_redraw<FloatProduct>(context->stream, a);
    else if (context->wgmma)
        launch_redraw<WarpgroupProduct<8, 2>>(context->stream, a);
    else
        launch_redraw<HalfProduct<8, 3>>(context->stream, a);
}
