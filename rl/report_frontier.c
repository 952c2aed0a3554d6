// Accuracy against cost: every arm as a point with its interval, for each measure of cost that is known and for all items, each
// kind and each level; which arms are efficient (none is right at least as often for less); then the arms in figures, and each
// difference that was judged.
#include "report_comparison.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ARMS = 200, MOST_SCOPES = 60 };

// ---- costs -----------------------------------------------------------------------------------------------
static const char *const measures[] = {"money_per_item", "flops", "tokens", "seconds_per_item", "joules_per_item"};

// Of one answer; money of as many as can be read.
static double cost_value(const Report *r, const json_t *arm, Scope s, const char *measure) {
    const json_t *result = scoped(arm, s), *cost = scoped(arm_cost(r, json_text_or(arm, "name", "")), s);
    if (!strcmp(measure, "flops")) return json_real_or_nan(result, "flops");
    if (!strcmp(measure, "tokens")) return mean_of(result, "tokens");
    return json_real_or_nan(cost, measure) * (strcmp(measure, "money_per_item") ? 1 : money_scale(r));
}

// ---- the frontier ----------------------------------------------------------------------------------------
typedef struct Point {
    const json_t *arm;
    double x, y, low, high;
} Point;

static bool efficient(const Point *p, int count, int i) {
    for (int k = 0; k < count; k++) {
        bool no_worse = p[k].x <= p[i].x && p[k].y >= p[i].y, better = p[k].x < p[i].x || p[k].y > p[i].y;
        if (k != i && no_worse && (better || k < i)) return false;
    }
    return p[i].y > 0;
}

// Joules from stated watts must not pass for measured ones.
static bool joules_are_estimated(const Report *r) {
    size_t i;
    json_t *arm;
    bool any = false;
    json_array_foreach(json_object_get(measured_of(r), "arms"), i, arm) any = any || !strcmp(json_text_or(scoped(arm, (Scope){SCOPE_ALL, 0}), "joules_source", ""), "estimated");
    return any;
}

static void add_view(const Report *r, json_t *views, Scope s, const char *measure) {
    const json_t *arms = json_object_get(replayable_of(r), "arms");
    Point *p = xcalloc(MOST_ARMS, sizeof *p);
    int count = 0;
    size_t i;
    json_t *arm, *points = json_array();
    char name[128], key[64], scale[40];
    json_array_foreach(arms, i, arm) {
        const json_t *result = scoped(arm, s);
        Point q = {arm, cost_value(r, arm, s, measure), json_real_or_nan(result, "accuracy"), json_real_or_nan(result, "low"), json_real_or_nan(result, "high")};
        if (count < MOST_ARMS && isfinite(q.x) && q.x > 0 && isfinite(q.y)) p[count++] = q;
    }
    for (int k = 0; k < count; k++)
        json_array_append_new(points, json_pack("{s:o,s:s,s:f,s:f,s:o,s:o,s:b}", "name", visible_string(json_text_or(p[k].arm, "name", "")), "tone",
                                                arm_tone(p[k].arm), "x", p[k].x, "y", p[k].y, "low", json_number_or_name(p[k].low), "high",
                                                json_number_or_name(p[k].high), "front", (int)efficient(p, count, k)));
    scope_name(r, s, name);
    snprintf(key, sizeof key, "cost %s%s", measure, !strcmp(measure, "joules_per_item") && joules_are_estimated(r) ? " estimated" : "");
    if (count)
        json_array_append_new(views, json_pack("{s:o,s:o,s:s,s:o}", "scope", visible_string(name), "cost",
                                               say_with(r, key, "currency", currency_of(r), "n", money_scale_text(r, scale), NULL), "measure", measure, "points", json_incref(points)));
    json_decref(points);
    free(p);
}

static void frontier(Report *r, json_t *blocks) {
    json_t *block = block_add(blocks, "frontier"), *views = json_array();
    json_object_set_new(block, "id", json_string("frontier"));
    json_object_set_new(block, "title", json_string(say(r, "frontier")));
    json_object_set_new(block, "views", views);
    int scopes = 0;
    for (ScopeKind kind = SCOPE_ALL; kind <= SCOPE_LEVEL; kind++) {
        if (kind == SCOPE_KIND && scope_count(r, SCOPE_KIND) < 2) continue; // the one kind is all
        for (size_t i = 0; i < scope_count(r, kind) && scopes < MOST_SCOPES; i++, scopes++)
            for (int m = 0; m < COUNT(measures); m++) add_view(r, views, (Scope){kind, i}, measures[m]);
    }
}

// ---- the arms in figures ---------------------------------------------------------------------------------
static void arms_sheet(Report *r, json_t *blocks) {
    const Scope all = {SCOPE_ALL, 0};
    char scale[40];
    json_t *money = say_with(r, "cost of correct", "currency", currency_of(r)[0] ? currency_of(r) : say(r, "money"), "n", money_scale_text(r, scale), NULL);
    json_t *sheet = sheet_add(blocks, "arms", say(r, "arms")), *arm;
    sheet_column(sheet, "arm", say(r, "arm"), "text");
    sheet_column(sheet, "accuracy", say(r, "correct"), "share");
    sheet_column(sheet, "tokens", say(r, "tokens"), "number");
    sheet_column(sheet, "tokens_median", say(r, "median"), "number");
    sheet_column(sheet, "tokens_p95", say(r, "95th"), "number");
    sheet_column(sheet, "think_tokens", say(r, "of them thinking"), "number");
    sheet_column(sheet, "truncated", say(r, "cut off"), "number");
    sheet_column(sheet, "flops", "FLOPs", "scaled");
    sheet_column(sheet, "seconds", say(r, "time"), "seconds");
    sheet_column(sheet, "latency", say(r, "latency"), "seconds");
    sheet_column(sheet, "joules", say(r, joules_are_estimated(r) ? "joules estimated" : "joules"), "number");
    sheet_column(sheet, "cost_of_pass", json_string_value(money), "number");
    sheet_column(sheet, "tokens_per_correct", say(r, "tokens per correct"), "number");
    sheet_column(sheet, "outcome_efficiency", say(r, "efficiency"), "share");
    size_t i;
    json_array_foreach(json_object_get(replayable_of(r), "arms"), i, arm) {
        const json_t *result = scoped(arm, all), *cost = scoped(arm_cost(r, json_text_or(arm, "name", "")), all), *tokens = json_object_get(result, "tokens");
        json_t *row = sheet_row(sheet);
        cell_text(row, json_text_or(arm, "name", ""));
        cell_interval(row, json_real_or_nan(result, "accuracy"), json_real_or_nan(result, "low"), json_real_or_nan(result, "high"));
        cell_number(row, json_real_or_nan(tokens, "mean")), cell_number(row, json_real_or_nan(tokens, "median"));
        cell_number(row, json_real_or_nan(tokens, "p95")), cell_number(row, mean_of(result, "think_tokens"));
        cell_number(row, json_real_or_nan(result, "truncated")), cell_number(row, json_real_or_nan(result, "flops"));
        cell_number(row, json_real_or_nan(cost, "seconds_per_item")), cell_number(row, mean_of(cost, "latency"));
        cell_number(row, json_real_or_nan(cost, "joules_per_item")), cell_number(row, money_scale(r) * json_real_or_nan(cost, "cost_of_pass"));
        cell_number(row, json_real_or_nan(result, "tokens_per_correct")), cell_number(row, json_real_or_nan(result, "outcome_efficiency"));
    }
    json_object_set_new(sheet, "note", json_string(say(r, "arms note")));
    json_decref(money);
}

// Arms that sampled with several seeds: how much is the draw, and how much the items.
static void seeds_sheet(Report *r, json_t *blocks) {
    json_t *sheet = NULL, *arm, *one;
    size_t i, k;
    json_array_foreach(json_object_get(replayable_of(r), "arms"), i, arm) {
        const json_t *result = scoped(arm, (Scope){SCOPE_ALL, 0}), *seeds = json_object_get(result, "seeds");
        if (!json_is_object(seeds)) continue;
        if (!sheet) {
            sheet = sheet_add(blocks, "seeds", say(r, "seeds"));
            sheet_column(sheet, "arm", say(r, "arm"), "text"), sheet_column(sheet, "accuracy", say(r, "correct"), "share");
            sheet_column(sheet, "each", say(r, "of each seed"), "text"), sheet_column(sheet, "between", say(r, "between seeds"), "number");
            sheet_column(sheet, "within", say(r, "within seeds"), "number"), sheet_column(sheet, "error", say(r, "error of the mean"), "share");
            json_object_set_new(sheet, "note", json_string(say(r, "seeds note")));
        }
        json_t *row = sheet_row(sheet);
        Buf each = {0};
        char share[40];
        json_array_foreach(json_object_get(seeds, "accuracy"), k, one) buf_printf(&each, "%s%s", k ? ", " : "", share_text(json_number_value(one), share));
        cell_text(row, json_text_or(arm, "name", ""));
        cell_interval(row, json_real_or_nan(result, "accuracy"), json_real_or_nan(result, "low"), json_real_or_nan(result, "high"));
        cell_text(row, each.data ? each.data : "");
        cell_number(row, json_real_or_nan(seeds, "between")), cell_number(row, json_real_or_nan(seeds, "within")), cell_number(row, json_real_or_nan(seeds, "error"));
        buf_free(&each);
    }
}

static void pairs_sheet(Report *r, json_t *blocks) {
    const Scope all = {SCOPE_ALL, 0};
    json_t *sheet = sheet_add(blocks, "pairs", say(r, "differences")), *pair;
    sheet_column(sheet, "pair", say(r, "arms"), "text");
    sheet_column(sheet, "difference", say(r, "points"), "points");
    sheet_column(sheet, "p", "p", "chance");
    sheet_column(sheet, "p_holm", "p (Holm)", "chance");
    sheet_column(sheet, "tokens", say(r, "tokens"), "ratio");
    sheet_column(sheet, "flops", "FLOPs", "ratio");
    sheet_column(sheet, "money", say(r, "money"), "ratio");
    sheet_column(sheet, "verdict", say(r, "verdict"), "text");
    size_t i;
    json_array_foreach(json_object_get(replayable_of(r), "pairs"), i, pair) {
        const json_t *d = scoped(pair, all), *ratios[] = {json_object_get(d, "tokens"), json_object_get(d, "flops"),
                                                          json_object_get(scoped(pair_cost(r, pair), all), "money")};
        Buf name = {0};
        buf_printf(&name, "%s \xe2\x88\x92 %s", json_text_or(pair, "a", ""), json_text_or(pair, "b", ""));
        json_t *row = sheet_row(sheet);
        cell_text(row, name.data);
        cell_interval(row, json_real_or_nan(d, "difference"), json_real_or_nan(d, "low"), json_real_or_nan(d, "high"));
        cell_number(row, json_real_or_nan(d, "p")), cell_number(row, json_real_or_nan(d, "p_holm"));
        for (int k = 0; k < COUNT(ratios); k++)
            cell_interval(row, json_real_or_nan(ratios[k], "value"), json_real_or_nan(ratios[k], "low"), json_real_or_nan(ratios[k], "high"));
        json_t *words = json_is_object(d) ? verdict_headline(r, pair, d) : json_null();
        json_array_append_new(row, words);
        buf_free(&name);
    }
    json_object_set_new(sheet, "note", json_string(say(r, "pairs note")));
}

void report_frontier(Report *r) {
    if (json_array_size(json_object_get(replayable_of(r), "arms")) == 0) return;
    json_t *blocks = section_add(r, "frontier", "accuracy against cost", "frontier note");
    frontier(r, blocks);
    arms_sheet(r, blocks);
    seeds_sheet(r, blocks);
    if (json_array_size(json_object_get(replayable_of(r), "pairs")) > 0) pairs_sheet(r, blocks);
}
