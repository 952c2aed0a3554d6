// Attention over pages of 32 positions, forward and backward. Rows (a token's heads that share a kv head, and in the
// backward pass those of several tokens) are tiled by up to four; a page is walked as one chunk of the softmax.
//
// Scores are chains over D for 32 keys at once (keys lie transposed); outputs are chains over positions for 16
// columns at once. A row's numbers depend on its own position and pages only: decoding one token, prefilling a prompt
// and training all give the same bits.
#include "simd.h"
#include <stdlib.h>

enum { ROWS = 4, MAX_D = 256 };

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

// ---- forward ---------------------------------------------------------------------------------------------
typedef struct Softmax {
    float max, sum;
} Softmax;

// scores[r][32] = q[r] . keys (keys [Dp][32])
INLINE void scores_of(const float (*q)[MAX_D], const void *pages, int64_t keys, int64_t D, int rows, bool half, float scale,
                      float (*scores)[PAGE]) {
    v16 acc[ROWS][2];
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = v_zero();
    for (int64_t d = 0; d < D; d++) {
        v16 k0 = act_load(pages, keys + d * PAGE, half), k1 = act_load(pages, keys + d * PAGE + 16, half);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v16 x = v_set1(q[r][d]);
            acc[r][0] = v_fma(x, k0, acc[r][0]);
            acc[r][1] = v_fma(x, k1, acc[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        v_store(scores[r], v_mul(acc[r][0], v_set1(scale)));
        v_store(scores[r] + 16, v_mul(acc[r][1], v_set1(scale)));
    }
}

// One chunk of one row, of which positions [begin, valid) are seen: scores become weights; returns the factor for what
// was summed before.
INLINE float softmax_chunk(Softmax *s, float *scores, int begin, int valid) {
    v16 a = v_first(v_load(scores), valid, v_set1(MINUS_INFINITY));
    v16 b = v_first(v_load(scores + 16), valid - 16, v_set1(MINUS_INFINITY));
    if (begin > 0) {
        a = v_first(v_set1(MINUS_INFINITY), begin, a);
        b = v_first(v_set1(MINUS_INFINITY), begin - 16, b);
    }
    float top = v_largest(v_max(a, b)), max = top > s->max ? top : s->max;
    float lanes[16];
    v_store(lanes, v_exp(v_set1(s->max - max)));
    a = v_exp(v_sub(a, v_set1(max)));
    b = v_exp(v_sub(b, v_set1(max)));
    v_store(scores, a);
    v_store(scores + 16, b);
    s->sum = s->sum * lanes[0] + v_sum(v_add(a, b));
    s->max = max;
    return lanes[0];
}

INLINE void add_values(float *out, const float *weights, const void *pages, int64_t values, int64_t Dp, int begin, int valid,
                       bool half, float factor) {
    for (int64_t c = 0; c < Dp; c += 64) {
        int width = (int)(Dp - c < 64 ? (Dp - c) / 16 : 4);
        v16 acc[4], scale = v_set1(factor);
        for (int i = 0; i < width; i++) acc[i] = v_mul(v_load(out + c + i * 16), scale);
        for (int j = begin; j < valid; j++) {
            v16 weight = v_set1(weights[j]);
            for (int i = 0; i < width; i++)
                acc[i] = v_fma(weight, act_load(pages, values + j * Dp + c + i * 16, half), acc[i]);
        }
        for (int i = 0; i < width; i++) v_store(out + c + i * 16, acc[i]);
    }
}

// `rows` query heads of token t, from head h0, all of one kv head.
INLINE void attend(const AttentionArgs *a, const Geometry *g, int64_t t, int h0, int rows, bool half) {
    float q[ROWS][MAX_D], out[ROWS][MAX_D], scores[ROWS][PAGE];
    Softmax state[ROWS];
    for (int r = 0; r < rows; r++) {
        state[r] = (Softmax){.max = MINUS_INFINITY};
        memset(out[r], 0, (size_t)g->Dp * sizeof(float));
        FOR_LANES(g->D) lanes_store(q[r], c, lanes_load(a->q, (t * a->heads + h0 + r) * g->D + c, n, half), n, false);
    }
    const int32_t *table = a->table + a->table_start[t];
    int64_t length = (int64_t)a->position[t] + 1, start = first_seen(a, length - 1), head = h0 / g->group * g->head;
    for (int64_t chunk = start / PAGE; chunk * PAGE < length; chunk++) {
        int begin = (int)(start > chunk * PAGE ? start - chunk * PAGE : 0);
        int valid = (int)(length - chunk * PAGE < PAGE ? length - chunk * PAGE : PAGE);
        int64_t keys = table[chunk] * g->page + head, values = keys + PAGE * g->Dp;
        scores_of((const float(*)[MAX_D])q, a->pages, keys, g->D, rows, half, a->scale, scores);
        for (int r = 0; r < rows; r++) {
            float factor = softmax_chunk(&state[r], scores[r], begin, valid);
            add_values(out[r], scores[r], a->pages, values, g->Dp, begin, valid, half, factor);
        }
    }
    for (int r = 0; r < rows; r++) {
        v16 inverse = v_set1(1.0f / state[r].sum);
        int64_t at = (t * a->heads + h0 + r);
        FOR_LANES(g->D) lanes_store(a->y, at * g->D + c, v_mul(v_load(out[r] + c), inverse), n, half);
        if (a->lse) a->lse[at] = state[r].max + (float)exact_log(state[r].sum);
    }
}

INLINE void attend_tiled(const AttentionArgs *a, const Geometry *g, int64_t t, int h, int rows, bool half) {
    switch (rows) {
    case 1: attend(a, g, t, h, 1, half); break;
    case 2: attend(a, g, t, h, 2, half); break;
    case 3: attend(a, g, t, h, 3, half); break;
    default: attend(a, g, t, h, 4, half); break;
    }
}

void V(attention)(const Team *team, const AttentionArgs *a) {
    Geometry g = geometry_of(a);
    // Later rows see more: an interleaved split keeps the threads equally busy.
    for (int64_t t = team->thread; t < a->T; t += team->count)
        for (int k = 0; k < a->kv_heads; k++)
            for (int h = 0; h < g.group; h += ROWS) {
                int rows = g.group - h < ROWS ? g.group - h : ROWS;
                if (a->dtype == DTYPE_BF16)
                    attend_tiled(a, &g, t, k * g.group + h, rows, true);
                else
                    attend_tiled(a, &g, t, k * g.group + h, rows, false);
            }
}

// ---- backward --------------------------------------------------------------------------------------------
// Per unit and kv head, page after page: the page is widened once to fp32 in the three layouts used, its gradients
// are summed over rows in ascending order in L1, and each row's dq grows page by page, ascending.
typedef struct PageScratch {
    float keys_t[MAX_D * PAGE], values_t[MAX_D * PAGE]; // [Dp][32]
    float keys[PAGE * MAX_D];                           // [32][Dp]
    float dkeys[PAGE * MAX_D], dvalues[PAGE * MAX_D];   // [32][Dp]
} PageScratch;

typedef struct GradTile {
    int rows;
    int64_t at[ROWS]; // row * heads + head
    int begin[ROWS], valid[ROWS]; // positions of the page that the row sees
    float q[ROWS][MAX_D], dy[ROWS][MAX_D];
} GradTile;

static void widen_page(const AttentionArgs *a, const Geometry *g, int64_t keys, PageScratch *s) {
    bool half = a->dtype == DTYPE_BF16;
    int64_t values = keys + PAGE * g->Dp;
    for (int64_t d = 0; d < g->D; d++)
        for (int j = 0; j < PAGE; j++) {
            float k = act_get(a->pages, keys + d * PAGE + j, half);
            s->keys_t[d * PAGE + j] = k;
            s->keys[j * g->Dp + d] = k;
            s->values_t[d * PAGE + j] = act_get(a->pages, values + j * g->Dp + d, half);
        }
    memset(s->dkeys, 0, (size_t)(PAGE * g->Dp) * sizeof(float));
    memset(s->dvalues, 0, (size_t)(PAGE * g->Dp) * sizeof(float));
}

// Rows of `sum` [32][Dp] grow by weights[r][j] * x[r], rows ascending. A row adds nothing to positions it doesn't see,
// not even zero times an infinity.
INLINE void add_outer(float *sum, const float (*weights)[PAGE], const float (*x)[MAX_D], const int *begin, const int *valid, int64_t Dp,
                      int rows) {
    int first = PAGE, all_from = 0, least = PAGE, most = 0;
    for (int r = 0; r < rows; r++) {
        first = begin[r] < first ? begin[r] : first;
        all_from = begin[r] > all_from ? begin[r] : all_from;
        least = valid[r] < least ? valid[r] : least;
        most = valid[r] > most ? valid[r] : most;
    }
    for (int j = first; j < most; j++)
        for (int64_t c = 0; c < Dp; c += 16) {
            v16 acc = v_load(sum + j * Dp + c);
            if (j >= all_from && j < least) {
                for (int r = 0; r < rows; r++) acc = v_fma(v_set1(weights[r][j]), v_load(x[r] + c), acc);
            } else {
                for (int r = 0; r < rows; r++)
                    if (j >= begin[r] && j < valid[r]) acc = v_fma(v_set1(weights[r][j]), v_load(x[r] + c), acc);
            }
            v_store(sum + j * Dp + c, acc);
        }
}

INLINE void grad_rows(const AttentionGradArgs *g_args, const Geometry *g, const GradTile *t, PageScratch *s, int rows) {
    const AttentionArgs *a = &g_args->forward;
    float weights[ROWS][PAGE], dscores[ROWS][PAGE];
    scores_of(t->q, s->keys_t, 0, g->D, rows, false, a->scale, weights);
    scores_of(t->dy, s->values_t, 0, g->D, rows, false, 1.0f, dscores);
    for (int r = 0; r < rows; r++) {
        v16 lse = v_set1(a->lse[t->at[r]]), delta = v_set1(g_args->delta[t->at[r]]), scale = v_set1(a->scale);
        for (int c = 0; c < PAGE; c += 16) {
            v16 p = v_first(v_exp(v_sub(v_load(weights[r] + c), lse)), t->valid[r] - c, v_zero());
            v16 ds = v_mul(v_mul(p, v_sub(v_load(dscores[r] + c), delta)), scale);
            ds = v_first(ds, t->valid[r] - c, v_zero());
            v_store(weights[r] + c, v_first(v_zero(), t->begin[r] - c, p));
            v_store(dscores[r] + c, v_first(v_zero(), t->begin[r] - c, ds));
        }
    }
    add_outer(s->dvalues, (const float(*)[PAGE])weights, t->dy, t->begin, t->valid, g->Dp, rows);
    add_outer(s->dkeys, (const float(*)[PAGE])dscores, t->q, t->begin, t->valid, g->Dp, rows);
    for (int r = 0; r < rows; r++) {
        float *dq = g_args->dq + t->at[r] * g->D;
        FOR_LANES(g->D) {
            v16 acc = lanes_load(dq, c, n, false);
            for (int j = t->begin[r]; j < t->valid[r]; j++)
                acc = v_fma(v_set1(dscores[r][j]), v_load(s->keys + j * g->Dp + c), acc);
            lanes_store(dq, c, acc, n, false);
        }
    }
}

static void grad_tile(const AttentionGradArgs *g_args, const Geometry *g, GradTile *t, PageScratch *s) {
    switch (t->rows) {
    case 0: return;
    case 1: grad_rows(g_args, g, t, s, 1); break;
    case 2: grad_rows(g_args, g, t, s, 2); break;
    case 3: grad_rows(g_args, g, t, s, 3); break;
    default: grad_rows(g_args, g, t, s, 4); break;
    }
    t->rows = 0;
}

// All rows of the unit that see `page` as their chunk `chunk`.
static void grad_page(const AttentionGradArgs *g_args, const Geometry *g, int unit, int kv_head, int32_t page, GradTile *tile,
                      PageScratch *s) {
    const AttentionArgs *a = &g_args->forward;
    bool half = a->dtype == DTYPE_BF16;
    widen_page(a, g, page * g->page + kv_head * g->head, s);
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
                FOR_LANES(g->D) {
                    lanes_store(tile->q[r], c, lanes_load(a->q, tile->at[r] * g->D + c, n, half), n, false);
                    lanes_store(tile->dy[r], c, lanes_load(g_args->dy, tile->at[r] * g->D + c, n, false), n, false);
                }
                if (tile->rows == ROWS) grad_tile(g_args, g, tile, s);
            }
        }
        t = run;
    }
    grad_tile(g_args, g, tile, s);
    for (int j = 0; g->D < g->Dp && j < PAGE; j++) { // a NaN weight has turned the padding's zeros into NaN
        memset(s->dkeys + j * g->Dp + g->D, 0, (size_t)(g->Dp - g->D) * sizeof(float));
        memset(s->dvalues + j * g->Dp + g->D, 0, (size_t)(g->Dp - g->D) * sizeof(float));
    }
    float *out = g_args->dpages + page * g->page + kv_head * g->head;
    memcpy(out, s->dkeys, (size_t)(PAGE * g->Dp) * sizeof(float));
    memcpy(out + PAGE * g->Dp, s->dvalues, (size_t)(PAGE * g->Dp) * sizeof(float));
}

void V(attention_grad)(const Team *team, const AttentionGradArgs *b) {
    const AttentionArgs *a = &b->forward;
    Geometry g = geometry_of(a);
    bool half = a->dtype == DTYPE_BF16;
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t i = from * a->heads; i < to * a->heads; i++) {
        v16 sum = v_zero();
        FOR_LANES(g.D) {
            sum = v_fma(lanes_load(b->dy, i * g.D + c, n, false), lanes_load(a->y, i * g.D + c, n, half), sum);
            lanes_store(b->dq, i * g.D + c, v_zero(), n, false);
        }
        b->delta[i] = v_sum(sum);
    }
    team_wait(team);
    PageScratch scratch;
    GradTile tile;
    memset(&scratch, 0, sizeof scratch); // columns D..D' stay zero
    memset(&tile, 0, sizeof tile);
    for (int64_t i = team->thread; i < (int64_t)b->unit_count * a->kv_heads; i += team->count) {
        int unit = (int)(i / a->kv_heads), kv_head = (int)(i % a->kv_heads);
        for (int32_t page = b->unit_page[unit]; page < b->unit_page[unit + 1]; page++)
            grad_page(b, &g, unit, kv_head, page, &tile, &scratch);
    }
}
