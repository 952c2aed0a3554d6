// Adapters as PEFT lays them out: adapter_config.json and adapter_model.safetensors. What a configuration says and would
// change the numbers is either done or refused. Every tensor of the file must have its place, and every place its tensor.
// Beside them, of a checkpoint: base.json, the path and the hash of the weights that the adapter was trained on.
#include "lora_files.h"
#include "files.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>

#define BASE_FILE "base.json"
enum { MAX_JSON = 1 << 24 };

// ---- the configuration -----------------------------------------------------------------------------------
static bool wrong(const char *path, const char *key, const json_t *found, const char *expected, Err *err) {
    Buf text = {0};
    if (found) json_write(found, &text);
    fail(err, ERR_DATA, path, "%s is %.100s, expected %s", key, found ? text.data : "missing", expected);
    buf_free(&text);
    return false;
}
// Empty in every way JSON has for it.
static bool is_nothing(const json_t *v) {
    return !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0);
}
static bool check_options(const json_t *c, const char *path, bool trained, Err *err) {
    static const char *const refused[] = {"fan_in_fan_out", "use_dora",          "use_qalora",      "use_bdlora",         "lora_bias",
                                          "modules_to_save", "rank_pattern",     "alpha_pattern",   "layers_to_transform", "layers_pattern",
                                          "layer_replication", "exclude_modules", "target_parameters", "trainable_token_indices",
                                          "alora_invocation_tokens", "arrow_config"};
    const char *type = json_string_value(json_object_get(c, "peft_type")), *bias = json_string_value(json_object_get(c, "bias"));
    if (!type || strcmp(type, "LORA") != 0) return wrong(path, "peft_type", json_object_get(c, "peft_type"), "\"LORA\"", err);
    for (int i = 0; i < COUNT(refused); i++)
        if (!is_nothing(json_object_get(c, refused[i])))
            return wrong(path, refused[i], json_object_get(c, refused[i]), "nothing or false: it is not supported", err);
    if (bias && strcmp(bias, "none") != 0) return wrong(path, "bias", json_object_get(c, "bias"), "\"none\": trained biases are not supported", err);
    if (trained && json_number_value(json_object_get(c, "lora_dropout")) != 0)
        return wrong(path, "lora_dropout", json_object_get(c, "lora_dropout"), "0: training with dropout is not supported", err);
    return true;
}
static bool read_targets(const json_t *c, const char *path, LoraConfig *out, Err *err) {
    const json_t *targets = json_object_get(c, "target_modules"), *item;
    size_t i;
    if (json_is_string(targets) && strcmp(json_string_value(targets), "all-linear") == 0) return true;
    if (!json_is_array(targets) || json_array_size(targets) == 0 || json_array_size(targets) > 100000)
        return wrong(path, "target_modules", targets, "a list of names of modules, or \"all-linear\"", err);
    out->targets = xcalloc(json_array_size(targets) + 1, sizeof *out->targets);
    json_array_foreach(targets, i, item) {
        if (!json_is_string(item) || !json_string_value(item)[0]) return wrong(path, "target_modules", targets, "names of modules", err);
        out->targets[out->target_count++] = xstrdup(json_string_value(item));
    }
    return true;
}
bool lora_config_read(const char *path, bool trained, LoraConfig *out, Err *err) {
    json_t *c = NULL;
    *out = (LoraConfig){0};
    TRY(json_read_file(path, MAX_JSON, &c, err));
    bool ok = json_is_object(c) || wrong(path, "the configuration", c, "an object", err);
    ok = ok && check_options(c, path, trained, err) && read_targets(c, path, out, err);
    const json_t *rank = json_object_get(c, "r"), *alpha = json_object_get(c, "lora_alpha");
    if (ok && (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > 4096))
        ok = wrong(path, "r", rank, "an integer from 1 to 4096", err);
    if (ok && !json_is_number(alpha)) ok = wrong(path, "lora_alpha", alpha, "a number", err);
    if (ok) {
        out->rank = (int32_t)json_integer_value(rank);
        out->alpha = json_number_value(alpha);
        out->rslora = json_is_true(json_object_get(c, "use_rslora"));
    }
    json_decref(c);
    return ok;
}
void lora_config_free(LoraConfig *c) {
    for (int i = 0; i < c->target_count; i++) free(c->targets[i]);
    free(c->targets);
    *c = (LoraConfig){0};
}

// ---- reading ---------------------------------------------------------------------------------------------
static bool read_tensor(const Safetensors *s, const char *path, const ParameterPart *name, int64_t rows, int64_t columns, int64_t stride,
                        float *out, Err *err) {
    TensorInfo t;
    if (!safetensors_find(s, name->name, &t)) return fail(err, ERR_DATA, path, "tensor '%s' is missing", name->name);
    if (t.dims != 2 || t.shape[0] != rows || t.shape[1] != columns)
        return fail(err, ERR_DATA, path, "tensor '%s' has not the shape [%lld, %lld]", name->name, (long long)rows, (long long)columns);
    float *values;
    TRY(mem_alloc((size_t)(rows * columns) * sizeof *values, name->name, (void **)&values, err));
    bool ok = safetensors_read(s, name->name, values, err);
    for (int64_t r = 0; ok && r < rows; r++) memcpy(out + r * stride, values + r * columns, (size_t)columns * sizeof *values);
    mem_free(values);
    return ok;
}
static bool read_parameter(const Policy *p, const Adapter *a, const Parameter *q, const Safetensors *s, const char *path, Err *err) {
    float *values;
    bool is_b = q->scale != 0, ok = true;
    TRY(mem_alloc((size_t)(q->N * q->K) * sizeof *values, "an adapter", (void **)&values, err));
    for (int i = 0; ok && i < q->part_count; i++)
        ok = read_tensor(s, path, &q->parts[i], q->parts[i].rows, is_b ? a->config.rank : q->K, q->K, values + q->parts[i].row * q->K, err);
    ok = ok && parameter_set(p, q, values, err);
    mem_free(values);
    return ok;
}
static bool read_tensors(const Policy *p, const Adapter *a, const char *path, Err *err) {
    Safetensors *s;
    int places = 0;
    TRY(safetensors_open(path, &s, err));
    bool ok = true;
    for (int i = 0; ok && i < a->count; i++) {
        ok = read_parameter(p, a, &a->parameters[i], s, path, err);
        places += a->parameters[i].part_count;
    }
    for (int i = 0; ok && safetensors_count(s) != places && i < safetensors_count(s); i++) {
        TensorInfo t;
        bool known = false;
        safetensors_at(s, i, &t);
        for (int k = 0; k < a->count && !known; k++)
            for (int j = 0; j < a->parameters[k].part_count; j++) known |= strcmp(a->parameters[k].parts[j].name, t.name) == 0;
        if (!known) ok = fail(err, ERR_DATA, path, "tensor '%.150s' has no place in this adapter", t.name);
    }
    safetensors_close(s);
    return ok;
}
bool adapter_read(const Policy *p, const char *folder, bool trained, Adapter **out, Err *err) {
    char *config = path_join(folder, "adapter_config.json"), *tensors = path_join(folder, "adapter_model.safetensors");
    LoraConfig c;
    *out = NULL;
    bool ok = lora_config_read(config, trained, &c, err) && adapter_make(p, &c, trained, config, out, err);
    if (ok && !read_tensors(p, *out, tensors, err)) {
        adapter_free(p, *out);
        *out = NULL;
        ok = false;
    }
    lora_config_free(&c);
    free(config), free(tensors);
    return ok;
}

bool folder_is_adapter(const char *folder) {
    char *config = path_join(folder, "adapter_config.json"), *model = path_join(folder, "config.json");
    bool yes = file_exists(config) && !file_exists(model);
    free(config), free(model);
    return yes;
}
// A name without a place of its own is looked for beside the adapter.
static char *find_base(const char *folder, const char *name) {
    if (file_exists(name) || name[0] == '/') return xstrdup(name);
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    while (n > 0 && folder[n - 1] != '/') n--;
    char *above = n ? xstrndup(folder, n) : xstrdup("."), *beside = path_join(above, name);
    free(above);
    return beside;
}
bool adapter_base(const char *folder, char **base, char hash[65], Err *err) {
    char *record = path_join(folder, BASE_FILE), *config = path_join(folder, "adapter_config.json");
    const char *path = file_exists(record) ? record : config, *key = path == record ? "path" : "base_model_name_or_path";
    json_t *j = NULL;
    *base = NULL;
    hash[0] = 0;
    bool ok = json_read_file(path, MAX_JSON, &j, err);
    const char *name = json_string_value(json_object_get(j, key)), *stored = json_string_value(json_object_get(j, "sha256"));
    if (ok && (!name || !name[0])) ok = wrong(path, key, json_object_get(j, key), "the folder or file of the model that the adapter is for", err);
    if (ok && path == record && (!stored || strlen(stored) != 64)) ok = wrong(path, "sha256", json_object_get(j, "sha256"), "a hash of 64 digits", err);
    if (ok) *base = find_base(folder, name);
    if (ok && path == record) memcpy(hash, stored, 65);
    json_decref(j);
    free(record), free(config);
    return ok;
}

// ---- writing ---------------------------------------------------------------------------------------------
static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
// Names of the targets: as they were given, or the last part of each module's name once.
static json_t *targets_json(const Adapter *a) {
    json_t *list = json_array();
    int count = 0;
    for (int i = 0; i < a->linear_count; i++) count += a->linears[i].part_count;
    const char **names = xcalloc((size_t)(count + a->config.target_count), sizeof *names);
    count = 0;
    for (int i = 0; i < a->config.target_count; i++) names[count++] = a->config.targets[i];
    for (int i = 0; a->config.target_count == 0 && i < a->linear_count; i++)
        for (int k = 0; k < a->linears[i].part_count; k++) {
            const char *dot = strrchr(a->linears[i].parts[k].module, '.');
            names[count++] = dot ? dot + 1 : a->linears[i].parts[k].module;
        }
    qsort(names, (size_t)count, sizeof *names, by_text);
    for (int i = 0; i < count; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) json_array_append_new(list, json_string(names[i]));
    free(names);
    return list;
}
static bool write_json(const char *folder, const char *name, json_t *value, Err *err) {
    char *path = path_join(folder, name), *text = json_dumps(value, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    bool ok = text && file_write_atomic(path, text, strlen(text), err);
    free(text), free(path);
    json_decref(value);
    return ok;
}
static bool write_config(const Policy *p, const Adapter *a, const char *folder, Err *err) {
    const LoraConfig *c = &a->config;
    bool whole = c->alpha == (double)(json_int_t)c->alpha;
    json_t *j = json_pack("{s:s, s:s, s:o, s:s, s:f, s:b, s:b, s:b, s:i, s:o, s:o, s:s, s:b, s:n}", "peft_type", "LORA", "task_type", "CAUSAL_LM",
                          "base_model_name_or_path", p->base_path ? json_string(p->base_path) : json_null(), "bias", "none", "lora_dropout", 0.0,
                          "fan_in_fan_out", 0, "use_dora", 0, "use_rslora", c->rslora, "r", c->rank, "lora_alpha",
                          whole ? json_integer((json_int_t)c->alpha) : json_real(c->alpha), "target_modules", targets_json(a), "init_lora_weights",
                          "true", "inference_mode", 1, "modules_to_save");
    json_object_set_new(j, "init_lora_weights", json_true());
    return write_json(folder, "adapter_config.json", j, err);
}
// Names and values of one adapter's tensors without their padding. `values` are the caller's to free, [count].
static bool collect(const Policy *p, const Adapter *a, TensorOut *out, float **values, int *count, Err *err) {
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        bool is_b = q->scale != 0;
        int64_t columns = is_b ? a->config.rank : q->K;
        float *whole = values[i] = xmalloc((size_t)(q->N * q->K) * sizeof *whole);
        TRY(parameter_get(p, q, whole, err));
        for (int64_t r = 0; is_b && r < q->N; r++) memmove(whole + r * columns, whole + r * q->K, (size_t)columns * sizeof *whole);
        for (int k = 0; k < q->part_count; k++)
            out[(*count)++] = (TensorOut){.name = q->parts[k].name, .dtype = "F32", .dims = 2, .shape = {q->parts[k].rows, columns},
                                          .values = whole + q->parts[k].row * columns};
    }
    return true;
}
bool adapter_write(const Policy *p, const Adapter *a, const char *folder, Err *err) {
    int names = 0, count = 0;
    if (!a->parameters[0].values) return fail(err, ERR_SOFTWARE, folder, "a frozen adapter holds no exact values");
    for (int i = 0; i < a->count; i++) names += a->parameters[i].part_count;
    TensorOut *out = xcalloc((size_t)names, sizeof *out);
    float **values = xcalloc((size_t)a->count, sizeof *values);
    char *path = path_join(folder, "adapter_model.safetensors");
    bool ok = folder_make(folder, err) && write_config(p, a, folder, err) && collect(p, a, out, values, &count, err) &&
              safetensors_write(path, out, count, NULL, err);
    if (ok && p->base_hash[0])
        ok = write_json(folder, BASE_FILE, json_pack("{s:s, s:s}", "path", p->base_path, "sha256", p->base_hash), err);
    for (int i = 0; i < a->count; i++) free(values[i]);
    free(path), free(values), free(out);
    return ok;
}
