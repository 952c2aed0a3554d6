// Packing and matrix products. One micro-kernel serves forward, input gradient and weight gradient: a tile of MR rows
// times one panel of 32 columns (or half of it), each output one chain of fused multiply-adds over the reduced index.
// A step of the chain is four bytes of either operand: one fp32 value, or a pair of bf16.
//
// Zen 4 retires one 512-bit vdpbf16ps a cycle with latency 6: 24 accumulators (12 rows x 2 registers) hide it, one
// panel load feeds 12 products, and the panel (K * 64 bytes) stays in L2 while the row tiles pass over it. The next
// panel is prefetched meanwhile: in decoding, the first pass over a panel would otherwise run at memory's speed.
#include "simd.h"
#include "int8.h"
#include "panel.h"
#include "store_tile.h"

#if defined(__AVX512F__)
enum { MR = 12, HALVES = 2 }; // registers of 16 columns taken at once
#else
enum { MR = 6, HALVES = 1 };
#endif

typedef struct Tile {
    const char *x;          // first row of the tile
    int64_t row_stride;     // bytes between rows
    int64_t step_stride;    // bytes between steps of one row
    const char *panel;      // [steps][32] of 4 bytes
    int64_t steps;
    const char *prefetch;   // one line a step from here, or NULL
    const float *start;     // [rows, start_stride] what the sums begin with, or NULL: zero
    int64_t start_stride;
    Store store;
    void *y;                // [rows, ldy]; may be `start` where the sums are stored as fp32
    int64_t ldy;
} Tile;

// The end of a tile: as store_tile, but from the registers.
INLINE void put_sums(const Tile *t, v16 (*acc)[HALVES], int column, int rows, Store store, bool half) {
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; h++) {
            int64_t at = r * t->ldy + (column + h) * 16;
            v16 sum = store == ADD_F32 ? v_add(v_load((const float *)t->y + at), acc[r][h]) : acc[r][h];
            act_store_result(t->y, at, sum, half && store == STORE_ACT);
        }
}

INLINE void tile_rows(const Tile *t, int rows, bool half) {
    for (int column = 0; column < PANEL / 16; column += HALVES) {
        v16 acc[MR][HALVES];
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; h++)
                acc[r][h] = t->start ? v_load(t->start + r * t->start_stride + (column + h) * 16) : v_zero();
        // A pointer for three rows: with one each, gcc kept some in vector registers, and the loop took 8 % longer.
        const int64_t row_stride = t->row_stride, step_stride = t->step_stride, line = half && t->store == STORE_ACT ? 2 : 4;
        for (int r = 0; r < rows; r++) // what is written comes to this core meanwhile
            for (int h = 0; h < HALVES; h += line == 2 ? HALVES : 1) __builtin_prefetch((char *)t->y + (r * t->ldy + (column + h) * 16) * line, 1, 3);
        const char *w = t->panel + column * 64, *ahead = t->prefetch ? t->prefetch : w, *x[MR / 3];
#pragma GCC unroll 4
        for (int i = 0; i < MR / 3; i++) x[i] = t->x + 3 * i * row_stride;
        for (int64_t s = 0; s < t->steps; s++) {
            i16 w0 = i_load(w), w1 = HALVES == 2 ? i_load(w + 64) : w0;
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) {
                int32_t value = load_step(x[r / 3] + r % 3 * row_stride);
                acc[r][0] = dot_step(acc[r][0], w0, value, half);
                if (HALVES == 2) acc[r][HALVES - 1] = dot_step(acc[r][HALVES - 1], w1, value, half);
            }
            __builtin_prefetch(ahead, 0, 2);
            ahead += 64;
            w += PANEL * 4;
#pragma GCC unroll 4
            for (int i = 0; i < MR / 3; i++) x[i] += step_stride;
        }
        switch (t->store) {
        case STORE_ACT: put_sums(t, acc, column, rows, STORE_ACT, half); break;
        case STORE_F32: put_sums(t, acc, column, rows, STORE_F32, half); break;
        case ADD_F32: put_sums(t, acc, column, rows, ADD_F32, half); break;
        }
    }
}

#define TILE_CASE(n)                                                                                         \
    case n:                                                                                                  \
        if (half)                                                                                            \
            tile_rows(t, n, true);                                                                           \
        else                                                                                                 \
            tile_rows(t, n, false);                                                                          \
        return;
static void tile_run(const Tile *t, int rows, bool half) {
    switch (rows) {
        TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6)
#if defined(__AVX512F__)
        TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12)
#endif
    }
}

// ---- packing ---------------------------------------------------------------------------------------------
// Both packings go through a small block in L1, so that memory is read and written in runs.
enum { PACK_BLOCK = 64 }; // values of a row at a time

INLINE v16 scaled(v16 x, float scale) { return scale == 0 ? x : v_mul(x, v_set1(scale)); }

// Panel `panel` of w [N, K]: 32 rows side by side.
INLINE void pack_panel(const float *w, int64_t N, int64_t K, float scale, int64_t panel, void *out, bool half) {
    int64_t n0 = panel * PANEL, rows = N - n0 < PANEL ? N - n0 : PANEL, steps = half ? (K + 1) / 2 : K;
    int per_step = half ? 2 : 1;
    uint32_t *to = (uint32_t *)out + panel * steps * PANEL;
    uint32_t block[PANEL][PACK_BLOCK];
    memset(block, 0, sizeof block);
    for (int64_t k = 0; k < K; k += PACK_BLOCK) {
        int64_t count = K - k < PACK_BLOCK ? K - k : PACK_BLOCK, block_steps = (count + per_step - 1) / per_step;
        for (int64_t r = 0; r < rows; r++) {
            const float *row = w + (n0 + r) * K + k;
            if (half && count % 2) ((bf16 *)block[r])[count] = 0;
            for (int64_t c = 0, n; c < count; c += 16) {
                n = count - c < 16 ? count - c : 16;
                lanes_store(block[r], c, scaled(lanes_load(row, c, n, false), scale), n, half);
            }
        }
        int64_t s = 0;
        for (; s + 16 <= block_steps; s += 16)
            for (int r = 0; r < PANEL; r += 16) turn16(&block[r][s], PACK_BLOCK, to + s * PANEL + r, PANEL);
        for (; s < block_steps; s++)
            for (int r = 0; r < PANEL; r++) to[s * PANEL + r] = block[r][s];
        to += block_steps * PANEL;
    }
}

// Panel `panel` of the transpose of w [N, K]: 32 columns side by side, rows of w become steps.
INLINE void pack_transposed(const float *w, int64_t N, int64_t K, float scale, int64_t panel, void *out, bool half) {
    int64_t k0 = panel * PANEL, columns = K - k0 < PANEL ? K - k0 : PANEL, steps = half ? (N + 1) / 2 : N;
    uint32_t *to = (uint32_t *)out + panel * steps * PANEL;
    bf16 pair[2][PANEL] = {{0}};
    for (int64_t s = 0; s < steps; s++, to += PANEL) {
        if (!half) {
            memset(to, 0, PANEL * 4);
            for (int64_t c = 0, m; c < columns; c += 16) {
                m = columns - c < 16 ? columns - c : 16;
                lanes_store(to, c, scaled(lanes_load(w, s * K + k0 + c, m, false), scale), m, false);
            }
            continue;
        }
        for (int member = 0; member < 2; member++) {
            int64_t n = 2 * s + member;
            for (int64_t c = 0, m; c < columns && n < N; c += 16) {
                m = columns - c < 16 ? columns - c : 16;
                lanes_store(pair[member], c, scaled(lanes_load(w, n * K + k0 + c, m, false), scale), m, true);
            }
            if (n >= N) memset(pair[member], 0, sizeof pair[member]);
        }
        for (int c = 0; c < PANEL; c++) to[c] = (uint32_t)pair[0][c] | (uint32_t)pair[1][c] << 16;
    }
}

// Panels [from, to) of rows as a file has them.
static void pack_stored(const PackArgs *a, int64_t from, int64_t to) {
    MatmulArgs stored = {.N = a->N, .K = a->K, .w = a->rows, .format = a->format};
    int64_t words = panel_elements(a->K, a->dtype) * (int64_t)dtype_size(a->dtype) / 4;
    for (int64_t p = from; p < to; p++) decode_panel(&stored, p, (uint32_t *)a->packed + p * words, a->dtype == DTYPE_BF16);
}

void V(pack)(const Team *team, const PackArgs *a) {
    int64_t from, to;
    team_share(team, (a->N + PANEL - 1) / PANEL, 1, &from, &to);
    if (!a->w) {
        pack_stored(a, from, to);
        return;
    }
    for (int64_t p = from; a->packed && p < to; p++) {
        if (a->dtype == DTYPE_BF16)
            pack_panel(a->w, a->N, a->K, a->scale, p, a->packed, true);
        else
            pack_panel(a->w, a->N, a->K, a->scale, p, a->packed, false);
    }
    team_share(team, (a->K + PANEL - 1) / PANEL, 1, &from, &to);
    for (int64_t p = from; a->transposed && p < to; p++) {
        if (a->dtype == DTYPE_BF16)
            pack_transposed(a->w, a->N, a->K, a->scale, p, a->transposed, true);
        else
            pack_transposed(a->w, a->N, a->K, a->scale, p, a->transposed, false);
    }
    if (a->int8) V(int8_pack)(team, a);
}

void V(unpack)(const Team *team, const UnpackArgs *a) {
    bool half = a->dtype == DTYPE_BF16;
    int step = half ? 2 : 1;
    int64_t from, to, depth = packed_depth(a->K, a->dtype);
    team_share(team, a->N, PANEL, &from, &to);
    for (int64_t n = from; n < to; n++) {
        int64_t base = n / PANEL * depth * PANEL + n % PANEL * step;
        for (int64_t k = 0; k < a->K; k++) a->w[n * a->K + k] = act_get(a->packed, base + k / step * PANEL * step + k % step, half);
    }
}

// ---- y = x w^T -------------------------------------------------------------------------------------------
// Runs a tile of rows [m0, m0 + rows) of y and the panel that begins at column n0; where the panel is full and nothing else is
// added, its sums go from the registers to y.
static void tile_to(const MatmulArgs *a, Tile *t, int64_t m0, int rows, int64_t n0, bool half) {
    float sums[MR * PANEL];
    int64_t size = half && a->store == STORE_ACT ? 2 : 4;
    bool straight = !a->bias && a->N - n0 >= PANEL;
    t->store = straight ? a->store : STORE_F32;
    t->y = straight ? (char *)a->y + (m0 * a->ldy + n0) * size : (char *)sums;
    t->ldy = straight ? a->ldy : PANEL;
    tile_run(t, rows, half);
    if (!straight) store_tile(a, sums, m0, rows, n0, half);
}

// Product after product, without waiting for each other: their outputs lie apart. The threads take turns at being first, so
// that small products don't always fall to the same one.
static void many_products(const Team *team, const MatmulArgs *a) {
    const Products *p = &a->products;
    int64_t size = (int64_t)dtype_size(a->dtype), y_size = a->store == STORE_ACT ? size : 4;
    for (int i = 0; i < p->count; i++) {
        int64_t from = p->start ? p->start[i * p->every] : 0;
        Team turned = {.thread = (team->thread + i) % team->count, .count = team->count, .pool = team->pool};
        MatmulArgs one = *a;
        one.M = p->start ? p->start[(i + 1) * p->every] - from : a->M;
        one.x = (const char *)a->x + (from * a->ldx + i * p->x_step) * size;
        one.y = (char *)a->y + (from * a->ldy + i * p->y_step) * y_size;
        one.w = (const char *)a->w + i * p->w_step * (a->format == WEIGHT_PACKED ? size : 1);
        one.products = (Products){0};
        int64_t scratch = a->format != WEIGHT_PACKED ? panel_elements(a->K, a->dtype) * size : a->transposed ? TURN_BYTES : 0;
        one.scratch = (char *)a->scratch + ((int64_t)team->thread - turned.thread) * scratch; // this thread's, whatever its turn
        if (one.M > 0) V(matmul)(&turned, &one);
    }
}

// ---- weights in blocks -----------------------------------------------------------------------------------
// A panel is decoded into its packed form by the thread that owns it (panel.h), then all rows pass over it: each weight is
// decoded once, and the sums are those of a packed matrix.
static void blocks_product(const Team *team, const MatmulArgs *a, bool half) {
    int64_t size = (int64_t)dtype_size(a->dtype), steps = packed_depth(a->K, a->dtype) * size / 4, from, to;
    char *panel = (char *)a->scratch + (int64_t)team->thread * panel_elements(a->K, a->dtype) * size;
    team_share(team, (a->N + PANEL - 1) / PANEL, 1, &from, &to);
    for (int64_t p = from; p < to; p++) {
        decode_panel(a, p, (uint32_t *)panel, half);
        for (int64_t m = 0; m < a->M; m += MR) {
            int rows = (int)(a->M - m < MR ? a->M - m : MR);
            Tile t = {.x = (const char *)a->x + m * a->ldx * size, .row_stride = a->ldx * size, .step_stride = 4, .panel = panel,
                      .steps = steps};
            tile_to(a, &t, m, rows, p * PANEL, half);
        }
    }
}

// ---- y = x w ---------------------------------------------------------------------------------------------
// The way back reads the packed form that the way there has, so that no second form of the weights is kept or written. A piece of
// a panel is turned around into this thread's scratch, where it stays in L2 while rows pass over it; a row's chain goes on
// with the next piece. A block of 32 x 32 numbers is one run in memory in either form.

// `width` steps of 32 rows of w (what a block holds, or less at its edge) become `steps` steps of a panel.
INLINE void turn_block(const uint32_t *from, int64_t width, uint32_t *to, int64_t steps, bool half) {
    uint32_t edge[PANEL * PANEL], turned[PANEL * PANEL];
    int64_t full = half ? PANEL / 2 : PANEL;
    if (width < full) {
        memset(edge, 0, sizeof edge);
        memcpy(edge, from, (size_t)(width * PANEL) * 4);
        from = edge;
    }
    uint32_t *whole = steps < full ? turned : to;
    if (half) turn_pairs(from, whole);
    for (int64_t s = 0; !half && s < PANEL; s += 16)
        for (int64_t c = 0; c < PANEL; c += 16) turn16(from + s * PANEL + c, PANEL, whole + c * PANEL + s, PANEL);
    if (steps < full) memcpy(to, turned, (size_t)(steps * PANEL) * 4);
}
// Steps [from, from + count) of panel `panel` of the transpose of w [K, N].
INLINE void turn_piece(const MatmulArgs *a, int64_t panel, int64_t from, int64_t count, uint32_t *to, bool half) {
    int64_t each = half ? PANEL / 2 : PANEL, depth = packed_depth(a->N, a->dtype) / (half ? 2 : 1), first = panel * each;
    int64_t width = depth - first < each ? depth - first : each;
    const uint32_t *w = (const uint32_t *)a->w + (from / each * depth + first) * PANEL;
    for (int64_t s = 0; s < count; s += each, w += depth * PANEL) {
        for (int64_t line = 0; s + each < count && line < width * 2; line++) __builtin_prefetch(w + depth * PANEL + line * 16, 0, 2);
        turn_block(w, width, to + s * PANEL, count - s < each ? count - s : each, half);
    }
}
// Rows [from, to) and panels [p0, p1): a piece of each row stays in L2 while the panels pass, and sums, [p1 - p0][rows][PANEL], come
// and go between one piece and the next.
INLINE void turned_block(const MatmulArgs *a, int64_t from, int64_t to, int64_t p0, int64_t p1, char *scratch, bool half) {
    int64_t size = half ? 2 : 4, steps = packed_depth(a->K, a->dtype) * size / 4, s = 0;
    float *sums = (float *)(void *)(scratch + TURN_STEPS * PANEL * 4);
    do {
        int64_t count = steps - s < TURN_STEPS ? steps - s : TURN_STEPS;
        for (int64_t p = p0; p < p1; p++) {
            turn_piece(a, p, s, count, (uint32_t *)(void *)scratch, half);
            for (int64_t m = from; m < to; m += MR) {
                int rows = (int)(to - m < MR ? to - m : MR);
                float *so_far = sums + ((p - p0) * (to - from) + m - from) * PANEL;
                Tile t = {.x = (const char *)a->x + m * a->ldx * size + s * 4, .row_stride = a->ldx * size, .step_stride = 4, .panel = scratch,
                          .steps = count, .start = s > 0 ? so_far : NULL, .start_stride = PANEL, .store = STORE_F32, .y = so_far, .ldy = PANEL};
                if (s + count == steps) tile_to(a, &t, m, rows, p * PANEL, half);
                else tile_run(&t, rows, half);
            }
        }
        s += count;
    } while (s < steps);
}
// Threads share rows, and where these are few, panels. Rows are taken in blocks of which a piece fits into L2, panels in groups whose sums
// fit into scratch.
static void turned_product(const Team *team, const MatmulArgs *a) {
    int64_t panels = (a->N + PANEL - 1) / PANEL;
    ProductShare s = share_product(team, a->M, panels, MR);
    int64_t run = packed_depth(a->K, a->dtype) * (int64_t)dtype_size(a->dtype), most = TURN_ROW_BYTES / (run < TURN_STEPS * 4 ? run : TURN_STEPS * 4);
    if (most > TURN_SUMS) most = TURN_SUMS;
    int64_t blocks = (s.m_to - s.m_from + most - 1) / most, rows = blocks ? ((s.m_to - s.m_from + blocks - 1) / blocks + MR - 1) / MR * MR : MR;
    char *scratch = (char *)a->scratch + (int64_t)team->thread * TURN_BYTES;
    for (int64_t m = s.m_from; m < s.m_to; m += rows) {
        int64_t end = m + rows < s.m_to ? m + rows : s.m_to, group = run <= TURN_STEPS * 4 ? panels : TURN_SUMS / (end - m);
        for (int64_t p = s.p_from; p < s.p_to; p += group) {
            int64_t last = p + group < s.p_to ? p + group : s.p_to;
            if (a->dtype == DTYPE_BF16) turned_block(a, m, end, p, last, scratch, true);
            else turned_block(a, m, end, p, last, scratch, false);
        }
    }
}

void V(matmul)(const Team *team, const MatmulArgs *a) {
    if (a->products.count) {
        many_products(team, a);
        return;
    }
    if (a->format == WEIGHT_INT8) {
        V(int8_rows)(team, a);
        team_wait(team);
        V(int8_product)(team, a);
        return;
    }
    if (a->format == WEIGHT_PACKED && a->transposed) {
        turned_product(team, a);
        return;
    }
    if (a->format != WEIGHT_PACKED) {
        if (a->dtype == DTYPE_BF16) blocks_product(team, a, true);
        else blocks_product(team, a, false);
        return;
    }
    enum { ROW_BLOCK = 16 * MR }; // rows of x that stay in L2 while all panels pass
    bool half = a->dtype == DTYPE_BF16;
    int64_t size = (int64_t)dtype_size(a->dtype), steps = packed_depth(a->K, a->dtype) * size / 4;
    ProductShare s = share_product(team, a->M, (a->N + PANEL - 1) / PANEL, MR);
    for (int64_t block = s.m_from; block < s.m_to; block += ROW_BLOCK) {
        int64_t block_end = block + ROW_BLOCK < s.m_to ? block + ROW_BLOCK : s.m_to;
        // Tiles of equal height: with 16 rows, 12 and 4 would ask the memory for half a panel each, one in a third of the other's time.
        int64_t tiles = (block_end - block + MR - 1) / MR, height = (block_end - block + tiles - 1) / tiles;
        for (int64_t p = s.p_from; p < s.p_to; p++) {
            const char *panel = (const char *)a->w + p * steps * PANEL * 4;
            const char *next = p + 1 < s.p_to ? panel + steps * PANEL * 4 : NULL;
            for (int64_t m = block, pass = 0; m < block_end; m += height, pass++) {
                int rows = (int)(block_end - m < height ? block_end - m : height);
                // Each of the first two tiles brings half of the next panel.
                Tile t = {.x = (const char *)a->x + m * a->ldx * size,
                          .row_stride = a->ldx * size,
                          .step_stride = 4,
                          .panel = panel,
                          .steps = steps,
                          .prefetch = next && pass < 2 && tiles > 1 ? next + pass * steps * 64 : NULL};
                tile_to(a, &t, m, rows, p * PANEL, half);
            }
        }
    }
}

// ---- dw += dy^T x ----------------------------------------------------------------------------------------
// Tokens in steps: bf16 pairs never straddle a segment, so each odd segment ends with a zero partner.
static int64_t token_steps(const MatmulGradArgs *a, bool half) {
    if (!half) return a->T;
    int64_t steps = 0;
    for (int s = 0; s < a->segments.count; s++) steps += (a->segments.start[s + 1] - a->segments.start[s] + 1) / 2;
    return steps;
}

// Writes tokens [t, t+1] (or t and zero) of `count` columns from `c0`, `width` wide slots, at out (4 bytes a slot).
INLINE void put_step(const void *x, int64_t ld, int64_t t, bool has_odd, int64_t c0, int64_t count, int width, char *out,
                     bool half) {
    if (half) {
        const bf16 *even = (const bf16 *)x + t * ld + c0, *odd = even + ld;
        bf16 *o = (bf16 *)out;
        for (int64_t c = 0; c < count; c++) o[2 * c] = even[c], o[2 * c + 1] = has_odd ? odd[c] : 0;
    } else {
        memcpy(out, (const float *)x + t * ld + c0, (size_t)count * 4);
    }
    if (count < width) memset(out + count * 4, 0, (size_t)(width - count) * 4);
}
// The same sixteen columns at a time, which reads up to fifteen numbers beyond them: another token's must follow.
INLINE void put_step_lanes(const void *x, int64_t ld, int64_t t, bool has_odd, int64_t c0, int64_t count, int width, char *out, bool half) {
#pragma GCC unroll 2
    for (int c = 0; c < width; c += 16) {
        i16 step;
        if (half) {
            const bf16 *even = (const bf16 *)x + t * ld + c0 + c;
            step = has_odd ? i_pairs(even, even + ld) : i_widen(even);
        } else {
            step = i_load((const float *)x + t * ld + c0 + c);
        }
        if (count < width) step = i_bits(v_first(i_float(step), (int)count - c, v_zero()));
        i_store_first(out + c * 4, step, width - c < 16 ? width - c : 16);
    }
}

enum { PACK_STEPS = 4, PACK_AHEAD = 16 }; // at a time: their lines are read once, though a block takes part of a line; tokens asked for beforehand
typedef struct Place { // of the next step: a segment, and a token of it
    int segment;
    int64_t token;
} Place;
// `steps` steps from `at` on of columns of x in blocks of `width`: [to - from][steps][width] of 4 bytes, blocks [from, to).
INLINE Place pack_tokens(const MatmulGradArgs *a, const void *x, int64_t ld, int64_t C, int width, Place at, int64_t steps, int64_t from,
                         int64_t to, char *out, bool half) {
    int64_t per_step = half ? 2 : 1, last = a->segments.start[a->segments.count];
    for (int64_t done = 0; done < steps;) {
        int64_t end = a->segments.start[at.segment + 1], count = (end - at.token + per_step - 1) / per_step;
        if (count > PACK_STEPS) count = PACK_STEPS;
        if (count > steps - done) count = steps - done;
        for (int64_t t = at.token + PACK_AHEAD; t < at.token + PACK_AHEAD + count * per_step && t < last; t++)
            for (int64_t c = (t * ld + from * width) * 4 / per_step; c < (t * ld + (to * width < C ? to * width : C)) * 4 / per_step; c += 64)
                __builtin_prefetch((const char *)x + c, 0, 3);
        for (int64_t b = from; b < to; b++) {
            int64_t c0 = b * width, columns = C - c0 < width ? C - c0 : width;
            char *step = out + ((b - from) * steps + done) * width * 4;
            for (int64_t t = at.token; t < at.token + count * per_step; t += per_step, step += width * 4) {
                bool has_odd = t + 1 < end, inside = ld >= PANEL && t + 2 < last;
                if (inside && columns == width) put_step_lanes(x, ld, t, has_odd, c0, width, width, step, half);
                else if (inside) put_step_lanes(x, ld, t, has_odd, c0, columns, width, step, half);
                else put_step(x, ld, t, has_odd, c0, columns, width, step, half);
            }
        }
        done += count;
        at.token += count * per_step;
        if (at.token >= end) at = (Place){at.segment + 1, end};
    }
    return at;
}

static void sum_bias(const Team *team, const MatmulGradArgs *a, bool half) {
    int64_t from, to;
    team_share(team, a->N, 16, &from, &to);
    for (int64_t c = from; c < to; c += 16) {
        int64_t n = to - c < 16 ? to - c : 16;
        v16 sum = lanes_load(a->dbias, c, n, false);
        for (int64_t t = 0; t < a->T; t++) sum = v_add(sum, lanes_load(a->dy, t * a->ldy + c, n, half));
        lanes_store(a->dbias, c, sum, n, false);
    }
}

// A cell of dw, a tile by a panel, grows by `steps` steps, or is made of them. The tile that comes next is asked for meanwhile, and what
// lies from `ahead` on, a line a step.
INLINE void grad_cell(const MatmulGradArgs *a, int64_t tile, int64_t panel, const char *left, const char *right, const char *ahead, int64_t steps,
                      bool from_zero, bool half) {
    int64_t n = tile * MR, columns = a->K - panel * PANEL < PANEL ? a->K - panel * PANEL : PANEL;
    int rows = (int)(a->N - n < MR ? a->N - n : MR);
    float *dw = a->dw + n * a->K + panel * PANEL, edge[MR * PANEL];
    bool full = columns == PANEL;
    for (int r = 0; r < MR && n + MR + r < a->N; r++)
        for (int c = 0; c < PANEL; c += 16) __builtin_prefetch(dw + (MR + r) * a->K + c, 1, 2);
    if (!full) memset(edge, 0, sizeof edge);
    for (int r = 0; !full && !from_zero && r < rows; r++) memcpy(edge + r * PANEL, dw + r * a->K, (size_t)columns * 4);
    Tile t = {.x = left, .row_stride = 4, .step_stride = MR * 4, .panel = right, .steps = steps, .prefetch = ahead, .start = from_zero ? NULL : full ? dw : edge,
              .start_stride = full ? a->K : PANEL, .store = STORE_F32, .y = full ? dw : edge, .ldy = full ? a->K : PANEL};
    tile_run(&t, rows, half);
    for (int r = 0; !full && r < rows; r++) memcpy(dw + r * a->K, edge + r * PANEL, (size_t)columns * 4);
}
// Cells of a strip of panels [p0, p1): those with numbers [from, to), counted through tile after tile. So many tokens are laid out at a
// time as make a cell's chain long beside the reading and writing of its sums; of the tiles, so many as stay in L2 while panels pass.
typedef struct Strip {
    int64_t p0, p1, from, to;
} Strip;
INLINE void grad_strip(const MatmulGradArgs *a, const Strip *s, int64_t steps, char *scratch, bool half) {
    int64_t width = s->p1 - s->p0, n0 = s->from / width, n1 = (s->to - 1) / width + 1, passes = (steps + GRAD_STEPS - 1) / GRAD_STEPS;
    int64_t each = passes ? (steps + passes - 1) / passes : 1, tiles = GRAD_TILE_BYTES / (each * MR * 4), blocks = (n1 - n0 + tiles - 1) / tiles;
    Place at = {0, a->segments.start[0]}, next;
    for (int64_t done = 0; done < steps; done += each, at = next) {
        int64_t count = steps - done < each ? steps - done : each;
        int64_t panel_stride = count * PANEL * 4, tile_stride = count * MR * 4;
        char *right = scratch, *left = scratch + width * panel_stride;
        next = pack_tokens(a, a->x, a->ldx, a->K, PANEL, at, count, s->p0, s->p1, right, half);
        for (int64_t b = 0; b < blocks; b++) {
            int64_t first = n0 + (n1 - n0) * b / blocks, last = n0 + (n1 - n0) * (b + 1) / blocks;
            pack_tokens(a, a->dy, a->ldy, a->N, MR, at, count, first, last, left, half);
            for (int64_t p = s->p0; p < s->p1; p++) {
                const char *panel = right + (p - s->p0) * panel_stride, *ahead = p + 1 < s->p1 ? panel + panel_stride : right;
                for (int64_t n = first; n < last; n++) {
                    int64_t i = n * width + p - s->p0;
                    if (i < s->from || i >= s->to) continue;
                    grad_cell(a, n, p, left + (n - first) * tile_stride, panel, n - first < 2 ? ahead + (n - first) * count * 64 : NULL, count,
                              a->written && done == 0, half);
                }
            }
        }
    }
}
// Threads share the cells, strip after strip of panels: so few or many strips that a thread has little to lay out. What two
// threads need both lay out, which takes less than waiting and reading another core's memory.
INLINE void weight_gradient(const Team *team, const MatmulGradArgs *a, bool half) {
    int64_t tiles = (a->N + MR - 1) / MR, panels = (a->K + PANEL - 1) / PANEL, steps = token_steps(a, half), from, to;
    int64_t strips = (panels + GRAD_PANELS - 1) / GRAD_PANELS;
    while (strips < team->count && strips < panels && (strips + 1) * (strips + 1) * a->N <= a->K * team->count) strips++;
    char *scratch = (char *)a->scratch + (int64_t)team->thread * GRAD_BYTES;
    team_share(team, tiles * panels, 1, &from, &to);
    for (int64_t i = 0; i < strips; i++) {
        Strip s = {.p0 = panels * i / strips, .p1 = panels * (i + 1) / strips};
        int64_t before = s.p0 * tiles;
        s.from = from > before ? from - before : 0;
        s.to = (to < s.p1 * tiles ? to : s.p1 * tiles) - before;
        if (s.from < s.to) grad_strip(a, &s, steps, scratch, half);
    }
    if (a->dbias) sum_bias(team, a, half);
}

// No tokens: of an expert that nobody chose.
static void zero_gradient(const Team *team, const MatmulGradArgs *a) {
    int64_t from, to;
    team_share(team, a->N * a->K, 16, &from, &to);
    if (a->written && to > from) memset(a->dw + from, 0, (size_t)(to - from) * sizeof *a->dw);
}

static void many_gradients(const Team *team, const MatmulGradArgs *a) {
    const Products *p = &a->products;
    int64_t size = (int64_t)dtype_size(a->dtype);
    for (int i = 0; i < p->count; i++) {
        MatmulGradArgs one = *a;
        one.x = (const char *)a->x + i * p->x_step * size;
        one.dy = (const char *)a->dy + i * p->y_step * size;
        one.dw = a->dw + i * p->w_step;
        if (p->start) one.segments = (Segments){.count = p->every, .start = p->start + i * p->every};
        one.T = one.segments.start[one.segments.count] - one.segments.start[0];
        one.products = (Products){0};
        V(matmul_grad)(team, &one);
    }
}

void V(matmul_grad)(const Team *team, const MatmulGradArgs *a) {
    if (a->products.count) {
        many_gradients(team, a);
        return;
    }
    if (a->T == 0) zero_gradient(team, a);
    else if (a->dtype == DTYPE_BF16) weight_gradient(team, a, true);
    else weight_gradient(team, a, false);
}
