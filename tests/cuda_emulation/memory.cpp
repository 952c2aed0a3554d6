// Device and pinned memory. Both live in reserved stretches of addresses; each allocation has pages of its own, a band of
// NaN bytes before and behind, and begins at a multiple of 256 and of nothing more. Freed pages are unmapped and their
// addresses used again only when the stretch is full. Device pages are mapped without access except while kernels and
// copies run, so a host access faults; the fault is turned into a report.
//
// For repeats, pages are mapped read-only while a kernel runs; the first write to a stretch of them keeps what it held.
#include "internal.h"
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulation {
constexpr size_t PAGE_BYTES = 4096, BAND_BYTES = 256, CHUNK_BYTES = 16 * PAGE_BYTES;
constexpr size_t HUGE_BYTES = 2 << 20; // opening and closing large allocations is a matter of huge pages
constexpr size_t DEVICE_ARENA = (size_t)16 << 30, PINNED_ARENA = (size_t)4 << 30;

struct Arena {
    unsigned char *base;
    size_t bytes, next; // offset where the search for a gap begins
    std::map<const unsigned char *, Allocation> live; // by first page
};
static Arena device_arena = {NULL, DEVICE_ARENA, 0, {}}, pinned_arena = {NULL, PINNED_ARENA, 0, {}};
static int open_count;
bool host_access;
static bool forced_open; // after a host access that a test catches
static bool tracking;
struct Chunk {
    std::vector<unsigned char> before, result;
};
static std::map<unsigned char *, Chunk> chunks;

static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
static bool inside(const Arena &arena, const void *p) {
    return arena.base && (size_t)((const unsigned char *)p - arena.base) < arena.bytes;
}
const void *arena_base(bool device) { return device ? device_arena.base : pinned_arena.base; }
size_t arena_bytes(bool device) { return device ? DEVICE_ARENA : PINNED_ARENA; }
bool in_device_arena(const void *p) { return inside(device_arena, p); }
bool in_pinned_arena(const void *p) { return inside(pinned_arena, p); }

static const Allocation *find(const Arena &arena, const void *p) {
    if (!inside(arena, p)) return NULL;
    auto at = arena.live.upper_bound((const unsigned char *)p);
    if (at == arena.live.begin()) return NULL;
    const Allocation *a = &(--at)->second;
    return (const unsigned char *)p < a->pages + a->page_bytes ? a : NULL;
}
// Bands belong to their allocation here.
static const Allocation *owner_of(const void *p) {
    const Allocation *a = find(device_arena, p);
    return a ? a : find(pinned_arena, p);
}
const Allocation *allocation_of(const void *p) {
    const Allocation *a = owner_of(p);
    return a && (size_t)((const unsigned char *)p - a->data) < a->bytes ? a : NULL;
}

std::string address_name(const void *p) {
    const Allocation *a = owner_of(p);
    if (a)
        return text("byte %td of a %s allocation of %zu bytes", (const unsigned char *)p - a->data,
                    a->device < 0 ? "pinned" : "device", a->bytes);
    if (in_device_arena(p)) return text("%p, device memory that isn't allocated", p);
    if (in_pinned_arena(p)) return text("%p, pinned memory that isn't allocated", p);
    return text("%p, which isn't device memory", p);
}

// ---- the guard against the host --------------------------------------------------------------------------
static void protect(int access) {
    for (auto &entry : device_arena.live) mprotect(entry.second.pages, entry.second.page_bytes, access);
}
void device_memory_open() {
    if (open_count++ == 0 && settings.guard && !forced_open) protect(PROT_READ | PROT_WRITE);
}
void device_memory_close() {
    if (--open_count == 0 && settings.guard && !forced_open) protect(PROT_NONE);
}

// ---- bytes that may be poisoned ---------------------------------------------------------------------------
// The address sanitizer doesn't look at these; volatile keeps them from becoming calls that it does look at.
#define UNCHECKED __attribute__((no_sanitize("address"), noinline))
UNCHECKED void raw_copy(unsigned char *to, const unsigned char *from, size_t bytes) {
    for (; bytes >= 8; bytes -= 8, to += 8, from += 8) *(volatile uint64_t *)to = *(const volatile uint64_t *)from;
    for (; bytes; bytes--) *(volatile unsigned char *)to++ = *(const volatile unsigned char *)from++;
}
// Where the two differ first, or `bytes`.
UNCHECKED static size_t raw_compare(const unsigned char *a, const unsigned char *b, size_t bytes) {
    size_t i = 0;
    while (i + 8 <= bytes && *(const volatile uint64_t *)(a + i) == *(const volatile uint64_t *)(b + i)) i += 8;
    while (i < bytes && ((const volatile unsigned char *)a)[i] == b[i]) i++;
    return i;
}
UNCHECKED const unsigned char *raw_not_nan(const unsigned char *p, size_t bytes) {
    for (const unsigned char *end = p + bytes; p < end; p++)
        if (*(const volatile unsigned char *)p != NAN_BYTE) return p;
    return NULL;
}
UNCHECKED void raw_fill_nan(unsigned char *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((volatile unsigned char *)p)[i] = NAN_BYTE;
}

// ---- faults ----------------------------------------------------------------------------------------------
static struct sigaction older;

static const void *fault_place(void *context) {
#if defined(__x86_64__)
    return (const char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] + 1;
#elif defined(__aarch64__)
    return (const char *)((ucontext_t *)context)->uc_mcontext.pc + 1;
#else
    (void)context;
    return NULL;
#endif
}

static bool keep_chunk(unsigned char *p) {
    const Allocation *a = owner_of(p);
    if (!a) return false;
    unsigned char *start = a->pages + (size_t)(p - a->pages) / CHUNK_BYTES * CHUNK_BYTES;
    size_t bytes = min((size_t)(a->pages + a->page_bytes - start), CHUNK_BYTES);
    Chunk &chunk = chunks[start];
    if (chunk.before.empty()) {
        chunk.before.resize(bytes);
        raw_copy(chunk.before.data(), start, bytes);
    }
    return mprotect(start, bytes, PROT_READ | PROT_WRITE) == 0;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    unsigned char *p = (unsigned char *)info->si_addr;
    if (in_kernel() && in_fiber_guard(p))
        kernel_failure(cudaErrorLaunchFailure, fault_place(context), "a thread's stack overflows");
    if (tracking && open_count && keep_chunk(p)) return;
    if (in_kernel()) kernel_failure(cudaErrorIllegalAddress, fault_place(context), "an access of " + address_name(p));
    if (in_device_arena(p)) {
        report("host code touches " + address_name(p) + "\n  at " + place_name(fault_place(context)));
        if (owner_of(p) && !forced_open) { // a test catches: go on as if it had been allowed
            protect(PROT_READ | PROT_WRITE);
            forced_open = true;
            return;
        }
    }
    sigaction(signal, &older, NULL); // not ours: the access is repeated and faults again
}

static void watch_faults() {
    static bool done;
    if (done) return;
    done = true;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &older);
}
// A stack for the handler: that of a CUDA thread may be what overflowed.
static void watch_thread() {
    static thread_local bool done;
    if (done) return;
    done = true;
    stack_t now = {};
    if (sigaltstack(NULL, &now) == 0 && !(now.ss_flags & SS_DISABLE)) return;
    static thread_local unsigned char stack[65536];
    now.ss_sp = stack, now.ss_size = sizeof stack, now.ss_flags = 0;
    sigaltstack(&now, NULL);
}

// ---- allocation ------------------------------------------------------------------------------------------
static unsigned char *find_gap(Arena *arena, size_t bytes) {
    size_t unit = bytes >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES; // the arena begins at a multiple of both
    for (int pass = 0; pass < 2; pass++) {
        size_t offset = pass ? 0 : arena->next;
        for (;;) {
            offset = round_up(offset, unit);
            if (offset + bytes > arena->bytes) break;
            auto at = arena->live.lower_bound(arena->base + offset);
            if (at != arena->live.begin()) {
                auto before = std::prev(at);
                size_t end = (size_t)(before->second.pages + before->second.page_bytes - arena->base) + PAGE_BYTES;
                if (end > offset) {
                    offset = end;
                    continue;
                }
            }
            if (at == arena->live.end() || arena->base + offset + bytes + PAGE_BYTES <= at->first) return arena->base + offset;
            offset = (size_t)(at->second.pages + at->second.page_bytes - arena->base) + PAGE_BYTES;
        }
    }
    return NULL;
}

static unsigned char *allocate(Arena *arena, size_t bytes, int device) {
    if (!arena->base) {
        void *p = mmap(NULL, arena->bytes + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return NULL;
        arena->base = (unsigned char *)round_up((size_t)p, HUGE_BYTES);
    }
    watch_faults();
    size_t page_bytes = round_up(bytes + 2 * BAND_BYTES, PAGE_BYTES);
    unsigned char *pages = page_bytes < bytes ? NULL : find_gap(arena, page_bytes);
    if (!pages || mprotect(pages, page_bytes, PROT_READ | PROT_WRITE) != 0) return NULL;
    arena->next = (size_t)(pages + page_bytes - arena->base) + PAGE_BYTES;
    if (page_bytes >= HUGE_BYTES) madvise(pages, page_bytes, MADV_HUGEPAGE);
    Allocation a = {pages + BAND_BYTES, bytes, pages, page_bytes, device};
    memset(pages, NAN_BYTE, page_bytes);
    ASAN_POISON_MEMORY_REGION(pages, BAND_BYTES);
    ASAN_POISON_MEMORY_REGION(a.data + bytes, page_bytes - BAND_BYTES - bytes);
    arena->live[pages] = a;
    checker_allocated(&a);
    if (device >= 0 && settings.guard && !forced_open && !open_count) mprotect(pages, page_bytes, PROT_NONE);
    return a.data;
}

// The bands of an allocation whose pages are open.
static bool bands_whole(const Allocation *a, const char *who) {
    size_t rear = a->page_bytes - BAND_BYTES - a->bytes;
    const unsigned char *bad = raw_not_nan(a->pages, BAND_BYTES);
    if (!bad) bad = raw_not_nan(a->data + a->bytes, rear);
    if (bad) {
        report(text("%s wrote to ", who) + address_name(bad));
        raw_fill_nan(a->pages, BAND_BYTES), raw_fill_nan(a->data + a->bytes, rear); // once is enough
    }
    return !bad;
}
bool bands_check(const char *who) {
    bool whole = true;
    device_memory_open();
    for (auto &entry : device_arena.live) whole &= bands_whole(&entry.second, who);
    for (auto &entry : pinned_arena.live) whole &= bands_whole(&entry.second, who);
    device_memory_close();
    return whole;
}

static bool release(Arena *arena, void *p) {
    const Allocation *found = find(*arena, p);
    if (!found || found->data != p) {
        report(text("a free of %p, which isn't the start of an allocation: ", p) + address_name(p));
        return false;
    }
    Allocation a = *found;
    device_memory_open();
    bands_whole(&a, "somebody, before it was freed,");
    device_memory_close();
    checker_freed(&a);
    ASAN_UNPOISON_MEMORY_REGION(a.pages, a.page_bytes);
    arena->live.erase(a.pages);
    madvise(a.pages, a.page_bytes, MADV_DONTNEED);
    mprotect(a.pages, a.page_bytes, PROT_NONE);
    return true;
}

size_t device_bytes(int device) {
    size_t bytes = 0;
    for (auto &entry : device_arena.live)
        if (device < 0 || entry.second.device == device) bytes += round_up(entry.second.bytes, 256);
    return bytes;
}

unsigned char *device_allocate(size_t bytes, int device) { return allocate(&device_arena, bytes, device); }
unsigned char *pinned_allocate(size_t bytes) { return allocate(&pinned_arena, bytes, -1); }
bool device_release(void *p) { return release(&device_arena, p); }
bool pinned_release(void *p) { return release(&pinned_arena, p); }

// ---- repeats ---------------------------------------------------------------------------------------------
static void protect_all(int access) {
    protect(access);
    for (auto &entry : pinned_arena.live) mprotect(entry.second.pages, entry.second.page_bytes, access);
}
void writes_track() {
    watch_thread();
    chunks.clear();
    tracking = true;
    protect_all(PROT_READ);
}
void writes_rewind(bool remember) {
    for (auto &entry : chunks) {
        Chunk &chunk = entry.second;
        if (remember) {
            chunk.result.resize(chunk.before.size());
            raw_copy(chunk.result.data(), entry.first, chunk.before.size());
        }
        raw_copy(entry.first, chunk.before.data(), chunk.before.size());
    }
}
std::string writes_compare() {
    for (auto &entry : chunks) {
        const std::vector<unsigned char> &want = entry.second.result.empty() ? entry.second.before : entry.second.result;
        size_t i = raw_compare(entry.first, want.data(), want.size());
        if (i == want.size()) continue;
        i -= i % 4;
        uint32_t now, then;
        raw_copy((unsigned char *)&now, entry.first + i, 4);
        memcpy(&then, &want[i], 4);
        return address_name(entry.first + i) + text(" holds %#010x after one order of threads and %#010x after another", then, now);
    }
    return "";
}
void writes_forget() {
    tracking = false;
    chunks.clear();
    protect_all(PROT_READ | PROT_WRITE);
}

void memory_reset() {
    if (forced_open && !open_count) protect(settings.guard ? PROT_NONE : PROT_READ | PROT_WRITE);
    forced_open = false;
}
void memory_thread_begins() {
    watch_faults();
    watch_thread();
}
} // namespace emulation

using namespace emulation;

void emulation_set_host_guard(bool on) {
    Lock lock;
    if (on == settings.guard) return;
    settings.guard = on;
    if (!open_count) protect(on ? PROT_NONE : PROT_READ | PROT_WRITE);
}
size_t emulation_allocated_bytes(void) { return device_bytes(-1); }
int emulation_allocations(void) { return (int)(device_arena.live.size() + pinned_arena.live.size()); }
void emulation_check_bands(void) {
    Lock lock;
    bands_check("somebody");
}
void emulation_close_memory(void *p, size_t bytes) {
    Lock lock;
    drain_all(); // what is queued may still use it
    ASAN_POISON_MEMORY_REGION(p, bytes);
    checker_mark(p, bytes, BYTE_CLOSED);
}
void emulation_open_memory(void *p, size_t bytes) {
    Lock lock;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    device_memory_open();
    memset(p, NAN_BYTE, bytes);
    device_memory_close();
    checker_mark(p, bytes, BYTE_UNWRITTEN);
}
void emulation_host_access_begin(void) {
    Lock lock;
    host_access = true;
    device_memory_open();
}
void emulation_host_access_end(void) {
    Lock lock;
    host_access = false;
    device_memory_close();
}
