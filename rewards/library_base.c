// The globals: Lua's own where they can do no harm, ours where they could catch the end of a budget (pcall, xpcall,
// coroutine), show an address (tostring, print) or an order that isn't one (pairs, next).
// Left out: load, loadstring, loadfile, dofile, require, collectgarbage, warn, io, os, debug, package.
#include "script.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int library_charged(lua_State *L) {
    uint64_t cost = 2 + (uint64_t)lua_gettop(L) / 8;
    for (int i = lua_gettop(L); i > 0; i--)
        if (lua_type(L, i) == LUA_TSTRING) cost += lua_rawlen(L, i) / 16;
    sandbox_charge(L, cost);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void library_take(lua_State *L, int from, const char *const *names) {
    from = lua_absindex(L, from);
    for (; *names; names++) {
        lua_getfield(L, from, *names);
        if (lua_tocfunction(L, -1)) lua_pushcclosure(L, library_charged, 1);
        lua_setfield(L, -2, *names);
    }
}

// ---- errors ----------------------------------------------------------------------------------------------------
static int finish_pcall(lua_State *L, int status, lua_KContext extra) {
    if (status != LUA_OK && status != LUA_YIELD) {
        sandbox_check_error(L, status);
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    sandbox_charge(L, 0);
    return lua_gettop(L) - (int)extra;
}

static int base_pcall(lua_State *L) {
    luaL_checkany(L, 1);
    sandbox_charge(L, 10);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    return finish_pcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, finish_pcall), 0);
}

// Stands before a script's message handler: the handler never sees the end of a budget.
static int guarded_handler(lua_State *L) {
    lua_settop(L, 1);
    if (sandbox_of(L)->exhausted) return 1;
    sandbox_charge(L, 10);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int base_xpcall(lua_State *L) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    sandbox_charge(L, 10);
    int arguments = lua_gettop(L) - 2;
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, guarded_handler, 1);
    lua_replace(L, 2); // f, handler, arguments...
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2); // f, handler, true, f, arguments...
    return finish_pcall(L, lua_pcallk(L, arguments, LUA_MULTRET, 2, 2, finish_pcall), 2);
}

// ---- text of values ----------------------------------------------------------------------------------------------
const char *library_tostring(lua_State *L, int index, size_t *size) {
    index = lua_absindex(L, index);
    if (luaL_callmeta(L, index, "__tostring")) {
        if (!lua_isstring(L, -1)) luaL_error(L, "'__tostring' must return a string");
        return lua_tolstring(L, -1, size);
    }
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
    case LUA_TSTRING:
        lua_pushvalue(L, index);
        return lua_tolstring(L, -1, size);
    case LUA_TBOOLEAN: lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false"); break;
    case LUA_TLIGHTUSERDATA: lua_pushstring(L, "null"); break;
    default: lua_pushstring(L, luaL_typename(L, index)); break;
    }
    return lua_tolstring(L, -1, size);
}
enum { SHOWN_FIELDS = 8 };
static void describe_inside(lua_State *L, char *out, size_t size) { // the value on top, in a table's preview
    switch (lua_type(L, -1)) {
    case LUA_TSTRING: snprintf(out, size, "'%.24s'", lua_tostring(L, -1)); break;
    case LUA_TNUMBER: snprintf(out, size, lua_isinteger(L, -1) ? "%.0f" : "%.6g", lua_tonumber(L, -1)); break;
    case LUA_TBOOLEAN: snprintf(out, size, "%s", lua_toboolean(L, -1) ? "true" : "false"); break;
    case LUA_TTABLE: snprintf(out, size, "{..}"); break;
    default: snprintf(out, size, "%s", luaL_typename(L, -1)); break;
    }
}

static int compare_fields(const void *a, const void *b) { return strcmp(a, b); }

// A small table's fields in the order of their names; of a larger one nothing, for which of them come first isn't known.
static void describe_table(lua_State *L, int index, char *out, size_t size) {
    char fields[SHOWN_FIELDS][64];
    int count = 0, used = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        char value[40];
        if (count == SHOWN_FIELDS) {
            lua_pop(L, 2);
            snprintf(out, size, "a table");
            return;
        }
        describe_inside(L, value, sizeof value);
        if (lua_type(L, -2) == LUA_TSTRING) snprintf(fields[count++], sizeof fields[0], "%.20s = %s", lua_tostring(L, -2), value);
        else if (lua_isinteger(L, -2)) snprintf(fields[count++], sizeof fields[0], "[%.0f] = %s", lua_tonumber(L, -2), value);
        else snprintf(fields[count++], sizeof fields[0], "[%s] = %s", luaL_typename(L, -2), value);
    }
    qsort(fields, (size_t)count, sizeof fields[0], compare_fields);
    used = snprintf(out, size, "a table ({");
    for (int i = 0; i < count && (size_t)used < size; i++) used += snprintf(out + used, size - (size_t)used, "%s%s", i ? ", " : "", fields[i]);
    if ((size_t)used < size) snprintf(out + used, size - (size_t)used, "})");
}

void value_describe(lua_State *L, int index, char *out, size_t size) {
    index = lua_absindex(L, index);
    switch (lua_type(L, index)) {
    case LUA_TSTRING: snprintf(out, size, "a string ('%.60s')", lua_tostring(L, index)); break;
    case LUA_TNUMBER: snprintf(out, size, "a number (%.14g)", lua_tonumber(L, index)); break;
    case LUA_TBOOLEAN: snprintf(out, size, "a boolean (%s)", lua_toboolean(L, index) ? "true" : "false"); break;
    case LUA_TTABLE:
        if (lua_checkstack(L, 4)) describe_table(L, index, out, size);
        else snprintf(out, size, "a table");
        break;
    default: snprintf(out, size, "a %s", luaL_typename(L, index)); break;
    }
}
static int base_tostring(lua_State *L) {
    luaL_checkany(L, 1);
    sandbox_charge(L, 1);
    library_tostring(L, 1, NULL);
    return 1;
}

static int base_print(lua_State *L) {
    Sandbox *box = sandbox_of(L);
    int n = lua_gettop(L);
    for (int i = 1; i <= n; i++) {
        size_t size, room;
        const char *text = library_tostring(L, i, &size);
        sandbox_charge(L, 1 + size / 16);
        room = box->limits.output > box->output.size ? box->limits.output - box->output.size : 0;
        buf_append(&box->output, text, size < room ? size : room);
        if (room > size) buf_append(&box->output, i < n ? "\t" : "\n", 1);
        lua_pop(L, 1);
    }
    return 0;
}

// ---- ordered traversal -------------------------------------------------------------------------------------------
// Numbers ascending, then strings by their bytes, then false, true, then tables and functions in the order in which
// their memory was given out, which a fresh state repeats from run to run.
typedef struct Key {
    int kind; // 0 number, 1 string, 2 boolean, 3 other
    bool integer;
    lua_Integer i;
    lua_Number n;
    const char *s;
    size_t size;
    uintptr_t place;
    lua_Integer index; // in the array of keys
} Key;

static Key read_key(lua_State *L, int index) {
    Key k = {0};
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        k.integer = lua_isinteger(L, index);
        k.i = lua_tointeger(L, index);
        k.n = lua_tonumber(L, index);
        break;
    case LUA_TSTRING:
        k.kind = 1;
        k.s = lua_tolstring(L, index, &k.size);
        break;
    case LUA_TBOOLEAN:
        k.kind = 2;
        k.i = lua_toboolean(L, index);
        break;
    default:
        k.kind = 3;
        k.place = (uintptr_t)lua_topointer(L, index);
    }
    return k;
}

static int compare_keys(const Key *a, const Key *b) {
    if (a->kind != b->kind) return a->kind - b->kind;
    if (a->kind == 0 && !(a->integer && b->integer)) return (a->n > b->n) - (a->n < b->n);
    if (a->kind == 3) return (a->place > b->place) - (a->place < b->place);
    if (a->kind != 1) return (a->i > b->i) - (a->i < b->i);
    int c = memcmp(a->s, b->s, a->size < b->size ? a->size : b->size);
    return c ? c : (a->size > b->size) - (a->size < b->size);
}

static void sift_down(Key *keys, size_t root, size_t count) {
    Key moving = keys[root];
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare_keys(&keys[child], &keys[child + 1]) < 0) child++;
        if (compare_keys(&moving, &keys[child]) >= 0) break;
        keys[root] = keys[child];
    }
    keys[root] = moving;
}

static void sort_keys(Key *keys, size_t count) { // heap sort: no memory, no bad case
    for (size_t i = count / 2; i-- > 0;) sift_down(keys, i, count);
    for (size_t end = count; end-- > 1;) {
        Key top = keys[0];
        keys[0] = keys[end];
        keys[end] = top;
        sift_down(keys, 0, end);
    }
}

lua_Integer library_ordered_keys(lua_State *L, int index) {
    index = lua_absindex(L, index);
    luaL_checkstack(L, 6, NULL);
    lua_Integer count = 0;
    bool sorted = true;
    Key last = {0};
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, index);) {
        Key k = read_key(L, -2);
        if (count && compare_keys(&last, &k) > 0) sorted = false;
        last = k;
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, ++count);
        sandbox_charge(L, 8);
    }
    // For sorting, the same whether or not they happen to lie in order.
    if (count > 1) sandbox_charge(L, (uint64_t)count * (uint64_t)(64 - __builtin_clzll((unsigned long long)count)) / 2);
    if (sorted) return count;
    Key *keys = lua_newuserdatauv(L, (size_t)count * sizeof *keys, 0); // strings in it are held by the array
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(L, -2, i + 1);
        keys[i] = read_key(L, -1);
        keys[i].index = i + 1;
        lua_pop(L, 1);
    }
    sort_keys(keys, (size_t)count);
    lua_createtable(L, (int)count, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(L, -3, keys[i].index);
        lua_rawseti(L, -2, i + 1);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
    return count;
}

static int pairs_step(lua_State *L) { // upvalues: table, its keys, position
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(3));
    for (;;) {
        sandbox_charge(L, 1);
        if (lua_rawgeti(L, lua_upvalueindex(2), ++i) == LUA_TNIL) return 1;
        lua_pushvalue(L, -1);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) break; // nil: removed since pairs was called
        lua_pop(L, 2);
    }
    lua_pushinteger(L, i);
    lua_replace(L, lua_upvalueindex(3));
    return 2;
}

static int finish_pairs(lua_State *L, int status, lua_KContext context) {
    (void)L, (void)status, (void)context;
    return 3;
}
static int base_pairs(lua_State *L) {
    luaL_checkany(L, 1);
    if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
        lua_pushvalue(L, 1);
        lua_callk(L, 1, 3, 0, finish_pairs);
        return 3;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushvalue(L, 1);
    library_ordered_keys(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, pairs_step, 3);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

// The least key above the given one. Linear: `pairs` is the way to walk a large table.
static int base_next(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    bool start = lua_isnil(L, 2), found = false;
    Key after = {0}, best = {0};
    if (!start) after = read_key(L, 2);
    lua_pushnil(L); // 3: the best key, kept alive
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        Key k = read_key(L, -2);
        sandbox_charge(L, 1);
        if ((!start && compare_keys(&k, &after) <= 0) || (found && compare_keys(&k, &best) >= 0)) continue;
        found = true;
        best = k;
        lua_pushvalue(L, -2);
        lua_replace(L, 3);
    }
    lua_settop(L, 3);
    if (!found) return 1;
    lua_pushvalue(L, 3);
    lua_rawget(L, 1);
    return 2;
}

// A script can still write __mode into a metatable afterwards; then only its own scores depend on the collector.
static int base_setmetatable(lua_State *L) {
    int t = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
    if (t == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "finalizers (__gc) aren't available to scripts");
        lua_pushliteral(L, "__mode");
        if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "weak tables (__mode) aren't available to scripts");
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

// ---- coroutines ----------------------------------------------------------------------------------------------------
// A coroutine counts its own instructions towards the next hook; each resume pays for a whole interval, so that many
// short coroutines aren't free. `close` is left out: it runs handlers on a fresh count of C calls.
enum { RESUME_COST = 100 };

static lua_State *check_coroutine(lua_State *L) {
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co, 1, "coroutine");
    return co;
}

// Leaves the results, or the error, on L. Returns the number of results, -1 on an error.
static int resume(lua_State *L, lua_State *co, int arguments) {
    int count;
    sandbox_charge(L, RESUME_COST);
    if (!lua_checkstack(co, arguments)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, arguments);
    int status = lua_resume(co, L, arguments, &count);
    if (status == LUA_OK || status == LUA_YIELD) {
        sandbox_charge(L, 0);
        if (!lua_checkstack(L, count + 1)) {
            lua_pop(co, count);
            lua_pushliteral(L, "too many results to resume");
            return -1;
        }
        lua_xmove(co, L, count);
        return count;
    }
    lua_xmove(co, L, 1);
    sandbox_check_error(L, status);
    return -1;
}

static int coroutine_create(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    sandbox_charge(L, RESUME_COST);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}
static int coroutine_resume(lua_State *L) {
    lua_State *co = check_coroutine(L);
    int count = resume(L, co, lua_gettop(L) - 1);
    lua_pushboolean(L, count >= 0);
    lua_insert(L, count < 0 ? -2 : -(count + 1));
    return count < 0 ? 2 : count + 1;
}
static int wrap_step(lua_State *L) {
    int count = resume(L, lua_tothread(L, lua_upvalueindex(1)), lua_gettop(L));
    return count < 0 ? lua_error(L) : count;
}
static int coroutine_wrap(lua_State *L) {
    coroutine_create(L);
    lua_pushcclosure(L, wrap_step, 1);
    return 1;
}
static int coroutine_yield(lua_State *L) { return lua_yield(L, lua_gettop(L)); }
static int coroutine_isyieldable(lua_State *L) {
    lua_pushboolean(L, lua_isyieldable(L));
    return 1;
}
static int coroutine_running(lua_State *L) {
    lua_pushboolean(L, lua_pushthread(L));
    return 2;
}
static int coroutine_status(lua_State *L) {
    lua_State *co = check_coroutine(L);
    lua_Debug ar;
    const char *status = "dead";
    if (co == L)
        status = "running";
    else if (lua_status(co) == LUA_YIELD)
        status = "suspended";
    else if (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar))
        status = "normal"; // it resumed another
    else if (lua_status(co) == LUA_OK && lua_gettop(co) > 0)
        status = "suspended"; // not started
    lua_pushstring(L, status);
    return 1;
}

void library_base(lua_State *L) {
    static const char *const taken[] = {"assert", "error",  "getmetatable", "ipairs", "rawequal", "rawget", "rawlen",
                                        "rawset", "select", "tonumber",     "type",   NULL};
    static const luaL_Reg own[] = {{"pcall", base_pcall}, {"xpcall", base_xpcall},
                                   {"tostring", base_tostring}, {"print", base_print},
                                   {"pairs", base_pairs}, {"next", base_next},
                                   {"setmetatable", base_setmetatable}, {NULL, NULL}};
    static const luaL_Reg coroutines[] = {{"create", coroutine_create}, {"resume", coroutine_resume},
                                          {"wrap", coroutine_wrap}, {"yield", coroutine_yield},
                                          {"isyieldable", coroutine_isyieldable}, {"running", coroutine_running},
                                          {"status", coroutine_status}, {NULL, NULL}};
    lua_pushcfunction(L, luaopen_base); // fills the globals; they are emptied into a fresh table
    lua_call(L, 0, 1);
    lua_newtable(L);
    library_take(L, -2, taken);
    luaL_setfuncs(L, own, 0);
    lua_pushliteral(L, "Lua 5.4");
    lua_setfield(L, -2, "_VERSION");
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "_G");
    luaL_newlib(L, coroutines);
    lua_setfield(L, -2, "coroutine");
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pop(L, 1);
}
