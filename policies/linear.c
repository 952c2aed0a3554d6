// Products with weights, forward and backward: one home, so that what joins a product (an adapter, a weight kept in blocks)
// is said once for every place of every family.
#include "model.h"

void linear_forward(const Policy *p, const Linear *l, int64_t T, const void *x, Store store, void *y) {
    const Parameter *w = l->weight;
    p->device->matmul(p->device, &(MatmulArgs){.M = T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x, .ldx = w->K,
                                               .w = w->packed, .bias = l->bias ? l->bias->values : NULL, .store = store,
                                               .y = y, .ldy = w->N});
}

void linear_backward(const Backward *b, const Linear *l, const void *x, const void *dy, float *dx) {
    const Policy *p = b->p;
    const Parameter *w = l->weight;
    p->device->matmul_grad(p->device, &(MatmulGradArgs){.T = b->pass.T, .N = w->N, .K = w->K, .dtype = p->dtype, .x = x,
                                                        .ldx = w->K, .dy = dy, .ldy = w->N, .dw = w->gradient,
                                                        .dbias = l->bias ? l->bias->gradient : NULL,
                                                        .segments = b->groups, .scratch = p->training.scratch});
    p->device->matmul(p->device, &(MatmulArgs){.M = b->pass.T, .N = w->K, .K = w->N, .dtype = p->dtype, .x = dy, .ldx = w->N,
                                               .w = w->transposed, .store = STORE_F32, .y = dx, .ldy = w->K});
}
