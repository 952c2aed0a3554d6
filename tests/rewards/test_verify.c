// verify: every unquestioned row of the reference table and every row of our own, in five languages; and whatever is
// thrown at it ends soon, in bounded work, without a fault.
#include "../test.h"
#include "verify.h"

static bool same(const char *truth, const char *answer) {
    return verify_equal((TextSpan){truth, strlen(truth)}, (TextSpan){answer, strlen(answer)}, NULL);
}

static void the_reference_table(void) {
    Err err = {0};
    json_t *document;
    int judged = 0;
    OK(json_read_file(TEST_DATA "/rl/verify.json", 1 << 20, &document, &err));
    const json_t *cases = json_object_get(document, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *inputs = json_object_get(c, "inputs"), *human = json_object_get(c, "human");
        const char *gold = json_string_value(json_object_get(inputs, "gold")), *candidate = json_string_value(json_object_get(inputs, "candidate"));
        if (json_is_null(human)) continue; // a matter of convention
        judged++;
        if (same(gold, candidate) != json_is_true(human)) FAIL("row %zu: '%s' and '%s': a reader says %s", i, gold, candidate, json_is_true(human) ? "equal" : "different");
    }
    json_decref(document);
    CHECK(judged > 150);
}

static bool judge_row(void *context, json_t *row, long line, Err *err) {
    const char *truth = json_string_value(json_array_get(row, 0)), *answer = json_string_value(json_array_get(row, 1));
    bool want = json_is_true(json_array_get(row, 2));
    ++*(int *)context;
    if (same(truth, answer) != want) return fail(err, ERR_FAILED, truth, "line %ld: '%s' should be %s", line, answer, want ? "equal" : "different");
    return true;
}
static void rows_of_our_own(void) {
    Err err = {0};
    int rows = 0;
    OK(json_lines(TEST_DATA "/rewards/verify.jsonl", 1 << 16, judge_row, &rows, &err));
    CHECK(rows >= 300);
}

// [truth, [equal answers], [different answers]]
static bool judge_group(void *context, json_t *row, long line, Err *err) {
    const char *truth = json_string_value(json_array_get(row, 0));
    for (size_t want = 0; want < 2; want++) {
        const json_t *answers = json_array_get(row, 2 - want);
        for (size_t i = 0; i < json_array_size(answers); i++, ++*(int *)context) {
            const char *answer = json_string_value(json_array_get(answers, i));
            if (same(truth, answer) != want) return fail(err, ERR_FAILED, truth, "line %ld: '%s' should be %s", line, answer, want ? "equal" : "different");
        }
    }
    return true;
}
static void groups_of_our_own(void) {
    Err err = {0};
    int answers = 0;
    OK(json_lines(TEST_DATA "/rewards/verify_groups.jsonl", 1 << 16, judge_group, &answers, &err));
    CHECK(answers >= 2000);
}

static char *repeat(const char *piece, int times) {
    Buf b = {0};
    for (int i = 0; i < times; i++) buf_puts(&b, piece);
    return b.data;
}

// Each is repeated, and compared with a number and with itself but for one character.
static void work_is_bounded(void) {
    static const char *const pieces[] = {"(", "{", "[", "\\{", "|", "\\frac", "\\frac{1}{", "\\sqrt", "\\sqrt[", "-", "+", "+1", "*9", "^9", "9^", "!", "5!", "\\pm 1", "x", "xyz", "$", "\\boxed{",
                                         "\\boxed", "####", "answer is ", "1,", "9", "1 ", "삼", "만", "triệu ", "\\text{", "\\begin{pmatrix}", "1&", "\\\\", "\\cup", "=", "<", "x<", ":", "%", "_2", "\\sin", "\\log_",
                                         "\\overline{", "0.", "1/", "(1+1/", "2^(", "or ", "\xF0", "\xEF\xBC\x91", "\xC3", "sqrt(", "1e", "e", "i", "\\", "\\begin{align*}", "3 hours ", "8i+3", "x+3*"};
    for (int i = 0; i < COUNT(pieces); i++)
        for (int times = 40; times <= 4000; times *= 10) {
            char *text = repeat(pieces[i], times), *longer = xasprintf("%s1", text);
            uint64_t steps;
            TextSpan a = {text, strlen(text)}, b = {longer, strlen(longer)};
            verify_equal((TextSpan){"42", 2}, a, &steps);
            if (steps > 600000) FAIL("%s: %llu steps", pieces[i], (unsigned long long)steps);
            verify_equal(a, b, &steps);
            if (steps > 600000) FAIL("%s: %llu steps with itself", pieces[i], (unsigned long long)steps);
            verify_equal(b, (TextSpan){"x+1", 3}, NULL);
            free(text), free(longer);
        }
}

// Rows of the table cut short, with bytes changed and pieces exchanged: no fault, and the same verdict twice.
static void damaged_rows(void) {
    Err err = {0};
    json_t *document;
    OK(json_read_file(TEST_DATA "/rl/verify.json", 1 << 20, &document, &err));
    const json_t *cases = json_object_get(document, "cases");
    Random random = random_start(7, STREAM_TEST, 0);
    int count = (int)json_array_size(cases);
    for (int i = 0; i < 20000; i++) {
        char text[2][600];
        size_t size[2];
        for (int k = 0; k < 2; k++) {
            const json_t *inputs = json_object_get(json_array_get(cases, random_below(&random, (uint32_t)count)), "inputs");
            const char *s = json_string_value(json_object_get(inputs, k ? "candidate" : "gold"));
            size[k] = strlen(s) < 300 ? strlen(s) : 300;
            memcpy(text[k], s, size[k]);
            for (uint32_t changes = random_below(&random, 4); changes && size[k]; changes--) {
                uint32_t at = random_below(&random, (uint32_t)size[k]);
                switch (random_below(&random, 4)) {
                case 0: size[k] = at; break;
                case 1: text[k][at] = (char)random_below(&random, 256); break;
                case 2: text[k][at] = "(){}[]\\^_$%,.+-*/=<>|!0123456789xe"[random_below(&random, 35)]; break;
                default:
                    memmove(text[k] + at + 1, text[k] + at, size[k] - at);
                    size[k]++;
                }
            }
        }
        TextSpan a = {text[0], size[0]}, b = {text[1], size[1]};
        uint64_t one, two;
        bool first = verify_equal(a, b, &one), second = verify_equal(a, b, &two);
        if (first != second || one != two) FAIL("'%.*s' and '%.*s' differ between two runs", (int)a.size, a.data, (int)b.size, b.data);
    }
    json_decref(document);
}

static void tags_and_nul_are_no_part_of_an_answer(void) {
    CHECK(!verify_equal((TextSpan){"42", 2}, (TextSpan){"42\0", 3}, NULL));
    CHECK(!same("42", "it is </answer>42</answer>") && !same("42", "</think>42") && !same("42", "<answer>42</answer>"));
    CHECK(!same("98", "\\[0,1)[ \\\\\\\\\\\\\\]")); // ends of lines without lines
    CHECK(same("", "") && same("<answer>", "<answer>") && !same("42", ""));
}

static const Test tests[] = {
    {"the_reference_table", the_reference_table},
    {"rows_of_our_own", rows_of_our_own},
    {"groups_of_our_own", groups_of_our_own},
    {"work_is_bounded", work_is_bounded},
    {"damaged_rows", damaged_rows},
    {"tags_and_nul_are_no_part_of_an_answer", tags_and_nul_are_no_part_of_an_answer},
};
TEST_MAIN(tests)
