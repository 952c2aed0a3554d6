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
static bool extent(int dims, const int64_t *shape, int64_t expected, const StorageType *type, uint64_t *bytes) {
    int64_t count = 1;
    for (int i = 0; i < dims; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(count, shape[i], &count)) return false;
    int64_t row = dims ? shape[dims - 1] : 1;
    return (expected < 0 || count == expected) && row % type->block == 0 &&
           !__builtin_mul_overflow((uint64_t)(count / type->block), (uint64_t)type->block_bytes, bytes);
}
static bool check_stored(const Weights *w, const WeightTensor *from, Err *err) {
    uint64_t stored;
    if (from->keys) return check_stored(w, from->keys, err) && check_stored(w, from->values, err);
    const TensorInfo *i = &from->info;
    if (!extent(i->dims, i->shape, i->count, from->type, &stored) || stored != i->bytes)
        return fail(err, ERR_DATA, w->path, "tensor '%.100s' has %zu bytes, which isn't what its shape and type take", from->own_name, i->bytes);
    return !stored || within_file(w, from->data, (size_t)stored) ||
           fail(err, ERR_DATA, w->path, "tensor '%.100s' lies beyond the end of its file", from->own_name);
}
ExportTensor export_tensor_of(const Export *e, const WeightTensor *from, const StorageType *type) {
    ExportTensor t = {.e = e, .from = from, .type = type, .dims = from->info.dims};
    memcpy(t.shape, from->info.shape, sizeof t.shape);
    return t;
}
bool export_tensor_check(ExportTensor *t, Err *err) {
    TRY(check_stored(t->e->w, t->from, err));
    for (int i = 0; i < t->more_count; i++) TRY(check_stored(t->e->w, t->more[i], err));
    return extent(t->dims, t->shape, -1, t->type, &t->bytes) ||
           fail(err, ERR_DATA, t->e->w->path, "tensor '%.100s' can't be written as %s", t->from->own_name, t->type->name);
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
static int64_t rows_of(const TensorInfo *i, bool elements) {
    if (i->dims == 0 || (i->dims == 1 && !elements)) return 1;
    return elements && i->dims == 1 ? i->shape[0] : i->shape[i->dims - 1] ? i->count / i->shape[i->dims - 1] : 0;
}

typedef struct RowCopy {
    const ExportTensor *t;
    const WeightTensor *from;
    int64_t rows, columns;
    size_t stored_row, written_row; // bytes
    bool reorder, raw;
} RowCopy;
// From what is stored here to what the output holds.
static float shift_of(const RowCopy *c) { return c->from->shift + c->t->shift; }
static int64_t hf_row(const RowCopy *c, int64_t row) {
    return c->t->interleave ? to_halves(row, c->rows / c->t->interleave) : row;
}
static const uint8_t *stored_row(const RowCopy *c, int64_t row) {
    const WeightTensor *from = c->from;
    int64_t at = hf_row(c, row);
    if (from->rotary_heads) at = to_interleaved(at, c->rows / from->rotary_heads);
    return from->data + (size_t)at * c->stored_row;
}
// Rows [first, first + n) of the output as numbers.
static bool take_values(const RowCopy *c, int64_t first, int64_t n, float *values, const char *path, Err *err) {
    const ExportTensor *t = c->t;
    const WeightTensor *from = c->from;
    const ExportOptions *o = t->e->options;
    for (int64_t i = 0; i < n; i++) {
        float *row = values + i * c->columns;
        TRY(storage_decode(from->type, stored_row(c, first + i), c->columns / from->type->block, t->e->w->path, from->own_name, row, err));
        for (int64_t k = 0; k < c->columns && shift_of(c) != 0; k++) row[k] += shift_of(c);
        if (o->adds && o->adds(o->context, from->info.name) && !o->add(o->context, from->info.name, hf_row(c, first + i), 1, c->columns, row))
            return fail(err, ERR_DATA, path, "the adapter doesn't fit tensor '%.100s'", from->info.name);
    }
    return true;
}
// And as bytes, into `out`; `values` has room for them as fp32.
static bool take_rows(const RowCopy *c, int64_t first, int64_t n, float *values, uint8_t *out, const char *path, Err *err) {
    for (int64_t i = 0; c->raw && i < n; i++) memcpy(out + (size_t)i * c->written_row, stored_row(c, first + i), c->stored_row);
    return c->raw || (take_values(c, first, n, values, path, err) &&
                      storage_encode(c->t->type, values, n * c->columns / c->t->type->block, path, c->t->name, out, err));
}

static RowCopy row_copy(const ExportTensor *t, const WeightTensor *from) {
    const ExportOptions *o = t->e->options;
    RowCopy c = {.t = t, .from = from, .reorder = t->interleave || from->rotary_heads};
    c.rows = rows_of(&from->info, c.reorder);
    c.columns = c.rows ? from->info.count / c.rows : 0;
    c.stored_row = (size_t)(c.columns / from->type->block) * (size_t)from->type->block_bytes;
    c.written_row = (size_t)(c.columns / t->type->block) * (size_t)t->type->block_bytes;
    c.raw = t->type == from->type && shift_of(&c) == 0 && !(o->adds && o->adds(o->context, from->info.name));
    return c;
}
static bool write_rows(const RowCopy *c, int fd, const char *path, Err *err) {
    if (c->raw && !c->reorder) return write_all(fd, c->from->data, c->from->info.bytes, path, err);
    int64_t together = c->columns < 1 << 18 ? (1 << 18) / c->columns : 1;
    if (together > c->rows) together = c->rows;
    void *values = NULL, *out = NULL;
    bool ok = mem_alloc((size_t)(together * c->columns) * sizeof(float), "rows of a tensor", &values, err) &&
              mem_alloc((size_t)together * c->written_row, "rows of a tensor", &out, err);
    for (int64_t row = 0; ok && row < c->rows; row += together) {
        int64_t n = c->rows - row < together ? c->rows - row : together;
        ok = take_rows(c, row, n, values, out, path, err) && write_all(fd, out, (size_t)n * c->written_row, path, err);
    }
    mem_free(values), mem_free(out);
    return ok;
}

// ---- DeepSeek's kv_b_proj, whole and in halves -----------------------------------------------------------
// The rows of one head's part, in the order of the output.
static bool write_half(const ExportTensor *t, const float *all, int64_t head, float *rows, uint8_t *out, int fd, const char *path, Err *err) {
    int64_t n = t->shape[1], columns = t->shape[2], R = t->e->w->config.latent.R, N = t->e->w->config.latent.N, V = t->e->w->config.latent.V;
    const float *from = all + head * (N + V) * R;
    if (t->part == PART_VALUES) memcpy(rows, from + N * R, (size_t)(V * R) * sizeof *rows);
    for (int64_t r = 0; t->part == PART_KEYS && r < R; r++)
        for (int64_t k = 0; k < N; k++) rows[r * N + k] = from[k * R + r];
    return storage_encode(t->type, rows, n * columns / t->type->block, path, t->name, out, err) &&
           write_all(fd, out, (size_t)(n * columns / t->type->block) * (size_t)t->type->block_bytes, path, err);
}
static bool write_halves(const ExportTensor *t, const float *all, int fd, const char *path, Err *err) {
    void *rows = NULL, *out = NULL;
    size_t count = (size_t)(t->shape[1] * t->shape[2]);
    bool ok = mem_alloc(count * sizeof(float), "rows of a head", &rows, err) &&
              mem_alloc(count / (size_t)t->type->block * (size_t)t->type->block_bytes, "rows of a head", &out, err);
    for (int64_t h = 0; ok && h < t->shape[0]; h++) ok = write_half(t, all, h, rows, out, fd, path, err);
    mem_free(rows), mem_free(out);
    return ok;
}
// Where either side has halves, the matrix goes through memory whole.
static bool write_latent(const ExportTensor *t, int fd, const char *path, Err *err) {
    WeightTensor whole = *t->from;
    void *joined = NULL, *all = NULL;
    size_t bytes = (size_t)whole.info.count * sizeof(float);
    bool ok = true;
    if (t->from->keys) {
        ok = mem_alloc(bytes, t->name, &joined, err) && weights_read_halves(t->e->w, t->from, joined, err);
        whole.type = storage_by_name("F32"), whole.data = joined, whole.info.bytes = bytes;
    }
    RowCopy c = row_copy(t, &whole);
    if (ok && t->part == PART_ALL)
        ok = write_rows(&c, fd, path, err);
    else if (ok)
        ok = mem_alloc(bytes, t->name, &all, err) && take_values(&c, 0, c.rows, all, path, err) && write_halves(t, all, fd, path, err);
    mem_free(joined), mem_free(all);
    return ok;
}

bool export_tensor_write(const void *context, int fd, const char *path, Err *err) {
    const ExportTensor *t = context;
    if (t->part != PART_ALL || t->from->keys) return write_latent(t, fd, path, err);
    for (int i = -1; i < t->more_count; i++) {
        RowCopy c = row_copy(t, i < 0 ? t->from : t->more[i]);
        if (c.from->info.count) TRY(write_rows(&c, fd, path, err));
    }
    return true;
}
