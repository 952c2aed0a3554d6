// A model's weights from its files into a policy's parameters. In host memory all threads take part: matrices are dealt out in
// pieces of a few panels, which are read, where there are masters into these, and packed while the processor's cache holds
// them. What goes through a device's memory goes one tensor at a time, so that the peak stays near the weights in use: the
// largest, the embedding, comes first. The tokenizer is read on a thread of its own meanwhile.
//
// Which thread reads a piece changes no bit. Of several errors the first in the order of parameters is told: whoever fails
// stops the dealing, and all that was dealt before is finished.
#include "files.h"
#include "model.h"
#include "weights.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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

// The same as they are stored: within the file, or put together in `copy`.
static bool stored_rows(const Parameter *q, const Weights *w, int64_t from, int64_t to, uint8_t *copy, const uint8_t **out, Err *err) {
    size_t size = 0;
    *out = NULL;
    for (int i = 0; i < q->part_count; i++) {
        const ParameterPart *part = &q->parts[i];
        int64_t first = part->row > from ? part->row : from, end = part->row + part->rows < to ? part->row + part->rows : to;
        const uint8_t *rows;
        if (first >= end) continue;
        TRY(weights_stored_rows(w, part->name, (int64_t[]){part->rows, q->K}, first - part->row, end - first, copy + size, &rows, err));
        size_t bytes = (size_t)(end - first) * weights_row_bytes(w, part->name);
        bool all = first == from && end == to;
        if (!all && rows != copy + size) memcpy(copy + size, rows, bytes);
        *out = all ? rows : copy;
        size += bytes;
    }
    return true;
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

// ---- what is loaded when -----------------------------------------------------------------------------------
// What has been loaded already, or stays where it is, has its place.
static bool has_place(const Parameter *q) { return q->packed || q->values; }
static bool is_packed(const Policy *p, const Parameter *q, const Weights *w) { return q->matrix && !kept_can(p, q, w) && !kept_can_in_file(p, q, w); }

// Packed matrices lie together where that is the host's memory: in huge pages, which matrices by themselves are often too small for.
static bool place_together(Policy *p, const Weights *w, const bool *wanted, Err *err) {
    enum { LINE = 64 };
    struct Together *t = &p->together[p->together[0].memory ? 1 : 0];
    for (int round = 0; round < 2; round++) {
        size_t bytes = 0;
        for (int i = 0; i < p->parameter_count; i++) {
            Parameter *q = &p->parameters[i];
            if (!wanted[i] || !is_packed(p, q, w)) continue;
            if (round == 1) q->packed = (char *)t->memory + bytes;
            if (!size_add(bytes, (act_bytes(p, packed_size(q)) + LINE - 1) / LINE * LINE, &bytes)) return fail(err, ERR_DATA, "weights", "their size can't be addressed");
        }
        if (round == 0) TRY(p->device->allocate(p->device, bytes, "weights", &t->memory, err));
        t->bytes = bytes;
    }
    return true;
}

// ---- in pieces, by all threads -----------------------------------------------------------------------------
enum {
    PIECE = 1 << 16,        // floats, in whole panels
    RUN = 16,               // pieces dealt at a time: some huge pages of what is written, which are made by the first to write
    DROP = 64 << 20,        // bytes of weights after which what was read of the file is given back: it counts as this process's memory
};
typedef struct Piece { // rows of a block of a matrix; or all of a vector, or of what is kept in blocks
    int parameter, block;
    WeightFormat stored; // the rows' in the file, where `pack` takes them so
    int64_t row, count;
} Piece;
typedef struct Loading {
    Policy *p;
    const Weights *w;
    Piece *pieces;
    int64_t count;
    atomic_llong next;
    atomic_size_t written;
    atomic_bool failed;
} Loading;
typedef struct Loader { // a thread's
    Loading *all;
    Device *device; // of this thread alone
    float *rows;
    pthread_t thread;
    int64_t at; // the piece that failed
    bool ok;
    Err err;
} Loader;

// What isn't read by rows, or is packed in a second form, which takes all rows at once.
static bool is_whole(const Parameter *q, const Weights *w) {
    bool whole = q->matrix && q->transposed;
    for (int i = 0; i < q->part_count; i++) whole = whole || (q->matrix && !weights_has_rows(w, q->parts[i].name));
    return whole;
}
static int64_t rows_at_once(const Parameter *q) {
    int64_t panels = PIECE / (PANEL * q->K);
    return PANEL * (panels > 0 ? panels : 1);
}
static WeightFormat stored_as(const Parameter *q, const Weights *w) {
    WeightFormat all = WEIGHT_PACKED;
    if (q->values || q->int8 || q->scale != 0 || q->K % 32) return WEIGHT_PACKED;
    for (int i = 0; i < q->part_count; i++) {
        TensorInfo t;
        if (!weights_find(w, q->parts[i].name, &t) || !weights_has_stored(w, q->parts[i].name)) return WEIGHT_PACKED;
        WeightFormat one = stored_format(t.type);
        if (i && one != all) return WEIGHT_PACKED;
        all = one;
    }
    return all;
}
// The pieces of parameter i; their number.
static int64_t cut(const Policy *p, int i, const Weights *w, Piece *out) {
    const Parameter *q = &p->parameters[i];
    int64_t pieces = 0, step = rows_at_once(q);
    if (kept_can_in_file(p, q, w)) return 0;
    if (!is_packed(p, q, w)) {
        if (out) *out = (Piece){.parameter = i, .count = q->N};
        return 1;
    }
    if (is_whole(q, w)) return 0;
    WeightFormat stored = out ? stored_as(q, w) : WEIGHT_PACKED;
    for (int block = 0; block < block_count(q); block++)
        for (int64_t row = 0, rows = block_rows(q, block); row < rows; row += step, pieces++)
            if (out) out[pieces] = (Piece){i, block, stored, row, rows - row < step ? rows - row : step};
    return pieces;
}

static bool load_piece(const Loader *l, const Piece *piece, Err *err) {
    const Policy *p = l->all->p;
    Parameter *q = &p->parameters[piece->parameter];
    const Weights *w = l->all->w;
    if (kept_can(p, q, w)) return kept_load(p, q, w, err);
    if (!q->matrix) return load_whole(p, q, w, err);
    int64_t row = block_row(q, piece->block) + piece->row, at = block_packed(q, piece->block) + piece->row / PANEL * panel_elements(q->K, p->dtype);
    PackArgs args = {.N = piece->count, .K = q->K, .dtype = p->dtype, .packed = (char *)q->packed + act_bytes(p, at), .scale = q->scale,
                     .int8 = q->int8 ? (char *)q->int8 + piece->row / PANEL * int8_panel_bytes(q->K) : NULL, .format = piece->stored};
    float *rows = q->values ? q->values + row * q->K : l->rows;
    const uint8_t *stored = NULL;
    if (piece->stored) TRY(stored_rows(q, w, row, row + piece->count, (uint8_t *)rows, &stored, err));
    else TRY(read_rows(q, w, row, row + piece->count, rows, err));
    if (piece->stored) args.rows = stored;
    else args.w = rows;
    l->device->pack(l->device, &args);
    return true;
}
static void *load_pieces(void *context) {
    Loader *l = context;
    Loading *a = l->all;
    l->ok = true;
    while (l->ok && !atomic_load(&a->failed)) {
        int64_t from = atomic_fetch_add(&a->next, RUN), to = from + RUN < a->count ? from + RUN : a->count;
        size_t bytes = 0;
        if (from >= a->count) break;
        for (l->at = from; l->at < to && (l->ok = load_piece(l, &a->pieces[l->at], &l->err)); l->at++)
            bytes += act_bytes(a->p, a->pieces[l->at].count * a->p->parameters[a->pieces[l->at].parameter].K);
        if (!l->ok) atomic_store(&a->failed, true);
        size_t before = atomic_fetch_add(&a->written, bytes);
        if (before / DROP != (before + bytes) / DROP) weights_drop_pages(a->w);
    }
    return NULL;
}

static bool loader_open(Loader *l, Loading *all, Err *err) {
    int64_t most = PIECE;
    for (int i = 0; i < all->p->parameter_count; i++)
        if (PANEL * all->p->parameters[i].K > most) most = PANEL * all->p->parameters[i].K;
    *l = (Loader){.all = all};
    return mem_alloc((size_t)most * sizeof *l->rows, "rows of weights", (void **)&l->rows, err) &&
           device_open_cpu(all->p->device->variant, 1, &l->device, err);
}
static void loader_close(Loader *l) {
    device_close(l->device);
    mem_free(l->rows);
}
// Loads the pieces. The caller is the first of the threads; where the system has no more of them, fewer do it.
static bool run_loaders(Loading *a, int *failed, Err *err) {
    int64_t runs = (a->count + RUN - 1) / RUN;
    int count = a->p->device->threads < runs ? a->p->device->threads : (int)runs, open = 0, begun = 1;
    Loader *loaders = xcalloc((size_t)count + 1, sizeof *loaders);
    Err none;
    bool ok = count == 0 || loader_open(&loaders[0], a, err);
    for (open = 1; ok && open < count && loader_open(&loaders[open], a, &none);) open++;
    while (ok && begun < open && pthread_create(&loaders[begun].thread, NULL, load_pieces, &loaders[begun]) == 0) begun++;
    if (ok && count > 0) load_pieces(&loaders[0]);
    for (int i = 1; ok && i < begun; i++) pthread_join(loaders[i].thread, NULL);
    const Loader *first = NULL;
    for (int i = 0; ok && count > 0 && i < begun; i++)
        if (!loaders[i].ok && (!first || loaders[i].at < first->at)) first = &loaders[i];
    *failed = first ? a->pieces[first->at].parameter : a->p->parameter_count;
    if (first) *err = first->err;
    for (int i = 0; i < count; i++) loader_close(&loaders[i]);
    free(loaders);
    return ok;
}
static bool make_place(Policy *p, Parameter *q, const Weights *w, Err *err) {
    if (kept_can_in_file(p, q, w)) kept_in_file(q, w);
    return kept_can(p, q, w) || q->in_file || parameter_alloc(p, q, err);
}
// Loads what is wanted. Of several errors the first parameter's.
static bool load_wanted(Policy *p, const Weights *w, const bool *wanted, Err *err) {
    int placed = 0, failed = 0;
    Err refused;
    TRY(place_together(p, w, wanted, err));
    while (placed < p->parameter_count && (!wanted[placed] || make_place(p, &p->parameters[placed], w, &refused))) placed++;
    Loading all = {.p = p, .w = w};
    for (int i = 0; i < placed; i++) all.count += wanted[i] ? cut(p, i, w, NULL) : 0;
    all.pieces = xcalloc((size_t)all.count, sizeof *all.pieces);
    for (int64_t i = 0, at = 0; i < placed; i++) at += wanted[i] ? cut(p, (int)i, w, all.pieces + at) : 0;
    Err first;
    bool ok = run_loaders(&all, &failed, &first);
    free(all.pieces);
    for (int i = 0; ok && i < placed && i < failed; i++)
        if (wanted[i] && is_packed(p, &p->parameters[i], w) && is_whole(&p->parameters[i], w)) TRY(load_whole(p, &p->parameters[i], w, err));
    if (!ok || failed < p->parameter_count) *err = first;
    else if (placed < p->parameter_count) *err = refused;
    return ok && failed == p->parameter_count && placed == p->parameter_count;
}
static bool load_on_host(Policy *p, const Weights *w, Err *err) {
    bool *wanted = xcalloc((size_t)p->parameter_count, sizeof *wanted);
    for (int i = 0; i < p->parameter_count; i++) wanted[i] = !has_place(&p->parameters[i]);
    bool ok = load_wanted(p, w, wanted, err);
    free(wanted);
    return ok;
}
bool policy_leave_file(Policy *p, Err *err) {
    Weights *w = p->file;
    if (!w) return true;
    p->file = NULL;
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        if (!q->in_file) continue;
        free(q->kept);
        q->kept = q->packed = NULL;
        q->kept_bytes = 0, q->in_file = false;
    }
    bool ok = load_on_host(p, w, err);
    weights_close(w);
    return ok;
}

static bool load_parameters(Policy *p, const Weights *w, Err *err) {
    if (p->device->is_host) return load_on_host(p, w, err) && kept_scratch(p, err);
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        bool kept = kept_can(p, q, w);
        TRY(kept ? kept_load(p, q, w, err) : parameter_alloc(p, q, err) && load_whole(p, q, w, err));
        weights_drop_pages(w); // what was read of the file counts as this process's memory
    }
    return kept_scratch(p, err);
}

typedef struct TokenizerLoad {
    const char *path;
    Tokenizer *tokenizer;
    bool ok;
    Err err;
    atomic_bool done;
} TokenizerLoad;
static void *load_tokenizer(void *context) {
    TokenizerLoad *l = context;
    l->ok = tokenizer_open(l->path, &l->tokenizer, &l->err);
    atomic_store(&l->done, true);
    return NULL;
}
// Meanwhile what is used within the file comes into memory, in the order of its use: the embedding, which is the head, last.
static void fetch_file(const Policy *p, const atomic_bool *done) {
    enum { SLICE = 1 << 21 };
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[(i + 1) % p->parameter_count];
        for (size_t at = 0; q->in_file && at < q->kept_bytes && !atomic_load(done); at += SLICE)
            file_fetch_pages((const char *)q->packed + at, q->kept_bytes - at < SLICE ? q->kept_bytes - at : SLICE);
    }
}

bool policy_load(Policy *p, const char *path, const Weights *w, Err *err) {
    TokenizerLoad load = {.path = path};
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, load_tokenizer, &load) == 0;
    bool ok = load_parameters(p, w, err);
    if (ok && beside) fetch_file(p, &load.done);
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
