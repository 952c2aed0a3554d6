// Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2). What the cache holds of a position is one latent of R columns and one
// rotated key of P, shared by all heads. Keys and values are never made from the latent: the matrix that would make a head's
// keys (its rows of kv_b) is applied to its queries instead, and the one that would make its values to what attention gives. All passes
// do it this way, decoding and training alike, which is what makes them the same numbers.
//
// An adapter on that matrix, s B A, is applied the same way and added in fp32: a head's queries go through its rows of s B, then
// through A; what attention gives goes through A, then through the head's rows of s B. The two ways meet in A, whose gradient is
// summed in two parts, so that each has an order of its own.
//
// Queries may come by a latent of their own (q_rank). The two inner norms have an epsilon of 1e-6, whatever the configuration says
// of the others.
#include "model.h"
#include <math.h>

static const float inner_eps = 1e-6f;

// ---- buffers ---------------------------------------------------------------------------------------------
bool latent_reserve(Policy *p, int64_t rows, Err *err) {
    LatentWork *w = &p->work.mla;
    const LatentConfig *c = &p->config.latent;
    int64_t H = p->config.heads, W = c->R + c->P;
    if (!c->R) return true;
    if (c->q_rank) {
        RESERVE(w->q_a, rows * c->q_rank * 4);
        RESERVE(w->q_a_rstd, rows * 4);
        RESERVE(w->q_a_normed, act_bytes(p, rows * c->q_rank));
    }
    RESERVE(w->kv, rows * W * 4);
    RESERVE(w->kv_rstd, rows * 4);
    RESERVE(w->latent, act_bytes(p, rows * c->R));
    RESERVE(w->q_plain, act_bytes(p, rows * H * c->N));
    RESERVE(w->context, act_bytes(p, rows * H * c->R));
    if (p->device->is_host && !w->scratch) RESERVE(w->scratch, latent_scratch(p->device->threads, W));
    return true;
}

bool latent_keep(Policy *p, LatentKept *k, int64_t rows, Err *err) {
    const LatentConfig *c = &p->config.latent;
    int64_t H = p->config.heads;
    if (!c->R) return true;
    if (c->q_rank) {
        RESERVE(k->q_a, rows * c->q_rank * 4);
        RESERVE(k->q_a_rstd, rows * 4);
    }
    RESERVE(k->kv, rows * (c->R + c->P) * 4);
    RESERVE(k->kv_rstd, rows * 4);
    RESERVE(k->q_plain, act_bytes(p, rows * H * c->N));
    RESERVE(k->context, act_bytes(p, rows * H * c->R));
    return true;
}

bool latent_train(Policy *p, int64_t rows, Err *err) {
    LatentTraining *t = &p->training.mla;
    const LatentConfig *c = &p->config.latent;
    int64_t H = p->config.heads;
    if (!c->R) return true;
    if (c->q_rank) {
        RESERVE(t->dq_a, rows * c->q_rank * 4);
        RESERVE(t->dq_a_act, act_bytes(p, rows * c->q_rank));
    }
    RESERVE(t->dcontext, rows * H * c->R * 4);
    RESERVE(t->dq_plain, rows * H * c->N * 4);
    RESERVE(t->dlatent, rows * c->R * 4);
    RESERVE(t->dkv, act_bytes(p, rows * (c->R + c->P)));
    return true;
}

void latent_free(Policy *p) {
    LatentWork *w = &p->work.mla;
    LatentTraining *t = &p->training.mla;
    void *const memory[] = {w->q_a, w->kv, w->q_a_rstd, w->kv_rstd, w->q_a_normed, w->latent, w->q_plain, w->context, w->scratch,
                            t->dcontext, t->dq_plain, t->dlatent, t->dq_a, t->dkv, t->dq_a_act};
    for (int i = 0; i < COUNT(memory); i++) p->device->release(p->device, memory[i]);
    for (int l = 0; p->training.kept && l < p->config.layers; l++) {
        const LatentKept *k = &p->training.kept[l].latent;
        void *const kept[] = {k->q_a, k->kv, k->q_a_rstd, k->kv_rstd, k->q_plain, k->context};
        for (int i = 0; i < COUNT(kept); i++) p->device->release(p->device, kept[i]);
    }
    *w = (LatentWork){0};
    *t = (LatentTraining){0};
}

// ---- products with a matrix a head -----------------------------------------------------------------------
// The matrices of kv_b lie by turns: a head's keys [N, R], its values [V, R]; so do the packed ones and the transposed.
static int64_t packed_step(const Parameter *w) { return block_packed(w, 2); }
static int64_t transposed_step(const Parameter *w) { return block_transposed(w, 2); }
static const char *packed_from(const Policy *p, const Parameter *w, int block) { return (const char *)w->packed + act_bytes(p, block_packed(w, block)); }
static const char *transposed_from(const Policy *p, const Parameter *w, int block) {
    return (const char *)w->transposed + act_bytes(p, block_transposed(w, block));
}

// y[t, h, :] = x[t, h, :] times head h's matrix [columns of y, columns of x]; rows of x and y hold all heads, `x_head` and `y_head` apart.
typedef struct HeadsProduct {
    const void *x, *w;
    void *y;
    int64_t K, N, x_head, y_head, w_step;
    Store store;
} HeadsProduct;
static void heads_product(const Policy *p, int64_t T, const HeadsProduct *h) {
    int64_t H = p->config.heads;
    p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = h->N, .K = h->K, .dtype = p->dtype, .x = h->x, .ldx = H * h->x_head, .w = h->w,
                                               .store = h->store, .y = h->y, .ldy = H * h->y_head,
                                               .products = {.count = (int)H, .x_step = h->x_head, .y_step = h->y_head, .w_step = h->w_step}});
}
// Gradient of each head's matrix in block `block`: dw[n, k] += sum_t dy[t, h, n] x[t, h, k].
static void heads_gradient(const Backward *b, Parameter *w, int block, const void *x, int64_t x_head, const void *dy, int64_t dy_head) {
    const Policy *p = b->p;
    int64_t H = p->config.heads, K = w->K;
    if (!w->trained) return;
    gradient_prepare(p, w); // a block of two
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T, .N = block_rows(w, block), .K = K, .dtype = p->dtype, .x = x, .ldx = H * x_head,
                                                        .dy = dy, .ldy = H * dy_head, .dw = w->gradient + block_row(w, block) * K,
                                                        .segments = b->groups, .scratch = p->training.scratch,
                                                        .products = {.count = (int)H, .x_step = x_head, .y_step = dy_head, .w_step = block_row(w, 2) * K}});
}

// ---- an adapter on kv_b ----------------------------------------------------------------------------------
// Rows of all heads as rows of their own, ldx apart, through A: u [T H, rank]; or back: += u A, rows of R.
static void factor_rows(const Policy *p, int64_t T, const Parameter *A, const void *x, int64_t ldx, void *u) {
    p->device->matmul(p->device, &(MatmulArgs){.M = T * p->config.heads, .N = A->N, .K = A->K, .dtype = p->dtype, .x = x, .ldx = ldx, .w = A->packed,
                                               .store = STORE_ACT, .y = u, .ldy = A->N});
}
static void factor_rows_back(const Policy *p, int64_t T, const Parameter *A, const void *u, float *y, int64_t ldy) {
    p->device->matmul(p->device, &(MatmulArgs){.M = T * p->config.heads, .N = A->K, .K = A->N, .dtype = p->dtype, .x = u, .ldx = A->N,
                                               .w = A->transposed, .store = ADD_F32, .y = y, .ldy = ldy});
}
static void factor_gradient(const Backward *b, Parameter *A, const void *x, int64_t ldx, const void *du, float *gradient) {
    const Policy *p = b->p;
    gradient_prepare(p, A); // one of two
    Segments rows = {b->groups.count, p->training.staged.unit_heads, p->paging.unit_heads};
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T * p->config.heads, .N = A->N, .K = A->K, .dtype = p->dtype, .x = x, .ldx = ldx,
                                                        .dy = du, .ldy = A->N, .dw = gradient, .segments = rows, .scratch = p->training.scratch});
}
// A head's x times its rows of s B in `block`, and back.
static void through_B(const Policy *p, int64_t T, const Parameter *B, int block, const void *x, Store store, void *y, int64_t y_head) {
    heads_product(p, T, &(HeadsProduct){.x = x, .K = B->K, .x_head = B->K, .w = packed_from(p, B, block), .w_step = packed_step(B),
                                        .N = block_rows(B, block), .y_head = y_head, .store = store, .y = y});
}
static void through_B_back(const Policy *p, int64_t T, const Parameter *B, int block, const void *x, void *u) {
    int64_t N = block_rows(B, block);
    heads_product(p, T, &(HeadsProduct){.x = x, .K = N, .x_head = N, .w = transposed_from(p, B, block), .w_step = transposed_step(B), .N = B->K,
                                        .y_head = B->K, .store = STORE_ACT, .y = u});
}

// ---- forward ---------------------------------------------------------------------------------------------
// Queries in the place of keys' matrix: of each head N columns to the first R of W. An adapter's part is added in fp32, aside where
// what attention reads is rounded.
static void absorb_keys(const Policy *p, int64_t T, const Linear *kv_b, const void *q_plain, void *q) {
    const LatentConfig *c = &p->config.latent;
    const LoraLinear *a = lora_of(p, kv_b);
    const Parameter *w = kv_b->weight;
    bool aside = a && p->dtype != DTYPE_F32;
    int64_t W = c->R + c->P, columns = aside ? c->R : W;
    void *sum = aside ? p->work.lora_wide : q;
    heads_product(p, T, &(HeadsProduct){.x = q_plain, .K = c->N, .x_head = c->N, .w = transposed_from(p, w, 0), .w_step = transposed_step(w), .N = c->R,
                                        .y_head = columns, .store = aside ? STORE_F32 : STORE_ACT, .y = sum});
    if (!a) return;
    through_B_back(p, T, a->parts[0].B, 0, q_plain, p->work.lora_u);
    factor_rows_back(p, T, a->A, p->work.lora_u, sum, columns);
    if (aside)
        p->device->convert(p->device, &(ConvertArgs){.count = T * p->config.heads * c->R, .dtype = p->dtype, .x = sum, .y = q, .columns = c->R, .ldy = W});
}
// What attention gives, of each head R columns, to V.
static void absorb_values(const Policy *p, int64_t T, const Linear *kv_b, const void *context, void *y) {
    const LatentConfig *c = &p->config.latent;
    const LoraLinear *a = lora_of(p, kv_b);
    const Parameter *w = kv_b->weight;
    bool aside = a && p->dtype != DTYPE_F32;
    void *sum = aside ? p->work.lora_wide : y;
    heads_product(p, T, &(HeadsProduct){.x = context, .K = c->R, .x_head = c->R, .w = packed_from(p, w, 1), .w_step = packed_step(w), .N = c->V,
                                        .y_head = c->V, .store = aside ? STORE_F32 : STORE_ACT, .y = sum});
    if (!a) return;
    factor_rows(p, T, a->A, context, c->R, p->work.lora_u);
    through_B(p, T, a->parts[0].B, 1, p->work.lora_u, ADD_F32, sum, c->V);
    if (aside) p->device->convert(p->device, &(ConvertArgs){.count = T * p->config.heads * c->V, .dtype = p->dtype, .x = sum, .y = y});
}

// Scores are divided by the root of N + P; where positions are stretched by yarn they get its factor twice, for queries and keys.
static float score_scale(const ModelConfig *c) {
    const RopeConfig *r = &c->rope[0];
    double scale = 1.0 / sqrt((double)c->head_width), factor = 1;
    if (r->kind != ROPE_DEFAULT && r->mscale_all_dim != 0 && r->factor > 1) factor = 0.1 * r->mscale_all_dim * exact_log(r->factor) + 1;
    return (float)(scale * factor * factor);
}
static LatentAttentionArgs attention_args(const Policy *p, const Pass *pass, int layer, const void *q, void *y, float *lse) {
    const LatentConfig *c = &p->config.latent;
    return (LatentAttentionArgs){.T = pass->T, .heads = p->config.heads, .W = c->R + c->P, .R = c->R, .dtype = p->dtype, .scale = score_scale(&p->config),
                                 .q = q, .position = pass->position, .table_start = pass->table_start, .table = pass->table,
                                 .pages = pass->pages + (size_t)layer * pass->layer_bytes, .y = y, .lse = lse, .max_position = pass->max_position,
                                 .max_run = pass->max_run, .scratch = p->work.mla.scratch};
}
static const int32_t *angles_of(const Pass *pass) { return pass->angle ? pass->angle : pass->position; }

// Rows of C in rows of ldx, normed, act.
static void inner_norm(const Policy *p, int64_t T, const Parameter *weight, const float *x, int64_t ldx, void *y, float *rstd) {
    p->device->rmsnorm(p->device, &(RmsnormArgs){.T = T, .C = weight->N, .x = x, .ldx = ldx, .weight = weight->values, .eps = inner_eps,
                                                 .dtype = p->dtype, .y = y, .rstd = rstd});
}

void latent_forward(Policy *p, const Pass *pass, int layer, const Kept *kept, void *y) {
    const LatentConfig *c = &p->config.latent;
    const Layer *l = &p->layers[layer];
    const Device *d = p->device;
    Workspace *work = &p->work;
    LatentWork *w = &work->mla;
    const LatentKept *k = kept ? &kept->latent : NULL;
    int64_t T = pass->T, W = c->R + c->P;
    float *q_a = k ? k->q_a : w->q_a, *kv = k ? k->kv : w->kv;
    void *q_plain = k ? k->q_plain : w->q_plain, *context = k ? k->context : w->context, *q = kept ? kept->q : work->q;
    const void *q_in = work->x;
    if (c->q_rank) {
        linear_forward(p, &l->q_a, T, work->x, STORE_F32, q_a);
        inner_norm(p, T, l->q_a_norm, q_a, c->q_rank, w->q_a_normed, k ? k->q_a_rstd : w->q_a_rstd);
        q_in = w->q_a_normed;
    }
    linear_forward(p, &l->q, T, q_in, STORE_F32, work->qkv);
    linear_forward(p, &l->kv_a, T, work->x, STORE_F32, kv);
    inner_norm(p, T, l->kv_a_norm, kv, W, w->latent, k ? k->kv_rstd : w->kv_rstd);
    d->latent_rope(d, &(LatentRopeArgs){.T = T, .heads = p->config.heads, .N = c->N, .P = c->P, .R = c->R, .dtype = p->dtype,
                                        .interleaved = c->interleaved, .q = work->qkv, .latent = w->latent, .key = kv + c->R, .ldkey = W,
                                        .position = angles_of(pass), .cos_sin = p->cos_sin[0], .q_plain = q_plain, .q_full = q,
                                        .pages = pass->pages + (size_t)layer * pass->layer_bytes, .slot_start = pass->slot_start, .slot = pass->slot});
    absorb_keys(p, T, &l->kv_b, q_plain, q);
    LatentAttentionArgs attention = attention_args(p, pass, layer, q, context, kept ? kept->lse : NULL);
    d->latent_attention(d, &attention);
    absorb_values(p, T, &l->kv_b, context, y);
}

// ---- backward --------------------------------------------------------------------------------------------
static void inner_norm_back(const Backward *b, Parameter *weight, const float *x, int64_t ldx, const float *rstd, const float *dy, void *dx) {
    const Policy *p = b->p;
    p->device->rmsnorm_grad(p->device, &(RmsnormGradArgs){.T = b->pass.T, .C = weight->N, .x = x, .ldx = ldx, .weight = weight->values, .rstd = rstd,
                                                          .dy = dy, .written = true, .dtype = p->dtype, .dx = dx, .lddx = ldx,
                                                          .dweight = weight->gradient, .segments = b->groups});
}

// From dq of all heads (in dact) to the stream's normed input: dwide grows.
static void queries_backward(const Backward *b, const Layer *l, const LatentKept *k) {
    Policy *p = b->p;
    const Training *t = &p->training;
    int64_t rank = p->config.latent.q_rank;
    if (!rank) {
        linear_backward(b, &l->q, p->work.x, t->dact, ADD_F32, t->dwide);
        return;
    }
    inner_norm(p, b->pass.T, l->q_a_norm, k->q_a, rank, p->work.mla.q_a_normed, NULL);
    linear_backward(b, &l->q, p->work.mla.q_a_normed, t->dact, STORE_F32, t->mla.dq_a);
    inner_norm_back(b, l->q_a_norm, k->q_a, rank, k->q_a_rstd, t->mla.dq_a, t->mla.dq_a_act);
    linear_backward(b, &l->q_a, p->work.x, t->mla.dq_a_act, ADD_F32, t->dwide);
}

// What the adapter adds to dcontext, from the gradient of the values in dact; and to dq_plain, from that of the queries in work.q.
static void values_adapter(const Backward *b, const LoraLinear *a, const LatentKept *k) {
    const Policy *p = b->p;
    const LatentConfig *c = &p->config.latent;
    const Training *t = &p->training;
    Parameter *B = a->parts[0].B;
    int64_t T = b->pass.T;
    factor_rows(p, T, a->A, k->context, c->R, p->work.lora_u);
    heads_gradient(b, B, 1, p->work.lora_u, B->K, t->dact, c->V);
    through_B_back(p, T, B, 1, t->dact, p->work.lora_du);
    factor_gradient(b, a->A, k->context, c->R, p->work.lora_du, a->A->gradient2);
    factor_rows_back(p, T, a->A, p->work.lora_du, t->mla.dcontext, c->R);
}
static void keys_adapter(const Backward *b, const LoraLinear *a, const LatentKept *k) {
    const Policy *p = b->p;
    const LatentConfig *c = &p->config.latent;
    Parameter *B = a->parts[0].B;
    int64_t T = b->pass.T, W = c->R + c->P;
    factor_rows(p, T, a->A, p->work.q, W, p->work.lora_du);
    heads_gradient(b, B, 0, p->work.lora_du, B->K, k->q_plain, c->N);
    through_B_back(p, T, B, 0, k->q_plain, p->work.lora_u);
    factor_gradient(b, a->A, p->work.q, W, p->work.lora_u, a->A->gradient);
    through_B(p, T, B, 0, p->work.lora_du, ADD_F32, p->training.mla.dq_plain, c->N);
}

void latent_backward(const Backward *b, int layer) {
    Policy *p = b->p;
    const LatentConfig *c = &p->config.latent;
    const Layer *l = &p->layers[layer];
    const Device *d = p->device;
    const Kept *kept = &p->training.kept[layer];
    const LatentKept *k = &kept->latent;
    const Training *t = &p->training;
    const LoraLinear *a = lora_of(p, &l->kv_b);
    Parameter *kv_b = l->kv_b.weight;
    int64_t T = b->pass.T, W = c->R + c->P, H = p->config.heads;
    heads_gradient(b, kv_b, 1, k->context, c->R, t->dact, c->V);
    heads_product(p, T, &(HeadsProduct){.x = t->dact, .K = c->V, .x_head = c->V, .w = transposed_from(p, kv_b, 1), .w_step = transposed_step(kv_b),
                                        .N = c->R, .y_head = c->R, .store = STORE_F32, .y = t->mla.dcontext});
    if (a) values_adapter(b, a, k);
    d->latent_attention_grad(d, &(LatentAttentionGradArgs){.forward = attention_args(p, &b->pass, layer, kept->q, k->context, kept->lse),
                                                           .unit_count = b->groups.count, .unit = t->staged.unit, .unit_page = t->staged.unit_page,
                                                           .dy = t->mla.dcontext, .dq = t->dq, .dpages = t->dpages, .delta = t->delta,
                                                           .page_first_row = t->staged.page_first_row, .page_last_row = t->staged.page_last_row,
                                                           .page_count = p->paging.page_count});
    d->convert(d, &(ConvertArgs){.count = T * H * W, .dtype = p->dtype, .x = t->dq, .y = p->work.q});
    heads_gradient(b, kv_b, 0, p->work.q, W, k->q_plain, c->N);
    heads_product(p, T, &(HeadsProduct){.x = p->work.q, .K = c->R, .x_head = W, .w = packed_from(p, kv_b, 0), .w_step = packed_step(kv_b), .N = c->N,
                                        .y_head = c->N, .store = STORE_F32, .y = t->mla.dq_plain});
    if (a) keys_adapter(b, a, k);
    d->latent_rope_grad(d, &(LatentRopeGradArgs){.T = T, .heads = p->config.heads, .N = c->N, .P = c->P, .R = c->R, .dtype = p->dtype,
                                                 .interleaved = c->interleaved, .position = angles_of(&b->pass), .cos_sin = p->cos_sin[0],
                                                 .dq_plain = t->mla.dq_plain, .dq_full = t->dq, .dpages = t->dpages, .slot_start = b->pass.slot_start,
                                                 .slot = b->pass.slot, .dq = t->dact, .dlatent = t->mla.dlatent,
                                                 .dkey = (char *)t->mla.dkv + act_bytes(p, c->R), .ldkey = W});
    inner_norm_back(b, l->kv_a_norm, k->kv, W, k->kv_rstd, t->mla.dlatent, t->mla.dkv);
    linear_backward(b, &l->kv_a, p->work.x, t->mla.dkv, STORE_F32, t->dwide);
    queries_backward(b, l, k);
}
