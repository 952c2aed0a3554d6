// Divergences between two distributions on a CUDA device: against the slow twin within the tolerances said beside each case, and
// no bit depends on how many rows there are.
#include "cuda_test.h"

typedef struct Shape {
    int64_t M, V, student, teacher; // widths
} Shape;
static const Shape shapes[] = {{1, 19, 8, 24}, {5, 300, 17, 40}, {12, 257, 10, 264}, {33, 40, 333, 8}, {70, 300, 24, 48}, {3, 530, 520, 13}};
static const float betas[] = {0, 1, 0.5f, 0.1f};

// The twin reads bf16 rows in pairs, so an odd row is followed by a zero.
static HeadArgs side(Random *r, const Shape *s, int64_t C, Dtype dtype, bool hostile, const float *inv_temperature) {
    bool pairs = dtype == DTYPE_BF16 && C % 2;
    HeadArgs a = {.M = s->M, .V = s->V, .C = C, .dtype = dtype, .inv_temperature = inv_temperature, .softcap = s->M % 2 ? 1.5f : 0};
    void *x = input_act("x", s->M * C + pairs, dtype, r, hostile ? HOSTILE : PLAIN);
    if (pairs) ((bf16 *)x)[s->M * C] = 0;
    a.x = x;
    a.w = weights("packed w", input("w", s->V * C, r, PLAIN), s->V, C, dtype, false);
    a.max = work_area("max", (size_t)s->M * 4), a.log_sum = work_area("log_sum", (size_t)s->M * 4);
    a.stats = work_area("stats", (size_t)(s->M * vocab_padded(s->V) / VOCAB_BLOCK) * sizeof *a.stats);
    reference_device->head(reference_device, &a);
    return a;
}
// Logits of both sides differ from the twin's by 2e-5 at most, in a sum whose weights add up to 1.
static DistillGradArgs distill_args(Random *r, const Shape *s, Dtype dtype, bool hostile, float beta) {
    DistillGradArgs g = {.ld = vocab_padded(s->V) + (s->M % 2) * VOCAB_BLOCK};
    DistillArgs *a = &g.forward;
    float *inv_temperature = guarded("inv_temperature", (size_t)s->M * 4);
    for (int64_t m = 0; m < s->M; m++) inv_temperature[m] = m % 3 ? 1.0f : 0.5f + 2 * (float)random_double(r);
    a->beta = beta;
    a->student = side(r, s, s->student, dtype, hostile, inv_temperature);
    a->teacher = side(r, s, s->teacher, dtype, false, inv_temperature);
    tolerate(a->divergence = output("divergence", s->M, KIND_F32), 4e-5, 4e-6);
    tolerate(a->centre = output("centre", s->M, KIND_F32), 4e-5, 4e-6);
    g.weight = input("weight", s->M, r, PLAIN);
    g.dlogits = work_area("dlogits", (size_t)(s->M * g.ld) * dtype_size(dtype));
    return g;
}
#define CASE_FORMAT "M %d V %d widths %d %d %s beta %g%s"
#define CASE_VALUES(s) (int)(s)->M, (int)(s)->V, (int)(s)->student, (int)(s)->teacher, dtype_name(dtype), (double)beta, hostile ? " hostile" : ""

static void distill_values(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 16; k++) {
            const Shape *s = &shapes[i];
            bool hostile = k / 8 && !(k % 2 && s->student % 2);
            if ((k + i) % (s->M * s->V > 5000 ? 5 : 2)) continue;
            Dtype dtype = (Dtype)(k % 2);
            float beta = betas[k / 2 % 4];
            if (cuda_spared()) continue;
            cuda_case();
            DistillGradArgs g = distill_args(&r, s, dtype, hostile, beta);
            COMPARE_CUDA(distill, &g.forward, CASE_FORMAT, CASE_VALUES(s));
            // Now that divergence and centre are there: slopes are below about 10, bf16 has 8 bits.
            void *dlogits = output("dlogits", s->M * g.ld, kind_of(dtype));
            tolerate(dlogits, 2e-4, dtype == DTYPE_BF16 ? 0x1p-7 : 1e-4);
            g.dlogits = dlogits;
            COMPARE_CUDA(distill_grad, &g, CASE_FORMAT, CASE_VALUES(s));
        }
}

static void rows_are_alone(void) {
    enum { ROWS = 40 };
    static const int64_t parts[][2] = {{39, 1}, {3, 33}};
    static const Shape all = {ROWS, 270, 40, 264};
    const Shape *s = &all;
    Random r = random_start(2, STREAM_TEST, 0);
    for (int k = 0; k < 2; k++) {
        cuda_case();
        Dtype dtype = (Dtype)k;
        float beta = k ? 0.5f : 1;
        bool hostile = false;
        size_t entry = dtype_size(dtype), row_bytes;
        DistillGradArgs g = distill_args(&r, s, dtype, hostile, beta);
        row_bytes = (size_t)g.ld * entry;
        ON_CUDA(distill, &g.forward, CASE_FORMAT, CASE_VALUES(s));
        ON_CUDA(distill_grad, &g, CASE_FORMAT, CASE_VALUES(s));
        float *divergence = work_area("all divergences", ROWS * 4), *centre = work_area("all centres", ROWS * 4);
        unsigned char *dlogits = work_area("all dlogits", ROWS * row_bytes);
        memcpy(divergence, g.forward.divergence, ROWS * 4), memcpy(centre, g.forward.centre, ROWS * 4);
        memcpy(dlogits, g.dlogits, ROWS * row_bytes);
        for (int i = 0; i < LENGTH(parts); i++) {
            int64_t m = parts[i][0], rows = parts[i][1];
            DistillGradArgs part = g;
            HeadArgs *const sides[] = {&part.forward.student, &part.forward.teacher};
            for (int j = 0; j < 2; j++) {
                HeadArgs *a = sides[j];
                a->M = rows, a->x = (const char *)a->x + (size_t)(m * a->C) * entry, a->inv_temperature += m, a->max += m, a->log_sum += m;
            }
            part.weight += m;
            ON_CUDA(distill, &part.forward, "%d rows from %d, %s", (int)rows, (int)m, dtype_name(dtype));
            same_bits(part.forward.divergence, divergence + m, rows, KIND_F32, "divergence");
            same_bits(part.forward.centre, centre + m, rows, KIND_F32, "centre");
            ON_CUDA(distill_grad, &part, "%d rows from %d, %s", (int)rows, (int)m, dtype_name(dtype));
            same_bits(part.dlogits, dlogits + (size_t)m * row_bytes, rows * g.ld, kind_of(dtype), "dlogits");
        }
    }
}

static void nothing_to_do(void) {
    cuda_open();
    Err err = {0};
    DistillGradArgs g = {0};
    cuda_device->distill(cuda_device, &g.forward);
    cuda_device->distill_grad(cuda_device, &g);
    OK(cuda_device->finish(cuda_device, &err));
}

static const Test tests[] = {
    {"distill values", distill_values},
    {"rows are alone", rows_are_alone},
    {"nothing to do", nothing_to_do},
};
CUDA_TEST_MAIN(tests)
