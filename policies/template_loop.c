// for: going through the items that the condition lets pass, one ahead at most, so that a condition sees what the body did
// before (as in Jinja, where it is a generator); `loop` and its attributes; recursive loops.
#include "template_parts.h"
#include <string.h>

static void bind_target(Run *r, const Node *target, Value item) {
    if (r->failed) return;
    if (target->kind == NODE_NAME) {
        scope_set(r, target->name, item);
        return;
    }
    Value items = value_to_list(r, item);
    if (r->failed) return;
    if (target->kind != NODE_TUPLE || items.as.list->count != target->count) {
        run_fail(r, "%lld values to unpack, expected %d", (long long)items.as.list->count, target->count);
        return;
    }
    for (int i = 0; i < target->count; i++) bind_target(r, target->items[i], items.as.list->items[i]);
}
static bool passes(Run *r, const Loop *loop, Value item) {
    Scope *outer = r->scope;
    r->scope = scope_open(r, loop->scope, &loop->node->hidden_condition);
    bind_target(r, loop->node->a, item);
    bool pass = !r->failed && value_true(r, run_evaluate(r, loop->node->c));
    r->scope = outer;
    return pass;
}
// The next item of the source that passes.
static bool pull(Run *r, Loop *loop, Value *out) {
    Value item;
    while (iterator_next(r, &loop->iterator, &item)) {
        bool pass = !loop->node->c || loop->filtered || passes(r, loop, item);
        if (r->failed) return false;
        if (!pass) continue;
        *out = item;
        return true;
    }
    return false;
}
static bool peek(Run *r, Loop *loop) {
    return loop->after.kind != VALUE_MISSING || pull(r, loop, &loop->after);
}
bool loop_next(Run *r, Loop *loop, Value *item) {
    if (!peek(r, loop)) return false;
    *item = loop->after;
    loop->after = value_missing();
    loop->index++;
    loop->before = loop->current;
    loop->current = *item;
    return true;
}
// How many items there are in all; those to come are fetched where only that tells.
static int64_t loop_length(Run *r, Loop *loop) {
    if (loop->length >= 0) return loop->length;
    Value source = loop->iterator.source;
    if (!loop->node->c && source.kind != VALUE_ITERATOR && source.kind != VALUE_LOOP) return loop->length = loop->iterator.count;
    Value rest = value_list(r, VALUE_LIST, 0), item;
    bool ahead = loop->after.kind != VALUE_MISSING;
    while (pull(r, loop, &item)) list_push(r, rest.as.list, item);
    if (!iterator_start(r, rest, &loop->iterator)) return 0;
    loop->filtered = true;
    return loop->length = rest.as.list->count + loop->index + 1 + ahead;
}

// ---- loop.xyz ----------------------------------------------------------------------------------------------------------
static Value loop_neighbour(Run *r, Value v, const char *hint) {
    return v.kind == VALUE_MISSING ? value_undefined(r, hint, NULL, NULL) : v;
}
Value loop_attribute(Run *r, Value self, const Text *name) {
    Loop *l = self.as.loop;
    if (text_is(name, "index")) return value_int(l->index + 1);
    if (text_is(name, "index0")) return value_int(l->index);
    if (text_is(name, "first")) return value_bool(l->index == 0);
    if (text_is(name, "last")) return value_bool(!peek(r, l));
    if (text_is(name, "length")) return value_int(loop_length(r, l));
    if (text_is(name, "revindex")) return value_int(loop_length(r, l) - l->index);
    if (text_is(name, "revindex0")) return value_int(loop_length(r, l) - l->index - 1);
    if (text_is(name, "depth")) return value_int(l->depth + 1);
    if (text_is(name, "depth0")) return value_int(l->depth);
    if (text_is(name, "previtem")) return l->index == 0 ? loop_neighbour(r, value_missing(), "there is no previous item") : l->before;
    if (text_is(name, "nextitem")) {
        peek(r, l);
        return loop_neighbour(r, l->after, "there is no next item");
    }
    return value_missing();
}

// ---- running -------------------------------------------------------------------------------------------------------------
static bool run_rounds(Run *r, Loop *loop, Scope *outer) {
    const Node *n = loop->node;
    Value item, self = {.kind = VALUE_LOOP, .as.loop = loop};
    bool finished = false; // a round came to its end
    Scope *scope = NULL;
    while (loop_next(r, loop, &item)) {
        if (!scope || n->captures) scope = scope_open(r, outer, NULL);
        scope->count = 0;
        r->scope = scope;
        scope_set(r, r->t->loop, self);
        for (int i = 0; i < n->hidden.count; i++) scope_set(r, n->hidden.names[i], value_missing());
        bind_target(r, n->a, item);
        if (!r->failed) run_body(r, n->body);
        r->scope = outer;
        if (r->failed) break;
        finished |= r->flow == FLOW_ON;
        bool leave = r->flow == FLOW_BREAK;
        r->flow = FLOW_ON;
        if (leave) break;
    }
    return finished;
}
static void run_once(Run *r, const Node *n, Value source, Scope *outer, int depth) {
    Loop *loop = HEAP_NEW(&r->heap, Loop, 1);
    *loop = (Loop){.node = n, .scope = outer, .index = -1, .length = -1, .depth = depth};
    if (!iterator_start(r, source, &loop->iterator)) return;
    Scope *held = r->scope;
    r->scope = outer;
    bool finished = run_rounds(r, loop, outer);
    if (!r->failed && !finished && n->otherwise) { // as in Jinja: rounds that were all cut short count as none
        r->scope = scope_open(r, outer, &n->hidden_otherwise);
        run_body(r, n->otherwise);
    }
    r->scope = held;
}
void run_loop(Run *r, const Node *n) {
    Value source = run_evaluate(r, n->b);
    if (!r->failed) run_once(r, n, source, r->scope, 0);
}
// loop(items) inside a recursive loop: the text of the same body over these items.
Value loop_call(Run *r, Loop *loop, const Call *call) {
    if (!loop->node->recursive) return run_fail(r, "the loop must have the 'recursive' marker to be called");
    if (call->count != 1 || call->named) return run_fail(r, "a recursive loop takes one argument, found %d", call->count + call->named);
    if (!run_enter(r)) return value_none();
    Builder text = {0}, *out = r->out;
    r->out = &text;
    run_once(r, loop->node, call->values[0], loop->scope, loop->depth + 1);
    r->out = out;
    run_leave(r);
    return builder_value(r, &text);
}
