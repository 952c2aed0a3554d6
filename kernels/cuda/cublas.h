// cuBLASLt, opened at run time. Where it isn't there, own kernels do its work.
#ifndef RECKON_CUDA_CUBLAS_H
#define RECKON_CUDA_CUBLAS_H
#include "cuda.h"

// Sets context->blas, or leaves NULL where the library is missing, which is no error. The device must be current.
bool cublas_open(CudaContext *context, Err *err) MUST_CHECK;
void cublas_close(CudaContext *context); // nothing may be queued any more
// For the ledger: "cuBLASLt 13.1.0"; NULL where own kernels do all. Valid while the context is open.
const char *cublas_version(const CudaContext *context);

// dw[n, k] (+)= sum_t dy[t, n] x[t, k] for tokens [0, T) of bf16, aligned to 16 bytes like their rows. False, and nothing
// done, where the library is missing or has no algorithm that adds in one pass; the answer is the same each time.
typedef struct CublasGradient {
    int64_t T, N, K;
    const bf16 *x; // [T, ldx]
    int64_t ldx;
    const bf16 *dy; // [T, ldy]
    int64_t ldy;
    float *dw;      // [N, K]
    bool written;   // it isn't read
} CublasGradient;
bool cublas_gradient(const CudaContext *context, const CublasGradient *args);
// A product by whatever algorithm the library proposes for its shape, so bits depend on the number of rows; the library must be there.
// False, and nothing done, where it has none, and for what it isn't asked: fp32, a bias, many products, rows that aren't aligned.
bool cublas_product(const CudaContext *context, const MatmulArgs *args);

#endif
