// What a GGUF file means as a model of one of the families: its configuration from metadata and shapes, Hugging Face names for
// its tensors, and the order of q's and k's rows. Writers of GGUF interleave the two rotary halves of each head for
// the llama architecture (and not for qwen2); weights.c undoes that where rotary_heads is set here. Metadata that would
// change the numbers and that isn't supported is an error naming its key.
#include "family.h"
#include "weights_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gguf_model_list(Weights *w) {
    free(w->tensors);
    w->count = w->all = gguf_tensor_count(w->gguf);
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
}
bool gguf_model_open(Weights *w, Err *err) {
    TRY(gguf_open(w->path, &w->gguf, err));
    gguf_model_list(w);
    return true;
}

// ---- metadata --------------------------------------------------------------------------------------------
typedef GgufReader Reader;

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
        if (!gguf) continue;
        if (name.size == strlen(gguf) && memcmp(name.data, gguf, name.size) == 0) {
            buf_free(&known);
            *out = family_at(i);
            return gguf_mixture_family(g, out, err);
        }
        if (!known.data || !strstr(known.data, gguf)) buf_printf(&known, "%s'%s'", known.size ? ", " : "", gguf);
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
        {"attention.scale", 0, 0},     {"logit_scale", 1, 0},         {"embedding_scale", 1, 0},
        {"residual_scale", 1, 0},      {"attention.temperature_scale", 0, 0}, {"attention.clamp_kqv", 0, 0},
        {"attn_logit_softcapping", 0, 0}, {"rope.scaling.alpha", 0, 1}, {"rope.scaling.yarn_ext_factor", 1, -1},
        {"rope.scaling.yarn_attn_factor", 1, 0}, {"expert_latent_length", 0, 0},
        {"rope.scaling.yarn_log_multiplier", 0, 0},
    };
    int count = strcmp(r->architecture, "deepseek2") == 0 ? COUNT(reals) - 1 : COUNT(reals); // where the last one means something
    for (int i = 0; i < count; i++) {
        double x = reals[i].neutral;
        TRY(gguf_get_real(r->gguf, gguf_key(r, reals[i].name), false, &x, err));
        if (x != reals[i].neutral && x != reals[i].neutral_too)
            return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %g, expected %g: not supported", r->key, x, reals[i].neutral);
    }
    return true;
}

// ---- rotary positions ------------------------------------------------------------------------------------
// A divisor for each frequency, from a tensor.
static bool read_divisors(Reader *r, const char *name, const ModelConfig *c, double *out, Err *err) {
    const GgufTensor *t = gguf_tensor_find(r->gguf, name);
    int64_t pairs = config_rotary(c) / 2;
    float values[MAX_ROPE_FACTORS];
    if (!t) return fail(err, ERR_DATA, gguf_path(r->gguf), "tensor '%s' is missing", name);
    if (t->dims != 1 || t->shape[0] != pairs || pairs > MAX_ROPE_FACTORS || t->type->block != 1)
        return fail(err, ERR_DATA, gguf_path(r->gguf), "tensor '%s' isn't a list of %" PRId64 " plain numbers, one a pair of rotated elements", name, pairs);
    TRY(storage_decode(t->type, t->data, pairs, gguf_path(r->gguf), name, values, err));
    for (int64_t i = 0; i < pairs; i++) {
        out[i] = values[i];
        if (!(out[i] > 0)) return fail(err, ERR_DATA, gguf_path(r->gguf), "tensor '%s' holds %g, expected numbers above 0", name, out[i]);
    }
    return true;
}
static bool is_text(const GgufText *t, const char *text) { return t->size == strlen(text) && memcmp(t->data, text, t->size) == 0; }
// Which kind; a factor without a type means linear.
static bool read_scaling(Reader *r, ModelConfig *c, Err *err) {
    RopeConfig *rope = &c->rope[0];
    GgufText type = {"", 0};
    double factor = 0;
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scale_linear"), false, &factor, err));
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scaling.factor"), false, &factor, err));
    TRY(gguf_get_text(r->gguf, gguf_key(r, "rope.scaling.type"), false, &type, err));
    bool scaled = factor != 0 && factor != 1;
    if (is_text(&type, "yarn"))
        rope->kind = ROPE_YARN;
    else if (is_text(&type, "longrope"))
        rope->kind = ROPE_LONGROPE;
    else if (is_text(&type, "linear") || (type.size == 0 && scaled))
        rope->kind = scaled ? ROPE_LINEAR : ROPE_DEFAULT;
    else if (type.size && !is_text(&type, "none"))
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is '%.*s', expected one of 'none', 'linear', 'yarn', 'longrope'", r->key,
                    (int)(type.size < 40 ? type.size : 40), type.data);
    if (rope->kind == ROPE_DEFAULT && scaled && type.size)
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s.rope.scaling.factor is %g, but rope.scaling.type is 'none'", r->architecture, factor);
    if (rope->kind == ROPE_LINEAR || rope->kind == ROPE_YARN) rope->factor = factor != 0 ? factor : 1;
    return true;
}
static bool read_rope(Reader *r, ModelConfig *c, Err *err) {
    RopeConfig *rope = &c->rope[0];
    double attention = 1;
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.freq_base"), false, &rope->theta, err));
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.freq_base_swa"), false, &c->rope[1].theta, err));
    TRY(read_scaling(r, c, err));
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scaling.attn_factor"), false, &attention, err));
    if (rope->kind != ROPE_DEFAULT && rope->kind != ROPE_LINEAR) {
        rope->original_positions = c->max_positions;
        TRY(gguf_get_size(r, "rope.scaling.original_context_length", false, &rope->original_positions, err));
    }
    if (rope->kind == ROPE_YARN) {
        rope->beta_fast = 32, rope->beta_slow = 1, rope->truncate = true;
        TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scaling.yarn_beta_fast"), false, &rope->beta_fast, err));
        TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scaling.yarn_beta_slow"), false, &rope->beta_slow, err));
        if (c->latent.R) TRY(gguf_latent_yarn(r, c, attention, err));
        else if (attention != 1 && rope->factor > 0) rope->attention_factor = attention * (1 + 0.1 * exact_log(rope->factor));
    } else if (rope->kind == ROPE_LONGROPE) {
        TRY(read_divisors(r, "rope_factors_short.weight", c, rope->short_factor, err));
        TRY(read_divisors(r, "rope_factors_long.weight", c, rope->long_factor, err));
        rope->attention_factor = attention;
    } else if (attention != 1) {
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %g, expected 1 without 'yarn' and 'longrope'", gguf_key(r, "rope.scaling.attn_factor"), attention);
    }
    if (!gguf_tensor_find(r->gguf, "rope_freqs.weight")) return true;
    if (rope->kind != ROPE_DEFAULT) return fail(err, ERR_DATA, gguf_path(r->gguf), "has rope_freqs.weight besides another scaling of rotary positions");
    // Divisors that are the same at any length, as Llama 3 has them.
    rope->kind = ROPE_LONGROPE, rope->factor = 1, rope->attention_factor = 1, rope->original_positions = c->max_positions;
    TRY(read_divisors(r, "rope_freqs.weight", c, rope->short_factor, err));
    memcpy(rope->long_factor, rope->short_factor, sizeof rope->long_factor);
    return true;
}

// ---- windows and scores ----------------------------------------------------------------------------------
static bool read_windows(Reader *r, const Family *f, ModelConfig *c, Err *err) {
    int32_t pattern = 6;
    TRY(gguf_get_size(r, "attention.sliding_window", false, &c->window, err));
    if (c->window && f->windows != WINDOWS_ALL && f->windows != WINDOWS_PATTERN)
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %d, expected 0: not supported for this architecture", gguf_key(r, "attention.sliding_window"), c->window);
    const GgufValue *given = gguf_find(r->gguf, gguf_key(r, "attention.sliding_window_pattern"));
    if (given && given->array) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is a list, expected a number: not supported", r->key);
    TRY(gguf_get_size(r, "attention.sliding_window_pattern", false, &pattern, err));
    if (pattern < 1) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %d, expected at least 1", r->key, pattern);
    if (c->layers > MAX_LAYERS) return true; // refused by config_check
    bool any = false;
    for (int i = 0; c->window && i < c->layers; i++) {
        bool window = f->windows == WINDOWS_ALL || (i + 1) % pattern != 0;
        if (window) c->layer[i] |= LAYER_WINDOW;
        any |= window;
    }
    if (!any) c->window = 0;
    return true;
}
static bool read_scores(Reader *r, const Family *f, ModelConfig *c, Err *err) {
    TRY(gguf_get_real(r->gguf, gguf_key(r, "final_logit_softcapping"), false, &c->logit_softcap, err));
    if (f->query_scalar == 0) return true;
    // The files don't say; the largest of the family, of 62 layers, divides by the width of a head of the stream.
    c->query_scalar = c->layers == 62 ? (double)(c->width / c->heads) : c->head_width;
    return true;
}

// ---- shapes ----------------------------------------------------------------------------------------------
static bool family_latent(const ModelConfig *c) {
    Mixture m = family_find(c->model_type)->mixture;
    return m == MIXTURE_DEEPSEEK_V2 || m == MIXTURE_DEEPSEEK_V3;
}
static bool read_heads(Reader *r, ModelConfig *c, Err *err) {
    const char *path = gguf_path(r->gguf);
    if (c->width % c->heads != 0 && !gguf_find(r->gguf, gguf_key(r, "attention.key_length")))
        return fail(err, ERR_DATA, path, "%s.attention.head_count is %d, which doesn't divide the width %d", r->architecture, c->heads, c->width);
    int32_t value_width, rotary;
    c->head_width = c->width / c->heads;
    TRY(gguf_get_size(r, "attention.key_length", false, &c->head_width, err));
    value_width = rotary = c->head_width;
    TRY(gguf_get_size(r, "attention.value_length", false, &value_width, err));
    TRY(gguf_get_size(r, "rope.dimension_count", false, &rotary, err));
    bool partial = family_find(c->model_type)->partial_rotary && rotary > 0 && rotary < c->head_width;
    if (value_width != c->head_width || (rotary != c->head_width && !partial))
        return fail(err, ERR_DATA, path, "heads of %d, but values of %d and %d rotary dimensions: expected all three to be equal", c->head_width,
                    value_width, rotary);
    c->rotary_width = partial ? rotary : 0;
    return true;
}
static bool read_shapes(Reader *r, ModelConfig *c, Err *err) {
    const char *path = gguf_path(r->gguf);
    TRY(gguf_get_size(r, "block_count", true, &c->layers, err));
    TRY(gguf_get_size(r, "embedding_length", true, &c->width, err));
    TRY(gguf_get_size(r, "feed_forward_length", true, &c->feed_forward, err));
    TRY(gguf_get_size(r, "context_length", true, &c->max_positions, err));
    TRY(gguf_get_size(r, "attention.head_count", true, &c->heads, err));
    c->kv_heads = c->heads;
    TRY(gguf_get_size(r, "attention.head_count_kv", false, &c->kv_heads, err));
    if (c->heads < 1) return fail(err, ERR_DATA, path, "%s.attention.head_count is %d, expected at least 1", r->architecture, c->heads);
    TRY(family_latent(c) ? gguf_latent_shapes(r, c, err) : read_heads(r, c, err));
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
    memset(c, 0, sizeof *c);
    c->bos_id = c->pad_id = -1;
    TRY(read_architecture(g, &family, err));
    family_options(family, c);
    Reader r = {.gguf = g, .architecture = family->gguf};
    TRY(check_neutral(&r, err));
    TRY(read_shapes(&r, c, err));
    TRY(gguf_mixture_config(&r, c, err));
    TRY(gguf_get_real(g, gguf_key(&r, "attention.layer_norm_rms_epsilon"), true, &c->norm_eps, err));
    c->rope[0].theta = c->local_rope ? c->rope[0].theta : 10000;
    TRY(read_rope(&r, c, err));
    TRY(read_windows(&r, family, c, err));
    TRY(read_scores(&r, family, c, err));
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
    bool interleaved, norm_offset; // norms that multiply by 1 + weight are stored as that sum
} Naming;
// A tensor that no specification names keeps its own name, for the check against the configuration to complain about.
static bool give_name(void *context, const TensorSpec *t, Err *err) {
    Naming *n = context;
    int i = names_find(n->own, n->w->count, t->gguf);
    (void)err;
    if (i < 0) return true;
    if (n->w->tensors[i].merged) return true;
    n->w->tensors[i].info.name = arena_strdup(&n->w->names, t->name);
    if (n->interleaved) n->w->tensors[i].rotary_heads = t->rotary_heads;
    if (n->norm_offset && !t->bias && family_is_norm(t->role)) n->w->tensors[i].shift = -1;
    return true;
}
bool gguf_model_config(Weights *w, Err *err) {
    TRY(read_config(w->gguf, &w->config, err));
    const Family *f = family_find(w->config.model_type);
    Naming n = {.w = w, .own = xcalloc((size_t)w->count, sizeof *n.own), .interleaved = f->gguf_interleaved, .norm_offset = f->norm_offset};
    for (int i = 0; i < w->count; i++) n.own[i] = (NameEntry){w->tensors[i].own_name, i};
    names_sort(n.own, w->count);
    bool ok = gguf_mixture_tensors(w, n.own, err) && family_tensors(&w->config, give_name, &n, err);
    free(n.own);
    return ok;
}
