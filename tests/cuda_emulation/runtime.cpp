// The CUDA runtime API: devices, errors, copies, streams, events, graphs.
//
// A stream is a queue that nobody works on until somebody has to wait for it: operations run as late as CUDA allows, so a
// missing synchronisation shows. The default stream waits for all blocking streams and runs at once. An event is a mark in
// a queue; waiting for it runs its stream up to there. A graph is the list of what was captured. A failed kernel leaves
// the device with a sticky error, as on real ones.
#include "internal.h"
#include <time.h>

namespace emulation {
using Operation = std::function<cudaError_t()>;

struct Record { // a mark in a stream's queue
    cudaStream_t stream;
    bool done;
    double time;
};
} // namespace emulation
using namespace emulation;

struct EmulatedGraph {
    std::vector<Operation> operations;
    bool invalid;
    cudaStream_t origin;
};
struct EmulatedGraphExec {
    std::vector<Operation> operations;
};
struct EmulatedStream {
    bool blocking;
    int device;
    std::deque<Operation> queue;
    EmulatedGraph *capture; // what goes on goes there
    bool unjoined;          // captured work that the capture's origin doesn't wait for
};
struct EmulatedEvent {
    unsigned flags;
    std::shared_ptr<Record> record;
    EmulatedGraph *capture; // recorded while capturing
    cudaStream_t stream;
};

namespace emulation {
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
Lock::Lock() { pthread_mutex_lock(&mutex); }
Lock::~Lock() { pthread_mutex_unlock(&mutex); }

static cudaError_t sticky, last;
static int device_index;
static bool in_host_function;
static std::vector<cudaStream_t> streams;
static Generator query_random = {1};
static int captures; // under way
static int uploads;

void runtime_reset() {
    for (cudaStream_t s : streams) s->queue.clear(), s->capture = NULL;
    sticky = last = cudaSuccess;
    device_index = captures = uploads = 0;
    in_host_function = false;
    query_random.state = 1;
    memory_reset();
}

static cudaError_t result(cudaError_t error) {
    if (error && error != cudaErrorNotReady) last = error;
    return error;
}
// What any call may have to answer first.
static cudaError_t enter() {
    if (in_kernel()) kernel_failure(cudaErrorLaunchFailure, NULL, "device code calls the runtime API");
    if (machine.devices == 0) return result(cudaErrorNoDevice);
    if (machine.driver_version < CUDART_VERSION) return result(cudaErrorInsufficientDriver);
    if (in_host_function) return result(cudaErrorNotPermitted);
    return sticky;
}
#define ENTER()                                                                                              \
    Lock lock;                                                                                               \
    if (cudaError_t entered_ = enter()) return entered_

static double seconds() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- queues ----------------------------------------------------------------------------------------------
static void execute(const Operation &operation) {
    if (sticky) return;
    cudaError_t error = operation();
    if (!sticky) sticky = error; // it may have run what it waits for
}
static void step(cudaStream_t stream) {
    Operation operation = std::move(stream->queue.front());
    stream->queue.pop_front();
    execute(operation);
}
static void drain(cudaStream_t stream) {
    device_memory_open(); // once for all
    while (!stream->queue.empty()) step(stream);
    device_memory_close();
}
static void drain_blocking() {
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i]->blocking) drain(streams[i]);
}
void drain_all() {
    for (size_t i = 0; i < streams.size(); i++) drain(streams[i]);
}
static bool known(cudaStream_t stream) {
    if (!stream) return true;
    for (cudaStream_t s : streams)
        if (s == stream) return s->device == device_index;
    return false;
}
static void add(cudaStream_t stream, Operation operation) {
    if (stream && stream->capture) {
        stream->capture->operations.push_back(std::move(operation));
        stream->unjoined = true;
    } else if (!stream) {
        drain_blocking();
        execute(operation);
    } else {
        stream->queue.push_back(std::move(operation));
        if (settings.eager) drain(stream);
    }
}
void enqueue(cudaStream_t stream, Operation run) {
    Lock lock;
    if (enter() == cudaSuccess) add(stream, std::move(run));
}
// What may not happen while a stream captures.
static cudaError_t forbidden_in_capture() {
    if (!captures) return cudaSuccess;
    for (cudaStream_t s : streams)
        if (s->capture) s->capture->invalid = true;
    return result(cudaErrorStreamCaptureUnsupported);
}
static cudaError_t synchronized() {
    if (settings.fail_synchronize && --settings.fail_synchronize == 0 && !sticky) sticky = (cudaError_t)settings.synchronize_error;
    return sticky;
}

// ---- copies ----------------------------------------------------------------------------------------------
static bool is_pinned(const void *p) {
    const Allocation *a = allocation_of(p);
    return a && a->device < 0;
}
static bool check_range(const char *what, const void *p, size_t bytes) {
    const Allocation *a = allocation_of(p);
    if (!a && !in_device_arena(p) && !in_pinned_arena(p)) return true;
    if (a && (const unsigned char *)p - a->data + bytes <= a->bytes) return true;
    report(text("%s of %zu bytes reaches out of bounds, from ", what, bytes) + address_name(p));
    return false;
}
static cudaError_t copy_now(void *to, const void *from, size_t bytes) {
    if (!check_range("a copy to", to, bytes) || !check_range("a copy from", from, bytes)) return cudaErrorIllegalAddress;
    device_memory_open();
    memmove(to, from, bytes);
    memory_copied(to, from, bytes);
    device_memory_close();
    return cudaSuccess;
}
static cudaError_t check_kind(const void *to, const void *from, cudaMemcpyKind kind) {
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
    if (kind == cudaMemcpyDefault) return cudaSuccess;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device == in_device_arena(to) && from_device == in_device_arena(from)) return cudaSuccess;
    report(text("a copy whose direction is %d goes to ", (int)kind) + address_name(to) + " from " + address_name(from));
    return cudaErrorInvalidValue;
}
static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream, bool wait) {
    if (!known(stream)) return result(cudaErrorInvalidResourceHandle);
    if (!bytes) return cudaSuccess;
    if (!to || !from) return result(cudaErrorInvalidValue);
    if (cudaError_t error = check_kind(to, from, kind)) return result(error);
    if (!check_range("a copy to", to, bytes) || !check_range("a copy from", from, bytes)) return result(cudaErrorInvalidValue);
    uploads += in_device_arena(to) && !in_device_arena(from);
    bool capturing = stream && stream->capture;
    bool from_plain = !in_device_arena(from) && !is_pinned(from), to_plain = !in_device_arena(to) && !is_pinned(to);
    if (from_plain && !capturing) { // staged before the call returns
        auto staged = std::make_shared<std::vector<unsigned char>>((const unsigned char *)from, (const unsigned char *)from + bytes);
        add(stream, [=] {
            cudaError_t error = copy_now(to, staged->data(), bytes);
            return error;
        });
    } else {
        add(stream, [=] { return copy_now(to, from, bytes); });
    }
    // Plain host memory has been written when the call returns.
    if (stream && !capturing && (wait || to_plain)) drain(stream);
    return result(sticky);
}
} // namespace emulation

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    ENTER();
    return copy(to, from, bytes, kind, stream, false);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    ENTER();
    if (cudaError_t error = forbidden_in_capture()) return error;
    return copy(to, from, bytes, kind, NULL, true);
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    ENTER();
    if (!known(stream)) return result(cudaErrorInvalidResourceHandle);
    if (!bytes) return cudaSuccess;
    if (!allocation_of(p) || !check_range("a memset", p, bytes)) {
        if (!allocation_of(p)) report("a memset of " + address_name(p));
        return result(cudaErrorInvalidValue);
    }
    add(stream, [=] {
        if (!allocation_of(p) || !check_range("a memset", p, bytes)) return cudaErrorIllegalAddress;
        device_memory_open();
        memset(p, value, bytes);
        memory_written(p, bytes);
        device_memory_close();
        return cudaSuccess;
    });
    return result(sticky);
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) {
    Lock lock;
    if (cudaError_t error = forbidden_in_capture()) return error;
    return cudaMemsetAsync(p, value, bytes, NULL);
}

// ---- memory ----------------------------------------------------------------------------------------------
cudaError_t emulation_malloc(void **p, size_t bytes) {
    ENTER();
    if (cudaError_t error = forbidden_in_capture()) return error;
    *p = NULL;
    if (!bytes) return cudaSuccess;
    if (settings.fail_allocation && --settings.fail_allocation == 0) return result(cudaErrorMemoryAllocation);
    size_t used = device_bytes(device_index);
    if (bytes > machine.memory_bytes || used > machine.memory_bytes - bytes) return result(cudaErrorMemoryAllocation);
    *p = device_allocate(bytes, device_index);
    return result(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t emulation_malloc_host(void **p, size_t bytes) {
    ENTER();
    if (cudaError_t error = forbidden_in_capture()) return error;
    *p = NULL;
    if (!bytes) return cudaSuccess;
    if (settings.fail_host_allocation && --settings.fail_host_allocation == 0) return result(cudaErrorMemoryAllocation);
    *p = pinned_allocate(bytes);
    return result(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *p) {
    Lock lock;
    cudaError_t error = enter();
    if (!error) error = forbidden_in_capture();
    if (!error) drain_all();
    // A failed device still gives its memory back here, so that tests can look for leaks.
    if (p && !device_release(p)) return result(cudaErrorInvalidValue);
    return error ? error : sticky;
}
cudaError_t cudaFreeHost(void *p) {
    Lock lock;
    cudaError_t error = enter();
    if (!error) drain_all();
    if (p && !pinned_release(p)) return result(cudaErrorInvalidValue);
    return error ? error : sticky;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    ENTER();
    size_t used = device_bytes(device_index);
    *total_bytes = machine.memory_bytes;
    *free_bytes = used < machine.memory_bytes ? machine.memory_bytes - used : 0;
    return cudaSuccess;
}

// ---- launches --------------------------------------------------------------------------------------------
void emulation_launch(cudaStream_t stream, const EmulatedLaunch *what) {
    Lock lock;
    if (enter()) return;
    cudaError_t error = known(stream) ? launch_check(what) : cudaErrorInvalidResourceHandle;
    if (result(error)) return;
    auto launch = std::make_shared<Launch>(launch_copy(what));
    add(stream, [launch] { return launch_run(*launch); });
}
cudaError_t emulation_function_attributes(cudaFuncAttributes *out, const void *function) {
    ENTER();
    if (!function) return result(cudaErrorInvalidDeviceFunction);
    out->maxThreadsPerBlock = MAX_THREADS;
    return result(machine.without_code ? cudaErrorNoKernelImageForDevice : cudaSuccess);
}
cudaError_t emulation_function_attribute(const void *function, cudaFuncAttribute attribute, int value) {
    ENTER();
    return result(function_attribute(function, attribute, value));
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    ENTER();
    if (!known(stream)) return result(cudaErrorInvalidResourceHandle);
    add(stream, [=] {
        in_host_function = true;
        function(data);
        in_host_function = false;
        return cudaSuccess;
    });
    return cudaSuccess;
}

// ---- streams ---------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    ENTER();
    *stream = new EmulatedStream{!(flags & cudaStreamNonBlocking), device_index, {}, NULL, false};
    streams.push_back(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) { return cudaStreamCreateWithFlags(stream, flags); }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    ENTER();
    *least = 0, *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    Lock lock;
    cudaError_t error = enter();
    for (size_t i = 0; i < streams.size(); i++) {
        if (streams[i] != stream) continue;
        if (stream->capture) captures--;
        drain(stream); // what is queued completes
        streams.erase(streams.begin() + (ptrdiff_t)i);
        delete stream;
        return error;
    }
    return result(cudaErrorInvalidResourceHandle);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ENTER();
    if (!known(stream)) return result(cudaErrorInvalidResourceHandle);
    if (stream && stream->capture) return forbidden_in_capture();
    if (stream)
        drain(stream);
    else
        drain_blocking();
    return synchronized();
}
cudaError_t cudaDeviceSynchronize(void) {
    ENTER();
    if (cudaError_t error = forbidden_in_capture()) return error;
    drain_all();
    return synchronized();
}
cudaError_t cudaDeviceReset(void) {
    Lock lock;
    drain_all();
    sticky = last = cudaSuccess;
    return cudaSuccess;
}
// Each question lets the stream go on a little, so that polling ends.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    ENTER();
    if (!known(stream)) return result(cudaErrorInvalidResourceHandle);
    if (!stream) return cudaSuccess;
    if (stream->capture) return forbidden_in_capture();
    if (!stream->queue.empty() && query_random.next() % 2) step(stream);
    if (sticky) return sticky;
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

// ---- events ----------------------------------------------------------------------------------------------
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    ENTER();
    *event = new EmulatedEvent{flags, NULL, NULL, NULL};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    Lock lock;
    if (!event) return result(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    ENTER();
    if (!event || !known(stream)) return result(cudaErrorInvalidResourceHandle);
    event->capture = stream ? stream->capture : NULL;
    event->stream = stream;
    if (event->capture) return cudaSuccess;
    auto record = std::make_shared<Record>(Record{stream, false, 0});
    event->record = record;
    add(stream, [record] {
        record->time = seconds();
        record->done = true;
        return cudaSuccess;
    });
    return cudaSuccess;
}
static void wait_for(const Record *record) {
    device_memory_open();
    while (!record->done && !sticky && record->stream && !record->stream->queue.empty()) step(record->stream);
    device_memory_close();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    ENTER();
    if (!event || !known(stream)) return result(cudaErrorInvalidResourceHandle);
    if (event->capture) { // the stream joins that capture, or comes back to it
        if (!stream) return result(cudaErrorStreamCaptureUnsupported);
        event->stream->unjoined = false;
        if (!stream->capture) stream->capture = event->capture;
        stream->unjoined = true;
        return cudaSuccess;
    }
    if (!event->record) return cudaSuccess;
    std::shared_ptr<Record> record = event->record;
    add(stream, [record] {
        wait_for(record.get());
        return cudaSuccess;
    });
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER();
    if (!event) return result(cudaErrorInvalidResourceHandle);
    if (event->capture) return result(cudaErrorCapturedEvent);
    const Record *record = event->record.get();
    if (!record || record->done) return cudaSuccess;
    if (record->stream && !record->stream->queue.empty() && query_random.next() % 2) step(record->stream);
    if (sticky) return sticky;
    return record->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER();
    if (!event) return result(cudaErrorInvalidResourceHandle);
    if (event->capture) return result(cudaErrorCapturedEvent);
    if (event->record) wait_for(event->record.get());
    return synchronized();
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    ENTER();
    if (!start || !end || !start->record || !end->record || ((start->flags | end->flags) & cudaEventDisableTiming))
        return result(cudaErrorInvalidResourceHandle);
    if (!start->record->done || !end->record->done) return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (end->record->time - start->record->time));
    return cudaSuccess;
}

// ---- graphs ----------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    ENTER();
    if (!stream || !known(stream) || stream->capture) return result(cudaErrorStreamCaptureUnsupported);
    stream->capture = new EmulatedGraph{{}, false, stream};
    captures++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    ENTER();
    *graph = NULL;
    if (!stream || !known(stream) || !stream->capture) return result(cudaErrorInvalidValue);
    EmulatedGraph *captured = stream->capture;
    if (captured->origin != stream) return result(cudaErrorStreamCaptureUnmatched);
    bool unjoined = false;
    for (cudaStream_t s : streams) {
        if (s->capture != captured) continue;
        unjoined |= s != stream && s->unjoined;
        s->capture = NULL, s->unjoined = false;
    }
    captures--;
    cudaError_t error = captured->invalid ? cudaErrorStreamCaptureInvalidated : unjoined ? cudaErrorStreamCaptureUnjoined : cudaSuccess;
    if (error)
        delete captured;
    else
        *graph = captured;
    return result(error);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    ENTER();
    const EmulatedGraph *g = stream ? stream->capture : NULL;
    *status = !g ? cudaStreamCaptureStatusNone : g->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    ENTER();
    if (!graph) return result(cudaErrorInvalidValue);
    *exec = new EmulatedGraphExec{graph->operations};
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    ENTER();
    return exec && known(stream) ? cudaSuccess : result(cudaErrorInvalidValue);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ENTER();
    if (!exec || !known(stream)) return result(cudaErrorInvalidValue);
    for (const Operation &operation : exec->operations) add(stream, operation);
    return sticky;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    Lock lock;
    delete exec;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    Lock lock;
    delete graph;
    return cudaSuccess;
}

// ---- errors ----------------------------------------------------------------------------------------------
cudaError_t cudaGetLastError(void) {
    Lock lock;
    cudaError_t error = sticky ? sticky : last;
    last = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) {
    Lock lock;
    return sticky ? sticky : last;
}

namespace emulation {
cudaError_t api_enter() { return enter(); }
cudaError_t api_result(cudaError_t error) { return result(error); }
int *api_device() { return &device_index; }
} // namespace emulation
extern "C" int emulation_uploads(void) { return emulation::uploads; }
