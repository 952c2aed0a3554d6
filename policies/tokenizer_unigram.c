// Unigram: of all ways to cut a word into tokens, the one with the highest sum of scores (Viterbi), scores added left to
// right in double precision; of equal sums the one whose last token starts earlier. A character that no token covers
// by itself costs ten less than the lowest score; neighbours of that kind count as one piece, which gives its bytes'
// tokens (with byte fallback) or the unknown token. The tokens are kept in a trie of bytes, so a word costs its
// length times the longest token that fits.
#include "tokenizer_parts.h"
#include "files.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double UNKNOWN_PENALTY = 10.0;

void unigram_free(Unigram *u) {
    free(u->scores), free(u->nodes), free(u->labels);
}

// ---- the trie ----------------------------------------------------------------------------------------------------
// Built breadth first from the tokens in the order of their bytes, so that the children of a node are neighbours.
typedef struct Builder {
    const Vocabulary *v;
    int32_t *order; // tokens by their texts' bytes; of equal texts the last id only
    int32_t count;
} Builder;
typedef struct Work {
    int32_t low, high; // the node's tokens: order[low..high)
} Work;

static int compare_tokens(const void *a, const void *b, void *context) {
    const Vocabulary *v = context;
    const Token *x = &v->tokens[*(const int32_t *)a], *y = &v->tokens[*(const int32_t *)b];
    size_t n = x->text_size < y->text_size ? x->text_size : y->text_size;
    int order = memcmp(v->pool.data + x->text, v->pool.data + y->text, n);
    if (order) return order;
    return (x->text_size > y->text_size) - (x->text_size < y->text_size);
}

static bool build_trie(Unigram *u, const Builder *b, Err *err) {
    size_t capacity = 1024, done = 0, depth_end = 1, depth = 0;
    Work *work = xmalloc(capacity * sizeof *work);
    u->nodes = xmalloc(capacity * sizeof *u->nodes);
    u->node_count = 1;
    u->nodes[0] = (TrieNode){.token = -1};
    work[0] = (Work){0, b->count};
    for (; done < u->node_count; done++) {
        if (done == depth_end) depth++, depth_end = u->node_count; // all nodes of a depth come before those of the next
        Work w = work[done];
        const Token *first = w.low < w.high ? &b->v->tokens[b->order[w.low]] : NULL;
        if (first && first->text_size == depth) {
            if (depth) u->nodes[done].token = b->order[w.low];
            w.low++;
        }
        u->nodes[done].first = (uint32_t)u->node_count;
        for (int32_t i = w.low; i < w.high;) {
            uint8_t byte = (uint8_t)token_text(b->v, b->order[i])[depth];
            int32_t end = i + 1;
            while (end < w.high && (uint8_t)token_text(b->v, b->order[end])[depth] == byte) end++;
            if (u->node_count == capacity) {
                capacity *= 2;
                work = xrealloc(work, capacity * sizeof *work);
                u->nodes = xrealloc(u->nodes, capacity * sizeof *u->nodes);
            }
            if (u->node_count >= UINT32_MAX) {
                free(work);
                return fail(err, ERR_DATA, "model.vocab", "holds too many tokens");
            }
            work[u->node_count] = (Work){i, end};
            u->nodes[u->node_count++] = (TrieNode){.byte = byte, .token = -1};
            u->nodes[done].count++;
            i = end;
        }
    }
    free(work);
    u->labels = xmalloc(u->node_count);
    for (size_t i = 0; i < u->node_count; i++) u->labels[i] = u->nodes[i].byte;
    return true;
}

static const TrieNode *child(const Unigram *u, const TrieNode *node, uint8_t byte) {
    const uint8_t *labels = u->labels + node->first;
    if (node->count < 8) {
        for (int i = 0; i < node->count; i++)
            if (labels[i] == byte) return &u->nodes[node->first + (uint32_t)i];
        return NULL;
    }
    const uint8_t *hit = memchr(labels, byte, node->count);
    return hit ? &u->nodes[hit - u->labels] : NULL;
}

bool unigram_finish(Unigram *u, Err *err) {
    Builder b = {.v = u->v, .order = xcalloc((size_t)u->v->size, sizeof *b.order)};
    double lowest = INFINITY;
    for (int32_t id = 0; id < u->v->size; id++) {
        const Token *t = &u->v->tokens[id];
        if (!t->model) continue;
        if (u->scores[id] < lowest) lowest = u->scores[id];
        if (vocabulary_find(u->v, token_text(u->v, id), t->text_size) == id) b.order[b.count++] = id;
    }
    u->unknown_score = lowest - UNKNOWN_PENALTY;
    qsort_r(b.order, (size_t)b.count, sizeof *b.order, compare_tokens, (void *)(uintptr_t)u->v);
    bool ok = build_trie(u, &b, err);
    free(b.order);
    for (int byte = 0; byte < 256; byte++) u->fallback_ids[byte] = vocabulary_byte_token(u->v, byte);
    return ok;
}

// ---- encoding --------------------------------------------------------------------------------------------------------
typedef struct Best {
    double score;  // of the best way to here
    int32_t start; // where its last token begins; -1 if there is no way to here
    int32_t id;
} Best;

static void offer(Best *b, double score, size_t start, int32_t id) {
    if (b->start >= 0 && !(score > b->score)) return;
    *b = (Best){score, (int32_t)start, id};
}

static bool forward(const Unigram *u, const char *word, size_t size, Best *best, Err *err) {
    best[0] = (Best){0, 0, -1};
    for (size_t i = 1; i <= size; i++) best[i].start = -1;
    int n;
    for (size_t at = 0; at < size; at += (size_t)n) {
        int32_t code = code_at(word, at, &n);
        double here = best[at].score;
        bool single = false;
        const TrieNode *node = u->nodes;
        for (size_t end = at; end < size && (node = child(u, node, (uint8_t)word[end]));) {
            end++;
            if (node->token < 0) continue;
            offer(&best[end], u->scores[node->token] + here, at, node->token);
            single |= end - at == (size_t)n;
        }
        if (single) continue;
        if (u->unknown < 0)
            return fail(err, ERR_DATA, "text", "the character U+%04X is not in the vocabulary, which has no unknown token",
                        (unsigned)code);
        offer(&best[at + (size_t)n], u->unknown_score + here, at, u->unknown);
    }
    return true;
}

// A piece that is no token of the path: perhaps one all the same, its bytes' tokens, or the unknown one.
static void put_unknown(const Unigram *u, const char *piece, size_t size, Ids *out) {
    int32_t id = vocabulary_find_model(u->v, piece, size);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; bytes && i < size; i++) bytes = u->fallback_ids[(unsigned char)piece[i]] >= 0;
    if (!bytes) {
        ids_push(out, id >= 0 ? id : u->unknown);
        return;
    }
    for (size_t i = 0; i < size; i++) ids_push(out, u->fallback_ids[(unsigned char)piece[i]]);
}

bool unigram_encode(const Unigram *u, const char *word, size_t size, ModelScratch *scratch, Ids *out, Err *err) {
    if (!size) return true;
    if (size > INT32_MAX / 2) return fail(err, ERR_DATA, "text", "a word of %zu bytes is too long", size);
    TRY(model_scratch_grow(scratch, size + 1, sizeof(Best), err));
    Best *best = scratch->memory;
    TRY(forward(u, word, size, best, err));
    // Back along the best way, turned around by writing each token's start into the one before it.
    int32_t next = (int32_t)size;
    for (int32_t at = (int32_t)size; at > 0;) {
        int32_t start = best[at].start;
        best[at].start = next; // where the token after this one ends
        next = at;
        at = start;
    }
    size_t start = 0;
    for (int32_t end = next;; end = best[end].start) {
        bool unknown = best[end].id == u->unknown, last = end == (int32_t)size;
        bool joined = unknown && !last && best[best[end].start].id == u->unknown;
        if (!unknown)
            ids_push(out, best[end].id);
        else if (!joined)
            put_unknown(u, word + start, (size_t)end - start, out);
        if (!joined) start = (size_t)end;
        if (last) return true;
    }
}
