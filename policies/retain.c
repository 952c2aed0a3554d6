// Activations of a rollout, kept for training. Sampler and trainer compute the same numbers (invariant 1), so whatever a pass of
// the rollout has computed for a token is what the forward pass of training would compute again. Where there is memory for it, each pass
// puts it by the slots that its keys and values go to; the way back then takes it from there layer by layer, and no forward pass
// is made. Pages of samples that end aren't given to others then.
//
// They are held under a version, which ends when weights change, when another rollout keeps its own, or when a pass that isn't one of the
// rollout's needs the memory: training.kept is the same for both. A batch is served as a whole or not at all, and only if its
// ids, its targets and its temperature are those of the rollout, one by one.
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- what a rollout keeps --------------------------------------------------------------------------------
bool config_can_retain(const ModelConfig *c) {
    bool dense = !c->latent.R;
    for (int l = 0; dense && l < c->layers; l++) dense = !config_has_experts(c, l);
    return dense;
}
static size_t slot_bytes(const Policy *p) {
    size_t bytes = (size_t)p->config.width * 4 + 4;
    for (int l = 0; l < p->config.layers; l++) {
        KeptField fields[KEPT_FIELDS];
        Kept none = {0};
        kept_fields(p, l, &none, fields);
        for (int i = 0; i < KEPT_FIELDS; i++) bytes += fields[i].again ? 0 : fields[i].bytes;
    }
    return bytes;
}
// A function of the model and the rollout alone: so is what is counted of a run's work.
bool retain_wanted(const Policy *p, Retain retain, int64_t slots) {
    bool can = p->trainable && p->device->is_host && config_can_retain(&p->config);
    return can && (retain == RETAIN_ALWAYS || (retain == RETAIN_AUTO && (size_t)slots * slot_bytes(p) <= policy_bytes(p) / 4));
}

bool retain_reserve(Policy *p, int64_t pages, int64_t rows, Err *err) {
    Retained *r = &p->retained;
    int64_t slots = pages * PAGE; // nothing is kept of the page that nobody reads
    size_t bytes = (size_t)(pages + 1) * page_bytes(p) * (size_t)p->config.layers;
    TRY(activations_reserve(p, slots, false, err) && activations_reserve_one(p, rows, err));
    if (bytes > r->page_bytes) {
        r->page_bytes = 0;
        RESERVE(r->pages, bytes);
        r->page_bytes = bytes;
    }
    if (slots > r->slots) {
        r->slots = 0;
        RESERVE(r->h_last, slots * p->config.width * 4);
        RESERVE(r->rstd_last, slots * 4);
        r->slots = slots;
    }
    r->page_count = (int32_t)pages + 1;
    return true;
}

void retain_drop(Policy *p) { p->retained.version = 0; }

void retain_begin(Policy *p, int32_t samples) {
    Retained *r = &p->retained;
    arena_reset(&r->arena);
    r->version = r->last = r->last == UINT32_MAX ? 1 : r->last + 1;
    r->samples = ARENA_NEW(&r->arena, RetainedSample, samples);
    r->sample_count = samples;
}

void retain_sample(Policy *p, int32_t index, const RolloutRequest *request, const int32_t *table, int32_t pages) {
    Retained *r = &p->retained;
    RetainedSample *s = &r->samples[index];
    int32_t tokens = request->sampling.max_tokens;
    *s = (RetainedSample){.prompt_length = request->prompt_length, .table = ARENA_NEW(&r->arena, int32_t, pages),
                          .ids = ARENA_NEW(&r->arena, int32_t, request->prompt_length + tokens), .record = ARENA_NEW(&r->arena, TokenRecord, tokens),
                          .inv_temperature = request->sampling.temperature > 0 ? (float)(1.0 / request->sampling.temperature) : 1.0f};
    memcpy(s->table, table, (size_t)pages * sizeof *table);
    memcpy(s->ids, request->prompt, (size_t)request->prompt_length * sizeof *request->prompt);
    for (int32_t i = 0; i < tokens; i++) s->record[i] = (TokenRecord){NAN, NAN, NAN, NAN};
}

uint64_t retain_end(Policy *p, int32_t index, const Completion *c) {
    RetainedSample *s = &p->retained.samples[index];
    s->total = completion_total(c);
    memcpy(s->ids + s->prompt_length, completion_all(c), (size_t)s->total * sizeof *s->ids);
    return (uint64_t)p->retained.version << 32 | (uint32_t)index;
}

void retain_free(Policy *p) {
    Retained *r = &p->retained;
    p->device->release(p->device, r->h_last);
    p->device->release(p->device, r->rstd_last);
    p->device->release(p->device, r->pages);
    arena_reset(&r->arena);
    free(r->row_slot), free(r->page_from), free(r->records), free(r->column);
    *r = (Retained){0};
}

// ---- in a rollout's passes -------------------------------------------------------------------------------
static void add_array(MoveRowsArgs *m, size_t bytes, const void *x, void *y) {
    m->arrays[m->count].bytes = bytes, m->arrays[m->count].x = x, m->arrays[m->count++].y = y;
}
static void *pointer_at(const void *at) {
    void *pointer;
    memcpy(&pointer, at, sizeof pointer);
    return pointer;
}
static void add_fields(const Policy *p, int layer, MoveRowsArgs *m, Kept *from, Kept *to) {
    KeptField x[KEPT_FIELDS], y[KEPT_FIELDS];
    kept_fields(p, layer, from, x);
    kept_fields(p, layer, to, y);
    for (int i = 0; i < KEPT_FIELDS; i++)
        if (x[i].bytes && !x[i].again) add_array(m, x[i].bytes, pointer_at(x[i].at), pointer_at(y[i].at));
}

void retain_layer(const Policy *p, const Pass *pass, int layer) {
    MoveRowsArgs m = {.n = pass->slots, .from = pass->slot_row, .to = pass->slot};
    Kept one = p->training.one;
    add_fields(p, layer, &m, &one, &p->training.kept[layer]);
    p->device->move_rows(p->device, &m);
}
void retain_last(const Policy *p, const Pass *pass) {
    MoveRowsArgs m = {.n = pass->slots, .from = pass->slot_row, .to = pass->slot};
    add_array(&m, (size_t)p->config.width * 4, p->work.h, p->retained.h_last);
    add_array(&m, 4, p->training.one.rstd1, p->retained.rstd_last);
    p->device->move_rows(p->device, &m);
}

// ---- in a training pass ----------------------------------------------------------------------------------
// The sample of a packed sequence, if it is held and has its ids.
static const RetainedSample *find_sample(const Policy *p, const Packed *b, const PackedGroup *g, const PackedSequence *q) {
    const Retained *r = &p->retained;
    uint32_t version = (uint32_t)(q->activations >> 32), index = (uint32_t)q->activations;
    if (version == 0 || version != r->version || index >= (uint32_t)r->sample_count) return NULL;
    const RetainedSample *s = &r->samples[index];
    bool same = s->total > 0 && s->prompt_length == g->prompt_length && s->total - 1 == q->length &&
                memcmp(s->ids, b->tokens + g->prompt_start, (size_t)g->prompt_length * 4) == 0 &&
                memcmp(s->ids + s->prompt_length, b->tokens + q->start, (size_t)q->length * 4) == 0 && s->inv_temperature == (float)(1.0 / b->temperature);
    return same ? s : NULL;
}
static const RetainedSample *sample_of(const Policy *p, const PackedSequence *q) { return &p->retained.samples[(uint32_t)q->activations]; }
static int32_t targets_end(const Packed *b, int32_t sequence) {
    return sequence + 1 < b->sequence_count ? b->sequences[sequence + 1].first_target : b->target_count;
}
// Which token of its course a target is.
static int32_t place_in_course(const Packed *b, const PackedGroup *g, const PackedSequence *q, int32_t target) {
    int32_t row = b->row[target];
    return row == g->prompt_start + g->prompt_length - 1 ? 0 : row - q->start + 1;
}
static bool has_targets(const Packed *b, const PackedGroup *g, int32_t sequence, const RetainedSample *s) {
    const PackedSequence *q = &b->sequences[sequence];
    int32_t end = targets_end(b, sequence);
    if (q->first_target < 0 || end > b->target_count) return false;
    for (int32_t t = q->first_target; t < end; t++) {
        int32_t at = place_in_course(b, g, q, t);
        if (at < 0 || at >= s->total || s->ids[s->prompt_length + at] != b->target[t] || s->record[at].max != s->record[at].max) return false;
    }
    return true;
}
bool policy_has_activations(Policy *p, const Packed *b) {
    if (!p->retained.version || b->whole || b->kept_start || (b->vocabulary && b->vocabulary != p->config.vocabulary) || b->sequence_count == 0) return false;
    for (int g = 0; g < b->group_count; g++) {
        const PackedGroup *group = &b->groups[g];
        if (group->sequence_count == 0) return false;
        for (int i = group->first_sequence, end = i + group->sequence_count; i < end; i++) {
            const RetainedSample *s = find_sample(p, b, group, &b->sequences[i]);
            if (!s || !has_targets(b, group, i, s)) return false;
        }
    }
    return b->sequences[0].first_target == 0;
}

static int64_t slot_of(const RetainedSample *s, int32_t position) { return (int64_t)s->table[position / PAGE] * PAGE + position % PAGE; }
// The prompt's rows are those of the group's first sample; pages stand in the order in which paging_build counts them.
static void find_group(Policy *p, const Packed *b, const PackedGroup *g, int32_t *page) {
    Retained *r = &p->retained;
    const RetainedSample *first = sample_of(p, &b->sequences[g->first_sequence]);
    int32_t P = g->prompt_length, whole = P / PAGE;
    for (int32_t i = 0; i < P; i++) r->row_slot[g->prompt_start + i] = slot_of(first, i);
    for (int32_t i = 0; i < whole; i++) r->page_from[(*page)++] = first->table[i];
    for (int i = g->first_sequence, end = i + g->sequence_count; i < end; i++) {
        const PackedSequence *q = &b->sequences[i];
        const RetainedSample *s = sample_of(p, q);
        for (int32_t j = 0; j < q->length; j++) r->row_slot[q->start + j] = slot_of(s, P + j);
        for (int32_t j = whole; j < pages_for((int64_t)P + q->length); j++) r->page_from[(*page)++] = s->table[j];
        for (int32_t t = q->first_target, last = targets_end(b, i); t < last; t++) r->records[t] = s->record[place_in_course(b, g, q, t)];
    }
}
static void *room(void *data, int64_t *capacity, int64_t wanted, size_t size) {
    if (wanted <= *capacity) return data;
    *capacity = wanted;
    return xrealloc(data, (size_t)wanted * size);
}
bool retain_find(Policy *p, const Packed *b) {
    Retained *r = &p->retained;
    if (!policy_has_activations(p, b)) return false;
    int64_t targets = r->target_capacity;
    r->row_slot = room(r->row_slot, &r->row_capacity, b->token_count, sizeof *r->row_slot);
    r->page_from = room(r->page_from, &r->page_capacity, p->paging.page_count, sizeof *r->page_from);
    r->records = room(r->records, &targets, b->target_count, sizeof *r->records);
    r->column = room(r->column, &r->target_capacity, b->target_count, sizeof *r->column);
    int32_t page = 0;
    for (int g = 0; g < b->group_count; g++) find_group(p, b, &b->groups[g], &page);
    return true;
}

// One number of every target's record.
static void send_column(Policy *p, int32_t count, size_t offset, float *to) {
    Retained *r = &p->retained;
    for (int32_t t = 0; t < count; t++) memcpy(&r->column[t], (const char *)&r->records[t] + offset, sizeof *r->column);
    p->device->upload(p->device, to, r->column, (size_t)count * sizeof *r->column);
}
void restore_forward(Policy *p, const Packed *b) {
    const Retained *r = &p->retained;
    Training *t = &p->training;
    const Device *d = p->device;
    MoveRowsArgs m = {.n = b->token_count, .from = r->row_slots};
    add_array(&m, (size_t)p->config.width * 4, r->h_last, t->h_last);
    add_array(&m, 4, r->rstd_last, t->rstd_last);
    d->move_rows(d, &m);
    block_input(p, b->token_count, p->final_norm, t->h_last, p->work.final, NULL);
    send_column(p, b->target_count, offsetof(TokenRecord, logprob), t->logprob);
    send_column(p, b->target_count, offsetof(TokenRecord, entropy), t->entropy);
    send_column(p, b->target_count, offsetof(TokenRecord, max), t->max);
    send_column(p, b->target_count, offsetof(TokenRecord, log_sum), t->log_sum);
}
void restore_layer(Policy *p, int layer) {
    const Retained *r = &p->retained;
    const Device *d = p->device;
    size_t bytes = page_bytes(p);
    MoveRowsArgs rows = {.n = p->training.staged.pass.T, .from = r->row_slots}, pages = {.n = p->paging.page_count, .from = r->page_froms};
    Kept one = p->training.one;
    add_fields(p, layer, &rows, &p->training.kept[layer], &one);
    d->move_rows(d, &rows);
    add_array(&pages, bytes, r->pages + (size_t)layer * (size_t)r->page_count * bytes, p->training.page_memory);
    d->move_rows(d, &pages);
    attention_output(p, p->training.staged.pass.T, layer, &one);
}
