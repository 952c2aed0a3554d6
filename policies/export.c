// Tensors on their way from one file to another, a block of rows at a time: decoded, reordered, added to where an
// adapter is merged, and encoded; or copied as they lie where none of that changes them. Before a tensor is read, its
// declared extent is held against its type, its shape and the file it lies in once more: an exporter that believes a
// header writes out memory that isn't the model's.
#include "export_parts.h"
#include "files.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool export_is_plain(const StorageType *type) {
    return strcmp(type->name, "F32") == 0 || strcmp(type->name, "F16") == 0 || strcmp(type->name, "BF16") == 0;
}

bool export_left_out(const Weights *w, const char *name) {
    size_t n = strlen(name), suffix = strlen(".rotary_emb.inv_freq");
    if (w->gguf && weights_is_divisors(name)) return true; // config.json has them
    return (w->config.tied && strcmp(name, "lm_head.weight") == 0) || (n > suffix && strcmp(name + n - suffix, ".rotary_emb.inv_freq") == 0);
}

static bool folder_empty(const char *path) {
    DIR *d = opendir(path);
    bool empty = d != NULL;
    for (struct dirent *entry; empty && (entry = readdir(d));) empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    if (d) closedir(d);
    return empty;
}
bool export_may_write(const char *path, bool replace, Err *err) {
    struct stat s;
    if (replace || stat(path, &s) != 0) return true;
    if (S_ISDIR(s.st_mode) ? folder_empty(path) : S_ISREG(s.st_mode) && s.st_size == 0) return true;
    return fail(err, ERR_CANTCREAT, path, "is there already; --force replaces it");
}

// ---- extents ---------------------------------------------------------------------------------------------
static bool within_file(const Weights *w, const void *data, size_t bytes) {
    if (w->gguf) return gguf_holds(w->gguf, data, bytes);
    for (int i = 0; i < w->shard_count; i++)
        if (safetensors_holds(w->shards[i], data, bytes)) return true;
    return false;
}
static bool extent(const TensorInfo *info, const StorageType *type, uint64_t *bytes) {
    int64_t count = 1;
    for (int i = 0; i < info->dims; i++)
        if (info->shape[i] < 0 || __builtin_mul_overflow(count, info->shape[i], &count)) return false;
    int64_t row = info->dims ? info->shape[info->dims - 1] : 1;
    return count == info->count && row % type->block == 0 &&
           !__builtin_mul_overflow((uint64_t)(count / type->block), (uint64_t)type->block_bytes, bytes);
}
bool export_tensor_check(ExportTensor *t, Err *err) {
    const Weights *w = t->e->w;
    const WeightTensor *from = t->from;
    uint64_t stored;
    if (!extent(&from->info, from->type, &stored) || stored != from->info.bytes)
        return fail(err, ERR_DATA, w->path, "tensor '%.100s' has %zu bytes, which isn't what its shape and type take", from->own_name,
                    from->info.bytes);
    if (stored && !within_file(w, from->data, (size_t)stored))
        return fail(err, ERR_DATA, w->path, "tensor '%.100s' lies beyond the end of its file", from->own_name);
    return extent(&from->info, t->type, &t->bytes) ||
           fail(err, ERR_DATA, w->path, "tensor '%.100s' can't be written as %s", from->own_name, t->type->name);
}

// ---- rows ------------------------------------------------------------------------------------------------
// Rows of a rotary matrix lie in halves (Hugging Face) or interleaved (GGUF's llama): where one finds a row in the other.
static int64_t to_interleaved(int64_t row, int64_t head_width) {
    int64_t r = row % head_width, half = head_width / 2;
    return row - r + 2 * (r % half) + r / half;
}
static int64_t to_halves(int64_t row, int64_t head_width) {
    int64_t r = row % head_width, half = head_width / 2;
    return row - r + r % 2 * half + r / 2;
}
// The rows of a bias are its elements; a tensor of three dimensions is a list of rows too.
static int64_t rows_of(const ExportTensor *t, bool elements) {
    const TensorInfo *i = &t->from->info;
    if (i->dims == 0 || (i->dims == 1 && !elements)) return 1;
    return elements && i->dims == 1 ? i->shape[0] : i->shape[i->dims - 1] ? i->count / i->shape[i->dims - 1] : 0;
}

// From what is stored here to what the output holds.
static float shift_of(const ExportTensor *t) { return t->from->shift + t->shift; }

typedef struct RowCopy {
    const ExportTensor *t;
    int64_t rows, columns;
    size_t stored_row, written_row; // bytes
    bool reorder, raw;
} RowCopy;
static int64_t hf_row(const RowCopy *c, int64_t row) {
    return c->t->interleave ? to_halves(row, c->rows / c->t->interleave) : row;
}
static const uint8_t *stored_row(const RowCopy *c, int64_t row) {
    const WeightTensor *from = c->t->from;
    int64_t at = hf_row(c, row);
    if (from->rotary_heads) at = to_interleaved(at, c->rows / from->rotary_heads);
    return from->data + (size_t)at * c->stored_row;
}
// Rows [first, first + n) of the output into `out`; `values` has room for them as fp32.
static bool take_rows(const RowCopy *c, int64_t first, int64_t n, float *values, uint8_t *out, const char *path, Err *err) {
    const ExportTensor *t = c->t;
    const WeightTensor *from = t->from;
    const ExportOptions *o = t->e->options;
    if (c->raw) {
        for (int64_t i = 0; i < n; i++) memcpy(out + (size_t)i * c->written_row, stored_row(c, first + i), c->stored_row);
        return true;
    }
    for (int64_t i = 0; i < n; i++) {
        float *row = values + i * c->columns;
        TRY(storage_decode(from->type, stored_row(c, first + i), c->columns / from->type->block, t->e->w->path, from->own_name, row, err));
        for (int64_t k = 0; k < c->columns && shift_of(t) != 0; k++) row[k] += shift_of(t);
        if (o->adds && o->adds(o->context, from->info.name) && !o->add(o->context, from->info.name, hf_row(c, first + i), 1, c->columns, row))
            return fail(err, ERR_DATA, path, "the adapter doesn't fit tensor '%.100s'", from->info.name);
    }
    return storage_encode(t->type, values, n * c->columns / t->type->block, path, t->name, out, err);
}

bool export_tensor_write(const void *context, int fd, const char *path, Err *err) {
    const ExportTensor *t = context;
    const ExportOptions *o = t->e->options;
    bool reorder = t->interleave || t->from->rotary_heads;
    RowCopy c = {.t = t, .rows = rows_of(t, reorder), .reorder = reorder};
    if (t->from->info.count == 0) return true;
    c.columns = t->from->info.count / c.rows;
    c.stored_row = (size_t)(c.columns / t->from->type->block) * (size_t)t->from->type->block_bytes;
    c.written_row = (size_t)(c.columns / t->type->block) * (size_t)t->type->block_bytes;
    c.raw = t->type == t->from->type && shift_of(t) == 0 && !(o->adds && o->adds(o->context, t->from->info.name));
    if (c.raw && !reorder) return write_all(fd, t->from->data, (size_t)t->bytes, path, err);
    int64_t together = c.columns < 1 << 18 ? (1 << 18) / c.columns : 1;
    if (together > c.rows) together = c.rows;
    void *values = NULL, *out = NULL;
    bool ok = mem_alloc((size_t)(together * c.columns) * sizeof(float), "rows of a tensor", &values, err) &&
              mem_alloc((size_t)together * c.written_row, "rows of a tensor", &out, err);
    for (int64_t row = 0; ok && row < c.rows; row += together) {
        int64_t n = c.rows - row < together ? c.rows - row : together;
        ok = take_rows(&c, row, n, values, out, path, err) && write_all(fd, out, (size_t)n * c.written_row, path, err);
    }
    mem_free(values), mem_free(out);
    return ok;
}
