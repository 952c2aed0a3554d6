// A teacher that is asked over HTTP: its samples are another program's texts. Owns what becomes of them: an episode has the text as it
// came and the ids that the policy's tokenizer gives it, so that a stage scores, keeps and learns it like any other; there are
// no logprobs. Every answer goes on the ledger as it comes, an event of its own with what it cost: a run that goes on after a kill
// asks only for what it doesn't have. What failed in a step that went on is kept too, or the step would come to something else.
//
// Refuses environments, whose turns an endpoint can't take; and goes no further where more requests fail than max_failed_share.
#include "evaluate_endpoint.h"
#include "files.h"
#include "flight.h"
#include "ledger_rows.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct TeacherEndpoint {
    Endpoint *client;
    char *url, *host;
    const char *model; // inside the recipe
    json_t *kept;      // {"STEP PROMPT SAMPLE": the detail of its event}: answers of steps that aren't on the ledger yet
} TeacherEndpoint;

// ---- opening -------------------------------------------------------------------------------------------------
bool teacher_is_endpoint(const Stage *s) {
    return s->teacher && (!strncmp(s->teacher, "http://", 7) || !strncmp(s->teacher, "https://", 8));
}

static const char *model_of(const Stage *s) {
    const char *hash = strchr(s->teacher, '#');
    return hash ? hash + 1 : "";
}
static char *url_of(const Stage *s) { return xstrndup(s->teacher, strcspn(s->teacher, "#")); }
static char *host_of(const Stage *s) {
    const char *host = strstr(s->teacher, "://") + 3;
    return xstrndup(host, strcspn(host, "/#"));
}

static bool open_client(const Stage *s, Endpoint **out, Err *err) {
    char *url = url_of(s);
    EndpointOptions o = {.url = url, .model = model_of(s), .key_env = s->teacher_key_env, .retries = -1, .in_flight = s->teacher_requests};
    bool ok = endpoint_open(&o, out, err);
    free(url);
    return ok;
}
bool teacher_endpoint_check(const Stage *s, Err *err) {
    Endpoint *probe;
    TRY(open_client(s, &probe, err));
    endpoint_close(probe);
    return true;
}

json_t *teacher_endpoint_name(const Stage *s) {
    char *host = host_of(s);
    json_t *name = json_pack("{s:s,s:s}", "host", host, "model", model_of(s));
    free(host);
    return name;
}

static void key_of(int64_t step, int64_t prompt, int64_t sample, char out[80]) {
    snprintf(out, 80, "%lld %lld %lld", (long long)step, (long long)prompt, (long long)sample);
}
static int64_t number_of(const json_t *detail, const char *key) {
    const json_t *v = json_object_get(detail, key);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}
static bool read_kept(const Ledger *l, json_t *kept, Err *err) {
    sqlite3_stmt *s;
    int64_t last;
    TRY(ledger_integer(l, "SELECT max(step) FROM steps", 0, 0, &last, err));
    bool ok = ledger_query(l, "SELECT step, detail FROM events WHERE kind = '" ANSWER_EVENT "' AND step > ? ORDER BY seq", last, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        char key[80];
        json_t *detail = column_object(s, 1);
        key_of(column_int(s, 0), number_of(detail, "prompt"), number_of(detail, "sample"), key);
        json_object_set_new(kept, key, detail);
    }
    sqlite3_finalize(s);
    return ok;
}

// Another run from the same recipe would be answered otherwise; this one goes on with what is on its ledger.
static bool note_replay(const Trainer *t, const Stage *s, Err *err) {
    int64_t step, said;
    TRY(ledger_integer(t->ledger, "SELECT max(step) FROM steps", 0, 0, &step, err));
    TRY(ledger_integer(t->ledger, "SELECT count(*) FROM events WHERE kind = '" NOT_REPLAYABLE "' AND json_extract(detail, '$.stage') = ?", t->stage_index, 0, &said, err));
    if (said) return true;
    json_t *detail = json_pack("{s:i,s:I,s:s,s:i,s:s}", "stage", t->stage_index, "step", (json_int_t)step, "during", s->name, "verdicts", 0, "first",
                               "the teacher's answers are another program's");
    bool ok = ledger_event(t->ledger, NOT_REPLAYABLE, detail, err);
    json_decref(detail);
    return ok;
}

bool teacher_endpoint_open(Trainer *t, const Stage *s, Err *err) {
    if (reward_pool_environment(t->rewards))
        return fail(err, ERR_DATA, s->name, "an environment's turns can't be taken by an endpoint, expected a teacher that is a model, or tasks without one");
    TeacherEndpoint *e = t->endpoint = xcalloc(1, sizeof *e);
    e->url = url_of(s), e->host = host_of(s), e->model = model_of(s), e->kept = json_object();
    return open_client(s, &e->client, err) && read_kept(t->ledger, e->kept, err) && note_replay(t, s, err);
}
void teacher_endpoint_close(Trainer *t) {
    TeacherEndpoint *e = t->endpoint;
    t->endpoint = NULL;
    if (!e) return;
    endpoint_close(e->client);
    json_decref(e->kept);
    free(e->url), free(e->host), free(e);
}

// ---- one step's requests -------------------------------------------------------------------------------------
typedef struct Asking {
    const Trainer *t;
    const Stage *stage;
    TeacherEndpoint *endpoint;
    Group **groups;            // [prompts]
    int prompts, samples, all; // all: of both
    json_t **messages;         // [prompts] NULL: the text
    Buf *texts;                // [prompts]
    EndpointRequest *requests; // [count] of what is asked now
    EndpointAnswer *answers;   // [count]
    int *place;                // [count] among all
    bool *written;             // [count] on the ledger
    int count, good, failed;
    EndpointAnswer *came;      // [all] asked now, or kept
    char problem[480];         // of a request that failed
    Err err;                   // of the ledger
} Asking;

static json_t *count_or_null(int64_t count) { return count < 0 ? json_null() : json_integer(count); }

static void request_hash(const TeacherEndpoint *e, const EndpointRequest *r, char out[65]) {
    char *body = endpoint_body(e->client, r), *text = xasprintf("%s\n%s", e->url, body);
    sha256_hex(text, strlen(text), out);
    free(body), free(text);
}

static bool write_answer(Asking *a, int i, Err *err) {
    const EndpointAnswer *from = &a->answers[i];
    char hash[65];
    request_hash(a->endpoint, &a->requests[i], hash);
    json_t *j = json_pack("{s:i,s:i,s:i,s:s,s:s,s:s,s:i}", "stage", a->t->stage_index, "prompt", a->place[i] / a->samples, "sample", a->place[i] % a->samples,
                          "request", hash, "host", a->endpoint->host, "model", a->endpoint->model, "tries", from->tries);
    if (from->ok) {
        json_object_set_new(j, "text", json_stringn(from->text, from->size));
        json_object_set_new(j, "reasoning", from->reasoning ? json_string(from->reasoning) : json_null());
        json_object_set_new(j, "finish", json_integer((json_int_t)from->finish));
        json_object_set_new(j, "prompt_tokens", count_or_null(from->prompt_tokens));
        json_object_set_new(j, "new_tokens", count_or_null(from->new_tokens));
        json_object_set_new(j, "reasoning_tokens", count_or_null(from->reasoning_tokens));
        json_object_set_new(j, "seconds", json_real(from->seconds));
    } else {
        json_object_set_new(j, "error", json_string(from->error.msg) ?: json_string("(not UTF-8)"));
    }
    bool ok = ledger_append_event(a->t->ledger, ANSWER_EVENT, a->groups[0]->step, j, err);
    json_decref(j);
    a->written[i] = true;
    return ok;
}

// Those that came, or with `failures` the others; one transaction for all of them.
static bool write_answers(Asking *a, bool failures, Err *err) {
    bool any = false, ok = true;
    for (int i = 0; ok && i < a->count; i++) {
        if (a->written[i] || a->answers[i].ok == failures) continue;
        if (!any) TRY(ledger_begin(a->t->ledger, err));
        any = true;
        a->good += a->answers[i].ok;
        ok = write_answer(a, i, err);
    }
    return any ? ledger_finish(a->t->ledger, ok, err) : ok;
}

static void find_problem(Asking *a) {
    for (int i = 0; i < a->count && !a->problem[0]; i++)
        if (!a->answers[i].ok && a->answers[i].error.code) snprintf(a->problem, sizeof a->problem, "%.120s: %.340s", a->answers[i].error.where, a->answers[i].error.msg);
}

static bool too_many(const Asking *a) { return a->failed > a->t->recipe->max_failed_share * a->all; }
static bool on_progress(void *context, int done) {
    Asking *a = context;
    if (!write_answers(a, false, &a->err)) return false;
    int before = a->all - a->count; // of an earlier session
    a->failed = done - a->good;
    if (too_many(a)) {
        find_problem(a);
        return false;
    }
    const Trainer *t = a->t;
    return !t->progress || t->progress(t->progress_context, "asking the teacher", (before + done) / (double)a->all);
}

// What an event tells, as it was answered then. False: nothing that fits this request.
static bool recall(const TeacherEndpoint *e, const char *key, const EndpointRequest *r, EndpointAnswer *out) {
    const json_t *detail = json_object_get(e->kept, key), *text = json_object_get(detail, "text"), *reasoning = json_object_get(detail, "reasoning");
    const char *hash = json_string_value(json_object_get(detail, "request")), *error = json_string_value(json_object_get(detail, "error"));
    char wanted[65];
    if (!hash || (!json_is_string(text) && !error)) return false;
    request_hash(e, r, wanted);
    if (strcmp(hash, wanted)) return false;
    *out = (EndpointAnswer){.ok = !error};
    if (error) return fail(&out->error, ERR_UNAVAILABLE, e->url, "%.400s", error), true;
    int64_t finish = number_of(detail, "finish");
    out->text = xstrdup(json_string_value(text)), out->size = strlen(out->text);
    out->reasoning = json_is_string(reasoning) ? xstrdup(json_string_value(reasoning)) : NULL;
    out->finish = finish == ENDPOINT_STOP || finish == ENDPOINT_LENGTH ? (EndpointFinish)finish : ENDPOINT_OTHER;
    return true;
}

// A draw is told from the others by its seed alone; a greedy answer needs none.
static int64_t seed_of(const Asking *a, const Group *g, int sample) {
    uint64_t words[] = {a->t->recipe->seed, (uint64_t)g->step, g->number, (uint64_t)sample};
    return a->stage->sampling.temperature > 0 ? (int64_t)(hash64(words, sizeof words) & 0x7fffffff) : -1;
}
static EndpointRequest request_of(const Asking *a, int prompt, int sample) {
    const Sampling *s = &a->stage->sampling;
    return (EndpointRequest){.messages = a->messages[prompt], .prompt = a->messages[prompt] ? NULL : a->texts[prompt].data, .temperature = s->temperature,
                             .top_p = s->top_p, .max_tokens = s->max_tokens, .stop = s->stop, .seed = seed_of(a, a->groups[prompt], sample)};
}

static void find_missing(Asking *a) {
    for (int i = 0; i < a->all; i++) {
        char key[80];
        EndpointRequest r = request_of(a, i / a->samples, i % a->samples);
        key_of(a->groups[0]->step, i / a->samples, i % a->samples, key);
        if (recall(a->endpoint, key, &r, &a->came[i])) continue;
        a->requests[a->count] = r, a->place[a->count++] = i;
    }
}

static bool ask(Asking *a, Err *err) {
    find_missing(a);
    if (a->count == 0) return true;
    Err why;
    bool ok = endpoint_ask(a->endpoint->client, a->requests, a->count, a->answers, on_progress, a, &why);
    for (int i = 0; ok && i < a->count; i++) a->came[a->place[i]] = a->answers[i];
    if (ok) return write_answers(a, true, err);
    if (a->err.code) *err = a->err;
    else if (too_many(a))
        fail(err, ERR_UNAVAILABLE, a->stage->name, "%d of %d requests of step %lld failed (more than %.0f %%); one of them: %s; answers that came are on the "
             "ledger, go on with --resume", a->failed, a->all, (long long)a->groups[0]->step, 100 * a->t->recipe->max_failed_share, a->problem);
    else *err = why;
    return false;
}

// ---- its samples ---------------------------------------------------------------------------------------------
static void cut(Group *g, Completion *c, const Ids *ids, int32_t room) {
    if (c->length > room) c->length = room > 0 ? room : 0, c->finish = FINISH_LENGTH;
    c->ids = ARENA_NEW(&g->arena, int32_t, c->length + 1), c->entropy = ARENA_NEW(&g->arena, float, c->length + 1);
    if (c->length) memcpy(c->ids, ids->data, (size_t)c->length * sizeof *c->ids);
    for (int32_t i = 0; i < c->length; i++) c->entropy[i] = NAN; // nobody says
}

static bool take_answer(const Asking *a, Group *g, int sample, const EndpointAnswer *from, Err *err) {
    const Tokenizer *tokenizer = policy_tokenizer(a->t->policy);
    Episode *e = &g->episodes[sample];
    Completion *c = &e->completion;
    Buf text = {0}, again = {0};
    Ids ids = {0};
    Err why;
    *c = (Completion){.finish = FINISH_LENGTH};
    e->text = arena_strdup(&g->arena, "");
    if (!from->ok) {
        g->problems[sample] = arena_strdup(&g->arena, from->error.msg);
        return true;
    }
    endpoint_completion(from, g->prompt.mode, a->t->recipe->chat, &text);
    if (from->finish == ENDPOINT_STOP) c->finish = FINISH_STOP;
    e->text = arena_strdup(&g->arena, text.data), e->text_size = text.size;
    bool ok = true;
    if (completion_encode(a->t->recipe, tokenizer, text.data, text.size, from->finish == ENDPOINT_STOP, &ids, &why)) {
        c->length = ids.count;
        cut(g, c, &ids, config_context(policy_config(a->t->policy)) - g->prompt.ids.count);
        ok = completion_text(tokenizer, c, g->prompt.mode, &again, &e->think_tokens, &e->answer_tokens, err);
    } else {
        Buf problem = {0};
        buf_printf(&problem, "the policy's tokenizer can't write it: %.150s", why.msg);
        g->problems[sample] = arena_strdup(&g->arena, problem.data);
        buf_free(&problem);
    }
    buf_free(&text), buf_free(&again), ids_free(&ids);
    return ok;
}

static bool begin(Asking *a, int64_t stage_start, int64_t first, Err *err) {
    const Trainer *t = a->t;
    for (int i = 0; i < a->prompts; i++) {
        Group *g = NULL;
        bool ok = group_new(t, a->stage, stage_start, first + i, 0, &g, err);
        a->groups[i] = g;
        TRY(ok);
        g->problems = ARENA_NEW(&g->arena, const char *, g->size);
        TRY(prompt_render(t->recipe, policy_tokenizer(t->policy), &g->prompt.item, g->prompt.mode, &g->prompt.ids, err) &&
            prompt_words(t->recipe, &g->prompt.item, g->prompt.mode, &a->messages[i], &a->texts[i], err));
    }
    return true;
}

static bool take_answers(const Asking *a, Err *err) {
    for (int i = 0; i < a->prompts; i++) {
        for (int s = 0; s < a->samples; s++) TRY(take_answer(a, a->groups[i], s, &a->came[i * a->samples + s], err));
        TRY(group_submit(a->t, a->groups[i], err));
    }
    return true;
}

static void asking_free(Asking *a) {
    for (int i = 0; i < a->prompts; i++) json_decref(a->messages[i]), buf_free(&a->texts[i]);
    for (int i = 0; i < a->all; i++) endpoint_answer_free(&a->came[i]);
    free(a->messages), free(a->texts), free(a->requests), free(a->answers), free(a->place), free(a->written), free(a->came);
}

bool endpoint_sample(const Trainer *t, Flight *f, const Stage *stage, int64_t stage_start, Err *err) {
    size_t prompts = (size_t)stage->batch, all = prompts * (size_t)stage->group_size;
    Asking a = {.t = t, .stage = stage, .endpoint = t->endpoint, .prompts = stage->batch, .samples = stage->group_size, .all = (int)all,
                .groups = xcalloc(prompts + 1, sizeof *a.groups), .messages = xcalloc(prompts + 1, sizeof(json_t *)), .texts = xcalloc(prompts + 1, sizeof *a.texts),
                .requests = xcalloc(all + 1, sizeof *a.requests), .answers = xcalloc(all + 1, sizeof *a.answers), .place = xcalloc(all + 1, sizeof *a.place),
                .written = xcalloc(all + 1, sizeof *a.written), .came = xcalloc(all + 1, sizeof *a.came)};
    bool ok = begin(&a, stage_start, f->started, err) && ask(&a, err) && take_answers(&a, err);
    if (ok) {
        f->started += stage->batch, f->sampled++;
        f->ready = xrealloc(f->ready, (size_t)(f->ready_count + 1) * sizeof *f->ready);
        f->ready[f->ready_count++].groups = a.groups;
    } else { // verdicts may still come
        f->lost = xrealloc(f->lost, (size_t)(f->lost_count + stage->batch + 1) * sizeof *f->lost);
        for (int i = 0; i < a.prompts && a.groups[i]; i++) f->lost[f->lost_count++] = a.groups[i];
        free(a.groups);
    }
    asking_free(&a);
    return ok;
}
