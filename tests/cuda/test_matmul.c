// Matrix products, their gradients and packing on a CUDA device, against the slow twin within tolerances; and, to the bit,
// that no output knows how many rows, segments or calls there are, on every path: tokens on few and on many tiles, chunks
// in one block and shared out, rows that are aligned and rows that aren't, cuBLASLt and own kernels.
#include "blocks.h"
#include "cuda_test.h"

// Sums in another order differ by rounding: per product at most 2^-22 of the largest partial sum, here below 2^3.
static double slack(int64_t depth) { return 1e-6 + (double)depth * 0x1p-22; }
enum { MULTIPROCESSORS = 4 }; // of the emulated device: small enough that small products reach every shape of tile

static void product_case(void) {
#ifdef RECKON_CUDA_EMULATION
    if (!cuda_device) emulation_machine()->multiprocessors = MULTIPROCESSORS;
#endif
    cuda_case();
}

// ---- packing ---------------------------------------------------------------------------------------------
static int64_t padded(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// rows [N rounded up to 32][K rounded up to 16]; what is beyond w is zero.
static void check_packed(const void *got, const float *w, int64_t N, int64_t K, float scale, Dtype d, bool transposed) {
    int64_t rows = padded(transposed ? K : N, 32), stride = padded(transposed ? N : K, 16);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < stride; c++) {
            int64_t n = transposed ? c : r, k = transposed ? r : c;
            float want = n < N && k < K ? w[n * K + k] * scale : 0.0f, found = act_value(got, r * stride + c, d);
            if (d == DTYPE_BF16) want = bf16_float(float_bf16(want));
            if (memcmp(&found, &want, 4) != 0 && !(found != found && want != want))
                FAIL("%s: row %lld, column %lld: got %g, want %g", context, (long long)r, (long long)c, (double)found, (double)want);
        }
}
static void pack_form(void) {
    static const int64_t sizes[][2] = {{1, 1}, {32, 16}, {33, 17}, {7, 130}, {130, 7}, {64, 64}, {100, 200}};
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(sizes); i++)
        for (int k = 0; k < 6; k++) {
            int64_t N = sizes[i][0], K = sizes[i][1];
            Dtype d = (Dtype)(k % 2);
            product_case();
            float *w = input("w", N * K, &r, (Temper)(k / 2));
            PackArgs a = {.w = w, .N = N, .K = K, .dtype = d, .scale = i % 2 ? 0.7f : 0};
            float scale = i % 2 ? 0.7f : 1;
            if (k != 4) a.packed = output("packed", packed_elements(N, K), kind_of(d));
            if (k != 5) a.transposed = output("transposed", packed_elements(K, N), kind_of(d));
            ON_CUDA(pack, &a, "N %d K %d %s", (int)N, (int)K, dtype_name(d));
            if (a.packed) check_packed(a.packed, w, N, K, scale, d, false);
            if (a.transposed) check_packed(a.transposed, w, N, K, scale, d, true);
        }
}
static void unpack_bits(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int k = 0; k < 4; k++) {
        enum { N = 45, K = 77 };
        product_case();
        UnpackArgs a = {.N = N, .K = K, .dtype = (Dtype)(k % 2)};
        a.packed = weights("packed", input("w", N * K, &r, (Temper)(k / 2)), N, K, a.dtype, false);
        a.w = output("unpacked", N * K, KIND_F32);
        COMPARE_CUDA(unpack, &a, "%s", dtype_name(a.dtype));
    }
}

// ---- products --------------------------------------------------------------------------------------------
// Rows of x with columns beyond K that are finite, as the contract has it, and not zero.
static void *rows_of(const char *name, int64_t rows, int64_t K, int64_t stride, Dtype d, Random *r, Temper temper) {
    void *x = input_act(name, rows * stride, d, r, temper);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t k = K; k < stride; k++) {
            if (d == DTYPE_F32)
                ((float *)x)[m * stride + k] = 0.5f;
            else
                ((bf16 *)x)[m * stride + k] = 0x3f00;
        }
    return x;
}
static void *outputs(const char *name, int64_t count, Store store, Dtype d, Random *r) {
    Kind kind = store == STORE_ACT ? kind_of(d) : KIND_F32;
    void *y = output(name, count, kind);
    for (int64_t i = 0; store == ADD_F32 && i < count; i++) ((float *)y)[i] = any_float(r, PLAIN);
    return y;
}

typedef struct Shape {
    int64_t M, N, K;
    int beyond_x, beyond_y; // columns between rows
} Shape;
static void product_near_case(const Shape *s, int k, Random *r) {
    Dtype d = (Dtype)(k % 2);
    Store store = (Store)(k / 2 % 3);
    Temper temper = k / 6 % 2 ? HOSTILE : PLAIN;
    product_case();
    MatmulArgs a = {.M = s->M, .N = s->N, .K = s->K, .dtype = d, .store = store, .ldx = s->K + s->beyond_x, .ldy = s->N + s->beyond_y};
    a.x = rows_of("x", s->M, s->K, a.ldx, d, r, temper);
    a.w = weights("w", input("w values", s->N * s->K, r, PLAIN), s->N, s->K, d, false);
    if (k % 4 < 2) a.bias = input("bias", s->N, r, PLAIN);
    a.y = outputs("y", s->M * a.ldy, store, d, r);
    tolerate(a.y, slack(s->K), store == STORE_ACT && d == DTYPE_BF16 ? 0x1p-7 : 0); // bf16: the neighbouring value
    COMPARE_CUDA(matmul, &a, "M %d N %d K %d %s store %d %s", (int)s->M, (int)s->N, (int)s->K, dtype_name(d), (int)store,
                 temper_name(temper));
}
static void product_near(void) {
    static const Shape shapes[] = {
        {1, 1, 1, 1, 0},    {1, 64, 520, 0, 0},  {3, 19, 19, 1, 0},   {7, 33, 264, 8, 3},  {8, 100, 64, 0, 0}, {9, 40, 777, 1, 1},
        {16, 96, 296, 0, 0}, {20, 70, 1032, 0, 2}, {33, 65, 72, 16, 0}, {64, 130, 264, 0, 4}, {65, 68, 88, 0, 0}, {70, 31, 35, 1, 0},
    };
    Random r = random_start(3, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 12; k++)
            if ((i + k) % 2 || shapes[i].M * shapes[i].N * shapes[i].K < 20000) product_near_case(&shapes[i], k, &r);
}
// The two largest tiles; on a GPU it takes larger products to get there.
static void product_near_large(void) {
#ifdef RECKON_CUDA_EMULATION
    static const Shape shapes[] = {{100, 200, 80, 0, 0}, {380, 250, 264, 0, 0}};
#else
    static const Shape shapes[] = {{100, 200, 80, 0, 0}, {1000, 1100, 264, 0, 0}, {3000, 1250, 264, 0, 0}};
#endif
    Random r = random_start(4, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++) product_near_case(&shapes[i], 1 + 2 * i, &r);
}

// Given to the library, which may take any algorithm: near the twin still, of all stores. The emulated one begins its sums elsewhere at
// each call, so that bits tell that it was asked.
static void reopened(const char *algorithms) {
    cuda_case(); // gives back what arrays have of the device
    device_close(cuda_device), cuda_device = NULL;
    setenv("RECKON_CUDA_ALGORITHMS", algorithms, 1);
}
static void product_free(void) {
    static const Shape shapes[] = {{1, 64, 520, 0, 0}, {8, 104, 64, 8, 0}, {20, 72, 1032, 0, 8}, {33, 65, 72, 16, 0}, {70, 31, 35, 1, 0}};
    Random r = random_start(5, STREAM_TEST, 0);
    cuda_open();
    if (!strstr(cuda_device->variant, "cuBLASLt")) SKIP("cuBLASLt isn't there");
    reopened("free");
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 12; k++) product_near_case(&shapes[i], k, &r);
#ifdef RECKON_CUDA_EMULATION
    enum { M = 20, N = 64, K = 520 };
    float first[M * N];
    product_case();
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = DTYPE_BF16, .store = STORE_F32, .ldx = K, .ldy = N, .x = rows_of("x", M, K, K, DTYPE_BF16, &r, PLAIN)};
    a.w = weights("w", input("w values", N * K, &r, PLAIN), N, K, DTYPE_BF16, false);
    a.y = outputs("y", M * N, STORE_F32, DTYPE_BF16, &r);
    ON_CUDA(matmul, &a, "once");
    memcpy(first, a.y, sizeof first);
    ON_CUDA(matmul, &a, "again");
    CHECK(memcmp(first, a.y, sizeof first) != 0);
#endif
    reopened("");
}

// ---- rows alone and among others -------------------------------------------------------------------------
// y of rows [first, first + M) of x alone, against the same rows of all.
static void check_rows(const MatmulArgs *all, int64_t first, int64_t M, const void *want) {
    MatmulArgs a = *all;
    Kind kind = a.store == STORE_ACT ? kind_of(a.dtype) : KIND_F32;
    size_t size = kind_size(kind);
    a.M = M;
    a.x = (const char *)a.x + (size_t)(first * a.ldx) * dtype_size(a.dtype);
    int64_t count = M * a.ldy;
    memset(a.y, 0, (size_t)count * size);
    ON_CUDA(matmul, &a, "rows %d to %d of N %d K %d", (int)first, (int)(first + M), (int)a.N, (int)a.K);
    same_bits(a.y, (const char *)want + (size_t)(first * a.ldy) * size, count, kind, "rows alone and among all");
}
static void rows_alone_case(int64_t M, int64_t N, int64_t K, int64_t ldx, Dtype d, Store store, uint64_t seed) {
    static const int64_t counts[] = {1, 7, 8, 12, 30, 64, 100};
    Random r = random_start(seed, STREAM_TEST, 0);
    product_case();
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = d, .store = store, .ldx = ldx, .ldy = N};
    a.x = rows_of("x", M, K, ldx, d, &r, PLAIN);
    a.w = weights("w", input("w values", N * K, &r, PLAIN), N, K, d, false);
    a.bias = input("bias", N, &r, PLAIN);
    Kind kind = store == STORE_ACT ? kind_of(d) : KIND_F32;
    size_t bytes = (size_t)(M * N) * kind_size(kind);
    a.y = output("y", M * N, kind);
    memset(a.y, 0, bytes);
    ON_CUDA(matmul, &a, "all %d rows", (int)M);
    void *want = malloc(bytes);
    memcpy(want, a.y, bytes);
    check_rows(&a, M - 1, 1, want);
    for (int i = 0; i < LENGTH(counts); i++)
        if (counts[i] < M) check_rows(&a, random_below(&r, (uint32_t)(M - counts[i])), counts[i], want);
    free(want);
}
static void rows_alone(void) {
    rows_alone_case(300, 70, 600, 600, DTYPE_BF16, STORE_F32, 5);
    rows_alone_case(380, 256, 264, 272, DTYPE_BF16, ADD_F32, 6); // the largest tile
    rows_alone_case(70, 130, 1304, 1304, DTYPE_BF16, STORE_ACT, 7);
    rows_alone_case(70, 40, 275, 275, DTYPE_BF16, STORE_F32, 8); // rows that aren't aligned
    rows_alone_case(70, 40, 300, 300, DTYPE_F32, STORE_F32, 9);
}
// The same rows aligned and not, and in another order.
static void rows_elsewhere(void) {
    enum { M = 20, N = 40, K = 520 };
    Random r = random_start(10, STREAM_TEST, 0);
    product_case();
    bf16 *x = input_act("x", M * K, DTYPE_BF16, &r, PLAIN), *moved = input_act("moved", M * (K + 1), DTYPE_BF16, &r, PLAIN);
    for (int m = 0; m < M; m++) memcpy(moved + (M - 1 - m) * (K + 1), x + m * K, K * sizeof *x);
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = DTYPE_BF16, .store = STORE_F32, .x = x, .ldx = K, .ldy = N};
    a.w = weights("w", input("w values", N * K, &r, PLAIN), N, K, DTYPE_BF16, false);
    float *y = a.y = output("y", M * N, KIND_F32), *y_moved = output("y moved", M * N, KIND_F32);
    ON_CUDA(matmul, &a, "in order");
    a.x = moved, a.ldx = K + 1, a.y = y_moved;
    ON_CUDA(matmul, &a, "the other way round, not aligned");
    for (int m = 0; m < M; m++) same_bits(y_moved + (M - 1 - m) * N, y + m * N, N, KIND_F32, "a row in another place");
}
static void nothing_to_do(void) {
    product_case();
    Random r = random_start(11, STREAM_TEST, 0);
    MatmulArgs a = {.N = 8, .K = 8, .dtype = DTYPE_BF16, .ldx = 8, .ldy = 8, .x = input_act("x", 8, DTYPE_BF16, &r, PLAIN)};
    a.w = weights("w", input("w values", 64, &r, PLAIN), 8, 8, DTYPE_BF16, false);
    a.y = output("y", 8, KIND_BF16);
    ON_CUDA(matmul, &a, "no rows");
    MatmulGradArgs g = {.N = 8, .K = 8, .dtype = DTYPE_BF16, .x = a.x, .ldx = 8, .dy = a.x, .ldy = 8};
    g.dw = output("dw", 64, KIND_F32);
    int32_t none[] = {0, 0};
    g.segments = segments(1, none);
    for (int i = 0; i < 64; i++) g.dw[i] = any_float(&r, PLAIN);
    COMPARE_CUDA(matmul_grad, &g, "no tokens");
    g.written = true;
    COMPARE_CUDA(matmul_grad, &g, "no tokens, written");
    for (int i = 0; i < 64; i++) CHECK(g.dw[i] == 0);
}

// ---- gradients -------------------------------------------------------------------------------------------
typedef struct Parts {
    int64_t N, K;
    int beyond; // columns between rows
    int count;
    int32_t start[8];
} Parts;
static MatmulGradArgs gradient_of(const Parts *p, Dtype d, Random *r, Temper temper) {
    int64_t T = p->start[p->count];
    MatmulGradArgs a = {.T = T, .N = p->N, .K = p->K, .dtype = d, .ldx = p->K + p->beyond, .ldy = p->N + p->beyond};
    a.x = input_act("x", T * a.ldx, d, r, temper);
    a.dy = input_act("dy", T * a.ldy, d, r, PLAIN);
    a.dw = output("dw", p->N * p->K, KIND_F32);
    a.dbias = output("dbias", p->N, KIND_F32);
    for (int64_t i = 0; i < p->N * p->K; i++) a.dw[i] = any_float(r, PLAIN);
    for (int64_t i = 0; i < p->N; i++) a.dbias[i] = any_float(r, PLAIN);
    a.segments = segments(p->count, p->start);
    return a;
}
static const Parts parts[] = {
    {8, 8, 0, 1, {0, 1}},
    {19, 21, 0, 3, {0, 33, 33, 70}},
    {40, 72, 8, 4, {0, 1, 258, 300, 813}},
    {64, 64, 0, 2, {0, 256, 600}},
    {130, 70, 2, 2, {0, 31, 64}},
    {256, 250, 6, 3, {0, 40, 70, 330}}, // large tiles
    {24, 16, 0, 4, {0, 10, 1034, 1100, 2200}}, // long segments: cuBLASLt in bf16
    {24, 13, 0, 2, {0, 1030, 1060}},           // long, but no shape for it
};
static void gradient_near(void) {
    Random r = random_start(12, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(parts); i++)
        for (int k = 0; k < 4; k++) {
            const Parts *p = &parts[i];
            int64_t T = p->start[p->count];
            if (k > 1 && T * p->N * p->K > 3000000) continue;
            product_case();
            MatmulGradArgs a = gradient_of(p, (Dtype)(k % 2), &r, k / 2 ? HOSTILE : PLAIN);
            tolerate(a.dw, slack(T), 0);
            tolerate(a.dbias, slack(T), 0);
            COMPARE_CUDA(matmul_grad, &a, "T %d N %d K %d %s", (int)T, (int)p->N, (int)p->K, dtype_name(a.dtype));
        }
}
// What is written is what is added to zeros, and nothing of what was there: short and long segments, the first one empty or long.
static void gradient_written(void) {
    static const Parts more[] = {{24, 16, 0, 3, {0, 0, 20, 33}}, {24, 16, 0, 3, {0, 1030, 1040, 2070}}, {24, 16, 0, 1, {0, 1100}}};
    Random r = random_start(15, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(parts) + LENGTH(more); i++)
        for (int k = 0; k < 2; k++) {
            const Parts *p = i < LENGTH(parts) ? &parts[i] : &more[i - LENGTH(parts)];
            int64_t count = p->N * p->K;
            if (k == DTYPE_F32 && count > 10000) continue;
            product_case();
            MatmulGradArgs a = gradient_of(p, (Dtype)k, &r, PLAIN);
            float *want = malloc((size_t)count * sizeof *want);
            memset(a.dw, 0, (size_t)count * sizeof *want);
            ON_CUDA(matmul_grad, &a, "added to zeros, N %d K %d %s", (int)p->N, (int)p->K, dtype_name(a.dtype));
            memcpy(want, a.dw, (size_t)count * sizeof *want);
            for (int64_t c = 0; c < count; c++) a.dw[c] = NAN;
            a.written = true;
            ON_CUDA(matmul_grad, &a, "written, N %d K %d %s", (int)p->N, (int)p->K, dtype_name(a.dtype));
            same_bits(a.dw, want, count, KIND_F32, "dw written and added to zeros");
            free(want);
        }
}
// One call for all segments, and one per segment.
static void gradient_split(void) {
    Random r = random_start(13, STREAM_TEST, 0);
    for (int i = 1; i < LENGTH(parts); i++)
        for (int k = 0; k < 2; k++) {
            const Parts *p = &parts[i];
            if (k == DTYPE_F32 && p->N * p->K > 10000) continue;
            product_case();
            MatmulGradArgs a = gradient_of(p, (Dtype)k, &r, PLAIN);
            size_t bytes = (size_t)(p->N * p->K) * sizeof *a.dw, bias_bytes = (size_t)p->N * sizeof *a.dbias;
            float *dw = malloc(bytes), *dbias = malloc(bias_bytes), *want = malloc(bytes), *want_bias = malloc(bias_bytes);
            memcpy(dw, a.dw, bytes), memcpy(dbias, a.dbias, bias_bytes);
            ON_CUDA(matmul_grad, &a, "all of %d segments, N %d K %d %s", p->count, (int)p->N, (int)p->K, dtype_name(a.dtype));
            memcpy(want, a.dw, bytes), memcpy(want_bias, a.dbias, bias_bytes);
            memcpy(a.dw, dw, bytes), memcpy(a.dbias, dbias, bias_bytes);
            for (int s = 0; s < p->count; s++) {
                MatmulGradArgs one = a;
                int32_t alone[] = {0, p->start[s + 1] - p->start[s]};
                one.T = alone[1];
                one.x = (const char *)a.x + (size_t)(p->start[s] * a.ldx) * dtype_size(a.dtype);
                one.dy = (const char *)a.dy + (size_t)(p->start[s] * a.ldy) * dtype_size(a.dtype);
                one.segments = segments(1, alone);
                ON_CUDA(matmul_grad, &one, "segment %d alone", s);
            }
            same_bits(a.dw, want, p->N * p->K, KIND_F32, "dw of one call and of one per segment");
            same_bits(a.dbias, want_bias, p->N, KIND_F32, "dbias of one call and of one per segment");
            free(dw), free(dbias), free(want), free(want_bias);
        }
}
// A segment is a sum of its own, which is then added: what it gives from zero, plus what was there.
static void gradient_of_segment(void) {
    static const Parts one[] = {{40, 72, 8, 1, {0, 813}}, {19, 21, 0, 1, {0, 600}}, {256, 250, 6, 1, {0, 300}}};
    Random r = random_start(14, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(one); i++)
        for (int k = 0; k < 2; k++) {
            const Parts *p = &one[i];
            int64_t count = p->N * p->K;
            if (k == DTYPE_F32 && count > 10000) continue;
            product_case();
            MatmulGradArgs a = gradient_of(p, (Dtype)k, &r, PLAIN);
            float *want = malloc((size_t)(count + p->N) * sizeof *want), *want_bias = want + count;
            memcpy(want, a.dw, (size_t)count * sizeof *want), memcpy(want_bias, a.dbias, (size_t)p->N * sizeof *want);
            memset(a.dw, 0, (size_t)count * sizeof *want), memset(a.dbias, 0, (size_t)p->N * sizeof *want);
            ON_CUDA(matmul_grad, &a, "from zero, N %d K %d %s", (int)p->N, (int)p->K, dtype_name(a.dtype));
            for (int64_t c = 0; c < count; c++) {
                float old = want[c];
                want[c] += a.dw[c], a.dw[c] = old;
            }
            for (int64_t c = 0; c < p->N; c++) {
                float old = want_bias[c];
                want_bias[c] += a.dbias[c], a.dbias[c] = old;
            }
            ON_CUDA(matmul_grad, &a, "added, N %d K %d %s", (int)p->N, (int)p->K, dtype_name(a.dtype));
            same_bits(a.dw, want, count, KIND_F32, "dw and the segment's sum");
            same_bits(a.dbias, want_bias, p->N, KIND_F32, "dbias and the segment's sum");
            free(want);
        }
}

// Weights in blocks, both ways round: near the reference's product.
static void product_of_blocks(void) {
    static const Shape shapes[] = {{1, 40, 256, 0, 0}, {9, 33, 512, 0, 1}, {70, 64, 256, 0, 0}}; // M, rows, columns of w
    Random r = random_start(17, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int k = 0; k < 4; k++) {
            const Shape *s = &shapes[(f + k) % LENGTH(shapes)];
            Dtype d = (Dtype)(k % 2);
            bool transposed = k >= 2;
            int64_t N = transposed ? s->K : s->N, K = transposed ? s->N : s->K, bytes = s->N * blocks_row_bytes((WeightFormat)f, s->K);
            product_case();
            MatmulArgs a = {.M = s->M, .N = N, .K = K, .dtype = d, .store = (Store)(f % 3), .ldx = K + K % 2, .ldy = N + s->beyond_y,
                            .format = (WeightFormat)f, .transposed = transposed, .interleaved = s->N % 8 == 0 ? 8 : 0};
            a.x = rows_of("x", s->M, K, a.ldx, d, &r, PLAIN);
            uint8_t *w = guarded("blocks", bytes);
            for (int64_t i = 0; i < bytes; i++) w[i] = (uint8_t)random_below(&r, 256);
            for (int64_t i = 1; i < bytes && f == WEIGHT_BF16; i += 2) w[i] = (uint8_t)((w[i] & 0x80) + 0x3c);
            for (int64_t b = 0; b < bytes; b += block_bytes(a.format)) // scales: halves of about 0.01
                for (int half = 0; half < 2; half++) {
                    int64_t at = b + (f == WEIGHT_Q6_K ? 208 : 2 * half);
                    if (half == 0 || f == WEIGHT_Q4_1 || f == WEIGHT_Q5_1 || f == WEIGHT_Q4_K) w[at + 1] = 0x1c;
                }
            a.w = w;
            a.scratch = output("scratch", packed_elements(N, K), kind_of(d));
            memset(a.scratch, 0, (size_t)packed_elements(N, K) * dtype_size(d));
            tolerate(a.scratch, 1e9, 0); // the device's own
            a.y = outputs("y", s->M * a.ldy, a.store, d, &r);
            tolerate(a.y, 5e-3, a.store == STORE_ACT && d == DTYPE_BF16 ? 0x1p-7 : 1e-5);
            COMPARE_CUDA(matmul, &a, "blocks %d M %d N %d K %d %s transposed %d", f, (int)s->M, (int)N, (int)K, dtype_name(d), transposed);
        }
}

// The transpose of what is packed, one matrix and an expert's each.
static void product_turned(void) {
    static const Shape shapes[] = {{1, 40, 33, 0, 0}, {9, 33, 70, 0, 1}, {70, 64, 130, 0, 0}};
    static const int32_t starts[] = {0, 5, 5, 21};
    Random r = random_start(18, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(shapes); i++)
        for (int k = 0; k < 6; k++) {
            const Shape *s = &shapes[i];
            Dtype d = (Dtype)(k % 2);
            product_case();
            MatmulArgs a = {.M = s->M, .N = s->N, .K = s->K, .dtype = d, .store = (Store)(k / 2), .ldx = s->K + s->K % 2, .ldy = s->N + s->beyond_y, .transposed = true};
            a.x = rows_of("x", s->M, s->K, a.ldx, d, &r, PLAIN);
            a.w = weights("w", input("w values", s->N * s->K, &r, PLAIN), s->K, s->N, d, false);
            a.scratch = work_area("scratch", turn_scratch(false, 1, s->N, s->K, d));
            a.y = outputs("y", s->M * a.ldy, a.store, d, &r);
            tolerate(a.y, slack(s->K), a.store == STORE_ACT && d == DTYPE_BF16 ? 0x1p-7 : 0);
            COMPARE_CUDA(matmul, &a, "turned M %d N %d K %d %s store %d", (int)s->M, (int)s->N, (int)s->K, dtype_name(d), (int)a.store);
        }
    for (int k = 0; k < 2; k++) { // of the same matrix, as a device's form isn't the reference's
        enum { N = 40, K = 32, T = 21 };
        Dtype d = (Dtype)k;
        product_case();
        int32_t *start = guarded("start", sizeof starts);
        memcpy(start, starts, sizeof starts);
        MatmulArgs a = {.M = T, .N = N, .K = K, .dtype = d, .store = STORE_F32, .ldx = K, .ldy = N, .transposed = true};
        a.products = (Products){.count = 3, .every = 1, .start = start};
        a.x = rows_of("x", T, K, K, d, &r, PLAIN);
        a.w = weights("w", input("w values", N * K, &r, PLAIN), K, N, d, false);
        a.scratch = work_area("scratch", 3 * turn_scratch(false, 1, N, K, d));
        a.y = outputs("y", T * N, a.store, d, &r);
        tolerate(a.y, slack(K), 0);
        COMPARE_CUDA(matmul, &a, "turned experts %s", dtype_name(d));
    }
}

static const Test tests[] = {
    {"cuda matmul with the transpose", product_turned},
    {"cuda matmul weights in blocks", product_of_blocks},
    {"cuda matmul packed form", pack_form},
    {"cuda matmul unpack bits", unpack_bits},
    {"cuda matmul products", product_near},
    {"cuda matmul products on large tiles", product_near_large},
    {"cuda matmul rows alone and among others", rows_alone},
    {"cuda matmul rows elsewhere", rows_elsewhere},
    {"cuda matmul nothing to do", nothing_to_do},
    {"cuda matmul gradients", gradient_near},
    {"cuda matmul gradient written", gradient_written},
    {"cuda matmul gradients split into calls", gradient_split},
    {"cuda matmul a segment's gradient is one sum", gradient_of_segment},
    {"products given to the library", product_free}, // the last: where it fails the device stays as it is there
};
CUDA_TEST_MAIN(tests)
