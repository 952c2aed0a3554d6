// reward test: runs a reward script on cases from a file, through the same worker processes as training, and says
// which verdicts differ from what the cases expect.
#include "command.h"
#include "reward.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_LIMIT = 64 << 20 };

typedef struct Case {
    json_t *row; // the whole line; strings of the sample point into it
    char *truth; // as text where the line has a number
    char id[64];
    bool expects;
    double number;      // expected score, if state is scored
    VerdictState state; // expected
    Verdict verdict;
    RewardSample sample;
} Case;

typedef struct Cases {
    const char *path;
    Case *list;
    int count;
} Cases;

// ---- reading -------------------------------------------------------------------------------------------------------------
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
                                        "note", NULL};
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
    if (!json_is_string(completion)) return wrong(c, line, err, "completion", type_name(completion), "a text");
    s->completion = json_string_value(completion);
    s->completion_size = json_string_length(completion);
    snprintf(k->id, sizeof k->id, "line %ld", line);
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

static void cases_free(Cases *c) {
    for (int i = 0; i < c->count; i++) {
        json_decref(c->list[i].row);
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

// ---- scoring and showing -------------------------------------------------------------------------------------------------
static bool score_cases(Cases *c, const RewardSpec *spec, const RewardLimits *limits, int workers, Err *err) {
    RewardPool *pool;
    TRY(reward_pool_open(spec, 1, workers, limits, &pool, err));
    bool ok = true;
    for (int i = 0; ok && i < c->count; i++) {
        Case *k = &c->list[i];
        k->sample.id = k->id;
        ok = reward_pool_submit(pool, &k->sample, &k->verdict, err);
    }
    ok = ok && reward_pool_finish(pool, err);
    reward_pool_close(pool);
    return ok;
}

static bool passed(const Case *k) {
    if (!k->expects) return true;
    if (k->verdict.state != k->state) return false;
    if (k->state != VERDICT_SCORED || isnan(k->number)) return true;
    return fabs(k->verdict.score - k->number) <= 1e-9 * fmax(1, fabs(k->number));
}

static json_t *case_json(const Case *k) {
    const Verdict *v = &k->verdict;
    json_t *parts = json_object(), *out = json_object(), *name = json_object_get(k->row, "name");
    for (int i = 0; i < v->part_count; i++)
        json_object_set_new(parts, v->parts[i].name, json_number_or_name(v->parts[i].value));
    if (name) json_object_set(out, "name", name);
    json_object_set_new(out, "verdict", json_string(verdict_state_names[v->state]));
    json_object_set_new(out, "score", json_number_or_name(v->score));
    json_object_set_new(out, "parts", parts);
    json_object_set_new(out, "fuel", json_integer((json_int_t)v->fuel));
    json_object_set_new(out, "why", json_string(v->why));
    if (!json_object_get(out, "why")) json_object_set_new(out, "why", json_string("(not UTF-8)"));
    json_object_set_new(out, "passed", k->expects ? json_boolean(passed(k)) : json_null());
    return out;
}

static void show_case(const Case *k) {
    const Verdict *v = &k->verdict;
    const char *name = json_string_value(json_object_get(k->row, "name"));
    char score[40] = "", why[512];
    size_t n = 0;
    if (v->state == VERDICT_SCORED) snprintf(score, sizeof score, " %.6g", v->score);
    for (const char *p = v->why; *p && n + 1 < sizeof why; p++) // a terminal must not obey a script's message
        why[n++] = (unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p;
    why[n] = 0;
    printf("%-4s  %-24.60s  %s%s%s%s", !k->expects ? "-" : passed(k) ? "ok" : "FAIL", name ? name : k->id,
           verdict_state_names[v->state], score, n ? ": " : "", why);
    if (!passed(k)) {
        if (k->state == VERDICT_SCORED && !isnan(k->number))
            printf(" (expected %.6g)", k->number);
        else
            printf(" (expected %s)", verdict_state_names[k->state]);
    }
    printf("\n");
}

static bool show(const Cases *c, bool as_json, Err *err) {
    json_t *list = json_array();
    int failed = 0;
    for (int i = 0; i < c->count; i++) {
        failed += !passed(&c->list[i]);
        if (as_json)
            json_array_append_new(list, case_json(&c->list[i]));
        else
            show_case(&c->list[i]);
    }
    json_t *out = json_pack("{s:o, s:i}", "cases", list, "failed", failed);
    bool ok = !as_json || print_json(out, err);
    if (!as_json) printf("%d cases, %d failed\n", c->count, failed);
    json_decref(out);
    if (!ok) return false;
    fflush(stdout);
    return failed == 0 || fail(err, ERR_FAILED, c->path, "%d of %d cases didn't give what they expect", failed, c->count);
}

static bool run(const Args *args, Err *err) {
    if (strcmp(args->positional[0], "test") != 0)
        return fail(err, ERR_USAGE, "reward", "unknown action '%.60s', expected test", args->positional[0]);
    if (args->positional_count != 2) return fail(err, ERR_USAGE, "reward test", "found no script, expected one");
    Cases cases = {.path = args_text(args, "cases", NULL)};
    if (!cases.path) return fail(err, ERR_USAGE, "reward test", "--cases FILE.jsonl is needed");
    RewardLimits limits = reward_default_limits();
    limits.fuel = (uint64_t)args_int(args, "fuel", (int64_t)limits.fuel);
    limits.memory = (size_t)args_int(args, "memory", (int64_t)(limits.memory >> 20)) << 20;
    limits.seconds = args_number(args, "seconds", limits.seconds);
    limits.unsafe = args_flag(args, "unsafe-rewards");
    json_t *options;
    RewardSpec spec = {.script = args->positional[1], .weight = 1};
    bool ok = read_options(args_list(args, "option"), &options, err);
    spec.options = options;
    ok = ok && json_lines(cases.path, LINE_LIMIT, read_case, &cases, err) &&
         score_cases(&cases, &spec, &limits, (int)args_int(args, "workers", 1), err) &&
         show(&cases, args_flag(args, "json"), err);
    cases_free(&cases);
    json_decref(options);
    return ok;
}

static const Option options_table[] = {
    {"cases", 0, OPTION_TEXT, "FILE", "JSON Lines: a sample each, with what it should score", 0, 0},
    {"option", 0, OPTION_LIST, "NAME=VALUE", "a setting that the script sees as options.NAME", 0, 0},
    {"fuel", 0, OPTION_INT, "N", "instructions a sample may take", 1000, 1e15},
    {"memory", 0, OPTION_INT, "MIB", "memory a script may take", 1, 65536},
    {"seconds", 0, OPTION_NUMBER, "S", "CPU time a sample may take before its process is ended", 0.01, 3600},
    {"workers", 0, OPTION_INT, "N", "worker processes", 1, 256},
    {"unsafe-rewards", 0, OPTION_FLAG, NULL, "run where the system has no seccomp", 0, 0},
    {"json", 0, OPTION_FLAG, NULL, "print one JSON document", 0, 0},
    OPTION_END,
};

const Command command_reward = {
    .name = "reward",
    .summary = "try a reward script on cases with expectations",
    .usage = "test SCRIPT --cases FILE.jsonl [options]",
    .detail = "SCRIPT is a path ending in .lua or the name of a shipped reward (correct, format, length). A case is an\n"
              "object with `completion` and, where the script needs them, truth, row, prompt, messages, mode (think,\n"
              "direct), finish (stop, length), tokens, think_tokens, answer_tokens, step, seed, group; `expect` is a\n"
              "score or one of scored, abstained, error, budget, killed. Exit code 1 if an expectation isn't met.",
    .example = "reckon reward test correct --cases cases.jsonl\n"
               "      where a line is {\"completion\": \"<think>6*7</think>42\", \"truth\": \"42\", \"expect\": 1}",
    .positional_min = 1,
    .positional_max = 2,
    .options = options_table,
    .run = run,
};
