// string and utf8. What can take time beyond the length of its arguments is ours: patterns (pattern.c), rep, format.
// Left out: dump (bytecode), pack, packsize, unpack, and format's %p (addresses) and %q.
#include "pattern.h"
#include <stdio.h>
#include <string.h>

// ---- find, match, gmatch, gsub ---------------------------------------------------------------------------------------
static size_t start_position(lua_Integer init, size_t size) { // 0-based; size + 1 if beyond the end
    if (init > 0) return (lua_Unsigned)init - 1 > size ? size + 1 : (size_t)init - 1;
    if (init == 0) return 0;
    return (lua_Unsigned)0 - (lua_Unsigned)init > size ? 0 : (size_t)((lua_Integer)size + init);
}

static int find_plain(lua_State *L, const char *s, size_t size, const char *p, size_t p_size, size_t start) {
    sandbox_charge(L, 1 + (size - start) / 8 + p_size / 8);
    const char *at = p_size ? memmem(s + start, size - start, p, p_size) : s + start;
    if (!at) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, at - s + 1);
    lua_pushinteger(L, at - s + (lua_Integer)p_size);
    return 2;
}

static bool has_specials(const char *p, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (p[i] && strchr("^$*+?.([%-", p[i])) return true;
    return false;
}

static int find_or_match(lua_State *L, bool find) {
    size_t size, p_size;
    const char *s = luaL_checklstring(L, 1, &size), *p = luaL_checklstring(L, 2, &p_size);
    size_t start = start_position(luaL_optinteger(L, 3, 1), size);
    sandbox_charge(L, 1);
    if (start > size) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || !has_specials(p, p_size))) return find_plain(L, s, size, p, p_size, start);
    PatternMatch m;
    bool anchored = p_size && *p == '^';
    pattern_start(&m, L, s, size, p, p_size);
    if (anchored) p++;
    for (const char *at = s + start; at <= m.subject_end; at++) {
        m.level = 0;
        const char *end = pattern_match(&m, at, p);
        if (end) {
            if (!find) return pattern_push_captures(&m, at, end);
            lua_pushinteger(L, at - s + 1);
            lua_pushinteger(L, end - s);
            return pattern_push_captures(&m, NULL, NULL) + 2;
        }
        if (anchored) break;
    }
    lua_pushnil(L);
    return 1;
}
static int string_find(lua_State *L) { return find_or_match(L, true); }
static int string_match(lua_State *L) { return find_or_match(L, false); }

static int gmatch_step(lua_State *L) { // upvalues: subject, pattern, next position, end of the last match (-1: none)
    size_t size, p_size;
    const char *s = lua_tolstring(L, lua_upvalueindex(1), &size), *p = lua_tolstring(L, lua_upvalueindex(2), &p_size);
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    PatternMatch m;
    pattern_start(&m, L, s, size, p, p_size);
    for (const char *at = s + lua_tointeger(L, lua_upvalueindex(3)); at <= m.subject_end; at++) {
        m.level = 0;
        const char *end = pattern_match(&m, at, p);
        if (!end || end - s == last) continue; // an empty match right after a match is none
        lua_pushinteger(L, end - s);
        lua_pushvalue(L, -1);
        lua_replace(L, lua_upvalueindex(3));
        lua_replace(L, lua_upvalueindex(4));
        return pattern_push_captures(&m, at, end);
    }
    return 0;
}
static int string_gmatch(lua_State *L) {
    size_t size;
    luaL_checklstring(L, 1, &size);
    luaL_checkstring(L, 2);
    size_t start = start_position(luaL_optinteger(L, 3, 1), size);
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)start);
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, gmatch_step, 4);
    return 1;
}

static void add_template(PatternMatch *m, luaL_Buffer *b, const char *s, const char *end) {
    lua_State *L = m->L;
    size_t size;
    const char *text = lua_tolstring(L, 3, &size), *stop = text + size;
    sandbox_charge(L, 1 + size / 8);
    while (text < stop) {
        if (*text != '%') {
            luaL_addchar(b, *text++);
            continue;
        }
        if (++text == stop) luaL_error(L, "invalid use of '%%' in replacement string");
        char c = *text++;
        if (c == '%') {
            luaL_addchar(b, '%');
        } else if (c == '0') {
            sandbox_charge(L, (uint64_t)(end - s) / 16);
            luaL_addlstring(b, s, (size_t)(end - s));
        } else if (c >= '1' && c <= '9') {
            pattern_push_capture(m, c - '1', s, end);
            luaL_tolstring(L, -1, NULL); // a position is a number; the buffer takes strings
            lua_remove(L, -2);
            sandbox_charge(L, lua_rawlen(L, -1) / 16);
            luaL_addvalue(b);
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
    }
}

// Appends the replacement of one match.
static void add_replacement(PatternMatch *m, luaL_Buffer *b, const char *s, const char *end) {
    lua_State *L = m->L;
    int type = lua_type(L, 3);
    if (type == LUA_TNUMBER || type == LUA_TSTRING) {
        add_template(m, b, s, end);
        return;
    }
    if (type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, pattern_push_captures(m, s, end), 1);
    } else {
        pattern_push_capture(m, 0, s, end);
        lua_gettable(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, s, (size_t)(end - s));
    } else if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    sandbox_charge(L, 1 + lua_rawlen(L, -1) / 16);
    luaL_addvalue(b);
}

static int string_gsub(lua_State *L) {
    size_t size, p_size;
    const char *s = luaL_checklstring(L, 1, &size), *p = luaL_checklstring(L, 2, &p_size), *last = NULL;
    int type = lua_type(L, 3);
    lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)size + 1), count = 0;
    bool anchored = p_size && *p == '^';
    luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
                     "string/function/table");
    PatternMatch m;
    luaL_Buffer b;
    pattern_start(&m, L, s, size, p, p_size);
    if (anchored) p++;
    luaL_buffinit(L, &b);
    while (count < limit) {
        m.level = 0;
        const char *end = pattern_match(&m, s, p);
        if (end && end != last) {
            count++;
            add_replacement(&m, &b, s, end);
            s = last = end;
        } else if (s < m.subject_end) {
            luaL_addchar(&b, *s++);
        } else {
            break;
        }
        if (anchored) break;
    }
    luaL_addlstring(&b, s, (size_t)(m.subject_end - s));
    luaL_pushresult(&b);
    lua_pushinteger(L, count);
    return 2;
}

// ---- rep, format -------------------------------------------------------------------------------------------------------
static int string_rep(lua_State *L) {
    size_t size, separator_size, total;
    const char *s = luaL_checklstring(L, 1, &size), *separator = luaL_optlstring(L, 3, "", &separator_size);
    lua_Integer n = luaL_checkinteger(L, 2);
    if (n <= 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (!size_mul(size + separator_size, (size_t)n, &total) || total > sandbox_of(L)->limits.memory)
        sandbox_exhaust(L, EXHAUSTED_MEMORY);
    sandbox_charge(L, (uint64_t)n + total / 16);
    luaL_Buffer b;
    total -= separator_size;
    char *out = luaL_buffinitsize(L, &b, total);
    for (lua_Integer i = 0; i < n; i++) {
        memcpy(out, s, size);
        out += size;
        if (i + 1 < n) {
            memcpy(out, separator, separator_size);
            out += separator_size;
        }
    }
    luaL_pushresultsize(&b, total);
    return 1;
}

// One conversion, from after its '%': flags, width and precision of at most two digits, then the letter.
static const char *read_conversion(lua_State *L, const char *f, const char *stop, char spec[32]) {
    int n = 0;
    spec[n++] = '%';
    for (int flags = 0; f < stop && *f && strchr("-+ #0", *f); spec[n++] = *f++)
        if (++flags > 5) luaL_error(L, "invalid format (repeated flags)");
    for (int digits = 0; f < stop && *f >= '0' && *f <= '9'; spec[n++] = *f++)
        if (++digits > 2) luaL_error(L, "invalid format (width longer than two digits)");
    if (f < stop && *f == '.') {
        spec[n++] = *f++;
        for (int digits = 0; f < stop && *f >= '0' && *f <= '9'; spec[n++] = *f++)
            if (++digits > 2) luaL_error(L, "invalid format (precision longer than two digits)");
    }
    spec[n] = 0;
    if (f == stop) luaL_error(L, "invalid conversion '%s' to 'format'", spec);
    return f;
}

static void format_string(lua_State *L, luaL_Buffer *b, int argument, char *spec) {
    size_t size, n = strlen(spec);
    const char *text = library_tostring(L, argument, &size); // pushed above the buffer
    sandbox_charge(L, 1 + size / 16);
    if (n == 1 || (size >= 100 && !strchr(spec, '.'))) {
        luaL_addvalue(b);
        return;
    }
    char out[256];
    if (strlen(text) != size) luaL_error(L, "bad argument #%d to 'format' (string contains zeros)", argument);
    memcpy(spec + n, "s", 2);
    int written = snprintf(out, sizeof out, spec, text);
    lua_pop(L, 1);
    luaL_addlstring(b, out, (size_t)written);
}

static int string_format(lua_State *L) {
    size_t size;
    const char *f = luaL_checklstring(L, 1, &size), *stop = f + size;
    int top = lua_gettop(L), argument = 1;
    luaL_Buffer b;
    sandbox_charge(L, 1 + size / 8);
    luaL_buffinit(L, &b);
    while (f < stop) {
        if (*f != '%') {
            luaL_addchar(&b, *f++);
            continue;
        }
        if (++f < stop && *f == '%') {
            luaL_addchar(&b, *f++);
            continue;
        }
        char spec[32], out[512]; // %99.99f of the largest double needs 409 bytes
        f = read_conversion(L, f, stop, spec);
        char letter = *f++;
        size_t n = strlen(spec);
        int written = 0;
        if (++argument > top) return luaL_argerror(L, argument, "no value");
        sandbox_charge(L, 4);
        if (letter && strchr("dioxX", letter)) {
            snprintf(spec + n, sizeof spec - n, "ll%c", letter);
            written = snprintf(out, sizeof out, spec, (long long)luaL_checkinteger(L, argument));
        } else if (letter == 'c') {
            snprintf(spec + n, sizeof spec - n, "c");
            written = snprintf(out, sizeof out, spec, (int)luaL_checkinteger(L, argument));
        } else if (letter && strchr("aAeEfFgG", letter)) {
            snprintf(spec + n, sizeof spec - n, "%c", letter);
            written = snprintf(out, sizeof out, spec, luaL_checknumber(L, argument));
        } else if (letter == 's') {
            format_string(L, &b, argument, spec);
        } else {
            return luaL_error(L, "invalid conversion '%s%c' to 'format'", spec, letter ? letter : '0');
        }
        sandbox_charge(L, 20 + 2 * (uint64_t)written); // the digits of a large number cost more than they look
        luaL_addlstring(&b, out, (size_t)written);
    }
    luaL_pushresult(&b);
    return 1;
}

// ---- opening -----------------------------------------------------------------------------------------------------------
static void open_utf8(lua_State *L) {
    static const char *const taken[] = {"char", "charpattern", "codepoint", "codes", "len", "offset", NULL};
    lua_pushcfunction(L, luaopen_utf8);
    lua_call(L, 0, 1);
    lua_newtable(L);
    library_take(L, -2, taken);
    lua_setglobal(L, "utf8");
    lua_pop(L, 1);
}

void library_string(lua_State *L) {
    static const char *const taken[] = {"byte", "char", "len", "lower", "reverse", "sub", "upper", NULL};
    static const luaL_Reg own[] = {{"find", string_find},     {"match", string_match}, {"gmatch", string_gmatch},
                                   {"gsub", string_gsub},     {"rep", string_rep},     {"format", string_format},
                                   {NULL, NULL}};
    lua_pushcfunction(L, luaopen_string); // also gives strings their metatable, with arithmetic
    lua_call(L, 0, 1);
    lua_newtable(L);
    library_take(L, -2, taken);
    luaL_setfuncs(L, own, 0);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable"); // getmetatable("") gives this
    lua_pop(L, 2);
    lua_setglobal(L, "string");
    lua_pop(L, 1);
    open_utf8(L);
}
