// A GGUF file is a header (magic, version, counts), metadata, tensor infos and aligned data. gguf_open walks all of
// it once with a cursor that never passes the end, before anyone may look at a value: every count is bounded by the
// bytes that are left before memory is asked for, every size goes through checked arithmetic, and each tensor must
// begin exactly where the one before it ends (padded), so that tensors can't overlap, point into the header, or claim
// bytes the file doesn't have. Refused: version 1 and big-endian files, nested arrays, duplicate keys or tensors, and
// types whose size isn't known.
#include "gguf.h"
#include "files.h"
#include "names.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Gguf {
    char *path;
    MappedFile file;
    GgufValue *values;
    GgufTensor *tensors;
    int value_count, tensor_count;
    NameEntry *value_index, *tensor_index;
    GgufText **texts; // one list for each value of type text, NULL for the others
};

enum { MAX_KEY = 65535, MAX_TENSOR_NAME = 1023, MAX_ALIGNMENT = 1 << 16, MAX_ITEMS = 1 << 24 };

static const struct {
    const char *name;
    int size; // 0: not of one size
} value_types[] = {
    [GGUF_U8] = {"uint8", 1},     [GGUF_I8] = {"int8", 1},       [GGUF_U16] = {"uint16", 2}, [GGUF_I16] = {"int16", 2},
    [GGUF_U32] = {"uint32", 4},   [GGUF_I32] = {"int32", 4},     [GGUF_F32] = {"float32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_TEXT] = {"string", 0},  [GGUF_ARRAY] = {"array", 0},   [GGUF_U64] = {"uint64", 8}, [GGUF_I64] = {"int64", 8},
    [GGUF_F64] = {"float64", 8},
};

static uint64_t load(const uint8_t *p, int size) {
    uint64_t x = 0;
    for (int i = 0; i < size; i++) x |= (uint64_t)p[i] << 8 * i;
    return x;
}

// ---- the cursor ------------------------------------------------------------------------------------------
typedef struct Cursor {
    const uint8_t *base;
    size_t at, size;
    const char *path;
    char what[160]; // what is being read, for errors
} Cursor;

static bool bad(const Cursor *c, Err *err, const char *format, ...) PRINTF_LIKE(3, 4);
static bool bad(const Cursor *c, Err *err, const char *format, ...) {
    char msg[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    return fail(err, ERR_DATA, c->path, "%s (byte %zu): %s", c->what, c->at, msg);
}
static bool take(Cursor *c, uint64_t size, const uint8_t **out, Err *err) {
    size_t left = c->size - c->at;
    if (size > left) return bad(c, err, "needs %" PRIu64 " bytes, the file has %zu left", size, left);
    *out = c->base + c->at;
    c->at += (size_t)size;
    return true;
}
static bool take_number(Cursor *c, int size, uint64_t *out, Err *err) {
    const uint8_t *p = NULL;
    TRY(take(c, (uint64_t)size, &p, err));
    *out = load(p, size);
    return true;
}
static bool take_text(Cursor *c, GgufText *out, Err *err) {
    uint64_t size = 0;
    const uint8_t *p = NULL;
    TRY(take_number(c, 8, &size, err));
    TRY(take(c, size, &p, err));
    *out = (GgufText){(const char *)p, (size_t)size};
    return true;
}
// A key or a tensor's name, copied because C wants a NUL at its end.
static bool take_name(Cursor *c, size_t limit, const char **out, Err *err) {
    GgufText text = {0};
    TRY(take_text(c, &text, err));
    if (text.size == 0 || text.size > limit) return bad(c, err, "a name of %zu bytes, expected 1 to %zu", text.size, limit);
    json_t *checked = memchr(text.data, 0, text.size) ? NULL : json_stringn(text.data, text.size); // NULL: not UTF-8
    if (!checked) return bad(c, err, "a name that isn't UTF-8 text without NUL");
    json_decref(checked);
    *out = xstrndup(text.data, text.size);
    return true;
}

// ---- metadata --------------------------------------------------------------------------------------------
static bool take_items(Cursor *c, GgufValue *v, GgufText **texts, Err *err) {
    if (v->type == GGUF_TEXT) {
        // Every string takes at least the eight bytes of its length.
        if (v->count > (c->size - c->at) / 8)
            return bad(c, err, "%" PRIu64 " strings can't fit into the %zu bytes left", v->count, c->size - c->at);
        void *memory;
        TRY(mem_alloc((size_t)v->count * sizeof(GgufText), "GGUF strings", &memory, err));
        *texts = memory;
        v->texts = *texts;
        for (uint64_t i = 0; i < v->count; i++) TRY(take_text(c, &(*texts)[i], err));
        return true;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(v->count, (uint64_t)value_types[v->type].size, &bytes))
        return bad(c, err, "an array of %" PRIu64 " items can't be addressed", v->count);
    TRY(take(c, bytes, &v->data, err));
    if (v->type == GGUF_BOOL)
        for (uint64_t i = 0; i < v->count; i++)
            if (v->data[i] > 1) return bad(c, err, "a bool of value %d, expected 0 or 1", v->data[i]);
    return true;
}
static bool take_type(Cursor *c, GgufType *out, Err *err) {
    uint64_t type = 0;
    TRY(take_number(c, 4, &type, err));
    if (type >= (uint64_t)COUNT(value_types)) return bad(c, err, "value type %" PRIu64 ", expected 0 to 12", type);
    *out = (GgufType)type;
    return true;
}
static bool take_value(Cursor *c, GgufValue *v, GgufText **texts, Err *err) {
    snprintf(c->what, sizeof c->what, "a metadata key");
    TRY(take_name(c, MAX_KEY, &v->key, err));
    snprintf(c->what, sizeof c->what, "metadata key '%.100s'", v->key);
    TRY(take_type(c, &v->type, err));
    v->count = 1;
    if (v->type == GGUF_ARRAY) {
        v->array = true;
        TRY(take_type(c, &v->type, err));
        if (v->type == GGUF_ARRAY) return bad(c, err, "an array of arrays isn't supported");
        TRY(take_number(c, 8, &v->count, err));
    }
    return take_items(c, v, texts, err);
}

// ---- tensors ---------------------------------------------------------------------------------------------
static bool take_shape(Cursor *c, GgufTensor *t, Err *err) {
    uint64_t dims = 0, extent = 0;
    TRY(take_number(c, 4, &dims, err));
    if (dims < 1 || dims > 4) return bad(c, err, "%" PRIu64 " dimensions, expected 1 to 4", dims);
    t->dims = (int)dims;
    t->count = 1;
    for (int i = t->dims - 1; i >= 0; i--) { // stored innermost first
        TRY(take_number(c, 8, &extent, err));
        if (extent < 1 || extent > INT64_MAX || __builtin_mul_overflow(t->count, (int64_t)extent, &t->count))
            return bad(c, err, "an extent of %" PRIu64 " overflows or is zero", extent);
        t->shape[i] = (int64_t)extent;
    }
    return true;
}
// `end`: where the data of the tensors so far ends, padded; moved past this one.
static bool take_tensor(Cursor *c, GgufTensor *t, uint64_t alignment, uint64_t *end, uint64_t *offset, Err *err) {
    uint64_t id = 0;
    snprintf(c->what, sizeof c->what, "a tensor's name");
    TRY(take_name(c, MAX_TENSOR_NAME, &t->name, err));
    snprintf(c->what, sizeof c->what, "tensor '%.100s'", t->name);
    TRY(take_shape(c, t, err));
    TRY(take_number(c, 4, &id, err));
    t->type = storage_by_gguf_id((uint32_t)id);
    if (!t->type) return bad(c, err, "type %" PRIu64 " isn't known", id);
    int64_t row = t->shape[t->dims - 1];
    if (row % t->type->block != 0)
        return bad(c, err, "rows of %" PRId64 " elements, expected a multiple of %d for %s", row, t->type->block, t->type->name);
    uint64_t bytes, padded;
    if (__builtin_mul_overflow((uint64_t)(t->count / t->type->block), (uint64_t)t->type->block_bytes, &bytes) ||
        __builtin_add_overflow(bytes, alignment - 1, &padded))
        return bad(c, err, "its size in bytes overflows");
    padded &= ~(alignment - 1);
    TRY(take_number(c, 8, offset, err));
    if (*offset != *end) return bad(c, err, "offset %" PRIu64 ", expected %" PRIu64 " (the end of the tensor before it)", *offset, *end);
    if (__builtin_add_overflow(*end, padded, end)) return bad(c, err, "the offset after it overflows");
    t->bytes = (size_t)bytes;
    return true;
}
static bool place_tensors(Cursor *c, Gguf *g, const uint64_t *offsets, uint64_t alignment, Err *err) {
    uint64_t start = (c->at + alignment - 1) & ~(alignment - 1);
    for (int i = 0; i < g->tensor_count; i++) {
        GgufTensor *t = &g->tensors[i];
        snprintf(c->what, sizeof c->what, "tensor '%.100s'", t->name);
        // In this order no sum can wrap: start and then offset are known to lie within the file.
        if (start > c->size || offsets[i] > c->size - start || t->bytes > c->size - start - offsets[i])
            return bad(c, err, "needs bytes %" PRIu64 " to %" PRIu64 " of the data, which has %" PRIu64, offsets[i],
                       offsets[i] + t->bytes, start > c->size ? 0 : c->size - start);
        t->data = c->base + start + offsets[i];
    }
    return true;
}

// ---- opening ---------------------------------------------------------------------------------------------
static bool read_header(Cursor *c, uint64_t *tensors, uint64_t *values, Err *err) {
    const uint8_t *magic = NULL;
    uint64_t version = 0;
    snprintf(c->what, sizeof c->what, "the header");
    TRY(take(c, 4, &magic, err));
    if (memcmp(magic, "GGUF", 4) != 0) return fail(err, ERR_DATA, c->path, "does not begin with 'GGUF': not a GGUF file");
    TRY(take_number(c, 4, &version, err));
    if (version == 0x02000000 || version == 0x03000000)
        return bad(c, err, "a big-endian file isn't supported, expected little-endian");
    if (version != 2 && version != 3) return bad(c, err, "version %" PRIu64 ", expected 2 or 3", version);
    TRY(take_number(c, 8, tensors, err));
    TRY(take_number(c, 8, values, err));
    // The smallest tensor info has 33 bytes, the smallest key and value 14.
    size_t left = c->size - c->at;
    if (*tensors > left / 33 || *tensors > MAX_ITEMS) return bad(c, err, "%" PRIu64 " tensors can't fit into the file", *tensors);
    if (*values > left / 14 || *values > MAX_ITEMS) return bad(c, err, "%" PRIu64 " metadata keys can't fit into the file", *values);
    return true;
}
static bool read_values(Cursor *c, Gguf *g, uint64_t count, Err *err) {
    g->values = xcalloc((size_t)count, sizeof *g->values);
    g->texts = xcalloc((size_t)count, sizeof *g->texts);
    g->value_index = xcalloc((size_t)count, sizeof *g->value_index);
    for (uint64_t i = 0; i < count; i++) {
        g->value_count++; // first, so that a half-read one is freed
        TRY(take_value(c, &g->values[i], &g->texts[i], err));
        g->value_index[i] = (NameEntry){g->values[i].key, (int)i};
    }
    const char *twice = names_sort(g->value_index, g->value_count);
    return !twice || fail(err, ERR_DATA, c->path, "metadata key '%.100s' occurs twice", twice);
}
static bool read_alignment(const Gguf *g, uint64_t *alignment, Err *err) {
    const GgufValue *v = gguf_find(g, "general.alignment");
    *alignment = 32;
    if (!v) return true;
    if (v->array || v->type != GGUF_U32)
        return fail(err, ERR_DATA, g->path, "general.alignment is %s %s, expected uint32", v->array ? "an array of" : "of type",
                    value_types[v->type].name);
    *alignment = (uint64_t)gguf_int_at(v, 0);
    if (*alignment >= 1 && *alignment <= MAX_ALIGNMENT && (*alignment & (*alignment - 1)) == 0) return true;
    return fail(err, ERR_DATA, g->path, "general.alignment is %" PRIu64 ", expected a power of two up to %d", *alignment, MAX_ALIGNMENT);
}
static bool read_tensors(Cursor *c, Gguf *g, uint64_t count, Err *err) {
    uint64_t alignment = 0, end = 0;
    TRY(read_alignment(g, &alignment, err));
    g->tensors = xcalloc((size_t)count, sizeof *g->tensors);
    g->tensor_index = xcalloc((size_t)count, sizeof *g->tensor_index);
    uint64_t *offsets = xcalloc((size_t)count, sizeof *offsets);
    bool ok = true;
    for (uint64_t i = 0; ok && i < count; i++) {
        g->tensor_count++;
        ok = take_tensor(c, &g->tensors[i], alignment, &end, &offsets[i], err);
        g->tensor_index[i] = (NameEntry){g->tensors[i].name, (int)i};
    }
    ok = ok && place_tensors(c, g, offsets, alignment, err);
    free(offsets);
    TRY(ok);
    const char *twice = names_sort(g->tensor_index, g->tensor_count);
    return !twice || fail(err, ERR_DATA, c->path, "tensor '%.100s' occurs twice", twice);
}

bool gguf_open(const char *path, Gguf **out, Err *err) {
    Gguf *g = xcalloc(1, sizeof *g);
    *out = NULL;
    g->path = xstrdup(path);
    bool ok = file_map(path, &g->file, err);
    uint64_t tensors = 0, values = 0;
    Cursor c = {.base = g->file.data, .size = g->file.size, .path = g->path};
    ok = ok && read_header(&c, &tensors, &values, err) && read_values(&c, g, values, err) &&
         read_tensors(&c, g, tensors, err);
    if (ok)
        *out = g;
    else
        gguf_close(g);
    return ok;
}
void gguf_close(Gguf *g) {
    if (!g) return;
    for (int i = 0; i < g->value_count; i++) {
        free((char *)(uintptr_t)g->values[i].key);
        mem_free(g->texts[i]);
    }
    for (int i = 0; i < g->tensor_count; i++) free((char *)(uintptr_t)g->tensors[i].name);
    free(g->values);
    free(g->texts);
    free(g->value_index);
    free(g->tensors);
    free(g->tensor_index);
    file_unmap(&g->file);
    free(g->path);
    free(g);
}

// ---- looking up ------------------------------------------------------------------------------------------
const char *gguf_path(const Gguf *g) { return g->path; }
void gguf_drop_pages(const Gguf *g) { file_drop_pages(&g->file); }
bool gguf_holds(const Gguf *g, const void *data, size_t bytes) {
    uintptr_t start = (uintptr_t)g->file.data, at = (uintptr_t)data;
    return data && at >= start && at - start <= g->file.size && bytes <= g->file.size - (at - start);
}
int gguf_value_count(const Gguf *g) { return g->value_count; }
const GgufValue *gguf_value_at(const Gguf *g, int index) { return &g->values[index]; }
const GgufValue *gguf_find(const Gguf *g, const char *key) {
    int i = names_find(g->value_index, g->value_count, key);
    return i < 0 ? NULL : &g->values[i];
}
int gguf_tensor_count(const Gguf *g) { return g->tensor_count; }
const GgufTensor *gguf_tensor_at(const Gguf *g, int index) { return &g->tensors[index]; }
const GgufTensor *gguf_tensor_find(const Gguf *g, const char *name) {
    int i = names_find(g->tensor_index, g->tensor_count, name);
    return i < 0 ? NULL : &g->tensors[i];
}

bool gguf_is_int(const GgufValue *v) {
    return v->type <= GGUF_I32 || v->type == GGUF_U64 || v->type == GGUF_I64;
}
bool gguf_is_real(const GgufValue *v) { return gguf_is_int(v) || v->type == GGUF_F32 || v->type == GGUF_F64; }

int64_t gguf_int_at(const GgufValue *v, uint64_t i) {
    int size = value_types[v->type].size;
    uint64_t x = load(v->data + i * (uint64_t)size, size);
    switch (v->type) {
    case GGUF_I8: return (int8_t)x;
    case GGUF_I16: return (int16_t)x;
    case GGUF_I32: return (int32_t)x;
    case GGUF_I64: return (int64_t)x;
    default: return x > INT64_MAX ? INT64_MAX : (int64_t)x;
    }
}
double gguf_real_at(const GgufValue *v, uint64_t i) {
    float f;
    double d;
    switch (v->type) {
    case GGUF_F32: memcpy(&f, v->data + 4 * i, 4); return f;
    case GGUF_F64: memcpy(&d, v->data + 8 * i, 8); return d;
    case GGUF_U64: return (double)load(v->data + 8 * i, 8);
    default: return (double)gguf_int_at(v, i);
    }
}

// ---- typed look-ups --------------------------------------------------------------------------------------
typedef enum Kind { KIND_TEXT, KIND_INT, KIND_REAL, KIND_BOOL } Kind;
static const char *const kind_names[] = {"string", "integer", "number", "bool"};

static bool get(const Gguf *g, const char *key, bool required, bool array, Kind kind, const GgufValue **out, Err *err) {
    const GgufValue *v = *out = gguf_find(g, key);
    if (!v)
        return !required || fail(err, ERR_DATA, g->path, "metadata key '%s' is missing, expected %s%s", key,
                                 array ? "an array of type " : "a value of type ", kind_names[kind]);
    bool right = kind == KIND_TEXT   ? v->type == GGUF_TEXT
                 : kind == KIND_INT  ? gguf_is_int(v)
                 : kind == KIND_REAL ? gguf_is_real(v)
                                     : v->type == GGUF_BOOL;
    if (right && v->array == array) return true;
    return fail(err, ERR_DATA, g->path, "metadata key '%s' is %s%s, expected %s%s", key, v->array ? "an array of " : "",
                value_types[v->type].name, array ? "an array of " : "", kind_names[kind]);
}

bool gguf_get_text(const Gguf *g, const char *key, bool required, GgufText *out, Err *err) {
    const GgufValue *v;
    TRY(get(g, key, required, false, KIND_TEXT, &v, err));
    if (v) *out = v->texts[0];
    return true;
}
bool gguf_get_int(const Gguf *g, const char *key, bool required, int64_t *out, Err *err) {
    const GgufValue *v;
    TRY(get(g, key, required, false, KIND_INT, &v, err));
    if (v) *out = gguf_int_at(v, 0);
    return true;
}
bool gguf_get_real(const Gguf *g, const char *key, bool required, double *out, Err *err) {
    const GgufValue *v;
    TRY(get(g, key, required, false, KIND_REAL, &v, err));
    if (v) *out = gguf_real_at(v, 0);
    return true;
}
bool gguf_get_bool(const Gguf *g, const char *key, bool required, bool *out, Err *err) {
    const GgufValue *v;
    TRY(get(g, key, required, false, KIND_BOOL, &v, err));
    if (v) *out = v->data[0] != 0;
    return true;
}
bool gguf_get_texts(const Gguf *g, const char *key, bool required, const GgufText **out, size_t *count, Err *err) {
    const GgufValue *v;
    TRY(get(g, key, required, true, KIND_TEXT, &v, err));
    if (v) *out = v->texts, *count = (size_t)v->count;
    return true;
}
bool gguf_get_ints(const Gguf *g, const char *key, bool required, const GgufValue **out, Err *err) {
    return get(g, key, required, true, KIND_INT, out, err);
}
bool gguf_get_reals(const Gguf *g, const char *key, bool required, const GgufValue **out, Err *err) {
    return get(g, key, required, true, KIND_REAL, out, err);
}

static json_t *text_json(GgufText t) {
    json_t *j = json_stringn(t.data, t.size);
    if (j) return j;
    Buf b = {0};
    for (size_t i = 0; i < t.size; i++) {
        unsigned char byte = (unsigned char)t.data[i];
        if (byte >= 0x20 && byte < 0x7f)
            buf_append(&b, &t.data[i], 1);
        else
            buf_printf(&b, "\\x%02x", byte);
    }
    j = json_stringn(b.data, b.size);
    buf_free(&b);
    return j;
}
static json_t *item_json(const GgufValue *v, uint64_t i) {
    if (v->type == GGUF_TEXT) return text_json(v->texts[i]);
    if (v->type == GGUF_BOOL) return json_boolean(v->data[i] != 0);
    if (gguf_is_int(v)) return json_integer(gguf_int_at(v, i));
    return json_number_or_name(gguf_real_at(v, i));
}
json_t *gguf_value_json(const GgufValue *v) {
    if (!v->array) return item_json(v, 0);
    json_t *list = json_array();
    for (uint64_t i = 0; i < v->count; i++) json_array_append_new(list, item_json(v, i));
    return list;
}
