// The head: logits by blocks of 256 of the vocabulary, with logprob and entropy, never more than a tile of them at a
// time unless the caller wants them for sampling; its gradient; and sampling.
#include "head_tile.h"

// Sets logits outside the kept ids (ascending) to -inf.
static void keep_only(float *row, int64_t v0, const int32_t *kept, int64_t count) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (kept[middle] < v0)
            low = middle + 1;
        else
            high = middle;
    }
    for (int64_t c = 0; c < VOCAB_BLOCK; c++) {
        if (low < count && kept[low] == v0 + c)
            low++;
        else
            row[c] = MINUS_INFINITY;
    }
}

static VocabStats block_stats(const float *row) {
    v16 top = v_load(row), sum = v_zero(), weighted = v_zero();
    for (int c = 16; c < VOCAB_BLOCK; c += 16) { // a NaN stays: the row must not pass for a distribution without it
        v16 x = v_load(row + c);
        top = v_if_nan(x, x, v_max(x, top));
    }
    VocabStats s = {.max = v_sum(v_if_nan(top, v_set1(1.0f), v_zero())) > 0 ? NAN : v_largest(top)};
    if (s.max == MINUS_INFINITY) return s;
    v16 max = v_set1(s.max), least = v_set1(-200.0f); // exp is 0 long before; keeps 0 * inf out
    for (int c = 0; c < VOCAB_BLOCK; c += 16) {
        v16 d = v_sub(v_load(row + c), max), e = v_exp(d);
        sum = v_add(sum, e);
        weighted = v_fma(e, v_max(d, least), weighted);
    }
    s.sum = v_sum(sum);
    s.weighted = v_sum(weighted);
    return s;
}

typedef struct Distribution {
    float max;
    double sum, log_sum, entropy;
} Distribution;

static Distribution merge_stats(const VocabStats *stats, int64_t blocks) {
    Distribution d = {.max = MINUS_INFINITY};
    for (int64_t b = 0; b < blocks; b++)
        if (stats[b].max > d.max || stats[b].max != stats[b].max) d.max = stats[b].max;
    double weighted = 0;
    for (int64_t b = 0; b < blocks; b++) {
        if (stats[b].max == MINUS_INFINITY) continue;
        double shift = (double)stats[b].max - d.max, e = exact_exp(shift);
        d.sum += stats[b].sum * e;
        weighted += (stats[b].weighted + stats[b].sum * shift) * e;
    }
    d.log_sum = exact_log(d.sum);
    d.entropy = d.log_sum - weighted / d.sum;
    if (d.entropy < 0) d.entropy = 0; // one token has it all, rounded
    return d;
}

void V(head)(const Team *team, const HeadArgs *a) {
    int64_t blocks = blocks_of(a->V), padded = vocab_padded(a->V), from, to;
    int64_t b_from = 0, b_to = blocks, m_from = 0, m_to = a->M;
    if (blocks >= 4 * team->count)
        team_share(team, blocks, 1, &b_from, &b_to);
    else
        team_share(team, a->M, 4, &m_from, &m_to);
    float *own = a->scratch + (int64_t)team->thread * TILE * VOCAB_BLOCK;
    if (a->format == WEIGHT_INT8) {
        V(int8_rows)(team, &(MatmulArgs){.M = a->M, .K = a->C, .dtype = a->dtype, .x = a->x, .ldx = a->C, .scratch = a->blocks});
        team_wait(team);
    }
    for (int64_t b = b_from; b < b_to; b++) {
        for (int64_t m = m_from; m < m_to; m += TILE) {
            int64_t rows = m_to - m < TILE ? m_to - m : TILE, ld = a->logits ? padded : VOCAB_BLOCK;
            float *tile = a->logits ? a->logits + m * padded + b * VOCAB_BLOCK : own;
            block_logits(team, a, b, m, rows, own, tile, ld);
            for (int64_t r = 0; r < rows; r++) {
                float *row = tile + r * ld;
                if (a->kept_start)
                    keep_only(row, b * VOCAB_BLOCK, a->kept + a->kept_start[m + r],
                              a->kept_start[m + r + 1] - a->kept_start[m + r]);
                a->stats[(m + r) * blocks + b] = block_stats(row);
                if (a->target && a->target[m + r] / VOCAB_BLOCK == b) a->logprob[m + r] = row[a->target[m + r] % VOCAB_BLOCK];
            }
        }
    }
    team_wait(team);
    team_share(team, a->M, 1, &from, &to);
    for (int64_t m = from; m < to; m++) {
        Distribution d = merge_stats(a->stats + m * blocks, blocks);
        if (a->target) a->logprob[m] = (float)(((double)a->logprob[m] - d.max) - d.log_sum);
        if (a->entropy) a->entropy[m] = (float)d.entropy;
        if (a->max) a->max[m] = d.max, a->log_sum[m] = (float)d.log_sum;
    }
}

void V(head_grad)(const Team *team, const HeadGradArgs *g) {
    const HeadArgs *a = &g->forward;
    bool half = a->dtype == DTYPE_BF16;
    int64_t blocks = blocks_of(a->V), padded = vocab_padded(a->V);
    int64_t b_from = 0, b_to = blocks, m_from = 0, m_to = a->M;
    if (blocks >= 4 * team->count)
        team_share(team, blocks, 1, &b_from, &b_to);
    else
        team_share(team, a->M, 4, &m_from, &m_to);
    float *tile = a->scratch + (int64_t)team->thread * TILE * VOCAB_BLOCK, slopes[VOCAB_BLOCK] = {0};
    for (int64_t b = b_from; b < b_to; b++)
        for (int64_t m = m_from; m < m_to; m += TILE) {
            int64_t rows = m_to - m < TILE ? m_to - m : TILE, v0 = b * VOCAB_BLOCK;
            if (!a->logits) block_logits(team, a, b, m, rows, tile, tile, VOCAB_BLOCK);
            for (int64_t r = m; r < m + rows; r++) {
                float *row = tile + (r - m) * VOCAB_BLOCK;
                const float *logits = a->logits ? a->logits + r * padded + v0 : row;
                if (a->kept_start && !a->logits)
                    keep_only(row, v0, a->kept + a->kept_start[r], a->kept_start[r + 1] - a->kept_start[r]);
                v16 shift = v_set1(a->max[r]), log_sum = v_set1(a->log_sum[r]), scale = v_set1(a->inv_temperature[r]);
                v16 d1 = v_set1(g->dlogprob[r]), d2 = v_set1(g->dentropy ? g->dentropy[r] : 0.0f);
                v16 entropy = v_set1(a->entropy[r]), least = v_set1(-200.0f);
                if (a->softcap != 0) cap_slopes(a, r, logits, slopes);
                for (int c = 0; c < VOCAB_BLOCK; c += 16) {
                    v16 lp = v_sub(v_sub(v_load(logits + c), shift), log_sum), p = v_exp(lp);
                    v16 d = v_mul(p, v_fma(d2, v_add(v_max(lp, least), entropy), d1));
                    v_store(row + c, v_mul(v_sub(v_zero(), d), scale));
                }
                int64_t target = a->target[r] - v0;
                if (target >= 0 && target < VOCAB_BLOCK)
                    row[target] = row[target] + g->dlogprob[r] * a->inv_temperature[r];
                for (int c = 0; a->softcap != 0 && c < VOCAB_BLOCK; c += 16) v_store(row + c, v_mul(v_load(row + c), v_load(slopes + c)));
                for (int c = 0; c < VOCAB_BLOCK; c += 16)
                    act_store(g->dlogits, r * g->ld + v0 + c, v_load(row + c), half);
            }
        }
}

// ---- sampling --------------------------------------------------------------------------------------------
static int32_t argmax(const float *logits, int64_t V) {
    int32_t best = 0;
    for (int64_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = (int32_t)v;
    return best;
}

// The first token whose cumulative probability exceeds u, blocks first, then within the block.
static int32_t draw(const float *logits, const VocabStats *stats, int64_t V, const Distribution *d, double u) {
    double goal = u * d->sum, before = 0;
    int64_t blocks = blocks_of(V), last = 0;
    for (int64_t b = 0; b < blocks; b++) {
        if (stats[b].max == MINUS_INFINITY) continue;
        double mass = stats[b].sum * exact_exp((double)stats[b].max - d->max);
        last = b;
        if (before + mass > goal) break;
        if (b + 1 < blocks) before += mass;
    }
    int32_t token = -1;
    int64_t end = (last + 1) * VOCAB_BLOCK < V ? (last + 1) * VOCAB_BLOCK : V;
    for (int64_t v = last * VOCAB_BLOCK; v < end; v++) {
        if (logits[v] == MINUS_INFINITY) continue;
        double p = exact_exp((double)logits[v] - d->max);
        if (p > 0) token = (int32_t)v; // rounding may leave the goal beyond the last one
        before += p;
        if (before > goal && p > 0) break;
    }
    return token < 0 ? argmax(logits, V) : token;
}

typedef struct Ranked {
    float logit;
    int32_t id;
} Ranked;
static bool is_likelier(Ranked a, Ranked b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

// Tokens from the likeliest on, ranked as far as somebody asks: in bands of logits, the next one lower and twice as wide. A band's
// tokens are a heap that stands behind those ranked before and on its head: its root is the last of `ranked`, and what is taken off
// changes places with the heap's last, which stands where the next rank belongs. So no sort takes memory of its own.
typedef struct Ranking {
    const float *logits;
    const VocabStats *stats;
    int64_t V, count;
    Ranked *ranked;    // [V], of which `count` are there
    int64_t known;     // of these, so many in their order; the others are the heap
    double max, width; // so far down from max
    float low;         // all logits from here on are there; -inf: everything is
    bool all;
} Ranking;
// Element h of the heap is root[-h]; from `h` down it may be out of order.
static void sift(Ranked *root, int64_t h, int64_t size) {
    Ranked x = root[-h];
    for (int64_t child = 2 * h + 1; child < size; h = child, child = 2 * h + 1) {
        if (child + 1 < size && is_likelier(root[-child - 1], root[-child])) child++;
        if (!is_likelier(root[-child], x)) break;
        root[-h] = root[-child];
    }
    root[-h] = x;
}
static void rank_band(Ranking *r) {
    float high = r->low;
    bool first = r->count == 0 && r->width == 0;
    r->width = first ? 4 : r->width * 2;
    r->low = r->width < 64 ? (float)(r->max - r->width) : MINUS_INFINITY;
    for (int64_t b = 0; b < blocks_of(r->V); b++) {
        if (r->stats[b].max < r->low) continue;
        int64_t end = (b + 1) * VOCAB_BLOCK < r->V ? (b + 1) * VOCAB_BLOCK : r->V;
        for (int64_t v = b * VOCAB_BLOCK; v < end; v++)
            if (r->logits[v] >= r->low && (first || r->logits[v] < high)) r->ranked[r->count++] = (Ranked){r->logits[v], (int32_t)v};
    }
    r->all = r->low == MINUS_INFINITY;
    int64_t size = r->count - r->known;
    for (int64_t h = size / 2 - 1; h >= 0; h--) sift(r->ranked + r->count - 1, h, size);
}
// The i-th likeliest, i < V.
static Ranked ranked_token(Ranking *r, int64_t i) {
    while (r->known <= i && (r->known < r->count || !r->all)) {
        int64_t size = r->count - r->known;
        if (size == 0) {
            rank_band(r);
            continue;
        }
        Ranked *root = r->ranked + r->count - 1, *next = r->ranked + r->known++, likeliest = *root;
        *root = *next, *next = likeliest;
        sift(root, 0, size - 1);
    }
    return r->ranked[i];
}

// Fills row->kept, ids ascending, with all tokens down to `last`.
static void keep_from(const Ranking *r, Ranked last, SampleRow *row) {
    row->kept_count = 0;
    for (int64_t b = 0; b < blocks_of(r->V); b++) {
        if (r->stats[b].max < last.logit) continue;
        int64_t end = (b + 1) * VOCAB_BLOCK < r->V ? (b + 1) * VOCAB_BLOCK : r->V;
        for (int64_t v = b * VOCAB_BLOCK; v < end; v++)
            if (!is_likelier(last, (Ranked){r->logits[v], (int32_t)v})) row->kept[row->kept_count++] = (int32_t)v;
    }
}

// `ranked` has V places.
static void truncate_row(const float *logits, const VocabStats *stats, int64_t V, const Distribution *d, SampleRow *row, Ranked *ranked) {
    Ranking r = {.logits = logits, .stats = stats, .V = V, .ranked = ranked, .max = d->max};
    int64_t count = row->top_k > 0 && row->top_k < V ? row->top_k : V;
    if (row->top_p < 1) {
        double total = count < V ? 0 : d->sum, sum = 0;
        for (int64_t i = 0; count < V && i < count; i++) total += exact_exp((double)ranked_token(&r, i).logit - d->max);
        int64_t n = 0;
        while (n < count && (n == 0 || sum < row->top_p * total)) sum += exact_exp((double)ranked_token(&r, n++).logit - d->max);
        count = n;
    }
    if (row->min_p > 0) {
        int64_t n = 0;
        while (n < count && (n == 0 || exact_exp((double)ranked_token(&r, n).logit - d->max) >= row->min_p)) n++;
        count = n;
    }
    keep_from(&r, ranked_token(&r, count - 1), row);
}

void V(sample)(const Team *team, const SampleArgs *a) {
    int64_t blocks = blocks_of(a->V), padded = vocab_padded(a->V);
    Ranked *ranked = (Ranked *)(void *)a->order + (int64_t)team->thread * a->V;
    for (int64_t m = team->thread; m < a->M; m += team->count) {
        SampleRow *row = &a->rows[m];
        float *logits = a->logits + m * padded;
        VocabStats *stats = a->stats + m * blocks;
        Distribution d = merge_stats(stats, blocks);
        if (d.sum != d.sum) { // truncation could drop the NaN and make the rest look sound
            row->token = 0;
            row->logprob = row->entropy = NAN;
            if (row->kept) row->kept[0] = 0, row->kept_count = 1;
            continue;
        }
        row->entropy = a->entropy[m];
        if (row->kept) {
            truncate_row(logits, stats, a->V, &d, row, ranked);
            for (int64_t b = 0; b < blocks; b++) {
                keep_only(logits + b * VOCAB_BLOCK, b * VOCAB_BLOCK, row->kept, row->kept_count);
                stats[b] = block_stats(logits + b * VOCAB_BLOCK);
            }
            d = merge_stats(stats, blocks);
            row->entropy = (float)d.entropy;
        }
        row->token = row->greedy ? argmax(logits, a->V) : draw(logits, stats, a->V, &d, row->uniform);
        row->logprob = (float)(((double)logits[row->token] - d.max) - d.log_sum);
    }
}
