// The comparison by kind and level: the pair that the verdict is about, then every arm's accuracy; the curve of thinking budgets;
// the routers.
#include "report_comparison.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void accuracy_cell(json_t *row, const json_t *result) {
    cell_interval(row, json_real_or_nan(result, "accuracy"), json_real_or_nan(result, "low"), json_real_or_nan(result, "high"));
}

// ---- the main pair ---------------------------------------------------------------------------------------
static void pair_columns(const Report *r, json_t *sheet, const char *a, const char *b) {
    const char *two[] = {a, b};
    Buf name = {0};
    sheet_column(sheet, "part", say(r, "kind and level"), "text");
    sheet_column(sheet, "items", say(r, "items"), "number");
    for (int k = 0; k < 2; k++) sheet_column(sheet, k ? "accuracy_b" : "accuracy_a", two[k], "share");
    sheet_column(sheet, "difference", say(r, "points"), "points");
    for (int k = 0; k < 2; k++) {
        name.size = 0;
        buf_printf(&name, "%s, %s", say(r, "tokens"), two[k]);
        sheet_column(sheet, k ? "tokens_b" : "tokens_a", name.data, "number");
    }
    char scale[40];
    json_t *money = say_with(r, "cost of correct", "currency", currency_of(r)[0] ? currency_of(r) : say(r, "money"), "n", money_scale_text(r, scale), NULL);
    for (int k = 0; k < 2; k++) {
        name.size = 0;
        buf_printf(&name, "%s, %s", json_string_value(money), two[k]);
        sheet_column(sheet, k ? "pass_b" : "pass_a", name.data, "number");
    }
    sheet_column(sheet, "verdict", say(r, "verdict"), "text");
    json_decref(money);
    buf_free(&name);
}

static void pair_row(const Report *r, json_t *sheet, const json_t *pair, Scope s) {
    const char *names[] = {json_text_or(pair, "a", ""), json_text_or(pair, "b", "")};
    const json_t *result[2], *cost[2], *d = scoped(pair, s);
    char name[128];
    for (int k = 0; k < 2; k++) result[k] = scoped(arm_named(r, names[k]), s), cost[k] = scoped(arm_cost(r, names[k]), s);
    json_t *row = sheet_row(sheet);
    scope_name(r, s, name);
    cell_text(row, name);
    cell_number(row, json_real_or_nan(result[0], "items"));
    for (int k = 0; k < 2; k++) accuracy_cell(row, result[k]);
    cell_interval(row, json_real_or_nan(d, "difference"), json_real_or_nan(d, "low"), json_real_or_nan(d, "high"));
    for (int k = 0; k < 2; k++) cell_number(row, mean_of(result[k], "tokens"));
    for (int k = 0; k < 2; k++) cell_number(row, money_scale(r) * json_real_or_nan(cost[k], "cost_of_pass"));
    if (is_modes(pair)) cell_text(row, verdict_words(r, pair, d));
    else json_array_append_new(row, verdict_headline(r, pair, d));
}

static void each_part(const Report *r, json_t *sheet, const json_t *pair, void (*row)(const Report *, json_t *, const json_t *, Scope)) {
    for (ScopeKind kind = SCOPE_LEVEL; (int)kind >= SCOPE_ALL; kind--) {
        if (kind == SCOPE_KIND && scope_count(r, SCOPE_KIND) < 2) continue;
        for (size_t i = 0; i < scope_count(r, kind); i++) row(r, sheet, pair, (Scope){kind, i});
    }
}

static void arms_row(const Report *r, json_t *sheet, const json_t *pair, Scope s) {
    char name[128];
    size_t i;
    json_t *arm, *row = sheet_row(sheet);
    (void)pair;
    scope_name(r, s, name);
    cell_text(row, name);
    json_array_foreach(json_object_get(replayable_of(r), "arms"), i, arm) accuracy_cell(row, scoped(arm, s));
}

static void sheets(Report *r, json_t *blocks) {
    const json_t *pair = main_pair(r), *arms = json_object_get(replayable_of(r), "arms");
    json_t *arm;
    size_t i;
    if (pair) {
        json_t *sheet = sheet_add(blocks, "levels", say(r, "kinds and levels"));
        pair_columns(r, sheet, json_text_or(pair, "a", ""), json_text_or(pair, "b", ""));
        each_part(r, sheet, pair, pair_row);
        json_object_set_new(sheet, "note", json_string(say(r, "levels note")));
    }
    if (pair && json_array_size(arms) <= 2) return;
    json_t *sheet = sheet_add(blocks, "accuracies", say(r, "every arm"));
    sheet_column(sheet, "part", say(r, "kind and level"), "text");
    json_array_foreach(arms, i, arm) sheet_column(sheet, json_text_or(arm, "name", ""), json_text_or(arm, "name", ""), "share");
    each_part(r, sheet, NULL, arms_row);
}

// ---- budgets ---------------------------------------------------------------------------------------------
static bool in_sweep(const json_t *arm) {
    const char *mode = json_text_or(arm, "mode", "");
    return !strcmp(json_text_or(arm, "strategy", ""), "greedy") && (!strcmp(mode, "think") || !strcmp(mode, "direct")) &&
           json_integer_value(json_object_get(arm, "model")) == 0;
}
static int by_x(const void *a, const void *b) {
    double x = ((const double *)a)[0], y = ((const double *)b)[0];
    return (x > y) - (x < y);
}

static void budget_line(const Report *r, json_t *chart, Scope s, const char *ink) {
    const json_t *arms = json_object_get(replayable_of(r), "arms");
    double(*p)[4] = xcalloc(json_array_size(arms) + 1, sizeof *p);
    int count = 0;
    char name[128];
    size_t i;
    json_t *arm;
    json_array_foreach(arms, i, arm) {
        const json_t *result = scoped(arm, s);
        double x = mean_of(result, "think_tokens"), y = json_real_or_nan(result, "accuracy");
        if (!in_sweep(arm) || !isfinite(x) || !isfinite(y)) continue;
        p[count][0] = x, p[count][1] = y, p[count][2] = json_real_or_nan(result, "low"), p[count][3] = json_real_or_nan(result, "high");
        count++;
    }
    qsort(p, (size_t)count, sizeof *p, by_x);
    scope_name(r, s, name);
    json_t *points = chart_line(chart, name, ink);
    for (int k = 0; k < count; k++) chart_point(points, p[k][0], p[k][1], p[k][2], p[k][3]);
    free(p);
}

static void budgets(Report *r, json_t *blocks) {
    size_t i, n = 0;
    json_t *arm;
    json_array_foreach(json_object_get(replayable_of(r), "arms"), i, arm) n += in_sweep(arm) && json_is_integer(json_object_get(arm, "budget"));
    if (n == 0) return;
    json_t *chart = chart_add(blocks, "budgets", say(r, "budgets"), say(r, "thinking tokens"));
    json_object_set_new(chart, "percent", json_true());
    json_object_set_new(chart, "wide", json_true());
    budget_line(r, chart, (Scope){SCOPE_ALL, 0}, "0");
    ScopeKind kind = scope_count(r, SCOPE_KIND) > 1 ? SCOPE_KIND : SCOPE_LEVEL;
    for (i = 0; i < scope_count(r, kind) && i < 8; i++) {
        char ink[8];
        snprintf(ink, sizeof ink, "l%zu", i);
        budget_line(r, chart, (Scope){kind, i}, ink);
    }
    json_object_set_new(chart, "note", json_string(say(r, "budgets note")));
}

// ---- routers ---------------------------------------------------------------------------------------------
static void routers(Report *r, json_t *blocks) {
    size_t i, k;
    json_t *router, *policy;
    json_array_foreach(json_object_get(replayable_of(r), "routers"), i, router) {
        json_t *sheet = sheet_add(blocks, "router", say(r, "router"));
        sheet_column(sheet, "policy", say(r, "policy"), "text");
        sheet_column(sheet, "accuracy", say(r, "correct"), "share");
        sheet_column(sheet, "tokens", say(r, "tokens"), "number");
        sheet_column(sheet, "flops", "FLOPs", "scaled");
        sheet_column(sheet, "thinks", say(r, "thinks"), "share");
        json_array_foreach(json_object_get(router, "policies"), k, policy) {
            static const char *const known[] = {"always think", "always direct", "routed", "routed, task not told", "best possible"};
            const char *name = json_text_or(policy, "name", "");
            json_t *row = sheet_row(sheet);
            for (int w = 0; w < COUNT(known); w++)
                if (!strcmp(name, known[w])) name = say(r, known[w]);
            cell_text(row, name);
            accuracy_cell(row, policy);
            cell_number(row, json_real_or_nan(policy, "tokens")), cell_number(row, json_real_or_nan(policy, "flops"));
            cell_number(row, json_real_or_nan(policy, "thinks"));
        }
        char fitted[40], judged[40];
        const json_t *items = json_object_get(router, "items");
        json_object_set_new(sheet, "note", say_with(r, "router note", "fitted", number_text(json_real_or_nan(items, "fitted"), fitted), "judged",
                                                    number_text(json_real_or_nan(items, "judged"), judged), NULL));
    }
}

void report_levels(Report *r) {
    if (json_array_size(json_object_get(replayable_of(r), "arms")) == 0) return;
    json_t *blocks = section_add(r, "levels", "by kind and level", NULL);
    sheets(r, blocks);
    budgets(r, blocks);
    routers(r, blocks);
}
