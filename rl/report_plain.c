// The report as Markdown, to be read in a terminal or put into a document, and as CSV: one row a number, for other programs. Cells
// of foreign text can start no formula in a spreadsheet and no markup in Markdown.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- Markdown --------------------------------------------------------------------------------------------
static void md_text(Buf *out, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '\n' || c == '\t') c = ' ';
        if (strchr("\\`*_{}[]<>#|!~&", c)) buf_puts(out, "\\");
        buf_append(out, &c, 1);
    }
}
static void md_json(Buf *out, const json_t *text) {
    const char *s = json_string_value(text);
    if (s) md_text(out, s, strlen(s));
}
static void md_cell(Buf *out, const Report *r, const json_t *value, const char *form) {
    Buf words = {0}, aside = {0};
    cell_words(r, value, form, &words, &aside);
    buf_puts(out, " ");
    md_text(out, words.data ? words.data : "", words.size);
    if (aside.size) buf_puts(out, " ("), md_text(out, aside.data, aside.size), buf_puts(out, ")");
    buf_puts(out, " |");
    buf_free(&words), buf_free(&aside);
}

static void md_rule(Buf *out, size_t columns) {
    buf_puts(out, "\n|");
    for (size_t i = 0; i < columns; i++) buf_puts(out, i ? " ---: |" : " --- |");
    buf_puts(out, "\n");
}

static void md_sheet(Buf *out, const Report *r, const json_t *block) {
    const json_t *columns = json_object_get(block, "columns");
    size_t i, k;
    json_t *column, *row, *value;
    buf_puts(out, "### ");
    md_json(out, json_object_get(block, "title"));
    buf_puts(out, "\n\n|");
    json_array_foreach(columns, i, column) buf_puts(out, " "), md_json(out, json_object_get(column, "name")), buf_puts(out, " |");
    md_rule(out, json_array_size(columns));
    json_array_foreach(json_object_get(block, "rows"), i, row) {
        buf_puts(out, "|");
        json_array_foreach(row, k, value) md_cell(out, r, value, json_text_or(json_array_get(columns, k), "form", "text"));
        buf_puts(out, "\n");
    }
    buf_puts(out, "\n");
    if (json_is_string(json_object_get(block, "note"))) md_json(out, json_object_get(block, "note")), buf_puts(out, "\n\n");
}

// A chart's lines: where each begins, ends, its lowest and its highest.
static void md_chart(Buf *out, const Report *r, const json_t *block) {
    const char *form = json_is_true(json_object_get(block, "percent")) ? "share" : "number";
    size_t i, k;
    json_t *line, *p;
    buf_puts(out, "### ");
    md_json(out, json_object_get(block, "title"));
    buf_printf(out, "\n\n| | %s | %s | %s | %s |", say(r, "first"), say(r, "last"), say(r, "lowest"), say(r, "highest"));
    md_rule(out, 5);
    json_array_foreach(json_object_get(block, "lines"), i, line) {
        const json_t *points = json_object_get(line, "points");
        size_t n = json_array_size(points);
        double low = INFINITY, high = -INFINITY;
        json_array_foreach(points, k, p) {
            double y = json_number_value(json_array_get(p, 1));
            low = fmin(low, y), high = fmax(high, y);
        }
        json_t *ends[] = {json_array_get(json_array_get(points, 0), 1), json_array_get(json_array_get(points, n ? n - 1 : 0), 1)};
        json_t *extremes[] = {json_number_or_name(low), json_number_or_name(high)};
        buf_puts(out, "| ");
        md_json(out, json_object_get(line, "name"));
        buf_puts(out, " |");
        for (k = 0; k < 2; k++) md_cell(out, r, ends[k], form);
        for (k = 0; k < 2; k++) md_cell(out, r, n ? extremes[k] : NULL, form), json_decref(extremes[k]);
        buf_puts(out, "\n");
    }
    buf_puts(out, "\n");
}

static void md_frontier(Buf *out, const Report *r, const json_t *block) {
    const json_t *view = json_array_get(json_object_get(block, "views"), 0);
    size_t i;
    json_t *p;
    buf_puts(out, "### ");
    md_json(out, json_object_get(block, "title"));
    buf_printf(out, "\n\n| %s | ", say(r, "arm"));
    md_json(out, json_object_get(view, "cost"));
    buf_printf(out, " | %s | %s |", say(r, "correct"), say(r, "efficient"));
    md_rule(out, 4);
    json_array_foreach(json_object_get(view, "points"), i, p) {
        json_t *y = json_pack("{s:O,s:O,s:O}", "value", json_object_get(p, "y"), "low", json_object_get(p, "low"), "high", json_object_get(p, "high"));
        buf_puts(out, "| ");
        md_json(out, json_object_get(p, "name"));
        buf_puts(out, " |");
        md_cell(out, r, json_object_get(p, "x"), "number");
        md_cell(out, r, y, "share");
        buf_printf(out, " %s |\n", json_is_true(json_object_get(p, "front")) ? say(r, "yes") : "");
        json_decref(y);
    }
    buf_puts(out, "\n");
}

static void md_headline(Buf *out, const json_t *block) {
    size_t i;
    json_t *entry;
    buf_puts(out, "**");
    md_json(out, json_object_get(block, "text"));
    buf_puts(out, "**\n\n");
    json_array_foreach(json_object_get(block, "lines"), i, entry) md_json(out, entry), buf_puts(out, "\n\n");
    json_array_foreach(json_object_get(block, "tiles"), i, entry) {
        buf_puts(out, "- ");
        md_json(out, json_object_get(entry, "name")), buf_puts(out, ": **"), md_json(out, json_object_get(entry, "text")), buf_puts(out, "** (");
        md_json(out, json_object_get(entry, "note")), buf_puts(out, ")\n");
    }
    buf_puts(out, "\n");
}

// Text in a fence that is longer than any run of its own.
static void md_source(Buf *out, const json_t *block) {
    const char *text = json_text_or(block, "text", "");
    int longest = 2, run = 0;
    for (const char *c = text; *c; c++) run = *c == '`' ? run + 1 : 0, longest = run > longest ? run : longest;
    buf_puts(out, "### ");
    md_json(out, json_object_get(block, "title"));
    buf_puts(out, "\n\n");
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i <= longest; i++) buf_puts(out, "`");
        buf_puts(out, "\n");
        if (side == 0) buf_puts(out, text), buf_puts(out, "\n");
    }
    buf_puts(out, "\n");
}

static void md_block(Buf *out, const Report *r, const json_t *block) {
    const char *kind = json_text_or(block, "kind", "");
    size_t i;
    json_t *entry;
    if (!strcmp(kind, "headline")) md_headline(out, block);
    else if (!strcmp(kind, "sheet")) md_sheet(out, r, block);
    else if (!strcmp(kind, "chart")) md_chart(out, r, block);
    else if (!strcmp(kind, "frontier")) md_frontier(out, r, block);
    else if (!strcmp(kind, "source")) md_source(out, block);
    else if (!strcmp(kind, "paragraph")) md_json(out, json_object_get(block, "text")), buf_puts(out, "\n\n");
    else if (!strcmp(kind, "list")) {
        json_array_foreach(json_object_get(block, "items"), i, entry) {
            buf_puts(out, "- **"), md_json(out, json_object_get(entry, "name")), buf_puts(out, "**: "), md_json(out, json_object_get(entry, "text")), buf_puts(out, "\n");
        }
        buf_puts(out, "\n");
    } else if (!strcmp(kind, "facts")) {
        buf_puts(out, "### "), md_json(out, json_object_get(block, "title")), buf_puts(out, "\n\n");
        json_array_foreach(json_object_get(block, "facts"), i, entry) {
            buf_puts(out, "- "), md_json(out, json_array_get(entry, 0)), buf_puts(out, ": "), md_json(out, json_array_get(entry, 1)), buf_puts(out, "\n");
        }
        buf_puts(out, "\n");
    }
}

void report_markdown(const Report *r, Buf *out) {
    size_t i, k;
    json_t *section, *block;
    buf_puts(out, "# ");
    md_text(out, r->name, strlen(r->name));
    buf_puts(out, "\n\n");
    json_array_foreach(r->sections, i, section) {
        buf_puts(out, "## "), md_json(out, json_object_get(section, "title")), buf_puts(out, "\n\n");
        if (json_is_string(json_object_get(section, "note"))) md_json(out, json_object_get(section, "note")), buf_puts(out, "\n\n");
        json_array_foreach(json_object_get(section, "blocks"), k, block) md_block(out, r, block);
    }
}

// ---- CSV (RFC 4180) --------------------------------------------------------------------------------------
static void csv_text(Buf *out, const char *text) {
    buf_puts(out, "\"");
    if (text[0] && strchr("=+-@\t", text[0])) buf_puts(out, "'"); // no formula
    for (; *text; text++) buf_append(out, text, 1), buf_puts(out, *text == '"' ? "\"" : "");
    buf_puts(out, "\"");
}
static void csv_value(Buf *out, const json_t *v) {
    if (json_is_string(v)) csv_text(out, json_string_value(v));
    else if (json_is_number(v)) buf_printf(out, "%.10g", json_number_value(v));
}

static void csv_row(Buf *out, const char *section, const char *table, const char *row, const char *column, const json_t *cell) {
    const json_t *value = json_is_object(cell) ? json_object_get(cell, "value") : cell;
    const char *const names[] = {section, table, row, column};
    if (!value || json_is_null(value)) return;
    for (int i = 0; i < COUNT(names); i++) csv_text(out, names[i]), buf_puts(out, ",");
    csv_value(out, value);
    static const char *const keys[] = {"low", "high", "source"};
    for (int i = 0; i < COUNT(keys); i++) buf_puts(out, ","), csv_value(out, json_object_get(cell, keys[i]));
    buf_puts(out, "\r\n");
}

static void csv_sheet(Buf *out, const char *section, const json_t *block) {
    size_t i, k;
    json_t *row, *value;
    json_array_foreach(json_object_get(block, "rows"), i, row) {
        const char *name = json_string_value(json_array_get(row, 0));
        json_array_foreach(row, k, value) {
            if (k) csv_row(out, section, json_text_or(block, "id", ""), name ? name : "", json_text_or(json_array_get(json_object_get(block, "columns"), k), "key", ""), value);
        }
    }
}
static void csv_chart(Buf *out, const char *section, const json_t *block) {
    size_t i, k;
    json_t *line, *p;
    json_array_foreach(json_object_get(block, "lines"), i, line) {
        json_array_foreach(json_object_get(line, "points"), k, p) {
            char x[40];
            snprintf(x, sizeof x, "%.10g", json_number_value(json_array_get(p, 0)));
            json_t *cell = json_pack("{s:O}", "value", json_array_get(p, 1));
            if (json_array_size(p) > 2) json_object_set(cell, "low", json_array_get(p, 2)), json_object_set(cell, "high", json_array_get(p, 3));
            csv_row(out, section, json_text_or(block, "id", ""), x, json_text_or(line, "name", ""), cell);
            json_decref(cell);
        }
    }
}
static void csv_frontier(Buf *out, const char *section, const json_t *block) {
    size_t i, k;
    json_t *view, *p;
    json_array_foreach(json_object_get(block, "views"), i, view) {
        Buf name = {0};
        buf_printf(&name, "frontier %s %s", json_text_or(view, "scope", ""), json_text_or(view, "measure", ""));
        json_array_foreach(json_object_get(view, "points"), k, p) {
            json_t *y = json_pack("{s:O,s:O,s:O}", "value", json_object_get(p, "y"), "low", json_object_get(p, "low"), "high", json_object_get(p, "high"));
            csv_row(out, section, name.data, json_text_or(p, "name", ""), "cost", json_object_get(p, "x"));
            csv_row(out, section, name.data, json_text_or(p, "name", ""), "accuracy", y);
            json_t *front = json_integer(json_is_true(json_object_get(p, "front")));
            csv_row(out, section, name.data, json_text_or(p, "name", ""), "efficient", front);
            json_decref(y), json_decref(front);
        }
        buf_free(&name);
    }
}

void report_csv(const Report *r, Buf *out) {
    size_t i, k;
    json_t *section, *block;
    buf_puts(out, "section,table,row,column,value,low,high,source\r\n");
    json_array_foreach(r->sections, i, section) {
        const char *id = json_text_or(section, "id", "");
        json_array_foreach(json_object_get(section, "blocks"), k, block) {
            const char *kind = json_text_or(block, "kind", "");
            if (!strcmp(kind, "sheet") && !json_is_true(json_object_get(block, "folded"))) csv_sheet(out, id, block);
            else if (!strcmp(kind, "chart")) csv_chart(out, id, block);
            else if (!strcmp(kind, "frontier")) csv_frontier(out, id, block);
        }
    }
}
