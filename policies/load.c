// A model's weights from its files into a policy's parameters. One tensor at a time is allocated and read, so that the peak
// stays near the weights in use: the largest, the embedding, comes first. Where masters are host memory they are read in
// place; matrices that are only packed go through a piece of memory that stays in the processor's cache. The tokenizer is
// read on a thread of its own meanwhile.
#include "model.h"
#include "weights.h"
#include <pthread.h>

// Rows [from, to) of a matrix, which may be of several tensors.
static bool read_rows(const Parameter *q, const Weights *w, int64_t from, int64_t to, float *out, Err *err) {
    for (int i = 0; i < q->part_count; i++) {
        const ParameterPart *part = &q->parts[i];
        int64_t first = part->row > from ? part->row : from, end = part->row + part->rows < to ? part->row + part->rows : to;
        if (first >= end) continue;
        TRY(weights_read_rows(w, part->name, (int64_t[]){part->rows, q->K}, first - part->row, end - first, out + (first - from) * q->K, err));
    }
    return true;
}

// In whole panels of as many rows as fit, through `piece`, which stays in the processor's cache.
enum { PIECE = 1 << 18 }; // floats
static bool only_packed(const Policy *p, const Parameter *q, const Weights *w) {
    if (!q->matrix || q->values || q->transposed || !p->device->is_host) return false;
    for (int i = 0; i < q->part_count; i++)
        if (!weights_has_rows(w, q->parts[i].name)) return false;
    return true;
}
static bool load_packed(const Policy *p, const Parameter *q, const Weights *w, float *piece, Err *err) {
    int64_t panels = PIECE / (PANEL * q->K), step = PANEL * (panels > 0 ? panels : 1);
    for (int i = 0; i < block_count(q); i++)
        for (int64_t row = 0, rows = block_rows(q, i), count; row < rows; row += count) {
            count = rows - row < step ? rows - row : step;
            TRY(read_rows(q, w, block_row(q, i) + row, block_row(q, i) + row + count, piece, err));
            int64_t at = block_packed(q, i) + row / PANEL * panel_elements(q->K, p->dtype);
            p->device->pack(p->device, &(PackArgs){.w = piece, .N = count, .K = q->K, .dtype = p->dtype,
                                                   .packed = (char *)q->packed + act_bytes(p, at), .scale = q->scale,
                                                   .int8 = q->int8 ? (char *)q->int8 + row / PANEL * int8_panel_bytes(q->K) : NULL});
        }
    return true;
}
static bool make_piece(const Policy *p, float **out, Err *err) {
    int64_t most = PIECE;
    for (int i = 0; i < p->parameter_count; i++)
        if (PANEL * p->parameters[i].K > most) most = PANEL * p->parameters[i].K;
    return mem_alloc((size_t)most * sizeof **out, "rows of weights", (void **)out, err);
}

static bool load_whole(const Policy *p, const Parameter *q, const Weights *w, Err *err) {
    bool in_place = q->values && p->device->is_host, ok = true;
    float *values = q->values;
    if (!in_place) TRY(mem_alloc((size_t)(q->N * q->K) * sizeof *values, q->parts[0].name, (void **)&values, err));
    for (int i = 0; ok && i < q->part_count; i++) {
        const ParameterPart *part = &q->parts[i];
        int64_t shape[2] = {part->rows, q->K};
        ok = weights_read(w, part->name, q->matrix ? 2 : 1, shape, values + part->row * q->K, err);
    }
    ok = ok && parameter_set(p, q, values, err);
    if (!in_place) mem_free(values);
    return ok;
}

// Packed matrices lie together where that is the host's memory: in huge pages, which matrices by themselves are often too small for.
static bool place_together(Policy *p, const Weights *w, Err *err) {
    enum { LINE = 64 };
    if (!p->device->is_host) return true;
    for (int round = 0; round < 2; round++) {
        size_t bytes = 0;
        for (int i = 0; i < p->parameter_count; i++) {
            Parameter *q = &p->parameters[i];
            if (!q->matrix || kept_can(p, q, w)) continue;
            if (p->together) q->packed = (char *)p->together + bytes;
            if (!size_add(bytes, (act_bytes(p, packed_size(q)) + LINE - 1) / LINE * LINE, &bytes)) return fail(err, ERR_DATA, "weights", "their size can't be addressed");
        }
        if (!p->together) TRY(p->device->allocate(p->device, bytes, "weights", &p->together, err));
        p->together_bytes = bytes;
    }
    return true;
}

static bool load_parameter(Policy *p, Parameter *q, const Weights *w, float *piece, Err *err) {
    if (kept_can(p, q, w)) return kept_load(p, q, w, err);
    TRY(parameter_alloc(p, q, err));
    return only_packed(p, q, w) ? load_packed(p, q, w, piece, err) : load_whole(p, q, w, err);
}
static bool load_parameters(Policy *p, const Weights *w, Err *err) {
    float *piece;
    TRY(make_piece(p, &piece, err));
    bool ok = place_together(p, w, err);
    for (int i = 0; ok && i < p->parameter_count; i++) {
        ok = load_parameter(p, &p->parameters[i], w, piece, err);
        weights_drop_pages(w); // what was read of the file counts as this process's memory
    }
    mem_free(piece);
    return ok && kept_scratch(p, err);
}

typedef struct TokenizerLoad {
    const char *path;
    Tokenizer *tokenizer;
    bool ok;
    Err err;
} TokenizerLoad;
static void *load_tokenizer(void *context) {
    TokenizerLoad *l = context;
    l->ok = tokenizer_open(l->path, &l->tokenizer, &l->err);
    return NULL;
}

bool policy_load(Policy *p, const char *path, const Weights *w, Err *err) {
    TokenizerLoad load = {.path = path};
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, load_tokenizer, &load) == 0;
    bool ok = load_parameters(p, w, err);
    if (beside) pthread_join(thread, NULL);
    else load_tokenizer(&load);
    p->tokenizer = load.tokenizer;
    TRY(ok);
    if (!load.ok && load.err.code != ERR_NOINPUT) {
        *err = load.err;
        return false;
    }
    if (p->tokenizer && tokenizer_size(p->tokenizer) > p->config.vocabulary)
        return fail(err, ERR_DATA, path, "the tokenizer has %d ids, the embedding %d rows", tokenizer_size(p->tokenizer), p->config.vocabulary);
    return true;
}
