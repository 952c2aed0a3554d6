// Tensor maps are made by the driver, whose library is open already where there is a device (CUDA driver API, "Tensor Map Object
// Management"). Its header can't be named beside cuda.h of this folder; what is needed of it is said here.
#include "tensor_map.h"
#ifndef RECKON_CUDA_EMULATION
#include <dlfcn.h>
#endif

enum { RANK = 3, DATA_BFLOAT16 = 9, INTERLEAVE_NONE = 0, SWIZZLE_128B = 3, L2_PROMOTION_256B = 3, OUTSIDE_ZEROS = 0 };
typedef int (*Encode)(TensorMap *map, int type, uint32_t rank, void *base, const uint64_t *sizes, const uint64_t *strides,
                      const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int promotion, int outside);

void tensor_map_open(CudaContext *context) {
#ifdef RECKON_CUDA_EMULATION
    context->tensor_map_encode = emulation_symbol("libcuda", "cuTensorMapEncodeTiled");
#else
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL); // stays open: the runtime uses it
    context->tensor_map_encode = driver ? dlsym(driver, "cuTensorMapEncodeTiled") : NULL;
#endif
}

bool tensor_map(const CudaContext *context, const TensorMapArgs *a, TensorMap *map) {
    const uint64_t sizes[RANK] = {(uint64_t)a->columns, (uint64_t)a->rows, (uint64_t)a->count};
    // A single matrix has no step; the driver wants one all the same.
    const uint64_t strides[RANK - 1] = {(uint64_t)a->stride * sizeof(bf16), (uint64_t)(a->count > 1 ? a->step : a->stride) * sizeof(bf16)};
    const uint32_t box[RANK] = {TILE_COLUMNS, (uint32_t)a->tile_rows, 1}, element_strides[RANK] = {1, 1, 1};
    Encode encode = (Encode)context->tensor_map_encode;
    return encode(map, DATA_BFLOAT16, RANK, (void *)a->base, sizes, strides, box, element_strides, INTERLEAVE_NONE, SWIZZLE_128B,
                  L2_PROMOTION_256B, OUTSIDE_ZEROS) == 0;
}
