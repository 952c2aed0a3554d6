// The table of families and the tensors of a model. Adding a family that differs from another by options only is a row
// here; a new kind of layer also is a TensorRole and its rows in layer_tensors.
#include "family.h"
#include <stdio.h>
#include <string.h>

static const Family families[] = {
    {"llama", "LlamaForCausalLM", "llama", true, 2048, BIAS_ALL},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", false, 32768, BIAS_QKV},
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
    out->qkv_bias = f->bias == BIAS_QKV;
}

// ---- tensors ---------------------------------------------------------------------------------------------
typedef struct Row {
    bool present;
    TensorRole role;
    bool bias;
    const char *name, *gguf; // within the layer, without ".weight" and ".bias"
    int64_t rows, columns;
    int32_t rotary_heads;
} Row;
typedef struct Walk {
    bool (*visit)(void *context, const TensorSpec *t, Err *err);
    void *context;
} Walk;

static bool visit_row(const Walk *w, int layer, const Row *r, Err *err) {
    TensorSpec t = {.layer = layer, .role = r->role, .bias = r->bias, .rows = r->rows, .columns = r->columns, .rotary_heads = r->rotary_heads};
    const char *kind = r->bias ? "bias" : "weight";
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
    const Row rows[] = {
        {true, ROLE_ATTENTION_NORM, false, "input_layernorm", "attn_norm", C, 0, 0},
        {true, ROLE_QKV, false, "self_attn.q_proj", "attn_q", q, C, c->heads},
        {true, ROLE_QKV, false, "self_attn.k_proj", "attn_k", kv, C, c->kv_heads},
        {true, ROLE_QKV, false, "self_attn.v_proj", "attn_v", kv, C, 0},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.q_proj", "attn_q", q, 0, c->heads},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.k_proj", "attn_k", kv, 0, c->kv_heads},
        {c->qkv_bias, ROLE_QKV, true, "self_attn.v_proj", "attn_v", kv, 0, 0},
        {true, ROLE_OUTPUT, false, "self_attn.o_proj", "attn_output", C, q, 0},
        {c->output_bias, ROLE_OUTPUT, true, "self_attn.o_proj", "attn_output", C, 0, 0},
    };
    return visit_rows(w, layer, rows, COUNT(rows), err);
}
static bool feed_forward_tensors(const Walk *w, const ModelConfig *c, int layer, Err *err) {
    int64_t C = c->width, F = c->feed_forward;
    const Row rows[] = {
        {true, ROLE_FFN_NORM, false, "post_attention_layernorm", "ffn_norm", C, 0, 0},
        {true, ROLE_GATE_UP, false, "mlp.gate_proj", "ffn_gate", F, C, 0},
        {true, ROLE_GATE_UP, false, "mlp.up_proj", "ffn_up", F, C, 0},
        {c->mlp_bias, ROLE_GATE_UP, true, "mlp.gate_proj", "ffn_gate", F, 0, 0},
        {c->mlp_bias, ROLE_GATE_UP, true, "mlp.up_proj", "ffn_up", F, 0, 0},
        {true, ROLE_DOWN, false, "mlp.down_proj", "ffn_down", C, F, 0},
        {c->mlp_bias, ROLE_DOWN, true, "mlp.down_proj", "ffn_down", C, 0, 0},
    };
    return visit_rows(w, layer, rows, COUNT(rows), err);
}

bool family_tensors(const ModelConfig *c, bool (*visit)(void *context, const TensorSpec *t, Err *err), void *context, Err *err) {
    const Walk w = {visit, context};
    const Row embedding = {true, ROLE_EMBEDDING, false, "model.embed_tokens", "token_embd", c->vocabulary, c->width, 0};
    const Row last[] = {
        {true, ROLE_FINAL_NORM, false, "model.norm", "output_norm", c->width, 0, 0},
        {!c->tied, ROLE_HEAD, false, "lm_head", "output", c->vocabulary, c->width, 0},
    };
    TRY(visit_row(&w, -1, &embedding, err));
    for (int layer = 0; layer < c->layers; layer++)
        TRY(attention_tensors(&w, c, layer, err) && feed_forward_tensors(&w, c, layer, err));
    return visit_rows(&w, -1, last, COUNT(last), err);
}
