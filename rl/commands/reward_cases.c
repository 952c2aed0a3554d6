// The cases of `reckon reward`: a JSON Lines file in which each line is a sample, perhaps with what it should score.
#include "reward_command.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_LIMIT = 64 << 20 };

static bool wrong(const Cases *c, long line, Err *err, const char *key, const char *found, const char *expected) {
    char where[256];
    snprintf(where, sizeof where, "%.200s:%ld:1", c->path, line);
    return fail(err, ERR_DATA, where, "%s: found %s, expected %s", key, found, expected);
}

static const char *type_name(const json_t *v) {
    static const char *const names[] = {"an object", "a list", "a text", "a number", "a number", "true", "false", "null"};
    return v ? names[json_typeof(v)] : "nothing";
}

static bool read_text(const Cases *c, long line, const json_t *row, const char *key, const char **out, Err *err) {
    const json_t *v = json_object_get(row, key);
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(v)) return wrong(c, line, err, key, type_name(v), "a text");
    *out = json_string_value(v);
    return true;
}

static bool read_integer(const Cases *c, long line, const json_t *row, const char *key, int64_t high, int64_t *out, Err *err) {
    const json_t *v = json_object_get(row, key);
    if (!v || json_is_null(v)) return true;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > high)
        return wrong(c, line, err, key, json_is_number(v) ? "another number" : type_name(v), "a whole number from 0");
    *out = json_integer_value(v);
    return true;
}

static bool read_expectation(const Cases *c, long line, Case *k, Err *err) {
    const json_t *v = json_object_get(k->row, "expect");
    if (!v) return true;
    k->expects = true;
    if (json_is_number(v)) {
        k->number = json_number_value(v);
        k->state = VERDICT_SCORED;
        return true;
    }
    k->number = NAN; // any score will do
    for (int i = 0; i < VERDICT_STATES && json_is_string(v); i++)
        if (strcmp(json_string_value(v), verdict_state_names[i]) == 0) {
            k->state = (VerdictState)i;
            return true;
        }
    return wrong(c, line, err, "expect", json_is_string(v) ? json_string_value(v) : type_name(v),
                 "a number, scored, abstained, error, budget or killed");
}

// "actions": what the model writes in each of its turns, or "demonstrate"; "says": what the environment must say.
static bool read_actions(const Cases *c, long line, Case *k, Err *err) {
    const json_t *actions = json_object_get(k->row, "actions"), *says = json_object_get(k->row, "says"), *one;
    size_t i;
    k->actions = actions;
    if (says && !json_is_array(says)) return wrong(c, line, err, "says", type_name(says), "a list");
    if (!actions) return !says || wrong(c, line, err, "says", "no actions beside it", "what an environment says to them");
    if (json_is_string(actions) && strcmp(json_string_value(actions), "demonstrate") == 0) return true;
    if (!json_is_array(actions)) return wrong(c, line, err, "actions", type_name(actions), "a list of texts or demonstrate");
    json_array_foreach(actions, i, one) if (!json_is_string(one)) return wrong(c, line, err, "actions", type_name(one), "texts in the list");
    return true;
}

static bool read_truth(const Cases *c, long line, Case *k, Err *err) {
    const json_t *v = json_object_get(k->row, "truth");
    if (!v || json_is_null(v)) return true;
    if (json_is_object(v) || json_is_array(v)) return wrong(c, line, err, "truth", type_name(v), "a text or a number");
    if (json_is_string(v)) {
        k->sample.truth = json_string_value(v);
        return true;
    }
    Buf text = {0};
    json_write(v, &text);
    k->sample.truth = k->truth = text.data;
    return true;
}

static void warn_of_unknown_keys(const Cases *c, long line, const json_t *row) {
    static const char *const known[] = {"completion", "truth", "row", "prompt", "messages", "tokens", "think_tokens",
                                        "answer_tokens", "finish", "mode", "step", "seed", "group", "expect", "name",
                                        "note", "actions", "says", NULL};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value) {
        int i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (known[i]) continue;
        const char *near = nearest_name(key, known);
        log_line(LOG_WARN, "reckon: %s:%ld: '%.60s' isn't part of a case and has no effect%s%s", c->path, line, key,
                 near ? "; did you mean " : "", near ? near : "");
    }
}

static bool read_case(void *context, json_t *row, long line, Err *err) {
    Cases *c = context;
    int64_t tokens = 0, think = 0, answer = 0, seed = 0, group = -1;
    if (!json_is_object(row)) return wrong(c, line, err, "case", type_name(row), "an object");
    c->list = xrealloc(c->list, (size_t)(c->count + 1) * sizeof *c->list);
    Case *k = &c->list[c->count++];
    *k = (Case){.row = json_incref(row)};
    RewardSample *s = &k->sample;
    const json_t *completion = json_object_get(row, "completion");
    snprintf(k->id, sizeof k->id, "line %ld", line);
    TRY(read_actions(c, line, k, err));
    if (!json_is_string(completion) && !k->actions) return wrong(c, line, err, "completion", type_name(completion), "a text, or actions of an environment");
    s->completion = json_is_string(completion) ? json_string_value(completion) : "";
    s->completion_size = json_string_length(completion);
    s->finish = "stop";
    // A completion that thinks aloud was asked to.
    s->mode = strstr(s->completion, "<think>") || strstr(s->completion, "</think>") ? "think" : "direct";
    TRY(read_text(c, line, row, "prompt", &s->prompt, err));
    TRY(read_text(c, line, row, "finish", &s->finish, err));
    TRY(read_text(c, line, row, "mode", &s->mode, err));
    if (strcmp(s->mode, "think") != 0 && strcmp(s->mode, "direct") != 0)
        return wrong(c, line, err, "mode", s->mode, "think or direct");
    TRY(read_integer(c, line, row, "tokens", INT32_MAX, &tokens, err));
    TRY(read_integer(c, line, row, "think_tokens", INT32_MAX, &think, err));
    TRY(read_integer(c, line, row, "answer_tokens", INT32_MAX, &answer, err));
    TRY(read_integer(c, line, row, "step", INT64_MAX, &s->step, err));
    TRY(read_integer(c, line, row, "seed", INT64_MAX, &seed, err));
    TRY(read_integer(c, line, row, "group", INT32_MAX, &group, err));
    s->tokens = (int32_t)tokens, s->think_tokens = (int32_t)think, s->answer_tokens = (int32_t)answer;
    s->seed = (uint64_t)seed;
    s->group = group >= 0 ? (int32_t)group : -c->count; // alone unless it says so
    s->messages = json_object_get(row, "messages");
    s->row = json_object_get(row, "row");
    if (s->row && !json_is_object(s->row)) return wrong(c, line, err, "row", type_name(s->row), "an object");
    if (s->messages && !json_is_array(s->messages)) return wrong(c, line, err, "messages", type_name(s->messages), "a list");
    warn_of_unknown_keys(c, line, row);
    return read_truth(c, line, k, err) && read_expectation(c, line, k, err);
}

void cases_free(Cases *c) {
    for (int i = 0; i < c->count; i++) {
        json_decref(c->list[i].row), json_decref(c->list[i].said);
        free(c->list[i].truth);
    }
    free(c->list);
}

// "--option max=512": JSON where it is, else text.
static bool read_options(const char *const *given, json_t **out, Err *err) {
    *out = json_object();
    for (; *given; given++) {
        const char *equals = strchr(*given, '=');
        json_t *value;
        if (!equals || equals == *given)
            return fail(err, ERR_USAGE, "reward --option", "found '%.60s', expected NAME=VALUE", *given);
        char *name = xstrndup(*given, (size_t)(equals - *given));
        if (!json_parse(equals + 1, strlen(equals + 1), "", 1, &value, NULL)) value = json_string(equals + 1);
        bool ok = value && json_object_set_new(*out, name, value) == 0;
        free(name);
        if (!ok) return fail(err, ERR_USAGE, "reward --option", "'%.60s' isn't valid UTF-8", *given);
    }
    return true;
}

bool cases_read(const char *path, Cases *out, Err *err) {
    *out = (Cases){.path = path};
    return json_lines(path, LINE_LIMIT, read_case, out, err);
}

bool reward_arguments(const Args *args, RewardSpec *spec, RewardLimits *limits, json_t **options, Err *err) {
    *options = NULL;
    if (args->positional_count != 2) {
        char what[64];
        snprintf(what, sizeof what, "reward %.20s", args->positional[0]);
        return fail(err, ERR_USAGE, what, "found no script, expected one");
    }
    *limits = reward_default_limits();
    limits->fuel = (uint64_t)args_int(args, "fuel", (int64_t)limits->fuel);
    limits->memory = (size_t)args_int(args, "memory", (int64_t)(limits->memory >> 20)) << 20;
    limits->seconds = args_number(args, "seconds", limits->seconds);
    limits->unsafe = args_flag(args, "unsafe-rewards");
    TRY(read_options(args_list(args, "option"), options, err));
    json_t *allow = json_array();
    for (const char *const *a = args_list(args, "allow"); *a; a++) json_array_append_new(allow, json_string(*a));
    if (json_array_size(allow)) json_object_set(*options, "allow", allow);
    json_decref(allow);
    *spec = (RewardSpec){.script = args->positional[1], .weight = 1, .options = *options};
    return true;
}

const char *visible(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (; *text && n + 1 < size; text++) out[n++] = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
    out[n] = 0;
    return out;
}
