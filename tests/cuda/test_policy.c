// Whole policies on a CUDA device: invariants 1 and 2 bit for bit, agreement with the CPU, saving, and errors. On the emulated
// device the cases are few and small; on a GPU (scripts/gpu-check) the same ones run with the batches of `wide`.
#include "../policies/family_test.h"
#include "files.h"
#include <math.h>
#include <unistd.h>
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"
enum { WIDE = 0 };
#else
enum { WIDE = 1 };
#endif

static void need_device(void) {
    Err err = {0};
    char variant[64];
    if (policy_machine_variant("cuda", variant, &err)) return;
    if (err.code == ERR_UNAVAILABLE) SKIP("%s: %s", err.where, err.msg);
    FAIL("%s: %s", err.where, err.msg);
}

// ---- invariant 1 -----------------------------------------------------------------------------------------
// Groups that share a prompt, a stream of small requests, and prompts that end at, before and after the end of a page.
static void requests_few(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    static const int32_t lengths[] = {32, 31, 33, 1, 40}, samples[] = {3, 1, 2, 4, 1}, most[] = {6, 3, 20, 5, 34};
    q->count = 0;
    for (int i = 0; i < (WIDE ? 5 : 3); i++)
        requests_add(q, vocabulary, lengths[(i + turn) % 5], samples[(i + turn) % 5], most[(i + turn) % 5], sampling);
}

static void check_requests(Policy *p, const Requests *q, int turn) {
    Err err = {0};
    Rollout rollout;
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    check_forward(p, q, &rollout, turn % 2, INT32_MAX, turn % 3 == 0);
    if (turn % 2 || WIDE) check_forward(p, q, &rollout, false, 1, true);
    if (turn % 2 == 0 || WIDE) check_again(p, q, &rollout, 1, 3);
    if (WIDE) check_alone(p, q, &rollout, 3);
    rollout_free(&rollout);
}

static void sampler_is_trainer(void) {
    need_device();
#ifdef RECKON_CUDA_EMULATION
    emulation_set_host_guard(false); // it costs more than all else, and the first test has had it
#endif
    Requests *q = xcalloc(1, sizeof *q);
    int turn = 0;
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < (WIDE ? COUNT(shapes) : 3); i++, turn++) {
            ModelConfig c = stopping_config(&shapes[i]);
            Policy *p = policy_make_on("cuda", &c, NULL, (Precision)precision, 1);
            for (int k = 0; k < (WIDE ? 8 : 1); k++) {
                const Sampling *sampling = &samplings[WIDE ? k : (turn * 3) % COUNT(samplings)];
                snprintf(context, sizeof context, "%s, %s, sampling %d", shapes[i].name, precision_names[precision], turn);
                requests_few(q, c.vocabulary, turn + k, sampling);
                check_requests(p, q, turn + k);
                if (!WIDE) continue;
                requests_groups(q, c.vocabulary, turn + k, sampling);
                check_requests(p, q, turn + k);
                requests_stream(q, c.vocabulary, turn + k, sampling);
                check_requests(p, q, turn + k + 1);
            }
            policy_close(p);
        }
    free(q);
}

#ifdef RECKON_CUDA_EMULATION
// Logprobs of the training forward that aren't what the sampler recorded, to the bit.
static int logprobs_that_differ(Policy *p, const Requests *q) {
    Err err = {0};
    Rollout rollout;
    Batch b = {0};
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    const Completion *c = rollout.completions;
    for (int32_t i = 0; i < q->count; i++) {
        batch_prompt(&b, q->list[i].prompt, q->list[i].prompt_length);
        for (int32_t s = 0; s < q->list[i].samples; s++) batch_course(&b, c++);
    }
    float *logprob = xmalloc((size_t)b.target.count * 8), *entropy = logprob + b.target.count;
    OK(policy_forward(p, batch_view(&b, q->list[0].sampling.temperature), true, logprob, entropy, &err));
    int differ = 0, at = 0;
    for (int32_t i = 0; i < rollout.count; i++)
        for (int32_t t = 0; t < rollout.completions[i].length; t++, at++) differ += float_bits(logprob[at]) != float_bits(rollout.completions[i].logprob[t]);
    CHECK_INT(at, b.target.count);
    free(logprob);
    batch_free(&b);
    rollout_free(&rollout);
    return differ;
}
// Products of several chunks, which narrow passes share out over blocks. Given to a library that sums in any order they do differ: with
// widths like these the order of sums is seen in the logprobs.
static void sampler_is_trainer_in_chunks(void) {
    const Shape wide = {"several chunks", 1, 520, 4, 2, 64, 784, 300, false, false, false};
    ModelConfig c = stopping_config(&wide);
    Requests *q = xcalloc(1, sizeof *q);
    int differ[2];
    for (int32_t i = 0; i < 2; i++) requests_add(q, c.vocabulary, 3 + 30 * i, 2 + i, 4, &samplings[0]);
    for (int is_free = 0; is_free < 2; is_free++) {
        if (is_free) setenv("RECKON_CUDA_ALGORITHMS", "free", 1);
        Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_BF16, 1);
        unsetenv("RECKON_CUDA_ALGORITHMS");
        differ[is_free] = logprobs_that_differ(p, q);
        policy_close(p);
    }
    free(q);
    CHECK_INT(differ[0], 0);
    CHECK(differ[1] > 0);
}
#endif

// Several turns: a device's round goes on past the end of a turn, and what is given comes into the same pages.
static void turns(void) {
    need_device();
    Requests *q = xcalloc(1, sizeof *q);
    for (int i = WIDE ? 0 : 5; i < (WIDE ? 2 * COUNT(shapes) : 6); i++) {
        ModelConfig c = stopping_config(&shapes[i % COUNT(shapes)]);
        snprintf(context, sizeof context, "turns, %s, %s", shapes[i % COUNT(shapes)].name, precision_names[i % 2]);
        Policy *p = policy_make_on("cuda", &c, NULL, (Precision)(i % 2), 1);
        requests_few(q, c.vocabulary, i, &samplings[i % COUNT(samplings)]);
        check_turns(p, q, WIDE);
        policy_close(p);
    }
    free(q);
}

// ---- invariant 2 -----------------------------------------------------------------------------------------
static const int32_t some_groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 4, 4}, {33, 2, 5}};

static void weights_of_splits(void) {
    need_device();
    static const int cuts[][MAX_GROUPS] = {{MAX_GROUPS}, {1, 3, MAX_GROUPS}, {1, 2, 3, 4}};
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < (WIDE ? COUNT(shapes) : 2); i++) {
            ModelConfig c = shape_config(&shapes[i]);
            char want[65] = "", got[65];
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, c.vocabulary, some_groups, COUNT(some_groups), 21);
            for (int k = 0; k < (WIDE ? 3 : 2); k++) {
                Err err = {0};
                Policy *p = policy_make_on("cuda", &c, NULL, (Precision)precision, 1);
                for (int step = 0; step < (WIDE ? 5 : 2); step++) train_step(p, d, cuts[k], step);
                OK(policy_hash(p, got, &err));
                policy_close(p);
                if (k == 0) memcpy(want, got, sizeof want);
                if (strcmp(got, want) != 0) FAIL("%s, %s: weights differ with split %d", shapes[i].name, precision_names[precision], k);
            }
            free(d);
        }
}

// ---- beside the CPU --------------------------------------------------------------------------------------
// The same weights, one batch: logprobs, entropies, and the norm of each tensor's gradient. Sums differ in order only, in
// fp32; bf16 also rounds attention's probabilities.
static void beside_cpu(const ModelConfig *c, Precision precision) {
    Err err = {0};
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, c->vocabulary, some_groups, COUNT(some_groups), 31);
    Policy *both[2] = {policy_make(c, NULL, precision, 1), policy_make_on("cuda", c, NULL, precision, 1)};
    char host_hash[65], device_hash[65];
    OK(policy_hash(both[0], host_hash, &err) && policy_hash(both[1], device_hash, &err));
    CHECK_STR(device_hash, host_hash);
    Batch b = {0};
    for (int g = 0; g < d->group_count; g++) {
        batch_prompt(&b, d->groups[g].prompt, d->groups[g].prompt_length);
        for (int s = 0; s < d->groups[g].samples; s++)
            batch_completion(&b, d->groups[g].ids[s], d->groups[g].lengths[s], NULL, NULL);
    }
    const Packed *packed = batch_view(&b, 0.8);
    int32_t R = packed->target_count;
    float *lp[2], *entropy[2], *dlogprob = xmalloc((size_t)R * 4);
    for (int32_t r = 0; r < R; r++) dlogprob[r] = (float)(r % 7 - 3) / (float)R;
    for (int k = 0; k < 2; k++) {
        lp[k] = xmalloc((size_t)R * 4), entropy[k] = xmalloc((size_t)R * 4);
        OK(policy_forward(both[k], packed, true, lp[k], entropy[k], &err));
        policy_zero_gradients(both[k]);
        OK(policy_backward(both[k], packed, dlogprob, dlogprob, &err));
    }
    double close = precision ? 0.06 : 2e-5;
    for (int32_t r = 0; r < R; r++) {
        CHECK_NEAR(lp[1][r], lp[0][r], close * (1 + fabs(lp[0][r])));
        CHECK_NEAR(entropy[1][r], entropy[0][r], close * (1 + fabs(entropy[0][r])));
    }
    for (int j = 0; j < policy_parameter_count(both[0]); j++) {
        double want = policy_parameter_gradient_norm(both[0], j), got = policy_parameter_gradient_norm(both[1], j);
        CHECK_NEAR(got, want, (precision ? 0.05 : 2e-4) * (want + 1e-3));
    }
    for (int k = 0; k < 2; k++) free(lp[k]), free(entropy[k]), policy_close(both[k]);
    free(dlogprob), free(d);
    batch_free(&b);
}
static void agrees_with_the_cpu(void) {
    need_device();
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < (WIDE ? COUNT(shapes) : 3); i++) {
            ModelConfig c = shape_config(&shapes[i]);
            beside_cpu(&c, (Precision)precision);
        }
}

// Windows, norms of heads and outputs, caps, rotation in part, angles of their own: sampled and computed again, and beside the
// CPU in fp32.
static void families(void) {
    need_device();
    Requests *q = xcalloc(1, sizeof *q);
    for (int i = WIDE ? 0 : 8; i < (WIDE ? COUNT(kinds) : 9); i++) {
        ModelConfig c = kind_config(&kinds[i]);
        for (int precision = WIDE ? 0 : 1; precision < 2; precision++) {
            Policy *p = policy_make_on("cuda", &c, NULL, (Precision)precision, 1);
            snprintf(context, sizeof context, "%s, %s", kinds[i].name, precision_names[precision]);
            requests_few(q, c.vocabulary, i + 1, &samplings[i % COUNT(samplings)]);
            check_requests(p, q, i + precision);
            policy_close(p);
        }
        beside_cpu(&c, PRECISION_FP32);
    }
    free(q);
}

// Greedy tokens are the CPU's in fp32, and the top of the distribution too.
static void greedy_as_on_the_cpu(void) {
    need_device();
    Err err = {0};
    Requests *q = xcalloc(1, sizeof *q);
    ModelConfig c = shape_config(&shapes[0]);
    Policy *host = policy_make(&c, NULL, PRECISION_FP32, 1), *device = policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1);
    requests_few(q, c.vocabulary, 0, &samplings[7]);
    Rollout want, got;
    OK(policy_rollout(host, q->list, q->count, NULL, &want, &err));
    OK(policy_rollout(device, q->list, q->count, NULL, &got, &err));
    CHECK_INT(got.count, want.count);
    for (int i = 0; i < want.count; i++) {
        CHECK_INT(got.completions[i].length, want.completions[i].length);
        for (int t = 0; t < want.completions[i].length; t++) {
            CHECK_INT(got.completions[i].ids[t], want.completions[i].ids[t]);
            CHECK_NEAR(got.completions[i].logprob[t], want.completions[i].logprob[t], 1e-4);
        }
    }
    int32_t ids[2][4];
    float logprobs[2][4];
    OK(policy_top(host, q->prompts[0], 5, 4, ids[0], logprobs[0], &err));
    OK(policy_top(device, q->prompts[0], 5, 4, ids[1], logprobs[1], &err));
    for (int k = 0; k < 4; k++) {
        CHECK_INT(ids[1][k], ids[0][k]);
        CHECK_NEAR(logprobs[1][k], logprobs[0][k], 1e-4);
    }
    rollout_free(&want), rollout_free(&got);
    policy_close(host), policy_close(device);
    free(q);
}

// ---- rounds ----------------------------------------------------------------------------------------------
#ifdef RECKON_CUDA_EMULATION
// The rows of samples that decode on are sent once; a sample that ends changes nothing for the others, and a kept set of usual size
// stops nobody.
static void sent_once(Policy *p, const ModelConfig *c, const Sampling *sampling) {
    Err err = {0};
    Rollout first, again;
    Requests *q = xcalloc(1, sizeof *q);
    requests_add(q, c->vocabulary, 30, 4, 53, sampling);
    q->list[0].sampling.ignore_eos = true;
    OK(policy_rollout(p, q->list, 1, NULL, &first, &err)); // tables of angles are sent too
    int before = emulation_uploads();
    OK(policy_rollout(p, q->list, 1, NULL, &again, &err));
    CHECK_INT(emulation_uploads() - before, 2); // the prompt's rows, and those that decode
    CHECK_INT(again.new_tokens, 4 * 53);
    for (int s = 0; s < 4; s++) check_same(&again.completions[s], &first.completions[s], 0, s);
    rollout_free(&first), rollout_free(&again);
    free(q);
}
static void rows_are_sent_once(void) {
    ModelConfig c = shape_config(&shapes[0]);
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1);
    sent_once(p, &c, &samplings[0]);
    sent_once(p, &c, &(Sampling){.temperature = 1, .top_k = 7, .top_p = 1});
    sent_once(p, &c, &(Sampling){.temperature = 1, .top_p = 0.9});
    policy_close(p);
}
#endif

// Ends that the device sees (ids, budgets) and requests that wait for places, in rounds that are queued ahead: the same samples as with
// room for all, and alone.
static void ends_in_rounds(void) {
    need_device();
    Err err = {0};
    ModelConfig c = stopping_config(&shapes[0]);
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_BF16, 1);
    Requests *q = xcalloc(1, sizeof *q);
    Rollout rollout;
    for (int i = 0; i < 5; i++) requests_add(q, c.vocabulary, 9 + 7 * i, 1 + 2 * i, 61 - 12 * i, &samplings[i % 2]);
    for (int i = 1; i < 5; i += 2) q->list[i].sampling.ignore_eos = true;
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    int stopped = 0;
    for (int i = 0; i < rollout.count; i++) stopped += rollout.completions[i].finish == FINISH_STOP;
    CHECK(stopped > 1 && stopped < rollout.count);
    snprintf(context, sizeof context, "ends in rounds");
    for (int places = 9; places < 20; places += 5) check_again(p, q, &rollout, 2, places);
    check_alone(p, q, &rollout, 4);
    rollout_free(&rollout);
    policy_close(p);
    free(q);
}

// Kept sets of more ids than a record has room for, alone and among others.
static void large_kept_sets(void) {
    need_device();
    Err err = {0};
    ModelConfig c = shape_config(&shapes[0]);
    c.vocabulary = 2100;
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1);
    Requests *q = xcalloc(1, sizeof *q);
    Rollout rollout;
    requests_add(q, c.vocabulary, 5, 2, 3, &(Sampling){.temperature = 1.3, .top_k = 2000, .top_p = 1});
    requests_add(q, c.vocabulary, 3, 2, 4, &(Sampling){.temperature = 1.3, .top_k = 7, .top_p = 1});
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    for (int i = 0; i < 4; i++) {
        const Completion *o = &rollout.completions[i];
        for (int32_t t = 0; t < o->length; t++) {
            int64_t from = o->kept_start[t], to = o->kept_start[t + 1];
            bool drawn = false;
            CHECK_INT(to - from, i < 2 ? 2000 : 7);
            for (int64_t k = from; k < to; k++) {
                drawn |= o->kept_ids[k] == o->ids[t];
                CHECK(o->kept_ids[k] >= 0 && o->kept_ids[k] < 2100 && (k == from || o->kept_ids[k] > o->kept_ids[k - 1]));
            }
            CHECK(drawn);
        }
    }
    check_forward(p, q, &rollout, false, INT32_MAX, true);
    rollout_free(&rollout);
    q->count = 0; // some larger, some not
    requests_add(q, c.vocabulary, 5, 3, 24, &(Sampling){.temperature = 0.8, .top_p = 0.72});
    requests_add(q, c.vocabulary, 3, 2, 30, &(Sampling){.temperature = 0.8, .top_k = 20, .top_p = 1});
    OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
    int larger = 0, sets = 0;
    for (int i = 0; i < 3; i++)
        for (int32_t t = 0; t < rollout.completions[i].length; t++, sets++)
            larger += rollout.completions[i].kept_start[t + 1] - rollout.completions[i].kept_start[t] > 256;
    CHECK(larger > sets / 10 && larger < sets * 9 / 10);
    check_forward(p, q, &rollout, false, INT32_MAX, true);
    check_again(p, q, &rollout, 1, 3);
    rollout_free(&rollout);
    policy_close(p);
    free(q);
}

// ---- saving ----------------------------------------------------------------------------------------------
static void saved_and_opened(void) {
    need_device();
    static const int cuts[] = {3, MAX_GROUPS};
    Err err = {0};
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, shapes[1].vocabulary, some_groups, COUNT(some_groups), 24);
    ModelConfig c = shape_config(&shapes[1]);
    char folder[] = "/tmp/reckon-cuda-XXXXXX", want[65], got[65];
    CHECK(mkdtemp(folder));
    char *moments = path_join(folder, "optimizer.safetensors");
    PolicyOptions options = {.precision = PRECISION_BF16, .device = "cuda", .threads = 1, .trainable = true};
    Policy *p = policy_make_on("cuda", &c, NULL, PRECISION_BF16, 1), *q, *frozen;
    train_step(p, d, cuts, 0);
    OK(policy_save(p, folder, "F32", &err));
    OK(policy_save_optimizer(p, moments, &err));
    OK(policy_open(folder, &options, &q, &err));
    OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
    CHECK_STR(got, want);
    OK(policy_load_optimizer(q, moments, &err));
    // A frozen copy holds the packed weights, and outlives the policy it was made of.
    OK(policy_freeze_copy(p, &frozen, &err));
    train_step(p, d, cuts, 1), train_step(q, d, cuts, 1);
    OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
    CHECK_STR(got, want);
    policy_close(p), policy_close(q);
    OK(policy_hash(frozen, got, &err));
    options.trainable = false;
    OK(policy_open(folder, &options, &q, &err));
    OK(policy_hash(q, want, &err));
    CHECK_STR(got, want);
    policy_close(q), policy_close(frozen);
    OK(folder_remove(folder, &err));
    free(moments), free(d);
}

// More rows than logits are stored for, then fewer as some end: no draw changes, and each is the trainer's to the bit.
static void draws_without_logits(void) {
    need_device();
    Err err = {0};
    Requests *q = xcalloc(1, sizeof *q);
    Rollout rollout;
    for (int k = 0; k < 4; k++) {
        ModelConfig c = stopping_config(&shapes[k / 2]);
        Policy *p = policy_make_on("cuda", &c, NULL, (Precision)(k % 2), 1);
        q->count = 0;
        for (int i = 0; i < 3; i++) requests_add(q, c.vocabulary, 3 + i, STORED_ROWS / 2 - i, 2 + 2 * i, &(Sampling){.temperature = k % 2 ? 0.7 : 1, .top_p = 1});
        OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
        CHECK(rollout.count > STORED_ROWS);
        snprintf(context, sizeof context, "draws without logits, %s, %s", shapes[k / 2].name, precision_names[k % 2]);
        check_forward(p, q, &rollout, k % 2, INT32_MAX, false);
        check_again(p, q, &rollout, 1, STORED_ROWS);
        rollout_free(&rollout);
        policy_close(p);
    }
    free(q);
}

// Weights in 8 bits are for the CPU: asked for, they are refused by name, not left out.
static void no_8_bits(void) {
    need_device();
    Err err = {0};
    Policy *p = NULL;
    ModelConfig c = stopping_config(&shapes[0]);
    PolicyOptions o = {.precision = PRECISION_BF16, .device = "cuda", .threads = 1, .int8 = true};
    CHECK(!policy_create(&c, NULL, 7, &o, &p, &err));
    CHECK_INT(err.code, ERR_UNAVAILABLE);
    CHECK(strstr(err.msg, "rollouts in int8 are for the CPU only"));
}

static const Test tests[] = {
    {"agrees with the CPU", agrees_with_the_cpu},
    {"cuda policies: families", families},
    {"invariant 1: sampler and trainer", sampler_is_trainer},
#ifdef RECKON_CUDA_EMULATION
    {"invariant 1: products in chunks", sampler_is_trainer_in_chunks},
#endif
    {"invariant 1: several turns", turns},
    {"invariant 2: microbatches", weights_of_splits},
    {"greedy tokens as on the CPU", greedy_as_on_the_cpu},
#ifdef RECKON_CUDA_EMULATION
    {"rounds ahead: rows are sent once", rows_are_sent_once},
#endif
    {"rounds ahead: ends", ends_in_rounds},
    {"large kept sets", large_kept_sets},
    {"draws without logits", draws_without_logits},
    {"saved, opened, gone on", saved_and_opened},
    {"8 bits are refused", no_8_bits},
};
TEST_MAIN(tests)
