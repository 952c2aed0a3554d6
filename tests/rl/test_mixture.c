// A mixture of experts from a recipe: supervised steps and GRPO end to end, the same bits whatever the threads and
// microbatches, the experts' load on the ledger and in the chain, the bias that evens it out, and keys that would do nothing.
#include "train_test.h"
#include <unistd.h>

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n / (1 + #s.completion)\nend";
#define EXPERTS "experts={count=6, chosen=2, feed_forward=16, dense_layers=1}"
#define RECIPE(model, optimizer)                                                                              \
    "return {name='mixture', seed=3, threads=1, characters='0123456789+=,', model={layers=3, width=32, heads=2, feed_forward=48, max_positions=64, " \
    "precision='bf16', " model "}, tasks={{'arithmetic', levels={1}}}, rewards={'ones.lua'}, optimizer={" optimizer "}, "      \
    "evaluate={items=0}, compare={items=0}, stages={sft{steps=6, batch=12, modes={direct=1}, optimizer={learning_rate=1e-3}}, "      \
    "grpo{steps=3, modes={direct=1}, prompts=4, group_size=4, sampling={max_tokens=6}, optimizer={learning_rate=1e-4}}}}"

static void trains_end_to_end(void) {
    static const char *const splits[][3] = {{"threads=1", NULL}, {"threads=2", "microbatch_tokens=64", NULL}};
    TrainedRun runs[2];
    scratch_file("ones.lua", ones);
    for (int i = 0; i < 2; i++) {
        runs[i] = train_run(i ? "two" : "one", RECIPE(EXPERTS, "expert_bias_rate=0.02, router_balance=0.01, router_z=0.001"), splits[i], 9);
        TRAINED(runs[i]);
        CHECK(ask(&runs[i], "SELECT count(*) FROM step_experts") == 18);
        CHECK(ask(&runs[i], "SELECT count(*) FROM step_experts WHERE length(load) = 48 AND imbalance >= 1 AND layer IN (1, 2)") == 18);
    }
    CHECK_STR(runs[1].weights, runs[0].weights);
    scratch_remove();
}

// The same run without the bias: its busiest experts are busier.
static void bias_evens_out(void) {
    double imbalance[2];
    scratch_file("ones.lua", ones);
    for (int i = 0; i < 2; i++) {
        static const char *const longer[] = {"stages.1.steps=32", NULL};
        TrainedRun run = train_run("run", i ? RECIPE(EXPERTS, "expert_bias_rate=0.002") : RECIPE(EXPERTS, ""), longer, 35);
        TRAINED(run);
        imbalance[i] = ask(&run, "SELECT avg(imbalance) FROM step_experts WHERE step BETWEEN 20 AND 32");
    }
    if (!(imbalance[1] < 0.8 * imbalance[0])) FAIL("load of the busiest expert over the mean: %.3f with the bias, %.3f without", imbalance[1], imbalance[0]);
    scratch_remove();
}

// GRPO of an adapter on everything that a layer multiplies by, experts, routers and latent attention's kv_b included, on a base that
// stays as it is: groups have variance, ratios are exactly 1 where weights are those that sampled, the reward rises, and neither
// threads nor microbatches leave a trace.
#define ADAPTED                                                                                              \
    "return {name='adapted', seed=5, threads=1, chat=false, model={path='%s/base/checkpoints/step-83', precision='bf16', lora={rank=4, alpha=8, " \
    "targets={'gate', 'q_proj', 'kv_a_proj_with_mqa', 'kv_b_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'}}}, " \
    "tasks={{'arithmetic', levels={1}}}, rewards={'ones.lua'}, evaluate={items=0}, compare={items=0}, stages={" \
    "grpo{steps=14, modes={direct=1}, prompts=4, group_size=16, sampling={max_tokens=6}, checkpoint_every=14, optimizer={learning_rate=1e-2, schedule='constant', warmup=0}}}}"
static void adapter_learns(void) {
    static const char *const splits[][3] = {{"threads=1", NULL}, {"threads=2", "microbatch_tokens=64", NULL}};
    char recipe[1024], hashes[2][65], base[2][65];
    scratch_file("ones.lua", ones);
    static const char *const longer[] = {"stages.1.steps=80", "stages.1.optimizer.learning_rate=1e-2", NULL};
    TrainedRun made = train_run("base", RECIPE(EXPERTS, ""), longer, 83);
    TRAINED(made);
    snprintf(recipe, sizeof recipe, ADAPTED, scratch_folder());
    for (int i = 0; i < 2; i++) {
        Err err = {0};
        TrainedRun run = train_run(i ? "two" : "one", recipe, splits[i], -1);
        TRAINED(run);
        char *factors = xasprintf("%s/checkpoints/step-14/adapter_model.safetensors", run.folder), *weights = xasprintf("%s/checkpoints/step-83/model.safetensors", made.folder);
        bool ok = sha256_file(factors, hashes[i], &err) && sha256_file(weights, base[i], &err);
        free(factors), free(weights);
        OK(ok);
        CHECK(ask(&run, "SELECT max(ratio_max) FROM steps") == 0);
        CHECK(ask(&run, "SELECT count(*) FROM steps WHERE groups_without_variance = 0") >= 10);
        double first = ask(&run, "SELECT avg(reward_mean) FROM steps WHERE step <= 3"), last = ask(&run, "SELECT avg(reward_mean) FROM steps WHERE step > 11");
        if (!(last > first + 0.08)) FAIL("the reward went from %.3f to %.3f", first, last);
        CHECK(ask(&run, "SELECT count(*) FROM step_experts") == 28);
    }
    CHECK_STR(hashes[1], hashes[0]);
    CHECK_STR(base[0], made.weights);
    CHECK_STR(base[1], made.weights);
    scratch_remove();
}

static void keys_without_effect_are_refused(void) {
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", RECIPE("", "expert_bias_rate=0.02"), NULL, 9);
    CHECK(!run.ok && strstr(run.err.msg, "expert_bias_rate"));
    run = train_run("run", RECIPE("", "router_z=0.02"), NULL, 9);
    CHECK(!run.ok && strstr(run.err.msg, "router_z"));
    run = train_run("run", RECIPE("experts={chosen=2}", ""), NULL, 9);
    CHECK(!run.ok && strstr(run.err.msg, "count"));
    run = train_run("run", RECIPE("experts={count=6, groups=4}", ""), NULL, 9);
    CHECK(!run.ok && strstr(run.err.msg, "groups"));
    run = train_run("run", RECIPE("experts={count=4, chosen=5}", ""), NULL, 9);
    CHECK(!run.ok && strstr(run.err.msg, "chosen"));
    scratch_remove();
}

static const Test tests[] = {
    {"a mixture of experts trains end to end", trains_end_to_end},
    {"the bias evens out the load", bias_evens_out},
    {"GRPO of an adapter on a mixture", adapter_learns},
    {"keys without effect are refused", keys_without_effect_are_refused},
};
TEST_MAIN(tests)
