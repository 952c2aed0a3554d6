// What stands in brackets of its own: groups of LaTeX, tuples, intervals, sets (listed or given by a condition), |x|,
// matrices, and equations that hold together. A comma inside of brackets separates.
#include "verify_parts.h"
#include <string.h>

static bool is_digit(const Parser *p) { return p->at < p->end && *p->at >= '0' && *p->at <= '9'; }

// ---- groups and brackets ------------------------------------------------------------------------------------------
Node *parse_braces(Parser *p) { // {...} in LaTeX
    if (!parse_take(p, "{")) return parse_fail(p);
    int brackets = p->brackets;
    Node *n = parse_items(p);
    p->brackets = brackets;
    if (!parse_take(p, "}")) return parse_fail(p);
    if (n->kind == NODE_LIST) n->kind = NODE_SET;
    return n;
}

Node *parse_group(Parser *p) {
    parse_blanks(p);
    if (parse_looks(p, "{")) return parse_braces(p);
    if (is_digit(p)) {
        Rational r;
        if (!rational_digits(p->work, p->at++, 1, 0, &r)) return parse_fail(p);
        return node_number(p, &r);
    }
    return parse_atom(p);
}

bool parse_close(Parser *p, const char *const *forms, char *out) {
    for (; *forms; forms++)
        if (parse_take(p, *forms)) {
            *out = (*forms)[strlen(*forms) - 1];
            return true;
        }
    return false;
}

static bool rows_of_one_length(const Node *n) {
    if (n->count < 1) return false;
    for (const Node *c = n->first; c; c = c->next)
        if (c->kind != NODE_BRACKET || c->open != '[' || c->close != ']' || c->count != n->first->count) return false;
    return true;
}

Node *parse_bracket(Parser *p, char open) {
    static const char *const closes[] = {")", "]", "\\rangle", NULL};
    char close = 0;
    int bar = p->bar;
    Node *inside;
    p->bar = false;
    p->brackets++;
    parse_blanks(p);
    if (p->at < p->end && *p->at == ']' && open == '[') {
        inside = work_node(p->work, NODE_LIST);
    } else {
        inside = parse_items(p);
    }
    p->brackets--;
    p->bar = bar;
    if (p->failed || !parse_close(p, closes, &close)) return parse_fail(p);
    if (close == 'e') close = ')';
    if (inside->kind != NODE_LIST && open == '(' && close == ')') return inside;
    if (inside->kind != NODE_LIST && open == '[' && close == ']' && inside->kind != NODE_BRACKET) return inside;
    Node *n = inside;
    if (inside->kind != NODE_LIST) {
        n = work_node(p->work, NODE_BRACKET);
        node_append(n, inside);
    }
    n->kind = NODE_BRACKET;
    n->open = open, n->close = close;
    if (open == '[' && close == ']' && rows_of_one_length(n)) { // [[1,2],[3,4]]
        Node *m = work_node(p->work, NODE_MATRIX);
        m->rows = n->count, m->columns = n->first->count;
        for (Node *row = n->first, *next; row; row = next) {
            next = row->next;
            for (Node *c = row->first, *after; c; c = after) {
                after = c->next;
                c->next = NULL;
                node_append(m, c);
            }
        }
        return m;
    }
    return n;
}

// "x |" or "x :" of a set given by its condition; past it if it stands here.
static bool take_set_variable(Parser *p) {
    static const char *const bars[] = {"\\mid", "\\vert", "\\colon", "|", ":", NULL};
    Parser q = *p;
    char bar;
    parse_blanks(&q);
    if (parse_letters(&q) != 1) return false;
    q.at++;
    if (parse_command(&q, "in")) {
        if (!parse_take(&q, "\\mathbb{R}") && !parse_take(&q, "\\mathbb R")) return false;
    } else {
        parse_take(&q, "∈ℝ");
    }
    if (!parse_close(&q, bars, &bar)) return false;
    p->at = q.at;
    return true;
}

Node *parse_set(Parser *p) {
    static const char *const closes[] = {"\\}", "\\rbrace", "}", NULL};
    char close;
    if (take_set_variable(p)) {
        Node *condition = parse_items(p);
        return p->failed || condition->kind < NODE_LIST || !parse_close(p, closes, &close) ? parse_fail(p) : condition;
    }
    if (parse_close(p, closes, &close)) return work_node(p->work, NODE_EMPTY);
    p->brackets++;
    Node *n = parse_items(p);
    p->brackets--;
    if (p->failed || !parse_close(p, closes, &close)) return parse_fail(p);
    if (n->kind == NODE_LIST) {
        n->kind = NODE_SET;
        return n;
    }
    Node *set = work_node(p->work, NODE_SET);
    node_append(set, n);
    return set;
}

Node *parse_bars(Parser *p, const char *close) {
    bool bar = p->bar;
    p->bar = true;
    Node *n = parse_sum(p);
    p->bar = bar;
    if (p->failed || n->kind >= NODE_LIST || !parse_take(p, close)) return parse_fail(p);
    Node *abs = node_binary(p, NODE_FUNCTION, n, NULL);
    abs->op = FUNCTION_ABS;
    return abs;
}

static Node *parse_matrix(Parser *p, TextSpan name) {
    Node *m = work_node(p->work, NODE_MATRIX);
    char end[40];
    int column = 0;
    if (name.size == 5 && memcmp(name.data, "array", 5) == 0 && parse_take(p, "{"))
        while (p->at < p->end && *p->at++ != '}') {}
    memcpy(end, "\\end{", 5);
    memcpy(end + 5, name.data, name.size);
    memcpy(end + 5 + name.size, "}", 2);
    p->brackets++;
    while (!p->failed && !parse_take(p, end)) {
        Node *cell = parse_sum(p);
        if (cell->kind >= NODE_LIST || m->count == MAX_ITEMS) return parse_fail(p);
        node_append(m, cell);
        column++;
        if (parse_take(p, "&")) continue;
        if (m->rows == 0) m->columns = column;
        if (column != m->columns) return parse_fail(p);
        m->rows++;
        column = 0;
        parse_take(p, "\\\\");
    }
    p->brackets--;
    return m;
}

static Node *parse_cases(Parser *p) { // equations that hold together; functions given piece by piece are not read
    Node *list = work_node(p->work, NODE_LIST);
    while (!p->failed && !parse_take(p, "\\end{cases}")) {
        Node *row = parse_items(p);
        if (p->failed || row->kind != NODE_RELATION || list->count == MAX_ITEMS) return parse_fail(p);
        node_append(list, row);
        parse_take(p, ",");
        parse_take(p, "\\\\");
    }
    return list;
}

Node *parse_environment(Parser *p) { // after \begin
    static const char *const matrices[] = {"pmatrix", "bmatrix", "matrix", "Bmatrix", "vmatrix", "smallmatrix", "array"};
    if (!parse_take(p, "{")) return parse_fail(p);
    const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
    TextSpan name = {p->at, close ? (size_t)(close - p->at) : 0};
    if (name.size == 5 && memcmp(name.data, "cases", 5) == 0) {
        p->at = close + 1;
        return parse_cases(p);
    }
    for (int i = 0; close && i < COUNT(matrices); i++)
        if (name.size == strlen(matrices[i]) && memcmp(name.data, matrices[i], name.size) == 0) {
            p->at = close + 1;
            return parse_matrix(p, name);
        }
    return parse_fail(p);
}
