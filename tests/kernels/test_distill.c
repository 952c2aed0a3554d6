// Divergences between two distributions: the bits of every variant, values against a plain statement in double, slopes against
// differences, and what must hold of any divergence.
#include "ops_test.h"
#include "files.h"
#include "json.h"

typedef struct Shape {
    int64_t M, V, student, teacher; // widths
} Shape;
static const Shape shapes[] = {{1, 19, 8, 24}, {3, 256, 24, 8}, {5, 300, 16, 17}, {12, 257, 10, 40}, {13, 1000, 8, 6}, {97, 19, 24, 24}, {60, 300, 8, 16},
                               {4, 3000, 16, 12}};
static const float betas[] = {0, 1, 0.5f, 0.1f};

static HeadArgs side(Random *r, const Shape *s, int64_t C, Dtype dtype, Temper temper, const float *inv_temperature, const char *name) {
    HeadArgs a = {.M = s->M, .V = s->V, .C = C, .dtype = dtype, .inv_temperature = inv_temperature, .softcap = C % 3 ? 0 : 1.5f};
    a.x = input_act(name, s->M * C + C % 2, dtype, r, temper); // an odd row is read in pairs, as policies leave room for
    a.w = packed("packed w", input("w", s->V * C, r, temper == HOSTILE ? PLAIN : temper), s->V, C, dtype, false);
    a.max = guarded("max", (size_t)s->M * 4), a.log_sum = guarded("log_sum", (size_t)s->M * 4);
    a.stats = guarded("stats", (size_t)(s->M * vocab_padded(s->V) / VOCAB_BLOCK) * sizeof *a.stats);
    a.scratch = guarded("scratch", head_scratch(3));
    reference_device->head(reference_device, &a);
    return a;
}
static DistillArgs distill_args(Random *r, const Shape *s, Dtype dtype, Temper temper, float beta) {
    devices_open();
    float *inv_temperature = guarded("inv_temperature", (size_t)s->M * 4);
    for (int64_t m = 0; m < s->M; m++) inv_temperature[m] = m % 3 ? 1.0f : 0.5f + 4 * (float)random_double(r);
    DistillArgs a = {.beta = beta};
    a.student = side(r, s, s->student, dtype, temper, inv_temperature, "student");
    a.teacher = side(r, s, s->teacher, dtype, temper, inv_temperature, "teacher");
    a.scratch = guarded("scratch", head_scratch(3));
    return a;
}
static void distill_outputs(DistillArgs *a) {
    a->divergence = output("divergence", a->student.M, KIND_F32);
    a->centre = output("centre", a->student.M, KIND_F32);
    a->student.stats = output("partial sums", a->student.M * (vocab_padded(a->student.V) / VOCAB_BLOCK) * 3, KIND_F32);
}

static void distill_bits(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 24; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 5) continue;
            blocks_free();
            Dtype dtype = (Dtype)(k % 2);
            Temper temper = (Temper)(k / 8);
            DistillArgs a = distill_args(&r, &shapes[i], dtype, temper, betas[k / 2 % 4]);
            distill_outputs(&a);
            COMPARE(distill, &a, "M %d V %d beta %g %s %s", (int)a.student.M, (int)a.student.V, (double)a.beta, dtype_name(dtype), temper_name(temper));
        }
}

static void distill_grad_bits(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 24; k++) {
            if (shapes[i].M * shapes[i].V > 5000 && (k + i) % 5) continue;
            blocks_free();
            Dtype dtype = (Dtype)(k % 2);
            Temper temper = (Temper)(k / 8);
            DistillGradArgs g = {.forward = distill_args(&r, &shapes[i], dtype, temper, betas[k / 2 % 4])};
            int64_t M = shapes[i].M;
            g.forward.divergence = guarded("divergence", (size_t)M * 4), g.forward.centre = guarded("centre", (size_t)M * 4);
            reference_device->distill(reference_device, &g.forward);
            g.weight = input("weight", M, &r, PLAIN);
            g.ld = vocab_padded(shapes[i].V) + k % 3 * VOCAB_BLOCK; // a student's head with more rows than the teacher's
            g.dlogits = output("dlogits", M * g.ld, kind_of(dtype));
            COMPARE(distill_grad, &g, "M %d V %d beta %g %s %s", (int)M, (int)shapes[i].V, (double)g.forward.beta, dtype_name(dtype), temper_name(temper));
        }
}

// ---- values and slopes -----------------------------------------------------------------------------------
typedef struct Problem {
    const DistillArgs *a;
    double *student, *teacher; // [M][V] products before cap and temperature
    const float *weight;       // [M]
    double divergence[64];     // of each row
} Problem;

static void products(const HeadArgs *a, const float *w, double *out) {
    for (int64_t m = 0; m < a->M; m++)
        for (int64_t v = 0; v < a->V; v++) {
            double sum = 0;
            for (int64_t c = 0; c < a->C; c++) sum += (double)((const float *)a->x)[m * a->C + c] * (double)w[v * a->C + c];
            out[m * a->V + v] = sum;
        }
}
static void log_softmax(const HeadArgs *a, int64_t m, const double *product, double *out) {
    double sum = 0, cap = (double)a->softcap;
    for (int64_t v = 0; v < a->V; v++) {
        out[v] = (cap > 0 ? cap * tanh(product[v] / cap) : product[v]) * (double)a->inv_temperature[m];
        sum += exp(out[v]);
    }
    for (int64_t v = 0; v < a->V; v++) out[v] -= log(sum);
}
static double row_divergence(const Problem *p, int64_t m) {
    int64_t V = p->a->student.V;
    double *q = malloc((size_t)V * 8), *t = malloc((size_t)V * 8), sum = 0, beta = (double)p->a->beta;
    log_softmax(&p->a->student, m, p->student + m * V, q);
    log_softmax(&p->a->teacher, m, p->teacher + m * V, t);
    for (int64_t v = 0; v < V; v++) {
        double mixture = log(beta * exp(t[v]) + (1 - beta) * exp(q[v]));
        if (beta == 0)
            sum += exp(t[v]) * (t[v] - q[v]);
        else if (beta == 1)
            sum += exp(q[v]) * (q[v] - t[v]);
        else
            sum += beta * exp(t[v]) * (t[v] - mixture) + (1 - beta) * exp(q[v]) * (q[v] - mixture);
    }
    free(q), free(t);
    return sum;
}
static double problem_loss(const void *problem) {
    const Problem *p = problem;
    double loss = 0;
    for (int64_t m = 0; m < p->a->student.M; m++) loss += (double)p->weight[m] * row_divergence(p, m);
    return loss;
}

static void distill_slopes(void) {
    static const Shape cases[] = {{3, 40, 9, 21}, {2, 300, 8, 5}};
    for (int i = 0; i < 8; i++) {
        Random r = random_start(3, STREAM_TEST, (uint32_t)i);
        const Shape *s = &cases[i / 4];
        blocks_free();
        DistillGradArgs g = {.forward = distill_args(&r, s, DTYPE_F32, PLAIN, betas[i % 4])};
        DistillArgs *a = &g.forward;
        a->divergence = guarded("divergence", (size_t)s->M * 4), a->centre = guarded("centre", (size_t)s->M * 4);
        g.weight = input("weight", s->M, &r, PLAIN);
        g.ld = vocab_padded(s->V);
        float *dlogits = guarded("dlogits", (size_t)(s->M * g.ld) * 4);
        g.dlogits = dlogits;
        float *w = guarded("w", (size_t)(s->V * (s->student + s->teacher)) * 4);
        reference_device->unpack(reference_device, &(UnpackArgs){.packed = a->student.w, .N = s->V, .K = s->student, .w = w});
        reference_device->unpack(reference_device, &(UnpackArgs){.packed = a->teacher.w, .N = s->V, .K = s->teacher, .w = w + s->V * s->student});
        Problem p = {.a = a, .weight = g.weight, .student = guarded("student products", (size_t)(s->M * s->V) * 8),
                     .teacher = guarded("teacher products", (size_t)(s->M * s->V) * 8)};
        products(&a->student, w, p.student), products(&a->teacher, w + s->V * s->student, p.teacher);
        reference_device->distill(reference_device, a);
        reference_device->distill_grad(reference_device, &g);
        for (int64_t m = 0; m < s->M; m++) {
            CHECK_NEAR(a->divergence[m], row_divergence(&p, m), 2e-6);
            check_slopes("dlogits", problem_loss, &p, p.student + m * s->V, dlogits + m * g.ld, s->V, 60, 2e-5);
        }
    }
}

// ---- against PyTorch -------------------------------------------------------------------------------------
static float *numbers(const json_t *file, const char *key) {
    const json_t *list = json_object_get(file, key);
    float *out = guarded(key, json_array_size(list) * 4);
    for (size_t i = 0; i < json_array_size(list); i++) out[i] = (float)json_number_value(json_array_get(list, i));
    return out;
}
static HeadArgs golden_side(const json_t *file, const char *x, const char *w, const char *width, const float *inv_temperature) {
    HeadArgs a = {.M = json_integer_value(json_object_get(file, "M")), .V = json_integer_value(json_object_get(file, "V")),
                  .C = json_integer_value(json_object_get(file, width)), .inv_temperature = inv_temperature};
    a.x = numbers(file, x), a.w = packed("packed w", numbers(file, w), a.V, a.C, DTYPE_F32, false);
    a.max = guarded("max", (size_t)a.M * 4), a.log_sum = guarded("log_sum", (size_t)a.M * 4);
    a.stats = guarded("stats", (size_t)a.M * sizeof *a.stats), a.scratch = guarded("scratch", head_scratch(3));
    reference_device->head(reference_device, &a);
    return a;
}
// TRL's generalized_jsd_loss in double precision.
static void distill_golden(void) {
    Err err = {0};
    Buf text = {0};
    json_t *file, *c;
    size_t i;
    devices_open();
    OK(file_read(TEST_DATA "/distill.json", 1 << 20, &text, &err));
    CHECK((file = json_loadb(text.data, text.size, 0, NULL)) != NULL);
    json_array_foreach(json_object_get(file, "cases"), i, c) {
        blocks_free();
        DistillGradArgs g = {.ld = VOCAB_BLOCK, .weight = numbers(file, "weight")};
        DistillArgs *a = &g.forward;
        float *inv_temperature = guarded("inv_temperature", 16);
        for (int m = 0; m < 4; m++) inv_temperature[m] = (float)(1 / json_number_value(json_object_get(c, "temperature")));
        a->student = golden_side(file, "xs", "ws", "student", inv_temperature);
        a->teacher = golden_side(file, "xt", "wt", "teacher", inv_temperature);
        a->beta = (float)json_number_value(json_object_get(c, "beta"));
        a->divergence = guarded("divergence", 16), a->centre = guarded("centre", 16), a->scratch = guarded("scratch", head_scratch(3));
        float *dlogits = guarded("dlogits", 4 * VOCAB_BLOCK * 4);
        g.dlogits = dlogits;
        reference_device->distill(reference_device, a);
        reference_device->distill_grad(reference_device, &g);
        CHECK_INT(a->student.M, 4);
        for (int64_t m = 0; m < 4; m++) {
            CHECK_NEAR(a->divergence[m], json_number_value(json_array_get(json_object_get(c, "loss"), (size_t)m)), 2e-6);
            for (int64_t v = 0; v < a->student.V; v++)
                CHECK_NEAR(dlogits[m * VOCAB_BLOCK + v], json_number_value(json_array_get(json_object_get(c, "dlogits"), (size_t)(m * a->student.V + v))), 2e-6);
        }
    }
    CHECK_INT((int)i, 10);
    json_decref(file);
    buf_free(&text);
}

// Of a distribution with itself all divergences and slopes are 0; of two different ones they are positive, and the two
// directions swap with the roles.
static void distill_identities(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    const Shape s = {20, 300, 16, 16};
    for (int i = 0; i < LENGTH(betas); i++) {
        blocks_free();
        DistillGradArgs g = {.forward = distill_args(&r, &s, DTYPE_BF16, PLAIN, betas[i])};
        DistillArgs *a = &g.forward, swapped = *a;
        a->divergence = guarded("divergence", (size_t)s.M * 4), a->centre = guarded("centre", (size_t)s.M * 4);
        reference_device->distill(reference_device, a);
        swapped.student = a->teacher, swapped.teacher = a->student, swapped.beta = 1 - a->beta;
        swapped.divergence = guarded("divergence", (size_t)s.M * 4), swapped.centre = guarded("centre", (size_t)s.M * 4);
        reference_device->distill(reference_device, &swapped);
        for (int64_t m = 0; m < s.M; m++) {
            CHECK(a->divergence[m] > 0);
            CHECK_NEAR(a->divergence[m], swapped.divergence[m], 1e-6);
        }
        a->teacher = a->student;
        g.weight = input("weight", s.M, &r, PLAIN);
        g.ld = vocab_padded(s.V);
        bf16 *dlogits = guarded("dlogits", (size_t)(s.M * g.ld) * 2);
        g.dlogits = dlogits;
        reference_device->distill(reference_device, a);
        reference_device->distill_grad(reference_device, &g);
        for (int64_t m = 0; m < s.M; m++) CHECK_NEAR(a->divergence[m], 0, 2e-7);
        for (int64_t k = 0; k < s.M * g.ld; k++) CHECK_NEAR(bf16_float(dlogits[k]), 0, 1e-7);
    }
}

// A NaN in a row of either side is a NaN in that row's value and slopes, and in no other's.
static void distill_of_nan(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    const Shape s = {6, 40, 8, 12};
    for (int i = 0; i < 2 * LENGTH(betas); i++) {
        blocks_free();
        DistillGradArgs g = {.forward = distill_args(&r, &s, DTYPE_F32, PLAIN, betas[i / 2])};
        DistillArgs *a = &g.forward;
        HeadArgs *hit = i % 2 ? &a->teacher : &a->student;
        ((float *)(uintptr_t)hit->x)[2 * hit->C + 1] = NAN;
        reference_device->head(reference_device, hit);
        a->divergence = guarded("divergence", (size_t)s.M * 4), a->centre = guarded("centre", (size_t)s.M * 4);
        g.weight = input("weight", s.M, &r, PLAIN);
        g.ld = vocab_padded(s.V);
        float *dlogits = guarded("dlogits", (size_t)(s.M * g.ld) * 4);
        g.dlogits = dlogits;
        reference_device->distill(reference_device, a);
        reference_device->distill_grad(reference_device, &g);
        for (int64_t m = 0; m < s.M; m++) {
            CHECK(isnan(a->divergence[m]) == (m == 2));
            for (int64_t v = 0; v < s.V; v++) CHECK(isnan(dlogits[m * g.ld + v]) == (m == 2));
        }
    }
}

static const Test tests[] = {
    {"distill variants of this processor", variants}, {"distill bits", distill_bits},
    {"distill gradient bits", distill_grad_bits},     {"distill slopes", distill_slopes},
    {"distill identities", distill_identities},       {"distill of NaN", distill_of_nan},
    {"distill golden", distill_golden},
};
OPS_TEST_MAIN(tests)
