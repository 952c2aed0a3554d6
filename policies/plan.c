// What a model will need, from its shapes alone, and how fast this machine multiplies.
#include "model.h"

size_t plan_weight_bytes(const ModelConfig *c, Precision precision, bool trainable) {
    size_t parameters = (size_t)config_parameters(c), act = precision == PRECISION_BF16 ? 2 : 4;
    size_t head = c->tied ? (size_t)c->vocabulary * (size_t)c->width : 0;
    // Packed; while training also its transpose, masters, gradients and two moments, and a tied head's second gradient.
    return trainable ? parameters * (2 * act + 16) + head * 4 : parameters * act;
}

size_t plan_cache_bytes(const ModelConfig *c, Precision precision, int64_t tokens) {
    size_t act = precision == PRECISION_BF16 ? 2 : 4;
    return (size_t)tokens * (size_t)(cache_page_elements(c) / PAGE) * act * (size_t)c->layers;
}

// What a layer keeps of a token in its feed-forward, or in its experts.
static size_t kept_feed_forward(const ModelConfig *c, int layer, size_t act) {
    const ExpertsConfig *e = &c->experts;
    size_t k = (size_t)e->chosen;
    if (!config_has_experts(c, layer)) return 2 * act * (size_t)c->feed_forward;
    return 4 * (size_t)e->count + 8 * k + 2 * act * (k * (size_t)e->feed_forward + (size_t)e->shared);
}
// What a pass needs of a token besides, for experts (moe.c) and for latent attention (mla.c).
static size_t pass_mixture(const ModelConfig *c, size_t act) {
    const ExpertsConfig *e = &c->experts;
    const LatentConfig *l = &c->latent;
    size_t k = (size_t)e->chosen, C = (size_t)c->width, F = (size_t)e->feed_forward, H = (size_t)c->heads;
    size_t experts = (size_t)e->count * (4 + act) + 24 * k + k * (C * (2 * act + 4) + F * (5 * act + 4)) + (size_t)e->shared * (5 * act + 4);
    size_t latent = H * (size_t)(l->R + l->N) * (4 + act) + (size_t)(l->R + l->P) * (8 + 2 * act) + (size_t)l->q_rank * (8 + 2 * act);
    return (e->count ? experts : 0) + (l->R ? latent : 0);
}

size_t plan_training_bytes(const ModelConfig *c, Precision precision, int64_t tokens) {
    const LatentConfig *l = &c->latent;
    size_t act = precision == PRECISION_BF16 ? 2 : 4, q = (size_t)q_width(c), y = (size_t)attention_width(c), first = (size_t)qkv_width(c);
    size_t layer = 8 * (size_t)c->width + act * (q + y) + 4 * (size_t)c->heads + 8, layers = 0;
    if (l->R) layer += 4 * (size_t)(l->q_rank + l->R + l->P) + 8 + act * (size_t)c->heads * (size_t)(l->N + l->R);
    for (int i = 0; i < c->layers; i++) layers += layer + kept_feed_forward(c, i, act);
    size_t wide = 2 * (size_t)c->feed_forward > first ? 2 * (size_t)c->feed_forward : first;
    size_t pass = 12 * (size_t)c->width + 12 * (q > y ? q : y) + wide * (8 + 2 * act) + pass_mixture(c, act);
    if (c->qk_norm != QK_NORM_NONE) { // q, k and v before the norms, and the gradients of the former two
        layers += (size_t)c->layers * (4 * first + 4 * (size_t)(c->heads + c->kv_heads));
        pass += 4 * first;
    }
    if (c->norm_placement != NORM_BEFORE) { // outputs of both blocks before their norms
        layers += (size_t)c->layers * (8 * (size_t)c->width + 8);
        pass += 4 * (size_t)c->width;
    }
    size_t head = HEAD_CHUNK * (size_t)vocab_padded(c->vocabulary) * act * 2;
    return (size_t)tokens * (layers + pass) + head + plan_cache_bytes(c, precision, tokens) * 3;
}

typedef struct Probe {
    void *x, *w, *y;
} Probe;
static bool probe_alloc(const Device *d, Dtype dtype, int64_t M, int64_t N, int64_t K, Probe *b, Err *err) {
    TRY(d->allocate(d, (size_t)(M * (K + 2)) * dtype_size(dtype), "probe", &b->x, err));
    TRY(d->allocate(d, (size_t)packed_elements(N, K) * dtype_size(dtype), "probe", &b->w, err));
    return d->allocate(d, (size_t)(M * N) * 4, "probe", &b->y, err);
}

bool probe_flops(const char *device, Precision precision, int threads, int64_t M, int64_t N, int64_t K, double seconds, double *out,
                 size_t *available, Err *err) {
    Device *d;
    Probe b = {0};
    TRY(device_open(device, threads, &d, err));
    if (available) *available = d->available(d);
    Dtype dtype = precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    bool ok = probe_alloc(d, dtype, M, N, K, &b, err);
    MatmulArgs args = {.M = M, .N = N, .K = K, .dtype = dtype, .x = b.x, .ldx = K, .w = b.w, .store = STORE_F32, .y = b.y, .ldy = N};
    if (ok) d->matmul(d, &args);
    ok = ok && d->finish(d, err);
    double start = clock_seconds(), spent = 0;
    int64_t runs = 0;
    while (ok && spent < seconds) {
        int batch = d->is_host ? 1 : 32; // queued without waiting
        for (int i = 0; i < batch; i++) d->matmul(d, &args);
        ok = d->finish(d, err);
        runs += batch;
        spent = clock_seconds() - start;
    }
    if (ok) *out = 2.0 * (double)M * (double)N * (double)K * (double)runs / spent;
    d->release(d, b.x), d->release(d, b.w), d->release(d, b.y);
    device_close(d);
    return ok;
}
