#include "message.h"
#include <math.h>
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
    return !r->failed && out->completion && out->finish && out->mode;
}
void sample_free(RewardSample *sample) {
    json_decref((json_t *)(uintptr_t)sample->row);
    json_decref((json_t *)(uintptr_t)sample->messages);
}

// ---- verdicts ------------------------------------------------------------------------------------------------------------
void write_verdict(Buf *b, const Verdict *v) {
    write_u32(b, (uint32_t)v->state);
    write_u32(b, v->not_replayable);
    buf_append(b, &v->score, sizeof v->score);
    buf_append(b, &v->fuel, sizeof v->fuel);
    write_text(b, v->why, strlen(v->why));
    write_u32(b, (uint32_t)v->part_count);
    for (int i = 0; i < v->part_count; i++) {
        buf_append(b, &v->parts[i].value, sizeof v->parts[i].value);
        write_text(b, v->parts[i].name, strlen(v->parts[i].name));
    }
}

bool read_verdict(Reader *r, Verdict *out) {
    size_t size;
    *out = (Verdict){.state = (VerdictState)read_u32(r)};
    out->not_replayable = read_u32(r) != 0;
    take_into(r, &out->score, sizeof out->score);
    take_into(r, &out->fuel, sizeof out->fuel);
    const char *why = read_text(r, &size);
    uint32_t parts = read_u32(r);
    if (r->failed || !why || size >= sizeof out->why || parts > MAX_REWARD_PARTS) return false;
    memcpy(out->why, why, size);
    if ((uint32_t)out->state > VERDICT_BUDGET || (out->state == VERDICT_SCORED) != isfinite(out->score)) return false;
    if (out->state != VERDICT_SCORED) out->score = NAN;
    for (uint32_t i = 0; i < parts; i++) {
        RewardPart *p = &out->parts[out->part_count++];
        take_into(r, &p->value, sizeof p->value);
        const char *name = read_text(r, &size);
        if (!name || size >= sizeof p->name || isinf(p->value)) return false;
        memcpy(p->name, name, size);
    }
    return !r->failed;
}
