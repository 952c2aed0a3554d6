// Which walls this system offers, each found out by trying it in a process of its own: what a kernel's version or a
// configuration file says isn't what a container lets through.
#include "program.h"
#include "script.h"
#include "worker.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HELD = 42, NOBODY = 65534 };

// How `body` ends in a child: its exit status, 128 + n for signal n, -1 if there can't be a child.
static int try_in_child(void (*body)(void)) {
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(1);
    }
    if (pid < 0) return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The whole wall, then a call that it forbids. Exit status: HELD if the wall can't be put up.
static void call_forbidden(void) {
    int pair[2];
    Err err;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || !walls_close(pair[1], -1, 64 << 20, false, &err)) _exit(HELD);
    syscall(SYS_getppid);
    _exit(0);
}
static void keep_privileges(void) {
    _exit(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? HELD : 0);
}
static void take_memory(void) {
    struct rlimit limit = {.rlim_cur = 64 << 20, .rlim_max = 64 << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(0);
    _exit(mmap(NULL, (size_t)1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ? HELD : 0);
}
static void write_file(void) {
    struct rlimit limit = {0};
    int fd = memfd_create("probe", MFD_CLOEXEC);
    signal(SIGXFSZ, SIG_IGN);
    if (fd < 0 || setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(0);
    _exit(write(fd, "x", 1) < 0 && errno == EFBIG ? HELD : 0);
}
static void close_descriptors(void) {
    int fd = dup(0);
    if (fd < 0 && (fd = open("/dev/null", O_RDONLY)) < 0) _exit(0);
    _exit(syscall(SYS_close_range, 3u, ~0u, 0u) == 0 && (fd < 3 || fcntl(fd, F_GETFD) < 0) ? HELD : 0);
}
static void make_namespaces(void) { // as who doesn't own the machine
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)) _exit(0);
    _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0 ? HELD : 0);
}
static void wait_for_signal(void) {
    for (;;) pause();
}

// The keeper reads its workers' processor time and ends them.
static bool can_watch(void) {
    clockid_t clock;
    struct timespec t;
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) wait_for_signal();
    if (pid < 0) return false;
    bool ok = clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0;
    ok = kill(pid, SIGKILL) == 0 && ok;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return ok;
}

static int run_chunk(lua_State *L) {
    Sandbox *box = lua_touserdata(L, 1);
    sandbox_push_chunk(box);
    lua_call(L, 0, 0);
    return 0;
}
static bool interpreter_ends(void) { // a loop without end, inside of pcall
    static const char source[] = "while true do pcall(function() while true do end end) end";
    SandboxLimits limits = sandbox_default_limits();
    Sandbox *box;
    Err err;
    char message[256];
    limits.memory = 4 << 20;
    if (!sandbox_open("probe.lua", &limits, &box, &err)) return false;
    bool ok = sandbox_load(box, source, sizeof source - 1, "probe.lua", &err);
    if (ok) {
        sandbox_freeze(box);
        sandbox_reset(box, 100000, 0);
        ok = !sandbox_protect(box, run_chunk, box, message, sizeof message) && box->exhausted == EXHAUSTED_FUEL;
    }
    sandbox_close(box);
    return ok;
}

static json_t *programs(void) {
    json_t *out = json_object();
    char why[256], first[256] = "";
    for (int i = 0; i < PROGRAM_LANGUAGES; i++) {
        program_why_not((ProgramLanguage)i, why, sizeof why);
        json_object_set_new(out, program_language_names[i], json_boolean(!why[0]));
        if (why[0] && !first[0]) memcpy(first, why, sizeof first);
    }
    json_t *text = first[0] ? json_string(first) : NULL;
    json_object_set_new(out, "why", text ? text : json_null());
    return out;
}

json_t *reward_walls(void) {
    bool memory = try_in_child(take_memory) == HELD;
#ifdef RECKON_SANITIZED
    memory = false; // a sanitizer's shadow can't live under the limit, so workers go without
#endif
    return json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:o}", "interpreter", interpreter_ends(), "seccomp",
                     walls_have_seccomp() && try_in_child(call_forbidden) == 128 + SIGSYS, "no_new_privs", try_in_child(keep_privileges) == HELD,
                     "memory_limit", memory, "file_limit", try_in_child(write_file) == HELD, "cpu_time_watched", can_watch(),
                     "descriptors_closed", try_in_child(close_descriptors) == HELD, "user_namespaces", try_in_child(make_namespaces) == HELD,
                     "programs_in_bubblewrap", programs());
}
