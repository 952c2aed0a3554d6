// Weights that stay in the blocks of their GGUF file: which ones can, how they are read, and what they are as numbers. Products
// decode them (linear.c); the rest of a policy sees them only through parameter_get.
#include "blocks.h"
#include "model.h"
#include "storage.h"
#include <stdlib.h>
#include <string.h>

static const char *const names[WEIGHT_FORMATS] = {[WEIGHT_Q8_0] = "Q8_0", [WEIGHT_Q4_0] = "Q4_0", [WEIGHT_Q4_1] = "Q4_1", [WEIGHT_Q5_0] = "Q5_0",
                                                  [WEIGHT_Q5_1] = "Q5_1", [WEIGHT_Q4_K] = "Q4_K", [WEIGHT_Q6_K] = "Q6_K"};
static WeightFormat format_of(const char *type) {
    for (int i = WEIGHT_PACKED + 1; i < WEIGHT_FORMATS; i++)
        if (strcmp(names[i], type) == 0) return (WeightFormat)i;
    return WEIGHT_PACKED;
}
static const StorageType *storage_of(WeightFormat f) { return storage_by_name(names[f]); }

bool kept_can(const Policy *p, const Parameter *q, const Weights *w) {
    bool product = q->role != ROLE_EMBEDDING && q->role != ROLE_HEAD; // what linear.c multiplies by
    bool can = p->keep_blocks && product && q->matrix && !q->trained && !q->block[0];
    for (int i = 0; can && i < q->part_count; i++) {
        TensorInfo t;
        can = weights_find(w, q->parts[i].name, &t) && format_of(t.type) != WEIGHT_PACKED;
    }
    return can;
}

bool kept_alloc(const Policy *p, Parameter *q, const Weights *w, Err *err) {
    q->kept = xcalloc((size_t)q->part_count, sizeof *q->kept);
    for (int i = 0; i < q->part_count; i++) {
        TensorInfo t = {0};
        if (!weights_find(w, q->parts[i].name, &t)) return fail(err, ERR_SOFTWARE, q->parts[i].name, "is missing");
        q->kept[i] = (KeptPart){.format = format_of(t.type), .at = q->kept_bytes};
        q->kept_bytes += (t.bytes + 63) / 64 * 64;
    }
    return p->device->allocate(p->device, q->kept_bytes, q->parts[0].name, &q->packed, err);
}

bool kept_load(const Policy *p, Parameter *q, const Weights *w, Err *err) {
    const Device *d = p->device;
    TRY(kept_alloc(p, q, w, err));
    uint8_t *host = q->packed;
    if (!d->is_host) TRY(mem_alloc(q->kept_bytes, q->parts[0].name, (void **)&host, err));
    bool ok = true;
    for (int i = 0; ok && i < q->part_count; i++)
        ok = weights_read_blocks(w, q->parts[i].name, q->parts[i].rows, q->K, host + q->kept[i].at, err);
    if (!d->is_host) {
        d->upload(d, q->packed, host, q->kept_bytes);
        mem_free(host);
    }
    return ok;
}

bool kept_get(const Policy *p, const Parameter *q, float *out, Err *err) {
    const Device *d = p->device;
    uint8_t *host = q->packed;
    bool ok = true;
    if (!d->is_host) {
        TRY(mem_alloc(q->kept_bytes, q->parts[0].name, (void **)&host, err));
        d->download(d, host, q->packed, q->kept_bytes);
        ok = d->finish(d, err);
    }
    for (int i = 0; ok && i < q->part_count; i++) {
        const StorageType *t = storage_of(q->kept[i].format);
        ok = storage_decode(t, host + q->kept[i].at, q->parts[i].rows * q->K / t->block, "weights", q->parts[i].name,
                            out + q->parts[i].row * q->K, err);
    }
    if (!d->is_host) mem_free(host);
    return ok;
}

bool kept_scratch(Policy *p, Err *err) {
    size_t most = 0;
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        size_t forward = matmul_scratch(p->device->is_host, p->device->threads, q->N, q->K, p->dtype);
        size_t backward = matmul_scratch(p->device->is_host, p->device->threads, q->K, q->N, p->dtype);
        if (q->kept && forward > most) most = forward;
        if (q->kept && p->trainable && backward > most) most = backward;
    }
    return most == 0 || p->device->allocate(p->device, most, "a decoded panel", &p->block_scratch, err);
}
