// Rewards of lengths, repetition and form. Pure functions; cosine is our own, so that every machine gives the same bits.
#include "shaping.h"
#include "sort.h"
#include "unicode.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

// ---- lengths ------------------------------------------------------------------------------------------------------
double shape_soft_overlong(double length, double max, double cache) {
    double expected = max - cache;
    if (length <= expected) return 0;
    return length > max ? -1 : (expected - length) / cache;
}
double shape_overlong_verl(double length, double max, double buffer, double factor) {
    return fmin(-(length - (max - buffer)) / buffer * factor, 0);
}
double shape_overlong_openrlhf(double length, double max, double buffer, double factor) {
    double excess = fmin(length - (max - buffer), buffer);
    return excess > 0 ? -excess / buffer * factor : 0;
}
double shape_stop_properly(double score, bool truncated, double coefficient) {
    if (!truncated) return score;
    return coefficient < 0 ? coefficient : score * coefficient;
}
double shape_cosine(double length, double max, double start, double end, bool capped) {
    double progress = length / max;
    if (capped) progress = fmin(progress, 1);
    return end + 0.5 * (start - end) * (1 + exact_cos(fmod(progress, 2) * PI));
}
void shape_kimi(const double *lengths, const bool *correct, int count, double *out) {
    double shortest = INFINITY, longest = -INFINITY;
    for (int i = 0; i < count; i++) shortest = fmin(shortest, lengths[i]), longest = fmax(longest, lengths[i]);
    for (int i = 0; i < count; i++) {
        double value = longest == shortest ? 0 : 0.5 - (lengths[i] - shortest) / (longest - shortest);
        out[i] = correct[i] ? value : fmin(value, 0);
    }
}

// ---- repetition ---------------------------------------------------------------------------------------------------
static int compare_grams(const void *a, const void *b, const void *context) {
    const int32_t *x = a, *y = b;
    for (int i = 0, n = *(const int *)context; i < n; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

double shape_repetition_ids(const int32_t *ids, int64_t count, int n) {
    int64_t total = count - n + 1, unique = 0;
    if (n < 1 || total < 1) return 0;
    const void **grams = xmalloc((size_t)total * sizeof *grams); // [total], sorted: equal ones stand together
    for (int64_t i = 0; i < total; i++) grams[i] = ids + i;
    sort_pointers(grams, total, compare_grams, &n);
    for (int64_t i = 0; i < total; i++) unique += i == 0 || compare_grams(grams[i - 1], grams[i], &n) != 0;
    free(grams);
    return 1 - (double)unique / (double)total;
}

typedef struct WordAt {
    TextSpan word;
    int32_t id; // which of the different words
} WordAt;
static int compare_words(const void *a, const void *b, const void *context) {
    const WordAt *x = a, *y = b;
    size_t n = x->word.size < y->word.size ? x->word.size : y->word.size;
    int order = n ? memcmp(x->word.data, y->word.data, n) : 0;
    (void)context;
    return order ? order : x->word.size < y->word.size ? -1 : x->word.size > y->word.size;
}

double shape_repetition_words(TextSpan text, int n) {
    char *lower = unicode_lower(text, &text.size); // [text.size]
    WordAt *words = NULL;
    int32_t count = 0, capacity = 0, id = 0;
    text.data = lower;
    for (TextSpan word; unicode_word(&text, &word); count++) {
        if (count == capacity) words = xrealloc(words, (size_t)(capacity = capacity ? 2 * capacity : 64) * sizeof *words);
        words[count] = (WordAt){word, 0};
    }
    int32_t *ids = xmalloc((size_t)(count + 1) * sizeof *ids); // [count]
    const void **sorted = xmalloc((size_t)(count + 1) * sizeof *sorted);
    for (int32_t i = 0; i < count; i++) sorted[i] = &words[i];
    sort_pointers(sorted, count, compare_words, NULL);
    for (int32_t i = 0; i < count; i++) {
        if (i && compare_words(sorted[i - 1], sorted[i], NULL) != 0) id++;
        words[(const WordAt *)sorted[i] - words].id = id;
    }
    for (int32_t i = 0; i < count; i++) ids[i] = words[i].id;
    double share = shape_repetition_ids(ids, count, n);
    free(ids), free(words), free(sorted), free(lower);
    return share;
}

// ---- form ---------------------------------------------------------------------------------------------------------
static const char *find(TextSpan t, const char *what) { return t.size ? memmem(t.data, t.size, what, strlen(what)) : NULL; }
static bool starts(TextSpan t, const char *with) { return t.size >= strlen(with) && memcmp(t.data, with, strlen(with)) == 0; }
static TextSpan after(TextSpan t, const char *at) { return (TextSpan){at, (size_t)(t.data + t.size - at)}; }
static int occurrences(TextSpan t, const char *what) { // that don't overlap
    int n = 0;
    for (const char *p; (p = find(t, what)); n++) t = after(t, p + strlen(what));
    return n;
}

double shape_think_format(TextSpan text) {
    if (!starts(text, "<think>")) return 0;
    TextSpan rest = after(text, text.data + 7);
    return !find(rest, "<think>") && find(rest, "</think>");
}

double shape_think_answer_format(TextSpan text) {
    static const char middle[] = "\n</think>\n<answer>\n", close[] = "\n</answer>";
    if (!starts(text, "<think>\n")) return 0;
    const char *p = find(after(text, text.data + 8), middle);
    if (!p) return 0;
    TextSpan rest = after(text, p + sizeof middle - 1);
    while ((p = find(rest, close))) { // the tag ends its line
        rest = after(rest, p + sizeof close - 1);
        if (!rest.size || *rest.data == '\n') return 1;
        rest = after(text, p + 1);
    }
    return 0;
}

double shape_tag_count(TextSpan text) {
    static const char *const tags[] = {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"};
    double count = 0;
    for (int i = 0; i < COUNT(tags); i++) count += occurrences(text, tags[i]) == 1 ? 0.25 : 0;
    return count;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static size_t step_mark(TextSpan t, bool at_start) {
    static const char *const marks[] = {"\n-", "\n*", "First,", "Second,", "Next,", "Finally,"};
    size_t n = 0;
    for (int i = 0; i < COUNT(marks); i++)
        if (starts(t, marks[i])) return strlen(marks[i]);
    if (starts(t, "Step ")) {
        for (n = 5; n < t.size && is_digit(t.data[n]); n++) {}
        return n > 5 && n < t.size && t.data[n] == ':' ? n + 1 : 0;
    }
    while (at_start && n < t.size && is_digit(t.data[n])) n++;
    return n && n < t.size && t.data[n] == '.' ? n + 1 : 0;
}
double shape_reasoning_steps(TextSpan text) {
    int count = 0;
    for (size_t i = 0, n; i < text.size; i += n ? n : 1) {
        n = step_mark(after(text, text.data + i), i == 0);
        count += n > 0;
    }
    return fmin(1, count / 3.0);
}
