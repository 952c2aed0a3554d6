// Single operations on a GPU, timed: one JSON object a line, {"name", "shape", "seconds", "bytes", "flops", "peer"}. Bytes are
// those that must move once; for attention, flops that must be done, and the options of the peer's program for the same work
// (tests/bench/peer_gpu.py). Shapes are Qwen2.5-0.5B's. scripts/gpu-check judges; on the emulated device this means nothing.
//
// A call is queued often between two waits, so the host's part doesn't count; arrays are larger than the second-level cache.
#include "device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 32768, WIDTH = 896, FEED = 4864, VOCABULARY = 151936, HEADS = 14, KV_HEADS = 2, HEAD = 64, SEQUENCE = 1024, SEQUENCES = 8,
       DECODING = 256, DECODED = 512, MEMORY = 12 };

typedef void (*Call)(const Device *device, const void *args);
#define CALL(name, Args)                                                                                     \
    static void call_##name(const Device *d, const void *args) { d->name(d, (const Args *)args); }
RECKON_OPERATIONS(CALL)
#undef CALL
typedef struct Timing {
    const char *name, *shape, *peer; // peer: a JSON object, or NULL
    double bytes, flops;
} Timing;
typedef struct Bench {
    Device *d;
    void *memory[MEMORY];
    int used;
} Bench;

static void die(const Err *err) {
    err_print(err);
    exit(err->code);
}
static void *zeros(Bench *b, size_t bytes) {
    Err err = {0};
    if (b->used == MEMORY || !b->d->allocate(b->d, bytes, "timing", &b->memory[b->used], &err)) die(&err);
    return b->memory[b->used++];
}
static void *sent(Bench *b, const void *host, size_t bytes) {
    void *p = zeros(b, bytes);
    b->d->upload(b->d, p, host, bytes);
    return p;
}
static int32_t *ids(Bench *b, int64_t count, uint32_t bound) { // each from 0 to bound - 1
    int32_t *host = xmalloc((size_t)count * sizeof *host);
    Random r = random_start(1, STREAM_TEST, bound);
    for (int64_t i = 0; i < count; i++) host[i] = (int32_t)random_below(&r, bound);
    void *p = sent(b, host, (size_t)count * sizeof *host);
    free(host);
    return p;
}
static void wait(const Bench *b) {
    Err err = {0};
    if (!b->d->finish(b->d, &err)) die(&err);
}
static void clear(Bench *b) {
    wait(b);
    while (b->used) b->d->release(b->d, b->memory[--b->used]);
}

// The best of five rounds of calls that take about 50 ms together.
static void timed(const Bench *b, Call call, const void *args, Timing t) {
    double best = INFINITY;
    int calls = 1;
    for (int round = -2; round < 5; round++) {
        wait(b);
        double start = clock_seconds();
        for (int i = 0; i < calls; i++) call(b->d, args);
        wait(b);
        double seconds = (clock_seconds() - start) / calls;
        if (round == -1) calls = seconds < 0.05 / 1000 ? 1000 : seconds > 0.05 ? 1 : (int)(0.05 / seconds);
        if (round >= 0 && seconds < best) best = seconds;
    }
    printf("{\"name\": \"%s\", \"shape\": \"%s\", \"seconds\": %.9g, \"bytes\": %.17g, \"flops\": %.17g, \"peer\": %s}\n", t.name, t.shape, best,
           t.bytes, t.flops, t.peer ? t.peer : "null");
    fflush(stdout);
}
#define TIMED(b, operation, args, ...) timed((b), call_##operation, (args), (Timing){.name = #operation, __VA_ARGS__})

// ---- rows ------------------------------------------------------------------------------------------------
static void rows(Bench *b) {
    double wide = (double)ROWS * WIDTH, feed = (double)ROWS * FEED;
    const char *shape = "32768 x 896";
    int32_t start[] = {0, ROWS / 4, ROWS / 2, ROWS / 4 * 3, ROWS};
    int32_t *tokens = ids(b, ROWS, VOCABULARY);
    float *x = zeros(b, (size_t)wide * 4), *y = zeros(b, (size_t)wide * 4), *weight = zeros(b, WIDTH * 4), *rstd = zeros(b, ROWS * 4);
    void *table = zeros(b, (size_t)packed_elements(VOCABULARY, WIDTH) * 2), *act = zeros(b, (size_t)wide * 2);
    float *dtable = zeros(b, (size_t)VOCABULARY * WIDTH * 4);
    TIMED(b, embed, (&(EmbedArgs){ROWS, WIDTH, tokens, DTYPE_BF16, table, y}), .shape = shape, .bytes = wide * 6);
    TIMED(b, embed_grad, (&(EmbedGradArgs){ROWS, WIDTH, tokens, x, dtable}), .shape = shape, .bytes = wide * 12);
    TIMED(b, rmsnorm, (&(RmsnormArgs){ROWS, WIDTH, x, weight, 1e-6f, DTYPE_BF16, act, rstd}), .shape = shape, .bytes = wide * 6);
    RmsnormGradArgs norm = {.T = ROWS, .C = WIDTH, .x = x, .weight = weight, .rstd = rstd, .dy = y, .dx = zeros(b, (size_t)wide * 4)};
    norm.dweight = zeros(b, WIDTH * 4);
    norm.segments = (Segments){4, sent(b, start, sizeof start), start};
    TIMED(b, rmsnorm_grad, &norm, .shape = "32768 x 896, 4 groups", .bytes = wide * 16);
    TIMED(b, convert, (&(ConvertArgs){(int64_t)wide, DTYPE_BF16, x, act}), .shape = shape, .bytes = wide * 6);
    TIMED(b, gather, (&(GatherArgs){ROWS, WIDTH, DTYPE_BF16, tokens, table, act}), .shape = shape, .bytes = wide * 4);
    TIMED(b, rmsnorm, (&(RmsnormArgs){DECODING, WIDTH, x, weight, 1e-6f, DTYPE_BF16, act, rstd}), .shape = "256 x 896", .bytes = DECODING * WIDTH * 6.0);
    clear(b);
    void *gate_up = zeros(b, (size_t)feed * 4), *dgate_up = zeros(b, (size_t)feed * 4);
    float *dy = zeros(b, (size_t)feed * 4);
    TIMED(b, swiglu, (&(SwigluArgs){ROWS, FEED, DTYPE_BF16, gate_up, dgate_up}), .shape = "32768 x 4864", .bytes = feed * 6);
    TIMED(b, swiglu_grad, (&(SwigluGradArgs){ROWS, FEED, DTYPE_BF16, gate_up, dy, dgate_up}), .shape = "32768 x 4864", .bytes = feed * 12);
    clear(b);
}

static void optimizer(Bench *b) {
    const int64_t count = 200 << 20;
    float *w = zeros(b, (size_t)count * 4), *m = zeros(b, (size_t)count * 4), *v = zeros(b, (size_t)count * 4), *g = zeros(b, (size_t)count * 4);
    AdamwArgs a = {.count = count, .w = w, .m = m, .v = v, .gradient = g, .scale = 1, .learning_rate = 1e-6f, .beta1 = 0.9f, .beta2 = 0.999f,
                   .eps = 1e-8f, .correction1 = 0.1f, .correction2 = 0.001f};
    TIMED(b, adamw, &a, .shape = "200 Mi parameters", .bytes = (double)count * 28);
    SquareSumArgs s = {.count = count, .a = g, .partial = zeros(b, (size_t)(count / NORM_BLOCK) * 8)};
    TIMED(b, square_sum, &s, .shape = "200 Mi parameters", .bytes = (double)count * 4);
    clear(b);
}

// ---- attention -------------------------------------------------------------------------------------------
// `sequences` of `length` positions with pages of their own; rows are all positions, or the last one of each.
typedef struct Layout {
    int64_t T, pages;
    int32_t *position, *table_start, *table, *unit, *unit_page, *first_row, *last_row; // on the device
} Layout;
static Layout layout(Bench *b, int sequences, int length, bool only_last) {
    int pages = (length + PAGE - 1) / PAGE, per = only_last ? 1 : length;
    Layout l = {.T = (int64_t)sequences * per, .pages = (int64_t)sequences * pages};
    int32_t *host = xcalloc((size_t)(2 * l.T + 3 * l.pages) + 2 * (size_t)sequences + 2, sizeof *host), *at = host;
    int32_t *position = at, *start = at += l.T, *table = at += l.T, *first = at += l.pages, *last = at += l.pages, *unit = at += l.pages;
    int32_t *unit_page = unit + sequences + 1;
    for (int64_t t = 0; t < l.T; t++) {
        position[t] = only_last ? length - 1 : (int32_t)(t % length);
        start[t] = (int32_t)(t / per) * pages;
    }
    for (int32_t p = 0; p < l.pages; p++) {
        table[p] = p;
        first[p] = only_last ? p / pages : p / pages * length + p % pages * PAGE;
        last[p] = (p / pages + 1) * per - 1;
    }
    for (int s = 0; s <= sequences; s++) unit[s] = s * per, unit_page[s] = s * pages;
    l.position = sent(b, position, (size_t)l.T * 4), l.table_start = sent(b, start, (size_t)l.T * 4);
    l.table = sent(b, table, (size_t)(3 * l.pages + 2 * sequences + 2) * 4);
    l.first_row = l.table + l.pages, l.last_row = l.first_row + l.pages, l.unit = l.last_row + l.pages, l.unit_page = l.unit + sequences + 1;
    free(host);
    return l;
}

static void attention(Bench *b) {
    double pairs = SEQUENCES * (SEQUENCE * (SEQUENCE + 1) / 2.0), cache = (double)DECODING * DECODED * KV_HEADS * 2 * HEAD * 2;
    Layout l = layout(b, SEQUENCES, SEQUENCE, false);
    size_t wide = (size_t)l.T * HEADS * HEAD, elements = (size_t)(l.pages * page_elements(KV_HEADS, HEAD));
    AttentionGradArgs g = {.forward = {.T = l.T, .heads = HEADS, .kv_heads = KV_HEADS, .D = HEAD, .dtype = DTYPE_BF16, .scale = 0.125f,
                                       .position = l.position, .table_start = l.table_start, .table = l.table, .max_position = SEQUENCE - 1}};
    void *acts = zeros(b, wide * 4), *sums = zeros(b, wide * 8 + (size_t)l.T * HEADS * 8);
    g.forward.q = acts, g.forward.y = (char *)acts + wide * 2, g.forward.pages = zeros(b, elements * 2);
    float *dy = sums, *lse = dy + 2 * wide;
    g.forward.lse = lse, g.delta = lse + l.T * HEADS, g.dy = dy, g.dq = dy + wide;
    g.dpages = zeros(b, elements * 4);
    g.unit_count = SEQUENCES, g.unit = l.unit, g.unit_page = l.unit_page, g.page_first_row = l.first_row, g.page_last_row = l.last_row;
    g.page_count = (int32_t)l.pages;
    TIMED(b, attention, &g.forward, .shape = "8 sequences of 1024, 14 heads of 64", .flops = 4 * pairs * HEADS * HEAD,
          .peer = "{\"batch\": 8, \"new_tokens\": 1024, \"heads\": 14, \"kv_heads\": 2, \"width\": 64}");
    TIMED(b, attention_grad, &g, .shape = "8 sequences of 1024, 14 heads of 64", .flops = 10 * pairs * HEADS * HEAD,
          .peer = "{\"batch\": 8, \"new_tokens\": 1024, \"heads\": 14, \"kv_heads\": 2, \"width\": 64, \"backward\": 1}");
    clear(b);
    l = layout(b, DECODING, DECODED, true);
    wide = (size_t)l.T * HEADS * HEAD;
    AttentionArgs a = {.T = l.T, .heads = HEADS, .kv_heads = KV_HEADS, .D = HEAD, .dtype = DTYPE_BF16, .scale = 0.125f, .position = l.position,
                       .table_start = l.table_start, .table = l.table, .max_position = DECODED - 1, .max_run = 1};
    a.q = zeros(b, wide * 2), a.y = zeros(b, wide * 2), a.pages = zeros(b, (size_t)(l.pages * page_elements(KV_HEADS, HEAD)) * 2);
    TIMED(b, attention, &a, .shape = "256 decoding sequences at 512", .bytes = cache + (double)wide * 4);
    clear(b);
}

int main(void) {
    Err err = {0};
    Bench b = {0};
    if (!device_open_cuda(0, 1, &b.d, &err)) die(&err);
    rows(&b);
    optimizer(&b);
    attention(&b);
    device_close(b.d);
    return 0;
}
