// The slow twin of products in 8 bits: runs of 64 numbers with a scale each, whole parts multiplied and summed exactly (ops.h).
#include "reference.h"

// A run of `count` numbers in 8 bits; returns its scale.
static float int8_run(const void *x, int64_t at, int64_t count, float factor, Dtype d, int8_t q[INT8_GROUP]) {
    float values[INT8_GROUP], largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        values[i] = factor == 1 ? get(x, at + i, d) : get(x, at + i, d) * factor;
        finite &= isfinite(values[i]);
        if (fabsf(values[i]) > largest) largest = fabsf(values[i]);
    }
    for (int64_t i = 0; i < INT8_GROUP; i++) q[i] = finite && i < count && largest >= 1e-30f ? (int8_t)rintf(values[i] * (127.0f / largest)) : 0;
    return !finite ? NAN : largest < 1e-30f ? 0 : largest / 127.0f;
}
// Bytes: where scale and q of element (n, k) lie.
static int64_t int8_scale_at(int64_t n, int64_t k, int64_t K) { return n / PANEL * int8_panel_bytes(K) + (k / INT8_GROUP * PANEL + n % PANEL) * 4; }
static int64_t int8_at(int64_t n, int64_t k, int64_t K) {
    return n / PANEL * int8_panel_bytes(K) + int8_runs(K) * PANEL * 4 + k / 4 * PANEL * 4 + n % PANEL * 4 + k % 4;
}
void int8_pack_reference(const PackArgs *a) {
    uint8_t *out = a->int8;
    int8_t q[INT8_GROUP];
    memset(out, 0, int8_bytes(a->N, a->K));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k += INT8_GROUP) {
            int64_t count = a->K - k < INT8_GROUP ? a->K - k : INT8_GROUP;
            float scale = int8_run(a->w, n * a->K + k, count, a->scale == 0 ? 1 : a->scale, DTYPE_F32, q);
            memcpy(out + int8_scale_at(n, k, a->K), &scale, 4);
            for (int64_t i = 0; i < count; i++) out[int8_at(n, k + i, a->K)] = (uint8_t)(q[i] + 128);
        }
}
float int8_product_reference(const void *x, int64_t at, const void *w, int64_t n, int64_t K, Dtype d) {
    const uint8_t *bytes = w;
    float sum = 0, of_w;
    int8_t q[INT8_GROUP];
    for (int64_t k = 0; k < K; k += INT8_GROUP) {
        int64_t count = K - k < INT8_GROUP ? K - k : INT8_GROUP;
        float of_x = int8_run(x, at + k, count, 1, d, q);
        int32_t whole = 0;
        for (int64_t i = 0; i < count; i++) whole += (bytes[int8_at(n, k + i, K)] - 128) * q[i];
        memcpy(&of_w, bytes + int8_scale_at(n, k, K), 4);
        sum = fmaf((float)whole * of_w, of_x, sum);
    }
    return sum;
}
