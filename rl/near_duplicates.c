// Near-duplicates among pairs of a question and its completion. Texts are compared in lower case, with each run of white space
// as one blank, by the Jaccard similarity of their sets of character n-grams: a pair is a near-duplicate where both its question and
// its completion are at least so similar to those of an earlier pair. Candidates are found by MinHash (Broder 1997) in bands
// (32 of 4 values: of pairs with similarity 0.9 one in 10^14 is missed, at 0.5 one in eight) and decided by the sets themselves,
// so that none is dropped by mistake. All of it is a function of the texts and their order.
#include "data.h"
#include "files.h"
#include "unicode.h"
#include <stdlib.h>
#include <string.h>

enum { BANDS = 32, BAND_VALUES = 4, VALUES = BANDS * BAND_VALUES };

typedef struct Grams {
    uint64_t *hash; // [count], ascending, distinct
    int count;
} Grams;
typedef struct Pair {
    Grams question, completion;
} Pair;
typedef struct Entry {
    uint64_t key;
    int64_t pair, next; // -1: the last one
} Entry;

struct NearDuplicates {
    int ngram;
    double similarity;
    Pair *pairs;
    int64_t count, capacity;
    Entry *entries; // [BANDS * count]
    int64_t *heads; // [head_count] into entries
    int64_t head_count;
};

NearDuplicates *near_duplicates_open(int ngram, double similarity) {
    NearDuplicates *n = xcalloc(1, sizeof *n);
    n->ngram = ngram, n->similarity = similarity;
    return n;
}
static void free_pair(Pair *p) { free(p->question.hash), free(p->completion.hash); }
void near_duplicates_close(NearDuplicates *n) {
    if (!n) return;
    for (int64_t i = 0; i < n->count; i++) free_pair(&n->pairs[i]);
    free(n->pairs), free(n->entries), free(n->heads);
    free(n);
}

// ---- n-grams ---------------------------------------------------------------------------------------------
static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// Characters in lower case; runs of white space are one blank, none at the ends. *count of them; the caller frees.
static uint32_t *normal_form(const char *text, int64_t *count) {
    size_t size;
    char *lower = unicode_lower((TextSpan){text, strlen(text)}, &size);
    uint32_t *out = xmalloc((size + 1) * sizeof *out), code;
    TextSpan left = {lower, size};
    bool blank = false;
    for (*count = 0; unicode_next(&left, &code); blank = unicode_is_blank(code)) {
        if (unicode_is_blank(code)) continue;
        if (blank && *count > 0) out[(*count)++] = ' ';
        out[(*count)++] = code;
    }
    free(lower);
    return out;
}

// A text shorter than an n-gram is one as a whole. `kind` keeps questions and completions apart.
static Grams grams_of(const char *text, int ngram, uint64_t kind) {
    int64_t length, n;
    uint32_t *codes = normal_form(text, &length);
    int64_t width = length < ngram ? length : ngram;
    n = length - width + 1;
    Grams g = {.hash = xmalloc((size_t)n * sizeof *g.hash)};
    for (int64_t i = 0; i < n; i++) g.hash[i] = hash64(codes + i, (size_t)width * sizeof *codes) ^ kind;
    free(codes);
    qsort(g.hash, (size_t)n, sizeof *g.hash, ascending);
    for (int64_t i = 0; i < n; i++)
        if (g.count == 0 || g.hash[g.count - 1] != g.hash[i]) g.hash[g.count++] = g.hash[i];
    return g;
}

static bool similar(const Grams *a, const Grams *b, double similarity) {
    int both = 0;
    for (int i = 0, j = 0; i < a->count && j < b->count;) {
        if (a->hash[i] == b->hash[j]) both++, i++, j++;
        else if (a->hash[i] < b->hash[j]) i++;
        else j++;
    }
    return both >= similarity * (a->count + b->count - both);
}

// ---- candidates ------------------------------------------------------------------------------------------
static uint64_t scrambled(uint64_t x) { // the finaliser of SplitMix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
static void lower_values(const Grams *g, uint64_t values[VALUES]) {
    for (int i = 0; i < g->count; i++)
        for (uint64_t k = 0; k < VALUES; k++) {
            uint64_t x = scrambled(g->hash[i] + (k + 1) * 0x9e3779b97f4a7c15u);
            if (x < values[k]) values[k] = x;
        }
}
// The union of both sets is at least as similar as the less similar of the two.
static void band_keys(const Pair *p, uint64_t keys[BANDS]) {
    uint64_t values[VALUES];
    memset(values, 0xff, sizeof values);
    lower_values(&p->question, values);
    lower_values(&p->completion, values);
    for (int b = 0; b < BANDS; b++) keys[b] = hash64(values + b * BAND_VALUES, BAND_VALUES * sizeof *values) + (uint64_t)b;
}

static bool has_similar(const NearDuplicates *n, const Pair *p, const uint64_t keys[BANDS]) {
    for (int b = 0; b < BANDS && n->head_count; b++)
        for (int64_t i = n->heads[keys[b] % (uint64_t)n->head_count]; i >= 0; i = n->entries[i].next) {
            const Pair *q = &n->pairs[n->entries[i].pair];
            if (n->entries[i].key == keys[b] && similar(&p->question, &q->question, n->similarity) &&
                similar(&p->completion, &q->completion, n->similarity))
                return true;
        }
    return false;
}

static void link_entry(NearDuplicates *n, int64_t at) {
    int64_t *head = &n->heads[n->entries[at].key % (uint64_t)n->head_count];
    n->entries[at].next = *head;
    *head = at;
}
static void make_room(NearDuplicates *n) {
    if (n->count < n->capacity) return;
    n->capacity = n->capacity ? 2 * n->capacity : 64;
    n->pairs = xrealloc(n->pairs, (size_t)n->capacity * sizeof *n->pairs);
    n->entries = xrealloc(n->entries, (size_t)n->capacity * BANDS * sizeof *n->entries);
    n->head_count = 2 * BANDS * n->capacity;
    n->heads = xrealloc(n->heads, (size_t)n->head_count * sizeof *n->heads);
    for (int64_t i = 0; i < n->head_count; i++) n->heads[i] = -1;
    for (int64_t i = 0; i < n->count * BANDS; i++) link_entry(n, i);
}

bool near_duplicates_has(NearDuplicates *n, const char *question, const char *completion) {
    Pair p = {grams_of(question, n->ngram, 0), grams_of(completion, n->ngram, 0x5851f42d4c957f2du)};
    uint64_t keys[BANDS];
    band_keys(&p, keys);
    if (has_similar(n, &p, keys)) {
        free_pair(&p);
        return true;
    }
    make_room(n);
    for (int b = 0; b < BANDS; b++) {
        int64_t at = n->count * BANDS + b;
        n->entries[at] = (Entry){.key = keys[b], .pair = n->count};
        link_entry(n, at);
    }
    n->pairs[n->count++] = p;
    return false;
}
