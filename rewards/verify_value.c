// The value of a tree at a point: exact as long as it is a quotient of whole numbers, else complex doubles made of our
// own exp, log, sine and cosine, so that every machine gives the same verdict. Symbols take fixed values that differ
// by name and point. A value that isn't defined, or is too large to hold, is "bad" and compares with nothing.
#include "verify_parts.h"
#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846, E = 2.71828182845904523536;

// ---- making values ------------------------------------------------------------------------------------------------
static Value bad_value(void) { return (Value){.bad = true}; }
static Value complex_value(double re, double im) {
    if (!isfinite(re) || !isfinite(im)) return bad_value();
    return (Value){.re = re, .im = im};
}
static Value real_value(double re) { return complex_value(re, 0); }
static Value exact_value(const Rational *q) { return (Value){.exact = true, .q = *q}; }
static Value whole_value(Work *w, int64_t n) {
    Rational q;
    if (!rational_whole(w, (uint64_t)(n < 0 ? -n : n), &q)) return bad_value();
    q.negative = n < 0;
    return exact_value(&q);
}
static Value inexact(Value v) {
    if (v.bad || v.infinite || !v.exact) return v;
    return real_value(rational_double(&v.q));
}
static bool is_zero(const Value *v) { return v->exact ? rational_is_zero(&v->q) : v->re == 0 && v->im == 0; }

// ---- complex functions --------------------------------------------------------------------------------------------
static double angle_of(double y, double x) { // atan2 by Newton's steps from a rough start
    double r = sqrt(x * x + y * y), a, t;
    if (r == 0) return 0;
    if (y == 0) return x < 0 ? PI : 0;
    t = fabs(y) < fabs(x) ? fabs(y / x) : fabs(x / y);
    a = t * (PI / 4 + 0.273 * (1 - t)); // within 0.004
    if (fabs(y) > fabs(x)) a = PI / 2 - a;
    if (x < 0) a = PI - a;
    if (y < 0) a = -a;
    for (int i = 0; i < 3; i++) a += (y * exact_cos(a) - x * exact_sin(a)) / r;
    return a;
}
static double modulus(double x, double y) {
    double big = fabs(x) > fabs(y) ? fabs(x) : fabs(y), small = fabs(x) > fabs(y) ? fabs(y) : fabs(x);
    if (big == 0) return 0;
    return big * sqrt(1 + small / big * (small / big));
}
static Value exp_of(Value v) {
    if (fabs(v.im) > 1e6 || v.re > 700) return bad_value();
    double r = exact_exp(v.re);
    return v.im == 0 ? real_value(r) : complex_value(r * exact_cos(v.im), r * exact_sin(v.im));
}
static Value log_of(Value v) {
    double r = modulus(v.re, v.im);
    if (r == 0) return bad_value();
    return complex_value(exact_log(r), v.im == 0 && v.re > 0 ? 0 : angle_of(v.im, v.re));
}
static Value times(Value a, Value b) { return complex_value(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re); }
static Value over(Value a, Value b) {
    double n = b.re * b.re + b.im * b.im;
    if (n == 0) return bad_value();
    return complex_value((a.re * b.re + a.im * b.im) / n, (a.im * b.re - a.re * b.im) / n);
}
static Value power_of(Value a, Value b) {
    if (a.re == 0 && a.im == 0) return b.re > 0 && b.im == 0 ? real_value(0) : bad_value();
    if (a.im == 0 && b.im == 0 && a.re < 0 && b.re == rint(b.re) && fabs(b.re) < 1e6) {
        Value v = exp_of(times(log_of(real_value(-a.re)), b));
        if (fmod(fabs(b.re), 2) == 1) v.re = -v.re;
        return v;
    }
    Value log_a = log_of(a);
    return log_a.bad ? log_a : exp_of(times(log_a, b));
}
static Value sqrt_of(Value v) {
    if (v.im == 0) return v.re >= 0 ? real_value(sqrt(v.re)) : complex_value(0, sqrt(-v.re));
    return power_of(v, real_value(0.5));
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------
static Value add(Work *w, Value a, Value b, bool subtract) {
    Rational q;
    if (a.bad || b.bad) return bad_value();
    if (a.infinite || b.infinite) {
        int sign = b.infinite * (subtract ? -1 : 1);
        if (a.infinite && b.infinite && a.infinite != sign) return bad_value();
        return (Value){.infinite = a.infinite ? a.infinite : sign};
    }
    if (a.exact && b.exact && rational_add(w, &a.q, &b.q, subtract, &q)) return exact_value(&q);
    a = inexact(a), b = inexact(b);
    if (a.bad || b.bad) return bad_value();
    return subtract ? complex_value(a.re - b.re, a.im - b.im) : complex_value(a.re + b.re, a.im + b.im);
}
static int sign_of(Value v) {
    if (v.infinite) return v.infinite;
    if (v.exact) return rational_is_zero(&v.q) ? 0 : v.q.negative ? -1 : 1;
    return v.im != 0 || v.re == 0 ? 0 : v.re < 0 ? -1 : 1;
}
static Value multiply(Work *w, Value a, Value b) {
    Rational q;
    if (a.bad || b.bad) return bad_value();
    if (a.infinite || b.infinite) {
        int sign = sign_of(a) * sign_of(b);
        return sign ? (Value){.infinite = sign} : bad_value();
    }
    if (a.exact && b.exact && rational_multiply(w, &a.q, &b.q, &q)) return exact_value(&q);
    a = inexact(a), b = inexact(b);
    return a.bad || b.bad ? bad_value() : times(a, b);
}
static Value divide(Work *w, Value a, Value b) {
    Rational q;
    if (a.bad || b.bad || a.infinite || is_zero(&b)) return bad_value();
    if (b.infinite) return whole_value(w, 0);
    if (a.exact && b.exact && rational_divide(w, &a.q, &b.q, &q)) return exact_value(&q);
    a = inexact(a), b = inexact(b);
    return a.bad || b.bad ? bad_value() : over(a, b);
}
static Value power(Work *w, Value a, Value b) {
    Rational q;
    int64_t n;
    if (a.bad || b.bad || a.infinite || b.infinite) return bad_value();
    if (a.exact && b.exact && rational_small(&b.q, &n)) {
        if (n >= -16384 && n <= 16384 && rational_power(w, &a.q, (int)n, &q)) return exact_value(&q);
        if (rational_is_zero(&a.q)) return bad_value();
    }
    if (b.exact) { // a square root is exact to the last bit, and real ones of odd order stay real
        Value twice = add(w, b, b, false);
        if (twice.exact && rational_small(&twice.q, &n) && n == 1) return a = inexact(a), a.bad ? a : sqrt_of(a);
    }
    a = inexact(a), b = inexact(b);
    return a.bad || b.bad ? bad_value() : power_of(a, b);
}

// ---- functions ----------------------------------------------------------------------------------------------------
static Value root(Work *w, Value a, Value index) {
    int64_t n;
    if (index.exact && rational_small(&index.q, &n) && n > 0 && n % 2 == 1) {
        Value v = inexact(a);
        if (!v.bad && !v.infinite && v.im == 0 && v.re < 0) { // the real root of a negative number
            Value r = power_of(real_value(-v.re), real_value(1 / (double)n));
            return r.bad ? r : real_value(-r.re);
        }
    }
    return power(w, a, divide(w, whole_value(w, 1), index));
}

static Value product_of_range(Work *w, int64_t from, int64_t to) {
    Value v = whole_value(w, 1);
    for (int64_t i = from; i <= to && !v.bad; i++) v = multiply(w, v, whole_value(w, i));
    return v;
}
static bool small_whole(Value v, int64_t high, int64_t *n) {
    return !v.bad && v.exact && rational_small(&v.q, n) && *n >= 0 && *n <= high;
}
static Value whole_function(Work *w, int f, Value a, Value b) {
    int64_t x, y, t;
    if (!small_whole(a, (int64_t)1 << 50, &x) || !small_whole(b, (int64_t)1 << 50, &y)) return bad_value();
    if (f == FUNCTION_BINOMIAL) {
        if (x > 1000 || y > x) return y > x ? whole_value(w, 0) : bad_value();
        if (y > x - y) y = x - y;
        return divide(w, product_of_range(w, x - y + 1, x), product_of_range(w, 1, y));
    }
    int64_t p = x, q = y;
    while (q) t = p % q, p = q, q = t;
    if (f == FUNCTION_GCD) return whole_value(w, p);
    return p ? multiply(w, whole_value(w, x / p), whole_value(w, y)) : whole_value(w, 0);
}

static Value round_value(Work *w, Value v, bool up) {
    v = inexact(v);
    if (v.bad || v.infinite || v.im != 0 || fabs(v.re) > 1e15) return bad_value();
    double x = v.re, whole = rint(x);
    if (fabs(x - whole) > 1e-12 * fabs(x)) whole = up ? ceil(x) : floor(x);
    return whole_value(w, (int64_t)whole);
}

static Value angle_function(int f, Value v) {
    double x = v.re, s, c;
    if (v.im != 0 || fabs(x) > 1e6) return bad_value();
    s = exact_sin(x), c = exact_cos(x);
    if (fabs(s) < 1e-15) s = 0;
    if (fabs(c) < 1e-15) c = 0;
    switch (f) {
    case FUNCTION_SIN: return real_value(s);
    case FUNCTION_COS: return real_value(c);
    case FUNCTION_TAN: return c == 0 ? bad_value() : real_value(s / c);
    case FUNCTION_COT: return s == 0 ? bad_value() : real_value(c / s);
    case FUNCTION_SEC: return c == 0 ? bad_value() : real_value(1 / c);
    default: return s == 0 ? bad_value() : real_value(1 / s);
    }
}
static Value inverse_function(int f, Value v) {
    double x = v.re, e;
    if (v.im != 0) return bad_value();
    switch (f) {
    case FUNCTION_ASIN: return fabs(x) > 1 ? bad_value() : real_value(angle_of(x, sqrt(1 - x * x)));
    case FUNCTION_ACOS: return fabs(x) > 1 ? bad_value() : real_value(angle_of(sqrt(1 - x * x), x));
    case FUNCTION_ATAN: return real_value(angle_of(x, 1));
    default: break;
    }
    if (fabs(x) > 300) return bad_value();
    e = exact_exp(x);
    if (f == FUNCTION_SINH) return real_value((e - 1 / e) / 2);
    if (f == FUNCTION_COSH) return real_value((e + 1 / e) / 2);
    return real_value((e - 1 / e) / (e + 1 / e));
}

static Value absolute(Value v) {
    if (v.infinite) return (Value){.infinite = 1};
    if (v.exact) {
        v.q.negative = false;
        return v;
    }
    return real_value(modulus(v.re, v.im));
}

static Value function_value(Work *w, const Node *n, int sign, int point) {
    Value a = value_of(w, n->left, sign, point), b = n->right ? value_of(w, n->right, sign, point) : whole_value(w, 10);
    if (a.bad || b.bad) return bad_value();
    switch (n->op) {
    case FUNCTION_ABS: return absolute(a);
    case FUNCTION_MIN:
    case FUNCTION_MAX: {
        Value d = add(w, a, b, true);
        return d.bad ? d : (sign_of(d) > 0) == (n->op == FUNCTION_MAX) ? a : b;
    }
    case FUNCTION_GCD:
    case FUNCTION_LCM:
    case FUNCTION_BINOMIAL: return whole_function(w, n->op, a, b);
    case FUNCTION_FLOOR: return round_value(w, a, false);
    case FUNCTION_CEIL: return round_value(w, a, true);
    case FUNCTION_ROOT: return root(w, a, b);
    default: break;
    }
    a = inexact(a), b = inexact(b);
    if (a.bad || b.bad || a.infinite || b.infinite) return bad_value();
    switch (n->op) {
    case FUNCTION_SQRT: return sqrt_of(a);
    case FUNCTION_EXP: return exp_of(a);
    case FUNCTION_LN: return log_of(a);
    case FUNCTION_LOG: a = log_of(a), b = log_of(b); return a.bad || b.bad ? bad_value() : over(a, b);
    case FUNCTION_SIN:
    case FUNCTION_COS:
    case FUNCTION_TAN:
    case FUNCTION_COT:
    case FUNCTION_SEC:
    case FUNCTION_CSC: return angle_function(n->op, a);
    default: return inverse_function(n->op, a);
    }
}

// ---- points -------------------------------------------------------------------------------------------------------
// The first half of the points are positive, the others of mixed signs; all are small quotients, so that polynomials
// stay exact. Where a function is defined for whole numbers only, they are small whole numbers. A name gets its value by where it stands in the comparison's list of names.
static Value symbol_value(Work *w, TextSpan name, int point) {
    static const int8_t above[] = {7, 11, 13, 5, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61};
    int i = 0;
    while (i < w->symbol_count && (w->symbols[i].size != name.size || memcmp(w->symbols[i].data, name.data, name.size) != 0)) i++;
    if (i == MAX_SYMBOLS) return bad_value();
    if (i == w->symbol_count) w->symbols[w->symbol_count++] = name;
    if (w->whole_points) return whole_value(w, 3 + i + 2 * point + i * point);
    Value v = divide(w, whole_value(w, above[(i + 3 * point) % MAX_SYMBOLS] + point), whole_value(w, 3 + 2 * point + i % 3));
    if (point >= POINTS / 2 && (i + point) % 2 == 0 && !v.bad) v.q.negative = true;
    return v;
}

static bool has_kind(const Node *n, NodeKind kind) {
    return n && (n->kind == kind || has_kind(n->left, kind) || has_kind(n->right, kind));
}
static bool is_angle_argument(const Node *n) {
    return n->kind == NODE_FUNCTION && n->op >= FUNCTION_SIN && n->op <= FUNCTION_CSC && has_kind(n->left, NODE_DEGREES);
}

static Value plus_minus(Work *w, const Node *n, int sign, int point) {
    Value b = value_of(w, n->right, sign, point);
    bool subtract = (n->op == '+') != (sign > 0);
    return add(w, n->left ? value_of(w, n->left, sign, point) : whole_value(w, 0), b, subtract);
}

Value value_of(Work *w, const Node *n, int sign, int point) {
    if (!work_step(w, 5)) return bad_value();
    Value a;
    switch (n->kind) {
    case NODE_NUMBER: return exact_value(&n->number);
    case NODE_SYMBOL: return symbol_value(w, n->text, point);
    case NODE_CONSTANT: return n->op == 'p' ? real_value(PI) : n->op == 'e' ? real_value(E) : complex_value(0, 1);
    case NODE_INFINITY: return (Value){.infinite = 1};
    case NODE_ADD:
    case NODE_SUBTRACT: a = value_of(w, n->left, sign, point); return add(w, a, value_of(w, n->right, sign, point), n->kind == NODE_SUBTRACT);
    case NODE_MULTIPLY: a = value_of(w, n->left, sign, point); return multiply(w, a, value_of(w, n->right, sign, point));
    case NODE_DIVIDE: a = value_of(w, n->left, sign, point); return divide(w, a, value_of(w, n->right, sign, point));
    case NODE_POWER: a = value_of(w, n->left, sign, point); return power(w, a, value_of(w, n->right, sign, point));
    case NODE_NEGATE: return multiply(w, whole_value(w, -1), value_of(w, n->left, sign, point));
    case NODE_PERCENT: return divide(w, value_of(w, n->left, sign, point), whole_value(w, 100));
    case NODE_DEGREES: return value_of(w, n->left, sign, point);
    case NODE_BASED: return value_of(w, n->left, sign, point);
    case NODE_PLUS_MINUS: return plus_minus(w, n, sign, point);
    case NODE_FACTORIAL: {
        int64_t x;
        return small_whole(value_of(w, n->left, sign, point), 1000, &x) ? product_of_range(w, 2, x) : bad_value();
    }
    case NODE_FUNCTION:
        if (is_angle_argument(n)) { // in degrees
            a = multiply(w, value_of(w, n->left, sign, point), real_value(PI / 180));
            return a.bad || a.infinite ? bad_value() : angle_function(n->op, inexact(a));
        }
        return function_value(w, n, sign, point);
    default: return bad_value();
    }
}

bool values_equal(Work *w, const Value *a, const Value *b) {
    if (a->bad || b->bad) return false;
    if (a->infinite || b->infinite) return a->infinite == b->infinite;
    if (a->exact && b->exact) return rational_compare(w, &a->q, &b->q) == 0;
    Value x = inexact(*a), y = inexact(*b);
    if (x.bad || y.bad) return false;
    double distance = modulus(x.re - y.re, x.im - y.im), size = fmax(modulus(x.re, x.im), modulus(y.re, y.im));
    return distance <= 1e-9 * size || distance <= 1e-12;
}
