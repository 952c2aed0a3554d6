// text: small helpers over bytes, never patterns. verify: is this answer equal to that one.
#include "script.h"
#include "verify.h"
#include <string.h>

static TextSpan check_text(lua_State *L, int index) {
    TextSpan s;
    s.data = luaL_checklstring(L, index, &s.size);
    sandbox_charge(L, 2 + s.size / 8);
    return s;
}

static int text_trim_(lua_State *L) {
    TextSpan s = text_trim(check_text(L, 1));
    lua_pushlstring(L, s.data, s.size);
    return 1;
}

static void push_pieces(lua_State *L, TextSpan s, TextSpan separator) {
    lua_Integer n = 0;
    const char *end = s.data + s.size, *p = s.data;
    lua_newtable(L);
    for (;;) {
        const char *at = memmem(p, (size_t)(end - p), separator.data, separator.size);
        sandbox_charge(L, 2);
        lua_pushlstring(L, p, (size_t)((at ? at : end) - p));
        lua_rawseti(L, -2, ++n);
        if (!at) return;
        p = at + separator.size;
    }
}
static int text_split(lua_State *L) {
    TextSpan s = check_text(L, 1), separator = check_text(L, 2);
    luaL_argcheck(L, separator.size > 0, 2, "an empty separator");
    push_pieces(L, s, separator);
    return 1;
}
static int text_lines(lua_State *L) { // a final newline ends the last line and begins none
    TextSpan s = check_text(L, 1);
    if (s.size && s.data[s.size - 1] == '\n') s.size--;
    push_pieces(L, s, (TextSpan){"\n", 1});
    return 1;
}
static int text_words(lua_State *L) { // runs between blanks
    TextSpan s = check_text(L, 1);
    lua_Integer n = 0;
    lua_newtable(L);
    for (s = text_trim(s); s.size; s = text_trim(s)) {
        size_t k = 0;
        while (k < s.size && s.data[k] != ' ' && !(s.data[k] >= '\t' && s.data[k] <= '\r')) k++;
        sandbox_charge(L, 2);
        lua_pushlstring(L, s.data, k);
        lua_rawseti(L, -2, ++n);
        s = (TextSpan){s.data + k, s.size - k};
    }
    return 1;
}
static int text_count(lua_State *L) { // occurrences that don't overlap
    TextSpan s = check_text(L, 1), what = check_text(L, 2);
    luaL_argcheck(L, what.size > 0, 2, "an empty text");
    lua_Integer n = 0;
    for (const char *p = s.data, *end = p + s.size; (p = memmem(p, (size_t)(end - p), what.data, what.size)); n++)
        p += what.size;
    lua_pushinteger(L, n);
    return 1;
}
static int text_length(lua_State *L) { // characters; a byte that isn't UTF-8 counts as one
    TextSpan s = check_text(L, 1);
    lua_Integer n = 0;
    int owed = 0; // continuation bytes that the character at hand may still take
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if ((c & 0xC0) == 0x80 && owed) {
            owed--;
            continue;
        }
        n++;
        owed = c >= 0xF0 && c < 0xF5 ? 3 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xC2 && c < 0xE0 ? 1 : 0;
    }
    lua_pushinteger(L, n);
    return 1;
}
static int text_starts(lua_State *L) {
    TextSpan s = check_text(L, 1), with = check_text(L, 2);
    lua_pushboolean(L, s.size >= with.size && memcmp(s.data, with.data, with.size) == 0);
    return 1;
}
static int text_ends(lua_State *L) {
    TextSpan s = check_text(L, 1), with = check_text(L, 2);
    lua_pushboolean(L, s.size >= with.size && memcmp(s.data + s.size - with.size, with.data, with.size) == 0);
    return 1;
}
static int text_contains(lua_State *L) {
    TextSpan s = check_text(L, 1), what = check_text(L, 2);
    lua_pushboolean(L, what.size == 0 || memmem(s.data, s.size, what.data, what.size) != NULL);
    return 1;
}

// verify.equal(answer, truth): see verify.c. Takes numbers too.
static int equal_answers(lua_State *L) {
    TextSpan answer = check_text(L, 1), truth = check_text(L, 2);
    uint64_t steps;
    bool equal = verify_equal(truth, answer, &steps);
    sandbox_charge(L, 10 + steps);
    lua_pushboolean(L, equal);
    return 1;
}

void library_text(lua_State *L) {
    static const luaL_Reg own[] = {{"trim", text_trim_},     {"split", text_split},   {"lines", text_lines},
                                   {"words", text_words},    {"count", text_count},   {"length", text_length},
                                   {"starts", text_starts},  {"ends", text_ends},     {"contains", text_contains},
                                   {NULL, NULL}};
    static const luaL_Reg verify[] = {{"equal", equal_answers}, {NULL, NULL}};
    luaL_newlib(L, own);
    lua_setglobal(L, "text");
    luaL_newlib(L, verify);
    lua_setglobal(L, "verify");
}
