// Sixteen lanes of fp32, the same bits whatever the instruction set: one AVX-512 register, two AVX2 registers, or an
// array. Every function is exact (fused multiply-add, IEEE division) or defined by its steps here. Each file of this
// folder is compiled once per variant; V(name) gives its functions the variant's suffix.
#ifndef RECKON_SIMD_H
#define RECKON_SIMD_H
#include "../ops.h"
#include "../threads.h"
#include <math.h>
#include <string.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define V(name) JOIN(name, VARIANT)
#if defined(__AVX2__)
#define INLINE static inline __attribute__((always_inline, unused))
#elif defined(RECKON_SANITIZED)
// Every lane of the array version carries checks: inlined, one file takes gcc minutes and 800 MB.
#define INLINE static __attribute__((unused))
#else
#define INLINE static inline __attribute__((unused)) // the array version: gcc judges by size
#endif

#define MINUS_INFINITY (-INFINITY)

#define PROTOTYPE(name, Args) void V(name)(const Team *team, const Args *args);
RECKON_OPERATIONS(PROTOTYPE)

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 v16;
typedef __m512i i16;
INLINE v16 v_set1(float x) { return _mm512_set1_ps(x); }
INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE v16 v_fma_if(bool yes, v16 a, v16 b, v16 c) { return _mm512_mask3_fmadd_ps(a, b, c, (__mmask16)-(int)yes); } // else c
INLINE v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); } // b where either is NaN
INLINE v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
INLINE v16 v_if_less(v16 a, v16 b, v16 yes, v16 no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
INLINE v16 v_if_nan(v16 a, v16 yes, v16 no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes);
}
INLINE v16 v_first(v16 a, int n, v16 rest) { // lanes 0..n-1 of a, the others of rest
    return _mm512_mask_blend_ps(n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1), rest, a);
}
INLINE i16 i_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE i16 i_set1(int32_t x) { return _mm512_set1_epi32(x); }
INLINE i16 i_bits(v16 a) { return _mm512_castps_si512(a); }
INLINE v16 i_float(i16 a) { return _mm512_castsi512_ps(a); }
INLINE i16 i_add(i16 a, i16 b) { return _mm512_add_epi32(a, b); }
INLINE i16 i_and(i16 a, i16 b) { return _mm512_and_si512(a, b); }
INLINE i16 i_or(i16 a, i16 b) { return _mm512_or_si512(a, b); }
INLINE i16 i_shl(i16 a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE i16 i_shr(i16 a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
INLINE void i_store_first(void *p, i16 a, int n) { _mm512_mask_storeu_epi32(p, n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1), a); } // n lanes
INLINE i16 i_widen(const uint16_t *p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void i_narrow(uint16_t *p, i16 a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(a)); }
INLINE v16 v_whole(i16 a) { return _mm512_cvtepi32_ps(a); } // of whole numbers
#elif defined(__AVX2__)
#include <immintrin.h>
typedef struct { __m256 a, b; } v16;
typedef struct { __m256i a, b; } i16;
#define TWO(type, f, ...) ((type){f(x.a, ##__VA_ARGS__), f(x.b, ##__VA_ARGS__)})
INLINE v16 v_set1(float x) { __m256 r = _mm256_set1_ps(x); return (v16){r, r}; }
INLINE v16 v_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v_store(float *p, v16 x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
INLINE v16 v_add(v16 x, v16 y) { return (v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE v16 v_sub(v16 x, v16 y) { return (v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE v16 v_mul(v16 x, v16 y) { return (v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE v16 v_div(v16 x, v16 y) { return (v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE v16 v_fma(v16 x, v16 y, v16 z) {
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE v16 v_max(v16 x, v16 y) { return (v16){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE v16 v_min(v16 x, v16 y) { return (v16){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE v16 v_sqrt(v16 x) { return (v16){_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
INLINE v16 v_if_less(v16 x, v16 y, v16 yes, v16 no) {
    return (v16){_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
INLINE v16 v_if_nan(v16 x, v16 yes, v16 no) {
    return (v16){_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q)),
                 _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q))};
}
INLINE v16 v_first(v16 x, int n, v16 rest) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
    __m256 high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane));
    return (v16){_mm256_blendv_ps(rest.a, x.a, low), _mm256_blendv_ps(rest.b, x.b, high)};
}
INLINE i16 i_load(const void *p) {
    return (i16){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
INLINE i16 i_set1(int32_t v) { __m256i r = _mm256_set1_epi32(v); return (i16){r, r}; }
INLINE i16 i_bits(v16 x) { return TWO(i16, _mm256_castps_si256); }
INLINE v16 i_float(i16 x) { return TWO(v16, _mm256_castsi256_ps); }
INLINE i16 i_add(i16 x, i16 y) { return (i16){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE i16 i_and(i16 x, i16 y) { return (i16){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
INLINE i16 i_or(i16 x, i16 y) { return (i16){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
INLINE i16 i_shl(i16 x, int n) { return TWO(i16, _mm256_slli_epi32, n); }
INLINE i16 i_shr(i16 x, int n) { return TWO(i16, _mm256_srli_epi32, n); }
INLINE void i_store_first(void *p, i16 x, int n) {
    int32_t lanes[16];
    memcpy(lanes, &x, sizeof lanes);
    memcpy(p, lanes, (size_t)n * 4);
}
INLINE i16 i_widen(const uint16_t *p) {
    return (i16){_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p + 1))};
}
INLINE void i_narrow(uint16_t *p, i16 x) {
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8);
    _mm256_storeu_si256((__m256i *)p, packed);
}
INLINE v16 v_whole(i16 x) { return (v16){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
#else
typedef struct { float f[16]; } v16;
typedef struct { uint32_t u[16]; } i16;
#define EACH for (int i = 0; i < 16; i++)
INLINE v16 v_set1(float x) { v16 r; EACH r.f[i] = x; return r; }
INLINE v16 v_load(const float *p) { v16 r; memcpy(&r, p, sizeof r); return r; }
INLINE void v_store(float *p, v16 a) { memcpy(p, &a, sizeof a); }
INLINE v16 v_add(v16 a, v16 b) { EACH a.f[i] += b.f[i]; return a; }
INLINE v16 v_sub(v16 a, v16 b) { EACH a.f[i] -= b.f[i]; return a; }
INLINE v16 v_mul(v16 a, v16 b) { EACH a.f[i] *= b.f[i]; return a; }
INLINE v16 v_div(v16 a, v16 b) { EACH a.f[i] /= b.f[i]; return a; }
static __attribute__((noinline, unused)) v16 v_fma(v16 a, v16 b, v16 c) { EACH c.f[i] = fmaf(a.f[i], b.f[i], c.f[i]); return c; }
INLINE v16 v_max(v16 a, v16 b) { EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i]; return a; }
INLINE v16 v_min(v16 a, v16 b) { EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i]; return a; }
INLINE v16 v_sqrt(v16 a) { EACH a.f[i] = sqrtf(a.f[i]); return a; }
INLINE v16 v_if_less(v16 a, v16 b, v16 yes, v16 no) { EACH no.f[i] = a.f[i] < b.f[i] ? yes.f[i] : no.f[i]; return no; }
INLINE v16 v_if_nan(v16 a, v16 yes, v16 no) { EACH no.f[i] = a.f[i] != a.f[i] ? yes.f[i] : no.f[i]; return no; }
INLINE v16 v_first(v16 a, int n, v16 rest) { EACH rest.f[i] = i < n ? a.f[i] : rest.f[i]; return rest; }
INLINE i16 i_load(const void *p) { i16 r; memcpy(&r, p, sizeof r); return r; }
INLINE i16 i_set1(int32_t x) { i16 r; EACH r.u[i] = (uint32_t)x; return r; }
INLINE i16 i_bits(v16 a) { i16 r; memcpy(&r, &a, sizeof r); return r; }
INLINE v16 i_float(i16 a) { v16 r; memcpy(&r, &a, sizeof r); return r; }
INLINE i16 i_add(i16 a, i16 b) { EACH a.u[i] += b.u[i]; return a; }
INLINE i16 i_and(i16 a, i16 b) { EACH a.u[i] &= b.u[i]; return a; }
INLINE i16 i_or(i16 a, i16 b) { EACH a.u[i] |= b.u[i]; return a; }
INLINE i16 i_shl(i16 a, int n) { EACH a.u[i] <<= n; return a; }
INLINE i16 i_shr(i16 a, int n) { EACH a.u[i] >>= n; return a; }
INLINE void i_store_first(void *p, i16 a, int n) { memcpy(p, &a, (size_t)n * 4); }
INLINE i16 i_widen(const uint16_t *p) { i16 r; EACH r.u[i] = p[i]; return r; }
INLINE void i_narrow(uint16_t *p, i16 a) { EACH p[i] = (uint16_t)a.u[i]; }
INLINE v16 v_whole(i16 a) { v16 r; EACH r.f[i] = (float)(int32_t)a.u[i]; return r; }
#endif

INLINE v16 v_zero(void) { return v_set1(0.0f); }
#if !defined(__AVX512F__)
INLINE v16 v_fma_if(bool yes, v16 a, v16 b, v16 c) { return yes ? v_fma(a, b, c) : c; }
#endif

// ---- bf16 ------------------------------------------------------------------------------------------------
INLINE v16 v_load_bf16(const bf16 *p) { return i_float(i_shl(i_widen(p), 16)); }
// Rounded to nearest even; a NaN keeps being one (quiet, its payload cut).
INLINE void v_store_bf16(bf16 *p, v16 a) {
    i16 bits = i_bits(a);
    i16 rounded = i_add(bits, i_add(i_set1(0x7fff), i_and(i_shr(bits, 16), i_set1(1))));
    i16 quiet = i_bits(v_if_nan(a, i_float(i_set1(0x7fc00000)), i_float(rounded)));
    i_narrow(p, i_shr(quiet, 16));
}
// The same of what arithmetic gave: never a denormal, since those are flushed (threads.h).
INLINE void v_store_bf16_result(bf16 *p, v16 a) {
#if defined(__AVX512BF16__)
    __m256i rounded = (__m256i)_mm512_cvtneps_pbh(a);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    _mm256_storeu_si256((__m256i *)p, _mm256_mask_mov_epi16(rounded, nan, _mm256_set1_epi16(0x7fc0)));
#else
    v_store_bf16(p, a);
#endif
}
INLINE float from_bf16(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
INLINE bf16 to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if (f != f) return 0x7fc0;
    return (bf16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// ---- a step of a chain: one fp32 value, or a pair of bf16, in 32 bits ------------------------------------------
// acc += pair . pair: odd member first, then even.
#if defined(__AVX512BF16__)
INLINE v16 dot_bf16(v16 acc, i16 w, int32_t x) {
    return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}
#else
INLINE v16 dot_bf16(v16 acc, i16 w, int32_t x) {
    i16 xs = i_set1(x), high = i_set1((int32_t)0xffff0000);
    acc = v_fma(i_float(i_and(w, high)), i_float(i_and(xs, high)), acc);
    return v_fma(i_float(i_shl(w, 16)), i_float(i_shl(xs, 16)), acc);
}
#endif
INLINE v16 dot_step(v16 acc, i16 w, int32_t x, bool half) {
    if (half) return dot_bf16(acc, w, x);
    return v_fma(i_float(w), i_float(i_set1(x)), acc);
}
INLINE int32_t load_step(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return x;
}
// Sixteen pairs from two rows.
INLINE i16 i_pairs(const bf16 *even, const bf16 *odd) { return i_or(i_widen(even), i_shl(i_widen(odd), 16)); }

// ---- act arrays: fp32 or bf16 by a constant flag -----------------------------------------------------------
INLINE v16 act_load(const void *p, int64_t index, bool half) {
    return half ? v_load_bf16((const bf16 *)p + index) : v_load((const float *)p + index);
}
INLINE void act_store(void *p, int64_t index, v16 a, bool half) {
    if (half)
        v_store_bf16((bf16 *)p + index, a);
    else
        v_store((float *)p + index, a);
}
INLINE void act_store_result(void *p, int64_t index, v16 a, bool half) {
    if (half)
        v_store_bf16_result((bf16 *)p + index, a);
    else
        v_store((float *)p + index, a);
}
INLINE float act_get(const void *p, int64_t index, bool half) {
    return half ? from_bf16(((const bf16 *)p)[index]) : ((const float *)p)[index];
}
INLINE void act_put(void *p, int64_t index, float x, bool half) {
    if (half)
        ((bf16 *)p)[index] = to_bf16(x);
    else
        ((float *)p)[index] = x;
}
// Asks for the lines of `count` elements ahead of their use.
INLINE void act_prefetch(const void *p, int64_t index, int64_t count, bool half) {
    int64_t size = half ? 2 : 4;
    for (int64_t at = 0; at < count * size; at += 64) __builtin_prefetch((const char *)p + index * size + at, 0, 3);
}
// The first n (< 16) lanes from memory, zero beyond; and back.
INLINE v16 act_load_part(const void *p, int64_t index, int n, bool half) {
    float lanes[16] = {0};
    for (int i = 0; i < n; i++) lanes[i] = act_get(p, index + i, half);
    return v_load(lanes);
}
INLINE void act_store_part(void *p, int64_t index, v16 a, int n, bool half) {
    float lanes[16];
    v_store(lanes, a);
    for (int i = 0; i < n; i++) act_put(p, index + i, lanes[i], half);
}
// Full registers, then the rest: BODY sees `c` (first column) and `n` (16 or fewer).
#define FOR_LANES(C) for (int64_t c = 0, n; c < (C) && (n = (C) - c < 16 ? (C) - c : 16, 1); c += 16)
INLINE v16 lanes_load(const void *p, int64_t index, int64_t n, bool half) {
    return n == 16 ? act_load(p, index, half) : act_load_part(p, index, (int)n, half);
}
INLINE void lanes_store(void *p, int64_t index, v16 a, int64_t n, bool half) {
    if (n == 16)
        act_store(p, index, a, half);
    else
        act_store_part(p, index, a, (int)n, half);
}
INLINE void lanes_store_result(void *p, int64_t index, v16 a, int64_t n, bool half) {
    if (n == 16)
        act_store_result(p, index, a, half);
    else
        act_store_part(p, index, a, (int)n, half);
}

// ---- reductions over lanes: a halving tree ------------------------------------------------------------------
#if defined(__AVX2__)
// The upper half folded onto the lower one by F, until one lane is left.
#define FOLD(F, eight)                                                                                       \
    __m256 x8 = (eight);                                                                                     \
    __m128 x4 = _mm_##F##_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));                      \
    x4 = _mm_##F##_ps(x4, _mm_movehl_ps(x4, x4));                                                            \
    return _mm_cvtss_f32(_mm_##F##_ss(x4, _mm_movehdup_ps(x4)));
#if defined(__AVX512F__)
INLINE __m256 v_low(v16 a) { return _mm512_castps512_ps256(a); }
INLINE __m256 v_high(v16 a) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)); }
#else
INLINE __m256 v_low(v16 x) { return x.a; }
INLINE __m256 v_high(v16 x) { return x.b; }
#endif
INLINE float v_sum(v16 a) { FOLD(add, _mm256_add_ps(v_low(a), v_high(a))) }
INLINE float v_largest(v16 a) { FOLD(max, _mm256_max_ps(v_low(a), v_high(a))) }
#else
INLINE float v_sum(v16 a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.f[i] += a.f[i + width];
    return a.f[0];
}
INLINE float v_largest(v16 a) {
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++) a.f[i] = a.f[i] > a.f[i + width] ? a.f[i] : a.f[i + width];
    return a.f[0];
}
#endif

// ---- exp -----------------------------------------------------------------------------------------------------
// exp(x) = 2^n exp(r), |r| <= ln2/2, polynomial of degree 6 (Cephes expf); below -87.336 it is 0, above 88.376 it
// stays at its value there; NaN stays NaN. Error under 2 ulp.
INLINE v16 v_exp(v16 x) {
    v16 y = v_min(v_max(x, v_set1(-87.336544f)), v_set1(88.3762626647949f));
    v16 shifted = v_fma(y, v_set1(1.44269504088896341f), v_set1(12582912.0f));
    v16 n = v_sub(shifted, v_set1(12582912.0f));
    v16 r = v_fma(n, v_set1(-0.693359375f), y);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    v16 p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    v16 power = i_float(i_add(i_shl(i_bits(shifted), 23), i_set1(0x3f800000)));
    p = v_mul(p, power);
    p = v_if_less(x, v_set1(-87.336544f), v_zero(), p);
    return v_if_nan(x, x, p);
}
// Cephes' tanhf: a polynomial near zero, beyond it 1 - 2 / (exp(2|x|) + 1) with x's sign.
INLINE v16 v_tanh(v16 x) {
    v16 z = v_mul(x, x), size = v_max(x, v_sub(v_zero(), x)), one = v_set1(1.0f), p = v_set1(-5.70498872745e-3f);
    v16 far = v_sub(one, v_div(v_set1(2.0f), v_add(v_exp(v_add(size, size)), one)));
    p = v_fma(p, z, v_set1(2.06390887954e-2f));
    p = v_fma(p, z, v_set1(-5.37397155531e-2f));
    p = v_fma(p, z, v_set1(1.33314422036e-1f));
    p = v_fma(p, z, v_set1(-3.33332819422e-1f));
    v16 near = v_fma(v_mul(p, z), x, x);
    return v_if_nan(x, x, v_if_less(size, v_set1(0.625f), near, v_if_less(x, v_zero(), v_sub(v_zero(), far), far)));
}
INLINE v16 v_sigmoid(v16 x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x)))); }

#endif
