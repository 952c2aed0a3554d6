// Values between JSON and Lua, and the library `json`: decode(text) and encode(value), json.null.
// Reading is jansson's, whose memory is outside of the state's limit; so the text is limited instead.
#include "script.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 100, MAX_TEXT = 1 << 20 };

// ---- to Lua ----------------------------------------------------------------------------------------------------------
static void push_null(lua_State *L) { lua_pushlightuserdata(L, NULL); }

static void push_at(lua_State *L, const json_t *value, int depth) {
    if (depth > MAX_DEPTH) luaL_error(L, "JSON nested more than %d deep", MAX_DEPTH);
    luaL_checkstack(L, 4, NULL);
    sandbox_charge(L, 2);
    switch (json_typeof(value)) {
    case JSON_NULL: push_null(L); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(value), json_string_length(value)); break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(value), 0);
        for (size_t i = 0; i < json_array_size(value); i++) {
            push_at(L, json_array_get(value, i), depth + 1);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_OBJECT:
        lua_createtable(L, 0, (int)json_object_size(value));
        json_t *object = (json_t *)(uintptr_t)value; // jansson iterates over mutable objects only
        for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
            if (json_is_null(json_object_iter_value(i))) continue;
            lua_pushlstring(L, json_object_iter_key(i), json_object_iter_key_len(i));
            push_at(L, json_object_iter_value(i), depth + 1);
            lua_rawset(L, -3);
        }
        break;
    }
}
void value_push(lua_State *L, const json_t *value) { push_at(L, value, 1); }

// ---- from Lua --------------------------------------------------------------------------------------------------------
typedef struct Conversion {
    lua_State *L;
    int *functions; // may be NULL
    char *message;
    size_t message_size;
    char path[160]; // of the value at hand, "stages[1].lr"
} Conversion;

static json_t *convert(Conversion *c, int depth);

static json_t *refuse(Conversion *c, const char *what) {
    snprintf(c->message, c->message_size, "%s%s%s", c->path, c->path[0] ? ": " : "", what);
    return NULL;
}

// The table on top has only keys 1..n. (Keys are counted by rawlen, so a hole makes the count differ.)
static json_t *convert_array(Conversion *c, lua_Integer n, int depth) {
    json_t *array = json_array();
    size_t path = strlen(c->path);
    for (lua_Integer i = 1; array && i <= n; i++) {
        snprintf(c->path + path, sizeof c->path - path, "[%lld]", (long long)i);
        lua_rawgeti(c->L, -1, i);
        json_t *item = convert(c, depth + 1);
        lua_pop(c->L, 1);
        if (!item) {
            json_decref(array);
            return NULL;
        }
        json_array_append_new(array, item);
    }
    c->path[path] = 0;
    return array;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// All keys are strings without NUL; they are taken in order, so that the first error is always the same one.
static json_t *convert_object(Conversion *c, size_t n, int depth) {
    json_t *object = json_object();
    size_t path = strlen(c->path), count = 0;
    const char **names = xcalloc(n, sizeof *names);
    for (lua_pushnil(c->L); lua_next(c->L, -2); lua_pop(c->L, 1))
        if (lua_type(c->L, -2) == LUA_TSTRING) names[count++] = lua_tostring(c->L, -2);
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 0; i < count; i++) {
        snprintf(c->path + path, sizeof c->path - path, "%s%s", path ? "." : "", names[i]);
        // Found again by walking: lua_pushstring could raise, and this function holds memory that isn't Lua's.
        for (lua_pushnil(c->L); lua_next(c->L, -2); lua_pop(c->L, 1))
            if (lua_type(c->L, -2) == LUA_TSTRING && lua_tostring(c->L, -2) == names[i]) break;
        lua_remove(c->L, -2);
        json_t *item = convert(c, depth + 1);
        lua_pop(c->L, 1);
        if (!item || json_object_set_new(object, names[i], item) != 0) {
            if (item) refuse(c, "the key isn't valid UTF-8");
            json_decref(object);
            object = NULL;
            break;
        }
    }
    if (object) c->path[path] = 0;
    free(names);
    return object;
}

// {"correct", weight=2} in a recipe: the one positional value goes under "$1".
static json_t *convert_labelled(Conversion *c, size_t strings, int depth) {
    json_t *object = convert_object(c, strings, depth);
    if (!object) return NULL;
    lua_rawgeti(c->L, -1, 1);
    json_t *label = convert(c, depth + 1);
    lua_pop(c->L, 1);
    if (label) {
        json_object_set_new(object, "$1", label);
        return object;
    }
    json_decref(object);
    return NULL;
}

static json_t *convert_table(Conversion *c, int depth) {
    lua_State *L = c->L;
    size_t strings = 0, others = 0;
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1), integers = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING && strlen(lua_tostring(L, -2)) == lua_rawlen(L, -2))
            strings++;
        else if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1 && lua_tointeger(L, -2) <= n)
            integers++;
        else
            others++;
    }
    if (others) return refuse(c, "a key that is neither a string nor in 1..n");
    if (strings && n == 1 && integers == 1 && c->functions) return convert_labelled(c, strings, depth);
    if (strings && integers) return refuse(c, "both names and numbers as keys");
    if (strings) return convert_object(c, strings, depth);
    if (integers != n) return refuse(c, "a list with holes");
    return n ? convert_array(c, n, depth) : json_object();
}

// The value on top, which stays there.
static json_t *convert(Conversion *c, int depth) {
    lua_State *L = c->L;
    if (depth > MAX_DEPTH || !lua_checkstack(L, 6)) return refuse(c, "nested more than 100 deep, or a cycle");
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, -1));
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1)) return json_integer(lua_tointeger(L, -1));
        if (!isfinite(lua_tonumber(L, -1))) return refuse(c, "a number that isn't finite");
        return json_real(lua_tonumber(L, -1));
    case LUA_TSTRING: {
        size_t size;
        const char *text = lua_tolstring(L, -1, &size);
        json_t *string = json_stringn(text, size);
        return string ? string : refuse(c, "a string that isn't valid UTF-8");
    }
    case LUA_TTABLE: return convert_table(c, depth);
    case LUA_TLIGHTUSERDATA: return json_null();
    case LUA_TFUNCTION:
        if (c->functions) return json_pack("{s:i}", "$function", ++*c->functions);
        return refuse(c, "a function, expected data");
    default:
        snprintf(c->message, c->message_size, "%s%sa %s, expected data", c->path, c->path[0] ? ": " : "",
                 luaL_typename(L, -1));
        return NULL;
    }
}

bool value_to_json(lua_State *L, int index, int *functions, json_t **out, char *message, size_t message_size) {
    Conversion c = {.L = L, .functions = functions, .message = message, .message_size = message_size};
    lua_pushvalue(L, index);
    *out = convert(&c, 1);
    lua_pop(L, 1);
    return *out != NULL;
}

// ---- the library -----------------------------------------------------------------------------------------------------
// Memory that isn't Lua's must not be lost when pushing its content raises, so that is done in a protected call of
// our own; whatever it raised is raised again once the memory is freed.
typedef struct Held {
    json_t *value;
    char *text;
} Held;

static int push_held(lua_State *L) {
    Held *held = lua_touserdata(L, 1);
    if (held->value)
        value_push(L, held->value);
    else
        lua_pushstring(L, held->text);
    return 1;
}
static int give_held(lua_State *L, Held *held) {
    lua_pushcfunction(L, push_held);
    lua_pushlightuserdata(L, held);
    int status = lua_pcall(L, 1, 1, 0);
    json_decref(held->value);
    free(held->text);
    return status == LUA_OK ? 1 : lua_error(L);
}

static int decode(lua_State *L) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    Err err = {0};
    Held held = {0};
    sandbox_charge(L, 100 + 2 * size);
    if (size > MAX_TEXT || !json_parse(text, size, "json", 1, &held.value, &err)) {
        lua_pushnil(L);
        if (size > MAX_TEXT)
            lua_pushfstring(L, "text of more than %d bytes", MAX_TEXT);
        else
            lua_pushfstring(L, "%s: %s", err.where, err.msg);
        return 2;
    }
    return give_held(L, &held);
}

static uint64_t tree_size(lua_State *L, int depth) { // values below the one on top, with the lengths of strings
    uint64_t size = 1;
    if (lua_type(L, -1) == LUA_TSTRING) return 1 + lua_rawlen(L, -1) / 8;
    if (lua_type(L, -1) != LUA_TTABLE || depth > MAX_DEPTH) return 1;
    luaL_checkstack(L, 4, NULL);
    lua_Unsigned keys = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        sandbox_charge(L, 1);
        size += tree_size(L, depth + 1);
        keys++;
    }
    return size + keys * keys / 16; // objects are written by looking each key up by walking
}

static int encode(lua_State *L) {
    char message[256];
    json_t *value;
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    uint64_t size = tree_size(L, 1);
    sandbox_charge(L, 4 * size);
    if (size > MAX_TEXT) return luaL_error(L, "json.encode: more than %d values", MAX_TEXT);
    if (!value_to_json(L, 1, NULL, &value, message, sizeof message)) return luaL_error(L, "json.encode: %s", message);
    Held held = {.text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17))};
    json_decref(value);
    if (!held.text) sandbox_exhaust(L, EXHAUSTED_MEMORY);
    return give_held(L, &held);
}

void library_json(lua_State *L) {
    static const luaL_Reg own[] = {{"decode", decode}, {"encode", encode}, {NULL, NULL}};
    luaL_newlib(L, own);
    push_null(L);
    lua_setfield(L, -2, "null");
    lua_setglobal(L, "json");
}
