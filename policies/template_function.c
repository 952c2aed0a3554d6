// The functions that templates may call: range, namespace, dict, raise_exception, strftime_now, joiner, cycler.
#include "template_parts.h"
#include <string.h>
#include <time.h>

enum { RANGE_LIMIT = 100000 };

static Value f_range(Run *r, Value *a, Call *c) {
    (void)c;
    int64_t start, stop, step, span;
    Range *range = HEAP_NEW(&r->heap, Range, 1);
    if (!argument_int(r, a[0], 0, &start) || !argument_int(r, a[1], 0, &stop) || !argument_int(r, a[2], 1, &step)) return value_none();
    if (a[1].kind == VALUE_MISSING) stop = start, start = 0;
    if (step == 0) return run_fail(r, "range() arg 3 must not be zero");
    *range = (Range){start, stop, step, 0};
    bool forward = step > 0;
    if (forward ? start < stop : start > stop) {
        if (__builtin_sub_overflow(forward ? stop : start, forward ? start : stop, &span) || step == INT64_MIN) span = INT64_MAX, step = 1;
        range->count = (span - 1) / (forward ? step : -step) + 1;
    }
    if (range->count > RANGE_LIMIT) return run_fail(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", RANGE_LIMIT);
    return (Value){.kind = VALUE_RANGE, .as.range = range};
}
// dict(pairs or dict, key=value ...), also what namespace takes.
static Dict *make_dict(Run *r, Call *c) {
    Dict *d = dict_make(r);
    if (c->count > 1) return run_fail(r, "dict expected at most 1 argument, got %d", c->count), d;
    if (c->count && c->values[0].kind == VALUE_DICT) {
        const Dict *from = c->values[0].as.dict;
        for (int64_t i = 0; i < from->count && !r->failed; i++) dict_put(r, d, from->keys[i], from->values[i]);
    } else if (c->count) {
        Iterator it;
        Value item;
        if (!iterator_start(r, c->values[0], &it)) return d;
        while (iterator_next(r, &it, &item)) {
            Value pair = value_to_list(r, item);
            if (r->failed || pair.as.list->count != 2) return run_fail(r, "dict: expected pairs"), d;
            dict_put(r, d, pair.as.list->items[0], pair.as.list->items[1]);
        }
    }
    for (int i = 0; i < c->named && !r->failed; i++) dict_put(r, d, value_text(c->names[i]), c->named_values[i]);
    return d;
}
static Value f_dict(Run *r, Value *a, Call *c) { return (void)a, value_dict(make_dict(r, c)); }
static Value f_namespace(Run *r, Value *a, Call *c) {
    (void)a;
    Dict *d = make_dict(r, c);
    for (int64_t i = 0; i < d->count; i++)
        if (is_string(d->keys[i]) && d->keys[i].as.text->size && d->keys[i].as.text->data[0] == '_')
            return run_fail(r, "names with an underscore can't be stored in a namespace");
    return (Value){.kind = VALUE_NAMESPACE, .as.dict = d};
}
static Value f_raise(Run *r, Value *a, Call *c) {
    (void)c;
    const Text *message = value_str(r, a[0]);
    if (r->failed) return value_none();
    buf_append(&r->result->exception, message->data, message->size);
    r->result->raised = true;
    return run_fail(r, "%s", r->result->exception.data);
}
static Value f_strftime(Run *r, Value *a, Call *c) {
    (void)c;
    const Text *format = argument_text(r, a[0]);
    if (!format) return value_none();
    time_t now = r->now >= 0 ? (time_t)r->now : time(NULL);
    struct tm parts;
    char with_mark[512], out[2048];
    if (format->size + 2 > sizeof with_mark) return run_fail(r, "strftime_now: a format of %u bytes, expected at most 500", format->size);
    memcpy(with_mark, format->data, format->size);
    memcpy(with_mark + format->size, ".", 2); // an empty result and one that doesn't fit look the same otherwise
    if (memchr(format->data, 0, format->size) || !(r->now >= 0 ? gmtime_r(&now, &parts) : localtime_r(&now, &parts))) return run_fail(r, "strftime_now: no such time");
    size_t n = strftime(out, sizeof out, with_mark, &parts);
    return n ? value_copy_text(r, out, n - 1) : run_fail(r, "strftime_now: the format gives too long a text");
}
static Value make_cycler(Run *r, ValueKind kind, const Value *items, int64_t count) {
    Cycler *y = HEAP_NEW(&r->heap, Cycler, 1);
    y->items = HEAP_NEW(&r->heap, Value, count);
    memcpy(y->items, items, (size_t)count * sizeof *items);
    y->count = count;
    return (Value){.kind = kind, .as.cycler = y};
}
static Value f_joiner(Run *r, Value *a, Call *c) {
    (void)c;
    Value between = a[0].kind == VALUE_MISSING ? value_literal(r, ", ") : a[0];
    return make_cycler(r, VALUE_JOINER, &between, 1);
}
static Value f_cycler(Run *r, Value *a, Call *c) {
    (void)a;
    if (!c->count) return run_fail(r, "at least one item has to be provided");
    return make_cycler(r, VALUE_CYCLER, c->values, c->count);
}

const Function function_rows[] = {
    {{"range", "/start stop? step?", f_range}, false},
    {{"dict", "*", f_dict}, false},
    {{"namespace", "*", f_namespace}, false},
    {{"raise_exception", "message", f_raise}, false},
    {{"strftime_now", "format", f_strftime}, false},
    {{"joiner", "sep?", f_joiner}, false},
    {{"cycler", "*", f_cycler}, false},
    {{0}, false},
};
const Function *function_find(const Text *name) {
    for (const Function *f = function_rows; f->callable.name; f++)
        if (text_is(name, f->callable.name)) return f;
    return NULL;
}
