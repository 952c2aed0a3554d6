// The program: finds the command, parses its options, turns its error into a message and an exit code.
#include "command.h"
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// In the order of the overview.
#define COMMANDS(X)                                                                                          \
    X(train)                                                                                                 \
    X(eval)                                                                                                  \
    X(compare)                                                                                               \
    X(generate)                                                                                              \
    X(chat)                                                                                                  \
    X(score)                                                                                                 \
    X(tokenize)                                                                                              \
    X(reward)                                                                                                \
    X(tasks)                                                                                                 \
    X(recipe)                                                                                                \
    X(calc)                                                                                                  \
    X(inspect)                                                                                               \
    X(export)                                                                                                \
    X(report)                                                                                                \
    X(watch)                                                                                                 \
    X(cost)                                                                                                  \
    X(audit)                                                                                                 \
    X(bench)                                                                                                 \
    X(doctor)
#define DECLARE(name) extern const Command command_##name;
COMMANDS(DECLARE)
#define ROW(name) &command_##name,
static const Command *const commands[] = {COMMANDS(ROW) NULL};

static void print_overview(FILE *out) {
    fprintf(out, "reckon %s: trains small reasoning models with GRPO and says whether the reasoning was worth it\n\n"
                 "usage: reckon COMMAND ...\n\ncommands:\n",
            RECKON_VERSION);
    for (int i = 0; commands[i]; i++) fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\n'reckon COMMAND --help' explains one, with an example.\n");
}

// Products whose bits depend on the batch are there to be measured; nothing that counts may come of them.
static bool environment_check(const Command *c, Err *err) {
    const char *algorithms = getenv("RECKON_CUDA_ALGORITHMS");
    return !algorithms || !*algorithms || c == &command_bench ||
           fail(err, ERR_USAGE, "RECKON_CUDA_ALGORITHMS", "is set, which is for bench only: bits would depend on the batch");
}

int main(int argc, char **argv) {
    mallopt(M_MMAP_THRESHOLD, 4 << 20); // what is as large goes back to the system when it is freed
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a file beyond its limit is an error of the write, told like a full disk
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_overview(argc < 2 ? stderr : stdout);
        return argc < 2 ? ERR_USAGE : 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("reckon %s\n", RECKON_VERSION);
        return 0;
    }
    Err err = {0};
    const char *names[COUNT(commands)] = {0};
    for (int i = 0; commands[i]; i++) {
        names[i] = commands[i]->name;
        if (strcmp(argv[1], names[i]) != 0) continue;
        for (int a = 2; a < argc; a++)
            if (!strcmp(argv[a], "--help") || !strcmp(argv[a], "-h")) {
                command_help(commands[i]);
                return 0;
            }
        Args args = {0};
        bool ok = environment_check(commands[i], &err) && args_parse(commands[i], argc - 2, argv + 2, &args, &err) && commands[i]->run(&args, &err);
        args_free(&args);
        if (ok) return 0;
        if (err.msg[0]) err_print(&err);
        return err.code ? err.code : ERR_SOFTWARE;
    }
    const char *near = nearest_name(argv[1], names);
    fail(&err, ERR_USAGE, "", "unknown command '%.60s'%s%s; see 'reckon --help'", argv[1], near ? ", did you mean " : "",
         near ? near : "");
    err_print(&err);
    return ERR_USAGE;
}
