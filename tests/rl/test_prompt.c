// Prompts and demonstrations, as ids: from characters, and through a chat template.
#include "../test.h"
#include "files.h"
#include "rl.h"

static Tokenizer *characters(void) {
    Tokenizer *t;
    Err err = {0};
    OK(tokenizer_from_characters("0123456789+=,", &t, &err));
    return t;
}
// The ids as text, special tokens written out.
static void expect_text(const Tokenizer *t, const Ids *ids, const char *want) {
    Buf text = {0};
    Err err = {0};
    OK(tokenizer_decode(t, ids->data, ids->count, false, &text, &err));
    CHECK_STR(text.data ? text.data : "", want);
    buf_free(&text);
}

static Item sum_item(void) {
    return (Item){.kind = "arithmetic", .prompt = "12+34=", .truth = "46", .demonstration = "12+34=46"};
}
static Recipe plain_recipe(void) {
    Recipe r = {0};
    r.style[MODE_THINK].prefix = "<think>";
    r.style[MODE_DIRECT].prefix = "<think></think>";
    return r;
}

static void a_model_of_characters(void) {
    Tokenizer *t = characters();
    Recipe r = plain_recipe();
    Item item = sum_item();
    Err err = {0};
    Ids ids = {0};
    OK(prompt_render(&r, t, &item, MODE_THINK, &ids, &err));
    // Six characters after the three special tokens, then <think> as one id.
    static const int32_t want[] = {4, 5, 13, 6, 7, 14, 1};
    CHECK_INT(ids.count, COUNT(want));
    for (int i = 0; i < COUNT(want); i++) CHECK_INT(ids.data[i], want[i]);
    OK(demonstration_render(&r, t, &item, MODE_THINK, &ids, &err)); // appends
    expect_text(t, &ids, "12+34=<think>12+34=46</think>46<eos>");
    CHECK_INT(ids.data[ids.count - 1], tokenizer_eos(t));
    ids.count = 0;
    OK(prompt_render(&r, t, &item, MODE_DIRECT, &ids, &err));
    CHECK_INT(ids.count, 8);
    OK(demonstration_render(&r, t, &item, MODE_DIRECT, &ids, &err));
    expect_text(t, &ids, "12+34=<think></think>46<eos>");
    ids_free(&ids);
    tokenizer_close(t);
}

static void what_cannot_be_rendered(void) {
    Tokenizer *t = characters();
    Recipe r = plain_recipe();
    Item item = sum_item(), foreign = sum_item();
    Err err = {0};
    Ids ids = {0};
    item.demonstration = NULL;
    CHECK(!demonstration_render(&r, t, &item, MODE_THINK, &ids, &err));
    CHECK(err.code == ERR_DATA && strstr(err.msg, "demonstration"));
    OK(demonstration_render(&r, t, &item, MODE_DIRECT, &ids, &err));
    foreign.prompt = "12-34=";
    CHECK(!prompt_render(&r, t, &foreign, MODE_THINK, &ids, &err));
    CHECK(err.code == ERR_DATA && strstr(err.msg, "-"));
    r.style[MODE_THINK].prefix = "";
    foreign.prompt = "";
    ids.count = 0;
    CHECK(!prompt_render(&r, t, &foreign, MODE_THINK, &ids, &err));
    CHECK(err.code == ERR_DATA && strstr(err.msg, "without tokens"));
    ids_free(&ids);
    tokenizer_close(t);
}

static void styles_in_plain_text(void) {
    Tokenizer *t = characters();
    Recipe r = plain_recipe();
    Item item = sum_item();
    Err err = {0};
    Ids ids = {0};
    r.style[MODE_THINK].prefix = "<think>1";
    OK(prompt_render(&r, t, &item, MODE_THINK, &ids, &err));
    expect_text(t, &ids, "12+34=<think>1");
    r.style[MODE_THINK].instruction = "+"; // put after an empty line, which this vocabulary lacks
    CHECK(!prompt_render(&r, t, &item, MODE_THINK, &ids, &err));
    ids_free(&ids);
    tokenizer_close(t);
}

static void a_chat(void) {
    Tokenizer *t;
    Err err = {0};
    Ids ids = {0};
    OK(tokenizer_open(TEST_DATA "/tokenizers/qwen2-style", &t, &err));
    Recipe r = plain_recipe();
    Item item = sum_item();
    r.chat = true;
    r.style[MODE_THINK].system = "S";
    r.style[MODE_THINK].instruction = "I";
    OK(prompt_render(&r, t, &item, MODE_THINK, &ids, &err));
    expect_text(t, &ids, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n12+34=\n\nI<|im_end|>\n<|im_start|>assistant\n<think>");
    CHECK_INT(ids.data[ids.count - 1], tokenizer_id(t, "<think>"));
    ids.count = 0;
    OK(demonstration_render(&r, t, &item, MODE_THINK, &ids, &err));
    expect_text(t, &ids, "12+34=46</think>46<|im_end|>");
    CHECK_INT(ids.data[ids.count - 1], tokenizer_id(t, "<|im_end|>"));
    // Messages of the data keep their own system message; the instruction goes to the last question.
    item.messages = json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}]", "role", "system", "content", "own", "role", "user",
                              "content", "a", "role", "assistant", "content", "b", "role", "user", "content", "c");
    json_t *before = json_deep_copy(item.messages);
    ids.count = 0;
    OK(prompt_render(&r, t, &item, MODE_THINK, &ids, &err));
    expect_text(t, &ids, "<|im_start|>system\nown<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                         "<|im_start|>user\nc\n\nI<|im_end|>\n<|im_start|>assistant\n<think>");
    CHECK(json_equal(item.messages, before)); // the item itself is left alone
    json_decref(before);
    json_decref(item.messages);
    ids_free(&ids);
    tokenizer_close(t);
}

// A template that knows about thinking is told the mode, and what it has opened or closed is not opened or closed again.
static void a_switch_for_thinking(void) {
    static const char source[] = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
                                 "{{ '<think>\\n\\n</think>\\n\\n' if enable_thinking is false else open }}{{ strftime_now('%d %b %Y') if date }}";
    static const char *const wants[][2] = {{"[12+34=]<think>", "[12+34=]<think>\n\n</think>\n\n"}, {"[12+34=]<think>\n", "[12+34=]<think>\n\n</think>\n\n"}};
    Err err = {0};
    Buf file = {0}, template = {0};
    char folder[] = "/tmp/reckon-prompt-XXXXXX";
    CHECK(mkdtemp(folder));
    char *tokenizer = path_join(folder, "tokenizer.json"), *chat = path_join(folder, "chat_template.jinja");
    OK(file_read(TEST_DATA "/tokenizers/qwen2-style/tokenizer.json", 16 << 20, &file, &err));
    OK(file_write_atomic(tokenizer, file.data, file.size, &err));
    for (int opens = 0; opens < 2; opens++) {
        Tokenizer *t;
        Ids ids = {0};
        template.size = 0;
        buf_printf(&template, "{%% set open = '%s' %%}%s", opens ? "<think>\\n" : "", source);
        OK(file_write_atomic(chat, template.data, template.size, &err));
        OK(tokenizer_open(folder, &t, &err));
        CHECK(tokenizer_chat_reads(t, "enable_thinking") && !tokenizer_chat_reads(t, "thinking"));
        Recipe r = plain_recipe();
        Item item = sum_item();
        r.chat = true;
        for (Mode mode = MODE_THINK; mode <= MODE_DIRECT; mode++) {
            ids.count = 0;
            OK(prompt_render(&r, t, &item, mode, &ids, &err));
            expect_text(t, &ids, wants[opens][mode == MODE_DIRECT]);
        }
        ids_free(&ids);
        tokenizer_close(t);
    }
    OK(folder_remove(folder, &err));
    buf_free(&file), buf_free(&template);
    free(tokenizer), free(chat);
}

static const Test tests[] = {
    {"a model of characters", a_model_of_characters},
    {"what cannot be rendered", what_cannot_be_rendered},
    {"styles in plain text", styles_in_plain_text},
    {"a chat", a_chat},
    {"a switch for thinking", a_switch_for_thinking},
};
TEST_MAIN(tests)
