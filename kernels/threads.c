#include "threads.h"
#include "cores.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_THREADS = 256, SPINS = 4000 };

// One barrier serves start, end and team_wait: the last to arrive resets the count and moves the phase on.
typedef struct Barrier {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
    atomic_int sleepers;
} Barrier;

struct Pool {
    Barrier barrier;
    int count;
    bool closing;
    Work work;
    const void *args;
    pthread_t threads[MAX_THREADS];
    Team teams[MAX_THREADS];
};

static void relax(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void barrier_wait(Barrier *b, int count) {
    if (count == 1) return;
    unsigned phase = atomic_load_explicit(&b->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) + 1 == count) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&b->phase, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&b->sleepers, memory_order_seq_cst))
            syscall(SYS_futex, &b->phase, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        return;
    }
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&b->phase, memory_order_acquire) != phase) return;
        relax();
    }
    atomic_fetch_add_explicit(&b->sleepers, 1, memory_order_seq_cst);
    while (atomic_load_explicit(&b->phase, memory_order_seq_cst) == phase)
        syscall(SYS_futex, &b->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    atomic_fetch_sub_explicit(&b->sleepers, 1, memory_order_relaxed);
}

void team_wait(const Team *team) { barrier_wait(&team->pool->barrier, team->count); }

// Flush-to-zero and denormals-are-zero for this thread; returns the old mode.
static uint64_t flush_denormals(void) {
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040);
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" ::"r"(old | (1u << 24)));
    return old;
#else
    return 0;
#endif
}
static void restore_mode(uint64_t old) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" ::"r"(old));
#else
    (void)old;
#endif
}

static void *thread_main(void *arg) {
    Team *team = arg;
    Pool *p = team->pool;
    flush_denormals();
    for (;;) {
        barrier_wait(&p->barrier, p->count);
        if (p->closing) return NULL;
        p->work(team, p->args);
        barrier_wait(&p->barrier, p->count);
    }
}

static void pin(pthread_t thread, const cpu_set_t *allowed, int index) {
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, allowed) || index-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(thread, sizeof one, &one); // best effort: a refusal costs speed only
        return;
    }
}

bool pool_open(int count, Pool **out, Err *err) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_SET(0, &allowed);
    if (count <= 0) count = cores_find().usable;
    if (count > MAX_THREADS) return fail(err, ERR_USAGE, "threads", "found %d, expected at most %d", count, MAX_THREADS);
    void *memory;
    TRY(mem_alloc(sizeof(Pool), "thread pool", &memory, err));
    Pool *p = memory;
    p->count = count;
    for (int i = 0; i < count; i++) p->teams[i] = (Team){.thread = i, .count = count, .pool = p};
    for (int i = 1; i < count; i++) {
        int e = pthread_create(&p->threads[i], NULL, thread_main, &p->teams[i]);
        if (e) {
            // Threads already made wait at the barrier for a full team: they can only be ended with the process.
            return fail(err, ERR_UNAVAILABLE, "threads", "can't start thread %d of %d: %s", i + 1, count, strerror(e));
        }
        // Only workers are pinned, and only where the threads are as many as the cores: of fewer, another process like this one
        // would choose the same. The caller stays free to move.
        if (count == CPU_COUNT(&allowed)) pin(p->threads[i], &allowed, i);
    }
    *out = p;
    return true;
}

void pool_close(Pool *p) {
    if (!p) return;
    p->closing = true;
    barrier_wait(&p->barrier, p->count);
    for (int i = 1; i < p->count; i++) pthread_join(p->threads[i], NULL);
    mem_free(p);
}

int pool_count(const Pool *p) { return p->count; }

void pool_run(Pool *p, Work work, const void *args) {
    uint64_t mode = flush_denormals();
    p->work = work;
    p->args = args;
    barrier_wait(&p->barrier, p->count);
    work(&p->teams[0], args);
    barrier_wait(&p->barrier, p->count);
    restore_mode(mode);
}
