// One Lua 5.4 state behind the interpreter's wall: fuel on every instruction and library call, memory, depth and
// output limits, one budget across coroutines, nothing of the system reachable, exhaustion sticky and not catchable.
// Recipes, tasks and rewards all run in it.
#ifndef RECKON_SANDBOX_H
#define RECKON_SANDBOX_H
#include "json.h"

typedef struct SandboxLimits {
    uint64_t fuel;   // VM instructions; library calls charge in proportion to their work
    size_t memory;   // bytes
    int depth;       // C and Lua calls
    size_t output;   // bytes of print kept
    bool bare;       // tests only: all of Lua's own libraries and no budget, to see what the wall around the process holds alone
} SandboxLimits;
SandboxLimits sandbox_default_limits(void);

// Evaluates a script file that returns one table and converts it to JSON: for recipes. Functions in the table become
// {"$function": index}; `names` (NULL-terminated, may be NULL) are constructors put into scope such that
// `grpo{...}` returns its table with "$kind":"grpo" added. Integers stay integers. A table with keys 1..n is an array; one
// with a single positional value and named keys, such as {"correct", weight=2}, is an object whose key "$1" holds that
// value. Other mixed keys, NaN, cycles and values that aren't data are errors with file:line. ERR_DATA for script errors.
// `variables` (may be NULL) is an object that becomes globals.
bool sandbox_eval_file(const char *path, const char *const *names, const json_t *variables, json_t **out,
                       Err *err) MUST_CHECK;

#endif
