// The memory of passes: what any pass needs (Workspace), and what a training pass keeps (Training, Kept). Sizes only grow;
// nothing here runs while operations are queued.
#include "model.h"
#include <stdlib.h>
#include <string.h>

bool hold(const Device *d, size_t bytes, const char *what, void **out, Err *err) {
    TRY(d->allocate(d, bytes, what, out, err));
    if (d->is_host) d->zero(d, *out, bytes);
    return true;
}

bool workspace_reserve(Policy *p, int64_t rows, Err *err) {
    Workspace *w = &p->work;
    const ModelConfig *c = &p->config;
    TRY(adapter_reserve(p, rows > w->rows ? rows : w->rows, err));
    if (rows <= w->rows) return true;
    w->rows = 0;
    RESERVE(w->h, rows * c->width * 4);
    RESERVE(w->x, act_bytes(p, rows * c->width));
    RESERVE(w->qkv, rows * qkv_width(c) * 4);
    RESERVE(w->q, act_bytes(p, rows * q_width(c)));
    RESERVE(w->attention, act_bytes(p, rows * attention_width(c)));
    RESERVE(w->gate_up, act_bytes(p, rows * 2 * c->feed_forward));
    RESERVE(w->ff, act_bytes(p, rows * c->feed_forward));
    RESERVE(w->rstd, rows * 4);
    if (c->norm_placement != NORM_BEFORE) RESERVE(w->branch, rows * c->width * 4);
    RESERVE(w->final, act_bytes(p, rows * c->width));
    if (p->has_int8) RESERVE(w->int8_x, (size_t)rows * int8_longest_row(p));
    TRY(experts_reserve(p, rows, err) && latent_reserve(p, rows, err));
    w->rows = rows;
    return true;
}

static void release_all(const Policy *p, void *const *memory, int count) {
    for (int i = 0; i < count; i++) p->device->release(p->device, memory[i]);
}

void workspace_free(Policy *p) {
    Workspace *w = &p->work;
    void *const memory[] = {w->h, w->x, w->qkv, w->q, w->attention, w->gate_up, w->ff, w->rstd, w->final, w->branch,
                            w->lora_u, w->lora_du, w->lora_wide, w->int8_x};
    release_all(p, memory, COUNT(memory));
    *w = (Workspace){0};
}

void kept_fields(const Policy *p, int layer, Kept *k, KeptField out[KEPT_FIELDS]) {
    const ModelConfig *c = &p->config;
    size_t wide = (size_t)c->width * 4;
    bool normed = c->qk_norm != QK_NORM_NONE, whole = c->qk_norm == QK_NORM_WHOLE, outputs = c->norm_placement != NORM_BEFORE;
    const KeptField fields[KEPT_FIELDS] = {
        {&k->h_in, wide, false},
        {&k->h_mid, wide, true},
        {&k->rstd1, 4, false},
        {&k->rstd2, 4, false},
        {&k->q, act_bytes(p, q_width(c)), false},
        {&k->attention, act_bytes(p, attention_width(c)), false},
        {&k->gate_up, config_has_experts(c, layer) ? 0 : act_bytes(p, 2 * (int64_t)c->feed_forward), false},
        {&k->lse, (size_t)c->heads * 4, false},
        // norms of q and k
        {&k->qkv, normed ? (size_t)qkv_width(c) * 4 : 0, false},
        {&k->q_rstd, normed ? (size_t)(whole ? 1 : c->heads) * 4 : 0, false},
        {&k->k_rstd, normed ? (size_t)(whole ? 1 : c->kv_heads) * 4 : 0, false},
        // norms of outputs
        {&k->attention_out, outputs ? wide : 0, true},
        {&k->ffn_out, outputs ? wide : 0, false},
        {&k->post_rstd1, outputs ? 4 : 0, true},
        {&k->post_rstd2, outputs ? 4 : 0, false},
    };
    memcpy(out, fields, sizeof fields);
}
static bool fields_reserve(const Policy *p, int layer, Kept *k, int64_t rows, bool again, Err *err) {
    KeptField fields[KEPT_FIELDS];
    kept_fields(p, layer, k, fields);
    for (int i = 0; i < KEPT_FIELDS; i++) {
        void *memory, *fresh = NULL;
        if (!fields[i].bytes || fields[i].again != again) continue;
        memcpy(&memory, fields[i].at, sizeof memory);
        p->device->release(p->device, memory);
        memcpy(fields[i].at, &fresh, sizeof fresh); // nothing is there should the next line fail
        TRY(hold(p->device, (size_t)rows * fields[i].bytes + 2, "activations", &fresh, err)); // two bytes more, as RESERVE takes
        memcpy(fields[i].at, &fresh, sizeof fresh);
    }
    return true;
}
static void fields_release(const Policy *p, Kept *k) {
    KeptField fields[KEPT_FIELDS];
    kept_fields(p, 0, k, fields);
    for (int i = 0; i < KEPT_FIELDS; i++) {
        void *memory;
        memcpy(&memory, fields[i].at, sizeof memory);
        p->device->release(p->device, memory);
    }
}
bool activations_reserve(Policy *p, int64_t rows, bool again, Err *err) {
    Training *t = &p->training;
    int layers = p->config.layers;
    if (!t->kept) t->kept = xcalloc((size_t)layers, sizeof(Kept));
    if (again && rows > t->again_rows) {
        t->again_rows = 0;
        for (int l = 0; l < layers; l++) TRY(fields_reserve(p, l, &t->kept[l], rows, true, err));
        t->again_rows = rows;
    }
    if (rows <= t->kept_rows) return true;
    t->kept_rows = 0;
    for (int l = 0; l < layers; l++) {
        Kept *k = &t->kept[l];
        TRY(fields_reserve(p, l, k, rows, false, err) && experts_keep(p, &k->experts, l, rows, err) && latent_keep(p, &k->latent, rows, err));
    }
    t->kept_rows = rows;
    return true;
}
bool activations_reserve_one(Policy *p, int64_t rows, Err *err) {
    Training *t = &p->training;
    if (rows <= t->one_rows) return true;
    t->one_rows = 0;
    TRY(fields_reserve(p, 0, &t->one, rows, false, err) && fields_reserve(p, 0, &t->one, rows, true, err));
    t->one_rows = rows;
    return true;
}

bool training_reserve(Policy *p, const Packed *b, int64_t pages, Activations activations, Err *err) {
    Training *t = &p->training;
    const ModelConfig *c = &p->config;
    bool keep = activations != ACTIVATIONS_DROPPED, restored = activations == ACTIVATIONS_RESTORED;
    int64_t rows = b->token_count, targets = b->target_count, D = c->head_width, layer_pages = pages * (restored ? 1 : c->layers);
    int64_t wide = c->feed_forward > qkv_width(c) ? c->feed_forward : qkv_width(c);
    if (wide < c->width) wide = c->width;
    if (wide < attention_width(c)) wide = attention_width(c);
    if (layer_pages > t->layer_pages) {
        t->layer_pages = 0;
        RESERVE(t->page_memory, (size_t)layer_pages * page_bytes(p));
        t->layer_pages = layer_pages;
    }
    if (pages > t->pages) {
        t->pages = 0;
        if (p->trainable) RESERVE(t->dpages, pages * cache_page_elements(c) * 4);
        t->pages = pages;
    }
    if (keep) TRY(restored ? activations_reserve_one(p, rows, err) : activations_reserve(p, rows, true, err));
    if (keep && rows > t->rows) {
        t->rows = 0;
        RESERVE(t->h_last, rows * c->width * 4);
        RESERVE(t->rstd_last, rows * 4);
        RESERVE(t->dh, rows * c->width * 4);
        RESERVE(t->dwide, rows * wide * 4);
        RESERVE(t->dq, rows * q_width(c) * 4);
        RESERVE(t->delta, rows * c->heads * 4);
        if (c->qk_norm != QK_NORM_NONE) RESERVE(t->dqk, rows * (c->heads + c->kv_heads) * D * 4);
        RESERVE(t->dact, act_bytes(p, rows * wide));
        TRY(latent_train(p, rows, err));
        t->rows = rows;
    }
    if (targets > t->targets) {
        t->targets = 0;
        RESERVE(t->head_x, act_bytes(p, targets * c->width));
        t->inv_temperature_host = xrealloc(t->inv_temperature_host, (size_t)targets * sizeof(float));
        RESERVE(t->logprob, targets * 4);
        RESERVE(t->entropy, targets * 4);
        RESERVE(t->max, targets * 4);
        RESERVE(t->log_sum, targets * 4);
        RESERVE(t->divergence, targets * 4);
        RESERVE(t->centre, targets * 4);
        RESERVE(t->stats, targets * (vocab_padded(c->vocabulary) / VOCAB_BLOCK) * (int64_t)sizeof(VocabStats));
        t->targets = targets;
    }
    if (keep) {
        if (lookups_apart(p)) TRY(lookups_reserve(p, rows, err));
        TRY(experts_train(p, rows, b->group_count, err));
        int64_t chunk = targets < head_chunk(p) ? targets : head_chunk(p);
        if (chunk > t->chunk_rows) {
            t->chunk_rows = 0;
            RESERVE(t->dlogits, act_bytes(p, chunk * dlogits_stride(p)));
            RESERVE(t->head_dx, chunk * c->width * 4);
            t->chunk_rows = chunk;
        }
        size_t need = p->device->is_host ? matmul_grad_scratch(p->device->threads) : 0; // a device has its own
        if (need && !t->scratch) RESERVE(t->scratch, need);
    }
    return true;
}

void training_free(Policy *p) {
    Training *t = &p->training;
    for (int l = 0; t->kept && l < p->config.layers; l++)
        fields_release(p, &t->kept[l]);
    fields_release(p, &t->one);
    void *const memory[] = {t->h_last, t->rstd_last, t->page_memory, t->dh, t->dwide, t->dq, t->dqk, t->delta, t->dact, t->dpages,
                            t->logits, t->head_x, t->head_dx, t->dlogits, t->logprob, t->entropy, t->max, t->log_sum, t->divergence, t->centre, t->stats, t->scratch};
    release_all(p, memory, COUNT(memory));
    stage_free(p, &t->stage), stage_free(p, &t->coefficients);
    free(t->kept), free(t->inv_temperature_host), free(t->angle), free(t->target_segment), free(t->chunks), free(t->chunk_segments);
    *t = (Training){0};
}
