// What the slow twins share: stored values, the chain of products, the tree of sums, and exp.
#ifndef RECKON_REFERENCE_H
#define RECKON_REFERENCE_H
#include "ops.h"
#include "threads.h"
#include <math.h>
#include <string.h>

#define PROTOTYPE(name, Args) void name##_reference(const Team *team, const Args *args);
RECKON_OPERATIONS(PROTOTYPE)

// Logit v of row m (reference.c).
float logit_reference(const HeadArgs *a, int64_t m, int64_t v);
// In 8 bits (reference_int8.c): a matrix, and the product of its row n with x from `at` on.
void int8_pack_reference(const PackArgs *a);
float int8_product_reference(const void *x, int64_t at, const void *w, int64_t n, int64_t K, Dtype d);

#define ONLY_FIRST if (team->thread != 0) return;

static inline float widen(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline bf16 narrow(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return f != f ? 0x7fc0 : (bf16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
static inline float get(const void *p, int64_t i, Dtype d) { return d == DTYPE_BF16 ? widen(((const bf16 *)p)[i]) : ((const float *)p)[i]; }
static inline void put(void *p, int64_t i, float x, Dtype d) {
    if (d == DTYPE_BF16)
        ((bf16 *)p)[i] = narrow(x);
    else
        ((float *)p)[i] = x;
}
static inline int64_t packed_index(int64_t n, int64_t k, int64_t K, Dtype d) {
    int step = d == DTYPE_BF16 ? 2 : 1;
    return n / PANEL * panel_elements(K, d) + (k / step * PANEL + n % PANEL) * step + k % step;
}
// sum_k x[k] w[k] by the order of the table: bf16 takes the odd member of a pair first.
static inline float chain(float sum, float x0, float w0, float x1, float w1) { return fmaf(x0, w0, fmaf(x1, w1, sum)); }

static inline float tree_sum(const float *lanes) {
    float x[16];
    memcpy(x, lanes, sizeof x);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) x[i] += x[i + width];
    return x[0];
}

static inline float exp_reference(float x) {
    if (x != x) return x;
    if (x < -87.336544f) return 0.0f;
    float y = x < 88.3762626647949f ? x : 88.3762626647949f;
    float shifted = fmaf(y, 1.44269504088896341f, 12582912.0f), n = shifted - 12582912.0f;
    float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, y));
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}
static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_reference(0.0f - x)); }

#endif
