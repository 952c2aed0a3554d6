// Adapters as PEFT lays them out: adapter_config.json and adapter_model.safetensors. What a configuration says and would
// change the numbers is either done or refused. Every tensor of the file must have its place, and every place its tensor.
// Beside them, of a checkpoint: base.json, the path and the hash of the weights that the adapter was trained on.
#include "lora_files.h"
#include "files.h"
#include "lora_match.h"
#include "model.h"
#include "names.h"
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
static bool listed(const char *key, const char *const *list, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(key, list[i]) == 0) return true;
    return false;
}
// Which products, how much of each (lora_match.c).
static const char *const selecting[] = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
                                        "target_parameters", "rank_pattern", "alpha_pattern"};
static bool check_keys(const json_t *c, const char *path, Err *err) {
    static const char *const done[] = {"peft_type", "r", "lora_alpha", "use_rslora", "bias", "lora_dropout", "init_lora_weights"};
    static const char *const harmless[] = {"auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
                                           "megatron_core", "megatron_config", "runtime_config", "qalora_group_size", "ensure_weight_tying",
                                           "eva_config"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)c, key, value) {
        bool known = listed(key, done, COUNT(done)) || listed(key, harmless, COUNT(harmless)) || listed(key, selecting, COUNT(selecting));
        if (!known && !is_nothing(value)) return wrong(path, key, value, "nothing or false: it is not supported", err);
    }
    return true;
}
static bool check_options(const json_t *c, const char *path, bool trained, Err *err) {
    static const char *const starts[] = {"gaussian", "eva", "orthogonal"}; // others leave the base changed
    const char *type = json_string_value(json_object_get(c, "peft_type")), *bias = json_string_value(json_object_get(c, "bias"));
    const char *start = json_string_value(json_object_get(c, "init_lora_weights"));
    if (!type || strcmp(type, "LORA") != 0) return wrong(path, "peft_type", json_object_get(c, "peft_type"), "\"LORA\"", err);
    TRY(check_keys(c, path, err));
    if (bias && strcmp(bias, "none") != 0) return wrong(path, "bias", json_object_get(c, "bias"), "\"none\": trained biases are not supported", err);
    if (start && !listed(start, starts, COUNT(starts)))
        return wrong(path, "init_lora_weights", json_object_get(c, "init_lora_weights"), "true, false, \"gaussian\", \"eva\" or \"orthogonal\": others change the base's weights too", err);
    if (trained && json_number_value(json_object_get(c, "lora_dropout")) != 0)
        return wrong(path, "lora_dropout", json_object_get(c, "lora_dropout"), "0: training with dropout is not supported", err);
    return true;
}
static bool read_numbers(const json_t *c, const char *path, LoraConfig *out, Err *err) {
    const json_t *rank = json_object_get(c, "r"), *alpha = json_object_get(c, "lora_alpha"), *rslora = json_object_get(c, "use_rslora");
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > 4096)
        return wrong(path, "r", rank, "an integer from 1 to 4096", err);
    if (!json_is_number(alpha)) return wrong(path, "lora_alpha", alpha, "a number", err);
    if (rslora && !json_is_boolean(rslora) && !json_is_null(rslora)) return wrong(path, "use_rslora", rslora, "true or false", err);
    out->rank = (int32_t)json_integer_value(rank);
    out->alpha = json_number_value(alpha);
    out->rslora = json_is_true(rslora);
    return true;
}
bool lora_config_read(const char *path, bool trained, LoraConfig *out, Err *err) {
    json_t *c = NULL;
    LoraMatch *match = NULL;
    *out = (LoraConfig){.from_file = true};
    TRY(json_read_file(path, MAX_JSON, &c, err));
    bool ok = json_is_object(c) || wrong(path, "the configuration", c, "an object", err);
    ok = ok && check_options(c, path, trained, err) && read_numbers(c, path, out, err);
    out->selection = json_object();
    for (int i = 0; ok && i < COUNT(selecting); i++)
        if (json_object_get(c, selecting[i])) json_object_set(out->selection, selecting[i], json_object_get(c, selecting[i]));
    ok = ok && lora_match_open(out, path, &match, err);
    lora_match_close(match);
    json_decref(c);
    return ok;
}
LoraConfig lora_config_make(int32_t rank, double alpha, bool rslora, const char *const *targets) {
    LoraConfig c = {.rank = rank, .alpha = alpha, .rslora = rslora};
    json_t *names = targets ? json_array() : NULL;
    for (int i = 0; targets && targets[i]; i++) json_array_append_new(names, json_string(targets[i]));
    if (names) c.selection = json_pack("{s:o}", "target_modules", names);
    return c;
}
void lora_config_free(LoraConfig *c) {
    json_decref(c->selection);
    *c = (LoraConfig){0};
}

// ---- tensors -----------------------------------------------------------------------------------------------
// How a factor's part lies in a file: [rows, columns], without the padding. A factor of all experts as one parameter is one
// tensor: A [experts x rank, K], B [rows, rank x experts] with the experts next to each other.
typedef struct Tensor {
    const Parameter *q;
    ParameterPart *part;
    int64_t rows, columns, experts;
    bool is_b;
} Tensor;
static Tensor tensor_of(const Parameter *q, int part) {
    Tensor t = {.q = q, .part = &q->parts[part], .is_b = q->scale != 0, .experts = q->fused ? block_count(q) : 1};
    t.rows = q->fused ? t.is_b ? block_rows(q, 0) : t.experts * q->rank : t.part->rows;
    t.columns = t.is_b ? t.experts * q->rank : q->K;
    return t;
}
// Where number i of the tensor lies in [N, K].
static int64_t tensor_place(const Tensor *t, int64_t i) {
    const Parameter *q = t->q;
    int64_t row = i / t->columns, column = i % t->columns;
    if (!q->fused) return (t->part->row + row) * q->K + column;
    if (t->is_b) return (column % t->experts * block_rows(q, 0) + row) * q->K + column / t->experts;
    return (row / q->rank * block_rows(q, 0) + row % q->rank) * q->K + column;
}
// By its name or the one that newer releases of transformers give it, which it then keeps.
static bool find_tensor(const Safetensors *s, ParameterPart *part, TensorInfo *t) {
    char other[sizeof part->name];
    if (safetensors_find(s, part->name, t)) return true;
    if (!lora_other_name(part->name, other, sizeof other) || !safetensors_find(s, other, t)) return false;
    memcpy(part->name, other, sizeof other);
    return true;
}
static bool read_tensor(const Safetensors *s, const char *path, const Tensor *to, float *out, Err *err) {
    TensorInfo t;
    char *name = to->part->name;
    float *values;
    if (!find_tensor(s, to->part, &t)) return fail(err, ERR_DATA, path, "tensor '%s' is missing", name);
    if (t.dims != 2 || t.shape[0] != to->rows || t.shape[1] != to->columns)
        return fail(err, ERR_DATA, path, "tensor '%s' has not the shape [%lld, %lld]", name, (long long)to->rows, (long long)to->columns);
    TRY(mem_alloc((size_t)(to->rows * to->columns) * sizeof *values, name, (void **)&values, err));
    bool ok = safetensors_read(s, t.name, values, err);
    for (int64_t i = 0; ok && i < to->rows * to->columns; i++) out[tensor_place(to, i)] = values[i];
    mem_free(values);
    return ok;
}
// Every tensor of the file must have its place.
static bool check_places(const Adapter *a, const Safetensors *s, const char *path, Err *err) {
    int count = 0;
    for (int i = 0; i < a->count; i++) count += a->parameters[i].part_count;
    if (safetensors_count(s) == count) return true;
    NameEntry *found = xcalloc((size_t)count + 1, sizeof *found);
    count = 0;
    for (int i = 0; i < a->count; i++)
        for (int k = 0; k < a->parameters[i].part_count; k++) found[count++] = (NameEntry){a->parameters[i].parts[k].name, 0};
    bool ok = true;
    names_sort(found, count);
    for (int i = 0; ok && i < safetensors_count(s); i++) {
        TensorInfo t;
        safetensors_at(s, i, &t);
        if (names_find(found, count, t.name) < 0) ok = fail(err, ERR_DATA, path, "tensor '%.150s' has no place in this adapter", t.name);
    }
    free(found);
    return ok;
}
bool adapter_tensors(const Adapter *a, const char *path, bool (*take)(void *context, int index, const float *values, Err *err), void *context, Err *err) {
    Safetensors *s;
    TRY(safetensors_open(path, &s, err));
    bool ok = true;
    for (int i = 0; ok && i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        float *values = NULL;
        ok = mem_alloc((size_t)(q->N * q->K) * sizeof *values, "an adapter", (void **)&values, err);
        for (int k = 0; ok && k < q->part_count; k++) {
            Tensor t = tensor_of(q, k);
            ok = read_tensor(s, path, &t, values, err);
        }
        ok = ok && take(context, i, values, err);
        mem_free(values);
    }
    ok = ok && check_places(a, s, path, err);
    safetensors_close(s);
    return ok;
}
// "all-linear" means routers too where the file has factors of one.
bool adapter_find_routers(LoraConfig *c, const char *path, Err *err) {
    Safetensors *s;
    TRY(safetensors_open(path, &s, err));
    for (int i = 0; i < safetensors_count(s) && !c->routers; i++) {
        TensorInfo t;
        safetensors_at(s, i, &t);
        c->routers = strstr(t.name, ".gate.lora_A.weight") != NULL;
    }
    safetensors_close(s);
    return true;
}

typedef struct Setting {
    const Policy *p;
    const Adapter *a;
} Setting;
static bool set_values(void *context, int index, const float *values, Err *err) {
    const Setting *to = context;
    return parameter_set(to->p, &to->a->parameters[index], values, err);
}
bool adapter_read(const Policy *p, const char *folder, bool trained, Adapter **out, Err *err) {
    char *config = path_join(folder, "adapter_config.json"), *tensors = path_join(folder, "adapter_model.safetensors");
    LoraConfig c;
    *out = NULL;
    bool ok = lora_config_read(config, trained, &c, err) && adapter_find_routers(&c, tensors, err) && adapter_make(p, &c, trained, config, out, err);
    if (ok && !adapter_tensors(*out, tensors, set_values, &(Setting){p, *out}, err)) {
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
// The last part of each module's name once.
static json_t *targets_json(const Adapter *a) {
    json_t *list = json_array();
    const char **names = xcalloc((size_t)a->part_count + 1, sizeof *names);
    int count = 0;
    for (int i = 0; i < a->part_count; i++) {
        const char *dot = strrchr(a->parts[i].module, '.');
        names[count++] = dot ? dot + 1 : a->parts[i].module;
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
    const json_t *targets = json_object_get(c->selection, "target_modules");
    bool whole = c->alpha == (double)(json_int_t)c->alpha, all = !c->selection || (json_is_string(targets) && strcmp(json_string_value(targets), "all-linear") == 0);
    json_t *j = json_pack("{s:s, s:s, s:o, s:s, s:f, s:b, s:b, s:b, s:i, s:o, s:b, s:b, s:n}", "peft_type", "LORA", "task_type", "CAUSAL_LM",
                          "base_model_name_or_path", p->base_path ? json_string(p->base_path) : json_null(), "bias", "none", "lora_dropout", 0.0,
                          "fan_in_fan_out", 0, "use_dora", 0, "use_rslora", c->rslora, "r", c->rank, "lora_alpha",
                          whole ? json_integer((json_int_t)c->alpha) : json_real(c->alpha), "init_lora_weights", 1, "inference_mode", 1,
                          "modules_to_save");
    if (c->selection) json_object_update(j, c->selection);
    if (all) json_object_set_new(j, "target_modules", targets_json(a));
    return write_json(folder, "adapter_config.json", j, err);
}
// Names and values of one adapter's tensors without their padding. `values` are the caller's to free, [count].
static bool collect(const Policy *p, const Adapter *a, TensorOut *out, float **values, int *count, Err *err) {
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        float *whole = xmalloc((size_t)(q->N * q->K) * sizeof *whole), *at = values[i] = xmalloc((size_t)(q->N * q->K) * sizeof *whole);
        bool ok = parameter_get(p, q, whole, err);
        for (int k = 0; ok && k < q->part_count; k++) {
            Tensor t = tensor_of(q, k);
            out[(*count)++] = (TensorOut){.name = t.part->name, .dtype = "F32", .dims = 2, .shape = {t.rows, t.columns}, .values = at};
            for (int64_t j = 0; j < t.rows * t.columns; j++) *at++ = whole[tensor_place(&t, j)];
        }
        free(whole);
        TRY(ok);
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
