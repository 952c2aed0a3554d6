// config.json as transformers reads it, older and newer: rope_theta and rope_scaling for the former, rope_parameters for the
// latter. What is written here reads back (config.c) as the same configuration.
#include "config_parts.h"

static json_t *token_or_null(int32_t id) { return id < 0 ? json_null() : json_integer(id); }
static json_t *stops_json(const ModelConfig *c) {
    if (c->stop_count == 0) return json_null();
    if (c->stop_count == 1) return json_integer(c->stop_ids[0]);
    json_t *list = json_array();
    for (int i = 0; i < c->stop_count; i++) json_array_append_new(list, json_integer(c->stop_ids[i]));
    return list;
}

// ---- rotary positions ------------------------------------------------------------------------------------
static void put_number(json_t *j, const char *key, double x) {
    if (x != 0) json_object_set_new(j, key, json_real(x));
}
static json_t *factors_json(const double *factors, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, json_real(factors[i]));
    return list;
}
// `with_theta` as rope_parameters has it; without, as rope_scaling.
static json_t *rope_json(const ModelConfig *c, const RopeConfig *r, bool with_theta) {
    static const char *const names[] = {"default", "linear", "dynamic", "llama3", "yarn", "longrope"};
    json_t *j = json_object();
    json_object_set_new(j, "rope_type", json_string(names[r->kind]));
    if (with_theta) json_object_set_new(j, "rope_theta", json_real(r->theta));
    put_number(j, "factor", r->factor);
    put_number(j, "low_freq_factor", r->low_frequency);
    put_number(j, "high_freq_factor", r->high_frequency);
    put_number(j, "beta_fast", r->beta_fast);
    put_number(j, "beta_slow", r->beta_slow);
    put_number(j, "mscale", r->mscale);
    put_number(j, "mscale_all_dim", r->mscale_all_dim);
    put_number(j, "attention_factor", r->attention_factor);
    if (r->kind == ROPE_YARN) json_object_set_new(j, "truncate", json_boolean(r->truncate));
    if (r->kind == ROPE_LONGROPE) {
        json_object_set_new(j, "short_factor", factors_json(r->short_factor, config_rotary(c) / 2));
        json_object_set_new(j, "long_factor", factors_json(r->long_factor, config_rotary(c) / 2));
    }
    // Where the family has the key outside of this object, older readers refuse it inside.
    bool outside = family_find(c->model_type)->original_positions && !with_theta;
    bool original = r->kind == ROPE_LLAMA3 || r->kind == ROPE_YARN || (r->kind == ROPE_LONGROPE && !outside);
    if (original) json_object_set_new(j, "original_max_position_embeddings", json_integer(r->original_positions));
    return j;
}
static void put_rope(const ModelConfig *c, const Family *f, json_t *j) {
    const RopeConfig *r = &c->rope[0];
    double part = c->rotary_width ? (double)c->rotary_width / c->head_width : 1;
    json_object_set_new(j, "rope_theta", json_real(r->theta));
    json_object_set_new(j, "rope_scaling", r->kind == ROPE_DEFAULT ? json_null() : rope_json(c, r, false));
    json_t *parameters = rope_json(c, r, true);
    if (f->partial_rotary) {
        // (int)(head_dim * part) is taken when it is read: a part that falls short by a rounding is moved up.
        if ((int32_t)(c->head_width * part) < c->rotary_width) part += 1e-9;
        json_object_set_new(j, "partial_rotary_factor", json_real(part));
        json_object_set_new(parameters, "partial_rotary_factor", json_real(part));
    }
    if (f->original_positions)
        json_object_set_new(j, "original_max_position_embeddings", json_integer(r->kind == ROPE_LONGROPE ? r->original_positions : f->original_positions));
    if (c->local_rope) {
        json_object_set_new(j, "rope_local_base_freq", json_real(c->rope[1].theta));
        parameters = json_pack("{s:o,s:o}", "full_attention", parameters, "sliding_attention", rope_json(c, &c->rope[1], true));
    }
    json_object_set_new(j, "rope_parameters", parameters);
}

// ---- windows ---------------------------------------------------------------------------------------------
static json_t *layer_types_json(const ModelConfig *c) {
    json_t *types = json_array();
    for (int i = 0; i < c->layers; i++)
        json_array_append_new(types, json_string(config_window(c, i) ? "sliding_attention" : "full_attention"));
    return types;
}
static void put_windows(const ModelConfig *c, const Family *f, json_t *j) {
    int first = 0, pattern = config_window_pattern(c);
    if (f->windows == WINDOWS_NONE) return;
    json_object_set_new(j, "sliding_window", c->window ? json_integer(c->window) : json_null());
    if (f->windows == WINDOWS_SWITCHED) json_object_set_new(j, "use_sliding_window", json_boolean(c->window != 0));
    if (f->windows == WINDOWS_ALL || f->windows == WINDOWS_SWITCHED) return;
    json_object_set_new(j, "layer_types", layer_types_json(c));
    if (f->windows == WINDOWS_UPPER) {
        while (first < c->layers && !config_window(c, first)) first++;
        json_object_set_new(j, "use_sliding_window", json_boolean(c->window != 0));
        json_object_set_new(j, "max_window_layers", json_integer(first));
    } else if (pattern) {
        json_object_set_new(j, "sliding_window_pattern", json_integer(pattern));
    }
}

// ---- the whole -------------------------------------------------------------------------------------------
static void put_shapes(const ModelConfig *c, json_t *j) {
    json_object_set_new(j, "num_hidden_layers", json_integer(c->layers));
    json_object_set_new(j, "hidden_size", json_integer(c->width));
    json_object_set_new(j, "num_attention_heads", json_integer(c->heads));
    json_object_set_new(j, "num_key_value_heads", json_integer(c->kv_heads));
    json_object_set_new(j, "head_dim", json_integer(c->head_width));
    json_object_set_new(j, "intermediate_size", json_integer(c->feed_forward));
    json_object_set_new(j, "vocab_size", json_integer(c->vocabulary));
    json_object_set_new(j, "max_position_embeddings", json_integer(c->max_positions));
}
static void put_options(const ModelConfig *c, const Family *f, json_t *j) {
    const char *activation = c->activation == ACTIVATION_GELU_TANH ? "gelu_pytorch_tanh" : "silu";
    json_object_set_new(j, f->query_scalar != 0 ? "hidden_activation" : "hidden_act", json_string(activation));
    json_object_set_new(j, "rms_norm_eps", json_real(c->norm_eps));
    json_object_set_new(j, "initializer_range", json_real(c->initializer_range));
    json_object_set_new(j, "attention_dropout", json_real(0));
    put_rope(c, f, j);
    put_windows(c, f, j);
    json_object_set_new(j, "tie_word_embeddings", json_boolean(c->tied));
    if (f->bias == BIAS_ATTENTION || f->bias == BIAS_ALL) json_object_set_new(j, "attention_bias", json_boolean(c->qkv_bias));
    if (f->bias == BIAS_ALL) json_object_set_new(j, "mlp_bias", json_boolean(c->mlp_bias));
    if (f->query_scalar != 0) {
        bool whole = c->query_scalar == (double)(json_int_t)c->query_scalar;
        json_object_set_new(j, "query_pre_attn_scalar", whole ? json_integer((json_int_t)c->query_scalar) : json_real(c->query_scalar));
        json_object_set_new(j, "final_logit_softcapping", c->logit_softcap != 0 ? json_real(c->logit_softcap) : json_null());
        json_object_set_new(j, "attn_logit_softcapping", json_null());
    }
}
json_t *config_to_json(const ModelConfig *c, const char *dtype) {
    const Family *f = family_find(c->model_type);
    json_t *j = json_object(), *architectures = json_array();
    json_array_append_new(architectures, json_string(f->architecture));
    json_object_set_new(j, "architectures", architectures);
    json_object_set_new(j, "model_type", json_string(c->model_type));
    put_shapes(c, j);
    put_options(c, f, j);
    mixture_write(c, j);
    json_object_set_new(j, "bos_token_id", token_or_null(c->bos_id));
    json_object_set_new(j, "pad_token_id", token_or_null(c->pad_id));
    json_object_set_new(j, "eos_token_id", stops_json(c));
    json_object_set_new(j, "torch_dtype", json_string(dtype));
    json_object_set_new(j, "use_cache", json_true());
    return j;
}

json_t *config_generation_json(const ModelConfig *c) {
    json_t *g = json_object(), *stops = json_array();
    for (int i = 0; i < c->stop_count; i++) json_array_append_new(stops, json_integer(c->stop_ids[i]));
    if (c->bos_id >= 0) json_object_set_new(g, "bos_token_id", json_integer(c->bos_id));
    if (c->pad_id >= 0) json_object_set_new(g, "pad_token_id", json_integer(c->pad_id));
    if (c->stop_count) json_object_set(g, "eos_token_id", stops);
    json_decref(stops);
    return g;
}
