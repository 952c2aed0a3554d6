// A made-up run for the tests of the ledger, the checkpoints and the report: batches and step reports whose numbers are
// a function of the step, without a model.
#ifndef RECKON_MADE_RUN_H
#define RECKON_MADE_RUN_H
#include "ledger_rows.h"
#include "files.h"
#include "flight.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MADE_PROMPTS = 3, MADE_GROUP = 4, MADE_SAMPLES = MADE_PROMPTS * MADE_GROUP };

static inline void made_episode(Batch *b, Random *r, int index) {
    Episode *e = &b->episodes[index];
    Completion *c = &e->completion;
    e->prompt = index / MADE_GROUP, e->sample = index % MADE_GROUP;
    c->length = 3 + (int)random_below(r, 20);
    c->ids = ARENA_NEW(&b->arena, int32_t, c->length), c->logprob = ARENA_NEW(&b->arena, float, c->length);
    for (int i = 0; i < c->length; i++) c->ids[i] = (int32_t)random_below(r, 100), c->logprob[i] = -(float)random_double(r);
    c->finish = random_below(r, 5) ? FINISH_STOP : FINISH_LENGTH;
    bool think = b->prompts[e->prompt].mode == MODE_THINK, right = random_below(r, 100) < 30 + (uint32_t)b->step / 6;
    int truth = 7 * (e->prompt + 1) + 8;
    char text[200];
    snprintf(text, sizeof text, think ? "7*%d=%d, plus 8 is %d</think>%d" : "%.0d%.0d%.0d%d", think ? e->prompt + 1 : 0,
             think ? 7 * (e->prompt + 1) : 0, think ? truth : 0, right ? truth : truth + 1);
    e->text = arena_strdup(&b->arena, text), e->text_size = strlen(text);
    e->think_tokens = think ? c->length - 1 : 0, e->answer_tokens = c->length - e->think_tokens;
    Verdict *v = &e->verdict;
    v->state = VERDICT_SCORED, v->score = right, v->part_count = 2, v->fuel = 100;
    if (random_below(r, 20) == 0) {
        v->state = VERDICT_ERROR, v->score = 0.0 / 0.0, v->part_count = 0;
        snprintf(v->why, sizeof v->why, "format.lua:3: attempt to index a nil value");
    }
    v->parts[0] = (RewardPart){"correct", right}, v->parts[1] = (RewardPart){"format", 1};
    e->active = v->state == VERDICT_SCORED;
    e->advantage = e->active ? v->score - 0.5 : 0;
}

// A batch of `step`; released with made_free.
static inline Batch made_batch(int64_t step) {
    Batch b = {.step = step, .prompt_count = MADE_PROMPTS, .episode_count = MADE_SAMPLES, .group_size = MADE_GROUP};
    Random r = random_start(1, STREAM_TEST, (uint64_t)step);
    b.prompts = ARENA_NEW(&b.arena, Prompt, MADE_PROMPTS), b.episodes = ARENA_NEW(&b.arena, Episode, MADE_SAMPLES);
    for (int i = 0; i < MADE_PROMPTS; i++) {
        Prompt *p = &b.prompts[i];
        char text[64];
        snprintf(text, sizeof text, "What is 7 * %d + 8?", i + 1);
        p->item = (Item){.kind = "arithmetic", .level = i + 1, .prompt = arena_strdup(&b.arena, text)};
        snprintf(text, sizeof text, "%d", 7 * (i + 1) + 8);
        p->item.truth = arena_strdup(&b.arena, text);
        p->mode = (Mode)((step + i) % MODES), p->has_variance = i != 1;
        p->ids.data = ARENA_NEW(&b.arena, int32_t, 5), p->ids.count = 5;
        for (int k = 0; k < 5; k++) p->ids.data[k] = k + i;
    }
    for (int i = 0; i < MADE_SAMPLES; i++) made_episode(&b, &r, i);
    b.groups = ARENA_NEW(&b.arena, Group *, MADE_PROMPTS);
    for (int i = 0; i < MADE_PROMPTS; i++) { // each took the place of one without a token
        b.groups[i] = ARENA_NEW(&b.arena, Group, 1), b.groups[i]->previous = ARENA_NEW(&b.arena, Group, 1);
        *b.groups[i]->previous = (Group){.size = 1, .episodes = ARENA_NEW(&b.arena, Episode, 1), .prompt = b.prompts[i]};
        b.groups[i]->previous->episodes->verdict.score = 0.25;
    }
    return b;
}
static inline void made_free(Batch *b) { arena_reset(&b->arena); }

static inline StepReport made_report(const Batch *b, int64_t step, int stage_index) {
    Random r = random_start(2, STREAM_TEST, (uint64_t)step);
    double t = (double)step;
    StepReport s = {.step = step, .stage_index = stage_index, .stage_step = (int)step, .kind = b ? STAGE_GRPO : STAGE_SFT,
                    .loss = (b ? 0.02 : 2) / (1 + t / 20) + 0.01 * random_normal(&r), .learning_rate = 1e-4,
                    .gradient_norm = 1 + 0.2 * random_normal(&r), .reward_mean = 0.0 / 0.0, .reward_std = 0.0 / 0.0,
                    .entropy = 0.9 / (1 + t / 50) + 0.02 * random_normal(&r), .kl = 0.001 * t, .ratio_max = 0,
                    .prompt_tokens = b ? 15 : 600, .trained_tokens = b ? 100 : 900, .flops = 1e9,
                    .measured = {.seconds = 0.5, .rollout = b ? 0.25 : 0, .reward = b ? 0.05 : 0, .train = 0.15,
                                 .optimizer = 0.05, .cpu_seconds = 0.9, .joules = 0.0 / 0.0, .peak_bytes = 1 << 20}};
    for (int i = 0; b && i < b->episode_count; i++) {
        const Episode *e = &b->episodes[i];
        s.verdicts[e->verdict.state]++;
        s.new_tokens += e->completion.length;
        s.truncated_share += e->completion.finish == FINISH_LENGTH ? 1.0 / b->episode_count : 0;
        s.think_mean += e->think_tokens / (double)b->episode_count, s.answer_mean += e->answer_tokens / (double)b->episode_count;
        if (e->verdict.state == VERDICT_SCORED) s.reward_mean = (s.reward_mean == s.reward_mean ? s.reward_mean : 0) + e->verdict.score;
    }
    if (!b) return s;
    s.length_mean = (double)s.new_tokens / b->episode_count;
    s.reward_mean /= s.verdicts[VERDICT_SCORED], s.reward_std = 0.4;
    s.groups = MADE_PROMPTS, s.groups_without_variance = 1, s.groups_trained = MADE_PROMPTS - 1;
    s.part_count = 2, s.part_mean[0] = s.reward_mean, s.part_mean[1] = 1;
    strcpy(s.part_name[0], "correct"), strcpy(s.part_name[1], "format");
    return s;
}

static inline bool made_step(Ledger *l, int64_t step, Err *err) {
    Batch b = made_batch(step);
    StepReport s = made_report(&b, step, 1);
    int32_t layers[] = {1, 2};
    int64_t rows[] = {step, 2, 3, 7, 5, 5};
    LevelCount levels[] = {{.kind = "arithmetic", .level = 1, .prompts = 1, .samples = MADE_GROUP, .passed = step % 4, .share = 0.75},
                           {.kind = "arithmetic", .level = 2, .prompts = 2, .samples = 2 * MADE_GROUP, .passed = step % 8, .share = 0.25}};
    s.levels = (LevelCounts){levels, 2};
    s.clip_share = 0.03, s.clip_low = 0.01, s.clip_high = 0.02;
    s.experts = (ExpertLoad){.layers = 2, .experts = 3, .layer = layers, .rows = rows};
    bool ok = ledger_step(l, &s, &b, err);
    made_free(&b);
    return ok;
}

static inline json_t *made_evaluation(int64_t step, const char *mode) {
    return json_pack("{s:s, s:[{s:s,s:i,s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}]}", "mode", mode, "levels", "kind", "arithmetic",
                     "level", 1, "items", 100, "correct", (int)(40 + step), "accuracy", (40 + (double)step) / 100, "low",
                     (30 + (double)step) / 100, "high", (50 + (double)step) / 100, "tokens", 12.5, "think_tokens", 10.0,
                     "answer_tokens", 2.5, "truncated", 0.0, "flops", 1e7);
}
static inline bool made_run_facts(Ledger *l, Err *err) {
    json_t *facts = json_pack("{s:s, s:s}", "recipe_hash", "ab", "version", RECKON_VERSION), *machine = json_pack("{s:i}", "cores", 2);
    bool ok = ledger_run(l, facts, machine, err);
    json_decref(facts), json_decref(machine);
    return ok;
}
static inline bool made_evaluate(Ledger *l, int64_t step, const char *mode, Err *err) {
    json_t *e = made_evaluation(step, mode), *m = json_pack("{s:f}", "seconds", 1.5);
    bool ok = ledger_evaluation(l, step, mode, e, m, err);
    json_decref(e), json_decref(m);
    return ok;
}
#endif
