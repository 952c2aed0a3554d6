// What the tests of the operations share: guarded buffers, inputs of three temperaments, every CPU device this machine
// has (variants x 1, 2, 3 threads), and the comparison of each with the slow C twin, bit for bit.
//
// A test makes its inputs once with `input` and `packed`, names its outputs with `output`, fills the arguments and calls
// COMPARE: the operation runs on the reference and then on each device, every time from the same initial outputs.
#ifndef RECKON_OPS_TEST_H
#define RECKON_OPS_TEST_H
#include "../test.h"
#include "device.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))

// ---- guarded buffers -------------------------------------------------------------------------------------
// Each lies between two bands of poisoned bytes, off any boundary wider than its elements. Under the address
// sanitizer the bands may not even be read.
typedef enum Kind { KIND_F32, KIND_BF16, KIND_F64, KIND_BYTES } Kind;
enum { BAND = 136, MAX_BLOCKS = 64, POISON = 0xa5 };
typedef struct Block {
    const char *name;
    unsigned char *memory, *data;
    size_t bytes;
    Kind kind;
    unsigned char *initial, *want; // of outputs
} Block;
static Block blocks[MAX_BLOCKS];
static int block_count;
static char context[256];  // the case, for messages
static bool may_be_nan;    // some input of this case isn't a plain number

// Frees the latest ones, down to `count`.
static inline void blocks_drop(int count) {
    while (block_count > count) {
        Block *b = &blocks[--block_count];
        ASAN_UNPOISON_MEMORY_REGION(b->memory, b->bytes + 2 * BAND);
        free(b->memory), free(b->initial), free(b->want);
        *b = (Block){0};
    }
}
static inline void blocks_free(void) {
    blocks_drop(0);
    may_be_nan = false;
}

static inline void bands_close(const Block *b) {
    ASAN_POISON_MEMORY_REGION(b->memory, BAND);
    ASAN_POISON_MEMORY_REGION(b->data + b->bytes, BAND);
}

static inline void *guarded(const char *name, size_t bytes) {
    CHECK(block_count < MAX_BLOCKS);
    Block *b = &blocks[block_count++];
    *b = (Block){.name = name, .bytes = bytes, .memory = aligned_alloc(64, (bytes + 2 * BAND + 63) / 64 * 64)};
    CHECK(b->memory);
    b->data = b->memory + BAND;
    memset(b->memory, POISON, bytes + 2 * BAND);
    bands_close(b);
    return b->data;
}

static inline void bands_check(const char *who) {
    for (int i = 0; i < block_count; i++) {
        const Block *b = &blocks[i];
        ASAN_UNPOISON_MEMORY_REGION(b->memory, b->bytes + 2 * BAND);
        for (int k = 0; k < BAND; k++) {
            if (b->memory[k] != POISON) FAIL("%s, %s: wrote %d bytes before %s", context, who, BAND - k, b->name);
            if (b->data[b->bytes + (size_t)k] != POISON) FAIL("%s, %s: wrote %d bytes past %s", context, who, k, b->name);
        }
        bands_close(b);
    }
}

static inline size_t kind_size(Kind k) { return k == KIND_F32 ? 4 : k == KIND_BF16 ? 2 : k == KIND_F64 ? 8 : 1; }
static inline Kind kind_of(Dtype d) { return d == DTYPE_F32 ? KIND_F32 : KIND_BF16; }

// An output, poisoned; what the test writes into it before COMPARE is what every run starts from.
static inline void *output(const char *name, int64_t count, Kind kind) {
    void *data = guarded(name, (size_t)count * kind_size(kind));
    Block *b = &blocks[block_count - 1];
    b->kind = kind;
    b->initial = malloc(b->bytes + 1);
    b->want = malloc(b->bytes + 1);
    return data;
}

// ---- inputs ----------------------------------------------------------------------------------------------
static inline float bf16_float(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline bf16 float_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return f != f ? 0x7fc0 : (bf16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// PLAIN: in [-1, 1). ROUGH: zeros of both signs, denormals, the edges of underflow and overflow among them. HOSTILE:
// NaN and infinities among plain ones.
typedef enum Temper { PLAIN, ROUGH, HOSTILE } Temper;
static inline float any_float(Random *r, Temper temper) {
    uint32_t u = random_next(r), special = random_next(r) % 16;
    float plain = (float)(int32_t)u * 0x1p-31f, denormal;
    if (temper == PLAIN) return plain;
    if (temper == HOSTILE)
        return special == 0 && u % 4 == 0 ? NAN : special == 1 && u % 8 == 0 ? INFINITY : special == 2 && u % 8 == 0 ? -INFINITY : plain;
    u &= 0x807fffff;
    memcpy(&denormal, &u, 4);
    switch (special) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return denormal;
    case 3: return plain * 0x1p40f;
    case 4: return plain * 0x1p-60f;
    case 5: return plain * 0x1p-64f;
    case 6: return plain * 0x1p-125f;
    case 7: return plain * 128.0f;
    default: return plain;
    }
}

static inline float *input(const char *name, int64_t count, Random *r, Temper temper) {
    float *data = guarded(name, (size_t)count * 4);
    for (int64_t i = 0; i < count; i++) data[i] = any_float(r, temper);
    if (temper != PLAIN) may_be_nan = true; // rough ones can overflow
    return data;
}
// The same in the stored precision.
static inline void *input_act(const char *name, int64_t count, Dtype d, Random *r, Temper temper) {
    if (d == DTYPE_F32) return input(name, count, r, temper);
    bf16 *data = guarded(name, (size_t)count * 2);
    for (int64_t i = 0; i < count; i++) data[i] = float_bf16(any_float(r, temper));
    if (temper != PLAIN) may_be_nan = true;
    return data;
}
static inline float act_value(const void *p, int64_t i, Dtype d) {
    return d == DTYPE_F32 ? ((const float *)p)[i] : bf16_float(((const bf16 *)p)[i]);
}
static inline int32_t *input_ids(const char *name, int64_t count, Random *r, uint32_t bound) {
    int32_t *data = guarded(name, (size_t)count * 4);
    for (int64_t i = 0; i < count; i++) data[i] = (int32_t)random_below(r, bound);
    return data;
}

// ---- devices ---------------------------------------------------------------------------------------------
enum { MAX_DEVICES = 16, VARIANT_COUNT = 4 };
static const char *const variant_names[VARIANT_COUNT] = {"generic", "avx2", "avx512", "avx512bf16"};
static Device *reference_device, *test_devices[MAX_DEVICES];
static int device_count;

static inline void devices_open(void) {
    Err err = {0};
    if (reference_device) return;
    OK(device_open_cpu("reference", 1, &reference_device, &err));
    for (int v = 0; v < VARIANT_COUNT; v++)
        for (int threads = 1; threads <= 3; threads++) {
            if (device_open_cpu(variant_names[v], threads, &test_devices[device_count], &err))
                device_count++;
            else
                CHECK_INT(err.code, ERR_UNAVAILABLE); // this processor lacks it: which ones ran is printed by `variants`
        }
}
static inline void devices_close(void) {
    for (int i = 0; i < device_count; i++) device_close(test_devices[i]);
    device_close(reference_device);
}
// A skip that names what could not be compared here.
static inline void variants(void) {
    devices_open();
    char lacking[128] = "";
    for (int v = 0; v < VARIANT_COUNT; v++) {
        bool found = false;
        for (int i = 0; i < device_count; i++) found |= !strcmp(test_devices[i]->variant, variant_names[v]);
        if (!found) strcat(strcat(lacking, " "), variant_names[v]);
    }
    if (*lacking) SKIP("this processor lacks what these variants need:%s", lacking);
}
#define OPS_TEST_MAIN(table)                                                                                 \
    int main(int argc, char **argv) {                                                                        \
        int status = test_main(argc, argv, table, sizeof(table) / sizeof((table)[0]));                       \
        blocks_free();                                                                                       \
        devices_close();                                                                                     \
        return status;                                                                                       \
    }

// ---- comparison ------------------------------------------------------------------------------------------
typedef void (*Call)(const Device *device, const void *args);
#define CALL(name, Args)                                                                                     \
    static inline void call_##name(const Device *d, const void *args) { d->name(d, (const Args *)args); }
RECKON_OPERATIONS(CALL)
#undef CALL

static inline double value_at(Kind k, const unsigned char *p, size_t i) {
    double f64;
    if (k == KIND_F32) return (double)((const float *)(const void *)p)[i];
    if (k == KIND_BF16) return (double)bf16_float(((const bf16 *)(const void *)p)[i]);
    if (k == KIND_BYTES) return p[i];
    memcpy(&f64, p + 8 * i, 8);
    return f64;
}

// The same bits; where one is NaN the other must be, of whatever sign and payload.
static inline void blocks_compare(const Block *b, const char *who) {
    size_t size = kind_size(b->kind);
    if (!memcmp(b->data, b->want, b->bytes)) return;
    for (size_t i = 0; i < b->bytes / size; i++) {
        if (!memcmp(b->data + i * size, b->want + i * size, size)) continue;
        double got = value_at(b->kind, b->data, i), want = value_at(b->kind, b->want, i);
        if (got != got && want != want) continue;
        FAIL("%s, %s: %s[%zu]: got %.9g (%a), the reference has %.9g (%a)", context, who, b->name, i, got, got, want, want);
    }
}

static inline void compare(Call call, const void *args) {
    devices_open();
    for (int i = 0; i < block_count; i++)
        if (blocks[i].initial) memcpy(blocks[i].initial, blocks[i].data, blocks[i].bytes);
    call(reference_device, args);
    bands_check("reference");
    for (int i = 0; i < block_count; i++) {
        Block *b = &blocks[i];
        if (!b->want) continue;
        memcpy(b->want, b->data, b->bytes);
        for (size_t k = 0; !may_be_nan && b->kind != KIND_BYTES && k < b->bytes / kind_size(b->kind); k++)
            if (value_at(b->kind, b->want, k) != value_at(b->kind, b->want, k))
                FAIL("%s, reference: %s[%zu] is NaN for plain inputs", context, b->name, k);
    }
    static int turn; // with 1 thread always, with 2 and 3 by turns
    turn++;
    for (int d = 0; d < device_count; d++) {
        if (test_devices[d]->threads == 2 + turn % 2) continue;
        for (int i = 0; i < block_count; i++)
            if (blocks[i].initial) memcpy(blocks[i].data, blocks[i].initial, blocks[i].bytes);
        call(test_devices[d], args);
        char who[64];
        snprintf(who, sizeof who, "%s with %d threads", test_devices[d]->variant, test_devices[d]->threads);
        bands_check(who);
        for (int i = 0; i < block_count; i++)
            if (blocks[i].want) blocks_compare(&blocks[i], who);
    }
}
// COMPARE(operation, &args, "M %d N %d", M, N): outputs of every device against the reference's.
#define COMPARE(name, args, ...)                                                                             \
    do {                                                                                                     \
        snprintf(context, sizeof context, #name " " __VA_ARGS__);                                            \
        compare(call_##name, (args));                                                                        \
    } while (0)

static inline const char *dtype_name(Dtype d) { return d == DTYPE_F32 ? "fp32" : "bf16"; }
static inline const char *temper_name(Temper t) { return t == PLAIN ? "plain" : t == ROUGH ? "rough" : "hostile"; }

// w [N, K] packed (or its transpose), by the reference.
static inline void *packed(const char *name, const float *w, int64_t N, int64_t K, Dtype d, bool transposed) {
    devices_open();
    int64_t count = transposed ? panels_elements(K, N, d) : panels_elements(N, K, d);
    void *data = guarded(name, (size_t)count * dtype_size(d));
    PackArgs a = {.w = w, .N = N, .K = K, .dtype = d};
    *(transposed ? &a.transposed : &a.packed) = data;
    reference_device->pack(reference_device, &a);
    return data;
}

// ---- gradients -------------------------------------------------------------------------------------------
// The loss of a test as a function of its double-precision inputs, by a plain statement of the formula.
typedef double (*Loss)(const void *problem);
// Central difference along *x; exact to about 1e-9 for smooth losses of size 1.
static inline double slope(Loss loss, const void *problem, double *x) {
    double old = *x, h = 1e-5;
    *x = old + h;
    double high = loss(problem);
    *x = old - h;
    double low = loss(problem);
    *x = old;
    return (high - low) / (2 * h);
}
static inline double *widened(const char *name, const float *x, int64_t count) {
    double *data = guarded(name, (size_t)count * 8);
    for (int64_t i = 0; i < count; i++) data[i] = (double)x[i];
    return data;
}
// got[i] against the slope along x[i], for every i (or about `samples` of them), within `tolerance` of the largest.
static inline void check_slopes(const char *name, Loss loss, const void *problem, double *x, const float *got, int64_t count,
                                int64_t samples, double tolerance) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)got[i]));
    CHECK(largest > 0); // a gradient that is all zero would prove nothing
    int64_t stride = samples && samples < count ? count / samples : 1;
    for (int64_t i = 0; i < count; i += stride) {
        double want = slope(loss, problem, &x[i]);
        if (!(fabs((double)got[i] - want) <= tolerance * fmax(largest, 1e-3)))
            FAIL("%s[%lld]: got %.9g, the slope is %.9g (largest %.3g, tolerance %g of it)", name, (long long)i, (double)got[i],
                 want, largest, tolerance);
    }
}

#endif
