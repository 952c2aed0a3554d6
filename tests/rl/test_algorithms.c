// Every loss and every option of `algo` in whole runs on the smallest preset: a run moves the weights, stays finite, and
// ends with the same bits in microbatches of one group and of all; coefficients and references that move survive a resume.
#include "train_test.h"

#define RUN(algo)                                                                                            \
    "return {model={preset='mini', max_positions=48, precision='fp32'}, characters='0123456789+-*/=,()', threads=1, seed=3, "    \
    "tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, evaluate={items=0}, compare={items=0}, "    \
    "stages={grpo{steps=3, prompts=4, group_size=4, sampling={max_tokens=8}, "                               \
    "optimizer={learning_rate=1e-3, schedule='constant'}, algo={minibatches=2, " algo "}}}}"

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n / (1 + #s.completion)\nend";
static const char mine[] = "return function(s)\n local loss, d, e = 0, {}, {}\n for t = 1, s.length do\n"
                           "  local w = -s.advantage[t] * s.mask[t] / s.tokens\n"
                           "  loss, d[t], e[t] = loss + w * s.logprob[t], w, 0\n end\n return loss, d, e\nend";

static void splits_end_alike(const char *name, const char *recipe) {
    TrainedRun small = train_run("small", recipe, (const char *[]){"microbatch_tokens=1", NULL}, 3);
    TrainedRun large = train_run("large", recipe, (const char *[]){"microbatch_tokens=100000", NULL}, 3);
    if (!small.ok) FAIL("%s: %s: %s", name, small.err.where, small.err.msg);
    TRAINED(large);
    if (strcmp(small.weights, large.weights) || strcmp(small.head, large.head)) FAIL("%s: the split into microbatches changes the run", name);
    if (!(ask(&small, "SELECT sum(gradient_norm) FROM steps") > 0)) FAIL("%s: no gradient", name);
}

static void every_loss_trains(void) {
    static const char *const losses[] = {
        RUN("loss='grpo'"), RUN("loss='bnpo'"), RUN("loss='dr_grpo'"), RUN("loss='dapo'"), RUN("loss='luspo'"), RUN("loss='gspo'"),
        RUN("loss='gspo_token'"), RUN("loss='cispo'"), RUN("loss='cispo_cap'"), RUN("loss='sapo'"), RUN("loss='vespo'"), RUN("loss='gmpo'"),
        RUN("loss='gpg'"), RUN("loss='dro'"), RUN("loss='dppo_tv'"), RUN("loss='dppo_kl'"), RUN("loss='clip_cov', cov_share=0.2, cov_low=-1"),
        RUN("loss='kl_cov', cov_share=0.2"), RUN("loss='prime'"), RUN("loss='prime_ipo'")};
    scratch_file("ones.lua", ones);
    for (int i = 0; i < COUNT(losses); i++) splits_end_alike(losses[i] + strlen(RUN("")) - 5, losses[i]);
    scratch_remove();
}

static void every_option_trains(void) {
    static const struct {
        const char *name, *recipe;
    } options[] = {
        {"batch", RUN("advantage='batch'")},
        {"rloo", RUN("advantage='rloo', advantage_whiten=true")},
        {"gdpo", RUN("advantage='gdpo'")},
        {"reinforce++", RUN("advantage='reinforce_plus_plus', gamma=0.9")},
        {"reinforce++ baseline", RUN("advantage='reinforce_plus_plus_baseline'")},
        {"opo", RUN("advantage='opo'")},
        {"maxrl", RUN("advantage='maxrl'")},
        {"passk", RUN("advantage='passk'")},
        {"gpg", RUN("advantage='gpg'")},
        {"batch mean", RUN("advantage='batch_mean'")},
        {"divergence in the reward", RUN("kl=0.1, kl_in_reward=true, kl_estimator='k1'")},
        {"divergence by token", RUN("kl=0.1, kl_in_reward=true, kl_estimator='k1', advantage='reinforce_plus_plus'")},
        {"adaptive divergence", RUN("kl=0.1, kl_target=0.01, kl_horizon=100")},
        {"adaptive entropy", RUN("entropy=0.01, entropy_target=5")},
        {"top entropy", RUN("top_entropy=0.3, entropy=0.01")},
        {"entropy as the loss", RUN("entropy=0.01, entropy_as_loss=true, aggregate='sequence_sum'")},
        {"off policy", RUN("off_policy_threshold=0.0001, epochs=2")},
        {"correction", RUN("correction={level='token', mode='mask', low=0.5, high=2, normalize=true, reject='token_k3', reject_high=0.5}")},
        {"overlong", RUN("overlong_buffer=4, mask_truncated=true")},
        {"refills", RUN("refills=2")},
        {"mine", RUN("objective='mine.lua'")},
    };
    scratch_file("ones.lua", ones);
    scratch_file("mine.lua", mine);
    for (int i = 0; i < COUNT(options); i++) splits_end_alike(options[i].name, options[i].recipe);
    scratch_remove();
}

// Without stale samples every weight is 1 and nothing is rejected: the same bits as without a correction.
static void on_policy_corrections_change_nothing(void) {
    scratch_file("ones.lua", ones);
    TrainedRun with = train_run("with", RUN("correction={level='sequence', reject='seq_max_k2', reject_high=0.1}"), NULL, 3);
    TrainedRun without = train_run("without", RUN(""), NULL, 3);
    TRAINED(with);
    TRAINED(without);
    CHECK_STR(with.weights, without.weights);
    scratch_remove();
}

// A run that is cut back to an earlier checkpoint ends with the same bits: the reference that has moved, the weight of the
// divergence and that of the bonus are taken up where they were.
static void what_moves_survives_a_resume(void) {
    const char *recipe = RUN("kl=0.2, reference_every=2, kl_target=0.001, kl_horizon=50, entropy=0.01, entropy_target=5");
    scratch_file("ones.lua", ones);
    const char *every[] = {"stages.1.steps=5", "stages.1.checkpoint_every=1", "keep_checkpoints=1", NULL};
    TrainedRun whole = train_run("run", recipe, every, 5);
    TRAINED(whole);
    Err err = {0};
    char *last = xasprintf("%s/checkpoints/step-5", whole.folder);
    OK(folder_remove(last, &err));
    free(last);
    TrainedRun resumed = train_from(true, "run", recipe, every, 5);
    TRAINED(resumed);
    CHECK_STR(resumed.weights, whole.weights);
    CHECK_STR(resumed.head, whole.head);
    CHECK_NEAR(ask(&resumed, "SELECT kl FROM steps WHERE step = 3"), ask(&whole, "SELECT kl FROM steps WHERE step = 3"), 0);
    scratch_remove();
}

static const Test tests[] = {
    {"every_loss_trains", every_loss_trains},
    {"every_option_trains", every_option_trains},
    {"on_policy_corrections_change_nothing", on_policy_corrections_change_nothing},
    {"what_moves_survives_a_resume", what_moves_survives_a_resume},
};
TEST_MAIN(tests)
