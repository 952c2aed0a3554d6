// Methods of text, lists, dicts and the like, and the attributes that are no entries of a dict. What would change a list or
// a dict is known and refused: templates can't.
#include "template_parts.h"
#include <math.h>
#include <string.h>

static const Text *text_or_null(Run *r, Value v) { // an argument that may be left out or none
    return v.kind == VALUE_MISSING || v.kind == VALUE_NONE ? NULL : argument_text(r, v);
}
// [from, to) in bytes of the part of a text that find, count, startswith and their like look at. False: there is no such part.
static bool text_part(Run *r, const Text *t, Value start, Value end, uint32_t *from, uint32_t *to) {
    int64_t i, j;
    if (start.kind == VALUE_NONE) start = value_missing();
    if (end.kind == VALUE_NONE) end = value_missing();
    if (!argument_int(r, start, 0, &i) || !argument_int(r, end, t->length, &j)) return false;
    if (j > t->length) j = t->length;
    if (j < 0) j = j + t->length < 0 ? 0 : j + t->length;
    if (i < 0) i = i + t->length < 0 ? 0 : i + t->length;
    if (i > j) return false;
    *from = text_offset(t, i);
    *to = text_offset(t, j);
    return run_spend(r, (*to - *from) / 64);
}
static int64_t code_index(const Text *t, int64_t at) { // of a byte offset
    if (text_ascii(t)) return at;
    int64_t n = 0;
    for (int64_t i = 0; i < at; i++) n += ((unsigned char)t->data[i] & 0xC0) != 0x80;
    return n;
}

// ---- text ----------------------------------------------------------------------------------------------------------------
static Value string_strip(Run *r, Value *a, bool left, bool right) {
    const Text *chars = text_or_null(r, a[1]);
    return r->failed ? value_none() : value_like(a[0], value_text(text_strip(r, a[0].as.text, chars, left, right)));
}
static Value m_strip(Run *r, Value *a, Call *c) { return (void)c, string_strip(r, a, true, true); }
static Value m_lstrip(Run *r, Value *a, Call *c) { return (void)c, string_strip(r, a, true, false); }
static Value m_rstrip(Run *r, Value *a, Call *c) { return (void)c, string_strip(r, a, false, true); }
static Value string_split(Run *r, Value *a, bool from_right) {
    const Text *separator = text_or_null(r, a[1]);
    int64_t limit;
    if (!argument_int(r, a[2], -1, &limit) || r->failed) return value_none();
    return text_split(r, a[0], separator, limit < 0 ? -1 : limit, from_right);
}
static Value m_split(Run *r, Value *a, Call *c) { return (void)c, string_split(r, a, false); }
static Value m_rsplit(Run *r, Value *a, Call *c) { return (void)c, string_split(r, a, true); }
static Value m_splitlines(Run *r, Value *a, Call *c) {
    (void)c;
    int64_t keep;
    return argument_int(r, a[1], 0, &keep) ? text_lines(r, a[0], keep != 0) : value_none();
}
static Value string_partition(Run *r, Value *a, bool last) {
    const Text *t = a[0].as.text, *separator = argument_text(r, a[1]);
    if (!separator) return value_none();
    if (!separator->size) return run_fail(r, "empty separator");
    int64_t at = last ? text_find_last(t, separator, 0, t->size) : text_find(t, separator, 0, t->size);
    uint32_t cuts[4] = {0, (uint32_t)at, (uint32_t)at + separator->size, t->size};
    if (at < 0) cuts[1] = cuts[2] = last ? 0 : t->size;
    Value out = value_list(r, VALUE_TUPLE, 3);
    for (int i = 0; i < 3; i++) list_push(r, out.as.list, value_like(a[0], value_text(text_slice(&r->heap, t, cuts[i], cuts[i + 1]))));
    return out;
}
static Value m_partition(Run *r, Value *a, Call *c) { return (void)c, string_partition(r, a, false); }
static Value m_rpartition(Run *r, Value *a, Call *c) { return (void)c, string_partition(r, a, true); }
static bool begins(const Text *t, const Text *part, uint32_t from, uint32_t to, bool at_end) {
    if (part->size > to - from) return false;
    return memcmp(t->data + (at_end ? to - part->size : from), part->data, part->size) == 0;
}
static Value string_begins(Run *r, Value *a, bool at_end) {
    uint32_t from, to;
    if (!is_string(a[1]) && a[1].kind != VALUE_TUPLE)
        return run_fail(r, "%s first arg must be str or a tuple of str, not %s", at_end ? "endswith" : "startswith", value_type(a[1]));
    if (!text_part(r, a[0].as.text, a[2], a[3], &from, &to)) return value_bool(false);
    if (is_string(a[1])) return value_bool(begins(a[0].as.text, a[1].as.text, from, to, at_end));
    for (int64_t i = 0; i < a[1].as.list->count; i++) {
        const Text *part = argument_text(r, a[1].as.list->items[i]);
        if (!part) return value_none();
        if (begins(a[0].as.text, part, from, to, at_end)) return value_bool(true);
    }
    return value_bool(false);
}
static Value m_startswith(Run *r, Value *a, Call *c) { return (void)c, string_begins(r, a, false); }
static Value m_endswith(Run *r, Value *a, Call *c) { return (void)c, string_begins(r, a, true); }
static Value string_find(Run *r, Value *a, bool last, bool needed) {
    uint32_t from, to;
    const Text *t = a[0].as.text, *part = argument_text(r, a[1]);
    int64_t at = -1;
    if (part && text_part(r, t, a[2], a[3], &from, &to)) at = last ? text_find_last(t, part, from, to) : text_find(t, part, from, to);
    if (at < 0 && needed) return run_fail(r, "substring not found");
    return value_int(at < 0 ? -1 : code_index(t, at));
}
static Value m_find(Run *r, Value *a, Call *c) { return (void)c, string_find(r, a, false, false); }
static Value m_rfind(Run *r, Value *a, Call *c) { return (void)c, string_find(r, a, true, false); }
static Value m_index(Run *r, Value *a, Call *c) { return (void)c, string_find(r, a, false, true); }
static Value m_rindex(Run *r, Value *a, Call *c) { return (void)c, string_find(r, a, true, true); }
static Value m_count(Run *r, Value *a, Call *c) {
    (void)c;
    uint32_t from, to;
    const Text *t = a[0].as.text, *part = argument_text(r, a[1]);
    int64_t n = 0;
    if (!part || !text_part(r, t, a[2], a[3], &from, &to)) return value_int(0);
    if (!part->size) return value_int(code_index(t, to) - code_index(t, from) + 1);
    for (int64_t at; run_spend(r, 1) && (at = text_find(t, part, from, to)) >= 0; n++) from = (uint32_t)at + part->size;
    return value_int(n);
}
static Value m_replace(Run *r, Value *a, Call *c) {
    (void)c;
    const Text *old = argument_text(r, a[1]), *new = argument_text(r, a[2]);
    int64_t count;
    if (!argument_int(r, a[3], -1, &count) || r->failed) return value_none();
    Builder escaped = {0};
    if (a[0].markup && !a[2].markup) {
        print_escaped(r, &escaped, a[2]);
        new = builder_value(r, &escaped).as.text;
    }
    return value_like(a[0], text_replace(r, a[0].as.text, old, new, count < 0 ? -1 : count));
}
static Value m_join(Run *r, Value *a, Call *c) {
    (void)c;
    Builder b = {0};
    Iterator it;
    Value item;
    if (!iterator_start(r, a[1], &it)) return value_none();
    for (bool first = true; iterator_next(r, &it, &item); first = false) {
        if (!first) builder_text(r, &b, a[0].as.text);
        if (a[0].markup) print_escaped(r, &b, item);
        else if (argument_text(r, item)) builder_text(r, &b, item.as.text);
    }
    return value_like(a[0], builder_value(r, &b));
}
static Value m_upper(Run *r, Value *a, Call *c) { return (void)c, text_upper(r, a[0]); }
static Value m_lower(Run *r, Value *a, Call *c) { return (void)c, text_lower(r, a[0]); }
static Value m_title(Run *r, Value *a, Call *c) { return (void)c, text_title(r, a[0], false); }
static Value m_capitalize(Run *r, Value *a, Call *c) { return (void)c, text_capitalize(r, a[0]); }
static Value m_swapcase(Run *r, Value *a, Call *c) { return (void)c, text_swapcase(r, a[0]); }
static Value m_casefold(Run *r, Value *a, Call *c) { return (void)c, text_casefold(r, a[0]); }
static Value string_pad(Run *r, Value *a, char side) {
    int64_t width;
    const Text *fill = a[2].kind == VALUE_MISSING ? NULL : argument_text(r, a[2]);
    if (!argument_int(r, a[1], 0, &width) || r->failed) return value_none();
    if (fill && fill->length != 1) return run_fail(r, "The fill character must be exactly one character long");
    return text_pad(r, a[0], width, fill ? text_code(fill, 0, &(uint32_t){0}) : ' ', side);
}
static Value m_ljust(Run *r, Value *a, Call *c) { return (void)c, string_pad(r, a, '<'); }
static Value m_rjust(Run *r, Value *a, Call *c) { return (void)c, string_pad(r, a, '>'); }
static Value m_center(Run *r, Value *a, Call *c) { return (void)c, string_pad(r, a, '^'); }
static Value m_zfill(Run *r, Value *a, Call *c) {
    (void)c;
    const Text *t = a[0].as.text;
    int64_t width;
    bool sign = t->size && (t->data[0] == '+' || t->data[0] == '-');
    if (!argument_int(r, a[1], 0, &width) || width <= t->length) return a[0];
    Builder b = {0};
    builder_append(r, &b, t->data, sign);
    builder_fill(r, &b, '0', width - t->length);
    builder_append(r, &b, t->data + sign, t->size - sign);
    return value_like(a[0], builder_value(r, &b));
}
static Value string_remove(Run *r, Value *a, bool at_end) {
    const Text *t = a[0].as.text, *part = argument_text(r, a[1]);
    if (!part || !begins(t, part, 0, t->size, at_end)) return a[0];
    return value_like(a[0], value_text(text_slice(&r->heap, t, at_end ? 0 : part->size, at_end ? t->size - part->size : t->size)));
}
static Value m_removeprefix(Run *r, Value *a, Call *c) { return (void)c, string_remove(r, a, false); }
static Value m_removesuffix(Run *r, Value *a, Call *c) { return (void)c, string_remove(r, a, true); }
static Value m_format(Run *r, Value *a, Call *c) { return format_braces(r, a[0], c); }
static Value m_kind(Run *r, Value *a, Call *c) {
    static const char kinds[][2] = {"a", "d", "n", "s", "U", "L", "T", "D", "N", "A", "i"};
    static const char *const names[] = {"isalpha", "isdigit", "isalnum", "isspace", "isupper", "islower", "istitle", "isdecimal", "isnumeric", "isascii", "isidentifier"};
    (void)r;
    for (int i = 0; i < COUNT(names); i++)
        if (!strcmp(c->callable->name, names[i])) return value_bool(text_kind(a[0].as.text, kinds[i][0]));
    return value_none();
}
const Function string_methods[] = {
    {{"strip", "/chars?", m_strip}, false},
    {{"lstrip", "/chars?", m_lstrip}, false},
    {{"rstrip", "/chars?", m_rstrip}, false},
    {{"split", "sep? maxsplit?", m_split}, false},
    {{"rsplit", "sep? maxsplit?", m_rsplit}, false},
    {{"splitlines", "keepends?", m_splitlines}, false},
    {{"partition", "/sep", m_partition}, false},
    {{"rpartition", "/sep", m_rpartition}, false},
    {{"startswith", "/prefix start? end?", m_startswith}, false},
    {{"endswith", "/suffix start? end?", m_endswith}, false},
    {{"find", "/sub start? end?", m_find}, false},
    {{"rfind", "/sub start? end?", m_rfind}, false},
    {{"index", "/sub start? end?", m_index}, false},
    {{"rindex", "/sub start? end?", m_rindex}, false},
    {{"count", "/sub start? end?", m_count}, false},
    {{"replace", "/old new count?", m_replace}, false},
    {{"join", "/iterable", m_join}, false},
    {{"upper", "", m_upper}, false},
    {{"lower", "", m_lower}, false},
    {{"casefold", "", m_casefold}, false},
    {{"title", "", m_title}, false},
    {{"capitalize", "", m_capitalize}, false},
    {{"swapcase", "", m_swapcase}, false},
    {{"ljust", "/width fillchar?", m_ljust}, false},
    {{"rjust", "/width fillchar?", m_rjust}, false},
    {{"center", "/width fillchar?", m_center}, false},
    {{"zfill", "/width", m_zfill}, false},
    {{"removeprefix", "/prefix", m_removeprefix}, false},
    {{"removesuffix", "/suffix", m_removesuffix}, false},
    {{"format", "*", m_format}, false},
    {{"isalpha", "", m_kind}, false},
    {{"isdigit", "", m_kind}, false},
    {{"isalnum", "", m_kind}, false},
    {{"isspace", "", m_kind}, false},
    {{"isupper", "", m_kind}, false},
    {{"islower", "", m_kind}, false},
    {{"istitle", "", m_kind}, false},
    {{"isdecimal", "", m_kind}, false},
    {{"isnumeric", "", m_kind}, false},
    {{"isascii", "", m_kind}, false},
    {{"isidentifier", "", m_kind}, false},
    {{0}, false},
};

// ---- lists and tuples ------------------------------------------------------------------------------------------------
static Value l_count(Run *r, Value *a, Call *c) {
    (void)c;
    int64_t n = 0;
    for (int64_t i = 0; i < a[0].as.list->count && !r->failed; i++) n += value_equal(r, a[0].as.list->items[i], a[1]);
    return value_int(n);
}
static Value l_index(Run *r, Value *a, Call *c) {
    (void)c;
    int64_t start, stop, n = a[0].as.list->count;
    if (!argument_int(r, a[2], 0, &start) || !argument_int(r, a[3], n, &stop)) return value_none();
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (stop < 0) stop += n;
    for (int64_t i = start; i < n && i < stop && !r->failed; i++)
        if (value_equal(r, a[0].as.list->items[i], a[1])) return value_int(i);
    return run_fail(r, "the value is not in the list");
}
static Value l_copy(Run *r, Value *a, Call *c) { return (void)c, value_to_list(r, a[0]); }
const Function list_methods[] = {
    {{"count", "/value", l_count}, false},
    {{"index", "/value start? stop?", l_index}, false},
    {{"copy", "", l_copy}, false},
    {{"append", "*", NULL}, true},
    {{"clear", "*", NULL}, true},
    {{"extend", "*", NULL}, true},
    {{"insert", "*", NULL}, true},
    {{"pop", "*", NULL}, true},
    {{"remove", "*", NULL}, true},
    {{"reverse", "*", NULL}, true},
    {{"sort", "*", NULL}, true},
    {{0}, false},
};

// ---- dicts -----------------------------------------------------------------------------------------------------------
static Value dict_view(Run *r, Value v, ViewKind kind) {
    View *view = HEAP_NEW(&r->heap, View, 1);
    *view = (View){v.as.dict, kind};
    return (Value){.kind = VALUE_VIEW, .as.view = view};
}
static Value d_get(Run *r, Value *a, Call *c) {
    (void)c;
    if (!value_hashable(r, a[1])) return run_fail(r, "unhashable type: '%s'", value_type(a[1]));
    Value *found = dict_find(r, a[0].as.dict, a[1]);
    return found ? *found : a[2].kind == VALUE_MISSING ? value_none() : a[2];
}
static Value d_keys(Run *r, Value *a, Call *c) { return (void)c, dict_view(r, a[0], VIEW_KEYS); }
static Value d_values(Run *r, Value *a, Call *c) { return (void)c, dict_view(r, a[0], VIEW_VALUES); }
static Value d_items(Run *r, Value *a, Call *c) { return (void)c, dict_view(r, a[0], VIEW_ITEMS); }
static Value d_copy(Run *r, Value *a, Call *c) {
    (void)c;
    Dict *copy = dict_make(r);
    for (int64_t i = 0; i < a[0].as.dict->count && !r->failed; i++) dict_put(r, copy, a[0].as.dict->keys[i], a[0].as.dict->values[i]);
    return value_dict(copy);
}
const Function dict_methods[] = {
    {{"get", "/key default?", d_get}, false},
    {{"keys", "", d_keys}, false},
    {{"values", "", d_values}, false},
    {{"items", "", d_items}, false},
    {{"copy", "", d_copy}, false},
    {{"clear", "*", NULL}, true},
    {{"pop", "*", NULL}, true},
    {{"popitem", "*", NULL}, true},
    {{"setdefault", "*", NULL}, true},
    {{"update", "*", NULL}, true},
    {{0}, false},
};

// ---- loops, cyclers, numbers -----------------------------------------------------------------------------------------
static Value o_cycle(Run *r, Value *a, Call *c) {
    if (!c->count) return run_fail(r, "no items for cycling given");
    return c->values[a[0].as.loop->index % c->count];
}
static Value o_changed(Run *r, Value *a, Call *c) {
    Value now = value_list(r, VALUE_TUPLE, c->count);
    for (int i = 0; i < c->count; i++) list_push(r, now.as.list, c->values[i]);
    Loop *loop = a[0].as.loop;
    if (loop->changed.kind != VALUE_MISSING && value_equal(r, loop->changed, now)) return value_bool(false);
    loop->changed = now;
    return value_bool(true);
}
static Value o_next(Run *r, Value *a, Call *c) {
    (void)r, (void)c;
    Cycler *y = a[0].as.cycler;
    Value v = y->items[y->position];
    y->position = (y->position + 1) % y->count;
    return v;
}
static Value o_reset(Run *r, Value *a, Call *c) {
    (void)r, (void)c;
    a[0].as.cycler->position = 0;
    return value_none();
}
static Value o_is_integer(Run *r, Value *a, Call *c) {
    (void)r, (void)c;
    return value_bool(a[0].kind != VALUE_FLOAT || a[0].as.number == floor(a[0].as.number));
}
const Function other_methods[] = {
    {{"cycle", "*", o_cycle}, false},
    {{"changed", "*", o_changed}, false},
    {{"next", "", o_next}, false},
    {{"reset", "", o_reset}, false},
    {{"is_integer", "", o_is_integer}, false},
    {{0}, false},
};

// ---- finding them ------------------------------------------------------------------------------------------------------
static const Function *find(const Function *rows, const Text *name) {
    for (; rows->callable.name; rows++)
        if (text_is(name, rows->callable.name)) return rows;
    return NULL;
}
const Function *method_find(Value self, const Text *name) {
    switch (self.kind) {
    case VALUE_STRING: return find(string_methods, name);
    case VALUE_LIST: return find(list_methods, name);
    case VALUE_TUPLE: return text_is(name, "count") || text_is(name, "index") ? find(list_methods, name) : NULL;
    case VALUE_DICT: return find(dict_methods, name);
    case VALUE_LOOP: return text_is(name, "cycle") || text_is(name, "changed") ? find(other_methods, name) : NULL;
    case VALUE_CYCLER: return text_is(name, "next") || text_is(name, "reset") ? find(other_methods, name) : NULL;
    case VALUE_FLOAT: return text_is(name, "is_integer") ? find(other_methods, name) : NULL;
    default: return NULL;
    }
}
static Value macro_attribute(Run *r, const Macro *m, const Text *name) {
    const Parameters *q = m->node->parameters;
    if (text_is(name, "name")) return m->node->kind == NODE_MACRO ? value_text(r->t->names[m->node->name]) : value_none();
    if (text_is(name, "catch_kwargs")) return value_bool(q->reads_kwargs);
    if (text_is(name, "catch_varargs")) return value_bool(q->reads_varargs);
    if (text_is(name, "caller")) return value_bool(q->reads_caller);
    if (!text_is(name, "arguments")) return value_missing();
    Value names = value_list(r, VALUE_TUPLE, q->count);
    for (int i = 0; i < q->count; i++) list_push(r, names.as.list, value_text(r->t->names[q->names[i]]));
    return names;
}
Value builtin_attribute(Run *r, Value v, const Text *name) {
    if (v.kind == VALUE_NAMESPACE) {
        Value *found = dict_find_text(r, v.as.dict, name);
        return found ? *found : value_missing();
    }
    if (v.kind == VALUE_MACRO) return macro_attribute(r, v.as.macro, name);
    if (v.kind == VALUE_CYCLER && text_is(name, "current")) return v.as.cycler->items[v.as.cycler->position];
    if (v.kind == VALUE_TUPLE && v.as.list->group && text_is(name, "grouper")) return v.as.list->items[0];
    if (v.kind == VALUE_TUPLE && v.as.list->group && text_is(name, "list")) return v.as.list->items[1];
    if (v.kind == VALUE_LOOP) {
        Value found = loop_attribute(r, v, name);
        if (found.kind != VALUE_MISSING) return found;
    }
    const Function *f = method_find(v, name);
    if (!f) return value_missing();
    if (f->unsafe) return value_undefined(r, "lists and dicts can't be changed by a template", name, value_type(v));
    Method *m = HEAP_NEW(&r->heap, Method, 1);
    *m = (Method){v, f};
    return (Value){.kind = VALUE_METHOD, .as.method = m};
}
