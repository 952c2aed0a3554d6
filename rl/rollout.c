// Rollout and rewards of one step: prompts from the tasks, completions from the policy, verdicts from the scripts. A
// prompt's group is handed to the reward workers as soon as its last sample is finished, while others still decode;
// scores don't depend on that order.
#include "curriculum.h"
#include "stages.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Mode mode_of_prompt(const Recipe *r, const Stage *stage, int stage_index, uint64_t index) {
    double u = random_uniform(random_key(r->seed, STREAM_SHUFFLE), (uint32_t)stage_index, (uint32_t)index, (uint32_t)(index >> 32), 1);
    return u < stage->mode_share[MODE_THINK] ? MODE_THINK : MODE_DIRECT;
}

typedef struct Collector {
    const Trainer *t;
    Batch *batch;
    int *finished; // per prompt
    Dialogues *dialogues; // NULL without an environment
    bool stopped; // by progress
    bool failed;
    Err err;
} Collector;

static bool submit_group(Collector *c, int prompt) {
    const Recipe *r = c->t->recipe;
    Batch *b = c->batch;
    for (int s = 0; s < b->group_size; s++) {
        Episode *e = &b->episodes[prompt * b->group_size + s];
        const Prompt *p = &b->prompts[prompt];
        char id[96];
        snprintf(id, sizeof id, "step %lld prompt %d sample %d", (long long)b->step, b->round * b->stage->batch + prompt, s);
        RewardSample sample = {.id = id, .prompt = p->item.prompt, .messages = p->item.messages, .completion = e->text,
                               .completion_size = e->text_size, .truth = p->item.truth, .row = p->item.row,
                               .tokens = e->completion.length, .think_tokens = e->think_tokens, .answer_tokens = e->answer_tokens,
                               .finish = e->completion.finish == FINISH_STOP ? "stop" : "length", .mode = mode_names[p->mode], .task = p->item.kind,
                               .step = b->step, .group = prompt,
                               .seed = r->seed ^ ((uint64_t)b->step << 32) ^
                                       (uint64_t)((b->round * b->stage->batch + prompt) * b->group_size + s),
                               .environment = dialogue_result(c->dialogues, prompt, s)};
        TRY(reward_pool_submit(c->t->rewards, &sample, &e->verdict, &c->err));
    }
    return reward_pool_start(c->t->rewards, &c->err);
}

static void sample_finished(void *context, int32_t request, int32_t sample, const Completion *completion) {
    Collector *c = context;
    Batch *b = c->batch;
    Episode *e = &b->episodes[request * b->group_size + sample];
    if (c->failed) return;
    e->prompt = request;
    e->sample = sample;
    e->completion = *completion;
    Buf text = {0};
    bool ok = completion_text(policy_tokenizer(c->t->policy), completion, b->prompts[request].mode, &text, &e->think_tokens,
                              &e->answer_tokens, &c->err);
    e->text = arena_alloc(&b->arena, text.size + 1);
    if (text.size) memcpy(e->text, text.data, text.size);
    e->text_size = text.size;
    buf_free(&text);
    if (ok && ++c->finished[request] == b->group_size) ok = submit_group(c, request);
    c->failed = !ok;
}

static bool turn_ended(void *context, int32_t request, int32_t sample, const Completion *completion) {
    return dialogue_turn_ended(((Collector *)context)->dialogues, request, sample, completion);
}
static bool next_turn(void *context, bool wait, NextTurn *out, Err *err) {
    return dialogue_next_turn(((Collector *)context)->dialogues, wait, out, err);
}

static bool show_progress(void *context, int64_t tokens, int32_t finished) {
    Collector *c = context;
    (void)tokens;
    if (c->failed) return false;
    if (c->t->progress && !c->t->progress(c->t->progress_context, "sampling", (double)finished / c->batch->episode_count)) c->stopped = true;
    return !c->stopped;
}

static void drop_ids(void *p) { ids_free(p); }

static bool make_prompts(const Trainer *t, Batch *b, Err *err) {
    const Stage *stage = b->stage;
    b->group_size = stage->group_size;
    b->prompt_count = b->wanted > 0 ? b->wanted : stage->batch;
    b->episode_count = b->prompt_count * stage->group_size;
    b->prompts = ARENA_NEW(&b->arena, Prompt, b->prompt_count);
    b->episodes = ARENA_NEW(&b->arena, Episode, b->episode_count);
    for (int i = 0; i < b->prompt_count; i++) {
        Prompt *p = &b->prompts[i];
        // Replacements of dynamic sampling come from beyond the stage's own prompts.
        uint64_t index = ((uint64_t)b->round * (uint64_t)stage->steps + (uint64_t)(b->stage_step - 1)) * (uint64_t)stage->batch + (uint64_t)i;
        p->mode = mode_of_prompt(t->recipe, stage, t->stage_index, index);
        const double *shares = curriculum_shares(t->curriculum);
        TRY(shares ? tasks_train_item_of(t->tasks, stage, shares, index, &b->arena, &p->item, err)
                   : tasks_train_item(t->tasks, stage, index, &b->arena, &p->item, err));
        arena_defer(&b->arena, drop_ids, &p->ids);
    }
    return true;
}

static void drop_dialogues(void *p) { dialogues_close(p); }

// The environment opens its episodes, where there is one; then the prompts are what it opened with.
static bool open_prompts(const Trainer *t, Batch *b, Dialogues **out, Err *err) {
    Item **items = ARENA_NEW(&b->arena, Item *, b->prompt_count);
    Mode *modes = ARENA_NEW(&b->arena, Mode, b->prompt_count);
    for (int i = 0; i < b->prompt_count; i++) items[i] = &b->prompts[i].item, modes[i] = b->prompts[i].mode;
    DialogueSetup setup = {.recipe = t->recipe, .policy = t->policy, .rewards = t->rewards, .count = b->prompt_count, .samples = b->group_size,
                           .items = items, .modes = modes, .arena = &b->arena, .step = (uint64_t)b->step, .first_prompt = (uint32_t)(b->round * b->stage->batch)};
    TRY(dialogues_open(&setup, out, err));
    if (*out) arena_defer(&b->arena, drop_dialogues, *out); // the items' texts are its own
    for (int i = 0; i < b->prompt_count; i++) {
        Prompt *p = &b->prompts[i];
        TRY(dialogue_prompt(*out, t->recipe, policy_tokenizer(t->policy), &p->item, p->mode, i, &p->ids, err));
    }
    return true;
}

bool rollout_batch(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    Dialogues *dialogues;
    TRY(make_prompts(t, b, err) && open_prompts(t, b, &dialogues, err));
    RolloutRequest *requests = ARENA_NEW(&b->arena, RolloutRequest, b->prompt_count);
    for (int i = 0; i < b->prompt_count; i++)
        requests[i] = (RolloutRequest){.prompt = b->prompts[i].ids.data, .prompt_length = b->prompts[i].ids.count,
                                       .samples = b->group_size, .sampling = b->stage->sampling, .seed = t->recipe->seed,
                                       .step = (uint32_t)b->step,
                                       .prompt_index = (uint32_t)(b->round * b->stage->batch + i)};
    for (int i = 0; i < b->prompt_count; i++) {
        if (b->prompts[i].mode == MODE_DIRECT) requests[i].sampling.think_tokens = 0;
        requests[i].sampling.stop = dialogue_stops(dialogues, i, b->stage->sampling.stop);
    }
    Collector c = {.t = t, .batch = b, .finished = ARENA_NEW(&b->arena, int, b->prompt_count), .dialogues = dialogues};
    RolloutOptions options = {.finished = sample_finished, .progress = show_progress, .context = &c};
    if (dialogues) options.turn_ended = turn_ended, options.next_turn = next_turn;
    bool ok = policy_rollout(t->policy, requests, b->prompt_count, &options, &b->rollout, err);
    if (c.failed) {
        if (ok) rollout_free(&b->rollout);
        *err = c.err;
        return false;
    }
    TRY(ok);
    report->prompt_tokens = b->rollout.prompt_tokens;
    report->new_tokens = b->rollout.new_tokens;
    report->measured.reward += dialogues_waited(dialogues);
    return true;
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
    double start = clock_seconds();
    TRY(reward_pool_finish(t->rewards, err));
    report->measured.reward += clock_seconds() - start;
    double sum = 0, squares = 0, scored = 0;
    const Verdict *bad = NULL;
    int bad_prompt = 0, bad_sample = 0;
    for (int i = 0; i < b->episode_count; i++) {
        const Verdict *v = &b->episodes[i].verdict;
        report->verdicts[v->state]++;
        if (v->state == VERDICT_ERROR || v->state == VERDICT_BUDGET || v->state == VERDICT_KILLED)
            bad = v, bad_prompt = b->round * b->stage->batch + i / b->group_size, bad_sample = i % b->group_size;
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
