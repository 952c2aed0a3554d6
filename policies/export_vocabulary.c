// The vocabulary of a GGUF file made from a Hugging Face folder: tokens, kinds, scores and merges from tokenizer.json, special
// tokens and the chat template from the files beside it. GGUF names a pre-tokenizer instead of describing it, so a tokenizer
// whose pattern has no name there is an error: the ids would be others.
#include "export_parts.h"
#include "files.h"
#include "tokenizer_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the vocabulary --------------------------------------------------------------------------------------
enum { MAX_TOKENIZER = 1 << 28, MAX_CONFIG = 16 << 20 };
typedef enum TokenKind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE } TokenKind;
typedef struct Listed {
    const json_t *root, *model; // tokenizer.json
    const char *path;           // of it
    json_t *config;             // tokenizer_config.json, or NULL
    int32_t size;
    const char **text; // [size], NULL: no such token
    int32_t *kind;     // [size]
    float *score;      // [size], for vocabularies of characters with byte fallback
    bool byte_level;   // "gpt2"; otherwise "llama"
} Listed;

static bool bad(const Listed *v, Err *err, const char *what) {
    return fail(err, ERR_DATA, v->path, "%s, which GGUF has no form for", what);
}
static bool put_token(Listed *v, const char *text, const json_t *id, TokenKind kind, Err *err) {
    json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
    if (!text || n < 0 || n >= v->size)
        return fail(err, ERR_DATA, v->path, "token '%.60s' has an id outside of the embedding's %d rows", text ? text : "", v->size);
    v->text[n] = text;
    v->kind[n] = kind;
    return true;
}
static bool is_byte_token(const char *text) {
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>' && strspn(text + 3, "0123456789ABCDEFabcdef") == 2;
}
static bool read_tokens(Listed *v, Err *err) {
    const char *text, *unknown = json_string_value(json_object_get(v->model, "unk_token"));
    const json_t *vocab = json_object_get(v->model, "vocab"), *added = json_object_get(v->root, "added_tokens"), *token;
    json_t *id;
    size_t i;
    bool bytes = json_is_true(json_object_get(v->model, "byte_fallback"));
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
        TokenKind kind = bytes && is_byte_token(text) ? TOKEN_BYTE : unknown && !strcmp(unknown, text) ? TOKEN_UNKNOWN : TOKEN_NORMAL;
        TRY(put_token(v, text, id, kind, err));
    }
    json_array_foreach(added, i, token) {
        const char *content = json_string_value(json_object_get(token, "content"));
        bool special = json_is_true(json_object_get(token, "special"));
        TokenKind kind = content && unknown && !strcmp(unknown, content) ? TOKEN_UNKNOWN : special ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
        TRY(put_token(v, content, json_object_get(token, "id"), kind, err));
    }
    return true;
}
// A merge as "a b", from either form of tokenizer.json.
static bool merge_text(const Listed *v, const json_t *merge, Buf *out, Err *err) {
    const char *whole = json_string_value(merge), *a = json_string_value(json_array_get(merge, 0)), *b = json_string_value(json_array_get(merge, 1));
    out->size = 0;
    if (whole)
        buf_puts(out, whole);
    else if (a && b && !strchr(a, ' ') && !strchr(b, ' '))
        buf_printf(out, "%s %s", a, b);
    else
        return bad(v, err, "a merge is no pair of tokens, or one with a space in it");
    return true;
}

// Readers of GGUF cut words into characters themselves: our own vocabularies, which are cut so before, are theirs if no token is
// longer than one.
static bool single_characters(const Listed *v);
static bool cuts_characters(const Listed *v) {
    const json_t *steps = json_object_get(json_object_get(v->root, "pre_tokenizer"), "pretokenizers");
    const char *regex = json_string_value(json_object_get(json_object_get(json_array_get(steps, 0), "pattern"), "Regex"));
    return regex && strcmp(regex, "[\\s\\S]") == 0 && single_characters(v);
}
static bool single_characters(const Listed *v) {
    for (int32_t i = 0; i < v->size; i++) {
        if (!v->text[i] || v->kind[i] != TOKEN_NORMAL) continue;
        int characters = 0;
        for (const char *p = v->text[i]; *p; p++) characters += ((unsigned char)*p & 0xc0) != 0x80;
        if (characters > 1) return false;
    }
    return json_array_size(json_object_get(v->model, "merges")) == 0;
}

// The rank of the first merge that gives a token is its score: readers merge the best score first.
static bool read_scores(Listed *v, Err *err) {
    const json_t *merges = json_object_get(v->model, "merges"), *vocab = json_object_get(v->model, "vocab"), *merge;
    size_t i;
    Buf text = {0};
    bool ok = true;
    json_array_foreach(merges, i, merge) {
        if (!(ok = merge_text(v, merge, &text, err))) break;
        char *space = strchr(text.data, ' ');
        if (space) memmove(space, space + 1, strlen(space));
        const json_t *id = json_object_get(vocab, text.data);
        json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
        if (n >= 0 && n < v->size && v->score[n] == 0) v->score[n] = -(float)(i + 1);
    }
    buf_free(&text);
    return ok;
}

static void put_vocabulary(GgufMetadata *m, const Listed *v) {
    metadata_array(m, "tokenizer.ggml.tokens", GGUF_TEXT, (uint64_t)v->size);
    for (int32_t i = 0; i < v->size; i++) {
        char unused[32];
        snprintf(unused, sizeof unused, "[PAD%d]", i);
        const char *text = v->text[i] ? v->text[i] : unused;
        metadata_item_text(m, text, strlen(text));
    }
    if (!v->byte_level) {
        metadata_array(m, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)v->size);
        for (int32_t i = 0; i < v->size; i++) metadata_item_32(m, metadata_float_bits(v->score[i]));
    }
    metadata_array(m, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)v->size);
    for (int32_t i = 0; i < v->size; i++) metadata_item_32(m, v->text[i] ? (uint32_t)v->kind[i] : TOKEN_UNUSED);
}
static bool put_merges(GgufMetadata *m, const Listed *v, Err *err) {
    const json_t *merges = json_object_get(v->model, "merges"), *merge;
    size_t i;
    Buf text = {0};
    bool ok = true;
    metadata_array(m, "tokenizer.ggml.merges", GGUF_TEXT, json_array_size(merges));
    json_array_foreach(merges, i, merge) {
        if (!(ok = merge_text(v, merge, &text, err))) break;
        metadata_item_text(m, text.data, text.size);
    }
    buf_free(&text);
    return ok;
}

// ---- special tokens --------------------------------------------------------------------------------------
// Its id by the name that tokenizer_config.json gives it, else what the model's configuration says.
static int32_t special_id(const Listed *v, const char *key, int32_t otherwise) {
    const json_t *named = json_object_get(v->config, key);
    const char *text = json_string_value(json_is_object(named) ? json_object_get(named, "content") : named);
    for (int32_t i = 0; text && i < v->size; i++)
        if (v->text[i] && strcmp(v->text[i], text) == 0) return i;
    return otherwise;
}
static void put_id(GgufMetadata *m, const char *key, int32_t id) {
    if (id >= 0) metadata_u32(m, key, (uint32_t)id);
}
// Does the post-processor put this token before (or after) a text?
static bool is_automatic(const Listed *v, int32_t id, bool after) {
    const json_t *post = json_object_get(v->root, "post_processor"), *inner = json_object_get(post, "processors"), *step;
    size_t i, n = json_is_array(inner) ? json_array_size(inner) : 1;
    if (id < 0 || !v->text[id]) return false;
    for (i = 0; i < n; i++) {
        step = json_is_array(inner) ? json_array_get(inner, i) : post;
        const json_t *single = json_object_get(step, "single");
        size_t count = json_array_size(single);
        const json_t *item = count ? json_array_get(single, after ? count - 1 : 0) : NULL;
        const char *text = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (text && strcmp(text, v->text[id]) == 0) return true;
    }
    return false;
}
static bool prefix_space(const Listed *v) {
    char *text = json_dumps(json_object_get(v->root, "normalizer"), JSON_ENCODE_ANY | JSON_COMPACT);
    bool prepend = text && strstr(text, "\"Prepend\"");
    free(text);
    const json_t *pre = json_object_get(v->root, "pre_tokenizer");
    const char *type = json_string_value(json_object_get(pre, "type")), *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
    return prepend || (type && !strcmp(type, "Metaspace") && (!scheme || strcmp(scheme, "never") != 0));
}
static bool put_template(GgufMetadata *m, const Export *e, const Listed *v, Err *err) {
    char *path = path_join(e->w->path, "chat_template.jinja");
    Buf text = {0};
    bool ok = !file_exists(path) || file_read(path, MAX_CONFIG, &text, err);
    free(path);
    const json_t *named = json_object_get(v->config, "chat_template"), *item;
    size_t i;
    if (ok && !text.data) {
        json_array_foreach(named, i, item) {
            const char *name = json_string_value(json_object_get(item, "name"));
            if (name && !strcmp(name, "default")) named = json_object_get(item, "template");
        }
        if (json_is_string(named)) buf_append(&text, json_string_value(named), json_string_length(named));
    }
    if (ok && text.data) metadata_text(m, "tokenizer.chat_template", text.data, text.size);
    buf_free(&text);
    return ok;
}

static void put_stops(GgufMetadata *m, const ModelConfig *c, int32_t eos) {
    put_id(m, "tokenizer.ggml.eos_token_id", eos);
    for (int i = 0; i < c->stop_count && c->stop_count <= 2; i++)
        if (c->stop_ids[i] != eos) put_id(m, "tokenizer.ggml.eot_token_id", c->stop_ids[i]);
}
static bool put_specials(GgufMetadata *m, const Export *e, const Listed *v, Err *err) {
    const ModelConfig *c = &e->w->config;
    int32_t bos = special_id(v, "bos_token", c->bos_id), eos = special_id(v, "eos_token", c->stop_count ? c->stop_ids[0] : -1);
    put_id(m, "tokenizer.ggml.bos_token_id", bos);
    put_stops(m, c, eos);
    put_id(m, "tokenizer.ggml.padding_token_id", special_id(v, "pad_token", c->pad_id));
    for (int32_t i = 0; i < v->size; i++)
        if (v->kind[i] == TOKEN_UNKNOWN) put_id(m, "tokenizer.ggml.unknown_token_id", i);
    metadata_bool(m, "tokenizer.ggml.add_bos_token", is_automatic(v, bos, false));
    metadata_bool(m, "tokenizer.ggml.add_eos_token", is_automatic(v, eos, true));
    if (!v->byte_level) metadata_bool(m, "tokenizer.ggml.add_space_prefix", prefix_space(v));
    return put_template(m, e, v, err);
}

// A normalizer of SentencePiece's BPE as readers know it: a mark before the text, marks for spaces.
static bool replaces_spaces_only(const json_t *n) {
    const char *type = json_string_value(json_object_get(n, "type"));
    const json_t *list = json_object_get(n, "normalizers"), *step;
    size_t i;
    if (!type) return true;
    json_array_foreach(list, i, step) if (!replaces_spaces_only(step)) return false;
    if (strcmp(type, "Sequence") == 0 || strcmp(type, "Prepend") == 0) return true;
    const char *pattern = json_string_value(json_object_get(json_object_get(n, "pattern"), "String")), *content = json_string_value(json_object_get(n, "content"));
    return strcmp(type, "Replace") == 0 && pattern && content && strcmp(pattern, " ") == 0 && strcmp(content, "\u2581") == 0;
}
static bool unnamed(const Listed *v, Err *err) {
    Buf names = {0};
    gguf_pre_list(&names);
    fail(err, ERR_UNAVAILABLE, v->path, "its pre-tokenizer, normalizer and ignore_merges have no name in GGUF, which knows those of %s", names.data);
    buf_free(&names);
    return false;
}

static bool put_all(GgufMetadata *m, const Export *e, Listed *v, Err *err) {
    const char *type = json_string_value(json_object_get(v->model, "type"));
    if (type && strcmp(type, "BPE") != 0)
        return fail(err, ERR_UNAVAILABLE, v->path, "its model is %.20s, which can't be written as GGUF: byte-level BPE can, and BPE with byte fallback; export --to hf "
                                                   "takes any tokenizer", type);
    TRY(read_tokens(v, err));
    v->byte_level = !json_is_true(json_object_get(v->model, "byte_fallback"));
    const json_t *pre_tokenizer = json_object_get(v->root, "pre_tokenizer"), *normalizer = json_object_get(v->root, "normalizer");
    const char *model = v->byte_level ? "gpt2" : "llama", *pre = "default";
    if (v->byte_level) pre = cuts_characters(v) ? "gpt-2" : gguf_pre_name(pre_tokenizer, normalizer, json_is_true(json_object_get(v->model, "ignore_merges")));
    if (!pre) return unnamed(v, err);
    if (!v->byte_level && !replaces_spaces_only(normalizer)) return bad(v, err, "its normalizer does more than to put \u2581 for spaces");
    metadata_text(m, "tokenizer.ggml.model", model, strlen(model));
    metadata_text(m, "tokenizer.ggml.pre", pre, strlen(pre));
    if (!v->byte_level) TRY(read_scores(v, err));
    put_vocabulary(m, v);
    if (v->byte_level) TRY(put_merges(m, v, err));
    return put_specials(m, e, v, err);
}

// A folder without a tokenizer: the ids that its configuration names, and that there is none, which readers want to be told.
static void put_config_ids(GgufMetadata *m, const ModelConfig *c) {
    metadata_text(m, "tokenizer.ggml.model", "no_vocab", strlen("no_vocab"));
    put_id(m, "tokenizer.ggml.bos_token_id", c->bos_id);
    put_stops(m, c, c->stop_count ? c->stop_ids[0] : -1);
    put_id(m, "tokenizer.ggml.padding_token_id", c->pad_id);
}

bool metadata_of_tokenizer(GgufMetadata *m, const Export *e, Err *err) {
    char *path = path_join(e->w->path, "tokenizer.json"), *config = path_join(e->w->path, "tokenizer_config.json");
    Listed v = {.path = path, .size = e->w->config.vocabulary};
    json_t *root = NULL;
    bool there = file_exists(path);
    bool ok = !there || (json_read_file(path, MAX_TOKENIZER, &root, err) && (!file_exists(config) || json_read_file(config, MAX_CONFIG, &v.config, err)));
    v.root = root, v.model = json_object_get(root, "model");
    v.text = xcalloc((size_t)v.size, sizeof *v.text);
    v.kind = xcalloc((size_t)v.size, sizeof *v.kind);
    v.score = xcalloc((size_t)v.size, sizeof *v.score);
    if (ok && there) ok = put_all(m, e, &v, err);
    if (ok && !there) put_config_ids(m, &e->w->config);
    free(v.text), free(v.kind), free(v.score);
    json_decref(root), json_decref(v.config);
    free(path), free(config);
    return ok;
}
