// run.lua(code, tests, fuel): a Lua program that a model wrote, and tests of it, in a state of their own with a budget
// of their own, which the caller's fuel pays. `tests` is a text or a list of texts; each runs
// after the program, sees its globals, and has libraries that the program can't have replaced. Returns a table: ok (the program ran to its end), passed and total (of the tests),
// error (the first message), fuel. A program that never ends fails its test; only the caller's own budget ends the caller.
#include "script.h"
#include <stdio.h>

enum { MEMORY = 8 << 20, MAX_TESTS = 100, MAX_CODE = 1 << 18 };
static const lua_Integer DEFAULT_FUEL = 1000000;

typedef struct Outcome {
    bool ran;
    int passed;
    uint64_t fuel; // used
    char error[256];
} Outcome;

typedef struct Chunk {
    const char *code, *name;
    size_t size;
    bool clean; // sees the libraries as they were before the program, whatever that made of them
} Chunk;

// A copy of the table on top, and of the tables in it, replaces it.
static void copy_table(lua_State *L, int depth) {
    luaL_checkstack(L, 6, NULL);
    lua_newtable(L); // from, to
    lua_pushnil(L);
    while (lua_next(L, -3)) { // from, to, key, value
        sandbox_charge(L, 2);
        if (depth && lua_istable(L, -1) && !lua_rawequal(L, -1, -4)) copy_table(L, depth - 1);
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    lua_replace(L, -2);
}

// An assert that a program has replaced tests nothing, so tests get libraries of their own and the program's globals
// only where no library has that name.
static int keep_libraries(lua_State *L) {
    lua_pushnil(L); // a program runs no programs: states in states would cost memory without end
    lua_setglobal(L, "run");
    lua_pushglobaltable(L);
    copy_table(L, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "_G");
    lua_newtable(L);
    lua_pushglobaltable(L);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "clean");
    return 0;
}

static int call_chunk(lua_State *L) {
    const Chunk *c = lua_touserdata(L, 1);
    if (luaL_loadbufferx(L, c->code, c->size, c->name, "t") != LUA_OK) return lua_error(L);
    if (c->clean) {
        lua_getfield(L, LUA_REGISTRYINDEX, "clean");
        lua_setupvalue(L, -2, 1);
    }
    lua_call(L, 0, 0);
    return 0;
}

// One test alone: a new state, the program, then the test, so that tests can't lean on each other.
static bool run_once(const char *code, size_t size, const char *test, size_t test_size, uint64_t fuel, Outcome *out) {
    Sandbox *box;
    Err err = {0};
    SandboxLimits limits = sandbox_default_limits();
    char message[200];
    limits.fuel = fuel, limits.memory = MEMORY;
    if (!sandbox_open("program", &limits, &box, &err)) {
        snprintf(out->error, sizeof out->error, "%.200s", err.msg);
        return false;
    }
    Chunk program = {code, "=program", size, false}, check = {test, "=test", test_size, true};
    bool ok = sandbox_protect(box, keep_libraries, NULL, message, sizeof message);
    sandbox_freeze(box);
    sandbox_reset(box, fuel, 0);
    ok = ok && sandbox_protect(box, call_chunk, &program, message, sizeof message);
    out->ran = ok;
    if (ok && test) ok = sandbox_protect(box, call_chunk, &check, message, sizeof message);
    if (!ok && !out->error[0]) snprintf(out->error, sizeof out->error, "%s", message);
    out->fuel += sandbox_fuel_used(box, fuel);
    sandbox_close(box);
    return ok;
}

static int run_lua(lua_State *L) {
    size_t size, test_size;
    const char *code = luaL_checklstring(L, 1, &size);
    lua_Integer fuel = luaL_optinteger(L, 3, DEFAULT_FUEL), total = 0;
    luaL_argcheck(L, fuel >= 1000, 3, "expected at least 1000");
    bool list = lua_istable(L, 2), alone = lua_isnoneornil(L, 2);
    if (!list && !alone) luaL_checkstring(L, 2);
    total = list ? (lua_Integer)lua_rawlen(L, 2) : alone ? 0 : 1;
    luaL_argcheck(L, total <= MAX_TESTS, 2, "more than 100 tests");
    Outcome out = {.ran = false};
    bool fits = size <= MAX_CODE; // what a model writes fails its tests; it never fails the script
    if (!fits) snprintf(out.error, sizeof out.error, "a program of more than 256 KiB");
    for (lua_Integer i = 0; fits && i < (total ? total : 1); i++) {
        sandbox_charge(L, 20000 + size / 4); // making the state
        uint64_t left = sandbox_of(L)->fuel_left, before = out.fuel;
        const char *test = NULL;
        test_size = 0;
        if (list && total) {
            if (lua_rawgeti(L, 2, i + 1) != LUA_TSTRING) return luaL_error(L, "test %d is a %s, expected a text", (int)i + 1, luaL_typename(L, -1));
            test = lua_tolstring(L, -1, &test_size);
        } else if (total) {
            test = lua_tolstring(L, 2, &test_size);
        }
        out.passed += run_once(code, size, test, test_size, (uint64_t)fuel < left ? (uint64_t)fuel : left, &out) && test;
        sandbox_charge(L, out.fuel - before);
        if (list && total) lua_pop(L, 1);
    }
    lua_createtable(L, 0, 5);
    lua_pushboolean(L, out.ran), lua_setfield(L, -2, "ok");
    lua_pushinteger(L, out.passed), lua_setfield(L, -2, "passed");
    lua_pushinteger(L, total), lua_setfield(L, -2, "total");
    lua_pushinteger(L, (lua_Integer)out.fuel), lua_setfield(L, -2, "fuel");
    if (out.error[0]) lua_pushstring(L, out.error), lua_setfield(L, -2, "error");
    return 1;
}

void library_run(lua_State *L) {
    static const luaL_Reg run[] = {{"lua", run_lua}, {"program", library_run_program}, {NULL, NULL}};
    luaL_newlib(L, run);
    lua_setglobal(L, "run");
}
