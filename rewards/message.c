#include "message.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t ABSENT = UINT32_MAX;

// ---- primitives ----------------------------------------------------------------------------------------------------------
static const char *take(Reader *r, size_t size) {
    if (r->failed || (size_t)(r->end - r->at) < size) {
        r->failed = true;
        return NULL;
    }
    const char *p = r->at;
    r->at += size;
    return p;
}
static void take_into(Reader *r, void *out, size_t size) {
    const char *p = take(r, size);
    if (p)
        memcpy(out, p, size);
    else
        memset(out, 0, size);
}
uint32_t read_u32(Reader *r) {
    uint32_t value;
    take_into(r, &value, sizeof value);
    return value;
}
void write_u32(Buf *b, uint32_t value) { buf_append(b, &value, sizeof value); }

static void write_text(Buf *b, const char *text, size_t size) { // with a NUL, so that the reader can point at it
    write_u32(b, text ? (uint32_t)size : ABSENT);
    if (text) {
        buf_append(b, text, size);
        buf_append(b, "", 1);
    }
}
static const char *read_text(Reader *r, size_t *size) {
    uint32_t n = read_u32(r);
    *size = 0;
    if (n == ABSENT) return NULL;
    const char *text = take(r, (size_t)n + 1);
    if (!text || text[n] != 0) {
        r->failed = true;
        return NULL;
    }
    *size = n;
    return text;
}

// ---- samples -------------------------------------------------------------------------------------------------------------
typedef struct SampleNumbers {
    int64_t step;
    uint64_t seed;
    int32_t tokens, think_tokens, answer_tokens, group;
} SampleNumbers;

static void write_string(Buf *b, const char *s) { write_text(b, s, s ? strlen(s) : 0); }
static void write_value(Buf *b, const json_t *value) {
    Buf text = {0};
    if (value) json_write(value, &text);
    write_text(b, text.data, text.size);
    buf_free(&text);
}

static void write_parts(Buf *b, const RewardPart *parts, int count) {
    write_u32(b, (uint32_t)count);
    for (int i = 0; i < count; i++) {
        buf_append(b, &parts[i].value, sizeof parts[i].value);
        write_text(b, parts[i].name, strlen(parts[i].name));
    }
}
static bool read_parts(Reader *r, RewardPart *out, int *count) {
    uint32_t parts = read_u32(r);
    size_t size;
    *count = 0;
    if (r->failed || parts > MAX_REWARD_PARTS) return false;
    for (uint32_t i = 0; i < parts; i++) {
        RewardPart *p = &out[(*count)++];
        *p = (RewardPart){0};
        take_into(r, &p->value, sizeof p->value);
        const char *name = read_text(r, &size);
        if (!name || size >= sizeof p->name || isinf(p->value)) return false;
        memcpy(p->name, name, size);
    }
    return true;
}
static bool read_why(Reader *r, char out[256]) {
    size_t size;
    const char *why = read_text(r, &size);
    if (!why || size >= 256) return false;
    memcpy(out, why, size);
    out[size] = 0;
    return true;
}

static void write_result(Buf *b, const EnvironmentResult *e) {
    write_u32(b, e != NULL);
    if (!e) return;
    write_u32(b, (uint32_t)e->state);
    write_u32(b, (uint32_t)e->script);
    write_u32(b, e->not_replayable);
    buf_append(b, &e->fuel, sizeof e->fuel);
    write_text(b, e->why, strlen(e->why));
    write_parts(b, e->parts, e->part_count);
}
// The caller's own result on its way to a worker; it lives as long as the sample (sample_free).
static bool read_result(Reader *r, const EnvironmentResult **out) {
    if (read_u32(r) != 1) return !r->failed;
    EnvironmentResult *e = xcalloc(1, sizeof *e);
    *out = e;
    e->state = (VerdictState)read_u32(r);
    e->script = (int)read_u32(r);
    e->not_replayable = read_u32(r) != 0;
    take_into(r, &e->fuel, sizeof e->fuel);
    return read_why(r, e->why) && read_parts(r, e->parts, &e->part_count) && (uint32_t)e->state < VERDICT_STATES;
}

void write_sample(Buf *b, const RewardSample *s) {
    SampleNumbers n = {.step = s->step, .seed = s->seed, .tokens = s->tokens, .think_tokens = s->think_tokens,
                       .answer_tokens = s->answer_tokens, .group = s->group};
    buf_append(b, &n, sizeof n);
    write_text(b, s->completion ? s->completion : "", s->completion ? s->completion_size : 0);
    write_string(b, s->id);
    write_string(b, s->prompt);
    write_string(b, s->truth);
    write_string(b, s->finish ? s->finish : "stop");
    write_string(b, s->mode ? s->mode : "think");
    write_string(b, s->task);
    write_value(b, s->row);
    write_value(b, s->messages);
    write_result(b, s->environment);
}

static json_t *read_value(Reader *r) {
    size_t size;
    json_t *value = NULL;
    const char *text = read_text(r, &size);
    if (text && !json_parse(text, size, "sample", 1, &value, NULL)) r->failed = true;
    return value;
}

bool read_sample(Reader *r, RewardSample *out) {
    SampleNumbers n;
    size_t size;
    take_into(r, &n, sizeof n);
    *out = (RewardSample){.step = n.step, .seed = n.seed, .tokens = n.tokens, .think_tokens = n.think_tokens,
                          .answer_tokens = n.answer_tokens, .group = n.group};
    out->completion = read_text(r, &out->completion_size);
    out->id = read_text(r, &size);
    out->prompt = read_text(r, &size);
    out->truth = read_text(r, &size);
    out->finish = read_text(r, &size);
    out->mode = read_text(r, &size);
    out->task = read_text(r, &size);
    out->row = read_value(r);
    out->messages = read_value(r);
    if (!read_result(r, &out->environment)) r->failed = true;
    return !r->failed && out->completion && out->finish && out->mode;
}
void sample_free(RewardSample *sample) {
    json_decref((json_t *)(uintptr_t)sample->row);
    json_decref((json_t *)(uintptr_t)sample->messages);
    free((EnvironmentResult *)(uintptr_t)sample->environment);
}

// ---- verdicts ------------------------------------------------------------------------------------------------------------
void write_verdict(Buf *b, const Verdict *v) {
    write_u32(b, (uint32_t)v->state);
    write_u32(b, v->not_replayable);
    buf_append(b, &v->score, sizeof v->score);
    buf_append(b, &v->fuel, sizeof v->fuel);
    write_text(b, v->why, strlen(v->why));
    write_parts(b, v->parts, v->part_count);
}

bool read_verdict(Reader *r, Verdict *out) {
    *out = (Verdict){.state = (VerdictState)read_u32(r)};
    out->not_replayable = read_u32(r) != 0;
    take_into(r, &out->score, sizeof out->score);
    take_into(r, &out->fuel, sizeof out->fuel);
    if (!read_why(r, out->why)) return false;
    if ((uint32_t)out->state > VERDICT_BUDGET || (out->state == VERDICT_SCORED) != isfinite(out->score)) return false;
    if (out->state != VERDICT_SCORED) out->score = NAN;
    return read_parts(r, out->parts, &out->part_count) && !r->failed;
}

// ---- calls of an environment ---------------------------------------------------------------------------------------------
typedef struct CallNumbers {
    uint64_t seed;
    int32_t kind, script, turn, last;
} CallNumbers;

void write_call(Buf *b, const EnvironmentCall *c, int script) {
    CallNumbers n = {.seed = c->seed, .kind = (int32_t)c->kind, .script = script, .turn = c->turn, .last = c->last};
    buf_append(b, &n, sizeof n);
    write_text(b, c->action ? c->action : "", c->action ? c->action_size : 0);
    write_string(b, c->prompt);
    write_string(b, c->truth);
    write_string(b, c->finish ? c->finish : "stop");
    write_string(b, c->mode ? c->mode : "think");
    write_value(b, c->row);
    write_value(b, c->state);
}

bool read_call(Reader *r, EnvironmentCall *out, int *script) {
    CallNumbers n;
    size_t size;
    take_into(r, &n, sizeof n);
    *out = (EnvironmentCall){.kind = (EnvironmentCallKind)n.kind, .seed = n.seed, .turn = n.turn, .last = n.last != 0};
    *script = n.script;
    out->action = read_text(r, &out->action_size);
    out->prompt = read_text(r, &size);
    out->truth = read_text(r, &size);
    out->finish = read_text(r, &size);
    out->mode = read_text(r, &size);
    out->row = read_value(r);
    out->state = read_value(r);
    return !r->failed && out->action && out->finish && out->mode && n.kind >= 0 && n.kind <= ENVIRONMENT_DEMONSTRATE;
}
void call_free(EnvironmentCall *call) {
    json_decref((json_t *)(uintptr_t)call->row);
    json_decref((json_t *)(uintptr_t)call->state);
}

void write_reply(Buf *b, const EnvironmentReply *e, const char *data, const char *said) {
    write_u32(b, (uint32_t)e->state);
    write_u32(b, e->done);
    write_u32(b, e->not_replayable);
    buf_append(b, &e->fuel, sizeof e->fuel);
    write_text(b, e->why, strlen(e->why));
    write_parts(b, e->parts, e->part_count);
    write_string(b, data);
    write_string(b, said);
}

// A text, or a list of messages of a chat.
static bool are_words(const json_t *said) {
    size_t i;
    const json_t *one;
    if (json_is_string(said)) return true;
    json_array_foreach(said, i, one) {
        if (!json_is_string(json_object_get(one, "role")) || !json_is_string(json_object_get(one, "content"))) return false;
    }
    return json_is_array(said) && json_array_size(said) > 0;
}

bool read_reply(Reader *r, EnvironmentReply *out) {
    *out = (EnvironmentReply){.state = (VerdictState)read_u32(r)};
    out->done = read_u32(r) != 0;
    out->not_replayable = read_u32(r) != 0;
    take_into(r, &out->fuel, sizeof out->fuel);
    if (!read_why(r, out->why) || !read_parts(r, out->parts, &out->part_count)) return false;
    for (int i = 0; i < out->part_count; i++)
        if (!isfinite(out->parts[i].value)) return false;
    out->data = read_value(r);
    out->messages = read_value(r);
    if (r->failed || (uint32_t)out->state > VERDICT_BUDGET) return false;
    if (out->state == VERDICT_SCORED && !out->data) return false;
    return !out->messages || are_words(out->messages);
}
void environment_reply_free(EnvironmentReply *r) {
    json_decref(r->data);
    json_decref(r->messages);
    *r = (EnvironmentReply){0};
}

// ---- what the scripts are ------------------------------------------------------------------------------------------------
void write_look(Buf *b, const ScriptsLook *look) {
    const RewardEnvironment *e = &look->environment;
    uint32_t stops = 0;
    write_u32(b, look->grouped);
    write_u32(b, (uint32_t)look->environments);
    write_u32(b, (uint32_t)e->script);
    write_u32(b, (uint32_t)e->turns);
    write_u32(b, e->demonstrates);
    write_string(b, e->name);
    write_string(b, e->task);
    while (e->stop && e->stop[stops]) stops++;
    write_u32(b, stops);
    for (uint32_t i = 0; i < stops; i++) write_string(b, e->stop[i]);
}

bool read_look(Reader *r, ScriptsLook *out) {
    RewardEnvironment *e = &out->environment;
    size_t size;
    *out = (ScriptsLook){.grouped = read_u32(r) != 0};
    out->environments = (int)read_u32(r);
    e->script = (int)read_u32(r);
    e->turns = (int32_t)read_u32(r);
    e->demonstrates = read_u32(r) != 0;
    const char *name = read_text(r, &size);
    if (!name || size >= sizeof e->name) return false;
    memcpy(e->name, name, size + 1);
    const char *task = read_text(r, &size);
    e->task = task ? xstrdup(task) : NULL;
    uint32_t stops = read_u32(r);
    if (r->failed || stops > MAX_STOPS) return false;
    e->stop = xcalloc(stops + 1, sizeof *e->stop);
    for (uint32_t i = 0; i < stops; i++) {
        const char *text = read_text(r, &size);
        if (!text) return false;
        e->stop[i] = xstrdup(text);
    }
    return !r->failed && out->environments >= 0 && e->script >= 0 && e->turns >= 0;
}
void look_free(ScriptsLook *look) {
    for (char **s = look->environment.stop; s && *s; s++) free(*s);
    free(look->environment.stop), free(look->environment.task);
    *look = (ScriptsLook){0};
}
