// Which names a scope hides. Jinja decides at compile time where a name lives: what a scope assigns to, without having read it
// before, is the scope's own from its beginning, so that a macro or a loop inside reads "undefined" and not the variable
// of that name that was given to the template. Everything else behaves as if names were looked up while running, which
// is what template_run.c does. Follows jinja2's idtracking.py: the branches of an if are looked at side by side.
#include "template_parts.h"
#include <string.h>

typedef struct NameSet {
    uint64_t bits[NAME_LIMIT / 64];
} NameSet;
static bool has(const NameSet *s, int name) { return s->bits[name / 64] >> (name % 64) & 1; }
static void put(NameSet *s, int name) { s->bits[name / 64] |= (uint64_t)1 << (name % 64); }

typedef struct Symbols {
    const struct Symbols *parent;
    NameSet known, stored, hidden;
} Symbols;

static bool known_here_or_above(const Symbols *s, int name) {
    for (; s; s = s->parent)
        if (has(&s->known, name)) return true;
    return false;
}
static void load(Symbols *s, int name) {
    if (!known_here_or_above(s, name)) put(&s->known, name);
}
static void store(Symbols *s, int name) {
    put(&s->stored, name);
    if (has(&s->known, name)) return;
    put(&s->known, name);
    if (!known_here_or_above(s->parent, name)) put(&s->hidden, name);
}
static void parameter(Symbols *s, int name) {
    put(&s->stored, name);
    put(&s->known, name);
}

// ---- what is read and assigned in a scope ------------------------------------------------------------------------
static void visit_arguments(Symbols *s, const Arguments *g);
static void visit_expression(Symbols *s, const Node *n) {
    for (; n; n = n->a) { // chains lean left
        if (n->kind == NODE_NAME || n->kind == NODE_MEMBER) load(s, n->name);
        if (n->b) visit_expression(s, n->b);
        if (n->c) visit_expression(s, n->c);
        for (int i = 0; i < n->count; i++) visit_expression(s, n->items[i]);
        if (n->arguments) visit_arguments(s, n->arguments);
    }
}
static void visit_arguments(Symbols *s, const Arguments *g) {
    for (int i = 0; i < g->count; i++) visit_expression(s, g->values[i]);
    for (int i = 0; i < g->named; i++) visit_expression(s, g->named_values[i]);
    visit_expression(s, g->star);
    visit_expression(s, g->star_star);
}
static void visit_target(Symbols *s, const Node *n, bool as_parameter) {
    if (n->kind == NODE_MEMBER) load(s, n->name);
    if (n->kind == NODE_NAME) (as_parameter ? parameter : store)(s, n->name);
    for (int i = 0; i < n->count; i++) visit_target(s, n->items[i], as_parameter);
}

static void visit_statement(Symbols *s, const Node *n);
static void visit_statements(Symbols *s, const Node *body) {
    for (int i = 0; body && i < body->count; i++) visit_statement(s, body->items[i]);
}
static void join_branches(Symbols *s, const Symbols *branches, int count) {
    NameSet stores = {0};
    for (int b = 0; b < count; b++)
        for (int i = 0; i < COUNT(stores.bits); i++) stores.bits[i] |= branches[b].stored.bits[i];
    for (int i = 0; i < COUNT(stores.bits); i++) {
        stores.bits[i] &= ~s->stored.bits[i];
        for (int b = 0; b < count; b++) {
            s->known.bits[i] |= branches[b].known.bits[i];
            s->hidden.bits[i] |= branches[b].hidden.bits[i];
            s->stored.bits[i] |= branches[b].stored.bits[i];
        }
        s->hidden.bits[i] &= ~stores.bits[i]; // assigned in some branch only: looked up like any other
    }
}
// Conditions and bodies from items[at] on: the first branch, then the elifs as one branch, then the else.
static void visit_if(Symbols *s, const Node *n) {
    visit_expression(s, n->items[0]);
    Symbols branches[3] = {*s, *s, *s};
    visit_statements(&branches[0], n->items[1]);
    for (int at = 2; at + 1 < n->count; at += 2) {
        visit_expression(&branches[1], n->items[at]);
        Symbols one = branches[1];
        visit_statements(&one, n->items[at + 1]);
        join_branches(&branches[1], &one, 1);
    }
    visit_statements(&branches[2], n->c);
    join_branches(s, branches, 3);
}
static void visit_statement(Symbols *s, const Node *n) {
    switch (n->kind) {
    case NODE_PRINT: case NODE_CALL_BLOCK: case NODE_FILTER_BLOCK: visit_expression(s, n->a); break;
    case NODE_FOR: visit_expression(s, n->b); break;
    case NODE_IF: visit_if(s, n); break;
    case NODE_SET: visit_expression(s, n->b), visit_target(s, n->a, false); break;
    case NODE_SET_BLOCK: visit_target(s, n->a, false); break;
    case NODE_MACRO: store(s, n->name); break;
    case NODE_WITH:
        for (int i = 1; i < n->count; i += 2) visit_expression(s, n->items[i]);
        break;
    case NODE_BODY: visit_statements(s, n); break;
    default: break;
    }
}

// ---- the special names of macros -------------------------------------------------------------------------------------
static bool reads_arguments(const Arguments *g, int name);
static bool reads(const Node *n, int name) {
    for (; n; n = n->a) {
        if (n->kind == NODE_NAME && n->name == name) return true;
        if ((n->b && reads(n->b, name)) || (n->c && reads(n->c, name))) return true;
        if ((n->body && reads(n->body, name)) || (n->otherwise && reads(n->otherwise, name))) return true;
        for (int i = 0; i < n->count; i++)
            if (n->items[i] && reads(n->items[i], name)) return true;
        if (n->arguments && reads_arguments(n->arguments, name)) return true;
    }
    return false;
}
static bool reads_arguments(const Arguments *g, int name) {
    for (int i = 0; i < g->count; i++)
        if (reads(g->values[i], name)) return true;
    for (int i = 0; i < g->named; i++)
        if (reads(g->named_values[i], name)) return true;
    return reads(g->star, name) || reads(g->star_star, name);
}
static bool has_parameter(const Parameters *q, int name) {
    for (int i = 0; i < q->count; i++)
        if (q->names[i] == name) return true;
    return false;
}

// ---- scopes inside scopes ------------------------------------------------------------------------------------------
static void keep_hidden(Template *t, const Symbols *s, Hidden *out) {
    int count = 0;
    for (int i = 0; i < t->name_count; i++) count += has(&s->hidden, i);
    out->names = HEAP_NEW(&t->heap, int, count + 1);
    for (int i = 0; i < t->name_count; i++)
        if (has(&s->hidden, i)) out->names[out->count++] = i;
}
static void inner_scopes(Template *t, const Symbols *s, const Node *body);

// `s` has been given what the scope begins with; its body comes now.
static void close_scope(Template *t, Symbols *s, const Node *body, Hidden *out) {
    visit_statements(s, body);
    keep_hidden(t, s, out);
    inner_scopes(t, s, body);
}
static void for_scopes(Template *t, const Symbols *outer, Node *n) {
    Symbols body = {.parent = outer}, condition = body, otherwise = body;
    if (n->recursive || reads(n->body, t->loop)) parameter(&body, t->loop);
    visit_target(&body, n->a, true);
    close_scope(t, &body, n->body, &n->hidden);
    visit_target(&condition, n->a, true);
    visit_expression(&condition, n->c);
    keep_hidden(t, &condition, &n->hidden_condition);
    close_scope(t, &otherwise, n->otherwise, &n->hidden_otherwise);
}
static void function_scope(Template *t, const Symbols *outer, Node *n) {
    Symbols s = {.parent = outer};
    Parameters *q = n->parameters;
    for (int i = 0; q && i < q->count; i++) parameter(&s, q->names[i]);
    for (int i = 0; q && i < q->count; i++) visit_expression(&s, q->defaults[i]);
    if (q) {
        q->reads_caller = reads(n->body, t->caller) && !has_parameter(q, t->caller);
        q->reads_kwargs = reads(n->body, t->kwargs) && !has_parameter(q, t->kwargs);
        q->reads_varargs = reads(n->body, t->varargs) && !has_parameter(q, t->varargs);
        if (q->reads_caller) parameter(&s, t->caller);
        if (q->reads_kwargs) parameter(&s, t->kwargs);
        if (q->reads_varargs) parameter(&s, t->varargs);
    }
    close_scope(t, &s, n->body, &n->hidden);
}
static void inner_scope(Template *t, const Symbols *s, Node *n) {
    Symbols inner = {.parent = s};
    switch (n->kind) {
    case NODE_IF:
        for (int i = 1; i < n->count; i += 2) inner_scopes(t, s, n->items[i]);
        inner_scopes(t, s, n->c);
        break;
    case NODE_FOR: for_scopes(t, s, n); break;
    case NODE_MACRO: case NODE_CALL_BLOCK: case NODE_GENERATION: function_scope(t, s, n); break;
    case NODE_SET_BLOCK: case NODE_FILTER_BLOCK: close_scope(t, &inner, n->body, &n->hidden); break;
    case NODE_WITH:
        for (int i = 0; i < n->count; i += 2) visit_target(&inner, n->items[i], true);
        close_scope(t, &inner, n->body, &n->hidden);
        break;
    default: break;
    }
}
static void inner_scopes(Template *t, const Symbols *s, const Node *body) {
    for (int i = 0; body && i < body->count; i++) inner_scope(t, s, body->items[i]);
}

void template_find_hidden(Template *t) {
    Symbols s = {0};
    close_scope(t, &s, t->root, &t->root->hidden);
}
