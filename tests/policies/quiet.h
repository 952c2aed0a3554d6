// Counts what a stretch of a program asks of the C library's allocator and of the system. The work runs in a child that this
// process traces (ptrace: every thread stops at every system call); between quiet_begin and quiet_end, calls are counted by
// their numbers, all but futex, by which threads wait for each other. Allocations are counted by malloc and its kin, which
// are taken from the C library here, so only one file of a program may include this.
//
// Not under sanitizers: they have an allocator of their own, and one of them traces too.
#ifndef RECKON_QUIET_H
#define RECKON_QUIET_H
#include "base.h"
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { QUIET_BEGIN = 0x71756901, QUIET_END, QUIET_NUMBERS = 8, SYSCALL_STOP = SIGTRAP | 0x80 };

typedef struct Noise {
    long stretches;                // between a begin and an end
    long allocations, largest;     // calls, bytes of the largest
    long calls;                    // of the system
    long number[QUIET_NUMBERS];    // of the first of them
    int state;                     // of the work, as a test's: 0 ok, 1 failed, 2 skipped
    char message[sizeof test_message];
} Noise;

static Noise *noise; // in memory that the child shares
static atomic_bool listening;

#if !defined(RECKON_SANITIZED) && defined(__GLIBC__)
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
static void heard(size_t bytes) {
    if (!atomic_load_explicit(&listening, memory_order_relaxed)) return;
    __atomic_fetch_add(&noise->allocations, 1, __ATOMIC_RELAXED);
    if ((long)bytes > noise->largest) noise->largest = (long)bytes;
}
void *malloc(size_t size) {
    heard(size);
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    heard(count * size);
    return __libc_calloc(count, size);
}
void *realloc(void *p, size_t size) {
    heard(size);
    return __libc_realloc(p, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    heard(size);
    return __libc_memalign(alignment, size);
}
void *memalign(size_t alignment, size_t size) {
    heard(size);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    heard(size);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}
static const char *const quiet_impossible = NULL;
#else
static const char *const quiet_impossible = "counted in builds without sanitizers, with glibc";
#endif

// The tracer sees these by their arguments; the kernel knows no such options and does nothing.
static inline void quiet_begin(void) {
    atomic_store(&listening, true);
    prctl(QUIET_BEGIN, 0, 0, 0, 0);
}
static inline void quiet_end(void) {
    prctl(QUIET_END, 0, 0, 0, 0);
    atomic_store(&listening, false);
}

static inline void quiet_child(const Test *work) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
    raise(SIGSTOP);
    test_run(work);
    noise->state = test_state;
    memcpy(noise->message, test_message, sizeof noise->message);
    _exit(0);
}

static inline void note_call(pid_t thread, bool *inside) {
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    long number = (long)info.entry.nr;
    bool mark = number == SYS_prctl && (info.entry.args[0] == QUIET_BEGIN || info.entry.args[0] == QUIET_END);
    if (mark) {
        *inside = info.entry.args[0] == QUIET_BEGIN;
        noise->stretches += !*inside;
    } else if (*inside && number != SYS_futex) {
        if (noise->calls < QUIET_NUMBERS) noise->number[noise->calls] = number;
        noise->calls++;
    }
}

// Runs `work` in a traced child; false where no tracing is allowed. What it did in its stretches is in `noise` then.
static inline bool quiet_trace(const Test *work) {
    if (!noise) noise = mmap(NULL, sizeof *noise, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (noise == MAP_FAILED) FAIL("no shared memory: %s", strerror(errno));
    *noise = (Noise){.state = 1, .message = "the traced process did not come to its end"};
    fflush(stdout);
    pid_t child = fork(), thread;
    if (child == 0) quiet_child(work);
    int status, options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    if (child < 0 || waitpid(child, &status, 0) != child) FAIL("no child: %s", strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
    bool inside = false, allowed = ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(long)options) == 0;
    if (!allowed) kill(child, SIGKILL);
    for (thread = child; thread > 0; thread = waitpid(-1, &status, __WALL)) {
        bool stopped = WIFSTOPPED(status);
        int sign = stopped ? WSTOPSIG(status) : 0;
        if (thread == child && !stopped) break;
        if (!stopped) continue;
        if (sign == SYSCALL_STOP) note_call(thread, &inside);
        // Stops that tracing itself makes are no signals of the program.
        bool own = sign == SYSCALL_STOP || sign == SIGTRAP || sign == SIGSTOP;
        ptrace(PTRACE_SYSCALL, thread, NULL, (void *)(long)(own ? 0 : sign));
    }
    return allowed;
}

#endif
