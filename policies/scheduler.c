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
// The host is the place of record: it knows every sample's tokens, places and pages. What is sent to the device and read back, and
// how far the device goes on by itself, is in rounds.c. Pages of a sample that has ended may be given to another while the device
// still writes into them: whatever reads them next queues behind that.
#include "scheduler_parts.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

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
    int64_t padded = vocab_padded(p->config.vocabulary), places = s->capacity, rows = s->row_capacity;
    int64_t table = rows > places ? rows : places;
    if (s->options.cache) TRY(prompt_cache_take(s, err));
    else if (s->retains) TRY(retained_pages(s, err));
    else TRY(hold(d, (size_t)(s->total_pages + 1) * page_bytes(p) * (size_t)p->config.layers, "keys and values", (void **)&s->page_memory, err));
    s->logit_rows = logit_rows(d->is_host, s->truncates, places);
    TRY(hold(d, logits_bytes(&p->config, s->logit_rows), "logits", (void **)&s->logits, err));
    TRY(d->allocate(d, (size_t)(places * (padded / VOCAB_BLOCK)) * sizeof(VocabStats), "head", (void **)&s->stats, err));
    TRY(d->allocate(d, act_bytes(p, places * p->config.width) + 2, "head", &s->head_x, err)); // read in pairs
    TRY(d->allocate(d, (size_t)places * 4, "head", (void **)&s->entropy, err));
    TRY(rounds_alloc(s, err));
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
    rounds_free(s);
    d->forget(d);
    void *const memory[] = {s->options.cache || s->retains ? NULL : s->page_memory, s->max, s->log_sum, s->logits, s->stats, s->head_x, s->entropy};
    for (int i = 0; i < COUNT(memory); i++) d->release(d, memory[i]);
    stage_free(s->p, &s->stage);
    ids_free(&s->stop), ids_free(&s->think_end);
    free(s->row_place), free(s->free_pages), free(s->places), free(s->groups), free(s->tokens), free(s->position), free(s->table_start);
    free(s->head_row), free(s->table), free(s->slot_start), free(s->slot), free(s->inv_temperature), free(s->rows);
    free(s->slot_row), free(s->ids), free(s->logprob), free(s->sampled_entropy), free(s->kept_start), free(s->kept_ids), free(s->state), free(s->first), free(s->ticks), free(s->requests);
}

static void count_flops(Policy *p, int64_t rows, double context, int64_t draws) {
    p->flops += (double)rows * config_flops(&p->config, context / (double)rows, false) +
                2.0 * (double)draws * p->config.width * p->config.vocabulary;
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

// Tokens that samples took from a round.
typedef struct Taken {
    int64_t tokens;
    double context; // that they attended to, summed up
} Taken;

// What the oldest round recorded for its first `count` rows is taken by their places.
static bool places_advance(Scheduler *s, int32_t count, Taken *taken, Err *err) {
    const DrawRecord *records;
    int32_t steps;
    TRY(round_read(s, &records, &steps, err));
    for (int32_t i = 0; i < count; i++) {
        bool ended = false, stands = false;
        if (!row_decodes(s, i)) continue;
        Place *place = &s->places[s->row_place[i]];
        if (place->carried) {
            bool room;
            TRY(place_carry_on(s, place, &room, err));
            if (room) continue;
            completion_of(s, place)->finish = FINISH_LENGTH;
            place_leave(s, place);
            continue;
        }
        for (int32_t step = 0; step < steps && !ended && !stands; step++) {
            const DrawRecord *record = record_at(records, s->record_room, step * s->round.rows + i);
            stands = stands_still(s, record);
            taken->tokens++, taken->context += s->requests[place->request].prompt_length + place->length;
            TRY(place_advance(s, place, record, i, &ended, err));
        }
        if (stands) s->steps = 1;
        if (stands || ended) s->row_place[i] = -1;
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
    Place *place = &s->places[index];
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
    place->state = PLACE_DECODES;
    place->pending = 0;
}

bool can_admit(const Scheduler *s) {
    const RolloutRequest *r = &s->requests[s->next];
    return s->next < s->request_count && s->place_count + live_samples(r) <= s->capacity && request_pages(r) <= s->free_count;
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
        if (!can_admit(s) || (rows->count > 0 && rows->count + r->prompt_length > s->row_capacity)) break;
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
    s->series = (Series){0};
    TRY(rows_send(s, rows.count, rows.table, rows.slot, rows.draws, err));
    s->round.pass.max_position = rows.last_position;
    s->round.pass.max_run = rows.longest_run;
    transformer_forward(p, &s->round.pass, NULL);
    d->gather(d, &(GatherArgs){.T = rows.draws, .C = p->config.width, .dtype = p->dtype, .row = s->round.head_row, .x = p->work.final, .y = s->head_x});
    head_and_draw(&s->round, s->head_x, false);
    round_fetch(s, 1);
    count_flops(p, rows.count, rows.context, rows.draws);
    Taken ignored = {0};
    bool ok = places_advance(s, rows.draws, &ignored, err);
    s->out->prefill_seconds += clock_seconds() - start;
    return ok;
}

// One round of decoding is read; others are queued before that.
static bool decode(Scheduler *s, Err *err) {
    double start = clock_seconds();
    Taken taken = {0};
    if (!rounds_go_on(s)) TRY(series_begin(s, err));
    series_queue(s);
    if (!rounds_go_on(s)) return true;
    bool ok = places_advance(s, s->series.count, &taken, err);
    if (taken.tokens > 0) count_flops(s->p, taken.tokens, taken.context, taken.tokens);
    s->out->decode_seconds += clock_seconds() - start;
    return ok;
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
        ok = next_turns(&s, false, err) && more_requests(&s, false, err) && (rounds_go_on(&s) || prefill(&s, err));
        if (ok) pause_places(&s);
        ok = ok && (has_work(&s) || rounds_go_on(&s) ? policy_leave_file(p, err) && decode(&s, err) : is_over(&s) || wait_for_work(&s, err)) && report_progress(&s, err);
        if (ok) pause_places(&s);
    }
    if (ok) scheduler_end(&s);
    if (ok && s.options.cache) prompt_cache_put(&s);
    p->in_int8 = false;
    scheduler_free(&s);
    if (!ok) rollout_free(out);
    return ok;
}
