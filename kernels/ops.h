// The table of operations: one slot an operation, one argument struct a slot, shapes inside. A backend fills every
// slot; CPU and CUDA stand behind the same table. Policies call nothing else.
//
// Pointers in argument structs are the device's memory, unless they say "host". On the CPU that is the same thing.
// Scratch of the sizes given here is the CPU's; a CUDA device has scratch of its own and takes NULL.
//
// Letters: T tokens (rows), C model width, H heads, K kv heads, D head width, F feed-forward width, V vocabulary.
// "act" arrays hold the stored precision: fp32, or bf16 rounded to nearest even; sums are fp32 in a fixed order:
//   matrix products: one chain of fused multiply-adds over the reduced index, ascending (bf16: in pairs, the odd
//     member first, as vdpbf16ps); row-wise reductions: 16 lanes, then a halving tree;
//   sums over tokens: ascending.
// That is the CPU's order, the same in all its variants; the order of CUDA is said in kernels/cuda/cuda.h.
// No output depends on how many other rows, threads or tiles there are. That is invariant 1.
#ifndef RECKON_OPS_H
#define RECKON_OPS_H
#include "base.h"
#include "exact.h"

typedef uint16_t bf16; // the high half of a float

typedef enum Dtype { DTYPE_F32, DTYPE_BF16 } Dtype;
static inline size_t dtype_size(Dtype d) { return d == DTYPE_F32 ? 4 : 2; }

// ---- packed matrices -------------------------------------------------------------------------------------
// A packed matrix is a device's own form of w [N, K], of packed_elements() at most; `pack` writes it, `unpack` reads it.
// The CPU's are panels of 32 rows: [ceil(N/32)][K'/step][32][step], step 1 for fp32 and 2 for bf16, K' = K rounded up
// to step, padding zero. Element (n, k) of panel n/32 lies at (k/step, n%32, k%step).
enum { PANEL = 32 };
static inline int64_t packed_depth(int64_t K, Dtype d) { return d == DTYPE_F32 ? K : (K + 1) / 2 * 2; }
static inline int64_t panel_elements(int64_t K, Dtype d) { return packed_depth(K, d) * PANEL; }
static inline int64_t panels_elements(int64_t N, int64_t K, Dtype d) { return (N + PANEL - 1) / PANEL * panel_elements(K, d); }
static inline int64_t packed_elements(int64_t N, int64_t K) {
    return (N + PANEL - 1) / PANEL * PANEL * ((K + 15) / 16 * 16);
}

// How a weight lies: packed, or as rows of a file's numbers (GGUF's blocks, or bf16: blocks.h), which a product decodes as it
// goes, rounded to the product's precision. The sums are those of the packed form. Or in 8 bits (`pack` makes it, on the CPU
// only), for `matmul` of one product and for `head`: another product, told below.
typedef enum WeightFormat {
    WEIGHT_PACKED,
    WEIGHT_Q8_0,
    WEIGHT_Q4_0,
    WEIGHT_Q4_1,
    WEIGHT_Q5_0,
    WEIGHT_Q5_1,
    WEIGHT_Q4_K,
    WEIGHT_Q6_K,
    WEIGHT_BF16,
    WEIGHT_FORMATS,
    WEIGHT_INT8 = WEIGHT_FORMATS
} WeightFormat;

// Packs w [N, K] fp32 row-major, and its transpose where asked.
typedef struct PackArgs {
    const float *w; // [N, K]; NULL: `rows`
    int64_t N, K;
    Dtype dtype;
    void *packed;     // of w [N, K], or NULL
    void *transposed; // of its transpose [K, N], or NULL
    float scale;      // w is multiplied by it on the way; 0: by 1
    void *int8;       // of w in 8 bits, int8_bytes(N, K), or NULL; on the CPU only
    // Instead of w, rows as a file has them, K a multiple of 32, for `packed` alone and without a scale; on the CPU only.
    const void *rows;
    WeightFormat format;
} PackArgs;
typedef struct UnpackArgs {
    const void *packed; // [N, K]
    int64_t N, K;
    Dtype dtype;
    float *w;           // [N, K] row-major
} UnpackArgs;

// ---- matrix products -------------------------------------------------------------------------------------
// Many products of one shape by one call: of experts, which have rows of their own, or of heads, which have columns of their
// own. Product i takes rows [start[i * every], start[(i + 1) * every]) of x and y, or all M where start is NULL, begins
// i * x_step columns and i * y_step columns further on, and its matrix lies i * w_step elements further on. What an output is
// doesn't depend on how many products or rows there are.
typedef struct Products {
    int32_t count; // 0: one product, without any of this
    int32_t every;
    const int32_t *start; // [count * every + 1], ascending from 0; the last is M at most
    int64_t x_step, y_step, w_step;
} Products;

// Products in 8 bits. Of w and of x each run of INT8_GROUP numbers along the reduced index (the last may be shorter) has a
// scale, its largest magnitude / 127, and whole numbers q = x * (127 / largest), rounded to nearest even; below 1e-30 it is
// zero. A run that isn't all finite is zero with the scale NaN. y = one chain over the runs, ascending, of
// fma(whole * w's scale, x's scale, sum), where `whole`, the sum of the products of the q, is below 2^24 and so exact, as a whole
// number and in fp32: all variants give the same bits, for any K. w's panel of 32 rows: scales [runs][32], then q + 128 as bytes
// [K'/4][32][4], K' = K rounded up to 4.
enum { INT8_GROUP = 64 };
static inline int64_t int8_runs(int64_t K) { return (K + INT8_GROUP - 1) / INT8_GROUP; }
static inline int64_t int8_depth(int64_t K) { return (K + 3) / 4 * 4; }
static inline int64_t int8_panel_bytes(int64_t K) { return int8_runs(K) * PANEL * 4 + int8_depth(K) * PANEL; }
static inline size_t int8_bytes(int64_t N, int64_t K) { return (size_t)((N + PANEL - 1) / PANEL * int8_panel_bytes(K)); }
// A row of x: q [K'], scales [runs], and what a sum over a run begins with, as w's bytes are 128 too large [runs].
static inline int64_t int8_row_bytes(int64_t K) { return int8_depth(K) + int8_runs(K) * 8; }

typedef enum Store { STORE_ACT, STORE_F32, ADD_F32 } Store;
// y[m, n] = sum_k x[m, k] w[n, k] (+ bias[n]). Rows of x must be readable, and finite, up to packed_depth(K).
typedef struct MatmulArgs {
    int64_t M, N, K;
    Dtype dtype;       // of x, w and STORE_ACT outputs
    const void *x;     // act [M, ldx]
    int64_t ldx;
    const void *w;     // packed [N, K]
    const float *bias; // [N] or NULL
    Store store;       // ADD_F32: y += (bias added to the product first)
    void *y;           // [M, ldy]
    int64_t ldy;
    Products products; // with them bias is NULL
    WeightFormat format; // of w; w_step of products with blocks is in bytes
    int64_t interleaved; // rows of w as a file has them lie as interleaved_row tells (blocks.h), for heads of this width; 0: in order
    bool transposed;     // w is [K, N], packed or in blocks: y = x w
    void *scratch;       // of blocks: matmul_scratch() bytes, of packed and transposed: turn_scratch(), of a device too; in 8 bits: M * int8_row_bytes(K)
} MatmulArgs;
// For blocks of N rows (of either form). On the host a panel of each thread; on a device the whole matrix, decoded (of products:
// so much for each).
size_t matmul_scratch(bool is_host, int threads, int64_t N, int64_t K, Dtype dtype);
// For products of these sizes, and of any on the host: a piece of a panel and rows of sums for each thread.
size_t turn_scratch(bool is_host, int threads, int64_t N, int64_t K, Dtype dtype);
// Of that piece: its steps; of the rows that pass over it together: their bytes; and the sums of rows that wait for the next piece.
enum { TURN_STEPS = 512, TURN_ROW_BYTES = 512 << 10, TURN_SUMS = 8192, TURN_BYTES = (TURN_STEPS + TURN_SUMS) * PANEL * 4 };

// Where groups begin in a range of rows. Sums over rows go group by group, so that a split into microbatches at the
// boundaries of groups changes no bit.
typedef struct Segments {
    int count;
    const int32_t *start; // [count + 1], start[0] = 0, last = rows
    const int32_t *host;  // the same in host memory
} Segments;

// dw[n, k] += sum_t dy[t, n] x[t, k]; dbias[n] += sum_t dy[t, n]. Tokens ascend; bf16 pairs never straddle segments. Where dw is
// `written`, it is not read: the bits are those of adding to zeros, which also stay where there are no tokens.
// With products dbias is NULL, y_step is of dy, w_step of dw; where they have a start, product i's segments are the `every`
// ranges from start[i * every] on, and `segments` isn't used.
typedef struct MatmulGradArgs {
    int64_t T, N, K;
    Dtype dtype;
    const void *x;  // act [T, ldx]
    int64_t ldx;
    const void *dy; // act [T, ldy]
    int64_t ldy;
    float *dw;      // [N, K]
    bool written;   // dw
    float *dbias;   // [N] or NULL
    Segments segments;
    void *scratch;  // matmul_grad_scratch() bytes, of the CPU
    Products products;
} MatmulGradArgs;
// Of each thread: tokens laid out, of panels and of tiles, which are to stay in a small L2.
enum { GRAD_STEPS = 512, GRAD_PANELS = 32, GRAD_TILE_BYTES = 400 << 10, GRAD_BYTES = GRAD_STEPS * GRAD_PANELS * PANEL * 4 + GRAD_TILE_BYTES };
size_t matmul_grad_scratch(int threads);

// ---- embedding -------------------------------------------------------------------------------------------
typedef struct EmbedArgs {
    int64_t T, C;
    const int32_t *tokens; // [T]
    Dtype dtype;
    const void *table;     // packed [V, C]
    WeightFormat format;   // of it; what is read is rounded to `dtype`
    float scale;           // of what is read; 0: it stays as it is
    float *y;              // [T, C]
} EmbedArgs;
typedef struct EmbedGradArgs {
    int64_t T, C;
    const int32_t *tokens;
    float scale;     // as forward
    const float *dy; // [T, C]
    float *dtable;   // [V, C] +=
} EmbedGradArgs;

// ---- RMSNorm (Zhang and Sennrich 2019) -------------------------------------------------------------------
// y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps), w = weight, or 1 + weight. A token's row may hold several rows of C
// beside each other, each with a norm of its own and all with the same weight: the heads of q, or of k.
typedef struct RmsnormArgs {
    int64_t T, C;
    int32_t heads;       // rows of C in a token's; 0: one
    const float *x;      // [T, ldx]
    int64_t ldx;         // 0: heads * C
    const float *weight; // [C]
    bool offset;         // w is 1 + weight
    float eps;
    Dtype dtype;
    Store store;
    void *y;             // [T, ldy]; may be x where it is fp32 and lies the same way
    int64_t ldy;         // 0: heads * C
    float *rstd;         // [T, heads], or NULL
} RmsnormArgs;
typedef struct RmsnormGradArgs {
    int64_t T, C;
    int32_t heads;
    const float *x;
    int64_t ldx;
    const float *weight, *rstd;
    bool offset;
    const float *dy;  // [T, lddy]
    int64_t lddy;     // 0: heads * C
    bool written;     // dx is act of `dtype` and written; otherwise it is fp32 and added to
    Dtype dtype;
    void *dx;         // [T, lddx]
    int64_t lddx;     // 0: heads * C
    float *dweight;   // [C] +=
    Segments segments;
} RmsnormGradArgs;

// ---- keys and values -------------------------------------------------------------------------------------
// The cache is made of pages of 32 positions for one layer and all kv heads. A page holds per kv head the keys
// transposed, [D'][32], then the values, [32][D'], D' = D rounded up to 16, padding zero. Position p of a sequence
// lies in slot p % 32 of the page table[p / 32] of that sequence, so chunks stand at absolute positions.
enum { PAGE = 32 };
static inline int64_t head_padded(int64_t D) { return (D + 15) / 16 * 16; }
static inline int64_t page_elements(int64_t kv_heads, int64_t D) { return kv_heads * 2 * PAGE * head_padded(D); }

// Splits qkv (bias already in), rotates q and k (RoPE, Su et al. 2021, halves), rounds to act, and stores k and v into
// the pages. A token may have several destinations (the prompt's last, partly filled page has a copy per sample).
typedef struct RopeArgs {
    int64_t T;
    int32_t heads, kv_heads, D;
    int32_t rotary;           // how many of a head's elements, from the first on, are rotated; even; 0: all
    Dtype dtype;
    const float *qkv;         // [T, (H + 2K) D]
    const int32_t *position;  // [T] into cos_sin
    const float *cos_sin;     // [positions][2][rotary/2]: cosines, then sines
    void *q;                  // act [T, H D]
    void *pages;              // act, page_elements each
    const int64_t *slot_start; // [T + 1] into slot
    const int64_t *slot;       // page * 32 + slot
} RopeArgs;
// dqkv from dq [T, H D] and dpages (fp32, layout [page][kv head][2][32][D'], both keys and values by position).
typedef struct RopeGradArgs {
    int64_t T;
    int32_t heads, kv_heads, D, rotary;
    Dtype dtype;
    const int32_t *position;
    const float *cos_sin;
    const float *dq;
    const float *dpages;
    const int64_t *slot_start, *slot;
    void *dqkv; // act [T, (H + 2K) D]
    float *dqk; // [T, (H + K) D]: where q's and k's go instead, not rounded, for the norms before the rotation; or NULL
} RopeGradArgs;

// ---- attention -------------------------------------------------------------------------------------------
// Query row t belongs to head group h / (H/K); it sees positions 0 .. position[t] of its sequence, or the last `window` of
// them. The pages that it sees are walked in order with a running maximum (Milakov and Gimelshein 2018), for decoding,
// prefill and training alike; the others are skipped where that saves work.
typedef struct AttentionArgs {
    int64_t T;
    int32_t heads, kv_heads, D;
    Dtype dtype;
    float scale;
    int32_t window;             // how many positions a row sees at most, its own included; 0: all
    const void *q;              // act [T, H D]
    const int32_t *position;    // [T]
    const int32_t *table_start; // [T] index into table of the row's sequence
    const int32_t *table;       // page numbers
    const void *pages;
    void *y;                    // act [T, H D]
    float *lse;                 // [T, H] log-sum-exp of scaled scores, or NULL
    int32_t max_position;       // no row's position is beyond it; it bounds work, never results
    int32_t max_run;            // no more rows in succession share a table (decoding: 1); 0: not known. Work, never results
} AttentionArgs;
// Units are page sets that share nothing with each other (groups): rows [unit[i], unit[i+1]) are unit i's, its pages
// [unit_page[i], unit_page[i+1]). dpages is written, not added to; so is dq.
typedef struct AttentionGradArgs {
    AttentionArgs forward;      // y and lse as the forward pass left them
    int unit_count;
    const int32_t *unit;        // [unit_count + 1]
    const int32_t *unit_page;   // [unit_count + 1]
    const float *dy;            // [T, H D]
    float *dq;                  // [T, H D]
    float *dpages;              // [pages][kv head][2][32][D']
    float *delta;               // scratch [T, H]
    const int32_t *page_first_row, *page_last_row; // [pages] rows that see the page lie in this range, ends included
    int32_t page_count;
} AttentionGradArgs;

// ---- feed-forward ----------------------------------------------------------------------------------------
// y = f(gate) * up (Shazeer 2020), gate_up [T, 2F]: gate first. f is silu, or gelu by its tanh form (Hendrycks and Gimpel
// 2016): x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)).
typedef enum Gate { GATE_SILU, GATE_GELU_TANH } Gate;
typedef struct SwigluArgs {
    int64_t T, F;
    Gate gate;
    Dtype dtype;
    const void *gate_up; // act [T, 2F]
    void *y;             // act [T, F]
} SwigluArgs;
typedef struct SwigluGradArgs {
    int64_t T, F;
    Gate gate;
    Dtype dtype;
    const void *gate_up; // act [T, 2F]
    const float *dy;     // [T, F]
    void *dgate_up;      // act [T, 2F]
    void *y;             // act [T, F]: what the forward pass gave, once more; or NULL
} SwigluGradArgs;

// ---- mixture of experts ----------------------------------------------------------------------------------
// A token goes to k of E experts. Experts may stand in groups: of these the best count, judged by the sum of their `group_best`
// largest scores, and experts elsewhere as minus infinity (DeepSeek-AI 2024, DeepSeek-V2 and V3). The correction bias is
// added to scores where experts are chosen, and nowhere else. Equal scores: the lower number. Scores are softmax or sigmoid
// of the router's logits, a weight is scale * score, divided by (sum of the chosen + 1e-20) where they are normalised.
enum { MAX_CHOSEN = 64, MAX_EXPERTS = 1024 };
typedef struct Router {
    int32_t experts, chosen;       // E, k
    int32_t groups, chosen_groups; // 1, 1: none; groups divides E
    int32_t group_best;            // 1 or 2, at most E / groups
    bool sigmoid, normalise;
    float scale;
} Router;
typedef struct RouteArgs {
    int64_t T;
    Router router;
    const float *logits; // [T, E]
    const float *bias;   // [E] or NULL
    int32_t *choice;     // [T, k] ascending in each row; valid and distinct whatever the logits are
    float *weight;       // [T, k] of these
} RouteArgs;

// Sorts rows by expert, and by segment within an expert; within these they keep their order. Place start[e * S + s] begins
// expert e's rows of segment s (S = segments.count, or 1 where that is 0).
typedef struct DispatchArgs {
    int64_t T;
    int32_t experts, chosen;
    const int32_t *choice; // [T, k]
    Segments segments;     // of tokens; count 0: one, [0, T)
    int32_t *start;        // [E * S + 1]
    int32_t *token;        // [T k] whose row stands at a place
    int32_t *place;        // [T, k] where a token's rows stand
    int64_t *load;         // [E] += rows of each expert, or NULL
} DispatchArgs;

// y[t] (+)= sum_j weight[t, j] x[place[t, j]], j ascending, one chain from zero.
typedef struct CombineArgs {
    int64_t T, C;
    int32_t chosen;
    const int32_t *place; // [T, k]
    const float *weight;  // [T, k], or NULL: 1
    const float *x;       // [T k, C]
    bool add;
    float *y;             // [T, C]
} CombineArgs;
// Of an expert's output weight * (w ff), with dff = w^T dy before the weight: dweight = dff . ff; then dff and ff are
// multiplied by the weight, so that the products that follow give the gradients of w and of what lies before.
typedef struct CombineGradArgs {
    int64_t T, F;
    int32_t chosen;
    Dtype dtype;
    const int32_t *place; // [T, k]
    const float *weight;  // [T, k]
    void *ff;             // act [T k, F]
    float *dff;           // [T k, F]
    float *dweight;       // [T, k]
} CombineGradArgs;

// dlogits from dweight, and from two losses that are means over tokens: their coefficients are already divided by the number of
// tokens. Balance (Shazeer et al. 2017, Fedus et al. 2021), over each segment: E / k * sum_e f_e P_e, f_e the share of
// tokens that go to e, P_e the mean probability of e (sigmoid scores are divided by their sum for it). z (Zoph et al. 2022):
// the square of the logits' log-sum-exp.
typedef struct RouteGradArgs {
    int64_t T;
    Router router;
    Dtype dtype;
    const float *logits;   // [T, E]
    const int32_t *choice; // [T, k]
    const float *dweight;  // [T, k]
    Segments segments;     // of tokens
    const int32_t *start;  // [E * S + 1] as `dispatch` left it
    float balance, z;
    void *dlogits;         // act [T, E]
} RouteGradArgs;

// The correction bias moves by `rate` towards experts that had fewer rows than the mean, away from those that had more
// (Wang et al. 2024); the load begins anew.
typedef struct BalanceArgs {
    int32_t experts;
    float rate;
    float *bias;   // [E]
    int64_t *load; // [E]
} BalanceArgs;

// ---- latent attention ------------------------------------------------------------------------------------
// Multi-head latent attention in its absorbed form (DeepSeek-AI 2024, DeepSeek-V2): all heads share one key per position, of
// width W = R + P, the normed latent (R) and then a rotated part (P), and the latent is the value too. A page of the cache
// holds the keys of 32 positions, transposed: [W'][32], W' = W rounded up to 16, padding zero. A query is of width W; its
// first R columns come from a product per head.
enum { MAX_LATENT = 1024 }; // W
static inline int64_t latent_page_elements(int64_t W) { return PAGE * head_padded(W); }

// Splits q and rotates its last P columns and the key's, in pairs of neighbours (`interleaved`) or of halves; rotated they lie
// in halves. Stores the key into the pages.
typedef struct LatentRopeArgs {
    int64_t T;
    int32_t heads, N, P, R; // N: columns of a query that aren't rotated
    Dtype dtype;
    bool interleaved;
    const float *q;          // [T, H (N + P)]
    const void *latent;      // act [T, R]
    const float *key;        // [T, ldkey], P of each row
    int64_t ldkey;
    const int32_t *position; // [T]
    const float *cos_sin;    // [positions][2][P/2]
    void *q_plain;           // act [T, H N]
    void *q_full;            // act [T, H W]: the last P columns of each head are written
    void *pages;             // act
    const int64_t *slot_start, *slot; // as in RopeArgs
} LatentRopeArgs;
typedef struct LatentRopeGradArgs {
    int64_t T;
    int32_t heads, N, P, R;
    Dtype dtype;
    bool interleaved;
    const int32_t *position;
    const float *cos_sin;
    const float *dq_plain; // [T, H N]
    const float *dq_full;  // [T, H W]
    const float *dpages;   // [page][32][W']
    const int64_t *slot_start, *slot;
    void *dq;              // act [T, H (N + P)]
    float *dlatent;        // [T, R]
    void *dkey;            // act [T, ldkey], P of each row
    int64_t ldkey;
} LatentRopeGradArgs;

// As `attention`, all heads on one key.
typedef struct LatentAttentionArgs {
    int64_t T;
    int32_t heads, W, R;
    Dtype dtype;
    float scale;
    const void *q;              // act [T, H W]
    const int32_t *position, *table_start, *table;
    const void *pages;
    void *y;                    // act [T, H R]
    float *lse;                 // [T, H] or NULL
    int32_t max_position, max_run;
    void *scratch;              // latent_scratch() bytes
} LatentAttentionArgs;
size_t latent_scratch(int threads, int64_t W);
typedef struct LatentAttentionGradArgs {
    LatentAttentionArgs forward;
    int unit_count;
    const int32_t *unit, *unit_page; // as in AttentionGradArgs
    const float *dy;                 // [T, H R]
    float *dq;                       // [T, H W]
    float *dpages;                   // [pages][32][W'], written
    float *delta;                    // scratch [T, H]
    const int32_t *page_first_row, *page_last_row;
    int32_t page_count;
} LatentAttentionGradArgs;

// ---- head ------------------------------------------------------------------------------------------------
// logits[m, v] = inv_temperature[m] * cap(sum_k x[m, k] w[v, k]), cap(l) = softcap tanh(l / softcap). The vocabulary is walked in blocks of 256; each gives its
// maximum, its sum of exp and its sum of exp * (logit - maximum); blocks are merged in order. With kept sets, logits
// outside count as minus infinity. logprob = (logit - max) - log(sum); entropy = log(sum) - (sum e*(l - max)) / sum.
enum { VOCAB_BLOCK = 256 };
typedef struct VocabStats {
    float max, sum, weighted;
} VocabStats;
typedef struct HeadArgs {
    int64_t M, V, C;
    Dtype dtype;
    const void *x;  // act [M, C]
    const void *w;  // packed [V, C]
    WeightFormat format; // of it
    void *blocks;        // scratch of blocks: matmul_scratch() bytes for V rows of C; in 8 bits: M * int8_row_bytes(C)
    const float *inv_temperature; // [M]
    float softcap;             // 0: logits aren't capped
    const int32_t *target;     // [M], or NULL
    const int64_t *kept_start; // [M + 1], or NULL: no truncation
    const int32_t *kept;       // ascending per row
    float *logits;             // [M, V'] (V' = V rounded up to 256) where they are wanted, or NULL
    float *logprob, *entropy;  // [M]; logprob only with target; may be NULL
    float *max, *log_sum;      // [M], or NULL: with them the backward pass knows the distribution
    VocabStats *stats;         // [M][V'/256] scratch; stays filled for sampling
    float *scratch;            // head_scratch() bytes
} HeadArgs;
size_t head_scratch(int threads);
// dlogits[m, v] (act, [M, ld], of which V' are written, zero from V on): cap' * inv_temperature * (dlogprob * (1[v = target] - p) - dentropy * p * (log p + H)).
typedef struct HeadGradArgs {
    HeadArgs forward; // logprob isn't used; logits, where not NULL, are those that `head` left, which saves their product
    const float *dlogprob; // [M]
    const float *dentropy; // [M] or NULL
    void *dlogits;
    int64_t ld; // a multiple of 16, V' or more
} HeadGradArgs;
static inline int64_t vocab_padded(int64_t V) { return (V + VOCAB_BLOCK - 1) / VOCAB_BLOCK * VOCAB_BLOCK; }

// The divergence between a teacher's distribution p and a student's q over the same V ids, row by row. Both are given as `head`
// left them: x, w, C, inv_temperature, softcap, max and log_sum of each are read. Their logits are computed again, a block of 256 at
// a time, and never held. `beta` as in Agarwal et al. 2024 and TRL; d is the slope along the student's scaled logits:
//   0: sum p (log p - log q)                                                    d = q - p
//   1: sum q (log q - log p)                                                    d = q (log q - log p - divergence)
//   between: sum beta p (log p - log m) + (1 - beta) q (log q - log m),         d = q ((1 - beta) (log q - log m) - centre),
//     m = beta p + (1 - beta) q                                                 centre = sum (1 - beta) q (log q - log m)
// Each block gives its sums, and blocks are merged in order.
typedef struct DistillArgs {
    HeadArgs student, teacher; // M, V and dtype are the same; student.stats is overwritten
    float beta;
    float *divergence; // [M]
    float *centre;     // [M], for the gradient
    float *scratch;    // head_scratch() bytes
} DistillArgs;
// dlogits[m, v] (act, [M, ld], zero from V on): cap' * inv_temperature * weight * d.
typedef struct DistillGradArgs {
    DistillArgs forward;
    const float *weight; // [M] dLoss/ddivergence
    void *dlogits;
    int64_t ld; // a multiple of 16, on a device of 256: the student's head may have more rows than V
} DistillGradArgs;

// Draws a token per row from what `head` left in logits and stats. Greedy takes the largest logit (the lowest id of
// equals); otherwise the first token whose cumulative probability, in vocabulary order, exceeds the draw. Truncation
// in this order: top_k, then top_p (the smallest set of likeliest tokens whose probability reaches it), then min_p
// (relative to the likeliest); ties at a border keep the lower id. Truncated rows get their logits masked and their
// logprob and entropy computed as `head` does with that kept set. A row with NaN or +infinity is no distribution: its
// token is 0 (kept alone), its logprob and entropy are NaN.
typedef struct SampleRow {
    bool greedy;
    int32_t top_k;       // 0: off
    float top_p, min_p;  // 1 and 0: off
    double uniform;      // the draw, in [0, 1)
    int32_t *kept;       // [V] where truncated, else NULL; filled ascending
    int32_t kept_count;  // out
    int32_t token;       // out
    float logprob, entropy; // out
} SampleRow;
typedef struct SampleArgs {
    int64_t M, V;
    float *logits;        // [M, V'], or NULL on a device where no row is truncated: a row's draw then makes its block of them again
    HeadArgs head;        // where logits is NULL: what `head` was given just before, its scratch as it left it
    VocabStats *stats;    // [M][V'/256]
    const float *entropy; // [M] as `head` computed it
    SampleRow *rows;      // [M]
    void *order;          // scratch, sample_scratch() bytes, where rows are truncated
    bool truncated;       // some row is
} SampleArgs;
size_t sample_scratch(int threads, int64_t V);

// ---- decoding --------------------------------------------------------------------------------------------
// What one sequence carries from one decoded token to the next, so that many steps can run without the host. After a
// draw: the token is recorded, the sequence ends with a stop id (unless it ignores them) or at max_tokens, and otherwise
// its next row is set up: token, position, slot, and the next draw, a function of (seed, step, prompt, sample, length).
// A sequence that has ended keeps its row as it is, records nothing, and so writes the same numbers into the same slot.
// Where the draw kept a set, its ids go into the record; one that has more of them than there is room for is left to the host: the
// sequence stands still, as one that has ended does, and SampleRow.kept holds the set for as long.
typedef struct DecodeRow {
    RandomKey key;
    uint32_t step, prompt, sample;
    int32_t length, max_tokens; // tokens drawn so far, and at most
    int32_t position;           // of the row that is computed now
    int32_t recorded;           // steps recorded since the host sent this row
    bool ignore_stop, ended;
} DecodeRow;
typedef struct DrawRecord { // of one row, of one step; behind it the ids of its kept set, as far as there is room for all
    int32_t token;
    float logprob, entropy;
    int32_t kept_count; // 0 where nothing was truncated
} DrawRecord;
// Record number i of those with room for so many ids.
ON_BOTH DrawRecord *record_at(const DrawRecord *records, int32_t kept_room, int64_t i) {
    return (DrawRecord *)((char *)(uintptr_t)records + i * (int64_t)(sizeof(DrawRecord) + (size_t)kept_room * 4));
}
ON_BOTH int32_t *record_ids(const DrawRecord *record) { return (int32_t *)(uintptr_t)(record + 1); } // [kept_count], where there is room
typedef struct AdvanceArgs {
    int64_t M;
    SampleRow *rows;      // [M] as `sample` left them; uniform is set
    DecodeRow *state;     // [M]
    const int32_t *table; // [M][table_stride] page numbers
    int32_t table_stride;
    const int32_t *stop;  // [stop_count]
    int32_t stop_count;
    int32_t *tokens, *position; // [M] of the next pass; NULL where the host sets it up
    int64_t *slot;              // [M]
    DrawRecord *record;         // [ring][M], each with kept_room ids: step number `recorded` goes to recorded % ring
    int32_t kept_room, ring;    // ring > 0
} AdvanceArgs;

// Rows of act arrays: y[i] = x[row[i]].
typedef struct GatherArgs {
    int64_t T, C;
    Dtype dtype;
    const int32_t *row;
    const void *x;
    void *y;
} GatherArgs;
// Rows of several arrays to other places: row to[i] of each `y` becomes row from[i] of its `x`, bit for bit. NULL: row i. No row is
// written twice.
enum { MOVED_ARRAYS = 16 };
typedef struct MoveRowsArgs {
    int64_t n;
    const int64_t *from, *to; // [n]
    int count;
    struct {
        size_t bytes; // of a row
        const void *x;
        void *y;
    } arrays[MOVED_ARRAYS];
} MoveRowsArgs;
// y[row[i]] += x[i] (fp32), i ascending.
typedef struct ScatterArgs {
    int64_t T, C;
    const int32_t *row;
    const float *x;
    float *y;
} ScatterArgs;
// fp32 to act. Where `columns` isn't 0 they are rows of so many, which in y begin ldy apart.
typedef struct ConvertArgs {
    int64_t count;
    Dtype dtype;
    const float *x;
    void *y;
    int64_t columns, ldy;
} ConvertArgs;
static inline int64_t convert_place(const ConvertArgs *a, int64_t i) { return a->columns ? i / a->columns * a->ldy + i % a->columns : i; }

// ---- optimizer -------------------------------------------------------------------------------------------
// AdamW (Loshchilov and Hutter 2019): g = scale * (gradient + gradient2); m, v, w as PyTorch's.
typedef struct AdamwArgs {
    int64_t count;
    float *w, *m, *v;
    const float *gradient;
    const float *gradient2; // a second part of the same gradient, or NULL
    float scale, learning_rate, beta1, beta2, eps, weight_decay;
    float correction1, correction2; // 1 - beta^step, of the fp32 beta
} AdamwArgs;
// Sum of squares of a (+ b): blocks of 65,536 in order, each in double.
enum { NORM_BLOCK = 65536 };
static inline int64_t norm_blocks(int64_t count) { return (count + NORM_BLOCK - 1) / NORM_BLOCK; }
typedef struct SquareSumArgs {
    int64_t count;
    const float *a, *b; // b may be NULL
    double *partial;    // [norm_blocks(count)]
} SquareSumArgs;

// ---- the table -------------------------------------------------------------------------------------------
#define RECKON_OPERATIONS(X)                                                                                 \
    X(pack, PackArgs)                                                                                        \
    X(unpack, UnpackArgs)                                                                                    \
    X(matmul, MatmulArgs)                                                                                    \
    X(matmul_grad, MatmulGradArgs)                                                                           \
    X(embed, EmbedArgs)                                                                                      \
    X(embed_grad, EmbedGradArgs)                                                                             \
    X(rmsnorm, RmsnormArgs)                                                                                  \
    X(rmsnorm_grad, RmsnormGradArgs)                                                                         \
    X(rope, RopeArgs)                                                                                        \
    X(rope_grad, RopeGradArgs)                                                                               \
    X(attention, AttentionArgs)                                                                              \
    X(attention_grad, AttentionGradArgs)                                                                     \
    X(swiglu, SwigluArgs)                                                                                    \
    X(swiglu_grad, SwigluGradArgs)                                                                           \
    X(route, RouteArgs)                                                                                      \
    X(dispatch, DispatchArgs)                                                                                \
    X(combine, CombineArgs)                                                                                  \
    X(combine_grad, CombineGradArgs)                                                                         \
    X(route_grad, RouteGradArgs)                                                                             \
    X(balance, BalanceArgs)                                                                                  \
    X(latent_rope, LatentRopeArgs)                                                                           \
    X(latent_rope_grad, LatentRopeGradArgs)                                                                  \
    X(latent_attention, LatentAttentionArgs)                                                                 \
    X(latent_attention_grad, LatentAttentionGradArgs)                                                        \
    X(head, HeadArgs)                                                                                        \
    X(head_grad, HeadGradArgs)                                                                               \
    X(distill, DistillArgs)                                                                                  \
    X(distill_grad, DistillGradArgs)                                                                         \
    X(sample, SampleArgs)                                                                                    \
    X(advance, AdvanceArgs)                                                                                  \
    X(gather, GatherArgs)                                                                                    \
    X(move_rows, MoveRowsArgs)                                                                               \
    X(scatter, ScatterArgs)                                                                                  \
    X(convert, ConvertArgs)                                                                                  \
    X(adamw, AdamwArgs)                                                                                      \
    X(square_sum, SquareSumArgs)

#endif
