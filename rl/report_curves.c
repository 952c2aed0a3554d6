// How the run went: curves over its steps, from the ledger's step rows and evaluations.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 8, MAX_LEVELS = 8, MAX_MARKS = 16, WIDTH = 380, HEIGHT = 226 };

// Columns of `steps` that are drawn, in the order of the query.
enum { C_STEP, C_STAGE, C_SFT, C_LOSS, C_NORM, C_REWARD, C_ENTROPY, C_KL, C_CLIP, C_LENGTH, C_THINK, C_ANSWER, C_TRUNCATED, C_FLAT, COLUMNS };
static const char steps_sql[] =
    "SELECT step, stage_index, kind = 'sft', loss, gradient_norm, reward_mean, entropy, kl, clip_share, length_mean, think_mean, answer_mean, "
    "truncated_share, 1.0 * groups_without_variance / nullif(group_count, 0) FROM steps ORDER BY step";

typedef struct Curves {
    double *column[COLUMNS]; // [count]; samples' columns are NaN in sft steps
    int count, capacity;
    Mark marks[MAX_MARKS];
    char mark_names[MAX_MARKS][48];
    int mark_count;
} Curves;

static void add_mark(Curves *c, const json_t *recipe, int stage, double step, bool sft) {
    if (c->mark_count == MAX_MARKS) return;
    const json_t *entry = json_array_get(json_object_get(recipe, "stages"), (size_t)stage);
    snprintf(c->mark_names[c->mark_count], sizeof c->mark_names[0], "%.40s", json_text_or(entry, "name", sft ? "sft" : "grpo"));
    c->marks[c->mark_count] = (Mark){step, c->mark_names[c->mark_count]};
    c->mark_count++;
}

static bool read_curves(const Ledger *l, const json_t *recipe, Curves *c, Err *err) {
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
        if (column_real(s, C_STAGE) != stage) add_mark(c, recipe, (int)column_int(s, C_STAGE), column_real(s, C_STEP), sft);
        stage = column_real(s, C_STAGE);
        c->count++;
    }
    sqlite3_finalize(s);
    return ok;
}

static void card(Buf *out, const Curves *c, const char *title, bool percent, const Line *lines, int count) {
    Chart chart = {.title = title, .x_label = "step", .percent = percent, .y_low = percent ? 0 : NAN, .y_high = NAN, .lines = lines,
                   .line_count = count, .marks = c->marks, .mark_count = c->mark_count};
    chart_card(out, &chart, WIDTH, HEIGHT);
}
static void one_column(Buf *out, const Curves *c, const char *title, bool percent, int column, const char *ink) {
    Line line = {.name = title, .ink = ink, .x = c->column[C_STEP], .y = c->column[column], .count = c->count};
    card(out, c, title, percent, &line, 1);
}
static bool any_nonzero(const Curves *c, int column) {
    for (int i = 0; i < c->count; i++)
        if (isfinite(c->column[column][i]) && c->column[column][i] != 0) return true;
    return false;
}

// The loss of SFT and of GRPO are different quantities: each has its own chart.
static void losses(Buf *out, const Curves *c) {
    double *split = xcalloc((size_t)c->count + 1, sizeof *split);
    for (int sft = 1; sft >= 0; sft--) {
        for (int i = 0; i < c->count; i++) split[i] = (c->column[C_SFT][i] == 1) == sft ? c->column[C_LOSS][i] : NAN;
        const char *title = sft ? "Loss of supervised steps" : "Loss of GRPO steps";
        Line line = {.name = title, .ink = "6", .x = c->column[C_STEP], .y = split, .count = c->count};
        card(out, c, title, false, &line, 1);
    }
    free(split);
}

// ---- parts of the reward ---------------------------------------------------------------------------------
static bool parts(Buf *out, const Ledger *l, const Curves *c, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT step, name, mean FROM step_parts ORDER BY step, position", 0, 0, &s, err), more = true;
    char names[MAX_PARTS][64] = {{0}};
    double *y[MAX_PARTS] = {0};
    int count = 0;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t index = column_int(s, 0) - 1;
        const char *name = column_string(s, 1);
        int p = 0;
        while (p < count && strcmp(names[p], name)) p++;
        if (p == MAX_PARTS || strlen(name) >= sizeof names[0] || index < 0 || index >= c->count) continue;
        if (p == count) {
            strcpy(names[count], name);
            y[count] = xcalloc((size_t)c->count + 1, sizeof(double));
            for (int i = 0; i < c->count; i++) y[count][i] = NAN;
            count++;
        }
        y[p][index] = column_real(s, 2);
    }
    sqlite3_finalize(s);
    Line lines[MAX_PARTS];
    static const char *const inks[MAX_PARTS] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    for (int p = 0; p < count; p++) lines[p] = (Line){.name = names[p], .ink = inks[p], .x = c->column[C_STEP], .y = y[p], .count = c->count};
    if (count > 1) card(out, c, "Parts of the reward", false, lines, count);
    for (int p = 0; p < count; p++) free(y[p]);
    return ok;
}

// ---- the load of experts ---------------------------------------------------------------------------------
// A line a layer, the first MAX_LEVELS of them.
static bool experts(Buf *out, const Ledger *l, const Curves *c, Err *err) {
    static const char *const inks[MAX_LEVELS] = {"-l0", "-l1", "-l2", "-l3", "-l4", "-l5", "-l6", "-l7"};
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT step, layer, imbalance FROM step_experts ORDER BY step, layer", 0, 0, &s, err), more = true;
    int64_t layers[MAX_LEVELS];
    char names[MAX_LEVELS][32];
    double *y[MAX_LEVELS] = {0};
    Line lines[MAX_LEVELS];
    int count = 0;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t index = column_int(s, 0) - 1, layer = column_int(s, 1);
        int i = 0;
        while (i < count && layers[i] != layer) i++;
        if (i == MAX_LEVELS || index < 0 || index >= c->count) continue;
        if (i == count) {
            layers[count] = layer;
            snprintf(names[count], sizeof names[0], "layer %lld", (long long)layer);
            y[count] = xcalloc((size_t)c->count + 1, sizeof(double));
            for (int k = 0; k < c->count; k++) y[count][k] = NAN;
            count++;
        }
        y[i][index] = column_real(s, 2);
    }
    sqlite3_finalize(s);
    for (int i = 0; i < count; i++) lines[i] = (Line){.name = names[i], .ink = inks[i], .x = c->column[C_STEP], .y = y[i], .count = c->count};
    if (count) card(out, c, "Load of the busiest expert, over the mean", false, lines, count);
    for (int i = 0; i < count; i++) free(y[i]);
    return ok;
}

// ---- accuracy on held-out items --------------------------------------------------------------------------
typedef struct Points {
    char name[64];
    double *x, *y, *low, *high, items;
    int count, capacity;
} Points;
static void add_point(Points *p, double x, double correct, double items, double low, double high) {
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 16;
        size_t bytes = (size_t)p->capacity * sizeof(double);
        p->x = xrealloc(p->x, bytes), p->y = xrealloc(p->y, bytes), p->low = xrealloc(p->low, bytes), p->high = xrealloc(p->high, bytes);
    }
    p->x[p->count] = x, p->y[p->count] = correct / items, p->low[p->count] = low, p->high[p->count] = high;
    p->count++;
}
static Line line_of(const Points *p, const char *ink) {
    return (Line){.name = p->name, .ink = ink, .x = p->x, .y = p->y, .low = p->low, .high = p->high, .count = p->count, .points = true};
}
static void points_free(Points *p) { free(p->x), free(p->y), free(p->low), free(p->high); }

typedef struct Accuracy {
    Points mode[MODES], level[MODES][MAX_LEVELS];
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
        Points *p = &a->level[m][i];
        if ((int)i >= a->levels) a->levels = (int)i + 1;
        const json_t *number = json_object_get(level, "level");
        snprintf(p->name, sizeof p->name, "%.40s %lld", json_text_or(level, "kind", "level"), (long long)json_integer_value(number));
        add_point(p, step, correct, items, json_real_or_nan(level, "low"), json_real_or_nan(level, "high"));
    }
    if (!(all_items > 0 && all_items < 1e12 && all_correct <= all_items)) return;
    Interval w = wilson_interval((int64_t)all_correct, (int64_t)all_items, 0.95);
    snprintf(a->mode[m].name, sizeof a->mode[m].name, "%s", name);
    add_point(&a->mode[m], step, all_correct, all_items, w.low, w.high);
}

static bool accuracy(Buf *out, const Ledger *l, const Curves *c, Err *err) {
    sqlite3_stmt *s;
    Accuracy *a = xcalloc(1, sizeof *a);
    bool ok = ledger_query(l, "SELECT step, replayable FROM evaluations WHERE name <> 'compare' ORDER BY step, position", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *e = column_object(s, 1);
        add_evaluation(a, e, column_real(s, 0));
        json_decref(e);
    }
    sqlite3_finalize(s);
    static const char *const mode_inks[MODES] = {"-think", "-direct"}, *const inks[MAX_LEVELS] = {"-l0", "-l1", "-l2", "-l3", "-l4", "-l5", "-l6", "-l7"};
    static const char *const titles[MODES] = {"Held-out accuracy by level, think", "Held-out accuracy by level, direct"};
    Line lines[MAX_LEVELS];
    int n = 0;
    for (int m = 0; m < MODES; m++)
        if (a->mode[m].count) lines[n++] = line_of(&a->mode[m], mode_inks[m]);
    Chart chart = {.title = "Held-out accuracy", .x_label = "step", .percent = true, .y_low = 0, .y_high = NAN, .lines = lines, .line_count = n,
                   .marks = c->marks, .mark_count = c->mark_count};
    chart_card(out, &chart, WIDTH, HEIGHT);
    for (int m = 0; m < MODES && a->levels > 1; m++) {
        for (int i = 0; i < a->levels; i++) {
            lines[i] = line_of(&a->level[m][i], inks[i]);
            lines[i].low = lines[i].high = NULL; // five sets of whiskers would hide the curves
        }
        chart.title = titles[m], chart.line_count = a->levels;
        if (a->mode[m].count) chart_card(out, &chart, WIDTH, HEIGHT);
    }
    for (int m = 0; m < MODES; m++) {
        points_free(&a->mode[m]);
        for (int i = 0; i < MAX_LEVELS; i++) points_free(&a->level[m][i]);
    }
    free(a);
    return ok;
}

bool report_curves(Buf *out, const Ledger *l, const json_t *recipe, Err *err) {
    Curves c = {0};
    bool ok = read_curves(l, recipe, &c, err);
    if (ok && c.count) {
        buf_puts(out, "<section id=\"training\"><h2>How it learned</h2>\n<p class=\"note\">Faint: each step. Strong: a moving mean. Dotted lines begin "
                      "a stage. Samples of a rollout were drawn at the training temperature; held-out accuracy is its own measurement.</p>\n"
                      "<div class=\"charts\">\n");
        one_column(out, &c, "Mean reward", false, C_REWARD, "0");
        ok = accuracy(out, l, &c, err) && parts(out, l, &c, err) && experts(out, l, &c, err);
        Line lengths[] = {{.name = "all", .ink = "6", .x = c.column[C_STEP], .y = c.column[C_LENGTH], .count = c.count},
                          {.name = "thinking", .ink = "-think", .x = c.column[C_STEP], .y = c.column[C_THINK], .count = c.count},
                          {.name = "answer", .ink = "-direct", .x = c.column[C_STEP], .y = c.column[C_ANSWER], .count = c.count}};
        card(out, &c, "Tokens a completion", false, lengths, 3);
        one_column(out, &c, "Entropy, nats a token", false, C_ENTROPY, "4");
        one_column(out, &c, "Gradient norm", false, C_NORM, "5");
        losses(out, &c);
        if (any_nonzero(&c, C_KL)) one_column(out, &c, "KL against the reference", false, C_KL, "3");
        if (any_nonzero(&c, C_CLIP)) one_column(out, &c, "Clipped tokens", true, C_CLIP, "7");
        if (any_nonzero(&c, C_TRUNCATED)) one_column(out, &c, "Completions cut off", true, C_TRUNCATED, "7");
        if (any_nonzero(&c, C_FLAT)) one_column(out, &c, "Groups without variance", true, C_FLAT, "6");
        buf_puts(out, "</div></section>\n");
    }
    for (int i = 0; i < COLUMNS; i++) free(c.column[i]);
    return ok;
}
