// A profiled device gives the bits of the one behind it, counts every call by operation and shape, and forgets when told.
#include "profile.h"
#include "../test.h"
#include <string.h>

enum { M = 5, N = 40, K = 24 };
static Device *open_device(void) {
    Device *d;
    Err err = {0};
    OK(device_open_cpu("generic", 1, &d, &err));
    return d;
}
static Device *open_profiled(void) {
    Device *d = NULL;
    Err err = {0};
    OK(profile_open(open_device(), &d, &err));
    return d;
}
// y = x w^T of small whole numbers.
static void multiply(const Device *d, int64_t columns, float y[M * N]) {
    static _Alignas(64) float w[N * K], x[M * K], packed[(N + PANEL) * (K + 16)];
    for (int i = 0; i < N * K; i++) w[i] = (float)(i % 7 - 3);
    for (int i = 0; i < M * K; i++) x[i] = (float)(i % 5 - 2);
    d->pack(d, &(PackArgs){.w = w, .N = columns, .K = K, .dtype = DTYPE_F32, .packed = packed});
    d->matmul(d, &(MatmulArgs){.M = M, .N = columns, .K = K, .dtype = DTYPE_F32, .x = x, .ldx = K, .w = packed, .y = y, .ldy = N});
}

static const ProfileRow *row_of(Device *d, const char *operation, int64_t columns) {
    const ProfileRow *rows;
    int count = profile_rows(d, &rows);
    for (int i = 0; i < count; i++)
        if (strcmp(rows[i].operation, operation) == 0 && rows[i].N == columns) return &rows[i];
    return NULL;
}

static void same_bits(void) {
    float plain[M * N] = {0}, profiled[M * N] = {0};
    Device *a = open_device(), *b = open_profiled();
    CHECK_STR(a->variant, b->variant);
    multiply(a, N, plain);
    multiply(b, N, profiled);
    CHECK(plain[1] != 0 && memcmp(plain, profiled, sizeof plain) == 0);
    device_close(a);
    device_close(b);
}

static void counts(void) {
    float y[M * N] = {0};
    Device *d = open_profiled();
    for (int i = 0; i < 3; i++) multiply(d, N, y);
    multiply(d, N - 8, y);
    d->zero(d, y, sizeof y);
    const ProfileRow *wide = row_of(d, "matmul", N), *narrow = row_of(d, "matmul", N - 8), *pack = row_of(d, "pack", 0), *zero = row_of(d, "zero", 0);
    CHECK(wide && narrow && pack && zero);
    if (wide && narrow && pack && zero) {
        CHECK_INT(wide->calls, 3);
        CHECK_INT(wide->K, K);
        CHECK_NEAR(wide->flops, 3 * 2.0 * M * N * K, 0);
        CHECK_INT(narrow->calls, 1);
        CHECK_INT(pack->calls, 4);
        CHECK_INT(zero->calls, 1);
        CHECK(wide->seconds > 0 && narrow->seconds > 0);
    }
    device_close(d);
}

static void most_seconds_first_until_forgotten(void) {
    float y[M * N] = {0};
    const ProfileRow *rows;
    Device *d = open_profiled();
    for (int i = 0; i < 3; i++) multiply(d, N - i, y);
    int count = profile_rows(d, &rows);
    CHECK_INT(count, 4);
    for (int i = 1; i < count; i++) CHECK(rows[i - 1].seconds >= rows[i].seconds);
    profile_forget(d);
    CHECK_INT(profile_rows(d, &rows), 0);
    device_close(d);
}

// More shapes than there are rows: nothing is lost, the last row has the rest.
static void many_shapes(void) {
    enum { SHAPES = 300 };
    static _Alignas(64) float w[SHAPES], packed[(SHAPES + PANEL) * 16];
    const ProfileRow *rows;
    Device *d = open_profiled();
    for (int n = 1; n <= SHAPES; n++) {
        float y[SHAPES], x[16] = {1};
        d->pack(d, &(PackArgs){.w = w, .N = n, .K = 1, .dtype = DTYPE_F32, .packed = packed});
        d->matmul(d, &(MatmulArgs){.M = 1, .N = n, .K = 1, .dtype = DTYPE_F32, .x = x, .ldx = 1, .w = packed, .y = y, .ldy = n});
    }
    int64_t calls = 0;
    int count = profile_rows(d, &rows);
    for (int i = 0; i < count; i++) calls += rows[i].calls;
    CHECK_INT(calls, 2 * SHAPES);
    CHECK(row_of(d, "others", 0));
    device_close(d);
}

static const Test tests[] = {{"a profiled device gives the same bits", same_bits},
                             {"calls, shapes and FLOPs are counted", counts},
                             {"most seconds first, until forgotten", most_seconds_first_until_forgotten},
                             {"more shapes than rows", many_shapes}};
TEST_MAIN(tests)
