// RoPE into pages and attention over them on a CUDA device, against the slow twin: RoPE to the bit, attention within the
// tolerances said below. And that a row has the same bits however it is computed (decoding, tiles of training, splits
// shared out or walked), alone or among others, in any order, over a shared prompt or its own; and a group the same
// gradients whichever other groups stand in the call.
//
// Pages hold NaN wherever no token was stored: nothing there may be used.
#include "cuda_test.h"
#include "../kernels/attention_test.h"

// fp32 differs by the order of sums and by exp. With bf16, weights (and in the backward pass dy) are rounded to 8 bits before
// the products: 2^-9 of each term, so errors are measured by the largest value of the array.
static double tolerance_of(Dtype dtype) { return dtype == DTYPE_F32 ? 3e-6 : 1.2e-2; }

static const Heads all_heads[] = {{2, 1, 8},  {4, 2, 10}, {2, 1, 16},  {3, 1, 24},  {16, 1, 32}, {7, 1, 64},
                                  {2, 2, 80}, {3, 1, 96}, {2, 1, 128}, {20, 1, 16}, {1, 1, 200}, {2, 1, 256}};
static const Group groups_small[] = {{5, 2, {3, 1, 0, 0}}, {32, 1, {2, 0, 0, 0}}};
static const Group groups_large[] = {{40, 3, {30, 1, 26, 0}}, {1, 0, {0}}, {64, 2, {33, 9, 0, 0}}};
static const Group groups_long[] = {{250, 2, {20, 7, 0, 0}}};  // beyond one split
static const Group groups_longer[] = {{520, 1, {9, 0, 0, 0}}}; // and beyond two

typedef enum Input { FINE, STAINED } Input;
static const char *input_name(Input i) { return i == FINE ? "plain" : "with infinities and NaN"; }

static RopeArgs rope_args(const Layout *l, const Heads *h, Dtype dtype, Random *r, Temper temper) {
    RopeArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .position = l->position,
                  .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(MAX_ROWS, h->D), .rotary = any_rotary(r, h->D)};
    a.qkv = input("qkv", l->T * (h->heads + 2 * h->kv_heads) * h->D, r, temper);
    return a;
}
#define CASE_FORMAT "T %d heads %d/%d D %d %s %s"
#define CASE_OF(name) (int)l->T, h->heads, h->kv_heads, h->D, dtype_name(dtype), name

// ---- RoPE ------------------------------------------------------------------------------------------------
typedef void (*RopeCase)(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper);
static void each_rope(uint64_t seed, RopeCase run) {
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(all_heads); i++)
        for (int k = 0; k < 6; k++) {
            if ((i + k) % 2) continue;
            if (cuda_spared()) continue;
            cuda_case();
            Layout l = (i + k) % 3 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
            run(&r, &l, &all_heads[i], (Dtype)(k / 3), (Temper)(k % 3));
        }
}
// To the bit, but for numbers below the normal range, which the host's side flushes to zero.
static void exact(const void *array) { tolerate(array, 5e-38, 0); }
static void rope_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    RopeArgs a = rope_args(l, h, dtype, r, temper);
    a.q = output("q", l->T * h->heads * h->D, kind_of(dtype));
    a.pages = output("pages", l->pages * page_elements(h->kv_heads, h->D), kind_of(dtype));
    exact(a.q), exact(a.pages);
    COMPARE_CUDA(rope, &a, CASE_FORMAT, CASE_OF(temper_name(temper)));
}
static void rope_bits(void) { each_rope(1, rope_case); }

static void rope_grad_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    RopeGradArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .position = l->position,
                      .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(MAX_ROWS, h->D), .rotary = any_rotary(r, h->D)};
    a.dq = input("dq", l->T * h->heads * h->D, r, temper);
    a.dpages = input("dpages", l->pages * page_elements(h->kv_heads, h->D), r, temper);
    a.dqkv = output("dqkv", l->T * (h->heads + 2 * h->kv_heads) * h->D, kind_of(dtype));
    if (temper == HOSTILE || h->D == 24) exact(a.dqk = output("dqk", l->T * (h->heads + h->kv_heads) * h->D, KIND_F32));
    exact(a.dqkv);
    COMPARE_CUDA(rope_grad, &a, CASE_FORMAT, CASE_OF(temper_name(temper)));
}
static void rope_grad_bits(void) { each_rope(2, rope_grad_case); }

// ---- attention, near the slow twin -------------------------------------------------------------------------
static void *empty_pages(const Layout *l, const Heads *h, Dtype dtype) {
    int64_t count = l->pages * page_elements(h->kv_heads, h->D), padded = head_padded(h->D);
    void *pages = guarded("pages", (size_t)count * dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        // The columns that pad D are zero, as the layout says.
        int64_t in_head = i % (2 * PAGE * padded), d = in_head < PAGE * padded ? in_head / PAGE : in_head % padded;
        float value = d < h->D ? NAN : 0.0f;
        if (dtype == DTYPE_F32)
            ((float *)pages)[i] = value;
        else
            ((bf16 *)pages)[i] = float_bf16(value);
    }
    return pages;
}
static int32_t last_position(const Layout *l) {
    int32_t last = 0;
    for (int64_t t = 0; t < l->T; t++) last = l->position[t] > last ? l->position[t] : last;
    return last;
}

// Queries and pages of random rows. Stained: a few rows have an infinity or a NaN in a query, a key or a value, among them
// one in the middle of a page, which only the later rows of the page may feel.
static AttentionArgs attention_args(const Layout *l, const Heads *h, Dtype dtype, Random *r, Input kind) {
    AttentionArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .scale = 1.0f / sqrtf((float)h->D),
                       .position = l->position, .table_start = l->table_start, .table = l->table, .max_position = last_position(l), .window = any_window(r)};
    RopeArgs rope = rope_args(l, h, dtype, r, PLAIN);
    float *qkv = (float *)(uintptr_t)rope.qkv;
    int64_t columns = (h->heads + 2 * h->kv_heads) * h->D;
    if (kind == STAINED) {
        static const float stains[] = {INFINITY, NAN, -INFINITY, INFINITY};
        for (int i = 0; i < 4; i++) {
            int64_t head = i == 0 ? 0 : i == 1 ? h->heads : h->heads + h->kv_heads; // a query, a key, two values
            int64_t t = i == 3 ? l->T / 2 : (int64_t)random_below(r, (uint32_t)l->T);
            qkv[t * columns + head * h->D + random_below(r, (uint32_t)h->D)] = stains[i];
        }
    }
    int64_t count = l->T * h->heads * h->D;
    rope.q = guarded("q", (size_t)count * dtype_size(dtype));
    rope.pages = empty_pages(l, h, dtype);
    reference_device->rope(reference_device, &rope);
    a.q = rope.q, a.pages = rope.pages;
    return a;
}

static double largest_of(const void *p, int64_t count, Dtype dtype) {
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = fabs((double)act_value(p, i, dtype));
        if (isfinite(x) && x > largest) largest = x;
    }
    return largest;
}

static void attention_window_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Input kind, int32_t window) {
    AttentionArgs a = attention_args(l, h, dtype, r, kind);
    a.window = window;
    a.y = output("y", l->T * h->heads * h->D, kind_of(dtype));
    tolerate(a.y, tolerance_of(dtype), 0); // values are at most sqrt(2)
    a.lse = output("lse", l->T * h->heads, KIND_F32);
    tolerate(a.lse, 5e-6, 1e-6);
    for (a.max_run = 0; a.max_run < 2; a.max_run++)
        COMPARE_CUDA(attention, &a, CASE_FORMAT " run %d", CASE_OF(input_name(kind)), a.max_run);
    if (h->D > 32) return;
    a.lse = NULL, a.max_position += 300;
    COMPARE_CUDA(attention, &a, CASE_FORMAT " no lse", CASE_OF(input_name(kind)));
}
static void attention_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Input kind) {
    attention_window_case(r, l, h, dtype, kind, any_window(r));
}
static void attention_near(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(all_heads); i++)
        for (int k = 0; k < 4; k++) {
            if ((i + k) % 2) continue;
            if (cuda_spared()) continue;
            cuda_case();
            Layout l = (i + k) % 4 || all_heads[i].heads * all_heads[i].D > 200 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
            attention_case(&r, &l, &all_heads[i], (Dtype)(k / 2), (Input)(k % 2));
        }
}
static void attention_splits_near(void) {
    static const Heads heads[] = {{1, 1, 8}, {2, 1, 32}, {1, 1, 136}, {1, 1, 8}, {1, 1, 8}, {2, 1, 16}, {1, 1, 8}};
    static const int32_t windows[] = {0, 0, 0, 0, 300, 200, 40};
    Random r = random_start(4, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(heads); i++) {
        if (cuda_spared()) continue;
        cuda_case();
        Layout l = i == 0 || i >= 4 ? layout_of(groups_longer, 1) : layout_of(groups_long, 1);
        attention_window_case(&r, &l, &heads[i], i == 3 || i == 6 ? DTYPE_F32 : DTYPE_BF16, (Input)(i % 2), windows[i]);
    }
}

// A page whose scores are all minus infinity: in the first page it is a softmax over nothing, later it adds nothing.
static void hidden_pages(void) {
    static const Heads h = {1, 1, 8};
    for (int k = 0; k < 4; k++) {
        Random r = random_start(5, STREAM_TEST, (uint64_t)k);
        if (cuda_spared()) continue;
        cuda_case();
        Layout l = layout_of(groups_long, 1);
        Dtype dtype = (Dtype)(k / 2);
        AttentionArgs a = attention_args(&l, &h, dtype, &r, FINE);
        a.window = 0;
        int first = k % 2 ? 0 : 256, count = k % 2 ? 32 : 14; // position 256 begins the second split
        for (int64_t i = 0; i < l.T * h.D; i++)
            if (i % h.D == 0) {
                if (dtype == DTYPE_F32)
                    ((float *)(uintptr_t)a.q)[i] = 1;
                else
                    ((bf16 *)(uintptr_t)a.q)[i] = float_bf16(1);
            }
        for (int p = first; p < first + count; p++) {
            int64_t at = l.table[l.table_start[l.T - 8] + p / PAGE] * page_elements(1, h.D) + p % PAGE;
            if (dtype == DTYPE_F32)
                ((float *)(uintptr_t)a.pages)[at] = -INFINITY;
            else
                ((bf16 *)(uintptr_t)a.pages)[at] = float_bf16(-INFINITY);
        }
        a.y = output("y", l.T * h.D, kind_of(dtype));
        a.lse = output("lse", l.T, KIND_F32);
        tolerate(a.y, tolerance_of(dtype), 0), tolerate(a.lse, 5e-6, 1e-6);
        for (a.max_run = 0; a.max_run < 2; a.max_run++) COMPARE_CUDA(attention, &a, "hidden from %d, %s run %d", first, dtype_name(dtype), a.max_run);
    }
}

// ---- a row's bits ------------------------------------------------------------------------------------------
// Rows [from, from + count) of `a`, in place.
static AttentionArgs rows_of(const AttentionArgs *a, int64_t from, int64_t count) {
    AttentionArgs part = *a;
    size_t row = (size_t)(a->heads * a->D) * dtype_size(a->dtype);
    part.T = count;
    part.q = (const char *)a->q + (size_t)from * row, part.y = (char *)a->y + (size_t)from * row;
    part.position += from, part.table_start += from, part.lse += from * a->heads;
    return part;
}
static void same_rows(const AttentionArgs *a, const void *y, const float *lse, const char *what) {
    same_bits(a->y, y, a->T * a->heads * a->D, kind_of(a->dtype), what);
    same_bits(a->lse, lse, a->T * a->heads, KIND_F32, what);
}

static void rows_stand_alone(void) {
    static const Heads heads[] = {{3, 1, 24}, {7, 1, 64}, {2, 2, 128}, {1, 1, 256}};
    Random r = random_start(6, STREAM_TEST, 0);
    for (int i = 0; i < 8; i++) { // the last two: windows that begin in a later split
        if (cuda_spared()) continue;
        cuda_case();
        const Heads *h = &heads[i < 6 ? i % 4 : 0];
        Dtype dtype = i == 4 ? DTYPE_F32 : DTYPE_BF16;
        const Layout layout = i == 0 || i == 6 ? layout_of(groups_long, 1) : i == 7 ? layout_of(groups_longer, 1) : layout_of(groups_large, 3), *l = &layout;
        static const int32_t windows[] = {0, 33, 9, 0, 40, 0, 130, 300};
        AttentionArgs a = attention_args(l, h, dtype, &r, i == 5 ? STAINED : FINE);
        a.window = windows[i];
        int64_t count = l->T * h->heads * h->D, row = h->heads * h->D;
        size_t size = dtype_size(dtype);
        a.y = output("y", count, kind_of(dtype)), a.lse = output("lse", l->T * h->heads, KIND_F32);
        ON_CUDA(attention, &a, CASE_FORMAT, CASE_OF("in tiles"));
        void *y = malloc((size_t)count * size), *q = malloc((size_t)count * size), *turned_y = malloc((size_t)count * size);
        float *lse = malloc((size_t)(l->T * h->heads) * 4);
        memcpy(y, a.y, (size_t)count * size), memcpy(lse, a.lse, (size_t)(l->T * h->heads) * 4);
        a.max_run = 1;
        ON_CUDA(attention, &a, CASE_FORMAT, CASE_OF("as decoding"));
        same_rows(&a, y, lse, "all rows decoded, beside tiles");
        // The ends, where rows see most: few rows share their splits out; in tiles; with a bound that is too large.
        static const int counts[] = {1, 7, 64};
        for (int c = 0; c < 3; c++)
            for (int run = 0; run < 2; run++) {
                int64_t from = l->T - counts[c];
                memset((char *)a.y + (size_t)(from * row) * size, 0xa5, (size_t)(counts[c] * row) * size);
                AttentionArgs part = rows_of(&a, from, counts[c]);
                part.max_run = run, part.max_position += c == 1 ? 700 : 0;
                if (run == 1 && counts[c] == 64) continue;
                ON_CUDA(attention, &part, CASE_FORMAT " the last %d, run %d", CASE_OF("part"), counts[c], run);
                same_rows(&a, y, lse, "some rows, beside all");
            }
        // Backwards: no two rows in succession have positions that rise, and runs have other ends.
        int32_t *position = (int32_t *)(uintptr_t)a.position, *start = (int32_t *)(uintptr_t)a.table_start;
        memcpy(q, a.q, (size_t)count * size);
        for (int64_t t = 0; t < l->T; t++) memcpy((char *)(uintptr_t)a.q + (size_t)((l->T - 1 - t) * row) * size, (char *)q + (size_t)(t * row) * size, (size_t)row * size);
        for (int64_t t = 0; t < l->T / 2; t++) {
            int32_t p = position[t], s = start[t];
            position[t] = position[l->T - 1 - t], start[t] = start[l->T - 1 - t];
            position[l->T - 1 - t] = p, start[l->T - 1 - t] = s;
        }
        a.max_run = 0;
        ON_CUDA(attention, &a, CASE_FORMAT, CASE_OF("backwards"));
        for (int64_t t = 0; t < l->T; t++) memcpy((char *)turned_y + (size_t)((l->T - 1 - t) * row) * size, (char *)a.y + (size_t)(t * row) * size, (size_t)row * size);
        same_bits(turned_y, y, count, kind_of(dtype), "rows backwards");
        free(y), free(q), free(turned_y), free(lse);
    }
}

// A completion that continues a shared prompt has the bits of the same tokens in a sequence of its own.
static void shared_prompt_equals_own_copy(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    static const Group shared[] = {{40, 2, {30, 7, 0, 0}}}, own[] = {{70, 0, {0}}, {47, 0, {0}}};
    static const Heads h = {4, 2, 24};
    for (int d = 0; d < 2; d++) {
        cuda_case();
        Dtype dtype = (Dtype)d;
        Layout l[2] = {layout_of(shared, 1), layout_of(own, 2)};
        // Rows of the second: prompt, first completion, prompt again, second completion.
        int64_t columns = (h.heads + 2 * h.kv_heads) * h.D, row = h.heads * h.D;
        int from[117];
        for (int t = 0; t < 117; t++) from[t] = t < 70 ? t : t < 110 ? t - 70 : t - 40;
        RopeArgs rope[2] = {rope_args(&l[0], &h, dtype, &r, PLAIN), rope_args(&l[1], &h, dtype, &r, PLAIN)};
        rope[1].rotary = rope[0].rotary;
        for (int t = 0; t < 117; t++) memcpy((float *)(uintptr_t)rope[1].qkv + t * columns, rope[0].qkv + from[t] * columns, (size_t)columns * 4);
        void *y[2];
        for (int k = 0; k < 2; k++) {
            rope[k].q = output("q", l[k].T * row, kind_of(dtype));
            rope[k].pages = output("pages", l[k].pages * page_elements(h.kv_heads, h.D), kind_of(dtype));
            memset(rope[k].pages, 0, (size_t)(l[k].pages * page_elements(h.kv_heads, h.D)) * dtype_size(dtype));
            y[k] = output("y", l[k].T * row, kind_of(dtype));
            ON_CUDA(rope, &rope[k], "shared prompt %d", k);
            AttentionArgs a = {.T = l[k].T, .heads = h.heads, .kv_heads = h.kv_heads, .D = h.D, .dtype = dtype, .scale = 0.2f, .q = rope[k].q,
                               .position = l[k].position, .table_start = l[k].table_start, .table = l[k].table, .pages = rope[k].pages,
                               .y = y[k], .max_position = 69, .max_run = k};
            ON_CUDA(attention, &a, "shared prompt %d", k);
        }
        size_t bytes = (size_t)row * dtype_size(dtype);
        for (int t = 0; t < 117; t++)
            if (memcmp((char *)y[1] + (size_t)t * bytes, (char *)y[0] + (size_t)from[t] * bytes, bytes) != 0)
                FAIL("%s: row %d differs from row %d of the shared prompt's group", dtype_name(dtype), t, from[t]);
    }
}

// ---- gradients -------------------------------------------------------------------------------------------
// Which rows see each page.
static void row_ranges(const Layout *l, AttentionGradArgs *b) {
    int32_t *first = guarded("page_first_row", (size_t)l->pages * 4), *last = guarded("page_last_row", (size_t)l->pages * 4);
    for (int p = 0; p < l->pages; p++) first[p] = (int32_t)l->T, last[p] = -1;
    for (int32_t t = 0; t < l->T; t++)
        for (int c = 0; c * PAGE <= l->position[t]; c++) {
            int32_t page = l->table[l->table_start[t] + c];
            if (t < first[page]) first[page] = t;
            last[page] = t;
        }
    b->page_first_row = first, b->page_last_row = last, b->page_count = l->pages;
}
static AttentionGradArgs grad_args(const Layout *l, const Heads *h, Dtype dtype, Random *r, Input kind) {
    AttentionGradArgs b = {.forward = attention_args(l, h, dtype, r, kind), .unit_count = l->units, .unit = l->unit, .unit_page = l->unit_page};
    int64_t count = l->T * h->heads * h->D;
    b.forward.y = guarded("y", (size_t)count * dtype_size(dtype));
    b.forward.lse = guarded("lse", (size_t)(l->T * h->heads) * 4);
    reference_device->attention(reference_device, &b.forward);
    float *dy = input("dy", count, r, PLAIN);
    if (kind == STAINED) dy[random_below(r, (uint32_t)count)] = INFINITY;
    b.dy = dy;
    b.dq = output("dq", count, KIND_F32);
    b.dpages = output("dpages", l->pages * page_elements(h->kv_heads, h->D), KIND_F32);
    b.delta = work_area("delta", (size_t)(l->T * h->heads) * 4);
    row_ranges(l, &b);
    return b;
}
static void grad_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Input kind) {
    AttentionGradArgs b = grad_args(l, h, dtype, r, kind);
    int64_t count = l->T * h->heads * h->D, pages = l->pages * page_elements(h->kv_heads, h->D);
    // How large they are, before the tolerance is said.
    reference_device->attention_grad(reference_device, &b);
    tolerate(b.dq, 1e-6 + tolerance_of(dtype) * largest_of(b.dq, count, DTYPE_F32), 0); // a window of one leaves noise
    tolerate(b.dpages, 1e-6 + tolerance_of(dtype) * largest_of(b.dpages, pages, DTYPE_F32), 0);
    for (int64_t i = 0; i < count; i++) b.dq[i] = 7;
    for (int64_t i = 0; i < pages; i++) b.dpages[i] = 7;
    COMPARE_CUDA(attention_grad, &b, CASE_FORMAT, CASE_OF(input_name(kind)));
}
static void grad_near(void) {
    Random r = random_start(8, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(all_heads); i++)
        for (int k = 0; k < 4; k++) {
            if ((i + k) % 2) continue;
            if (cuda_spared()) continue;
            cuda_case();
            Layout l = (i + k) % 4 || all_heads[i].heads * all_heads[i].D > 200 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
            grad_case(&r, &l, &all_heads[i], (Dtype)(k / 2), (Input)(k % 2));
        }
}
// More rows than one window of the kernel that sums over rows.
static void grad_windows_near(void) {
    Random r = random_start(9, STREAM_TEST, 0);
    static const Heads h = {1, 1, 8};
    for (int k = 0; k < 2; k++) {
        cuda_case();
        Layout l = layout_of(groups_longer, 1);
        grad_case(&r, &l, &h, DTYPE_BF16, (Input)k);
    }
}

static void groups_are_independent(void) {
    Random r = random_start(10, STREAM_TEST, 0);
    static const Heads h = {6, 2, 24};
    for (int d = 0; d < 2; d++) {
        cuda_case();
        Dtype dtype = (Dtype)d;
        Layout l = layout_of(groups_large, 3);
        AttentionGradArgs b = grad_args(&l, &h, dtype, &r, FINE);
        int64_t row = h.heads * h.D, count = l.T * row, page = page_elements(h.kv_heads, h.D);
        size_t size = dtype_size(dtype);
        ON_CUDA(attention_grad, &b, "all groups, %s", dtype_name(dtype));
        float *dq = output("dq of groups", count, KIND_F32), *dpages = output("dpages of groups", l.pages * page, KIND_F32);
        int32_t *table = guarded("table of a group", (size_t)l.tables * 4), *first_row = guarded("first rows", (size_t)l.pages * 4);
        int32_t *last_row = guarded("last rows", (size_t)l.pages * 4), *unit = guarded("a unit", 8), *unit_page = guarded("its pages", 8);
        for (int u = 0; u < l.units; u++) {
            AttentionGradArgs part = b;
            AttentionArgs *f = &part.forward;
            int32_t t = l.unit[u], first = l.unit_page[u];
            unit[0] = 0, unit[1] = l.unit[u + 1] - t, unit_page[0] = 0, unit_page[1] = l.unit_page[u + 1] - first;
            for (int i = 0; i < l.tables; i++) table[i] = l.table[i] - first; // pages numbered from the group's first
            for (int i = 0; i < unit_page[1]; i++) first_row[i] = b.page_first_row[first + i] - t, last_row[i] = b.page_last_row[first + i] - t;
            f->T = unit[1], f->position += t, f->table_start += t, f->table = table;
            f->q = (const char *)f->q + (size_t)(t * row) * size, f->y = (char *)f->y + (size_t)(t * row) * size, f->lse += t * h.heads;
            f->pages = (const char *)f->pages + (size_t)(first * page) * size;
            part.unit_count = 1, part.unit = unit, part.unit_page = unit_page;
            part.page_first_row = first_row, part.page_last_row = last_row, part.page_count = unit_page[1];
            part.dy += t * row, part.delta += t * h.heads, part.dq = dq + t * row, part.dpages = dpages + first * page;
            ON_CUDA(attention_grad, &part, "group %d, %s", u, dtype_name(dtype));
        }
        same_bits(dq, b.dq, count, KIND_F32, "dq of a group alone");
        same_bits(dpages, b.dpages, l.pages * page, KIND_F32, "dpages of a group alone");
    }
}

static void nothing_to_do(void) {
    cuda_case();
    AttentionArgs a = {.heads = 2, .kv_heads = 1, .D = 16, .dtype = DTYPE_BF16, .scale = 1};
    AttentionGradArgs b = {.forward = a};
    RopeArgs rope = {.heads = 2, .kv_heads = 1, .D = 16, .dtype = DTYPE_BF16};
    RopeGradArgs rope_grad = {.heads = 2, .kv_heads = 1, .D = 16};
    ON_CUDA(attention, &a, "no rows");
    ON_CUDA(attention_grad, &b, "no rows");
    ON_CUDA(rope, &rope, "no rows");
    ON_CUDA(rope_grad, &rope_grad, "no rows");
}

static const Test tests[] = {
    {"cuda rope bits", rope_bits},
    {"cuda rope gradient bits", rope_grad_bits},
    {"cuda attention", attention_near},
    {"cuda attention beyond a split", attention_splits_near},
    {"cuda attention hidden pages", hidden_pages},
    {"cuda attention rows stand alone", rows_stand_alone},
    {"cuda attention shared prompt equals own copy", shared_prompt_equals_own_copy},
    {"cuda attention gradient", grad_near},
    {"cuda attention gradient over windows", grad_windows_near},
    {"cuda attention groups are independent", groups_are_independent},
    {"cuda attention nothing to do", nothing_to_do},
};
CUDA_TEST_MAIN(tests)
