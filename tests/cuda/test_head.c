// The head, its gradient and sampling on a CUDA device: against the slow twin within the tolerances said beside each case,
// NaN and infinities at the same places; no bit depends on how many rows there are; what a draw records is what the head
// computes later for the same kept set, to the bit.
#include "cuda_test.h"

typedef struct Shape {
    int64_t M, V, C;
} Shape;
// Tiles of 8, 32, 64 and 96 rows, ragged; widths that are and aren't multiples of 16 bytes, of one to three chunks of 256.
static const Shape shapes[] = {{1, 19, 8},   {3, 256, 24},  {5, 300, 16},  {8, 40, 264}, {12, 257, 10},  {13, 600, 8},   {33, 300, 40},
                               {40, 19, 333}, {64, 33, 17}, {70, 300, 24}, {97, 19, 24}, {100, 270, 13}, {130, 300, 48}, {3, 530, 520}};

// The twin reads bf16 rows in pairs, so an odd row must be followed by something finite.
static bool sound(const Shape *s, Dtype dtype, Temper temper) { return temper != HOSTILE || dtype == DTYPE_F32 || s->C % 2 == 0; }

// Rows, vocabulary, temperatures, targets and (truncated) kept sets that hold the target, or sometimes nothing else.
static HeadArgs head_args(Random *r, const Shape *s, Dtype dtype, bool truncated, Temper temper) {
    HeadArgs a = {.M = s->M, .V = s->V, .C = s->C, .dtype = dtype};
    bool pairs = dtype == DTYPE_BF16 && s->C % 2; // the twin on the host reads the last row's elements in pairs
    void *x = input_act("x", s->M * s->C + pairs, dtype, r, temper);
    if (pairs) ((bf16 *)x)[s->M * s->C] = 0;
    a.x = x;
    a.w = weights("packed w", input("w", s->V * s->C, r, PLAIN), s->V, s->C, dtype, false);
    float *inv_temperature = guarded("inv_temperature", (size_t)s->M * 4);
    for (int64_t m = 0; m < s->M; m++) inv_temperature[m] = m % 3 ? 1.0f : 0.5f + 2 * (float)random_double(r);
    a.inv_temperature = inv_temperature;
    a.softcap = s->M % 2 && s->C != 521 ? 1.5f : 0;
    int32_t *target = input_ids("target", s->M, r, (uint32_t)s->V);
    a.target = target;
    if (truncated) {
        int64_t *start = guarded("kept_start", (size_t)(s->M + 1) * 8), count = 0;
        int32_t *kept = guarded("kept", (size_t)(s->M * s->V) * 4);
        memset(kept, 0, (size_t)(s->M * s->V) * 4);
        for (int64_t m = 0; m < s->M; m++) {
            start[m] = count;
            uint32_t rare = 1 + random_below(r, 60); // sometimes all, sometimes nearly none
            for (int64_t v = 0; v < s->V; v++)
                if (v == target[m] || (rare < 50 && random_below(r, rare) == 0)) kept[count++] = (int32_t)v;
        }
        start[s->M] = count;
        a.kept_start = start, a.kept = kept;
    }
    return a;
}
// Logits reach about sqrt(C) / 3 times 2.5; sums of at most 520 products in fp32 differ by less than 2e-5, and what is
// computed from them by not much more. A block's sum is at most 256, its weighted sum some hundreds.
static void head_outputs(HeadArgs *a, bool logits) {
    int64_t padded = vocab_padded(a->V);
    if (logits) tolerate(a->logits = output("logits", a->M * padded, KIND_F32), 2e-5, 2e-6);
    tolerate(a->logprob = output("logprob", a->M, KIND_F32), 4e-5, 2e-6);
    tolerate(a->entropy = output("entropy", a->M, KIND_F32), 4e-5, 2e-6);
    tolerate(a->max = output("max", a->M, KIND_F32), 2e-5, 2e-6);
    tolerate(a->log_sum = output("log_sum", a->M, KIND_F32), 4e-5, 2e-6);
    tolerate(a->stats = output("stats", a->M * (padded / VOCAB_BLOCK) * 3, KIND_F32), 2e-4, 4e-5);
}

#define CASE_FORMAT "M %d V %d C %d %s %s%s"
#define CASE_VALUES(a) (int)(a)->M, (int)(a)->V, (int)(a)->C, dtype_name((a)->dtype), temper_name(temper), (a)->kept_start ? " truncated" : ""

static void head_values(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 8; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 3) continue;
            Temper temper = k / 4 ? HOSTILE : PLAIN;
            Dtype dtype = (Dtype)(k / 2 % 2);
            if (!sound(&shapes[i], dtype, temper)) continue;
            if (cuda_spared()) continue;
            cuda_case();
            HeadArgs a = head_args(&r, &shapes[i], dtype, k % 2, temper);
            head_outputs(&a, (k + i) % 2);
            if (i == 3) a.target = NULL;
            if (i == 5) a.max = a.log_sum = NULL;
            COMPARE_CUDA(head, &a, CASE_FORMAT, CASE_VALUES(&a));
        }
}

// dlogprob and dentropy are below 1, so entries of dlogits are about as large; bf16 has 8 bits.
static void head_grad_values(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 8; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 3) continue;
            Temper temper = k / 4 ? HOSTILE : PLAIN;
            Dtype dtype = (Dtype)(k / 2 % 2);
            if (!sound(&shapes[i], dtype, temper)) continue;
            if (cuda_spared()) continue;
            cuda_case();
            HeadGradArgs g = {.forward = head_args(&r, &shapes[i], dtype, k % 2, temper)};
            HeadArgs *a = &g.forward;
            size_t bytes = (size_t)a->M * 4;
            a->logprob = guarded("logprob", bytes), a->entropy = guarded("entropy", bytes), a->max = guarded("max", bytes);
            a->log_sum = guarded("log_sum", bytes), a->stats = guarded("stats", bytes * 3 * (size_t)(vocab_padded(a->V) / VOCAB_BLOCK));
            reference_device->head(reference_device, a);
            g.dlogprob = input("dlogprob", a->M, &r, PLAIN);
            if ((k + i) % 3) g.dentropy = input("dentropy", a->M, &r, PLAIN);
            g.ld = vocab_padded(a->V) + i % 2 * 32;
            g.dlogits = output("dlogits", a->M * g.ld, kind_of(dtype));
            tolerate(g.dlogits, 1e-4, dtype == DTYPE_BF16 ? 0x1p-7 : 1e-4);
            COMPARE_CUDA(head_grad, &g, CASE_FORMAT, CASE_VALUES(a));
        }
}

// Products in fp32 to the bit: a chain of fused multiply-adds per 256, the chains added in order.
static void logits_are_chains(void) {
    Random r = random_start(8, STREAM_TEST, 0);
    const Shape s = {5, 40, 521};
    cuda_case();
    HeadArgs a = head_args(&r, &s, DTYPE_F32, false, PLAIN);
    head_outputs(&a, true);
    ON_CUDA(head, &a, "in chunks");
    for (int64_t i = 0; i < s.M * s.V; i++) {
        int64_t m = i / s.V, v = i % s.V;
        float total = 0, chunk = 0;
        for (int64_t c = 0; c < s.C; c++) {
            chunk = fmaf(((const float *)a.x)[m * s.C + c], mirror_of(a.w)->w[v * s.C + c], chunk);
            if (c % 256 == 255 || c + 1 == s.C) total += chunk, chunk = 0;
        }
        total *= a.inv_temperature[m];
        same_bits(&a.logits[m * vocab_padded(s.V) + v], &total, 1, KIND_F32, "a logit");
    }
}

// ---- no bit depends on the other rows --------------------------------------------------------------------
static void rows_are_alone(void) {
    enum { ROWS = 300 };
    static const int64_t parts[][2] = {{0, 1}, {299, 1}, {3, 7}, {190, 20}, {100, 64}, {200, 100}};
    // In 16-byte parts over a chunk's end, and element by element over a block's.
    static const Shape all[] = {{ROWS, 40, 264}, {ROWS, 270, 37}};
    Random r = random_start(3, STREAM_TEST, 0);
    for (int k = 0; k < 4; k++) {
        if (cuda_spared()) continue;
        cuda_case();
        Dtype dtype = (Dtype)(k / 2);
        Temper temper = PLAIN;
        const Shape s = all[k % 2];
        int64_t padded = vocab_padded(s.V), each = padded / VOCAB_BLOCK * 3, entry = (int64_t)dtype_size(dtype);
        HeadGradArgs g = {.forward = head_args(&r, &s, dtype, k == 1 || k == 2, temper)};
        HeadArgs *a = &g.forward;
        head_outputs(a, true);
        g.dlogprob = input("dlogprob", s.M, &r, PLAIN), g.dentropy = input("dentropy", s.M, &r, PLAIN);
        g.dlogits = output("dlogits", s.M * padded, kind_of(dtype)), g.ld = padded;
        ON_CUDA(head, a, CASE_FORMAT, CASE_VALUES(a));
        ON_CUDA(head_grad, &g, CASE_FORMAT, CASE_VALUES(a));
        float *logits = work_area("all logits", (size_t)(s.M * padded) * 4), *scalars[4];
        float *stats = work_area("all stats", (size_t)(s.M * each) * 4);
        unsigned char *dlogits = work_area("all dlogits", (size_t)(s.M * padded * entry));
        float *const now[4] = {a->logprob, a->entropy, a->max, a->log_sum};
        for (int i = 0; i < 4; i++) memcpy(scalars[i] = work_area("all", ROWS * 4), now[i], ROWS * 4);
        memcpy(logits, a->logits, (size_t)(s.M * padded) * 4), memcpy(stats, a->stats, (size_t)(s.M * each) * 4);
        memcpy(dlogits, g.dlogits, (size_t)(s.M * padded * entry));
        for (int p = 0; p < LENGTH(parts); p++) {
            int64_t m = parts[p][0], rows = parts[p][1];
            HeadGradArgs part = g;
            HeadArgs *b = &part.forward;
            b->M = rows, b->x = (const char *)a->x + m * s.C * entry, b->inv_temperature += m, b->target += m;
            if (b->kept_start) b->kept_start += m;
            if (p % 2) b->logits = NULL;
            ON_CUDA(head, b, "%d rows from %d, %s", (int)rows, (int)m, dtype_name(dtype));
            for (int i = 0; i < 4; i++) same_bits(now[i], scalars[i] + m, rows, KIND_F32, "logprob, entropy, max, log_sum");
            if (b->logits) same_bits(b->logits, logits + m * padded, rows * padded, KIND_F32, "logits");
            same_bits(b->stats, stats + m * each, rows * each, KIND_F32, "stats");
            part.dlogprob += m, part.dentropy += m;
            ON_CUDA(head_grad, &part, "%d rows from %d, %s", (int)rows, (int)m, dtype_name(dtype));
            same_bits(part.dlogits, dlogits + m * padded * entry, rows * padded, kind_of(dtype), "dlogits");
        }
    }
}

// ---- sampling --------------------------------------------------------------------------------------------
typedef struct Truncation {
    int32_t top_k;
    float top_p, min_p;
} Truncation;
static const Truncation truncations[] = {{0, 1, 0}, {1, 1, 0}, {5, 1, 0}, {0, 0.5f, 0}, {0, 0.95f, 0}, {0, 1, 0.1f}, {0, 1, 1}, {7, 0.8f, 0.05f},
                                         {2000, 1, 0}, {40, 0.999f, 0}, {0, 1e-6f, 0}, {0, 0.7f, 0.3f}, {3, 1, 0.5f}, {0, 0.9999f, 0}};
static bool truncates(const Truncation *t) { return t->top_k > 0 || t->top_p < 1 || t->min_p > 0; }

// Logits of the twin's head: multiples of 1/16 with many equals, or none alike. All rows of `a` ready for `sample`.
static HeadArgs sampled_head(Random *r, const Shape *s, bool ties) {
    HeadArgs h = {.M = s->M, .V = s->V, .C = s->C, .dtype = DTYPE_F32};
    float *x = guarded("x", (size_t)(s->M * s->C) * 4), *w = guarded("w", (size_t)(s->V * s->C) * 4), *one = guarded("inv_temperature", (size_t)s->M * 4);
    for (int64_t i = 0; i < s->M * s->C; i++) x[i] = ties ? (float)((int)random_below(r, 9) - 4) / 4 : any_float(r, PLAIN);
    for (int64_t i = 0; i < s->V * s->C; i++) w[i] = ties ? (float)((int)random_below(r, 9) - 4) / 4 : 2 * any_float(r, PLAIN);
    for (int64_t m = 0; m < s->M; m++) one[m] = 1;
    h.x = x, h.w = weights("packed w", w, s->V, s->C, DTYPE_F32, false), h.inv_temperature = one;
    int64_t padded = vocab_padded(s->V);
    h.logits = work_area("logits", (size_t)(s->M * padded) * 4);
    h.stats = work_area("stats", (size_t)(s->M * padded / VOCAB_BLOCK) * sizeof *h.stats);
    h.entropy = work_area("entropy", (size_t)s->M * 4);
    return h;
}
static SampleArgs sample_args(Random *r, const HeadArgs *h, const Truncation *t, bool all) {
    SampleArgs a = {.M = h->M, .V = h->V, .logits = h->logits, .stats = h->stats, .entropy = h->entropy, .truncated = truncates(t)};
    a.rows = work_area("rows", (size_t)h->M * sizeof *a.rows);
    holds_pointers(a.rows);
    int32_t *kept = a.truncated ? work_area("kept", (size_t)(h->M * h->V) * 4) : NULL;
    for (int64_t m = 0; m < h->M; m++) {
        static const double edges[] = {0, 0.5, 1 - 0x1p-53}; // the last only where the sums are the same on both sides
        a.rows[m] = (SampleRow){.greedy = random_below(r, 4) == 0, .top_k = t->top_k, .top_p = t->top_p, .min_p = t->min_p,
                                .uniform = m % 5 < (a.truncated ? 2 : 3) ? edges[m % 5] : random_double(r)};
        // Rows that truncate and rows that don't may stand side by side.
        if (a.truncated && (all || m % 7 != 6)) a.rows[m].kept = kept + m * h->V;
    }
    return a;
}

// Where the sets differ, the one is the other's beginning by (logit falling, id rising), and top_p's border lies within
// 1e-6 of where the smaller ends.
static void border_check(const float *logits, const SampleRow *row, int64_t V, int32_t count) {
    int32_t fewer = row->kept_count < count ? row->kept_count : count;
    if (row->kept_count == count) FAIL("%s: another set of the same size", context);
    char *taken = calloc((size_t)V, 1);
    double total = 0, sum = 0, max = -INFINITY;
    for (int64_t v = 0; v < V; v++) max = fmax(max, (double)logits[v]);
    int64_t limit = row->top_k > 0 && row->top_k < V ? row->top_k : V;
    for (int64_t n = 0; n < limit; n++) {
        int64_t best = -1;
        for (int64_t v = 0; v < V; v++)
            if (!taken[v] && (best < 0 || logits[v] > logits[best])) best = v;
        taken[best] = 1;
        total += exp((double)logits[best] - max);
        if (n < fewer) sum = total;
    }
    free(taken);
    if (!(fabs(sum - (double)row->top_p * total) <= 1e-6 * total))
        FAIL("%s: %d kept, the reference keeps %d; the border is %g away", context, row->kept_count, count, sum / total - (double)row->top_p);
}

// The masked logits to the bit, the rest within the head's tolerance.
static void sampled_compare(const SampleArgs *a, const float *before) {
    int64_t padded = vocab_padded(a->V), block_total = padded / VOCAB_BLOCK;
    const SampleRow *want_rows = reference_of(a->rows);
    const float *want_logits = a->logits ? reference_of(a->logits) : NULL;
    const VocabStats *want_stats = reference_of(a->stats);
    for (int64_t m = 0; m < a->M; m++) {
        const SampleRow *got = &a->rows[m], *want = &want_rows[m];
        if (got->kept) {
            const int32_t *want_kept = reference_of(got->kept);
            if (got->kept_count != want->kept_count || memcmp(got->kept, want_kept, (size_t)want->kept_count * 4) != 0) {
                border_check(before + m * padded, got, a->V, want->kept_count);
                continue;
            }
        }
        if (got->token != want->token) FAIL("%s: row %d: token %d, the reference draws %d", context, (int)m, got->token, want->token);
        CHECK_NEAR(got->logprob, want->logprob, 4e-6);
        CHECK_NEAR(got->entropy, want->entropy, 4e-6);
        if (a->logits) same_bits(a->logits + m * padded, want_logits + m * padded, padded, KIND_F32, "masked logits");
        for (int64_t b = m * block_total; b < (m + 1) * block_total; b++) {
            if (a->stats[b].max != want_stats[b].max) FAIL("%s: maximum of block %d", context, (int)b);
            CHECK_NEAR(a->stats[b].sum, want_stats[b].sum, 1e-5 * (1 + (double)want_stats[b].sum));
            CHECK_NEAR(a->stats[b].weighted, want_stats[b].weighted, 1e-5 * (1 + fabs((double)want_stats[b].weighted)));
        }
    }
}

static void sample_values(void) {
    static const Shape sampled[] = {{1, 19, 8}, {5, 300, 16}, {9, 1000, 8}, {40, 257, 6}, {2, 9000, 8}};
    Random r = random_start(4, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(sampled); i++)
        for (int k = 0; k < LENGTH(truncations); k++) {
            if (sampled[i].M * sampled[i].V > 8000 && (k + i) % 3) continue;
            if (cuda_spared()) continue;
            cuda_case();
            HeadArgs h = sampled_head(&r, &sampled[i], k % 2);
            reference_device->head(reference_device, &h);
            const Truncation *t = &truncations[k];
            SampleArgs a = sample_args(&r, &h, t, false);
            size_t bytes = (size_t)(h.M * vocab_padded(h.V)) * 4;
            float *before = malloc(bytes);
            memcpy(before, h.logits, bytes);
            COMPARE_CUDA(sample, &a, "M %d V %d top_k %d top_p %g min_p %g%s", (int)a.M, (int)a.V, t->top_k, (double)t->top_p, (double)t->min_p,
                         k % 2 ? " with equals" : "");
            sampled_compare(&a, before);
            free(before);
        }
}

// All equal, all but one impossible, zeros of both signs, few likely ones, differences too small for a float's bin, and many
// entries that weigh something only together.
static void sample_of_odd_rows(void) {
    enum { V = 600, ROWS = 7 };
    for (int k = 0; k < LENGTH(truncations); k++) {
        if (cuda_spared()) continue;
        cuda_case();
        const Truncation *t = &truncations[k];
        int64_t padded = vocab_padded(V), block_total = padded / VOCAB_BLOCK;
        Random r = random_start(5, STREAM_TEST, (uint32_t)k);
        HeadArgs h = {.M = ROWS, .V = V, .C = 4, .dtype = DTYPE_F32};
        h.logits = work_area("logits", (size_t)(ROWS * padded) * 4), h.stats = work_area("stats", (size_t)(ROWS * block_total) * sizeof *h.stats);
        h.entropy = work_area("entropy", ROWS * 4);
        for (int64_t i = 0; i < ROWS * padded; i++) {
            int64_t v = i % padded;
            float kinds[ROWS] = {1.5f, v == 511 ? -3.0f : -INFINITY, v % 2 ? -0.0f : 0.0f, v % 100 == 7 ? 5.0f : -1e30f, (float)(v % 3) * 60,
                                 v == 13 || v == 599 ? 1e-30f * (float)v : -2e-30f, v == 300 ? 0.0f : -14.56f};
            h.logits[i] = v < V ? kinds[i / padded] : -INFINITY;
        }
        // A second truncation, of nothing, leaves the logits as they are and computes the statistics.
        static const Truncation none = {V, 1, 0};
        SampleArgs make = sample_args(&r, &h, &none, true);
        reference_device->sample(reference_device, &make);
        for (int m = 0; m < ROWS; m++) h.entropy[m] = make.rows[m].entropy;
        SampleArgs a = sample_args(&r, &h, t, true);
        float *before = malloc((size_t)(ROWS * padded) * 4);
        memcpy(before, h.logits, (size_t)(ROWS * padded) * 4);
        COMPARE_CUDA(sample, &a, "odd rows, top_k %d top_p %g min_p %g", t->top_k, (double)t->top_p, (double)t->min_p);
        sampled_compare(&a, before);
        free(before);
    }
}

// A row that holds NaN must not pass for a distribution, nor lead out of the vocabulary; nor one of nothing.
static void sample_of_nan(void) {
    enum { V = 300, ROWS = 4 };
    Random r = random_start(6, STREAM_TEST, 0);
    for (int k = 0; k < LENGTH(truncations); k++) {
        cuda_case();
        const Shape s = {ROWS, V, 8};
        const Truncation *t = &truncations[k];
        HeadArgs h = sampled_head(&r, &s, false);
        ((float *)(uintptr_t)h.x)[0] = NAN, ((float *)(uintptr_t)h.x)[8] = INFINITY;
        ON_CUDA(head, &h, "with NaN");
        for (int64_t v = 0; v < vocab_padded(V); v++) h.logits[2 * vocab_padded(V) + v] = -INFINITY;
        for (int b = 0; b < 2; b++) h.stats[2 * 2 + b] = (VocabStats){.max = -INFINITY};
        SampleArgs a = sample_args(&r, &h, t, true);
        ON_CUDA(sample, &a, "of NaN, truncation %d", k);
        for (int m = 0; m < ROWS; m++) {
            const SampleRow *row = &a.rows[m];
            CHECK(row->token >= 0 && row->token < V);
            if (truncates(t)) CHECK(row->kept_count >= 1 && row->kept_count <= V && row->kept[0] >= 0 && row->kept[0] < V);
            if (m == 3) CHECK(row->logprob <= 0);
            if (m == 3) continue;
            CHECK_INT(row->token, 0);
            CHECK(row->logprob != row->logprob);
            if (truncates(t)) CHECK_INT(row->kept[0], 0);
            if (truncates(t) && m < 2) CHECK_INT(row->kept_count, 1);
        }
    }
}

// With 512 equal logits, in two blocks, a uniform number of k / 512 lies on the border before token k.
static void draws_at_the_borders(void) {
    enum { V = 512 };
    cuda_case();
    SampleArgs a = {.M = V, .V = V, .logits = work_area("logits", V * V * 4), .stats = work_area("stats", V * 2 * sizeof(VocabStats))};
    a.entropy = work_area("entropy", V * 4), a.rows = work_area("rows", V * sizeof *a.rows);
    for (int k = 0; k < 2 * V; k++) a.stats[k].sum = 256;
    for (int k = 0; k < V; k++) a.rows[k] = (SampleRow){.top_p = 1, .uniform = k / 512.0};
    ON_CUDA(sample, &a, "at the borders");
    for (int k = 0; k < V; k++) {
        CHECK_INT(a.rows[k].token, k);
        CHECK_NEAR(a.rows[k].logprob, -log(512), 1e-6);
    }
}

// What sampling records is what the head computes later for the same row and kept set: among others and alone.
static void sampled_logprob_is_the_heads(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    static const Shape several[] = {{3, 300, 8}, {35, 530, 24}, {70, 40, 265}};
    for (int k = 0; k < LENGTH(truncations); k++) {
        const Shape *s = &several[k % LENGTH(several)];
        const Truncation *t = &truncations[k];
        if (cuda_spared()) continue;
        cuda_case();
        Dtype dtype = (Dtype)(k / 2 % 2);
        HeadArgs h = head_args(&r, s, dtype, false, PLAIN);
        int32_t *target = (int32_t *)(uintptr_t)h.target;
        int64_t *start = work_area("kept_start", (size_t)(s->M + 1) * 8);
        int32_t *joined = work_area("joined", (size_t)(s->M * s->V) * 4);
        h.target = NULL;
        head_outputs(&h, true);
        h.logprob = NULL;
        ON_CUDA(head, &h, "before the draw");
        SampleArgs a = sample_args(&r, &h, t, true);
        ON_CUDA(sample, &a, "truncation %d", k);
        for (int64_t m = 0; m < s->M; m++) {
            const SampleRow *row = &a.rows[m];
            target[m] = row->token;
            bool found = !row->kept;
            for (int32_t c = 0; row->kept && c < row->kept_count; c++) {
                found |= row->kept[c] == row->token;
                CHECK(c == 0 || row->kept[c] > row->kept[c - 1]);
            }
            CHECK(found && (!row->kept || t->top_k == 0 || row->kept_count <= t->top_k));
            if (row->kept) memcpy(joined + start[m], row->kept, (size_t)row->kept_count * 4);
            start[m + 1] = start[m] + (row->kept ? row->kept_count : 0);
        }
        HeadArgs later = h;
        later.logits = NULL, later.target = target, later.logprob = work_area("later", (size_t)s->M * 4);
        if (truncates(t)) later.kept_start = start, later.kept = joined;
        for (int64_t first = 0; first < s->M; first += s->M - 1) { // all rows, then the last alone
            HeadArgs part = later;
            part.M = s->M - first, part.x = (const char *)h.x + first * s->C * (int64_t)dtype_size(dtype);
            part.inv_temperature += first, part.target += first;
            if (part.kept_start) part.kept_start += first;
            ON_CUDA(head, &part, "after truncation %d, %d rows, %s", k, (int)part.M, dtype_name(dtype));
            for (int64_t m = 0; m < part.M; m++) {
                same_bits(&part.logprob[m], &a.rows[first + m].logprob, 1, KIND_F32, "logprob");
                same_bits(&part.entropy[m], &a.rows[first + m].entropy, 1, KIND_F32, "entropy");
            }
        }
    }
}

// A draw that makes its block of logits again takes the token, logprob and entropy that it takes from stored ones, to the bit.
static void draws_without_logits(void) {
    Random r = random_start(9, STREAM_TEST, 0);
    static const Truncation none = {0, 1, 0};
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 4; k++) {
            Temper temper = k / 2 ? HOSTILE : PLAIN;
            Dtype dtype = (Dtype)(k % 2);
            if (!sound(&shapes[i], dtype, temper)) continue;
            if (cuda_spared()) continue;
            cuda_case();
            HeadArgs h = head_args(&r, &shapes[i], dtype, false, temper);
            head_outputs(&h, true);
            h.target = NULL, h.logprob = NULL;
            ON_CUDA(head, &h, CASE_FORMAT, CASE_VALUES(&h));
            SampleArgs stored = sample_args(&r, &h, &none, true);
            SampleRow *first = stored.rows;
            ON_CUDA(sample, &stored, CASE_FORMAT, CASE_VALUES(&h));
            HeadArgs without = h;
            without.logits = NULL;
            ON_CUDA(head, &without, CASE_FORMAT, CASE_VALUES(&h));
            SampleArgs made = stored;
            made.logits = NULL, made.head = without;
            made.rows = work_area("rows made", (size_t)h.M * sizeof *made.rows);
            holds_pointers(made.rows);
            for (int64_t m = 0; m < h.M; m++) made.rows[m] = (SampleRow){.greedy = first[m].greedy, .top_p = 1, .uniform = first[m].uniform};
            ON_CUDA(sample, &made, CASE_FORMAT, CASE_VALUES(&h));
            for (int64_t m = 0; m < h.M; m++) {
                CHECK_INT(made.rows[m].token, first[m].token);
                same_bits(&made.rows[m].logprob, &first[m].logprob, 1, KIND_F32, "logprob");
                same_bits(&made.rows[m].entropy, &first[m].entropy, 1, KIND_F32, "entropy");
            }
        }
}

// And it is the twin's: logits are the same numbers on both sides here.
static void draws_without_logits_values(void) {
    static const Shape sampled[] = {{1, 19, 8}, {5, 300, 16}, {9, 1000, 8}, {40, 257, 6}};
    Random r = random_start(10, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(sampled); i++) {
        if (cuda_spared()) continue;
        cuda_case();
        HeadArgs h = sampled_head(&r, &sampled[i], true);
        reference_device->head(reference_device, &h);
        SampleArgs a = sample_args(&r, &h, &truncations[0], false);
        a.head = h, a.logits = a.head.logits = NULL;
        COMPARE_CUDA(sample, &a, "without logits, M %d V %d", (int)a.M, (int)a.V);
        sampled_compare(&a, NULL);
    }
}

static void nothing_to_do(void) {
    cuda_case();
    HeadArgs a = {.V = 300, .C = 8};
    HeadGradArgs g = {.forward = a};
    SampleArgs s = {.V = 300, .truncated = true};
    ON_CUDA(head, &a, "no rows");
    ON_CUDA(head_grad, &g, "no rows");
    ON_CUDA(sample, &s, "no rows");
}

static const Test tests[] = {
    {"head values", head_values},
    {"head gradient values", head_grad_values},
    {"logits are chains", logits_are_chains},
    {"rows are alone", rows_are_alone},
    {"sample values", sample_values},
    {"sample of odd rows", sample_of_odd_rows},
    {"sample of NaN", sample_of_nan},
    {"draws at the borders", draws_at_the_borders},
    {"draws without logits", draws_without_logits},
    {"draws without logits: values", draws_without_logits_values},
    {"sampled logprob is the head's", sampled_logprob_is_the_heads},
    {"nothing to do", nothing_to_do},
};
CUDA_TEST_MAIN(tests)
