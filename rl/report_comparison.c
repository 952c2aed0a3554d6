// What the report reads in a comparison, and what a difference comes to in words.
#include "report_comparison.h"
#include "prices.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const json_t *replayable_of(const Report *r) { return json_object_get(r->comparison, "replayable"); }
const json_t *measured_of(const Report *r) { return json_object_get(r->comparison, "measured"); }

const json_t *scoped(const json_t *holder, Scope s) {
    if (s.kind == SCOPE_ALL) return json_object_get(holder, "all");
    return json_array_get(json_object_get(holder, s.kind == SCOPE_KIND ? "kinds" : "levels"), s.index);
}

static const json_t *named(const json_t *list, const char *name) {
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry) {
        if (!strcmp(json_text_or(entry, "name", ""), name)) return entry;
    }
    return NULL;
}
const json_t *arm_named(const Report *r, const char *name) { return named(json_object_get(replayable_of(r), "arms"), name); }
const json_t *arm_cost(const Report *r, const char *name) { return named(json_object_get(measured_of(r), "arms"), name); }

const json_t *pair_cost(const Report *r, const json_t *pair) {
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(measured_of(r), "pairs"), i, entry) {
        if (!strcmp(json_text_or(entry, "a", ""), json_text_or(pair, "a", "?")) && !strcmp(json_text_or(entry, "b", ""), json_text_or(pair, "b", "?")))
            return entry;
    }
    return NULL;
}

bool is_modes(const json_t *pair) { return !strcmp(json_text_or(pair, "what", ""), "modes"); }
const json_t *main_pair(const Report *r) {
    const json_t *pairs = json_object_get(replayable_of(r), "pairs");
    size_t i;
    json_t *pair;
    json_array_foreach(pairs, i, pair) {
        if (is_modes(pair)) return pair;
    }
    return json_array_get(pairs, 0);
}

double mean_of(const json_t *result, const char *key) { return json_real_or_nan(json_object_get(result, key), "mean"); }

size_t scope_count(const Report *r, ScopeKind kind) {
    return kind == SCOPE_ALL ? 1 : json_array_size(json_object_get(replayable_of(r), kind == SCOPE_KIND ? "kinds" : "levels"));
}
void scope_name(const Report *r, Scope s, char out[128]) {
    if (s.kind == SCOPE_ALL) {
        snprintf(out, 128, "%s", say(r, "all"));
        return;
    }
    const json_t *entry = json_array_get(json_object_get(replayable_of(r), s.kind == SCOPE_KIND ? "kinds" : "levels"), s.index);
    const json_t *level = json_object_get(entry, "level");
    const char *kind = json_text_or(entry, "kind", "");
    if (json_is_integer(level)) snprintf(out, 128, "%.90s %lld", kind, (long long)json_integer_value(level));
    else snprintf(out, 128, "%.110s", kind);
}

const char *arm_tone(const json_t *arm) {
    const char *mode = json_text_or(arm, "mode", "");
    return !strcmp(mode, "think") ? "think" : !strcmp(mode, "direct") ? "direct" : "";
}
const char *currency_of(const Report *r) {
    const char *stated = json_text_or(json_object_get(measured_of(r), "prices"), "currency", NULL);
    return stated ? stated : json_text_or(r->cost, "currency", "");
}

double money_scale(const Report *r) {
    double least = INFINITY;
    size_t i;
    json_t *arm;
    json_array_foreach(json_object_get(measured_of(r), "arms"), i, arm) {
        double money = json_real_or_nan(json_object_get(arm, "all"), "money_per_item");
        if (money > 0) least = fmin(least, money);
    }
    return money_scale_of(isfinite(least) ? least : 0);
}
char *money_scale_text(const Report *r, char out[40]) { return number_text(money_scale(r), out); }

// ---- verdicts --------------------------------------------------------------------------------------------
static const char *outcome(const json_t *difference) {
    static const char *const known[] = {"a", "b", "same", "b at least", "a at least", "neither"};
    const char *verdict = json_text_or(difference, "verdict", "open");
    for (int i = 0; i < COUNT(known); i++)
        if (!strcmp(verdict, known[i])) return known[i];
    return "open";
}

const char *verdict_tone(const json_t *pair, const json_t *difference) {
    const char *what = outcome(difference);
    if (!is_modes(pair) || !strcmp(what, "open") || !strcmp(what, "neither")) return "";
    return what[0] == 'a' ? "think" : "direct"; // as good is good enough for the cheaper one
}

// The strings of an outcome: PREFIX "modes" or "pair" OUTCOME.
static const char *keyed(const Report *r, const char *prefix, const json_t *pair, const json_t *difference, char key[64]) {
    snprintf(key, 64, "%s%s %s", prefix, is_modes(pair) ? "modes" : "pair", outcome(difference));
    return say(r, key);
}
const char *verdict_words(const Report *r, const json_t *pair, const json_t *difference) {
    char key[64];
    return keyed(r, "", pair, difference, key);
}
json_t *verdict_headline(const Report *r, const json_t *pair, const json_t *difference) {
    char key[64];
    keyed(r, "headline ", pair, difference, key);
    return say_with(r, key, "a", json_text_or(pair, "a", "a"), "b", json_text_or(pair, "b", "b"), NULL);
}

json_t *verdict_sentence(const Report *r, const json_t *pair, const json_t *difference) {
    char points[40], low[40], high[40], times[40], more[40], key[64];
    double ratio = json_real_or_nan(json_object_get(difference, "tokens"), "value");
    points_text(json_real_or_nan(difference, "difference"), points);
    points_text(json_real_or_nan(difference, "low"), low), points_text(json_real_or_nan(difference, "high"), high);
    number_text(ratio >= 1 || !(ratio > 0) ? ratio : 1 / ratio, times);
    number_text(json_real_or_nan(difference, "more_items"), more);
    snprintf(key, sizeof key, "sentence %s%s", is_modes(pair) ? "modes " : "pair ", outcome(difference));
    if (!strcmp(outcome(difference), "open") && isnan(json_real_or_nan(difference, "more_items"))) snprintf(key, sizeof key, "sentence open");
    json_t *sentence = say_with(r, key, "points", points, "low", low, "high", high, "times", times, "more", more, "a", json_text_or(pair, "a", "a"),
                                "b", json_text_or(pair, "b", "b"), NULL);
    return sentence;
}
