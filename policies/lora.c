// Adapters: which products they join, their memory, switching them, and views. An adapter belongs to the weights of one
// policy; its parameters are like any others, so that AdamW, checkpoints and norms know no difference. Only one adapter of a
// policy is trained, the first; the weights are then frozen and have neither masters nor gradients nor moments.
#include "lora_match.h"
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

// ---- targets ---------------------------------------------------------------------------------------------
static bool is_experts(const Parameter *q) { return q->role == ROLE_EXPERTS_GATE_UP || q->role == ROLE_EXPERTS_DOWN; }
static bool is_product(const Parameter *q) { return q->matrix && q->role != ROLE_EMBEDDING && q->role != ROLE_HEAD; }
// How many experts' matrices lie one behind the other, and the parts of one of them.
static int experts_of(const Parameter *q) { return is_experts(q) ? block_count(q) : 1; }
static int parts_each(const Parameter *q) { return q->part_count / experts_of(q); }
// "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.weight".
static void module_of(const ParameterPart *part, char out[96]) {
    size_t n = strlen(part->name), suffix = strlen(".weight");
    snprintf(out, 96, "%.*s", (int)(n > suffix ? n - suffix : n), part->name);
}
bool lora_fused_name(const Parameter *q, char parameter[128], char module[128]) {
    char name[128];
    if (!is_experts(q)) return false;
    if (!lora_other_name(q->parts[0].name, name, sizeof name)) snprintf(name, sizeof name, "%s", q->parts[0].name);
    const char *end = strstr(name, ".experts.");
    if (!end) return false;
    snprintf(module, 128, "%.*s", (int)(end - name + (ptrdiff_t)strlen(".experts")), name);
    snprintf(parameter, 128, "%.100s.%s", module, q->role == ROLE_EXPERTS_GATE_UP ? "gate_up_proj" : "down_proj");
    return true;
}
static bool choose_part(const Adapter *a, LoraMatch *m, const Parameter *q, int part, LoraChoice *out, Err *err) {
    char module[96];
    bool usual = is_product(q) && (q->role != ROLE_ROUTER || a->config.routers);
    module_of(&q->parts[part], module);
    return lora_match(m, &(LoraPlace){module, q->parts[part].name, q->layer, usual}, out, err);
}
static bool choose_fused(LoraMatch *m, const Parameter *q, LoraChoice *out, Err *err) {
    char parameter[128], module[128];
    *out = (LoraChoice){0};
    return !lora_fused_name(q, parameter, module) || lora_match(m, &(LoraPlace){NULL, parameter, q->layer, false}, out, err);
}

// What an adapter makes of one parameter: rows of it that share a factor B.
typedef struct Piece {
    int slot;          // part of each expert (of one matrix: the part); -1: all parts, of experts as one parameter
    int64_t row, rows; // of one expert's
    int32_t rank;
    double alpha;
} Piece;
typedef struct Pieces {
    Piece list[3]; // q, k and v at most
    int count, names; // factors' names there will be, for each of A and B
} Pieces;
static bool add_piece(Pieces *p, const Parameter *q, int slot, const LoraChoice *c, const char *where, Err *err) {
    Piece *last = p->count ? &p->list[p->count - 1] : NULL;
    p->names++;
    if (last && last->slot == slot)
        return (last->rank == c->rank && last->alpha == c->alpha) ||
               fail(err, ERR_DATA, where, "rank_pattern or alpha_pattern tells experts of layer %d apart, expected one rank and one alpha for the same product of all", q->layer);
    bool whole = slot < 0;
    p->list[p->count++] = (Piece){slot, whole ? 0 : q->parts[slot].row, whole ? block_rows(q, 0) : q->parts[slot].rows, c->rank, c->alpha};
    return true;
}
static bool find_pieces(const Adapter *a, LoraMatch *m, const Parameter *q, const char *where, Pieces *out, Err *err) {
    LoraChoice c;
    *out = (Pieces){0};
    if (!q->matrix) return true;
    TRY(choose_fused(m, q, &c, err));
    bool fused = c.chosen;
    if (fused) TRY(add_piece(out, q, -1, &c, where, err));
    for (int slot = 0; slot < parts_each(q); slot++)
        for (int i = slot; i < q->part_count; i += parts_each(q)) {
            char module[96];
            module_of(&q->parts[i], module);
            TRY(choose_part(a, m, q, i, &c, err));
            if (!c.chosen) continue;
            if (fused) return fail(err, ERR_DATA, where, "%.90s is a target, and so is the parameter that holds all experts of its layer", module);
            if (!is_product(q)) return fail(err, ERR_DATA, where, "%.90s is a target, expected a product of the layers", module);
            TRY(add_piece(out, q, slot, &c, where, err));
        }
    return true;
}
// A name that names nothing is a mistake, of a file only where no name names anything.
static bool check_unused(const Policy *p, const LoraConfig *c, const LoraMatch *m, bool any, const char *where, Err *err) {
    const char *unused = lora_match_unused(m);
    if (any && (!unused || c->from_file)) return true;
    Buf known = {0};
    for (int i = 0; i < p->parameter_count; i++)
        for (int k = 0; p->parameters[i].layer == 0 && is_product(&p->parameters[i]) && k < parts_each(&p->parameters[i]); k++) {
            char module[96];
            module_of(&p->parameters[i].parts[k], module);
            const char *dot = strrchr(module, '.');
            buf_printf(&known, "%s%s", known.size ? ", " : "", dot ? dot + 1 : module);
        }
    if (unused)
        fail(err, ERR_DATA, where, "target '%.60s' names no product of this model, expected some of %.400s", unused, known.data);
    else
        fail(err, ERR_DATA, where, "the targets name no product of this model, expected some of %.400s", known.data);
    buf_free(&known);
    return false;
}

// ---- layout ----------------------------------------------------------------------------------------------
static void config_copy(LoraConfig *to, const LoraConfig *from) {
    *to = *from;
    json_incref(to->selection);
}
static int32_t padded_rank(int32_t rank) { return (rank + LORA_STEP - 1) / LORA_STEP * LORA_STEP; }
// [N, K], packed in blocks of these rows by turns (0: as one).
static Parameter *add_parameter(Adapter *a, bool trained, int64_t N, int64_t K, int64_t block, int64_t block2) {
    Parameter *q = &a->parameters[a->count++];
    *q = (Parameter){.parts = a->names + a->name_count, .layer = -1, .N = N, .K = K, .matrix = true, .transposable = true, .trained = trained};
    q->block[0] = block, q->block[1] = block2;
    return q;
}
static void add_name(Adapter *a, Parameter *q, const char *module, const char *factor, int64_t row, int64_t rows) {
    ParameterPart *n = &a->names[a->name_count++];
    snprintf(n->name, sizeof n->name, "base_model.model.%.80s.lora_%s.weight", module, factor);
    n->row = row, n->rows = rows;
    q->part_count++;
}
// PEFT puts what it adds to one parameter of a module around what it adds to another: down_proj around gate_up_proj.
static bool fused_module(const Policy *p, LoraMatch *m, const Parameter *w, char out[128], Err *err) {
    char parameter[128];
    LoraChoice other = {0};
    lora_fused_name(w, parameter, out);
    for (int i = 0; w->role == ROLE_EXPERTS_GATE_UP && i < p->parameter_count; i++)
        if (p->parameters[i].layer == w->layer && p->parameters[i].role == ROLE_EXPERTS_DOWN) TRY(choose_fused(m, &p->parameters[i], &other, err));
    if (other.chosen) snprintf(out + strlen(out), 128 - strlen(out), ".base_layer");
    return true;
}
typedef struct Joining {
    const Policy *p;
    Adapter *a;
    LoraMatch *m;
    bool trained;
} Joining;
// Names of one factor's rows: of each expert that is a target, `step` apart from `first` on, or of all as one.
static bool name_factor(const Joining *j, const Parameter *w, const Piece *piece, Parameter *q, const char *factor, int64_t first, int64_t step,
                        int64_t rows, char of[96], Err *err) {
    int each = parts_each(w), experts = experts_of(w);
    char module[128];
    q->rank = piece->rank;
    q->fused = piece->slot < 0;
    if (q->fused) {
        TRY(fused_module(j->p, j->m, w, module, err));
        add_name(j->a, q, module, factor, 0, q->N);
    }
    for (int e = 0; !q->fused && e < experts; e++) {
        LoraChoice c;
        TRY(choose_part(j->a, j->m, w, e * each + piece->slot, &c, err));
        if (!c.chosen) continue;
        module_of(&w->parts[e * each + piece->slot], module);
        add_name(j->a, q, module, factor, first + e * step, rows);
        if (!of[0]) memcpy(of, module, 96);
    }
    return true;
}
static bool join(const Joining *j, const Parameter *w, const Pieces *pieces, LoraLinear *l, Err *err) {
    Adapter *a = j->a;
    int64_t width = 0, column = 0, experts = experts_of(w);
    bool latent = w->role == ROLE_KV_B;
    for (int i = 0; i < pieces->count; i++) width += padded_rank(pieces->list[i].rank);
    l->parts = a->parts + a->part_count;
    l->part_count = pieces->count;
    a->part_count += pieces->count;
    l->A = add_parameter(a, j->trained, experts * width, w->K, experts > 1 ? width : 0, experts > 1 ? width : 0);
    for (int i = 0; i < pieces->count; i++) {
        const Piece *piece = &pieces->list[i];
        l->parts[i] = (LoraPart){.row = piece->row, .rows = piece->rows, .column = column};
        TRY(name_factor(j, w, piece, l->A, "A", column, width, piece->rank, l->parts[i].module, err));
        column += padded_rank(piece->rank);
    }
    for (int i = 0; i < pieces->count; i++) {
        const Piece *piece = &pieces->list[i];
        int64_t block = latent ? w->block[0] : experts > 1 ? piece->rows : 0;
        Parameter *B = l->parts[i].B = add_parameter(a, j->trained, experts * piece->rows, padded_rank(piece->rank), block, latent ? w->block[1] : block);
        B->scale = (float)lora_scale(&a->config, piece->alpha, piece->rank);
        TRY(name_factor(j, w, piece, B, "B", 0, piece->rows, piece->rows, l->parts[i].module, err));
    }
    // The matrices of kv_b are applied from both sides in every pass, and queries and values each have their part of A's gradient.
    if (latent) l->A->role = l->parts[0].B->role = ROLE_KV_B, l->A->second_gradient = true;
    return true;
}
static bool make_layout(const Joining *j, const char *where, Err *err) {
    const Policy *p = j->p;
    Adapter *a = j->a;
    int parts = 0, linears = 0, names = 0;
    Pieces *pieces = xcalloc((size_t)p->parameter_count, sizeof *pieces);
    bool ok = true;
    for (int i = 0; ok && i < p->parameter_count; i++) {
        ok = find_pieces(a, j->m, &p->parameters[i], where, &pieces[i], err);
        parts += pieces[i].count, linears += pieces[i].count > 0, names += pieces[i].names;
    }
    ok = ok && check_unused(p, &a->config, j->m, linears > 0, where, err);
    a->parameters = xcalloc((size_t)(parts + linears) + 1, sizeof *a->parameters);
    a->names = xcalloc((size_t)names * 2 + 1, sizeof *a->names);
    a->parts = xcalloc((size_t)parts + 1, sizeof *a->parts);
    a->linears = xcalloc((size_t)linears + 1, sizeof *a->linears);
    a->of = xcalloc((size_t)p->parameter_count, sizeof *a->of);
    for (int i = 0; ok && i < p->parameter_count; i++) {
        if (pieces[i].count == 0) continue;
        LoraLinear *l = a->of[i] = &a->linears[a->linear_count++];
        ok = join(j, &p->parameters[i], &pieces[i], l, err);
    }
    free(pieces);
    return ok;
}
bool adapter_layout(const Policy *p, const LoraConfig *config, bool trained, const char *where, Adapter **out, Err *err) {
    LoraMatch *m;
    *out = NULL;
    if (config->rank < 1 || config->rank > 4096) return fail(err, ERR_DATA, where, "rank is %d, expected 1 to 4096", config->rank);
    if (!(config->alpha > 0 && config->alpha < 1e9)) return fail(err, ERR_DATA, where, "alpha is %g, expected more than 0", config->alpha);
    TRY(lora_match_open(config, where, &m, err));
    Adapter *a = xcalloc(1, sizeof *a);
    config_copy(&a->config, config);
    bool ok = make_layout(&(Joining){p, a, m, trained}, where, err);
    lora_match_close(m);
    if (!ok) adapter_free(p, a);
    else *out = a;
    return ok;
}
bool adapter_make(const Policy *p, const LoraConfig *config, bool trained, const char *where, Adapter **out, Err *err) {
    TRY(adapter_layout(p, config, trained, where, out, err));
    for (int i = 0; i < (*out)->count; i++)
        if (!parameter_alloc(p, &(*out)->parameters[i], err)) {
            adapter_free(p, *out);
            *out = NULL;
            return false;
        }
    return true;
}

void adapter_free(const Policy *p, Adapter *a) {
    if (!a) return;
    for (int i = 0; p->device && i < a->count; i++) parameter_free(p, &a->parameters[i]);
    json_decref(a->config.selection);
    free(a->parameters), free(a->names), free(a->parts), free(a->linears), free(a->of);
    free(a);
}

bool adapter_start(const Policy *p, Adapter *a, uint64_t seed, Err *err) {
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        Random r = random_start(seed, STREAM_ADAPTER, (uint64_t)i);
        double bound = 1 / sqrt((double)q->K);
        float *values = xcalloc((size_t)(q->N * q->K), sizeof *values);
        for (int k = 0; q->scale == 0 && k < q->part_count; k++)
            for (int64_t row = 0; row < q->parts[k].rows; row++)
                for (int64_t j = 0; (!q->fused || row % block_rows(q, 0) < q->rank) && j < q->K; j++)
                    values[(q->parts[k].row + row) * q->K + j] = (float)(bound * (2 * random_double(&r) - 1));
        bool ok = parameter_set(p, q, values, err);
        free(values);
        TRY(ok);
    }
    return true;
}

bool adapter_copy(const Policy *p, const Adapter *from, Adapter **out, Err *err) {
    TRY(adapter_make(p, &from->config, false, "adapter", out, err));
    for (int i = 0; i < from->count; i++) {
        const Parameter *q = &from->parameters[i], *copy = &(*out)->parameters[i];
        p->device->copy(p->device, copy->packed, q->packed, act_bytes(p, packed_size(q)));
        if (q->role == ROLE_KV_B) p->device->copy(p->device, copy->transposed, q->transposed, act_bytes(p, transposed_size(q)));
    }
    return true;
}

// ---- passes ----------------------------------------------------------------------------------------------
bool adapter_reserve(Policy *p, int64_t rows, Err *err) {
    Workspace *w = &p->work;
    int64_t width = 0, columns = 0; // of u, of the products it joins, in all rows of a token
    for (int i = 0; p->active && i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        const LatentConfig *c = &p->config.latent;
        int64_t times = is_experts(q) ? p->config.experts.chosen : q->role == ROLE_KV_B ? p->config.heads : 1;
        if (!p->active->of[i]) continue;
        int64_t own_width = times * block_rows(p->active->of[i]->A, 0), own_columns = times * (q->role == ROLE_KV_B ? c->R > c->V ? c->R : c->V : block_rows(q, 0));
        width = own_width > width ? own_width : width;
        columns = own_columns > columns ? own_columns : columns;
    }
    if (width == 0 || (rows <= w->lora_rows && width <= w->lora_width && columns <= w->lora_columns)) return true;
    if (rows < w->lora_rows) rows = w->lora_rows;
    if (width < w->lora_width) width = w->lora_width;
    if (columns < w->lora_columns) columns = w->lora_columns;
    w->lora_rows = w->lora_width = w->lora_columns = 0;
    RESERVE(w->lora_u, act_bytes(p, rows * width));
    if (p->trained) RESERVE(w->lora_du, act_bytes(p, rows * width));
    if (p->dtype != DTYPE_F32) RESERVE(w->lora_wide, rows * columns * 4);
    w->lora_rows = rows, w->lora_width = width, w->lora_columns = columns;
    return true;
}

// ---- adapters of a policy ----------------------------------------------------------------------------------
void adapter_add(Policy *p, Adapter *a) {
    p->adapters = xrealloc(p->adapters, (size_t)(p->adapter_count + 1) * sizeof(Adapter *));
    p->adapters[p->adapter_count++] = a;
}
bool policy_add_adapter(Policy *p, const char *folder, Err *err) {
    Adapter *a;
    TRY(adapter_read(p, folder, false, &a, err));
    adapter_add(p, a);
    return true;
}
int policy_adapter_count(const Policy *p) { return p->adapter_count; }
void policy_use_adapter(Policy *p, int index) {
    p->device->forget(p->device); // recordings hold the operations of the adapter before
    retain_drop(p);
    p->active = index >= 0 && index < p->adapter_count ? p->adapters[index] : NULL;
}
bool policy_trains_adapter(const Policy *p) { return p->trained != NULL; }

static Policy *view_of(Policy *p) {
    Policy *view = xcalloc(1, sizeof *view);
    view->owner = p;
    view->config = p->config;
    view->dtype = p->dtype;
    view->device = device_share(p->device);
    return view;
}
bool policy_view(Policy *p, const char *adapter, Policy **out, Err *err) {
    Adapter *a = NULL;
    *out = NULL;
    if (adapter) TRY(adapter_read(p, adapter, false, &a, err));
    *out = view_of(p);
    (*out)->active = a;
    if (a) adapter_add(*out, a);
    return true;
}
