// Latent attention: the bits of every variant on packed groups that share prompt pages, rows that are the same alone and
// among others, and gradients through the whole of it.
#include "attention_test.h"

typedef struct Form {
    int heads, N, P, R;
    bool interleaved;
} Form;
static const Form forms[] = {{1, 4, 4, 8, true}, {3, 6, 8, 20, true}, {6, 16, 16, 20, false}, {5, 12, 2, 33, true}, {18, 3, 10, 64, false}};
static const Group groups_small[] = {{5, 2, {3, 1, 0, 0}}, {32, 1, {2, 0, 0, 0}}};
static const Group groups_large[] = {{40, 3, {30, 1, 26, 0}}, {1, 0, {0}}, {64, 2, {33, 9, 0, 0}}};

typedef void (*Case)(Random *r, const Layout *l, const Form *f, Dtype dtype, Temper temper);
static void each_case(uint64_t seed, Case run) {
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(forms); i++)
        for (int k = 0; k < 6; k++) {
            blocks_free();
            Layout l = (i + k) % 5 == 0 && forms[i].heads < 10 ? layout_of(groups_large, 3) : layout_of(groups_small, 2);
            run(&r, &l, &forms[i], (Dtype)(k / 3), (Temper)(k % 3));
        }
}
#define COMPARE_CASE(name, args)                                                                             \
    COMPARE(name, args, "T %d heads %d N %d P %d R %d %s %s", (int)l->T, f->heads, f->N, f->P, f->R, dtype_name(dtype), temper_name(temper))

static LatentRopeArgs rope_args(const Layout *l, const Form *f, Dtype dtype, Random *r, Temper temper) {
    LatentRopeArgs a = {.T = l->T, .heads = f->heads, .N = f->N, .P = f->P, .R = f->R, .dtype = dtype, .interleaved = f->interleaved,
                        .position = l->position, .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(160, f->P)};
    a.q = input("q", l->T * f->heads * (f->N + f->P), r, temper);
    a.latent = input_act("latent", l->T * f->R, dtype, r, temper);
    a.ldkey = f->P + 3;
    a.key = input("key", l->T * a.ldkey, r, temper);
    return a;
}
static void rope_case(Random *r, const Layout *l, const Form *f, Dtype dtype, Temper temper) {
    LatentRopeArgs a = rope_args(l, f, dtype, r, temper);
    a.q_plain = output("q_plain", l->T * f->heads * f->N, kind_of(dtype));
    a.q_full = output("q_full", l->T * f->heads * (f->R + f->P), kind_of(dtype));
    a.pages = output("pages", l->pages * latent_page_elements(f->R + f->P), kind_of(dtype));
    memset(a.q_full, 0, (size_t)(l->T * f->heads * (f->R + f->P)) * dtype_size(dtype));
    memset(a.pages, 0, (size_t)(l->pages * latent_page_elements(f->R + f->P)) * dtype_size(dtype));
    COMPARE_CASE(latent_rope, &a);
}
static void rope_bits(void) { each_case(1, rope_case); }

static void rope_grad_case(Random *r, const Layout *l, const Form *f, Dtype dtype, Temper temper) {
    int64_t W = f->R + f->P;
    LatentRopeGradArgs a = {.T = l->T, .heads = f->heads, .N = f->N, .P = f->P, .R = f->R, .dtype = dtype, .interleaved = f->interleaved,
                            .position = l->position, .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(160, f->P)};
    a.dq_plain = input("dq_plain", l->T * f->heads * f->N, r, temper);
    a.dq_full = input("dq_full", l->T * f->heads * W, r, temper);
    a.dpages = input("dpages", l->pages * latent_page_elements(W), r, temper);
    a.dq = output("dq", l->T * f->heads * (f->N + f->P), kind_of(dtype));
    a.dlatent = output("dlatent", l->T * f->R, KIND_F32);
    a.ldkey = f->P + 1;
    a.dkey = output("dkey", l->T * a.ldkey, kind_of(dtype));
    memset(a.dkey, 0, (size_t)(l->T * a.ldkey) * dtype_size(dtype));
    COMPARE_CASE(latent_rope_grad, &a);
}
static void rope_grad_bits(void) { each_case(2, rope_grad_case); }

// Pages hold NaN wherever no token was stored: nothing there may be used. The columns that pad W are zero, as the layout says.
static LatentAttentionArgs attention_args(const Layout *l, const Form *f, Dtype dtype, Random *r, Temper temper) {
    int64_t W = f->R + f->P, count = l->pages * latent_page_elements(W);
    LatentAttentionArgs a = {.T = l->T, .heads = f->heads, .W = (int32_t)W, .R = f->R, .dtype = dtype, .scale = 1.0f / sqrtf((float)W),
                             .position = l->position, .table_start = l->table_start, .table = l->table};
    LatentRopeArgs rope = rope_args(l, f, dtype, r, temper);
    char *pages = guarded("pages", (size_t)count * dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        float value = i % latent_page_elements(W) / PAGE < W ? NAN : 0.0f;
        if (dtype == DTYPE_F32)
            memcpy(pages + i * 4, &value, 4);
        else
            ((bf16 *)(void *)pages)[i] = float_bf16(value);
    }
    rope.q_plain = guarded("q_plain", (size_t)(l->T * f->heads * f->N) * dtype_size(dtype));
    rope.q_full = input_act("q_full", l->T * f->heads * W, dtype, r, temper);
    rope.pages = pages;
    devices_open();
    reference_device->latent_rope(reference_device, &rope);
    a.q = rope.q_full, a.pages = pages;
    a.scratch = guarded("scratch", latent_scratch(3, W));
    return a;
}
static void attention_case(Random *r, const Layout *l, const Form *f, Dtype dtype, Temper temper) {
    LatentAttentionArgs a = attention_args(l, f, dtype, r, temper);
    a.y = output("y", l->T * f->heads * f->R, kind_of(dtype));
    a.lse = output("lse", l->T * f->heads, KIND_F32);
    COMPARE_CASE(latent_attention, &a);
}
static void attention_bits(void) { each_case(3, attention_case); }

static void readers(const Layout *l, int32_t *first, int32_t *last) {
    for (int i = 0; i < l->pages; i++) first[i] = (int32_t)l->T, last[i] = -1;
    for (int64_t t = 0; t < l->T; t++)
        for (int c = 0; c <= l->position[t] / PAGE; c++) {
            int32_t page = l->table[l->table_start[t] + c];
            if (first[page] > t) first[page] = (int32_t)t;
            last[page] = (int32_t)t;
        }
}
static LatentAttentionGradArgs grad_args(const Layout *l, const Form *f, Dtype dtype, Random *r, Temper temper) {
    LatentAttentionGradArgs b = {.forward = attention_args(l, f, dtype, r, temper), .unit_count = l->units, .unit = l->unit,
                                 .unit_page = l->unit_page, .page_count = l->pages};
    b.forward.y = guarded("y", (size_t)(l->T * f->heads * f->R) * dtype_size(dtype));
    b.forward.lse = guarded("lse", (size_t)(l->T * f->heads) * 4);
    reference_device->latent_attention(reference_device, &b.forward);
    int32_t *first = guarded("page_first_row", (size_t)l->pages * 4), *last = guarded("page_last_row", (size_t)l->pages * 4);
    readers(l, first, last);
    b.page_first_row = first, b.page_last_row = last;
    b.dy = input("dy", l->T * f->heads * f->R, r, temper);
    b.dq = output("dq", l->T * f->heads * (f->R + f->P), KIND_F32);
    b.dpages = output("dpages", l->pages * latent_page_elements(f->R + f->P), KIND_F32);
    b.delta = output("delta", l->T * f->heads, KIND_F32);
    return b;
}
static void grad_case(Random *r, const Layout *l, const Form *f, Dtype dtype, Temper temper) {
    LatentAttentionGradArgs b = grad_args(l, f, dtype, r, temper);
    COMPARE_CASE(latent_attention_grad, &b);
}
static void grad_bits(void) { each_case(4, grad_case); }

// Each row alone, as decoding has it, gives the bits that it has among all.
static void rows_stand_alone(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    for (int d = 0; d < 2; d++) {
        blocks_free();
        Layout l = layout_of(groups_large, 3);
        const Form *f = &forms[1];
        LatentAttentionArgs a = attention_args(&l, f, (Dtype)d, &r, PLAIN);
        size_t row = (size_t)(f->heads * f->R) * dtype_size((Dtype)d), q_row = (size_t)(f->heads * (f->R + f->P)) * dtype_size((Dtype)d);
        char *all = guarded("all", (size_t)l.T * row), *one = guarded("one", row);
        a.y = all;
        for (int i = 0; i < device_count; i++) {
            a.T = l.T, a.y = all;
            test_devices[i]->latent_attention(test_devices[i], &a);
            for (int64_t t = 0; t < l.T; t += 3) {
                LatentAttentionArgs b = a;
                b.T = 1, b.q = (const char *)a.q + (size_t)t * q_row, b.position = a.position + t, b.table_start = a.table_start + t, b.y = one;
                test_devices[i]->latent_attention(test_devices[i], &b);
                if (memcmp(one, all + (size_t)t * row, row)) FAIL("%s, %s: row %d alone has other bits", test_devices[i]->variant, dtype_name((Dtype)d), (int)t);
            }
        }
    }
}

// ---- gradients -------------------------------------------------------------------------------------------
// dy . y as a function of queries, latents and keys, rotation and all, in double.
typedef struct Problem {
    const Layout *l;
    const Form *f;
    double *q, *latent, *key, *full; // full [T, H, R]: the queries' first R columns
    const float *dy, *cos_sin;
    double scale;
} Problem;
static void turned(const Problem *p, const double *x, int position, double *y) {
    int P = p->f->P;
    for (int i = 0; i < P / 2; i++) {
        double a = p->f->interleaved ? x[2 * i] : x[i], b = p->f->interleaved ? x[2 * i + 1] : x[i + P / 2];
        double c = (double)p->cos_sin[position * P + i], s = (double)p->cos_sin[position * P + P / 2 + i];
        y[i] = a * c - b * s, y[i + P / 2] = b * c + a * s;
    }
}
// The token that stored position `at` of row t's sequence: the last before t with that slot.
static int64_t owner(const Layout *l, int64_t t, int at) {
    int64_t slot = (int64_t)l->table[l->table_start[t] + at / PAGE] * PAGE + at % PAGE;
    for (int64_t s = 0; s < l->T; s++)
        for (int64_t i = l->slot_start[s]; i < l->slot_start[s + 1]; i++)
            if (l->slot[i] == slot) return s;
    FAIL("nobody stored position %d", at);
}
static double attention_loss(const void *problem) {
    const Problem *p = problem;
    const Form *f = p->f;
    double loss = 0, q[64], k[64], score[160];
    for (int64_t t = 0; t < p->l->T; t++)
        for (int h = 0; h < f->heads; h++) {
            int64_t at = t * f->heads + h;
            int position = p->l->position[t];
            double all = 0;
            turned(p, p->q + at * (f->N + f->P) + f->N, position, q);
            for (int j = 0; j <= position; j++) {
                int64_t s = owner(p->l, t, j);
                turned(p, p->key + s * (f->P + 3), j, k);
                score[j] = 0;
                for (int i = 0; i < f->P; i++) score[j] += q[i] * k[i];
                for (int i = 0; i < f->R; i++) score[j] += p->full[at * f->R + i] * p->latent[s * f->R + i];
                all += exp(score[j] * p->scale);
            }
            for (int j = 0; j <= position; j++) {
                int64_t s = owner(p->l, t, j);
                for (int i = 0; i < f->R; i++)
                    loss += exp(score[j] * p->scale) / all * p->latent[s * f->R + i] * (double)p->dy[at * f->R + i];
            }
        }
    return loss;
}
static void slopes(void) {
    static const Group groups[] = {{6, 2, {3, 1, 0, 0}}, {31, 1, {3, 0, 0, 0}}};
    Random r = random_start(6, STREAM_TEST, 0);
    for (int i = 0; i < 3; i++) {
        blocks_free();
        Layout l = layout_of(groups, i == 2 ? 2 : 1);
        const Form *f = &forms[i];
        int64_t W = f->R + f->P, H = f->heads;
        LatentAttentionGradArgs b = grad_args(&l, f, DTYPE_F32, &r, PLAIN);
        // The inputs of attention_args, which it made in this order after the table of angles.
        const float *q = NULL, *latent = NULL, *key = NULL, *cos_sin = NULL;
        for (int k = 0; k < block_count; k++) {
            const float *data = (const float *)(const void *)blocks[k].data;
            if (!strcmp(blocks[k].name, "q")) q = data;
            if (!strcmp(blocks[k].name, "latent")) latent = data;
            if (!strcmp(blocks[k].name, "key")) key = data;
            if (!strcmp(blocks[k].name, "cos_sin")) cos_sin = data;
        }
        reference_device->latent_attention_grad(reference_device, &b);
        LatentRopeGradArgs g = {.T = l.T, .heads = f->heads, .N = f->N, .P = f->P, .R = f->R, .interleaved = f->interleaved, .cos_sin = cos_sin,
                                .position = l.position, .slot_start = l.slot_start, .slot = l.slot, .dq_full = b.dq, .dpages = b.dpages};
        g.dq_plain = input("dq_plain", l.T * H * f->N, &r, PLAIN);
        float *dq = guarded("dq", (size_t)(l.T * H * (f->N + f->P)) * 4), *dkey = guarded("dkey", (size_t)(l.T * (f->P + 3)) * 4);
        g.dq = dq, g.dkey = dkey, g.ldkey = f->P + 3, g.dlatent = guarded("dlatent", (size_t)(l.T * f->R) * 4);
        reference_device->latent_rope_grad(reference_device, &g);
        double *full = guarded("full", (size_t)(l.T * H * f->R) * 8);
        float *dfull = guarded("dfull", (size_t)(l.T * H * f->R) * 4), *drotated = guarded("drotated", (size_t)(l.T * H * (f->N + f->P)) * 4);
        for (int64_t n = 0; n < l.T * H * f->R; n++) {
            full[n] = (double)((const float *)b.forward.q)[n / f->R * W + n % f->R];
            dfull[n] = b.dq[n / f->R * W + n % f->R];
        }
        for (int64_t n = 0; n < l.T * H * (f->N + f->P); n++) drotated[n] = n % (f->N + f->P) < f->N ? 0 : dq[n];
        Problem p = {&l, f, widened("q64", q, l.T * H * (f->N + f->P)), widened("latent64", latent, l.T * f->R), widened("key64", key, l.T * (f->P + 3)),
                     full, b.dy, cos_sin, (double)b.forward.scale};
        check_slopes("dfull", attention_loss, &p, full, dfull, l.T * H * f->R, 20, 1e-4);
        check_slopes("dq", attention_loss, &p, p.q, drotated, l.T * H * (f->N + f->P), 40, 1e-4);
        check_slopes("dlatent", attention_loss, &p, p.latent, g.dlatent, l.T * f->R, 20, 1e-4);
        for (int64_t n = 0; n < l.T * (f->P + 3); n++) dkey[n] = n % (f->P + 3) < f->P ? dkey[n] : 0;
        check_slopes("dkey", attention_loss, &p, p.key, dkey, l.T * (f->P + 3), 30, 1e-4);
    }
}

static const Test tests[] = {
    {"rotation and the store into pages have the same bits on every variant", rope_bits},
    {"and so have their gradients", rope_grad_bits},
    {"attention has the same bits on every variant", attention_bits},
    {"and so have its gradients", grad_bits},
    {"a row has the same bits alone and among others", rows_stand_alone},
    {"gradients are the slopes, rotation and shared pages included", slopes},
};
OPS_TEST_MAIN(tests)
