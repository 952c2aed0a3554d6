// Panels of weights that lie in GGUF's blocks (blocks.h): 32 rows, decoded, rounded to the product's precision and turned into
// the packed form, a step (4 bytes: one fp32 value, or a pair of bf16) of all 32 rows side by side. Bit for bit what `pack` makes of
// the decoded numbers: a number is the same product and sum, rounded in the same places, and only the work is arranged
// otherwise: sixteen lanes at a time, and where a number has four bits, sixteen numbers are made once for all of a
// group's (of bf16, where a table is small enough to look things up in one instruction).
//
// A scale that isn't finite takes the slow way: infinities and NaNs need their rounding by the book.
#ifndef RECKON_PANEL_H
#define RECKON_PANEL_H
#include "turn.h"
#include "../blocks.h"

// ---- lanes from bytes --------------------------------------------------------------------------------------
// Sixteen bytes as numbers; shifts by a number a lane; sixteen bf16 of a table by four bits each.
#if defined(__AVX512F__)
INLINE i16 i_bytes(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE i16 i_signed_bytes(const void *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE i16 i_shr_each(i16 a, i16 by) { return _mm512_srlv_epi32(a, by); }
typedef __m512i Table16;
INLINE Table16 table_of(const uint16_t *p) { return _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p)); }
// to[i] = table[low four bits of p[i]], to[i + 16] = table[high ones].
INLINE void look_up(Table16 table, const uint8_t *p, uint16_t *to) {
    __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi16(bytes, 4), 1); // bits above the fifth don't count
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_and_si512(both, _mm512_set1_epi16(15)), table));
}
#elif defined(__AVX2__)
INLINE i16 i_bytes(const void *p) {
    return (i16){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)((const char *)p + 8)))};
}
INLINE i16 i_signed_bytes(const void *p) {
    return (i16){_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)), _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)((const char *)p + 8)))};
}
INLINE i16 i_shr_each(i16 a, i16 by) { return (i16){_mm256_srlv_epi32(a.a, by.a), _mm256_srlv_epi32(a.b, by.b)}; }
typedef struct { __m128i low, high; } Table16; // bytes
INLINE Table16 table_of(const uint16_t *p) {
    __m128i a = _mm_loadu_si128((const __m128i *)p), b = _mm_loadu_si128((const __m128i *)p + 1), byte = _mm_set1_epi16(255);
    return (Table16){_mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte)), _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8))};
}
INLINE void look_up(Table16 table, const uint8_t *p, uint16_t *to) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)p), four = _mm_set1_epi8(15);
    for (int half = 0; half < 2; half++) {
        __m128i at = _mm_and_si128(half ? _mm_srli_epi16(bytes, 4) : bytes, four);
        __m128i low = _mm_shuffle_epi8(table.low, at), high = _mm_shuffle_epi8(table.high, at);
        _mm_storeu_si128((__m128i *)(to + 16 * half), _mm_unpacklo_epi8(low, high));
        _mm_storeu_si128((__m128i *)(to + 16 * half) + 1, _mm_unpackhi_epi8(low, high));
    }
}
#else
INLINE i16 i_bytes(const void *p) { i16 r; EACH r.u[i] = ((const uint8_t *)p)[i]; return r; }
INLINE i16 i_signed_bytes(const void *p) { i16 r; EACH r.u[i] = (uint32_t)(int32_t)((const int8_t *)p)[i]; return r; }
INLINE i16 i_shr_each(i16 a, i16 by) { EACH a.u[i] >>= by.u[i]; return a; }
typedef struct { uint16_t at[16]; } Table16;
INLINE Table16 table_of(const uint16_t *p) { Table16 t; memcpy(&t, p, sizeof t); return t; }
INLINE void look_up(Table16 table, const uint8_t *p, uint16_t *to) {
    EACH to[i] = table.at[p[i] & 15], to[i + 16] = table.at[p[i] >> 4];
}
#endif

static const int32_t lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
INLINE i16 i_lanes(void) { return i_load(lane_numbers); }
// As v_store_bf16, of finite numbers.
INLINE void v_store_bf16_finite(uint16_t *p, v16 a) {
    i16 bits = i_bits(a);
    i_narrow(p, i_shr(i_add(bits, i_add(i_set1(0x7fff), i_and(i_shr(bits, 16), i_set1(1)))), 16));
}
INLINE void put_lanes(void *to, int64_t at, v16 a, bool half) {
    if (half) v_store_bf16_finite((uint16_t *)to + at, a);
    else v_store((float *)to + at, a);
}

// ---- groups ------------------------------------------------------------------------------------------------
INLINE bool finite_half(const uint8_t *p) { return (p[1] & 0x7c) != 0x7c; }
INLINE bool finite_group(WeightFormat f, const uint8_t *in) {
    bool two = f == WEIGHT_Q4_1 || f == WEIGHT_Q5_1 || f == WEIGHT_Q4_K;
    return finite_half(f == WEIGHT_Q6_K ? in + 208 : in) && (!two || finite_half(in + 2));
}
// What four bits stand for, all sixteen of them.
INLINE v16 four_bits(WeightFormat f, v16 d, v16 m) {
    v16 q = v_whole(i_lanes());
    if (f == WEIGHT_Q4_0) return v_mul(v_sub(q, v_set1(8)), d);
    return f == WEIGHT_Q4_1 ? v_add(v_mul(q, d), m) : v_sub(v_mul(d, q), m);
}
INLINE void four_bit_group(WeightFormat f, const uint8_t *bytes, float d, float m, void *to, bool half) {
    if (half) {
        uint16_t table[16];
        v_store_bf16_finite(table, four_bits(f, v_set1(d), v_set1(m)));
        look_up(table_of(table), bytes, to);
        return;
    }
    i16 q = i_bytes(bytes);
    for (int high = 0; high < 2; high++) {
        v16 x = v_whole(i_and(high ? i_shr(q, 4) : q, i_set1(15)));
        put_lanes(to, 16 * high, f == WEIGHT_Q4_0 ? v_mul(v_sub(x, v_set1(8)), v_set1(d)) : v_add(v_mul(x, v_set1(d)), v_set1(m)), half);
    }
}
INLINE void five_bit_group(WeightFormat f, const uint8_t *in, void *to, bool half) {
    const uint8_t *bits = f == WEIGHT_Q5_0 ? in + 2 : in + 4;
    uint32_t fifth;
    memcpy(&fifth, bits, 4); // little end first, as the processor has it
    i16 q = i_bytes(bits + 4);
    v16 d = v_set1(block_half(in));
    for (int high = 0; high < 2; high++) {
        i16 top = i_and(i_shr_each(i_set1((int32_t)(fifth >> 16 * high)), i_lanes()), i_set1(1));
        v16 x = v_whole(i_or(i_and(high ? i_shr(q, 4) : q, i_set1(15)), i_shl(top, 4)));
        put_lanes(to, 16 * high, f == WEIGHT_Q5_0 ? v_mul(v_sub(x, v_set1(16)), d) : v_add(v_mul(x, d), v_set1(block_half(in + 2))), half);
    }
}
// Of Q4_K two groups share their bytes: one has the low four bits, one the high ones.
INLINE void q4_k_group(const uint8_t *in, int j, void *to, bool half) {
    const uint8_t *packed = in + 4, *q = in + 16 + 32 * (j / 2);
    int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
    int min = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    v16 d = v_set1(block_half(in) * (float)scale), m = v_set1(block_half(in + 2) * (float)min);
    for (int part = 0; part < 2; part++) {
        i16 bytes = i_bytes(q + 16 * part);
        v16 x = v_whole(i_and(j & 1 ? i_shr(bytes, 4) : bytes, i_set1(15)));
        put_lanes(to, 16 * part, v_sub(v_mul(d, x), m), half);
    }
}
INLINE void q6_k_group(const uint8_t *in, int j, void *to, bool half) {
    int quarter = j & 3;
    const uint8_t *low = in + 64 * (j / 4) + 32 * (quarter & 1), *high = in + 128 + 32 * (j / 4);
    const uint8_t *scales = in + 192 + 8 * (j / 4) + 2 * quarter;
    float d = block_half(in + 208);
    for (int part = 0; part < 2; part++) {
        i16 l = i_bytes(low + 16 * part), h = i_bytes(high + 16 * part);
        i16 q = i_or(i_and(quarter & 2 ? i_shr(l, 4) : l, i_set1(15)), i_shl(i_and(i_shr(h, 2 * quarter), i_set1(3)), 4));
        put_lanes(to, 16 * part, v_mul(v_set1(d * (float)(int8_t)scales[part]), v_sub(v_whole(q), v_set1(32))), half);
    }
}
// Elements [32 group, 32 group + 32) of a row of blocks, act.
INLINE void decode_group(WeightFormat f, const uint8_t *row, int64_t group, void *to, bool half) {
    if (f == WEIGHT_BF16) {
        for (int i = 0; i < 32; i += 16) act_store(to, i, act_load(row, 32 * group + i, true), half);
        return;
    }
    bool large = f == WEIGHT_Q4_K || f == WEIGHT_Q6_K;
    const uint8_t *in = row + (large ? group / 8 : group) * block_bytes(f);
    if (!finite_group(f, in)) {
        float values[32];
        block_group(f, row, group, values);
        for (int i = 0; i < 32; i += 16) act_store(to, i, v_load(values + i), half);
        return;
    }
    switch (f) {
    case WEIGHT_Q8_0:
        for (int i = 0; i < 32; i += 16) put_lanes(to, i, v_mul(v_whole(i_signed_bytes(in + 2 + i)), v_set1(block_half(in))), half);
        return;
    case WEIGHT_Q4_0: four_bit_group(f, in + 2, block_half(in), 0, to, half); return;
    case WEIGHT_Q4_1: four_bit_group(f, in + 4, block_half(in), block_half(in + 2), to, half); return;
    case WEIGHT_Q5_0:
    case WEIGHT_Q5_1: five_bit_group(f, in, to, half); return;
    case WEIGHT_Q4_K: q4_k_group(in, (int)(group % 8), to, half); return;
    case WEIGHT_Q6_K: q6_k_group(in, (int)(group % 8), to, half); return;
    default: return;
    }
}

// ---- panels ------------------------------------------------------------------------------------------------
// Rows 32 * panel of w [N, K]: 32 groups at a time, turned around. What the next panel reads is asked for meanwhile.
INLINE void forward_panel(const MatmulArgs *a, WeightFormat f, int64_t panel, uint32_t *to, bool half) {
    int64_t row_bytes = blocks_row_bytes(f, a->K), n0 = panel * PANEL, rows = a->N - n0 < PANEL ? a->N - n0 : PANEL;
    int words = half ? 16 : 32; // steps of a group
    uint32_t group[PANEL][32];
    const uint8_t *next = (const uint8_t *)a->w + (n0 + PANEL) * row_bytes, *from[PANEL];
    int64_t ahead = n0 + 2 * PANEL <= a->N ? PANEL * row_bytes / (a->K / 32) : 0; // bytes a group
    for (int64_t r = 0; r < rows; r++) from[r] = (const uint8_t *)a->w + interleaved_row(n0 + r, a->interleaved) * row_bytes;
    memset(group, 0, sizeof group);
    for (int64_t g = 0; g < a->K / 32; g++) {
        for (int64_t b = 0; b < ahead; b += 64) __builtin_prefetch(next + g * ahead + b, 0, 2);
        for (int64_t r = 0; r < rows; r++) decode_group(f, from[r], g, group[r], half);
        for (int c = 0; c < words; c += 16, to += 16 * PANEL)
            for (int r = 0; r < PANEL; r += 16) turn16(&group[r][c], 32, to + r, PANEL);
    }
}
// Columns 32 * panel of w [K, N]: each row has one group of them.
INLINE void transposed_panel(const MatmulArgs *a, WeightFormat f, int64_t panel, uint32_t *to, bool half) {
    int64_t row_bytes = blocks_row_bytes(f, a->N);
    const uint8_t *from = a->w;
    for (int64_t k = 0; k < a->K; k += half ? 2 : 1, to += PANEL) {
        bf16 pair[2][PANEL] = {{0}};
        if (!half) {
            decode_group(f, from + interleaved_row(k, a->interleaved) * row_bytes, panel, to, false);
            continue;
        }
        for (int64_t i = 0; i < 2 && k + i < a->K; i++) decode_group(f, from + interleaved_row(k + i, a->interleaved) * row_bytes, panel, pair[i], true);
        for (int c = 0; c < PANEL; c += 16) v_store((float *)(void *)to + c, i_float(i_pairs(&pair[0][c], &pair[1][c])));
    }
}
// One function a format, so that what its groups are is known to their loops.
#define PANEL_CASE(format)                                                                                   \
    case format:                                                                                             \
        if (a->transposed && half) transposed_panel(a, format, panel, to, true);                             \
        else if (a->transposed) transposed_panel(a, format, panel, to, false);                               \
        else if (half) forward_panel(a, format, panel, to, true);                                            \
        else forward_panel(a, format, panel, to, false);                                                     \
        return;
static __attribute__((unused)) void decode_panel(const MatmulArgs *a, int64_t panel, uint32_t *to, bool half) {
    switch (a->format) {
        PANEL_CASE(WEIGHT_Q8_0) PANEL_CASE(WEIGHT_Q4_0) PANEL_CASE(WEIGHT_Q4_1) PANEL_CASE(WEIGHT_Q5_0) PANEL_CASE(WEIGHT_Q5_1)
        PANEL_CASE(WEIGHT_Q4_K) PANEL_CASE(WEIGHT_Q6_K) PANEL_CASE(WEIGHT_BF16)
    default: return;
    }
}

#endif
