// Products in 8 bits against their slow twin, bit for bit in every variant and for any number of threads: what `pack` writes, the
// product over ragged shapes, the head. Besides: a row's sums don't depend on its neighbours, and what 8 bits cost.
#include "ops_test.h"

static void *int8_of(const float *w, int64_t N, int64_t K) {
    devices_open();
    void *data = guarded("int8", int8_bytes(N, K));
    reference_device->pack(reference_device, &(PackArgs){.w = w, .N = N, .K = K, .int8 = data});
    return data;
}

static void int8_packing(void) {
    static const int64_t sizes[][2] = {{1, 1}, {5, 3}, {31, 64}, {33, 65}, {64, 130}, {40, 576}, {97, 63}};
    Random r = random_start(30, STREAM_TEST, 0);
    for (int s = 0; s < LENGTH(sizes); s++)
        for (int temper = PLAIN; temper <= HOSTILE; temper++) {
            blocks_free();
            PackArgs a = {.N = sizes[s][0], .K = sizes[s][1], .dtype = (Dtype)(s % 2), .scale = s % 3 ? 0 : 1.25f};
            a.w = input("w", a.N * a.K, &r, (Temper)temper);
            a.int8 = output("int8", (int64_t)int8_bytes(a.N, a.K), KIND_BYTES);
            if (s % 2) a.packed = output("packed", panels_elements(a.N, a.K, a.dtype), kind_of(a.dtype));
            COMPARE(pack, &a, "in 8 bits N %d K %d %s", (int)a.N, (int)a.K, temper_name((Temper)temper));
        }
}

static void int8_case(Random *r, int64_t M, int64_t N, int64_t K, Dtype d, int turn) {
    blocks_free();
    Temper temper = (Temper)(turn % 3);
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = d, .store = (Store)(turn / 2 % 3), .ldx = packed_depth(K, d) + N % 4, .ldy = N + M % 3,
                    .format = WEIGHT_INT8};
    a.x = input_act("x", M * a.ldx, d, r, temper);
    const float *w = input("w", N * K, r, temper == HOSTILE ? PLAIN : temper);
    if (turn % 5 == 0) ((float *)(uintptr_t)w)[N * K / 2] = INFINITY, may_be_nan = true;
    a.w = int8_of(w, N, K);
    if (turn % 4 == 1) a.bias = input("bias", N, r, PLAIN);
    a.scratch = guarded("scratch", (size_t)(M * int8_row_bytes(K)));
    a.y = output("y", (M - 1) * a.ldy + N, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
    for (int64_t i = 0; a.store == ADD_F32 && i < (M - 1) * a.ldy + N; i++) ((float *)a.y)[i] = any_float(r, PLAIN);
    COMPARE(matmul, &a, "in 8 bits M %d N %d K %d %s %s", (int)M, (int)N, (int)K, dtype_name(d), temper_name(temper));
}
static void int8_products(void) {
    static const int64_t Ms[] = {1, 3, 5, 11, 12, 13, 25, 97, 200};
    static const int64_t sizes[][2] = {{1, 1}, {7, 3}, {16, 64}, {31, 33}, {50, 65}, {97, 131}, {33, 576}};
    Random r = random_start(31, STREAM_TEST, 0);
    int turn = 0;
    for (int m = 0; m < LENGTH(Ms); m++)
        for (int s = 0; s < LENGTH(sizes); s++)
            for (int d = 0; d < 2; d++) int8_case(&r, Ms[m], sizes[s][0], sizes[s][1], (Dtype)d, turn++);
    for (int64_t M = 1; M <= 30; M++) int8_case(&r, M, 37, 70, (Dtype)(M % 2), turn++);
}

// A row alone, and among others, which stand before or behind it.
static void int8_rows_stand_alone(void) {
    enum { M = 130, N = 75, K = 150 };
    Random r = random_start(32, STREAM_TEST, 0);
    devices_open();
    for (int d = 0; d < 2; d++) {
        blocks_free();
        Dtype dtype = (Dtype)d;
        MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = dtype, .store = STORE_F32, .ldx = K, .ldy = N, .format = WEIGHT_INT8};
        a.x = input_act("x", M * K, dtype, &r, PLAIN);
        a.w = int8_of(input("w", N * K, &r, PLAIN), N, K);
        a.scratch = guarded("scratch", (size_t)(M * int8_row_bytes(K)));
        float *all = guarded("all", sizeof(float) * M * N), *one = guarded("one", sizeof(float) * N);
        for (int i = 0; i < device_count; i++) {
            a.M = M, a.y = all;
            test_devices[i]->matmul(test_devices[i], &a);
            for (int64_t m = 0; m < M; m += 13) {
                MatmulArgs alone = a;
                alone.M = 1, alone.y = one, alone.x = (const char *)a.x + (size_t)(m * K) * dtype_size(dtype);
                test_devices[i]->matmul(test_devices[i], &alone);
                if (memcmp(one, all + m * N, sizeof(float) * N))
                    FAIL("%s with %d threads, %s: row %d alone differs", test_devices[i]->variant, test_devices[i]->threads, dtype_name(dtype), (int)m);
            }
        }
    }
}

static void int8_head(void) {
    enum { C = 70 };
    static const int64_t shapes[][2] = {{1, 300}, {5, 1100}, {98, 40}, {3, 2500}}; // M, V
    Random r = random_start(33, STREAM_TEST, 0);
    for (int k = 0; k < 2 * LENGTH(shapes); k++) {
        Dtype d = (Dtype)(k % 2);
        int64_t M = shapes[k / 2][0], V = shapes[k / 2][1], padded = vocab_padded(V);
        blocks_free();
        HeadArgs a = {.M = M, .V = V, .C = C, .dtype = d, .format = WEIGHT_INT8, .softcap = k % 3 == 2 ? 2.0f : 0};
        a.x = input_act("x", M * C, d, &r, PLAIN);
        a.w = int8_of(input("w", V * C, &r, PLAIN), V, C);
        float *inv_temperature = guarded("inv_temperature", (size_t)M * 4);
        for (int64_t m = 0; m < M; m++) inv_temperature[m] = m % 2 ? 1.0f : 0.05f;
        a.inv_temperature = inv_temperature;
        a.target = input_ids("target", M, &r, (uint32_t)V);
        a.scratch = guarded("scratch", head_scratch(3));
        a.blocks = guarded("rows", (size_t)(M * int8_row_bytes(C)));
        a.stats = output("stats", M * (padded / VOCAB_BLOCK) * 3, KIND_F32);
        if (k % 4 < 2) a.logits = output("logits", M * padded, KIND_F32);
        a.logprob = output("logprob", M, KIND_F32), a.entropy = output("entropy", M, KIND_F32);
        COMPARE(head, &a, "in 8 bits M %d V %d %s", (int)M, (int)V, dtype_name(d));
    }
}

// All numbers at the ends of their range: nothing on the way to 32 bits may saturate or wrap. One of `a`, the others of opposite
// signs, so that q is 127 or -127 everywhere.
static void int8_largest_sums(void) {
    enum { M = 14, N = 34 };
    static const int64_t Ks[] = {3, 64, 131, 640};
    for (int k = 0; k < LENGTH(Ks); k++)
        for (int signs = 0; signs < 4; signs++) {
            blocks_free();
            int64_t K = Ks[k];
            float *w = guarded("w", (size_t)(N * K) * 4), *x = guarded("x", (size_t)(M * K) * 4);
            for (int64_t i = 0; i < N * K; i++) w[i] = signs & 1 ? -3.0f : 3.0f;
            for (int64_t i = 0; i < M * K; i++) x[i] = signs & 2 ? -0.5f : 0.5f;
            MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = DTYPE_F32, .store = STORE_F32, .x = x, .ldx = K, .ldy = N, .format = WEIGHT_INT8};
            a.w = int8_of(w, N, K);
            a.scratch = guarded("scratch", (size_t)(M * int8_row_bytes(K)));
            float *y = a.y = output("y", M * N, KIND_F32);
            COMPARE(matmul, &a, "in 8 bits, the largest sums, K %d signs %d", (int)K, signs);
            double want = (signs == 1 || signs == 2 ? -1.5 : 1.5) * (double)K;
            for (int i = 0; i < M * N; i++) CHECK_NEAR(y[i], want, 1e-5 * fabs(want));
        }
}

// Beside the product in double: uniform numbers in runs of 64 are off by about 1/127/sqrt(12) of their largest each.
static void int8_error(void) {
    enum { M = 8, N = 64, K = 576 };
    Random r = random_start(34, STREAM_TEST, 0);
    blocks_free();
    devices_open();
    const float *w = input("w", N * K, &r, PLAIN), *x = input("x", M * K, &r, PLAIN);
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = DTYPE_F32, .store = STORE_F32, .x = x, .ldx = K, .ldy = N, .format = WEIGHT_INT8};
    a.w = int8_of(w, N, K);
    a.scratch = guarded("scratch", (size_t)(M * int8_row_bytes(K)));
    float *y = a.y = guarded("y", sizeof(float) * M * N);
    test_devices[0]->matmul(test_devices[0], &a);
    double error = 0, size = 0;
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double want = 0;
            for (int k = 0; k < K; k++) want += (double)x[m * K + k] * (double)w[n * K + k];
            error += (y[m * N + n] - want) * (y[m * N + n] - want), size += want * want;
        }
    double relative = sqrt(error / size);
    CHECK(relative > 0.003 && relative < 0.008); // sqrt(2) * sqrt(3) / 127 / sqrt(12) = 0.0056
}

static const Test tests[] = {
    {"8 bits: what pack writes", int8_packing},
    {"8 bits: products", int8_products},
    {"8 bits: rows stand alone", int8_rows_stand_alone},
    {"8 bits: the head", int8_head},
    {"8 bits: the largest sums", int8_largest_sums},
    {"8 bits: the error", int8_error},
    {"variants", variants},
};
OPS_TEST_MAIN(tests)
