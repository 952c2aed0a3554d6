// Where a completion says its answer: one pass over the text for each way of saying it, no backtracking, so that a
// hostile text costs no more than its length. The rules, the same for all of them:
//
//   thinking   only text after the last "</think>" counts; a "<think>" that nothing closes hides all
//   nested     the innermost closed one: <answer>1<answer>2</answer> says 2
//   missing    an opening without its end, or an end without its opening, says nothing
//   repeated   the last one counts
#include "extract.h"
#include <string.h>

static const char *find(const char *p, const char *end, const char *what) {
    return end > p ? memmem(p, (size_t)(end - p), what, strlen(what)) : NULL;
}
static const char *find_last(TextSpan text, const char *what) {
    const char *last = NULL, *end = text.data + text.size;
    for (const char *p = text.data; (p = find(p, end, what)); p++) last = p;
    return last;
}

// Bytes of a blank at the start of `t`, or at its end.
static size_t blank_before(TextSpan t, bool at_end) {
    static const char *const wide[] = {"\xC2\xA0", "\xC2\x85", "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84",
                                       "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
                                       "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
    if (!t.size) return 0;
    unsigned char c = (unsigned char)t.data[at_end ? t.size - 1 : 0];
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F)) return 1;
    for (int i = 0; c >= 0x80 && i < COUNT(wide); i++) {
        size_t n = strlen(wide[i]);
        if (t.size >= n && memcmp(at_end ? t.data + t.size - n : t.data, wide[i], n) == 0) return n;
    }
    return 0;
}
TextSpan extract_trim(TextSpan t) {
    for (size_t n; (n = blank_before(t, false));) t.data += n, t.size -= n;
    for (size_t n; (n = blank_before(t, true));) t.size -= n;
    return t;
}

bool extract_after_thinking(TextSpan text, TextSpan *out) {
    const char *close = find_last(text, "</think>"), *start = close ? close + 8 : text.data;
    *out = (TextSpan){start, (size_t)(text.data + text.size - start)};
    return !find(start, text.data + text.size, "<think>");
}

bool extract_last_tag(TextSpan text, TextSpan *out) {
    const char *p = text.data, *end = text.data + text.size, *open = NULL;
    bool found = false;
    while (p < end && (p = memchr(p, '<', (size_t)(end - p)))) {
        if (end - p >= 8 && memcmp(p, "<answer>", 8) == 0) {
            open = p += 8;
        } else if (end - p >= 9 && memcmp(p, "</answer>", 9) == 0) {
            if (open) *out = extract_trim((TextSpan){open, (size_t)(p - open)}), found = true;
            open = NULL;
            p += 9;
        } else {
            p++;
        }
    }
    return found;
}

bool extract_answer_tag(TextSpan text, TextSpan *out) {
    TextSpan rest;
    return extract_after_thinking(text, &rest) && extract_last_tag(rest, out);
}

bool extract_boxed(TextSpan text, TextSpan *out) {
    TextSpan rest;
    if (!extract_after_thinking(text, &rest)) return false;
    const char *p = rest.data, *end = rest.data + rest.size, *start = NULL;
    bool found = false;
    int depth = 0; // of braces since the latest box that is open
    for (; p < end; p++) {
        if (*p == '\\' && end - p >= 7 && memcmp(p, "\\boxed{", 7) == 0) {
            p += 6;
            start = p + 1, depth = 1; // a box inside of a box: the inner one
        } else if (*p == '\\' && end - p >= 6 && memcmp(p, "\\fbox{", 6) == 0) {
            p += 5;
            start = p + 1, depth = 1;
        } else if (*p == '\\') {
            p++;
        } else if (start && *p == '{') {
            depth++;
        } else if (start && *p == '}' && --depth == 0) {
            *out = extract_trim((TextSpan){start, (size_t)(p - start)});
            found = true;
            start = NULL;
        }
    }
    return found;
}

bool extract_hash(TextSpan text, TextSpan *out) {
    TextSpan rest;
    if (!extract_after_thinking(text, &rest)) return false;
    const char *mark = find_last(rest, "####"), *end = rest.data + rest.size;
    if (!mark) return false;
    const char *line = memchr(mark, '\n', (size_t)(end - mark));
    *out = extract_trim((TextSpan){mark + 4, (size_t)((line ? line : end) - mark - 4)});
    return out->size > 0;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool extract_number(TextSpan text, TextSpan *out) {
    TextSpan rest;
    if (!extract_after_thinking(text, &rest)) return false;
    const char *begin = rest.data, *last = rest.data + rest.size;
    while (last > begin && !is_digit(last[-1])) last--;
    if (last == begin) return false;
    const char *first = last - 1;
    while (first > begin && (is_digit(first[-1]) || ((first[-1] == '.' || first[-1] == ',') && first - 1 > begin && is_digit(first[-2])))) first--;
    if (first > begin && first[-1] == '.') first--; // .5
    if (first > begin && first[-1] == '-' && (first - 1 == begin || !is_digit(first[-2]))) first--;
    else if (first - begin >= 3 && memcmp(first - 3, "\xE2\x88\x92", 3) == 0) first -= 3; // the true minus
    *out = (TextSpan){first, (size_t)(last - first)};
    return true;
}

// ---- code and JSON ------------------------------------------------------------------------------------------------
static bool fence_at(const char *p, const char *begin, const char *end) { // three backticks at the start of a line
    if (end - p < 3 || memcmp(p, "```", 3) != 0) return false;
    while (p > begin && (p[-1] == ' ' || p[-1] == '\t')) p--;
    return p == begin || p[-1] == '\n';
}

bool extract_code(TextSpan text, const char *language, TextSpan *out) {
    TextSpan rest;
    if (!extract_after_thinking(text, &rest)) return false;
    const char *begin = rest.data, *end = rest.data + rest.size, *start = NULL;
    bool found = false, wanted = false;
    for (const char *p = begin; p < end && (p = find(p, end, "```"));) {
        if (!fence_at(p, begin, end)) {
            p += 3;
            continue;
        }
        const char *line = memchr(p, '\n', (size_t)(end - p));
        TextSpan name = extract_trim((TextSpan){p + 3, (size_t)((line ? line : end) - p - 3)});
        if (!start || name.size) { // opens; a name never closes
            wanted = !language || (name.size == strlen(language) && memcmp(name.data, language, name.size) == 0);
            start = line ? line + 1 : end;
        } else {
            if (wanted) *out = (TextSpan){start, (size_t)(p - start)}, found = true;
            start = NULL;
        }
        p = line ? line + 1 : end;
    }
    return found;
}

bool extract_json(TextSpan text, TextSpan *out) {
    TextSpan rest, code;
    if (extract_code(text, "json", &code)) rest = code;
    else if (!extract_after_thinking(text, &rest)) return false;
    enum { DEPTH = 256 };
    char closes[DEPTH];
    const char *end = rest.data + rest.size, *start = NULL;
    int depth = 0;
    bool found = false;
    for (const char *p = rest.data; p < end; p++) {
        if (depth && *p == '"') { // a text: to its end
            for (p++; p < end && *p != '"' && *p != '\n'; p++)
                if (*p == '\\') p++;
            if (p >= end || *p != '"') depth = 0; // no JSON after all
        } else if (*p == '{' || *p == '[') {
            if (depth == DEPTH) return false;
            if (depth == 0) start = p;
            closes[depth++] = *p == '{' ? '}' : ']';
        } else if (depth && (*p == '}' || *p == ']')) {
            if (*p != closes[depth - 1]) depth = 0;
            else if (--depth == 0) *out = (TextSpan){start, (size_t)(p + 1 - start)}, found = true;
        }
    }
    return found;
}
