// Mixture of experts: the bits of every variant, routes stated by hand, rows that stand alone, many products against single
// ones, and gradients against slopes.
#include "ops_test.h"

static const Router routers[] = {
    {.experts = 8, .chosen = 2, .groups = 1, .chosen_groups = 1, .group_best = 1, .normalise = true, .scale = 1},
    {.experts = 5, .chosen = 3, .groups = 1, .chosen_groups = 1, .group_best = 1, .scale = 1.5f},
    {.experts = 12, .chosen = 4, .groups = 3, .chosen_groups = 2, .group_best = 2, .sigmoid = true, .normalise = true, .scale = 2.5f},
    {.experts = 40, .chosen = 6, .groups = 8, .chosen_groups = 3, .group_best = 1, .scale = 16},
    {.experts = 33, .chosen = 8, .groups = 1, .chosen_groups = 1, .group_best = 2, .sigmoid = true, .scale = 1},
    {.experts = 1, .chosen = 1, .groups = 1, .chosen_groups = 1, .group_best = 1, .normalise = true, .scale = 1},
};

// Where three segments of T tokens begin.
static Segments three_segments(int64_t T) {
    int32_t *start = guarded("segments", 4 * sizeof *start);
    start[0] = 0, start[1] = (int32_t)(T / 3), start[2] = (int32_t)(T - T / 4), start[3] = (int32_t)T;
    return (Segments){.count = 3, .start = start, .host = start};
}
// A distinct ascending choice per row, some experts never taken.
static int32_t *random_choices(const Router *r, int64_t T, Random *random) {
    int32_t *choice = guarded("choice", (size_t)(T * r->chosen) * 4);
    for (int64_t t = 0; t < T; t++)
        for (int j = 0, e = 0, open = r->experts; j < r->chosen; e++, open--)
            if ((int)random_below(random, (uint32_t)open) < r->chosen - j) choice[t * r->chosen + j++] = e;
    return choice;
}

static void route_bits(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 6; k++) {
            blocks_free();
            int64_t T = 1 + 13 * k;
            RouteArgs a = {.T = T, .router = routers[i]};
            a.logits = input("logits", T * a.router.experts, &r, (Temper)(k % 3));
            if (k % 2) a.bias = input("bias", a.router.experts, &r, k == 5 ? HOSTILE : PLAIN);
            a.choice = output("choice", T * a.router.chosen * 4, KIND_BYTES);
            a.weight = output("weight", T * a.router.chosen, KIND_F32);
            COMPARE(route, &a, "router %d T %d %s", i, (int)T, temper_name((Temper)(k % 3)));
        }
}

// Four groups of two: by its best a group may win that loses by the sum; the bias chooses but doesn't weigh.
static void route_by_hand(void) {
    blocks_free();
    devices_open();
    float logits[] = {2, -9, 1, 1, 0, 0, -1, -1}, bias[] = {0, 0, 0, 0, 0.9f, 0.9f, 0, 0}, weight[2];
    int32_t choice[2];
    RouteArgs a = {.T = 1, .logits = logits, .choice = choice, .weight = weight,
                   .router = {.experts = 8, .chosen = 2, .groups = 4, .chosen_groups = 1, .group_best = 1, .scale = 1}};
    reference_device->route(reference_device, &a);
    CHECK_INT(choice[0], 0);
    CHECK_INT(choice[1], 1);
    a.router.group_best = 2, a.router.sigmoid = true;
    reference_device->route(reference_device, &a);
    CHECK_INT(choice[0], 2);
    CHECK_INT(choice[1], 3);
    CHECK_NEAR(weight[0], 1 / (1 + exp(-1)), 1e-6);
    a.bias = bias, a.router.normalise = true, a.router.scale = 3;
    reference_device->route(reference_device, &a);
    CHECK_INT(choice[0], 4);
    CHECK_INT(choice[1], 5);
    CHECK_NEAR(weight[0], 1.5, 1e-6);
    float nothing[8] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    a.logits = nothing, a.bias = NULL;
    reference_device->route(reference_device, &a);
    CHECK_INT(choice[0], 0);
    CHECK_INT(choice[1], 1);
}

static void dispatch_bits(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 4; k++) {
            blocks_free();
            const Router *router = &routers[i];
            int64_t T = 5 + 31 * k, S = k % 2 ? 3 : 1;
            DispatchArgs a = {.T = T, .experts = router->experts, .chosen = router->chosen};
            a.choice = random_choices(router, T, &r);
            if (k % 2) a.segments = three_segments(T);
            a.start = output("start", (router->experts * S + 1) * 4, KIND_BYTES);
            a.token = output("token", T * router->chosen * 4, KIND_BYTES);
            a.place = output("place", T * router->chosen * 4, KIND_BYTES);
            if (k > 1) {
                a.load = output("load", router->experts * 8, KIND_BYTES);
                for (int e = 0; e < router->experts; e++) a.load[e] = 1000 + e;
            }
            COMPARE(dispatch, &a, "router %d T %d", i, (int)T);
            CHECK_INT(a.start[router->experts * S], T * router->chosen);
            for (int64_t n = 0; n < T * router->chosen; n++) CHECK_INT(a.token[a.place[n]], n / router->chosen);
        }
}

static void combine_bits(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    for (int k = 0; k < 12; k++) {
        blocks_free();
        int64_t T = 1 + 7 * k, C = 5 + 11 * (k % 4), chosen = 1 + k % 3;
        CombineArgs a = {.T = T, .C = C, .chosen = (int32_t)chosen, .add = k % 2};
        a.place = input_ids("place", T * chosen, &r, (uint32_t)(T * chosen));
        if (k % 3) a.weight = input("weight", T * chosen, &r, (Temper)(k % 3));
        a.x = input("x", T * chosen * C, &r, (Temper)(k % 3));
        a.y = output("y", T * C, KIND_F32);
        for (int64_t i = 0; i < T * C; i++) a.y[i] = any_float(&r, PLAIN);
        COMPARE(combine, &a, "T %d C %d", (int)T, (int)C);
    }
}

static void combine_grad_bits(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    for (int k = 0; k < 12; k++) {
        blocks_free();
        int64_t T = 1 + 5 * k, F = 3 + 13 * (k % 4), chosen = 1 + k % 3, rows = T * chosen;
        Dtype dtype = (Dtype)(k / 6);
        CombineGradArgs a = {.T = T, .F = F, .chosen = (int32_t)chosen, .dtype = dtype};
        int32_t *place = guarded("place", (size_t)rows * 4);
        for (int64_t i = 0; i < rows; i++) place[i] = (int32_t)(rows - 1 - i);
        a.place = place;
        a.weight = input("weight", rows, &r, (Temper)(k % 3));
        a.ff = output("ff", rows * F, kind_of(dtype));
        a.dff = output("dff", rows * F, KIND_F32);
        a.dweight = output("dweight", rows, KIND_F32);
        for (int64_t i = 0; i < rows * F; i++) {
            a.dff[i] = any_float(&r, (Temper)(k % 3));
            if (dtype == DTYPE_F32)
                ((float *)a.ff)[i] = any_float(&r, (Temper)(k % 3));
            else
                ((bf16 *)a.ff)[i] = float_bf16(any_float(&r, (Temper)(k % 3)));
        }
        COMPARE(combine_grad, &a, "T %d F %d %s", (int)T, (int)F, dtype_name(dtype));
    }
}

static RouteGradArgs route_grad_args(const Router *router, int64_t T, Dtype dtype, Random *r, Temper temper) {
    RouteGradArgs a = {.T = T, .router = *router, .dtype = dtype, .segments = three_segments(T)};
    DispatchArgs d = {.T = T, .experts = router->experts, .chosen = router->chosen, .segments = a.segments};
    a.logits = input("logits", T * router->experts, r, temper);
    a.choice = d.choice = random_choices(router, T, r);
    a.dweight = input("dweight", T * router->chosen, r, temper);
    a.start = d.start = guarded("start", (size_t)(router->experts * 3 + 1) * 4);
    d.token = guarded("token", (size_t)(T * router->chosen) * 4), d.place = guarded("place", (size_t)(T * router->chosen) * 4);
    devices_open();
    reference_device->dispatch(reference_device, &d);
    return a;
}
static void route_grad_bits(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(routers); i++)
        for (int k = 0; k < 6; k++) {
            blocks_free();
            Dtype dtype = (Dtype)(k / 3);
            RouteGradArgs a = route_grad_args(&routers[i], 4 + 9 * k, dtype, &r, (Temper)(k % 3));
            a.balance = k % 2 ? 0.25f : 0, a.z = k % 3 ? 0.125f : 0;
            a.dlogits = output("dlogits", a.T * a.router.experts, kind_of(dtype));
            COMPARE(route_grad, &a, "router %d T %d %s %s", i, (int)a.T, dtype_name(dtype), temper_name((Temper)(k % 3)));
        }
}

// sum dweight * weight + balance loss + z loss, the choice held fast, as the formulas say it.
typedef struct RouteProblem {
    const RouteGradArgs *a;
    double *logits;
} RouteProblem;
static double route_loss(const void *problem) {
    const RouteProblem *p = problem;
    const RouteGradArgs *a = p->a;
    const Router *r = &a->router;
    double loss = 0;
    for (int s = 0; s < a->segments.count; s++) {
        double mean[64] = {0}, tokens = a->segments.start[s + 1] - a->segments.start[s];
        for (int64_t t = a->segments.start[s]; t < a->segments.start[s + 1]; t++) {
            const double *l = p->logits + t * r->experts;
            double score[64], sum = 0, all = 0, exponentials = 0;
            for (int e = 0; e < r->experts; e++) exponentials += exp(l[e]);
            for (int e = 0; e < r->experts; e++) score[e] = r->sigmoid ? 1 / (1 + exp(-l[e])) : exp(l[e]) / exponentials, all += score[e];
            for (int j = 0; j < r->chosen; j++) sum += score[a->choice[t * r->chosen + j]];
            for (int j = 0; j < r->chosen; j++)
                loss += (double)a->dweight[t * r->chosen + j] * (double)r->scale * score[a->choice[t * r->chosen + j]] / (r->normalise ? sum : 1);
            for (int e = 0; e < r->experts; e++) mean[e] += score[e] / all / tokens;
            loss += (double)a->z * log(exponentials) * log(exponentials);
        }
        for (int e = 0; e < r->experts; e++) {
            double share = (a->start[e * 3 + s + 1] - a->start[e * 3 + s]) / tokens / r->chosen;
            loss += (double)a->balance * tokens * r->experts * share * mean[e];
        }
    }
    return loss;
}
static void route_slopes(void) {
    Random r = random_start(6, STREAM_TEST, 0);
    for (int i = 0; i + 1 < LENGTH(routers); i++) { // one expert alone has no slope
        blocks_free();
        RouteGradArgs a = route_grad_args(&routers[i], 12, DTYPE_F32, &r, PLAIN);
        a.balance = 0.3f, a.z = 0.2f;
        a.dlogits = guarded("dlogits", (size_t)(a.T * a.router.experts) * 4);
        reference_device->route_grad(reference_device, &a);
        double *logits = widened("logits", a.logits, a.T * a.router.experts);
        RouteProblem p = {&a, logits};
        check_slopes("dlogits", route_loss, &p, logits, a.dlogits, a.T * a.router.experts, 0, 2e-5);
    }
}

static void balance_moves(void) {
    blocks_free();
    float *bias = output("bias", 4, KIND_F32);
    int64_t *load = output("load", 32, KIND_BYTES);
    const float before[] = {0.5f, 0, -1, 2};
    memcpy(bias, before, sizeof before);
    load[0] = 10, load[1] = 2, load[2] = 0, load[3] = 4; // the mean is 4
    BalanceArgs a = {.experts = 4, .rate = 0.25f, .bias = bias, .load = load};
    COMPARE(balance, &a, "four experts");
    CHECK(bias[0] == 0.25f && bias[1] == 0.25f && bias[2] == -0.75f && bias[3] == 2);
    for (int e = 0; e < 4; e++) CHECK_INT(load[e], 0);
}

// ---- many products ---------------------------------------------------------------------------------------
// Experts: rows by `start`, one of them without any. Heads: the same rows, columns side by side.
static void products_case(Random *r, bool ragged, Dtype dtype, Store store, Temper temper) {
    enum { COUNT_OF = 5, N = 37, K = 18 };
    static const int32_t starts[] = {0, 4, 4, 4, 17, 17, 18, 18, 50, 50, 51};
    blocks_free();
    int64_t M = ragged ? 53 : 21, w_step = packed_elements(N, K);
    MatmulArgs a = {.M = M, .N = N, .K = K, .dtype = dtype, .store = store, .ldx = ragged ? K : COUNT_OF * K, .ldy = ragged ? N + 2 : COUNT_OF * N};
    int32_t *start = guarded("start", sizeof starts);
    memcpy(start, starts, sizeof starts);
    a.products = (Products){.count = COUNT_OF, .every = 2, .start = ragged ? start : NULL, .x_step = ragged ? 0 : K,
                            .y_step = ragged ? 0 : N, .w_step = w_step};
    a.x = input_act("x", M * a.ldx, dtype, r, temper);
    char *w = guarded("w", (size_t)(COUNT_OF * w_step) * dtype_size(dtype));
    memset(w, 0, (size_t)(COUNT_OF * w_step) * dtype_size(dtype));
    devices_open();
    for (int i = 0; i < COUNT_OF; i++)
        reference_device->pack(reference_device, &(PackArgs){.w = input("matrix", N * K, r, PLAIN), .N = N, .K = K, .dtype = dtype,
                                                             .packed = w + (size_t)(i * w_step) * dtype_size(dtype)});
    a.w = w;
    bool half = store == STORE_ACT && dtype == DTYPE_BF16;
    a.y = output("y", M * a.ldy, half ? KIND_BF16 : KIND_F32);
    if (!half)
        for (int64_t i = 0; i < M * a.ldy; i++) ((float *)a.y)[i] = any_float(r, PLAIN);
    else
        memset(a.y, 0, (size_t)(M * a.ldy) * 2);
    COMPARE(matmul, &a, "products %s %s store %d %s", ragged ? "ragged" : "side by side", dtype_name(dtype), store, temper_name(temper));
}
static void products_bits(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    for (int k = 0; k < 12; k++) products_case(&r, k % 2, (Dtype)(k / 2 % 2), (Store)(k / 4), (Temper)(k % 3));
}

static void product_gradients_case(Random *r, bool ragged, bool written, Dtype dtype, Temper temper) {
    enum { COUNT_OF = 4, N = 21, K = 35 };
    static const int32_t starts[] = {0, 3, 10, 10, 10, 31, 40, 41, 53};
    blocks_free();
    int64_t T = 53;
    MatmulGradArgs a = {.T = T, .N = N, .K = K, .dtype = dtype, .ldx = ragged ? K : COUNT_OF * K, .ldy = ragged ? N : COUNT_OF * N};
    int32_t *start = guarded("start", sizeof starts);
    memcpy(start, starts, sizeof starts);
    a.products = (Products){.count = COUNT_OF, .every = 2, .start = ragged ? start : NULL, .x_step = ragged ? 0 : K,
                            .y_step = ragged ? 0 : N, .w_step = N * K};
    if (!ragged) a.segments = three_segments(T);
    a.x = input_act("x", T * a.ldx, dtype, r, temper);
    a.dy = input_act("dy", T * a.ldy, dtype, r, temper);
    a.dw = output("dw", COUNT_OF * N * K, KIND_F32);
    for (int64_t i = 0; i < COUNT_OF * N * K; i++) a.dw[i] = written ? NAN : any_float(r, PLAIN);
    a.written = written;
    a.scratch = guarded("scratch", matmul_grad_scratch(3));
    COMPARE(matmul_grad, &a, "products %s%s %s %s", ragged ? "ragged" : "side by side", written ? ", written" : "", dtype_name(dtype), temper_name(temper));
}
static void product_gradients_bits(void) {
    Random r = random_start(8, STREAM_TEST, 0);
    for (int k = 0; k < 24; k++) product_gradients_case(&r, k % 2, k >= 12, (Dtype)(k / 2 % 2), (Temper)(k % 3));
}

static const Test tests[] = {
    {"routes have the same bits on every variant", route_bits},
    {"routes by hand: groups, bias, weights, nothing to choose from", route_by_hand},
    {"rows are sorted by expert and segment", dispatch_bits},
    {"experts' outputs are combined in the order of experts", combine_bits},
    {"gradients of weights and of experts' inputs", combine_grad_bits},
    {"gradients of routers have the same bits on every variant", route_grad_bits},
    {"gradients of routers are the slopes: weights, balance, z", route_slopes},
    {"the bias moves against the load", balance_moves},
    {"many products have the bits of single ones", products_bits},
    {"gradients of many products have the bits of single ones", product_gradients_bits},
    {"variants on this processor", variants},
};
OPS_TEST_MAIN(tests)
