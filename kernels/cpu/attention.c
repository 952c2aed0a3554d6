// Attention over pages of 32 positions, forward and backward; a page is walked as one chunk of the softmax.
//
// Rows of the forward pass are tiled: query heads that share a kv head, of tokens that follow each other. Those that see the same
// page (a sequence's own, a prompt that samples share) meet it together, and its keys and values are read once for them, but for
// the last positions of a page that is still growing, where each row ends at a place of its own. Scores are chains over D for 32
// keys at once (keys lie transposed), outputs chains over positions for columns of 16 at once; in bf16 both go in pairs, as matrix
// products do, the weights rounded to bf16. A row's numbers depend on its own position and pages only: decoding one token,
// prefilling a prompt and training all give the same bits.
#include "turn.h"
#include <stdlib.h>

#if defined(__AVX512F__)
enum { ROWS = 12, REGISTERS = 2 }; // of a tile; of 16 keys or columns, taken at once
#else
enum { ROWS = 6, REGISTERS = 1 };
#endif
enum { MAX_D = 256, STRIDE = MAX_D + 16 }; // rows a power of two apart would map to the same lines of the cache

typedef struct Geometry {
    int64_t D, Dp, page, head; // elements of a page, of one kv head in it
    int group;                 // query heads of one kv head
} Geometry;
static Geometry geometry_of(const AttentionArgs *a) {
    Geometry g = {.D = a->D, .Dp = head_padded(a->D), .group = a->heads / a->kv_heads};
    g.head = 2 * PAGE * g.Dp;
    g.page = g.head * a->kv_heads;
    return g;
}

// The first position that the row at `position` sees.
INLINE int64_t first_seen(const AttentionArgs *a, int64_t position) {
    return a->window && position >= a->window ? position + 1 - a->window : 0;
}

// ---- products of rows with a page --------------------------------------------------------------------------
// scores[r][32] = scale * q[r] . keys: q [rows][STRIDE] steps of the chain over D, keys at `keys`, [Dp][32].
INLINE void score_rows(const uint32_t (*q)[STRIDE], const void *pages, int64_t keys, int64_t D, int rows, bool half, float scale,
                       float (*scores)[PAGE]) {
    int per_step = half ? 2 : 1;
    for (int column = 0; column < PAGE; column += 16 * REGISTERS) {
        v16 acc[ROWS][REGISTERS];
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < REGISTERS; i++) acc[r][i] = v_zero();
        for (int64_t s = 0; s * per_step < D; s++) {
            i16 key[REGISTERS];
            for (int i = 0; i < REGISTERS; i++) {
                int64_t at = keys + s * per_step * PAGE + column + 16 * i;
                key[i] = half ? i_pairs((const bf16 *)pages + at, (const bf16 *)pages + at + PAGE) : i_load((const float *)pages + at);
            }
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++)
                for (int i = 0; i < REGISTERS; i++) acc[r][i] = dot_step(acc[r][i], key[i], load_step(&q[r][s]), half);
        }
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < REGISTERS; i++) v_store(scores[r] + column + 16 * i, v_mul(acc[r][i], v_set1(scale)));
    }
}

// Which of a page's positions a row sees: [begin, end).
typedef struct Seen {
    int begin, end;
} Seen;

// Two rows of values as pairs, of which an unseen member is zero whatever lies there.
INLINE i16 seen_pairs(const bf16 *values, int64_t Dp, int position, Seen seen) {
    i16 pairs = i_pairs(values, values + Dp);
    if (position < seen.begin) return i_and(pairs, i_set1((int32_t)0xffff0000));
    if (position + 1 >= seen.end) return i_and(pairs, i_set1(0xffff));
    return pairs;
}

// out[r] = factor[r] * out[r] + weights[r] . values, weights [rows][PAGE] steps of the chain over positions, values at
// `values`, [32][Dp]: `width` registers of columns, from column c on.
INLINE void value_columns(float (*out)[STRIDE], const uint32_t (*weights)[PAGE], const float *factor, const void *pages, int64_t values,
                          int64_t Dp, int64_t c, int width, Seen seen, int rows, bool half) {
    int per_step = half ? 2 : 1;
    v16 acc[ROWS][REGISTERS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) acc[r][i] = v_mul(v_load(out[r] + c + 16 * i), v_set1(factor[r]));
    for (int s = seen.begin / per_step; s * per_step < seen.end; s++) {
        int64_t at = values + s * per_step * Dp + c;
        i16 value[REGISTERS];
#pragma GCC unroll 2
        for (int i = 0; i < width; i++)
            value[i] = half ? seen_pairs((const bf16 *)pages + at + 16 * i, Dp, s * per_step, seen) : i_load((const float *)pages + at + 16 * i);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int i = 0; i < width; i++) acc[r][i] = dot_step(acc[r][i], value[i], load_step(&weights[r][s]), half);
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) v_store(out[r] + c + 16 * i, acc[r][i]);
}
INLINE void value_rows(float (*out)[STRIDE], const uint32_t (*weights)[PAGE], const float *factor, const void *pages, int64_t values,
                       int64_t Dp, Seen seen, int rows, bool half) {
    int64_t c = 0;
    for (; c + 16 * REGISTERS <= Dp; c += 16 * REGISTERS) value_columns(out, weights, factor, pages, values, Dp, c, REGISTERS, seen, rows, half);
    for (; c < Dp; c += 16) value_columns(out, weights, factor, pages, values, Dp, c, 1, seen, rows, half);
}

// ---- a tile of rows ----------------------------------------------------------------------------------------
typedef struct Tile {
    uint32_t q[ROWS][STRIDE];
    float out[ROWS][STRIDE];
    float scores[ROWS][PAGE];
    uint32_t weights[ROWS][PAGE];
    float max[16], sum[ROWS]; // of the softmax so far
    Seen seen[ROWS];          // of the page that is met
} Tile;

INLINE void softmax_rows(Tile *t, int first, int rows, bool half, float *factor) {
    float top[16];
    v16 nothing = v_set1(MINUS_INFINITY);
    v_store(top, nothing);
    for (int r = 0; r < rows; r++) {
        float *scores = t->scores[first + r];
        Seen seen = t->seen[first + r];
        for (int c = 0; c < PAGE && (seen.begin > 0 || seen.end < PAGE); c += 16) {
            v16 score = v_first(v_load(scores + c), seen.end - c, nothing);
            v_store(scores + c, v_first(nothing, seen.begin - c, score));
        }
        top[r] = v_largest(v_max(v_load(scores), v_load(scores + 16)));
    }
    float before[16];
    v_store(before, nothing);
    memcpy(before, t->max + first, (size_t)rows * sizeof(float));
    v16 max = v_max(v_load(top), v_load(before));
    v_store(factor, v_exp(v_sub(v_load(before), max)));
    v_store(top, max);
    for (int r = 0; r < rows; r++) {
        float *scores = t->scores[first + r];
        v16 a = v_exp(v_sub(v_load(scores), v_set1(top[r]))), b = v_exp(v_sub(v_load(scores + 16), v_set1(top[r])));
        act_store_result(t->weights[first + r], 0, a, half);
        act_store_result(t->weights[first + r], 16, b, half);
        t->sum[first + r] = t->sum[first + r] * factor[r] + v_sum(v_add(a, b));
        t->max[first + r] = top[r];
    }
}

// Rows [first, first + rows) of the tile meet a page of which they see the same, or which they see from its first position on.
INLINE void page_rows(Tile *t, int first, const AttentionArgs *a, const Geometry *g, int64_t keys, int rows, bool half) {
    float factor[16], one[1] = {1.0f};
    score_rows((const uint32_t(*)[STRIDE])t->q + first, a->pages, keys, g->D, rows, half, a->scale, t->scores + first);
    softmax_rows(t, first, rows, half, factor);
    const uint32_t(*weights)[PAGE] = (const uint32_t(*)[PAGE])t->weights + first;
    int64_t values = keys + PAGE * g->Dp;
    Seen all = t->seen[first];
    bool same = true;
    for (int r = 1; r < rows; r++) {
        int end = t->seen[first + r].end;
        if (end != t->seen[first].end) same = false;
        if (end < all.end) all.end = end;
    }
    if (!same) all.end &= ~1; // whole pairs
    value_rows(t->out + first, weights, factor, a->pages, values, g->Dp, all, rows, half);
    for (int r = 0; !same && r < rows; r++) {
        Seen rest = {all.end, t->seen[first + r].end};
        if (rest.begin < rest.end) value_rows(t->out + first + r, weights + r, one, a->pages, values, g->Dp, rest, 1, half);
    }
}

#define ROWS_CASE(n)                                                                                         \
    case n:                                                                                                  \
        if (a->dtype == DTYPE_BF16)                                                                          \
            page_rows(t, first, a, g, keys, n, true);                                                  \
        else                                                                                                 \
            page_rows(t, first, a, g, keys, n, false);                                                 \
        return;
static void meet_page(Tile *t, int first, int rows, const AttentionArgs *a, const Geometry *g, int64_t keys) {
    switch (rows) {
        ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3) ROWS_CASE(4) ROWS_CASE(5) ROWS_CASE(6)
#if defined(__AVX512F__)
        ROWS_CASE(7) ROWS_CASE(8) ROWS_CASE(9) ROWS_CASE(10) ROWS_CASE(11) ROWS_CASE(12)
#endif
    }
}

// ---- forward ---------------------------------------------------------------------------------------------
// Query heads [head, head + heads), all of one kv head, of tokens [token, token + tokens).
typedef struct Block {
    int64_t token;
    int tokens, head, heads;
} Block;

// What token t sees of its page number `chunk`; nothing: begin >= end.
static Seen seen_of(const AttentionArgs *a, int64_t t, int64_t chunk) {
    int64_t end = (int64_t)a->position[t] + 1 - chunk * PAGE, begin = first_seen(a, a->position[t]) - chunk * PAGE;
    return (Seen){.begin = (int)(begin > 0 ? begin < PAGE ? begin : PAGE : 0), .end = (int)(end < PAGE ? end > 0 ? end : 0 : PAGE)};
}

// How many tokens of the block from number i on meet the page of token i together.
static int together(const AttentionArgs *a, const Block *b, int i, int64_t chunk) {
    int64_t t = b->token + i;
    Seen first = seen_of(a, t, chunk);
    int count = 1;
    for (; i + count < b->tokens; count++) {
        Seen seen = seen_of(a, t + count, chunk);
        if (seen.end == 0 || seen.begin != first.begin || (seen.begin > 0 && seen.end != first.end)) break;
        if (a->table[a->table_start[t + count] + chunk] != a->table[a->table_start[t] + chunk]) break;
    }
    return count;
}

static void load_rows(Tile *t, const AttentionArgs *a, const Geometry *g, const Block *b) {
    bool half = a->dtype == DTYPE_BF16;
    for (int r = 0; r < b->tokens * b->heads; r++) {
        int64_t at = ((b->token + r / b->heads) * a->heads + b->head + r % b->heads) * g->D;
        if (half && g->D % 2) ((bf16 *)t->q[r])[g->D] = 0; // the last pair's
        memcpy(t->q[r], (const char *)a->q + at * (half ? 2 : 4), (size_t)g->D * (half ? 2 : 4));
        memset(t->out[r], 0, (size_t)g->Dp * sizeof(float));
        t->max[r] = MINUS_INFINITY;
        t->sum[r] = 0;
    }
}

static void store_rows(const Tile *t, const AttentionArgs *a, const Geometry *g, const Block *b) {
    bool half = a->dtype == DTYPE_BF16;
    for (int r = 0; r < b->tokens * b->heads; r++) {
        v16 inverse = v_set1(1.0f / t->sum[r]);
        int64_t at = (b->token + r / b->heads) * a->heads + b->head + r % b->heads;
        FOR_LANES(g->D) lanes_store(a->y, at * g->D + c, v_mul(v_load(t->out[r] + c), inverse), n, half);
        if (a->lse) a->lse[at] = t->max[r] + (float)exact_log(t->sum[r]);
    }
}

static void attend(const AttentionArgs *a, const Geometry *g, const Block *b) {
    Tile tile;
    load_rows(&tile, a, g, b);
    int64_t first = INT64_MAX, end = 0, head = b->head / g->group * g->head;
    for (int64_t t = b->token; t < b->token + b->tokens; t++) {
        int64_t start = first_seen(a, a->position[t]) / PAGE, stop = a->position[t] / PAGE + 1;
        first = start < first ? start : first;
        end = stop > end ? stop : end;
    }
    for (int64_t chunk = first; chunk < end; chunk++) {
        for (int i = 0, count = 1; i < b->tokens; i += count, count = 1) {
            Seen seen = seen_of(a, b->token + i, chunk);
            if (seen.begin >= seen.end) continue;
            count = together(a, b, i, chunk);
            for (int r = 0; r < count * b->heads; r++) tile.seen[i * b->heads + r] = seen_of(a, b->token + i + r / b->heads, chunk);
            int64_t keys = a->table[a->table_start[b->token + i] + chunk] * g->page + head;
            meet_page(&tile, i * b->heads, count * b->heads, a, g, keys);
        }
    }
    store_rows(&tile, a, g, b);
}

void V(attention)(const Team *team, const AttentionArgs *a) {
    Geometry g = geometry_of(a);
    int heads = g.group < ROWS ? g.group : ROWS, parts = (g.group + heads - 1) / heads, tokens = ROWS / heads;
    int64_t across = (int64_t)a->kv_heads * parts, units = (a->T + tokens - 1) / tokens * across;
    // Later rows see more: an interleaved split keeps the threads equally busy.
    for (int64_t i = team->thread; i < units; i += team->count) {
        int kv_head = (int)(i % across) / parts, part = (int)(i % across) % parts;
        Block b = {.token = i / across * tokens, .head = kv_head * g.group + part * heads};
        b.tokens = (int)(a->T - b.token < tokens ? a->T - b.token : tokens);
        b.heads = g.group - part * heads < heads ? g.group - part * heads : heads;
        attend(a, &g, &b);
    }
}

// ---- backward --------------------------------------------------------------------------------------------
// Per unit and kv head, page after page: the page is widened once to fp32 in the two layouts used, its gradients
// are summed over rows in ascending order in L1, and each row's dq grows page by page, ascending.
typedef struct PageScratch {
    float values_t[MAX_D * PAGE]; // [Dp][32]
    float keys[PAGE * MAX_D];     // [32][Dp]
    float *dkeys, *dvalues;       // [32][Dp] of dpages
} PageScratch;

enum { GRAD_ROWS = REGISTERS == 2 ? 8 : 4 };
typedef struct GradTile {
    int rows;
    int64_t at[GRAD_ROWS]; // row * heads + head
    int begin[GRAD_ROWS], valid[GRAD_ROWS]; // positions of the page that the row sees
    uint32_t steps[GRAD_ROWS][STRIDE];      // q as the forward pass takes it
    float q[GRAD_ROWS][STRIDE], dy[GRAD_ROWS][STRIDE];
} GradTile;

// Sixteen by sixteen numbers, turned around and widened.
INLINE void widen_block(const void *pages, int64_t at, int64_t stride, float *to, int64_t to_stride, bool half) {
    float block[16 * 16];
    for (int i = 0; i < 16; i++) v_store(block + 16 * i, act_load(pages, at + i * stride, half));
    turn16((const uint32_t *)(const void *)block, 16, (uint32_t *)(void *)to, to_stride);
}
INLINE void widen_page(const AttentionArgs *a, const Geometry *g, int64_t keys, PageScratch *s, bool half) {
    int64_t values = keys + PAGE * g->Dp, whole = g->D / 16 * 16;
    for (int64_t d = 0; d < whole; d += 16)
        for (int j = 0; j < PAGE; j += 16) {
            widen_block(a->pages, keys + d * PAGE + j, PAGE, s->keys + j * g->Dp + d, g->Dp, half);
            widen_block(a->pages, values + j * g->Dp + d, g->Dp, s->values_t + d * PAGE + j, PAGE, half);
        }
    for (int64_t d = whole; d < g->D; d++)
        for (int j = 0; j < PAGE; j++) {
            s->keys[j * g->Dp + d] = act_get(a->pages, keys + d * PAGE + j, half);
            s->values_t[d * PAGE + j] = act_get(a->pages, values + j * g->Dp + d, half);
        }
}

// What rows see of a page together, [all_from, least), and altogether, [first, most).
typedef struct Overlap {
    int first, all_from, least, most;
} Overlap;
static Overlap overlap_of(const int *begin, const int *valid, int rows) {
    Overlap o = {PAGE, 0, PAGE, 0};
    for (int r = 0; r < rows; r++) {
        o.first = begin[r] < o.first ? begin[r] : o.first;
        o.all_from = begin[r] > o.all_from ? begin[r] : o.all_from;
        o.least = valid[r] < o.least ? valid[r] : o.least;
        o.most = valid[r] > o.most ? valid[r] : o.most;
    }
    return o;
}

INLINE bool sees_position(const GradTile *t, int r, int j) { return j >= t->begin[r] && j < t->valid[r]; }

// Rows of `sum` [32][Dp] grow by weights[r][j] * x[r], rows ascending. A row adds nothing to positions it doesn't see,
// not even zero times an infinity. `width` registers of columns at a time, from column c on; the rows' stay in registers.
INLINE void outer_columns(float *sum, const float (*weights)[PAGE], const float (*x)[STRIDE], const GradTile *t, int from, const Overlap *o,
                          int64_t Dp, int64_t c, int width, int rows) {
    v16 row[GRAD_ROWS][REGISTERS], acc[REGISTERS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) row[r][i] = v_load(x[from + r] + c + 16 * i);
    for (int j = o->first; j < o->most; j++) {
        bool all = j >= o->all_from && j < o->least;
        float *at = sum + j * Dp + c;
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) acc[i] = v_load(at + 16 * i);
        if (all) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int i = 0; i < width; i++) acc[i] = v_fma(v_set1(weights[r][j]), row[r][i], acc[i]);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                bool sees = sees_position(t, from + r, j);
#pragma GCC unroll 2
                for (int i = 0; i < width; i++) acc[i] = v_fma_if(sees, v_set1(weights[r][j]), row[r][i], acc[i]);
            }
        }
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) v_store(at + 16 * i, acc[i]);
    }
}
INLINE void add_outer(float *sum, const float (*weights)[PAGE], const float (*x)[STRIDE], const GradTile *t, int from, const Overlap *o, int64_t Dp,
                      int rows) {
    int64_t c = 0;
    for (; c + 16 * REGISTERS <= Dp; c += 16 * REGISTERS) outer_columns(sum, weights, x, t, from, o, Dp, c, REGISTERS, rows);
    for (; c < Dp; c += 16) outer_columns(sum, weights, x, t, from, o, Dp, c, 1, rows);
}

// dq of each row grows by weights[r][j] * keys[j], j ascending over what it sees; `count` columns of each register, from column c on.
INLINE void keys_columns(float *dq, const GradTile *t, int from, const float (*weights)[PAGE], const float *keys, const Overlap *o, const Geometry *g,
                         int64_t c, int64_t count, int width, int rows) {
    v16 acc[GRAD_ROWS][REGISTERS], key[REGISTERS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) acc[r][i] = lanes_load(dq, t->at[from + r] * g->D + c + 16 * i, count, false);
    for (int j = o->first; j < o->most; j++) {
        bool all = j >= o->all_from && j < o->least;
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) key[i] = v_load(keys + j * g->Dp + c + 16 * i);
        if (all) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                for (int i = 0; i < width; i++) acc[r][i] = v_fma(v_set1(weights[r][j]), key[i], acc[r][i]);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                bool sees = sees_position(t, from + r, j);
#pragma GCC unroll 2
                for (int i = 0; i < width; i++) acc[r][i] = v_fma_if(sees, v_set1(weights[r][j]), key[i], acc[r][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int i = 0; i < width; i++) lanes_store(dq, t->at[from + r] * g->D + c + 16 * i, acc[r][i], count, false);
}
INLINE void add_keys(float *dq, const GradTile *t, int from, const float (*weights)[PAGE], const float *keys, const Overlap *o, const Geometry *g,
                     int rows) {
    int64_t c = 0;
    for (; c + 16 * REGISTERS <= g->D; c += 16 * REGISTERS) keys_columns(dq, t, from, weights, keys, o, g, c, 16, REGISTERS, rows);
    for (; c + 16 <= g->D; c += 16) keys_columns(dq, t, from, weights, keys, o, g, c, 16, 1, rows);
    if (c < g->D) keys_columns(dq, t, from, weights, keys, o, g, c, g->D - c, 1, rows);
}

// Rows [from, from + rows) of a tile.
INLINE void grad_rows(const AttentionGradArgs *g_args, const Geometry *g, const GradTile *t, int from, int64_t page, PageScratch *s, int rows,
                      bool half) {
    const AttentionArgs *a = &g_args->forward;
    float weights[GRAD_ROWS][PAGE], dscores[GRAD_ROWS][PAGE];
    score_rows(t->steps + from, a->pages, page, g->D, rows, half, a->scale, weights);
    score_rows((const uint32_t(*)[STRIDE])t->dy + from, s->values_t, 0, g->D, rows, false, 1.0f, dscores);
    for (int r = 0; r < rows; r++) {
        int64_t at = t->at[from + r];
        int begin = t->begin[from + r], valid = t->valid[from + r];
        v16 lse = v_set1(a->lse[at]), delta = v_set1(g_args->delta[at]), scale = v_set1(a->scale);
        bool all = begin == 0 && valid == PAGE;
        for (int c = 0; c < PAGE; c += 16) {
            v16 p = v_exp(v_sub(v_load(weights[r] + c), lse)), ds = v_sub(v_load(dscores[r] + c), delta);
            if (!all) p = v_first(v_zero(), begin - c, v_first(p, valid - c, v_zero()));
            ds = v_mul(v_mul(p, ds), scale);
            if (!all) ds = v_first(v_zero(), begin - c, v_first(ds, valid - c, v_zero()));
            v_store(weights[r] + c, p);
            v_store(dscores[r] + c, ds);
        }
    }
    Overlap o = overlap_of(t->begin + from, t->valid + from, rows);
    add_outer(s->dvalues, (const float(*)[PAGE])weights, t->dy, t, from, &o, g->Dp, rows);
    add_outer(s->dkeys, (const float(*)[PAGE])dscores, t->q, t, from, &o, g->Dp, rows);
    add_keys(g_args->dq, t, from, (const float(*)[PAGE])dscores, s->keys, &o, g, rows);
}

#define GRAD_PART(n)                                                                                         \
    if (t->rows - from >= n) {                                                                               \
        if (g_args->forward.dtype == DTYPE_BF16)                                                             \
            grad_rows(g_args, g, t, from, page, s, n, true);                                                 \
        else                                                                                                 \
            grad_rows(g_args, g, t, from, page, s, n, false);                                                \
        from += n;                                                                                           \
    }
// Rows in order, so the sums are the same in whatever parts they are taken.
static void grad_tile(const AttentionGradArgs *g_args, const Geometry *g, GradTile *t, int64_t page, PageScratch *s) {
    int from = 0;
#if defined(__AVX512F__)
    GRAD_PART(8)
#endif
    GRAD_PART(4) GRAD_PART(2) GRAD_PART(1)
    t->rows = 0;
}

INLINE void load_grad_row(const AttentionGradArgs *g_args, const Geometry *g, GradTile *tile, int r, bool half) {
    const AttentionArgs *a = &g_args->forward;
    int64_t at = tile->at[r] * g->D;
    int size = half ? 2 : 4;
    if (half && g->D % 2) ((bf16 *)tile->steps[r])[g->D] = 0; // the last pair's
    FOR_LANES(g->D) {
        if (n == 16) memcpy((char *)tile->steps[r] + c * size, (const char *)a->q + (at + c) * size, (size_t)(16 * size));
        else memcpy((char *)tile->steps[r] + c * size, (const char *)a->q + (at + c) * size, (size_t)(n * size));
        lanes_store(tile->q[r], c, lanes_load(a->q, at + c, n, half), n, false);
        lanes_store(tile->dy[r], c, lanes_load(g_args->dy, at + c, n, false), n, false);
    }
}

// All rows of the unit that see `page` as their chunk `chunk`.
static void grad_page(const AttentionGradArgs *g_args, const Geometry *g, int unit, int kv_head, int32_t page, GradTile *tile,
                      PageScratch *s) {
    const AttentionArgs *a = &g_args->forward;
    bool half = a->dtype == DTYPE_BF16;
    int64_t keys = page * g->page + kv_head * g->head;
    if (half) widen_page(a, g, keys, s, true);
    else widen_page(a, g, keys, s, false);
    s->dkeys = g_args->dpages + keys;
    s->dvalues = s->dkeys + PAGE * g->Dp;
    memset(s->dkeys, 0, (size_t)(2 * PAGE * g->Dp) * sizeof(float));
    int64_t end = g_args->unit[unit + 1];
    for (int64_t t = g_args->unit[unit]; t < end;) {
        // Rows of one sequence follow each other and share a table.
        int64_t run = t;
        int32_t start = a->table_start[t], longest = 0;
        while (run < end && a->table_start[run] == start) longest = a->position[run] > longest ? a->position[run] : longest, run++;
        int chunk = 0, chunks = longest / PAGE + 1;
        while (chunk < chunks && a->table[start + chunk] != page) chunk++;
        for (; chunk < chunks && t < run; t++) {
            int64_t valid = (int64_t)a->position[t] + 1 - chunk * PAGE, begin = first_seen(a, a->position[t]) - chunk * PAGE;
            if (valid <= 0 || begin >= PAGE) continue;
            for (int h = kv_head * g->group; h < (kv_head + 1) * g->group; h++) {
                int r = tile->rows++;
                tile->at[r] = t * a->heads + h;
                tile->begin[r] = (int)(begin > 0 ? begin : 0);
                tile->valid[r] = (int)(valid < PAGE ? valid : PAGE);
                if (half) load_grad_row(g_args, g, tile, r, true);
                else load_grad_row(g_args, g, tile, r, false);
                if (tile->rows == GRAD_ROWS) grad_tile(g_args, g, tile, keys, s);
            }
        }
        t = run;
    }
    grad_tile(g_args, g, tile, keys, s);
    for (int j = 0; g->D < g->Dp && j < PAGE; j++) { // a NaN weight has turned the padding's zeros into NaN
        memset(s->dkeys + j * g->Dp + g->D, 0, (size_t)(g->Dp - g->D) * sizeof(float));
        memset(s->dvalues + j * g->Dp + g->D, 0, (size_t)(g->Dp - g->D) * sizeof(float));
    }
}

// delta = dy . y of the unit's rows, and dq from zero. Heads of one kv head lie apart, where the hardware doesn't look
// ahead; from here on the unit's rows are in L2, where each of its pages meets them.
static void begin_unit(const AttentionGradArgs *b, const Geometry *g, int unit, int kv_head) {
    enum { AHEAD = 4 };
    const AttentionArgs *a = &b->forward;
    bool half = a->dtype == DTYPE_BF16;
    int64_t row = g->group * g->D, last = b->unit[unit + 1] - 1;
    for (int64_t t = b->unit[unit]; t <= last; t++) {
        int64_t first = t * a->heads + kv_head * g->group, ahead = t + AHEAD < last ? AHEAD : last - t, next = (first + ahead * a->heads) * g->D;
        act_prefetch(b->dy, next, row, false), act_prefetch(b->dq, next, row, false);
        act_prefetch(a->y, next, row, half), act_prefetch(a->q, next, row, half);
        for (int64_t i = first; i < first + g->group; i++) {
            v16 sum = v_zero();
            FOR_LANES(g->D) {
                sum = v_fma(lanes_load(b->dy, i * g->D + c, n, false), lanes_load(a->y, i * g->D + c, n, half), sum);
                lanes_store(b->dq, i * g->D + c, v_zero(), n, false);
            }
            b->delta[i] = v_sum(sum);
        }
    }
}

void V(attention_grad)(const Team *team, const AttentionGradArgs *b) {
    const AttentionArgs *a = &b->forward;
    Geometry g = geometry_of(a);
    PageScratch scratch;
    GradTile tile;
    memset(&scratch, 0, sizeof scratch); // columns D..D' stay zero
    memset(&tile, 0, sizeof tile);
    for (int64_t i = team->thread; i < (int64_t)b->unit_count * a->kv_heads; i += team->count) {
        int unit = (int)(i / a->kv_heads), kv_head = (int)(i % a->kv_heads);
        begin_unit(b, &g, unit, kv_head);
        for (int32_t page = b->unit_page[unit]; page < b->unit_page[unit + 1]; page++)
            grad_page(b, &g, unit, kv_head, page, &tile, &scratch);
    }
}
