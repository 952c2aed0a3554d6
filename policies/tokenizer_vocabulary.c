// The vocabulary: tokens by id, by text, and by the bytes they stand for. It is built once, checked while it is built,
// and read-only from then on. An id or a text used twice: refused.
#include "tokenizer_parts.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool vocabulary_start(Vocabulary *v, int32_t size, Err *err) {
    *v = (Vocabulary){.size = size};
    void *tokens;
    TRY(mem_alloc((size_t)size * sizeof(Token), "the vocabulary", &tokens, err));
    v->tokens = tokens;
    return true;
}
void vocabulary_free(Vocabulary *v) {
    mem_free(v->tokens);
    mem_free(v->by_text);
    mem_free(v->by_bytes);
    buf_free(&v->pool);
}

bool vocabulary_put(Vocabulary *v, int32_t id, const char *text, size_t size, bool model, const char *where, Err *err) {
    Token *t = &v->tokens[id];
    if (t->present)
        return fail(err, ERR_DATA, where, "id %d belongs to two tokens, '%.60s' and '%.*s'; expected one", id,
                    token_text(v, id), SHOWN(size), text);
    if (v->pool.size + 3 * size + 2 > UINT32_MAX) return fail(err, ERR_DATA, where, "holds more than 4 GiB of tokens");
    *t = (Token){.present = true, .model = model, .text = (uint32_t)v->pool.size, .text_size = (uint32_t)size};
    buf_append(&v->pool, text, size);
    buf_append(&v->pool, "", 1); // so that it can be printed
    t->shown = t->text, t->shown_size = t->text_size;
    t->bytes = (uint32_t)v->pool.size;
    t->letters = alphabet_to_bytes(text, size, &v->pool);
    t->bytes_size = (uint32_t)v->pool.size - t->bytes;
    if (size > v->longest_token) v->longest_token = (uint32_t)size;
    return true;
}

void vocabulary_show(Vocabulary *v, int32_t id, const char *text, size_t size) {
    v->tokens[id].shown = (uint32_t)v->pool.size;
    v->tokens[id].shown_size = (uint32_t)size;
    buf_append(&v->pool, text, size);
    buf_append(&v->pool, "", 1);
}

// ---- by text -------------------------------------------------------------------------------------------------
static size_t table_size(size_t count) {
    size_t size = 16;
    while (size < 2 * count) size *= 2;
    return size;
}
static bool table_make(size_t count, int32_t **table, size_t *mask, Err *err) {
    void *memory;
    size_t slots = table_size(count);
    TRY(mem_alloc(slots * sizeof **table, "the vocabulary's index", &memory, err));
    *table = memory;
    *mask = slots - 1;
    memset(memory, -1, slots * sizeof **table);
    return true;
}

static int32_t *text_slot(const Vocabulary *v, const char *text, size_t size) {
    size_t i = (size_t)hash64(text, size) & v->by_text_mask;
    for (;; i = (i + 1) & v->by_text_mask) {
        int32_t id = v->by_text[i];
        if (id < 0) return &v->by_text[i];
        if (v->tokens[id].text_size == size && memcmp(token_text(v, id), text, size) == 0) return &v->by_text[i];
    }
}
int32_t vocabulary_find(const Vocabulary *v, const char *text, size_t size) { return *text_slot(v, text, size); }
int32_t vocabulary_find_model(const Vocabulary *v, const char *text, size_t size) {
    if (size > v->longest_token) return -1;
    int32_t id = *text_slot(v, text, size);
    return id >= 0 && v->tokens[id].model ? id : -1;
}

bool vocabulary_index(Vocabulary *v, bool repeats, const char *where, Err *err) {
    TRY(table_make((size_t)v->size, &v->by_text, &v->by_text_mask, err));
    for (int32_t id = 0; id < v->size; id++) {
        const Token *t = &v->tokens[id];
        if (!t->present) continue;
        int32_t *slot = text_slot(v, token_text(v, id), t->text_size);
        if (*slot >= 0 && !repeats)
            return fail(err, ERR_DATA, where, "the token '%.60s' has two ids, %d and %d; expected one", token_text(v, id),
                        *slot, id);
        *slot = id;
    }
    return true;
}

static int32_t *bytes_slot(const Vocabulary *v, const char *bytes, size_t size) {
    size_t i = (size_t)hash64(bytes, size) & v->by_bytes_mask;
    for (;; i = (i + 1) & v->by_bytes_mask) {
        int32_t id = v->by_bytes[i];
        if (id < 0) return &v->by_bytes[i];
        if (v->tokens[id].bytes_size == size && memcmp(token_bytes(v, id), bytes, size) == 0) return &v->by_bytes[i];
    }
}
int32_t vocabulary_find_bytes(const Vocabulary *v, const char *bytes, size_t size) {
    return size > v->longest_token ? -1 : *bytes_slot(v, bytes, size);
}
bool vocabulary_index_bytes(Vocabulary *v, Err *err) {
    TRY(table_make((size_t)v->size, &v->by_bytes, &v->by_bytes_mask, err));
    for (int32_t id = 0; id < v->size; id++) {
        const Token *t = &v->tokens[id];
        if (t->present && t->model && t->letters) *bytes_slot(v, token_bytes(v, id), t->bytes_size) = id;
    }
    return true;
}

int32_t vocabulary_byte_token(const Vocabulary *v, int byte) {
    char text[8];
    int n = snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
    return vocabulary_find_model(v, text, (size_t)n);
}

bool tokenizer_same_ids(const Tokenizer *a, const Tokenizer *b, int32_t *id) {
    const Vocabulary *v = &a->vocabulary, *w = &b->vocabulary;
    for (*id = 0; *id < v->size && *id < w->size; ++*id) {
        const Token *x = &v->tokens[*id], *y = &w->tokens[*id];
        if (x->present != y->present || x->text_size != y->text_size) return false;
        if (x->present && memcmp(token_text(v, *id), token_text(w, *id), x->text_size) != 0) return false;
    }
    return v->size == w->size;
}
