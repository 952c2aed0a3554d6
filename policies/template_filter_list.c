// Filters over lists and whatever else can be gone through. What is a generator in Jinja is lazy here too.
#include "template_parts.h"
#include <math.h>
#include <string.h>

static Value first_of(Run *r, Value v, const char *hint) {
    Iterator local, *it = &local;
    Value item;
    if (v.kind == VALUE_ITERATOR) it = v.as.iterator; // what is taken from it is gone
    else if (!iterator_start(r, v, it)) return value_none();
    if (iterator_next(r, it, &item)) return item;
    return value_undefined(r, hint, NULL, NULL);
}
static Value filter_first(Run *r, Value *a, Call *call) { return (void)call, first_of(r, a[0], "No first item, sequence was empty."); }
static Value filter_last(Run *r, Value *a, Call *call) {
    (void)call;
    if (a[0].kind == VALUE_ITERATOR || a[0].kind == VALUE_LOOP || !value_iterable(a[0]))
        return run_fail(r, "'%s' object is not reversible", value_type(a[0]));
    return first_of(r, value_reversed(r, a[0]), "No last item, sequence was empty.");
}
static Value filter_list(Run *r, Value *a, Call *call) { return (void)call, value_to_list(r, a[0]); }
static Value filter_reverse(Run *r, Value *a, Call *call) { return (void)call, value_reversed(r, a[0]); }

static Value filter_join(Run *r, Value *a, Call *call) {
    (void)call;
    const Text *between = a[1].kind == VALUE_MISSING ? value_str(r, value_literal(r, "")) : value_str(r, a[1]);
    bool by_path = a[2].kind != VALUE_MISSING && a[2].kind != VALUE_NONE;
    Builder b = {0};
    Iterator it;
    Value item;
    if (!iterator_start(r, a[0], &it)) return value_none();
    for (bool first = true; iterator_next(r, &it, &item); first = false) {
        if (!first) builder_text(r, &b, between);
        if (by_path) item = value_path(r, item, a[2], value_missing());
        if (!r->failed) print_str(r, &b, item);
    }
    return builder_value(r, &b);
}

// ---- keys and sorting ------------------------------------------------------------------------------------------------
static Value fold(Run *r, Value v, bool case_sensitive) { return !case_sensitive && is_string(v) ? text_lower(r, v) : v; }
static Value key_of(Run *r, Value item, Value path, Value otherwise, bool case_sensitive) {
    Value key = value_path(r, item, path, otherwise);
    return r->failed ? key : fold(r, key, case_sensitive);
}
// 'a,b' gives a list of keys, compared one after the other.
static Value keys_of(Run *r, Value item, Value path, bool case_sensitive) {
    Text comma = {",", 1, 1};
    Value out = value_list(r, VALUE_LIST, 1), paths;
    if (!is_string(path)) {
        list_push(r, out.as.list, key_of(r, item, path, value_missing(), case_sensitive));
        return out;
    }
    paths = text_split(r, path, &comma, -1, false);
    for (int64_t i = 0; !r->failed && i < paths.as.list->count; i++)
        list_push(r, out.as.list, key_of(r, item, paths.as.list->items[i], value_missing(), case_sensitive));
    return out;
}
// Stable, by merging. `items` are arranged as `keys` are.
static void merge(Run *r, Value *keys, Value *items, Value *spare, int64_t count, bool reverse) {
    if (count < 2 || r->failed) return;
    int64_t half = count / 2, i = 0, j = half;
    merge(r, keys, items, spare, half, reverse);
    merge(r, keys + half, items + half, spare, count - half, reverse);
    for (int64_t k = 0; k < count && !r->failed; k++) {
        bool right = i >= half || (j < count && (reverse ? value_order(r, OP_LT, keys[i], keys[j]) : value_order(r, OP_LT, keys[j], keys[i])));
        int64_t from = right ? j++ : i++;
        spare[2 * k] = keys[from];
        spare[2 * k + 1] = items[from];
    }
    for (int64_t k = 0; k < count && !r->failed; k++) keys[k] = spare[2 * k], items[k] = spare[2 * k + 1];
}
static void sort_by(Run *r, List *keys, List *items, bool reverse) {
    if (!run_room(r, (double)items->count * 2 * sizeof(Value))) return;
    Value *spare = HEAP_NEW(&r->heap, Value, items->count * 2 + 1);
    merge(r, keys->items, items->items, spare, items->count, reverse);
}
static Value filter_sort(Run *r, Value *a, Call *call) {
    (void)call;
    Value items = value_to_list(r, a[0]);
    if (r->failed) return items;
    Value keys = value_list(r, VALUE_LIST, items.as.list->count);
    int64_t reverse;
    bool case_sensitive = argument_true(r, a[2]);
    if (!argument_int(r, a[1], 0, &reverse)) return items;
    for (int64_t i = 0; i < items.as.list->count && !r->failed; i++)
        list_push(r, keys.as.list, keys_of(r, items.as.list->items[i], a[3], case_sensitive));
    if (!r->failed) sort_by(r, keys.as.list, items.as.list, reverse != 0);
    return items;
}
static Value filter_dictsort(Run *r, Value *a, Call *call) {
    (void)call;
    if (a[0].kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, a[0]);
    if (a[0].kind != VALUE_DICT) return run_fail(r, "'%s' object has no attribute 'items'", value_type(a[0]));
    const Text *by = a[2].kind == VALUE_MISSING ? NULL : argument_text(r, a[2]);
    if (r->failed) return value_none();
    int64_t reverse;
    if (!argument_int(r, a[3], 0, &reverse)) return value_none();
    bool by_value = by && text_is(by, "value"), case_sensitive = argument_true(r, a[1]);
    if (by && !by_value && !text_is(by, "key")) return run_fail(r, "You can only sort by either \"key\" or \"value\"");
    View *view = HEAP_NEW(&r->heap, View, 1);
    *view = (View){a[0].as.dict, VIEW_ITEMS};
    Value items = value_to_list(r, (Value){.kind = VALUE_VIEW, .as.view = view});
    Value keys = value_list(r, VALUE_LIST, a[0].as.dict->count);
    for (int64_t i = 0; i < a[0].as.dict->count && !r->failed; i++)
        list_push(r, keys.as.list, fold(r, by_value ? a[0].as.dict->values[i] : a[0].as.dict->keys[i], case_sensitive));
    if (!r->failed) sort_by(r, keys.as.list, items.as.list, reverse != 0);
    return items;
}
static Value filter_groupby(Run *r, Value *a, Call *call) {
    (void)call;
    Value items = value_to_list(r, a[0]), out = value_list(r, VALUE_LIST, 0);
    if (r->failed) return items;
    bool case_sensitive = argument_true(r, a[3]);
    Value keys = value_list(r, VALUE_LIST, items.as.list->count);
    for (int64_t i = 0; i < items.as.list->count && !r->failed; i++)
        list_push(r, keys.as.list, key_of(r, items.as.list->items[i], a[1], a[2], case_sensitive));
    if (!r->failed) sort_by(r, keys.as.list, items.as.list, false);
    for (int64_t i = 0; i < items.as.list->count && !r->failed;) {
        Value group = value_list(r, VALUE_TUPLE, 2), members = value_list(r, VALUE_LIST, 0), key = keys.as.list->items[i];
        Value shown = value_path(r, items.as.list->items[i], a[1], a[2]); // as the first one writes it
        for (; i < items.as.list->count && value_equal(r, key, keys.as.list->items[i]); i++) list_push(r, members.as.list, items.as.list->items[i]);
        if (!members.as.list->count) list_push(r, members.as.list, items.as.list->items[i++]); // NaN equals nothing
        group.as.list->group = true;
        list_push(r, group.as.list, shown);
        list_push(r, group.as.list, members);
        list_push(r, out.as.list, group);
    }
    return out;
}
static Value extreme(Run *r, Value *a, Operator op) {
    Iterator it;
    Value item, best = value_missing(), best_key = value_missing();
    bool case_sensitive = argument_true(r, a[1]);
    if (!iterator_start(r, a[0], &it)) return value_none();
    while (iterator_next(r, &it, &item)) {
        Value key = key_of(r, item, a[2], value_missing(), case_sensitive);
        if (best.kind != VALUE_MISSING && !value_order(r, op, key, best_key)) continue;
        best = item;
        best_key = key;
    }
    return best.kind == VALUE_MISSING ? value_undefined(r, "No aggregated item, sequence was empty.", NULL, NULL) : best;
}
static Value filter_min(Run *r, Value *a, Call *call) { return (void)call, extreme(r, a, OP_LT); }
static Value filter_max(Run *r, Value *a, Call *call) { return (void)call, extreme(r, a, OP_GT); }
static Value filter_sum(Run *r, Value *a, Call *call) {
    (void)call;
    Iterator it;
    Value item, sum = a[2].kind == VALUE_MISSING ? value_int(0) : a[2];
    if (is_string(sum)) return run_fail(r, "sum() can't sum strings");
    if (!iterator_start(r, a[0], &it)) return value_none();
    while (iterator_next(r, &it, &item)) sum = operate(r, OP_ADD, sum, value_path(r, item, a[1], value_missing()));
    return sum;
}

// ---- lazy ones ---------------------------------------------------------------------------------------------------------
// The call that a lazy filter keeps: its value first, then its arguments, as matched.
static Value lazy(Run *r, LazyFunction fill, Value *a, int count) {
    Call *kept = HEAP_NEW(&r->heap, Call, 1);
    kept->values = HEAP_NEW(&r->heap, Value, count);
    memcpy(kept->values, a, (size_t)count * sizeof *a);
    kept->count = count;
    return iterator_lazy(r, fill, kept);
}
// The same for filters that take their call as it is.
static Value lazy_call(Run *r, LazyFunction fill, Value self, const Call *call) {
    Call *kept = HEAP_NEW(&r->heap, Call, 1);
    *kept = *call;
    kept->values = HEAP_NEW(&r->heap, Value, call->count + 1);
    kept->values[0] = self;
    if (call->count) memcpy(kept->values + 1, call->values, (size_t)call->count * sizeof *call->values);
    kept->count = call->count + 1;
    return iterator_lazy(r, fill, kept);
}
static Value fill_items(Run *r, Call *c) {
    Value v = c->values[0];
    if (v.kind == VALUE_UNDEFINED) return value_list(r, VALUE_LIST, 0);
    if (v.kind != VALUE_DICT) return run_fail(r, "Can only get item pairs from a mapping.");
    View *view = HEAP_NEW(&r->heap, View, 1);
    *view = (View){v.as.dict, VIEW_ITEMS};
    return value_to_list(r, (Value){.kind = VALUE_VIEW, .as.view = view});
}
static Value filter_items(Run *r, Value *a, Call *call) { return (void)call, lazy(r, fill_items, a, 1); }

static Value fill_unique(Run *r, Call *c) {
    Iterator it;
    Value item, out = value_list(r, VALUE_LIST, 0);
    Dict *seen = dict_make(r);
    bool case_sensitive = argument_true(r, c->values[1]);
    if (!iterator_start(r, c->values[0], &it)) return out;
    while (iterator_next(r, &it, &item)) {
        Value key = key_of(r, item, c->values[2], value_missing(), case_sensitive);
        int64_t before = seen->count;
        dict_put(r, seen, key, value_none());
        if (seen->count > before) list_push(r, out.as.list, item);
    }
    return out;
}
static Value filter_unique(Run *r, Value *a, Call *call) { return (void)call, lazy(r, fill_unique, a, 3); }

static Value fill_batch(Run *r, Call *c) {
    Iterator it;
    Value item, out = value_list(r, VALUE_LIST, 0), batch = value_missing();
    bool fill = c->values[2].kind != VALUE_MISSING && c->values[2].kind != VALUE_NONE;
    double number;
    int64_t size = value_number(c->values[1], &number) && number == floor(number) && fabs(number) < 1e15 ? (int64_t)number : -1;
    if (!iterator_start(r, c->values[0], &it)) return out;
    while (iterator_next(r, &it, &item)) {
        if (batch.kind == VALUE_MISSING || batch.as.list->count == size) { // a size below one never fills
            if (batch.kind == VALUE_MISSING && size == 0) list_push(r, out.as.list, value_list(r, VALUE_LIST, 0));
            batch = value_list(r, VALUE_LIST, 0);
            list_push(r, out.as.list, batch);
        }
        list_push(r, batch.as.list, item);
    }
    if (fill && batch.kind == VALUE_LIST && !argument_int(r, c->values[1], 0, &size)) return out;
    while (fill && batch.kind == VALUE_LIST && batch.as.list->count < size && run_spend(r, 1)) list_push(r, batch.as.list, c->values[2]);
    return out;
}
static Value filter_batch(Run *r, Value *a, Call *call) { return (void)call, lazy(r, fill_batch, a, 3); }

static Value fill_slice(Run *r, Call *c) {
    Value items = value_to_list(r, c->values[0]), out = value_list(r, VALUE_LIST, 0);
    int64_t slices, at = 0;
    if (!argument_int(r, c->values[1], 0, &slices)) return out;
    if (slices == 0) return run_fail(r, "integer division or modulo by zero");
    bool fill = c->values[2].kind != VALUE_MISSING && c->values[2].kind != VALUE_NONE;
    for (int64_t s = 0; s < slices && run_spend(r, 1); s++) {
        bool extra = s < items.as.list->count % slices;
        Value slice = value_list(r, VALUE_LIST, 0);
        for (int64_t n = items.as.list->count / slices + extra; n > 0; n--) list_push(r, slice.as.list, items.as.list->items[at++]);
        if (fill && !extra) list_push(r, slice.as.list, c->values[2]);
        list_push(r, out.as.list, slice);
    }
    return out;
}
static Value filter_slice(Run *r, Value *a, Call *call) { return (void)call, lazy(r, fill_slice, a, 3); }

// ---- filters that apply filters and tests --------------------------------------------------------------------------
static const Value *named(const Call *c, const char *name) {
    for (int i = 0; i < c->named; i++)
        if (text_is(c->names[i], name)) return &c->named_values[i];
    return NULL;
}
// Applies the filter or test that values[at] names, with the arguments behind it.
static Value apply(Run *r, const Call *c, int at, bool filter, Value item) {
    const Text *name = argument_text(r, c->values[at]);
    const Callable *row = !name ? NULL : filter ? filter_find(name) : test_find(name);
    if (!row) return run_fail(r, "there is no %s '%.60s'", filter ? "filter" : "test", name ? name->data : "");
    Call call = {.values = c->values + at + 1, .count = c->count - at - 1, .names = c->names, .named_values = c->named_values, .named = c->named};
    return callable_call(r, row, &item, &call);
}
static Value fill_map(Run *r, Call *c) {
    Iterator it;
    Value item, out = value_list(r, VALUE_LIST, 0);
    const Value *path = c->count == 1 ? named(c, "attribute") : NULL, *otherwise = path ? named(c, "default") : NULL;
    if (!value_true(r, c->values[0])) return out;
    if (c->count == 1 && !path) return run_fail(r, "map requires a filter argument");
    if (path && c->named > 1 + (otherwise != NULL)) return run_fail(r, "map got an unexpected keyword argument");
    if (!iterator_start(r, c->values[0], &it)) return out;
    while (iterator_next(r, &it, &item))
        list_push(r, out.as.list, path ? value_path(r, item, *path, otherwise ? *otherwise : value_missing()) : apply(r, c, 1, true, item));
    return out;
}
static Value filter_map(Run *r, Value *a, Call *call) { return lazy_call(r, fill_map, a[0], call); }

static Value choose(Run *r, Call *c, bool by_path, bool keep) {
    Iterator it;
    Value item, out = value_list(r, VALUE_LIST, 0);
    int test = by_path ? 2 : 1;
    if (!value_true(r, c->values[0])) return out;
    if (by_path && c->count < 2) return run_fail(r, "Missing parameter for attribute name");
    if (!iterator_start(r, c->values[0], &it)) return out;
    while (iterator_next(r, &it, &item)) {
        Value v = by_path ? value_path(r, item, c->values[1], value_missing()) : item;
        if (r->failed) return out;
        bool holds = value_true(r, c->count > test ? apply(r, c, test, false, v) : v);
        if (holds == keep && !r->failed) list_push(r, out.as.list, item);
    }
    return out;
}
static Value fill_select(Run *r, Call *c) { return choose(r, c, false, true); }
static Value fill_reject(Run *r, Call *c) { return choose(r, c, false, false); }
static Value fill_selectattr(Run *r, Call *c) { return choose(r, c, true, true); }
static Value fill_rejectattr(Run *r, Call *c) { return choose(r, c, true, false); }
static Value filter_select(Run *r, Value *a, Call *call) { return lazy_call(r, fill_select, a[0], call); }
static Value filter_reject(Run *r, Value *a, Call *call) { return lazy_call(r, fill_reject, a[0], call); }
static Value filter_selectattr(Run *r, Value *a, Call *call) { return lazy_call(r, fill_selectattr, a[0], call); }
static Value filter_rejectattr(Run *r, Value *a, Call *call) { return lazy_call(r, fill_rejectattr, a[0], call); }

const Callable filter_list_rows[] = {
    {"batch", "linecount fill_with?", filter_batch},
    {"dictsort", "case_sensitive? by? reverse?", filter_dictsort},
    {"first", "", filter_first},
    {"groupby", "attribute default? case_sensitive?", filter_groupby},
    {"items", "", filter_items},
    {"join", "d? attribute?", filter_join},
    {"last", "", filter_last},
    {"list", "", filter_list},
    {"map", "*", filter_map},
    {"max", "case_sensitive? attribute?", filter_max},
    {"min", "case_sensitive? attribute?", filter_min},
    {"reject", "*", filter_reject},
    {"rejectattr", "*", filter_rejectattr},
    {"reverse", "", filter_reverse},
    {"select", "*", filter_select},
    {"selectattr", "*", filter_selectattr},
    {"slice", "slices fill_with?", filter_slice},
    {"sort", "reverse? case_sensitive? attribute?", filter_sort},
    {"sum", "attribute? start?", filter_sum},
    {"unique", "case_sensitive? attribute?", filter_unique},
    {0},
};
