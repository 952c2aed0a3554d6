// A pinned pool of threads that runs one function on all of them at a time (SPMD), with a fixed split of work.
// Threads only decide who computes an output, never in which order a sum is taken, so their number can't change a bit.
// While a function runs, denormals are flushed on every thread (as vdpbf16ps does in hardware), so that all
// instruction variants and the C references state the same bits; the caller's mode is restored afterwards.
#ifndef RECKON_THREADS_H
#define RECKON_THREADS_H
#include "base.h"

typedef struct Pool Pool;

typedef struct Team {
    int thread, count; // this thread of how many
    Pool *pool;
} Team;

// `count` 0: the cores that this process may keep busy (cores.h). Thread 0 is the caller.
bool pool_open(int count, Pool **out, Err *err) MUST_CHECK;
void pool_close(Pool *p);
int pool_count(const Pool *p);
// Runs work(team, args) on every thread and returns when all are done. Not reentrant.
typedef void (*Work)(const Team *team, const void *args);
void pool_run(Pool *p, Work work, const void *args);
// Inside a function run by pool_run: waits until every thread has come here.
void team_wait(const Team *team);

// The share [*from, *to) of `total` units for this thread, in whole multiples of `grain`.
static inline void team_share(const Team *t, int64_t total, int64_t grain, int64_t *from, int64_t *to) {
    int64_t grains = (total + grain - 1) / grain;
    *from = grains * t->thread / t->count * grain;
    *to = grains * (t->thread + 1) / t->count * grain;
    if (*from > total) *from = total;
    if (*to > total) *to = total;
}

#endif
