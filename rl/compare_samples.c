// What a comparison keeps of answers, where it is asked to: every draw's text, and its tokens with their log-probabilities.
#include "compare_run.h"
#include <string.h>

static json_t *text_json(const char *text, size_t size) { // valid UTF-8
    Buf valid = {0};
    utf8_repair(text ? text : "", size, &valid);
    json_t *out = json_stringn(valid.data ? valid.data : "", valid.size);
    buf_free(&valid);
    return out;
}

static json_t *tokens_json(int32_t count) { return count < 0 ? json_null() : json_integer(count); }

// The texts of tokens: one that ends inside of a character has none, the next has all of it.
static bool pieces_json(const Draw *d, const Tokenizer *t, json_t *pieces, json_t *logprobs, Err *err) {
    if (!t) return true; // an endpoint's text has no tokens here
    TokenStream *stream = token_stream_open(t);
    bool ok = true;
    for (int32_t i = 0, sampled = 0; ok && i < d->course_length; i++) {
        Buf piece = {0};
        bool ready = false, given = d->course[i] < 0;
        ok = token_stream_push(stream, given ? -1 - d->course[i] : d->course[i], &ready, &piece, err);
        json_array_append_new(pieces, text_json(ready ? piece.data : "", ready ? piece.size : 0));
        json_array_append_new(logprobs, given ? json_null() : json_number_or_name((double)d->logprob[sampled++]));
        buf_free(&piece);
    }
    token_stream_close(stream);
    return ok;
}

bool samples_append(json_t *to, const Arm *arm, const Evaluation *e, const Tokenizer *t, Err *err) {
    for (int i = 0, level = -1, index = 0; i < e->count; i++) {
        const EvaluatedItem *item = &e->items[i];
        index = item->level_index == level ? index + 1 : 0;
        level = item->level_index;
        for (int s = 0; s < item->draw_count; s++) {
            const Draw *d = &item->draws[s];
            json_t *pieces = json_array(), *logprobs = json_array();
            bool ok = pieces_json(d, t, pieces, logprobs, err);
            const char *prompt = item->prompt ? item->prompt : "", *truth = item->truth;
            json_array_append_new(to, json_pack("{s:s,s:i,s:i,s:i,s:o,s:o,s:o,s:b,s:s,s:s,s:o,s:o,s:o,s:o}", "arm", arm->name, "item", index, "level", level,
                                                "draw", s, "prompt", text_json(prompt, strlen(prompt)), "truth",
                                                truth ? text_json(truth, strlen(truth)) : json_null(), "text", text_json(d->text, d->text_size),
                                                "correct", (int)d->correct, "verdict", verdict_state_names[d->verdict], "finish",
                                                d->unanswered ? "none" : d->truncated ? "length" : "stop", "think_tokens", tokens_json(d->think_tokens),
                                                "answer_tokens", tokens_json(d->answer_tokens), "pieces", pieces, "logprobs", logprobs));
            TRY(ok);
        }
    }
    return true;
}
