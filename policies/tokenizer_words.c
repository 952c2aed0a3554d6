// WordPiece and WordLevel. WordPiece takes the longest token that begins a word, then the longest that goes on (with its
// prefix), and so on; a word that can't be covered is one unknown token. WordLevel knows whole words only.
#include "tokenizer_parts.h"
#include <string.h>

static bool put_unknown(const WordPiece *w, const char *word, size_t size, Ids *out, Err *err) {
    if (w->unknown < 0)
        return fail(err, ERR_DATA, "text", "the word '%.*s' is not in the vocabulary, which has no unknown token",
                    (int)(size < 60 ? size : 60), word);
    ids_push(out, w->unknown);
    return true;
}

// The longest token at `at`, -1 if none; *end is its end.
static int32_t longest_at(const WordPiece *w, const char *word, size_t size, size_t at, Buf *text, size_t *end) {
    size_t prefix = at ? strlen(w->prefix) : 0, most = w->v->longest_token;
    text->size = 0;
    if (at) buf_puts(text, w->prefix);
    size_t room = most > prefix ? most - prefix : 0;
    *end = size - at > room ? at + room : size;
    while (*end < size && *end > at && ((unsigned char)word[*end] & 0xC0) == 0x80) --*end;
    buf_append(text, word + at, *end - at);
    while (*end > at) {
        int32_t id = vocabulary_find_model(w->v, text->data, prefix + *end - at);
        if (id >= 0) return id;
        do --*end;
        while (*end > at && ((unsigned char)word[*end] & 0xC0) == 0x80);
    }
    return -1;
}

static size_t count_characters(const char *word, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += ((unsigned char)word[i] & 0xC0) != 0x80;
    return count;
}

bool wordpiece_encode(const WordPiece *w, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    if (!w->prefix) {
        int32_t id = vocabulary_find_model(w->v, word, size);
        if (id < 0) return put_unknown(w, word, size, out, err);
        ids_push(out, id);
        return true;
    }
    if (count_characters(word, size) > w->longest) return put_unknown(w, word, size, out, err);
    int32_t before = out->count;
    for (size_t at = 0; at < size;) {
        size_t end;
        int32_t id = longest_at(w, word, size, at, &scratch->word, &end);
        if (id < 0) {
            out->count = before;
            return put_unknown(w, word, size, out, err);
        }
        ids_push(out, id);
        at = end;
    }
    return true;
}
