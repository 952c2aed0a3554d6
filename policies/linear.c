// Products with weights, forward and backward: one home, so that what joins a product (an adapter, a weight kept in blocks)
// is said once for every place of every family.
#include "model.h"

// y and its columns from `row` on: of the parts of a matrix.
static void *columns_from(const Policy *p, void *y, int64_t row, Store store) {
    return (char *)y + (store == STORE_ACT ? act_bytes(p, row) : (size_t)row * 4);
}
// A matrix kept in blocks is multiplied part by part: parts may have types of their own.
static void kept_forward(const Policy *p, const Linear *l, int64_t T, const void *x, Store store, void *y) {
    const Parameter *w = l->weight;
    for (int i = 0; i < w->part_count; i++)
        p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = w->parts[i].rows, .K = w->K, .dtype = p->dtype, .x = x, .ldx = w->K,
                                                   .w = (const char *)w->packed + w->kept[i].at, .format = w->kept[i].format,
                                                   .interleaved = w->kept[i].interleaved,
                                                   .bias = l->bias ? l->bias->values + w->parts[i].row : NULL, .store = store,
                                                   .y = columns_from(p, y, w->parts[i].row, store), .ldy = w->N,
                                                   .scratch = p->block_scratch});
}
static void kept_backward(const Policy *p, const Parameter *w, int64_t T, const void *dy, Store store, float *dx) {
    for (int i = 0; i < w->part_count; i++)
        p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = w->K, .K = w->parts[i].rows, .dtype = p->dtype,
                                                   .x = (const char *)dy + act_bytes(p, w->parts[i].row), .ldx = w->N,
                                                   .w = (const char *)w->packed + w->kept[i].at, .format = w->kept[i].format,
                                                   .interleaved = w->kept[i].interleaved,
                                                   .transposed = true, .store = i ? ADD_F32 : store, .y = dx, .ldy = w->K,
                                                   .scratch = p->block_scratch});
}

void linear_back_by(const Policy *p, const Parameter *w, MatmulArgs *product) {
    product->transposed = !w->transposed;
    product->w = w->transposed ? w->transposed : w->packed;
    product->scratch = p->turn_scratch;
}

static void base_forward(const Policy *p, const Linear *l, int64_t T, const void *x, Store store, void *y) {
    const Parameter *w = l->weight;
    bool bytes = in_int8(p, w);
    if (w->kept) {
        kept_forward(p, l, T, x, store, y);
        return;
    }
    p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x, .ldx = w->K,
                                               .w = bytes ? w->int8 : w->packed, .format = bytes ? WEIGHT_INT8 : WEIGHT_PACKED,
                                               .scratch = bytes ? p->work.int8_x : NULL, .bias = l->bias ? l->bias->values : NULL, .store = store,
                                               .y = y, .ldy = w->N});
}

// u = A x, act [T, width].
static void lora_down(const Policy *p, const LoraLinear *a, int64_t T, const void *x) {
    p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = a->A->N, .K = a->A->K, .dtype = p->dtype, .x = x, .ldx = a->A->K,
                                               .w = a->A->packed, .store = STORE_ACT, .y = p->work.lora_u, .ldy = a->A->N});
}
static char *columns_of(const Policy *p, void *u, const LoraPart *part) { return (char *)u + act_bytes(p, part->column); }

// What an adapter adds is added in fp32, before the sum is rounded to bf16.
void linear_forward(const Policy *p, const Linear *l, int64_t T, const void *x, Store store, void *y) {
    const LoraLinear *a = lora_of(p, l);
    if (!a) {
        base_forward(p, l, T, x, store, y);
        return;
    }
    bool aside = store == STORE_ACT && p->dtype != DTYPE_F32;
    float *sum = aside ? p->work.lora_wide : y;
    int64_t N = l->weight->N;
    base_forward(p, l, T, x, aside ? STORE_F32 : store, sum);
    lora_down(p, a, T, x);
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = part->rows, .K = part->B->K, .dtype = p->dtype,
                                                   .x = columns_of(p, p->work.lora_u, part), .ldx = a->A->N,
                                                   .w = part->B->packed, .store = ADD_F32, .y = sum + part->row, .ldy = N});
    }
    if (aside) p->device->convert(p->device, &(ConvertArgs){.count = T * N, .dtype = p->dtype, .x = sum, .y = y});
}

static void weight_gradient(const Backward *b, Parameter *w, const void *x, int64_t ldx, const void *dy, int64_t ldy, float *dbias) {
    const Policy *p = b->p;
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x,
                                                        .ldx = ldx, .dy = dy, .ldy = ldy, .dw = w->gradient,
                                                        .written = gradient_begins(w), .dbias = dbias, .segments = b->groups,
                                                        .scratch = p->training.scratch});
}

// du = (s B)^T dy, which stays in work.lora_du; dx += A^T du.
static void lora_input_gradient(const Backward *b, const LoraLinear *a, const Linear *l, const void *dy, float *dx) {
    const Policy *p = b->p;
    int64_t N = l->weight->N, K = l->weight->K, width = a->A->N;
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        p->device->matmul(p->device, &(MatmulArgs){.M = b->pass.T, .N = part->B->K, .K = part->rows, .dtype = p->dtype,
                                                   .x = (const char *)dy + act_bytes(p, part->row), .ldx = N, .w = part->B->transposed,
                                                   .store = STORE_ACT, .y = columns_of(p, p->work.lora_du, part), .ldy = width});
    }
    p->device->matmul(p->device, &(MatmulArgs){.M = b->pass.T, .N = K, .K = width, .dtype = p->dtype, .x = p->work.lora_du, .ldx = width,
                                               .w = a->A->transposed, .store = ADD_F32, .y = dx, .ldy = K});
}

// u = A x, dB += dy^T u, dA += du^T x.
static void lora_weight_gradient(const Backward *b, const LoraLinear *a, const Linear *l, const void *x, const void *dy) {
    const Policy *p = b->p;
    int64_t N = l->weight->N, K = l->weight->K, width = a->A->N;
    lora_down(p, a, b->pass.T, x);
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        weight_gradient(b, part->B, columns_of(p, p->work.lora_u, part), width, (const char *)dy + act_bytes(p, part->row), N, NULL);
    }
    weight_gradient(b, a->A, x, K, p->work.lora_du, width, NULL);
}

void linear_input_gradient(const Backward *b, const Linear *l, const void *dy, Store store, float *dx) {
    const Policy *p = b->p;
    Parameter *w = l->weight;
    const LoraLinear *a = lora_of(p, l);
    if (w->kept) {
        kept_backward(p, w, b->pass.T, dy, store, dx);
    } else {
        MatmulArgs back = {.M = b->pass.T, .N = w->K, .K = w->N, .dtype = p->dtype, .x = dy, .ldx = w->N, .store = store, .y = dx, .ldy = w->K};
        linear_back_by(p, w, &back);
        p->device->matmul(p->device, &back);
    }
    if (a) lora_input_gradient(b, a, l, dy, dx);
}
void linear_weight_gradient(const Backward *b, const Linear *l, const void *x, const void *dy) {
    Parameter *w = l->weight;
    const LoraLinear *a = lora_of(b->p, l);
    if (w->trained) weight_gradient(b, w, x, w->K, dy, w->N, l->bias ? l->bias->gradient : NULL);
    if (a) lora_weight_gradient(b, a, l, x, dy);
}
void linear_backward(const Backward *b, const Linear *l, const void *x, const void *dy, Store store, float *dx) {
    linear_input_gradient(b, l, dy, store, dx);
    linear_weight_gradient(b, l, x, dy);
}

// ---- a matrix an expert ----------------------------------------------------------------------------------
// Many products with w by turns, of expert after expert: forward by the packed matrices, or back by their transposes.
static MatmulArgs sorted_args(const Policy *p, const Parameter *w, const Sorted *s, bool back) {
    int64_t N = block_rows(w, 0), K = w->K;
    MatmulArgs args = {.M = s->rows, .N = back ? K : N, .K = back ? N : K, .dtype = p->dtype, .ldx = back ? N : K, .ldy = back ? K : N,
                       .w = w->packed, .store = STORE_F32,
                       .products = {.count = block_count(w), .every = s->every, .start = s->start,
                                    .w_step = back && w->transposed ? block_transposed(w, 1) : block_packed(w, 1)}};
    if (back) linear_back_by(p, w, &args);
    return args;
}
// The products of the base: of experts kept in blocks, gate and up one after the other, as they may have types of their own.
static void sorted_base(const Policy *p, const Parameter *w, const Sorted *s, bool back, const void *x, Store store, void *y) {
    MatmulArgs args = sorted_args(p, w, s, back);
    args.x = x, args.store = store, args.y = y;
    int kinds = w->kept ? w->part_count / block_count(w) : 1;
    for (int i = 0; i < kinds; i++) {
        if (w->kept) {
            int64_t row = w->parts[i].row, rows = w->parts[i].rows;
            args.w = (const char *)w->packed + w->kept[i].at, args.format = w->kept[i].format, args.scratch = p->block_scratch;
            args.products.w_step = w->part_count > kinds ? (int64_t)(w->kept[kinds + i].at - w->kept[i].at) : 0;
            args.transposed = back;
            if (back) args.x = (const char *)x + act_bytes(p, row), args.K = rows, args.store = i ? ADD_F32 : store;
            else args.y = columns_from(p, y, row, store), args.N = rows;
        }
        p->device->matmul(p->device, &args);
    }
}
static void sorted_gradient(const Policy *p, Parameter *w, const Sorted *s, const void *x, int64_t ldx, const void *dy, int64_t ldy) {
    int64_t N = block_rows(w, 0);
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = s->rows, .N = N, .K = w->K, .dtype = p->dtype, .x = x, .ldx = ldx, .dy = dy,
                                                        .ldy = ldy, .dw = w->gradient, .written = gradient_begins(w), .scratch = p->training.scratch,
                                                        .products = {.count = block_count(w), .every = s->every, .start = s->start,
                                                                     .w_step = N * w->K}});
}
static void sorted_lora_down(const Policy *p, const LoraLinear *a, const Sorted *s, const void *x) {
    MatmulArgs args = sorted_args(p, a->A, s, false);
    args.x = x, args.store = STORE_ACT, args.y = p->work.lora_u;
    p->device->matmul(p->device, &args);
}

void experts_product(const Policy *p, const Linear *l, const Sorted *s, const void *x, Store store, void *y) {
    const LoraLinear *a = lora_of(p, l);
    bool aside = a && store == STORE_ACT && p->dtype != DTYPE_F32;
    float *sum = aside ? p->work.lora_wide : y;
    int64_t N = block_rows(l->weight, 0);
    sorted_base(p, l->weight, s, false, x, aside ? STORE_F32 : store, sum);
    if (!a) return;
    sorted_lora_down(p, a, s, x);
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        MatmulArgs args = sorted_args(p, part->B, s, false);
        args.x = columns_of(p, p->work.lora_u, part), args.ldx = block_rows(a->A, 0);
        args.store = ADD_F32, args.y = sum + part->row, args.ldy = N;
        p->device->matmul(p->device, &args);
    }
    if (aside) p->device->convert(p->device, &(ConvertArgs){.count = s->rows * N, .dtype = p->dtype, .x = sum, .y = y});
}
// An adapter's du = (s B)^T dy stays in work.lora_du.
void experts_input_gradient(const Backward *b, const Linear *l, const Sorted *s, const void *dy, float *dx) {
    const Policy *p = b->p;
    const LoraLinear *a = lora_of(p, l);
    sorted_base(p, l->weight, s, true, dy, STORE_F32, dx);
    if (!a) return;
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        MatmulArgs args = sorted_args(p, part->B, s, true);
        args.x = (const char *)dy + act_bytes(p, part->row), args.ldx = block_rows(l->weight, 0);
        args.store = STORE_ACT, args.y = columns_of(p, p->work.lora_du, part), args.ldy = block_rows(a->A, 0);
        p->device->matmul(p->device, &args);
    }
    MatmulArgs args = sorted_args(p, a->A, s, true);
    args.x = p->work.lora_du, args.store = ADD_F32, args.y = dx;
    p->device->matmul(p->device, &args);
}
void experts_weight_gradient(const Backward *b, const Linear *l, const Sorted *s, const void *x, const void *dy) {
    const Policy *p = b->p;
    Parameter *w = l->weight;
    const LoraLinear *a = lora_of(p, l);
    int64_t N = block_rows(w, 0), width = a ? block_rows(a->A, 0) : 0;
    if (w->trained) sorted_gradient(p, w, s, x, w->K, dy, N);
    if (!a) return;
    sorted_lora_down(p, a, s, x);
    for (int i = 0; i < a->part_count; i++) {
        const LoraPart *part = &a->parts[i];
        sorted_gradient(p, part->B, s, columns_of(p, p->work.lora_u, part), width, (const char *)dy + act_bytes(p, part->row), N);
    }
    sorted_gradient(p, a->A, s, x, w->K, p->work.lora_du, width);
}
