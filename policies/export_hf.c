// A Hugging Face folder: config.json, generation_config.json, weights and tokenizer, made in a folder beside, synced and
// renamed. What the source folder says about itself is carried over byte for byte, but for the type of its weights.
#include "export_parts.h"
#include "files.h"
#include "lora_files.h"
#include "tokenizer.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Of a folder's files these belong to the tokenizer; the rest (weights, readmes, other frameworks') stays behind.
static const char *const carried_files[] = {"tokenizer.json",   "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                            "vocab.json",       "merges.txt",            "tokenizer.model",         "chat_template.jinja",
                                            "chat_template.json"};
enum { MAX_CARRIED = 1 << 30, MAX_CONFIG = 16 << 20 };

static bool copy_file(const char *from_folder, const char *to_folder, const char *name, Err *err) {
    char *from = path_join(from_folder, name), *to = path_join(to_folder, name);
    Buf data = {0};
    bool ok = !file_exists(from) || (file_read(from, MAX_CARRIED, &data, err) && file_write_atomic(to, data.data, data.size, err));
    buf_free(&data);
    free(from), free(to);
    return ok;
}
static bool write_tokenizer(const Weights *w, const char *folder, Err *err) {
    if (!w->gguf) {
        for (int i = 0; i < COUNT(carried_files); i++) TRY(copy_file(w->path, folder, carried_files[i], err));
        return true;
    }
    Tokenizer *t;
    Err none = {0};
    if (!tokenizer_open(w->path, &t, &none)) {
        if (none.code == ERR_NOINPUT) return true;
        *err = none;
        return false;
    }
    bool ok = tokenizer_save(t, folder, err);
    tokenizer_close(t);
    return ok;
}

// ---- configuration ---------------------------------------------------------------------------------------
static const char *torch_name(const char *type) {
    return strcmp(type, "F16") == 0 ? "float16" : strcmp(type, "BF16") == 0 ? "bfloat16" : "float32";
}
static bool write_json(const char *folder, const char *name, json_t *value, Err *err) {
    char *path = path_join(folder, name), *text = json_dumps(value, JSON_INDENT(2));
    bool ok = text && file_write_atomic(path, text, strlen(text), err);
    free(text), free(path);
    json_decref(value);
    return ok;
}
// `type` NULL: each tensor keeps the type it has.
static bool write_config(const Weights *w, const char *type, const char *folder, Err *err) {
    if (w->gguf) {
        TRY(write_json(folder, "config.json", config_to_json(&w->config, torch_name(type ? type : "F32")), err));
        return write_json(folder, "generation_config.json", config_generation_json(&w->config), err);
    }
    TRY(copy_file(w->path, folder, "generation_config.json", err));
    if (!type) return copy_file(w->path, folder, "config.json", err);
    json_t *config = json_deep_copy(w->config_json);
    bool newer = json_object_get(config, "dtype") != NULL;
    if (newer) json_object_set_new(config, "dtype", json_string(torch_name(type)));
    if (!newer || json_object_get(config, "torch_dtype")) json_object_set_new(config, "torch_dtype", json_string(torch_name(type)));
    return write_json(folder, "config.json", config, err);
}

// ---- weights ---------------------------------------------------------------------------------------------
typedef struct Shard {
    int first, count; // of the tensors
} Shard;
typedef struct HfExport {
    Export e;
    ExportTensor *tensors;
    int count;
    Shard *shards;
    int shard_count;
    uint64_t total;
} HfExport;

static const StorageType *output_type(const WeightTensor *t, const char *type) {
    // A correction bias decides which experts are chosen: its own precision stays, as transformers keeps it.
    if (strstr(t->info.name, "e_score_correction_bias") && export_is_plain(t->type)) return t->type;
    if (type) return storage_by_name(type);
    return export_is_plain(t->type) ? t->type : storage_by_name("F32");
}
static bool list_tensors(HfExport *h, const char *type, Err *err) {
    const Weights *w = h->e.w;
    uint64_t limit = h->e.options->shard_bytes, in_shard = 0;
    h->tensors = xcalloc((size_t)w->all, sizeof *h->tensors);
    h->shards = xcalloc((size_t)w->all + 1, sizeof *h->shards);
    h->shard_count = 1;
    for (int i = 0; i < w->all; i++) {
        if (w->tensors[i].merged || export_left_out(w, w->tensors[i].info.name)) continue;
        ExportTensor *t = &h->tensors[h->count];
        *t = export_tensor_of(&h->e, &w->tensors[i], output_type(&w->tensors[i], type));
        if ((size_t)snprintf(t->name, sizeof t->name, "%s", w->tensors[i].info.name) >= sizeof t->name)
            return fail(err, ERR_DATA, w->path, "tensor '%.100s...' has too long a name", t->name);
        TRY(export_tensor_check(t, err));
        if (limit && in_shard && (t->bytes > limit || in_shard > limit - t->bytes)) {
            h->shards[h->shard_count++].first = h->count;
            in_shard = 0;
        }
        in_shard += t->bytes;
        h->total += t->bytes;
        h->shards[h->shard_count - 1].count++;
        h->count++;
    }
    return true;
}

static bool write_shard(const HfExport *h, const Shard *s, const char *folder, const char *name, Err *err) {
    TensorOut *out = xcalloc((size_t)s->count + 1, sizeof *out);
    for (int i = 0; i < s->count; i++) {
        const ExportTensor *t = &h->tensors[s->first + i];
        out[i] = (TensorOut){.name = t->name, .dtype = t->type->name, .dims = t->dims, .write = export_tensor_write, .context = t};
        memcpy(out[i].shape, t->shape, sizeof out[i].shape);
    }
    char *path = path_join(folder, name);
    bool ok = safetensors_write(path, out, s->count, NULL, err);
    free(path), free(out);
    return ok;
}
static bool write_weights(const HfExport *h, const char *folder, Err *err) {
    if (h->shard_count == 1) return write_shard(h, &h->shards[0], folder, "model.safetensors", err);
    json_t *map = json_object(), *index;
    bool ok = true;
    for (int i = 0; ok && i < h->shard_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, h->shard_count);
        ok = write_shard(h, &h->shards[i], folder, name, err);
        for (int k = 0; k < h->shards[i].count; k++) json_object_set_new(map, h->tensors[h->shards[i].first + k].name, json_string(name));
    }
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)h->total, "weight_map", map);
    if (ok) return write_json(folder, "model.safetensors.index.json", index, err);
    json_decref(index);
    return false;
}

// ---- the folder ------------------------------------------------------------------------------------------
static char *folder_above(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    while (n > 1 && path[n - 1] == '/') n--;
    return n ? xstrndup(path, n) : xstrdup(".");
}
static bool put_in_place(const char *aside, const char *folder, bool replace, Err *err) {
    if (replace && file_exists(folder)) TRY(folder_remove(folder, err));
    if (rename(aside, folder) != 0) return fail(err, ERR_CANTCREAT, folder, "can't rename: %s", strerror(errno));
    char *above = folder_above(folder);
    bool ok = folder_sync(above, err);
    free(above);
    return ok;
}

static bool copy_adapter(const char *adapter, const char *folder, Err *err) {
    return copy_file(adapter, folder, "adapter_config.json", err) && copy_file(adapter, folder, "adapter_model.safetensors", err);
}
// Of a mixture's adapter newer releases of PEFT read another form, for which its base must be there.
static bool open_mixture(const char *adapter, const char *model, Merge **out, Err *err) {
    char *base = NULL, hash[65];
    Weights *w = NULL;
    *out = NULL;
    bool ok = model || adapter_base(adapter, &base, hash, err);
    ok = ok && weights_open(model ? model : base, false, &w, err);
    if (ok && weights_config(w)->experts.count > 0) ok = merge_open(adapter, w, out, err);
    if (w) weights_close(w);
    free(base);
    return ok;
}
bool export_peft(const char *adapter, const char *model, const char *folder, const ExportOptions *options, Err *err) {
    Err ignored = {0}, none = {0};
    LoraConfig c;
    Safetensors *s = NULL;
    Merge *mixture = NULL;
    char *config = path_join(adapter, "adapter_config.json"), *tensors = path_join(adapter, "adapter_model.safetensors");
    bool ok = export_may_write(folder, options->replace, err) && lora_config_read(config, false, &c, err);
    if (ok) lora_config_free(&c);
    ok = ok && safetensors_open(tensors, &s, err); // whole, or nothing is written
    if (s) safetensors_close(s);
    free(config), free(tensors);
    TRY(ok);
    if (!open_mixture(adapter, model, &mixture, &none)) log_line(LOG_WARN, "%s: %s; the adapter is copied as it lies there", none.where, none.msg);
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    char *place = xstrndup(folder, n), *aside = xasprintf("%s.part.%ld", place, (long)getpid());
    ok = folder_make(aside, err);
    bool made = ok;
    ok = ok && (mixture ? peft_write_mixture(mixture, adapter, aside, err) : copy_adapter(adapter, aside, err));
    ok = ok && folder_sync(aside, err) && put_in_place(aside, place, options->replace, err);
    if (made && !ok && !folder_remove(aside, &ignored)) log_line(LOG_WARN, "%s: %s", ignored.where, ignored.msg);
    merge_close(mixture);
    free(place), free(aside);
    return ok;
}

bool export_hf(const Weights *w, const char *folder, const ExportOptions *options, Err *err) {
    const char *type = options->type && strcmp(options->type, "keep") != 0 ? options->type : NULL;
    if (type && (!storage_by_name(type) || !export_is_plain(storage_by_name(type))))
        return fail(err, ERR_USAGE, "--type", "%.20s can't be written into a folder, expected keep, F32, F16 or BF16", type);
    TRY(export_may_write(folder, options->replace, err));
    HfExport h = {.e = {.w = w, .options = options, .out = folder}};
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    char *place = xstrndup(folder, n), *aside = xasprintf("%s.part.%ld", place, (long)getpid());
    Err ignored = {0};
    bool ok = list_tensors(&h, type, err) && folder_make(aside, err);
    bool made = ok;
    ok = ok && write_config(w, type, aside, err) && write_tokenizer(w, aside, err) && write_weights(&h, aside, err) &&
         folder_sync(aside, err) && put_in_place(aside, place, options->replace, err);
    if (made && !ok && !folder_remove(aside, &ignored)) log_line(LOG_WARN, "%s: %s", ignored.where, ignored.msg);
    free(place), free(aside), free(h.tensors), free(h.shards);
    return ok;
}
