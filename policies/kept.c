// Weights that stay in the blocks of their GGUF file: which ones can, how they are read, and what they are as numbers. Products
// decode them (linear.c); the rest of a policy sees them only through parameter_get. Blocks are copied into memory of the policy's
// own, or used within the file (bf16 too) until decoding begins, when load.c packs them: then the first token needn't wait for
// memory.
#include "blocks.h"
#include "files.h"
#include "model.h"
#include "storage.h"
#include <stdlib.h>
#include <string.h>

static const char *const names[WEIGHT_FORMATS] = {[WEIGHT_Q8_0] = "Q8_0", [WEIGHT_Q4_0] = "Q4_0", [WEIGHT_Q4_1] = "Q4_1", [WEIGHT_Q5_0] = "Q5_0",
                                                  [WEIGHT_Q5_1] = "Q5_1", [WEIGHT_Q4_K] = "Q4_K", [WEIGHT_Q6_K] = "Q6_K",
                                                  [WEIGHT_BF16] = "BF16"};
WeightFormat stored_format(const char *type) {
    for (int i = WEIGHT_PACKED + 1; i < WEIGHT_FORMATS; i++)
        if (strcmp(names[i], type) == 0) return (WeightFormat)i;
    return WEIGHT_PACKED;
}
static bool is_blocks(WeightFormat f) { return f != WEIGHT_PACKED && f != WEIGHT_BF16; }
static const StorageType *storage_of(WeightFormat f) { return storage_by_name(names[f]); }

// Which matrices of an expert stand by turns: gate and up, or down alone; as many parts.
static int kinds_of(const Parameter *q) { return q->role == ROLE_EXPERTS_GATE_UP ? 2 : 1; }
bool kept_can(const Policy *p, const Parameter *q, const Weights *w) {
    bool experts = q->role == ROLE_EXPERTS_GATE_UP || q->role == ROLE_EXPERTS_DOWN;
    // A device decodes a head whole for each product: no memory would be won.
    bool head = q == p->head && !p->device->is_host;
    bool can = p->keep_blocks && q->matrix && !q->trained && !head && (!q->block[0] || experts);
    WeightFormat first[2] = {WEIGHT_PACKED, WEIGHT_PACKED};
    for (int i = 0; can && i < q->part_count; i++) {
        TensorInfo t;
        can = weights_find(w, q->parts[i].name, &t) && is_blocks(stored_format(t.type));
        if (can && i < 2) first[i] = stored_format(t.type);
        if (can && experts) can = stored_format(t.type) == first[i % kinds_of(q)]; // they are multiplied by in one go
    }
    return can;
}

bool kept_can_in_file(const Policy *p, const Parameter *q, const Weights *w) {
    bool can = p->file == w && q->matrix && q->role != ROLE_KV_B && !q->block[0] && !q->sampled_int8 && q->K % 32 == 0 && !kept_can(p, q, w);
    for (int i = 0; can && i < q->part_count; i++) {
        TensorInfo t;
        int64_t interleaved;
        can = weights_find(w, q->parts[i].name, &t) && stored_format(t.type) != WEIGHT_PACKED && weights_in_file(w, q->parts[i].name, &interleaved) != NULL;
    }
    return can;
}
// Parts are counted from the one that lies first.
void kept_in_file(Parameter *q, const Weights *w) {
    uintptr_t first = UINTPTR_MAX;
    q->kept = xcalloc((size_t)q->part_count, sizeof *q->kept);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < q->part_count; i++) {
            TensorInfo t = {0};
            int64_t interleaved;
            uintptr_t at = (uintptr_t)weights_in_file(w, q->parts[i].name, &interleaved);
            if (at < first) first = at;
            if (round == 0 || !weights_find(w, q->parts[i].name, &t)) continue;
            q->kept[i] = (KeptPart){.format = stored_format(t.type), .at = at - first, .interleaved = interleaved};
            q->kept_bytes += t.bytes;
        }
    q->packed = (void *)first;
    q->in_file = true;
}

bool kept_alloc(const Policy *p, Parameter *q, const Weights *w, Err *err) {
    q->kept = xcalloc((size_t)q->part_count, sizeof *q->kept);
    for (int i = 0; i < q->part_count; i++) {
        TensorInfo t = {0};
        if (!weights_find(w, q->parts[i].name, &t)) return fail(err, ERR_SOFTWARE, q->parts[i].name, "is missing");
        q->kept[i] = (KeptPart){.format = stored_format(t.type), .at = q->kept_bytes};
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

// Calls `take` with the numbers of some rows after others, from the first one on.
static bool each_rows(const Policy *p, const Parameter *q, void (*take)(void *context, int64_t row, const float *values, int64_t rows), void *context, Err *err) {
    enum { TOGETHER = 1 << 18 }; // numbers
    const Device *d = p->device;
    uint8_t *host = q->packed;
    int64_t most = q->K < TOGETHER ? TOGETHER / q->K : 1;
    void *values = NULL;
    bool ok = mem_alloc((size_t)(most * q->K) * sizeof(float), q->parts[0].name, &values, err);
    if (ok && !d->is_host) {
        host = NULL;
        ok = mem_alloc(q->kept_bytes, q->parts[0].name, (void **)&host, err);
        if (ok) d->download(d, host, q->packed, q->kept_bytes);
        ok = ok && d->finish(d, err);
    }
    for (int i = 0; ok && i < q->part_count; i++) {
        const StorageType *t = storage_of(q->kept[i].format);
        size_t row_bytes = (size_t)(q->K / t->block) * (size_t)t->block_bytes;
        for (int64_t row = 0, n; ok && row < q->parts[i].rows; row += n) {
            n = q->kept[i].interleaved ? 1 : q->parts[i].rows - row < most ? q->parts[i].rows - row : most;
            const uint8_t *rows = host + q->kept[i].at + (size_t)interleaved_row(row, q->kept[i].interleaved) * row_bytes;
            ok = storage_decode(t, rows, n * q->K / t->block, "weights", q->parts[i].name, values, err);
            if (ok) take(context, q->parts[i].row + row, values, n);
        }
    }
    if (!d->is_host) mem_free(host);
    mem_free(values);
    return ok;
}
typedef struct Copy {
    float *out;
    int64_t K;
} Copy;
static void copy_rows(void *context, int64_t row, const float *values, int64_t rows) {
    const Copy *c = context;
    memcpy(c->out + row * c->K, values, (size_t)(rows * c->K) * sizeof *values);
}
bool kept_get(const Policy *p, const Parameter *q, float *out, Err *err) {
    return each_rows(p, q, copy_rows, &(Copy){out, q->K}, err);
}
typedef struct Hashing {
    Sha256 *sha;
    int64_t K;
} Hashing;
static void hash_rows(void *context, int64_t row, const float *values, int64_t rows) {
    const Hashing *h = context;
    (void)row; // parts lie in the order of their rows
    sha256_add(h->sha, values, (size_t)(rows * h->K) * sizeof *values);
}
bool kept_hash(const Policy *p, const Parameter *q, char out[65], Err *err) {
    Hashing h = {sha256_start(), q->K};
    bool ok = each_rows(p, q, hash_rows, &h, err);
    sha256_end(h.sha, out);
    return ok;
}

bool kept_scratch(Policy *p, Err *err) {
    size_t most = 0;
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        int64_t N = q->N / (block_count(q) > 1 ? block_count(q) : 1), each = p->device->is_host ? 1 : block_count(q);
        size_t forward = (size_t)each * matmul_scratch(p->device->is_host, p->device->threads, N, q->K, p->dtype);
        size_t backward = (size_t)each * matmul_scratch(p->device->is_host, p->device->threads, q->K, N, p->dtype);
        if (q->kept && forward > most) most = forward;
        if (q->kept && p->trainable && backward > most) most = backward;
    }
    return most == 0 || p->device->allocate(p->device, most, "a decoded panel", &p->block_scratch, err);
}
