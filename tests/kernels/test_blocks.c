// Weights in GGUF's blocks and in bf16, as files have them, in every operation that reads them: products of both ways round, one and many, the embedding, the head
// and its gradient. The bits of every variant are the slow twin's, which decodes first.
#include "ops_test.h"
#include "blocks.h"

// Random blocks whose scales are small finite halves.
static uint8_t *random_blocks(WeightFormat f, int64_t rows, int64_t columns, Random *r) {
    int64_t bytes = rows * blocks_row_bytes(f, columns), each = block_bytes(f);
    uint8_t *data = guarded("blocks", bytes);
    for (int64_t i = 0; i < bytes; i++) data[i] = (uint8_t)random_below(r, 256);
    for (int64_t i = 1; i < bytes && f == WEIGHT_BF16; i += 2) data[i] = (uint8_t)(random_below(r, 2) * 0x80 + 0x3a + random_below(r, 6));
    for (int64_t b = 0; b < bytes; b += each)
        for (int k = 0; k < 2; k++) {
            int64_t at = b + (f == WEIGHT_Q6_K ? 208 : 2 * k);
            bool scale = k == 0 || f == WEIGHT_Q4_1 || f == WEIGHT_Q5_1 || f == WEIGHT_Q4_K;
            if (scale) data[at] = (uint8_t)random_below(r, 256), data[at + 1] = (uint8_t)(random_below(r, 2) * 0x80 + 0x1c + random_below(r, 8));
        }
    return data;
}
static void block_products(void) {
    static const int64_t sizes[][3] = {{1, 5, 256}, {3, 40, 256}, {13, 33, 512}, {30, 97, 256}, {200, 32, 256}}; // M, rows, columns of w
    Random r = random_start(14, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int s = 0; s < LENGTH(sizes); s++)
            for (int k = 0; k < 4; k++) {
                Dtype d = (Dtype)(k % 2);
                bool transposed = k >= 2;
                int64_t M = sizes[s][0], rows = sizes[s][1], columns = sizes[s][2], N = transposed ? columns : rows, K = transposed ? rows : columns;
                blocks_free();
                MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = d, .store = (Store)((s + f) % 3), .ldx = packed_depth(K, d), .ldy = N,
                                .format = (WeightFormat)f, .transposed = transposed, .interleaved = s == 1 ? 8 : s == 4 ? 32 : 0};
                a.x = input_act("x", M * a.ldx, d, &r, PLAIN);
                uint8_t *stored = random_blocks(a.format, rows, columns, &r);
                a.w = stored;
                if (s == 3) { // a scale that isn't finite
                    int64_t block = (int64_t)random_below(&r, (uint32_t)(rows * columns / block_elements(a.format)));
                    stored[block * block_bytes(a.format) + (a.format == WEIGHT_Q6_K ? 209 : 1)] = k % 2 ? 0x7c : 0xfe;
                    may_be_nan = true;
                }
                a.bias = s % 2 ? input("bias", N, &r, PLAIN) : NULL;
                a.scratch = guarded("scratch", (int64_t)matmul_scratch(true, 8, N, K, d));
                a.y = output("y", M * N, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
                for (int64_t i = 0; a.store == ADD_F32 && i < M * N; i++) ((float *)a.y)[i] = any_float(&r, PLAIN);
                COMPARE(matmul, &a, "blocks %d M %d N %d K %d %s transposed %d", f, (int)M, (int)N, (int)K, dtype_name(d), transposed);
            }
}

// Packed as they lie: any bits in bf16, infinities, NaNs and denormals among them.
static void block_packing(void) {
    static const int64_t sizes[][2] = {{1, 256}, {33, 512}, {96, 256}, {70, 1024}}; // rows, columns
    Random r = random_start(18, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int s = 0; s < LENGTH(sizes); s++)
            for (int d = 0; d < 2; d++) {
                PackArgs a = {.N = sizes[s][0], .K = sizes[s][1], .dtype = (Dtype)d, .format = (WeightFormat)f};
                blocks_free();
                uint8_t *rows = random_blocks(a.format, a.N, a.K, &r);
                for (int64_t i = 0; i < 2 * a.N * a.K && f == WEIGHT_BF16; i++) rows[i] = (uint8_t)random_below(&r, 256);
                a.rows = rows;
                a.packed = output("packed", packed_elements(a.N, a.K), d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
                may_be_nan = f == WEIGHT_BF16;
                COMPARE(pack, &a, "blocks %d N %d K %d %s", f, (int)a.N, (int)a.K, dtype_name(a.dtype));
            }
}

// Three matrices, one behind the other, with rows of their own.
static void block_experts(void) {
    enum { E = 3, ROWS = 40, COLUMNS = 256, T = 21 };
    static const int32_t start[E + 1] = {0, 5, 5, T};
    Random r = random_start(15, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int k = 0; k < 4; k++) {
            Dtype d = (Dtype)(k % 2);
            bool back = k >= 2;
            int64_t N = back ? COLUMNS : ROWS, K = back ? ROWS : COLUMNS;
            blocks_free();
            MatmulArgs a = {.M = T, .N = N, .K = K, .dtype = d, .store = (Store)(f % 3), .ldx = packed_depth(K, d) + 2, .ldy = N + 3,
                            .format = (WeightFormat)f, .transposed = back};
            a.products = (Products){.count = E, .every = 1, .start = start, .w_step = ROWS * blocks_row_bytes(a.format, COLUMNS)};
            a.x = input_act("x", T * a.ldx, d, &r, PLAIN);
            a.w = random_blocks(a.format, E * ROWS, COLUMNS, &r);
            a.scratch = guarded("scratch", (int64_t)matmul_scratch(true, 8, N, K, d));
            a.y = output("y", T * a.ldy, a.store == STORE_ACT && d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
            for (int64_t i = 0; a.store == ADD_F32 && i < T * a.ldy; i++) ((float *)a.y)[i] = any_float(&r, PLAIN);
            COMPARE(matmul, &a, "experts in blocks %d %s back %d", f, dtype_name(d), back);
        }
}

static void block_embedding(void) {
    enum { V = 37, C = 256, T = 11 };
    Random r = random_start(16, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int d = 0; d < 2; d++) {
            blocks_free();
            EmbedArgs a = {.T = T, .C = C, .dtype = (Dtype)d, .tokens = input_ids("tokens", T, &r, V), .format = (WeightFormat)f, .scale = f % 2 ? 3.5f : 0};
            a.table = random_blocks(a.format, V, C, &r);
            a.y = output("y", T * C, KIND_F32);
            COMPARE(embed, &a, "embedding in blocks %d %s", f, dtype_name(a.dtype));
        }
}

static void block_head(void) {
    enum { C = 256 };
    static const int64_t sizes[][2] = {{1, 300}, {5, 1100}, {98, 40}}; // M, V
    Random r = random_start(17, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++)
        for (int k = 0; k < 6; k++) {
            Dtype d = (Dtype)(k % 2);
            int64_t M = sizes[k / 2][0], V = sizes[k / 2][1], padded = vocab_padded(V);
            blocks_free();
            HeadArgs a = {.M = M, .V = V, .C = C, .dtype = d, .format = (WeightFormat)f, .softcap = f % 2 ? 2.0f : 0};
            a.x = input_act("x", M * C, d, &r, PLAIN);
            a.w = random_blocks(a.format, V, C, &r);
            float *inv_temperature = guarded("inv_temperature", (size_t)M * 4);
            for (int64_t m = 0; m < M; m++) inv_temperature[m] = m % 2 ? 1.0f : 0.05f;
            a.inv_temperature = inv_temperature;
            a.target = input_ids("target", M, &r, (uint32_t)V);
            a.scratch = guarded("scratch", head_scratch(3));
            a.blocks = guarded("blocks scratch", matmul_scratch(true, 3, V, C, d));
            a.stats = output("stats", M * (padded / VOCAB_BLOCK) * 3, KIND_F32);
            a.logprob = output("logprob", M, KIND_F32), a.entropy = output("entropy", M, KIND_F32);
            a.max = output("max", M, KIND_F32), a.log_sum = output("log_sum", M, KIND_F32);
            COMPARE(head, &a, "head in blocks %d M %d V %d %s", f, (int)M, (int)V, dtype_name(d));
            reference_device->head(reference_device, &a);
            HeadGradArgs g = {.forward = a, .dlogprob = input("dlogprob", M, &r, PLAIN), .ld = padded};
            g.dlogits = output("dlogits", M * padded, d == DTYPE_BF16 ? KIND_BF16 : KIND_F32);
            COMPARE(head_grad, &g, "gradient of a head in blocks %d M %d V %d %s", f, (int)M, (int)V, dtype_name(d));
        }
}

static const Test tests[] = {
    {"weights in blocks", block_products},
    {"weights in blocks: packed", block_packing},
    {"weights in blocks: an expert's each", block_experts},
    {"weights in blocks: the embedding", block_embedding},
    {"weights in blocks: the head", block_head},
};
OPS_TEST_MAIN(tests)
