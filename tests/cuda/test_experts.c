// Mixture of experts on a CUDA device, against the slow twin: choices and places to the bit, weights and gradients within what exp
// and the order of sums differ by. Rows and products have the same bits however many stand beside them.
#include "cuda_test.h"

static const Router routers[] = {
    {.experts = 8, .chosen = 2, .groups = 1, .chosen_groups = 1, .group_best = 1, .normalise = true, .scale = 1},
    {.experts = 12, .chosen = 4, .groups = 3, .chosen_groups = 2, .group_best = 2, .sigmoid = true, .normalise = true, .scale = 2.5f},
    {.experts = 80, .chosen = 6, .groups = 8, .chosen_groups = 3, .group_best = 1, .scale = 16},
    {.experts = 33, .chosen = 8, .groups = 1, .chosen_groups = 1, .group_best = 2, .sigmoid = true, .scale = 1},
    {.experts = 1, .chosen = 1, .groups = 1, .chosen_groups = 1, .group_best = 1, .normalise = true, .scale = 1},
};
static Segments three_segments(int64_t T) {
    const int32_t start[] = {0, (int32_t)(T / 3), (int32_t)(T - T / 4), (int32_t)T};
    return segments(3, start);
}
static int32_t *random_choices(const Router *r, int64_t T, Random *random) {
    int32_t *choice = guarded("choice", (size_t)(T * r->chosen) * 4);
    for (int64_t t = 0; t < T; t++)
        for (int j = 0, e = 0, open = r->experts; j < r->chosen; e++, open--)
            if ((int)random_below(random, (uint32_t)open) < r->chosen - j) choice[t * r->chosen + j++] = e;
    return choice;
}

static void routes(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 3; k++) {
            cuda_case();
            int64_t T = 1 + 9 * k;
            RouteArgs a = {.T = T, .router = routers[i]};
            a.logits = input("logits", T * a.router.experts, &r, k == 2 ? HOSTILE : PLAIN);
            if (k) a.bias = input("bias", a.router.experts, &r, PLAIN);
            a.choice = output("choice", T * a.router.chosen * 4, KIND_BYTES);
            a.weight = output("weight", T * a.router.chosen, KIND_F32);
            tolerate(a.weight, 1e-7, 4e-6);
            COMPARE_CUDA(route, &a, "router %d T %d", i, (int)T);
        }
}

static void sorting(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 2; k++) {
            cuda_case();
            const Router *router = &routers[i];
            int64_t T = k ? 130 : 7, S = k ? 3 : 1;
            DispatchArgs a = {.T = T, .experts = router->experts, .chosen = router->chosen};
            a.choice = random_choices(router, T, &r);
            if (k) a.segments = three_segments(T);
            a.start = output("start", (router->experts * S + 1) * 4, KIND_BYTES);
            a.token = output("token", T * router->chosen * 4, KIND_BYTES);
            a.place = output("place", T * router->chosen * 4, KIND_BYTES);
            a.load = output("load", router->experts * 8, KIND_BYTES);
            for (int e = 0; e < router->experts; e++) a.load[e] = 1000 + e;
            COMPARE_CUDA(dispatch, &a, "router %d T %d", i, (int)T);
        }
}

static void combining(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    for (int k = 0; k < 6; k++) {
        cuda_case();
        int64_t T = 1 + 7 * k, C = 5 + 140 * (k % 3), chosen = 1 + k % 3;
        CombineArgs a = {.T = T, .C = C, .chosen = (int32_t)chosen, .add = k % 2};
        a.place = input_ids("place", T * chosen, &r, (uint32_t)(T * chosen));
        if (k % 3) a.weight = input("weight", T * chosen, &r, (Temper)(k % 3));
        a.x = input("x", T * chosen * C, &r, (Temper)(k % 3));
        a.y = output("y", T * C, KIND_F32);
        for (int64_t i = 0; i < T * C; i++) a.y[i] = any_float(&r, PLAIN);
        COMPARE_CUDA(combine, &a, "T %d C %d", (int)T, (int)C);
    }
}

static void combining_back(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    for (int k = 0; k < 6; k++) {
        cuda_case();
        int64_t T = 1 + 5 * k, F = 3 + 45 * (k % 3), chosen = 1 + k % 3, rows = T * chosen;
        Dtype dtype = (Dtype)(k % 2);
        CombineGradArgs a = {.T = T, .F = F, .chosen = (int32_t)chosen, .dtype = dtype};
        int32_t *place = guarded("place", (size_t)rows * 4);
        for (int64_t i = 0; i < rows; i++) place[i] = (int32_t)(rows - 1 - i);
        a.place = place;
        a.weight = input("weight", rows, &r, PLAIN);
        a.ff = output("ff", rows * F, kind_of(dtype));
        a.dff = output("dff", rows * F, KIND_F32);
        a.dweight = output("dweight", rows, KIND_F32);
        tolerate(a.dweight, 1e-5, 1e-5);
        for (int64_t i = 0; i < rows * F; i++) {
            a.dff[i] = any_float(&r, PLAIN);
            if (dtype == DTYPE_F32)
                ((float *)a.ff)[i] = any_float(&r, PLAIN);
            else
                ((bf16 *)a.ff)[i] = float_bf16(any_float(&r, PLAIN));
        }
        COMPARE_CUDA(combine_grad, &a, "T %d F %d %s", (int)T, (int)F, dtype_name(dtype));
    }
}

static void routes_back(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 2; k++) {
            cuda_case();
            const Router *router = &routers[i];
            int64_t T = 4 + 9 * k;
            RouteGradArgs a = {.T = T, .router = *router, .dtype = (Dtype)k, .segments = three_segments(T), .balance = 0.25f, .z = 0.125f};
            DispatchArgs d = {.T = T, .experts = router->experts, .chosen = router->chosen, .segments = a.segments};
            a.logits = input("logits", T * router->experts, &r, PLAIN);
            a.choice = d.choice = random_choices(router, T, &r);
            a.dweight = input("dweight", T * router->chosen, &r, PLAIN);
            a.start = d.start = guarded("start", (size_t)(router->experts * 3 + 1) * 4);
            d.token = guarded("token", (size_t)(T * router->chosen) * 4), d.place = guarded("place", (size_t)(T * router->chosen) * 4);
            reference_device->dispatch(reference_device, &d);
            a.dlogits = output("dlogits", T * router->experts, kind_of(a.dtype));
            tolerate(a.dlogits, 1e-5, k ? 1e-2 : 1e-5);
            COMPARE_CUDA(route_grad, &a, "router %d T %d %s", i, (int)T, dtype_name(a.dtype));
        }
}

static void balancing(void) {
    cuda_case();
    float *bias = output("bias", 4, KIND_F32);
    int64_t *load = output("load", 32, KIND_BYTES);
    load[0] = 10, load[1] = 2, load[2] = 0, load[3] = 4;
    for (int i = 0; i < 4; i++) bias[i] = (float)i;
    BalanceArgs a = {.experts = 4, .rate = 0.25f, .bias = bias, .load = load};
    COMPARE_CUDA(balance, &a, "four experts");
}

// ---- many products ---------------------------------------------------------------------------------------
// Whole panels and K a multiple of 16, so that all matrices can be packed as one on either side.
enum { PRODUCTS = 5 };
typedef struct Many {
    bool ragged;
    int N, K, gap; // columns between products side by side
} Many;
static const Many manys[] = {{true, 64, 48, 0}, {false, 32, 16, 0}, {false, 64, 48, 3}, {true, 32, 16, 0}};
static const int32_t starts[] = {0, 4, 4, 4, 4, 17, 18, 18, 150, 150, 151};

static MatmulArgs products_args(const Many *m, Dtype dtype, Store store, Random *r) {
    int N = m->N, K = m->K;
    int64_t M = m->ragged ? 153 : 21;
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = dtype, .store = store, .ldx = m->ragged ? K : PRODUCTS * (K + m->gap),
                    .ldy = m->ragged ? N : PRODUCTS * N};
    int32_t *start = guarded("start", sizeof starts);
    memcpy(start, starts, sizeof starts);
    a.products = (Products){.count = PRODUCTS, .every = 2, .start = m->ragged ? start : NULL, .x_step = m->ragged ? 0 : K + m->gap,
                            .y_step = m->ragged ? 0 : N, .w_step = (int64_t)N * K};
    a.x = input_act("x", M * a.ldx, dtype, r, PLAIN);
    a.w = weights("w", input("matrices", (int64_t)PRODUCTS * N * K, r, PLAIN), PRODUCTS * N, K, dtype, false);
    bool half = store == STORE_ACT && dtype == DTYPE_BF16;
    a.y = output("y", M * a.ldy, half ? KIND_BF16 : KIND_F32);
    memset(a.y, 0, (size_t)(M * a.ldy) * (half ? 2 : 4));
    tolerate(a.y, half ? 4e-2 : 2e-5, 0);
    return a;
}
static void products(void) {
    Random r = random_start(6, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(manys); i++)
        for (int k = 0; k < 3; k++) {
            cuda_case();
            MatmulArgs a = products_args(&manys[i], (Dtype)((i + k) % 2), (Store)k, &r);
            COMPARE_CUDA(matmul, &a, "products %d %s store %d", i, dtype_name(a.dtype), k);
        }
}
// Each product by a call of its own has the bits that it has among the others.
static void products_alone(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    for (int i = 0; i < 3; i++)
        for (int d = 0; d < 2; d++) {
            cuda_case();
            MatmulArgs a = products_args(&manys[i], (Dtype)d, STORE_F32, &r);
            int64_t count = a.M * a.ldy;
            float *all = malloc((size_t)count * 4);
            ON_CUDA(matmul, &a, "together");
            memcpy(all, a.y, (size_t)count * 4);
            memset(a.y, 0, (size_t)count * 4);
            for (int p = 0; p < PRODUCTS; p++) {
                MatmulArgs one = a;
                int64_t from = manys[i].ragged ? starts[2 * p] : 0;
                one.M = manys[i].ragged ? starts[2 * p + 2] - from : a.M;
                one.x = (const char *)a.x + (size_t)(from * a.ldx + p * a.products.x_step) * dtype_size(a.dtype);
                one.w = (const char *)a.w + (size_t)(p * a.products.w_step) * dtype_size(a.dtype);
                one.y = (float *)a.y + from * a.ldy + p * a.products.y_step;
                one.products = (Products){0};
                if (one.M) ON_CUDA(matmul, &one, "product %d alone", p);
            }
            int64_t written = manys[i].ragged ? starts[10] * a.ldy : count;
            same_bits(a.y, all, written, KIND_F32, "alone");
            free(all);
        }
}
static void product_gradients(void) {
    Random r = random_start(8, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(manys); i++)
        for (int d = 0; d < 2; d++) {
            cuda_case();
            const Many *m = &manys[i];
            int N = m->N - 3 * (i % 2), K = m->K - 5 * (i % 2);
            int64_t T = m->ragged ? 153 : 40;
            MatmulGradArgs a = {.T = T, .N = N, .K = K, .dtype = (Dtype)d, .ldx = m->ragged ? K : PRODUCTS * (K + m->gap), .ldy = m->ragged ? N : PRODUCTS * N};
            int32_t *start = guarded("start", sizeof starts);
            memcpy(start, starts, sizeof starts);
            a.products = (Products){.count = PRODUCTS, .every = 2, .start = m->ragged ? start : NULL, .x_step = m->ragged ? 0 : K + m->gap,
                                    .y_step = m->ragged ? 0 : N, .w_step = (int64_t)N * K};
            if (!m->ragged) a.segments = three_segments(T);
            a.x = input_act("x", T * a.ldx, a.dtype, &r, PLAIN);
            a.dy = input_act("dy", T * a.ldy, a.dtype, &r, PLAIN);
            a.dw = output("dw", (int64_t)PRODUCTS * N * K, KIND_F32);
            a.written = (i + d) % 2;
            for (int64_t n = 0; n < (int64_t)PRODUCTS * N * K; n++) a.dw[n] = a.written ? NAN : any_float(&r, PLAIN);
            tolerate(a.dw, 1e-4, 0);
            a.scratch = work_area("scratch", matmul_grad_scratch(3));
            COMPARE_CUDA(matmul_grad, &a, "products %d %s", i, dtype_name(a.dtype));
        }
}

static const Test tests[] = {
    {"routes", routes},
    {"rows sorted by expert and segment", sorting},
    {"experts' outputs combined", combining},
    {"gradients of weights and of experts' inputs", combining_back},
    {"gradients of routers", routes_back},
    {"the bias moves against the load", balancing},
    {"many products", products},
    {"many products have the bits of single ones", products_alone},
    {"gradients of many products", product_gradients},
};
CUDA_TEST_MAIN(tests)
