// The talk between a worker and its runner: one task, one result, in turn. Both are made from one binary, so numbers are
// in memory order; every length is checked, for a worker may be in a script's hands.
#include "program.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const program_language_names[PROGRAM_LANGUAGES + 1] = {"python", "c", NULL};
const char *const program_end_names[PROGRAM_ENDS] = {"exit", "signal", "time", "output", "compile", "unavailable"};

enum { TASK_MAGIC = 0x52574450, RESULT_MAGIC = 0x52574451 };
typedef struct TaskHeader {
    uint32_t magic, language, seconds, memory, source_size, input_size;
} TaskHeader;
typedef struct ResultHeader {
    uint32_t magic, end;
    int32_t code;
    uint32_t output_size, errors_size;
} ResultHeader;

void program_result_free(ProgramResult *r) {
    buf_free(&r->output);
    buf_free(&r->errors);
}

static bool read_exactly(int fd, void *out, size_t size) {
    for (char *p = out; size;) {
        ssize_t n = read(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}
static bool read_into(int fd, Buf *out, size_t size) {
    out->data = xmalloc(size + 1);
    out->capacity = size + 1;
    out->data[size] = 0;
    if (!read_exactly(fd, out->data, size)) return false;
    out->size = size;
    return true;
}
// Workers may only read and write; SIGPIPE is ignored in both.
static bool write_exactly(int fd, const void *data, size_t size) {
    for (const char *p = data; size;) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

bool program_ask(int socket, const ProgramTask *task, ProgramResult *out) {
    TaskHeader head = {TASK_MAGIC, (uint32_t)task->language, (uint32_t)task->seconds, (uint32_t)task->memory, (uint32_t)task->source_size,
                       (uint32_t)task->input_size};
    ResultHeader result;
    *out = (ProgramResult){0};
    TRY(write_exactly(socket, &head, sizeof head) && write_exactly(socket, task->source, task->source_size));
    TRY(write_exactly(socket, task->input, task->input_size) && read_exactly(socket, &result, sizeof result));
    if (result.magic != RESULT_MAGIC || result.end >= PROGRAM_ENDS || result.output_size > PROGRAM_MAX_OUTPUT ||
        result.errors_size > PROGRAM_MAX_ERRORS)
        return false;
    out->end = (ProgramEnd)result.end;
    out->code = result.code;
    return read_into(socket, &out->output, result.output_size) && read_into(socket, &out->errors, result.errors_size);
}

static bool serve(int socket, unsigned languages, ProgramSandbox *sandbox) {
    TaskHeader head;
    Buf source = {0}, input = {0};
    ProgramResult result = {0};
    TRY(read_exactly(socket, &head, sizeof head));
    if (head.magic != TASK_MAGIC || head.language >= PROGRAM_LANGUAGES || !(languages >> head.language & 1) || head.seconds < 1 ||
        head.seconds > PROGRAM_MAX_SECONDS || head.memory < 1 || head.memory > PROGRAM_MAX_MEMORY || head.source_size > PROGRAM_MAX_SOURCE ||
        head.input_size > PROGRAM_MAX_INPUT)
        return false;
    bool ok = read_into(socket, &source, head.source_size) && read_into(socket, &input, head.input_size);
    if (ok) {
        ProgramTask task = {.language = (ProgramLanguage)head.language, .seconds = (int)head.seconds, .memory = (int)head.memory,
                            .source = source.data, .source_size = source.size, .input = input.data, .input_size = input.size};
        ok = program_sandbox_run(sandbox, &task, socket, &result);
    }
    if (ok) {
        ResultHeader answer = {RESULT_MAGIC, (uint32_t)result.end, result.code, (uint32_t)result.output.size, (uint32_t)result.errors.size};
        ok = write_exactly(socket, &answer, sizeof answer) && write_exactly(socket, result.output.data, result.output.size) &&
             write_exactly(socket, result.errors.data, result.errors.size);
    }
    program_result_free(&result);
    buf_free(&source), buf_free(&input);
    return ok;
}

_Noreturn void program_runner_run(int socket, unsigned languages) {
    sigset_t none;
    pid_t parent = getppid();
    prctl(PR_SET_NAME, "reckon-programs");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int high = fcntl(socket, F_DUPFD_CLOEXEC, 10); // 0 to 2 lead to /dev/null: the keeper saw to that
    if (high < 0 || dup3(high, 3, O_CLOEXEC) != 3 || syscall(SYS_close_range, 4u, ~0u, 0u) != 0) _exit(1);
    clearenv();
    ProgramSandbox *sandbox = program_sandbox_open();
    while (serve(3, languages, sandbox)) {}
    program_sandbox_close(sandbox);
    _exit(0);
}
