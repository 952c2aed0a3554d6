// Upper, lower and title case as Python's str has them: full mappings (a character may become several), with the final
// sigma. Simple mappings and categories come from utf8proc; the table holds what becomes several characters.
#include "template_parts.h"
#include <utf8proc.h>

typedef struct SpecialCase {
    int32_t code, upper[3], title[3];
} SpecialCase;
static const SpecialCase special_cases[] = {
    {0xDF, {0x53, 0x53}, {0x53, 0x73}}, {0x149, {0x2BC, 0x4E}, {0x2BC, 0x4E}}, {0x1F0, {0x4A, 0x30C}, {0x4A, 0x30C}},
    {0x390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}}, {0x3B0, {0x3A5, 0x308, 0x301}, {0x3A5, 0x308, 0x301}},
    {0x587, {0x535, 0x552}, {0x535, 0x582}}, {0x1E96, {0x48, 0x331}, {0x48, 0x331}},
    {0x1E97, {0x54, 0x308}, {0x54, 0x308}}, {0x1E98, {0x57, 0x30A}, {0x57, 0x30A}},
    {0x1E99, {0x59, 0x30A}, {0x59, 0x30A}}, {0x1E9A, {0x41, 0x2BE}, {0x41, 0x2BE}},
    {0x1F50, {0x3A5, 0x313}, {0x3A5, 0x313}}, {0x1F52, {0x3A5, 0x313, 0x300}, {0x3A5, 0x313, 0x300}},
    {0x1F54, {0x3A5, 0x313, 0x301}, {0x3A5, 0x313, 0x301}}, {0x1F56, {0x3A5, 0x313, 0x342}, {0x3A5, 0x313, 0x342}},
    {0x1F80, {0x1F08, 0x399}, {0x1F88}}, {0x1F81, {0x1F09, 0x399}, {0x1F89}}, {0x1F82, {0x1F0A, 0x399}, {0x1F8A}},
    {0x1F83, {0x1F0B, 0x399}, {0x1F8B}}, {0x1F84, {0x1F0C, 0x399}, {0x1F8C}}, {0x1F85, {0x1F0D, 0x399}, {0x1F8D}},
    {0x1F86, {0x1F0E, 0x399}, {0x1F8E}}, {0x1F87, {0x1F0F, 0x399}, {0x1F8F}}, {0x1F88, {0x1F08, 0x399}, {0x1F88}},
    {0x1F89, {0x1F09, 0x399}, {0x1F89}}, {0x1F8A, {0x1F0A, 0x399}, {0x1F8A}}, {0x1F8B, {0x1F0B, 0x399}, {0x1F8B}},
    {0x1F8C, {0x1F0C, 0x399}, {0x1F8C}}, {0x1F8D, {0x1F0D, 0x399}, {0x1F8D}}, {0x1F8E, {0x1F0E, 0x399}, {0x1F8E}},
    {0x1F8F, {0x1F0F, 0x399}, {0x1F8F}}, {0x1F90, {0x1F28, 0x399}, {0x1F98}}, {0x1F91, {0x1F29, 0x399}, {0x1F99}},
    {0x1F92, {0x1F2A, 0x399}, {0x1F9A}}, {0x1F93, {0x1F2B, 0x399}, {0x1F9B}}, {0x1F94, {0x1F2C, 0x399}, {0x1F9C}},
    {0x1F95, {0x1F2D, 0x399}, {0x1F9D}}, {0x1F96, {0x1F2E, 0x399}, {0x1F9E}}, {0x1F97, {0x1F2F, 0x399}, {0x1F9F}},
    {0x1F98, {0x1F28, 0x399}, {0x1F98}}, {0x1F99, {0x1F29, 0x399}, {0x1F99}}, {0x1F9A, {0x1F2A, 0x399}, {0x1F9A}},
    {0x1F9B, {0x1F2B, 0x399}, {0x1F9B}}, {0x1F9C, {0x1F2C, 0x399}, {0x1F9C}}, {0x1F9D, {0x1F2D, 0x399}, {0x1F9D}},
    {0x1F9E, {0x1F2E, 0x399}, {0x1F9E}}, {0x1F9F, {0x1F2F, 0x399}, {0x1F9F}}, {0x1FA0, {0x1F68, 0x399}, {0x1FA8}},
    {0x1FA1, {0x1F69, 0x399}, {0x1FA9}}, {0x1FA2, {0x1F6A, 0x399}, {0x1FAA}}, {0x1FA3, {0x1F6B, 0x399}, {0x1FAB}},
    {0x1FA4, {0x1F6C, 0x399}, {0x1FAC}}, {0x1FA5, {0x1F6D, 0x399}, {0x1FAD}}, {0x1FA6, {0x1F6E, 0x399}, {0x1FAE}},
    {0x1FA7, {0x1F6F, 0x399}, {0x1FAF}}, {0x1FA8, {0x1F68, 0x399}, {0x1FA8}}, {0x1FA9, {0x1F69, 0x399}, {0x1FA9}},
    {0x1FAA, {0x1F6A, 0x399}, {0x1FAA}}, {0x1FAB, {0x1F6B, 0x399}, {0x1FAB}}, {0x1FAC, {0x1F6C, 0x399}, {0x1FAC}},
    {0x1FAD, {0x1F6D, 0x399}, {0x1FAD}}, {0x1FAE, {0x1F6E, 0x399}, {0x1FAE}}, {0x1FAF, {0x1F6F, 0x399}, {0x1FAF}},
    {0x1FB2, {0x1FBA, 0x399}, {0x1FBA, 0x345}}, {0x1FB3, {0x391, 0x399}, {0x1FBC}},
    {0x1FB4, {0x386, 0x399}, {0x386, 0x345}}, {0x1FB6, {0x391, 0x342}, {0x391, 0x342}},
    {0x1FB7, {0x391, 0x342, 0x399}, {0x391, 0x342, 0x345}}, {0x1FBC, {0x391, 0x399}, {0x1FBC}},
    {0x1FC2, {0x1FCA, 0x399}, {0x1FCA, 0x345}}, {0x1FC3, {0x397, 0x399}, {0x1FCC}},
    {0x1FC4, {0x389, 0x399}, {0x389, 0x345}}, {0x1FC6, {0x397, 0x342}, {0x397, 0x342}},
    {0x1FC7, {0x397, 0x342, 0x399}, {0x397, 0x342, 0x345}}, {0x1FCC, {0x397, 0x399}, {0x1FCC}},
    {0x1FD2, {0x399, 0x308, 0x300}, {0x399, 0x308, 0x300}}, {0x1FD3, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x1FD6, {0x399, 0x342}, {0x399, 0x342}}, {0x1FD7, {0x399, 0x308, 0x342}, {0x399, 0x308, 0x342}},
    {0x1FE2, {0x3A5, 0x308, 0x300}, {0x3A5, 0x308, 0x300}}, {0x1FE3, {0x3A5, 0x308, 0x301}, {0x3A5, 0x308, 0x301}},
    {0x1FE4, {0x3A1, 0x313}, {0x3A1, 0x313}}, {0x1FE6, {0x3A5, 0x342}, {0x3A5, 0x342}},
    {0x1FE7, {0x3A5, 0x308, 0x342}, {0x3A5, 0x308, 0x342}}, {0x1FF2, {0x1FFA, 0x399}, {0x1FFA, 0x345}},
    {0x1FF3, {0x3A9, 0x399}, {0x1FFC}}, {0x1FF4, {0x38F, 0x399}, {0x38F, 0x345}},
    {0x1FF6, {0x3A9, 0x342}, {0x3A9, 0x342}}, {0x1FF7, {0x3A9, 0x342, 0x399}, {0x3A9, 0x342, 0x345}},
    {0x1FFC, {0x3A9, 0x399}, {0x1FFC}}, {0xFB00, {0x46, 0x46}, {0x46, 0x66}}, {0xFB01, {0x46, 0x49}, {0x46, 0x69}},
    {0xFB02, {0x46, 0x4C}, {0x46, 0x6C}}, {0xFB03, {0x46, 0x46, 0x49}, {0x46, 0x66, 0x69}},
    {0xFB04, {0x46, 0x46, 0x4C}, {0x46, 0x66, 0x6C}}, {0xFB05, {0x53, 0x54}, {0x53, 0x74}},
    {0xFB06, {0x53, 0x54}, {0x53, 0x74}}, {0xFB13, {0x544, 0x546}, {0x544, 0x576}},
    {0xFB14, {0x544, 0x535}, {0x544, 0x565}}, {0xFB15, {0x544, 0x53B}, {0x544, 0x56B}},
    {0xFB16, {0x54E, 0x546}, {0x54E, 0x576}}, {0xFB17, {0x544, 0x53D}, {0x544, 0x56D}},
};

static const SpecialCase *special_case(int32_t code) {
    int low = 0, high = COUNT(special_cases) - 1;
    while (low <= high) {
        int middle = (low + high) / 2;
        if (special_cases[middle].code == code) return &special_cases[middle];
        if (special_cases[middle].code < code) low = middle + 1;
        else high = middle - 1;
    }
    return NULL;
}
static void put_codes(Run *r, Builder *b, const int32_t codes[3]) {
    for (int i = 0; i < 3 && codes[i]; i++) builder_code(r, b, codes[i]);
}
static void put_upper(Run *r, Builder *b, int32_t code) {
    const SpecialCase *s = code < 0x80 ? NULL : special_case(code);
    if (s) put_codes(r, b, s->upper);
    else builder_code(r, b, utf8proc_toupper(code));
}
static void put_title(Run *r, Builder *b, int32_t code) {
    const SpecialCase *s = code < 0x80 ? NULL : special_case(code);
    if (s) put_codes(r, b, s->title);
    else builder_code(r, b, utf8proc_totitle(code));
}

static bool is_cased(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT || code == 0xAA || code == 0xBA;
}
// What doesn't end a word for the final sigma.
static bool is_ignored(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_LM ||
           c == UTF8PROC_CATEGORY_SK || code == '\'' || code == '.' || code == ':' || code == 0xB7 || code == 0x2019;
}
// Whether the sigma at `at` ends a word: a cased letter before it, none behind.
static bool sigma_is_final(const Text *t, uint32_t at, uint32_t size) {
    bool before = false;
    for (uint32_t i = at; i > 0 && !before;) {
        while (((unsigned char)t->data[--i] & 0xC0) == 0x80) {}
        int32_t code = text_code(t, i, &(uint32_t){0});
        if (is_ignored(code)) continue;
        before = is_cased(code);
        if (!before) return false;
    }
    for (uint32_t i = at + size, n; before && i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        if (!is_ignored(code)) return !is_cased(code);
    }
    return before;
}
static void put_lower(Run *r, Builder *b, const Text *t, uint32_t at, int32_t code, uint32_t size) {
    if (code == 0x3A3) builder_code(r, b, sigma_is_final(t, at, size) ? 0x3C2 : 0x3C3);
    else if (code == 0x130) builder_code(r, b, 'i'), builder_code(r, b, 0x307);
    else builder_code(r, b, utf8proc_tolower(code));
}

typedef enum CaseKind { CASE_UPPER, CASE_LOWER, CASE_SWAP } CaseKind;
static Value change_case(Run *r, Value v, CaseKind kind) {
    const Text *t = v.as.text;
    Builder b = {0};
    if (!run_spend(r, t->size / 16)) return v;
    for (uint32_t i = 0, n; i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        bool upper = kind == CASE_UPPER || (kind == CASE_SWAP && utf8proc_category(code) == UTF8PROC_CATEGORY_LL);
        if (upper) put_upper(r, &b, code);
        else put_lower(r, &b, t, i, code, n);
    }
    return value_like(v, builder_value(r, &b));
}
Value text_upper(Run *r, Value v) { return change_case(r, v, CASE_UPPER); }
Value text_lower(Run *r, Value v) { return change_case(r, v, CASE_LOWER); }
Value text_swapcase(Run *r, Value v) { return change_case(r, v, CASE_SWAP); }

// For comparisons without case: what becomes several characters in capitals does so here too.
Value text_casefold(Run *r, Value v) {
    const Text *t = v.as.text;
    Builder b = {0};
    if (!run_spend(r, t->size / 16)) return v;
    for (uint32_t i = 0, n; i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        const SpecialCase *s = code < 0x80 ? NULL : special_case(code);
        for (int k = 0; s && k < 3 && s->upper[k]; k++) builder_code(r, &b, utf8proc_tolower(s->upper[k]));
        if (code == 0x130) builder_code(r, &b, 'i'), builder_code(r, &b, 0x307);
        else if (!s) builder_code(r, &b, code == 0x131 ? code : utf8proc_tolower(utf8proc_toupper(code)));
    }
    return value_like(v, builder_value(r, &b));
}

Value text_capitalize(Run *r, Value v) {
    const Text *t = v.as.text;
    Builder b = {0};
    if (!run_spend(r, t->size / 16)) return v;
    for (uint32_t i = 0, n; i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        if (i == 0) put_title(r, &b, code);
        else put_lower(r, &b, t, i, code, n);
    }
    return value_like(v, builder_value(r, &b));
}

// The method title begins a word behind what has no case; the filter title behind white space and -({[<.
Value text_title(Run *r, Value v, bool by_filter) {
    const Text *t = v.as.text;
    Builder b = {0};
    bool begins = true;
    if (!run_spend(r, t->size / 16)) return v;
    for (uint32_t i = 0, n; i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        bool border = by_filter && (code_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<');
        if (!begins) put_lower(r, &b, t, i, code, n);
        else if (by_filter) put_upper(r, &b, code);
        else put_title(r, &b, code);
        begins = by_filter ? border : !is_cased(code);
    }
    Value out = builder_value(r, &b);
    return by_filter ? out : value_like(v, out);
}

// ---- kinds of text ---------------------------------------------------------------------------------------------------
static bool is_letter(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool code_digit(int32_t code) {
    return utf8proc_category(code) == UTF8PROC_CATEGORY_ND || (code >= 0xB2 && code <= 0xB3) || code == 0xB9 ||
           (code >= 0x2070 && code <= 0x2089 && utf8proc_category(code) == UTF8PROC_CATEGORY_NO) ||
           (code >= 0x2460 && code <= 0x2468);
}
static bool is_numeric(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}
bool code_word(int32_t code) { return is_letter(code) || is_numeric(code) || code == '_'; }
bool code_space(int32_t code) {
    return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
           code == 0x3000;
}

// str.isupper ('U'), islower ('L') and istitle ('T').
static bool text_cased(const Text *t, char kind) {
    bool any = false, inside = false;
    for (uint32_t i = 0, n; i < t->size; i += n) {
        utf8proc_category_t c = utf8proc_category(text_code(t, i, &n));
        bool upper = c == UTF8PROC_CATEGORY_LU, lower = c == UTF8PROC_CATEGORY_LL, title = c == UTF8PROC_CATEGORY_LT;
        if (kind == 'U' && (lower || title)) return false;
        if (kind == 'L' && (upper || title)) return false;
        if (kind == 'T' && (upper || title) && inside) return false;
        if (kind == 'T' && lower && !inside) return false;
        any |= kind == 'U' ? upper : kind == 'L' ? lower : upper || title || lower;
        inside = upper || lower || title;
    }
    return any;
}
bool text_kind(const Text *t, char kind) {
    if (kind == 'U' || kind == 'L' || kind == 'T') return text_cased(t, kind);
    for (uint32_t i = 0, n; i < t->size; i += n) {
        int32_t code = text_code(t, i, &n);
        bool ok = kind == 'a'   ? is_letter(code)
                  : kind == 'd' ? code_digit(code)
                  : kind == 'D' ? utf8proc_category(code) == UTF8PROC_CATEGORY_ND
                  : kind == 'N' ? is_numeric(code)
                  : kind == 'n' ? is_letter(code) || is_numeric(code)
                  : kind == 's' ? code_space(code)
                  : kind == 'A' ? code < 0x80
                                : code == '_' || is_letter(code) || (i && is_numeric(code)); // 'i': identifiers
        if (!ok) return false;
    }
    return t->size > 0 || kind == 'A';
}
