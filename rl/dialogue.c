// Episodes in an environment, many at once. The trainer holds each episode's state; a turn of the model goes to whichever
// worker is free and comes back as a new state, words and a reward, while the other sequences go on decoding. Nothing here
// depends on the order in which answers come: an episode's seeds are its own, and its words follow its own tokens.
//
// A call that fails ends its episode with that verdict. What can't be encoded in the model's vocabulary is such a failure.
#include "files.h"
#include "stages.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Dialogue {
    json_t *state;
    EnvironmentReply reply;
    EnvironmentResult result;
    bool waits, last;
    int32_t turn, turn_start; // turns ended; where the present one began in the completion
    int32_t end;              // id that ended the last turn, -1: none did
    char id[96];
} Dialogue;

struct Dialogues {
    DialogueSetup setup;
    const RewardEnvironment *environment;
    Dialogue *list; // [count * samples]
    int *waiting;   // indices into list
    int waiting_count;
    bool *failed;   // [count] whose reset failed
    bool *outside;  // [count] of a task that the environment isn't for
    const char **stops;
    Ids words;
    double waited;  // measured: seconds in which nothing decoded, all waited for the environment
    bool broken;    // by `err`, told at the next call
    Err err;
    Arena arena;    // of the setup's arrays
};

static const Tokenizer *tokenizer_of(const Dialogues *d) { return policy_tokenizer(d->setup.policy); }

static uint64_t sample_seed(const DialogueSetup *s, int prompt, int sample) {
    uint64_t words[4] = {s->recipe->seed, s->step, s->first_prompt + (uint64_t)prompt, (uint64_t)sample};
    return hash64(words, sizeof words);
}
// A problem is the same whenever it comes up.
static uint64_t prompt_seed(const DialogueSetup *s, int prompt) {
    uint64_t words[2] = {s->recipe->seed, s->items[prompt]->hash};
    return episode_seed(hash64(words, sizeof words), 0);
}

static void *kept(Arena *arena, const void *data, size_t size) {
    void *copy = arena_alloc(arena, size + 1);
    if (size) memcpy(copy, data, size);
    return copy;
}

// ---- opening -------------------------------------------------------------------------------------------------
static void release_json(void *value) { json_decref(value); }

// What the environment opens with takes the place of the item's question. In plain text messages become lines.
static void take_opening(Arena *arena, bool chat, const json_t *words, Item *item) {
    const json_t *message;
    size_t i;
    if (!words) return;
    if (chat && json_is_array(words)) {
        item->messages = json_deep_copy(words);
        arena_defer(arena, release_json, item->messages);
        return;
    }
    Buf text = {0};
    if (json_is_string(words)) buf_puts(&text, json_string_value(words));
    json_array_foreach(words, i, message) buf_printf(&text, "%s%s", i ? "\n" : "", json_string_value(json_object_get(message, "content")));
    item->prompt = arena_strdup(arena, text.data ? text.data : "");
    item->messages = NULL;
    buf_free(&text);
}

static EnvironmentCall call_of(const Dialogues *d, int prompt, const char *id) {
    const Item *item = d->setup.items[prompt];
    return (EnvironmentCall){.id = id, .row = item->row, .prompt = item->prompt, .truth = item->truth && *item->truth ? item->truth : NULL,
                             .mode = mode_names[d->setup.modes[prompt]], .seed = prompt_seed(&d->setup, prompt)};
}

static void start_episodes(Dialogues *d, int prompt, const EnvironmentReply *reply) {
    const DialogueSetup *s = &d->setup;
    EnvironmentResult first = {.state = VERDICT_SCORED, .script = d->environment->script};
    d->failed[prompt] = !episode_add(&first, reply);
    first.fuel /= (uint64_t)s->samples; // the samples of a prompt share it
    for (int i = 0; i < s->samples; i++) {
        Dialogue *one = &d->list[prompt * s->samples + i];
        *one = (Dialogue){.state = json_incref(reply->data), .result = first, .end = -1};
        snprintf(one->id, sizeof one->id, "step %lld prompt %d sample %d", (long long)s->step, (int)s->first_prompt + prompt, i);
    }
}

static bool reset_all(Dialogues *d, Err *err) {
    const DialogueSetup *s = &d->setup;
    EnvironmentReply *replies = xcalloc((size_t)s->count + 1, sizeof *replies);
    bool ok = true;
    for (int i = 0; ok && i < s->count; i++) {
        EnvironmentCall call = call_of(d, i, "reset");
        if (!d->outside[i]) ok = reward_pool_call(s->rewards, &call, &replies[i], err);
    }
    ok = reward_pool_finish(s->rewards, ok ? err : NULL) && ok;
    for (int i = 0; i < s->count; i++) {
        if (ok && !d->outside[i]) start_episodes(d, i, &replies[i]);
        if (ok && !d->outside[i] && !d->failed[i]) take_opening(s->arena, s->recipe->chat, replies[i].messages, s->items[i]);
        environment_reply_free(&replies[i]);
    }
    free(replies);
    return ok;
}

// What the environment isn't for must have questions of its own.
static bool find_outside(const DialogueSetup *s, const RewardEnvironment *e, bool *outside, Err *err) {
    for (int i = 0; i < s->count; i++) {
        const char *kind = s->items[i]->kind;
        bool all = e && (!e->task || strcmp(e->task, "*") == 0), is = !e || (!all && strcmp(e->task, kind) != 0);
        if (outside) outside[i] = is;
        if (is && strcmp(kind, "environment") == 0)
            return fail(err, ERR_DATA, "tasks", "{\"environment\"} has no problems of its own: expected an environment for it among the rewards, such as {\"guess\"}");
    }
    return true;
}

bool dialogues_open(const DialogueSetup *setup, Dialogues **out, Err *err) {
    const RewardEnvironment *e = reward_pool_environment(setup->rewards);
    *out = NULL;
    if (!e) return find_outside(setup, NULL, NULL, err);
    Dialogues *d = xcalloc(1, sizeof *d);
    d->setup = *setup;
    d->setup.items = kept(&d->arena, setup->items, (size_t)setup->count * sizeof *setup->items);
    d->setup.modes = kept(&d->arena, setup->modes, (size_t)setup->count * sizeof *setup->modes);
    d->environment = e;
    d->list = xcalloc((size_t)setup->count * (size_t)setup->samples + 1, sizeof *d->list);
    d->waiting = xcalloc((size_t)setup->count * (size_t)setup->samples + 1, sizeof *d->waiting);
    d->failed = xcalloc((size_t)setup->count + 1, sizeof *d->failed);
    d->outside = xcalloc((size_t)setup->count + 1, sizeof *d->outside);
    if (find_outside(setup, e, d->outside, err) && reset_all(d, err)) *out = d;
    else dialogues_close(d);
    return *out != NULL;
}

void dialogues_close(Dialogues *d) {
    if (!d) return;
    Err ignored = {0};
    if (d->waiting_count > 0 && !reward_pool_finish(d->setup.rewards, &ignored)) log_line(LOG_WARN, "reckon: %s", ignored.msg);
    for (int i = 0; i < d->setup.count * d->setup.samples; i++) {
        json_decref(d->list[i].state);
        environment_reply_free(&d->list[i].reply);
    }
    free(d->list), free(d->waiting), free(d->failed), free(d->outside), free(d->stops);
    ids_free(&d->words);
    arena_reset(&d->arena);
    free(d);
}

bool dialogue_prompt(const Dialogues *d, const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, int index, Ids *out, Err *err) {
    if (!d || !d->failed[index]) return prompt_render(r, t, item, mode, out, err);
    ids_push(out, tokenizer_eos(t) >= 0 ? tokenizer_eos(t) : 0);
    return true;
}

// Made once: every prompt of the environment has the same list.
static void make_stops(Dialogues *d, const char *const *stop) {
    int count = 0;
    for (const char *const *s = stop; s && *s; s++) count++;
    for (char **s = d->environment->stop; *s; s++) count++;
    d->stops = xcalloc((size_t)count + 1, sizeof *d->stops);
    count = 0;
    for (const char *const *s = stop; s && *s; s++) d->stops[count++] = *s;
    for (char **s = d->environment->stop; *s; s++) d->stops[count++] = *s;
}

const char *const *dialogue_stops(Dialogues *d, int index, const char *const *stop) {
    if (!d || d->outside[index]) return stop;
    if (!d->stops) make_stops(d, stop);
    return d->stops;
}

const EnvironmentResult *dialogue_result(const Dialogues *d, int32_t request, int32_t sample) {
    return d && !d->outside[request] ? &d->list[request * d->setup.samples + sample].result : NULL;
}

double dialogues_waited(const Dialogues *d) { return d ? d->waited : 0; }

// ---- turns ---------------------------------------------------------------------------------------------------
static bool is_stop_id(const Dialogues *d, int32_t id) {
    const ModelConfig *c = policy_config(d->setup.policy);
    for (int i = 0; i < c->stop_count; i++)
        if (c->stop_ids[i] == id) return true;
    return id == tokenizer_eos(tokenizer_of(d));
}

static bool submit_turn(Dialogues *d, Dialogue *one, int prompt, int sample, const char *action, size_t size, bool stopped, Err *err) {
    EnvironmentCall call = call_of(d, prompt, one->id);
    call.kind = ENVIRONMENT_STEP;
    call.state = one->state;
    call.action = action, call.action_size = size;
    call.turn = one->turn;
    call.finish = stopped ? "stop" : "length";
    call.last = one->last;
    call.seed = episode_seed(sample_seed(&d->setup, prompt, sample), one->turn);
    one->waits = true;
    return reward_pool_call(d->setup.rewards, &call, &one->reply, err);
}

bool dialogue_turn_ended(Dialogues *d, int32_t request, int32_t sample, const Completion *c) {
    if (!d) return false;
    int index = request * d->setup.samples + sample;
    Dialogue *one = &d->list[index];
    if (d->outside[request] || d->failed[request] || one->result.state != VERDICT_SCORED) return false;
    const int32_t *all = completion_all(c);
    int32_t count = completion_total(c) - one->turn_start;
    one->end = count > 0 && is_stop_id(d, all[one->turn_start + count - 1]) ? all[one->turn_start + --count] : -1;
    one->last = ++one->turn >= d->environment->turns;
    Buf text = {0};
    bool ok = tokenizer_decode(tokenizer_of(d), all + one->turn_start, count, false, &text, &d->err) &&
              submit_turn(d, one, request, sample, text.data ? text.data : "", text.size, c->finish == FINISH_STOP, &d->err);
    buf_free(&text);
    one->turn_start = completion_total(c);
    if (ok) d->waiting[d->waiting_count++] = index;
    d->broken |= !ok;
    return true;
}

// Takes the reply; *done where the episode ends with it, else its words are in d->words.
static void take_reply(Dialogues *d, Dialogue *one, Mode mode, bool *done) {
    Err err = {0};
    EnvironmentReply *r = &one->reply;
    bool ok = episode_add(&one->result, r);
    *done = !ok || r->done || one->last;
    d->words.count = 0;
    if (ok) {
        json_decref(one->state);
        one->state = json_incref(r->data);
    }
    if (!*done && r->messages && !words_render(d->setup.recipe, tokenizer_of(d), r->messages, mode, one->end, &d->words, &err)) {
        one->result.state = VERDICT_ERROR;
        snprintf(one->result.why, sizeof one->result.why, "what the environment says can't be given to the model: %.180s", err.msg);
        *done = true;
    }
    one->turn_start += d->words.count;
    one->waits = false;
    environment_reply_free(r);
}

static int first_arrived(const Dialogues *d) {
    for (int i = 0; i < d->waiting_count; i++)
        if (d->list[d->waiting[i]].reply.arrived) return i;
    return -1;
}

bool dialogue_next_turn(Dialogues *d, bool wait, NextTurn *out, Err *err) {
    if (d->broken) {
        *err = d->err;
        return false;
    }
    int at = first_arrived(d);
    if (at < 0) TRY(reward_pool_poll(d->setup.rewards, false, err));
    double start = clock_seconds();
    while ((at = first_arrived(d)) < 0 && wait) TRY(reward_pool_poll(d->setup.rewards, true, err));
    d->waited += clock_seconds() - start;
    if (at < 0) return true;
    int index = d->waiting[at], prompt = index / d->setup.samples;
    memmove(&d->waiting[at], &d->waiting[at + 1], (size_t)(--d->waiting_count - at) * sizeof *d->waiting);
    *out = (NextTurn){.request = prompt, .sample = index % d->setup.samples};
    take_reply(d, &d->list[index], d->setup.modes[prompt], &out->done);
    out->ids = d->words.data, out->count = d->words.count;
    return true;
}

// ---- demonstrations ------------------------------------------------------------------------------------------
typedef struct Course { // a completion under construction
    Ids all, sampled;
    Buf given;
    bool done;
} Course;

static void course_add(Course *c, const int32_t *ids, int32_t count, bool given) {
    ids_append(&c->all, ids, count);
    if (!given) ids_append(&c->sampled, ids, count);
    for (int32_t i = 0; i < count; i++) buf_append(&c->given, given ? "\1" : "\0", 1);
}

static bool ends_by_text(const Dialogues *d, const char *text, size_t size) {
    for (char **s = d->environment->stop; *s; s++)
        if (memmem(text, size, *s, strlen(*s))) return true;
    return false;
}

static bool failed_call(const Dialogues *d, const Dialogue *one, Err *err) {
    return fail(err, ERR_DATA, d->environment->name, "a demonstration failed in turn %d: %s: %s", one->turn, verdict_state_names[one->result.state], one->result.why);
}

// What the expert does next, as the model would have to write it.
static bool take_action(Dialogues *d, Dialogue *one, Course *c, int prompt, Err *err) {
    json_t *action = json_incref(one->reply.data);
    bool ok = episode_add(&one->result, &one->reply) || failed_call(d, one, err);
    environment_reply_free(&one->reply);
    const char *text = json_string_value(action);
    Ids ids = {0};
    ok = ok && tokenizer_encode(tokenizer_of(d), text, json_string_length(action), false, &ids, err);
    one->end = -1;
    if (ok && !ends_by_text(d, text, json_string_length(action))) {
        int32_t chat = d->setup.recipe->chat ? tokenizer_id(tokenizer_of(d), "<|im_end|>") : -1;
        one->end = chat >= 0 ? chat : tokenizer_eos(tokenizer_of(d));
        if (one->end >= 0) ids_push(&ids, one->end);
        else ok = fail(err, ERR_DATA, "tokenizer", "has no end-of-sequence token, expected one to end turns with");
    }
    if (ok && ids.count == 0) ok = fail(err, ERR_DATA, d->environment->name, "a demonstration's turn without tokens, expected one at least");
    if (ok) course_add(c, ids.data, ids.count, false);
    ids_free(&ids);
    one->last = ++one->turn >= d->environment->turns;
    ok = ok && submit_turn(d, one, prompt, 0, text, json_string_length(action), true, err);
    json_decref(action);
    return ok;
}

// One turn of every episode that is still going: first what the expert does, then what the environment says to it.
static bool demonstrate_turn(Dialogues *d, Course *courses, bool *going, Err *err) {
    const DialogueSetup *s = &d->setup;
    bool ok = true;
    *going = false;
    for (int i = 0; ok && i < s->count; i++) {
        Dialogue *one = &d->list[i];
        EnvironmentCall call = call_of(d, i, one->id);
        if (courses[i].done) continue;
        call.kind = ENVIRONMENT_DEMONSTRATE, call.state = one->state, call.turn = one->turn + 1;
        call.seed = episode_seed(episode_seed(sample_seed(s, i, 0), one->turn + 1), -1);
        ok = reward_pool_call(s->rewards, &call, &one->reply, err);
    }
    ok = reward_pool_finish(s->rewards, ok ? err : NULL) && ok;
    for (int i = 0; ok && i < s->count; i++)
        if (!courses[i].done) ok = take_action(d, &d->list[i], &courses[i], i, err);
    ok = reward_pool_finish(s->rewards, ok ? err : NULL) && ok;
    for (int i = 0; ok && i < s->count; i++) {
        if (courses[i].done) continue;
        take_reply(d, &d->list[i], s->modes[i], &courses[i].done);
        if (d->list[i].result.state != VERDICT_SCORED) ok = failed_call(d, &d->list[i], err);
        if (!courses[i].done) course_add(&courses[i], d->words.data, d->words.count, true);
        *going |= !courses[i].done;
    }
    return ok;
}

bool dialogues_demonstrate(const DialogueSetup *setup, Ids *prompts, Completion *out, Arena *arena, Err *err) {
    Dialogues *d;
    TRY(dialogues_open(setup, &d, err));
    Course *courses = xcalloc((size_t)setup->count + 1, sizeof *courses);
    bool ok = d->environment->demonstrates || fail(err, ERR_DATA, d->environment->name, "it has no function demonstrate, which sft needs");
    for (int i = 0; ok && i < setup->count; i++) {
        if (d->failed[i]) ok = failed_call(d, &d->list[i], err);
        ok = ok && prompt_render(setup->recipe, tokenizer_of(d), setup->items[i], setup->modes[i], &prompts[i], err);
    }
    for (int i = 0; ok && i < setup->count; i++) {
        if (!d->outside[i]) continue;
        Ids ids = {0};
        ok = demonstration_render(setup->recipe, tokenizer_of(d), setup->items[i], setup->modes[i], &ids, err);
        if (ok) course_add(&courses[i], ids.data, ids.count, false);
        courses[i].done = true;
        ids_free(&ids);
    }
    for (bool going = ok; ok && going;) ok = demonstrate_turn(d, courses, &going, err);
    for (int i = 0; i < setup->count; i++) {
        Course *c = &courses[i];
        size_t ids = sizeof(int32_t);
        if (ok) out[i] = (Completion){.length = c->sampled.count, .ids = kept(arena, c->sampled.data, (size_t)c->sampled.count * ids), .total = c->all.count,
                                      .all = kept(arena, c->all.data, (size_t)c->all.count * ids), .given = kept(arena, c->given.data, c->given.size)};
        ids_free(&c->all), ids_free(&c->sampled), buf_free(&c->given);
    }
    free(courses);
    dialogues_close(d);
    return ok;
}
