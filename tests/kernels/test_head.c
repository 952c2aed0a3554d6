// The head and sampling: the bits of every variant, logprobs that agree between sampling and the head whatever the batch
// and the truncation, draws that follow the distribution, and the head's gradient.
#include "ops_test.h"

typedef struct Shape {
    int64_t M, V, C;
} Shape;
static const Shape shapes[] = {{1, 19, 8}, {3, 256, 24}, {5, 300, 16}, {12, 257, 10}, {13, 1000, 8}, {97, 19, 24}, {130, 300, 8}, {4, 3000, 16}, {200, 40, 6}};

// Rows, packed vocabulary, temperatures, targets and (truncated) kept sets that hold the target.
static HeadArgs head_args(Random *r, const Shape *s, Dtype dtype, bool truncated, Temper temper) {
    HeadArgs a = {.M = s->M, .V = s->V, .C = s->C, .dtype = dtype};
    devices_open();
    a.x = input_act("x", s->M * s->C, dtype, r, temper);
    float *w = input("w", s->V * s->C, r, temper == HOSTILE ? PLAIN : temper);
    a.w = packed("packed w", w, s->V, s->C, dtype, false);
    float *inv_temperature = guarded("inv_temperature", (size_t)s->M * 4);
    for (int64_t m = 0; m < s->M; m++) inv_temperature[m] = m % 3 ? 1.0f : 0.5f + 4 * (float)random_double(r);
    a.inv_temperature = inv_temperature;
    a.softcap = s->C % 3 ? 0 : 1.5f;
    int32_t *target = input_ids("target", s->M, r, (uint32_t)s->V);
    a.target = target;
    if (truncated) {
        int64_t *start = guarded("kept_start", (size_t)(s->M + 1) * 8), count = 0;
        int32_t *kept = guarded("kept", (size_t)(s->M * s->V) * 4);
        for (int64_t m = 0; m < s->M; m++) {
            start[m] = count;
            uint32_t rare = 1 + random_below(r, 60); // sometimes all, sometimes nearly none
            for (int64_t v = 0; v < s->V; v++)
                if (v == target[m] || random_below(r, rare) == 0) kept[count++] = (int32_t)v;
        }
        start[s->M] = count;
        a.kept_start = start, a.kept = kept;
    }
    a.scratch = guarded("scratch", head_scratch(3));
    return a;
}
static void head_outputs(HeadArgs *a, bool logits) {
    int64_t padded = vocab_padded(a->V);
    if (logits) a->logits = output("logits", a->M * padded, KIND_F32);
    a->logprob = output("logprob", a->M, KIND_F32);
    a->entropy = output("entropy", a->M, KIND_F32);
    a->max = output("max", a->M, KIND_F32);
    a->log_sum = output("log_sum", a->M, KIND_F32);
    a->stats = output("stats", a->M * (padded / VOCAB_BLOCK) * 3, KIND_F32);
}

static void head_bits(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 12; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 3) continue;
            blocks_free();
            Dtype dtype = (Dtype)(k / 2 % 2);
            Temper temper = (Temper)(k / 4);
            HeadArgs a = head_args(&r, &shapes[i], dtype, k % 2, temper);
            head_outputs(&a, (k + i) % 2);
            if (i == 3) a.target = NULL;
            COMPARE(head, &a, "M %d V %d C %d %s %s%s", (int)a.M, (int)a.V, (int)a.C, dtype_name(dtype), temper_name(temper), k % 2 ? " truncated" : "");
        }
}

static void head_grad_bits(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 12; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 3) continue;
            blocks_free();
            Dtype dtype = (Dtype)(k / 2 % 2);
            Temper temper = (Temper)(k / 4);
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
            for (int given = 0; given < 2; given++) { // logits made again, then those that the head left
                COMPARE(head_grad, &g, "M %d V %d C %d %s %s%s%s", (int)a->M, (int)a->V, (int)a->C, dtype_name(dtype), temper_name(temper), k % 2 ? " truncated" : "",
                        given ? " logits given" : "");
                if (given) break;
                a->logits = guarded("logits", bytes * (size_t)vocab_padded(a->V));
                reference_device->head(reference_device, a);
            }
        }
}

// Logits with ties, from rows and weights that are multiples of a quarter.
static HeadArgs tied_logits(Random *r, const Shape *s, bool ties) {
    HeadArgs a = head_args(r, s, DTYPE_F32, false, PLAIN);
    if (ties)
        for (int64_t i = 0; i < s->M * s->C; i++) ((float *)(uintptr_t)a.x)[i] = (float)((int)random_below(r, 9) - 4) / 4;
    float *w = guarded("w", (size_t)(s->V * s->C) * 4);
    for (int64_t i = 0; i < s->V * s->C; i++) w[i] = ties ? (float)((int)random_below(r, 9) - 4) / 4 : 2 * any_float(r, PLAIN);
    a.w = packed("packed w", w, s->V, s->C, DTYPE_F32, false);
    return a;
}

typedef struct Truncation {
    int32_t top_k;
    float top_p, min_p;
} Truncation;
static const Truncation truncations[] = {{0, 1, 0}, {1, 1, 0}, {5, 1, 0}, {0, 0.5f, 0}, {0, 0.95f, 0}, {0, 1, 0.1f}, {0, 1, 1}, {7, 0.8f, 0.05f},
                                         {2000, 1, 0}, {40, 0.999f, 0}, {0, 1e-6f, 0}, {0, 0.7f, 0.3f}, {3, 1, 0.5f}};

static void sample_bits(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < LENGTH(truncations); k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 3) continue;
            blocks_free();
            HeadArgs h = tied_logits(&r, &shapes[i], k % 2);
            head_outputs(&h, true);
            const Truncation *t = &truncations[k];
            bool truncated = t->top_k > 0 || t->top_p < 1 || t->min_p > 0;
            SampleArgs a = {.M = h.M, .V = h.V, .logits = h.logits, .stats = h.stats, .entropy = h.entropy};
            reference_device->head(reference_device, &h);
            a.rows = output("rows", h.M * (int64_t)sizeof *a.rows, KIND_BYTES);
            memset(a.rows, 0, (size_t)h.M * sizeof *a.rows);
            int32_t *kept = truncated ? output("kept", h.M * h.V * 4, KIND_BYTES) : NULL;
            for (int64_t m = 0; m < h.M; m++) {
                static const double edges[] = {0, 1 - 0x1p-53, 0.5};
                a.rows[m] = (SampleRow){.greedy = random_below(&r, 4) == 0, .top_k = t->top_k, .top_p = t->top_p, .min_p = t->min_p,
                                        .uniform = m % 5 < 3 ? edges[m % 5] : random_double(&r)};
                // Rows that truncate and rows that don't may stand side by side.
                if (truncated && m % 7 != 6) a.rows[m].kept = kept + m * h.V;
            }
            if (truncated) a.order = guarded("order", (size_t)(3 * h.V) * 8);
            COMPARE(sample, &a, "M %d V %d top_k %d top_p %g min_p %g", (int)a.M, (int)a.V, t->top_k, (double)t->top_p, (double)t->min_p);
        }
}

// A row that holds NaN must not pass for a distribution, nor lead out of the vocabulary.
static void sample_of_nan(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    const Shape s = {6, 300, 8};
    for (int k = 0; k < LENGTH(truncations); k++)
        for (int at = 0; at < 3; at++) {
            blocks_free();
            HeadArgs h = tied_logits(&r, &s, false);
            int32_t place = (int32_t[]){0, 37, 299}[at];
            float *w = guarded("w", (size_t)(s.V * s.C) * 4);
            for (int64_t i = 0; i < s.V * s.C; i++) w[i] = i / s.C == place ? NAN : any_float(&r, PLAIN);
            h.w = packed("packed w", w, s.V, s.C, DTYPE_F32, false);
            head_outputs(&h, true);
            SampleArgs a = {.M = s.M, .V = s.V, .logits = h.logits, .stats = h.stats, .entropy = h.entropy, .order = guarded("order", 3 * 300 * 8)};
            SampleRow rows[6];
            int32_t *kept = guarded("kept", (size_t)(s.M * s.V) * 4);
            a.rows = rows;
            for (int v = -1; v < device_count; v++) {
                const Device *device = v < 0 ? reference_device : test_devices[v];
                device->head(device, &h);
                for (int m = 0; m < s.M; m++) {
                    CHECK(h.logprob[m] != h.logprob[m] && h.max[m] != h.max[m]);
                    rows[m] = (SampleRow){.greedy = m == 0, .top_k = truncations[k].top_k, .top_p = truncations[k].top_p,
                                          .min_p = truncations[k].min_p, .uniform = 0.19 * m, .kept = k ? kept + m * s.V : NULL};
                }
                device->sample(device, &a);
                for (int m = 0; m < s.M; m++)
                    if (rows[m].token < 0 || rows[m].token >= s.V || rows[m].kept_count < 0 || rows[m].kept_count > s.V || rows[m].logprob == rows[m].logprob)
                        FAIL("%s: NaN at %d, truncation %d: token %d, kept %d, logprob %g", device->variant, place, k, rows[m].token, rows[m].kept_count,
                             (double)rows[m].logprob);
                bands_check(device->variant);
            }
        }
}

// What sampling records is what the head computes later for the same row and kept set: alone, among others, with or
// without logits, on every variant.
static void sampled_logprob_is_the_heads(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    static const Shape both[] = {{23, 300, 8}, {7, 3000, 8}};
    for (int i = 0; i < LENGTH(both) * LENGTH(truncations); i++) {
        const Shape *s = &both[i % LENGTH(both)];
        const Truncation *t = &truncations[i / LENGTH(both)];
        blocks_free();
        HeadArgs h = tied_logits(&r, s, false);
        int64_t padded = vocab_padded(s->V);
        h.target = NULL;
        h.logits = guarded("logits", (size_t)(s->M * padded) * 4), h.stats = guarded("stats", (size_t)(s->M * padded / VOCAB_BLOCK) * sizeof *h.stats);
        h.entropy = guarded("entropy", (size_t)s->M * 4);
        SampleRow rows[32];
        SampleArgs a = {.M = s->M, .V = s->V, .logits = h.logits, .stats = h.stats, .entropy = h.entropy, .rows = rows,
                        .order = guarded("order", (size_t)(3 * s->V) * 8)};
        int32_t *kept = guarded("kept", (size_t)(s->M * s->V) * 4), *joined = guarded("joined", (size_t)(s->M * s->V) * 4);
        bool truncated = i / LENGTH(both) > 0;
        for (int v = 0; v < device_count; v++) {
            const Device *device = test_devices[v];
            for (int64_t m = 0; m < s->M; m++)
                rows[m] = (SampleRow){.greedy = m == 0, .top_k = t->top_k, .top_p = t->top_p, .min_p = t->min_p, .uniform = random_double(&r),
                                      .kept = truncated ? kept + m * s->V : NULL};
            device->head(device, &h);
            device->sample(device, &a);
            HeadArgs later = h;
            float logprob[32], entropy[32];
            int32_t target[32];
            int64_t start[33] = {0};
            for (int64_t m = 0; m < s->M; m++) {
                target[m] = rows[m].token;
                memcpy(joined + start[m], kept + m * s->V, (size_t)rows[m].kept_count * 4);
                start[m + 1] = start[m] + rows[m].kept_count;
                bool found = !truncated;
                for (int32_t c = 0; c < rows[m].kept_count; c++) {
                    found |= kept[m * s->V + c] == rows[m].token;
                    CHECK(c == 0 || kept[m * s->V + c] > kept[m * s->V + c - 1]);
                }
                CHECK(found && (t->top_k == 0 || rows[m].kept_count <= t->top_k));
            }
            later.logits = NULL, later.logprob = logprob, later.entropy = entropy, later.target = target;
            if (truncated) later.kept_start = start, later.kept = joined;
            device->head(device, &later);
            for (int64_t m = 0; m < s->M; m++)
                if (memcmp(&logprob[m], &rows[m].logprob, 4) || memcmp(&entropy[m], &rows[m].entropy, 4))
                    FAIL("%s, truncation %d, row %d: sampled %a (entropy %a), the head has %a (%a)", device->variant, i / LENGTH(both), (int)m,
                         (double)rows[m].logprob, (double)rows[m].entropy, (double)logprob[m], (double)entropy[m]);
            // The last row alone.
            float alone, alone_entropy;
            int64_t last = s->M - 1;
            later.M = 1, later.x = (const float *)h.x + last * s->C, later.inv_temperature += last, later.target += last;
            later.logprob = &alone, later.entropy = &alone_entropy;
            if (truncated) later.kept_start += last;
            device->head(device, &later);
            CHECK(!memcmp(&alone, &rows[last].logprob, 4) && !memcmp(&alone_entropy, &rows[last].entropy, 4));
            bands_check(device->variant);
        }
    }
}

// ---- truncation and frequencies, against probabilities in double --------------------------------------------
// Probabilities of one row of logits under a truncation, by its definition.
static int truncated_probabilities(const float *logits, int V, const Truncation *t, double *p) {
    int order[300], count = 0;
    double max = -INFINITY, total = 0, sum = 0;
    bool taken[300] = {false};
    for (int v = 0; v < V; v++) max = fmax(max, (double)logits[v]);
    for (int i = 0; i < V; i++) { // likeliest first, the lower id of equals
        int best = -1;
        for (int v = 0; v < V; v++)
            if (!taken[v] && (best < 0 || logits[v] > logits[best])) best = v;
        taken[best] = true, order[i] = best;
    }
    int limit = t->top_k > 0 && t->top_k < V ? t->top_k : V;
    for (int i = 0; i < limit; i++) total += exp((double)logits[order[i]] - max);
    while (count < limit && (t->top_p >= 1 || sum < (double)t->top_p * total)) sum += exp((double)logits[order[count++]] - max);
    while (count > 1 && exp((double)logits[order[count - 1]] - max) < (double)t->min_p) count--;
    sum = 0;
    for (int v = 0; v < V; v++) p[v] = 0;
    for (int i = 0; i < count; i++) sum += p[order[i]] = exp((double)logits[order[i]] - max);
    for (int v = 0; v < V; v++) p[v] /= sum;
    return count;
}

static void draws_follow_the_distribution(void) {
    enum { V = 300, ROWS = 64, CALLS = 150 };
    static const Truncation kinds[] = {{0, 1, 0}, {20, 1, 0}, {0, 0.95f, 0}, {0, 1, 0.02f}, {50, 0.8f, 0.01f}};
    Random r = random_start(6, STREAM_TEST, 0);
    for (int k = 0; k < LENGTH(kinds); k++) {
        blocks_free();
        const Shape s = {1, V, 8};
        HeadArgs h = tied_logits(&r, &s, false);
        *(float *)(uintptr_t)h.inv_temperature = 1;
        int64_t padded = vocab_padded(V), stats_count = padded / VOCAB_BLOCK;
        float *logits = guarded("logits", (size_t)padded * 4), *all = guarded("all", (size_t)(ROWS * padded) * 4), entropy[ROWS];
        VocabStats stats[4], all_stats[ROWS * 4];
        double p[V], seen[V] = {0};
        int32_t *kept = guarded("kept", ROWS * V * 4);
        h.target = NULL, h.logits = logits, h.stats = stats, h.entropy = entropy;
        const Device *device = test_devices[(k * 5 + 2) % device_count];
        device->head(device, &h);
        int count = truncated_probabilities(logits, V, &kinds[k], p);
        SampleRow rows[ROWS];
        SampleArgs a = {.M = ROWS, .V = V, .logits = all, .stats = all_stats, .entropy = entropy, .rows = rows, .order = guarded("order", 3 * V * 8)};
        for (int call = 0; call < CALLS; call++) {
            for (int m = 0; m < ROWS; m++) {
                memcpy(all + m * padded, logits, (size_t)padded * 4);
                memcpy(all_stats + m * stats_count, stats, sizeof *stats * (size_t)stats_count);
                entropy[m] = entropy[0];
                rows[m] = (SampleRow){.top_k = kinds[k].top_k, .top_p = kinds[k].top_p, .min_p = kinds[k].min_p, .uniform = random_double(&r),
                                      .kept = k ? kept + m * V : NULL};
            }
            device->sample(device, &a);
            for (int m = 0; m < ROWS; m++) {
                CHECK(p[rows[m].token] > 0);
                seen[rows[m].token]++;
                CHECK_NEAR(rows[m].logprob, log(p[rows[m].token]), 1e-5);
                if (k) CHECK_INT(rows[m].kept_count, count);
            }
        }
        // Chi-square over tokens, rare ones together; five deviations of it are allowed.
        double chi = 0, rare = 0, rare_seen = 0, draws = ROWS * CALLS;
        int freedom = -1;
        for (int v = 0; v < V; v++) {
            double expected = draws * p[v];
            if (expected < 8) {
                rare += expected, rare_seen += seen[v];
                continue;
            }
            chi += (seen[v] - expected) * (seen[v] - expected) / expected, freedom++;
        }
        if (rare > 0) chi += (rare_seen - rare) * (rare_seen - rare) / rare, freedom++;
        if (freedom < 5) FAIL("truncation %d: %d degrees of freedom prove little", k, freedom);
        if (!(fabs(chi - freedom) < 5 * sqrt(2.0 * freedom))) FAIL("truncation %d: chi-square %g with %d degrees of freedom", k, chi, freedom);
    }
}

// With 512 equal logits, in two blocks, a uniform number of k / 512 lies on the border before token k.
static void draws_at_the_borders(void) {
    enum { V = 512 };
    blocks_free();
    devices_open();
    float *logits = guarded("logits", V * 4), entropy = 0;
    VocabStats stats[2] = {{.sum = 256}, {.sum = 256}};
    SampleRow row;
    SampleArgs a = {.M = 1, .V = V, .logits = logits, .stats = stats, .entropy = &entropy, .rows = &row};
    memset(logits, 0, V * 4);
    for (int d = -1; d < device_count; d += d < 0 ? 1 : 3) // of each variant the device with one thread
        for (int k = 0; k < V; k++) {
            const Device *device = d < 0 ? reference_device : test_devices[d];
            row = (SampleRow){.top_p = 1, .uniform = k / 512.0};
            device->sample(device, &a);
            CHECK_INT(row.token, k);
            CHECK_NEAR(row.logprob, -log(512), 1e-6);
        }
}

// ---- gradients -------------------------------------------------------------------------------------------
typedef struct Problem {
    const HeadArgs *a;
    double *product; // [M, V], before the cap and the temperature
    double *z;       // [V] of one row, capped
    const float *dlogprob, *dentropy;
} Problem;
static double head_loss(const void *problem) {
    const Problem *p = problem;
    const HeadArgs *a = p->a;
    double loss = 0;
    for (int64_t m = 0; m < a->M; m++) {
        double max = -INFINITY, sum = 0, mean = 0, scale = (double)a->inv_temperature[m];
        double *z = p->z;
        for (int64_t v = 0; v < a->V; v++) {
            double x = p->product[m * a->V + v], cap = (double)a->softcap;
            z[v] = cap > 0 ? cap * tanh(x / cap) : x;
        }
        int64_t first = a->kept_start ? a->kept_start[m] : 0, end = a->kept_start ? a->kept_start[m + 1] : a->V;
        for (int64_t i = first; i < end; i++) max = fmax(max, z[a->kept_start ? a->kept[i] : i] * scale);
        for (int64_t i = first; i < end; i++) {
            double l = z[a->kept_start ? a->kept[i] : i] * scale - max;
            sum += exp(l), mean += exp(l) * l;
        }
        loss += (double)p->dlogprob[m] * (z[a->target[m]] * scale - max - log(sum));
        if (p->dentropy) loss += (double)p->dentropy[m] * (log(sum) - mean / sum);
    }
    return loss;
}

static void head_slopes(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    const Shape plain = {5, 270, 8}, capped = {5, 270, 9};
    for (int k = 0; k < 8; k++) { // truncated or not, with entropy or not, capped or not
        const Shape s = k < 4 ? plain : capped;
        if (k == 5 || k == 6) continue;
        blocks_free();
        HeadGradArgs g = {.forward = head_args(&r, &s, DTYPE_F32, k % 2, PLAIN)};
        HeadArgs *a = &g.forward;
        float logprob[5], entropy[5], max[5], log_sum[5];
        VocabStats stats[10];
        int64_t padded = vocab_padded(s.V);
        a->logprob = logprob, a->entropy = entropy, a->max = max, a->log_sum = log_sum, a->stats = stats;
        g.dlogprob = input("dlogprob", s.M, &r, PLAIN);
        if (k / 2 % 2) g.dentropy = input("dentropy", s.M, &r, PLAIN);
        float *dlogits = g.dlogits = guarded("dlogits", (size_t)(s.M * padded) * 4);
        g.ld = padded;
        Problem p = {.a = a, .z = guarded("z", (size_t)s.V * 8), .product = guarded("product", (size_t)(s.M * s.V) * 8), .dlogprob = g.dlogprob, .dentropy = g.dentropy};
        for (int64_t i = 0; i < s.M * s.V; i++) {
            p.product[i] = 0;
            for (int64_t c = 0; c < s.C; c++)
                p.product[i] += (double)act_value(a->x, i / s.V * s.C + c, DTYPE_F32) * (double)((const float *)a->w)[(i % s.V / 32 * s.C + c) * 32 + i % s.V % 32];
        }
        for (int v = 0; v < device_count; v++) {
            const Device *device = test_devices[v];
            device->head(device, a);
            device->head_grad(device, &g);
            double loss = 0;
            for (int64_t m = 0; m < s.M; m++) {
                loss += (double)g.dlogprob[m] * (double)logprob[m] + (g.dentropy ? (double)g.dentropy[m] * (double)entropy[m] : 0);
                for (int64_t i = s.V; i < padded; i++) CHECK(dlogits[m * padded + i] == 0);
            }
            CHECK_NEAR(loss, head_loss(&p), 1e-5);
            if (device->threads != 1 + v % 3) continue;
            for (int64_t m = 0; m < s.M; m++) check_slopes("dlogits", head_loss, &p, p.product + m * s.V, dlogits + m * padded, s.V, v == 0 ? 0 : 40, 5e-6);
        }
    }
}

static const Test tests[] = {
    {"head variants of this processor", variants},
    {"head bits", head_bits},
    {"head gradient bits", head_grad_bits},
    {"sample bits", sample_bits},
    {"sample of NaN", sample_of_nan},
    {"sampled logprob is the head's", sampled_logprob_is_the_heads},
    {"draws follow the distribution", draws_follow_the_distribution},
    {"draws at the borders", draws_at_the_borders},
    {"head slopes", head_slopes},
};
OPS_TEST_MAIN(tests)
