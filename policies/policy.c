// A Policy's life: parameters from a config, weights in and out, AdamW, hashes. policy_layout makes the list
// of parameters from a family's tensors; everything else works on that list.
#include "model.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- layout ----------------------------------------------------------------------------------------------
// Where a layer keeps the parameter of a role.
static Parameter **layer_slot(Layer *l, TensorRole role, bool bias) {
    switch (role) {
    case ROLE_ATTENTION_NORM: return &l->attention_norm;
    case ROLE_Q_NORM: return &l->q_norm;
    case ROLE_K_NORM: return &l->k_norm;
    case ROLE_ATTENTION_POST_NORM: return &l->attention_post_norm;
    case ROLE_FFN_POST_NORM: return &l->ffn_post_norm;
    case ROLE_QKV: return bias ? &l->qkv.bias : &l->qkv.weight;
    case ROLE_OUTPUT: return bias ? &l->output.bias : &l->output.weight;
    case ROLE_FFN_NORM: return &l->ffn_norm;
    case ROLE_GATE_UP: return bias ? &l->gate_up.bias : &l->gate_up.weight;
    case ROLE_DOWN: return bias ? &l->down.bias : &l->down.weight;
    case ROLE_Q: return &l->q.weight;
    case ROLE_Q_A: return bias ? &l->q_a.bias : &l->q_a.weight;
    case ROLE_Q_A_NORM: return &l->q_a_norm;
    case ROLE_KV_A: return bias ? &l->kv_a.bias : &l->kv_a.weight;
    case ROLE_KV_A_NORM: return &l->kv_a_norm;
    case ROLE_KV_B: return &l->kv_b.weight;
    case ROLE_ROUTER: return &l->router.weight;
    case ROLE_CORRECTION: return &l->correction;
    case ROLE_EXPERTS_GATE_UP: return &l->experts_gate_up.weight;
    case ROLE_EXPERTS_DOWN: return &l->experts_down.weight;
    case ROLE_SHARED_GATE_UP: return bias ? &l->shared_gate_up.bias : &l->shared_gate_up.weight;
    case ROLE_SHARED_DOWN: return bias ? &l->shared_down.bias : &l->shared_down.weight;
    default: return NULL;
    }
}
static Parameter **slot_of(Policy *p, const TensorSpec *t) {
    switch (t->role) {
    case ROLE_EMBEDDING: return &p->embedding;
    case ROLE_FINAL_NORM: return &p->final_norm;
    case ROLE_HEAD: return &p->head;
    default: return layer_slot(&p->layers[t->layer], t->role, t->bias);
    }
}

static bool count_tensor(void *context, const TensorSpec *t, Err *err) {
    (void)t, (void)err;
    ++*(int *)context;
    return true;
}
static bool add_tensor(void *context, const TensorSpec *t, Err *err) {
    Policy *p = context;
    Parameter **slot = slot_of(p, t), *q = *slot;
    (void)err;
    if (!q) {
        *slot = q = &p->parameters[p->parameter_count++];
        *q = (Parameter){.parts = p->parts + p->part_count, .role = t->role, .layer = t->layer, .matrix = t->columns > 0,
                         .transposable = t->columns > 0, .K = t->columns ? t->columns : 1, .block = {t->block[0], t->block[1]}};
    }
    ParameterPart *part = &p->parts[p->part_count++];
    q->part_count++;
    snprintf(part->name, sizeof part->name, "%s", t->name);
    part->row = q->N;
    part->rows = t->rows;
    q->N += t->rows;
    return true;
}
bool policy_layout(Policy *p, Err *err) {
    const ModelConfig *c = &p->config;
    int count = 0;
    TRY(family_tensors(c, count_tensor, &count, err));
    p->parts = xcalloc((size_t)count, sizeof *p->parts);
    p->parameters = xcalloc((size_t)count, sizeof *p->parameters);
    p->layers = xcalloc((size_t)c->layers, sizeof *p->layers);
    TRY(family_tensors(c, add_tensor, p, err));
    p->embedding->transposable = c->tied;
    if (c->tied) p->head = p->embedding;
    return true;
}

void policy_layout_free(Policy *p) { free(p->parts), free(p->parameters), free(p->layers); }

// Frozen vectors beside a trained adapter have one place for gradients that nobody reads.
bool parameter_alloc(const Policy *p, Parameter *q, Err *err) {
    const Device *d = p->device;
    size_t floats = (size_t)(q->N * q->K) * 4;
    const char *name = q->parts[0].name;
    if (q->matrix && !q->packed) TRY(d->allocate(d, act_bytes(p, packed_size(q)), name, &q->packed, err));
    // Latent attention multiplies by the transposed matrices in every pass, a device and small factors have them for speed.
    bool kept = q->role == ROLE_KV_B || (p->trainable && (!d->is_host || q->rank > 0));
    if (q->matrix && q->transposable && kept)
        TRY(d->allocate(d, act_bytes(p, transposed_size(q)), name, &q->transposed, err));
    if (q->sampled_int8) TRY(d->allocate(d, int8_bytes(q->N, q->K), name, &q->int8, err));
    if (!q->matrix || q->trained) TRY(d->allocate(d, floats, name, (void **)&q->values, err));
    if (!q->trained && !q->matrix) q->gradient = p->discard;
    if (!q->trained) return true;
    TRY(d->allocate(d, floats, name, (void **)&q->gradient, err));
    TRY(d->allocate(d, floats, name, (void **)&q->m, err));
    TRY(d->allocate(d, floats, name, (void **)&q->v, err));
    return !q->second_gradient || d->allocate(d, floats, name, (void **)&q->gradient2, err);
}

void parameter_free(const Policy *p, Parameter *q) {
    const Device *d = p->device;
    if (q->gradient == p->discard) q->gradient = NULL;
    uintptr_t packed = (uintptr_t)q->packed;
    for (int i = 0; i < COUNT(p->together); i++) {
        uintptr_t together = (uintptr_t)p->together[i].memory;
        if (together && packed >= together && packed < together + p->together[i].bytes) q->packed = NULL;
    }
    if (q->in_file) q->packed = NULL;
    void *const memory[] = {q->values, q->packed, q->transposed, q->int8, q->gradient, q->gradient2, q->m, q->v};
    for (int j = 0; j < COUNT(memory); j++) d->release(d, memory[j]);
    free(q->kept);
}

void parameter_pack(const Policy *p, const Parameter *q, const float *values) {
    for (int i = 0; q->matrix && i < block_count(q); i++) {
        PackArgs args = {.w = values + block_row(q, i) * q->K, .N = block_rows(q, i), .K = q->K, .dtype = p->dtype,
                         .packed = (char *)q->packed + act_bytes(p, block_packed(q, i)), .scale = q->scale, .int8 = q->int8};
        if (q->transposed) args.transposed = (char *)q->transposed + act_bytes(p, block_transposed(q, i));
        p->device->pack(p->device, &args);
    }
}

// Sets a parameter from host values. A matrix of a frozen policy goes through device memory that is free again afterwards.
bool parameter_set(const Policy *p, const Parameter *q, const float *host, Err *err) {
    const Device *d = p->device;
    size_t bytes = (size_t)(q->N * q->K) * sizeof *host;
    float *values = q->values;
    if (!values && d->is_host) {
        parameter_pack(p, q, host);
        return true;
    }
    if (!values) TRY(d->allocate(d, bytes, q->parts[0].name, (void **)&values, err));
    d->upload(d, values, host, bytes);
    parameter_pack(p, q, values);
    if (!q->values) d->release(d, values);
    return true;
}

// Its values on the host, back from the packed form for a matrix of a frozen policy.
bool parameter_get(const Policy *p, const Parameter *q, float *host, Err *err) {
    const Device *d = p->device;
    size_t bytes = (size_t)(q->N * q->K) * sizeof *host;
    float *values = q->values;
    if (q->kept) return kept_get(p, q, host, err);
    if (!values) {
        if (!d->is_host) TRY(d->allocate(d, bytes, q->parts[0].name, (void **)&values, err));
        for (int i = 0; i < block_count(q); i++)
            d->unpack(d, &(UnpackArgs){.packed = (char *)q->packed + act_bytes(p, block_packed(q, i)), .N = block_rows(q, i), .K = q->K,
                                       .dtype = p->dtype, .w = (values ? values : host) + block_row(q, i) * q->K});
        if (!values) return true;
    }
    d->download(d, host, values, bytes);
    if (!q->values) d->release(d, values);
    return d->finish(d, err);
}

// ---- opening and closing ---------------------------------------------------------------------------------
// Partial sums of all gradients' norms.
static bool norm_reserve(Policy *p, Err *err) {
    int64_t blocks = 0;
    for (int i = 0, all = p->parameter_count + (p->trained ? p->trained->count : 0); i < all; i++) {
        const Parameter *q = i < p->parameter_count ? &p->parameters[i] : &p->trained->parameters[i - p->parameter_count];
        blocks += norm_blocks(q->N * q->K);
    }
    size_t bytes = (size_t)blocks * sizeof(double);
    p->device->release(p->device, p->norm_partial);
    p->norm_partial = NULL;
    p->norm_host = xrealloc(p->norm_host, bytes);
    return p->device->allocate(p->device, bytes, "gradient norm", (void **)&p->norm_partial, err);
}

static bool discard_reserve(Policy *p, Err *err) {
    int64_t longest = 1;
    for (int i = 0; i < p->parameter_count; i++)
        if (!p->parameters[i].matrix && p->parameters[i].N > longest) longest = p->parameters[i].N;
    return p->device->allocate(p->device, (size_t)longest * 4, "gradients of frozen vectors", (void **)&p->discard, err);
}

static bool policy_start(const ModelConfig *config, const PolicyOptions *o, Policy **out, Err *err) {
    TRY(config_check(config, config->model_type, err));
    if (config->head_width > 256 && !config->latent.R)
        return fail(err, ERR_DATA, config->model_type, "head_dim is %d, expected at most 256", config->head_width);
    Policy *p = xcalloc(1, sizeof *p);
    *out = p;
    p->config = *config;
    p->dtype = o->precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    p->trainable = o->trainable;
    p->keep_blocks = o->keep_blocks;
    if (o->beside)
        p->device = device_share(o->beside->device);
    else
        TRY(device_open(o->device, o->threads, &p->device, err));
    if (p->device->is_host)
        TRY(p->device->allocate(p->device, head_scratch(p->device->threads), "head scratch", (void **)&p->head_scratch, err));
    if (p->device->is_host && p->trainable)
        TRY(p->device->allocate(p->device, turn_scratch(true, p->device->threads, 0, 0, p->dtype), "turned panels", &p->turn_scratch, err));
    TRY(policy_layout(p, err));
    bool adapts = o->adapter || o->lora.rank > 0;
    if (o->int8) TRY(int8_choose(p, err));
    for (int i = 0; i < p->parameter_count; i++) p->parameters[i].trained = p->trainable && !adapts && p->parameters[i].role != ROLE_CORRECTION;
    if (p->trainable && adapts) TRY(discard_reserve(p, err));
    return !p->trainable || norm_reserve(p, err);
}

static bool open_adapter(Policy *p, const PolicyOptions *o, Err *err) {
    Adapter *a = NULL;
    if (o->adapter) TRY(adapter_read(p, o->adapter, p->trainable, &a, err));
    if (!o->adapter && o->lora.rank > 0) {
        LoraConfig c = lora_config_make(o->lora.rank, o->lora.alpha, o->lora.rslora, o->lora.targets);
        bool ok = adapter_make(p, &c, p->trainable, "lora", &a, err);
        lora_config_free(&c);
        TRY(ok);
        adapter_add(p, a);
        TRY(adapter_start(p, a, o->lora.seed, err));
    } else if (a) {
        adapter_add(p, a);
    }
    p->active = a;
    if (p->trainable) p->trained = a;
    return !p->trained || norm_reserve(p, err);
}

static bool open_model(const char *path, const PolicyOptions *options, Policy **out, Err *err) {
    Weights *w;
    Policy *p = NULL;
    TRY(weights_open(path, false, &w, err));
    bool ok = policy_start(weights_config(w), options, &p, err);
    if (ok && options->in_file && p->device->is_host && !p->trainable) p->file = w;
    ok = ok && policy_load(p, path, w, err) && open_adapter(p, options, err);
    if (ok) {
        char *whole = realpath(path, NULL);
        p->base_path = xstrdup(whole ? whole : path);
        free(whole);
    }
    // An adapter that is trained says in its checkpoints what it was trained on.
    if (ok && p->trained) ok = weights_hash(w, p->base_hash, err);
    if (!p || p->file != w) weights_close(w);
    *out = p;
    return ok;
}
// A folder that holds an adapter only.
static bool open_on_base(const char *folder, const PolicyOptions *options, Policy **out, Err *err) {
    PolicyOptions o = *options;
    char *base = NULL, hash[65], found[65];
    Weights *w = NULL;
    if (o.adapter || o.lora.rank > 0) return fail(err, ERR_USAGE, folder, "is an adapter itself: name its base to put another one on it");
    o.adapter = folder;
    bool ok = adapter_base(folder, &base, hash, err);
    if (ok && hash[0]) {
        ok = weights_open(base, false, &w, err) && weights_hash(w, found, err);
        if (w) weights_close(w);
        if (ok && strcmp(hash, found) != 0)
            ok = fail(err, ERR_DATA, folder, "was trained on %.100s with hash %.12s, but that has %.12s now", base, hash, found);
    }
    ok = ok && open_model(base, &o, out, err);
    free(base);
    return ok;
}

bool policy_open(const char *path, const PolicyOptions *options, Policy **out, Err *err) {
    *out = NULL;
    bool ok = folder_is_adapter(path) ? open_on_base(path, options, out, err) : open_model(path, options, out, err);
    if (ok) return true;
    policy_close(*out);
    *out = NULL;
    return false;
}

static bool outline_adapter(Policy *p, const PolicyOptions *o, Adapter **out, Err *err) {
    LoraConfig c;
    bool ok = true;
    *out = NULL;
    if (o->adapter) {
        char *path = path_join(o->adapter, "adapter_config.json");
        ok = lora_config_read(path, p->trainable, &c, err);
        free(path);
    } else {
        c = lora_config_make(o->lora.rank, 1, false, o->lora.targets);
    }
    ok = ok && (c.rank == 0 || adapter_make(p, &c, p->trainable, "lora", out, err));
    lora_config_free(&c);
    return ok;
}
bool policy_outline(const ModelConfig *config, const Weights *w, const PolicyOptions *o, Policy **out, Err *err) {
    Adapter *a = NULL;
    TRY(policy_start(config, o, out, err));
    Policy *p = *out;
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        TRY(w && kept_can(p, q, w) ? kept_alloc(p, q, w, err) : parameter_alloc(p, q, err));
    }
    TRY(kept_scratch(p, err));
    TRY(outline_adapter(p, o, &a, err));
    if (a) adapter_add(p, a);
    p->active = a;
    p->trained = p->trainable ? a : NULL;
    return true;
}

bool policy_read_config(const char *path, ModelConfig *out, Err *err) {
    char *base = NULL, hash[65];
    Weights *w = NULL;
    if (folder_is_adapter(path)) TRY(adapter_base(path, &base, hash, err));
    bool ok = weights_open(base ? base : path, false, &w, err);
    if (ok) *out = *weights_config(w);
    if (w) weights_close(w);
    free(base);
    return ok;
}

bool policy_files_hash(const char *path, char out[65], Err *err) {
    char *base = NULL, said[65], adapter[65] = "";
    Weights *w = NULL;
    bool ok = true;
    if (folder_is_adapter(path)) {
        char *file = path_join(path, "adapter_model.safetensors");
        ok = adapter_base(path, &base, said, err) && sha256_file(file, adapter, err);
        free(file);
    }
    ok = ok && weights_open(base ? base : path, false, &w, err) && weights_hash(w, out, err);
    if (w) weights_close(w);
    if (ok && adapter[0]) {
        char both[129];
        snprintf(both, sizeof both, "%.64s%.64s", out, adapter);
        sha256_hex(both, 128, out);
    }
    free(base);
    return ok;
}

bool policy_create(const ModelConfig *config, Tokenizer *tokenizer, uint64_t seed, const PolicyOptions *options, Policy **out,
                   Err *err) {
    Policy *p = NULL;
    *out = NULL;
    if (!policy_start(config, options, &p, err)) {
        policy_close(p);
        tokenizer_close(tokenizer);
        return false;
    }
    p->tokenizer = tokenizer;
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        Random r = random_start(seed, STREAM_WEIGHTS, (uint64_t)i);
        float *values = xmalloc((size_t)(q->N * q->K) * 4);
        bool norm = family_is_norm(q->role);
        for (int64_t j = 0; j < q->N * q->K; j++)
            values[j] = q->matrix ? (float)(config->initializer_range * random_normal(&r)) : norm && !config->norm_offset ? 1.0f : 0.0f;
        bool ok = parameter_alloc(p, q, err) && parameter_set(p, q, values, err);
        free(values);
        if (!ok) {
            policy_close(p);
            return false;
        }
    }
    *out = p;
    return true;
}

bool policy_freeze_copy(Policy *from, Policy **out, Err *err) {
    if (from->trained) {
        TRY(policy_view(from, NULL, out, err));
        bool copied = adapter_copy(from, from->trained, &(*out)->active, err);
        if ((*out)->active) adapter_add(*out, (*out)->active);
        if (!copied) policy_close(*out), *out = NULL;
        return copied;
    }
    PolicyOptions o = {.precision = policy_precision(from), .beside = from};
    Policy *p = NULL;
    *out = NULL;
    if (!policy_start(&from->config, &o, &p, err)) {
        policy_close(p);
        return false;
    }
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        const Parameter *source = &from->parameters[i];
        if (!parameter_alloc(p, q, err)) {
            policy_close(p);
            return false;
        }
        if (q->matrix)
            p->device->copy(p->device, q->packed, source->packed, act_bytes(p, packed_size(q)));
        else
            p->device->copy(p->device, q->values, source->values, (size_t)(q->N * q->K) * 4);
        if (q->transposed) p->device->copy(p->device, q->transposed, source->transposed, act_bytes(p, transposed_size(q)));
    }
    *out = p;
    return true;
}

void policy_close(Policy *p) {
    if (!p) return;
    const Device *d = p->device;
    if (d) {
        d->forget(d);
        for (int i = 0; i < p->adapter_count; i++) adapter_free(p, p->adapters[i]);
        for (int i = 0; i < p->parameter_count; i++) parameter_free(p, &p->parameters[i]);
        for (int i = 0; i < COUNT(p->together); i++) d->release(d, p->together[i].memory);
        d->release(d, p->discard);
        experts_free(p);
        latent_free(p);
        d->release(d, p->block_scratch);
        d->release(d, p->turn_scratch);
        workspace_free(p);
        training_free(p);
        lookups_free(p);
        retain_free(p);
        d->release(d, p->cos_sin[0]);
        d->release(d, p->cos_sin[1]);
        d->release(d, p->head_scratch);
        d->release(d, p->norm_partial);
        device_close(p->device);
    }
    paging_free(&p->paging);
    free(p->norm_host);
    free(p->adapters);
    free(p->base_path);
    policy_layout_free(p);
    if (p->tokenizer) tokenizer_close(p->tokenizer);
    weights_close(p->file);
    free(p);
}

// ---- facts -----------------------------------------------------------------------------------------------
const ModelConfig *policy_config(const Policy *p) { return &p->config; }
const Tokenizer *policy_tokenizer(const Policy *p) { return p->tokenizer; }
Precision policy_precision(const Policy *p) { return p->dtype == DTYPE_BF16 ? PRECISION_BF16 : PRECISION_FP32; }
int policy_threads(const Policy *p) { return p->device->threads; }
bool policy_on_host(const Policy *p) { return p->device->is_host; }
const char *policy_variant(const Policy *p) { return p->device->variant; }
bool policy_machine_variant(const char *device_name, char out[64], Err *err) {
    Device *device;
    TRY(device_open(device_name, 1, &device, err));
    snprintf(out, 64, "%s", device->variant);
    device_close(device);
    return true;
}
bool policy_energy(const Policy *p, double *joules, char held[128]) { return p->device->meter(p->device, joules, held); }
bool policy_failed(const Policy *p) { return p && p->device && !p->device->finish(p->device, NULL); }
double policy_flops(const Policy *p) { return p->flops; }
void policy_forget_flops(Policy *p) { p->flops = 0; }

static size_t parameter_bytes(const Policy *p, const Parameter *q) {
    size_t bytes = 0, floats = (size_t)(q->N * q->K) * 4;
    bytes += q->kept ? q->kept_bytes : q->packed ? act_bytes(p, packed_size(q)) : 0;
    bytes += q->transposed ? act_bytes(p, transposed_size(q)) : 0;
    bytes += q->int8 ? int8_bytes(q->N, q->K) : 0;
    const void *fp32[] = {q->values, q->gradient == p->discard ? NULL : q->gradient, q->gradient2, q->m, q->v};
    for (int j = 0; j < COUNT(fp32); j++) bytes += fp32[j] ? floats : 0;
    return bytes;
}
size_t policy_peak_device_bytes(const Policy *p) { return p->device->peak_bytes(p->device); }
size_t policy_bytes(const Policy *p) {
    size_t bytes = (size_t)(p->lookups.capacity * p->config.width) * 4;
    for (int a = -1; a < p->adapter_count; a++) {
        const Parameter *list = a < 0 ? p->parameters : p->adapters[a]->parameters;
        for (int i = 0, count = a < 0 ? p->parameter_count : p->adapters[a]->count; i < count; i++) bytes += parameter_bytes(p, &list[i]);
    }
    return bytes;
}

bool policy_hash(const Policy *p, char out[65], Err *err) {
    Buf all = {0};
    bool ok = true;
    int adapted = p->active ? p->active->count : 0;
    for (int i = 0; ok && i < p->parameter_count + adapted; i++) {
        const Parameter *q = i < p->parameter_count ? &p->parameters[i] : &p->active->parameters[i - p->parameter_count];
        size_t bytes = (size_t)(q->N * q->K) * 4;
        char one[65];
        float *values = q->kept ? NULL : xmalloc(bytes);
        ok = q->kept ? kept_hash(p, q, one, err) : parameter_get(p, q, values, err);
        if (ok && !q->kept) sha256_hex(values, bytes, one);
        if (ok) buf_puts(&all, one);
        free(values);
    }
    if (ok) sha256_hex(all.data, all.size, out);
    buf_free(&all);
    return ok;
}

// ---- saving ----------------------------------------------------------------------------------------------
// A copy of each parameter on the host while the file is written; where memory is the host's, the masters themselves.
static bool save_weights(const Policy *p, const char *folder, const char *dtype, Err *err) {
    TensorOut *tensors = xcalloc((size_t)p->part_count, sizeof *tensors);
    float **owned = xcalloc((size_t)p->parameter_count, sizeof *owned);
    int count = 0;
    bool ok = true;
    for (int i = 0; ok && i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        float *values = q->values;
        if (!values || !p->device->is_host) {
            values = owned[i] = xmalloc((size_t)(q->N * q->K) * 4);
            ok = parameter_get(p, q, values, err);
        }
        for (int j = 0; j < q->part_count; j++)
            tensors[count++] = (TensorOut){.name = q->parts[j].name, .dtype = q->role == ROLE_CORRECTION ? "F32" : dtype, .dims = q->matrix ? 2 : 1,
                                           .shape = {q->parts[j].rows, q->K}, .values = values + q->parts[j].row * q->K};
    }
    char *path = path_join(folder, "model.safetensors");
    ok = ok && safetensors_write(path, tensors, count, NULL, err);
    for (int i = 0; i < p->parameter_count; i++) free(owned[i]);
    free(path), free(owned), free(tensors);
    return ok;
}

static bool save_json(const char *folder, const char *name, json_t *value, Err *err) {
    char *path = path_join(folder, name), *text = json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    bool ok = file_write_atomic(path, text, strlen(text), err);
    free(text), free(path);
    json_decref(value);
    return ok;
}

bool policy_save(const Policy *p, const char *folder, const char *dtype, Err *err) {
    if (p->trained) return adapter_write(p, p->trained, folder, err);
    TRY(folder_make(folder, err));
    TRY(save_json(folder, "config.json", config_to_json(&p->config, strcmp(dtype, "BF16") == 0 ? "bfloat16" : "float32"), err));
    TRY(save_json(folder, "generation_config.json", config_generation_json(&p->config), err));
    if (p->tokenizer) TRY(tokenizer_save(p->tokenizer, folder, err));
    return save_weights(p, folder, dtype, err);
}

// Host memory for a device's array, or the array itself where it is the host's.
static float *moment_view(const Policy *p, float *m, size_t bytes) {
    if (p->device->is_host) return m;
    float *host = xmalloc(bytes);
    p->device->download(p->device, host, m, bytes);
    return host;
}

bool policy_save_optimizer(const Policy *p, const char *path, Err *err) {
    int parameters = 0, count = 0;
    while (trained_parameter(p, parameters)) parameters++;
    TensorOut *tensors = xcalloc((size_t)parameters * 2 + 1, sizeof *tensors);
    char (*names)[136] = xcalloc((size_t)parameters * 2, sizeof *names);
    for (int i = 0; i < parameters; i++)
        for (int moment = 0; moment < 2; moment++) {
            const Parameter *q = trained_parameter(p, i);
            snprintf(names[count], sizeof names[count], "%s.%s", moment ? "v" : "m", q->parts[0].name);
            tensors[count] = (TensorOut){.name = names[count], .dtype = "F32", .dims = 2, .shape = {q->N, q->K},
                                         .values = moment_view(p, moment ? q->v : q->m, (size_t)(q->N * q->K) * 4)};
            count++;
        }
    int moments = count;
    tensors[count++] = (TensorOut){.name = "steps", .dtype = "I64", .dims = 1, .shape = {1}, .raw = &p->optimizer_steps};
    bool ok = p->device->finish(p->device, err) && safetensors_write(path, tensors, count, NULL, err);
    for (int i = 0; i < moments && !p->device->is_host; i++) free((void *)(uintptr_t)tensors[i].values);
    free(names), free(tensors);
    return ok;
}

static bool load_moment(const Policy *p, const Safetensors *s, const char *path, const Parameter *q, const char *moment,
                        float *out, Err *err) {
    char name[136];
    TensorInfo info;
    snprintf(name, sizeof name, "%s.%s", moment, q->parts[0].name);
    if (!safetensors_find(s, name, &info) || info.dims != 2 || info.shape[0] != q->N || info.shape[1] != q->K)
        return fail(err, ERR_DATA, path, "%s is missing or isn't [%lld, %lld]", name, (long long)q->N, (long long)q->K);
    if (p->device->is_host) return safetensors_read(s, name, out, err);
    size_t bytes = (size_t)(q->N * q->K) * sizeof *out;
    float *host = xmalloc(bytes);
    bool ok = safetensors_read(s, name, host, err);
    if (ok) p->device->upload(p->device, out, host, bytes);
    free(host);
    return ok;
}

bool policy_load_optimizer(Policy *p, const char *path, Err *err) {
    Safetensors *s;
    TRY(safetensors_open(path, &s, err));
    bool ok = true;
    const Parameter *q;
    for (int i = 0; ok && (q = trained_parameter(p, i)); i++)
        ok = load_moment(p, s, path, q, "m", q->m, err) && load_moment(p, s, path, q, "v", q->v, err);
    TensorInfo info;
    if (ok && (!safetensors_find(s, "steps", &info) || strcmp(info.type, "I64") != 0 || info.count != 1))
        ok = fail(err, ERR_DATA, path, "steps is missing, expected one I64");
    if (ok) memcpy(&p->optimizer_steps, safetensors_bytes(s, "steps"), sizeof p->optimizer_steps);
    safetensors_close(s);
    return ok;
}
