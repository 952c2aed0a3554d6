// The metadata of a GGUF file made from a Hugging Face folder: values as they are stored, and the architecture's keys from the
// configuration. What the format, as its readers understand it, can't say about a model is an error.
#include "export_parts.h"
#include "family.h"
#include <stdio.h>
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
uint32_t metadata_float_bits(double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
void metadata_u32(GgufMetadata *m, const char *key, uint32_t x) { put_key(m, key, GGUF_U32), put(&m->bytes, x, 4); }
void metadata_f32(GgufMetadata *m, const char *key, double x) { put_key(m, key, GGUF_F32), put(&m->bytes, metadata_float_bits(x), 4); }
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
    // With latent attention, readers multiply scores by what the multiplier says (gguf_mixture.c).
    bool scores = c->latent.R && r->mscale_all_dim != 0;
    if (scores) put_number(m, architecture, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
    put_number(m, architecture, "rope.scaling.attn_factor", scores ? 1 : yarn_attention(r));
    put_number(m, architecture, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_number(m, architecture, "rope.scaling.yarn_beta_slow", r->beta_slow);
}
static void put_windows(GgufMetadata *m, const ModelConfig *c, const char *architecture) {
    if (c->window) put_count(m, architecture, "attention.sliding_window", c->window);
    if (c->window && c->local_rope && config_window_pattern(c) != 6) put_count(m, architecture, "attention.sliding_window_pattern", config_window_pattern(c));
    if (c->logit_softcap != 0) put_number(m, architecture, "final_logit_softcapping", c->logit_softcap);
}

// What readers of GGUF take for granted of experts and of latent attention.
static const char *latent_unsaid(const ModelConfig *c) {
    const RopeConfig *r = &c->rope[0];
    double turned = rope_attention(c);
    if (c->latent.q_rank && (c->layers == 26 || c->layers == 27)) return "a rank of queries in a model of 26 or 27 layers";
    if (!c->latent.interleaved) return "latent attention whose rotated columns lie in halves";
    if (c->qkv_bias || c->output_bias || c->mlp_bias) return "biases in this architecture";
    if (r->kind != ROPE_DEFAULT && r->kind != ROPE_YARN) return "these rotary positions with latent attention";
    if (!(turned > 1 - 1e-6 && turned < 1 + 1e-6)) return "yarn whose mscale and mscale_all_dim differ, with latent attention";
    return NULL;
}
static const char *mixture_unsaid(const ModelConfig *c, const Family *f) {
    const ExpertsConfig *e = &c->experts;
    bool qwen = f->mixture == MIXTURE_QWEN, latent = c->latent.R > 0;
    for (int i = 0; i < c->layers; i++)
        if (!latent && !config_has_experts(c, i)) return "a layer without experts in this architecture";
    if (!config_has_experts(c, c->layers - 1)) return "a mixture without experts";
    if (qwen && !e->normalise) return "norm_topk_prob false in this architecture";
    if (!latent) return NULL;
    if (!e->shared) return "DeepSeek's experts without shared ones";
    if (!e->sigmoid && e->groups > e->chosen_groups) return "DeepSeek V2's choice of groups by their best expert";
    return latent_unsaid(c);
}

// What this format, as its readers understand it, can't say about a model.
static bool gguf_can_say(const ModelConfig *c, const Family *f, const Export *e, Err *err) {
    const RopeConfig *r = &c->rope[0];
    const char *what = NULL;
    bool factors = strcmp(f->gguf, "llama") == 0 || strcmp(f->gguf, "phi3") == 0; // a divisor a frequency
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
    if ((r->kind == ROPE_LLAMA3 || r->kind == ROPE_LONGROPE) && !factors) what = "these rotary positions in this architecture";
    if (f->mixture != MIXTURE_NONE && !what) what = mixture_unsaid(c, f);
    if (!what && c->window && c->window < c->max_positions && strcmp(f->gguf, "phi3") == 0) // the file says it; readers read past it
        log_line(LOG_WARN, "%s: llama.cpp takes no notice of this architecture's windows: beyond %d positions its text differs from this model's", e->out, c->window);
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

static void put_experts(GgufMetadata *m, const ModelConfig *c, const char *architecture) {
    const ExpertsConfig *e = &c->experts;
    int32_t dense = 0;
    char key[96];
    put_count(m, architecture, "expert_count", e->count);
    put_count(m, architecture, "expert_used_count", e->chosen);
    if (family_find(c->model_type)->mixture != MIXTURE_MIXTRAL) put_count(m, architecture, "expert_feed_forward_length", e->feed_forward);
    if (!c->latent.R) return;
    while (dense < c->layers && !config_has_experts(c, dense)) dense++;
    put_count(m, architecture, "leading_dense_block_count", dense);
    put_count(m, architecture, "expert_shared_count", e->shared / e->feed_forward);
    put_number(m, architecture, "expert_weights_scale", e->scale);
    put_count(m, architecture, "expert_gating_func", e->sigmoid ? 2 : 1);
    snprintf(key, sizeof key, "%s.expert_weights_norm", architecture);
    metadata_bool(m, key, e->normalise);
    if (e->groups > 1) put_count(m, architecture, "expert_group_count", e->groups);
    if (e->groups > 1) put_count(m, architecture, "expert_group_used_count", e->chosen_groups);
}
static void put_latent(GgufMetadata *m, const ModelConfig *c, const char *architecture) {
    put_count(m, architecture, "attention.q_lora_rank", c->latent.q_rank);
    put_count(m, architecture, "attention.kv_lora_rank", c->latent.R);
    put_count(m, architecture, "attention.key_length_mla", c->head_width);
    put_count(m, architecture, "attention.value_length_mla", c->latent.V);
}

bool metadata_of_config(GgufMetadata *m, const Export *e, Err *err) {
    const ModelConfig *c = &e->w->config;
    const Family *family = family_find(c->model_type);
    const char *architecture = family->gguf;
    TRY(gguf_can_say(c, family, e, err));
    const LatentConfig *l = &c->latent; // its halves are read as attention of one head of keys as wide as the latent
    const struct {
        const char *key;
        int32_t value;
    } sizes[] = {
        {"block_count", c->layers},
        {"context_length", c->max_positions},
        {"embedding_length", c->width},
        {"feed_forward_length", c->feed_forward},
        {"attention.head_count", c->heads},
        {"attention.head_count_kv", l->R ? 1 : c->kv_heads},
        {"attention.key_length", l->R ? l->R + l->P : c->head_width},
        {"attention.value_length", l->R ? l->R : c->head_width},
        {"rope.dimension_count", config_rotary(c)},
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
    if (c->experts.count) put_experts(m, c, architecture);
    if (c->latent.R) put_latent(m, c, architecture);
    return true;
}
