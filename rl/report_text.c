// Numbers and foreign text of the report. text_visible is the one way from bytes that others wrote into the document, and
// html_text the one way from the document to markup.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- text that others wrote ------------------------------------------------------------------------------
// One code point of strict UTF-8 (no overlong forms, no surrogates); its length, or 0 if the bytes are not one.
static int decode(const unsigned char *p, size_t left, uint32_t *out) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (n == 0 || (size_t)n > left) return 0;
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *out = c;
    return n;
}

// Characters that change how others are shown: they are named instead.
static bool is_invisible(uint32_t c) {
    return (c >= 0x80 && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x115f || c == 0x1160 || c == 0x17b4 || c == 0x17b5 ||
           c == 0x180e || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           c == 0x3164 || (c >= 0xfe00 && c <= 0xfe0f) || c == 0xfeff || c == 0xffa0 || (c >= 0xfff0 && c <= 0xfffb) ||
           (c >= 0xe0000 && c <= 0xe0fff) || (c & 0xfffe) == 0xfffe;
}

static void append_code(Buf *out, uint32_t c) { // of the plane of pictures and brackets: three bytes
    char bytes[3] = {(char)(0xe0 | c >> 12), (char)(0x80 | (c >> 6 & 0x3f)), (char)(0x80 | (c & 0x3f))};
    buf_append(out, bytes, 3);
}

// Any bytes as text that shows all of itself: invalid UTF-8 becomes U+FFFD; control characters become their pictures; line and
// paragraph separators, bidirectional controls and other invisible characters are named and lose their effect.
void text_visible(Buf *out, const char *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < size;) {
        uint32_t c = 0;
        int n = decode(p + i, size - i, &c);
        if (n == 0) append_code(out, 0xfffd), n = 1;
        else if (c < 0x20 && c != '\n' && c != '\t') append_code(out, 0x2400 + c);
        else if (c == 0x7f) append_code(out, 0x2421);
        else if (is_invisible(c)) buf_printf(out, "\xe2\x9f\xa8U+%04X\xe2\x9f\xa9", c);
        else buf_append(out, p + i, (size_t)n);
        i += (size_t)n;
    }
}
json_t *visible_json(const char *text, size_t size) {
    Buf visible = {0};
    text_visible(&visible, text, size);
    json_t *out = json_stringn(visible.data ? visible.data : "", visible.size);
    buf_free(&visible);
    return out ? out : json_string("");
}
json_t *visible_string(const char *text) { return text ? visible_json(text, strlen(text)) : json_null(); }

void html_text(Buf *out, const char *data, size_t size) {
    Buf visible = {0};
    text_visible(&visible, data, size);
    for (size_t i = 0; i < visible.size; i++) {
        char c = visible.data[i];
        if (c == '&') buf_puts(out, "&amp;");
        else if (c == '<') buf_puts(out, "&lt;");
        else if (c == '>') buf_puts(out, "&gt;");
        else if (c == '"') buf_puts(out, "&quot;");
        else if (c == '\'') buf_puts(out, "&#39;");
        else buf_append(out, &c, 1);
    }
    buf_free(&visible);
}
void html_string(Buf *out, const char *text) {
    if (text) html_text(out, text, strlen(text));
}

void text_json(Buf *out, const json_t *value) {
    if (json_is_string(value)) {
        text_visible(out, json_string_value(value), json_string_length(value));
        return;
    }
    if (json_is_real(value)) { // the shortest decimal that reads back as the same number: 0.95, not 0.94999999999999996
        char digits[40];
        for (int precision = 15; precision <= 17; precision++) {
            snprintf(digits, sizeof digits, "%.*g", precision, json_real_value(value));
            if (strtod(digits, NULL) == json_real_value(value)) break;
        }
        buf_puts(out, digits);
        return;
    }
    Buf text = {0};
    if (value) json_write(value, &text);
    text_visible(out, text.data ? text.data : "", text.size);
    buf_free(&text);
}

// ---- numbers ---------------------------------------------------------------------------------------------
#define MINUS "\xe2\x88\x92"
#define SPACE "\xc2\xa0" // that doesn't break

static void thousands(Buf *out, const char *digits) {
    for (size_t i = 0, n = strlen(digits); i < n; i++) {
        if (i && (n - i) % 3 == 0) buf_puts(out, ",");
        buf_append(out, digits + i, 1);
    }
}
void text_number(Buf *out, double x) {
    char digits[64];
    if (!isfinite(x)) {
        buf_puts(out, isnan(x) ? "\xe2\x80\x94" : x > 0 ? "\xe2\x88\x9e" : MINUS "\xe2\x88\x9e");
        return;
    }
    if (x < 0) buf_puts(out, MINUS);
    x = fabs(x);
    if (x < 1000 || x >= 1e15) {
        snprintf(digits, sizeof digits, "%.*g", x >= 100 ? 4 : 3, x);
        buf_puts(out, digits);
    } else {
        snprintf(digits, sizeof digits, "%.0f", x);
        thousands(out, digits);
    }
}
void text_percent(Buf *out, double share) {
    if (isnan(share)) buf_puts(out, "\xe2\x80\x94");
    else buf_printf(out, "%s%.1f" SPACE "%%", share < 0 ? MINUS : "", fabs(100 * share));
}
void text_points(Buf *out, double share) {
    if (isnan(share)) buf_puts(out, "\xe2\x80\x94");
    else if (fabs(100 * share) < 0.05) buf_puts(out, "0.0");
    else buf_printf(out, "%s%.1f", share < 0 ? MINUS : "+", fabs(100 * share));
}
// A chance under a thousandth by its order alone; one too small for a number isn't 0.
void text_chance(Buf *out, double p) {
    if (p >= 0 && p < 1e-300) buf_puts(out, "<" SPACE "1e-300");
    else if (p < 0.001) buf_printf(out, "%.0e", p);
    else text_number(out, p);
}
void text_seconds(Buf *out, double s, bool korean) {
    const char *hours = korean ? "시간" : SPACE "h", *minutes = korean ? "분" : SPACE "min", *seconds = korean ? "초" : SPACE "s";
    if (!isfinite(s) || s < 0 || s > 1e12) text_number(out, s);
    else if (s == 0) buf_printf(out, "0%s", seconds);
    else if (s < 0.1) text_number(out, 1000 * s), buf_puts(out, SPACE "ms");
    else if (s < 60) buf_printf(out, "%.*f%s", s < 10 ? 2 : 1, s, seconds);
    else if (s < 3600) buf_printf(out, "%d%s %d%s", (int)(s / 60), minutes, (int)fmod(s, 60), seconds);
    else buf_printf(out, "%lld%s %d%s", (long long)(s / 3600), hours, (int)fmod(s / 60, 60), minutes);
}
void text_scaled(Buf *out, double x) {
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E", "Z", "Y"};
    int u = 0;
    double y = x;
    while (isfinite(y) && fabs(y) >= 999.5 && u < COUNT(units) - 1) y /= 1000, u++;
    if (u == 0) text_number(out, x);
    else buf_printf(out, "%.*f" SPACE "%s", fabs(y) >= 99.95 ? 0 : fabs(y) >= 9.995 ? 1 : 2, y, units[u]);
}

static char *short_text(void (*write)(Buf *, double), double x, char out[40]) {
    Buf b = {0};
    write(&b, x);
    snprintf(out, 40, "%s", b.data);
    buf_free(&b);
    return out;
}
char *share_text(double share, char out[40]) { return short_text(text_percent, share, out); }
char *points_text(double share, char out[40]) { return short_text(text_points, share, out); }
char *number_text(double x, char out[40]) { return short_text(text_number, x, out); }

// ---- JSON ------------------------------------------------------------------------------------------------
double json_real_or_nan(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    const char *name = json_string_value(v);
    if (name && !strcmp(name, "inf")) return INFINITY;
    return json_is_number(v) ? json_number_value(v) : NAN;
}
const char *json_text_or(const json_t *object, const char *key, const char *otherwise) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : otherwise;
}
