// config.json in both generations of Hugging Face keys (rope_theta + rope_scaling + torch_dtype; rope_parameters +
// dtype). A family is a row of defaults and rules (family.c). A key that isn't known is an error, and so is one that is
// known and asks for what the family doesn't have; only keys about generation, training, caching or provenance are passed over.
#include "config_parts.h"
#include "family.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Reader {
    const json_t *config;
    const char *path;
    const Family *family;
    ModelConfig *out;
} Reader;

// ---- which keys there may be -----------------------------------------------------------------------------
static const char *const options[] = {
    "model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "vocab_size", "max_position_embeddings", "original_max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings",
    "attention_bias", "mlp_bias", "hidden_act", "hidden_activation", "sliding_window", "use_sliding_window", "max_window_layers",
    "sliding_window_pattern", "layer_types", "rope_theta", "rope_local_base_freq", "rope_scaling", "rope_parameters", "partial_rotary_factor",
    "query_pre_attn_scalar", "final_logit_softcapping", "bos_token_id", "eos_token_id", "pad_token_id",
};
// They change no number of a pass over given tokens.
static const char *const harmless[] = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "name_or_path", "auto_map", "pretraining_tp",
    "attention_dropout", "resid_pdrop", "embd_pdrop", "hidden_dropout", "attn_implementation", "cache_implementation", "is_llama_config",
    "transformers.js_config", "return_dict", "return_dict_in_generate", "output_hidden_states", "output_attentions", "output_scores",
    "torchscript", "use_bfloat16", "pruned_heads", "chunk_size_feed_forward", "max_length", "min_length", "do_sample", "early_stopping",
    "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "finetuning_task", "id2label", "label2id", "num_labels", "tokenizer_class", "prefix", "sep_token_id",
    "decoder_start_token_id", "task_specific_params", "problem_type", "tf_legacy_loss", "classifier_dropout", "license", "full_attn_mod", "interpolate_factor", "max_sequence_length",
};
// Known, and supported only where they say no.
static const char *const refused[] = {
    "use_bidirectional_attention", "attn_logit_softcapping", "clip_qkv", "qk_layernorm", "use_qk_norm", "use_mrope", "rope_interleaved",
    "is_encoder_decoder", "is_decoder", "lm_head_bias", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder",
};
static bool listed(const char *key, const char *const *list, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(key, list[i]) == 0) return true;
    return false;
}
static bool check_key(const Reader *r, const char *key, const json_t *value, Err *err) {
    bool passed = key[0] == '_' || strncmp(key, "unsloth", 7) == 0;
    if (json_is_null(value) || passed || listed(key, options, COUNT(options)) || listed(key, harmless, COUNT(harmless)) || mixture_known(r->family, key)) return true;
    if (strcmp(key, "quantization_config") == 0)
        return fail(err, ERR_DATA, r->path, "quantization_config is not supported, expected weights in F32, F16 or BF16");
    if (listed(key, refused, COUNT(refused))) return json_is_false(value) || wrong(r->path, key, value, "false or null: not supported", err);
    Buf known = {0};
    for (int i = 0; i < COUNT(options); i++) buf_printf(&known, "%s%s", i ? ", " : "", options[i]);
    fail(err, ERR_DATA, r->path, "%.60s is not supported; options are %s", key, known.data);
    buf_free(&known);
    return false;
}
static bool check_keys(const Reader *r, Err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->config, key, value) TRY(check_key(r, key, value, err));
    return true;
}

// ---- rotary positions ------------------------------------------------------------------------------------
static const struct {
    const char *name;
    RopeKind kind;
    const char *keys; // besides those of every kind
} rope_kinds[] = {
    {"default", ROPE_DEFAULT, " "},
    {"linear", ROPE_LINEAR, " factor "},
    {"dynamic", ROPE_DYNAMIC, " factor "},
    {"llama3", ROPE_LLAMA3, " factor low_freq_factor high_freq_factor original_max_position_embeddings "},
    {"yarn", ROPE_YARN, " factor beta_fast beta_slow mscale mscale_all_dim attention_factor truncate finetuned original_max_position_embeddings "},
    {"longrope", ROPE_LONGROPE, " factor short_factor long_factor attention_factor original_max_position_embeddings "},
    {"su", ROPE_LONGROPE, " factor short_factor long_factor attention_factor original_max_position_embeddings "},
};
static bool has_word(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *at = strstr(words, word); at; at = strstr(at + 1, word))
        if (at[-1] == ' ' && at[n] == ' ') return true;
    return false;
}

static bool rope_kind(const Reader *r, const json_t *rope, const char *name, int *out, Err *err) {
    const json_t *type = key_of(rope, "rope_type") ? key_of(rope, "rope_type") : key_of(rope, "type");
    const char *text = type ? json_string_value(type) : "default";
    bool fused_yarn = text && strcmp(text, "yarn") == 0 && r->family->partial_rotary; // an older name of longrope there
    Buf known = {0};
    char key[64];
    for (*out = 0; text && *out < COUNT(rope_kinds); ++*out)
        if (strcmp(fused_yarn ? "longrope" : text, rope_kinds[*out].name) == 0) return true;
    for (int i = 0; i + 1 < COUNT(rope_kinds); i++) buf_printf(&known, "%s\"%s\"", i ? ", " : "one of ", rope_kinds[i].name);
    snprintf(key, sizeof key, "%s.rope_type", name);
    wrong(r->path, key, type, known.data, err);
    buf_free(&known);
    return false;
}
static bool rope_keys(const Reader *r, const json_t *rope, const char *name, int kind, Err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)rope, key, value) {
        if (json_is_null(value) || has_word(" rope_type type rope_theta partial_rotary_factor ", key) || has_word(rope_kinds[kind].keys, key)) continue;
        return fail(err, ERR_DATA, r->path, "%s.%.60s is not supported with rope_type \"%s\", expected only rope_theta%.*s", name, key,
                    rope_kinds[kind].name, (int)strlen(rope_kinds[kind].keys) - 1, rope_kinds[kind].keys);
    }
    return true;
}
static bool rope_factors(const Reader *r, const json_t *rope, const char *key, double *out, Err *err) {
    const json_t *list = key_of(rope, key), *item;
    size_t i, pairs = (size_t)config_rotary(r->out) / 2;
    char expected[64];
    snprintf(expected, sizeof expected, "a list of %zu numbers above 0", pairs);
    if (!json_is_array(list) || json_array_size(list) != pairs || pairs > MAX_ROPE_FACTORS) return wrong(r->path, key, list, expected, err);
    json_array_foreach(list, i, item) {
        out[i] = json_number_value(item);
        if (!(out[i] > 0)) return wrong(r->path, key, item, expected, err);
    }
    return true;
}
static bool rope_numbers(const Reader *r, const json_t *rope, RopeConfig *out, Err *err) {
    const char *path = r->path;
    const json_t *original = key_of(r->config, "original_max_position_embeddings");
    TRY(get_number(rope, path, "factor", &out->factor, err));
    TRY(get_number(rope, path, "low_freq_factor", &out->low_frequency, err));
    TRY(get_number(rope, path, "high_freq_factor", &out->high_frequency, err));
    TRY(get_number(rope, path, "mscale", &out->mscale, err));
    TRY(get_number(rope, path, "mscale_all_dim", &out->mscale_all_dim, err));
    TRY(get_number(rope, path, "attention_factor", &out->attention_factor, err));
    if (out->kind == ROPE_YARN) {
        out->beta_fast = 32, out->beta_slow = 1, out->truncate = true;
        TRY(get_number(rope, path, "beta_fast", &out->beta_fast, err));
        TRY(get_number(rope, path, "beta_slow", &out->beta_slow, err));
        TRY(get_bool(rope, path, "truncate", &out->truncate, err));
    }
    if (out->kind == ROPE_DYNAMIC) out->original_positions = r->out->max_positions;
    if (out->kind == ROPE_LLAMA3 || out->kind == ROPE_YARN || out->kind == ROPE_LONGROPE) {
        bool outside = original && !r->out->local_rope; // then it counts before the inner one
        out->original_positions = r->family->original_positions ? r->family->original_positions : r->out->max_positions;
        TRY(get_int(outside ? r->config : rope, path, "original_max_position_embeddings", false, &out->original_positions, err));
    }
    if (out->kind != ROPE_LONGROPE) return true;
    return rope_factors(r, rope, "short_factor", out->short_factor, err) && rope_factors(r, rope, "long_factor", out->long_factor, err);
}
static bool read_rope_object(const Reader *r, const json_t *rope, const char *name, RopeConfig *out, Err *err) {
    int kind;
    if (!rope) return true;
    if (!json_is_object(rope)) return wrong(r->path, name, rope, "an object or null", err);
    TRY(rope_kind(r, rope, name, &kind, err));
    TRY(rope_keys(r, rope, name, kind, err));
    TRY(get_number(rope, r->path, "rope_theta", &out->theta, err));
    out->kind = rope_kinds[kind].kind;
    return rope_numbers(r, rope, out, err);
}
static bool read_partial_rotary(const Reader *r, const json_t *rope, Err *err) {
    double part = 1;
    TRY(get_number(r->config, r->path, "partial_rotary_factor", &part, err));
    if (json_is_object(rope)) TRY(get_number(rope, r->path, "partial_rotary_factor", &part, err));
    if (part == 1) return true;
    if (!r->family->partial_rotary || !(part > 0 && part < 1))
        return fail(err, ERR_DATA, r->path, "partial_rotary_factor is %g, expected %s: not supported", part, r->family->partial_rotary ? "0 to 1" : "1");
    r->out->rotary_width = (int32_t)(r->out->head_width * part);
    return r->out->rotary_width > 0 || fail(err, ERR_DATA, r->path, "partial_rotary_factor is %g, which leaves no element of %d", part, r->out->head_width);
}
static bool read_rope(const Reader *r, Err *err) {
    ModelConfig *c = r->out;
    const json_t *scaling = key_of(r->config, "rope_scaling"), *parameters = key_of(r->config, "rope_parameters");
    const char *name = scaling ? "rope_scaling" : "rope_parameters";
    TRY(get_number(r->config, r->path, "rope_theta", &c->rope[0].theta, err));
    if (!c->local_rope) {
        const json_t *rope = scaling ? scaling : parameters;
        if (key_of(r->config, "rope_local_base_freq")) return fail(err, ERR_DATA, r->path, "rope_local_base_freq is not supported by %s models", c->model_type);
        if (scaling && json_is_object(parameters)) TRY(get_number(parameters, r->path, "rope_theta", &c->rope[0].theta, err));
        return read_partial_rotary(r, rope, err) && read_rope_object(r, rope, name, &c->rope[0], err);
    }
    TRY(get_number(r->config, r->path, "rope_local_base_freq", &c->rope[1].theta, err));
    TRY(read_partial_rotary(r, NULL, err));
    if (parameters && !json_is_object(parameters)) return wrong(r->path, "rope_parameters", parameters, "an object or null", err);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)parameters, key, value)
        if (strcmp(key, "full_attention") && strcmp(key, "sliding_attention"))
            return fail(err, ERR_DATA, r->path, "rope_parameters.%.60s is not supported, expected only full_attention and sliding_attention", key);
    TRY(read_rope_object(r, key_of(parameters, "full_attention"), "rope_parameters.full_attention", &c->rope[0], err));
    TRY(read_rope_object(r, key_of(parameters, "sliding_attention"), "rope_parameters.sliding_attention", &c->rope[1], err));
    if (!scaling) return true;
    double theta = c->rope[0].theta;
    c->rope[0] = (RopeConfig){.theta = theta};
    return read_rope_object(r, scaling, "rope_scaling", &c->rope[0], err);
}

// ---- windows ---------------------------------------------------------------------------------------------
static bool read_layer_types(const Reader *r, const json_t *types, Err *err) {
    const json_t *type;
    size_t i;
    if (!json_is_array(types) || json_array_size(types) != (size_t)r->out->layers)
        return wrong(r->path, "layer_types", types, "a list with one entry a layer", err);
    json_array_foreach(types, i, type) {
        const char *name = json_string_value(type);
        bool window = name && strcmp(name, "sliding_attention") == 0;
        if (!window && !(name && strcmp(name, "full_attention") == 0))
            return wrong(r->path, "layer_types", type, "\"full_attention\" or \"sliding_attention\"", err);
        r->out->layer[i] = window ? LAYER_WINDOW : 0;
    }
    return true;
}
// Which layers have a window where `layer_types` doesn't say.
static bool window_rule(const Reader *r, Err *err) {
    ModelConfig *c = r->out;
    int32_t first = r->family->full_layers, pattern = 6;
    const json_t *full = key_of(r->config, "max_window_layers");
    if (full && !(json_is_integer(full) && json_integer_value(full) >= 0 && json_integer_value(full) <= INT32_MAX))
        return wrong(r->path, "max_window_layers", full, "an integer from 0", err);
    if (full) first = (int32_t)json_integer_value(full);
    TRY(get_int(r->config, r->path, "sliding_window_pattern", false, &pattern, err));
    for (int i = 0; i < c->layers; i++) {
        bool window = r->family->windows == WINDOWS_ALL || r->family->windows == WINDOWS_SWITCHED || (r->family->windows == WINDOWS_UPPER && i >= first) ||
                      (r->family->windows == WINDOWS_PATTERN && (i + 1) % pattern != 0);
        c->layer[i] = window ? LAYER_WINDOW : 0;
    }
    return true;
}
static bool read_windows(const Reader *r, Err *err) {
    ModelConfig *c = r->out;
    const json_t *types = key_of(r->config, "layer_types");
    bool used = false, any = false;
    WindowRule rule = r->family->windows;
    if (rule == WINDOWS_UPPER || rule == WINDOWS_SWITCHED) {
        TRY(get_bool(r->config, r->path, "use_sliding_window", &used, err));
    } else {
        bool asked = rule != WINDOWS_NONE;
        TRY(get_bool(r->config, r->path, "use_sliding_window", &asked, err));
        used = rule != WINDOWS_NONE;
        if (asked != used) return wrong(r->path, "use_sliding_window", key_of(r->config, "use_sliding_window"), used ? "true: not supported" : "false: windows are not supported", err);
    }
    if (rule == WINDOWS_NONE && key_of(r->config, "sliding_window"))
        return wrong(r->path, "sliding_window", key_of(r->config, "sliding_window"), "null: windows are not supported by this family", err);
    if (used) {
        if (!json_object_get(r->config, "sliding_window")) c->window = r->family->default_window;
        TRY(get_int(r->config, r->path, "sliding_window", false, &c->window, err));
        if (c->window || rule == WINDOWS_PATTERN) TRY(window_rule(r, err));
    }
    bool all = used && c->window && (rule == WINDOWS_ALL || rule == WINDOWS_SWITCHED);
    if (types) TRY(read_layer_types(r, types, err));
    for (int i = 0; i < c->layers; i++) {
        any |= c->layer[i] & LAYER_WINDOW;
        if (all && !(c->layer[i] & LAYER_WINDOW)) return wrong(r->path, "layer_types", types, "\"sliding_attention\" in every layer of this family", err);
    }
    if (any && !c->window) return fail(err, ERR_DATA, r->path, "layer_types has \"sliding_attention\", but there is no sliding_window");
    if (!any) c->window = 0;
    return true;
}

// ---- other options ---------------------------------------------------------------------------------------
static bool read_activation_key(const Reader *r, const char *key, Err *err) {
    const json_t *v = key_of(r->config, key);
    const char *name = json_string_value(v);
    if (!v) return true;
    if (name && (!strcmp(name, "silu") || !strcmp(name, "swish")))
        r->out->activation = ACTIVATION_SILU;
    else if (name && (!strcmp(name, "gelu_pytorch_tanh") || !strcmp(name, "gelu_new")))
        r->out->activation = ACTIVATION_GELU_TANH;
    else
        return wrong(r->path, key, v, "\"silu\" or \"gelu_pytorch_tanh\": other activations are not supported", err);
    return true;
}
static bool read_biases(const Reader *r, Err *err) {
    ModelConfig *c = r->out;
    BiasRule rule = r->family->bias;
    bool attention = false;
    TRY(get_bool(r->config, r->path, "attention_bias", &attention, err));
    TRY(get_bool(r->config, r->path, "mlp_bias", &c->mlp_bias, err));
    if (rule == BIAS_NONE && attention) return wrong(r->path, "attention_bias", key_of(r->config, "attention_bias"), "false: not supported by this family", err);
    if (rule != BIAS_ALL && c->mlp_bias) return wrong(r->path, "mlp_bias", key_of(r->config, "mlp_bias"), "false: not supported by this family", err);
    c->qkv_bias = rule == BIAS_QKV || attention;
    c->output_bias = rule != BIAS_QKV && attention;
    return true;
}
static bool read_scores(const Reader *r, Err *err) {
    static const char *const keys[] = {"query_pre_attn_scalar", "final_logit_softcapping"};
    for (int i = 0; i < COUNT(keys); i++)
        if (r->family->query_scalar == 0 && key_of(r->config, keys[i]))
            return wrong(r->path, keys[i], key_of(r->config, keys[i]), "null: not supported by this family", err);
    TRY(get_number(r->config, r->path, keys[0], &r->out->query_scalar, err));
    return get_number(r->config, r->path, keys[1], &r->out->logit_softcap, err);
}

// ---- special tokens --------------------------------------------------------------------------------------
// Missing, null and -1 (which old configurations write) mean none.
static bool get_token(const json_t *config, const char *path, const char *key, int32_t *out, Err *err) {
    const json_t *v = key_of(config, key);
    if (!v) return true;
    if (json_is_array(v) && json_array_size(v) > 0) v = json_array_get(v, 0);
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : INT64_MAX;
    if (id < -1 || id > INT32_MAX) return wrong(path, key, v, "a token id or null", err);
    *out = (int32_t)id;
    return true;
}
// As transformers does: what the generation configuration says counts, else what the model's says.
static bool get_stops(const json_t *config, const json_t *generation, const char *path, ModelConfig *out, Err *err) {
    const json_t *v = key_of(generation, "eos_token_id") ? key_of(generation, "eos_token_id") : key_of(config, "eos_token_id");
    size_t count = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;
    if (count > MAX_STOP_IDS) return fail(err, ERR_DATA, path, "eos_token_id lists %zu tokens, expected at most %d", count, MAX_STOP_IDS);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : INT64_MAX;
        if (id < -1 || id > INT32_MAX) return wrong(path, "eos_token_id", v, "a token id or a list of them", err);
        if (id >= 0) out->stop_ids[out->stop_count++] = (int32_t)id;
    }
    return true;
}
static bool read_tokens(const Reader *r, const json_t *generation, Err *err) {
    TRY(get_token(generation, r->path, "bos_token_id", &r->out->bos_id, err));
    TRY(get_token(r->config, r->path, "bos_token_id", &r->out->bos_id, err));
    TRY(get_token(generation, r->path, "pad_token_id", &r->out->pad_id, err));
    TRY(get_token(r->config, r->path, "pad_token_id", &r->out->pad_id, err));
    return get_stops(r->config, generation, r->path, r->out, err);
}

// ---- reading ---------------------------------------------------------------------------------------------
static bool read_family(const json_t *config, const char *path, const Family **out, Err *err) {
    const json_t *type = key_of(config, "model_type");
    *out = json_is_string(type) ? family_find(json_string_value(type)) : NULL;
    if (*out) return true;
    Buf known = {0};
    for (int i = 0; family_at(i); i++) buf_printf(&known, "%s\"%s\"", i ? ", " : "one of ", family_at(i)->model_type);
    wrong(path, "model_type", type, known.data, err);
    buf_free(&known);
    return false;
}
static bool read_shapes(const json_t *config, const char *path, ModelConfig *out, Err *err) {
    TRY(get_int(config, path, "num_hidden_layers", true, &out->layers, err));
    TRY(get_int(config, path, "hidden_size", true, &out->width, err));
    TRY(get_int(config, path, "num_attention_heads", true, &out->heads, err));
    TRY(get_int(config, path, "intermediate_size", true, &out->feed_forward, err));
    TRY(get_int(config, path, "vocab_size", true, &out->vocabulary, err));
    TRY(get_int(config, path, "max_position_embeddings", false, &out->max_positions, err));
    if (out->layers > MAX_LAYERS) return fail(err, ERR_DATA, path, "num_hidden_layers is %d, expected 1 to %d", out->layers, MAX_LAYERS);
    out->kv_heads = out->heads;
    TRY(get_int(config, path, "num_key_value_heads", false, &out->kv_heads, err));
    if (json_is_null(json_object_get(config, "head_dim"))) out->head_width = 0;
    TRY(get_int(config, path, "head_dim", false, &out->head_width, err));
    if (out->head_width) return true;
    if (out->width % out->heads != 0)
        return fail(err, ERR_DATA, path, "num_attention_heads is %d, which doesn't divide hidden_size %d, and head_dim isn't given", out->heads, out->width);
    out->head_width = out->width / out->heads;
    return true;
}

bool config_from_json(const json_t *config, const json_t *generation_config, const char *path, ModelConfig *out, Err *err) {
    Reader r = {.config = config, .path = path, .out = out};
    memset(out, 0, sizeof *out);
    out->bos_id = out->pad_id = -1;
    if (!json_is_object(config)) return wrong(path, "the configuration", config, "an object", err);
    if (generation_config && !json_is_object(generation_config))
        return wrong(path, "the generation configuration", generation_config, "an object", err);
    TRY(read_family(config, path, &r.family, err));
    family_options(r.family, out);
    TRY(check_keys(&r, err));
    TRY(read_shapes(config, path, out, err));
    TRY(get_number(config, path, "rms_norm_eps", &out->norm_eps, err));
    TRY(get_number(config, path, "initializer_range", &out->initializer_range, err));
    TRY(get_bool(config, path, "tie_word_embeddings", &out->tied, err));
    TRY(read_activation_key(&r, "hidden_act", err) && read_activation_key(&r, "hidden_activation", err));
    TRY(read_biases(&r, err));
    TRY(read_scores(&r, err));
    TRY(read_windows(&r, err));
    TRY(mixture_read(config, path, r.family, out, err));
    TRY(read_rope(&r, err));
    TRY(read_tokens(&r, generation_config, err));
    return config_check(out, path, err);
}
