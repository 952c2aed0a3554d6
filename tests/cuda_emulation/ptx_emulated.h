// The functions of kernels/cuda/ptx.h on the emulated device; warp.cpp says what each does.
#ifndef RECKON_PTX_EMULATED_H
#define RECKON_PTX_EMULATED_H
#include "cuda_device.h"

extern "C" {
void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void ldmatrix_x4(uint32_t r[4], const void *row);
void ldmatrix_x4_trans(uint32_t r[4], const void *row);
void ldmatrix_x2(uint32_t r[2], const void *row);
void ldmatrix_x2_trans(uint32_t r[2], const void *row);
void cp_async_16(void *shared, const void *global, bool valid);
void cp_async_4(void *shared, const void *global, bool valid);
void cp_async_commit(void);
void emulation_async_wait(int groups);
uint32_t shared_address(const void *p);
void emulation_wgmma(float *d, uint64_t a, uint64_t b, int columns, int add);
void wgmma_fence(void);
void wgmma_commit(void);
void emulation_wgmma_wait(int groups);
void fence_proxy_async(void);
void arrival_begin(uint64_t *barrier, int arrivals);
void arrival_expect(uint64_t *barrier, int bytes);
void arrival_wait(uint64_t *barrier, int parity);
void copy_tile(void *tile, const void *map, int column, int row, int matrix, uint64_t *barrier);
float exp2_approx(float x);
uint32_t pack_bf16x2(float low, float high);
}
template <int N> static inline void cp_async_wait(void) { emulation_async_wait(N); }

constexpr bool HAS_WGMMA = true; // asked of the machine when it is used
template <int COUNT> static inline void wgmma_m64k16_bf16(float (&d)[COUNT][4], uint64_t a, uint64_t b, bool add) {
    emulation_wgmma(d[0], a, b, 8 * COUNT, add);
}
template <int N, class... Sums> static inline void wgmma_wait(Sums &...) { emulation_wgmma_wait(N); }

#endif
