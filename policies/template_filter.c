// Filters over single values: text, numbers, JSON. Those over lists are in template_filter_list.c. Not there are random (a
// template's text is a function of what it is given), and those that make HTML (urlize, striptags, xmlattr, wordwrap, pprint).
#include "template_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The value as text, as filters take it: markup stays markup.
static Value soft(Run *r, Value v) { return is_string(v) ? v : value_text(value_str(r, v)); }

static Value filter_abs(Run *r, Value *a, Call *call) {
    (void)call;
    int64_t i;
    if (a[0].kind == VALUE_FLOAT) return value_float(fabs(a[0].as.number));
    if (a[0].kind == VALUE_UNDEFINED || !value_integer(a[0], &i)) return operate_unary(r, OP_NEG, a[0].kind == VALUE_UNDEFINED ? a[0] : value_none());
    return i < 0 ? operate_unary(r, OP_NEG, value_int(i)) : value_int(i);
}
static Value filter_attr(Run *r, Value *a, Call *call) {
    (void)call;
    const Text *name = argument_text(r, a[1]);
    if (!name) return value_none();
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    Value found = builtin_attribute(r, a[0], name);
    return found.kind != VALUE_MISSING ? found : value_undefined(r, NULL, name, value_type(a[0]));
}
static Value filter_capitalize(Run *r, Value *a, Call *call) { return (void)call, text_capitalize(r, soft(r, a[0])); }
static Value filter_upper(Run *r, Value *a, Call *call) { return (void)call, text_upper(r, soft(r, a[0])); }
static Value filter_lower(Run *r, Value *a, Call *call) { return (void)call, text_lower(r, soft(r, a[0])); }
static Value filter_title(Run *r, Value *a, Call *call) { return (void)call, text_title(r, soft(r, a[0]), true); }
static Value filter_string(Run *r, Value *a, Call *call) { return (void)call, soft(r, a[0]); }
static Value filter_length(Run *r, Value *a, Call *call) { return (void)call, value_int(value_length(r, a[0])); }
static Value filter_center(Run *r, Value *a, Call *call) {
    (void)call;
    int64_t width;
    return argument_int(r, a[1], 80, &width) ? text_pad(r, soft(r, a[0]), width, ' ', '^') : value_none();
}
static Value filter_default(Run *r, Value *a, Call *call) {
    (void)call;
    bool replace = a[0].kind == VALUE_UNDEFINED || (argument_true(r, a[2]) && !value_true(r, a[0]));
    if (!replace) return a[0];
    return a[1].kind == VALUE_MISSING ? value_literal(r, "") : a[1];
}
static Value filter_escape(Run *r, Value *a, Call *call) {
    (void)call;
    Builder b = {0};
    print_escaped(r, &b, a[0]);
    Value v = builder_value(r, &b);
    v.markup = true;
    return v;
}
static Value filter_force_escape(Run *r, Value *a, Call *call) {
    Value plain = soft(r, a[0]);
    plain.markup = false;
    return filter_escape(r, &plain, call);
}
static Value filter_safe(Run *r, Value *a, Call *call) {
    (void)call;
    Value v = soft(r, a[0]);
    v.markup = true;
    return v;
}
static Value filter_format(Run *r, Value *a, Call *call) {
    if (call->count && call->named) return run_fail(r, "can't handle positional and keyword arguments at the same time");
    Value arguments = value_list(r, VALUE_TUPLE, call->count);
    for (int i = 0; i < call->count; i++) list_push(r, arguments.as.list, call->values[i]);
    if (!call->named) return format_percent(r, soft(r, a[0]), arguments);
    Dict *d = dict_make(r);
    for (int i = 0; i < call->named; i++) dict_put(r, d, value_text(call->names[i]), call->named_values[i]);
    return format_percent(r, soft(r, a[0]), value_dict(d));
}
static Value filter_replace(Run *r, Value *a, Call *call) {
    (void)call;
    int64_t count;
    if (a[3].kind == VALUE_NONE) a[3] = value_missing();
    if (!argument_int(r, a[3], -1, &count)) return value_none();
    return text_replace(r, value_str(r, a[0]), value_str(r, a[1]), value_str(r, a[2]), count < 0 ? -1 : count);
}
static Value filter_trim(Run *r, Value *a, Call *call) {
    (void)call;
    Value v = soft(r, a[0]);
    const Text *chars = a[1].kind == VALUE_MISSING || a[1].kind == VALUE_NONE ? NULL : argument_text(r, a[1]);
    return r->failed ? v : value_like(v, value_text(text_strip(r, v.as.text, chars, true, true)));
}
static Value filter_indent(Run *r, Value *a, Call *call) {
    (void)call;
    Builder prefix = {0}, b = {0};
    int64_t width;
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    if (!argument_text(r, a[0])) return value_none();
    if (is_string(a[1])) builder_text(r, &prefix, a[1].as.text);
    else if (argument_int(r, a[1], 4, &width)) builder_fill(r, &prefix, ' ', width);
    bool first = argument_true(r, a[2]), blank = argument_true(r, a[3]);
    Value text = operate(r, OP_ADD, a[0], value_literal(r, "\n")), lines = r->failed ? text : text_lines(r, text, false);
    for (int64_t i = 0; !r->failed && i < lines.as.list->count; i++) {
        const Text *line = lines.as.list->items[i].as.text;
        if (i) builder_puts(r, &b, "\n");
        if (i ? blank || line->size : first) builder_append(r, &b, prefix.data, prefix.size);
        builder_text(r, &b, line);
    }
    return value_like(a[0], builder_value(r, &b));
}
static Value filter_truncate(Run *r, Value *a, Call *call) {
    (void)call;
    int64_t length, leeway;
    Value end = a[3].kind == VALUE_MISSING ? value_literal(r, "...") : a[3];
    if (a[4].kind == VALUE_NONE) a[4] = value_missing();
    if (!argument_int(r, a[1], 255, &length) || !argument_int(r, a[4], 5, &leeway)) return value_none();
    int64_t end_length = value_length(r, end);
    if (length < end_length || leeway < 0) return run_fail(r, "expected a length of at least %lld", (long long)end_length);
    if (value_length(r, a[0]) <= length + leeway || r->failed) return a[0];
    if (!argument_text(r, end) || !argument_text(r, a[0])) return value_none();
    Value cut = value_slice(r, a[0], value_none(), value_int(length - end.as.text->length), value_none());
    if (!argument_true(r, a[2])) {
        Text blank = {" ", 1, 1};
        Value parts = text_split(r, cut, &blank, 1, true);
        if (!r->failed) cut = parts.as.list->items[0];
    }
    return operate(r, OP_ADD, cut, end);
}
static Value filter_wordcount(Run *r, Value *a, Call *call) {
    (void)call;
    const Text *t = value_str(r, a[0]);
    int64_t words = 0;
    bool inside = false;
    if (!run_spend(r, t->size / 16)) return value_none();
    for (uint32_t i = 0, n; i < t->size; i += n) {
        bool word = code_word(text_code(t, i, &n));
        words += word && !inside;
        inside = word;
    }
    return value_int(words);
}
static void quote_url(Run *r, Builder *b, Value v, bool query) {
    const Text *t = value_str(r, v);
    char escaped[4];
    for (uint32_t i = 0; i < t->size && !r->failed; i++) {
        unsigned char c = (unsigned char)t->data[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) || (c == '/' && !query);
        snprintf(escaped, sizeof escaped, plain ? "%c" : query && c == ' ' ? "+" : "%%%02X", c);
        builder_puts(r, b, escaped);
    }
}
static Value filter_urlencode(Run *r, Value *a, Call *call) {
    (void)call;
    Builder b = {0};
    if (is_string(a[0]) || !value_iterable(a[0])) {
        quote_url(r, &b, a[0], false);
        return builder_value(r, &b);
    }
    Value pairs = a[0];
    if (pairs.kind == VALUE_DICT) {
        View *items = HEAP_NEW(&r->heap, View, 1);
        *items = (View){pairs.as.dict, VIEW_ITEMS};
        pairs = (Value){.kind = VALUE_VIEW, .as.view = items};
    }
    pairs = value_to_list(r, pairs);
    for (int64_t i = 0; !r->failed && i < pairs.as.list->count; i++) {
        Value pair = value_to_list(r, pairs.as.list->items[i]);
        if (r->failed || pair.as.list->count != 2) return run_fail(r, "expected pairs");
        if (i) builder_puts(r, &b, "&");
        quote_url(r, &b, pair.as.list->items[0], true);
        builder_puts(r, &b, "=");
        quote_url(r, &b, pair.as.list->items[1], true);
    }
    return builder_value(r, &b);
}

// ---- numbers -----------------------------------------------------------------------------------------------------------
static bool float_to_int(double x, int64_t *out) {
    if (!(x > -9.3e18 && x < 9.2e18)) return false;
    *out = (int64_t)x;
    return true;
}
static Value filter_int(Run *r, Value *a, Call *call) {
    (void)call;
    Value otherwise = a[1].kind == VALUE_MISSING ? value_int(0) : a[1];
    int64_t i, base;
    double x;
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    if (is_string(a[0])) {
        base = 10;
        bool good = a[2].kind == VALUE_MISSING || value_integer(a[2], &base); // a base that is none doesn't hinder a float
        good &= base == 0 || (base >= 2 && base <= 36);
        if (good && text_to_int(a[0].as.text, (int)base, &i)) return value_int(i);
        return text_to_float(a[0].as.text, &x) && float_to_int(x, &i) ? value_int(i) : otherwise;
    }
    if (value_integer(a[0], &i)) return value_int(i);
    if (a[0].kind != VALUE_FLOAT || isnan(a[0].as.number)) return otherwise;
    return float_to_int(a[0].as.number, &i) ? value_int(i) : run_fail(r, "cannot convert %g to a whole number of 64 bits", a[0].as.number);
}
static Value filter_float(Run *r, Value *a, Call *call) {
    (void)call;
    double x;
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    bool ok = is_string(a[0]) ? text_to_float(a[0].as.text, &x) : value_number(a[0], &x);
    return ok ? value_float(x) : a[1].kind == VALUE_MISSING ? value_float(0) : a[1];
}
// round(x, n) of Python: of the exact decimal value, half to even.
static Value round_float(Run *r, double x, int64_t digits) {
    char text[512];
    if (!isfinite(x) || digits > 300) return value_float(x);
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits, x);
        return value_float(strtod(text, NULL));
    }
    if (digits < -308) return value_float(copysign(0.0, x));
    double power = pow(10, (double)-digits), whole = nearbyint(x / power) * power;
    return isfinite(whole) ? value_float(whole) : run_fail(r, "rounded value too large");
}
static Value round_int(Run *r, int64_t i, int64_t digits) {
    if (digits >= 0) return value_int(i);
    if (digits < -18) return value_int(0);
    int64_t power = 1;
    for (; digits < 0; digits++) power *= 10;
    int64_t rest = i % power, down = i - rest, half = power / 2;
    if (rest < 0) rest += power, down -= power;
    bool up = rest > half || (rest == half && (down / power) % 2 != 0);
    return operate(r, OP_ADD, value_int(down), value_int(up ? power : 0));
}
static Value filter_round(Run *r, Value *a, Call *call) {
    (void)call;
    int64_t digits, i;
    double x;
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    bool whole = a[1].kind == VALUE_NONE && (a[2].kind == VALUE_MISSING || (is_string(a[2]) && text_is(a[2].as.text, "common")));
    if (whole) a[1] = value_int(0); // gives an int
    if (!argument_int(r, a[1], 0, &digits)) return value_none();
    const Text *method = a[2].kind == VALUE_MISSING ? NULL : argument_text(r, a[2]);
    if (r->failed) return value_none();
    bool common = !method || text_is(method, "common"), up = method && text_is(method, "ceil");
    if (!common && !up && !text_is(method, "floor")) return run_fail(r, "method must be common, ceil or floor");
    if (!value_number(a[0], &x)) return run_fail(r, "type %s doesn't define __round__ method", value_type(a[0]));
    if (common && value_integer(a[0], &i)) return round_int(r, i, digits);
    if (whole) return float_to_int(nearbyint(x), &i) ? value_int(i) : run_fail(r, "cannot convert %g to a whole number of 64 bits", x);
    if (common) return round_float(r, x, digits);
    Value power = operate(r, OP_POW, value_int(10), value_int(digits)), scaled = operate(r, OP_MUL, a[0], power);
    if (r->failed || !value_number(scaled, &x)) return value_none();
    if (!float_to_int(up ? ceil(x) : floor(x), &i)) return run_fail(r, "cannot convert %g to a whole number of 64 bits", x);
    return operate(r, OP_DIV, value_int(i), power);
}
static Value filter_filesize(Run *r, Value *a, Call *call) {
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    Value arguments[2] = {a[0], value_none()}, size = filter_float(r, arguments, call);
    bool two = argument_true(r, a[1]);
    if (!r->failed && size.kind != VALUE_FLOAT) return run_fail(r, "filesizeformat: expected a number, found '%s'", value_type(a[0]));
    double base = two ? 1024 : 1000, bytes = r->failed ? 0 : size.as.number, unit = base;
    char text[400];
    int power = 0; // bytes / base^(power + 1) is shown
    if (!(fabs(bytes) <= 1e300)) return run_fail(r, "filesizeformat: expected a finite number");
    if (bytes == 1) return value_literal(r, "1 Byte");
    while (power < 7 && bytes >= unit * base) unit *= base, power++;
    if (bytes < base) snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    else snprintf(text, sizeof text, "%.1f %s", base * bytes / (unit * base), (two ? binary : decimal)[power]);
    return value_literal(r, text);
}

// ---- JSON --------------------------------------------------------------------------------------------------------------
static bool json_indent(Run *r, Value v, JsonStyle *style) {
    int64_t width;
    if (v.kind == VALUE_MISSING || v.kind == VALUE_NONE) return true;
    style->indented = true;
    if (is_string(v)) {
        style->indent = v.as.text;
        return true;
    }
    if (!argument_int(r, v, 0, &width)) return false;
    Builder b = {0};
    builder_fill(r, &b, ' ', width);
    style->indent = builder_value(r, &b).as.text;
    return true;
}
static Value filter_tojson(Run *r, Value *a, Call *call) {
    (void)call;
    JsonStyle style = {.ascii = argument_true(r, a[1]), .sort_keys = argument_true(r, a[4])};
    Builder b = {0};
    if (!json_indent(r, a[2], &style)) return value_none();
    if (a[3].kind != VALUE_MISSING && a[3].kind != VALUE_NONE) {
        Value pair = value_to_list(r, a[3]);
        if (r->failed || pair.as.list->count != 2) return run_fail(r, "separators: expected two texts");
        style.comma = argument_text(r, pair.as.list->items[0]);
        style.colon = argument_text(r, pair.as.list->items[1]);
        if (r->failed) return value_none();
    }
    print_json_value(r, &b, a[0], &style, 0);
    return builder_value(r, &b);
}

const Callable filter_rows[] = {
    {"abs", "", filter_abs},
    {"attr", "name", filter_attr},
    {"capitalize", "", filter_capitalize},
    {"center", "width?", filter_center},
    {"count", "", filter_length},
    {"d", "default_value? boolean?", filter_default},
    {"default", "default_value? boolean?", filter_default},
    {"e", "", filter_escape},
    {"escape", "", filter_escape},
    {"filesizeformat", "binary?", filter_filesize},
    {"float", "default?", filter_float},
    {"forceescape", "", filter_force_escape},
    {"format", "*", filter_format},
    {"indent", "width? first? blank?", filter_indent},
    {"int", "default? base?", filter_int},
    {"length", "", filter_length},
    {"lower", "", filter_lower},
    {"replace", "old new count?", filter_replace},
    {"round", "precision? method?", filter_round},
    {"safe", "", filter_safe},
    {"string", "", filter_string},
    {"title", "", filter_title},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", filter_tojson},
    {"trim", "chars?", filter_trim},
    {"truncate", "length? killwords? end? leeway?", filter_truncate},
    {"upper", "", filter_upper},
    {"urlencode", "", filter_urlencode},
    {"wordcount", "", filter_wordcount},
    {0},
};
