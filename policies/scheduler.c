// Continuous batching. Requests wait in order; whenever enough places and pages are free the next one is admitted: its
// prompt is computed once, in one pass with the prompts of others admitted at that moment, and its samples decode from
// then on, one row each, side by side with all others. A row's numbers depend on nobody else in the batch, so neither
// the number of places nor the order in which samples finish can change them.
//
// Pages are reserved for a sample's longest possible course when it is admitted: nothing is ever thrown out again.
#include "model.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct Place { // one sample in decoding
    int32_t request, sample;
    int32_t *table;      // [table_capacity] page numbers
    int32_t shared;      // the first pages, which belong to the group
    int32_t owned;       // pages after them
    int32_t length;      // tokens of the completion so far
    TokenStream *stream; // where stop strings are watched
    Buf text;
} Place;

typedef struct Group { // one admitted request
    int32_t *pages; // whole pages of its prompt
    int32_t page_count, alive;
} Group;

typedef struct RolloutMemory {
    Arena arena;
    int64_t *kept_capacity; // [count]
    int32_t *capacity;      // [count]
} RolloutMemory;

typedef struct Scheduler {
    Policy *p;
    const RolloutRequest *requests;
    int32_t request_count, next;
    int32_t *first; // [requests] index of the first completion
    RolloutOptions options;
    Rollout *out;
    Group *groups; // [requests]
    Place *places;
    int32_t place_count, capacity;
    int32_t *free_pages, free_count, total_pages, table_capacity;
    char *page_memory;
    // rows of one pass, and what the head gives for them
    int32_t row_capacity;
    int32_t *tokens, *position, *table_start, *table, *head_row;
    int64_t *slot_start, *slot;
    float *inv_temperature, *logits, *entropy;
    VocabStats *stats;
    SampleRow *rows;
    void *head_x, *order;
    int32_t *kept; // [places][V] where anything is truncated
    bool truncates;
    int64_t finished;
    double last_progress;
} Scheduler;

static int32_t pages_for(int64_t tokens) { return (int32_t)((tokens + PAGE - 1) / PAGE); }
static bool is_truncated(const Sampling *s) { return s->temperature > 0 && (s->top_k > 0 || s->top_p < 1 || s->min_p > 0); }
static int32_t own_pages(const RolloutRequest *r) {
    return pages_for((int64_t)r->prompt_length + r->sampling.max_tokens) - r->prompt_length / PAGE;
}
static int64_t request_pages(const RolloutRequest *r) {
    return r->prompt_length / PAGE + (int64_t)r->samples * own_pages(r);
}

// ---- checks and sizes ------------------------------------------------------------------------------------
static bool request_check(const Policy *p, const RolloutRequest *r, int32_t index, Err *err) {
    char where[64];
    snprintf(where, sizeof where, "prompt %d", index);
    if (r->prompt_length < 1 || r->samples < 1) return fail(err, ERR_DATA, where, "is empty, expected at least one token and one sample");
    if (r->sampling.max_tokens < 1) return fail(err, ERR_DATA, where, "max_tokens is %d, expected at least 1", r->sampling.max_tokens);
    if ((int64_t)r->prompt_length + r->sampling.max_tokens > p->config.max_positions)
        return fail(err, ERR_DATA, where, "%d tokens of prompt and max_tokens %d exceed the model's %d positions", r->prompt_length,
                    r->sampling.max_tokens, p->config.max_positions);
    for (int32_t i = 0; i < r->prompt_length; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= p->config.vocabulary)
            return fail(err, ERR_DATA, where, "id %d at place %d, expected 0 to %d", r->prompt[i], i, p->config.vocabulary - 1);
    return !(r->sampling.stop && r->sampling.stop[0]) || p->tokenizer ||
           fail(err, ERR_DATA, where, "stop strings need a tokenizer, this model has none");
}

enum { DEFAULT_PLACES = 512 };
static bool scheduler_sizes(Scheduler *s, Err *err) {
    int64_t samples = 0, most_pages = 0, most_samples = 0, longest = 0, prompt = 0;
    for (int32_t i = 0; i < s->request_count; i++) {
        const RolloutRequest *r = &s->requests[i];
        TRY(request_check(s->p, r, i, err));
        s->first[i] = (int32_t)samples;
        samples += r->samples;
        if (samples > INT32_MAX / 2) return fail(err, ERR_DATA, "rollout", "too many samples");
        if (r->samples > most_samples) most_samples = r->samples;
        if (r->prompt_length > prompt) prompt = r->prompt_length;
        int64_t pages = pages_for((int64_t)r->prompt_length + r->sampling.max_tokens);
        if (pages > longest) longest = pages;
        if (request_pages(r) > most_pages) most_pages = request_pages(r);
        s->truncates |= is_truncated(&r->sampling);
    }
    int64_t places = s->options.max_sequences > 0 ? s->options.max_sequences : DEFAULT_PLACES;
    if (places < most_samples) places = most_samples; // a group is admitted whole
    if (places > samples) places = samples;
    // Pages for as many places as there are, each with the longest course; at least the largest group.
    int64_t pages = places * longest, all = 0;
    for (int32_t i = 0; i < s->request_count && all < pages; i++) all += request_pages(&s->requests[i]);
    if (pages > all) pages = all;
    if (pages < most_pages) pages = most_pages;
    s->capacity = (int32_t)places;
    s->total_pages = (int32_t)pages;
    s->table_capacity = (int32_t)longest;
    s->row_capacity = (int32_t)(places > prompt ? places : prompt) + 1024;
    return true;
}

static bool scheduler_alloc(Scheduler *s, Err *err) {
    Policy *p = s->p;
    int64_t V = p->config.vocabulary, padded = vocab_padded(V), places = s->capacity, rows = s->row_capacity;
    TRY(mem_alloc((size_t)s->total_pages * page_bytes(p) * (size_t)p->config.layers, "keys and values", (void **)&s->page_memory, err));
    TRY(mem_alloc((size_t)(places * padded) * 4, "logits", (void **)&s->logits, err));
    TRY(mem_alloc((size_t)(places * (padded / VOCAB_BLOCK)) * sizeof(VocabStats), "head", (void **)&s->stats, err));
    TRY(mem_alloc(act_bytes(p, places * p->config.width) + 2, "head", &s->head_x, err)); // read in pairs
    if (s->truncates) {
        TRY(mem_alloc((size_t)(places * V) * 4, "kept sets", (void **)&s->kept, err));
        TRY(mem_alloc((size_t)(p->device->threads * V) * 8, "kept sets", &s->order, err));
    }
    s->free_pages = xmalloc((size_t)s->total_pages * 4);
    for (int32_t i = 0; i < s->total_pages; i++) s->free_pages[s->free_count++] = s->total_pages - 1 - i;
    s->places = xcalloc((size_t)places, sizeof *s->places);
    s->groups = xcalloc((size_t)s->request_count, sizeof *s->groups);
    s->tokens = xmalloc((size_t)rows * 4), s->position = xmalloc((size_t)rows * 4);
    s->table_start = xmalloc((size_t)rows * 4), s->head_row = xmalloc((size_t)rows * 4);
    s->table = xmalloc((size_t)(rows * s->table_capacity) * 4);
    s->slot_start = xmalloc((size_t)(rows + 1) * 8);
    s->slot = xmalloc((size_t)(rows + places * PAGE) * 8);
    s->inv_temperature = xmalloc((size_t)rows * 4), s->entropy = xmalloc((size_t)rows * 4);
    s->rows = xcalloc((size_t)places, sizeof *s->rows);
    return true;
}

static void scheduler_free(Scheduler *s) {
    for (int32_t i = 0; i < s->place_count; i++) {
        free(s->places[i].table);
        token_stream_close(s->places[i].stream);
        buf_free(&s->places[i].text);
    }
    for (int32_t i = 0; s->groups && i < s->request_count; i++) free(s->groups[i].pages);
    mem_free(s->page_memory), mem_free(s->logits), mem_free(s->stats), mem_free(s->head_x), mem_free(s->kept), mem_free(s->order);
    free(s->free_pages), free(s->places), free(s->groups), free(s->tokens), free(s->position), free(s->table_start);
    free(s->head_row), free(s->table), free(s->slot_start), free(s->slot), free(s->inv_temperature), free(s->entropy);
    free(s->rows), free(s->first);
}

// ---- passes ----------------------------------------------------------------------------------------------
static bool run_pass(Scheduler *s, int32_t rows, Err *err) {
    Policy *p = s->p;
    Pass pass = {.T = rows, .tokens = s->tokens, .position = s->position, .table_start = s->table_start, .table = s->table,
                 .slot_start = s->slot_start, .slot = s->slot, .pages = s->page_memory,
                 .layer_bytes = (size_t)s->total_pages * page_bytes(p)};
    return transformer_forward(p, &pass, NULL, err);
}

static void sample_rows(Scheduler *s, int32_t from, int32_t count);

// Logits of `count` rows of the last pass (head_row), for places from..from+count-1, then a token for each.
static void run_head(Scheduler *s, int32_t from, int32_t count) {
    Policy *p = s->p;
    const Device *d = p->device;
    d->gather(d, &(GatherArgs){.T = count, .C = p->config.width, .dtype = p->dtype, .row = s->head_row, .x = p->work.final, .y = s->head_x});
    for (int32_t i = 0; i < count; i++) {
        double t = s->requests[s->places[from + i].request].sampling.temperature;
        s->inv_temperature[i] = t > 0 ? (float)(1.0 / t) : 1.0f;
    }
    d->head(d, &(HeadArgs){.M = count, .V = p->config.vocabulary, .C = p->config.width, .dtype = p->dtype, .x = s->head_x,
                           .w = p->head->packed, .inv_temperature = s->inv_temperature, .logits = s->logits,
                           .entropy = s->entropy, .stats = s->stats, .scratch = p->head_scratch});
    p->flops += 2.0 * count * p->config.width * p->config.vocabulary;
    sample_rows(s, from, count);
}

static void sample_rows(Scheduler *s, int32_t from, int32_t count) {
    Policy *p = s->p;
    for (int32_t i = 0; i < count; i++) {
        const Place *place = &s->places[from + i];
        const RolloutRequest *r = &s->requests[place->request];
        RandomKey key = random_key(r->seed, STREAM_TOKENS);
        bool truncated = is_truncated(&r->sampling);
        s->rows[i] = (SampleRow){.greedy = r->sampling.temperature <= 0,
                                 .top_k = r->sampling.top_k,
                                 .top_p = (float)r->sampling.top_p,
                                 .min_p = (float)r->sampling.min_p,
                                 .uniform = random_uniform(key, r->step, r->prompt_index, (uint32_t)place->sample, (uint32_t)place->length),
                                 .kept = truncated ? s->kept + (int64_t)i * p->config.vocabulary : NULL};
    }
    p->device->sample(p->device, &(SampleArgs){.M = count, .V = p->config.vocabulary, .logits = s->logits, .stats = s->stats,
                                               .entropy = s->entropy, .rows = s->rows, .order = s->order});
}

// ---- a sample's course -----------------------------------------------------------------------------------
static void *grow(Arena *a, const void *old, size_t used, size_t bytes) {
    void *fresh = arena_alloc(a, bytes);
    if (used) memcpy(fresh, old, used);
    return fresh;
}

static void completion_push(Scheduler *s, const Place *place, const SampleRow *row) {
    int32_t index = s->first[place->request] + place->sample;
    Completion *c = &s->out->completions[index];
    RolloutMemory *m = s->out->memory;
    if (c->length == m->capacity[index]) {
        size_t used = (size_t)c->length * 4;
        int32_t capacity = m->capacity[index] = c->length ? 2 * c->length : 32;
        c->ids = grow(&m->arena, c->ids, used, (size_t)capacity * 4);
        c->logprob = grow(&m->arena, c->logprob, used, (size_t)capacity * 4);
        c->entropy = grow(&m->arena, c->entropy, used, (size_t)capacity * 4);
        if (row->kept) c->kept_start = grow(&m->arena, c->kept_start, c->length ? (size_t)(c->length + 1) * 8 : 0, (size_t)(capacity + 1) * 8);
    }
    c->ids[c->length] = row->token;
    c->logprob[c->length] = row->logprob;
    c->entropy[c->length] = row->entropy;
    if (row->kept) {
        int64_t start = c->kept_start[c->length], end = start + row->kept_count;
        if (end > m->kept_capacity[index]) {
            m->kept_capacity[index] = 2 * end + 64;
            c->kept_ids = grow(&m->arena, c->kept_ids, (size_t)start * 4, (size_t)m->kept_capacity[index] * 4);
        }
        memcpy(c->kept_ids + start, row->kept, (size_t)row->kept_count * 4);
        c->kept_start[c->length + 1] = end;
    }
    c->length++;
}

static bool is_eos(const Policy *p, int32_t token) {
    for (int i = 0; i < p->config.stop_count; i++)
        if (p->config.stop_ids[i] == token) return true;
    return p->tokenizer && tokenizer_eos(p->tokenizer) == token;
}

static bool hits_stop_string(Place *place, const Sampling *sampling, int32_t token, bool *hit, Err *err) {
    *hit = false;
    if (!place->stream) return true;
    Buf piece = {0};
    bool ready, ok = token_stream_push(place->stream, token, &ready, &piece, err);
    size_t before = place->text.size;
    if (ok && ready) buf_append(&place->text, piece.data, piece.size);
    buf_free(&piece);
    for (int i = 0; ok && sampling->stop[i] && !*hit; i++) {
        size_t n = strlen(sampling->stop[i]), from = before > n ? before - n : 0;
        *hit = n && place->text.size > from && memmem(place->text.data + from, place->text.size - from, sampling->stop[i], n);
    }
    return ok;
}

// Takes the token that was drawn; *done where the sample ends with it.
static bool place_advance(Scheduler *s, Place *place, const SampleRow *row, bool *done, Err *err) {
    const Sampling *sampling = &s->requests[place->request].sampling;
    Completion *c = &s->out->completions[s->first[place->request] + place->sample];
    bool stop = false;
    completion_push(s, place, row);
    place->length++;
    s->out->new_tokens++;
    TRY(hits_stop_string(place, sampling, row->token, &stop, err));
    if (!sampling->ignore_eos && is_eos(s->p, row->token)) stop = true;
    *done = stop || place->length >= sampling->max_tokens;
    c->finish = stop ? FINISH_STOP : FINISH_LENGTH;
    return true;
}

static void place_leave(Scheduler *s, int32_t index) {
    Place *place = &s->places[index];
    Group *g = &s->groups[place->request];
    for (int32_t i = 0; i < place->owned; i++) s->free_pages[s->free_count++] = place->table[place->shared + i];
    if (--g->alive == 0) {
        for (int32_t i = 0; i < g->page_count; i++) s->free_pages[s->free_count++] = g->pages[i];
        free(g->pages);
        g->pages = NULL;
    }
    s->finished++;
    if (s->options.finished)
        s->options.finished(s->options.context, place->request, place->sample,
                            &s->out->completions[s->first[place->request] + place->sample]);
    free(place->table);
    token_stream_close(place->stream);
    buf_free(&place->text);
    memmove(place, place + 1, (size_t)(s->place_count - index - 1) * sizeof *place); // order stays that of admission
    s->place_count--;
}

// Draws are taken for places [from, from + count); those that end leave.
static bool places_advance(Scheduler *s, int32_t from, int32_t count, Err *err) {
    int32_t at = from;
    for (int32_t i = 0; i < count; i++) {
        bool done;
        TRY(place_advance(s, &s->places[at], &s->rows[i], &done, err));
        if (done)
            place_leave(s, at);
        else
            at++;
    }
    return true;
}

// ---- admission and prefill -------------------------------------------------------------------------------
static void admit(Scheduler *s, int32_t request) {
    const RolloutRequest *r = &s->requests[request];
    Group *g = &s->groups[request];
    g->page_count = r->prompt_length / PAGE;
    g->alive = r->samples;
    g->pages = xmalloc((size_t)(g->page_count + 1) * 4);
    for (int32_t i = 0; i < g->page_count; i++) g->pages[i] = s->free_pages[--s->free_count];
    for (int32_t sample = 0; sample < r->samples; sample++) {
        Place *place = &s->places[s->place_count++];
        *place = (Place){.request = request, .sample = sample, .shared = g->page_count, .owned = own_pages(r)};
        place->table = xmalloc((size_t)(place->shared + place->owned) * 4);
        memcpy(place->table, g->pages, (size_t)g->page_count * 4);
        for (int32_t i = 0; i < place->owned; i++) place->table[place->shared + i] = s->free_pages[--s->free_count];
        if (r->sampling.stop && r->sampling.stop[0]) place->stream = token_stream_open(s->p->tokenizer);
    }
}

// Rows of a prompt: its whole pages once, the rest into every sample's own page.
static void prompt_rows(Scheduler *s, const RolloutRequest *r, int32_t first_place, int32_t *row, int64_t *table, int64_t *slot) {
    const Place *places = &s->places[first_place];
    int32_t whole = r->prompt_length / PAGE, pages = pages_for(r->prompt_length);
    memcpy(s->table + *table, places[0].table, (size_t)pages * 4);
    for (int32_t i = 0; i < r->prompt_length; i++, ++*row) {
        s->tokens[*row] = r->prompt[i];
        s->position[*row] = i;
        s->table_start[*row] = (int32_t)*table;
        s->slot_start[*row] = *slot;
        int32_t copies = i < whole * PAGE ? 1 : r->samples;
        for (int32_t c = 0; c < copies; c++) s->slot[(*slot)++] = (int64_t)places[c].table[i / PAGE] * PAGE + i % PAGE;
    }
    *table += pages;
}

static bool prefill(Scheduler *s, Err *err) {
    int32_t row = 0, first = s->place_count, head = 0;
    int64_t table = 0, slot = 0;
    double start = clock_seconds();
    while (s->next < s->request_count) {
        const RolloutRequest *r = &s->requests[s->next];
        bool fits = s->place_count + r->samples <= s->capacity && request_pages(r) <= s->free_count;
        if (!fits || (row > 0 && row + r->prompt_length > s->row_capacity)) break;
        int32_t place = s->place_count;
        admit(s, s->next++);
        prompt_rows(s, r, place, &row, &table, &slot);
        for (int32_t i = 0; i < r->samples; i++) s->head_row[head++] = row - 1;
        s->out->prompt_tokens += r->prompt_length;
    }
    if (row == 0) return true;
    s->slot_start[row] = slot;
    TRY(run_pass(s, row, err));
    run_head(s, first, head);
    s->out->prefill_seconds += clock_seconds() - start;
    return places_advance(s, first, head, err);
}

static bool decode(Scheduler *s, Err *err) {
    double start = clock_seconds();
    int32_t rows = s->place_count;
    int64_t table = 0;
    for (int32_t i = 0; i < rows; i++) {
        const Place *place = &s->places[i];
        const RolloutRequest *r = &s->requests[place->request];
        const Completion *c = &s->out->completions[s->first[place->request] + place->sample];
        int32_t position = r->prompt_length + place->length - 1, pages = position / PAGE + 1;
        s->tokens[i] = c->ids[c->length - 1];
        s->position[i] = position;
        s->table_start[i] = (int32_t)table;
        memcpy(s->table + table, place->table, (size_t)pages * 4);
        table += pages;
        s->slot_start[i] = i;
        s->slot[i] = (int64_t)place->table[position / PAGE] * PAGE + position % PAGE;
        s->head_row[i] = i;
    }
    s->slot_start[rows] = rows;
    TRY(run_pass(s, rows, err));
    run_head(s, 0, rows);
    s->out->decode_seconds += clock_seconds() - start;
    return places_advance(s, 0, rows, err);
}

static bool report_progress(Scheduler *s, Err *err) {
    if (!s->options.progress || clock_seconds() - s->last_progress < 0.1) return true;
    s->last_progress = clock_seconds();
    return s->options.progress(s->options.context, s->out->new_tokens, (int32_t)s->finished) ||
           fail(err, ERR_INTERRUPTED, "rollout", "interrupted");
}

bool policy_rollout(Policy *p, const RolloutRequest *requests, int32_t count, const RolloutOptions *options, Rollout *out, Err *err) {
    Scheduler s = {.p = p, .requests = requests, .request_count = count, .out = out};
    *out = (Rollout){0};
    if (options) s.options = *options;
    s.first = xcalloc((size_t)count + 1, sizeof *s.first);
    bool ok = scheduler_sizes(&s, err) && scheduler_alloc(&s, err);
    if (ok) {
        out->count = count ? s.first[count - 1] + requests[count - 1].samples : 0;
        out->completions = xcalloc((size_t)out->count + 1, sizeof *out->completions);
        out->memory = xcalloc(1, sizeof *out->memory);
        out->memory->capacity = xcalloc((size_t)out->count + 1, sizeof(int32_t));
        out->memory->kept_capacity = xcalloc((size_t)out->count + 1, sizeof(int64_t));
    }
    while (ok && (s.next < count || s.place_count > 0)) {
        ok = prefill(&s, err) && (s.place_count == 0 || decode(&s, err)) && report_progress(&s, err);
    }
    scheduler_free(&s);
    if (!ok) rollout_free(out);
    return ok;
}

void rollout_free(Rollout *r) {
    if (r->memory) {
        arena_reset(&r->memory->arena);
        free(r->memory->capacity), free(r->memory->kept_capacity), free(r->memory);
    }
    free(r->completions);
    *r = (Rollout){0};
}
