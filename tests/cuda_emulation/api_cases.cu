// Uses of the emulated runtime API, as test_api.c runs them.
#include <cuda_runtime.h>
#include "api_cases.h"
#include "cublasLt.h"
#include "emulation.h"
#include "nvml.h"
#include <stdio.h>
#include <vector>

namespace {
char message[512];
const char *failed(int line, const char *what) {
    const char *report = emulation_report();
    snprintf(message, sizeof message, "api_cases.cu:%d: expected %s%s%s", line, what, report ? "; report: " : "", report ? report : "");
    return message;
}
#define EXPECT(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition)) return failed(__LINE__, #condition);                                               \
    } while (0)
#define FINE(call) EXPECT((call) == cudaSuccess)

__global__ void add_kernel(int *y, int n, int value) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] += value;
}
__global__ void double_kernel(const int *x, int *y, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = 2 * x[i];
}
__global__ void sum_kernel(const float *x, float *y, int n) { // right, but for its fixed order
    SHARED(float, parts);
    float sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) sum += x[i];
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (unsigned i = 1; i < blockDim.x; i++) sum += parts[i];
    *y = sum;
}
__global__ void racing_order_kernel(unsigned *y) { y[atomicAdd(y, 1u) + 1] = threadIdx.x; }

const int N = 100;
struct Work { // a stream, two device arrays of zeros and a pinned one
    cudaStream_t stream = nullptr;
    int *x = nullptr, *y = nullptr, *pinned = nullptr;
    Work() {
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaMalloc(&x, N * sizeof(int));
        cudaMalloc(&y, N * sizeof(int));
        cudaMallocHost(&pinned, N * sizeof(int));
        cudaMemset(x, 0, N * sizeof(int));
        cudaMemset(y, 0, N * sizeof(int));
        for (int i = 0; i < N; i++) pinned[i] = i;
    }
    ~Work() {
        cudaStreamDestroy(stream);
        cudaFree(x);
        cudaFree(y);
        cudaFreeHost(pinned);
    }
    void add(int value) { LAUNCH(stream, add_kernel, 2, 64, 0, y, N, value); }
    void fetch() { cudaMemcpyAsync(pinned, y, N * sizeof(int), cudaMemcpyDeviceToHost, stream); }
};
} // namespace

const char *case_memory_limits(void) {
    emulation_machine()->memory_bytes = 1 << 20;
    size_t free_bytes, total;
    FINE(cudaMemGetInfo(&free_bytes, &total));
    EXPECT(total == 1 << 20 && free_bytes == 1 << 20);
    void *p, *q;
    FINE(cudaMalloc(&p, 600 << 10));
    EXPECT((uintptr_t)p % 256 == 0);
    EXPECT(cudaMalloc(&q, 600 << 10) == cudaErrorMemoryAllocation && q == nullptr);
    EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
    FINE(cudaMemGetInfo(&free_bytes, &total));
    EXPECT(free_bytes == (size_t)424 << 10);
    EXPECT(cudaMalloc(&q, SIZE_MAX - 100) == cudaErrorMemoryAllocation);
    FINE(cudaFree(p));
    FINE(cudaMalloc(&q, 600 << 10));
    EXPECT(p != q); // what was freed isn't given out again
    FINE(cudaFree(q));
    FINE(cudaFree(nullptr));
    EXPECT(emulation_allocated_bytes() == 0);
    return nullptr;
}

const char *case_failing_allocations(void) {
    void *p, *q, *h;
    emulation_fail_allocation(2);
    FINE(cudaMalloc(&p, 100));
    EXPECT(cudaMalloc(&q, 100) == cudaErrorMemoryAllocation);
    FINE(cudaMalloc(&q, 100));
    emulation_fail_host_allocation(1);
    EXPECT(cudaMallocHost(&h, 100) == cudaErrorMemoryAllocation);
    FINE(cudaMallocHost(&h, 100));
    FINE(cudaFree(p));
    FINE(cudaFree(q));
    FINE(cudaFreeHost(h));
    EXPECT(cudaFree((char *)nullptr + 64) == cudaErrorInvalidValue);
    EXPECT(emulation_report() != nullptr);
    return nullptr;
}

const char *case_launch_limits(void) {
    Work w;
    cudaGetLastError();
    LAUNCH(w.stream, add_kernel, 1, 1025, 0, w.y, N, 1);
    EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    LAUNCH(w.stream, add_kernel, 0, 32, 0, w.y, N, 1);
    EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    LAUNCH(w.stream, add_kernel, dim3(1, 65536), 32, 0, w.y, N, 1);
    EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    LAUNCH(w.stream, add_kernel, 1, 32, 48 * 1024, w.y, 32, 1);
    EXPECT(cudaGetLastError() == cudaSuccess);
    LAUNCH(w.stream, add_kernel, 1, 32, 48 * 1024 + 16, w.y, N, 1);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    emulation_machine()->major = 9;
    EXPECT(cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024 + 1) == cudaErrorInvalidValue);
    FINE(cudaFuncSetAttribute(add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024));
    cudaGetLastError();
    LAUNCH(w.stream, add_kernel, 1, 32, 227 * 1024, w.y, 32, 1);
    EXPECT(cudaGetLastError() == cudaSuccess);
    LAUNCH(w.stream, add_kernel, 1, 32, 227 * 1024 + 16, w.y, 32, 1);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    FINE(cudaStreamSynchronize(w.stream));
    w.fetch();
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[0] == 2 && w.pinned[31] == 2 && w.pinned[32] == 0);
    return nullptr;
}

const char *case_no_device(void) {
    int count = 7;
    emulation_machine()->devices = 0;
    EXPECT(cudaGetDeviceCount(&count) == cudaErrorNoDevice && count == 0);
    void *p;
    EXPECT(cudaMalloc(&p, 16) == cudaErrorNoDevice);
    emulation_machine()->devices = 2;
    emulation_machine()->driver_version = 12000;
    EXPECT(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
    emulation_machine()->driver_version = 13000;
    FINE(cudaGetDeviceCount(&count));
    EXPECT(count == 2);
    EXPECT(cudaSetDevice(2) == cudaErrorInvalidDevice);
    FINE(cudaSetDevice(1));
    int now;
    FINE(cudaGetDevice(&now));
    EXPECT(now == 1);
    EXPECT(!strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice"));
    EXPECT(!strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory"));
    return nullptr;
}

const char *case_device_properties(void) {
    emulation_machine()->major = 8;
    emulation_machine()->minor = 9;
    emulation_machine()->multiprocessors = 3;
    cudaDeviceProp p;
    FINE(cudaGetDeviceProperties(&p, 0));
    EXPECT(p.major == 8 && p.minor == 9 && p.multiProcessorCount == 3 && p.sharedMemPerBlockOptin == 99 * 1024);
    int value;
    FINE(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    EXPECT(value == 99 * 1024);
    EXPECT(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1) == cudaErrorInvalidDevice);
    return nullptr;
}

const char *case_sticky_errors(void) {
    Work w;
    emulation_fail_launch(2, cudaErrorECCUncorrectable);
    w.add(1);
    w.add(1);
    EXPECT(cudaGetLastError() == cudaSuccess); // not known yet
    EXPECT(cudaStreamSynchronize(w.stream) == cudaErrorECCUncorrectable);
    void *p;
    EXPECT(cudaMalloc(&p, 16) == cudaErrorECCUncorrectable);
    EXPECT(cudaGetLastError() == cudaErrorECCUncorrectable);
    EXPECT(cudaGetLastError() == cudaErrorECCUncorrectable);
    return nullptr;
}

const char *case_failing_synchronization(void) {
    Work w;
    emulation_fail_synchronize(2, cudaErrorLaunchTimeout);
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(cudaStreamSynchronize(w.stream) == cudaErrorLaunchTimeout);
    EXPECT(cudaDeviceSynchronize() == cudaErrorLaunchTimeout);
    return nullptr;
}

const char *case_streams_run_late(void) {
    Work w;
    w.add(5);
    w.fetch();
    EXPECT(w.pinned[7] == 7);
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[7] == 5);
    // A pinned source is read when the stream gets there.
    w.pinned[7] = 70;
    FINE(cudaMemcpyAsync(w.y, w.pinned, N * sizeof(int), cudaMemcpyHostToDevice, w.stream));
    w.pinned[7] = 71;
    w.fetch();
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[7] == 71);
    emulation_set_eager(true);
    w.add(1);
    w.fetch();
    EXPECT(w.pinned[7] == 72);
    return nullptr;
}

const char *case_plain_copies_are_staged(void) {
    Work w;
    int plain[N];
    for (int i = 0; i < N; i++) plain[i] = 3 * i;
    FINE(cudaMemcpyAsync(w.y, plain, sizeof plain, cudaMemcpyHostToDevice, w.stream));
    memset(plain, 0, sizeof plain);
    w.add(1);
    FINE(cudaMemcpyAsync(plain, w.y, sizeof plain, cudaMemcpyDeviceToHost, w.stream)); // waits
    for (int i = 0; i < N; i++) EXPECT(plain[i] == 3 * i + 1);
    return nullptr;
}

const char *case_events_order_streams(void) {
    Work w;
    cudaStream_t other;
    cudaEvent_t ready, late;
    FINE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    FINE(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    FINE(cudaEventCreate(&late));
    FINE(cudaEventQuery(ready)); // never recorded
    LAUNCH(other, add_kernel, 2, 64, 0, w.x, N, 21);
    FINE(cudaEventRecord(ready, other));
    LAUNCH(other, add_kernel, 2, 64, 0, w.x, N, 1000); // after the event: not waited for
    FINE(cudaStreamWaitEvent(w.stream, ready));
    LAUNCH(w.stream, double_kernel, 2, 64, 0, w.x, w.y, N);
    w.fetch();
    FINE(cudaEventRecord(late, w.stream));
    FINE(cudaEventSynchronize(late));
    EXPECT(w.pinned[3] == 42);
    float milliseconds;
    EXPECT(cudaEventElapsedTime(&milliseconds, ready, late) == cudaErrorInvalidResourceHandle);
    cudaEvent_t later;
    FINE(cudaEventCreate(&later));
    FINE(cudaEventRecord(later, w.stream));
    EXPECT(cudaEventElapsedTime(&milliseconds, late, later) == cudaErrorNotReady);
    FINE(cudaEventSynchronize(later));
    FINE(cudaEventElapsedTime(&milliseconds, late, later));
    EXPECT(milliseconds >= 0);
    FINE(cudaStreamDestroy(other)); // what is queued completes
    int x[N];
    FINE(cudaMemcpy(x, w.x, sizeof x, cudaMemcpyDeviceToHost));
    EXPECT(x[0] == 1021);
    FINE(cudaEventDestroy(ready));
    FINE(cudaEventDestroy(late));
    FINE(cudaEventDestroy(later));
    return nullptr;
}

const char *case_queries_make_progress(void) {
    Work w;
    for (int i = 0; i < 5; i++) w.add(1);
    w.fetch();
    cudaEvent_t event;
    FINE(cudaEventCreate(&event));
    FINE(cudaEventRecord(event, w.stream));
    int polls = 0;
    cudaError_t error;
    while ((error = cudaEventQuery(event)) == cudaErrorNotReady) polls++;
    EXPECT(error == cudaSuccess && polls >= 6 && w.pinned[0] == 5);
    w.add(1);
    while ((error = cudaStreamQuery(w.stream)) == cudaErrorNotReady) polls++;
    EXPECT(error == cudaSuccess);
    FINE(cudaEventDestroy(event));
    return nullptr;
}

static void note(void *data) {
    int *numbers = (int *)data;
    numbers[0]++;
    void *p;
    numbers[1] = cudaMalloc(&p, 16);
}
const char *case_host_functions(void) {
    Work w;
    int numbers[2] = {0, 0};
    w.add(1);
    FINE(cudaLaunchHostFunc(w.stream, note, numbers));
    EXPECT(numbers[0] == 0);
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(numbers[0] == 1 && numbers[1] == cudaErrorNotPermitted);
    return nullptr;
}

const char *case_graphs_replay(void) {
    Work w;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    FINE(cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeThreadLocal));
    w.add(3);
    FINE(cudaMemcpyAsync(w.x, w.y, N * sizeof(int), cudaMemcpyDeviceToDevice, w.stream));
    FINE(cudaMemsetAsync(w.y, 0, 4, w.stream));
    w.fetch();
    FINE(cudaStreamEndCapture(w.stream, &graph));
    FINE(cudaGraphInstantiate(&exec, graph));
    FINE(cudaGraphDestroy(graph));
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[5] == 5); // nothing ran
    for (int i = 0; i < 3; i++) FINE(cudaGraphLaunch(exec, w.stream));
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[5] == 9 && w.pinned[0] == 0);
    int x[N];
    FINE(cudaMemcpy(x, w.x, sizeof x, cudaMemcpyDeviceToHost));
    EXPECT(x[0] == 3 && x[1] == 9);
    FINE(cudaGraphExecDestroy(exec));
    return nullptr;
}

const char *case_graphs_over_two_streams(void) {
    Work w;
    cudaStream_t other;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    FINE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    FINE(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    FINE(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    for (int joined = 0; joined < 2; joined++) {
        FINE(cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeThreadLocal));
        w.add(1);
        FINE(cudaEventRecord(fork, w.stream));
        FINE(cudaStreamWaitEvent(other, fork));
        LAUNCH(other, add_kernel, 2, 64, 0, w.x, N, 10);
        FINE(cudaEventRecord(join, other));
        if (joined) FINE(cudaStreamWaitEvent(w.stream, join));
        cudaError_t error = cudaStreamEndCapture(w.stream, &graph);
        EXPECT(error == (joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined));
    }
    cudaGraphExec_t exec;
    FINE(cudaGraphInstantiate(&exec, graph));
    FINE(cudaGraphLaunch(exec, w.stream));
    FINE(cudaDeviceSynchronize());
    int x[N];
    FINE(cudaMemcpy(x, w.x, sizeof x, cudaMemcpyDeviceToHost));
    EXPECT(x[N - 1] == 10);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(other);
    cudaEventDestroy(fork);
    cudaEventDestroy(join);
    return nullptr;
}

const char *case_captures_refuse(void) {
    Work w;
    cudaGraph_t graph;
    void *p;
    FINE(cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal));
    w.add(1);
    EXPECT(cudaStreamSynchronize(w.stream) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamEndCapture(w.stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr);
    FINE(cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal));
    EXPECT(cudaMalloc(&p, 16) == cudaErrorStreamCaptureUnsupported);
    EXPECT(cudaStreamEndCapture(w.stream, &graph) == cudaErrorStreamCaptureInvalidated);
    EXPECT(cudaStreamEndCapture(w.stream, &graph) == cudaErrorInvalidValue);
    FINE(cudaMalloc(&p, 16));
    FINE(cudaFree(p));
    return nullptr;
}

const char *case_copies_have_directions(void) {
    Work w;
    int plain[N] = {0};
    EXPECT(cudaMemcpy(plain, w.y, sizeof plain, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    EXPECT(emulation_report() && strstr(emulation_report(), "direction"));
    return nullptr;
}

const char *case_suballocation(void) {
    Work w;
    // The middle of y is closed to kernels.
    emulation_close_memory(w.y + 40, 20 * sizeof(int));
    w.add(1);
    if (emulation_checker_active()) {
        EXPECT(cudaStreamSynchronize(w.stream) == cudaErrorIllegalAddress);
        EXPECT(strstr(emulation_report(), "out of bounds"));
    }
    emulation_open_memory(w.y + 40, 20 * sizeof(int));
    return nullptr;
}

const char *case_host_guard(void) {
    Work w;
    EXPECT(*(volatile int *)w.y == 0);
    EXPECT(emulation_report() && strstr(emulation_report(), "host code"));
    emulation_reset();
    emulation_catch(true);
    emulation_host_access_begin();
    EXPECT(*(volatile int *)w.y == 0);
    emulation_host_access_end();
    EXPECT(!emulation_report());
    emulation_set_host_guard(false);
    EXPECT(*(volatile int *)w.y == 0);
    EXPECT(!emulation_report());
    emulation_set_host_guard(true);
    return nullptr;
}

static std::vector<unsigned> order_of_run(uint64_t seed) {
    emulation_reset();
    emulation_catch(true);
    emulation_set_checks(0);
    emulation_set_seed(seed);
    unsigned *y;
    cudaMalloc(&y, 65 * 4);
    cudaMemset(y, 0, 65 * 4);
    LAUNCH(0, racing_order_kernel, 1, 64, 0, y);
    std::vector<unsigned> order(65);
    cudaMemcpy(order.data(), y, 65 * 4, cudaMemcpyDeviceToHost);
    cudaFree(y);
    return order;
}
const char *case_same_seed_same_run(void) {
    EXPECT(order_of_run(7) == order_of_run(7));
    EXPECT(order_of_run(7) != order_of_run(8) || order_of_run(7) != order_of_run(9));
    EXPECT(order_of_run(7)[0] == 64);
    return nullptr;
}

const char *case_repeats_keep_results(void) {
    Work w;
    emulation_set_repeats(4);
    w.add(1); // not four times
    w.fetch();
    FINE(cudaStreamSynchronize(w.stream));
    EXPECT(w.pinned[0] == 1 && w.pinned[99] == 1);
    float *x, *y, sum = 0, host[333];
    for (int i = 0; i < 333; i++) host[i] = 1.0f / (float)(i + 1);
    FINE(cudaMalloc(&x, sizeof host));
    FINE(cudaMalloc(&y, 4));
    FINE(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    LAUNCH(w.stream, sum_kernel, 1, 96, 96 * 4, x, y, 333);
    FINE(cudaStreamSynchronize(w.stream));
    FINE(cudaMemcpy(&sum, y, 4, cudaMemcpyDeviceToHost));
    EXPECT(sum > 6.38f && sum < 6.39f);
    EXPECT(!emulation_report());
    FINE(cudaFree(x));
    FINE(cudaFree(y));
    return nullptr;
}

// ---- libraries -------------------------------------------------------------------------------------------
namespace {
#define BLAS(name) ((decltype(&name))emulation_symbol("libcublasLt.so.13", #name))
#define NVML(name) ((decltype(&name))emulation_symbol("libnvidia-ml.so.1", #name))
float widened(uint16_t bits) {
    uint32_t u = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
struct Blas {
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;
    Blas() {
        BLAS(cublasLtCreate)(&handle);
        BLAS(cublasLtMatmulDescCreate)(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        BLAS(cublasLtMatmulPreferenceCreate)(&preference);
    }
    ~Blas() {
        for (cublasLtMatrixLayout_t l : {a, b, d}) BLAS(cublasLtMatrixLayoutDestroy)(l);
        BLAS(cublasLtMatmulPreferenceDestroy)(preference);
        BLAS(cublasLtMatmulDescDestroy)(desc);
        BLAS(cublasLtDestroy)(handle);
    }
    void layout(cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld, int32_t order) {
        BLAS(cublasLtMatrixLayoutCreate)(l, type, rows, cols, ld);
        BLAS(cublasLtMatrixLayoutSetAttribute)(*l, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order);
    }
};
// d[m, n] = 2 sum_k a[m, k] b[n, k] + d, a by rows, b by rows read as a transposed operand, d by columns.
const char *product(bool bf16) {
    const int M = 5, N8 = 6, K = 16;
    Blas blas;
    Work w;
    std::vector<float> a(M * K), b(N8 * K), d(M * N8, 1.0f);
    std::vector<uint16_t> a16(M * K), b16(N8 * K);
    for (int i = 0; i < M * K; i++) a[(size_t)i] = (float)(i % 7 - 3), a16[(size_t)i] = (uint16_t)(__float_as_uint(a[(size_t)i]) >> 16);
    for (int i = 0; i < N8 * K; i++) b[(size_t)i] = (float)(i % 5 - 2), b16[(size_t)i] = (uint16_t)(__float_as_uint(b[(size_t)i]) >> 16);
    EXPECT(widened(a16[1]) == a[1]);
    size_t size = bf16 ? 2 : 4;
    void *da, *db;
    float *dd;
    FINE(cudaMalloc(&da, M * K * size));
    FINE(cudaMalloc(&db, N8 * K * size));
    FINE(cudaMalloc(&dd, M * N8 * 4));
    FINE(cudaMemcpy(da, bf16 ? (void *)a16.data() : (void *)a.data(), M * K * size, cudaMemcpyHostToDevice));
    FINE(cudaMemcpy(db, bf16 ? (void *)b16.data() : (void *)b.data(), N8 * K * size, cudaMemcpyHostToDevice));
    FINE(cudaMemcpy(dd, d.data(), M * N8 * 4, cudaMemcpyHostToDevice));
    cudaDataType type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    int32_t transpose = CUBLAS_OP_T;
    blas.layout(&blas.a, type, M, K, K, CUBLASLT_ORDER_ROW);
    blas.layout(&blas.b, type, N8, K, K, CUBLASLT_ORDER_ROW);
    blas.layout(&blas.d, CUDA_R_32F, M, N8, M, CUBLASLT_ORDER_COL);
    EXPECT(BLAS(cublasLtMatmulDescSetAttribute)(blas.desc, CUBLASLT_MATMUL_DESC_TRANSB, &transpose, 4) == CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulHeuristicResult_t found;
    int count;
    EXPECT(BLAS(cublasLtMatmulAlgoGetHeuristic)(blas.handle, blas.desc, blas.a, blas.b, blas.d, blas.d, blas.preference, 1, &found,
                                                &count) == CUBLAS_STATUS_SUCCESS &&
           count == 1);
    float alpha = 2, beta = 1;
    EXPECT(BLAS(cublasLtMatmul)(blas.handle, blas.desc, &alpha, da, blas.a, db, blas.b, &beta, dd, blas.d, dd, blas.d, &found.algo,
                                nullptr, 0, w.stream) == CUBLAS_STATUS_SUCCESS);
    FINE(cudaStreamSynchronize(w.stream));
    FINE(cudaMemcpy(d.data(), dd, M * N8 * 4, cudaMemcpyDeviceToHost));
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N8; n++) {
            float want = 0;
            for (int k = 0; k < K; k++) want += a[(size_t)(m * K + k)] * b[(size_t)(n * K + k)];
            EXPECT(d[(size_t)(n * M + m)] == 2 * want + 1);
        }
    FINE(cudaFree(da));
    FINE(cudaFree(db));
    FINE(cudaFree(dd));
    return nullptr;
}
} // namespace

const char *case_matrix_products(void) {
    const char *wrong = product(true);
    return wrong ? wrong : product(false);
}

const char *case_matrix_product_refusals(void) {
    Blas blas;
    float *p, alpha = 1, beta = 0;
    FINE(cudaMalloc(&p, 4 * 64));
    blas.layout(&blas.a, CUDA_R_32F, 8, 8, 8, CUBLASLT_ORDER_ROW);
    blas.layout(&blas.b, CUDA_R_32F, 8, 8, 7, CUBLASLT_ORDER_ROW); // rows overlap
    blas.layout(&blas.d, CUDA_R_32F, 8, 8, 9, CUBLASLT_ORDER_ROW); // wider than its memory
    auto run = [&](cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t d) {
        return BLAS(cublasLtMatmul)(blas.handle, blas.desc, &alpha, p, blas.a, p, b, &beta, p, d, p, d, nullptr, nullptr, 0, nullptr);
    };
    EXPECT(run(blas.b, blas.a) == CUBLAS_STATUS_INVALID_VALUE);
    EXPECT(!emulation_report());
    EXPECT(run(blas.a, blas.d) == CUBLAS_STATUS_SUCCESS);
    EXPECT(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    EXPECT(emulation_report() && strstr(emulation_report(), "matrix D needs"));
    cudaFree(p);
    return nullptr;
}

const char *case_nvml_counters(void) {
    nvmlDevice_t device;
    unsigned long long millijoules, reasons;
    unsigned value;
    EXPECT(NVML(nvmlDeviceGetHandleByPciBusId_v2)("0000:01:00.0", &device) == NVML_ERROR_UNINITIALIZED);
    EXPECT(NVML(nvmlInit_v2)() == NVML_SUCCESS);
    char id[32];
    FINE(cudaDeviceGetPCIBusId(id, sizeof id, 0));
    EXPECT(NVML(nvmlDeviceGetHandleByPciBusId_v2)(id, &device) == NVML_SUCCESS);
    EXPECT(NVML(nvmlDeviceGetHandleByPciBusId_v2)("0000:07:00.0", &device) == NVML_ERROR_NOT_FOUND);
    emulation_nvml()->joules = 12.5;
    emulation_nvml()->joules_per_launch = 2;
    {
        Work w;
        w.add(1);
        FINE(cudaStreamSynchronize(w.stream));
    }
    EXPECT(NVML(nvmlDeviceGetTotalEnergyConsumption)((nvmlDevice_t)1, &millijoules) == NVML_SUCCESS && millijoules == 14500);
    emulation_nvml()->throttle_reasons = nvmlClocksThrottleReasonSwPowerCap;
    EXPECT(NVML(nvmlDeviceGetCurrentClocksThrottleReasons)((nvmlDevice_t)1, &reasons) == NVML_SUCCESS && reasons == 4);
    emulation_nvml()->temperature = 88;
    EXPECT(NVML(nvmlDeviceGetTemperature)((nvmlDevice_t)1, NVML_TEMPERATURE_GPU, &value) == NVML_SUCCESS && value == 88);
    emulation_nvml()->power_supported = false;
    EXPECT(NVML(nvmlDeviceGetPowerUsage)((nvmlDevice_t)1, &value) == NVML_ERROR_NOT_SUPPORTED);
    EXPECT(NVML(nvmlShutdown)() == NVML_SUCCESS);
    EXPECT(NVML(nvmlDeviceGetPowerUsage)((nvmlDevice_t)1, &value) == NVML_ERROR_UNINITIALIZED);
    return nullptr;
}

const char *case_missing_libraries(void) {
    EXPECT(emulation_symbol("libcublasLt.so.13", "cublasLtNoSuchFunction") == nullptr);
    EXPECT(emulation_symbol("libother.so", "nvmlInit_v2") == nullptr);
    emulation_take_away("nvidia-ml");
    EXPECT(emulation_symbol("libnvidia-ml.so.1", "nvmlInit_v2") == nullptr);
    EXPECT(emulation_symbol("libcublasLt.so.13", "cublasLtCreate") != nullptr);
    emulation_take_away(nullptr);
    EXPECT(emulation_symbol("libnvidia-ml.so.1", "nvmlInit_v2") != nullptr);
    return nullptr;
}
