// A GGUF file: which type each tensor gets, then header, metadata, tensor table and data, written aside, synced and
// renamed. The mixes follow llama.cpp's: what hurts most when it is coarse (the head, values, some of the downward
// projections) gets more bits. Rows that a block type can't divide fall back to one that can.
#include "export_parts.h"
#include "family.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 32, VERSION = 3, QUANTIZATION_VERSION = 2 };

// What --type may say, the type of most matrices, and general.file_type.
static const struct {
    const char *name, *type;
    uint32_t file_type;
    bool mix;
} types[] = {
    {"F32", "F32", 0, false},   {"F16", "F16", 1, false},   {"BF16", "BF16", 32, false}, {"Q8_0", "Q8_0", 7, false},
    {"Q4_0", "Q4_0", 2, false}, {"Q4_1", "Q4_1", 3, false}, {"Q5_0", "Q5_0", 8, false},  {"Q5_1", "Q5_1", 9, false},
    {"Q6_K", "Q6_K", 18, false}, {"Q4_K", "Q4_K", 14, false}, {"Q4_K_M", "Q4_K", 15, true},
};
static int type_index(const char *name) {
    for (int i = 0; i < COUNT(types); i++)
        if (strcmp(types[i].name, name) == 0) return i;
    return -1;
}

// ---- which type ------------------------------------------------------------------------------------------
static bool begins(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }
// The first and last eighth of the layers, and every third between.
static bool more_bits(int layer, int layers) {
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}
static const char *mixed_type(const Export *e, const char *name) {
    int layer;
    char part[64];
    if (begins(name, "output.weight") || (e->w->config.tied && begins(name, "token_embd"))) return "Q6_K";
    if (sscanf(name, "blk.%9d.%63s", &layer, part) != 2) return "Q4_K";
    bool sensitive = begins(part, "attn_v.") || begins(part, "attn_v_b.") || begins(part, "ffn_down");
    return sensitive && more_bits(layer, e->w->config.layers) ? "Q6_K" : "Q4_K";
}
static const StorageType *fitting(const char *name, int64_t columns) {
    static const char *const fallback[][2] = {{"Q4_K", "Q5_0"}, {"Q6_K", "Q8_0"}};
    for (int i = 0; i < COUNT(fallback); i++)
        if (strcmp(name, fallback[i][0]) == 0 && columns % 256 != 0) name = fallback[i][1];
    const StorageType *t = storage_by_name(name);
    return columns % t->block == 0 ? t : storage_by_name("F16");
}
// Vectors and routers are F32 for every reader of GGUF.
static const StorageType *output_type(const Export *e, const ExportTensor *t, int type) {
    if (t->dims < 2 || strstr(t->name, "ffn_gate_inp")) return storage_by_name("F32");
    if (type < 0) return t->from->type->gguf_id >= 0 ? t->from->type : storage_by_name("F32");
    return fitting(types[type].mix ? mixed_type(e, t->name) : types[type].type, t->shape[t->dims - 1]);
}

// ---- the tensors -----------------------------------------------------------------------------------------
typedef struct Listing {
    const Export *e;
    int type;
    bool interleaved, norm_offset;
    bool halves; // kv_b_proj goes out in two
    ExportTensor *tensors;
    int count;
    const WeightTensor **more; // [3 layers][E]: of all tensors of experts, tensor after tensor
    int merged;                // such tensors
} Listing;
static bool list_one(Listing *l, ExportTensor *t, const TensorSpec *spec, const char *name, Err *err) {
    t->interleave = l->interleaved ? spec->rotary_heads : 0;
    if (l->norm_offset && family_is_norm(spec->role)) t->shift = 1;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = output_type(l->e, t, l->type);
    l->count++;
    return export_tensor_check(t, err);
}
static bool list_halves(Listing *l, const WeightTensor *from, const TensorSpec *spec, Err *err) {
    const ModelConfig *c = &l->e->w->config;
    const int64_t shapes[2][3] = {{c->heads, c->latent.R, c->latent.N}, {c->heads, c->latent.V, c->latent.R}};
    for (int i = 0; i < 2; i++) {
        ExportTensor *t = &l->tensors[l->count];
        char name[64];
        *t = export_tensor_of(l->e, from, NULL);
        t->part = i ? PART_VALUES : PART_KEYS, t->dims = 3;
        memcpy(t->shape, shapes[i], sizeof shapes[i]);
        snprintf(name, sizeof name, "blk.%d.attn_%c_b.weight", spec->layer, i ? 'v' : 'k');
        TRY(list_one(l, t, spec, name, err));
    }
    return true;
}
// The experts of a layer come gate, up, gate, up, ..., then down, down, ...: another of a tensor that was begun is one of the last two.
static ExportTensor *begun(Listing *l, const TensorSpec *spec) {
    for (int i = l->count - 1; i >= 0 && i >= l->count - 2; i--)
        if (strcmp(l->tensors[i].name, spec->gguf) == 0) return &l->tensors[i];
    return NULL;
}
static bool list_expert(Listing *l, const WeightTensor *from, const TensorSpec *spec, Err *err) {
    int E = l->e->w->config.experts.count;
    ExportTensor *t = begun(l, spec);
    if (!t) {
        t = &l->tensors[l->count];
        *t = export_tensor_of(l->e, from, NULL);
        t->more = l->more + (size_t)l->merged++ * (size_t)E, t->dims = 3;
        t->shape[0] = E, t->shape[1] = from->info.shape[0], t->shape[2] = from->info.shape[1];
        return list_one(l, t, spec, spec->gguf, err);
    }
    l->more[t->more - l->more + t->more_count++] = from;
    return export_tensor_check(t, err);
}
static bool list_tensor(void *context, const TensorSpec *spec, Err *err) {
    Listing *l = context;
    const Weights *w = l->e->w;
    int i = names_find(w->index, w->all, spec->name);
    if (i < 0) return fail(err, ERR_SOFTWARE, w->path, "tensor '%s' is missing", spec->name);
    const WeightTensor *from = &w->tensors[i];
    if (spec->role == ROLE_EXPERTS_GATE_UP || spec->role == ROLE_EXPERTS_DOWN) return list_expert(l, from, spec, err);
    if (spec->role == ROLE_KV_B && l->halves) return list_halves(l, from, spec, err);
    ExportTensor *t = &l->tensors[l->count];
    *t = export_tensor_of(l->e, from, NULL);
    return list_one(l, t, spec, spec->gguf, err);
}

// They are in memory of our own, or were read with the configuration: no file's extent is checked.
static void list_divisors(Listing *l, const WeightTensor *from) {
    ExportTensor *t = &l->tensors[l->count++];
    *t = export_tensor_of(l->e, from, from->type);
    t->bytes = from->info.bytes;
    snprintf(t->name, sizeof t->name, "%s", from->own_name);
}

// ---- the file --------------------------------------------------------------------------------------------
static void put(Buf *b, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(x >> 8 * i);
        buf_append(b, &byte, 1);
    }
}
static uint64_t padded(uint64_t x) { return (x + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void make_header(const GgufMetadata *m, const ExportTensor *tensors, int count, Buf *out) {
    uint64_t offset = 0;
    buf_puts(out, "GGUF");
    put(out, VERSION, 4), put(out, (uint64_t)count, 8), put(out, m->count, 8);
    buf_append(out, m->bytes.data, m->bytes.size);
    for (int i = 0; i < count; i++) {
        const ExportTensor *t = &tensors[i];
        put(out, strlen(t->name), 8);
        buf_puts(out, t->name);
        put(out, (uint64_t)t->dims, 4);
        for (int d = t->dims - 1; d >= 0; d--) put(out, (uint64_t)t->shape[d], 8);
        put(out, (uint64_t)t->type->gguf_id, 4), put(out, offset, 8);
        offset += padded(t->bytes);
    }
    static const uint8_t zeros[ALIGNMENT];
    buf_append(out, zeros, (size_t)(padded(out->size) - out->size));
}
static bool write_tensors(int fd, const ExportTensor *tensors, int count, const char *path, Err *err) {
    static const uint8_t zeros[ALIGNMENT];
    for (int i = 0; i < count; i++) {
        off_t before = lseek(fd, 0, SEEK_CUR);
        TRY(export_tensor_write(&tensors[i], fd, path, err));
        if (lseek(fd, 0, SEEK_CUR) - before != (off_t)tensors[i].bytes)
            return fail(err, ERR_SOFTWARE, path, "tensor '%.100s' wasn't written whole", tensors[i].name);
        TRY(write_all(fd, zeros, (size_t)(padded(tensors[i].bytes) - tensors[i].bytes), path, err));
    }
    return true;
}
static bool sync_above(const char *path, Err *err) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
    bool ok = folder_sync(folder, err);
    free(folder);
    return ok;
}
static bool write_file(const char *path, const GgufMetadata *m, const ExportTensor *tensors, int count, Err *err) {
    Buf header = {0};
    make_header(m, tensors, count, &header);
    char *aside = xasprintf("%s.part.%ld", path, (long)getpid());
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool ok = fd >= 0 || fail(err, ERR_CANTCREAT, path, "can't create: %s", strerror(errno));
    ok = ok && write_all(fd, header.data, header.size, path, err) && write_tensors(fd, tensors, count, path, err);
    if (ok && fsync(fd) != 0) ok = fail(err, ERR_IO, path, "can't sync: %s", strerror(errno));
    if (fd >= 0 && close(fd) != 0 && ok) ok = fail(err, ERR_IO, path, "can't close: %s", strerror(errno));
    if (ok && rename(aside, path) != 0) ok = fail(err, ERR_IO, path, "can't rename: %s", strerror(errno));
    if (!ok && fd >= 0) unlink(aside);
    ok = ok && sync_above(path, err);
    buf_free(&header);
    free(aside);
    return ok;
}

static bool has_blocks(const ExportTensor *tensors, int count) {
    for (int i = 0; i < count; i++)
        if (tensors[i].type->block > 1) return true;
    return false;
}
// What a GGUF says about itself goes on as it stands, but for what this file decides.
static void carry_metadata(GgufMetadata *m, const Gguf *g) {
    static const char *const own[] = {"general.file_type", "general.alignment", "general.quantization_version"};
    for (int i = 0; i < gguf_value_count(g); i++) {
        const GgufValue *v = gguf_value_at(g, i);
        bool skip = false;
        for (int k = 0; k < COUNT(own); k++) skip |= strcmp(v->key, own[k]) == 0;
        if (!skip) metadata_value(m, v);
    }
}

bool export_gguf(const Weights *w, const char *path, const ExportOptions *options, Err *err) {
    int type = !options->type || strcmp(options->type, "keep") == 0 ? -1 : type_index(options->type);
    if (type < 0 && options->type && strcmp(options->type, "keep") != 0) {
        Buf known = {0};
        for (int i = 0; i < COUNT(types); i++) buf_printf(&known, ", %s", types[i].name);
        fail(err, ERR_USAGE, "--type", "%.20s isn't known, expected keep%s", options->type, known.data);
        buf_free(&known);
        return false;
    }
    const Family *family = family_find(w->config.model_type);
    TRY(export_may_write(path, options->replace, err));
    Export e = {.w = w, .options = options, .out = path};
    GgufMetadata m = {0};
    ExportDivisors divisors;
    size_t most = (size_t)w->all + (size_t)w->config.layers + 3; // a product in two halves a layer, and divisors
    ExportTensor *tensors = xcalloc(most, sizeof *tensors);
    Listing l = {.e = &e, .type = type, .interleaved = family->gguf_interleaved, .norm_offset = family->norm_offset, .tensors = tensors};
    // What a GGUF says of its product goes on with it.
    l.halves = !w->gguf || gguf_tensor_find(w->gguf, "blk.0.attn_k_b.weight");
    l.more = xcalloc(3 * (size_t)w->config.layers * (size_t)w->config.experts.count + 1, sizeof *l.more);
    bool ok = family_tensors(&w->config, list_tensor, &l, err);
    export_divisors(&w->config, &divisors);
    for (int i = 0; !w->gguf && i < divisors.count; i++) list_divisors(&l, &divisors.lists[i].tensor);
    for (int i = 0; w->gguf && i < w->count; i++) // another GGUF's go on as they stand, as its metadata does
        if (weights_is_divisors(w->tensors[i].own_name)) list_divisors(&l, &w->tensors[i]);
    int count = l.count;
    if (ok && w->gguf)
        carry_metadata(&m, w->gguf);
    else
        ok = ok && metadata_of_config(&m, &e, err) && metadata_of_tokenizer(&m, &e, err);
    if (type >= 0) metadata_u32(&m, "general.file_type", types[type].file_type);
    if (ok && has_blocks(tensors, count)) metadata_u32(&m, "general.quantization_version", QUANTIZATION_VERSION);
    ok = ok && write_file(path, &m, tensors, count, err);
    buf_free(&m.bytes);
    free(tensors);
    free(l.more);
    return ok;
}
