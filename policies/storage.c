// Block types follow ggml's own formulas operation by operation (one rounding per product and sum, no fused steps), so
// that dequantised values are those of its C code to the bit. Bits are put together by shifts of bytes, little end
// first: nothing here depends on alignment.
#include "storage.h"
#include <string.h>

static uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static void store16(uint8_t *p, uint16_t x) { p[0] = (uint8_t)x, p[1] = (uint8_t)(x >> 8); }
static uint32_t load32(const uint8_t *p) { return load16(p) | (uint32_t)load16(p + 2) << 16; }
static uint64_t load64(const uint8_t *p) { return load32(p) | (uint64_t)load32(p + 4) << 32; }

static float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
// IEEE half: subnormals by an exact subtraction, infinities and NaN keep their payload.
float half_to_float(uint16_t bits) {
    uint32_t h = bits, sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return float_of_bits(sign | ((rest << 13) + 0x38000000u));
    float tiny = float_of_bits(0x38800000u | rest << 13) - float_of_bits(0x38800000u); // 2^-14 * (1.m - 1)
    return sign ? -tiny : tiny;
}
static float half(const uint8_t *p) { return half_to_float(load16(p)); }

uint16_t bf16_from_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t half_from_float(float x) {
    uint32_t bits, rest, sign;
    memcpy(&bits, &x, 4);
    sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7c00u | (rest >> 13 & 0x3ffu) | ((rest >> 13 & 0x3ffu) ? 0 : 0x200u));
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // rounds to 65536 or more
    if (rest < 0x38800000u) { // subnormal: an exact scaling, then the addition rounds to even
        float magnitude = float_of_bits(rest) + 0.5f; // the unit of 0.5's last place is 2^-24
        memcpy(&bits, &magnitude, 4);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    return (uint16_t)(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13));
}

float bf16_to_float(uint16_t x) { return float_of_bits((uint32_t)x << 16); }

// ---- plain types -----------------------------------------------------------------------------------------
static void decode_f32(const uint8_t *in, int64_t n, float *out) { memcpy(out, in, (size_t)n * 4); }
static void decode_f16(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = half(in + 2 * i);
}
static void decode_bf16(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = float_of_bits((uint32_t)load16(in + 2 * i) << 16);
}
static void encode_f32(const float *in, int64_t n, uint8_t *out) { memcpy(out, in, (size_t)n * 4); }
static void encode_f16(const float *in, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i++) store16(out + 2 * i, half_from_float(in[i]));
}
static void encode_bf16(const float *in, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i++) store16(out + 2 * i, bf16_from_float(in[i]));
}
static void decode_f64(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = load64(in + 8 * i);
        double x;
        memcpy(&x, &bits, 8);
        out[i] = (float)x;
    }
}
static void decode_i8(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (int8_t)in[i];
}
static void decode_u8(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = in[i];
}
static void decode_i16(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (int16_t)load16(in + 2 * i);
}
static void decode_u16(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = load16(in + 2 * i);
}
static void decode_i32(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)(int32_t)load32(in + 4 * i);
}
static void decode_u32(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)load32(in + 4 * i);
}
static void decode_i64(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)(int64_t)load64(in + 8 * i);
}
static void decode_u64(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)load64(in + 8 * i);
}
static void decode_bool(const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = in[i] != 0;
}

// ---- blocks of 32 ----------------------------------------------------------------------------------------
static void decode_q8_0(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 34, out += 32) {
        float d = half(in);
        for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)in[2 + i] * d;
    }
}
static void decode_q4_0(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 18, out += 32) {
        float d = half(in);
        for (int i = 0; i < 16; i++) {
            out[i] = (float)((in[2 + i] & 15) - 8) * d;
            out[i + 16] = (float)((in[2 + i] >> 4) - 8) * d;
        }
    }
}
static void decode_q4_1(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 20, out += 32) {
        float d = half(in), m = half(in + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = (float)(in[4 + i] & 15) * d + m;
            out[i + 16] = (float)(in[4 + i] >> 4) * d + m;
        }
    }
}
static void decode_q5_0(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 22, out += 32) {
        float d = half(in);
        uint32_t high = load32(in + 2); // the fifth bit of each element
        for (int i = 0; i < 16; i++) {
            int low_half = (in[6 + i] & 15) | (int)(high >> i & 1) << 4;
            int high_half = in[6 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            out[i] = (float)(low_half - 16) * d;
            out[i + 16] = (float)(high_half - 16) * d;
        }
    }
}
static void decode_q5_1(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 24, out += 32) {
        float d = half(in), m = half(in + 2);
        uint32_t high = load32(in + 4);
        for (int i = 0; i < 16; i++) {
            int low_half = (in[8 + i] & 15) | (int)(high >> i & 1) << 4;
            int high_half = in[8 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            out[i] = (float)low_half * d + m;
            out[i + 16] = (float)high_half * d + m;
        }
    }
}

// ---- super-blocks of 256 ---------------------------------------------------------------------------------
// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into twelve bytes.
static void scale_and_min(int j, const uint8_t *packed, int *scale, int *min) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *min = packed[j + 4] & 63;
    } else {
        *scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        *min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}
static void decode_q4_k(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 144, out += 256) {
        float d = half(in), dmin = half(in + 2);
        for (int j = 0; j < 8; j++) { // pairs of groups of 32 share their bytes: low nibbles, then high ones
            const uint8_t *q = in + 16 + 32 * (j / 2);
            int scale, min, shift = 4 * (j & 1);
            scale_and_min(j, in + 4, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            for (int i = 0; i < 32; i++) out[32 * j + i] = dl * (float)(q[i] >> shift & 15) - ml;
        }
    }
}
static void decode_q5_k(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 176, out += 256) {
        float d = half(in), dmin = half(in + 2);
        for (int j = 0; j < 8; j++) {
            const uint8_t *high = in + 16, *q = in + 48 + 32 * (j / 2);
            int scale, min, shift = 4 * (j & 1);
            scale_and_min(j, in + 4, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            for (int i = 0; i < 32; i++)
                out[32 * j + i] = dl * (float)((q[i] >> shift & 15) + (high[i] >> j & 1) * 16) - ml;
        }
    }
}
static void decode_q6_k(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 210, out += 256) {
        float d = half(in + 208);
        for (int j = 0; j < 8; j++) { // group j of 32: half j / 4, quarter j % 4 of that half
            int quarter = j & 3;
            const uint8_t *low = in + 64 * (j / 4) + 32 * (quarter & 1), *high = in + 128 + 32 * (j / 4);
            const uint8_t *scales = in + 192 + 8 * (j / 4) + 2 * quarter;
            for (int i = 0; i < 32; i++) {
                int q = (low[i] >> (quarter & 2 ? 4 : 0) & 15) | (high[i] >> 2 * quarter & 3) << 4;
                out[32 * j + i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
            }
        }
    }
}
static void decode_q2_k(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 84, out += 256) {
        float d = half(in + 80), dmin = half(in + 82);
        for (int j = 0; j < 16; j++) { // group j of 16: two share 32 bytes, four pairs of them by bit position
            const uint8_t *q = in + 16 + 32 * (j / 8) + 16 * (j & 1);
            int shift = 2 * (j / 2 % 4);
            float dl = d * (float)(in[j] & 15), ml = dmin * (float)(in[j] >> 4);
            for (int i = 0; i < 16; i++) out[16 * j + i] = dl * (float)(q[i] >> shift & 3) - ml;
        }
    }
}
static void decode_q3_k(const uint8_t *in, int64_t blocks, float *out) {
    for (; blocks > 0; blocks--, in += 110, out += 256) {
        const uint8_t *packed = in + 96; // sixteen 6-bit scales: low nibbles of 8 bytes, then 4 bytes of high pairs
        float d = half(in + 108);
        for (int j = 0; j < 16; j++) {
            int low = packed[j & 7] >> (j & 8 ? 4 : 0) & 15, high = packed[8 + (j & 3)] >> 2 * (j / 4) & 3;
            float dl = d * (float)((low | high << 4) - 32);
            const uint8_t *q = in + 32 + 32 * (j / 8) + 16 * (j & 1), *mask = in + 16 * (j & 1);
            int shift = 2 * (j / 2 % 4), bit = j / 2;
            for (int i = 0; i < 16; i++) out[16 * j + i] = dl * (float)((q[i] >> shift & 3) - (mask[i] >> bit & 1 ? 0 : 4));
        }
    }
}

static const StorageType types[] = {
    {"F32", 0, true, 1, 4, decode_f32, encode_f32},
    {"F16", 1, true, 1, 2, decode_f16, encode_f16},
    {"BF16", 30, true, 1, 2, decode_bf16, encode_bf16},
    {"F64", 28, true, 1, 8, decode_f64, NULL},
    {"I8", 24, true, 1, 1, decode_i8, NULL},
    {"I16", 25, true, 1, 2, decode_i16, NULL},
    {"I32", 26, true, 1, 4, decode_i32, NULL},
    {"I64", 27, true, 1, 8, decode_i64, NULL},
    {"U8", -1, true, 1, 1, decode_u8, NULL},
    {"U16", -1, true, 1, 2, decode_u16, NULL},
    {"U32", -1, true, 1, 4, decode_u32, NULL},
    {"U64", -1, true, 1, 8, decode_u64, NULL},
    {"BOOL", -1, true, 1, 1, decode_bool, NULL},
    {"F8_E4M3", -1, true, 1, 1, NULL, NULL},
    {"F8_E5M2", -1, true, 1, 1, NULL, NULL},
    {"F8_E8M0", -1, true, 1, 1, NULL, NULL},
    {"C64", -1, true, 1, 8, NULL, NULL},
    {"Q8_0", 8, false, 32, 34, decode_q8_0, encode_q8_0},
    {"Q4_0", 2, false, 32, 18, decode_q4_0, encode_q4_0},
    {"Q4_1", 3, false, 32, 20, decode_q4_1, encode_q4_1},
    {"Q5_0", 6, false, 32, 22, decode_q5_0, encode_q5_0},
    {"Q5_1", 7, false, 32, 24, decode_q5_1, encode_q5_1},
    {"Q2_K", 10, false, 256, 84, decode_q2_k, NULL},
    {"Q3_K", 11, false, 256, 110, decode_q3_k, NULL},
    {"Q4_K", 12, false, 256, 144, decode_q4_k, encode_q4_k},
    {"Q5_K", 13, false, 256, 176, decode_q5_k, NULL},
    {"Q6_K", 14, false, 256, 210, decode_q6_k, encode_q6_k},
    {"Q8_1", 9, false, 32, 36, NULL, NULL},
    {"Q8_K", 15, false, 256, 292, NULL, NULL},
    {"IQ2_XXS", 16, false, 256, 66, NULL, NULL},
    {"IQ2_XS", 17, false, 256, 74, NULL, NULL},
    {"IQ3_XXS", 18, false, 256, 98, NULL, NULL},
    {"IQ1_S", 19, false, 256, 50, NULL, NULL},
    {"IQ4_NL", 20, false, 32, 18, NULL, NULL},
    {"IQ3_S", 21, false, 256, 110, NULL, NULL},
    {"IQ2_S", 22, false, 256, 82, NULL, NULL},
    {"IQ4_XS", 23, false, 256, 136, NULL, NULL},
    {"IQ1_M", 29, false, 256, 56, NULL, NULL},
    {"TQ1_0", 34, false, 256, 54, NULL, NULL},
    {"TQ2_0", 35, false, 256, 66, NULL, NULL},
    {"MXFP4", 39, false, 32, 17, NULL, NULL},
};

const StorageType *storage_by_gguf_id(uint32_t id) {
    for (int i = 0; i < COUNT(types); i++)
        if (types[i].gguf_id >= 0 && (uint32_t)types[i].gguf_id == id) return &types[i];
    return NULL;
}
const StorageType *storage_by_safetensors(const char *name) {
    for (int i = 0; i < COUNT(types); i++)
        if (types[i].safetensors && strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

const StorageType *storage_by_name(const char *name) {
    for (int i = 0; i < COUNT(types); i++)
        if (strcmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

static bool is_finite(float x) { return x - x == 0; }
bool storage_encode(const StorageType *type, const float *in, int64_t blocks, const char *where, const char *tensor,
                    uint8_t *out, Err *err) {
    if (!type->encode) return fail(err, ERR_USAGE, where, "tensor '%.100s' can't be written as %s", tensor, type->name);
    float most = type->encode == encode_f16 ? 65520.0f : 0; // from here on halves round to infinity
    for (int64_t i = 0; i < blocks * type->block && (type->block > 1 || most > 0); i++) {
        bool fits = type->block > 1 ? is_finite(in[i]) : !is_finite(in[i]) || (in[i] < most && in[i] > -most);
        if (!fits) return fail(err, ERR_DATA, where, "tensor '%.100s' holds %g, which %s can't", tensor, (double)in[i], type->name);
    }
    type->encode(in, blocks, out);
    return true;
}

bool storage_decode(const StorageType *type, const uint8_t *in, int64_t blocks, const char *where, const char *tensor,
                    float *out, Err *err) {
    if (type->decode) {
        type->decode(in, blocks, out);
        return true;
    }
    Buf known = {0};
    for (int i = 0; i < COUNT(types); i++)
        if (types[i].decode) buf_printf(&known, "%s%s", known.size ? ", " : "", types[i].name);
    fail(err, ERR_DATA, where, "tensor '%.100s' has type %s, whose values can't be read; expected one of %s", tensor,
         type->name, known.data);
    buf_free(&known);
    return false;
}
