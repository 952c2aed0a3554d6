// The quantisers: fp32 to the block types of GGUF. Types of 32 follow the formulas of the `gguf` package, so that both
// give the same bytes. The super-blocks of 256 choose scales by weighted least squares over a number of trial grids: what
// a reader makes of them is fixed by storage.c, how well they are chosen is up to the writer. Values are finite; the
// caller looks.
#include "storage.h"
#include <math.h>
#include <string.h>

static void put16(uint8_t *p, uint16_t x) { p[0] = (uint8_t)x, p[1] = (uint8_t)(x >> 8); }
static int clamp(int x, int low, int high) { return x < low ? low : x > high ? high : x; }
// The nearest whole number within bounds, without ever converting a float that an int can't hold.
static int nearest(float x, int low, int high) {
    if (!(x > (float)low)) return low;
    if (!(x < (float)high)) return high;
    return (int)lrintf(x);
}

// ---- blocks of 32 ----------------------------------------------------------------------------------------
void encode_q8_0(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 32, out += 34) {
        float largest = 0;
        for (int i = 0; i < 32; i++) largest = fabsf(in[i]) > largest ? fabsf(in[i]) : largest;
        float d = largest / 127, inverse = d != 0 ? 1 / d : 0;
        put16(out, half_from_float(d));
        for (int i = 0; i < 32; i++) { // halves go away from zero
            float x = fabsf(in[i]) * inverse, whole = floorf(x);
            int q = clamp((int)(x - whole >= 0.5f ? whole + 1 : whole), 0, 127);
            out[2 + i] = (uint8_t)(int8_t)(in[i] < 0 ? -q : q);
        }
    }
}

// The element of largest magnitude, the first of equals.
static float extreme(const float *in, int n) {
    float x = in[0];
    for (int i = 1; i < n; i++) x = fabsf(in[i]) > fabsf(x) ? in[i] : x;
    return x;
}
// q = trunc(x / d + offset), a half included in the offset.
static int level_of(float x, float inverse, float offset, int high) {
    float q = x * inverse + offset;
    return q < 0 ? 0 : q > (float)high ? high : (int)q;
}
static void put_nibbles(const int *q, uint8_t *out) {
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}
static void put_fifth_bits(const int *q, uint8_t *out) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(q[i] >> 4 & 1) << i;
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(bits >> 8 * i);
}

void encode_q4_0(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 32, out += 18) {
        int q[32];
        float d = extreme(in, 32) / -8, inverse = d != 0 ? 1 / d : 0;
        put16(out, half_from_float(d));
        for (int i = 0; i < 32; i++) q[i] = level_of(in[i], inverse, 8.5f, 15);
        put_nibbles(q, out + 2);
    }
}
void encode_q5_0(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 32, out += 22) {
        int q[32];
        float d = extreme(in, 32) / -16, inverse = d != 0 ? 1 / d : 0;
        put16(out, half_from_float(d));
        for (int i = 0; i < 32; i++) q[i] = level_of(in[i], inverse, 16.5f, 31);
        put_fifth_bits(q, out + 2);
        put_nibbles(q, out + 6);
    }
}
// Smallest value and step of an even grid over the block.
static void range_of(const float *in, int levels, float *low, float *step) {
    float high = in[0];
    *low = in[0];
    for (int i = 1; i < 32; i++) {
        *low = in[i] < *low ? in[i] : *low;
        high = in[i] > high ? in[i] : high;
    }
    *step = (high - *low) / (float)levels;
}
static int level_above(float x, float low, float inverse, int high) {
    float q = (x - low) * inverse + 0.5f;
    return q < 0 ? 0 : q > (float)high ? high : (int)q;
}
void encode_q4_1(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 32, out += 20) {
        int q[32];
        float low, step;
        range_of(in, 15, &low, &step);
        float inverse = step != 0 ? 1 / step : 0;
        put16(out, half_from_float(step));
        put16(out + 2, half_from_float(low));
        for (int i = 0; i < 32; i++) q[i] = level_above(in[i], low, inverse, 15);
        put_nibbles(q, out + 4);
    }
}
void encode_q5_1(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 32, out += 24) {
        int q[32];
        float low, step;
        range_of(in, 31, &low, &step);
        float inverse = step != 0 ? 1 / step : 0;
        put16(out, half_from_float(step));
        put16(out + 2, half_from_float(low));
        for (int i = 0; i < 32; i++) q[i] = level_above(in[i], low, inverse, 31);
        put_fifth_bits(q, out + 4);
        put_nibbles(q, out + 8);
    }
}

// ---- super-blocks of 256 ---------------------------------------------------------------------------------
// x ~ scale * q - offset with q in 0..15 and offset >= 0. Each trial grid gives levels; the best line through these levels
// (least squares, large values weigh more) is what counts, judged by its own error.
typedef struct Line {
    double scale, offset, error;
} Line;

static Line line_through(const float *x, const double *weight, const int *q, int n) {
    double w = 0, wq = 0, wqq = 0, wx = 0, wqx = 0;
    for (int i = 0; i < n; i++) {
        w += weight[i];
        wq += weight[i] * q[i];
        wqq += weight[i] * q[i] * q[i];
        wx += weight[i] * (double)x[i];
        wqx += weight[i] * q[i] * (double)x[i];
    }
    double determinant = w * wqq - wq * wq;
    Line l = {0};
    if (determinant > 0) {
        l.scale = (w * wqx - wq * wx) / determinant;
        l.offset = (wq * wqx - wqq * wx) / determinant;
    }
    if (!(determinant > 0) || l.offset < 0) { // a grid through zero
        l.offset = 0;
        l.scale = wqq > 0 ? wqx / wqq : 0;
    }
    for (int i = 0; i < n; i++) {
        double e = l.scale * q[i] - l.offset - (double)x[i];
        l.error += weight[i] * e * e;
    }
    return l;
}
static Line fit_line(const float *x, int n) {
    enum { LEVELS = 15, TRIALS = 21, MAX = 32 };
    double weight[MAX], squares = 0;
    float low = 0, high = x[0];
    for (int i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (!(high > low)) return (Line){.offset = -(double)low};
    for (int i = 0; i < n; i++) weight[i] = sqrt(squares / n) + fabs((double)x[i]);
    Line best = {.error = INFINITY};
    for (int t = 0; t < TRIALS; t++) {
        int q[MAX];
        float inverse = ((float)LEVELS - 1.0f + 0.1f * (float)t) / (high - low);
        for (int i = 0; i < n; i++) q[i] = nearest((x[i] - low) * inverse, 0, LEVELS);
        Line l = line_through(x, weight, q, n);
        if (l.scale > 0 && l.error < best.error) best = l;
    }
    if (!(best.error < INFINITY)) best = (Line){.scale = ((double)high - (double)low) / LEVELS, .offset = -(double)low};
    return best;
}

// Eight 6-bit scales and eight 6-bit minima in twelve bytes.
static void put_scales(const int *scale, const int *min, uint8_t *out) {
    for (int j = 0; j < 4; j++) {
        out[j] = (uint8_t)(scale[j] | (scale[j + 4] >> 4) << 6);
        out[j + 4] = (uint8_t)(min[j] | (min[j + 4] >> 4) << 6);
        out[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}
static void encode_q4_k_block(const float *in, uint8_t *out) {
    Line lines[8];
    double largest_scale = 0, largest_offset = 0;
    for (int j = 0; j < 8; j++) {
        lines[j] = fit_line(in + 32 * j, 32);
        largest_scale = lines[j].scale > largest_scale ? lines[j].scale : largest_scale;
        largest_offset = lines[j].offset > largest_offset ? lines[j].offset : largest_offset;
    }
    uint16_t d16 = half_from_float((float)(largest_scale / 63)), m16 = half_from_float((float)(largest_offset / 63));
    float d = half_to_float(d16), dmin = half_to_float(m16);
    int scale[8], min[8];
    uint8_t *q = out + 16;
    memset(out, 0, 144);
    put16(out, d16), put16(out + 2, m16);
    for (int j = 0; j < 8; j++) {
        scale[j] = d > 0 ? nearest((float)lines[j].scale / d, 0, 63) : 0;
        min[j] = dmin > 0 ? nearest((float)lines[j].offset / dmin, 0, 63) : 0;
        float dl = d * (float)scale[j], ml = dmin * (float)min[j];
        for (int i = 0; i < 32; i++) {
            int level = dl > 0 ? nearest((in[32 * j + i] + ml) / dl, 0, 15) : 0;
            q[32 * (j / 2) + i] |= (uint8_t)(level << 4 * (j & 1));
        }
    }
    put_scales(scale, min, out + 4);
}
void encode_q4_k(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 256, out += 144) encode_q4_k_block(in, out);
}

// x ~ scale * q with q in -32..31, the scale of either sign: sixteen values, weighed by their squares.
static double fit_scale(const float *x) {
    float most = extreme(x, 16);
    double best = 0, scale = 0;
    if (!(fabsf(most) > 0)) return 0;
    for (int t = -9; t <= 9; t++) {
        float inverse = -(32.0f + 0.1f * (float)t) / most;
        double product = 0, square = 0;
        for (int i = 0; i < 16; i++) {
            double q = nearest(inverse * x[i], -32, 31), w = (double)x[i] * (double)x[i];
            product += w * q * (double)x[i];
            square += w * q * q;
        }
        if (square > 0 && product * product > best * square) {
            best = product * product / square;
            scale = product / square;
        }
    }
    return scale;
}
static void encode_q6_k_block(const float *in, uint8_t *out) {
    double scales[16], most = 0;
    for (int j = 0; j < 16; j++) {
        scales[j] = fit_scale(in + 16 * j);
        most = fabs(scales[j]) > fabs(most) ? scales[j] : most;
    }
    uint16_t d16 = half_from_float((float)(most / -128));
    float d = half_to_float(d16);
    memset(out, 0, 210);
    put16(out + 208, d16);
    for (int j = 0; j < 16; j++) {
        int scale = d != 0 ? nearest((float)scales[j] / d, -128, 127) : 0;
        float step = d * (float)scale;
        out[192 + j] = (uint8_t)(int8_t)scale;
        for (int i = 0; i < 16; i++) {
            int at = 16 * j + i, q = (step != 0 ? nearest(in[at] / step, -32, 31) : 0) + 32;
            int quarter = at / 32 % 4, within = at % 32, half = at / 128;
            out[64 * half + 32 * (quarter & 1) + within] |= (uint8_t)((q & 15) << (quarter & 2 ? 4 : 0));
            out[128 + 32 * half + within] |= (uint8_t)(q >> 4 << 2 * quarter);
        }
    }
}
void encode_q6_k(const float *in, int64_t blocks, uint8_t *out) {
    for (; blocks > 0; blocks--, in += 256, out += 210) encode_q6_k_block(in, out);
}
