// Weighted means of models with the same tensors ("model soups", Wortsman et al., arXiv 2203.05482). Sums are taken in double, in
// the order in which the models are named, and rounded to fp32 once, so that the mean is a function of the files. Models whose
// shapes differ from the policy's are refused by the tensor that differs.
#include "model.h"
#include "weights.h"
#include <stdlib.h>

static bool add_model(const Parameter *q, const Weights *w, double share, float *values, double *sum, Err *err) {
    for (int i = 0; i < q->part_count; i++) {
        const ParameterPart *part = &q->parts[i];
        int64_t shape[2] = {part->rows, q->K};
        TRY(weights_read(w, part->name, q->matrix ? 2 : 1, shape, values + part->row * q->K, err));
    }
    for (int64_t i = 0; i < q->N * q->K; i++) sum[i] += share * (double)values[i];
    return true;
}

static bool average_parameter(Policy *p, Parameter *q, Weights *const *w, const double *shares, int count, Err *err) {
    int64_t n = q->N * q->K;
    float *values = NULL;
    double *sum = NULL;
    bool ok = mem_alloc((size_t)n * sizeof *values, q->parts[0].name, (void **)&values, err) &&
              mem_alloc((size_t)n * sizeof *sum, q->parts[0].name, (void **)&sum, err);
    for (int i = 0; ok && i < count; i++) {
        ok = add_model(q, w[i], shares[i], values, sum, err);
        weights_drop_pages(w[i]);
    }
    for (int64_t i = 0; ok && i < n; i++) values[i] = (float)sum[i];
    ok = ok && parameter_set(p, q, values, err);
    mem_free(values), mem_free(sum);
    return ok;
}

bool policy_average(Policy *p, const char *const *paths, const double *shares, int count, char (*hashes)[65], Err *err) {
    if (p->trained) return fail(err, ERR_DATA, "merge", "an adapter is trained here: its factors' mean isn't the models' mean");
    Weights **w = xcalloc((size_t)count + 1, sizeof *w);
    bool ok = true;
    for (int i = 0; ok && i < count; i++) ok = weights_open(paths[i], false, &w[i], err) && weights_hash(w[i], hashes[i], err);
    for (int i = 0; ok && i < p->parameter_count; i++) ok = average_parameter(p, &p->parameters[i], w, shares, count, err);
    for (int i = 0; i < count; i++)
        if (w[i]) weights_close(w[i]);
    free(w);
    return ok;
}
