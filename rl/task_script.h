// A task as a Lua script: it makes problems, and may check answers. See task_script.c.
#ifndef RECKON_TASK_SCRIPT_H
#define RECKON_TASK_SCRIPT_H
#include "rl.h"

typedef struct TaskScript TaskScript;

// What a script says of itself.
typedef struct TaskAbout {
    char name[64];   // the kind of its items
    char about[128]; // a line for lists
    int levels;      // 1..levels
    bool scores;     // it has a score function of its own; else `correct` serves
    char hash[65];   // SHA-256 of its source
} TaskAbout;

// `script`: the name of a task that comes with reckon, or a path ending in .lua. `options` (may be NULL) becomes the script's
// global of that name. ERR_NOINPUT if there is none, ERR_DATA with script:line for what is wrong in it.
bool task_script_open(const char *script, const json_t *options, TaskScript **out, Err *err) MUST_CHECK;
void task_script_close(TaskScript *t);
const TaskAbout *task_script_about(const TaskScript *t);
int64_t task_script_distinct(const TaskScript *t, int level); // problems that there are, -1 if it doesn't say
// A problem: a function of (script, options, level, seed). What belongs to the item is the arena's. `identity` is the same
// for problems that are to be held out together.
bool task_script_draw(TaskScript *t, int level, uint64_t seed, Arena *arena, Item *out, const char **identity, Err *err) MUST_CHECK;
// The name of task number `index` that comes with reckon as a script; false beyond the last.
bool task_script_shipped(int index, char name[64]);

#endif
