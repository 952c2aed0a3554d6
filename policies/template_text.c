// What templates do with text: finding, stripping, splitting, replacing, padding, reading numbers. Indices are code points
// to the template and bytes in here. Everything that runs over a text is charged by its length.
#include "template_parts.h"
#include <stdlib.h>
#include <string.h>

int32_t text_code(const Text *t, uint32_t at, uint32_t *size) {
    const unsigned char *p = (const unsigned char *)t->data + at;
    if (p[0] < 0x80) return *size = 1, p[0];
    if (p[0] < 0xE0) return *size = 2, (p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    if (p[0] < 0xF0) return *size = 3, (p[0] & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    return *size = 4, (p[0] & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
}
uint32_t text_offset(const Text *t, int64_t index) {
    if (text_ascii(t)) return (uint32_t)index;
    if (index >= t->length) return t->size;
    uint32_t at = 0;
    for (int64_t left = index; left > 0; left--) {
        at++;
        while (((unsigned char)t->data[at] & 0xC0) == 0x80) at++;
    }
    return at;
}
static uint32_t before(const Text *t, uint32_t at) { // start of the character that ends at `at`
    do at--;
    while (((unsigned char)t->data[at] & 0xC0) == 0x80);
    return at;
}

int64_t text_find(const Text *t, const Text *part, uint32_t from, uint32_t to) {
    if (part->size > to - from) return -1;
    const char *hit = part->size ? memmem(t->data + from, to - from, part->data, part->size) : t->data + from;
    return hit ? hit - t->data : -1;
}
int64_t text_find_last(const Text *t, const Text *part, uint32_t from, uint32_t to) {
    if (part->size > to - from) return -1;
    for (uint32_t at = to - part->size;; at--) {
        if (memcmp(t->data + at, part->data, part->size) == 0) return at;
        if (at == from) return -1;
    }
}

static bool stripped(const Text *chars, int32_t code) {
    if (!chars) return code_space(code);
    for (uint32_t i = 0, n; i < chars->size; i += n)
        if (text_code(chars, i, &n) == code) return true;
    return false;
}
const Text *text_strip(Run *r, const Text *t, const Text *chars, bool left, bool right) {
    uint32_t from = 0, to = t->size, n;
    if (!run_spend(r, (int64_t)t->size / 16 * (chars ? 1 + chars->size : 1))) return t;
    while (left && from < to && stripped(chars, text_code(t, from, &n))) from += n;
    while (right && to > from && stripped(chars, text_code(t, before(t, to), &n))) to -= n;
    return text_slice(&r->heap, t, from, to);
}

// ---- splitting -----------------------------------------------------------------------------------------------------
static void push_part(Run *r, Value list, Value self, uint32_t from, uint32_t to) {
    list_push(r, list.as.list, value_like(self, value_text(text_slice(&r->heap, self.as.text, from, to))));
}
static void split_words(Run *r, Value self, int64_t limit, Value out) {
    const Text *t = self.as.text;
    uint32_t at = 0, n;
    while (run_spend(r, 1)) {
        while (at < t->size && code_space(text_code(t, at, &n))) at += n;
        if (at >= t->size) return;
        uint32_t end = at;
        while (end < t->size && !code_space(text_code(t, end, &n))) end += n;
        if (out.as.list->count == limit) { // the rest, without the white space at its end
            end = t->size;
            while (code_space(text_code(t, before(t, end), &n))) end -= n;
        }
        push_part(r, out, self, at, end);
        at = end;
    }
}
static void split_words_from_right(Run *r, Value self, int64_t limit, Value out) {
    const Text *t = self.as.text;
    uint32_t end = t->size, n;
    while (run_spend(r, 1)) {
        while (end > 0 && code_space(text_code(t, before(t, end), &n))) end -= n;
        if (end == 0) return;
        uint32_t at = end;
        while (at > 0 && !code_space(text_code(t, before(t, at), &n))) at -= n;
        if (out.as.list->count == limit) {
            at = 0;
            while (code_space(text_code(t, at, &n))) at += n;
        }
        push_part(r, out, self, at, end);
        end = at;
    }
}
static void reverse_list(List *l) {
    for (int64_t i = 0, j = l->count - 1; i < j; i++, j--) {
        Value v = l->items[i];
        l->items[i] = l->items[j];
        l->items[j] = v;
    }
}
Value text_split(Run *r, Value self, const Text *separator, int64_t limit, bool from_right) {
    const Text *t = self.as.text;
    Value out = value_list(r, VALUE_LIST, 0);
    if (!run_spend(r, t->size / 16)) return out;
    if (separator && !separator->size) return run_fail(r, "empty separator");
    if (!separator && !from_right) {
        split_words(r, self, limit, out);
        return out;
    }
    if (!separator) split_words_from_right(r, self, limit, out);
    else if (from_right) {
        uint32_t to = t->size;
        for (int64_t at; out.as.list->count != limit && run_spend(r, 1) && (at = text_find_last(t, separator, 0, to)) >= 0; to = (uint32_t)at)
            push_part(r, out, self, (uint32_t)at + separator->size, to);
        push_part(r, out, self, 0, to);
    } else {
        uint32_t from = 0;
        for (int64_t at; out.as.list->count != limit && run_spend(r, 1) && (at = text_find(t, separator, from, t->size)) >= 0;
             from = (uint32_t)at + separator->size)
            push_part(r, out, self, from, (uint32_t)at);
        push_part(r, out, self, from, t->size);
    }
    if (from_right) reverse_list(out.as.list);
    return out;
}
static bool ends_line(int32_t code) {
    return (code >= 10 && code <= 13) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 || code == 0x2029;
}
Value text_lines(Run *r, Value self, bool keep_ends) {
    const Text *t = self.as.text;
    Value out = value_list(r, VALUE_LIST, 0);
    for (uint32_t at = 0, start = 0, n; at < t->size && run_spend(r, 1); start = at) {
        while (at < t->size && !ends_line(text_code(t, at, &n))) at += n;
        uint32_t end = at;
        if (at < t->size) {
            bool pair = t->data[at] == '\r' && at + 1 < t->size && t->data[at + 1] == '\n';
            text_code(t, at, &n);
            at += pair ? 2 : n;
        }
        push_part(r, out, self, start, keep_ends ? at : end);
    }
    return out;
}

Value text_replace(Run *r, const Text *t, const Text *old, const Text *new, int64_t limit) {
    Builder b = {0};
    uint32_t at = 0, n;
    if (!run_spend(r, t->size / 16)) return value_none();
    for (int64_t done = 0; done != limit && run_spend(r, 1); done++) {
        if (!old->size) { // before each character and at the end
            builder_text(r, &b, new);
            if (at >= t->size) return builder_value(r, &b);
            text_code(t, at, &n);
            builder_append(r, &b, t->data + at, n);
            at += n;
            continue;
        }
        int64_t hit = text_find(t, old, at, t->size);
        if (hit < 0) break;
        builder_append(r, &b, t->data + at, (size_t)hit - at);
        builder_text(r, &b, new);
        at = (uint32_t)hit + old->size;
    }
    builder_append(r, &b, t->data + at, t->size - at);
    return builder_value(r, &b);
}

Value text_pad(Run *r, Value v, int64_t width, int32_t fill, char side) {
    const Text *t = v.as.text;
    if (width <= t->length) return v;
    int64_t all = width - t->length, left = side == '<' ? 0 : side == '>' ? all : all / 2 + (all & width & 1);
    Builder b = {0};
    builder_fill(r, &b, fill, left);
    builder_text(r, &b, t);
    builder_fill(r, &b, fill, all - left);
    return value_like(v, builder_value(r, &b));
}

// ---- numbers in text -----------------------------------------------------------------------------------------------
// Python's rules: white space around, a sign, single underscores between digits. False if it is none, or too large.
static bool number_body(const Text *t, char out[400]) {
    uint32_t from = 0, to = t->size, n = 0, size;
    while (from < to && code_space(text_code(t, from, &size))) from += size;
    while (to > from && code_space(text_code(t, before(t, to), &size))) to -= size;
    if (to == from || to - from >= 399) return false;
    for (uint32_t i = from; i < to; i++) {
        char c = t->data[i];
        if (c == '_') {
            bool between = i > from && i + 1 < to && t->data[i - 1] != '_' && strchr("+-.", t->data[i - 1]) == NULL &&
                           strchr("_.+-", t->data[i + 1]) == NULL;
            if (!between) return false;
        } else if (c <= ' ' || c == 127 || (unsigned char)c >= 0x80) {
            return false;
        } else {
            out[n++] = c;
        }
    }
    out[n] = 0;
    return true;
}
static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
    return 99;
}
bool text_to_int(const Text *t, int base, int64_t *out) {
    char body[400], *p = body;
    if (!number_body(t, body)) return false;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+') p++;
    char mark = p[0] == '0' ? (char)(p[1] | 32) : 0;
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == 0 || base == marked)) p += 2, base = marked;
    else if (base == 0 && p[0] == '0' && strspn(p, "0") != strlen(p)) return false;
    if (base == 0) base = 10;
    if (!*p) return false;
    int64_t value = 0;
    for (; *p; p++) {
        int digit = digit_value(*p);
        if (digit >= base || __builtin_mul_overflow(value, base, &value) || __builtin_sub_overflow(value, digit, &value)) return false;
    }
    *out = value;
    return negative || !__builtin_sub_overflow((int64_t)0, value, out);
}
bool text_to_float(const Text *t, double *out) {
    char body[400], *end;
    if (!number_body(t, body)) return false;
    const char *p = body + (body[0] == '-' || body[0] == '+');
    bool word = !strcasecmp(p, "inf") || !strcasecmp(p, "infinity") || !strcasecmp(p, "nan");
    if (!word && !((*p >= '0' && *p <= '9') || *p == '.')) return false;
    if (!word && strpbrk(p, "xXpP")) return false;
    *out = strtod(body, &end);
    return !*end && end > body;
}
