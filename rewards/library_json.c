// Values between JSON and Lua, and the library `json`: decode(text) and encode(value), json.null.
// Reading is jansson's, whose memory is outside of the state's limit; so the text is limited instead.
#include "script.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_DEPTH = 100, MAX_TEXT = 1 << 20, MAX_NAMES = 1024 };

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
    if (n > MAX_NAMES) return refuse(c, "more than 1024 names"); // each is looked up by walking
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
static int push_held(lua_State *L) {
    value_push(L, lua_touserdata(L, 1));
    return 1;
}
static int give_held(lua_State *L, json_t *value) {
    lua_pushcfunction(L, push_held);
    lua_pushlightuserdata(L, value);
    int status = lua_pcall(L, 1, 1, 0);
    json_decref(value);
    return status == LUA_OK ? 1 : lua_error(L);
}

static int decode(lua_State *L) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    Err err = {0};
    json_t *value = NULL;
    sandbox_charge(L, 100 + 2 * size);
    if (size > MAX_TEXT || !json_parse(text, size, "json", 1, &value, &err)) {
        lua_pushnil(L);
        if (size > MAX_TEXT)
            lua_pushfstring(L, "text of more than %d bytes", MAX_TEXT);
        else
            lua_pushfstring(L, "%s: %s", err.where, err.msg);
        return 2;
    }
    return give_held(L, value);
}

// ---- writing ---------------------------------------------------------------------------------------------------------
// The text grows in a block of Lua's memory, so that the budget bounds it and an error loses nothing. Objects are written
// in the order of their keys. Fuel is taken for each value and its bytes before they are written.
typedef struct Encoder {
    lua_State *L;
    int block; // where `data` lies on the stack
    char *data;
    size_t size, capacity;
    char path[160]; // of the value at hand, "steps[1].text"
} Encoder;

static void put(Encoder *e, const char *text, size_t size) {
    if (size > e->capacity - e->size) {
        size_t capacity = 2 * e->capacity + size;
        char *data = lua_newuserdatauv(e->L, capacity, 0);
        memcpy(data, e->data, e->size);
        lua_replace(e->L, e->block);
        e->data = data, e->capacity = capacity;
    }
    memcpy(e->data + e->size, text, size);
    e->size += size;
}
_Noreturn static void reject(Encoder *e, const char *what) {
    luaL_error(e->L, "json.encode: %s%s%s", e->path, e->path[0] ? ": " : "", what);
    __builtin_unreachable();
}

static void put_string(Encoder *e, const char *text, size_t size) {
    static const char escapes[32] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    sandbox_charge(e->L, size / 8);
    put(e, "\"", 1);
    size_t plain = 0; // where what isn't yet written starts
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)text[i];
        utf8proc_int32_t point;
        utf8proc_ssize_t n = c < 0x80 ? 1 : utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &point);
        if (n <= 0) reject(e, "a string that isn't valid UTF-8");
        i += (size_t)n;
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        char escaped[8] = {'\\', c >= 0x20 ? (char)c : escapes[c]};
        int length = escaped[1] ? 2 : snprintf(escaped, sizeof escaped, "\\u%04X", c);
        put(e, text + plain, i - 1 - plain);
        put(e, escaped, (size_t)length);
        plain = i;
    }
    put(e, text + plain, size - plain);
    put(e, "\"", 1);
}

static void put_number(Encoder *e) {
    char text[64];
    if (lua_isinteger(e->L, -1)) {
        put(e, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(e->L, -1)));
        return;
    }
    double x = lua_tonumber(e->L, -1);
    if (!isfinite(x)) reject(e, "a number that isn't finite");
    json_t *value = json_real(x);
    size_t size = json_dumpb(value, text, sizeof text, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    json_decref(value);
    put(e, text, size);
}

static void put_value(Encoder *e, int depth);

// The table on top, whose keys 1..n are `keys`.
static void put_array(Encoder *e, lua_Integer n, int depth) {
    size_t path = strlen(e->path);
    put(e, "[", 1);
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1) put(e, ",", 1);
        snprintf(e->path + path, sizeof e->path - path, "[%lld]", (long long)i);
        lua_rawgeti(e->L, -1, i);
        put_value(e, depth + 1);
        lua_pop(e->L, 1);
    }
    put(e, "]", 1);
    e->path[path] = 0;
}

// The table lies below its ordered keys, which are on top.
static void put_object(Encoder *e, lua_Integer n, int depth) {
    lua_State *L = e->L;
    size_t path = strlen(e->path), size;
    put(e, "{", 1);
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1) put(e, ",", 1);
        lua_rawgeti(L, -1, i);
        const char *key = lua_tolstring(L, -1, &size);
        snprintf(e->path + path, sizeof e->path - path, "%s%s", path ? "." : "", key);
        put_string(e, key, size);
        put(e, ":", 1);
        lua_rawget(L, -3);
        put_value(e, depth + 1);
        lua_pop(L, 1);
    }
    put(e, "}", 1);
    e->path[path] = 0;
}

static void put_table(Encoder *e, int depth) {
    lua_State *L = e->L;
    lua_Integer count = library_ordered_keys(L, -1), integers = 0, strings = 0, n = (lua_Integer)lua_rawlen(L, -2);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        if (lua_type(L, -1) == LUA_TSTRING && strlen(lua_tostring(L, -1)) == lua_rawlen(L, -1)) strings++;
        else if (lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= n) integers++;
        lua_pop(L, 1);
    }
    if (strings + integers != count) reject(e, "a key that is neither a string nor in 1..n");
    if (strings && integers) reject(e, "both names and numbers as keys");
    if (integers != n && !strings) reject(e, "a list with holes");
    if (!integers) put_object(e, count, depth);
    lua_pop(L, 1);
    if (integers) put_array(e, n, depth);
}

// The value on top, which stays there.
static void put_value(Encoder *e, int depth) {
    lua_State *L = e->L;
    if (depth > MAX_DEPTH) reject(e, "nested more than 100 deep, or a cycle");
    luaL_checkstack(L, 8, "json.encode");
    sandbox_charge(L, 4);
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: lua_toboolean(L, -1) ? put(e, "true", 4) : put(e, "false", 5); break;
    case LUA_TNUMBER: put_number(e); break;
    case LUA_TSTRING: {
        size_t size;
        const char *text = lua_tolstring(L, -1, &size);
        put_string(e, text, size);
        break;
    }
    case LUA_TTABLE: put_table(e, depth); break;
    case LUA_TLIGHTUSERDATA: put(e, "null", 4); break;
    default: {
        char what[64];
        snprintf(what, sizeof what, "a %s, expected data", luaL_typename(L, -1));
        reject(e, what);
    }
    }
}

int library_json_encode(lua_State *L) {
    Encoder e = {.L = L, .block = 1, .capacity = 256};
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    e.data = lua_newuserdatauv(L, e.capacity, 0);
    lua_insert(L, 1);
    put_value(&e, 1);
    lua_pushlstring(L, e.data, e.size);
    return 1;
}

void library_json(lua_State *L) {
    static const luaL_Reg own[] = {{"decode", decode}, {"encode", library_json_encode}, {NULL, NULL}};
    luaL_newlib(L, own);
    push_null(L);
    lua_setfield(L, -2, "null");
    lua_setglobal(L, "json");
}
