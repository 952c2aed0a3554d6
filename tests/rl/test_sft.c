// Supervised stages: validation loss against what the model itself says of the examples, the same at any microbatch; prompts that
// are learned too; examples that are too long.
#include "train_test.h"

#define COMMON                                                                                               \
    "model={preset='mini', max_positions=64}, characters='0123456789+*=,', tasks={{'arithmetic', levels={1,2}}}, threads=1, evaluate={items=0}, "
static const char rows[] = "{\"prompt\":\"12+3=\",\"completion\":\"15\",\"mode\":\"direct\"}\n"
                           "{\"prompt\":\"2+30=\",\"completion\":\"32\",\"mode\":\"direct\"}\n"
                           "{\"prompt\":\"1234567+30=\",\"completion\":\"1234597\",\"mode\":\"direct\"}\n";

static char *recipe_with(const char *keys) {
    return xasprintf("return {" COMMON "stages={sft{steps=6, batch=8, evaluate_every=3, modes={direct=1}, %s optimizer={learning_rate=3e-3}}}}", keys);
}
static TrainedRun run_with(const char *keys, const char *const *sets, int64_t last) {
    char *recipe = recipe_with(keys);
    scratch_file("rows.jsonl", rows);
    TrainedRun run = train_run("run", recipe, sets, last);
    free(recipe);
    return run;
}
static double validation(const TrainedRun *run, const char *key, int step) {
    char sql[200];
    snprintf(sql, sizeof sql, "SELECT json_extract(replayable, '$.%s') FROM evaluations WHERE name = 'validation' AND step = %d", key, step);
    return ask(run, sql);
}

static void validation_falls(void) {
    TrainedRun run = run_with("validation_items=20, validation={'rows.jsonl'},", NULL, 6);
    TRAINED(run);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM evaluations WHERE name = 'validation'"), 2);
    CHECK_INT((int)validation(&run, "examples", 6), 43);
    CHECK(validation(&run, "loss", 6) < validation(&run, "loss", 3) && validation(&run, "loss", 6) > 0);
    CHECK_NEAR(validation(&run, "perplexity", 6), exp(validation(&run, "loss", 6)), 1e-9);
    char head[65];
    memcpy(head, run.head, sizeof head);
    static const char *const sets[16] = {"microbatch_tokens=30", "threads=2"};
    run = run_with("validation_items=20, validation={'rows.jsonl'},", sets, 6);
    TRAINED(run);
    CHECK_STR(run.head, head);
}

// With prompts learned the targets are all tokens but the first of each example: more of them, another loss.
static void prompts_are_learned(void) {
    TrainedRun run = run_with("data={'rows.jsonl'}, validation={'rows.jsonl'},", NULL, 6);
    TRAINED(run);
    CHECK_INT((int)validation(&run, "tokens", 6), 3 + 3 + 8); // with the end of each
    double completions = ask(&run, "SELECT trained_tokens FROM steps WHERE step = 1"), prompts = ask(&run, "SELECT prompt_tokens FROM steps WHERE step = 1");
    run = run_with("data={'rows.jsonl'}, validation={'rows.jsonl'}, learn_prompts=true,", NULL, 6);
    TRAINED(run);
    CHECK_INT((int)ask(&run, "SELECT trained_tokens FROM steps WHERE step = 1"), (int)(completions + prompts) - 8);
    CHECK_INT((int)ask(&run, "SELECT prompt_tokens FROM steps WHERE step = 1"), 8);
}

static void too_long(void) {
    TrainedRun run = run_with("data={'rows.jsonl'}, max_length=20,", NULL, -1); // 11 characters, two marks of thinking and 8 tokens
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_DATA);
    if (!strstr(run.err.msg, "max_length allows 20")) FAIL("message: %s", run.err.msg);
    run = run_with("data={'rows.jsonl'}, validation={'rows.jsonl'}, max_length=17, too_long='cut',", NULL, 6);
    TRAINED(run);
    double tokens = validation(&run, "tokens", 6);
    CHECK(tokens >= 3 + 3 + 1 && tokens < 3 + 3 + 8);
    run = run_with("data={'rows.jsonl'}, max_length=4, too_long='cut',", NULL, -1);
    CHECK(!run.ok);
    if (!strstr(run.err.msg, "leaves nothing to learn")) FAIL("message: %s", run.err.msg);
    run = run_with("validation={'nowhere.jsonl'},", NULL, -1);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_NOINPUT);
    scratch_remove();
}

static const Test tests[] = {
    {"validation falls", validation_falls},
    {"prompts are learned", prompts_are_learned},
    {"too long", too_long},
};
TEST_MAIN(tests)
