// Model files in and out: a Hugging Face folder (config.json, safetensors, sharded too) or a GGUF file, behind one
// interface with Hugging Face parameter names. Everything in a file is hostile: headers are checked whole before use.
#ifndef RECKON_WEIGHTS_H
#define RECKON_WEIGHTS_H
#include "config.h"

typedef struct Weights Weights;

typedef struct TensorInfo {
    const char *name; // Hugging Face name; owned by the Weights
    const char *type; // "F32", "BF16", "Q4_1", ...
    int dims;
    int64_t shape[4]; // row-major
    int64_t count;    // elements
    size_t bytes;     // as stored
} TensorInfo;

// `path`: a folder or a .gguf file. Opens, maps and validates every header; reads no weight.
// A GGUF whose architecture is known maps its names to Hugging Face's; with `any`, a file that is not a known model
// (no config, unknown names) opens too, for `inspect`, and so does a single .safetensors file; weights_config is then
// NULL, weights_config_error says why, and names are the file's own.
bool weights_open(const char *path, bool any, Weights **out, Err *err) MUST_CHECK;
void weights_close(Weights *w);
const char *weights_path(const Weights *w);
// SHA-256 over the SHA-256 of each of its files: another hash is another model.
bool weights_hash(const Weights *w, char out[65], Err *err) MUST_CHECK;
const ModelConfig *weights_config(const Weights *w);
const Err *weights_config_error(const Weights *w);      // NULL where there is a config
const json_t *weights_config_json(const Weights *w);    // config.json of a folder as it stands, otherwise NULL
// The files' own tensors, one by one; the experts that a GGUF has side by side in one tensor are found by name only.
int weights_count(const Weights *w);
int weights_position(const Weights *w, const char *name); // by either name; -1: not there. Beyond weights_count for such an expert
void weights_at(const Weights *w, int index, TensorInfo *out);
const char *weights_own_name(const Weights *w, int index); // as the file has it
bool weights_find(const Weights *w, const char *name, TensorInfo *out); // by either name; false: not there
// Dequantised to fp32, row-major [count]. Rows of q and k are in Hugging Face's (half-rotated) order, also from GGUF.
// An error if the tensor is missing or its shape isn't `dims`/`shape`.
bool weights_read(const Weights *w, const char *name, int dims, const int64_t *shape, float *out, Err *err) MUST_CHECK;
// `count` rows of a matrix from `first` on, as weights_read gives them: where weights_has_rows says so.
bool weights_has_rows(const Weights *w, const char *name);
bool weights_read_rows(const Weights *w, const char *name, const int64_t shape[2], int64_t first, int64_t count, float *out, Err *err) MUST_CHECK;
// `count` rows of a matrix from `first` on as they are stored: within the file where they lie there one after the other and at an even
// address, else copied to `copy`. Where weights_has_stored says so.
bool weights_has_stored(const Weights *w, const char *name);
// All rows within the file, for as long as it is open, in an order that interleaved_row tells (blocks.h); NULL at an odd address.
const uint8_t *weights_in_file(const Weights *w, const char *name, int64_t *interleaved);
size_t weights_row_bytes(const Weights *w, const char *name);
bool weights_stored_rows(const Weights *w, const char *name, const int64_t shape[2], int64_t first, int64_t count, uint8_t *copy,
                         const uint8_t **rows, Err *err) MUST_CHECK;
// A matrix of a block type as it is stored, rows in Hugging Face's order: info.bytes.
bool weights_read_blocks(const Weights *w, const char *name, int64_t rows, int64_t columns, uint8_t *out, Err *err) MUST_CHECK;
// Gives back the memory of pages that were read; they are read again where they are needed.
void weights_drop_pages(const Weights *w);
// The same for any tensor as it lies in the file, no permutation (`inspect --tensor`).
bool weights_read_raw(const Weights *w, const char *name, float *out, Err *err) MUST_CHECK;
// Everything of the file's metadata, for `inspect`; the caller owns it.
json_t *weights_metadata(const Weights *w);

// One tensor to write. F32 or BF16 (rounded to nearest even from fp32), or raw bytes of a named dtype.
typedef struct TensorOut {
    const char *name;
    const char *dtype; // "F32", "BF16", "I64"
    int dims;
    int64_t shape[4];
    const float *values; // [count] for F32 and BF16
    const void *raw;     // instead of values: bytes as stored
    // Instead of both: writes exactly the tensor's bytes, for what is too large to be held.
    bool (*write)(const void *context, int fd, const char *path, Err *err);
    const void *context;
} TensorOut;
// A safetensors file, `format: pt` and `metadata` (may be NULL) in its header, written aside, synced and renamed.
bool safetensors_write(const char *path, const TensorOut *tensors, int count, const json_t *metadata, Err *err) MUST_CHECK;

// A safetensors file by itself (optimizer state, reference values): open, look up, read.
typedef struct Safetensors Safetensors;
bool safetensors_open(const char *path, Safetensors **out, Err *err) MUST_CHECK;
void safetensors_close(Safetensors *s);
bool safetensors_holds(const Safetensors *s, const void *data, size_t bytes); // all of it lies within the file
int safetensors_count(const Safetensors *s);
void safetensors_at(const Safetensors *s, int index, TensorInfo *out);
bool safetensors_find(const Safetensors *s, const char *name, TensorInfo *out);
// Inside the mapping, aligned only as the file has it; NULL if missing.
const void *safetensors_bytes(const Safetensors *s, const char *name);
void safetensors_drop_pages(const Safetensors *s);
void safetensors_hash(const Safetensors *s, char out[65]); // SHA-256 of the whole file
bool safetensors_read(const Safetensors *s, const char *name, float *out, Err *err) MUST_CHECK; // to fp32
const json_t *safetensors_metadata(const Safetensors *s); // may be NULL

#endif
