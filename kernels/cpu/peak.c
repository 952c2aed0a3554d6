// What the processor could do at best, for `reckon bench machine`: steps of independent chains that never leave the
// registers, and memory far larger than the caches read from one end to the other. The results mean nothing.
#include "../peak.h"
#include "simd.h"

void V(peak_products)(const Team *team, const void *args);
void V(peak_reading)(const Team *team, const void *args);

#if defined(__AVX512F__)
enum { CHAINS = 24 }; // they hide the latency of a step, and fit into the registers
#else
enum { CHAINS = 6 };
#endif

INLINE float run_chains(int64_t rounds, bool half) {
    v16 acc[CHAINS];
    int32_t bits[2] = {0x3f803f80, 0x3f003f00};
    const volatile int32_t *hidden = bits; // nothing here is known when this is compiled
    i16 w = i_set1(hidden[0]);
    int32_t x = hidden[1];
    for (int i = 0; i < CHAINS; i++) acc[i] = v_zero();
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) acc[i] = dot_step(acc[i], w, x, half);
    float sum = 0;
    for (int i = 0; i < CHAINS; i++) sum += v_sum(acc[i]);
    return sum;
}

void V(peak_products)(const Team *team, const void *args) {
    const PeakProducts *p = args;
    bool half = p->dtype == DTYPE_BF16;
    p->flops[team->thread] = (double)p->rounds * CHAINS * 16 * (half ? 4 : 2);
    p->sink[team->thread] = half ? run_chains(p->rounds, true) : run_chains(p->rounds, false);
}

void V(peak_reading)(const Team *team, const void *args) {
    const PeakReading *p = args;
    int64_t from, to;
    team_share(team, p->count, 128, &from, &to);
    v16 acc[8];
    for (int i = 0; i < 8; i++) acc[i] = v_zero();
    for (int64_t at = from; at + 128 <= to; at += 128)
        for (int i = 0; i < 8; i++) acc[i] = v_add(acc[i], v_load(p->memory + at + 16 * i));
    for (int i = 1; i < 8; i++) acc[0] = v_add(acc[0], acc[i]);
    p->sink[team->thread] = v_sum(acc[0]);
}
