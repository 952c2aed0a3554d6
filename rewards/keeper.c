// The keeper: a process with one thread and nothing but the scripts in it, forked before the trainer grows threads
// and a model. It forks the workers, watches their CPU time, forks a new one in place of each that ends, and hands
// the new socket to the pool. It ends when the pool does: its control socket then closes.
#include "program.h"
#include "worker.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FAILED_STARTS = 5, SLACK_MEMORY = 512 << 20 };

typedef struct Keeper {
    const KeeperSetup *setup;
    int signals; // signalfd for SIGCHLD
    pid_t self;
    int failed_starts; // in a row: workers that never came to their loop
    struct Slot {
        pid_t pid;
        bool by_clock;
        uint64_t started; // the unit of work last seen, and its clocks when it was first seen
        double cpu, wall;
        double cpu_limit; // soft RLIMIT_CPU: ends a worker even if this process hangs
    } slots[MAX_WORKERS];
} Keeper;

// ---- forking -------------------------------------------------------------------------------------------------------------
_Noreturn static void become_worker(Keeper *k, int slot, int fd, int programs) {
    const ScoreScripts *scripts = k->setup->scripts;
    Err err = {0};
    sigset_t none;
    prctl(PR_SET_NAME, "reckon-reward");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != k->self) _exit(1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    size_t memory = SLACK_MEMORY + 2 * (size_t)scripts->count * scripts->limits.memory;
    if (!walls_close(fd, programs, memory, scripts->limits.unsafe, &err)) _exit(ERR_UNAVAILABLE);
    worker_run(scripts, &k->setup->status[slot]);
}

static bool tell_pool(int control, const WorkerNews *news, int fd) {
    struct iovec part = {.iov_base = (void *)(uintptr_t)news, .iov_len = sizeof *news};
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } attached = {0};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = attached.space,
                       .msg_controllen = sizeof attached.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    ssize_t n;
    do n = sendmsg(control, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof *news;
}

// The process that runs programs for one worker, where scripts may; it ends when the worker does. It isn't watched: a
// worker whose runner is gone gets errors. Returns the worker's end of its socket, -1 if there is none.
static int start_runner(Keeper *k) {
    int pair[2];
    unsigned languages = k->setup->scripts->programs;
    if (!languages || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) program_runner_run(pair[1], languages);
    close(pair[1]);
    if (pid > 0) return pair[0];
    close(pair[0]);
    return -1;
}

static bool start_worker(Keeper *k, int slot, WorkerNews news) {
    WorkerStatus *status = &k->setup->status[slot];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
    atomic_store(&status->tag, 0);
    atomic_store(&status->ready, 0);
    int programs = start_runner(k);
    pid_t pid = fork();
    if (pid == 0) become_worker(k, slot, pair[1], programs);
    if (programs >= 0) close(programs);
    k->slots[slot] = (struct Slot){.pid = pid};
    news.slot = slot;
    news.pid = pid;
    bool ok = pid > 0 && tell_pool(k->setup->control, &news, pair[0]);
    close(pair[0]);
    close(pair[1]);
    return ok;
}

// ---- watching ------------------------------------------------------------------------------------------------------------
static double now(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

static void watch_worker(Keeper *k, int slot) {
    struct Slot *s = &k->slots[slot];
    WorkerStatus *status = &k->setup->status[slot];
    double seconds = k->setup->scripts->limits.seconds;
    clockid_t clock;
    if (clock_getcpuclockid(s->pid, &clock) != 0) return;
    double cpu = now(clock), wall = now(CLOCK_MONOTONIC);
    uint64_t started = atomic_load(&status->started);
    uint32_t samples = atomic_load(&status->samples);
    if (started != s->started || atomic_load(&status->tag) == 0 || s->wall == 0) {
        s->started = started;
        s->cpu = cpu;
        s->wall = wall;
    }
    if (samples > 1 && samples <= 65536) seconds *= samples; // a group is scored together
    // A worker that neither works nor ends gets the wall clock's patience, which a busy machine can't use up.
    double patience = 60 + 30 * seconds + (k->setup->scripts->programs ? 600 : 0);
    if (cpu - s->cpu > seconds || wall - s->wall > patience) {
        s->by_clock = true;
        kill(s->pid, SIGKILL);
    }
    if (s->cpu_limit < cpu + 30 + seconds) {
        s->cpu_limit = cpu + 120 + 4 * seconds;
        struct rlimit limit = {.rlim_cur = (rlim_t)s->cpu_limit, .rlim_max = RLIM_INFINITY};
        prlimit(s->pid, RLIMIT_CPU, &limit, NULL);
    }
}

// Reaps what ended and starts anew. False when workers can't be started.
static bool replace_dead(Keeper *k) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        int slot = 0;
        while (slot < k->setup->workers && k->slots[slot].pid != pid) slot++;
        if (slot == k->setup->workers) continue;
        WorkerStatus *shared = &k->setup->status[slot];
        // One that somebody killed before it came to its loop says nothing about whether workers can start.
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        k->failed_starts = atomic_load(&shared->ready) || killed ? 0 : k->failed_starts + 1;
        if (k->failed_starts >= MAX_FAILED_STARTS) return false;
        WorkerNews news = {.dead_tag = atomic_load(&shared->tag), .had_predecessor = 1,
                           .by_clock = k->slots[slot].by_clock, .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0};
        if (!start_worker(k, slot, news)) return false;
    }
    return true;
}

static bool obey(Keeper *k) { // false when the pool is gone
    KeeperOrder order;
    ssize_t n = recv(k->setup->control, &order, sizeof order, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n != (ssize_t)sizeof order) return false;
    if (order.slot >= 0 && order.slot < k->setup->workers && k->slots[order.slot].pid > 0)
        kill(k->slots[order.slot].pid, SIGKILL);
    return true;
}

// ---- life ----------------------------------------------------------------------------------------------------------------
static void shed_descriptors(int control) { // keeps 2 and the control socket
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) dup2(null, 0), dup2(null, 1);
    if (control > 3) syscall(SYS_close_range, 3u, (unsigned)control - 1, 0u);
    syscall(SYS_close_range, (unsigned)(control < 3 ? 3 : control + 1), ~0u, 0u);
}

_Noreturn void keeper_run(const KeeperSetup *setup) {
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT};
    Keeper *k = xcalloc(1, sizeof *k);
    sigset_t child;
    k->setup = setup;
    k->self = getpid();
    prctl(PR_SET_NAME, "reckon-keeper");
    for (int i = 0; i < COUNT(ignored); i++) signal(ignored[i], SIG_IGN); // the trainer decides when to end
    signal(SIGCHLD, SIG_DFL);
    shed_descriptors(setup->control);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    k->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    bool ok = k->signals >= 0;
    for (int i = 0; ok && i < setup->workers; i++) ok = start_worker(k, i, (WorkerNews){0});
    double seconds = setup->scripts->limits.seconds;
    int interval = seconds < 0.4 ? 20 : 100; // ms
    while (ok) {
        struct pollfd p[2] = {{.fd = setup->control, .events = POLLIN}, {.fd = k->signals, .events = POLLIN}};
        if (poll(p, 2, interval) < 0 && errno != EINTR) break;
        struct signalfd_siginfo info;
        while (read(k->signals, &info, sizeof info) > 0) {}
        if (p[0].revents) ok = obey(k);
        ok = ok && replace_dead(k);
        for (int i = 0; ok && i < setup->workers; i++) watch_worker(k, i);
    }
    for (int i = 0; i < setup->workers; i++)
        if (k->slots[i].pid > 0) kill(k->slots[i].pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0) {}
    _exit(ok ? 0 : 1);
}
