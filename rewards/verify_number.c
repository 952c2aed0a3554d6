// The workspace of a comparison, and exact arithmetic in it. Everything is bounded: memory by one block, time by a
// count of steps, numbers by MAX_LIMBS limbs. What doesn't fit says so, and the caller goes on with doubles or gives
// up; nothing is ever rounded here. Quotients are not reduced, since answers are short and comparing multiplies
// crosswise.
#include "verify_parts.h"
#include <math.h>
#include <string.h>

// ---- workspace ----------------------------------------------------------------------------------------------------
bool work_step(Work *w, uint64_t steps) {
    w->steps += steps;
    if (w->steps > w->step_limit) w->spent = true;
    return !w->spent;
}

void *work_alloc(Work *w, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    if (!work_step(w, 1 + bytes / 64) || bytes > w->size - w->used) {
        w->spent = true;
        return NULL;
    }
    void *p = w->memory + w->used;
    w->used += bytes;
    return memset(p, 0, bytes);
}

Node *work_node(Work *w, NodeKind kind) {
    Node *n = work_alloc(w, sizeof *n);
    if (!n) {
        w->spare = (Node){0};
        n = &w->spare;
    }
    n->kind = kind;
    return n;
}

// ---- whole numbers ------------------------------------------------------------------------------------------------
static bool whole_new(Work *w, int size, Whole *out) {
    *out = (Whole){0};
    if (size > MAX_LIMBS) return false;
    out->limb = work_alloc(w, (size_t)(size > 0 ? size : 1) * sizeof *out->limb);
    out->size = size;
    return out->limb != NULL;
}
static void whole_trim(Whole *a) {
    while (a->size && a->limb[a->size - 1] == 0) a->size--;
}
static int whole_compare(const Whole *a, const Whole *b) {
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    for (int i = a->size - 1; i >= 0; i--)
        if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}
static bool whole_set(Work *w, uint64_t value, Whole *out) {
    if (!whole_new(w, 2, out)) return false;
    out->limb[0] = (uint32_t)value;
    out->limb[1] = (uint32_t)(value >> 32);
    whole_trim(out);
    return true;
}
static bool whole_add(Work *w, const Whole *a, const Whole *b, Whole *out) {
    int size = (a->size > b->size ? a->size : b->size) + 1;
    uint64_t carry = 0;
    if (!whole_new(w, size, out)) return false;
    for (int i = 0; i < size; i++) {
        carry += (uint64_t)(i < a->size ? a->limb[i] : 0) + (i < b->size ? b->limb[i] : 0);
        out->limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    whole_trim(out);
    return true;
}
static bool whole_subtract(Work *w, const Whole *a, const Whole *b, Whole *out) { // a >= b
    int64_t borrow = 0;
    if (!whole_new(w, a->size, out)) return false;
    for (int i = 0; i < a->size; i++) {
        int64_t d = (int64_t)a->limb[i] - (i < b->size ? b->limb[i] : 0) + borrow;
        out->limb[i] = (uint32_t)d;
        borrow = d < 0 ? -1 : 0;
    }
    whole_trim(out);
    return true;
}
// Products of two numbers that fit may need twice the limbs when they are only to be compared.
static bool whole_multiply(Work *w, const Whole *a, const Whole *b, int limit, Whole *out) {
    Whole product = {.size = a->size + b->size}; // `out` may be a factor
    if (product.size > limit || !work_step(w, 1 + (uint64_t)a->size * (uint64_t)b->size / 16)) return false;
    product.limb = work_alloc(w, (size_t)(product.size > 0 ? product.size : 1) * sizeof *product.limb);
    if (!product.limb) return false;
    for (int i = 0; i < a->size; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < b->size; j++) {
            carry += (uint64_t)a->limb[i] * b->limb[j] + product.limb[i + j];
            product.limb[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        product.limb[i + b->size] = (uint32_t)carry;
    }
    whole_trim(&product);
    *out = product;
    return true;
}
static bool whole_product(Work *w, const Whole *a, const Whole *b, Whole *out) {
    return whole_multiply(w, a, b, MAX_LIMBS, out);
}
// The leading 64 bits as a fraction in [1/2, 1), and the power of two.
static double whole_split(const Whole *a, int *exponent) {
    double x = 0;
    int n = a->size, low = n > 3 ? n - 3 : 0;
    for (int i = n - 1; i >= low; i--) x = x * 4294967296.0 + a->limb[i];
    x = frexp(x, exponent);
    *exponent += 32 * low;
    return x;
}

// ---- quotients ----------------------------------------------------------------------------------------------------
static bool whole_power_of_ten(Work *w, int exponent, Whole *out) {
    Whole ten;
    if (exponent < 19) {
        uint64_t power = 1;
        while (exponent--) power *= 10;
        return whole_set(w, power, out);
    }
    if (!whole_set(w, 1, out) || !whole_set(w, 10, &ten)) return false;
    for (int bit = 1 << 13; bit; bit >>= 1) {
        if (!whole_product(w, out, out, out)) return false;
        if ((exponent & bit) && !whole_product(w, out, &ten, out)) return false;
    }
    return true;
}

bool rational_whole(Work *w, uint64_t value, Rational *out) {
    out->negative = false;
    return whole_set(w, value, &out->above) && whole_set(w, 1, &out->below);
}

bool rational_digits(Work *w, const char *digits, int count, int scale, Rational *out) {
    *out = (Rational){0};
    while (count && *digits == '0') digits++, count--;
    if (count > 4800 || scale > 4800 || scale < 0) return false;
    if (!whole_new(w, count / 9 + 1, &out->above)) return false;
    if (!work_step(w, (uint64_t)count * (uint64_t)count / 1000)) return false;
    int used = 0;
    for (int i = 0; i < count;) {
        uint64_t carry = 0;
        uint32_t scale9 = 1;
        do {
            carry = carry * 10 + (uint64_t)(digits[i++] - '0');
            scale9 *= 10;
        } while (i < count && scale9 < 1000000000);
        for (int k = 0; k < used; k++) {
            carry += (uint64_t)out->above.limb[k] * scale9;
            out->above.limb[k] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) out->above.limb[used++] = (uint32_t)carry;
    }
    out->above.size = used;
    return scale ? whole_power_of_ten(w, scale, &out->below) : whole_set(w, 1, &out->below);
}

bool rational_add(Work *w, const Rational *a, const Rational *b, bool subtract, Rational *out) {
    Whole left = a->above, right = b->above;
    Rational sum = {.below = a->below};
    if (whole_compare(&a->below, &b->below) != 0)
        if (!whole_product(w, &a->above, &b->below, &left) || !whole_product(w, &b->above, &a->below, &right) ||
            !whole_product(w, &a->below, &b->below, &sum.below))
            return false;
    bool right_negative = b->negative != subtract;
    if (a->negative == right_negative) {
        sum.negative = a->negative;
        if (!whole_add(w, &left, &right, &sum.above)) return false;
    } else if (whole_compare(&left, &right) >= 0) {
        sum.negative = a->negative;
        if (!whole_subtract(w, &left, &right, &sum.above)) return false;
    } else {
        sum.negative = right_negative;
        if (!whole_subtract(w, &right, &left, &sum.above)) return false;
    }
    if (sum.above.size == 0) sum.negative = false;
    *out = sum;
    return true;
}

bool rational_multiply(Work *w, const Rational *a, const Rational *b, Rational *out) {
    Rational product = {.negative = a->negative != b->negative};
    if (!whole_product(w, &a->above, &b->above, &product.above) || !whole_product(w, &a->below, &b->below, &product.below))
        return false;
    if (product.above.size == 0) product.negative = false;
    *out = product;
    return true;
}

bool rational_divide(Work *w, const Rational *a, const Rational *b, Rational *out) {
    if (rational_is_zero(b)) return false;
    Rational inverse = {.negative = b->negative, .above = b->below, .below = b->above};
    return rational_multiply(w, a, &inverse, out);
}

bool rational_power(Work *w, const Rational *a, int exponent, Rational *out) {
    int n = exponent < 0 ? -exponent : exponent;
    Rational power, base = *a;
    if (n > 32 * MAX_LIMBS || !rational_whole(w, 1, &power)) return false;
    if (exponent < 0) {
        if (rational_is_zero(a)) return false;
        base = (Rational){.negative = a->negative, .above = a->below, .below = a->above};
    }
    for (int bit = 1 << 14; bit; bit >>= 1) {
        if (!rational_multiply(w, &power, &power, &power)) return false;
        if ((n & bit) && !rational_multiply(w, &power, &base, &power)) return false;
    }
    *out = power;
    return true;
}

int rational_compare(Work *w, const Rational *a, const Rational *b) {
    Whole left, right;
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    if (!whole_multiply(w, &a->above, &b->below, 2 * MAX_LIMBS, &left) ||
        !whole_multiply(w, &b->above, &a->below, 2 * MAX_LIMBS, &right))
        return -1;
    int order = whole_compare(&left, &right);
    return a->negative ? -order : order;
}

double rational_double(const Rational *a) {
    int up = 0, down = 0;
    double above = whole_split(&a->above, &up), below = whole_split(&a->below, &down);
    double x = ldexp(above / below, up - down);
    return a->negative ? -x : x;
}

bool rational_small(const Rational *a, int64_t *out) {
    if (a->above.size > 2 || a->below.size > 2) return false;
    uint64_t above = 0, below = 0;
    for (int i = a->above.size - 1; i >= 0; i--) above = above << 32 | a->above.limb[i];
    for (int i = a->below.size - 1; i >= 0; i--) below = below << 32 | a->below.limb[i];
    if (below == 0 || above % below != 0 || above / below >= (uint64_t)1 << 53) return false;
    *out = (int64_t)(above / below);
    if (a->negative) *out = -*out;
    return true;
}
