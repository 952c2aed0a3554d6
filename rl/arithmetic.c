// Arithmetic: sums and products whose difficulty is graded by how many steps a person would write down.
//   1: a three-digit and a one-digit number        347+5
//   2, 3, 4: sums of two, three, five two-digit numbers
//   5: a product of two two-digit numbers          6: of a three-digit and a two-digit number
// A demonstration is the chain of partial results, each short enough to be read off: running sums, and for a product
// one partial product for each digit of the second factor that isn't 0, then their sum.
#include "tasks_parts.h"
#include <stdio.h>
#include <string.h>

typedef struct Level {
    int count;            // operands
    int first_low, first_high, other_low, other_high;
    char sign;
} Level;
static const Level levels[] = {
    {2, 100, 999, 1, 9, '+'}, {2, 10, 99, 10, 99, '+'}, {3, 10, 99, 10, 99, '+'},
    {5, 10, 99, 10, 99, '+'}, {2, 10, 99, 10, 99, '*'}, {2, 100, 999, 10, 99, '*'},
};

static int64_t distinct(int level) {
    const Level *l = &levels[level - 1];
    int64_t n = l->first_high - l->first_low + 1;
    for (int i = 1; i < l->count; i++) n *= l->other_high - l->other_low + 1;
    return n;
}

__attribute__((format(printf, 3, 4))) static void put(char *text, size_t capacity, const char *format, ...) {
    size_t n = strlen(text);
    va_list ap;
    va_start(ap, format);
    vsnprintf(text + n, capacity - n, format, ap);
    va_end(ap);
}
#define PUT(field, ...) put(field, sizeof(field), __VA_ARGS__)

static void demonstrate_sum(Problem *p) {
    int sum = p->numbers[0];
    for (int i = 1; i < p->count; i++) {
        PUT(p->demonstration, "%s%d+%d=%d", i > 1 ? "," : "", sum, p->numbers[i], sum + p->numbers[i]);
        sum += p->numbers[i];
    }
    PUT(p->truth, "%d", sum);
}
static void demonstrate_product(Problem *p) {
    int a = p->numbers[0], b = p->numbers[1], tens = b / 10 * 10, ones = b % 10;
    PUT(p->demonstration, "%d*%d=%d", a, tens, a * tens);
    if (ones) PUT(p->demonstration, ",%d*%d=%d,%d+%d=%d", a, ones, a * ones, a * tens, a * ones, a * b);
    PUT(p->truth, "%d", a * b);
}

static void draw(Random *random, int level, Problem *p) {
    const Level *l = &levels[level - 1];
    *p = (Problem){.count = l->count};
    int sorted[8];
    PUT(p->words, "What is ");
    for (int i = 0; i < l->count; i++) {
        int low = i ? l->other_low : l->first_low, high = i ? l->other_high : l->first_high;
        int x = low + (int)random_below(random, (uint32_t)(high - low + 1)), j = i;
        for (; j > 0 && sorted[j - 1] > x; j--) sorted[j] = sorted[j - 1];
        sorted[j] = p->numbers[i] = x;
        if (i) PUT(p->plain, "%c", l->sign), PUT(p->words, " %c ", l->sign);
        PUT(p->plain, "%d", x);
        PUT(p->words, "%d", x);
    }
    PUT(p->plain, "=");
    PUT(p->words, "?");
    for (int i = 0; i < l->count; i++) PUT(p->identity, "%d%c", sorted[i], i + 1 < l->count ? l->sign : '=');
    if (l->sign == '+')
        demonstrate_sum(p);
    else
        demonstrate_product(p);
}

static json_t *row(const Problem *p) {
    json_t *numbers = json_array();
    for (int i = 0; i < p->count; i++) json_array_append_new(numbers, json_integer(p->numbers[i]));
    return json_pack("{s:o, s:s}", "numbers", numbers, "operation", strchr(p->plain, '*') ? "*" : "+");
}

const Generator arithmetic_generator = {"arithmetic", COUNT(levels), 1, distinct, draw, row};
