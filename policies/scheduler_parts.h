// Inside continuous batching: what the scheduler (scheduler.c: places, pages, admission), the rounds on the device (rounds.c) and one
// sample's course (course.c: what it has sampled and been given, its text, its budgets) share.
#ifndef RECKON_SCHEDULER_PARTS_H
#define RECKON_SCHEDULER_PARTS_H
#include "model.h"

typedef enum PlaceState { PLACE_FREE, PLACE_DECODES, PLACE_GIVEN, PLACE_WAITS } PlaceState;
typedef struct Place { // one admitted sample
    PlaceState state;
    int32_t request, sample;
    int32_t *table;      // [table_capacity] page numbers
    int32_t shared;      // the first pages, which belong to the group
    int32_t owned;       // pages after them
    int32_t length;      // tokens of the completion so far, given ones included
    int32_t last;        // token
    int32_t limit;       // the length at which the series of rounds in progress ends it
    int32_t turn_start;  // length when its turn began
    int32_t pending;     // PLACE_GIVEN: last tokens of the completion that no pass has computed
    bool thinks;         // has a budget for thinking, and has not closed it
    bool carried;        // its next draw is of the prompt alone, and nobody's: its own tokens are computed after that
    int32_t start;       // length when this rollout began
    int64_t kept_capacity; // of the completion's kept_ids
    TokenStream *stream; // where stop strings and the end of thinking are watched
    Buf text;
} Place;

typedef struct Group { // one admitted request
    int32_t *pages; // whole pages of its prompt
    int32_t page_count, alive;
    int32_t tick; // tokens that its longest sample took in this rollout
    bool paused;  // a sample of it is
} Group;

typedef struct RolloutMemory {
    Arena arena;
} RolloutMemory;

typedef struct Round { // the rows that were sent last: of decoding, or of a prefill with the draws after it
    Policy *p;
    struct Scheduler *s;
    Pass pass;
    int64_t rows;
    const int32_t *head_row, *table, *stop;
    const float *inv_temperature;
    SampleRow *sample;
    DecodeRow *state;
} Round;

// Rounds of decoding that are queued behind each other, over the same rows.
typedef struct Series {
    int32_t count;          // samples among its rows
    int32_t queued, read;   // rounds
    int32_t each;           // steps of a round; the last may have fewer
    int32_t steps[FETCHES]; // of the rounds between these two
    int32_t left;           // steps that are not queued and that a row may need
    int32_t position;       // of the furthest row at the next step that is queued
} Series;

typedef struct Scheduler {
    Policy *p;
    RolloutRequest *requests; // [request_capacity]
    int32_t request_count, request_capacity, next;
    int32_t longest_prompt, most_samples, most_tokens; // of the first requests
    bool none_left;           // further requests won't come
    int32_t *first; // [requests] index of the first completion
    RolloutOptions options;
    Rollout *out;
    Group *groups; // [requests]
    Place *places;       // [capacity]
    int32_t place_count, capacity, waiting; // places in use, places, those that wait
    int32_t *row_place;  // [capacity] whose draws the rows of a round are; -1: the sample's turn, or a budget, has ended
    int32_t *ticks, tick_count; // of complete requests, ascending
    int32_t due_left, due_tick; // requests that are due and not complete; the last tick of those that are
    int32_t end_tick;           // at which all others pause; INT32_MAX: not known yet
    Ids think_end;
    int32_t think_id;    // of "</think>" where it is one token, else -1
    int32_t *free_pages, free_count, total_pages, table_capacity;
    int32_t kept_rows; // of the only prompt, whose keys and values are there (prompt_cache.c)
    bool retains;      // passes keep their activations, pages are nobody else's afterwards (retain.c)
    char *page_memory; // one page more than total_pages: rows that fill up a round read there, nobody writes
    // rows of one pass, on the host
    int32_t row_capacity;
    int32_t *tokens, *position, *table_start, *table, *head_row;
    int64_t *slot_start, *slot, *slot_row;
    float *inv_temperature;
    SampleRow *rows;
    DecodeRow *state;
    Ids stop;
    Stage stage;
    Round round; // the same, as operations read and write them
    Series series;
    // what the head gives for them
    int64_t logit_rows; // that `logits` has room for; a pass that draws more stores none
    float *logits, *entropy, *max, *log_sum; // the last two where activations are kept
    VocabStats *stats;
    void *head_x, *order;
    DrawRecord *record, *record_read; // [record_steps][rows], with record_room ids each, on the device and on the host
    int32_t record_steps, record_room;
    int32_t steps;                    // of a round of the next series
    int32_t *kept;                    // [places][V] where anything is truncated
    bool truncates;
    // what samples have drawn while they are decoded: [places][most_tokens], one more of kept_start where anything is truncated
    int32_t *ids;
    float *logprob, *sampled_entropy;
    int64_t *kept_start;
    int32_t *kept_ids; // [places][kept_room], beyond which they grow elsewhere
    int64_t kept_room;
    int64_t finished;
    double last_progress;
} Scheduler;

// ---- pages -----------------------------------------------------------------------------------------------
static inline int32_t own_pages(const RolloutRequest *r) {
    return pages_for((int64_t)r->prompt_length + r->sampling.max_tokens) - r->prompt_length / PAGE;
}
// Samples that an earlier rollout has finished need nothing of this one.
static inline bool is_done(const RolloutRequest *r, int32_t sample) { return r->carried && r->carried[sample].finish != FINISH_PAUSED; }
static inline int32_t live_samples(const RolloutRequest *r) {
    int32_t live = 0;
    for (int32_t i = 0; i < r->samples; i++) live += !is_done(r, i);
    return live;
}
static inline int64_t request_pages(const RolloutRequest *r) {
    return r->prompt_length / PAGE + (int64_t)live_samples(r) * own_pages(r);
}

// ---- scheduler_sizes.c -----------------------------------------------------------------------------------
bool request_check(const Policy *p, const RolloutRequest *r, int32_t index, Err *err) MUST_CHECK;
// Checks the first requests, and sets the scheduler's capacities by them and the options.
bool scheduler_sizes(Scheduler *s, Err *err) MUST_CHECK;

// ---- scheduler.c -----------------------------------------------------------------------------------------
bool can_admit(const Scheduler *s); // the next request, if there is one

// ---- rounds.c --------------------------------------------------------------------------------------------
bool rounds_alloc(Scheduler *s, Err *err) MUST_CHECK;
void rounds_free(Scheduler *s); // waits for what is under way
// What the draw after a row needs: row `i` of a round belongs to place number `index`, and is computed at `position`.
void draw_row(Scheduler *s, int32_t i, int32_t index, int32_t position);
// Sends the rows of a pass, and what the draws of `draws` places need.
bool rows_send(Scheduler *s, int32_t rows, int64_t table, int64_t slots, int32_t draws, Err *err) MUST_CHECK;
// Logits of rows x [rows, C], a token for each, its record, and the rows of the next step.
void head_and_draw(const Round *r, const void *x, bool next);
// What the steps queued last have recorded will be read.
void round_fetch(Scheduler *s, int32_t steps);
// Reads the oldest round that was fetched: records [steps][round.rows].
bool round_read(Scheduler *s, const DrawRecord **records, int32_t *steps, Err *err) MUST_CHECK;
// Whether the sample's set is too large for the record: it stands still, though it has not ended.
static inline bool stands_still(const Scheduler *s, const DrawRecord *record) { return record->kept_count > s->record_room; }
// Whether row `i` of the rounds under way is still a sample's that decodes.
static inline bool row_decodes(const Scheduler *s, int32_t i) { return s->row_place[i] >= 0 && s->places[s->row_place[i]].state == PLACE_DECODES; }
static inline bool rounds_go_on(const Scheduler *s) { return s->series.read < s->series.queued; }
// Sends the rows of all that decodes now; series.count 0: nothing does.
bool series_begin(Scheduler *s, Err *err) MUST_CHECK;
// Queues further rounds of the series, as many as may be under way, while its rows are the right ones.
void series_queue(Scheduler *s);

#define THINK_END "</think>"

// ---- course.c --------------------------------------------------------------------------------------------
int32_t completion_index(const Scheduler *s, const Place *place); // in Rollout.completions
Completion *completion_of(const Scheduler *s, const Place *place);
// Ids of one sample's kept sets that its place has room for, as they were or as this request needs: what top-k allows, or what is
// usual; at most a MiB.
int64_t kept_room(const Scheduler *s, const RolloutRequest *r);
// The completion's arrays have room for its whole course, in its place, until it leaves that.
void completion_begin(Scheduler *s, Place *place);
void completion_end(Scheduler *s, const Place *place);
// The length at which a sample's turn, its thinking or all of it must end.
int32_t place_limit(const Scheduler *s, const Place *place);
// Takes what was drawn for row `row`; *ended where the turn ends with it, or a budget is used up.
bool place_advance(Scheduler *s, Place *place, const DrawRecord *record, int64_t row, bool *ended, Err *err) MUST_CHECK;
// Gives tokens to a sample, for the next pass to compute; thinking that they leave open beyond its budget is closed too.
// False where one more sampled token has no room after them: nothing is given then.
bool place_give(Scheduler *s, Place *place, const int32_t *ids, int32_t count);
// What an earlier rollout has sampled becomes the completion's own.
void completion_carry(Scheduler *s, int32_t index, const Completion *carried);
// A sample goes on where an earlier rollout left it: all its tokens wait for a pass. *room false: its thinking should be closed, and
// no room is left for that.
bool place_carry_on(Scheduler *s, Place *place, bool *room, Err *err) MUST_CHECK;
// A completion that went on beyond `tick` tokens of this rollout is paused there, after the first sampled token that reaches it.
void completion_pause(Completion *c, int32_t start, int32_t tick);
// Text that was watched before what was given says nothing of what comes after it.
void place_watch_anew(Scheduler *s, Place *place);

// ---- prompt_cache.c --------------------------------------------------------------------------------------
// Pages from options.cache instead of fresh ones; and after a rollout, which ids they hold.
bool prompt_cache_take(Scheduler *s, Err *err) MUST_CHECK;
void prompt_cache_put(Scheduler *s);

#endif
