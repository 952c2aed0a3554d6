// One sampling: prompts from the tasks, completions from the policy, verdicts from the scripts. A prompt's group is handed to the
// reward workers as soon as its last sample is finished, while others still decode; scores don't depend on that order.
//
// Dynamic sampling (DAPO, arXiv 2503.14476): a group whose rewards are all equal teaches nothing, so it is replaced by one of a
// further prompt, a bounded number of times. Each place of a step has attempts of its own, number r of place i always the same
// prompt; so the next one starts as soon as its verdicts say so, among whatever decodes then, and nothing depends on when that is.
// Where a sampling ends before all groups are complete, it goes on in rounds: those that became complete are scored, the ones without
// variance make room for their next attempts, and these and all others in flight go on until the batch is full.
#include "curriculum.h"
#include "flight.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Mode mode_of_prompt(const Recipe *r, const Stage *stage, int stage_index, uint64_t index) {
    double u = random_uniform(random_key(r->seed, STREAM_SHUFFLE), (uint32_t)stage_index, (uint32_t)index, (uint32_t)(index >> 32), 1);
    return u < stage->mode_share[MODE_THINK] ? MODE_THINK : MODE_DIRECT;
}

typedef struct Sitting { // what one sampling works with
    const Trainer *t;
    const Stage *stage;
    int64_t stage_start, version;
    Group **groups; // [count] by request
    int count, first_count;
    Group **places; // [first_count] the latest attempt of each
    RolloutRequest *requests;
    bool pauses;    // it may end before all are complete
    int missing;    // groups of the batch
    int32_t longest_prompt;
    double waited;  // measured: seconds in which nothing decoded, all waited for the environment
    bool stopped;   // by progress
    bool failed;
    Err err;
} Sitting;

// ---- prompts -------------------------------------------------------------------------------------------------
static void drop_ids(void *p) { ids_free(p); }
static void drop_dialogues(void *p) { dialogues_close(p); }

bool group_new(const Trainer *t, const Stage *stage, int64_t stage_start, int64_t index, int attempt, Group **out, Err *err) {
    Arena arena = {0};
    Group *g = ARENA_NEW(&arena, Group, 1);
    *out = g;
    g->arena = arena;
    g->slot = (int)(index % stage->batch), g->attempt = attempt, g->size = stage->group_size;
    g->step = stage_start + index / stage->batch + 1;
    g->number = (uint32_t)(attempt * stage->batch + g->slot);
    g->episodes = ARENA_NEW(&g->arena, Episode, g->size);
    for (int s = 0; s < g->size; s++) g->episodes[s].completion.finish = FINISH_PAUSED;
    uint64_t item = ((uint64_t)attempt * (uint64_t)stage->steps + (uint64_t)(index / stage->batch)) * (uint64_t)stage->batch + (uint64_t)g->slot;
    g->prompt.mode = mode_of_prompt(t->recipe, stage, t->stage_index, item);
    arena_defer(&g->arena, drop_ids, &g->prompt.ids);
    const double *shares = curriculum_shares(t->curriculum);
    return shares ? tasks_train_item_of(t->tasks, stage, shares, item, &g->arena, &g->prompt.item, err)
                  : tasks_train_item(t->tasks, stage, item, &g->arena, &g->prompt.item, err);
}

// The environment opens its episodes, where there is one; then the prompts are what it opened with. Memory is the first group's.
static bool open_prompts(const Sitting *w, Group **groups, int count, Err *err) {
    const Trainer *t = w->t;
    Arena *a = &groups[0]->arena;
    Item **items = ARENA_NEW(a, Item *, count);
    Mode *modes = ARENA_NEW(a, Mode, count);
    Dialogues *dialogues;
    for (int i = 0; i < count; i++) items[i] = &groups[i]->prompt.item, modes[i] = groups[i]->prompt.mode;
    DialogueSetup setup = {.recipe = t->recipe, .policy = t->policy, .rewards = t->rewards, .count = count, .samples = groups[0]->size, .items = items,
                           .modes = modes, .arena = a, .step = (uint64_t)groups[0]->step, .first_prompt = groups[0]->number};
    TRY(dialogues_open(&setup, &dialogues, err));
    if (dialogues) arena_defer(a, drop_dialogues, dialogues); // the items' texts are its own
    for (int i = 0; i < count; i++) {
        Group *g = groups[i];
        g->dialogues = dialogues, g->dialogue = i;
        TRY(dialogue_prompt(dialogues, t->recipe, policy_tokenizer(t->policy), &g->prompt.item, g->prompt.mode, i, &g->prompt.ids, err));
    }
    return true;
}

static RolloutRequest request_of(const Sitting *w, Group *g) {
    RolloutRequest r = {.prompt = g->prompt.ids.data, .prompt_length = g->prompt.ids.count, .samples = g->size, .sampling = w->stage->sampling,
                        .seed = w->t->recipe->seed, .step = (uint32_t)g->step, .prompt_index = g->number};
    if (g->prompt.mode == MODE_DIRECT) r.sampling.think_tokens = 0;
    r.sampling.stop = dialogue_stops(g->dialogues, g->dialogue, w->stage->sampling.stop);
    return r;
}

// ---- samples -------------------------------------------------------------------------------------------------
static void take_version(Group *g, Episode *e, int64_t version, int32_t tokens) {
    if (tokens == 0) return;
    TokenVersions *all = ARENA_NEW(&g->arena, TokenVersions, e->version_count + 1);
    if (e->version_count) memcpy(all, e->versions, (size_t)e->version_count * sizeof *all);
    all[e->version_count++] = (TokenVersions){.version = version, .length = tokens};
    e->versions = all;
}
static void take_sample(const Sitting *w, Group *g, int sample, const Completion *c) {
    Episode *e = &g->episodes[sample];
    int32_t before = completion_total(&e->completion);
    take_version(g, e, w->version, c->length - e->completion.length);
    e->completion = completion_copy(&g->arena, c);
    if (completion_total(c) - before > g->tick) g->tick = completion_total(c) - before;
}

static bool submit(const Sitting *w, Group *g, Err *err) {
    if (g->dialogues && dialogue_result(g->dialogues, g->dialogue, 0)) {
        g->results = ARENA_NEW(&g->arena, EnvironmentResult, g->size);
        for (int s = 0; s < g->size; s++) g->results[s] = *dialogue_result(g->dialogues, g->dialogue, s);
    }
    return group_submit(w->t, g, err);
}

static void sample_finished(void *context, int32_t request, int32_t sample, const Completion *completion) {
    Sitting *w = context;
    Group *g = w->groups[request];
    if (w->failed || w->pauses) return; // where others may pause, who is finished is known in the end
    take_sample(w, g, sample, completion);
    if (++g->finished == g->size) w->failed = !submit(w, g, &w->err);
}

static bool turn_ended(void *context, int32_t request, int32_t sample, const Completion *completion) {
    const Group *g = ((Sitting *)context)->groups[request];
    return dialogue_turn_ended(g->dialogues, g->dialogue, sample, completion);
}
// Replaced prompts have dialogues of their own.
static bool next_turn(void *context, bool wait, NextTurn *out, Err *err) {
    Sitting *w = context;
    double start = clock_seconds();
    for (;;) {
        const Dialogues *last = NULL;
        for (int i = 0; i < w->count; i++) {
            Group *g = w->groups[i];
            if (g->dialogues == last) continue;
            last = g->dialogues;
            TRY(dialogue_next_turn(g->dialogues, false, out, err));
            if (out->request < 0) continue;
            out->request += i; // a dialogue's first group stands before its others
            if (wait) w->waited += clock_seconds() - start;
            return true;
        }
        if (!wait) return true;
        TRY(reward_pool_poll(w->t->rewards, true, err));
    }
}

static bool show_progress(void *context, int64_t tokens, int32_t finished) {
    Sitting *w = context;
    (void)tokens;
    if (w->failed) return false;
    double all = (double)w->count * w->stage->group_size;
    if (w->t->progress && !w->t->progress(w->t->progress_context, "sampling", finished / all)) w->stopped = true;
    return !w->stopped;
}

// ---- dynamic sampling ----------------------------------------------------------------------------------------
static bool varies(const Group *g) {
    const Verdict *first = NULL;
    for (int s = 0; s < g->size; s++) {
        const Verdict *v = &g->episodes[s].verdict;
        if (v->state != VERDICT_SCORED) continue;
        if (!first) first = v;
        else if (v->score != first->score) return true;
    }
    return false;
}

// The next attempt of a place whose group has no variance; a prompt that is too long counts as one. *out NULL: none is left.
static bool replace(Sitting *w, int place, Group **out, Err *err) {
    Group *old = w->places[place];
    int64_t index = (old->step - w->stage_start - 1) * w->stage->batch + old->slot;
    *out = NULL;
    for (int attempt = old->attempt + 1; attempt <= w->stage->algo.refills; attempt++) {
        Group *g;
        bool ok = group_new(w->t, w->stage, w->stage_start, index, attempt, &g, err) && open_prompts(w, &g, 1, err), fits = ok && g->prompt.ids.count <= w->longest_prompt;
        if (!fits) group_free(g);
        TRY(ok);
        if (!fits) continue;
        g->previous = old, g->began = old->began;
        w->places[place] = w->groups[w->count++] = *out = g;
        return true;
    }
    return true;
}

static bool next_request(void *context, bool wait, RolloutRequest *out, bool *there, Err *err) {
    Sitting *w = context;
    for (;;) {
        int unsettled = 0;
        TRY(reward_pool_poll(w->t->rewards, false, err));
        for (int i = 0; i < w->first_count; i++) {
            Group *g = w->places[i], *next = NULL;
            if (!g->settled && group_scored(g)) {
                if (!varies(g)) TRY(replace(w, i, &next, err));
                g->settled = true;
                if (next) {
                    *out = request_of(w, next);
                    *there = true;
                    return true;
                }
            }
            unsettled += !g->settled;
        }
        if (!wait || unsettled == 0) return true;
        TRY(reward_pool_poll(w->t->rewards, true, err));
    }
}

// ---- one sampling --------------------------------------------------------------------------------------------
// Everything that is carried over, and new prompts, as many as are missing.
static bool begin(Sitting *w, Flight *f, Err *err) {
    const Stage *stage = w->stage;
    int64_t all = (int64_t)stage->batch * stage->steps, fresh = w->missing + stage->partial - f->open_count;
    if (fresh > all - f->started) fresh = all - f->started;
    w->first_count = f->open_count + (int)fresh;
    size_t most = (size_t)w->first_count * (size_t)(stage->algo.refills + 1) + 1;
    w->groups = xcalloc(most, sizeof *w->groups), w->places = xcalloc(most, sizeof *w->places);
    w->requests = xcalloc((size_t)w->first_count + 1, sizeof *w->requests);
    if (f->open_count) memcpy(w->groups, f->open, (size_t)f->open_count * sizeof *w->groups);
    w->count = f->open_count;
    for (int64_t i = 0; i < fresh; i++) {
        bool ok = group_new(w->t, stage, w->stage_start, f->started + i, 0, &w->groups[w->count], err);
        w->groups[w->count++]->began = f->sampled + 1;
        TRY(ok);
    }
    int32_t room = config_context(policy_config(w->t->policy)) - stage->sampling.max_tokens;
    if (fresh > 0) TRY(open_prompts(w, w->groups + f->open_count, (int)fresh, err));
    if (stage->partial > 0 && w->groups[w->count - 1]->dialogues)
        return fail(err, ERR_DATA, "rollout.partial", "is %d, expected 0 beside an environment: an episode in it can't be carried over", stage->partial);
    for (int i = 0; i < w->count; i++) {
        Group *g = w->places[i] = w->groups[i];
        w->requests[i] = request_of(w, g);
        g->tick = 0, g->finished = 0;
        if (2 * g->prompt.ids.count + 64 > w->longest_prompt) w->longest_prompt = 2 * g->prompt.ids.count + 64;
        if (w->longest_prompt > room) w->longest_prompt = room;
        if (!w->pauses || i >= f->open_count) continue;
        Completion *carried = ARENA_NEW(&g->arena, Completion, g->size);
        for (int s = 0; s < g->size; s++) carried[s] = g->episodes[s].completion;
        w->requests[i].carried = carried;
        w->requests[i].due = f->sampled + 1 - g->began >= stage->carry;
    }
    return true;
}

static bool sample(Sitting *w, StepReport *report, Err *err) {
    const Stage *stage = w->stage;
    Rollout rollout;
    RolloutOptions o = {.finished = sample_finished, .progress = show_progress, .context = w, .complete = w->pauses ? w->missing : 0};
    o.int8 = stage->rollout_precision == ROLLOUT_INT8;
    o.retain = stage->staleness > 0 || w->pauses ? RETAIN_NEVER : stage->activations; // other weights train on them
    if (w->groups[0]->dialogues) o.turn_ended = turn_ended, o.next_turn = next_turn;
    if (stage->algo.refills > 0 && !w->pauses) o.next_request = next_request, o.more_requests = w->first_count * stage->algo.refills, o.longest_prompt = w->longest_prompt;
    bool ok = policy_rollout(w->t->policy, w->requests, w->first_count, &o, &rollout, err);
    if (w->failed) {
        if (ok) rollout_free(&rollout);
        *err = w->err;
        return false;
    }
    TRY(ok);
    for (int i = 0; w->pauses && i < w->count; i++)
        for (int s = 0; s < w->groups[i]->size; s++) take_sample(w, w->groups[i], s, &rollout.completions[i * w->groups[i]->size + s]);
    report->prompt_tokens += rollout.prompt_tokens;
    report->new_tokens += rollout.new_tokens;
    report->measured.reward += w->waited;
    rollout_free(&rollout);
    return true;
}

static bool is_complete(const Group *g) {
    for (int s = 0; s < g->size; s++)
        if (g->episodes[s].completion.finish == FINISH_PAUSED) return false;
    return true;
}

// Whether `a` goes into the batch before `b`: those that are due first, then as they became complete.
static bool is_before(const Flight *f, const Stage *stage, const Group *a, const Group *b) {
    bool due_a = f->sampled + 1 - a->began >= stage->carry, due_b = f->sampled + 1 - b->began >= stage->carry;
    if (due_a != due_b) return due_a;
    if (a->tick != b->tick) return a->tick < b->tick;
    return a->step != b->step ? a->step < b->step : a->slot < b->slot;
}

// Those that the batch is missing, in the order of their prompts' numbers; the others stay open.
static void choose(Sitting *w, Flight *f, Group **out) {
    const Stage *stage = w->stage;
    bool *chosen = xcalloc((size_t)w->first_count + 1, sizeof *chosen);
    for (int n = 0; n < w->missing; n++) {
        int best = -1;
        for (int i = 0; i < w->first_count; i++)
            if (!chosen[i] && is_complete(w->places[i]) && (best < 0 || is_before(f, stage, w->places[i], w->places[best]))) best = i;
        chosen[best] = true;
    }
    f->open = xrealloc(f->open, ((size_t)w->first_count + 1) * sizeof *f->open);
    f->started += w->first_count - f->open_count;
    f->open_count = 0;
    for (int i = 0, n = 0; i < w->first_count; i++) {
        if (chosen[i]) out[n++] = w->places[i];
        else f->open[f->open_count++] = w->places[i];
    }
    free(chosen);
}

// Scored; those without variance make room for their next attempts, which are in flight from now on. *kept: how many are left.
static bool keep_varying(Sitting *w, Flight *f, Group **groups, int *kept, Err *err) {
    bool ok = true;
    for (int i = 0; ok && i < w->missing; i++) ok = submit(w, groups[i], err);
    *kept = 0;
    w->longest_prompt = config_context(policy_config(w->t->policy)) - w->stage->sampling.max_tokens;
    for (int i = 0; ok && w->stage->algo.refills > 0 && i < w->missing; i++) ok = group_await(w->t, groups[i], err);
    for (int i = 0; i < w->missing; i++) {
        Group *next = NULL;
        int place = 0;
        while (w->places[place] != groups[i]) place++;
        if (ok && w->stage->algo.refills > 0 && !varies(groups[i])) ok = replace(w, place, &next, err);
        if (next) f->open[f->open_count++] = next; // there is room: it was among them
        else groups[(*kept)++] = groups[i];
    }
    return ok;
}

// What an interrupted sampling had begun is begun again by the next one.
static void undo(Sitting *w, Flight *f) {
    f->lost = xrealloc(f->lost, (size_t)(f->lost_count + w->first_count + 1) * sizeof *f->lost);
    for (int i = f->open_count; i < w->first_count && i < w->count; i++) f->lost[f->lost_count++] = w->places[i] ? w->places[i] : w->groups[i];
}

// ---- a sampling in rounds ------------------------------------------------------------------------------------
// What is in flight as it was before, for a sampling that is interrupted in a later round.
typedef struct Before {
    Flight flight;
    Group **open;       // [flight.open_count]
    Episode **episodes; // the same: [size] of each
} Before;
static void remember(const Flight *f, Before *b) {
    size_t count = (size_t)f->open_count;
    *b = (Before){.flight = *f, .open = xcalloc(count + 1, sizeof *b->open), .episodes = xcalloc(count + 1, sizeof *b->episodes)};
    for (size_t i = 0; i < count; i++) {
        Group *g = b->open[i] = f->open[i];
        b->episodes[i] = xcalloc((size_t)g->size, sizeof **b->episodes);
        memcpy(b->episodes[i], g->episodes, (size_t)g->size * sizeof *g->episodes);
    }
}
static void forget(Before *b) {
    for (int i = 0; i < b->flight.open_count; i++) free(b->episodes[i]);
    free(b->open), free(b->episodes);
}
static bool was_open(const Before *b, const Group *g) {
    for (int i = 0; i < b->flight.open_count; i++)
        if (b->open[i] == g) return true;
    return false;
}
static void lose(Flight *f, Group *g) {
    f->lost = xrealloc(f->lost, (size_t)(f->lost_count + 1) * sizeof *f->lost);
    f->lost[f->lost_count++] = g;
}
// A group that stands in place of one from before takes its attempts along only as far as they are new.
static void lose_new(Flight *f, const Before *b, Group *g) {
    Group *at = g;
    if (was_open(b, g)) return;
    while (at->previous && !was_open(b, at->previous)) at = at->previous;
    at->previous = NULL;
    lose(f, g);
}
static void recover(Flight *f, const Before *b, Group **batch, int count) {
    for (int i = 0; i < count; i++) lose_new(f, b, batch[i]);
    for (int i = 0; i < f->open_count; i++) lose_new(f, b, f->open[i]);
    f->open = xrealloc(f->open, ((size_t)b->flight.open_count + 1) * sizeof *f->open);
    f->open_count = b->flight.open_count, f->started = b->flight.started, f->tokens = b->flight.tokens;
    for (int i = 0; i < f->open_count; i++) {
        Group *g = f->open[i] = b->open[i];
        memcpy(g->episodes, b->episodes[i], (size_t)g->size * sizeof *g->episodes);
        g->submitted = g->settled = false;
    }
}

static bool sample_round(Sitting *w, Flight *f, Group **out, int *kept, StepReport *report, Err *err) {
    int64_t before = report->new_tokens;
    if (!begin(w, f, err) || !sample(w, report, err)) {
        undo(w, f);
        return false;
    }
    f->tokens += report->new_tokens - before;
    choose(w, f, out);
    *kept = w->missing;
    return !w->pauses || keep_varying(w, f, out, kept, err);
}

bool flight_sample(const Trainer *t, Flight *f, const Stage *stage, int64_t stage_start, int64_t version, StepReport *report, Err *err) {
    Group **batch = xcalloc((size_t)stage->batch + 1, sizeof *batch);
    Before before;
    int count = 0;
    bool ok = true;
    remember(f, &before);
    while (ok && count < stage->batch) {
        Sitting w = {.t = t, .stage = stage, .stage_start = stage_start, .version = version, .pauses = stage->partial > 0, .missing = stage->batch - count};
        int kept = 0;
        ok = sample_round(&w, f, batch + count, &kept, report, err);
        count += kept;
        free(w.groups), free(w.places), free(w.requests);
    }
    if (ok) {
        f->ready = xrealloc(f->ready, (size_t)(f->ready_count + 1) * sizeof *f->ready);
        f->ready[f->ready_count++].groups = batch;
        f->sampled++;
    } else {
        recover(f, &before, batch, count);
        free(batch);
    }
    forget(&before);
    return ok;
}

// ---- rewards ---------------------------------------------------------------------------------------------
static void sum_parts(const Batch *b, StepReport *report) {
    double count[MAX_REWARD_PARTS] = {0};
    for (int i = 0; i < b->episode_count; i++) {
        const Verdict *v = &b->episodes[i].verdict;
        for (int j = 0; j < v->part_count; j++) {
            int k = 0;
            while (k < report->part_count && strcmp(report->part_name[k], v->parts[j].name) != 0) k++;
            if (k == MAX_REWARD_PARTS) continue;
            if (k == report->part_count) {
                report->part_count++;
                memcpy(report->part_name[k], v->parts[j].name, sizeof report->part_name[k]);
            }
            if (v->parts[j].value != v->parts[j].value) continue;
            report->part_mean[k] += v->parts[j].value;
            count[k]++;
        }
    }
    for (int k = 0; k < report->part_count; k++) report->part_mean[k] = count[k] > 0 ? report->part_mean[k] / count[k] : NAN;
}

static void sum_lengths(const Batch *b, StepReport *report) {
    double entropy = 0, tokens = 0, n = b->episode_count;
    for (int i = 0; i < b->episode_count; i++) {
        const Episode *e = &b->episodes[i];
        report->length_mean += e->completion.length / n;
        report->think_mean += e->think_tokens / n;
        report->answer_mean += e->answer_tokens / n;
        report->given_mean += (completion_total(&e->completion) - e->completion.length) / n;
        report->truncated_share += (e->completion.finish == FINISH_LENGTH) / n;
        for (int32_t j = 0; j < e->completion.length; j++) entropy += e->completion.entropy[j];
        tokens += e->completion.length;
    }
    report->entropy = tokens > 0 ? entropy / tokens : 0;
}

void level_counts_free(LevelCounts *c) {
    free(c->rows);
    *c = (LevelCounts){0};
}
static LevelCount *level_count_of(LevelCounts *c, const Item *item) {
    for (int i = 0; i < c->count; i++)
        if (c->rows[i].level == item->level && !strncmp(c->rows[i].kind, item->kind, sizeof c->rows[i].kind - 1)) return &c->rows[i];
    c->rows = xrealloc(c->rows, (size_t)(c->count + 1) * sizeof *c->rows);
    LevelCount *row = &c->rows[c->count++];
    *row = (LevelCount){.level = item->level, .share = NAN};
    snprintf(row->kind, sizeof row->kind, "%s", item->kind);
    return row;
}
void levels_count(const Batch *b, StepReport *report) {
    for (int i = 0; i < b->prompt_count; i++) {
        LevelCount *row = level_count_of(&report->levels, &b->prompts[i].item);
        row->prompts++;
        row->samples += b->group_size;
        for (int s = 0; s < b->group_size; s++) row->passed += verdict_first_reward(&b->episodes[i * b->group_size + s].verdict) >= 1;
    }
}

bool rewards_collect(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    TRY(batch_verdicts(t, b, report, err));
    double sum = 0, squares = 0, scored = 0;
    const Verdict *bad = NULL;
    int bad_prompt = 0, bad_sample = 0;
    for (int i = 0; i < b->episode_count; i++) {
        const Verdict *v = &b->episodes[i].verdict;
        report->verdicts[v->state]++;
        if (v->state == VERDICT_ERROR || v->state == VERDICT_BUDGET || v->state == VERDICT_KILLED)
            bad = v, bad_prompt = (int)b->groups[i / b->group_size]->number, bad_sample = i % b->group_size;
        if (v->state != VERDICT_SCORED) continue;
        sum += v->score;
        squares += v->score * v->score;
        scored++;
    }
    int failed = report->verdicts[VERDICT_ERROR] + report->verdicts[VERDICT_BUDGET] + report->verdicts[VERDICT_KILLED];
    if (bad && failed > t->recipe->max_failed_share * b->episode_count)
        return fail(err, ERR_DATA, "rewards", "%d of %d samples of step %lld could not be scored (more than %.0f %%); one of them, prompt %d "
                    "sample %d: %s: %s", failed, b->episode_count, (long long)b->step, 100 * t->recipe->max_failed_share, bad_prompt, bad_sample,
                    verdict_state_names[bad->state], bad->why);
    report->reward_mean = scored > 0 ? sum / scored : NAN;
    double variance = scored > 1 ? (squares - sum * sum / scored) / (scored - 1) : 0;
    report->reward_std = scored > 0 ? sqrt(variance > 0 ? variance : 0) : NAN;
    sum_parts(b, report);
    sum_lengths(b, report);
    return true;
}
