// Sampling ahead of training, over the steps, and continuous refill: the same bits for any number of threads and after a resume, a
// ledger that adds up, and a ratio that is real where the weights are older.
#include "accounts.h"
#include "train_test.h"

#define STAGE(more)                                                                                          \
    "stages={grpo{steps=6, prompts=4, group_size=4, max_truncated=1, checkpoint_every=1, optimizer={learning_rate=1e-2, schedule='constant'}, " more "}}}"
#define MODEL "model={preset='mini', max_positions=48}, characters='0123456789+-*/=,()', threads=1, "
#define RECIPE(more) "return {" MODEL "tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, evaluate={items=0}, keep_checkpoints=9, " STAGE(more)

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n > 0 and n / (1 + #s.completion) or 0\nend";

static void audited(const TrainedRun *run) {
    Err err = {0};
    json_t *audit;
    bool ok = audit_run(run->folder, &audit, &err);
    json_decref(audit);
    OK(ok);
}

// The run again with two threads, and once more from a checkpoint in the middle.
static TrainedRun replays(const char *name, const char *recipe) {
    Err err = {0};
    scratch_file("ones.lua", ones);
    TrainedRun whole = train_run(name, recipe, NULL, 6);
    TRAINED(whole);
    audited(&whole);
    char other[64];
    snprintf(other, sizeof other, "%s-two", name);
    TrainedRun two = train_run(other, recipe, (const char *[]){"threads=2", "microbatch_tokens=100", "reward_workers=1", NULL}, 6);
    TRAINED(two);
    if (strcmp(two.weights, whole.weights) || strcmp(two.head, whole.head)) FAIL("%s: with two threads the run ends otherwise", name);
    static const int from[] = {3, 1, 5};
    for (int i = 0; i < COUNT(from); i++) {
        for (int step = from[i] + 1; step <= 6; step++) {
            char *path = xasprintf("%s/checkpoints/step-%d", two.folder, step);
            bool ok = folder_remove(path, &err);
            free(path);
            OK(ok);
        }
        TrainedRun resumed = train_from(true, other, recipe, NULL, 6);
        TRAINED(resumed);
        if (strcmp(resumed.weights, whole.weights) || strcmp(resumed.head, whole.head)) FAIL("%s: resumed from step %d the run ends otherwise", name, from[i]);
        audited(&resumed);
    }
    return whole;
}

static void sampled_ahead(void) {
    TrainedRun run = replays("ahead", RECIPE("rollout={staleness=2}, algo={epochs=2, kl=0.01}, sampling={max_tokens=12, top_k=9}"));
    CHECK(ask(&run, "SELECT max(staleness) FROM steps") == 2);
    CHECK(ask(&run, "SELECT count(*) FROM steps WHERE staleness = min(2, step - 1)") == 6);
    CHECK(ask(&run, "SELECT sum(stale_tokens) - (SELECT sum(tokens) FROM samples WHERE step > 1) FROM steps") == 0);
    CHECK(ask(&run, "SELECT flight_tokens FROM steps WHERE step = 6") == 0);
    CHECK(ask(&run, "SELECT sum(new_tokens) - (SELECT sum(tokens) FROM samples) FROM steps") == 0);
    // Batch 1 is on policy, and its versions need no cell.
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE versions IS NULL AND step > 1") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE versions IS NOT NULL AND step = 1") == 0);
    CHECK(ask(&run, "SELECT corrected_share FROM steps WHERE step = 1") == 0); // on policy nothing is cut
    CHECK(ask(&run, "SELECT count(*) FROM steps WHERE corrected_share BETWEEN 0 AND 1") == 6);
    scratch_remove();
}

// Without a correction the loss's own ratio is taken against the sampler, and is not 1.
static void the_ratio_is_real(void) {
    scratch_file("ones.lua", ones);
    const char *recipe = RECIPE("rollout={staleness=1}, algo={correction={level='off'}}, sampling={max_tokens=12}");
    TrainedRun run = train_run("ratio", recipe, NULL, 6);
    TRAINED(run);
    CHECK(ask(&run, "SELECT ratio_max FROM steps WHERE step = 1") == 0);
    CHECK(ask(&run, "SELECT min(ratio_max) FROM steps WHERE step > 1") > 1e-4);
    TrainedRun zero = train_run("zero", recipe, (const char *[]){"stages.1.rollout.staleness=0", NULL}, 6),
               none = train_run("none", RECIPE("algo={correction={level='off'}}, sampling={max_tokens=12}"), NULL, 6);
    TRAINED(zero);
    TRAINED(none);
    CHECK_STR(zero.weights, none.weights);
    CHECK_STR(zero.head, none.head);
    CHECK(strcmp(zero.weights, run.weights));
    CHECK(ask(&zero, "SELECT max(ratio_max) + sum(stale_tokens) + sum(flight_tokens) FROM steps") == 0);
    scratch_remove();
}

static void in_pieces(void) {
    TrainedRun run = replays("pieces", RECIPE("rollout={partial=3, carry=2}, group_size=2, sampling={max_tokens=40, think_tokens=30, top_p=0.9}"));
    CHECK(ask(&run, "SELECT max(staleness) FROM steps") <= 2);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE length(versions) > 16") > 0); // drawn by more than one version
    CHECK(ask(&run, "SELECT count(DISTINCT text) FROM prompts") > 10);
    CHECK(ask(&run, "SELECT flight_tokens FROM steps WHERE step = 6") == 0);
    run = replays("both", RECIPE("rollout={partial=2, staleness=1}, algo={correction={level='sequence', mode='mask', high=3}}, sampling={max_tokens=20}"));
    CHECK(ask(&run, "SELECT max(staleness) FROM steps") >= 1);
    scratch_remove();
}

// Samples of weights in 8 bits: the ratio is the trainer's own, what differs from the sampler is on the ledger, and all else holds.
static void in_8_bits(void) {
    TrainedRun run = replays("bytes", RECIPE("rollout={precision='int8'}, sampling={max_tokens=12}"));
    CHECK(ask(&run, "SELECT max(ratio_max) + sum(stale_tokens) FROM steps") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM events WHERE kind = 'step' AND json_extract(detail, '$.sampler_gap') BETWEEN 1e-5 AND 0.1") >= 6);
    CHECK(ask(&run, "SELECT json_extract(replayable, '$.rollouts') = 'int8, corrected' FROM run") == 1);
    TrainedRun same = train_run("same", RECIPE("sampling={max_tokens=12}"), NULL, 6);
    TRAINED(same);
    CHECK(strcmp(same.weights, run.weights));
    CHECK(ask(&same, "SELECT count(*) FROM events WHERE json_extract(detail, '$.sampler_gap') IS NOT NULL") == 0);
    CHECK(ask(&same, "SELECT json_extract(replayable, '$.rollouts') IS NULL FROM run") == 1);
    scratch_remove();
}

// Each place has attempts of its own; what is replaced stays on the ledger with its tokens.
static void refilled(void) {
    const char *recipe = RECIPE("algo={refills=3}, sampling={max_tokens=9}");
    TrainedRun run = replays("refilled", recipe);
    double replaced = ask(&run, "SELECT count(*) FROM replaced");
    CHECK(replaced > 0 && replaced <= 3 * 4 * 6);
    CHECK(ask(&run, "SELECT sum(new_tokens) - (SELECT sum(tokens) FROM samples) - (SELECT sum(tokens) FROM replaced) FROM steps") == 0);
    CHECK(ask(&run, "SELECT sum(samples) - (SELECT count(*) FROM samples) - (SELECT sum(samples) FROM replaced) FROM step_levels") == 0);
    TrainedRun less = train_run("plain", recipe, (const char *[]){"stages.1.algo.refills=0", NULL}, 6);
    TRAINED(less);
    CHECK(ask(&run, "SELECT groups_without_variance FROM steps WHERE step = 1") < ask(&less, "SELECT groups_without_variance FROM steps WHERE step = 1"));
    run = replays("refilled-pieces", RECIPE("algo={refills=2}, rollout={partial=3, carry=2}, group_size=2, sampling={max_tokens=40, think_tokens=30, top_p=0.9}"));
    CHECK(ask(&run, "SELECT count(*) FROM replaced") > 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE length(versions) > 16") > 0);
    CHECK(ask(&run, "SELECT sum(new_tokens) - (SELECT sum(tokens) FROM samples) - (SELECT sum(tokens) FROM replaced) - (SELECT flight_tokens FROM steps WHERE step = 6) FROM steps") == 0);
    CHECK(ask(&run, "SELECT sum(group_count) FROM steps") == 24);
    run = train_run("refilled-both", RECIPE("algo={refills=1}, rollout={partial=2, staleness=1}, sampling={max_tokens=16}"), NULL, 6);
    TRAINED(run);
    audited(&run);
    run = replays("refilled-ahead", RECIPE("algo={refills=2}, rollout={staleness=1}, sampling={max_tokens=9}"));
    CHECK(ask(&run, "SELECT count(*) FROM replaced") > 0);
    scratch_remove();
}

static void refused(void) {
    static const struct {
        const char *recipe, *message;
    } cases[] = {
        {RECIPE("rollout={partial=5}"), "'rollout.partial' in stages.1: found 5, expected at most the 4 prompts"},
        {RECIPE("rollout={staleness=1}, algo={loss='gpg', correction={level='off'}}"), "the loss gpg has no ratio"},
        {RECIPE("rollout={staleness=-1}"), "expected an integer from 0 to 64"},
        {RECIPE("rollout={precision='int8'}, algo={correction={level='off'}}"), "found off, expected token or sequence"},
        {RECIPE("rollout={precision='int4'}"), "expected one of same, int8"},
    };
    scratch_file("ones.lua", ones);
    for (int i = 0; i < COUNT(cases); i++) {
        TrainedRun run = train_run("refused", cases[i].recipe, NULL, 6);
        if (run.ok || !strstr(run.err.msg, cases[i].message)) FAIL("case %d: %s", i, run.ok ? "was taken" : run.err.msg);
    }
    scratch_remove();
}

// What is in flight in an environment goes on after a resume; episodes in pieces are refused.
static void environments(void) {
#define GUESS(more)                                                                                          \
    "return {model={preset='mini', max_positions=192}, characters='0123456789 abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?!-\\n', threads=1, "                            \
    "tasks={{'environment'}}, rewards={'guess'}, evaluate={items=0}, keep_checkpoints=9, " STAGE("sampling={max_tokens=40, turn_tokens=6}, " more)
    replays("guess", GUESS("rollout={staleness=1}"));
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("guess-pieces", GUESS("rollout={partial=1}"), NULL, 6);
    CHECK(!run.ok && strstr(run.err.where, "rollout.partial") && strstr(run.err.msg, "beside an environment"));
    scratch_remove();
}

// A moved reference of an adapter is a copy of the adapter; before the first move it is the base alone.
static void a_moved_reference_of_an_adapter(void) {
    Err err = {0};
    scratch_file("ones.lua", ones);
    TrainedRun base = train_run("base", "return {" MODEL "tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, evaluate={items=0}, "
                                "stages={sft{steps=2, batch=4, optimizer={learning_rate=1e-3}}}}", NULL, 2);
    TRAINED(base);
    char *recipe = xasprintf("return {threads=1, chat=false, model={path='%s/checkpoints/step-2', lora={rank=4, alpha=8}}, tasks={{'arithmetic', levels={1,2}}}, "
                             "rewards={'ones.lua'}, evaluate={items=0}, keep_checkpoints=9, " STAGE("algo={kl=0.1, reference_every=2}, sampling={max_tokens=12}"), base.folder);
    TrainedRun run = train_run("adapted", recipe, NULL, 6);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM steps WHERE kl = 0 AND step IN (1, 3, 5)") == 3);
    CHECK(ask(&run, "SELECT count(*) FROM steps WHERE kl > 0 AND step IN (2, 4, 6)") == 3);
    for (int step = 4; step <= 6; step++) { // resumed from step 3, its reference is the adapter of step 2
        char *folder = xasprintf("%s/checkpoints/step-%d", run.folder, step);
        bool ok = folder_remove(folder, &err);
        free(folder);
        OK(ok);
    }
    TrainedRun resumed = train_from(true, "adapted", recipe, NULL, 6);
    free(recipe);
    TRAINED(resumed);
    CHECK_STR(resumed.weights, run.weights);
    CHECK_STR(resumed.head, run.head);
    scratch_remove();
}

static const Test tests[] = {
    {"a moved reference of an adapter", a_moved_reference_of_an_adapter},
    {"sampled ahead", sampled_ahead}, {"the ratio is real", the_ratio_is_real}, {"in pieces", in_pieces},
    {"in 8 bits", in_8_bits},
    {"refilled", refilled},           {"refused", refused},                     {"environments", environments},
};
TEST_MAIN(tests)
