// Lua's patterns, matched with a count of steps.
#ifndef RECKON_PATTERN_H
#define RECKON_PATTERN_H
#include "script.h"

enum { PATTERN_CAPTURES = 32 };
typedef struct PatternMatch {
    lua_State *L;
    const char *subject, *subject_end, *pattern_end;
    uint64_t *fuel; // taken from directly, one for each step
    int depth;
    int level; // captures, finished or not
    struct {
        const char *start;
        ptrdiff_t size;
    } capture[PATTERN_CAPTURES];
} PatternMatch;

void pattern_start(PatternMatch *m, lua_State *L, const char *subject, size_t subject_size, const char *pattern,
                   size_t pattern_size);
// The end of the match of `pattern` that begins at `s`, NULL if there is none. Raises on a malformed pattern and
// when the budget ends.
const char *pattern_match(PatternMatch *m, const char *s, const char *pattern);
// Pushes all captures, or the whole match if there are none (s may be NULL then: nothing is pushed). Returns the count.
int pattern_push_captures(PatternMatch *m, const char *s, const char *end);
// Pushes capture i (0-based); the whole match if i is 0 and there are none.
void pattern_push_capture(PatternMatch *m, int i, const char *s, const char *end);

#endif
