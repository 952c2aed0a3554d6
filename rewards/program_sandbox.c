// The walls around a program: what bubblewrap is told, the limits, and the filter of system calls. See program.h.
//
// Limits that count a user's processes are useless to us (they count the user's desktop as well, and not root's), so the
// filter forbids a program to start processes at all; threads are counted inside of the sandbox, where only they count.
// Run as root, everything is done as nobody where the system lets nobody make a sandbox.
#include "program.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef HAVE_SECCOMP
#include <seccomp.h>
#endif

enum {
    SOURCE_FD = 10, FILTER_FD, STATUS_FD, // in the sandbox's making
    NOBODY = 65534, FOLDER_BYTES = 64 << 20, COMPILE_SECONDS = 10, COMPILE_MEMORY = 1024, BINARY_BYTES = 16 << 20, MAX_ARGUMENTS = 96,
};

struct ProgramSandbox {
    const char *bwrap, *python, *compiler; // NULL: not here
    bool looked, as_nobody;
    char why[256];         // why no sandbox can be made; empty if it can
    int filter[2];         // compiled filters in memory: for a compiler, which starts processes, and for a program
    int binary;            // of the C program compiled last
    uint64_t binary_hash;  // of its source
    ProgramEnd binary_end; // how compiling it ended
    Buf binary_errors;
};

// ---- finding things ----------------------------------------------------------------------------------------
static const char *find_tool(const char *const *paths) {
    for (; *paths; paths++)
        if (access(*paths, X_OK) == 0) return *paths;
    return NULL;
}

ProgramSandbox *program_sandbox_open(void) {
    static const char *const bwrap[] = {"/usr/bin/bwrap", "/usr/local/bin/bwrap", NULL};
    static const char *const python[] = {"/usr/bin/python3", "/usr/local/bin/python3", NULL};
    static const char *const compilers[] = {"/usr/bin/gcc", "/usr/bin/cc", "/usr/bin/clang", NULL};
    ProgramSandbox *s = xcalloc(1, sizeof *s);
    s->bwrap = find_tool(bwrap), s->python = find_tool(python), s->compiler = find_tool(compilers);
    s->filter[0] = s->filter[1] = s->binary = -1;
    return s;
}
void program_sandbox_close(ProgramSandbox *s) {
    for (int i = 0; i < 2; i++)
        if (s->filter[i] >= 0) close(s->filter[i]);
    if (s->binary >= 0) close(s->binary);
    buf_free(&s->binary_errors);
    free(s);
}

// ---- the filter of system calls ------------------------------------------------------------------------------
#ifdef HAVE_SECCOMP
static const int forbidden_calls[] = {
    SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root),
    SCMP_SYS(chroot), SCMP_SYS(unshare), SCMP_SYS(setns), SCMP_SYS(bpf), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register), SCMP_SYS(keyctl), SCMP_SYS(add_key),
    SCMP_SYS(request_key), SCMP_SYS(kexec_load), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at), SCMP_SYS(quotactl), SCMP_SYS(swapon), SCMP_SYS(reboot), SCMP_SYS(syslog), SCMP_SYS(personality),
    SCMP_SYS(socket), SCMP_SYS(socketpair), SCMP_SYS(fanotify_init), SCMP_SYS(open_tree), SCMP_SYS(move_mount), SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig), SCMP_SYS(fsmount), SCMP_SYS(mount_setattr), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp),
    // memory that no limit counts
    SCMP_SYS(memfd_create), SCMP_SYS(shmget), SCMP_SYS(msgget), SCMP_SYS(semget), SCMP_SYS(mq_open),
};

static int make_filter(bool may_fork) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int fd = memfd_create("filter", MFD_CLOEXEC), status = filter && fd >= 0 ? 0 : -1;
    for (int i = 0; status == 0 && i < COUNT(forbidden_calls); i++) {
        status = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), forbidden_calls[i], 0);
        if (status == -EDOM) status = 0; // this processor has no such call
    }
    if (status == 0 && !may_fork) {
        status = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
        // Its flags lie in memory, where no filter can look; the C library then uses clone.
        if (status == 0) status = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
        if (status == 0) status = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(fork), 0);
        if (status == 0) status = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(vfork), 0);
    }
    if (status == 0) status = seccomp_export_bpf(filter, fd);
    seccomp_release(filter);
    if (status == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}
#else
static int make_filter(bool may_fork) {
    (void)may_fork;
    return -1;
}
#endif

// ---- the sandbox ---------------------------------------------------------------------------------------------
typedef struct Launch {
    const char *command[12]; // inside, NULL-terminated
    const char *file;        // where SOURCE_FD's content appears; NULL: nowhere
    const char *file_mode;
    int source, input, output; // descriptors; output -1: a pipe of our own
    bool compiles;
    int seconds, memory;
    size_t file_bytes;
} Launch;

typedef struct Arguments {
    const char *list[MAX_ARGUMENTS];
    int count;
    char targets[8][64]; // of links in the root
} Arguments;
static void add(Arguments *a, const char *const *words) {
    for (; *words; words++) a->list[a->count++] = *words;
}
#define ADD(a, ...) add(a, (const char *const[]){__VA_ARGS__, NULL})

static void add_root(Arguments *a) {
    static const char *const folders[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64"};
    ADD(a, "--ro-bind", "/usr", "/usr");
    for (int i = 0; i < COUNT(folders); i++) { // links into /usr on systems of today, folders on older ones
        ssize_t n = readlink(folders[i], a->targets[i], sizeof a->targets[i] - 1);
        if (n > 0) ADD(a, "--symlink", a->targets[i], folders[i]);
        else if (file_is_folder(folders[i])) ADD(a, "--ro-bind", folders[i], folders[i]);
    }
    ADD(a, "--ro-bind-try", "/etc/alternatives", "/etc/alternatives", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache");
    ADD(a, "--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/zero", "/dev/zero", "--dev-bind", "/dev/urandom", "/dev/urandom");
}

static void write_arguments(Arguments *a, const ProgramSandbox *s, const Launch *l, const char *folder_bytes) {
    ADD(a, s->bwrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--die-with-parent",
        "--new-session", "--cap-drop", "ALL", "--clearenv");
    ADD(a, "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8", "--setenv", "PYTHONHASHSEED", "0");
    add_root(a);
    ADD(a, "--size", folder_bytes, "--tmpfs", "/tmp");
    if (l->file) ADD(a, "--perms", l->file_mode, "--ro-bind-data", "10", l->file);
    ADD(a, "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", "11", "--json-status-fd", "12", "--");
    add(a, l->command);
    a->list[a->count] = NULL;
}

static void set_limit(int what, rlim_t soft, rlim_t hard) {
    struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
    setrlimit((__rlimit_resource_t)what, &limit);
}

static bool place(int from, int to) { // keeps it open over exec
    if (from == to) return fcntl(to, F_SETFD, 0) == 0;
    return dup2(from, to) == to;
}

// In the child. Nothing here allocates: the arguments were written before.
_Noreturn static void become_sandbox(const ProgramSandbox *s, const Launch *l, const Arguments *a, const int fds[6]) {
    static const int to[] = {0, 1, 2, SOURCE_FD, FILTER_FD, STATUS_FD};
    char *const nothing[] = {NULL};
    int high[6];
    for (int i = 0; i < 6; i++) // first out of each other's way
        if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 64)) < 0) _exit(126);
    for (int i = 0; i < 6; i++)
        if (!place(high[i], to[i])) _exit(126);
    syscall(SYS_close_range, 3u, (unsigned)SOURCE_FD - 1, 0u);
    syscall(SYS_close_range, (unsigned)STATUS_FD + 1, ~0u, 0u);
    for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    set_limit(RLIMIT_CPU, (rlim_t)l->seconds, (rlim_t)l->seconds + 1);
    set_limit(RLIMIT_AS, (rlim_t)l->memory << 20, (rlim_t)l->memory << 20);
    set_limit(RLIMIT_FSIZE, l->file_bytes, l->file_bytes);
    set_limit(RLIMIT_CORE, 0, 0);
    set_limit(RLIMIT_NOFILE, 64, 64);
    if (s->as_nobody && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)) _exit(126);
    execve(s->bwrap, (char *const *)(uintptr_t)a->list, nothing);
    _exit(127);
}

static int data_file(const void *data, size_t size) { // an unnamed file to read from its start; -1: no memory
    int fd = memfd_create("data", MFD_CLOEXEC);
    for (size_t done = 0; fd >= 0 && done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            close(fd);
            return -1;
        }
        done += (size_t)n;
    }
    if (fd >= 0) lseek(fd, 0, SEEK_SET);
    return fd;
}

// ---- watching a sandbox --------------------------------------------------------------------------------------
typedef struct Watched {
    pid_t pid;
    int ended;                  // a descriptor that becomes readable when the process ends
    int output, errors, status; // pipes to read; output may be -1
    bool too_loud, out_of_time, abandoned;
    Buf status_text;
} Watched;

// Takes what is there; beyond the limit it is thrown away, and `full` set.
static void drain(int *fd, Buf *out, size_t limit, bool *full) {
    char chunk[16384];
    while (*fd >= 0) {
        ssize_t n = read(*fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            close(*fd);
            *fd = -1;
            return;
        }
        size_t room = limit - out->size;
        if ((size_t)n > room && full) *full = true;
        buf_append(out, chunk, (size_t)n < room ? (size_t)n : room);
    }
}

static void watch(Watched *w, ProgramResult *r, double wall_seconds, int caller) {
    double end = clock_seconds() + wall_seconds;
    for (bool over = false; !over;) {
        struct pollfd p[] = {{.fd = w->output, .events = POLLIN}, {.fd = w->errors, .events = POLLIN}, {.fd = w->status, .events = POLLIN},
                             {.fd = w->ended, .events = POLLIN}, {.fd = caller, .events = 0}};
        double left = end - clock_seconds();
        if (poll(p, COUNT(p), left > 0 ? (int)(1000 * left) + 1 : 0) < 0 && errno != EINTR) w->abandoned = true;
        over = p[3].revents != 0; // looked at before draining, so that nothing written before the end is missed
        drain(&w->output, &r->output, PROGRAM_MAX_OUTPUT, &w->too_loud);
        drain(&w->errors, &r->errors, PROGRAM_MAX_ERRORS, NULL);
        drain(&w->status, &w->status_text, 4096, NULL);
        w->abandoned |= caller >= 0 && (p[4].revents & (POLLHUP | POLLERR));
        w->out_of_time = !over && clock_seconds() >= end;
        if (w->too_loud || w->abandoned || w->out_of_time) break;
    }
    kill(w->pid, SIGKILL); // the rest of the sandbox dies with it
    while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR) {}
}

// From what bubblewrap reported: {"exit-code": n}, where 128 + n stands for signal n. Without it no sandbox was made.
static void judge(const Watched *w, ProgramResult *r) {
    const char *code = w->status_text.data ? strstr(w->status_text.data, "\"exit-code\":") : NULL;
    if (w->out_of_time) {
        r->end = PROGRAM_OUT_OF_TIME;
    } else if (w->too_loud) {
        r->end = PROGRAM_TOO_LOUD;
    } else if (!code) {
        r->end = PROGRAM_UNAVAILABLE;
        if (!r->errors.size) buf_puts(&r->errors, "bubblewrap ended without a word");
    } else {
        r->code = atoi(code + strlen("\"exit-code\":"));
        r->end = r->code > 128 && r->code < 128 + NSIG ? PROGRAM_SIGNALLED : PROGRAM_EXITED;
        if (r->end == PROGRAM_SIGNALLED) r->code -= 128;
        if (r->end == PROGRAM_SIGNALLED && (r->code == SIGXCPU || r->code == SIGKILL)) r->end = PROGRAM_OUT_OF_TIME;
    }
}

static bool unavailable(ProgramResult *r, const char *what) {
    r->end = PROGRAM_UNAVAILABLE;
    buf_printf(&r->errors, "%s: %s", what, strerror(errno));
    return true;
}

// False only if `caller` is gone.
static bool launch(const ProgramSandbox *s, const Launch *l, int caller, ProgramResult *r) {
    int out[2] = {-1, -1}, errors[2] = {-1, -1}, status[2] = {-1, -1};
    char folder_bytes[32];
    Arguments arguments = {.count = 0};
    Watched w = {.pid = -1, .ended = -1};
    snprintf(folder_bytes, sizeof folder_bytes, "%d", FOLDER_BYTES);
    write_arguments(&arguments, s, l, folder_bytes);
    bool ok = (l->output >= 0 || pipe2(out, O_CLOEXEC) == 0) && pipe2(errors, O_CLOEXEC) == 0 && pipe2(status, O_CLOEXEC) == 0;
    if (l->source >= 0) lseek(l->source, 0, SEEK_SET);
    lseek(s->filter[!l->compiles], 0, SEEK_SET);
    if (ok && (w.pid = fork()) == 0) {
        int fds[] = {l->input, l->output >= 0 ? l->output : out[1], errors[1], l->source >= 0 ? l->source : l->input,
                     s->filter[!l->compiles], status[1]};
        become_sandbox(s, l, &arguments, fds);
    }
    if (out[1] >= 0) close(out[1]);
    if (errors[1] >= 0) close(errors[1]);
    if (status[1] >= 0) close(status[1]);
    w.output = out[0], w.errors = errors[0], w.status = status[0];
    if (w.pid > 0) w.ended = (int)syscall(SYS_pidfd_open, w.pid, 0);
    ok = ok && w.pid > 0 && w.ended >= 0;
    if (ok) {
        for (int i = 0; i < 3; i++) {
            int fd = i == 0 ? w.output : i == 1 ? w.errors : w.status;
            if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
        }
        // Processor time decides; the wall clock is for programs that sleep, and patient on a busy machine.
        watch(&w, r, 4 * l->seconds + 4, caller);
        judge(&w, r);
    } else {
        unavailable(r, "a sandbox can't be started");
        if (w.pid > 0) kill(w.pid, SIGKILL), waitpid(w.pid, NULL, 0);
    }
    for (int i = 0; i < 4; i++) {
        int fd = i == 0 ? w.output : i == 1 ? w.errors : i == 2 ? w.status : w.ended;
        if (fd >= 0) close(fd);
    }
    buf_free(&w.status_text);
    return !w.abandoned;
}

// ---- does it work here? --------------------------------------------------------------------------------------
static bool try_sandbox(ProgramSandbox *s) {
    int nothing = data_file("", 0);
    Launch l = {.command = {"/usr/bin/prlimit", "--nproc=64", "--", "/usr/bin/true"}, .source = -1, .input = nothing, .output = -1,
                .seconds = 5, .memory = 256, .file_bytes = FOLDER_BYTES};
    ProgramResult r = {0};
    bool ok = nothing >= 0 && launch(s, &l, -1, &r) && r.end == PROGRAM_EXITED && r.code == 0;
    if (!ok) snprintf(s->why, sizeof s->why, "%.*s", r.errors.data ? (int)strcspn(r.errors.data, "\n") : 0, r.errors.data ? r.errors.data : "");
    if (!ok && !s->why[0]) snprintf(s->why, sizeof s->why, "the smallest program ends with %s %d", program_end_names[r.end], r.code);
    program_result_free(&r);
    if (nothing >= 0) close(nothing);
    if (ok) s->why[0] = 0;
    return ok;
}

static void look(ProgramSandbox *s) {
    if (s->looked) return;
    s->looked = true;
    if (!s->bwrap) {
        snprintf(s->why, sizeof s->why, "bubblewrap (/usr/bin/bwrap) isn't installed; scripts/setup installs it");
        return;
    }
    s->filter[0] = make_filter(true), s->filter[1] = make_filter(false);
    if (s->filter[0] < 0 || s->filter[1] < 0) {
        snprintf(s->why, sizeof s->why, "no seccomp filter can be made here");
        return;
    }
    if (geteuid() == 0) {
        s->as_nobody = true;
        if (try_sandbox(s)) return;
        s->as_nobody = false;
    }
    if (try_sandbox(s)) return;
    char first[sizeof s->why];
    memcpy(first, s->why, sizeof first);
    snprintf(s->why, sizeof s->why, "bubblewrap can't make a sandbox here: %.120s (0.7 or newer and unprivileged user namespaces are needed)", first);
}

static const char *missing_tool(const ProgramSandbox *s, ProgramLanguage language) {
    if (language == PROGRAM_PYTHON && !s->python) return "there is no /usr/bin/python3";
    if (language == PROGRAM_C && !s->compiler) return "there is no C compiler in /usr/bin";
    return NULL;
}

void program_why_not(ProgramLanguage language, char *why, size_t size) {
    ProgramSandbox *s = program_sandbox_open();
    look(s);
    const char *tool = missing_tool(s, language);
    snprintf(why, size, "%s", s->why[0] ? s->why : tool ? tool : "");
    program_sandbox_close(s);
}

// ---- running -------------------------------------------------------------------------------------------------
// Tests of one program come one after the other, so the last binary is kept. It is a function of the source alone.
static bool compile(ProgramSandbox *s, const ProgramTask *t, int caller) {
    uint64_t hash = hash64(t->source, t->source_size);
    if (s->binary >= 0 && s->binary_hash == hash) return true;
    if (s->binary >= 0) close(s->binary);
    s->binary_hash = hash;
    s->binary = memfd_create("binary", MFD_CLOEXEC);
    int source = data_file(t->source, t->source_size);
    char command[256];
    snprintf(command, sizeof command, "%s -x c -std=gnu17 -O1 -w -fno-diagnostics-color -o /tmp/program - -lm && cat /tmp/program", s->compiler);
    Launch l = {.command = {"/bin/sh", "-c", command}, .source = -1, .input = source, .output = s->binary, .compiles = true,
                .seconds = COMPILE_SECONDS, .memory = COMPILE_MEMORY, .file_bytes = BINARY_BYTES};
    ProgramResult r = {0};
    bool ok = source < 0 || s->binary < 0 ? unavailable(&r, "no memory for a program") : launch(s, &l, caller, &r);
    s->binary_end = r.end == PROGRAM_EXITED && r.code != 0 ? PROGRAM_NOT_COMPILED : r.end;
    buf_free(&s->binary_errors);
    s->binary_errors = r.errors;
    buf_free(&r.output);
    if (source >= 0) close(source);
    return ok;
}

bool program_sandbox_run(ProgramSandbox *s, const ProgramTask *t, int caller, ProgramResult *out) {
    *out = (ProgramResult){0};
    look(s);
    const char *tool = missing_tool(s, t->language);
    if (s->why[0] || tool) {
        out->end = PROGRAM_UNAVAILABLE;
        buf_puts(&out->errors, s->why[0] ? s->why : tool);
        return true;
    }
    Launch l = {.file_mode = "0555", .output = -1, .seconds = t->seconds, .memory = t->memory, .file_bytes = FOLDER_BYTES};
    int source = -1;
    if (t->language == PROGRAM_C) {
        TRY(compile(s, t, caller));
        if (s->binary_end != PROGRAM_EXITED) {
            out->end = s->binary_end;
            buf_append(&out->errors, s->binary_errors.data, s->binary_errors.size);
            return true;
        }
        l.source = s->binary;
        l.file = "/run/program";
        memcpy(l.command, (const char *[]){"/usr/bin/prlimit", "--nproc=64", "--", l.file}, 4 * sizeof *l.command);
    } else {
        l.source = source = data_file(t->source, t->source_size);
        l.file = "/run/program.py";
        memcpy(l.command, (const char *[]){"/usr/bin/prlimit", "--nproc=64", "--", s->python, "-s", "-B", l.file}, 7 * sizeof *l.command);
    }
    l.input = data_file(t->input, t->input_size);
    bool ok = l.source < 0 || l.input < 0 ? unavailable(out, "no memory for a program") : launch(s, &l, caller, out);
    if (source >= 0) close(source);
    if (l.input >= 0) close(l.input);
    return ok;
}
