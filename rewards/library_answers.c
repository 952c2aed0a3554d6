// verify, extract, shape: what a script asks about answers, lengths and repetition.
//
//   verify.equal(answer, truth)            see verify.c
//   extract.answer(text), .boxed, .hash, .number, .json, .final     see extract.c; nil if there is none
//   extract.code(text, language)           of any language without one
//   extract.thinking(text)                 what follows the thinking; nil while it goes on
//   shape.soft_overlong(length, max, cache)
//   shape.cosine(length, max, start, finish, uncapped)
//   shape.kimi(lengths, right)             lists, of one prompt; returns a list
//   shape.repetition(text, n)              share of n-grams of words that are repeats
//   shape.think_format(text), .think_answer_format, .tag_count, .reasoning_steps
#include "extract.h"
#include "script.h"
#include "shaping.h"
#include "verify.h"
#include <math.h>
#include <string.h>

static TextSpan check_text(lua_State *L, int index, uint64_t cost) { // cost: of each 8 bytes
    TextSpan s;
    s.data = luaL_checklstring(L, index, &s.size);
    sandbox_charge(L, 5 + cost * (s.size / 8));
    return s;
}

// Takes numbers too.
static int verify_equal_(lua_State *L) {
    TextSpan answer = check_text(L, 1, 1), truth = check_text(L, 2, 1);
    uint64_t steps;
    bool equal = verify_equal(truth, answer, &steps);
    sandbox_charge(L, steps);
    lua_pushboolean(L, equal);
    return 1;
}

// ---- extract ------------------------------------------------------------------------------------------------------
static int push_found(lua_State *L, bool found, TextSpan s) {
    if (found) lua_pushlstring(L, s.data, s.size);
    else lua_pushnil(L);
    return 1;
}
static int extract_by(lua_State *L, bool (*how)(TextSpan text, TextSpan *out)) {
    TextSpan out = {"", 0};
    bool found = how(check_text(L, 1, 4), &out);
    return push_found(L, found, out);
}
static int extract_answer_(lua_State *L) { return extract_by(L, extract_answer_tag); }
static int extract_boxed_(lua_State *L) { return extract_by(L, extract_boxed); }
static int extract_hash_(lua_State *L) { return extract_by(L, extract_hash); }
static int extract_number_(lua_State *L) { return extract_by(L, extract_number); }
static int extract_json_(lua_State *L) { return extract_by(L, extract_json); }
static int extract_thinking_(lua_State *L) { return extract_by(L, extract_after_thinking); }
static int extract_code_(lua_State *L) {
    TextSpan text = check_text(L, 1, 4), out = {"", 0};
    bool found = extract_code(text, luaL_optstring(L, 2, NULL), &out);
    return push_found(L, found, out);
}
// The first of: tag, box, hash, the last number.
static int extract_final_(lua_State *L) {
    TextSpan text = check_text(L, 1, 16), out = {"", 0};
    bool found = extract_answer_tag(text, &out) || extract_boxed(text, &out) || extract_hash(text, &out) || extract_number(text, &out);
    return push_found(L, found, out);
}

// ---- shape --------------------------------------------------------------------------------------------------------
static int shape_soft_overlong_(lua_State *L) {
    sandbox_charge(L, 5);
    double length = luaL_checknumber(L, 1), max = luaL_checknumber(L, 2), cache = luaL_checknumber(L, 3);
    luaL_argcheck(L, cache >= 0 && max >= cache, 3, "expected 0 <= cache <= max");
    lua_pushnumber(L, shape_soft_overlong(length, max, cache));
    return 1;
}
static int shape_cosine_(lua_State *L) {
    sandbox_charge(L, 10);
    double length = luaL_checknumber(L, 1), max = luaL_checknumber(L, 2);
    luaL_argcheck(L, length >= 0 && length < 1e15, 1, "expected a length");
    luaL_argcheck(L, max > 0, 2, "expected more than 0");
    lua_pushnumber(L, shape_cosine(length, max, luaL_checknumber(L, 3), luaL_checknumber(L, 4), !lua_toboolean(L, 5)));
    return 1;
}
static int shape_kimi_(lua_State *L) {
    enum { MOST = 65536 };
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Unsigned count = lua_rawlen(L, 1);
    luaL_argcheck(L, count <= MOST && lua_rawlen(L, 2) == count, 2, "expected two lists of one length");
    sandbox_charge(L, 10 + 4 * count);
    double *lengths = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof(double), 0); // [count]; Lua's, should a call raise
    double *out = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof(double), 0);
    bool *right = lua_newuserdatauv(L, (size_t)count + 1, 0);
    for (lua_Unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        lengths[i] = luaL_checknumber(L, -2);
        right[i] = lua_toboolean(L, -1);
        lua_pop(L, 2);
    }
    shape_kimi(lengths, right, (int)count, out);
    lua_createtable(L, (int)count, 0);
    for (lua_Unsigned i = 0; i < count; i++) {
        lua_pushnumber(L, out[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}
static int shape_repetition_(lua_State *L) {
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_argcheck(L, n >= 1 && n <= 100, 2, "expected 1 to 100");
    size_t size;
    luaL_checklstring(L, 1, &size);
    uint64_t depth = 1;
    for (size_t k = size; k > 1; k /= 2) depth++;
    sandbox_charge(L, size / 4 * (uint64_t)n / 4 * depth); // sorting: as many comparisons, each up to n long
    lua_pushnumber(L, shape_repetition_words(check_text(L, 1, 8), (int)n));
    return 1;
}
static int shape_text(lua_State *L, double (*function)(TextSpan text)) {
    lua_pushnumber(L, function(check_text(L, 1, 8)));
    return 1;
}
static int shape_think_format_(lua_State *L) { return shape_text(L, shape_think_format); }
static int shape_think_answer_format_(lua_State *L) { return shape_text(L, shape_think_answer_format); }
static int shape_tag_count_(lua_State *L) { return shape_text(L, shape_tag_count); }
static int shape_reasoning_steps_(lua_State *L) { return shape_text(L, shape_reasoning_steps); }

void library_answers(lua_State *L) {
    static const luaL_Reg verify[] = {{"equal", verify_equal_}, {NULL, NULL}};
    static const luaL_Reg extract[] = {{"answer", extract_answer_}, {"boxed", extract_boxed_}, {"hash", extract_hash_},
                                       {"number", extract_number_}, {"json", extract_json_},   {"code", extract_code_},
                                       {"final", extract_final_},   {"thinking", extract_thinking_}, {NULL, NULL}};
    static const luaL_Reg shape[] = {{"soft_overlong", shape_soft_overlong_}, {"cosine", shape_cosine_}, {"kimi", shape_kimi_},
                                     {"repetition", shape_repetition_}, {"think_format", shape_think_format_},
                                     {"think_answer_format", shape_think_answer_format_}, {"tag_count", shape_tag_count_},
                                     {"reasoning_steps", shape_reasoning_steps_}, {NULL, NULL}};
    luaL_newlib(L, verify);
    lua_setglobal(L, "verify");
    luaL_newlib(L, extract);
    lua_setglobal(L, "extract");
    luaL_newlib(L, shape);
    lua_setglobal(L, "shape");
}
