// Tokens of a template, by Jinja's rules: trim_blocks and lstrip_blocks are on, a final newline is dropped, line ends are
// unified, {% raw %} is text. Everything is refused that isn't a token, with its line.
#include "template_parts.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool template_fail(const Template *t, int line, Err *err, const char *format, ...) {
    char where[256], msg[600];
    va_list args;
    va_start(args, format);
    vsnprintf(msg, sizeof msg, format, args);
    va_end(args);
    snprintf(where, sizeof where, "%.220s:%d", t->where, line);
    return fail(err, ERR_DATA, where, "%s", msg);
}

typedef struct Lexer {
    Template *t;
    Text source;
    uint32_t at;
    int line;
    bool line_starting; // the token before ended a line
    TokenList *out;
    Err *err;
    char stack[200]; // closing brackets that are open
    int depth;
} Lexer;

static void add(Lexer *l, TemplateToken token) {
    TokenList *o = l->out;
    if (o->count == o->capacity) {
        o->capacity = o->capacity * 2 + 64;
        o->list = xrealloc(o->list, (size_t)o->capacity * sizeof *o->list);
    }
    token.line = token.line ? token.line : l->line;
    o->list[o->count++] = token;
}
static void add_text(Lexer *l, TokenKind kind, uint32_t from, uint32_t to) {
    add(l, (TemplateToken){.kind = kind, .text = text_make(&l->t->heap, l->source.data + from, to - from)});
}
static bool at_is(const Lexer *l, uint32_t at, const char *text) {
    size_t n = strlen(text);
    return at + n <= l->source.size && memcmp(l->source.data + at, text, n) == 0;
}
static char byte(const Lexer *l, uint32_t at) { return at < l->source.size ? l->source.data[at] : 0; }
static uint32_t skip_space(const Lexer *l, uint32_t at) {
    uint32_t n;
    while (at < l->source.size && code_space(text_code(&l->source, at, &n))) at += n;
    return at;
}
static uint32_t strip_end(const Lexer *l, uint32_t from, uint32_t to) {
    while (to > from) {
        uint32_t start = to - 1, n;
        while (((unsigned char)l->source.data[start] & 0xC0) == 0x80) start--;
        if (!code_space(text_code(&l->source, start, &n))) break;
        to = start;
    }
    return to;
}
static void advance(Lexer *l, uint32_t to) { // counts lines
    for (; l->at < to; l->at++) l->line += l->source.data[l->at] == '\n';
}

// Text up to a tag that begins at `to` with this sign behind its two characters. lstrip_blocks drops the blanks between
// the start of the line and a tag that prints nothing.
static void add_data(Lexer *l, uint32_t to, char sign, bool prints) {
    uint32_t from = l->at, end = to;
    if (sign == '-') {
        end = strip_end(l, from, to);
    } else if (sign != '+' && !prints) {
        uint32_t start = to;
        while (start > from && l->source.data[start - 1] != '\n') start--;
        if ((start > from || l->line_starting) && skip_space(l, start) >= to) end = start;
    }
    if (end > from) add_text(l, TOKEN_DATA, from, end);
    advance(l, to);
}
// Behind a tag's end: "-" drops white space, otherwise trim_blocks drops one newline.
static void after_tag(Lexer *l, uint32_t at, bool minus, bool trim) {
    uint32_t end = minus ? skip_space(l, at) : trim && byte(l, at) == '\n' ? at + 1 : at;
    advance(l, end);
    l->line_starting = l->source.data[end - 1] == '\n';
}

// ---- comments and raw text -----------------------------------------------------------------------------------------
static bool lex_comment(Lexer *l) {
    int line = l->line;
    uint32_t at = l->at + 2;
    at += byte(l, at) == '-' || byte(l, at) == '+';
    const char *hit = memmem(l->source.data + at, l->source.size - at, "#}", 2);
    if (!hit) return template_fail(l->t, line, l->err, "missing end of comment tag");
    uint32_t end = (uint32_t)(hit - l->source.data);
    char sign = end > at ? l->source.data[end - 1] : 0;
    after_tag(l, end + 2, sign == '-', sign != '+');
    return true;
}
// If "{% WORD %}" stands at `at`: the place behind its "%}" and its signs.
static bool bare_tag(const Lexer *l, uint32_t at, const char *word, char *before, char *after, uint32_t *end) {
    if (!at_is(l, at, "{%")) return false;
    at += 2;
    *before = byte(l, at) == '-' || byte(l, at) == '+' ? byte(l, at) : 0;
    at = skip_space(l, at + (*before != 0));
    if (!at_is(l, at, word)) return false;
    at = skip_space(l, at + (uint32_t)strlen(word));
    *after = byte(l, at) == '-' || byte(l, at) == '+' ? byte(l, at) : 0;
    at += *after != 0;
    *end = at + 2;
    return at_is(l, at, "%}");
}
static bool lex_raw(Lexer *l, uint32_t start, char after) {
    char sign, end_sign;
    uint32_t end;
    int line = l->line;
    advance(l, after == '-' ? skip_space(l, start) : start);
    l->line_starting = l->source.data[l->at - 1] == '\n';
    for (uint32_t at = l->at; at < l->source.size; at++) {
        if (!bare_tag(l, at, "endraw", &sign, &end_sign, &end)) continue;
        add_data(l, at, sign, false);
        after_tag(l, end, end_sign == '-', end_sign != '+');
        return true;
    }
    return template_fail(l->t, line, l->err, "missing end of raw directive");
}

// ---- inside tags ---------------------------------------------------------------------------------------------------
static int hex_digits(const Lexer *l, uint32_t at, uint32_t end, int count, int32_t *code) {
    *code = 0;
    for (int i = 0; i < count; i++) {
        char c = at + (uint32_t)i < end ? l->source.data[at + (uint32_t)i] : 0;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        *code = *code * 16 + digit;
    }
    return count;
}
static void put_code(Buf *b, int32_t code) {
    char bytes[4];
    int n = 0;
    if (code < 0x80) bytes[n++] = (char)code;
    else if (code < 0x800) bytes[n++] = (char)(0xC0 | code >> 6), bytes[n++] = (char)(0x80 | (code & 63));
    else if (code < 0x10000)
        bytes[n++] = (char)(0xE0 | code >> 12), bytes[n++] = (char)(0x80 | (code >> 6 & 63)), bytes[n++] = (char)(0x80 | (code & 63));
    else
        bytes[n++] = (char)(0xF0 | code >> 18), bytes[n++] = (char)(0x80 | (code >> 12 & 63)),
        bytes[n++] = (char)(0x80 | (code >> 6 & 63)), bytes[n++] = (char)(0x80 | (code & 63));
    buf_append(b, bytes, (size_t)n);
}
// One escape of a string literal, Python's; `at` is behind the backslash. Returns how many bytes it takes, 0 if malformed.
static uint32_t lex_escape(Lexer *l, uint32_t at, uint32_t end, Buf *value) {
    char c = l->source.data[at];
    const char *from = "\\'\"abfnrtv", *hit = strchr(from, c);
    int32_t code = 0;
    if (c == '\n') return 1;
    if (hit) return put_code(value, "\\'\"\a\b\f\n\r\t\v"[hit - from]), 1;
    if (c >= '0' && c <= '7') {
        uint32_t n = 0;
        for (; n < 3 && at + n < end && l->source.data[at + n] >= '0' && l->source.data[at + n] <= '7'; n++)
            code = code * 8 + (l->source.data[at + n] - '0');
        return put_code(value, code), n;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits) {
        bool ok = hex_digits(l, at + 1, end, digits, &code) > 0 && code >= 0 && code < 0x110000 && (code < 0xD800 || code > 0xDFFF);
        return ok ? put_code(value, code), 1 + (uint32_t)digits : 0;
    }
    if (c == 'N') return 0;
    buf_puts(value, "\\"); // an unknown escape stays
    if ((unsigned char)c < 0x80) return buf_append(value, &c, 1), 1;
    uint32_t n;
    code = text_code(&l->source, at, &n);
    buf_printf(value, code < 0x100 ? "x%02x" : code < 0x10000 ? "u%04x" : "U%08x", (unsigned)code);
    return n;
}
static bool lex_string(Lexer *l) {
    char quote = byte(l, l->at);
    uint32_t end = l->at + 1;
    while (end < l->source.size && l->source.data[end] != quote) end += l->source.data[end] == '\\' ? 2 : 1;
    if (end >= l->source.size) return template_fail(l->t, l->line, l->err, "a text that doesn't end");
    Buf value = {0};
    bool ok = true;
    for (uint32_t at = l->at + 1; ok && at < end;) {
        if (l->source.data[at] != '\\') {
            buf_append(&value, l->source.data + at++, 1);
            continue;
        }
        uint32_t n = lex_escape(l, at + 1, end, &value);
        ok = n > 0;
        at += 1 + n;
    }
    if (ok) add(l, (TemplateToken){.kind = TOKEN_STRING, .text = text_make(&l->t->heap, value.data ? value.data : "", value.size)});
    buf_free(&value);
    if (!ok) return template_fail(l->t, l->line, l->err, "a malformed escape in a text");
    advance(l, end + 1);
    return true;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
// (\d+_)*\d+
static uint32_t digits_end(const Lexer *l, uint32_t at) {
    while (is_digit(byte(l, at)) || (byte(l, at) == '_' && is_digit(byte(l, at + 1)) && is_digit(byte(l, at - 1)))) at++;
    return at;
}
static uint32_t float_end(const Lexer *l, uint32_t at) { // `at` itself if it is no float
    uint32_t end = digits_end(l, at), start = at;
    bool ok = false;
    if (start > 0 && l->source.data[start - 1] == '.') return at;
    if (byte(l, end) == '.' && is_digit(byte(l, end + 1))) end = digits_end(l, end + 1), ok = true;
    if ((byte(l, end) | 32) == 'e') {
        uint32_t e = end + 1;
        e += byte(l, e) == '+' || byte(l, e) == '-';
        if (is_digit(byte(l, e))) end = digits_end(l, e), ok = true;
    }
    return ok ? end : at;
}
static bool base_digit(char c, int base) {
    return base == 16 ? is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f') : c >= '0' && c < '0' + base;
}
static uint32_t int_end(const Lexer *l, uint32_t at) {
    char mark = byte(l, at) == '0' ? (char)(byte(l, at + 1) | 32) : 0;
    int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    uint32_t end = at + 2;
    while (base && (base_digit(byte(l, end), base) || (byte(l, end) == '_' && base_digit(byte(l, end + 1), base)))) end++;
    if (base && end > at + 2) return end;
    if (byte(l, at) != '0') return digits_end(l, at);
    for (end = at + 1; byte(l, end) == '0' || (byte(l, end) == '_' && byte(l, end + 1) == '0');) end++;
    return end;
}
static bool lex_number(Lexer *l) {
    uint32_t end = float_end(l, l->at);
    bool real = end > l->at;
    if (!real) end = int_end(l, l->at);
    Text text = {l->source.data + l->at, end - l->at, end - l->at};
    TemplateToken token = {.kind = real ? TOKEN_FLOAT : TOKEN_INT};
    bool ok = real ? text_to_float(&text, &token.number) : text_to_int(&text, 0, &token.integer);
    if (!ok) return template_fail(l->t, l->line, l->err, "the number %.40s is out of range", text.data);
    add(l, token);
    advance(l, end);
    return true;
}

static bool lex_operator(Lexer *l) {
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
                                            "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";"};
    int found = -1;
    for (int i = 0; i < COUNT(operators) && found < 0; i++)
        if (at_is(l, l->at, operators[i])) found = i;
    if (found < 0) return template_fail(l->t, l->line, l->err, "unexpected character '%.1s'", l->source.data + l->at);
    const char *op = operators[found];
    if (strchr("([{", op[0])) {
        if (l->depth == COUNT(l->stack)) return template_fail(l->t, l->line, l->err, "brackets are nested too deeply");
        l->stack[l->depth++] = op[0] == '(' ? ')' : op[0] == '[' ? ']' : '}';
    } else if (strchr(")]}", op[0])) {
        if (!l->depth || l->stack[--l->depth] != op[0]) return template_fail(l->t, l->line, l->err, "unexpected '%s'", op);
    }
    uint32_t end = l->at + (uint32_t)strlen(op);
    add_text(l, TOKEN_OPERATOR, l->at, end);
    advance(l, end);
    return true;
}
// The end of a tag is only one where no bracket is open.
static bool tag_end(Lexer *l, bool prints) {
    const char *close = prints ? "}}" : "%}";
    char sign = byte(l, l->at);
    bool signed_end = (sign == '-' || (sign == '+' && !prints)) && at_is(l, l->at + 1, close);
    if (l->depth || (!signed_end && !at_is(l, l->at, close))) return false;
    add(l, (TemplateToken){.kind = prints ? TOKEN_PRINT_END : TOKEN_TAG_END});
    after_tag(l, l->at + 2 + signed_end, signed_end && sign == '-', !prints && !signed_end);
    return true;
}
static bool starts_name(const Lexer *l, uint32_t at, uint32_t *size) {
    int32_t code = text_code(&l->source, at, size);
    return code_word(code) && !is_digit((char)code);
}
static bool lex_tag(Lexer *l, bool prints) {
    add(l, (TemplateToken){.kind = prints ? TOKEN_PRINT_BEGIN : TOKEN_TAG_BEGIN});
    l->at += 2;
    l->at += byte(l, l->at) == '-' || byte(l, l->at) == '+';
    l->depth = 0;
    for (uint32_t n; l->at < l->source.size;) {
        if (tag_end(l, prints)) return true;
        uint32_t end = skip_space(l, l->at);
        if (end > l->at) {
            advance(l, end);
        } else if (is_digit(byte(l, l->at))) {
            TRY(lex_number(l));
        } else if (starts_name(l, l->at, &n)) {
            for (end = l->at; end < l->source.size && code_word(text_code(&l->source, end, &n));) end += n;
            add_text(l, TOKEN_NAME, l->at, end);
            advance(l, end);
        } else if (byte(l, l->at) == '\'' || byte(l, l->at) == '"') {
            TRY(lex_string(l));
        } else {
            TRY(lex_operator(l));
        }
    }
    return true; // the parser finds that something is missing
}

// ---- the whole -------------------------------------------------------------------------------------------------------
static void unify_lines(Lexer *l) {
    const char *s = l->t->source;
    size_t size = strlen(s), n = 0;
    char *copy = heap_alloc(&l->t->heap, size + 1);
    for (size_t i = 0; i < size; i++) {
        if (s[i] == '\r' && s[i + 1] == '\n') continue;
        copy[n++] = s[i] == '\r' ? '\n' : s[i];
    }
    if (n && copy[n - 1] == '\n') n--;
    l->source = (Text){copy, (uint32_t)n, 0};
}
bool template_lex(Template *t, TokenList *out, Err *err) {
    Lexer lexer = {.t = t, .line = 1, .line_starting = true, .out = out, .err = err}, *l = &lexer;
    unify_lines(l);
    while (l->at < l->source.size) {
        uint32_t tag = l->at, end;
        while (tag < l->source.size && !(l->source.data[tag] == '{' && byte(l, tag + 1) && strchr("{%#", byte(l, tag + 1)))) tag++;
        if (tag == l->source.size) {
            add_text(l, TOKEN_DATA, l->at, tag);
            advance(l, tag);
            break;
        }
        char kind = byte(l, tag + 1), sign = byte(l, tag + 2), before, after;
        add_data(l, tag, sign, kind == '{');
        if (bare_tag(l, tag, "raw", &before, &after, &end) && after != '+') {
            TRY(lex_raw(l, end, after));
        } else if (kind == '#') {
            TRY(lex_comment(l));
        } else {
            TRY(lex_tag(l, kind == '{'));
        }
    }
    add(l, (TemplateToken){.kind = TOKEN_END});
    return true;
}
