// Charts of the page as SVG, drawn here so that the page needs no script and no library to show them. Colours and
// strokes are classes of the style sheet; only geometry is written as attributes (the page's policy forbids inline style).
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DRAWN = 280, SMOOTHED_FROM = 40 };

typedef struct Axes {
    double x_low, x_high, y_low, y_high, y_step; // in data
    double left, top, right, bottom;             // in units
    bool percent;
} Axes;

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
static double at_x(const Axes *a, double x) {
    return a->left + (a->right - a->left) * clamp((x - a->x_low) / (a->x_high - a->x_low), 0, 1);
}
static double at_y(const Axes *a, double y) {
    return a->bottom - (a->bottom - a->top) * clamp((y - a->y_low) / (a->y_high - a->y_low), 0, 1);
}

// 1, 2 or 5 times a power of ten, at least x.
static double nice_step(double x) {
    double power = pow(10, floor(log10(x))), m = x / power;
    return (m <= 1.0000001 ? 1 : m <= 2.0000001 ? 2 : m <= 5.0000001 ? 5 : 10) * power;
}
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The range of the values, without the outermost hundredths where there are many (a spike must not flatten a curve).
static bool value_range(const Chart *c, double *low, double *high) {
    int capacity = 0, n = 0;
    for (int i = 0; i < c->line_count; i++) capacity += 3 * c->lines[i].count;
    double *values = xcalloc((size_t)capacity + 1, sizeof *values);
    for (int i = 0; i < c->line_count; i++) {
        const Line *l = &c->lines[i];
        for (int k = 0; k < l->count; k++) {
            if (!isfinite(l->y[k])) continue;
            values[n++] = l->y[k];
            if (l->low && isfinite(l->low[k]) && isfinite(l->high[k])) values[n++] = l->low[k], values[n++] = l->high[k];
        }
    }
    qsort(values, (size_t)n, sizeof *values, ascending);
    int cut = n > 60 ? n / 100 : 0;
    if (n) *low = values[cut], *high = values[n - 1 - cut];
    free(values);
    return n > 1;
}

static bool set_axes(const Chart *c, int width, int height, Axes *a) {
    double low, high;
    *a = (Axes){.x_low = INFINITY, .x_high = -INFINITY, .left = 46, .top = 14, .right = width - 10, .bottom = height - 34,
                .percent = c->percent};
    if (!value_range(c, &low, &high)) return false;
    for (int i = 0; i < c->line_count; i++)
        for (int k = 0; k < c->lines[i].count; k++) {
            if (!isfinite(c->lines[i].y[k])) continue;
            a->x_low = fmin(a->x_low, c->lines[i].x[k]), a->x_high = fmax(a->x_high, c->lines[i].x[k]);
        }
    if (c->x_from_zero) a->x_low = 0;
    if (!(a->x_high > a->x_low)) return false;
    if (!isnan(c->y_low)) low = c->y_low;
    else if (low > 0 && low < 0.5 * high) low = 0;
    if (!isnan(c->y_high)) high = c->y_high;
    if (!(high > low)) low -= fabs(low) * 0.1 + 0.01, high += fabs(high) * 0.1 + 0.01;
    a->y_step = nice_step((high - low) / 4.5);
    a->y_low = floor(low / a->y_step + 1e-9) * a->y_step, a->y_high = ceil(high / a->y_step - 1e-9) * a->y_step;
    return isfinite(a->y_low) && isfinite(a->y_high) && a->y_high > a->y_low;
}

static void tick_label(Buf *out, double v, double step, bool percent) {
    if (fabs(v) < 1e-9 * step) v = 0;
    if (percent) buf_printf(out, "%.4g%%", 100 * v);
    else if (fabs(v) >= 1e4 || step >= 1e4) html_scaled(out, v);
    else if (v != 0 && fabs(v) < 1e-3) buf_printf(out, "%.0e", v);
    else buf_printf(out, "%.4g", v);
}

static void draw_axes(Buf *out, const Axes *a, const char *x_label) {
    for (int i = 0; i <= 20; i++) {
        double v = a->y_low + i * a->y_step, y = at_y(a, v);
        if (v > a->y_high + 0.5 * a->y_step) break;
        buf_printf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", i ? "grid" : "axis", a->left, a->right, y, y);
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", a->left - 7, y + 4);
        tick_label(out, v, a->y_step, a->percent);
        buf_puts(out, "</text>");
    }
    double step = nice_step((a->x_high - a->x_low) / ((a->right - a->left) / 62));
    if (step < 1 && a->x_high - a->x_low >= 2) step = 1;
    for (double v = ceil(a->x_low / step) * step; v <= a->x_high + 1e-9 * step; v += step) {
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", at_x(a, v), a->bottom + 16);
        tick_label(out, v, step, false);
        buf_puts(out, "</text>");
    }
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", a->right, a->bottom + 31, x_label);
}

// The beginning of each stage inside the range, and the name of the one that the range begins in; a chart that shows
// one stage only needs neither.
static void draw_marks(Buf *out, const Axes *a, const Chart *c) {
    int first = 0, shown = 0;
    for (int i = 0; i < c->mark_count; i++)
        if (c->marks[i].x <= a->x_low) first = i;
    for (int i = first; i < c->mark_count; i++) shown += c->marks[i].x <= a->x_high;
    for (int i = first; shown > 1 && i < c->mark_count && c->marks[i].x <= a->x_high; i++) {
        double x = at_x(a, c->marks[i].x);
        bool end = x > a->right - 60;
        if (c->marks[i].x > a->x_low)
            buf_printf(out, "<line class=\"stage\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", x, x, a->top - 8, a->bottom);
        buf_printf(out, "<text class=\"stage-name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x + (end ? -4 : 4), a->top - 3, end ? "end" : "start");
        html_string(out, c->marks[i].name);
        buf_puts(out, "</text>");
    }
}

// A polyline through the finite points, broken where one is missing.
static void draw_path(Buf *out, const Axes *a, const char *class, const char *ink, const double *x, const double *y, int count) {
    bool pen = false;
    buf_printf(out, "<path class=\"%s s%s\" d=\"", class, ink);
    for (int i = 0; i < count; i++) {
        if (!isfinite(y[i])) {
            pen = false;
            continue;
        }
        buf_printf(out, "%s%.1f %.1f", pen ? "L" : "M", at_x(a, x[i]), at_y(a, y[i]));
        pen = true;
    }
    buf_puts(out, "\"/>");
}

// Means over bins, so that a page stays small whatever the number of steps; then a moving mean over them.
static void draw_curve(Buf *out, const Axes *a, const Line *l) {
    int bin = (l->count + MAX_DRAWN - 1) / MAX_DRAWN, n = 0;
    double *x = xcalloc(3 * (size_t)l->count + 1, sizeof *x), *y = x + l->count, *mean = y + l->count;
    for (int i = 0; i < l->count; i += bin) {
        double sum = 0, at = 0;
        int found = 0;
        for (int k = i; k < i + bin && k < l->count; k++)
            if (isfinite(l->y[k])) sum += l->y[k], at += l->x[k], found++;
        if (found) x[n] = at / found, y[n++] = sum / found;
    }
    int half = n / 24;
    for (int i = 0; i < n; i++) {
        int reach = half < i ? half : i;
        if (n - 1 - i < reach) reach = n - 1 - i;
        double sum = 0;
        for (int k = i - reach; k <= i + reach; k++) sum += y[k];
        mean[i] = sum / (2 * reach + 1);
    }
    bool smooth = n >= SMOOTHED_FROM;
    if (smooth) draw_path(out, a, "raw", l->ink, x, y, n);
    draw_path(out, a, "series", l->ink, x, smooth ? mean : y, n);
    free(x);
}

static void draw_points(Buf *out, const Axes *a, const Line *l) {
    draw_path(out, a, "series", l->ink, l->x, l->y, l->count);
    for (int i = 0; i < l->count; i++) {
        if (!isfinite(l->y[i])) continue;
        double x = at_x(a, l->x[i]), y = at_y(a, l->y[i]);
        if (l->low && isfinite(l->low[i]) && isfinite(l->high[i]))
            buf_printf(out, "<line class=\"whisker s%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", l->ink, x, x,
                       at_y(a, l->low[i]), at_y(a, l->high[i]));
        buf_printf(out, "<circle class=\"f%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", l->ink, x, y);
        html_string(out, l->name);
        buf_printf(out, ", %.6g: ", l->x[i]);
        if (a->percent) html_percent(out, l->y[i]);
        else html_number(out, l->y[i]);
        buf_puts(out, "</title></circle>");
    }
}

static void legend(Buf *out, const Line *lines, int count) {
    buf_puts(out, "<div class=\"legend\">");
    for (int i = 0; i < count; i++) {
        buf_printf(out, "<span><svg viewBox=\"0 0 14 10\" aria-hidden=\"true\"><line class=\"series s%s\" x1=\"1\" x2=\"13\" y1=\"5\" y2=\"5\"/></svg>",
                   lines[i].ink);
        html_string(out, lines[i].name);
        buf_puts(out, "</span>");
    }
    buf_puts(out, "</div>");
}

void chart_card(Buf *out, const Chart *c, int width, int height) {
    Axes a;
    if (!set_axes(c, width, height, &a)) return;
    buf_printf(out, "<figure class=\"card\"><h3>%s</h3>", c->title);
    if (c->line_count > 1) legend(out, c->lines, c->line_count);
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">", width, height, c->title);
    draw_axes(out, &a, c->x_label);
    draw_marks(out, &a, c);
    for (int i = 0; i < c->line_count; i++) {
        if (c->lines[i].points) draw_points(out, &a, &c->lines[i]);
        else draw_curve(out, &a, &c->lines[i]);
    }
    buf_puts(out, "</svg></figure>\n");
}

// ---- accuracy against tokens -----------------------------------------------------------------------------
static const char *const mode_ink[MODES] = {"-think", "-direct"};

// Labels of points that lie close together would cover each other: each takes the first free row above its point.
static void draw_label(Buf *out, const char *label, double x, double y, double (*taken)[2], int *count, const Axes *a) {
    double at = y - 9;
    for (int tries = 0; tries < 8; tries++) {
        bool free_here = at > a->top;
        for (int i = 0; i < *count; i++) free_here &= fabs(taken[i][0] - x) > 46 || fabs(taken[i][1] - at) > 12;
        if (free_here) break;
        at = tries % 2 ? y - 9 - 13 * (tries / 2 + 1) : y + 18 + 13 * (tries / 2);
    }
    taken[*count][0] = x, taken[*count][1] = at, ++*count;
    buf_printf(out, "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x + (x > a->right - 30 ? 4 : 7), at, x > a->right - 30 ? "end" : "start");
    html_string(out, label);
    buf_puts(out, "</text>");
}

void chart_scatter(Buf *out, const ScatterPoint *p, int count, int width, int height) {
    double x_high = 0;
    for (int i = 0; i < count; i++)
        for (int m = 0; m < MODES; m++) x_high = isfinite(p[i].x[m]) ? fmax(x_high, p[i].x[m]) : x_high;
    if (!(x_high > 0) || count == 0) return;
    Axes a = {.x_high = x_high * 1.08, .y_high = 1, .y_step = 0.2, .left = 46, .top = 14, .right = width - 10, .bottom = height - 34, .percent = true};
    double(*taken)[2] = xcalloc((size_t)count * MODES + 1, sizeof *taken);
    int labels = 0;
    buf_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Accuracy against tokens\">", width, height);
    draw_axes(out, &a, "new tokens an answer");
    for (int i = 0; i < count; i++)
        if (isfinite(p[i].x[0]) && isfinite(p[i].x[1]) && isfinite(p[i].y[0]) && isfinite(p[i].y[1]))
            buf_printf(out, "<line class=\"link\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", at_x(&a, p[i].x[0]), at_y(&a, p[i].y[0]),
                       at_x(&a, p[i].x[1]), at_y(&a, p[i].y[1]));
    for (int m = 0; m < MODES; m++)
        for (int i = 0; i < count; i++) {
            if (!isfinite(p[i].x[m]) || !isfinite(p[i].y[m])) continue;
            double x = at_x(&a, p[i].x[m]), y = at_y(&a, p[i].y[m]);
            buf_printf(out, "<line class=\"whisker s%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", mode_ink[m], x, x,
                       at_y(&a, p[i].low[m]), at_y(&a, p[i].high[m]));
            buf_printf(out, "<circle class=\"f%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"><title>", mode_ink[m], x, y);
            html_string(out, p[i].label);
            buf_printf(out, ", %s: ", m == MODE_THINK ? "think" : "direct");
            html_percent(out, p[i].y[m]);
            buf_printf(out, " at %.4g tokens</title></circle>", p[i].x[m]);
            draw_label(out, p[i].label, x, y, taken, &labels, &a);
        }
    buf_puts(out, "</svg>");
    free(taken);
}

void chart_interval(Buf *out, const double y[MODES], const double low[MODES], const double high[MODES]) {
    buf_puts(out, "<svg class=\"interval\" viewBox=\"0 0 170 24\" aria-hidden=\"true\"><line class=\"axis\" x1=\"4\" x2=\"166\" y1=\"23\" y2=\"23\"/>");
    for (int i = 0; i <= 4; i++) buf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"23\"/>", 4 + 40.5 * i, 4 + 40.5 * i);
    for (int m = 0; m < MODES; m++) {
        if (!isfinite(y[m]) || !isfinite(low[m]) || !isfinite(high[m])) continue;
        double row = m == MODE_THINK ? 7 : 16, x[3] = {low[m], y[m], high[m]};
        for (int i = 0; i < 3; i++) x[i] = 4 + 162 * clamp(x[i], 0, 1);
        buf_printf(out, "<line class=\"whisker s%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/><circle class=\"f%s\" cx=\"%.1f\" cy=\"%.0f\" r=\"3.5\"/>",
                   mode_ink[m], x[0], x[2], row, row, mode_ink[m], x[1], row);
    }
    buf_puts(out, "</svg>");
}
