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

#endif
