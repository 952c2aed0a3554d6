// Blocks of four-byte values turned around: for panels of weights, and for the keys and values of a page.
#ifndef RECKON_TURN_H
#define RECKON_TURN_H
#include "simd.h"

// to[c][r] = from[r][c] for sixteen by sixteen values of four bytes; rows lie `stride` and `to_stride` values apart.
#if defined(__AVX512F__)
INLINE void turn16(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { // a[i + k]: column 4 q + k of rows i to i + 3, q by quarters of the register
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]), a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512i even0 = _mm512_shuffle_i32x4(a[k], a[k + 4], 0x88), odd0 = _mm512_shuffle_i32x4(a[k], a[k + 4], 0xdd);
        __m512i even1 = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0x88), odd1 = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0xdd);
        _mm512_storeu_si512(to + k * to_stride, _mm512_shuffle_i32x4(even0, even1, 0x88));
        _mm512_storeu_si512(to + (k + 4) * to_stride, _mm512_shuffle_i32x4(odd0, odd1, 0x88));
        _mm512_storeu_si512(to + (k + 8) * to_stride, _mm512_shuffle_i32x4(even0, even1, 0xdd));
        _mm512_storeu_si512(to + (k + 12) * to_stride, _mm512_shuffle_i32x4(odd0, odd1, 0xdd));
    }
}
// Eight by eight values of eight bytes.
INLINE void turn_wide(const __m512i *from, __m512i *to) {
    __m512i pairs[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) pairs[i] = _mm512_unpacklo_epi64(from[i], from[i + 1]), pairs[i + 1] = _mm512_unpackhi_epi64(from[i], from[i + 1]);
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) { // pairs[i + k]: column 2 q + k of rows i and i + 1, q by quarters of the register
        __m512i even0 = _mm512_shuffle_i64x2(pairs[k], pairs[k + 2], 0x88), odd0 = _mm512_shuffle_i64x2(pairs[k], pairs[k + 2], 0xdd);
        __m512i even1 = _mm512_shuffle_i64x2(pairs[k + 4], pairs[k + 6], 0x88), odd1 = _mm512_shuffle_i64x2(pairs[k + 4], pairs[k + 6], 0xdd);
        to[k] = _mm512_shuffle_i64x2(even0, even1, 0x88), to[k + 2] = _mm512_shuffle_i64x2(odd0, odd1, 0x88);
        to[k + 4] = _mm512_shuffle_i64x2(even0, even1, 0xdd), to[k + 6] = _mm512_shuffle_i64x2(odd0, odd1, 0xdd);
    }
}
// Thirty-two rows by thirty-two columns of bf16: pairs of columns by rows, from[16][32], become pairs of rows by columns, to[16][32].
INLINE void turn_pairs(const uint32_t *from, uint32_t *to) {
    // Of two rows beside each other, the first members side by side and then the second.
    __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (int row = 0; row < 2; row++)
        for (int column = 0; column < 2; column++) {
            __m512i block[8], turned[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) block[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + (8 * column + i) * 32 + 16 * row), order);
            turn_wide(block, turned);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) _mm512_storeu_si512(to + (8 * row + i) * 32 + 16 * column, turned[i]);
        }
}
#elif defined(__AVX2__)
INLINE void turn8(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps((const float *)(const void *)(from + i * stride));
    for (int i = 0; i < 8; i += 2) b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    for (int i = 0; i < 8; i += 4) { // a[i + k]: columns k and k + 4 of rows i to i + 3
        a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44), a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
        a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44), a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
    for (int k = 0; k < 4; k++) {
        _mm256_storeu_ps((float *)(void *)(to + k * to_stride), _mm256_permute2f128_ps(a[k], a[k + 4], 0x20));
        _mm256_storeu_ps((float *)(void *)(to + (k + 4) * to_stride), _mm256_permute2f128_ps(a[k], a[k + 4], 0x31));
    }
}
INLINE void turn16(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride) {
    for (int i = 0; i < 4; i++) turn8(from + i / 2 * 8 * stride + i % 2 * 8, stride, to + i % 2 * 8 * to_stride + i / 2 * 8, to_stride);
}
#else
INLINE void turn16(const uint32_t *from, int64_t stride, uint32_t *to, int64_t to_stride) {
    for (int c = 0; c < 16; c++) EACH to[c * to_stride + i] = from[i * stride + c];
}
#endif
#if !defined(__AVX512F__)
INLINE void turn_pairs(const uint32_t *from, uint32_t *to) {
    uint32_t turned[32 * 16]; // [32 rows][16 pairs of columns]
    for (int c = 0; c < 32; c += 16) turn16(from + c, 32, turned + c * 16, 16);
    for (int s = 0; s < 16; s++)
        for (int c = 0; c < 32; c += 16) {
            const bf16 *even = (const bf16 *)(turned + 2 * s * 16) + c, *odd = even + 32;
            v_store((float *)(void *)(to + s * 32 + c), i_float(i_pairs(even, odd)));
        }
}
#endif

#endif
