// The stage that learns from a teacher's distributions: what stands on the ledger, the same bits from every checkpoint and with
// any microbatch and threads, that it comes nearer to its teacher, and teachers and recipes that are refused.
#include "accounts.h"
#include "train_test.h"

#define COMMON "tasks={{'arithmetic', levels={1}}}, evaluate={items=0}, keep_checkpoints=100, "
#define MODEL "model={preset='mini', max_positions=64}, characters='0123456789+*=,', threads=1, "
static const char teacher_recipe[] = "return {" MODEL COMMON "stages={sft{steps=30, batch=8, modes={think=1}, optimizer={learning_rate=3e-3}}}}";

// Trained once, for all tests of this file.
static const char *teacher(void) {
    static char folder[96];
    if (folder[0]) return folder;
    TrainedRun run = train_run("teacher", teacher_recipe, NULL, 30);
    TRAINED(run);
    memcpy(folder, run.folder, sizeof folder);
    return folder;
}

#define STUDENT                                                                                              \
    "return {model={layers=1, width=32, heads=2, kv_heads=1, feed_forward=48, max_positions=64}, characters='0123456789+*=,', threads=1, " COMMON \
    "stages={distill{teacher='%s', steps=%d, prompts=6, group_size=2, on_policy=%s, off_policy='%s', beta=%s, temperature=0.9, "    \
    "modes={think=0.5, direct=0.5}, checkpoint_every=1, sampling={max_tokens=16}, optimizer={learning_rate=1e-2}}}}"
static char *student(int steps, const char *on_policy, const char *off_policy, const char *beta) {
    return xasprintf(STUDENT, teacher(), steps, on_policy, off_policy, beta);
}

// Steps of both kinds; a step of examples has no samples.
static void both_kinds_of_steps(void) {
    char *recipe = student(8, "0.5", "examples", "0.5");
    TrainedRun run = train_run("run", recipe, NULL, 8);
    free(recipe);
    TRAINED(run);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM steps WHERE kind = 'distill' AND loss > 0 AND kl IS NULL AND trained_tokens > 0 AND flops > 0"), 8);
    int sampled = (int)ask(&run, "SELECT count(DISTINCT step) FROM samples");
    CHECK(sampled > 0 && sampled < 8);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM samples"), sampled * 12);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM steps WHERE reward_mean IS NULL"), 8 - sampled);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM run WHERE length(json_extract(replayable, '$.teachers')) = 64"), 1);
    json_t *audit;
    Err err = {0};
    OK(audit_run(run.folder, &audit, &err));
    json_decref(audit);
}

static void remove_checkpoints(const TrainedRun *run, int64_t after, int64_t last) {
    Err err = {0};
    for (int64_t step = last; step > after; step--) {
        char *path = xasprintf("%s/checkpoints/step-%lld", run->folder, (long long)step);
        bool ok = folder_remove(path, &err);
        free(path);
        OK(ok);
    }
}
static void same_bits(const TrainedRun *got, const TrainedRun *want, const char *what) {
    if (strcmp(got->weights, want->weights) || strcmp(got->head, want->head))
        FAIL("%s: weights %.16s head %.16s, expected %.16s and %.16s", what, got->weights, got->head, want->weights, want->head);
}
static void from_every_checkpoint(void) {
    char *recipe = student(4, "0.5", "teacher", "1");
    TrainedRun whole = train_run("run", recipe, NULL, 4);
    TRAINED(whole);
    for (int64_t from = 3; from >= 0; from--) {
        remove_checkpoints(&whole, from, 4);
        TrainedRun again = train_from(true, "run", recipe, NULL, 4);
        TRAINED(again);
        same_bits(&again, &whole, "resumed");
    }
    static const char *const splits[][16] = {{"microbatch_tokens=40"}, {"threads=2", "microbatch_tokens=1"}};
    for (int i = 0; i < COUNT(splits); i++) {
        TrainedRun again = train_run("again", recipe, splits[i], 4);
        TRAINED(again);
        same_bits(&again, &whole, splits[i][0]);
    }
    free(recipe);
}

static void comes_nearer(void) {
    static const char *const betas[] = {"0", "1", "0.1"};
    for (int i = 0; i < COUNT(betas); i++) {
        char *recipe = student(24, "0", "examples", betas[i]);
        TrainedRun run = train_run("run", recipe, NULL, 24);
        free(recipe);
        TRAINED(run);
        double first = ask(&run, "SELECT avg(loss) FROM steps WHERE step <= 4"), last = ask(&run, "SELECT avg(loss) FROM steps WHERE step > 20");
        if (!(last < 0.8 * first)) FAIL("beta %s: divergence %g at first, %g in the end", betas[i], first, last);
    }
}

static void another_teacher_is_refused(void) {
    char *recipe = student(2, "1", "examples", "0");
    TrainedRun run = train_run("run", recipe, NULL, 2);
    TRAINED(run);
    remove_checkpoints(&run, 1, 2);
    char *weights = xasprintf("%s/checkpoints/step-30", teacher());
    Err err = {0};
    OK(folder_remove(weights, &err)); // now the run's newest checkpoint is the one of step 0
    free(weights);
    TrainedRun again = train_from(true, "run", recipe, NULL, -1);
    free(recipe);
    CHECK(!again.ok);
    if (!strstr(again.err.msg, "teachers")) FAIL("message: %s", again.err.msg);
    TrainedRun made = train_run("teacher", teacher_recipe, NULL, 30);
    TRAINED(made);
}

static void refusals(void) {
    static const struct {
        const char *from, *to; // of the recipe's text
        int code;
        const char *says;
    } cases[] = {
        {"characters='0123456789+*=,'", "characters='0123456789+*=,-'", ERR_DATA, "tokens"},
        {"characters='0123456789+*=,'", "characters='0123456789+*=-'", ERR_DATA, "expected the same tokenizer"},
        {"teacher='", "teacher='/nowhere", ERR_NOINPUT, "isn't there"},
        {"beta=0,", "beta=1.5,", ERR_DATA, "from 0 to 1"},
        {"off_policy='examples'", "off_policy='teacher', data={'rows.jsonl'}", ERR_DATA, "no effect"},
        {"distill{teacher", "distill{name", ERR_DATA, "teacher"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        char *recipe = student(1, "0.5", "examples", "0"), *at = strstr(recipe, cases[i].from);
        CHECK(at != NULL);
        char *other = xasprintf("%.*s%s%s", (int)(at - recipe), recipe, cases[i].to, at + strlen(cases[i].from));
        TrainedRun run = train_run("refused", other, NULL, -1);
        free(recipe), free(other);
        CHECK(!run.ok);
        CHECK_INT(run.err.code, cases[i].code);
        if (!strstr(run.err.msg, cases[i].says)) FAIL("case %d: %s", i, run.err.msg);
    }
    scratch_remove();
}

static const Test tests[] = {
    {"both kinds of steps", both_kinds_of_steps},
    {"from every checkpoint", from_every_checkpoint},
    {"it comes nearer", comes_nearer},
    {"another teacher is refused", another_teacher_is_refused},
    {"refusals", refusals},
};
TEST_MAIN(tests)
