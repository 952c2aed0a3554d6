// Model files out, from model files: a Hugging Face folder or a GGUF file from either of both. Nothing is held but a
// block of rows at a time. What is written goes aside, is synced, then renamed; the extent of every tensor is checked
// once more before a byte of it is read.
#ifndef RECKON_EXPORT_H
#define RECKON_EXPORT_H
#include "weights.h"

typedef struct ExportOptions {
    // NULL or "keep": as stored (into a folder, blocks of GGUF become F32). "F32", "F16", "BF16". GGUF also: "Q8_0",
    // "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q4_K" and the mix "Q4_K_M".
    const char *type;
    uint64_t shard_bytes; // of a folder's files, at most; a larger tensor has a file of its own. 0: no limit
    bool replace;         // an output that is there
    // What is added to tensors on the way (an adapter that is merged): `add` adds to rows [first, first + rows) of the
    // tensor of this name, [rows, columns], in Hugging Face's order. NULL: nothing.
    bool (*add)(const void *context, const char *name, int64_t first, int64_t rows, int64_t columns, float *values);
    bool (*adds)(const void *context, const char *name); // to this tensor
    const void *context;
} ExportOptions;

// An adapter (a PEFT folder) to be merged: `adds` and `add` of the options, with it as their context.
typedef struct Merge Merge;
bool merge_open(const char *folder, const Weights *w, Merge **out, Err *err) MUST_CHECK;
void merge_close(Merge *m);
bool merge_adds(const void *merge, const char *name);
bool merge_add(const void *merge, const char *name, int64_t first, int64_t rows, int64_t columns, float *values);

// The adapter of a PEFT folder in a folder of its own: as it lies there, or of a mixture of experts in the form that newer releases of
// PEFT read. `model` is its base; NULL: the one that it names.
bool export_peft(const char *adapter, const char *model, const char *folder, const ExportOptions *options, Err *err) MUST_CHECK;
// config.json, generation_config.json, weights (in shards with an index where asked for), and the tokenizer's files, byte
// for byte where the source is a folder.
bool export_hf(const Weights *w, const char *folder, const ExportOptions *options, Err *err) MUST_CHECK;
// Metadata and tokenizer are carried over from a GGUF, and made from a folder's configuration and tokenizer.json. Vectors
// are F32; rows of q and k lie in the order that readers of the architecture expect.
bool export_gguf(const Weights *w, const char *path, const ExportOptions *options, Err *err) MUST_CHECK;

#endif
