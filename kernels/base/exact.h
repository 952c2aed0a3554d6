// Functions whose bits are the same on every machine and device: the random generator's block and exp, log in double
// precision. Inline, so that the CPU's and the device's code are compiled from the same lines; base.h has them by name.
#ifndef RECKON_EXACT_H
#define RECKON_EXACT_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __CUDACC__
#define ON_BOTH static __host__ __device__ inline
#else
#define ON_BOTH static inline
#endif

// Philox4x32-10 (Salmon et al. 2011).
ON_BOTH void philox_block(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}
// 53 bits as a number in [0, 1).
ON_BOTH double unit_double(uint32_t high, uint32_t low) {
    return (double)(((uint64_t)high << 21) | (low >> 11)) * 0x1p-53;
}
ON_BOTH double philox_uniform(const uint32_t key[2], uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t counter[4] = {c0, c1, c2, c3}, out[4];
    philox_block(key, counter, out);
    return unit_double(out[0], out[1]);
}

ON_BOTH double scale_by_power(double x, int n) { // x * 2^n without double rounding in the normal range
    while (n > 1000) x *= 0x1p1000, n -= 1000;
    while (n < -1000) x *= 0x1p-1000, n += 1000;
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

// exp(x) = 2^n * exp(r), |r| <= ln2/2; exp(r) by the (5,5)-like rational form of fdlibm.
ON_BOTH double exp_double(double x) {
    if (x != x) return x;
    if (x > 709.782712893384) return INFINITY;
    if (x < -745.1332191019412) return 0.0;
    double n = floor(x * 1.44269504088896338700 + 0.5);
    double hi = x - n * 6.93147180369123816490e-01, lo = n * 1.90821492927058770002e-10, r = hi - lo, t = r * r;
    double c = r - t * (1.66666666666666019037e-01 +
                        t * (-2.77777777770155933842e-03 +
                             t * (6.61375632143793436117e-05 +
                                  t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))));
    return scale_by_power(1.0 - ((lo - (r * c) / (2.0 - c)) - hi), (int)n);
}

// log(x) = k ln2 + log(1 + f), sqrt(2)/2 < 1 + f < sqrt(2) (fdlibm's scheme).
ON_BOTH double log_double(double x) {
    if (x != x || x == INFINITY) return x;
    if (x < 0) return NAN;
    if (x == 0) return -INFINITY;
    int k = 0;
    double m = frexp(x, &k) * 2.0;
    k--;
    if (m > 1.4142135623730951) m *= 0.5, k++;
    double f = m - 1.0, s = f / (2.0 + f), z = s * s, w = z * z;
    double t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    double t2 = z * (6.666666666666735130e-01 +
                     w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    double R = t1 + t2, h = 0.5 * f * f, dk = k;
    return dk * 6.93147180369123816490e-01 - ((h - (s * (h + R) + dk * 1.90821492927058770002e-10)) - f);
}
#endif
