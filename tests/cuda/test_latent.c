// Latent attention on a CUDA device, against the slow twin: rotation and pages to the bit, attention and its gradients within
// what exp and the order of sums differ by. A row has the same bits alone and among others, a group whichever others there are.
#include "cuda_test.h"
#include "../kernels/attention_test.h"

typedef struct Form {
    int heads, N, P, R;
    bool interleaved;
} Form;
static const Form forms[] = {{1, 4, 4, 8, true}, {3, 6, 8, 20, true}, {2, 16, 16, 33, false}, {9, 3, 10, 64, false}, {4, 8, 16, 140, true}};
static const Group groups_small[] = {{5, 2, {3, 1, 0, 0}}, {32, 1, {2, 0, 0, 0}}};
static const Group groups_large[] = {{40, 2, {30, 1, 0, 0}}, {1, 0, {0}}, {20, 1, {9, 0, 0, 0}}};
static void exact(const void *array) { tolerate(array, 5e-38, 0); }
#define COMPARE_CASE(name, args)                                                                             \
    COMPARE_CUDA(name, args, "T %d heads %d N %d P %d R %d %s", (int)l.T, f->heads, f->N, f->P, f->R, dtype_name(dtype))

static LatentRopeArgs rope_args(const Layout *l, const Form *f, Dtype dtype, Random *r, Temper temper) {
    LatentRopeArgs a = {.T = l->T, .heads = f->heads, .N = f->N, .P = f->P, .R = f->R, .dtype = dtype, .interleaved = f->interleaved,
                        .position = l->position, .slot_start = l->slot_start, .slot = l->slot, .cos_sin = cosines(160, f->P)};
    a.q = input("q", l->T * f->heads * (f->N + f->P), r, temper);
    a.latent = input_act("latent", l->T * f->R, dtype, r, temper);
    a.ldkey = f->P + 3;
    a.key = input("key", l->T * a.ldkey, r, temper);
    return a;
}
static void rope(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < 2 * LENGTH(forms); i++) {
        cuda_case();
        const Form *f = &forms[i / 2];
        Dtype dtype = (Dtype)(i % 2);
        Layout l = i % 3 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
        LatentRopeArgs a = rope_args(&l, f, dtype, &r, i / 2 % 2 ? HOSTILE : PLAIN);
        int64_t full = l.T * f->heads * (f->R + f->P), pages = l.pages * latent_page_elements(f->R + f->P);
        a.q_plain = output("q_plain", l.T * f->heads * f->N, kind_of(dtype));
        a.q_full = output("q_full", full, kind_of(dtype));
        a.pages = output("pages", pages, kind_of(dtype));
        memset(a.q_full, 0, (size_t)full * dtype_size(dtype)), memset(a.pages, 0, (size_t)pages * dtype_size(dtype));
        exact(a.q_plain), exact(a.q_full), exact(a.pages);
        COMPARE_CASE(latent_rope, &a);
    }
}
static void rope_back(void) {
    Random r = random_start(2, STREAM_TEST, 0);
    for (int i = 0; i < 2 * LENGTH(forms); i++) {
        cuda_case();
        const Form *f = &forms[i / 2];
        Dtype dtype = (Dtype)(i % 2);
        int64_t W = f->R + f->P;
        Layout l = i % 3 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
        LatentRopeGradArgs a = {.T = l.T, .heads = f->heads, .N = f->N, .P = f->P, .R = f->R, .dtype = dtype, .interleaved = f->interleaved,
                                .position = l.position, .slot_start = l.slot_start, .slot = l.slot, .cos_sin = cosines(160, f->P)};
        Temper temper = i / 2 % 2 ? HOSTILE : PLAIN;
        a.dq_plain = input("dq_plain", l.T * f->heads * f->N, &r, temper);
        a.dq_full = input("dq_full", l.T * f->heads * W, &r, temper);
        a.dpages = input("dpages", l.pages * latent_page_elements(W), &r, temper);
        a.dq = output("dq", l.T * f->heads * (f->N + f->P), kind_of(dtype));
        a.dlatent = output("dlatent", l.T * f->R, KIND_F32);
        a.ldkey = f->P + 1;
        a.dkey = output("dkey", l.T * a.ldkey, kind_of(dtype));
        memset(a.dkey, 0, (size_t)(l.T * a.ldkey) * dtype_size(dtype));
        exact(a.dq), exact(a.dlatent), exact(a.dkey);
        COMPARE_CASE(latent_rope_grad, &a);
    }
}

static void put(void *array, int64_t i, Dtype dtype, float value) {
    if (dtype == DTYPE_F32)
        memcpy((char *)array + i * 4, &value, 4);
    else
        ((bf16 *)array)[i] = float_bf16(value);
}
// Pages hold NaN wherever no token was stored; the columns that pad W are zero.
static LatentAttentionArgs attention_args(const Layout *l, const Form *f, Dtype dtype, Random *r) {
    int64_t W = f->R + f->P, count = l->pages * latent_page_elements(W);
    LatentAttentionArgs a = {.T = l->T, .heads = f->heads, .W = (int32_t)W, .R = f->R, .dtype = dtype, .scale = 1.0f / sqrtf((float)W),
                             .position = l->position, .table_start = l->table_start, .table = l->table};
    LatentRopeArgs to_pages = rope_args(l, f, dtype, r, PLAIN);
    char *pages = guarded("pages", (size_t)count * dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        put(pages, i, dtype, i % latent_page_elements(W) / PAGE < W ? NAN : 0.0f);
    }
    to_pages.q_plain = guarded("q_plain", (size_t)(l->T * f->heads * f->N) * dtype_size(dtype));
    to_pages.q_full = input_act("q_full", l->T * f->heads * W, dtype, r, PLAIN);
    to_pages.pages = pages;
    reference_device->latent_rope(reference_device, &to_pages);
    a.q = to_pages.q_full, a.pages = pages;
    a.scratch = work_area("scratch", latent_scratch(1, W));
    for (int64_t t = 0; t < l->T; t++) a.max_position = l->position[t] > a.max_position ? l->position[t] : a.max_position;
    return a;
}
// A query of NaN, one of infinity, and a token whose latent has an infinity: whoever sees it, and nobody else, has no numbers.
static void spoil(const LatentAttentionArgs *a) {
    int64_t row = a->heads * a->W;
    put((void *)(uintptr_t)a->q, row + 1, a->dtype, NAN);
    put((void *)(uintptr_t)a->q, 2 * row, a->dtype, INFINITY);
    int64_t last = a->T - 1, page = a->table[a->table_start[last] + a->position[last] / PAGE];
    put((void *)(uintptr_t)a->pages, page * latent_page_elements(a->W) + a->position[last] % PAGE, a->dtype, INFINITY);
}
static double tolerance_of(Dtype dtype) { return dtype == DTYPE_F32 ? 5e-6 : 1.2e-2; }
static void attention(void) {
    Random r = random_start(3, STREAM_TEST, 0);
    for (int i = 0; i < 2 * LENGTH(forms); i++) {
        cuda_case();
        const Form *f = &forms[i / 2];
        Dtype dtype = (Dtype)(i % 2);
        Layout l = i % 3 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
        LatentAttentionArgs a = attention_args(&l, f, dtype, &r);
        if (i / 2 % 2) spoil(&a);
        a.y = output("y", l.T * f->heads * f->R, kind_of(dtype));
        a.lse = output("lse", l.T * f->heads, KIND_F32);
        tolerate(a.y, tolerance_of(dtype), 0), tolerate(a.lse, 1e-5, 0);
        COMPARE_CASE(latent_attention, &a);
    }
}
static LatentAttentionGradArgs grad_args(const Layout *l, const Form *f, Dtype dtype, Random *r) {
    LatentAttentionGradArgs b = {.forward = attention_args(l, f, dtype, r), .unit_count = l->units, .unit = l->unit,
                                 .unit_page = l->unit_page, .page_count = l->pages};
    b.forward.y = guarded("y", (size_t)(l->T * f->heads * f->R) * dtype_size(dtype));
    b.forward.lse = guarded("lse", (size_t)(l->T * f->heads) * 4);
    reference_device->latent_attention(reference_device, &b.forward);
    int32_t *first = guarded("page_first_row", (size_t)l->pages * 4), *last = guarded("page_last_row", (size_t)l->pages * 4);
    for (int i = 0; i < l->pages; i++) first[i] = (int32_t)l->T, last[i] = -1;
    for (int64_t t = 0; t < l->T; t++)
        for (int c = 0; c <= l->position[t] / PAGE; c++) {
            int32_t page = l->table[l->table_start[t] + c];
            if (first[page] > t) first[page] = (int32_t)t;
            last[page] = (int32_t)t;
        }
    b.page_first_row = first, b.page_last_row = last;
    b.dy = input("dy", l->T * f->heads * f->R, r, PLAIN);
    b.dq = output("dq", l->T * f->heads * (f->R + f->P), KIND_F32);
    b.dpages = output("dpages", l->pages * latent_page_elements(f->R + f->P), KIND_F32);
    b.delta = work_area("delta", (size_t)(l->T * f->heads) * 4);
    return b;
}
static void attention_back(void) {
    Random r = random_start(4, STREAM_TEST, 0);
    for (int i = 0; i < 2 * LENGTH(forms); i++) {
        cuda_case();
        const Form *f = &forms[i / 2];
        Dtype dtype = (Dtype)(i % 2);
        Layout l = i % 3 ? layout_of(groups_small, 2) : layout_of(groups_large, 3);
        LatentAttentionGradArgs b = grad_args(&l, f, dtype, &r);
        tolerate(b.dq, dtype ? 2e-2 : 1e-5, 1e-2 * dtype), tolerate(b.dpages, dtype ? 8e-2 : 5e-5, 2e-2 * dtype);
        COMPARE_CASE(latent_attention_grad, &b);
    }
}

static void rows_stand_alone(void) {
    Random r = random_start(5, STREAM_TEST, 0);
    for (int d = 0; d < 2; d++) {
        cuda_case();
        const Form *f = &forms[4];
        Dtype dtype = (Dtype)d;
        Layout l = layout_of(groups_large, 3);
        LatentAttentionArgs a = attention_args(&l, f, dtype, &r);
        int64_t row = f->heads * f->R;
        char *y = output("y", l.T * row, kind_of(dtype)), *all = malloc((size_t)(l.T * row) * dtype_size(dtype));
        a.y = y;
        ON_CUDA(latent_attention, &a, "all rows");
        memcpy(all, y, (size_t)(l.T * row) * dtype_size(dtype));
        memset(y, 0, (size_t)(l.T * row) * dtype_size(dtype));
        int64_t counts[] = {1, 1, 3, 16, l.T};
        for (int64_t t = 0, i = 0, n; t < l.T; t += n, i++) {
            n = counts[i < 4 ? i : 4] < l.T - t ? counts[i < 4 ? i : 4] : l.T - t;
            LatentAttentionArgs b = a;
            b.T = n, b.q = (const char *)a.q + (size_t)(t * f->heads * a.W) * dtype_size(dtype);
            b.position = a.position + t, b.table_start = a.table_start + t, b.max_run = n == 1;
            b.y = y + (size_t)(t * row) * dtype_size(dtype);
            ON_CUDA(latent_attention, &b, "%d rows from %d on", (int)n, (int)t);
        }
        same_bits(y, all, l.T * row, kind_of(dtype), "in parts");
        free(all);
    }
}

static const Test tests[] = {
    {"rotation and the store into pages", rope},
    {"and their gradients", rope_back},
    {"attention near the slow twin", attention},
    {"and its gradients", attention_back},
    {"a row has the same bits alone and among others", rows_stand_alone},
};
CUDA_TEST_MAIN(tests)
