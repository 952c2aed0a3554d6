// Weighted means of models with the same tensors ("model soups", Wortsman et al., arXiv 2203.05482). Sums are taken in double, in
// the order in which the models are named, and rounded to fp32 once, so that the mean is a function of the files. Models whose
// shapes differ from the policy's are refused by the tensor that differs. A model may be an adapter (a PEFT folder): then it is the
// adapter's base with the adapter merged.
#include "export.h"
#include "lora_files.h"
#include "model.h"
#include "weights.h"
#include <stdlib.h>
#include <string.h>

typedef struct Source {
    Weights *w;
    Merge *merge; // NULL: the weights alone
} Source;

static bool source_open(const char *path, Source *out, char hash[65], Err *err) {
    char *base = NULL, said[65] = "", found[65];
    bool adapter = folder_is_adapter(path);
    bool ok = (!adapter || adapter_base(path, &base, said, err)) && weights_open(base ? base : path, false, &out->w, err);
    if (ok && said[0]) {
        ok = weights_hash(out->w, found, err);
        if (ok && strcmp(found, said) != 0)
            ok = fail(err, ERR_DATA, base, "has the SHA-256 %.16s..., but the adapter %s was trained on %.16s...: it is another base", found, path, said);
    }
    ok = ok && (!adapter || merge_open(path, out->w, &out->merge, err)) && policy_files_hash(path, hash, err);
    free(base);
    return ok;
}
static void source_close(Source *s) {
    merge_close(s->merge);
    if (s->w) weights_close(s->w);
}

static bool add_model(const Parameter *q, const Source *from, double share, float *values, double *sum, Err *err) {
    for (int i = 0; i < q->part_count; i++) {
        const ParameterPart *part = &q->parts[i];
        int64_t shape[2] = {part->rows, q->K};
        float *rows = values + part->row * q->K;
        TRY(weights_read(from->w, part->name, q->matrix ? 2 : 1, shape, rows, err));
        if (from->merge && merge_adds(from->merge, part->name) && !merge_add(from->merge, part->name, 0, part->rows, q->K, rows))
            return fail(err, ERR_DATA, part->name, "the adapter's factors don't fit this tensor");
    }
    for (int64_t i = 0; i < q->N * q->K; i++) sum[i] += share * (double)values[i];
    return true;
}

static bool average_parameter(Policy *p, Parameter *q, const Source *from, const double *shares, int count, Err *err) {
    int64_t n = q->N * q->K;
    float *values = NULL;
    double *sum = NULL;
    bool ok = mem_alloc((size_t)n * sizeof *values, q->parts[0].name, (void **)&values, err) &&
              mem_alloc((size_t)n * sizeof *sum, q->parts[0].name, (void **)&sum, err);
    for (int i = 0; ok && i < count; i++) {
        ok = add_model(q, &from[i], shares[i], values, sum, err);
        weights_drop_pages(from[i].w);
    }
    for (int64_t i = 0; ok && i < n; i++) values[i] = (float)sum[i];
    ok = ok && parameter_set(p, q, values, err);
    mem_free(values), mem_free(sum);
    return ok;
}

bool policy_average(Policy *p, const char *const *paths, const double *shares, int count, char (*hashes)[65], Err *err) {
    if (p->trained) return fail(err, ERR_DATA, "merge", "an adapter is trained here: its factors' mean isn't the models' mean");
    Source *from = xcalloc((size_t)count + 1, sizeof *from);
    bool ok = true;
    retain_drop(p);
    for (int i = 0; ok && i < count; i++) ok = source_open(paths[i], &from[i], hashes[i], err);
    for (int i = 0; ok && i < p->parameter_count; i++) ok = average_parameter(p, &p->parameters[i], from, shares, count, err);
    for (int i = 0; i < count; i++) source_close(&from[i]);
    free(from);
    return ok;
}
