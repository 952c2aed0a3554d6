// A device: its memory, its queue, and the table of operations (ops.h). The CPU's and CUDA's stand behind the same struct.
#ifndef RECKON_DEVICE_H
#define RECKON_DEVICE_H
#include "ops.h"

// Calls on one device come from one thread. On the CPU they are done when they return; on CUDA they are queued in order, and only
// `download`, `fetched` and `finish` wait. An error on the device stays with it: whatever is called later does nothing, and
// `finish` tells.
typedef struct Device Device;
enum { FETCHES = 2 };
struct Device {
    const char *variant; // "generic", "avx2", "avx512", "avx512bf16", "reference"; "sm_90, wgmma, cuBLASLt 13.1.0" and the like
    int threads;         // of the host's pool
    int owners;
    bool is_host;        // its memory is the host's
    struct Pool *pool;   // CPU only
    struct CudaContext *cuda;
    // Zeroed, aligned to 256 bytes (CPU: 64). The error names `what`, what is free and what was asked for.
    bool (*allocate)(const Device *device, size_t bytes, const char *what, void **out, Err *err);
    void (*release)(const Device *device, void *memory);
    size_t (*available)(const Device *device); // bytes that one allocation could have now; SIZE_MAX: not known (the CPU)
    size_t (*peak_bytes)(const Device *device); // bytes allocated at the same time, at most so far; 0: not counted (the CPU)
    void (*upload)(const Device *device, void *to, const void *host, size_t bytes); // `host` may change afterwards
    void (*download)(const Device *device, void *host, const void *from, size_t bytes);
    // A download that later work needn't wait for: it brings what `from` holds once all that is queued now is done. `fetched` waits for it;
    // before that, neither the host may read `host` nor the device write `from`. FETCHES may be under way, each in a slot of its own.
    void (*fetch)(const Device *device, int slot, void *host, const void *from, size_t bytes);
    bool (*fetched)(const Device *device, int slot, Err *err); // ERR_IO where the device failed
    void (*copy)(const Device *device, void *to, const void *from, size_t bytes);
    void (*zero)(const Device *device, void *to, size_t bytes);
    bool (*finish)(const Device *device, Err *err); // waits; ERR_IO where the device failed
    // Runs `body`, which only calls operations, copy and zero. With the same key, and since the last forget, it may be
    // replayed from a recording of the first time (a CUDA graph), so `body` must queue the same calls each time.
    void (*replay)(const Device *device, uint64_t key, void (*body)(void *context), void *context);
    void (*forget)(const Device *device); // recordings; before memory they use is released
    // The device's own meter; false where it has none. Joules since it was opened, NaN where they aren't counted. `held` tells
    // why its clock was held down since the call before (empty: it wasn't), with the temperature and clock of now.
    bool (*meter)(const Device *device, double *joules, char held[128]);
    // What the device could do at best, by loops made for that (some tenths of a second): products of `dtype` in FLOP/s, and
    // memory read in bytes/s. NaN: not measured here.
    bool (*peaks)(const Device *device, Dtype dtype, double *flops, double *bytes, Err *err);
    void (*close)(Device *device);
#define SLOT(name, Args) void (*name)(const Device *device, const Args *args);
    RECKON_OPERATIONS(SLOT)
#undef SLOT
};

// "cpu", "cuda" or "cuda:N"; NULL: RECKON_DEVICE's, else the CPU. ERR_USAGE for another name, ERR_UNAVAILABLE where there is
// no such device, with what is missing.
bool device_open(const char *name, int threads, Device **out, Err *err) MUST_CHECK;
// The CPU device. The variant is the best the processor has, or RECKON_CPU's; "reference" is the slow C twin of every
// operation. ERR_USAGE for an unknown name, ERR_UNAVAILABLE where the processor lacks it.
bool device_open_cpu(const char *variant, int threads, Device **out, Err *err) MUST_CHECK;
// A CUDA device; only in programs that link the CUDA library.
bool device_open_cuda(int index, int threads, Device **out, Err *err) MUST_CHECK;
Device *device_share(const Device *device); // one more owner; each closes it
void device_close(Device *device);

#endif
