// `reckon reward`: the actions, and `test`, which runs a reward script on cases from a file, through the same worker
// processes as training, and says which verdicts differ from what the cases expect; with --watch whenever one of the
// two files changes.
#include "reward_command.h"
#include "embedded.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- scoring and showing -------------------------------------------------------------------------------------------------
// Plays the case's episode; its result is scored with the sample.
static bool play_case(RewardPool *pool, Case *k, Err *err) {
    RewardSample *s = &k->sample;
    EnvironmentCall about = {.id = k->id, .row = s->row, .prompt = s->prompt, .truth = s->truth, .mode = s->mode, .seed = s->seed};
    TRY(episode_play(pool, &about, json_is_array(k->actions) ? k->actions : NULL, &k->said, &k->episode, err));
    s->environment = &k->episode;
    return true;
}

static bool score_cases(Cases *c, const RewardSpec *spec, const RewardLimits *limits, int workers, Err *err) {
    RewardPool *pool;
    TRY(reward_pool_open(spec, 1, workers, limits, &pool, err));
    bool ok = true;
    double start = clock_seconds();
    for (int i = 0; ok && i < c->count; i++) { // with one worker one by one, to time them; with more all at once
        Case *k = &c->list[i];
        bool begins = i == 0 || c->list[i - 1].sample.group != k->sample.group, ends = i + 1 == c->count || c->list[i + 1].sample.group != k->sample.group;
        k->sample.id = k->id;
        k->seconds = NAN;
        if (begins) start = clock_seconds();
        if (k->actions) ok = play_case(pool, k, err);
        else if (reward_pool_environment(pool))
            ok = fail(err, ERR_DATA, c->path, "%s: the script is an environment, its cases need 'actions'", k->id);
        ok = ok && reward_pool_submit(pool, &k->sample, &k->verdict, err) && (workers > 1 || !ends || reward_pool_finish(pool, err));
        if (workers == 1 && begins && ends) k->seconds = clock_seconds() - start;
    }
    ok = ok && reward_pool_finish(pool, err);
    reward_pool_close(pool);
    return ok;
}

static bool says_as_expected(const Case *k) {
    const json_t *says = json_object_get(k->row, "says");
    return !says || json_equal(says, k->said);
}

static bool passed(const Case *k) {
    if (!says_as_expected(k)) return false;
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
    if (k->said) json_object_set(out, "said", k->said);
    json_object_set_new(out, "verdict", json_string(verdict_state_names[v->state]));
    json_object_set_new(out, "score", json_number_or_name(v->score));
    json_object_set_new(out, "parts", parts);
    json_object_set_new(out, "fuel", json_integer((json_int_t)v->fuel));
    json_object_set_new(out, "seconds", json_number_or_name(k->seconds));
    json_object_set_new(out, "why", json_string(v->why));
    if (!json_object_get(out, "why")) json_object_set_new(out, "why", json_string("(not UTF-8)"));
    json_object_set_new(out, "passed", k->expects || !passed(k) ? json_boolean(passed(k)) : json_null());
    return out;
}

static void show_case(const Case *k) {
    const Verdict *v = &k->verdict;
    const char *name = json_string_value(json_object_get(k->row, "name"));
    char score[40] = "", why[512];
    if (v->state == VERDICT_SCORED) snprintf(score, sizeof score, " %.6g", v->score);
    visible(v->why, why, sizeof why);
    printf("%-4s  %-24.60s  %s%s%s%s", !passed(k) ? "FAIL" : k->expects ? "ok" : "-", name ? name : k->id,
           verdict_state_names[v->state], score, why[0] ? ": " : "", why);
    if (!says_as_expected(k)) {
        Buf said = {0};
        json_write(k->said, &said);
        visible(said.data, why, sizeof why);
        printf(" (it said %s)", why);
        buf_free(&said);
    } else if (!passed(k)) {
        if (k->state == VERDICT_SCORED && !isnan(k->number))
            printf(" (expected %.6g)", k->number);
        else
            printf(" (expected %s)", verdict_state_names[k->state]);
    }
    printf("\n");
    printf("      %-24s  fuel %llu", "", (unsigned long long)v->fuel);
    if (!isnan(k->seconds)) printf(", %.2f ms", 1e3 * k->seconds);
    for (int i = 0; i < v->part_count; i++) printf("%s%s %.6g", i ? ", " : "; ", visible(v->parts[i].name, why, sizeof why), v->parts[i].value);
    printf("%s\n", v->not_replayable ? "; decided by a clock: not replayable" : "");
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

static bool test_once(const Args *args, Err *err) {
    Cases cases = {0};
    RewardLimits limits;
    RewardSpec spec;
    json_t *options;
    const char *path = args_text(args, "cases", NULL);
    if (!path) return fail(err, ERR_USAGE, "reward test", "--cases FILE.jsonl is needed");
    bool ok = reward_arguments(args, &spec, &limits, &options, err) && cases_read(path, &cases, err) &&
              score_cases(&cases, &spec, &limits, (int)args_int(args, "workers", 1), err) && show(&cases, args_flag(args, "json"), err);
    cases_free(&cases);
    json_decref(options);
    return ok;
}

static int64_t changed_at(const char *path) { // nanoseconds; 0 if it isn't there, as while an editor writes it
    struct stat s;
    return stat(path, &s) == 0 ? (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec : 0;
}
static bool reward_test(const Args *args, Err *err) {
    if (!args_flag(args, "watch")) return test_once(args, err);
    const char *script = args->positional_count == 2 ? args->positional[1] : "", *cases = args_text(args, "cases", "");
    for (;;) {
        int64_t script_time = changed_at(script), cases_time = changed_at(cases);
        Err result = {0};
        if (!test_once(args, &result)) {
            if (result.code == ERR_USAGE) return fail(err, result.code, result.where, "%s", result.msg);
            if (result.code != ERR_FAILED) err_print(&result);
        }
        while (changed_at(script) == script_time && changed_at(cases) == cases_time) usleep(200000);
    }
}

static bool reward_docs(const Args *args, Err *err) {
    (void)args;
    for (const EmbeddedFile *f = embedded_files; f->name; f++)
        if (strcmp(f->name, "rewards.md") == 0)
            return (fwrite(f->data, 1, f->size, stdout) == f->size && fflush(stdout) == 0) || fail(err, ERR_IO, "stdout", "can't write");
    return fail(err, ERR_SOFTWARE, "reward docs", "the page isn't part of this build");
}

static const struct {
    const char *name;
    bool (*run)(const Args *args, Err *err);
} actions[] = {{"test", reward_test}, {"probe", reward_probe}, {"bench", reward_bench}, {"new", reward_new}, {"docs", reward_docs}};

static bool run(const Args *args, Err *err) {
    for (int i = 0; i < COUNT(actions); i++)
        if (strcmp(args->positional[0], actions[i].name) == 0) return actions[i].run(args, err);
    return fail(err, ERR_USAGE, "reward", "unknown action '%.60s', expected test, probe, bench, new or docs", args->positional[0]);
}

static const Option options_table[] = {
    {"cases", 0, OPTION_TEXT, "FILE", "JSON Lines: a sample each, with what it should score", 0, 0},
    {"data", 0, OPTION_TEXT, "FILE", "probe: JSON Lines with prompt and answer (or truth)", 0, 0},
    {"share", 0, OPTION_NUMBER, "X", "probe: junk may score up to this share of a right answer (0.5)", 0, 1},
    {"limit", 0, OPTION_INT, "N", "probe: rows to try (20)", 1, 100000},
    {"duration", 0, OPTION_NUMBER, "S", "bench: how long to measure (2)", 0.05, 600},
    {"watch", 0, OPTION_FLAG, NULL, "test: again whenever the script or the cases change", 0, 0},
    {"option", 0, OPTION_LIST, "NAME=VALUE", "a setting that the script sees as options.NAME", 0, 0},
    {"allow", 0, OPTION_LIST, "WHAT", "program.python or program.c: the script may run such programs in bubblewrap", 0, 0},
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
    .summary = "write, test, probe and time reward scripts",
    .usage = "test|bench SCRIPT --cases FILE | probe SCRIPT --data FILE | new NAME | docs",
    .detail = "test   says which cases don't get what they expect; exit code 1 if any\n"
              "probe  finds what a reward lets through: empty answers, every number listed, the truth in the thinking\n"
              "       only and more; exit code 1 if such junk scores above a share of a right answer\n"
              "bench  scores a second, percentiles of fuel and time, the slowest cases\n"
              "new    writes NAME.lua and NAME.jsonl to start from\n"
              "docs   prints what scripts see and may call\n"
              "SCRIPT is a path ending in .lua or the name of a shipped reward, such as correct. A case is an\n"
              "object with `completion` and, where the script needs them, truth, row, prompt, messages, mode (think,\n"
              "direct), finish (stop, length), tokens, think_tokens, answer_tokens, step, seed, group; `expect` is a\n"
              "score or one of scored, abstained, error, budget, killed. For an environment a case has `actions` instead of\n"
              "`completion`: what the model writes in each turn, or \"demonstrate\"; `says` lists what it must say to them.",
    .example = "reckon reward test correct --cases cases.jsonl\n"
               "      where a line is {\"completion\": \"<think>6*7</think>42\", \"truth\": \"42\", \"expect\": 1}",
    .positional_min = 1,
    .positional_max = 2,
    .options = options_table,
    .run = run,
};
