// One completion's measures: its FLOPs at the true context lengths, its confidence, and how far it had come when the true
// answer first stood there.
#include "compare.h"
#include <ctype.h>
#include <string.h>

// The head is needed for the prompt's last token only.
double prompt_flops(const ModelConfig *config, int32_t prompt_tokens) {
    double flops = 0;
    for (int32_t i = 1; i <= prompt_tokens; i++) flops += config_flops(config, i, i == prompt_tokens);
    return flops;
}

void completion_confidence(const Completion *c, double *mean, double *least) {
    *mean = *least = 0;
    for (int32_t i = 0; c->logprob && i < c->length; i++) {
        *mean += (double)c->logprob[i] / c->length;
        if (c->logprob[i] < *least) *least = c->logprob[i];
    }
}

// Every new token but the last is fed back. A token that another given one follows draws nothing.
void draw_measure(Draw *to, const ModelConfig *config, int32_t prompt_tokens, const Completion *c, int32_t think, int32_t answer) {
    *to = (Draw){.tokens = c->length, .think_tokens = think, .answer_tokens = answer, .given_tokens = completion_total(c) - c->length,
                 .truncated = c->finish == FINISH_LENGTH, .tokens_to_truth = -1};
    for (int32_t i = 1; i < completion_total(c); i++) to->flops += config_flops(config, prompt_tokens + i, !c->given || !c->given[i]);
    completion_confidence(c, &to->mean_logprob, &to->min_logprob);
}

// ---- where the true answer first stands ------------------------------------------------------------------
static bool joins(char a, char b) { // two characters of one word or number
    bool word_a = isalnum((unsigned char)a) || (unsigned char)a >= 0x80, word_b = isalnum((unsigned char)b) || (unsigned char)b >= 0x80;
    return word_a && word_b;
}
// Where it ends, as a word of its own: 12 isn't in 312, nor in 1.12 or 12.5; -1: nowhere.
static int64_t find_truth(const char *text, size_t size, const char *truth) {
    size_t n = strlen(truth);
    for (const char *from = text, *at; n && (at = memmem(from, size - (size_t)(from - text), truth, n)); from = at + 1) {
        size_t start = (size_t)(at - text), end = start + n;
        bool left = start > 0 && (joins(text[start - 1], truth[0]) ||
                                  (start > 1 && text[start - 1] == '.' && isdigit((unsigned char)text[start - 2]) && isdigit((unsigned char)truth[0])));
        bool right = end < size && (joins(truth[n - 1], text[end]) ||
                                    (end + 1 < size && text[end] == '.' && isdigit((unsigned char)truth[n - 1]) && isdigit((unsigned char)text[end + 1])));
        if (!left && !right) return (int64_t)end;
    }
    return -1;
}
// Sampled tokens of the shortest beginning whose text has `bytes` bytes: the text of a prefix only ever grows.
static bool tokens_of_prefix(const Tokenizer *t, const Completion *c, int64_t bytes, int32_t *out, Err *err) {
    int32_t low = 0, high = completion_total(c);
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        Buf prefix = {0};
        bool ok = tokenizer_decode(t, completion_all(c), middle, false, &prefix, err);
        bool enough = ok && (int64_t)prefix.size >= bytes;
        buf_free(&prefix);
        TRY(ok);
        if (enough) high = middle;
        else low = middle;
    }
    *out = 0;
    for (int32_t i = 0; i < high; i++) *out += !c->given || !c->given[i];
    return true;
}

bool draw_detail(Draw *to, const Tokenizer *t, const Completion *c, const Buf *text, const char *truth, Arena *arena, Err *err) {
    EvaluatedItem kept = {0};
    to->text = ARENA_NEW(arena, char, text->size + 1);
    memcpy(to->text, text->data, text->size);
    to->text_size = text->size;
    answer_keep(&kept, c, arena);
    to->course = kept.course, to->logprob = kept.logprob, to->course_length = kept.course_length;
    int64_t at = truth ? find_truth(to->text, to->text_size, truth) : -1;
    return at < 0 || tokens_of_prefix(t, c, at, &to->tokens_to_truth, err);
}
