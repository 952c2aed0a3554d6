// Added tokens are found in the text before anything else looks at it: leftmost first, of those that begin at one place
// the longest, without overlap. single_word, lstrip and rstrip have the meaning of the `tokenizers` package: a token
// inside a word is passed over, white space beside it belongs to it.
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>

static int compare_texts(const AddedToken *a, const AddedToken *b) {
    size_t n = a->size < b->size ? a->size : b->size;
    int order = memcmp(a->text, b->text, n);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}
// qsort is not stable, so the place in the file decides between equal texts.
typedef struct Entry {
    AddedToken token;
    int place;
} Entry;
static int compare_entries(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    int order = compare_texts(&x->token, &y->token);
    return order ? order : x->place - y->place;
}

void added_tokens_make(AddedTokens *a, const AddedToken *list, int count) {
    *a = (AddedTokens){.list = xcalloc((size_t)count, sizeof *list)};
    Entry *entries = xcalloc((size_t)count, sizeof *entries);
    for (int i = 0; i < count; i++) entries[i] = (Entry){list[i], i};
    qsort(entries, (size_t)count, sizeof *entries, compare_entries);
    for (int i = 0; i < count; i++) {
        bool again = a->count && compare_texts(&a->list[a->count - 1], &entries[i].token) == 0;
        if (again || entries[i].token.size == 0)
            free(entries[i].token.text);
        else
            a->list[a->count++] = entries[i].token;
    }
    free(entries);
    for (int i = 0; i < a->count; i++) a->from[(unsigned char)a->list[i].text[0] + 1]++;
    for (int i = 0; i < 256; i++) a->from[i + 1] += a->from[i];
}
void added_tokens_free(AddedTokens *a) {
    for (int i = 0; i < a->count; i++) free(a->list[i].text);
    free(a->list);
}

// First of list[low..high), which agree in their first `depth` bytes, whose byte there is at least `byte`; a text that
// ends before it comes first.
static int lower_bound(const AddedTokens *a, int low, int high, size_t depth, int byte) {
    while (low < high) {
        int middle = low + (high - low) / 2;
        const AddedToken *t = &a->list[middle];
        int at = t->size > depth ? (unsigned char)t->text[depth] : -1;
        if (at < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest token at `at`; NULL if none.
static const AddedToken *match_at(const AddedTokens *a, const char *text, size_t size, size_t at) {
    const AddedToken *best = NULL;
    int low = 0, high = a->count;
    for (size_t depth = 0; low < high; depth++) {
        if (a->list[low].size == depth && depth) best = &a->list[low];
        if (at + depth >= size) break;
        int byte = (unsigned char)text[at + depth];
        if (depth == 0) {
            low = a->from[byte], high = a->from[byte + 1];
            continue;
        }
        int from = lower_bound(a, low, high, depth, byte);
        high = lower_bound(a, from, high, depth, byte + 1);
        low = from;
    }
    return best;
}

static bool inside_word(const char *text, size_t size, size_t start, size_t stop) {
    return (char_before(text, start).kind & KIND_WORD) || (char_at(text, size, stop).kind & KIND_WORD);
}

static bool give(const AddedVisitor *v, Stretch s, size_t start, size_t stop) {
    return start >= stop || v->text(v->context, (Stretch){s.text + start, stop - start, s.first && start == 0});
}

bool added_tokens_split(const AddedTokens *a, Stretch s, AddedVisitor visitor) {
    const char *text = s.text;
    size_t size = s.size, done = 0;
    for (size_t at = 0; at < size && a->count;) {
        int byte = (unsigned char)text[at];
        const AddedToken *t = a->from[byte] == a->from[byte + 1] ? NULL : match_at(a, text, size, at);
        if (!t) {
            at++;
            continue;
        }
        size_t start = at, stop = at + t->size;
        at = stop; // the search goes on after the match itself, also where the token takes more or is passed over
        if (t->single_word && inside_word(text, size, start, stop)) continue;
        if (t->lstrip)
            for (Char c; start > done && ((c = char_before(text, start)).kind & KIND_SPACE);) start -= (size_t)c.size;
        if (t->rstrip)
            for (Char c; (c = char_at(text, size, stop)).kind & KIND_SPACE;) stop += (size_t)c.size;
        TRY(give(&visitor, s, done, start));
        visitor.token(visitor.context, t->id);
        done = stop;
    }
    return give(&visitor, s, done, size);
}
