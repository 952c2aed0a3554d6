// Kernels with a planted bug each, which the emulated device has to catch, and right ones, which it has to run in peace.
#include <cuda_runtime.h>
#include "ptx.h"
#include "emulation.h"
#include "planted.h"
#include <vector>

namespace {
// A device array of n values made from host ones, and back.
template <typename T> struct Array {
    T *p;
    size_t n;
    explicit Array(size_t count) : p(nullptr), n(count) { cudaMalloc(&p, n * sizeof(T)); }
    Array(size_t count, T first, T step) : Array(count) {
        std::vector<T> host(n);
        for (size_t i = 0; i < n; i++) host[i] = (T)(first + (T)i * step);
        cudaMemcpy(p, host.data(), n * sizeof(T), cudaMemcpyHostToDevice);
    }
    ~Array() { cudaFree(p); }
    std::vector<T> host() const {
        std::vector<T> h(n);
        cudaMemcpy(h.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost);
        return h;
    }
};
bool done() { return cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess; }

// y[i] = x[n - 1 - i] through shared memory.
__global__ void reverse_kernel(const int *x, int *y, bool barrier, bool twice) {
    SHARED(int, tile);
    int i = (int)threadIdx.x, n = (int)blockDim.x;
    tile[i] = -1;
    __syncthreads();
    tile[i] = x[i];
    if (barrier) __syncthreads();
    y[i] = tile[n - 1 - i];
    if (!twice) return;
    tile[i] = 2 * x[i]; // others may not have read yet
    __syncthreads();
    y[i] += tile[n - 1 - i];
}
bool reverse(bool barrier, bool twice) {
    Array<int> x(128, 0, 1), y(128);
    LAUNCH(0, reverse_kernel, 1, 128, 128 * sizeof(int), x.p, y.p, barrier, twice);
    if (!done()) return false;
    std::vector<int> h = y.host();
    for (int i = 0; i < 128; i++)
        if (h[(size_t)i] != (127 - i) * (twice ? 3 : 1)) return false;
    return true;
}

__global__ void warp_staging_kernel(const int *x, int *y, bool synchronize) {
    SHARED(int, tile);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    tile[threadIdx.x] = -1;
    __syncthreads();
    for (int round = 0; round < 4; round++) {
        tile[32 * warp + lane] = x[threadIdx.x] + round;
        if (synchronize) __syncwarp();
        y[threadIdx.x * 4 + (unsigned)round] = tile[32 * warp + (lane + 1) % 32];
        if (synchronize) __syncwarp();
    }
}
bool warp_staging(bool synchronize) {
    Array<int> x(128, 0, 1), y(512);
    LAUNCH(0, warp_staging_kernel, 1, 128, 128 * sizeof(int), x.p, y.p, synchronize);
    if (!done()) return false;
    std::vector<int> h = y.host();
    for (int i = 0; i < 512; i++)
        if (h[(size_t)i] != i / 128 * 32 + (i / 4 + 1) % 32 + i % 4) return false;
    return true;
}

enum MaskBug { LACKS_CALLER, ABSENT_LANE, DIFFER, EXITS, AT_BARRIER, KINDS };
__global__ void masks_kernel(int *y, MaskBug bug) {
    int lane = (int)threadIdx.x % 32, value = lane;
    if (bug == LACKS_CALLER) value = __shfl_sync(0x0000ffffu, value, 0);
    if (bug == ABSENT_LANE) value = __shfl_sync(0xffffffffu, value, 0); // the second warp has 16 lanes
    if (bug == DIFFER) value = __shfl_xor_sync(lane < 16 ? 0xffffffffu : 0xffff0000u, value, 1);
    if (bug == EXITS && lane < 16) value = __shfl_sync(0xffffffffu, value, 0);
    if (bug == AT_BARRIER) {
        if (lane < 31) value = __shfl_sync(0xffffffffu, value, 0);
        __syncthreads();
    }
    if (bug == KINDS) value = lane % 2 ? __any_sync(0xffffffffu, value) : __all_sync(0xffffffffu, value);
    y[threadIdx.x] = value;
}
bool masks(MaskBug bug) {
    Array<int> y(64);
    LAUNCH(0, masks_kernel, 1, bug == ABSENT_LANE ? 48 : 64, 0, y.p, bug);
    return done();
}

// Copies rows of 4 floats asynchronously, two groups, and adds neighbours.
enum AsyncBug { ASYNC_RIGHT, NO_WAIT, TOO_FEW, NO_BARRIER };
__global__ void async_kernel(const float *x, float *y, int rows, AsyncBug bug) {
    SHARED(float, tile);
    int t = (int)threadIdx.x, n = (int)blockDim.x;
    for (int i = t; i < 8 * n; i += n) tile[i] = -1;
    __syncthreads();
    for (int half = 0; half < 2; half++) {
        int row = half * n + t;
        cp_async_16(tile + 4 * row, x + 4 * row, row < rows);
        cp_async_commit();
    }
    if (bug == TOO_FEW)
        cp_async_wait<2>();
    else if (bug != NO_WAIT)
        cp_async_wait<1>();
    if (bug != NO_BARRIER) __syncthreads();
    for (int i = 0; i < 4; i++) y[4 * t + i] = tile[4 * ((t + 1) % n) + i];
    cp_async_wait<0>();
    __syncthreads();
    for (int i = 0; i < 4; i++) y[4 * t + i] += tile[4 * (n + (t + 1) % n) + i];
}
bool async_copies(AsyncBug bug) {
    const int n = 64, rows = 100;
    Array<float> x(4 * rows, 0, 1), y(4 * n);
    LAUNCH(0, async_kernel, 1, n, 2 * n * 16, x.p, y.p, rows, bug);
    if (!done()) return false;
    std::vector<float> h = y.host();
    for (int t = 0; t < n; t++)
        for (int i = 0; i < 4; i++) {
            int first = (t + 1) % n, second = n + first;
            float want = (float)(4 * first + i) + (second < rows ? (float)(4 * second + i) : 0.0f);
            if (h[(size_t)(4 * t + i)] != want) return false;
        }
    return true;
}

// y [128, 16] = a [128, depth] b [16, depth]^T by two warpgroups: a comes by the copy engine, b by ordinary stores. a is the number of
// row and column, b that of its own.
enum WarpgroupBug { WARPGROUP_RIGHT, NO_PROXY_FENCE, NO_STORE_BARRIER, NO_PRODUCT_WAIT, OVERWRITTEN, NO_REGISTER_FENCE, OTHER_TILE, MISALIGNED,
                    NO_TILE_WAIT, WRONG_PARITY, TOO_MANY_BYTES, NO_BEGIN_BARRIER };
struct alignas(64) Map {
    uint64_t opaque[16];
};
enum { TILE_A = 128 * 128, TILE_B = 16 * 128, ROOM = TILE_A + TILE_B + 1024 + 64 };
__global__ void warpgroup_kernel(const __grid_constant__ Map map, float *y, int depth, WarpgroupBug bug) {
    SHARED(unsigned char, shared);
    shared = wgmma_aligned(shared);
    uint16_t *a = (uint16_t *)shared, *b = (uint16_t *)(shared + TILE_A);
    uint64_t *barrier = (uint64_t *)(shared + TILE_A + TILE_B);
    int t = (int)threadIdx.x, lane = t % 32, group = t / 128;
    float sums[2][4] = {};
    if (t == 0) arrival_begin(barrier, 1);
    if (bug != NO_BEGIN_BARRIER) __syncthreads();
    for (int k0 = 0, parity = 0; k0 < depth; k0 += 64, parity ^= 1) {
        if (t == (bug == NO_BEGIN_BARRIER ? 32 : 0)) {
            arrival_expect(barrier, bug == TOO_MANY_BYTES ? TILE_A + 16 : TILE_A);
            copy_tile(a, &map, k0, 0, 0, barrier);
        }
        for (int i = t; i < 16 * 64; i += 256) { // whole numbers up to 256 are exact in bf16
            int row = i / 64, k = i % 64;
            b[row * 64 + (k / 8 ^ (row & 7)) * 8 + k % 8] = k0 + k < depth ? (uint16_t)(__float_as_uint((float)((row + 3 * (k0 + k)) % 7)) >> 16) : 0;
        }
        if (bug != NO_PROXY_FENCE) fence_proxy_async();
        if (bug != NO_TILE_WAIT) arrival_wait(barrier, bug == WRONG_PARITY ? parity ^ 1 : parity);
        if (bug != NO_STORE_BARRIER) __syncthreads();
        if (bug != NO_REGISTER_FENCE) wgmma_fence();
        uint64_t tile_a = wgmma_tile(a + (bug == MISALIGNED ? 64 : bug == OTHER_TILE && t < 32 ? 16 : group * 64 * 64)), tile_b = wgmma_tile(b);
        for (int k = 0; k < 4; k++) wgmma_m64k16_bf16(sums, tile_a + k * WGMMA_STEP, tile_b + k * WGMMA_STEP, k0 + k > 0);
        wgmma_commit();
        if (bug == OVERWRITTEN) {
            __syncthreads();
            b[t] = 0;
        }
        if (bug == NO_PRODUCT_WAIT && k0 + 64 >= depth)
            for (int e = 0; e < 8; e++) y[(group * 64 + t % 128 / 32 * 16 + lane / 4 + e % 4 / 2 * 8) * 16 + e / 4 * 8 + lane % 4 * 2 + e % 2] = sums[e / 4][e % 4];
        wgmma_wait<0>(sums);
        __syncthreads();
    }
    for (int e = 0; e < 8 && bug != NO_PRODUCT_WAIT; e++)
        y[(group * 64 + t % 128 / 32 * 16 + lane / 4 + e % 4 / 2 * 8) * 16 + e / 4 * 8 + lane % 4 * 2 + e % 2] = sums[e / 4][e % 4];
}
bool warpgroup(WarpgroupBug bug, int capability) {
    typedef int (*Encode)(void *, int, uint32_t, void *, const uint64_t *, const uint64_t *, const uint32_t *, const uint32_t *, int, int, int, int);
    const int rows = 100, depth = 160; // the tile reaches beyond both
    EmulationMachine *m = emulation_machine();
    int major = m->major, minor = m->minor;
    m->major = capability / 10, m->minor = capability % 10;
    std::vector<uint16_t> host((size_t)(rows * depth));
    for (int i = 0; i < rows * depth; i++) host[(size_t)i] = (uint16_t)(__float_as_uint((float)((i / depth * 5 + i % depth) % 11)) >> 16);
    Array<uint16_t> a(host.size());
    Array<float> y(128 * 16);
    cudaMemcpy(a.p, host.data(), host.size() * 2, cudaMemcpyHostToDevice);
    const uint64_t sizes[] = {depth, rows, 1}, strides[] = {depth * 2, depth * 2};
    const uint32_t box[] = {64, 128, 1}, ones[] = {1, 1, 1};
    Map map;
    bool right = ((Encode)emulation_symbol("libcuda", "cuTensorMapEncodeTiled"))(&map, 9, 3, a.p, sizes, strides, box, ones, 0, 3, 3, 0) == 0;
    LAUNCH(0, warpgroup_kernel, 1, 256, ROOM, map, y.p, depth, bug);
    right = done() && right;
    m->major = major, m->minor = minor;
    if (!right) return false;
    std::vector<float> h = y.host();
    for (int i = 0; i < 128 * 16; i++) {
        int row = i / 16, column = i % 16, want = 0;
        for (int k = 0; k < depth && row < rows; k++) want += (row * 5 + k) % 11 * ((column + 3 * k) % 7);
        if (h[(size_t)i] != (float)want) return false;
    }
    return true;
}

enum BoundsBug { SHARED_READ, SHARED_WRITE, DEVICE_READ, DEVICE_WRITE, DEVICE_FAR, LOCAL, STACK, TRAP };
__device__ __attribute__((noinline)) int deep(int *p, int depth) {
    int frame[64];
    for (int i = 0; i < 64; i++) frame[i] = p[0] + depth;
    return depth == 0 ? frame[0] : deep(frame, depth - 1) + frame[p[0] & 63];
}
__global__ void bounds_kernel(int *x, int *y, BoundsBug bug) {
    SHARED(int, tile);
    int t = (int)threadIdx.x, n = (int)blockDim.x, local[4] = {1, 2, 3, 4};
    tile[t] = t;
    __syncthreads();
    int value = 0;
    if (bug == SHARED_READ) value = tile[t + 1];
    if (bug == SHARED_WRITE && t == n - 1) tile[t + 3] = 1;
    if (bug == DEVICE_READ) value = x[t + 1];
    if (bug == DEVICE_WRITE) x[t + 1] = t;
    if (bug == DEVICE_FAR && t == 7) x[t + 4096] = t;
    if (bug == LOCAL) value = local[x[t] / 8];
    if (bug == STACK && t == 0) value = deep(x, 100000);
    if (bug == TRAP && t == 5) __trap();
    y[t] = value;
}
bool bounds(BoundsBug bug) {
    Array<int> x(64, 0, 1), y(64);
    LAUNCH(0, bounds_kernel, 1, 64, 64 * sizeof(int), x.p, y.p, bug);
    return done();
}
__global__ void pointer_kernel(const int *p, int *y) { y[threadIdx.x] = *p; }

enum BarrierBug { DIVERGENT, TWO, EXIT };
__global__ void barrier_kernel(int *y, BarrierBug bug) {
    int t = (int)threadIdx.x;
    if (bug == DIVERGENT && t < 32) __syncthreads();
    if (bug == TWO) {
        if (t < 32)
            __syncthreads();
        else
            __syncthreads();
    }
    if (bug == EXIT && t == 40) return;
    if (bug != TWO) __syncthreads();
    y[t] = t;
}
bool barriers(BarrierBug bug) {
    Array<int> y(64);
    LAUNCH(0, barrier_kernel, 1, 64, 0, y.p, bug);
    return done();
}

__global__ void vector_kernel(const float *x, float *y) {
    float4 v = *(const float4 *)(x + 4 * threadIdx.x + 1);
    y[threadIdx.x] = v.x + v.w;
}
__global__ void ldmatrix_place_kernel(uint32_t *y, int offset) {
    SHARED(uint16_t, tile);
    for (int i = 0; i < 16; i++) tile[16 * threadIdx.x + (unsigned)i] = (uint16_t)i;
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, tile + 16 * threadIdx.x + offset);
    y[threadIdx.x] = r[0];
}
__global__ void async_place_kernel(const float *x, float *y) {
    SHARED(float, tile);
    cp_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x + 2, true);
    cp_async_commit();
    cp_async_wait<0>();
    y[threadIdx.x] = tile[4 * threadIdx.x];
}

// c[16, 8] = a[16, 16] b[8, 16]^T for one warp, through shared memory, ldmatrix and mma.
__global__ void product_kernel(const uint16_t *a, const uint16_t *b, float *c, bool wrong) {
    SHARED(uint16_t, tile);
    uint16_t *sa = tile, *sb = tile + 256;
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) sa[i] = a[i];
    for (int i = lane; i < 128; i += 32) sb[i] = b[i];
    __syncthreads();
    uint32_t fa[4], fb[2];
    float d[4] = {0, 0, 0, 0};
    ldmatrix_x4(fa, sa + (lane % 16) * 16 + lane / 16 * 8);
    ldmatrix_x2(fb, sb + (lane % 8) * 16 + lane / 8 % 2 * 8);
    if (wrong) {
        uint32_t swap = fa[1];
        fa[1] = fa[2], fa[2] = swap;
    }
    mma_m16n8k16_bf16(d, fa, fb);
    int row = lane / 4, column = lane % 4 * 2;
    c[row * 8 + column] = d[0], c[row * 8 + column + 1] = d[1];
    c[(row + 8) * 8 + column] = d[2], c[(row + 8) * 8 + column + 1] = d[3];
}
uint16_t bf16_of(float x) { return (uint16_t)pack_bf16x2(x, 0); }
bool product(bool wrong) {
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> fa(256), fb(128);
    for (int i = 0; i < 256; i++) fa[(size_t)i] = (float)((i * 37 + 11) % 29 - 14), a[(size_t)i] = bf16_of(fa[(size_t)i]);
    for (int i = 0; i < 128; i++) fb[(size_t)i] = (float)((i * 53 + 5) % 31 - 15), b[(size_t)i] = bf16_of(fb[(size_t)i]);
    Array<uint16_t> da(256), db(128);
    Array<float> c(128);
    cudaMemcpy(da.p, a.data(), 512, cudaMemcpyHostToDevice);
    cudaMemcpy(db.p, b.data(), 256, cudaMemcpyHostToDevice);
    LAUNCH(0, product_kernel, 1, 32, 768, da.p, db.p, c.p, wrong);
    if (!done()) return false;
    std::vector<float> h = c.host();
    for (size_t m = 0; m < 16; m++)
        for (size_t n = 0; n < 8; n++) {
            float want = 0;
            for (size_t k = 0; k < 16; k++) want += fa[m * 16 + k] * fb[n * 16 + k];
            if (h[m * 8 + n] != want) return false; // small integers: exact in any order
        }
    return true;
}
// ldmatrix of a transposed tile gives what ldmatrix of the tile's transpose would.
__global__ void transposed_kernel(uint32_t *y) {
    SHARED(uint16_t, tile);
    uint16_t *plain = tile, *turned = tile + 256;
    for (int i = (int)threadIdx.x; i < 256; i += 32) {
        int m = i / 64, row = i / 8 % 8, column = i % 8;
        plain[i] = (uint16_t)(i * 7 + 1);
        turned[m * 64 + column * 8 + row] = (uint16_t)(i * 7 + 1);
    }
    __syncthreads();
    uint32_t r[4], s[4], p[2], q[2];
    ldmatrix_x4(r, plain + 8 * threadIdx.x);
    ldmatrix_x4_trans(s, turned + 8 * threadIdx.x);
    ldmatrix_x2(p, plain + 8 * (threadIdx.x % 16));
    ldmatrix_x2_trans(q, turned + 8 * (threadIdx.x % 16));
    uint32_t different = 0;
    for (int i = 0; i < 4; i++) different |= r[i] ^ s[i];
    for (int i = 0; i < 2; i++) different |= p[i] ^ q[i] ^ (p[i] ^ r[i]);
    y[threadIdx.x] = different;
}

__global__ void unwritten_kernel(const float *x, float *y, bool shared) {
    SHARED(float, tile);
    if (threadIdx.x < 31) tile[threadIdx.x] = 1.0f; // one is forgotten
    __syncthreads();
    y[threadIdx.x] = shared ? tile[threadIdx.x] : x[threadIdx.x];
}
bool unwritten(bool shared) {
    Array<float> x(32), y(32);
    LAUNCH(0, unwritten_kernel, 1, 32, 128, x.p, y.p, shared);
    if (!done()) return false;
    for (float value : y.host())
        if (!(value == 1.0f)) return false;
    return true;
}

// Sums over blocks: each leaves its part, the last to take a ticket adds all.
enum TicketBug { TICKET_RIGHT, NO_FENCE, NO_TICKET };
__global__ void ticket_kernel(int *parts, unsigned *ticket, int *sum, TicketBug bug) {
    SHARED(int, last);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = (int)blockIdx.x + 1;
        if (bug != NO_FENCE) __threadfence();
        *last = bug == NO_TICKET ? blockIdx.x == gridDim.x - 1 : atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!*last || threadIdx.x != 0) return;
    __threadfence();
    int total = 0;
    for (unsigned i = 0; i < gridDim.x; i++) total += parts[i];
    *sum = total;
    *ticket = 0;
}
bool tickets(TicketBug bug) {
    Array<int> parts(20, 0, 0), sum(1);
    Array<unsigned> ticket(1, 0, 0);
    for (int turn = 0; turn < 2; turn++) LAUNCH(0, ticket_kernel, 20, 32, 4, parts.p, ticket.p, sum.p, bug);
    return done() && sum.host()[0] == 210;
}
__global__ void latest_kernel(unsigned *y) { atomicExch(y, threadIdx.x); }

__global__ void shuffles_kernel(int *wrong) {
    int lane = (int)threadIdx.x % 32, errors = 0;
    const unsigned all = 0xffffffffu;
    errors += __shfl_sync(all, lane * 3, 5) != 15;
    errors += __shfl_sync(all, lane, lane + 1) != (lane + 1) % 32;
    errors += __shfl_sync(all, lane, 3, 8) != lane / 8 * 8 + 3;
    errors += __shfl_up_sync(all, lane, 2) != (lane < 2 ? lane : lane - 2);
    errors += __shfl_down_sync(all, lane, 4) != (lane > 27 ? lane : lane + 4);
    errors += __shfl_down_sync(all, lane, 3, 16) != (lane % 16 > 12 ? lane : lane + 3);
    errors += __shfl_up_sync(all, lane, 1, 4) != (lane % 4 ? lane - 1 : lane);
    errors += __shfl_xor_sync(all, lane, 9) != (lane ^ 9);
    errors += __shfl_xor_sync(all, 0.5f * (float)lane, 1) != 0.5f * (float)(lane ^ 1);
    errors += __shfl_sync(all, (double)lane / 3, 31) != 31.0 / 3;
    errors += __shfl_sync(all, (long long)lane << 40, 2) != 2ll << 40;
    wrong[threadIdx.x] = errors;
}
__global__ void votes_kernel(int *wrong) {
    int lane = (int)threadIdx.x % 32, errors = 0;
    const unsigned all = 0xffffffffu;
    errors += __ballot_sync(all, lane % 2) != 0xaaaaaaaau;
    errors += __any_sync(all, lane == 3) != 1;
    errors += __any_sync(all, lane == 32) != 0;
    errors += __all_sync(all, lane < 32) != 1;
    errors += __all_sync(all, lane < 31) != 0;
    errors += __match_any_sync(all, lane % 4) != 0x11111111u << lane % 4;
    errors += __reduce_add_sync(all, lane) != 496;
    errors += __reduce_add_sync(all, -lane) != -496;
    errors += __reduce_min_sync(all, lane - 5) != -5;
    errors += __reduce_max_sync(all, -lane - 1) != -1;
    errors += __reduce_max_sync(all, (unsigned)-lane - 1) != 0xffffffffu;
    errors += __reduce_min_sync(all, (unsigned)lane + 7) != 7;
    errors += (__activemask() >> lane & 1) != 1;
    wrong[threadIdx.x] = errors;
}
__global__ void partial_masks_kernel(int *wrong) {
    int lane = (int)threadIdx.x % 32, errors = 0;
    unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;
    errors += __shfl_xor_sync(mask, lane, 8) != (lane ^ 8);
    if (lane < 8) {
        errors += __reduce_add_sync(0xffu, lane) != 28;
    } else if (lane % 2) {
        errors += __ballot_sync(0xaaaaaa00u, 1) != 0xaaaaaa00u;
    }
    __syncwarp();
    if (lane == 9) return; // an exited lane isn't waited for in __syncwarp
    wrong[threadIdx.x] = errors;
    __syncwarp(0xfffffdffu);
    if (lane == 8) wrong[threadIdx.x + 1] = 0;
}
bool all_zero(const std::vector<int> &values) {
    for (int v : values)
        if (v) return false;
    return true;
}
template <typename Kernel> bool no_errors(Kernel *kernel) {
    Array<int> wrong(64, 1, 0);
    LAUNCH(0, kernel, 1, 64, 0, wrong.p);
    return done() && all_zero(wrong.host());
}

__global__ void reduction_kernel(const float *x, float *y, int n) {
    SHARED(float, sums);
    float sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) sum += x[(int)blockIdx.x * n + i];
    for (int mask = 16; mask; mask >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    for (unsigned half = blockDim.x / 64; half; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = sums[0];
}
__global__ void atomics_kernel(int *counts, unsigned *unsigned_counts, unsigned long long *wide) {
    SHARED(int, local);
    if (threadIdx.x == 0) *local = 0;
    __syncthreads();
    atomicAdd(local, 1);
    atomicAdd(&counts[threadIdx.x % 4], 2);
    atomicMax(&counts[4], (int)threadIdx.x - 100);
    atomicMin(&counts[5], -(int)threadIdx.x);
    atomicMax(&unsigned_counts[0], 0x80000000u + threadIdx.x);
    atomicAdd(wide, 1ull << 33);
    for (unsigned seen = 0, old;; seen = old) {
        old = atomicCAS(&unsigned_counts[1], seen, seen + 3);
        if (old == seen) break;
    }
    __syncthreads();
    if (threadIdx.x == 0) atomicExch(&counts[6], *local);
}
__global__ void barrier_votes_kernel(int *wrong) {
    int t = (int)threadIdx.x, errors = 0;
    for (int round = 0; round < 3; round++) {
        errors += __syncthreads_count(t % 3 == round) != 21 + (round == 0);
        errors += __syncthreads_and(t < 64 - round) != (round == 0);
        errors += __syncthreads_or(t == 70 - round * 4) != (round == 2);
    }
    wrong[t] = errors;
}
__global__ void dimensions_kernel(int *seen) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned first = (unsigned)__shfl_sync(0xffffffffu, (int)thread, 0);
    seen[block * blockDim.x * blockDim.y * blockDim.z + thread] = (int)(block * 1000 + first);
}
__global__ void conversions_kernel(int *wrong) {
    int errors = 0;
    errors += pack_bf16x2(1.0f, -2.0f) != 0xc0003f80u;
    errors += pack_bf16x2(1.00390625f, 1.01171875f) != 0x3f823f80u; // ties go to even
    errors += (pack_bf16x2(__uint_as_float(0x7fc00001u), 0) & 0x7fffu) <= 0x7f80u;
    errors += pack_bf16x2(__uint_as_float(0x7f7fffffu), 0) != 0x7f80u;
    errors += exp2_approx(3.0f) != 8.0f;
    errors += exp2_approx(-140.0f) != 0.0f;
    errors += exp2_approx(-INFINITY) != 0.0f;
    errors += __popc(0xf0u) != 4 || __ffs(8) != 4 || __clz(1) != 31 || __clz(0) != 32 || __ffs(0) != 0;
    errors += __byte_perm(0x33221100u, 0x77665544u, 0x7531u) != 0x77553311u;
    errors += __funnelshift_l(0x80000000u, 1u, 1) != 3u || __funnelshift_r(1u, 3u, 1) != 0x80000000u;
    errors += rsqrtf(4.0f) != 0.5f || __umulhi(0x80000000u, 6u) != 3u || __brev(1u) != 0x80000000u;
    wrong[threadIdx.x] = errors;
}
struct Packed {
    float4 v;
    int n;
};
__global__ void vectors_kernel(const float4 *x, float4 *y, Packed p) {
    float4 v = __ldg(&x[threadIdx.x]);
    uint2 bits = make_uint2(__float_as_uint(v.x), __float_as_uint(v.y));
    y[threadIdx.x] = make_float4(__uint_as_float(bits.y), __uint_as_float(bits.x), v.w + p.v.x, v.z + (float)p.n);
}

__global__ void plain_kernel(const float *x, float *y) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] * 2.0f;
}
} // namespace

// ---- planted ---------------------------------------------------------------------------------------------
bool missing_barrier(void) { return reverse(false, false); }
bool missing_second_barrier(void) { return reverse(true, true); }
bool missing_warp_barrier(void) { return warp_staging(false); }
bool mask_lacks_caller(void) { return masks(LACKS_CALLER); }
bool mask_names_absent_lane(void) { return masks(ABSENT_LANE); }
bool masks_differ(void) { return masks(DIFFER); }
bool lane_exits(void) { return masks(EXITS); }
bool lane_at_barrier(void) { return masks(AT_BARRIER); }
bool collectives_differ(void) { return masks(KINDS); }
bool read_before_wait(void) { return async_copies(NO_WAIT); }
bool wait_for_too_few(void) { return async_copies(TOO_FEW); }
bool wait_without_barrier(void) { return async_copies(NO_BARRIER); }
bool shared_read_out_of_bounds(void) { return bounds(SHARED_READ); }
bool shared_write_out_of_bounds(void) { return bounds(SHARED_WRITE); }
bool device_read_out_of_bounds(void) { return bounds(DEVICE_READ); }
bool device_write_out_of_bounds(void) { return bounds(DEVICE_WRITE); }
bool device_write_far_out_of_bounds(void) { return bounds(DEVICE_FAR); }
bool device_use_after_free(void) {
    Array<float> y(64);
    float *x;
    cudaMalloc(&x, 256);
    cudaMemset(x, 0, 256);
    cudaFree(x);
    LAUNCH(0, plain_kernel, 1, 64, 0, x, y.p);
    return done();
}
bool local_array_out_of_bounds(void) { return bounds(LOCAL); }
bool null_pointer(void) {
    Array<int> y(64);
    LAUNCH(0, pointer_kernel, 1, 64, 0, (const int *)nullptr, y.p);
    return done();
}
bool divergent_barrier(void) { return barriers(DIVERGENT); }
bool two_barriers(void) { return barriers(TWO); }
bool exit_before_barrier(void) { return barriers(EXIT); }
bool misaligned_vector(void) {
    Array<float> x(256, 0, 1), y(32);
    LAUNCH(0, vector_kernel, 1, 32, 0, x.p, y.p);
    return done();
}
static bool ldmatrix_place(int offset) {
    Array<uint32_t> y(32);
    LAUNCH(0, ldmatrix_place_kernel, 1, 32, 1024, y.p, offset);
    return done();
}
bool misaligned_ldmatrix(void) { return ldmatrix_place(4); }
bool ldmatrix_outside(void) { return ldmatrix_place(16); }
bool misaligned_async_copy(void) {
    Array<float> x(256, 0, 1), y(32);
    LAUNCH(0, async_place_kernel, 1, 32, 512, x.p, y.p);
    return done();
}
bool wrong_fragment(void) { return product(true); }
bool unwritten_shared(void) { return unwritten(true); }
bool unwritten_device(void) { return unwritten(false); }
bool host_reads_device(void) {
    Array<int> x(16, 0, 1);
    return *(volatile int *)(x.p + 3) == 3;
}
bool device_reads_host(void) {
    std::vector<float> x(64, 1.0f);
    Array<float> y(64);
    LAUNCH(0, plain_kernel, 1, 64, 0, x.data(), y.p);
    return done();
}
bool blocks_race(void) { return tickets(NO_TICKET); }
bool ticket_without_fence(void) { return tickets(NO_FENCE); }
bool order_of_atomics(void) {
    Array<unsigned> y(1, 0, 0);
    LAUNCH(0, latest_kernel, 1, 256, 0, y.p);
    return done();
}
bool stack_overflow(void) { return bounds(STACK); }
bool trap(void) { return bounds(TRAP); }
bool product_reads_unfenced(void) { return warpgroup(NO_PROXY_FENCE, 90); }
bool product_reads_without_barrier(void) { return warpgroup(NO_STORE_BARRIER, 90); }
bool product_not_awaited(void) { return warpgroup(NO_PRODUCT_WAIT, 90); }
bool product_operands_overwritten(void) { return warpgroup(OVERWRITTEN, 90); }
bool product_registers_unfenced(void) { return warpgroup(NO_REGISTER_FENCE, 90); }
bool product_warps_differ(void) { return warpgroup(OTHER_TILE, 90); }
bool product_tile_misaligned(void) { return warpgroup(MISALIGNED, 90); }
bool product_on_older_device(void) { return warpgroup(WARPGROUP_RIGHT, 80); }
bool tile_not_awaited(void) { return warpgroup(NO_TILE_WAIT, 90); }
bool tile_of_wrong_parity(void) { return warpgroup(WRONG_PARITY, 90); }
bool tile_of_too_many_bytes(void) { return warpgroup(TOO_MANY_BYTES, 90); }
bool arrivals_begun_without_barrier(void) { return warpgroup(NO_BEGIN_BARRIER, 90); }
bool missing_synchronization(void) {
    Array<float> x(64, 1, 0), y(64, 0, 0);
    float *pinned;
    cudaMallocHost(&pinned, 256);
    pinned[5] = 0;
    cudaStream_t stream;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    LAUNCH(stream, plain_kernel, 1, 64, 0, x.p, y.p);
    cudaMemcpyAsync(pinned, y.p, 256, cudaMemcpyDeviceToHost, stream);
    bool right = pinned[5] == 2.0f;
    cudaStreamDestroy(stream);
    cudaFreeHost(pinned);
    return right;
}
bool copy_out_of_bounds(void) {
    Array<int> x(16, 0, 1);
    int host[20] = {0};
    return cudaMemcpy(x.p, host, 17 * sizeof(int), cudaMemcpyHostToDevice) == cudaSuccess;
}

// ---- right -----------------------------------------------------------------------------------------------
bool right_reduction(void) {
    const size_t n = 1000, rows = 7;
    Array<float> x(n * rows, 0, 1), y(rows);
    LAUNCH(0, reduction_kernel, rows, 256, 8 * sizeof(float), x.p, y.p, (int)n);
    if (!done()) return false;
    std::vector<float> h = y.host();
    for (size_t r = 0; r < rows; r++)
        if (h[r] != (float)(r * n * n + n * (n - 1) / 2)) return false;
    return true;
}
bool right_shuffles(void) { return no_errors(shuffles_kernel); }
bool right_votes(void) { return no_errors(votes_kernel); }
bool right_partial_masks(void) { return no_errors(partial_masks_kernel); }
bool right_warp_staging(void) { return warp_staging(true); }
bool right_async_copies(void) { return async_copies(ASYNC_RIGHT); }
bool right_matrix_product(void) { return product(false); }
bool right_transposed_loads(void) {
    Array<uint32_t> y(32);
    LAUNCH(0, transposed_kernel, 1, 32, 1024, y.p);
    if (!done()) return false;
    for (uint32_t v : y.host())
        if (v) return false;
    return true;
}
bool right_warpgroup_product(void) { return warpgroup(WARPGROUP_RIGHT, 90); }
bool right_ticket(void) { return tickets(TICKET_RIGHT); }
bool right_atomics(void) {
    Array<int> counts(7, 0, 0);
    Array<unsigned> unsigned_counts(2, 0, 0);
    Array<unsigned long long> wide(1, 0, 0);
    LAUNCH(0, atomics_kernel, 3, 128, 4, counts.p, unsigned_counts.p, wide.p);
    if (!done()) return false;
    std::vector<int> c = counts.host();
    std::vector<unsigned> u = unsigned_counts.host();
    for (size_t i = 0; i < 4; i++)
        if (c[i] != 192) return false;
    return c[4] == 27 && c[5] == -127 && c[6] == 128 && u[0] == 0x8000007fu && u[1] == 3 * 384 && wide.host()[0] == 384ull << 33;
}
bool right_barrier_votes(void) { return no_errors(barrier_votes_kernel); }
bool right_three_dimensions(void) {
    Array<int> seen(2 * 3 * 4 * 64);
    LAUNCH(0, dimensions_kernel, dim3(2, 3, 4), dim3(8, 4, 2), 0, seen.p);
    if (!done()) return false;
    std::vector<int> h = seen.host();
    for (size_t i = 0; i < h.size(); i++)
        if (h[i] != (int)(i / 64 * 1000 + i % 64 / 32 * 32)) return false;
    return true;
}
bool right_conversions(void) { return no_errors(conversions_kernel); }
bool right_vectors(void) {
    Array<float> x(128, 0, 1), y(128);
    Packed p = {make_float4(1, 2, 3, 4), 5};
    LAUNCH(0, vectors_kernel, 1, 32, 0, (const float4 *)x.p, (float4 *)y.p, p);
    if (!done()) return false;
    std::vector<float> h = y.host();
    for (size_t i = 0; i < 32; i++) {
        float first = (float)(4 * i);
        if (h[4 * i] != first + 1 || h[4 * i + 1] != first || h[4 * i + 2] != first + 4 || h[4 * i + 3] != first + 7) return false;
    }
    return true;
}
