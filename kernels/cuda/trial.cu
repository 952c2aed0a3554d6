// Whether wgmma does on this device what matmul.cu and head_tile.h take it to do: each of their shapes once, on small whole numbers,
// whose sums are exact in any order. The results must be those of plain C; a wrong descriptor, map, swizzle or layout of
// registers shows in them. Where they aren't, mma.sync serves. A fault within a kernel is more than a trial can bear: the process
// can't use the device after it. Then RECKON_CUDA_PRODUCTS=mma leaves wgmma out, the trial included (scripts/gpu-check tries both).
#include "cuda.h"
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 328, ROWS = 192, WEIGHTS = 300, COLUMNS = 123 }; // two chunks; tiles that aren't full; two blocks of vocabulary
typedef struct Trial {
    float x[ROWS][DEPTH], w[WEIGHTS][DEPTH], y[ROWS * 2 * VOCAB_BLOCK];
    bf16 held[WEIGHTS * (DEPTH + 16)]; // either, as the device has it
} Trial;
typedef struct Room { // on the device
    bf16 x[ROWS * (DEPTH + 16)], w[WEIGHTS * (DEPTH + 16)];
    float inv_temperature[ROWS], y[ROWS * 2 * VOCAB_BLOCK];
    VocabStats stats[ROWS * 2];
} Room;

static float whole_number(int row, int k) { return (float)((row * 7 + k * 3 + row * k % 11) % 5 - 2); }

static bool to_device(const CudaContext *context, void *to, const void *from, size_t bytes) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, context->stream) == cudaSuccess &&
           cudaStreamSynchronize(context->stream) == cudaSuccess;
}
static bool put_rows(const CudaContext *context, Trial *t, const float (*rows)[DEPTH], int count, int64_t stride, bf16 *to) {
    memset(t->held, 0, sizeof t->held);
    for (int r = 0; r < count; r++)
        for (int k = 0; k < DEPTH; k++) {
            uint32_t bits;
            memcpy(&bits, &rows[r][k], sizeof bits);
            t->held[r * stride + k] = (bf16)(bits >> 16); // exact
        }
    return to_device(context, to, t->held, (size_t)(count * stride) * sizeof(bf16));
}
// y [rows][stride] is x w^T.
static bool is_product(const CudaContext *context, Trial *t, const Room *room, int rows, int columns, int stride) {
    bool ran = cudaGetLastError() == cudaSuccess;
    size_t bytes = (size_t)(rows * stride) * sizeof(float);
    ran = cudaMemcpyAsync(t->y, room->y, bytes, cudaMemcpyDeviceToHost, context->stream) == cudaSuccess && ran;
    if (cudaStreamSynchronize(context->stream) != cudaSuccess || !ran) return false;
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < columns; n++) {
            float want = 0;
            for (int k = 0; k < DEPTH; k++) want += t->x[m][k] * t->w[n][k];
            if (t->y[m * stride + n] != want) return false;
        }
    return true;
}

// With one multiprocessor the number of rows decides on the shape.
static bool matmul_passes(const Device *device, Trial *t, Room *room) {
    static const struct {
        int rows, beyond; // columns between rows of x
    } cases[] = {{5, 0}, {13, 0}, {29, 0}, {61, 0}, {70, 0}, {189, 0}, {40, 1}};
    const CudaContext *context = cuda_context(device);
    for (const auto &c : cases) {
        MatmulArgs a = {};
        a.M = c.rows, a.N = COLUMNS, a.K = DEPTH, a.dtype = DTYPE_BF16, a.store = STORE_F32;
        a.x = room->x, a.ldx = DEPTH + c.beyond, a.w = room->w, a.y = room->y, a.ldy = COLUMNS;
        if (!put_rows(context, t, t->x, c.rows, a.ldx, room->x)) return false;
        matmul_cuda(device, &a);
        if (!is_product(context, t, room, c.rows, COLUMNS, COLUMNS)) return false;
    }
    return true;
}
static bool head_passes(const Device *device, Trial *t, Room *room) {
    const CudaContext *context = cuda_context(device);
    if (!put_rows(context, t, t->x, ROWS, DEPTH, room->x)) return false;
    static const int counts[] = {5, 29, 61, 90}; // rows, for each width of its tiles
    for (int rows : counts) {
        HeadArgs a = {};
        a.M = rows, a.V = WEIGHTS, a.C = DEPTH, a.dtype = DTYPE_BF16, a.x = room->x, a.w = room->w, a.inv_temperature = room->inv_temperature;
        a.logits = room->y, a.stats = room->stats;
        head_cuda(device, &a);
        if (!is_product(context, t, room, rows, WEIGHTS, 2 * VOCAB_BLOCK)) return false;
    }
    return true;
}

bool wgmma_works(const CudaContext *context) {
    if (context->capability != 90 || !context->tensor_map_encode) return false;
    CudaContext tried = *context;
    tried.wgmma = true, tried.multiprocessors = 1;
    Device device = {};
    device.cuda = &tried;
    Room *room = NULL;
    Trial *t = (Trial *)malloc(sizeof *t);
    bool works = t && cudaMalloc((void **)&room, sizeof *room) == cudaSuccess;
    for (int r = 0; works && r < WEIGHTS; r++)
        for (int k = 0; k < DEPTH; k++) {
            t->w[r][k] = whole_number(r, k);
            if (r < ROWS) t->x[r][k] = whole_number(r + 1000, k), t->y[r] = 1.0f;
        }
    works = works && to_device(context, room->inv_temperature, t->y, ROWS * sizeof(float)) &&
            put_rows(context, t, t->w, WEIGHTS, packed_stride(DEPTH), room->w) && matmul_passes(&device, t, room) && head_passes(&device, t, room);
    if (room) cudaFree(room);
    free(t);
    return works;
}
