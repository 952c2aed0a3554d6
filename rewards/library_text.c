// text: small helpers, never patterns.
//
//   text.trim(s), .split(s, separator), .lines(s), .words(s), .count(s, what), .starts, .ends, .contains
//   text.length(s)            characters
//   text.scripts(s)           shares of letters by script
//   text.language(s, "ko")    the share that is of a language
//   text.similarity(a, b)     1 - edit distance / length, at most 4096 bytes each
// n-gram repetition is shape.repetition (library_answers.c).
#include "script.h"
#include "unicode.h"
#include "verify.h"
#include <string.h>

enum { SIMILARITY_LIMIT = 4096 };

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

// The share of a text's letters that are of a language: ko, ja, zh, vi, en (unicode.h).
static int text_language(lua_State *L) {
    TextSpan s = check_text(L, 1);
    double share;
    const char *language = luaL_checkstring(L, 2);
    sandbox_charge(L, 2 * s.size);
    if (!unicode_language_share(s, language, &share)) return luaL_error(L, "unknown language '%s', expected ko, ja, zh, vi or en", language);
    lua_pushnumber(L, share);
    return 1;
}
static int text_scripts(lua_State *L) { // shares of letters: {latin =, vietnamese =, hangul =, kana =, han =, ...}
    TextSpan s = check_text(L, 1);
    int64_t letters[SCRIPTS], all = 0;
    sandbox_charge(L, s.size);
    unicode_count_scripts(s, letters);
    for (int i = 0; i < SCRIPTS; i++) all += letters[i];
    lua_createtable(L, 0, SCRIPTS);
    for (int i = 0; i < SCRIPTS; i++) {
        lua_pushnumber(L, all ? (double)letters[i] / (double)all : 0);
        lua_setfield(L, -2, unicode_script_names[i]);
    }
    return 1;
}
// 1 - edits / length of the longer one, in characters: 1 for the same text, 0 for nothing in common.
static int text_similarity(lua_State *L) {
    TextSpan a = check_text(L, 1), b = check_text(L, 2);
    luaL_argcheck(L, a.size <= SIMILARITY_LIMIT && b.size <= SIMILARITY_LIMIT, a.size > SIMILARITY_LIMIT ? 1 : 2, "a text of more than 4096 bytes");
    uint32_t x[SIMILARITY_LIMIT], y[SIMILARITY_LIMIT];
    uint16_t row[SIMILARITY_LIMIT + 1]; // edits from x's first i characters to y's first j
    int n = 0, m = 0;
    while (unicode_next(&a, &x[n])) n++;
    while (unicode_next(&b, &y[m])) m++;
    sandbox_charge(L, (uint64_t)n * (uint64_t)m / 4);
    for (int j = 0; j <= m; j++) row[j] = (uint16_t)j;
    for (int i = 1; i <= n; i++) {
        uint16_t diagonal = row[0];
        row[0] = (uint16_t)i;
        for (int j = 1; j <= m; j++) {
            uint16_t above = row[j], best = (uint16_t)(diagonal + (x[i - 1] != y[j - 1]));
            if (above + 1 < best) best = (uint16_t)(above + 1);
            if (row[j - 1] + 1 < best) best = (uint16_t)(row[j - 1] + 1);
            diagonal = above, row[j] = best;
        }
    }
    int longer = n > m ? n : m;
    lua_pushnumber(L, longer ? 1 - (double)row[m] / longer : 1);
    return 1;
}

void library_text(lua_State *L) {
    static const luaL_Reg own[] = {{"trim", text_trim_},         {"split", text_split},     {"lines", text_lines},
                                   {"words", text_words},        {"count", text_count},     {"length", text_length},
                                   {"starts", text_starts},      {"ends", text_ends},       {"contains", text_contains},
                                   {"language", text_language},  {"scripts", text_scripts}, {"similarity", text_similarity},
                                   {NULL, NULL}};
    luaL_newlib(L, own);
    lua_setglobal(L, "text");
}
