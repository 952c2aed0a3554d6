// The vocabulary, its merges, and byte-pair merging of one word. Tables are built once, checked while they are built,
// and read-only from then on. A merge whose parts or whole are not tokens, an id or a text used twice: refused.
//
// A word starts as one token a byte. Again and again the pair with the lowest rank, of these the leftmost, becomes one
// token. A heap holds the candidate pairs, so a word of n bytes costs O(n log n), also one of a megabyte.
#include "tokenizer_parts.h"
#include "files.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t EMPTY_PAIR = UINT64_MAX; // ids are below TOKEN_LIMIT, so no pair looks like this

bool bpe_start(Bpe *b, int32_t size, Err *err) {
    *b = (Bpe){.size = size, .unknown = -1};
    memset(b->byte_ids, -1, sizeof b->byte_ids);
    void *tokens;
    TRY(mem_alloc((size_t)size * sizeof(Token), "the vocabulary", &tokens, err));
    b->tokens = tokens;
    return true;
}
void bpe_free(Bpe *b) {
    mem_free(b->tokens);
    mem_free(b->by_text);
    mem_free(b->merges);
    buf_free(&b->pool);
}

bool bpe_put(Bpe *b, int32_t id, const char *text, size_t size, const char *where, Err *err) {
    Token *t = &b->tokens[id];
    if (t->present)
        return fail(err, ERR_DATA, where, "id %d belongs to two tokens, '%.60s' and '%.60s'; expected one", id,
                    token_text(b, id), text);
    if (b->pool.size + 3 * size + 2 > UINT32_MAX) return fail(err, ERR_DATA, where, "holds more than 4 GiB of tokens");
    *t = (Token){.present = true, .text = (uint32_t)b->pool.size, .text_size = (uint32_t)size};
    buf_append(&b->pool, text, size);
    buf_append(&b->pool, "", 1); // so that it can be printed
    t->bytes = (uint32_t)b->pool.size;
    alphabet_to_bytes(text, size, &b->pool);
    t->bytes_size = (uint32_t)b->pool.size - t->bytes;
    if (t->bytes_size > b->longest_token) b->longest_token = t->bytes_size;
    return true;
}

// ---- by text -------------------------------------------------------------------------------------------------
static size_t table_size(size_t count) {
    size_t size = 16;
    while (size < 2 * count) size *= 2;
    return size;
}
static int32_t *text_slot(const Bpe *b, const char *text, size_t size) {
    size_t i = (size_t)hash64(text, size) & b->by_text_mask;
    for (;; i = (i + 1) & b->by_text_mask) {
        int32_t id = b->by_text[i];
        if (id < 0) return &b->by_text[i];
        if (b->tokens[id].text_size == size && memcmp(token_text(b, id), text, size) == 0) return &b->by_text[i];
    }
}
int32_t bpe_find(const Bpe *b, const char *text, size_t size) { return *text_slot(b, text, size); }

bool bpe_index(Bpe *b, const char *where, Err *err) {
    size_t slots = table_size((size_t)b->size);
    void *table;
    TRY(mem_alloc(slots * sizeof *b->by_text, "the vocabulary's index", &table, err));
    b->by_text = table;
    b->by_text_mask = slots - 1;
    memset(b->by_text, -1, slots * sizeof *b->by_text);
    for (int32_t id = 0; id < b->size; id++) {
        const Token *t = &b->tokens[id];
        if (!t->present) continue;
        int32_t *slot = text_slot(b, token_text(b, id), t->text_size);
        if (*slot >= 0)
            return fail(err, ERR_DATA, where, "the token '%.60s' has two ids, %d and %d; expected one", token_text(b, id),
                        *slot, id);
        *slot = id;
    }
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        Buf letter = {0};
        bytes_to_alphabet(&c, 1, &letter);
        b->byte_ids[byte] = bpe_find(b, letter.data, letter.size);
        buf_free(&letter);
    }
    return true;
}

// ---- merges --------------------------------------------------------------------------------------------------
static uint64_t pair_of(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }
static MergeSlot *merge_slot(const Bpe *b, uint64_t pair) {
    uint64_t h = pair * 0x9E3779B97F4A7C15u; // Fibonacci hashing; the high bits are the mixed ones
    size_t i = (size_t)(h >> 32) & b->merges_mask;
    while (b->merges[i].pair != pair && b->merges[i].pair != EMPTY_PAIR) i = (i + 1) & b->merges_mask;
    return &b->merges[i];
}

bool bpe_merges_start(Bpe *b, size_t count, const char *where, Err *err) {
    if (count > 4 * (size_t)TOKEN_LIMIT)
        return fail(err, ERR_DATA, where, "found %zu merges, expected at most %d", count, 4 * TOKEN_LIMIT);
    size_t slots = table_size(count);
    void *table;
    TRY(mem_alloc(slots * sizeof *b->merges, "the merges", &table, err));
    b->merges = table;
    b->merges_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) b->merges[i].pair = EMPTY_PAIR;
    return true;
}

bool bpe_merge_put(Bpe *b, int32_t rank, const char *left, size_t left_size, const char *right, size_t right_size,
                   const char *where, Err *err) {
    Buf whole = {0};
    buf_append(&whole, left, left_size);
    buf_append(&whole, right, right_size);
    int32_t a = bpe_find(b, left, left_size), c = bpe_find(b, right, right_size), id = bpe_find(b, whole.data, whole.size);
    buf_free(&whole);
    if (a < 0 || c < 0 || id < 0)
        return fail(err, ERR_DATA, where, "merge %d joins '%.60s' and '%.60s', but %s is not in the vocabulary", rank, left,
                    right, a < 0 ? "the first" : c < 0 ? "the second" : "the whole");
    MergeSlot *slot = merge_slot(b, pair_of(a, c));
    if (slot->pair == EMPTY_PAIR) b->merge_count++;
    *slot = (MergeSlot){.pair = pair_of(a, c), .rank = rank, .id = id}; // of two equal merges the later one counts
    return true;
}

bool bpe_merge_put_line(Bpe *b, int32_t rank, const char *line, size_t size, const char *where, Err *err) {
    const char *space = memchr(line, ' ', size);
    size_t left = space ? (size_t)(space - line) : 0, right = space ? size - left - 1 : 0;
    if (!left || !right || memchr(space + 1, ' ', right))
        return fail(err, ERR_DATA, where, "merge %d is '%.60s', expected two tokens and one space between", rank, line);
    char *a = xstrndup(line, left), *c = xstrndup(space + 1, right);
    bool ok = bpe_merge_put(b, rank, a, left, c, right, where, err);
    free(a), free(c);
    return ok;
}

// ---- merging a word ----------------------------------------------------------------------------------------------
typedef struct Symbol {
    int32_t id; // -1: merged into the one before
    int32_t before, after; // neighbours; -1 at the ends
} Symbol;
typedef struct Candidate {
    int32_t rank, at; // of the left symbol
    int32_t left, right, id;
} Candidate;
typedef struct Heap {
    Candidate *data;
    size_t count;
} Heap;

static bool comes_first(const Candidate *a, const Candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}
static void heap_push(Heap *h, Candidate c) {
    size_t i = h->count++;
    for (; i > 0 && comes_first(&c, &h->data[(i - 1) / 2]); i = (i - 1) / 2) h->data[i] = h->data[(i - 1) / 2];
    h->data[i] = c;
}
static Candidate heap_pop(Heap *h) {
    Candidate top = h->data[0], last = h->data[--h->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && comes_first(&h->data[child + 1], &h->data[child])) child++;
        if (!comes_first(&h->data[child], &last)) break;
        h->data[i] = h->data[child];
    }
    if (h->count) h->data[i] = last;
    return top;
}

static void consider(const Bpe *b, const Symbol *symbols, int32_t at, Heap *heap) {
    if (at < 0 || symbols[at].after < 0) return;
    int32_t left = symbols[at].id, right = symbols[symbols[at].after].id;
    const MergeSlot *m = merge_slot(b, pair_of(left, right));
    if (m->pair == EMPTY_PAIR) return;
    heap_push(heap, (Candidate){.rank = m->rank, .at = at, .left = left, .right = right, .id = m->id});
}

// At most n - 1 candidates at the start and two more for each of n - 1 merges.
static bool scratch_grow(BpeScratch *s, size_t size, Err *err) {
    if (size <= s->capacity) return true;
    size_t capacity = s->capacity ? s->capacity : 128, bytes;
    while (capacity < size) capacity *= 2;
    if (!size_mul(capacity, sizeof(Symbol) + 3 * sizeof(Candidate), &bytes))
        return fail(err, ERR_DATA, "text", "a word of %zu bytes is too long", size);
    mem_free(s->memory);
    s->memory = NULL;
    s->capacity = 0;
    TRY(mem_alloc(bytes, "a word", &s->memory, err));
    s->capacity = capacity;
    return true;
}
void bpe_scratch_free(BpeScratch *s) {
    mem_free(s->memory);
    buf_free(&s->word);
}

static int32_t start_symbols(const Bpe *b, const char *word, size_t size, Symbol *symbols) {
    int32_t count = 0;
    bool after_unknown = false;
    for (size_t i = 0; i < size; i++) {
        int32_t id = b->byte_ids[(unsigned char)word[i]];
        bool unknown = id < 0;
        if (unknown) id = after_unknown && b->fuse_unknown ? -1 : b->unknown;
        after_unknown = unknown;
        if (id < 0) continue;
        symbols[count] = (Symbol){.id = id, .before = count - 1, .after = count + 1};
        count++;
    }
    if (count) symbols[count - 1].after = -1;
    return count;
}

static void merge_all(const Bpe *b, Symbol *symbols, Heap *heap) {
    while (heap->count) {
        Candidate c = heap_pop(heap);
        Symbol *s = &symbols[c.at];
        if (s->id != c.left || s->after < 0 || symbols[s->after].id != c.right) continue; // its symbols have changed
        Symbol *gone = &symbols[s->after];
        s->id = c.id;
        s->after = gone->after;
        gone->id = -1;
        if (s->after >= 0) symbols[s->after].before = c.at;
        consider(b, symbols, s->before, heap);
        consider(b, symbols, c.at, heap);
    }
}

bool bpe_encode(const Bpe *b, const char *word, size_t size, BpeScratch *scratch, Ids *out, Err *err) {
    if (b->ignore_merges && size <= b->longest_token) {
        scratch->word.size = 0;
        bytes_to_alphabet(word, size, &scratch->word);
        int32_t id = bpe_find(b, scratch->word.data, scratch->word.size);
        if (id >= 0) {
            ids_push(out, id);
            return true;
        }
    }
    TRY(scratch_grow(scratch, size, err));
    Symbol *symbols = scratch->memory;
    Heap heap = {.data = (Candidate *)(symbols + scratch->capacity)};
    int32_t count = start_symbols(b, word, size, symbols);
    for (int32_t i = 0; i + 1 < count; i++) consider(b, symbols, i, &heap);
    merge_all(b, symbols, &heap);
    for (int32_t i = count ? 0 : -1; i >= 0; i = symbols[i].after) ids_push(out, symbols[i].id);
    return true;
}
