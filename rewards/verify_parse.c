// From an answer's text to a tree: what holds the leaves together. From the outside in:
//
//   items     item, item or item          a list
//   item      union = union < union ...   a relation, a ratio a:b, or one value with its unit
//   union     sum \cup sum ...
//   sum       term + term - term \pm term
//   term      factor * factor / factor, and factors side by side
//   factor    an atom with its powers, factorials, percent and degree signs
//
// LaTeX and plain text are read by the same code; `math` says whether letters stand for themselves. It never guesses:
// what can't be read to its end is no formula, and is then compared as text. Nesting is bounded by MAX_DEPTH.
#include "verify_parts.h"
#include <string.h>

// ---- small things -------------------------------------------------------------------------------------------------
Node *parse_fail(Parser *p) {
    p->failed = true;
    return work_node(p->work, NODE_TEXT);
}
bool parse_looks(const Parser *p, const char *word) {
    if (p->at >= p->end || *p->at != *word) return false; // most end here
    size_t n = strlen(word);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, word, n) == 0;
}
int parse_letters(const Parser *p) {
    int n = 0;
    while (p->at + n < p->end && ((p->at[n] >= 'a' && p->at[n] <= 'z') || (p->at[n] >= 'A' && p->at[n] <= 'Z'))) n++;
    return n;
}
bool letters_go_on(const Parser *p, int run) {
    unsigned char next = p->at + run < p->end ? (unsigned char)p->at[run] : 0;
    return (next >= 0xC3 && next <= 0xCB) || next == 0xE1 || next >= 0xE3;
}
static bool take_command(Parser *p, const char *name) {
    if (p->end - p->at < 2 || *p->at != '\\' || p->at[1] != *name) return false;
    size_t n = strlen(name);
    if ((size_t)(p->end - p->at) <= n || memcmp(p->at + 1, name, n) != 0) return false;
    Parser after = *p;
    after.at += n + 1;
    if (parse_letters(&after)) return false;
    p->at = after.at;
    return true;
}

void parse_blanks(Parser *p) {
    static const char *const blanks[] = {" ", "\t", "\n", "\r", "~", "$", "\\,", "\\;", "\\:", "\\!", "\\ ", "{}", "\xC2\xA0",
                                         "\xE3\x80\x80", "\xE2\x80\x89", "\xE2\x80\xAF", "\xE2\x80\x8B", "\\(", "\\)", "\\[", "\\]"};
    static const char *const commands[] = {"left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "quad", "qquad",
                                           "displaystyle", "textstyle", "limits", "space", "thinspace", "medspace", "enspace"};
    while (p->at < p->end) {
        const char *before = p->at;
        char c = *p->at;
        if (c == '\\') {
            for (int i = 0; i < COUNT(commands) && p->at == before; i++) take_command(p, commands[i]);
            if (p->at != before) continue;
        } else if (c != ' ' && c != '$' && c != '~' && c != '{' && !(c >= '\t' && c <= '\r') && !(c & 0x80)) {
            return;
        }
        for (int i = 0; i < COUNT(blanks) && p->at == before; i++)
            if (parse_looks(p, blanks[i])) p->at += strlen(blanks[i]);
        if (p->at == before) return;
    }
}
bool parse_take(Parser *p, const char *word) {
    parse_blanks(p);
    if (!parse_looks(p, word)) return false;
    p->at += strlen(word);
    return true;
}
bool parse_command(Parser *p, const char *name) {
    parse_blanks(p);
    return take_command(p, name);
}

Node *node_binary(Parser *p, NodeKind kind, Node *left, Node *right) {
    Node *n = work_node(p->work, kind);
    n->left = left, n->right = right;
    if (p->work->spent) p->failed = true;
    return n;
}
Node *node_number(Parser *p, const Rational *number) {
    Node *n = work_node(p->work, NODE_NUMBER);
    n->number = *number;
    return n;
}
void node_append(Node *parent, Node *child) {
    if (parent->last) parent->last->next = child;
    else parent->first = child;
    parent->last = child;
    parent->count++;
}
Node *node_reals(Work *w) {
    Node *n = work_node(w, NODE_BRACKET), *low = work_node(w, NODE_NEGATE), *high = work_node(w, NODE_INFINITY);
    low->left = work_node(w, NODE_INFINITY);
    if (w->spent) return n;
    n->open = '(', n->close = ')';
    node_append(n, low), node_append(n, high);
    return n;
}
static bool scalar(const Node *n) { return n->kind < NODE_LIST; }

// ---- factors ------------------------------------------------------------------------------------------------------
static Node *parse_factor(Parser *p);

static Node *parse_exponent(Parser *p) {
    parse_blanks(p);
    if (parse_looks(p, "{")) return parse_group(p);
    bool minus = parse_take(p, "-") || parse_take(p, "\xE2\x88\x92");
    if (!minus) parse_take(p, "+");
    Node *e = parse_factor(p); // right-associative
    return minus ? node_binary(p, NODE_NEGATE, e, NULL) : e;
}

// A run of superscript digits with a sign; false if there is none.
static bool superscripts(Parser *p, Node **out) {
    static const char *const digits[] = {"\xE2\x81\xB0", "\xC2\xB9", "\xC2\xB2", "\xC2\xB3", "\xE2\x81\xB4",
                                         "\xE2\x81\xB5", "\xE2\x81\xB6", "\xE2\x81\xB7", "\xE2\x81\xB8", "\xE2\x81\xB9"};
    char run[20];
    int n = 0;
    Parser q = *p;
    bool minus = parse_looks(&q, "\xE2\x81\xBB");
    if (minus) q.at += 3;
    for (bool more = true; more && n < (int)sizeof run;) {
        more = false;
        for (int d = 0; d < 10 && !more; d++)
            if (parse_looks(&q, digits[d])) q.at += strlen(digits[d]), run[n++] = (char)('0' + d), more = true;
    }
    Rational r;
    if (!n || !rational_digits(p->work, run, n, 0, &r)) return false;
    r.negative = minus;
    p->at = q.at;
    *out = node_number(p, &r);
    return true;
}

static bool degrees_follow(Parser *p) { // after "^"
    static const char *const forms[] = {"\\circ", "{\\circ}", "{\\circ }", "\\degree", "{ \\circ }", "{o}", "\xE2\x88\x98"};
    parse_blanks(p);
    for (int i = 0; i < COUNT(forms); i++)
        if (parse_looks(p, forms[i])) {
            p->at += strlen(forms[i]);
            return true;
        }
    return false;
}

static bool power_follows(const Parser *p) {
    if (!parse_looks(p, "**")) return parse_looks(p, "^");
    const char *next = p->at + 2; // else the end of something in bold
    while (next < p->end && *next == ' ') next++;
    return next < p->end && *next > ' ' && !strchr("*.,;:", *next) && !(*next & 0x80);
}

static Node *parse_factor(Parser *p) {
    if (++p->depth > MAX_DEPTH) return parse_fail(p);
    Node *n = parse_atom(p), *e;
    while (!p->failed) {
        const char *before = p->at;
        parse_blanks(p);
        if (superscripts(p, &e)) {
            n = node_binary(p, NODE_POWER, n, e);
        } else if (power_follows(p)) {
            p->at += *p->at == '*' ? 2 : 1;
            if (degrees_follow(p)) n = node_binary(p, NODE_DEGREES, n, NULL);
            else n = node_binary(p, NODE_POWER, n, parse_exponent(p));
        } else if (parse_looks(p, "\xC2\xB0") || parse_looks(p, "\\degree")) {
            p->at += *p->at == '\\' ? 7 : 2;
            n = node_binary(p, NODE_DEGREES, n, NULL);
        } else if (parse_looks(p, "!") && !parse_looks(p, "!=")) {
            p->at++;
            n = node_binary(p, NODE_FACTORIAL, n, NULL);
        } else if (parse_looks(p, "\\%") || parse_looks(p, "%")) {
            p->at += *p->at == '\\' ? 2 : 1;
            n = node_binary(p, NODE_PERCENT, n, NULL);
        } else {
            p->at = before;
            break;
        }
        if (!scalar(n->left)) return parse_fail(p);
    }
    p->depth--;
    return n;
}

// ---- terms --------------------------------------------------------------------------------------------------------
static bool digit_at(const Parser *p) { return p->at < p->end && *p->at >= '0' && *p->at <= '9'; }

// "3 x 8", "3.8 x 10^3": the letter as a sign, between numbers.
static bool take_letter_times(Parser *p, const Node *left) {
    if (p->math || left->kind != NODE_NUMBER || p->at >= p->end || (*p->at != 'x' && *p->at != 'X')) return false;
    Parser q = *p;
    q.at++;
    if (parse_letters(&q)) return false;
    parse_blanks(&q);
    if (!digit_at(&q)) return false;
    p->at = q.at;
    return true;
}

static char take_operator(Parser *p, const Node *left) {
    static const struct { const char *word; char op; } signs[] = {
        {"\\cdot", '*'}, {"\\times", '*'}, {"\\ast", '*'}, {"\\div", '/'}, {"\xC3\x97", '*'}, {"\xC2\xB7", '*'}, {"\xE2\x8B\x85", '*'},
        {"\xE2\x88\x99", '*'}, {"\xE2\x88\x97", '*'}, {"\xC3\xB7", '/'}, {"\xE2\x88\x95", '/'}, {"\xE2\x81\x84", '/'}, {"*", '*'}, {"/", '/'}};
    parse_blanks(p);
    for (int i = 0; i < COUNT(signs) && !parse_looks(p, "**"); i++)
        if (parse_looks(p, signs[i].word)) {
            p->at += strlen(signs[i].word);
            return signs[i].op;
        }
    return take_letter_times(p, left) ? '*' : 0;
}

static bool function_here(const Parser *p, int run) {
    static const char *const functions[] = {"sqrt", "sin", "cos", "tan", "log", "ln", "exp", "abs", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh"};
    for (int i = 0; i < COUNT(functions); i++)
        if (parse_looks(p, functions[i]) && (int)strlen(functions[i]) >= run - 1) return true;
    return false;
}

static bool known_unit_here(const Parser *p, const Node *left) {
    if (left->kind != NODE_NUMBER && left->kind != NODE_DIVIDE && left->kind != NODE_MULTIPLY && left->kind != NODE_DEGREES)
        return false;
    int n = parse_letters(p);
    TextSpan word = {p->at, (size_t)n};
    if (n == 1 && left->kind == NODE_DEGREES) return *p->at == 'C' || *p->at == 'F';
    bool number = left->kind == NODE_NUMBER || (left->kind == NODE_DIVIDE && left->left->kind == NODE_NUMBER && left->right->kind == NODE_NUMBER);
    if (n > 1 && p->at[-1] == ' ' && number && !parse_looks(p, "pi") && !function_here(p, n))
        return true; // 5 con: a word
    if (n == 0 || !unit_is_letter_unit(word)) return false;
    // One letter next to a number is a symbol: 3m; apart from it and at the end of a text it is a unit: 3 m
    if (n == 1 && p->at[-1] != ' ') return false;
    const char *after = p->at + n;
    return after == p->end || *after == ' ' || *after == '/' || *after == '^' || *after == '.' || *after == ',' || (*after & 0x80);
}

// Whether an atom may begin here that multiplies `left` without a sign.
static bool side_by_side(Parser *p, const Node *left) {
    static const char *const words[] = {"(", "\xCF\x80", "\xE2\x88\x9A", "\xE2\x88\x9B", "\xE2\x88\x9E"};
    static const char *const not_atoms[] = {"text", "mathrm", "textrm", "mbox", "rm", "operatorname", "cup", "cap", "in", "le", "leq",
                                            "leqslant", "ge", "geq", "geqslant", "ne", "neq", "lt", "gt", "pm", "mp", "right", "rangle",
                                            "mid", "to", "rightarrow", "Rightarrow", "implies", "iff", "equiv", "approx", "over", "circ",
                                            "degree", "rvert", "vert", "rfloor", "rceil", "end", "land", "lor", "vee", "wedge", "setminus",
                                            "quad", "qquad", "colon", "sim", "ldots", "dots", "cdots", "rbrace", "textbf", "textit"};
    parse_blanks(p);
    if (p->at >= p->end) return false;
    for (int i = 0; i < COUNT(words); i++)
        if (parse_looks(p, words[i])) return true;
    if (*p->at == '{') return p->math;
    if (*p->at == '\\') {
        Parser q = *p;
        q.at++;
        if (!parse_letters(&q)) return false;
        for (int i = 0; i < COUNT(not_atoms); i++) {
            q = *p;
            if (take_command(&q, not_atoms[i])) return false;
        }
        return true;
    }
    if (digit_at(p)) return left->kind != NODE_NUMBER && left->kind != NODE_DIVIDE && left->kind != NODE_PERCENT && p->math;
    int n = parse_letters(p);
    if (n == 0) return (p->at[0] & 0xFE) == 0xCE; // Greek letters
    if (letters_go_on(p, n) || (!p->math && known_unit_here(p, left))) return false;
    if (n <= 3) {
        static const char *const stops[] = {"or", "and", "mod", "is", "as", "at", "in", "on", "of", "to", "so", "if", "by", "U", "AM",
                                            "PM", "am", "pm", "per", "for", "the", "has", "was", "are", "cm", "mm", "km", "kg", "mg", "ml", "mL"};
        for (int i = 0; i < COUNT(stops); i++)
            if ((int)strlen(stops[i]) == n && memcmp(stops[i], p->at, (size_t)n) == 0 && (!p->math || i < 2)) return false;
        return true;
    }
    return function_here(p, n);
}

static Node *parse_term(Parser *p) {
    bool minus = false;
    for (;;) { // signs before a factor: -x, --x
        if (parse_take(p, "-") || parse_take(p, "\xE2\x88\x92") || parse_take(p, "\xE2\x80\x93")) minus = !minus;
        else if (!parse_take(p, "+")) break;
    }
    parse_blanks(p);
    size_t word = words_minus((TextSpan){p->at, (size_t)(p->end - p->at)});
    if (word) p->at += word, minus = !minus;
    Node *n = parse_factor(p);
    for (int factors = 1; !p->failed && scalar(n); factors++) {
        const char *before = p->at;
        if (factors == MAX_ITEMS) return parse_fail(p);
        char op = take_operator(p, n);
        if (op) {
            bool negative = parse_take(p, "-") || parse_take(p, "\xE2\x88\x92");
            Node *right = parse_factor(p);
            if (!scalar(right)) return parse_fail(p);
            if (negative) right = node_binary(p, NODE_NEGATE, right, NULL);
            n = node_binary(p, op == '*' ? NODE_MULTIPLY : NODE_DIVIDE, n, right);
        } else if (side_by_side(p, n)) {
            Node *right = parse_factor(p);
            if (!scalar(right)) return parse_fail(p);
            n = node_binary(p, NODE_MULTIPLY, n, right);
        } else {
            p->at = before;
            break;
        }
    }
    if (minus && !p->failed) return scalar(n) ? node_binary(p, NODE_NEGATE, n, NULL) : parse_fail(p);
    return n;
}

// ---- sums ---------------------------------------------------------------------------------------------------------
static char take_sum_sign(Parser *p) {
    static const struct { const char *word; char op; } signs[] = {
        {"\\pm", 'p'}, {"\\mp", 'm'}, {"\xC2\xB1", 'p'}, {"\xE2\x88\x93", 'm'}, {"+/-", 'p'}, {"+-", 'p'}, {"+", '+'}, {"-", '-'},
        {"\xE2\x88\x92", '-'}, {"\xE2\x80\x93", '-'}};
    parse_blanks(p);
    for (int i = 0; i < COUNT(signs); i++)
        if (parse_looks(p, signs[i].word)) {
            p->at += strlen(signs[i].word);
            return signs[i].op;
        }
    return 0;
}

Node *parse_sum(Parser *p) {
    if (++p->depth > MAX_DEPTH) return parse_fail(p);
    Node *n = NULL;
    const char *before = p->at;
    char op = take_sum_sign(p);
    if (op == 'p' || op == 'm') {
        n = node_binary(p, NODE_PLUS_MINUS, NULL, parse_term(p));
        n->op = op == 'p' ? '+' : '-';
    } else {
        p->at = before;
        n = parse_term(p);
    }
    for (int terms = 1; !p->failed && scalar(n); terms++) {
        before = p->at;
        if (terms == MAX_ITEMS) return parse_fail(p);
        op = take_sum_sign(p);
        if (!op) {
            p->at = before;
            break;
        }
        Node *right = parse_term(p);
        if (!scalar(right)) return parse_fail(p);
        n = node_binary(p, op == '+' ? NODE_ADD : op == '-' ? NODE_SUBTRACT : NODE_PLUS_MINUS, n, right);
        if (op == 'p' || op == 'm') n->op = op == 'p' ? '+' : '-';
    }
    if (!p->failed && scalar(n) && parse_command(p, "over")) {
        Node *below = parse_sum(p);
        n = scalar(below) ? node_binary(p, NODE_DIVIDE, n, below) : parse_fail(p);
    }
    p->depth--;
    return n;
}

// ---- units --------------------------------------------------------------------------------------------------------
static bool separator_here(const Parser *p);

// Where what follows a number ends: at a sign that can't be in a unit, or before the next number.
static const char *unit_end(const Parser *p) {
    Parser q = *p;
    int open = 0;
    for (; q.at < q.end; q.at += utf8_step((TextSpan){q.at, (size_t)(q.end - q.at)})) {
        open += *q.at == '{' ? 1 : *q.at == '}' ? -1 : 0;
        if (open < 0 || *q.at == '|' || *q.at == '&') break;
        if (strchr("=<>)];", *q.at) || separator_here(&q)) break;
        if (*q.at == '\\' && (parse_looks(&q, "\\}") || parse_looks(&q, "\\le") || parse_looks(&q, "\\ge") || parse_looks(&q, "\\ne") ||
                              parse_looks(&q, "\\implies") || parse_looks(&q, "\\cup") || parse_looks(&q, "\\Right")))
            break;
        if (digit_at(&q)) {
            const char *b = q.at - 1;
            while (b > p->at && (*b == '{' || *b == '-' || *b == ' ')) b--;
            if (b <= p->at || (*b != '^' && *b != '_' && !(q.at[-1] >= 'a' && q.at[-1] <= 'z'))) break;
        }
    }
    return q.at;
}

static bool holds_number(const Node *n) {
    return n && (n->kind == NODE_NUMBER || (n->kind == NODE_CONSTANT && n->op == 'p') || (scalar(n) && (holds_number(n->left) || holds_number(n->right))));
}
static bool take_unit(Parser *p, Node *n) {
    const char *end = unit_end(p);
    TextSpan text = text_trim((TextSpan){p->at, (size_t)(end - p->at)});
    if (!text.size || !unit_read(p->work, text, &n->unit)) return false;
    if (!n->unit.dimension && (!holds_number(n) || find_denied(text))) return false; // "The answer is": letters and words, no value and its unit
    p->at = end;
    return true;
}

// A value with its unit, or several of one kind: 2 hours 30 minutes.
static Node *parse_quantity(Parser *p) {
    static const struct { const char *sign, *word; } currencies[] = {
        {"\\$", "dollars"}, {"US$", "dollars"}, {"\xE2\x82\xAC", "euros"}, {"\xC2\xA3", "pounds sterling"}, {"\xC2\xA5", "yen"},
        {"\xEF\xBF\xA5", "yen"}, {"\xE2\x82\xA9", "won"}, {"\xEF\xBF\xA6", "won"}, {"\xE2\x82\xAB", "dong"}, {"\\text{\\$}", "dollars"}};
    Unit currency = {0};
    parse_blanks(p);
    Parser q = *p;
    bool minus = parse_take(&q, "-") && (parse_looks(&q, "\\$") || parse_looks(&q, "$"));
    if (minus) *p = q;
    for (int i = 0; i < COUNT(currencies); i++)
        if (parse_take(p, currencies[i].sign)) {
            TextSpan word = {currencies[i].word, strlen(currencies[i].word)};
            if (!unit_read(p->work, word, &currency)) return parse_fail(p);
            break;
        }
    Node *n = parse_sum(p);
    if (minus && !p->failed) n = node_binary(p, NODE_NEGATE, n, NULL);
    if (p->failed || !scalar(n)) return n;
    if (currency.dimension) n->unit = currency;
    parse_blanks(p);
    if (p->at == p->end || !take_unit(p, n)) return n;
    parse_blanks(p);
    if (n->unit.dimension == UNIT_PERCENT) return node_binary(p, NODE_PERCENT, n, NULL);
    for (Parser after; !p->failed && n->unit.dimension && n->kind == NODE_NUMBER;) {
        after = *p;
        if (parse_take(&after, "and ")) parse_blanks(&after); // 6 hours and 30 minutes
        if (!digit_at(&after)) break;
        *p = after;
        Node *more = parse_sum(p);
        if (p->failed || more->kind != NODE_NUMBER || !take_unit(p, more) || more->unit.dimension != n->unit.dimension)
            return parse_fail(p);
        Rational a, b;
        if (!rational_multiply(p->work, &n->number, &n->unit.factor, &a) ||
            !rational_multiply(p->work, &more->number, &more->unit.factor, &b) || !rational_add(p->work, &a, &b, false, &n->number) ||
            !rational_whole(p->work, 1, &n->unit.factor))
            return parse_fail(p);
        parse_blanks(p);
    }
    return n;
}

// ---- unions, relations, lists -------------------------------------------------------------------------------------
// All real numbers but one, as x != that one; p stands after \setminus.
static Node *parse_without(Parser *p, const Node *all) {
    Node *set = parse_quantity(p), *symbol = work_node(p->work, NODE_SYMBOL), *relation = work_node(p->work, NODE_RELATION);
    bool reals = all->kind == NODE_BRACKET && all->count == 2 && all->last->kind == NODE_INFINITY && all->first->kind == NODE_NEGATE;
    if (p->failed || !reals || set->kind != NODE_SET || set->count != 1 || !scalar(set->first)) return parse_fail(p);
    symbol->text = (TextSpan){"x", 1};
    set->first->relation = '!';
    set->first->next = NULL;
    node_append(relation, symbol), node_append(relation, set->first);
    return relation;
}

static Node *parse_union(Parser *p) {
    Node *n = parse_quantity(p), *all = NULL;
    while (!p->failed) {
        const char *before = p->at;
        bool letter = false;
        if (!parse_command(p, "cup") && !parse_take(p, "\xE2\x88\xAA")) {
            letter = !scalar(n) && parse_take(p, "U");
            if (!letter) {
                p->at = before;
                break;
            }
        }
        Node *right = parse_quantity(p);
        if (scalar(n) || scalar(right)) return parse_fail(p);
        if (!all) {
            all = work_node(p->work, NODE_UNION);
            node_append(all, n);
        }
        node_append(all, right);
        n = right;
    }
    if (!p->failed && !all && n->kind == NODE_BRACKET && (parse_command(p, "setminus") || parse_command(p, "backslash"))) return parse_without(p, n);
    return all ? all : n;
}

static int take_relation(Parser *p) {
    static const struct { const char *word; int op; } signs[] = {
        {"\\leqslant", 'l'}, {"\\geqslant", 'g'}, {"\\leq", 'l'}, {"\\geq", 'g'}, {"\\le", 'l'}, {"\\ge", 'g'}, {"\\neq", '!'}, {"\\ne", '!'},
        {"\\not=", '!'}, {"\\lt", '<'}, {"\\gt", '>'}, {"\\approx", '='}, {"\\equiv", '='}, {"\\in", 'i'}, {"\\implies", 't'},
        {"\\Rightarrow", 't'}, {"\\Longrightarrow", 't'}, {"\\rightarrow", 't'}, {"\\to", 't'}, {"\\iff", 't'}, {"\\Leftrightarrow", 't'},
        {"=>", 't'}, {"->", 't'}, {"\xE2\x86\x92", 't'}, {"\xE2\x87\x92", 't'}, {"\xE2\x89\xA4", 'l'}, {"\xE2\x89\xA5", 'g'}, {"\xE2\x89\xA0", '!'},
        {"\xE2\x89\x88", '='}, {"\xE2\x88\x88", 'i'}, {"<=", 'l'}, {">=", 'g'}, {"!=", '!'}, {"==", '='}, {"&=", '='}, {"=", '='}, {"<", '<'},
        {">", '>'}, {"\xEF\xBC\x9D", '='}, {"\xEF\xBC\x9C", '<'}, {"\xEF\xBC\x9E", '>'}};
    parse_blanks(p);
    if (p->at < p->end && *p->at == '&') p->at++, parse_blanks(p);
    for (int i = 0; i < COUNT(signs); i++)
        if (parse_looks(p, signs[i].word)) {
            Parser after = *p;
            after.at += strlen(signs[i].word);
            if (*p->at == '\\' && after.at[-1] != '=' && parse_letters(&after)) continue;
            p->at = after.at;
            return signs[i].op;
        }
    return 0;
}

static bool take_ratio_sign(Parser *p) {
    return parse_take(p, ":") || parse_take(p, "\xEF\xBC\x9A") || parse_take(p, "\xE2\x88\xB6") || parse_command(p, "colon");
}

// a:b:c with the first part read.
static Node *parse_ratio(Parser *p, Node *n) {
    Node *ratio = NULL;
    while (!p->failed && scalar(n)) {
        const char *before = p->at;
        if (!take_ratio_sign(p)) {
            p->at = before;
            break;
        }
        if (!ratio) {
            ratio = work_node(p->work, NODE_RATIO);
            node_append(ratio, n);
        }
        n = parse_quantity(p);
        node_append(ratio, n);
    }
    return ratio ? ratio : n;
}

static Node *parse_item(Parser *p) {
    Node *n = parse_ratio(p, parse_union(p)), *relation = NULL;
    while (!p->failed) {
        const char *before = p->at;
        int op = take_relation(p);
        if (!op) {
            p->at = before;
            break;
        }
        Node *right = parse_ratio(p, parse_union(p));
        if (op == 't') { // only what follows counts
            n = right, relation = NULL;
            continue;
        }
        if (!relation) {
            relation = work_node(p->work, NODE_RELATION);
            node_append(relation, n);
        }
        right->relation = op;
        node_append(relation, right);
    }
    return relation ? relation : n;
}

// 1과 3, 1と3: "and", written right after what it joins.
static size_t joining_particle(const Parser *p) {
    static const char *const particles[] = {"과 ", "와 ", "と"};
    for (int i = 0; i < COUNT(particles); i++) {
        size_t n = strlen(particles[i]);
        const char *next = p->at + n;
        if (parse_looks(p, particles[i]) && next < p->end && ((*next >= '0' && *next <= '9') || *next == '-' || *next == '$')) return n;
    }
    return 0;
}
static size_t separator_size(const Parser *p) {
    static const char *const words[] = {",", ";", "\xE3\x80\x81", "\xEF\xBC\x8C", "\xEF\xBC\x9B", "\\text{ or }", "\\text{or}", "\\text{ and }",
                                        "\\text{and}", "\\mathrm{or}", "\\lor", "\\vee", "\\quad", "or ", "and ", "\xEB\x98\x90\xEB\x8A\x94 ",
                                        "\xEA\xB7\xB8\xEB\xA6\xAC\xEA\xB3\xA0 ", "\xEB\xB0\x8F ", "\xE3\x81\xBE\xE3\x81\x9F\xE3\x81\xAF",
                                        "ho\xE1\xBA\xB7" "c ", "hay ", "v\xC3\xA0 ", "\\text{ \xEB\x98\x90\xEB\x8A\x94 }", "\\text{\xEB\x98\x90\xEB\x8A\x94}"};
    for (int i = 0; i < COUNT(words); i++)
        if (parse_looks(p, words[i])) {
            size_t n = strlen(words[i]);
            bool word = words[i][n - 1] == ' ' && (words[i][0] & 0x40);
            if (!word || p->at[-1] == ' ' || p->at[-1] == '$' || p->at[-1] == '}') return n;
        }
    return joining_particle(p);
}
static bool separator_here(const Parser *p) { return separator_size(p) > 0; }
static bool take_separator(Parser *p) {
    bool any = false;
    for (;;) { // ", and" counts once
        while (p->at < p->end && (*p->at == ' ' || *p->at == '$' || *p->at == '\n')) p->at++;
        size_t n = p->at < p->end ? separator_size(p) : 0;
        if (!n) return any;
        p->at += n;
        any = true;
    }
}

Node *parse_items(Parser *p) {
    if (++p->depth > MAX_DEPTH) return parse_fail(p);
    Node *n = parse_item(p), *list = NULL;
    while (!p->failed) {
        const char *before = p->at;
        if (!take_separator(p)) {
            p->at = before;
            break;
        }
        if (!list) {
            list = work_node(p->work, NODE_LIST);
            node_append(list, n);
        }
        if (list->count == MAX_ITEMS) return parse_fail(p);
        node_append(list, parse_item(p));
    }
    p->depth--;
    return list ? list : n;
}

// ---- the ways in --------------------------------------------------------------------------------------------------
static TextSpan strip_edges(TextSpan t) {
    static const char *const edges[] = {"**", "`", "\"", "'", "\xE3\x80\x82", "\xE2\x80\x9C", "\xE2\x80\x9D", "\xE3\x80\x8C", "\xE3\x80\x8D", "__", "\\\\"};
    for (bool again = true; again;) {
        again = false;
        t = text_trim(t);
        for (int i = 0; i < COUNT(edges); i++) {
            size_t n = strlen(edges[i]);
            if (t.size >= n && memcmp(t.data, edges[i], n) == 0) t.data += n, t.size -= n, again = true;
            if (t.size >= n && memcmp(t.data + t.size - n, edges[i], n) == 0) t.size -= n, again = true;
        }
        if (t.size > 1 && strchr(".,;:?", t.data[t.size - 1])) t.size--, again = true;
        while (t.size > 1 && (*t.data == '=' || (*t.data == '.' && (t.data[1] < '0' || t.data[1] > '9')))) t.data++, t.size--, again = true; // "... = 5"
    }
    return t;
}

static bool only_a_word(TextSpan t) { // "east": text, not a product of letters
    size_t letters = 0;
    for (size_t i = 0; i < t.size; i++) {
        char c = t.data[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) letters++;
        else if (c != ' ' && c != '-' && c != '.') return false;
    }
    return letters > 1;
}

// Answers in words that mean a set: NULL if this is none.
static Node *parse_set_in_words(Work *w, TextSpan t) {
    static const struct { const char *words; bool all; } sets[] = {
        {"{}", false}, {"empty set", false}, {"the empty set", false}, {"null set", false}, {"공집합", false}, {"空集合", false}, {"tập rỗng", false}, {"all real numbers", true}, {"all reals", true},
        {"all real numbers x", true}, {"the set of all real numbers", true}, {"모든 실수", true}, {"すべての実数", true}, {"全ての実数", true}, {"mọi số thực", true}};
    for (int i = 0; i < COUNT(sets); i++) {
        size_t n = strlen(sets[i].words), k = 0;
        while (k < n && k < t.size && ((t.data[k] >= 'A' && t.data[k] <= 'Z' ? t.data[k] | 32 : t.data[k]) == sets[i].words[k])) k++;
        if (k == n && t.size == n) return sets[i].all ? node_reals(w) : work_node(w, NODE_EMPTY);
    }
    return NULL;
}

Node *parse_answer(Work *w, TextSpan text, bool math, bool decimal_comma) {
    text = strip_edges(text);
    Node *set = parse_set_in_words(w, text);
    if (set) return set;
    if (text.size == 0 || text.size > ANSWER_LIMIT) return NULL;
    Parser p = {.work = w, .at = text.data, .end = text.data + text.size, .math = math, .decimal_comma = decimal_comma};
    if (only_a_word(text) && !(math && text.size < 4)) {
        Rational r;
        size_t used;
        static const char *const formulas[] = {"pi", "infinity", "inf"};
        bool known = words_minus(text) || (words_number(w, text, &r, &used) && used > 0);
        Parser bare = p;
        bare.at += *text.data == '-';
        for (int i = 0; i < COUNT(formulas); i++) known |= (size_t)(p.end - bare.at) == strlen(formulas[i]) && parse_looks(&bare, formulas[i]);
        if (!known) return NULL;
    }
    Node *n = parse_items(&p);
    parse_blanks(&p);
    return p.failed || p.work->spent || p.at != p.end ? NULL : n;
}

Node *parse_leading(Work *w, TextSpan text, const char **rest) {
    text = strip_edges(text);
    if (text.size > ANSWER_LIMIT) text.size = ANSWER_LIMIT;
    Parser p = {.work = w, .at = text.data, .end = text.data + text.size, .math = text.size && memchr(text.data, '\\', text.size)};
    if (text.size == 0 || (parse_letters(&p) > 1 && !words_number(w, text, &(Rational){0}, &(size_t){0}) && !words_minus(text))) return NULL;
    Node *n = parse_item(&p), *list = NULL;
    while (!p.failed) { // more items, as long as they can be read
        Parser before = p;
        if (!take_separator(&p)) break;
        Node *more = parse_item(&p);
        if (p.failed) {
            p = before;
            break;
        }
        if (!list) {
            list = work_node(w, NODE_LIST);
            node_append(list, n);
        }
        node_append(list, more);
    }
    *rest = p.at;
    return p.failed || w->spent ? NULL : list ? list : n;
}
