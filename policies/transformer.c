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
        p->device->release(p->device, pointer);                                                              \
        (pointer) = NULL;                                                                                    \
        TRY(p->device->allocate(p->device, (size_t)(bytes) + 2, #pointer, &fresh_, err));                        \
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

static void release_all(const Policy *p, void *const *memory, int count) {
    for (int i = 0; i < count; i++) p->device->release(p->device, memory[i]);
}

void workspace_free(Policy *p) {
    Workspace *w = &p->work;
    void *const memory[] = {w->h, w->x, w->qkv, w->q, w->attention, w->gate_up, w->ff, w->rstd, w->final};
    release_all(p, memory, COUNT(memory));
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
    if (!p->device->is_host) return 0;
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
        t->inv_temperature_host = xrealloc(t->inv_temperature_host, (size_t)targets * sizeof(float));
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
        void *const memory[] = {k->h_in, k->h_mid, k->rstd1, k->rstd2, k->q, k->attention, k->gate_up, k->lse};
        release_all(p, memory, COUNT(memory));
    }
    void *const memory[] = {t->h_last, t->rstd_last, t->page_memory, t->dh, t->dwide, t->dq, t->delta, t->dact, t->dpages,
                            t->head_x, t->head_dx, t->dlogits, t->logprob, t->entropy, t->max, t->log_sum, t->stats, t->scratch};
    release_all(p, memory, COUNT(memory));
    stage_free(p, &t->stage), stage_free(p, &t->coefficients);
    free(t->kept), free(t->inv_temperature_host), free(t->target_segment), free(t->chunks), free(t->chunk_segments);
    *t = (Training){0};
}

bool rope_reserve(Policy *p, int64_t positions, Err *err) {
    int64_t D = p->config.head_width;
    if (positions <= p->cos_sin_positions) return true;
    positions = (positions + 511) / 512 * 512;
    RESERVE(p->cos_sin, positions * D * 4);
    float *table = xmalloc((size_t)(positions * D) * sizeof *table);
    for (int64_t i = 0; i < D / 2; i++) {
        double frequency = 1.0 / exact_pow(p->config.rope_theta, 2.0 * (double)i / (double)D);
        for (int64_t position = 0; position < positions; position++) {
            table[position * D + i] = (float)exact_cos((double)position * frequency);
            table[position * D + D / 2 + i] = (float)exact_sin((double)position * frequency);
        }
    }
    p->device->upload(p->device, p->cos_sin, table, (size_t)(positions * D) * sizeof *table);
    free(table);
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
                           .pages = pass->pages + (size_t)layer * pass->layer_bytes, .y = y, .lse = lse,
                           .max_position = pass->max_position, .max_run = pass->max_run};
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

void transformer_forward(Policy *p, const Pass *pass, Kept *kept) {
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    Workspace *w = &p->work;
    size_t row_bytes = (size_t)pass->T * (size_t)c->width * 4;
    d->embed(d, &(EmbedArgs){.T = pass->T, .C = c->width, .tokens = pass->tokens, .dtype = p->dtype,
                             .table = p->embedding->packed, .y = w->h});
    for (int layer = 0; layer < c->layers; layer++) {
        Kept *k = kept ? &kept[layer] : NULL;
        if (k) d->copy(d, k->h_in, w->h, row_bytes);
        attention_block(p, pass, layer, k);
        if (k) d->copy(d, k->h_mid, w->h, row_bytes);
        feed_forward_block(p, pass, layer, k);
    }
    if (kept) d->copy(d, p->training.h_last, w->h, row_bytes);
    normalise(p, pass->T, w->h, p->final_norm, w->final, kept ? p->training.rstd_last : w->rstd);
}

// ---- backward --------------------------------------------------------------------------------------------
typedef struct Backward {
    Policy *p;
    const Packed *batch;
    Pass pass;
    Segments groups; // in tokens
} Backward;

// dw += dy^T x, and y = dy w.
static void weight_gradient(const Backward *b, Parameter *w, Parameter *bias, const void *x, const void *dy) {
    const Policy *p = b->p;
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x,
                                                        .ldx = w->K, .dy = dy, .ldy = w->N, .dw = w->gradient,
                                                        .dbias = bias ? bias->gradient : NULL,
                                                        .segments = b->groups,
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
                                                          .dx = p->training.dh, .dweight = weight->gradient,
                                                          .segments = b->groups});
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
    int64_t T = b->pass.T;
    to_act(b, t->dh, T * c->width, t->dact);
    weight_gradient(b, l->output, l->output_bias, k->attention, t->dact);
    input_gradient(b, l->output, t->dact, t->dwide);
    d->attention_grad(d, &(AttentionGradArgs){.forward = attention_args(p, &b->pass, layer, k->q, k->attention, k->lse),
                                              .unit_count = b->batch->group_count, .unit = t->staged.unit,
                                              .unit_page = t->staged.unit_page, .dy = t->dwide, .dq = t->dq,
                                              .dpages = t->dpages, .delta = t->delta,
                                              .page_first_row = t->staged.page_first_row,
                                              .page_last_row = t->staged.page_last_row, .page_count = p->paging.page_count});
    d->rope_grad(d, &(RopeGradArgs){.T = T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width,
                                    .dtype = p->dtype, .position = b->pass.position, .cos_sin = p->cos_sin, .dq = t->dq,
                                    .dpages = t->dpages, .slot_start = b->pass.slot_start, .slot = b->pass.slot,
                                    .dqkv = t->dact});
    normalise(p, T, k->h_in, l->attention_norm, p->work.x, NULL);
    weight_gradient(b, l->qkv, l->qkv_bias, p->work.x, t->dact);
    input_gradient(b, l->qkv, t->dact, t->dwide);
    norm_gradient(b, l->attention_norm, k->h_in, k->rstd1, t->dwide);
}

static HeadArgs head_args(const Policy *p, int64_t from, int64_t count) {
    const Training *t = &p->training;
    const Staged *s = &t->staged;
    int64_t blocks = vocab_padded(p->config.vocabulary) / VOCAB_BLOCK;
    return (HeadArgs){.M = count, .V = p->config.vocabulary, .C = p->config.width, .dtype = p->dtype,
                      .x = (const char *)t->head_x + act_bytes(p, from * p->config.width), .w = p->head->packed,
                      .inv_temperature = s->inv_temperature + from, .target = s->target + from,
                      .kept_start = s->kept_start ? s->kept_start + from : NULL, .kept = s->kept,
                      .logprob = t->logprob + from, .entropy = t->entropy + from, .max = t->max + from,
                      .log_sum = t->log_sum + from, .stats = t->stats + from * blocks, .scratch = p->head_scratch};
}

// Gradient of the head over one chunk of targets, and of the hidden states they came from.
static void head_chunk_gradient(const Backward *b, const HeadChunk *chunk, float *dfinal) {
    Policy *p = b->p;
    const Device *d = p->device;
    Training *t = &p->training;
    const Staged *s = &t->staged;
    int64_t C = p->config.width, V = p->config.vocabulary, padded = vocab_padded(V), from = chunk->from, count = chunk->to - from;
    d->head_grad(d, &(HeadGradArgs){.forward = head_args(p, from, count), .dlogprob = s->dlogprob + from,
                                    .dentropy = s->dentropy ? s->dentropy + from : NULL, .dlogits = t->dlogits});
    d->matmul(d, &(MatmulArgs){.M = count, .N = C, .K = V, .dtype = p->dtype, .x = t->dlogits, .ldx = padded,
                               .w = p->head->transposed, .store = STORE_F32, .y = t->head_dx, .ldy = C});
    d->scatter(d, &(ScatterArgs){.T = count, .C = C, .row = s->row + from, .x = t->head_dx, .y = dfinal});
    float *dw = p->head == p->embedding ? p->head->gradient2 : p->head->gradient;
    d->matmul_grad(d, &(MatmulGradArgs){.T = count, .N = V, .K = C, .dtype = p->dtype,
                                        .x = (const char *)t->head_x + act_bytes(p, from * C), .ldx = C, .dy = t->dlogits,
                                        .ldy = padded, .dw = dw,
                                        .segments = {chunk->count, s->chunk_segments + chunk->first, t->chunk_segments + chunk->first},
                                        .scratch = t->scratch});
}

// ---- the two passes --------------------------------------------------------------------------------------
// Targets of one group must stand together, in the order of groups.
static bool find_segments(Policy *p, const Packed *b, Err *err) {
    Training *t = &p->training;
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

// Segments: a group's targets, cut at multiples of HEAD_CHUNK from its first. Chunks: whole segments, as many as fit.
static int32_t find_chunks(Training *t, const Packed *b) {
    int32_t most = b->group_count + b->target_count / HEAD_CHUNK + 1, entries = 0;
    t->chunks = xrealloc(t->chunks, (size_t)most * sizeof *t->chunks);
    t->chunk_segments = xrealloc(t->chunk_segments, (size_t)most * 2 * sizeof *t->chunk_segments);
    t->chunk_count = 0;
    for (int g = 0; g < b->group_count; g++)
        for (int32_t from = t->target_segment[g], end = t->target_segment[g + 1], to; from < end; from = to) {
            to = from + HEAD_CHUNK < end ? from + HEAD_CHUNK : end;
            HeadChunk *chunk = t->chunk_count ? &t->chunks[t->chunk_count - 1] : NULL;
            if (!chunk || to - chunk->from > HEAD_CHUNK) {
                chunk = &t->chunks[t->chunk_count++];
                *chunk = (HeadChunk){.from = from, .first = entries};
                t->chunk_segments[entries++] = 0;
            }
            chunk->to = to;
            chunk->count++;
            t->chunk_segments[entries++] = to - chunk->from;
        }
    return entries;
}

static bool stage_batch(Policy *p, const Packed *b, Err *err) {
    Training *t = &p->training;
    Staged *s = &t->staged;
    const Paging *g = &p->paging;
    int32_t T = b->token_count, R = b->target_count;
    for (int32_t r = 0; r < R; r++) t->inv_temperature_host[r] = (float)(1.0 / b->temperature);
    *s = (Staged){.pass = {.T = T, .pages = t->page_memory, .layer_bytes = (size_t)t->pages * page_bytes(p),
                           .max_position = g->max_position, .max_run = g->max_run}};
    STAGE_ADD(&t->stage, b->tokens, T, &s->pass.tokens);
    STAGE_ADD(&t->stage, g->position, T, &s->pass.position);
    STAGE_ADD(&t->stage, g->table_start, T, &s->pass.table_start);
    STAGE_ADD(&t->stage, g->table, g->table_count, &s->pass.table);
    STAGE_ADD(&t->stage, g->slot_start, T + 1, &s->pass.slot_start);
    STAGE_ADD(&t->stage, g->slot, g->slot_count, &s->pass.slot);
    STAGE_ADD(&t->stage, g->unit, b->group_count + 1, &s->unit);
    STAGE_ADD(&t->stage, g->unit_page, b->group_count + 1, &s->unit_page);
    STAGE_ADD(&t->stage, g->page_first_row, g->page_count, &s->page_first_row);
    STAGE_ADD(&t->stage, g->page_last_row, g->page_count, &s->page_last_row);
    STAGE_ADD(&t->stage, b->row, R, &s->row);
    STAGE_ADD(&t->stage, b->target, R, &s->target);
    STAGE_ADD(&t->stage, b->kept_start, b->kept_start ? R + 1 : 0, &s->kept_start);
    STAGE_ADD(&t->stage, b->kept_ids, b->kept_start ? b->kept_start[R] : 0, &s->kept);
    STAGE_ADD(&t->stage, t->inv_temperature_host, R, &s->inv_temperature);
    STAGE_ADD(&t->stage, t->chunk_segments, find_chunks(t, b), &s->chunk_segments);
    return stage_send(p, &t->stage, err);
}

// Queues the forward pass; nothing is waited for.
static bool forward_queue(Policy *p, const Packed *batch, bool keep, Err *err) {
    const Device *d = p->device;
    Training *t = &p->training;
    if (keep && !p->trainable) return fail(err, ERR_SOFTWARE, "policy", "activations are kept only by a trainable policy");
    TRY(packed_check(p, batch, err));
    paging_free(&p->paging);
    paging_build(batch, &p->paging);
    TRY(training_reserve(p, batch, p->paging.page_count, keep, err));
    TRY(workspace_reserve(p, batch->token_count, err));
    TRY(rope_reserve(p, p->paging.max_position + 1, err));
    TRY(find_segments(p, batch, err));
    TRY(stage_batch(p, batch, err));
    transformer_forward(p, &t->staged.pass, keep ? t->kept : NULL);
    int64_t T = batch->token_count, R = batch->target_count;
    if (T) p->flops += (double)T * config_flops(&p->config, p->paging.context / (double)T, false);
    if (R == 0) return true;
    d->gather(d, &(GatherArgs){.T = R, .C = p->config.width, .dtype = p->dtype, .row = t->staged.row, .x = p->work.final, .y = t->head_x});
    HeadArgs head = head_args(p, 0, R);
    d->head(d, &head);
    p->flops += 2.0 * (double)R * p->config.width * p->config.vocabulary;
    return true;
}

// The logprobs and entropies of the pass that was queued; waits for what was queued up to here.
static bool take_results(Policy *p, int64_t R, float *logprob, float *entropy, Err *err) {
    const Device *d = p->device;
    if (R) d->download(d, logprob, p->training.logprob, (size_t)R * 4);
    if (R && entropy) d->download(d, entropy, p->training.entropy, (size_t)R * 4);
    return d->finish(d, err);
}

static bool backward_queue(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) {
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    Training *t = &p->training;
    if (!p->trainable || !t->kept) return fail(err, ERR_SOFTWARE, "policy", "backward needs a forward pass that kept its activations");
    Backward b = {.p = p, .batch = batch, .pass = t->staged.pass, .groups = {batch->group_count, t->staged.unit, p->paging.unit}};
    double flops_before = p->flops;
    int64_t T = b.pass.T, R = batch->target_count;
    size_t bytes = (size_t)T * (size_t)c->width * 4;
    if (T == 0) return true;
    STAGE_ADD(&t->coefficients, dlogprob, R, &t->staged.dlogprob);
    STAGE_ADD(&t->coefficients, dentropy, dentropy ? R : 0, &t->staged.dentropy);
    TRY(stage_send(p, &t->coefficients, err));
    d->zero(d, t->dwide, bytes);
    d->zero(d, t->dh, bytes);
    for (int i = 0; i < t->chunk_count; i++) head_chunk_gradient(&b, &t->chunks[i], t->dwide);
    norm_gradient(&b, p->final_norm, t->h_last, t->rstd_last, t->dwide);
    for (int layer = c->layers - 1; layer >= 0; layer--) {
        feed_forward_gradient(&b, layer);
        attention_gradient(&b, layer);
    }
    d->embed_grad(d, &(EmbedGradArgs){.T = T, .C = c->width, .tokens = b.pass.tokens, .dy = t->dh,
                                      .dtable = p->embedding->gradient});
    p->flops = flops_before + 2.0 * (double)T * config_flops(c, p->paging.context / (double)T, false) +
               4.0 * (double)R * c->width * c->vocabulary;
    return true;
}

bool policy_forward(Policy *p, const Packed *batch, bool keep, float *logprob, float *entropy, Err *err) {
    TRY(forward_queue(p, batch, keep, err));
    return take_results(p, batch->target_count, logprob, entropy, err);
}

bool policy_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) {
    TRY(backward_queue(p, batch, dlogprob, dentropy, err));
    return p->device->finish(p->device, err);
}

bool policy_forward_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, float *logprob,
                             float *entropy, Err *err) {
    TRY(forward_queue(p, batch, true, err));
    TRY(backward_queue(p, batch, dlogprob, dentropy, err));
    return take_results(p, batch->target_count, logprob, entropy, err);
}
