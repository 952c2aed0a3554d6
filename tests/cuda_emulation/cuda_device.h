// Device code's side of the emulated toolkit: qualifiers, vector types, built-in variables, barriers, warp intrinsics,
// atomics and device maths, with CUDA's names and meaning, and LAUNCH and SHARED of kernels/cuda/cuda.h.
//
// Everything that waits or touches the block's state is a call into block.cpp and warp.cpp, out of line, so that the
// address it returns to tells a report the place. What CUDA leaves undefined is reported or answered with NaN patterns.
#ifndef RECKON_EMULATED_CUDA_DEVICE_H
#define RECKON_EMULATED_CUDA_DEVICE_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <new>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

// ---- vector types ----------------------------------------------------------------------------------------
// Aligned as on the device; the build checks each access against the alignment (see checker.cpp, or UBSan).
#define EMULATED_VECTOR_2(type, name, align)                                                                 \
    struct alignas(align) name##2 { type x, y; };                                                            \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }
#define EMULATED_VECTOR_3(type, name)                                                                        \
    struct name##3 { type x, y, z; };                                                                        \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }
#define EMULATED_VECTOR_4(type, name, align)                                                                 \
    struct alignas(align) name##4 { type x, y, z, w; };                                                      \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
#define EMULATED_VECTORS(type, name, align2, align4)                                                         \
    EMULATED_VECTOR_2(type, name, align2) EMULATED_VECTOR_3(type, name) EMULATED_VECTOR_4(type, name, align4)
EMULATED_VECTORS(signed char, char, 2, 4)
EMULATED_VECTORS(unsigned char, uchar, 2, 4)
EMULATED_VECTORS(short, short, 4, 8)
EMULATED_VECTORS(unsigned short, ushort, 4, 8)
EMULATED_VECTORS(int, int, 8, 16)
EMULATED_VECTORS(unsigned, uint, 8, 16)
EMULATED_VECTORS(float, float, 8, 16)
EMULATED_VECTOR_2(long long, longlong, 16)
EMULATED_VECTOR_2(unsigned long long, ulonglong, 16)
EMULATED_VECTOR_2(double, double, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// ---- built-in variables ----------------------------------------------------------------------------------
// Constant as long as a thread lives, so that the compiler may ask once.
extern "C" {
__attribute__((const)) uint3 emulation_thread_index(void);
__attribute__((const)) uint3 emulation_block_index(void);
__attribute__((const)) uint3 emulation_block_size(void);
__attribute__((const)) uint3 emulation_grid_size(void);
__attribute__((const)) void *emulation_shared(void);
}
#define threadIdx (emulation_thread_index())
#define blockIdx (emulation_block_index())
#define blockDim (emulation_block_size())
#define gridDim (emulation_grid_size())
constexpr int warpSize = 32;
#define SHARED(type, name) type *name = (type *)emulation_shared()

// ---- barriers and fences ---------------------------------------------------------------------------------
enum EmulatedBarrier { EMULATED_BARRIER, EMULATED_BARRIER_COUNT, EMULATED_BARRIER_AND, EMULATED_BARRIER_OR };
enum EmulatedCollective {
    EMULATED_SYNCWARP,
    EMULATED_SHUFFLE,
    EMULATED_SHUFFLE_UP,
    EMULATED_SHUFFLE_DOWN,
    EMULATED_SHUFFLE_XOR,
    EMULATED_BALLOT,
    EMULATED_ANY,
    EMULATED_ALL,
    EMULATED_MATCH_ANY,
    EMULATED_REDUCE_ADD,
    EMULATED_REDUCE_MIN,
    EMULATED_REDUCE_MAX,
    EMULATED_REDUCE_MIN_SIGNED,
    EMULATED_REDUCE_MAX_SIGNED,
    EMULATED_REDUCE_AND,
    EMULATED_REDUCE_OR,
    EMULATED_REDUCE_XOR,
    EMULATED_MMA,
    EMULATED_LDMATRIX,
    EMULATED_WGMMA,
    EMULATED_WGMMA_FENCE,
    EMULATED_WGMMA_COMMIT,
    EMULATED_WGMMA_WAIT,
    EMULATED_COLLECTIVES
};
extern "C" {
int emulation_barrier(EmulatedBarrier kind, int predicate, const char *file, int line);
// `operand` is lane, delta or xor mask of a shuffle; the rest pass `value` only.
uint64_t emulation_collective(EmulatedCollective kind, uint32_t mask, uint64_t value, uint32_t operand, uint32_t width);
uint32_t emulation_activemask(void);
void emulation_fence(void);
[[noreturn]] void emulation_trap(void);
}
#define __syncthreads() ((void)emulation_barrier(EMULATED_BARRIER, 0, __FILE__, __LINE__))
#define __syncthreads_count(p) emulation_barrier(EMULATED_BARRIER_COUNT, (p) != 0, __FILE__, __LINE__)
#define __syncthreads_and(p) emulation_barrier(EMULATED_BARRIER_AND, (p) != 0, __FILE__, __LINE__)
#define __syncthreads_or(p) emulation_barrier(EMULATED_BARRIER_OR, (p) != 0, __FILE__, __LINE__)
#define EMULATED static __forceinline__
EMULATED void __syncwarp(unsigned mask = 0xffffffffu) { emulation_collective(EMULATED_SYNCWARP, mask, 0, 0, 32); }
EMULATED void __threadfence(void) { emulation_fence(); }
EMULATED void __threadfence_block(void) {}
EMULATED void __trap(void) { emulation_trap(); }
EMULATED unsigned __activemask(void) { return emulation_activemask(); }

// ---- warp intrinsics -------------------------------------------------------------------------------------
template <typename T>
EMULATED T emulated_shuffle(EmulatedCollective kind, unsigned mask, T value, unsigned operand, int width) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4 or 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = emulation_collective(kind, mask, bits, operand, (uint32_t)width);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T> EMULATED T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    return emulated_shuffle(EMULATED_SHUFFLE, mask, value, (unsigned)lane, width);
}
template <typename T> EMULATED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    return emulated_shuffle(EMULATED_SHUFFLE_UP, mask, value, delta, width);
}
template <typename T> EMULATED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    return emulated_shuffle(EMULATED_SHUFFLE_DOWN, mask, value, delta, width);
}
template <typename T> EMULATED T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
    return emulated_shuffle(EMULATED_SHUFFLE_XOR, mask, value, (unsigned)lane_mask, width);
}
EMULATED unsigned __ballot_sync(unsigned mask, int predicate) {
    return (unsigned)emulation_collective(EMULATED_BALLOT, mask, predicate != 0, 0, 32);
}
EMULATED int __any_sync(unsigned mask, int predicate) {
    return (int)emulation_collective(EMULATED_ANY, mask, predicate != 0, 0, 32);
}
EMULATED int __all_sync(unsigned mask, int predicate) {
    return (int)emulation_collective(EMULATED_ALL, mask, predicate != 0, 0, 32);
}
template <typename T> EMULATED unsigned __match_any_sync(unsigned mask, T value) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA matches 4 or 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    return (unsigned)emulation_collective(EMULATED_MATCH_ANY, mask, bits, 0, 32);
}
#define EMULATED_REDUCE(name, type, kind)                                                                    \
    EMULATED type name(unsigned mask, type value) {                                                          \
        return (type)emulation_collective(kind, mask, (uint32_t)value, 0, 32);                               \
    }
EMULATED_REDUCE(__reduce_add_sync, unsigned, EMULATED_REDUCE_ADD)
EMULATED_REDUCE(__reduce_add_sync, int, EMULATED_REDUCE_ADD)
EMULATED_REDUCE(__reduce_min_sync, unsigned, EMULATED_REDUCE_MIN)
EMULATED_REDUCE(__reduce_min_sync, int, EMULATED_REDUCE_MIN_SIGNED)
EMULATED_REDUCE(__reduce_max_sync, unsigned, EMULATED_REDUCE_MAX)
EMULATED_REDUCE(__reduce_max_sync, int, EMULATED_REDUCE_MAX_SIGNED)
EMULATED_REDUCE(__reduce_and_sync, unsigned, EMULATED_REDUCE_AND)
EMULATED_REDUCE(__reduce_or_sync, unsigned, EMULATED_REDUCE_OR)
EMULATED_REDUCE(__reduce_xor_sync, unsigned, EMULATED_REDUCE_XOR)

// ---- atomics ---------------------------------------------------------------------------------------------
// On int, unsigned and unsigned long long, in shared or device memory. None on floating point: sums have one order.
enum EmulatedAtomic {
    EMULATED_ATOMIC_ADD,
    EMULATED_ATOMIC_MIN,
    EMULATED_ATOMIC_MAX,
    EMULATED_ATOMIC_MIN_SIGNED,
    EMULATED_ATOMIC_MAX_SIGNED,
    EMULATED_ATOMIC_AND,
    EMULATED_ATOMIC_OR,
    EMULATED_ATOMIC_XOR,
    EMULATED_ATOMIC_EXCHANGE,
    EMULATED_ATOMIC_COMPARE,
};
extern "C" uint64_t emulation_atomic(EmulatedAtomic kind, void *p, size_t size, uint64_t value, uint64_t compare);
#define EMULATED_ATOMIC_FUNCTION(name, type, kind)                                                           \
    EMULATED type name(type *p, type value) { return (type)emulation_atomic(kind, p, sizeof *p, (uint64_t)value, 0); }
#define EMULATED_ATOMIC_FUNCTIONS(name, kind, signed_kind)                                                   \
    EMULATED_ATOMIC_FUNCTION(name, int, signed_kind)                                                         \
    EMULATED_ATOMIC_FUNCTION(name, unsigned, kind)                                                           \
    EMULATED_ATOMIC_FUNCTION(name, unsigned long long, kind)
EMULATED_ATOMIC_FUNCTIONS(atomicAdd, EMULATED_ATOMIC_ADD, EMULATED_ATOMIC_ADD)
EMULATED_ATOMIC_FUNCTIONS(atomicMin, EMULATED_ATOMIC_MIN, EMULATED_ATOMIC_MIN_SIGNED)
EMULATED_ATOMIC_FUNCTIONS(atomicMax, EMULATED_ATOMIC_MAX, EMULATED_ATOMIC_MAX_SIGNED)
EMULATED_ATOMIC_FUNCTIONS(atomicAnd, EMULATED_ATOMIC_AND, EMULATED_ATOMIC_AND)
EMULATED_ATOMIC_FUNCTIONS(atomicOr, EMULATED_ATOMIC_OR, EMULATED_ATOMIC_OR)
EMULATED_ATOMIC_FUNCTIONS(atomicXor, EMULATED_ATOMIC_XOR, EMULATED_ATOMIC_XOR)
EMULATED_ATOMIC_FUNCTIONS(atomicExch, EMULATED_ATOMIC_EXCHANGE, EMULATED_ATOMIC_EXCHANGE)
#define EMULATED_COMPARE(type)                                                                               \
    EMULATED type atomicCAS(type *p, type compare, type value) {                                             \
        return (type)emulation_atomic(EMULATED_ATOMIC_COMPARE, p, sizeof *p, (uint64_t)value, (uint64_t)compare); \
    }
EMULATED_COMPARE(int)
EMULATED_COMPARE(unsigned)
EMULATED_COMPARE(unsigned long long)

// ---- loads with hints: plain ones here -------------------------------------------------------------------
template <typename T> EMULATED T __ldg(const T *p) { return *p; }
template <typename T> EMULATED T __ldcs(const T *p) { return *p; }
template <typename T> EMULATED T __ldcg(const T *p) { return *p; }
template <typename T> EMULATED void __stcs(T *p, T value) { *p = value; }
template <typename T> EMULATED void __stcg(T *p, T value) { *p = value; }

// ---- bits ------------------------------------------------------------------------------------------------
EMULATED int __popc(unsigned x) { return __builtin_popcount(x); }
EMULATED int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMULATED int __ffs(int x) { return __builtin_ffs(x); }
EMULATED int __ffsll(long long x) { return __builtin_ffsll(x); }
EMULATED int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
EMULATED int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
EMULATED unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
EMULATED unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
EMULATED unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
EMULATED unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}
EMULATED unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}
EMULATED unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned choice = selector >> 4 * i & 15, byte = (unsigned)(bytes >> 8 * (choice & 7)) & 255;
        if (choice & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << 8 * i;
    }
    return result;
}
#define EMULATED_CAST(name, to, from)                                                                        \
    EMULATED to name(from x) {                                                                               \
        to y;                                                                                                \
        static_assert(sizeof x == sizeof y, "a cast of bits");                                               \
        __builtin_memcpy(&y, &x, sizeof y);                                                                  \
        return y;                                                                                            \
    }
EMULATED_CAST(__float_as_uint, unsigned, float)
EMULATED_CAST(__float_as_int, int, float)
EMULATED_CAST(__uint_as_float, float, unsigned)
EMULATED_CAST(__int_as_float, float, int)
EMULATED_CAST(__double_as_longlong, long long, double)
EMULATED_CAST(__longlong_as_double, double, long long)

// ---- maths -----------------------------------------------------------------------------------------------
// Correctly rounded ones are exact; the fast ones differ from the device's in their last bits.
EMULATED float __fadd_rn(float a, float b) { return a + b; }
EMULATED float __fsub_rn(float a, float b) { return a - b; }
EMULATED float __fmul_rn(float a, float b) { return a * b; }
EMULATED float __fdiv_rn(float a, float b) { return a / b; }
EMULATED float __frcp_rn(float a) { return 1.0f / a; }
EMULATED float __fsqrt_rn(float a) { return sqrtf(a); }
EMULATED float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMULATED double __dadd_rn(double a, double b) { return a + b; }
EMULATED double __dsub_rn(double a, double b) { return a - b; }
EMULATED double __dmul_rn(double a, double b) { return a * b; }
EMULATED double __ddiv_rn(double a, double b) { return a / b; }
EMULATED double __dsqrt_rn(double a) { return sqrt(a); }
EMULATED double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
EMULATED float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
EMULATED double rsqrt(double x) { return 1.0 / sqrt(x); }
// The C library has functions of these names of its own.
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __sinf sinf
#define __cosf cosf
EMULATED float __fdividef(float a, float b) { return a / b; }
EMULATED float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; } // NaN gives 0
EMULATED int __float2int_rn(float x) { return (int)rintf(x); }
EMULATED int __float2int_rz(float x) { return (int)x; }
EMULATED int __float2int_rd(float x) { return (int)floorf(x); }
EMULATED float __int2float_rn(int x) { return (float)x; }
EMULATED float __uint2float_rn(unsigned x) { return (float)x; }
EMULATED float __double2float_rn(double x) { return (float)x; }
#define EMULATED_MIN_MAX(type)                                                                               \
    EMULATED type min(type a, type b) { return a < b ? a : b; }                                              \
    EMULATED type max(type a, type b) { return a > b ? a : b; }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
EMULATED float min(float a, float b) { return fminf(a, b); } // the one that is a number
EMULATED float max(float a, float b) { return fmaxf(a, b); }
EMULATED double min(double a, double b) { return fmin(a, b); }
EMULATED double max(double a, double b) { return fmax(a, b); }

// ---- launch ----------------------------------------------------------------------------------------------
// LAUNCH(stream, kernel, grid, block, shared_bytes, arguments...): arguments are copied now; the kernel runs when the
// stream gets there. The result is fetched with cudaGetLastError, as on the device.
struct EmulatedLaunch {
    const char *name;
    const void *function; // the kernel's address
    dim3 grid, block;
    size_t shared_bytes;
    void (*call)(const void *arguments); // runs the kernel for the present thread
    const void *arguments;               // copied
    size_t arguments_size;
    void (*copy)(void *to, const void *from);
};
extern "C" void emulation_launch(struct EmulatedStream *stream, const EmulatedLaunch *launch);

template <typename... P> struct EmulatedArguments {
    void (*kernel)(P...);
    std::tuple<P...> values;
    static void call(const void *p) {
        const EmulatedArguments *a = (const EmulatedArguments *)p;
        std::apply(a->kernel, a->values);
    }
    static void copy(void *to, const void *from) { new (to) EmulatedArguments(*(const EmulatedArguments *)from); }
};
template <typename... P, typename... A>
static inline void emulated_launch(const char *name, struct EmulatedStream *stream, void (*kernel)(P...), dim3 grid, dim3 block,
                                   size_t shared_bytes, A &&...values) {
    using Arguments = EmulatedArguments<P...>;
    static_assert((std::is_trivially_destructible<P>::value && ...), "kernel arguments are plain data");
    static_assert(sizeof(std::tuple<P...>) <= 4096, "kernel arguments are limited to 4 KiB");
    Arguments arguments{kernel, std::tuple<P...>(static_cast<P>(values)...)};
    EmulatedLaunch launch = {name, (const void *)kernel, grid, block, shared_bytes, Arguments::call, &arguments, sizeof arguments,
                             Arguments::copy};
    emulation_launch(stream, &launch);
}
#define LAUNCH(stream, kernel, grid, block, shared_bytes, ...)                                               \
    emulated_launch(#kernel, (stream), (kernel), (grid), (block), (shared_bytes)__VA_OPT__(, ) __VA_ARGS__)

#endif
