// Characters, words and scripts of UTF-8 text, from utf8proc's tables and the blocks of Unicode.
#include "unicode.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

const char *const unicode_script_names[SCRIPTS] = {"latin", "vietnamese", "hangul", "kana", "han", "cyrillic", "other"};

bool unicode_next(TextSpan *text, uint32_t *code) {
    if (!text->size) return false;
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text->data, text->size < 4 ? (utf8proc_ssize_t)text->size : 4, &c);
    *code = n > 0 ? (uint32_t)c : 0xFFFD;
    if (n < 1) n = 1;
    text->data += n, text->size -= (size_t)n;
    return true;
}

bool unicode_is_blank(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool unicode_word(TextSpan *text, TextSpan *word) {
    TextSpan rest = *text;
    uint32_t code;
    const char *start = rest.data;
    while (unicode_next(&rest, &code) && unicode_is_blank(code)) start = rest.data;
    *text = rest;
    if (start == rest.data && !rest.size) return false;
    const char *end = rest.data; // after the first character of the word
    while (unicode_next(&rest, &code) && !unicode_is_blank(code)) end = rest.data;
    *word = (TextSpan){start, (size_t)(end - start)};
    *text = (TextSpan){end, (size_t)(rest.data + rest.size - end)};
    return true;
}

char *unicode_lower(TextSpan text, size_t *size) {
    char *out = xmalloc(text.size * 2 + 4); // no character's lower case is more than twice as long
    size_t n = 0;
    while (text.size) {
        const char *at = text.data;
        uint32_t code;
        unicode_next(&text, &code);
        size_t old = (size_t)(text.data - at);
        utf8proc_int32_t lower = code == 0xFFFD ? 0xFFFD : utf8proc_tolower((utf8proc_int32_t)code);
        if (lower == (utf8proc_int32_t)code) memcpy(out + n, at, old), n += old;
        else n += (size_t)utf8proc_encode_char(lower, (utf8proc_uint8_t *)out + n);
    }
    *size = n;
    return out;
}

// ---- scripts ------------------------------------------------------------------------------------------------------
static bool within(uint32_t c, uint32_t low, uint32_t high) { return c >= low && c <= high; }
static bool is_letter(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
// Letters that no other language with many speakers has together: breve, horn and hook, d with stroke, the block of
// Latin letters with two marks or a dot below, and plain vowels with grave, acute or tilde.
static bool is_vietnamese(uint32_t c) {
    static const uint16_t others[] = {0xC0, 0xC1, 0xC2, 0xC3, 0xC8, 0xC9, 0xCA, 0xCC, 0xCD, 0xD2, 0xD3, 0xD4, 0xD5, 0xD9, 0xDA, 0xDD,
                                      0x102, 0x110, 0x128, 0x168, 0x1A0, 0x1AF};
    if (within(c, 0x1EA0, 0x1EF9)) return true;
    for (int i = 0; i < COUNT(others); i++) {
        uint32_t big = others[i], small = big == 0x1AF || big >= 0x100 ? big + 1 : big + 0x20;
        if (c == big || c == small) return true;
    }
    return false;
}
static Script script_of(uint32_t c) {
    if (c < 0x80) return SCRIPT_LATIN;
    if (within(c, 0xAC00, 0xD7A3) || within(c, 0x1100, 0x11FF) || within(c, 0x3130, 0x318F) || within(c, 0xA960, 0xA97F) || within(c, 0xD7B0, 0xD7FF))
        return SCRIPT_HANGUL;
    if (within(c, 0x3040, 0x30FF) || within(c, 0x31F0, 0x31FF) || within(c, 0xFF66, 0xFF9F)) return SCRIPT_KANA;
    if (within(c, 0x3400, 0x4DBF) || within(c, 0x4E00, 0x9FFF) || within(c, 0xF900, 0xFAFF) || within(c, 0x20000, 0x3FFFF) || c == 0x3005)
        return SCRIPT_HAN;
    if (within(c, 0x400, 0x52F)) return SCRIPT_CYRILLIC;
    if (is_vietnamese(c)) return SCRIPT_VIETNAMESE;
    if (within(c, 0xC0, 0x24F) || within(c, 0x1E00, 0x1EFF) || within(c, 0xFF21, 0xFF5A)) return SCRIPT_LATIN;
    return SCRIPT_OTHER;
}

void unicode_count_scripts(TextSpan text, int64_t letters[SCRIPTS]) {
    memset(letters, 0, SCRIPTS * sizeof *letters);
    for (uint32_t code; unicode_next(&text, &code);)
        if (is_letter(code)) letters[script_of(code)]++;
}

static double latin_share(TextSpan text, bool vietnamese, int64_t all) {
    int64_t words = 0, marked = 0, letters = 0, marked_letters = 0, plain_letters = 0;
    for (TextSpan rest = text, word; unicode_word(&rest, &word);) {
        int64_t n[SCRIPTS], latin;
        bool beyond_ascii = false;
        unicode_count_scripts(word, n);
        latin = n[SCRIPT_LATIN] + n[SCRIPT_VIETNAMESE];
        for (TextSpan look = word; look.size && !beyond_ascii;) {
            uint32_t code;
            unicode_next(&look, &code);
            beyond_ascii = code >= 0x80 && is_letter(code);
        }
        if (!latin) continue;
        words++, letters += latin;
        if (n[SCRIPT_VIETNAMESE]) marked++, marked_letters += latin;
        if (!beyond_ascii) plain_letters += latin;
    }
    if (!vietnamese) return (double)plain_letters / (double)all;
    return (double)(4 * marked >= words ? letters : marked_letters) / (double)all;
}

bool unicode_language_share(TextSpan text, const char *language, double *out) {
    int64_t n[SCRIPTS], all = 0;
    *out = 0;
    unicode_count_scripts(text, n);
    for (int i = 0; i < SCRIPTS; i++) all += n[i];
    double han = (double)n[SCRIPT_HAN], kana = (double)n[SCRIPT_KANA], total = all ? (double)all : 1;
    if (strcmp(language, "ko") == 0) *out = (double)n[SCRIPT_HANGUL] / total;
    else if (strcmp(language, "ja") == 0) *out = kana > 0 ? (kana + han) / total : 0;
    else if (strcmp(language, "zh") == 0) *out = kana > 0 ? 0 : han / total;
    else if (strcmp(language, "vi") == 0) *out = all ? latin_share(text, true, all) : 0;
    else if (strcmp(language, "en") == 0) *out = all ? latin_share(text, false, all) : 0;
    else return false;
    return true;
}
