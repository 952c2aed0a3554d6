// The emulated CUDA device, as tests see it. One process has one machine with some emulated devices (the CUDA API is
// global, so this is the one place of the tests with global state); all of it is behind one lock.
//
// What is adversarial by design:
//   threads     run in an order drawn anew wherever one waits; blocks in a drawn order; the seed is in every report
//   streams     run as late as allowed: when somebody synchronises, queries often enough, or copies to plain host memory
//   copies      cp.async lands at the wait, and its destination holds NaN until then
//   memory      is NaN (all bits set) until written, between guard bands, never reused after a free
//   the host    can't touch device memory: it is mapped for kernels and copies only
// What is reported: divergent barriers, wrong masks, lanes that don't arrive, misaligned accesses, and, where the .cu files
// are instrumented (checker.cpp; every build but those with sanitizers), each access outside of an allocation or of the
// launched shared memory, each read of what was never written, and data races in shared and device memory.
// A report is printed and the process aborts, unless a test catches it.
#ifndef RECKON_CUDA_EMULATION_H
#define RECKON_CUDA_EMULATION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
#include "cuda_runtime.h" // LAUNCH and SHARED
extern "C" {
#endif

// ---- reports ---------------------------------------------------------------------------------------------
// From here on reports are kept instead of aborting; a kernel that is reported ends there and its device fails with a
// sticky error, as a real one would.
void emulation_catch(bool on);
// The first report since the last emulation_reset, or NULL. Valid until emulation_reset.
const char *emulation_report(void);
// Back to the defaults: no report, no error, no planned failures, reports abort, one device. Allocations stay valid.
void emulation_reset(void);

// ---- how kernels run -------------------------------------------------------------------------------------
void emulation_set_seed(uint64_t seed); // default: 1, or RECKON_EMULATION_SEED
// Each launch runs this often from the same memory, every time in another order; its results must be the same bits.
// Default: 1, or RECKON_EMULATION_REPEATS.
void emulation_set_repeats(int times);
// Streams run what is queued at once.
void emulation_set_eager(bool on);
// Whether device memory is closed to the host. Default: on.
void emulation_set_host_guard(bool on);
// What the checker looks for in instrumented files; default: all.
enum { EMULATION_CHECK_UNWRITTEN = 1, EMULATION_CHECK_RACES = 2 };
void emulation_set_checks(int checks);
bool emulation_checker_active(void); // whether any file of this program is instrumented

// ---- the machine -----------------------------------------------------------------------------------------
typedef struct EmulationMachine {
    int devices;      // default 1
    int major, minor; // compute capability, default 8.0, or RECKON_EMULATION_CAPABILITY, such as 90
    int multiprocessors;
    size_t memory_bytes; // of each device, default 256 MiB
    int driver_version;  // default 13000
    bool wrong_wgmma;    // products of warpgroups come out wrong
    bool without_code;   // the program was built for other devices
} EmulationMachine;
EmulationMachine *emulation_machine(void);

// ---- failures to come: the next is 1, 0 is none -----------------------------------------------------------
void emulation_fail_allocation(int nth);                // device memory
void emulation_fail_host_allocation(int nth);           // pinned memory
void emulation_fail_launch(int nth, int cuda_error);    // the kernel doesn't run, the device fails with this error
void emulation_fail_synchronize(int nth, int cuda_error); // the device fails with this error at a synchronisation

// ---- copies ----------------------------------------------------------------------------------------------
int emulation_uploads(void); // from the host to a device, since the last emulation_reset

// ---- memory ----------------------------------------------------------------------------------------------
size_t emulation_allocated_bytes(void); // device memory in use, of all devices
int emulation_allocations(void);        // device and pinned
void emulation_check_bands(void);       // reports a guard band that was written into
// For an allocator inside an allocation: closes the gaps between its parts, opens (as unwritten) what it gives out.
void emulation_close_memory(void *p, size_t bytes);
void emulation_open_memory(void *p, size_t bytes);
// A host test that wants to look at device memory directly, between begin and end.
void emulation_host_access_begin(void);
void emulation_host_access_end(void);

// ---- libraries that are opened at run time ----------------------------------------------------------------
// What dlsym would find: cuBLASLt, NVML, the driver; NULL for the rest and for libraries taken away.
void *emulation_symbol(const char *library, const char *name);
void emulation_take_away(const char *library_part); // "cublasLt", "nvidia-ml", "libcuda"; NULL gives all back

typedef struct EmulationNvml {
    double joules;           // total energy; grows with each kernel by joules_per_launch
    unsigned long long millijoules_before; // the counter shows these and the joules' thousandfold, modulo 2^64
    double clock_skew;       // seconds that the reader's clock is ahead
    int energy_error, power_error; // questions fail with these
    double joules_per_launch;
    double watts;
    unsigned temperature;    // degrees Celsius
    unsigned long long throttle_reasons;
    unsigned clock_mhz, memory_clock_mhz;
    bool energy_supported, power_supported;
    int init_error; // nvmlInit fails with this
} EmulationNvml;
EmulationNvml *emulation_nvml(void);

#ifdef __cplusplus
}
#endif
#endif
