// Single operations on a GPU, timed: one JSON object a line, {"name", "shape", "seconds", "bytes", "flops", "peer"}. Bytes are
// those that must move once; for attention, flops that must be done, and the options of the peer's program for the same work
// (tests/bench/peer_gpu.py); neither where the time is only told. Shapes are Qwen2.5-0.5B's. scripts/gpu-check judges. With the
// argument `small` shapes are small, for the emulated device, where seconds mean nothing.
//
// A call is queued often between two waits, so the host's part doesn't count; arrays are larger than the second-level cache.
#include "device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 14, KV_HEADS = 2, HEAD = 64, MEMORY = 12 };
typedef struct Sizes {
    int rows, width, feed, vocabulary, sequences, sequence, decoding, decoded;
    int64_t parameters;
} Sizes;
static const Sizes full = {.rows = 32768, .width = 896, .feed = 4864, .vocabulary = 151936, .sequences = 8, .sequence = 1024, .decoding = 256,
                           .decoded = 512, .parameters = 200 << 20};
static const Sizes small = {.rows = 64, .width = 64, .feed = 96, .vocabulary = 300, .sequences = 2, .sequence = 40, .decoding = 8, .decoded = 40,
                            .parameters = 70000};

typedef void (*Call)(const Device *device, const void *args);
#define CALL(name, Args)                                                                                     \
    static inline void call_##name(const Device *d, const void *args) { d->name(d, (const Args *)args); }
RECKON_OPERATIONS(CALL)
#undef CALL
typedef struct Timing {
    const char *name;
    char shape[64];
    const char *peer; // a JSON object, or NULL
    double bytes, flops;
} Timing;
typedef struct Bench {
    Device *d;
    const Sizes *sizes;
    double round_seconds; // of the calls between two waits
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

// The best of five rounds of calls.
static void timed(const Bench *b, Call call, const void *args, Timing t) {
    double best = INFINITY;
    int calls = 1;
    for (int round = -2; round < 5; round++) {
        wait(b);
        double start = clock_seconds();
        for (int i = 0; i < calls; i++) call(b->d, args);
        wait(b);
        double seconds = (clock_seconds() - start) / calls;
        if (round == -1) calls = seconds < b->round_seconds / 1000 ? 1000 : seconds > b->round_seconds ? 1 : (int)(b->round_seconds / seconds);
        if (round >= 0 && seconds < best) best = seconds;
    }
    printf("{\"name\": \"%s\", \"shape\": \"%s\", \"seconds\": %.9g, \"bytes\": %.17g, \"flops\": %.17g, \"peer\": %s}\n", t.name, t.shape, best,
           t.bytes, t.flops, t.peer ? t.peer : "null");
    fflush(stdout);
}
#define TIMED(b, operation, args, format, numbers, ...)                                                      \
    do {                                                                                                     \
        Timing timing = {.name = #operation, __VA_ARGS__};                                                   \
        snprintf(timing.shape, sizeof timing.shape, format, UNPACK numbers);                                 \
        timed((b), call_##operation, (args), timing);                                                        \
    } while (0)
#define UNPACK(...) __VA_ARGS__

// ---- rows ------------------------------------------------------------------------------------------------
static void rows(Bench *b) {
    int T = b->sizes->rows, C = b->sizes->width, F = b->sizes->feed, V = b->sizes->vocabulary, some = b->sizes->decoding;
    double wide = (double)T * C, feed = (double)T * F;
    int32_t start[] = {0, T / 4, T / 2, T / 4 * 3, T};
    int32_t *tokens = ids(b, T, (uint32_t)V);
    float *x = zeros(b, (size_t)wide * 4), *y = zeros(b, (size_t)wide * 4), *weight = zeros(b, (size_t)C * 4), *rstd = zeros(b, (size_t)T * 4);
    void *table = zeros(b, (size_t)packed_elements(V, C) * 2), *act = zeros(b, (size_t)wide * 2);
    float *dtable = zeros(b, (size_t)V * (size_t)C * 4);
    EmbedArgs embed = {.T = T, .C = C, .tokens = tokens, .dtype = DTYPE_BF16, .table = table, .y = y};
    TIMED(b, embed, &embed, "%d x %d", (T, C), .bytes = wide * 6);
    EmbedGradArgs embed_grad = {.T = T, .C = C, .tokens = tokens, .dy = x, .dtable = dtable};
    TIMED(b, embed_grad, &embed_grad, "%d x %d", (T, C), .bytes = wide * 12);
    RmsnormArgs norm = {.T = T, .C = C, .x = x, .weight = weight, .eps = 1e-6f, .dtype = DTYPE_BF16, .y = act, .rstd = rstd};
    TIMED(b, rmsnorm, &norm, "%d x %d", (T, C), .bytes = wide * 6);
    norm.T = some;
    TIMED(b, rmsnorm, &norm, "%d x %d", (some, C), .bytes = some * C * 6.0);
    RmsnormGradArgs norm_grad = {.T = T, .C = C, .x = x, .weight = weight, .rstd = rstd, .dy = y, .dx = zeros(b, (size_t)wide * 4)};
    norm_grad.dweight = zeros(b, (size_t)C * 4);
    norm_grad.segments = (Segments){.count = 4, .start = sent(b, start, sizeof start), .host = start};
    TIMED(b, rmsnorm_grad, &norm_grad, "%d x %d, 4 groups", (T, C), .bytes = wide * 16);
    ConvertArgs convert = {.count = (int64_t)wide, .dtype = DTYPE_BF16, .x = x, .y = act};
    TIMED(b, convert, &convert, "%d x %d", (T, C), .bytes = wide * 6);
    GatherArgs gather = {.T = T, .C = C, .dtype = DTYPE_BF16, .row = tokens, .x = table, .y = act};
    TIMED(b, gather, &gather, "%d x %d", (T, C), .bytes = wide * 4);
    clear(b);
    void *gate_up = zeros(b, (size_t)feed * 4), *dgate_up = zeros(b, (size_t)feed * 4);
    SwigluArgs swiglu = {.T = T, .F = F, .dtype = DTYPE_BF16, .gate_up = gate_up, .y = dgate_up};
    TIMED(b, swiglu, &swiglu, "%d x %d", (T, F), .bytes = feed * 6);
    SwigluGradArgs swiglu_grad = {.T = T, .F = F, .dtype = DTYPE_BF16, .gate_up = gate_up, .dy = zeros(b, (size_t)feed * 4), .dgate_up = dgate_up};
    TIMED(b, swiglu_grad, &swiglu_grad, "%d x %d", (T, F), .bytes = feed * 12);
    clear(b);
}

static void optimizer(Bench *b) {
    const int64_t count = b->sizes->parameters, blocks = norm_blocks(count);
    float *w = zeros(b, (size_t)count * 4), *m = zeros(b, (size_t)count * 4), *v = zeros(b, (size_t)count * 4), *g = zeros(b, (size_t)count * 4);
    AdamwArgs a = {.count = count, .w = w, .m = m, .v = v, .gradient = g, .scale = 1, .learning_rate = 1e-6f, .beta1 = 0.9f, .beta2 = 0.999f,
                   .eps = 1e-8f, .correction1 = 0.1f, .correction2 = 0.001f};
    TIMED(b, adamw, &a, "%lld parameters", ((long long)count), .bytes = (double)count * 28);
    SquareSumArgs s = {.count = count, .a = g, .partial = zeros(b, (size_t)blocks * 8)};
    TIMED(b, square_sum, &s, "%lld parameters", ((long long)count), .bytes = (double)count * 4);
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
    int sequences = b->sizes->sequences, sequence = b->sizes->sequence, decoding = b->sizes->decoding, decoded = b->sizes->decoded;
    double pairs = sequences * (sequence * (sequence + 1) / 2.0), cache = (double)decoding * decoded * KV_HEADS * 2 * HEAD * 2;
    Layout l = layout(b, sequences, sequence, false);
    size_t wide = (size_t)l.T * HEADS * HEAD, elements = (size_t)(l.pages * page_elements(KV_HEADS, HEAD));
    AttentionGradArgs g = {.forward = {.T = l.T, .heads = HEADS, .kv_heads = KV_HEADS, .D = HEAD, .dtype = DTYPE_BF16, .scale = 0.125f,
                                       .position = l.position, .table_start = l.table_start, .table = l.table, .max_position = sequence - 1}};
    void *acts = zeros(b, wide * 4), *sums = zeros(b, wide * 8 + (size_t)l.T * HEADS * 8);
    g.forward.q = acts, g.forward.y = (char *)acts + wide * 2, g.forward.pages = zeros(b, elements * 2);
    float *dy = sums, *lse = dy + 2 * wide;
    g.forward.lse = lse, g.delta = lse + l.T * HEADS, g.dy = dy, g.dq = dy + wide;
    g.dpages = zeros(b, elements * 4);
    g.unit_count = sequences, g.unit = l.unit, g.unit_page = l.unit_page, g.page_first_row = l.first_row, g.page_last_row = l.last_row;
    g.page_count = (int32_t)l.pages;
    char peer[2][128];
    for (int backward = 0; backward < 2; backward++)
        snprintf(peer[backward], sizeof peer[backward], "{\"batch\": %d, \"new_tokens\": %d, \"heads\": %d, \"kv_heads\": %d, \"width\": %d%s}", sequences,
                 sequence, HEADS, KV_HEADS, HEAD, backward ? ", \"backward\": 1" : "");
    TIMED(b, attention, &g.forward, "%d sequences of %d, %d heads of %d", (sequences, sequence, HEADS, HEAD), .flops = 4 * pairs * HEADS * HEAD, .peer = peer[0]);
    TIMED(b, attention_grad, &g, "%d sequences of %d, %d heads of %d", (sequences, sequence, HEADS, HEAD), .flops = 10 * pairs * HEADS * HEAD, .peer = peer[1]);
    clear(b);
    l = layout(b, decoding, decoded, true);
    wide = (size_t)l.T * HEADS * HEAD;
    AttentionArgs a = {.T = l.T, .heads = HEADS, .kv_heads = KV_HEADS, .D = HEAD, .dtype = DTYPE_BF16, .scale = 0.125f, .position = l.position,
                       .table_start = l.table_start, .table = l.table, .max_position = decoded - 1, .max_run = 1};
    a.q = zeros(b, wide * 2), a.y = zeros(b, wide * 2), a.pages = zeros(b, (size_t)(l.pages * page_elements(KV_HEADS, HEAD)) * 2);
    TIMED(b, attention, &a, "%d decoding sequences at %d", (decoding, decoded), .bytes = cache + (double)wide * 4);
    clear(b);
}

// ---- draws -----------------------------------------------------------------------------------------------
// The head and the draw after it, with logits stored and without. They are all the same, so that the rows' blocks lie anywhere.
static void draws_of(Bench *b, int rows) {
    int64_t V = b->sizes->vocabulary, C = b->sizes->width, blocks = vocab_padded(V) / VOCAB_BLOCK;
    float *one = xmalloc((size_t)rows * sizeof *one);
    SampleRow *drawn = xcalloc((size_t)rows, sizeof *drawn);
    Random r = random_start(2, STREAM_TEST, (uint32_t)rows);
    for (int m = 0; m < rows; m++) one[m] = 1, drawn[m] = (SampleRow){.top_p = 1, .uniform = random_double(&r)};
    HeadArgs h = {.M = rows, .V = V, .C = C, .dtype = DTYPE_BF16, .x = zeros(b, (size_t)(rows * C) * 2), .w = zeros(b, (size_t)packed_elements(V, C) * 2)};
    h.inv_temperature = sent(b, one, (size_t)rows * sizeof *one);
    h.entropy = zeros(b, (size_t)rows * 4), h.stats = zeros(b, (size_t)(rows * blocks) * sizeof *h.stats);
    SampleArgs s = {.M = rows, .V = V, .stats = h.stats, .entropy = h.entropy, .rows = sent(b, drawn, (size_t)rows * sizeof *drawn)};
    float *logits = zeros(b, (size_t)(rows * vocab_padded(V)) * 4);
    for (int stored = 1; stored >= 0; stored--) {
        const char *how = stored ? "stored" : "not stored";
        s.head = h, s.logits = s.head.logits = stored ? logits : NULL;
        TIMED(b, head, &s.head, "%d x %lld x %lld, logits %s", (rows, (long long)V, (long long)C, how));
        TIMED(b, sample, &s, "%d x %lld x %lld, logits %s", (rows, (long long)V, (long long)C, how));
    }
    clear(b);
    free(one), free(drawn);
}
static void draws(Bench *b) {
    draws_of(b, b->sizes->decoding / 8);
    draws_of(b, b->sizes->decoding * 4);
}

int main(int count, char **arguments) {
    Err err = {0};
    bool is_small = count > 1 && !strcmp(arguments[1], "small");
    Bench b = {.sizes = is_small ? &small : &full, .round_seconds = is_small ? 0 : 0.05};
    if (!device_open_cuda(0, 1, &b.d, &err)) die(&err);
    rows(&b);
    optimizer(&b);
    attention(&b);
    draws(&b);
    device_close(b.d);
    return 0;
}
