// Weights in GGUF's blocks on a CUDA device, beyond single products: an expert's each, the embedding, the head and its gradient.
#include "cuda_test.h"
#include "blocks.h"

// Random blocks whose scales are halves of about 0.01.
static uint8_t *random_blocks(WeightFormat f, int64_t rows, int64_t columns, Random *r) {
    int64_t bytes = rows * blocks_row_bytes(f, columns);
    uint8_t *w = guarded("blocks", (size_t)bytes);
    for (int64_t i = 0; i < bytes; i++) w[i] = (uint8_t)random_below(r, 256);
    for (int64_t i = 1; i < bytes && f == WEIGHT_BF16; i += 2) w[i] = (uint8_t)((w[i] & 0x80) + 0x3c);
    for (int64_t b = 0; b < bytes; b += block_bytes(f))
        for (int half = 0; half < 2; half++) {
            int64_t at = b + (f == WEIGHT_Q6_K ? 208 : 2 * half);
            if (half == 0 || f == WEIGHT_Q4_1 || f == WEIGHT_Q5_1 || f == WEIGHT_Q4_K) w[at + 1] = 0x1c;
        }
    return w;
}

static void experts_in_blocks(void) {
    enum { E = 3, ROWS = 40, COLUMNS = 256, T = 21 };
    static const int32_t starts[E + 1] = {0, 5, 5, T};
    Random r = random_start(31, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++) {
        Dtype d = (Dtype)(f % 2);
        bool back = f / 2 % 2;
        int64_t N = back ? COLUMNS : ROWS, K = back ? ROWS : COLUMNS;
        cuda_case();
        int32_t *start = guarded("start", sizeof starts);
        memcpy(start, starts, sizeof starts);
        MatmulArgs a = {.M = T, .N = N, .K = K, .dtype = d, .store = STORE_F32, .ldx = K, .ldy = N, .format = (WeightFormat)f, .transposed = back};
        a.products = (Products){.count = E, .every = 1, .start = start, .w_step = ROWS * blocks_row_bytes(a.format, COLUMNS)};
        a.x = input_act("x", T * K, d, &r, PLAIN);
        a.w = random_blocks(a.format, E * ROWS, COLUMNS, &r);
        a.scratch = work_area("scratch", E * matmul_scratch(false, 1, N, K, d));
        tolerate(a.y = output("y", T * N, KIND_F32), 5e-3, 1e-5);
        COMPARE_CUDA(matmul, &a, "experts in blocks %d %s back %d", f, dtype_name(d), back);
    }
}

static void embedding_in_blocks(void) {
    enum { V = 37, C = 256, T = 11 };
    Random r = random_start(32, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++) {
        cuda_case();
        EmbedArgs a = {.T = T, .C = C, .dtype = (Dtype)(f % 2), .tokens = input_ids("tokens", T, &r, V), .format = (WeightFormat)f, .scale = f % 3 ? 3.5f : 0};
        a.table = random_blocks(a.format, V, C, &r);
        a.y = output("y", T * C, KIND_F32);
        COMPARE_CUDA(embed, &a, "embedding in blocks %d %s", f, dtype_name(a.dtype));
    }
}

static void head_in_blocks(void) {
    enum { M = 5, V = 300, C = 256 };
    Random r = random_start(33, STREAM_TEST, 0);
    for (int f = WEIGHT_PACKED + 1; f < WEIGHT_FORMATS; f++) {
        Dtype d = (Dtype)(f % 2);
        int64_t padded = vocab_padded(V);
        cuda_case();
        HeadArgs a = {.M = M, .V = V, .C = C, .dtype = d, .format = (WeightFormat)f};
        a.x = input_act("x", M * C, d, &r, PLAIN);
        a.w = random_blocks(a.format, V, C, &r);
        float *inv_temperature = guarded("inv_temperature", M * 4);
        for (int m = 0; m < M; m++) inv_temperature[m] = m % 2 ? 1.0f : 0.25f;
        a.inv_temperature = inv_temperature;
        a.target = input_ids("target", M, &r, V);
        a.blocks = work_area("blocks scratch", matmul_scratch(false, 1, V, C, d));
        tolerate(a.logprob = output("logprob", M, KIND_F32), 2e-3, 1e-4), tolerate(a.entropy = output("entropy", M, KIND_F32), 2e-3, 1e-4);
        tolerate(a.max = output("max", M, KIND_F32), 2e-3, 1e-4), tolerate(a.log_sum = output("log_sum", M, KIND_F32), 2e-3, 1e-4);
        tolerate(a.stats = output("stats", M * (padded / VOCAB_BLOCK) * 3, KIND_F32), 1e-1, 1e-2);
        COMPARE_CUDA(head, &a, "head in blocks %d %s", f, dtype_name(d));
        SampleArgs draw = {.M = M, .V = V, .head = a, .stats = a.stats, .entropy = a.entropy, .rows = work_area("rows", M * sizeof *draw.rows)};
        holds_pointers(draw.rows);
        for (int m = 0; m < M; m++) draw.rows[m] = (SampleRow){.greedy = m == 0, .top_p = 1, .uniform = 0.21 * m};
        ON_CUDA(sample, &draw, "without logits, blocks %d %s", f, dtype_name(d)); // of the scratch as the head left it
        for (int m = 0; m < M; m++) ((int32_t *)(uintptr_t)a.target)[m] = draw.rows[m].token;
        ON_CUDA(head, &a, "of what was drawn, blocks %d %s", f, dtype_name(d));
        for (int m = 0; m < M; m++) same_bits(&draw.rows[m].logprob, &a.logprob[m], 1, KIND_F32, "logprob");
        HeadGradArgs g = {.forward = a, .dlogprob = input("dlogprob", M, &r, PLAIN), .ld = vocab_padded(a.V)};
        reference_device->head(reference_device, &g.forward);
        tolerate(g.dlogits = output("dlogits", M * padded, kind_of(d)), 5e-3, 0x1p-6);
        COMPARE_CUDA(head_grad, &g, "gradient of a head in blocks %d %s", f, dtype_name(d));
    }
}

static const Test tests[] = {
    {"cuda blocks: an expert's each", experts_in_blocks},
    {"cuda blocks: the embedding", embedding_in_blocks},
    {"cuda blocks: the head", head_in_blocks},
};
CUDA_TEST_MAIN(tests)
