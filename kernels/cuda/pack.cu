// Packed matrices on CUDA devices: row-major [N rounded up to 32][packed_stride(K)], padding zero, so that every row begins
// at a multiple of 16 bytes and a tile of rows needs no special case at the matrix's end; the transpose likewise.
//
// pack runs once per update over all weights and is bound by memory. One block of 256 threads takes a tile of 64 x 64,
// reads it once in rows of 256 bytes and writes both forms from shared memory in pairs, a warp one row of 64.
// Grid: tiles, those along K first.
#include "cuda.h"

enum { TILE = 64, LANES = 32, TILE_ROWS = 8, TILE_THREADS = LANES * TILE_ROWS, TILE_STRIDE = TILE + 1 };

static __device__ void put_pair(void *packed, int64_t at, float a, float b, Dtype dtype) {
    if (dtype == DTYPE_F32)
        *(float2 *)((float *)packed + at) = make_float2(a, b);
    else
        *(uint32_t *)((bf16 *)packed + at) = (uint32_t)to_bf16(b) << 16 | to_bf16(a);
}

static __global__ void pack_kernel(PackArgs p, int64_t k_tiles) {
    SHARED(float, tile); // [TILE n][TILE_STRIDE]: an odd stride, so that rows and columns are both free of bank conflicts
    int64_t n0 = blockIdx.x / k_tiles * TILE, k0 = blockIdx.x % k_tiles * TILE;
    int lane = (int)threadIdx.x % LANES, first = (int)threadIdx.x / LANES;
    float scale = p.scale == 0 ? 1.0f : p.scale;
    for (int n = first; n < TILE; n += TILE_ROWS)
        for (int k = lane; k < TILE; k += LANES)
            tile[n * TILE_STRIDE + k] = n0 + n < p.N && k0 + k < p.K ? p.w[(n0 + n) * p.K + k0 + k] * scale : 0.0f;
    __syncthreads();
    int64_t stride = packed_stride(p.K), rows = ((p.N + PANEL - 1) / PANEL) * PANEL;
    int64_t transposed_stride = packed_stride(p.N), columns = ((p.K + PANEL - 1) / PANEL) * PANEL;
    for (int r = first; r < TILE; r += TILE_ROWS) {
        int c = 2 * lane;
        if (p.packed && n0 + r < rows && k0 + c < stride)
            put_pair(p.packed, (n0 + r) * stride + k0 + c, tile[r * TILE_STRIDE + c], tile[r * TILE_STRIDE + c + 1], p.dtype);
        if (p.transposed && k0 + r < columns && n0 + c < transposed_stride)
            put_pair(p.transposed, (k0 + r) * transposed_stride + n0 + c, tile[c * TILE_STRIDE + r],
                     tile[(c + 1) * TILE_STRIDE + r], p.dtype);
    }
}

static __global__ void unpack_kernel(UnpackArgs u) {
    int64_t stride = packed_stride(u.K), step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < u.N * u.K; i += step)
        u.w[i] = act_get(u.packed, i / u.K * stride + i % u.K, u.dtype);
}

// Packed [K, N] to packed [N, K], tile by tile as above.
static __global__ void turn_kernel(MatmulArgs a, int64_t k_tiles) {
    SHARED(float, tile); // [TILE k][TILE_STRIDE]
    int64_t n0 = blockIdx.x / k_tiles * TILE, k0 = blockIdx.x % k_tiles * TILE, from = packed_stride(a.N), to = packed_stride(a.K);
    int64_t rows = ((a.N + PANEL - 1) / PANEL) * PANEL;
    int lane = (int)threadIdx.x % LANES, first = (int)threadIdx.x / LANES;
    for (int k = first; k < TILE; k += TILE_ROWS)
        for (int n = lane; n < TILE; n += LANES)
            tile[k * TILE_STRIDE + n] = k0 + k < a.K && n0 + n < a.N ? act_get(a.w, (k0 + k) * from + n0 + n, a.dtype) : 0.0f;
    __syncthreads();
    for (int r = first, c = 2 * lane; r < TILE; r += TILE_ROWS)
        if (n0 + r < rows && k0 + c < to)
            put_pair(a.scratch, (n0 + r) * to + k0 + c, tile[c * TILE_STRIDE + r], tile[(c + 1) * TILE_STRIDE + r], a.dtype);
}
void turn_packed(const Device *device, const MatmulArgs *args) {
    int64_t k_tiles = ceil_div(args->K, TILE), n_tiles = ceil_div(args->N, TILE);
    LAUNCH(cuda_context(device)->stream, turn_kernel, dim3((unsigned)(k_tiles * n_tiles)), dim3(TILE_THREADS),
           TILE * TILE_STRIDE * sizeof(float), *args, k_tiles);
}

extern "C" void pack_cuda(const Device *device, const PackArgs *args) {
    if (args->N == 0 || args->K == 0) return;
    int64_t k_tiles = ceil_div(args->K, TILE), n_tiles = ceil_div(args->N, TILE);
    LAUNCH(cuda_context(device)->stream, pack_kernel, dim3((unsigned)(k_tiles * n_tiles)), dim3(TILE_THREADS),
           TILE * TILE_STRIDE * sizeof(float), *args, k_tiles);
}

extern "C" void unpack_cuda(const Device *device, const UnpackArgs *args) {
    if (args->N == 0 || args->K == 0) return;
    int64_t blocks = ceil_div(args->N * args->K, 256), most = 32 * cuda_context(device)->multiprocessors;
    LAUNCH(cuda_context(device)->stream, unpack_kernel, dim3((unsigned)(blocks < most ? blocks : most)), dim3(256), 0, *args);
}
