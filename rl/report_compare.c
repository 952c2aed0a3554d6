// The first section of the page: what thinking was worth, in sentences, a table and a chart, from the newest
// comparison on the ledger (its form is told in compare.c); without one, the newest evaluation of each mode.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *verdict_class(const char *verdict) {
    if (strstr(verdict, "thinking pays")) return "think";
    if (strstr(verdict, "direct")) return "direct";
    return "";
}

static void level_name(const json_t *level, char *out, size_t size) {
    const json_t *number = json_object_get(level, "level");
    const char *kind = json_text_or(level, "kind", "");
    if (json_is_integer(number)) snprintf(out, size, "%.80s %lld", kind, (long long)json_integer_value(number));
    else snprintf(out, size, "%.80s", kind);
}

// ---- the sentences ---------------------------------------------------------------------------------------
static void sentences(Buf *out, const json_t *replayable) {
    size_t i;
    json_t *level;
    const json_t *gain = json_object_get(replayable, "gain");
    const char *gained = json_text_or(gain, "sentence", "");
    if (gained[0]) {
        buf_puts(out, "<p class=\"lead\">");
        html_string(out, gained);
        buf_puts(out, "</p>\n");
    }
    buf_puts(out, "<ul class=\"verdicts\">\n");
    json_array_foreach(json_object_get(replayable, "levels"), i, level) {
        char name[128];
        const char *verdict = json_text_or(level, "verdict", "");
        level_name(level, name, sizeof name);
        buf_printf(out, "<li><span><span class=\"badge %s\">", verdict_class(verdict));
        html_string(out, name);
        buf_puts(out, "</span></span><span>");
        html_string(out, json_text_or(level, "sentence", verdict));
        buf_puts(out, "</span></li>\n");
    }
    buf_puts(out, "</ul>\n");
}

// ---- the table -------------------------------------------------------------------------------------------
static void cell(Buf *out, const char *label, const char *class) { buf_printf(out, "<td data-label=\"%s\" class=\"%s\"><span>", label, class); }
static void end_cell(Buf *out) { buf_puts(out, "</span></td>"); }

static void accuracy_cell(Buf *out, const char *label, const char *class, const json_t *mode) {
    cell(out, label, class);
    html_percent(out, json_real_or_nan(mode, "accuracy"));
    buf_puts(out, "<small>");
    html_percent(out, json_real_or_nan(mode, "low"));
    buf_puts(out, " to ");
    html_percent(out, json_real_or_nan(mode, "high"));
    buf_puts(out, "</small>");
    end_cell(out);
}

static void points(Buf *out, double share) { // a difference in percentage points, with its sign
    if (isnan(share)) buf_puts(out, "&mdash;");
    else buf_printf(out, "%s%.1f", share < 0 ? "&minus;" : "+", fabs(100 * share));
}
static void difference_cell(Buf *out, const char *label, const json_t *pair) {
    double low = json_real_or_nan(pair, "low"), high = json_real_or_nan(pair, "high");
    cell(out, label, low > 0 ? "think-ink" : high < 0 ? "direct-ink" : "");
    points(out, json_real_or_nan(pair, "difference"));
    buf_puts(out, "<small>");
    points(out, low);
    buf_puts(out, " to ");
    points(out, high);
    buf_puts(out, "</small>");
    end_cell(out);
}

// Where a price is stated, money for a thousand correct answers (one costs too little to read); else seconds an item.
static void cost_value(Buf *out, const json_t *cost, bool money) {
    const json_t *v = json_object_get(cost, money ? "cost_per_correct" : "seconds_per_item");
    if (json_is_number(v)) html_number(out, json_number_value(v) * (money ? 1000 : 1));
    else if (json_is_string(v) && !strcmp(json_string_value(v), "inf")) buf_puts(out, "none correct");
    else if (json_is_string(v)) html_json(out, v);
    else buf_puts(out, "not known");
}
static void cost_cell(Buf *out, const json_t *cost, bool money) {
    cell(out, money ? "cost of 1,000 correct" : "seconds an item", "");
    cost_value(out, json_object_get(cost, "think"), money);
    buf_puts(out, "<small>direct ");
    cost_value(out, json_object_get(cost, "direct"), money);
    buf_puts(out, "</small>");
    end_cell(out);
}

static void table_row(Buf *out, const char *name, const json_t *level, const json_t *cost, bool money) {
    const json_t *modes[MODES] = {json_object_get(level, "think"), json_object_get(level, "direct")};
    double y[MODES], low[MODES], high[MODES];
    for (int m = 0; m < MODES; m++)
        y[m] = json_real_or_nan(modes[m], "accuracy"), low[m] = json_real_or_nan(modes[m], "low"), high[m] = json_real_or_nan(modes[m], "high");
    const char *verdict = json_text_or(level, "verdict", "");
    buf_printf(out, "<tr%s>", json_object_get(level, "kind") ? "" : " class=\"all\"");
    cell(out, "", "words");
    html_string(out, name);
    buf_puts(out, "<small>");
    html_number(out, json_real_or_nan(modes[0], "items"));
    buf_puts(out, " items</small>");
    end_cell(out);
    accuracy_cell(out, "think, correct", "think-ink", modes[MODE_THINK]);
    accuracy_cell(out, "direct, correct", "direct-ink", modes[MODE_DIRECT]);
    cell(out, "0 to 100 %", "");
    chart_interval(out, y, low, high);
    end_cell(out);
    difference_cell(out, "difference, points", json_object_get(level, "difference"));
    cell(out, "tokens, think and direct", "");
    html_number(out, json_real_or_nan(modes[MODE_THINK], "tokens"));
    buf_puts(out, "<small>direct ");
    html_number(out, json_real_or_nan(modes[MODE_DIRECT], "tokens"));
    buf_puts(out, "</small>");
    end_cell(out);
    cell(out, "FLOPs, think and direct", "");
    html_scaled(out, json_real_or_nan(modes[MODE_THINK], "flops"));
    buf_puts(out, "<small>direct ");
    html_scaled(out, json_real_or_nan(modes[MODE_DIRECT], "flops"));
    buf_puts(out, "</small>");
    end_cell(out);
    cost_cell(out, cost, money);
    cell(out, "verdict", verdict[0] ? "" : "blank");
    if (verdict[0]) {
        buf_printf(out, "<span class=\"badge %s\">", verdict_class(verdict));
        html_string(out, verdict);
        buf_puts(out, "</span>");
    }
    end_cell(out);
    buf_puts(out, "</tr>\n");
}

static void compare_table(Buf *out, const json_t *replayable, const json_t *measured) {
    size_t i;
    json_t *level;
    bool money = json_is_number(json_object_get(measured, "price_per_hour"));
    buf_puts(out, "<div class=\"card scroll wide\"><table class=\"stack\"><thead><tr><th>level</th><th class=\"think-ink\">think</th>"
                  "<th class=\"direct-ink\">direct</th><th>0 to 100&nbsp;%</th><th>difference</th><th>tokens</th><th>FLOPs</th><th>");
    if (money) {
        html_string(out, json_text_or(measured, "currency", "cost"));
        buf_puts(out, "<br>1,000 correct");
    } else {
        buf_puts(out, "seconds");
    }
    buf_puts(out, "</th><th>verdict</th></tr></thead><tbody>\n");
    json_array_foreach(json_object_get(replayable, "levels"), i, level) {
        char name[128];
        level_name(level, name, sizeof name);
        table_row(out, name, level, json_array_get(json_object_get(measured, "levels"), i), money);
    }
    const json_t *all = json_object_get(replayable, "all");
    if (json_is_object(all)) table_row(out, "all levels", all, json_object_get(measured, "all"), money);
    buf_puts(out, "</tbody></table></div>\n<p class=\"note\">Held-out items, answered greedily by one model in both modes. Under each accuracy "
                  "its 95&nbsp;% interval (Wilson); the difference is paired by item, in percentage points, its interval by bootstrap. Tokens, "
                  "FLOPs and seconds are means of an item.</p>\n");
}

// ---- the chart -------------------------------------------------------------------------------------------
static void compare_chart(Buf *out, const json_t *replayable) {
    const json_t *levels = json_object_get(replayable, "levels");
    size_t n = json_array_size(levels), i;
    json_t *level;
    if (n == 0 || n > 200) return;
    ScatterPoint *p = xcalloc(n, sizeof *p);
    char(*names)[128] = xcalloc(n, sizeof *names);
    json_array_foreach(levels, i, level) {
        const json_t *number = json_object_get(level, "level");
        if (json_is_integer(number)) snprintf(names[i], sizeof names[i], "level %lld", (long long)json_integer_value(number));
        else level_name(level, names[i], sizeof names[i]);
        p[i].label = names[i];
        for (int m = 0; m < MODES; m++) {
            const json_t *mode = json_object_get(level, m == MODE_THINK ? "think" : "direct");
            p[i].x[m] = json_real_or_nan(mode, "tokens"), p[i].y[m] = json_real_or_nan(mode, "accuracy");
            p[i].low[m] = json_real_or_nan(mode, "low"), p[i].high[m] = json_real_or_nan(mode, "high");
        }
    }
    buf_puts(out, "<figure class=\"card wide\"><h3>Accuracy against tokens</h3><div class=\"legend\">"
                  "<span><svg viewBox=\"0 0 14 10\" aria-hidden=\"true\"><circle class=\"f-think\" cx=\"7\" cy=\"5\" r=\"4\"/></svg>think</span>"
                  "<span><svg viewBox=\"0 0 14 10\" aria-hidden=\"true\"><circle class=\"f-direct\" cx=\"7\" cy=\"5\" r=\"4\"/></svg>direct</span>"
                  "<span>a dashed line joins the two modes of one level</span></div><div class=\"wide-only\">");
    chart_scatter(out, p, (int)n, 1080, 400);
    buf_puts(out, "</div><div class=\"narrow-only\">");
    chart_scatter(out, p, (int)n, 400, 380);
    buf_puts(out, "</div></figure>\n");
    free(names), free(p);
}

// ---- without a comparison --------------------------------------------------------------------------------
static void evaluation_rows(Buf *out, const json_t *evaluation, int64_t step) {
    size_t i;
    json_t *level;
    const char *mode = json_text_or(evaluation, "mode", "");
    const char *ink = !strcmp(mode, "think") ? "think-ink" : !strcmp(mode, "direct") ? "direct-ink" : "";
    json_array_foreach(json_object_get(evaluation, "levels"), i, level) {
        char name[128];
        level_name(level, name, sizeof name);
        buf_puts(out, "<tr>");
        cell(out, "", "words");
        html_string(out, name);
        buf_puts(out, ", ");
        html_string(out, mode);
        end_cell(out);
        cell(out, "after step", "");
        buf_printf(out, "%lld", (long long)step);
        end_cell(out);
        accuracy_cell(out, "correct", ink, level);
        cell(out, "items", "");
        html_number(out, json_real_or_nan(level, "items"));
        end_cell(out);
        cell(out, "tokens", "");
        html_number(out, json_real_or_nan(level, "tokens"));
        end_cell(out);
        buf_puts(out, "</tr>\n");
    }
}

static bool newest_evaluations(Buf *out, const Ledger *l, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT step, replayable FROM evaluations AS e WHERE name <> 'compare' AND step = (SELECT max(step) FROM "
                              "evaluations WHERE name = e.name) ORDER BY name, position LIMIT 20";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    int count = 0;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *evaluation = column_object(s, 1);
        if (count++ == 0)
            buf_puts(out, "<div class=\"card scroll wide\"><table class=\"stack\"><thead><tr><th>level and mode</th><th>after step</th>"
                          "<th>correct</th><th>items</th><th>tokens</th></tr></thead><tbody>\n");
        evaluation_rows(out, evaluation, column_int(s, 0));
        json_decref(evaluation);
    }
    sqlite3_finalize(s);
    if (count) buf_puts(out, "</tbody></table></div>\n");
    buf_puts(out, "<p class=\"note\">Thinking and answering directly have not been compared yet: <code>reckon compare RUN</code> does.</p>\n");
    return ok;
}

// What was measured of a comparison is in the events, beside when it was made.
static bool compare_measured(const Ledger *l, int64_t step, json_t **out, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT detail FROM events WHERE kind = 'evaluation' AND step = ? ORDER BY seq DESC", step, 0, &s, err), more = true;
    *out = NULL;
    while (ok && !*out && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *detail = column_object(s, 0);
        if (!strcmp(json_text_or(detail, "name", ""), "compare")) *out = json_incref(json_object_get(detail, "measured"));
        json_decref(detail);
    }
    sqlite3_finalize(s);
    return ok;
}

bool report_verdicts(Buf *out, const Ledger *l, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    json_t *replayable = NULL, *measured = NULL;
    int64_t step = 0;
    buf_puts(out, "<section id=\"verdict\">\n");
    bool ok = ledger_query(l, "SELECT step, replayable FROM evaluations WHERE name = 'compare' ORDER BY step DESC, position DESC LIMIT 1", 0, 0,
                           &s, err) && ledger_next(l, s, &more, err);
    if (ok && more) step = column_int(s, 0), replayable = column_object(s, 1);
    sqlite3_finalize(s);
    if (ok && replayable) {
        ok = compare_measured(l, step, &measured, err);
        sentences(out, replayable);
        compare_table(out, replayable, measured);
        compare_chart(out, replayable);
    } else if (ok) {
        ok = newest_evaluations(out, l, err);
    }
    json_decref(replayable);
    json_decref(measured);
    buf_puts(out, "</section>\n");
    return ok;
}
