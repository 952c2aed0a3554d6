// Tasks in Lua: each that comes with reckon makes problems whose truth its own check accepts and whose wrong answer it doesn't; a
// problem is a function of (script, options, level, seed); what is held out is never trained on; errors of scripts. The checks
// agree with reasoning-gym's on recorded answers (0.1.25; score 1 or not), but for those that tests/data names with the reason.
#include "../test.h"
#include "files.h"
#include "rl.h"
#include "../../rewards/score.h"
#include "../../rl/task_script.h"
#include <unistd.h>

static Verdict judge(const ScoreScripts *scripts, const Item *item, const char *answer) {
    Verdict v;
    RewardSample s = {.id = "test", .prompt = item->prompt, .completion = answer, .completion_size = strlen(answer), .truth = item->truth,
                      .row = item->row, .finish = "stop", .mode = "direct", .task = item->kind};
    scripts_score(scripts, &s, 1, &v, NULL, NULL);
    if (v.state != VERDICT_SCORED) FAIL("%s: '%s': %s", item->kind, answer, v.why);
    return v;
}
static void open_scripts(const char *script, const json_t *options, ScoreScripts *out) {
    Err err = {0};
    RewardLimits limits = reward_default_limits();
    OK(scripts_open(&(RewardSpec){.script = script, .weight = 1, .options = options}, 1, &limits, out, &err));
}

static void check_levels(const char *name, const json_t *options) {
    enum { ITEMS = 40 };
    Err err = {0};
    TaskScript *t;
    ScoreScripts scripts;
    OK(task_script_open(name, options, &t, &err));
    const TaskAbout *about = task_script_about(t);
    open_scripts(about->scores ? name : "correct", options, &scripts);
    CHECK(about->levels >= 3 && about->about[0]);
    for (int level = 1; level <= about->levels; level++)
        for (uint64_t seed = 0; seed < ITEMS; seed++) {
            Arena arena = {0};
            Item a, b;
            const char *identity, *again;
            OK(task_script_draw(t, level, seed * 7919, &arena, &a, &identity, &err));
            OK(task_script_draw(t, level, seed * 7919, &arena, &b, &again, &err));
            CHECK_STR(a.prompt, b.prompt);
            CHECK_STR(identity, again);
            CHECK(json_equal(a.row, b.row) && a.hash == b.hash && a.demonstration && a.wrong);
            if (judge(&scripts, &a, a.truth).score != 1) FAIL("%s, level %d: the truth '%s' doesn't score", name, level, a.truth);
            if (judge(&scripts, &a, a.wrong).score != 0) FAIL("%s, level %d: '%s' scores, the truth is '%s'", name, level, a.wrong, a.truth);
            CHECK(judge(&scripts, &a, "").score == 0);
            arena_reset(&arena);
        }
    scripts_close(&scripts);
    task_script_close(t);
}
static void shipped_tasks(void) {
    char name[64];
    int count = 0;
    for (; task_script_shipped(count, name); count++) check_levels(name, NULL);
    CHECK(count >= 14);
    static const char *const languages[] = {"ko", "ja", "vi"};
    for (int i = 0; i < COUNT(languages); i++) {
        json_t *options = json_pack("{s:s}", "language", languages[i]);
        check_levels("word_problems", options);
        json_decref(options);
    }
}

// ---- beside reasoning-gym --------------------------------------------------------------------------------
typedef struct Recorded {
    int cases, differ;
} Recorded;
static bool recorded_case(void *context, json_t *row, long line, Err *err) {
    Recorded *r = context;
    ScoreScripts scripts;
    open_scripts(json_string_value(json_object_get(row, "reward")), NULL, &scripts);
    Item item = {.kind = "recorded", .prompt = "", .truth = (char *)(uintptr_t)json_string_value(json_object_get(row, "truth")),
                 .row = json_object_get(row, "row")};
    bool ours = judge(&scripts, &item, json_string_value(json_object_get(row, "completion"))).score == 1;
    bool theirs = json_number_value(json_object_get(row, "score")) == 1, differs = json_object_get(row, "differs") != NULL;
    scripts_close(&scripts);
    r->cases++, r->differ += differs;
    return (ours == theirs) != differs ||
           fail(err, ERR_FAILED, "", "line %ld, %s: ours %d, theirs %d", line, json_string_value(json_object_get(row, "name")), ours, theirs);
}
static void beside_reasoning_gym(void) {
    Err err = {0};
    Recorded r = {0};
    char *path = xasprintf("%s/rl/tasks_recorded.jsonl", TEST_DATA);
    if (!json_lines(path, 1 << 20, recorded_case, &r, &err)) FAIL("%s", err.msg);
    CHECK_INT(r.cases, 440);
    CHECK_INT(r.differ, 69);
    free(path);
}

// ---- in a recipe -----------------------------------------------------------------------------------------
static char *written(const char *name, const char *text) {
    Err err = {0};
    char *path = xasprintf("/tmp/reckon-task-%d-%s", (int)getpid(), name);
    OK(file_write_atomic(path, text, strlen(text), &err));
    return path;
}

#define RECIPE(tasks)                                                                                        \
    "return {model={preset='mini'}, characters='0123456789', tasks={" tasks "}, rewards={{'task', weight=2}, {'format'}}, "           \
    "held_out=0.3, stages={sft{steps=1}}}"
static void in_a_recipe(void) {
    Err err = {0};
    Recipe *r;
    Tasks *t;
    char *path = written("recipe.lua", RECIPE("{'gcd', levels={1,2}}, {'word_problems', language='vi'}, {'countdown'}, {'arithmetic', levels={1}}"));
    OK(recipe_read(path, NULL, &r, &err));
    CHECK_INT(r->reward_count, 5);
    CHECK_STR(r->rewards[0].script, "correct");
    CHECK_STR(r->rewards[0].task, "gcd");
    CHECK(r->rewards[0].weight == 2);
    CHECK_STR(r->rewards[2].script, "countdown");
    CHECK_STR(r->rewards[4].script, "format");
    CHECK(!r->rewards[4].task);
    CHECK_INT(r->tasks[1].level_count, 4);
    OK(tasks_open(r, &t, &err));
    CHECK_INT(tasks_level_count(t), 2 + 4 + 3 + 1);
    Arena arena = {0};
    Item held[60];
    int found;
    OK(tasks_held_out(t, 0, 60, &arena, held, &found, &err));
    CHECK(found >= 50);
    int seen = 0;
    for (uint64_t i = 0; i < 600; i++) {
        Item item;
        OK(tasks_train_item(t, NULL, i, &arena, &item, &err));
        if (strcmp(item.kind, "gcd") != 0) continue;
        seen++;
        for (int k = 0; k < found; k++) CHECK(item.hash != held[k].hash);
    }
    CHECK(seen > 80);
    arena_reset(&arena);
    tasks_close(t);
    recipe_free(r);
    unlink(path);
    free(path);
}

static void bad_scripts(void) {
    static const struct {
        const char *script, *expected;
    } cases[] = {
        {"return 1", "the script returned number, expected a table with about, levels and generate"},
        {"return {levels=1, generate=print}", "about is nil, expected a text"},
        {"return {about='x', levels=0, generate=print}", "levels is 0, expected an integer from 1 to 100"},
        {"return {about='x', levels=2}", "generate is nil, expected a function"},
        {"return {about='x', levels=1, generate=print, score=1}", "score is number, expected a function"},
        {"return {about='x',\n levels=1, generate=function() return nil .. 'x' end}", "2: attempt to concatenate a nil value"},
        {"return {about='x', levels=1, generate=function() return {truth=1} end}", "generate gave prompt = nil, expected a text"},
        {"return {about='x', levels=1, generate=function() return {prompt='a\\0b', truth=1} end}", "a prompt that isn't UTF-8 text"},
        {"return {about='x', levels=1, generate=function() return {prompt='a', truth='\\xff'} end}", "a truth that isn't UTF-8 text"},
        {"return {about='x', levels=1, generate=function() return {prompt='a', truth=1, row=3} end}", "generate gave row = number"},
        {"return {about='x', levels=1, generate=function() return {prompt='a', truth=1, row={f=print}} end}", "row: "},
        {"return {about='x', levels=1, generate=function() while true do end end}", "out of fuel"},
        {"return {about='x', levels=1, generate=function() return 5 end}", "generate returned number, expected a table"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        TaskScript *t = NULL;
        Arena arena = {0};
        Item item;
        const char *identity;
        char *path = written("bad.lua", cases[i].script);
        bool ok = task_script_open(path, NULL, &t, &err) && task_script_draw(t, 1, 0, &arena, &item, &identity, &err);
        CHECK(!ok);
        CHECK_INT(err.code, ERR_DATA);
        if (!strstr(err.msg, cases[i].expected)) FAIL("got '%s: %s', expected '%s'", err.where, err.msg, cases[i].expected);
        task_script_close(t);
        arena_reset(&arena);
        unlink(path);
        free(path);
    }
    Err err = {0};
    Recipe *r;
    char *path = written("recipe.lua", RECIPE("{'gcd', levels={9}}"));
    CHECK(!recipe_read(path, NULL, &r, &err) && strstr(err.msg, "found 9, expected levels from 1 to 4"));
    unlink(path);
    free(path);
    path = written("recipe.lua", RECIPE("{'gdc'}"));
    CHECK(!recipe_read(path, NULL, &r, &err) && strstr(err.msg, "did you mean 'gcd'?"));
    unlink(path);
    free(path);
}

static const Test tests[] = {
    {"shipped tasks", shipped_tasks}, {"beside reasoning-gym", beside_reasoning_gym}, {"in a recipe", in_a_recipe}, {"bad scripts", bad_scripts}};
TEST_MAIN(tests)
