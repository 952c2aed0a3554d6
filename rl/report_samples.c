// Samples to read: a few hundred completions, from the first step with samples to the last, with what was asked, what
// was expected and what the rewards said. All of it is text that models and data wrote: it passes html_text.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 6, MOST_SAMPLES = 288, LONGEST_TEXT = 6000 };

static void cut_text(Buf *out, const void *data, size_t size) {
    size_t shown = size < LONGEST_TEXT ? size : LONGEST_TEXT;
    while (shown < size && shown > 0 && (((const unsigned char *)data)[shown] & 0xc0) == 0x80) shown--; // at a whole character
    html_text(out, data, shown);
    if (shown < size) buf_printf(out, " [%zu bytes more]", size - shown);
}

static void completion(Buf *out, sqlite3_stmt *s, int column, bool think_mode) {
    Value v = value_column(s, column);
    if (v.kind != VALUE_TEXT && v.kind != VALUE_BLOB) v = value_bytes("", 0, VALUE_TEXT);
    const char *text = v.data, *end = think_mode ? memmem(text, v.size, "</think>", 8) : NULL;
    size_t thinking = end ? (size_t)(end - text) + 8 : think_mode ? v.size : 0;
    buf_puts(out, "<pre class=\"completion\">");
    if (thinking) buf_puts(out, "<span class=\"thinking\">");
    cut_text(out, text, thinking);
    if (thinking) buf_puts(out, "</span>");
    cut_text(out, text + thinking, v.size - thinking);
    buf_puts(out, "</pre>");
}

static bool part_values(Buf *out, const Ledger *l, int64_t step, int64_t sample, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT name, value FROM parts WHERE step = ? AND sample = ? ORDER BY position", step, sample, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        buf_puts(out, "<span>");
        html_string(out, column_string(s, 0));
        buf_puts(out, " <b>");
        html_number(out, column_real(s, 1));
        buf_puts(out, "</b></span>");
    }
    sqlite3_finalize(s);
    return ok;
}

// What a sample is filed under in the filter: its state, and of the scored ones whether the reward beat its group.
static const char *outcome(const char *verdict, double advantage) {
    if (strcmp(verdict, "scored")) return "unscored";
    return advantage > 0 ? "better" : advantage < 0 ? "worse" : "equal";
}

enum { S_STEP, S_SAMPLE, S_FINISH, S_TOKENS, S_VERDICT, S_REWARD, S_WHY, S_ADVANTAGE, S_COMPLETION, S_KIND, S_LEVEL, S_MODE, S_TEXT, S_MESSAGES, S_TRUTH };
static bool sample_card(Buf *out, const Ledger *l, sqlite3_stmt *s, Err *err) {
    const char *mode = column_string(s, S_MODE), *verdict = column_string(s, S_VERDICT);
    bool think = !strcmp(mode, "think");
    double reward = column_real(s, S_REWARD), advantage = column_real(s, S_ADVANTAGE);
    buf_printf(out, "<article class=\"card sample\" data-step=\"%lld\" data-outcome=\"%s\" data-mode=\"", (long long)column_int(s, S_STEP),
               outcome(verdict, advantage));
    html_string(out, mode);
    buf_puts(out, "\" data-verdict=\"");
    html_string(out, verdict);
    buf_printf(out, "\"><div class=\"head\"><span class=\"badge %s\">", think ? "think" : "direct");
    html_string(out, mode);
    buf_printf(out, "</span><span>step %lld</span><span>", (long long)column_int(s, S_STEP));
    html_string(out, column_string(s, S_KIND));
    buf_printf(out, " %lld</span><span>%lld tokens</span>", (long long)column_int(s, S_LEVEL), (long long)column_int(s, S_TOKENS));
    if (!strcmp(column_string(s, S_FINISH), "length")) buf_puts(out, "<span class=\"badge bad\">cut off</span>");
    buf_puts(out, "</div><p class=\"question\">");
    Value question = value_column(s, sqlite3_column_type(s, S_TEXT) == SQLITE_TEXT ? S_TEXT : S_MESSAGES);
    if (question.kind == VALUE_TEXT) cut_text(out, question.data, question.size);
    buf_puts(out, "</p>");
    completion(out, s, S_COMPLETION, think);
    buf_puts(out, "<div class=\"facts\">");
    if (sqlite3_column_type(s, S_TRUTH) == SQLITE_TEXT) {
        buf_puts(out, "<span>expected <b>");
        Value truth = value_column(s, S_TRUTH);
        cut_text(out, truth.data, truth.size);
        buf_puts(out, "</b></span>");
    }
    if (strcmp(verdict, "scored")) {
        buf_puts(out, "<span class=\"badge bad\">");
        html_string(out, verdict);
        buf_puts(out, "</span><span>");
        html_string(out, column_string(s, S_WHY));
        buf_puts(out, "</span>");
    } else {
        buf_puts(out, "<span>reward <b>");
        html_number(out, reward);
        buf_puts(out, "</b></span>");
    }
    bool ok = part_values(out, l, column_int(s, S_STEP), column_int(s, S_SAMPLE), err);
    buf_puts(out, "<span>advantage <b>");
    html_number(out, advantage);
    buf_puts(out, "</b></span></div></article>\n");
    return ok;
}

static bool sample_cards(Buf *out, const Ledger *l, int64_t step, int64_t limit, int *count, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT s.step, s.sample, s.finish, s.tokens, s.verdict, s.reward, s.why, s.advantage, s.completion, p.kind, p.level, "
                              "p.mode, p.text, p.messages, p.truth FROM samples AS s JOIN prompts AS p USING (step, prompt) WHERE s.step = ? "
                              "ORDER BY s.sample LIMIT ?";
    bool ok = ledger_query(l, sql, step, limit, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        ok = sample_card(out, l, s, err);
        ++*count;
    }
    sqlite3_finalize(s);
    return ok;
}

// The first and the last step that have samples and some between, each once.
static bool choose_steps(const Ledger *l, int64_t chosen[MOST_STEPS], int *count, Err *err) {
    int64_t steps;
    *count = 0;
    TRY(ledger_integer(l, "SELECT count(DISTINCT step) FROM samples", 0, 0, &steps, err));
    for (int i = 0; i < MOST_STEPS && i < steps; i++) {
        int64_t last = steps < MOST_STEPS ? steps - 1 : MOST_STEPS - 1, index = last ? i * (steps - 1) / last : 0;
        TRY(ledger_integer(l, "SELECT DISTINCT step FROM samples ORDER BY step LIMIT 1 OFFSET ?", index, 0, &chosen[i], err));
        ++*count;
    }
    return true;
}

static void filters(Buf *out, const int64_t *steps, int count) {
    buf_puts(out, "<form id=\"filters\" class=\"filters\" hidden><label>step <select name=\"step\"><option value=\"\">any</option>");
    for (int i = 0; i < count; i++) buf_printf(out, "<option value=\"%lld\">%lld</option>", (long long)steps[i], (long long)steps[i]);
    buf_puts(out, "</select></label><label>mode <select name=\"mode\"><option value=\"\">any</option><option>think</option><option>direct</option>"
                  "</select></label><label>verdict <select name=\"verdict\"><option value=\"\">any</option><option>scored</option>"
                  "<option>abstained</option><option>error</option><option>budget</option><option>killed</option></select></label>"
                  "<label>in its group <select name=\"outcome\"><option value=\"\">any</option><option value=\"better\">better than the mean</option>"
                  "<option value=\"worse\">worse than the mean</option><option value=\"equal\">all equal</option></select></label>"
                  "<label>text <input type=\"search\" name=\"text\" autocomplete=\"off\"></label><span id=\"count\" class=\"note\"></span></form>\n");
}

bool report_samples(Buf *out, const Ledger *l, Err *err) {
    int64_t steps[MOST_STEPS];
    int step_count, count = 0;
    TRY(choose_steps(l, steps, &step_count, err));
    if (!step_count) return true;
    buf_puts(out, "<section id=\"samples\"><h2>What it wrote</h2>\n<p class=\"note\">Completions sampled in training, from the first step to the last. "
                  "Grey: thinking.</p>\n");
    filters(out, steps, step_count);
    buf_puts(out, "<div class=\"samples\">\n");
    for (int i = 0; i < step_count; i++) TRY(sample_cards(out, l, steps[i], MOST_SAMPLES / step_count, &count, err));
    buf_puts(out, "</div><button id=\"more\" type=\"button\" hidden>Show more</button></section>\n");
    return true;
}
