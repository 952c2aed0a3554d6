// Operators, attributes and items, as Python has them. What an undefined value can't do is an error that says what is
// undefined; whole numbers beyond 64 bits are an error.
#include "template_parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static Value fail_undefined(Run *r, const Undefined *u) {
    const char *name = u->name ? u->name->data : "value";
    int size = u->name ? (int)(u->name->size > 200 ? 200 : u->name->size) : 5;
    if (u->hint) return run_fail(r, "%s", u->hint);
    if (u->owner) return run_fail(r, "'%s object' has no attribute '%.*s'", u->owner, size, name);
    return run_fail(r, "'%.*s' is undefined", size, name);
}
static const char *operator_sign(Operator op) {
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    return signs[op];
}
static Value fail_types(Run *r, Operator op, Value a, Value b) {
    return run_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", operator_sign(op), value_type(a), value_type(b));
}

// ---- numbers -------------------------------------------------------------------------------------------------------
static double python_mod(double x, double y) {
    double m = fmod(x, y);
    if (m != 0) return (m < 0) != (y < 0) ? m + y : m;
    return copysign(0.0, y);
}
static double python_floordiv(double x, double y) {
    double m = fmod(x, y), quotient = (x - m) / y;
    if (m != 0 && (m < 0) != (y < 0)) quotient -= 1;
    if (quotient == 0) return copysign(0.0, x / y);
    double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}
static Value int_power(Run *r, int64_t x, int64_t y) {
    int64_t result = 1;
    if (y < 0) {
        if (x == 0) return run_fail(r, "0.0 cannot be raised to a negative power");
        return value_float(pow((double)x, (double)y));
    }
    while (y) {
        if ((y & 1) && __builtin_mul_overflow(result, x, &result)) return run_fail(r, "a whole number beyond 64 bits");
        y >>= 1;
        if (y && __builtin_mul_overflow(x, x, &x)) return run_fail(r, "a whole number beyond 64 bits");
    }
    return value_int(result);
}
static Value int_operate(Run *r, Operator op, int64_t x, int64_t y) {
    int64_t z = 0;
    bool over = false;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && y == 0)
        return run_fail(r, op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(x, y, &z); break;
    case OP_SUB: over = __builtin_sub_overflow(x, y, &z); break;
    case OP_MUL: over = __builtin_mul_overflow(x, y, &z); break;
    case OP_DIV: return value_float((double)x / (double)y);
    case OP_POW: return int_power(r, x, y);
    default:
        if (y == -1) return op == OP_MOD ? value_int(0) : int_operate(r, OP_SUB, 0, x);
        z = op == OP_MOD ? x % y : x / y;
        if (x % y != 0 && (x < 0) != (y < 0)) z += op == OP_MOD ? y : -1;
    }
    return over ? run_fail(r, "a whole number beyond 64 bits") : value_int(z);
}
static Value float_operate(Run *r, Operator op, double x, double y) {
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && y == 0)
        return run_fail(r, op == OP_DIV ? "float division by zero" : op == OP_MOD ? "float modulo" : "float floor division by zero");
    switch (op) {
    case OP_ADD: return value_float(x + y);
    case OP_SUB: return value_float(x - y);
    case OP_MUL: return value_float(x * y);
    case OP_DIV: return value_float(x / y);
    case OP_FLOORDIV: return value_float(python_floordiv(x, y));
    case OP_MOD: return value_float(python_mod(x, y));
    default: break;
    }
    if (x == 0 && y < 0) return run_fail(r, "0.0 cannot be raised to a negative power");
    if (x < 0 && isfinite(x) && isfinite(y) && y != floor(y)) return run_fail(r, "a complex number");
    double z = pow(x, y);
    return isinf(z) && isfinite(x) && isfinite(y) ? run_fail(r, "numerical result out of range") : value_float(z);
}

// ---- text and lists --------------------------------------------------------------------------------------------------
static Value add_texts(Run *r, Value a, Value b) {
    Builder out = {0};
    bool markup = a.markup || b.markup;
    if (markup) print_escaped(r, &out, a), print_escaped(r, &out, b);
    else if (run_room(r, (double)a.as.text->size + b.as.text->size)) {
        size_t size = (size_t)a.as.text->size + b.as.text->size; // made in one piece: sums are what templates do most
        out = (Builder){.data = heap_alloc(&r->heap, size + 1), .capacity = size + 1};
        builder_text(r, &out, a.as.text);
        builder_text(r, &out, b.as.text);
    }
    Value v = builder_value(r, &out);
    v.markup = markup;
    return v;
}
static Value add_lists(Run *r, Value a, Value b) {
    Value out = value_list(r, a.kind, a.as.list->count + b.as.list->count);
    if (!run_spend(r, a.as.list->count + b.as.list->count)) return out;
    for (int64_t i = 0; i < a.as.list->count; i++) list_push(r, out.as.list, a.as.list->items[i]);
    for (int64_t i = 0; i < b.as.list->count; i++) list_push(r, out.as.list, b.as.list->items[i]);
    return out;
}
static Value repeat(Run *r, Value v, int64_t times) {
    if (times < 0) times = 0;
    double each = is_string(v) ? (double)v.as.text->size : (double)v.as.list->count * sizeof(Value);
    if (!run_room(r, each * (double)times)) return value_none();
    if (each == 0) times = 0;
    if (is_string(v)) {
        Builder b = {0};
        for (int64_t i = 0; i < times && run_spend(r, 0); i++) builder_text(r, &b, v.as.text);
        return value_like(v, builder_value(r, &b));
    }
    Value out = value_list(r, v.kind, v.as.list->count * times);
    for (int64_t i = 0; i < times; i++)
        for (int64_t j = 0; j < v.as.list->count && run_spend(r, 0); j++) list_push(r, out.as.list, v.as.list->items[j]);
    return out;
}
// Dicts are joined by |, which templates can't write; so only these remain.
Value operate(Run *r, Operator op, Value a, Value b) {
    int64_t i, j;
    double x, y;
    if (r->failed) return value_none();
    if (op == OP_MOD && is_string(a)) return format_percent(r, a, b);
    if (a.kind == VALUE_UNDEFINED) return fail_undefined(r, a.as.undefined);
    if (b.kind == VALUE_UNDEFINED) return fail_undefined(r, b.as.undefined);
    if (value_integer(a, &i) && value_integer(b, &j)) return int_operate(r, op, i, j);
    if (value_number(a, &x) && value_number(b, &y)) return float_operate(r, op, x, y);
    if (op == OP_ADD && is_string(a) && is_string(b)) return add_texts(r, a, b);
    if (op == OP_ADD && is_list(a) && a.kind == b.kind) return add_lists(r, a, b);
    if (op == OP_MUL && (is_string(a) || is_list(a)) && value_integer(b, &j)) return repeat(r, a, j);
    if (op == OP_MUL && (is_string(b) || is_list(b)) && value_integer(a, &i)) return repeat(r, b, i);
    return fail_types(r, op, a, b);
}
Value operate_unary(Run *r, Operator op, Value a) {
    int64_t i;
    if (r->failed) return value_none();
    if (a.kind == VALUE_UNDEFINED) return fail_undefined(r, a.as.undefined);
    if (a.kind == VALUE_FLOAT) return value_float(op == OP_NEG ? -a.as.number : a.as.number);
    if (!value_integer(a, &i)) return run_fail(r, "bad operand type for unary %s: '%s'", op == OP_NEG ? "-" : "+", value_type(a));
    return op == OP_NEG ? int_operate(r, OP_SUB, 0, i) : value_int(i);
}

// ---- attributes and items ------------------------------------------------------------------------------------------
Value value_attribute(Run *r, Value v, const Text *name) {
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, v.as.undefined);
    Value built_in = builtin_attribute(r, v, name);
    if (built_in.kind != VALUE_MISSING || r->failed) return built_in;
    Value *found = v.kind == VALUE_DICT ? dict_find_text(r, v.as.dict, name) : NULL;
    return found ? *found : value_undefined(r, NULL, name, value_type(v));
}
// v[index] in Python's own sense; missing if there is no such item.
static Value plain_item(Run *r, Value v, Value index) {
    int64_t i;
    if (v.kind == VALUE_DICT) {
        Value *found = value_hashable(r, index) ? dict_find(r, v.as.dict, index) : NULL;
        return found ? *found : value_missing();
    }
    bool sequence = v.kind == VALUE_STRING || is_list(v) || v.kind == VALUE_RANGE;
    if (!sequence || !value_integer(index, &i)) return value_missing();
    int64_t length = value_length(r, v);
    if (i < 0) i += length;
    if (i < 0 || i >= length) return value_missing();
    if (is_list(v)) return v.as.list->items[i];
    if (v.kind == VALUE_RANGE) return range_item(v.as.range, i);
    uint32_t size, at = text_offset(v.as.text, i);
    text_code(v.as.text, at, &size);
    if (!run_spend(r, text_ascii(v.as.text) ? 0 : at / 64)) return value_none();
    return value_like(v, value_text(text_slice(&r->heap, v.as.text, at, at + size)));
}
Value value_item(Run *r, Value v, Value index) {
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, v.as.undefined);
    Value item = plain_item(r, v, index);
    if (item.kind != VALUE_MISSING || r->failed) return item;
    if (!is_string(index)) return value_undefined(r, "there is no such item", NULL, NULL);
    Value built_in = builtin_attribute(r, v, index.as.text);
    return built_in.kind != VALUE_MISSING ? built_in : value_undefined(r, NULL, index.as.text, value_type(v));
}
// 'a.b.0': parts that are digits are indices. Where a part is undefined, `otherwise` (missing: none) takes its place.
Value value_path(Run *r, Value v, Value path, Value otherwise) {
    if (path.kind == VALUE_NONE || path.kind == VALUE_MISSING) return v;
    bool replace = otherwise.kind != VALUE_MISSING && otherwise.kind != VALUE_NONE;
    if (!is_string(path)) {
        v = value_item(r, v, path);
        return replace && v.kind == VALUE_UNDEFINED ? otherwise : v;
    }
    Text dot = {".", 1, 1};
    Value parts = text_split(r, path, &dot, -1, false);
    for (int64_t i = 0; !r->failed && i < parts.as.list->count; i++) {
        Value part = parts.as.list->items[i];
        int64_t index;
        if (text_kind(part.as.text, 'd') && text_to_int(part.as.text, 10, &index)) part = value_int(index);
        v = value_item(r, v, part);
        if (replace && v.kind == VALUE_UNDEFINED) v = otherwise;
    }
    return v;
}
