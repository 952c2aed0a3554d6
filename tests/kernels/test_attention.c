// RoPE into pages and attention over them: the bits of every variant on packed groups that share prompt pages, rows that
// are the same alone and among others, and gradients through the whole of it.
#include "attention_test.h"

static const Heads all_heads[] = {{1, 1, 8}, {2, 1, 16}, {3, 1, 24}, {5, 1, 64}, {2, 2, 80}, {6, 2, 24}, {9, 3, 64}, {10, 2, 8}, {2, 1, 128}, {4, 2, 10}};
static const Group groups_small[] = {{5, 2, {3, 1, 0, 0}}, {32, 1, {2, 0, 0, 0}}};
static const Group groups_large[] = {{40, 3, {30, 1, 26, 0}}, {1, 0, {0}}, {64, 2, {33, 9, 0, 0}}};

static RopeArgs rope_args(const Layout *l, const Heads *h, Dtype dtype, Random *r, Temper temper) {
    RopeArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .position = l->position,
                  .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(160, h->D), .rotary = any_rotary(r, h->D)};
    a.qkv = input("qkv", l->T * (h->heads + 2 * h->kv_heads) * h->D, r, temper);
    return a;
}

// All heads, precisions and tempers, each over one of the layouts, with fresh buffers.
typedef void (*Case)(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper);
static void each_case(uint64_t seed, Case run) {
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(all_heads); i++)
        for (int k = 0; k < 6; k++) {
            blocks_free();
            Temper temper = (Temper)(k % 3);
            Layout l = (i + k) % 5 == 0 ? layout_of(groups_large, 3) : layout_of(groups_small, 2);
            run(&r, &l, &all_heads[i], (Dtype)(k / 3), temper);
        }
}
#define COMPARE_CASE(name, args)                                                                             \
    COMPARE(name, args, "T %d heads %d/%d D %d %s %s", (int)l->T, h->heads, h->kv_heads, h->D, dtype_name(dtype), temper_name(temper))

static void rope_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    RopeArgs a = rope_args(l, h, dtype, r, temper);
    a.q = output("q", l->T * h->heads * h->D, kind_of(dtype));
    a.pages = output("pages", l->pages * page_elements(h->kv_heads, h->D), kind_of(dtype));
    COMPARE_CASE(rope, &a);
}
static void rope_bits(void) { each_case(1, rope_case); }

static void rope_grad_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    RopeGradArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .position = l->position,
                      .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(160, h->D), .rotary = any_rotary(r, h->D)};
    a.dq = input("dq", l->T * h->heads * h->D, r, temper);
    a.dpages = input("dpages", l->pages * page_elements(h->kv_heads, h->D), r, temper);
    a.dqkv = output("dqkv", l->T * (h->heads + 2 * h->kv_heads) * h->D, kind_of(dtype));
    if (temper == HOSTILE || h->D == 24) a.dqk = output("dqk", l->T * (h->heads + h->kv_heads) * h->D, KIND_F32);
    COMPARE_CASE(rope_grad, &a);
}
static void rope_grad_bits(void) { each_case(2, rope_grad_case); }

// Queries, and pages that hold NaN wherever no token was stored: nothing there may be used.
static AttentionArgs attention_args(const Layout *l, const Heads *h, Dtype dtype, Random *r, Temper temper) {
    AttentionArgs a = {.T = l->T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .dtype = dtype, .scale = 1.0f / sqrtf((float)h->D),
                       .position = l->position, .table_start = l->table_start, .table = l->table, .window = any_window(r)};
    RopeArgs rope = rope_args(l, h, dtype, r, temper);
    int64_t count = l->pages * page_elements(h->kv_heads, h->D), D = h->D, padded = head_padded(D);
    void *pages = guarded("pages", (size_t)count * dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        // The columns that pad D are zero, as the layout says.
        int64_t in_head = i % (2 * PAGE * padded), d = in_head < PAGE * padded ? in_head / PAGE : in_head % padded;
        float value = d < D ? NAN : 0.0f;
        if (dtype == DTYPE_F32)
            ((float *)pages)[i] = value;
        else
            ((bf16 *)pages)[i] = float_bf16(value);
    }
    rope.q = guarded("q", (size_t)(l->T * h->heads * D) * dtype_size(dtype));
    rope.pages = pages;
    devices_open();
    reference_device->rope(reference_device, &rope);
    a.q = rope.q, a.pages = pages;
    return a;
}

static void attention_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    AttentionArgs a = attention_args(l, h, dtype, r, temper);
    a.y = output("y", l->T * h->heads * h->D, kind_of(dtype));
    if (h->D != 24) a.lse = output("lse", l->T * h->heads, KIND_F32);
    COMPARE_CASE(attention, &a);
}
static void attention_bits(void) { each_case(3, attention_case); }

static void attention_grad_case(Random *r, const Layout *l, const Heads *h, Dtype dtype, Temper temper) {
    AttentionGradArgs b = {.forward = attention_args(l, h, dtype, r, temper), .unit_count = l->units, .unit = l->unit, .unit_page = l->unit_page};
    int64_t count = l->T * h->heads * h->D;
    b.forward.y = guarded("y", (size_t)count * dtype_size(dtype));
    b.forward.lse = guarded("lse", (size_t)(l->T * h->heads) * 4);
    reference_device->attention(reference_device, &b.forward);
    b.dy = input("dy", count, r, temper);
    b.dq = output("dq", count, KIND_F32);
    b.dpages = output("dpages", l->pages * page_elements(h->kv_heads, h->D), KIND_F32);
    b.delta = output("delta", l->T * h->heads, KIND_F32);
    COMPARE_CASE(attention_grad, &b);
}
static void attention_grad_bits(void) { each_case(4, attention_grad_case); }

// Each row alone, as decoding does, and in odd parts, as chunks of a prefill: the bits of all rows at once.
static void attention_rows_stand_alone(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(all_heads); i += 2)
        for (int d = 0; d < 2; d++) {
            blocks_free();
            const Heads *h = &all_heads[i + d];
            Layout l = layout_of(groups_large, 3);
            AttentionArgs a = attention_args(&l, h, (Dtype)d, &r, PLAIN);
            size_t row = (size_t)(h->heads * h->D) * dtype_size((Dtype)d), lse_row = (size_t)h->heads * 4;
            char *all = guarded("all", (size_t)l.T * row), *some = guarded("some", (size_t)l.T * row);
            char *all_lse = guarded("all lse", (size_t)l.T * lse_row), *some_lse = guarded("some lse", (size_t)l.T * lse_row);
            for (int v = 0; v < device_count; v++) {
                const Device *device = test_devices[v];
                if (device->threads == 3) continue;
                a.y = all, a.lse = (float *)(void *)all_lse;
                device->attention(device, &a);
                for (int64_t t = 0; t < l.T;) {
                    AttentionArgs part = a;
                    part.T = t < 35 ? 1 : l.T - t < 13 ? l.T - t : 13;
                    part.q = (const char *)a.q + (size_t)t * row;
                    part.position += t, part.table_start += t;
                    part.y = some + (size_t)t * row, part.lse = (float *)(void *)(some_lse + (size_t)t * lse_row);
                    device->attention(device, &part);
                    t += part.T;
                }
                if (memcmp(all, some, (size_t)l.T * row) || memcmp(all_lse, some_lse, (size_t)l.T * lse_row))
                    FAIL("%s heads %d/%d D %d %s: a row depends on its neighbours", device->variant, h->heads, h->kv_heads, h->D, dtype_name((Dtype)d));
            }
            bands_check("any");
        }
}

// A completion that continues a shared prompt has the bits of the same tokens in a sequence of its own.
static void shared_prompt_equals_own_copy(void) {
    Random r = random_start(6, STREAM_TEST, 0);
    static const Group shared[] = {{40, 2, {30, 7, 0, 0}}}, own[] = {{70, 0, {0}}, {47, 0, {0}}};
    const Heads h = {4, 2, 24};
    for (int d = 0; d < 2; d++) {
        blocks_free();
        devices_open();
        Dtype dtype = (Dtype)d;
        Layout a = layout_of(shared, 1), b = layout_of(own, 2);
        RopeArgs rope[2] = {rope_args(&a, &h, dtype, &r, PLAIN), rope_args(&b, &h, dtype, &r, PLAIN)};
        rope[1].rotary = rope[0].rotary;
        // Rows of the second: prompt, first completion, prompt again, second completion.
        int64_t columns = (h.heads + 2 * h.kv_heads) * h.D, row = h.heads * h.D;
        int from[117];
        for (int t = 0; t < 117; t++) from[t] = t < 70 ? t : t < 110 ? t - 70 : t - 40;
        for (int t = 0; t < 117; t++) memcpy((float *)(uintptr_t)rope[1].qkv + t * columns, rope[0].qkv + from[t] * columns, (size_t)columns * 4);
        void *y[2];
        for (int v = 0; v < device_count; v++) {
            const Layout *l[2] = {&a, &b};
            int before = block_count;
            for (int k = 0; k < 2; k++) {
                size_t size = dtype_size(dtype);
                rope[k].q = guarded("q", (size_t)(l[k]->T * row) * size);
                rope[k].pages = guarded("pages", (size_t)(l[k]->pages * page_elements(h.kv_heads, h.D)) * size);
                y[k] = guarded("y", (size_t)(l[k]->T * row) * size);
                test_devices[v]->rope(test_devices[v], &rope[k]);
                AttentionArgs attention = {.T = l[k]->T, .heads = h.heads, .kv_heads = h.kv_heads, .D = h.D, .dtype = dtype, .scale = 0.2f, .window = v % 2 ? 35 : 0,
                                           .q = rope[k].q, .position = l[k]->position, .table_start = l[k]->table_start,
                                           .table = l[k]->table, .pages = rope[k].pages, .y = y[k]};
                test_devices[v]->attention(test_devices[v], &attention);
            }
            for (int t = 0; t < 117; t++)
                for (int64_t c = 0; c < row; c++)
                    if (act_value(y[1], t * row + c, dtype) != act_value(y[0], from[t] * row + c, dtype))
                        FAIL("%s %s: row %d differs from row %d of the shared prompt's group", test_devices[v]->variant, dtype_name(dtype), t, from[t]);
            bands_check("any");
            blocks_drop(before);
        }
    }
}

// A group's gradients don't depend on which other groups stand in the call.
static void groups_are_independent(void) {
    Random r = random_start(7, STREAM_TEST, 0);
    const Heads h = {6, 2, 24};
    for (int d = 0; d < 2; d++) {
        blocks_free();
        Dtype dtype = (Dtype)d;
        Layout l = layout_of(groups_large, 3);
        AttentionGradArgs b = {.forward = attention_args(&l, &h, dtype, &r, PLAIN), .unit_count = l.units, .unit = l.unit, .unit_page = l.unit_page};
        int64_t row = h.heads * h.D, count = l.T * row, page = page_elements(h.kv_heads, h.D);
        size_t size = dtype_size(dtype);
        b.forward.y = guarded("y", (size_t)count * size), b.forward.lse = guarded("lse", (size_t)(l.T * h.heads) * 4);
        float *dq = guarded("dq", (size_t)count * 4), *dpages = guarded("dpages", (size_t)(l.pages * page) * 4);
        float *dq_part = guarded("dq part", (size_t)count * 4), *dpages_part = guarded("dpages part", (size_t)(l.pages * page) * 4);
        b.dy = input("dy", count, &r, PLAIN), b.delta = guarded("delta", (size_t)(l.T * h.heads) * 4);
        for (int v = 0; v < device_count; v++) {
            const Device *device = test_devices[v];
            device->attention(device, &b.forward);
            b.dq = dq, b.dpages = dpages;
            device->attention_grad(device, &b);
            for (int u = 0; u < l.units; u++) {
                AttentionGradArgs part = b;
                int32_t t = l.unit[u], first = l.unit_page[u], unit[2] = {0, l.unit[u + 1] - t}, unit_page[2] = {0, l.unit_page[u + 1] - first};
                int32_t table[64];
                for (int i = 0; i < l.tables && i < 64; i++) table[i] = l.table[i] - first; // pages numbered from the group's first
                AttentionArgs *f = &part.forward;
                f->T = unit[1], f->position += t, f->table_start += t, f->table = table;
                f->q = (const char *)f->q + (size_t)(t * row) * size, f->y = (char *)f->y + (size_t)(t * row) * size, f->lse += t * h.heads;
                f->pages = (const char *)f->pages + (size_t)(first * page) * size;
                part.unit_count = 1, part.unit = unit, part.unit_page = unit_page;
                part.dy += t * row, part.delta += t * h.heads, part.dq = dq_part + t * row, part.dpages = dpages_part + first * page;
                device->attention_grad(device, &part);
            }
            if (memcmp(dq, dq_part, (size_t)count * 4) || memcmp(dpages, dpages_part, (size_t)(l.pages * page) * 4))
                FAIL("%s %s: a group's gradients depend on the others", device->variant, dtype_name(dtype));
        }
        bands_check("any");
    }
}

// ---- gradients -------------------------------------------------------------------------------------------
typedef struct Problem {
    const Layout *l;
    Heads h;
    const int32_t *group_start; // [T] first row of the row's prompt
    const int32_t *prompt;      // [T] its length
    const int32_t *own;         // [T] first row of the row's completion
    int64_t R;                  // elements of a head that turn
    int32_t window;
    double scale, *qkv, *dy, *y;
} Problem;

// Row that holds position p of the sequence of row t.
static int64_t row_at(const Problem *p, int64_t t, int64_t position) {
    return position < p->prompt[t] ? p->group_start[t] + position : p->own[t] + position - p->prompt[t];
}
// Element i of head `column`, rotated.
static double rotated(const Problem *p, int64_t t, int64_t column, int64_t i) {
    int64_t D = p->h.D, R = p->R, pair = i % (R / 2);
    const double *x = p->qkv + t * (p->h.heads + 2 * p->h.kv_heads) * D + column * D;
    double angle = p->l->position[t] * pow(10000, -2.0 * (double)pair / (double)R);
    if (i >= R) return x[i];
    return i < R / 2 ? x[i] * cos(angle) - x[i + R / 2] * sin(angle) : x[i] * cos(angle) + x[i - R / 2] * sin(angle);
}
// Attention as it is written in the papers, from the qkv rows: no pages, no running maximum.
static double attention_loss(const void *problem) {
    const Problem *p = problem;
    const Heads *h = &p->h;
    int64_t D = h->D, columns = (h->heads + 2 * h->kv_heads) * D;
    double loss = 0, *turned = calloc((size_t)(p->l->T * columns), sizeof *turned), score[160];
    for (int64_t i = 0; i < p->l->T * (h->heads + h->kv_heads) * D; i++) {
        int64_t t = i / ((h->heads + h->kv_heads) * D), c = i % ((h->heads + h->kv_heads) * D);
        turned[t * columns + c] = rotated(p, t, c / D, c % D);
    }
    for (int64_t t = 0; t < p->l->T; t++)
        for (int head = 0; head < h->heads; head++) {
            int kv = head / (h->heads / h->kv_heads);
            double sum = 0;
            int64_t first = p->window && p->l->position[t] >= p->window ? p->l->position[t] + 1 - p->window : 0;
            for (int64_t j = first; j <= p->l->position[t]; j++) {
                const double *q = turned + t * columns + head * D, *k = turned + row_at(p, t, j) * columns + (h->heads + kv) * D;
                score[j] = 0;
                for (int64_t d = 0; d < D; d++) score[j] += q[d] * k[d];
                score[j] = exp(score[j] * p->scale);
                sum += score[j];
            }
            for (int64_t d = 0; d < D; d++) {
                double y = 0;
                for (int64_t j = first; j <= p->l->position[t]; j++)
                    y += score[j] / sum * p->qkv[row_at(p, t, j) * columns + (h->heads + h->kv_heads + kv) * D + d];
                loss += p->dy[(t * h->heads + head) * D + d] * y;
                if (p->y) p->y[(t * h->heads + head) * D + d] = y;
            }
        }
    free(turned);
    return loss;
}

static void attention_slopes(void) {
    static const Group groups[] = {{38, 3, {29, 1, 3, 0}}, {3, 2, {2, 4, 0, 0}}};
    static const Heads heads[] = {{2, 1, 8}, {2, 2, 10}, {2, 1, 8}};
    static const int32_t windows[] = {0, 0, 34}, rotary[] = {8, 10, 6};
    Random r = random_start(8, STREAM_TEST, 0);
    for (int i = 0; i < LENGTH(heads); i++) {
        blocks_free();
        devices_open();
        const Heads *h = &heads[i];
        Layout l = layout_of(groups, 2);
        int64_t count = l.T * h->heads * h->D, columns = (h->heads + 2 * h->kv_heads) * h->D, pages = l.pages * page_elements(h->kv_heads, h->D);
        int32_t start[MAX_ROWS], prompt[MAX_ROWS], own[MAX_ROWS];
        for (int64_t t = 0, u = 0, first = 0; t < l.T; t++) {
            if (t == l.unit[u + 1]) u++;
            if (t > 0 && l.table_start[t] != l.table_start[t - 1]) first = t;
            if (l.position[t] == groups[u].prompt) first = t;
            start[t] = l.unit[u], prompt[t] = groups[u].prompt, own[t] = (int32_t)first;
        }
        RopeArgs rope = rope_args(&l, h, DTYPE_F32, &r, PLAIN);
        rope.rotary = rotary[i], rope.cos_sin = cosines(160, rotary[i]);
        float *qkv = (float *)(uintptr_t)rope.qkv, *dqkv = guarded("dqkv", (size_t)(l.T * columns) * 4), *y = guarded("y", (size_t)count * 4);
        for (int64_t k = 0; k < l.T * columns; k++) qkv[k] *= 2;
        float *dy = input("dy", count, &r, PLAIN);
        Problem p = {.l = &l, .h = *h, .group_start = start, .prompt = prompt, .own = own, .R = rotary[i], .window = windows[i], .scale = 0.5,
                     .qkv = widened("qkv", qkv, l.T * columns),
                     .dy = widened("dy", dy, count), .y = guarded("y in double", (size_t)count * 8)};
        rope.q = guarded("q", (size_t)count * 4), rope.pages = guarded("pages", (size_t)pages * 4);
        AttentionGradArgs b = {.unit_count = l.units, .unit = l.unit, .unit_page = l.unit_page, .dy = dy, .dq = guarded("dq", (size_t)count * 4),
                               .dpages = guarded("dpages", (size_t)pages * 4), .delta = guarded("delta", (size_t)(l.T * h->heads) * 4)};
        b.forward = (AttentionArgs){.T = l.T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .scale = 0.5f, .window = windows[i], .q = rope.q,
                                    .position = l.position, .table_start = l.table_start, .table = l.table, .pages = rope.pages,
                                    .y = y, .lse = guarded("lse", (size_t)(l.T * h->heads) * 4)};
        RopeGradArgs c = {.T = l.T, .heads = h->heads, .kv_heads = h->kv_heads, .D = h->D, .rotary = rotary[i], .position = l.position, .cos_sin = rope.cos_sin,
                          .dq = b.dq, .dpages = b.dpages, .slot_start = l.slot_start, .slot = l.slot, .dqkv = dqkv};
        // The variants' bits are compared elsewhere; the widest one here, and the slow twin.
        const Device *both[] = {reference_device, test_devices[device_count - 1]};
        for (int v = 0; v < 2; v++) {
            memset(rope.pages, 0, (size_t)pages * 4);
            both[v]->rope(both[v], &rope);
            both[v]->attention(both[v], &b.forward);
            both[v]->attention_grad(both[v], &b);
            both[v]->rope_grad(both[v], &c);
            attention_loss(&p);
            for (int64_t k = 0; k < count; k++) CHECK_NEAR(y[k], p.y[k], 2e-6);
            check_slopes("dqkv", attention_loss, &p, p.qkv, dqkv, l.T * columns, 250, 5e-6);
        }
    }
}

static const Test tests[] = {
    {"attention variants of this processor", variants},
    {"rope bits", rope_bits},
    {"rope gradient bits", rope_grad_bits},
    {"attention bits", attention_bits},
    {"attention gradient bits", attention_grad_bits},
    {"attention rows stand alone", attention_rows_stand_alone},
    {"shared prompt equals own copy", shared_prompt_equals_own_copy},
    {"groups are independent", groups_are_independent},
    {"rope and attention slopes", attention_slopes},
};
OPS_TEST_MAIN(tests)
