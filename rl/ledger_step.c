// One step of a run on the ledger: its row, its prompts, its samples with the parts of their verdicts, and what was
// measured, in one transaction. Everything but the measured event is replayable and enters the chain.
#include "ledger_rows.h"
#include "files.h"
#include "flight.h"
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static bool insert_step(Ledger *l, const StepReport *r, Err *err) {
    Value v[] = {value_int(r->step), value_int(r->stage_index), value_int(r->stage_step), value_text(stage_rows[r->kind].name),
                 value_real(r->loss), value_real(r->learning_rate), value_real(r->gradient_norm), value_real(r->reward_mean),
                 value_real(r->reward_std), value_real(r->entropy), value_real(r->kl), value_real(r->clip_share),
                 value_real(r->clip_low), value_real(r->clip_high), value_real(r->ratio_max), value_real(r->length_mean), value_real(r->think_mean), value_real(r->answer_mean),
                 value_real(r->truncated_share), value_real(r->given_mean), value_int(r->verdicts[VERDICT_SCORED]),
                 value_int(r->verdicts[VERDICT_ABSTAINED]), value_int(r->verdicts[VERDICT_ERROR]),
                 value_int(r->verdicts[VERDICT_BUDGET]), value_int(r->verdicts[VERDICT_KILLED]), value_int(r->groups),
                 value_int(r->groups_without_variance), value_int(r->groups_trained), value_int(r->prompt_tokens),
                 value_int(r->new_tokens), value_int(r->trained_tokens), value_int(r->stale_tokens), value_int(r->staleness),
                 value_real(r->corrected_share), value_int(r->flight_tokens), value_int(r->skipped), value_real(r->flops),
                 value_text(""), value_text("")};
    _Static_assert(COUNT(v) == 39, "one value a column");
    TRY(ledger_insert(l, T_STEPS, v, err));
    for (int i = 0; i < r->part_count && i < MAX_REWARD_PARTS; i++) {
        Value part[] = {value_int(r->step), value_int(i), value_text(r->part_name[i]), value_real(r->part_mean[i])};
        TRY(ledger_insert(l, T_STEP_PARTS, part, err));
    }
    for (int i = 0; i < r->levels.count; i++) {
        const LevelCount *c = &r->levels.rows[i];
        Value row[] = {value_int(r->step), value_int(i), value_text(c->kind), value_int(c->level), value_int(c->prompts),
                       value_int(c->samples), value_int(c->passed), value_real(c->share)};
        TRY(ledger_insert(l, T_STEP_LEVELS, row, err));
    }
    for (int i = 0; i < r->experts.layers; i++) { // rows of each expert: [experts] i64
        const ExpertLoad *e = &r->experts;
        size_t bytes = (size_t)e->experts * sizeof *e->rows;
        Value row[] = {value_int(r->step), value_int(e->layer[i]), value_real(expert_imbalance(e, i)),
                       value_bytes(e->rows + (int64_t)i * e->experts, bytes, VALUE_BLOB)};
        TRY(ledger_insert(l, T_STEP_EXPERTS, row, err));
    }
    return true;
}

static bool insert_prompt(Ledger *l, int64_t step, int index, const Prompt *p, Err *err) {
    Buf messages = {0}, row = {0};
    char hash[65];
    // A question may be text, messages, or (a rendered prompt alone) only ids; the ids are always there.
    Value v[] = {value_int(step), value_int(index), value_text(p->item.kind), value_int(p->item.level),
                 value_text(mode_names[p->mode]), value_text(p->item.prompt), value_json(p->item.messages, &messages),
                 value_text(p->item.truth), value_bytes(p->ids.data, (size_t)p->ids.count * sizeof(int32_t), VALUE_BLOB),
                 value_int(p->has_variance), {0}};
    row_append(&row, "prompts", v, ledger_tables[T_PROMPTS].hashed);
    sha256_hex(row.data, row.size, hash);
    v[10] = value_text(hash);
    bool ok = ledger_insert(l, T_PROMPTS, v, err);
    buf_free(&messages), buf_free(&row);
    return ok;
}

// A completion with what was given to it: [total] i32, a given id as -1 - id. NULL where nothing was given.
static Value course_value(const Completion *c, Buf *memory) {
    memory->size = 0;
    if (!c->given) return (Value){0};
    for (int32_t i = 0; i < c->total; i++) {
        int32_t id = c->given[i] ? -1 - c->all[i] : c->all[i];
        buf_append(memory, &id, sizeof id);
    }
    return value_bytes(memory->data, memory->size, VALUE_BLOB);
}

// Whose weights drew its tokens: [stretches][2] i64, a version (steps done) and a number of sampled tokens. NULL where all are of
// the step's own weights.
static Value versions_value(const Episode *e, int64_t step, Buf *memory) {
    memory->size = 0;
    if (e->version_count == 0 || (e->version_count == 1 && e->versions[0].version == step - 1)) return (Value){0};
    for (int i = 0; i < e->version_count; i++) {
        int64_t pair[2] = {e->versions[i].version, e->versions[i].length};
        buf_append(memory, pair, sizeof pair);
    }
    return value_bytes(memory->data, memory->size, VALUE_BLOB);
}

// A group that dynamic sampling replaced: what it cost, and the reward that all its scored samples had.
static bool insert_replaced(Ledger *l, int64_t step, int prompt, const Group *g, Err *err) {
    int64_t tokens = 0;
    double reward = NAN;
    for (int s = 0; s < g->size; s++) {
        tokens += g->episodes[s].completion.length;
        if (g->episodes[s].verdict.state == VERDICT_SCORED) reward = g->episodes[s].verdict.score;
    }
    Value v[] = {value_int(step), value_int(prompt), value_int(g->attempt), value_text(g->prompt.item.kind), value_int(g->prompt.item.level),
                 value_text(mode_names[g->prompt.mode]), value_int(g->size), value_int(g->prompt.ids.count), value_int(tokens), value_real(reward)};
    return ledger_insert(l, T_REPLACED, v, err);
}

static bool insert_sample(Ledger *l, int64_t step, int index, const Episode *e, Buf *row, Buf *course, Buf *versions, Err *err) {
    const Completion *c = &e->completion;
    const Verdict *verdict = &e->verdict;
    char hash[65];
    size_t length = (size_t)c->length;
    Value v[] = {value_int(step), value_int(index), value_int(e->prompt),
                 value_text(c->finish == FINISH_STOP ? "stop" : "length"), value_int(c->length), value_int(e->think_tokens),
                 value_int(e->answer_tokens), value_text(verdict_state_names[verdict->state]), value_real(verdict->score),
                 value_text(verdict->why), value_real(e->advantage), value_int(e->active),
                 e->text ? value_bytes(e->text, e->text_size, VALUE_TEXT) : (Value){0},
                 value_bytes(c->ids, length * sizeof *c->ids, VALUE_BLOB),
                 c->logprob ? value_bytes(c->logprob, length * sizeof *c->logprob, VALUE_BLOB) : (Value){0}, course_value(c, course), versions_value(e, step, versions), {0}};
    row->size = 0;
    row_append(row, "samples", v, ledger_tables[T_SAMPLES].hashed);
    for (int i = 0; i < verdict->part_count && i < MAX_REWARD_PARTS; i++) {
        Value part[] = {value_int(step), value_int(index), value_int(i), value_text(verdict->parts[i].name),
                        value_real(verdict->parts[i].value)};
        row_append(row, "parts", part, ledger_tables[T_PARTS].hashed);
        TRY(ledger_insert(l, T_PARTS, part, err));
    }
    sha256_hex(row->data, row->size, hash);
    v[17] = value_text(hash);
    return ledger_insert(l, T_SAMPLES, v, err);
}

static json_t *measured_json(const StepReport *r, const Batch *b, const char *content) {
    uint64_t fuel = 0;
    for (int i = 0; b && i < b->episode_count; i++) fuel += b->episodes[i].verdict.fuel;
    json_t *j = json_object();
    json_object_set_new(j, "content", json_string(content));
    json_object_set_new(j, "seconds", json_number_or_name(r->measured.seconds));
    json_object_set_new(j, "rollout", json_number_or_name(r->measured.rollout));
    json_object_set_new(j, "reward", json_number_or_name(r->measured.reward));
    json_object_set_new(j, "reward_idle", json_number_or_name(r->measured.reward_idle));
    json_object_set_new(j, "train", json_number_or_name(r->measured.train));
    json_object_set_new(j, "optimizer", json_number_or_name(r->measured.optimizer));
    double sampling = r->measured.rollout, training = r->measured.train + r->measured.optimizer;
    if (r->new_tokens > 0 && sampling > 0) json_object_set_new(j, "new_tokens_per_second", json_real((double)r->new_tokens / sampling));
    if (r->trained_tokens > 0 && training > 0) json_object_set_new(j, "trained_tokens_per_second", json_real((double)r->trained_tokens / training));
    json_object_set_new(j, "cpu_seconds", json_number_or_name(r->measured.cpu_seconds));
    json_object_set_new(j, "joules", json_number_or_name(r->measured.joules));
    if (r->sampler_gap > 0) json_object_set_new(j, "sampler_gap", json_real(r->sampler_gap)); // of corrected samples, so not of every run's steps
    if (r->spared_tokens > 0) json_object_set_new(j, "spared_tokens", json_integer((json_int_t)r->spared_tokens));
    if (isfinite(r->measured.device_joules)) json_object_set_new(j, "device_joules", json_real(r->measured.device_joules));
    json_object_set_new(j, "peak_bytes", json_integer((json_int_t)r->measured.peak_bytes));
    json_object_set_new(j, "fuel", json_integer((json_int_t)fuel));
    return j;
}

static bool write_step(Ledger *l, const StepReport *r, const Batch *b, Err *err) {
    int64_t last;
    char previous[65], content[65], chain[65];
    TRY(ledger_integer(l, "SELECT max(step) FROM steps", 0, 0, &last, err));
    if (r->step != last + 1)
        return fail(err, ERR_SOFTWARE, l->path, "found step %lld, expected %lld", (long long)r->step, (long long)last + 1);
    TRY(chain_before(l, last, previous, err));
    TRY(insert_step(l, r, err));
    for (int i = 0; b && i < b->prompt_count; i++) TRY(insert_prompt(l, r->step, i, &b->prompts[i], err));
    for (int i = 0; b && b->groups && i < b->prompt_count; i++)
        for (const Group *g = b->groups[i]->previous; g; g = g->previous) TRY(insert_replaced(l, r->step, i, g, err));
    Buf row = {0}, course = {0}, versions = {0};
    bool ok = true;
    for (int i = 0; ok && b && i < b->episode_count; i++) ok = insert_sample(l, r->step, i, &b->episodes[i], &row, &course, &versions, err);
    buf_free(&row), buf_free(&course), buf_free(&versions);
    TRY(ok);
    TRY(step_content(l, r->step, false, NULL, content, err));
    chain_link(previous, content, 64, chain);
    TRY(ledger_set_text(l, "UPDATE steps SET content = ? WHERE step = ?", content, r->step, 0, err));
    TRY(ledger_set_text(l, "UPDATE steps SET chain = ? WHERE step = ?", chain, r->step, 0, err));
    json_t *measured = measured_json(r, b, content);
    ok = ledger_append_event(l, "step", r->step, measured, err);
    json_decref(measured);
    return ok;
}

bool ledger_step(Ledger *l, const StepReport *r, const Batch *batch, Err *err) {
    TRY(ledger_begin(l, err));
    return ledger_finish(l, write_step(l, r, batch, err), err);
}

// ---- beside the next step --------------------------------------------------------------------------------
typedef struct StepWriting {
    pthread_t thread;
    Ledger ledger; // the same connection, used by one thread at a time
    StepReport report;
    Batch batch;
    bool samples, ok;
    Err err;
} StepWriting;

static void *write_beside(void *argument) {
    StepWriting *w = argument;
    w->ok = ledger_step(&w->ledger, &w->report, w->samples ? &w->batch : NULL, &w->err);
    return NULL;
}

bool ledger_step_beside(Ledger *l, StepReport *r, Batch *batch, Err *err) {
    TRY(ledger_settle(l, err));
    StepWriting *w = xcalloc(1, sizeof *w);
    w->ledger = *l, w->report = *r, w->samples = batch;
    if (batch) w->batch = *batch;
    w->ledger.beside = NULL;
    r->experts = (ExpertLoad){0}, r->levels = (LevelCounts){0};
    if (batch) *batch = (Batch){0};
    sigset_t all, before; // signals are for the threads that look after them
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int e = pthread_create(&w->thread, NULL, write_beside, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    *l->beside = w;
    if (e == 0) return true;
    w->thread = pthread_self(); // no thread to be had: written here and now
    write_beside(w);
    return ledger_settle(l, err);
}

bool ledger_settle(const Ledger *l, Err *err) {
    StepWriting *w = l->beside ? *l->beside : NULL;
    if (!w) return true;
    if (!pthread_equal(w->thread, pthread_self())) pthread_join(w->thread, NULL);
    *l->beside = NULL;
    bool ok = w->ok;
    if (!ok && err) *err = w->err;
    expert_load_free(&w->report.experts), level_counts_free(&w->report.levels);
    batch_free(&w->batch);
    free(w);
    return ok;
}
