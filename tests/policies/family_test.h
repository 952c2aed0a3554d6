// Every dense family in small, with options that its published models use: for the tests of whole policies on the CPU and on
// CUDA devices.
#ifndef RECKON_FAMILY_TEST_H
#define RECKON_FAMILY_TEST_H
#include "invariants.h"

typedef struct Kind {
    const char *name, *model_type;
    int32_t window;
    const char *windowed; // a letter a layer: w or f
    RopeKind rope;
    bool tied, biases, partial, capped;
} Kind;
static const Kind kinds[] = {
    {"Mistral", "mistral", 5, "www", ROPE_DEFAULT, false, false, false, false},
    {"Mistral, windows of 33", "mistral", 33, "ww", ROPE_LINEAR, true, false, false, false},
    {"Llama 3", "llama", 0, "fff", ROPE_LLAMA3, false, true, false, false},
    {"Llama, yarn", "llama", 0, "ff", ROPE_YARN, true, false, false, false},
    {"Llama, dynamic", "llama", 0, "ff", ROPE_DYNAMIC, false, false, false, false},
    {"Qwen2, upper windows", "qwen2", 9, "fww", ROPE_YARN, false, true, false, false},
    {"Qwen3", "qwen3", 0, "ff", ROPE_DEFAULT, true, false, false, false},
    {"Qwen3, windows and biases", "qwen3", 40, "wfw", ROPE_DEFAULT, false, true, false, false},
    {"Gemma 3", "gemma3_text", 6, "wfw", ROPE_LINEAR, true, false, false, true},
    {"Gemma 3, regular windows", "gemma3_text", 34, "wwf", ROPE_DEFAULT, true, true, false, false},
    {"Phi-3", "phi3", 11, "ww", ROPE_DEFAULT, true, false, true, false},
    {"Phi-3, longrope", "phi3", 0, "ff", ROPE_LONGROPE, false, false, true, false},
    {"OLMo 2", "olmo2", 0, "fff", ROPE_DEFAULT, false, false, false, false},
    {"OLMo 2, tied, biases", "olmo2", 0, "ff", ROPE_LINEAR, true, true, false, false},
};

static inline RopeConfig kind_rope(const Kind *k, int32_t pairs) {
    RopeConfig r = {.kind = k->rope, .theta = 20000};
    if (k->rope == ROPE_LINEAR || k->rope == ROPE_DYNAMIC || k->rope == ROPE_LLAMA3 || k->rope == ROPE_YARN) r.factor = 4;
    if (k->rope == ROPE_LLAMA3) r.original_positions = 64, r.low_frequency = 1, r.high_frequency = 4;
    if (k->rope == ROPE_YARN) r.original_positions = 48, r.beta_fast = 32, r.beta_slow = 1, r.truncate = true;
    if (k->rope == ROPE_DYNAMIC) r.original_positions = 32; // that of the model: samples go far beyond
    if (k->rope == ROPE_LONGROPE) {
        r.original_positions = 256;
        for (int32_t i = 0; i < pairs; i++) r.short_factor[i] = 1 + 0.1 * i, r.long_factor[i] = 1 + i;
    }
    return r;
}
static inline ModelConfig kind_config(const Kind *k) {
    ModelConfig c;
    memset(&c, 0, sizeof c);
    family_options(family_find(k->model_type), &c);
    c.layers = (int32_t)strlen(k->windowed), c.width = 24, c.heads = 4, c.kv_heads = 2, c.head_width = 10, c.feed_forward = 36;
    c.vocabulary = 70, c.max_positions = k->rope == ROPE_DYNAMIC ? 32 : 512, c.initializer_range = 0.25, c.tied = k->tied;
    c.window = k->window;
    for (int i = 0; i < c.layers; i++) c.layer[i] = k->windowed[i] == 'w' ? LAYER_WINDOW : 0;
    const Family *f = family_find(k->model_type);
    if (f->bias == BIAS_ATTENTION || f->bias == BIAS_ALL) c.qkv_bias = c.output_bias = k->biases;
    c.mlp_bias = f->bias == BIAS_ALL && k->biases;
    if (k->partial) c.rotary_width = 6;
    if (f->query_scalar != 0) c.query_scalar = 13;
    if (k->capped) c.logit_softcap = 3;
    c.rope[0] = kind_rope(k, config_rotary(&c) / 2);
    c.bos_id = c.pad_id = -1;
    c.stop_ids[0] = 7, c.stop_count = 1;
    return c;
}

#endif
