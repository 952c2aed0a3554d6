// What head.c and distill.c share: the logits of a tile of rows and one block of the vocabulary, and the slopes of their cap.
#ifndef RECKON_HEAD_TILE_H
#define RECKON_HEAD_TILE_H
#include "simd.h"
#include "int8.h"
#include "../blocks.h"

enum { TILE = 96 }; // rows whose block of logits (96 KiB) stays in L2

INLINE int64_t blocks_of(int64_t V) { return (V + VOCAB_BLOCK - 1) / VOCAB_BLOCK; }

// logits[r][256] of rows [m0, m0 + rows) and one block, scaled; columns outside the vocabulary or the kept set are -inf. They are
// made in `tile`, [rows][256], and scaled on their way to `out`, which may be the tile: rows of logits lie so that twelve of them
// at once would meet in a few sets of the cache.
INLINE void block_logits(const Team *team, const HeadArgs *a, int64_t block, int64_t m0, int64_t rows, float *tile, float *out, int64_t ld) {
    Team alone = {.thread = 0, .count = 1};
    bool bytes = a->format == WEIGHT_INT8, blocks = a->format != WEIGHT_PACKED && !bytes;
    int64_t v0 = block * VOCAB_BLOCK, columns = a->V - v0 < VOCAB_BLOCK ? a->V - v0 : VOCAB_BLOCK;
    size_t size = dtype_size(a->dtype);
    MatmulArgs product = {.M = rows, .N = columns, .K = a->C, .dtype = a->dtype, .ldx = a->C,
                          .x = (const char *)a->x + (size_t)(m0 * a->C) * size,
                          .format = a->format, .store = STORE_F32, .y = tile, .ldy = VOCAB_BLOCK};
    size_t panel = (size_t)panel_elements(a->C, a->dtype) * size;
    product.w = (const char *)a->w + (blocks ? (size_t)(v0 * blocks_row_bytes(a->format, a->C)) : (size_t)(v0 / PANEL) * panel);
    if (blocks) product.scratch = (char *)a->blocks + (size_t)team->thread * panel;
    if (bytes) { // `head` has made the rows
        product.w = (const char *)a->w + v0 / PANEL * int8_panel_bytes(a->C);
        product.scratch = (char *)a->blocks + m0 * int8_row_bytes(a->C);
        V(int8_product)(&alone, &product);
    } else {
        V(matmul)(&alone, &product);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *row = tile + r * VOCAB_BLOCK, *to = out + r * ld;
        v16 scale = v_set1(a->inv_temperature[m0 + r]);
        for (int64_t c = columns; c < VOCAB_BLOCK; c++) row[c] = MINUS_INFINITY;
        if (a->softcap != 0) {
            v16 cap = v_set1(a->softcap);
            for (int c = 0; c < VOCAB_BLOCK; c += 16) v_store(row + c, v_mul(cap, v_tanh(v_div(v_load(row + c), cap))));
            for (int64_t c = columns; c < VOCAB_BLOCK; c++) row[c] = MINUS_INFINITY;
        }
        for (int c = 0; c < VOCAB_BLOCK; c += 16) v_store(to + c, v_mul(v_load(row + c), scale));
        // A negative scale is refused upstream, so -inf stays -inf.
    }
}

// The slope of the cap, 1 - tanh^2, of capped and scaled logits; 0 where there is no logit.
INLINE void cap_slopes(const HeadArgs *a, int64_t m, const float *row, float *slopes) {
    v16 range = v_set1(a->softcap * a->inv_temperature[m]);
    for (int c = 0; c < VOCAB_BLOCK; c += 16) {
        v16 l = v_load(row + c), capped = v_div(l, range);
        v16 slope = v_fma(v_sub(v_zero(), capped), capped, v_set1(1.0f));
        v_store(slopes + c, v_if_less(v_set1(MINUS_INFINITY), l, slope, v_if_nan(l, l, v_zero())));
    }
}

#endif
