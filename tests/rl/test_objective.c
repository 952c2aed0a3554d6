// The objective: derivatives against central differences for every loss and option under ragged masks,
// NaN under a mask, and that no split into microbatches changes a gradient. Also the learning-rate schedules.
#include "../test.h"
#include "calc_cases.h"
#include "rl.h"

// ---- a random minibatch ----------------------------------------------------------------------------------
enum { SEQUENCES = 5, TOKENS = 40 };
typedef struct Minibatch {
    int32_t length[SEQUENCES];
    int count;
    double logprob[TOKENS], frozen[TOKENS], old[TOKENS], sampler[TOKENS], ref[TOKENS], entropy[TOKENS], advantage[SEQUENCES],
        by_token[TOKENS], weight[TOKENS];
    uint8_t mask[TOKENS], chosen[TOKENS];
    ObjectiveInput in;
} Minibatch;

typedef enum MaskKind { MASK_NONE, MASK_SOME, MASK_ONE_SEQUENCE, MASK_ALL, MASKS } MaskKind;

static void fill(Minibatch *b, MaskKind masks, uint64_t seed) {
    static const int32_t length[SEQUENCES] = {7, 1, 12, 0, 9};
    Random r = random_start(seed, STREAM_TEST, 0);
    b->count = 0;
    double active = 0;
    for (int s = 0; s < SEQUENCES; s++) {
        b->length[s] = length[s];
        b->advantage[s] = random_normal(&r);
        for (int t = 0; t < length[s]; t++, b->count++) {
            int i = b->count;
            b->logprob[i] = b->frozen[i] = -3 * random_double(&r) - 0.01;
            b->old[i] = fmin(-0.01, b->logprob[i] + 0.5 * random_normal(&r));
            b->sampler[i] = fmin(-0.01, b->old[i] + 0.2 * random_normal(&r));
            b->weight[i] = 2 * random_double(&r);
            b->chosen[i] = random_double(&r) < 0.3;
            b->ref[i] = b->logprob[i] + 0.5 * random_normal(&r);
            b->entropy[i] = random_double(&r);
            b->by_token[i] = random_normal(&r);
            b->mask[i] = masks == MASK_ALL ? 0 : masks == MASK_ONE_SEQUENCE ? s != 2 : random_double(&r) < 0.6;
            active += masks == MASK_NONE || b->mask[i];
        }
    }
    b->in = (ObjectiveInput){.sequences = SEQUENCES, .length = b->length, .logprob = b->logprob, .frozen = b->frozen, .old_logprob = b->old,
                             .ref_logprob = b->ref, .entropy = b->entropy, .mask = masks == MASK_NONE ? NULL : b->mask,
                             .advantage = b->advantage, .max_completion = 16, .step_sequences = SEQUENCES,
                             .step_tokens = active, .rollout_tokens = 1.5 * active};
}

// What may stand beside a loss; the loss itself is set by the test.
typedef enum Option { WITH_PLAIN, WITH_DELTA, WITH_DUAL_CLIP, WITH_BOUND, WITH_KL, WITH_KL_RATIO, WITH_KL_PLUS, WITH_KL_ABS, WITH_ENTROPY, WITH_ENTROPY_AS_LOSS, WITH_TOP_ENTROPY, WITH_OFF_POLICY, WITH_WEIGHTS,
                      WITH_BY_TOKEN, WITH_SEQUENCE, WITH_SEQUENCE_TOKEN, OPTIONS } Option;
static Algo algo_with(LossKind loss, Option option) {
    Algo a = algo_default();
    a.loss = loss, a.cov_kl = 0.7, a.prime_drift = 0.05;
    if (option == WITH_DELTA) a.delta = 1.1;
    if (option == WITH_DUAL_CLIP) a.dual_clip = 1.3;
    if (option == WITH_BOUND) a.log_ratio_bound = 0.6, a.length_eps = 1e-8;
    if (option >= WITH_KL && option <= WITH_KL_ABS) a.kl = 0.05;
    a.kl_times_ratio = option == WITH_KL_RATIO;
    if (option == WITH_KL_PLUS) a.kl_form = (Kl){KL_K3_PLUS, 20, 10};
    if (option == WITH_KL_ABS) a.kl_form.estimator = KL_ABS;
    if (option == WITH_ENTROPY || option == WITH_ENTROPY_AS_LOSS || option == WITH_TOP_ENTROPY) a.entropy = 0.02;
    a.entropy_as_loss = option == WITH_ENTROPY_AS_LOSS;
    if (option == WITH_TOP_ENTROPY) a.top_entropy = 0.4;
    if (option == WITH_OFF_POLICY) a.off_policy_threshold = 0.05;
    if (option == WITH_SEQUENCE && loss != LOSS_GMPO) a.ratio = RATIO_SEQUENCE;
    if (option == WITH_SEQUENCE_TOKEN && loss != LOSS_GMPO) a.ratio = RATIO_SEQUENCE_TOKEN;
    return a;
}
static void apply_option(Minibatch *b, const Algo *algo, Option option) {
    if (option == WITH_BY_TOKEN) b->in.token_advantage = b->by_token;
    if (option == WITH_WEIGHTS) b->in.weight = b->weight;
    if (option == WITH_OFF_POLICY) b->in.sampler_logprob = b->sampler;
    if (option == WITH_TOP_ENTROPY) step_survey(algo, &b->in, &b->in.entropy_threshold, b->chosen);
    if (algo->kl == 0) b->in.ref_logprob = NULL;
    b->in.chosen = b->chosen;
}

static double loss_of(const Algo *algo, const Minibatch *b, ObjectiveOutput *out) {
    objective_compute(algo, &b->in, out);
    return out->loss;
}

// d loss / d values[i] by central differences; the loss has kinks at the edges of the clip range, which random ratios
// miss by far more than the step.
static void check_derivative(const Algo *algo, Minibatch *b, double *values, const double *derivative, const char *what) {
    double scratch[2][TOKENS], h = 1e-6;
    ObjectiveOutput out = {.dlogprob = scratch[0], .dentropy = scratch[1]};
    for (int i = 0; i < b->count; i++) {
        double at = values[i];
        values[i] = at + h;
        double up = loss_of(algo, b, &out);
        values[i] = at - h;
        double down = loss_of(algo, b, &out);
        values[i] = at;
        double want = (up - down) / (2 * h);
        if (!(fabs(derivative[i] - want) <= 1e-8 + 1e-6 * fabs(want)))
            FAIL("%s, %s of token %d: got %.12g, differences give %.12g", loss_name(algo->loss), what, i, derivative[i], want);
    }
}

// Every loss of the table, beside every option, under every mask.
static void derivatives(void) {
    static Minibatch b;
    double dlogprob[TOKENS], dentropy[TOKENS];
    for (LossKind loss = 0; loss < LOSS_TERMS_ONLY; loss++)
        for (Option option = 0; option < OPTIONS; option++)
            for (MaskKind masks = MASK_NONE; masks < MASKS; masks++) {
                Algo algo = algo_with(loss, option);
                fill(&b, masks, (uint64_t)(100 * (int)option + 10 * (int)masks));
                apply_option(&b, &algo, option);
                ObjectiveOutput out = {.dlogprob = dlogprob, .dentropy = dentropy};
                objective_compute(&algo, &b.in, &out);
                CHECK(isfinite(out.loss));
                check_derivative(&algo, &b, b.logprob, dlogprob, "dlogprob");
                if (option != WITH_TOP_ENTROPY) check_derivative(&algo, &b, b.entropy, dentropy, "dentropy");
            }
}

static void on_policy_ratio_is_one(void) {
    static Minibatch b;
    double with_old[TOKENS], without[TOKENS];
    Algo algo = {.loss = LOSS_DAPO, .epsilon_low = 0.2, .epsilon_high = 0.2};
    fill(&b, MASK_SOME, 3);
    ObjectiveOutput first = {.dlogprob = with_old}, second = {.dlogprob = without};
    b.in.ref_logprob = NULL;
    b.in.old_logprob = b.logprob;
    objective_compute(&algo, &b.in, &first);
    b.in.old_logprob = NULL;
    objective_compute(&algo, &b.in, &second);
    CHECK(first.ratio_max == 0 && first.clipped == 0 && first.loss == second.loss);
    CHECK(memcmp(with_old, without, sizeof(double) * (size_t)b.count) == 0);
    for (int i = 0, s = 0, t = 0; i < b.count; i++, t++) {
        while (t == b.length[s]) s++, t = 0;
        CHECK_NEAR(without[i], b.mask[i] ? -b.advantage[s] / b.in.rollout_tokens : 0, 1e-15);
    }
}

static void masked_nan_does_not_leak(void) {
    static Minibatch clean, dirty;
    double a[2][TOKENS], c[2][TOKENS];
    for (LossKind loss = 0; loss < LOSS_TERMS_ONLY; loss++) {
        Algo algo = algo_with(loss, WITH_KL_RATIO);
        algo.entropy = 0.02;
        fill(&clean, MASK_SOME, 9);
        fill(&dirty, MASK_SOME, 9);
        for (int i = 0; i < dirty.count; i++)
            if (!dirty.mask[i]) dirty.logprob[i] = dirty.frozen[i] = dirty.old[i] = dirty.ref[i] = dirty.entropy[i] = i % 2 ? NAN : -INFINITY;
        ObjectiveOutput x = {.dlogprob = a[0], .dentropy = a[1]}, y = {.dlogprob = c[0], .dentropy = c[1]};
        objective_compute(&algo, &clean.in, &x);
        objective_compute(&algo, &dirty.in, &y);
        CHECK(x.loss == y.loss && x.kl_sum == y.kl_sum && x.clipped == y.clipped && x.ratio_max == y.ratio_max);
        for (int k = 0; k < 2; k++) CHECK(memcmp(a[k], c[k], sizeof(double) * (size_t)clean.count) == 0);
        // In an active token it must not vanish.
        int i = 0;
        while (!dirty.mask[i]) i++;
        dirty.logprob[i] = dirty.frozen[i] = NAN;
        objective_compute(&algo, &dirty.in, &y);
        CHECK(isnan(y.loss) && isnan(c[0][i]));
    }
}

static void clipping_is_counted(void) {
    int32_t length = 4;
    double logprob[4] = {0, 0, 0, 0}, old[4] = {-1, 1, 0, -800}, advantage = 1, dlogprob[4];
    Algo algo = {.loss = LOSS_BNPO, .epsilon_low = 0.2, .epsilon_high = 0.2};
    ObjectiveInput in = {.sequences = 1, .length = &length, .logprob = logprob, .old_logprob = old, .advantage = &advantage,
                         .step_tokens = 4};
    ObjectiveOutput out = {.dlogprob = dlogprob};
    objective_compute(&algo, &in, &out);
    CHECK(out.clipped_low + out.clipped_high <= out.clipped && out.clipped_high == 2);
    CHECK_NEAR(out.clipped, 2, 0); // ratios e and an overflow, pulled up no further
    CHECK(dlogprob[0] == 0 && dlogprob[3] == 0 && dlogprob[1] < 0 && dlogprob[2] == -0.25);
    CHECK_NEAR(out.loss, -(1.2 + exp(-1) + 1 + 1.2) / 4, 1e-15);
}

// Sequences given one by one, with the step's denominators and what was surveyed of the step, give the same gradient bits
// and the same loss: no split into microbatches and no number of ranks changes a gradient.
static void splits_change_nothing(void) {
    static Minibatch b;
    double whole[2][TOKENS], part[2][TOKENS];
    for (LossKind loss = 0; loss < LOSS_TERMS_ONLY; loss++)
        for (Option option = 0; option < OPTIONS; option++) {
            Algo algo = algo_with(loss, option);
            fill(&b, MASK_SOME, 21);
            apply_option(&b, &algo, option);
            ObjectiveOutput out = {.dlogprob = whole[0], .dentropy = whole[1]};
            objective_compute(&algo, &b.in, &out);
            double sum = 0;
            for (int s = 0, at = 0; s < SEQUENCES; at += b.length[s++]) {
                ObjectiveInput in = b.in;
                in.sequences = 1, in.length = b.length + s, in.advantage += s;
                in.logprob += at, in.frozen += at, in.old_logprob += at, in.entropy += at, in.mask += at, in.chosen += at;
                if (in.ref_logprob) in.ref_logprob += at;
                if (in.weight) in.weight += at;
                if (in.sampler_logprob) in.sampler_logprob += at;
                if (in.token_advantage) in.token_advantage += at;
                ObjectiveOutput o = {.dlogprob = part[0] + at, .dentropy = part[1] + at};
                objective_compute(&algo, &in, &o);
                sum += o.loss;
            }
            for (int k = 0; k < 2; k++)
                if (memcmp(whole[k], part[k], sizeof(double) * (size_t)b.count) != 0) FAIL("%s: a split changes a gradient", loss_name(loss));
            CHECK_NEAR(sum, out.loss, 1e-14);
        }
}

// The choices that look at a whole step.
static void surveys(void) {
    double logprob[6] = {-1, -2, -3, -0.5, -0.1, -4}, entropy[6] = {0.1, 0.5, 0.3, 0.2, 0.9, 0.4}, advantage[2] = {1, -1}, threshold;
    int32_t length[2] = {3, 3};
    uint8_t mask[6] = {1, 1, 1, 1, 1, 0}, chosen[6];
    ObjectiveInput in = {.sequences = 2, .length = length, .logprob = logprob, .entropy = entropy, .mask = mask, .advantage = advantage};
    Algo a = algo_default();
    CHECK(!objective_surveys(&a));
    a.top_entropy = 0.5;
    CHECK(objective_surveys(&a));
    step_survey(&a, &in, &threshold, chosen);
    CHECK_NEAR(threshold, 0.3, 1e-15); // the middle of 0.1 0.2 0.3 0.5 0.9
    a = algo_default(), a.loss = LOSS_KL_COV, a.cov_share = 0.4;
    step_survey(&a, &in, &threshold, chosen);
    // (A - 0.2)(lp + 1.32): 0.256 -0.544 -1.344 -0.984 -1.464
    CHECK(chosen[0] && chosen[1] && !chosen[2] && !chosen[3] && !chosen[4] && !chosen[5]);
    a.loss = LOSS_CLIP_COV, a.cov_low = -2, a.cov_high = 0;
    step_survey(&a, &in, &threshold, chosen);
    CHECK(!chosen[0] && chosen[1] && chosen[2] && !chosen[3] && !chosen[4]); // the first two of the range
}

static void corrections(void) {
    double old[4] = {-1, -1, -1, -1}, sampler[4] = {-1, -2, -0.5, NAN}, weight[4];
    int32_t length[2] = {2, 2};
    uint8_t keep[4];
    Correction c = {.level = CORRECTION_TOKEN, .mode = CORRECTION_TRUNCATE, .low = 0, .high = 2};
    correction_compute(&c, 2, length, old, sampler, NULL, weight, keep);
    CHECK(weight[0] == 1 && weight[1] == 2 && weight[3] == 1 && keep[1]);
    CHECK_NEAR(weight[2], exp(-0.5), 1e-15);
    CHECK_NEAR(correction_share(&c, 2, length, old, sampler, NULL, keep), 0.25, 0); // one of the four is cut back
    c.mode = CORRECTION_MASK;
    correction_compute(&c, 2, length, old, sampler, NULL, weight, keep);
    CHECK(weight[1] == 0);
    c = (Correction){.level = CORRECTION_SEQUENCE, .high = INFINITY, .rejection_count = 1, .rejections = {{STATISTIC_K2, POOL_MAX, -INFINITY, 0.2}}};
    correction_compute(&c, 2, length, old, sampler, NULL, weight, keep);
    CHECK_NEAR(weight[0], exp(1), 1e-14);
    CHECK(weight[0] == weight[1] && !keep[0] && !keep[1] && keep[2] && keep[3]);
    CHECK_NEAR(correction_share(&c, 2, length, old, sampler, NULL, keep), 0.5, 0); // two are dropped
    CHECK_NEAR(correction_share(&c, 2, length, old, sampler, (const uint8_t[]){0, 0, 1, 1}, keep), 0, 0);
}

static void coefficients_move(void) {
    CHECK_NEAR(kl_controlled(0.02, 0.061655, 0.04, 64, 1000), 0.020256, 1e-15);
    Algo a = algo_default();
    a.entropy_target = 0.5;
    CHECK_NEAR(entropy_controlled(&a, 0.02, 0.4), 0.025, 1e-15);
    CHECK_NEAR(entropy_controlled(&a, 0.002, 0.6), 0, 0);
}

// ---- calc's refusals -------------------------------------------------------------------------------------
#define CASE(config, inputs) "{\"cases\":[{\"name\":\"a\",\"source\":\"trl 1\",\"config\":{" config "},\"inputs\":{" inputs "}}]}"
#define CONFIG "\"loss_type\":\"bnpo\",\"epsilon\":0.2"
#define INPUTS "\"logprobs\":[[-1,-2]],\"advantages\":[1]"

static void refused(const char *text, const char *why) {
    Buf out;
    CHECK_INT(calc_text("objective", text, &out), 0);
    char *want = xasprintf("{\"cases\":[{\"name\":\"a\",\"unsupported\":\"%s\"}]}\n", why);
    CHECK_STR(out.data, want);
    free(want), buf_free(&out);
}

static void unsupported_names_the_option(void) {
    refused(CASE(CONFIG ",\"importance_sampling_level\":\"word\"", INPUTS), "importance_sampling_level = \\\"word\\\"");
    refused(CASE(CONFIG ",\"delta\":0", INPUTS), "delta = 0");
    refused(CASE(CONFIG ",\"new_option\":null", INPUTS), "new_option = null");
    refused(CASE(CONFIG, INPUTS ",\"values\":[[1,2]]"), "input values");
    refused(CASE("\"loss_type\":\"new\",\"epsilon\":0.2", INPUTS), "loss_type = \\\"new\\\"");
    refused("{\"source\":\"other 9\",\"cases\":[{\"name\":\"a\",\"config\":{},\"inputs\":{}}]}", "source = \\\"other 9\\\"");
}

static void malformed_is_65(void) {
    static const char *const bad[] = {
        "", "[]", "{}", "{\"cases\":3}", "{\"cases\":[1]}", "{\"cases\":[{\"source\":\"trl 1\",\"config\":3}]}",
        CASE("", INPUTS), CASE("\"loss_type\":\"grpo\"", INPUTS), CASE("\"loss_type\":3", INPUTS),
        CASE(CONFIG ",\"beta\":\"x\"", INPUTS), CASE(CONFIG ",\"gradient_accumulation_steps\":0", INPUTS),
        CASE(CONFIG, "\"logprobs\":[[-1,-2]]"), CASE(CONFIG, "\"logprobs\":[1],\"advantages\":[1]"),
        CASE(CONFIG, "\"logprobs\":[[-1,\"x\"]],\"advantages\":[1]"), CASE(CONFIG, "\"logprobs\":[[-1,-2]],\"advantages\":[1,2]"),
        CASE(CONFIG, INPUTS ",\"mask\":[[1]]"), CASE(CONFIG, INPUTS ",\"mask\":[[1,2]]"), CASE(CONFIG, INPUTS ",\"mask\":[]"),
        CASE(CONFIG ",\"beta\":0.1", INPUTS), CASE(CONFIG ",\"entropy_coef\":0.1", INPUTS),
        CASE("\"loss_type\":\"dr_grpo\",\"epsilon\":0.2", INPUTS),
    };
    for (int i = 0; i < COUNT(bad); i++) {
        int code = calc_text("objective", bad[i], NULL);
        if (code != 65) FAIL("exit %d, want 65, for %s", code, bad[i]);
    }
    Buf out;
    CHECK_INT(calc_text("weights", "{}", NULL), 64);
    CHECK_INT(calc_run("objective", "/nonexistent", &out), 66);
    buf_free(&out);
}

static void missing_name_stays_missing(void) {
    Buf out;
    CHECK_INT(calc_text("objective", "{\"source\":\"trl 1\",\"cases\":[{\"config\":{" CONFIG "},\"inputs\":{" INPUTS "}}]}", &out), 0);
    CHECK_STR(out.data, "{\"cases\":[{\"expected\":{\"dloss_dlogprobs\":[[-0.5,-0.5]],\"loss\":-1.0}}]}\n");
    buf_free(&out);
}

// ---- schedules -------------------------------------------------------------------------------------------
static void schedules_of_transformers(void) {
    Err err = {0};
    json_t *file, *c;
    size_t index;
    int compared = 0;
    OK(json_read_file(TEST_DATA "/rl/lr_schedules.json", 1 << 20, &file, &err));
    json_array_foreach(json_object_get(file, "cases"), index, c) {
        json_t *config = json_object_get(c, "config"), *lr = json_object_get(json_object_get(c, "expected"), "lr");
        const char *name = json_string_value(json_object_get(config, "schedule"));
        Optimizer o = {.learning_rate = json_number_value(json_object_get(config, "lr")),
                       .warmup = (int)json_integer_value(json_object_get(config, "num_warmup_steps"))};
        int steps = (int)json_integer_value(json_object_get(config, "num_training_steps"));
        if (!strcmp(name, "constant_with_warmup")) o.schedule = SCHEDULE_CONSTANT;
        else if (!strcmp(name, "linear")) o.schedule = SCHEDULE_LINEAR;
        else if (!strcmp(name, "cosine") && !json_object_get(config, "num_cycles")) o.schedule = SCHEDULE_COSINE;
        else if (json_object_get(config, "min_lr_rate")) {
            o.schedule = SCHEDULE_COSINE;
            o.final_share = json_number_value(json_object_get(config, "min_lr_rate"));
        } else continue;
        compared++;
        for (int step = 1; step <= steps; step++) {
            double want = json_number_value(json_array_get(lr, (size_t)step - 1));
            CHECK_NEAR(schedule_rate(&o, step, steps), want, 1e-12);
        }
    }
    CHECK(compared >= 12);
    json_decref(file);
}

static void schedule_edges(void) {
    Optimizer o = {.learning_rate = 2, .schedule = SCHEDULE_LINEAR, .final_share = 0.5};
    CHECK_NEAR(schedule_rate(&o, 1, 1), 2, 0);
    CHECK_NEAR(schedule_rate(&o, 10, 10), 2 * (0.5 + 0.5 * 0.1), 1e-15);
    CHECK_NEAR(schedule_rate(&o, 11, 10), 1, 1e-15);
    o.warmup = 20; // longer than the run: it only warms up
    for (int step = 1; step <= 10; step++) CHECK_NEAR(schedule_rate(&o, step, 10), 2 * (step - 1) / 20.0, 1e-15);
}

static const Test tests[] = {
    {"derivatives", derivatives},
    {"on_policy_ratio_is_one", on_policy_ratio_is_one},
    {"masked_nan_does_not_leak", masked_nan_does_not_leak},
    {"clipping_is_counted", clipping_is_counted},
    {"splits_change_nothing", splits_change_nothing},
    {"surveys", surveys},
    {"corrections", corrections},
    {"coefficients_move", coefficients_move},
    {"unsupported_names_the_option", unsupported_names_the_option},
    {"malformed_is_65", malformed_is_65},
    {"missing_name_stays_missing", missing_name_stays_missing},
    {"schedules_of_transformers", schedules_of_transformers},
    {"schedule_edges", schedule_edges},
};
TEST_MAIN(tests)
