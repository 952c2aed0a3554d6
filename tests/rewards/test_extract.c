// extract: the reference texts by the stricter rule of answer tags, and what is nested, missing and repeated for each
// of the other ways of saying an answer.
#include "../test.h"
#include "extract.h"

static void the_reference_texts(void) {
    Err err = {0};
    json_t *document;
    OK(json_read_file(TEST_DATA "/rl/extraction.json", 1 << 20, &document, &err));
    const json_t *cases = json_object_get(document, "cases");
    CHECK(json_array_size(cases) == 56);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *want = json_object_get(c, "suggested_answer_tag");
        const json_t *text = json_object_get(json_object_get(c, "inputs"), "text");
        TextSpan answer = {0};
        bool found = extract_answer_tag((TextSpan){json_string_value(text), json_string_length(text)}, &answer);
        bool right = found ? json_is_string(want) && answer.size == json_string_length(want) && !memcmp(answer.data, json_string_value(want), answer.size)
                           : json_is_null(want);
        if (!right) FAIL("%s: got \"%.*s\"", json_string_value(json_object_get(c, "name")), found ? (int)answer.size : 6, found ? answer.data : "(none)");
    }
    json_decref(document);
}

typedef bool (*Extract)(TextSpan text, TextSpan *out);
static bool lua_code(TextSpan text, TextSpan *out) { return extract_code(text, "lua", out); }
static bool any_code(TextSpan text, TextSpan *out) { return extract_code(text, NULL, out); }
static const struct {
    Extract extract;
    const char *text, *want; // NULL: none
} cases[] = {
    {extract_boxed, "so \\boxed{42}", "42"},
    {extract_boxed, "\\boxed{1} then \\boxed{2}", "2"},
    {extract_boxed, "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
    {extract_boxed, "\\boxed{\\boxed{3}}", "3"},
    {extract_boxed, "\\boxed{1} and \\boxed{2", "1"},
    {extract_boxed, "\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"},
    {extract_boxed, "\\boxed{}", ""},
    {extract_boxed, "\\fbox{7}", "7"},
    {extract_boxed, "\\boxed 7", NULL},
    {extract_boxed, "<think>\\boxed{1}</think>no", NULL},
    {extract_boxed, "<think>\\boxed{1}", NULL},
    {extract_hash, "so\n#### 42\n", "42"},
    {extract_hash, "#### 1\n#### -2 apples\nrest", "-2 apples"},
    {extract_hash, "####", NULL},
    {extract_hash, "### 42", NULL},
    {extract_number, "from 3 to 1,234.50 m.", "1,234.50"},
    {extract_number, "x = -89", "-89"},
    {extract_number, "5-3", "3"},
    {extract_number, "it is .5!", ".5"},
    {extract_number, "it is \xE2\x88\x92" "5", "\xE2\x88\x92" "5"},
    {extract_number, "none", NULL},
    {extract_number, "<think>5</think>none", NULL},
    {extract_number, "So it is 89.", "89"},
    {lua_code, "```lua\nreturn 1\n```\ntext\n```lua\nreturn 2\n```\n", "return 2\n"},
    {lua_code, "```python\n1\n```", NULL},
    {any_code, "```python\n1\n```", "1\n"},
    {any_code, "```python\n1\n", NULL},
    {any_code, "use ``` inline ```", NULL},
    {any_code, "```\na\n```lua\nb\n```", "b\n"},
    {extract_json, "the result: {\"a\": [1, {\"b\": \"}\"}]} ok", "{\"a\": [1, {\"b\": \"}\"}]}"},
    {extract_json, "{\"a\": 1} and {\"a\": 2}", "{\"a\": 2}"},
    {extract_json, "{\"a\": 1} {\"a\": ", "{\"a\": 1}"},
    {extract_json, "{\"a\": 1]", NULL},
    {extract_json, "x {1}\n```json\n{\"k\": 0}\n```\n{2}", "{\"k\": 0}"},
    {extract_json, "no", NULL},
    {extract_answer_tag, "<answer>\xE3\x80\x80" "5\xC2\xA0</answer>", "5"},
};
static void nested_missing_repeated(void) {
    for (int i = 0; i < COUNT(cases); i++) {
        TextSpan out = {0};
        bool found = cases[i].extract((TextSpan){cases[i].text, strlen(cases[i].text)}, &out);
        if (found != (cases[i].want != NULL)) FAIL("%s: got %s", cases[i].text, found ? "something" : "nothing");
        if (found && (out.size != strlen(cases[i].want) || memcmp(out.data, cases[i].want, out.size) != 0))
            FAIL("%s: got \"%.*s\", want \"%s\"", cases[i].text, (int)out.size, out.data, cases[i].want);
    }
}

static void any_bytes(void) {
    static const Extract all[] = {extract_answer_tag, extract_boxed, extract_hash, extract_number, lua_code, any_code, extract_json, extract_after_thinking};
    static const char *const pieces[] = {"<answer>", "</answer>", "<think>", "</think>", "\\boxed{", "}", "{", "```", "```lua\n", "\n", "####", "1", "-", ".", ",", "\"", "\\", "[", "]", "\xE3", "\x80", " "};
    Random random = random_start(3, STREAM_TEST, 1);
    for (int i = 0; i < 20000; i++) {
        Buf b = {0};
        for (uint32_t n = random_below(&random, 30); n; n--) buf_puts(&b, pieces[random_below(&random, COUNT(pieces))]);
        char *exact = xmalloc(b.size + 1); // so that a step beyond the end is seen
        if (b.size) memcpy(exact, b.data, b.size);
        exact = xrealloc(exact, b.size ? b.size : 1);
        for (int k = 0; k < COUNT(all); k++) {
            TextSpan out = {exact, 0};
            if (all[k]((TextSpan){exact, b.size}, &out)) CHECK(out.data >= exact && out.data + out.size <= exact + b.size);
        }
        free(exact);
        buf_free(&b);
    }
}

static const Test tests[] = {
    {"the_reference_texts", the_reference_texts},
    {"nested_missing_repeated", nested_missing_repeated},
    {"any_bytes", any_bytes},
};
TEST_MAIN(tests)
