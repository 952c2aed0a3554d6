// A CUDA device behind the table of operations: opening it, its memory, copies, recordings of decoding steps, and its errors.
// The operations are in cuda/, one file each as in cpu/.
//
// Memory. One allocation when the device opens, most of what is free; what is asked for later is a piece of it, so that
// nothing is allocated while work goes on and running out is an error with figures, not a fault. RECKON_CUDA_MEMORY=MIB
// bounds it (two programs on one device), RECKON_CUDA_SLAB=0 takes every piece from the driver, which lets
// compute-sanitizer see each array's end, as the emulated device does unless it is told RECKON_CUDA_SLAB=1.
// Copies to the device go through pinned memory in two halves, so that the host may go on at once. They share the stream of
// the kernels: what is large (weights) is needed before anything can run, and what comes while the device works, ids and page
// tables of new rows or of a microbatch, is some KB, which a second stream's events would cost as much as. What is fetched from the
// device while it works goes by a stream of its own, into pinned memory too.
// Errors stay: the first one is kept, later calls do nothing, finish() tells it.
#include "cuda/cuda.h"
#include "cuda/cublas.h"
#include "cuda/tensor_map.h"
extern "C" {
#include "cuda/nvml.h"
#include "slab.h"
}
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UPLOAD_HALF = 8 << 20, RECORDINGS = 256, LOWEST_CAPABILITY = 80 };

struct Recording {
    uint64_t key;
    cudaGraphExec_t graph;
};

// A copy to the host beside the kernels.
struct Fetch {
    cudaEvent_t ready, done; // what it brings is there; it is on the host
    char *pinned;
    size_t capacity, bytes;
    void *host;
};

struct CudaState : CudaContext {
    char variant[64]; // "sm_90, wgmma, cuBLASLt 13.1.0": what fixes the bits
    char where[24]; // "cuda:0"
    Slab *slab;     // NULL: pieces come from the driver
    char *memory;
    char *pinned[2]; // [UPLOAD_HALF]
    cudaEvent_t uploaded[2];
    int half;
    cudaStream_t copies; // of what is fetched
    Fetch fetches[FETCHES];
    Nvml *nvml; // NULL: no meter
    Recording recordings[RECORDINGS];
    int recording_count;
    cudaError_t error;
    char what[160];
};

// The emulated device knows which pieces of the range are in use.
#ifdef RECKON_CUDA_EMULATION
static const bool pieces_by_default = true;
static void memory_opens(void *p, size_t bytes) { emulation_open_memory(p, bytes); }
static void memory_closes(void *p, size_t bytes) { emulation_close_memory(p, bytes); }
#else
static const bool pieces_by_default = false;
static void memory_opens(void *, size_t) {}
static void memory_closes(void *, size_t) {}
#endif

static CudaState *state_of(const Device *d) { return static_cast<CudaState *>(d->cuda); }

// Keeps the first error. True where all is well so far.
static bool note(CudaState *s, cudaError_t e, const char *what) {
    if (e != cudaSuccess && s->error == cudaSuccess) {
        s->error = e;
        snprintf(s->what, sizeof s->what, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
    }
    return s->error == cudaSuccess;
}

static bool cuda_finish(const Device *d, Err *err) {
    CudaState *s = state_of(d);
    if (s->error == cudaSuccess) note(s, cudaGetLastError(), "starting a kernel");
    if (s->error == cudaSuccess) note(s, cudaStreamSynchronize(s->stream), "waiting for the device");
    if (s->error == cudaSuccess) return true;
    return fail(err, ERR_IO, s->where, "the device failed: %s", s->what);
}

// ---- memory ----------------------------------------------------------------------------------------------
static double mib(size_t bytes) { return (double)bytes / 1048576.0; }

static bool cuda_allocate(const Device *d, size_t bytes, const char *what, void **out, Err *err) {
    CudaState *s = state_of(d);
    *out = NULL;
    if (bytes == 0) bytes = 1;
    if (s->error != cudaSuccess) return cuda_finish(d, err);
    if (s->slab) {
        size_t offset;
        if (!slab_take(s->slab, bytes, &offset))
            return fail(err, ERR_UNAVAILABLE, s->where,
                        "out of memory for %s: %.1f MiB asked for, %.1f MiB free (largest piece %.1f MiB); fewer sequences at once, "
                        "shorter completions, a smaller microbatch or bf16 need less",
                        what, mib(bytes), mib(slab_free_bytes(s->slab)), mib(slab_largest_hole(s->slab)));
        *out = s->memory + offset;
        memory_opens(*out, bytes);
    } else {
        cudaError_t e = cudaMalloc(out, bytes);
        if (e == cudaErrorMemoryAllocation) {
            cudaGetLastError();
            return fail(err, ERR_UNAVAILABLE, s->where, "out of memory for %s: %.1f MiB asked for", what, mib(bytes));
        }
        if (!note(s, e, "allocating memory")) return cuda_finish(d, err);
    }
    if (s->error == cudaSuccess) note(s, cudaMemsetAsync(*out, 0, bytes, s->stream), "clearing memory");
    return true;
}

static void cuda_release(const Device *d, void *memory) {
    CudaState *s = state_of(d);
    if (!memory) return;
    // Queued work may still use a piece; whoever gets it next queues behind that work.
    if (s->slab) {
        size_t offset = (size_t)((char *)memory - s->memory);
        memory_closes(memory, slab_piece_bytes(s->slab, offset));
        slab_give(s->slab, offset);
    } else {
        note(s, cudaFree(memory), "releasing memory");
    }
}

static size_t cuda_peak_bytes(const Device *d) {
    CudaState *s = state_of(d);
    return s->slab ? slab_peak_bytes(s->slab) : 0;
}
static size_t cuda_available(const Device *d) {
    CudaState *s = state_of(d);
    size_t free_bytes = 0, total = 0;
    if (s->slab) return slab_largest_hole(s->slab);
    return cudaMemGetInfo(&free_bytes, &total) == cudaSuccess ? free_bytes : SIZE_MAX;
}

// ---- copies ----------------------------------------------------------------------------------------------
static void cuda_upload(const Device *d, void *to, const void *host, size_t bytes) {
    CudaState *s = state_of(d);
    for (size_t at = 0; at < bytes && s->error == cudaSuccess; at += UPLOAD_HALF) {
        size_t n = bytes - at < (size_t)UPLOAD_HALF ? bytes - at : (size_t)UPLOAD_HALF;
        int half = s->half ^= 1;
        if (!note(s, cudaEventSynchronize(s->uploaded[half]), "waiting for a copy")) return;
        memcpy(s->pinned[half], (const char *)host + at, n);
        if (!note(s, cudaMemcpyAsync((char *)to + at, s->pinned[half], n, cudaMemcpyHostToDevice, s->stream), "copying to the device")) return;
        note(s, cudaEventRecord(s->uploaded[half], s->stream), "copying to the device");
    }
}

// After an error the host's array is zeroed: nobody reads what was never written, and finish() tells.
static void cuda_download(const Device *d, void *host, const void *from, size_t bytes) {
    CudaState *s = state_of(d);
    if (bytes == 0) return;
    if (s->error == cudaSuccess) note(s, cudaGetLastError(), "starting a kernel");
    if (s->error == cudaSuccess) note(s, cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, s->stream), "copying from the device");
    if (s->error == cudaSuccess) note(s, cudaStreamSynchronize(s->stream), "waiting for the device");
    if (s->error != cudaSuccess) memset(host, 0, bytes);
}

// Pinned memory for a fetch; it grows with the largest one.
static bool fetch_room(CudaState *s, Fetch *f, size_t bytes) {
    if (f->capacity >= bytes) return true;
    if (f->pinned) cudaFreeHost(f->pinned);
    f->pinned = NULL, f->capacity = 0;
    if (!note(s, cudaMallocHost((void **)&f->pinned, bytes), "pinned memory")) return false;
    f->capacity = bytes;
    return true;
}

static void cuda_fetch(const Device *d, int slot, void *host, const void *from, size_t bytes) {
    CudaState *s = state_of(d);
    Fetch *f = &s->fetches[slot];
    f->host = host, f->bytes = bytes;
    if (s->error != cudaSuccess || !note(s, cudaGetLastError(), "starting a kernel") || !fetch_room(s, f, bytes)) return;
    note(s, cudaEventRecord(f->ready, s->stream), "copying from the device");
    note(s, cudaStreamWaitEvent(s->copies, f->ready, 0), "copying from the device");
    note(s, cudaMemcpyAsync(f->pinned, from, bytes, cudaMemcpyDeviceToHost, s->copies), "copying from the device");
    note(s, cudaEventRecord(f->done, s->copies), "copying from the device");
}

static bool cuda_fetched(const Device *d, int slot, Err *err) {
    CudaState *s = state_of(d);
    const Fetch *f = &s->fetches[slot];
    if (s->error == cudaSuccess) note(s, cudaEventSynchronize(f->done), "waiting for the device");
    if (s->error == cudaSuccess)
        memcpy(f->host, f->pinned, f->bytes);
    else
        memset(f->host, 0, f->bytes);
    return s->error == cudaSuccess || cuda_finish(d, err);
}

static void cuda_copy(const Device *d, void *to, const void *from, size_t bytes) {
    CudaState *s = state_of(d);
    if (bytes && s->error == cudaSuccess) note(s, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s->stream), "copying");
}

static void cuda_zero(const Device *d, void *to, size_t bytes) {
    CudaState *s = state_of(d);
    if (bytes && s->error == cudaSuccess) note(s, cudaMemsetAsync(to, 0, bytes, s->stream), "clearing memory");
}

// ---- recordings ------------------------------------------------------------------------------------------
static void cuda_forget(const Device *d) {
    CudaState *s = state_of(d);
    if (s->recording_count == 0) return;
    if (s->error == cudaSuccess) note(s, cudaStreamSynchronize(s->stream), "waiting for the device");
    for (int i = 0; i < s->recording_count; i++) cudaGraphExecDestroy(s->recordings[i].graph);
    s->recording_count = 0;
}

static bool record(CudaState *s, void (*body)(void *), void *context, cudaGraphExec_t *out) {
    cudaGraph_t graph;
    if (!note(s, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal), "recording")) return false;
    body(context);
    note(s, cudaGetLastError(), "recording a kernel");
    if (!note(s, cudaStreamEndCapture(s->stream, &graph), "recording")) return false;
    bool ok = note(s, cudaGraphInstantiate(out, graph, 0), "recording");
    cudaGraphDestroy(graph);
    return ok;
}

static void cuda_replay(const Device *d, uint64_t key, void (*body)(void *), void *context) {
    CudaState *s = state_of(d);
    if (s->error != cudaSuccess) return;
    for (int i = 0; i < s->recording_count; i++) {
        if (s->recordings[i].key != key) continue;
        note(s, cudaGraphLaunch(s->recordings[i].graph, s->stream), "replaying");
        return;
    }
    if (s->recording_count == RECORDINGS) cuda_forget(d);
    cudaGraphExec_t graph;
    if (!record(s, body, context, &graph)) return;
    s->recordings[s->recording_count++] = {key, graph};
    note(s, cudaGraphLaunch(graph, s->stream), "replaying");
}

// ---- the meter -------------------------------------------------------------------------------------------
static bool cuda_meter(const Device *d, double *joules, char held[128]) {
    CudaState *s = state_of(d);
    NvmlReading r;
    held[0] = 0;
    if (!s->nvml || !nvml_read(s->nvml, &r, NULL)) return false;
    *joules = r.joules;
    nvml_throttle_text(r.throttled, held, 80);
    size_t used = strlen(held);
    if (used) snprintf(held + used, 128 - used, " (%d degrees Celsius, %d MHz)", r.temperature, r.clock_mhz);
    return true;
}
static void open_meter(CudaState *s) { // a device without one works as well
    char pci[32];
    if (cudaDeviceGetPCIBusId(pci, sizeof pci, s->index) == cudaSuccess && nvml_open(pci, &s->nvml, NULL)) return;
    s->nvml = NULL;
    cudaGetLastError();
}

// ---- opening and closing ---------------------------------------------------------------------------------
static bool cuda_peaks(const Device *, Dtype, double *flops, double *bytes, Err *) { // not measured: scripts/gpu-check knows what some devices' makers state
    *flops = *bytes = NAN;
    return true;
}
static void cuda_close(Device *d) {
    CudaState *s = state_of(d);
    if (s) {
        cuda_forget(d);
        if (s->stream) cudaStreamSynchronize(s->stream);
        if (s->copies) cudaStreamSynchronize(s->copies);
        cublas_close(s);
        nvml_close(s->nvml);
        for (int i = 0; i < 2; i++) {
            if (s->uploaded[i]) cudaEventDestroy(s->uploaded[i]);
            if (s->pinned[i]) cudaFreeHost(s->pinned[i]);
        }
        for (Fetch &f : s->fetches) {
            if (f.ready) cudaEventDestroy(f.ready);
            if (f.done) cudaEventDestroy(f.done);
            if (f.pinned) cudaFreeHost(f.pinned);
        }
        if (s->scratch) cudaFree(s->scratch);
        if (s->tickets) cudaFree(s->tickets);
        if (s->memory) cudaFree(s->memory);
        slab_close(s->slab);
        if (s->copies) cudaStreamDestroy(s->copies);
        if (s->stream) cudaStreamDestroy(s->stream);
        delete s;
    }
    free(d);
}

static __global__ void any_kernel() {}
static bool find_device(CudaState *s, int index, Err *err) {
    int count = 0, driver = 0, runtime = 0;
    cudaDeviceProp p;
    cudaFuncAttributes code;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaError_t e = cudaGetDeviceCount(&count);
    if (driver == 0) return fail(err, ERR_UNAVAILABLE, s->where, "no NVIDIA driver found (libcuda.so.1); --device cpu needs none");
    if (e == cudaErrorInsufficientDriver)
        return fail(err, ERR_UNAVAILABLE, s->where, "the NVIDIA driver is for CUDA %d.%d, this program needs %d.%d or newer", driver / 1000,
                    driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && count == 0))
        return fail(err, ERR_UNAVAILABLE, s->where, "found no CUDA device (is CUDA_VISIBLE_DEVICES empty?)");
    if (e != cudaSuccess) return fail(err, ERR_UNAVAILABLE, s->where, "the driver says: %s", cudaGetErrorString(e));
    if (index >= count) return fail(err, ERR_UNAVAILABLE, s->where, "found %d device%s, expected 0 to %d", count, count == 1 ? "" : "s", count - 1);
    e = cudaSetDevice(index);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&p, index);
    if (e != cudaSuccess) return fail(err, ERR_UNAVAILABLE, s->where, "can't be opened: %s", cudaGetErrorString(e));
    s->index = index;
    s->capability = p.major * 10 + p.minor;
    s->multiprocessors = p.multiProcessorCount;
    if (s->capability < LOWEST_CAPABILITY)
        return fail(err, ERR_UNAVAILABLE, s->where, "%s has compute capability %d.%d, expected 8.0 or newer", p.name, p.major, p.minor);
    return cudaFuncGetAttributes(&code, any_kernel) == cudaSuccess ||
           fail(err, ERR_UNAVAILABLE, s->where, "%s has compute capability %d.%d, for which this program was not built (%s); RECKON_CUDA_ARCHITECTURES adds it",
                p.name, p.major, p.minor, cudaGetErrorString(cudaGetLastError()));
}

// Most of what is free, or what RECKON_CUDA_MEMORY says; some stays for the driver, graphs and libraries.
static bool take_memory(CudaState *s, Err *err) {
    const char *slab = getenv("RECKON_CUDA_SLAB"), *limit = getenv("RECKON_CUDA_MEMORY");
    size_t free_bytes = 0, total = 0, reserve = (size_t)640 << 20;
    if (slab && *slab ? strcmp(slab, "0") == 0 : pieces_by_default) return true;
    cudaError_t e = cudaMemGetInfo(&free_bytes, &total);
    if (e != cudaSuccess) return fail(err, ERR_UNAVAILABLE, s->where, "can't be opened: %s", cudaGetErrorString(e));
    size_t bytes = free_bytes > 2 * reserve ? free_bytes - reserve : free_bytes / 2;
    if (limit && *limit) {
        char *end;
        unsigned long long m = strtoull(limit, &end, 10);
        if (*end || m < 64 || m > (total >> 20))
            return fail(err, ERR_USAGE, "RECKON_CUDA_MEMORY", "found '%.20s', expected MiB from 64 to %zu", limit, total >> 20);
        if ((size_t)m << 20 > bytes)
            return fail(err, ERR_UNAVAILABLE, s->where, "RECKON_CUDA_MEMORY asks for %llu MiB, %.0f MiB can be had", m, mib(bytes));
        bytes = (size_t)m << 20;
    }
    e = cudaMalloc((void **)&s->memory, bytes);
    if (e != cudaSuccess) return fail(err, ERR_UNAVAILABLE, s->where, "%.0f MiB can't be allocated: %s", mib(bytes), cudaGetErrorString(e));
    s->slab = slab_open(bytes);
    memory_closes(s->memory, bytes);
    return true;
}

static bool take_helpers(CudaState *s, Err *err) {
    bool ok = note(s, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), "stream") &&
              note(s, cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking), "stream") &&
              note(s, cudaMalloc(&s->scratch, CUDA_SCRATCH), "scratch") &&
              note(s, cudaMalloc((void **)&s->tickets, CUDA_TICKETS * sizeof(unsigned)), "tickets") &&
              note(s, cudaMemsetAsync(s->tickets, 0, CUDA_TICKETS * sizeof(unsigned), s->stream), "tickets");
    s->scratch_bytes = CUDA_SCRATCH;
    for (int i = 0; ok && i < 2; i++)
        ok = note(s, cudaMallocHost((void **)&s->pinned[i], UPLOAD_HALF), "pinned memory") &&
             note(s, cudaEventCreateWithFlags(&s->uploaded[i], cudaEventDisableTiming), "event");
    for (int i = 0; ok && i < FETCHES; i++)
        ok = note(s, cudaEventCreateWithFlags(&s->fetches[i].ready, cudaEventDisableTiming), "event") &&
             note(s, cudaEventCreateWithFlags(&s->fetches[i].done, cudaEventDisableTiming), "event");
    if (!ok) return fail(err, ERR_UNAVAILABLE, s->where, "can't be opened: %s", s->what);
    return cublas_open(s, err);
}

// RECKON_CUDA_PRODUCTS=mma keeps to mma.sync on Hopper too, =wgmma insists. RECKON_CUDA_ALGORITHMS=free gives forward products to the library
// where it can do them, for measurements.
static bool choose_products(CudaState *s, Err *err) {
    const char *wish = getenv("RECKON_CUDA_PRODUCTS");
    bool mma = wish && !strcmp(wish, "mma"), wgmma = wish && !strcmp(wish, "wgmma");
    if (wish && *wish && !mma && !wgmma) return fail(err, ERR_USAGE, "RECKON_CUDA_PRODUCTS", "found '%.20s', expected mma or wgmma", wish);
    const char *algorithms = getenv("RECKON_CUDA_ALGORITHMS");
    s->free_algorithms = algorithms && !strcmp(algorithms, "free");
    if (algorithms && *algorithms && !s->free_algorithms)
        return fail(err, ERR_USAGE, "RECKON_CUDA_ALGORITHMS", "found '%.20s', expected free", algorithms);
    if (s->free_algorithms && !s->blas) return fail(err, ERR_UNAVAILABLE, s->where, "RECKON_CUDA_ALGORITHMS asks for cuBLASLt's choice, and it isn't there");
    tensor_map_open(s);
    s->wgmma = !mma && wgmma_works(s);
    return s->wgmma || !wgmma ||
           fail(err, ERR_UNAVAILABLE, s->where, "RECKON_CUDA_PRODUCTS asks for wgmma: compute capability %d.%d %s", s->capability / 10,
                s->capability % 10, s->capability == 90 ? "has it, but a trial came out wrong or the driver has no tensor maps" : "has none, 9.0 does");
}

static void fill_table(Device *d) {
#define FILL(name, Args) d->name = name##_cuda;
    RECKON_OPERATIONS(FILL)
#undef FILL
    d->allocate = cuda_allocate, d->release = cuda_release, d->available = cuda_available, d->peak_bytes = cuda_peak_bytes, d->upload = cuda_upload, d->download = cuda_download;
    d->fetch = cuda_fetch, d->fetched = cuda_fetched;
    d->copy = cuda_copy, d->zero = cuda_zero, d->finish = cuda_finish, d->replay = cuda_replay, d->forget = cuda_forget;
    d->meter = cuda_meter, d->peaks = cuda_peaks, d->close = cuda_close;
}

extern "C" bool device_open_cuda(int index, int threads, Device **out, Err *err) {
    Device *d = (Device *)xcalloc(1, sizeof *d);
    CudaState *s = new CudaState();
    d->cuda = s;
    d->threads = threads > 0 ? threads : 1;
    snprintf(s->where, sizeof s->where, "cuda:%d", index);
    fill_table(d);
    if (!find_device(s, index, err) || !take_helpers(s, err) || !choose_products(s, err) || !take_memory(s, err)) {
        cuda_close(d);
        *out = NULL;
        return false;
    }
    open_meter(s);
    const char *library = cublas_version(s);
    snprintf(s->variant, sizeof s->variant, "sm_%d%s%s%s%s", s->capability, s->wgmma ? ", wgmma" : "", s->free_algorithms ? ", free algorithms" : "",
             library ? ", " : "", library ? library : "");
    d->variant = s->variant;
    *out = d;
    return true;
}
