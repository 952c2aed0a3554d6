// Fills the table of operations for the CPU: one instruction variant, chosen by CPUID or by name, run on the pool.
#include "device.h"
#include "peak.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define VARIANTS(X) X(avx512bf16) X(avx512) X(avx2) X(generic) X(reference)
#define FOREIGN(X)
#else
#define VARIANTS(X) X(generic) X(reference)
#define FOREIGN(X) X(avx512bf16) X(avx512) X(avx2)
#endif

// name_variant(team, args) for every operation and variant, and the slot that runs it on the device's pool.
#define RUN_ON_POOL(name, Args, variant)                                                                     \
    void name##_##variant(const Team *team, const Args *args);                                               \
    static void name##_##variant##_work(const Team *team, const void *args) { name##_##variant(team, args); } \
    static void name##_##variant##_slot(const Device *d, const Args *args) {                                  \
        pool_run(d->pool, name##_##variant##_work, args);                                                    \
    }
#define DECLARE_generic(name, Args) RUN_ON_POOL(name, Args, generic)
#define DECLARE_reference(name, Args) RUN_ON_POOL(name, Args, reference)
#define DECLARE_avx2(name, Args) RUN_ON_POOL(name, Args, avx2)
#define DECLARE_avx512(name, Args) RUN_ON_POOL(name, Args, avx512)
#define DECLARE_avx512bf16(name, Args) RUN_ON_POOL(name, Args, avx512bf16)
#define DECLARE(variant) RECKON_OPERATIONS(DECLARE_##variant)
VARIANTS(DECLARE)

#define FILL_generic(name, Args) d->name = name##_generic_slot;
#define FILL_reference(name, Args) d->name = name##_reference_slot;
#define FILL_avx2(name, Args) d->name = name##_avx2_slot;
#define FILL_avx512(name, Args) d->name = name##_avx512_slot;
#define FILL_avx512bf16(name, Args) d->name = name##_avx512bf16_slot;
#define FILLER(variant)                                                                                      \
    static void fill_##variant(Device *d) { RECKON_OPERATIONS(FILL_##variant) }
VARIANTS(FILLER)

// The loops of cpu/peak.c; the reference, which is slow on purpose, has none.
#define DECLARE_PEAKS(variant)                                                                               \
    void peak_products_##variant(const Team *team, const void *args);                                        \
    void peak_reading_##variant(const Team *team, const void *args);
VARIANTS(DECLARE_PEAKS)
#define peak_products_reference NULL
#define peak_reading_reference NULL

static bool has_generic(void) { return true; }
static bool has_reference(void) { return true; }
#if defined(__x86_64__)
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}
static bool has_avx512bf16(void) { // VNNI is older, but a machine that is emulated may lack it
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}
#endif

typedef struct Variant {
    const char *name;
    bool (*available)(void);
    void (*fill)(Device *d);
    Work peak_products, peak_reading;
} Variant;
#define ROW(variant) {#variant, has_##variant, fill_##variant, peak_products_##variant, peak_reading_##variant},
#define FOREIGN_ROW(variant) {#variant, NULL, NULL, NULL, NULL}, // of another kind of processor
static const Variant variants[] = {VARIANTS(ROW) FOREIGN(FOREIGN_ROW)}; // best first
static bool is_available(const Variant *v) { return v->available && v->available(); }

static const Variant *choose(const char *name, Err *err) {
    const char *from_environment = getenv("RECKON_CPU");
    if (!name && from_environment && *from_environment) name = from_environment;
    for (int i = 0; i < COUNT(variants); i++) {
        if (!name && is_available(&variants[i])) return &variants[i];
        if (!name || strcmp(name, variants[i].name) != 0) continue;
        if (is_available(&variants[i])) return &variants[i];
        fail(err, ERR_UNAVAILABLE, "RECKON_CPU", "this processor lacks what '%s' needs", name);
        return NULL;
    }
    fail(err, ERR_USAGE, "RECKON_CPU", "found '%.40s', expected one of generic, avx2, avx512, avx512bf16, reference", name);
    return NULL;
}

static bool host_allocate(const Device *d, size_t bytes, const char *what, void **out, Err *err) {
    (void)d;
    return mem_alloc(bytes, what, out, err);
}
static void host_release(const Device *d, void *memory) {
    (void)d;
    mem_free(memory);
}
static size_t host_available(const Device *d) { // the system decides, and may overcommit
    (void)d;
    return SIZE_MAX;
}
static void host_move(const Device *d, void *to, const void *from, size_t bytes) {
    (void)d;
    if (bytes && to != from) memcpy(to, from, bytes);
}
static void host_fetch(const Device *d, int slot, void *host, const void *from, size_t bytes) { // nothing is queued here
    (void)slot;
    host_move(d, host, from, bytes);
}
static bool host_fetched(const Device *d, int slot, Err *err) {
    (void)d, (void)slot, (void)err;
    return true;
}
static void host_zero(const Device *d, void *to, size_t bytes) {
    (void)d;
    if (bytes) memset(to, 0, bytes);
}
static bool host_finish(const Device *d, Err *err) {
    (void)d, (void)err;
    return true;
}
static void host_replay(const Device *d, uint64_t key, void (*body)(void *), void *context) {
    (void)d, (void)key;
    body(context);
}
static void host_forget(const Device *d) { (void)d; }
static size_t host_peak_bytes(const Device *d) {
    (void)d;
    return 0;
}
static bool host_meter(const Device *d, double *joules, char held[128]) { // the packages' counters are the system's
    (void)d, (void)joules, (void)held;
    return false;
}
static double run_once(const Device *d, Work work, const void *args) {
    double start = clock_seconds();
    pool_run(d->pool, work, args);
    return clock_seconds() - start;
}
static bool host_peaks(const Device *d, Dtype dtype, double *flops, double *bytes, Err *err) {
    enum { TRIES = 5, READ = 1 << 28 };
    const Variant *v = choose(d->variant, err);
    if (!v) return false;
    *flops = *bytes = NAN;
    if (!v->peak_products) return true;
    double done[256];
    float sink[256];
    if (d->threads > COUNT(done)) return true;
    void *memory;
    TRY(mem_alloc(READ, "memory to be read", &memory, err));
    memset(memory, 1, READ); // pages that nothing was written to are all the same one
    PeakReading reading = {.memory = memory, .count = READ / 4, .sink = sink};
    PeakProducts products = {.rounds = 1000, .dtype = dtype, .flops = done, .sink = sink};
    double best = INFINITY;
    for (int i = 0; i < TRIES; i++) best = fmin(best, run_once(d, v->peak_reading, &reading));
    *bytes = READ / best;
    mem_free(memory);
    while (run_once(d, v->peak_products, &products) < 0.05 && products.rounds < INT64_MAX / 4) products.rounds *= 2;
    best = INFINITY;
    for (int i = 0; i < TRIES; i++) best = fmin(best, run_once(d, v->peak_products, &products));
    double sum = 0;
    for (int i = 0; i < d->threads; i++) sum += done[i];
    *flops = sum / best;
    return true;
}
static void host_close(Device *d) {
    pool_close(d->pool);
    free(d);
}

bool device_open_cpu(const char *variant, int threads, Device **out, Err *err) {
    const Variant *v = choose(variant, err);
    if (!v) return false;
    Device *d = xcalloc(1, sizeof *d);
    v->fill(d);
    d->variant = v->name;
    d->is_host = true;
    d->allocate = host_allocate, d->release = host_release, d->available = host_available, d->peak_bytes = host_peak_bytes;
    d->upload = d->download = d->copy = host_move, d->zero = host_zero;
    d->fetch = host_fetch, d->fetched = host_fetched;
    d->finish = host_finish, d->replay = host_replay, d->forget = host_forget, d->meter = host_meter, d->peaks = host_peaks;
    d->close = host_close;
    if (!pool_open(threads, &d->pool, err)) {
        free(d);
        return false;
    }
    d->threads = pool_count(d->pool);
    *out = d;
    return true;
}

size_t matmul_grad_scratch(int threads) { return (size_t)threads * GRAD_BYTES; }
size_t matmul_scratch(bool is_host, int threads, int64_t N, int64_t K, Dtype dtype) {
    if (!is_host) return (size_t)packed_elements(N, K) * dtype_size(dtype);
    return (size_t)threads * (size_t)panel_elements(K, dtype) * dtype_size(dtype);
}
size_t turn_scratch(bool is_host, int threads, int64_t N, int64_t K, Dtype dtype) {
    if (!is_host) return (size_t)packed_elements(N, K) * dtype_size(dtype);
    return (size_t)threads * TURN_BYTES;
}
size_t head_scratch(int threads) { return (size_t)threads * 96 * VOCAB_BLOCK * sizeof(float); }
size_t sample_scratch(int threads, int64_t V) { return (size_t)threads * (size_t)V * 8; }
size_t latent_scratch(int threads, int64_t W) { return (size_t)threads * (size_t)(256 * head_padded(W) + 512) * sizeof(float); }
