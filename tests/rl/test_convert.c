// `reckon recipe convert`: configurations of the four programs become recipes that recipe_read takes, with the values where
// they belong; every option without an equal is named; presets set what their projects do. Also objectives in Lua.
#include "../../rl/stages.h"
#include "calc_cases.h"
#include "train_test.h"

static char *convert(const char *name, const char *config, const char *from, int want) {
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    self[n] = 0;
    for (int i = 0; i < 2; i++) *strrchr(self, '/') = 0;
    scratch_file(name, config);
    char *command = xasprintf("cd '%s' && '%s/reckon' recipe convert %s --from %s 2>/dev/null > converted.lua", scratch_folder(), self, name, from);
    int status = system(command);
    free(command);
    CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, want);
    Buf text;
    Err err = {0};
    char *path = path_join(scratch_folder(), "converted.lua");
    OK(file_read(path, 1 << 20, &text, &err));
    free(path);
    return text.data;
}
static Recipe *converted(void) {
    Recipe *r;
    Err err = {0};
    char *path = path_join(scratch_folder(), "converted.lua");
    bool ok = recipe_read(path, NULL, &r, &err);
    free(path);
    OK(ok);
    return r;
}
static void contains(const char *text, const char *part) {
    if (!strstr(text, part)) FAIL("the recipe lacks '%s':\n%s", part, text);
}

static void from_trl(void) {
    char *text = convert("trl.yaml", "model_name_or_path: some/model\nmax_steps: 50\nper_device_train_batch_size: 16\nnum_generations: 4\n"
                                     "gradient_accumulation_steps: 2\nlearning_rate: 2e-6\nloss_type: cispo\nepsilon_high: 5.0\nbeta: 0.04\n"
                                     "scale_rewards: false\nsync_ref_model: true\nref_model_sync_steps: 64\nmax_completion_length: 128\n"
                                     "use_liger_kernel: true\nlr_scheduler_type: cosine\ntop_entropy_quantile: 0.2\n", "trl", 0);
    contains(text, "--   use_liger_kernel = true\n");
    Recipe *r = converted();
    const Stage *s = &r->stages[0];
    CHECK_STR(r->model_path, "some/model");
    CHECK(s->steps == 50 && s->batch == 8 && s->group_size == 4 && s->sampling.max_tokens == 128);
    CHECK(s->algo.loss == LOSS_CISPO_CAP && s->algo.advantage == ADVANTAGE_NONE && s->algo.reference_every == 64);
    CHECK(s->algo.kl_times_ratio && s->optimizer.schedule == SCHEDULE_COSINE);
    CHECK_NEAR(s->algo.epsilon_high, 5, 0);
    CHECK_NEAR(s->algo.kl, 0.04, 0);
    CHECK_NEAR(s->algo.top_entropy, 0.2, 0);
    CHECK_NEAR(s->optimizer.learning_rate, 2e-6, 0);
    recipe_free(r), free(text);
    scratch_remove();
}

static void from_verl(void) {
    char *text = convert("verl.yaml", "data:\n  train_batch_size: 64\n  max_response_length: 200\n"
                                      "algorithm:\n  adv_estimator: grpo\n  norm_adv_by_std_in_grpo: False\n  use_kl_in_reward: true\n"
                                      "  kl_ctrl: {type: adaptive, kl_coef: 0.002, target_kl: 0.2, horizon: 5000}\n"
                                      "  filter_groups:\n    enable: true\n    max_num_gen_batches: 3\n"
                                      "actor_rollout_ref:\n  model: {path: some/model}\n  rollout: {n: 5, temperature: 0.9, top_k: -1, name: vllm}\n"
                                      "  actor:\n    clip_ratio_low: 0.2\n    clip_ratio_high: 0.28\n    clip_ratio_c: 10.0\n    ppo_mini_batch_size: 16\n"
                                      "    loss_agg_mode: seq-mean-token-sum\n    policy_loss: {loss_mode: gspo}\n    optim: {lr: 1e-6}\n"
                                      "trainer: {total_training_steps: 7, logger: [console]}\ncritic: {model: {x: 1}}\n", "verl", 0);
    contains(text, "trainer.logger");
    contains(text, "critic.model.x = 1");
    Recipe *r = converted();
    const Stage *s = &r->stages[0];
    CHECK(s->steps == 7 && s->batch == 64 && s->group_size == 5 && s->algo.minibatches == 4 && s->algo.refills == 3);
    CHECK(s->algo.loss == LOSS_GSPO_TOKEN && s->algo.aggregate == AGGREGATE_SEQUENCE_SUM && s->algo.advantage == ADVANTAGE_NONE);
    CHECK(s->algo.kl_in_reward && s->algo.kl_form.estimator == KL_K1 && s->algo.log_ratio_bound == 20);
    CHECK_NEAR(s->algo.kl, 0.002, 0);
    CHECK_NEAR(s->algo.kl_target, 0.2, 0);
    CHECK_NEAR(s->algo.dual_clip, 10, 0);
    CHECK_NEAR(s->algo.epsilon_high, 0.28, 0);
    recipe_free(r), free(text);
    scratch_remove();
}

static void from_the_others(void) {
    char *text = convert("open.json", "{\"rollout\":{\"n_samples_per_prompt\":8,\"batch_size\":16},\"algo\":{\"advantage\":{\"estimator\":\"rloo\","
                                      "\"is_correction_level\":\"token\",\"is_correction_threshold\":[0.5,5.0]},\"kl\":{\"init_coef\":0.01}},"
                                      "\"actor\":{\"eps_clip_low_high\":[0.2,0.27]}}", "openrlhf", 0);
    Recipe *r = converted();
    const Algo *a = &r->stages[0].algo;
    CHECK(a->advantage == ADVANTAGE_RLOO && a->kl_in_reward && a->correction.level == CORRECTION_TOKEN);
    CHECK_NEAR(a->correction.high, 5, 0);
    CHECK_NEAR(a->epsilon_high, 0.27, 0);
    recipe_free(r), free(text);
    text = convert("prime.yaml", "max_steps: 9\ntrainer:\n  loss: {type: ipo, ipo_threshold: 0.05, kl_tau: 0.01}\n  optim: {lr: 1e-5}\n"
                                 "orchestrator: {batch_size: 32, group_size: 8}\n", "prime", 0);
    r = converted();
    a = &r->stages[0].algo;
    CHECK(a->loss == LOSS_PRIME_IPO && a->advantage == ADVANTAGE_NONE && r->stages[0].batch == 4);
    CHECK_NEAR(a->prime_drift, 0.01, 0);
    CHECK_NEAR(a->epsilon_high, 0.05, 0);
    recipe_free(r), free(text);
    static const char *const bad[] = {"a: [1", "- 1\n- 2\n", "a: &x 1\nb: *x\n", "a: 1\n---\nb: 2\n", "{\"a\":1,\"a\":2}", "? [a]\n: 1\n"};
    for (int i = 0; i < COUNT(bad); i++) free(convert("bad.yaml", bad[i], "trl", 65));
    scratch_remove();
}

// prime-rl's own files are TOML; what tomllib makes of such texts was compared once, here the rules that matter.
static void from_toml(void) {
    char *text = convert("rl.toml", "max_steps = 9 # comment\n[model]\nname = 'some/model'\n[orchestrator]\nbatch_size = 1_28\ngroup_size = 0x10\n"
                                    "[orchestrator.algo]\ntype = \"max_rl\"\n[orchestrator.train.sampling]\nmax_completion_tokens = 64\n"
                                    "[[orchestrator.train.source]]\nname = \"a\"\n[orchestrator.train.source.env.taskset]\nid = \"b\"\n"
                                    "[orchestrator.eval]\ninterval = 3\nnum_examples = 50\n[trainer]\noptim.lr = 3e-6\nloss = { type = \"ipo\", kl_tau = 0.5 }\n"
                                    "[ckpt]\n[monitors.wandb]\nproject = \"\"\"x\\\n  y\"\"\"\n", "prime", 0);
    contains(text, "--   monitors.wandb.project = \"xy\"\n");
    contains(text, "orchestrator.train.source");
    Recipe *r = converted();
    const Stage *s = &r->stages[0];
    CHECK_STR(r->model_path, "some/model");
    CHECK(s->steps == 9 && s->group_size == 16 && s->batch == 8 && s->sampling.max_tokens == 64 && s->evaluate_every == 3);
    CHECK(s->algo.advantage == ADVANTAGE_MAXRL && s->algo.loss == LOSS_PRIME_IPO && r->evaluate_items == 50);
    CHECK_NEAR(s->algo.prime_drift, 0.5, 0);
    CHECK_NEAR(s->optimizer.learning_rate, 3e-6, 0);
    recipe_free(r), free(text);
    static const char *const bad[] = {"a = 1\na = 2\n", "[a]\n[a]\n", "a = 01\n", "a = 1__0\n", "a = \"x\n\"\n", "a = {b=1,}\n", "a = [1 2]\n", "a\n",
                                      "a = {x=1}\n[a.b]\n", "a = [1]\n[[a]]\n", "a.b = 1\n[a]\n", "[a.b]\nx=1\n[a]\nb.y=2\n", "a = \"\\q\"\n",
                                      "# \xff\n", "[[a]]\n[a]\n", "a = inf\n", "a = [[[\n", "a = '''x", "a = 99999999999999999999\n"};
    for (int i = 0; i < COUNT(bad); i++) free(convert("bad.toml", bad[i], "prime", 65));
    scratch_remove();
}

// ---- presets ---------------------------------------------------------------------------------------------------------
static Recipe *with_algo(const char *algo) {
    char *text = xasprintf("return {model={preset='mini', max_positions=64}, characters='0123456789+=', tasks={{'arithmetic', levels={1}}},\n"
                           " stages={grpo{steps=2, sampling={max_tokens=20}, algo={%s}}}}", algo);
    scratch_file("recipe.lua", text);
    free(text);
    Recipe *r;
    Err err = {0};
    char *path = path_join(scratch_folder(), "recipe.lua");
    bool ok = recipe_read(path, NULL, &r, &err);
    free(path);
    OK(ok);
    return r;
}

static void presets_set_defaults(void) {
    Recipe *r = with_algo("preset='dapo'");
    const Stage *s = &r->stages[0];
    CHECK(s->group_size == 16 && s->algo.refills == 10 && s->algo.overlong_buffer == 4 && s->algo.dual_clip == 10);
    CHECK_NEAR(s->algo.epsilon_high, 0.28, 0);
    recipe_free(r);
    r = with_algo("preset='r1', kl=0.5");
    s = &r->stages[0];
    CHECK(s->batch == 32 && s->group_size == 16 && s->algo.loss == LOSS_GRPO && s->algo.reference_every == 400 && s->algo.kl == 0.5);
    CHECK_NEAR(s->algo.epsilon_high, 10, 0);
    CHECK_NEAR(s->optimizer.learning_rate, 3e-6, 0);
    recipe_free(r);
    r = with_algo("preset='prime'");
    CHECK(r->stages[0].algo.loss == LOSS_PRIME && r->stages[0].algo.advantage == ADVANTAGE_NONE);
    recipe_free(r);
    r = with_algo("loss='gspo'");
    CHECK_NEAR(r->stages[0].algo.epsilon_low, 3e-4, 0);
    CHECK_NEAR(r->stages[0].algo.epsilon_high, 4e-4, 0);
    recipe_free(r);
    r = with_algo("correction={level='token', high=0, reject='seq_mean_k1', reject_high=2}");
    const Correction *c = &r->stages[0].algo.correction;
    CHECK(isinf(c->high) && c->rejection_count == 1 && c->rejections[0].pool == POOL_MEAN);
    CHECK_NEAR(c->rejections[0].low, -log(2), 1e-15);
    recipe_free(r);
    scratch_remove();
}

// ---- objectives in Lua -----------------------------------------------------------------------------------------------
static const char surrogate[] =
    "return function(s)\n local loss, dlogprob = 0, {}\n"
    " for t = 1, s.length do\n  local r, a = math.exp(s.logprob[t] - s.old[t]), s.advantage[t]\n"
    "  local clipped = math.max(0.8, math.min(1.2, r))\n  local free = r * a <= clipped * a\n"
    "  local m = s.mask[t] / s.tokens\n"
    "  loss = loss - m * (free and r or clipped) * a\n  dlogprob[t] = -m * ((free or clipped == r) and r * a or 0)\n end\n"
    " return loss, dlogprob\nend\n";

static void lua_objective_is_the_table_s(void) {
    Err err = {0};
    ObjectiveScript *script;
    Algo algo = algo_default();
    scratch_file("mine.lua", surrogate);
    char *path = path_join(scratch_folder(), "mine.lua");
    OK(objective_script_open(path, &algo, &script, &err));
    double logprob[4] = {-1, -0.5, -2, -1.5}, old[4] = {-1.1, -1, -1.9, -1.5}, advantage = -0.7, mine[4], want[4], mine_entropy[4];
    uint8_t mask[4] = {1, 1, 0, 1};
    int32_t length = 4;
    ObjectiveInput in = {.sequences = 1, .length = &length, .logprob = logprob, .old_logprob = old, .mask = mask, .advantage = &advantage,
                         .step_tokens = 5, .step_sequences = 1};
    ObjectiveOutput a = {.dlogprob = mine, .dentropy = mine_entropy}, b = {.dlogprob = want};
    algo.loss = LOSS_BNPO;
    objective_compute(&algo, &in, &b);
    OK(objective_script_compute(script, &algo, &in, &a, &err));
    CHECK_NEAR(a.loss, b.loss, 1e-14);
    for (int t = 0; t < 4; t++) CHECK_NEAR(mine[t], want[t], 1e-14);
    objective_script_close(script);
    free(path);
    scratch_remove();
}

static void wrong_derivatives_are_refused(void) {
    static const char *const bad[] = {
        "return function(s) local d = {} for t = 1, s.length do d[t] = 1 end return 0, d end", // not the derivative of 0
        "return function(s) return 0, {} end", "return function(s) return 'x', {} end", "return 3", "return function(s) error('no') end",
        "return function(s) while true do end end",
        "return function(s) local l, d, e = 0, {}, {} for t = 1, s.length do l = l + s.entropy[t] * s.mask[t] d[t] = 0 e[t] = 0 end return l, d, e end",
    };
    Algo algo = algo_default();
    for (int i = 0; i < COUNT(bad); i++) {
        Err err = {0};
        ObjectiveScript *script;
        scratch_file("bad.lua", bad[i]);
        char *path = path_join(scratch_folder(), "bad.lua");
        if (objective_script_open(path, &algo, &script, &err)) FAIL("taken: %s", bad[i]);
        CHECK_INT(err.code, ERR_DATA);
        free(path);
    }
    scratch_remove();
}

static const Test tests[] = {
    {"from_trl", from_trl},
    {"from_verl", from_verl},
    {"from_the_others", from_the_others},
    {"from_toml", from_toml},
    {"presets_set_defaults", presets_set_defaults},
    {"lua_objective_is_the_table_s", lua_objective_is_the_table_s},
    {"wrong_derivatives_are_refused", wrong_derivatives_are_refused},
};
TEST_MAIN(tests)
