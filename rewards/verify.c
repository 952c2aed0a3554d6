// Numbers in text, compared exactly: integers (12, -3, +7, 007), decimals (2.50, .5, 3.), thousands separators
// (1,234,567.5; groups must be of three), and fractions of these (3/4, -1.5/3). A sign may be the true minus U+2212.
// Each is a quotient of two whole numbers of any length up to MAX_DIGITS, so 0.1 equals 1/10 and 1e-30 apart is
// apart. Percent, powers of ten, units and mixed numbers aren't read here.
#include "verify.h"
#include <string.h>

enum { MAX_DIGITS = 1000, LIMBS = 4 * MAX_DIGITS / 9 + 8 };
static const uint32_t BASE = 1000000000;

typedef struct Whole { // least limb first; no leading zero limbs
    int size;
    uint32_t limb[LIMBS];
} Whole;

typedef struct Number {
    bool negative;
    char digits[MAX_DIGITS + 1]; // without the point
    int count, scale;            // value = digits / 10^scale
} Number;

TextSpan text_trim(TextSpan s) {
    while (s.size && (*s.data == ' ' || (*s.data >= '\t' && *s.data <= '\r'))) s.data++, s.size--;
    while (s.size && (s.data[s.size - 1] == ' ' || (s.data[s.size - 1] >= '\t' && s.data[s.size - 1] <= '\r'))) s.size--;
    return s;
}

// ---- reading -----------------------------------------------------------------------------------------------------------
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool push_digit(Number *n, char c) {
    if (n->count == MAX_DIGITS) return false;
    n->digits[n->count++] = c;
    return true;
}

static bool read_whole_part(Number *n, const char **p, const char *end) {
    int group = 0; // digits since the start or the last separator
    bool separated = false;
    for (; *p < end; ++*p) {
        if (is_digit(**p)) {
            if ((separated && group == 3) || !push_digit(n, **p)) return false;
            group++;
        } else if (**p == ',') {
            if (group == 0 || group > 3 || (separated && group != 3)) return false;
            separated = true;
            group = 0;
        } else {
            break;
        }
    }
    return !separated || group == 3;
}

static bool read_number(TextSpan s, bool sign_allowed, Number *n) {
    const char *p = s.data, *end = p + s.size;
    *n = (Number){0};
    if (sign_allowed && p < end && (*p == '-' || *p == '+')) {
        n->negative = *p++ == '-';
    } else if (sign_allowed && end - p >= 3 && memcmp(p, "\xE2\x88\x92", 3) == 0) {
        n->negative = true;
        p += 3;
    }
    if (!read_whole_part(n, &p, end)) return false;
    if (p < end && *p == '.') {
        for (p++; p < end && is_digit(*p); p++, n->scale++)
            if (!push_digit(n, *p)) return false;
    }
    return p == end && n->count > 0;
}

// ---- whole numbers -------------------------------------------------------------------------------------------------------
static void whole_from(const Number *n, int zeros, Whole *out) { // digits followed by `zeros` zeros
    *out = (Whole){0};
    int total = n->count + zeros;
    for (int low = 0; low < total; low += 9) { // counted from the right
        uint32_t limb = 0;
        for (int k = low + 8; k >= low; k--) {
            int from_left = total - 1 - k;
            limb = limb * 10 + (uint32_t)(from_left < 0 || from_left >= n->count ? 0 : n->digits[from_left] - '0');
        }
        out->limb[out->size++] = limb;
    }
    while (out->size && out->limb[out->size - 1] == 0) out->size--;
}

static void whole_multiply(const Whole *a, const Whole *b, Whole *out) {
    *out = (Whole){.size = a->size + b->size};
    for (int i = 0; i < a->size; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < b->size || carry; j++) {
            uint64_t sum = out->limb[i + j] + carry + (j < b->size ? (uint64_t)a->limb[i] * b->limb[j] : 0);
            out->limb[i + j] = (uint32_t)(sum % BASE);
            carry = sum / BASE;
        }
    }
    while (out->size && out->limb[out->size - 1] == 0) out->size--;
}

typedef struct Quotient {
    bool negative;
    Whole above, below;
} Quotient;

static bool read_quotient(TextSpan text, Quotient *q) {
    Number above, below = {.digits = "1", .count = 1};
    text = text_trim(text);
    const char *slash = text.size ? memchr(text.data, '/', text.size) : NULL;
    TextSpan left = {text.data, slash ? (size_t)(slash - text.data) : text.size};
    if (!read_number(text_trim(left), true, &above)) return false;
    if (slash) {
        TextSpan right = {slash + 1, (size_t)(text.data + text.size - slash - 1)};
        if (!read_number(text_trim(right), false, &below)) return false;
    }
    whole_from(&above, below.scale, &q->above);
    whole_from(&below, above.scale, &q->below);
    q->negative = above.negative && q->above.size;
    return q->below.size > 0;
}

int verify_numbers(TextSpan a, TextSpan b) {
    Quotient x, y;
    Whole left, right;
    if (!read_quotient(a, &x) || !read_quotient(b, &y)) return -1;
    if (x.negative != y.negative) return 0;
    whole_multiply(&x.above, &y.below, &left);
    whole_multiply(&y.above, &x.below, &right);
    return left.size == right.size && memcmp(left.limb, right.limb, (size_t)left.size * sizeof *left.limb) == 0;
}
