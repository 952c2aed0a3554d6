// Curricula: levels open when they are passed, solved and hopeless ones are asked less, draws follow the shares, the state goes through
// a checkpoint; a run with one, resumed, ends with the same bits, and its ledger tells the shares.
#include "curriculum.h"
#include "train_test.h"
#include <math.h>

static Recipe *recipe_of(const char *curriculum) {
    Recipe *r;
    Err err = {0};
    char *text = xasprintf("return {model={preset='mini', max_positions=64}, characters='0123456789+=,*', tasks={{'arithmetic', levels={1,2,3,5}}},\n"
                           " stages={grpo{steps=20, sampling={max_tokens=20}, levels={1,3,5}, curriculum={%s}}}}", curriculum);
    scratch_file("recipe.lua", text);
    char *path = path_join(scratch_folder(), "recipe.lua");
    bool ok = recipe_read(path, NULL, &r, &err);
    free(text), free(path);
    OK(ok);
    return r;
}
// A step of 100 samples a level that is asked, of which the given percentages pass.
static void step(Curriculum *c, int first, int third, int fifth) {
    LevelCount *rows = xcalloc(3, sizeof *rows);
    int passed[] = {first, third, fifth}, levels[] = {1, 3, 5};
    LevelCounts counts = {.rows = rows};
    for (int i = 0; i < 3; i++)
        if (passed[i] >= 0) rows[counts.count++] = (LevelCount){.kind = "arithmetic", .level = levels[i], .prompts = 10, .samples = 100, .passed = passed[i], .share = NAN};
    curriculum_step(c, &counts);
    double sum = 0;
    CHECK_INT(counts.count, 3);
    for (int i = 0; i < 3; i++) sum += counts.rows[i].share;
    CHECK_NEAR(sum, 1, 1e-12);
    level_counts_free(&counts);
}
static void shares_are(const Curriculum *c, double first, double third, double fifth) {
    const double *s = curriculum_shares(c);
    CHECK_NEAR(s[0], first, 1e-12);
    CHECK_NEAR(s[1], 0, 0); // level 2 is not the stage's
    CHECK_NEAR(s[2], third, 1e-12);
    CHECK_NEAR(s[3], fifth, 1e-12);
}

static void levels_open(void) {
    Recipe *r = recipe_of("by='level', threshold=0.7, window=3");
    Tasks *t;
    Curriculum *c, *again;
    Err err = {0};
    OK(tasks_open(r, &t, &err));
    OK(curriculum_open(t, &r->stages[0], NULL, &c, &err));
    shares_are(c, 1, 0, 0);
    step(c, 90, -1, -1), step(c, 90, -1, -1);
    shares_are(c, 1, 0, 0); // not yet a window
    step(c, 20, -1, -1);
    shares_are(c, 1, 0, 0); // 200 of 300
    step(c, 90, -1, -1);
    shares_are(c, 1, 0, 0);
    step(c, 100, -1, -1); // 210 of 300 is the threshold itself
    shares_are(c, 1, 0, 0);
    json_t *state = curriculum_state(c);
    OK(curriculum_open(t, &r->stages[0], state, &again, &err));
    json_decref(state);
    step(c, 100, -1, -1), step(again, 100, -1, -1);
    shares_are(c, 0.5, 0.5, 0), shares_are(again, 0.5, 0.5, 0);
    for (int i = 0; i < 3; i++) step(c, 100, 20, -1);
    shares_are(c, 0.5, 0.5, 0);
    for (int i = 0; i < 3; i++) step(c, 100, 60, -1);
    shares_are(c, 1.0 / 3, 1.0 / 3, 1.0 / 3);
    for (int i = 0; i < 5; i++) step(c, 100, 100, 100);
    shares_are(c, 1.0 / 3, 1.0 / 3, 1.0 / 3); // none is left to open
    curriculum_close(c), curriculum_close(again);
    CHECK(curriculum_shares(NULL) == NULL && curriculum_state(NULL) == NULL);
    json_t *bad = json_pack("{s:i,s:[]}", "steps", 3, "levels");
    CHECK(!curriculum_open(t, &r->stages[0], bad, &c, &err) && err.code == ERR_DATA);
    json_decref(bad);
    tasks_close(t), recipe_free(r);
    scratch_remove();
}

static void pass_rates_weigh(void) {
    Recipe *r = recipe_of("by='pass_rate', floor=0.1, window=2");
    Tasks *t;
    Curriculum *c;
    Err err = {0};
    OK(tasks_open(r, &t, &err));
    OK(curriculum_open(t, &r->stages[0], NULL, &c, &err));
    shares_are(c, 1.0 / 3, 1.0 / 3, 1.0 / 3);
    step(c, 100, 50, 0);
    shares_are(c, 0.1 / 1.2, 1 / 1.2, 0.1 / 1.2);
    step(c, -1, 50, 50);
    double fifth = 0.1 + 0.9 * 4 * 0.25 * 0.75;
    shares_are(c, 0.1 / (1.1 + fifth), 1 / (1.1 + fifth), fifth / (1.1 + fifth));
    step(c, -1, 50, 50); // level 1 was not asked in the window: unknown
    shares_are(c, 1.0 / 3, 1.0 / 3, 1.0 / 3);
    // Draws follow the shares, and are the same each time.
    double shares[4] = {0.2, 0, 0.7, 0.1};
    int drawn[6] = {0};
    for (uint64_t i = 0; i < 1000; i++) {
        Arena arena = {0};
        Item item, twice;
        OK(tasks_train_item_of(t, &r->stages[0], shares, i, &arena, &item, &err));
        OK(tasks_train_item_of(t, &r->stages[0], shares, i, &arena, &twice, &err));
        CHECK_STR(item.prompt, twice.prompt);
        drawn[item.level]++;
        arena_reset(&arena);
    }
    CHECK(abs(drawn[1] - 200) < 50 && drawn[2] == 0 && abs(drawn[3] - 700) < 60 && abs(drawn[5] - 100) < 40);
    curriculum_close(c), tasks_close(t), recipe_free(r);
    scratch_remove();
}

// ---- in a run ------------------------------------------------------------------------------------------------
static const char recipe[] =
    "return {seed=3, model={preset='mini', max_positions=64}, characters='0123456789=', threads=1, compare={items=0}, evaluate={items=0},\n"
    " tasks={{'jsonl', file='data.jsonl'}}, rewards={{'right.lua'}}, keep_checkpoints=9,\n"
    " stages={ sft{steps=40, batch=32, modes={direct=1}, optimizer={learning_rate=3e-3, warmup=5}},\n"
    "  grpo{steps=8, prompts=8, group_size=4, modes={direct=1}, sampling={max_tokens=3}, checkpoint_every=3,\n"
    "   curriculum={by='BY', threshold=0.02, window=2}, optimizer={learning_rate=1e-3}} } }";
static void runs_resume(void) {
    Buf rows = {0};
    for (int i = 0; i < 600; i++) buf_printf(&rows, "{\"prompt\":\"%03d=\",\"answer\":\"%d\",\"level\":%d}\n", i, i % (i < 300 ? 10 : 5), i < 300 ? 1 : 2);
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    scratch_file("right.lua", "return function(s) return s.answer == s.truth and 1 or 0 end");
    static const char *const kinds[] = {"level", "pass_rate"};
    for (int k = 0; k < 2; k++) {
        Buf text = {0};
        const char *at = strstr(recipe, "BY");
        buf_append(&text, recipe, (size_t)(at - recipe)), buf_puts(&text, kinds[k]), buf_puts(&text, at + 2);
        TrainedRun whole = train_run("whole", text.data, NULL, 48), cut = train_run("cut", text.data, NULL, 48);
        TRAINED(whole);
        TRAINED(cut);
        CHECK_STR(cut.head, whole.head);
        // Back to the checkpoint in the middle of the stage, as after a kill.
        for (int step = 46; step <= 48; step++) {
            Err err = {0};
            char *folder = xasprintf("%s/checkpoints/step-%d", cut.folder, step);
            OK(folder_remove(folder, &err));
            free(folder);
        }
        cut = train_from(true, "cut", text.data, NULL, 48);
        TRAINED(cut);
        CHECK_STR(cut.head, whole.head);
        CHECK_STR(cut.weights, whole.weights);
        CHECK(ask(&whole, "SELECT count(*) FROM (SELECT step FROM step_levels GROUP BY step HAVING abs(sum(share) - 1) < 1e-12)") == 8);
        CHECK(ask(&whole, "SELECT count(*) FROM step_levels l WHERE share = 0 AND prompts > 0") == 0);
        if (k == 0) {
            CHECK(ask(&whole, "SELECT share FROM step_levels WHERE step = 41 AND level = 2") == 0);
            CHECK(ask(&whole, "SELECT max(share) FROM step_levels WHERE level = 2") > 0);
        } else CHECK(ask(&whole, "SELECT count(DISTINCT share) FROM step_levels WHERE level = 1") > 3);
        buf_free(&text);
    }
    scratch_remove();
}

static const Test tests[] = {{"levels open", levels_open}, {"pass rates weigh", pass_rates_weigh}, {"runs resume", runs_resume}};
TEST_MAIN(tests)
