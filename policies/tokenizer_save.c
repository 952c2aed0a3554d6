// Tokenizers that were not read from a folder: our own character vocabularies, and tokenizer.json with its
// companions written for them and for vocabularies out of GGUF, so that the `tokenizers` package gives the same ids.
//
// A character vocabulary is a byte-level BPE without merges: the text is split into characters, and with ignore_merges
// each character is looked up whole by its byte-level form. A character outside gives nothing there and an error here.
#include "tokenizer_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- character vocabularies ------------------------------------------------------------------------------------
enum { EOS_ID, THINK_ID, END_THINK_ID, FIRST_CHARACTER_ID };
static const char *const first_tokens[] = {"<eos>", "<think>", "</think>"};

static bool put_characters(Tokenizer *t, const char *characters, size_t size, Err *err) {
    int32_t id = FIRST_CHARACTER_ID;
    Buf letters = {0};
    bool ok = true;
    for (size_t at = 0; ok && at < size; id++) {
        int n = char_at(characters, size, at).size;
        for (size_t before = 0; ok && before < at; before += (size_t)char_at(characters, size, before).size)
            if (memcmp(characters + before, characters + at, (size_t)n) == 0)
                ok = fail(err, ERR_DATA, "characters", "'%.*s' is there twice, expected each character once", n,
                          characters + at);
        letters.size = 0;
        bytes_to_alphabet(characters + at, (size_t)n, &letters);
        ok = ok && vocabulary_put(&t->vocabulary, id, letters.data, letters.size, true, "characters", err);
        at += (size_t)n;
    }
    buf_free(&letters);
    return ok;
}

bool tokenizer_read_characters(Tokenizer *t, const char *characters, Err *err) {
    size_t size = strlen(characters), bad;
    int32_t count = FIRST_CHARACTER_ID;
    if (!utf8_valid(characters, size, &bad)) return fail(err, ERR_DATA, "characters", "is not UTF-8 at byte %zu", bad);
    if (!size) return fail(err, ERR_DATA, "characters", "is empty, expected at least one character");
    for (size_t at = 0; at < size; count++) at += (size_t)char_at(characters, size, at).size;
    if (count > 1 << 16) return fail(err, ERR_DATA, "characters", "holds %d characters, expected at most 65533", count - 3);
    TRY(tokenizer_set_stages(t, NULL,
                             "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "
                             "\"[\\\\s\\\\S]\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", "
                             "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}]}",
                             "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true}",
                             err));
    TRY(vocabulary_start(&t->vocabulary, count, err));
    for (int32_t id = 0; id < FIRST_CHARACTER_ID; id++)
        TRY(vocabulary_put(&t->vocabulary, id, first_tokens[id], strlen(first_tokens[id]), true, "characters", err));
    TRY(put_characters(t, characters, size, err));
    TRY(vocabulary_index(&t->vocabulary, false, "characters", err));
    t->bpe = (Bpe){.v = &t->vocabulary, .unknown = -1, .ignore_merges = true};
    TRY(bpe_merges_start(&t->bpe, 0, "characters", err));
    TRY(tokenizer_finish_bpe(t, err));
    t->strict = true;
    t->eos = EOS_ID;
    AddedToken *added = xcalloc(COUNT(first_tokens), sizeof *added);
    for (int32_t id = 0; id < FIRST_CHARACTER_ID; id++)
        added[id] = (AddedToken){
            .text = xstrdup(first_tokens[id]), .size = strlen(first_tokens[id]), .id = id, .special = id == EOS_ID};
    return tokenizer_set_added(t, added, FIRST_CHARACTER_ID, err);
}

// ---- writing ---------------------------------------------------------------------------------------------------
static json_t *text_of(const Tokenizer *t, int32_t id) {
    return json_stringn(token_text(&t->vocabulary, id), t->vocabulary.tokens[id].text_size);
}

static json_t *added_to_json(const Tokenizer *t) {
    json_t *list = json_array();
    for (int i = 0; i < t->added_count; i++) {
        const AddedToken *a = &t->added[i];
        json_array_append_new(list, json_pack("{s:i, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", a->id, "content", a->text, a->size,
                                              "single_word", a->single_word, "lstrip", a->lstrip, "rstrip", a->rstrip,
                                              "normalized", a->normalized, "special", a->special));
    }
    return list;
}

static int compare_ranks(const void *a, const void *b) {
    const MergeSlot *x = *(const MergeSlot *const *)a, *y = *(const MergeSlot *const *)b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return (x->pair > y->pair) - (x->pair < y->pair);
}
static json_t *merges_to_json(const Tokenizer *t) {
    const Bpe *b = &t->bpe;
    const MergeSlot **sorted = xcalloc((size_t)b->merge_count, sizeof *sorted);
    int32_t count = 0;
    for (size_t i = 0; i <= b->merges_mask; i++)
        if (b->merges[i].pair != UINT64_MAX) sorted[count++] = &b->merges[i];
    qsort(sorted, (size_t)count, sizeof *sorted, compare_ranks);
    json_t *list = json_array();
    for (int32_t i = 0; i < count; i++) {
        json_t *pair = json_array();
        json_array_append_new(pair, text_of(t, (int32_t)(sorted[i]->pair >> 32)));
        json_array_append_new(pair, text_of(t, (int32_t)(uint32_t)sorted[i]->pair));
        json_array_append_new(list, pair);
    }
    free(sorted);
    return list;
}

static json_t *model_to_json(const Tokenizer *t) {
    const Vocabulary *v = &t->vocabulary;
    const Bpe *b = &t->bpe;
    json_t *vocab = json_object(), *unknown = b->unknown >= 0 ? text_of(t, b->unknown) : json_null();
    for (int32_t id = 0; id < v->size; id++)
        if (v->tokens[id].present) json_object_set_new(vocab, token_text(v, id), json_integer(id));
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", unknown,
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", b->fuse_unknown, "byte_fallback",
                     b->byte_fallback, "ignore_merges", b->ignore_merges, "vocab", vocab, "merges", merges_to_json(t));
}

static json_t *byte_level(void) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1);
}

// A template with the automatic tokens; ByteLevel, which changes no id, where there are none.
static json_t *postprocessor_to_json(const Tokenizer *t) {
    if (t->automatic_count == 1) return byte_level();
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    for (int i = 0; i < t->automatic_count; i++) {
        int32_t id = t->automatic[i];
        if (id == TEXT_OF_SEQUENCE) {
            json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
            continue;
        }
        const char *text = token_text(&t->vocabulary, id);
        json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0));
        json_object_set_new(specials, text, json_pack("{s:s, s:[i], s:[s]}", "id", text, "ids", id, "tokens", text));
    }
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens",
                     specials);
}

static void set_token(json_t *config, const Tokenizer *t, const char *key, int32_t id) {
    if (id >= 0) json_object_set_new(config, key, text_of(t, id));
}
static json_t *config_to_json(const Tokenizer *t) {
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
    set_token(config, t, "bos_token", t->bos);
    set_token(config, t, "eos_token", t->eos);
    set_token(config, t, "pad_token", t->padding);
    if (t->chat_source) json_object_set_new(config, "chat_template", json_string(t->chat_source));
    return config;
}

static int append(const char *data, size_t size, void *out) {
    buf_append(out, data, size);
    return 0;
}
static void write_file(json_t *value, const char *name, TokenizerFile *out) {
    out->name = name;
    json_dump_callback(value, append, &out->data, JSON_INDENT(2));
    buf_puts(&out->data, "\n");
    json_decref(value);
}

static json_t *stage(const char *text) {
    json_t *j = text ? json_loads(text, 0, NULL) : NULL;
    return j ? j : json_null();
}

void tokenizer_build_files(const Tokenizer *t, TokenizerFile *out) {
    memset(out, 0, TOKENIZER_FILES * sizeof *out);
    json_t *root = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                             "added_tokens", added_to_json(t), "normalizer", stage(t->normalizer_text), "pre_tokenizer",
                             stage(t->pretokenizer_text), "post_processor", postprocessor_to_json(t), "decoder",
                             stage(t->decoder_text), "model", model_to_json(t));
    write_file(root, tokenizer_file_names[0], &out[0]);
    write_file(config_to_json(t), tokenizer_file_names[1], &out[1]);
}
