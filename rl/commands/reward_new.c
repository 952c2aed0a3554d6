// reward new NAME: a script to start from, with its cases beside it. It never overwrites.
#include "reward_command.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char script[] =
    "-- What this reward pays for, in a sentence.\n"
    "--\n"
    "-- The file runs anew for each sample: nothing is remembered from one to the next. It returns a function from a sample\n"
    "-- to a finite number, to a table of named numbers (their sum counts), or to nil and the reason to abstain.\n"
    "-- `sample` holds prompt, completion, think, answer, truth, row, tokens, finish, mode and more: reckon reward docs.\n"
    "-- `options` holds the settings from the recipe: rewards = { {\"./NAME.lua\", weight = 0.5, bonus = 0.1} }.\n"
    "local bonus = options.bonus or 0.1\n"
    "\n"
    "return function(sample)\n"
    "  if not sample.truth then return nil, \"the sample has no truth to compare with\" end\n"
    "  local right = verify.equal(sample.answer, sample.truth)\n"
    "  -- A short right answer earns a little more; a wrong one earns nothing, however short.\n"
    "  local short = right and sample.tokens <= 200\n"
    "  return { right = right and 1 or 0, short = short and bonus or 0 }\n"
    "end\n";
static const char cases[] =
    "{\"name\": \"right and short\", \"completion\": \"<think>6*7</think>42\", \"truth\": \"42\", \"tokens\": 12, \"expect\": 1.1}\n"
    "{\"name\": \"right and long\", \"completion\": \"<think>6*7</think>42\", \"truth\": \"42\", \"tokens\": 900, \"expect\": 1}\n"
    "{\"name\": \"wrong\", \"completion\": \"<think>6*7</think>41\", \"truth\": \"42\", \"tokens\": 12, \"expect\": 0}\n"
    "{\"name\": \"the truth in the thinking only\", \"completion\": \"<think>42</think>no idea\", \"truth\": \"42\", \"tokens\": 12, \"expect\": 0}\n"
    "{\"name\": \"no truth\", \"completion\": \"42\", \"expect\": \"abstained\"}\n";

static bool write_new(const char *path, const char *text, const char *name, Err *err) {
    struct stat s;
    Buf out = {0};
    if (lstat(path, &s) == 0) return fail(err, ERR_CANTCREAT, path, "is there already; nothing was written");
    for (const char *p = text, *at; *p; p = at + 4) {
        at = strstr(p, "NAME");
        if (!at) {
            buf_puts(&out, p);
            break;
        }
        buf_append(&out, p, (size_t)(at - p));
        buf_puts(&out, name);
    }
    bool ok = file_write_atomic(path, out.data, out.size, err);
    buf_free(&out);
    return ok;
}

bool reward_new(const Args *args, Err *err) {
    if (args->positional_count != 2) return fail(err, ERR_USAGE, "reward new", "found no name, expected one");
    const char *given = args->positional[1], *slash = strrchr(given, '/');
    size_t size = strlen(given), dot = size > 4 && strcmp(given + size - 4, ".lua") == 0 ? size - 4 : size;
    char *stem = xstrndup(given, dot), *lua = xasprintf("%s.lua", stem), *jsonl = xasprintf("%s.jsonl", stem);
    struct stat s;
    bool ok = stem[0] && stem[strlen(stem) - 1] != '/';
    if (!ok) fail(err, ERR_USAGE, "reward new", "found '%.60s', expected a name", given);
    if (ok && lstat(jsonl, &s) == 0) ok = fail(err, ERR_CANTCREAT, jsonl, "is there already; nothing was written");
    ok = ok && write_new(lua, script, slash ? stem + (slash + 1 - given) : stem, err) && write_new(jsonl, cases, "", err);
    if (ok) printf("wrote %s and %s; try: reckon reward test %s --cases %s\n", lua, jsonl, lua, jsonl);
    free(stem), free(lua), free(jsonl);
    return ok;
}
