// What the files of this folder share: how a kernel is written and started, and the order of sums on CUDA devices.
//
// Bits. A CUDA device gives other bits than the CPU, but keeps the same promise: no output depends on how many other
// rows, blocks or launches there are (invariant 1), and no gradient on how groups are split into microbatches.
//   Matrix products: the reduced index is cut at multiples of K_CHUNK. A chunk is one chain of tensor-core products,
//     ascending, from zero (fp32: one chain of fused multiply-adds); the chunks are added in order. So a product may be
//     computed by one block or shared out chunk by chunk.
//   Gradients of weights: a segment (group) is one chain over its tokens from zero, in chunks of K_CHUNK as above; what
//     the segments give is added to the gradient in order.
//   Attention: positions in splits of SPLIT_PAGES pages, each with a running maximum of its own, page after page;
//     splits are merged in order. So a row may be walked by one block or shared out split by split.
//   Head: blocks of 256 of the vocabulary as on the CPU, each logit a product as above.
//
// Rules. Kernels are started with LAUNCH, take one argument struct or a few scalars by value, use dynamic shared memory
// only (SHARED), no floating-point atomics, and PTX only through ptx.h, so that all of them also run on the emulated device
// of tests/cuda_emulation. Files are compiled without contraction (-fmad=false): a fused multiply-add is written fmaf.
#ifndef RECKON_CUDA_H
#define RECKON_CUDA_H
#include <cuda_runtime.h>
#include <math.h>
extern "C" {
#include "exact.h"
#include "device.h"
}
#include "ptx.h"

enum { K_CHUNK = 256, SPLIT_PAGES = 8 };

#ifdef RECKON_CUDA_EMULATION
#include "emulation.h" // LAUNCH and SHARED
#else
#define LAUNCH(stream, kernel, grid, block, shared_bytes, ...)                                               \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define SHARED(type, name)                                                                                   \
    extern __shared__ __align__(128) unsigned char reckon_shared[];                                          \
    type *name = (type *)reckon_shared
#endif

// The CUDA side of a Device. Kernel files read it; ops_cuda.cu owns it.
struct CudaContext {
    int index;
    int capability;      // 80, 89, 90, ...
    int multiprocessors;
    cudaStream_t stream; // all operations are queued here
    void *scratch;       // for the operation that is queued next; the one after it may overwrite it
    size_t scratch_bytes; // CUDA_SCRATCH
    unsigned *tickets;    // [CUDA_TICKETS] zero when an operation begins, and zero again when it ends
    struct CublasLt *blas; // NULL where the library isn't there: own kernels do its work
    bool wgmma;           // products of matmul.cu and the head are wgmma; otherwise mma.sync
    bool free_algorithms; // forward products go to the library where it can: to measure what invariant 1 costs, no more
    void *tensor_map_encode; // of the driver, or NULL (tensor_map.cu)
};
enum { CUDA_SCRATCH = 64 << 20, CUDA_TICKETS = 4096 };

static inline CudaContext *cuda_context(const Device *device) { return device->cuda; }

// A kernel that needs more than 48 KiB of dynamic shared memory says so once per device, before its first launch.
template <typename Kernel> static inline void allow_shared(Kernel *kernel, size_t bytes) {
    if (bytes > 48 * 1024) cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}
static inline unsigned ceil_div(int64_t a, int64_t b) { return (unsigned)((a + b - 1) / b); }

// A packed matrix on the device: rows of packed_stride(K) elements, so that each begins at a multiple of 16 bytes; the
// padding is zero, and so are rows up to a multiple of PANEL.
static inline __host__ __device__ int64_t packed_stride(int64_t K) { return (K + 15) / 16 * 16; }

// head_padded and page_elements of ops.h, for both sides.
static inline __host__ __device__ int64_t padded_width(int64_t D) { return (D + 15) / 16 * 16; }
static inline __host__ __device__ int64_t page_stride(int64_t kv_heads, int64_t D) { return kv_heads * 2 * PAGE * padded_width(D); }

// ---- act arrays ------------------------------------------------------------------------------------------
static inline __device__ float from_bf16(bf16 x) { return __uint_as_float((uint32_t)x << 16); }
static inline __device__ bf16 to_bf16(float x) { // nearest even; NaN stays NaN
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (bf16)(bits >> 16 | 0x40);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline __device__ float act_get(const void *x, int64_t i, Dtype d) {
    return d == DTYPE_F32 ? ((const float *)x)[i] : from_bf16(((const bf16 *)x)[i]);
}
static inline __device__ void act_put(void *x, int64_t i, float value, Dtype d) {
    if (d == DTYPE_F32)
        ((float *)x)[i] = value;
    else
        ((bf16 *)x)[i] = to_bf16(value);
}

// ---- reductions over a warp, the same tree for all lanes ---------------------------------------------------
static inline __device__ float warp_sum(float x) {
    for (int mask = 16; mask; mask >>= 1) x += __shfl_xor_sync(0xffffffffu, x, mask);
    return x;
}
static inline __device__ float warp_max(float x) { // NaN wins
    for (int mask = 16; mask; mask >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, mask);
        x = other > x || other != other ? other : x;
    }
    return x;
}

// Every operation's entry, one per slot of the table.
#define DECLARE_CUDA(name, Args) extern "C" void name##_cuda(const Device *device, const Args *args);
RECKON_OPERATIONS(DECLARE_CUDA)
#undef DECLARE_CUDA

// Whether this device can be given `wgmma`: it is of sm_90, and products come out right (trial.cu). Takes memory for a while, and waits.
bool wgmma_works(const CudaContext *context);
// matmul.cu: w of such a product, in blocks, into its scratch in the packed form.
void decode_blocks(const Device *device, const MatmulArgs *args);
// The packed form of the transpose of args->w, [K, N], into args->scratch (pack.cu).
void turn_packed(const Device *device, const MatmulArgs *args);

#endif
