// GGUF files, versions 2 and 3, little-endian: metadata and tensors of one mapped file, checked whole when it is opened,
// so that nothing found through this header can point outside the mapping. Names and values are the file's own;
// what they mean for a model is weights.h.
#ifndef RECKON_GGUF_H
#define RECKON_GGUF_H
#include "json.h"
#include "storage.h"

typedef struct Gguf Gguf;

typedef enum GgufType { // as numbered in the file
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_TEXT,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} GgufType;

// Bytes inside the mapping: any bytes, not NUL-terminated, not necessarily UTF-8.
typedef struct GgufText {
    const char *data;
    size_t size;
} GgufText;

// A metadata value. A scalar is an array of one: `type` is the type of its items in both cases.
typedef struct GgufValue {
    const char *key; // UTF-8, NUL-terminated
    bool array;
    GgufType type;         // never GGUF_ARRAY: nested arrays are refused
    uint64_t count;        // items
    const uint8_t *data;   // items as stored (not aligned); use the functions below
    const GgufText *texts; // [count] for GGUF_TEXT, otherwise NULL
} GgufValue;

typedef struct GgufTensor {
    const char *name;
    const StorageType *type;
    int dims;
    int64_t shape[4]; // row-major (the file's order reversed)
    int64_t count;
    const uint8_t *data; // inside the mapping
    size_t bytes;
} GgufTensor;

bool gguf_open(const char *path, Gguf **out, Err *err) MUST_CHECK;
void gguf_close(Gguf *g); // ends the life of all that was found in it
const char *gguf_path(const Gguf *g);
void gguf_drop_pages(const Gguf *g); // of the mapping, from memory
bool gguf_holds(const Gguf *g, const void *data, size_t bytes); // all of it lies within the file

int gguf_value_count(const Gguf *g);
const GgufValue *gguf_value_at(const Gguf *g, int index);
const GgufValue *gguf_find(const Gguf *g, const char *key); // NULL if missing

// Item `i` < count. Integers: any integer type or bool (a u64 above INT64_MAX is INT64_MAX). Reals: any number.
int64_t gguf_int_at(const GgufValue *v, uint64_t i);
double gguf_real_at(const GgufValue *v, uint64_t i);
bool gguf_is_int(const GgufValue *v);  // items are integers (not bool)
bool gguf_is_real(const GgufValue *v); // items are floats or integers

// Scalars and arrays by key. A missing key leaves *out as it was, an error only where `required`. A value of another
// kind is always an error that names the key, what was found and what was expected.
bool gguf_get_text(const Gguf *g, const char *key, bool required, GgufText *out, Err *err) MUST_CHECK;
bool gguf_get_int(const Gguf *g, const char *key, bool required, int64_t *out, Err *err) MUST_CHECK;
bool gguf_get_real(const Gguf *g, const char *key, bool required, double *out, Err *err) MUST_CHECK;
bool gguf_get_bool(const Gguf *g, const char *key, bool required, bool *out, Err *err) MUST_CHECK;
bool gguf_get_texts(const Gguf *g, const char *key, bool required, const GgufText **out, size_t *count, Err *err) MUST_CHECK;
// An array of integers or of numbers; read its items with gguf_int_at and gguf_real_at. *out is NULL if missing.
bool gguf_get_ints(const Gguf *g, const char *key, bool required, const GgufValue **out, Err *err) MUST_CHECK;
bool gguf_get_reals(const Gguf *g, const char *key, bool required, const GgufValue **out, Err *err) MUST_CHECK;
// A value as JSON. Bytes that aren't UTF-8 are shown as \xNN.
json_t *gguf_value_json(const GgufValue *v);

int gguf_tensor_count(const Gguf *g);
const GgufTensor *gguf_tensor_at(const Gguf *g, int index);
const GgufTensor *gguf_tensor_find(const Gguf *g, const char *name); // NULL if missing

#endif
