// Products in 8 bits: runs of 64 numbers with a scale each, of weights and of activations, their whole parts multiplied and summed
// exactly in 32 bits. Half the bytes of bf16, and with VNNI twice the products an instruction.
//
// The micro-kernel is the one of matmul.c: a tile of MR rows times 32 columns, a step of four bytes of either operand. vpdpbusd
// takes its first operand without a sign, so weights are stored 128 too large, and a row's sum begins with -128 times the sum
// of its own q. Without VNNI (all variants but avx512bf16) a step is two multiply-adds of 16-bit numbers, which can't saturate: at
// most 2 * 255 * 127 in 32 bits. After a run the whole sums join the floating ones:
// a conversion, a product and a multiply-add for every 16 steps, the only part of a sum that rounds.
#include "int8.h"
#include "store_tile.h"

#if defined(__AVX512F__)
enum { MR = 12, HALVES = 2 };
#else
enum { MR = 6, HALVES = 1 };
#endif
enum { RUN_STEPS = INT8_GROUP / 4 };

// ---- a step: sums of four products a lane ------------------------------------------------------------------
// `w` without a sign, `x` with one.
#if defined(__AVX512VNNI__)
INLINE i16 dot_bytes(i16 sum, i16 w, int32_t x) {
    // By the builtin, gcc 12 copies every sum once a step.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(_mm512_set1_epi32(x)));
    return sum;
}
#elif defined(__AVX512F__)
INLINE i16 dot_bytes(i16 sum, i16 w, int32_t x) {
    __m512i xs = _mm512_set1_epi32(x), even = _mm512_srai_epi16(_mm512_slli_epi16(xs, 8), 8), odd = _mm512_srai_epi16(xs, 8);
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)), even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_srli_epi16(w, 8), odd));
}
#elif defined(__AVX2__)
INLINE __m256i dot_eight(__m256i sum, __m256i w, __m256i even, __m256i odd) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd));
}
INLINE i16 dot_bytes(i16 sum, i16 w, int32_t x) {
    __m256i xs = _mm256_set1_epi32(x), even = _mm256_srai_epi16(_mm256_slli_epi16(xs, 8), 8), odd = _mm256_srai_epi16(xs, 8);
    return (i16){dot_eight(sum.a, w.a, even, odd), dot_eight(sum.b, w.b, even, odd)};
}
#else
INLINE i16 dot_bytes(i16 sum, i16 w, int32_t x) {
    int8_t xs[4];
    memcpy(xs, &x, 4);
    EACH {
        uint8_t ws[4];
        memcpy(ws, &w.u[i], 4);
        for (int k = 0; k < 4; k++) sum.u[i] += (uint32_t)(ws[k] * xs[k]);
    }
    return sum;
}
#endif

// ---- whole numbers and their scale ---------------------------------------------------------------------------
// The low bytes of sixteen lanes.
INLINE void store_bytes(uint8_t *p, i16 a, int64_t n) {
#if defined(__AVX512F__)
    _mm_mask_storeu_epi8(p, n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1), _mm512_cvtepi32_epi8(a));
#else
    uint32_t lanes[16];
    memcpy(lanes, &a, sizeof lanes);
    for (int64_t i = 0; i < n; i++) p[i] = (uint8_t)lanes[i];
#endif
}
// x / scale, to nearest even: added to 1.5 * 2^23, a number's fraction is what is below the last bit.
INLINE i16 whole_of(v16 x, v16 inverse) {
    return i_add(i_bits(v_add(v_mul(x, inverse), v_set1(12582912.0f))), i_set1(-0x4b400000));
}
// Larger ones of lanes without a sign; the largest lane; the sum of all.
#if defined(__AVX512F__)
INLINE i16 i_larger(i16 a, i16 b) { return _mm512_max_epu32(a, b); }
INLINE uint32_t i_largest(i16 a) { return _mm512_reduce_max_epu32(a); }
INLINE int32_t i_total(i16 a) { return _mm512_reduce_add_epi32(a); }
#else
INLINE i16 i_larger(i16 a, i16 b) {
#if defined(__AVX2__)
    return (i16){_mm256_max_epu32(a.a, b.a), _mm256_max_epu32(a.b, b.b)};
#else
    EACH a.u[i] = a.u[i] > b.u[i] ? a.u[i] : b.u[i];
    return a;
#endif
}
INLINE uint32_t i_largest(i16 a) {
    uint32_t lanes[16], most = 0;
    memcpy(lanes, &a, sizeof lanes);
    for (int i = 0; i < 16; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}
INLINE int32_t i_total(i16 a) {
    uint32_t lanes[16], total = 0;
    memcpy(lanes, &a, sizeof lanes);
    for (int i = 0; i < 16; i++) total += lanes[i];
    return (int32_t)total;
}
#endif

typedef struct Run {
    float scale;
    int32_t sum; // of its q
} Run;
// `count` numbers, their q plus `offset` to `out`. Bits without the sign order magnitudes, and what isn't finite lies above all.
INLINE Run run_of(const void *x, int64_t at, int64_t count, float factor, uint8_t *out, int32_t offset, bool half) {
    v16 by = v_set1(factor);
    i16 top = i_set1(0), sum = i_set1(0), magnitude = i_set1(0x7fffffff);
    for (int64_t c = 0, n; c < count; c += 16) {
        n = count - c < 16 ? count - c : 16;
        v16 v = lanes_load(x, at + c, n, half);
        top = i_larger(top, i_and(i_bits(factor != 1 ? v_mul(v, by) : v), magnitude));
    }
    uint32_t bits = i_largest(top);
    if (bits >= 0x7f800000) {
        memset(out, offset, (size_t)count);
        return (Run){.scale = NAN};
    }
    float largest;
    memcpy(&largest, &bits, 4);
    v16 inverse = v_set1(largest < 1e-30f ? 0.0f : 127.0f / largest);
    for (int64_t c = 0, n; c < count; c += 16) {
        n = count - c < 16 ? count - c : 16;
        v16 v = lanes_load(x, at + c, n, half);
        i16 q = whole_of(factor != 1 ? v_mul(v, by) : v, inverse);
        sum = i_add(sum, q);
        store_bytes(out + c, i_add(q, i_set1(offset)), n);
    }
    return (Run){.scale = largest < 1e-30f ? 0.0f : largest / 127.0f, .sum = i_total(sum)};
}

// ---- weights -------------------------------------------------------------------------------------------------
static void pack_bytes(const PackArgs *a, int64_t panel, uint8_t *out) {
    int64_t n0 = panel * PANEL, rows = a->N - n0 < PANEL ? a->N - n0 : PANEL;
    float *scales = (float *)(void *)out;
    uint32_t *to = (uint32_t *)(void *)(out + int8_runs(a->K) * PANEL * 4), block[PANEL][RUN_STEPS];
    memset(scales, 0, (size_t)(int8_runs(a->K) * PANEL) * sizeof *scales);
    memset(block, 0, sizeof block);
    for (int64_t k = 0; k < a->K; k += INT8_GROUP, scales += PANEL) {
        int64_t count = a->K - k < INT8_GROUP ? a->K - k : INT8_GROUP;
        for (int64_t r = 0; r < rows; r++) {
            if (count % 4) block[r][count / 4] = 0;
            scales[r] = run_of(a->w, (n0 + r) * a->K + k, count, a->scale == 0 ? 1.0f : a->scale, (uint8_t *)block[r], 128, false).scale;
        }
        for (int64_t s = 0; s < (count + 3) / 4; s++, to += PANEL)
            for (int r = 0; r < PANEL; r++) to[r] = block[r][s];
    }
}
void V(int8_pack)(const Team *team, const PackArgs *a) {
    int64_t from, to;
    team_share(team, (a->N + PANEL - 1) / PANEL, 1, &from, &to);
    for (int64_t p = from; p < to; p++) pack_bytes(a, p, (uint8_t *)a->int8 + p * int8_panel_bytes(a->K));
}

// ---- rows ----------------------------------------------------------------------------------------------------
INLINE void row_bytes(const MatmulArgs *a, int64_t m, bool half) {
    uint8_t *q = (uint8_t *)a->scratch + m * int8_row_bytes(a->K);
    float *scale = (float *)(void *)(q + int8_depth(a->K));
    int32_t *begin = (int32_t *)(void *)(scale + int8_runs(a->K));
    for (int64_t k = a->K; k < int8_depth(a->K); k++) q[k] = 0;
    for (int64_t k = 0; k < a->K; k += INT8_GROUP) {
        bool whole = a->K - k >= INT8_GROUP; // known to its loops
        Run run = whole ? run_of(a->x, m * a->ldx + k, INT8_GROUP, 1, q + k, 0, half) : run_of(a->x, m * a->ldx + k, a->K - k, 1, q + k, 0, half);
        *scale++ = run.scale;
        *begin++ = (int32_t)(0u - 128u * (uint32_t)run.sum);
    }
}
void V(int8_rows)(const Team *team, const MatmulArgs *a) {
    int64_t from, to;
    team_share(team, a->M, 1, &from, &to);
    for (int64_t m = from; m < to; m++) {
        if (a->dtype == DTYPE_BF16) row_bytes(a, m, true);
        else row_bytes(a, m, false);
    }
}

// ---- tiles ---------------------------------------------------------------------------------------------------
typedef struct Tile {
    const char *x;        // first row of the tile
    int64_t K;
    const char *panel;
    const char *prefetch; // one line a step from here
    float *sum;           // [rows][PANEL], written
} Tile;

// One run of a tile: `steps` from 1 on. What a row's sum begins with, what it ends with.
INLINE void run_steps(const char *x, int64_t stride, const char *w, int64_t steps, const char *begin, i16 *low, i16 *high, int rows, const char *ahead) {
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) low[r] = high[r] = i_set1(load_step(begin + r * stride));
    do {
        i16 w0 = i_load(w), w1 = HALVES == 2 ? i_load(w + 64) : w0;
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            int32_t value = load_step(x + r * stride);
            low[r] = dot_bytes(low[r], w0, value);
            if (HALVES == 2) high[r] = dot_bytes(high[r], w1, value);
        }
        __builtin_prefetch(ahead, 0, 2);
        ahead += 64, x += 4, w += PANEL * 4;
    } while (--steps);
}
INLINE void join_run(const i16 *whole, const char *of_x, int64_t stride, const float *of_w, float *sum, int rows, bool first) {
    v16 scale = v_load(of_w);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        float of_row;
        memcpy(&of_row, of_x + r * stride, 4);
        v_store(sum + r * PANEL, v_fma(v_mul(v_whole(whole[r]), scale), v_set1(of_row), first ? v_zero() : v_load(sum + r * PANEL)));
    }
}
INLINE void tile_rows(const Tile *t, int rows) {
    const int64_t K = t->K, runs = int8_runs(K), stride = int8_row_bytes(K);
    for (int column = 0; column < PANEL; column += 16 * HALVES) {
        const char *of_x = t->x + int8_depth(K), *w = t->panel + runs * PANEL * 4 + column * 4;
        const float *of_w = (const float *)(const void *)t->panel + column;
        for (int64_t run = 0; run < runs; run++, of_x += 4, of_w += PANEL) {
            int64_t at = run * INT8_GROUP, left = (int8_depth(K) - at) / 4, steps = left < RUN_STEPS ? left : RUN_STEPS;
            i16 low[MR], high[MR];
            run_steps(t->x + at, stride, w + at * PANEL, steps, of_x + runs * 4, low, high, rows, t->prefetch + at * 16);
            join_run(low, of_x, stride, of_w, t->sum + column, rows, run == 0);
            if (HALVES == 2) join_run(high, of_x, stride, of_w + 16, t->sum + column + 16, rows, run == 0);
        }
    }
}
#define TILE_CASE(n)                                                                                         \
    case n: tile_rows(t, n); return;
static void tile_run(const Tile *t, int rows) {
    switch (rows) {
        TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6)
#if defined(__AVX512F__)
        TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12)
#endif
    }
}

void V(int8_product)(const Team *team, const MatmulArgs *a) {
    enum { ROW_BLOCK = 16 * MR };
    int64_t bytes = int8_panel_bytes(a->K);
    ProductShare s = share_product(team, a->M, (a->N + PANEL - 1) / PANEL, MR);
    for (int64_t block = s.m_from; block < s.m_to; block += ROW_BLOCK) {
        int64_t block_end = block + ROW_BLOCK < s.m_to ? block + ROW_BLOCK : s.m_to;
        for (int64_t p = s.p_from; p < s.p_to; p++) {
            const char *panel = (const char *)a->w + p * bytes, *next = p + 1 < s.p_to ? panel + bytes : NULL;
            for (int64_t m = block; m < block_end; m += MR) {
                int rows = (int)(block_end - m < MR ? block_end - m : MR);
                int64_t pass = (m - block) / MR; // each of the first two tiles brings half of the next panel
                float sum[MR * PANEL];
                Tile t = {.x = (const char *)a->scratch + m * int8_row_bytes(a->K), .K = a->K, .panel = panel, .sum = sum,
                          .prefetch = next && pass < 2 && block_end - block > MR ? next + pass * bytes / 2 : panel};
                tile_run(&t, rows);
                store_tile(a, sum, m, rows, p * PANEL, a->dtype == DTYPE_BF16);
            }
        }
    }
}
