// Patterns that no scanner knows, run by PCRE2. Tokenizers write them for Oniguruma with Ruby's syntax, so they are
// translated: classes mean what they mean there (Unicode 16, \s and \w by their members), ^ and $ stand at every line,
// {n,m}+ repeats again, \h is a hexadecimal digit. What has no translation is refused when the file is read.
//
// A hostile pattern or text may need a great many steps: past the limits the text is refused with an error.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_parts.h"
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN_LIMIT = 16384, MATCH_LIMIT = 2000000, DEPTH_LIMIT = 100000, HEAP_LIMIT_KIB = 65536, GROUP_LIMIT = 64 };

struct Regex {
    pcre2_code *code;
    pcre2_match_context *context;
    bool jit;
};

// ---- translation -----------------------------------------------------------------------------------------------
#define SPACE_MEMBERS "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACE_OTHERS                                                                                         \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"              \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
// Letters and their like that came after the Unicode of PCRE2 (14).
#define NEWER_UPPER "\\x{1c89}\\x{a7cb}\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"
#define NEWER_LOWER "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"
#define NEWER_UNCASED                                                                                        \
    "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4f}\\x{10d6f}\\x{10ec2}-\\x{10ec4}\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}"  \
    "\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"    \
    "\\x{11f12}-\\x{11f33}\\x{13441}-\\x{13446}\\x{1342f}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}"   \
    "\\x{18cff}\\x{1b132}\\x{1b155}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}"          \
    "\\x{1123f}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEWER_MARKS                                                                                          \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}" \
    "\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d0}\\x{113d2}\\x{113e1}\\x{113e2}\\x{11f00}\\x{11f01}\\x{11f03}"           \
    "\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}\\x{1e08f}"  \
    "\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}\\x{1e5ef}"
#define NEWER_DIGITS                                                                                         \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}"         \
    "\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NEWER_NUMBERS NEWER_DIGITS "\\x{1d2c0}-\\x{1d2d3}"
#define NEWER_PUNCTUATION                                                                                    \
    "\\x{1b4e}\\x{1b4f}\\x{1b7f}\\x{10d6e}\\x{113d4}\\x{113d5}\\x{113d7}\\x{113d8}\\x{11b00}-\\x{11b09}\\x{11be1}"       \
    "\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"
#define NEWER_SYMBOLS                                                                                        \
    "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}\\x{10d8e}-\\x{10d8f}\\x{1cc00}-\\x{1ccef}"          \
    "\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"             \
    "\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}"   \
    "\\x{1fac6}\\x{1face}-\\x{1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}"             \
    "\\x{1fbcb}-\\x{1fbef}"
#define WORD_ALONE "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" // Oniguruma's \w has these, its [\w] hasn't
#define WORD_MEMBERS                                                                                         \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"         \
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}" NEWER_UPPER NEWER_LOWER NEWER_UNCASED NEWER_MARKS NEWER_DIGITS

// What a property or an escape stands for inside a class.
static const struct Members {
    const char *name, *members, *others; // `others` where the opposite has a list too
} known_members[] = {
    {"s", SPACE_MEMBERS, SPACE_OTHERS},
    {"h", "0-9A-Fa-f", NULL},
    {"d", "\\p{Nd}" NEWER_DIGITS, NULL},
    {"w", WORD_MEMBERS, NULL},
    {"L", "\\p{L}" NEWER_UPPER NEWER_LOWER NEWER_UNCASED, NULL},
    {"Lu", "\\p{Lu}" NEWER_UPPER, NULL},
    {"Ll", "\\p{Ll}" NEWER_LOWER, NULL},
    {"Lo", "\\p{Lo}" NEWER_UNCASED, NULL},
    {"M", "\\p{M}" NEWER_MARKS, NULL},
    {"N", "\\p{N}" NEWER_NUMBERS, NULL},
    {"Nd", "\\p{Nd}" NEWER_DIGITS, NULL},
    {"P", "\\p{P}" NEWER_PUNCTUATION, NULL},
    {"S", "\\p{S}" NEWER_SYMBOLS, NULL},
};
static const struct Members *members_of(const char *name, size_t size) {
    for (int i = 0; i < COUNT(known_members); i++)
        if (strlen(known_members[i].name) == size && memcmp(known_members[i].name, name, size) == 0) return &known_members[i];
    return NULL;
}

typedef struct Translator {
    const char *p;
    size_t size, at;
    Buf out;
    size_t groups[GROUP_LIMIT]; // where the open groups begin in `out`
    int depth;
    size_t atom; // where what a repeat would repeat begins in `out`
    const char *where;
    Err *err;
} Translator;

static bool refuse(const Translator *t, const char *what) {
    return fail(t->err, ERR_DATA, t->where, "found %s at byte %zu of the pattern '%.200s', which is not supported", what, t->at,
                t->p);
}

// A class, a property or the like: as a class of its own, or its members where one is open already.
static bool put_members(Translator *t, const struct Members *m, bool negative, bool inside) {
    if (!inside) {
        buf_puts(&t->out, negative ? "[^" : "[");
        buf_puts(&t->out, m->members);
        if (m->name[0] == 'w') buf_puts(&t->out, WORD_ALONE);
        buf_puts(&t->out, "]");
        return true;
    }
    if (negative && !m->others) return refuse(t, "a negated class inside a class");
    buf_puts(&t->out, negative ? m->others : m->members);
    return true;
}

// Whether a property is neither a category (one or two letters) nor one of those that are yes or no.
static bool is_script(const char *name, size_t size) {
    static const char *const others[] = {"Any", "Alphabetic", "Lowercase", "Uppercase", "White_Space", "Ideographic", "Math",
                                         "Emoji", "Emoji_Presentation", "Emoji_Modifier", "Emoji_Component",
                                         "Extended_Pictographic"};
    for (int i = 0; i < COUNT(others); i++)
        if (strlen(others[i]) == size && memcmp(others[i], name, size) == 0) return false;
    return size > 2;
}
static bool put_property(Translator *t, bool negative, bool inside) {
    size_t start = t->at;
    if (start >= t->size || t->p[start] != '{') return refuse(t, "\\p without {");
    const char *close = memchr(t->p + start, '}', t->size - start);
    if (!close) return refuse(t, "\\p without }");
    const char *name = t->p + start + 1;
    if (*name == '^') name++, negative = !negative;
    size_t size = (size_t)(close - name);
    t->at = (size_t)(close - t->p) + 1;
    const struct Members *m = members_of(name, size);
    if (m && strchr("LMNPS", name[0]) && !(inside && negative)) return put_members(t, m, negative, inside);
    // PCRE2 knows it, or says so. To it a script's name means more: the characters that are used with the script too.
    buf_printf(&t->out, "\\%c{%s%.*s}", negative ? 'P' : 'p', is_script(name, size) ? "sc:" : "", (int)size, name);
    return true;
}

static bool put_escape(Translator *t, bool inside) {
    if (t->at + 1 >= t->size) return refuse(t, "a backslash at the end");
    char c = t->p[t->at + 1];
    t->at += 2;
    switch (c) {
    case 'p': return put_property(t, false, inside);
    case 'P': return put_property(t, true, inside);
    case 's':
    case 'd':
    case 'w':
    case 'h': return put_members(t, members_of(&c, 1), false, inside);
    case 'S':
    case 'D':
    case 'W':
    case 'H': {
        char small = (char)(c | 32);
        return put_members(t, members_of(&small, 1), true, inside);
    }
    case 'v': buf_puts(&t->out, "\\x{b}"); return true;
    case 'u': {
        if (t->at + 4 > t->size) return refuse(t, "\\u without four digits");
        buf_printf(&t->out, "\\x{%.4s}", t->p + t->at);
        t->at += 4;
        return true;
    }
    case 't':
    case 'n':
    case 'r':
    case 'f':
    case 'a':
    case 'e':
    case 'x': break;
    case 'b':
        if (inside) break;
        return refuse(t, "\\b");
    case 'A':
    case 'z':
    case 'Z':
    case 'G':
    case 'K':
        if (!inside) break;
        return refuse(t, "an anchor inside a class");
    default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return refuse(t, "an unknown escape");
        if ((unsigned char)c >= 0x80) { // an escaped character beyond ASCII is itself
            buf_append(&t->out, &c, 1);
            return true;
        }
    }
    char escape[2] = {'\\', c};
    buf_append(&t->out, escape, 2);
    return true;
}

// [:digit:] and the like, inside a class.
static bool put_named_class(Translator *t) {
    static const char *const names[][2] = {{"[:digit:]", "d"}, {"[:space:]", "s"}, {"[:word:]", "w"}, {"[:xdigit:]", "h"}};
    for (int i = 0; i < COUNT(names); i++) {
        size_t n = strlen(names[i][0]);
        if (t->size - t->at < n || memcmp(t->p + t->at, names[i][0], n) != 0) continue;
        t->at += n;
        return put_members(t, members_of(names[i][1], 1), false, true);
    }
    return refuse(t, "a class inside a class");
}

static bool put_class(Translator *t) {
    buf_puts(&t->out, "[");
    t->at++;
    if (t->at < t->size && t->p[t->at] == '^') buf_puts(&t->out, "^"), t->at++;
    for (bool first = true;; first = false) {
        if (t->at >= t->size) return refuse(t, "a class without ]");
        char c = t->p[t->at];
        if (c == ']' && !first) break;
        if (c == '\\') {
            TRY(put_escape(t, true));
            continue;
        }
        if (c == '&' && t->at + 1 < t->size && t->p[t->at + 1] == '&') return refuse(t, "an intersection of classes");
        if (c == '[') {
            TRY(put_named_class(t));
            continue;
        }
        buf_append(&t->out, &c, 1);
        t->at++;
    }
    buf_puts(&t->out, "]");
    t->at++;
    return true;
}

static bool put_group(Translator *t) {
    if (t->depth == GROUP_LIMIT) return refuse(t, "too many groups");
    t->groups[t->depth++] = t->out.size;
    buf_puts(&t->out, "(");
    t->at++;
    if (t->at >= t->size || t->p[t->at] != '?') return true;
    buf_puts(&t->out, "?");
    t->at++;
    // Options: Ruby's m is what PCRE2 calls s.
    size_t end = t->at;
    while (end < t->size && strchr("imx-", t->p[end])) end++;
    if (end > t->at && end < t->size && (t->p[end] == ':' || t->p[end] == ')')) {
        if (memchr(t->p + t->at, 'x', end - t->at)) return refuse(t, "the option x");
        for (; t->at < end; t->at++) buf_append(&t->out, t->p[t->at] == 'm' ? "s" : &t->p[t->at], 1);
        return true;
    }
    if (t->at < t->size && (t->p[t->at] == '#' || t->p[t->at] == '~' || t->p[t->at] == '(')) return refuse(t, "this kind of group");
    for (; t->at < t->size && strchr(":=!><", t->p[t->at]); t->at++) buf_append(&t->out, &t->p[t->at], 1);
    return true;
}

// {n}, {n,}, {,m}, {n,m}: the end, or 0 if the brace is only a character.
static size_t interval_end(const Translator *t, bool *from_zero) {
    size_t at = t->at + 1, digits = 0;
    *from_zero = at < t->size && t->p[at] == ',';
    for (; at < t->size && t->p[at] >= '0' && t->p[at] <= '9'; at++) digits++;
    if (at < t->size && t->p[at] == ',')
        for (at++; at < t->size && t->p[at] >= '0' && t->p[at] <= '9'; at++) digits++;
    return digits && at < t->size && t->p[at] == '}' ? at + 1 : 0;
}
static bool put_interval(Translator *t) {
    bool from_zero;
    size_t end = interval_end(t, &from_zero);
    if (!end) {
        t->atom = t->out.size;
        buf_puts(&t->out, "\\{");
        t->at++;
        return true;
    }
    bool again = end < t->size && t->p[end] == '+';
    Buf rest = {0};
    if (again) { // what it repeats goes into a group
        buf_append(&rest, t->out.data + t->atom, t->out.size - t->atom);
        t->out.size = t->atom;
        buf_puts(&t->out, "(?:");
        buf_append(&t->out, rest.data, rest.size);
        buf_free(&rest);
    }
    buf_puts(&t->out, from_zero ? "{0" : "{");
    buf_append(&t->out, t->p + t->at + 1, end - t->at - 1);
    if (again) buf_puts(&t->out, ")+");
    t->at = end + again;
    return true;
}

static bool translate_one(Translator *t) {
    char c = t->p[t->at];
    if (c == '{') return put_interval(t);
    if (c == '*' || c == '+' || c == '?') { // the atom stays: a repeat may follow a repeat
        buf_append(&t->out, &c, 1);
        t->at++;
        return true;
    }
    if (c == ')') {
        if (!t->depth) return refuse(t, "a ) too many");
        t->atom = t->groups[--t->depth];
        buf_append(&t->out, &c, 1);
        t->at++;
        return true;
    }
    if (c == '(') return put_group(t);
    t->atom = t->out.size;
    if (c == '\\') return put_escape(t, false);
    if (c == '[') return put_class(t);
    if (c == '#') buf_puts(&t->out, "\\");
    int n;
    code_at(t->p, t->at, &n);
    buf_append(&t->out, t->p + t->at, (size_t)n);
    t->at += (size_t)n;
    return true;
}

bool regex_make(const char *pattern, size_t size, const char *where, Regex **out, Err *err) {
    *out = NULL;
    if (size > PATTERN_LIMIT) return fail(err, ERR_DATA, where, "a pattern of %zu bytes, expected at most %d", size, PATTERN_LIMIT);
    Translator t = {.p = pattern, .size = size, .where = where, .err = err};
    buf_puts(&t.out, "");
    bool ok = true;
    while (ok && t.at < size) ok = translate_one(&t);
    if (!ok) {
        buf_free(&t.out);
        return false;
    }
    pcre2_compile_context *compile = pcre2_compile_context_create(NULL);
    if (compile) pcre2_set_newline(compile, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    Regex *r = xcalloc(1, sizeof *r);
    r->code = pcre2_compile((PCRE2_SPTR)t.out.data, t.out.size, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &offset, compile);
    pcre2_compile_context_free(compile);
    buf_free(&t.out);
    r->context = pcre2_match_context_create(NULL);
    if (!r->code || !r->context) {
        char message[160] = "out of memory";
        if (!r->code) pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        regex_free(r);
        return fail(err, ERR_DATA, where, "the pattern '%.200s' is not supported: %s", pattern, message);
    }
    pcre2_set_match_limit(r->context, MATCH_LIMIT);
    pcre2_set_depth_limit(r->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(r->context, HEAP_LIMIT_KIB);
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    *out = r;
    return true;
}
void regex_free(Regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->context);
    free(r);
}
void regex_scratch_free(RegexScratch *s) {
    pcre2_match_data_free(s->match);
    s->match = NULL;
}

// ---- matching ------------------------------------------------------------------------------------------------------
bool regex_next(const Regex *r, const char *text, size_t size, RegexScratch *scratch, RegexSearch *search, bool *found,
                Err *err) {
    *found = false;
    if (!scratch->match) scratch->match = pcre2_match_data_create(1, NULL);
    if (!scratch->match) return fail(err, ERR_SOFTWARE, "text", "no memory for a pattern");
    while (search->at <= size) {
        int rc = PCRE2_ERROR_JIT_STACKLIMIT;
        if (r->jit)
            rc = pcre2_match(r->code, (PCRE2_SPTR)text, size, search->at, PCRE2_NO_UTF_CHECK, scratch->match, r->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(r->code, (PCRE2_SPTR)text, size, search->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->match,
                             r->context);
        if (rc == PCRE2_ERROR_NOMATCH) return true;
        if (rc < 0)
            return fail(err, ERR_DATA, "text", "a pattern of the tokenizer needs too many steps at byte %zu of a piece of %zu bytes",
                        search->at, size);
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(scratch->match);
        search->start = bounds[0];
        search->stop = bounds[1] < bounds[0] ? bounds[0] : bounds[1];
        if (search->start == search->stop && search->any && search->last == search->stop) {
            int n = 1;
            if (search->at < size) code_at(text, search->at, &n);
            search->at += (size_t)n;
            continue;
        }
        search->at = search->last = search->stop;
        search->any = true;
        *found = true;
        return true;
    }
    return true;
}

// ---- literal text or regular expression ------------------------------------------------------------------------------
bool pattern_from_json(const json_t *json, const char *where, Pattern *out, Err *err) {
    *out = (Pattern){0};
    const json_t *literal = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");
    if (json_is_string(regex)) return regex_make(json_string_value(regex), json_string_length(regex), where, &out->regex, err);
    if (!json_is_string(literal)) return fail(err, ERR_DATA, where, "expected a pattern: {\"String\": ..} or {\"Regex\": ..}");
    if (json_string_length(literal) == 0) return regex_make("", 0, where, &out->regex, err); // matches everywhere
    out->size = json_string_length(literal);
    out->literal = xmalloc(out->size);
    memcpy(out->literal, json_string_value(literal), out->size);
    return true;
}
void pattern_free(Pattern *p) {
    regex_free(p->regex);
    free(p->literal);
}
bool pattern_next(const Pattern *p, const char *text, size_t size, RegexScratch *scratch, RegexSearch *search, bool *found,
                  Err *err) {
    if (p->regex) return regex_next(p->regex, text, size, scratch, search, found, err);
    const char *hit = search->at < size ? memmem(text + search->at, size - search->at, p->literal, p->size) : NULL;
    *found = hit != NULL;
    if (!hit) return true;
    search->start = (size_t)(hit - text);
    search->at = search->stop = search->start + p->size;
    return true;
}
bool pattern_replace(const Pattern *p, const char *by, size_t by_size, const char *text, size_t size, RegexScratch *scratch,
                     Buf *out, Err *err) {
    size_t done = 0;
    if (!size) return true;
    for (RegexSearch search = {0};;) {
        bool found;
        TRY(pattern_next(p, text, size, scratch, &search, &found, err));
        if (!found) break;
        buf_append(out, text + done, search.start - done);
        buf_append(out, by, by_size);
        done = search.stop;
    }
    buf_append(out, text + done, size - done);
    return true;
}
