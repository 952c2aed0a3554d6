// Adapters: which products they join, their memory, switching them, and views. An adapter belongs to the weights of one
// policy; its parameters are like any others, so that AdamW, checkpoints and norms know no difference. Only one adapter of a
// policy is trained, the first; the weights are then frozen and have neither masters nor gradients nor moments.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

// ---- targets ---------------------------------------------------------------------------------------------
static bool is_experts(const Parameter *q) { return q->role == ROLE_EXPERTS_GATE_UP || q->role == ROLE_EXPERTS_DOWN; }
static bool is_product(const Parameter *q) {
    return q->matrix && q->role != ROLE_EMBEDDING && q->role != ROLE_HEAD && q->role != ROLE_ROUTER && (!q->block[0] || is_experts(q));
}
// Parts of one of its matrices: of one expert's, or all.
static int parts_each(const Parameter *q) { return q->part_count / block_count(q); }
// "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.weight".
static void module_of(const ParameterPart *part, char out[96]) {
    size_t n = strlen(part->name), suffix = strlen(".weight");
    snprintf(out, 96, "%.*s", (int)(n > suffix ? n - suffix : n), part->name);
}
// As PEFT: the module's whole name, or its end after a dot.
static bool names_module(const char *target, const char *module) {
    size_t n = strlen(target), m = strlen(module);
    return n <= m && strcmp(module + m - n, target) == 0 && (n == m || module[m - n - 1] == '.');
}
static bool is_target(const LoraConfig *c, const char *module) {
    bool any = c->target_count == 0;
    for (int i = 0; !any && i < c->target_count; i++) any = names_module(c->targets[i], module);
    return any;
}
static int targets_in(const LoraConfig *c, const Parameter *q) {
    char module[96];
    int count = 0;
    for (int i = 0; is_product(q) && i < q->part_count; i++) {
        module_of(&q->parts[i], module);
        count += is_target(c, module);
    }
    return count;
}
// Part `slot` of expert after expert (of one matrix: the part): is any of them a target?
static bool any_target(const LoraConfig *c, const Parameter *q, int slot) {
    char module[96];
    bool any = false;
    for (int i = slot; !any && i < q->part_count; i += parts_each(q)) {
        module_of(&q->parts[i], module);
        any = is_target(c, module);
    }
    return any;
}
// Every target must name a product of the layers: one that names nothing, or the embedding, is a mistake.
static bool check_targets(const Policy *p, const LoraConfig *c, const char *where, Err *err) {
    for (int t = 0; t < c->target_count; t++) {
        bool used = false;
        for (int i = 0; i < p->parameter_count; i++)
            for (int k = 0; k < p->parameters[i].part_count; k++) {
                char module[96];
                module_of(&p->parameters[i].parts[k], module);
                if (!p->parameters[i].matrix || !names_module(c->targets[t], module)) continue;
                used = true;
                if (!is_product(&p->parameters[i]))
                    return fail(err, ERR_DATA, where, "target '%.60s' is %.80s, expected a product of the layers", c->targets[t], module);
            }
        if (used) continue;
        Buf known = {0};
        for (int i = 0; i < p->parameter_count; i++)
            for (int k = 0; p->parameters[i].layer == 0 && is_product(&p->parameters[i]) && k < parts_each(&p->parameters[i]); k++) {
                char module[96];
                module_of(&p->parameters[i].parts[k], module);
                const char *dot = strrchr(module, '.');
                buf_printf(&known, "%s%s", known.size ? ", " : "", dot ? dot + 1 : module);
            }
        fail(err, ERR_DATA, where, "target '%.60s' names no product of this model, expected some of %.400s", c->targets[t], known.data);
        buf_free(&known);
        return false;
    }
    return true;
}

// ---- layout ----------------------------------------------------------------------------------------------
static void config_copy(LoraConfig *to, const LoraConfig *from) {
    *to = *from;
    to->targets = xcalloc((size_t)from->target_count, sizeof *to->targets);
    for (int i = 0; i < from->target_count; i++) to->targets[i] = xstrdup(from->targets[i]);
}
// `count` matrices of N rows by turns.
static Parameter *add_parameter(Adapter *a, bool trained, int count, int64_t N, int64_t K) {
    Parameter *q = &a->parameters[a->count++];
    *q = (Parameter){.parts = a->names + a->name_count, .layer = -1, .N = count * N, .K = K, .matrix = true, .transposable = true, .trained = trained};
    if (count > 1) q->block[0] = q->block[1] = N;
    return q;
}
static void add_name(Adapter *a, Parameter *q, const char *module, const char *factor, int64_t row, int64_t rows) {
    ParameterPart *n = &a->names[a->name_count++];
    snprintf(n->name, sizeof n->name, "base_model.model.%s.lora_%s.weight", module, factor);
    n->row = row, n->rows = rows;
    q->part_count++;
}
static void join_A(Adapter *a, const Parameter *w, LoraLinear *l, bool trained) {
    int64_t width = (int64_t)l->part_count * a->padded;
    int each = parts_each(w), count = block_count(w);
    l->A = add_parameter(a, trained, count, width, w->K);
    for (int e = 0; e < count; e++)
        for (int k = 0, at = 0; k < each; k++) {
            char module[96];
            if (!any_target(&a->config, w, k)) continue;
            module_of(&w->parts[e * each + k], module);
            if (is_target(&a->config, module)) add_name(a, l->A, module, "A", e * width + (int64_t)at * a->padded, a->config.rank);
            at++;
        }
}
static void join_B(Adapter *a, const Parameter *w, LoraPart *part, int slot, bool trained) {
    int each = parts_each(w), count = block_count(w);
    part->B = add_parameter(a, trained, count, part->rows, a->padded);
    part->B->scale = (float)lora_scale(&a->config);
    for (int e = 0; e < count; e++) {
        char module[96];
        module_of(&w->parts[e * each + slot], module);
        if (!is_target(&a->config, module)) continue;
        if (!part->module[0]) memcpy(part->module, module, sizeof module);
        add_name(a, part->B, module, "B", e * part->rows, part->rows);
    }
}
static void join(Adapter *a, const Parameter *w, LoraLinear *l, bool trained) {
    int slots[3]; // of q, k and v at most
    l->parts = a->parts + a->part_count;
    for (int k = 0; k < parts_each(w); k++)
        if (any_target(&a->config, w, k)) slots[l->part_count++] = k;
    join_A(a, w, l, trained);
    for (int i = 0; i < l->part_count; i++) {
        l->parts[i].row = w->parts[slots[i]].row, l->parts[i].rows = w->parts[slots[i]].rows;
        join_B(a, w, &l->parts[i], slots[i], trained);
    }
    a->part_count += l->part_count;
}

bool adapter_make(const Policy *p, const LoraConfig *config, bool trained, const char *where, Adapter **out, Err *err) {
    *out = NULL;
    if (config->rank < 1 || config->rank > 4096) return fail(err, ERR_DATA, where, "rank is %d, expected 1 to 4096", config->rank);
    if (!(config->alpha > 0 && config->alpha < 1e9)) return fail(err, ERR_DATA, where, "alpha is %g, expected more than 0", config->alpha);
    TRY(check_targets(p, config, where, err));
    int parts = 0, linears = 0;
    for (int i = 0; i < p->parameter_count; i++) parts += targets_in(config, &p->parameters[i]), linears += targets_in(config, &p->parameters[i]) > 0;
    Adapter *a = *out = xcalloc(1, sizeof *a);
    config_copy(&a->config, config);
    a->padded = (config->rank + LORA_STEP - 1) / LORA_STEP * LORA_STEP;
    a->parameters = xcalloc((size_t)(parts + linears), sizeof *a->parameters);
    a->names = xcalloc((size_t)parts * 2, sizeof *a->names);
    a->parts = xcalloc((size_t)parts, sizeof *a->parts);
    a->linears = xcalloc((size_t)linears, sizeof *a->linears);
    a->of = xcalloc((size_t)p->parameter_count, sizeof *a->of);
    for (int i = 0; i < p->parameter_count; i++) {
        if (targets_in(config, &p->parameters[i]) == 0) continue;
        LoraLinear *l = a->of[i] = &a->linears[a->linear_count++];
        join(a, &p->parameters[i], l, trained);
    }
    for (int i = 0; i < a->count; i++)
        if (!parameter_alloc(p, &a->parameters[i], err)) {
            adapter_free(p, a);
            *out = NULL;
            return false;
        }
    return true;
}

void adapter_free(const Policy *p, Adapter *a) {
    if (!a) return;
    for (int i = 0; i < a->count; i++) parameter_free(p, &a->parameters[i]);
    for (int i = 0; i < a->config.target_count; i++) free(a->config.targets[i]);
    free(a->config.targets), free(a->parameters), free(a->names), free(a->parts), free(a->linears), free(a->of);
    free(a);
}

bool adapter_start(const Policy *p, Adapter *a, uint64_t seed, Err *err) {
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        Random r = random_start(seed, STREAM_ADAPTER, (uint64_t)i);
        double bound = 1 / sqrt((double)q->K);
        float *values = xcalloc((size_t)(q->N * q->K), sizeof *values);
        for (int k = 0; q->scale == 0 && k < q->part_count; k++)
            for (int64_t j = 0; j < q->parts[k].rows * q->K; j++)
                values[q->parts[k].row * q->K + j] = (float)(bound * (2 * random_double(&r) - 1));
        bool ok = parameter_set(p, q, values, err);
        free(values);
        TRY(ok);
    }
    return true;
}

bool adapter_copy(const Policy *p, const Adapter *from, Adapter **out, Err *err) {
    TRY(adapter_make(p, &from->config, false, "adapter", out, err));
    for (int i = 0; i < from->count; i++) {
        const Parameter *q = &from->parameters[i], *copy = &(*out)->parameters[i];
        p->device->copy(p->device, copy->packed, q->packed, act_bytes(p, packed_size(q)));
    }
    return true;
}

// ---- passes ----------------------------------------------------------------------------------------------
bool adapter_reserve(Policy *p, int64_t rows, Err *err) {
    Workspace *w = &p->work;
    int64_t width = 0, columns = 0; // of u, of the products it joins, in all rows of a token
    for (int i = 0; p->active && i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        int64_t times = is_experts(q) ? p->config.experts.chosen : 1;
        if (!p->active->of[i]) continue;
        int64_t own_width = times * block_rows(p->active->of[i]->A, 0), own_columns = times * block_rows(q, 0);
        width = own_width > width ? own_width : width;
        columns = own_columns > columns ? own_columns : columns;
    }
    if (width == 0 || (rows <= w->lora_rows && width <= w->lora_width && columns <= w->lora_columns)) return true;
    if (rows < w->lora_rows) rows = w->lora_rows;
    if (width < w->lora_width) width = w->lora_width;
    if (columns < w->lora_columns) columns = w->lora_columns;
    w->lora_rows = w->lora_width = w->lora_columns = 0;
    RESERVE(w->lora_u, act_bytes(p, rows * width));
    if (p->trained) RESERVE(w->lora_du, act_bytes(p, rows * width));
    if (p->dtype != DTYPE_F32) RESERVE(w->lora_wide, rows * columns * 4);
    w->lora_rows = rows, w->lora_width = width, w->lora_columns = columns;
    return true;
}
size_t adapter_grad_scratch(const Adapter *a, int64_t rows, int groups, Dtype dtype) {
    size_t most = 0;
    for (int i = 0; i < a->count; i++) {
        size_t need = matmul_grad_scratch(rows, block_rows(&a->parameters[i], 0), a->parameters[i].K, groups, dtype);
        most = need > most ? need : most;
    }
    return most;
}

// ---- adapters of a policy ----------------------------------------------------------------------------------
void adapter_add(Policy *p, Adapter *a) {
    p->adapters = xrealloc(p->adapters, (size_t)(p->adapter_count + 1) * sizeof(Adapter *));
    p->adapters[p->adapter_count++] = a;
}
bool policy_add_adapter(Policy *p, const char *folder, Err *err) {
    Adapter *a;
    TRY(adapter_read(p, folder, false, &a, err));
    adapter_add(p, a);
    return true;
}
int policy_adapter_count(const Policy *p) { return p->adapter_count; }
void policy_use_adapter(Policy *p, int index) {
    p->device->forget(p->device); // recordings hold the operations of the adapter before
    p->active = index >= 0 && index < p->adapter_count ? p->adapters[index] : NULL;
}
bool policy_trains_adapter(const Policy *p) { return p->trained != NULL; }

static Policy *view_of(Policy *p) {
    Policy *view = xcalloc(1, sizeof *view);
    view->owner = p;
    view->config = p->config;
    view->dtype = p->dtype;
    view->device = device_share(p->device);
    return view;
}
bool policy_view(Policy *p, const char *adapter, Policy **out, Err *err) {
    Adapter *a = NULL;
    *out = NULL;
    if (adapter) TRY(adapter_read(p, adapter, false, &a, err));
    *out = view_of(p);
    (*out)->active = a;
    if (a) adapter_add(*out, a);
    return true;
}
