// Weights kept as their file has them: what the numbers of a group of 32 are, for the C reference, the CPU's variants and CUDA alike.
// In GGUF's blocks, or in bf16, whose groups count as blocks.
// The formulas are ggml's, one rounding per product and sum, so that a weight is the same number whether it was decoded
// once, when it was read, or here, in a product. Rows are whole blocks; bytes are put together little end first.
#ifndef RECKON_BLOCKS_H
#define RECKON_BLOCKS_H
#include "ops.h"
#include <string.h>

#ifdef __cplusplus // CUDA, the emulated one too
#define BLOCK_INLINE static __host__ __device__ inline
#else
#define BLOCK_INLINE static inline __attribute__((unused))
#endif

// Elements and bytes of a block.
BLOCK_INLINE int64_t block_elements(WeightFormat f) { return f == WEIGHT_Q4_K || f == WEIGHT_Q6_K ? 256 : 32; }
BLOCK_INLINE int64_t block_bytes(WeightFormat f) {
    switch (f) {
    case WEIGHT_Q8_0: return 34;
    case WEIGHT_Q4_0: return 18;
    case WEIGHT_Q4_1: return 20;
    case WEIGHT_Q5_0: return 22;
    case WEIGHT_Q5_1: return 24;
    case WEIGHT_Q4_K: return 144;
    case WEIGHT_Q6_K: return 210;
    case WEIGHT_BF16: return 64;
    default: return 0;
    }
}
BLOCK_INLINE int64_t blocks_row_bytes(WeightFormat f, int64_t columns) { return columns / block_elements(f) * block_bytes(f); }

// Writers of GGUF interleave the two rotary halves of each head: where row r of those in halves lies. `width` 0: as it should.
BLOCK_INLINE int64_t interleaved_row(int64_t row, int64_t width) {
    int64_t r = width ? row % width : 0, half = width / 2;
    return width ? row - r + 2 * (r % half) + r / half : row;
}

BLOCK_INLINE float block_half(const uint8_t *p) {
    uint32_t h = (uint32_t)p[0] | (uint32_t)p[1] << 8, sign = (h & 0x8000u) << 16, rest = h & 0x7fffu, bits;
    float f;
    if (rest >= 0x7c00u) bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    else if (rest >= 0x0400u) bits = sign | ((rest << 13) + 0x38000000u);
    else { // subnormal: 2^-14 * (1.m - 1)
        float tiny, one;
        uint32_t with = 0x38800000u | rest << 13, without = 0x38800000u;
        memcpy(&tiny, &with, 4), memcpy(&one, &without, 4);
        f = tiny - one;
        return sign ? -f : f;
    }
    memcpy(&f, &bits, 4);
    return f;
}

BLOCK_INLINE void group_q4_k(const uint8_t *in, int j, float *out) {
    const uint8_t *packed = in + 4, *q = in + 16 + 32 * (j / 2);
    int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
    int min = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4, shift = 4 * (j & 1);
    float dl = block_half(in) * (float)scale, ml = block_half(in + 2) * (float)min;
    for (int i = 0; i < 32; i++) out[i] = dl * (float)(q[i] >> shift & 15) - ml;
}
BLOCK_INLINE void group_q6_k(const uint8_t *in, int j, float *out) {
    int quarter = j & 3;
    const uint8_t *low = in + 64 * (j / 4) + 32 * (quarter & 1), *high = in + 128 + 32 * (j / 4);
    const uint8_t *scales = in + 192 + 8 * (j / 4) + 2 * quarter;
    float d = block_half(in + 208);
    for (int half = 0; half < 2; half++) {
        float step = d * (float)(int8_t)scales[half];
        for (int i = 16 * half; i < 16 * half + 16; i++) {
            int q = (low[i] >> (quarter & 2 ? 4 : 0) & 15) | (high[i] >> 2 * quarter & 3) << 4;
            out[i] = step * (float)(q - 32);
        }
    }
}
// Elements [32 * group, 32 * group + 32) of a row of blocks.
BLOCK_INLINE void block_group(WeightFormat f, const uint8_t *row, int64_t group, float *out) {
    const uint8_t *in = row + (f == WEIGHT_Q4_K || f == WEIGHT_Q6_K ? group / 8 : group) * block_bytes(f);
    float d, m;
    uint32_t high;
    switch (f) {
    case WEIGHT_Q8_0:
        d = block_half(in);
        for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)in[2 + i] * d;
        return;
    case WEIGHT_Q4_0:
        d = block_half(in);
        for (int i = 0; i < 16; i++) out[i] = (float)((in[2 + i] & 15) - 8) * d;
        for (int i = 0; i < 16; i++) out[i + 16] = (float)((in[2 + i] >> 4) - 8) * d;
        return;
    case WEIGHT_Q4_1:
        d = block_half(in), m = block_half(in + 2);
        for (int i = 0; i < 16; i++) out[i] = (float)(in[4 + i] & 15) * d + m;
        for (int i = 0; i < 16; i++) out[i + 16] = (float)(in[4 + i] >> 4) * d + m;
        return;
    case WEIGHT_Q5_0:
        d = block_half(in);
        high = (uint32_t)in[2] | (uint32_t)in[3] << 8 | (uint32_t)in[4] << 16 | (uint32_t)in[5] << 24;
        for (int i = 0; i < 16; i++) {
            out[i] = (float)(((in[6 + i] & 15) | (int)(high >> i & 1) << 4) - 16) * d;
            out[i + 16] = (float)((in[6 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4) - 16) * d;
        }
        return;
    case WEIGHT_Q5_1:
        d = block_half(in), m = block_half(in + 2);
        high = (uint32_t)in[4] | (uint32_t)in[5] << 8 | (uint32_t)in[6] << 16 | (uint32_t)in[7] << 24;
        for (int i = 0; i < 16; i++) {
            out[i] = (float)((in[8 + i] & 15) | (int)(high >> i & 1) << 4) * d + m;
            out[i + 16] = (float)(in[8 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4) * d + m;
        }
        return;
    case WEIGHT_Q4_K: group_q4_k(in, (int)(group % 8), out); return;
    case WEIGHT_Q6_K: group_q6_k(in, (int)(group % 8), out); return;
    case WEIGHT_BF16:
        for (int i = 0; i < 32; i++) {
            high = (uint32_t)in[2 * i] << 16 | (uint32_t)in[2 * i + 1] << 24;
            memcpy(&out[i], &high, 4);
        }
        return;
    default: return;
    }
}

#endif
