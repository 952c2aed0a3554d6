// Rollouts in 8 bits: what they sample depends neither on the batch nor on threads nor on the variant, is near what the trainer
// computes and not the same, and follows every update; what isn't asked for stays as it was.
#include "policy_test.h"
#include "files.h"

enum { PROMPTS = 3, SAMPLES = 4, TOKENS = 10 };

static Policy *make(const Shape *s, Precision precision, int threads, bool int8) {
    Err err = {0};
    Policy *p;
    ModelConfig c = shape_config(s);
    PolicyOptions options = {.precision = precision, .threads = threads, .device = "cpu", .trainable = true, .int8 = int8};
    OK(policy_create(&c, NULL, 7, &options, &p, &err));
    return p;
}

static Rollout roll(Policy *p, int32_t places, bool int8) {
    Err err = {0};
    Rollout out;
    Random r = random_start(5, STREAM_TEST, 0);
    static int32_t prompt[PROMPTS][40];
    RolloutRequest requests[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) {
        int32_t length = 3 + 17 * i;
        random_ids(&r, policy_config(p)->vocabulary, length, prompt[i]);
        requests[i] = (RolloutRequest){.prompt = prompt[i], .prompt_length = length, .samples = SAMPLES, .seed = 3, .prompt_index = (uint32_t)i,
                                       .sampling = {.temperature = 1, .top_p = 1, .max_tokens = TOKENS, .ignore_eos = true}};
    }
    OK(policy_rollout(p, requests, PROMPTS, &(RolloutOptions){.max_sequences = places, .int8 = int8}, &out, &err));
    CHECK_INT(out.count, PROMPTS * SAMPLES);
    return out;
}
static bool same(const Rollout *a, const Rollout *b) {
    for (int i = 0; i < a->count; i++) {
        const Completion *x = &a->completions[i], *y = &b->completions[i];
        if (x->length != y->length || memcmp(x->ids, y->ids, (size_t)x->length * 4) || memcmp(x->logprob, y->logprob, (size_t)x->length * 4) ||
            memcmp(x->entropy, y->entropy, (size_t)x->length * 4))
            return false;
    }
    return true;
}

static void nothing_but_its_own(void) {
    static const char *const variants[] = {NULL, "avx512", "avx2", "generic", "reference"};
    for (int s = 0; s < COUNT(shapes); s++)
        for (int precision = 0; precision < 2; precision++) {
            variant_use(NULL);
            Policy *p = make(&shapes[s], (Precision)precision, 1, true);
            Rollout whole = roll(p, 0, true), few = roll(p, SAMPLES, true), plain = roll(p, 0, false);
            if (!same(&whole, &few)) FAIL("%s %s: fewer at once, another rollout", shapes[s].name, precision_names[precision]);
            if (same(&whole, &plain)) FAIL("%s %s: 8 bits change nothing", shapes[s].name, precision_names[precision]);
            Policy *without = make(&shapes[s], (Precision)precision, 1, false);
            Rollout none = roll(without, 0, false);
            if (!same(&none, &plain)) FAIL("%s %s: the copy changes what isn't sampled with it", shapes[s].name, precision_names[precision]);
            for (int v = 0; v < COUNT(variants); v++) {
                if ((v > 1 && s > 1) || !variant_use(variants[v])) continue; // the slow ones see the small shapes
                Policy *other = make(&shapes[s], (Precision)precision, 2, true);
                Rollout again = roll(other, 7, true);
                if (!same(&whole, &again)) FAIL("%s %s: %s with 2 threads differs", shapes[s].name, precision_names[precision], policy_variant(other));
                rollout_free(&again);
                policy_close(other);
            }
            rollout_free(&whole), rollout_free(&few), rollout_free(&plain), rollout_free(&none);
            policy_close(p), policy_close(without);
        }
    variant_use(NULL);
}

// Mean |difference| of the logprobs that the sampler recorded from those of the trainer.
static double gap(Policy *p, bool int8) {
    Err err = {0};
    Rollout r = roll(p, 0, int8);
    Batch b = {0};
    Random random = random_start(5, STREAM_TEST, 0);
    int32_t prompt[40];
    for (int i = 0; i < PROMPTS; i++) {
        int32_t length = 3 + 17 * i;
        random_ids(&random, policy_config(p)->vocabulary, length, prompt);
        batch_prompt(&b, prompt, length);
        for (int s = 0; s < SAMPLES; s++) batch_course(&b, &r.completions[i * SAMPLES + s]);
    }
    const Packed *packed = batch_view(&b, 1);
    float *logprob = xcalloc((size_t)packed->target_count, sizeof *logprob);
    OK(policy_forward(p, packed, false, logprob, NULL, &err));
    double sum = 0;
    int64_t at = 0;
    for (int i = 0; i < r.count; i++)
        for (int32_t t = 0; t < r.completions[i].length; t++, at++) sum += fabs((double)logprob[at] - (double)r.completions[i].logprob[t]);
    CHECK_INT(at, packed->target_count);
    free(logprob);
    batch_free(&b);
    rollout_free(&r);
    return sum / (double)at;
}

static void near_the_trainer(void) {
    for (int precision = 0; precision < 2; precision++) {
        Policy *p = make(&shapes[3], (Precision)precision, 1, true);
        double bytes = gap(p, true);
        CHECK(gap(p, false) == 0); // invariant 1 holds where 8 bits aren't asked for
        if (!(bytes > 1e-4 && bytes < 0.1)) FAIL("%s: the sampler's logprobs differ by %g on average, expected up to 0.1", precision_names[precision], bytes);
        policy_close(p);
    }
}

// After an update the copy is that of the new weights: of a policy that begins with them.
static void follows_updates(void) {
    Err err = {0};
    Policy *p = make(&shapes[0], PRECISION_BF16, 1, true);
    Rollout before = roll(p, 0, true);
    rollout_free(&before);
    policy_zero_gradients(p);
    gradients_settle(p);
    Random r = random_start(9, STREAM_TEST, 0);
    for (int i = 0; i < p->parameter_count; i++)
        for (int64_t j = 0; j < p->parameters[i].N * p->parameters[i].K; j++) p->parameters[i].gradient[j] = (float)random_normal(&r);
    OK(policy_update(p, &(AdamW){.learning_rate = 0.05, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .scale = 1}, &err));
    Policy *fresh = make(&shapes[0], PRECISION_BF16, 1, true);
    for (int i = 0; i < p->parameter_count; i++) OK(parameter_set(fresh, &fresh->parameters[i], p->parameters[i].values, &err));
    Rollout after = roll(p, 0, true), expected = roll(fresh, 0, true);
    CHECK(same(&after, &expected));
    CHECK(gap(p, true) < 0.2);
    rollout_free(&after), rollout_free(&expected);
    policy_close(p), policy_close(fresh);
}

// Read from a file, frozen or not, the copy is the same.
static void from_a_file(void) {
    Err err = {0};
    char folder[] = "/tmp/reckon-int8-XXXXXX";
    CHECK(mkdtemp(folder));
    Policy *p = make(&shapes[3], PRECISION_BF16, 1, true);
    OK(policy_save(p, folder, "F32", &err));
    Rollout expected = roll(p, 0, true);
    for (int trainable = 0; trainable < 2; trainable++) {
        Policy *read;
        OK(policy_open(folder, &(PolicyOptions){.precision = PRECISION_BF16, .threads = 1, .device = "cpu", .trainable = trainable, .int8 = true}, &read, &err));
        Rollout got = roll(read, 0, true);
        if (!same(&got, &expected)) FAIL("read from a file, trainable %d, another rollout", trainable);
        rollout_free(&got);
        policy_close(read);
    }
    rollout_free(&expected);
    policy_close(p);
    OK(folder_remove(folder, &err));
}

// A plan counts the copy and the rows that are multiplied by it, and what a policy holds is what was planned.
static void counted(void) {
    Err err = {0};
    for (int s = 0; s < COUNT(shapes); s++) {
        ModelConfig c = shape_config(&shapes[s]);
        PlanShape pass = {.rollout_rows = 50, .positions = 64};
        PlanBytes with, without;
        PolicyOptions o = {.precision = PRECISION_BF16, .threads = 1, .trainable = true};
        OK(plan_policy(NULL, &c, &o, &pass, &without, &err));
        o.int8 = true;
        OK(plan_policy(NULL, &c, &o, &pass, &with, &err));
        Policy *p = make(&shapes[s], PRECISION_BF16, 1, true), *plain = make(&shapes[s], PRECISION_BF16, 1, false);
        size_t copies = 0;
        for (int i = 0; i < p->parameter_count; i++) copies += p->parameters[i].int8 ? int8_bytes(p->parameters[i].N, p->parameters[i].K) : 0;
        CHECK(copies > 0);
        CHECK_INT(with.weights - without.weights, copies);
        CHECK_INT(policy_bytes(p) - policy_bytes(plain), copies);
        CHECK_INT(with.pass - without.pass, 50 * int8_longest_row(p) + 2); // buffers are read in pairs
        policy_close(p), policy_close(plain);
    }
}

static void refused(void) {
    Err err = {0};
    Rollout out;
    Policy *p = make(&shapes[0], PRECISION_FP32, 1, false);
    static const int32_t prompt[] = {1};
    RolloutRequest request = {.prompt = prompt, .prompt_length = 1, .samples = 1, .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 2}};
    CHECK(!policy_rollout(p, &request, 1, &(RolloutOptions){.int8 = true}, &out, &err));
    CHECK_INT(err.code, ERR_SOFTWARE);
    policy_close(p);
    // What 8 bits made of a prompt isn't what another rollout goes on with.
    p = make(&shapes[0], PRECISION_FP32, 1, true);
    PromptCache *cache = prompt_cache_open(p);
    CHECK(!policy_rollout(p, &request, 1, &(RolloutOptions){.int8 = true, .cache = cache}, &out, &err));
    CHECK_INT(err.code, ERR_SOFTWARE);
    prompt_cache_close(cache);
    policy_close(p);
}

static const Test tests[] = {
    {"8 bits: nothing but its own tokens", nothing_but_its_own},
    {"8 bits: near the trainer", near_the_trainer},
    {"8 bits: follows updates", follows_updates},
    {"8 bits: from a file", from_a_file},
    {"8 bits: counted", counted},
    {"8 bits: refused", refused},
};
TEST_MAIN(tests)
