// How numbers lie in model files: the plain types of safetensors and the block types of GGUF, one row each, with
// conversion to fp32. Knows no file layout and no names.
#ifndef RECKON_STORAGE_H
#define RECKON_STORAGE_H
#include "base.h"

typedef struct StorageType {
    const char *name;    // "F32", "Q4_1", ...
    int gguf_id;         // -1: not a GGUF type
    bool safetensors;    // a dtype of safetensors too
    int32_t block;       // elements per block, 1 for plain types
    int32_t block_bytes; // bytes per block
    // [blocks * block_bytes] at any alignment -> [blocks * block]; NULL: known, but its values aren't read.
    void (*decode)(const uint8_t *in, int64_t blocks, float *out);
} StorageType;

const StorageType *storage_by_gguf_id(uint32_t id);         // NULL: unknown
const StorageType *storage_by_safetensors(const char *name); // NULL: unknown
// Decodes `blocks` blocks, or fails naming the type and those that are read.
bool storage_decode(const StorageType *type, const uint8_t *in, int64_t blocks, const char *where, const char *tensor,
                    float *out, Err *err) MUST_CHECK;

uint16_t bf16_from_float(float x); // nearest, ties to even; NaN stays NaN

#endif
