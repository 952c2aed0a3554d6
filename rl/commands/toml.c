// A strict reader of TOML 1.0 (toml.io), for other programs' configurations. Tables, arrays of tables, dotted and quoted keys, all four
// kinds of strings, integers in four bases, floats, inline tables; a table or key defined twice is an error as the specification has
// it. Refused beyond it: nesting deeper than 64, more than MOST_TABLES tables, infinite numbers and NaN (JSON has none), NUL in keys.
// What is read is hostile: every access is checked against the end of the text.
#include "toml.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 64, MOST_TABLES = 4096, MOST_PARTS = 32 };
// How a table or array came to be, which decides who may add to it.
typedef enum Mark { MARK_NONE, MARK_HEADER, MARK_DOTTED, MARK_CLOSED, MARK_TABLES } Mark;
typedef struct Toml {
    const char *path, *start, *at, *end;
    json_t *root, *current;
    struct {
        const json_t *value;
        Mark mark;
    } marks[MOST_TABLES];
    int mark_count, depth;
    Err *err;
} Toml;

static bool bad(Toml *t, const char *what) {
    char where[256];
    size_t line = 1, column = 1;
    for (const char *p = t->start; p < t->at && p < t->end; p++) {
        column++;
        if (*p == '\n') line++, column = 1;
    }
    snprintf(where, sizeof where, "%.200s:%zu:%zu", t->path, line, column);
    return fail(t->err, ERR_DATA, where, "%s", what);
}
static int peek(const Toml *t) { return t->at < t->end ? (unsigned char)*t->at : -1; }
static bool take(Toml *t, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0) return false;
    t->at += n;
    return true;
}
static Mark mark_of(const Toml *t, const json_t *value) {
    for (int i = 0; i < t->mark_count; i++)
        if (t->marks[i].value == value) return t->marks[i].mark;
    return MARK_NONE;
}
static bool set_mark(Toml *t, const json_t *value, Mark mark) {
    if (t->mark_count == MOST_TABLES) return bad(t, "more than 4096 tables");
    t->marks[t->mark_count].value = value, t->marks[t->mark_count++].mark = mark;
    return true;
}

// ---- spaces ----------------------------------------------------------------------------------------------
static void skip_spaces(Toml *t) {
    while (peek(t) == ' ' || peek(t) == '\t') t->at++;
}
static bool skip_comment(Toml *t) {
    if (peek(t) != '#') return true;
    for (; t->at < t->end && *t->at != '\n'; t->at++) {
        int c = peek(t);
        bool carriage = c == '\r' && t->at + 1 < t->end && t->at[1] == '\n';
        if ((c < 32 && c != '\t' && !carriage) || c == 127) return bad(t, "a control character in a comment");
    }
    return true;
}
static bool take_newline(Toml *t) { return take(t, "\n") || take(t, "\r\n"); }
static bool end_line(Toml *t) {
    skip_spaces(t);
    TRY(skip_comment(t));
    return t->at == t->end || take_newline(t) || bad(t, "expected the end of the line");
}
// Within arrays: spaces, comments and line breaks.
static bool skip_all(Toml *t) {
    do {
        skip_spaces(t);
        TRY(skip_comment(t));
    } while (take_newline(t));
    return true;
}

// ---- strings ---------------------------------------------------------------------------------------------
static void put_point(Buf *out, uint32_t c) {
    char b[4];
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--) b[i] = (char)(0x80 | (c & 0x3f)), c >>= 6;
    b[0] = (char)(lead[n] | c);
    buf_append(out, b, (size_t)n);
}
static bool take_point(Toml *t, int digits, Buf *out) {
    uint32_t c = 0;
    for (int i = 0; i < digits; i++, t->at++) {
        static const char hex[] = "0123456789abcdef";
        int d = peek(t);
        const char *p = d > 0 ? strchr(hex, d >= 'A' && d <= 'F' ? d + 32 : d) : NULL;
        if (!p) return bad(t, "expected a hexadecimal digit");
        c = c << 4 | (uint32_t)(p - hex);
    }
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return bad(t, "an escape that is no character");
    put_point(out, c);
    return true;
}
static bool take_escape(Toml *t, bool lines, Buf *out) {
    static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
    int c = peek(t);
    const char *p = c > 0 ? strchr(names, c) : NULL;
    if (p) return t->at++, buf_append(out, &values[p - names], 1), true;
    if (c == 'u') return t->at++, take_point(t, 4, out);
    if (c == 'U') return t->at++, take_point(t, 8, out);
    const char *here = t->at;
    skip_spaces(t);
    if (lines && take_newline(t)) { // a line ending backslash: all white space after it
        for (;;) {
            skip_spaces(t);
            if (!take_newline(t)) return true;
        }
    }
    t->at = here;
    return bad(t, "an unknown escape");
}
// After the opening quotes. `quote` is '"' with escapes or '\'' without; `lines`: three quotes.
static bool take_string(Toml *t, char quote, bool lines, Buf *out) {
    char three[4] = {quote, quote, quote, 0};
    if (lines) take_newline(t);
    for (;;) {
        int c = peek(t);
        if (c < 0) return bad(t, "a string without an end");
        if (lines && take(t, three)) { // up to two quotes more belong to the string
            for (int i = 0; i < 2 && peek(t) == quote; i++, t->at++) buf_append(out, &quote, 1);
            return true;
        }
        if (!lines && c == quote) return t->at++, true;
        if (c == '\\' && quote == '"') {
            t->at++;
            TRY(take_escape(t, lines, out));
            continue;
        }
        bool newline = lines && (c == '\n' || (c == '\r' && t->at + 1 < t->end && t->at[1] == '\n'));
        if ((c < 32 && c != '\t' && !newline) || c == 127) return bad(t, "a control character in a string");
        buf_append(out, t->at++, 1);
    }
}
static bool string_value(Toml *t, json_t **out) {
    Buf text = {0};
    char quote = *t->at;
    bool lines = take(t, quote == '"' ? "\"\"\"" : "'''");
    if (!lines) t->at++;
    bool ok = take_string(t, quote, lines, &text);
    *out = ok ? json_stringn(text.data ? text.data : "", text.size) : NULL;
    buf_free(&text);
    return *out || (ok && bad(t, "a string is not valid UTF-8"));
}

// ---- numbers and words -----------------------------------------------------------------------------------
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
// Digits with single underscores between them, copied without; false: malformed.
static bool copy_digits(const char **p, const char *end, const char *digits, Buf *out) {
    size_t n = 0;
    for (; *p < end && (strchr(digits, **p) || **p == '_') && **p; ++*p) {
        if (**p != '_') buf_append(out, *p, 1), n++;
        else if (n == 0 || *p + 1 >= end || !strchr(digits, (*p)[1])) return false;
    }
    return n > 0;
}
static bool number_of(const char *p, const char *end, json_t **out) {
    static const struct {
        const char *prefix, *digits;
        int base;
    } bases[] = {{"0x", "0123456789abcdefABCDEF", 16}, {"0o", "01234567", 8}, {"0b", "01", 2}};
    Buf text = {0};
    bool ok = false, real = false;
    char *stop;
    for (int i = 0; i < COUNT(bases) && end - p > 2; i++)
        if (!memcmp(p, bases[i].prefix, 2)) {
            const char *q = p + 2;
            ok = copy_digits(&q, end, bases[i].digits, &text) && q == end && text.size <= 64;
            long long x = ok ? (errno = 0, strtoll(text.data, &stop, bases[i].base)) : 0;
            if (ok && errno == 0) *out = json_integer(x);
            buf_free(&text);
            return *out != NULL;
        }
    if (p < end && (*p == '+' || *p == '-')) buf_append(&text, p++, 1);
    const char *first = p;
    ok = copy_digits(&p, end, "0123456789", &text) && !(*first == '0' && p - first > 1);
    if (ok && p < end && *p == '.') buf_append(&text, p++, 1), real = true, ok = copy_digits(&p, end, "0123456789", &text);
    if (ok && p < end && (*p == 'e' || *p == 'E')) {
        buf_append(&text, p++, 1), real = true;
        if (p < end && (*p == '+' || *p == '-')) buf_append(&text, p++, 1);
        ok = copy_digits(&p, end, "0123456789", &text);
    }
    ok = ok && p == end && text.size < 400;
    if (ok && real) {
        double x = strtod(text.data, &stop);
        *out = isfinite(x) ? json_real(x) : NULL;
    } else if (ok) {
        errno = 0;
        long long x = strtoll(text.data, &stop, 10);
        *out = errno == 0 ? json_integer(x) : NULL;
    }
    buf_free(&text);
    return *out != NULL;
}
// 1979-05-27, 07:32:00, 1979-05-27T07:32:00.5-07:00: the shape alone.
static bool is_date(const char *p, const char *end) {
    size_t n = (size_t)(end - p);
    bool date = n >= 10 && p[4] == '-' && p[7] == '-', time = n >= 8 && p[2] == ':' && p[5] == ':';
    for (const char *c = p; c < end; c++)
        if (!is_digit(*c) && !strchr("-:.+TtZz ", *c)) return false;
    return (date || time) && is_digit(p[0]) && is_digit(p[n - 1 - (p[n - 1] == 'Z' || p[n - 1] == 'z')]);
}
static bool plain_value(Toml *t, json_t **out) {
    const char *start = t->at;
    while (t->at < t->end && !strchr(" \t\r\n,]}#", *t->at)) t->at++;
    if (t->at - start == 10 && is_date(start, t->at) && t->end - t->at > 8 && *t->at == ' ' && is_digit(t->at[1])) // a date, a space, a time
        for (t->at++; t->at < t->end && !strchr(" \t\r\n,]}#", *t->at);) t->at++;
    size_t n = (size_t)(t->at - start);
    if (n == 4 && !memcmp(start, "true", 4)) *out = json_true();
    else if (n == 5 && !memcmp(start, "false", 5)) *out = json_false();
    else if (n > 0 && is_date(start, t->at)) *out = json_stringn(start, n);
    else if (n == 0 || !number_of(start, t->at, out)) {
        t->at = start;
        return bad(t, "expected a value");
    }
    return *out || bad(t, "expected a value");
}

// ---- keys ------------------------------------------------------------------------------------------------
typedef struct Key {
    Buf part[MOST_PARTS]; // NUL-terminated
    int count;
} Key;
static void key_free(Key *k) {
    for (int i = 0; i < k->count; i++) buf_free(&k->part[i]);
    free(k);
}
static bool take_part(Toml *t, Buf *out) {
    static const char bare[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    int c = peek(t);
    if (c == '"' || c == '\'') {
        t->at++;
        TRY(take_string(t, (char)c, false, out));
    } else {
        const char *start = t->at;
        while (peek(t) > 0 && strchr(bare, peek(t))) t->at++;
        if (t->at == start) return bad(t, "expected a key");
        buf_append(out, start, (size_t)(t->at - start));
    }
    if (out->size && memchr(out->data, 0, out->size)) return bad(t, "NUL in a key");
    buf_append(out, "", 1);
    return true;
}
static bool take_key(Toml *t, Key *k) {
    do {
        skip_spaces(t);
        if (k->count == MOST_PARTS) return bad(t, "a key of more than 32 parts");
        TRY(take_part(t, &k->part[k->count++]));
        skip_spaces(t);
    } while (take(t, "."));
    return true;
}
static const char *part(const Key *k, int i) { return k->part[i].data; }
static bool put(Toml *t, json_t *table, const char *key, json_t *value) {
    return json_object_set_new(table, key, value) == 0 || bad(t, "a key is not valid UTF-8");
}

// ---- values ----------------------------------------------------------------------------------------------
static bool value_of(Toml *t, json_t **out);

static bool key_value(Toml *t, json_t *table) {
    Key *k = xcalloc(1, sizeof *k);
    json_t *value = NULL;
    bool ok = take_key(t, k);
    for (int i = 0; ok && i + 1 < k->count; i++) {
        json_t *next = json_object_get(table, part(k, i));
        if (!next) ok = put(t, table, part(k, i), json_object()) && (next = json_object_get(table, part(k, i))) && set_mark(t, next, MARK_DOTTED);
        else if (!json_is_object(next) || mark_of(t, next) != MARK_DOTTED) ok = bad(t, "a dotted key adds to what was defined elsewhere");
        table = next;
    }
    if (ok && json_object_get(table, part(k, k->count - 1))) ok = bad(t, "a key is defined twice");
    if (ok && !take(t, "=")) ok = bad(t, "expected '='");
    if (ok) skip_spaces(t);
    ok = ok && value_of(t, &value);
    if (ok) ok = put(t, table, part(k, k->count - 1), value);
    else json_decref(value);
    key_free(k);
    return ok;
}
static bool array_of(Toml *t, json_t *array) {
    for (;;) {
        json_t *value = NULL;
        TRY(skip_all(t));
        if (take(t, "]")) return true;
        if (!value_of(t, &value)) return json_decref(value), false;
        json_array_append_new(array, value);
        TRY(skip_all(t));
        if (take(t, "]")) return true;
        if (!take(t, ",")) return bad(t, "expected ',' or ']'");
    }
}
static bool inline_table(Toml *t, json_t *table) {
    skip_spaces(t);
    if (take(t, "}")) return true;
    for (;;) {
        TRY(key_value(t, table));
        skip_spaces(t);
        if (take(t, "}")) return true;
        if (!take(t, ",")) return bad(t, "expected ',' or '}'");
    }
}
static bool value_of(Toml *t, json_t **out) {
    int c = peek(t);
    bool ok;
    if (c == '"' || c == '\'') return string_value(t, out);
    if (c != '[' && c != '{') return plain_value(t, out);
    if (++t->depth > MOST_DEPTH) return bad(t, "nested more than 64 deep");
    t->at++;
    *out = c == '[' ? json_array() : json_object();
    ok = c == '[' ? array_of(t, *out) : inline_table(t, *out) && set_mark(t, *out, MARK_CLOSED);
    t->depth--;
    return ok;
}

// ---- headers ---------------------------------------------------------------------------------------------
static bool enter(Toml *t, json_t **table, const char *key) {
    json_t *next = json_object_get(*table, key);
    if (!next) {
        TRY(put(t, *table, key, json_object()));
        next = json_object_get(*table, key);
    } else if (json_is_array(next) && mark_of(t, next) == MARK_TABLES) next = json_array_get(next, json_array_size(next) - 1);
    if (!json_is_object(next) || mark_of(t, next) == MARK_CLOSED) return bad(t, "a table within what is no table");
    *table = next;
    return true;
}
static bool open_tables(Toml *t, json_t *table, const char *key) {
    json_t *list = json_object_get(table, key);
    if (!list) {
        TRY(put(t, table, key, json_array()));
        list = json_object_get(table, key);
        TRY(set_mark(t, list, MARK_TABLES));
    }
    if (mark_of(t, list) != MARK_TABLES) return bad(t, "an array of tables is defined as something else before");
    json_array_append_new(list, t->current = json_object());
    return set_mark(t, t->current, MARK_HEADER);
}
static bool open_table(Toml *t, json_t *table, const char *key) {
    json_t *there = json_object_get(table, key);
    if (there && (!json_is_object(there) || mark_of(t, there) != MARK_NONE)) return bad(t, "a table is defined twice");
    if (!there) TRY(put(t, table, key, json_object()));
    t->current = json_object_get(table, key);
    return set_mark(t, t->current, MARK_HEADER);
}
static bool header(Toml *t) {
    Key *k = xcalloc(1, sizeof *k);
    bool many = take(t, "[["), ok = (many || take(t, "[")) && take_key(t, k);
    json_t *table = t->root;
    for (int i = 0; ok && i + 1 < k->count; i++) ok = enter(t, &table, part(k, i));
    if (ok) ok = many ? open_tables(t, table, part(k, k->count - 1)) : open_table(t, table, part(k, k->count - 1));
    if (ok && !take(t, many ? "]]" : "]")) ok = bad(t, "expected the end of the table's name");
    key_free(k);
    return ok;
}

static bool document(Toml *t) {
    if ((size_t)(t->end - t->at) >= 3 && !memcmp(t->at, "\xef\xbb\xbf", 3)) t->at += 3;
    while (t->at < t->end) {
        skip_spaces(t);
        if (peek(t) == '[') TRY(header(t));
        else if (peek(t) >= 0 && !strchr("#\r\n", peek(t))) TRY(key_value(t, t->current));
        TRY(end_line(t));
    }
    return true;
}

bool toml_parse(const char *text, size_t size, const char *path, json_t **out, Err *err) {
    Toml *t = xcalloc(1, sizeof *t);
    *t = (Toml){.path = path, .start = text, .at = text, .end = text + size, .root = json_object(), .err = err};
    t->current = t->root;
    json_t *whole = json_stringn(text, size); // comments too have to be UTF-8
    bool ok = (whole || bad(t, "the file is not valid UTF-8")) && document(t);
    json_decref(whole);
    *out = ok ? t->root : NULL;
    if (!ok) json_decref(t->root);
    free(t);
    return ok;
}
