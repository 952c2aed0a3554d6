// fp32 products of CUDA devices, forward and of gradients: each output chains of fused multiply-adds (matmul_f32.cu).
#ifndef RECKON_CUDA_CHAIN_H
#define RECKON_CUDA_CHAIN_H
#include "cuda.h"

// y[i, j] = sum_r a(i, r) b(j, r) (+ bias[j]), added to y or stored. a(i, r) lies at a[i * a_row + r * a_depth]; b likewise.
// With segments, r runs over each in turn, and what each gives is added to y in order (the first one's is stored where y isn't
// added to).
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
    // Many products (ops.h): their a, b and y begin so much further on. With a start of their own it gives the rows of each,
    // or, where there are segments, its segments.
    int products; // 0: one
    const int32_t *product_start;
    int every;
    int64_t a_step, b_step, y_step;
} ChainArgs;
void chain_product(const CudaContext *context, const ChainArgs *args);

// Which product and which tile of its rows the tile `number` of all is, where tiles of `side` rows are numbered through the
// products; false beyond the last.
static inline __device__ bool find_product(const int32_t *start, int every, int products, int side, int64_t number, int *product,
                                           int64_t *tile) {
    for (int i = 0; i < products; i++) {
        int rows = start[(i + 1) * every] - start[i * every], tiles = (rows + side - 1) / side;
        if (number < tiles) {
            *product = i, *tile = number;
            return true;
        }
        number -= tiles;
    }
    return false;
}

#endif
