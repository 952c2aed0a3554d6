// Tests: what stands behind `is`.
#include "template_parts.h"
#include <string.h>

static bool mod_is(Run *r, Value v, int64_t by, int64_t want) {
    Value m = operate(r, OP_MOD, v, value_int(by));
    return !r->failed && value_equal(r, m, value_int(want));
}
static Value test_odd(Run *r, Value *a, Call *call) { return (void)call, value_bool(mod_is(r, a[0], 2, 1)); }
static Value test_even(Run *r, Value *a, Call *call) { return (void)call, value_bool(mod_is(r, a[0], 2, 0)); }
static Value test_divisible(Run *r, Value *a, Call *call) {
    (void)call;
    Value m = operate(r, OP_MOD, a[0], a[1]);
    return value_bool(!r->failed && value_equal(r, m, value_int(0)));
}
static Value test_defined(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind != VALUE_UNDEFINED); }
static Value test_undefined(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_UNDEFINED); }
static bool is_name(Run *r, Value v) {
    if (!value_hashable(r, v)) run_fail(r, "unhashable type: '%s'", value_type(v));
    return is_string(v);
}
static Value test_filter(Run *r, Value *a, Call *call) { return (void)call, value_bool(is_name(r, a[0]) && filter_find(a[0].as.text)); }
static Value test_test(Run *r, Value *a, Call *call) { return (void)call, value_bool(is_name(r, a[0]) && test_find(a[0].as.text)); }
static Value test_none(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_NONE); }
static Value test_boolean(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_BOOL); }
static Value test_false(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_BOOL && !a[0].as.boolean); }
static Value test_true(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_BOOL && a[0].as.boolean); }
static Value test_integer(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_INT); }
static Value test_float(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_FLOAT); }
static Value test_number(Run *r, Value *a, Call *call) {
    double x;
    return (void)r, (void)call, value_bool(value_number(a[0], &x));
}
static Value test_lower(Run *r, Value *a, Call *call) { return (void)call, value_bool(text_kind(value_str(r, a[0]), 'L')); }
static Value test_upper(Run *r, Value *a, Call *call) { return (void)call, value_bool(text_kind(value_str(r, a[0]), 'U')); }
static Value test_string(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(is_string(a[0])); }
static Value test_mapping(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(a[0].kind == VALUE_DICT); }
static Value test_sequence(Run *r, Value *a, Call *call) {
    return (void)r, (void)call, value_bool(value_sized(a[0]) && a[0].kind != VALUE_VIEW && a[0].kind != VALUE_LOOP);
}
static Value test_iterable(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(value_iterable(a[0])); }
static Value test_callable(Run *r, Value *a, Call *call) {
    (void)r, (void)call;
    ValueKind k = a[0].kind;
    return value_bool(k == VALUE_MACRO || k == VALUE_METHOD || k == VALUE_FUNCTION || k == VALUE_LOOP || k == VALUE_JOINER || k == VALUE_UNDEFINED);
}
static Value test_same(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(value_same(a[0], a[1])); }
static Value test_escaped(Run *r, Value *a, Call *call) { return (void)r, (void)call, value_bool(is_string(a[0]) && a[0].markup); }
static Value test_in(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_contains(r, a[1], a[0])); }
static Value test_eq(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_equal(r, a[0], a[1])); }
static Value test_ne(Run *r, Value *a, Call *call) { return (void)call, value_bool(!value_equal(r, a[0], a[1])); }
static Value test_gt(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_order(r, OP_GT, a[0], a[1])); }
static Value test_ge(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_order(r, OP_GE, a[0], a[1])); }
static Value test_lt(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_order(r, OP_LT, a[0], a[1])); }
static Value test_le(Run *r, Value *a, Call *call) { return (void)call, value_bool(value_order(r, OP_LE, a[0], a[1])); }

const Callable test_rows[] = {
    {"odd", "", test_odd},
    {"even", "", test_even},
    {"divisibleby", "num", test_divisible},
    {"defined", "", test_defined},
    {"undefined", "", test_undefined},
    {"filter", "", test_filter},
    {"test", "", test_test},
    {"none", "", test_none},
    {"boolean", "", test_boolean},
    {"false", "", test_false},
    {"true", "", test_true},
    {"integer", "", test_integer},
    {"float", "", test_float},
    {"lower", "", test_lower},
    {"upper", "", test_upper},
    {"string", "", test_string},
    {"mapping", "", test_mapping},
    {"number", "", test_number},
    {"sequence", "", test_sequence},
    {"iterable", "", test_iterable},
    {"callable", "", test_callable},
    {"sameas", "other", test_same},
    {"escaped", "", test_escaped},
    {"in", "seq", test_in},
    {"==", "/b", test_eq},
    {"eq", "/b", test_eq},
    {"equalto", "/b", test_eq},
    {"!=", "/b", test_ne},
    {"ne", "/b", test_ne},
    {">", "/b", test_gt},
    {"gt", "/b", test_gt},
    {"greaterthan", "/b", test_gt},
    {"ge", "/b", test_ge},
    {">=", "/b", test_ge},
    {"<", "/b", test_lt},
    {"lt", "/b", test_lt},
    {"lessthan", "/b", test_lt},
    {"<=", "/b", test_le},
    {"le", "/b", test_le},
    {0},
};
