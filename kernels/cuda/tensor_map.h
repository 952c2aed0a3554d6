// Maps by which Hopper's copy engine (TMA) finds the tiles of a matrix.
#ifndef RECKON_TENSOR_MAP_H
#define RECKON_TENSOR_MAP_H
#include "cuda.h"

typedef struct alignas(64) TensorMap {
    uint64_t opaque[16];
} TensorMap;

// `count` matrices of bf16 [rows, columns], rows `stride` elements apart and matrices `step`, both multiples of 8; base is a
// multiple of 16 bytes. A tile has TILE_COLUMNS columns and `tile_rows` rows, up to 256, and lies in shared memory as wgmma_tile
// (ptx_hopper.h) says; what lies outside of the matrix comes as zeros. False where the driver can't make it.
enum { TILE_COLUMNS = 64 };
typedef struct TensorMapArgs {
    const void *base;
    int64_t columns, rows, count, stride, step;
    int tile_rows;
} TensorMapArgs;
bool tensor_map(const CudaContext *context, const TensorMapArgs *args, TensorMap *map);
// Asks the driver for what tensor_map needs: context->tensor_map_encode, or NULL.
void tensor_map_open(CudaContext *context);

#endif
