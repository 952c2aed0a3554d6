// Two arms on the same items: the difference with its interval and its test, what one costs in terms of the other, and what that
// comes to in words. Nothing here sees which outcome is hoped for.
//
// An interval says nothing of what it has not seen: without one pair that differs its width is 0. So a difference also has to pass
// a test (McNemar's, corrected after Holm for the other tests of its kind), and sameness needs so many items that a difference beyond
// the margin would have shown in one of them with 95 % confidence (the rule of three).
#include "compare.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const verdict_codes[] = {"open", "a", "b", "same", "b at least", "a at least", "neither"};

// ---- figures -----------------------------------------------------------------------------------------------
static Ratio ratio_of(const double *above, const double *below, int n, Interval interval) {
    double a = 0, b = 0;
    for (int i = 0; i < n; i++) a += above[i], b += below[i];
    return b > 0 ? (Ratio){a / b, interval.low, interval.high} : (Ratio){NAN, NAN, NAN};
}
static double deviation_of(const double *x, int n, double mean) {
    double squares = 0;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return n > 0 ? sqrt(squares / n) : NAN;
}

typedef struct Columns {
    double *difference, *tokens[2], *flops[2];
} Columns;

// The chosen items' columns, and the counts; false without items.
static void gather(const ArmResult *a, const ArmResult *b, const bool *which, Columns *columns, Contrast *out) {
    int n = a->count < b->count ? a->count : b->count;
    for (int i = 0; i < n; i++) {
        const ArmItem *x = &a->items[i], *y = &b->items[i];
        if (which && !which[x->level]) continue;
        int at = out->items++;
        columns->difference[at] = x->correct - y->correct;
        columns->tokens[0][at] = x->tokens, columns->tokens[1][at] = y->tokens;
        columns->flops[0][at] = x->flops, columns->flops[1][at] = y->flops;
        out->a += x->correct, out->b += y->correct;
        out->only_a += a->right[i] && !b->right[i], out->only_b += b->right[i] && !a->right[i];
    }
    double items = out->items > 0 ? out->items : (double)NAN; // divided, as an arm's own accuracy is: both print alike
    out->difference = (out->a - out->b) / items, out->a /= items, out->b /= items;
}

void contrast_make(const ArmResult *a, const ArmResult *b, const bool *which, uint64_t seed, Contrast *out) {
    size_t size = (size_t)a->count + 1;
    double *memory = xcalloc(5 * size, sizeof *memory);
    Columns c = {memory, {memory + size, memory + 2 * size}, {memory + 3 * size, memory + 4 * size}};
    *out = (Contrast){.more_items = NAN};
    gather(a, b, which, &c, out);
    PairedColumns paired = {.n = out->items, .differences = 1, .ratios = 2, .difference = {c.difference},
                            .above = {c.tokens[0], c.flops[0]}, .below = {c.tokens[1], c.flops[1]}};
    Interval ratios[2];
    paired_intervals(&paired, RESAMPLES, seed, CONFIDENCE, &out->interval, ratios);
    out->tokens = ratio_of(c.tokens[0], c.tokens[1], out->items, ratios[0]);
    out->flops = ratio_of(c.flops[0], c.flops[1], out->items, ratios[1]);
    out->deviation = deviation_of(c.difference, out->items, out->difference);
    for (int i = 0; i < out->items; i++) out->uncounted = out->uncounted || isnan(c.tokens[0][i]) || isnan(c.tokens[1][i]);
    bool shares = a->seeds > 1 || b->seeds > 1;
    out->test = shares ? "sign flips" : "mcnemar";
    out->p = shares ? sign_flips_sampled(c.difference, out->items, RESAMPLES, seed) : mcnemar_exact(out->only_a, out->only_b);
    out->p_holm = out->p;
    free(memory);
}

// ---- the verdict -------------------------------------------------------------------------------------------
static VerdictWord word_of(const Contrast *c, double margin) {
    double low = c->interval.low, high = c->interval.high;
    bool differs = c->p_holm < 1 - CONFIDENCE, enough = c->items > 0 && 3.0 / c->items <= margin;
    if (c->items <= 0) return IS_OPEN;
    if (c->a <= margin && c->b <= margin && enough) return IS_NEITHER;
    if (low >= -margin && high <= margin && enough) return IS_SAME;
    if (low > 0 && differs) return IS_A;
    if (high < 0 && differs) return IS_B;
    // The cheaper one needn't be shown to be better: that the other gains at most the margin settles it.
    if (high <= margin && enough && !c->uncounted && !(c->tokens.value < 1)) return IS_B_AT_LEAST;
    if (low >= -margin && enough && c->tokens.value < 1) return IS_A_AT_LEAST;
    return IS_OPEN;
}
void contrast_judge(Contrast *c, double margin) {
    c->verdict = word_of(c, margin);
    c->more_items = NAN;
    if (c->verdict != IS_OPEN || c->items <= 0) return;
    // Many tests ask each of them for more: the correction's factor goes into the level.
    double factor = c->p > 0 && c->p_holm > c->p ? c->p_holm / c->p : 1;
    double needed = items_to_settle(c->difference, c->deviation, margin, 1 - (1 - CONFIDENCE) / factor);
    if (needed <= c->items) needed = c->items + 1;
    if (isfinite(needed) && needed < 1e9) c->more_items = needed - c->items;
}

char *points_signed(double share, char out[24]) {
    snprintf(out, 24, fabs(100 * share) < 0.05 ? "0.0" : "%+.1f", 100 * share);
    return out;
}
static void cheaper(double ratio, char *out, size_t size) { // of b
    out[0] = 0;
    if (ratio > 1.05 && isfinite(ratio)) snprintf(out, size, " and %.1f times cheaper in tokens", ratio);
    else if (ratio < 1 / 1.05 && ratio > 0) snprintf(out, size, ", for %.1f times the tokens", 1 / ratio);
}
static void dearer(double ratio, char *out, size_t size) { // of a
    out[0] = 0;
    if (isfinite(ratio) && ratio > 1.05) snprintf(out, size, " for %.1f times the tokens", ratio);
    else if (ratio > 0 && ratio < 1 / 1.05) snprintf(out, size, ", at 1/%.1f of the tokens", 1 / ratio);
}
static void write_sentence(const Contrast *c, const ContrastNames *n, double margin, char *out, size_t size) {
    char interval[112], cost[64], points[24], low[24], high[24];
    double ratio = c->tokens.value;
    snprintf(interval, sizeof interval, "%s points (95 %%: %s to %s)", points_signed(c->difference, points), points_signed(c->interval.low, low),
             points_signed(c->interval.high, high));
    const char *subject = n->modes ? "thinking makes " : n->a, *tail = n->modes ? " of difference" : "", *makes = n->modes ? "" : " makes ";
    const char *of = n->modes ? "" : " of difference";
    switch (c->verdict) {
    case IS_A:
        dearer(ratio, cost, sizeof cost);
        if (n->modes) snprintf(out, size, "thinking pays: %s%s", interval, cost);
        else snprintf(out, size, "%s is better than %s: %s%s", n->a, n->b, interval, cost);
        break;
    case IS_B:
    case IS_SAME:
    case IS_B_AT_LEAST:
        cheaper(ratio, cost, sizeof cost);
        snprintf(out, size, "%s is %s%s: %s%s%s%s%s", n->b, c->verdict == IS_B ? "better" : c->verdict == IS_SAME ? "as good" : "at least as good",
                 cost, subject, makes, interval, tail, of);
        break;
    case IS_A_AT_LEAST:
        dearer(ratio, cost, sizeof cost);
        snprintf(out, size, "%s is at least as good as %s%s: %s", n->modes ? "thinking" : n->a, n->b, cost, interval);
        break;
    case IS_NEITHER: snprintf(out, size, "neither gets more than %.0f %% right", 100 * margin); break;
    case IS_OPEN:
        if (isnan(c->more_items)) snprintf(out, size, "not settled: %s%s%s%s%s", subject, makes, interval, tail, of);
        else snprintf(out, size, "not settled: %.0f more item%s needed; %s%s%s%s%s", c->more_items, c->more_items > 1 ? "s" : "", subject, makes, interval, tail, of);
        break;
    }
    if (c->items <= 0) snprintf(out, size, "not settled: there are no items");
}

json_t *ratio_json(const Ratio *r) {
    if (!isfinite(r->value)) return json_null();
    return json_pack("{s:f,s:o,s:o}", "value", r->value, "low", json_number_or_name(r->low), "high", json_number_or_name(r->high));
}
json_t *contrast_json(const Contrast *c, const ContrastNames *names, double margin) {
    char sentence[512];
    write_sentence(c, names, margin, sentence, sizeof sentence);
    return json_pack("{s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:o,s:i,s:i,s:o,s:o,s:s,s:o,s:s}", "items", c->items, "a", json_number_or_name(c->a), "b",
                     json_number_or_name(c->b), "difference", json_number_or_name(c->difference), "low", json_number_or_name(c->interval.low),
                     "high", json_number_or_name(c->interval.high), "p", json_number_or_name(c->p), "test", c->test, "p_holm",
                     json_number_or_name(c->p_holm), "only_a", c->only_a, "only_b", c->only_b, "tokens", ratio_json(&c->tokens), "flops",
                     ratio_json(&c->flops), "verdict", verdict_codes[c->verdict], "more_items",
                     isfinite(c->more_items) ? json_integer((json_int_t)c->more_items) : json_null(), "sentence", sentence);
}
