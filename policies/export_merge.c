// An adapter merged on the way out: W + s B A, row by row, for the tensors that it has factors for. Only files are read; no
// model is opened: which factors belong to which rows is said by the adapter's layout, which needs no device. Every tensor of the
// adapter must belong to one of the model's, in the right shape.
#include "export_parts.h"
#include "files.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>

static const struct MergePlace *find(const Merge *m, const char *name) {
    int i = names_find(m->names, m->name_count, name);
    return i < 0 ? NULL : &m->places[i];
}
// What of the adapter joins rows of a tensor: rows of A from a_row on, rows of B from b_row on.
typedef struct Joined {
    const Parameter *A, *B;
    const float *a, *b;
    int64_t a_row, b_row;
} Joined;
static bool has_row(const Parameter *q, int64_t row) {
    for (int i = 0; i < q->part_count; i++)
        if (row >= q->parts[i].row && row < q->parts[i].row + q->parts[i].rows) return true;
    return false;
}
static bool find_joined(const Merge *m, const struct MergePlace *at, Joined *out) {
    const Parameter *w = &m->shell.parameters[at->parameter];
    const LoraLinear *l = m->adapter->of[at->parameter];
    bool experts = w->role == ROLE_EXPERTS_GATE_UP || w->role == ROLE_EXPERTS_DOWN;
    int each = experts ? w->part_count / block_count(w) : w->part_count, e = at->part / each;
    const ParameterPart *slot = &w->parts[at->part % each];
    for (int i = 0; l && i < l->part_count; i++) {
        const LoraPart *p = &l->parts[i];
        if (slot->row < p->row || slot->row + slot->rows > p->row + p->rows) continue;
        *out = (Joined){.A = l->A, .B = p->B, .a = m->values[l->A - m->adapter->parameters], .b = m->values[p->B - m->adapter->parameters],
                        .a_row = e * block_rows(l->A, 0) + p->column, .b_row = e * p->rows + slot->row - p->row};
        return has_row(l->A, out->a_row);
    }
    return false;
}

bool merge_adds(const void *merge, const char *name) {
    const struct MergePlace *at = find(merge, name);
    Joined j;
    return at && find_joined(merge, at, &j);
}
bool merge_add(const void *merge, const char *name, int64_t first, int64_t rows, int64_t columns, float *values) {
    const Merge *m = merge;
    const struct MergePlace *at = find(m, name);
    Joined j;
    if (!at || !find_joined(m, at, &j)) return false;
    if (j.A->K != columns || first + rows > m->shell.parameters[at->parameter].parts[at->part].rows) return false;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < columns; k++) {
            double sum = 0;
            for (int64_t r = 0; r < j.B->rank; r++) sum += (double)j.b[(j.b_row + first + row) * j.B->K + r] * (double)j.a[(j.a_row + r) * columns + k];
            values[row * columns + k] = (float)((double)values[row * columns + k] + (double)j.B->scale * sum);
        }
    return true;
}

// ---- opening ---------------------------------------------------------------------------------------------
static void list_names(Merge *m) {
    const Policy *p = &m->shell;
    m->names = xcalloc((size_t)p->part_count, sizeof *m->names);
    m->places = xcalloc((size_t)p->part_count, sizeof *m->places);
    for (int i = 0; i < p->parameter_count; i++)
        for (int k = 0; p->parameters[i].matrix && k < p->parameters[i].part_count; k++) {
            m->places[m->name_count] = (struct MergePlace){i, k};
            m->names[m->name_count] = (NameEntry){p->parameters[i].parts[k].name, m->name_count};
            m->name_count++;
        }
    names_sort(m->names, m->name_count); // a layout has no name twice
}
static bool take_values(void *context, int index, const float *values, Err *err) {
    Merge *m = context;
    const Parameter *q = &m->adapter->parameters[index];
    size_t bytes = (size_t)(q->N * q->K) * sizeof *values;
    TRY(mem_alloc(bytes, "an adapter", (void **)&m->values[index], err));
    memcpy(m->values[index], values, bytes);
    return true;
}
bool merge_open(const char *folder, const Weights *w, Merge **out, Err *err) {
    char *config = path_join(folder, "adapter_config.json"), *tensors = path_join(folder, "adapter_model.safetensors");
    LoraConfig c;
    Merge *m = *out = xcalloc(1, sizeof *m);
    m->shell.config = *weights_config(w);
    bool ok = lora_config_read(config, false, &c, err) && adapter_find_routers(&c, tensors, err) && policy_layout(&m->shell, err) &&
              adapter_layout(&m->shell, &c, false, config, &m->adapter, err);
    if (ok) m->values = xcalloc((size_t)m->adapter->count, sizeof *m->values);
    ok = ok && adapter_tensors(m->adapter, tensors, take_values, m, err);
    if (ok) list_names(m);
    lora_config_free(&c);
    free(config), free(tensors);
    if (!ok) merge_close(m), *out = NULL;
    return ok;
}
void merge_close(Merge *m) {
    if (!m) return;
    for (int i = 0; m->values && i < m->adapter->count; i++) mem_free(m->values[i]);
    adapter_free(&m->shell, m->adapter);
    policy_layout_free(&m->shell);
    free(m->values), free(m->names), free(m->places);
    free(m);
}
