// AdamW and the gradient's sum of squares. Each number by itself, with operations that are rounded exactly and in the order that
// the reference has, so every variant has the same bits.
#include "simd.h"

void V(adamw)(const Team *team, const AdamwArgs *a) {
    int64_t from, to;
    v16 decay = v_set1(1.0f - a->learning_rate * a->weight_decay), rate = v_set1(a->learning_rate / a->correction1);
    v16 root = v_set1(sqrtf(a->correction2)), eps = v_set1(a->eps), scale = v_set1(a->scale);
    v16 beta1 = v_set1(a->beta1), keep1 = v_set1(1.0f - a->beta1), beta2 = v_set1(a->beta2), keep2 = v_set1(1.0f - a->beta2);
    team_share(team, a->count, 1024, &from, &to);
    for (int64_t i = from, n; i < to; i += 16) {
        n = to - i < 16 ? to - i : 16;
        v16 g = lanes_load(a->gradient, i, n, false);
        if (a->gradient2) g = v_add(g, lanes_load(a->gradient2, i, n, false));
        g = v_mul(g, scale);
        v16 m = v_add(v_mul(beta1, lanes_load(a->m, i, n, false)), v_mul(keep1, g));
        v16 v = v_add(v_mul(beta2, lanes_load(a->v, i, n, false)), v_mul(v_mul(keep2, g), g));
        v16 step = v_div(v_mul(rate, m), v_add(v_div(v_sqrt(v), root), eps));
        lanes_store(a->m, i, m, n, false);
        lanes_store(a->v, i, v, n, false);
        lanes_store(a->w, i, v_sub(v_mul(lanes_load(a->w, i, n, false), decay), step), n, false);
    }
}

void V(square_sum)(const Team *team, const SquareSumArgs *a) {
    int64_t from, to, blocks = norm_blocks(a->count);
    team_share(team, blocks, 1, &from, &to);
    for (int64_t b = from; b < to; b++) {
        double lanes[16] = {0};
        int64_t end = (b + 1) * NORM_BLOCK < a->count ? (b + 1) * NORM_BLOCK : a->count;
        for (int64_t i = b * NORM_BLOCK, n; i < end; i += 16) {
            float x[16];
            n = end - i < 16 ? end - i : 16;
            v16 sum = lanes_load(a->a, i, n, false);
            if (a->b) sum = v_add(sum, lanes_load(a->b, i, n, false));
            v_store(x, sum);
            for (int lane = 0; lane < 16; lane++) lanes[lane] += (double)x[lane] * (double)x[lane]; // + 0 behind the end
        }
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
        a->partial[b] = lanes[0];
    }
}
