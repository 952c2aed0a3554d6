// What an endpoint answers, put into the form that the comparison knows: thinking, "</think>", answer. A program that hands thinking out
// apart has it put before the answer; one that writes the tags itself keeps the second; an answer without either was thought about
// in nothing that anyone can see. Where a direct answer was asked for and thinking came all the same, it is left out of the text, and
// its tokens still count. What the endpoint doesn't count isn't known here either: nothing is estimated.
#include "compare.h"
#include "evaluate_endpoint.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char think_start[] = "<think>", think_end[] = "</think>";

// ---- one answer ----------------------------------------------------------------------------------------------
typedef struct Answered {
    Buf text;
    bool thought; // some of what came was thinking
} Answered;

static void put_chat(const EndpointAnswer *a, Mode mode, Answered *out) {
    const char *text = a->text + strspn(a->text, " \t\r\n"), *thinking = a->reasoning && *a->reasoning ? a->reasoning : NULL, *end = NULL;
    size_t opened = sizeof think_start - 1;
    bool tagged = !thinking && !strncmp(text, think_start, opened);
    if (tagged) text += opened;
    if (!thinking && (tagged || mode == MODE_THINK)) end = strstr(text, think_end);
    out->thought = thinking || tagged || end;
    if (mode == MODE_THINK) {
        bool open = (tagged && !end) || (thinking && !*text && a->finish == ENDPOINT_LENGTH); // cut off while it thought
        if (thinking) buf_puts(&out->text, thinking);
        if (!open && !end) buf_puts(&out->text, think_end);
        buf_puts(&out->text, text);
    } else if (!tagged || end) {
        buf_puts(&out->text, end ? end + sizeof think_end - 1 : text);
    }
}
static void put_continued(const EndpointAnswer *a, Mode mode, Answered *out) {
    out->thought = mode == MODE_THINK;
    buf_puts(&out->text, a->text);
}
static void put(const EndpointAnswer *a, Mode mode, bool chat, Answered *out) {
    buf_puts(&out->text, "");
    if (chat) put_chat(a, mode, out);
    else put_continued(a, mode, out);
}
void endpoint_completion(const EndpointAnswer *a, Mode mode, bool chat, Buf *text) {
    Answered said = {0};
    put(a, mode, chat, &said);
    *text = said.text;
}

static int32_t tokens_of(int64_t count) { return count < 0 || count > INT32_MAX ? -1 : (int32_t)count; }
static void measure(const EndpointAnswer *a, const Answered *said, Mode mode, bool chat, Draw *to) {
    *to = (Draw){.tokens = tokens_of(a->new_tokens), .think_tokens = tokens_of(a->reasoning_tokens), .flops = NAN,
                 .truncated = a->finish == ENDPOINT_LENGTH, .tokens_to_truth = TRUTH_UNKNOWN};
    bool all = !chat && mode == MODE_THINK && !strstr(a->text, think_end);
    if (to->think_tokens < 0 && to->tokens >= 0) to->think_tokens = all ? to->tokens : said->thought ? -1 : 0;
    if (to->think_tokens > to->tokens) to->think_tokens = -1; // it can't be so
    to->answer_tokens = to->think_tokens < 0 ? -1 : to->tokens - to->think_tokens;
}

// ---- one level -----------------------------------------------------------------------------------------------
typedef struct Level {
    Endpoint *endpoint;
    const Recipe *recipe;
    RewardPool *rewards;
    const EvaluateOptions *options;
    Sampling sampling;
    int index, first_item, count, samples;
    const Item *items;       // [count]
    EndpointAnswer *answers; // [count][samples]
    Verdict *verdicts;       // the same
} Level;

// Draws of one item differ by their seeds alone; a greedy answer needs none.
static int64_t seed_of(const Level *l, int item, int sample) {
    if (l->sampling.temperature <= 0) return -1;
    uint64_t x = l->recipe->seed ^ ((uint64_t)(l->options->mode + 1) << 60) ^ ((uint64_t)(l->first_item + item) << 20) ^ (uint64_t)sample;
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    return (int64_t)((x ^ x >> 33) & 0x7fffffff);
}

// answers [count * samples] are the caller's to free.
static bool ask(const Level *l, Err *err) {
    size_t items = (size_t)l->count, all = items * (size_t)l->samples;
    EndpointRequest *requests = xcalloc(all + 1, sizeof *requests);
    json_t **messages = xcalloc(items + 1, sizeof(json_t *));
    Buf *prompts = xcalloc(items + 1, sizeof *prompts);
    bool ok = true;
    for (int i = 0; ok && i < l->count; i++) {
        ok = prompt_words(l->recipe, &l->items[i], l->options->mode, &messages[i], &prompts[i], err);
        for (int s = 0; ok && s < l->samples; s++)
            requests[i * l->samples + s] = (EndpointRequest){.messages = messages[i], .prompt = messages[i] ? NULL : prompts[i].data,
                                                             .temperature = l->sampling.temperature, .top_p = l->sampling.top_p,
                                                             .max_tokens = l->sampling.max_tokens, .stop = l->sampling.stop, .seed = seed_of(l, i, s)};
    }
    ok = ok && endpoint_ask(l->endpoint, requests, (int)all, l->answers, NULL, NULL, err);
    for (int i = 0; i < l->count; i++) json_decref(messages[i]), buf_free(&prompts[i]);
    free(requests), free(messages), free(prompts);
    return ok;
}

static bool submit(const Level *l, int i, int sample, Draw *to, Arena *arena, Err *err) {
    const Item *item = &l->items[i];
    const EndpointAnswer *a = &l->answers[i * l->samples + sample];
    Verdict *verdict = &l->verdicts[i * l->samples + sample];
    Mode mode = l->options->mode;
    Answered said = {0};
    put(a, mode, l->recipe->chat, &said);
    measure(a, &said, mode, l->recipe->chat, to);
    to->text = arena_strdup(arena, said.text.data), to->text_size = said.text.size;
    char id[96];
    snprintf(id, sizeof id, "endpoint, %s %s level %d, item %d sample %d", mode_names[mode], item->kind, item->level, i + 1, sample + 1);
    uint32_t at = (uint32_t)((l->first_item + i) * l->samples + sample);
    RewardSample s = {.id = id, .prompt = item->prompt, .messages = item->messages, .completion = to->text, .completion_size = to->text_size,
                      .truth = item->truth, .row = item->row, .tokens = to->tokens, .think_tokens = to->think_tokens,
                      .answer_tokens = to->answer_tokens, .finish = to->truncated ? "length" : "stop", .mode = mode_names[mode], .task = item->kind,
                      .group = l->first_item + i, .seed = l->recipe->seed ^ ((uint64_t)(mode + 1) << 60) ^ at};
    buf_free(&said.text);
    return reward_pool_submit(l->rewards, &s, verdict, err);
}
// No answer: no tokens came, and none are charged.
static void leave_out(const EndpointAnswer *a, Draw *to, Verdict *verdict, EndpointAnswers *count) {
    static char nothing[] = "";
    *to = (Draw){.unanswered = true, .flops = NAN, .text = nothing, .tokens_to_truth = TRUTH_UNKNOWN};
    *verdict = (Verdict){.state = VERDICT_ERROR, .score = NAN};
    if (count->failed++ == 0) snprintf(count->problem, sizeof count->problem, "%.120s: %.340s", a->error.where, a->error.msg);
}

// A prompt's tokens are those of the first answer that says.
static bool take_item(const Level *l, int i, EvaluatedItem *out, Arena *arena, EndpointAnswers *count, Err *err) {
    const Item *item = &l->items[i];
    bool answered = false;
    *out = (EvaluatedItem){.level_index = l->index, .prompt_tokens = -1, .prompt = item->prompt, .truth = item->truth, .messages = item->messages,
                           .item = item, .flops = NAN, .prompt_flops = NAN, .draws = ARENA_NEW(arena, Draw, l->samples), .draw_count = l->samples};
    for (int s = 0; s < l->samples; s++) {
        const EndpointAnswer *a = &l->answers[i * l->samples + s];
        count->asked++;
        if (!a->ok) {
            leave_out(a, &out->draws[s], &l->verdicts[i * l->samples + s], count);
            continue;
        }
        answered = true;
        if (out->prompt_tokens < 0) out->prompt_tokens = tokens_of(a->prompt_tokens);
        TRY(submit(l, i, s, &out->draws[s], arena, err));
    }
    if (!answered) out->prompt_tokens = 0;
    const Draw *first = &out->draws[0];
    out->tokens = first->tokens, out->think_tokens = first->think_tokens, out->answer_tokens = first->answer_tokens;
    out->truncated = first->truncated, out->completion = first->text;
    return true;
}
static void take_verdicts(const Level *l, EvaluatedItem *items, Evaluation *e) {
    for (int i = 0; i < l->count; i++) {
        const Verdict *v = &l->verdicts[i * l->samples];
        items[i].verdict = v[0].state;
        items[i].correct = verdict_first_reward(&v[0]) >= 1;
        for (int s = 0; s < l->samples; s++) {
            Draw *d = &items[i].draws[s];
            d->verdict = v[s].state;
            d->correct = verdict_first_reward(&v[s]) >= 1;
            items[i].pass += d->correct / (double)l->samples;
            if (d->tokens > 0) e->new_tokens += d->tokens;
        }
    }
}
static bool evaluate_level(Level *l, Evaluation *e, EndpointAnswers *count, Err *err) {
    size_t all = (size_t)l->count * (size_t)l->samples;
    l->answers = xcalloc(all + 1, sizeof *l->answers), l->verdicts = xcalloc(all + 1, sizeof *l->verdicts);
    double start = clock_seconds();
    bool ok = ask(l, err);
    e->level_seconds[l->index] = clock_seconds() - start;
    for (int i = 0; ok && i < l->count; i++) ok = take_item(l, i, &e->items[e->count + i], &e->arena, count, err);
    ok = ok && reward_pool_finish(l->rewards, err);
    if (ok) take_verdicts(l, e->items + e->count, e);
    for (size_t i = 0; i < all; i++) endpoint_answer_free(&l->answers[i]);
    free(l->answers), free(l->verdicts);
    return ok;
}

// ---- all of them ---------------------------------------------------------------------------------------------
static Level level_of(Endpoint *endpoint, const Recipe *r, const EvaluateOptions *o, int index) {
    Level l = {.endpoint = endpoint, .recipe = r, .options = o, .index = index, .sampling = o->sampling ? *o->sampling : r->evaluate_sampling,
               .samples = o->level_samples ? o->level_samples[index] : o->samples > 0 ? o->samples : 1};
    if (o->samples <= 0 && !o->level_samples) l.sampling.temperature = 0;
    return l;
}
bool evaluate_endpoint(Endpoint *endpoint, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, Evaluation *out,
                       EndpointAnswers *answers, Err *err) {
    int levels = tasks_level_count(t);
    *answers = (EndpointAnswers){0};
    *out = (Evaluation){.mode = o->mode, .cpu_seconds = NAN, .waited_seconds = NAN}; // others compute
    out->items = ARENA_NEW(&out->arena, EvaluatedItem, (int64_t)levels * o->items);
    out->level_seconds = ARENA_NEW(&out->arena, double, levels);
    out->level_joules = ARENA_NEW(&out->arena, double, levels);
    double start = clock_seconds();
    bool ok = !reward_pool_environment(rewards) || fail(err, ERR_USAGE, "endpoint", "an environment's turns can't be taken by an endpoint, expected tasks without one");
    for (int i = 0; ok && i < levels; i++) {
        Level l = level_of(endpoint, r, o, i);
        Item *items = ARENA_NEW(&out->arena, Item, (int64_t)o->skip + o->items);
        int found = 0;
        out->level_joules[i] = NAN;
        ok = tasks_held_out(t, i, o->skip + o->items, &out->arena, items, &found, err);
        l.rewards = rewards, l.first_item = out->count, l.items = items + o->skip, l.count = found > o->skip ? found - o->skip : 0;
        if (ok && l.count > 0) ok = evaluate_level(&l, out, answers, err);
        if (ok) out->count += l.count;
        if (ok && answers->failed > 0 && answers->failed == answers->asked)
            ok = fail(err, ERR_UNAVAILABLE, "endpoint", "none of %d requests was answered; the first: %s", answers->asked, answers->problem);
    }
    out->seconds = clock_seconds() - start;
    if (!ok) evaluation_free(out);
    return ok;
}

bool endpoint_latency(Endpoint *endpoint, const Recipe *r, const Tasks *t, const EvaluateOptions *o, int count, double *seconds, int *measured,
                      Err *err) {
    int levels = tasks_level_count(t);
    Arena arena = {0};
    bool ok = true;
    *measured = 0;
    for (int i = 0; ok && i < levels; i++) {
        int wanted = count / levels + (i < count % levels), found = 0;
        if (wanted > o->items) wanted = o->items;
        Item *items = ARENA_NEW(&arena, Item, wanted + 1);
        ok = tasks_held_out(t, i, wanted, &arena, items, &found, err);
        for (int k = 0; ok && k < found; k++) {
            Level l = level_of(endpoint, r, o, i);
            l.items = &items[k], l.first_item = *measured, l.count = 1;
            l.answers = xcalloc((size_t)l.samples, sizeof *l.answers);
            double start = clock_seconds();
            ok = ask(&l, err);
            bool whole = ok;
            seconds[*measured] = clock_seconds() - start;
            for (int s = 0; s < l.samples; s++) {
                whole = whole && l.answers[s].ok;
                endpoint_answer_free(&l.answers[s]);
            }
            *measured += whole;
            free(l.answers);
        }
    }
    arena_reset(&arena);
    return ok;
}
