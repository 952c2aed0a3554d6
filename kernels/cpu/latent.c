// Latent attention: all heads over one key per position, whose first R columns are the value.
//
// A page is widened and turned once for a block of rows, tokens of one sequence times heads, so that this costs little beside
// the products. Scores are chains over W for 32 positions at once (keys lie transposed), outputs chains over positions for 16
// columns at once; a page is one chunk of the softmax. A row's numbers depend on its own position and pages only. The
// backward pass goes twice over the pairs of rows and pages: page by page for the keys' gradients, row by row for the
// queries', so that threads can share either.
#include "simd.h"
#include "exact.h"

enum { ROWS = 4, BLOCK_ROWS = 64, BLOCK_HEADS = 16, MAX_ROTATED = 512 };

// ---- rotation and the store into pages -------------------------------------------------------------------
static void rotate_pairs(const float *x, const float *cosine, const float *sine, int P, bool interleaved, float *y) {
    for (int i = 0; i < P / 2; i++) {
        float a = interleaved ? x[2 * i] : x[i], b = interleaved ? x[2 * i + 1] : x[i + P / 2];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + P / 2] = b * cosine[i] + a * sine[i];
    }
}
static void rotate_back(const float *y, const float *cosine, const float *sine, int P, bool interleaved, float *x) {
    for (int i = 0; i < P / 2; i++) {
        x[interleaved ? 2 * i : i] = y[i] * cosine[i] + y[i + P / 2] * sine[i];
        x[interleaved ? 2 * i + 1 : i + P / 2] = y[i + P / 2] * cosine[i] - y[i] * sine[i];
    }
}
INLINE void store_row(void *to, int64_t at, const float *from, int64_t count, bool half) {
    FOR_LANES(count) lanes_store(to, at + c, lanes_load(from, c, n, false), n, half);
}

void V(latent_rope)(const Team *team, const LatentRopeArgs *a) {
    bool half = a->dtype == DTYPE_BF16;
    int64_t W = a->R + a->P, page = latent_page_elements(W), from, to;
    float row[MAX_ROTATED];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * a->P, *sine = cosine + a->P / 2;
        for (int64_t h = t * a->heads; h < (t + 1) * a->heads; h++) {
            const float *q = a->q + h * (a->N + a->P);
            store_row(a->q_plain, h * a->N, q, a->N, half);
            rotate_pairs(q + a->N, cosine, sine, a->P, a->interleaved, row);
            store_row(a->q_full, h * W + a->R, row, a->P, half);
        }
        rotate_pairs(a->key + t * a->ldkey, cosine, sine, a->P, a->interleaved, row);
        for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++) {
            int64_t base = a->slot[i] / PAGE * page + a->slot[i] % PAGE;
            for (int64_t d = 0; d < a->R; d++) act_put(a->pages, base + d * PAGE, act_get(a->latent, t * a->R + d, half), half);
            for (int64_t d = 0; d < a->P; d++) act_put(a->pages, base + (a->R + d) * PAGE, row[d], half);
        }
    }
}

void V(latent_rope_grad)(const Team *team, const LatentRopeGradArgs *a) {
    bool half = a->dtype == DTYPE_BF16;
    int64_t W = a->R + a->P, Wp = head_padded(W), from, to;
    float row[MAX_ROTATED], sum[MAX_LATENT];
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const float *cosine = a->cos_sin + (int64_t)a->position[t] * a->P, *sine = cosine + a->P / 2;
        for (int64_t h = t * a->heads; h < (t + 1) * a->heads; h++) {
            rotate_back(a->dq_full + h * W + a->R, cosine, sine, a->P, a->interleaved, row);
            store_row(a->dq, h * (a->N + a->P), a->dq_plain + h * a->N, a->N, half);
            store_row(a->dq, h * (a->N + a->P) + a->N, row, a->P, half);
        }
        memset(sum, 0, (size_t)W * sizeof *sum);
        for (int64_t i = a->slot_start[t]; i < a->slot_start[t + 1]; i++)
            for (int64_t d = 0; d < W; d++) sum[d] += a->dpages[a->slot[i] * Wp + d];
        memcpy(a->dlatent + t * a->R, sum, (size_t)a->R * sizeof *sum);
        rotate_back(sum + a->R, cosine, sine, a->P, a->interleaved, row);
        store_row(a->dkey, t * a->ldkey, row, a->P, half);
    }
}

// ---- a block of rows -------------------------------------------------------------------------------------
// A thread's part of the scratch. Rows of `turned` are 16 further apart than they are long: a power of two would map
// them all to the same lines of the cache.
typedef struct Part {
    int64_t W, Wp, R, stride;
    float *keys;    // [W'][32] of a page, fp32
    float *turned;  // [32][stride]
    float *q, *dy;  // [BLOCK_ROWS][W']
    float *out;     // [BLOCK_ROWS][W']
} Part;
static Part work_of(const Team *team, const LatentAttentionArgs *a) {
    int64_t Wp = head_padded(a->W);
    float *at = (float *)a->scratch + team->thread * ((64 + 3 * BLOCK_ROWS) * Wp + 512);
    return (Part){.W = a->W, .Wp = Wp, .R = a->R, .stride = Wp + 16, .keys = at, .turned = at + 32 * Wp, .q = at + 64 * Wp + 512,
                  .dy = at + (64 + BLOCK_ROWS) * Wp + 512, .out = at + (64 + 2 * BLOCK_ROWS) * Wp + 512};
}

typedef struct RowBlock {
    int64_t token, head; // first ones
    int tokens, heads;   // rows: token after token, heads within
    int64_t longest;     // positions that the last token sees
} RowBlock;

// The blocks of a call: runs of tokens with one table, cut so that all heads of a block are at most BLOCK_ROWS rows.
INLINE int head_blocks(const LatentAttentionArgs *a) { return (a->heads + BLOCK_HEADS - 1) / BLOCK_HEADS; }
static int64_t next_run(const LatentAttentionArgs *a, int64_t t) {
    int heads = a->heads < BLOCK_HEADS ? a->heads : BLOCK_HEADS;
    int64_t most = t + BLOCK_ROWS / heads, end = t + 1;
    while (end < a->T && end < most && a->table_start[end] == a->table_start[t]) end++;
    return end;
}
static RowBlock block_of(const LatentAttentionArgs *a, int64_t from, int64_t to, int part) {
    RowBlock b = {.token = from, .tokens = (int)(to - from), .head = (int64_t)part * BLOCK_HEADS};
    b.heads = (int)(a->heads - b.head < BLOCK_HEADS ? a->heads - b.head : BLOCK_HEADS);
    for (int64_t t = from; t < to; t++) b.longest = a->position[t] + 1 > b.longest ? a->position[t] + 1 : b.longest;
    return b;
}
// x act or fp32 [T, H, width] of the block's rows to fp32 rows of W', zero beyond.
static void gather_rows(const LatentAttentionArgs *a, const RowBlock *b, const void *x, int64_t width, bool half, int64_t Wp, float *to) {
    for (int i = 0; i < b->tokens * b->heads; i++, to += Wp) {
        int64_t at = ((b->token + i / b->heads) * a->heads + b->head + i % b->heads) * width;
        FOR_LANES(width) v_store(to + c, lanes_load(x, at + c, n, half));
    }
}

static const float *widen_page(const LatentAttentionArgs *a, const Part *w, int64_t page) {
    const void *pages = a->pages;
    int64_t at = page * w->Wp * PAGE;
    if (a->dtype == DTYPE_F32) return (const float *)pages + at;
    for (int64_t i = 0; i < w->W * PAGE; i += 16) v_store(w->keys + i, v_load_bf16((const bf16 *)pages + at + i));
    return w->keys;
}
// turned[j][d] = keys[d][j]
static void turn(const float *keys, int64_t columns, int64_t stride, float *turned) {
    for (int64_t d0 = 0; d0 < columns; d0 += 16) {
        int64_t end = d0 + 16 < columns ? d0 + 16 : columns;
        for (int j = 0; j < PAGE; j++)
            for (int64_t d = d0; d < end; d++) turned[j * stride + d] = keys[d * PAGE + j];
    }
}

// scores[r][32] = scale * x[r] . keys, x rows of W'.
INLINE void scores_of(const float *x, int64_t Wp, const float *keys, int64_t width, int rows, float scale, float (*scores)[PAGE]) {
    v16 acc[ROWS][2];
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = v_zero();
    for (int64_t d = 0; d < width; d++) {
        v16 k0 = v_load(keys + d * PAGE), k1 = v_load(keys + d * PAGE + 16);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            v16 v = v_set1(x[r * Wp + d]);
            acc[r][0] = v_fma(v, k0, acc[r][0]);
            acc[r][1] = v_fma(v, k1, acc[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        v_store(scores[r], v_mul(acc[r][0], v_set1(scale)));
        v_store(scores[r] + 16, v_mul(acc[r][1], v_set1(scale)));
    }
}
static void tile_scores(const float *x, int64_t Wp, const float *keys, int64_t width, int rows, float scale, float (*scores)[PAGE]) {
    switch (rows) {
    case 1: scores_of(x, Wp, keys, width, 1, scale, scores); break;
    case 2: scores_of(x, Wp, keys, width, 2, scale, scores); break;
    case 3: scores_of(x, Wp, keys, width, 3, scale, scores); break;
    default: scores_of(x, Wp, keys, width, 4, scale, scores); break;
    }
}

// out[r] [columns] = factor[r] * out[r] + weights[r] . turned, positions ascending.
INLINE void add_rows(float *out, int64_t Wp, const float (*weights)[PAGE], const float *factor, const float *turned, int64_t stride,
                     int64_t columns, int valid, int rows) {
    for (int64_t c = 0; c < columns; c += 32) {
        int two = c + 16 < columns;
        v16 acc[ROWS][2];
        for (int r = 0; r < rows; r++) {
            acc[r][0] = v_mul(v_load(out + r * Wp + c), v_set1(factor[r]));
            acc[r][1] = two ? v_mul(v_load(out + r * Wp + c + 16), v_set1(factor[r])) : v_zero();
        }
        for (int j = 0; j < valid; j++) {
            v16 x0 = v_load(turned + j * stride + c), x1 = v_load(turned + j * stride + (two ? c + 16 : c));
            for (int r = 0; r < rows; r++) {
                v16 w = v_set1(weights[r][j]);
                acc[r][0] = v_fma(w, x0, acc[r][0]);
                acc[r][1] = v_fma(w, x1, acc[r][1]);
            }
        }
        for (int r = 0; r < rows; r++) {
            v_store(out + r * Wp + c, acc[r][0]);
            if (two) v_store(out + r * Wp + c + 16, acc[r][1]);
        }
    }
}
static void tile_add(float *out, int64_t Wp, const float (*weights)[PAGE], const float *factor, const float *turned, int64_t stride,
                     int64_t columns, int valid, int rows) {
    switch (rows) {
    case 1: add_rows(out, Wp, weights, factor, turned, stride, columns, valid, 1); break;
    case 2: add_rows(out, Wp, weights, factor, turned, stride, columns, valid, 2); break;
    case 3: add_rows(out, Wp, weights, factor, turned, stride, columns, valid, 3); break;
    default: add_rows(out, Wp, weights, factor, turned, stride, columns, valid, 4); break;
    }
}

// ---- forward ---------------------------------------------------------------------------------------------
typedef struct Softmax {
    float max, sum;
} Softmax;

INLINE float softmax_chunk(Softmax *s, float *scores, int valid) {
    v16 a = v_first(v_load(scores), valid, v_set1(MINUS_INFINITY));
    v16 b = v_first(v_load(scores + 16), valid - 16, v_set1(MINUS_INFINITY));
    float top = v_largest(v_max(a, b)), max = top > s->max ? top : s->max, lanes[16];
    v_store(lanes, v_exp(v_set1(s->max - max)));
    a = v_exp(v_sub(a, v_set1(max)));
    b = v_exp(v_sub(b, v_set1(max)));
    v_store(scores, a);
    v_store(scores + 16, b);
    s->sum = s->sum * lanes[0] + v_sum(v_add(a, b));
    s->max = max;
    return lanes[0];
}

static void attend(const LatentAttentionArgs *a, const RowBlock *b, const Part *w) {
    Softmax state[BLOCK_ROWS];
    bool half = a->dtype == DTYPE_BF16;
    int count = b->tokens * b->heads;
    gather_rows(a, b, a->q, a->W, half, w->Wp, w->q);
    memset(w->out, 0, (size_t)(count * w->Wp) * sizeof *w->out);
    for (int i = 0; i < count; i++) state[i] = (Softmax){.max = MINUS_INFINITY};
    for (int64_t chunk = 0; chunk * PAGE < b->longest; chunk++) {
        const float *keys = widen_page(a, w, a->table[a->table_start[b->token] + chunk]);
        turn(keys, w->R, w->stride, w->turned);
        for (int i = 0; i < b->tokens; i++) {
            int64_t left = a->position[b->token + i] + 1 - chunk * PAGE;
            int valid = (int)(left < PAGE ? left : PAGE);
            for (int h = 0, rows; valid > 0 && h < b->heads; h += rows) {
                int row = i * b->heads + h;
                float scores[ROWS][PAGE], factor[ROWS];
                rows = b->heads - h < ROWS ? b->heads - h : ROWS;
                tile_scores(w->q + row * w->Wp, w->Wp, keys, w->W, rows, a->scale, scores);
                for (int r = 0; r < rows; r++) factor[r] = softmax_chunk(&state[row + r], scores[r], valid);
                tile_add(w->out + row * w->Wp, w->Wp, (const float(*)[PAGE])scores, factor, w->turned, w->stride, w->R, valid, rows);
            }
        }
    }
    for (int i = 0; i < count; i++) {
        int64_t at = (b->token + i / b->heads) * a->heads + b->head + i % b->heads;
        v16 inverse = v_set1(1.0f / state[i].sum);
        FOR_LANES(w->R) lanes_store(a->y, at * w->R + c, v_mul(v_load(w->out + i * w->Wp + c), inverse), n, half);
        if (a->lse) a->lse[at] = state[i].max + (float)exact_log(state[i].sum);
    }
}

void V(latent_attention)(const Team *team, const LatentAttentionArgs *a) {
    Part w = work_of(team, a);
    int64_t turn_of = 0; // later rows see more: blocks go around
    for (int64_t t = 0, end; t < a->T; t = end) {
        end = next_run(a, t);
        for (int part = 0; part < head_blocks(a); part++, turn_of++) {
            if (turn_of % team->count != team->thread) continue;
            RowBlock b = block_of(a, t, end, part);
            attend(a, &b, &w);
        }
    }
}

// ---- backward --------------------------------------------------------------------------------------------
// Weights and their scores' gradients of a tile of rows for one page; zero beyond what each row sees.
static void grad_weights(const LatentAttentionGradArgs *g, const Part *w, const float *q, const float *dy, const int64_t *at, const int *valid,
                         const float *keys, int rows, float (*weights)[PAGE], float (*dscores)[PAGE]) {
    const LatentAttentionArgs *a = &g->forward;
    tile_scores(q, w->Wp, keys, w->W, rows, a->scale, weights);
    tile_scores(dy, w->Wp, keys, w->R, rows, 1.0f, dscores);
    for (int r = 0; r < rows; r++) {
        v16 lse = v_set1(a->lse[at[r]]), delta = v_set1(g->delta[at[r]]), scale = v_set1(a->scale);
        for (int c = 0; c < PAGE; c += 16) {
            v16 p = v_first(v_exp(v_sub(v_load(weights[r] + c), lse)), valid[r] - c, v_zero());
            v16 ds = v_mul(v_mul(p, v_sub(v_load(dscores[r] + c), delta)), scale);
            v_store(weights[r] + c, p);
            v_store(dscores[r] + c, v_first(ds, valid[r] - c, v_zero()));
        }
    }
}

// sum [32][stride] grows row by row by dscore * q, and by weight * dy in the first R columns.
static void add_outer(const Part *w, float *sum, const float *q, const float *dy, const float *weights, const float *dscores, int valid) {
    int64_t values = head_padded(w->R);
    for (int j = 0; j < valid; j++) {
        v16 ds = v_set1(dscores[j]), p = v_set1(weights[j]);
        for (int64_t c = 0; c < w->Wp; c += 16) {
            v16 acc = v_fma(ds, v_load(q + c), v_load(sum + j * w->stride + c));
            if (c < values) acc = v_fma(p, v_load(dy + c), acc);
            v_store(sum + j * w->stride + c, acc);
        }
    }
}

// The place of a page in the tables that have it.
static int64_t chunk_of(const LatentAttentionArgs *a, int32_t page, int64_t row) {
    int64_t chunk = 0;
    while (a->table[a->table_start[row] + chunk] != page) chunk++;
    return chunk;
}

static void page_gradient(const LatentAttentionGradArgs *g, const Part *w, int32_t page) {
    const LatentAttentionArgs *a = &g->forward;
    bool half = a->dtype == DTYPE_BF16;
    float *out = g->dpages + page * PAGE * w->Wp;
    memset(w->turned, 0, (size_t)(PAGE * w->stride) * sizeof(float));
    if (g->page_first_row[page] <= g->page_last_row[page]) {
        const float *keys = widen_page(a, w, page);
        int64_t chunk = chunk_of(a, page, g->page_first_row[page]);
        for (int64_t t = g->page_first_row[page]; t <= g->page_last_row[page]; t++) {
            int64_t left = a->position[t] + 1 - chunk * PAGE;
            if (left <= 0 || a->table[a->table_start[t] + chunk] != page) continue;
            for (int h = 0, rows; h < a->heads; h += rows) {
                RowBlock b = {.token = t, .tokens = 1, .head = h, .heads = a->heads - h < ROWS ? a->heads - h : ROWS};
                float weights[ROWS][PAGE], dscores[ROWS][PAGE];
                int valid[ROWS];
                int64_t at[ROWS];
                rows = b.heads;
                gather_rows(a, &b, a->q, a->W, half, w->Wp, w->q);
                gather_rows(a, &b, g->dy, a->R, false, w->Wp, w->dy);
                for (int r = 0; r < rows; r++) at[r] = t * a->heads + h + r, valid[r] = (int)(left < PAGE ? left : PAGE);
                grad_weights(g, w, w->q, w->dy, at, valid, keys, rows, weights, dscores);
                for (int r = 0; r < rows; r++) add_outer(w, w->turned, w->q + r * w->Wp, w->dy + r * w->Wp, weights[r], dscores[r], valid[r]);
            }
        }
    }
    for (int j = 0; j < PAGE; j++) {
        memcpy(out + j * w->Wp, w->turned + j * w->stride, (size_t)w->W * sizeof(float));
        memset(out + j * w->Wp + w->W, 0, (size_t)(w->Wp - w->W) * sizeof(float));
    }
}

static void row_gradient(const LatentAttentionGradArgs *g, const RowBlock *b, const Part *w) {
    const LatentAttentionArgs *a = &g->forward;
    static const float ones[ROWS] = {1, 1, 1, 1};
    int count = b->tokens * b->heads;
    gather_rows(a, b, a->q, a->W, a->dtype == DTYPE_BF16, w->Wp, w->q);
    gather_rows(a, b, g->dy, a->R, false, w->Wp, w->dy);
    memset(w->out, 0, (size_t)(count * w->Wp) * sizeof *w->out);
    for (int64_t chunk = 0; chunk * PAGE < b->longest; chunk++) {
        const float *keys = widen_page(a, w, a->table[a->table_start[b->token] + chunk]);
        turn(keys, w->W, w->stride, w->turned);
        for (int i = 0; i < b->tokens; i++) {
            int64_t left = a->position[b->token + i] + 1 - chunk * PAGE;
            for (int h = 0, rows; left > 0 && h < b->heads; h += rows) {
                int row = i * b->heads + h, valid[ROWS];
                int64_t at[ROWS];
                float weights[ROWS][PAGE], dscores[ROWS][PAGE];
                rows = b->heads - h < ROWS ? b->heads - h : ROWS;
                for (int r = 0; r < rows; r++) {
                    at[r] = (b->token + i) * a->heads + b->head + h + r;
                    valid[r] = (int)(left < PAGE ? left : PAGE);
                }
                grad_weights(g, w, w->q + row * w->Wp, w->dy + row * w->Wp, at, valid, keys, rows, weights, dscores);
                tile_add(w->out + row * w->Wp, w->Wp, (const float(*)[PAGE])dscores, ones, w->turned, w->stride, w->W, valid[0], rows);
            }
        }
    }
    for (int i = 0; i < count; i++) {
        int64_t at = (b->token + i / b->heads) * a->heads + b->head + i % b->heads;
        memcpy(g->dq + at * w->W, w->out + i * w->Wp, (size_t)w->W * sizeof(float));
    }
}

void V(latent_attention_grad)(const Team *team, const LatentAttentionGradArgs *g) {
    const LatentAttentionArgs *a = &g->forward;
    Part w = work_of(team, a);
    bool half = a->dtype == DTYPE_BF16;
    int64_t from, to, turn_of = 0;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t at = from * a->heads; at < to * a->heads; at++) {
        v16 sum = v_zero();
        FOR_LANES(a->R) sum = v_fma(lanes_load(g->dy, at * a->R + c, n, false), lanes_load(a->y, at * a->R + c, n, half), sum);
        g->delta[at] = v_sum(sum);
    }
    team_wait(team);
    for (int32_t page = g->unit_page[0]; page < g->unit_page[g->unit_count]; page++)
        if (page % team->count == team->thread) page_gradient(g, &w, page);
    for (int64_t t = 0, end; t < a->T; t = end) {
        end = next_run(a, t);
        for (int part = 0; part < head_blocks(a); part++, turn_of++) {
            if (turn_of % team->count != team->thread) continue;
            RowBlock b = block_of(a, t, end, part);
            row_gradient(g, &b, &w);
        }
    }
}
