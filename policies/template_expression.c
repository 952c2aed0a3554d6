// The expressions of a template, by the precedence of Jinja: choice, or, and, not, comparison, + -, ~, * / // %, **, signs,
// then subscripts, calls, filters and tests. Chains (a + b + c) become trees that lean left and are walked in a loop.
#include "template_parser.h"
#include <string.h>

static bool parse_or(Parser *p, Node **out);
static bool parse_unary(Parser *p, bool filters, Node **out);
static bool parse_primary(Parser *p, bool members, Node **out);

static Node *pair(Parser *p, NodeKind kind, Operator op, int line, Node *a, Node *b) {
    Node *n = parser_node(p, kind, line);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

// ---- arguments -----------------------------------------------------------------------------------------------------
static bool parse_argument(Parser *p, Arguments *g, Nodes *values, Nodes *named) {
    int line = parser_now(p)->line;
    Node *value;
    if (parser_skip(p, TOKEN_OPERATOR, "*")) {
        if (g->star || g->star_star) return template_fail(p->t, line, p->err, "a second '*' among the arguments");
        return parse_expression(p, &g->star);
    }
    if (parser_skip(p, TOKEN_OPERATOR, "**")) {
        if (g->star_star) return template_fail(p->t, line, p->err, "a second '**' among the arguments");
        return parse_expression(p, &g->star_star);
    }
    const TemplateToken *ahead = parser_look(p);
    bool name = parser_is(p, TOKEN_NAME, NULL) && ahead->kind == TOKEN_OPERATOR && text_is(ahead->text, "=");
    if (g->star_star || (!name && (g->star || named->count)))
        return template_fail(p->t, line, p->err, "positional arguments come first, '**' comes last");
    if (!name) {
        TRY(parse_expression(p, &value));
        nodes_push(p, values, value);
        return true;
    }
    const Text *key = parser_now(p)->text;
    for (int i = 0; i < named->count; i++)
        if (text_equal(named->items[i]->text, key)) return template_fail(p->t, line, p->err, "the argument '%.40s' is given twice", key->data);
    parser_next(p);
    parser_next(p);
    TRY(parse_expression(p, &value));
    Node *n = parser_node(p, NODE_NAME, line);
    n->text = key;
    n->a = value;
    nodes_push(p, named, n);
    return true;
}
static bool parse_arguments(Parser *p, Arguments **out) {
    Arguments *g = *out = HEAP_NEW(&p->t->heap, Arguments, 1);
    Nodes values = {0}, named = {0};
    TRY(parser_expect(p, TOKEN_OPERATOR, "("));
    for (bool first = true; !parser_is(p, TOKEN_OPERATOR, ")"); first = false) {
        if (!first) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        if (!first && parser_is(p, TOKEN_OPERATOR, ")")) break;
        TRY(parse_argument(p, g, &values, &named));
    }
    g->values = values.items;
    g->count = values.count;
    g->named = named.count;
    g->names = HEAP_NEW(&p->t->heap, const Text *, named.count + 1);
    g->named_values = HEAP_NEW(&p->t->heap, Node *, named.count + 1);
    for (int i = 0; i < named.count; i++) g->names[i] = named.items[i]->text, g->named_values[i] = named.items[i]->a;
    return parser_expect(p, TOKEN_OPERATOR, ")");
}

// ---- filters and tests ---------------------------------------------------------------------------------------------
// A name, possibly with dots.
static bool parse_dotted(Parser *p, const Text **out) {
    *out = parser_now(p)->text;
    TRY(parser_expect(p, TOKEN_NAME, NULL));
    while (parser_skip(p, TOKEN_OPERATOR, ".")) {
        char joined[128];
        int n = snprintf(joined, sizeof joined, "%.60s.%.60s", (*out)->data, parser_is(p, TOKEN_NAME, NULL) ? parser_now(p)->text->data : "");
        *out = text_make(&p->t->heap, joined, (size_t)n);
        TRY(parser_expect(p, TOKEN_NAME, NULL));
    }
    return true;
}
bool parse_filter_chain(Parser *p, Node *from, bool inlined, Node **out) {
    int depth = p->depth;
    while (inlined || parser_is(p, TOKEN_OPERATOR, "|")) {
        if (!inlined) parser_next(p);
        inlined = false;
        TRY(parser_enter(p));
        Node *n = parser_node(p, NODE_FILTER, parser_now(p)->line);
        n->a = from;
        TRY(parse_dotted(p, &n->text));
        n->callable = filter_find(n->text); // an unknown one is an error if it is reached
        if (parser_is(p, TOKEN_OPERATOR, "(")) TRY(parse_arguments(p, &n->arguments));
        from = n;
    }
    p->depth = depth;
    *out = from;
    return true;
}
bool parse_filters(Parser *p, Node **out) { return parse_filter_chain(p, NULL, false, out); }

static bool test_has_argument(const Parser *p) {
    const TemplateToken *t = parser_now(p);
    if (t->kind == TOKEN_NAME) return !text_is(t->text, "else") && !text_is(t->text, "or") && !text_is(t->text, "and");
    if (t->kind == TOKEN_OPERATOR) return strchr("[{", t->text->data[0]) != NULL;
    return t->kind == TOKEN_STRING || t->kind == TOKEN_INT || t->kind == TOKEN_FLOAT;
}
static bool parse_postfix(Parser *p, Node *from, Node **out);
static bool parse_test(Parser *p, Node *from, Node **out) {
    int line = parser_now(p)->line;
    parser_next(p); // is
    bool negated = parser_skip(p, TOKEN_NAME, "not");
    Node *n = *out = parser_node(p, NODE_TEST, line);
    n->a = from;
    TRY(parse_dotted(p, &n->text));
    n->callable = test_find(n->text);
    if (parser_is(p, TOKEN_OPERATOR, "(")) {
        TRY(parse_arguments(p, &n->arguments));
    } else if (test_has_argument(p)) {
        if (parser_is(p, TOKEN_NAME, "is")) return template_fail(p->t, line, p->err, "tests can't be chained with 'is'");
        Nodes one = {0};
        Node *argument;
        TRY(parse_primary(p, false, &argument) && parse_postfix(p, argument, &argument));
        nodes_push(p, &one, argument);
        n->arguments = HEAP_NEW(&p->t->heap, Arguments, 1);
        n->arguments->values = one.items;
        n->arguments->count = 1;
    }
    if (negated) *out = pair(p, NODE_NOT, 0, line, n, NULL);
    return true;
}

// ---- subscripts and calls ------------------------------------------------------------------------------------------
static bool parse_slice_part(Parser *p, Node **out) {
    *out = NULL;
    if (parser_is(p, TOKEN_OPERATOR, ":") || parser_is(p, TOKEN_OPERATOR, "]") || parser_is(p, TOKEN_OPERATOR, ",")) return true;
    return parse_expression(p, out);
}
// One subscript: an expression, or start:stop:step (then *slice).
static bool parse_subscribed(Parser *p, Nodes *parts, bool *slice) {
    Node *part;
    *slice = false;
    TRY(parse_slice_part(p, &part));
    nodes_push(p, parts, part);
    if (!parser_skip(p, TOKEN_OPERATOR, ":")) return part || parser_expect(p, TOKEN_OPERATOR, "an expression");
    *slice = true;
    TRY(parse_slice_part(p, &part));
    nodes_push(p, parts, part);
    part = NULL;
    if (parser_skip(p, TOKEN_OPERATOR, ":")) TRY(parse_slice_part(p, &part));
    nodes_push(p, parts, part);
    return true;
}
static bool parse_subscript(Parser *p, Node *from, Node **out) {
    int line = parser_now(p)->line;
    Nodes parts = {0};
    bool slice = false;
    parser_next(p); // [
    if (parser_is(p, TOKEN_OPERATOR, "]")) { // x[] is x[()]
        *out = pair(p, NODE_ITEM, 0, line, from, parser_group(p, NODE_TUPLE, line, &parts));
        return parser_expect(p, TOKEN_OPERATOR, "]");
    }
    TRY(parse_subscribed(p, &parts, &slice));
    if (slice) {
        *out = parser_group(p, NODE_SLICE, line, &parts);
        (*out)->a = from;
        return parser_expect(p, TOKEN_OPERATOR, "]");
    }
    bool many = parser_is(p, TOKEN_OPERATOR, ",");
    while (parser_skip(p, TOKEN_OPERATOR, ",")) {
        Node *part;
        TRY(parse_expression(p, &part));
        nodes_push(p, &parts, part);
    }
    *out = pair(p, NODE_ITEM, 0, line, from, many ? parser_group(p, NODE_TUPLE, line, &parts) : parts.items[0]);
    return parser_expect(p, TOKEN_OPERATOR, "]");
}
static bool parse_member(Parser *p, Node *from, Node **out) {
    const TemplateToken *t = parser_look(p);
    int line = parser_now(p)->line;
    parser_next(p); // .
    if (t->kind == TOKEN_INT) {
        Node *index = parser_node(p, NODE_CONSTANT, line);
        index->value = value_int(t->integer);
        *out = pair(p, NODE_ITEM, 0, line, from, index);
        parser_next(p);
        return true;
    }
    *out = pair(p, NODE_ATTRIBUTE, 0, line, from, NULL);
    (*out)->text = t->text;
    return parser_expect(p, TOKEN_NAME, NULL);
}
static bool parse_call(Parser *p, Node *from, Node **out) {
    *out = pair(p, NODE_CALL, 0, parser_now(p)->line, from, NULL);
    return parse_arguments(p, &(*out)->arguments);
}
// The chain of postfixes adds to the depth of the tree, not of the parser: it is bounded on its own.
static bool parse_postfix(Parser *p, Node *from, Node **out) {
    int depth = p->depth;
    for (;;) {
        TRY(parser_enter(p));
        if (parser_is(p, TOKEN_OPERATOR, ".")) TRY(parse_member(p, from, &from));
        else if (parser_is(p, TOKEN_OPERATOR, "[")) TRY(parse_subscript(p, from, &from));
        else if (parser_is(p, TOKEN_OPERATOR, "(")) TRY(parse_call(p, from, &from));
        else break;
    }
    p->depth = depth;
    *out = from;
    return true;
}
static bool parse_filters_and_tests(Parser *p, Node *from, Node **out) {
    int depth = p->depth;
    for (;;) {
        TRY(parser_enter(p));
        if (parser_is(p, TOKEN_OPERATOR, "|")) TRY(parse_filter_chain(p, from, false, &from));
        else if (parser_is(p, TOKEN_NAME, "is")) TRY(parse_test(p, from, &from));
        else if (parser_is(p, TOKEN_OPERATOR, "(")) TRY(parse_call(p, from, &from));
        else break;
    }
    p->depth = depth;
    *out = from;
    return true;
}

// ---- primaries -----------------------------------------------------------------------------------------------------
static bool parse_list(Parser *p, Node **out) {
    Nodes items = {0};
    int line = parser_now(p)->line;
    parser_next(p);
    while (!parser_is(p, TOKEN_OPERATOR, "]")) {
        Node *item;
        if (items.count) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        if (parser_is(p, TOKEN_OPERATOR, "]")) break;
        TRY(parse_expression(p, &item));
        nodes_push(p, &items, item);
    }
    *out = parser_group(p, NODE_LIST, line, &items);
    return parser_expect(p, TOKEN_OPERATOR, "]");
}
static bool parse_dict(Parser *p, Node **out) {
    Nodes items = {0};
    int line = parser_now(p)->line;
    parser_next(p);
    while (!parser_is(p, TOKEN_OPERATOR, "}")) {
        Node *key, *value;
        if (items.count) TRY(parser_expect(p, TOKEN_OPERATOR, ","));
        if (parser_is(p, TOKEN_OPERATOR, "}")) break;
        TRY(parse_expression(p, &key) && parser_expect(p, TOKEN_OPERATOR, ":") && parse_expression(p, &value));
        nodes_push(p, &items, key);
        nodes_push(p, &items, value);
    }
    *out = parser_group(p, NODE_DICT, line, &items);
    return parser_expect(p, TOKEN_OPERATOR, "}");
}
static bool parse_name(Parser *p, bool members, Node **out) {
    const TemplateToken *t = parser_now(p);
    parser_next(p);
    bool yes = text_is(t->text, "true") || text_is(t->text, "True"), no = text_is(t->text, "false") || text_is(t->text, "False");
    bool none = text_is(t->text, "none") || text_is(t->text, "None");
    Node *n = *out = parser_node(p, yes || no || none ? NODE_CONSTANT : NODE_NAME, t->line);
    n->value = none ? value_none() : value_bool(yes);
    if (n->kind == NODE_CONSTANT) return true;
    n->name = template_name(p->t, t->text);
    if (members && parser_skip(p, TOKEN_OPERATOR, ".")) {
        n->kind = NODE_MEMBER;
        n->text = parser_now(p)->text;
        return parser_expect(p, TOKEN_NAME, NULL);
    }
    return true;
}
static void parse_strings(Parser *p, Node *n) { // neighbours are one
    Buf joined = {0};
    while (parser_is(p, TOKEN_STRING, NULL)) {
        const Text *t = parser_now(p)->text;
        buf_append(&joined, t->data, t->size);
        parser_next(p);
    }
    n->value = value_text(text_make(&p->t->heap, joined.data ? joined.data : "", joined.size));
    buf_free(&joined);
}
static bool parse_primary(Parser *p, bool members, Node **out) {
    const TemplateToken *t = parser_now(p);
    char found[60];
    if (t->kind == TOKEN_NAME) return parse_name(p, members, out);
    if (t->kind == TOKEN_STRING || t->kind == TOKEN_INT || t->kind == TOKEN_FLOAT) {
        Node *n = *out = parser_node(p, NODE_CONSTANT, t->line);
        if (t->kind == TOKEN_STRING) return parse_strings(p, n), true;
        n->value = t->kind == TOKEN_INT ? value_int(t->integer) : value_float(t->number);
        parser_next(p);
        return true;
    }
    if (t->kind != TOKEN_OPERATOR || !strchr("([{", t->text->data[0]))
        return template_fail(p->t, t->line, p->err, "found %s, expected an expression", parser_shown(p, found));
    TRY(parser_enter(p));
    if (t->text->data[0] == '[') {
        TRY(parse_list(p, out));
    } else if (t->text->data[0] == '{') {
        TRY(parse_dict(p, out));
    } else {
        parser_next(p);
        TRY(parse_tuple(p, true, NULL, true, out) && parser_expect(p, TOKEN_OPERATOR, ")"));
    }
    p->depth--;
    return true;
}

// ---- operators -----------------------------------------------------------------------------------------------------
typedef struct Level {
    const char *text;
    Operator op;
} Level;
static bool next_operator(Parser *p, const Level *levels, Operator *op) {
    for (; levels->text; levels++)
        if (parser_is(p, TOKEN_OPERATOR, levels->text)) {
            *op = levels->op;
            parser_next(p);
            return true;
        }
    return false;
}
static bool parse_unary(Parser *p, bool filters, Node **out) {
    int line = parser_now(p)->line;
    Operator op;
    static const Level signs[] = {{"-", OP_NEG}, {"+", OP_POS}, {0}};
    TRY(parser_enter(p));
    if (next_operator(p, signs, &op)) {
        TRY(parse_unary(p, false, out));
        *out = pair(p, NODE_UNARY, op, line, *out, NULL);
    } else {
        TRY(parse_primary(p, false, out));
    }
    TRY(parse_postfix(p, *out, out));
    if (filters) TRY(parse_filters_and_tests(p, *out, out));
    p->depth--;
    return true;
}
static bool parse_power(Parser *p, Node **out) {
    static const Level level[] = {{"**", OP_POW}, {0}};
    Operator op;
    TRY(parse_unary(p, true, out));
    while (next_operator(p, level, &op)) {
        Node *right;
        int line = parser_now(p)->line;
        TRY(parse_unary(p, true, &right));
        *out = pair(p, NODE_BINARY, op, line, *out, right);
    }
    return true;
}
static bool parse_product(Parser *p, Node **out) {
    static const Level level[] = {{"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}, {0}};
    Operator op;
    TRY(parse_power(p, out));
    while (next_operator(p, level, &op)) {
        Node *right;
        int line = parser_now(p)->line;
        TRY(parse_power(p, &right));
        *out = pair(p, NODE_BINARY, op, line, *out, right);
    }
    return true;
}
static bool parse_concat(Parser *p, Node **out) {
    Nodes items = {0};
    int line = parser_now(p)->line;
    do {
        TRY(parse_product(p, out));
        nodes_push(p, &items, *out);
    } while (parser_skip(p, TOKEN_OPERATOR, "~"));
    if (items.count > 1) *out = parser_group(p, NODE_CONCAT, line, &items);
    return true;
}
static bool parse_sum(Parser *p, Node **out) {
    static const Level level[] = {{"+", OP_ADD}, {"-", OP_SUB}, {0}};
    Operator op;
    TRY(parse_concat(p, out));
    while (next_operator(p, level, &op)) {
        Node *right;
        int line = parser_now(p)->line;
        TRY(parse_concat(p, &right));
        *out = pair(p, NODE_BINARY, op, line, *out, right);
    }
    return true;
}
static bool next_comparison(Parser *p, Operator *op) {
    static const Level level[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {"<", OP_LT}, {">=", OP_GE}, {">", OP_GT}, {0}};
    if (next_operator(p, level, op)) return true;
    const TemplateToken *ahead = parser_look(p);
    bool negated = parser_is(p, TOKEN_NAME, "not") && ahead->kind == TOKEN_NAME && text_is(ahead->text, "in");
    if (negated) parser_next(p);
    *op = negated ? OP_NOT_IN : OP_IN;
    return parser_skip(p, TOKEN_NAME, "in");
}
static bool parse_comparison(Parser *p, Node **out) {
    Nodes items = {0};
    Operator ops[PARSE_DEPTH], op;
    int line = parser_now(p)->line;
    TRY(parse_sum(p, out));
    while (next_comparison(p, &op)) {
        Node *right;
        if (items.count == COUNT(ops)) return template_fail(p->t, line, p->err, "more than %d comparisons in one", COUNT(ops));
        ops[items.count] = op;
        TRY(parse_sum(p, &right));
        nodes_push(p, &items, right);
    }
    if (!items.count) return true;
    Node *left = *out;
    *out = parser_group(p, NODE_COMPARE, line, &items);
    (*out)->a = left;
    (*out)->ops = HEAP_NEW(&p->t->heap, Operator, items.count);
    memcpy((*out)->ops, ops, (size_t)items.count * sizeof *ops);
    return true;
}
static bool parse_not(Parser *p, Node **out) {
    int line = parser_now(p)->line;
    if (!parser_skip(p, TOKEN_NAME, "not")) return parse_comparison(p, out);
    TRY(parser_enter(p));
    TRY(parse_not(p, out));
    p->depth--;
    *out = pair(p, NODE_NOT, 0, line, *out, NULL);
    return true;
}
static bool parse_and(Parser *p, Node **out) {
    TRY(parse_not(p, out));
    while (parser_is(p, TOKEN_NAME, "and")) {
        Node *right;
        int line = parser_now(p)->line;
        parser_next(p);
        TRY(parse_not(p, &right));
        *out = pair(p, NODE_AND, 0, line, *out, right);
    }
    return true;
}
static bool parse_or(Parser *p, Node **out) {
    TRY(parse_and(p, out));
    while (parser_is(p, TOKEN_NAME, "or")) {
        Node *right;
        int line = parser_now(p)->line;
        parser_next(p);
        TRY(parse_and(p, &right));
        *out = pair(p, NODE_OR, 0, line, *out, right);
    }
    return true;
}
bool parse_expression(Parser *p, Node **out) {
    int depth = p->depth;
    TRY(parser_enter(p));
    TRY(parse_or(p, out));
    while (parser_is(p, TOKEN_NAME, "if")) {
        TRY(parser_enter(p));
        Node *n = parser_node(p, NODE_CHOICE, parser_now(p)->line);
        n->a = *out;
        parser_next(p);
        TRY(parse_or(p, &n->b));
        if (parser_skip(p, TOKEN_NAME, "else")) TRY(parse_expression(p, &n->c));
        *out = n;
    }
    p->depth = depth;
    return true;
}

// ---- tuples and targets ----------------------------------------------------------------------------------------------
static bool tuple_ends(const Parser *p, const char *end) {
    return parser_is(p, TOKEN_PRINT_END, NULL) || parser_is(p, TOKEN_TAG_END, NULL) || parser_is(p, TOKEN_OPERATOR, ")") ||
           (end && parser_is(p, TOKEN_NAME, end));
}
bool parse_tuple(Parser *p, bool choices, const char *end, bool in_brackets, Node **out) {
    Nodes items = {0};
    int line = parser_now(p)->line;
    bool tuple = false;
    char found[60];
    while (!tuple_ends(p, end)) {
        Node *item;
        TRY(choices ? parse_expression(p, &item) : parse_or(p, &item));
        nodes_push(p, &items, item);
        if (!parser_skip(p, TOKEN_OPERATOR, ",")) break;
        tuple = true;
    }
    if (!tuple && items.count) return *out = items.items[0], true;
    if (!tuple && !in_brackets) return template_fail(p->t, line, p->err, "found %s, expected an expression", parser_shown(p, found));
    *out = parser_group(p, NODE_TUPLE, line, &items);
    return true;
}
static bool assignable(const Node *n) {
    if (n->kind == NODE_NAME || n->kind == NODE_MEMBER) return true;
    if (n->kind != NODE_TUPLE) return false;
    for (int i = 0; i < n->count; i++) TRY(assignable(n->items[i]));
    return true;
}
bool parse_target(Parser *p, const char *end, bool members, Node **out) {
    Nodes items = {0};
    int line = parser_now(p)->line;
    bool tuple = false;
    while (!tuple_ends(p, end)) {
        Node *item;
        TRY(parse_primary(p, members, &item));
        nodes_push(p, &items, item);
        if (!parser_skip(p, TOKEN_OPERATOR, ",")) break;
        tuple = true;
    }
    if (!items.count) return template_fail(p->t, line, p->err, "expected a name to assign to");
    *out = tuple ? parser_group(p, NODE_TUPLE, line, &items) : items.items[0];
    return assignable(*out) || template_fail(p->t, line, p->err, "can't assign to that");
}
