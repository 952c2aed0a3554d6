// Characters: UTF-8 in and out, the few Unicode properties that patterns ask for, and GPT-2's alphabet of bytes.
// Properties come from utf8proc, which knows Unicode 15; tables add what patterns know of 16, and take away what the
// `tokenizers` package doesn't know where it asks an older table. Nothing here fails.
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- UTF-8 -----------------------------------------------------------------------------------------------
// Length of the valid sequence at `p`, or 0; then *part is the length of the maximal part of one (at least 1).
static int sequence_at(const unsigned char *p, size_t left, int *part) {
    *part = 1;
    unsigned char c = p[0];
    if (c < 0x80) return 1;
    int size = c >= 0xC2 && c <= 0xDF ? 2 : c >= 0xE0 && c <= 0xEF ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (!size) return 0;
    // The second byte has a narrower range after E0 (overlong), ED (surrogates), F0 (overlong) and F4 (too high).
    unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < size; i++, low = 0x80, high = 0xBF) {
        if ((size_t)i >= left || p[i] < low || p[i] > high) return 0;
        *part = i + 1;
    }
    return size;
}

bool utf8_valid(const char *text, size_t size, size_t *bad) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t at = 0; at < size;) {
        int part, n = sequence_at(p + at, size - at, &part);
        if (!n) return *bad = at, false;
        at += (size_t)n;
    }
    return true;
}

void utf8_repair(const char *bytes, size_t size, Buf *out) {
    const unsigned char *p = (const unsigned char *)bytes;
    size_t done = 0, at = 0;
    while (at < size) {
        int part, n = sequence_at(p + at, size - at, &part);
        if (n) {
            at += (size_t)n;
            continue;
        }
        buf_append(out, bytes + done, at - done);
        buf_puts(out, "\xEF\xBF\xBD");
        at += (size_t)part;
        done = at;
    }
    buf_append(out, bytes + done, at - done);
}

int utf8_write(int32_t code, char out[4]) {
    return (int)utf8proc_encode_char(code, (utf8proc_uint8_t *)out);
}
void utf8_append(int32_t code, Buf *out) {
    char bytes[4];
    buf_append(out, bytes, (size_t)utf8_write(code, bytes));
}

// ---- kinds -----------------------------------------------------------------------------------------------
enum {
    LETTER = KIND_LETTER | KIND_WORD,
    UPPER = LETTER | KIND_UPPER,
    LOWER = LETTER | KIND_LOWER,
    UNCASED = LETTER | KIND_UPPER | KIND_LOWER,
    MARK = KIND_MARK | KIND_WORD | KIND_UPPER | KIND_LOWER,
};
static const uint16_t ascii_kinds[128] = {
    ['\t' ... '\r'] = KIND_SPACE,
    [' '] = KIND_SPACE,
    ['!' ... '#'] = KIND_PUNCTUATION,
    ['$'] = KIND_SYMBOL,
    ['%' ... '*'] = KIND_PUNCTUATION,
    ['+'] = KIND_SYMBOL,
    [',' ... '/'] = KIND_PUNCTUATION,
    ['0' ... '9'] = KIND_NUMBER | KIND_WORD,
    [':' ... ';'] = KIND_PUNCTUATION,
    ['<' ... '>'] = KIND_SYMBOL,
    ['?' ... '@'] = KIND_PUNCTUATION,
    ['A' ... 'Z'] = UPPER,
    ['[' ... ']'] = KIND_PUNCTUATION,
    ['^'] = KIND_SYMBOL,
    ['_'] = KIND_PUNCTUATION | KIND_WORD,
    ['`'] = KIND_SYMBOL,
    ['a' ... 'z'] = LOWER,
    ['{'] = KIND_PUNCTUATION,
    ['|'] = KIND_SYMBOL,
    ['}'] = KIND_PUNCTUATION,
    ['~'] = KIND_SYMBOL,
};
static const uint16_t category_kinds[32] = {
    [UTF8PROC_CATEGORY_LU] = UPPER,
    [UTF8PROC_CATEGORY_LL] = LOWER,
    [UTF8PROC_CATEGORY_LT] = UPPER,
    [UTF8PROC_CATEGORY_LM] = UNCASED,
    [UTF8PROC_CATEGORY_LO] = UNCASED,
    [UTF8PROC_CATEGORY_MN] = MARK,
    [UTF8PROC_CATEGORY_MC] = MARK,
    [UTF8PROC_CATEGORY_ME] = MARK,
    [UTF8PROC_CATEGORY_ND] = KIND_NUMBER | KIND_WORD,
    [UTF8PROC_CATEGORY_NL] = KIND_NUMBER | KIND_WORD,
    [UTF8PROC_CATEGORY_NO] = KIND_NUMBER,
    [UTF8PROC_CATEGORY_PC] = KIND_PUNCTUATION | KIND_WORD,
    [UTF8PROC_CATEGORY_PD] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_PS] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_PE] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_PI] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_PF] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_PO] = KIND_PUNCTUATION,
    [UTF8PROC_CATEGORY_SM] = KIND_SYMBOL,
    [UTF8PROC_CATEGORY_SC] = KIND_SYMBOL,
    [UTF8PROC_CATEGORY_SK] = KIND_SYMBOL,
    [UTF8PROC_CATEGORY_SO] = KIND_SYMBOL,
    [UTF8PROC_CATEGORY_ZS] = KIND_SPACE,
    [UTF8PROC_CATEGORY_ZL] = KIND_SPACE,
    [UTF8PROC_CATEGORY_ZP] = KIND_SPACE,
};

// What came with Unicode 15.1 and 16.
static const Range newer_upper[] = {
    {0x1C89, 0x1C89}, {0xA7CB, 0xA7CC}, {0xA7DA, 0xA7DA}, {0xA7DC, 0xA7DC}, {0x10D50, 0x10D65}};
static const Range newer_lower[] = {
    {0x1C8A, 0x1C8A}, {0xA7CD, 0xA7CD}, {0xA7DB, 0xA7DB}, {0x10D70, 0x10D85}};
static const Range newer_letters[] = {
    {0x105C0, 0x105F3}, {0x10D4A, 0x10D4F}, {0x10D6F, 0x10D6F}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1},
    {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
static const Range newer_marks[] = {
    {0x0897, 0x0897}, {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFC}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2},
    {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2}, {0x113E1, 0x113E2},
    {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F}, {0x1E5EE, 0x1E5EF}};
static const Range newer_numbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
    {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
static const Range newer_punctuation[] = {
    {0x1B4E, 0x1B4F}, {0x1B7F, 0x1B7F}, {0x10D6E, 0x10D6E}, {0x113D4, 0x113D5}, {0x113D7, 0x113D8},
    {0x11BE1, 0x11BE1}, {0x16D6D, 0x16D6F}, {0x1E5FF, 0x1E5FF}};
static const Range newer_symbols[] = {
    {0x2427, 0x2429}, {0x2FFC, 0x2FFF}, {0x31E4, 0x31E5}, {0x31EF, 0x31EF}, {0x10D8E, 0x10D8F}, {0x1CC00, 0x1CCEF},
    {0x1CD00, 0x1CEB3}, {0x1F8B2, 0x1F8BB}, {0x1F8C0, 0x1F8C1}, {0x1FA89, 0x1FA89}, {0x1FA8F, 0x1FA8F},
    {0x1FABE, 0x1FABE}, {0x1FAC6, 0x1FAC6}, {0x1FADC, 0x1FADC}, {0x1FADF, 0x1FADF}, {0x1FAE9, 0x1FAE9},
    {0x1FBCB, 0x1FBEF}};
// Punctuation that came after Unicode 8.
static const Range newer_punctuation_8[] = {
    {0x061D, 0x061D}, {0x09FD, 0x09FD}, {0x0A76, 0x0A76}, {0x0C77, 0x0C77}, {0x0C84, 0x0C84}, {0x1B4E, 0x1B4F},
    {0x1B7D, 0x1B7F}, {0x2E43, 0x2E4F}, {0x2E52, 0x2E5D}, {0x10D6E, 0x10D6E}, {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59},
    {0x10F86, 0x10F89}, {0x113D4, 0x113D5}, {0x113D7, 0x113D8}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B},
    {0x1145D, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946},
    {0x119E2, 0x119E2}, {0x11A3F, 0x11A46}, {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09},
    {0x11BE1, 0x11BE1}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F},
    {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16D6D, 0x16D6F}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2},
    {0x1E5FF, 0x1E5FF}, {0x1E95E, 0x1E95F}};
static unsigned unassigned_kind(int32_t c) {
    static const struct {
        const Range *ranges;
        int count;
        unsigned kind;
    } newer[] = {
        {newer_upper, COUNT(newer_upper), UPPER},
        {newer_lower, COUNT(newer_lower), LOWER},
        {newer_letters, COUNT(newer_letters), UNCASED},
        {newer_marks, COUNT(newer_marks), MARK},
        {newer_numbers, COUNT(newer_numbers), KIND_NUMBER | KIND_WORD},
        {newer_punctuation, COUNT(newer_punctuation), KIND_PUNCTUATION},
        {newer_symbols, COUNT(newer_symbols), KIND_SYMBOL},
    };
    for (int i = 0; i < COUNT(newer); i++)
        if (in_ranges(c, newer[i].ranges, newer[i].count)) return newer[i].kind;
    return 0;
}

// \w is Alphabetic, marks, decimal digits, connector punctuation and the two joiners. utf8proc has no Alphabetic:
// beyond letters, letter numbers and marks it holds the circled and squared Latin letters only.
static bool alphabetic_symbol(int32_t c) {
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

static unsigned kind_of(int32_t c) {
    if (c < 0x80) return ascii_kinds[c];
    if (c >= 0x3040 && c <= 0x9FA5) { // Chinese and Japanese: most of what they write is found without a table
        if (c >= 0x4E00) return UNCASED | KIND_HAN_KANA;
        if (c <= 0x30FF) return category_kinds[utf8proc_category(c)] | KIND_HAN_KANA;
    }
    if (c >= 0xAC00 && c <= 0xD7A3) return UNCASED; // Hangul
    if (c == 0x85) return KIND_SPACE;               // White_Space, though a control character
    utf8proc_category_t category = utf8proc_category(c);
    unsigned kind = category_kinds[category];
    if (category == UTF8PROC_CATEGORY_CN) return unassigned_kind(c);
    if (category == UTF8PROC_CATEGORY_SO && alphabetic_symbol(c)) return kind | KIND_WORD;
    return c == 0x200C || c == 0x200D ? KIND_WORD : kind;
}

bool char_is_digit(Char c) {
    return (c.kind & KIND_NUMBER) || (c.code >= 0x11DE0 && c.code <= 0x11DE9) || (c.code >= 0x16FF4 && c.code <= 0x16FF6);
}
bool char_is_old_punctuation(Char c) {
    if (c.code < 0x80) return c.size && (c.kind & (KIND_PUNCTUATION | KIND_SYMBOL));
    if (c.code == 0x166D || c.code == 0x111C9) return true;
    return (c.kind & KIND_PUNCTUATION) && !in_ranges(c.code, newer_punctuation_8, COUNT(newer_punctuation_8));
}

int32_t code_at(const char *text, size_t at, int *size) {
    const unsigned char *p = (const unsigned char *)text + at;
    int32_t c = p[0];
    *size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    switch (*size) {
    case 2: return (c & 0x1F) << 6 | (p[1] & 0x3F);
    case 3: return (c & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    case 4: return (c & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    default: return c;
    }
}
Char char_at(const char *text, size_t size, size_t at) {
    if (at >= size) return (Char){0};
    Char c;
    c.code = code_at(text, at, &c.size);
    c.kind = kind_of(c.code);
    return c;
}
Char char_before(const char *text, size_t at) {
    if (at == 0) return (Char){0};
    size_t start = at - 1;
    while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
    return char_at(text, at, start);
}

// ---- the byte-level alphabet -------------------------------------------------------------------------------
// Printable Latin-1 stands for itself; the 68 other bytes, in order, are U+0100 to U+0143.
static bool stands_for_itself(int32_t c) {
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}
static int32_t letter_of_byte(int byte) {
    if (stands_for_itself(byte)) return byte;
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7F + 33 : 67);
}
static int byte_of_letter(int32_t c) {
    if (c < 0x100) return stands_for_itself(c) ? c : -1;
    if (c > 0x143) return -1;
    return c <= 0x120 ? c - 0x100 : c <= 0x142 ? c - 0x121 + 0x7F : 0xAD;
}

void bytes_to_alphabet(const char *bytes, size_t size, Buf *out) {
    for (size_t i = 0; i < size; i++) {
        utf8_append(letter_of_byte((unsigned char)bytes[i]), out);
    }
}
bool alphabet_to_bytes(const char *text, size_t size, Buf *out) {
    size_t start = out->size, to = start;
    buf_append(out, text, size); // bytes are no more than their letters take, so they can be written over these
    for (size_t at = 0; at < size;) {
        int size_of;
        int byte = byte_of_letter(code_at(text, at, &size_of));
        if (byte < 0) {
            memcpy(out->data + start, text, size);
            return false;
        }
        out->data[to++] = (char)byte;
        at += (size_t)size_of;
    }
    out->size = to;
    out->data[to] = 0;
    return true;
}
