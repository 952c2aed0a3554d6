// The report as a page: one file without network or fonts. Its policy allows nothing but its own style and scripts, each named by
// its hash; data stand in blocks of JSON that no browser runs. Text and tables are in the page itself; its script draws the charts
// (each has its table beside it) and the browser of samples.
#include "report.h"
#include "embedded.h"
#include "files.h"
#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TABLE_ROWS = 24 };

// ---- the frame -------------------------------------------------------------------------------------------
static bool embedded(const char *name, const EmbeddedFile **out, Err *err) {
    for (const EmbeddedFile *f = embedded_files; f->name; f++)
        if (!strcmp(f->name, name)) return *out = f, true;
    return fail(err, ERR_SOFTWARE, name, "is not carried inside this binary");
}

// 'sha256-...' as a content security policy names a style or script.
static void policy_hash_of(const EmbeddedFile *f, char out[64]) {
    char hex[65];
    unsigned char digest[32];
    sha256_hex(f->data, f->size, hex);
    for (int i = 0; i < 32; i++) digest[i] = (unsigned char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest);
}

static void json_string_html(Buf *out, const json_t *text) { html_string(out, json_string_value(text)); }
static void said(Buf *out, const Report *r, const char *key) { html_string(out, say(r, key)); }

static void page_head(Buf *out, const Report *r, const EmbeddedFile *style, const EmbeddedFile *chart, const EmbeddedFile *script) {
    char hash[3][64];
    policy_hash_of(style, hash[0]), policy_hash_of(chart, hash[1]), policy_hash_of(script, hash[2]);
    buf_printf(out, "<!doctype html>\n<html lang=\"%s\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" "
                    "content=\"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s' 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n"
                    "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"reckon-head\" content=\"%s\">\n<title>",
               r->korean ? "ko" : "en", hash[0], hash[1], hash[2], r->head);
    html_string(out, r->name);
    buf_puts(out, " &middot; reckon</title>\n<style>");
    buf_append(out, style->data, style->size);
    buf_puts(out, "</style></head>\n<body><a class=\"skip\" href=\"#main\">");
    said(out, r, "skip");
    buf_puts(out, "</a><div class=\"page\"><header class=\"top\"><div class=\"bar\"><p class=\"eyebrow\">");
    said(out, r, r->ledger ? "run report" : "comparison report");
    buf_puts(out, "</p><button id=\"theme\" type=\"button\" hidden>");
    said(out, r, "dark or light");
    buf_puts(out, "</button></div><h1>");
    html_string(out, r->name);
    buf_puts(out, "</h1></header>\n");
}

// The browser of samples stands before what a run cost; in a comparison alone, before what was run.
static bool samples_before(const Report *r, const json_t *section, const SampleBlocks *samples) {
    return samples->count > 0 && !strcmp(json_text_or(section, "id", ""), r->cost ? "cost" : "run");
}

static void navigation(Buf *out, const Report *r, const SampleBlocks *samples) {
    size_t i;
    json_t *section;
    buf_puts(out, "<nav aria-label=\"");
    said(out, r, "contents");
    buf_puts(out, "\">");
    json_array_foreach(r->sections, i, section) {
        if (samples_before(r, section, samples)) buf_puts(out, "<a href=\"#samples\">"), said(out, r, "what it wrote"), buf_puts(out, "</a>");
        buf_printf(out, "<a href=\"#%s\">", json_text_or(section, "id", ""));
        json_string_html(out, json_object_get(section, "title"));
        buf_puts(out, "</a>");
    }
    buf_puts(out, "</nav>\n<main id=\"main\">\n");
}

// ---- text blocks -----------------------------------------------------------------------------------------
static void headline(Buf *out, const json_t *block) {
    size_t i;
    json_t *entry;
    buf_printf(out, "<div class=\"headline %s\"><p class=\"answer\">", json_text_or(block, "tone", ""));
    json_string_html(out, json_object_get(block, "text"));
    buf_puts(out, "</p>\n");
    json_array_foreach(json_object_get(block, "lines"), i, entry) {
        buf_puts(out, i ? "<p>" : "<p class=\"lead\">");
        json_string_html(out, entry);
        buf_puts(out, "</p>\n");
    }
    buf_puts(out, "</div>\n<dl class=\"tiles\">");
    json_array_foreach(json_object_get(block, "tiles"), i, entry) {
        buf_puts(out, "<div class=\"tile\"><dt>");
        json_string_html(out, json_object_get(entry, "name"));
        buf_puts(out, "</dt><dd><b>");
        json_string_html(out, json_object_get(entry, "text"));
        buf_puts(out, "</b><small>");
        json_string_html(out, json_object_get(entry, "note"));
        buf_puts(out, "</small></dd></div>");
    }
    buf_puts(out, "</dl>\n");
}

static void list(Buf *out, const json_t *block) {
    size_t i;
    json_t *item;
    buf_puts(out, "<ul class=\"verdicts\">\n");
    json_array_foreach(json_object_get(block, "items"), i, item) {
        buf_printf(out, "<li><span><span class=\"badge %s\">", json_text_or(item, "tone", ""));
        json_string_html(out, json_object_get(item, "name"));
        buf_puts(out, "</span></span><span>");
        json_string_html(out, json_object_get(item, "text"));
        buf_puts(out, "</span></li>\n");
    }
    buf_puts(out, "</ul>\n");
}

static void facts(Buf *out, const json_t *block) {
    size_t i;
    json_t *entry;
    buf_puts(out, "<div class=\"card\"><h3>");
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, "</h3><dl class=\"facts\">");
    json_array_foreach(json_object_get(block, "facts"), i, entry) {
        buf_puts(out, "<dt>");
        json_string_html(out, json_array_get(entry, 0));
        buf_puts(out, "</dt><dd>");
        json_string_html(out, json_array_get(entry, 1));
        buf_puts(out, "</dd>");
    }
    buf_puts(out, "</dl></div>\n");
}

static void source(Buf *out, const json_t *block) {
    buf_puts(out, "<details><summary>");
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, "</summary><pre class=\"source\" tabindex=\"0\">");
    json_string_html(out, json_object_get(block, "text"));
    buf_puts(out, "</pre></details>\n");
}

// ---- tables ----------------------------------------------------------------------------------------------
// A name breaks behind its parts' signs ("quickstart/direct:best=4") before it does within a word.
static void name_text(Buf *out, const char *text, size_t size) {
    while (size > 0) {
        size_t n = 0;
        while (n < size && (!strchr("/:,", text[n]) || (n + 1 < size && text[n] == ',' && isdigit((unsigned char)text[n + 1])))) n++; // 1,000 is whole
        n += n < size;
        html_text(out, text, n);
        text += n, size -= n;
        if (size > 0) buf_puts(out, "<wbr>");
    }
}
static void cell(Buf *out, const Report *r, const json_t *value, const json_t *column, bool first) {
    const char *form = json_text_or(column, "form", "text");
    Buf words = {0}, aside = {0};
    cell_words(r, value, form, &words, &aside);
    buf_printf(out, first ? "<th scope=\"row\">" : "<td class=\"%s\" data-label=\"", strcmp(form, "text") ? "" : "words");
    if (!first) json_string_html(out, json_object_get(column, "name")), buf_puts(out, "\"><span>");
    if (first) name_text(out, words.data ? words.data : "", words.size);
    else html_text(out, words.data ? words.data : "", words.size);
    if (aside.size) {
        buf_puts(out, "<small>");
        html_text(out, aside.data, aside.size);
        buf_puts(out, "</small>");
    }
    buf_puts(out, first ? "</th>" : "</span></td>");
    buf_free(&words), buf_free(&aside);
}

static void table_head(Buf *out, const json_t *columns, const char *caption) {
    size_t i;
    json_t *column;
    buf_puts(out, "<table class=\"stack\"><caption>");
    html_string(out, caption);
    buf_puts(out, "</caption><thead><tr>");
    json_array_foreach(columns, i, column) {
        buf_printf(out, "<th scope=\"col\"%s>", strcmp(json_text_or(column, "form", ""), "text") ? "" : " class=\"words\"");
        name_text(out, json_text_or(column, "name", ""), strlen(json_text_or(column, "name", "")));
        buf_puts(out, "</th>");
    }
    buf_puts(out, "</tr></thead><tbody>\n");
}

// A row's note of tone: that of the last cell's verdict isn't known here, the words say it.
static void sheet(Buf *out, const Report *r, const json_t *block) {
    const json_t *columns = json_object_get(block, "columns"), *rows = json_object_get(block, "rows");
    bool folded = json_is_true(json_object_get(block, "folded")), total = json_is_true(json_object_get(block, "total"));
    size_t i, k;
    json_t *row, *value;
    buf_puts(out, folded ? "<details><summary>" : "<div class=\"card wide\"><h3>");
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, folded ? "</summary><div class=\"card wide\">" : "</h3>");
    buf_puts(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, "\">");
    table_head(out, columns, json_text_or(block, "title", ""));
    json_array_foreach(rows, i, row) {
        buf_puts(out, total && i + 1 == json_array_size(rows) ? "<tr class=\"all\">" : "<tr>");
        json_array_foreach(row, k, value) cell(out, r, value, json_array_get(columns, k), k == 0);
        buf_puts(out, "</tr>\n");
    }
    buf_puts(out, "</tbody></table></div>");
    if (json_is_string(json_object_get(block, "note"))) {
        buf_puts(out, "<p class=\"note\">");
        json_string_html(out, json_object_get(block, "note"));
        buf_puts(out, "</p>");
    }
    buf_puts(out, folded ? "</div></details>\n" : "</div>\n");
}

// ---- charts ----------------------------------------------------------------------------------------------
static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static const json_t *point_at(const json_t *line, double x) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(line, "points"), i, p) {
        if (json_number_value(json_array_get(p, 0)) == x) return p;
    }
    return NULL;
}

// All x that a line has a point at, ascending, at most so many of them, evenly.
static int chart_rows(const json_t *lines, double out[MOST_TABLE_ROWS]) {
    size_t i, k, count = 0;
    json_t *line, *p;
    json_array_foreach(lines, i, line) count += json_array_size(json_object_get(line, "points"));
    double *all = xcalloc(count + 1, sizeof *all);
    count = 0;
    json_array_foreach(lines, i, line) {
        json_array_foreach(json_object_get(line, "points"), k, p) all[count++] = json_number_value(json_array_get(p, 0));
    }
    qsort(all, count, sizeof *all, by_value);
    size_t unique = 0;
    for (i = 0; i < count; i++)
        if (i == 0 || all[i] != all[i - 1]) all[unique++] = all[i];
    int shown = unique < MOST_TABLE_ROWS ? (int)unique : MOST_TABLE_ROWS;
    for (int row = 0; row < shown; row++) out[row] = all[shown > 1 ? (size_t)row * (unique - 1) / (size_t)(shown - 1) : 0];
    free(all);
    return shown;
}

static void chart_table(Buf *out, const Report *r, const json_t *block) {
    const json_t *lines = json_object_get(block, "lines");
    const char *form = json_is_true(json_object_get(block, "percent")) ? "share" : "number";
    double x[MOST_TABLE_ROWS];
    int rows = chart_rows(lines, x);
    size_t i;
    json_t *line, *columns = json_array();
    json_array_append_new(columns, json_pack("{s:O,s:s}", "name", json_object_get(block, "x"), "form", "number"));
    json_array_foreach(lines, i, line) json_array_append_new(columns, json_pack("{s:O,s:s}", "name", json_object_get(line, "name"), "form", form));
    table_head(out, columns, json_text_or(block, "title", ""));
    for (int row = 0; row < rows; row++) {
        json_t *at = json_real(x[row]);
        buf_puts(out, "<tr>");
        cell(out, r, at, json_array_get(columns, 0), true);
        json_decref(at);
        json_array_foreach(lines, i, line) {
            const json_t *p = point_at(line, x[row]);
            json_t *value = !p ? json_null() : json_array_size(p) > 2 ? json_pack("{s:O,s:O,s:O}", "value", json_array_get(p, 1), "low", json_array_get(p, 2), "high", json_array_get(p, 3))
                                                                      : json_incref(json_array_get(p, 1));
            cell(out, r, value, json_array_get(columns, i + 1), false);
            json_decref(value);
        }
        buf_puts(out, "</tr>\n");
    }
    buf_puts(out, "</tbody></table>");
    json_decref(columns);
}

static void figure_head(Buf *out, const json_t *block, const char *class) {
    buf_printf(out, "<figure class=\"card chart %s\" id=\"chart-%s\"><figcaption><h3>", class, json_text_or(block, "id", ""));
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, "</h3></figcaption>");
}
static void canvas(Buf *out, const json_t *block) {
    buf_puts(out, "<div class=\"legend\"></div><div class=\"plot\"><canvas role=\"img\" aria-label=\"");
    json_string_html(out, json_object_get(block, "title"));
    buf_puts(out, "\"></canvas></div>");
}
static void figure_end(Buf *out, const json_t *block) {
    if (json_is_string(json_object_get(block, "note"))) {
        buf_puts(out, "<p class=\"note\">");
        json_string_html(out, json_object_get(block, "note"));
        buf_puts(out, "</p>");
    }
    buf_puts(out, "</figure>\n");
}

static void chart(Buf *out, const Report *r, const json_t *block) {
    figure_head(out, block, json_is_true(json_object_get(block, "wide")) ? "wide" : "");
    canvas(out, block);
    buf_puts(out, "<details class=\"as-table\"><summary>");
    said(out, r, "as a table");
    buf_puts(out, "</summary><div class=\"scroll\" tabindex=\"0\">");
    chart_table(out, r, block);
    buf_puts(out, "</div></details>");
    figure_end(out, block);
}

static void frontier_table(Buf *out, const Report *r, const json_t *view) {
    json_t *columns = json_pack("[{s:s,s:s},{s:O,s:s},{s:s,s:s},{s:s,s:s}]", "name", say(r, "arm"), "form", "text", "name", json_object_get(view, "cost"),
                                "form", "number", "name", say(r, "correct"), "form", "share", "name", say(r, "efficient"), "form", "text");
    size_t i;
    json_t *p;
    table_head(out, columns, say(r, "frontier"));
    json_array_foreach(json_object_get(view, "points"), i, p) {
        json_t *y = json_pack("{s:O,s:O,s:O}", "value", json_object_get(p, "y"), "low", json_object_get(p, "low"), "high", json_object_get(p, "high"));
        json_t *front = json_string(json_is_true(json_object_get(p, "front")) ? say(r, "yes") : "");
        const json_t *cells[] = {json_object_get(p, "name"), json_object_get(p, "x"), y, front};
        buf_puts(out, "<tr>");
        for (size_t k = 0; k < COUNT(cells); k++) cell(out, r, cells[k], json_array_get(columns, k), k == 0);
        buf_puts(out, "</tr>\n");
        json_decref(y), json_decref(front);
    }
    buf_puts(out, "</tbody></table>");
    json_decref(columns);
}

static void frontier(Buf *out, const Report *r, const json_t *block) {
    figure_head(out, block, "wide");
    buf_puts(out, "<form class=\"filters\" id=\"frontier-view\" hidden><label>");
    said(out, r, "cost in");
    buf_puts(out, " <select name=\"cost\"></select></label><label>");
    said(out, r, "items");
    buf_puts(out, " <select name=\"scope\"></select></label></form>");
    canvas(out, block);
    buf_puts(out, "<details class=\"as-table\"><summary>");
    said(out, r, "as a table");
    buf_puts(out, "</summary><div class=\"scroll\" tabindex=\"0\" id=\"frontier-table\">");
    frontier_table(out, r, json_array_get(json_object_get(block, "views"), 0));
    buf_puts(out, "</div></details>");
    figure_end(out, block);
}

// ---- samples ---------------------------------------------------------------------------------------------
static void samples_section(Buf *out, const Report *r) {
    buf_puts(out, "<section id=\"samples\" aria-labelledby=\"h-samples\"><h2 id=\"h-samples\">");
    said(out, r, "what it wrote");
    buf_puts(out, "</h2>\n<p class=\"note\">");
    said(out, r, "samples note");
    buf_puts(out, "</p>\n<noscript><p>");
    said(out, r, "samples need a script");
    buf_puts(out, "</p></noscript>\n<div id=\"browser\" hidden></div></section>\n");
}

// A JSON document that nothing inside it can end.
static void data_block(Buf *out, const char *id, const char *text, size_t size) {
    buf_printf(out, "<script type=\"application/json\" id=\"%s\">", id);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '<' || text[i] == '>' || text[i] == '&') buf_printf(out, "\\u%04x", text[i]);
        else buf_append(out, text + i, 1);
    }
    buf_puts(out, "</script>\n");
}

static void chart_data(Buf *out, const Report *r) {
    json_t *charts = json_object(), *words = json_object(), *section, *block;
    size_t i, k;
    json_array_foreach(r->sections, i, section) {
        json_array_foreach(json_object_get(section, "blocks"), k, block) {
            const char *kind = json_text_or(block, "kind", "");
            if (!strcmp(kind, "chart") || !strcmp(kind, "frontier")) json_object_set(charts, json_text_or(block, "id", ""), block);
        }
    }
    for (const Word *w = report_words; w->key; w++) json_object_set_new(words, w->key, json_string(r->korean ? w->korean : w->english));
    json_t *all = json_pack("{s:o,s:o}", "charts", charts, "words", words);
    Buf text = {0};
    json_write(all, &text);
    data_block(out, "data", text.data, text.size);
    buf_free(&text);
    json_decref(all);
}

// ---- the page --------------------------------------------------------------------------------------------
static void block_html(Buf *out, const Report *r, const json_t *block, bool *in_charts) {
    const char *kind = json_text_or(block, "kind", "");
    bool small = !strcmp(kind, "chart") && !json_is_true(json_object_get(block, "wide"));
    if (small != *in_charts) buf_puts(out, small ? "<div class=\"charts\">\n" : "</div>\n");
    *in_charts = small;
    if (!strcmp(kind, "headline")) headline(out, block);
    else if (!strcmp(kind, "list")) list(out, block);
    else if (!strcmp(kind, "sheet")) sheet(out, r, block);
    else if (!strcmp(kind, "chart")) chart(out, r, block);
    else if (!strcmp(kind, "frontier")) frontier(out, r, block);
    else if (!strcmp(kind, "facts")) facts(out, block);
    else if (!strcmp(kind, "source")) source(out, block);
    else if (!strcmp(kind, "paragraph")) buf_puts(out, "<p class=\"note\">"), json_string_html(out, json_object_get(block, "text")), buf_puts(out, "</p>\n");
}

static void section_html(Buf *out, const Report *r, const json_t *section) {
    const char *id = json_text_or(section, "id", "");
    size_t i;
    json_t *block;
    bool in_charts = false;
    buf_printf(out, "<section id=\"%s\" aria-labelledby=\"h-%s\"><h2 id=\"h-%s\">", id, id, id);
    json_string_html(out, json_object_get(section, "title"));
    buf_puts(out, "</h2>\n");
    if (json_is_string(json_object_get(section, "note"))) {
        buf_puts(out, "<p class=\"note\">");
        json_string_html(out, json_object_get(section, "note"));
        buf_puts(out, "</p>\n");
    }
    json_array_foreach(json_object_get(section, "blocks"), i, block) block_html(out, r, block, &in_charts);
    buf_puts(out, in_charts ? "</div></section>\n" : "</section>\n");
}

bool report_html(const Report *r, const SampleBlocks *samples, Buf *out, Err *err) {
    const EmbeddedFile *style = NULL, *chart_script = NULL, *script = NULL;
    TRY(embedded("report.css", &style, err) && embedded("chart.min.js", &chart_script, err) && embedded("report.js", &script, err));
    size_t i;
    json_t *section;
    page_head(out, r, style, chart_script, script);
    navigation(out, r, samples);
    json_array_foreach(r->sections, i, section) {
        if (samples_before(r, section, samples)) samples_section(out, r);
        section_html(out, r, section);
    }
    buf_puts(out, "</main>\n<footer>");
    json_t *written = r->ledger ? say_with(r, "written from a ledger", "version", RECKON_VERSION, "head", r->head, NULL)
                                : say_with(r, "written from a comparison", "version", RECKON_VERSION, NULL);
    json_string_html(out, written);
    json_decref(written);
    buf_puts(out, "</footer></div>\n");
    chart_data(out, r);
    // The sample texts stand last: the page is shown before they are read.
    buf_puts(out, "<script>");
    buf_append(out, chart_script->data, chart_script->size);
    buf_puts(out, "</script>\n<script>");
    buf_append(out, script->data, script->size);
    buf_puts(out, "</script>\n");
    if (samples->count) data_block(out, "samples-index", samples->index.data, samples->index.size);
    for (int b = 0; b < samples->count; b++) {
        char id[32];
        snprintf(id, sizeof id, "samples-%d", b);
        data_block(out, id, samples->blocks[b].data, samples->blocks[b].size);
    }
    buf_puts(out, "</body></html>\n");
    return true;
}
