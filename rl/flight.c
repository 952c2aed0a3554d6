// Groups in flight: their memory, their scoring, and the batch that a step takes from them (flight.h tells the order).
#include "flight.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void group_free(Group *g) {
    while (g) {
        Group *previous = g->previous;
        Arena arena = g->arena; // the group lies in it
        arena_reset(&arena);
        g = previous;
    }
}

bool flight_open(Flight **out) {
    *out = xcalloc(1, sizeof **out);
    return true;
}
void flight_begin(Flight *f, const Stage *stage, int steps) {
    f->prompts = stage->batch;
    f->sampled = steps;
    f->started = (int64_t)steps * stage->batch;
}
void flight_close(Flight *f) {
    if (!f) return;
    for (int i = 0; i < f->ready_count; i++) {
        for (int j = 0; j < f->prompts; j++) group_free(f->ready[i].groups[j]);
        free(f->ready[i].groups);
    }
    for (int i = 0; i < f->open_count; i++) group_free(f->open[i]);
    for (int i = 0; i < f->lost_count; i++) group_free(f->lost[i]);
    free(f->ready), free(f->open), free(f->lost);
    free(f);
}
bool flight_is_empty(const Flight *f) { return !f || (f->ready_count == 0 && f->open_count == 0); }

static void *copied(Arena *a, const void *from, size_t bytes) {
    void *to = arena_alloc(a, bytes + 1);
    if (bytes) memcpy(to, from, bytes);
    return to;
}
Completion completion_copy(Arena *a, const Completion *from) {
    Completion c = *from;
    size_t n = (size_t)c.length;
    c.ids = copied(a, from->ids, n * 4), c.logprob = copied(a, from->logprob, n * 4), c.entropy = copied(a, from->entropy, n * 4);
    if (c.kept_start) c.kept_ids = copied(a, from->kept_ids, (size_t)from->kept_start[n] * 4), c.kept_start = copied(a, from->kept_start, (n + 1) * 8);
    if (c.given) c.given = copied(a, from->given, (size_t)c.total), c.all = copied(a, from->all, (size_t)c.total * 4);
    return c;
}

// ---- scoring -------------------------------------------------------------------------------------------------
static bool decode(const Trainer *t, Group *g, Err *err) {
    for (int s = 0; s < g->size; s++) {
        Episode *e = &g->episodes[s];
        Buf text = {0};
        bool ok = completion_text(policy_tokenizer(t->policy), &e->completion, g->prompt.mode, &text, &e->think_tokens, &e->answer_tokens, err);
        e->text = copied(&g->arena, text.data, text.size);
        e->text_size = text.size;
        buf_free(&text);
        TRY(ok);
    }
    return true;
}

bool group_submit(const Trainer *t, Group *g, Err *err) {
    const Item *item = &g->prompt.item;
    if (!g->problems) TRY(decode(t, g, err));
    for (int s = 0; s < g->size; s++) {
        Episode *e = &g->episodes[s];
        char id[96];
        snprintf(id, sizeof id, "step %lld prompt %u sample %d", (long long)g->step, g->number, s);
        RewardSample sample = {.id = id, .prompt = item->prompt, .messages = item->messages, .completion = e->text, .completion_size = e->text_size,
                               .truth = item->truth, .row = item->row, .tokens = e->completion.length, .think_tokens = e->think_tokens,
                               .answer_tokens = e->answer_tokens, .finish = e->completion.finish == FINISH_STOP ? "stop" : "length",
                               .mode = mode_names[g->prompt.mode], .task = item->kind, .step = g->step, .group = (int32_t)g->number,
                               .seed = t->recipe->seed ^ ((uint64_t)g->step << 32) ^ (uint64_t)(g->number * (uint32_t)g->size + (uint32_t)s),
                               .environment = g->results ? &g->results[s] : NULL};
        if (g->problems && g->problems[s]) { // nothing to score
            e->verdict = (Verdict){.state = VERDICT_ERROR, .score = NAN};
            snprintf(e->verdict.why, sizeof e->verdict.why, "%s", g->problems[s]);
            continue;
        }
        e->verdict = (Verdict){.state = VERDICT_STATES}; // none yet
        TRY(reward_pool_submit(t->rewards, &sample, &e->verdict, err));
    }
    g->submitted = true;
    return reward_pool_start(t->rewards, err);
}

bool group_scored(const Group *g) {
    for (int s = 0; s < g->size; s++)
        if (g->episodes[s].verdict.state == VERDICT_STATES) return false;
    return g->submitted;
}

bool group_await(const Trainer *t, const Group *g, Err *err) {
    while (!group_scored(g)) TRY(reward_pool_poll(t->rewards, true, err));
    return true;
}

// ---- a step's batch ------------------------------------------------------------------------------------------
// The batch takes the groups over; their verdicts may still be on their way.
static void take_groups(Batch *b, FlightBatch *from) {
    b->groups = from->groups;
    b->prompts = ARENA_NEW(&b->arena, Prompt, b->prompt_count);
    b->episodes = ARENA_NEW(&b->arena, Episode, b->episode_count);
    for (int i = 0; i < b->prompt_count; i++) {
        Group *g = b->groups[i];
        b->prompts[i] = g->prompt;
        for (int s = 0; s < g->size; s++) {
            Episode *e = &b->episodes[i * b->group_size + s];
            *e = g->episodes[s];
            e->prompt = i, e->sample = s;
        }
    }
}

static int64_t sampled_tokens(const Group *g) {
    int64_t tokens = 0;
    for (; g; g = g->previous)
        for (int s = 0; s < g->size; s++) tokens += g->episodes[s].completion.length;
    return tokens;
}

static void count_versions(const Batch *b, StepReport *report) {
    for (int i = 0; i < b->episode_count; i++) {
        const Episode *e = &b->episodes[i];
        for (int v = 0; v < e->version_count; v++) {
            int64_t lag = b->step - 1 - e->versions[v].version;
            if (lag > 0) report->stale_tokens += e->versions[v].length;
            if (lag > report->staleness) report->staleness = lag;
        }
    }
}

static bool fill_and_take(const Trainer *t, Flight *f, Batch *b, StepReport *report, Err *err) {
    const Stage *stage = b->stage;
    int64_t ahead = (int64_t)b->stage_step + stage->staleness, start = b->step - b->stage_step;
    f->prompts = stage->batch;
    while (f->sampled < (ahead < stage->steps ? ahead : stage->steps) || f->ready_count == 0)
        TRY(t->endpoint ? endpoint_sample(t, f, stage, start, err) : flight_sample(t, f, stage, start, b->step - 1, report, err));
    b->group_size = stage->group_size, b->prompt_count = stage->batch, b->episode_count = stage->batch * stage->group_size;
    take_groups(b, &f->ready[0]);
    memmove(f->ready, f->ready + 1, (size_t)--f->ready_count * sizeof *f->ready);
    for (int i = 0; i < b->prompt_count && !t->endpoint; i++) f->tokens -= sampled_tokens(b->groups[i]);
    report->flight_tokens = f->tokens;
    count_versions(b, report);
    return true;
}

bool rollout_batch(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    if (t->flight && (b->stage->staleness > 0 || b->stage->partial > 0)) return fill_and_take(t, t->flight, b, report, err);
    Flight *own;
    TRY(flight_open(&own));
    flight_begin(own, b->stage, b->stage_step - 1);
    bool ok = fill_and_take(t, own, b, report, err);
    if (t->flight && own->lost_count > 0) { // verdicts may still come: the run's own flight ends after the workers do
        t->flight->lost = xrealloc(t->flight->lost, (size_t)(t->flight->lost_count + own->lost_count) * sizeof *own->lost);
        memcpy(t->flight->lost + t->flight->lost_count, own->lost, (size_t)own->lost_count * sizeof *own->lost);
        t->flight->lost_count += own->lost_count, own->lost_count = 0;
    }
    flight_close(own);
    return ok;
}

void batch_levels(const Batch *b, StepReport *report) {
    levels_count(b, report);
    for (int i = 0; i < b->prompt_count; i++)
        for (Group *g = b->groups[i]->previous; g; g = g->previous)
            levels_count(&(Batch){.prompts = &g->prompt, .episodes = g->episodes, .prompt_count = 1, .group_size = g->size}, report);
}

bool batch_verdicts(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    double start = clock_seconds();
    for (int i = 0; i < b->prompt_count; i++) {
        for (const Group *g = b->groups[i]; g; g = g->previous) TRY(group_await(t, g, err)); // after a resume the attempts before it, too
        for (int s = 0; s < b->group_size; s++) b->episodes[i * b->group_size + s].verdict = b->groups[i]->episodes[s].verdict;
    }
    report->measured.reward += clock_seconds() - start;
    return true;
}
