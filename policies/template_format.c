// Python's two ways of formatting: "%5.2f" % x, and "{:>10}".format(x) with its specifications ([[fill]align][sign][#][0]
// [width][,][.precision][type]).
#include "template_parts.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Spec {
    int32_t fill;
    char align; // '<', '>', '^', '=', 0: by kind
    char sign;  // '+', '-', ' '
    bool alternate, grouped;
    char group; // ',' or '_'
    int64_t width, precision; // precision -1: none
    char type;  // 0: by kind
} Spec;
enum { WIDTH_LIMIT = 1 << 20, PRECISION_LIMIT = 300 };

// ---- digits ------------------------------------------------------------------------------------------------------------
// Puts separators into the whole part of `digits`.
static void group_digits(const char *digits, char with, int each, char *out, size_t room) {
    size_t whole = strspn(digits, "0123456789abcdefABCDEF"), n = 0;
    for (size_t i = 0; digits[i] && n + 2 < room; i++) {
        if (i && i < whole && (whole - i) % (size_t)each == 0) out[n++] = with;
        out[n++] = digits[i];
    }
    out[n] = 0;
}
// The parts of a number: sign, prefix, digits, padded to the width.
static void put_number(Run *r, Builder *b, const Spec *s, bool negative, const char *prefix, const char *digits) {
    char sign[2] = {negative ? '-' : s->sign == '+' || s->sign == ' ' ? s->sign : 0, 0};
    int64_t size = (int64_t)(strlen(sign) + strlen(prefix) + strlen(digits)), all = s->width > size ? s->width - size : 0;
    char align = s->align ? s->align : '>';
    int64_t left = align == '<' || align == '=' ? 0 : align == '>' ? all : all / 2;
    builder_fill(r, b, s->fill, left);
    builder_puts(r, b, sign);
    builder_puts(r, b, prefix);
    if (align == '=') builder_fill(r, b, s->fill, all);
    builder_puts(r, b, digits);
    if (align != '=') builder_fill(r, b, s->fill, all - left);
}
static void format_int(Run *r, Builder *b, const Spec *s, int64_t i) {
    char digits[80], grouped[128], prefix[4] = "";
    uint64_t size = i < 0 ? -(uint64_t)i : (uint64_t)i;
    int base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10, n = 79;
    digits[n] = 0;
    do digits[--n] = (s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[size % (uint64_t)base], size /= (uint64_t)base;
    while (size);
    if (s->alternate && base != 10) snprintf(prefix, sizeof prefix, "0%c", s->type);
    if (s->grouped) group_digits(digits + n, s->group, base == 10 ? 3 : 4, grouped, sizeof grouped);
    put_number(r, b, s, i < 0, prefix, s->grouped ? grouped : digits + n);
}
// Python's general format without a type: as repr, or as 'g' with a precision, and always with a point.
static void float_digits(Run *r, const Spec *s, double x, char *out, size_t room) {
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    char type = s->type ? s->type : s->precision < 0 ? 'r' : 'g', form[16];
    double size = fabs(x);
    if (isnan(x) || isinf(x)) {
        bool upper = type == 'F' || type == 'E' || type == 'G';
        snprintf(out, room, "%s", isnan(x) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
        return;
    }
    if (type == 'r') {
        Builder repr = {0};
        print_float(r, &repr, size);
        snprintf(out, room, "%.*s", (int)repr.size, repr.data ? repr.data : "");
        return;
    }
    if (!s->type && s->precision >= 0) { // like g, but from 1e(precision - 1) on already with an exponent, and with a point
        snprintf(out, room, "%.*e", precision ? precision - 1 : 0, size);
        int exponent = atoi(strchr(out, 'e') + 1), digits = precision ? precision : 1;
        bool scientific = exponent < -4 || exponent >= digits - 1;
        if (!scientific) {
            snprintf(out, room, "%.*g", digits, size);
            if (!strpbrk(out, ".e")) strcat(out, ".0");
            return;
        }
        snprintf(out, room, "%.*g", digits, size);
        if (strchr(out, 'e')) return;
        char *e, mantissa[512];
        snprintf(mantissa, sizeof mantissa, "%.*e", digits - 1, size);
        e = strchr(mantissa, 'e');
        char *end = e;
        if (memchr(mantissa, '.', (size_t)(e - mantissa))) {
            while (end[-1] == '0') end--;
            if (end[-1] == '.') end--;
        }
        snprintf(out, room, "%.*s%s", (int)(end - mantissa), mantissa, e);
        return;
    }
    if (type == '%') {
        snprintf(out, room, "%.*f%%", precision, size * 100);
        return;
    }
    snprintf(form, sizeof form, "%%%s.*%c", s->alternate ? "#" : "", type);
    snprintf(out, room, form, precision, size);
}
static void format_float(Run *r, Builder *b, const Spec *s, double x) {
    char digits[1024], grouped[1400];
    float_digits(r, s, x, digits, sizeof digits);
    if (s->grouped) group_digits(digits, s->group, 3, grouped, sizeof grouped);
    put_number(r, b, s, signbit(x) && !isnan(x), "", s->grouped ? grouped : digits);
}
static void format_text(Run *r, Builder *b, const Spec *s, const Text *t) {
    int64_t length = s->precision >= 0 && s->precision < t->length ? s->precision : t->length;
    int64_t all = s->width > length ? s->width - length : 0;
    char align = s->align ? s->align : '<';
    int64_t left = align == '<' ? 0 : align == '>' ? all : all / 2;
    builder_fill(r, b, s->fill, left);
    builder_append(r, b, t->data, text_offset(t, length));
    builder_fill(r, b, s->fill, all - left);
}

// ---- format(value, spec) -----------------------------------------------------------------------------------------------
static bool read_digits(const Text *t, uint32_t *at, int64_t limit, int64_t *out) {
    int64_t n = 0;
    bool any = false;
    for (; *at < t->size && isdigit((unsigned char)t->data[*at]); (*at)++, any = true) {
        n = n * 10 + (t->data[*at] - '0');
        if (n > limit) n = limit + 1;
    }
    if (any) *out = n;
    return n <= limit;
}
static bool parse_spec(Run *r, const Text *t, Spec *s) {
    uint32_t at = 0, n = 0;
    *s = (Spec){.fill = ' ', .precision = -1};
    int32_t first = t->size ? text_code(t, 0, &n) : 0;
    if (t->size > n && strchr("<>^=", t->data[n]) && t->data[n]) s->fill = first, s->align = t->data[n], at = n + 1;
    else if (t->size && first < 0x80 && first && strchr("<>^=", (char)first)) s->align = (char)first, at = 1;
    if (at < t->size && t->data[at] && strchr("+- ", t->data[at])) s->sign = t->data[at++];
    if (at < t->size && t->data[at] == '#') s->alternate = true, at++;
    if (at < t->size && t->data[at] == '0') {
        at++;
        if (!s->align) s->fill = '0', s->align = '=';
    }
    bool ok = read_digits(t, &at, WIDTH_LIMIT, &s->width);
    if (at < t->size && (t->data[at] == ',' || t->data[at] == '_')) s->grouped = true, s->group = t->data[at++];
    if (ok && at < t->size && t->data[at] == '.') {
        at++;
        ok = read_digits(t, &at, WIDTH_LIMIT, &s->precision) && s->precision >= 0;
    }
    if (at < t->size) s->type = t->data[at++];
    if (ok && at == t->size) return true;
    run_fail(r, "Invalid format specifier '%.60s'", t->size ? t->data : "");
    return false;
}
static void format_value(Run *r, Builder *b, Value v, const Text *spec) {
    Spec s;
    int64_t i;
    double x;
    if (!spec->size) return print_str(r, b, v);
    if (!parse_spec(r, spec, &s)) return;
    if (is_string(v) && (!s.type || s.type == 's') && s.align != '=' && !s.sign && !s.grouped) return format_text(r, b, &s, v.as.text);
    bool of_int = s.type && strchr("bdoxXn", s.type), of_float = s.type && strchr("eEfFgG%", s.type);
    if (s.type == 'n') s.type = 'd';
    if (s.precision > PRECISION_LIMIT) {
        run_fail(r, "a precision of more than %d digits", PRECISION_LIMIT);
    } else if (value_integer(v, &i) && s.type == 'c') {
        Builder one = {0};
        if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i < 0xE000)) run_fail(r, "%%c arg not in range(0x110000)");
        else builder_code(r, &one, (int32_t)i);
        format_text(r, b, &s, builder_value(r, &one).as.text);
    } else if (value_integer(v, &i) && (!s.type || of_int) && s.precision < 0) {
        if (v.kind == VALUE_BOOL && !s.type) format_text(r, b, &s, value_str(r, v)); // no digits asked for
        else format_int(r, b, &s, i);
    } else if (value_number(v, &x) && (v.kind == VALUE_FLOAT ? !of_int && s.type != 'c' : of_float) && (!s.type || of_float)) {
        format_float(r, b, &s, x);
    } else {
        run_fail(r, "Unknown or unsupported format '%.60s' for '%s'", spec->data, value_type(v));
    }
}

// ---- "{}".format() -------------------------------------------------------------------------------------------------------
typedef struct Braces {
    const Text *t;
    const Call *call;
    int next;       // automatic number
    bool by_number; // numbers are written out
} Braces;

// The value that a field's name ("0.a[b]") means.
static Value field_value(Run *r, Braces *f, const char *name, size_t size) {
    size_t head = 0;
    while (head < size && name[head] != '.' && name[head] != '[') head++;
    Value v = value_missing();
    bool number = strspn(name, "0123456789") >= head;
    if (!number) {
        for (int i = 0; i < f->call->named; i++)
            if (f->call->names[i]->size == head && !memcmp(f->call->names[i]->data, name, head)) v = f->call->named_values[i];
    } else {
        int64_t index = head ? strtol(name, NULL, 10) : f->next++;
        if ((head > 0) != f->by_number && (f->by_number || f->next > 0)) {
            if (head ? f->next > 0 : true) return run_fail(r, "cannot switch between automatic and manual field numbering");
        }
        f->by_number |= head > 0;
        if (head < 8 && index < f->call->count) v = f->call->values[index];
    }
    if (v.kind == VALUE_MISSING) return run_fail(r, "format: there is no argument '%.*s'", (int)(head > 60 ? 60 : head), name);
    for (size_t at = head; at < size && !r->failed;) {
        bool item = name[at] == '[';
        size_t from = ++at;
        while (at < size && (item ? name[at] != ']' : name[at] != '.' && name[at] != '[')) at++;
        if (at == from || (item && at >= size)) return run_fail(r, "format: a malformed field");
        Text *key = text_make(&r->heap, name + from, at - from);
        int64_t index;
        at += item;
        if (item && text_kind(key, 'd') && text_to_int(key, 10, &index)) v = value_item(r, v, value_int(index));
        else v = item ? value_item(r, v, value_text(key)) : value_attribute(r, v, key);
    }
    return v;
}
static void expand(Run *r, Braces *f, const char *s, size_t size, bool markup, int depth, Builder *b);
// One field, without its braces: NAME!CONVERSION:SPEC.
static void expand_field(Run *r, Braces *f, const char *s, size_t size, bool markup, int depth, Builder *b) {
    size_t name = 0, at;
    for (int brackets = 0; name < size && (brackets || (s[name] != '!' && s[name] != ':')); name++) brackets += (s[name] == '[') - (s[name] == ']');
    Value v = field_value(r, f, s, name);
    at = name;
    if (r->failed) return;
    if (at < size && s[at] == '!') {
        char how = at + 1 < size ? s[at + 1] : 0;
        if ((how != 'r' && how != 's') || (at + 2 < size && s[at + 2] != ':')) {
            run_fail(r, "format: expected !r or !s");
            return;
        }
        Builder converted = {0};
        if (how == 'r') print_repr(r, &converted, v);
        else print_str(r, &converted, v);
        v = builder_value(r, &converted);
        at += 2;
    }
    Builder spec = {0};
    if (at < size) expand(r, f, s + at + 1, size - at - 1, false, depth + 1, &spec);
    if (r->failed) return;
    Value spec_text = builder_value(r, &spec);
    if (!markup) return format_value(r, b, v, spec_text.as.text);
    Builder plain = {0};
    format_value(r, &plain, v, spec_text.as.text);
    print_escaped(r, b, value_like(v, builder_value(r, &plain)));
}
static void expand(Run *r, Braces *f, const char *s, size_t size, bool markup, int depth, Builder *b) {
    if (depth > 2) {
        run_fail(r, "Max string recursion exceeded");
        return;
    }
    for (size_t at = 0; at < size && run_spend(r, 0); at++) {
        char c = s[at];
        if (c != '{' && c != '}') {
            builder_append(r, b, s + at, 1);
        } else if (at + 1 < size && s[at + 1] == c && (depth == 0 || c == '{')) {
            builder_append(r, b, s + at++, 1);
        } else if (c == '}') {
            run_fail(r, "Single '}' encountered in format string");
        } else {
            size_t end = ++at;
            for (int open = 1; end < size && (open += (s[end] == '{') - (s[end] == '}')) > 0;) end++;
            if (end >= size) run_fail(r, "Single '{' encountered in format string");
            else expand_field(r, f, s + at, end - at, markup, depth, b);
            at = end;
        }
    }
}
Value format_braces(Run *r, Value format, const Call *call) {
    Builder b = {0};
    Braces f = {.t = format.as.text, .call = call};
    expand(r, &f, format.as.text->data, format.as.text->size, format.markup, 0, &b);
    return value_like(format, builder_value(r, &b));
}

// ---- "%" -----------------------------------------------------------------------------------------------------------------
typedef struct Percent {
    Value arguments;
    int64_t next;
    bool by_name;
} Percent;
static Value next_argument(Run *r, Percent *p) {
    bool tuple = p->arguments.kind == VALUE_TUPLE;
    if (p->next >= (tuple ? p->arguments.as.list->count : 1)) return run_fail(r, "not enough arguments for format string");
    return tuple ? p->arguments.as.list->items[p->next++] : (p->next++, p->arguments);
}
static void percent_number(Run *r, Builder *b, Spec *s, Value v) {
    int64_t i;
    double x;
    if (strchr("diu", s->type)) {
        if (v.kind == VALUE_FLOAT && fabs(v.as.number) < 9.2e18) v = value_int((int64_t)v.as.number);
        s->type = 'd';
    }
    if (s->type == 'd' || strchr("xXo", s->type)) {
        if (!value_integer(v, &i)) {
            if (v.kind == VALUE_UNDEFINED) operate_unary(r, OP_NEG, v);
            run_fail(r, "%%%c format: an integer is required, not %s", s->type, value_type(v));
        } else {
            format_int(r, b, s, i);
        }
    } else if (v.kind == VALUE_UNDEFINED || (!value_number(v, &x) && !(is_string(v) && false))) {
        if (v.kind == VALUE_UNDEFINED) operate_unary(r, OP_NEG, v);
        run_fail(r, "must be real number, not %s", value_type(v));
    } else if (s->precision > PRECISION_LIMIT) {
        run_fail(r, "a precision of more than %d digits", PRECISION_LIMIT);
    } else {
        if (s->precision < 0) s->precision = 6;
        format_float(r, b, s, x);
    }
}
static void percent_text(Run *r, Builder *b, Spec *s, Value v, bool markup) {
    Builder text = {0};
    int64_t i;
    if (s->type == 'c' && value_integer(v, &i)) {
        if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i < 0xE000)) run_fail(r, "%%c arg not in range(0x110000)");
        else builder_code(r, &text, (int32_t)i);
    } else if (s->type == 'c' && !(is_string(v) && v.as.text->length == 1)) {
        run_fail(r, "%%c requires int or char");
    } else if (s->type == 'r' || s->type == 'a') {
        print_repr(r, &text, v);
    } else if (markup) {
        print_escaped(r, &text, v);
    } else {
        print_str(r, &text, v);
    }
    if (!s->align) s->align = '>';
    if (s->align == '=') s->align = '>', s->fill = ' ';
    format_text(r, b, s, builder_value(r, &text).as.text);
}
// "%" at `at` - 1; returns where the conversion ends.
static uint32_t percent_flags(const Text *t, uint32_t at, Spec *s) {
    bool left = false, zero = false;
    for (; at < t->size && t->data[at] && strchr("-+ #0", t->data[at]); at++) {
        char c = t->data[at];
        left |= c == '-';
        zero |= c == '0';
        s->alternate |= c == '#';
        if (c == '+' || (c == ' ' && s->sign != '+')) s->sign = c;
    }
    if (zero && !left) s->fill = '0', s->align = '=';
    if (left) s->align = '<';
    return at;
}
static bool percent_star(Run *r, const Text *t, uint32_t *at, Percent *p, int64_t *out) {
    if (*at >= t->size || t->data[*at] != '*') return read_digits(t, at, WIDTH_LIMIT, out) || (run_fail(r, "width too big"), false);
    ++*at;
    Value v = next_argument(r, p);
    if (r->failed) return false;
    if (v.kind == VALUE_INT && v.as.integer >= -WIDTH_LIMIT && v.as.integer <= WIDTH_LIMIT) return *out = v.as.integer, true;
    run_fail(r, "* wants int");
    return false;
}
static uint32_t percent_one(Run *r, Builder *b, const Text *t, uint32_t at, Percent *p, bool markup) {
    Spec s = {.fill = ' ', .precision = -1};
    Value v = value_missing();
    if (at < t->size && t->data[at] == '(') {
        uint32_t from = ++at;
        for (int open = 1; at < t->size && (open += (t->data[at] == '(') - (t->data[at] == ')')) > 0;) at++;
        if (p->arguments.kind != VALUE_DICT) return run_fail(r, "format requires a mapping"), at;
        Text *key = text_make(&r->heap, t->data + from, at - from);
        Value *found = dict_find_text(r, p->arguments.as.dict, key);
        if (!found) return run_fail(r, "format: there is no key '%.60s'", key->data), at;
        v = *found;
        p->by_name = true;
        at++;
    }
    at = percent_flags(t, at, &s);
    if (!percent_star(r, t, &at, p, &s.width)) return at;
    if (s.width < 0) s.align = '<', s.width = -s.width;
    if (at < t->size && t->data[at] == '.') {
        at++;
        s.precision = 0;
        if (!percent_star(r, t, &at, p, &s.precision)) return at;
        if (s.precision < 0) s.precision = 0;
    }
    while (at < t->size && t->data[at] && strchr("hlL", t->data[at])) at++;
    s.type = at < t->size ? t->data[at] : 0;
    if (s.type == '%') return builder_puts(r, b, "%"), at + 1;
    if (!s.type || !strchr("diouxXeEfFgGcrsa", s.type)) return run_fail(r, "unsupported or incomplete format at index %u", at), at;
    if (v.kind == VALUE_MISSING) v = next_argument(r, p);
    if (r->failed) return at;
    if (strchr("crsa", s.type)) percent_text(r, b, &s, v, markup);
    else percent_number(r, b, &s, v);
    return at + 1;
}
Value format_percent(Run *r, Value format, Value arguments) {
    const Text *t = format.as.text;
    Percent p = {.arguments = arguments};
    Builder b = {0};
    for (uint32_t at = 0; at < t->size && run_spend(r, 1);) {
        const char *hit = memchr(t->data + at, '%', t->size - at);
        uint32_t end = hit ? (uint32_t)(hit - t->data) : t->size;
        builder_append(r, &b, t->data + at, end - at);
        at = hit ? percent_one(r, &b, t, end + 1, &p, format.markup) : end;
    }
    bool tuple = arguments.kind == VALUE_TUPLE; // what has items may be left over: it could have been a mapping
    bool items = arguments.kind == VALUE_DICT || arguments.kind == VALUE_LIST || arguments.kind == VALUE_RANGE || arguments.kind == VALUE_UNDEFINED;
    bool left = tuple ? p.next < arguments.as.list->count : !p.next && !items;
    if (left && !r->failed) return run_fail(r, "not all arguments converted during string formatting");
    return value_like(format, builder_value(r, &b));
}
