// The pattern language of the Lua 5.4 reference manual (section 6.4.1) as a backtracking matcher that pays for each
// step: Lua's own can't be interrupted, and `.-.-.-.-b` on a long text would hang it.
#include "pattern.h"
#include <ctype.h>
#include <string.h>

enum { MAX_DEPTH = 200, OPEN = -1, POSITION = -2 };

void pattern_start(PatternMatch *m, lua_State *L, const char *subject, size_t subject_size, const char *pattern,
                   size_t pattern_size) {
    *m = (PatternMatch){.L = L, .subject = subject, .subject_end = subject + subject_size,
                        .pattern_end = pattern + pattern_size, .fuel = &sandbox_of(L)->fuel_left};
}

static inline void step(PatternMatch *m) {
    if (*m->fuel <= 1) sandbox_charge(m->L, 1); // raises
    --*m->fuel;
}

// ---- single characters ---------------------------------------------------------------------------------------------
static bool in_class(int c, int class) {
    bool result;
    switch (tolower(class)) {
    case 'a': result = isalpha(c); break;
    case 'c': result = iscntrl(c); break;
    case 'd': result = isdigit(c); break;
    case 'g': result = isgraph(c); break;
    case 'l': result = islower(c); break;
    case 'p': result = ispunct(c); break;
    case 's': result = isspace(c); break;
    case 'u': result = isupper(c); break;
    case 'w': result = isalnum(c); break;
    case 'x': result = isxdigit(c); break;
    default: return class == c; // an escaped character
    }
    return isupper(class) ? !result : result;
}

// The place after the single-character item at `p`.
static const char *item_end(PatternMatch *m, const char *p) {
    if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    char c = *p++;
    if (c == '%') {
        if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (c != '[') return p;
    if (p < m->pattern_end && *p == '^') p++;
    do { // a ']' at the start stands for itself
        if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
        c = *p++;
        if (c == '%') {
            if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
            p++;
        }
    } while (p == m->pattern_end || *p != ']');
    return p + 1;
}

// `p` at '[', `last` at its ']'.
static bool in_set(PatternMatch *m, int c, const char *p, const char *last) {
    bool inside = true;
    if (p[1] == '^') inside = false, p++;
    while (++p < last) {
        step(m);
        if (*p == '%') {
            if (in_class(c, (unsigned char)*++p)) return inside;
        } else if (p[1] == '-' && p + 2 < last) {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2]) return inside;
            p += 2;
        } else if ((unsigned char)*p == c) {
            return inside;
        }
    }
    return !inside;
}

static bool one_matches(PatternMatch *m, const char *s, const char *p, const char *p_end) {
    if (s >= m->subject_end) return false;
    step(m);
    int c = (unsigned char)*s;
    switch (*p) {
    case '.': return true;
    case '%': return in_class(c, (unsigned char)p[1]);
    case '[': return in_set(m, c, p, p_end - 1);
    default: return (unsigned char)*p == c;
    }
}

// ---- items ---------------------------------------------------------------------------------------------------------
static const char *match_balanced(PatternMatch *m, const char *s, const char *p) {
    if (m->pattern_end - p < 2) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->subject_end || *s != p[0]) return NULL;
    for (int open = 1; ++s < m->subject_end;) {
        step(m);
        if (*s == p[1]) {
            if (--open == 0) return s + 1;
        } else if (*s == p[0]) {
            open++;
        }
    }
    return NULL;
}

static const char *match_frontier(PatternMatch *m, const char *s, const char **p) {
    if (*p >= m->pattern_end || **p != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
    const char *end = item_end(m, *p);
    int before = s == m->subject ? 0 : (unsigned char)s[-1], at = s < m->subject_end ? (unsigned char)*s : 0;
    bool matched = !in_set(m, before, *p, end - 1) && in_set(m, at, *p, end - 1);
    *p = end;
    return matched ? s : NULL;
}

static const char *match_back_reference(PatternMatch *m, const char *s, int digit) {
    int i = digit - '1';
    if (i < 0 || i >= m->level || m->capture[i].size == OPEN)
        luaL_error(m->L, "invalid capture index %%%d in pattern", i + 1);
    if (m->capture[i].size == POSITION) return s;
    size_t size = (size_t)m->capture[i].size;
    sandbox_charge(m->L, 1 + size / 16);
    if ((size_t)(m->subject_end - s) < size || memcmp(m->capture[i].start, s, size) != 0) return NULL;
    return s + size;
}

static const char *open_capture(PatternMatch *m, const char *s, const char *p, ptrdiff_t what) {
    if (m->level >= PATTERN_CAPTURES) luaL_error(m->L, "too many captures");
    m->capture[m->level].start = s;
    m->capture[m->level].size = what;
    m->level++;
    const char *end = pattern_match(m, s, p);
    if (!end) m->level--;
    return end;
}

static const char *close_capture(PatternMatch *m, const char *s, const char *p) {
    int i = m->level - 1;
    while (i >= 0 && m->capture[i].size != OPEN) i--;
    if (i < 0) luaL_error(m->L, "invalid pattern capture");
    m->capture[i].size = s - m->capture[i].start;
    const char *end = pattern_match(m, s, p);
    if (!end) m->capture[i].size = OPEN;
    return end;
}

static const char *match_longest(PatternMatch *m, const char *s, const char *p, const char *p_end) {
    ptrdiff_t count = 0;
    while (one_matches(m, s + count, p, p_end)) count++;
    for (; count >= 0; count--) {
        step(m);
        const char *end = pattern_match(m, s + count, p_end + 1);
        if (end) return end;
    }
    return NULL;
}

static const char *match_shortest(PatternMatch *m, const char *s, const char *p, const char *p_end) {
    for (;; s++) {
        step(m);
        const char *end = pattern_match(m, s, p_end + 1);
        if (end || !one_matches(m, s, p, p_end)) return end;
    }
}

// ---- the pattern -----------------------------------------------------------------------------------------------------
static const char *match_here(PatternMatch *m, const char *s, const char *p) {
    while (p != m->pattern_end) {
        step(m);
        if (*p == '(') {
            bool position = p + 1 < m->pattern_end && p[1] == ')';
            return open_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
        }
        if (*p == ')') return close_capture(m, s, p + 1);
        if (*p == '$' && p + 1 == m->pattern_end) return s == m->subject_end ? s : NULL;
        if (*p == '%' && p + 1 < m->pattern_end) {
            if (p[1] == 'b') {
                if (!(s = match_balanced(m, s, p + 2))) return NULL;
                p += 4;
                continue;
            }
            if (p[1] == 'f') {
                p += 2;
                if (!match_frontier(m, s, &p)) return NULL;
                continue;
            }
            if (isdigit((unsigned char)p[1])) {
                if (!(s = match_back_reference(m, s, p[1]))) return NULL;
                p += 2;
                continue;
            }
        }
        const char *end = item_end(m, p);
        char repeat = end < m->pattern_end ? *end : 0;
        if (repeat == '*') return match_longest(m, s, p, end);
        if (repeat == '+') return one_matches(m, s, p, end) ? match_longest(m, s + 1, p, end) : NULL;
        if (repeat == '-') return match_shortest(m, s, p, end);
        if (repeat == '?') {
            if (one_matches(m, s, p, end)) {
                const char *rest = pattern_match(m, s + 1, end + 1);
                if (rest) return rest;
            }
            p = end + 1;
            continue;
        }
        if (!one_matches(m, s, p, end)) return NULL;
        s++;
        p = end;
    }
    return s;
}

const char *pattern_match(PatternMatch *m, const char *s, const char *pattern) {
    if (++m->depth > MAX_DEPTH) sandbox_exhaust(m->L, EXHAUSTED_DEPTH);
    const char *end = match_here(m, s, pattern);
    m->depth--;
    return end;
}

void pattern_push_capture(PatternMatch *m, int i, const char *s, const char *end) {
    if (i >= m->level) {
        if (i != 0) luaL_error(m->L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(m->L, s, (size_t)(end - s));
    } else if (m->capture[i].size == POSITION) {
        lua_pushinteger(m->L, m->capture[i].start - m->subject + 1);
    } else {
        if (m->capture[i].size == OPEN) luaL_error(m->L, "unfinished capture");
        lua_pushlstring(m->L, m->capture[i].start, (size_t)m->capture[i].size);
    }
}
int pattern_push_captures(PatternMatch *m, const char *s, const char *end) {
    int count = m->level == 0 && s ? 1 : m->level;
    luaL_checkstack(m->L, count, "too many captures");
    for (int i = 0; i < count; i++) pattern_push_capture(m, i, s, end);
    return count;
}
