// AdamW and the gradient's sum of squares. Elementwise in plain C (no contraction), so every variant has the same bits.
#include "simd.h"

void V(adamw)(const Team *team, const AdamwArgs *a) {
    int64_t from, to;
    float decay = 1.0f - a->learning_rate * a->weight_decay, rate = a->learning_rate / a->correction1;
    float root = sqrtf(a->correction2), keep1 = 1.0f - a->beta1, keep2 = 1.0f - a->beta2;
    float *restrict w = a->w, *restrict m = a->m, *restrict v = a->v;
    const float *restrict first = a->gradient, *restrict second = a->gradient2;
    team_share(team, a->count, 1024, &from, &to);
    for (int64_t i = from; i < to; i++) {
        float g = (second ? first[i] + second[i] : first[i]) * a->scale;
        m[i] = a->beta1 * m[i] + keep1 * g;
        v[i] = a->beta2 * v[i] + keep2 * g * g;
        w[i] = w[i] * decay - rate * m[i] / (sqrtf(v[i]) / root + a->eps);
    }
}

void V(square_sum)(const Team *team, const SquareSumArgs *a) {
    int64_t from, to, blocks = (a->count + NORM_BLOCK - 1) / NORM_BLOCK;
    team_share(team, blocks, 1, &from, &to);
    for (int64_t b = from; b < to; b++) {
        double lanes[16] = {0};
        int64_t end = (b + 1) * NORM_BLOCK < a->count ? (b + 1) * NORM_BLOCK : a->count;
        for (int64_t i = b * NORM_BLOCK; i < end; i++) {
            double x = a->b ? a->a[i] + a->b[i] : a->a[i];
            lanes[i % 16] += x * x;
        }
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
        a->partial[b] = lanes[0];
    }
}
