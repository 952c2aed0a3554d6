// The wall around a worker: what a script could do even if it took over the interpreter. It can read and write one
// socket, take memory up to a limit, look at the clock, and exit. No file, no network, no process, no environment.
#include "worker.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef HAVE_SECCOMP
#include <seccomp.h>
#endif

bool walls_have_seccomp(void) {
#ifdef HAVE_SECCOMP
    uint32_t action = SCMP_ACT_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
#else
    return false;
#endif
}

#ifdef HAVE_SECCOMP
static const int allowed_calls[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(futex), SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap),
    SCMP_SYS(madvise), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(clock_gettime), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(restart_syscall), SCMP_SYS(getrandom),
#ifdef RECKON_SANITIZED // what the sanitizers' own allocator and reports need; still no file can be opened
    SCMP_SYS(sched_yield), SCMP_SYS(mprotect), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(sigaltstack),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(getrusage),
#endif
};

static bool load_filter(Err *err) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int status = filter ? 0 : -ENOMEM;
    for (int i = 0; status == 0 && i < COUNT(allowed_calls); i++)
        status = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
    // Memory: anonymous and never executable.
    if (status == 0)
        status = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                                  SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    if (status == 0) status = seccomp_load(filter);
    seccomp_release(filter);
    return status == 0 || fail(err, ERR_UNAVAILABLE, "seccomp", "the filter can't be loaded: %s", strerror(-status));
}
#else
static bool load_filter(Err *err) { return fail(err, ERR_UNAVAILABLE, "seccomp", "this build has no seccomp"); }
#endif

static void set_limit(int what, rlim_t value) {
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
    setrlimit((__rlimit_resource_t)what, &limit);
}

static void limit_resources(size_t more_memory) {
#ifdef RECKON_SANITIZED // sanitizers reserve terabytes of addresses
    (void)more_memory;
#else
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%ld", &pages) != 1) pages = 0;
        fclose(f);
    }
    if (pages > 0) set_limit(RLIMIT_AS, (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more_memory);
#endif
    set_limit(RLIMIT_NPROC, 0);
    set_limit(RLIMIT_FSIZE, 0);
    set_limit(RLIMIT_CORE, 0);
    set_limit(RLIMIT_MEMLOCK, 0);
    set_limit(RLIMIT_NOFILE, 0); // what is open stays open
}

static void forget_environment(void) {
    for (char **e = environ; e && *e; e++) memset(*e, 0, strlen(*e));
    clearenv();
}

// 0 to 2 lead nowhere, so that a stray message can't fall into the protocol.
static bool move_descriptors(int socket, int programs) {
    int null, high = fcntl(socket, F_DUPFD_CLOEXEC, 10), high_programs = programs < 0 ? -1 : fcntl(programs, F_DUPFD_CLOEXEC, 10);
    if (high < 0 || (programs >= 0 && high_programs < 0) || (null = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0) return false;
    for (int fd = 0; fd < 3; fd++) {
#ifdef RECKON_SANITIZED
        if (fd == 2) continue; // reports
#endif
        if (null != fd && dup2(null, fd) < 0) return false;
    }
    if (dup2(high, WORKER_SOCKET) < 0 || (programs >= 0 && dup2(high_programs, WORKER_PROGRAMS) < 0)) return false;
    return syscall(SYS_close_range, (unsigned)(programs < 0 ? WORKER_SOCKET : WORKER_PROGRAMS) + 1, ~0u, 0u) == 0;
}

// The C library's qsort (which the JSON library sorts keys with) asks at its first use on more than 1 KiB how much memory
// the system has, and remembers; so it is asked before that is forbidden.
static int compare_bytes(const void *a, const void *b) { return *(const char *)a - *(const char *)b; }
static void let_qsort_ask(void) {
    char bytes[4096] = {0};
    qsort(bytes, sizeof bytes, 1, compare_bytes);
}

bool walls_close(int socket, int programs, size_t more_memory, bool unsafe, Err *err) {
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT, SIGTSTP};
    for (int i = 0; i < COUNT(ignored); i++) signal(ignored[i], SIG_IGN);
    forget_environment();
    let_qsort_ask();
    if (!move_descriptors(socket, programs)) return fail(err, ERR_UNAVAILABLE, "descriptors", "%s", strerror(errno));
    limit_resources(more_memory);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail(err, ERR_UNAVAILABLE, "no_new_privs", "%s", strerror(errno));
    return unsafe || load_filter(err);
}
