// Mixtures of experts and latent attention: reference models from Hugging Face transformers to the expert, the sampler's numbers
// and routes against the trainer's, weights after training that don't depend on threads and microbatches, saving, and the bias.
#include "mixture_test.h"
#include "files.h"
#include <unistd.h>

// ---- reference models ------------------------------------------------------------------------------------
static const char *const references[] = {"mixtral", "qwen3-moe", "qwen3-moe-unnorm", "deepseek-v3", "deepseek-v3-yarn", "deepseek-v2-lite"};

static void ids_of(const json_t *array, Ids *out) {
    for (size_t i = 0; i < json_array_size(array); i++) ids_push(out, (int32_t)json_integer_value(json_array_get(array, i)));
}
static void check_experts(const Policy *p, const json_t *sequence, const int32_t *choice, int32_t T) {
    const json_t *experts = json_object_get(sequence, "experts"), *entry;
    int chosen = policy_config(p)->experts.chosen;
    size_t n;
    CHECK_INT(json_array_size(experts), policy_expert_layers(p));
    json_array_foreach(experts, n, entry)
        for (int32_t t = 0; t < T; t++)
            for (int j = 0; j < chosen; j++) {
                const json_t *row = json_array_get(json_object_get(entry, "choice"), (size_t)t);
                CHECK_INT(choice[((int64_t)n * T + t) * chosen + j], json_integer_value(json_array_get(row, (size_t)j)));
            }
}
static void check_sequences(Policy *p, const json_t *cases) {
    const json_t *sequence;
    size_t i;
    json_array_foreach(json_object_get(cases, "sequences"), i, sequence) {
        Err err = {0};
        Batch b = {0};
        Ids ids = {0};
        ids_of(json_object_get(sequence, "ids"), &ids);
        batch_prompt(&b, ids.data, 1);
        batch_completion(&b, ids.data + 1, ids.count - 1, NULL, NULL);
        float *logprob = xmalloc((size_t)ids.count * 4);
        int32_t *choice = xmalloc((size_t)policy_expert_layers(p) * (size_t)ids.count * (size_t)policy_config(p)->experts.chosen * 4);
        OK(policy_forward_experts(p, batch_view(&b, 1), logprob, choice, &err));
        const json_t *want = json_object_get(sequence, "next_logprobs_f64");
        for (int32_t t = 0; t + 1 < ids.count; t++) CHECK_NEAR(logprob[t], json_number_value(json_array_get(want, (size_t)t)), 1e-4);
        check_experts(p, sequence, choice, ids.count);
        free(logprob), free(choice);
        ids_free(&ids);
        batch_free(&b);
    }
}
static void check_gradients(Policy *p, const json_t *cases) {
    const json_t *training = json_object_get(cases, "training"), *gradients = json_object_get(training, "grads");
    Err err = {0};
    Batch b = {0};
    Ids ids = {0};
    ids_of(json_object_get(training, "ids"), &ids);
    batch_prompt(&b, ids.data, 1);
    batch_completion(&b, ids.data + 1, ids.count - 1, NULL, NULL);
    float *logprob = xmalloc((size_t)ids.count * 4), *weight = xmalloc((size_t)ids.count * 4);
    for (int32_t t = 0; t + 1 < ids.count; t++) weight[t] = -1.0f / (float)(ids.count - 1);
    policy_zero_gradients(p);
    OK(policy_forward(p, batch_view(&b, 1), true, logprob, NULL, &err));
    OK(policy_backward(p, &b.packed, weight, NULL, &err));
    gradients_settle(p);
    CHECK_INT(policy_parameter_count(p), json_object_size(gradients));
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        for (int k = 0; k < q->part_count && q->gradient; k++) {
            const json_t *want = json_object_get(gradients, q->parts[k].name), *first = json_object_get(want, "first");
            if (!want) FAIL("%s isn't a parameter of the reference", q->parts[k].name);
            double l2 = json_number_value(json_object_get(want, "l2")), sum = 0;
            const float *got = q->gradient + q->parts[k].row * q->K;
            for (int64_t n = 0; n < q->parts[k].rows * q->K; n++) {
                double g = (double)got[n] + (q->gradient2 ? (double)(q->gradient2 + q->parts[k].row * q->K)[n] : 0);
                sum += g * g;
                if (n < (int64_t)json_array_size(first)) CHECK_NEAR(g, json_number_value(json_array_get(first, (size_t)n)), 1e-3 * l2);
            }
            if (!(fabs(sqrt(sum) - l2) <= 1e-3 * l2)) FAIL("%s: gradient norm %.9g, want %.9g", q->parts[k].name, sqrt(sum), l2);
        }
    }
    free(logprob), free(weight);
    ids_free(&ids);
    batch_free(&b);
}
static void check_greedy(Policy *p, const json_t *cases) {
    const json_t *greedy = json_object_get(cases, "greedy");
    Err err = {0};
    Ids prompt = {0}, want = {0};
    ids_of(json_object_get(greedy, "prompt"), &prompt), ids_of(json_object_get(greedy, "ids"), &want);
    RolloutRequest r = {.prompt = prompt.data, .prompt_length = prompt.count, .samples = 2,
                        .sampling = {.top_p = 1, .max_tokens = want.count, .ignore_eos = true}};
    Rollout out;
    OK(policy_rollout(p, &r, 1, NULL, &out, &err));
    for (int s = 0; s < 2; s++)
        for (int32_t t = 0; t < want.count; t++) CHECK_INT(out.completions[s].ids[t], want.data[t]);
    rollout_free(&out);
    ids_free(&prompt), ids_free(&want);
}
static void reference_models(void) {
    for (int i = 0; i < COUNT(references); i++) {
        Err err = {0};
        Policy *p;
        json_t *cases;
        char folder[256], path[300];
        snprintf(folder, sizeof folder, TEST_DATA "/models/%s", references[i]);
        snprintf(path, sizeof path, "%s/cases.json", folder);
        OK(json_read_file(path, 1 << 24, &cases, &err));
        OK(policy_open(folder, &(PolicyOptions){.threads = 1, .trainable = true}, &p, &err));
        CHECK_INT(config_parameters(policy_config(p)), json_integer_value(json_object_get(cases, "parameters")));
        check_sequences(p, cases);
        check_gradients(p, cases);
        check_greedy(p, cases);
        policy_close(p);
        json_decref(cases);
    }
}

// ---- small models of every kind --------------------------------------------------------------------------
static void sampler_is_trainer(void) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            Err err = {0};
            ModelConfig c = mixture_config(kind);
            Policy *p = policy_make(&c, NULL, (Precision)precision, 1), *two = policy_make(&c, NULL, (Precision)precision, 2);
            Requests *q = xcalloc(1, sizeof *q);
            Rollout rollout;
            snprintf(context, sizeof context, "%s, %s", c.model_type, precision_names[precision]);
            requests_stream(q, c.vocabulary, kind, &samplings[(2 * kind + precision) % COUNT(samplings)]);
            q->count = 7;
            OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
            check_forward(p, q, &rollout, false, INT32_MAX, true);
            check_forward(two, q, &rollout, true, 1, false);
            check_alone(p, q, &rollout, 5);
            if (precision == kind % 2) check_again(two, q, &rollout, 3, 5);
            rollout_free(&rollout);
            policy_close(p), policy_close(two);
            free(q);
        }
}

// The experts of each token in a pass of many are those of the token in a pass of its own sequence, at every length: what
// decoding chooses is what training chooses.
static void routes_are_the_same(void) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            enum { T = 40 };
            Err err = {0};
            ModelConfig c = mixture_config(kind);
            Policy *p = policy_make(&c, NULL, (Precision)precision, 2);
            int layers = policy_expert_layers(p), k = c.experts.chosen;
            int32_t ids[T], all[4 * 3 * T * 3], one[3 * T * 3];
            float logprob[3 * T];
            Random r = random_start(31, STREAM_TEST, (uint64_t)kind);
            random_ids(&r, c.vocabulary, T, ids);
            Batch b = {0};
            batch_prompt(&b, ids, 20);
            for (int s = 0; s < 2; s++) batch_completion(&b, ids + 20, 10, NULL, NULL);
            batch_prompt(&b, ids, 1);
            batch_completion(&b, ids + 1, T - 1, NULL, NULL);
            int32_t total = b.tokens.count, start = total - T;
            OK(policy_forward_experts(p, batch_view(&b, 1), logprob, all, &err));
            batch_free(&b);
            for (int32_t length = 1; length <= T; length += 3) {
                batch_prompt(&b, ids, length);
                OK(policy_forward_experts(p, batch_view(&b, 1), logprob, one, &err));
                batch_free(&b);
                for (int layer = 0; layer < layers; layer++)
                    if (memcmp(one + (int64_t)layer * length * k, all + ((int64_t)layer * total + start) * k, (size_t)(length * k) * 4) != 0)
                        FAIL("%s, %s: the first %d tokens go to other experts alone", c.model_type, precision_names[precision], length);
            }
            policy_close(p);
        }
}

// ---- training --------------------------------------------------------------------------------------------
static const int32_t odd_groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 5, 4}, {33, 2, 11}, {7, 4, 3}};

static void train_with_losses(Policy *p, const Data *d, const int *cuts, int step) {
    Err err = {0};
    int64_t load[4 * 8];
    train_step(p, d, cuts, step);
    OK(policy_take_expert_load(p, 0.01, load, &err));
}
static void weights_of_splits(void) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            ModelConfig c = mixture_config(kind);
            Data *d = xcalloc(1, sizeof *d);
            char want[65] = "", got[65];
            data_make(d, c.vocabulary, odd_groups, COUNT(odd_groups), 21);
            for (int k = 0; k < 2 + (precision == kind % 2); k++) {
                Err err = {0};
                Policy *p = policy_make(&c, NULL, (Precision)precision, 1 + k % 2);
                for (int step = 0; step < 2; step++) train_with_losses(p, d, splits[k], step);
                OK(policy_hash(p, got, &err));
                policy_close(p);
                if (k == 0) memcpy(want, got, sizeof want);
                if (strcmp(got, want) != 0) FAIL("%s, %s: other weights by split %d", c.model_type, precision_names[precision], k);
            }
            free(d);
        }
}

// One group of 30 tokens; the losses of the routers alone, their gradient in the router's weights against the loss's own slope.
typedef struct RouterLoss {
    Policy *p;
    const Packed *batch;
    double balance, z;
} RouterLoss;
static double router_gradient_norm(const RouterLoss *r, int layer) {
    Err err = {0};
    Packed batch = *r->batch;
    float logprob[64], zero[64] = {0};
    batch.router_balance = r->balance, batch.router_z = r->z;
    policy_zero_gradients(r->p);
    OK(policy_forward(r->p, &batch, true, logprob, NULL, &err));
    OK(policy_backward(r->p, &batch, zero, NULL, &err));
    const Parameter *q = r->p->layers[layer].router.weight;
    double sum = 0;
    for (int64_t i = 0; i < q->N * q->K; i++) sum += (double)q->gradient[i] * (double)q->gradient[i];
    return sqrt(sum);
}
static void router_losses(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        ModelConfig c = mixture_config(kind);
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
        int32_t ids[30];
        Random r = random_start(41, STREAM_TEST, (uint64_t)kind);
        random_ids(&r, c.vocabulary, 30, ids);
        Batch b = {0};
        batch_prompt(&b, ids, 1);
        batch_completion(&b, ids + 1, 29, NULL, NULL);
        RouterLoss loss = {.p = p, .batch = batch_view(&b, 1)};
        CHECK(router_gradient_norm(&loss, 2) == 0);
        loss.balance = 0.1;
        double balance = router_gradient_norm(&loss, 2);
        loss.balance = 0.2;
        CHECK_NEAR(router_gradient_norm(&loss, 2), 2 * balance, 1e-5 * balance);
        loss.balance = 0, loss.z = 0.1;
        CHECK(balance > 0 && router_gradient_norm(&loss, 2) > 0);
        batch_free(&b);
        policy_close(p);
    }
}

static void bias_moves(void) {
    Err err = {0};
    ModelConfig c = mixture_config(3);
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    static const int cuts[] = {MAX_GROUPS};
    Data *d = xcalloc(1, sizeof *d);
    int64_t load[2 * 6], rows = 0;
    float before[6], after[6];
    data_make(d, c.vocabulary, odd_groups, COUNT(odd_groups), 21);
    memcpy(before, p->layers[2].correction->values, sizeof before);
    train_step(p, d, cuts, 0);
    OK(policy_take_expert_load(p, 0.125, load, &err));
    memcpy(after, p->layers[2].correction->values, sizeof after);
    for (int e = 0; e < 6; e++) rows += load[6 + e];
    CHECK(rows > 0 && rows % c.experts.chosen == 0);
    for (int e = 0; e < 6; e++) {
        float want = before[e] + (6 * load[6 + e] < rows ? 0.125f : 6 * load[6 + e] > rows ? -0.125f : 0.0f);
        CHECK(after[e] == want);
    }
    OK(policy_take_expert_load(p, 0.125, load, &err));
    for (int e = 0; e < 12; e++) CHECK_INT(load[e], 0);
    CHECK(memcmp(p->layers[2].correction->values, after, sizeof after) == 0);
    policy_close(p);
    free(d);
}

// ---- saving ----------------------------------------------------------------------------------------------
static void saved_and_opened(void) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int precision = 0; precision < 2; precision++) {
            static const int cuts[] = {3, MAX_GROUPS};
            Err err = {0};
            ModelConfig c = mixture_config(kind);
            Data *d = xcalloc(1, sizeof *d);
            char folder[] = "/tmp/reckon-mixture-XXXXXX", want[65], got[65];
            CHECK(mkdtemp(folder));
            char *moments = path_join(folder, "optimizer.safetensors");
            data_make(d, c.vocabulary, odd_groups, COUNT(odd_groups), 24);
            PolicyOptions options = {.precision = (Precision)precision, .threads = 1, .trainable = true};
            Policy *p = policy_make(&c, NULL, options.precision, 1), *q, *frozen;
            train_with_losses(p, d, cuts, 0);
            OK(policy_save(p, folder, "F32", &err) && policy_save_optimizer(p, moments, &err));
            OK(policy_open(folder, &options, &q, &err));
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            CHECK_STR(got, want);
            CHECK(memcmp(&policy_config(q)->experts, &c.experts, sizeof c.experts) == 0 && memcmp(&policy_config(q)->latent, &c.latent, sizeof c.latent) == 0);
            OK(policy_load_optimizer(q, moments, &err));
            train_with_losses(p, d, cuts, 1), train_with_losses(q, d, cuts, 1);
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            CHECK_STR(got, want);
            // A frozen copy computes the same, and so does what is opened for sampling alone.
            Requests *requests = xcalloc(1, sizeof *requests);
            Rollout rollout;
            requests_stream(requests, c.vocabulary, kind, &samplings[0]);
            requests->count = 4;
            OK(policy_rollout(q, requests->list, requests->count, NULL, &rollout, &err));
            OK(policy_freeze_copy(q, &frozen, &err));
            check_forward(frozen, requests, &rollout, false, INT32_MAX, false);
            check_again(frozen, requests, &rollout, 1, 3);
            rollout_free(&rollout);
            policy_close(p), policy_close(q), policy_close(frozen);
            OK(folder_remove(folder, &err));
            free(moments), free(requests), free(d);
        }
}

static const Test tests[] = {
    {"reference models: logprobs, experts, gradients, greedy", reference_models},
    {"sampler and trainer are the same numbers", sampler_is_trainer},
    {"and choose the same experts", routes_are_the_same},
    {"weights don't depend on threads and microbatches", weights_of_splits},
    {"losses of the routers", router_losses},
    {"the correction bias moves against the load", bias_moves},
    {"saved, opened, gone on, frozen", saved_and_opened},
};
TEST_MAIN(tests)
