// AdamW on a CUDA device to the bit, and the sum of squares, whose order is another one but in double precision: a relative
// 1e-13. Neither depends on where an array begins or on what else is in it.
#include "cuda_test.h"

static AdamwArgs settings(double step) {
    AdamwArgs a = {.scale = 0.7f, .learning_rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
    a.correction1 = (float)(1 - pow((double)a.beta1, step));
    a.correction2 = (float)(1 - pow((double)a.beta2, step));
    return a;
}

static void adamw_bits(void) {
    static const int64_t counts[] = {1, 3, 4, 17, 1000, 1023, 1025, 5000};
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(counts); i++)
        for (int k = 0; k < 6; k++) {
            cuda_case();
            Temper temper = (Temper)(k % 3);
            AdamwArgs a = settings(i + 1);
            a.count = counts[i];
            a.gradient = input("gradient", a.count, &r, temper);
            if (k / 3) a.gradient2 = input("gradient2", a.count, &r, temper);
            float **state[] = {&a.w, &a.m, &a.v};
            for (int s = 0; s < 3; s++) {
                float *p = *state[s] = output(s == 0 ? "w" : s == 1 ? "m" : "v", a.count, KIND_F32);
                for (int64_t c = 0; c < a.count; c++) p[c] = s < 2 ? any_float(&r, temper) : fabsf(any_float(&r, temper));
            }
            if (i % 2 && a.count > 1) a.w++, a.m++, a.v++, a.gradient++, a.gradient2 += k / 3, a.count--; // off any boundary
            COMPARE_CUDA(adamw, &a, "count %d %s gradients %d", (int)a.count, temper_name(temper), k / 3 + 1);
        }
}

static void square_sum_near(void) {
    static const int64_t counts[] = {1, 5, 100, 1027, 65535, 65536, 65537, 140000};
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(counts); i++)
        for (int k = 0; k < 6; k++) {
            if (counts[i] > 2000 && k % 3 != i % 3) continue;
            cuda_case();
            SquareSumArgs a = {.count = counts[i], .a = input("a", counts[i], &r, (Temper)(k % 3))};
            if (k / 3) a.b = input("b", counts[i], &r, (Temper)(k % 3));
            tolerate(a.partial = output("partial", norm_blocks(a.count), KIND_F64), 0, 1e-13);
            COMPARE_CUDA(square_sum, &a, "count %d %s arrays %d", (int)a.count, temper_name((Temper)(k % 3)), k / 3 + 1);
        }
}

// A block's sum is the same alone, among others, and wherever in memory it lies.
static void square_sum_of_blocks(void) {
    enum { COUNT = 2 * NORM_BLOCK + 77 };
    Random r = random_start(3, STREAM_TEST, 0);
    double whole[3];
    cuda_case();
    float *values = output("values", COUNT + 1, KIND_F32);
    mirror_of(values)->role = ROLE_WORK;
    for (int i = 0; i < COUNT + 1; i++) values[i] = any_float(&r, PLAIN);
    SquareSumArgs a = {.count = COUNT, .a = values, .partial = output("partial", 3, KIND_F64)};
    ON_CUDA(square_sum, &a, "three blocks");
    memcpy(whole, a.partial, sizeof whole);
    SquareSumArgs last = a;
    last.a += 2 * NORM_BLOCK, last.count = 77;
    ON_CUDA(square_sum, &last, "the last block");
    same_bits(a.partial, &whole[2], 1, KIND_F64, "among three");
    memmove(values + 1, values, COUNT * sizeof *values);
    a.a = values + 1;
    ON_CUDA(square_sum, &a, "off any boundary");
    same_bits(a.partial, whole, 3, KIND_F64, "where it was before");
}

static void nothing_to_do(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    cuda_case();
    AdamwArgs a = settings(1);
    a.gradient = input("gradient", 4, &r, PLAIN);
    float *state = output("state", 4, KIND_F32);
    memset(state, 0, 16);
    a.w = a.m = a.v = state;
    COMPARE_CUDA(adamw, &a, "no numbers");
    double *partial = output("partial", 1, KIND_F64);
    *partial = 3;
    COMPARE_CUDA(square_sum, (&(SquareSumArgs){.a = a.gradient, .partial = partial}), "no numbers");
}

static const Test tests[] = {
    {"cuda adamw bits", adamw_bits},
    {"cuda square sum", square_sum_near},
    {"cuda square sum of blocks", square_sum_of_blocks},
    {"cuda optimizer nothing to do", nothing_to_do},
};
CUDA_TEST_MAIN(tests)
