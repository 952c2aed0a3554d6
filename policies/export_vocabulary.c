// The vocabulary of a GGUF file made from a Hugging Face folder: tokens, kinds, scores and merges from tokenizer.json, special
// tokens and the chat template from the files beside it. GGUF names a pre-tokenizer instead of describing it, so a tokenizer
// whose pattern has no name there is an error: the ids would be others.
#include "export_parts.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the vocabulary --------------------------------------------------------------------------------------
enum { MAX_TOKENIZER = 1 << 28, MAX_CONFIG = 16 << 20 };
typedef enum TokenKind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE } TokenKind;
typedef struct Vocabulary {
    const json_t *root, *model; // tokenizer.json
    const char *path;           // of it
    json_t *config;             // tokenizer_config.json, or NULL
    int32_t size;
    const char **text; // [size], NULL: no such token
    int32_t *kind;     // [size]
    float *score;      // [size], for vocabularies of characters with byte fallback
    bool byte_level;   // "gpt2"; otherwise "llama"
} Vocabulary;

static bool bad(const Vocabulary *v, Err *err, const char *what) {
    return fail(err, ERR_DATA, v->path, "%s, which GGUF has no form for", what);
}
static bool put_token(Vocabulary *v, const char *text, const json_t *id, TokenKind kind, Err *err) {
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
static bool read_tokens(Vocabulary *v, Err *err) {
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
static bool merge_text(const Vocabulary *v, const json_t *merge, Buf *out, Err *err) {
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

// Names of the pre-tokenizers, by what tokenizer.json says.
static const char *regex_of(const json_t *step) { return json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex")); }
static const char *name_of_steps(const json_t *const *steps, size_t count) {
#define WORDS(numbers)                                                                                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                    \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    const char *type[3] = {0}, *regex[3] = {0};
    if (count < 1 || count > 3) return NULL;
    for (size_t i = 0; i < count; i++) {
        type[i] = json_string_value(json_object_get(steps[i], "type"));
        regex[i] = regex_of(steps[i]);
        if (!type[i]) return NULL;
    }
    const json_t *last = steps[count - 1], *pattern = json_object_get(last, "use_regex");
    if (strcmp(type[count - 1], "ByteLevel") != 0 || json_is_true(json_object_get(last, "add_prefix_space"))) return NULL;
    bool words = !pattern || json_is_true(pattern);
    if (count == 1) return words ? "gpt-2" : NULL;
    if (count != 2) return NULL;
    if (words) return strcmp(type[0], "Digits") == 0 && json_is_true(json_object_get(steps[0], "individual_digits")) ? "smollm" : NULL;
    if (!regex[0]) return NULL;
    if (strcmp(regex[0], WORDS("\\p{N}{1,3}")) == 0) return "llama-bpe";
    return strcmp(regex[0], WORDS("\\p{N}")) == 0 ? "qwen2" : strcmp(regex[0], "[\\s\\S]") == 0 ? "characters" : NULL;
#undef WORDS
}
static const char *pretokenizer_name(const json_t *json) {
    const json_t *list = json_object_get(json, "pretokenizers"), *steps[3];
    size_t count = json_is_array(list) ? json_array_size(list) : 1;
    if (count > COUNT(steps)) return NULL;
    for (size_t i = 0; i < count; i++) steps[i] = json_is_array(list) ? json_array_get(list, i) : json;
    return name_of_steps(steps, count);
}
// Readers of GGUF cut words into characters themselves: our own vocabularies are theirs if no token is longer than one.
static bool single_characters(const Vocabulary *v) {
    for (int32_t i = 0; i < v->size; i++) {
        if (!v->text[i] || v->kind[i] != TOKEN_NORMAL) continue;
        int characters = 0;
        for (const char *p = v->text[i]; *p; p++) characters += ((unsigned char)*p & 0xc0) != 0x80;
        if (characters > 1) return false;
    }
    return json_array_size(json_object_get(v->model, "merges")) == 0;
}

// The rank of the first merge that gives a token is its score: readers merge the best score first.
static bool read_scores(Vocabulary *v, Err *err) {
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

static void put_vocabulary(GgufMetadata *m, const Vocabulary *v) {
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
static bool put_merges(GgufMetadata *m, const Vocabulary *v, Err *err) {
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
static int32_t special_id(const Vocabulary *v, const char *key, int32_t otherwise) {
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
static bool is_automatic(const Vocabulary *v, int32_t id, bool after) {
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
static bool prefix_space(const Vocabulary *v) {
    char *text = json_dumps(json_object_get(v->root, "normalizer"), JSON_ENCODE_ANY | JSON_COMPACT);
    bool prepend = text && strstr(text, "\"Prepend\"");
    free(text);
    const json_t *pre = json_object_get(v->root, "pre_tokenizer");
    const char *type = json_string_value(json_object_get(pre, "type")), *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
    return prepend || (type && !strcmp(type, "Metaspace") && (!scheme || strcmp(scheme, "never") != 0));
}
static bool put_template(GgufMetadata *m, const Export *e, const Vocabulary *v, Err *err) {
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
static bool put_specials(GgufMetadata *m, const Export *e, const Vocabulary *v, Err *err) {
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

static bool put_all(GgufMetadata *m, const Export *e, Vocabulary *v, Err *err) {
    const char *type = json_string_value(json_object_get(v->model, "type"));
    if (type && strcmp(type, "BPE") != 0) return bad(v, err, "its model isn't byte-pair encoding");
    TRY(read_tokens(v, err));
    v->byte_level = !json_is_true(json_object_get(v->model, "byte_fallback"));
    const char *model = v->byte_level ? "gpt2" : "llama", *pre = v->byte_level ? pretokenizer_name(json_object_get(v->root, "pre_tokenizer")) : "default";
    if (pre && !strcmp(pre, "characters")) pre = single_characters(v) ? "gpt-2" : NULL;
    if (!pre) return bad(v, err, "its pre-tokenizer isn't one of GPT-2, SmolLM, Llama 3 or Qwen2");
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
    Vocabulary v = {.path = path, .size = e->w->config.vocabulary};
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
