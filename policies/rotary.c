// The table of rotary positions (Su et al. 2021): cosines and sines in double, rounded once.
#include "model.h"
#include <stdlib.h>

bool rope_reserve(Policy *p, int64_t positions, Err *err) {
    int64_t D = p->config.head_width;
    if (positions <= p->cos_sin_positions) return true;
    positions = (positions + 511) / 512 * 512;
    RESERVE(p->cos_sin, positions * D * 4);
    float *table = xmalloc((size_t)(positions * D) * sizeof *table);
    for (int64_t i = 0; i < D / 2; i++) {
        double frequency = 1.0 / exact_pow(p->config.rope[0].theta, 2.0 * (double)i / (double)D);
        for (int64_t position = 0; position < positions; position++) {
            table[position * D + i] = (float)exact_cos((double)position * frequency);
            table[position * D + D / 2 + i] = (float)exact_sin((double)position * frequency);
        }
    }
    p->device->upload(p->device, p->cos_sin, table, (size_t)(positions * D) * sizeof *table);
    free(table);
    p->cos_sin_positions = positions;
    return true;
}
