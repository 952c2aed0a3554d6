// The metadata of a GGUF file made from a Hugging Face folder: the architecture's keys from the configuration, the
// vocabulary from tokenizer.json. GGUF names a pre-tokenizer instead of describing it, so a tokenizer whose pattern has
// no name there is an error: the ids would be others.
#include "export_parts.h"
#include "family.h"
#include "files.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- values ----------------------------------------------------------------------------------------------
static void put(Buf *b, uint64_t x, int bytes) {
    uint8_t data[8];
    for (int i = 0; i < bytes; i++) data[i] = (uint8_t)(x >> 8 * i);
    buf_append(b, data, (size_t)bytes);
}
static void put_text(Buf *b, const char *text, size_t size) {
    put(b, size, 8);
    buf_append(b, text, size);
}
static void put_key(GgufMetadata *m, const char *key, GgufType type) {
    put_text(&m->bytes, key, strlen(key));
    put(&m->bytes, type, 4);
    m->count++;
}
static uint32_t float_bits(double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
void metadata_u32(GgufMetadata *m, const char *key, uint32_t x) { put_key(m, key, GGUF_U32), put(&m->bytes, x, 4); }
void metadata_f32(GgufMetadata *m, const char *key, double x) { put_key(m, key, GGUF_F32), put(&m->bytes, float_bits(x), 4); }
void metadata_bool(GgufMetadata *m, const char *key, bool x) { put_key(m, key, GGUF_BOOL), put(&m->bytes, x, 1); }
void metadata_text(GgufMetadata *m, const char *key, const char *text, size_t size) {
    put_key(m, key, GGUF_TEXT), put_text(&m->bytes, text, size);
}
void metadata_array(GgufMetadata *m, const char *key, GgufType type, uint64_t count) {
    put_key(m, key, GGUF_ARRAY), put(&m->bytes, type, 4), put(&m->bytes, count, 8);
}
void metadata_item_text(GgufMetadata *m, const char *text, size_t size) { put_text(&m->bytes, text, size); }
void metadata_item_32(GgufMetadata *m, uint32_t bits) { put(&m->bytes, bits, 4); }
void metadata_value(GgufMetadata *m, const GgufValue *v) {
    static const int widths[] = {[GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
                                 [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    if (v->array)
        metadata_array(m, v->key, v->type, v->count);
    else
        put_key(m, v->key, v->type);
    if (v->type != GGUF_TEXT) {
        if (v->count) buf_append(&m->bytes, v->data, (size_t)v->count * (size_t)widths[v->type]);
        return;
    }
    for (uint64_t i = 0; i < v->count; i++) put_text(&m->bytes, v->texts[i].data, v->texts[i].size);
}

// ---- the configuration -----------------------------------------------------------------------------------
static void put_number(GgufMetadata *m, const char *architecture, const char *name, double x) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    metadata_f32(m, key, x);
}
static void put_count(GgufMetadata *m, const char *architecture, const char *name, int32_t x) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    metadata_u32(m, key, (uint32_t)x);
}
// Readers of GGUF put in 0.1 log(factor) + 1 themselves.
static double yarn_factor(const RopeConfig *r) { return 0.1 * exact_log(r->factor) + 1; }
static double yarn_attention(const RopeConfig *r) {
    double ours = r->attention_factor;
    if (ours == 0 && r->mscale != 0 && r->mscale_all_dim != 0)
        ours = (0.1 * r->mscale * exact_log(r->factor) + 1) / (0.1 * r->mscale_all_dim * exact_log(r->factor) + 1);
    return ours == 0 ? 1 : ours / yarn_factor(r);
}
static void put_rope(GgufMetadata *m, const ModelConfig *c, const char *architecture) {
    const RopeConfig *r = &c->rope[0];
    const char *type = r->kind == ROPE_LINEAR ? "linear" : r->kind == ROPE_YARN ? "yarn" : r->kind == ROPE_LONGROPE ? "longrope" : NULL;
    char key[96];
    if (c->local_rope && c->rope[1].theta != 10000) put_number(m, architecture, "rope.freq_base_swa", c->rope[1].theta);
    if (!type) return;
    snprintf(key, sizeof key, "%s.rope.scaling.type", architecture);
    metadata_text(m, key, type, strlen(type));
    if (r->kind != ROPE_LONGROPE) put_number(m, architecture, "rope.scaling.factor", r->factor);
    if (r->kind != ROPE_LINEAR) put_count(m, architecture, "rope.scaling.original_context_length", r->original_positions);
    if (r->kind == ROPE_LONGROPE) put_number(m, architecture, "rope.scaling.attn_factor", rope_attention(c));
    if (r->kind != ROPE_YARN) return;
    put_number(m, architecture, "rope.scaling.attn_factor", yarn_attention(r));
    put_number(m, architecture, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_number(m, architecture, "rope.scaling.yarn_beta_slow", r->beta_slow);
}
static void put_windows(GgufMetadata *m, const ModelConfig *c, const char *architecture) {
    if (c->window) put_count(m, architecture, "attention.sliding_window", c->window);
    if (c->window && c->local_rope && config_window_pattern(c) != 6) put_count(m, architecture, "attention.sliding_window_pattern", config_window_pattern(c));
    if (c->logit_softcap != 0) put_number(m, architecture, "final_logit_softcapping", c->logit_softcap);
}

// What this format, as its readers understand it, can't say about a model.
static bool gguf_can_say(const ModelConfig *c, const Family *f, const Export *e, Err *err) {
    const RopeConfig *r = &c->rope[0];
    const char *what = NULL;
    double scalar = c->layers == 62 ? (double)(c->width / c->heads) : c->head_width;
    if (r->kind == ROPE_DYNAMIC) what = "rotary positions of type \"dynamic\"";
    if (r->kind == ROPE_YARN && (!r->truncate || r->factor == 0)) what = "yarn that isn't truncated, or has no factor";
    if (c->local_rope && (c->rope[1].kind != ROPE_DEFAULT || (r->kind != ROPE_DEFAULT && r->kind != ROPE_LINEAR))) what = "these rotary positions of windowed layers";
    if (c->window && c->window < c->max_positions && (f->windows == WINDOWS_UPPER || strcmp(f->gguf, "llama") == 0)) what = "windows in this architecture";
    if (c->window && c->local_rope && !config_window_pattern(c)) what = "windows that aren't regular";
    if (c->local_rope && !c->window) what = "this architecture without windows";
    if (c->activation != f->activation) what = "this activation in this architecture";
    if (c->query_scalar != 0 && c->query_scalar != scalar) what = "a query_pre_attn_scalar other than the width of a head";
    if (c->qkv_bias && f->bias == BIAS_ATTENTION) what = "biases in this architecture";
    return !what || fail(err, ERR_UNAVAILABLE, e->out, "%s can't be written as GGUF", what);
}

// ---- divisors of frequencies -----------------------------------------------------------------------------
static void add_divisors(ExportDivisors *d, const char *name, const double *values, int count) {
    WeightTensor *t = &d->lists[d->count].tensor;
    for (int i = 0; i < count; i++) d->lists[d->count].values[i] = (float)values[i];
    *t = (WeightTensor){.info = {.name = name, .type = "F32", .dims = 1, .shape = {count}, .count = count, .bytes = (size_t)count * 4},
                        .own_name = name, .type = storage_by_name("F32"), .data = (const uint8_t *)d->lists[d->count].values};
    d->count++;
}
void export_divisors(const ModelConfig *c, ExportDivisors *out) {
    const RopeConfig *r = &c->rope[0];
    int pairs = config_rotary(c) / 2;
    double divisor[MAX_ROPE_FACTORS];
    out->count = 0;
    if (pairs > MAX_ROPE_FACTORS) return;
    if (r->kind == ROPE_LLAMA3) {
        rope_divisors(c, divisor);
        add_divisors(out, "rope_freqs.weight", divisor, pairs);
    } else if (r->kind == ROPE_LONGROPE) {
        add_divisors(out, "rope_factors_short.weight", r->short_factor, pairs);
        add_divisors(out, "rope_factors_long.weight", r->long_factor, pairs);
    }
}

bool metadata_of_config(GgufMetadata *m, const Export *e, Err *err) {
    const ModelConfig *c = &e->w->config;
    const Family *family = family_find(c->model_type);
    const char *architecture = family->gguf;
    if (!architecture) return fail(err, ERR_UNAVAILABLE, e->out, "a %s model can't be written as GGUF", c->model_type);
    TRY(gguf_can_say(c, family, e, err));
    const struct {
        const char *key;
        int32_t value;
    } sizes[] = {
        {"block_count", c->layers},           {"context_length", c->max_positions},     {"embedding_length", c->width},
        {"feed_forward_length", c->feed_forward}, {"attention.head_count", c->heads},   {"attention.head_count_kv", c->kv_heads},
        {"attention.key_length", c->head_width}, {"attention.value_length", c->head_width}, {"rope.dimension_count", config_rotary(c)},
        {"vocab_size", c->vocabulary},
    };
    char key[96];
    const char *slash = strrchr(e->w->path, '/'), *name = slash && slash[1] ? slash + 1 : e->w->path;
    metadata_text(m, "general.architecture", architecture, strlen(architecture));
    metadata_text(m, "general.name", name, strlen(name));
    for (int i = 0; i < COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].key);
        metadata_u32(m, key, (uint32_t)sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    metadata_f32(m, key, c->norm_eps);
    snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    metadata_f32(m, key, c->rope[0].theta);
    put_rope(m, c, architecture);
    put_windows(m, c, architecture);
    return true;
}

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
        for (int32_t i = 0; i < v->size; i++) metadata_item_32(m, float_bits(v->score[i]));
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

// A folder without a tokenizer: the ids that its configuration names.
static void put_config_ids(GgufMetadata *m, const ModelConfig *c) {
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
