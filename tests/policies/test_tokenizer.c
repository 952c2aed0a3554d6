// Tokenizers against the `tokenizers` package: ids, texts and streamed pieces, all equal. Chat prompts against Jinja.
// Vocabularies out of GGUF, character vocabularies, and what is written when one is saved.
#include "../test.h"
#include "files.h"
#include "json.h"
#include "tokenizer_parts.h"

#define DATA TEST_DATA "/tokenizers/"
#define SMOLLM2 TEST_DATA "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf"

static json_t *read_json(const char *path) {
    Err err = {0};
    json_t *root;
    OK(json_read_file(path, 16 << 20, &root, &err));
    return root;
}
static Tokenizer *open_tokenizer(const char *path) {
    Err err = {0};
    Tokenizer *t;
    OK(tokenizer_open(path, &t, &err));
    return t;
}
static Ids ids_of(const json_t *list) {
    Ids ids = {0};
    for (size_t i = 0; i < json_array_size(list); i++) ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i)));
    return ids;
}

static void check_ids(const Tokenizer *t, const char *text, size_t size, bool special, const json_t *want, const char *what) {
    Err err = {0};
    Ids got = {0}, expected = ids_of(want);
    OK(tokenizer_encode(t, text, size, special, &got, &err));
    for (int32_t i = 0; i < got.count && i < expected.count; i++)
        if (got.data[i] != expected.data[i])
            FAIL("%s: id %d of '%.80s' is %d, want %d", what, i, text, got.data[i], expected.data[i]);
    if (got.count != expected.count) FAIL("%s: '%.80s' has %d ids, want %d", what, text, got.count, expected.count);
    ids_free(&got), ids_free(&expected);
}
static void check_text(const Tokenizer *t, const Ids *ids, bool skip, const json_t *want, const char *what) {
    Err err = {0};
    Buf got = {0};
    OK(tokenizer_decode(t, ids->data, ids->count, skip, &got, &err));
    if (got.size != json_string_length(want) || (got.size && memcmp(got.data, json_string_value(want), got.size) != 0))
        FAIL("%s: decoded '%.100s', want '%.100s'", what, got.data, json_string_value(want));
    buf_free(&got);
}
static void check_stream(const Tokenizer *t, const json_t *c, const char *what) {
    Err err = {0};
    Ids ids = ids_of(json_object_get(c, "ids"));
    Buf piece = {0};
    TokenStream *s = token_stream_open(t);
    for (int32_t i = 0; i < ids.count; i++) {
        const json_t *want = json_array_get(json_object_get(c, "pieces"), (size_t)i);
        bool ready;
        OK(token_stream_push(s, ids.data[i], &ready, &piece, &err));
        if (ready != json_is_string(want)) FAIL("%s: piece %d is %s", what, i, ready ? "there too early" : "missing");
        if (ready && (piece.size != json_string_length(want) || memcmp(piece.data, json_string_value(want), piece.size)))
            FAIL("%s: piece %d is '%.60s', want '%.60s'", what, i, piece.data, json_string_value(want));
    }
    token_stream_close(s);
    buf_free(&piece);
    ids_free(&ids);
}

// All cases of tokenizers/NAME with the tokenizer in `folder`.
static void check_cases(const char *folder, const char *name, size_t at_least) {
    char path[512];
    snprintf(path, sizeof path, DATA "%s/cases.json", name);
    json_t *root = read_json(path), *c;
    Tokenizer *t = open_tokenizer(folder);
    CHECK_INT(tokenizer_size(t), json_integer_value(json_object_get(root, "vocab_size")));
    size_t i, checked = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
        const json_t *with = json_object_get(c, "ids_with_special");
        const char *note = json_string_value(json_object_get(c, "note"));
        Ids list = ids_of(ids);
        check_ids(t, json_string_value(text), json_string_length(text), false, ids, note);
        check_ids(t, json_string_value(text), json_string_length(text), true, with ? with : ids, note);
        check_text(t, &list, false, json_object_get(c, "decoded"), note);
        check_text(t, &list, true, json_object_get(c, "decoded_skip"), note);
        ids_free(&list);
        checked++;
    }
    json_array_foreach(json_object_get(root, "decode_cases"), i, c) {
        Ids list = ids_of(json_object_get(c, "ids"));
        check_text(t, &list, false, json_object_get(c, "decoded"), "decode_cases");
        check_text(t, &list, true, json_object_get(c, "decoded_skip"), "decode_cases");
        ids_free(&list);
        checked++;
    }
    json_array_foreach(json_object_get(root, "stream_cases"), i, c) {
        check_stream(t, c, json_string_value(json_object_get(c, "note")));
        checked++;
    }
    CHECK(checked >= at_least);
    tokenizer_close(t);
    json_decref(root);
}
static void gpt2_cases(void) { check_cases(DATA "gpt2-bytelevel", "gpt2-bytelevel", 233); }
static void qwen2_cases(void) { check_cases(DATA "qwen2-style", "qwen2-style", 221); }
static void llama3_cases(void) { check_cases(DATA "llama3-style", "llama3-style", 223); }
static void smollm_cases(void) { check_cases(DATA "smollm-style", "smollm-style", 221); }
static void deepseek_cases(void) { check_cases(DATA "deepseek-style", "deepseek-style", 220); }
static void gemma_cases(void) { check_cases(DATA "gemma-bpe", "gemma-bpe", 220); }
static void llama2_cases(void) { check_cases(DATA "llama2-bpe", "llama2-bpe", 210); }
static void unigram_cases(void) { check_cases(DATA "unigram-nfkc", "unigram-nfkc", 220); }

// Small tokenizers of every kind and option, made with the `tokenizers` package.
static void check_kind(const json_t *kind) {
    Err err = {0};
    char folder[] = "/tmp/reckon-tokenizer-XXXXXX";
    const char *name = json_string_value(json_object_get(kind, "name"));
    CHECK(mkdtemp(folder));
    char *path = path_join(folder, "tokenizer.json"), *text = json_dumps(json_object_get(kind, "tokenizer"), JSON_COMPACT);
    OK(file_write_atomic(path, text, strlen(text), &err));
    Tokenizer *t = open_tokenizer(folder);
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(kind, "cases"), i, c) {
        const json_t *input = json_array_get(c, 0);
        check_ids(t, json_string_value(input), json_string_length(input), false, json_array_get(c, 1), name);
        check_ids(t, json_string_value(input), json_string_length(input), true, json_array_get(c, 2), name);
    }
    json_array_foreach(json_object_get(kind, "decode"), i, c) {
        Ids ids = ids_of(json_array_get(c, 0));
        check_text(t, &ids, false, json_array_get(c, 1), name);
        check_text(t, &ids, true, json_array_get(c, 2), name);
        ids_free(&ids);
    }
    json_array_foreach(json_object_get(kind, "stream"), i, c) {
        json_t *one = json_pack("{s:O, s:O}", "ids", json_array_get(c, 0), "pieces", json_array_get(c, 1));
        check_stream(t, one, name);
        json_decref(one);
    }
    tokenizer_close(t);
    OK(folder_remove(folder, &err));
    free(path), free(text);
}
static void every_kind(void) {
    json_t *root = read_json(DATA "kinds.json"), *kinds = json_object_get(root, "tokenizers"), *kind;
    size_t i;
    CHECK(json_array_size(kinds) >= 18);
    json_array_foreach(kinds, i, kind) check_kind(kind);
    json_decref(root);
}

static void special_tokens(void) {
    Tokenizer *t = open_tokenizer(DATA "qwen2-style");
    CHECK_INT(tokenizer_eos(t), 1002);
    CHECK_INT(tokenizer_id(t, "<think>"), 1003);
    CHECK_INT(tokenizer_id(t, "no such token"), -1);
    CHECK(tokenizer_has_chat(t));
    tokenizer_close(t);
    t = open_tokenizer(DATA "gpt2-bytelevel");
    CHECK(!tokenizer_has_chat(t));
    tokenizer_close(t);
}

// ---- patterns ------------------------------------------------------------------------------------------------
// The pieces of a text, joined by '|'.
static bool join_piece(void *context, const char *piece, size_t size) {
    Buf *out = context;
    if (out->size) buf_puts(out, "|");
    buf_append(out, piece, size);
    return true;
}
static Pretokenizer read_pretokenizer(const char *text) {
    Err err = {0};
    json_t *json;
    Pretokenizer p;
    OK(json_parse(text, strlen(text), "test", 1, &json, &err));
    OK(pretokenizer_from_json(json, "test", &p, &err));
    json_decref(json);
    return p;
}
static void check_pieces(const char *gguf_name, const char *text, const char *want) {
    Err err = {0};
    GgufPre named;
    Buf got = {0};
    PreScratch scratch = {.err = &err};
    OK(gguf_pre_find(gguf_name, "test", &named, &err));
    Pretokenizer p = read_pretokenizer(named.pre_tokenizer);
    OK(pretokenize(&p, (Stretch){text, strlen(text), true}, &scratch, join_piece, &got));
    if (strcmp(got.data, want) != 0) FAIL("%s: '%s' gives '%s', want '%s'", gguf_name, text, got.data, want);
    pre_scratch_free(&scratch);
    pretokenizer_free(&p);
    buf_free(&got);
}
static void patterns(void) {
    check_pieces("gpt-2", "I'll say 'Tis  12345\n\n x", "I|'ll| say| '|Tis| | 12345|\n\n| x");
    check_pieces("gpt-2", "a\u00a0\u3000b \u00b2\u0663!?  ", "a|\u00a0|\u3000|b| \u00b2\u0663|!?|  ");
    check_pieces("smollm", "x 12 3", "x| |1|2| |3");
    check_pieces("llama-bpe", "I'LL 'ſo 1234567\r\n \n  y_z (a)", "I|'LL| '|ſo| |123|456|7|\r\n \n| | y|_z| (|a|)");
    check_pieces("llama-bpe", "it'ſ ok!!\n\nx", "it|'ſ| ok|!!\n\n|x");
    check_pieces("qwen2", " 12\t\ta", " |1|2|\t|\ta");
    check_pieces("default", "n=1234567 don't", "n|=|123|456|7| don|'|t");
}

static void normal_form_c(void) {
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"e\u0301", "\u00e9"},
        {"\u1112\u1161\u11ab", "\ud55c"},
        {"a\u0301\u0323", "\u1ea1\u0301"}, // marks are put in canonical order first
        {"\u212b", "\u00c5"},
        {"\u0958", "\u0915\u093c"}, // excluded from composition
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Buf out = {0};
        unicode_normalize(FORM_C, cases[i][0], strlen(cases[i][0]), &out);
        CHECK_STR(out.data, cases[i][1]);
        buf_free(&out);
    }
    // A long run of marks in the worst order must not take quadratic time.
    Buf marks = {0}, out = {0};
    buf_puts(&marks, "a");
    for (int i = 0; i < 200000; i++) buf_puts(&marks, i % 2 ? "\u0323" : "\u0301");
    unicode_normalize(FORM_C, marks.data, marks.size, &out);
    CHECK(out.size > 2 && memcmp(out.data, "\u1ea1\u0323", 5) == 0);
    buf_free(&marks), buf_free(&out);
}

// A word of 600,000 bytes costs about what as many bytes of words cost, whatever the kind: a quadratic way would take
// minutes.
static void long_word(const char *name, const char *unit) {
    Err err = {0};
    char *path = path_join(DATA, name);
    Tokenizer *t = open_tokenizer(path);
    Buf text = {0}, back = {0};
    while (text.size < 600000) buf_puts(&text, unit);
    Ids ids = {0};
    double start = clock_cpu_seconds();
    OK(tokenizer_encode(t, text.data, text.size, false, &ids, &err));
    if (clock_cpu_seconds() - start > 20) FAIL("%s: '%s' repeated takes %.0f s", name, unit, clock_cpu_seconds() - start);
    OK(tokenizer_decode(t, ids.data, ids.count, false, &back, &err));
    if (back.size != text.size || memcmp(back.data, text.data, text.size) != 0) FAIL("%s: '%s' repeated comes back changed", name, unit);
    ids_free(&ids);
    buf_free(&text), buf_free(&back);
    tokenizer_close(t);
    free(path);
}
static void long_words(void) {
    static const char *const names[] = {"gpt2-bytelevel", "llama2-bpe", "deepseek-style"};
    static const char *const units[] = {"ae", "\u00e9\u6f22", "x \t"};
    for (int i = 0; i < COUNT(names); i++)
        for (int k = 0; k < COUNT(units); k++) long_word(names[i], units[k]);
    long_word("unigram-nfkc", "ae");
}

// ---- GGUF ----------------------------------------------------------------------------------------------------
// `folder` is removed at the end; the copy is opened again and must give the same.
static Tokenizer *saved_copy(const Tokenizer *t) {
    Err err = {0};
    char folder[] = "/tmp/reckon-tokenizer-XXXXXX", first[65], second[65];
    CHECK(mkdtemp(folder));
    OK(tokenizer_save(t, folder, &err));
    Tokenizer *copy = open_tokenizer(folder);
    tokenizer_hash(t, first);
    tokenizer_hash(copy, second);
    CHECK_STR(second, first);
    CHECK_INT(tokenizer_size(copy), tokenizer_size(t));
    CHECK_INT(tokenizer_eos(copy), tokenizer_eos(t));
    OK(folder_remove(folder, &err));
    return copy;
}

static void gguf_tiny(void) {
    json_t *root = read_json(TEST_DATA "/models/gguf/expected.json"), *file, *s;
    Tokenizer *t = open_tokenizer(TEST_DATA "/models/gguf/tiny-llama.gguf");
    size_t i, k, checked = 0;
    json_array_foreach(json_object_get(root, "files"), i, file) json_array_foreach(json_object_get(file, "sequences"), k, s) {
        const json_t *text = json_object_get(s, "text");
        check_ids(t, json_string_value(text), json_string_length(text), false, json_object_get(s, "ids"), "tiny-llama");
        checked++;
    }
    CHECK(checked > 0);
    CHECK_INT(tokenizer_eos(t), 1001);
    tokenizer_close(t);
    json_decref(root);
}

// SentencePiece's vocabulary in a GGUF file gives what its tokenizer.json gives.
static void gguf_pieces(void) {
    json_t *root = read_json(DATA "llama2-bpe/cases.json"), *c;
    Tokenizer *t = open_tokenizer(DATA "llama2-pieces.gguf");
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text");
        Ids ids = ids_of(json_object_get(c, "ids"));
        check_ids(t, json_string_value(text), json_string_length(text), false, json_object_get(c, "ids"), "pieces");
        check_ids(t, json_string_value(text), json_string_length(text), true, json_object_get(c, "ids_with_special"), "pieces");
        check_text(t, &ids, false, json_object_get(c, "decoded"), "pieces");
        check_text(t, &ids, true, json_object_get(c, "decoded_skip"), "pieces");
        ids_free(&ids);
    }
    CHECK(i > 150);
    Tokenizer *copy = saved_copy(t);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text");
        check_ids(copy, json_string_value(text), json_string_length(text), true, json_object_get(c, "ids_with_special"), "saved");
    }
    tokenizer_close(copy);
    tokenizer_close(t);
    json_decref(root);
}
static void gguf_names(void) {
    Err err = {0};
    GgufPre pre;
    CHECK(!gguf_pre_find("qwen9", "x.gguf", &pre, &err) && err.code == ERR_DATA && strstr(err.where, "x.gguf: tokenizer.ggml.pre"));
    CHECK(strstr(err.msg, "found 'qwen9'; supported are gpt-2, default, smollm, llama-bpe"));
    static const char *const known[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3", "tekken", "gpt-4o", "llama4", "bloom", "viking",
                                        "falcon", "command-r", "qwen35"};
    for (int i = 0; i < COUNT(known); i++) {
        OK(gguf_pre_find(known[i], "x.gguf", &pre, &err));
        Pretokenizer p = read_pretokenizer(pre.pre_tokenizer);
        CHECK(p.bytes);
        pretokenizer_free(&p);
    }
}

static void smollm2_texts(void) {
    if (!file_exists(SMOLLM2)) SKIP("models/SmolLM2-135M-Instruct.Q4_1.gguf is not there (scripts/get-model smollm2-135m)");
    Tokenizer *t = open_tokenizer(SMOLLM2);
    json_t *root = read_json(DATA "smollm2-135m-texts.json"), *c;
    size_t i;
    CHECK_INT(json_array_size(json_object_get(root, "cases")), 200);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text");
        check_ids(t, json_string_value(text), json_string_length(text), false, json_object_get(c, "ids"), "smollm2");
    }
    json_decref(root);
    tokenizer_close(t);
}
static void smollm2_prompts(void) {
    if (!file_exists(SMOLLM2)) SKIP("models/SmolLM2-135M-Instruct.Q4_1.gguf is not there (scripts/get-model smollm2-135m)");
    Err err = {0};
    Tokenizer *t = open_tokenizer(SMOLLM2);
    json_t *root = read_json(DATA "smollm2-135m-prompts.json"), *p;
    size_t i;
    json_array_foreach(json_object_get(root, "prompts"), i, p) {
        const json_t *text = json_object_get(p, "text"), *messages = json_object_get(p, "messages");
        check_ids(t, json_string_value(text), json_string_length(text), false, json_object_get(p, "ids"), "prompt");
        if (!messages) continue;
        Buf prompt = {0};
        OK(tokenizer_chat(t, messages, true, &prompt, &err));
        CHECK_STR(prompt.data, json_string_value(text));
        buf_free(&prompt);
    }
    CHECK_INT(tokenizer_eos(t), 2);
    json_decref(root);
    tokenizer_close(t);
}

// ---- chat ------------------------------------------------------------------------------------------------------
static void chat_errors(void) {
    Err err = {0};
    Buf out = {0};
    Tokenizer *t = open_tokenizer(DATA "qwen2-style");
    json_t *bad = json_pack("[{s:s, s:s}, {s:s}]", "role", "user", "content", "hi", "role", "user");
    CHECK(!tokenizer_chat(t, bad, true, &out, &err) && err.code == ERR_DATA && strstr(err.msg, "'dict object' has no attribute 'content'"));
    json_t *text = json_string("hi");
    CHECK(!tokenizer_chat(t, text, true, &out, &err) && strstr(err.msg, "not a list"));
    tokenizer_close(t);
    t = open_tokenizer(DATA "gpt2-bytelevel");
    CHECK(!tokenizer_chat(t, bad, true, &out, &err) && err.code == ERR_DATA && strstr(err.msg, "no chat template"));
    tokenizer_close(t);
    json_decref(bad), json_decref(text);
    buf_free(&out);
}

// ---- character vocabularies and saving -------------------------------------------------------------------------
static void check_characters(const Tokenizer *t) {
    Err err = {0};
    static const char text[] = "<think>12+é Ġ=\n日</think>3<eos>";
    static const int32_t want[] = {1, 4, 5, 6, 7, 8, 9, 10, 12, 11, 2, 3, 0};
    Ids ids = {0};
    OK(tokenizer_encode(t, text, strlen(text), true, &ids, &err));
    CHECK_INT(ids.count, COUNT(want));
    for (int i = 0; i < COUNT(want); i++) CHECK_INT(ids.data[i], want[i]);
    Buf back = {0};
    OK(tokenizer_decode(t, ids.data, ids.count, false, &back, &err));
    CHECK_STR(back.data, text);
    back.size = 0;
    OK(tokenizer_decode(t, ids.data, ids.count, true, &back, &err));
    CHECK_STR(back.data, "<think>12+é Ġ=\n日</think>3");
    ids.count = 0;
    CHECK(!tokenizer_encode(t, "12x", 3, false, &ids, &err));
    CHECK(err.code == ERR_DATA && strstr(err.msg, "'x' (U+0078) at byte 2 is not in the vocabulary"));
    CHECK(!tokenizer_encode(t, "1è", 3, false, &ids, &err) && strstr(err.msg, "'è' (U+00E8) at byte 1"));
    ids_free(&ids);
    buf_free(&back);
}
static void characters(void) {
    Err err = {0};
    Tokenizer *t;
    OK(tokenizer_from_characters("312+é Ġ=日\n", &t, &err));
    CHECK_INT(tokenizer_size(t), 13);
    CHECK_INT(tokenizer_eos(t), 0);
    CHECK_INT(tokenizer_id(t, "</think>"), 2);
    check_characters(t);
    Tokenizer *copy = saved_copy(t);
    check_characters(copy);
    tokenizer_close(copy);
    tokenizer_close(t);
    CHECK(!tokenizer_from_characters("abca", &t, &err) && !t && strstr(err.msg, "'a' is there twice"));
    CHECK(!tokenizer_from_characters("", &t, &err) && strstr(err.msg, "empty"));
    CHECK(!tokenizer_from_characters("a\xff", &t, &err) && strstr(err.msg, "not UTF-8 at byte 1"));
}

static void save_from_gguf(void) {
    Tokenizer *t = open_tokenizer(TEST_DATA "/models/gguf/tiny-llama.gguf"), *copy = saved_copy(t);
    json_t *root = read_json(DATA "gpt2-bytelevel/cases.json"), *c;
    size_t i;
    Err err = {0};
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *text = json_object_get(c, "text");
        Ids a = {0}, b = {0};
        OK(tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &a, &err));
        OK(tokenizer_encode(copy, json_string_value(text), json_string_length(text), true, &b, &err));
        CHECK_INT(a.count, b.count);
        CHECK(a.count == 0 || memcmp(a.data, b.data, (size_t)a.count * sizeof *a.data) == 0);
        ids_free(&a), ids_free(&b);
    }
    json_decref(root);
    tokenizer_close(copy);
    tokenizer_close(t);
}

// What would be written had nothing been carried over, for every kind of tokenizer: it passes the same cases.
static void rebuilt_files(void) {
    static const char *const names[] = {"gpt2-bytelevel", "qwen2-style", "llama3-style", "smollm-style", "deepseek-style", "gemma-bpe", "llama2-bpe"};
    for (int i = 0; i < COUNT(names); i++) {
        Err err = {0};
        char folder[] = "/tmp/reckon-tokenizer-XXXXXX", *path = path_join(DATA, names[i]);
        CHECK(mkdtemp(folder));
        Tokenizer *t = open_tokenizer(path);
        TokenizerFile files[TOKENIZER_FILES];
        tokenizer_build_files(t, files);
        for (int k = 0; k < TOKENIZER_FILES; k++) {
            if (!files[k].data.data) continue;
            char *to = path_join(folder, files[k].name);
            OK(file_write_atomic(to, files[k].data.data, files[k].data.size, &err));
            buf_free(&files[k].data);
            free(to);
        }
        check_cases(folder, names[i], 200);
        OK(folder_remove(folder, &err));
        tokenizer_close(t);
        free(path);
    }
}

static void save_carries_over(void) {
    Err err = {0};
    char folder[] = "/tmp/reckon-tokenizer-XXXXXX";
    CHECK(mkdtemp(folder));
    Tokenizer *t = open_tokenizer(DATA "smollm-style");
    OK(tokenizer_save(t, folder, &err));
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    for (int i = 0; i < COUNT(names); i++) {
        char *from = path_join(DATA "smollm-style", names[i]), *to = path_join(folder, names[i]), a[65], b[65];
        OK(sha256_file(from, a, &err));
        OK(sha256_file(to, b, &err));
        CHECK_STR(b, a);
        free(from), free(to);
    }
    check_cases(folder, "smollm-style", 221);
    tokenizer_close(t);
    OK(folder_remove(folder, &err));
}

static const Test tests[] = {
    {"gpt2_cases", gpt2_cases},
    {"qwen2_cases", qwen2_cases},
    {"llama3_cases", llama3_cases},
    {"smollm_cases", smollm_cases},
    {"deepseek_cases", deepseek_cases},
    {"gemma_cases", gemma_cases},
    {"llama2_cases", llama2_cases},
    {"unigram_cases", unigram_cases},
    {"every_kind", every_kind},
    {"special_tokens", special_tokens},
    {"patterns", patterns},
    {"normal_form_c", normal_form_c},
    {"long_words", long_words},
    {"gguf_tiny", gguf_tiny},
    {"gguf_pieces", gguf_pieces},
    {"gguf_names", gguf_names},
    {"smollm2_texts", smollm2_texts},
    {"smollm2_prompts", smollm2_prompts},
    {"chat_errors", chat_errors},
    {"characters", characters},
    {"save_from_gguf", save_from_gguf},
    {"rebuilt_files", rebuilt_files},
    {"save_carries_over", save_carries_over},
};
TEST_MAIN(tests)
