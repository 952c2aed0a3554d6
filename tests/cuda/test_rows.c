// Operations on rows of tokens on a CUDA device, against the slow twin: elementwise ones and those that add in ascending
// order to the bit, RMSNorm within the tolerances said beside it. And that no bit depends on how many rows there are, or
// on where microbatches are cut.
#include "cuda_test.h"

static const int64_t widths[] = {1, 7, 8, 19, 64, 100, 264, 2056};
static const int64_t row_counts[] = {1, 3, 17, 65};

typedef void (*Case)(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper);

// A third of all shapes, precisions and tempers; wide rows only few at a time.
static void each_shape(uint64_t seed, Case run) {
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int w = 0; w < LENGTH(widths); w++)
        for (int c = 0; c < LENGTH(row_counts); c++)
            for (int k = 0; k < 6; k++) {
                if ((w + c + k) % 3 || widths[w] * row_counts[c] > 20000) continue;
                cuda_case();
                run(&r, row_counts[c], widths[w], (Dtype)(k % 2), (Temper)(k / 2));
            }
}
#define COMPARE_SHAPE(name, args)                                                                            \
    COMPARE_CUDA(name, args, "T %d C %d %s %s", (int)T, (int)C, dtype_name(dtype), temper_name(temper))

static void fill(float *y, int64_t count, Random *r, Temper temper) {
    for (int64_t i = 0; i < count; i++) y[i] = any_float(r, temper);
}

// ---- to the bit ------------------------------------------------------------------------------------------
static void embed_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { V = 70 };
    EmbedArgs a = {.T = T, .C = C, .dtype = dtype, .tokens = input_ids("tokens", T, r, V)};
    a.table = weights("table", input("w", V * C, r, temper), V, C, dtype, false);
    a.y = output("y", T * C, KIND_F32);
    if (T % 2) a.scale = 7.5f;
    COMPARE_SHAPE(embed, &a);
}
static void embed_bits(void) { each_shape(1, embed_case); }

static void embed_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { V = 9 }; // tokens repeat
    EmbedGradArgs a = {.T = T, .C = C, .tokens = input_ids("tokens", T, r, V), .dy = input("dy", T * C, r, temper)};
    fill(a.dtable = output("dtable", V * C, KIND_F32), V * C, r, temper);
    if (T % 2) a.scale = 7.5f;
    COMPARE_SHAPE(embed_grad, &a);
}
static void embed_grad_bits(void) { each_shape(2, embed_grad_case); }

static void swiglu_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    SwigluArgs a = {.T = T, .F = C, .dtype = dtype, .gate_up = input_act("gate_up", T * 2 * C, dtype, r, temper)};
    a.y = output("y", T * C, kind_of(dtype));
    a.gate = T % 2 ? GATE_GELU_TANH : GATE_SILU;
    COMPARE_SHAPE(swiglu, &a);
}
static void swiglu_bits(void) { each_shape(3, swiglu_case); }

static void swiglu_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    SwigluGradArgs a = {.T = T, .F = C, .dtype = dtype, .gate_up = input_act("gate_up", T * 2 * C, dtype, r, temper)};
    a.dy = input("dy", T * C, r, temper == HOSTILE ? PLAIN : temper);
    a.dgate_up = output("dgate_up", T * 2 * C, kind_of(dtype));
    a.gate = T % 2 ? GATE_GELU_TANH : GATE_SILU;
    COMPARE_SHAPE(swiglu_grad, &a);
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(swiglu_grad, &a);
}
static void swiglu_grad_bits(void) { each_shape(4, swiglu_grad_case); }

// Gates that reach where exp saturates.
static void swiglu_saturates(void) {
    static const float gates[] = {-1000, -89, -88.5f, -88, -87.5f, -87, -30, -1e-30f, 0, 30, 87, 88, 89, 1000};
    enum { F = LENGTH(gates) };
    cuda_case();
    float *gate_up = output("gate_up", 2 * F, KIND_F32);
    for (int i = 0; i < F; i++) gate_up[i] = gates[i], gate_up[F + i] = 1.5f;
    mirror_of(gate_up)->role = ROLE_WORK;
    SwigluArgs a = {.T = 1, .F = F, .gate_up = gate_up, .y = output("y", F, KIND_F32)};
    COMPARE_CUDA(swiglu, &a, "saturated gates");
}

static void gather_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    GatherArgs a = {.T = T, .C = C, .dtype = dtype, .row = input_ids("row", T, r, 11)};
    a.x = input_act("x", 11 * C, dtype, r, temper);
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(gather, &a);
}
static void gather_bits(void) { each_shape(5, gather_case); }

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
static void move_rows_bits(void) { each_shape(25, move_rows_case); }

static void scatter_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ScatterArgs a = {.T = T, .C = C, .row = input_ids("row", T, r, 11), .x = input("x", T * C, r, temper)};
    fill(a.y = output("y", 11 * C, KIND_F32), 11 * C, r, temper);
    COMPARE_SHAPE(scatter, &a);
}
static void scatter_bits(void) { each_shape(6, scatter_case); }

static void convert_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ConvertArgs a = {.count = T * C, .dtype = dtype, .x = input("x", T * C, r, temper)};
    a.y = output("y", T * C, kind_of(dtype));
    COMPARE_SHAPE(convert, &a);
}
static void convert_bits(void) { each_shape(7, convert_case); }
static void convert_apart_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    ConvertArgs a = {.count = T * C, .dtype = dtype, .x = input("x", T * C, r, temper), .columns = C, .ldy = C + (C % 8 ? 5 : 8)};
    a.y = output("y", T * a.ldy, kind_of(dtype));
    memset(a.y, 0, (size_t)(T * a.ldy) * dtype_size(dtype));
    COMPARE_SHAPE(convert, &a);
}
static void convert_apart_bits(void) { each_shape(7, convert_apart_case); }

// Every rounding: halves go to the even neighbour, overflow to infinity, NaN stays NaN. Eight at a time and one at a time.
static void convert_rounds_to_nearest_even(void) {
    static const uint32_t from[] = {0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800000, 0xff800000,
                                    0x7f800001, 0x7fffffff, 0xffffffff, 0x80000000, 0x00018000, 0x00008000, 0x00000001, 0x3f017fff};
    cuda_case();
    float *x = output("x", LENGTH(from), KIND_F32);
    memcpy(x, from, sizeof from);
    mirror_of(x)->role = ROLE_WORK;
    ConvertArgs a = {.count = LENGTH(from), .dtype = DTYPE_BF16, .x = x, .y = output("y", LENGTH(from), KIND_BF16)};
    COMPARE_CUDA(convert, &a, "roundings");
    a.x++, a.count--; // off the boundary of 16 bytes
    COMPARE_CUDA(convert, &a, "roundings, one by one");
}

// Lists that overflow, a target with thousands of sources, targets with one each: the chain is the twin's.
static void scatter_lists(void) {
    static const uint32_t bounds[] = {1, 3, 700, 1 << 20};
    enum { T = 4500, C = 5 };
    for (int k = 0; k < LENGTH(bounds); k++) {
        Random r = random_start(8, STREAM_TEST, (uint64_t)k);
        cuda_case();
        int64_t rows = bounds[k] < T ? bounds[k] : T;
        int32_t *row = input_ids("row", T, &r, (uint32_t)rows);
        if (bounds[k] > T) // all different, in no order
            for (int i = 0; i < T; i++) row[i] = (int32_t)((int64_t)i * 1013 % T);
        ScatterArgs a = {.T = T, .C = C, .row = row, .x = input("x", T * C, &r, PLAIN), .y = output("y", rows * C, KIND_F32)};
        fill(a.y, rows * C, &r, PLAIN);
        COMPARE_CUDA(scatter, &a, "%d sources for %d rows", T, (int)rows);
    }
}

// ---- RMSNorm ---------------------------------------------------------------------------------------------
// The sum of squares goes in another order than the twin's: a relative 2e-6 of each fp32 result. A bf16 result may be
// rounded to the neighbour: 2^-7 of it at most.
static void rmsnorm_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    RmsnormArgs a = {.T = T, .C = C, .dtype = dtype, .eps = 1e-5f};
    a.x = input("x", T * C, r, temper);
    a.weight = input("weight", C, r, temper == HOSTILE ? PLAIN : temper);
    a.y = output("y", T * C, kind_of(dtype));
    tolerate(a.y, 1e-38, dtype == DTYPE_F32 ? 2e-6 : 0x1p-7);
    if (T != 3) tolerate(a.rstd = output("rstd", T, KIND_F32), 0, 2e-6);
    COMPARE_SHAPE(rmsnorm, &a);
}
static void rmsnorm_near(void) { each_shape(10, rmsnorm_case); }

// The heads of q within rows of q, k, v: normed in place, and added to another array.
static void rmsnorm_heads_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { HEADS = 3 };
    int64_t ld = HEADS * C + (T % 3 ? 5 : 8);
    if (temper == ROUGH) temper = PLAIN;
    RmsnormArgs a = {.T = T, .C = C, .heads = HEADS, .ldx = ld, .ldy = ld, .dtype = dtype, .eps = 1e-5f, .offset = C % 2};
    a.weight = input("weight", C, r, PLAIN);
    float *y = output("y", T * ld, KIND_F32);
    fill(y, T * ld, r, temper);
    tolerate(y, 2e-6, 2e-6);
    a.y = y;
    tolerate(a.rstd = output("rstd", T * HEADS, KIND_F32), 0, 2e-6);
    a.store = T % 2 ? STORE_F32 : ADD_F32;
    a.x = a.store == STORE_F32 ? y : input("x", T * ld, r, temper);
    COMPARE_SHAPE(rmsnorm, &a);
}
static void rmsnorm_heads(void) { each_shape(13, rmsnorm_heads_case); }

// Terms are of size 1, so 5e-6 for dx, and for dweight 3e-7 for every token that is summed.
static void norm_grad_tolerate(const RmsnormGradArgs *a) {
    tolerate(a->dx, 5e-6, 1e-6);
    tolerate(a->dweight, 1e-6 + 3e-7 * (double)a->T, 0);
}
static RmsnormGradArgs norm_grad(Random *r, int64_t T, int64_t C, Temper temper, int count, const int32_t *start) {
    RmsnormGradArgs a = {.T = T, .C = C, .x = input("x", T * C, r, temper), .weight = input("weight", C, r, PLAIN)};
    a.rstd = input("rstd", T, r, PLAIN);
    a.dy = input("dy", T * C, r, PLAIN);
    fill(a.dx = output("dx", T * C, KIND_F32), T * C, r, PLAIN);
    fill(a.dweight = output("dweight", C, KIND_F32), C, r, PLAIN);
    a.segments = segments(count, start);
    norm_grad_tolerate(&a);
    return a;
}
static void rmsnorm_grad_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    if (temper == ROUGH) temper = PLAIN; // squares of 2^40 leave nothing to compare
    int32_t start[] = {0, (int32_t)(T / 3), (int32_t)(T / 3), (int32_t)T}; // one is empty
    RmsnormGradArgs a = norm_grad(r, T, C, temper, 3, start);
    COMPARE_SHAPE(rmsnorm_grad, &a);
}
static void rmsnorm_grad_near(void) { each_shape(11, rmsnorm_grad_case); }

static void rmsnorm_grad_heads_case(Random *r, int64_t T, int64_t C, Dtype dtype, Temper temper) {
    enum { HEADS = 3 };
    int64_t more = T % 3 ? 3 : 8, ld = HEADS * C + more;
    int32_t start[] = {0, (int32_t)(T / 3), (int32_t)T};
    if (temper == ROUGH) temper = PLAIN;
    RmsnormGradArgs a = {.T = T, .C = C, .heads = HEADS, .ldx = ld, .lddy = ld, .lddx = ld, .offset = C % 2, .written = true, .dtype = dtype,
                         .x = input("x", T * ld, r, temper), .weight = input("weight", C, r, PLAIN)};
    a.rstd = input("rstd", T * HEADS, r, PLAIN);
    a.dy = input("dy", T * ld, r, PLAIN);
    a.dx = output("dx", T * ld, kind_of(dtype));
    memset(a.dx, 0, (size_t)(T * ld) * dtype_size(dtype));
    fill(a.dweight = output("dweight", C, KIND_F32), C, r, PLAIN);
    a.segments = segments(2, start);
    tolerate(a.dx, 1e-5, dtype == DTYPE_F32 ? 1e-6 : 0x1p-7);
    tolerate(a.dweight, 1e-6 + 1e-6 * (double)T, 0);
    COMPARE_SHAPE(rmsnorm_grad, &a);
}
static void rmsnorm_grad_heads(void) { each_shape(14, rmsnorm_grad_heads_case); }

// More pieces than lanes, more segments than the scratch holds at once, a width whose sums don't fit shared memory.
static void rmsnorm_grad_limits(void) {
    static const struct {
        int T, C, segments;
    } cases[] = {{2300, 8, 1}, {600, 1000, 600}, {3, 24584, 2}};
    for (int k = 0; k < LENGTH(cases); k++) {
        Random r = random_start(12, STREAM_TEST, (uint64_t)k);
        int32_t start[601];
        cuda_case();
        for (int s = 0; s <= cases[k].segments; s++) start[s] = cases[k].T * s / cases[k].segments;
        RmsnormGradArgs a = norm_grad(&r, cases[k].T, cases[k].C, PLAIN, cases[k].segments, start);
        COMPARE_CUDA(rmsnorm_grad, &a, "T %d C %d, %d segments", cases[k].T, cases[k].C, cases[k].segments);
    }
}

// ---- no bit depends on the other rows --------------------------------------------------------------------
static void rmsnorm_rows_alone(void) {
    enum { T = 300 };
    static const int cuts[][2] = {{0, 1}, {299, 300}, {17, 24}, {100, 164}};
    for (int k = 0; k < 4; k++) {
        Random r = random_start(20, STREAM_TEST, (uint64_t)k);
        int64_t C = k / 2 ? 72 : 19;
        Dtype dtype = (Dtype)(k % 2);
        cuda_case();
        RmsnormArgs a = {.T = T, .C = C, .dtype = dtype, .eps = 1e-5f, .x = input("x", T * C, &r, PLAIN)};
        a.weight = input("weight", C, &r, PLAIN);
        unsigned char *y = output("y", T * C, kind_of(dtype)), whole[T * 72 * 4];
        size_t row = (size_t)C * dtype_size(dtype);
        memset(y, 0, T * row);
        a.y = y;
        ON_CUDA(rmsnorm, &a, "300 rows");
        memcpy(whole, y, T * row);
        for (int i = 0; i < LENGTH(cuts); i++) {
            RmsnormArgs part = a;
            part.T = cuts[i][1] - cuts[i][0];
            part.x += cuts[i][0] * C;
            memset(y, 0, T * row);
            ON_CUDA(rmsnorm, &part, "%d rows", (int)part.T);
            same_bits(y, whole + (size_t)cuts[i][0] * row, part.T * C, kind_of(dtype), "among 300 rows");
        }
    }
}

// The same gradient from one call, and from two that are cut between segments.
static void rmsnorm_grad_split(void) {
    enum { T = 150, C = 40 };
    static const int32_t start[] = {0, 9, 60, 61, 140, 150}, later[] = {0, 1, 80, 90};
    Random r = random_start(21, STREAM_TEST, 0);
    float dx[T * C], dweight[C], first_dx[T * C], first_dweight[C];
    cuda_case();
    RmsnormGradArgs a = norm_grad(&r, T, C, PLAIN, 5, start);
    memcpy(first_dx, a.dx, sizeof dx), memcpy(first_dweight, a.dweight, sizeof dweight);
    ON_CUDA(rmsnorm_grad, &a, "five segments");
    memcpy(dx, a.dx, sizeof dx), memcpy(dweight, a.dweight, sizeof dweight);
    memcpy(a.dx, first_dx, sizeof dx), memcpy(a.dweight, first_dweight, sizeof dweight);
    RmsnormGradArgs head = a, tail = a;
    head.T = 60, head.segments.count = 2;
    tail.T = T - 60, tail.x += 60 * C, tail.rstd += 60, tail.dy += 60 * C, tail.dx = (float *)tail.dx + 60 * C;
    tail.segments = segments(3, later);
    ON_CUDA(rmsnorm_grad, &head, "the first two segments");
    ON_CUDA(rmsnorm_grad, &tail, "the other three");
    same_bits(a.dx, dx, T * C, KIND_F32, "dx in two calls");
    same_bits(a.dweight, dweight, C, KIND_F32, "dweight in two calls");
}

static void embed_grad_split(void) {
    enum { T = 130, C = 24, V = 6 };
    Random r = random_start(22, STREAM_TEST, 0);
    float whole[V * C], start[V * C];
    cuda_case();
    EmbedGradArgs a = {.T = T, .C = C, .tokens = input_ids("tokens", T, &r, V), .dy = input("dy", T * C, &r, PLAIN)};
    fill(a.dtable = output("dtable", V * C, KIND_F32), V * C, &r, PLAIN);
    memcpy(start, a.dtable, sizeof start);
    ON_CUDA(embed_grad, &a, "130 rows");
    memcpy(whole, a.dtable, sizeof whole);
    memcpy(a.dtable, start, sizeof start);
    a.T = 37;
    ON_CUDA(embed_grad, &a, "the first 37");
    a.T = T - 37, a.tokens += 37, a.dy += 37 * C;
    ON_CUDA(embed_grad, &a, "the rest");
    same_bits(a.dtable, whole, V * C, KIND_F32, "dtable in two calls");
}

static void nothing_to_do(void) {
    Random r = random_start(23, STREAM_TEST, 0);
    cuda_case();
    int32_t *ids = input_ids("ids", 4, &r, 2), zero[] = {0};
    float *x = input("x", 8, &r, PLAIN), *y = output("y", 8, KIND_F32);
    fill(y, 8, &r, PLAIN);
    COMPARE_CUDA(embed, (&(EmbedArgs){.C = 4, .tokens = ids, .table = x, .y = y}), "no rows");
    COMPARE_CUDA(embed_grad, (&(EmbedGradArgs){.C = 4, .tokens = ids, .dy = x, .dtable = y}), "no rows");
    COMPARE_CUDA(rmsnorm, (&(RmsnormArgs){.C = 4, .x = x, .weight = x, .y = y}), "no rows");
    RmsnormGradArgs g = {.C = 4, .x = x, .weight = x, .rstd = x, .dy = x, .dx = y, .dweight = y, .segments = segments(0, zero)};
    COMPARE_CUDA(rmsnorm_grad, &g, "no rows");
    COMPARE_CUDA(swiglu, (&(SwigluArgs){.F = 4, .gate_up = x, .y = y}), "no rows");
    COMPARE_CUDA(swiglu_grad, (&(SwigluGradArgs){.F = 4, .gate_up = x, .dy = x, .dgate_up = y}), "no rows");
    COMPARE_CUDA(gather, (&(GatherArgs){.C = 4, .row = ids, .x = x, .y = y}), "no rows");
    COMPARE_CUDA(move_rows, (&(MoveRowsArgs){.count = 1, .arrays = {{4, x, y}}}), "no rows");
    COMPARE_CUDA(scatter, (&(ScatterArgs){.C = 4, .row = ids, .x = x, .y = y}), "no rows");
    COMPARE_CUDA(convert, (&(ConvertArgs){.x = x, .y = y}), "no numbers");
    COMPARE_CUDA(advance, (&(AdvanceArgs){.tokens = ids}), "no rows");
}

// ---- decoding --------------------------------------------------------------------------------------------
enum { ROWS = 133, STEPS = 3, PAGES = 4, MOST_KEPT = 90, KEPT_ROOM = 41 };
static void set_up(AdvanceArgs *a, int32_t *kept, Random *r) {
    for (int m = 0; m < ROWS; m++) {
        uint32_t kind = random_below(r, 6);
        a->state[m] = (DecodeRow){.key = random_key(7, STREAM_TOKENS), .step = 3, .prompt = random_below(r, 9), .sample = (uint32_t)m,
                                  .length = (int32_t)random_below(r, 5), .max_tokens = 6, .position = (int32_t)random_below(r, 120),
                                  .recorded = (int32_t)random_below(r, 3 * STEPS), .ignore_stop = kind == 1, .ended = kind == 0};
        if (a->state[m].position % 2) a->state[m].position = PAGE - 1; // the next one is on another page
        a->rows[m] = (SampleRow){.token = (int32_t)random_below(r, 8), .logprob = -any_float(r, PLAIN), .entropy = any_float(r, PLAIN),
                                 .uniform = random_double(r), .top_p = 1};
        if (a->kept_room == 0 || m % 4 == 0) continue;
        a->rows[m].kept = kept + (int64_t)m * MOST_KEPT;
        a->rows[m].kept_count = m % 4 == 1 ? a->kept_room + m % 8 / 4 : 1 + (int32_t)random_below(r, MOST_KEPT);
    }
}
static void check_state(const AdvanceArgs *a) {
    const DecodeRow *want = reference_of(a->state);
    const SampleRow *rows = reference_of(a->rows);
    int ended = 0;
    for (int m = 0; m < ROWS; m++) {
        const DecodeRow *got = &a->state[m];
        CHECK_INT(got->length, want[m].length);
        CHECK_INT(got->position, want[m].position);
        CHECK_INT(got->recorded, want[m].recorded);
        CHECK_INT(got->ended, want[m].ended);
        CHECK(memcmp(&got->key, &want[m].key, sizeof got->key) == 0 && got->step == 3 && got->prompt == want[m].prompt);
        CHECK(got->sample == (uint32_t)m && got->max_tokens == 6 && got->ignore_stop == want[m].ignore_stop);
        CHECK(memcmp(&a->rows[m].uniform, &rows[m].uniform, sizeof(double)) == 0); // the draw, to the bit
        CHECK_INT(a->rows[m].token, rows[m].token);
        ended += got->ended;
    }
    CHECK(ended > ROWS / 12 && ended < ROWS);
}
static void advance_bits(void) {
    Random r = random_start(30, STREAM_TEST, 0);
    cuda_case();
    AdvanceArgs a = {.M = ROWS, .table_stride = PAGES, .stop_count = 2};
    a.rows = work_area("rows", ROWS * sizeof(SampleRow));
    holds_pointers(a.rows);
    a.state = work_area("state", ROWS * sizeof(DecodeRow));
    a.table = input_ids("table", ROWS * PAGES, &r, 1000);
    int32_t *stop = input_ids("stop", 2, &r, 8);
    stop[1] = (stop[0] + 1) % 8;
    a.stop = stop;
    a.tokens = output("tokens", ROWS * 4, KIND_BYTES);
    a.position = output("position", ROWS * 4, KIND_BYTES);
    a.slot = output("slot", ROWS * 8, KIND_BYTES);
    a.record = output("record", STEPS * ROWS * (sizeof(DrawRecord) + KEPT_ROOM * 4), KIND_BYTES);
    int32_t *kept = work_area("kept", ROWS * MOST_KEPT * 4);
    for (int i = 0; i < ROWS * MOST_KEPT; i++) kept[i] = (int32_t)random_below(&r, 1000);
    a.ring = STEPS;
    set_up(&a, kept, &r);
    COMPARE_CUDA(advance, &a, "%d rows", ROWS);
    check_state(&a);
    a.stop_count = 0, a.stop = NULL;
    set_up(&a, kept, &r);
    COMPARE_CUDA(advance, &a, "no stop ids");
    check_state(&a);
    a.kept_room = KEPT_ROOM;
    set_up(&a, kept, &r);
    COMPARE_CUDA(advance, &a, "kept sets, room for %d ids", KEPT_ROOM);
    check_state(&a);
    for (int m = 0; m < ROWS; m++)
        if (a.rows[m].kept && a.rows[m].kept_count > KEPT_ROOM) CHECK(a.state[m].ended);
    a.kept_room = 0;
    a.tokens = NULL; // the host sets up the next pass
    set_up(&a, kept, &r);
    COMPARE_CUDA(advance, &a, "no next pass");
    check_state(&a);
}

static const Test tests[] = {
    {"cuda rows embedding bits", embed_bits},
    {"cuda rows embedding gradient bits", embed_grad_bits},
    {"cuda rows embedding gradient in two calls", embed_grad_split},
    {"cuda rows rmsnorm", rmsnorm_near},
    {"cuda rmsnorm of heads", rmsnorm_heads},
    {"cuda rmsnorm of heads gradient", rmsnorm_grad_heads},
    {"cuda rows rmsnorm of rows alone", rmsnorm_rows_alone},
    {"cuda rows rmsnorm gradient", rmsnorm_grad_near},
    {"cuda rows rmsnorm gradient at its limits", rmsnorm_grad_limits},
    {"cuda rows rmsnorm gradient in two calls", rmsnorm_grad_split},
    {"cuda rows swiglu bits", swiglu_bits},
    {"cuda rows swiglu gradient bits", swiglu_grad_bits},
    {"cuda rows swiglu saturates", swiglu_saturates},
    {"cuda rows gather bits", gather_bits},
    {"cuda rows move rows bits", move_rows_bits},
    {"cuda rows scatter bits", scatter_bits},
    {"cuda rows scatter, long lists", scatter_lists},
    {"cuda rows convert bits", convert_bits},
    {"cuda rows convert rows that lie apart", convert_apart_bits},
    {"cuda rows convert rounds to nearest even", convert_rounds_to_nearest_even},
    {"cuda rows nothing to do", nothing_to_do},
    {"cuda rows advance", advance_bits},
};
CUDA_TEST_MAIN(tests)
