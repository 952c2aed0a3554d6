// A model's text as a terminal gets it: nothing that a terminal obeys, thinking and answer apart, whatever the pieces are.
#include "../test.h"
#include "chat.h"

static void collect(void *context, bool thinking, const char *data, size_t size) {
    Buf *all = context;
    buf_puts(all, thinking ? "T" : "A");
    buf_append(all, data, size);
}
// Pushes `text` in pieces of `each` characters (as tokens come), and compares both parts.
static void check(const char *text, int each, bool thinking, const char *think, const char *answer) {
    ChatText c = {0};
    Buf all = {0};
    size_t size = strlen(text);
    chat_text_start(&c, thinking);
    for (size_t at = 0; at < size;) {
        size_t n = 0;
        for (int i = 0; i < each && at + n < size; i++)
            do n++;
            while (at + n < size && ((unsigned char)text[at + n] & 0xC0) == 0x80);
        chat_text_push(&c, text + at, n, collect, &all);
        at += n;
    }
    chat_text_end(&c, collect, &all);
    CHECK_STR(c.think.data ? c.think.data : "", think);
    CHECK_STR(c.answer.data ? c.answer.data : "", answer);
    chat_text_free(&c);
    buf_free(&all);
}
static void thinking_and_answer(void) {
    static const struct {
        const char *text;
        bool thinking;
        const char *think, *answer;
    } cases[] = {
        {"plain", false, "", "plain"},
        {"<think>\na < b\n</think>\n\nc", false, "a < b\n", "c"},
        {"a</think>b", true, "a", "b"},
        {"never closed", true, "never closed", ""},
        {"a <thin", false, "", "a <thin"},
        {"a <<think>x</think>b", false, "x", "a <b"},
        {"</think>a", false, "", "a"},
        {"\u00e9<think>\u4f60</think>\u597d", false, "\u4f60", "\u00e9\u597d"},
        {"", false, "", ""},
    };
    for (int i = 0; i < COUNT(cases); i++)
        for (int each = 1; each < 9; each++) check(cases[i].text, each, cases[i].thinking, cases[i].think, cases[i].answer);
}
static void nothing_to_obey(void) {
    static const char *const cases[][2] = {
        {"a\x1b[31mred\x1b[0m b", "ared b"},
        {"a\x1b]0;title\x07z", "az"},
        {"a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\.", "alink."},
        {"a\x1bPq#0\x1b\\b", "ab"},
        {"a\x1b(Bb\x1b" "cd", "abd"},
        {"a\rb\x08" "c\x07" "d\x7f" "e", "abcde"},
        {"a\tb\nc", "a\tb\nc"},
        {"a\xc2\x9b" "31mb\xc2\x85" "c", "abc"},
        {"a\u202eb\u2066c\u200fd", "abcd"},
        {"a\x1b[\u00e9b", "a\u00e9b"},
        {"a\x1b", "a"},
    };
    for (int i = 0; i < COUNT(cases); i++)
        for (int each = 1; each < 6; each++) check(cases[i][0], each, false, "", cases[i][1]);
    Buf endless = {0}; // a sequence without an end swallows no more than a line or so
    buf_puts(&endless, "\x1b]");
    for (int i = 0; i < 300; i++) buf_puts(&endless, "\u00e9");
    ChatText c = {0};
    chat_text_start(&c, false);
    chat_text_push(&c, endless.data, endless.size, NULL, NULL);
    CHECK(c.answer.size > 100 && c.answer.size % 2 == 0 && memcmp(c.answer.data, "\u00e9", 2) == 0);
    chat_text_free(&c);
    buf_free(&endless);
}
static void tags_that_are_tokens(void) {
    ChatText c = {0};
    Buf all = {0};
    chat_text_start(&c, false);
    chat_text_tag(&c, true, collect, &all);
    chat_text_push(&c, " a", 2, collect, &all);
    chat_text_tag(&c, false, collect, &all);
    chat_text_push(&c, "\nb", 2, collect, &all);
    chat_text_end(&c, collect, &all);
    CHECK_STR(all.data, "TaAb");
    chat_text_free(&c);
    buf_free(&all);
}

static const Test tests[] = {
    {"thinking and answer", thinking_and_answer},
    {"nothing to obey", nothing_to_obey},
    {"tags that are tokens", tags_that_are_tokens},
};
TEST_MAIN(tests)
