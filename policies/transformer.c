// The decoder's layers, forward and backward, over rows of tokens that a Pass describes. What a layer is made of is said by
// the configuration and by the Layer's parameters; families are rows in family.c. The residual stream is fp32; what a
// product reads is stored in the policy's precision. The backward pass recomputes norms and SwiGLU, which cost little,
// and keeps the rest.
//
// Gradients are added to. Tokens ascend in every sum over tokens, whole groups at a time, so that neither threads nor a
// split into microbatches change a bit.
#include "model.h"
#include "storage.h"
#include <math.h>

// ---- forward ---------------------------------------------------------------------------------------------
static RmsnormArgs norm_args(const Policy *p, int64_t T, const Parameter *weight, const float *x, float *rstd) {
    return (RmsnormArgs){.T = T, .C = weight->N, .x = x, .weight = weight->values, .offset = p->config.norm_offset,
                         .eps = (float)p->config.norm_eps, .dtype = p->dtype, .rstd = rstd};
}
// What a block reads of the residual stream h [T, C]: normed where the block has a norm before it.
void block_input(const Policy *p, int64_t T, const Parameter *weight, const float *h, void *y, float *rstd) {
    const Device *d = p->device;
    if (!weight) {
        d->convert(d, &(ConvertArgs){.count = T * p->config.width, .dtype = p->dtype, .x = h, .y = y});
        return;
    }
    RmsnormArgs norm = norm_args(p, T, weight, h, rstd);
    norm.y = y;
    d->rmsnorm(d, &norm);
}
// h [T, C] += what a block gives for x, normed first where the block has a norm behind it; `branch` [T, C] keeps it as it was.
static void block_output(const Policy *p, int64_t T, const Linear *l, const void *x, const Parameter *post, float *branch, float *rstd, float *h) {
    if (!post) {
        linear_forward(p, l, T, x, ADD_F32, h);
        return;
    }
    linear_forward(p, l, T, x, STORE_F32, branch);
    RmsnormArgs norm = norm_args(p, T, post, branch, rstd);
    norm.store = ADD_F32, norm.y = h;
    p->device->rmsnorm(p->device, &norm);
}
// The norms of q and k: of each head, or of all together.
static int32_t normed_heads(const Parameter *weight, int64_t width) { return (int32_t)(width / weight->N); }
static void norm_qk(const Policy *p, int64_t T, const Layer *l, float *qkv, const Kept *kept) {
    const ModelConfig *c = &p->config;
    int64_t columns = qkv_width(c), k_width = (int64_t)c->kv_heads * c->head_width;
    if (!l->q_norm) return;
    if (kept) p->device->copy(p->device, kept->qkv, qkv, (size_t)(T * columns) * 4);
    for (int key = 0; key < 2; key++) {
        const Parameter *weight = key ? l->k_norm : l->q_norm;
        float *x = qkv + (key ? q_width(c) : 0);
        RmsnormArgs norm = norm_args(p, T, weight, x, kept ? key ? kept->k_rstd : kept->q_rstd : NULL);
        norm.heads = normed_heads(weight, key ? k_width : q_width(c));
        norm.ldx = norm.ldy = columns, norm.store = STORE_F32, norm.y = x;
        p->device->rmsnorm(p->device, &norm);
    }
}
static float score_scale(const ModelConfig *c) { return (float)(1.0 / sqrt(c->query_scalar != 0 ? c->query_scalar : (double)c->head_width)); }
static Gate gate_of(const ModelConfig *c) { return c->activation == ACTIVATION_GELU_TANH ? GATE_GELU_TANH : GATE_SILU; }
// The root of the width, rounded as the embedding is.
static float embedding_scale(const Policy *p) {
    float root = (float)sqrt((double)p->config.width);
    if (!p->config.embedding_scaled) return 0;
    return p->dtype == DTYPE_BF16 ? bf16_to_float(bf16_from_float(root)) : root;
}
static AttentionArgs attention_args(const Policy *p, const Pass *pass, int layer, const void *q, void *y, float *lse) {
    const ModelConfig *c = &p->config;
    return (AttentionArgs){.T = pass->T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width, .dtype = p->dtype,
                           .scale = score_scale(c), .window = config_window(c, layer), .q = q, .position = pass->position,
                           .table_start = pass->table_start, .table = pass->table,
                           .pages = pass->pages + (size_t)layer * pass->layer_bytes, .y = y, .lse = lse,
                           .max_position = pass->max_position, .max_run = pass->max_run};
}

static const int32_t *angles_of(const Pass *pass) { return pass->angle ? pass->angle : pass->position; }

// From work.x to `y` [T, H D].
static void heads_forward(Policy *p, const Pass *pass, int layer, const Kept *kept, void *y) {
    const ModelConfig *c = &p->config;
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    const Device *d = p->device;
    int rope = config_rope(c, layer);
    void *q = kept ? kept->q : w->q;
    linear_forward(p, &l->qkv, pass->T, w->x, STORE_F32, w->qkv);
    norm_qk(p, pass->T, l, w->qkv, kept);
    d->rope(d, &(RopeArgs){.T = pass->T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width,
                           .rotary = config_rotary(c), .dtype = p->dtype, .qkv = w->qkv, .position = angles_of(pass),
                           .cos_sin = p->cos_sin[rope], .q = q, .pages = pass->pages + (size_t)layer * pass->layer_bytes,
                           .slot_start = pass->slot_start, .slot = pass->slot});
    AttentionArgs attention = attention_args(p, pass, layer, q, y, kept ? kept->lse : NULL);
    d->attention(d, &attention);
}
static void attention_block(Policy *p, const Pass *pass, int layer, const Kept *kept) {
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    void *y = kept ? kept->attention : w->attention;
    block_input(p, pass->T, l->attention_norm, w->h, w->x, kept ? kept->rstd1 : w->rstd);
    if (l->kv_b.weight)
        latent_forward(p, pass, layer, kept, y);
    else
        heads_forward(p, pass, layer, kept, y);
    block_output(p, pass->T, &l->output, y, l->attention_post_norm, kept ? kept->attention_out : w->branch, kept ? kept->post_rstd1 : w->rstd, w->h);
}

void attention_output(Policy *p, int64_t T, int layer, const Kept *k) {
    const Layer *l = &p->layers[layer];
    p->device->copy(p->device, k->h_mid, k->h_in, (size_t)T * (size_t)p->config.width * 4);
    block_output(p, T, &l->output, k->attention, l->attention_post_norm, k->attention_out, k->post_rstd1, k->h_mid);
}

static void feed_forward_block(Policy *p, const Pass *pass, int layer, const Kept *kept) {
    const Layer *l = &p->layers[layer];
    Workspace *w = &p->work;
    const Device *d = p->device;
    void *gate_up = kept ? kept->gate_up : w->gate_up;
    block_input(p, pass->T, l->ffn_norm, w->h, w->x, kept ? kept->rstd2 : w->rstd);
    if (l->router.weight) {
        experts_forward(p, pass->T, layer, kept);
        return;
    }
    linear_forward(p, &l->gate_up, pass->T, w->x, STORE_ACT, gate_up);
    d->swiglu(d, &(SwigluArgs){.T = pass->T, .F = p->config.feed_forward, .gate = gate_of(&p->config), .dtype = p->dtype,
                               .gate_up = gate_up, .y = w->ff});
    block_output(p, pass->T, &l->down, w->ff, l->ffn_post_norm, kept ? kept->ffn_out : w->branch, kept ? kept->post_rstd2 : w->rstd, w->h);
}

void transformer_forward(Policy *p, const Pass *pass, Kept *kept) {
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    Workspace *w = &p->work;
    size_t row_bytes = (size_t)pass->T * (size_t)c->width * 4;
    d->embed(d, &(EmbedArgs){.T = pass->T, .C = c->width, .tokens = pass->tokens, .dtype = p->dtype,
                             .table = p->embedding->packed, .format = kept_format(p->embedding), .scale = embedding_scale(p), .y = w->h});
    for (int layer = 0; layer < c->layers; layer++) {
        Kept *k = kept ? &kept[layer] : pass->retains ? &p->training.one : NULL;
        if (k) d->copy(d, k->h_in, w->h, row_bytes);
        attention_block(p, pass, layer, k);
        if (k) d->copy(d, k->h_mid, w->h, row_bytes);
        feed_forward_block(p, pass, layer, k);
        if (pass->retains) retain_layer(p, pass, layer);
    }
    if (kept) d->copy(d, p->training.h_last, w->h, row_bytes);
    block_input(p, pass->T, p->final_norm, w->h, w->final, kept ? p->training.rstd_last : pass->retains ? p->training.one.rstd1 : w->rstd);
    if (pass->retains) retain_last(p, pass);
}

// ---- backward --------------------------------------------------------------------------------------------
static RmsnormGradArgs norm_grad_args(const Backward *b, Parameter *weight, const float *x, const float *rstd, const float *dy) {
    const Policy *p = b->p;
    return (RmsnormGradArgs){.T = b->pass.T, .C = weight->N, .x = x, .weight = weight->values, .offset = p->config.norm_offset,
                             .rstd = rstd, .dy = dy, .dtype = p->dtype, .dweight = weight->gradient, .segments = b->groups};
}
// The gradient of a norm before a block joins the stream's.
void norm_gradient(const Backward *b, Parameter *weight, const float *x, const float *rstd, const float *dy) {
    const Policy *p = b->p;
    RmsnormGradArgs norm = norm_grad_args(b, weight, x, rstd, dy);
    norm.dx = p->training.dh;
    p->device->rmsnorm_grad(p->device, &norm);
}
// The gradient of what a block gave, rounded for its products, from the stream's: through the norm behind it where there is one.
static void output_gradient(const Backward *b, Parameter *post, const float *branch, const float *rstd) {
    const Policy *p = b->p;
    const Training *t = &p->training;
    if (!post) {
        p->device->convert(p->device, &(ConvertArgs){.count = b->pass.T * p->config.width, .dtype = p->dtype, .x = t->dh, .y = t->dact});
        return;
    }
    RmsnormGradArgs norm = norm_grad_args(b, post, branch, rstd, t->dh);
    norm.written = true, norm.dx = t->dact;
    p->device->rmsnorm_grad(p->device, &norm);
}
static const Kept *kept_of(const Policy *p, int layer) { return p->training.restored ? &p->training.one : &p->training.kept[layer]; }
// From dy, the gradient of a block's first product, into the stream: through the norm before it where there is one.
static void input_gradient(const Backward *b, const Linear *l, Parameter *norm, const float *h, const float *rstd, const void *dy) {
    Policy *p = b->p;
    const Training *t = &p->training;
    block_input(p, b->pass.T, norm, h, p->work.x, NULL);
    linear_backward(b, l, p->work.x, dy, norm ? STORE_F32 : ADD_F32, norm ? t->dwide : t->dh);
    if (norm) norm_gradient(b, norm, h, rstd, t->dwide);
}

static void feed_forward_gradient(const Backward *b, int layer) {
    Policy *p = b->p;
    const Device *d = p->device;
    const Layer *l = &p->layers[layer];
    const Kept *k = kept_of(p, layer);
    const Training *t = &p->training;
    int64_t T = b->pass.T, F = p->config.feed_forward;
    Gate gate = gate_of(&p->config);
    if (l->router.weight) {
        output_gradient(b, l->ffn_post_norm, k->ffn_out, k->post_rstd2);
        block_input(p, T, l->ffn_norm, k->h_mid, p->work.x, NULL);
        experts_backward(b, layer);
        norm_gradient(b, l->ffn_norm, k->h_mid, k->rstd2, t->dwide);
        return;
    }
    output_gradient(b, l->ffn_post_norm, k->ffn_out, k->post_rstd2);
    linear_input_gradient(b, &l->down, t->dact, STORE_F32, t->dwide);
    d->swiglu_grad(d, &(SwigluGradArgs){.T = T, .F = F, .gate = gate, .dtype = p->dtype, .gate_up = k->gate_up, .dy = t->dwide,
                                        .dgate_up = p->work.gate_up, .y = p->work.ff});
    linear_weight_gradient(b, &l->down, p->work.ff, t->dact);
    input_gradient(b, &l->gate_up, l->ffn_norm, k->h_mid, k->rstd2, p->work.gate_up);
}

// From the gradients of normed q and k (dqk) to those of the product (dact); v's are there already.
static void qk_norm_gradient(const Backward *b, const Layer *l, const Kept *k) {
    const Policy *p = b->p;
    const ModelConfig *c = &p->config;
    const Training *t = &p->training;
    int64_t k_width = (int64_t)c->kv_heads * c->head_width;
    for (int key = 0; key < 2; key++) {
        Parameter *weight = key ? l->k_norm : l->q_norm;
        int64_t at = key ? q_width(c) : 0;
        RmsnormGradArgs norm = norm_grad_args(b, weight, k->qkv + at, key ? k->k_rstd : k->q_rstd, t->dqk + at);
        norm.heads = normed_heads(weight, key ? k_width : q_width(c));
        norm.ldx = norm.lddx = qkv_width(c), norm.lddy = q_width(c) + k_width;
        norm.written = true, norm.dx = (char *)t->dact + act_bytes(p, at);
        p->device->rmsnorm_grad(p->device, &norm);
    }
}

static void attention_gradient(const Backward *b, int layer) {
    Policy *p = b->p;
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    const Layer *l = &p->layers[layer];
    const Kept *k = kept_of(p, layer);
    const Training *t = &p->training;
    int rope = config_rope(c, layer);
    output_gradient(b, l->attention_post_norm, k->attention_out, k->post_rstd1);
    linear_backward(b, &l->output, k->attention, t->dact, STORE_F32, t->dwide);
    if (l->kv_b.weight) {
        d->convert(d, &(ConvertArgs){.count = b->pass.T * attention_width(c), .dtype = p->dtype, .x = t->dwide, .y = t->dact});
        block_input(p, b->pass.T, l->attention_norm, k->h_in, p->work.x, NULL);
        latent_backward(b, layer);
        norm_gradient(b, l->attention_norm, k->h_in, k->rstd1, t->dwide);
        return;
    }
    d->attention_grad(d, &(AttentionGradArgs){.forward = attention_args(p, &b->pass, layer, k->q, k->attention, k->lse),
                                              .unit_count = b->groups.count, .unit = t->staged.unit,
                                              .unit_page = t->staged.unit_page, .dy = t->dwide, .dq = t->dq,
                                              .dpages = t->dpages, .delta = t->delta,
                                              .page_first_row = t->staged.page_first_row,
                                              .page_last_row = t->staged.page_last_row, .page_count = p->paging.page_count});
    d->rope_grad(d, &(RopeGradArgs){.T = b->pass.T, .heads = c->heads, .kv_heads = c->kv_heads, .D = c->head_width,
                                    .rotary = config_rotary(c), .dtype = p->dtype, .position = angles_of(&b->pass),
                                    .cos_sin = p->cos_sin[rope], .dq = t->dq, .dpages = t->dpages,
                                    .slot_start = b->pass.slot_start, .slot = b->pass.slot, .dqkv = t->dact,
                                    .dqk = l->q_norm ? t->dqk : NULL});
    if (l->q_norm) qk_norm_gradient(b, l, k);
    input_gradient(b, &l->qkv, l->attention_norm, k->h_in, k->rstd1, t->dact);
}

void transformer_backward(const Backward *b) {
    Policy *p = b->p;
    const Device *d = p->device;
    Training *t = &p->training;
    d->zero(d, t->dh, (size_t)b->pass.T * (size_t)p->config.width * 4);
    norm_gradient(b, p->final_norm, t->h_last, t->rstd_last, t->dwide);
    for (int layer = p->config.layers - 1; layer >= 0; layer--) {
        if (t->restored) restore_layer(p, layer);
        feed_forward_gradient(b, layer);
        attention_gradient(b, layer);
    }
    if (!p->embedding->trained) return;
    bool apart = lookups_apart(p);
    if (!apart) gradient_prepare(p, p->embedding);
    d->embed_grad(d, &(EmbedGradArgs){.T = b->pass.T, .C = p->config.width, .tokens = apart ? p->lookups.staged_row : b->pass.tokens,
                                      .scale = embedding_scale(p), .dy = t->dh, .dtable = apart ? p->lookups.rows : p->embedding->gradient});
}
