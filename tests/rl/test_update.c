// The update against its definition, on a model of two layers: what update_batch leaves as gradients, packed by whole
// groups, is what single sequences give one by one; a small step along it lowers the loss by the square of its norm
// (a finite difference of the loss itself, computed apart); and the check that sampler and trainer agree sees one bit.
// What a policy keeps of a rollout is tampered with below; two names of its inside are also names of this room's.
#define Stage PolicyStage
#define Pool KernelsPool
#include "model.h"
#undef Stage
#undef Pool
#include "../../rl/stages.h"
#include "train_test.h"

typedef struct World {
    Recipe *recipe;
    RewardPool *rewards;
    Tasks *tasks;
    Policy *policy, *reference;
    Batch batch;
    StepReport report;
    Trainer trainer;
} World;

static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n / (1 + #s.completion)\nend";

// eps=1 makes AdamW's first step nearly plain descent: rate * g / (|g| + 1) with |g| small.
#define STAGE(algo) STAGE_OF("max_tokens=10", algo)
#define STAGE_OF(sampling, algo) STAGE_BY("4", sampling, algo)
#define STAGE_BY(group_size, sampling, algo)                                                                                        \
    "return {model={preset='mini', max_positions=48, precision='fp32'}, characters='0123456789+=', threads=1, seed=5,\n" \
    " tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, microbatch_tokens=120,\n"                  \
    " stages={grpo{steps=9, prompts=6, group_size=" group_size ", sampling={" sampling "},\n"                            \
    "  optimizer={learning_rate=1e-9, schedule='constant', eps=1, max_gradient_norm=0}, algo={" algo "}}}}"

// A rollout of step 1, scored and with its advantages.
static void world_open(World *w, const char *recipe) {
    Err err = {0};
    *w = (World){0};
    scratch_file("ones.lua", ones);
    scratch_file("recipe.lua", recipe);
    char *path = path_join(scratch_folder(), "recipe.lua");
    bool ok = recipe_read(path, NULL, &w->recipe, &err);
    free(path);
    OK(ok);
    const Recipe *r = w->recipe;
    OK(reward_pool_open(r->rewards, r->reward_count, 1, &r->reward_limits, &w->rewards, &err));
    OK(tasks_open(r, &w->tasks, &err));
    Tokenizer *t;
    OK(tokenizer_from_characters(r->characters, &t, &err));
    PolicyOptions o = {.precision = r->precision, .threads = 1, .trainable = true, .int8 = recipe_samples_int8(r)};
    OK(policy_create(&r->config, t, r->seed, &o, &w->policy, &err));
    w->trainer = (Trainer){.recipe = r, .tasks = w->tasks, .rewards = w->rewards, .policy = w->policy};
    w->batch = (Batch){.step = 1, .stage = &r->stages[0], .stage_step = 1};
    w->report = (StepReport){.step = 1, .stage_step = 1, .kind = STAGE_GRPO};
    OK(rollout_batch(&w->trainer, &w->batch, &w->report, &err));
    OK(rewards_collect(&w->trainer, &w->batch, &w->report, &err));
    advantages_assign(&w->trainer, &r->stages[0], &w->batch, &w->report);
    CHECK(w->report.groups_without_variance < w->report.groups);
}

static void world_close(World *w) {
    batch_free(&w->batch);
    policy_close(w->reference);
    policy_close(w->policy);
    tasks_close(w->tasks);
    reward_pool_close(w->rewards);
    recipe_free(w->recipe);
    scratch_remove();
}

// The loss of the batch under the policy as it is, and with `keep` its gradient, each sequence alone in its pass.
static double loss_alone(World *w, bool keep) {
    Err err = {0};
    Batch *b = &w->batch;
    const Algo *algo = &b->stage->algo;
    Packing packing = {0};
    double loss = 0, tokens = 0;
    for (int i = 0; i < b->episode_count; i++) tokens += b->episodes[i].completion.length;
    if (keep) policy_zero_gradients(w->policy);
    for (int i = 0; i < b->episode_count; i++) {
        const Episode *e = &b->episodes[i];
        const Prompt *p = &b->prompts[e->prompt];
        int32_t n = e->completion.length;
        float logprob[64], entropy[64], ref[64], dlogprob[64], dentropy[64];
        double lp[64], old[64], en[64], rf[64], dl[64], de[64];
        packing_reset(&packing, b->stage->sampling.temperature);
        packing_prompt(&packing, p->ids.data, p->ids.count);
        // Every token a target, given ones too: what they get is left out here, by hand.
        const Completion *c = &e->completion;
        int32_t total = completion_total(c), at[64];
        packing_completion(&packing, &(Completion){.ids = (int32_t *)(uintptr_t)completion_all(c), .length = total});
        for (int32_t j = 0, k = 0; k < total; k++)
            if (!c->given || !c->given[k]) at[j++] = k;
        const Packed *packed = packing_view(&packing);
        if (w->reference) OK(policy_forward(w->reference, packed, false, ref, NULL, &err));
        OK(policy_forward(w->policy, packed, keep, logprob, entropy, &err));
        for (int32_t j = 0; j < n; j++)
            lp[j] = logprob[at[j]], old[j] = c->logprob[j], en[j] = entropy[at[j]], rf[j] = w->reference ? ref[at[j]] : 0;
        ObjectiveInput in = {.sequences = 1, .length = &n, .logprob = lp, .old_logprob = old, .ref_logprob = w->reference ? rf : NULL,
                             .entropy = en, .advantage = &e->advantage, .max_completion = b->stage->sampling.max_tokens,
                             .step_sequences = b->episode_count, .step_tokens = tokens, .rollout_tokens = tokens};
        ObjectiveOutput out = {.dlogprob = dl, .dentropy = de};
        objective_compute(algo, &in, &out);
        loss += out.loss;
        for (int32_t k = 0; k < total; k++) dlogprob[k] = dentropy[k] = 0;
        for (int32_t j = 0; j < n; j++) dlogprob[at[j]] = (float)dl[j], dentropy[at[j]] = (float)de[j];
        if (keep) OK(policy_backward(w->policy, packed, dlogprob, algo->entropy != 0 ? dentropy : NULL, &err));
    }
    packing_free(&packing);
    return loss;
}

static void packed_gradients(const char *name, const char *recipe) {
    World w;
    Err err = {0};
    double norm[64];
    world_open(&w, recipe);
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err)); // at a rate of 1e-9 the weights stay, within rounding
    CHECK(w.report.ratio_max == 0 && !w.report.skipped && w.report.groups_trained > 1);
    int count = policy_parameter_count(w.policy);
    CHECK(count <= COUNT(norm));
    for (int i = 0; i < count; i++) norm[i] = policy_parameter_gradient_norm(w.policy, i);
    double loss = loss_alone(&w, true);
    if (!(fabs(loss - w.report.loss) <= 1e-6 * (1 + fabs(loss)))) FAIL("%s: loss %.9g, one by one %.9g", name, w.report.loss, loss);
    for (int i = 0; i < count; i++) {
        double alone = policy_parameter_gradient_norm(w.policy, i);
        if (!(fabs(norm[i] - alone) <= 2e-4 * alone + 1e-9))
            FAIL("%s: gradient norm of %s is %.9g packed, %.9g one by one", name, policy_parameter_name(w.policy, i), norm[i], alone);
    }
    world_close(&w);
}

static void packing_changes_no_gradient(void) {
    packed_gradients("grpo", STAGE("loss='grpo'"));
    packed_gradients("bnpo", STAGE("loss='bnpo'"));
    packed_gradients("dr_grpo", STAGE("loss='dr_grpo', advantage='none'"));
    packed_gradients("dapo", STAGE("loss='dapo', advantage='batch'"));
    packed_gradients("entropy", STAGE("loss='dapo', entropy=0.1"));
    packed_gradients("a group in parts", STAGE_BY("150", "max_tokens=24", "loss='dapo', entropy=0.1"));
}

// The cut of a group is its own: whole completions, in their order, each part as full as it may be.
static void groups_are_cut(void) {
    enum { PROMPT = 20, COUNT_OF = 40 };
    Completion completions[COUNT_OF], given = {.length = 5, .total = 2000, .given = (uint8_t[1]){0}};
    const Completion *all[COUNT_OF];
    for (int i = 0; i < COUNT_OF; i++) completions[i] = (Completion){.length = 10 + 7 * i}, all[i] = &completions[i];
    int64_t limit = packing_part_limit(PROMPT), tokens = 0;
    CHECK(limit == 1024 && packing_part_limit(256) == 2048);
    int parts = 0;
    PackingPart part;
    for (int from = 0; from < COUNT_OF; from += part.count, parts++) {
        part = packing_part(PROMPT, all + from, COUNT_OF - from);
        int64_t sum = PROMPT;
        for (int i = from; i < from + part.count; i++) sum += completions[i].length - 1;
        CHECK(part.count > 0 && part.tokens == sum && sum <= limit);
        if (from + part.count < COUNT_OF) CHECK(sum + completions[from + part.count].length - 1 > limit);
        tokens += sum;
    }
    CHECK(parts > 3 && packing_tokens(PROMPT, all, COUNT_OF) == tokens);
    all[1] = &given; // longer than a part: alone, and whole
    part = packing_part(PROMPT, all + 1, 2);
    CHECK(part.count == 1 && part.tokens == PROMPT + 1999);
    CHECK(packing_part(PROMPT, all, 2).count == 1);
}

// Tokens given to completions are passed through: no loss, mask or count knows of them.
#define GIVEN(algo) STAGE_OF("max_tokens=12, think_tokens=4", algo)
static void given_tokens_have_no_loss(void) {
    World w;
    Err err = {0};
    int64_t sampled = 0, given = 0;
    world_open(&w, GIVEN("loss='dapo'"));
    for (int i = 0; i < w.batch.episode_count; i++) {
        const Episode *e = &w.batch.episodes[i];
        given += completion_total(&e->completion) - e->completion.length;
        CHECK_INT(e->think_tokens + e->answer_tokens, e->completion.length);
        if (!e->completion.given) continue;
        CHECK_INT(e->think_tokens, 4);
        CHECK(strstr(e->text, "</think>"));
        if (e->active && e->advantage != 0) sampled += e->completion.length;
    }
    for (int i = 0; i < w.batch.episode_count; i++)
        if (!w.batch.episodes[i].completion.given && w.batch.episodes[i].advantage != 0) sampled += w.batch.episodes[i].completion.length;
    CHECK(given > 5);
    CHECK_NEAR(w.report.given_mean * w.batch.episode_count, (double)given, 1e-9);
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
    CHECK_INT(w.report.trained_tokens, sampled);
    world_close(&w);
    packed_gradients("grpo, given", GIVEN("loss='grpo'"));
    packed_gradients("dr_grpo, given", GIVEN("loss='dr_grpo', advantage='none'"));
    packed_gradients("gspo, given", GIVEN("loss='gspo'"));
    packed_gradients("dapo with entropy, given", GIVEN("loss='dapo', entropy=0.1"));
}

// Fresh worlds are the same bits: only the rate differs.
static double loss_after(double rate, const char *algo_recipe, double *before, double *norm) {
    World w;
    Err err = {0};
    world_open(&w, algo_recipe);
    *before = loss_alone(&w, false);
    Stage *stage = (Stage *)(uintptr_t)w.batch.stage;
    stage->optimizer.learning_rate = rate;
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
    *norm = w.report.gradient_norm;
    double after = loss_alone(&w, false);
    world_close(&w);
    return after;
}

// A step of length h along the gradient lowers the loss by h |g|^2 in the limit; two steps, h and 2h, cancel the
// curvature.
static void a_step_lowers_the_loss(void) {
    static const struct {
        const char *name, *recipe;
    } cases[] = {{"grpo", STAGE("loss='grpo', epsilon_low=0.9, epsilon_high=9")},
                 {"dapo", STAGE("loss='dapo', epsilon_low=0.9, epsilon_high=9")},
                 {"dr_grpo", STAGE("loss='dr_grpo', epsilon_low=0.9, epsilon_high=9")},
                 {"entropy", STAGE("loss='dapo', epsilon_low=0.9, epsilon_high=9, entropy=0.05")}};
    for (int i = 0; i < COUNT(cases); i++) {
        double before, norm, h = 0.02;
        double one = loss_after(h, cases[i].recipe, &before, &norm), two = loss_after(2 * h, cases[i].recipe, &before, &norm);
        double slope = (4 * (before - one) - (before - two)) / (2 * h);
        if (!(fabs(slope - norm * norm) <= 0.03 * norm * norm))
            FAIL("%s: the loss falls by %.6g a unit of rate, the gradient's norm squared is %.6g", cases[i].name, slope, norm * norm);
    }
}

// The divergence pulls back: its gradient alone, of a policy that has moved away from its reference.
static void divergence_pulls_back(void) {
    World w;
    Err err = {0};
    world_open(&w, STAGE("kl=1"));
    OK(policy_freeze_copy(w.policy, &w.reference, &err));
    w.trainer.reference = w.reference;
    Stage *stage = (Stage *)(uintptr_t)w.batch.stage;
    stage->optimizer.learning_rate = 0.3;
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
    CHECK(w.report.kl == 0); // nothing has moved before the first step
    // Without advantages only the divergence is left; the recorded logprobs are no longer this policy's.
    for (int i = 0; i < w.batch.episode_count; i++) w.batch.episodes[i].advantage = 0;
    double before = loss_alone(&w, false);
    CHECK(before > 0);
    double value = loss_alone(&w, true), norm = policy_gradient_norm(w.policy);
    CHECK(value == before && norm > 0);
    policy_reset_optimizer(w.policy);
    OK(policy_update(w.policy, &(AdamW){.learning_rate = 0.02, .eps = 1, .scale = 1}, &err));
    double after = loss_alone(&w, false);
    if (!(fabs((before - after) / 0.02 - norm * norm) <= 0.2 * norm * norm))
        FAIL("the divergence falls from %.6g to %.6g, the gradient's norm is %.6g", before, after, norm);
    world_close(&w);
}

static void one_tampered_bit_is_seen(void) {
    World w;
    Err err = {0};
    world_open(&w, STAGE("loss='grpo'"));
    Episode *e = NULL;
    for (int i = 0; i < w.batch.episode_count; i++)
        if (w.batch.episodes[i].advantage != 0 && w.batch.episodes[i].completion.length > 2) e = &w.batch.episodes[i];
    CHECK(e != NULL);
    uint32_t bits;
    memcpy(&bits, &e->completion.logprob[2], 4);
    bits ^= 1;
    memcpy(&e->completion.logprob[2], &bits, 4);
    char before[65], after[65], expected[80];
    OK(policy_hash(w.policy, before, &err));
    CHECK(!update_batch(&w.trainer, &w.batch, &w.report, &err));
    CHECK_INT(err.code, ERR_SOFTWARE);
    CHECK_STR(err.where, "sampler and trainer");
    snprintf(expected, sizeof expected, "step 1 prompt %d sample %d token 2 ", e->prompt, e->sample);
    if (!strstr(err.msg, expected)) FAIL("the message is: %s; expected %s", err.msg, expected);
    OK(policy_hash(w.policy, after, &err));
    CHECK_STR(after, before);
    // Without the tampering the same batch passes.
    bits ^= 1;
    memcpy(&e->completion.logprob[2], &bits, 4);
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
    world_close(&w);
}

// Samples drawn with weights in 8 bits keep the sampler's logprobs; the trainer's own stand beside them, their ratio is the
// weight of each token, and the loss is the weighted one, computed here from its definition.
static void rounded_samples_are_corrected(void) {
    enum { TOKENS = 6 * 4 * 10 };
    const double high = 1.0005;
    World w;
    Err err = {0};
    float drawn[TOKENS];
    double gap = 0, cut = 0, loss = 0;
    int tokens = 0, at = 0, weighted = 0;
    world_open(&w, STAGE("loss='dr_grpo', advantage='none', correction={high=1.0005}}, rollout={precision='int8'"));
    CHECK(w.batch.stage->algo.correction.level == CORRECTION_TOKEN); // as nothing else was said
    for (int i = 0; i < w.batch.episode_count; tokens += w.batch.episodes[i++].completion.length)
        memcpy(drawn + tokens, w.batch.episodes[i].completion.logprob, (size_t)w.batch.episodes[i].completion.length * sizeof *drawn);
    OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
    CHECK(!w.report.skipped && w.report.ratio_max == 0); // the loss's own ratio is the trainer's to itself
    for (int i = 0; i < w.batch.episode_count; i++) {
        const Episode *e = &w.batch.episodes[i];
        CHECK(memcmp(e->completion.logprob, drawn + at, (size_t)e->completion.length * sizeof *drawn) == 0);
        for (int32_t j = 0; j < e->completion.length; j++, at++) {
            double rho = exp((double)e->old_logprob[j] - (double)drawn[at]), weight = fmin(rho, high);
            CHECK_NEAR(e->weight[j], weight, 1e-12);
            gap += fabs((double)e->old_logprob[j] - (double)drawn[at]), cut += rho > high, weighted += weight != 1;
            loss -= weight * e->advantage / TOKENS;
        }
    }
    CHECK(weighted > tokens / 2 && cut > 0 && cut < tokens);
    CHECK_NEAR(w.report.sampler_gap, gap / tokens, 1e-12);
    CHECK_NEAR(w.report.corrected_share, cut / tokens, 1e-12);
    CHECK_NEAR(w.report.loss, loss, 1e-9);
    world_close(&w);
}

// Steps whose rollouts kept their activations end with the weights of those that didn't.
#define STAGE_KEEPING(activations, algo)                                                                                                \
    "return {model={preset='mini', max_positions=48, precision='bf16'}, characters='0123456789+=', threads=1, seed=5,\n"           \
    " tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, microbatch_tokens=120,\n"                                       \
    " stages={grpo{steps=9, prompts=6, group_size=4, sampling={max_tokens=10}, rollout={activations='" activations "'},\n"        \
    "  optimizer={learning_rate=1e-2, schedule='constant'}, algo={" algo "}}}}"
static void keep_and_drop(const char *name, const char *keep, const char *drop, double spared) {
    char hash[2][65];
    double flops[2];
    for (int i = 0; i < 2; i++) {
        World w;
        Err err = {0};
        world_open(&w, i ? drop : keep);
        policy_forget_flops(w.policy);
        OK(update_batch(&w.trainer, &w.batch, &w.report, &err));
        OK(policy_hash(w.policy, hash[i], &err));
        flops[i] = policy_flops(w.policy);
        double share = (double)w.report.spared_tokens / (double)w.report.trained_tokens;
        double expected = i ? 0 : spared, about = expected > 0 && expected < 1 ? 0.2 : 0;
        if (!(fabs(share - expected) <= about)) FAIL("%s: %g of the trained tokens were spared a forward pass, expected %g", name, share, expected);
        world_close(&w);
    }
    CHECK_STR(hash[0], hash[1]);
    if (spared == 1 && !(flops[0] < 0.85 * flops[1])) FAIL("%s: %g FLOPs with a forward pass, %g without", name, flops[1], flops[0]);
}
static void kept_activations_give_the_same_weights(void) {
#define BOTH(name, algo, spared) keep_and_drop(name, STAGE_KEEPING("keep", algo), STAGE_KEEPING("drop", algo), spared)
    BOTH("grpo", "loss='grpo'", 1);
    BOTH("an entropy bonus", "loss='dapo', entropy=0.1", 1);
    BOTH("two minibatches, twice", "loss='grpo', minibatches=2, epochs=2", 0.25);
    BOTH("a correction", "loss='grpo', correction={level='token'}", 1);
}

// Where no forward pass compares every token, one sample is computed anew: here all of them were tampered with.
static void a_spared_pass_is_checked(void) {
    World w;
    Err err = {0};
    world_open(&w, STAGE_KEEPING("keep", "loss='grpo'"));
    for (int i = 0; i < w.batch.episode_count; i++) {
        Completion *c = &w.batch.episodes[i].completion;
        CHECK(c->activations != 0);
        float *kept = &w.policy->retained.samples[(uint32_t)c->activations].record[0].logprob;
        CHECK(memcmp(kept, c->logprob, sizeof *kept) == 0);
        *kept = c->logprob[0] = nextafterf(c->logprob[0], -1);
    }
    CHECK(!update_batch(&w.trainer, &w.batch, &w.report, &err));
    CHECK_STR(err.where, "sampler and trainer");
    if (!strstr(err.msg, "differ at step 1 prompt")) FAIL("the message is: %s", err.msg);
    world_close(&w);
}

static void keeping_is_refused(void) {
    static const struct {
        const char *stage, *message;
    } cases[] = {
        {"rollout={activations='keep', precision='int8'}", "'rollout.activations' in stages.1: found keep, expected drop or auto beside rollout.precision = \"int8\""},
        {"rollout={activations='keep', staleness=1}", "found keep, expected drop or auto beside rollout.staleness"},
        {"rollout={activations='keep', partial=1}", "found keep, expected drop or auto beside rollout.partial"},
        {"rollout={activations='keep'}, sampling={max_tokens=8, top_p=0.9}", "found keep, expected drop or auto where top_k, top_p or min_p leaves tokens out"},
        {"rollout={activations='some'}", "activations"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Recipe *r;
        Buf text = {0};
        buf_printf(&text, "return {model={preset='mini'}, characters='0123456789+=', tasks={{'arithmetic'}}, rewards={'ones.lua'}, stages={grpo{steps=2, prompts=4, group_size=4, %s}}}",
                   cases[i].stage);
        scratch_file("ones.lua", ones);
        scratch_file("recipe.lua", text.data);
        char *path = path_join(scratch_folder(), "recipe.lua");
        CHECK(!recipe_read(path, NULL, &r, &err));
        if (!strstr(err.msg, cases[i].message)) FAIL("%s: the message is: %s", cases[i].stage, err.msg);
        free(path);
        buf_free(&text);
    }
    scratch_remove();
}

static const Test tests[] = {
    {"packing changes no gradient", packing_changes_no_gradient},
    {"groups are cut", groups_are_cut},
    {"given tokens have no loss", given_tokens_have_no_loss},
    {"a small step lowers the loss by the gradient's square", a_step_lowers_the_loss},
    {"the divergence pulls back", divergence_pulls_back},
    {"one tampered bit is seen", one_tampered_bit_is_seen},
    {"rounded samples are corrected", rounded_samples_are_corrected},
    {"kept activations give the same weights", kept_activations_give_the_same_weights},
    {"a spared pass is checked", a_spared_pass_is_checked},
    {"keeping activations is refused", keeping_is_refused},
};
TEST_MAIN(tests)
