// Answers of an evaluation that the ledger keeps word for word: the first few of each level, the same items each time, so that
// what a model said before training can be read beside what it said after. Bounded, so that a ledger stays small:
//
//   "answers": [{"level": 0 (into the evaluation's levels), "item": 0 (of the level), "prompt", "truth" | null, "completion",
//                "correct", "finish": "stop" | "length", "tokens", "think_tokens",
//                "ids": [of the course, a given id as -1 - id], "millinats": [logprob times 1000, of the sampled ids]}]
#include "compare.h"
#include <math.h>
#include <string.h>

enum { KEPT_PER_LEVEL = 12, LONGEST_COURSE = 600, LONGEST_TEXT = 6000 };

bool answer_is_kept(int item_of_level) { return item_of_level < KEPT_PER_LEVEL; }

void answer_keep(EvaluatedItem *to, const Completion *c, Arena *arena) {
    const int32_t *all = completion_all(c);
    to->course_length = completion_total(c);
    to->course = ARENA_NEW(arena, int32_t, to->course_length + 1);
    to->logprob = ARENA_NEW(arena, float, c->length + 1);
    for (int32_t i = 0; i < to->course_length; i++) to->course[i] = c->given && c->given[i] ? -1 - all[i] : all[i];
    if (c->length) memcpy(to->logprob, c->logprob, (size_t)c->length * sizeof *c->logprob);
}

// Valid UTF-8 of bounded length, as JSON wants it.
static json_t *text_json(const char *text) {
    Buf valid = {0};
    if (!text) return json_null();
    utf8_repair(text, strnlen(text, LONGEST_TEXT), &valid);
    json_t *out = json_stringn(valid.data ? valid.data : "", valid.size);
    buf_free(&valid);
    return out;
}

static json_t *question_json(const EvaluatedItem *item) {
    if (item->prompt || !item->messages) return text_json(item->prompt);
    const json_t *last = json_array_get(item->messages, json_array_size(item->messages) - 1);
    const char *content = json_string_value(json_object_get(last, "content"));
    if (content) return text_json(content);
    Buf text = {0};
    json_write(item->messages, &text);
    json_t *out = text_json(text.data);
    buf_free(&text);
    return out;
}

static json_t *answer_json(const EvaluatedItem *item, int index) {
    json_t *ids = json_array(), *millinats = json_array();
    for (int32_t i = 0, sampled = 0; i < item->course_length && i < LONGEST_COURSE; i++) {
        json_array_append_new(ids, json_integer(item->course[i]));
        if (item->course[i] < 0) continue;
        double nats = item->logprob[sampled++];
        json_array_append_new(millinats, json_integer(isfinite(nats) ? llround(nats * 1000) : -1000000));
    }
    return json_pack("{s:i,s:i,s:o,s:o,s:o,s:b,s:s,s:i,s:i,s:o,s:o}", "level", item->level_index, "item", index, "prompt", question_json(item),
                     "truth", text_json(item->truth), "completion", text_json(item->completion), "correct", (int)item->correct, "finish",
                     item->truncated ? "length" : "stop", "tokens", item->tokens, "think_tokens", item->think_tokens, "ids", ids,
                     "millinats", millinats);
}

json_t *evaluation_answers(const Evaluation *e) {
    json_t *out = json_array();
    for (int i = 0, level = -1, index = 0; i < e->count; i++) {
        const EvaluatedItem *item = &e->items[i];
        index = item->level_index == level ? index + 1 : 0;
        level = item->level_index;
        if (item->course) json_array_append_new(out, answer_json(item, index));
    }
    return out;
}
