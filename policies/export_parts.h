// Shared by the export_*.c files, and by nobody else.
#ifndef RECKON_EXPORT_PARTS_H
#define RECKON_EXPORT_PARTS_H
#include "export.h"
#include "model.h"
#include "weights_private.h"

typedef struct Export {
    const Weights *w;
    const ExportOptions *options;
    const char *out; // in errors
} Export;

// What of a tensor goes out: all of it, or a half of DeepSeek's kv_b_proj [H (N + V), R] as GGUF has it.
typedef enum ExportPart {
    PART_ALL,
    PART_KEYS,  // [H, R, N]: the first N rows of each head, turned
    PART_VALUES // [H, V, R]: the others
} ExportPart;
// One tensor on its way.
typedef struct ExportTensor {
    const Export *e;
    const WeightTensor *from;
    const WeightTensor *const *more; // [more_count] of from's shape, behind it: the other experts
    int more_count, dims;
    int64_t shape[4];        // in the output
    ExportPart part;
    char name[128];          // in the output
    const StorageType *type; // in the output
    uint64_t bytes;          // in the output
    int32_t interleave;      // rows go into interleaved rotary order, for so many heads; 0: Hugging Face's order
    float shift;             // added to Hugging Face's values
} ExportTensor;

// All of a tensor, or all of several side by side; `shape` follows from that. `more` stays the caller's.
ExportTensor export_tensor_of(const Export *e, const WeightTensor *from, const StorageType *type);
// Fills in `bytes`. An error where the stored extent isn't what type and shape say, or doesn't lie within its file.
bool export_tensor_check(ExportTensor *t, Err *err) MUST_CHECK;
// Writes exactly t->bytes. `t` is an ExportTensor.
bool export_tensor_write(const void *t, int fd, const char *path, Err *err) MUST_CHECK;
// A tensor that every reader leaves out: a tied head's copy, rotary tables.
bool export_left_out(const Weights *w, const char *name);
// F32, F16 or BF16.
bool export_is_plain(const StorageType *type);
// An output that is there and may not be replaced is an error. An empty file or folder is none.
bool export_may_write(const char *path, bool replace, Err *err) MUST_CHECK;

// An adapter's layout on a model that isn't opened, and its factors.
struct Merge {
    Policy shell;     // its layout alone
    Adapter *adapter;
    float **values;   // [adapter->count], each [N, K]
    NameEntry *names; // [name_count] of the model's matrices, to positions in `places`
    struct MergePlace {
        int parameter, part;
    } *places;
    int name_count;
};
// export_peft.c: adapter_config.json and the factors of an adapter on a mixture of experts as newer releases of PEFT take them.
bool peft_write_mixture(const Merge *m, const char *adapter, const char *folder, Err *err) MUST_CHECK;

// Metadata of a GGUF file being written.
typedef struct GgufMetadata {
    Buf bytes;
    uint64_t count;
} GgufMetadata;
void metadata_u32(GgufMetadata *m, const char *key, uint32_t x);
void metadata_f32(GgufMetadata *m, const char *key, double x);
void metadata_bool(GgufMetadata *m, const char *key, bool x);
void metadata_text(GgufMetadata *m, const char *key, const char *text, size_t size);
void metadata_array(GgufMetadata *m, const char *key, GgufType type, uint64_t count); // its items follow
void metadata_item_text(GgufMetadata *m, const char *text, size_t size);
void metadata_item_32(GgufMetadata *m, uint32_t bits);
uint32_t metadata_float_bits(double x); // as fp32
void metadata_value(GgufMetadata *m, const GgufValue *v); // as it stands

// The architecture's name and keys, from the configuration. An error where GGUF has no form for what it says.
bool metadata_of_config(GgufMetadata *m, const Export *e, Err *err) MUST_CHECK;
// Divisors of rotary frequencies that GGUF files hold as tensors; none for most models. They stay the caller's to free.
typedef struct ExportDivisors {
    int count;
    struct {
        const char *name;
        float values[MAX_ROPE_FACTORS];
        WeightTensor tensor;
    } lists[2];
} ExportDivisors;
void export_divisors(const ModelConfig *c, ExportDivisors *out);
// The tokenizer of the folder `path`; nothing where it has none.
bool metadata_of_tokenizer(GgufMetadata *m, const Export *e, Err *err) MUST_CHECK;

#endif
