// Rendering: statements, scopes, macros, and the limits. A scope is a short list of names; a name is looked up from the
// innermost scope outwards, then among the variables given and the globals. Errors name the template's file and line.
#include "template_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUN_DEPTH = 600,            // calls, brackets, values in values
    RUN_BYTES = 96 << 20,       // made while rendering
    RUN_STEPS = 4000000,        // and some more for each byte given
};

// ---- failing and limits ----------------------------------------------------------------------------------------------
Value run_fail(Run *r, const char *format, ...) {
    if (r->failed) return value_none();
    char msg[600];
    va_list args;
    va_start(args, format);
    vsnprintf(msg, sizeof msg, format, args);
    va_end(args);
    template_fail(r->t, r->line, r->err, "%s", msg);
    r->failed = true;
    return value_none();
}
bool run_spend(Run *r, int64_t steps) {
    if (r->failed) return false;
    r->steps += steps + 1;
    if (r->steps > r->step_limit) run_fail(r, "the template does not end within %lld steps", (long long)r->step_limit);
    else if (r->heap.used > RUN_BYTES) run_fail(r, "the template uses more than %d MiB", RUN_BYTES >> 20);
    return !r->failed;
}
bool run_room(Run *r, double size) {
    if (r->failed) return false;
    if (size + (double)r->heap.used > RUN_BYTES) run_fail(r, "the template uses more than %d MiB", RUN_BYTES >> 20);
    return !r->failed;
}
bool run_enter(Run *r) {
    if (r->failed) return false;
    if (r->depth >= RUN_DEPTH) {
        run_fail(r, "nested more than %d levels deep", RUN_DEPTH);
        return false;
    }
    r->depth++;
    return true;
}
void run_leave(Run *r) { r->depth--; }

// ---- scopes ------------------------------------------------------------------------------------------------------------
static void scope_add(Run *r, Scope *s, int name, Value value) {
    if (s->count == s->capacity) {
        int capacity = s->capacity * 2 + 4;
        Binding *wider = HEAP_NEW(&r->heap, Binding, capacity);
        if (s->count) memcpy(wider, s->list, (size_t)s->count * sizeof *wider);
        s->list = wider;
        s->capacity = capacity;
    }
    s->list[s->count++] = (Binding){name, value};
}
Scope *scope_open(Run *r, Scope *parent, const Hidden *hidden) {
    Scope *s = HEAP_NEW(&r->heap, Scope, 1);
    s->parent = parent;
    for (int i = 0; hidden && i < hidden->count; i++) scope_add(r, s, hidden->names[i], value_missing());
    return s;
}
void scope_set(Run *r, int name, Value value) {
    Scope *s = r->scope;
    for (int i = 0; i < s->count; i++)
        if (s->list[i].name == name) {
            s->list[i].value = value;
            return;
        }
    scope_add(r, s, name, value);
}
Value *scope_find(Run *r, int name) {
    for (Scope *s = r->scope; s; s = s->parent)
        for (int i = 0; i < s->count; i++)
            if (s->list[i].name == name) return s->list[i].value.kind == VALUE_MISSING ? NULL : &s->list[i].value;
    return r->base[name].kind == VALUE_MISSING ? NULL : &r->base[name];
}

// ---- assigning ---------------------------------------------------------------------------------------------------------
static void assign(Run *r, const Node *target, Value value);
static void assign_member(Run *r, const Node *target, Value value) {
    Value *found = scope_find(r, target->name);
    if (!found || found->kind != VALUE_NAMESPACE) run_fail(r, "cannot assign attribute on non-namespace object");
    else if (target->text->data[0] == '_') run_fail(r, "names with an underscore can't be stored in a namespace");
    else dict_put(r, found->as.dict, value_text(target->text), value);
}
static void assign_tuple(Run *r, const Node *target, Value value) {
    Value items = value_to_list(r, value);
    if (r->failed) return;
    if (items.as.list->count != target->count) {
        run_fail(r, "%lld values to unpack, expected %d", (long long)items.as.list->count, target->count);
        return;
    }
    for (int i = 0; i < target->count && !r->failed; i++) assign(r, target->items[i], items.as.list->items[i]);
}
static void assign(Run *r, const Node *target, Value value) {
    if (r->failed) return;
    if (target->kind == NODE_NAME) scope_set(r, target->name, value);
    else if (target->kind == NODE_MEMBER) assign_member(r, target, value);
    else assign_tuple(r, target, value);
}

// ---- blocks that capture what they print -------------------------------------------------------------------------------
// The text of a body that runs in a scope of its own. Missing if the body was left by break or continue.
static Value capture(Run *r, const Node *body, Scope *scope) {
    Builder text = {0}, *out = r->out;
    Scope *outer = r->scope;
    r->out = &text;
    r->scope = scope;
    run_body(r, body);
    r->out = out;
    r->scope = outer;
    return r->flow == FLOW_ON ? builder_value(r, &text) : value_missing();
}
// A block's filters, applied to its text in the block's scope.
static Value filter_block(Run *r, const Node *filter, Value text, Scope *scope) {
    Scope *outer = r->scope;
    r->scope = scope;
    Value held = r->block;
    r->block = text;
    Value out = run_evaluate(r, filter);
    r->block = held;
    r->scope = outer;
    return out;
}
// What a filter or call block gives must be text.
static void put_text(Run *r, Value v) {
    if (is_string(v)) builder_text(r, r->out, v.as.text);
    else run_fail(r, "expected str, found '%s'", value_type(v));
}
static void run_set_block(Run *r, const Node *n) {
    Scope *scope = scope_open(r, r->scope, &n->hidden);
    Value text = capture(r, n->body, scope);
    if (text.kind == VALUE_MISSING) return;
    if (n->b) text = filter_block(r, n->b, text, scope);
    assign(r, n->a, text);
}
static void run_filter_block(Run *r, const Node *n) {
    Scope *scope = scope_open(r, r->scope, &n->hidden);
    Value text = capture(r, n->body, scope);
    if (text.kind != VALUE_MISSING) put_text(r, filter_block(r, n->a, text, scope));
}
static void run_with(Run *r, const Node *n) {
    Scope *outer = r->scope, *scope = scope_open(r, outer, &n->hidden);
    for (int i = 0; i < n->count && !r->failed; i += 2) {
        Value value = run_evaluate(r, n->items[i + 1]);
        r->scope = scope;
        assign(r, n->items[i], value);
        r->scope = outer;
    }
    r->scope = scope;
    run_body(r, n->body);
    r->scope = outer;
}
// {% generation %}: what it prints, and where in the whole text that will stand.
static void run_generation(Run *r, const Node *n) {
    int64_t start = r->root.length;
    Value text = capture(r, n->body, scope_open(r, r->scope, &n->hidden));
    TemplateResult *result = r->result;
    if (r->failed) return;
    if (result->span_count == r->span_capacity) {
        r->span_capacity = r->span_capacity * 2 + 8;
        result->spans = xrealloc(result->spans, (size_t)r->span_capacity * sizeof *result->spans);
    }
    result->spans[result->span_count++] = (TemplateSpan){start, start + text.as.text->length};
    builder_text(r, r->out, text.as.text);
}

// ---- macros ------------------------------------------------------------------------------------------------------------
static int named_index(const Call *call, const Text *name) {
    for (int i = 0; i < call->named; i++)
        if (text_equal(call->names[i], name)) return i;
    return -1;
}
// The parameters of a macro, bound in r->scope; `used` marks the named arguments taken.
static void bind_parameters(Run *r, const Parameters *q, const Call *call, bool *used) {
    for (int i = 0; i < q->count && !r->failed; i++) {
        Value value = value_missing();
        const Text *name = r->t->names[q->names[i]];
        int named = i < call->count ? -1 : named_index(call, name);
        if (i < call->count) value = call->values[i];
        else if (named >= 0) value = call->named_values[named], used[named] = true;
        else if (q->defaults[i]) value = run_evaluate(r, q->defaults[i]);
        else value = value_undefined(r, "the parameter was not provided", name, NULL);
        scope_set(r, q->names[i], value);
    }
}
static void bind_special(Run *r, const Macro *m, const Call *call, bool *used) {
    const Parameters *q = m->node->parameters;
    const Text *caller_name = r->t->names[r->t->caller];
    if (q->reads_caller) {
        int named = named_index(call, caller_name);
        if (named >= 0) used[named] = true;
        bool given = named >= 0 && call->named_values[named].kind != VALUE_NONE;
        scope_set(r, r->t->caller, given ? call->named_values[named] : value_undefined(r, "No caller defined", caller_name, NULL));
    }
    Dict *rest = dict_make(r);
    for (int i = 0; i < call->named; i++) {
        if (used[i]) continue;
        if (!q->reads_kwargs) {
            run_fail(r, "the macro takes no keyword argument '%.60s'", call->names[i]->data);
            return;
        }
        dict_put(r, rest, value_text(call->names[i]), call->named_values[i]);
    }
    if (q->reads_kwargs) scope_set(r, r->t->kwargs, value_dict(rest));
    if (call->count > q->count && !q->reads_varargs)
        run_fail(r, "the macro takes not more than %d arguments, found %d", q->count, call->count);
    Value extra = value_list(r, VALUE_TUPLE, 0);
    for (int i = q->count; q->reads_varargs && i < call->count; i++) list_push(r, extra.as.list, call->values[i]);
    if (q->reads_varargs) scope_set(r, r->t->varargs, extra);
}
Value macro_call(Run *r, const Macro *m, const Call *call) {
    if (!run_enter(r) || !run_spend(r, 10)) return value_none();
    Scope *outer = r->scope, *scope = scope_open(r, m->scope, &m->node->hidden);
    bool *used = HEAP_NEW(&r->heap, bool, call->named + 1);
    r->scope = scope;
    bind_parameters(r, m->node->parameters, call, used);
    if (!r->failed) bind_special(r, m, call, used);
    r->scope = outer;
    Value text = r->failed ? value_none() : capture(r, m->node->body, scope);
    run_leave(r);
    return text;
}
static Value make_macro(Run *r, const Node *n) {
    Macro *m = HEAP_NEW(&r->heap, Macro, 1);
    *m = (Macro){n, r->scope};
    return (Value){.kind = VALUE_MACRO, .as.macro = m};
}
// {% call f(x) %}: the call, with the block as its argument `caller`.
static void run_call_block(Run *r, const Node *n) {
    Value held = r->block;
    r->block = make_macro(r, n);
    r->calls_block = n->a;
    Value out = run_evaluate(r, n->a);
    r->block = held;
    put_text(r, out);
}

// ---- statements --------------------------------------------------------------------------------------------------------
static void run_if(Run *r, const Node *n) {
    for (int i = 0; i + 1 < n->count; i += 2) {
        bool holds = value_true(r, run_evaluate(r, n->items[i]));
        if (r->failed) return;
        if (holds) {
            run_body(r, n->items[i + 1]);
            return;
        }
    }
    if (n->c) run_body(r, n->c);
}
static void run_statement(Run *r, const Node *n) {
    r->line = n->line;
    switch (n->kind) {
    case NODE_TEXT: builder_text(r, r->out, n->value.as.text); break;
    case NODE_PRINT: {
        Value v = run_evaluate(r, n->a);
        if (!r->failed) print_str(r, r->out, v);
        break;
    }
    case NODE_IF: run_if(r, n); break;
    case NODE_FOR: run_loop(r, n); break;
    case NODE_SET: assign(r, n->a, run_evaluate(r, n->b)); break;
    case NODE_SET_BLOCK: run_set_block(r, n); break;
    case NODE_MACRO: scope_set(r, n->name, make_macro(r, n)); break;
    case NODE_CALL_BLOCK: run_call_block(r, n); break;
    case NODE_FILTER_BLOCK: run_filter_block(r, n); break;
    case NODE_WITH: run_with(r, n); break;
    case NODE_GENERATION: run_generation(r, n); break;
    case NODE_BREAK: r->flow = FLOW_BREAK; break;
    case NODE_CONTINUE: r->flow = FLOW_CONTINUE; break;
    default: run_body(r, n); break;
    }
}
void run_body(Run *r, const Node *body) {
    if (!run_enter(r)) return;
    for (int i = 0; i < body->count && r->flow == FLOW_ON && run_spend(r, 1); i++) run_statement(r, body->items[i]);
    run_leave(r);
}

// ---- the whole ---------------------------------------------------------------------------------------------------------
// What the template's names mean outside of all scopes.
static void find_variables(Run *r, const json_t *variables) {
    for (int i = 0; i < r->t->name_count && !r->failed; i++) {
        const Text *name = r->t->names[i];
        json_t *given = json_object_getn(variables, name->data, name->size);
        const Function *f = given ? NULL : function_find(name);
        if (given) r->base[i] = value_from_json(r, given);
        else if (f) r->base[i] = (Value){.kind = VALUE_FUNCTION, .as.function = f};
    }
}
static void render(Run *r, const json_t *variables) {
    r->base = HEAP_NEW(&r->heap, Value, r->t->name_count + 1);
    find_variables(r, variables);
    r->step_limit = RUN_STEPS + 20 * (int64_t)r->heap.used;
    r->scope = scope_open(r, NULL, &r->t->root->hidden);
    r->out = &r->root;
    if (!r->failed) run_body(r, r->t->root);
}
bool template_render(const Template *t, const json_t *variables, int64_t now, TemplateResult *result, Err *err) {
    Run run = {.t = t, .err = err, .result = result, .now = now, .line = 1, .step_limit = INT64_MAX / 2};
    *result = (TemplateResult){0};
    render(&run, variables);
    if (!run.failed) buf_append(&result->text, run.root.data ? run.root.data : "", run.root.size);
    heap_free(&run.heap);
    return !run.failed;
}
void template_result_free(TemplateResult *r) {
    buf_free(&r->text), buf_free(&r->exception);
    free(r->spans);
    *r = (TemplateResult){0};
}
