// Running a program that a model wrote, in Python or C, inside of bubblewrap. A worker can't start processes, so it asks
// its runner: a process of its own kind, forked by the keeper before the worker is, that holds nothing but a socket. It
// exists only where a script is allowed to run programs by name.
//
// What a program sees: /usr read-only, an empty /tmp of limited size, three devices, its own input, no network, no other
// process, no environment, and nothing of the folder that reckon runs in. It is one process (threads are counted), with
// limits on processor time, memory, files and output.
#ifndef RECKON_PROGRAM_H
#define RECKON_PROGRAM_H
#include "base.h"

typedef enum ProgramLanguage { PROGRAM_PYTHON, PROGRAM_C, PROGRAM_LANGUAGES } ProgramLanguage;
extern const char *const program_language_names[PROGRAM_LANGUAGES + 1]; // "python", "c", NULL

typedef enum ProgramEnd {
    PROGRAM_EXITED,       // code: its exit status
    PROGRAM_SIGNALLED,    // code: the signal
    PROGRAM_OUT_OF_TIME,  // a clock ended it: another machine might not
    PROGRAM_TOO_LOUD,     // more output than is taken
    PROGRAM_NOT_COMPILED, // errors: the compiler's message
    PROGRAM_UNAVAILABLE,  // the sandbox couldn't be made; errors: why
    PROGRAM_ENDS,
} ProgramEnd;
extern const char *const program_end_names[PROGRAM_ENDS]; // "exit", "signal", "time", "output", "compile", "unavailable"

enum {
    PROGRAM_MAX_SOURCE = 1 << 20, PROGRAM_MAX_INPUT = 4 << 20, PROGRAM_MAX_SECONDS = 60, PROGRAM_MAX_MEMORY = 4096, // MiB
    PROGRAM_MAX_OUTPUT = 64 << 10, PROGRAM_MAX_ERRORS = 4 << 10,
};

typedef struct ProgramTask {
    ProgramLanguage language;
    int seconds;    // of processor time
    int memory;     // MiB
    const char *source, *input;
    size_t source_size, input_size;
} ProgramTask;

typedef struct ProgramResult {
    ProgramEnd end;
    int code;
    Buf output, errors; // the caller's, also after a failure
} ProgramResult;
void program_result_free(ProgramResult *r);

// Asks the runner at the other end of `socket` and waits. False if there is no runner any more.
bool program_ask(int socket, const ProgramTask *task, ProgramResult *out) MUST_CHECK;

// Serves tasks on `socket` until it closes, in the languages of the mask (bit 1 << language); never returns.
_Noreturn void program_runner_run(int socket, unsigned languages);

// Runs a task here and now. For the runner, for tests, and for finding out whether it works.
typedef struct ProgramSandbox ProgramSandbox;
ProgramSandbox *program_sandbox_open(void);
void program_sandbox_close(ProgramSandbox *s);
// `watch` (-1: none) is a descriptor whose closing at the other end ends the program: then false.
bool program_sandbox_run(ProgramSandbox *s, const ProgramTask *task, int watch, ProgramResult *out) MUST_CHECK;
// Whether programs in this language can be run here: "" if so, else why not, and what to do. Starts a process.
void program_why_not(ProgramLanguage language, char *why, size_t size);

#endif
