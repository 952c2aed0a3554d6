// One sample's course: the arrays of what it sampled and of what it was given, the text that is watched for stop strings and
// for the end of thinking, and its budgets. It knows nothing of pages and passes; the scheduler tells it which record of a
// round is its own. While a sample is decoded its arrays lie in its place, with room for its whole course, so that a step of
// decoding allocates nothing (but for kept sets of more ids than are expected); then they are copied out.
#include "scheduler_parts.h"
#include <stdlib.h>
#include <string.h>

int32_t completion_index(const Scheduler *s, const Place *place) { return s->first[place->request] + place->sample; }
Completion *completion_of(const Scheduler *s, const Place *place) { return &s->out->completions[completion_index(s, place)]; }

int32_t place_limit(const Scheduler *s, const Place *place) {
    const Sampling *g = &s->requests[place->request].sampling;
    int32_t limit = g->max_tokens;
    if (g->turn_tokens > 0 && limit - place->turn_start > g->turn_tokens) limit = place->turn_start + g->turn_tokens;
    if (s->end_tick < limit - place->start) limit = place->start + s->end_tick;
    return place->thinks && limit > g->think_tokens ? g->think_tokens : limit;
}

static void *grow(Arena *a, const void *old, size_t used, size_t bytes) {
    void *fresh = arena_alloc(a, bytes);
    if (used) memcpy(fresh, old, used);
    return fresh;
}

int64_t kept_room(const Scheduler *s, const RolloutRequest *r) {
    enum { USUAL = 64, MOST = 1 << 18 };
    int64_t set = r->sampling.top_k > 0 ? r->sampling.top_k : USUAL, room;
    if (set > s->p->config.vocabulary) set = s->p->config.vocabulary;
    room = set * r->sampling.max_tokens < MOST ? set * r->sampling.max_tokens : MOST;
    return room > s->kept_room ? room : s->kept_room;
}

// Room for `kept` ids more, beyond what the place has.
static void kept_reserve(Scheduler *s, Place *place, int32_t kept) {
    Completion *c = completion_of(s, place);
    int64_t used = c->kept_start[c->length];
    if (used + kept <= place->kept_capacity) return;
    place->kept_capacity = 2 * (used + kept);
    c->kept_ids = grow(&s->out->memory->arena, c->kept_ids, (size_t)used * 4, (size_t)place->kept_capacity * 4);
}

static void *moved(void *to, const void *from, size_t bytes) {
    if (bytes) memcpy(to, from, bytes);
    return to;
}

static int32_t *kept_of(const Scheduler *s, const Place *place) { return s->kept_ids + (place - s->places) * s->kept_room; }

void completion_begin(Scheduler *s, Place *place) {
    Completion *c = completion_of(s, place);
    int64_t index = place - s->places, at = index * s->most_tokens;
    size_t bytes = (size_t)c->length * 4;
    c->ids = moved(s->ids + at, c->ids, bytes);
    c->logprob = moved(s->logprob + at, c->logprob, bytes);
    c->entropy = moved(s->sampled_entropy + at, c->entropy, bytes);
    if (!is_truncated(&s->requests[place->request].sampling)) return;
    s->kept_start[at + index] = 0;
    c->kept_start = moved(s->kept_start + at + index, c->kept_start, c->kept_start ? (size_t)(c->length + 1) * 8 : 0);
    int64_t used = place->kept_capacity = c->kept_start[c->length];
    if (used > s->kept_room) return;
    c->kept_ids = moved(kept_of(s, place), c->kept_ids, (size_t)used * 4);
    place->kept_capacity = s->kept_room;
}

void completion_end(Scheduler *s, const Place *place) {
    Completion *c = completion_of(s, place);
    Arena *a = &s->out->memory->arena;
    size_t bytes = (size_t)c->length * 4;
    c->ids = grow(a, c->ids, bytes, bytes);
    c->logprob = grow(a, c->logprob, bytes, bytes);
    c->entropy = grow(a, c->entropy, bytes, bytes);
    if (!c->kept_start) return;
    size_t kept = (size_t)c->kept_start[c->length] * 4;
    c->kept_start = grow(a, c->kept_start, 2 * bytes + 8, 2 * bytes + 8);
    if (c->kept_ids == kept_of(s, place)) c->kept_ids = grow(a, c->kept_ids, kept, kept);
}

// Takes what was drawn for row `row`.
static void completion_push(Scheduler *s, Place *place, const DrawRecord *record, int64_t row) {
    Completion *c = completion_of(s, place);
    int32_t kept = record->kept_count;
    if (kept) kept_reserve(s, place, kept);
    c->ids[c->length] = record->token;
    c->logprob[c->length] = record->logprob;
    c->entropy[c->length] = record->entropy;
    if (kept) {
        int64_t start = c->kept_start[c->length];
        if (stands_still(s, record)) s->p->device->download(s->p->device, c->kept_ids + start, s->rows[row].kept, (size_t)kept * 4);
        else memcpy(c->kept_ids + start, record_ids(record), (size_t)kept * 4);
        c->kept_start[c->length + 1] = start + kept;
    }
    if (s->retains)
        s->p->retained.samples[completion_index(s, place)].record[completion_total(c)] =
            (TokenRecord){record->logprob, record->entropy, s->max[row], s->log_sum[row]};
    if (c->given) c->all[c->total++] = record->token;
    c->length++;
}

// Adds given tokens to the course of a completion; max_tokens has room for them.
static void completion_give(Scheduler *s, const Place *place, const int32_t *ids, int32_t count) {
    Completion *c = completion_of(s, place);
    if (!c->given) {
        size_t most = (size_t)s->requests[place->request].sampling.max_tokens;
        c->given = arena_alloc(&s->out->memory->arena, most);
        c->all = arena_alloc(&s->out->memory->arena, most * 4);
        c->total = c->length;
        memset(c->given, 0, most);
        memcpy(c->all, c->ids, (size_t)c->length * 4);
    }
    if (count) memcpy(c->all + c->total, ids, (size_t)count * 4);
    memset(c->given + c->total, 1, (size_t)count);
    c->total += count;
    s->out->prompt_tokens += count;
}

static void *copied(Arena *a, const void *from, size_t bytes) { return from ? grow(a, from, bytes, bytes + 1) : NULL; }

void completion_carry(Scheduler *s, int32_t index, const Completion *from) {
    Completion *c = &s->out->completions[index];
    RolloutMemory *m = s->out->memory;
    size_t bytes = (size_t)from->length * 4, most = (size_t)s->most_tokens;
    *c = *from;
    c->ids = copied(&m->arena, from->ids, bytes);
    c->logprob = copied(&m->arena, from->logprob, bytes);
    c->entropy = copied(&m->arena, from->entropy, bytes);
    c->kept_start = from->kept_start ? copied(&m->arena, from->kept_start, (size_t)(from->length + 1) * 8) : NULL;
    c->kept_ids = from->kept_start ? copied(&m->arena, from->kept_ids, (size_t)from->kept_start[from->length] * 4) : NULL;
    if (!from->given) return;
    c->given = grow(&m->arena, from->given, (size_t)from->total, most);
    c->all = grow(&m->arena, from->all, (size_t)from->total * 4, most * 4);
}

void completion_pause(Completion *c, int32_t start, int32_t tick) {
    int32_t end = start + tick, sampled = 0;
    if (completion_total(c) <= end) return;
    while (c->given && end > 0 && end < c->total && c->given[end - 1]) end++;
    if (completion_total(c) <= end) return;
    for (int32_t i = 0; i < end; i++) sampled += !c->given || !c->given[i];
    c->length = sampled, c->total = c->given ? end : c->total;
    c->finish = FINISH_PAUSED;
}

static bool is_stop(const Scheduler *s, int32_t token) {
    for (int i = 0; i < s->stop.count; i++)
        if (s->stop.data[i] == token) return true;
    return false;
}

// Watches the text as it comes: whether a stop string was completed by this token, and whether thinking ended.
static bool watch_text(Scheduler *s, Place *place, const Sampling *sampling, int32_t token, bool *hit, Err *err) {
    *hit = false;
    if (token == s->think_id) place->thinks = false;
    if (!place->stream) return true;
    Buf piece = {0};
    bool ready, ok = token_stream_push(place->stream, token, &ready, &piece, err);
    size_t before = place->text.size;
    if (ok && ready) buf_append(&place->text, piece.data, piece.size);
    buf_free(&piece);
    for (int i = 0; ok && sampling->stop && sampling->stop[i] && !*hit; i++) {
        size_t n = strlen(sampling->stop[i]), from = before > n ? before - n : 0;
        *hit = n && place->text.size > from && memmem(place->text.data + from, place->text.size - from, sampling->stop[i], n);
    }
    size_t n = sizeof THINK_END - 1, from = before > n ? before - n : 0;
    if (place->thinks && place->text.size > from && memmem(place->text.data + from, place->text.size - from, THINK_END, n))
        place->thinks = false;
    return ok;
}

bool place_advance(Scheduler *s, Place *place, const DrawRecord *record, int64_t row, bool *ended, Err *err) {
    const Sampling *sampling = &s->requests[place->request].sampling;
    Completion *c = completion_of(s, place);
    bool stop = false;
    completion_push(s, place, record, row);
    place->last = record->token;
    place->length++;
    s->out->new_tokens++;
    TRY(watch_text(s, place, sampling, place->last, &stop, err));
    if (!sampling->ignore_eos && is_stop(s, place->last)) stop = true;
    *ended = stop || place->length >= place->limit;
    c->finish = stop ? FINISH_STOP : FINISH_LENGTH;
    return true;
}

bool place_give(Scheduler *s, Place *place, const int32_t *ids, int32_t count) {
    const Sampling *sampling = &s->requests[place->request].sampling;
    bool closes = place->thinks && place->length + count >= sampling->think_tokens;
    int64_t more = count + (closes ? s->think_end.count : 0);
    if (place->length + more >= sampling->max_tokens) return false;
    completion_give(s, place, ids, count);
    if (closes) completion_give(s, place, s->think_end.data, s->think_end.count);
    place->length += (int32_t)more;
    place->turn_start += (int32_t)more;
    place->pending = (int32_t)more;
    place->thinks &= !closes;
    place->state = more ? PLACE_GIVEN : PLACE_DECODES;
    return true;
}

bool place_carry_on(Scheduler *s, Place *place, bool *room, Err *err) {
    const Sampling *sampling = &s->requests[place->request].sampling;
    const Completion *c = completion_of(s, place);
    bool hit;
    place->carried = false;
    place->length = completion_total(c);
    place->last = completion_all(c)[place->length - 1];
    place->turn_start = place->length - c->length;
    for (int32_t i = 0; i < c->length; i++) TRY(watch_text(s, place, sampling, c->ids[i], &hit, err));
    if (place->turn_start > 0) place->thinks = false; // what was given has closed it
    *room = !place->thinks || place->length < sampling->think_tokens || place_give(s, place, NULL, 0);
    place->pending = place->length - 1;
    place->state = PLACE_GIVEN;
    return true;
}

void place_watch_anew(Scheduler *s, Place *place) {
    if (!place->stream) return;
    token_stream_close(place->stream);
    place->stream = token_stream_open(s->p->tokenizer);
    place->text.size = 0;
}

void rollout_free(Rollout *r) {
    if (r->memory) {
        arena_reset(&r->memory->arena);
        free(r->memory);
    }
    free(r->completions);
    *r = (Rollout){0};
}
