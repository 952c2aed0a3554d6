// An adapter of a mixture of experts as PEFT takes it since transformers holds all experts of a layer in two parameters: factors of
// both parameters (target_parameters), experts next to each other, gate and up by a factor A that stacks theirs, with B in blocks.
// The product is the same. There, names such as "gate_proj" mean experts wherever they stand; so the feed-forwards beside the
// experts, and routers, are named as parameters too. Every rank and alpha that differs from the first is said by its full name.
#include "export_parts.h"
#include "files.h"
#include <stdlib.h>
#include <string.h>

typedef struct PeftOut {
    const Merge *m;
    TensorOut *tensors; // [2 a piece], names and values owned
    int count;
    json_t *modules, *parameters, *ranks, *alphas;
    double alpha;       // of the adapter's rank
} PeftOut;

static bool names_experts(const char *module) {
    static const char *const names[] = {".gate", ".gate_proj", ".up_proj", ".down_proj", ".w1", ".w2", ".w3"};
    const char *dot = strrchr(module, '.');
    for (int i = 0; dot && i < COUNT(names); i++)
        if (strcmp(dot, names[i]) == 0) return true;
    return false;
}
// A target of this rank and scale.
static void add_target(PeftOut *o, const char *name, bool parameter, int64_t rank, double scale) {
    double alpha = scale * (double)rank;
    json_array_append_new(parameter ? o->parameters : o->modules, json_string(name));
    if (rank != o->m->adapter->config.rank) json_object_set_new(o->ranks, name, json_integer(rank));
    if (alpha != o->alpha) json_object_set_new(o->alphas, name, json_real(alpha));
}
static float *add_tensor(PeftOut *o, const char *module, const char *factor, int64_t rows, int64_t columns) {
    TensorOut *t = &o->tensors[o->count++];
    float *values = xcalloc((size_t)(rows * columns), sizeof *values);
    *t = (TensorOut){.name = xasprintf("base_model.model.%s.lora_%s.weight", module, factor), .dtype = "F32", .dims = 2, .shape = {rows, columns}, .values = values};
    return values;
}
static const float *values_of(const Merge *m, const Parameter *q) { return m->values[q - m->adapter->parameters]; }

// A product of its own.
static void add_product(PeftOut *o, const LoraLinear *l, const LoraPart *part) {
    const Parameter *A = l->A, *B = part->B;
    const float *from_a = values_of(o->m, A) + part->column * A->K, *from_b = values_of(o->m, B);
    char other[128], name[160];
    const char *module = lora_other_name(part->module, other, sizeof other) ? other : part->module;
    bool parameter = names_experts(module);
    snprintf(name, sizeof name, "%s%s", module, parameter ? ".weight" : "");
    add_target(o, name, parameter, B->rank, (double)B->scale);
    memcpy(add_tensor(o, module, "A", B->rank, A->K), from_a, (size_t)(B->rank * A->K) * sizeof(float));
    float *b = add_tensor(o, module, "B", B->N, B->rank);
    for (int64_t i = 0; i < B->N * B->rank; i++) b[i] = from_b[i / B->rank * B->K + i % B->rank];
}
// All experts of a layer.
static void add_experts(PeftOut *o, const Parameter *w, const LoraLinear *l, bool nested) {
    const Parameter *A = l->A;
    int64_t experts = block_count(w), rank = 0, at = 0, K = A->K, width = block_rows(A, 0);
    char parameter[128], module[160], holder[128];
    lora_fused_name(w, parameter, holder);
    snprintf(module, sizeof module, "%s%s", holder, nested ? ".base_layer" : "");
    for (int i = 0; i < l->part_count; i++) rank += l->parts[i].B->rank;
    double scale = (double)l->parts[0].B->scale;
    add_target(o, parameter, true, rank, scale);
    float *a = add_tensor(o, module, "A", experts * rank, K), *b = add_tensor(o, module, "B", block_rows(w, 0), rank * experts);
    for (int i = 0; i < l->part_count; at += l->parts[i++].B->rank) {
        const LoraPart *p = &l->parts[i];
        const float *from_a = values_of(o->m, A), *from_b = values_of(o->m, p->B);
        double share = (double)p->B->scale / scale;
        for (int64_t e = 0; e < experts; e++) {
            memcpy(a + (e * rank + at) * K, from_a + (e * width + p->column) * K, (size_t)(p->B->rank * K) * sizeof *a);
            for (int64_t row = 0; row < p->rows; row++)
                for (int64_t r = 0; r < p->B->rank; r++)
                    b[(p->row + row) * rank * experts + (at + r) * experts + e] = (float)(share * (double)from_b[(e * p->rows + row) * p->B->K + r]);
        }
    }
}
static const LoraLinear *of_role(const Merge *m, int32_t layer, TensorRole role) {
    for (int i = 0; i < m->shell.parameter_count; i++)
        if (m->shell.parameters[i].layer == layer && m->shell.parameters[i].role == role) return m->adapter->of[i];
    return NULL;
}
static void add_all(PeftOut *o) {
    const Merge *m = o->m;
    for (int i = 0; i < m->shell.parameter_count; i++) {
        const Parameter *w = &m->shell.parameters[i];
        const LoraLinear *l = m->adapter->of[i];
        if (!l) continue;
        if (w->role == ROLE_EXPERTS_GATE_UP || w->role == ROLE_EXPERTS_DOWN)
            add_experts(o, w, l, w->role == ROLE_EXPERTS_GATE_UP && of_role(m, w->layer, ROLE_EXPERTS_DOWN));
        else
            for (int k = 0; k < l->part_count; k++) add_product(o, l, &l->parts[k]);
    }
}

static bool write_config(const PeftOut *o, const char *adapter, const char *folder, Err *err) {
    char *from = path_join(adapter, "adapter_config.json"), *to = path_join(folder, "adapter_config.json");
    json_t *config = NULL;
    bool ok = json_read_file(from, 1 << 24, &config, err);
    if (ok) {
        json_object_set(config, "target_modules", o->modules), json_object_set(config, "target_parameters", o->parameters);
        json_object_set(config, "rank_pattern", o->ranks), json_object_set(config, "alpha_pattern", o->alphas);
        json_object_set_new(config, "lora_alpha", json_real(o->alpha)), json_object_set_new(config, "use_rslora", json_false());
        json_object_del(config, "exclude_modules"), json_object_del(config, "layers_to_transform"), json_object_del(config, "layers_pattern");
        char *text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
        ok = text && file_write_atomic(to, text, strlen(text), err);
        free(text);
    }
    json_decref(config);
    free(from), free(to);
    return ok;
}
bool peft_write_mixture(const Merge *m, const char *adapter, const char *folder, Err *err) {
    const LoraConfig *c = &m->adapter->config;
    PeftOut o = {.m = m, .modules = json_array(), .parameters = json_array(), .ranks = json_object(), .alphas = json_object(),
                 .alpha = lora_scale(c, c->alpha, c->rank) * c->rank};
    char *path = path_join(folder, "adapter_model.safetensors");
    o.tensors = xcalloc((size_t)m->adapter->part_count * 2, sizeof *o.tensors);
    add_all(&o);
    bool ok = write_config(&o, adapter, folder, err) && safetensors_write(path, o.tensors, o.count, NULL, err);
    for (int i = 0; i < o.count; i++) free((void *)(uintptr_t)o.tensors[i].name), free((void *)(uintptr_t)o.tensors[i].values);
    json_decref(o.modules), json_decref(o.parameters), json_decref(o.ranks), json_decref(o.alphas);
    free(o.tensors), free(path);
    return ok;
}
