// The mutations: what an input is made of (bytes, little-endian numbers, decimal numbers, brackets, words of its
// language) is changed, repeated, cut, moved, or taken from another input. Most inputs get a few changes, so that they
// stay near what the reader accepts.
#include "fuzz.h"
#include <stdio.h>
#include <string.h>

typedef struct Text { // [FUZZ_INPUT]
    uint8_t *data;
    size_t size;
} Text;

static size_t below(Random *r, size_t bound) { return bound ? random_below(r, (uint32_t)bound) : 0; }

// Replaces `cut` bytes at `at` by `size` others, as far as there is room.
static void replace(Text *t, size_t at, size_t cut, const void *data, size_t size) {
    if (at > t->size) at = t->size;
    if (cut > t->size - at) cut = t->size - at;
    size_t room = FUZZ_INPUT - (t->size - cut);
    if (size > room) size = room;
    uint8_t piece[FUZZ_INPUT];
    if (size) memcpy(piece, data, size); // it may lie in the text itself
    memmove(t->data + at + size, t->data + at + cut, t->size - at - cut);
    if (size) memcpy(t->data + at, piece, size);
    t->size += size - cut;
}

// ---- numbers -------------------------------------------------------------------------------------------------
static uint64_t a_number(Random *r) {
    static const uint64_t edges[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1000, 4095, 4096, 32767, 32768, 65535, 65536,
                                     1000000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x20000000000001, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, UINT64_MAX};
    uint64_t x = edges[below(r, COUNT(edges))];
    switch (below(r, 4)) {
    case 0: return x + 1;
    case 1: return x - 1;
    case 2: return (uint64_t)random_next(r) >> below(r, 32);
    default: return x;
    }
}
// A length that fits this input, or nearly so: those find the mistakes.
static uint64_t a_length(Random *r, const Text *t, size_t at) {
    size_t rest = t->size - at;
    switch (below(r, 4)) {
    case 0: return rest + below(r, 3) - 1;
    case 1: return below(r, rest + 1);
    case 2: return t->size;
    default: return a_number(r);
    }
}

static void binary_number(Random *r, Text *t) {
    size_t width = (size_t)1 << below(r, 4), at;
    uint64_t x = 0;
    if (t->size < width) return;
    at = below(r, t->size - width + 1);
    memcpy(&x, t->data + at, width);
    switch (below(r, 4)) {
    case 0: x += below(r, 35) - 17; break;
    case 1: x = a_length(r, t, at + width); break;
    case 2: x = below(r, 2) ? x << below(r, 8) : ~x + below(r, 2); break;
    default: x = a_number(r);
    }
    memcpy(t->data + at, &x, width);
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static void decimal_number(Random *r, Text *t) {
    size_t start = below(r, t->size), end;
    char text[64];
    while (start < t->size && !is_digit(t->data[start])) start++;
    while (start > 0 && is_digit(t->data[start - 1])) start--;
    for (end = start; end < t->size && is_digit(t->data[end]);) end++;
    if (start == end) return;
    static const char *const odd[] = {"-1", "0.5", "1e400", "-0", "1e-400", "00", "1.", "0x10", "NaN", "-9223372036854775808", "9223372036854775808", "1e999999999", "true", "null", "\"1\""};
    unsigned long long x = 0;
    for (size_t i = start; i < end && i < start + 18; i++) x = 10 * x + (t->data[i] - '0');
    switch (below(r, 4)) {
    case 0: snprintf(text, sizeof text, "%s", odd[below(r, COUNT(odd))]); break;
    case 1: snprintf(text, sizeof text, "%llu", x + below(r, 9) - 4); break;
    case 2: snprintf(text, sizeof text, "%llu", below(r, 2) ? 2 * x : x / 2); break;
    default: snprintf(text, sizeof text, "%llu", (unsigned long long)a_number(r));
    }
    replace(t, start, end - start, text, strlen(text));
}

// ---- pieces --------------------------------------------------------------------------------------------------
static void repeat_piece(Random *r, Text *t) {
    if (t->size == 0) return;
    uint8_t many[FUZZ_INPUT];
    size_t at = below(r, t->size), size = 1 + below(r, t->size - at < 24 ? t->size - at : 24), used = 0;
    size_t times = below(r, 8) ? 1 + below(r, 6) : 1 + below(r, 400);
    for (; times && used + size <= sizeof many; times--, used += size) memcpy(many + used, t->data + at, size);
    replace(t, at, 0, many, used);
}
// From an opening bracket to its closing one, or what else looks like a unit.
static size_t unit_end(const uint8_t *data, size_t size, size_t at) {
    uint8_t open = data[at], close = open == '{' ? '}' : open == '[' ? ']' : open == '(' ? ')' : open == '"' ? '"' : 0;
    int depth = 0;
    if (!close) return at + 1;
    for (size_t i = at; i < size; i++) {
        if (data[i] == close && i > at && --depth == 0) return i + 1;
        if (data[i] == open && (close != open || i == at)) depth++;
    }
    return at + 1;
}
static size_t find_unit(Random *r, const uint8_t *data, size_t size) {
    size_t at = below(r, size);
    for (size_t i = at; i < size && i < at + 200; i++)
        if (memchr("{[(\"", data[i], 4)) return i;
    return at;
}
static void move_unit(Random *r, Text *t, const FuzzInput *other) {
    const uint8_t *from = below(r, 2) ? t->data : other->data;
    size_t size = from == t->data ? t->size : other->size;
    if (size == 0 || t->size == 0) return;
    size_t start = find_unit(r, from, size), end = unit_end(from, size, start);
    size_t at = find_unit(r, t->data, t->size), cut = below(r, 3) ? unit_end(t->data, t->size, at) - at : 0;
    replace(t, at, cut, from + start, end - start);
}
static void splice(Random *r, Text *t, const FuzzInput *other) {
    if (other->size == 0) return;
    size_t start = below(r, other->size), size = 1 + below(r, other->size - start);
    size_t at = below(r, t->size + 1);
    if (below(r, 4) == 0) { // a beginning here, an end there
        replace(t, at, t->size, other->data + start, other->size - start);
        return;
    }
    if (size > 64 && below(r, 4)) size = 1 + below(r, 64);
    replace(t, at, below(r, 2) ? size : 0, other->data + start, size);
}
static void insert_word(Random *r, Text *t, const char *const *words, int count) {
    const char *word = words[below(r, (size_t)count)];
    replace(t, below(r, t->size + 1), below(r, 3) ? 0 : strlen(word), word, strlen(word));
}
static void change_bytes(Random *r, Text *t) {
    static const char marks[] = "{}[]()<>\"'\\/,:;.-+*%$#@!?=&|^~`_ \t\n\r0123456789aAeEfnux";
    if (t->size == 0) return;
    size_t at = below(r, t->size);
    switch (below(r, 4)) {
    case 0: t->data[at] ^= (uint8_t)(1 << below(r, 8)); break;
    case 1: t->data[at] = (uint8_t)random_next(r); break;
    case 2: t->data[at] = (uint8_t)marks[below(r, sizeof marks - 1)]; break;
    default: replace(t, at, 0, &marks[below(r, sizeof marks - 1)], 1);
    }
}
static void odd_characters(Random *r, Text *t) {
    static const struct {
        const char *bytes;
        size_t size;
    } odd[] = {{"\0", 1}, {"\xEF\xBB\xBF", 3}, {"\xC0\x80", 2}, {"\xED\xA0\x80", 3}, {"\xF4\x90\x80\x80", 4}, {"\xE2\x80\xA8", 3}, {"\xE2\x80\xAE", 3}, {"\xCC\x81", 2},
               {"\xEA\xB0\x80", 3}, {"\xE1\x84\x80\xE1\x85\xA1", 6}, {"\xEF\xBC\x91", 3}, {"\xF0\x9F\x98\x80", 4}, {"\xE2\x80\x8D", 3}, {"\xC3", 1}, {"\xFF", 1},
               {"\\ud800", 6}, {"\\u0000", 6}, {"\xC2\xA0", 2}, {"\xE3\x80\x80", 3}, {"\xEF\xB7\xBA", 3}, {"\xC4\xB0", 2}, {"\xC5\xBF", 2}};
    size_t i = below(r, COUNT(odd));
    replace(t, below(r, t->size + 1), below(r, 3) ? 0 : 1, odd[i].bytes, odd[i].size);
}

size_t fuzz_mutate(Random *random, const FuzzCorpus *corpus, const char *const *words, uint8_t *out) {
    int word_count = 0;
    const FuzzInput *base = &corpus->inputs[below(random, (size_t)corpus->count)];
    Text t = {out, base->size};
    if (base->size) memcpy(out, base->data, base->size);
    while (words && words[word_count]) word_count++;
    int changes = 1;
    while (changes < 24 && below(random, 3)) changes++;
    while (changes--) {
        const FuzzInput *other = &corpus->inputs[below(random, (size_t)corpus->count)];
        switch (below(random, 12)) {
        case 0: binary_number(random, &t); break;
        case 1: decimal_number(random, &t); break;
        case 2: repeat_piece(random, &t); break;
        case 3: move_unit(random, &t, other); break;
        case 4: splice(random, &t, other); break;
        case 5: replace(&t, below(random, t.size + 1), 1 + below(random, below(random, 4) ? 8 : t.size + 1), "", 0); break;
        case 6: odd_characters(random, &t); break;
        case 7:
        case 8:
            if (word_count) {
                insert_word(random, &t, words, word_count);
                break;
            } // fall through
        default: change_bytes(random, &t);
        }
    }
    return t.size;
}
