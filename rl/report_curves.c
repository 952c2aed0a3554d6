// How the run went: curves over its steps, from the ledger's step rows and evaluations. Many steps are drawn as means over bins,
// so that a page stays small whatever their number.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 8, MAX_LEVELS = 8, MAX_MARKS = 16, MAX_DRAWN = 280 };

// Columns of `steps` that are drawn, in the order of the query.
enum { C_STEP, C_STAGE, C_SFT, C_LOSS, C_NORM, C_REWARD, C_ENTROPY, C_KL, C_CLIP, C_LENGTH, C_THINK, C_ANSWER, C_TRUNCATED, C_FLAT, COLUMNS };
static const char steps_sql[] =
    "SELECT step, stage_index, kind = 'sft', loss, gradient_norm, reward_mean, entropy, kl, clip_share, length_mean, think_mean, answer_mean, "
    "truncated_share, 1.0 * groups_without_variance / nullif(group_count, 0) FROM steps ORDER BY step";

typedef struct Curves {
    Report *report;
    json_t *blocks, *marks;  // marks: [{"x", "name"}], where a stage begins
    double *column[COLUMNS]; // [count]; samples' columns are NaN in sft steps
    int count, capacity;
} Curves;

static void add_mark(Curves *c, int stage, double step, bool sft) {
    if (json_array_size(c->marks) == MAX_MARKS) return;
    const json_t *entry = json_array_get(json_object_get(c->report->recipe, "stages"), (size_t)stage);
    json_array_append_new(c->marks, json_pack("{s:f,s:o}", "x", step, "name", visible_string(json_text_or(entry, "name", sft ? "sft" : "grpo"))));
}

static bool read_curves(Curves *c, Err *err) {
    const Ledger *l = c->report->ledger;
    sqlite3_stmt *s;
    bool ok = ledger_query(l, steps_sql, 0, 0, &s, err), more = true;
    double stage = -1;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        if (c->count == c->capacity) {
            c->capacity = c->capacity ? 2 * c->capacity : 256;
            for (int i = 0; i < COLUMNS; i++) c->column[i] = xrealloc(c->column[i], (size_t)c->capacity * sizeof(double));
        }
        bool sft = column_int(s, C_SFT);
        for (int i = 0; i < COLUMNS; i++) c->column[i][c->count] = sft && i >= C_REWARD ? NAN : column_real(s, i);
        if (column_real(s, C_STAGE) != stage) add_mark(c, (int)column_int(s, C_STAGE), column_real(s, C_STEP), sft);
        stage = column_real(s, C_STAGE);
        c->count++;
    }
    sqlite3_finalize(s);
    return ok;
}

// ---- charts ----------------------------------------------------------------------------------------------
static json_t *chart_of(const Curves *c, const char *id, const char *title_key, bool percent) {
    json_t *chart = chart_add(c->blocks, id, say(c->report, title_key), say(c->report, "step"));
    json_object_set_new(chart, "percent", json_boolean(percent));
    json_object_set(chart, "marks", c->marks);
    return chart;
}

// Means over bins of the steps that have a value.
static void add_curve(const Curves *c, json_t *chart, const char *name, const char *ink, const double *y) {
    int known = 0, found = 0;
    for (int i = 0; i < c->count; i++) known += isfinite(y[i]);
    int bin = (known + MAX_DRAWN - 1) / MAX_DRAWN;
    double sum = 0, at = 0;
    json_t *points = chart_line(chart, name, ink);
    for (int i = 0; i < c->count; i++) {
        if (!isfinite(y[i])) continue;
        sum += y[i], at += c->column[C_STEP][i], found++, known--;
        if (found < bin && known > 0) continue;
        chart_point(points, at / found, sum / found, NAN, NAN);
        sum = at = 0, found = 0;
    }
}

// A chart without a line of two points is none.
static void keep_if_drawn(const Curves *c, const json_t *chart) {
    size_t i;
    json_t *line;
    bool drawn = false;
    json_array_foreach(json_object_get(chart, "lines"), i, line) drawn |= json_array_size(json_object_get(line, "points")) > 1;
    if (!drawn) json_array_remove(c->blocks, json_array_size(c->blocks) - 1);
}

static void one_column(const Curves *c, const char *id, const char *title_key, bool percent, int column, const char *ink) {
    json_t *chart = chart_of(c, id, title_key, percent);
    add_curve(c, chart, say(c->report, title_key), ink, c->column[column]);
    keep_if_drawn(c, chart);
}
static bool any_nonzero(const Curves *c, int column) {
    for (int i = 0; i < c->count; i++)
        if (isfinite(c->column[column][i]) && c->column[column][i] != 0) return true;
    return false;
}

// The loss of SFT and of GRPO are different quantities: each has its own chart.
static void losses(const Curves *c) {
    double *split = xcalloc((size_t)c->count + 1, sizeof *split);
    for (int sft = 1; sft >= 0; sft--) {
        for (int i = 0; i < c->count; i++) split[i] = (c->column[C_SFT][i] == 1) == sft ? c->column[C_LOSS][i] : NAN;
        const char *key = sft ? "loss of supervised steps" : "loss of GRPO steps";
        json_t *chart = chart_of(c, sft ? "loss-sft" : "loss-grpo", key, false);
        add_curve(c, chart, say(c->report, key), "6", split);
        keep_if_drawn(c, chart);
    }
    free(split);
}

static void lengths(const Curves *c) {
    json_t *chart = chart_of(c, "lengths", "tokens a completion", false);
    add_curve(c, chart, say(c->report, "all"), "6", c->column[C_LENGTH]);
    add_curve(c, chart, say(c->report, "thinking"), "think", c->column[C_THINK]);
    add_curve(c, chart, say(c->report, "answer"), "direct", c->column[C_ANSWER]);
    keep_if_drawn(c, chart);
}

// ---- several lines from a table of (step, name, value) ----------------------------------------------------
typedef struct Named {
    char names[MAX_PARTS][64];
    double *y[MAX_PARTS];
    int count;
} Named;

static bool read_named(const Curves *c, const char *sql, Named *n, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(c->report->ledger, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(c->report->ledger, s, &more, err)) && more) {
        int64_t index = column_int(s, 0) - 1;
        const char *name = column_string(s, 1);
        int p = 0;
        while (p < n->count && strcmp(n->names[p], name)) p++;
        if (p == MAX_PARTS || strlen(name) >= sizeof n->names[0] || index < 0 || index >= c->count) continue;
        if (p == n->count) {
            strcpy(n->names[p], name);
            n->y[p] = xcalloc((size_t)c->count + 1, sizeof(double));
            for (int i = 0; i < c->count; i++) n->y[p][i] = NAN;
            n->count++;
        }
        n->y[p][index] = column_real(s, 2);
    }
    sqlite3_finalize(s);
    return ok;
}

// A chart with a line a name, where there are at least so many.
static bool named_chart(const Curves *c, const char *sql, const char *id, const char *title_key, const char *ink, int least, Err *err) {
    Named n = {.count = 0};
    bool ok = read_named(c, sql, &n, err);
    if (ok && n.count >= least) {
        json_t *chart = chart_of(c, id, title_key, false);
        for (int p = 0; p < n.count; p++) {
            char of_line[16];
            snprintf(of_line, sizeof of_line, "%s%d", ink, p);
            add_curve(c, chart, n.names[p], of_line, n.y[p]);
        }
        keep_if_drawn(c, chart);
    }
    for (int p = 0; p < n.count; p++) free(n.y[p]);
    return ok;
}

// ---- accuracy on held-out items --------------------------------------------------------------------------
typedef struct Accuracy {
    json_t *mode[MODES], *level[MODES][MAX_LEVELS]; // points of lines
    char name[MAX_LEVELS][64];
    int levels;
} Accuracy;

static void add_evaluation(Accuracy *a, const json_t *e, double step) {
    const char *name = json_text_or(e, "mode", "");
    int m = !strcmp(name, "think") ? MODE_THINK : !strcmp(name, "direct") ? MODE_DIRECT : -1;
    size_t i;
    json_t *level;
    double all_items = 0, all_correct = 0;
    if (m < 0) return;
    json_array_foreach(json_object_get(e, "levels"), i, level) {
        double items = json_real_or_nan(level, "items"), correct = json_real_or_nan(level, "correct");
        if (!(items > 0 && correct >= 0)) continue;
        all_items += items, all_correct += correct;
        if (i >= MAX_LEVELS) continue;
        if ((int)i >= a->levels) a->levels = (int)i + 1;
        snprintf(a->name[i], sizeof a->name[i], "%.40s %lld", json_text_or(level, "kind", "level"), (long long)json_integer_value(json_object_get(level, "level")));
        chart_point(a->level[m][i], step, correct / items, NAN, NAN);
    }
    if (!(all_items > 0 && all_items < 1e12 && all_correct <= all_items)) return;
    Interval w = wilson_interval((int64_t)all_correct, (int64_t)all_items, 0.95);
    chart_point(a->mode[m], step, all_correct / all_items, w.low, w.high);
}

static void accuracy_charts(const Curves *c, const Accuracy *a) {
    static const char *const titles[MODES] = {"accuracy by level, think", "accuracy by level, direct"}, *const ids[MODES] = {"accuracy-think", "accuracy-direct"};
    json_t *chart = chart_of(c, "accuracy", "held-out accuracy", true);
    for (int m = 0; m < MODES; m++)
        if (json_array_size(a->mode[m])) json_array_extend(chart_line(chart, mode_names[m], mode_names[m]), a->mode[m]);
    keep_if_drawn(c, chart);
    for (int m = 0; m < MODES && a->levels > 1; m++) {
        chart = chart_of(c, ids[m], titles[m], true);
        for (int i = 0; i < a->levels; i++) {
            char ink[16];
            snprintf(ink, sizeof ink, "l%d", i);
            json_array_extend(chart_line(chart, a->name[i], ink), a->level[m][i]);
        }
        keep_if_drawn(c, chart);
    }
}

static bool accuracy(const Curves *c, Err *err) {
    sqlite3_stmt *s;
    Accuracy a = {.levels = 0};
    for (int m = 0; m < MODES; m++) {
        a.mode[m] = json_array();
        for (int i = 0; i < MAX_LEVELS; i++) a.level[m][i] = json_array();
    }
    static const char sql[] = "SELECT step, replayable FROM evaluations WHERE name NOT IN ('compare', 'model') AND name NOT LIKE 'sampled %' "
                              "ORDER BY step, position";
    bool ok = ledger_query(c->report->ledger, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(c->report->ledger, s, &more, err)) && more) {
        json_t *e = column_object(s, 1);
        add_evaluation(&a, e, column_real(s, 0));
        json_decref(e);
    }
    sqlite3_finalize(s);
    if (ok) accuracy_charts(c, &a);
    for (int m = 0; m < MODES; m++) {
        json_decref(a.mode[m]);
        for (int i = 0; i < MAX_LEVELS; i++) json_decref(a.level[m][i]);
    }
    return ok;
}

bool report_curves(Report *r, Err *err) {
    Curves c = {.report = r, .marks = json_array()};
    bool ok = !r->ledger || read_curves(&c, err);
    if (ok && c.count) {
        c.blocks = section_add(r, "training", "how it learned", "training note");
        one_column(&c, "reward", "mean reward", false, C_REWARD, "0");
        ok = accuracy(&c, err) &&
             named_chart(&c, "SELECT step, name, mean FROM step_parts ORDER BY step, position", "parts", "parts of the reward", "", 2, err);
        lengths(&c);
        one_column(&c, "entropy", "entropy", false, C_ENTROPY, "4");
        if (any_nonzero(&c, C_KL)) one_column(&c, "kl", "KL", false, C_KL, "3");
        ok = ok && named_chart(&c, "SELECT step, 'layer ' || layer, imbalance FROM step_experts ORDER BY step, layer", "experts", "load of experts", "l", 1, err);
        one_column(&c, "gradient-norm", "gradient norm", false, C_NORM, "5");
        losses(&c);
        if (any_nonzero(&c, C_CLIP)) one_column(&c, "clipped", "clipped tokens", true, C_CLIP, "7");
        if (any_nonzero(&c, C_TRUNCATED)) one_column(&c, "cut-off", "completions cut off", true, C_TRUNCATED, "7");
        if (any_nonzero(&c, C_FLAT)) one_column(&c, "flat", "groups without variance", true, C_FLAT, "6");
    }
    for (int i = 0; i < COLUMNS; i++) free(c.column[i]);
    json_decref(c.marks);
    return ok;
}
