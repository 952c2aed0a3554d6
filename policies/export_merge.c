// An adapter merged on the way out: W + s B A, row by row, for the tensors that it has factors for. Only files are read; no
// model is opened. Every tensor of the adapter must belong to one of the model's, in the right shape.
#include "export_parts.h"
#include "files.h"
#include "lora_files.h"
#include <stdlib.h>
#include <string.h>

typedef struct MergeTensor {
    const char *name; // of the model's tensor
    float *A, *B;     // [rank, columns], [rows, rank]
    int64_t rows, columns;
} MergeTensor;
struct Merge {
    MergeTensor *tensors;
    int count;
    int64_t rank;
    double scale;
};

static const MergeTensor *find(const Merge *m, const char *name) {
    for (int i = 0; i < m->count; i++)
        if (strcmp(m->tensors[i].name, name) == 0) return &m->tensors[i];
    return NULL;
}
bool merge_adds(const void *merge, const char *name) { return find(merge, name) != NULL; }
bool merge_add(const void *merge, const char *name, int64_t first, int64_t rows, int64_t columns, float *values) {
    const Merge *m = merge;
    const MergeTensor *t = find(m, name);
    if (!t || t->columns != columns || first + rows > t->rows) return false;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < columns; k++) {
            double sum = 0;
            for (int64_t r = 0; r < m->rank; r++) sum += (double)t->B[(first + row) * m->rank + r] * (double)t->A[r * columns + k];
            values[row * columns + k] = (float)((double)values[row * columns + k] + m->scale * sum);
        }
    return true;
}

static bool read_factor(const Safetensors *s, const char *path, const char *module, const char *factor, int64_t rows, int64_t columns,
                        float **out, bool *there, Err *err) {
    char name[256];
    TensorInfo t;
    snprintf(name, sizeof name, "base_model.model.%s.lora_%s.weight", module, factor);
    *there = safetensors_find(s, name, &t);
    if (!*there) return true;
    if (t.dims != 2 || t.shape[0] != rows || t.shape[1] != columns)
        return fail(err, ERR_DATA, path, "tensor '%.200s' has not the shape [%lld, %lld]", name, (long long)rows, (long long)columns);
    TRY(mem_alloc((size_t)(rows * columns) * sizeof(float), name, (void **)out, err));
    return safetensors_read(s, name, *out, err);
}
static bool read_factors(Merge *m, const Safetensors *s, const char *path, const Weights *w, Err *err) {
    m->tensors = xcalloc((size_t)w->all + 1, sizeof *m->tensors);
    for (int i = 0; i < w->all; i++) {
        TensorInfo info = w->tensors[i].info;
        char module[128];
        bool a = false, b = false;
        size_t n = strlen(info.name);
        if (w->tensors[i].merged || info.dims != 2 || n < 8 || n >= sizeof module || strcmp(info.name + n - 7, ".weight") != 0) continue;
        snprintf(module, sizeof module, "%.*s", (int)(n - 7), info.name);
        MergeTensor *t = &m->tensors[m->count];
        *t = (MergeTensor){.name = info.name, .rows = info.shape[0], .columns = info.shape[1]};
        m->count++;
        TRY(read_factor(s, path, module, "A", m->rank, t->columns, &t->A, &a, err) && read_factor(s, path, module, "B", t->rows, m->rank, &t->B, &b, err));
        if (a != b) return fail(err, ERR_DATA, path, "module '%.100s' has only one of its two factors", module);
        if (!a) m->count--;
    }
    return safetensors_count(s) == 2 * m->count ||
           fail(err, ERR_DATA, path, "holds %d tensors, but only %d of them belong to products of this model", safetensors_count(s), 2 * m->count);
}

bool merge_open(const char *folder, const Weights *w, Merge **out, Err *err) {
    char *config = path_join(folder, "adapter_config.json"), *tensors = path_join(folder, "adapter_model.safetensors");
    LoraConfig c;
    Safetensors *s = NULL;
    Merge *m = *out = xcalloc(1, sizeof *m);
    bool ok = lora_config_read(config, false, &c, err);
    if (ok) m->rank = c.rank, m->scale = lora_scale(&c);
    ok = ok && safetensors_open(tensors, &s, err) && read_factors(m, s, tensors, w, err);
    if (s) safetensors_close(s);
    lora_config_free(&c);
    free(config), free(tensors);
    if (!ok) merge_close(m), *out = NULL;
    return ok;
}
void merge_close(Merge *m) {
    if (!m) return;
    for (int i = 0; i < m->count; i++) mem_free(m->tensors[i].A), mem_free(m->tensors[i].B);
    free(m->tensors);
    free(m);
}
