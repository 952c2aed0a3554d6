// Packing and matrix products: the bits of every variant, rows that don't depend on M, weight gradients that don't
// depend on the split into calls, and the gradients themselves.
#include "ops_test.h"

static void pack_layout(void) {
    blocks_free();
    devices_open();
    Random r = random_start(1, STREAM_TEST, 0);
    int64_t N = 70, K = 13;
    for (int d = 0; d < 2; d++) {
        Dtype dtype = (Dtype)d;
        int64_t step = dtype == DTYPE_F32 ? 1 : 2, depth = (K + step - 1) / step * step;
        float *w = input("w", N * K, &r, PLAIN);
        void *p = packed("packed", w, N, K, dtype, false);
        CHECK_INT(panels_elements(N, K, dtype), 96 * depth);
        for (int64_t n = 0; n < 96; n++)
            for (int64_t k = 0; k < depth; k++) {
                int64_t at = n / 32 * 32 * depth + (k / step * 32 + n % 32) * step + k % step;
                float want = n < N && k < K ? w[n * K + k] : 0.0f;
                if (dtype == DTYPE_BF16) want = bf16_float(float_bf16(want));
                CHECK(act_value(p, at, dtype) == want);
            }
    }
}

static void pack_bits(void) {
    static const int64_t sizes[][2] = {{1, 1}, {5, 3}, {32, 32}, {33, 17}, {70, 65}, {64, 128}, {3, 100}};
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(sizes); i++)
        for (int d = 0; d < 2; d++)
            for (int which = 1; which < 4; which++) {
                blocks_free();
                PackArgs a = {.N = sizes[i][0], .K = sizes[i][1], .dtype = (Dtype)d, .scale = i % 2 ? 0.7f : 0};
                a.w = input("w", a.N * a.K, &r, (Temper)(which % 3));
                if (which & 1) a.packed = output("packed", panels_elements(a.N, a.K, a.dtype), kind_of(a.dtype));
                if (which & 2) a.transposed = output("transposed", panels_elements(a.K, a.N, a.dtype), kind_of(a.dtype));
                COMPARE(pack, &a, "N %d K %d %s", (int)a.N, (int)a.K, dtype_name(a.dtype));
            }
}

// One product with rows of x and y that lie further apart than they are long.
static void matmul_case(Random *r, int64_t M, int64_t N, int64_t K, Dtype dtype, Store store, bool bias, Temper temper) {
    blocks_free();
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = dtype, .store = store, .ldx = packed_depth(K, dtype) + N % 4, .ldy = N + M % 3};
    void *x = input_act("x", M * a.ldx, dtype, r, temper);
    if (dtype == DTYPE_BF16 && K % 2) // the partner of the last k is read: it must be a finite number
        for (int64_t m = 0; m < M; m++) ((bf16 *)x)[m * a.ldx + K] = 0x3f80;
    a.x = x;
    a.w = packed("packed w", input("w", N * K, r, temper == HOSTILE ? PLAIN : temper), N, K, dtype, false);
    if (bias) a.bias = input("bias", N, r, temper);
    bool half = store == STORE_ACT && dtype == DTYPE_BF16;
    a.y = output("y", (M - 1) * a.ldy + N, half ? KIND_BF16 : KIND_F32);
    if (store == ADD_F32)
        for (int64_t i = 0; i < (M - 1) * a.ldy + N; i++) ((float *)a.y)[i] = any_float(r, temper);
    COMPARE(matmul, &a, "M %d N %d K %d %s store %d bias %d %s", (int)M, (int)N, (int)K, dtype_name(dtype), store, bias,
            temper_name(temper));
}

static void matmul_bits(void) {
    static const int64_t Ms[] = {1, 3, 5, 11, 12, 13, 17, 64, 65, 200};
    static const int64_t sizes[][2] = {{1, 1}, {7, 3}, {16, 16}, {31, 33}, {50, 24}, {97, 40}, {130, 71}};
    Random r = random_start(3, STREAM_TEST, 0);
    int turn = 0;
    for (int m = 0; m < LENGTH(Ms); m++)
        for (int s = 0; s < LENGTH(sizes); s++)
            for (int d = 0; d < 2; d++, turn++)
                matmul_case(&r, Ms[m], sizes[s][0], sizes[s][1], (Dtype)d, (Store)(turn / 2 % 3), turn / 6 % 2, (Temper)(turn / 2 % 4 % 3));
}

static void matmul_every_m(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    for (int64_t M = 1; M <= 70; M++)
        for (int d = 0; d < 2; d++) matmul_case(&r, M, 33, 18, (Dtype)d, (Store)(M % 3), M % 2, (Temper)(M / 3 % 3));
}

// Products with the transpose of what is packed: the bits of a product with the transpose, packed.
static void turned_products(void) {
    static const int64_t sizes[][3] = {{1, 1, 1}, {3, 7, 5}, {13, 33, 31}, {12, 64, 32}, {30, 97, 40}, {17, 31, 70}, {25, 70, 1100}, {1010, 35, 19}, {150, 40, 530}, {300, 40, 1100},
                                       {250, 1057, 513}}; // M, N, K; the last: more panels than sums of a piece have room for
    Random r = random_start(9, STREAM_TEST, 0);
    for (int s = 0; s < LENGTH(sizes); s++)
        for (int k = 0; k < 6; k++) {
            int64_t M = sizes[s][0], N = sizes[s][1], K = sizes[s][2];
            Dtype d = (Dtype)(k % 2);
            if (M * N * K > 1 << 27 && k != 2) continue;
            blocks_free();
            MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = d, .store = (Store)(k / 2), .ldx = packed_depth(K, d) + s % 2, .ldy = N + s % 3, .transposed = true};
            a.x = input_act("x", M * a.ldx, d, &r, k == 5 ? HOSTILE : PLAIN);
            for (int64_t m = 0; d == DTYPE_BF16 && K % 2 && m < M; m++) ((bf16 *)(uintptr_t)a.x)[m * a.ldx + K] = 0x3f80;
            float *w = input("w", K * N, &r, PLAIN);
            a.w = packed("packed w", w, K, N, d, false);
            if (s % 2) a.bias = input("bias", N, &r, PLAIN);
            a.scratch = guarded("scratch", (int64_t)turn_scratch(true, 8, N, K, d));
            a.y = output("y", M * a.ldy, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
            for (int64_t i = 0; a.store == ADD_F32 && i < M * a.ldy; i++) ((float *)a.y)[i] = any_float(&r, PLAIN);
            COMPARE(matmul, &a, "turned M %d N %d K %d %s store %d", (int)M, (int)N, (int)K, dtype_name(d), (int)a.store);
            if (a.store == ADD_F32) continue;
            void *got = a.y;
            a.w = packed("packed transpose", w, K, N, d, true), a.transposed = false;
            a.y = output("y of the transpose", M * a.ldy, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
            reference_device->matmul(reference_device, &a);
            for (int64_t m = 0; m < M; m++)
                if (memcmp((char *)got + (size_t)(m * a.ldy) * (a.store == STORE_ACT ? dtype_size(d) : 4), (char *)a.y + (size_t)(m * a.ldy) * (a.store == STORE_ACT ? dtype_size(d) : 4),
                           (size_t)N * (a.store == STORE_ACT ? dtype_size(d) : 4)))
                    FAIL("row %d of %s isn't that of the packed transpose", (int)m, dtype_name(d));
        }
}
// Matrices one behind the other, with rows of their own.
static void turned_experts(void) {
    enum { E = 3, N = 45, K = 38, T = 90 };
    static const int32_t start[E + 1] = {0, 7, 7, T};
    Random r = random_start(10, STREAM_TEST, 0);
    for (int k = 0; k < 6; k++) {
        Dtype d = (Dtype)(k % 2);
        int64_t each = packed_elements(K, N), size = (int64_t)dtype_size(d);
        blocks_free();
        MatmulArgs a = {.M = T, .N = N, .K = K, .dtype = d, .store = (Store)(k / 2), .ldx = K, .ldy = N + 3, .transposed = true};
        a.products = (Products){.count = E, .every = 1, .start = start, .w_step = each};
        a.x = input_act("x", T * K, d, &r, PLAIN);
        char *w = guarded("experts", (size_t)(E * each * size));
        memset(w, 0, (size_t)(E * each * size));
        for (int e = 0; e < E; e++) memcpy(w + e * each * size, packed("an expert", input("w", K * N, &r, PLAIN), K, N, d, false), (size_t)(panels_elements(K, N, d) * size));
        a.w = w;
        a.scratch = guarded("scratch", (int64_t)turn_scratch(true, 8, N, K, d));
        a.y = output("y", T * a.ldy, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
        for (int64_t i = 0; a.store == ADD_F32 && i < T * a.ldy; i++) ((float *)a.y)[i] = any_float(&r, PLAIN);
        COMPARE(matmul, &a, "turned experts %s store %d", dtype_name(d), (int)a.store);
    }
}

static void matmul_rows_stand_alone(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    enum { M = 150, N = 75, K = 46 };
    for (int d = 0; d < 2; d++) {
        blocks_free();
        devices_open();
        Dtype dtype = (Dtype)d;
        size_t size = dtype_size(dtype);
        MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = dtype, .store = STORE_F32, .ldx = K, .ldy = N};
        a.x = input_act("x", M * K, dtype, &r, ROUGH);
        a.w = packed("packed w", input("w", N * K, &r, PLAIN), N, K, dtype, false);
        float *all = guarded("all", M * N * 4), *some = guarded("some", M * N * 4);
        for (int v = 0; v < device_count; v++) {
            const Device *device = test_devices[v];
            a.y = all;
            device->matmul(device, &a);
            static const int64_t parts[] = {1, 2, 7, 12, 31, 97}; // 150 rows in six calls
            MatmulArgs part = a;
            for (int64_t i = 0, m = 0; i < LENGTH(parts); m += parts[i++]) {
                part.M = parts[i];
                part.x = (const char *)a.x + (size_t)(m * K) * size;
                part.y = some + m * N;
                device->matmul(device, &part);
            }
            if (memcmp(all, some, M * N * 4)) FAIL("%s %s: rows depend on M", device->variant, dtype_name(dtype));
        }
        bands_check("any");
    }
}

static MatmulGradArgs grad_case(Random *r, int64_t T, int64_t N, int64_t K, Dtype dtype, bool bias, Temper temper) {
    blocks_free();
    MatmulGradArgs a = {.T = T, .N = N, .K = K, .dtype = dtype, .ldx = K + N % 3, .ldy = N + K % 3};
    a.x = input_act("x", T * a.ldx, dtype, r, temper);
    a.dy = input_act("dy", T * a.ldy, dtype, r, temper == HOSTILE ? PLAIN : temper);
    int32_t *segment = guarded("segment", 64 * 4);
    segment[0] = 0;
    while (segment[a.segments.count] < T && a.segments.count < 62) {
        int32_t end = segment[a.segments.count] + (int32_t)random_below(r, (uint32_t)T / 4 + 3); // may be empty
        a.segments.count++;
        segment[a.segments.count] = end < T && a.segments.count < 62 ? end : (int32_t)T;
    }
    a.segments.start = segment;
    a.dw = output("dw", N * K, KIND_F32);
    for (int64_t i = 0; i < N * K; i++) a.dw[i] = any_float(r, temper);
    if (bias) {
        a.dbias = output("dbias", N, KIND_F32);
        for (int64_t i = 0; i < N; i++) a.dbias[i] = any_float(r, temper);
    }
    a.scratch = guarded("scratch", matmul_grad_scratch(3));
    return a;
}

static void matmul_grad_bits(void) {
    static const int64_t Ts[] = {1, 2, 3, 5, 11, 12, 13, 17, 64, 65, 200};
    static const int64_t sizes[][2] = {{1, 1}, {5, 3}, {16, 16}, {33, 31}, {13, 65}, {50, 70}, {36, 64}};
    Random r = random_start(6, STREAM_TEST, 0);
    int turn = 0;
    for (int t = 0; t < LENGTH(Ts); t++)
        for (int s = 0; s < LENGTH(sizes); s++)
            for (int d = 0; d < 2; d++, turn++) {
                Temper temper = (Temper)(turn / 2 % 4 % 3);
                MatmulGradArgs a = grad_case(&r, Ts[t], sizes[s][0], sizes[s][1], (Dtype)d, turn / 4 % 2, temper);
                a.written = turn % 5 == 2;
                COMPARE(matmul_grad, &a, "T %d N %d K %d %s segments %d %s", (int)a.T, (int)a.N, (int)a.K, dtype_name(a.dtype),
                        a.segments.count, temper_name(temper));
            }
    // More tokens, rows and columns than are laid out together.
    static const int64_t large[][3] = {{2501, 14, 34}, {2501, 62, 70}, {7, 1170, 33}, {7, 13, 1090}, {530, 420, 40}};
    for (int i = 0; i < LENGTH(large); i++)
        for (int d = 0; d < 2; d++) {
            MatmulGradArgs a = grad_case(&r, large[i][0], large[i][1], large[i][2], (Dtype)d, true, PLAIN);
            COMPARE(matmul_grad, &a, "T %d N %d K %d %s", (int)a.T, (int)a.N, (int)a.K, dtype_name(a.dtype));
        }
}

// What is written has the bits of what is added to zeros, and nothing of what was there before: ragged shapes, several segments,
// more tokens than one pass takes, and none.
static void matmul_grad_written(void) {
    static const int64_t cases[][3] = {{1, 1, 1}, {12, 5, 3}, {65, 33, 31}, {200, 50, 70}, {64, 36, 64}, {2501, 14, 34}, {2100, 12, 32}, {0, 13, 37}};
    Random r = random_start(9, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(cases); i++)
        for (int d = 0; d < 2; d++) {
            int64_t N = cases[i][1], K = cases[i][2];
            MatmulGradArgs a = grad_case(&r, cases[i][0], N, K, (Dtype)d, i % 2, PLAIN);
            float *from_zero = guarded("from zero", (size_t)(N * K) * 4), *written = guarded("written", (size_t)(N * K) * 4);
            devices_open();
            for (int v = 0; v < device_count; v++) {
                const Device *device = test_devices[v];
                memset(from_zero, 0, (size_t)(N * K) * 4);
                a.dw = from_zero, a.written = false;
                device->matmul_grad(device, &a);
                memset(written, -1, (size_t)(N * K) * 4); // NaN
                a.dw = written, a.written = true;
                device->matmul_grad(device, &a);
                if (memcmp(from_zero, written, (size_t)(N * K) * 4))
                    FAIL("%s %s T %d N %d K %d: other bits where they are written", device->variant, dtype_name(a.dtype), (int)a.T, (int)N, (int)K);
                a.written = false; // and goes on
                device->matmul_grad(device, &a);
                a.dw = from_zero;
                device->matmul_grad(device, &a);
                if (memcmp(from_zero, written, (size_t)(N * K) * 4)) FAIL("%s: what is added to it afterwards", device->variant);
            }
            bands_check("any");
        }
}

static void matmul_grad_split_at_segments(void) {
    enum { T = 101, N = 29, K = 37, SEGMENTS = 5 };
    Random r = random_start(7, STREAM_TEST, 0);
    for (int d = 0; d < 2; d++) {
        blocks_free();
        devices_open();
        size_t size = dtype_size((Dtype)d);
        MatmulGradArgs a = {.T = T, .N = N, .K = K, .dtype = (Dtype)d, .ldx = K, .ldy = N, .segments.count = SEGMENTS};
        int32_t *segment = guarded("segment", (SEGMENTS + 1) * 4);
        memcpy(segment, (const int32_t[]){0, 7, 8, 41, 64, T}, (SEGMENTS + 1) * 4);
        a.segments.start = segment;
        a.x = input_act("x", T * K, a.dtype, &r, PLAIN);
        a.dy = input_act("dy", T * N, a.dtype, &r, PLAIN);
        a.scratch = guarded("scratch", matmul_grad_scratch(3));
        float *start = input("start", N * K + N, &r, PLAIN), *one = guarded("one call", (N * K + N) * 4);
        float *many = guarded("many calls", (N * K + N) * 4);
        for (int v = 0; v < device_count; v++) {
            const Device *device = test_devices[v];
            memcpy(one, start, (N * K + N) * 4);
            memcpy(many, start, (N * K + N) * 4);
            a.dw = one, a.dbias = one + N * K;
            device->matmul_grad(device, &a);
            for (int s = 0; s < SEGMENTS; s += 2) { // two groups, two groups, one
                int count = SEGMENTS - s < 2 ? 1 : 2;
                int32_t bounds[3] = {0};
                for (int i = 1; i <= count; i++) bounds[i] = segment[s + i] - segment[s];
                MatmulGradArgs part = a;
                part.T = bounds[count], part.segments.count = count, part.segments.start = bounds;
                part.x = (const char *)a.x + (size_t)(segment[s] * K) * size;
                part.dy = (const char *)a.dy + (size_t)(segment[s] * N) * size;
                part.dw = many, part.dbias = many + N * K;
                device->matmul_grad(device, &part);
            }
            if (memcmp(one, many, (N * K + N) * 4)) FAIL("%s %s: the split shows in the bits", device->variant, dtype_name(a.dtype));
        }
        bands_check("any");
    }
}

// ---- gradients -------------------------------------------------------------------------------------------
enum { M_ = 6, N_ = 37, K_ = 19 };
typedef struct Product {
    double *x, *w, *b, *dy;
} Product;
// sum dy (x w^T + b)
static double product_loss(const void *problem) {
    const Product *p = problem;
    double loss = 0;
    for (int m = 0; m < M_; m++)
        for (int n = 0; n < N_; n++) {
            double y = p->b[n];
            for (int k = 0; k < K_; k++) y += p->x[m * K_ + k] * p->w[n * K_ + k];
            loss += p->dy[m * N_ + n] * y;
        }
    return loss;
}

static void matmul_slopes(void) {
    blocks_free();
    devices_open();
    Random r = random_start(8, STREAM_TEST, 0);
    float *x = input("x", M_ * K_, &r, PLAIN), *w = input("w", N_ * K_, &r, PLAIN), *b = input("b", N_, &r, PLAIN);
    float *dy = input("dy", M_ * N_, &r, PLAIN), *y = guarded("y", M_ * N_ * 4), *dx = guarded("dx", M_ * K_ * 4);
    float *dw = guarded("dw", N_ * K_ * 4), *db = guarded("db", N_ * 4);
    Product p = {widened("x", x, M_ * K_), widened("w", w, N_ * K_), widened("b", b, N_), widened("dy", dy, M_ * N_)};
    int32_t segment[] = {0, M_};
    MatmulArgs forward = {.M = M_, .N = N_, .K = K_, .x = x, .ldx = K_, .w = packed("w'", w, N_, K_, DTYPE_F32, false), .bias = b, .y = y, .ldy = N_};
    MatmulArgs backward = {.M = M_, .N = K_, .K = N_, .x = dy, .ldx = N_, .w = packed("w''", w, N_, K_, DTYPE_F32, true), .y = dx, .ldy = K_};
    MatmulGradArgs grad = {.T = M_, .N = N_, .K = K_, .x = x, .ldx = K_, .dy = dy, .ldy = N_, .dw = dw, .dbias = db, .segments.count = 1,
                           .segments.start = segment, .scratch = guarded("scratch", matmul_grad_scratch(3))};
    for (int v = 0; v < device_count; v++) {
        const Device *device = test_devices[v];
        memset(dw, 0, N_ * K_ * 4);
        memset(db, 0, N_ * 4);
        device->matmul(device, &forward);
        device->matmul(device, &backward);
        device->matmul_grad(device, &grad);
        double loss = 0;
        for (int i = 0; i < M_ * N_; i++) loss += (double)dy[i] * (double)y[i];
        CHECK_NEAR(loss, product_loss(&p), 1e-5);
        check_slopes("dx", product_loss, &p, p.x, dx, M_ * K_, 0, 2e-6);
        check_slopes("dw", product_loss, &p, p.w, dw, N_ * K_, 0, 2e-6);
        check_slopes("db", product_loss, &p, p.b, db, N_, 0, 2e-6);
    }
}

static const Test tests[] = {
    {"matmul variants of this processor", variants},
    {"pack layout", pack_layout},
    {"pack bits", pack_bits},
    {"matmul bits", matmul_bits},
    {"matmul bits for every M to 70", matmul_every_m},
    {"matmul with the transpose", turned_products},
    {"matmul with the transpose: an expert's each", turned_experts},
    {"matmul rows stand alone", matmul_rows_stand_alone},
    {"matmul gradient bits", matmul_grad_bits},
    {"matmul gradient written", matmul_grad_written},
    {"matmul gradient split at segments", matmul_grad_split_at_segments},
    {"matmul slopes", matmul_slopes},
};
OPS_TEST_MAIN(tests)
