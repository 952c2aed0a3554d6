// The process side of the pool: the keeper that forks workers, and the workers. Only pool.c and tests use this.
#ifndef RECKON_WORKER_H
#define RECKON_WORKER_H
#include "score.h"
#include <stdatomic.h>
#include <sys/types.h>

enum { MAX_WORKERS = 256 };

// One per slot, in memory shared by pool, keeper and worker. A worker could write nonsense here; it would only
// mislead who is blamed for its own death.
typedef struct WorkerStatus {
    _Atomic uint32_t tag;      // of the job at hand, 0 while idle
    _Atomic uint32_t samples;  // scored together at the moment
    _Atomic uint64_t started;  // samples and groups begun
    _Atomic uint32_t ready;    // it came to its loop
    _Atomic uint64_t busy, cpu; // nanoseconds at batches that were done: by the wall, of the processor; over all its lives
} WorkerStatus;

// From the keeper, with the pool's end of the worker's socket as an attached descriptor.
typedef struct WorkerNews {
    int32_t slot, pid;
    uint32_t dead_tag; // the job that the dead predecessor was at, 0 if idle
    int32_t signal;    // that ended it
    uint8_t had_predecessor, by_clock;
} WorkerNews;
// To the keeper: end this slot's worker, it broke the protocol.
typedef struct KeeperOrder {
    int32_t slot;
} KeeperOrder;

typedef struct KeeperSetup {
    const ScoreScripts *scripts;
    WorkerStatus *status; // [workers], shared
    int workers;
    int control; // the keeper's end of a SOCK_SEQPACKET pair
} KeeperSetup;
// Runs in the forked keeper until the control socket closes; never returns.
_Noreturn void keeper_run(const KeeperSetup *setup);

enum { WORKER_SOCKET = 3, WORKER_PROGRAMS = 4 }; // descriptors: of the pool, of the process that runs programs
// Puts up the process wall around the calling process, which keeps two descriptors: they become WORKER_SOCKET and
// WORKER_PROGRAMS (programs: -1 if there is none). False names what is missing.
bool walls_close(int socket, int programs, size_t more_memory, bool unsafe, Err *err) MUST_CHECK;
// Whether seccomp filters can be loaded here.
bool walls_have_seccomp(void);
// Serves batches on WORKER_SOCKET until it closes; never returns.
_Noreturn void worker_run(const ScoreScripts *scripts, WorkerStatus *status);

#endif
