// Runs a block: one fiber per waiting CUDA thread. A thread that never waits runs on the stack of the one before it, so a
// kernel without barriers switches no stacks. Wherever a thread waits, the next is drawn; the strategy, drawn per block, is
// one of: any thread; whoever became ready last, so that a warp runs ahead as far as it can; any, with one warp starved;
// ascending; descending.
//
// A barrier needs every thread of the block, at the same source line: CUDA defines no less.
#include "internal.h"
#include <set>
#include <sys/mman.h>

namespace emulation {
enum { ANY, LATEST, STARVE, ASCENDING, DESCENDING, STRATEGIES };

Block block;
Thread *current;
bool kernel_failed;
cudaError_t kernel_error;
static Fiber *running;
static std::vector<Fiber *> parked; // in worker(), without a thread
bool kernel_active;
pthread_t kernel_runner;

// ---- shared memory ---------------------------------------------------------------------------------------
// A window between two bands. Its base is aligned to 128 bytes and no more.
constexpr size_t SHARED_BAND = 4096 + 128;
static unsigned char *shared_window;

unsigned char *shared_base() {
    if (!shared_window) {
        void *p = mmap(NULL, SHARED_LARGEST + 2 * SHARED_BAND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            perror("cuda emulation: shared memory");
            abort();
        }
        shared_window = (unsigned char *)p;
        memset(shared_window, NAN_BYTE, SHARED_LARGEST + 2 * SHARED_BAND);
        ASAN_POISON_MEMORY_REGION(shared_window, SHARED_LARGEST + 2 * SHARED_BAND);
    }
    return shared_window + SHARED_BAND;
}
// As the device numbers its shared memory: not from 0, and no better aligned than the window.
constexpr uint32_t SHARED_NUMBER = 0x480;
uint32_t shared_number(const void *p) { return (uint32_t)((const unsigned char *)p - shared_base()) + SHARED_NUMBER; }
const void *shared_pointer(uint32_t number) { return shared_base() + ((ptrdiff_t)number - (ptrdiff_t)SHARED_NUMBER); }
bool in_shared(const void *p) {
    return shared_window && (size_t)((const unsigned char *)p - shared_base()) < block.shared_bytes;
}

static void shared_open() {
    static size_t used; // by the block before
    unsigned char *base = shared_base();
    size_t fill = max(used, block.shared_bytes);
    ASAN_UNPOISON_MEMORY_REGION(base, fill);
    memset(base, NAN_BYTE, fill);
    ASAN_POISON_MEMORY_REGION(base, SHARED_LARGEST);
    ASAN_UNPOISON_MEMORY_REGION(base, block.shared_bytes);
    used = block.shared_bytes;
}
// Nothing but the launched bytes may have changed. The band behind is looked at for one kilobyte.
static bool shared_bands_whole() {
    unsigned char *base = shared_base();
    const unsigned char *bad = raw_not_nan(base - 1024, 1024);
    if (!bad) bad = raw_not_nan(base + block.shared_bytes, 1024);
    if (!bad) return true;
    report(text("%s, block (%u, %u, %u): wrote to byte %td of shared memory, launched with %zu bytes\n  seed %llu", block.kernel,
                block.index.x, block.index.y, block.index.z, bad - base, block.shared_bytes, (unsigned long long)settings.seed));
    raw_fill_nan(shared_window, SHARED_LARGEST + 2 * SHARED_BAND);
    kernel_error = cudaErrorIllegalAddress;
    return false;
}

// ---- who runs next ---------------------------------------------------------------------------------------
static Thread *pick() {
    std::vector<uint32_t> &ready = block.ready;
    if (ready.empty()) return NULL;
    uint32_t n = (uint32_t)ready.size(), i = n - 1;
    if (block.strategy == ANY || block.strategy == STARVE) {
        i = block.random.below(n);
        for (int tries = 0; block.strategy == STARVE && tries < 4 && ready[i] / 32 == block.starved; tries++)
            i = block.random.below(n);
    }
    uint32_t number = ready[i];
    ready[i] = ready.back();
    ready.pop_back();
    return &block.threads[number];
}

void thread_ready(uint32_t number) {
    block.threads[number].state = State::ready;
    block.ready.push_back(number);
}

static void shuffle_from(size_t begin) {
    std::vector<uint32_t> &ready = block.ready;
    if (block.strategy == ASCENDING) // the latest is taken first
        for (size_t i = begin, k = ready.size(); i + 1 < k; i++) std::swap(ready[i], ready[--k]);
    if (block.strategy != LATEST && block.strategy != STARVE) return;
    for (size_t i = ready.size() - begin; i > 1; i--)
        std::swap(ready[begin + i - 1], ready[begin + block.random.below((uint32_t)i)]);
}

static void worker();
static void run(Thread *next, Fiber *from) {
    Fiber *to = next->fiber;
    if (!to) {
        if (parked.empty()) {
            to = fiber_take(worker);
        } else {
            to = parked.back();
            parked.pop_back();
        }
    }
    next->fiber = NULL;
    next->state = State::running;
    current = next;
    running = to;
    fiber_switch(from, to);
}

static void stuck() {
    current = NULL;
    kernel_failure(cudaErrorLaunchFailure, NULL, "the block is stuck:" + waiting_threads());
}

void thread_wait(State state) {
    Thread *me = current;
    Fiber *self = running;
    me->state = state;
    me->fiber = self;
    Thread *next = pick();
    if (!next) {
        me->fiber = NULL; // this stack is given back by whoever reports
        stuck();
    }
    if (next == me) {
        me->state = State::running, me->fiber = NULL;
        return;
    }
    run(next, self);
}

void thread_yield() {
    if (block.ready.empty()) return;
    block.ready.push_back(current->number);
    if (block.strategy != ANY && block.strategy != STARVE) // the latest would be the same again
        std::swap(block.ready.back(), block.ready[block.random.below((uint32_t)block.ready.size())]);
    thread_wait(State::ready);
}

static std::string thread_name(const Thread *t) { return text("(%u, %u, %u)", t->index.x, t->index.y, t->index.z); }

static void finish(Thread *t) {
    t->state = State::finished;
    t->copies.clear(), t->copy_group = 0;
    block.finished++;
    Warp *w = &block.warps[t->warp];
    w->finished |= 1u << t->lane;
    hopper_thread_finished(t);
    if (w->waiting) warp_thread_finished(t);
    if (block.arrived)
        kernel_failure(cudaErrorLaunchFailure, NULL,
                       "divergent barrier: this thread exits, thread " + thread_name(&block.threads[block.first]) +
                           text(" waits in __syncthreads at %s:%d", block.barrier_file, block.barrier_line));
}

// The body of every fiber: thread after thread that hasn't begun.
static void worker() {
    for (;;) {
        block.launch->call(block.launch->arguments);
        finish(current);
        Thread *next = pick();
        Fiber *self = running;
        if (!next && block.finished < block.count) stuck();
        if (!next) {
            parked.push_back(self);
            current = NULL, running = main_fiber();
            fiber_switch(self, main_fiber());
        } else if (next->fiber) {
            parked.push_back(self);
            run(next, self);
        } else {
            next->state = State::running;
            current = next;
        }
    }
}

void block_abandon() {
    for (Thread &t : block.threads)
        if (t.fiber) fiber_give_back(t.fiber), t.fiber = NULL;
    Fiber *self = running;
    fiber_give_back(self);
    kernel_failed = true;
    current = NULL, running = main_fiber();
    fiber_switch(self, main_fiber());
    abort(); // this stack is never resumed
}

// ---- a block ---------------------------------------------------------------------------------------------
void block_prepare(const EmulatedLaunch *launch) {
    block.kernel = launch->name;
    block.launch = launch;
    block.grid = launch->grid, block.size = launch->block;
    block.count = launch->block.x * launch->block.y * launch->block.z;
    block.shared_bytes = launch->shared_bytes;
    block.threads.resize(block.count);
    block.warps.assign((block.count + 31) / 32, Warp{});
    for (uint32_t i = 0; i < block.count; i++) {
        Thread &t = block.threads[i];
        t.number = i, t.lane = i % 32, t.warp = i / 32;
        t.index = {i % block.size.x, i / block.size.x % block.size.y, i / block.size.x / block.size.y};
        block.warps[t.warp].present |= 1u << t.lane;
    }
}

bool block_run(uint3 index, uint64_t seed) {
    block.index = index;
    block.random.state = seed;
    block.strategy = (int)block.random.below(STRATEGIES);
    block.starved = block.random.below((uint32_t)block.warps.size());
    block.finished = block.arrived = 0;
    block.ready.resize(block.count);
    for (uint32_t i = 0; i < block.count; i++) {
        Thread &t = block.threads[i];
        t.state = State::fresh, t.fiber = NULL, t.copy_group = 0;
        t.copies.clear();
        block.ready[i] = i;
    }
    shuffle_from(0);
    for (Warp &w : block.warps) w.finished = w.waiting = 0;
    shared_open();
    checker_block_begins(block.shared_bytes);
    hopper_block_begins();
    kernel_failed = false;
    kernel_runner = pthread_self(), kernel_active = true;
    run(pick(), main_fiber());
    kernel_active = false;
    if (!shared_bands_whole()) kernel_failed = true;
    return !kernel_failed;
}

// What each group of threads that don't run is waiting for.
std::string waiting_threads() {
    std::map<std::string, std::pair<int, std::string>> groups;
    std::map<const void *, std::string> places;
    for (Thread &t : block.threads) {
        std::string what;
        if (t.state == State::finished) what = "exited";
        if (t.state == State::at_barrier) what = text("wait in __syncthreads at %s:%d", block.barrier_file, block.barrier_line);
        if (t.state == State::at_arrivals) what = "wait for an mbarrier whose phase doesn't end";
        if (t.state == State::in_collective) {
            uint32_t missing = lanes_missing(&t);
            if (!places.count(t.request.place)) places[t.request.place] = place_name(t.request.place);
            what = text("of warp %u wait in %s with mask %#x for lanes %#x that don't arrive\n     ", t.warp,
                        collective_name(t.request.kind), t.request.mask, missing) +
                   places[t.request.place];
        }
        if (what.empty()) continue;
        std::pair<int, std::string> &group = groups[what];
        if (group.first++ < 4) group.second += " " + thread_name(&t);
    }
    std::string all;
    int shown = 0;
    for (auto &group : groups)
        if (shown++ < 8)
            all += text("\n  %d threads (", group.second.first) + group.second.second +
                   (group.second.first > 4 ? " ..." : "") + " ) " + group.first;
    return all;
}
} // namespace emulation

using namespace emulation;

uint3 emulation_thread_index(void) { return current->index; }
uint3 emulation_block_index(void) { return block.index; }
uint3 emulation_block_size(void) { return {block.size.x, block.size.y, block.size.z}; }
uint3 emulation_grid_size(void) { return {block.grid.x, block.grid.y, block.grid.z}; }
void *emulation_shared(void) { return shared_base(); }

int emulation_barrier(EmulatedBarrier kind, int predicate, const char *file, int line) {
    const void *place = __builtin_return_address(0);
    if (block.finished)
        kernel_failure(cudaErrorLaunchFailure, place,
                       text("divergent barrier: %u threads of the block have exited before __syncthreads", block.finished));
    if (!block.arrived) {
        block.first = current->number;
        block.barrier_kind = kind, block.barrier_file = file, block.barrier_line = line;
        block.barrier_count = 0;
    } else if (kind != block.barrier_kind || line != block.barrier_line || strcmp(file, block.barrier_file)) {
        kernel_failure(cudaErrorLaunchFailure, place,
                       "divergent barrier: thread " + thread_name(&block.threads[block.first]) +
                           text(" waits in __syncthreads at %s:%d, this one at %s:%d", block.barrier_file, block.barrier_line, file,
                                line));
    }
    block.arrived++;
    block.barrier_count += predicate;
    if (block.arrived < block.count) {
        thread_wait(State::at_barrier);
        return block.barrier_result;
    }
    block.arrived = 0;
    block.barrier_result = kind == EMULATED_BARRIER_AND ? block.barrier_count == (int)block.count
                           : kind == EMULATED_BARRIER_OR ? block.barrier_count != 0
                                                         : block.barrier_count;
    checker_barrier();
    size_t begin = block.ready.size();
    for (uint32_t i = 0; i < block.count; i++)
        if (i != current->number) thread_ready(i);
    shuffle_from(begin);
    thread_yield();
    return block.barrier_result;
}

void emulation_trap(void) { kernel_failure(cudaErrorIllegalInstruction, __builtin_return_address(0), "__trap()"); }
