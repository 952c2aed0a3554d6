// Values as text, byte for byte as Python writes them: str, repr, JSON (json.dumps) and HTML escaping. A float is written
// with the fewest digits that read back as the same number.
#include "template_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- building text -----------------------------------------------------------------------------------------------
void builder_append(Run *r, Builder *b, const char *data, size_t size) {
    if (r->failed || !size) return;
    if (b->capacity - b->size < size) {
        size_t wider = (b->size + size) * 2 + 64;
        if (!run_room(r, (double)wider)) return;
        char *copy = heap_alloc(&r->heap, wider);
        if (b->size) memcpy(copy, b->data, b->size);
        b->data = copy;
        b->capacity = wider;
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
    for (size_t i = 0; i < size; i++) b->length += ((unsigned char)data[i] & 0xC0) != 0x80;
}
void builder_puts(Run *r, Builder *b, const char *text) { builder_append(r, b, text, strlen(text)); }
void builder_text(Run *r, Builder *b, const Text *text) { builder_append(r, b, text->data, text->size); }
void builder_code(Run *r, Builder *b, int32_t code) {
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char(code, bytes);
    builder_append(r, b, (const char *)bytes, (size_t)n);
}
void builder_fill(Run *r, Builder *b, int32_t code, int64_t count) {
    if (count <= 0 || !run_room(r, (double)count * 4) || !run_spend(r, count / 8)) return;
    for (int64_t i = 0; i < count; i++) builder_code(r, b, code);
}
Value builder_value(Run *r, const Builder *b) {
    Text *t = HEAP_NEW(&r->heap, Text, 1);
    *t = (Text){b->data ? b->data : "", (uint32_t)b->size, (uint32_t)b->length};
    return value_text(t);
}

// ---- numbers -----------------------------------------------------------------------------------------------------
void print_float(Run *r, Builder *b, double x) {
    char text[64];
    if (isnan(x)) return builder_puts(r, b, "nan");
    if (isinf(x)) return builder_puts(r, b, x > 0 ? "inf" : "-inf");
    int digits = 1;
    do snprintf(text, sizeof text, "%.*e", digits - 1, x);
    while (strtod(text, NULL) != x && digits++ < 17);
    char *e = strchr(text, 'e');
    int exponent = atoi(e + 1);
    if (exponent < -4 || exponent >= 16) { // 1e+16, 1.5e-07: the form of C
        builder_puts(r, b, text);
        return;
    }
    int decimals = digits - 1 - exponent;
    snprintf(text, sizeof text, "%.*f", decimals > 0 ? decimals : 1, x);
    builder_puts(r, b, text);
}
static void print_int(Run *r, Builder *b, int64_t i) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)i);
    builder_puts(r, b, text);
}

// ---- repr ------------------------------------------------------------------------------------------------------------
static bool is_printable(int32_t code) {
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CS: case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return code == ' ';
    default: return true;
    }
}
static void repr_text(Run *r, Builder *b, const Text *t) {
    bool single = memchr(t->data, '\'', t->size), twice = memchr(t->data, '"', t->size);
    char quote = single && !twice ? '"' : '\'', escaped[16];
    builder_append(r, b, &quote, 1);
    for (uint32_t i = 0, n; i < t->size && !r->failed; i += n) {
        int32_t code = text_code(t, i, &n);
        const char *known = code == '\n' ? "\\n" : code == '\r' ? "\\r" : code == '\t' ? "\\t" : code == '\\' ? "\\\\" : NULL;
        if (code == quote) known = quote == '"' ? "\\\"" : "\\'";
        if (known) {
            builder_puts(r, b, known);
        } else if (is_printable(code)) {
            builder_append(r, b, t->data + i, n);
        } else {
            snprintf(escaped, sizeof escaped, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
            builder_puts(r, b, escaped);
        }
    }
    builder_append(r, b, &quote, 1);
}
static void repr_list(Run *r, Builder *b, const List *l, const char *brackets) {
    builder_append(r, b, brackets, 1);
    for (int64_t i = 0; i < l->count && !r->failed; i++) {
        if (i) builder_puts(r, b, ", ");
        print_repr(r, b, l->items[i]);
    }
    if (brackets[0] == '(' && l->count == 1) builder_puts(r, b, ",");
    builder_append(r, b, brackets + 1, 1);
}
static void repr_dict(Run *r, Builder *b, const Dict *d) {
    builder_puts(r, b, "{");
    for (int64_t i = 0; i < d->count && !r->failed; i++) {
        if (i) builder_puts(r, b, ", ");
        print_repr(r, b, d->keys[i]);
        builder_puts(r, b, ": ");
        print_repr(r, b, d->values[i]);
    }
    builder_puts(r, b, "}");
}
static void repr_view(Run *r, Builder *b, Value v) {
    static const char *const names[] = {"dict_keys(", "dict_values(", "dict_items("};
    builder_puts(r, b, names[v.as.view->kind]);
    Value list = value_to_list(r, v);
    if (!r->failed) repr_list(r, b, list.as.list, "[]");
    builder_puts(r, b, ")");
}
static void repr_range(Run *r, Builder *b, const Range *range) {
    char text[96];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)range->step);
    builder_append(r, b, text, (size_t)n);
    builder_puts(r, b, ")");
}
static void repr_loop(Run *r, Builder *b, Value v) {
    builder_puts(r, b, "<LoopContext ");
    print_int(r, b, v.as.loop->index + 1);
    builder_puts(r, b, "/");
    print_int(r, b, value_length(r, v));
    builder_puts(r, b, ">");
}
static void repr_macro(Run *r, Builder *b, const Macro *m) {
    builder_puts(r, b, "<Macro ");
    if (m->node->kind == NODE_MACRO) repr_text(r, b, r->t->names[m->node->name]);
    else builder_puts(r, b, "anonymous");
    builder_puts(r, b, ">");
}
static void repr_compound(Run *r, Builder *b, Value v) {
    switch (v.kind) {
    case VALUE_LIST: repr_list(r, b, v.as.list, "[]"); break;
    case VALUE_TUPLE: repr_list(r, b, v.as.list, "()"); break;
    case VALUE_DICT: repr_dict(r, b, v.as.dict); break;
    case VALUE_VIEW: repr_view(r, b, v); break;
    case VALUE_RANGE: repr_range(r, b, v.as.range); break;
    case VALUE_LOOP: repr_loop(r, b, v); break;
    case VALUE_MACRO: repr_macro(r, b, v.as.macro); break;
    case VALUE_NAMESPACE:
        builder_puts(r, b, "<Namespace ");
        repr_dict(r, b, v.as.dict);
        builder_puts(r, b, ">");
        break;
    default: // Python shows an address: nothing to rely on
        builder_puts(r, b, "<");
        builder_puts(r, b, value_type(v));
        builder_puts(r, b, ">");
    }
}
void print_repr(Run *r, Builder *b, Value v) {
    if (!run_spend(r, 1)) return;
    switch (v.kind) {
    case VALUE_MISSING: case VALUE_UNDEFINED: return builder_puts(r, b, "Undefined");
    case VALUE_NONE: return builder_puts(r, b, "None");
    case VALUE_BOOL: return builder_puts(r, b, v.as.boolean ? "True" : "False");
    case VALUE_INT: return print_int(r, b, v.as.integer);
    case VALUE_FLOAT: return print_float(r, b, v.as.number);
    case VALUE_STRING:
        if (v.markup) builder_puts(r, b, "Markup(");
        repr_text(r, b, v.as.text);
        if (v.markup) builder_puts(r, b, ")");
        return;
    default: break;
    }
    if (!run_enter(r)) return;
    repr_compound(r, b, v);
    run_leave(r);
}
void print_str(Run *r, Builder *b, Value v) {
    if (v.kind == VALUE_STRING) builder_text(r, b, v.as.text);
    else if (v.kind != VALUE_UNDEFINED) print_repr(r, b, v);
}
const Text *value_str(Run *r, Value v) {
    if (v.kind == VALUE_STRING) return v.as.text;
    Builder b = {0};
    print_str(r, &b, v);
    return builder_value(r, &b).as.text;
}
void print_escaped(Run *r, Builder *b, Value v) {
    const Text *t = value_str(r, v);
    if (v.kind == VALUE_STRING && v.markup) return builder_text(r, b, t);
    for (uint32_t i = 0; i < t->size && !r->failed; i++) {
        const char *from = "&<>'\"", *hit = memchr(from, t->data[i], 5);
        static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        if (hit) builder_puts(r, b, to[hit - from]);
        else builder_append(r, b, t->data + i, 1);
    }
}

// ---- JSON ------------------------------------------------------------------------------------------------------------
static void json_text(Run *r, Builder *b, const Text *t, bool ascii) {
    char escaped[16];
    builder_puts(r, b, "\"");
    for (uint32_t i = 0, n; i < t->size && !r->failed; i += n) {
        int32_t code = text_code(t, i, &n);
        const char *from = "\"\\\n\r\t\b\f", *hit = code < 0x80 && code ? strchr(from, code) : NULL;
        static const char *const to[] = {"\\\"", "\\\\", "\\n", "\\r", "\\t", "\\b", "\\f"};
        if (hit) {
            builder_puts(r, b, to[hit - from]);
        } else if (code < 0x20 || (ascii && code >= 0x7F && code < 0x10000)) {
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)code);
            builder_puts(r, b, escaped);
        } else if (ascii && code >= 0x10000) {
            unsigned rest = (unsigned)code - 0x10000;
            snprintf(escaped, sizeof escaped, "\\u%04x\\u%04x", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
            builder_puts(r, b, escaped);
        } else {
            builder_append(r, b, t->data + i, n);
        }
    }
    builder_puts(r, b, "\"");
}
static void json_number(Run *r, Builder *b, double x) {
    if (isnan(x)) builder_puts(r, b, "NaN");
    else if (isinf(x)) builder_puts(r, b, x > 0 ? "Infinity" : "-Infinity");
    else print_float(r, b, x);
}
static void json_line(Run *r, Builder *b, const JsonStyle *style, int level) {
    if (!style->indented) return;
    builder_puts(r, b, "\n");
    if (!run_spend(r, level / 4)) return;
    for (int i = 0; i < level && style->indent; i++) builder_text(r, b, style->indent);
}
static void json_comma(Run *r, Builder *b, const JsonStyle *style) {
    if (style->comma) builder_text(r, b, style->comma);
    else builder_puts(r, b, style->indented ? "," : ", ");
}
static void json_list(Run *r, Builder *b, const List *l, const JsonStyle *style, int level) {
    builder_puts(r, b, "[");
    for (int64_t i = 0; i < l->count && !r->failed; i++) {
        if (i) json_comma(r, b, style);
        json_line(r, b, style, level + 1);
        print_json_value(r, b, l->items[i], style, level + 1);
    }
    if (l->count) json_line(r, b, style, level);
    builder_puts(r, b, "]");
}
static void json_key(Run *r, Builder *b, Value key, const JsonStyle *style) {
    if (key.kind == VALUE_STRING) return json_text(r, b, key.as.text, style->ascii);
    if (key.kind != VALUE_INT && key.kind != VALUE_FLOAT && key.kind != VALUE_BOOL && key.kind != VALUE_NONE) {
        run_fail(r, "keys must be str, int, float, bool or None, not %s", value_type(key));
        return;
    }
    builder_puts(r, b, "\"");
    print_json_value(r, b, key, style, 0);
    builder_puts(r, b, "\"");
}
// Indices of the pairs in the order of their keys (a merge sort of a short list would gain nothing).
static int64_t *sorted_keys(Run *r, const Dict *d) {
    if (!run_room(r, (double)d->count * sizeof(int64_t))) return NULL;
    int64_t *order = HEAP_NEW(&r->heap, int64_t, d->count + 1);
    for (int64_t i = 0; i < d->count; i++) {
        int64_t at = i;
        while (at > 0 && !r->failed && value_order(r, OP_LT, d->keys[i], d->keys[order[at - 1]])) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    return order;
}
static void json_dict(Run *r, Builder *b, const Dict *d, const JsonStyle *style, int level) {
    int64_t *order = style->sort_keys ? sorted_keys(r, d) : NULL;
    builder_puts(r, b, "{");
    for (int64_t i = 0; i < d->count && !r->failed; i++) {
        int64_t at = order ? order[i] : i;
        if (i) json_comma(r, b, style);
        json_line(r, b, style, level + 1);
        json_key(r, b, d->keys[at], style);
        if (style->colon) builder_text(r, b, style->colon);
        else builder_puts(r, b, ": ");
        print_json_value(r, b, d->values[at], style, level + 1);
    }
    if (d->count) json_line(r, b, style, level);
    builder_puts(r, b, "}");
}
void print_json_value(Run *r, Builder *b, Value v, const JsonStyle *style, int level) {
    if (!run_spend(r, 1)) return;
    switch (v.kind) {
    case VALUE_NONE: return builder_puts(r, b, "null");
    case VALUE_BOOL: return builder_puts(r, b, v.as.boolean ? "true" : "false");
    case VALUE_INT: return print_int(r, b, v.as.integer);
    case VALUE_FLOAT: return json_number(r, b, v.as.number);
    case VALUE_STRING: return json_text(r, b, v.as.text, style->ascii);
    case VALUE_LIST: case VALUE_TUPLE: case VALUE_DICT: break;
    default: run_fail(r, "Object of type %s is not JSON serializable", value_type(v)); return;
    }
    if (!run_enter(r)) return;
    if (v.kind == VALUE_DICT) json_dict(r, b, v.as.dict, style, level);
    else json_list(r, b, v.as.list, style, level);
    run_leave(r);
}
