// What the parts of the emulated device share. One lock (runtime.cpp) admits one host thread at a time, so the state below
// is plain.
//   report.cpp   reports, places, the state that tests set
//   fibers.cpp   stacks and the switch between them
//   block.cpp    a block: which thread runs next, barriers
//   warp.cpp     collectives of a warp, tensor cores, asynchronous copies, atomics
//   hopper.cpp   products of warpgroups, the copy engine
//   memory.cpp   device and pinned memory, the host's guard, what a kernel wrote
//   checker.cpp  the compiler's calls at each access of instrumented files
//   launch.cpp   a launch: limits, order of blocks, repeats
//   runtime.cpp  the CUDA runtime API: devices, streams, events, graphs
#ifndef RECKON_CUDA_EMULATION_INTERNAL_H
#define RECKON_CUDA_EMULATION_INTERNAL_H
#include "cuda_runtime.h"
#include "emulation.h"
#include "ptx_emulated.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATION_ASAN 1
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define EMULATION_ASAN 0
#endif

namespace emulation {

// All bits set: NaN as float, double and bf16, -1 as an integer.
constexpr unsigned char NAN_BYTE = 0xff;
constexpr int MAX_THREADS = 1024, MAX_WARPS = 32;
constexpr size_t SHARED_PLAIN = 48 * 1024, SHARED_LARGEST = 227 * 1024;

// ---- report.cpp ------------------------------------------------------------------------------------------
struct Settings {
    uint64_t seed;
    int repeats;
    bool eager, guard, catching;
    int checks;
    int fail_allocation, fail_host_allocation, fail_launch, fail_synchronize; // count down; 0: none
    int launch_error, synchronize_error;
};
extern Settings settings;
extern EmulationMachine machine;
std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));
// "function at file:line, inlined into ..." of a return address.
std::string place_name(const void *place);
// Aborts with this, or keeps it where a test catches.
void report(const std::string &what);
// The same from inside a kernel: adds kernel, block, thread, place and seed; the launch ends.
[[noreturn]] void kernel_failure(cudaError_t error, const void *place, const std::string &what);

struct Generator { // xorshift64*, Vigna 2016
    uint64_t state;
    uint32_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
    }
    uint32_t below(uint32_t bound) { return (uint32_t)((uint64_t)next() * bound >> 32); }
};
uint64_t mix(uint64_t a, uint64_t b); // a seed out of two numbers, never 0

// ---- fibers.cpp ------------------------------------------------------------------------------------------
struct Fiber;
Fiber *main_fiber();
Fiber *fiber_take(void (*entry)()); // begins at entry, which never returns
void fiber_give_back(Fiber *fiber); // whatever is on its stack is forgotten
void fiber_switch(Fiber *from, Fiber *to);
bool on_fiber_stack(const void *p);
bool in_fiber_guard(const void *p); // below a stack that overflowed

// ---- block.cpp -------------------------------------------------------------------------------------------
enum class State : uint8_t { fresh, ready, running, at_barrier, at_arrivals, in_collective, finished };

struct Request {
    EmulatedCollective kind;
    uint32_t mask, operand, width;
    uint64_t value; // and the result
    const void *place;
};
struct AsyncCopy {
    unsigned char *to;
    const unsigned char *from; // NULL: zeros
    int bytes, group;
};
struct Thread {
    uint3 index;
    uint32_t number, lane, warp;
    State state;
    Fiber *fiber; // while it waits
    Request request;
    std::vector<AsyncCopy> copies;
    int copy_group; // of the copies issued from now on
};
struct Warp {
    uint32_t present, finished, waiting; // lanes
    uint32_t leader;                     // of those that wait, one
};
struct Block {
    const char *kernel;
    uint3 index;
    dim3 grid, size;
    uint32_t count;
    size_t shared_bytes;
    const EmulatedLaunch *launch;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<uint32_t> ready;
    uint32_t finished;
    Generator random;
    int strategy;
    uint32_t starved; // a warp that others overtake
    // the barrier that some have reached
    uint32_t arrived, first;
    EmulatedBarrier barrier_kind;
    const char *barrier_file;
    int barrier_line;
    int barrier_count, barrier_result;
};
extern Block block;
extern Thread *current;     // NULL outside of kernels
extern bool kernel_failed;  // the last block ended by kernel_failure
extern cudaError_t kernel_error;
extern bool kernel_active;
extern pthread_t kernel_runner;
// Whether this host thread is running a kernel.
inline bool in_kernel() { return kernel_active && pthread_equal(kernel_runner, pthread_self()); }
void block_prepare(const EmulatedLaunch *launch);
bool block_run(uint3 index, uint64_t seed); // false: reported
[[noreturn]] void block_abandon();
void thread_wait(State state);              // until made ready
void thread_ready(uint32_t number);
void thread_yield();
unsigned char *shared_base();
bool in_shared(const void *p); // in the launched part
uint32_t shared_number(const void *p); // its address as instructions name it, and back
const void *shared_pointer(uint32_t number);
std::string waiting_threads();  // who waits where

// ---- hopper.cpp ------------------------------------------------------------------------------------------
struct WgmmaRequest {
    float *d;
    uint64_t a, b;
    uint32_t columns;
    bool add;
};
void hopper_block_begins();
void hopper_issue(uint32_t warp, const void *place);
void hopper_fence(uint32_t warp);
void hopper_commit(uint32_t warp);
void hopper_wait(uint32_t warp, int groups);
void hopper_thread_finished(const Thread *t); // the last lane of a warp takes nothing with it

// ---- warp.cpp --------------------------------------------------------------------------------------------
void warp_thread_finished(Thread *t); // a lane that others wait for has exited
uint32_t lanes_missing(const Thread *t); // from the collective that t waits in
const char *collective_name(EmulatedCollective kind);
uint32_t bf16_nearest(float x); // rounded, its 16 bits

// ---- memory.cpp ------------------------------------------------------------------------------------------
struct Allocation {
    unsigned char *data;
    size_t bytes;
    unsigned char *pages; // mapped from here
    size_t page_bytes;
    int device; // -1: pinned
};
const Allocation *allocation_of(const void *p); // live, device or pinned; NULL if none
const void *arena_base(bool device);
size_t arena_bytes(bool device);
bool in_device_arena(const void *p);
bool in_pinned_arena(const void *p);
std::string address_name(const void *p); // "byte 12 of a device allocation of 64 bytes"
void drain_all();                        // runs what is queued
void device_memory_open();               // nests
void device_memory_close();
bool bands_check(const char *who);      // false: reported
size_t device_bytes(int device);
// Without the address sanitizer's eye.
void raw_copy(unsigned char *to, const unsigned char *from, size_t bytes);
const unsigned char *raw_not_nan(const unsigned char *p, size_t bytes); // the first byte that isn't NAN_BYTE, or NULL
void raw_fill_nan(unsigned char *p, size_t bytes);
// What a kernel writes, for repeats: between start and stop changed pages are kept aside.
void writes_track();
void writes_rewind(bool remember); // back to the start; what the pages held is remembered as the result to compare with
std::string writes_compare();      // "" or where memory differs from the remembered
void writes_forget();
unsigned char *device_allocate(size_t bytes, int device); // NULL where there is none
unsigned char *pinned_allocate(size_t bytes);
bool device_release(void *p); // false: reported
bool pinned_release(void *p);
void memory_reset();
void memory_thread_begins(); // before this host thread runs a kernel
extern bool host_access;     // between emulation_host_access_begin and end
void memory_written(void *p, size_t bytes);               // by the API, for the checker
void memory_copied(void *to, const void *from, size_t bytes);

// ---- checker.cpp -----------------------------------------------------------------------------------------
void checker_allocated(const Allocation *a);
void checker_freed(const Allocation *a);
void checker_mark(void *p, size_t bytes, int flag);
enum { BYTE_CLOSED = 0, BYTE_UNWRITTEN = 1, BYTE_WRITTEN = 2, BYTE_PENDING = 3 };
unsigned char *checker_flags(const void *p); // of device or pinned memory, NULL where it isn't
void checker_launch_begins();
void checker_block_begins(size_t shared_bytes);
void checker_barrier();
void checker_warp_barrier(uint32_t warp, uint32_t mask);
void checker_fence();
// An access on the kernel's behalf by the emulation itself; reported like the kernel's own.
enum class Access { read, write, atomic };
void checker_access(const void *p, size_t bytes, Access access, const void *place);
void checker_copy_issued(void *to, size_t bytes, const void *place);
void checker_copy_landed(void *to, size_t bytes);
void checker_proxy_fence();
// What the copy engine wrote, for barrier number `barrier`, may be read by whom the end of that barrier's phase was told.
void checker_tile_landed(void *to, size_t bytes, size_t barrier);
void checker_observed(size_t barrier);
void checker_begun(uint32_t time, uint32_t thread, const void *place); // that thread's work of that time is ordered before now
// Shared memory that tensor cores read by themselves: its writers have fenced, and a barrier came after.
void checker_async_read(const void *p, size_t bytes, const void *place);
uint32_t checker_now(); // what happens from now on is later
void checker_unchanged(const void *p, size_t bytes, uint32_t since, const void *place); // still as at that time
void checker_allow(const void *p, size_t bytes); // the arguments of the present launch

// ---- launch.cpp ------------------------------------------------------------------------------------------
struct alignas(64) Line { // as aligned as any argument may ask for
    char bytes[64];
};
struct Launch {
    std::string name;
    EmulatedLaunch what;
    std::shared_ptr<std::vector<Line>> arguments;
};
cudaError_t launch_check(const EmulatedLaunch *launch);
Launch launch_copy(const EmulatedLaunch *launch);
cudaError_t launch_run(const Launch &launch);
void launch_reset();
size_t shared_optin(); // the most shared memory a block of this capability may ask for
cudaError_t function_attribute(const void *function, cudaFuncAttribute attribute, int value);

// ---- runtime.cpp, nvml.cpp, cublaslt.cpp -------------------------------------------------------------------
void runtime_reset();
void nvml_reset();
void nvml_count_launch();
void *nvml_symbol(const char *name);
void *cublaslt_symbol(const char *name);
void *driver_symbol(const char *name); // hopper.cpp
void enqueue(struct EmulatedStream *stream, std::function<cudaError_t()> run); // for cublaslt.cpp; takes the lock
cudaError_t api_enter();                      // what any call may have to answer first: no device, a sticky error
cudaError_t api_result(cudaError_t error);    // remembered for cudaGetLastError
int *api_device();                            // the device in use
struct Lock { // the one lock, recursive
    Lock();
    ~Lock();
};
} // namespace emulation
#endif
