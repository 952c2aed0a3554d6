// safetensors: eight bytes of header length, a JSON header, data. All of the header is checked before anything is
// handed out: sizes against shapes, and that the tensors, in order of offset, cover the data without overlap, hole
// or rest. The file stays mapped and tensors are read in place, so a checkpoint of many gigabytes costs no memory but
// what is asked for. Reading is safe from several threads at once.
#include "files.h"
#include "names.h"
#include "storage.h"
#include "weights.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Entry {
    TensorInfo info;
    const StorageType *type;
    const uint8_t *data;
    uint64_t begin, end; // within the data section
} Entry;

struct Safetensors {
    char *path;
    MappedFile file;
    json_t *header; // keeps the names
    Entry *entries; // in order of offset
    int count;
    NameEntry *index;
};

enum { MAX_HEADER = 100000000 }; // as the format's own reader has it

// ---- opening ---------------------------------------------------------------------------------------------
static bool read_header(Safetensors *s, size_t *data_start, Err *err) {
    const uint8_t *p = s->file.data;
    if (s->file.size < 8)
        return fail(err, ERR_DATA, s->path, "has %zu bytes, expected at least 8 (the length of the header)", s->file.size);
    uint64_t size = 0;
    for (int i = 0; i < 8; i++) size |= (uint64_t)p[i] << 8 * i;
    if (size > MAX_HEADER) return fail(err, ERR_DATA, s->path, "a header of %" PRIu64 " bytes, expected at most %d", size, MAX_HEADER);
    if (size > s->file.size - 8)
        return fail(err, ERR_DATA, s->path, "a header of %" PRIu64 " bytes, but the file has %zu after its length", size, s->file.size - 8);
    if (size == 0 || p[8] != '{') return fail(err, ERR_DATA, s->path, "the header does not begin with '{': not a safetensors file");
    *data_start = 8 + (size_t)size;
    return json_parse((const char *)p + 8, (size_t)size, s->path, 1, &s->header, err);
}

static bool bad(const Safetensors *s, const char *name, Err *err, const char *what) {
    return fail(err, ERR_DATA, s->path, "tensor '%.100s': %s", name, what);
}
static bool read_shape(const Safetensors *s, const json_t *shape, Entry *e, Err *err) {
    if (!json_is_array(shape)) return bad(s, e->info.name, err, "shape is missing, expected a list of integers");
    if (json_array_size(shape) > 4)
        return fail(err, ERR_DATA, s->path, "tensor '%.100s' has %zu dimensions, expected at most 4", e->info.name, json_array_size(shape));
    e->info.dims = (int)json_array_size(shape);
    e->info.count = 1;
    for (int i = 0; i < e->info.dims; i++) {
        const json_t *extent = json_array_get(shape, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return bad(s, e->info.name, err, "a shape of something but whole numbers from 0");
        e->info.shape[i] = json_integer_value(extent);
        if (__builtin_mul_overflow(e->info.count, e->info.shape[i], &e->info.count))
            return bad(s, e->info.name, err, "its number of elements overflows");
    }
    return true;
}
static bool read_offsets(const Safetensors *s, const json_t *offsets, uint64_t data_size, Entry *e, Err *err) {
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < 0)
        return bad(s, e->info.name, err, "data_offsets aren't two whole numbers from 0");
    e->begin = (uint64_t)json_integer_value(begin);
    e->end = (uint64_t)json_integer_value(end);
    if (e->begin > e->end || e->end > data_size)
        return fail(err, ERR_DATA, s->path, "tensor '%.100s': data_offsets [%" PRIu64 ", %" PRIu64 "] do not lie within the data's %" PRIu64 " bytes",
                    e->info.name, e->begin, e->end, data_size);
    return true;
}
static bool read_entry(const Safetensors *s, const char *name, const json_t *value, uint64_t data_size, Entry *e, Err *err) {
    e->info.name = name;
    if (!json_is_object(value)) return bad(s, name, err, "expected an object with dtype, shape and data_offsets");
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    e->type = dtype ? storage_by_safetensors(dtype) : NULL;
    if (!e->type) return fail(err, ERR_DATA, s->path, "tensor '%.100s': unknown dtype '%.20s'", name, dtype ? dtype : "(missing)");
    e->info.type = e->type->name;
    TRY(read_shape(s, json_object_get(value, "shape"), e, err));
    TRY(read_offsets(s, json_object_get(value, "data_offsets"), data_size, e, err));
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)e->info.count, (uint64_t)e->type->block_bytes, &bytes) || bytes != e->end - e->begin)
        return fail(err, ERR_DATA, s->path, "tensor '%.100s': %" PRIu64 " bytes of data, expected %" PRId64 " elements of %d (its shape, as %s)",
                    name, e->end - e->begin, e->info.count, e->type->block_bytes, e->type->name);
    e->info.bytes = (size_t)bytes;
    return true;
}
static bool check_metadata(const Safetensors *s, Err *err) {
    json_t *metadata = json_object_get(s->header, "__metadata__"), *value;
    const char *key;
    if (!metadata) return true;
    if (!json_is_object(metadata)) return fail(err, ERR_DATA, s->path, "__metadata__ isn't an object");
    json_object_foreach(metadata, key, value)
        if (!json_is_string(value)) return fail(err, ERR_DATA, s->path, "__metadata__ '%.100s' isn't a string", key);
    return true;
}
static int by_offset(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->info.name, y->info.name);
}
static bool place_entries(Safetensors *s, size_t data_start, Err *err) {
    uint64_t at = 0, size = s->file.size - data_start;
    if (s->count > 1) qsort(s->entries, (size_t)s->count, sizeof *s->entries, by_offset);
    for (int i = 0; i < s->count; i++) {
        Entry *e = &s->entries[i];
        if (e->begin != at)
            return fail(err, ERR_DATA, s->path, "tensor '%.100s' begins at byte %" PRIu64 " of the data, expected %" PRIu64 " (%s)",
                        e->info.name, e->begin, at, e->begin < at ? "it overlaps another" : "there is a hole before it");
        e->data = s->file.data + data_start + e->begin;
        at = e->end;
        s->index[i] = (NameEntry){e->info.name, i};
    }
    if (at != size) return fail(err, ERR_DATA, s->path, "%" PRIu64 " bytes after the last tensor", size - at);
    names_sort(s->index, s->count); // the reader of JSON refused duplicates
    return true;
}
static bool read_entries(Safetensors *s, size_t data_start, Err *err) {
    const char *name;
    json_t *value;
    size_t count = json_object_size(s->header);
    s->entries = xcalloc(count, sizeof *s->entries);
    s->index = xcalloc(count, sizeof *s->index);
    TRY(check_metadata(s, err));
    json_object_foreach(s->header, name, value)
        if (strcmp(name, "__metadata__") != 0)
            TRY(read_entry(s, name, value, s->file.size - data_start, &s->entries[s->count++], err));
    return place_entries(s, data_start, err);
}

bool safetensors_open(const char *path, Safetensors **out, Err *err) {
    Safetensors *s = xcalloc(1, sizeof *s);
    size_t data_start = 0;
    *out = NULL;
    s->path = xstrdup(path);
    bool ok = file_map(path, &s->file, err) && read_header(s, &data_start, err) && read_entries(s, data_start, err);
    if (ok)
        *out = s;
    else
        safetensors_close(s);
    return ok;
}
void safetensors_close(Safetensors *s) {
    if (!s) return;
    json_decref(s->header);
    free(s->entries);
    free(s->index);
    file_unmap(&s->file);
    free(s->path);
    free(s);
}

// ---- reading ---------------------------------------------------------------------------------------------
static const Entry *entry_find(const Safetensors *s, const char *name) {
    int i = names_find(s->index, s->count, name);
    return i < 0 ? NULL : &s->entries[i];
}
void safetensors_drop_pages(const Safetensors *s) { file_drop_pages(&s->file); }
void safetensors_hash(const Safetensors *s, char out[65]) { sha256_hex(s->file.data, s->file.size, out); }
bool safetensors_holds(const Safetensors *s, const void *data, size_t bytes) {
    uintptr_t start = (uintptr_t)s->file.data, at = (uintptr_t)data;
    return data && at >= start && at - start <= s->file.size && bytes <= s->file.size - (at - start);
}
int safetensors_count(const Safetensors *s) { return s->count; }
void safetensors_at(const Safetensors *s, int index, TensorInfo *out) { *out = s->entries[index].info; }
bool safetensors_find(const Safetensors *s, const char *name, TensorInfo *out) {
    const Entry *e = entry_find(s, name);
    if (e) *out = e->info;
    return e != NULL;
}
const void *safetensors_bytes(const Safetensors *s, const char *name) {
    const Entry *e = entry_find(s, name);
    return e ? e->data : NULL;
}
bool safetensors_read(const Safetensors *s, const char *name, float *out, Err *err) {
    const Entry *e = entry_find(s, name);
    if (!e) return fail(err, ERR_DATA, s->path, "has no tensor '%.100s'", name);
    return storage_decode(e->type, e->data, e->info.count, s->path, name, out, err);
}
const json_t *safetensors_metadata(const Safetensors *s) { return json_object_get(s->header, "__metadata__"); }

// ---- writing ---------------------------------------------------------------------------------------------
// Tensors are laid out by falling width of their elements, which aligns each to its own; otherwise in the order given.
static int width_of(const TensorOut *t) {
    const StorageType *type = storage_by_safetensors(t->dtype);
    return type ? type->block_bytes : 0;
}
static bool count_bytes(const TensorOut *t, const char *path, uint64_t *bytes, Err *err) {
    int width = width_of(t);
    if (!width || (t->values && strcmp(t->dtype, "F32") != 0 && strcmp(t->dtype, "BF16") != 0))
        return fail(err, ERR_SOFTWARE, path, "tensor '%.100s' can't be written as %.20s", t->name, t->dtype);
    *bytes = (uint64_t)width;
    for (int i = 0; i < t->dims; i++)
        if (t->shape[i] < 0 || __builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes))
            return fail(err, ERR_SOFTWARE, path, "tensor '%.100s' has a shape that can't be written", t->name);
    return true;
}
static void add_entry(json_t *header, const TensorOut *t, uint64_t begin, uint64_t end) {
    json_t *entry = json_object(), *shape = json_array(), *offsets = json_array();
    for (int i = 0; i < t->dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_array_append_new(offsets, json_integer((json_int_t)begin));
    json_array_append_new(offsets, json_integer((json_int_t)end));
    json_object_set_new(entry, "dtype", json_string(t->dtype));
    json_object_set_new(entry, "shape", shape);
    json_object_set_new(entry, "data_offsets", offsets);
    json_object_set_new(header, t->name, entry);
}
static bool make_header(const TensorOut *tensors, int count, const json_t *metadata, const char *path, Buf *out, Err *err) {
    json_t *header = json_object(), *meta = metadata ? json_copy((json_t *)(uintptr_t)metadata) : json_object();
    json_object_set_new(meta, "format", json_string("pt"));
    json_object_set_new(header, "__metadata__", meta);
    uint64_t at = 0, bytes = 0;
    bool ok = true;
    for (int width = 8; ok && width > 0; width /= 2)
        for (int i = 0; ok && i < count; i++) {
            ok = count_bytes(&tensors[i], path, &bytes, err);
            if (!ok || width_of(&tensors[i]) != width) continue;
            add_entry(header, &tensors[i], at, at + bytes);
            at += bytes;
        }
    if (ok && (int)json_object_size(header) != count + 1) ok = fail(err, ERR_SOFTWARE, path, "two tensors of one name, or a name that isn't UTF-8");
    buf_append(out, "\0\0\0\0\0\0\0", 8);
    if (ok) json_write(header, out);
    while (out->size % 8) buf_puts(out, " "); // data begins aligned
    for (int i = 0; i < 8; i++) out->data[i] = (char)((uint64_t)(out->size - 8) >> 8 * i);
    json_decref(header);
    return ok;
}
// fp32 is written as it lies, BF16 through a small buffer: nothing is held twice.
static bool write_tensor(int fd, const TensorOut *t, const char *path, Err *err) {
    enum { CHUNK = 32768 };
    uint64_t bytes = 0;
    TRY(count_bytes(t, path, &bytes, err));
    if (t->write) {
        off_t before = lseek(fd, 0, SEEK_CUR);
        TRY(t->write(t->context, fd, path, err));
        return lseek(fd, 0, SEEK_CUR) - before == (off_t)bytes ||
               fail(err, ERR_SOFTWARE, path, "tensor '%.100s' wasn't written whole", t->name);
    }
    if (!t->values || strcmp(t->dtype, "F32") == 0) return bytes == 0 || write_all(fd, t->values ? t->values : t->raw, (size_t)bytes, path, err);
    uint16_t chunk[CHUNK];
    for (uint64_t at = 0, n = bytes / 2; at < n;) {
        size_t m = n - at < CHUNK ? (size_t)(n - at) : CHUNK;
        for (size_t i = 0; i < m; i++) chunk[i] = bf16_from_float(t->values[at + i]);
        TRY(write_all(fd, chunk, 2 * m, path, err));
        at += m;
    }
    return true;
}
static bool write_file(int fd, const Buf *header, const TensorOut *tensors, int count, const char *path, Err *err) {
    TRY(write_all(fd, header->data, header->size, path, err));
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < count; i++)
            if (width_of(&tensors[i]) == width) TRY(write_tensor(fd, &tensors[i], path, err));
    return fsync(fd) == 0 || fail(err, ERR_IO, path, "can't sync: %s", strerror(errno));
}
static bool sync_parent(const char *path, Err *err) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
    bool ok = folder_sync(folder, err);
    free(folder);
    return ok;
}

bool safetensors_write(const char *path, const TensorOut *tensors, int count, const json_t *metadata, Err *err) {
    Buf header = {0};
    bool ok = make_header(tensors, count, metadata, path, &header, err);
    char *aside = xasprintf("%s.part.%ld", path, (long)getpid());
    int fd = ok ? open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (ok && fd < 0) ok = fail(err, ERR_CANTCREAT, path, "can't create: %s", strerror(errno));
    ok = ok && write_file(fd, &header, tensors, count, path, err);
    if (fd >= 0 && close(fd) != 0 && ok) ok = fail(err, ERR_IO, path, "can't close: %s", strerror(errno));
    if (ok && rename(aside, path) != 0) ok = fail(err, ERR_IO, path, "can't rename: %s", strerror(errno));
    if (!ok && fd >= 0) unlink(aside);
    ok = ok && sync_parent(path, err);
    free(aside);
    buf_free(&header);
    return ok;
}
