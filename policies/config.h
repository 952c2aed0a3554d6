// What a model is: its family, shapes and options, read from config.json or GGUF metadata before any weight is touched.
#ifndef RECKON_CONFIG_H
#define RECKON_CONFIG_H
#include "json.h"

enum { MAX_STOP_IDS = 16, MAX_LAYERS = 1024, MAX_ROPE_FACTORS = 128 };

// How the angles of rotary positions (Su et al. 2021) are stretched beyond the length a model was first trained on.
typedef enum RopeKind {
    ROPE_DEFAULT, // theta^(-2i/D)
    ROPE_LINEAR,  // positions divided by `factor` (Chen et al. 2023)
    ROPE_DYNAMIC, // theta grows with the length of the sequence beyond `original_positions`
    ROPE_LLAMA3,  // low frequencies divided by `factor`, high ones left, a ramp between
    ROPE_YARN,    // the same by `beta_fast` and `beta_slow`, with a factor on the scores (Peng et al. 2023)
    ROPE_LONGROPE // a divisor per frequency, one list within `original_positions`, one beyond (Ding et al. 2024)
} RopeKind;
typedef struct RopeConfig {
    RopeKind kind;
    double theta;
    double factor;
    int32_t original_positions;
    double low_frequency, high_frequency; // ROPE_LLAMA3
    double beta_fast, beta_slow;          // ROPE_YARN
    double mscale, mscale_all_dim;        // 0: not given
    double attention_factor;              // on cosines and sines; 0: what the kind computes
    bool truncate;                        // ROPE_YARN: the ramp's ends are rounded outwards
    double short_factor[MAX_ROPE_FACTORS], long_factor[MAX_ROPE_FACTORS]; // ROPE_LONGROPE [rotary / 2]
} RopeConfig;

typedef enum Activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH } Activation;
typedef enum NormPlacement {
    NORM_BEFORE, // of a block's input
    NORM_AFTER,  // of its output, before it joins the residual stream
    NORM_AROUND  // of both
} NormPlacement;
typedef enum QkNorm {
    QK_NORM_NONE,
    QK_NORM_HEADS, // of each head of q and k
    QK_NORM_WHOLE  // of all of q, and of all of k
} QkNorm;
// Bits of ModelConfig.layer.
enum { LAYER_WINDOW = 1, LAYER_EXPERTS = 2 };

// The feed-forward of layers with LAYER_EXPERTS: each token goes to some of many experts (ops.h, Router).
typedef struct ExpertsConfig {
    int32_t count;                 // E; 0: the model has none
    int32_t chosen;                // k
    int32_t feed_forward;          // F of one expert
    int32_t shared;                // F of the experts that every token goes to, together; 0: none
    int32_t groups, chosen_groups; // 1, 1: none
    int32_t group_best;            // scores that a group is judged by: 1 or 2
    bool sigmoid, normalise;
    bool correction;               // there is a correction bias
    double scale;
} ExpertsConfig;
// Latent attention (ops.h): queries of N plain and P rotated columns, keys and values from a latent of R, values of V columns
// a head. head_width is N + P, rotary_width P.
typedef struct LatentConfig {
    int32_t R;      // kv_lora_rank; 0: ordinary attention
    int32_t q_rank; // of the queries; 0: they come straight from the stream
    int32_t N, P, V;
    bool interleaved;
} LatentConfig;

typedef struct ModelConfig {
    char model_type[32]; // a row of the table in family.c
    int32_t layers;
    int32_t width;        // C
    int32_t heads;        // H
    int32_t kv_heads;     // divides heads
    int32_t head_width;   // D, even
    int32_t feed_forward; // F
    int32_t vocabulary;   // V, rows of the embedding
    int32_t max_positions;
    double norm_eps;
    double initializer_range; // standard deviation of a new model's weights
    bool tied;                // the head is the embedding
    bool qkv_bias, output_bias, mlp_bias;
    // Options of the family; all zero is a Llama.
    bool fused;               // q, k, v are one tensor in checkpoints, and so are gate and up
    NormPlacement norm_placement;
    QkNorm qk_norm;
    bool norm_offset;         // norms multiply by 1 + weight
    Activation activation;
    bool embedding_scaled;    // by the root of the width
    double query_scalar;      // scores are divided by its root; 0: head_width
    double logit_softcap;     // logits become cap * tanh(logit / cap); 0: they don't
    int32_t rotary_width;     // how many of a head's elements are rotated (rounded up to pairs); 0: all
    int32_t window;           // how many positions windowed layers see, their own included; 0: there are none
    uint8_t layer[MAX_LAYERS];
    bool local_rope;          // windowed layers turn by rope[1]
    RopeConfig rope[2];
    ExpertsConfig experts;
    LatentConfig latent;
    int32_t bos_id, pad_id; // -1 if none
    int32_t stop_ids[MAX_STOP_IDS];
    int32_t stop_count;
} ModelConfig;

static inline int32_t config_rotary(const ModelConfig *c) { return c->rotary_width ? (c->rotary_width + 1) / 2 * 2 : c->head_width; }
static inline bool config_has_experts(const ModelConfig *c, int layer) { return c->layer[layer] & LAYER_EXPERTS; }
static inline int32_t config_window(const ModelConfig *c, int layer) { return c->layer[layer] & LAYER_WINDOW ? c->window : 0; }
static inline int config_rope(const ModelConfig *c, int layer) { return c->local_rope && c->layer[layer] & LAYER_WINDOW ? 1 : 0; }

// The longest sequence: what the model was trained for, times what its rotary positions are stretched by.
static inline int32_t config_context(const ModelConfig *c) {
    const RopeConfig *r = &c->rope[0];
    double positions = c->max_positions, longest = positions;
    if (r->kind == ROPE_LINEAR || r->kind == ROPE_DYNAMIC) longest = positions * r->factor;
    if (r->kind == ROPE_YARN && r->original_positions * r->factor > positions) longest = r->original_positions * r->factor;
    return longest < 2147483647.0 ? (int32_t)longest : INT32_MAX;
}

// Every how many layers one has no window; 0: that isn't regular.
int config_window_pattern(const ModelConfig *c);
// What a frequency is divided by, beside the plain ones [config_rotary / 2], within the original length; and the factor on
// cosines and sines.
void rope_divisors(const ModelConfig *c, double *out);
double rope_attention(const ModelConfig *c);

// Both generations of Hugging Face keys. An unknown model_type or an option that isn't supported is an error that
// names the key, what was found and what is supported; nothing is ignored that would change the numbers.
bool config_from_json(const json_t *config, const json_t *generation_config, const char *path, ModelConfig *out,
                      Err *err) MUST_CHECK;
// Ranges and divisibility, for every source of a config; `where` names it.
bool config_check(const ModelConfig *c, const char *where, Err *err) MUST_CHECK;
// config.json as transformers writes it. The caller owns the result.
json_t *config_to_json(const ModelConfig *c, const char *dtype);
json_t *config_generation_json(const ModelConfig *c); // generation_config.json

int64_t config_parameters(const ModelConfig *c); // a tied head counted once
// FLOPs of the forward pass of one token whose attention sees `context` positions (itself included); a multiply-add
// is two. The head is counted where `with_head`.
double config_flops(const ModelConfig *c, double context, bool with_head);

#endif
