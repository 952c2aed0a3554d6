// One interface over folders and GGUF files. Opening ends with a check of every tensor against the configuration: all
// that the model needs are there in the right shapes, and there is none that it wouldn't use, so that nothing that
// changes the numbers is ever passed over. Reading is safe from several threads at once.
#include "blocks.h"
#include "family.h"
#include "files.h"
#include "weights_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- tensors against the configuration -------------------------------------------------------------------
static void shape_text(int dims, const int64_t *shape, Buf *out) {
    buf_puts(out, "[");
    for (int i = 0; i < dims; i++) buf_printf(out, "%s%" PRId64, i ? ", " : "", shape[i]);
    buf_puts(out, "]");
}
static bool check_shape(const Weights *w, const TensorInfo *t, int dims, const int64_t *shape, Err *err) {
    bool same = t->dims == dims;
    for (int i = 0; same && i < dims; i++) same = t->shape[i] == shape[i];
    if (same) return true;
    Buf found = {0}, expected = {0};
    shape_text(t->dims, t->shape, &found);
    shape_text(dims, shape, &expected);
    fail(err, ERR_DATA, w->path, "tensor '%.100s' has shape %s, expected %s", t->name, found.data, expected.data);
    buf_free(&found);
    buf_free(&expected);
    return false;
}

typedef struct Check {
    const Weights *w;
    char *used; // [count]
} Check;
static bool need(void *context, const TensorSpec *t, Err *err) {
    Check *c = context;
    int i = names_find(c->w->index, c->w->all, t->name);
    if (i < 0) return fail(err, ERR_DATA, c->w->path, "tensor '%s' is missing", t->name);
    c->used[i] = 1;
    return check_shape(c->w, &c->w->tensors[i].info, t->columns ? 2 : 1, (int64_t[]){t->rows, t->columns}, err);
}
// Stored by some writers and used by nobody: a second copy of a tied head, and rotary tables of old checkpoints. Or read with
// the configuration: a GGUF's divisors of frequencies.
bool weights_is_divisors(const char *name) {
    return !strcmp(name, "rope_freqs.weight") || !strcmp(name, "rope_factors_short.weight") || !strcmp(name, "rope_factors_long.weight");
}
static bool harmless(const Weights *w, const char *name) {
    size_t n = strlen(name), suffix = strlen(".rotary_emb.inv_freq");
    if (w->gguf && w->config.rope[0].kind == ROPE_LONGROPE && weights_is_divisors(name)) return true;
    return (w->config.tied && strcmp(name, "lm_head.weight") == 0) || (n > suffix && strcmp(name + n - suffix, ".rotary_emb.inv_freq") == 0);
}
static bool check_tensors(const Weights *w, Err *err) {
    const ModelConfig *m = &w->config;
    Check c = {w, xcalloc((size_t)w->all, 1)};
    bool ok = family_tensors(m, need, &c, err);
    for (int i = 0; ok && i < w->all; i++)
        if (!c.used[i] && !w->tensors[i].merged && !harmless(w, w->tensors[i].info.name))
            ok = fail(err, ERR_DATA, w->path, "tensor '%.100s' has no place in a %s model of this configuration", w->tensors[i].own_name, m->model_type);
    free(c.used);
    return ok;
}

// ---- opening ---------------------------------------------------------------------------------------------
static bool make_index(Weights *w, Err *err) {
    const char *twice = NULL;
    for (int own = 0; own < 2; own++) {
        NameEntry **index = own ? &w->own_index : &w->index;
        free(*index);
        *index = xcalloc((size_t)w->all, sizeof **index);
        for (int i = 0; i < w->all; i++) (*index)[i] = (NameEntry){own ? w->tensors[i].own_name : w->tensors[i].info.name, i};
        if (!twice) twice = names_sort(*index, w->all);
        else names_sort(*index, w->all);
    }
    return !twice || fail(err, ERR_DATA, w->path, "tensor '%.100s' occurs twice", twice);
}
static bool understand(Weights *w, Err *err) {
    TRY(w->gguf ? gguf_model_config(w, err) : hf_config(w, err));
    TRY(make_index(w, err));
    return check_tensors(w, err);
}
// As a bag of tensors under their own names.
static bool forget(Weights *w, Err *err) {
    if (w->gguf) gguf_model_list(w);
    for (int i = 0; i < w->count; i++) {
        w->tensors[i].info.name = w->tensors[i].own_name;
    }
    return make_index(w, err);
}
static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}
static bool open_any(Weights *w, bool any, Err *err) {
    if (file_is_folder(w->path)) return hf_open(w, err);
    if (any && ends_with(w->path, ".safetensors")) {
        fail(&w->config_error, ERR_DATA, w->path, "a single safetensors file says nothing about its model");
        return hf_open_file(w, w->path, err);
    }
    if (file_exists(w->path) && !ends_with(w->path, ".gguf"))
        return fail(err, ERR_DATA, w->path, "expected a model folder%s or a .gguf file", any ? ", a .safetensors file" : "");
    return gguf_model_open(w, err);
}

bool weights_open(const char *path, bool any, Weights **out, Err *err) {
    Weights *w = xcalloc(1, sizeof *w);
    *out = NULL;
    w->path = xstrdup(path);
    bool ok = open_any(w, any, err);
    if (ok && !w->config_error.code) w->has_config = understand(w, &w->config_error);
    if (ok && !w->has_config) {
        if (any) {
            ok = forget(w, err);
        } else {
            *err = w->config_error;
            ok = false;
        }
    }
    if (ok)
        *out = w;
    else
        weights_close(w);
    return ok;
}
void weights_close(Weights *w) {
    if (!w) return;
    for (int i = 0; i < w->shard_count; i++) safetensors_close(w->shards[i]);
    free(w->shards);
    gguf_close(w->gguf);
    free(w->tensors);
    free(w->index);
    free(w->own_index);
    json_decref(w->config_json);
    json_decref(w->index_metadata);
    arena_reset(&w->names);
    free(w->path);
    free(w);
}

// ---- looking up ------------------------------------------------------------------------------------------
const char *weights_path(const Weights *w) { return w->path; }
bool weights_hash(const Weights *w, char out[65], Err *err) {
    Buf all = {0};
    char one[65];
    bool ok = true;
    char *config = w->gguf ? xstrdup(w->path) : path_join(w->path, "config.json");
    ok = sha256_file(config, one, err);
    buf_puts(&all, one);
    for (int i = 0; i < w->shard_count; i++) {
        safetensors_hash(w->shards[i], one);
        buf_puts(&all, one);
    }
    if (ok) sha256_hex(all.data, all.size, out);
    buf_free(&all);
    free(config);
    return ok;
}
const ModelConfig *weights_config(const Weights *w) { return w->has_config ? &w->config : NULL; }
const Err *weights_config_error(const Weights *w) { return w->has_config ? NULL : &w->config_error; }
const json_t *weights_config_json(const Weights *w) { return w->config_json; }
int weights_count(const Weights *w) { return w->count; }
void weights_at(const Weights *w, int index, TensorInfo *out) { *out = w->tensors[index].info; }
const char *weights_own_name(const Weights *w, int index) { return w->tensors[index].own_name; }

int weights_position(const Weights *w, const char *name) {
    int i = names_find(w->index, w->all, name);
    return i < 0 ? names_find(w->own_index, w->all, name) : i;
}
static const WeightTensor *find(const Weights *w, const char *name) {
    int i = weights_position(w, name);
    return i < 0 ? NULL : &w->tensors[i];
}
bool weights_find(const Weights *w, const char *name, TensorInfo *out) {
    const WeightTensor *t = find(w, name);
    if (t) *out = t->info;
    return t != NULL;
}
json_t *weights_metadata(const Weights *w) {
    if (w->gguf) {
        json_t *all = json_object();
        for (int i = 0; i < gguf_value_count(w->gguf); i++) {
            const GgufValue *v = gguf_value_at(w->gguf, i);
            json_object_set_new(all, v->key, gguf_value_json(v));
        }
        return all;
    }
    const json_t *metadata = w->index_metadata ? w->index_metadata : w->shard_count == 1 ? safetensors_metadata(w->shards[0]) : NULL;
    return metadata ? json_deep_copy(metadata) : json_object();
}

// ---- reading ---------------------------------------------------------------------------------------------
static bool read_interleaved_bias(const Weights *w, const WeightTensor *t, float *out, Err *err) { // its elements are the rows
    int64_t rows = t->info.shape[0], head_width = rows / t->rotary_heads;
    void *memory;
    TRY(mem_alloc((size_t)rows * sizeof(float), t->own_name, &memory, err));
    float *stored = memory;
    bool ok = storage_decode(t->type, t->data, t->info.count / t->type->block, w->path, t->own_name, stored, err);
    for (int64_t r = 0; ok && r < rows; r++) out[r] = stored[interleaved_row(r, head_width)];
    mem_free(memory);
    return ok;
}
// Rows of a matrix, or all of a vector.
static bool read_rows(const Weights *w, const WeightTensor *t, int64_t first, int64_t count, float *out, Err *err) {
    int64_t columns = t->info.dims == 2 ? t->info.shape[1] : 1, blocks = columns / t->type->block;
    const uint8_t *data = t->data;
    if (t->info.dims != 2) {
        TRY(t->rotary_heads ? read_interleaved_bias(w, t, out, err)
                            : storage_decode(t->type, data, t->info.count / t->type->block, w->path, t->own_name, out, err));
    } else if (!t->rotary_heads) {
        TRY(storage_decode(t->type, data + first * columns / t->type->block * t->type->block_bytes, count * columns / t->type->block, w->path,
                           t->own_name, out, err));
    } else {
        for (int64_t r = 0; r < count; r++)
            TRY(storage_decode(t->type, data + interleaved_row(first + r, t->info.shape[0] / t->rotary_heads) * blocks * t->type->block_bytes,
                               blocks, w->path, t->own_name, out + r * columns, err));
    }
    for (int64_t i = 0, all = t->info.dims == 2 ? count * columns : t->info.count; i < all && t->shift != 0; i++) out[i] += t->shift;
    return true;
}
bool weights_read(const Weights *w, const char *name, int dims, const int64_t *shape, float *out, Err *err) {
    const WeightTensor *t = find(w, name);
    if (!t) return fail(err, ERR_DATA, w->path, "tensor '%.100s' is missing", name);
    TRY(check_shape(w, &t->info, dims, shape, err));
    if (t->keys) return weights_read_halves(w, t, out, err);
    if (dims > 2) return weights_read_raw(w, name, out, err);
    return read_rows(w, t, 0, dims ? shape[0] : 1, out, err);
}
bool weights_has_rows(const Weights *w, const char *name) {
    const WeightTensor *t = find(w, name);
    return t && !t->keys;
}
bool weights_read_rows(const Weights *w, const char *name, const int64_t shape[2], int64_t first, int64_t count, float *out, Err *err) {
    const WeightTensor *t = find(w, name);
    if (!t) return fail(err, ERR_DATA, w->path, "tensor '%.100s' is missing", name);
    TRY(check_shape(w, &t->info, 2, shape, err));
    return read_rows(w, t, first, count, out, err);
}
bool weights_has_stored(const Weights *w, const char *name) {
    const WeightTensor *t = find(w, name);
    return t && !t->keys && t->shift == 0;
}
const uint8_t *weights_in_file(const Weights *w, const char *name, int64_t *interleaved) {
    const WeightTensor *t = find(w, name);
    *interleaved = t && t->rotary_heads ? t->info.shape[0] / t->rotary_heads : 0;
    return t && weights_has_stored(w, name) && (uintptr_t)t->data % 2 == 0 ? t->data : NULL;
}
size_t weights_row_bytes(const Weights *w, const char *name) {
    const WeightTensor *t = find(w, name);
    return t && t->info.dims == 2 && t->info.shape[0] ? t->info.bytes / (size_t)t->info.shape[0] : 0;
}
bool weights_stored_rows(const Weights *w, const char *name, const int64_t shape[2], int64_t first, int64_t count, uint8_t *copy,
                         const uint8_t **rows, Err *err) {
    const WeightTensor *t = find(w, name);
    if (!t) return fail(err, ERR_DATA, w->path, "tensor '%.100s' is missing", name);
    TRY(check_shape(w, &t->info, 2, shape, err));
    size_t each = t->info.bytes / (size_t)shape[0];
    *rows = t->data + (size_t)first * each;
    if (!t->rotary_heads && (uintptr_t)*rows % 2 == 0) return true;
    for (int64_t r = first; r < first + count; r++) {
        int64_t from = t->rotary_heads ? interleaved_row(r, shape[0] / t->rotary_heads) : r;
        memcpy(copy + (size_t)(r - first) * each, t->data + (size_t)from * each, each);
    }
    *rows = copy;
    return true;
}
bool weights_read_blocks(const Weights *w, const char *name, int64_t rows, int64_t columns, uint8_t *out, Err *err) {
    const WeightTensor *t = find(w, name);
    if (!t) return fail(err, ERR_DATA, w->path, "tensor '%.100s' is missing", name);
    TRY(check_shape(w, &t->info, 2, (int64_t[]){rows, columns}, err));
    size_t row = t->info.bytes / (size_t)rows;
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = t->rotary_heads ? interleaved_row(r, rows / t->rotary_heads) : r;
        memcpy(out + (size_t)r * row, t->data + (size_t)from * row, row);
    }
    return true;
}
void weights_drop_pages(const Weights *w) {
    if (w->gguf) gguf_drop_pages(w->gguf);
    for (int i = 0; i < w->shard_count; i++) safetensors_drop_pages(w->shards[i]);
}
bool weights_read_raw(const Weights *w, const char *name, float *out, Err *err) {
    const WeightTensor *t = find(w, name);
    if (!t) return fail(err, ERR_DATA, w->path, "tensor '%.100s' is missing", name);
    if (t->keys) return weights_read_halves(w, t, out, err);
    return storage_decode(t->type, t->data, t->info.count / t->type->block, w->path, t->own_name, out, err);
}
