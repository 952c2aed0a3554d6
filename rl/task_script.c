// Tasks written in Lua. A script returns a table:
//
//   about     a line that says what is asked
//   levels    how many levels of difficulty there are, from 1
//   generate  function(level) -> a table: prompt, truth (a text or a number), demonstration (a chain of thought that ends
//             before the answer; optional), wrong (an answer that isn't one, for `reckon tasks`; optional), row (a table that
//             the checker sees as sample.row; optional), identity (problems with the same one are held out together;
//             optional, else the prompt)
//   distinct  optional: a list by level of how many problems there are, -1 where that isn't known
//   score     optional: function(sample) -> score, as any reward; else the shipped reward `correct` compares with truth
//
// `options` holds what the recipe says beside the task's name. math.random is seeded for each problem, and the script runs
// behind the sandbox's wall from the same bytes each time, so a problem is a function of (script, options, level, seed).
#include "task_script.h"
#include "embedded.h"
#include "files.h"
#include "script.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRIPT_BYTES = 1 << 20, MOST_LEVELS = 100, LONGEST = 1 << 20 };

struct TaskScript {
    Sandbox *box;
    TaskAbout about;
    int64_t distinct[MOST_LEVELS];
};

typedef struct Call {
    TaskScript *task;
    const json_t *options;
    int level;
    Arena *arena;
    Item *item;
    const char *identity;
} Call;

// ---- what a script says of itself ------------------------------------------------------------------------
// Leaves the script's table on top.
static void run_file(lua_State *L, const TaskScript *t) {
    sandbox_push_chunk(t->box);
    lua_call(L, 0, 1);
    if (lua_type(L, -1) != LUA_TTABLE) luaL_error(L, "the script returned %s, expected a table with about, levels and generate", luaL_typename(L, -1));
}
static int field(lua_State *L, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, -2);
}

static int read_about(lua_State *L) {
    TaskScript *t = ((Call *)lua_touserdata(L, 1))->task;
    run_file(L, t);
    if (field(L, "about") != LUA_TSTRING) luaL_error(L, "about is %s, expected a text", luaL_typename(L, -1));
    snprintf(t->about.about, sizeof t->about.about, "%s", lua_tostring(L, -1));
    lua_pop(L, 1);
    field(L, "levels");
    lua_Integer levels = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    if (levels < 1 || levels > MOST_LEVELS) luaL_error(L, "levels is %s, expected an integer from 1 to %d", library_tostring(L, -1, NULL), (int)MOST_LEVELS);
    t->about.levels = (int)levels;
    lua_settop(L, 2);
    if (field(L, "generate") != LUA_TFUNCTION) luaL_error(L, "generate is %s, expected a function", luaL_typename(L, -1));
    lua_pop(L, 1);
    int score = field(L, "score");
    if (score != LUA_TFUNCTION && score != LUA_TNIL) luaL_error(L, "score is %s, expected a function", luaL_typename(L, -1));
    t->about.scores = score == LUA_TFUNCTION;
    lua_pop(L, 1);
    for (int i = 0; i < MOST_LEVELS; i++) t->distinct[i] = -1;
    if (field(L, "distinct") != LUA_TTABLE) return 0;
    for (int i = 0; i < t->about.levels; i++) {
        lua_rawgeti(L, -1, i + 1);
        if (lua_isinteger(L, -1)) t->distinct[i] = lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return 0;
}

// ---- opening ---------------------------------------------------------------------------------------------
static const EmbeddedFile *shipped(int index) {
    for (const EmbeddedFile *f = embedded_files; f->name; f++) {
        size_t n = strlen(f->name);
        bool task = strcmp(f->folder, "tasks") == 0 && n > 4 && strcmp(f->name + n - 4, ".lua") == 0 && strcmp(f->name, "countdown.lua") != 0;
        if (task && index-- == 0) return f;
    }
    return NULL;
}
bool task_script_shipped(int index, char name[64]) {
    const EmbeddedFile *f = shipped(index);
    if (f) snprintf(name, 64, "%.*s", (int)strlen(f->name) - 4, f->name);
    return f != NULL;
}

static bool read_source(const char *script, Buf *out, Err *err) {
    size_t n = strlen(script);
    *out = (Buf){0};
    if (n > 4 && strcmp(script + n - 4, ".lua") == 0) return file_read(script, SCRIPT_BYTES, out, err);
    char name[64];
    for (int i = 0; task_script_shipped(i, name); i++)
        if (strcmp(name, script) == 0) {
            buf_append(out, shipped(i)->data, shipped(i)->size);
            return true;
        }
    return fail(err, ERR_NOINPUT, script, "no such task; `reckon tasks` lists those that come with reckon, one of your own is a path ending in .lua");
}

static void name_of(const char *script, char *out, size_t size) {
    const char *slash = strrchr(script, '/'), *base = slash ? slash + 1 : script, *dot = strrchr(base, '.');
    snprintf(out, size, "%.*s", (int)(dot ? dot - base : (ptrdiff_t)strlen(base)), base);
}

bool task_script_open(const char *script, const json_t *options, TaskScript **out, Err *err) {
    TaskScript *t = xcalloc(1, sizeof *t);
    Buf source;
    char message[256], file[80];
    SandboxLimits limits = sandbox_default_limits();
    name_of(script, t->about.name, sizeof t->about.name);
    snprintf(file, sizeof file, "%s.lua", t->about.name);
    bool ok = read_source(script, &source, err);
    if (ok) {
        sha256_hex(source.data, source.size, t->about.hash);
        ok = sandbox_open(file, &limits, &t->box, err);
    }
    ok = ok && (sandbox_options(t->box, options, message, sizeof message) || fail(err, ERR_DATA, script, "options: %s", message));
    ok = ok && sandbox_load(t->box, source.data ? source.data : "", source.size, script, err);
    buf_free(&source);
    if (ok) {
        Call call = {.task = t};
        sandbox_freeze(t->box);
        sandbox_reset(t->box, limits.fuel, 0);
        ok = sandbox_protect(t->box, read_about, &call, message, sizeof message) || fail(err, ERR_DATA, script, "%s", message);
    }
    if (ok) *out = t;
    else task_script_close(t);
    return ok;
}
void task_script_close(TaskScript *t) {
    if (!t) return;
    sandbox_close(t->box);
    free(t);
}
const TaskAbout *task_script_about(const TaskScript *t) { return &t->about; }
int64_t task_script_distinct(const TaskScript *t, int level) {
    return level >= 1 && level <= t->about.levels ? t->distinct[level - 1] : -1;
}

// ---- problems --------------------------------------------------------------------------------------------
// The text of field `name` of the table on top, in the arena; numbers are written as Lua prints them. NULL where it is nil.
static char *take_text(lua_State *L, const Call *c, const char *name, bool required) {
    int type = field(L, name);
    if (type == LUA_TNIL && !required) {
        lua_pop(L, 1);
        return NULL;
    }
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        luaL_error(L, "level %d: generate gave %s = %s, expected a text%s", c->level, name, luaL_typename(L, -1), required ? "" : " or nil");
    size_t size;
    const char *text = library_tostring(L, -1, &size);
    json_t *valid = size <= LONGEST && !memchr(text, 0, size) ? json_stringn(text, size) : NULL; // NULL: it isn't UTF-8
    json_decref(valid);
    if (!valid) luaL_error(L, "level %d: generate gave a %s that isn't UTF-8 text of at most 1 MiB", c->level, name);
    char *copy = arena_strdup(c->arena, text);
    lua_settop(L, 3);
    return copy;
}
static void release_json(void *value) { json_decref(value); }

static int draw(lua_State *L) {
    Call *c = lua_touserdata(L, 1);
    char message[200];
    run_file(L, c->task);
    field(L, "generate");
    lua_replace(L, 2);
    lua_pushinteger(L, c->level);
    lua_call(L, 1, 1);
    lua_settop(L, 2);
    lua_pushnil(L);
    lua_insert(L, 2); // the problem's table is at 3
    if (lua_type(L, 3) != LUA_TTABLE) luaL_error(L, "level %d: generate returned %s, expected a table", c->level, luaL_typename(L, 3));
    c->item->prompt = take_text(L, c, "prompt", true);
    c->item->truth = take_text(L, c, "truth", true);
    c->item->demonstration = take_text(L, c, "demonstration", false);
    c->item->wrong = take_text(L, c, "wrong", false);
    const char *identity = take_text(L, c, "identity", false);
    c->identity = identity ? identity : c->item->prompt;
    int type = field(L, "row");
    if (type == LUA_TTABLE) {
        if (!value_to_json(L, lua_gettop(L), NULL, &c->item->row, message, sizeof message)) luaL_error(L, "level %d: row: %s", c->level, message);
    } else if (type != LUA_TNIL) {
        luaL_error(L, "level %d: generate gave row = %s, expected a table", c->level, luaL_typename(L, -1));
    }
    return 0;
}

bool task_script_draw(TaskScript *t, int level, uint64_t seed, Arena *arena, Item *out, const char **identity, Err *err) {
    char message[256];
    *out = (Item){.kind = arena_strdup(arena, t->about.name), .level = level};
    Call call = {.task = t, .level = level, .arena = arena, .item = out};
    sandbox_reset(t->box, t->box->limits.fuel, seed);
    bool ok = sandbox_protect(t->box, draw, &call, message, sizeof message);
    if (out->row) arena_defer(arena, release_json, out->row);
    if (!ok) return fail(err, ERR_DATA, t->about.name, "%s", message);
    if (!out->row) {
        out->row = json_object();
        arena_defer(arena, release_json, out->row);
    }
    out->hash = hash64(call.identity, strlen(call.identity));
    *identity = call.identity;
    return true;
}
