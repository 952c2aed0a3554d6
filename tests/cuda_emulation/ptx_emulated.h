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
float exp2_approx(float x);
uint32_t pack_bf16x2(float low, float high);
}
template <int N> static inline void cp_async_wait(void) { emulation_async_wait(N); }

#endif
