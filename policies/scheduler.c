// Continuous batching. Requests wait in order; whenever enough places and pages are free the next one is admitted: its
// prompt is computed once, in one pass with the prompts of others admitted at that moment, and its samples decode from
// then on, one row each, side by side with all others. A row's numbers depend on nobody else in the batch, so neither
// the number of places nor the order in which samples finish can change them.
//
// Pages are reserved for a sample's longest possible course when it is admitted: nothing is ever thrown out again.
//
// A sample's turn ends where it stops or has used up a budget. If it goes on, the tokens given to it are computed in one
// pass behind its last one, into the same pages, and it decodes on. While it waits for them the others decode. Which of
// them is ready first changes no number: a row depends on its own tokens and places only.
//
// The host is the place of record: it knows every sample's tokens. For a round of decoding it sends the rows' state to the
// device, queues a number of steps (one on the CPU, STEPS where the device works on its own), and then reads the tokens
// that they recorded. A sample that ended early in the round costs the rest of the round's steps and nothing else.
#include "scheduler_parts.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 16 }; // of decoding on a device between two looks of the host

static bool thinks_within_budgets(const Scheduler *s) {
    for (int32_t i = 0; i < s->request_count; i++)
        if (s->requests[i].sampling.think_tokens > 0) return true;
    return false;
}

// The pages are the policy's, for as long as it holds them.
static bool retained_pages(Scheduler *s, Err *err) {
    Policy *p = s->p;
    const Device *d = p->device;
    retain_drop(p);
    TRY(retain_reserve(p, s->total_pages, s->row_capacity, err));
    TRY(d->allocate(d, (size_t)s->capacity * 4, "head", (void **)&s->max, err));
    TRY(d->allocate(d, (size_t)s->capacity * 4, "head", (void **)&s->log_sum, err));
    s->page_memory = p->retained.pages;
    s->slot_row = xmalloc((size_t)(s->row_capacity + s->capacity * PAGE) * 8);
    return true;
}

static bool scheduler_alloc(Scheduler *s, Err *err) {
    Policy *p = s->p;
    const Device *d = p->device;
    int64_t V = p->config.vocabulary, padded = vocab_padded(V), places = s->capacity, rows = s->row_capacity;
    int64_t table = rows > places ? rows : places;
    if (s->options.cache) TRY(prompt_cache_take(s, err));
    else if (s->retains) TRY(retained_pages(s, err));
    else TRY(hold(d, (size_t)(s->total_pages + 1) * page_bytes(p) * (size_t)p->config.layers, "keys and values", (void **)&s->page_memory, err));
    TRY(hold(d, (size_t)(places * padded) * 4, "logits", (void **)&s->logits, err));
    TRY(d->allocate(d, (size_t)(places * (padded / VOCAB_BLOCK)) * sizeof(VocabStats), "head", (void **)&s->stats, err));
    TRY(d->allocate(d, act_bytes(p, places * p->config.width) + 2, "head", &s->head_x, err)); // read in pairs
    TRY(d->allocate(d, (size_t)places * 4, "head", (void **)&s->entropy, err));
    TRY(d->allocate(d, (size_t)(STEPS * places) * 4, "records", (void **)&s->record_token, err));
    TRY(d->allocate(d, (size_t)(STEPS * places) * 4, "records", (void **)&s->record_logprob, err));
    TRY(d->allocate(d, (size_t)(STEPS * places) * 4, "records", (void **)&s->record_entropy, err));
    if (s->truncates) {
        TRY(d->allocate(d, (size_t)(places * V) * 4, "kept sets", (void **)&s->kept, err));
        if (d->is_host) TRY(d->allocate(d, sample_scratch(d->threads, V), "kept sets", &s->order, err));
    }
    TRY(workspace_reserve(p, rows, err));
    TRY(rope_reserve(p, (int64_t)s->table_capacity * PAGE, err));
    s->free_pages = xmalloc((size_t)s->total_pages * 4 + 4);
    for (int32_t i = 0; i < s->total_pages; i++) s->free_pages[s->free_count++] = s->total_pages - 1 - i;
    s->places = xcalloc((size_t)places, sizeof *s->places);
    s->row_place = xmalloc((size_t)places * 4 + 4);
    s->groups = xcalloc((size_t)s->request_capacity + 1, sizeof *s->groups);
    s->ticks = xmalloc((size_t)s->request_capacity * 4 + 4);
    s->tokens = xmalloc((size_t)rows * 4), s->position = xmalloc((size_t)rows * 4);
    s->table_start = xmalloc((size_t)rows * 4), s->head_row = xmalloc((size_t)rows * 4);
    s->table = xmalloc((size_t)(table * s->table_capacity) * 4);
    s->slot_start = xmalloc((size_t)(rows + 1) * 8);
    s->slot = xmalloc((size_t)(rows + places * PAGE) * 8);
    s->inv_temperature = xmalloc((size_t)rows * 4);
    s->rows = xcalloc((size_t)places, sizeof *s->rows), s->state = xcalloc((size_t)places, sizeof *s->state);
    s->token_read = xmalloc((size_t)(STEPS * places) * 4);
    s->logprob_read = xmalloc((size_t)(STEPS * places) * 4), s->entropy_read = xmalloc((size_t)(STEPS * places) * 4);
    size_t drawn = (size_t)places * (size_t)s->most_tokens * 4 + 4;
    s->ids = xmalloc(drawn), s->logprob = xmalloc(drawn), s->sampled_entropy = xmalloc(drawn);
    if (s->truncates) s->kept_start = xmalloc(2 * drawn + (size_t)places * 8), s->kept_ids = xmalloc((size_t)(places * s->kept_room) * 4 + 4);
    for (int i = 0; i < p->config.stop_count; i++) ids_push(&s->stop, p->config.stop_ids[i]);
    if (p->tokenizer && tokenizer_eos(p->tokenizer) >= 0) ids_push(&s->stop, tokenizer_eos(p->tokenizer));
    d->forget(d); // recordings of an earlier rollout name its memory
    s->think_id = p->tokenizer ? tokenizer_id(p->tokenizer, THINK_END) : -1;
    return !p->tokenizer || !thinks_within_budgets(s) || tokenizer_encode(p->tokenizer, THINK_END, sizeof THINK_END - 1, false, &s->think_end, err);
}

static void place_clear(Place *place) {
    free(place->table);
    token_stream_close(place->stream);
    buf_free(&place->text);
    *place = (Place){0};
}

static void scheduler_free(Scheduler *s) {
    const Device *d = s->p->device;
    for (int32_t i = 0; s->places && i < s->capacity; i++) place_clear(&s->places[i]);
    for (int32_t i = 0; s->groups && i < s->request_count; i++) free(s->groups[i].pages);
    d->forget(d);
    void *const memory[] = {s->options.cache || s->retains ? NULL : s->page_memory, s->max, s->log_sum, s->logits, s->stats, s->head_x, s->entropy, s->kept, s->order,
                            s->record_token, s->record_logprob, s->record_entropy};
    for (int i = 0; i < COUNT(memory); i++) d->release(d, memory[i]);
    stage_free(s->p, &s->stage);
    ids_free(&s->stop), ids_free(&s->think_end);
    free(s->row_place), free(s->free_pages), free(s->places), free(s->groups), free(s->tokens), free(s->position), free(s->table_start);
    free(s->head_row), free(s->table), free(s->slot_start), free(s->slot), free(s->inv_temperature), free(s->rows);
    free(s->slot_row), free(s->ids), free(s->logprob), free(s->sampled_entropy), free(s->kept_start), free(s->kept_ids), free(s->state), free(s->token_read), free(s->logprob_read), free(s->entropy_read), free(s->first), free(s->ticks), free(s->requests);
}

static void count_flops(Policy *p, int64_t rows, double context, int64_t draws) {
    p->flops += (double)rows * config_flops(&p->config, context / (double)rows, false) +
                2.0 * (double)draws * p->config.width * p->config.vocabulary;
}

// ---- passes ----------------------------------------------------------------------------------------------
// What the draw after a row needs: row `i` of a round belongs to place number `index`, and is computed at `position`.
static void draw_row(Scheduler *s, int32_t i, int32_t index, int32_t position) {
    Place *place = &s->places[index];
    const RolloutRequest *r = &s->requests[place->request];
    const Sampling *g = &r->sampling;
    s->row_place[i] = index;
    place->limit = place_limit(s, place);
    RandomKey key = random_key(r->seed, STREAM_TOKENS);
    s->inv_temperature[i] = g->temperature > 0 ? (float)(1.0 / g->temperature) : 1.0f;
    s->state[i] = (DecodeRow){.key = key, .step = r->step, .prompt = r->prompt_index, .sample = (uint32_t)place->sample,
                              .length = place->length, .max_tokens = place->limit, .position = position, .ignore_stop = g->ignore_eos};
    s->rows[i] = (SampleRow){.greedy = g->temperature <= 0, .top_k = g->top_k, .top_p = (float)g->top_p, .min_p = (float)g->min_p,
                             .uniform = random_uniform(key, r->step, r->prompt_index, (uint32_t)place->sample, (uint32_t)place->length),
                             .kept = is_truncated(g) ? s->kept + (int64_t)i * s->p->config.vocabulary : NULL};
}

// A row that only fills up the round: it belongs to no sample, and writes into the page that nobody reads.
static void filler_row(Scheduler *s, int32_t i) {
    s->tokens[i] = s->position[i] = 0;
    s->table[(int64_t)i * s->table_capacity] = s->total_pages;
    s->slot[i] = (int64_t)s->total_pages * PAGE;
    s->inv_temperature[i] = 1;
    s->rows[i] = (SampleRow){.greedy = true, .top_p = 1};
    s->state[i] = (DecodeRow){.ended = true};
}

// Sends the rows of a pass, and what the draws of `draws` places need.
static bool send_rows(Scheduler *s, int32_t rows, int64_t table, int64_t slots, int32_t draws, Err *err) {
    Policy *p = s->p;
    Round *r = &s->round;
    *r = (Round){.p = p, .s = s, .rows = draws,
                 .pass = {.T = rows, .pages = s->page_memory, .layer_bytes = (size_t)(s->total_pages + 1) * page_bytes(p),
                          .retains = s->retains, .slots = slots}};
    STAGE_ADD(&s->stage, s->tokens, rows, &r->pass.tokens);
    STAGE_ADD(&s->stage, s->position, rows, &r->pass.position);
    STAGE_ADD(&s->stage, s->table_start, rows, &r->pass.table_start);
    STAGE_ADD(&s->stage, s->table, table, &r->pass.table);
    STAGE_ADD(&s->stage, s->slot_start, rows + 1, &r->pass.slot_start);
    STAGE_ADD(&s->stage, s->slot, slots, &r->pass.slot);
    STAGE_ADD(&s->stage, s->slot_row, s->retains ? slots : 0, &r->pass.slot_row);
    STAGE_ADD(&s->stage, s->head_row, draws, &r->head_row);
    STAGE_ADD(&s->stage, s->inv_temperature, draws, &r->inv_temperature);
    STAGE_ADD(&s->stage, s->rows, draws, &r->sample);
    STAGE_ADD(&s->stage, s->state, draws, &r->state);
    STAGE_ADD(&s->stage, s->stop.data, s->stop.count, &r->stop);
    r->table = r->pass.table;
    return stage_send(p, &s->stage, err);
}

// Logits of rows x [rows, C], a token for each, its record, and the rows of the next step.
static void head_and_draw(const Round *r, const void *x, bool next) {
    const Policy *p = r->p;
    const Scheduler *s = r->s;
    const Device *d = p->device;
    bool bytes = in_int8(p, p->head);
    d->head(d, &(HeadArgs){.M = r->rows, .V = p->config.vocabulary, .C = p->config.width, .dtype = p->dtype, .x = x,
                           .w = bytes ? p->head->int8 : p->head->packed, .format = bytes ? WEIGHT_INT8 : kept_format(p->head),
                           .blocks = bytes ? p->work.int8_x : p->block_scratch, .inv_temperature = r->inv_temperature,
                           .softcap = (float)p->config.logit_softcap, .logits = s->logits,
                           .entropy = s->entropy, .max = s->max, .log_sum = s->log_sum, .stats = s->stats, .scratch = p->head_scratch});
    d->sample(d, &(SampleArgs){.M = r->rows, .V = p->config.vocabulary, .logits = s->logits, .stats = s->stats,
                               .entropy = s->entropy, .rows = r->sample, .order = s->order, .truncated = s->truncates});
    // The arrays of a round are this scheduler's own; only a pass reads them as constants.
    d->advance(d, &(AdvanceArgs){.M = r->rows, .rows = r->sample, .state = r->state, .table = r->pass.table,
                                 .table_stride = s->table_capacity, .stop = r->stop, .stop_count = s->stop.count,
                                 .tokens = next ? (int32_t *)(uintptr_t)r->pass.tokens : NULL,
                                 .position = next ? (int32_t *)(uintptr_t)r->pass.position : NULL,
                                 .slot = next ? (int64_t *)(uintptr_t)r->pass.slot : NULL, .token = s->record_token,
                                 .logprob = s->record_logprob, .entropy = s->record_entropy});
}

static void decode_step(void *context) {
    const Round *r = context;
    transformer_forward(r->p, &r->pass, NULL);
    head_and_draw(r, r->p->work.final, true);
}

static bool read_records(Scheduler *s, int32_t steps, int64_t rows, Err *err) {
    const Device *d = s->p->device;
    size_t bytes = (size_t)(steps * rows) * 4;
    d->download(d, s->token_read, s->record_token, bytes);
    d->download(d, s->logprob_read, s->record_logprob, bytes);
    d->download(d, s->entropy_read, s->record_entropy, bytes);
    if (s->truncates) d->download(d, s->rows, s->round.sample, (size_t)rows * sizeof *s->rows);
    return d->finish(d, err);
}

// ---- the end of a turn, of a sample ----------------------------------------------------------------------
// One more request is complete, or was from the start: when enough are, the others' end is known, and it may move down.
static void request_complete(Scheduler *s, int32_t request) {
    int32_t tick = s->groups[request].tick, at = s->tick_count++;
    for (; at > 0 && s->ticks[at - 1] > tick; at--) s->ticks[at] = s->ticks[at - 1];
    s->ticks[at] = tick;
    if (s->requests[request].due) {
        s->due_left--;
        if (tick > s->due_tick) s->due_tick = tick;
    }
    if (s->options.complete == 0 || s->due_left > 0 || s->tick_count < s->options.complete) return;
    int32_t enough = s->ticks[s->options.complete - 1];
    s->end_tick = enough > s->due_tick ? enough : s->due_tick;
}

static bool is_paused(const Scheduler *s, const Place *place) {
    return place->state != PLACE_FREE && !place->carried && place->length - place->start >= s->end_tick;
}

static void place_leave(Scheduler *s, Place *place) {
    Group *g = &s->groups[place->request];
    bool paused = completion_of(s, place)->finish == FINISH_PAUSED;
    g->paused |= paused;
    if (place->length - place->start > g->tick) g->tick = place->length - place->start;
    for (int32_t i = 0; !s->retains && i < place->owned; i++) s->free_pages[s->free_count++] = place->table[place->shared + i];
    if (--g->alive == 0) {
        for (int32_t i = 0; !s->retains && i < g->page_count; i++) s->free_pages[s->free_count++] = g->pages[i];
        free(g->pages);
        g->pages = NULL;
        if (!g->paused) request_complete(s, place->request);
    }
    s->finished++;
    completion_end(s, place);
    if (s->retains) completion_of(s, place)->activations = retain_end(s->p, completion_index(s, place), completion_of(s, place));
    if (s->options.finished && !paused) s->options.finished(s->options.context, place->request, place->sample, completion_of(s, place));
    place_clear(place);
    s->place_count--;
}

// A sample whose turn or budget has ended: closes its thinking, waits for what it is given, or leaves.
static void place_end(Scheduler *s, Place *place) {
    const Sampling *sampling = &s->requests[place->request].sampling;
    Completion *c = completion_of(s, place);
    bool turn = c->finish == FINISH_STOP || place->length >= sampling->max_tokens ||
                (sampling->turn_tokens > 0 && place->length - place->turn_start >= sampling->turn_tokens);
    if (!turn && is_paused(s, place)) {
        c->finish = FINISH_PAUSED;
        place_leave(s, place);
        return;
    }
    if (!turn && !place->thinks) return; // thinking ended in time
    if (!turn && place_give(s, place, NULL, 0)) return;
    if (s->options.turn_ended && s->options.turn_ended(s->options.context, place->request, place->sample, c)) {
        place->state = PLACE_WAITS;
        s->waiting++;
    } else {
        place_leave(s, place);
    }
}

// What `steps` steps recorded for the first `count` rows of a round `rows` wide is taken by their places.
static bool places_advance(Scheduler *s, int32_t count, int32_t steps, int64_t rows, Err *err) {
    for (int32_t i = 0; i < count; i++) {
        bool ended = false;
        Place *place = &s->places[s->row_place[i]];
        if (place->carried) {
            bool room;
            TRY(place_carry_on(s, place, &room, err));
            if (room) continue;
            completion_of(s, place)->finish = FINISH_LENGTH;
            place_leave(s, place);
            continue;
        }
        place->state = PLACE_DECODES;
        place->pending = 0;
        for (int32_t step = 0; step < steps && !ended; step++) TRY(place_advance(s, place, step * rows + i, i, &ended, err));
        if (ended) place_end(s, place);
    }
    return true;
}

// The end has come to be known, or nearer, while others were beyond it already.
static void pause_places(Scheduler *s) {
    for (int32_t i = 0; s->end_tick < INT32_MAX && i < s->capacity; i++) {
        if (!is_paused(s, &s->places[i])) continue;
        completion_of(s, &s->places[i])->finish = FINISH_PAUSED;
        place_leave(s, &s->places[i]);
    }
}

static Place *waiting_place(const Scheduler *s, int32_t request, int32_t sample) {
    for (int32_t i = 0; i < s->capacity; i++)
        if (s->places[i].state == PLACE_WAITS && s->places[i].request == request && s->places[i].sample == sample) return &s->places[i];
    return NULL;
}

// Takes what is there for samples that wait; with `wait`, at least one.
static bool next_turns(Scheduler *s, bool wait, Err *err) {
    for (; s->waiting > 0; wait = false) {
        NextTurn next = {.request = -1};
        TRY(s->options.next_turn(s->options.context, wait, &next, err));
        if (next.request < 0) return true;
        Place *place = waiting_place(s, next.request, next.sample);
        if (!place) return fail(err, ERR_SOFTWARE, "rollout", "request %d sample %d does not wait for a turn", next.request, next.sample);
        s->waiting--;
        place->turn_start = place->length;
        if (!next.done && place_give(s, place, next.ids, next.count)) {
            place_watch_anew(s, place);
            continue;
        }
        if (!next.done) completion_of(s, place)->finish = FINISH_LENGTH;
        place_leave(s, place);
    }
    return true;
}

// ---- admission and prefill -------------------------------------------------------------------------------
static int32_t free_place(const Scheduler *s) {
    int32_t i = 0;
    while (s->places[i].state != PLACE_FREE) i++;
    return i;
}

static void take_place(Scheduler *s, int32_t index, int32_t request, int32_t sample) {
    const RolloutRequest *r = &s->requests[request];
    const Group *g = &s->groups[request];
    const Completion *carried = r->carried ? &r->carried[sample] : NULL;
    Place *place = &s->places[index];
    *place = (Place){.state = PLACE_DECODES, .request = request, .sample = sample, .shared = g->page_count, .owned = own_pages(r),
                     .thinks = r->sampling.think_tokens > 0, .carried = carried && carried->length > 0,
                     .start = carried ? completion_total(carried) : 0};
    place->table = xmalloc((size_t)(place->shared + place->owned) * 4);
    memcpy(place->table, g->pages, (size_t)g->page_count * 4);
    for (int32_t i = 0; i < place->owned; i++) place->table[place->shared + i] = s->free_pages[--s->free_count];
    if ((r->sampling.stop && r->sampling.stop[0]) || (place->thinks && s->think_id < 0)) place->stream = token_stream_open(s->p->tokenizer);
    s->place_count++;
    completion_begin(s, place);
    if (s->retains) retain_sample(s->p, completion_index(s, place), r, place->table, place->shared + place->owned);
}

// Admits a request and gives its samples' draws the rows of a round from `draw` on.
static void admit(Scheduler *s, int32_t request, int32_t draw) {
    const RolloutRequest *r = &s->requests[request];
    Group *g = &s->groups[request];
    g->page_count = r->prompt_length / PAGE;
    g->alive = live_samples(r);
    g->pages = xmalloc((size_t)(g->page_count + 1) * 4);
    for (int32_t i = 0; i < g->page_count; i++) g->pages[i] = s->free_pages[--s->free_count];
    for (int32_t sample = 0; sample < r->samples; sample++) {
        if (is_done(r, sample)) continue;
        int32_t index = free_place(s);
        take_place(s, index, request, sample);
        draw_row(s, draw++, index, r->prompt_length - 1);
    }
}

// The rows of one pass as they are put together.
typedef struct Rows {
    int32_t count, draws, longest_run, last_position;
    int64_t table, slot;
    double context;
} Rows;

static void add_row(Scheduler *s, Rows *rows, int32_t token, int32_t position, int64_t table_start) {
    s->tokens[rows->count] = token;
    s->position[rows->count] = position;
    s->table_start[rows->count] = (int32_t)table_start;
    s->slot_start[rows->count++] = rows->slot;
    rows->context += position + 1;
    if (position > rows->last_position) rows->last_position = position;
}

// The row that was added last goes to this position of a table, too.
static void add_slot(Scheduler *s, Rows *rows, const int32_t *table, int32_t position) {
    if (s->slot_row) s->slot_row[rows->slot] = rows->count - 1;
    s->slot[rows->slot++] = (int64_t)table[position / PAGE] * PAGE + position % PAGE;
}

static void end_run(Rows *rows, int32_t length, int32_t pages) {
    rows->table += pages;
    if (length > rows->longest_run) rows->longest_run = length;
}

// Rows of a prompt: its whole pages once, the rest into every sample's own page. Its samples draw from the last one.
static void prompt_rows(Scheduler *s, const RolloutRequest *r, Rows *rows) {
    int32_t whole = r->prompt_length / PAGE, pages = pages_for(r->prompt_length), live = live_samples(r);
    const int32_t *place = s->row_place + rows->draws;
    memcpy(s->table + rows->table, s->places[place[0]].table, (size_t)pages * 4);
    for (int32_t i = s->kept_rows; i < r->prompt_length; i++) {
        add_row(s, rows, r->prompt[i], i, rows->table);
        int32_t copies = i < whole * PAGE ? 1 : live;
        for (int32_t c = 0; c < copies; c++) add_slot(s, rows, s->places[place[c]].table, i);
    }
    end_run(rows, r->prompt_length - s->kept_rows, pages);
    for (int32_t i = 0; i < live; i++) s->head_row[rows->draws++] = rows->count - 1;
    s->out->prompt_tokens += r->prompt_length;
}

// Rows of a sample that goes on: the last token of its own, which no pass has computed yet, and those given to it.
static void given_rows(Scheduler *s, int32_t index, Rows *rows) {
    const Place *place = &s->places[index];
    const Completion *c = completion_of(s, place);
    const int32_t *all = completion_all(c) + completion_total(c);
    int32_t count = place->pending + 1, position = s->requests[place->request].prompt_length + place->length - count;
    int32_t pages = pages_for(position + count);
    memcpy(s->table + rows->table, place->table, (size_t)pages * 4);
    for (int32_t i = 0; i < count; i++, position++) {
        add_row(s, rows, all[i - count], position, rows->table);
        add_slot(s, rows, place->table, position);
    }
    end_run(rows, count, pages);
    s->head_row[rows->draws] = rows->count - 1;
    draw_row(s, rows->draws++, index, position - 1);
}

// Everything that goes on, and the next requests that have room.
static void gather_rows(Scheduler *s, Rows *rows) {
    for (int32_t i = 0; i < s->capacity; i++) {
        const Place *place = &s->places[i];
        if (place->state == PLACE_GIVEN && (rows->count == 0 || rows->count + place->pending + 1 <= s->row_capacity)) given_rows(s, i, rows);
    }
    while (s->next < s->request_count) {
        const RolloutRequest *r = &s->requests[s->next];
        if (live_samples(r) == 0) {
            s->next++;
            continue;
        }
        bool fits = s->place_count + live_samples(r) <= s->capacity && request_pages(r) <= s->free_count;
        if (!fits || (rows->count > 0 && rows->count + r->prompt_length > s->row_capacity)) break;
        admit(s, s->next++, rows->draws);
        prompt_rows(s, r, rows);
    }
    s->slot_start[rows->count] = rows->slot;
}

static bool prefill(Scheduler *s, Err *err) {
    Policy *p = s->p;
    const Device *d = p->device;
    Rows rows = {0};
    double start = clock_seconds();
    gather_rows(s, &rows);
    if (rows.count == 0) return true;
    TRY(send_rows(s, rows.count, rows.table, rows.slot, rows.draws, err));
    s->round.pass.max_position = rows.last_position;
    s->round.pass.max_run = rows.longest_run;
    transformer_forward(p, &s->round.pass, NULL);
    d->gather(d, &(GatherArgs){.T = rows.draws, .C = p->config.width, .dtype = p->dtype, .row = s->round.head_row, .x = p->work.final, .y = s->head_x});
    head_and_draw(&s->round, s->head_x, false);
    count_flops(p, rows.count, rows.context, rows.draws);
    TRY(read_records(s, 1, rows.draws, err));
    s->out->prefill_seconds += clock_seconds() - start;
    return places_advance(s, rows.draws, 1, rows.draws, err);
}

// ---- decoding --------------------------------------------------------------------------------------------
// Rows of a round: as many as there are samples, rounded up where a recording is made for each width.
static int32_t round_width(const Scheduler *s, int32_t n) {
    int32_t step = n <= 8 ? 1 : n <= 64 ? 8 : n <= 256 ? 32 : 64;
    if (s->p->device->is_host) return n;
    while (n <= 8 && n & (n - 1)) n++;
    n = (n + step - 1) / step * step;
    return n < s->capacity ? n : s->capacity;
}

static int32_t round_steps(const Scheduler *s) {
    int32_t most = 1;
    if (s->p->device->is_host || s->truncates) return 1;
    for (int32_t i = 0; i < s->capacity; i++) {
        const Place *place = &s->places[i];
        int32_t left = place->state == PLACE_DECODES ? place_limit(s, place) - place->length : 0;
        if (left > most) most = left;
    }
    return most < STEPS ? most : STEPS;
}

// Row `i` of the round decodes place number `index`; returns its position.
static int32_t decode_row(Scheduler *s, int32_t i, int32_t index) {
    const Place *place = &s->places[index];
    int32_t position = s->requests[place->request].prompt_length + place->length - 1;
    s->tokens[i] = place->last;
    s->position[i] = position;
    memcpy(s->table + (int64_t)i * s->table_capacity, place->table, (size_t)(place->shared + place->owned) * 4);
    s->slot[i] = (int64_t)place->table[position / PAGE] * PAGE + position % PAGE;
    if (s->slot_row) s->slot_row[i] = i;
    draw_row(s, i, index, position);
    return position;
}

static bool decode(Scheduler *s, Err *err) {
    Policy *p = s->p;
    double start = clock_seconds();
    int32_t count = 0, steps = round_steps(s), longest = 0;
    double context = 0;
    for (int32_t i = 0; i < s->capacity; i++) {
        if (s->places[i].state != PLACE_DECODES) continue;
        int32_t position = decode_row(s, count++, i);
        if (position > longest) longest = position;
        context += position + 1;
    }
    if (count == 0) return true;
    int32_t rows = round_width(s, count);
    for (int32_t i = count; i < rows; i++) filler_row(s, i);
    for (int32_t i = 0; i < rows; i++) s->table_start[i] = i * s->table_capacity, s->slot_start[i] = i;
    s->slot_start[rows] = rows;
    TRY(send_rows(s, rows, (int64_t)rows * s->table_capacity, rows, rows, err));
    // The bound on positions is part of a recording: it moves in steps, so that recordings serve again.
    int32_t bound = (longest + steps + 255) / 256 * 256, most = s->table_capacity * PAGE;
    s->round.pass.max_position = (bound < most ? bound : most) - 1;
    s->round.pass.max_run = 1;
    for (int32_t step = 0; step < steps; step++)
        p->device->replay(p->device, (uint64_t)(uint32_t)rows << 32 | (uint32_t)s->round.pass.max_position, decode_step, &s->round);
    count_flops(p, (int64_t)count * steps, steps * (context + 0.5 * count * (steps - 1)), (int64_t)count * steps);
    TRY(read_records(s, steps, rows, err));
    s->out->decode_seconds += clock_seconds() - start;
    return places_advance(s, count, steps, rows, err);
}

// Whether a sample decodes or has tokens to compute: something to do that waits for nobody.
static bool has_work(const Scheduler *s) {
    return s->place_count > s->waiting;
}

static bool report_progress(Scheduler *s, Err *err) {
    if (!s->options.progress || clock_seconds() - s->last_progress < 0.1) return true;
    s->last_progress = clock_seconds();
    return s->options.progress(s->options.context, s->out->new_tokens, (int32_t)s->finished) ||
           fail(err, ERR_INTERRUPTED, "rollout", "interrupted");
}

// ---- the rollout -----------------------------------------------------------------------------------------
static bool request_add(Scheduler *s, const RolloutRequest *r, Err *err) {
    int32_t index = s->request_count;
    TRY(request_check(s->p, r, index, err));
    if (r->prompt_length > s->longest_prompt || r->samples > s->most_samples || r->sampling.max_tokens > s->most_tokens || r->carried ||
        (is_truncated(&r->sampling) && !s->truncates))
        return fail(err, ERR_SOFTWARE, "rollout", "request %d is larger than the first ones", index);
    s->requests[index] = *r;
    s->first[index] = s->out->count;
    s->out->count += r->samples;
    s->request_count++;
    return true;
}

// Takes further requests that are ready; with `wait`, at least one, or none is left.
static bool more_requests(Scheduler *s, bool wait, Err *err) {
    while (s->options.next_request && !s->none_left && s->request_count < s->request_capacity) {
        RolloutRequest r = {0};
        bool there = false;
        TRY(s->options.next_request(s->options.context, wait, &r, &there, err));
        s->none_left = wait && !there;
        if (!there) return true;
        TRY(request_add(s, &r, err));
        wait = false;
    }
    return true;
}

static bool is_over(const Scheduler *s) {
    bool more = s->options.next_request && !s->none_left && s->request_count < s->request_capacity;
    return s->place_count == 0 && !more && (s->next == s->request_count || s->end_tick == 0);
}

// Nothing decodes: waits for whatever lets it go on.
static bool wait_for_work(Scheduler *s, Err *err) { return s->waiting > 0 ? next_turns(s, true, err) : more_requests(s, true, err); }

static bool scheduler_start(Scheduler *s, const RolloutRequest *requests, int32_t count, Err *err) {
    Rollout *out = s->out;
    s->request_capacity = count + (s->options.next_request ? s->options.more_requests : 0);
    s->requests = xcalloc((size_t)s->request_capacity + 1, sizeof *s->requests);
    s->first = xcalloc((size_t)s->request_capacity + 1, sizeof *s->first);
    if (count) memcpy(s->requests, requests, (size_t)count * sizeof *requests);
    TRY(scheduler_sizes(s, err) && scheduler_alloc(s, err));
    out->count = count ? s->first[count - 1] + requests[count - 1].samples : 0;
    size_t capacity = (size_t)out->count + (size_t)(s->request_capacity - count) * (size_t)s->most_samples + 1;
    if (s->retains) retain_begin(s->p, (int32_t)capacity);
    out->completions = xcalloc(capacity, sizeof *out->completions);
    out->memory = xcalloc(1, sizeof *out->memory);
    for (int32_t i = 0; i < count; i++) s->due_left += requests[i].due;
    for (int32_t i = 0; i < count; i++) {
        for (int32_t j = 0; requests[i].carried && j < requests[i].samples; j++) completion_carry(s, s->first[i] + j, &requests[i].carried[j]);
        if (live_samples(&requests[i]) == 0) request_complete(s, i);
    }
    return true;
}

// Cuts back what went beyond the end before it was known, and counts what is left.
static void scheduler_end(Scheduler *s) {
    s->out->new_tokens = 0;
    for (int32_t i = 0; i < s->request_count; i++)
        for (int32_t j = 0; j < s->requests[i].samples; j++) {
            const Completion *carried = s->requests[i].carried ? &s->requests[i].carried[j] : NULL;
            Completion *c = &s->out->completions[s->first[i] + j];
            if (c->length == 0 && !carried) c->finish = FINISH_PAUSED;
            if (s->end_tick < INT32_MAX && !is_done(&s->requests[i], j)) completion_pause(c, carried ? completion_total(carried) : 0, s->end_tick);
            s->out->new_tokens += c->length - (carried ? carried->length : 0);
        }
}

bool policy_rollout(Policy *p, const RolloutRequest *requests, int32_t count, const RolloutOptions *options, Rollout *out, Err *err) {
    Scheduler s = {.p = p, .request_count = count, .out = out, .end_tick = INT32_MAX};
    *out = (Rollout){0};
    if (options) s.options = *options;
    if (s.options.int8) TRY(int8_begin(p, options, err));
    bool ok = scheduler_start(&s, requests, count, err);
    while (ok && !is_over(&s)) {
        ok = next_turns(&s, false, err) && more_requests(&s, false, err) && prefill(&s, err);
        if (ok) pause_places(&s);
        ok = ok && (has_work(&s) ? policy_leave_file(p, err) && decode(&s, err) : is_over(&s) || wait_for_work(&s, err)) && report_progress(&s, err);
        if (ok) pause_places(&s);
    }
    if (ok) scheduler_end(&s);
    if (ok && s.options.cache) prompt_cache_put(&s);
    p->in_int8 = false;
    scheduler_free(&s);
    if (!ok) rollout_free(out);
    return ok;
}
