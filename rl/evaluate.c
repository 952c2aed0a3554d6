// Held-out items answered in one mode: what `eval`, the evaluations during training and `compare` share. A level is
// sampled as one rollout of its own, so that its seconds can be told apart; an answer's FLOPs follow from its length.
// Everything but the seconds is a function of the recipe and the weights.
#include "accounts.h"
#include "compare.h"
#include "stages.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char think_end[] = "</think>";

// ---- what a completion says, and how long it thinks ------------------------------------------------------
static bool is_stop_id(const Tokenizer *t, int32_t id) { return id >= 0 && id == tokenizer_eos(t); }

// Tokens up to and including the one that completes "</think>" in the text; -1 if it never comes. A vocabulary that
// has it as one token is looked up, any other is decoded prefix by prefix: the text of a prefix only ever grows.
static bool find_think_end(const Tokenizer *t, const int32_t *ids, int32_t count, const Buf *text, size_t start,
                           int32_t *found, Err *err) {
    int32_t token = tokenizer_id(t, think_end);
    *found = -1;
    for (int32_t i = 0; token >= 0 && i < count; i++)
        if (ids[i] == token) {
            *found = i + 1;
            return true;
        }
    if (!text->data || !memmem(text->data + start, text->size - start, think_end, sizeof think_end - 1)) return true;
    int32_t low = 0, high = count; // the prefix of `low` tokens lacks it, that of `high` has it
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        Buf prefix = {0};
        bool ok = tokenizer_decode(t, ids, middle, false, &prefix, err);
        bool has = ok && prefix.data && memmem(prefix.data, prefix.size, think_end, sizeof think_end - 1);
        buf_free(&prefix);
        TRY(ok);
        if (has) high = middle;
        else low = middle;
    }
    *found = high;
    return true;
}

static int32_t sampled_among(const Completion *c, int32_t count) {
    int32_t sampled = 0;
    for (int32_t i = 0; i < count; i++) sampled += !c->given || !c->given[i];
    return sampled;
}

bool completion_text(const Tokenizer *t, const Completion *c, Mode mode, Buf *text, int32_t *think_tokens,
                     int32_t *answer_tokens, Err *err) {
    const int32_t *ids = completion_all(c);
    int32_t count = completion_total(c);
    if (count > 0 && is_stop_id(t, ids[count - 1])) count--;
    size_t start = text->size;
    TRY(tokenizer_decode(t, ids, count, false, text, err));
    if (!text->data) buf_puts(text, "");
    *think_tokens = 0;
    if (mode == MODE_THINK) {
        int32_t end;
        TRY(find_think_end(t, ids, count, text, start, &end, err));
        *think_tokens = end >= 0 ? sampled_among(c, end) : c->length;
    }
    *answer_tokens = c->length - *think_tokens;
    return true;
}

// ---- correct or not --------------------------------------------------------------------------------------
// Its parts stand first and share its name up to the dot.
double verdict_first_reward(const Verdict *v) {
    if (v->state != VERDICT_SCORED || v->part_count == 0) return NAN;
    size_t stem = strcspn(v->parts[0].name, ".");
    double sum = 0;
    for (int i = 0; i < v->part_count; i++) {
        if (strncmp(v->parts[i].name, v->parts[0].name, stem) != 0) break;
        if (v->parts[i].name[stem] != 0 && v->parts[i].name[stem] != '.') break;
        sum += v->parts[i].value;
    }
    return sum;
}

// ---- one level -------------------------------------------------------------------------------------------
typedef struct Level {
    Policy *policy;
    const Recipe *recipe;
    RewardPool *rewards;
    Mode mode;
    int samples; // an item, at least 1
    Sampling sampling;
    int index, first_item, count; // of tasks_level(), of its first item in the evaluation
    Item *items;
    Dialogues *dialogues; // NULL without an environment
    Ids *prompts;
    Verdict *verdicts; // [count * samples]
    const EvaluateOptions *options;
} Level;

static bool turn_ended(void *context, int32_t request, int32_t sample, const Completion *completion) {
    return dialogue_turn_ended(((const Level *)context)->dialogues, request, sample, completion);
}
static bool next_turn(void *context, bool wait, NextTurn *out, Err *err) {
    return dialogue_next_turn(((const Level *)context)->dialogues, wait, out, err);
}
static bool look_at_meters(void *context, int64_t tokens, int32_t finished) { // counters wrap around
    (void)tokens, (void)finished;
    energy_joules(((const Level *)context)->options->energy);
    return true;
}

// Items of another split have random numbers of their own.
static uint32_t first_prompt(const Level *l) { return (uint32_t)l->first_item + ((uint32_t)l->options->skip << 12); }

static bool sample_level(Level *l, Rollout *out, Err *err) {
    RolloutRequest *requests = xcalloc((size_t)l->count, sizeof *requests);
    for (int i = 0; i < l->count; i++)
        requests[i] = (RolloutRequest){.prompt = l->prompts[i].data, .prompt_length = l->prompts[i].count,
                                       .samples = l->samples, .sampling = l->sampling, .seed = l->recipe->seed,
                                       .step = 0, // training steps count from 1
                                       .prompt_index = first_prompt(l) + (uint32_t)i};
    for (int i = 0; i < l->count; i++) requests[i].sampling.stop = dialogue_stops(l->dialogues, i, l->sampling.stop);
    RolloutOptions options = {.context = l, .progress = l->options->energy ? look_at_meters : NULL};
    if (l->dialogues) options.turn_ended = turn_ended, options.next_turn = next_turn;
    bool ok = policy_rollout(l->policy, requests, l->count, &options, out, err);
    free(requests);
    return ok;
}

static bool submit_sample(const Level *l, int i, int sample, const Completion *c, EvaluatedItem *out, Arena *arena, Err *err) {
    const Item *item = &l->items[i];
    Buf text = {0};
    int32_t think, answer;
    char id[96];
    snprintf(id, sizeof id, "evaluation, %s %s level %d, item %d sample %d", mode_names[l->mode], item->kind, item->level,
             i + 1, sample + 1);
    bool ok = completion_text(policy_tokenizer(l->policy), c, l->mode, &text, &think, &answer, err);
    if (ok) {
        uint32_t at = (uint32_t)((l->first_item + i) * l->samples + sample);
        RewardSample s = {.id = id, .prompt = item->prompt, .messages = item->messages, .completion = text.data,
                          .completion_size = text.size, .truth = item->truth, .row = item->row, .tokens = c->length,
                          .think_tokens = think, .answer_tokens = answer,
                          .finish = c->finish == FINISH_STOP ? "stop" : "length", .mode = mode_names[l->mode], .task = item->kind, .step = 0,
                          .group = l->first_item + i, .seed = l->recipe->seed ^ ((uint64_t)(l->mode + 1) << 60) ^ at,
                          .environment = dialogue_result(l->dialogues, i, sample)};
        ok = reward_pool_submit(l->rewards, &s, &l->verdicts[i * l->samples + sample], err);
    }
    if (ok) {
        draw_measure(&out->draws[sample], policy_config(l->policy), out->prompt_tokens, c, think, answer);
        if (l->options->detail) ok = draw_detail(&out->draws[sample], policy_tokenizer(l->policy), c, &text, item->truth, arena, err);
    }
    if (ok && sample == 0) {
        out->tokens = c->length, out->think_tokens = think, out->answer_tokens = answer;
        out->truncated = c->finish == FINISH_LENGTH;
        out->completion = arena_strdup(arena, text.data);
        if (answer_is_kept(i)) answer_keep(out, c, arena);
    }
    buf_free(&text);
    return ok;
}

static bool score_level(const Level *l, const Rollout *rollout, Arena *arena, EvaluatedItem *out, Err *err) {
    for (int i = 0; i < l->count; i++) {
        out[i] = (EvaluatedItem){.level_index = l->index, .prompt_tokens = l->prompts[i].count, .prompt = l->items[i].prompt,
                                 .truth = l->items[i].truth, .messages = l->items[i].messages, .item = &l->items[i],
                                 .prompt_flops = prompt_flops(policy_config(l->policy), l->prompts[i].count),
                                 .draws = ARENA_NEW(arena, Draw, l->samples), .draw_count = l->samples};
        out[i].flops = out[i].prompt_flops;
        for (int s = 0; s < l->samples; s++) {
            TRY(submit_sample(l, i, s, &rollout->completions[i * l->samples + s], &out[i], arena, err));
            out[i].flops += out[i].draws[s].flops / l->samples;
        }
        out[i].prompt_tokens += out[i].draws[0].given_tokens;
    }
    TRY(reward_pool_finish(l->rewards, err));
    for (int i = 0; i < l->count; i++) {
        const Verdict *v = &l->verdicts[i * l->samples];
        out[i].verdict = v[0].state;
        out[i].correct = verdict_first_reward(&v[0]) >= 1;
        for (int s = 0; s < l->samples; s++) {
            out[i].draws[s].verdict = v[s].state;
            out[i].draws[s].correct = verdict_first_reward(&v[s]) >= 1;
            out[i].pass += out[i].draws[s].correct / (double)l->samples;
        }
    }
    return true;
}

static bool render_prompts(Level *l, const Recipe *r, Arena *arena, Err *err) {
    Item **items = xcalloc((size_t)l->count, sizeof *items);
    Mode *modes = xcalloc((size_t)l->count, sizeof *modes);
    for (int i = 0; i < l->count; i++) items[i] = &l->items[i], modes[i] = l->mode;
    DialogueSetup setup = {.recipe = r, .policy = l->policy, .rewards = l->rewards, .count = l->count, .samples = l->samples, .items = items,
                           .modes = modes, .arena = arena, .first_prompt = first_prompt(l)};
    bool ok = dialogues_open(&setup, &l->dialogues, err);
    free(items), free(modes);
    for (int i = 0; ok && i < l->count; i++) {
        ok = dialogue_prompt(l->dialogues, r, policy_tokenizer(l->policy), &l->items[i], l->mode, i, &l->prompts[i], err);
        if (ok && l->prompts[i].count == 0) ok = fail(err, ERR_DATA, l->items[i].kind, "a held-out item has an empty prompt");
    }
    return ok;
}

static bool evaluate_level(Level *l, Evaluation *e, Err *err) {
    l->prompts = xcalloc((size_t)l->count, sizeof(Ids));
    l->verdicts = xcalloc((size_t)l->count * (size_t)l->samples, sizeof(Verdict));
    Rollout rollout = {0};
    bool ok = render_prompts(l, l->recipe, &e->arena, err);
    Energy *energy = l->options->energy;
    double joules = energy ? energy_joules(energy) : NAN, waited = clock_waited_seconds(), cpu = clock_cpu_seconds(), start = clock_seconds();
    ok = ok && sample_level(l, &rollout, err);
    e->level_seconds[l->index] = clock_seconds() - start;
    e->level_joules[l->index] = energy ? energy_joules(energy) - joules : NAN;
    e->cpu_seconds += clock_cpu_seconds() - cpu, e->waited_seconds += clock_waited_seconds() - waited;
    ok = ok && score_level(l, &rollout, &e->arena, e->items + l->first_item, err);
    if (ok) e->new_tokens += rollout.new_tokens;
    rollout_free(&rollout);
    for (int i = 0; i < l->count; i++) ids_free(&l->prompts[i]);
    free(l->prompts), free(l->verdicts);
    dialogues_close(l->dialogues);
    l->dialogues = NULL;
    return ok;
}

bool evaluate_with(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, Evaluation *out, Err *err) {
    int levels = tasks_level_count(t);
    *out = (Evaluation){.mode = o->mode};
    out->items = ARENA_NEW(&out->arena, EvaluatedItem, (int64_t)levels * o->items);
    out->level_seconds = ARENA_NEW(&out->arena, double, levels);
    out->level_joules = ARENA_NEW(&out->arena, double, levels);
    double start = clock_seconds();
    bool ok = policy_tokenizer(p) || fail(err, ERR_DATA, "model", "it has no tokenizer, which an evaluation needs");
    for (int i = 0; ok && i < levels; i++) {
        Level l = {.policy = p, .recipe = r, .rewards = rewards, .mode = o->mode, .samples = o->level_samples ? o->level_samples[i] : o->samples > 0 ? o->samples : 1,
                   .sampling = o->sampling ? *o->sampling : r->evaluate_sampling, .index = i, .first_item = out->count, .options = o};
        if (o->samples <= 0 && !o->level_samples) l.sampling.temperature = 0;
        if (o->mode == MODE_DIRECT) l.sampling.think_tokens = 0;
        Item *items = ARENA_NEW(&out->arena, Item, (int64_t)o->skip + o->items);
        int found = 0;
        ok = tasks_held_out(t, i, o->skip + o->items, &out->arena, items, &found, err);
        l.items = items + o->skip;
        l.count = found > o->skip ? found - o->skip : 0;
        if (ok && l.count > 0) ok = evaluate_level(&l, out, err);
        if (ok) out->count += l.count;
    }
    out->seconds = clock_seconds() - start;
    if (!ok) evaluation_free(out);
    return ok;
}
bool evaluate(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, Mode mode, int items_per_level, int samples,
              Evaluation *out, Err *err) {
    return evaluate_with(p, r, t, rewards, &(EvaluateOptions){.mode = mode, .items = items_per_level, .samples = samples}, out, err);
}

void evaluation_free(Evaluation *e) {
    arena_reset(&e->arena);
    *e = (Evaluation){0};
}

// ---- what it comes to ------------------------------------------------------------------------------------
json_t *evaluation_level_json(const Evaluation *e, int level, const TaskLevel *name) {
    int n = 0, correct = 0, truncated = 0, unscored = 0;
    double pass = 0, tokens = 0, think = 0, answer = 0, prompt = 0, flops = 0;
    char *outcomes = xcalloc((size_t)e->count + 1, 1);
    for (int i = 0; i < e->count; i++) {
        const EvaluatedItem *item = &e->items[i];
        if (item->level_index != level) continue;
        outcomes[n++] = item->correct ? '1' : '0';
        correct += item->correct, truncated += item->truncated, unscored += item->verdict != VERDICT_SCORED;
        pass += item->pass, tokens += item->tokens, think += item->think_tokens, answer += item->answer_tokens;
        prompt += item->prompt_tokens, flops += item->flops;
    }
    Interval interval = wilson_interval(correct, n, 0.95);
    double by = n > 0 ? 1.0 / n : NAN; // an accuracy is divided, as a comparison's is: the same share is the same number
    json_t *out = json_pack("{s:s,s:i,s:i,s:i,s:o,s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:i,s:i,s:s}", "kind", name->kind, "level",
                            name->level, "items", n, "correct", correct, "accuracy", json_number_or_name((double)correct / n), "low",
                            interval.low, "high", interval.high, "pass", json_number_or_name(pass * by), "tokens",
                            json_number_or_name(tokens * by), "think_tokens", json_number_or_name(think * by),
                            "answer_tokens", json_number_or_name(answer * by), "prompt_tokens",
                            json_number_or_name(prompt * by), "flops", json_number_or_name(flops * by), "truncated", truncated,
                            "unscored", unscored, "outcomes", outcomes);
    free(outcomes);
    return out;
}

json_t *evaluation_json(const Evaluation *e, const Tasks *t) {
    json_t *levels = json_array();
    for (int i = 0; i < tasks_level_count(t); i++) {
        TaskLevel name;
        tasks_level(t, i, &name);
        json_array_append_new(levels, evaluation_level_json(e, i, &name));
    }
    return json_pack("{s:s,s:o}", "mode", mode_names[e->mode], "levels", levels);
}
