// What a configuration must keep, wherever it came from, and what follows from it: parameters and FLOPs.
#include "config_parts.h"
#include <string.h>

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
// Bounds far above any model, and low enough that products of three of them fit 64 bits.
static bool check_shapes(const ModelConfig *c, const char *where, Err *err) {
    const struct {
        const char *name;
        int32_t value, limit;
    } ranges[] = {
        {"num_hidden_layers", c->layers, MAX_LAYERS}, {"hidden_size", c->width, 1 << 18},
        {"num_attention_heads", c->heads, 4096},      {"num_key_value_heads", c->kv_heads, 4096},
        {"head_dim", c->head_width, 4096},            {"intermediate_size", c->feed_forward, 1 << 20},
        {"vocab_size", c->vocabulary, 1 << 24},       {"max_position_embeddings", c->max_positions, INT32_MAX},
    };
    for (int i = 0; i < COUNT(ranges); i++)
        if (ranges[i].value < 1 || ranges[i].value > ranges[i].limit)
            return fail(err, ERR_DATA, where, "%s is %d, expected 1 to %d", ranges[i].name, ranges[i].value, ranges[i].limit);
    if (c->heads % c->kv_heads != 0)
        return fail(err, ERR_DATA, where, "num_key_value_heads is %d, expected a divisor of num_attention_heads %d", c->kv_heads, c->heads);
    if (c->head_width % 2 != 0 && !c->latent.R) return fail(err, ERR_DATA, where, "head_dim is %d, expected an even number", c->head_width);
    return true;
}
// What config.json has no key for can't be saved, so it can't be had.
static bool check_family(const ModelConfig *c, const char *where, Err *err) {
    const Family *f = family_find(c->model_type);
    if (!f) return fail(err, ERR_DATA, where, "model_type '%.31s' isn't supported", c->model_type);
    bool qkv = f->bias == BIAS_QKV ? c->qkv_bias : f->bias == BIAS_NONE ? !c->qkv_bias : true;
    bool output = f->bias == BIAS_ATTENTION || f->bias == BIAS_ALL ? c->output_bias == c->qkv_bias : !c->output_bias;
    if (!qkv || !output || (c->mlp_bias && f->bias != BIAS_ALL))
        return fail(err, ERR_DATA, where, "biases on %s%s%s aren't those of a %s model", c->qkv_bias ? "q, k, v " : "",
                    c->output_bias ? "o " : "", c->mlp_bias ? "gate, up, down " : "", c->model_type);
    bool same = c->fused == f->fused && c->norm_placement == f->norm_placement && c->qk_norm == f->qk_norm && c->norm_offset == f->norm_offset &&
                c->embedding_scaled == f->embedding_scaled && c->local_rope == (f->local_theta != 0);
    if (!same) return fail(err, ERR_DATA, where, "norms, scales or fused tensors aren't those of a %s model", c->model_type);
    if ((f->query_scalar == 0 && (c->query_scalar != 0 || c->logit_softcap != 0)) || (!f->partial_rotary && c->rotary_width && !c->latent.R))
        return fail(err, ERR_DATA, where, "a %s model has no query scalar, no cap of logits and no heads that turn in part", c->model_type);
    return true;
}
static bool check_windows(const ModelConfig *c, const char *where, Err *err) {
    const Family *f = family_find(c->model_type);
    int windows = 0;
    for (int i = 0; i < c->layers; i++) windows += config_window(c, i) != 0;
    if (c->window < 0 || (windows == 0) != (c->window == 0))
        return fail(err, ERR_DATA, where, "sliding_window is %d, and %d layers have one", c->window, windows);
    if (windows && (f->windows == WINDOWS_NONE || ((f->windows == WINDOWS_ALL || f->windows == WINDOWS_SWITCHED) && windows != c->layers)))
        return fail(err, ERR_DATA, where, "%d of %d layers have windows, which isn't so in %s models", windows, c->layers, c->model_type);
    return true;
}

static bool check_rope(const ModelConfig *c, const RopeConfig *r, const char *where, Err *err) {
    bool scaled = r->kind == ROPE_LINEAR || r->kind == ROPE_DYNAMIC || r->kind == ROPE_LLAMA3;
    bool original = r->kind != ROPE_DEFAULT && r->kind != ROPE_LINEAR;
    if (!(r->theta >= 1 && r->theta <= 1e12)) return fail(err, ERR_DATA, where, "rope_theta is %g, expected 1 to 1e12", r->theta);
    if ((scaled || r->factor != 0) && !(r->factor >= 1 && r->factor <= 1e6))
        return fail(err, ERR_DATA, where, "the rotary positions' factor is %g, expected 1 to 1e6", r->factor);
    if (original && r->original_positions < 1)
        return fail(err, ERR_DATA, where, "original_max_position_embeddings is %d, expected at least 1", r->original_positions);
    if (r->kind == ROPE_LONGROPE && r->original_positions < 2)
        return fail(err, ERR_DATA, where, "original_max_position_embeddings is %d, expected at least 2", r->original_positions);
    if (r->kind == ROPE_LLAMA3 && !(r->low_frequency > 0 && r->high_frequency > r->low_frequency && r->high_frequency <= 1e6))
        return fail(err, ERR_DATA, where, "low_freq_factor is %g and high_freq_factor %g, expected 0 < low < high", r->low_frequency, r->high_frequency);
    if (r->kind == ROPE_YARN && !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow && r->beta_fast <= 1e6 && r->theta > 1))
        return fail(err, ERR_DATA, where, "beta_fast is %g and beta_slow %g, expected 0 < beta_slow <= beta_fast and a rope_theta above 1", r->beta_fast, r->beta_slow);
    if (!(r->mscale >= 0 && r->mscale <= 1e3 && r->mscale_all_dim >= 0 && r->mscale_all_dim <= 1e3 && r->attention_factor >= 0 && r->attention_factor <= 1e3))
        return fail(err, ERR_DATA, where, "mscale %g, mscale_all_dim %g, attention_factor %g, expected 0 to 1000", r->mscale, r->mscale_all_dim, r->attention_factor);
    if (r->kind == ROPE_DYNAMIC && config_rotary(c) <= 2)
        return fail(err, ERR_DATA, where, "rope_type \"dynamic\" with heads of %d, expected more than 2 elements that turn", config_rotary(c));
    return true;
}
static bool check_numbers(const ModelConfig *c, const char *where, Err *err) {
    if (!(c->norm_eps > 0 && c->norm_eps < 1)) return fail(err, ERR_DATA, where, "rms_norm_eps is %g, expected more than 0 and less than 1", c->norm_eps);
    if (!(c->initializer_range >= 0 && c->initializer_range <= 10))
        return fail(err, ERR_DATA, where, "initializer_range is %g, expected 0 to 10", c->initializer_range);
    if (!(c->query_scalar >= 0 && c->query_scalar <= 1e9)) return fail(err, ERR_DATA, where, "query_pre_attn_scalar is %g, expected 0 to 1e9", c->query_scalar);
    if (!(c->logit_softcap >= 0 && c->logit_softcap <= 1e9)) return fail(err, ERR_DATA, where, "final_logit_softcapping is %g, expected 0 to 1e9", c->logit_softcap);
    if (c->rotary_width < 0 || c->rotary_width > c->head_width || config_rotary(c) > c->head_width)
        return fail(err, ERR_DATA, where, "%d elements of a head turn, expected at most head_dim %d", c->rotary_width, c->head_width);
    return check_rope(c, &c->rope[0], where, err) && (!c->local_rope || check_rope(c, &c->rope[1], where, err));
}
bool config_check(const ModelConfig *c, const char *where, Err *err) {
    return check_shapes(c, where, err) && check_family(c, where, err) && check_windows(c, where, err) && mixture_check(c, where, err) && check_numbers(c, where, err) &&
           check_tokens(c, where, err);
}

int config_window_pattern(const ModelConfig *c) {
    int pattern = 1;
    while (pattern <= c->layers && config_window(c, pattern - 1)) pattern++;
    for (int i = 0; i < c->layers; i++)
        if ((config_window(c, i) != 0) != ((i + 1) % pattern != 0)) return 0;
    return pattern;
}
// ---- counting --------------------------------------------------------------------------------------------
static bool count_tensor(void *context, const TensorSpec *t, Err *err) {
    (void)err;
    *(int64_t *)context += t->rows * (t->columns ? t->columns : 1);
    return true;
}
int64_t config_parameters(const ModelConfig *c) {
    int64_t count = 0;
    return family_tensors(c, count_tensor, &count, NULL) ? count : 0;
}
// Elements of the matrices that a token passes in one layer, of k experts those that it goes to; latent attention multiplies by
// its inner matrices once for queries and once for what it gives.
static int64_t layer_matrices(const ModelConfig *c, int layer) {
    const LatentConfig *l = &c->latent;
    const ExpertsConfig *e = &c->experts;
    int64_t width = c->width, H = c->heads, q = H * c->head_width, kv = (int64_t)c->kv_heads * c->head_width;
    int64_t attention = width * (2 * q + 2 * kv), feed_forward = 3 * width * c->feed_forward;
    if (l->R) {
        int64_t queries = l->q_rank ? l->q_rank * (width + q) : width * q;
        attention = queries + width * (l->R + l->P) + H * l->R * (l->N + l->V) + H * l->V * width;
    }
    if (config_has_experts(c, layer)) feed_forward = width * e->count + 3 * width * ((int64_t)e->chosen * e->feed_forward + e->shared);
    return attention + feed_forward;
}
// Matrix products and attention's two (scores, then values); norms, rotations and activations are left out, as is usual.
double config_flops(const ModelConfig *c, double context, bool with_head) {
    double sum = with_head ? 2.0 * c->width * c->vocabulary : 0;
    double widths = c->latent.R ? 2.0 * c->latent.R + c->latent.P : 2.0 * c->head_width; // of a key and of a value
    for (int i = 0; i < c->layers; i++) {
        int32_t window = config_window(c, i);
        sum += 2.0 * (double)layer_matrices(c, i) + 2.0 * c->heads * widths * (window && window < context ? window : context);
    }
    return sum;
}
