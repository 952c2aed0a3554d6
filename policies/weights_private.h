// Shared by weights.c, the two readers behind it and the exporters, and by nobody else.
#ifndef RECKON_WEIGHTS_PRIVATE_H
#define RECKON_WEIGHTS_PRIVATE_H
#include "gguf.h"
#include "names.h"
#include "weights.h"

typedef struct WeightTensor {
    TensorInfo info;      // info.name is the Hugging Face name (the file's own where there is none)
    const char *own_name; // as the file has it
    const StorageType *type;
    const uint8_t *data; // inside a mapping
    // Rows are in interleaved rotary order, to be put back into halves, for so many heads; 0: they lie as they should.
    int32_t rotary_heads;
    float shift; // added to what is stored
} WeightTensor;

struct Weights {
    char *path;
    Gguf *gguf; // or shards
    Safetensors **shards;
    int shard_count;
    WeightTensor *tensors;
    int count;
    NameEntry *index, *own_index;
    bool has_config;
    ModelConfig config;
    Err config_error;    // why there is no config
    json_t *config_json; // of a folder
    json_t *index_metadata; // of a sharded folder
    Arena names;
};

// One of a GGUF's tensors of divisors of rotary frequencies, which are read with the configuration.
bool weights_is_divisors(const char *name);
// Fill tensors (own names only), shards and what lies beside them. What was opened is released by weights_close,
// after a failure too.
bool hf_open(Weights *w, Err *err) MUST_CHECK;
bool hf_config(Weights *w, Err *err) MUST_CHECK;
// One safetensors file as the only shard.
bool hf_open_file(Weights *w, const char *path, Err *err) MUST_CHECK;

bool gguf_model_open(Weights *w, Err *err) MUST_CHECK;
// Config from metadata, Hugging Face names and the order of rows.
bool gguf_model_config(Weights *w, Err *err) MUST_CHECK;

#endif
