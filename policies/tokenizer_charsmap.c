// SentencePiece's precompiled map of characters: in base64, the size of a double-array trie (32 bits), the trie, and the
// replacements, each ended by NUL. A grapheme of less than six bytes is looked up as a whole, otherwise each of its
// characters; what counts is the shortest prefix that the trie holds, as the `tokenizers` package has it. The trie is
// checked by bounds at every step, so a broken one gives odd text and never harm.
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct CharsMap {
    uint32_t *units; // [count]
    size_t count;
    char *texts; // [size], NUL at the end
    size_t size;
};

void charsmap_free(CharsMap *m) {
    if (!m) return;
    free(m->units), free(m->texts), free(m);
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}
static bool base64_read(const char *text, size_t size, Buf *out) {
    while (size && text[size - 1] == '=') size--;
    uint32_t bits = 0;
    int held = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        char byte = (char)(bits >> held);
        buf_append(out, &byte, 1);
    }
    return true;
}

bool charsmap_make(const char *base64, size_t size, const char *where, CharsMap **out, Err *err) {
    *out = NULL;
    Buf data = {0};
    uint32_t trie = 0;
    bool ok = base64_read(base64, size, &data) || fail(err, ERR_DATA, where, "'precompiled_charsmap' is not base64");
    if (ok && data.size >= 4) memcpy(&trie, data.data, 4);
    if (ok && (data.size < 4 || trie > data.size - 4 || trie % 4))
        ok = fail(err, ERR_DATA, where, "'precompiled_charsmap' has %zu bytes, expected more than its trie of %u", data.size, trie);
    if (ok) {
        CharsMap *m = xcalloc(1, sizeof *m);
        m->count = trie / 4;
        m->units = xcalloc(m->count + 1, sizeof *m->units);
        memcpy(m->units, data.data + 4, trie);
        m->size = data.size - 4 - trie;
        m->texts = xcalloc(m->size + 1, 1);
        memcpy(m->texts, data.data + 4 + trie, m->size);
        *out = m;
    }
    buf_free(&data);
    return ok;
}

// A unit of the double array (Darts-clone).
static bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
static uint32_t value_of(uint32_t unit) { return unit & 0x7fffffff; }
static uint32_t label_of(uint32_t unit) { return unit & (1u << 31 | 0xff); }
static uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

// The replacement of the shortest prefix of the text that has one; NULL if none.
static const char *find(const CharsMap *m, const char *text, size_t size) {
    uint32_t at = 0;
    if (!m->count) return NULL;
    at ^= offset_of(m->units[0]);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0) return NULL;
        at ^= c;
        if (at >= m->count || label_of(m->units[at]) != c) return NULL;
        uint32_t unit = m->units[at];
        at ^= offset_of(unit);
        if (!has_leaf(unit)) continue;
        if (at >= m->count) return NULL;
        uint32_t value = value_of(m->units[at]);
        return value < m->size ? m->texts + value : NULL;
    }
    return NULL;
}

static size_t grapheme_end(const char *text, size_t size, size_t at) {
    utf8proc_int32_t state = 0;
    int n;
    int32_t before = code_at(text, at, &n);
    for (at += (size_t)n; at < size; at += (size_t)n) {
        int32_t c = code_at(text, at, &n);
        if (utf8proc_grapheme_break_stateful(before, c, &state)) break;
        before = c;
    }
    return at;
}

void charsmap_apply(const CharsMap *m, const char *text, size_t size, Buf *out) {
    for (size_t at = 0; at < size;) {
        size_t end = grapheme_end(text, size, at);
        const char *whole = end - at < 6 ? find(m, text + at, end - at) : NULL;
        if (whole) {
            buf_puts(out, whole);
            at = end;
            continue;
        }
        for (int n; at < end; at += (size_t)n) {
            code_at(text, at, &n);
            const char *one = find(m, text + at, (size_t)n);
            if (one)
                buf_puts(out, one);
            else
                buf_append(out, text + at, (size_t)n);
        }
    }
}
