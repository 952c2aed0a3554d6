// What only sm_90a has: products of warpgroups whose operands lie in shared memory, copies of whole tiles, and the barriers these
// copies report to (PTX ISA 8, sections 9.7.15, 9.7.9.27 and 9.7.13.15). Included by ptx.h. Other architectures compile kernels
// that name them, as empty ones: HAS_WGMMA is false there.
#ifndef RECKON_PTX_HOPPER_H
#define RECKON_PTX_HOPPER_H

// Writes of this thread to shared memory become visible to products; a barrier comes after it.
static __device__ __forceinline__ void fence_proxy_async(void) { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool HAS_WGMMA = true;
// ---- barriers in shared memory, and copies that report to them ---------------------------------------------
// A phase ends when `arrivals` threads have arrived and all bytes announced have come. One thread begins it, and a barrier of
// the block comes after.
static __device__ __forceinline__ void arrival_begin(uint64_t *barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    fence_proxy_async();
}
// Arrives, and announces so many bytes.
static __device__ __forceinline__ void arrival_expect(uint64_t *barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Waits until the phase of this parity has ended; the first has parity 0.
static __device__ __forceinline__ void arrival_wait(uint64_t *barrier, int parity) {
    uint32_t done = 0;
    while (!done)
        asm volatile("{.reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
}
// The tile that begins at (column, row) of a matrix; `tile` is a multiple of 1024 bytes, the map lies in the kernel's arguments.
static __device__ __forceinline__ void copy_tile(void *tile, const void *map, int column, int row, int matrix, uint64_t *barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
                     shared_address(tile)), "l"(map), "r"(column), "r"(row), "r"(matrix), "r"(shared_address(barrier))
                 : "memory");
}

// ---- products --------------------------------------------------------------------------------------------
// Before the first product after the sums' registers were touched otherwise.
static __device__ __forceinline__ void wgmma_fence(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int COUNT> static __device__ __forceinline__ void wgmma_sums(float (&sums)[COUNT][4]) { // aren't read before, nor written after
#pragma unroll
    for (int j = 0; j < COUNT; j++)
        asm volatile("" : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])::"memory");
}
// Waits until at most N groups of this warpgroup are under way; `sums` may be read and written again where their group is done.
template <int N, class... Sums> static __device__ __forceinline__ void wgmma_wait(Sums &...sums) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
    (wgmma_sums(sums), ...);
}

// d[64, N] = a[64, 16] b[16, N] (+ d where `add`), by the 128 threads of a warpgroup. A warp has 16 rows of d; d[j] of a lane are
// the four of mma.m16n8k16 in columns 8 j and on.
template <int COUNT> static __device__ __forceinline__ void wgmma_m64k16_bf16(float (&d)[COUNT][4], uint64_t a, uint64_t b, bool add);
#define WGMMA_D(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define WGMMA_NAMES_1 "%0,%1,%2,%3"
#define WGMMA_SUMS_1 WGMMA_D(0)
#define WGMMA_NAMES_2 WGMMA_NAMES_1 ",%4,%5,%6,%7"
#define WGMMA_SUMS_2 WGMMA_SUMS_1, WGMMA_D(1)
#define WGMMA_NAMES_4 WGMMA_NAMES_2 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_SUMS_4 WGMMA_SUMS_2, WGMMA_D(2), WGMMA_D(3)
#define WGMMA_NAMES_8 WGMMA_NAMES_4 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_SUMS_8 WGMMA_SUMS_4, WGMMA_D(4), WGMMA_D(5), WGMMA_D(6), WGMMA_D(7)
#define WGMMA_NAMES_12 WGMMA_NAMES_8 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_SUMS_12 WGMMA_SUMS_8, WGMMA_D(8), WGMMA_D(9), WGMMA_D(10), WGMMA_D(11)
#define WGMMA_NAMES_24 WGMMA_NAMES_12 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72" \
    ",%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_SUMS_24 WGMMA_SUMS_12, WGMMA_D(12), WGMMA_D(13), WGMMA_D(14), WGMMA_D(15), WGMMA_D(16), WGMMA_D(17), WGMMA_D(18) \
    , WGMMA_D(19), WGMMA_D(20), WGMMA_D(21), WGMMA_D(22), WGMMA_D(23)
#define WGMMA(count, tokens, a_name, b_name, add_name)                                                        \
    template <> __device__ __forceinline__ void wgmma_m64k16_bf16<count>(float (&d)[count][4], uint64_t a, uint64_t b, bool add) { \
        asm volatile("{.reg .pred p;\n setp.ne.b32 p, %" add_name ", 0;\n"                                     \
                     "wgmma.mma_async.sync.aligned.m64n" tokens "k16.f32.bf16.bf16 {" WGMMA_NAMES_##count "}, %" a_name ", %" b_name \
                     ", p, 1, 1, 0, 0;\n}"                                                                    \
                     : WGMMA_SUMS_##count                                                                    \
                     : "l"(a), "l"(b), "r"((int)add)                                                         \
                     : "memory");                                                                            \
    }
WGMMA(1, "8", "4", "5", "6")
WGMMA(2, "16", "8", "9", "10")
WGMMA(4, "32", "16", "17", "18")
WGMMA(8, "64", "32", "33", "34")
WGMMA(12, "96", "48", "49", "50")
WGMMA(24, "192", "96", "97", "98")
#undef WGMMA
#else
constexpr bool HAS_WGMMA = false;
static __device__ __forceinline__ void arrival_begin(uint64_t *, int) { __trap(); }
static __device__ __forceinline__ void arrival_expect(uint64_t *, int) { __trap(); }
static __device__ __forceinline__ void arrival_wait(uint64_t *, int) { __trap(); }
static __device__ __forceinline__ void copy_tile(void *, const void *, int, int, int, uint64_t *) { __trap(); }
static __device__ __forceinline__ void wgmma_fence(void) { __trap(); }
static __device__ __forceinline__ void wgmma_commit(void) { __trap(); }
template <int N, class... Sums> static __device__ __forceinline__ void wgmma_wait(Sums &...) { __trap(); }
template <int COUNT> static __device__ __forceinline__ void wgmma_m64k16_bf16(float (&)[COUNT][4], uint64_t, uint64_t, bool) { __trap(); }
#endif
#endif
