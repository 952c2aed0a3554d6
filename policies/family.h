// The families of models: a row of options each, and the list of tensors that a configuration asks for. A family's names
// and shapes stand in family.c and nowhere else: loading, saving, the check of a file's tensors and the names of GGUF all
// walk the same list.
#ifndef RECKON_FAMILY_H
#define RECKON_FAMILY_H
#include "config.h"

// Which of a model's products have biases.
typedef enum BiasRule {
    BIAS_NONE,
    BIAS_QKV,       // always on q, k and v
    BIAS_ATTENTION, // on q, k, v and o where `attention_bias` says so
    BIAS_ALL        // the same, and on the feed-forward where `mlp_bias` says so
} BiasRule;

// How layers come by windows.
typedef enum WindowRule {
    WINDOWS_NONE,
    WINDOWS_ALL,    // every layer, where `sliding_window` is a number
    WINDOWS_SWITCHED, // the same, and only where `use_sliding_window` says so
    WINDOWS_UPPER,  // where `use_sliding_window` says so: those that `layer_types` names, or all from `max_window_layers` on
    WINDOWS_PATTERN // those that `layer_types` names, or all but every `sliding_window_pattern`-th
} WindowRule;

// Whose kind of experts and of attention.
typedef enum Mixture { MIXTURE_NONE, MIXTURE_MIXTRAL, MIXTURE_QWEN, MIXTURE_DEEPSEEK_V2, MIXTURE_DEEPSEEK_V3 } Mixture;

typedef struct Family {
    const char *model_type, *architecture;
    const char *gguf;          // its name in GGUF files
    bool gguf_interleaved;     // where the rows of q and k lie in interleaved rotary order
    // Where config.json doesn't say:
    int32_t max_positions, original_positions; // 0: the former
    int32_t default_window, full_layers;       // of `sliding_window` and `max_window_layers`
    int32_t head_width;                        // 0: the width shared out to the heads
    double norm_eps, theta, local_theta;       // local_theta 0: windowed layers turn as the others do
    bool tied;
    BiasRule bias;
    WindowRule windows;
    bool partial_rotary;  // `partial_rotary_factor` may be below 1
    double query_scalar;  // where `query_pre_attn_scalar` may say; 0: it may not
    // Fixed, as in ModelConfig:
    bool fused, norm_offset, embedding_scaled;
    NormPlacement norm_placement;
    QkNorm qk_norm;
    Activation activation; // the usual one
    Mixture mixture;
} Family;

const Family *family_find(const char *model_type); // NULL: unknown
const Family *family_at(int index);                // NULL beyond the last
// The options that a family fixes, into a configuration that is otherwise empty.
void family_options(const Family *f, ModelConfig *out);

// What a tensor is for. Those of one role, layer and `bias` lie in one matrix, row block after row block.
typedef enum TensorRole {
    ROLE_EMBEDDING,
    ROLE_ATTENTION_NORM,
    ROLE_QKV,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_OUTPUT,
    ROLE_ATTENTION_POST_NORM,
    ROLE_FFN_NORM,
    ROLE_GATE_UP,
    ROLE_DOWN,
    ROLE_FFN_POST_NORM,
    ROLE_Q, // queries alone, where attention is latent
    ROLE_Q_A,
    ROLE_Q_A_NORM,
    ROLE_KV_A,
    ROLE_KV_A_NORM,
    ROLE_KV_B,
    ROLE_ROUTER,
    ROLE_CORRECTION, // no gradient: the load moves it; F32 in every file
    ROLE_EXPERTS_GATE_UP,
    ROLE_EXPERTS_DOWN,
    ROLE_SHARED_GATE_UP,
    ROLE_SHARED_DOWN,
    ROLE_FINAL_NORM,
    ROLE_HEAD
} TensorRole;
bool family_is_norm(TensorRole role); // the weight of an RMSNorm
typedef struct TensorSpec {
    char name[96];         // Hugging Face's
    char gguf[64];         // in GGUF files
    int32_t layer;         // -1: of the whole model
    TensorRole role;
    bool bias;             // of the role's product
    int64_t rows, columns; // columns 0: a vector
    int32_t rotary_heads;  // its rows are so many rotated heads; 0: they aren't rotated
    int64_t block[2];      // rows of the blocks by turns that its role's matrix is packed in; 0: it is packed as one
} TensorSpec;
// Calls `visit` for each tensor of the model, in the order in which a Policy holds them. Tensors of one role, layer and
// `bias` follow each other. Stops with the first failure of a visit.
bool family_tensors(const ModelConfig *c, bool (*visit)(void *context, const TensorSpec *t, Err *err), void *context,
                    Err *err) MUST_CHECK;

#endif
