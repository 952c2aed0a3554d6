// Text and numbers of the page. This is the one way from a ledger's bytes to markup.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
           (c >= 0xe0000 && c <= 0xe0fff);
}

void html_text(Buf *out, const char *data, size_t size) {
    const unsigned char *p = (const unsigned char *)data;
    for (size_t i = 0; i < size;) {
        uint32_t c = 0;
        int n = decode(p + i, size - i, &c);
        if (n == 0) {
            buf_puts(out, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (c == '&') buf_puts(out, "&amp;");
        else if (c == '<') buf_puts(out, "&lt;");
        else if (c == '>') buf_puts(out, "&gt;");
        else if (c == '"') buf_puts(out, "&quot;");
        else if (c == '\'') buf_puts(out, "&#39;");
        else if (c < 0x20 && c != '\n' && c != '\t') buf_printf(out, "&#x%x;", 0x2400 + c); // a picture of it
        else if (c == 0x7f) buf_puts(out, "&#x2421;");
        else if (is_invisible(c)) buf_printf(out, "&#x27e8;U+%04X&#x27e9;", c);
        else buf_append(out, p + i, (size_t)n);
        i += (size_t)n;
    }
}
void html_string(Buf *out, const char *text) {
    if (text) html_text(out, text, strlen(text));
}

void html_number(Buf *out, double x) {
    char digits[64];
    if (!isfinite(x)) {
        buf_puts(out, isnan(x) ? "&mdash;" : x > 0 ? "&infin;" : "&minus;&infin;");
        return;
    }
    if (fabs(x) < 1000 || fabs(x) >= 1e15) {
        snprintf(digits, sizeof digits, "%.*g", fabs(x) >= 100 ? 4 : 3, x);
        if (x < 0) buf_puts(out, "&minus;");
        buf_puts(out, x < 0 ? digits + 1 : digits);
        return;
    }
    snprintf(digits, sizeof digits, "%.0f", fabs(x));
    if (x < 0) buf_puts(out, "&minus;");
    for (size_t i = 0, n = strlen(digits); i < n; i++) {
        if (i && (n - i) % 3 == 0) buf_puts(out, ",");
        buf_append(out, digits + i, 1);
    }
}
void html_percent(Buf *out, double share) {
    if (isnan(share)) buf_puts(out, "&mdash;");
    else buf_printf(out, "%s%.1f&nbsp;%%", share < 0 ? "&minus;" : "", fabs(100 * share));
}
void html_seconds(Buf *out, double s) {
    if (!isfinite(s) || s < 0 || s > 1e12) html_number(out, s);
    else if (s < 60) buf_printf(out, "%.*f&nbsp;s", s < 10 ? 2 : 1, s);
    else if (s < 3600) buf_printf(out, "%d&nbsp;min %d&nbsp;s", (int)(s / 60), (int)fmod(s, 60));
    else buf_printf(out, "%lld&nbsp;h %d&nbsp;min", (long long)(s / 3600), (int)fmod(s / 60, 60));
}
void html_scaled(Buf *out, double x) {
    static const char *const units[] = {"", "&nbsp;k", "&nbsp;M", "&nbsp;G", "&nbsp;T", "&nbsp;P", "&nbsp;E"};
    int u = 0;
    double y = x;
    while (isfinite(y) && fabs(y) >= 1000 && u < COUNT(units) - 1) y /= 1000, u++;
    if (u == 0) html_number(out, x);
    else buf_printf(out, "%.*f%s", fabs(y) >= 100 ? 0 : fabs(y) >= 10 ? 1 : 2, y, units[u]);
}
void html_json(Buf *out, const json_t *value) {
    if (json_is_string(value)) {
        html_text(out, json_string_value(value), json_string_length(value));
        return;
    }
    Buf text = {0};
    if (value) json_write(value, &text);
    html_text(out, text.data ? text.data : "", text.size);
    buf_free(&text);
}

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
