// What a model is: its family and shapes, read from config.json or GGUF metadata before any weight is touched.
#ifndef RECKON_CONFIG_H
#define RECKON_CONFIG_H
#include "json.h"

enum { MAX_STOP_IDS = 16 };

// Llama and Qwen2 differ only in options, so a family is a row of options, not code.
typedef struct ModelConfig {
    char model_type[32]; // "llama", "qwen2"
    int32_t layers;
    int32_t width;        // C
    int32_t heads;        // H
    int32_t kv_heads;     // divides heads
    int32_t head_width;   // D, even
    int32_t feed_forward; // F
    int32_t vocabulary;   // V, rows of the embedding
    int32_t max_positions;
    double norm_eps;
    double rope_theta;
    double initializer_range; // standard deviation of a new model's weights
    bool tied;                // the head is the embedding
    bool qkv_bias, output_bias, mlp_bias;
    int32_t bos_id, pad_id; // -1 if none
    int32_t stop_ids[MAX_STOP_IDS];
    int32_t stop_count;
} ModelConfig;

// Both generations of Hugging Face keys. An unknown model_type or an option that isn't supported is an error that
// names the key, what was found and what is supported; nothing is ignored that would change the numbers.
bool config_from_json(const json_t *config, const json_t *generation_config, const char *path, ModelConfig *out,
                      Err *err) MUST_CHECK;
// Ranges and divisibility, for every source of a config; `where` names it.
bool config_check(const ModelConfig *c, const char *where, Err *err) MUST_CHECK;
// config.json as transformers writes it. The caller owns the result.
json_t *config_to_json(const ModelConfig *c, const char *dtype);

int64_t config_parameters(const ModelConfig *c); // a tied head counted once
// FLOPs of the forward pass of one token whose attention sees `context` positions (itself included); a multiply-add
// is two. The head is counted where `with_head`.
double config_flops(const ModelConfig *c, double context, bool with_head);

#endif
