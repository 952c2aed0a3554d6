// What a model will need, from its shapes alone, and how fast this machine multiplies.
#include "model.h"

size_t plan_cache_bytes(const ModelConfig *c, Precision precision, int64_t tokens) {
    size_t act = precision == PRECISION_BF16 ? 2 : 4;
    return (size_t)tokens * (size_t)(cache_page_elements(c) / PAGE) * act * (size_t)c->layers;
}

// A device that counts what it is asked for and gives no memory: a policy's own code says what it needs.
typedef struct CountingDevice {
    Device device; // first: the policy's pointer to it is ours
    size_t bytes;
} CountingDevice;
static bool count_allocate(const Device *d, size_t bytes, const char *what, void **out, Err *err) {
    static char nowhere; // never read or written
    (void)what, (void)err;
    ((CountingDevice *)(uintptr_t)d)->bytes += bytes;
    *out = &nowhere;
    return true;
}
static void count_release(const Device *d, void *memory) { (void)d, (void)memory; }
static void count_upload(const Device *d, void *to, const void *host, size_t bytes) { (void)d, (void)to, (void)host, (void)bytes; }
static void count_zero(const Device *d, void *to, size_t bytes) { (void)d, (void)to, (void)bytes; }
static void count_forget(const Device *d) { (void)d; }

// What the largest parameter takes in fp32 that is read, packed and hashed as a whole.
static size_t largest_of(const Policy *p) {
    size_t most = 0;
    for (int i = 0; i < p->parameter_count; i++) {
        size_t bytes = p->parameters[i].kept ? 0 : (size_t)(p->parameters[i].N * p->parameters[i].K) * 4; // blocks are read in pieces
        most = bytes > most ? bytes : most;
    }
    return most;
}
bool policy_reserve(Policy *p, const PlanShape *shape, Err *err) {
    Packed b = {.token_count = (int32_t)shape->tokens, .target_count = (int32_t)shape->targets, .group_count = (int32_t)shape->groups,
                .sequence_count = (int32_t)shape->sequences};
    TRY(workspace_reserve(p, shape->tokens > shape->rollout_rows ? shape->tokens : shape->rollout_rows, err) &&
        rope_reserve(p, shape->positions, err));
    bool retains = shape->retained_pages && retain_wanted(p, shape->retain, shape->retained_pages * PAGE);
    if (p->trainable && p->device->is_host && !retains) TRY(logits_reserve(p, shape->targets, err));
    if (retains)
        TRY(retain_reserve(p, shape->retained_pages, shape->tokens > shape->rollout_rows ? shape->tokens : shape->rollout_rows, err));
    return shape->tokens == 0 || training_reserve(p, &b, shape->tokens / PAGE + 2 * shape->sequences, p->trainable ? ACTIVATIONS_KEPT : ACTIVATIONS_DROPPED, err);
}
static bool count_policy(const Device *host, const ModelConfig *c, const Weights *w, const PolicyOptions *o, const PlanShape *shape, PlanBytes *out, Err *err) {
    CountingDevice counting = {.device = *host};
    Device *d = &counting.device;
    d->owners = 1 << 20, d->is_host = !shape->on_device;
    d->allocate = count_allocate, d->release = count_release, d->upload = count_upload, d->zero = count_zero, d->forget = count_forget;
    Policy beside = {.device = d}, *p = NULL;
    PolicyOptions mine = *o;
    mine.beside = &beside;
    bool ok = policy_outline(c, w, &mine, &p, err);
    out->weights = counting.bytes;
    if (ok) out->largest = largest_of(p);
    ok = ok && policy_reserve(p, shape, err);
    out->pass = counting.bytes - out->weights;
    policy_close(p);
    return ok;
}
bool plan_policy(const char *path, const ModelConfig *config, const PolicyOptions *o, const PlanShape *shape, PlanBytes *out, Err *err) {
    Device *host;
    Weights *w = NULL;
    char *base = NULL, hash[65];
    PolicyOptions mine = *o;
    *out = (PlanBytes){0};
    TRY(device_open_cpu(NULL, o->threads, &host, err));
    bool ok = true;
    if (path && folder_is_adapter(path)) {
        ok = adapter_base(path, &base, hash, err);
        mine.adapter = path;
    }
    ok = ok && (!path || weights_open(base ? base : path, false, &w, err)) &&
         count_policy(host, w ? weights_config(w) : config, w, &mine, shape, out, err);
    const ModelConfig *c = w ? weights_config(w) : config;
    if (ok && shape->places > 0) {
        out->rollout = plan_cache_bytes(c, o->precision, shape->rollout_pages * PAGE) + (size_t)shape->places * place_bytes(c, !shape->on_device, shape->truncates) +
                       logits_bytes(c, logit_rows(!shape->on_device, shape->truncates, shape->places));
    }
    if (w) weights_close(w);
    free(base);
    device_close(host);
    return ok;
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

bool probe_peaks(const char *device, Precision precision, int threads, double *flops, double *bytes, Err *err) {
    Device *d;
    TRY(device_open(device, threads, &d, err));
    bool ok = d->peaks(d, precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32, flops, bytes, err);
    device_close(d);
    return ok;
}
