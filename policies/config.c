// config.json in both generations of Hugging Face keys (rope_theta + rope_scaling + torch_dtype; rope_parameters +
// dtype). A family is a row of defaults. Any key that would change the numbers and that isn't supported is an error
// naming it; keys about training, caching or provenance are passed over.
#include "config_parts.h"
#include "family.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- what isn't supported --------------------------------------------------------------------------------
static bool check_rope(const json_t *rope, const char *path, const char *key, Err *err) {
    if (!rope) return true;
    if (!json_is_object(rope)) return wrong(path, key, rope, "an object or null", err);
    const json_t *type = key_of(rope, "rope_type") ? key_of(rope, "rope_type") : key_of(rope, "type");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "default") != 0)) {
        char name[64];
        snprintf(name, sizeof name, "%s.rope_type", key);
        return wrong(path, name, type, "\"default\": scaled rotary positions are not supported", err);
    }
    const char *inner;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)rope, inner, value) {
        bool fine = !strcmp(inner, "rope_type") || !strcmp(inner, "type") || !strcmp(inner, "rope_theta") || json_is_null(value) ||
                    (!strcmp(inner, "partial_rotary_factor") && json_number_value(value) == 1);
        if (!fine)
            return fail(err, ERR_DATA, path, "%s.%.60s is not supported, expected only rope_type \"default\" and rope_theta", key, inner);
    }
    return true;
}
static bool check_activation(const json_t *config, const char *path, Err *err) {
    const json_t *v = key_of(config, "hidden_act");
    const char *name = json_string_value(v);
    return !v || (name && (!strcmp(name, "silu") || !strcmp(name, "swish"))) ||
           wrong(path, "hidden_act", v, "\"silu\": other activations are not supported", err);
}
static bool check_windows(const json_t *config, const char *path, Err *err) {
    bool window = false;
    TRY(get_bool(config, path, "use_sliding_window", &window, err));
    if (window) return fail(err, ERR_DATA, path, "use_sliding_window is true, expected false: windows are not supported");
    const json_t *types = key_of(config, "layer_types"), *type;
    size_t i;
    json_array_foreach(types, i, type)
        if (!json_is_string(type) || strcmp(json_string_value(type), "full_attention") != 0)
            return wrong(path, "layer_types", type, "\"full_attention\" in every layer: windows are not supported", err);
    return true;
}
static bool check_supported(const json_t *config, const char *path, Err *err) {
    TRY(check_rope(key_of(config, "rope_parameters"), path, "rope_parameters", err));
    TRY(check_rope(key_of(config, "rope_scaling"), path, "rope_scaling", err));
    TRY(check_activation(config, path, err));
    TRY(check_windows(config, path, err));
    double rotary = 1;
    TRY(get_number(config, path, "partial_rotary_factor", &rotary, err));
    if (rotary != 1) return wrong(path, "partial_rotary_factor", key_of(config, "partial_rotary_factor"), "1: not supported", err);
    if (key_of(config, "quantization_config"))
        return fail(err, ERR_DATA, path, "quantization_config is not supported, expected weights in F32, F16 or BF16");
    return true;
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

// ---- reading ---------------------------------------------------------------------------------------------
static bool read_family(const json_t *config, const char *path, const Family **out, Err *err) {
    const json_t *type = key_of(config, "model_type");
    *out = json_is_string(type) ? family_find(json_string_value(type)) : NULL;
    if (*out) return true;
    Buf known = {0};
    for (int i = 0; family_at(i); i++) buf_printf(&known, "%s\"%s\"", i ? " or " : "", family_at(i)->model_type);
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
    out->kv_heads = out->heads;
    TRY(get_int(config, path, "num_key_value_heads", false, &out->kv_heads, err));
    if (!key_of(config, "head_dim")) {
        if (out->width % out->heads != 0)
            return fail(err, ERR_DATA, path, "num_attention_heads is %d, which doesn't divide hidden_size %d, and head_dim isn't given",
                        out->heads, out->width);
        out->head_width = out->width / out->heads;
    }
    return get_int(config, path, "head_dim", false, &out->head_width, err);
}
static bool read_numbers(const json_t *config, const char *path, ModelConfig *out, Err *err) {
    out->norm_eps = 1e-6;
    out->rope[0].theta = 10000;
    out->initializer_range = 0.02;
    TRY(get_number(config, path, "rms_norm_eps", &out->norm_eps, err));
    TRY(get_number(config, path, "initializer_range", &out->initializer_range, err));
    TRY(get_number(config, path, "rope_theta", &out->rope[0].theta, err));
    const json_t *rope = key_of(config, "rope_parameters"); // the newer home of rope_theta counts
    return get_number(rope ? rope : key_of(config, "rope_scaling"), path, "rope_theta", &out->rope[0].theta, err);
}

bool config_from_json(const json_t *config, const json_t *generation_config, const char *path, ModelConfig *out, Err *err) {
    const Family *family;
    *out = (ModelConfig){.bos_id = -1, .pad_id = -1};
    if (!json_is_object(config)) return wrong(path, "the configuration", config, "an object", err);
    if (generation_config && !json_is_object(generation_config))
        return wrong(path, "the generation configuration", generation_config, "an object", err);
    TRY(read_family(config, path, &family, err));
    family_options(family, out);
    TRY(check_supported(config, path, err));
    TRY(read_shapes(config, path, out, err));
    TRY(read_numbers(config, path, out, err));
    TRY(get_bool(config, path, "tie_word_embeddings", &out->tied, err));
    if (family->bias == BIAS_ALL) {
        TRY(get_bool(config, path, "attention_bias", &out->qkv_bias, err));
        TRY(get_bool(config, path, "mlp_bias", &out->mlp_bias, err));
        out->output_bias = out->qkv_bias;
    }
    TRY(get_token(generation_config, path, "bos_token_id", &out->bos_id, err));
    TRY(get_token(config, path, "bos_token_id", &out->bos_id, err));
    TRY(get_token(generation_config, path, "pad_token_id", &out->pad_id, err));
    TRY(get_token(config, path, "pad_token_id", &out->pad_id, err));
    TRY(get_stops(config, generation_config, path, out, err));
    return config_check(out, path, err);
}

// ---- checking --------------------------------------------------------------------------------------------
static bool check_tokens(const ModelConfig *c, const char *where, Err *err) {
    if (c->stop_count < 0 || c->stop_count > MAX_STOP_IDS) return fail(err, ERR_DATA, where, "%d end tokens, expected at most %d", c->stop_count, MAX_STOP_IDS);
    if (c->bos_id < -1 || c->bos_id >= c->vocabulary)
        return fail(err, ERR_DATA, where, "bos_token_id is %d, expected less than vocab_size %d", c->bos_id, c->vocabulary);
    if (c->pad_id < -1 || c->pad_id >= c->vocabulary)
        return fail(err, ERR_DATA, where, "pad_token_id is %d, expected less than vocab_size %d", c->pad_id, c->vocabulary);
    for (int i = 0; i < c->stop_count; i++)
        if (c->stop_ids[i] < 0 || c->stop_ids[i] >= c->vocabulary)
            return fail(err, ERR_DATA, where, "eos_token_id is %d, expected less than vocab_size %d", c->stop_ids[i], c->vocabulary);
    return true;
}
bool config_check(const ModelConfig *c, const char *where, Err *err) {
    // Bounds far above any model, and low enough that products of three of them fit 64 bits.
    const struct {
        const char *name;
        int32_t value, limit;
    } ranges[] = {
        {"num_hidden_layers", c->layers, MAX_LAYERS},       {"hidden_size", c->width, 1 << 18},
        {"num_attention_heads", c->heads, 4096},      {"num_key_value_heads", c->kv_heads, 4096},
        {"head_dim", c->head_width, 4096},            {"intermediate_size", c->feed_forward, 1 << 20},
        {"vocab_size", c->vocabulary, 1 << 24},       {"max_position_embeddings", c->max_positions, INT32_MAX},
    };
    for (int i = 0; i < COUNT(ranges); i++)
        if (ranges[i].value < 1 || ranges[i].value > ranges[i].limit)
            return fail(err, ERR_DATA, where, "%s is %d, expected 1 to %d", ranges[i].name, ranges[i].value, ranges[i].limit);
    const Family *family = family_find(c->model_type);
    if (!family) return fail(err, ERR_DATA, where, "model_type '%.31s' isn't supported", c->model_type);
    // What config.json has no key for can't be saved, so it can't be had.
    if (family->bias == BIAS_ALL ? c->qkv_bias != c->output_bias : !c->qkv_bias || c->output_bias || c->mlp_bias)
        return fail(err, ERR_DATA, where, "biases on %s%s%s aren't those of a %s model", c->qkv_bias ? "q, k, v " : "",
                    c->output_bias ? "o " : "", c->mlp_bias ? "gate, up, down " : "", c->model_type);
    if (c->heads % c->kv_heads != 0)
        return fail(err, ERR_DATA, where, "num_key_value_heads is %d, expected a divisor of num_attention_heads %d", c->kv_heads, c->heads);
    if (c->head_width % 2 != 0) return fail(err, ERR_DATA, where, "head_dim is %d, expected an even number", c->head_width);
    if (!(c->norm_eps > 0 && c->norm_eps < 1)) return fail(err, ERR_DATA, where, "rms_norm_eps is %g, expected more than 0 and less than 1", c->norm_eps);
    if (!(c->rope[0].theta >= 1 && c->rope[0].theta <= 1e12)) return fail(err, ERR_DATA, where, "rope_theta is %g, expected 1 to 1e12", c->rope[0].theta);
    if (!(c->initializer_range >= 0 && c->initializer_range <= 10))
        return fail(err, ERR_DATA, where, "initializer_range is %g, expected 0 to 10", c->initializer_range);
    return check_tokens(c, where, err);
}

// ---- writing ---------------------------------------------------------------------------------------------
static json_t *token_or_null(int32_t id) { return id < 0 ? json_null() : json_integer(id); }
static json_t *stops_json(const ModelConfig *c) {
    if (c->stop_count == 0) return json_null();
    if (c->stop_count == 1) return json_integer(c->stop_ids[0]);
    json_t *list = json_array();
    for (int i = 0; i < c->stop_count; i++) json_array_append_new(list, json_integer(c->stop_ids[i]));
    return list;
}
json_t *config_to_json(const ModelConfig *c, const char *dtype) {
    const Family *family = family_find(c->model_type);
    json_t *j = json_object(), *architectures = json_array(), *rope = json_object();
    if (family) json_array_append_new(architectures, json_string(family->architecture));
    json_object_set_new(j, "architectures", architectures);
    json_object_set_new(j, "model_type", json_string(c->model_type));
    json_object_set_new(j, "num_hidden_layers", json_integer(c->layers));
    json_object_set_new(j, "hidden_size", json_integer(c->width));
    json_object_set_new(j, "num_attention_heads", json_integer(c->heads));
    json_object_set_new(j, "num_key_value_heads", json_integer(c->kv_heads));
    json_object_set_new(j, "head_dim", json_integer(c->head_width));
    json_object_set_new(j, "intermediate_size", json_integer(c->feed_forward));
    json_object_set_new(j, "vocab_size", json_integer(c->vocabulary));
    json_object_set_new(j, "max_position_embeddings", json_integer(c->max_positions));
    json_object_set_new(j, "hidden_act", json_string("silu"));
    json_object_set_new(j, "rms_norm_eps", json_real(c->norm_eps));
    json_object_set_new(j, "initializer_range", json_real(c->initializer_range));
    json_object_set_new(j, "attention_dropout", json_real(0));
    // Both generations: older readers take rope_theta, newer ones rope_parameters.
    json_object_set_new(j, "rope_theta", json_real(c->rope[0].theta));
    json_object_set_new(rope, "rope_type", json_string("default"));
    json_object_set_new(rope, "rope_theta", json_real(c->rope[0].theta));
    json_object_set_new(j, "rope_parameters", rope);
    json_object_set_new(j, "tie_word_embeddings", json_boolean(c->tied));
    if (family && family->bias == BIAS_ALL) {
        json_object_set_new(j, "attention_bias", json_boolean(c->qkv_bias));
        json_object_set_new(j, "mlp_bias", json_boolean(c->mlp_bias));
    } else {
        json_object_set_new(j, "use_sliding_window", json_false());
    }
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

// ---- counting --------------------------------------------------------------------------------------------
// Elements of one layer's matrices: q, k, v, o, gate, up, down.
static int64_t layer_matrices(const ModelConfig *c) {
    int64_t width = c->width, q = (int64_t)c->heads * c->head_width, kv = (int64_t)c->kv_heads * c->head_width;
    return width * (2 * q + 2 * kv) + 3 * width * c->feed_forward;
}
int64_t config_parameters(const ModelConfig *c) {
    int64_t width = c->width, q = (int64_t)c->heads * c->head_width, kv = (int64_t)c->kv_heads * c->head_width;
    int64_t layer = layer_matrices(c) + 2 * width; // two norms
    if (c->qkv_bias) layer += q + 2 * kv;
    if (c->output_bias) layer += width;
    if (c->mlp_bias) layer += 2 * (int64_t)c->feed_forward + width;
    return c->layers * layer + width + (c->tied ? 1 : 2) * width * c->vocabulary;
}
// Matrix products and attention's two (scores, then values); norms, rotations and activations are left out, as is usual.
double config_flops(const ModelConfig *c, double context, bool with_head) {
    double attention = 4.0 * c->heads * c->head_width * context;
    double head = with_head ? 2.0 * c->width * c->vocabulary : 0;
    return c->layers * (2.0 * (double)layer_matrices(c) + attention) + head;
}
