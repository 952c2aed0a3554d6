// The decoder of Llama and Qwen2 (Touvron et al. 2023; Qwen 2024), forward and backward, over rows of tokens that a
// Pass describes. The residual stream is fp32; what a product reads is stored in the policy's precision. The backward
// pass recomputes norms and SwiGLU, which cost little, and keeps the rest.
//
// Gradients are added to. Tokens ascend in every sum over tokens, whole groups at a time, so that neither threads nor a
// split into microbatches change a bit.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- buffers ---------------------------------------------------------------------------------------------
// Two bytes more than asked for: products of bf16 read pairs, beyond the last row by one where its width is odd.
#define RESERVE(pointer, bytes)                                                                              \
    do {                                                                                                     \
        void *fresh_;                                                                                        \
        mem_free(pointer);                                                                                   \
        (pointer) = NULL;                                                                                    \
        TRY(mem_alloc((size_t)(bytes) + 2, #pointer, &fresh_, err));                                             \
        (pointer) = fresh_;                                                                                  \
    } while (0)

static int64_t qkv_width(const ModelConfig *c) { return (int64_t)(c->heads + 2 * c->kv_heads) * c->head_width; }
static int64_t q_width(const ModelConfig *c) { return (int64_t)c->heads * c->head_width; }

bool workspace_reserve(Policy *p, int64_t rows, Err *err) {
    Workspace *w = &p->work;
    const ModelConfig *c = &p->config;
    if (rows <= w->rows) return true;
    w->rows = 0;
    RESERVE(w->h, rows * c->width * 4);
    RESERVE(w->x, act_bytes(p, rows * c->width));
    RESERVE(w->qkv, rows * qkv_width(c) * 4);
    RESERVE(w->q, act_bytes(p, rows * q_width(c)));
    RESERVE(w->attention, act_bytes(p, rows * q_width(c)));
    RESERVE(w->gate_up, act_bytes(p, rows * 2 * c->feed_forward));
    RESERVE(w->ff, act_bytes(p, rows * c->feed_forward));
    RESERVE(w->rstd, rows * 4);
    RESERVE(w->final, act_bytes(p, rows * c->width));
    w->rows = rows;
    return true;
}

void workspace_free(Policy *p) {
    Workspace *w = &p->work;
    mem_free(w->h), mem_free(w->x), mem_free(w->qkv), mem_free(w->q), mem_free(w->attention);
    mem_free(w->gate_up), mem_free(w->ff), mem_free(w->rstd), mem_free(w->final);
    *w = (Workspace){0};
}

static bool kept_reserve(Policy *p, int64_t rows, Err *err) {
    Training *t = &p->training;
    const ModelConfig *c = &p->config;
    if (!t->kept) t->kept = xcalloc((size_t)c->layers, sizeof(Kept));
    for (int l = 0; l < c->layers; l++) {
        Kept *k = &t->kept[l];
        RESERVE(k->h_in, rows * c->width * 4);
        RESERVE(k->h_mid, rows * c->width * 4);
        RESERVE(k->rstd1, rows * 4);
        RESERVE(k->rstd2, rows * 4);
        RESERVE(k->q, act_bytes(p, rows * q_width(c)));
        RESERVE(k->attention, act_bytes(p, rows * q_width(c)));
        RESERVE(k->gate_up, act_bytes(p, rows * 2 * c->feed_forward));
        RESERVE(k->lse, rows * c->heads * 4);
    }
    return true;
}

static size_t grad_scratch(const Policy *p, int64_t rows, int64_t targets, int groups) {
    const ModelConfig *c = &p->config;
    int64_t wide = 2 * c->feed_forward > qkv_width(c) ? 2 * (int64_t)c->feed_forward : qkv_width(c);
    size_t layers = matmul_grad_scratch(rows, wide, c->feed_forward > c->width ? c->feed_forward : c->width, groups, p->dtype);
    int64_t chunk = targets < HEAD_CHUNK ? targets : HEAD_CHUNK;
    size_t head = matmul_grad_scratch(chunk, c->vocabulary, c->width, groups, p->dtype);
    return layers > head ? layers : head;
}

static bool training_reserve(Policy *p, const Packed *b, int64_t pages, bool keep, Err *err) {
    Training *t = &p->training;
    const ModelConfig *c = &p->config;
    int64_t rows = b->token_count, targets = b->target_count, D = c->head_width;
    int64_t wide = 2 * c->feed_forward > qkv_width(c) ? 2 * (int64_t)c->feed_forward : qkv_width(c);
    if (wide < c->width) wide = c->width;
    if (pages > t->pages) {
        t->pages = 0;
        RESERVE(t->page_memory, (size_t)pages * page_bytes(p) * (size_t)c->layers);
        if (p->trainable) RESERVE(t->dpages, pages * page_elements(c->kv_heads, D) * 4);
        t->pages = pages;
    }
    if (keep && rows > t->rows) {
        t->rows = 0;
        TRY(kept_reserve(p, rows, err));
        RESERVE(t->h_last, rows * c->width * 4);
        RESERVE(t->rstd_last, rows * 4);
        RESERVE(t->dh, rows * c->width * 4);
        RESERVE(t->dwide, rows * wide * 4);
        RESERVE(t->dq, rows * q_width(c) * 4);
        RESERVE(t->delta, rows * c->heads * 4);
        RESERVE(t->dact, act_bytes(p, rows * wide));
        t->rows = rows;
    }
    if (targets > t->targets) {
        t->targets = 0;
        RESERVE(t->head_x, act_bytes(p, targets * c->width));
        RESERVE(t->inv_temperature, targets * 4);
        RESERVE(t->logprob, targets * 4);
        RESERVE(t->entropy, targets * 4);
        RESERVE(t->max, targets * 4);
        RESERVE(t->log_sum, targets * 4);
        RESERVE(t->stats, targets * (vocab_padded(c->vocabulary) / VOCAB_BLOCK) * (int64_t)sizeof(VocabStats));
        t->targets = targets;
    }
    if (keep) {
        if (!t->dlogits) {
            RESERVE(t->dlogits, act_bytes(p, HEAD_CHUNK * vocab_padded(c->vocabulary)));
            RESERVE(t->head_dx, HEAD_CHUNK * (int64_t)c->width * 4);
        }
        size_t need = grad_scratch(p, t->rows, t->targets, b->group_count);
        if (need > t->scratch_bytes) {
            t->scratch_bytes = 0;
            RESERVE(t->scratch, need);
            t->scratch_bytes = need;
        }
    }
    return true;
}

void training_free(Policy *p) {
    Training *t = &p->training;
    for (int l = 0; t->kept && l < p->config.layers; l++) {
        Kept *k = &t->kept[l];
        mem_free(k->h_in), mem_free(k->h_mid), mem_free(k->rstd1), mem_free(k->rstd2);
        mem_free(k->q), mem_free(k->attention), mem_free(k->gate_up), mem_free(k->lse);
    }
    free(t->kept);
    mem_free(t->h_last), mem_free(t->rstd_last), mem_free(t->page_memory), mem_free(t->dh), mem_free(t->dwide);
    mem_free(t->dq), mem_free(t->delta), mem_free(t->dact), mem_free(t->dpages), mem_free(t->head_x);
    mem_free(t->head_dx), mem_free(t->dlogits), mem_free(t->inv_temperature), mem_free(t->logprob);
    mem_free(t->entropy), mem_free(t->max), mem_free(t->log_sum), mem_free(t->stats), mem_free(t->scratch);
    free(t->segment), free(t->target_segment);
    *t = (Training){0};
}

bool rope_reserve(Policy *p, int64_t positions, Err *err) {
    int64_t D = p->config.head_width;
    if (positions <= p->cos_sin_positions) return true;
    positions = (positions + 511) / 512 * 512;
    RESERVE(p->cos_sin, positions * D * 4);
    for (int64_t i = 0; i < D / 2; i++) {
        double frequency = 1.0 / exact_pow(p->config.rope_theta, 2.0 * (double)i / (double)D);
        for (int64_t position = 0; position < positions; position++) {
            p->cos_sin[position * D + i] = (float)exact_cos((double)position * frequency);
            p->cos_sin[position * D + D / 2 + i] = (float)exact_sin((double)position * frequency);
        }
    }
    p->cos_sin_positions = positions;
    return true;
}

// ---- forward ---------------------------------------------------------------------------------------------
static const float *bias_of(const Parameter *bias) { return bias ? bias->values : NULL; }

static void multiply(const Policy *p, int64_t T, const void *x, const Parameter *w, const Parameter *bias, Store store, void *y) {
    p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x, .ldx = w->K,
                                               .w = w->packed, .bias = bias_of(bias), .store = store, .y = y, .ldy = w->N});
}
static void normalise(const Policy *p, int64_t T, const float *x, const Parameter *weight, void *y, float *rstd) {
    p->device->rmsnorm(p->device, &(RmsnormArgs){.T = T, .C = p->config.width, .x = x, .weight = weight->values,
                                                 .eps = (float)p->config.norm_eps, .dtype = p->dtype, .y = y, .rstd = rstd});
}
static AttentionArgs attention_args(const Policy *p, const Pass *pass, int layer, const void *q, void *y, float *lse) {
    const ModelConfig *c = &p->config;
    return (AttentionArgs){.T = pass->T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width, .dtype = p->dtype,
                           .scale = (float)(1.0 / sqrt((double)c->head_width)), .q = q, .position = pass->position,
                           .table_start = pass->table_start, .table = pass->table,
                           .pages = pass->pages + (size_t)layer * pass->layer_bytes, .y = y, .lse = lse};
}

static void attention_block(Policy *p, const Pass *pass, int layer, const Kept *kept) {
    const ModelConfig *c = &p->config;
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    const Device *d = p->device;
    void *q = kept ? kept->q : w->q, *y = kept ? kept->attention : w->attention;
    normalise(p, pass->T, w->h, l->attention_norm, w->x, kept ? kept->rstd1 : w->rstd);
    multiply(p, pass->T, w->x, l->qkv, l->qkv_bias, STORE_F32, w->qkv);
    d->rope(d, &(RopeArgs){.T = pass->T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width, .dtype = p->dtype,
                           .qkv = w->qkv, .position = pass->position, .cos_sin = p->cos_sin, .q = q,
                           .pages = pass->pages + (size_t)layer * pass->layer_bytes, .slot_start = pass->slot_start,
                           .slot = pass->slot});
    AttentionArgs attention = attention_args(p, pass, layer, q, y, kept ? kept->lse : NULL);
    d->attention(d, &attention);
    multiply(p, pass->T, y, l->output, l->output_bias, ADD_F32, w->h);
}

static void feed_forward_block(Policy *p, const Pass *pass, int layer, const Kept *kept) {
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    const Device *d = p->device;
    void *gate_up = kept ? kept->gate_up : w->gate_up;
    normalise(p, pass->T, w->h, l->ffn_norm, w->x, kept ? kept->rstd2 : w->rstd);
    multiply(p, pass->T, w->x, l->gate_up, l->gate_up_bias, STORE_ACT, gate_up);
    d->swiglu(d, &(SwigluArgs){.T = pass->T, .F = p->config.feed_forward, .dtype = p->dtype, .gate_up = gate_up, .y = w->ff});
    multiply(p, pass->T, w->ff, l->down, l->down_bias, ADD_F32, w->h);
}

bool transformer_forward(Policy *p, const Pass *pass, Kept *kept, Err *err) {
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    TRY(workspace_reserve(p, pass->T, err));
    Workspace *w = &p->work;
    size_t row_bytes = (size_t)pass->T * (size_t)c->width * 4;
    double context = 0;
    int64_t positions = 0;
    for (int64_t t = 0; t < pass->T; t++) {
        context += pass->position[t] + 1;
        if (pass->position[t] >= positions) positions = pass->position[t] + 1;
    }
    TRY(rope_reserve(p, positions, err));
    d->embed(d, &(EmbedArgs){.T = pass->T, .C = c->width, .tokens = pass->tokens, .dtype = p->dtype,
                             .table = p->embedding->packed, .y = w->h});
    for (int layer = 0; layer < c->layers; layer++) {
        Kept *k = kept ? &kept[layer] : NULL;
        if (k) memcpy(k->h_in, w->h, row_bytes);
        attention_block(p, pass, layer, k);
        if (k) memcpy(k->h_mid, w->h, row_bytes);
        feed_forward_block(p, pass, layer, k);
    }
    if (kept) memcpy(p->training.h_last, w->h, row_bytes);
    normalise(p, pass->T, w->h, p->final_norm, w->final, kept ? p->training.rstd_last : w->rstd);
    p->flops += (double)pass->T * config_flops(c, context / (double)pass->T, false);
    return true;
}

// ---- backward --------------------------------------------------------------------------------------------
typedef struct Backward {
    Policy *p;
    const Packed *batch;
    Pass pass;
    const int32_t *segment; // groups, in tokens
} Backward;

// dw += dy^T x, and y = dy w.
static void weight_gradient(const Backward *b, Parameter *w, Parameter *bias, const void *x, const void *dy) {
    const Policy *p = b->p;
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x,
                                                        .ldx = w->K, .dy = dy, .ldy = w->N, .dw = w->gradient,
                                                        .dbias = bias ? bias->gradient : NULL,
                                                        .segments = {b->batch->group_count, b->segment, b->segment},
                                                        .scratch = p->training.scratch});
}
static void input_gradient(const Backward *b, const Parameter *w, const void *dy, float *dx) {
    const Policy *p = b->p;
    p->device->matmul(p->device, &(MatmulArgs){.M = b->pass.T, .N = w->K, .K = w->N, .dtype = p->dtype, .x = dy, .ldx = w->N,
                                               .w = w->transposed, .store = STORE_F32, .y = dx, .ldy = w->K});
}
static void norm_gradient(const Backward *b, Parameter *weight, const float *x, const float *rstd, const float *dy) {
    const Policy *p = b->p;
    p->device->rmsnorm_grad(p->device, &(RmsnormGradArgs){.T = b->pass.T, .C = p->config.width, .x = x,
                                                          .weight = weight->values, .rstd = rstd, .dy = dy,
                                                          .dx = p->training.dh, .dweight = weight->gradient});
}
static void to_act(const Backward *b, const float *x, int64_t count, void *y) {
    const Policy *p = b->p;
    p->device->convert(p->device, &(ConvertArgs){.count = count, .dtype = p->dtype, .x = x, .y = y});
}

static void feed_forward_gradient(const Backward *b, int layer) {
    Policy *p = b->p;
    const Device *d = p->device;
    const Layer *l = &p->layers[layer];
    const Kept *k = &p->training.kept[layer];
    Training *t = &p->training;
    int64_t T = b->pass.T, F = p->config.feed_forward;
    d->swiglu(d, &(SwigluArgs){.T = T, .F = F, .dtype = p->dtype, .gate_up = k->gate_up, .y = p->work.ff});
    to_act(b, t->dh, T * p->config.width, t->dact);
    weight_gradient(b, l->down, l->down_bias, p->work.ff, t->dact);
    input_gradient(b, l->down, t->dact, t->dwide);
    d->swiglu_grad(d, &(SwigluGradArgs){.T = T, .F = F, .dtype = p->dtype, .gate_up = k->gate_up, .dy = t->dwide,
                                        .dgate_up = t->dact});
    normalise(p, T, k->h_mid, l->ffn_norm, p->work.x, NULL);
    weight_gradient(b, l->gate_up, l->gate_up_bias, p->work.x, t->dact);
    input_gradient(b, l->gate_up, t->dact, t->dwide);
    norm_gradient(b, l->ffn_norm, k->h_mid, k->rstd2, t->dwide);
}

static void attention_gradient(const Backward *b, int layer) {
    Policy *p = b->p;
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    const Layer *l = &p->layers[layer];
    const Kept *k = &p->training.kept[layer];
    Training *t = &p->training;
    const Paging *paging = &p->paging;
    int64_t T = b->pass.T;
    to_act(b, t->dh, T * c->width, t->dact);
    weight_gradient(b, l->output, l->output_bias, k->attention, t->dact);
    input_gradient(b, l->output, t->dact, t->dwide);
    d->attention_grad(d, &(AttentionGradArgs){.forward = attention_args(p, &b->pass, layer, k->q, k->attention, k->lse),
                                              .unit_count = b->batch->group_count, .unit = paging->unit,
                                              .unit_page = paging->unit_page, .dy = t->dwide, .dq = t->dq,
                                              .dpages = t->dpages, .delta = t->delta});
    d->rope_grad(d, &(RopeGradArgs){.T = T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width,
                                    .dtype = p->dtype, .position = b->pass.position, .cos_sin = p->cos_sin, .dq = t->dq,
                                    .dpages = t->dpages, .slot_start = b->pass.slot_start, .slot = b->pass.slot,
                                    .dqkv = t->dact});
    normalise(p, T, k->h_in, l->attention_norm, p->work.x, NULL);
    weight_gradient(b, l->qkv, l->qkv_bias, p->work.x, t->dact);
    input_gradient(b, l->qkv, t->dact, t->dwide);
    norm_gradient(b, l->attention_norm, k->h_in, k->rstd1, t->dwide);
}

static HeadArgs head_args(const Policy *p, const Packed *batch, int64_t from, int64_t count) {
    const Training *t = &p->training;
    int64_t blocks = vocab_padded(p->config.vocabulary) / VOCAB_BLOCK;
    return (HeadArgs){.M = count, .V = p->config.vocabulary, .C = p->config.width, .dtype = p->dtype,
                      .x = (const char *)t->head_x + act_bytes(p, from * p->config.width), .w = p->head->packed,
                      .inv_temperature = t->inv_temperature + from, .target = batch->target + from,
                      .kept_start = batch->kept_start ? batch->kept_start + from : NULL, .kept = batch->kept_ids,
                      .logprob = t->logprob + from, .entropy = t->entropy + from, .max = t->max + from,
                      .log_sum = t->log_sum + from, .stats = t->stats + from * blocks, .scratch = p->head_scratch};
}

// Rows [from, to) of one chunk: gradient of the head and of the hidden states they came from.
static void head_chunk_gradient(const Backward *b, int64_t from, int64_t to, const float *dlogprob, const float *dentropy,
                                float *dfinal) {
    Policy *p = b->p;
    const Device *d = p->device;
    const Packed *batch = b->batch;
    Training *t = &p->training;
    int64_t C = p->config.width, V = p->config.vocabulary, padded = vocab_padded(V);
    d->head_grad(d, &(HeadGradArgs){.forward = head_args(p, batch, from, to - from), .dlogprob = dlogprob + from,
                                    .dentropy = dentropy ? dentropy + from : NULL, .dlogits = t->dlogits});
    d->matmul(d, &(MatmulArgs){.M = to - from, .N = C, .K = V, .dtype = p->dtype, .x = t->dlogits, .ldx = padded,
                               .w = p->head->transposed, .store = STORE_F32, .y = t->head_dx, .ldy = C});
    d->scatter(d, &(ScatterArgs){.T = to - from, .C = C, .row = batch->row + from, .x = t->head_dx, .y = dfinal});
    // Segments of this chunk: groups, cut at the chunk's ends.
    int count = 0;
    t->segment[0] = 0;
    for (int g = 0; g < batch->group_count; g++) {
        int32_t end = t->target_segment[g + 1];
        if (end <= from || t->target_segment[g] >= to) continue;
        t->segment[++count] = (int32_t)((end < to ? end : to) - from);
    }
    float *dw = p->head == p->embedding ? p->head->gradient2 : p->head->gradient;
    d->matmul_grad(d, &(MatmulGradArgs){.T = to - from, .N = V, .K = C, .dtype = p->dtype,
                                        .x = (const char *)t->head_x + act_bytes(p, from * C), .ldx = C, .dy = t->dlogits,
                                        .ldy = padded, .dw = dw, .segments = {count, t->segment, t->segment},
                                        .scratch = t->scratch});
}

// Chunks end at most HEAD_CHUNK rows on, and never between the two members of a pair of their group.
static void head_gradient(const Backward *b, const float *dlogprob, const float *dentropy, float *dfinal) {
    const Training *t = &b->p->training;
    int64_t R = b->batch->target_count;
    for (int64_t from = 0, to; from < R; from = to) {
        to = from + HEAD_CHUNK < R ? from + HEAD_CHUNK : R;
        for (int g = 0; g < b->batch->group_count; g++)
            if (t->target_segment[g] < to && to < t->target_segment[g + 1]) to -= (to - t->target_segment[g]) % 2;
        head_chunk_gradient(b, from, to, dlogprob, dentropy, dfinal);
    }
}

// ---- the two passes --------------------------------------------------------------------------------------
// Targets of one group must stand together, in the order of groups.
static bool find_segments(Policy *p, const Packed *b, Err *err) {
    Training *t = &p->training;
    t->segment = xrealloc(t->segment, (size_t)(b->group_count + 1) * sizeof(int32_t));
    t->target_segment = xrealloc(t->target_segment, (size_t)(b->group_count + 1) * sizeof(int32_t));
    int32_t r = 0;
    for (int g = 0; g < b->group_count; g++) {
        t->target_segment[g] = r;
        int32_t end = g + 1 < b->group_count ? b->groups[g + 1].prompt_start : b->token_count;
        while (r < b->target_count && b->row[r] < end && b->row[r] >= b->groups[g].prompt_start) r++;
    }
    t->target_segment[b->group_count] = r;
    return r == b->target_count || fail(err, ERR_SOFTWARE, "targets", "target %d doesn't follow the order of groups", r);
}

bool policy_forward(Policy *p, const Packed *batch, bool keep, float *logprob, float *entropy, Err *err) {
    const Device *d = p->device;
    Training *t = &p->training;
    if (keep && !p->trainable) return fail(err, ERR_SOFTWARE, "policy", "activations are kept only by a trainable policy");
    TRY(packed_check(p, batch, err));
    paging_free(&p->paging);
    paging_build(batch, &p->paging);
    const Paging *g = &p->paging;
    TRY(training_reserve(p, batch, g->page_count, keep, err));
    TRY(find_segments(p, batch, err));
    Pass pass = {.T = batch->token_count, .tokens = batch->tokens, .position = g->position, .table_start = g->table_start,
                 .table = g->table, .slot_start = g->slot_start, .slot = g->slot, .pages = t->page_memory,
                 .layer_bytes = (size_t)t->pages * page_bytes(p)};
    TRY(transformer_forward(p, &pass, keep ? t->kept : NULL, err));
    int64_t R = batch->target_count;
    if (R == 0) return true;
    d->gather(d, &(GatherArgs){.T = R, .C = p->config.width, .dtype = p->dtype, .row = batch->row, .x = p->work.final, .y = t->head_x});
    for (int64_t r = 0; r < R; r++) t->inv_temperature[r] = (float)(1.0 / batch->temperature);
    HeadArgs head = head_args(p, batch, 0, R);
    d->head(d, &head);
    memcpy(logprob, t->logprob, (size_t)R * 4);
    if (entropy) memcpy(entropy, t->entropy, (size_t)R * 4);
    p->flops += 2.0 * (double)R * p->config.width * p->config.vocabulary;
    return true;
}

bool policy_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) {
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    Training *t = &p->training;
    const Paging *g = &p->paging;
    if (!p->trainable || !t->kept) return fail(err, ERR_SOFTWARE, "policy", "backward needs a forward pass that kept its activations");
    Pass pass = {.T = batch->token_count, .tokens = batch->tokens, .position = g->position, .table_start = g->table_start,
                 .table = g->table, .slot_start = g->slot_start, .slot = g->slot, .pages = t->page_memory,
                 .layer_bytes = (size_t)t->pages * page_bytes(p)};
    Backward b = {.p = p, .batch = batch, .pass = pass};
    double flops_before = p->flops, context = 0;
    size_t bytes = (size_t)pass.T * (size_t)c->width * 4;
    memset(t->dwide, 0, bytes);
    memset(t->dh, 0, bytes);
    head_gradient(&b, dlogprob, dentropy, t->dwide);
    // From here on segments are tokens of whole groups.
    for (int i = 0; i <= batch->group_count; i++) t->segment[i] = g->unit[i];
    b.segment = t->segment;
    norm_gradient(&b, p->final_norm, t->h_last, t->rstd_last, t->dwide);
    for (int layer = c->layers - 1; layer >= 0; layer--) {
        feed_forward_gradient(&b, layer);
        attention_gradient(&b, layer);
    }
    d->embed_grad(d, &(EmbedGradArgs){.T = pass.T, .C = c->width, .tokens = batch->tokens, .dy = t->dh,
                                      .dtable = p->embedding->gradient});
    for (int64_t i = 0; i < pass.T; i++) context += pass.position[i] + 1;
    p->flops = flops_before + 2.0 * (double)pass.T * config_flops(c, context / (double)pass.T, false) +
               4.0 * (double)batch->target_count * c->width * c->vocabulary;
    return true;
}
