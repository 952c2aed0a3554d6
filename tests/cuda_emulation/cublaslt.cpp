// cuBLASLt's matrix product, plainly: D = alpha op(A) op(B) + beta C, bf16 or fp32 in, one fp32 chain over k ascending for
// each output, bf16 or fp32 out, rows or columns first, batches by a stride, a bias per row of D. Layouts, descriptors and
// the algorithm are copied at the call, as the library does; the product runs when the stream gets there. Of the algorithms that it
// proposes only the last sums in one order: one splits k and adds the parts as they come, one does so by way of a workspace, and
// both begin elsewhere at every call. Without an algorithm the first is taken.
#include "internal.h"
#include <atomic>
#include "cublasLt.h"

struct EmulatedLtHandle {
    int unused;
};
struct EmulatedLtDesc {
    cublasComputeType_t compute;
    int32_t transpose_a, transpose_b;
    uint32_t epilogue;
    const void *bias;
    cudaDataType_t bias_type;
    bool bias_type_set;
};
struct EmulatedLtLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
    int32_t order;
    int32_t batches;
    int64_t batch_stride; // in elements
};
struct EmulatedLtPreference {
    size_t workspace;
};

using namespace emulation;

namespace {
// Where element (row, column) of one batch lies.
size_t place_of(const EmulatedLtLayout &l, uint64_t row, uint64_t column) {
    return l.order == CUBLASLT_ORDER_ROW ? (size_t)(row * (uint64_t)l.ld + column) : (size_t)(column * (uint64_t)l.ld + row);
}
size_t element_bytes(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }
float load(const unsigned char *base, cudaDataType_t type, size_t i) {
    uint32_t bits = 0;
    if (type == CUDA_R_32F) {
        memcpy(&bits, base + 4 * i, 4);
    } else {
        uint16_t half;
        memcpy(&half, base + 2 * i, 2);
        bits = (uint32_t)half << 16;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
void store(unsigned char *base, cudaDataType_t type, size_t i, float value) {
    if (type == CUDA_R_32F) {
        memcpy(base + 4 * i, &value, 4);
    } else {
        uint16_t half = (uint16_t)bf16_nearest(value);
        memcpy(base + 2 * i, &half, 2);
    }
    memory_written(base + element_bytes(type) * i, element_bytes(type));
}

struct Product {
    EmulatedLtDesc desc;
    EmulatedLtLayout a, b, c, d;
    const void *A, *B, *C;
    void *D;
    float alpha, beta;
    int kind;
};
enum { SPLITS, TAKES_WORKSPACE, ONE_ORDER, KINDS };
constexpr size_t WORKSPACE = 1 << 20;
std::atomic<uint64_t> calls; // of those without an order of their own

// The library reads and writes what the layouts span, so all of it has to lie in one allocation.
bool spans(const char *name, const void *p, const EmulatedLtLayout &l) {
    if (!l.rows || !l.cols) return true;
    size_t last = place_of(l, l.rows - 1, l.cols - 1) + (size_t)(l.batches - 1) * (size_t)l.batch_stride + 1;
    size_t bytes = last * element_bytes(l.type);
    const Allocation *found = allocation_of(p);
    if (found && (const unsigned char *)p - found->data + bytes <= found->bytes) return true;
    report(text("cublasLtMatmul: matrix %s needs %zu bytes from ", name, bytes) + address_name(p));
    return false;
}

cudaError_t run(const Product &p) {
    if (!spans("A", p.A, p.a) || !spans("B", p.B, p.b) || !spans("D", p.D, p.d)) return cudaErrorIllegalAddress;
    if (p.beta != 0 && !spans("C", p.C, p.c)) return cudaErrorIllegalAddress;
    device_memory_open();
    uint64_t depth = p.desc.transpose_a ? p.a.rows : p.a.cols, start = p.kind == ONE_ORDER || !depth ? 0 : ++calls * 7 % depth;
    for (int batch = 0; batch < p.d.batches; batch++) {
        auto base = [&](const void *q, const EmulatedLtLayout &l) {
            return (unsigned char *)q + (size_t)batch * (size_t)l.batch_stride * element_bytes(l.type);
        };
        const unsigned char *A = base(p.A, p.a), *B = base(p.B, p.b), *C = base(p.C, p.c);
        unsigned char *D = base(p.D, p.d);
        for (uint64_t m = 0; m < p.d.rows; m++)
            for (uint64_t n = 0; n < p.d.cols; n++) {
                float sum = 0;
                for (uint64_t i = 0, k = start; i < depth; i++, k = k + 1 < depth ? k + 1 : 0)
                    sum += load(A, p.a.type, p.desc.transpose_a ? place_of(p.a, k, m) : place_of(p.a, m, k)) *
                           load(B, p.b.type, p.desc.transpose_b ? place_of(p.b, n, k) : place_of(p.b, k, n));
                sum *= p.alpha;
                if (p.beta != 0) sum += p.beta * load(C, p.c.type, place_of(p.c, m, n)); // C isn't read where beta is 0
                if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS)
                    sum += load((const unsigned char *)p.desc.bias, p.desc.bias_type_set ? p.desc.bias_type : p.d.type, m);
                store(D, p.d.type, place_of(p.d, m, n), sum);
            }
    }
    device_memory_close();
    return cudaSuccess;
}

bool same_shape(const Product &p) {
    uint64_t m = p.desc.transpose_a ? p.a.cols : p.a.rows, k = p.desc.transpose_a ? p.a.rows : p.a.cols;
    uint64_t n = p.desc.transpose_b ? p.b.rows : p.b.cols, k2 = p.desc.transpose_b ? p.b.cols : p.b.rows;
    bool batches = p.a.batches == p.d.batches && p.b.batches == p.d.batches && p.c.batches == p.d.batches;
    return k == k2 && p.d.rows == m && p.d.cols == n && p.c.rows == m && p.c.cols == n && p.c.type == p.d.type && batches;
}
bool supported(const Product &p) {
    bool inputs = p.a.type == p.b.type && (p.a.type == CUDA_R_32F || p.a.type == CUDA_R_16BF);
    bool outputs = p.d.type == CUDA_R_32F || (p.d.type == CUDA_R_16BF && p.a.type == CUDA_R_16BF);
    bool epilogue = p.desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT || (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS && p.desc.bias);
    return inputs && outputs && epilogue && p.c.order == p.d.order;
}
cublasStatus_t check(const Product &p) {
    for (const EmulatedLtLayout *l : {&p.a, &p.b, &p.c, &p.d}) {
        uint64_t shortest = l->order == CUBLASLT_ORDER_ROW ? l->cols : l->rows;
        if (l->ld < 0 || (uint64_t)l->ld < shortest) return CUBLAS_STATUS_INVALID_VALUE;
    }
    return !same_shape(p) ? CUBLAS_STATUS_INVALID_VALUE : !supported(p) ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

template <typename T> cublasStatus_t set(T *field, const void *value, size_t bytes) {
    if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
constexpr uint64_t ALGORITHM = 0x7265636b6f6e; // marks an algorithm that came from the heuristic
} // namespace

size_t cublasLtGetVersion(void) { return 130000; }
const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    if (machine.devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new EmulatedLtHandle{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale) {
    if (scale != CUDA_R_32F || (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new EmulatedLtDesc{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, CUDA_R_32F, false};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&desc->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&desc->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: desc->bias_type_set = true; return set(&desc->bias_type, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
    *layout = new EmulatedLtLayout{type, rows, cols, ld, CUBLASLT_ORDER_COL, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return set(&layout->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return set(&layout->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return set(&layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return set(&layout->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return set(&layout->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(&layout->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return set(&layout->batch_stride, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new EmulatedLtPreference{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(&preference->workspace, value, bytes);
    return CUBLAS_STATUS_SUCCESS; // the others are wishes, which aren't heard here
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int requested, cublasLtMatmulHeuristicResult_t results[],
                                              int *found) {
    *found = 0;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
    Product p = {*desc, *a, *b, *c, *d, NULL, NULL, NULL, NULL, 1, 0, ONE_ORDER};
    if (cublasStatus_t status = check(p)) return status;
    for (; *found < KINDS && *found < requested; ++*found) {
        cublasLtMatmulHeuristicResult_t *r = &results[*found];
        *r = cublasLtMatmulHeuristicResult_t{};
        r->algo.data[0] = ALGORITHM, r->algo.data[1] = (uint64_t)*found;
        r->workspaceSize = *found == TAKES_WORKSPACE ? WORKSPACE : 0;
        r->wavesCount = 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t bytes, size_t *written) {
    if (algo->data[0] != ALGORITHM || bytes != 4) return CUBLAS_STATUS_INVALID_VALUE;
    bool splits = algo->data[1] == SPLITS;
    uint32_t answer = attribute == CUBLASLT_ALGO_CONFIG_ID                 ? 1 + (uint32_t)algo->data[1]
                      : attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM        ? (splits ? 4 : 1)
                      : attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME  ? splits
                                                                            : 0;
    memcpy(value, &answer, 4);
    if (written) *written = 4;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta,
                              const void *C, cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (algo && algo->data[0] != ALGORITHM) return CUBLAS_STATUS_INVALID_VALUE;
    Product p = {*desc, *Adesc, *Bdesc, *Cdesc, *Ddesc, A, B, C, D, 0, 0, algo ? (int)algo->data[1] : SPLITS};
    if (p.kind == TAKES_WORKSPACE && workspace_bytes < WORKSPACE) return CUBLAS_STATUS_NOT_SUPPORTED;
    memcpy(&p.alpha, alpha, 4);
    memcpy(&p.beta, beta, 4);
    if (cublasStatus_t status = check(p)) return status;
    if ((uintptr_t)A % 16 || (uintptr_t)B % 16 || (uintptr_t)D % 16) {
        report("cublasLtMatmul: a matrix isn't aligned to 16 bytes, which its heuristic was told by default");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (workspace_bytes && !allocation_of(workspace)) {
        report("cublasLtMatmul: the workspace is " + address_name(workspace));
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    enqueue(stream, [p] { return run(p); });
    return CUBLAS_STATUS_SUCCESS;
}

void *emulation::cublaslt_symbol(const char *name) {
#define NAMED(function)                                                                                      \
    if (!strcmp(name, #function)) return (void *)function;
    NAMED(cublasLtGetVersion)
    NAMED(cublasLtGetStatusString)
    NAMED(cublasLtCreate)
    NAMED(cublasLtDestroy)
    NAMED(cublasLtMatmulDescCreate)
    NAMED(cublasLtMatmulDescDestroy)
    NAMED(cublasLtMatmulDescSetAttribute)
    NAMED(cublasLtMatrixLayoutCreate)
    NAMED(cublasLtMatrixLayoutDestroy)
    NAMED(cublasLtMatrixLayoutSetAttribute)
    NAMED(cublasLtMatmulPreferenceCreate)
    NAMED(cublasLtMatmulPreferenceDestroy)
    NAMED(cublasLtMatmulPreferenceSetAttribute)
    NAMED(cublasLtMatmulAlgoGetHeuristic)
    NAMED(cublasLtMatmulAlgoConfigGetAttribute)
    NAMED(cublasLtMatmul)
#undef NAMED
    return NULL;
}
