// Byte-pair merging of one word. Tables are built once, checked while they are built, and read-only from then on. A merge
// whose parts or whole are not tokens: refused.
//
// A word starts as one token a character (a byte, where words are raw bytes). Again and again the pair with the lowest
// rank, of these the leftmost, becomes one token. Most words never come to that: whether merging gives a token back whole is
// remembered the first time that a word is one, and from then on such a word is looked up. Short words are merged by going
// over them again and again, which beats any queue; for long ones a heap holds the candidate pairs, so a word of n
// bytes costs O(n log n), also one of a megabyte.
//
// A text without a pre-tokenizer is one word. It is cut where no merge joins the two characters that meet (its seams
// are hashed into a bitmap; a collision only means a cut less), so that it costs what a split text costs.
#include "tokenizer_parts.h"
#include "files.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t EMPTY_PAIR = UINT64_MAX; // ids are below TOKEN_LIMIT, so no pair looks like this
enum { SHORT_WORD = 48, UNKNOWN_SYMBOL = -2 };
enum { NOT_TRIED, WHOLE, NOT_WHOLE }; // what is known of a token: whether merging its own text gives it back

void bpe_free(Bpe *b) {
    mem_free(b->merges);
    mem_free(b->whole);
    free(b->character_ids), free(b->seams), free(b->prefix), free(b->suffix);
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
    if (count > 16 * (size_t)TOKEN_LIMIT)
        return fail(err, ERR_DATA, where, "found %zu merges, expected at most %d", count, 16 * TOKEN_LIMIT);
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    void *table;
    TRY(mem_alloc(slots * sizeof *b->merges, "the merges", &table, err));
    b->merges = table;
    b->merges_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) b->merges[i].pair = EMPTY_PAIR;
    return true;
}

static void put_merge(Bpe *b, int32_t left, int32_t right, int32_t rank, int32_t id) {
    MergeSlot *slot = merge_slot(b, pair_of(left, right));
    if (slot->pair == EMPTY_PAIR) b->merge_count++;
    *slot = (MergeSlot){.pair = pair_of(left, right), .rank = rank, .id = id}; // of two equal merges the later one counts
}

// Most files list merges in the order of the tokens that they give, which lie one after the other: `next` is looked at first.
static bool is_joined(const Vocabulary *v, int32_t id, const char *left, size_t left_size, const char *right, size_t right_size) {
    const Token *t = &v->tokens[id];
    return t->present && t->model && t->text_size == left_size + right_size && memcmp(token_text(v, id), left, left_size) == 0 &&
           memcmp(token_text(v, id) + left_size, right, right_size) == 0;
}
static int32_t find_joined(const Vocabulary *v, int32_t next, const char *left, size_t left_size, const char *right, size_t right_size) {
    char few[256], *text = few;
    size_t size = left_size + right_size;
    if (next < v->size && is_joined(v, next, left, left_size, right, right_size)) return next;
    if (left_size > v->longest_token || right_size > v->longest_token) return -1;
    if (size > sizeof few) text = xmalloc(size);
    memcpy(text, left, left_size);
    memcpy(text + left_size, right, right_size);
    int32_t id = vocabulary_find_model(v, text, size);
    if (text != few) free(text);
    return id;
}
bool bpe_merge_put(Bpe *b, int32_t rank, const char *left, size_t left_size, const char *right, size_t right_size,
                   const char *where, Err *err) {
    size_t prefix = b->prefix ? strlen(b->prefix) : 0;
    int32_t a = vocabulary_find_model(b->v, left, left_size), c = vocabulary_find_model(b->v, right, right_size);
    int32_t id = right_size < prefix ? -1 : find_joined(b->v, b->last_joined + 1, left, left_size, right + prefix, right_size - prefix);
    if (a < 0 || c < 0 || id < 0)
        return fail(err, ERR_DATA, where, "merge %d joins '%.*s' and '%.*s', but %s is not in the vocabulary", rank, SHOWN(left_size), left,
                    SHOWN(right_size), right, a < 0 ? "the first" : c < 0 ? "the second" : "the whole");
    put_merge(b, a, c, rank, id);
    b->last_joined = id;
    return true;
}

bool bpe_merge_put_line(Bpe *b, int32_t rank, const char *line, size_t size, const char *where, Err *err) {
    const char *space = memchr(line, ' ', size);
    size_t left = space ? (size_t)(space - line) : 0, right = space ? size - left - 1 : 0;
    if (!left || !right || memchr(space + 1, ' ', right))
        return fail(err, ERR_DATA, where, "merge %d is '%.*s', expected two tokens and one space between", rank, SHOWN(size), line);
    return bpe_merge_put(b, rank, line, left, space + 1, right, where, err);
}

// ---- merges out of scores ---------------------------------------------------------------------------------------
typedef struct Scored {
    double score;
    int32_t id;
} Scored;
static int compare_scored(const void *a, const void *b) {
    const Scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}
// The ways to cut one token in two tokens; with `put`, as merges of this rank.
static size_t cut_token(Bpe *b, int32_t id, int32_t rank, bool put) {
    const Token *t = &b->v->tokens[id];
    const char *text = token_text(b->v, id);
    size_t cuts = 0;
    int n;
    for (size_t at = 0; at < t->text_size; at += (size_t)n) {
        code_at(text, at, &n);
        if (at == 0) continue;
        int32_t left = vocabulary_find_model(b->v, text, at);
        int32_t right = left < 0 ? -1 : vocabulary_find_model(b->v, text + at, t->text_size - at);
        if (right < 0) continue;
        cuts++;
        if (put) put_merge(b, left, right, rank, id);
    }
    return cuts;
}
bool bpe_merges_from_scores(Bpe *b, const double *scores, const char *where, Err *err) {
    Scored *order = xcalloc((size_t)b->v->size, sizeof *order);
    size_t count = 0, cuts = 0;
    for (int32_t id = 0; id < b->v->size; id++) {
        if (!b->v->tokens[id].model) continue;
        size_t n = cut_token(b, id, 0, false);
        if (n) order[count++] = (Scored){scores[id], id};
        cuts += n;
    }
    qsort(order, count, sizeof *order, compare_scored);
    bool ok = bpe_merges_start(b, cuts, where, err);
    int32_t rank = -1;
    for (size_t i = 0; ok && i < count; i++) { // equal scores have equal ranks: the leftmost pair goes first
        if (i == 0 || order[i].score != order[i - 1].score) rank++;
        cut_token(b, order[i].id, rank, true);
    }
    free(order);
    return ok;
}

// ---- finishing -------------------------------------------------------------------------------------------------------
static size_t seam_of(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 21 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 44); // 20 bits
}
static bool seam_joins(const Bpe *b, int32_t left, int32_t right) {
    size_t s = seam_of(left, right);
    return b->seams[s / 64] >> (s % 64) & 1;
}
static int32_t last_code(const char *text, size_t size) {
    int n;
    size_t at = size - 1;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    return code_at(text, at, &n);
}
static bool is_substitute(const Bpe *b, int32_t id) { // stands for a character that has another text
    const Token *t = &b->v->tokens[id];
    return id == b->unknown || (b->byte_fallback && t->text_size == 6 && memcmp(token_text(b->v, id), "<0x", 3) == 0);
}
static void make_seams(Bpe *b) {
    uint64_t *seams = xcalloc(SEAM_BITS / 64, sizeof *seams);
    for (size_t i = 0; i <= b->merges_mask; i++) {
        if (b->merges[i].pair == EMPTY_PAIR) continue;
        int32_t left = (int32_t)(b->merges[i].pair >> 32), right = (int32_t)(uint32_t)b->merges[i].pair;
        const Token *l = &b->v->tokens[left], *r = &b->v->tokens[right];
        if (!l->text_size || !r->text_size || is_substitute(b, left) || is_substitute(b, right)) {
            free(seams); // its text says nothing about what it stands for
            return;
        }
        int n;
        size_t s = seam_of(last_code(token_text(b->v, left), l->text_size), code_at(token_text(b->v, right), 0, &n));
        seams[s / 64] |= (uint64_t)1 << (s % 64);
    }
    b->seams = seams;
}

static void find_characters(Bpe *b) {
    b->character_ids = xmalloc(CHARACTER_IDS * sizeof *b->character_ids);
    memset(b->character_ids, -1, CHARACTER_IDS * sizeof *b->character_ids);
    for (int32_t id = 0; id < b->v->size; id++) {
        const Token *t = &b->v->tokens[id];
        int n;
        if (!t->model || t->text_size == 0 || t->text_size > 3) continue;
        int32_t code = code_at(token_text(b->v, id), 0, &n);
        if ((uint32_t)n == t->text_size) b->character_ids[code] = id;
    }
}

bool bpe_finish(Bpe *b, Err *err) {
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        Buf letter = {0};
        bytes_to_alphabet(&c, 1, &letter);
        b->byte_ids[byte] = vocabulary_find_model(b->v, letter.data, letter.size);
        b->fallback_ids[byte] = vocabulary_byte_token(b->v, byte);
        buf_free(&letter);
    }
    if (!b->bytes) find_characters(b);
    if (b->prefix || b->suffix) return true; // a token's text says nothing about where it may stand
    if (!b->bytes) make_seams(b);
    void *memory;
    TRY(mem_alloc((size_t)b->v->size * sizeof *b->whole, "the vocabulary", &memory, err));
    b->whole = memory;
    for (int32_t id = 0; id < b->v->size; id++) {
        const Token *t = &b->v->tokens[id];
        uint32_t n = b->bytes ? t->bytes_size : t->text_size;
        if (t->model && t->text_size && (t->letters || !b->bytes)) b->short_tokens |= (uint64_t)1 << (n < 63 ? n : 63);
    }
    return true;
}

// ---- working memory ----------------------------------------------------------------------------------------------------
bool model_scratch_grow(ModelScratch *s, size_t count, size_t each, Err *err) {
    size_t bytes;
    if (!size_mul(count, each, &bytes)) return fail(err, ERR_DATA, "text", "a word of %zu bytes is too long", count);
    if (bytes <= s->capacity) return true;
    size_t capacity = s->capacity ? s->capacity : 4096;
    while (capacity < bytes) capacity *= 2;
    mem_free(s->memory);
    s->memory = NULL;
    s->capacity = 0;
    TRY(mem_alloc(capacity, "a word", &s->memory, err));
    s->capacity = capacity;
    return true;
}
void model_scratch_free(ModelScratch *s) {
    mem_free(s->memory);
    buf_free(&s->word);
}

// ---- merging by going over the word -------------------------------------------------------------------------------------
// symbols[0..count) -> the same, merged; the new count.
static int32_t merge_short(const Bpe *b, int32_t *symbols, int32_t count) {
    int32_t ranks[SHORT_WORD], ids[SHORT_WORD];
    for (int32_t i = 0; i + 1 < count; i++) {
        const MergeSlot *m = merge_slot(b, pair_of(symbols[i], symbols[i + 1]));
        bool empty = m->pair == EMPTY_PAIR;
        ranks[i] = empty ? INT32_MAX : m->rank;
        ids[i] = m->id;
    }
    while (count > 1) {
        int32_t best = 0;
        for (int32_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == INT32_MAX) break;
        symbols[best] = ids[best];
        count--;
        for (int32_t i = best + 1; i < count; i++) {
            symbols[i] = symbols[i + 1];
            ranks[i - 1] = ranks[i];
            ids[i - 1] = ids[i];
        }
        for (int32_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < count; i++) {
            const MergeSlot *m = merge_slot(b, pair_of(symbols[i], symbols[i + 1]));
            ranks[i] = m->pair == EMPTY_PAIR ? INT32_MAX : m->rank;
            ids[i] = m->id;
        }
    }
    return count;
}

// ---- merging with a heap ---------------------------------------------------------------------------------------------
typedef struct Symbol {
    int32_t id;            // -1: merged into the one before
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

// list[0..count), which lies in the scratch's memory: at most count - 1 candidates at the start and two more for each of
// count - 1 merges.
static int32_t merge_long(const Bpe *b, int32_t *list, int32_t count, void *memory) {
    Symbol *symbols = memory;
    Heap heap = {.data = (Candidate *)(symbols + count)};
    for (int32_t i = 0; i < count; i++) symbols[i] = (Symbol){list[i], i - 1, i + 1 < count ? i + 1 : -1};
    for (int32_t i = 0; i + 1 < count; i++) consider(b, symbols, i, &heap);
    merge_all(b, symbols, &heap);
    int32_t left = 0;
    for (int32_t i = 0; i >= 0; i = symbols[i].after) list[left++] = symbols[i].id;
    return left;
}

// ---- a word's first symbols ------------------------------------------------------------------------------------------
static int32_t symbols_of_bytes(const Bpe *b, const char *word, size_t size, int32_t *symbols) {
    int32_t count = 0;
    bool after_unknown = false;
    for (size_t i = 0; i < size; i++) {
        int32_t id = b->byte_ids[(unsigned char)word[i]];
        bool unknown = id < 0;
        if (unknown) id = after_unknown && b->fuse_unknown ? -1 : b->unknown;
        after_unknown = unknown;
        if (id >= 0) symbols[count++] = id;
    }
    return count;
}

static int32_t character_id(const Bpe *b, const char *word, size_t at, int n) {
    int m;
    if (n < 4) return b->character_ids[code_at(word, at, &m)];
    return vocabulary_find_model(b->v, word + at, (size_t)n);
}
// The character with the prefix or suffix of its place.
static int32_t placed_id(const Bpe *b, const char *word, size_t size, size_t at, int n, Buf *text) {
    text->size = 0;
    if (b->prefix && at > 0) buf_puts(text, b->prefix);
    buf_append(text, word + at, (size_t)n);
    if (b->suffix && at + (size_t)n == size) buf_puts(text, b->suffix);
    return vocabulary_find_model(b->v, text->data, text->size);
}
// The tokens of the bytes of an unknown character, if all are there.
static int32_t fallback(const Bpe *b, const char *bytes, size_t size, int32_t *symbols) {
    for (size_t i = 0; i < size; i++)
        if (b->fallback_ids[(unsigned char)bytes[i]] < 0) return 0;
    for (size_t i = 0; i < size; i++) symbols[i] = b->fallback_ids[(unsigned char)bytes[i]];
    return (int32_t)size;
}
// Unknown characters without byte tokens are held back until the next known one, as the `tokenizers` package does it:
// bytes of others may come before them. `symbols` has room for four a byte and the suffix's.
static int32_t symbols_of_characters(const Bpe *b, const char *word, size_t size, int32_t *symbols, Buf *text) {
    int32_t count = 0;
    bool held = false;
    int n;
    for (size_t at = 0; at < size; at += (size_t)n) {
        code_at(word, at, &n);
        bool placed = b->prefix || b->suffix;
        int32_t id = placed ? placed_id(b, word, size, at, n, text) : character_id(b, word, at, n);
        if (id >= 0) {
            if (held) symbols[count++] = b->unknown;
            held = false;
            symbols[count++] = id;
            continue;
        }
        int32_t bytes = 0;
        if (b->byte_fallback)
            bytes = fallback(b, placed ? text->data : word + at, placed ? text->size : (size_t)n, symbols + count);
        count += bytes;
        if (bytes || b->unknown < 0) continue;
        if (held && !b->fuse_unknown) symbols[count++] = b->unknown;
        held = true;
    }
    if (held) symbols[count++] = b->unknown;
    return count;
}

// ---- encoding --------------------------------------------------------------------------------------------------------
static int32_t find_word(const Bpe *b, const char *word, size_t size) {
    return b->bytes ? vocabulary_find_bytes(b->v, word, size) : vocabulary_find_model(b->v, word, size);
}
// A token that merging may give; -1 if the word is none. Of long ones, which are rare, nothing is remembered.
static int32_t word_token(const Bpe *b, const char *word, size_t size) {
    if (size > 256 || !(b->short_tokens >> (size < 63 ? size : 63) & 1)) return -1;
    return find_word(b, word, size);
}

static bool encode_part(const Bpe *b, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    int32_t few[SHORT_WORD], *symbols = few;
    size_t affixes = (b->prefix ? strlen(b->prefix) : 0) + (b->suffix ? strlen(b->suffix) : 0);
    size_t most = size * (1 + affixes); // each character gives at most as many symbols as bytes
    if (most >= SHORT_WORD) {
        if (size > INT32_MAX / 2 || most > INT32_MAX / 2) return fail(err, ERR_DATA, "text", "a word of %zu bytes is too long", size);
        TRY(model_scratch_grow(scratch, most + 1, sizeof(Symbol) + 3 * sizeof(Candidate) + sizeof(int32_t), err));
        symbols = (int32_t *)((char *)scratch->memory + (most + 1) * (sizeof(Symbol) + 3 * sizeof(Candidate)));
    }
    int32_t count = b->bytes ? symbols_of_bytes(b, word, size, symbols) : symbols_of_characters(b, word, size, symbols, &scratch->word);
    if (count > 1) count = count <= SHORT_WORD ? merge_short(b, symbols, count) : merge_long(b, symbols, count, scratch->memory);
    ids_append(out, symbols, count);
    return true;
}

static bool encode_word(const Bpe *b, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    int32_t id = word_token(b, word, size), before = out->count;
    // Threads that come here at the same time find the same.
    unsigned char known = id < 0 ? NOT_WHOLE : atomic_load_explicit(&b->whole[id], memory_order_relaxed);
    if (known == WHOLE) {
        ids_push(out, id);
        return true;
    }
    TRY(encode_part(b, word, size, scratch, out, err));
    if (known != NOT_TRIED) return true;
    bool whole = out->count == before + 1 && out->data[before] == id;
    atomic_store_explicit(&b->whole[id], whole ? WHOLE : NOT_WHOLE, memory_order_relaxed);
    return true;
}

// Cuts between two known characters that no merge joins.
static bool encode_at_seams(const Bpe *b, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    size_t start = 0;
    int32_t before = -1;
    int n;
    for (size_t at = 0; at < size; at += (size_t)n) {
        int32_t code = code_at(word, at, &n);
        bool known = character_id(b, word, at, n) >= 0;
        if (known && before >= 0 && !seam_joins(b, before, code)) {
            TRY(encode_word(b, word + start, at - start, scratch, out, err));
            start = at;
        }
        before = known ? code : -1;
    }
    return encode_word(b, word + start, size - start, scratch, out, err);
}

bool bpe_encode(const Bpe *b, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    if (!size) return true;
    int32_t id = b->ignore_merges ? find_word(b, word, size) : -1;
    if (id >= 0) {
        ids_push(out, id);
        return true;
    }
    if (b->seams && size > 16) return encode_at_seams(b, word, size, scratch, out, err);
    return encode_word(b, word, size, scratch, out, err);
}
