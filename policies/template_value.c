// Values of templates: memory, making them, and Python's truth, equality, order and membership. Numbers are 64-bit integers
// (a result beyond is an error) and doubles; True equals 1 and 1.0, as in Python. Dicts keep the order of insertion and
// are searched from the front: those of chats are small, and a search is charged by its length.
#include "template_parts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- memory --------------------------------------------------------------------------------------------------
typedef struct HeapBlock {
    struct HeapBlock *next;
    size_t size, used;
    _Alignas(16) char data[];
} HeapBlock;

void *heap_alloc(Heap *h, size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (!h->head || h->head->size - h->head->used < size) {
        size_t room = size > 32768 ? size : 32768;
        HeapBlock *block = xcalloc(1, sizeof *block + room);
        block->size = room;
        block->next = h->head;
        h->head = block;
    }
    void *p = h->head->data + h->head->used;
    h->head->used += size;
    h->used += size;
    return p;
}
void heap_free(Heap *h) {
    for (HeapBlock *b = h->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *h = (Heap){0};
}

// ---- making values -------------------------------------------------------------------------------------------
static uint32_t count_codes(const char *data, size_t size) {
    uint32_t n = 0;
    for (size_t i = 0; i < size; i++) n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}
Text *text_make(Heap *h, const char *data, size_t size) {
    Text *t = HEAP_NEW(h, Text, 1);
    char *copy = heap_alloc(h, size + 1);
    if (size) memcpy(copy, data, size);
    *t = (Text){copy, (uint32_t)size, count_codes(data, size)};
    return t;
}
const Text *text_slice(Heap *h, const Text *t, uint32_t from, uint32_t to) {
    if (from == 0 && to == t->size) return t;
    Text *s = HEAP_NEW(h, Text, 1);
    *s = (Text){t->data + from, to - from, count_codes(t->data + from, to - from)};
    return s;
}
bool text_equal(const Text *a, const Text *b) {
    return a == b || (a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
}
bool text_is(const Text *a, const char *b) { return strlen(b) == a->size && memcmp(a->data, b, a->size) == 0; }

Value value_copy_text(Run *r, const char *data, size_t size) {
    return run_room(r, (double)size) ? value_text(text_make(&r->heap, data, size)) : value_none();
}
Value value_literal(Run *r, const char *text) { return value_copy_text(r, text, strlen(text)); }

Value value_list(Run *r, ValueKind kind, int64_t capacity) {
    List *l = HEAP_NEW(&r->heap, List, 1);
    if (capacity > 0 && run_room(r, (double)capacity * sizeof(Value))) {
        l->items = HEAP_NEW(&r->heap, Value, capacity);
        l->capacity = capacity;
    }
    return (Value){.kind = kind, .as.list = l};
}
// Room for one more in an array that grows by doubling; what it leaves stays on the heap.
static bool grow(Run *r, Value **items, int64_t count, int64_t *capacity) {
    if (count < *capacity) return true;
    int64_t wider = *capacity * 2 + 4;
    if (!run_room(r, (double)wider * sizeof(Value))) return false;
    Value *copy = HEAP_NEW(&r->heap, Value, wider);
    if (count) memcpy(copy, *items, (size_t)count * sizeof(Value));
    *items = copy;
    *capacity = wider;
    return true;
}
void list_push(Run *r, List *l, Value v) {
    if (grow(r, &l->items, l->count, &l->capacity)) l->items[l->count++] = v;
}

Value value_undefined(Run *r, const char *hint, const Text *name, const char *owner) {
    Undefined *u = HEAP_NEW(&r->heap, Undefined, 1);
    *u = (Undefined){hint, name, owner};
    return (Value){.kind = VALUE_UNDEFINED, .as.undefined = u};
}

Dict *dict_make(Run *r) { return HEAP_NEW(&r->heap, Dict, 1); }
Value *dict_find_text(Run *r, const Dict *d, const Text *key) {
    for (int64_t i = 0; i < d->count; i++)
        if (is_string(d->keys[i]) && text_equal(d->keys[i].as.text, key)) {
            r->steps += i / 8;
            return &d->values[i];
        }
    r->steps += d->count / 8;
    return NULL;
}
Value *dict_find(Run *r, const Dict *d, Value key) {
    if (is_string(key)) return dict_find_text(r, d, key.as.text);
    for (int64_t i = 0; i < d->count; i++)
        if (value_equal(r, d->keys[i], key)) return &d->values[i];
    return NULL;
}
static void dict_append(Run *r, Dict *d, Value key, Value value) {
    int64_t capacity = d->capacity;
    if (!grow(r, &d->keys, d->count, &capacity) || !grow(r, &d->values, d->count, &d->capacity)) return;
    d->keys[d->count] = key;
    d->values[d->count++] = value;
}
void dict_put(Run *r, Dict *d, Value key, Value value) {
    if (r->failed || !run_spend(r, 1)) return;
    if (!value_hashable(r, key)) {
        run_fail(r, "unhashable type: '%s'", value_type(key));
        return;
    }
    Value *found = dict_find(r, d, key);
    if (found) *found = value;
    else dict_append(r, d, key, value);
}

Value value_from_json(Run *r, const json_t *json) {
    Value out = value_none();
    switch (json_typeof(json)) {
    case JSON_TRUE: return value_bool(true);
    case JSON_FALSE: return value_bool(false);
    case JSON_INTEGER: return value_int(json_integer_value(json));
    case JSON_REAL: return value_float(json_real_value(json));
    case JSON_STRING: return value_copy_text(r, json_string_value(json), json_string_length(json));
    case JSON_NULL: return out;
    default: break;
    }
    if (!run_enter(r)) return out;
    if (json_is_array(json)) {
        out = value_list(r, VALUE_LIST, (int64_t)json_array_size(json));
        for (size_t i = 0; i < json_array_size(json) && !r->failed; i++)
            list_push(r, out.as.list, value_from_json(r, json_array_get(json, i)));
    } else {
        const char *key;
        size_t size;
        json_t *value;
        out = value_dict(dict_make(r));
        json_object_keylen_foreach((json_t *)json, key, size, value) {
            if (r->failed) break;
            dict_append(r, out.as.dict, value_copy_text(r, key, size), value_from_json(r, value));
        }
    }
    run_leave(r);
    return out;
}

// ---- what a value is -------------------------------------------------------------------------------------------
const char *value_type(Value v) {
    static const char *const names[] = {
        [VALUE_MISSING] = "missing", [VALUE_UNDEFINED] = "Undefined", [VALUE_NONE] = "NoneType", [VALUE_BOOL] = "bool",
        [VALUE_INT] = "int", [VALUE_FLOAT] = "float", [VALUE_STRING] = "str", [VALUE_LIST] = "list",
        [VALUE_TUPLE] = "tuple", [VALUE_DICT] = "dict", [VALUE_VIEW] = "dict_keys", [VALUE_RANGE] = "range",
        [VALUE_ITERATOR] = "generator", [VALUE_NAMESPACE] = "Namespace", [VALUE_MACRO] = "Macro", [VALUE_METHOD] = "method",
        [VALUE_FUNCTION] = "function", [VALUE_LOOP] = "LoopContext", [VALUE_CYCLER] = "Cycler", [VALUE_JOINER] = "Joiner"};
    return v.kind == VALUE_STRING && v.markup ? "Markup" : names[v.kind];
}
bool value_integer(Value v, int64_t *out) {
    if (v.kind == VALUE_INT) *out = v.as.integer;
    else if (v.kind == VALUE_BOOL) *out = v.as.boolean;
    else return false;
    return true;
}
bool value_number(Value v, double *out) {
    int64_t i;
    if (v.kind == VALUE_FLOAT) *out = v.as.number;
    else if (value_integer(v, &i)) *out = (double)i;
    else return false;
    return true;
}
bool value_sized(Value v) {
    switch (v.kind) {
    case VALUE_UNDEFINED: case VALUE_STRING: case VALUE_LIST: case VALUE_TUPLE: case VALUE_DICT: case VALUE_VIEW:
    case VALUE_RANGE: case VALUE_LOOP: return true;
    default: return false;
    }
}
int64_t value_length(Run *r, Value v) {
    switch (v.kind) {
    case VALUE_UNDEFINED: return 0;
    case VALUE_STRING: return v.as.text->length;
    case VALUE_LIST: case VALUE_TUPLE: return v.as.list->count;
    case VALUE_DICT: return v.as.dict->count;
    case VALUE_VIEW: return v.as.view->dict->count;
    case VALUE_RANGE: return v.as.range->count;
    case VALUE_LOOP: {
        Text name = {"length", 6, 6};
        Value length = loop_attribute(r, v, &name);
        return length.kind == VALUE_INT ? length.as.integer : -1;
    }
    default: run_fail(r, "object of type '%s' has no len()", value_type(v)); return -1;
    }
}
bool value_true(Run *r, Value v) {
    switch (v.kind) {
    case VALUE_MISSING: case VALUE_UNDEFINED: case VALUE_NONE: return false;
    case VALUE_BOOL: return v.as.boolean;
    case VALUE_INT: return v.as.integer != 0;
    case VALUE_FLOAT: return v.as.number != 0;
    default: return !value_sized(v) || value_length(r, v) > 0;
    }
}
bool value_hashable(Run *r, Value v) {
    if (v.kind == VALUE_LIST || v.kind == VALUE_DICT || v.kind == VALUE_VIEW) return false;
    if (v.kind != VALUE_TUPLE || !run_enter(r)) return true;
    bool ok = true;
    for (int64_t i = 0; ok && i < v.as.list->count; i++) ok = value_hashable(r, v.as.list->items[i]);
    run_leave(r);
    return ok;
}

// ---- equality ----------------------------------------------------------------------------------------------------
bool value_same(Value a, Value b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case VALUE_MISSING: case VALUE_NONE: return true;
    case VALUE_BOOL: return a.as.boolean == b.as.boolean;
    case VALUE_INT: return a.as.integer == b.as.integer;
    case VALUE_FLOAT: return a.as.number == b.as.number;
    case VALUE_STRING: return text_equal(a.as.text, b.as.text);
    default: return a.as.list == b.as.list;
    }
}
static bool lists_equal(Run *r, const List *a, const List *b) {
    if (a->count != b->count) return false;
    for (int64_t i = 0; i < a->count; i++)
        if (r->failed || !value_equal(r, a->items[i], b->items[i])) return false;
    return true;
}
static bool dicts_equal(Run *r, const Dict *a, const Dict *b) {
    if (a->count != b->count) return false;
    for (int64_t i = 0; i < a->count; i++) {
        Value *other = dict_find(r, b, a->keys[i]);
        if (r->failed || !other || !value_equal(r, a->values[i], *other)) return false;
    }
    return true;
}
static bool ranges_equal(const Range *a, const Range *b) {
    return a->count == b->count && (a->count == 0 || a->start == b->start) && (a->count < 2 || a->step == b->step);
}
// Views of keys and of items are sets.
static bool views_equal(Run *r, const View *a, const View *b) {
    if (a->kind != b->kind || a->kind == VIEW_VALUES) return a == b;
    if (a->kind == VIEW_ITEMS) return dicts_equal(r, a->dict, b->dict);
    if (a->dict->count != b->dict->count) return false;
    for (int64_t i = 0; i < a->dict->count; i++)
        if (!dict_find(r, b->dict, a->dict->keys[i])) return false;
    return true;
}
bool value_equal(Run *r, Value a, Value b) {
    int64_t i, j;
    double x, y;
    if (!run_spend(r, 1)) return false;
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED) return a.kind == b.kind;
    if (value_integer(a, &i) && value_integer(b, &j)) return i == j;
    if (value_number(a, &x) && value_number(b, &y)) return x == y;
    if (a.kind != b.kind) return false;
    if (a.kind == VALUE_STRING || a.kind == VALUE_NONE) return value_same(a, b);
    if (!run_enter(r)) return false;
    bool equal = a.kind == VALUE_DICT                              ? dicts_equal(r, a.as.dict, b.as.dict)
                 : a.kind == VALUE_LIST || a.kind == VALUE_TUPLE   ? lists_equal(r, a.as.list, b.as.list)
                 : a.kind == VALUE_RANGE                           ? ranges_equal(a.as.range, b.as.range)
                 : a.kind == VALUE_VIEW                            ? views_equal(r, a.as.view, b.as.view)
                                                                   : value_same(a, b);
    run_leave(r);
    return equal;
}

// ---- order -------------------------------------------------------------------------------------------------------
static bool order_holds(Operator op, int sign) {
    return op == OP_LT ? sign < 0 : op == OP_LE ? sign <= 0 : op == OP_GT ? sign > 0 : sign >= 0;
}
static bool order_numbers(Operator op, double x, double y) {
    return op == OP_LT ? x < y : op == OP_LE ? x <= y : op == OP_GT ? x > y : x >= y; // NaN holds nowhere
}
static int text_compare(const Text *a, const Text *b) { // UTF-8 sorts as code points do
    int c = memcmp(a->data, b->data, a->size < b->size ? a->size : b->size);
    return c ? c : (a->size > b->size) - (a->size < b->size);
}
static bool order_lists(Run *r, Operator op, const List *a, const List *b) {
    int64_t i = 0;
    while (i < a->count && i < b->count && value_equal(r, a->items[i], b->items[i])) i++;
    if (i < a->count && i < b->count) return value_order(r, op, a->items[i], b->items[i]);
    return order_holds(op, (a->count > b->count) - (a->count < b->count));
}
bool value_order(Run *r, Operator op, Value a, Value b) {
    static const char *const signs[] = {[OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};
    int64_t i, j;
    double x, y;
    if (!run_spend(r, 1)) return false;
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED) {
        operate(r, OP_SUB, a, b); // fails, and says what is undefined
        return false;
    }
    if (value_integer(a, &i) && value_integer(b, &j)) return order_holds(op, (i > j) - (i < j));
    if (value_number(a, &x) && value_number(b, &y)) return order_numbers(op, x, y);
    if (is_string(a) && is_string(b)) return order_holds(op, text_compare(a.as.text, b.as.text));
    if (is_list(a) && a.kind == b.kind) {
        if (!run_enter(r)) return false;
        bool holds = order_lists(r, op, a.as.list, b.as.list);
        run_leave(r);
        return holds;
    }
    run_fail(r, "'%s' not supported between instances of '%s' and '%s'", signs[op], value_type(a), value_type(b));
    return false;
}

// ---- membership ----------------------------------------------------------------------------------------------------
static bool in_iterable(Run *r, Value container, Value item) {
    Iterator it;
    Value v;
    if (!iterator_start(r, container, &it)) return false;
    while (iterator_next(r, &it, &v))
        if (value_equal(r, v, item)) return !r->failed;
    return false;
}
bool value_contains(Run *r, Value container, Value item) {
    if (is_string(container)) {
        if (is_string(item)) return text_find(container.as.text, item.as.text, 0, container.as.text->size) >= 0;
        run_fail(r, "'in <string>' requires string as left operand, not %s", value_type(item));
        return false;
    }
    bool keys = container.kind == VALUE_DICT || (container.kind == VALUE_VIEW && container.as.view->kind == VIEW_KEYS);
    if (!keys) {
        if (value_iterable(container)) return in_iterable(r, container, item);
        run_fail(r, "argument of type '%s' is not iterable", value_type(container));
        return false;
    }
    if (!value_hashable(r, item)) {
        run_fail(r, "unhashable type: '%s'", value_type(item));
        return false;
    }
    return dict_find(r, container.kind == VALUE_DICT ? container.as.dict : container.as.view->dict, item) != NULL;
}
