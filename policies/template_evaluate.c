// Expressions. Chains of operators lean left, so their left spine is collected and walked in a loop; everything else calls
// itself, one level of the depth limit at a time.
#include "template_parts.h"
#include <string.h>

static Value evaluate_name(Run *r, const Node *n) {
    Value *found = scope_find(r, n->name);
    return found ? *found : value_undefined(r, NULL, r->t->names[n->name], NULL);
}
static Value evaluate_list(Run *r, const Node *n, ValueKind kind) {
    Value out = value_list(r, kind, n->count);
    for (int i = 0; i < n->count && !r->failed; i++) list_push(r, out.as.list, run_evaluate(r, n->items[i]));
    return out;
}
static Value evaluate_dict(Run *r, const Node *n) {
    Dict *d = dict_make(r);
    for (int i = 0; i < n->count && !r->failed; i += 2) {
        Value key = run_evaluate(r, n->items[i]);
        dict_put(r, d, key, run_evaluate(r, n->items[i + 1]));
    }
    return value_dict(d);
}
static Value evaluate_concat(Run *r, const Node *n) {
    Builder b = {0};
    for (int i = 0; i < n->count && !r->failed; i++) {
        Value v = run_evaluate(r, n->items[i]);
        if (!r->failed) print_str(r, &b, v);
    }
    return builder_value(r, &b);
}

// ---- chains ------------------------------------------------------------------------------------------------------------
static bool is_chain(const Node *n) { return n->kind == NODE_BINARY || n->kind == NODE_AND || n->kind == NODE_OR; }
static Value evaluate_link(Run *r, const Node *n, Value left) {
    if (n->kind == NODE_BINARY) {
        Value right = run_evaluate(r, n->b);
        r->line = n->line;
        return r->failed ? right : operate(r, n->op, left, right);
    }
    bool yes = value_true(r, left);
    return yes == (n->kind == NODE_AND) ? run_evaluate(r, n->b) : left;
}
static Value evaluate_chain(Run *r, const Node *n) {
    int links = 0;
    const Node *first = n;
    for (; is_chain(first); first = first->a) links++;
    const Node **spine = HEAP_NEW(&r->heap, const Node *, links);
    for (int i = links; i-- > 0; n = n->a) spine[i] = n;
    Value v = run_evaluate(r, first);
    for (int i = 0; i < links && run_spend(r, 1); i++) v = evaluate_link(r, spine[i], v);
    return v;
}
static bool compare(Run *r, Operator op, Value a, Value b) {
    if (op == OP_EQ || op == OP_NE) return value_equal(r, a, b) == (op == OP_EQ);
    if (op == OP_IN || op == OP_NOT_IN) return value_contains(r, b, a) == (op == OP_IN);
    return value_order(r, op, a, b);
}
static Value evaluate_comparison(Run *r, const Node *n) {
    Value left = run_evaluate(r, n->a);
    for (int i = 0; i < n->count && !r->failed; i++) {
        Value right = run_evaluate(r, n->items[i]);
        r->line = n->line;
        if (r->failed || !compare(r, n->ops[i], left, right)) return value_bool(false);
        left = right;
    }
    return value_bool(true);
}
static Value evaluate_choice(Run *r, const Node *n) {
    bool yes = value_true(r, run_evaluate(r, n->b));
    if (r->failed) return value_none();
    if (yes) return run_evaluate(r, n->a);
    return n->c ? run_evaluate(r, n->c) : value_undefined(r, "the inline if-expression was false and has no else", NULL, NULL);
}

// ---- calls -------------------------------------------------------------------------------------------------------------
static void add_named(Run *r, Call *call, const Text *name, Value value) {
    for (int i = 0; i < call->named; i++)
        if (text_equal(call->names[i], name)) {
            run_fail(r, "got multiple values for keyword argument '%.60s'", name->data);
            return;
        }
    call->names[call->named] = name;
    call->named_values[call->named++] = value;
}
static int64_t star_count(Run *r, Value *star) {
    if (star->kind == VALUE_MISSING) return 0;
    *star = value_to_list(r, *star);
    return r->failed ? 0 : star->as.list->count;
}
// All arguments of a call; `caller` (missing: none) is added to the named ones.
static Call *evaluate_arguments(Run *r, const Arguments *g, Value caller) {
    Call *call = HEAP_NEW(&r->heap, Call, 1);
    Value star = value_missing(), star_star = value_missing();
    int count = g ? g->count : 0, named = g ? g->named : 0;
    Value *values = HEAP_NEW(&r->heap, Value, count + named + 1);
    for (int i = 0; i < count; i++) values[i] = run_evaluate(r, g->values[i]);
    if (g && g->star) star = run_evaluate(r, g->star);
    for (int i = 0; i < named; i++) values[count + i] = run_evaluate(r, g->named_values[i]);
    if (g && g->star_star) star_star = run_evaluate(r, g->star_star);
    int64_t extra = star_count(r, &star), extra_named = star_star.kind == VALUE_DICT ? star_star.as.dict->count : 0;
    if (star_star.kind != VALUE_MISSING && star_star.kind != VALUE_DICT) run_fail(r, "argument after ** must be a mapping, not %s", value_type(star_star));
    if (!run_room(r, 64.0 * (double)(extra + extra_named)) || !run_spend(r, extra + extra_named)) return call;
    call->values = HEAP_NEW(&r->heap, Value, count + extra + 1);
    call->named_values = HEAP_NEW(&r->heap, Value, named + extra_named + 1);
    call->names = HEAP_NEW(&r->heap, const Text *, named + extra_named + 1);
    for (int i = 0; i < count; i++) call->values[call->count++] = values[i];
    for (int64_t i = 0; i < extra; i++) call->values[call->count++] = star.as.list->items[i];
    for (int i = 0; i < named; i++) add_named(r, call, g->names[i], values[count + i]);
    if (caller.kind != VALUE_MISSING) add_named(r, call, r->t->names[r->t->caller], caller);
    for (int64_t i = 0; i < extra_named && run_spend(r, call->named / 8); i++) {
        if (!is_string(star_star.as.dict->keys[i])) run_fail(r, "keywords must be strings");
        else add_named(r, call, star_star.as.dict->keys[i].as.text, star_star.as.dict->values[i]);
    }
    return call;
}
Value run_call(Run *r, Value callee, Call *call) {
    if (r->failed) return value_none();
    switch (callee.kind) {
    case VALUE_MACRO: return macro_call(r, callee.as.macro, call);
    case VALUE_LOOP: return loop_call(r, callee.as.loop, call);
    case VALUE_FUNCTION: return callable_call(r, &callee.as.function->callable, NULL, call);
    case VALUE_METHOD:
        return callable_call(r, &callee.as.method->function->callable, &callee.as.method->self, call);
    case VALUE_JOINER: {
        Cycler *j = callee.as.cycler;
        return j->position++ ? j->items[0] : value_literal(r, "");
    }
    case VALUE_UNDEFINED: return operate_unary(r, OP_NEG, callee); // the error of undefined values
    default: return run_fail(r, "'%s' object is not callable", value_type(callee));
    }
}
static Value evaluate_call(Run *r, const Node *n) {
    Value caller = value_missing();
    if (r->calls_block == n) caller = r->block, r->calls_block = NULL;
    Value callee = run_evaluate(r, n->a);
    if (r->failed) return callee;
    Call *call = evaluate_arguments(r, n->arguments, caller);
    r->line = n->line;
    return run_call(r, callee, call);
}
static Value evaluate_filter(Run *r, const Node *n) {
    Value self = n->a ? run_evaluate(r, n->a) : r->block;
    if (r->failed) return self;
    r->line = n->line;
    if (!n->callable) return run_fail(r, "there is no %s '%.60s'", n->kind == NODE_FILTER ? "filter" : "test", n->text->data);
    Call *call = evaluate_arguments(r, n->arguments, value_missing());
    return r->failed ? value_none() : callable_call(r, n->callable, &self, call);
}
static Value evaluate_slice(Run *r, const Node *n) {
    Value parts[3], self = run_evaluate(r, n->a);
    for (int i = 0; i < 3; i++) parts[i] = n->items[i] ? run_evaluate(r, n->items[i]) : value_none();
    r->line = n->line;
    return r->failed ? self : value_slice(r, self, parts[0], parts[1], parts[2]);
}
static Value evaluate_item(Run *r, const Node *n) {
    Value self = run_evaluate(r, n->a);
    if (r->failed) return self;
    Value index = run_evaluate(r, n->b);
    r->line = n->line;
    return r->failed ? index : value_item(r, self, index);
}

static Value evaluate(Run *r, const Node *n) {
    Value v;
    switch (n->kind) {
    case NODE_LIST: return evaluate_list(r, n, VALUE_LIST);
    case NODE_TUPLE: return evaluate_list(r, n, VALUE_TUPLE);
    case NODE_DICT: return evaluate_dict(r, n);
    case NODE_UNARY: v = run_evaluate(r, n->a); return r->failed ? v : operate_unary(r, n->op, v);
    case NODE_BINARY: case NODE_AND: case NODE_OR: return evaluate_chain(r, n);
    case NODE_NOT: v = run_evaluate(r, n->a); return r->failed ? v : value_bool(!value_true(r, v));
    case NODE_CONCAT: return evaluate_concat(r, n);
    case NODE_COMPARE: return evaluate_comparison(r, n);
    case NODE_ATTRIBUTE:
        v = run_evaluate(r, n->a);
        r->line = n->line;
        return r->failed ? v : value_attribute(r, v, n->text);
    case NODE_ITEM: return evaluate_item(r, n);
    case NODE_SLICE: return evaluate_slice(r, n);
    case NODE_CALL: return evaluate_call(r, n);
    case NODE_FILTER: case NODE_TEST: return evaluate_filter(r, n);
    case NODE_CHOICE: return evaluate_choice(r, n);
    default: return run_fail(r, "this is not an expression");
    }
}
Value run_evaluate(Run *r, const Node *n) {
    if (n->kind == NODE_CONSTANT) return n->value;
    if (n->kind == NODE_NAME) return r->failed ? value_none() : evaluate_name(r, n);
    if (!run_spend(r, 1) || !run_enter(r)) return value_none();
    Value v = evaluate(r, n);
    run_leave(r);
    return v;
}
