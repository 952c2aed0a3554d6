// The decoder's layers, forward and backward, over rows of tokens that a Pass describes. What a layer is made of is said by
// the configuration and by the Layer's parameters; families are rows in family.c. The residual stream is fp32; what a
// product reads is stored in the policy's precision. The backward pass recomputes norms and SwiGLU, which cost little,
// and keeps the rest.
//
// Gradients are added to. Tokens ascend in every sum over tokens, whole groups at a time, so that neither threads nor a
// split into microbatches change a bit.
#include "model.h"
#include <math.h>

// ---- forward ---------------------------------------------------------------------------------------------
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
    linear_forward(p, &l->qkv, pass->T, w->x, STORE_F32, w->qkv);
    d->rope(d, &(RopeArgs){.T = pass->T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width, .dtype = p->dtype,
                           .qkv = w->qkv, .position = pass->position, .cos_sin = p->cos_sin, .q = q,
                           .pages = pass->pages + (size_t)layer * pass->layer_bytes, .slot_start = pass->slot_start,
                           .slot = pass->slot});
    AttentionArgs attention = attention_args(p, pass, layer, q, y, kept ? kept->lse : NULL);
    d->attention(d, &attention);
    linear_forward(p, &l->output, pass->T, y, ADD_F32, w->h);
}

static void feed_forward_block(Policy *p, const Pass *pass, int layer, const Kept *kept) {
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    const Device *d = p->device;
    void *gate_up = kept ? kept->gate_up : w->gate_up;
    normalise(p, pass->T, w->h, l->ffn_norm, w->x, kept ? kept->rstd2 : w->rstd);
    linear_forward(p, &l->gate_up, pass->T, w->x, STORE_ACT, gate_up);
    d->swiglu(d, &(SwigluArgs){.T = pass->T, .F = p->config.feed_forward, .dtype = p->dtype, .gate_up = gate_up, .y = w->ff});
    linear_forward(p, &l->down, pass->T, w->ff, ADD_F32, w->h);
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
    linear_backward(b, &l->down, p->work.ff, t->dact, t->dwide);
    d->swiglu_grad(d, &(SwigluGradArgs){.T = T, .F = F, .dtype = p->dtype, .gate_up = k->gate_up, .dy = t->dwide,
                                        .dgate_up = t->dact});
    normalise(p, T, k->h_mid, l->ffn_norm, p->work.x, NULL);
    linear_backward(b, &l->gate_up, p->work.x, t->dact, t->dwide);
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
    linear_backward(b, &l->output, k->attention, t->dact, t->dwide);
    d->attention_grad(d, &(AttentionGradArgs){.forward = attention_args(p, &b->pass, layer, k->q, k->attention, k->lse),
                                              .unit_count = b->groups.count, .unit = t->staged.unit,
                                              .unit_page = t->staged.unit_page, .dy = t->dwide, .dq = t->dq,
                                              .dpages = t->dpages, .delta = t->delta,
                                              .page_first_row = t->staged.page_first_row,
                                              .page_last_row = t->staged.page_last_row, .page_count = p->paging.page_count});
    d->rope_grad(d, &(RopeGradArgs){.T = T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width,
                                    .dtype = p->dtype, .position = b->pass.position, .cos_sin = p->cos_sin, .dq = t->dq,
                                    .dpages = t->dpages, .slot_start = b->pass.slot_start, .slot = b->pass.slot,
                                    .dqkv = t->dact});
    normalise(p, T, k->h_in, l->attention_norm, p->work.x, NULL);
    linear_backward(b, &l->qkv, p->work.x, t->dact, t->dwide);
    norm_gradient(b, l->attention_norm, k->h_in, k->rstd1, t->dwide);
}

void transformer_backward(const Backward *b) {
    Policy *p = b->p;
    const Device *d = p->device;
    Training *t = &p->training;
    d->zero(d, t->dh, (size_t)b->pass.T * (size_t)p->config.width * 4);
    norm_gradient(b, p->final_norm, t->h_last, t->rstd_last, t->dwide);
    for (int layer = p->config.layers - 1; layer >= 0; layer--) {
        feed_forward_gradient(b, layer);
        attention_gradient(b, layer);
    }
    if (!p->embedding->trained) return;
    d->embed_grad(d, &(EmbedGradArgs){.T = b->pass.T, .C = p->config.width, .tokens = b->pass.tokens, .dy = t->dh,
                                      .dtable = p->embedding->gradient});
}
