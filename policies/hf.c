// A Hugging Face folder: config.json, generation_config.json, and weights in model.safetensors or in shards listed by
// model.safetensors.index.json. The index may only name plain files of the same folder, must list exactly the tensors
// that the shards hold, and nothing is opened before all of that is known. Links are followed, since hubs' caches are
// made of them; a loop of links is the system's own error.
#include "files.h"
#include "weights_private.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20, MAX_INDEX = 100000000, MAX_SHARDS = 4096 };

static bool add_shard(Weights *w, const char *path, Err *err) {
    Safetensors *s;
    TRY(safetensors_open(path, &s, err));
    w->shards = xrealloc(w->shards, (size_t)(w->shard_count + 1) * sizeof(Safetensors *));
    w->shards[w->shard_count++] = s;
    return true;
}
static void list_tensors(Weights *w) {
    for (int i = 0; i < w->shard_count; i++) w->count += safetensors_count(w->shards[i]);
    w->all = w->count;
    w->tensors = xcalloc((size_t)w->count, sizeof *w->tensors);
    WeightTensor *t = w->tensors;
    for (int i = 0; i < w->shard_count; i++)
        for (int k = 0; k < safetensors_count(w->shards[i]); k++, t++) {
            safetensors_at(w->shards[i], k, &t->info);
            t->own_name = t->info.name;
            t->type = storage_by_safetensors(t->info.type);
            t->data = safetensors_bytes(w->shards[i], t->info.name);
        }
}
bool hf_open_file(Weights *w, const char *path, Err *err) {
    TRY(add_shard(w, path, err));
    list_tensors(w);
    return true;
}

// ---- shards ----------------------------------------------------------------------------------------------
static bool plain_name(const char *name) {
    size_t n = strlen(name);
    return n > 12 && n < 256 && name[0] != '.' && !strchr(name, '/') && strcmp(name + n - 12, ".safetensors") == 0;
}
// The distinct files of a weight_map, sorted.
static bool list_files(const json_t *map, const char *path, NameEntry **out, int *count, Err *err) {
    const char *tensor;
    json_t *file;
    int n = 0;
    *out = xcalloc(json_object_size(map), sizeof **out);
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file) {
        const char *name = json_string_value(file);
        if (!name || strlen(name) != json_string_length(file) || !plain_name(name))
            return fail(err, ERR_DATA, path, "weight_map sends '%.100s' to '%.100s', expected the name of a .safetensors file in the same folder",
                        tensor, name ? name : "something that isn't text");
        (*out)[n++].name = name;
    }
    *count = 0;
    names_sort(*out, n); // finding names twice is the rule here
    for (int i = 0; i < n; i++)
        if (i == 0 || strcmp((*out)[i].name, (*out)[*count - 1].name) != 0) (*out)[(*count)++] = (NameEntry){(*out)[i].name, *count};
    if (*count > MAX_SHARDS) return fail(err, ERR_DATA, path, "names %d files, expected at most %d", *count, MAX_SHARDS);
    return true;
}
static bool check_shard(const Safetensors *s, const json_t *map, const char *file, const char *path, Err *err) {
    TensorInfo t;
    for (int i = 0; i < safetensors_count(s); i++) {
        safetensors_at(s, i, &t);
        const char *listed = json_string_value(json_object_get(map, t.name));
        if (!listed || strcmp(listed, file) != 0)
            return fail(err, ERR_DATA, path, "tensor '%.100s' lies in %s, but the index has it in %.100s", t.name, file, listed ? listed : "no file");
    }
    return true;
}
static bool open_shards(Weights *w, const json_t *map, const char *path, Err *err) {
    NameEntry *files = NULL;
    int count = 0, held = 0;
    bool ok = list_files(map, path, &files, &count, err);
    for (int i = 0; ok && i < count; i++) {
        char *shard = path_join(w->path, files[i].name);
        ok = add_shard(w, shard, err) && check_shard(w->shards[i], map, files[i].name, path, err);
        if (ok) held += safetensors_count(w->shards[i]);
        free(shard);
    }
    free(files);
    if (ok && held != (int)json_object_size(map))
        return fail(err, ERR_DATA, path, "lists %zu tensors, but its files hold %d of them", json_object_size(map), held);
    return ok;
}
static bool open_index(Weights *w, const char *path, Err *err) {
    json_t *index = NULL;
    TRY(json_read_file(path, MAX_INDEX, &index, err));
    const json_t *map = json_object_get(index, "weight_map");
    bool ok = json_is_object(map) && json_object_size(map) > 0 ? open_shards(w, map, path, err)
                                                               : fail(err, ERR_DATA, path, "weight_map is missing or empty, expected an object");
    if (ok) w->index_metadata = json_incref(json_object_get(index, "metadata"));
    json_decref(index);
    if (ok) list_tensors(w);
    return ok;
}

bool hf_open(Weights *w, Err *err) {
    char *single = path_join(w->path, "model.safetensors"), *index = path_join(w->path, "model.safetensors.index.json");
    bool ok;
    if (!file_exists(single) && file_exists(index))
        ok = open_index(w, index, err);
    else
        ok = hf_open_file(w, single, err);
    free(single);
    free(index);
    return ok;
}

bool hf_config(Weights *w, Err *err) {
    char *config = path_join(w->path, "config.json"), *generation = path_join(w->path, "generation_config.json");
    json_t *generation_json = NULL;
    bool ok = json_read_file(config, MAX_CONFIG, &w->config_json, err) &&
              (!file_exists(generation) || json_read_file(generation, MAX_CONFIG, &generation_json, err)) &&
              config_from_json(w->config_json, generation_json, config, &w->config, err);
    json_decref(generation_json);
    free(config);
    free(generation);
    return ok;
}
