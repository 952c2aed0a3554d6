// Blocks of the report's document, and how a cell of a sheet reads. All foreign text passes text_visible here.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *section_add(Report *r, const char *id, const char *title_key, const char *note_key) {
    json_t *blocks = json_array();
    json_array_append_new(r->sections, json_pack("{s:s,s:s,s:s?,s:o}", "id", id, "title", say(r, title_key), "note",
                                                 note_key ? say(r, note_key) : NULL, "blocks", blocks));
    return blocks;
}

json_t *block_add(json_t *blocks, const char *kind) {
    json_t *block = json_pack("{s:s}", "kind", kind);
    json_array_append_new(blocks, block);
    return block;
}
void paragraph_add(json_t *blocks, json_t *text) { json_object_set_new(block_add(blocks, "paragraph"), "text", text); }

// ---- sheets ----------------------------------------------------------------------------------------------
json_t *sheet_add(json_t *blocks, const char *id, const char *title) {
    json_t *sheet = block_add(blocks, "sheet");
    json_object_set_new(sheet, "id", json_string(id));
    json_object_set_new(sheet, "title", visible_string(title));
    json_object_set_new(sheet, "columns", json_array());
    json_object_set_new(sheet, "rows", json_array());
    json_object_set_new(sheet, "note", json_null());
    return sheet;
}
void sheet_column(json_t *sheet, const char *key, const char *name, const char *form) {
    json_array_append_new(json_object_get(sheet, "columns"),
                          json_pack("{s:s,s:o,s:s}", "key", key, "name", visible_string(name), "form", form));
}
json_t *sheet_row(json_t *sheet) {
    json_t *row = json_array();
    json_array_append_new(json_object_get(sheet, "rows"), row);
    return row;
}
void cell_text(json_t *row, const char *text) { json_array_append_new(row, visible_string(text)); }
static json_t *number_json(double x) { return isnan(x) ? json_null() : json_number_or_name(x); }
void cell_number(json_t *row, double x) { json_array_append_new(row, number_json(x)); }
void cell_interval(json_t *row, double x, double low, double high) {
    json_array_append_new(row, json_pack("{s:o,s:o,s:o}", "value", number_json(x), "low", number_json(low), "high", number_json(high)));
}
void cell_figure(json_t *row, const json_t *figure) {
    json_array_append_new(row, json_is_object(figure) ? json_deep_copy(figure) : json_null());
}

// ---- charts ----------------------------------------------------------------------------------------------
json_t *chart_add(json_t *blocks, const char *id, const char *title, const char *x) {
    json_t *chart = block_add(blocks, "chart");
    json_object_set_new(chart, "id", json_string(id));
    json_object_set_new(chart, "title", visible_string(title));
    json_object_set_new(chart, "x", visible_string(x));
    json_object_set_new(chart, "lines", json_array());
    return chart;
}
json_t *chart_line(json_t *chart, const char *name, const char *ink) {
    json_t *points = json_array();
    json_array_append_new(json_object_get(chart, "lines"), json_pack("{s:o,s:s,s:o}", "name", visible_string(name), "ink", ink, "points", points));
    return points;
}
// Six digits are more than a picture shows, and keep a page small.
static json_t *rounded(double x) {
    if (!isfinite(x)) return json_null();
    char text[40];
    snprintf(text, sizeof text, "%.6g", x);
    return json_real(strtod(text, NULL));
}
void chart_point(json_t *points, double x, double y, double low, double high) {
    json_t *p = json_pack("[o,o]", rounded(x), rounded(y));
    if (!isnan(low)) json_array_append_new(p, rounded(low)), json_array_append_new(p, rounded(high));
    json_array_append_new(points, p);
}

// ---- how a cell reads ------------------------------------------------------------------------------------
static double cell_real(const json_t *v) {
    if (json_is_number(v)) return json_number_value(v);
    const char *name = json_string_value(v);
    return name && !strcmp(name, "inf") ? INFINITY : name && !strcmp(name, "-inf") ? -INFINITY : NAN;
}
static void number_words(const Report *r, double x, const char *form, Buf *out) {
    if (!strcmp(form, "share")) text_percent(out, x);
    else if (!strcmp(form, "points")) text_points(out, x);
    else if (!strcmp(form, "chance")) text_chance(out, x);
    else if (!strcmp(form, "seconds")) text_seconds(out, x, r->korean);
    else if (!strcmp(form, "scaled")) text_scaled(out, x);
    else if (!strcmp(form, "ratio")) text_number(out, x), buf_puts(out, isfinite(x) ? "\xc3\x97" : "");
    else text_number(out, x);
}
// A word that stands for a number: cost.c's "not measured" and the like, an infinity where there is no end.
static bool word_for_number(const Report *r, const json_t *value, Buf *out) {
    const char *text = json_string_value(value);
    if (!text || !strcmp(text, "inf") || !strcmp(text, "-inf")) return false;
    static const char *const known[] = {"not measured", "not stated", "not known"};
    for (int i = 0; i < COUNT(known); i++)
        if (!strcmp(text, known[i])) return buf_puts(out, say(r, known[i])), true;
    return buf_puts(out, text), true;
}

void cell_words(const Report *r, const json_t *cell, const char *form, Buf *value, Buf *aside) {
    const json_t *v = json_is_object(cell) ? json_object_get(cell, "value") : cell;
    if (json_is_null(v) || !v) {
        buf_puts(value, strcmp(form, "text") ? "\xe2\x80\x94" : "");
        return;
    }
    if (!word_for_number(r, v, value)) number_words(r, cell_real(v), form, value);
    const json_t *low = json_object_get(cell, "low"), *high = json_object_get(cell, "high");
    if (json_is_number(low) && json_is_number(high)) {
        number_words(r, json_number_value(low), form, aside);
        buf_puts(aside, say(r, "to"));
        number_words(r, json_number_value(high), form, aside);
    }
    const char *source = json_string_value(json_object_get(cell, "source"));
    if (source && strcmp(source, "none") && json_is_number(v)) buf_puts(aside, say(r, source));
}
