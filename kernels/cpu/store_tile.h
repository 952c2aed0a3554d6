// What matmul.c and int8.c share: the threads' shares of a product, and a tile of sums on its way to y, with the bias, rounded or added.
#ifndef RECKON_STORE_TILE_H
#define RECKON_STORE_TILE_H
#include "simd.h"

// What is this thread's of M rows and of panels. Few rows: threads share the panels, so that each weight is read once. Many rows: they
// share the rows, in tiles of `tile`.
typedef struct ProductShare {
    int64_t m_from, m_to, p_from, p_to;
} ProductShare;
static inline ProductShare share_product(const Team *team, int64_t M, int64_t panels, int tile) {
    ProductShare s = {.m_to = M, .p_to = panels};
    if (M >= 8 * (int64_t)tile * team->count) team_share(team, M, tile, &s.m_from, &s.m_to);
    else team_share(team, panels, 1, &s.p_from, &s.p_to);
    return s;
}

static inline void store_tile(const MatmulArgs *a, const float *acc, int64_t m0, int rows, int64_t n0, bool half) {
    int64_t columns = a->N - n0 < PANEL ? a->N - n0 : PANEL;
    for (int r = 0; r < rows; r++) {
        int64_t base = (m0 + r) * a->ldy + n0;
        for (int64_t c = 0, n; c < columns; c += 16) {
            n = columns - c < 16 ? columns - c : 16;
            v16 value = v_load(acc + r * PANEL + c);
            if (a->bias) value = v_add(value, lanes_load(a->bias, n0 + c, n, false));
            if (a->store == ADD_F32) value = v_add(lanes_load(a->y, base + c, n, false), value);
            lanes_store(a->y, base + c, value, n, half && a->store == STORE_ACT);
        }
    }
}

#endif
