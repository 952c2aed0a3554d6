// re: regular expressions (PCRE2), over UTF-8; bytes of a subject that aren't UTF-8 match nothing.
//   re.test(text, pattern)            true or false
//   re.find(text, pattern, init)      start, end, captures...; nil
//   re.match(text, pattern, init)     captures..., or the whole match if there are none; nil
//   re.all(text, pattern)             list of matches: a text each, or a list of captures each
//   re.replace(text, pattern, with)   new text and count; `with` is literal but for $0 to $9 and $$
// A capture that took no part is false. Every item tried is paid for: PCRE2 calls back before each (auto-callout),
// and the distance moved since the last call is charged too. Compiled patterns are kept between samples.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "script.h"
#include "files.h"
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { SLOTS = 32, MAX_PATTERN = 4096, MAX_CAPTURES = 30, HEAP_KIB = 8192, OUT_OF_FUEL = -100 };

typedef struct Slot {
    pcre2_code *code;
    char *pattern;
    size_t size;
    bool strict;
} Slot;

typedef struct Expressions {
    Slot slots[SLOTS];
    pcre2_compile_context *compile;
    pcre2_match_context *match;
    pcre2_match_data *data; // of the latest match
} Expressions;

void expressions_free(Expressions *e) {
    if (!e) return;
    for (int i = 0; i < SLOTS; i++) {
        pcre2_code_free(e->slots[i].code);
        free(e->slots[i].pattern);
    }
    pcre2_match_data_free(e->data);
    pcre2_match_context_free(e->match);
    pcre2_compile_context_free(e->compile);
    free(e);
}

static Expressions *expressions_of(lua_State *L) {
    Sandbox *box = sandbox_of(L);
    if (box->expressions) return box->expressions;
    Expressions *e = xcalloc(1, sizeof *e);
    box->expressions = e;
    e->compile = pcre2_compile_context_create(NULL);
    e->match = pcre2_match_context_create(NULL);
    e->data = pcre2_match_data_create(MAX_CAPTURES + 1, NULL);
    if (!e->compile || !e->match || !e->data) luaL_error(L, "not enough memory");
    pcre2_set_max_pattern_length(e->compile, MAX_PATTERN);
    pcre2_set_parens_nest_limit(e->compile, 100);
    pcre2_set_heap_limit(e->match, HEAP_KIB);
    pcre2_set_match_limit(e->match, 1000000000); // fuel ends a match before this does
    return e;
}

// Strict: only for texts that are UTF-8. The other kind looks through the whole rest of its text at each match to find out.
static pcre2_code *compile(lua_State *L, int index, bool strict) {
    size_t size, where;
    const char *pattern = luaL_checklstring(L, index, &size);
    Expressions *e = expressions_of(L);
    Slot *slot = &e->slots[(hash64(pattern, size) + strict) % SLOTS];
    sandbox_charge(L, 10 + 2 * size);
    if (slot->code && slot->strict == strict && slot->size == size && memcmp(slot->pattern, pattern, size) == 0) return slot->code;
    int code;
    uint32_t options = PCRE2_UTF | (strict ? 0 : PCRE2_MATCH_INVALID_UTF) | PCRE2_AUTO_CALLOUT | PCRE2_NEVER_BACKSLASH_C, captures = 0;
    pcre2_code *made = pcre2_compile((PCRE2_SPTR)pattern, size, options, &code, &where, e->compile);
    if (!made) {
        char message[200];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        luaL_error(L, "bad regular expression at character %d: %s", (int)where + 1, message);
    }
    pcre2_pattern_info(made, PCRE2_INFO_CAPTURECOUNT, &captures);
    if (captures > MAX_CAPTURES) {
        pcre2_code_free(made);
        luaL_error(L, "more than %d captures in a regular expression", MAX_CAPTURES);
    }
    pcre2_code_free(slot->code);
    free(slot->pattern);
    *slot = (Slot){.code = made, .pattern = xstrndup(pattern, size), .size = size, .strict = strict};
    return made;
}

// ---- matching ----------------------------------------------------------------------------------------------------------
typedef struct Meter {
    uint64_t *fuel, extra; // extra: what a back reference may cost at each item
    size_t position;
} Meter;

static int callout(pcre2_callout_block *block, void *context) {
    Meter *m = context;
    size_t moved = block->current_position > m->position ? block->current_position - m->position
                                                         : m->position - block->current_position;
    uint64_t cost = 2 + moved / 8 + m->extra;
    m->position = block->current_position;
    if (cost >= *m->fuel) {
        *m->fuel = 0;
        return OUT_OF_FUEL;
    }
    *m->fuel -= cost;
    return 0;
}

// True and the offsets in the expressions' match data, or false. With PCRE2_NO_UTF_CHECK (the text is known to be UTF-8) only
// the part that was looked through is read, else all of it.
static bool match(lua_State *L, pcre2_code *code, const char *text, size_t size, size_t start, uint32_t options) {
    Expressions *e = sandbox_of(L)->expressions;
    uint32_t back_references = 0;
    pcre2_pattern_info(code, PCRE2_INFO_BACKREFMAX, &back_references);
    Meter meter = {.fuel = &sandbox_of(L)->fuel_left, .position = start, .extra = back_references ? size / 32 : 0};
    bool known = options & PCRE2_NO_UTF_CHECK;
    sandbox_charge(L, 10 + (known ? 0 : (size - start) / 8));
    pcre2_set_callout(e->match, callout, &meter);
    int status = pcre2_match(code, (PCRE2_SPTR)text, size, start, options, e->data, e->match);
    if (known && (status > 0 || status == PCRE2_ERROR_NOMATCH)) {
        size_t stopped = status > 0 ? pcre2_get_ovector_pointer(e->data)[0] : size;
        sandbox_charge(L, stopped > start ? (stopped - start) / 8 : 0);
    }
    if (status > 0) return true;
    if (status == PCRE2_ERROR_NOMATCH) return false;
    if (status == OUT_OF_FUEL || status == PCRE2_ERROR_MATCHLIMIT) sandbox_exhaust(L, EXHAUSTED_FUEL);
    if (status == PCRE2_ERROR_HEAPLIMIT || status == PCRE2_ERROR_NOMEMORY) sandbox_exhaust(L, EXHAUSTED_MEMORY);
    if (status == PCRE2_ERROR_DEPTHLIMIT) sandbox_exhaust(L, EXHAUSTED_DEPTH);
    return luaL_error(L, "regular expression can't be matched here (error %d)", status);
}

static void push_capture(lua_State *L, const char *text, uint32_t i) {
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(sandbox_of(L)->expressions->data) + 2 * i;
    if (at[0] == PCRE2_UNSET || at[1] < at[0])
        lua_pushboolean(L, 0);
    else
        lua_pushlstring(L, text + at[0], at[1] - at[0]);
}
static uint32_t capture_count(const pcre2_code *code) {
    uint32_t n = 0;
    pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &n);
    return n;
}
static size_t check_start(lua_State *L, int index, size_t size) {
    lua_Integer init = luaL_optinteger(L, index, 1);
    if (init < 0) init = (lua_Unsigned)0 - (lua_Unsigned)init > size ? 1 : (lua_Integer)size + init + 1;
    return init < 1 ? 0 : (lua_Unsigned)init - 1 > size ? size : (size_t)init - 1;
}

static int re_test(lua_State *L) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    pcre2_code *code = compile(L, 2, false);
    lua_pushboolean(L, match(L, code, text, size, 0, 0));
    return 1;
}
static int find_or_match(lua_State *L, bool find) {
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    pcre2_code *code = compile(L, 2, false);
    uint32_t captures = capture_count(code);
    if (!match(L, code, text, size, check_start(L, 3, size), 0)) {
        lua_pushnil(L);
        return 1;
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(sandbox_of(L)->expressions->data);
    luaL_checkstack(L, MAX_CAPTURES + 3, NULL);
    if (find) {
        lua_pushinteger(L, (lua_Integer)at[0] + 1);
        lua_pushinteger(L, (lua_Integer)at[1]);
    } else if (captures == 0) {
        push_capture(L, text, 0);
        return 1;
    }
    for (uint32_t i = 1; i <= captures; i++) push_capture(L, text, i);
    return (int)captures + (find ? 2 : 0);
}
static int re_find(lua_State *L) { return find_or_match(L, true); }
static int re_match(lua_State *L) { return find_or_match(L, false); }

static bool is_utf8(lua_State *L, const char *text, size_t size) {
    utf8proc_int32_t point;
    sandbox_charge(L, size / 8);
    for (utf8proc_ssize_t n; size; text += n, size -= (size_t)n) {
        n = (unsigned char)*text < 0x80 ? 1 : utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &point);
        if (n <= 0) return false;
    }
    return true;
}

// Walks all matches; an empty one is retried anchored and not empty, then passed over by a character.
typedef struct Walk {
    const char *text;
    size_t size, next, start, end; // start, end: of the match found
    uint32_t options, known; // known: PCRE2_NO_UTF_CHECK if all of the text is UTF-8, else 0
} Walk;

static bool next_match(lua_State *L, pcre2_code *code, Walk *w) {
    while (w->next <= w->size) {
        bool found = match(L, code, w->text, w->size, w->next, w->options | w->known);
        if (found) {
            const PCRE2_SIZE *at = pcre2_get_ovector_pointer(sandbox_of(L)->expressions->data);
            w->start = at[0];
            w->end = at[1];
            if (w->start > w->end || w->end < w->next) return false; // \K in a lookahead
            w->options = w->start == w->end ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0;
            w->next = w->end;
            return true;
        }
        if (!w->options) return false;
        w->options = 0;
        do w->next++;
        while (w->next < w->size && ((unsigned char)w->text[w->next] & 0xC0) == 0x80);
    }
    return false;
}

static int re_all(lua_State *L) {
    Walk w = {0};
    w.text = luaL_checklstring(L, 1, &w.size);
    w.known = is_utf8(L, w.text, w.size) ? PCRE2_NO_UTF_CHECK : 0;
    pcre2_code *code = compile(L, 2, w.known);
    uint32_t captures = capture_count(code);
    lua_Integer n = 0;
    lua_newtable(L);
    while (next_match(L, code, &w)) {
        if (captures == 0) {
            push_capture(L, w.text, 0);
        } else {
            lua_createtable(L, (int)captures, 0);
            for (uint32_t i = 1; i <= captures; i++) {
                push_capture(L, w.text, i);
                lua_rawseti(L, -2, i);
            }
        }
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

static void add_replacement(lua_State *L, luaL_Buffer *b, const Walk *w, const char *with, size_t size, uint32_t captures) {
    sandbox_charge(L, 1 + size / 8);
    for (size_t i = 0; i < size; i++) {
        if (with[i] != '$' || i + 1 == size) {
            luaL_addchar(b, with[i]);
        } else if (with[++i] == '$') {
            luaL_addchar(b, '$');
        } else if (with[i] >= '0' && with[i] <= '9' && (uint32_t)(with[i] - '0') <= captures) {
            push_capture(L, w->text, (uint32_t)(with[i] - '0'));
            if (lua_isboolean(L, -1)) {
                lua_pop(L, 1);
                continue;
            }
            sandbox_charge(L, lua_rawlen(L, -1) / 16);
            luaL_addvalue(b);
        } else {
            luaL_error(L, "re.replace: '$%c' in the replacement names no capture", with[i]);
        }
    }
}

static int re_replace(lua_State *L) {
    Walk w = {0};
    size_t with_size, copied = 0;
    w.text = luaL_checklstring(L, 1, &w.size);
    w.known = is_utf8(L, w.text, w.size) ? PCRE2_NO_UTF_CHECK : 0;
    pcre2_code *code = compile(L, 2, w.known);
    const char *with = luaL_checklstring(L, 3, &with_size);
    uint32_t captures = capture_count(code);
    lua_Integer n = 0;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (; next_match(L, code, &w); n++) {
        luaL_addlstring(&b, w.text + copied, w.start - copied);
        add_replacement(L, &b, &w, with, with_size, captures);
        copied = w.end;
    }
    luaL_addlstring(&b, w.text + copied, w.size - copied);
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}

void library_re(lua_State *L) {
    static const luaL_Reg own[] = {{"test", re_test}, {"find", re_find},       {"match", re_match},
                                   {"all", re_all},   {"replace", re_replace}, {NULL, NULL}};
    luaL_newlib(L, own);
    lua_setglobal(L, "re");
}
