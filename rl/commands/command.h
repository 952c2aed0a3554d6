// The commands: one file each, one row each in main.c's table. The option table of a command makes its parser and
// its help, so that they can't disagree. A command returns true, or false with `err` filled (its code is the exit code).
#ifndef RECKON_COMMAND_H
#define RECKON_COMMAND_H
#include "json.h"

typedef enum OptionKind {
    OPTION_FLAG,
    OPTION_INT,
    OPTION_NUMBER,
    OPTION_TEXT,
    OPTION_CHOICE, // `choices`: "fp32|bf16"
    OPTION_LIST,   // may be given several times
} OptionKind;

typedef struct Option {
    const char *name;  // "max-tokens" for --max-tokens
    char letter;       // 'n' for -n, 0 if none
    OptionKind kind;
    const char *value; // what the help shows for it ("N"); for a choice its values separated by '|'
    const char *help;
    double low, high; // inclusive range of numbers where low < high
} Option;

typedef struct Args {
    const struct Command *command;
    const char *values[48]; // per option: its last value, NULL if not given
    const char **lists[48]; // per OPTION_LIST option: NULL-terminated
    const char **positional;
    int positional_count;
} Args;

typedef struct Command {
    const char *name;
    const char *summary;     // one line
    const char *usage;       // "MODEL --ids FILE [options]", what follows the command's name
    const char *detail;      // a paragraph or two; may be NULL
    const char *example;     // a command line, and what it does
    int positional_min, positional_max;
    const Option *options; // ends with a row whose name is NULL
    bool (*run)(const Args *args, Err *err);
} Command;

extern const Option option_json; // --json, for commands that print results
#define OPTION_END {0}
#define OPTION_DEVICE                                                                                        \
    {.name = "device", .kind = OPTION_TEXT, .value = "DEVICE", .help = "cpu, cuda or cuda:N (RECKON_DEVICE, else cpu)"}

bool args_flag(const Args *args, const char *name);
bool args_given(const Args *args, const char *name);
const char *args_text(const Args *args, const char *name, const char *otherwise);
int64_t args_int(const Args *args, const char *name, int64_t otherwise);
double args_number(const Args *args, const char *name, double otherwise);
const char *const *args_list(const Args *args, const char *name); // never NULL

// Parses and checks argv (after the command's name); ERR_USAGE names the option, what was found, what was expected
// and the nearest known option.
bool args_parse(const Command *command, int argc, char **argv, Args *out, Err *err) MUST_CHECK;
void args_free(Args *args);
void command_help(const Command *command);

// Prints one JSON document and a newline on stdout.
bool print_json(const json_t *value, Err *err) MUST_CHECK;

#endif
