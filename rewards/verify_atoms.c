// The leaves of an answer: numbers in all their spellings, symbols, constants and functions (verify_brackets.c has what
// stands in brackets of its own). A comma between digits is a thousands separator where groups of three follow
// (1,234,567), and separates otherwise and inside of brackets.
#include "verify_parts.h"
#include <string.h>

// ---- numbers ------------------------------------------------------------------------------------------------------
static bool digit(const char *at, const char *end) { return at < end && *at >= '0' && *at <= '9'; }
static int digit_run(const char *at, const char *end) {
    int n = 0;
    while (digit(at + n, end)) n++;
    return n;
}

// The size of a thousands separator that stands here with exactly three digits after it; 0 if there is none.
static size_t group_separator(const Parser *p, char point) {
    static const char *const marks[] = {"{,}", "\\,", "\\ ", "\\!", " ", "\xC2\xA0", "\xE2\x80\xAF", "\xE2\x80\x89", "\xEF\xBC\x8C", NULL};
    size_t size = 0;
    if (p->at < p->end && *p->at == (point == '.' ? ',' : '.')) size = p->brackets && point == '.' ? 0 : 1;
    for (int i = 0; marks[i] && !size; i++)
        if (parse_looks(p, marks[i])) size = strlen(marks[i]);
    return size && digit_run(p->at + size, p->end) == 3 ? size : 0;
}

// "1.234.567": points that can't be decimal ones.
static bool points_group(const Parser *p) {
    const char *at = p->at;
    int groups = 0;
    int first = digit_run(at, p->end);
    if (first < 1 || first > 3) return false;
    for (at += first; at < p->end && *at == '.' && digit_run(at + 1, p->end) == 3; at += 4) groups++;
    return groups > 1;
}

typedef struct Digits {
    char text[ANSWER_LIMIT + 8];
    int count, scale;
} Digits;

static void read_whole_digits(Parser *p, Digits *d, char point) {
    int run = digit_run(p->at, p->end);
    memcpy(d->text, p->at, (size_t)run);
    d->count = run;
    p->at += run;
    if (run < 1 || run > 3 || d->text[0] == '0') return;
    for (size_t size; (size = group_separator(p, point));) {
        memcpy(d->text + d->count, p->at + size, 3);
        d->count += 3;
        p->at += size + 3;
    }
}

// 0.1\overline{6}: the digits so far, then those of the period without end.
static bool read_period(Parser *p, const Digits *d, Rational *out) {
    static const char *const forms[] = {"\\overline{", "\\bar{", "\\dot{"};
    size_t size = 0;
    for (int i = 0; i < COUNT(forms) && !size; i++)
        if (parse_looks(p, forms[i])) size = strlen(forms[i]);
    int run = size ? digit_run(p->at + size, p->end) : 0;
    const char *close = p->at + size + run;
    if (run < 1 || run > 60 || close >= p->end || *close != '}') return false;
    char nines[64];
    memset(nines, '9', (size_t)run);
    Rational start, period, below, shift;
    if (!rational_digits(p->work, d->text, d->count, d->scale, &start) ||
        !rational_digits(p->work, p->at + size, run, d->scale, &period) || !rational_digits(p->work, nines, run, 0, &below) ||
        !rational_divide(p->work, &period, &below, &shift) || !rational_add(p->work, &start, &shift, false, out))
        return false;
    p->at = close + 1;
    return true;
}

static bool read_exponent(Parser *p, Digits *d) { // 3.8e3
    const char *at = p->at;
    if (at >= p->end || (*at != 'e' && *at != 'E')) return true;
    at++;
    bool minus = at < p->end && *at == '-';
    if (at < p->end && (*at == '-' || *at == '+')) at++;
    int run = digit_run(at, p->end), exponent = 0;
    if (!run) return true;
    if (run > 4) return false;
    for (int i = 0; i < run; i++) exponent = exponent * 10 + (at[i] - '0');
    p->at = at + run;
    if (minus) {
        d->scale += exponent;
        return true;
    }
    while (exponent && d->scale) exponent--, d->scale--;
    if (d->count + exponent > ANSWER_LIMIT) return false;
    memset(d->text + d->count, '0', (size_t)exponent);
    d->count += exponent;
    return true;
}

bool parse_number(Parser *p, Rational *out) {
    Digits d;
    d.count = d.scale = 0;
    bool decimal = false;
    char point = (p->decimal_comma && !p->brackets) || points_group(p) ? ',' : '.';
    if (!digit(p->at, p->end) && !(p->at < p->end && *p->at == '.' && digit(p->at + 1, p->end))) return false;
    const char *start = p->at;
    read_whole_digits(p, &d, point);
    if (p->at < p->end && *p->at == point && (digit(p->at + 1, p->end) || p->at + 1 == p->end || p->at[1] != '.')) {
        int run = digit_run(p->at + 1, p->end);
        if (run || point == '.') {
            p->at++;
            memcpy(d.text + d.count, p->at, (size_t)run);
            d.count += run, d.scale = run;
            p->at += run;
            decimal = true;
        }
    }
    if (decimal && read_period(p, &d, out)) return true;
    if (read_exponent(p, &d) && rational_digits(p->work, d.text, d.count, d.scale, out)) return true;
    p->at = start;
    p->failed = true;
    return false;
}

static const struct { const char *mark; uint8_t above, below; } vulgar[] = {
    {"\xC2\xBD", 1, 2}, {"\xC2\xBC", 1, 4}, {"\xC2\xBE", 3, 4}, {"\xE2\x85\x93", 1, 3}, {"\xE2\x85\x94", 2, 3}, {"\xE2\x85\x95", 1, 5},
    {"\xE2\x85\x96", 2, 5}, {"\xE2\x85\x97", 3, 5}, {"\xE2\x85\x98", 4, 5}, {"\xE2\x85\x99", 1, 6}, {"\xE2\x85\x9A", 5, 6},
    {"\xE2\x85\x9B", 1, 8}, {"\xE2\x85\x9C", 3, 8}, {"\xE2\x85\x9D", 5, 8}, {"\xE2\x85\x9E", 7, 8}};

static bool parse_vulgar(Parser *p, Rational *out) {
    for (int i = 0; i < COUNT(vulgar); i++)
        if (parse_looks(p, vulgar[i].mark)) {
            Rational below;
            if (!rational_whole(p->work, vulgar[i].above, out) || !rational_whole(p->work, vulgar[i].below, &below) ||
                !rational_divide(p->work, out, &below, out))
                return false;
            p->at += strlen(vulgar[i].mark);
            return true;
        }
    return false;
}

// The fraction of a mixed number after its whole part: 3/7 after a blank, \frac{3}{7}, a vulgar fraction.
static bool parse_mixed_rest(Parser *p, Rational *out) {
    Parser q = *p;
    parse_blanks(&q);
    bool apart = q.at > p->at;
    if (parse_vulgar(&q, out)) {
        p->at = q.at;
        return true;
    }
    if (digit(q.at, q.end) && apart) {
        int above = digit_run(q.at, q.end);
        const char *slash = q.at + above;
        int below = slash < q.end && *slash == '/' ? digit_run(slash + 1, q.end) : 0;
        Rational a, b;
        if (!below || above > 9 || below > 9 || !rational_digits(p->work, q.at, above, 0, &a) ||
            !rational_digits(p->work, slash + 1, below, 0, &b) || !rational_divide(p->work, &a, &b, out))
            return false;
        p->at = slash + 1 + below;
        return true;
    }
    if (!parse_command(&q, "frac") && !parse_command(&q, "dfrac") && !parse_command(&q, "tfrac")) return false;
    Node *a = parse_group(&q), *b = parse_group(&q);
    if (q.failed || a->kind != NODE_NUMBER || b->kind != NODE_NUMBER || !rational_divide(p->work, &a->number, &b->number, out)) return false;
    p->at = q.at;
    return true;
}

static Node *based_number(Parser *p, TextSpan digits) { // after the underscore
    Rational base;
    int64_t b;
    Parser q = *p;
    bool brace = parse_take(&q, "{");
    int run = digit_run(q.at, q.end);
    if (run < 1 || run > 2 || !rational_digits(p->work, q.at, run, 0, &base) || !rational_small(&base, &b) || b < 2 || b > 36)
        return parse_fail(p);
    q.at += run;
    if (brace && !parse_take(&q, "}")) return parse_fail(p);
    p->at = q.at;
    Rational value, one;
    if (!rational_whole(p->work, 0, &value)) return parse_fail(p);
    for (size_t i = 0; i < digits.size; i++) {
        char c = digits.data[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 36;
        if (d >= b || !rational_whole(p->work, (uint64_t)d, &one) || !rational_multiply(p->work, &value, &base, &value) ||
            !rational_add(p->work, &value, &one, false, &value))
            return parse_fail(p);
    }
    Node *n = work_node(p->work, NODE_BASED);
    n->left = node_number(p, &value);
    n->text = digits;
    return n;
}

// A0_{16}: letters among the digits; how many, 0 if no such number stands here.
static size_t letter_digits(const Parser *p) {
    size_t n = 0, letters = 0;
    for (; p->at + n < p->end && ((p->at[n] >= '0' && p->at[n] <= '9') || (p->at[n] >= 'A' && p->at[n] <= 'Z')); n++) letters += p->at[n] >= 'A';
    const char *after = p->at + n;
    if (!letters || p->end - after < 3 || *after != '_') return 0;
    after += 1 + (after[1] == '{');
    return digit_run(after, p->end) == 2 ? n : 0;
}

static Node *parse_numeral(Parser *p) {
    Rational number, rest;
    size_t used;
    const char *start = p->at;
    size_t hexadecimal = letter_digits(p);
    if (hexadecimal) {
        p->at += hexadecimal + 1;
        return based_number(p, (TextSpan){start, hexadecimal});
    }
    if (words_number(p->work, (TextSpan){p->at, (size_t)(p->end - p->at)}, &number, &used)) {
        p->at += used;
        return node_number(p, &number);
    }
    if (parse_vulgar(p, &number)) return node_number(p, &number);
    if (!parse_number(p, &number)) return parse_fail(p);
    TextSpan digits = {start, (size_t)(p->at - start)};
    if (p->at < p->end && *p->at == '_') {
        p->at++;
        return based_number(p, digits);
    }
    if (!memchr(digits.data, '.', digits.size) && parse_mixed_rest(p, &rest)) {
        if (!rational_add(p->work, &number, &rest, false, &number)) return parse_fail(p);
    }
    return node_number(p, &number);
}

// ---- functions ----------------------------------------------------------------------------------------------------
static const struct { const char *name; Function function; } functions[] = {
    {"arcsin", FUNCTION_ASIN}, {"arccos", FUNCTION_ACOS}, {"arctan", FUNCTION_ATAN}, {"asin", FUNCTION_ASIN}, {"acos", FUNCTION_ACOS},
    {"atan", FUNCTION_ATAN}, {"sinh", FUNCTION_SINH}, {"cosh", FUNCTION_COSH}, {"tanh", FUNCTION_TANH}, {"sin", FUNCTION_SIN},
    {"cos", FUNCTION_COS}, {"tan", FUNCTION_TAN}, {"tg", FUNCTION_TAN}, {"cot", FUNCTION_COT}, {"sec", FUNCTION_SEC}, {"csc", FUNCTION_CSC},
    {"exp", FUNCTION_EXP}, {"log", FUNCTION_LOG}, {"ln", FUNCTION_LN}, {"lg", FUNCTION_LOG}, {"sqrt", FUNCTION_SQRT}, {"abs", FUNCTION_ABS},
    {"floor", FUNCTION_FLOOR}, {"ceil", FUNCTION_CEIL}, {"gcd", FUNCTION_GCD}, {"lcm", FUNCTION_LCM}, {"min", FUNCTION_MIN},
    {"max", FUNCTION_MAX}};

static Node *function_node(Parser *p, Function f, Node *left, Node *right) {
    Node *n = node_binary(p, NODE_FUNCTION, left, right);
    n->op = f;
    return n->left->kind >= NODE_LIST || (right && right->kind >= NODE_LIST) ? parse_fail(p) : n;
}

static Node *parse_root(Parser *p) { // \sqrt[3]{27}, \sqrt3
    Node *index = NULL;
    if (parse_take(p, "[")) {
        index = parse_sum(p);
        if (p->failed || !parse_take(p, "]")) return parse_fail(p);
    }
    parse_blanks(p);
    Rational r;
    Node *n = !p->math && digit(p->at, p->end) && parse_number(p, &r) ? node_number(p, &r) : parse_group(p);
    return function_node(p, index ? FUNCTION_ROOT : FUNCTION_SQRT, n, index);
}

// What a function without brackets takes: factors side by side, such as 2x in \sin 2x.
static Node *parse_bare_argument(Parser *p) {
    Node *n = NULL;
    for (int i = 0; i < 8 && !p->failed; i++) {
        const char *before = p->at;
        parse_blanks(p);
        bool more = p->at < p->end && (digit(p->at, p->end) || parse_letters(p) == 1 || *p->at == '{' || (i == 0 && *p->at == '-') || *p->at == '\\' || (*p->at & 0x80));
        if (i > 0 && p->at < p->end && *p->at == '\\') {
            Parser q = *p;
            more = parse_command(&q, "pi") || parse_command(&q, "theta") || parse_command(&q, "alpha") || parse_command(&q, "beta") ||
                   parse_command(&q, "frac") || parse_command(&q, "sqrt");
        } else if (i > 0 && p->at < p->end && (*p->at & 0x80)) {
            more = parse_looks(p, "\xCF\x80");
        }
        if (!more) {
            p->at = before;
            break;
        }
        bool minus = parse_take(p, "-");
        Node *factor = parse_atom(p);
        while (!p->failed && parse_take(p, "^")) { // its powers and degrees
            bool degrees = parse_take(p, "\\circ") || parse_take(p, "{\\circ}");
            factor = degrees ? node_binary(p, NODE_DEGREES, factor, NULL) : node_binary(p, NODE_POWER, factor, parse_group(p));
        }
        if (parse_take(p, "\xC2\xB0")) factor = node_binary(p, NODE_DEGREES, factor, NULL);
        if (minus) factor = node_binary(p, NODE_NEGATE, factor, NULL);
        if (factor->kind >= NODE_LIST) return parse_fail(p);
        n = n ? node_binary(p, NODE_MULTIPLY, n, factor) : factor;
    }
    return n ? n : parse_fail(p);
}

static Node *apply_to_list(Parser *p, Function f) { // gcd(4, 6)
    static const char *const closes[] = {")", "\\}", "}", NULL};
    char close;
    if (!parse_take(p, "(") && !parse_take(p, "\\{") && !parse_take(p, "{")) return parse_fail(p);
    p->brackets++;
    Node *list = parse_items(p), *n;
    p->brackets--;
    if (p->failed || !parse_close(p, closes, &close)) return parse_fail(p);
    if (list->kind != NODE_LIST) return parse_fail(p);
    n = list->first;
    for (Node *next = n->next; next && !p->failed; next = next->next) n = function_node(p, f, n, next);
    return n;
}

static Node *parse_function(Parser *p, Function f) {
    Node *power = NULL, *base = NULL, *argument;
    if (f == FUNCTION_SQRT) return parse_root(p);
    if (f >= FUNCTION_GCD) return apply_to_list(p, f);
    if (f == FUNCTION_LOG && parse_take(p, "_")) base = parse_group(p);
    if (parse_take(p, "^")) {
        power = parse_group(p);
        if (power->kind == NODE_NEGATE && power->left->kind == NODE_NUMBER && f >= FUNCTION_SIN && f <= FUNCTION_TAN) {
            f = (Function)(FUNCTION_ASIN + (f - FUNCTION_SIN)); // \sin^{-1}
            power = NULL;
        }
    }
    parse_blanks(p);
    if (p->at < p->end && (*p->at == '(' || *p->at == '{' || *p->at == '|')) argument = parse_atom(p);
    else argument = parse_bare_argument(p);
    if (p->failed) return argument;
    if (base && base->kind == NODE_CONSTANT && base->op == 'e') f = FUNCTION_LN, base = NULL;
    Node *n = function_node(p, f, argument, base);
    return power && !p->failed ? node_binary(p, NODE_POWER, n, power) : n;
}

// ---- letters ------------------------------------------------------------------------------------------------------
static Node *parse_symbol(Parser *p, size_t size) {
    TextSpan name = {p->at, size};
    p->at += size;
    while (p->at < p->end && *p->at == '\'') p->at++, name.size++; // f'
    size = name.size;
    if (p->at < p->end && *p->at == '_') { // x_1, x_{10}
        p->at++;
        if (p->at < p->end && *p->at == '{') {
            const char *close = memchr(p->at, '}', (size_t)(p->end - p->at));
            if (!close || close - p->at > 20) return parse_fail(p);
            p->at = close + 1;
        } else if (p->at < p->end) {
            p->at++;
        }
        name.size = (size_t)(p->at - name.data);
    }
    Node *n = work_node(p->work, NODE_SYMBOL);
    n->text = name;
    if (name.size == 1 && (*name.data == 'e' || *name.data == 'i')) {
        n->kind = NODE_CONSTANT;
        n->op = *name.data;
    }
    return n;
}

// A Greek letter as such is the symbol that its command makes.
static Node *parse_greek(Parser *p) {
    static const struct { const char *letter, *command; } letters[] = {
        {"α", "\\alpha"}, {"β", "\\beta"}, {"γ", "\\gamma"}, {"δ", "\\delta"}, {"ε", "\\epsilon"}, {"ζ", "\\zeta"}, {"η", "\\eta"}, {"θ", "\\theta"}, {"ι", "\\iota"}, {"κ", "\\kappa"},
        {"λ", "\\lambda"}, {"μ", "\\mu"}, {"ν", "\\nu"}, {"ξ", "\\xi"}, {"ρ", "\\rho"}, {"σ", "\\sigma"}, {"τ", "\\tau"}, {"υ", "\\upsilon"}, {"φ", "\\phi"}, {"χ", "\\chi"}, {"ψ", "\\psi"},
        {"ω", "\\omega"}, {"Γ", "\\Gamma"}, {"Δ", "\\Delta"}, {"Θ", "\\Theta"}, {"Λ", "\\Lambda"}, {"Ξ", "\\Xi"}, {"Π", "\\Pi"}, {"Σ", "\\Sigma"}, {"Φ", "\\Phi"}, {"Ψ", "\\Psi"}, {"Ω", "\\Omega"}};
    Node *n = parse_symbol(p, 2);
    for (int i = 0; n->kind == NODE_SYMBOL && n->text.size == 2 && i < COUNT(letters); i++)
        if (memcmp(n->text.data, letters[i].letter, 2) == 0) n->text = (TextSpan){letters[i].command, strlen(letters[i].command)};
    return n;
}

static Node *parse_constant(Parser *p, int which, size_t size) {
    Node *n = work_node(p->work, which == 'o' ? NODE_INFINITY : NODE_CONSTANT);
    n->op = which;
    p->at += size;
    return n;
}

static Node *parse_letter_run(Parser *p) {
    int run = parse_letters(p);
    Rational number;
    size_t used;
    if (run > 1)
        for (int i = 0; i < COUNT(functions); i++) {
            int n = (int)strlen(functions[i].name);
            if ((run == n || (run == n + 1 && p->math)) && memcmp(p->at, functions[i].name, (size_t)n) == 0) {
                p->at += n;
                return parse_function(p, functions[i].function);
            }
        }
    if (run == 2 && parse_looks(p, "pi")) return parse_constant(p, 'p', 2);
    if (run == 3 && parse_looks(p, "inf")) return parse_constant(p, 'o', 3);
    if (run == 8 && (parse_looks(p, "infinity") || parse_looks(p, "Infinity"))) return parse_constant(p, 'o', 8);
    bool word = letters_go_on(p, run);
    bool article = run == 1 && (*p->at | 32) == 'a' && p->end - p->at > 2 && p->at[1] == ' '; // a hundred, a third
    if (!p->math && (run > 1 || word || article) && words_number(p->work, (TextSpan){p->at, (size_t)(p->end - p->at)}, &number, &used)) {
        p->at += used;
        return node_number(p, &number);
    }
    if (run > 3 || word) return parse_fail(p);
    return parse_symbol(p, 1);
}

// ---- commands -----------------------------------------------------------------------------------------------------
bool parse_text_command(Parser *p, TextSpan *content) {
    static const char *const names[] = {"text", "mathrm", "textrm", "mbox", "operatorname", "textbf", "mathbf", "textit", "mathit", "boldsymbol",
                                        "mathsf", "texttt", "bf", "rm"};
    Parser q = *p;
    for (int i = 0; i < COUNT(names); i++) {
        q = *p;
        if (!parse_command(&q, names[i]) || !parse_take(&q, "{")) continue;
        const char *start = q.at;
        int open = 1;
        for (; q.at < q.end; q.at++) {
            if (*q.at == '\\' && q.at + 1 < q.end) {
                q.at++;
                continue;
            }
            open += *q.at == '{' ? 1 : *q.at == '}' ? -1 : 0;
            if (!open) {
                *content = (TextSpan){start, (size_t)(q.at - start)};
                p->at = q.at + 1;
                return true;
            }
        }
        return false;
    }
    return false;
}

static Node *parse_text(Parser *p, TextSpan content) {
    Parser inner = *p;
    content = text_trim(content);
    inner.at = content.data, inner.end = content.data + content.size;
    inner.math = content.size && memchr(content.data, '\\', content.size);
    if (content.size == 0) return parse_fail(p);
    inner.depth++;
    Node *n = parse_letters(&inner) == (int)content.size && content.size > 1 && !words_number(p->work, content, &(Rational){0}, &(size_t){0})
                  ? parse_fail(&inner)
                  : parse_sum(&inner);
    parse_blanks(&inner);
    if (inner.failed || inner.at != inner.end) return parse_fail(p);
    return n;
}

// \angle ABC, \vec{v}, \overline{AB}: one name; its length, 0 if none stands here.
static size_t decorated_name(const Parser *p) {
    static const char *const marks[] = {"angle", "triangle", "vec", "overline", "bar", "hat", "widehat", "overrightarrow", "overleftrightarrow", "mathbb", "mathcal"};
    Parser q = *p;
    for (int i = 0; i < COUNT(marks); i++) {
        if (!parse_command(&q, marks[i])) continue;
        while (q.at < q.end && *q.at == ' ') q.at++;
        bool brace = q.at < q.end && *q.at == '{';
        q.at += brace;
        int letters = parse_letters(&q);
        q.at += letters;
        if (!letters || (brace && (q.at >= q.end || *q.at != '}'))) return 0;
        return (size_t)(q.at + brace - p->at);
    }
    return 0;
}

static Node *parse_known_command(Parser *p) {
    static const char *const greek[] = {"alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
                                        "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi",
                                        "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar", "R", "N", "Z"};
    TextSpan content;
    if (parse_command(p, "pi")) return parse_constant(p, 'p', 0);
    if (parse_command(p, "infty")) return parse_constant(p, 'o', 0);
    if (parse_command(p, "emptyset") || parse_command(p, "varnothing")) return work_node(p->work, NODE_EMPTY);
    if (parse_take(p, "\\mathbb{R}") || parse_take(p, "\\mathbb R") || parse_take(p, "\\mathbf{R}")) return node_reals(p->work);
    if (parse_command(p, "begin")) return parse_environment(p);
    if (parse_command(p, "boxed") || parse_command(p, "fbox")) return parse_group(p);
    if (parse_command(p, "lvert")) return parse_bars(p, "\\rvert");
    if (parse_command(p, "vert")) return parse_bars(p, "\\vert");
    if (parse_command(p, "langle")) return parse_bracket(p, '(');
    if (parse_command(p, "lbrace") || parse_take(p, "\\{")) return parse_set(p);
    if (parse_command(p, "lfloor")) {
        Node *n = function_node(p, FUNCTION_FLOOR, parse_sum(p), NULL);
        return p->failed || !parse_command(p, "rfloor") ? parse_fail(p) : n;
    }
    if (parse_command(p, "lceil")) {
        Node *n = function_node(p, FUNCTION_CEIL, parse_sum(p), NULL);
        return p->failed || !parse_command(p, "rceil") ? parse_fail(p) : n;
    }
    if (parse_text_command(p, &content)) return parse_text(p, content);
    size_t decorated = decorated_name(p);
    if (decorated) return parse_symbol(p, decorated);
    for (int i = 0; i < COUNT(greek); i++) {
        size_t n = strlen(greek[i]);
        if (!parse_looks(p, "\\") || (size_t)(p->end - p->at) <= n || memcmp(p->at + 1, greek[i], n) != 0) continue;
        Parser after = *p;
        after.at += n + 1;
        if (greek[i][n - 1] == '}' || !parse_letters(&after)) return parse_symbol(p, n + 1);
    }
    return parse_fail(p);
}

static Node *parse_backslash(Parser *p) {
    static const char *const fractions[] = {"frac", "dfrac", "tfrac", "cfrac"}, *const binomials[] = {"binom", "dbinom", "tbinom"};
    for (int i = 0; i < COUNT(fractions); i++)
        if (parse_command(p, fractions[i])) {
            Node *above = parse_group(p), *below = p->failed ? above : parse_group(p);
            if (p->failed || above->kind >= NODE_LIST || below->kind >= NODE_LIST) return parse_fail(p);
            return node_binary(p, NODE_DIVIDE, above, below);
        }
    for (int i = 0; i < COUNT(binomials); i++)
        if (parse_command(p, binomials[i])) {
            Node *above = parse_group(p), *below = p->failed ? above : parse_group(p);
            return p->failed ? above : function_node(p, FUNCTION_BINOMIAL, above, below);
        }
    for (int i = 0; i < COUNT(functions); i++)
        if (parse_command(p, functions[i].name)) return parse_function(p, functions[i].function);
    return parse_known_command(p);
}

static Node *parse_unicode(Parser *p) {
    static const struct { const char *mark; int what; } marks[] = {{"\xCF\x80", 'p'}, {"\xE2\x88\x9E", 'o'}, {"\xF0\x9D\x9C\x8B", 'p'}};
    for (int i = 0; i < COUNT(marks); i++)
        if (parse_looks(p, marks[i].mark)) return parse_constant(p, marks[i].what, strlen(marks[i].mark));
    if (parse_take(p, "\xE2\x84\x9D")) return node_reals(p->work);
    if (parse_take(p, "\xE2\x88\x85")) return work_node(p->work, NODE_EMPTY);
    if (parse_take(p, "\xE2\x88\x9A") || parse_take(p, "\xE2\x88\x9B")) {
        bool cube = p->at[-1] == '\x9B';
        Rational r;
        parse_blanks(p);
        Node *n = digit(p->at, p->end) && parse_number(p, &r) ? node_number(p, &r) : parse_atom(p), *three = NULL;
        if (cube) {
            if (!rational_whole(p->work, 3, &r)) return parse_fail(p);
            three = node_number(p, &r);
        }
        return p->failed ? n : function_node(p, cube ? FUNCTION_ROOT : FUNCTION_SQRT, n, three);
    }
    if ((*p->at & 0xFE) == 0xCE && p->end - p->at > 1) return parse_greek(p);
    return parse_numeral(p);
}

Node *parse_atom(Parser *p) {
    if (++p->depth > MAX_DEPTH || !work_step(p->work, 2)) return parse_fail(p);
    parse_blanks(p);
    Node *n;
    if (p->failed || p->at >= p->end) n = parse_fail(p);
    else if (digit(p->at, p->end) || *p->at == '.' || letter_digits(p)) n = parse_numeral(p);
    else if (*p->at == '\\') n = parse_backslash(p);
    else if (*p->at == '(') p->at++, n = parse_bracket(p, '(');
    else if (*p->at == '[') p->at++, n = parse_bracket(p, '[');
    else if (*p->at == '{' && p->math) n = parse_braces(p);
    else if (*p->at == '{') p->at++, n = parse_set(p);
    else if (*p->at == '|' && !p->bar) p->at++, n = parse_bars(p, "|");
    else if (parse_letters(p)) n = parse_letter_run(p);
    else if (*p->at & 0x80) n = parse_unicode(p);
    else n = parse_fail(p);
    p->depth--;
    return n;
}
