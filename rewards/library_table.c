// table: our own, so that every element moved is paid for, whatever a `__len` or `__index` claims, and the order of
// a sort doesn't depend on luck: it is a stable merge sort with a bounded number of comparisons.
#include "script.h"
#include <stdint.h>

static lua_Integer length(lua_State *L, int index) {
    sandbox_charge(L, 1);
    return luaL_len(L, index);
}
static void move_element(lua_State *L, int from, lua_Integer i, int to, lua_Integer j) {
    sandbox_charge(L, 4);
    lua_geti(L, from, i);
    lua_seti(L, to, j);
}

static int table_insert(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer n = length(L, 1);
    lua_Integer end = (lua_Integer)((lua_Unsigned)n + 1), position = end;
    if (lua_gettop(L) == 3) {
        position = luaL_checkinteger(L, 2);
        luaL_argcheck(L, (lua_Unsigned)position - 1u < (lua_Unsigned)end, 2, "position out of bounds");
        for (lua_Integer i = end; i > position; i--) move_element(L, 1, i - 1, 1, i);
    } else if (lua_gettop(L) != 2) {
        return luaL_error(L, "wrong number of arguments to 'insert'");
    }
    lua_seti(L, 1, position);
    return 0;
}

static int table_remove(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_Integer n = length(L, 1), position = luaL_optinteger(L, 2, n);
    if (!lua_isnoneornil(L, 2)) // n + 1 is fine too
        luaL_argcheck(L, (lua_Unsigned)position - 1u <= (lua_Unsigned)n, 2, "position out of bounds");
    lua_geti(L, 1, position);
    for (; position < n; position++) move_element(L, 1, position + 1, 1, position);
    lua_pushnil(L);
    lua_seti(L, 1, position);
    return 1;
}

static int table_move(lua_State *L) {
    lua_Integer from = luaL_checkinteger(L, 2), end = luaL_checkinteger(L, 3), to = luaL_checkinteger(L, 4);
    int target = lua_isnoneornil(L, 5) ? 1 : 5;
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, target, LUA_TTABLE);
    if (end >= from) {
        luaL_argcheck(L, from > 0 || end < LUA_MAXINTEGER + from, 3, "too many elements to move");
        lua_Integer n = end - from + 1;
        luaL_argcheck(L, to <= LUA_MAXINTEGER - n + 1, 4, "destination wrap around");
        if (to > end || to <= from || (target != 1 && !lua_compare(L, 1, target, LUA_OPEQ)))
            for (lua_Integer i = 0; i < n; i++) move_element(L, 1, from + i, target, to + i);
        else
            for (lua_Integer i = n - 1; i >= 0; i--) move_element(L, 1, from + i, target, to + i);
    }
    lua_pushvalue(L, target);
    return 1;
}

static int table_concat(lua_State *L) {
    luaL_Buffer b;
    size_t separator_size;
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *separator = luaL_optlstring(L, 2, "", &separator_size);
    lua_Integer i = luaL_optinteger(L, 3, 1), last = lua_isnoneornil(L, 4) ? length(L, 1) : luaL_checkinteger(L, 4);
    luaL_buffinit(L, &b);
    for (; i <= last; i++) {
        lua_geti(L, 1, i);
        if (!lua_isstring(L, -1))
            return luaL_error(L, "invalid value (a %s) at index %I in table for 'concat'", luaL_typename(L, -1), i);
        sandbox_charge(L, 1 + (lua_rawlen(L, -1) + separator_size) / 32);
        luaL_addvalue(&b);
        if (i == last) break; // before i could overflow
        luaL_addlstring(&b, separator, separator_size);
    }
    luaL_pushresult(&b);
    return 1;
}

static int table_pack(lua_State *L) {
    int n = lua_gettop(L);
    sandbox_charge(L, (uint64_t)n);
    lua_createtable(L, n, 1);
    lua_insert(L, 1);
    for (int i = n; i >= 1; i--) lua_seti(L, 1, i);
    lua_pushinteger(L, n);
    lua_setfield(L, 1, "n");
    return 1;
}

static int table_unpack(lua_State *L) {
    lua_Integer i = luaL_optinteger(L, 2, 1), last = lua_isnoneornil(L, 3) ? length(L, 1) : luaL_checkinteger(L, 3);
    if (i > last) return 0;
    lua_Unsigned n = (lua_Unsigned)last - (lua_Unsigned)i;
    if (n >= 100000 || !lua_checkstack(L, (int)(n + 1))) return luaL_error(L, "too many results to unpack");
    sandbox_charge(L, n);
    for (lua_Unsigned k = 0; k <= n; k++) lua_geti(L, 1, (lua_Integer)((lua_Unsigned)i + k));
    return (int)n + 1;
}

// ---- sort ----------------------------------------------------------------------------------------------------------
// Stack: 1 the table, 2 the order function or nil, 3 and 4 two arrays of the elements.
static bool less(lua_State *L, int array, lua_Integer i, lua_Integer j) { // element i < element j
    bool result;
    sandbox_charge(L, 4);
    if (lua_isnil(L, 2)) {
        lua_rawgeti(L, array, i);
        lua_rawgeti(L, array, j);
        result = lua_compare(L, -2, -1, LUA_OPLT);
        lua_pop(L, 2);
        return result;
    }
    lua_pushvalue(L, 2);
    lua_rawgeti(L, array, i);
    lua_rawgeti(L, array, j);
    lua_call(L, 2, 1);
    result = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return result;
}

static void merge(lua_State *L, int from, int to, lua_Integer low, lua_Integer middle, lua_Integer high) {
    lua_Integer a = low, b = middle;
    for (lua_Integer k = low; k < high; k++) {
        bool take_b = a >= middle || (b < high && less(L, from, b, a));
        lua_rawgeti(L, from, take_b ? b++ : a++);
        lua_rawseti(L, to, k);
        sandbox_charge(L, 1);
    }
}

static int table_sort(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    lua_Integer n = length(L, 1);
    if (n < 2) return 0;
    luaL_argcheck(L, n < INT32_MAX, 1, "array too big");
    lua_newtable(L);
    lua_newtable(L);
    for (lua_Integer i = 1; i <= n; i++) {
        sandbox_charge(L, 1);
        lua_geti(L, 1, i);
        lua_rawseti(L, 3, i);
    }
    int from = 3, to = 4;
    for (lua_Integer width = 1; width < n; width *= 2) {
        for (lua_Integer low = 1; low <= n; low += 2 * width) {
            lua_Integer middle = low + width <= n ? low + width : n + 1;
            merge(L, from, to, low, middle, middle + width <= n ? middle + width : n + 1);
        }
        from = 7 - from, to = 7 - to;
    }
    // An order function that contradicts itself would have no end in other implementations; here it ends the run.
    for (lua_Integer i = 1; i < n; i++)
        if (less(L, from, i + 1, i)) sandbox_exhaust(L, EXHAUSTED_ORDER);
    for (lua_Integer i = 1; i <= n; i++) {
        sandbox_charge(L, 1);
        lua_rawgeti(L, from, i);
        lua_seti(L, 1, i);
    }
    return 0;
}

void library_table(lua_State *L) {
    static const luaL_Reg own[] = {{"insert", table_insert}, {"remove", table_remove}, {"move", table_move},
                                   {"concat", table_concat}, {"pack", table_pack},     {"unpack", table_unpack},
                                   {"sort", table_sort},     {NULL, NULL}};
    luaL_newlib(L, own);
    lua_setglobal(L, "table");
}
