// Small models of every kind of mixture: Mixtral, Qwen3-MoE, DeepSeek V2 and V3, for any device.
#ifndef RECKON_MIXTURE_TEST_H
#define RECKON_MIXTURE_TEST_H
#include "invariants.h"

enum { KINDS = 4 };
static inline ModelConfig mixture_config(int kind) {
    static const char *const types[] = {"mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3"};
    ModelConfig c = {.layers = 3, .width = 30, .heads = 4, .kv_heads = 2, .head_width = 10, .feed_forward = 26, .vocabulary = 60 + 11 * kind,
                     .max_positions = 2048, .norm_eps = 1e-5, .rope = {{.theta = 10000}}, .initializer_range = 0.3, .bos_id = -1, .pad_id = -1,
                     .stop_count = 1, .stop_ids = {7}};
    c.experts = (ExpertsConfig){.count = 6, .chosen = 2, .feed_forward = kind == 0 ? 26 : 9, .groups = 1, .chosen_groups = 1, .group_best = 1,
                                .normalise = kind == 0, .scale = 1};
    for (int i = 0; i < c.layers; i++) c.layer[i] = kind == 0 || i != 1 ? LAYER_EXPERTS : 0;
    if (kind == 1) c.qk_norm = QK_NORM_HEADS, c.tied = true, c.experts.chosen = 3;
    if (kind >= 2) {
        c.latent = (LatentConfig){.R = 13, .q_rank = kind == 3 ? 11 : 0, .N = 7, .P = 6, .V = 9, .interleaved = true};
        c.kv_heads = c.heads, c.head_width = 13, c.rotary_width = 6;
        c.experts.shared = 18, c.experts.groups = 3, c.experts.chosen_groups = 2, c.experts.scale = 1.5;
        c.layer[0] = 0, c.layer[1] = LAYER_EXPERTS;
    }
    if (kind == 3) c.experts.sigmoid = c.experts.correction = c.experts.normalise = true, c.experts.group_best = 2;
    snprintf(c.model_type, sizeof c.model_type, "%s", types[kind]);
    return c;
}

#endif
