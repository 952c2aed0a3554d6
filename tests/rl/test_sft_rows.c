// Rows that are learned as they stand: which ids of a conversation and of a text are learned, that together they are the template's
// own, and what is said of rows and templates that can't be learned.
#include "chat.h"
#include "data.h"
#include "train_test.h"

#define SAYS(role, text) "{\"role\":\"" role "\",\"content\":\"" text "\"}"
#define TALK "[" SAYS("system", "S") "," SAYS("user", "1+1=") "," SAYS("assistant", "two\\n") "," SAYS("tool", "t") "," SAYS("user", "2+2=") "," SAYS("assistant", "\\n\\nfour") "]"

static json_t *parsed(const char *text) {
    json_t *value = json_loads(text, JSON_ALLOW_NUL, NULL);
    CHECK(value != NULL);
    return value;
}
static Tokenizer *opened(const char *path) {
    Tokenizer *t;
    Err err = {0};
    OK(tokenizer_open(path, &t, &err));
    return t;
}
// A tokenizer of the tests with one of their chat templates.
static Tokenizer *with_template(const char *name) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    Buf text = {0};
    Err err = {0};
    for (int i = 0; i < COUNT(files); i++) {
        char *path = path_join(TEST_DATA "/tokenizers/qwen2-style", files[i]);
        bool ok = file_read(path, 1 << 24, &text, &err);
        buf_append(&text, "", 1);
        free(path);
        OK(ok);
        scratch_file(files[i], text.data);
        buf_free(&text);
    }
    OK(file_read(TEST_DATA "/templates/chat_templates.json", 1 << 24, &text, &err));
    buf_append(&text, "", 1);
    json_t *all = parsed(text.data), *one;
    size_t i;
    json_array_foreach(json_object_get(all, "templates"), i, one) {
        const char *source = json_string_value(json_object_get(one, "source"));
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0) scratch_file("chat_template.jinja", source ? source : "");
    }
    json_decref(all), buf_free(&text);
    return opened(scratch_folder());
}

// What is learned of it, as text with a '|' after each run of tokens; and the whole must be the template's.
static void learned_text(const Tokenizer *t, const char *messages, bool last_turn, int mode, Buf *out) {
    Err err = {0};
    Ids prompt = {0}, rest = {0}, whole = {0};
    json_t *list = parsed(messages), *variables = mode == MODE_TEMPLATE ? NULL : thinking_variables((Mode)mode);
    Buf text = {0};
    OK(conversation_encode(t, &(Conversation){.messages = list, .mode = mode, .last_turn = last_turn}, &prompt, &rest, &err));
    ChatRequest request = {.messages = list, .variables = variables, .now = DAY_OF_PROMPTS};
    OK(tokenizer_chat_render(t, &request, &text, &err));
    OK(tokenizer_encode(t, text.data, text.size, false, &whole, &err));
    CHECK(prompt.count + rest.count <= whole.count);
    for (int32_t i = 0; i < whole.count; i++) {
        int32_t k = i - prompt.count, id = k < 0 ? prompt.data[i] : k < rest.count ? rest.data[k] : -1 - whole.data[i];
        CHECK_INT(id < 0 ? -1 - id : id, whole.data[i]);
        if (k >= 0 && id >= 0) OK(tokenizer_decode(t, &id, 1, false, out, &err));
        if (k > 0 && id < 0 && k - 1 < rest.count && rest.data[k - 1] >= 0) buf_puts(out, "|");
    }
    json_decref(list), json_decref(variables);
    buf_free(&text), ids_free(&prompt), ids_free(&rest), ids_free(&whole);
}
static void expect_learned(const Tokenizer *t, const char *messages, bool last_turn, int mode, const char *want) {
    Buf text = {0};
    learned_text(t, messages, last_turn, mode, &text);
    CHECK_STR(text.data ? text.data : "", want);
    buf_free(&text);
}

static void turns_of_the_assistant(void) {
    Tokenizer *t = opened(TEST_DATA "/tokenizers/qwen2-style");
    // The last turn begins within a token of three line ends, the first of which is the template's: all of it is learned.
    expect_learned(t, TALK, false, MODE_TEMPLATE, "two\n<|im_end|>|\n\n\nfour<|im_end|>|");
    expect_learned(t, TALK, true, MODE_TEMPLATE, "\n\n\nfour<|im_end|>|");
    expect_learned(t, "[" SAYS("user", "a") "," SAYS("assistant", "") "]", false, MODE_TEMPLATE, "<|im_end|>|");
    tokenizer_close(t);
}

static void expect_refused(const Tokenizer *t, const char *messages, bool last_turn, const char *why) {
    Err err = {0};
    Ids prompt = {0}, rest = {0};
    json_t *list = parsed(messages);
    bool ok = conversation_encode(t, &(Conversation){.messages = list, .mode = MODE_TEMPLATE, .last_turn = last_turn}, &prompt, &rest, &err);
    json_decref(list), ids_free(&prompt), ids_free(&rest);
    if (ok || err.code != ERR_DATA || !strstr(err.msg, why)) FAIL("%s: %s '%s', expected '%s'", messages, ok ? "learned" : "message", err.msg, why);
}

// Qwen3's template takes the thinking out of all turns but the last: the beginning isn't the same.
static void a_template_that_changes_the_beginning(void) {
    static const char talk[] = "[" SAYS("user", "a") "," SAYS("assistant", "<think>\\nh\\n</think>\\n\\nb") "," SAYS("user", "c") ","
                               SAYS("assistant", "<think>\\nk\\n</think>\\n\\nd") "]";
    Tokenizer *t = with_template("04-qwen3");
    expect_refused(t, talk, false, "writes the first 2 of 4 messages otherwise");
    expect_learned(t, talk, true, MODE_TEMPLATE, "<think>\nk\n</think>\n\nd<|im_end|>|");
    tokenizer_close(t);
    scratch_remove();
}

static void bad_conversations(void) {
    Tokenizer *t = opened(TEST_DATA "/tokenizers/qwen2-style");
    expect_refused(t, "{}", false, "found no list");
    expect_refused(t, "[]", false, "found an empty list");
    expect_refused(t, "[{\"role\":\"user\"}]", false, "number 1 lacks a text");
    expect_refused(t, "[3]", false, "number 1 lacks a text");
    expect_refused(t, "[" SAYS("assistant", "a") "]", false, "found a first message of the assistant");
    expect_refused(t, "[" SAYS("user", "a") "]", false, "found a last message of the role 'user'");
    expect_refused(t, "[" SAYS("user", "a\\u0000") "," SAYS("assistant", "b") "]", false, "number 1 lacks a text");
    tokenizer_close(t);
}

static void texts(void) {
    Tokenizer *t;
    Err err = {0};
    Ids prompt = {0}, rest = {0};
    OK(tokenizer_from_characters("123", &t, &err));
    OK(text_encode(t, "123", &prompt, &rest, &err));
    CHECK_INT(prompt.count, 1);
    CHECK_INT(prompt.data[0], 3);
    CHECK_INT(rest.count, 3);
    CHECK_INT(rest.data[1], 5);
    CHECK_INT(rest.data[2], tokenizer_eos(t));
    CHECK(!text_encode(t, "", &prompt, &rest, &err));
    CHECK(!text_encode(t, "4", &prompt, &rest, &err));
    ids_free(&prompt), ids_free(&rest);
    tokenizer_close(t);
}

// ---- from a file -----------------------------------------------------------------------------------------
#define RUN "threads=1, tasks={{'arithmetic', levels={1}}}, evaluate={items=0}, stages={sft{steps=1, batch=2, modes={direct=1}, "
static const char base[] = "return {model={preset='mini', max_positions=64}, characters='0123456789+*=,usta:', " RUN "optimizer={learning_rate=1e-3}}}}";
static const char chat_template[] = "{%- for m in messages %}{{- m.role[0] + ':' + m.content + '<eos>' }}{%- endfor %}{%- if add_generation_prompt %}{{- 'a:' }}{%- endif %}";
static char *recipe_on_top(bool chat, const char *keys) {
    return xasprintf("return {model={path='%s/base/checkpoints/step-1'}, chat=%s, " RUN "%s data={'rows.jsonl'}, validation={'rows.jsonl'}}}}", scratch_folder(),
                     chat ? "true" : "false", keys);
}
static TrainedRun learn(bool chat, const char *rows, const char *keys, int64_t last) {
    char *recipe = recipe_on_top(chat, keys);
    scratch_file("rows.jsonl", rows);
    TrainedRun run = train_run("run", recipe, NULL, last);
    free(recipe);
    return run;
}
static void expect_tokens(bool chat, const char *rows, const char *keys, int tokens) {
    TrainedRun run = learn(chat, rows, keys, 1);
    TRAINED(run);
    CHECK_INT((int)ask(&run, "SELECT json_extract(replayable, '$.tokens') FROM evaluations WHERE name = 'validation'"), tokens);
}
static void expect_error(bool chat, const char *rows, const char *where, const char *why) {
    TrainedRun run = learn(chat, rows, "", -1);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_DATA);
    if (!strstr(run.err.where, where) || !strstr(run.err.msg, why)) FAIL("found %s: %s", run.err.where, run.err.msg);
}

static void files_of_rows(void) {
    static const char talk[] = "{\"messages\":[" SAYS("user", "1+1=") "," SAYS("assistant", "2") "," SAYS("user", "2+2=") "," SAYS("assistant", "44") "]}\n";
    static const char text[] = "{\"text\":\"1+2=3\"}\n", answer[] = "{\"prompt\":\"1+2=\",\"completion\":\"3\",\"text\":\"not looked at\"}\n";
    TrainedRun run = train_run("base", base, NULL, 1);
    TRAINED(run);
    scratch_file("base/checkpoints/step-1/chat_template.jinja", chat_template);
    expect_tokens(true, talk, "", 2 + 3);
    expect_tokens(true, talk, "learn_turns='last',", 3);
    expect_tokens(true, talk, "learn_prompts=true,", 7 + 4 + 7 + 5 - 1);
    expect_tokens(false, text, "", 5);
    char *all = xasprintf("%s%s%s", talk, text, answer);
    expect_tokens(true, all, "", 5 + 5 + 2);
    free(all);
    expect_error(false, talk, "rows.jsonl:1", "plain text (chat=false)");
    expect_error(true, "{\"text\":\"1\"}\n{\"text\":\"\"}\n", "rows.jsonl:2", "text: found an empty text");
    expect_error(true, "{\"text\":\"1\"}\n\n{\"text\":7}\n", "rows.jsonl:3", "'text': expected a text");
    expect_error(true, "{\"text\":\"x\"}\n", "rows.jsonl:1", "x");
    expect_error(true, "{\"completion\":\"3\",\"text\":\"1\"}\n", "rows.jsonl:1", "missing 'prompt' or 'messages'");
    expect_error(true, "{\"messages\":[" SAYS("user", "1") "]}\n", "rows.jsonl:1", "found a last message of the role 'user'");
    expect_error(true, "{\"mode\":\"loud\",\"messages\":[" SAYS("user", "1") "," SAYS("assistant", "2") "]}\n", "rows.jsonl:1", "expected think or direct");
    run = train_run("run", "return {model={preset='mini', max_positions=64}, characters='0123456789+*=', " RUN "learn_turns='last'}}}", NULL, -1);
    CHECK(!run.ok);
    if (!strstr(run.err.msg, "'learn_turns' in stages.1: has no effect without 'data'")) FAIL("message: %s", run.err.msg);
    scratch_remove();
}

static const Test tests[] = {
    {"turns of the assistant", turns_of_the_assistant},
    {"a template that changes the beginning", a_template_that_changes_the_beginning},
    {"bad conversations", bad_conversations},
    {"texts", texts},
    {"files of rows", files_of_rows},
};
TEST_MAIN(tests)
