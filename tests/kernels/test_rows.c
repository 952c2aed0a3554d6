// Operations on rows of tokens (embedding, RMSNorm, SwiGLU, gather, scatter, convert): the bits of every variant and the
// gradients. RoPE stands with attention.
#include "ops_test.h"

static const int64_t widths[] = {1, 7, 15, 16, 17, 33, 64, 100};
static const int64_t row_counts[] = {1, 2, 3, 5, 17, 65};

typedef void (*Case)(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper);

// Half of all shapes, precisions and tempers: in pairs of any two, everything occurs.
static void each_shape(uint64_t seed, Case run) {
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int w = 0; w < LENGTH(widths); w++)
        for (int c = 0; c < LENGTH(row_counts); c++)
            for (int k = 0; k < 6; k++) {
                if ((w + c + k / 2) % 2) continue;
                blocks_free();
                run(&r, row_counts[c], widths[w], (Dtype)(k % 2), (Temper)(k / 2));
            }
}
#define COMPARE_SHAPE(name, args)                                                                            \
    COMPARE(name, args, "T %d C %d %s %s", (int)T, (int)C, dtype_name(dtype), temper_name(temper))

static void embed_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { V = 70 };
    EmbedArgs a = {.T = T, .C = C, .dtype = dtype, .tokens = input_ids("tokens", T, r, V)};
    a.table = packed("table", input("w", V * C, r, temper), V, C, dtype, false);
    a.y = output("y", T * C, KIND_F32);
    if (C % 2) a.scale = 7.5f;
    COMPARE_SHAPE(embed, &a);
}
static void embed_bits(void) { each_shape(1, embed_case); }

static void embed_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { V = 9 }; // tokens repeat
    EmbedGradArgs a = {.T = T, .C = C, .tokens = input_ids("tokens", T, r, V), .dy = input("dy", T * C, r, temper)};
    a.dtable = output("dtable", V * C, KIND_F32);
    for (int64_t i = 0; i < V * C; i++) a.dtable[i] = any_float(r, temper);
    if (C % 2) a.scale = 7.5f;
    COMPARE_SHAPE(embed_grad, &a);
}
static void embed_grad_bits(void) { each_shape(2, embed_grad_case); }

static void rmsnorm_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    RmsnormArgs a = {.T = T, .C = C, .dtype = dtype, .eps = 1e-5f};
    a.x = input("x", T * C, r, temper);
    a.weight = input("weight", C, r, temper == HOSTILE ? PLAIN : temper);
    a.y = output("y", T * C, kind_of(dtype));
    if (T % 2) a.rstd = output("rstd", T, KIND_F32);
    COMPARE_SHAPE(rmsnorm, &a);
}
static void rmsnorm_bits(void) { each_shape(3, rmsnorm_case); }

// The heads of q within rows of q, k, v: normed in place, and added to another array.
static void rmsnorm_heads_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { HEADS = 3 };
    int64_t ld = HEADS * C + 5;
    RmsnormArgs a = {.T = T, .C = C, .heads = HEADS, .ldx = ld, .ldy = ld, .dtype = dtype, .eps = 1e-5f, .offset = C % 2};
    a.weight = input("weight", C, r, temper == HOSTILE ? PLAIN : temper);
    float *y = output("y", T * ld, KIND_F32);
    for (int64_t i = 0; i < T * ld; i++) y[i] = any_float(r, temper);
    may_be_nan |= temper != PLAIN;
    a.y = y, a.rstd = output("rstd", T * HEADS, KIND_F32);
    a.store = T % 2 ? STORE_F32 : ADD_F32;
    a.x = a.store == STORE_F32 ? y : input("x", T * ld, r, temper);
    COMPARE_SHAPE(rmsnorm, &a);
}
static void rmsnorm_heads(void) { each_shape(12, rmsnorm_heads_case); }

static void rmsnorm_grad_heads_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { HEADS = 3 };
    int64_t ldx = HEADS * C + 4, lddy = HEADS * C + 3, lddx = HEADS * C + 6;
    RmsnormGradArgs a = {.T = T, .C = C, .heads = HEADS, .ldx = ldx, .lddy = lddy, .lddx = lddx, .offset = C % 2, .written = true, .dtype = dtype,
                         .x = input("x", T * ldx, r, temper), .weight = input("weight", C, r, PLAIN)};
    a.rstd = input("rstd", T * HEADS, r, PLAIN);
    a.dy = input("dy", T * lddy, r, temper == HOSTILE ? PLAIN : temper);
    a.dx = output("dx", T * lddx, kind_of(dtype));
    memset(a.dx, 0, (size_t)(T * lddx) * dtype_size(dtype));
    a.dweight = output("dweight", C, KIND_F32);
    memset(a.dweight, 0, (size_t)C * 4);
    COMPARE_SHAPE(rmsnorm_grad, &a);
}
static void rmsnorm_grad_heads(void) { each_shape(13, rmsnorm_grad_heads_case); }

static void rmsnorm_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    RmsnormGradArgs a = {.T = T, .C = C, .x = input("x", T * C, r, temper), .weight = input("weight", C, r, PLAIN)};
    a.rstd = input("rstd", T, r, PLAIN);
    a.dy = input("dy", T * C, r, temper == HOSTILE ? PLAIN : temper);
    a.dx = output("dx", T * C, KIND_F32);
    a.dweight = output("dweight", C, KIND_F32);
    float *dx = a.dx;
    for (int64_t i = 0; i < T * C; i++) dx[i] = any_float(r, temper);
    for (int64_t i = 0; i < C; i++) a.dweight[i] = any_float(r, temper);
    COMPARE_SHAPE(rmsnorm_grad, &a);
}
static void rmsnorm_grad_bits(void) { each_shape(4, rmsnorm_grad_case); }

// Gates that reach where exp saturates.
static void widen_gates(void *gate_up, int64_t T, int64_t F, Dtype dtype) {
    static const float gates[] = {-1000, -89, -88.5f, -88, -87.5f, -87, -30, -1e-30f, 0, 30, 87, 88, 89, 1000};
    for (int64_t i = 0; i < T * F; i += 3) {
        int64_t at = i / F * 2 * F + i % F;
        float g = gates[i / 3 % LENGTH(gates)];
        if (dtype == DTYPE_F32)
            ((float *)gate_up)[at] = g;
        else
            ((bf16 *)gate_up)[at] = float_bf16(g);
    }
}

static void swiglu_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    void *gate_up = input_act("gate_up", T * 2 * C, dtype, r, temper);
    if (temper != HOSTILE) widen_gates(gate_up, T, C, dtype);
    SwigluArgs a = {.T = T, .F = C, .dtype = dtype, .gate_up = gate_up, .y = output("y", T * C, kind_of(dtype))};
    a.gate = C % 2 ? GATE_GELU_TANH : GATE_SILU;
    COMPARE_SHAPE(swiglu, &a);
}
static void swiglu_bits(void) { each_shape(5, swiglu_case); }

static void swiglu_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    void *gate_up = input_act("gate_up", T * 2 * C, dtype, r, temper);
    if (temper != HOSTILE) widen_gates(gate_up, T, C, dtype);
    SwigluGradArgs a = {.T = T, .F = C, .dtype = dtype, .gate_up = gate_up};
    a.dy = input("dy", T * C, r, temper == HOSTILE ? PLAIN : temper);
    a.dgate_up = output("dgate_up", T * 2 * C, kind_of(dtype));
    a.gate = C % 2 ? GATE_GELU_TANH : GATE_SILU;
    COMPARE_SHAPE(swiglu_grad, &a);
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(swiglu_grad, &a);
}
static void swiglu_grad_bits(void) { each_shape(6, swiglu_grad_case); }

static void gather_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    GatherArgs a = {.T = T, .C = C, .dtype = dtype, .row = input_ids("row", T, r, 11)};
    a.x = input_act("x", 11 * C, dtype, r, temper);
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(gather, &a);
}
static void gather_bits(void) { each_shape(7, gather_case); }

// Every other row of what is larger, the last one first: of arrays of both widths, and of one whose rows are odd bytes.
static void move_rows_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    int64_t *from = guarded("from", (size_t)T * 8), *to = guarded("to", (size_t)T * 8);
    for (int64_t i = 0; i < T; i++) from[i] = (int64_t)random_below(r, 11), to[i] = 2 * (T - i) - 1;
    size_t wide = (size_t)C * 4, act = (size_t)C * dtype_size(dtype);
    MoveRowsArgs a = {.n = T, .from = from, .to = to, .count = 3};
    a.arrays[0].bytes = wide, a.arrays[0].x = input("wide", 11 * C, r, temper), a.arrays[0].y = output("wide moved", 2 * T * C, KIND_F32);
    a.arrays[1].bytes = act, a.arrays[1].x = input_act("act", 11 * C, dtype, r, temper), a.arrays[1].y = output("act moved", 2 * T * C, kind_of(dtype));
    a.arrays[2].bytes = 3, a.arrays[2].x = input("odd", 11, r, temper), a.arrays[2].y = output("odd moved", 6 * T, KIND_BYTES);
    COMPARE_SHAPE(move_rows, &a);
    a.from = NULL, a.count = T > 11 ? 0 : 2;
    COMPARE_SHAPE(move_rows, &a);
    a.from = from, a.to = NULL;
    COMPARE_SHAPE(move_rows, &a);
}
static void move_rows_bits(void) { each_shape(15, move_rows_case); }

static void scatter_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ScatterArgs a = {.T = T, .C = C, .row = input_ids("row", T, r, 11), .x = input("x", T * C, r, temper)};
    a.y = output("y", 11 * C, KIND_F32);
    for (int64_t i = 0; i < 11 * C; i++) a.y[i] = any_float(r, temper);
    COMPARE_SHAPE(scatter, &a);
}
static void scatter_bits(void) { each_shape(8, scatter_case); }

static void convert_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ConvertArgs a = {.count = T * C, .dtype = dtype, .x = input("x", T * C, r, temper)};
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(convert, &a);
}
static void convert_bits(void) { each_shape(9, convert_case); }
// Rows that lie apart: what is between them stays.
static void convert_apart_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ConvertArgs a = {.count = T * C, .dtype = dtype, .x = input("x", T * C, r, temper), .columns = C, .ldy = C + (C % 8 ? 5 : 8)};
    a.y = output("y", T * a.ldy, kind_of(dtype));
    memset(a.y, 0, (size_t)(T * a.ldy) * dtype_size(dtype));
    COMPARE_SHAPE(convert, &a);
}
static void convert_apart_bits(void) { each_shape(10, convert_apart_case); }

// Every rounding: halves go to the even neighbour, overflow to infinity, NaN stays NaN whatever its payload.
static void convert_rounds_to_nearest_even(void) {
    static const uint32_t from[] = {0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800000,
                                    0xff800000, 0x7f800001, 0x7fffffff, 0xffffffff, 0x80000000, 0x00018000, 0x00008000};
    static const uint16_t to[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x3f80, 0x7f80, 0x7f80, 0xff80, 0x7fc0, 0x7fc0, 0x7fc0, 0x8000, 0x0002, 0x0000};
    devices_open();
    for (int v = 0; v < device_count; v++) {
        float x[LENGTH(from)];
        bf16 y[LENGTH(from)];
        memcpy(x, from, sizeof x);
        ConvertArgs a = {.count = LENGTH(from), .dtype = DTYPE_BF16, .x = x, .y = y};
        test_devices[v]->convert(test_devices[v], &a);
        for (int i = 0; i < LENGTH(from); i++) {
            if (x[i] != x[i])
                CHECK((y[i] & 0x7fff) == 0x7fc0);
            else
                CHECK_INT(y[i], to[i]);
        }
    }
}

// ---- gradients -------------------------------------------------------------------------------------------
typedef struct Rows {
    int64_t T, C;
    const int32_t *tokens;
    double *x, *weight, *dy;
    bool offset; // of the norm's weight
    Gate gate;
} Rows;

static double embed_loss(const void *problem) {
    const Rows *p = problem;
    double loss = 0;
    for (int64_t i = 0; i < p->T * p->C; i++) loss += p->dy[i] * p->x[p->tokens[i / p->C] * p->C + i % p->C];
    return loss;
}
static double rmsnorm_loss(const void *problem) {
    const Rows *p = problem;
    double loss = 0;
    for (int64_t t = 0; t < p->T; t++) {
        const double *x = p->x + t * p->C;
        double square = 0;
        for (int64_t c = 0; c < p->C; c++) square += x[c] * x[c];
        double rstd = 1 / sqrt(square / (double)p->C + 1e-5);
        for (int64_t c = 0; c < p->C; c++) loss += p->dy[t * p->C + c] * x[c] * rstd * (p->offset + p->weight[c]);
    }
    return loss;
}
static double swiglu_loss(const void *problem) { // x [T, 2C]
    const Rows *p = problem;
    double loss = 0;
    for (int64_t i = 0; i < p->T * p->C; i++) {
        double gate = p->x[i / p->C * 2 * p->C + i % p->C], up = p->x[i / p->C * 2 * p->C + p->C + i % p->C];
        double root = sqrt(2 / 3.14159265358979323846), inner = root * (gate + 0.044715 * gate * gate * gate);
        loss += p->dy[i] * up * (p->gate == GATE_SILU ? gate / (1 + exp(-gate)) : 0.5 * gate * (1 + tanh(inner)));
    }
    return loss;
}
static double dot(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void embed_slopes(void) {
    enum { T = 12, C = 11, V = 5 };
    Random r = random_start(20, STREAM_TEST, 0);
    blocks_free();
    float *table = input("table", V * C, &r, PLAIN), *dy = input("dy", T * C, &r, PLAIN), *dtable = guarded("dtable", V * C * 4);
    float *y = guarded("y", T * C * 4);
    Rows p = {.T = T, .C = C, .tokens = input_ids("tokens", T, &r, V), .x = widened("table", table, V * C), .dy = widened("dy", dy, T * C)};
    EmbedArgs a = {.T = T, .C = C, .tokens = p.tokens, .table = packed("packed", table, V, C, DTYPE_F32, false), .y = y};
    EmbedGradArgs b = {.T = T, .C = C, .tokens = p.tokens, .dy = dy, .dtable = dtable};
    for (int v = 0; v < device_count; v++) {
        memset(dtable, 0, V * C * 4);
        test_devices[v]->embed(test_devices[v], &a);
        test_devices[v]->embed_grad(test_devices[v], &b);
        CHECK_NEAR(dot(y, dy, T * C), embed_loss(&p), 1e-9);
        check_slopes("dtable", embed_loss, &p, p.x, dtable, V * C, 0, 1e-6);
    }
}

static void rmsnorm_slopes_of(bool offset) {
    enum { T = 5, C = 37 };
    Random r = random_start(21, STREAM_TEST, 0);
    blocks_free();
    devices_open();
    float *x = input("x", T * C, &r, PLAIN), *weight = input("weight", C, &r, PLAIN), *dy = input("dy", T * C, &r, PLAIN);
    float *y = guarded("y", T * C * 4), *rstd = guarded("rstd", T * 4), *dx = guarded("dx", T * C * 4), *dweight = guarded("dweight", C * 4);
    for (int i = 0; i < C; i++) x[i] *= 1e-3f; // a row where eps counts
    Rows p = {.T = T, .C = C, .offset = offset, .x = widened("x", x, T * C), .weight = widened("weight", weight, C), .dy = widened("dy", dy, T * C)};
    RmsnormArgs a = {.T = T, .C = C, .x = x, .weight = weight, .offset = offset, .eps = 1e-5f, .y = y, .rstd = rstd};
    RmsnormGradArgs b = {.T = T, .C = C, .offset = offset, .x = x, .weight = weight, .rstd = rstd, .dy = dy, .dx = dx, .dweight = dweight};
    for (int v = 0; v < device_count; v++) {
        memset(dx, 0, T * C * 4);
        memset(dweight, 0, C * 4);
        test_devices[v]->rmsnorm(test_devices[v], &a);
        test_devices[v]->rmsnorm_grad(test_devices[v], &b);
        CHECK_NEAR(dot(y, dy, T * C), rmsnorm_loss(&p), 1e-5);
        // The slope of the short row is hundreds of times larger: each row by its own scale.
        check_slopes("dx, first row", rmsnorm_loss, &p, p.x, dx, C, 0, 5e-6);
        check_slopes("dx, other rows", rmsnorm_loss, &p, p.x + C, dx + C, (T - 1) * C, 0, 5e-6);
        check_slopes("dweight", rmsnorm_loss, &p, p.weight, dweight, C, 0, 5e-6);
    }
}

static void rmsnorm_slopes(void) { rmsnorm_slopes_of(false), rmsnorm_slopes_of(true); }

static void gate_slopes(Gate gate) {
    enum { T = 3, C = 21 };
    Random r = random_start(22, STREAM_TEST, 0);
    blocks_free();
    devices_open();
    float *gate_up = input("gate_up", T * 2 * C, &r, PLAIN), *dy = input("dy", T * C, &r, PLAIN);
    float *y = guarded("y", T * C * 4), *dgate_up = guarded("dgate_up", T * 2 * C * 4);
    for (int i = 0; i < T * 2 * C; i++) gate_up[i] *= 6;
    Rows p = {.T = T, .C = C, .gate = gate, .x = widened("gate_up", gate_up, T * 2 * C), .dy = widened("dy", dy, T * C)};
    SwigluArgs a = {.T = T, .F = C, .gate = gate, .gate_up = gate_up, .y = y};
    SwigluGradArgs b = {.T = T, .F = C, .gate = gate, .gate_up = gate_up, .dy = dy, .dgate_up = dgate_up};
    for (int v = 0; v < device_count; v++) {
        test_devices[v]->swiglu(test_devices[v], &a);
        test_devices[v]->swiglu_grad(test_devices[v], &b);
        CHECK_NEAR(dot(y, dy, T * C), swiglu_loss(&p), 1e-4);
        check_slopes("dgate_up", swiglu_loss, &p, p.x, dgate_up, T * 2 * C, 0, 2e-6);
    }
}

static void swiglu_slopes(void) { gate_slopes(GATE_SILU), gate_slopes(GATE_GELU_TANH); }

static const Test tests[] = {
    {"rows variants of this processor", variants},
    {"embedding bits", embed_bits},
    {"embedding gradient bits", embed_grad_bits},
    {"rmsnorm bits", rmsnorm_bits},
    {"rmsnorm gradient bits", rmsnorm_grad_bits},
    {"rmsnorm of heads bits", rmsnorm_heads},
    {"rmsnorm of heads gradient bits", rmsnorm_grad_heads},
    {"swiglu bits", swiglu_bits},
    {"swiglu gradient bits", swiglu_grad_bits},
    {"gather bits", gather_bits},
    {"move rows bits", move_rows_bits},
    {"scatter bits", scatter_bits},
    {"convert bits", convert_bits},
    {"convert rows that lie apart", convert_apart_bits},
    {"convert rounds to nearest even", convert_rounds_to_nearest_even},
    {"embedding slopes", embed_slopes},
    {"rmsnorm slopes", rmsnorm_slopes},
    {"swiglu slopes", swiglu_slopes},
};
OPS_TEST_MAIN(tests)
