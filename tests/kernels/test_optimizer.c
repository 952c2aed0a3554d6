// AdamW and the sum of squares: the bits of every variant, and AdamW with clipping by the global norm against the steps
// that PyTorch took (tests/data/rl/adamw.json, float64).
#include "ops_test.h"
#include "json.h"

// 1 - beta^step of the beta that the operation has: 1 - 0.999f is 0.0010000467, so the correction of 0.999 would leave
// an error of 2e-5 in every step; with its own, the weights of m and v add up to 1.
static float correction(float beta, size_t step) { return (float)(1 - pow((double)beta, (double)step)); }

static AdamwArgs settings(size_t step) {
    AdamwArgs a = {.scale = 0.7f, .learning_rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
    a.correction1 = correction(0.9f, step);
    a.correction2 = correction(0.999f, step);
    return a;
}

static void adamw_bits(void) {
    static const int64_t counts[] = {1, 15, 16, 17, 1000, 1024, 1025, 5000};
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(counts); i++)
        for (int k = 0; k < 6; k++) {
            blocks_free();
            Temper temper = (Temper)(k % 3);
            AdamwArgs a = settings((size_t)i + 1);
            a.count = counts[i];
            a.gradient = input("gradient", a.count, &r, temper);
            if (k / 3) a.gradient2 = input("gradient2", a.count, &r, temper);
            float **state[] = {&a.w, &a.m, &a.v};
            for (int s = 0; s < 3; s++) {
                float *p = *state[s] = output(s == 0 ? "w" : s == 1 ? "m" : "v", a.count, KIND_F32);
                for (int64_t c = 0; c < a.count; c++) p[c] = s < 2 ? any_float(&r, temper) : fabsf(any_float(&r, temper));
            }
            COMPARE(adamw, &a, "count %d %s gradients %d", (int)a.count, temper_name(temper), k / 3 + 1);
        }
}

static void square_sum_bits(void) {
    static const int64_t counts[] = {1, 15, 17, 100, 65535, 65536, 65537, 200000};
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(counts); i++)
        for (int k = 0; k < 6; k++) {
            if (counts[i] > 1000 && k % 3 != i % 3) continue;
            blocks_free();
            SquareSumArgs a = {.count = counts[i], .a = input("a", counts[i], &r, (Temper)(k % 3))};
            if (k / 3) a.b = input("b", counts[i], &r, (Temper)(k % 3));
            a.partial = output("partial", norm_blocks(a.count), KIND_F64);
            COMPARE(square_sum, &a, "count %d %s arrays %d", (int)a.count, temper_name((Temper)(k % 3)), k / 3 + 1);
        }
}

static void square_sum_is_the_sum(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    enum { COUNT = 70000 };
    blocks_free();
    devices_open();
    double want = 0, partial[2];
    SquareSumArgs args = {.count = COUNT, .a = input("a", COUNT, &r, PLAIN), .b = input("b", COUNT, &r, PLAIN), .partial = partial};
    for (int i = 0; i < COUNT; i++) want += (double)(args.a[i] + args.b[i]) * (double)(args.a[i] + args.b[i]);
    for (int d = 0; d < device_count; d++) {
        test_devices[d]->square_sum(test_devices[d], &args);
        CHECK_NEAR(partial[0] + partial[1], want, 1e-9 * want);
    }
}

// ---- against PyTorch -------------------------------------------------------------------------------------
enum { MOST = 64, TENSORS = 3 };
typedef struct Flat { // the tensors of a case, one behind the other
    double value[MOST];
    int count;
} Flat;
static void flatten(const json_t *j, Flat *out) {
    size_t i;
    json_t *item;
    if (json_is_number(j)) {
        CHECK(out->count < MOST);
        out->value[out->count++] = json_number_value(j);
    }
    json_array_foreach(j, i, item) flatten(item, out);
}
static Flat flat(const json_t *j) {
    Flat f = {0};
    flatten(j, &f);
    return f;
}

// fp32 masters against float64 ones: rounding of w, m, v to fp32 at each of 20 steps, relative to the parameters.
static void check_close(const char *name, const char *what, const float *got, Flat want, double tolerance) {
    double largest = 0;
    for (int i = 0; i < want.count; i++) largest = fmax(largest, fabs(want.value[i]));
    for (int i = 0; i < want.count; i++)
        if (!(fabs((double)got[i] - want.value[i]) <= tolerance * largest))
            FAIL("%s: %s[%d]: got %.9g, PyTorch has %.9g", name, what, i, (double)got[i], want.value[i]);
}

static void run_case(const Device *d, const json_t *c) {
    const json_t *config = json_object_get(c, "config"), *inputs = json_object_get(c, "inputs"), *want = json_object_get(c, "expected");
    const json_t *betas = json_object_get(config, "betas"), *clip = json_object_get(config, "max_grad_norm");
    const char *name = json_string_value(json_object_get(c, "name"));
    double beta1 = json_number_value(json_array_get(betas, 0)), beta2 = json_number_value(json_array_get(betas, 1));
    Flat start = flat(json_object_get(inputs, "params")), norms = flat(json_object_get(want, "grad_norms"));
    Flat rates = flat(json_object_get(want, "lr")), plain = flat(json_object_get(config, "no_decay"));
    float w[MOST], m[MOST] = {0}, v[MOST] = {0}, gradient[MOST];
    int first[TENSORS + 1] = {0};
    for (int i = 0; i < TENSORS; i++) first[i + 1] = first[i] + flat(json_array_get(json_object_get(inputs, "params"), (size_t)i)).count;
    CHECK_INT(first[TENSORS], start.count);
    for (int i = 0; i < start.count; i++) w[i] = (float)start.value[i];
    size_t steps = json_array_size(json_object_get(inputs, "grads"));
    for (size_t step = 1; step <= steps; step++) {
        Flat g = flat(json_array_get(json_object_get(inputs, "grads"), step - 1));
        for (int i = 0; i < g.count; i++) gradient[i] = (float)g.value[i];
        double square;
        d->square_sum(d, &(SquareSumArgs){.count = g.count, .a = gradient, .partial = &square});
        double norm = sqrt(square), scale = 1;
        CHECK_NEAR(norm, norms.value[step - 1], 1e-6 * norms.value[step - 1]);
        if (json_is_number(clip)) scale = fmin(1, json_number_value(clip) / (norm + json_number_value(json_object_get(config, "clip_eps"))));
        for (int i = 0; i < TENSORS; i++) {
            bool decays = true;
            for (int k = 0; k < plain.count; k++) decays &= (int)plain.value[k] != i;
            AdamwArgs a = {.count = first[i + 1] - first[i], .w = w + first[i], .m = m + first[i], .v = v + first[i], .gradient = gradient + first[i],
                           .scale = (float)scale, .learning_rate = (float)rates.value[step - 1], .beta1 = (float)beta1, .beta2 = (float)beta2,
                           .eps = (float)json_number_value(json_object_get(config, "eps")),
                           .weight_decay = decays ? (float)json_number_value(json_object_get(config, "weight_decay")) : 0,
                           .correction1 = correction((float)beta1, step), .correction2 = correction((float)beta2, step)};
            d->adamw(d, &a);
        }
        char number[8];
        snprintf(number, sizeof number, "%zu", step);
        const json_t *after = json_object_get(json_object_get(want, "params_after_step"), number);
        if (after) check_close(name, "parameter", w, flat(after), 2e-6);
    }
    check_close(name, "exp_avg", m, flat(json_object_get(want, "exp_avg")), 2e-6);
    check_close(name, "exp_avg_sq", v, flat(json_object_get(want, "exp_avg_sq")), 1e-4); // 1 - 0.999f is off by 5e-5
}

static void adamw_as_pytorch(void) {
    Err err = {0};
    json_t *file, *c;
    size_t i;
    devices_open();
    OK(json_read_file(TEST_DATA "/rl/adamw.json", 1 << 20, &file, &err));
    json_t *cases = json_object_get(file, "cases");
    CHECK(json_array_size(cases) >= 10);
    json_array_foreach(cases, i, c)
        for (int d = 0; d < device_count; d++) run_case(test_devices[d], c);
    json_decref(file);
}

static const Test tests[] = {
    {"optimizer variants of this processor", variants},
    {"adamw bits", adamw_bits},
    {"square sum bits", square_sum_bits},
    {"square sum is the sum", square_sum_is_the_sum},
    {"adamw as PyTorch", adamw_as_pytorch},
};
OPS_TEST_MAIN(tests)
