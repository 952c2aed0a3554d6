// Shared by weights.c, the two readers behind it and the exporters, and by nobody else.
#ifndef RECKON_WEIGHTS_PRIVATE_H
#define RECKON_WEIGHTS_PRIVATE_H
#include "family.h"
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
    bool merged; // its contents are other tensors' (a GGUF's experts, side by side; halves of a product)
    // Of a product that a GGUF has in two halves, [H, R, N] and [H, V, R], turned and put together by turns: [H (N + V), R]. It has no
    // `data`; its type is theirs where they agree on a plain one, else F32. NULL: it lies as it should.
    const struct WeightTensor *keys, *values;
} WeightTensor;

struct Weights {
    char *path;
    Gguf *gguf; // or shards
    Safetensors **shards;
    int shard_count;
    WeightTensor *tensors; // [all]
    int count, all;        // the files' own; with those that are parts of `merged` ones, behind
    NameEntry *index, *own_index; // [all]
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
// Tensors as the file has them, whatever was made of them before.
void gguf_model_list(Weights *w);
// Config from metadata, Hugging Face names and the order of rows.
bool gguf_model_config(Weights *w, Err *err) MUST_CHECK;

// gguf_mixture.c: experts and latent attention. Which of an architecture's families a file is.
typedef struct GgufReader {
    const Gguf *gguf;
    const char *architecture;
    char key[128]; // the last one asked for
} GgufReader;
const char *gguf_key(GgufReader *r, const char *name); // "llama.block_count"
bool gguf_get_size(GgufReader *r, const char *name, bool required, int32_t *out, Err *err) MUST_CHECK; // 0 to 2147483647
bool gguf_mixture_family(const Gguf *g, const Family **family, Err *err) MUST_CHECK;
bool gguf_mixture_config(GgufReader *r, ModelConfig *c, Err *err) MUST_CHECK;
bool gguf_latent_shapes(GgufReader *r, ModelConfig *c, Err *err) MUST_CHECK;
// Rotary positions by yarn, with latent attention; `attention` is the file's factor on cosines and sines.
bool gguf_latent_yarn(GgufReader *r, ModelConfig *c, double attention, Err *err) MUST_CHECK;
// Gives the tensors of experts and of split products names of their own, behind the file's. `own` is sorted by own names.
bool gguf_mixture_tensors(Weights *w, const NameEntry *own, Err *err) MUST_CHECK;
// A split product as rows [H (N + V), R], fp32.
bool weights_read_halves(const Weights *w, const WeightTensor *t, float *out, Err *err) MUST_CHECK;

#endif
