// What a GGUF file means as a llama or qwen2 model: its configuration from metadata and shapes, Hugging Face names for
// its tensors, and the order of q's and k's rows. Writers of GGUF interleave the two rotary halves of each head for
// the llama architecture (and not for qwen2); weights.c undoes that where rotary_heads is set here. Metadata that would
// change the numbers and that isn't supported is an error naming its key.
#include "family.h"
#include "weights_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool gguf_model_open(Weights *w, Err *err) {
    TRY(gguf_open(w->path, &w->gguf, err));
    w->count = gguf_tensor_count(w->gguf);
    w->tensors = xcalloc((size_t)w->count, sizeof *w->tensors);
    for (int i = 0; i < w->count; i++) {
        const GgufTensor *g = gguf_tensor_at(w->gguf, i);
        WeightTensor *t = &w->tensors[i];
        t->info = (TensorInfo){.name = g->name, .type = g->type->name, .dims = g->dims, .count = g->count, .bytes = g->bytes};
        memcpy(t->info.shape, g->shape, sizeof g->shape);
        t->own_name = g->name;
        t->type = g->type;
        t->data = g->data;
    }
    return true;
}

// ---- metadata --------------------------------------------------------------------------------------------
typedef struct Reader {
    const Gguf *gguf;
    const char *architecture;
    char key[128];
} Reader;

static const char *key_of(Reader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->architecture, name);
    return r->key;
}
static bool get_size(Reader *r, const char *name, bool required, int32_t *out, Err *err) {
    int64_t x = *out;
    TRY(gguf_get_int(r->gguf, key_of(r, name), required, &x, err));
    if (x < 0 || x > INT32_MAX) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %" PRId64 ", expected 0 to 2147483647", r->key, x);
    *out = (int32_t)x;
    return true;
}
static bool get_token(const Gguf *g, const char *key, int32_t *out, Err *err) {
    int64_t id = -1;
    TRY(gguf_get_int(g, key, false, &id, err));
    if (id == UINT32_MAX) id = -1; // how some writers say none
    if (id < -1 || id > INT32_MAX) return fail(err, ERR_DATA, gguf_path(g), "%s is %" PRId64 ", which is no token id", key, id);
    *out = (int32_t)id;
    return true;
}
static bool read_architecture(const Gguf *g, const Family **out, Err *err) {
    GgufText name = {0};
    TRY(gguf_get_text(g, "general.architecture", true, &name, err));
    Buf known = {0};
    for (int i = 0; family_at(i); i++) {
        const char *gguf = family_at(i)->gguf;
        if (name.size == strlen(gguf) && memcmp(name.data, gguf, name.size) == 0) {
            buf_free(&known);
            *out = family_at(i);
            return true;
        }
        buf_printf(&known, "%s'%s'", i ? ", " : "", gguf);
    }
    fail(err, ERR_DATA, gguf_path(g), "general.architecture is '%.*s', expected one of %s", (int)(name.size < 40 ? name.size : 40), name.data,
         known.data);
    buf_free(&known);
    return false;
}

// Keys that may be there only with the value that changes nothing.
static bool check_neutral(Reader *r, Err *err) {
    static const struct {
        const char *name;
        double neutral, neutral_too;
    } reals[] = {
        {"rope.scaling.factor", 1, 0}, {"rope.scale_linear", 1, 0},   {"rope.scaling.attn_factor", 1, 0},
        {"attention.scale", 0, 0},     {"logit_scale", 1, 0},         {"embedding_scale", 1, 0},
        {"residual_scale", 1, 0},      {"expert_count", 0, 0},        {"attention.sliding_window", 0, 0},
        {"attention.clamp_kqv", 0, 0}, {"final_logit_softcapping", 0, 0}, {"attn_logit_softcapping", 0, 0},
    };
    for (int i = 0; i < COUNT(reals); i++) {
        double x = reals[i].neutral;
        TRY(gguf_get_real(r->gguf, key_of(r, reals[i].name), false, &x, err));
        if (x != reals[i].neutral && x != reals[i].neutral_too)
            return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %g, expected %g: not supported", r->key, x, reals[i].neutral);
    }
    GgufText scaling = {"none", 4};
    TRY(gguf_get_text(r->gguf, key_of(r, "rope.scaling.type"), false, &scaling, err));
    if (scaling.size != 4 || memcmp(scaling.data, "none", 4) != 0)
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is '%.*s', expected 'none': scaled rotary positions are not supported", r->key,
                    (int)(scaling.size < 40 ? scaling.size : 40), scaling.data);
    if (gguf_tensor_find(r->gguf, "rope_freqs.weight"))
        return fail(err, ERR_DATA, gguf_path(r->gguf), "has rope_freqs.weight: scaled rotary positions are not supported");
    return true;
}
static bool read_shapes(Reader *r, ModelConfig *c, Err *err) {
    const char *path = gguf_path(r->gguf);
    TRY(get_size(r, "block_count", true, &c->layers, err));
    TRY(get_size(r, "embedding_length", true, &c->width, err));
    TRY(get_size(r, "feed_forward_length", true, &c->feed_forward, err));
    TRY(get_size(r, "context_length", true, &c->max_positions, err));
    TRY(get_size(r, "attention.head_count", true, &c->heads, err));
    c->kv_heads = c->heads;
    TRY(get_size(r, "attention.head_count_kv", false, &c->kv_heads, err));
    if (c->heads < 1) return fail(err, ERR_DATA, path, "%s.attention.head_count is %d, expected at least 1", r->architecture, c->heads);
    if (c->width % c->heads != 0 && !gguf_find(r->gguf, key_of(r, "attention.key_length")))
        return fail(err, ERR_DATA, path, "%s.attention.head_count is %d, which doesn't divide the width %d", r->architecture, c->heads, c->width);
    int32_t value_width, rotary;
    c->head_width = c->width / c->heads;
    TRY(get_size(r, "attention.key_length", false, &c->head_width, err));
    value_width = rotary = c->head_width;
    TRY(get_size(r, "attention.value_length", false, &value_width, err));
    TRY(get_size(r, "rope.dimension_count", false, &rotary, err));
    if (value_width != c->head_width || rotary != c->head_width)
        return fail(err, ERR_DATA, path, "heads of %d, but values of %d and %d rotary dimensions: expected all three to be equal", c->head_width,
                    value_width, rotary);
    const GgufTensor *embedding = gguf_tensor_find(r->gguf, "token_embd.weight");
    if (!embedding || embedding->dims != 2 || embedding->shape[0] > INT32_MAX)
        return fail(err, ERR_DATA, path, "token_embd.weight is missing, or isn't a matrix");
    c->vocabulary = (int32_t)embedding->shape[0];
    return true;
}
static bool read_tokens(const Gguf *g, ModelConfig *c, Err *err) {
    const GgufText *tokens = NULL;
    size_t count = 0;
    TRY(gguf_get_texts(g, "tokenizer.ggml.tokens", false, &tokens, &count, err));
    if (count > (size_t)c->vocabulary)
        return fail(err, ERR_DATA, gguf_path(g), "tokenizer.ggml.tokens lists %zu tokens, but token_embd.weight has %d rows", count, c->vocabulary);
    TRY(get_token(g, "tokenizer.ggml.bos_token_id", &c->bos_id, err));
    TRY(get_token(g, "tokenizer.ggml.padding_token_id", &c->pad_id, err));
    const char *stops[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
    for (int i = 0; i < COUNT(stops); i++) {
        int32_t id = -1;
        TRY(get_token(g, stops[i], &id, err));
        if (id >= 0 && !(c->stop_count == 1 && c->stop_ids[0] == id)) c->stop_ids[c->stop_count++] = id;
    }
    return true;
}
static bool read_config(const Gguf *g, ModelConfig *c, Err *err) {
    const Family *family;
    *c = (ModelConfig){.bos_id = -1, .pad_id = -1, .rope = {{.theta = 10000}}, .initializer_range = 0.02};
    TRY(read_architecture(g, &family, err));
    family_options(family, c);
    Reader r = {.gguf = g, .architecture = family->gguf};
    TRY(check_neutral(&r, err));
    TRY(read_shapes(&r, c, err));
    TRY(gguf_get_real(g, key_of(&r, "attention.layer_norm_rms_epsilon"), true, &c->norm_eps, err));
    TRY(gguf_get_real(g, key_of(&r, "rope.freq_base"), false, &c->rope[0].theta, err));
    TRY(read_tokens(g, c, err));
    c->tied = !gguf_tensor_find(g, "output.weight");
    c->qkv_bias = gguf_tensor_find(g, "blk.0.attn_q.bias") != NULL;
    c->output_bias = gguf_tensor_find(g, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = gguf_tensor_find(g, "blk.0.ffn_gate.bias") != NULL;
    return config_check(c, gguf_path(g), err);
}

// ---- names -----------------------------------------------------------------------------------------------
typedef struct Naming {
    Weights *w;
    NameEntry *own; // sorted
    bool interleaved;
} Naming;
// A tensor that no specification names keeps its own name, for the check against the configuration to complain about.
static bool give_name(void *context, const TensorSpec *t, Err *err) {
    Naming *n = context;
    int i = names_find(n->own, n->w->count, t->gguf);
    (void)err;
    if (i < 0) return true;
    n->w->tensors[i].info.name = arena_strdup(&n->w->names, t->name);
    if (n->interleaved) n->w->tensors[i].rotary_heads = t->rotary_heads;
    return true;
}
bool gguf_model_config(Weights *w, Err *err) {
    TRY(read_config(w->gguf, &w->config, err));
    Naming n = {.w = w, .own = xcalloc((size_t)w->count, sizeof *n.own), .interleaved = family_find(w->config.model_type)->gguf_interleaved};
    for (int i = 0; i < w->count; i++) n.own[i] = (NameEntry){w->tensors[i].own_name, i};
    names_sort(n.own, w->count);
    bool ok = family_tensors(&w->config, give_name, &n, err);
    free(n.own);
    return ok;
}
