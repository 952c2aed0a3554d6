// Invariants 1 and 2, bit for bit. What is recorded while sampling is what the training forward computes, whoever else
// is in the batch; and weights after training are a function of the data, whatever the threads and microbatches.
#include "policy_test.h"
#include "files.h"
#include <unistd.h>

// ---- requests --------------------------------------------------------------------------------------------
enum { MAX_REQUESTS = 64, MAX_PROMPT = 70 };
typedef struct Requests {
    RolloutRequest list[MAX_REQUESTS];
    int32_t prompts[MAX_REQUESTS][MAX_PROMPT];
    int32_t count;
} Requests;

static void requests_add(Requests *q, int32_t vocabulary, int32_t prompt_length, int32_t samples, int32_t max_tokens,
                         const Sampling *sampling) {
    int32_t i = q->count++;
    Random r = random_start(11, STREAM_TEST, (uint64_t)(100 + i));
    random_ids(&r, vocabulary, prompt_length, q->prompts[i]);
    q->list[i] = (RolloutRequest){.prompt = q->prompts[i], .prompt_length = prompt_length, .samples = samples,
                                  .sampling = *sampling, .seed = 5, .step = 3, .prompt_index = (uint32_t)i};
    q->list[i].sampling.max_tokens = max_tokens;
}

// 1, 3, 17 and 64 samples of one prompt each; `turn` moves the lengths on.
static void requests_groups(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    static const int32_t samples[] = {1, 3, 17, 64, 2};
    static const int32_t lengths[] = {31, 32, 33, 64, 1, 70, 63, 65, 2, 30, 34, 48};
    static const int32_t most[] = {33, 32, 15, 9, 40};
    q->count = 0;
    for (int i = 0; i < COUNT(samples); i++)
        requests_add(q, vocabulary, lengths[(i + turn) % COUNT(lengths)], samples[i], most[i], sampling);
}

// Many small requests: with few places the batch is refilled all the time.
static void requests_stream(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    q->count = 0;
    for (int i = 0; i < 14; i++)
        requests_add(q, vocabulary, 1 + (i * 23 + turn * 5) % MAX_PROMPT, 1 + (i + turn) % 3, 1 + (i * 11) % 21, sampling);
}

// The same prompt in requests of their own.
static void requests_separate(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    q->count = 0;
    for (int i = 0; i < 17; i++) {
        requests_add(q, vocabulary, 20 + turn % 20, 1, 8, sampling);
        memcpy(q->prompts[i], q->prompts[0], sizeof q->prompts[0]);
    }
}

static const Sampling samplings[] = {
    {.temperature = 1, .top_p = 1},
    {.temperature = 0.7, .top_p = 1},
    {.temperature = 1.3, .top_p = 1},
    {.temperature = 1, .top_k = 5, .top_p = 1},
    {.temperature = 0.7, .top_p = 0.8},
    {.temperature = 1.3, .top_p = 1, .min_p = 0.1},
    {.temperature = 1.3, .top_k = 20, .top_p = 0.9, .min_p = 0.02},
    {.temperature = 0, .top_p = 1},
};

// ---- comparing -------------------------------------------------------------------------------------------
static char context[256]; // the case, for messages

static void check_bits(const char *what, float got, float want, int32_t request, int32_t sample, int32_t token) {
    if (float_bits(got) != float_bits(want))
        FAIL("%s: %s of request %d, sample %d, token %d: got %.9g (%08x), recorded %.9g (%08x)", context, what, request,
             sample, token, got, float_bits(got), want, float_bits(want));
}

static const Completion *first_completion(const Rollout *rollout, const Requests *q, int32_t request) {
    const Completion *c = rollout->completions;
    for (int32_t i = 0; i < request; i++) c += q->list[i].samples;
    return c;
}

// Forward over all requests, in this order, groups of at most `together` samples: equal to what was recorded.
static void check_forward(Policy *p, const Requests *q, const Rollout *rollout, bool reversed, int32_t together, bool keep) {
    Err err = {0};
    Batch b = {0};
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = reversed ? q->count - 1 - i : i;
        const RolloutRequest *r = &q->list[request];
        const Completion *c = first_completion(rollout, q, request);
        for (int32_t s = 0; s < r->samples; s++) {
            if (s % together == 0) batch_prompt(&b, r->prompt, r->prompt_length);
            batch_completion(&b, c[s].ids, c[s].length, c[s].kept_start, c[s].kept_ids);
        }
    }
    float *logprob = xmalloc((size_t)b.target.count * 4), *entropy = xmalloc((size_t)b.target.count * 4);
    OK(policy_forward(p, batch_view(&b, q->list[0].sampling.temperature), keep, logprob, entropy, &err));
    int32_t at = 0;
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = reversed ? q->count - 1 - i : i;
        const Completion *c = first_completion(rollout, q, request);
        for (int32_t s = 0; s < q->list[request].samples; s++)
            for (int32_t t = 0; t < c[s].length; t++, at++) {
                check_bits("logprob", logprob[at], c[s].logprob[t], request, s, t);
                check_bits("entropy", entropy[at], c[s].entropy[t], request, s, t);
            }
    }
    CHECK_INT(at, b.target.count);
    free(logprob), free(entropy);
    batch_free(&b);
}

// Every `stride`th sequence in a pass of its own.
static void check_alone(Policy *p, const Requests *q, const Rollout *rollout, int32_t stride) {
    Err err = {0};
    int32_t index = 0;
    float logprob[64], entropy[64];
    for (int32_t request = 0; request < q->count; request++)
        for (int32_t s = 0; s < q->list[request].samples; s++, index++) {
            if (index % stride != 0) continue;
            const Completion *c = &rollout->completions[index];
            Batch b = {0};
            batch_prompt(&b, q->list[request].prompt, q->list[request].prompt_length);
            batch_completion(&b, c->ids, c->length, c->kept_start, c->kept_ids);
            OK(policy_forward(p, batch_view(&b, q->list[request].sampling.temperature), false, logprob, entropy, &err));
            for (int32_t t = 0; t < c->length; t++) {
                check_bits("logprob alone", logprob[t], c->logprob[t], request, s, t);
                check_bits("entropy alone", entropy[t], c->entropy[t], request, s, t);
            }
            batch_free(&b);
        }
}

static void check_same(const Completion *got, const Completion *want, int32_t request, int32_t sample) {
    for (int32_t t = 0; t < got->length && t < want->length; t++) {
        if (got->ids[t] != want->ids[t])
            FAIL("%s: request %d, sample %d, token %d: sampled %d, then %d", context, request, sample, t, want->ids[t], got->ids[t]);
        check_bits("logprob sampled again", got->logprob[t], want->logprob[t], request, sample, t);
        check_bits("entropy sampled again", got->entropy[t], want->entropy[t], request, sample, t);
    }
    CHECK_INT(got->length, want->length);
    CHECK_INT(got->finish, want->finish);
    CHECK(!got->kept_start == !want->kept_start);
    if (!got->kept_start) return;
    CHECK(memcmp(got->kept_start, want->kept_start, (size_t)(want->length + 1) * sizeof(int64_t)) == 0);
    CHECK(memcmp(got->kept_ids, want->kept_ids, (size_t)want->kept_start[want->length] * sizeof(int32_t)) == 0);
}

// The same requests, the list turned by `rotation`, with so many places: the same completions.
static void check_again(Policy *p, const Requests *q, const Rollout *rollout, int32_t rotation, int32_t max_sequences) {
    Err err = {0};
    Rollout again;
    Requests turned = {.count = q->count};
    for (int32_t i = 0; i < q->count; i++) turned.list[i] = q->list[(i + rotation) % q->count];
    OK(policy_rollout(p, turned.list, q->count, &(RolloutOptions){.max_sequences = max_sequences}, &again, &err));
    CHECK_INT(again.count, rollout->count);
    CHECK_INT(again.new_tokens, rollout->new_tokens);
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = (i + rotation) % q->count;
        const Completion *got = first_completion(&again, &turned, i), *want = first_completion(rollout, q, request);
        for (int32_t s = 0; s < q->list[request].samples; s++) check_same(&got[s], &want[s], request, s);
    }
    rollout_free(&again);
}

// One request alone.
static void check_single(Policy *p, const Requests *q, const Rollout *rollout, int32_t request) {
    Err err = {0};
    Rollout again;
    OK(policy_rollout(p, &q->list[request], 1, NULL, &again, &err));
    for (int32_t s = 0; s < q->list[request].samples; s++)
        check_same(&again.completions[s], &first_completion(rollout, q, request)[s], request, s);
    rollout_free(&again);
}

// ---- invariant 1 -----------------------------------------------------------------------------------------
typedef struct Trio {
    Policy *by_threads[3]; // the same weights with 1, 2 and 3 threads
    int32_t vocabulary;
    int turn;
} Trio;

static ModelConfig stopping_config(const Shape *shape) {
    ModelConfig c = shape_config(shape);
    c.stop_count = c.vocabulary < 100 ? 1 : MAX_STOP_IDS; // so that samples end at different times
    for (int i = 0; i < c.stop_count; i++) c.stop_ids[i] = i * (c.vocabulary / 16) + 1;
    return c;
}

static Trio trio_open(const Shape *shape, Precision precision, int threads) {
    ModelConfig c = stopping_config(shape);
    Trio t = {.vocabulary = c.vocabulary};
    for (int i = 0; i < threads; i++) t.by_threads[i] = policy_make(&c, NULL, precision, i + 1);
    return t;
}
static void trio_close(Trio *t) {
    for (int i = 0; i < 3; i++) policy_close(t->by_threads[i]);
}

// Threads beyond the first start from the same recorded rollout. They decode again where `decode`: on a busy machine
// each step waits for all of them.
static void check_requests(Trio *t, const Requests *q, bool decode) {
    Err err = {0};
    Rollout rollout;
    Policy *one = t->by_threads[0];
    OK(policy_rollout(one, q->list, q->count, NULL, &rollout, &err));
    check_forward(one, q, &rollout, false, INT32_MAX, false);
    check_forward(one, q, &rollout, true, INT32_MAX, true);
    check_forward(one, q, &rollout, false, 5, true);
    check_alone(one, q, &rollout, rollout.count > 40 ? 11 : 3);
    check_again(one, q, &rollout, 1, 1);
    for (int i = 1; i < 3; i++) {
        Policy *p = t->by_threads[i];
        if (!p) continue;
        check_forward(p, q, &rollout, i == 1, i == 1 ? INT32_MAX : 1, i == 2);
        check_single(p, q, &rollout, (t->turn + i) % q->count);
        if (decode) check_again(p, q, &rollout, 2 + i, 2 + 5 * i);
    }
    rollout_free(&rollout);
}

static void check_sampling(Trio *t, const Sampling *sampling, bool groups) {
    Requests *q = xcalloc(1, sizeof *q);
    if (groups) {
        requests_groups(q, t->vocabulary, t->turn, sampling);
        check_requests(t, q, t->turn < 4);
        requests_separate(q, t->vocabulary, t->turn, sampling);
        check_requests(t, q, false);
    }
    requests_stream(q, t->vocabulary, t->turn, sampling);
    check_requests(t, q, true);
    t->turn++;
    free(q);
}

// Every shape, two samplings each, in turn; all samplings are met in either precision.
static void sampler_is_trainer(Precision precision) {
    for (int i = 0; i < COUNT(shapes); i++) {
        Trio t = trio_open(&shapes[i], precision, 2);
        t.turn = i * 2 + (int)precision;
        for (int k = 0; k < 2; k++) {
            int sampling = (i * 2 + k + (int)precision) % COUNT(samplings);
            snprintf(context, sizeof context, "%s, %s, sampling %d", shapes[i].name, precision_names[precision], sampling);
            check_sampling(&t, &samplings[sampling], k == i % 2);
        }
        trio_close(&t);
    }
}
static void sampler_is_trainer_fp32(void) { sampler_is_trainer(PRECISION_FP32); }
static void sampler_is_trainer_bf16(void) { sampler_is_trainer(PRECISION_BF16); }

static void three_threads(void) {
    for (int precision = 0; precision < 2; precision++) {
        const Shape *shape = &shapes[precision ? 1 : 4];
        Trio t = trio_open(shape, (Precision)precision, 3);
        snprintf(context, sizeof context, "%s, %s, three threads", shape->name, precision_names[precision]);
        check_sampling(&t, &samplings[3 + precision], false);
        trio_close(&t);
    }
}

// Every variant, the slow C twin too; and they agree with each other in what they sample.
static void every_variant(void) {
    static const char *const names[] = {"reference", "generic", "avx2", "avx512", "avx512bf16"};
    int met = 0;
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < 2; i++) {
            Requests *q = xcalloc(1, sizeof *q);
            ModelConfig c = stopping_config(&shapes[i]);
            requests_stream(q, c.vocabulary, i, &samplings[2 + 4 * i]);
            Rollout first = {0};
            for (int v = 0; v < COUNT(names); v++) {
                Err err = {0};
                if (!variant_use(names[v])) continue;
                snprintf(context, sizeof context, "%s, %s, %s", shapes[i].name, precision_names[precision], names[v]);
                Policy *p = policy_make(&c, NULL, (Precision)precision, 1);
                CHECK_STR(policy_variant(p), names[v]);
                Rollout rollout;
                OK(policy_rollout(p, q->list, q->count, &(RolloutOptions){.max_sequences = 4}, &rollout, &err));
                check_forward(p, q, &rollout, false, INT32_MAX, true);
                check_forward(p, q, &rollout, true, 1, false);
                check_alone(p, q, &rollout, 5);
                if (v == 0)
                    first = rollout;
                else
                    for (int32_t k = 0; k < first.count; k++) check_same(&rollout.completions[k], &first.completions[k], k, 0);
                if (v) rollout_free(&rollout);
                policy_close(p);
                met++;
            }
            rollout_free(&first);
            free(q);
        }
    variant_use(NULL);
    CHECK(met >= 8);
}

// ---- invariant 2 -----------------------------------------------------------------------------------------
enum { MAX_GROUPS = 8 };
typedef struct Data {
    int group_count;
    struct {
        int32_t prompt[80], prompt_length, samples;
        int32_t ids[6][520], lengths[6];
    } groups[MAX_GROUPS];
} Data;

static void data_make(Data *d, int32_t vocabulary, const int32_t (*groups)[3], int count, uint64_t seed) {
    Random r = random_start(seed, STREAM_TEST, 2);
    d->group_count = count;
    for (int g = 0; g < count; g++) {
        d->groups[g].prompt_length = groups[g][0];
        d->groups[g].samples = groups[g][1];
        random_ids(&r, vocabulary, groups[g][0], d->groups[g].prompt);
        for (int s = 0; s < groups[g][1]; s++) {
            d->groups[g].lengths[s] = groups[g][2] - s; // ragged, odd and even; zero where it comes to that
            if (d->groups[g].lengths[s] < 0) d->groups[g].lengths[s] = 0;
            random_ids(&r, vocabulary, d->groups[g].lengths[s], d->groups[g].ids[s]);
        }
    }
}

// Groups [from, to): forward, coefficients that depend on place and logprob, backward.
static void train_microbatch(Policy *p, const Data *d, int from, int to, int step) {
    Err err = {0};
    Batch b = {0};
    for (int g = from; g < to; g++) {
        batch_prompt(&b, d->groups[g].prompt, d->groups[g].prompt_length);
        for (int s = 0; s < d->groups[g].samples; s++)
            batch_completion(&b, d->groups[g].ids[s], d->groups[g].lengths[s], NULL, NULL);
    }
    int32_t R = b.target.count;
    const Packed *packed = batch_view(&b, 0.9);
    float *values = xmalloc((size_t)R * 4 * sizeof(float)), *logprob = values, *entropy = values + R;
    float *dlogprob = values + 2 * R, *dentropy = values + 3 * R;
    OK(policy_forward(p, packed, true, logprob, entropy, &err));
    int32_t at = 0;
    for (int g = from; g < to; g++) {
        RandomKey key = random_key((uint64_t)g, STREAM_TEST);
        for (int s = 0; s < d->groups[g].samples; s++)
            for (int32_t t = 0; t < d->groups[g].lengths[s]; t++, at++) {
                float advantage = (float)(2 * random_uniform(key, (uint32_t)step, (uint32_t)s, (uint32_t)t, 0) - 1);
                dlogprob[at] = advantage - 0.01f * logprob[at];
                dentropy[at] = 0.1f * advantage + 0.001f * entropy[at];
            }
    }
    CHECK_INT(at, R);
    OK(policy_backward(p, packed, dlogprob, dentropy, &err));
    free(values);
    batch_free(&b);
}

static void train_step(Policy *p, const Data *d, const int *cuts, int step) {
    policy_zero_gradients(p);
    for (int i = 0, from = 0; from < d->group_count; from = cuts[i++])
        train_microbatch(p, d, from, cuts[i] < d->group_count ? cuts[i] : d->group_count, step);
    double norm = policy_gradient_norm(p);
    CHECK(norm > 0 && isfinite(norm));
    Err err = {0};
    OK(policy_update(p, &(AdamW){.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1,
                                 .scale = norm > 1 ? 1 / norm : 1}, &err));
}

// Ends of microbatches, in groups.
static const int splits[][MAX_GROUPS] = {
    {MAX_GROUPS}, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, MAX_GROUPS}, {4, MAX_GROUPS},
};

static void check_training(const Shape *shape, Precision precision, const char *variant, const Data *d, int steps) {
    char want[65] = "", got[65];
    if (!variant_use(variant)) return;
    ModelConfig c = shape_config(shape);
    for (int k = 0; k < COUNT(splits); k++) {
        static const int threads_of[] = {1, 1, 3, 2};
        int threads = threads_of[k];
        if ((variant && k == 1) || (k == 2 && shape != &shapes[0])) continue;
        Policy *p = policy_make(&c, NULL, precision, threads);
        for (int step = 0; step < steps; step++) train_step(p, d, splits[k], step);
        Err err = {0};
        OK(policy_hash(p, got, &err));
        policy_close(p);
        if (k == 0) {
            memcpy(want, got, sizeof want);
        } else if (strcmp(got, want) != 0) {
            FAIL("%s, %s, %s: weights after %d steps differ between split 0 with 1 thread and split %d with %d", shape->name,
                 precision_names[precision], variant ? variant : "best", steps, k, threads);
        }
    }
    variant_use(NULL);
}

// {prompt, samples, longest completion}
static const int32_t odd_groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 5, 4}, {33, 2, 11}, {7, 4, 3}, {64, 1, 1}, {31, 6, 5}};
static const int32_t long_groups[][3] = {{3, 1, 511}, {9, 3, 150}, {1, 1, 515}, {40, 2, 141}, {2, 1, 1}};

static void weights_of_splits(void) {
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < COUNT(shapes); i++) {
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, shapes[i].vocabulary, odd_groups, COUNT(odd_groups), 21);
            check_training(&shapes[i], (Precision)precision, NULL, d, 5);
            free(d);
        }
}

// More than two chunks of the head, and more than one block of tokens.
static void weights_of_long_batches(void) {
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, shapes[0].vocabulary, long_groups, COUNT(long_groups), 22);
    for (int precision = 0; precision < 2; precision++) check_training(&shapes[0], (Precision)precision, NULL, d, 2);
    free(d);
}

static void weights_of_variants(void) {
    static const char *const names[] = {"generic", "avx2", "avx512", "avx512bf16"};
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, shapes[0].vocabulary, odd_groups, 5, 23);
    for (int precision = 0; precision < 2; precision++)
        for (int v = 0; v < COUNT(names); v++) check_training(&shapes[0], (Precision)precision, names[v], d, 2);
    free(d);
}

// ---- saving and going on ---------------------------------------------------------------------------------
static void saved_and_opened(void) {
    static const int cuts[] = {3, MAX_GROUPS};
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < 3; i++) {
            Err err = {0};
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, shapes[i].vocabulary, odd_groups, COUNT(odd_groups), 24);
            ModelConfig c = shape_config(&shapes[i]);
            char folder[] = "/tmp/reckon-policy-XXXXXX", want[65], got[65];
            CHECK(mkdtemp(folder));
            char *moments = path_join(folder, "optimizer.safetensors");
            PolicyOptions options = {.precision = (Precision)precision, .threads = 1, .trainable = true};
            Policy *p = policy_make(&c, NULL, options.precision, 1), *q;
            for (int step = 0; step < 2; step++) train_step(p, d, cuts, step);
            OK(policy_save(p, folder, "F32", &err));
            OK(policy_save_optimizer(p, moments, &err));
            OK(policy_open(folder, &options, &q, &err));
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            CHECK_STR(got, want);
            OK(policy_load_optimizer(q, moments, &err));
            train_step(p, d, cuts, 2), train_step(q, d, cuts, 2);
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            CHECK_STR(got, want);
            // Without its moments the step is another one.
            policy_reset_optimizer(q);
            train_step(p, d, cuts, 3), train_step(q, d, cuts, 3);
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            CHECK(strcmp(got, want) != 0);
            policy_close(p), policy_close(q);
            OK(folder_remove(folder, &err));
            free(moments);
            free(d);
        }
}

static const Test tests[] = {
    {"invariant 1: sampler and trainer, fp32", sampler_is_trainer_fp32},
    {"invariant 1: sampler and trainer, bf16", sampler_is_trainer_bf16},
    {"invariant 1: three threads", three_threads},
    {"invariant 1: every variant", every_variant},
    {"invariant 2: threads and microbatches", weights_of_splits},
    {"invariant 2: long batches", weights_of_long_batches},
    {"invariant 2: every variant", weights_of_variants},
    {"saved, opened, gone on", saved_and_opened},
};
TEST_MAIN(tests)
