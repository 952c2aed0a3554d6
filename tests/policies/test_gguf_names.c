// Names of pre-tokenizers in GGUF files: what a tokenizer.json says finds the first name that stands for the same, and what has
// none finds none.
#include "../test.h"
#include "tokenizer_parts.h"

static void there_and_back(void) {
    Buf list = {0};
    int count = 0;
    gguf_pre_list(&list);
    for (char *name = strtok(list.data, ", "); name; name = strtok(NULL, ", "), count++) {
        Err err = {0};
        GgufPre want, got;
        OK(gguf_pre_find(name, "test", &want, &err));
        json_t *pre = json_loads(want.pre_tokenizer, 0, NULL), *normalizer = want.normalizer ? json_loads(want.normalizer, 0, NULL) : json_object();
        const char *found = gguf_pre_name(pre, want.normalizer ? normalizer : NULL, want.ignore_merges);
        if (!found) FAIL("%s has no name", name);
        OK(gguf_pre_find(found, "test", &got, &err));
        CHECK_STR(got.pre_tokenizer, want.pre_tokenizer);
        CHECK((got.normalizer != NULL) == (want.normalizer != NULL) && got.ignore_merges == want.ignore_merges);
        json_object_set_new(normalizer, "type", json_string("Lowercase"));
        CHECK(!gguf_pre_name(pre, normalizer, want.ignore_merges));
        json_decref(pre), json_decref(normalizer);
    }
    CHECK(count > 30);
    buf_free(&list);
}
static void of_published_files(void) {
    static const struct {
        const char *folder, *name;
    } cases[] = {{"deepseek-style", "deepseek-v3"}, {"llama3-style", "llama-bpe"}, {"qwen2-style", "qwen2"}, {"smollm-style", "smollm"}, {"gpt2-bytelevel", "gpt-2"},
                 {"unigram-nfkc", NULL}};
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        json_t *root;
        char path[256];
        snprintf(path, sizeof path, "%s/tokenizers/%s/tokenizer.json", TEST_DATA, cases[i].folder);
        OK(json_read_file(path, 1 << 24, &root, &err));
        const char *got = gguf_pre_name(json_object_get(root, "pre_tokenizer"), json_object_get(root, "normalizer"),
                                        json_is_true(json_object_get(json_object_get(root, "model"), "ignore_merges")));
        CHECK_STR(got ? got : "none", cases[i].name ? cases[i].name : "none");
        json_decref(root);
    }
}

static const Test tests[] = {
    {"names of pre-tokenizers: there and back", there_and_back},
    {"names of pre-tokenizers: published files", of_published_files},
};
TEST_MAIN(tests)
