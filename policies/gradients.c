// Gradients from the start of a step to its update: zeroed, read as norms, used by AdamW. Passes add to them in between
// (linear.c, transformer.c, training.c).
//
// Zeroing only marks a matrix as fresh: the first product that gives its whole gradient writes it instead of adding to it
// (gradient_begins), and what is still fresh when it is read, or when a part of it is added to, is zeroed there. Vectors are zeroed
// at once.
//
// A sum has one order, whatever the split into microbatches, so no two passes of a step may add to one number by turns. A tied
// embedding is used twice, by the head and by lookups: what lookups give is summed apart, in rows only of those ids that
// occurred since the gradients were zeroed. `gradients_settle` adds these rows to the head's sum, once, before anything reads a
// gradient. A pass may follow even then: its lookups begin rows of their own, which are added when gradients are read
// again. That is the same gradient, but not the same order of sums, so not always the same bits.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

Parameter *trained_parameter(const Policy *p, int index) {
    const Adapter *a = p->trained;
    if (a) return index < a->count ? &a->parameters[index] : NULL;
    for (int i = 0; p->trainable && i < p->parameter_count; i++)
        if (p->parameters[i].trained && index-- == 0) return &p->parameters[i];
    return NULL;
}

// ---- lookups of a tied embedding -------------------------------------------------------------------------
bool lookups_reserve(Policy *p, int64_t rows, Err *err) {
    Lookups *l = &p->lookups;
    const Device *d = p->device;
    int64_t V = p->config.vocabulary, C = p->config.width;
    void *more;
    if (rows > V) rows = V;
    if (rows <= l->capacity) return true;
    if (l->capacity) rows += rows / 4; // a step may meet new ids in each of its passes
    if (rows > V) rows = V;
    TRY(hold(d, (size_t)(rows * C) * 4, "gradients of looked up rows", &more, err));
    if (l->capacity) d->copy(d, more, l->rows, (size_t)(l->capacity * C) * 4);
    d->release(d, l->rows);
    l->rows = more, l->capacity = rows;
    if (l->row_of) return true;
    l->row_of = xmalloc((size_t)V * sizeof(int32_t)), l->id = xmalloc((size_t)V * sizeof(int32_t));
    memset(l->row_of, -1, (size_t)V * sizeof(int32_t));
    return true;
}
static void lookups_forget(Lookups *l) {
    for (int32_t i = 0; i < l->count; i++) l->row_of[l->id[i]] = -1;
    l->count = 0;
}
void lookups_free(Policy *p) {
    Lookups *l = &p->lookups;
    p->device->release(p->device, l->rows);
    stage_free(p, &l->stage);
    free(l->row_of), free(l->id), free(l->token_row);
    *l = (Lookups){0};
}

static void find_rows(Lookups *l, const Packed *b) {
    if (b->token_count > l->token_capacity) {
        l->token_capacity = b->token_count;
        l->token_row = xrealloc(l->token_row, (size_t)b->token_count * sizeof(int32_t));
    }
    for (int32_t t = 0; t < b->token_count; t++) {
        int32_t id = b->tokens[t];
        if (l->row_of[id] < 0) {
            l->row_of[id] = l->count;
            l->id[l->count++] = id;
        }
        l->token_row[t] = l->row_of[id];
    }
}
bool lookups_begin(Policy *p, const Packed *b, Err *err) {
    Lookups *l = &p->lookups;
    const Device *d = p->device;
    int64_t before = l->count, C = p->config.width;
    find_rows(l, b);
    bool ok = lookups_reserve(p, l->count, err);
    if (ok) {
        d->zero(d, l->rows + before * C, (size_t)((l->count - before) * C) * 4);
        STAGE_ADD(&l->stage, l->token_row, b->token_count, &l->staged_row);
        STAGE_ADD(&l->stage, l->id, l->count, &l->staged_id);
        ok = stage_send(p, &l->stage, err);
    }
    if (!ok) lookups_forget(l);
    return ok;
}

// ---- a step's beginning, and its end ---------------------------------------------------------------------
static void zero_gradient(const Policy *p, const Parameter *q) {
    size_t bytes = (size_t)(q->N * q->K) * 4;
    p->device->zero(p->device, q->gradient, bytes);
    if (q->gradient2) p->device->zero(p->device, q->gradient2, bytes);
}
void gradient_prepare(const Policy *p, Parameter *q) {
    if (gradient_begins(q)) zero_gradient(p, q);
}
void policy_zero_gradients(Policy *p) {
    Parameter *q;
    lookups_forget(&p->lookups);
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        q->fresh = q->matrix;
        if (!q->fresh) zero_gradient(p, q);
    }
}

void gradients_settle(Policy *p) {
    Lookups *l = &p->lookups;
    Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) gradient_prepare(p, q);
    if (l->count == 0) return;
    p->device->scatter(p->device, &(ScatterArgs){.T = l->count, .C = p->config.width, .row = l->staged_id, .x = l->rows, .y = p->embedding->gradient});
    lookups_forget(l);
}

static void queue_square_sum(const Policy *p, const float *a, const float *b, int64_t count, int64_t from) {
    p->device->square_sum(p->device, &(SquareSumArgs){.count = count, .a = a, .b = b, .partial = p->norm_partial + from});
}
static void read_square_sums(const Policy *p, int64_t blocks) {
    p->device->download(p->device, p->norm_host, p->norm_partial, (size_t)blocks * sizeof *p->norm_host);
}
static double square_sum(const Policy *p, int64_t count, int64_t from) {
    double sum = 0;
    for (int64_t i = from; i < from + norm_blocks(count); i++) sum += p->norm_host[i];
    return sum;
}

// The gradient of what was packed with a scale is that of the packed form: the chain rule's factor is left to its readers.
static double gradient_factor(const Parameter *q) { return q->scale == 0 ? 1 : (double)q->scale; }
double policy_gradient_norm(Policy *p) {
    double sum = 0;
    int64_t at = 0;
    const Parameter *q;
    gradients_settle(p);
    for (int i = 0; (q = trained_parameter(p, i)); at += norm_blocks(q->N * q->K), i++)
        queue_square_sum(p, q->gradient, q->gradient2, q->N * q->K, at);
    read_square_sums(p, at); // one wait for a GPU, whatever the number of parameters
    at = 0;
    for (int i = 0; (q = trained_parameter(p, i)); at += norm_blocks(q->N * q->K), i++)
        sum += gradient_factor(q) * gradient_factor(q) * square_sum(p, q->N * q->K, at);
    return sqrt(sum);
}

static const ParameterPart *part_at(const Policy *p, int index, const Parameter **parameter) {
    const Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        if (index < q->part_count) {
            *parameter = q;
            return &q->parts[index];
        }
        index -= q->part_count;
    }
    return NULL;
}
int policy_parameter_count(const Policy *p) {
    int count = 0;
    const Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) count += q->part_count;
    return count;
}
const char *policy_parameter_name(const Policy *p, int index) {
    const Parameter *q;
    const ParameterPart *part = part_at(p, index, &q);
    return part ? part->name : NULL;
}
double policy_parameter_gradient_norm(Policy *p, int index) {
    const Parameter *q;
    gradients_settle(p);
    const ParameterPart *part = part_at(p, index, &q);
    int64_t at = part->row * q->K, count = part->rows * q->K;
    queue_square_sum(p, q->gradient + at, q->gradient2 ? q->gradient2 + at : NULL, count, 0);
    read_square_sums(p, norm_blocks(count));
    return gradient_factor(q) * sqrt(square_sum(p, count, 0));
}

bool policy_update(Policy *p, const AdamW *a, Err *err) {
    retain_drop(p);
    p->optimizer_steps++;
    double step = (double)p->optimizer_steps;
    AdamwArgs args = {.scale = (float)a->scale,
                      .learning_rate = (float)a->learning_rate,
                      .beta1 = (float)a->beta1,
                      .beta2 = (float)a->beta2,
                      .eps = (float)a->eps,
                      .correction1 = (float)(1.0 - exact_pow((double)(float)a->beta1, step)),
                      .correction2 = (float)(1.0 - exact_pow((double)(float)a->beta2, step))};
    Parameter *q;
    gradients_settle(p);
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        args.count = q->N * q->K;
        args.scale = (float)(a->scale * gradient_factor(q));
        args.w = q->values, args.m = q->m, args.v = q->v;
        args.gradient = q->gradient, args.gradient2 = q->gradient2;
        args.weight_decay = q->matrix ? (float)a->weight_decay : 0.0f;
        p->device->adamw(p->device, &args);
        parameter_pack(p, q, q->values);
    }
    return p->device->finish(p->device, err);
}

void policy_reset_optimizer(Policy *p) {
    p->optimizer_steps = 0;
    const Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        size_t bytes = (size_t)(q->N * q->K) * 4;
        p->device->zero(p->device, q->m, bytes);
        p->device->zero(p->device, q->v, bytes);
    }
}
