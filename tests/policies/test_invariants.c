// Invariants 1 and 2, bit for bit. What is recorded while sampling is what the training forward computes, whoever else
// is in the batch; and weights after training are a function of the data, whatever the threads and microbatches.
#include "invariants.h"
#include "files.h"
#include <unistd.h>

// ---- invariant 1 -----------------------------------------------------------------------------------------
typedef struct Trio {
    Policy *by_threads[3]; // the same weights with 1, 2 and 3 threads
    int32_t vocabulary;
    int turn;
} Trio;

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

// Several turns, the tokens of others between them: every variant and either precision.
static void turns(void) {
    static const char *const names[] = {"reference", "generic", "avx2", "avx512", "avx512bf16"};
    int turn = 0;
    for (int v = 0; v < COUNT(names); v++) {
        if (!variant_use(names[v])) continue;
        for (int i = 0; i < (v == 0 ? 1 : 2); i++, turn++) {
            Requests *q = xcalloc(1, sizeof *q);
            ModelConfig c = stopping_config(&shapes[i % 3]);
            snprintf(context, sizeof context, "turns, %s, %s, %s", shapes[i % 3].name, precision_names[turn % 2], names[v]);
            Policy *p = policy_make(&c, NULL, (Precision)(turn % 2), 1 + turn % 2);
            requests_stream(q, c.vocabulary, turn, &samplings[turn % COUNT(samplings)]);
            q->count = v == 0 ? 3 : 5;
            check_turns(p, q, i == 0 && v > 2);
            policy_close(p);
            free(q);
        }
    }
    variant_use(NULL);
}

// ---- invariant 2 -----------------------------------------------------------------------------------------
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
    {"invariant 1: several turns", turns},
    {"invariant 2: threads and microbatches", weights_of_splits},
    {"invariant 2: long batches", weights_of_long_batches},
    {"invariant 2: every variant", weights_of_variants},
    {"saved, opened, gone on", saved_and_opened},
};
TEST_MAIN(tests)
