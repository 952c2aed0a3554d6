// One Lua state with a budget. It owns the state's memory, its fuel, and the rule that nothing comes after the end:
//
//  - Every 100 instructions a hook takes fuel, on the main state and on every coroutine, from one account. Library
//    functions charge for their work, the allocator for the bytes of long strings, so that `..` is no cheaper than a
//    loop. The longest string made makes instructions dearer, because comparing two long strings is one instruction.
//    Other memory handed out is charged to an account of its own, as large as the fuel: when a table grows depends on
//    the seed of Lua's hashes, which changes from process to process, and fuel must not.
//    Charges are set so that a unit is worth about 10 ns, at most 200 ns: the default fuel ends before the clock does.
//  - Once the account is empty `exhausted` is set, hooks fire at every instruction, and pcall, xpcall, resume and
//    wrap raise again. Memory, call depth and an order function that contradicts itself end a run in the same way.
//  - A state is frozen after loading; each run starts by copying the frozen bytes back. A script can leave nothing
//    behind, not even the phase of the garbage collector, so no result depends on what ran before.
//  - There are no finalizers (setmetatable refuses __gc: they would run with hooks off) and no weak tables (__mode:
//    they show when the collector ran), no bytecode, no `load`, and nothing of the system. The process around it is the other wall: worker.c.
//
// Not exact across machines: the operator `^`, which is libm's pow inside of Lua's own virtual machine.
#include "script.h"
#include "files.h"
#include "memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOOK_INTERVAL = 100, LONG_STRING = 16384, HUGE_STRING = 262144, FREE_STRING = 128, SCRIPT_LIMIT = 1 << 20 };
static const uint64_t UNLIMITED = UINT64_MAX;

SandboxLimits sandbox_default_limits(void) {
    return (SandboxLimits){.fuel = 50000000, .memory = (size_t)64 << 20, .depth = 1000, .output = 16384};
}

// ---- budget --------------------------------------------------------------------------------------------------
static void *allocate(void *context, void *block, size_t old_size, size_t new_size) {
    Sandbox *box = context;
    bool string = !block && old_size == LUA_TSTRING; // for a new block Lua passes its kind where its size would be
    if (!block) old_size = 0;
    if (string && new_size > box->longest_string) box->longest_string = new_size;
    // Short strings are shared, so whether one is made anew depends on the collector: they are free.
    if (new_size > old_size && !(string && new_size <= FREE_STRING)) {
        uint64_t *account = string ? &box->fuel_left : &box->growth_left, cost = new_size / 64;
        *account -= cost < *account ? cost : *account;
        // The hook raises soon; until then nothing large may be made.
        if (*account == 0 && new_size > 65536) return NULL;
    }
    return memory_realloc(box->memory, block, old_size, new_size);
}

static void tick(lua_State *L, lua_Debug *ar) {
    Sandbox *box = sandbox_of(L);
    lua_Debug deepest;
    uint64_t cost = HOOK_INTERVAL;
    if (box->longest_string > LONG_STRING) cost += (box->longest_string - LONG_STRING) / 128;
    if (box->longest_string > HUGE_STRING) cost += (box->longest_string - HUGE_STRING) / 32;
    (void)ar;
    sandbox_charge(L, cost);
    if (box->growth_left == 0) sandbox_exhaust(L, EXHAUSTED_FUEL);
    if (lua_getstack(L, box->limits.depth, &deepest)) sandbox_exhaust(L, EXHAUSTED_DEPTH);
}

// The innermost line of the script itself, as "name:line: ".
static int where(lua_State *L, char *out, size_t size) {
    lua_Debug ar;
    for (int level = 0; level < 20 && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline > 0) return snprintf(out, size, "%s:%d: ", ar.short_src, ar.currentline);
    }
    return 0;
}

_Noreturn static void raise(lua_State *L) {
    Sandbox *box = sandbox_of(L);
    lua_sethook(L, tick, LUA_MASKCOUNT, 1);
    lua_pushlightuserdata(L, box); // raising must not need memory
    lua_error(L);
    __builtin_unreachable();
}

_Noreturn void sandbox_exhaust(lua_State *L, Exhausted what) {
    Sandbox *box = sandbox_of(L);
    if (!box->exhausted) {
        int n = where(L, box->why, sizeof box->why);
        char *out = box->why + n;
        size_t size = sizeof box->why - (size_t)n;
        box->exhausted = what;
        if (what == EXHAUSTED_FUEL)
            snprintf(out, size, "out of fuel (the limit is %llu instructions)", (unsigned long long)box->limits.fuel);
        else if (what == EXHAUSTED_MEMORY)
            snprintf(out, size, "out of memory (the limit is %zu bytes)", box->limits.memory);
        else if (what == EXHAUSTED_DEPTH)
            snprintf(out, size, "calls nested too deeply (the limit is %d)", box->limits.depth);
        else
            snprintf(out, size, "invalid order function for sorting");
    }
    raise(L);
}

void sandbox_charge(lua_State *L, uint64_t amount) {
    Sandbox *box = sandbox_of(L);
    if (box->exhausted) raise(L);
    if (amount >= box->fuel_left) {
        box->fuel_left = 0;
        sandbox_exhaust(L, EXHAUSTED_FUEL);
    }
    box->fuel_left -= amount;
}

// Lua reports some ends of memory and stack as plain strings. A script that raises such a string itself only ends
// its own run.
static Exhausted read_end(lua_State *L, int status) {
    if (status == LUA_ERRMEM) return EXHAUSTED_MEMORY;
    if (status == LUA_ERRERR) return EXHAUSTED_DEPTH;
    if (lua_type(L, -1) != LUA_TSTRING) return EXHAUSTED_NOT;
    const char *text = lua_tostring(L, -1);
    if (strstr(text, "stack overflow")) return EXHAUSTED_DEPTH;
    if (strstr(text, "not enough memory") || strstr(text, "block too big")) return EXHAUSTED_MEMORY;
    return EXHAUSTED_NOT;
}
void sandbox_check_error(lua_State *L, int status) {
    Sandbox *box = sandbox_of(L);
    if (box->exhausted) raise(L);
    if (box->fuel_left == 0 || box->growth_left == 0) sandbox_exhaust(L, EXHAUSTED_FUEL);
    Exhausted end = read_end(L, status);
    if (end) sandbox_exhaust(L, end);
}

// ---- the state -----------------------------------------------------------------------------------------------
static int fill(lua_State *L) {
    library_base(L);
    library_string(L);
    library_table(L);
    library_math(L);
    library_json(L);
    library_text(L);
    library_answers(L);
    library_run(L);
    library_re(L);
    return 0;
}

static int fill_bare(lua_State *L) {
    luaL_openlibs(L);
    library_json(L);
    library_text(L);
    library_answers(L);
    library_run(L);
    library_re(L);
    return 0;
}

// Notes which lines of the script led to an error: those above the one that the message names. Our own frames are C
// and have no line. It needs no memory of the state's.
static int note_callers(lua_State *L) {
    Sandbox *box = sandbox_of(L);
    lua_Debug ar;
    size_t used = 0;
    int found = 0;
    box->callers[0] = 0;
    for (int level = 1; lua_type(L, 1) == LUA_TSTRING && found < 6 && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline <= 0 || found++ == 0) continue;
        used += (size_t)snprintf(box->callers + used, sizeof box->callers - used, "%s%d", used ? ", " : " (called from line ", ar.currentline);
        if (used + 16 > sizeof box->callers) break;
    }
    if (used) snprintf(box->callers + used, sizeof box->callers - used, ")");
    return 1;
}

bool sandbox_protect(Sandbox *box, lua_CFunction body, void *context, char *message, size_t message_size) {
    lua_State *L = box->L;
    int top = lua_gettop(L);
    message[0] = 0;
    box->callers[0] = 0;
    lua_pushcfunction(L, note_callers); // light functions: pushing them and the pointer needs no memory
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, context);
    int status = lua_pcall(L, 1, 0, top + 1);
    if (status == LUA_OK && !box->exhausted) {
        lua_remove(L, top + 1);
        return true;
    }
    if (status != LUA_OK && !box->exhausted) {
        Exhausted end = box->fuel_left == 0 || box->growth_left == 0 ? EXHAUSTED_FUEL : read_end(L, status);
        if (end) {
            box->exhausted = end;
            snprintf(box->why, sizeof box->why, "%s: %s", box->name,
                     end == EXHAUSTED_FUEL     ? "out of fuel"
                     : end == EXHAUSTED_MEMORY ? "out of memory"
                                               : "calls nested too deeply");
        }
    }
    if (box->exhausted)
        snprintf(message, message_size, "%s", box->why);
    else if (lua_type(L, -1) == LUA_TSTRING)
        snprintf(message, message_size, "%s%s", lua_tostring(L, -1), box->callers);
    else if (lua_type(L, -1) == LUA_TNUMBER)
        snprintf(message, message_size, "error value %.14g", lua_tonumber(L, -1));
    else {
        char what[160];
        value_describe(L, -1, what, sizeof what);
        snprintf(message, message_size, "error object is %s", what);
    }
    lua_settop(L, top);
    return false;
}

static int set_options(lua_State *L) {
    const json_t *options = lua_touserdata(L, 1);
    if (options)
        value_push(L, options);
    else
        lua_newtable(L);
    lua_setglobal(L, "options");
    return 0;
}
bool sandbox_options(Sandbox *box, const json_t *options, char *message, size_t message_size) {
    return sandbox_protect(box, set_options, (void *)(uintptr_t)options, message, message_size);
}

bool sandbox_open(const char *name, const SandboxLimits *limits, Sandbox **out, Err *err) {
    *out = NULL;
    Sandbox *box = xcalloc(1, sizeof *box);
    box->limits = *limits;
    box->program_socket = -1;
    box->fuel_left = box->growth_left = UNLIMITED;
    box->name = xstrdup(name);
    if (!memory_open(limits->memory, &box->memory, err)) {
        sandbox_close(box);
        return false;
    }
    char message[256];
    box->L = lua_newstate(allocate, box);
    if (box->L) {
        *(Sandbox **)lua_getextraspace(box->L) = box;
        if (limits->bare) memory_unlimit(box->memory);
        if (sandbox_protect(box, limits->bare ? fill_bare : fill, NULL, message, sizeof message)) {
            if (!limits->bare) lua_sethook(box->L, tick, LUA_MASKCOUNT, HOOK_INTERVAL);
            *out = box;
            return true;
        }
    }
    fail(err, ERR_DATA, name, "a memory limit of %zu bytes is too small for a Lua state", limits->memory);
    sandbox_close(box);
    return false;
}

void sandbox_close(Sandbox *box) {
    if (!box) return;
    memory_close(box->memory); // the state lies in it and owns nothing else
    expressions_free(box->expressions);
    buf_free(&box->output);
    free(box->snapshot);
    free(box->name);
    free(box);
}

static int compile(lua_State *L) {
    const struct { const char *source; size_t size; const char *name; } *c = lua_touserdata(L, 1);
    lua_pushfstring(L, "@%s", c->name);
    if (luaL_loadbufferx(L, c->source, c->size, lua_tostring(L, -1), "t") != LUA_OK) return lua_error(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "chunk");
    return 0;
}

// Splits "name:line: message" into the place, with the script's path, and the rest.
static bool script_error(const Sandbox *box, const char *path, const char *message, Err *err) {
    size_t n = strlen(box->name);
    char place[256];
    long line;
    int used = 0;
    if (strncmp(message, box->name, n) == 0 && sscanf(message + n, ":%ld: %n", &line, &used) == 1 && used) {
        snprintf(place, sizeof place, "%.200s:%ld", path, line);
        return fail(err, ERR_DATA, place, "%s", message + n + used);
    }
    return fail(err, ERR_DATA, path, "%s", message);
}

bool sandbox_load(Sandbox *box, const char *source, size_t size, const char *path, Err *err) {
    char message[512];
    size_t skip = size >= 3 && memcmp(source, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    struct { const char *source; size_t size; const char *name; } c = {source + skip, size - skip, box->name};
    if (sandbox_protect(box, compile, &c, message, sizeof message)) return true;
    return script_error(box, path, message, err);
}

void sandbox_push_chunk(Sandbox *box) { lua_getfield(box->L, LUA_REGISTRYINDEX, "chunk"); }

void sandbox_freeze(Sandbox *box) {
    lua_gc(box->L, LUA_GCCOLLECT);
    box->snapshot = memory_snapshot(box->memory, &box->snapshot_size);
}

void sandbox_reset(Sandbox *box, uint64_t fuel, uint64_t seed) {
    memory_restore(box->memory, box->snapshot, box->snapshot_size);
    box->fuel_left = box->growth_left = box->limits.bare ? UNLIMITED : fuel;
    box->exhausted = EXHAUSTED_NOT;
    box->why[0] = 0;
    box->longest_string = 0;
    box->not_replayable = false;
    box->output.size = 0;
    box->random = random_start(seed, STREAM_SCRIPT, box->substream);
}

// ---- a file that returns a table -----------------------------------------------------------------------------
typedef struct FileRun {
    Sandbox *box;
    const char *const *names;
    const json_t *variables;
    json_t *result;
    char message[512]; // of the conversion
} FileRun;

// Constructor: `grpo{...}` is its table with "$kind" set.
static int construct(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_setfield(L, 1, "$kind");
    return 1;
}

static int add_scope(lua_State *L) {
    FileRun *run = lua_touserdata(L, 1);
    for (int i = 0; run->names && run->names[i]; i++) {
        lua_pushstring(L, run->names[i]);
        lua_pushcclosure(L, construct, 1);
        lua_setglobal(L, run->names[i]);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)run->variables, key, value) {
        value_push(L, value);
        lua_setglobal(L, key);
    }
    return 0;
}

static int run_file(lua_State *L) {
    FileRun *run = lua_touserdata(L, 1);
    int functions = 0;
    sandbox_push_chunk(run->box);
    lua_call(L, 0, 1);
    if (lua_type(L, -1) != LUA_TTABLE)
        return luaL_error(L, "the script returned %s, expected one table", luaL_typename(L, -1));
    if (!value_to_json(L, -1, &functions, &run->result, run->message, sizeof run->message))
        return luaL_error(L, "%s", run->message);
    return 0;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool sandbox_eval_file(const char *path, const char *const *names, const json_t *variables, json_t **out, Err *err) {
    SandboxLimits limits = sandbox_default_limits();
    Sandbox *box;
    Buf source;
    char message[512];
    *out = NULL;
    TRY(file_read(path, SCRIPT_LIMIT, &source, err));
    FileRun run = {.names = names, .variables = variables};
    bool ok = sandbox_open(base_name(path), &limits, &box, err);
    if (ok) {
        run.box = box;
        ok = sandbox_protect(box, add_scope, &run, message, sizeof message) || fail(err, ERR_DATA, path, "%s", message);
        ok = ok && sandbox_load(box, source.data ? source.data : "", source.size, path, err);
        if (ok) {
            sandbox_freeze(box);
            sandbox_reset(box, limits.fuel, 0);
            ok = sandbox_protect(box, run_file, &run, message, sizeof message) || script_error(box, path, message, err);
            if (box->output.size) log_line(LOG_INFO, "%s: %s", path, box->output.data);
        }
        sandbox_close(box);
    }
    buf_free(&source);
    if (!ok) json_decref(run.result);
    *out = ok ? run.result : NULL;
    return ok;
}
