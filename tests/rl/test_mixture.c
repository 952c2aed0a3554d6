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
    {"keys without effect are refused", keys_without_effect_are_refused},
};
TEST_MAIN(tests)
