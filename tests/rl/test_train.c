// Whole runs of the trainer on the smallest preset: the same bits however the work is split, and what each option of a
// recipe comes to. Right answers are out of such a model's reach, so most rewards here count a digit.
#include "accounts.h"
#include "program.h"
#include "train_test.h"

#define MODEL "model={preset='mini', max_positions=48}, characters='0123456789+-*/=,()', threads=1, "
#define ARITHMETIC "tasks={{'arithmetic', levels={1,2}}}, "
#define ONES "rewards={'ones.lua'}, "
#define FEW "evaluate={items=4}, "
// Five steps of GRPO; `more` are further keys of the stage.
#define GRPO(more)                                                                                           \
    "stages={grpo{steps=5, prompts=4, group_size=4, optimizer={learning_rate=1e-3, schedule='constant'}, " more "}} "
#define SHORT "sampling={max_tokens=12}"

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n / (1 + #s.completion)\nend";

static void the_same_bits_however_split(void) {
    static const char *const splits[][3] = {
        {"threads=1"}, {"threads=2"}, {"threads=1", "microbatch_tokens=1"}, {"threads=2", "microbatch_tokens=100"},
        {"threads=2", "microbatch_tokens=16000000", "reward_workers=1"}, {"threads=1"}};
    static const char *const precisions[] = {"model.precision=fp32", "model.precision=bf16"};
    char weights[65] = "";
    scratch_file("ones.lua", ones);
    for (int p = 0; p < COUNT(precisions); p++) {
        TrainedRun first = {0};
        for (int i = 0; i < COUNT(splits); i++) {
            const char *sets[] = {precisions[p], splits[i][0], splits[i][1], splits[i][2], NULL};
            char name[32];
            snprintf(name, sizeof name, "split-%d-%d", p, i);
            TrainedRun run = train_run(name,
                                       "return {" MODEL ARITHMETIC ONES FEW
                                       "stages={sft{steps=2, batch=6, optimizer={learning_rate=1e-3}}, grpo{steps=5, prompts=4, group_size=4, "
                                       "optimizer={learning_rate=1e-3}, algo={kl=0.05, entropy=0.01, minibatches=2, epochs=2}, " SHORT "}}}",
                                       sets, 7);
            TRAINED(run);
            if (i == 0) first = run;
            if (strcmp(run.weights, first.weights) || strcmp(run.head, first.head))
                FAIL("%s, %s %s: weights %.16s head %.16s, with one thread %.16s and %.16s", precisions[p], splits[i][0],
                     splits[i][1] ? splits[i][1] : "", run.weights, run.head, first.weights, first.head);
        }
        if (!strcmp(weights, first.weights)) FAIL("both precisions end with the weights %.16s", weights);
        strcpy(weights, first.weights);
    }
    scratch_remove();
}

// A group of more tokens than a part has.
static void the_same_bits_of_large_groups(void) {
    static const char *const splits[] = {"microbatch_tokens=1", "microbatch_tokens=1500", "microbatch_tokens=16000000"};
    scratch_file("ones.lua", ones);
    TrainedRun first = {0};
    for (int i = 0; i < COUNT(splits); i++) {
        TrainedRun run = train_run(splits[i],
                                   "return {" MODEL ARITHMETIC ONES FEW
                                   "stages={grpo{steps=1, prompts=3, group_size=120, optimizer={learning_rate=1e-3}, algo={kl=0.05, entropy=0.01}, "
                                   "sampling={max_tokens=24}}}}",
                                   (const char *[]){splits[i], NULL}, 1);
        TRAINED(run);
        if (i == 0) first = run;
        CHECK(!strcmp(run.weights, first.weights) && !strcmp(run.head, first.head));
        CHECK(ask(&run, "SELECT trained_tokens FROM steps") > 3 * 1024);
    }
    scratch_remove();
}

static void seeds_differ(void) {
    scratch_file("ones.lua", ones);
    const char *recipe = "return {" MODEL ARITHMETIC ONES FEW GRPO(SHORT) "}";
    TrainedRun a = train_run("a", recipe, (const char *[]){"seed=1", NULL}, 5), b = train_run("b", recipe, (const char *[]){"seed=2", NULL}, 5);
    TRAINED(a);
    TRAINED(b);
    CHECK(strcmp(a.weights, b.weights) && strcmp(a.head, b.head));
    scratch_remove();
}

// The divergence from the stage's start is 0 in its first step and grows; a heavier one keeps the policy nearer.
static void the_reference(void) {
    scratch_file("ones.lua", ones);
    const char *recipe = "return {" MODEL ARITHMETIC ONES FEW GRPO("algo={kl=0.001}, " SHORT) "}";
    TrainedRun light = train_run("light", recipe, NULL, 5),
               heavy = train_run("heavy", recipe, (const char *[]){"stages.1.algo.kl=50", NULL}, 5);
    TRAINED(light);
    TRAINED(heavy);
    CHECK(ask(&light, "SELECT kl FROM steps WHERE step = 1") == 0);
    CHECK(ask(&light, "SELECT kl FROM steps WHERE step = 5") > 1e-5);
    double near = ask(&heavy, "SELECT kl FROM steps WHERE step = 5"), far = ask(&light, "SELECT kl FROM steps WHERE step = 5");
    if (!(near < far)) FAIL("KL of step 5: %g with a weight of 50, %g with 0.001", near, far);
    // The reference's forward passes are counted too: one more for each trained group.
    CHECK(ask(&light, "SELECT min(flops) FROM steps") > 0);
    scratch_remove();
}

// A first stage's divergence is measured against step 0, however many checkpoints came after it: a run that is resumed
// from a later one finds it and ends with the same bits.
static void the_reference_outlives_pruning(void) {
    Err err = {0};
    scratch_file("ones.lua", ones);
    const char *recipe = "return {" MODEL ARITHMETIC ONES FEW "keep_checkpoints=2, " GRPO("checkpoint_every=1, algo={kl=0.5}, " SHORT) "}";
    TrainedRun whole = train_run("run", recipe, NULL, 5);
    TRAINED(whole);
    static const bool kept[] = {true, false, false, false, true, true};
    for (int step = 0; step < COUNT(kept); step++) {
        char *path = xasprintf("%s/checkpoints/step-%d", whole.folder, step);
        bool there = file_is_folder(path), ok = step < 5 || folder_remove(path, &err);
        free(path);
        OK(ok);
        if (there != kept[step]) FAIL("the checkpoint of step %d is %s", step, there ? "there" : "gone");
    }
    TrainedRun resumed = train_from(true, "run", recipe, NULL, 5);
    TRAINED(resumed);
    CHECK_STR(resumed.weights, whole.weights);
    CHECK_STR(resumed.head, whole.head);
    scratch_remove();
}

// Sampler and trainer agree under every transform: the run would stop if one bit differed.
static void truncated_sampling(void) {
    static const char *const transforms[] = {"top_k=3", "top_p=0.7", "min_p=0.05", "top_k=6, top_p=0.9, min_p=0.01", "temperature=1.7",
                                             "temperature=0.6, top_k=5"};
    scratch_file("ones.lua", ones);
    for (int i = 0; i < COUNT(transforms); i++) {
        char recipe[700];
        snprintf(recipe, sizeof recipe, "return {" MODEL ARITHMETIC ONES FEW "stages={grpo{steps=3, prompts=3, group_size=4, "
                 "optimizer={learning_rate=1e-3}, algo={epochs=2}, sampling={max_tokens=12, %s}}}}", transforms[i]);
        TrainedRun run = train_run("run", recipe, NULL, 3);
        TRAINED(run);
        CHECK(ask(&run, "SELECT max(ratio_max) FROM steps") > 0);
        CHECK(ask(&run, "SELECT min(entropy) FROM steps") > 0);
        if (!strncmp(transforms[i], "top_k=3", 7)) CHECK(ask(&run, "SELECT max(entropy) FROM steps") <= log(3) + 1e-5);
        scratch_remove();
        scratch_file("ones.lua", ones);
    }
    scratch_remove();
}

static void groups_without_variance_cost_nothing(void) {
    scratch_file("constant.lua", "return function() return 0.25 end");
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC "rewards={'constant.lua'}, " FEW GRPO(SHORT) "}", NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT sum(groups_without_variance) FROM steps") == 20);
    CHECK(ask(&run, "SELECT sum(groups_trained) + sum(trained_tokens) FROM steps") == 0);
    CHECK(ask(&run, "SELECT avg(reward_mean) FROM steps") == 0.25);
    char before[65], *path = xasprintf("%s/checkpoints/step-0/model.safetensors", run.folder);
    Err err = {0};
    bool ok = sha256_file(path, before, &err);
    free(path);
    OK(ok);
    CHECK_STR(run.weights, before);
    scratch_remove();
}

// A score beyond a float's range makes an infinite gradient: the step is skipped and counted, the weights stay.
static void infinite_gradients_are_skipped(void) {
    scratch_file("huge.lua", "return function(s) return s.step == 2 and 1e300 * s.tokens or s.tokens end");
    const char *recipe = "return {" MODEL ARITHMETIC "rewards={'huge.lua'}, " FEW GRPO("algo={advantage='none'}, " SHORT) "}";
    TrainedRun run = train_run("run", recipe, NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT skipped FROM steps WHERE step = 2") == 1);
    CHECK(ask(&run, "SELECT sum(skipped) FROM steps") == 1);
    scratch_remove();

    scratch_file("huge.lua", "return function(s) return 1e300 * s.tokens end");
    run = train_run("run", recipe, (const char *[]){"stages.1.steps=20", NULL}, 20);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_FAILED);
    CHECK(strstr(run.err.msg, "10 steps in a row") && strstr(run.err.msg, "/checkpoints"));
    scratch_remove();
}

// A verdict by the clock goes on the ledger, and audit and report say what it means. Who waited for whom is there too.
static void a_kill_by_the_clock_marks_the_run(void) {
    Err err = {0};
    json_t *audit;
    Buf page;
    scratch_file("hangs.lua", "return function(s)\n local _, n = s.completion:gsub('1', '')\n while s.step == 2 and math.random() < 0.2 do while true do end end\n"
                              " return n / (1 + #s.completion)\nend");
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC "rewards={'hangs.lua'}, reward_limits={fuel=1e12, seconds=0.05}, max_failed_share=0.9, " FEW
                               GRPO(SHORT) "}", NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'killed'") >= 1);
    CHECK(ask(&run, "SELECT count(*) FROM events WHERE kind = 'not replayable'") == 1);
    CHECK(ask(&run, "SELECT json_extract(detail, '$.verdicts') = (SELECT count(*) FROM samples WHERE verdict = 'killed') FROM events WHERE kind = "
                    "'not replayable'") == 1);
    CHECK(ask(&run, "SELECT json_extract(detail, '$.step') FROM events WHERE kind = 'not replayable'") == 2);
    CHECK(ask(&run, "SELECT json_extract(detail, '$.reward') FROM events WHERE kind = 'step' AND step = 2") > 0.05);
    CHECK(ask(&run, "SELECT min(json_extract(detail, '$.reward_idle')) FROM events WHERE kind = 'step'") >= 0);
    OK(audit_run(run.folder, &audit, &err));
    Buf text = {0};
    json_write(audit, &text);
    json_decref(audit);
    CHECK(strstr(text.data, "this run is not replayable"));
    buf_free(&text);
    OK(report_write(run.folder, NULL, &err));
    char *path = path_join(run.folder, "report.html");
    OK(file_read(path, 64 << 20, &page, &err));
    free(path);
    CHECK(strstr(page.data, "This run is not replayable"));
    buf_free(&page);
    scratch_remove();
}

// A recipe allows programs by name; without, the run says how to.
static void programs_are_allowed_by_the_recipe(void) {
    char why[256];
    program_why_not(PROGRAM_PYTHON, why, sizeof why);
    if (why[0]) SKIP("%s", why);
    scratch_file("runs.lua", "return function(s)\n local r = run.program{lang = 'python', source = 'print(input().count(\"1\"))', "
                             "tests = {{input = s.completion:gsub('%s', ' ') .. '\\n', output = tostring(select(2, s.completion:gsub('1', '')))}}}\n return r.passed\nend");
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC "rewards={{'runs.lua', allow={'program.python'}}}, evaluate={items=0}, "
                               "stages={grpo{steps=1, prompts=2, group_size=2, optimizer={learning_rate=1e-3}, " SHORT "}}}", NULL, 1);
    TRAINED(run);
    CHECK(ask(&run, "SELECT min(reward) FROM samples") == 1);
    CHECK(ask(&run, "SELECT count(*) FROM events WHERE kind = 'not replayable'") == 0);
    run = train_run("other", "return {" MODEL ARITHMETIC "rewards={'runs.lua'}, evaluate={items=0}, "
                    "stages={grpo{steps=1, prompts=2, group_size=2, optimizer={learning_rate=1e-3}, " SHORT "}}}", NULL, 1);
    CHECK(!run.ok && strstr(run.err.msg, "allow = {\"program.python\"}"));
    scratch_remove();
}

static void failing_rewards_stop_the_run(void) {
    const char *recipe = "return {" MODEL ARITHMETIC "rewards={'bad.lua'}, " FEW GRPO(SHORT) "}";
    scratch_file("bad.lua", "return function(s)\n error('no such column')\nend");
    TrainedRun run = train_run("run", recipe, NULL, 5);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_DATA);
    CHECK_STR(run.err.where, "rewards");
    if (!strstr(run.err.msg, "16 of 16 samples of step 1 could not be scored (more than 10 %)") ||
        !strstr(run.err.msg, "bad.lua:2: no such column"))
        FAIL("the message is: %s", run.err.msg);
    CHECK(ask(&run, "SELECT count(*) FROM events WHERE kind = 'end' AND detail ->> 'how' = 'failed' AND detail ->> 'why' LIKE '16 of 16%'") == 1);
    scratch_remove();

    // Below the share they are counted, and leave their group's baseline alone.
    scratch_file("bad.lua", "return function(s)\n if s.completion:find('^.?7') then error('a seven') end\n return s.tokens\nend");
    run = train_run("run", recipe, (const char *[]){"max_failed_share=0.9", NULL}, 5);
    TRAINED(run);
    double errors = ask(&run, "SELECT sum(error) FROM steps");
    CHECK(errors > 0 && errors == ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'error'"));
    CHECK(ask(&run, "SELECT sum(scored) FROM steps") == 80 - errors);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'error' AND (active OR advantage != 0)") == 0);
    scratch_remove();

    // An abstention is no failure, even where all abstain.
    scratch_file("bad.lua", "return function(s) return nil, 'not my kind' end");
    run = train_run("run", recipe, NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT sum(abstained) FROM steps") == 80);
    scratch_remove();
}

static void stop_texts(void) {
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC ONES FEW GRPO("sampling={max_tokens=24, stop={'5', '+1'}}") "}", NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE completion LIKE '%5'") > 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE completion LIKE '%5%' AND (completion NOT LIKE '%5' OR finish != 'stop')") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE instr(completion, '5') BETWEEN 1 AND length(completion) - 1") == 0);
    scratch_remove();
}

static void truncated_samples_can_be_masked(void) {
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC ONES FEW GRPO("algo={mask_truncated=true}, " SHORT) "}", NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE finish = 'length'") > 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE finish = 'length' AND active") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM samples WHERE finish = 'stop' AND active") > 0);
    scratch_remove();
}

// One's own data and reward: every column reaches the script, in evaluations too.
static void own_data_and_reward(void) {
    Buf rows = {0};
    for (int i = 0; i < 60; i++)
        buf_printf(&rows, "{\"prompt\":\"%d=\",\"answer\":%d,\"kind\":\"echo\",\"level\":%d,\"digit\":\"%d\",\"demonstration\":\"%d\"}\n", i, i, i % 2,
                   i % 10, i);
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    scratch_file("mine.lua", "return function(s)\n assert(s.row.digit == s.truth:sub(-1) and s.prompt == s.truth .. '=', 'a wrong row')\n"
                             " local _, n = s.completion:gsub(s.row.digit, '')\n"
                             " return {hits = n, short = -0.1 * s.tokens}\nend");
    TrainedRun run = train_run("run",
                               "return {" MODEL "tasks={{'jsonl', file='data.jsonl'}}, held_out=0.3, rewards={{'mine.lua', weight=2}}, " FEW
                               "stages={sft{steps=2, batch=4}, grpo{steps=5, prompts=4, group_size=4, modes={think=0.5, direct=0.5}, "
                               "probe=0, optimizer={learning_rate=1e-3}, " SHORT "}}}",
                               NULL, 7);
    TRAINED(run);
    CHECK(ask(&run, "SELECT sum(scored) FROM steps") == 80);
    CHECK(ask(&run, "SELECT count(DISTINCT name) FROM step_parts") == 2);
    CHECK(ask(&run, "SELECT count(*) FROM prompts WHERE kind = 'echo'") == 20);
    CHECK(ask(&run, "SELECT count(DISTINCT level) FROM prompts") == 2);
    CHECK(ask(&run, "SELECT count(DISTINCT mode) FROM prompts") == 2);
    CHECK(ask(&run, "SELECT count(*) FROM evaluations WHERE name = 'greedy think'") == 2);
    // A few answers of each level stay to be read, with a logprob for each sampled id.
    CHECK(ask(&run, "SELECT count(*) FROM evaluations e, json_each(e.replayable, '$.answers') a WHERE name = 'greedy think'") >= 4);
    CHECK(ask(&run, "SELECT count(*) FROM evaluations e, json_each(e.replayable, '$.answers') a WHERE json_array_length(a.value, '$.ids') != "
                    "json_array_length(a.value, '$.millinats') OR a.value ->> 'tokens' != json_array_length(a.value, '$.ids')") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM events WHERE kind = 'end' AND detail ->> 'how' = 'finished'") == 1);
    // The weight: 2 * (hits + short).
    CHECK(ask(&run, "SELECT max(abs(s.reward - 2 * (SELECT sum(value) FROM parts p WHERE p.step = s.step AND p.sample = s.sample))) FROM samples s") < 1e-9);
    scratch_remove();
}

static void several_tasks(void) {
    scratch_file("ones.lua", ones);
    scratch_file("data.jsonl", "{\"prompt\":\"1=\",\"answer\":1}\n{\"prompt\":\"2=\",\"answer\":2}\n{\"prompt\":\"3=\",\"answer\":3}\n"
                               "{\"prompt\":\"4=\",\"answer\":4}\n{\"prompt\":\"5=\",\"answer\":5}\n{\"prompt\":\"6=\",\"answer\":6}\n");
    TrainedRun run = train_run("run",
                               "return {model={preset='mini', max_positions=96}, threads=1, characters=' !0123456789+-*/=,().:;abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ', "
                               "tasks={{'arithmetic', levels={1}, weight=2}, {'countdown', levels={1}}, {'jsonl', file='data.jsonl'}, "
                               "{'arithmetic', levels={5}, weight=0}}, " ONES FEW "stages={grpo{steps=5, prompts=8, group_size=2, " SHORT "}}}",
                               NULL, 5);
    TRAINED(run);
    CHECK(ask(&run, "SELECT count(DISTINCT kind) FROM prompts") == 3);
    CHECK(ask(&run, "SELECT count(*) FROM prompts WHERE level = 5") == 0);
    CHECK(ask(&run, "SELECT count(*) FROM prompts WHERE kind = 'arithmetic'") > ask(&run, "SELECT count(*) FROM prompts WHERE kind = 'countdown'"));
    scratch_remove();
}

// A prompt and its completion that don't fit into the context: refused with the setting to change.
static void prompts_beyond_the_context(void) {
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", "return {" MODEL ARITHMETIC ONES FEW GRPO("sampling={max_tokens=46}") "}", NULL, 5);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_DATA);
    CHECK(strstr(run.err.msg, "48"));
    scratch_remove();
}

// Where most samples would be cut off a stage doesn't start, and says which setting to change; what was looked at is paid for.
static void the_probe(void) {
    scratch_file("ones.lua", ones);
    const char *recipe = "return {" MODEL ARITHMETIC ONES FEW "stages={sft{steps=2, batch=4}, grpo{steps=2, prompts=4, group_size=4, probe=8, "
                         "optimizer={learning_rate=1e-3}, sampling={max_tokens=2}}}}";
    TrainedRun refused = train_run("refused", recipe, NULL, 4);
    CHECK(!refused.ok);
    CHECK_INT(refused.err.code, ERR_DATA);
    CHECK_STR(refused.err.where, "stages.2");
    CHECK(strstr(refused.err.msg, "of 8 samples drawn before step 1 would be cut off at sampling.max_tokens = 2: raise it"));
    CHECK(ask(&refused, "SELECT count(*) FROM steps") == 2);
    TrainedRun allowed = train_run("allowed", recipe, (const char *[]){"stages.2.max_truncated=1", NULL}, 4),
               none = train_run("none", recipe, (const char *[]){"stages.2.probe=0", NULL}, 4);
    TRAINED(allowed);
    TRAINED(none);
    CHECK_STR(allowed.weights, none.weights); // looking changes nothing
    CHECK(ask(&allowed, "SELECT json_extract(detail, '$.samples') FROM events WHERE kind = 'probe'") == 8);
    CHECK(ask(&allowed, "SELECT json_extract(detail, '$.new_tokens') FROM events WHERE kind = 'probe'") > 8);
    CHECK(ask(&allowed, "SELECT json_extract(detail, '$.truncated') FROM events WHERE kind = 'probe'") > 0.5);
    CHECK(ask(&none, "SELECT count(*) FROM events WHERE kind = 'probe'") == 0);
    // A model that has learned to say one thing for ever needs no longer limit.
    Buf rows = {0};
    for (int i = 0; i < 20; i++) buf_printf(&rows, "{\"prompt\":\"%d=\",\"answer\":\"%s\"}\n", i, "111111111111111111111111111111");
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    TrainedRun loops = train_run("loops", "return {" MODEL "tasks={{'jsonl', file='data.jsonl'}}, held_out=0.1, rewards={'ones.lua'}, evaluate={items=0}, "
                                 "stages={sft{steps=40, batch=8, modes={direct=1}, optimizer={learning_rate=1e-2}}, "
                                 "grpo{steps=2, prompts=4, group_size=4, modes={direct=1}, sampling={max_tokens=24}}}}", NULL, 42);
    CHECK(!loops.ok && strstr(loops.err.msg, "most of these repeat themselves: a longer limit won't help"));
    scratch_remove();
}

static const Test tests[] = {
    {"the same bits with any number of threads and any split", the_same_bits_however_split},
    {"a look before a stage of GRPO", the_probe},
    {"the same bits of large groups", the_same_bits_of_large_groups},
    {"another seed is another run", seeds_differ},
    {"KL against the stage's start", the_reference},
    {"the reference outlives pruning", the_reference_outlives_pruning},
    {"sampler and trainer agree under truncated sampling", truncated_sampling},
    {"groups without variance cost no training pass", groups_without_variance_cost_nothing},
    {"infinite gradients are skipped, ten in a row end the run", infinite_gradients_are_skipped},
    {"a kill by the clock marks the run", a_kill_by_the_clock_marks_the_run},
    {"programs are allowed by the recipe", programs_are_allowed_by_the_recipe},
    {"failing rewards stop the run", failing_rewards_stop_the_run},
    {"stop texts", stop_texts},
    {"truncated samples can be masked", truncated_samples_can_be_masked},
    {"own data and reward", own_data_and_reward},
    {"several tasks", several_tasks},
    {"prompts beyond the context", prompts_beyond_the_context},
};
TEST_MAIN(tests)
