// What the tests of the CUDA operations share. It stands on tests/kernels/ops_test.h: a test makes its arrays on the host
// (`input`, `input_act`, `input_ids`, `output`, and from here `weights`, `segments`, `work_area`), fills the argument
// struct with these host pointers, and calls
//
//   COMPARE_CUDA(rmsnorm, &args, "T %d", T);   the slow twin on the host, then the device, then every output compared
//   ON_CUDA(rmsnorm, &args, "row alone");      the device only; outputs lie in the host arrays afterwards
//
// Every array has a mirror in the device's memory between two guard bands. A call uploads all arrays as they are (outputs
// too: what they hold is what the operation starts from), replaces each pointer into an array by the same place of its
// mirror, runs, downloads, and checks that bands and inputs are as they were. Pointers to anything else, such as
// Segments.host, are left alone. Interior pointers (x + m * C) are fine.
//
// An output must be the twin's to the bit (NaN of any payload) unless `tolerate` was called for it. The CPU takes denormals for
// zeros and the device doesn't, so a difference below UNDERFLOW passes: what a denormal becomes times the largest factors of
// ROUGH inputs. After COMPARE_CUDA the array holds the device's result, `reference_of` gives the twin's.
//
// RECKON_CUDA_EXACT=1 leaves the bands out and takes each array from the driver, for compute-sanitizer.
#ifndef RECKON_CUDA_TEST_H
#define RECKON_CUDA_TEST_H
#include "../kernels/ops_test.h"
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"
#endif

enum { DEVICE_BAND = 256, SMALL_ARGS = 512 };
#define UNDERFLOW 1e-20
typedef enum Role { ROLE_INPUT, ROLE_OUTPUT, ROLE_WORK, ROLE_HOST } Role;

// The device's side of blocks[i].
typedef struct Mirror {
    void *memory;                // band, data, band
    size_t bytes;                // of the data
    Role role;
    bool pointers;               // the data holds pointers into other arrays
    double absolute, relative;   // tolerances; both 0: to the bit
    const float *w;              // a packed matrix: its source, packed by each side in its own form
    int64_t N, K;
    Dtype dtype;
    bool transposed;
} Mirror;
static Mirror mirrors[MAX_BLOCKS];
static Device *cuda_device;

// Whether each array is an allocation of its own without bands, so that whoever watches the memory sees where it ends. The
// emulated device always watches.
static inline bool exact_arrays(void) {
#ifdef RECKON_CUDA_EMULATION
    return true;
#else
    return getenv("RECKON_CUDA_EXACT") != NULL;
#endif
}
static inline void cuda_open(void) {
    Err err = {0};
    if (cuda_device) return;
    if (exact_arrays()) setenv("RECKON_CUDA_SLAB", "0", 1); // each array from the driver
    if (!reference_device) OK(device_open_cpu("reference", 1, &reference_device, &err));
    if (device_open_cuda(0, 1, &cuda_device, &err)) return;
    cuda_device = NULL;
    if (err.code == ERR_UNAVAILABLE) SKIP("%s: %s", err.where, err.msg);
    FAIL("%s: %s", err.where, err.msg);
}
// At the start of each case: no arrays, devices open.
static inline void cuda_case(void) {
    cuda_open();
    for (int i = 0; i < MAX_BLOCKS; i++) {
        if (mirrors[i].memory) cuda_device->release(cuda_device, mirrors[i].memory);
        mirrors[i] = (Mirror){0};
    }
    blocks_free();
}
// Whether a case is left out: under sanitizers, where one takes ten times as long, two of three are. The build without them runs
// all, and sees every access outside of an array, every value that was never written and every race in a kernel by itself.
static inline bool cuda_spared(void) {
#ifdef RECKON_SANITIZED
    static int cases;
    return cases++ % 3 != 0;
#else
    return false;
#endif
}
static inline void cuda_close(void) {
    if (cuda_device) {
        for (int i = 0; i < MAX_BLOCKS; i++)
            if (mirrors[i].memory) cuda_device->release(cuda_device, mirrors[i].memory);
        device_close(cuda_device);
    }
    blocks_free();
    devices_close();
}
#define CUDA_TEST_MAIN(table)                                                                                \
    int main(int argc, char **argv) {                                                                        \
        int status = test_main(argc, argv, table, sizeof(table) / sizeof((table)[0]));                       \
        cuda_close();                                                                                        \
        return status;                                                                                       \
    }

// ---- arrays ----------------------------------------------------------------------------------------------
// The block in which p lies (its end counts), or -1.
static inline int block_of(const void *p) {
    for (int i = 0; i < block_count; i++)
        if ((uintptr_t)p >= (uintptr_t)blocks[i].data && (uintptr_t)p <= (uintptr_t)blocks[i].data + blocks[i].bytes) return i;
    return -1;
}
static inline Mirror *mirror_of(const void *p) {
    int i = block_of(p);
    if (i < 0) FAIL("%p is in no array of this case", p);
    return &mirrors[i];
}

// |device - reference| <= absolute + relative * |reference|.
static inline void tolerate(const void *array, double absolute, double relative) {
    Mirror *m = mirror_of(array);
    m->absolute = absolute, m->relative = relative;
}
// The array holds pointers into other arrays (SampleRow.kept): the device sees them translated.
static inline void holds_pointers(const void *array) { mirror_of(array)->pointers = true; }

// Written by the operation and compared by nothing here; a test may read it afterwards (and reference_of it).
static inline void *work_area(const char *name, size_t bytes) {
    void *data = output(name, (int64_t)bytes, KIND_BYTES);
    memset(data, 0, bytes);
    mirror_of(data)->role = ROLE_WORK;
    return data;
}
// A packed matrix w [N, K] (or its transpose); w is an array of this case.
static inline void *weights(const char *name, const float *w, int64_t N, int64_t K, Dtype d, bool transposed) {
    int64_t count = transposed ? panels_elements(K, N, d) : panels_elements(N, K, d);
    void *data = guarded(name, (size_t)count * dtype_size(d));
    PackArgs a = {.w = w, .N = N, .K = K, .dtype = d};
    *(transposed ? &a.transposed : &a.packed) = data;
    reference_device->pack(reference_device, &a);
    Mirror *m = mirror_of(data);
    m->w = w, m->N = N, m->K = K, m->dtype = d, m->transposed = transposed;
    return data;
}
// start [count + 1], copied.
static inline Segments segments(int count, const int32_t *start) {
    size_t bytes = (size_t)(count + 1) * sizeof *start;
    int32_t *on_device = guarded("segments.start", bytes), *on_host = guarded("segments.host", bytes);
    memcpy(on_device, start, bytes);
    memcpy(on_host, start, bytes);
    mirror_of(on_host)->role = ROLE_HOST;
    return (Segments){.count = count, .start = on_device, .host = on_host};
}
static inline const void *reference_of(const void *array) {
    int i = block_of(array);
    CHECK(i >= 0 && blocks[i].want);
    return blocks[i].want + ((const unsigned char *)array - blocks[i].data);
}

// ---- the device's side -----------------------------------------------------------------------------------
static inline size_t device_band(void) { return exact_arrays() ? 0 : DEVICE_BAND; }
static inline unsigned char *device_data(const Mirror *m) { return (unsigned char *)m->memory + device_band(); }

// Words of `memory` that point into arrays get the mirror's address, or the other way round.
static inline void translate(void *memory, size_t bytes, bool to_device) {
    for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, (char *)memory + at, sizeof word);
        for (int i = 0; i < block_count; i++) {
            uintptr_t host = (uintptr_t)blocks[i].data, there = (uintptr_t)device_data(&mirrors[i]);
            if (mirrors[i].role == ROLE_HOST) continue;
            uintptr_t from = to_device ? host : there, to = to_device ? there : host;
            if (word < from || word > from + blocks[i].bytes) continue;
            word += to - from;
            memcpy((char *)memory + at, &word, sizeof word);
            break;
        }
    }
}

static inline size_t mirror_bytes(int i) {
    const Mirror *m = &mirrors[i];
    if (!m->w) return blocks[i].bytes;
    return (size_t)(m->transposed ? packed_elements(m->K, m->N) : packed_elements(m->N, m->K)) * dtype_size(m->dtype);
}
static inline void mirrors_allocate(void) {
    Err err = {0};
    for (int i = 0; i < block_count; i++) {
        Mirror *m = &mirrors[i];
        if (blocks[i].want && m->role == ROLE_INPUT) m->role = ROLE_OUTPUT;
        if (m->memory || m->role == ROLE_HOST) continue;
        m->bytes = mirror_bytes(i);
        size_t all = m->bytes + 2 * device_band();
        OK(cuda_device->allocate(cuda_device, all ? all : 1, blocks[i].name, &m->memory, &err));
    }
}
static inline void mirror_upload(int i) {
    const Mirror *m = &mirrors[i];
    size_t band = device_band();
    if (m->role == ROLE_HOST) return;
    unsigned char *staged = malloc(m->bytes + 2 * band + 1);
    memset(staged, m->w ? 0 : POISON, m->bytes + 2 * band);
    memset(staged, POISON, band), memset(staged + band + m->bytes, POISON, band);
    if (!m->w) memcpy(staged + band, blocks[i].data, m->bytes);
    if (m->pointers) translate(staged + band, m->bytes, true);
    cuda_device->upload(cuda_device, m->memory, staged, m->bytes + 2 * band);
    free(staged);
}
static inline void mirror_pack(int i) {
    const Mirror *m = &mirrors[i];
    if (!m->w) return;
    PackArgs a = {.w = m->w, .N = m->N, .K = m->K, .dtype = m->dtype};
    *(m->transposed ? &a.transposed : &a.packed) = device_data(m);
    uintptr_t w = (uintptr_t)device_data(&mirrors[block_of(a.w)]) + ((uintptr_t)a.w - (uintptr_t)blocks[block_of(a.w)].data);
    a.w = (const float *)w;
    cuda_device->pack(cuda_device, &a);
}
static inline void mirror_download(int i) {
    const Mirror *m = &mirrors[i];
    Block *b = &blocks[i];
    size_t band = device_band();
    if (m->role == ROLE_HOST) return;
    unsigned char *staged = malloc(m->bytes + 2 * band + 1), *data = staged + band;
    cuda_device->download(cuda_device, staged, m->memory, m->bytes + 2 * band);
    size_t before = band, after = band;
    for (size_t k = band; k-- > 0;) {
        if (staged[k] != POISON) before = k;
        if (data[m->bytes + k] != POISON) after = k;
    }
    if (m->pointers) translate(data, m->bytes, false);
    bool changed = m->role == ROLE_INPUT && !m->w && memcmp(data, b->data, b->bytes) != 0;
    if (m->role != ROLE_INPUT) memcpy(b->data, data, b->bytes);
    size_t past = m->bytes;
    free(staged);
    if (before < band) FAIL("%s: the device wrote %zu bytes before %s", context, band - before, b->name);
    if (after < band) FAIL("%s: the device wrote at byte %zu of %s, which has %zu", context, past + after, b->name, past);
    if (changed) FAIL("%s: the device wrote into its input %s", context, b->name);
}

// On the emulated device: whether host code that touches device memory is caught. Only while an operation runs, as closing
// memory takes time.
static inline void guard_from_host(bool on) {
#ifdef RECKON_CUDA_EMULATION
    emulation_set_host_guard(on);
#else
    (void)on;
#endif
}
// Runs one operation on the device with arguments of the host's pointers.
static inline void on_cuda(Call call, const void *args, size_t bytes) {
    Err err = {0};
    _Alignas(16) unsigned char translated[SMALL_ARGS];
    CHECK(bytes <= sizeof translated);
    memcpy(translated, args, bytes);
    guard_from_host(false);
    mirrors_allocate();
    for (int i = 0; i < block_count; i++) mirror_upload(i);
    for (int i = 0; i < block_count; i++) mirror_pack(i);
    translate(translated, bytes, true);
    OK(cuda_device->finish(cuda_device, &err));
    guard_from_host(true);
    call(cuda_device, translated);
    OK(cuda_device->finish(cuda_device, &err));
    guard_from_host(false);
    for (int i = 0; i < block_count; i++) mirror_download(i);
}
#define ON_CUDA(name, args, ...)                                                                             \
    do {                                                                                                     \
        snprintf(context, sizeof context, #name " " __VA_ARGS__);                                            \
        on_cuda(call_##name, (args), sizeof *(args));                                                        \
    } while (0)

// ---- comparison ------------------------------------------------------------------------------------------
static inline void output_compare(int i) {
    const Block *b = &blocks[i];
    const Mirror *m = &mirrors[i];
    size_t size = kind_size(b->kind);
    for (size_t k = 0; k < b->bytes / size; k++) {
        if (!memcmp(b->data + k * size, b->want + k * size, size)) continue;
        double got = value_at(b->kind, b->data, k), want = value_at(b->kind, b->want, k);
        if (got != got && want != want) continue;
        if (isinf(want) ? got == want : fabs(got - want) <= fmax(UNDERFLOW, m->absolute + m->relative * fabs(want))) continue;
        FAIL("%s: %s[%zu]: the device has %.9g (%a), the reference %.9g (%a), allowed %g + %g of it", context, b->name, k, got,
             got, want, want, m->absolute, m->relative);
    }
}
static inline void compare_cuda(Call call, const void *args, size_t bytes) {
    mirrors_allocate();
    for (int i = 0; i < block_count; i++)
        if (blocks[i].want) memcpy(blocks[i].initial, blocks[i].data, blocks[i].bytes);
    call(reference_device, args);
    bands_check("reference");
    for (int i = 0; i < block_count; i++)
        if (blocks[i].want) {
            memcpy(blocks[i].want, blocks[i].data, blocks[i].bytes);
            memcpy(blocks[i].data, blocks[i].initial, blocks[i].bytes);
        }
    on_cuda(call, args, bytes);
    for (int i = 0; i < block_count; i++)
        if (mirrors[i].role == ROLE_OUTPUT) output_compare(i);
}
#define COMPARE_CUDA(name, args, ...)                                                                        \
    do {                                                                                                     \
        snprintf(context, sizeof context, #name " " __VA_ARGS__);                                            \
        compare_cuda(call_##name, (args), sizeof *(args));                                                   \
    } while (0)

// The same bytes, for invariance: what it is, and which element differs.
static inline void same_bits(const void *got, const void *want, int64_t count, Kind kind, const char *what) {
    size_t size = kind_size(kind);
    for (size_t k = 0; k < (size_t)count; k++)
        if (memcmp((const char *)got + k * size, (const char *)want + k * size, size) != 0)
            FAIL("%s, %s: element %zu has other bits: %.9g (%a), expected %.9g (%a)", context, what, k,
                 value_at(kind, got, k), value_at(kind, got, k), value_at(kind, want, k), value_at(kind, want, k));
}

#endif
