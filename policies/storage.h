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
    // The way back, nearest to even for plain types; NULL: it isn't written. Block types take finite values only.
    void (*encode)(const float *in, int64_t blocks, uint8_t *out);
} StorageType;

const StorageType *storage_by_gguf_id(uint32_t id);         // NULL: unknown
const StorageType *storage_by_safetensors(const char *name); // NULL: unknown
const StorageType *storage_by_name(const char *name);        // NULL: unknown
// Decodes `blocks` blocks, or fails naming the type and those that are read.
bool storage_decode(const StorageType *type, const uint8_t *in, int64_t blocks, const char *where, const char *tensor,
                    float *out, Err *err) MUST_CHECK;

// Encodes `blocks` blocks, or fails: a type that isn't written, a value that the type can't hold.
bool storage_encode(const StorageType *type, const float *in, int64_t blocks, const char *where, const char *tensor,
                    uint8_t *out, Err *err) MUST_CHECK;

uint16_t bf16_from_float(float x); // nearest, ties to even; NaN stays NaN
float bf16_to_float(uint16_t x);
uint16_t half_from_float(float x); // the same, to IEEE half; beyond its range infinity
float half_to_float(uint16_t h);   // exact

// The quantisers (storage_encode.c), for the table of types.
void encode_q8_0(const float *in, int64_t blocks, uint8_t *out);
void encode_q4_0(const float *in, int64_t blocks, uint8_t *out);
void encode_q4_1(const float *in, int64_t blocks, uint8_t *out);
void encode_q5_0(const float *in, int64_t blocks, uint8_t *out);
void encode_q5_1(const float *in, int64_t blocks, uint8_t *out);
void encode_q4_k(const float *in, int64_t blocks, uint8_t *out);
void encode_q6_k(const float *in, int64_t blocks, uint8_t *out);

#endif
