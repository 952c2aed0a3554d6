// Tokenizers and texts that were made to break it: each malformed file has its own message, each mutated byte ends in
// an error or in a tokenizer that works, and no text of any bytes does harm.
#include "../test.h"
#include "files.h"
#include "json.h"
#include "template.h"
#include "tokenizer.h"

static const char whole[] =
    "{\"added_tokens\": [{\"id\": 5, \"content\": \"<e>\", \"special\": true, \"normalized\": false},"
    " {\"id\": 4, \"content\": \"<s>\", \"special\": false, \"normalized\": true, \"lstrip\": true}],"
    " \"normalizer\": {\"type\": \"NFC\"},"
    " \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{N}\"},"
    " \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"use_regex\": false}]},"
    " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<e>\", \"type_id\": 0}},"
    " {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"<e>\": {\"ids\": [5]}}},"
    " \"decoder\": {\"type\": \"ByteLevel\"},"
    " \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": 3}, \"merges\": [[\"a\", \"b\"]]}}";

typedef struct Folder {
    char path[64];
} Folder;
static Folder make_folder(void) {
    Folder f = {"/tmp/reckon-hostile-XXXXXX"};
    CHECK(mkdtemp(f.path));
    return f;
}
static void remove_folder(const Folder *f) {
    Err err = {0};
    OK(folder_remove(f->path, &err));
}
// Not atomic_write: no sync, these are thousands.
static void write_file(const Folder *f, const char *name, const char *data, size_t size) {
    char *path = path_join(f->path, name);
    FILE *out = fopen(path, "wb");
    CHECK(out && fwrite(data, 1, size, out) == size && fclose(out) == 0);
    free(path);
}
static char *replaced(const char *from, const char *to) {
    const char *hit = strstr(whole, from);
    if (!hit) FAIL("'%s' is not in the tokenizer", from);
    return xasprintf("%.*s%s%s", (int)(hit - whole), whole, to, hit + strlen(from));
}

static void the_whole_one_opens(void) {
    Err err = {0};
    Folder f = make_folder();
    Tokenizer *t;
    write_file(&f, "tokenizer.json", whole, strlen(whole));
    OK(tokenizer_open(f.path, &t, &err));
    Ids ids = {0};
    OK(tokenizer_encode(t, "abc  <s>ba<e>", 13, true, &ids, &err));
    static const int32_t want[] = {5, 2, 3, 4, 1, 0, 5}; // bytes without a token give nothing
    CHECK_INT(ids.count, COUNT(want));
    for (int i = 0; i < COUNT(want); i++) CHECK_INT(ids.data[i], want[i]);
    Buf text = {0};
    int32_t outside = 6, negative = -1;
    CHECK(!tokenizer_decode(t, &outside, 1, false, &text, &err) && strstr(err.msg, "ids[0] is 6, expected 0 to 5"));
    CHECK(!tokenizer_decode(t, &negative, 1, false, &text, &err) && err.code == ERR_DATA);
    TokenStream *s = token_stream_open(t);
    bool ready;
    CHECK(!token_stream_push(s, 6, &ready, &text, &err) && strstr(err.msg, "found the id 6, expected 0 to 5"));
    token_stream_close(s);
    buf_free(&text);
    ids_free(&ids);
    tokenizer_close(t);
    remove_folder(&f);
}

static void malformed_tokenizers(void) {
    static const struct {
        const char *from, *to, *where, *msg;
    } cases[] = {
        {"\"BPE\"", "\"Unigram\"", "model.vocab", "expected a list"},
        {"\"BPE\"", "\"Words\"", "model.type", "found 'Words', which is not supported; expected BPE, Unigram"},
        {"\"BPE\",", "\"BPE\", \"dropout\": 0.1,", "model.dropout", "expected null"},
        {"\"BPE\",", "\"BPE\", \"continuing_subword_prefix\": \"##\",", "model.merges[0]", "the whole is not in the vocabulary"},
        {"\"BPE\",", "\"BPE\", \"unk_token\": \"<u>\",", "model.unk_token", "'<u>' is not in the vocabulary"},
        {"[[\"a\", \"b\"]]", "[[\"a\", \"c\"]]", "model.merges[0]", "the whole is not in the vocabulary"},
        {"[[\"a\", \"b\"]]", "[[\"x\", \"b\"]]", "model.merges[0]", "the first is not in the vocabulary"},
        {"[[\"a\", \"b\"]]", "[\"a b\", \"a x\"]", "model.merges[1]", "the second is not in the vocabulary"},
        {"[[\"a\", \"b\"]]", "[\"a b c\"]", "model.merges[0]", "expected two tokens and one space"},
        {"[[\"a\", \"b\"]]", "[\"ab\"]", "model.merges[0]", "expected two tokens and one space"},
        {"[[\"a\", \"b\"]]", "[[\"a\", \"b\", \"c\"]]", "model.merges[0]", "expected two tokens"},
        {"[[\"a\", \"b\"]]", "[[\"a\", 1]]", "model.merges[0]", "expected two tokens"},
        {"[[\"a\", \"b\"]]", "{}", "model.merges", "expected a list"},
        {"\"c\": 3", "\"c\": 2", "model.vocab", "id 2 belongs to two tokens"},
        {"\"c\": 3", "\"c\": -1", "model.vocab['c']", "an id out of range"},
        {"\"c\": 3", "\"c\": 4194304", "model.vocab['c']", "expected an id from 0 to 4194303"},
        {"\"c\": 3", "\"c\": 4194303", "model.vocab", "expected fewer gaps"},
        {"\"c\": 3", "\"c\": 99999999999999999", "model.vocab['c']", "an id out of range"},
        {"\"c\": 3", "\"c\": 1.5", "model.vocab['c']", "no integer"},
        {"\"c\": 3", "\"c\": \"3\"", "model.vocab['c']", "no integer"},
        {"\"c\": 3", "\"a\": 3", "tokenizer.json:1:", "duplicate object key"},
        {"\"id\": 5", "\"id\": 3", "added_tokens[0]", "id 3 belongs to two tokens, 'c' and '<e>'"},
        {"\"id\": 5", "\"id\": 1000000000", "added_tokens[0].id", "an id out of range"},
        {"\"content\": \"<e>\"", "\"content\": \"c\"", "added_tokens[0]", "'c' has the id 5, but 3"},
        {"\"content\": \"<e>\"", "\"content\": 7", "added_tokens[0].content", "expected a text"},
        {"\"content\": \"<e>\"", "\"content\": \"<s>\"", "added_tokens", "has two ids"},
        {"\"NFC\"", "\"NFX\"", "normalizer", "found NFX, which is not supported; supported are NFC"},
        {"\"NFC\"", "\"Replace\"", "normalizer", "expected a pattern"},
        {"\"NFC\"", "\"Prepend\"", "normalizer", "lacks a text 'prepend'"},
        {"\"NFC\"", "\"Precompiled\", \"precompiled_charsmap\": \"AAAA!\"", "normalizer", "is not base64"},
        {"\"NFC\"", "\"Precompiled\", \"precompiled_charsmap\": \"/////w==\"", "normalizer", "expected more than its trie"},
        {"\"\\\\p{N}\"", "\"[a\"", "pre_tokenizer.pretokenizers[0]", "found a class without ]"},
        {"\"\\\\p{N}\"", "\"(a\"", "pre_tokenizer.pretokenizers[0]", "is not supported: missing closing parenthesis"},
        {"\"\\\\p{N}\"", "\"a)\"", "pre_tokenizer.pretokenizers[0]", "found a ) too many"},
        {"\"\\\\p{N}\"", "\"\\\\qa\"", "pre_tokenizer.pretokenizers[0]", "found an unknown escape"},
        {"\"\\\\p{N}\"", "\"\\\\p{Xyz}\"", "pre_tokenizer.pretokenizers[0]", "unknown property"},
        {"\"\\\\p{N}\"", "\"[a&&b]\"", "pre_tokenizer.pretokenizers[0]", "an intersection of classes"},
        {"\"Isolated\"", "\"Remove\"", "pre_tokenizer.pretokenizers[0]", "behavior 'Remove', expected Isolated, Removed"},
        {"\"type\": \"Split\"", "\"type\": \"Scripts\"", "pre_tokenizer.pretokenizers[0]", "found Scripts, which is not supported"},
        {"\"type\": \"Split\"", "\"type\": \"Metaspace\", \"replacement\": \"ab\"", "pre_tokenizer.pretokenizers[0]", "expected one character"},
        {"\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"CTC\"}", "decoder", "found CTC, which is not supported"},
        {"\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"Strip\", \"content\": \"ab\"}", "decoder", "expected one character as 'content'"},
        {"\"TemplateProcessing\"", "\"RobertaProcessing\"", "post_processor.cls", "expected a text and the id of a token"},
        {"\"TemplateProcessing\"", "\"Processing\"", "post_processor", "found Processing, which is not supported"},
        {"\"ids\": [5]", "\"ids\": [6]", "post_processor.special_tokens", "'<e>' has the id 6, which no token has"},
        {"\"ids\": [5]", "\"ids\": []", "post_processor.special_tokens", "lacks '<e>'"},
        {"\"id\": \"A\"", "\"id\": \"B\"", "post_processor.single[1]", "expected a SpecialToken or the Sequence A"},
        {"{\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": 3}", "[]", "model.vocab", "expected an object"},
        {"}]},", "}]", "tokenizer.json:1:", "not valid JSON"},
    };
    Folder f = make_folder();
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Tokenizer *t;
        char *text = replaced(cases[i].from, cases[i].to);
        write_file(&f, "tokenizer.json", text, strlen(text));
        if (tokenizer_open(f.path, &t, &err)) FAIL("case %d (%s) is accepted", i, cases[i].to);
        if (err.code != ERR_DATA || t || !strstr(err.where, cases[i].where) || !strstr(err.msg, cases[i].msg) ||
            !strstr(err.where, "tokenizer.json"))
            FAIL("case %d (%s): got %d '%s: %s', want '%s: %s'", i, cases[i].to, err.code, err.where, err.msg, cases[i].where,
                 cases[i].msg);
        free(text);
    }
    remove_folder(&f);
}

static void malformed_folders(void) {
    Err err = {0};
    Tokenizer *t;
    Folder f = make_folder();
    CHECK(!tokenizer_open("/nonexistent", &t, &err) && err.code == ERR_NOINPUT);
    CHECK(!tokenizer_open(f.path, &t, &err) && err.code == ERR_NOINPUT && strstr(err.msg, "holds no tokenizer.json"));
    write_file(&f, "tokenizer.json", "", 0);
    CHECK(!tokenizer_open(f.path, &t, &err) && err.code == ERR_DATA && strstr(err.msg, "not valid JSON"));
    write_file(&f, "tokenizer.json", "[]", 2);
    CHECK(!tokenizer_open(f.path, &t, &err) && err.code == ERR_DATA && strstr(err.msg, "expected an object"));
    write_file(&f, "tokenizer.json", whole, strlen(whole));
    static const struct {
        const char *config, *where, *msg;
    } cases[] = {
        {"{\"eos_token\": \"</s>\"}", "tokenizer_config.json: eos_token", "'</s>' is not in the vocabulary"},
        {"{\"bos_token\": 7}", "tokenizer_config.json: bos_token", "expected a text"},
        {"{\"chat_template\": 7}", "tokenizer_config.json: chat_template", "expected a text or a list"},
        {"[]", "tokenizer_config.json", "expected an object"},
        {"{\"eos_token\": \"\\ud800\"}", "tokenizer_config.json:1:", "not valid JSON"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        write_file(&f, "tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        if (tokenizer_open(f.path, &t, &err)) FAIL("config %d is accepted", i);
        if (err.code != ERR_DATA || !strstr(err.where, cases[i].where) || !strstr(err.msg, cases[i].msg))
            FAIL("config %d: got '%s: %s'", i, err.where, err.msg);
    }
    write_file(&f, "tokenizer_config.json", "{\"eos_token\": {\"content\": \"<e>\"}}", 33);
    write_file(&f, "chat_template.jinja", "a\xff", 2);
    CHECK(!tokenizer_open(f.path, &t, &err) && strstr(err.where, "chat_template.jinja") && strstr(err.msg, "not UTF-8"));
    // A template that is refused is no reason to refuse the tokenizer, only the chat.
    write_file(&f, "chat_template.jinja", "a\n{% include 'x' %}", 19);
    OK(tokenizer_open(f.path, &t, &err));
    CHECK_INT(tokenizer_eos(t), 5);
    Buf out = {0};
    json_t *messages = json_array();
    CHECK(!tokenizer_chat(t, messages, true, &out, &err) && err.code == ERR_DATA);
    CHECK(strstr(err.where, "chat_template.jinja:2") && strstr(err.msg, "found the tag 'include'"));
    json_decref(messages);
    tokenizer_close(t);
    remove_folder(&f);
}

// Uses what opened: any text in, any ids out.
static void use(const Tokenizer *t) {
    Err err = {0};
    static const char text[] = "ab <s> c1e\u0301<e>\n\U0001F600";
    Ids ids = {0};
    Buf out = {0};
    if (tokenizer_encode(t, text, strlen(text), true, &ids, &err)) OK(tokenizer_decode(t, ids.data, ids.count, true, &out, &err));
    for (int32_t id = 0; id < tokenizer_size(t) && id < 300; id++) OK(tokenizer_decode(t, &id, 1, false, &out, &err));
    ids_free(&ids);
    buf_free(&out);
}

static void mutated_tokenizers(void) {
    static const char *const words[] = {"null", "true", "-1", "1e9", "\"\"", "[]", "{}", "\\u0000", "\xff", "4294967296"};
    Folder f = make_folder();
    int opened = 0;
    Random r = random_start(5, STREAM_TEST, 0);
    for (int i = 0; i < 600; i++) {
        Err err = {0};
        Tokenizer *t;
        Buf text = {0};
        buf_puts(&text, whole);
        for (uint32_t n = 1 + random_below(&r, 3); n > 0; n--) {
            size_t at = random_below(&r, (uint32_t)text.size), keep = random_below(&r, 8);
            Buf next = {0};
            buf_append(&next, text.data, at);
            if (random_below(&r, 2)) buf_puts(&next, words[random_below(&r, COUNT(words))]);
            size_t rest = at + keep < text.size ? at + keep : text.size;
            buf_append(&next, text.data + rest, text.size - rest);
            buf_free(&text);
            text = next;
        }
        write_file(&f, "tokenizer.json", text.data ? text.data : "", text.size);
        if (tokenizer_open(f.path, &t, &err)) {
            opened++;
            use(t);
            tokenizer_close(t);
        } else {
            CHECK(err.code && err.msg[0]);
        }
        buf_free(&text);
    }
    CHECK(opened > 5);
    remove_folder(&f);
}

static void mutated_gguf(void) {
    Err err = {0};
    MappedFile file;
    Folder f = make_folder();
    OK(file_map(TEST_DATA "/models/gguf/tiny-llama.gguf", &file, &err));
    char *path = path_join(f.path, "x.gguf"), *bytes = xmalloc(file.size);
    Random r = random_start(6, STREAM_TEST, 0);
    int opened = 0;
    for (int i = 0; i < 150; i++) {
        Tokenizer *t;
        memcpy(bytes, file.data, file.size);
        for (int k = 0; k < 4; k++) bytes[random_below(&r, 48 << 10) % file.size] = (char)random_below(&r, 256);
        write_file(&f, "x.gguf", bytes, file.size);
        if (tokenizer_open(path, &t, &err)) {
            opened++;
            use(t);
            tokenizer_close(t);
        }
    }
    CHECK(opened > 0);
    free(path), free(bytes);
    file_unmap(&file);
    remove_folder(&f);
}

// A template with bytes changed or cut is refused, or fails, or prints: nothing else.
static void mutated_templates(void) {
    Err err = {0};
    json_t *root, *given, *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    ChatRequest request = {.messages = messages, .bos = "<s>", .eos = "</s>", .add_generation_prompt = true, .now = 0};
    size_t at;
    int rendered = 0;
    OK(json_read_file(TEST_DATA "/templates/chat_templates.json", 1 << 20, &root, &err));
    Random r = random_start(8, STREAM_TEST, 0);
    json_array_foreach(json_object_get(root, "templates"), at, given) {
        const json_t *source = json_object_get(given, "source");
        size_t size = json_string_length(source);
        for (int i = 0; i < 300; i++) {
            char *text = xstrndup(json_string_value(source), random_below(&r, 4) ? size : random_below(&r, (uint32_t)size));
            size_t left = strlen(text);
            for (uint32_t n = 1 + random_below(&r, 4); left && n > 0; n--)
                text[random_below(&r, (uint32_t)left)] = "{}%#-+'\"\\[]() \n~x"[random_below(&r, 18)];
            Template *t;
            TemplateResult result = {0};
            if (template_compile(text, strlen(text), "template", &t, &err)) rendered += chat_render(t, &request, &result, &err);
            template_result_free(&result);
            template_free(t);
            free(text);
        }
    }
    CHECK(rendered > 300);
    json_decref(messages), json_decref(root);
}

// Bytes of any kind: an error at the first byte that isn't UTF-8, otherwise ids that decode to the same text.
static void random_texts(void) {
    static const char *const folders[] = {"gpt2-bytelevel", "llama3-style", "smollm-style"};
    for (int k = 0; k < COUNT(folders); k++) {
        Err err = {0};
        Tokenizer *t;
        char *path = path_join(TEST_DATA "/tokenizers", folders[k]);
        OK(tokenizer_open(path, &t, &err));
        Random r = random_start(7, STREAM_TEST, (uint64_t)k);
        int valid = 0;
        for (int i = 0; i < 3000; i++) {
            Buf text = {0}, back = {0};
            Ids ids = {0};
            for (uint32_t n = random_below(&r, 24); n > 0; n--) {
                static const char *const parts[] = {" ", "\n", "'s", "don't", "\u00e9", "\U0001F600", "12", "\u3000", "\xe4\xb8", "\xff", "\xc0\x80", "\xed\xa0\x80"};
                uint32_t which = random_below(&r, 40);
                char byte = (char)random_below(&r, 128);
                if (which < COUNT(parts))
                    buf_puts(&text, parts[which]);
                else
                    buf_append(&text, &byte, 1);
            }
            if (!text.data) buf_puts(&text, "");
            if (tokenizer_encode(t, text.data, text.size, false, &ids, &err)) {
                valid++;
                OK(tokenizer_decode(t, ids.data, ids.count, false, &back, &err));
                if (back.size != text.size || (text.size && memcmp(back.data, text.data, text.size) != 0))
                    FAIL("'%s' comes back as '%s'", text.data, back.data);
            } else if (!strstr(err.msg, "not UTF-8 at byte")) {
                FAIL("'%s': %s", text.data, err.msg);
            }
            buf_free(&text), buf_free(&back);
            ids_free(&ids);
        }
        CHECK(valid > 500 && valid < 2900);
        free(path);
        tokenizer_close(t);
    }
}

// What looks like a byte and isn't one is text: so decoded by the `tokenizers` package too.
static void tokens_that_look_like_bytes(void) {
    static const struct { const char *token, *decoded; } tokens[] = {
        {"<0x41>", "A"}, {"<0x4a>", "J"}, {"<0x-1>", "<0x-1>"}, {"<0x+1>", "\x01"}, {"<0xg1>", "<0xg1>"}, {"<0x 1>", "<0x 1>"}, {"<0x100>", "<0x100>"}, {"<0x4>", "<0x4>"},
        {"<0xe>>", "<0xe>>"}, {"<0x\xD9\xA3>", "<0x\xD9\xA3>"}, {"<0xFF>", "\xEF\xBF\xBD"}, {"<0x", "<0x"}, {"a", "a"}};
    Err err = {0};
    Folder f = make_folder();
    Buf json = {0}, text = {0};
    Tokenizer *t;
    buf_puts(&json, "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}, \"added_tokens\": [],"
                    " \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"unk_token\": \"a\", \"merges\": [], \"vocab\": {");
    for (int i = 0; i < COUNT(tokens); i++) buf_printf(&json, "%s\"%s\": %d", i ? ", " : "", tokens[i].token, i);
    buf_puts(&json, "}}}");
    write_file(&f, "tokenizer.json", json.data, json.size);
    OK(tokenizer_open(f.path, &t, &err));
    for (int32_t i = 0; i < COUNT(tokens); i++) {
        text.size = 0;
        OK(tokenizer_decode(t, &i, 1, false, &text, &err));
        CHECK_STR(text.data, tokens[i].decoded);
    }
    Ids ids = {0};
    OK(tokenizer_encode(t, "A\x01J", 3, false, &ids, &err));
    CHECK(ids.count == 3 && ids.data[0] == 0 && ids.data[1] == 12 && ids.data[2] == 12); // <0x01> and <0x4A> aren't written so
    ids_free(&ids);
    buf_free(&json), buf_free(&text);
    tokenizer_close(t);
    remove_folder(&f);
}

static const Test tests[] = {
    {"tokens_that_look_like_bytes", tokens_that_look_like_bytes},
    {"the_whole_one_opens", the_whole_one_opens},
    {"malformed_tokenizers", malformed_tokenizers},
    {"malformed_folders", malformed_folders},
    {"mutated_tokenizers", mutated_tokenizers},
    {"mutated_gguf", mutated_gguf},
    {"mutated_templates", mutated_templates},
    {"random_texts", random_texts},
};
TEST_MAIN(tests)
