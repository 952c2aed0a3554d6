// The frontier as one SVG, to be put into a document: the first view of the report's frontier block. Its text is text, its colours
// follow the reader's dark or light setting.
#include "report.h"
#include <stdio.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 440, LEFT = 62, RIGHT = 24, TOP = 46, BOTTOM = 56, MOST_LABELS = 200 };

typedef struct Axis {
    double low, high;
    bool log;
} Axis;
static double at_x(const Axis *a, double x) {
    double share = a->log ? log(x / a->low) / log(a->high / a->low) : (x - a->low) / (a->high - a->low);
    return LEFT + share * (WIDTH - LEFT - RIGHT);
}
static double at_y(double y) { return HEIGHT - BOTTOM - fmin(fmax(y, 0), 1) * (HEIGHT - TOP - BOTTOM); }

// 1, 2 or 5 times a power of ten, at least x.
static double nice_step(double x) {
    double power = pow(10, floor(log10(x))), m = x / power;
    return (m <= 1.0000001 ? 1 : m <= 2.0000001 ? 2 : m <= 5.0000001 ? 5 : 10) * power;
}

static double real(const json_t *p, const char *key) { return json_real_or_nan(p, key); }

static bool set_axis(const json_t *points, Axis *a) {
    size_t i;
    json_t *p;
    *a = (Axis){INFINITY, 0, false};
    json_array_foreach(points, i, p) a->low = fmin(a->low, real(p, "x")), a->high = fmax(a->high, real(p, "x"));
    if (!(a->low > 0 && isfinite(a->high))) return false;
    a->log = a->high > 8 * a->low;
    if (a->log) a->low /= 1.5, a->high *= 1.5;
    else a->low = 0, a->high *= 1.15;
    return true;
}

static void text_at(Buf *out, double x, double y, const char *anchor, const char *class, const char *text) {
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, class);
    html_string(out, text);
    buf_puts(out, "</text>\n");
}

static void tick(Buf *out, const Axis *a, double v) {
    char label[40];
    Buf b = {0};
    if (v < a->low * 0.999999 || v > a->high) return;
    text_scaled(&b, v);
    snprintf(label, sizeof label, "%s", b.data);
    buf_free(&b);
    buf_printf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", at_x(a, v), at_x(a, v), TOP, HEIGHT - BOTTOM);
    text_at(out, at_x(a, v), HEIGHT - BOTTOM + 18, "middle", "", label);
}
static void axes(Buf *out, const Axis *a, const char *label) {
    for (int i = 0; i <= 5; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d%%", 20 * i);
        buf_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, WIDTH - RIGHT, at_y(0.2 * i), at_y(0.2 * i));
        text_at(out, LEFT - 8, at_y(0.2 * i) + 4, "end", "", text);
    }
    if (a->log) {
        static const double of[] = {1, 2, 5};
        double decade = pow(10, floor(log10(a->low)));
        for (int k = 0; k < 60 && decade <= a->high; k++, decade *= 10)
            for (int i = 0; i < COUNT(of); i++) tick(out, a, of[i] * decade);
    } else {
        double step = nice_step(a->high / 6);
        for (int k = 0; k <= 12; k++) tick(out, a, k * step);
    }
    text_at(out, WIDTH - RIGHT, HEIGHT - 14, "end", "", label);
}

// A label takes the first free row near its point, so that none covers another.
static void label(Buf *out, const Axis *a, const json_t *p, double (*taken)[2], int *count) {
    double x = at_x(a, real(p, "x")), y = at_y(real(p, "y")), at = y - 10;
    bool end = x > WIDTH - RIGHT - 120;
    for (int tries = 0; tries < 10; tries++) {
        bool open = at > TOP - 4 && at < HEIGHT - BOTTOM - 2;
        for (int i = 0; i < *count; i++) open &= fabs(taken[i][0] - x) > 90 || fabs(taken[i][1] - at) > 13;
        if (open) break;
        at = tries % 2 ? y - 10 - 14 * (tries / 2 + 1) : y + 19 + 14 * (tries / 2);
    }
    if (*count < MOST_LABELS) taken[*count][0] = x, taken[*count][1] = at, ++*count;
    text_at(out, x + (end ? -8 : 8), at, end ? "end" : "start", "label", json_text_or(p, "name", ""));
}

static void draw(Buf *out, const Axis *a, const json_t *points) {
    double taken[MOST_LABELS][2];
    int labels = 0;
    size_t i;
    json_t *p;
    bool pen = false;
    double last = 0;
    buf_puts(out, "<path class=\"front\" d=\"");
    for (size_t drawn = 0; drawn < json_array_size(points); drawn++) { // by cost, ascending
        const json_t *next = NULL;
        json_array_foreach(points, i, p) {
            bool later = !pen || real(p, "x") > last;
            if (json_is_true(json_object_get(p, "front")) && later && (!next || real(p, "x") < real(next, "x"))) next = p;
        }
        if (!next) break;
        buf_printf(out, "%s%.1f %.1f", pen ? "L" : "M", at_x(a, real(next, "x")), at_y(real(next, "y")));
        pen = true, last = real(next, "x");
    }
    buf_puts(out, "\"/>\n");
    json_array_foreach(points, i, p) {
        double x = at_x(a, real(p, "x")), y = at_y(real(p, "y")), low = real(p, "low"), high = real(p, "high");
        const char *tone = json_text_or(p, "tone", "");
        if (isfinite(low) && isfinite(high))
            buf_printf(out, "<line class=\"whisker %s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", tone, x, x, at_y(low), at_y(high));
        buf_printf(out, "<circle class=\"%s%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", tone, json_is_true(json_object_get(p, "front")) ? "" : " off", x, y);
        label(out, a, p, taken, &labels);
    }
}

static const json_t *frontier_of(const Report *r) {
    size_t i, k;
    json_t *section, *block;
    json_array_foreach(r->sections, i, section) {
        json_array_foreach(json_object_get(section, "blocks"), k, block) {
            if (!strcmp(json_text_or(block, "kind", ""), "frontier")) return block;
        }
    }
    return NULL;
}

void report_svg(const Report *r, Buf *out) {
    const json_t *block = frontier_of(r), *view = json_array_get(json_object_get(block, "views"), 0), *points = json_object_get(view, "points");
    Axis a;
    if (!points || !set_axis(points, &a)) return;
    buf_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">", WIDTH, HEIGHT);
    html_string(out, r->name), buf_puts(out, ": "), html_string(out, json_text_or(block, "title", ""));
    buf_puts(out, "</title>\n<style>\n"
                  "svg{--ground:#fff;--ink:#1b1c22;--soft:#5c5f6b;--grid:#e8e6e1;--think:#4a48c9;--direct:#c2560b;--other:#10734a}\n"
                  "@media (prefers-color-scheme:dark){svg{--ground:#131419;--ink:#ececf1;--soft:#a6a9b6;--grid:#2d3039;--think:#a3a2ff;--direct:#ffa566;--other:#6fd6a4}}\n"
                  "text{font:13px system-ui,sans-serif;fill:var(--soft)}.label{fill:var(--ink)}.title{font-weight:600;font-size:15px;fill:var(--ink)}\n"
                  ".ground{fill:var(--ground)}.grid{stroke:var(--grid)}.front{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}\n"
                  "circle{fill:var(--other)}circle.think{fill:var(--think)}circle.direct{fill:var(--direct)}circle.off{fill-opacity:.45}\n"
                  ".whisker{stroke:var(--other);stroke-width:1.5}.whisker.think{stroke:var(--think)}.whisker.direct{stroke:var(--direct)}\n</style>\n");
    buf_printf(out, "<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n", WIDTH, HEIGHT);
    text_at(out, LEFT, 24, "start", "title", json_text_or(block, "title", ""));
    axes(out, &a, json_text_or(view, "cost", ""));
    draw(out, &a, points);
    buf_puts(out, "</svg>\n");
}
