// What the device does for a rollout: rows are sent to it, it computes a pass over them, draws a token of each, and records it.
//
// Decoding goes in series of rounds. The rows of a series are sent once; after that the device goes on by itself (it draws, sees where a
// sequence ends, sets up its next row), in rounds of ROUND_STEPS steps that are recorded once and replayed. Two rounds are queued: while
// the host reads what the first one drew, by a copy of its own, the device computes the second. A series ends where other rows
// would serve better: enough samples have ended that it could be narrower, one needs a pass of its own, or a request can be admitted.
// A sample whose end only the host can see (a string, the end of thinking) is computed to the end of what is queued, and nobody reads
// that. On the CPU a series is one step.
//
// A record has room for a kept set of the usual size. A sequence with a larger one stands still until the series ends; the host takes the
// set from where it was drawn, and sends the row again. That costs the others nothing and this one what is queued, so after it
// rounds are of one step, and twice as long from series to series.
#include "scheduler_parts.h"
#include <stdlib.h>
#include <string.h>

bool rounds_alloc(Scheduler *s, Err *err) {
    const Device *d = s->p->device;
    int64_t places = s->capacity, V = s->p->config.vocabulary;
    size_t bytes = (size_t)places * place_record_bytes(d->is_host, s->record_room);
    s->record_steps = d->is_host ? 1 : FETCHES * ROUND_STEPS;
    s->steps = d->is_host ? 1 : ROUND_STEPS;
    TRY(d->allocate(d, bytes, "records", (void **)&s->record, err));
    s->record_read = xmalloc(bytes);
    if (!s->truncates) return true;
    TRY(d->allocate(d, (size_t)(places * V) * 4, "kept sets", (void **)&s->kept, err));
    return !d->is_host || d->allocate(d, sample_scratch(d->threads, V), "kept sets", &s->order, err);
}

void rounds_free(Scheduler *s) {
    const Device *d = s->p->device;
    for (Err ignored = {0}; s->series.read < s->series.queued; s->series.read++)
        if (!d->fetched(d, s->series.read % FETCHES, &ignored)) break; // the rollout has failed already
    d->release(d, s->record), d->release(d, s->kept), d->release(d, s->order);
    free(s->record_read);
}

// ---- rows ------------------------------------------------------------------------------------------------
void draw_row(Scheduler *s, int32_t i, int32_t index, int32_t position) {
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

// A row that only fills up the round: it belongs to no sample, attends to the page that nobody writes, and writes nowhere.
static void filler_row(Scheduler *s, int32_t i) {
    s->tokens[i] = s->position[i] = 0;
    s->table[(int64_t)i * s->table_capacity] = s->total_pages;
    s->slot[i] = 0;
    s->inv_temperature[i] = 1;
    s->rows[i] = (SampleRow){.greedy = true, .top_p = 1};
    s->state[i] = (DecodeRow){.ended = true};
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

bool rows_send(Scheduler *s, int32_t rows, int64_t table, int64_t slots, int32_t draws, Err *err) {
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

// ---- a pass ----------------------------------------------------------------------------------------------
void head_and_draw(const Round *r, const void *x, bool next) {
    const Policy *p = r->p;
    const Scheduler *s = r->s;
    const Device *d = p->device;
    bool bytes = in_int8(p, p->head);
    float *logits = r->rows <= s->logit_rows ? s->logits : NULL;
    HeadArgs head = {.M = r->rows, .V = p->config.vocabulary, .C = p->config.width, .dtype = p->dtype, .x = x,
                     .w = bytes ? p->head->int8 : p->head->packed, .format = bytes ? WEIGHT_INT8 : kept_format(p->head),
                     .blocks = bytes ? p->work.int8_x : p->block_scratch, .inv_temperature = r->inv_temperature,
                     .softcap = (float)p->config.logit_softcap, .logits = logits,
                     .entropy = s->entropy, .max = s->max, .log_sum = s->log_sum, .stats = s->stats, .scratch = p->head_scratch};
    d->head(d, &head);
    d->sample(d, &(SampleArgs){.M = r->rows, .V = p->config.vocabulary, .logits = logits, .head = head, .stats = s->stats,
                               .entropy = s->entropy, .rows = r->sample, .order = s->order, .truncated = s->truncates});
    // The arrays of a round are this scheduler's own; only a pass reads them as constants.
    d->advance(d, &(AdvanceArgs){.M = r->rows, .rows = r->sample, .state = r->state, .table = r->pass.table,
                                 .table_stride = s->table_capacity, .stop = r->stop, .stop_count = s->stop.count,
                                 .tokens = next ? (int32_t *)(uintptr_t)r->pass.tokens : NULL,
                                 .position = next ? (int32_t *)(uintptr_t)r->pass.position : NULL,
                                 .slot = next ? (int64_t *)(uintptr_t)r->pass.slot : NULL, .record = s->record,
                                 .kept_room = s->record_room, .ring = s->record_steps});
}

static void decode_step(void *context) {
    const Round *r = context;
    transformer_forward(r->p, &r->pass, NULL);
    head_and_draw(r, r->p->work.final, true);
}

// Rounds of one series have the same number of steps, a part of the ring, but for the last: none lies across the ring's end.
static DrawRecord *round_records(const Scheduler *s, DrawRecord *records, int32_t round) {
    return record_at(records, s->record_room, (int64_t)(round * s->series.each % s->record_steps) * s->round.rows);
}

void round_fetch(Scheduler *s, int32_t steps) {
    const Device *d = s->p->device;
    Series *r = &s->series;
    int32_t round = r->queued++;
    r->steps[round % FETCHES] = steps;
    d->fetch(d, round % FETCHES, round_records(s, s->record_read, round), round_records(s, s->record, round),
             (size_t)(steps * s->round.rows) * record_bytes(s->record_room));
}

bool round_read(Scheduler *s, const DrawRecord **records, int32_t *steps, Err *err) {
    const Device *d = s->p->device;
    Series *r = &s->series;
    int32_t round = r->read++;
    TRY(d->fetched(d, round % FETCHES, err));
    *records = round_records(s, s->record_read, round);
    *steps = r->steps[round % FETCHES];
    return true;
}

// ---- series ----------------------------------------------------------------------------------------------
// Rows of a round: as many as there are samples, rounded up where a recording is made for each width.
static int32_t round_width(const Scheduler *s, int32_t n) {
    int32_t step = n <= 8 ? 1 : n <= 64 ? 8 : n <= 256 ? 32 : 64;
    if (s->p->device->is_host) return n;
    while (n <= 8 && n & (n - 1)) n++;
    n = (n + step - 1) / step * step;
    return n < s->capacity ? n : s->capacity;
}

bool series_begin(Scheduler *s, Err *err) {
    Series *r = &s->series;
    *r = (Series){.each = s->steps};
    if (!s->p->device->is_host && s->steps < ROUND_STEPS) s->steps *= 2;
    for (int32_t i = 0; i < s->capacity; i++) {
        const Place *place = &s->places[i];
        if (place->state != PLACE_DECODES) continue;
        int32_t position = decode_row(s, r->count++, i);
        if (position > r->position) r->position = position;
        if (place->limit - place->length > r->left) r->left = place->limit - place->length;
    }
    if (r->count == 0) return true;
    if (r->left < 1) r->left = 1;
    int32_t rows = round_width(s, r->count);
    for (int32_t i = r->count; i < rows; i++) filler_row(s, i);
    for (int32_t i = 0; i < rows; i++) s->table_start[i] = i * s->table_capacity;
    for (int32_t i = 0; i <= rows; i++) s->slot_start[i] = i < r->count ? i : r->count;
    TRY(rows_send(s, rows, (int64_t)rows * s->table_capacity, rows, rows, err));
    s->round.pass.max_run = 1;
    return true;
}

// Whether other rows would serve better by now.
static bool is_stale(const Scheduler *s) {
    int32_t rows = 0, decode = 0;
    for (int32_t i = 0; i < s->series.count; i++) rows += row_decodes(s, i);
    for (int32_t i = 0; i < s->capacity; i++) {
        if (s->places[i].state == PLACE_GIVEN) return true;
        decode += s->places[i].state == PLACE_DECODES;
    }
    bool longer = s->series.each < s->steps && s->series.queued >= ROUND_STEPS; // it would have longer rounds
    return longer || decode > rows || round_width(s, rows) < s->round.rows || can_admit(s);
}

void series_queue(Scheduler *s) {
    Policy *p = s->p;
    Series *r = &s->series;
    bool alone = s->record_steps == 1;
    while (r->count > 0 && r->left > 0 && r->queued - r->read < FETCHES) {
        if (r->queued > 0 && (alone || is_stale(s))) return;
        int32_t steps = r->left < r->each ? r->left : r->each;
        // The bound on positions is part of a recording: it moves in steps, so that recordings serve again.
        int32_t bound = (r->position + steps + 255) / 256 * 256, most = s->table_capacity * PAGE;
        s->round.pass.max_position = (bound < most ? bound : most) - 1;
        for (int32_t step = 0; step < steps; step++)
            p->device->replay(p->device, (uint64_t)(uint32_t)s->round.rows << 32 | (uint32_t)s->round.pass.max_position, decode_step, &s->round);
        r->left -= steps, r->position += steps;
        round_fetch(s, steps);
    }
}
