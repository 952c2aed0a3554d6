// Draws what watch_read found as text of a given width and height: a head line, panels in columns, the newest samples. One curve
// of a panel is drawn in braille, four rows of dots to a line; several are a line each, in eighths of a block. Without Unicode both
// become ASCII. Text of the ledger is the model's own and hostile: control characters, invisible and direction-changing ones become
// '?', and no line is wider than the frame.
#include "watch.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct Canvas {
    const WatchFrame *f;
    Buf *out;
} Canvas;

// ---- text ------------------------------------------------------------------------------------------------
static bool is_plain(utf8proc_int32_t c) {
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    default: return true;
    }
}
// Appends at most `width` columns of `text`; returns how many. A line break shows as a space.
static int put_text(const Canvas *c, const char *text, int width) {
    int used = 0;
    for (const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text; *p;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t n = utf8proc_iterate(p, -1, &point);
        bool shown = n > 0 && is_plain(point) && (c->f->unicode || point < 0x80);
        int wide = shown ? utf8proc_charwidth(point) : 1;
        if (used + wide > width) break;
        if (shown) buf_append(c->out, p, (size_t)n);
        else buf_puts(c->out, *p == '\n' || *p == '\t' ? " " : "?");
        used += wide, p += n > 0 ? n : 1;
    }
    return used;
}
static void pad(const Canvas *c, int count) {
    for (int i = 0; i < count; i++) buf_puts(c->out, " ");
}
static void ink(const Canvas *c, const char *code) {
    if (c->f->color) buf_printf(c->out, "\033[%sm", code);
}
static void put_number(char *out, size_t size, double x) {
    if (!isfinite(x)) snprintf(out, size, "-");
    else if (x != 0 && (fabs(x) < 0.001 || fabs(x) >= 1e5)) snprintf(out, size, "%.1e", x);
    else snprintf(out, size, fabs(x) >= 100 ? "%.0f" : fabs(x) >= 10 ? "%.1f" : "%.3f", x);
}

// ---- curves ----------------------------------------------------------------------------------------------
// The value of a series at column `i` of `columns`; NaN where there is none.
static double value_at(const json_t *values, int i, int columns) {
    size_t n = json_array_size(values), from = n * (size_t)i / (size_t)columns, to = n * ((size_t)i + 1) / (size_t)columns;
    double sum = 0;
    int count = 0;
    if (to <= from) to = from + 1;
    for (size_t k = from; k < to && k < n; k++) {
        const json_t *v = json_array_get(values, k);
        if (json_is_number(v)) sum += json_number_value(v), count++;
    }
    return count ? sum / count : NAN;
}
static void range_of(const json_t *values, double *low, double *high) {
    size_t i;
    const json_t *v;
    *low = INFINITY, *high = -INFINITY;
    json_array_foreach(values, i, v) {
        if (!json_is_number(v)) continue;
        *low = fmin(*low, json_number_value(v)), *high = fmax(*high, json_number_value(v));
    }
}
static void put_spark(const Canvas *c, const json_t *values, double low, double high, int width) {
    static const char *const eighths[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, *const ascii[] = {"_", ".", "-", "=", "+", "*", "%", "#"};
    for (int i = 0; i < width; i++) {
        double x = value_at(values, i, width);
        int level = high > low ? (int)((x - low) / (high - low) * 7.999) : 3;
        buf_puts(c->out, !isfinite(x) ? " " : (c->f->unicode ? eighths : ascii)[level < 0 ? 0 : level > 7 ? 7 : level]);
    }
}
// Dots of a plot: [rows * 4][columns * 2], joined by vertical strokes.
static void put_dot(uint8_t *cells, int columns, int x, int y) {
    static const uint8_t bit[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    cells[(y / 4) * columns + x / 2] |= bit[y % 4][x % 2];
}
static void plot(uint8_t *cells, const json_t *values, int columns, int rows) {
    double low, high;
    range_of(values, &low, &high);
    int last = -1, dots = rows * 4;
    for (int x = 0; x < columns * 2; x++) {
        double v = value_at(values, x, columns * 2);
        if (!isfinite(v)) continue;
        int y = high > low ? (int)((high - v) / (high - low) * (dots - 1) + 0.5) : dots / 2;
        put_dot(cells, columns, x, y);
        for (int k = last < 0 ? y : last; k != y; k += k < y ? 1 : -1) put_dot(cells, columns, x, k);
        last = y;
    }
}
static void put_cell(const Canvas *c, uint8_t dots) {
    if (c->f->unicode) {
        char text[4] = {(char)0xe2, (char)(0xa0 | dots >> 6), (char)(0x80 | (dots & 0x3f)), 0};
        buf_puts(c->out, dots ? text : " ");
        return;
    }
    bool upper = dots & 0x1b, lower = dots & 0xe4;
    buf_puts(c->out, upper && lower ? "|" : upper ? "'" : lower ? "." : " ");
}

// ---- panels ----------------------------------------------------------------------------------------------
typedef struct Panel {
    const json_t *json;
    int width, height;
    uint8_t *cells; // [(height - 1) * width] of a panel with one curve
} Panel;

static void title_line(const Canvas *c, const Panel *p) {
    const json_t *series = json_object_get(p->json, "series"), *first = json_array_get(series, 0);
    const char *title = json_string_value(json_object_get(p->json, "title")), *unit = json_string_value(json_object_get(p->json, "unit"));
    char now[32], low[32], high[32], text[160];
    double least, most;
    ink(c, "1");
    int used = put_text(c, title ? title : "", p->width);
    ink(c, "0");
    text[0] = 0;
    if (json_array_size(series) == 1) {
        range_of(json_object_get(first, "values"), &least, &most);
        const json_t *v = json_object_get(first, "now");
        put_number(now, sizeof now, json_is_number(v) ? json_number_value(v) : NAN);
        put_number(low, sizeof low, least), put_number(high, sizeof high, most);
        snprintf(text, sizeof text, " %s%s%s (%s to %s)", now, unit && *unit ? " " : "", unit ? unit : "", low, high);
    } else if (unit && *unit) snprintf(text, sizeof text, ", %s", unit);
    used += put_text(c, text, p->width - used);
    pad(c, p->width - used);
}

// Line `line` of a panel with several curves: the name, the newest value, the curve; all on one scale.
static void spark_line(const Canvas *c, const Panel *p, int line) {
    const json_t *series = json_object_get(p->json, "series"), *one = json_array_get(series, (size_t)line), *other;
    size_t i;
    double low = INFINITY, high = -INFINITY, a, b;
    char now[32];
    int used = 0, name = p->width / 2 < 22 ? p->width / 2 : 22;
    if (one) {
        json_array_foreach(series, i, other) {
            range_of(json_object_get(other, "values"), &a, &b);
            low = fmin(low, a), high = fmax(high, b);
        }
        const json_t *v = json_object_get(one, "now");
        const char *title = json_string_value(json_object_get(one, "name"));
        put_number(now, sizeof now, json_is_number(v) ? json_number_value(v) : NAN);
        used = put_text(c, title ? title : "", name - 6);
        pad(c, name - 6 - used);
        buf_printf(c->out, " %-5.5s ", now);
        put_spark(c, json_object_get(one, "values"), low, high, p->width - name - 1);
        used = p->width;
    }
    pad(c, p->width - used);
}

static void panel_line(const Canvas *c, const Panel *p, int line) {
    if (line == 0) title_line(c, p);
    else if (!p->cells) spark_line(c, p, line - 1);
    else {
        ink(c, "36");
        for (int x = 0; x < p->width; x++) put_cell(c, p->cells[(line - 1) * p->width + x]);
        ink(c, "0");
    }
}

static void put_row_of_panels(const Canvas *c, const json_t *list, size_t first, int across, int height) {
    Panel row[8] = {0};
    int width = (c->f->columns + 2) / across - 2, count = 0;
    for (; count < across && json_array_get(list, first + (size_t)count); count++) {
        Panel *p = &row[count];
        *p = (Panel){.json = json_array_get(list, first + (size_t)count), .width = width, .height = height};
        const json_t *series = json_object_get(p->json, "series");
        if (json_array_size(series) != 1) continue;
        p->cells = xcalloc((size_t)(height - 1) * (size_t)width + 1, 1);
        plot(p->cells, json_object_get(json_array_get(series, 0), "values"), width, height - 1);
    }
    for (int line = 0; line < height; line++) {
        for (int i = 0; i < count; i++) {
            if (i) buf_puts(c->out, "  ");
            panel_line(c, &row[i], line);
        }
        buf_puts(c->out, "\n");
    }
    for (int i = 0; i < count; i++) free(row[i].cells);
}

// ---- head and samples ------------------------------------------------------------------------------------
static void put_head(const Canvas *c, const json_t *w) {
    const json_t *stage = json_object_get(w, "stage"), *left = json_object_get(w, "seconds_left"), *speed = json_object_get(w, "tokens_per_second");
    const char *state = json_string_value(json_object_get(w, "state")), *name = json_string_value(json_object_get(w, "name"));
    long long step = (long long)json_integer_value(json_object_get(w, "step")), steps = (long long)json_integer_value(json_object_get(w, "steps"));
    bool running = state && !strcmp(state, "running");
    char text[400], bar[96] = "";
    int done = steps > 0 ? (int)(20 * step / steps) : 0;
    for (int i = 0; i < 20; i++) strcat(bar, c->f->unicode ? (i < done ? "█" : "░") : (i < done ? "#" : "."));
    size_t n = (size_t)snprintf(text, sizeof text, " %s  %.40s %lld/%lld", state ? state : "", json_string_value(json_object_get(stage, "name")),
                                (long long)json_integer_value(json_object_get(stage, "step")), (long long)json_integer_value(json_object_get(stage, "steps")));
    double seconds = json_is_number(left) ? json_number_value(left) : NAN;
    if (running && isfinite(seconds) && n < sizeof text)
        n += (size_t)snprintf(text + n, sizeof text - n, "  %d:%02d left%s", (int)seconds / 60, (int)seconds % 60,
                              json_is_true(json_object_get(w, "last_stage")) ? "" : " in this stage");
    if (json_is_number(speed) && n < sizeof text) n += (size_t)snprintf(text + n, sizeof text - n, "  %.0f tok/s", json_number_value(speed));
    if (n < sizeof text) snprintf(text + n, sizeof text - n, "  %s %lld/%lld", bar, step, steps);
    ink(c, "1");
    int used = put_text(c, name ? name : "", c->f->columns < 40 ? c->f->columns : 40);
    ink(c, "0");
    put_text(c, text, c->f->columns - used);
    buf_puts(c->out, "\n");
}
static void put_verdicts(const Canvas *c, const json_t *w) {
    const json_t *v = json_object_get(w, "verdicts"), *count;
    const char *key;
    char text[200] = "verdicts:";
    if (!v) return;
    json_object_foreach((json_t *)(uintptr_t)v, key, count) {
        size_t n = strlen(text);
        if (json_integer_value(count) > 0) snprintf(text + n, sizeof text - n, " %lld %s", (long long)json_integer_value(count), key);
    }
    put_text(c, text, c->f->columns);
    buf_puts(c->out, "\n");
}
static void put_sample(const Canvas *c, const json_t *s) {
    char head[64], reward[32];
    const json_t *score = json_object_get(s, "reward");
    put_number(reward, sizeof reward, json_is_number(score) ? json_number_value(score) : NAN);
    snprintf(head, sizeof head, "%.9s %s ", json_string_value(json_object_get(s, "verdict")), reward);
    ink(c, json_is_number(score) && json_number_value(score) > 0.5 ? "32" : "33");
    int used = put_text(c, head, c->f->columns);
    ink(c, "0");
    used += put_text(c, json_string_value(json_object_get(s, "prompt")), (c->f->columns - used) / 2);
    used += put_text(c, c->f->unicode ? " → " : " -> ", c->f->columns - used);
    put_text(c, json_string_value(json_object_get(s, "completion")), c->f->columns - used);
    buf_puts(c->out, "\n");
}

void watch_draw(const json_t *w, const WatchFrame *frame, Buf *out) {
    WatchFrame f = *frame;
    if (f.columns < 20) f.columns = 20;
    if (f.columns > 400) f.columns = 400;
    Canvas c = {.f = &f, .out = out};
    const json_t *panels = json_object_get(w, "panels"), *samples = json_object_get(w, "samples");
    int count = (int)json_array_size(panels), across = f.columns / 38 > 1 ? f.columns / 38 : 1;
    if (across > 4) across = 4;
    int wanted = (count + across - 1) / across, shown = (int)json_array_size(samples);
    int head = 1 + (json_object_get(w, "verdicts") != NULL), least = shown > 3 ? 3 : shown;
    int room = f.rows > 0 ? f.rows - head - least : 6 * wanted, height = wanted ? room / wanted : 0;
    if (height > 8) height = 8;
    if (height < 4) height = 4;
    int rows = wanted * height <= room ? wanted : room / height;
    put_head(&c, w);
    put_verdicts(&c, w);
    for (int i = 0; i < rows; i++) put_row_of_panels(&c, panels, (size_t)(i * across), across, height);
    int last = f.rows > 0 ? f.rows - head - rows * height : shown;
    for (int i = 0; i < shown && i < last; i++) put_sample(&c, json_array_get(samples, (size_t)i));
}
