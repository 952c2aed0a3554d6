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

typedef struct Family {
    const char *model_type, *architecture;
    const char *gguf;          // its name in GGUF files
    bool gguf_interleaved;     // where the rows of q and k lie in interleaved rotary order
    int32_t max_positions;     // where config.json doesn't say
    BiasRule bias;
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
    ROLE_OUTPUT,
    ROLE_FFN_NORM,
    ROLE_GATE_UP,
    ROLE_DOWN,
    ROLE_FINAL_NORM,
    ROLE_HEAD
} TensorRole;
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
