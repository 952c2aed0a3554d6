// Experts and latent attention in GGUF files: the metadata that says what they are, and tensors that lie otherwise than in
// checkpoints. Files hold a layer's experts side by side, [E, F, C] for gate, up and down each; and the product that takes
// a latent to keys and values either whole or in two halves, [H, R, N] (turned) and [H, V, R]. Here each expert gets a name
// and a place within its tensor, and the halves one product that is put together when it is read.
// What readers of the format do beyond what it says (whose weights of experts are normalised, how groups are judged) is fixed here.
#include "ops.h"
#include "weights_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *gguf_key(GgufReader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->architecture, name);
    return r->key;
}
bool gguf_get_size(GgufReader *r, const char *name, bool required, int32_t *out, Err *err) {
    int64_t x = *out;
    TRY(gguf_get_int(r->gguf, gguf_key(r, name), required, &x, err));
    if (x < 0 || x > INT32_MAX) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %" PRId64 ", expected 0 to 2147483647", r->key, x);
    *out = (int32_t)x;
    return true;
}

// ---- metadata --------------------------------------------------------------------------------------------
enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };

bool gguf_mixture_family(const Gguf *g, const Family **family, Err *err) {
    GgufReader r = {.gguf = g, .architecture = (*family)->gguf};
    int32_t experts = 0, gating = GATING_SOFTMAX;
    TRY(gguf_get_size(&r, "expert_count", false, &experts, err));
    if (strcmp(r.architecture, "llama") == 0 && experts > 0) *family = family_find("mixtral");
    if ((*family)->mixture == MIXTURE_NONE && experts > 0)
        return fail(err, ERR_DATA, gguf_path(g), "%s is %d, expected 0: not supported", gguf_key(&r, "expert_count"), experts);
    if (strcmp(r.architecture, "deepseek2") != 0) return true;
    TRY(gguf_get_size(&r, "expert_gating_func", false, &gating, err));
    if (gating > GATING_SIGMOID) return fail(err, ERR_DATA, gguf_path(g), "%s is %d, expected 1 (softmax) or 2 (sigmoid)", r.key, gating);
    *family = family_find(gating == GATING_SIGMOID ? "deepseek_v3" : "deepseek_v2");
    return true;
}

static bool read_deepseek(GgufReader *r, ModelConfig *c, bool v3, Err *err) {
    ExpertsConfig *e = &c->experts;
    int32_t shared = 0, dense = 0;
    bool normalise = false;
    TRY(gguf_get_size(r, "expert_shared_count", true, &shared, err) && gguf_get_size(r, "leading_dense_block_count", false, &dense, err));
    TRY(gguf_get_bool(r->gguf, gguf_key(r, "expert_weights_norm"), false, &normalise, err));
    if (normalise && !v3) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is true, expected false with softmax: not supported", r->key);
    TRY(gguf_get_size(r, "expert_group_count", false, &e->groups, err) && gguf_get_size(r, "expert_group_used_count", false, &e->chosen_groups, err));
    if (e->groups < 2) e->groups = e->chosen_groups = 1;
    // Readers judge groups by their two best scores; V2 does by the best one.
    if (!v3 && e->groups > e->chosen_groups)
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s.expert_group_count is %d, expected 1 with softmax: not supported", r->architecture, e->groups);
    if ((int64_t)shared * e->feed_forward > INT32_MAX) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s.expert_shared_count is %d, which is too many", r->architecture, shared);
    e->shared = shared * e->feed_forward;
    e->sigmoid = e->correction = v3, e->normalise = normalise, e->group_best = v3 ? 2 : 1;
    for (int i = 0; i < c->layers && i < MAX_LAYERS; i++) c->layer[i] = i >= dense ? LAYER_EXPERTS : 0;
    return true;
}
bool gguf_mixture_config(GgufReader *r, ModelConfig *c, Err *err) {
    Mixture mixture = family_find(c->model_type)->mixture;
    ExpertsConfig *e = &c->experts;
    bool deepseek = mixture == MIXTURE_DEEPSEEK_V2 || mixture == MIXTURE_DEEPSEEK_V3;
    if (mixture == MIXTURE_NONE) return true;
    *e = (ExpertsConfig){.feed_forward = c->feed_forward, .groups = 1, .chosen_groups = 1, .group_best = 1, .normalise = true, .scale = 1};
    TRY(gguf_get_size(r, "expert_count", true, &e->count, err) && gguf_get_size(r, "expert_used_count", true, &e->chosen, err));
    if (mixture != MIXTURE_MIXTRAL) TRY(gguf_get_size(r, "expert_feed_forward_length", true, &e->feed_forward, err));
    TRY(gguf_get_real(r->gguf, gguf_key(r, "expert_weights_scale"), false, &e->scale, err));
    if (e->scale == 0) e->scale = 1; // how some writers say none
    if (!deepseek && e->scale != 1) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s is %g, expected 1: not supported", r->key, e->scale);
    for (int i = 0; i < c->layers && i < MAX_LAYERS; i++) c->layer[i] = LAYER_EXPERTS;
    return !deepseek || read_deepseek(r, c, mixture == MIXTURE_DEEPSEEK_V3, err);
}

// Where the product is in halves, key_length and value_length are those of the latent.
bool gguf_latent_shapes(GgufReader *r, ModelConfig *c, Err *err) {
    LatentConfig *l = &c->latent;
    bool halves = gguf_find(r->gguf, gguf_key(r, "attention.key_length_mla")) != NULL;
    l->interleaved = true;
    TRY(gguf_get_size(r, "attention.kv_lora_rank", true, &l->R, err) && gguf_get_size(r, "attention.q_lora_rank", false, &l->q_rank, err));
    TRY(gguf_get_size(r, "rope.dimension_count", true, &l->P, err));
    TRY(gguf_get_size(r, halves ? "attention.key_length_mla" : "attention.key_length", true, &c->head_width, err));
    TRY(gguf_get_size(r, halves ? "attention.value_length_mla" : "attention.value_length", true, &l->V, err));
    if (l->R < 1) return fail(err, ERR_DATA, gguf_path(r->gguf), "%s.attention.kv_lora_rank is %d, expected at least 1", r->architecture, l->R);
    l->N = c->head_width - l->P; // config_check looks at the rest
    c->kv_heads = c->heads;
    c->rotary_width = l->P;
    return true;
}

// Readers turn only what `attention` says, and multiply all scores by the square of 0.1 m log(factor) + 1, where the key's value is
// 0.1 m: as DeepSeek does where its two m are the same.
bool gguf_latent_yarn(GgufReader *r, ModelConfig *c, double attention, Err *err) {
    RopeConfig *rope = &c->rope[0];
    double tenth = 0, all = attention;
    char text[32];
    TRY(gguf_get_real(r->gguf, gguf_key(r, "rope.scaling.yarn_log_multiplier"), false, &tenth, err));
    if (tenth == 0 && rope->factor > 1) all *= 0.1 * exact_log(rope->factor) + 1;
    if (!(all > 1 - 1e-5 && all < 1 + 1e-5))
        return fail(err, ERR_DATA, gguf_path(r->gguf), "%s.rope.scaling.attn_factor turns queries and keys by %g, expected 1 with latent attention", r->architecture, all);
    rope->attention_factor = tenth == 0 ? 1 : 0;
    snprintf(text, sizeof text, "%.6g", tenth * 10); // what was rounded to fp32 was a short number
    rope->mscale = rope->mscale_all_dim = strtod(text, NULL);
    return true;
}

// ---- tensors ---------------------------------------------------------------------------------------------
typedef struct Making {
    Weights *w;
    const NameEntry *own;
    int32_t *next; // [count] experts of each tensor that have a name
} Making;
static WeightTensor *add_tensor(Weights *w, const TensorSpec *spec, const char *own_name) {
    WeightTensor *t = &w->tensors[w->all++];
    *t = (WeightTensor){.own_name = own_name, .info = {.dims = 2, .shape = {spec->rows, spec->columns}, .count = spec->rows * spec->columns}};
    t->info.name = arena_strdup(&w->names, spec->name);
    return t;
}
static bool check_three(const Weights *w, const WeightTensor *t, int64_t a, int64_t b, int64_t c, Err *err) {
    const int64_t *s = t->info.shape;
    if (t->info.dims == 3 && s[0] == a && s[1] == b && s[2] == c) return true;
    return fail(err, ERR_DATA, w->path, "tensor '%.100s' has %d dimensions, the first of %" PRId64 ", expected [%" PRId64 ", %" PRId64 ", %" PRId64 "]",
                t->own_name, t->info.dims, t->info.dims ? s[0] : 0, a, b, c);
}
static bool add_expert(Making *m, const TensorSpec *spec, int i, Err *err) {
    Weights *w = m->w;
    WeightTensor *all = &w->tensors[i];
    int32_t E = w->config.experts.count, e = m->next[i]++;
    char own[160];
    TRY(check_three(w, all, E, spec->rows, spec->columns, err));
    snprintf(own, sizeof own, "%s[%d]", all->own_name, e);
    WeightTensor *t = add_tensor(w, spec, arena_strdup(&w->names, own));
    t->type = all->type;
    t->info.type = all->info.type;
    t->info.bytes = all->info.bytes / (size_t)E;
    t->data = all->data + (size_t)e * t->info.bytes;
    all->merged = true;
    return true;
}
static bool plain(const StorageType *t) { return !strcmp(t->name, "F32") || !strcmp(t->name, "F16") || !strcmp(t->name, "BF16"); }
static bool add_halves(Making *m, const TensorSpec *spec, Err *err) {
    Weights *w = m->w;
    const ModelConfig *c = &w->config;
    const LatentConfig *l = &c->latent;
    char name[2][64];
    snprintf(name[0], sizeof name[0], "blk.%d.attn_k_b.weight", spec->layer);
    snprintf(name[1], sizeof name[1], "blk.%d.attn_v_b.weight", spec->layer);
    int k = names_find(m->own, w->count, name[0]), v = names_find(m->own, w->count, name[1]);
    if (k < 0 || v < 0) return true; // for the check of all tensors to complain about
    TRY(check_three(w, &w->tensors[k], c->heads, l->R, l->N, err) && check_three(w, &w->tensors[v], c->heads, l->V, l->R, err));
    WeightTensor *t = add_tensor(w, spec, arena_strdup(&w->names, spec->gguf));
    t->keys = &w->tensors[k], t->values = &w->tensors[v];
    t->type = t->keys->type == t->values->type && plain(t->keys->type) ? t->keys->type : storage_by_name("F32");
    t->info.type = t->type->name;
    t->info.bytes = (size_t)t->info.count * (size_t)t->type->block_bytes;
    w->tensors[k].merged = w->tensors[v].merged = true;
    return true;
}
static bool make_tensor(void *context, const TensorSpec *spec, Err *err) {
    Making *m = context;
    int i = names_find(m->own, m->w->count, spec->gguf);
    if (spec->role == ROLE_EXPERTS_GATE_UP || spec->role == ROLE_EXPERTS_DOWN) return i < 0 || add_expert(m, spec, i, err);
    return spec->role != ROLE_KV_B || i >= 0 || add_halves(m, spec, err);
}
bool gguf_mixture_tensors(Weights *w, const NameEntry *own, Err *err) {
    const ModelConfig *c = &w->config;
    if (!c->experts.count && !c->latent.R) return true;
    // All at once: what was made points at others. At most a product and E experts, gate, up and down, in each layer.
    size_t most = (size_t)c->layers * (size_t)(3 * c->experts.count + 1);
    w->tensors = xrealloc(w->tensors, ((size_t)w->count + most) * sizeof *w->tensors);
    Making m = {w, own, xcalloc((size_t)w->count + 1, sizeof *m.next)};
    bool ok = family_tensors(c, make_tensor, &m, err);
    free(m.next);
    return ok;
}

bool weights_read_halves(const Weights *w, const WeightTensor *t, float *out, Err *err) {
    const int64_t *keys = t->keys->info.shape, *values = t->values->info.shape;
    int64_t H = keys[0], R = keys[1], N = keys[2], V = values[1];
    size_t key_row = t->keys->info.bytes / (size_t)(H * R), value_head = t->values->info.bytes / (size_t)H;
    void *memory;
    TRY(mem_alloc((size_t)N * sizeof(float), t->own_name, &memory, err));
    float *row = memory;
    bool ok = true;
    for (int64_t h = 0; ok && h < H; h++) {
        float *head = out + h * (N + V) * R;
        for (int64_t r = 0; ok && r < R; r++) {
            ok = storage_decode(t->keys->type, t->keys->data + (size_t)(h * R + r) * key_row, N / t->keys->type->block, w->path, t->keys->own_name, row, err);
            for (int64_t n = 0; n < N; n++) head[n * R + r] = row[n];
        }
        ok = ok && storage_decode(t->values->type, t->values->data + (size_t)h * value_head, V * R / t->values->type->block, w->path, t->values->own_name,
                                  head + N * R, err);
    }
    mem_free(memory);
    return ok;
}
