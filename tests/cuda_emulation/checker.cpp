// The checks at every access of instrumented .cu files. The compiler is asked for the thread sanitizer's and some of the
// undefined-behaviour sanitizer's instrumentation (-fsanitize=thread,alignment,...), but what it calls is here instead of in
// those libraries. Without instrumentation this file only keeps quiet.
//
// Each byte of device, pinned and shared memory has a flag: closed, unwritten, written, or awaiting an asynchronous copy.
// Each pair of bytes of device and each byte of shared memory has a cell for races: who wrote it last, and which lanes read
// it since. Time is a counter that goes up at each barrier, so an access is ordered before mine if it is older than the
// last barrier of the block, or older than what a chain of __syncwarp has told my lane about the other lane. Blocks of one
// launch are unordered but for the usual ticket: a block that fenced and then did an atomic on device memory has published
// what it wrote before; a block that did such an atomic sees what was published. Accesses by atomics don't race with
// each other.
#include "internal.h"
#include <algorithm>
#include <sys/mman.h>

namespace emulation {
static bool instrumented;

struct Cell {
    uint32_t write_time, read_time;
    uint32_t read_lanes;
    uint16_t read_warp; // SEVERAL: more than one warp
    uint16_t writer;    // thread; with ATOMIC: by an atomic
};
constexpr uint16_t SEVERAL = 0xffff, ATOMIC = 0x8000;

// Flags and cells of one stretch of addresses, reserved in full and touched where used.
struct Shadow {
    const unsigned char *base;
    size_t bytes;
    unsigned char *flags;
    Cell *cells;
    int granule; // bytes a cell stands for, as a shift
};
static Shadow device_shadow = {NULL, 0, NULL, NULL, 1}, pinned_shadow = {NULL, 0, NULL, NULL, 1},
              shared_shadow = {NULL, 0, NULL, NULL, 0};

static uint32_t now = 1, barrier_time, block_time, launch_time;
static uint32_t seen[MAX_THREADS][32]; // up to when lane l's accesses are ordered before this thread
struct Published {
    uint32_t begin, end, release; // times of a block of this launch, and up to when it is published
};
static std::vector<Published> published;
// When a thread's writes to shared memory were last shown to the tensor cores, and the same before the last barrier.
static uint32_t proxy_fence[MAX_THREADS], settled_fence[MAX_THREADS];
// The writer of a cell is the copy engine: beyond all threads, by the barrier it reports to.
constexpr uint32_t ENGINE = 0x4000;
struct Observed {
    uint32_t by[MAX_THREADS]; // when each thread was last told that a phase had ended
};
static std::map<size_t, Observed> observed; // by barrier, in this block
static bool fenced, acquired;
static const unsigned char *allowed;
static size_t allowed_bytes;

static void *reserve(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("cuda emulation: the checker's memory");
        abort();
    }
    return p;
}
static void shadow_open(Shadow *s, const void *base, size_t bytes) {
    if (s->base) return;
    s->bytes = bytes;
    s->flags = (unsigned char *)reserve(bytes);
    s->cells = (Cell *)reserve((bytes >> s->granule) * sizeof(Cell));
    s->base = (const unsigned char *)base;
}
static Shadow *shadow_of(const void *p) {
    if ((size_t)((const unsigned char *)p - shared_shadow.base) < shared_shadow.bytes) return &shared_shadow;
    if ((size_t)((const unsigned char *)p - device_shadow.base) < device_shadow.bytes) return &device_shadow;
    if ((size_t)((const unsigned char *)p - pinned_shadow.base) < pinned_shadow.bytes) return &pinned_shadow;
    return NULL;
}
unsigned char *checker_flags(const void *p) {
    Shadow *s = shadow_of(p);
    return s ? s->flags + ((const unsigned char *)p - s->base) : NULL;
}

// ---- what happens to memory ------------------------------------------------------------------------------
void checker_allocated(const Allocation *a) {
    if (!instrumented) return;
    bool device = a->device >= 0;
    shadow_open(device ? &device_shadow : &pinned_shadow, arena_base(device), arena_bytes(device));
    checker_mark(a->data, a->bytes, device ? BYTE_UNWRITTEN : BYTE_WRITTEN);
}
void checker_freed(const Allocation *a) { checker_mark(a->data, a->bytes, BYTE_CLOSED); }
void checker_mark(void *p, size_t bytes, int flag) {
    unsigned char *flags = instrumented ? checker_flags(p) : NULL;
    if (flags) memset(flags, flag, bytes);
}
void memory_written(void *p, size_t bytes) { checker_mark(p, bytes, BYTE_WRITTEN); }
void memory_copied(void *to, const void *from, size_t bytes) {
    unsigned char *to_flags = instrumented ? checker_flags(to) : NULL, *from_flags = to_flags ? checker_flags(from) : NULL;
    if (to_flags && from_flags)
        memmove(to_flags, from_flags, bytes);
    else
        memory_written(to, bytes);
}

// ---- time ------------------------------------------------------------------------------------------------
void checker_launch_begins() {
    if (!instrumented) return;
    if (now > 4000000000u) { // before it wraps
        for (Shadow *s : {&device_shadow, &pinned_shadow, &shared_shadow})
            if (s->base) madvise(s->cells, (s->bytes >> s->granule) * sizeof(Cell), MADV_DONTNEED);
        memset(seen, 0, sizeof seen);
        now = 1;
    }
    launch_time = block_time = barrier_time = now++;
    published.clear();
}
void checker_block_begins(size_t shared_bytes) {
    if (!instrumented) return;
    shadow_open(&shared_shadow, shared_base() - 4096, SHARED_LARGEST + 8192);
    memset(shared_shadow.flags + 4096, BYTE_UNWRITTEN, shared_bytes);
    memset(shared_shadow.flags + 4096 + shared_bytes, BYTE_CLOSED, SHARED_LARGEST - shared_bytes);
    if (!published.empty()) published.back().end = now;
    block_time = barrier_time = now++;
    published.push_back({block_time, UINT32_MAX, 0});
    fenced = acquired = false;
    observed.clear();
}
void checker_barrier() {
    if (instrumented) barrier_time = now++;
}
void checker_warp_barrier(uint32_t warp, uint32_t mask) {
    if (!instrumented) return;
    uint32_t all[32] = {};
    for (uint32_t lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            for (int k = 0; k < 32; k++) all[k] = max(all[k], seen[warp * 32 + lane][k]);
    for (uint32_t lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) all[lane] = now;
    for (uint32_t lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) memcpy(seen[warp * 32 + lane], all, sizeof all);
    now++;
}
void checker_fence() { fenced = true; }
void checker_proxy_fence() {
    if (!instrumented) return;
    uint32_t *last = &proxy_fence[current->number];
    if (*last <= barrier_time) settled_fence[current->number] = *last;
    *last = now++;
}
uint32_t checker_now() { return instrumented ? now++ : 0; }
static void atomic_on_device() {
    acquired = true;
    if (fenced && !published.empty()) published.back().release = now;
}
static bool was_published(uint32_t time) {
    if (!acquired) return false;
    auto at = std::upper_bound(published.begin(), published.end(), time, [](uint32_t t, const Published &p) { return t < p.begin; });
    return at != published.begin() && time <= std::prev(at)->release;
}

// ---- races -----------------------------------------------------------------------------------------------
void checker_tile_landed(void *to, size_t bytes, size_t barrier) {
    if (!instrumented) return;
    checker_mark(to, bytes, BYTE_WRITTEN);
    Cell *cells = shared_shadow.cells + ((const unsigned char *)to - shared_shadow.base);
    for (size_t i = 0; i < bytes; i++) cells[i] = Cell{now, 0, 0, 0, (uint16_t)(ENGINE + barrier)};
    now++;
}
void checker_observed(size_t barrier) {
    if (instrumented) observed[barrier].by[current->number] = now++;
}
static bool engine_ordered(const Thread *me, uint32_t writer, uint32_t time) {
    const Observed &o = observed[writer - ENGINE];
    if (o.by[me->number] > time) return true;
    for (uint32_t told : o.by) // somebody was told, and a barrier of the block came after
        if (told > time && told <= barrier_time) return true;
    return false;
}
static bool ordered(const Thread *me, uint32_t thread, uint32_t time) {
    if (thread >= ENGINE) return engine_ordered(me, thread, time);
    if (time <= barrier_time || thread == me->number) return true;
    return thread / 32 == me->warp && time <= seen[me->number][thread % 32];
}
void checker_begun(uint32_t time, uint32_t thread, const void *place) {
    if (instrumented && !ordered(current, thread, time))
        kernel_failure(cudaErrorLaunchFailure, place, "mbarrier: no barrier of the block since its mbarrier.init");
}
// Whether an access of another block, at this time, isn't ordered before the present block.
static bool foreign(uint32_t time) { return time > launch_time && time <= block_time && !was_published(time); }

[[noreturn]] static void race(const void *p, const void *place, const char *mine, const char *theirs, const std::string &who) {
    std::string what = in_shared(p) ? text("byte %td of shared memory", (const unsigned char *)p - shared_base()) : address_name(p);
    kernel_failure(cudaErrorLaunchFailure, place,
                   text("data race: %s ", mine) + what + ", " + theirs + " by " + who + " with no barrier in between");
}
static std::string thread_text(uint32_t number) {
    return (number & ~(uint32_t)ATOMIC) >= ENGINE ? "the copy engine" : text("thread %u of the block", number & ~(uint32_t)ATOMIC);
}

// `floor`: what is older is of no concern; the launch for device memory, the block for shared memory.
static void check_written(const Cell *c, uint32_t floor, const void *p, const void *place, const char *mine, bool atomic) {
    if (c->write_time <= floor) return;
    bool by_atomic = c->writer & ATOMIC;
    if (atomic && by_atomic) return;
    if (c->write_time <= block_time) {
        if (foreign(c->write_time)) race(p, place, mine, "written", "another block");
    } else if (!ordered(current, c->writer & ~(uint32_t)ATOMIC, c->write_time)) {
        race(p, place, mine, by_atomic ? "changed by an atomic" : "written", thread_text(c->writer));
    }
}
static void race_read(Cell *c, uint32_t floor, const void *p, const void *place) {
    const Thread *me = current;
    uint32_t bit = 1u << me->lane;
    check_written(c, floor, p, place, "reads", false);
    if (c->read_time > barrier_time) {
        if (c->read_warp != me->warp) {
            c->read_warp = SEVERAL;
        } else {
            bool subsumed = true; // all earlier readers are ordered before this one
            for (uint32_t lanes = c->read_lanes & ~bit; lanes && subsumed; lanes &= lanes - 1)
                subsumed = ordered(me, me->warp * 32 + (uint32_t)__builtin_ctz(lanes), c->read_time);
            c->read_lanes = subsumed ? bit : c->read_lanes | bit;
        }
    } else if (c->read_time > floor && c->read_time <= block_time && foreign(c->read_time)) {
        return; // another block's reading is what a later writer must know of
    } else {
        c->read_warp = (uint16_t)me->warp, c->read_lanes = bit;
    }
    c->read_time = now;
}
static void race_write(Cell *c, uint32_t floor, const void *p, const void *place, bool atomic) {
    const Thread *me = current;
    const char *mine = atomic ? "changes by an atomic" : "writes";
    check_written(c, floor, p, place, mine, atomic);
    if (c->read_time > floor && c->read_time <= block_time) {
        if (foreign(c->read_time)) race(p, place, mine, "read", "another block");
    } else if (c->read_time > barrier_time) {
        if (c->read_warp != me->warp) race(p, place, mine, "read", "a thread of another warp");
        for (uint32_t lanes = c->read_lanes & ~(1u << me->lane); lanes; lanes &= lanes - 1) {
            uint32_t thread = me->warp * 32 + (uint32_t)__builtin_ctz(lanes);
            if (!ordered(me, thread, c->read_time)) race(p, place, mine, "read", thread_text(thread));
        }
    }
    c->write_time = now;
    c->writer = (uint16_t)(me->number | (atomic ? ATOMIC : 0));
    c->read_time = 0;
}

// ---- an access -------------------------------------------------------------------------------------------
static const char *verb(Access access) { return access == Access::read ? "reads" : "writes"; }

[[noreturn]] static void bad_flag(const Shadow *s, const unsigned char *p, size_t bytes, Access access, const void *place) {
    size_t i = 0;
    const unsigned char *flags = s->flags + (p - s->base);
    while (i < bytes && (flags[i] == BYTE_WRITTEN || (access == Access::write && flags[i] == BYTE_UNWRITTEN))) i++;
    std::string what = s == &shared_shadow ? text("byte %td of the %zu bytes of shared memory", p + i - shared_base(), block.shared_bytes)
                                           : address_name(p + i);
    std::string access_text = text("%s %zu bytes: ", verb(access), bytes);
    if (flags[i] == BYTE_PENDING)
        kernel_failure(cudaErrorLaunchFailure, place, access_text + what + " awaits an asynchronous copy");
    if (flags[i] == BYTE_UNWRITTEN) kernel_failure(cudaErrorLaunchFailure, place, access_text + what + " was never written");
    kernel_failure(cudaErrorIllegalAddress, place, access_text + what + " is out of bounds");
}

static bool all_written(const unsigned char *flags, size_t bytes) {
    constexpr uint64_t WRITTEN = 0x0101010101010101u * BYTE_WRITTEN;
    for (; bytes >= 8; bytes -= 8, flags += 8) {
        uint64_t eight;
        memcpy(&eight, flags, 8);
        if (eight != WRITTEN) return false;
    }
    if (bytes & 4) {
        uint32_t four;
        memcpy(&four, flags, 4);
        if (four != (uint32_t)WRITTEN) return false;
        flags += 4;
    }
    for (size_t i = 0; i < (bytes & 3); i++)
        if (flags[i] != BYTE_WRITTEN) return false;
    return true;
}
static void check_flags(const Shadow *s, const unsigned char *p, size_t bytes, Access access, const void *place) {
    unsigned char *flags = s->flags + (p - s->base);
    bool reads = access != Access::write && (settings.checks & EMULATION_CHECK_UNWRITTEN);
    for (size_t i = 0; i < bytes; i++)
        if (flags[i] != BYTE_WRITTEN && (flags[i] != BYTE_UNWRITTEN || reads)) bad_flag(s, p, bytes, access, place);
    if (access != Access::read) memset(flags, BYTE_WRITTEN, bytes);
}

static void check(Shadow *s, const unsigned char *p, size_t bytes, Access access, const void *place) {
    size_t offset = (size_t)(p - s->base);
    unsigned char *flags = s->flags + offset;
    if (offset + bytes > s->bytes) bad_flag(s, p, s->bytes - offset, access, place);
    if (!all_written(flags, bytes)) check_flags(s, p, bytes, access, place);
    if (!(settings.checks & EMULATION_CHECK_RACES)) return;
    if (s->granule && bytes == 1) return; // a neighbour's byte shares the cell
    uint32_t floor = s == &shared_shadow ? block_time : launch_time;
    size_t first = offset >> s->granule, last = (offset + bytes - 1) >> s->granule;
    for (size_t i = first; i <= last; i++) {
        Cell *c = &s->cells[i];
        if (access != Access::read) {
            race_write(c, floor, s->base + (i << s->granule), place, access == Access::atomic);
        } else if (c->read_time != now || c->read_warp != current->warp || !(c->read_lanes >> current->lane & 1) ||
                   c->write_time > floor) {
            race_read(c, floor, s->base + (i << s->granule), place);
        }
    }
}

void checker_async_read(const void *p, size_t bytes, const void *place) {
    if (!instrumented || !(settings.checks & EMULATION_CHECK_RACES)) return;
    const Cell *cells = shared_shadow.cells + ((const unsigned char *)p - shared_shadow.base);
    for (size_t i = 0; i < bytes; i++) {
        if (cells[i].writer >= ENGINE) continue; // not by ordinary writes
        uint32_t writer = cells[i].writer & ~(uint32_t)ATOMIC, fence = proxy_fence[writer];
        if (!ordered(current, writer, fence)) fence = settled_fence[writer];
        if (cells[i].write_time > block_time && fence < cells[i].write_time)
            kernel_failure(cudaErrorLaunchFailure, place,
                           text("byte %td of shared memory, written by ", (const unsigned char *)p + i - shared_base()) + thread_text(writer) +
                               ", is read by the tensor cores with no fence.proxy.async of that thread and barrier in between");
    }
}
void checker_access(const void *p, size_t bytes, Access access, const void *place) {
    if (!instrumented) return;
    Shadow *s = shadow_of(p);
    if (!s) return;
    if (access == Access::atomic && s != &shared_shadow) atomic_on_device();
    check(s, (const unsigned char *)p, bytes, access, place);
}
void checker_unchanged(const void *p, size_t bytes, uint32_t since, const void *place) {
    if (!instrumented || !(settings.checks & EMULATION_CHECK_RACES)) return;
    size_t offset = (size_t)((const unsigned char *)p - shared_shadow.base);
    for (size_t i = offset; i < offset + bytes; i++)
        if (shared_shadow.cells[i].write_time > since || shared_shadow.flags[i] == BYTE_PENDING)
            kernel_failure(cudaErrorLaunchFailure, place,
                           text("byte %td of shared memory is written while a product under way reads it", shared_shadow.base + i - shared_base()));
}
void checker_copy_issued(void *to, size_t bytes, const void *) { checker_mark(to, bytes, BYTE_PENDING); }
void checker_copy_landed(void *to, size_t bytes) { checker_mark(to, bytes, BYTE_WRITTEN); }
void checker_allow(const void *p, size_t bytes) { allowed = (const unsigned char *)p, allowed_bytes = bytes; }

// The program itself: constant tables and the like.
extern "C" char __executable_start, end;

static void host_access_check(const void *p, Access access, const void *place) {
    if (host_access || !settings.guard || !in_device_arena(p)) return;
    report(text("host code %s ", verb(access)) + address_name(p) + "\n  at " + place_name(place));
}

static inline void instrumented_access(const void *p, size_t bytes, Access access, const void *place, size_t alignment) {
    if (!in_kernel()) {
        if (device_shadow.base) host_access_check(p, access, place);
        return;
    }
    Shadow *s = shadow_of(p);
    if (s) {
        if ((uintptr_t)p & (alignment - 1))
            kernel_failure(cudaErrorMisalignedAddress, place, text("%s %zu bytes at the misaligned address %p", verb(access), bytes, p));
        check(s, (const unsigned char *)p, bytes, access, place);
        return;
    }
    if (on_fiber_stack(p)) return;
    const unsigned char *q = (const unsigned char *)p;
    if ((size_t)(q - allowed) < allowed_bytes) return;
    if (q >= (const unsigned char *)&__executable_start && q < (const unsigned char *)&end && access == Access::read) return;
    kernel_failure(cudaErrorIllegalAddress, place, text("%s %zu bytes of host memory at %p", verb(access), bytes, p));
}
} // namespace emulation

using namespace emulation;

bool emulation_checker_active(void) { return instrumented; }

#ifndef RECKON_SANITIZED // there the sanitizers answer
// ---- what the compiler calls -----------------------------------------------------------------------------
#define PLACE __builtin_return_address(0)
#define ACCESS(bytes)                                                                                        \
    void __tsan_read##bytes(void *p) { instrumented_access(p, bytes, Access::read, PLACE, bytes); }          \
    void __tsan_write##bytes(void *p) { instrumented_access(p, bytes, Access::write, PLACE, bytes); }        \
    void __tsan_unaligned_read##bytes(void *p) { instrumented_access(p, bytes, Access::read, PLACE, 1); }    \
    void __tsan_unaligned_write##bytes(void *p) { instrumented_access(p, bytes, Access::write, PLACE, 1); }
extern "C" {
void __tsan_init(void) { instrumented = true; }
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t bytes) { instrumented_access(p, bytes, Access::read, PLACE, 1); }
void __tsan_write_range(void *p, size_t bytes) { instrumented_access(p, bytes, Access::write, PLACE, 1); }
void __tsan_vptr_update(void **, void *) {}

// The undefined-behaviour sanitizer's: each record begins with where in the source it is.
struct SourceLocation {
    const char *file;
    uint32_t line, column;
};
struct TypeMismatch {
    SourceLocation location;
    const void *type;
    unsigned char log_alignment, kind;
};
static void undefined(const SourceLocation *where, const void *place, const std::string &what, cudaError_t error) {
    std::string line = what + text(" at %s:%u:%u", where->file, where->line, where->column);
    if (in_kernel()) kernel_failure(error, place, line);
    report("host code: " + line);
}
void __ubsan_handle_type_mismatch_v1(TypeMismatch *data, uintptr_t p) {
    uintptr_t alignment = (uintptr_t)1 << data->log_alignment;
    bool misaligned = p & (alignment - 1);
    undefined(&data->location, PLACE,
              misaligned ? text("misaligned access: address %p isn't a multiple of %zu,", (void *)p, (size_t)alignment)
                         : text("access of %p,", (void *)p),
              misaligned ? cudaErrorMisalignedAddress : cudaErrorIllegalAddress);
}
void __ubsan_handle_out_of_bounds(SourceLocation *data, uintptr_t index) {
    undefined(data, PLACE, text("index %td out of an array's bounds", (ptrdiff_t)index), cudaErrorIllegalAddress);
}
void __ubsan_handle_shift_out_of_bounds(SourceLocation *data, uintptr_t, uintptr_t) {
    undefined(data, PLACE, "a shift by more than the width, or of a negative number,", cudaErrorLaunchFailure);
}
void __ubsan_handle_divrem_overflow(SourceLocation *data, uintptr_t, uintptr_t) {
    undefined(data, PLACE, "an integer division by zero", cudaErrorLaunchFailure);
}
}
#endif
