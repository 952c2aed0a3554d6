// config.json of mixtures of experts (Mixtral, Qwen3-MoE, DeepSeek V2 and V3) and of latent attention (DeepSeek): their keys, as
// transformers reads and writes them. What transformers ignores for a family may stand there and is passed over where it can't
// change a number; what only its training would use (auxiliary losses) is set by a recipe here.
#include "config_parts.h"
#include "ops.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- which keys there may be -----------------------------------------------------------------------------
static bool listed(const char *key, const char *const *list, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(key, list[i]) == 0) return true;
    return false;
}
bool mixture_known(const Family *f, const char *key) {
    static const char *const all[] = {"num_experts_per_tok", "output_router_logits", "router_aux_loss_coef"};
    static const char *const mixtral[] = {"num_local_experts", "num_experts", "router_jitter_noise"};
    static const char *const qwen[] = {"num_experts", "num_local_experts", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step",
                                       "mlp_only_layers"};
    static const char *const deepseek[] = {"n_routed_experts", "num_local_experts", "num_experts", "n_shared_experts", "moe_intermediate_size",
                                           "n_group", "topk_group", "topk_method", "scoring_func", "norm_topk_prob", "routed_scaling_factor",
                                           "first_k_dense_replace", "moe_layer_freq", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
                                           "qk_rope_head_dim", "qk_head_dim", "v_head_dim", "rope_interleave", "ep_size", "aux_loss_alpha",
                                           "seq_aux", "num_nextn_predict_layers", "num_mtp_layers"};
    switch (f->mixture) {
    case MIXTURE_NONE: return false;
    case MIXTURE_MIXTRAL: return listed(key, all, COUNT(all)) || listed(key, mixtral, COUNT(mixtral));
    case MIXTURE_QWEN: return listed(key, all, COUNT(all)) || listed(key, qwen, COUNT(qwen));
    default: return listed(key, all, COUNT(all)) || listed(key, deepseek, COUNT(deepseek));
    }
}

// ---- reading ---------------------------------------------------------------------------------------------
typedef struct Source {
    const json_t *config;
    const char *path;
    ModelConfig *out;
} Source;

static bool get_count(const Source *s, const char *key, int32_t *out, Err *err) { // zero may be
    const json_t *v = key_of(s->config, key);
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (v && (n < 0 || n > INT32_MAX)) return wrong(s->path, key, v, "an integer from 0 to 2147483647", err);
    if (v) *out = (int32_t)n;
    return true;
}
static bool expect_text(const Source *s, const char *key, const char *only, Err *err) {
    const json_t *v = key_of(s->config, key);
    char expected[64];
    snprintf(expected, sizeof expected, "\"%s\": others are not supported", only);
    return !v || (json_is_string(v) && strcmp(json_string_value(v), only) == 0) || wrong(s->path, key, v, expected, err);
}
// The number of experts by its own name or an older one.
static bool get_experts(const Source *s, const char *const *names, int count, Err *err) {
    for (int i = 0; i < count; i++)
        if (key_of(s->config, names[i])) return get_count(s, names[i], &s->out->experts.count, err);
    return true;
}
static void experts_from(ModelConfig *c, int32_t first) {
    for (int i = first; i < c->layers; i++) c->layer[i] |= LAYER_EXPERTS;
}

static bool read_mixtral(const Source *s, Err *err) {
    static const char *const names[] = {"num_local_experts", "num_experts"};
    ExpertsConfig *e = &s->out->experts;
    double jitter = 0;
    *e = (ExpertsConfig){.count = 8, .chosen = 2, .feed_forward = s->out->feed_forward, .normalise = true};
    TRY(get_experts(s, names, COUNT(names), err));
    TRY(get_int(s->config, s->path, "num_experts_per_tok", false, &e->chosen, err));
    TRY(get_number(s->config, s->path, "router_jitter_noise", &jitter, err));
    if (jitter != 0) return wrong(s->path, "router_jitter_noise", key_of(s->config, "router_jitter_noise"), "0: not supported", err);
    experts_from(s->out, 0);
    return true;
}

static bool read_qwen(const Source *s, Err *err) {
    static const char *const names[] = {"num_experts", "num_local_experts"};
    ModelConfig *c = s->out;
    ExpertsConfig *e = &c->experts;
    int32_t step = 1;
    *e = (ExpertsConfig){.count = 128, .chosen = 8, .feed_forward = 768};
    TRY(get_experts(s, names, COUNT(names), err));
    TRY(get_int(s->config, s->path, "num_experts_per_tok", false, &e->chosen, err));
    TRY(get_int(s->config, s->path, "moe_intermediate_size", false, &e->feed_forward, err));
    TRY(get_bool(s->config, s->path, "norm_topk_prob", &e->normalise, err));
    TRY(get_int(s->config, s->path, "decoder_sparse_step", false, &step, err));
    const json_t *dense = key_of(s->config, "mlp_only_layers"), *item;
    size_t at;
    if (dense && !json_is_array(dense)) return wrong(s->path, "mlp_only_layers", dense, "a list of layers", err);
    for (int i = 0; e->count && i < c->layers; i++)
        if ((i + 1) % step == 0) c->layer[i] |= LAYER_EXPERTS;
    json_array_foreach(dense, at, item) {
        json_int_t layer = json_is_integer(item) ? json_integer_value(item) : -1;
        if (layer < 0) return wrong(s->path, "mlp_only_layers", dense, "a list of layers", err);
        if (layer < c->layers) c->layer[layer] &= (uint8_t)~LAYER_EXPERTS;
    }
    return true;
}

static bool read_latent(const Source *s, bool v3, Err *err) {
    ModelConfig *c = s->out;
    LatentConfig *l = &c->latent;
    *l = (LatentConfig){.R = 512, .q_rank = json_object_get(s->config, "q_lora_rank") ? 0 : 1536, .N = 128, .P = 64, .V = 128, .interleaved = true};
    TRY(get_int(s->config, s->path, "kv_lora_rank", false, &l->R, err));
    TRY(get_int(s->config, s->path, "q_lora_rank", false, &l->q_rank, err));
    TRY(get_int(s->config, s->path, "qk_nope_head_dim", false, &l->N, err));
    TRY(get_int(s->config, s->path, "qk_rope_head_dim", false, &l->P, err));
    TRY(get_int(s->config, s->path, "v_head_dim", false, &l->V, err));
    if (v3) TRY(get_bool(s->config, s->path, "rope_interleave", &l->interleaved, err));
    if (key_of(s->config, "num_key_value_heads") && c->kv_heads != c->heads)
        return fail(err, ERR_DATA, s->path, "num_key_value_heads is %d, expected num_attention_heads, %d, with latent attention", c->kv_heads, c->heads);
    if ((int64_t)l->N + l->P > INT32_MAX) return fail(err, ERR_DATA, s->path, "qk_nope_head_dim %d is too large", l->N);
    c->kv_heads = c->heads;
    c->head_width = l->N + l->P;
    c->rotary_width = l->P;
    return true;
}

// Groups as transformers takes them: V2 by their best score and only where `topk_method` says so, V3 by their two best, always.
static bool read_groups(const Source *s, bool v3, Err *err) {
    ExpertsConfig *e = &s->out->experts;
    const json_t *method = key_of(s->config, "topk_method");
    const char *name = json_string_value(method);
    e->groups = e->chosen_groups = 1, e->group_best = v3 ? 2 : 1;
    if (v3) {
        TRY(expect_text(s, "topk_method", "noaux_tc", err));
        e->groups = 8, e->chosen_groups = 4;
    } else if (!method || (name && strcmp(name, "greedy") == 0)) {
        return true;
    } else if (!name || strcmp(name, "group_limited_greedy") != 0) {
        return wrong(s->path, "topk_method", method, "\"greedy\" or \"group_limited_greedy\"", err);
    }
    return get_int(s->config, s->path, "n_group", !v3, &e->groups, err) && get_int(s->config, s->path, "topk_group", !v3, &e->chosen_groups, err);
}

static bool read_deepseek(const Source *s, bool v3, Err *err) {
    static const char *const names[] = {"n_routed_experts", "num_experts", "num_local_experts"};
    ModelConfig *c = s->out;
    ExpertsConfig *e = &c->experts;
    int32_t shared = v3 ? 1 : 2, first = v3 ? 3 : 0, frequency = 1;
    *e = (ExpertsConfig){.count = v3 ? 256 : 64, .chosen = 8, .feed_forward = v3 ? 2048 : 1407, .normalise = v3, .sigmoid = v3, .correction = v3,
                         .scale = v3 ? 2.5 : 1};
    TRY(get_experts(s, names, COUNT(names), err));
    TRY(get_int(s->config, s->path, "num_experts_per_tok", !v3, &e->chosen, err));
    TRY(get_int(s->config, s->path, "moe_intermediate_size", false, &e->feed_forward, err));
    TRY(get_count(s, "n_shared_experts", &shared, err));
    TRY(get_count(s, "first_k_dense_replace", &first, err));
    TRY(get_int(s->config, s->path, "moe_layer_freq", false, &frequency, err));
    if (frequency != 1) return wrong(s->path, "moe_layer_freq", key_of(s->config, "moe_layer_freq"), "1: not supported", err);
    TRY(expect_text(s, "scoring_func", v3 ? "sigmoid" : "softmax", err));
    TRY(get_number(s->config, s->path, "routed_scaling_factor", &e->scale, err));
    if (v3) TRY(get_bool(s->config, s->path, "norm_topk_prob", &e->normalise, err)); // V2 never normalises, whatever it says
    if ((int64_t)shared * e->feed_forward > INT32_MAX) return fail(err, ERR_DATA, s->path, "n_shared_experts is %d, which is too many", shared);
    e->shared = shared * e->feed_forward;
    experts_from(c, first);
    return read_groups(s, v3, err) && read_latent(s, v3, err);
}

bool mixture_read(const json_t *config, const char *path, const Family *f, ModelConfig *out, Err *err) {
    Source s = {config, path, out};
    bool ok = true;
    switch (f->mixture) {
    case MIXTURE_NONE: return true;
    case MIXTURE_MIXTRAL: ok = read_mixtral(&s, err); break;
    case MIXTURE_QWEN: ok = read_qwen(&s, err); break;
    case MIXTURE_DEEPSEEK_V2: ok = read_deepseek(&s, false, err); break;
    case MIXTURE_DEEPSEEK_V3: ok = read_deepseek(&s, true, err); break;
    }
    ExpertsConfig *e = &out->experts;
    if (!e->groups) e->groups = e->chosen_groups = e->group_best = 1;
    if (e->scale == 0 && !key_of(config, "routed_scaling_factor")) e->scale = 1;
    return ok;
}

// ---- checking --------------------------------------------------------------------------------------------
static bool check_latent(const ModelConfig *c, const char *where, Err *err) {
    const LatentConfig *l = &c->latent;
    if (l->R < 1 || l->P < 2 || l->P % 2 || (int64_t)l->R + l->P > MAX_LATENT || l->P > 512)
        return fail(err, ERR_DATA, where, "kv_lora_rank is %d and qk_rope_head_dim %d, expected an even one, and at most %d together", l->R, l->P, MAX_LATENT);
    if (l->N < 1 || l->V < 1 || l->N > 4096 || l->V > 4096 || l->q_rank < 0 || l->q_rank > 1 << 18)
        return fail(err, ERR_DATA, where, "qk_nope_head_dim is %d, v_head_dim %d, q_lora_rank %d, expected 1 to 4096 (q_lora_rank to 262144)", l->N, l->V, l->q_rank);
    return (c->head_width == l->N + l->P && c->kv_heads == c->heads && c->rotary_width == l->P) ||
           fail(err, ERR_DATA, where, "latent attention with heads of %d and %d rotated columns, expected %d and %d", c->head_width, c->rotary_width, l->N + l->P, l->P);
}
bool mixture_check(const ModelConfig *c, const char *where, Err *err) {
    const Family *f = family_find(c->model_type);
    const ExpertsConfig *e = &c->experts;
    bool any = false, deepseek = f && (f->mixture == MIXTURE_DEEPSEEK_V2 || f->mixture == MIXTURE_DEEPSEEK_V3);
    for (int i = 0; i < c->layers; i++) any |= config_has_experts(c, i);
    if ((any || e->count) && (!f || f->mixture == MIXTURE_NONE)) return fail(err, ERR_DATA, where, "a %s model has no experts", c->model_type);
    if (deepseek != (c->latent.R > 0)) return fail(err, ERR_DATA, where, "a %s model %s latent attention", c->model_type, deepseek ? "has" : "has no");
    if (c->latent.R) TRY(check_latent(c, where, err));
    if (!any) return true;
    if (e->count < 1 || e->count > MAX_EXPERTS) return fail(err, ERR_DATA, where, "the number of experts is %d, expected 1 to %d", e->count, MAX_EXPERTS);
    if (e->feed_forward < 1 || e->feed_forward > 1 << 20 || e->shared < 0 || e->shared > 1 << 20)
        return fail(err, ERR_DATA, where, "experts are %d wide, shared ones %d, expected 1 to %d", e->feed_forward, e->shared, 1 << 20);
    if (e->groups < 1 || e->count % e->groups || e->chosen_groups < 1 || e->chosen_groups > e->groups)
        return fail(err, ERR_DATA, where, "n_group is %d and topk_group %d, expected a divisor of %d experts and at most that", e->groups, e->chosen_groups, e->count);
    if (e->group_best < 1 || e->group_best > 2 || (e->groups > e->chosen_groups && e->group_best > e->count / e->groups))
        return fail(err, ERR_DATA, where, "groups of %d experts, expected at least %d", e->count / e->groups, e->group_best);
    if (e->chosen < 1 || e->chosen > MAX_CHOSEN || e->chosen > e->count / e->groups * e->chosen_groups)
        return fail(err, ERR_DATA, where, "num_experts_per_tok is %d, expected 1 to %d and no more than the %d that can be chosen", e->chosen, MAX_CHOSEN,
                    e->count / e->groups * e->chosen_groups);
    return (isfinite(e->scale) && e->scale != 0) || fail(err, ERR_DATA, where, "routed_scaling_factor is %g, expected a finite number other than 0", e->scale);
}

// ---- writing ---------------------------------------------------------------------------------------------
static void put_int(json_t *j, const char *key, int32_t value) { json_object_set_new(j, key, json_integer(value)); }
static void put_bool(json_t *j, const char *key, bool value) { json_object_set_new(j, key, json_boolean(value)); }

static void write_qwen(const ModelConfig *c, json_t *j) {
    json_t *dense = json_array();
    for (int i = 0; i < c->layers; i++)
        if (!config_has_experts(c, i)) json_array_append_new(dense, json_integer(i));
    put_int(j, "num_experts", c->experts.count);
    put_int(j, "moe_intermediate_size", c->experts.feed_forward);
    put_bool(j, "norm_topk_prob", c->experts.normalise);
    put_int(j, "decoder_sparse_step", 1);
    json_object_set_new(j, "mlp_only_layers", dense);
}
static void write_deepseek(const ModelConfig *c, bool v3, json_t *j) {
    const ExpertsConfig *e = &c->experts;
    const LatentConfig *l = &c->latent;
    int32_t first = 0;
    while (first < c->layers && !config_has_experts(c, first)) first++;
    put_int(j, "n_routed_experts", e->count);
    put_int(j, "n_shared_experts", e->feed_forward ? e->shared / e->feed_forward : 0);
    put_int(j, "moe_intermediate_size", e->feed_forward);
    put_int(j, "first_k_dense_replace", first);
    put_int(j, "moe_layer_freq", 1);
    put_int(j, "n_group", e->groups);
    put_int(j, "topk_group", e->chosen_groups);
    put_bool(j, "norm_topk_prob", e->normalise);
    json_object_set_new(j, "routed_scaling_factor", json_real(e->scale));
    json_object_set_new(j, "scoring_func", json_string(e->sigmoid ? "sigmoid" : "softmax"));
    json_object_set_new(j, "topk_method", json_string(v3 ? "noaux_tc" : e->groups > 1 ? "group_limited_greedy" : "greedy"));
    put_int(j, "kv_lora_rank", l->R);
    json_object_set_new(j, "q_lora_rank", l->q_rank ? json_integer(l->q_rank) : json_null());
    put_int(j, "qk_nope_head_dim", l->N);
    put_int(j, "qk_rope_head_dim", l->P);
    put_int(j, "qk_head_dim", l->N + l->P);
    put_int(j, "v_head_dim", l->V);
    put_int(j, "head_dim", l->P);
    if (v3) put_bool(j, "rope_interleave", l->interleaved), put_int(j, "num_nextn_predict_layers", 0);
    json_object_del(j, "partial_rotary_factor");
}
void mixture_write(const ModelConfig *c, json_t *j) {
    const Family *f = family_find(c->model_type);
    if (!f || f->mixture == MIXTURE_NONE) return;
    put_int(j, "num_experts_per_tok", c->experts.chosen);
    put_bool(j, "output_router_logits", false);
    if (f->mixture == MIXTURE_MIXTRAL) put_int(j, "num_local_experts", c->experts.count);
    if (f->mixture == MIXTURE_QWEN) write_qwen(c, j);
    if (c->latent.R) write_deepseek(c, f->mixture == MIXTURE_DEEPSEEK_V3, j);
}
