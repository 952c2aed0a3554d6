// The report: from a run's ledger, a comparison, or both, one document of titled blocks; from the document a page, Markdown,
// CSV, JSON or the picture of the frontier. So every format shows the same numbers. Text that a model, a data set or a recipe
// wrote enters the document through text_visible, and a page through html_text besides, so that it can only ever be text.
//
//   {"format": "reckon report 1", "language": "en", "name", "sections": [{"id", "title", "note" | null, "blocks": [BLOCK]}]}
//   BLOCK: {"kind": "headline", "text", "tone": "think" | "direct" | "", "lines": [text], "tiles": [{"name", "text", "note"}]}
//          {"kind": "list", "items": [{"name", "tone", "text"}]}
//          {"kind": "sheet", "id", "title", "columns": [{"key", "name", "form"}], "rows": [[CELL]], "note" | null}
//          {"kind": "chart", "id", "title", "x", "percent", "log", "lines": [{"name", "ink", "points": [[x, y, low, high]]}], "marks"}
//          {"kind": "frontier", "id", "title", "views": [{"scope", "cost", "points": [{"name", "tone", "x", "y", "low", "high", "front"}]}]}
//          {"kind": "facts", "title", "facts": [[name, text]]}   {"kind": "source", "title", "text"}
//          {"kind": "paragraph", "text"}   {"kind": "samples"}
//   CELL:  text | number | null | {"value", "low", "high"} | {"value", "source"}
#ifndef RECKON_REPORT_H
#define RECKON_REPORT_H
#include <math.h>

#include "accounts.h"
#include "ledger_rows.h"

typedef struct Report {
    const char *source;  // as given
    bool korean;
    int most_samples;
    char *name;          // visible text
    Ledger *ledger;      // NULL: a comparison alone
    json_t *comparison;  // {"replayable", "measured", "samples"}, or NULL
    json_t *recipe, *cost, *facts, *machine; // of a run; NULL or empty otherwise
    int64_t step;
    char head[65];
    Tokenizer *tokenizer; // of the run's newest checkpoint, to cut completions into tokens; NULL: texts stay whole
    json_t *sections;    // what is shown
} Report;

// ---- report_words.c: the one table of strings ------------------------------------------------------------
typedef struct Word {
    const char *key, *english, *korean;
} Word;
extern const Word report_words[]; // ends with a row without a key
const char *say(const Report *r, const char *key);
// The string with {names} replaced: pairs of name and text, then NULL.
json_t *note_said(const Report *r, const char *note);
json_t *say_with(const Report *r, const char *key, ...) __attribute__((sentinel));

// ---- report_text.c: numbers and foreign text as plain text ------------------------------------------------
void text_visible(Buf *out, const char *data, size_t size);
void html_text(Buf *out, const char *data, size_t size);
void html_string(Buf *out, const char *text); // NULL: nothing
void text_number(Buf *out, double x);         // 3 to 4 digits, thousands apart; a dash for NaN
void text_percent(Buf *out, double share);    // 0.875: "87.5 %"
void text_chance(Buf *out, double p); // of a test
void text_points(Buf *out, double share);     // 0.042: "+4.2"
void text_seconds(Buf *out, double seconds, bool korean); // "4 min 10 s"
void text_scaled(Buf *out, double x);         // 3.4e12: "3.4 T"
void text_json(Buf *out, const json_t *value); // a string bare, anything else compact; visible
json_t *visible_json(const char *text, size_t size);
json_t *visible_string(const char *text); // NULL: null
char *share_text(double share, char out[40]);
char *points_text(double share, char out[40]);
char *number_text(double x, char out[40]);
double json_real_or_nan(const json_t *object, const char *key);
const char *json_text_or(const json_t *object, const char *key, const char *otherwise);

// ---- report_document.c: making blocks --------------------------------------------------------------------
json_t *section_add(Report *r, const char *id, const char *title_key, const char *note_key); // its blocks, borrowed
json_t *block_add(json_t *blocks, const char *kind); // borrowed
void paragraph_add(json_t *blocks, json_t *text);    // takes the text
json_t *sheet_add(json_t *blocks, const char *id, const char *title); // borrowed
void sheet_column(json_t *sheet, const char *key, const char *name, const char *form);
json_t *sheet_row(json_t *sheet);                    // borrowed; cells are appended
void cell_text(json_t *row, const char *text);       // made visible
void cell_number(json_t *row, double x);
void cell_interval(json_t *row, double x, double low, double high);
void cell_figure(json_t *row, const json_t *figure); // {"value", "source"} of cost.c
json_t *chart_add(json_t *blocks, const char *id, const char *title, const char *x); // borrowed
json_t *chart_line(json_t *chart, const char *name, const char *ink);                // its points, borrowed
void chart_point(json_t *points, double x, double y, double low, double high);       // low NaN: no interval
// How a cell reads: its value in the column's form, then its interval or source apart.
void cell_words(const Report *r, const json_t *cell, const char *form, Buf *value, Buf *aside);

// ---- the sections, in the page's order --------------------------------------------------------------------
bool report_verdict(Report *r, Err *err) MUST_CHECK;  // report_verdict.c
void report_frontier(Report *r);                      // report_frontier.c: accuracy against cost
void report_levels(Report *r);                        // report_levels.c: by kind and level, budgets, routers
bool report_curves(Report *r, Err *err) MUST_CHECK;   // report_curves.c
void report_cost(Report *r);                          // report_cost.c
bool report_run(Report *r, Err *err) MUST_CHECK;      // report_run.c

// Blocks of samples for the page, each one JSON text: an index of all, then the texts (report_samples.c).
typedef struct SampleBlocks {
    Buf index;
    Buf *blocks; // [count]
    int count;
} SampleBlocks;
bool report_samples(Report *r, SampleBlocks *out, Err *err) MUST_CHECK;
void sample_blocks_free(SampleBlocks *b);

// ---- writers ---------------------------------------------------------------------------------------------
bool report_html(const Report *r, const SampleBlocks *samples, Buf *out, Err *err) MUST_CHECK; // report_html.c
void report_markdown(const Report *r, Buf *out);      // report_plain.c
void report_csv(const Report *r, Buf *out);           // report_plain.c
void report_svg(const Report *r, Buf *out);           // report_svg.c; empty where there is no frontier

#endif
