// The parts of a run's page. Each appends to one buffer; text that a model, a data set or a recipe wrote goes through
// html_text and nothing else, so that it can only ever be text.
#ifndef RECKON_REPORT_H
#define RECKON_REPORT_H
#include <math.h>

#include "accounts.h"
#include "ledger_rows.h"

// ---- report_text.c ---------------------------------------------------------------------------------------
// Any bytes as HTML text or attribute: markup escaped; invalid UTF-8 becomes U+FFFD; control characters, line and
// paragraph separators and bidirectional controls become visible and lose their effect.
void html_text(Buf *out, const char *data, size_t size);
void html_string(Buf *out, const char *text); // NULL: nothing
void html_number(Buf *out, double x);         // 3 to 4 digits, thousands apart; an em dash for NaN
void html_percent(Buf *out, double share);    // 0.875: "87.5 %"
void html_seconds(Buf *out, double seconds);  // "4 min 10 s"
void html_scaled(Buf *out, double x);         // 3.4e12: "3.4 T"
// A JSON value as text: strings bare, the rest compact.
void html_json(Buf *out, const json_t *value);

double json_real_or_nan(const json_t *object, const char *key);
const char *json_text_or(const json_t *object, const char *key, const char *otherwise);

// ---- report_chart.c --------------------------------------------------------------------------------------
typedef struct Line {
    const char *name;
    const char *ink;       // of the style sheet: "0" to "7", "think", "direct" (with a hyphen: "-think")
    const double *x, *y;   // [count], NaN where there is no point
    const double *low, *high; // [count] intervals, or NULL
    int count;
    bool points;           // few, each shown; otherwise a noisy curve, drawn with its moving mean
} Line;
typedef struct Mark {
    double x;
    const char *name;
} Mark;
typedef struct Chart {
    const char *title;   // trusted text
    const char *x_label; // trusted text
    bool percent;        // y are shares, the axis says %
    double y_low, y_high; // NaN: from the data
    bool x_from_zero;
    const Line *lines;
    int line_count;
    const Mark *marks;   // vertical lines, names are escaped
    int mark_count;
} Chart;
// One card with title, legend and an SVG of that many units; nothing if no line has two points.
void chart_card(Buf *out, const Chart *c, int width, int height);
// The SVG of accuracy against tokens: for each level a point for each mode, joined, with intervals.
typedef struct ScatterPoint {
    const char *label; // escaped
    double x[MODES], y[MODES], low[MODES], high[MODES];
} ScatterPoint;
void chart_scatter(Buf *out, const ScatterPoint *points, int count, int width, int height);
// Two intervals on one line from 0 to 100 %.
void chart_interval(Buf *out, const double y[MODES], const double low[MODES], const double high[MODES]);

// ---- the sections ----------------------------------------------------------------------------------------
bool report_verdicts(Buf *out, const Ledger *l, Err *err) MUST_CHECK; // report_compare.c: sentences, table, chart
bool report_curves(Buf *out, const Ledger *l, const json_t *recipe, Err *err) MUST_CHECK; // report_curves.c
bool report_samples(Buf *out, const Ledger *l, Err *err) MUST_CHECK; // report_samples.c

#endif
