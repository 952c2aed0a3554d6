// What a steady pass does not do: once a policy has made one pass, the next one of its size allocates nothing and makes no
// system call but those by which its threads wait for each other. A pass of decoding is all from one step to the next:
// rows sent, layers, head, draws, tokens taken by their samples. A training pass is forward, backward, the gradient's norm and
// the optimizer's step. Clocks are read without a system call where the kernel offers that, as it does on all that is tested.
//
// Outside: samples that begin or end between two steps, a stop string's text (it is decoded piece by piece), sets kept by top-p
// or min-p beyond 64 ids a token, and rotary tables of sequences beyond the original length, which each batch has of its own.
#include "mixture_test.h"
#include "quiet.h"

enum { WARM_STEPS = 3, STEPS_HEARD = 150, TOKENS = 160, PASSES_HEARD = 3 };

typedef struct Quiet {
    const char *name;
    ModelConfig config;
    Precision precision;
    int threads, rank;
    bool int8; // a copy in 8 bits, which decoding multiplies by
} Quiet;
static Quiet quiet; // of the child that is to come

static Policy *quiet_policy(void) {
    Err err = {0};
    Policy *p;
    PolicyOptions o = {.precision = quiet.precision, .threads = quiet.threads, .device = "cpu", .trainable = true, .int8 = quiet.int8,
                       .lora = {.rank = quiet.rank, .alpha = 8, .seed = 3}};
    if (!quiet.rank && !quiet.int8) return policy_make(&quiet.config, NULL, quiet.precision, quiet.threads);
    char folder[] = "/tmp/reckon-quiet-XXXXXX";
    CHECK(mkdtemp(folder));
    Policy *base = policy_make(&quiet.config, NULL, quiet.precision, 1);
    OK(policy_save(base, folder, "F32", &err));
    policy_close(base);
    OK(policy_open(folder, &o, &p, &err));
    return p;
}

// ---- decoding --------------------------------------------------------------------------------------------
static void (*replay)(const Device *d, uint64_t key, void (*body)(void *), void *of);
static int steps;
static void counted_replay(const Device *d, uint64_t key, void (*body)(void *), void *of) {
    steps++;
    if (steps == WARM_STEPS) quiet_begin();
    if (steps == WARM_STEPS + STEPS_HEARD) quiet_end();
    replay(d, key, body, of);
}

static bool go_on(void *of, int64_t tokens, int32_t finished) {
    (void)of, (void)tokens, (void)finished;
    return true;
}

static void decode(void) {
    Err err = {0};
    Policy *p = quiet_policy();
    Random r = random_start(1, STREAM_TEST, 2);
    int32_t prompt[40];
    random_ids(&r, quiet.config.vocabulary, COUNT(prompt), prompt);
    RolloutRequest requests[] = {
        {.prompt = prompt, .prompt_length = 17, .samples = 20, .seed = 5, .sampling = {.temperature = 1, .top_p = 1, .max_tokens = TOKENS, .ignore_eos = true}},
        {.prompt = prompt, .prompt_length = 40, .samples = 11, .seed = 5, .prompt_index = 1,
         .sampling = {.temperature = 0.7, .top_k = 5, .top_p = 0.95, .max_tokens = TOKENS, .ignore_eos = true}},
        {.prompt = prompt + 3, .prompt_length = 9, .samples = 1, .prompt_index = 2, .sampling = {.top_p = 1, .max_tokens = TOKENS, .ignore_eos = true}},
    };
    replay = p->device->replay;
    p->device->replay = counted_replay;
    Rollout out;
    OK(policy_rollout(p, requests, COUNT(requests), &(RolloutOptions){.progress = go_on, .int8 = quiet.int8}, &out, &err));
    CHECK_INT(out.new_tokens, 32 * TOKENS);
    rollout_free(&out);
    policy_close(p);
}

// ---- training --------------------------------------------------------------------------------------------
static void train_once(Policy *p, const Packed *batch, const float *dlogprob, float *out) {
    Err err = {0};
    policy_zero_gradients(p);
    OK(policy_forward_backward(p, batch, dlogprob, NULL, out, out + batch->target_count, &err));
    OK(policy_forward(p, batch, true, out, out + batch->target_count, &err));
    OK(policy_backward(p, batch, dlogprob, dlogprob, &err));
    double norm = policy_gradient_norm(p);
    CHECK(norm > 0);
    OK(policy_update(p, &(AdamW){.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .scale = 1 / norm}, &err));
}

static void train(void) {
    Policy *p = quiet_policy();
    Batch b = {0};
    Random r = random_start(1, STREAM_TEST, 3);
    int32_t ids[120];
    for (int group = 0; group < 3; group++) {
        random_ids(&r, quiet.config.vocabulary, COUNT(ids), ids);
        batch_prompt(&b, ids, 20 + group);
        for (int sample = 0; sample < 3; sample++) batch_completion(&b, ids + 10 * sample, 40 + 20 * group, NULL, NULL);
    }
    const Packed *batch = batch_view(&b, 0.9);
    float *dlogprob = xmalloc((size_t)batch->target_count * sizeof *dlogprob), *out = xmalloc((size_t)batch->target_count * 2 * sizeof *out);
    for (int32_t i = 0; i < batch->target_count; i++) dlogprob[i] = (float)(i % 7 - 3) / (float)batch->target_count;
    train_once(p, batch, dlogprob, out);
    quiet_begin();
    for (int pass = 0; pass < PASSES_HEARD; pass++) train_once(p, batch, dlogprob, out);
    quiet_end();
    free(dlogprob), free(out);
    batch_free(&b);
    policy_close(p);
}

// ---- activations of a rollout ----------------------------------------------------------------------------
// Decoding steps that keep them, and training passes that take them; these end before the optimizer's step, which ends what is kept.
static void decode_and_train(void) {
    Err err = {0};
    Policy *p = quiet_policy();
    Random r = random_start(1, STREAM_TEST, 2);
    int32_t prompt[40];
    random_ids(&r, quiet.config.vocabulary, COUNT(prompt), prompt);
    RolloutRequest request = {.prompt = prompt, .prompt_length = 17, .samples = 9, .seed = 5,
                              .sampling = {.temperature = 1, .top_p = 1, .max_tokens = TOKENS, .ignore_eos = true}};
    Rollout out;
    replay = p->device->replay;
    p->device->replay = counted_replay;
    OK(policy_rollout(p, &request, 1, &(RolloutOptions){.progress = go_on, .retain = RETAIN_ALWAYS}, &out, &err));
    Batch b = {0};
    batch_prompt(&b, prompt, request.prompt_length);
    for (int32_t s = 0; s < out.count; s++) batch_sample(&b, &out.completions[s], true);
    const Packed *batch = batch_view(&b, 1);
    float *dlogprob = xcalloc((size_t)batch->target_count, sizeof *dlogprob), *values = xcalloc((size_t)batch->target_count * 2, sizeof *values);
    for (int32_t i = 0; i < batch->target_count; i++) dlogprob[i] = (float)(i % 7 - 3) / (float)batch->target_count;
    for (int pass = 0; pass <= PASSES_HEARD; pass++) {
        if (pass == 1) quiet_begin();
        CHECK(policy_has_activations(p, batch));
        policy_zero_gradients(p);
        OK(policy_forward_backward(p, batch, dlogprob, NULL, values, values + batch->target_count, &err));
        CHECK(policy_gradient_norm(p) > 0);
    }
    quiet_end();
    free(dlogprob), free(values);
    batch_free(&b);
    rollout_free(&out);
    policy_close(p);
}

// ---- what was heard --------------------------------------------------------------------------------------
static void listen(const Test *work, long stretches) {
    if (quiet_impossible) SKIP("%s", quiet_impossible);
    if (!quiet_trace(work)) SKIP("this system lets no process trace another");
    const char *what = quiet.name, *precision = precision_names[quiet.precision];
    if (noise->state == 1) FAIL("%s %s, %d threads: %.1000s", what, precision, quiet.threads, noise->message);
    CHECK_INT(noise->stretches, stretches);
    if (noise->allocations)
        FAIL("%s of %s %s, %d threads: %ld allocations (the largest %ld bytes), expected none", work->name, what, precision, quiet.threads,
             noise->allocations, noise->largest);
    if (noise->calls)
        FAIL("%s of %s %s, %d threads: %ld system calls (the first number %ld), expected none but futex", work->name, what, precision, quiet.threads,
             noise->calls, noise->number[0]);
}

static void each_model(const Test *work) {
    const Quiet models[] = {
        {.name = "a tied model", .config = shape_config(&shapes[2])},
        {.name = "a model with biases", .config = shape_config(&shapes[1])},
        {.name = "Mixtral", .config = mixture_config(0)},
        {.name = "DeepSeek V3", .config = mixture_config(3)},
        {.name = "an adapter", .config = shape_config(&shapes[1]), .rank = 4},
        {.name = "rollouts in 8 bits", .config = shape_config(&shapes[1]), .int8 = true},
    };
    for (int i = 0; i < COUNT(models); i++)
        for (int threads = 1; threads <= 2; threads++) {
            quiet = models[i];
            quiet.precision = (i + threads) % 2 ? PRECISION_BF16 : PRECISION_FP32;
            quiet.threads = threads;
            listen(work, 1);
        }
}
static void test_decode(void) { each_model(&(Test){"decoding", decode}); }
static void test_train(void) { each_model(&(Test){"training", train}); }
static void test_kept(void) {
    for (int threads = 1; threads <= 2; threads++) {
        quiet = (Quiet){.name = "a tied model", .config = shape_config(&shapes[2]), .precision = PRECISION_BF16, .threads = threads};
        listen(&(Test){"decoding and training without a forward pass", decode_and_train}, 2);
    }
}

// The counters themselves hear what there is to hear.
static void *volatile kept; // so that no allocation is optimised away
static void allocate_some(void) {
    kept = malloc(1000);
    free(kept);
    kept = calloc(10, 3000);
    kept = realloc(kept, 31000);
    free(kept);
}
static void make_noise(void) {
    allocate_some(); // the C library asks the system once
    syscall(SYS_getppid);
    quiet_begin();
    allocate_some();
    syscall(SYS_getppid);
    (void)clock_seconds();
    quiet_end();
}
static void test_counters(void) {
    if (quiet_impossible) SKIP("%s", quiet_impossible);
    if (!quiet_trace(&(Test){"noise", make_noise})) SKIP("this system lets no process trace another");
    CHECK_INT(noise->state, 0);
    CHECK_INT(noise->stretches, 1);
    CHECK_INT(noise->allocations, 3);
    CHECK_INT(noise->largest, 31000);
    CHECK_INT(noise->calls, 1);
    CHECK_INT(noise->number[0], SYS_getppid);
}

static const Test tests[] = {
    {"counts allocations and system calls", test_counters},
    {"decoding allocates nothing and calls only futex", test_decode},
    {"training allocates nothing and calls only futex", test_train},
    {"kept activations allocate nothing and call only futex", test_kept},
};
TEST_MAIN(tests)
