// Mixtures of experts and latent attention as whole policies on a CUDA device: the sampler's numbers are the trainer's, weights don't
// depend on the split into microbatches, logprobs are those of the CPU, and the bias moves. Few and small cases on the emulated device.
#include "../policies/mixture_test.h"
#include "files.h"
#ifdef RECKON_CUDA_EMULATION
#include "emulation.h"
enum { STEP = 2 }; // every second kind
#else
enum { STEP = 1 };
#endif

static void need_device(void) {
    Err err = {0};
    char variant[64];
    if (policy_machine_variant("cuda", variant, &err)) return;
    if (err.code == ERR_UNAVAILABLE) SKIP("%s: %s", err.where, err.msg);
    FAIL("%s: %s", err.where, err.msg);
}
static const int32_t some_groups[][3] = {{5, 2, 3}, {32, 1, 2}, {1, 2, 2}};

static void sampler_is_trainer(void) {
    need_device();
#ifdef RECKON_CUDA_EMULATION
    emulation_set_host_guard(false); // it costs more than all else; the operations' own tests have it
#endif
    for (int i = 1; i < KINDS; i += STEP) {
        Err err = {0};
        ModelConfig c = mixture_config(i);
        Policy *p = policy_make_on("cuda", &c, NULL, (Precision)(i / 2), 1);
        Requests *q = xcalloc(1, sizeof *q);
        Rollout rollout;
        snprintf(context, sizeof context, "%s, %s", c.model_type, precision_names[i / 2]);
        requests_add(q, c.vocabulary, 33, 2, 3, &samplings[0]);
        requests_add(q, c.vocabulary, 7, 1, 4, &samplings[0]);
        OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
        check_forward(p, q, &rollout, true, 1, i % 2);
        check_again(p, q, &rollout, 1, 3);
        rollout_free(&rollout);
        policy_close(p);
        free(q);
    }
}

static void weights_of_splits(void) {
    need_device();
    static const int cuts[][MAX_GROUPS] = {{MAX_GROUPS}, {1, 2, 3}};
    for (int i = 1; i < KINDS; i += STEP) {
        ModelConfig c = mixture_config(i);
        Data *d = xcalloc(1, sizeof *d);
        char want[65] = "", got[65];
        data_make(d, c.vocabulary, some_groups, COUNT(some_groups), 21);
        for (int k = 0; k < 2; k++) {
            Err err = {0};
            int64_t load[3 * 6];
            Policy *p = policy_make_on("cuda", &c, NULL, (Precision)(i / 2), 1);
            train_step(p, d, cuts[k], 0);
            OK(policy_take_expert_load(p, 0.01, load, &err));
            OK(policy_hash(p, got, &err));
            policy_close(p);
            if (k == 0) memcpy(want, got, sizeof want);
            if (strcmp(got, want) != 0) FAIL("%s, %s: weights differ with split %d", c.model_type, precision_names[i / 2], k);
        }
        free(d);
    }
}

static void agrees_with_the_cpu(void) {
    need_device();
    for (int i = 0; i < KINDS; i += STEP) {
        Err err = {0};
        ModelConfig c = mixture_config(i);
        Policy *both[2] = {policy_make(&c, NULL, PRECISION_FP32, 1), policy_make_on("cuda", &c, NULL, PRECISION_FP32, 1)};
        int32_t ids[40];
        float logprob[2][40], weight[40];
        double norms[2];
        Random r = random_start(51, STREAM_TEST, (uint64_t)i);
        random_ids(&r, c.vocabulary, 40, ids);
        for (int k = 0; k < 2; k++) {
            Batch b = {0};
            batch_prompt(&b, ids, 20);
            for (int s = 0; s < 2; s++) batch_completion(&b, ids + 20 + 10 * s, 10, NULL, NULL);
            policy_zero_gradients(both[k]);
            batch_view(&b, 1);
            b.packed.router_balance = 0.01, b.packed.router_z = 0.001;
            OK(policy_forward(both[k], &b.packed, true, logprob[k], NULL, &err));
            for (int t = 0; t < 20; t++) weight[t] = -0.05f;
            OK(policy_backward(both[k], &b.packed, weight, NULL, &err));
            norms[k] = policy_gradient_norm(both[k]);
            batch_free(&b);
        }
        for (int t = 0; t < 20; t++)
            if (!(fabs((double)logprob[0][t] - (double)logprob[1][t]) <= 2e-4))
                FAIL("%s: logprob %d is %.9g on the device, %.9g on the CPU", c.model_type, t, logprob[1][t], logprob[0][t]);
        CHECK_NEAR(norms[1], norms[0], 1e-4 * norms[0]);
        policy_close(both[0]), policy_close(both[1]);
    }
}

// An adapter on every product, the experts' too, on the CPU and on the device.
static void adapters_agree(void) {
    need_device();
#ifdef RECKON_CUDA_EMULATION
    emulation_set_host_guard(false);
#endif
    static const char *const devices[] = {"cpu", "cuda"};
    for (int i = 0; i < KINDS; i += 2 * STEP - 1) {
        Err err = {0};
        Precision precision = i ? PRECISION_BF16 : PRECISION_FP32;
        ModelConfig c = mixture_config(i);
        Data *d = xcalloc(1, sizeof *d);
        char folder[] = "/tmp/reckon-mixture-XXXXXX";
        double norms[2][512];
        CHECK(mkdtemp(folder));
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
        OK(policy_save(p, folder, "F32", &err));
        policy_close(p);
        data_make(d, c.vocabulary, some_groups, 2, 21);
        for (int k = 0; k < 2; k++) {
            Random r = random_start(52, STREAM_TEST, (uint64_t)i);
            PolicyOptions o = {.precision = precision, .threads = 1, .device = devices[k], .trainable = true, .lora = {.rank = 8, .alpha = 6}};
            OK(policy_open(folder, &o, &p, &err));
            for (int n = 0; n < p->trained->count; n++) {
                const Parameter *q = &p->trained->parameters[n];
                float *values = xmalloc((size_t)(q->N * q->K) * sizeof *values);
                for (int64_t j = 0; j < q->N * q->K; j++) values[j] = (float)(0.2 * random_normal(&r));
                OK(parameter_set(p, q, values, &err));
                free(values);
            }
            policy_zero_gradients(p);
            train_microbatch(p, d, 0, d->group_count, 0);
            CHECK(policy_parameter_count(p) <= COUNT(norms[k]));
            for (int n = 0; n < policy_parameter_count(p); n++) {
                norms[k][n] = policy_parameter_gradient_norm(p, n);
                if (k == 1) CHECK_NEAR(norms[1][n], norms[0][n], (i ? 3e-2 : 1e-3) * norms[0][n]);
            }
            policy_close(p);
        }
        OK(folder_remove(folder, &err));
        free(d);
    }
}

static const Test tests[] = {
    {"sampler and trainer are the same numbers", sampler_is_trainer},
    {"weights don't depend on microbatches", weights_of_splits},
    {"near the CPU", agrees_with_the_cpu},
    {"adapters agree with the CPU", adapters_agree},
};
TEST_MAIN(tests)
