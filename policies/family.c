// The table of families and the tensors of a model. Adding a family that differs from another by options only is a row
// here; a new kind of layer also is a TensorRole and its rows in attention_tensors or feed_forward_tensors.
#include "family.h"
#include <stdio.h>
#include <string.h>

static const Family families[] = {
    {.model_type = "llama", .architecture = "LlamaForCausalLM", .gguf = "llama", .gguf_interleaved = true, .max_positions = 2048,
     .norm_eps = 1e-6, .theta = 10000, .bias = BIAS_ALL},
    {.model_type = "mistral", .architecture = "MistralForCausalLM", .gguf = "llama", .gguf_interleaved = true, .max_positions = 4096 * 32,
     .norm_eps = 1e-6, .theta = 10000, .windows = WINDOWS_ALL, .default_window = 4096},
    {.model_type = "qwen2", .architecture = "Qwen2ForCausalLM", .gguf = "qwen2", .max_positions = 32768, .norm_eps = 1e-6, .theta = 10000,
     .bias = BIAS_QKV, .windows = WINDOWS_UPPER, .default_window = 4096, .full_layers = 28},
    {.model_type = "qwen3", .architecture = "Qwen3ForCausalLM", .gguf = "qwen3", .max_positions = 32768, .norm_eps = 1e-6, .theta = 10000,
     .bias = BIAS_ATTENTION, .windows = WINDOWS_UPPER, .default_window = 4096, .full_layers = 28, .head_width = 128, .qk_norm = QK_NORM_HEADS},
    {.model_type = "gemma3_text", .architecture = "Gemma3ForCausalLM", .gguf = "gemma3", .max_positions = 131072, .norm_eps = 1e-6,
     .theta = 1e6, .local_theta = 1e4, .bias = BIAS_ATTENTION, .windows = WINDOWS_PATTERN, .default_window = 4096, .head_width = 256,
     .query_scalar = 256, .tied = true, .qk_norm = QK_NORM_HEADS, .norm_placement = NORM_AROUND, .norm_offset = true,
     .embedding_scaled = true, .activation = ACTIVATION_GELU_TANH},
    {.model_type = "phi3", .architecture = "Phi3ForCausalLM", .gguf = "phi3", .max_positions = 4096, .original_positions = 4096,
     .norm_eps = 1e-5, .theta = 10000, .windows = WINDOWS_ALL, .fused = true, .partial_rotary = true},
    {.model_type = "olmo2", .architecture = "Olmo2ForCausalLM", .gguf = "olmo2", .max_positions = 2048, .norm_eps = 1e-5, .theta = 10000,
     .bias = BIAS_ATTENTION, .qk_norm = QK_NORM_WHOLE, .norm_placement = NORM_AFTER},
    {.model_type = "mixtral", .architecture = "MixtralForCausalLM", .gguf = "llama", .gguf_interleaved = true, .max_positions = 4096 * 32,
     .norm_eps = 1e-5, .theta = 1e6, .windows = WINDOWS_ALL, .mixture = MIXTURE_MIXTRAL},
    {.model_type = "qwen3_moe", .architecture = "Qwen3MoeForCausalLM", .gguf = "qwen3moe", .max_positions = 32768, .norm_eps = 1e-6,
     .theta = 10000, .bias = BIAS_ATTENTION, .windows = WINDOWS_SWITCHED, .default_window = 4096, .qk_norm = QK_NORM_HEADS,
     .mixture = MIXTURE_QWEN},
    {.model_type = "deepseek_v2", .architecture = "DeepseekV2ForCausalLM", .gguf = "deepseek2", .max_positions = 2048, .norm_eps = 1e-6,
     .theta = 10000, .bias = BIAS_ALL, .mixture = MIXTURE_DEEPSEEK_V2},
    {.model_type = "deepseek_v3", .architecture = "DeepseekV3ForCausalLM", .gguf = "deepseek2", .max_positions = 4096, .norm_eps = 1e-6,
     .theta = 10000, .bias = BIAS_ATTENTION, .mixture = MIXTURE_DEEPSEEK_V3},
};

const Family *family_at(int index) { return index < COUNT(families) ? &families[index] : NULL; }
const Family *family_find(const char *model_type) {
    for (int i = 0; i < COUNT(families); i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    return NULL;
}
void family_options(const Family *f, ModelConfig *out) {
    snprintf(out->model_type, sizeof out->model_type, "%s", f->model_type);
    out->max_positions = f->max_positions;
    out->norm_eps = f->norm_eps;
    out->initializer_range = 0.02;
    out->tied = f->tied;
    out->qkv_bias = f->bias == BIAS_QKV;
    out->fused = f->fused;
    out->norm_placement = f->norm_placement;
    out->qk_norm = f->qk_norm;
    out->norm_offset = f->norm_offset;
    out->activation = f->activation;
    out->embedding_scaled = f->embedding_scaled;
    out->query_scalar = f->query_scalar;
    out->head_width = f->head_width;
    out->local_rope = f->local_theta != 0;
    out->rope[0] = (RopeConfig){.theta = f->theta};
    out->rope[1] = (RopeConfig){.theta = f->local_theta};
}

bool family_is_norm(TensorRole role) {
    return role == ROLE_ATTENTION_NORM || role == ROLE_ATTENTION_POST_NORM || role == ROLE_FFN_NORM || role == ROLE_FFN_POST_NORM ||
           role == ROLE_Q_NORM || role == ROLE_K_NORM || role == ROLE_Q_A_NORM || role == ROLE_KV_A_NORM || role == ROLE_FINAL_NORM;
}

// ---- tensors ---------------------------------------------------------------------------------------------
typedef struct Row {
    bool present;
    TensorRole role;
    bool bias;
    const char *name, *gguf; // within the layer, without ".weight" and ".bias"
    int64_t rows, columns;
    int32_t rotary_heads;
    int64_t block[2];
} Row;
typedef struct Walk {
    bool (*visit)(void *context, const TensorSpec *t, Err *err);
    void *context;
} Walk;

static bool visit_row(const Walk *w, int layer, const Row *r, Err *err) {
    TensorSpec t = {.layer = layer, .role = r->role, .bias = r->bias, .rows = r->rows, .columns = r->columns, .rotary_heads = r->rotary_heads};
    const char *kind = r->bias ? "bias" : "weight";
    t.block[0] = r->block[0], t.block[1] = r->block[1];
    if (layer < 0) {
        snprintf(t.name, sizeof t.name, "%s.%s", r->name, kind);
        snprintf(t.gguf, sizeof t.gguf, "%s.%s", r->gguf, kind);
    } else {
        snprintf(t.name, sizeof t.name, "model.layers.%d.%s.%s", layer, r->name, kind);
        snprintf(t.gguf, sizeof t.gguf, "blk.%d.%s.%s", layer, r->gguf, kind);
    }
    return w->visit(w->context, &t, err);
}
static bool visit_rows(const Walk *w, int layer, const Row *rows, int count, Err *err) {
    for (int i = 0; i < count; i++)
        if (rows[i].present) TRY(visit_row(w, layer, &rows[i], err));
    return true;
}

static bool attention_tensors(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    int64_t C = c->width, q = (int64_t)c->heads * c->head_width, kv = (int64_t)c->kv_heads * c->head_width;
    bool before = c->norm_placement != NORM_AFTER, after = c->norm_placement != NORM_BEFORE, qk = c->qk_norm != QK_NORM_NONE;
    bool whole = c->qk_norm == QK_NORM_WHOLE, split = !c->fused;
    const Row rows[] = {
        {before, ROLE_ATTENTION_NORM, false, "input_layernorm", "attn_norm", C, 0, 0, {0}},
        {c->fused, ROLE_QKV, false, "self_attn.qkv_proj", "attn_qkv", q + 2 * kv, C, 0, {0}},
        {split, ROLE_QKV, false, "self_attn.q_proj", "attn_q", q, C, c->heads, {0}},
        {split, ROLE_QKV, false, "self_attn.k_proj", "attn_k", kv, C, c->kv_heads, {0}},
        {split, ROLE_QKV, false, "self_attn.v_proj", "attn_v", kv, C, 0, {0}},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.q_proj", "attn_q", q, 0, c->heads, {0}},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.k_proj", "attn_k", kv, 0, c->kv_heads, {0}},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.v_proj", "attn_v", kv, 0, 0, {0}},
        {qk, ROLE_Q_NORM, false, "self_attn.q_norm", "attn_q_norm", whole ? q : c->head_width, 0, 0, {0}},
        {qk, ROLE_K_NORM, false, "self_attn.k_norm", "attn_k_norm", whole ? kv : c->head_width, 0, 0, {0}},
        {true, ROLE_OUTPUT, false, "self_attn.o_proj", "attn_output", C, q, 0, {0}},
        {c->output_bias, ROLE_OUTPUT, true, "self_attn.o_proj", "attn_output", C, 0, 0, {0}},
        {after, ROLE_ATTENTION_POST_NORM, false, "post_attention_layernorm", "post_attention_norm", C, 0, 0, {0}},
    };
    return visit_rows(w, layer, rows, COUNT(rows), err);
}
static bool feed_forward_tensors(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    int64_t C = c->width, F = c->feed_forward;
    bool before = c->norm_placement != NORM_AFTER, after = c->norm_placement != NORM_BEFORE, split = !c->fused;
    // Where a block's output has a norm too, the name "post_attention" is that one's.
    const char *norm = after ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    const Row rows[] = {
        {before, ROLE_FFN_NORM, false, norm, "ffn_norm", C, 0, 0, {0}},
        {c->fused, ROLE_GATE_UP, false, "mlp.gate_up_proj", "ffn_up", 2 * F, C, 0, {0}},
        {split, ROLE_GATE_UP, false, "mlp.gate_proj", "ffn_gate", F, C, 0, {0}},
        {split, ROLE_GATE_UP, false, "mlp.up_proj", "ffn_up", F, C, 0, {0}},
        {c->mlp_bias, ROLE_GATE_UP, true, "mlp.gate_proj", "ffn_gate", F, 0, 0, {0}},
        {c->mlp_bias, ROLE_GATE_UP, true, "mlp.up_proj", "ffn_up", F, 0, 0, {0}},
        {true, ROLE_DOWN, false, "mlp.down_proj", "ffn_down", C, F, 0, {0}},
        {c->mlp_bias, ROLE_DOWN, true, "mlp.down_proj", "ffn_down", C, 0, 0, {0}},
        {after, ROLE_FFN_POST_NORM, false, "post_feedforward_layernorm", "post_ffw_norm", C, 0, 0, {0}},
    };
    return visit_rows(w, layer, rows, COUNT(rows), err);
}

// ---- latent attention and experts ------------------------------------------------------------------------
static bool latent_tensors(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    const LatentConfig *l = &c->latent;
    int64_t C = c->width, q = (int64_t)c->heads * (l->N + l->P), q_in = l->q_rank ? l->q_rank : C;
    bool two = l->q_rank > 0;
    const char *q_name = two ? "self_attn.q_b_proj" : "self_attn.q_proj", *q_gguf = two ? "attn_q_b" : "attn_q";
    const Row rows[] = {
        {true, ROLE_ATTENTION_NORM, false, "input_layernorm", "attn_norm", C, 0, 0, {0}},
        {two, ROLE_Q_A, false, "self_attn.q_a_proj", "attn_q_a", l->q_rank, C, 0, {0}},
        {two && c->qkv_bias, ROLE_Q_A, true, "self_attn.q_a_proj", "attn_q_a", l->q_rank, 0, 0, {0}},
        {two, ROLE_Q_A_NORM, false, "self_attn.q_a_layernorm", "attn_q_a_norm", l->q_rank, 0, 0, {0}},
        {true, ROLE_Q, false, q_name, q_gguf, q, q_in, 0, {0}},
        {true, ROLE_KV_A, false, "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", l->R + l->P, C, 0, {0}},
        {c->qkv_bias, ROLE_KV_A, true, "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa", l->R + l->P, 0, 0, {0}},
        {true, ROLE_KV_A_NORM, false, "self_attn.kv_a_layernorm", "attn_kv_a_norm", l->R, 0, 0, {0}},
        {true, ROLE_KV_B, false, "self_attn.kv_b_proj", "attn_kv_b", (int64_t)c->heads * (l->N + l->V), l->R, 0, {l->N, l->V}},
        {true, ROLE_OUTPUT, false, "self_attn.o_proj", "attn_output", C, (int64_t)c->heads * l->V, 0, {0}},
        {c->output_bias, ROLE_OUTPUT, true, "self_attn.o_proj", "attn_output", C, 0, 0, {0}},
    };
    return visit_rows(w, layer, rows, COUNT(rows), err);
}

static bool correction_tensor(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    TensorSpec t = {.layer = layer, .role = ROLE_CORRECTION, .rows = c->experts.count};
    snprintf(t.name, sizeof t.name, "model.layers.%d.mlp.gate.e_score_correction_bias", layer);
    snprintf(t.gguf, sizeof t.gguf, "blk.%d.exp_probs_b.bias", layer);
    return !c->experts.correction || w->visit(w->context, &t, err);
}
// Gate and up of each expert in turn, then down of each. names: of the list, of gate, up and down.
static bool expert_tensors(const Walk *w, const ModelConfig *c, int layer, const char *const names[4], Err *err) {
    int64_t C = c->width, F = c->experts.feed_forward;
    char gate[48], up[48], down[48];
    for (int pass = 0; pass < 2; pass++)
        for (int e = 0; e < c->experts.count; e++) {
            snprintf(gate, sizeof gate, "%s.%d.%s", names[0], e, names[1]);
            snprintf(up, sizeof up, "%s.%d.%s", names[0], e, names[2]);
            snprintf(down, sizeof down, "%s.%d.%s", names[0], e, names[3]);
            const Row rows[] = {
                {pass == 0, ROLE_EXPERTS_GATE_UP, false, gate, "ffn_gate_exps", F, C, 0, {2 * F, 2 * F}},
                {pass == 0, ROLE_EXPERTS_GATE_UP, false, up, "ffn_up_exps", F, C, 0, {2 * F, 2 * F}},
                {pass == 1, ROLE_EXPERTS_DOWN, false, down, "ffn_down_exps", C, F, 0, {C, C}},
            };
            TRY(visit_rows(w, layer, rows, COUNT(rows), err));
        }
    return true;
}
static bool experts_tensors(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    static const char *const mixtral_names[] = {"block_sparse_moe.experts", "w1", "w3", "w2"};
    static const char *const names[] = {"mlp.experts", "gate_proj", "up_proj", "down_proj"};
    bool mixtral = family_find(c->model_type)->mixture == MIXTURE_MIXTRAL, shared = c->experts.shared > 0, bias = shared && c->mlp_bias;
    int64_t C = c->width, F = c->experts.shared;
    const Row first[] = {
        {true, ROLE_FFN_NORM, false, "post_attention_layernorm", "ffn_norm", C, 0, 0, {0}},
        {true, ROLE_ROUTER, false, mixtral ? "block_sparse_moe.gate" : "mlp.gate", "ffn_gate_inp", c->experts.count, C, 0, {0}},
    };
    const Row last[] = {
        {shared, ROLE_SHARED_GATE_UP, false, "mlp.shared_experts.gate_proj", "ffn_gate_shexp", F, C, 0, {0}},
        {shared, ROLE_SHARED_GATE_UP, false, "mlp.shared_experts.up_proj", "ffn_up_shexp", F, C, 0, {0}},
        {bias, ROLE_SHARED_GATE_UP, true, "mlp.shared_experts.gate_proj", "ffn_gate_shexp", F, 0, 0, {0}},
        {bias, ROLE_SHARED_GATE_UP, true, "mlp.shared_experts.up_proj", "ffn_up_shexp", F, 0, 0, {0}},
        {shared, ROLE_SHARED_DOWN, false, "mlp.shared_experts.down_proj", "ffn_down_shexp", C, F, 0, {0}},
        {bias, ROLE_SHARED_DOWN, true, "mlp.shared_experts.down_proj", "ffn_down_shexp", C, 0, 0, {0}},
    };
    return visit_rows(w, layer, first, COUNT(first), err) && correction_tensor(w, c, layer, err) &&
           expert_tensors(w, c, layer, mixtral ? mixtral_names : names, err) && visit_rows(w, layer, last, COUNT(last), err);
}

bool family_tensors(const ModelConfig *c, bool (*visit)(void *context, const TensorSpec *t, Err *err), void *context, Err *err) {
    const Walk w = {visit, context};
    const Row embedding = {true, ROLE_EMBEDDING, false, "model.embed_tokens", "token_embd", c->vocabulary, c->width, 0, {0}};
    const Row last[] = {
        {true, ROLE_FINAL_NORM, false, "model.norm", "output_norm", c->width, 0, 0, {0}},
        {!c->tied, ROLE_HEAD, false, "lm_head", "output", c->vocabulary, c->width, 0, {0}},
    };
    TRY(visit_row(&w, -1, &embedding, err));
    for (int layer = 0; layer < c->layers; layer++)
        TRY((c->latent.R ? latent_tensors(&w, c, layer, err) : attention_tensors(&w, c, layer, err)) &&
            (config_has_experts(c, layer) ? experts_tensors(&w, c, layer, err) : feed_forward_tensors(&w, c, layer, err)));
    return visit_rows(&w, -1, last, COUNT(last), err);
}
