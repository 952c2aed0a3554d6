// Calling what is built in: arguments are matched with the parameters of the table's row, as Python matches them.
#include "template_parts.h"
#include <stdio.h>
#include <string.h>

static const char *next_parameter(const char *p, const char **name, size_t *size, bool *needed) {
    while (*p == ' ') p++;
    *name = p;
    *size = strcspn(p, " ?");
    p += *size;
    *needed = *p != '?';
    return *p == '?' ? p + 1 : p;
}
static int named_argument(const Call *call, const char *name, size_t size) {
    for (int i = 0; i < call->named; i++)
        if (call->names[i]->size == size && memcmp(call->names[i]->data, name, size) == 0) return i;
    return -1;
}
// Fills a[from..] and checks that nothing is left over.
static bool match(Run *r, const Callable *c, const Call *call, bool by_name, Value *a, int from) {
    const char *p = c->parameters, *name;
    size_t size;
    bool needed;
    int taken = 0, named = 0, at = from;
    for (; *p; at++) {
        p = next_parameter(p, &name, &size, &needed);
        int found = by_name ? named_argument(call, name, size) : -1;
        a[at] = value_missing();
        if (taken < call->count) {
            a[at] = call->values[taken++];
            if (found >= 0) return run_fail(r, "%s() got multiple values for argument '%.*s'", c->name, (int)size, name), false;
        } else if (found >= 0) {
            a[at] = call->named_values[found];
            named++;
        } else if (needed) {
            return run_fail(r, "%s() is missing the argument '%.*s'", c->name, (int)size, name), false;
        }
    }
    if (taken < call->count) return run_fail(r, "%s() takes at most %d arguments, found %d", c->name, at - from, call->count), false;
    if (named < call->named) return run_fail(r, "%s() got an unexpected keyword argument", c->name), false;
    return true;
}
Value callable_call(Run *r, const Callable *c, Value *self, Call *call) {
    Value a[PARAMETER_LIMIT + 1];
    int from = 0;
    if (!run_enter(r)) return value_none();
    if (self) a[from++] = *self;
    Callable row = *c;
    bool by_name = true;
    if (row.parameters[0] == '/') { // positional only
        by_name = false;
        row.parameters++;
    }
    call->callable = c;
    Value out = value_none();
    if (row.parameters[0] == '*' || match(r, &row, call, by_name, a, from)) out = c->function(r, a, call);
    run_leave(r);
    return r->failed ? value_none() : out;
}

const Callable *callable_find(const Callable *rows, const Text *name) {
    for (; rows->name; rows++)
        if (text_is(name, rows->name)) return rows;
    return NULL;
}
const Callable *filter_find(const Text *name) {
    const Callable *found = callable_find(filter_rows, name);
    return found ? found : callable_find(filter_list_rows, name);
}
const Callable *test_find(const Text *name) { return callable_find(test_rows, name); }

bool argument_int(Run *r, Value v, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (v.kind == VALUE_MISSING || value_integer(v, out)) return true;
    if (v.kind == VALUE_UNDEFINED) operate_unary(r, OP_NEG, v);
    run_fail(r, "'%s' object cannot be interpreted as an integer", value_type(v));
    return false;
}
bool argument_true(Run *r, Value v) { return v.kind != VALUE_MISSING && value_true(r, v); }
const Text *argument_text(Run *r, Value v) {
    if (is_string(v)) return v.as.text;
    run_fail(r, "expected str, found '%s'", value_type(v));
    return NULL;
}
