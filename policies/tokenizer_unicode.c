// Characters: UTF-8 in and out, the few Unicode properties that patterns ask for, normalization form C, and GPT-2's
// alphabet of bytes. Properties come from utf8proc; nothing here fails.
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

// ---- kinds -----------------------------------------------------------------------------------------------
static unsigned ascii_kind(int32_t c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return KIND_LETTER | KIND_WORD;
    if (c >= '0' && c <= '9') return KIND_NUMBER | KIND_WORD;
    if (c == ' ' || (c >= 9 && c <= 13)) return KIND_SPACE;
    if (c == '_') return KIND_PUNCTUATION | KIND_WORD;
    if (c > ' ' && c < 0x7f && !strchr("$+<=>^`|~", c)) return KIND_PUNCTUATION;
    return 0;
}

// \w is Alphabetic, marks, decimal digits, connector punctuation and the two joiners. utf8proc has no Alphabetic:
// beyond letters, letter numbers and marks it holds the circled and squared Latin letters only.
static bool alphabetic_symbol(int32_t c) {
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

// Letters and numbers that came with Unicode 15.1 and 16; the utf8proc of Debian 12 knows 15.0.
typedef struct Range {
    int32_t first, last;
} Range;
static const Range newer_letters[] = {
    {0x1C89, 0x1C8A}, {0xA7CB, 0xA7CD}, {0xA7DA, 0xA7DC}, {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
    {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
static const Range newer_numbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
    {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
static bool in_ranges(int32_t c, const Range *ranges, int count) {
    for (int i = 0; i < count; i++)
        if (c >= ranges[i].first && c <= ranges[i].last) return true;
    return false;
}
static unsigned unassigned_kind(int32_t c) {
    if (in_ranges(c, newer_letters, COUNT(newer_letters))) return KIND_LETTER | KIND_WORD;
    return in_ranges(c, newer_numbers, COUNT(newer_numbers)) ? KIND_NUMBER | KIND_WORD : 0;
}

static unsigned kind_of(int32_t c) {
    if (c < 0x80) return ascii_kind(c);
    if (c == 0x85) return KIND_SPACE; // White_Space, though a control character
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return KIND_LETTER | KIND_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return KIND_WORD;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL: return KIND_NUMBER | KIND_WORD;
    case UTF8PROC_CATEGORY_NO: return KIND_NUMBER;
    case UTF8PROC_CATEGORY_PC: return KIND_PUNCTUATION | KIND_WORD;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return KIND_PUNCTUATION;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return KIND_SPACE;
    case UTF8PROC_CATEGORY_CN: return unassigned_kind(c);
    default: return c == 0x200C || c == 0x200D || alphabetic_symbol(c) ? KIND_WORD : 0;
    }
}

Char char_at(const char *text, size_t size, size_t at) {
    if (at >= size) return (Char){0};
    const unsigned char *p = (const unsigned char *)text + at;
    int32_t c = p[0];
    int n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (n == 2) c = (c & 0x1F) << 6 | (p[1] & 0x3F);
    if (n == 3) c = (c & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    if (n == 4) c = (c & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    return (Char){.code = c, .size = n, .kind = kind_of(c)};
}
Char char_before(const char *text, size_t at) {
    if (at == 0) return (Char){0};
    size_t start = at - 1;
    while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
    return char_at(text, at, start);
}

// ---- normalization form C ----------------------------------------------------------------------------------
typedef struct Codes {
    int32_t *data;
    size_t count, capacity;
} Codes;

static int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

static void append_decomposed(Codes *codes, int32_t c) {
    for (;;) {
        if (codes->capacity - codes->count < 32) {
            codes->capacity = codes->capacity * 2 + 64;
            codes->data = xrealloc(codes->data, codes->capacity * sizeof *codes->data);
        }
        int boundary = 0;
        size_t room = codes->capacity - codes->count;
        utf8proc_ssize_t n = utf8proc_decompose_char(c, codes->data + codes->count, (utf8proc_ssize_t)room,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (n >= 0 && (size_t)n <= room) {
            codes->count += (size_t)n;
            return;
        }
        if (n < 0) { // a code that utf8proc refuses stays as it is
            codes->data[codes->count++] = c;
            return;
        }
        codes->capacity += (size_t)n;
        codes->data = xrealloc(codes->data, codes->capacity * sizeof *codes->data);
    }
}

// Canonical order of one run of marks, stable, in time linear in its length: a hostile run may be a megabyte long,
// and utf8proc's own sort is quadratic.
static void order_marks(int32_t *marks, size_t count, int32_t *spare) {
    size_t start[257] = {0};
    for (size_t i = 0; i < count; i++) start[combining_class(marks[i]) + 1]++;
    for (int i = 0; i < 256; i++) start[i + 1] += start[i];
    for (size_t i = 0; i < count; i++) spare[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, count * sizeof *marks);
}

static void order_all_marks(Codes *codes) {
    int32_t *spare = NULL;
    for (size_t i = 0; i < codes->count;) {
        size_t end = i;
        bool sorted = true;
        for (int last = 0; end < codes->count; end++) {
            int class = combining_class(codes->data[end]);
            if (class == 0) break;
            sorted = sorted && class >= last;
            last = class;
        }
        if (!sorted) {
            if (!spare) spare = xmalloc(codes->count * sizeof *spare);
            order_marks(codes->data + i, end - i, spare);
        }
        i = end + 1;
    }
    free(spare);
}

void unicode_nfc(const char *text, size_t size, Buf *out) {
    bool ascii = true;
    for (size_t i = 0; i < size && ascii; i++) ascii = (unsigned char)text[i] < 0x80;
    if (ascii) {
        buf_append(out, text, size);
        return;
    }
    Codes codes = {0};
    for (size_t at = 0; at < size;) {
        Char c = char_at(text, size, at);
        append_decomposed(&codes, c.code);
        at += (size_t)c.size;
    }
    order_all_marks(&codes);
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(codes.data, (utf8proc_ssize_t)codes.count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char bytes[4];
        buf_append(out, bytes, (size_t)utf8_write(codes.data[i], bytes));
    }
    free(codes.data);
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
        char letter[4];
        buf_append(out, letter, (size_t)utf8_write(letter_of_byte((unsigned char)bytes[i]), letter));
    }
}
void alphabet_to_bytes(const char *text, size_t size, Buf *out) {
    size_t start = out->size;
    for (size_t at = 0; at < size;) {
        Char c = char_at(text, size, at);
        int byte = byte_of_letter(c.code);
        if (byte < 0) {
            out->size = start;
            buf_append(out, text, size);
            return;
        }
        char b = (char)byte;
        buf_append(out, &b, 1);
        at += (size_t)c.size;
    }
}
