// `calc verify`, `calc extract` and `calc shaping`: whether two answers are equal, what a text says its answer is, and
// what the shaping of rewards makes of lengths and texts, each by the functions that reward scripts call.
#include "calc.h"
#include "extract.h"
#include "shaping.h"
#include "verify.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static bool read_text(const CalcCase *c, const char *key, TextSpan *out, Err *err) {
    char path[96];
    const json_t *value = json_object_get(c->inputs, key);
    snprintf(path, sizeof path, "inputs.%s", key);
    if (!json_is_string(value)) return calc_malformed(c, path, "a text", err);
    *out = (TextSpan){json_string_value(value), json_string_length(value)};
    return true;
}

bool calc_verify(CalcCase *c, json_t *expected, Err *err) {
    TextSpan gold, candidate;
    TRY(read_text(c, "gold", &gold, err));
    TRY(read_text(c, "candidate", &candidate, err));
    const json_t *category = json_object_get(c->given, "category"); // names the case where it has no name
    if (category && !json_object_get(c->given, "name")) json_object_set(expected, "name", (json_t *)(uintptr_t)category);
    json_object_set_new(expected, "equal", json_boolean(verify_equal(gold, candidate, NULL)));
    return true;
}

bool calc_extract(CalcCase *c, json_t *expected, Err *err) {
    TextSpan text, answer;
    TRY(read_text(c, "text", &text, err));
    bool found = extract_answer_tag(text, &answer);
    json_object_set_new(expected, "answer_tag", found ? json_stringn(answer.data, answer.size) : json_null());
    return true;
}

// ---- shaping ------------------------------------------------------------------------------------------------------
typedef struct Shaping { // options of all the programs, each under its own names
    double max_completion_len, soft_punish_cache, max_resp_len, overlong_buffer_len, penalty_factor, max_new_tokens, overlong_penalty_factor,
        stop_properly_penalty_coef, min_value_wrong, max_value_wrong, min_value_correct, max_value_correct, max_len, ngram_size, max_penalty;
} Shaping;
#define NUMBER(name) {#name, CALC_NUMBER, offsetof(Shaping, name), NULL}
static const CalcOption shaping_options[] = {
    NUMBER(max_completion_len), NUMBER(soft_punish_cache), NUMBER(max_resp_len), NUMBER(overlong_buffer_len), NUMBER(penalty_factor),
    NUMBER(max_new_tokens), NUMBER(overlong_penalty_factor), NUMBER(stop_properly_penalty_coef), NUMBER(min_value_wrong),
    NUMBER(max_value_wrong), NUMBER(min_value_correct), NUMBER(max_value_correct), NUMBER(max_len), NUMBER(ngram_size), NUMBER(max_penalty),
    {0}};

typedef struct ShapingInputs {
    int count; // of rewards
    double *lengths, *scores; // [count]; NULL if not given
    bool *correct, *truncated; // [count]; NULL if not given
    const json_t *texts, *ids;
    bool capped; // the cosine
} ShapingInputs;

static bool read_flags(CalcCase *c, const char *key, int count, bool **out, Err *err) {
    const json_t *list = json_object_get(c->inputs, key);
    char path[96];
    *out = NULL;
    if (!list || json_is_null(list)) return true;
    snprintf(path, sizeof path, "inputs.%s", key);
    if (!json_is_array(list) || (int)json_array_size(list) != count) return calc_malformed(c, path, "as many values as there are lengths or scores", err);
    *out = ARENA_NEW(&c->arena, bool, count + 1);
    for (int i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        if (!json_is_boolean(v)) return calc_malformed(c, path, "only true and false", err);
        (*out)[i] = json_is_true(v);
    }
    return true;
}

static bool read_inputs(CalcCase *c, ShapingInputs *in, Err *err) {
    static const char *const known[] = {"lengths", "scores", "correct", "truncated", "texts", "completion_ids", NULL};
    int lengths = 0, scores = 0;
    *in = (ShapingInputs){.texts = json_object_get(c->inputs, "texts"), .ids = json_object_get(c->inputs, "completion_ids")};
    TRY(calc_inputs_known(c, known));
    TRY(calc_list(c, "lengths", &lengths, &in->lengths, err));
    TRY(calc_list(c, "scores", &scores, &in->scores, err));
    if (in->lengths && in->scores && lengths != scores) return calc_malformed(c, "inputs.scores", "as many values as there are lengths", err);
    in->count = in->lengths ? lengths : scores;
    if (in->texts && !json_is_array(in->texts)) return calc_malformed(c, "inputs.texts", "a list of texts", err);
    if (in->ids && !json_is_array(in->ids)) return calc_malformed(c, "inputs.completion_ids", "a list of lists", err);
    if (in->texts) in->count = (int)json_array_size(in->texts);
    if (in->ids) in->count = (int)json_array_size(in->ids);
    return read_flags(c, "correct", in->count, &in->correct, err) && read_flags(c, "truncated", in->count, &in->truncated, err);
}

static bool needs(CalcCase *c, const void *input, const char *key, Err *err) {
    char path[96];
    snprintf(path, sizeof path, "inputs.%s", key);
    return input || calc_malformed(c, path, "a list", err);
}

// ---- each program's function ----
typedef bool (*ShapingFunction)(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err); // out [count]

static bool soft_overlong(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->lengths, "lengths", err));
    for (int i = 0; i < in->count; i++) out[i] = shape_soft_overlong(in->lengths[i], o->max_completion_len, o->soft_punish_cache);
    return true;
}
static bool overlong_verl(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->lengths, "lengths", err));
    for (int i = 0; i < in->count; i++)
        out[i] = (in->scores ? in->scores[i] : 0) + shape_overlong_verl(in->lengths[i], o->max_resp_len, o->overlong_buffer_len, o->penalty_factor);
    return true;
}
static bool overlong_openrlhf(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->lengths, "lengths", err));
    for (int i = 0; i < in->count; i++)
        out[i] = (in->scores ? in->scores[i] : 0) +
                 shape_overlong_openrlhf(in->lengths[i], o->max_new_tokens, o->overlong_buffer_len, o->overlong_penalty_factor);
    return true;
}
static bool stop_properly(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->scores, "scores", err) && needs(c, in->truncated, "truncated", err));
    for (int i = 0; i < in->count; i++) out[i] = shape_stop_properly(in->scores[i], in->truncated[i], o->stop_properly_penalty_coef);
    return true;
}
static bool cosine(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->lengths, "lengths", err) && needs(c, in->correct, "correct", err));
    for (int i = 0; i < in->count; i++)
        out[i] = in->correct[i] ? shape_cosine(in->lengths[i], o->max_len, o->max_value_correct, o->min_value_correct, in->capped)
                                : shape_cosine(in->lengths[i], o->max_len, o->min_value_wrong, o->max_value_wrong, in->capped);
    return true;
}
static bool kimi(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    (void)o;
    TRY(needs(c, in->lengths, "lengths", err) && needs(c, in->correct, "correct", err));
    shape_kimi(in->lengths, in->correct, in->count, out);
    return true;
}
static bool repetition(CalcCase *c, const Shaping *o, const ShapingInputs *in, double *out, Err *err) {
    TRY(needs(c, in->ids ? in->ids : in->texts, "completion_ids", err));
    for (int i = 0; i < in->count; i++) {
        const json_t *item = json_array_get(in->ids ? in->ids : in->texts, (size_t)i);
        double share;
        if (in->ids) {
            int64_t n = (int64_t)json_array_size(item);
            int32_t *ids = ARENA_NEW(&c->arena, int32_t, n + 1);
            for (int64_t k = 0; k < n; k++) {
                const json_t *id = json_array_get(item, (size_t)k);
                if (!json_is_integer(id)) return calc_malformed(c, "inputs.completion_ids", "lists of whole numbers", err);
                ids[k] = (int32_t)json_integer_value(id);
            }
            share = shape_repetition_ids(ids, n, (int)o->ngram_size);
        } else {
            if (!json_is_string(item)) return calc_malformed(c, "inputs.texts", "a list of texts", err);
            share = shape_repetition_words((TextSpan){json_string_value(item), json_string_length(item)}, (int)o->ngram_size);
        }
        out[i] = share * o->max_penalty;
    }
    return true;
}
static bool each_text(CalcCase *c, const ShapingInputs *in, double (*function)(TextSpan text), double *out, Err *err) {
    TRY(needs(c, in->texts, "texts", err));
    for (int i = 0; i < in->count; i++) {
        const json_t *text = json_array_get(in->texts, (size_t)i);
        if (!json_is_string(text)) return calc_malformed(c, "inputs.texts", "a list of texts", err);
        out[i] = function((TextSpan){json_string_value(text), json_string_length(text)});
    }
    return true;
}

static const struct {
    const char *program, *function;
    ShapingFunction run;
    double (*of_text)(TextSpan text);
    bool capped;
} shapings[] = {
    {"trl ", "get_soft_overlong_punishment", soft_overlong, NULL, false},
    {"verl ", "DAPORewardManager", overlong_verl, NULL, false},
    {"openrlhf ", "apply_overlong_penalty", overlong_openrlhf, NULL, false},
    {"openrlhf ", "apply_stop_properly_penalty", stop_properly, NULL, false},
    {"trl ", "get_cosine_scaled_reward", cosine, NULL, true},
    {"open-r1 ", "get_cosine_scaled_reward", cosine, NULL, false},
    {"open-r1 ", "len_reward", kimi, NULL, false},
    {"trl ", "get_repetition_penalty_reward", repetition, NULL, false},
    {"open-r1 ", "get_repetition_penalty_reward", repetition, NULL, false},
    {"trl ", "think_format_reward", NULL, shape_think_format, false},
    {"open-r1 ", "tag_count_reward", NULL, shape_tag_count, false},
    {"open-r1 ", "reasoning_steps_reward", NULL, shape_reasoning_steps, false},
    {"open-r1 ", "format_reward", NULL, shape_think_answer_format, false},
};

bool calc_shaping(CalcCase *c, json_t *expected, Err *err) {
    Shaping options = {0};
    ShapingInputs in;
    int which = 0;
    while (which < COUNT(shapings) && !(c->source && strncmp(c->source, shapings[which].program, strlen(shapings[which].program)) == 0 &&
                                        strstr(c->source, shapings[which].function)))
        which++;
    if (which == COUNT(shapings)) return calc_unsupported(c, "source = \"%.100s\"", c->source ? c->source : "");
    TRY(calc_options(c, shaping_options, &options, err));
    TRY(read_inputs(c, &in, err));
    in.capped = shapings[which].capped;
    double *rewards = ARENA_NEW(&c->arena, double, in.count + 1);
    if (shapings[which].run) TRY(shapings[which].run(c, &options, &in, rewards, err));
    else TRY(each_text(c, &in, shapings[which].of_text, rewards, err));
    json_t *list = json_array();
    for (int i = 0; i < in.count; i++) json_array_append_new(list, json_number_or_name(rewards[i]));
    json_object_set_new(expected, "rewards", list);
    return true;
}
