// Is this answer equal to that one? The way in, and the comparison of two trees. The rules:
//
//   numbers      exactly: 0.1 is 1/10, 98 is 98.0, 1,234 is 1234; a rounded number equals no irrational one
//                where the truth is a number, sums and products of numbers are no answer: 6*7 isn't 42
//   percent      98% is 0.98; where only one side has the sign, 98% is 98 too
//   units        compared where both measure something (98 cm is 0.98 m), else ignored
//   formulas     by value at several points, so 3(x+8) is 3x+24
//   equations    x = 98 is 98; two equations are equal where one is a multiple of the other
//   inequalities as intervals: x > 3 is (3, inf)
//   sets, lists  without order; +-3 is {-3, 3}; tuples, matrices and ratios with it
//   text         without dressing, blanks at the ends and, from two letters on, case
//
// A text that isn't an answer as a whole is searched for one (verify_find.c). Tags and NUL bytes are never an answer's
// part: with them only the same text is equal. What is too long or too much work is compared as text.
#include "verify_parts.h"
#include <stdlib.h>
#include <string.h>

enum { MEMORY = 512 << 10, STEPS = 400000, TEXT_LIMIT = 16384 };

TextSpan text_trim(TextSpan s) {
    while (s.size && (*s.data == ' ' || (*s.data >= '\t' && *s.data <= '\r'))) s.data++, s.size--;
    while (s.size && (s.data[s.size - 1] == ' ' || (s.data[s.size - 1] >= '\t' && s.data[s.size - 1] <= '\r'))) s.size--;
    return s;
}

static bool equal(Work *w, const Node *a, const Node *b);
static bool is_scalar(const Node *n) { return n->kind < NODE_LIST; }
static bool has(const Node *n, NodeKind kind) {
    return n && (n->kind == kind || (is_scalar(n) && (has(n->left, kind) || has(n->right, kind))));
}

// ---- scalars ------------------------------------------------------------------------------------------------------
static bool counts(const Node *n) { // n!, binomials and their kind
    bool here = n && (n->kind == NODE_FACTORIAL || (n->kind == NODE_FUNCTION && n->op >= FUNCTION_BINOMIAL && n->op <= FUNCTION_LCM));
    return here || (n && is_scalar(n) && (counts(n->left) || counts(n->right)));
}
static bool equal_at_points(Work *w, const Node *a, int sign_a, const Node *b, int sign_b) {
    int agreed = 0;
    w->whole_points = counts(a) || counts(b);
    bool symbols = has(a, NODE_SYMBOL) || has(b, NODE_SYMBOL), complex = has(a, NODE_CONSTANT) || has(b, NODE_CONSTANT);
    size_t used = w->used;
    for (int point = 0; point < (symbols ? POINTS : 1) && !w->spent; point++) {
        Value x = value_of(w, a, sign_a, point), y = value_of(w, b, sign_b, point);
        bool same = values_equal(w, &x, &y);
        bool turned = point >= POINTS / 2 && !complex && ((!x.exact && x.im != 0) || (!y.exact && y.im != 0)); // left the real numbers
        w->used = used;
        if (w->spent) return false;
        if (x.bad || y.bad || turned) continue;
        if (!same) return false;
        agreed++;
    }
    return agreed >= (symbols ? 2 : 1);
}

static bool scaled(Work *w, const Node *n, Node *out) { // its value in the base unit
    Node *factor = work_node(w, NODE_NUMBER);
    factor->number = n->unit.factor;
    *out = (Node){.kind = NODE_MULTIPLY, .left = (Node *)(uintptr_t)n, .right = factor};
    return !w->spent;
}

static bool scalars_equal(Work *w, const Node *a, int sign_a, const Node *b, int sign_b) {
    if (a->unit.dimension && b->unit.dimension) {
        Node x, y;
        if (a->unit.dimension != b->unit.dimension || !scaled(w, a, &x) || !scaled(w, b, &y)) return false;
        return equal_at_points(w, &x, sign_a, &y, sign_b);
    }
    if (equal_at_points(w, a, sign_a, b, sign_b)) return true;
    if (a->kind == NODE_PERCENT && b->kind != NODE_PERCENT) return equal_at_points(w, a->left, sign_a, b, sign_b);
    if (b->kind == NODE_PERCENT && a->kind != NODE_PERCENT) return equal_at_points(w, a, sign_a, b->left, sign_b);
    return false;
}

// ---- relations ----------------------------------------------------------------------------------------------------
static bool is_relation(const Node *n, int op) { return n->kind == NODE_RELATION && n->count == 2 && n->last->relation == op; }

static bool is_differential(const Node *n) { // dy; d, \partial or their powers times a symbol
    return n->kind == NODE_MULTIPLY && n->right->kind == NODE_SYMBOL && n->left->kind == NODE_SYMBOL && n->left->text.size == 1 && *n->left->text.data == 'd';
}
static bool names_a_function(const Node *n) { // f(x), f'(x), f^{-1}(x), dy/dx, \sin\theta
    if (n->kind == NODE_DIVIDE) return is_differential(n->left) && is_differential(n->right);
    if (n->kind == NODE_FUNCTION) return n->left->kind == NODE_SYMBOL && n->op != FUNCTION_ABS;
    if (n->kind != NODE_MULTIPLY) return false;
    const Node *f = n->left->kind == NODE_POWER ? n->left->left : n->left;
    return f->kind == NODE_SYMBOL && f->text.size && strchr("fghFGPQpq", *f->text.data) && (f->text.size == 1 || f->text.data[1] == '\'' || f->text.data[1] == '_');
}
static bool same_symbol(const Node *a, const Node *b) {
    return a->kind == NODE_SYMBOL && b->kind == NODE_SYMBOL && a->text.size == b->text.size && memcmp(a->text.data, b->text.data, a->text.size) == 0;
}
static bool mentions(const Node *n, const Node *symbol) {
    if (!n) return false;
    if (same_symbol(n, symbol) || mentions(n->left, symbol) || mentions(n->right, symbol)) return true;
    for (const Node *c = n->first; c; c = c->next)
        if (mentions(c, symbol)) return true;
    return false;
}

// What x = 3, 3 = x, f(x) = 3, x = 1 + 2 = 3, 1 + 2 = 3 and "x in S" say: 3, S. NULL if it is no such statement.
static const Node *stated_value(const Node *n, const Node **name) {
    *name = NULL;
    if (n->kind != NODE_RELATION) return NULL;
    bool symbols = false;
    for (const Node *c = n->first; c; c = c->next) {
        if (c != n->first && c->relation != '=' && c->relation != 'i') return NULL;
        symbols |= has(c, NODE_SYMBOL);
    }
    if (!symbols) return n->last;
    if ((n->first->kind == NODE_SYMBOL || names_a_function(n->first)) && !mentions(n->last, n->first)) {
        *name = n->first;
        return n->last;
    }
    if (n->count == 2 && n->last->kind == NODE_SYMBOL && !has(n->first, NODE_SYMBOL)) {
        *name = n->last;
        return n->first;
    }
    return n->first->kind == NODE_LIST || n->first->kind == NODE_BRACKET ? n->last : NULL; // (x, y) = (1, 2)
}

static Value difference(Work *w, const Node *relation, bool turned, int point) {
    const Node *left = turned ? relation->last : relation->first, *right = turned ? relation->first : relation->last;
    Node d = {.kind = NODE_SUBTRACT, .left = (Node *)(uintptr_t)left, .right = (Node *)(uintptr_t)right};
    return value_of(w, &d, 1, point);
}
static bool is_nothing(Work *w, const Value *v) {
    Value zero = {.exact = false};
    return values_equal(w, v, &zero);
}

// Whether left - right of one is a constant multiple (a positive one, if `positive`) of that of the other.
static bool proportional(Work *w, const Node *a, bool turn_a, const Node *b, bool turn_b, bool positive) {
    if (!is_scalar(a->first) || !is_scalar(a->last) || !is_scalar(b->first) || !is_scalar(b->last)) return false;
    double ratio = 0;
    int agreed = 0;
    size_t used = w->used;
    for (int point = 0; point < POINTS && !w->spent; point++, w->used = used) {
        Value x = difference(w, a, turn_a, point), y = difference(w, b, turn_b, point);
        if (x.bad || y.bad || x.infinite || y.infinite) continue;
        if (is_nothing(w, &x) != is_nothing(w, &y)) return false;
        if (is_nothing(w, &x)) continue;
        double p = x.exact ? rational_double(&x.q) : x.re, q = y.exact ? rational_double(&y.q) : y.re, r = p / q;
        if ((!x.exact && x.im != 0) || (!y.exact && y.im != 0)) continue;
        if (positive && !(r > 0)) return false;
        if (agreed && !(r - ratio <= 1e-9 * (r < 0 ? -r : r) && ratio - r <= 1e-9 * (r < 0 ? -r : r))) return false;
        ratio = r;
        agreed++;
    }
    return agreed > 1 && !w->spent;
}

static int mirrored(int op) { return op == '<' ? '>' : op == '>' ? '<' : op == 'l' ? 'g' : op == 'g' ? 'l' : op; }
static bool is_inequality(int op) { return op == '<' || op == '>' || op == 'l' || op == 'g'; }

static bool relations_equal(Work *w, const Node *a, const Node *b) {
    if (a->count != 2 || b->count != 2 || has(a->last, NODE_PLUS_MINUS) || has(b->last, NODE_PLUS_MINUS)) return false;
    int x = a->last->relation, y = b->last->relation;
    if ((x == '=' && y == '=') || (x == '!' && y == '!')) return proportional(w, a, false, b, false, false);
    if (!is_inequality(x) || !is_inequality(y)) return false;
    bool turn_a = x == '<' || x == 'l', turn_b = y == '<' || y == 'l'; // all towards "greater"
    if ((turn_a ? mirrored(x) : x) != (turn_b ? mirrored(y) : y)) return false;
    return proportional(w, a, turn_a, b, turn_b, true);
}

// ---- intervals ----------------------------------------------------------------------------------------------------
static Node *interval(Work *w, char open, const Node *low, const Node *high, char close) {
    Node *n = work_node(w, NODE_BRACKET), *ends[2] = {work_node(w, NODE_INFINITY), work_node(w, NODE_INFINITY)};
    if (w->spent) return NULL;
    if (low) *ends[0] = *low;
    else *ends[0] = (Node){.kind = NODE_NEGATE, .left = work_node(w, NODE_INFINITY)};
    if (high) *ends[1] = *high;
    ends[0]->next = ends[1]->next = NULL;
    n->open = open, n->close = close;
    node_append(n, ends[0]), node_append(n, ends[1]);
    return w->spent ? NULL : n;
}

// |x| < 2, |x - 1| <= 3; NULL if it isn't one.
static Node *interval_of_distance(Work *w, const Node *a, int op, const Node *b) {
    if ((op != '<' && op != 'l') || a->kind != NODE_FUNCTION || a->op != FUNCTION_ABS || !is_scalar(b) || has(b, NODE_SYMBOL)) return NULL;
    const Node *inside = a->left, *center = NULL;
    bool sum = inside->kind == NODE_ADD || inside->kind == NODE_SUBTRACT;
    if (sum && inside->left->kind == NODE_SYMBOL && !has(inside->right, NODE_SYMBOL)) center = inside->right;
    else if (inside->kind != NODE_SYMBOL) return NULL;
    Node *low = work_node(w, NODE_NEGATE), *high = work_node(w, NODE_NEGATE);
    low->left = (Node *)(uintptr_t)b, high->left = low;
    if (center) {
        NodeKind back = inside->kind == NODE_ADD ? NODE_SUBTRACT : NODE_ADD;
        Node *ends[2] = {work_node(w, back), work_node(w, back)};
        ends[0]->left = low, ends[1]->left = high;
        ends[0]->right = ends[1]->right = (Node *)(uintptr_t)center;
        low = ends[0], high = ends[1];
    }
    return w->spent ? NULL : interval(w, op == '<' ? '(' : '[', low, high, op == '<' ? ')' : ']');
}
// x > 3, 3 < x <= 5 as an interval; NULL if it isn't one.
static Node *interval_of(Work *w, const Node *n) {
    if (n->kind != NODE_RELATION) return NULL;
    const Node *a = n->first, *b = a->next, *c = b->next;
    int op = b->relation;
    if (n->count == 2 && is_inequality(op)) {
        if (b->kind == NODE_SYMBOL && !has(a, NODE_SYMBOL)) {
            const Node *t = a;
            a = b, b = t, op = mirrored(op);
        }
        if (a->kind != NODE_SYMBOL) return interval_of_distance(w, a, op, b);
        if (!is_scalar(b) || has(b, NODE_SYMBOL)) return NULL;
        if (op == '<' || op == 'l') return interval(w, '(', NULL, b, op == '<' ? ')' : ']');
        return interval(w, op == '>' ? '(' : '[', b, NULL, ')');
    }
    if (n->count != 3 || b->kind != NODE_SYMBOL || !is_scalar(a) || !is_scalar(c) || has(a, NODE_SYMBOL) || has(c, NODE_SYMBOL)) return NULL;
    int second = c->relation;
    if ((op == '>' || op == 'g') && (second == '>' || second == 'g')) {
        const Node *t = a;
        a = c, c = t, op = mirrored(second), second = mirrored(b->relation);
    }
    if ((op != '<' && op != 'l') || (second != '<' && second != 'l')) return NULL;
    return interval(w, op == '<' ? '(' : '[', a, c, second == '<' ? ')' : ']');
}

// ---- collections --------------------------------------------------------------------------------------------------
typedef struct Element {
    const Node *node;
    int sign; // of plus-minus in it
} Element;
typedef struct Elements {
    Element list[2 * MAX_ITEMS];
    int count;
    bool failed;
} Elements;

static void add_element(Elements *e, const Node *n, int sign) {
    if (e->count == 2 * MAX_ITEMS) e->failed = true;
    else e->list[e->count++] = (Element){n, sign};
}

static bool excludes_a_value(const Node *n) { // x != 3
    return is_relation(n, '!') && n->first->kind == NODE_SYMBOL && is_scalar(n->last) && !has(n->last, NODE_SYMBOL);
}

static void add_elements(Work *w, const Node *n, Elements *out) {
    const Node *name, *value = stated_value(n, &name);
    Node *as_interval;
    if (n->kind == NODE_LIST || n->kind == NODE_SET || n->kind == NODE_UNION) {
        for (const Node *c = n->first; c; c = c->next) add_elements(w, c, out);
    } else if (value && (value->kind == NODE_SET || value->kind == NODE_LIST || has(value, NODE_PLUS_MINUS))) {
        add_elements(w, value, out);
    } else if (is_scalar(n) && has(n, NODE_PLUS_MINUS)) {
        add_element(out, n, 1);
        add_element(out, n, -1);
    } else if (excludes_a_value(n)) {
        add_element(out, interval(w, '(', NULL, n->last, ')'), 1);
        add_element(out, interval(w, '(', n->last, NULL, ')'), 1);
    } else if ((as_interval = interval_of(w, n))) {
        add_element(out, as_interval, 1);
    } else if (n->kind != NODE_EMPTY) {
        add_element(out, n, 1);
    }
    out->failed |= w->spent;
}

static bool elements_equal(Work *w, const Element *a, const Element *b) {
    if (is_scalar(a->node) && is_scalar(b->node)) return scalars_equal(w, a->node, a->sign, b->node, b->sign);
    const Node *name, *said_a = is_scalar(a->node) ? a->node : stated_value(a->node, &name), *said_b = is_scalar(b->node) ? b->node : stated_value(b->node, &name);
    bool one_states = is_scalar(a->node) || is_scalar(b->node); // -5 and x = -5, where the first may come from plus-minus
    if (one_states && said_a && said_b && is_scalar(said_a) && is_scalar(said_b)) return scalars_equal(w, said_a, a->sign, said_b, b->sign);
    return equal(w, a->node, b->node);
}
// Each of `a` has its equal in `b`.
static bool covered(Work *w, const Elements *a, const Elements *b) {
    for (int i = 0; i < a->count; i++) {
        bool found = false;
        for (int k = 0; k < b->count && !found; k++) found = elements_equal(w, &a->list[i], &b->list[k]);
        if (!found || w->spent) return false;
    }
    return true;
}
static bool collections_equal(Work *w, const Node *a, const Node *b) {
    Elements x, y;
    x.count = y.count = 0, x.failed = y.failed = false;
    add_elements(w, a, &x);
    add_elements(w, b, &y);
    if (x.failed || y.failed || (x.count == 0) != (y.count == 0)) return false;
    return covered(w, &x, &y) && covered(w, &y, &x);
}

static bool in_order(Work *w, const Node *a, const Node *b) {
    if (a->count != b->count) return false;
    for (const Node *x = a->first, *y = b->first; x && y; x = x->next, y = y->next)
        if (!equal(w, x, y)) return false;
    return true;
}

static bool is_collection(const Node *n) {
    return n->kind == NODE_LIST || n->kind == NODE_SET || n->kind == NODE_UNION || n->kind == NODE_EMPTY ||
           (is_scalar(n) && has(n, NODE_PLUS_MINUS)) || excludes_a_value(n);
}

static bool brackets_equal(Work *w, const Node *a, const Node *b) {
    if (a->count == 2 && (a->open != b->open || a->close != b->close)) return false;
    return in_order(w, a, b);
}

static bool ratio_equal(Work *w, const Node *ratio, const Node *scalar) { // 3:17 is 3/17
    if (ratio->count != 2 || !is_scalar(scalar) || scalar->kind == NODE_NUMBER) return false;
    Node quotient = {.kind = NODE_DIVIDE, .left = ratio->first, .right = ratio->last};
    return scalars_equal(w, &quotient, 1, scalar, 1);
}

static bool is_column(const Node *matrix, const Node *bracket) { // (1, 2) and [[1], [2]] may be columns
    return matrix->columns == 1 && ((bracket->open == '(' && bracket->close == ')') || (bracket->open == '[' && bracket->close == ']'));
}
static bool kinds_equal(Work *w, const Node *a, const Node *b) {
    if (a->kind == NODE_BRACKET && b->kind == NODE_BRACKET) return brackets_equal(w, a, b);
    if (a->kind == NODE_MATRIX && b->kind == NODE_MATRIX) return a->rows == b->rows && a->columns == b->columns && in_order(w, a, b);
    if (a->kind == NODE_RATIO && b->kind == NODE_RATIO) return in_order(w, a, b);
    if (a->kind == NODE_RATIO) return ratio_equal(w, a, b);
    if (b->kind == NODE_RATIO) return ratio_equal(w, b, a);
    if (a->kind == NODE_BRACKET && b->kind == NODE_LIST) return a->open == '(' && a->close == ')' && in_order(w, a, b);
    if (a->kind == NODE_LIST && b->kind == NODE_BRACKET) return b->open == '(' && b->close == ')' && in_order(w, a, b);
    if (a->kind == NODE_MATRIX && b->kind == NODE_BRACKET) return is_column(a, b) && in_order(w, a, b);
    if (a->kind == NODE_BRACKET && b->kind == NODE_MATRIX) return is_column(b, a) && in_order(w, a, b);
    if (is_collection(a) || is_collection(b)) return collections_equal(w, a, b);
    return is_scalar(a) && is_scalar(b) && scalars_equal(w, a, 1, b, 1);
}

static bool equal_statements(Work *w, const Node *a, const Node *b) {
    const Node *name_a, *name_b, *value_a = stated_value(a, &name_a), *value_b = stated_value(b, &name_b);
    if (a->kind == NODE_RELATION && b->kind == NODE_RELATION) {
        if (relations_equal(w, a, b)) return true;
        if (value_a && value_b) {
            if (name_a && name_b && !same_symbol(name_a, name_b) && name_a->kind == NODE_SYMBOL && name_b->kind == NODE_SYMBOL) return false;
            return kinds_equal(w, value_a, value_b);
        }
        if (value_a) return equal(w, value_a, b);
        if (value_b) return equal(w, a, value_b);
    } else if (a->kind == NODE_RELATION && value_a) {
        return equal(w, value_a, b);
    } else if (b->kind == NODE_RELATION && value_b) {
        return equal(w, a, value_b);
    }
    Node *interval_a = interval_of(w, a), *interval_b = interval_of(w, b);
    if (interval_a) a = interval_a;
    if (interval_b) b = interval_b;
    if (a->kind == NODE_RELATION && !excludes_a_value(a)) return false;
    if (b->kind == NODE_RELATION && !excludes_a_value(b)) return false;
    return kinds_equal(w, a, b);
}
static bool equal(Work *w, const Node *a, const Node *b) {
    enum { NESTED = 16 };
    if (w->nested == NESTED || !work_step(w, 10)) return false;
    w->nested++;
    bool same = equal_statements(w, a, b);
    w->nested--;
    return same;
}

// ---- undone arithmetic --------------------------------------------------------------------------------------------
static bool is_plain_number(const Node *n) {
    return n->kind == NODE_NUMBER || ((n->kind == NODE_NEGATE || n->kind == NODE_PERCENT || n->kind == NODE_DEGREES) && is_plain_number(n->left));
}
static bool is_power_of_ten(const Node *n) {
    int64_t base;
    return n->kind == NODE_POWER && n->left->kind == NODE_NUMBER && rational_small(&n->left->number, &base) && base == 10;
}
static bool is_undone(const Node *n) {
    if (!n || !is_scalar(n)) return false;
    if (is_undone(n->left) || is_undone(n->right)) return true; // each branch once: sums can be deep
    if (n->kind != NODE_ADD && n->kind != NODE_SUBTRACT && n->kind != NODE_MULTIPLY) return false;
    bool scientific = n->kind == NODE_MULTIPLY && (is_power_of_ten(n->right) || is_power_of_ten(n->left));
    return is_plain_number(n->left) && is_plain_number(n->right) && !scientific;
}
// Where the truth is a number, 6*7 is the question and not the answer 42.
static bool leaves_work_undone(const Node *truth, const Node *answer) {
    const Node *name, *stated = stated_value(truth, &name), *said = stated_value(answer, &name);
    return is_plain_number(stated ? stated : truth) && is_undone(said ? said : answer);
}

// ---- text ---------------------------------------------------------------------------------------------------------
enum { PLAIN_LIMIT = 1024 };
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
// Whether an exclamation mark after these characters is a factorial: after 5, n and (n+1), not after Yes.
static bool is_operand(const char *text, size_t n) {
    char c = text[n - 1];
    return (c >= '0' && c <= '9') || c == ')' || c == ']' || c == '}' || (is_letter(c) && (n == 1 || !is_letter(text[n - 2])));
}
// Without dressing; case is kept for a single letter only. Returns the length, 0 if it is too long.
static size_t plain_text(TextSpan t, char *out) {
    static const char *const dropped[] = {"\\text", "\\mathrm", "\\textbf", "\\mathbf", "\\textrm", "\\mbox", "\\left", "\\right", "\\,", "\\;", "\\!",
                                          "\\ ", "\\displaystyle", "$", "{", "}", "**", "`", "\"", "\\(", "\\)", "\\[", "\\]", "“", "”"};
    size_t n = 0;
    bool blank = false;
    t = text_trim(t);
    bool formula = memchr(t.data, '^', t.size) || memchr(t.data, '_', t.size) || memmem(t.data, t.size, "frac", 4) || memmem(t.data, t.size, "sqrt", 4);
    while (t.size) {
        size_t skip = 0;
        for (int i = 0; i < COUNT(dropped) && !skip; i++) {
            size_t k = strlen(dropped[i]);
            if (formula && (*dropped[i] == '{' || *dropped[i] == '}')) continue; // there they mean something
            if (t.size >= k && memcmp(t.data, dropped[i], k) == 0) skip = k;
        }
        if (!skip && (*t.data == ' ' || (*t.data >= '\t' && *t.data <= '\r'))) blank = n > 0, skip = 1;
        if (!skip) {
            if (n + 2 >= PLAIN_LIMIT) return 0;
            if (blank) out[n++] = ' ';
            blank = false;
            out[n++] = *t.data;
            skip = 1;
        }
        t.data += skip, t.size -= skip;
    }
    while (n > 1 && strchr(".,;:!?", out[n - 1]) && !(out[n - 1] == '!' && is_operand(out, n - 1))) n--;
    if (n > 2 && out[0] == '(' && out[n - 1] == ')') memmove(out, out + 1, n -= 2);
    if (n == 2 && out[1] == ')' && is_letter(out[0])) n = 1; // C)
    for (size_t i = 0; n > 1 && i < n; i++)
        if (out[i] >= 'A' && out[i] <= 'Z') out[i] = (char)(out[i] + 32);
    return n;
}
static bool texts_equal(TextSpan a, TextSpan b) {
    char x[PLAIN_LIMIT], y[PLAIN_LIMIT];
    size_t n = plain_text(a, x), m = plain_text(b, y);
    if (n && n == m && memcmp(x, y, n) == 0) return true;
    TextSpan stem = without_ending((TextSpan){y, m}); // 북쪽입니다
    return n && n == stem.size && memcmp(x, y, n) == 0;
}

// ---- the way in ---------------------------------------------------------------------------------------------------
typedef struct Reading {
    Node *node;    // NULL: text
    TextSpan text; // the part that is the answer
} Reading;

static void give_unit(Work *w, Reading *r, TextSpan tail) {
    Unit unit;
    Node *n = r->node;
    if (!n || !is_scalar(n) || n->unit.dimension || !tail.size) return;
    if (*tail.data == '%' || (tail.size > 1 && tail.data[0] == '\\' && tail.data[1] == '%')) {
        r->node = work_node(w, NODE_PERCENT);
        r->node->left = n;
        return;
    }
    size_t size = 0;
    while (size < tail.size && !strchr(" .,;\n", tail.data[size])) size++;
    if (unit_read(w, (TextSpan){tail.data, size}, &unit) && unit.dimension) {
        if (unit.dimension == UNIT_PERCENT) give_unit(w, r, (TextSpan){"%", 1});
        else n->unit = unit;
    }
}

static Node *read_parts(Work *w, const Found *found, bool decimal_comma) {
    Node *list = work_node(w, NODE_LIST);
    for (int i = 0; i < found->count; i++) {
        Node *n = parse_answer(w, found->list[i].text, true, decimal_comma);
        if (!n) return NULL;
        if (n->kind != NODE_LIST) node_append(list, n);
        for (Node *c = n->kind == NODE_LIST ? n->first : NULL, *next; c; c = next) {
            next = c->next, c->next = NULL;
            node_append(list, c);
        }
    }
    return list->count > 1 ? list : list->first;
}

static Reading read_text(Work *w, TextSpan text, bool truth, bool decimal_comma) {
    Found found;
    find_answer(text, &found);
    Reading r = {.text = found.list[0].text};
    if (found.count > 1) {
        r.text = text;
        r.node = read_parts(w, &found, decimal_comma);
        return r;
    }
    bool formula = found.list[0].math;
    r.node = parse_answer(w, r.text, formula, decimal_comma);
    if (!r.node && formula) r.node = parse_answer(w, r.text, false, decimal_comma);
    give_unit(w, &r, found.tail);
    if (r.node || found.tail.size) return r;
    TextSpan part;
    const char *rest;
    if (find_after_cue(r.text, &part)) {
        r.text = part;
        r.node = parse_answer(w, part, formula, decimal_comma);
        if (!r.node) r.node = parse_leading(w, part, &rest);
        if (r.node && find_denied(part)) r.node = NULL;
        if (!r.node) r.text = without_ending(part);
        if (r.node || truth) return r;
    }
    if (!truth && find_last_number(text, &part)) {
        r.node = parse_leading(w, part, &rest);
        if (r.node) r.text = part;
    }
    return r;
}

// Whether a comma may be the decimal one, or points may group: 3,5; 1.500 đồng.
static bool may_have_decimal_comma(TextSpan t) {
    bool points = false, marks = false;
    for (size_t i = 1; i + 1 < t.size; i++) {
        if (t.data[i] != ',' && t.data[i] != '.') continue;
        if (t.data[i - 1] < '0' || t.data[i - 1] > '9' || t.data[i + 1] < '0' || t.data[i + 1] > '9') continue;
        size_t run = 0;
        while (i + 1 + run < t.size && t.data[i + 1 + run] >= '0' && t.data[i + 1 + run] <= '9') run++;
        if (t.data[i] == ',' && run != 3) return true;
        points |= t.data[i] == '.' && run == 3;
    }
    for (size_t i = 0; points && i + 1 < t.size; i++) {
        unsigned char c = (unsigned char)t.data[i];
        marks |= c == 0xE1 || (c == 0xC4 && ((unsigned char)t.data[i + 1] & 0xFE) == 0x90) || (c == 'V' && t.data[i + 1] == 'N');
    }
    return points && marks;
}

static bool has_tags(TextSpan t) {
    static const char *const tags[] = {"<answer", "</answer", "<think", "</think"};
    if (!memchr(t.data, '<', t.size)) return false;
    for (int i = 0; i < COUNT(tags); i++)
        if (memmem(t.data, t.size, tags[i], strlen(tags[i]))) return true;
    return false;
}

// 5m, 20g in plain text: a letter right after a number, which parse_answer takes for a symbol, as its unit.
static Node *read_glued_unit(Work *w, TextSpan t) {
    Parser p = {.work = w, .at = t.data, .end = t.data + t.size};
    Rational number;
    bool minus = t.size && *t.data == '-';
    p.at += minus;
    if (t.size < 2 || !strchr("mgsLlh", t.data[t.size - 1]) || !parse_number(&p, &number) || p.at + 1 != p.end) return NULL;
    Node *n = node_number(&p, &number);
    n->number.negative = minus;
    return unit_read(w, (TextSpan){p.at, 1}, &n->unit) ? n : NULL;
}
static bool equal_with_glued_units(Work *w, TextSpan truth, TextSpan answer, const Node *x, const Node *y) {
    Node *glued_truth = read_glued_unit(w, truth), *glued_answer = read_glued_unit(w, answer);
    if (glued_truth) x = glued_truth;
    if (glued_answer) y = glued_answer;
    return (glued_truth || glued_answer) && x && y && x->kind == NODE_NUMBER && y->kind == NODE_NUMBER && equal(w, x, y);
}

static bool compare(Work *w, TextSpan truth, TextSpan answer) {
    bool comma_a = may_have_decimal_comma(truth), comma_b = may_have_decimal_comma(answer);
    for (int a = 0; a <= comma_a; a++)
        for (int b = 0; b <= comma_b; b++) {
            w->used = 0, w->symbol_count = 0;
            Reading x = read_text(w, truth, true, a), y = read_text(w, answer, false, b);
            if (w->spent) return false;
            if (x.node && y.node && !leaves_work_undone(x.node, y.node) && equal(w, x.node, y.node)) return true;
            bool both_measure = x.node && y.node && x.node->unit.dimension && y.node->unit.dimension; // the units aren't in the texts: $5$ m
            if ((!both_measure && texts_equal(x.text, y.text)) || equal_with_glued_units(w, truth, answer, x.node, y.node)) return true;
        }
    return false;
}

// Wide forms of ASCII as they come from an East Asian keyboard (\uFF01 to \uFF5E), made narrow; the copy is the caller's.
static char *make_narrow(TextSpan *t) {
    if (!t->size || !memchr(t->data, 0xEF, t->size)) return NULL;
    char *copy = xmalloc(t->size);
    size_t n = 0;
    for (size_t i = 0; i < t->size;) {
        const unsigned char *c = (const unsigned char *)t->data + i;
        uint32_t code = t->size - i >= 3 && c[0] == 0xEF ? 0xF000u | (c[1] & 63u) << 6 | (c[2] & 63u) : 0;
        bool wide = code >= 0xFF01 && code <= 0xFF5E;
        copy[n++] = wide ? (char)(code - 0xFF01 + '!') : t->data[i];
        i += wide ? 3 : 1;
    }
    *t = (TextSpan){copy, n};
    return copy;
}

bool verify_equal(TextSpan truth, TextSpan answer, uint64_t *steps) {
    truth = text_trim(truth), answer = text_trim(answer);
    if (steps) *steps = 1 + (truth.size + answer.size) / 64;
    if (truth.size == answer.size && (truth.size == 0 || memcmp(truth.data, answer.data, truth.size) == 0)) return true;
    if (!truth.size || !answer.size || memchr(truth.data, 0, truth.size) || memchr(answer.data, 0, answer.size)) return false;
    if (truth.size > TEXT_LIMIT) return false;
    if (has_tags(truth) || has_tags(answer)) return false;
    if (answer.size > TEXT_LIMIT) { // the end of a long text
        answer.data += answer.size - TEXT_LIMIT, answer.size = TEXT_LIMIT;
        while (answer.size && (*answer.data & 0xC0) == 0x80) answer.data++, answer.size--;
    }
    char *copies[2] = {make_narrow(&truth), make_narrow(&answer)};
    Work work = {.memory = xmalloc(MEMORY), .size = MEMORY, .step_limit = STEPS};
    bool same = compare(&work, truth, answer);
    if (steps) *steps += 20 + work.steps + (truth.size + answer.size) * 2;
    free(work.memory);
    free(copies[0]), free(copies[1]);
    return same;
}
