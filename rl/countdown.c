// Countdown: reach a target with given numbers, each used at most once, and + - * / (exact). Levels 1, 2, 3 give 3, 4, 5
// numbers. A problem is made by combining its numbers at random until one is left, so that it always has a solution; that
// one is the truth, but another may be as good: scripts/tasks/countdown.lua checks an answer by evaluating it.
#include "tasks_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBERS_LOW = 1, NUMBERS_HIGH = 25, TARGET_LOW = 10, TARGET_HIGH = 999 };

typedef struct Term {
    int value;
    char sign; // of the outermost operation, 0 for a number
    char text[64];
} Term;

// Brackets only where leaving them out would change the value.
static bool needs_brackets(const Term *t, char sign, bool right) {
    bool weak = t->sign == '+' || t->sign == '-';
    if (sign == '*') return weak || (right && t->sign == '/');
    if (sign == '/') return weak || (right && t->sign);
    return sign == '-' && right && weak;
}

static Term combine(const Term *a, const Term *b, char sign) {
    Term t = {.sign = sign};
    bool left = needs_brackets(a, sign, false), right = needs_brackets(b, sign, true);
    t.value = sign == '+' ? a->value + b->value : sign == '-' ? a->value - b->value
              : sign == '*' ? a->value * b->value : a->value / b->value;
    char text[2 * sizeof t.text + 8];
    snprintf(text, sizeof text, "%s%s%s%c%s%s%s", left ? "(" : "", a->text, left ? ")" : "", sign, right ? "(" : "", b->text,
             right ? ")" : "");
    memcpy(t.text, text, sizeof t.text - 1); // five numbers of two digits, four signs and six brackets fit
    return t;
}

// One of the operations that keep to whole numbers from 1 to TARGET_HIGH; 0 if there is none.
static char choose_sign(Random *random, int a, int b) {
    char fit[4];
    uint32_t n = 0;
    if (a + b <= TARGET_HIGH) fit[n++] = '+';
    if (a > b) fit[n++] = '-';
    if (a > 1 && b > 1 && a * b <= TARGET_HIGH) fit[n++] = '*';
    if (b > 1 && a % b == 0) fit[n++] = '/';
    return n ? fit[random_below(random, n)] : 0;
}

// False if the numbers led nowhere.
static bool combine_all(Random *random, Problem *p) {
    Term terms[5];
    int left = p->count;
    for (int i = 0; i < left; i++) {
        terms[i] = (Term){.value = p->numbers[i]};
        snprintf(terms[i].text, sizeof terms[i].text, "%d", p->numbers[i]);
    }
    p->demonstration[0] = 0;
    for (; left > 1; left--) {
        int i = (int)random_below(random, (uint32_t)left), j = (int)random_below(random, (uint32_t)left - 1);
        j += j >= i;
        Term a = terms[i], b = terms[j];
        char sign = choose_sign(random, a.value, b.value);
        if (!sign) return false;
        Term t = combine(&a, &b, sign);
        size_t n = strlen(p->demonstration);
        snprintf(p->demonstration + n, sizeof p->demonstration - n, "%s%d%c%d=%d", n ? "," : "", a.value, sign, b.value,
                 t.value);
        terms[i < j ? i : j] = t;
        terms[i < j ? j : i] = terms[left - 1];
    }
    p->target = terms[0].value;
    snprintf(p->truth, sizeof p->truth, "%s", terms[0].text);
    bool among = false;
    for (int i = 0; i < p->count; i++) among |= p->numbers[i] == p->target;
    return !among && p->target >= TARGET_LOW;
}

static int compare_ints(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void draw(Random *random, int level, Problem *p) {
    *p = (Problem){.count = level + 2};
    do
        for (int i = 0; i < p->count; i++)
            p->numbers[i] = NUMBERS_LOW + (int)random_below(random, NUMBERS_HIGH - NUMBERS_LOW + 1);
    while (!combine_all(random, p));
    int sorted[8];
    memcpy(sorted, p->numbers, sizeof sorted);
    qsort(sorted, (size_t)p->count, sizeof *sorted, compare_ints);
    Buf list = {0}, words = {0}, identity = {0};
    for (int i = 0; i < p->count; i++) {
        buf_printf(&list, "%s%d", i ? "," : "", p->numbers[i]);
        buf_printf(&words, "%s%d", !i ? "" : i + 1 < p->count ? ", " : " and ", p->numbers[i]);
        buf_printf(&identity, "%d,", sorted[i]);
    }
    snprintf(p->plain, sizeof p->plain, "%s:%d=", list.data, p->target);
    snprintf(p->words, sizeof p->words,
             "Use the numbers %s, each at most once, with + - * / and brackets, to write an expression that equals %d.",
             words.data, p->target);
    snprintf(p->identity, sizeof p->identity, "%s=%d", identity.data, p->target);
    buf_free(&list);
    buf_free(&words);
    buf_free(&identity);
}

static int64_t distinct(int level) {
    (void)level;
    return -1; // how many number sets reach how many targets isn't known in closed form
}

static json_t *row(const Problem *p) {
    json_t *numbers = json_array();
    for (int i = 0; i < p->count; i++) json_array_append_new(numbers, json_integer(p->numbers[i]));
    return json_pack("{s:o, s:i}", "numbers", numbers, "target", p->target);
}

const Generator countdown_generator = {"countdown", 3, 1, distinct, draw, row};
