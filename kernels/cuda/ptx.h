// The only place with PTX, beside Hopper's own in ptx_hopper.h: tensor-core products, their loads, asynchronous copies (PTX
// ISA 8, sections 9.7.13 and 9.7.8). The emulated device has the same functions in plain C++.
#ifndef RECKON_PTX_H
#define RECKON_PTX_H
#include <cuda_runtime.h>
#include <stdint.h>
#ifdef RECKON_CUDA_EMULATION
#include "ptx_emulated.h"
#else

// d[16, 8] += a[16, 16] b[16, 8]: a row-major, b column-major, bf16 pairs in each register, sums in fp32.
static __device__ __forceinline__ void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 8 x 8 matrices of bf16: lane i gives the address of row i % 8 of matrix i / 8, aligned to 16 bytes.
static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
static __device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
static __device__ __forceinline__ void ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

// Asynchronous copies from global to shared memory; zeros, and nothing read, where not valid.
static __device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_4(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread are under way; the block still needs a barrier.
template <int N> static __device__ __forceinline__ void cp_async_wait(void) { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

static __device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ uint32_t pack_bf16x2(float low, float high) { // nearest even
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
#include "ptx_hopper.h"
#endif

// ---- operands of wgmma, the same lines on both sides ---------------------------------------------------------
// A tile of bf16 in rows of 128 bytes along K, as a product reads it ("matrix descriptor"): 16-byte pieces swizzled by the row's
// number, groups of 8 rows 1024 bytes apart. The tile begins at a multiple of 1024 bytes. The next 16 of K lie
// WGMMA_STEP further on.
static __device__ __forceinline__ uint64_t wgmma_tile(const void *tile) {
    return (uint64_t)((shared_address(tile) & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
// The same in rows of 64 bytes, whose pieces are swizzled by half of the row's number, groups of 8 rows 512 bytes apart.
static __device__ __forceinline__ uint64_t wgmma_narrow_tile(const void *tile) {
    return (uint64_t)((shared_address(tile) & 0x3ffff) >> 4) | 1ull << 16 | 32ull << 32 | 2ull << 62;
}
enum { WGMMA_STEP = 32 >> 4, WGMMA_ALIGNMENT = 1024 };
// The first place in shared memory where a tile may begin; up to WGMMA_ALIGNMENT bytes are passed over.
static __device__ __forceinline__ unsigned char *wgmma_aligned(unsigned char *shared) {
    return shared + (WGMMA_ALIGNMENT - shared_address(shared) % WGMMA_ALIGNMENT) % WGMMA_ALIGNMENT;
}

#endif
