// fp32 products of CUDA devices, forward and of gradients: each output chains of fused multiply-adds (matmul_f32.cu).
#ifndef RECKON_CUDA_CHAIN_H
#define RECKON_CUDA_CHAIN_H
#include "cuda.h"

// y[i, j] = sum_r a(i, r) b(j, r) (+ bias[j]), added to y or stored. a(i, r) lies at a[i * a_row + r * a_depth]; b likewise.
// With segments, r runs over each in turn, and what each gives is added to y in order.
typedef struct ChainArgs {
    int64_t rows, columns, depth;
    const float *a;
    int64_t a_row, a_depth;
    const float *b;
    int64_t b_row, b_depth;
    const float *bias; // [columns] or NULL
    bool add;
    float *y;          // [rows, ldy]
    int64_t ldy;
    int segments;         // 0: one, [0, depth)
    const int32_t *start; // [segments + 1]
} ChainArgs;
void chain_product(const CudaContext *context, const ChainArgs *args);

#endif
