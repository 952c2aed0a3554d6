// Going through values in order, and slices. Lists can't change while a template runs, so positions are enough. What the
// filters map, select and their like give is lazy, as in Python: it is computed when it is first looked into, and what
// has been taken from it is gone.
#include "template_parts.h"
#include <string.h>

bool value_iterable(Value v) { return v.kind == VALUE_ITERATOR || value_sized(v); }

bool iterator_start(Run *r, Value v, Iterator *out) {
    *out = (Iterator){.source = v};
    if (r->failed) return false;
    if (!value_iterable(v)) {
        run_fail(r, "'%s' object is not iterable", value_type(v));
        return false;
    }
    if (v.kind != VALUE_ITERATOR && v.kind != VALUE_LOOP) out->count = value_length(r, v);
    return true;
}

static Value view_item(Run *r, const View *v, int64_t i) {
    if (v->kind == VIEW_KEYS) return v->dict->keys[i];
    if (v->kind == VIEW_VALUES) return v->dict->values[i];
    Value pair = value_list(r, VALUE_TUPLE, 2);
    list_push(r, pair.as.list, v->dict->keys[i]);
    list_push(r, pair.as.list, v->dict->values[i]);
    return pair;
}
Value range_item(const Range *range, int64_t i) { return value_int(range->start + i * range->step); }

static bool next_of_iterator(Run *r, Iterator *it, Value *out) {
    if (it->fill) {
        LazyFunction fill = it->fill;
        it->fill = NULL;
        if (!run_enter(r)) return false;
        Value list = fill(r, it->call);
        run_leave(r);
        if (r->failed) return false;
        bool reversed = it->reversed;
        if (!iterator_start(r, list, it)) return false;
        it->reversed = reversed;
    }
    return iterator_next(r, it, out);
}
static bool next_of_string(Run *r, Iterator *it, Value *out) {
    const Text *t = it->source.as.text;
    if (it->offset >= t->size) return false;
    uint32_t size;
    text_code(t, it->offset, &size);
    *out = value_text(text_slice(&r->heap, t, it->offset, it->offset + size));
    it->offset += size;
    return true;
}
bool iterator_next(Run *r, Iterator *it, Value *out) {
    if (!run_spend(r, 1)) return false;
    Value s = it->source;
    if (s.kind == VALUE_ITERATOR) return next_of_iterator(r, s.as.iterator, out);
    if (it->fill) return next_of_iterator(r, it, out);
    if (s.kind == VALUE_STRING) return next_of_string(r, it, out);
    if (s.kind == VALUE_LOOP) { // a loop gives (item, loop)
        Value item;
        if (!loop_next(r, s.as.loop, &item)) return false;
        *out = value_list(r, VALUE_TUPLE, 2);
        list_push(r, out->as.list, item);
        list_push(r, out->as.list, s);
        return true;
    }
    if (it->position >= it->count) return false;
    int64_t i = it->reversed ? it->count - 1 - it->position : it->position;
    it->position++;
    switch (s.kind) {
    case VALUE_LIST: case VALUE_TUPLE: *out = s.as.list->items[i]; return true;
    case VALUE_DICT: *out = s.as.dict->keys[i]; return true;
    case VALUE_VIEW: *out = view_item(r, s.as.view, i); return true;
    case VALUE_RANGE: *out = range_item(s.as.range, i); return true;
    default: return false;
    }
}

Value iterator_lazy(Run *r, LazyFunction fill, Call *call) {
    Iterator *it = HEAP_NEW(&r->heap, Iterator, 1);
    it->fill = fill;
    it->call = call;
    return (Value){.kind = VALUE_ITERATOR, .as.iterator = it};
}

Value value_to_list(Run *r, Value v) {
    Iterator it;
    Value item, out = value_list(r, VALUE_LIST, value_sized(v) ? value_length(r, v) : 0);
    if (!iterator_start(r, v, &it)) return value_none();
    while (iterator_next(r, &it, &item)) list_push(r, out.as.list, item);
    return out;
}

// ---- slices ----------------------------------------------------------------------------------------------------
// A bound of a slice, from none, an int or a bool; clipped as Python does.
static bool slice_bound(Run *r, Value v, int64_t otherwise, int64_t low, int64_t high, int64_t length, int64_t *out) {
    *out = otherwise;
    if (v.kind == VALUE_NONE) return true;
    if (!value_integer(v, out)) {
        run_fail(r, "slice indices must be integers or None, found '%s'", value_type(v));
        return false;
    }
    if (*out < 0) *out = *out < -length ? low : *out + length;
    if (*out > high) *out = high;
    if (*out < low) *out = low;
    return true;
}
static Value slice_text(Run *r, Value v, int64_t start, int64_t step, int64_t count) {
    const Text *t = v.as.text;
    if (step == 1) {
        uint32_t from = text_offset(t, start), to = text_offset(t, start + count);
        return value_like(v, value_text(text_slice(&r->heap, t, from, to)));
    }
    Builder b = {0};
    if (!text_ascii(t) && !run_spend(r, (int64_t)t->size * (count > 64 ? 64 : count) / 16)) return value_none();
    for (int64_t i = 0; i < count && run_spend(r, 1); i++) {
        uint32_t size, at = text_offset(t, start + i * step);
        text_code(t, at, &size);
        builder_append(r, &b, t->data + at, size);
    }
    return value_like(v, builder_value(r, &b));
}
Value value_slice(Run *r, Value v, Value start_given, Value stop_given, Value step_given) {
    int64_t step = 1, start, stop;
    if (v.kind == VALUE_UNDEFINED) return operate_unary(r, OP_NEG, v); // the error of undefined values
    if (v.kind != VALUE_STRING && !is_list(v) && v.kind != VALUE_RANGE)
        return run_fail(r, v.kind == VALUE_DICT ? "unhashable type: 'slice'" : "'%s' object is not subscriptable", value_type(v));
    if (step_given.kind != VALUE_NONE && !value_integer(step_given, &step))
        return run_fail(r, "slice indices must be integers or None, found '%s'", value_type(step_given));
    if (step == 0) return run_fail(r, "slice step cannot be zero");
    int64_t length = value_length(r, v), low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
    if (step < -length - 1) step = -length - 1; // the same items, and no overflow
    if (step > length + 1) step = length + 1;
    if (!slice_bound(r, start_given, step < 0 ? high : low, low, high, length, &start) ||
        !slice_bound(r, stop_given, step < 0 ? low : high, low, high, length, &stop))
        return value_none();
    int64_t count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0) : (start > stop ? (start - stop - 1) / -step + 1 : 0);
    if (v.kind == VALUE_STRING) return slice_text(r, v, start, step, count);
    if (v.kind == VALUE_RANGE) {
        Range *out = HEAP_NEW(&r->heap, Range, 1), *in = v.as.range;
        *out = (Range){in->start + start * in->step, in->start + stop * in->step, in->step * step, count};
        return (Value){.kind = VALUE_RANGE, .as.range = out};
    }
    Value out = value_list(r, v.kind, count);
    if (!run_spend(r, count)) return out;
    for (int64_t i = 0; i < count; i++) list_push(r, out.as.list, v.as.list->items[start + i * step]);
    return out;
}

// The filter reverse: text backwards, otherwise something to iterate over once.
Value value_reversed(Run *r, Value v) {
    if (v.kind == VALUE_STRING) return value_slice(r, v, value_none(), value_none(), value_int(-1));
    if (v.kind == VALUE_ITERATOR || v.kind == VALUE_LOOP)
        return value_slice(r, value_to_list(r, v), value_none(), value_none(), value_int(-1));
    if (!value_iterable(v)) return run_fail(r, "argument must be iterable, found '%s'", value_type(v));
    Iterator *it = HEAP_NEW(&r->heap, Iterator, 1);
    if (!iterator_start(r, v, it)) return value_none();
    it->reversed = true;
    return (Value){.kind = VALUE_ITERATOR, .as.iterator = it};
}
