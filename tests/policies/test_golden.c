// Whole models against numbers from Hugging Face transformers in double precision: logprobs, gradients, greedy
// continuations of small checkpoints of every family, of a quantised GGUF, and of SmolLM2 where it was fetched.
#include "policy_test.h"
#include "files.h"

static json_t *golden_open(const char *path) {
    Err err = {0};
    json_t *cases;
    OK(json_read_file(path, 1 << 24, &cases, &err));
    return cases;
}

typedef struct List {
    int32_t ids[256];
    int32_t count;
} List;
static List list_of(const json_t *array) {
    List l = {.count = (int32_t)json_array_size(array)};
    CHECK(json_is_array(array) && l.count <= COUNT(l.ids));
    for (int32_t i = 0; i < l.count; i++) l.ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return l;
}
static double number_at(const json_t *array, int64_t i) {
    const json_t *value = json_array_get(array, (size_t)i);
    CHECK(json_is_number(value));
    return json_number_value(value);
}

// Logprobs of tokens 1..n-1 of one list.
static void score(Policy *p, const List *l, bool keep, float *logprob) {
    Err err = {0};
    Batch b = {0};
    batch_prompt(&b, l->ids, 1);
    batch_completion(&b, l->ids + 1, l->count - 1, NULL, NULL);
    OK(policy_forward(p, batch_view(&b, 1), keep, logprob, NULL, &err));
    batch_free(&b);
}

// The next token's whole distribution against logits.
static void check_next(Policy *p, const List *l, const json_t *logits, double tolerance) {
    Err err = {0};
    int32_t V = policy_config(p)->vocabulary, *ids = xmalloc((size_t)V * 4);
    float *logprobs = xmalloc((size_t)V * 4);
    CHECK_INT(json_array_size(logits), V);
    double max = -INFINITY, sum = 0;
    for (int32_t v = 0; v < V; v++) max = fmax(max, number_at(logits, v));
    for (int32_t v = 0; v < V; v++) sum += exp(number_at(logits, v) - max);
    OK(policy_top(p, l->ids, l->count, V, ids, logprobs, &err));
    for (int32_t v = 0; v < V; v++) {
        double want = number_at(logits, ids[v]) - max - log(sum);
        if (!(fabs(logprobs[v] - want) <= tolerance)) FAIL("next token %d: got %.9g, want %.9g", ids[v], logprobs[v], want);
    }
    free(ids), free(logprobs);
}

static void check_sequences(Policy *p, const json_t *sequences, double tolerance) {
    size_t i;
    const json_t *sequence;
    CHECK(json_array_size(sequences) >= 2);
    json_array_foreach(sequences, i, sequence) {
        List l = list_of(json_object_get(sequence, "ids"));
        const json_t *want = json_object_get(sequence, "next_logprobs_f64");
        float logprob[256];
        CHECK_INT(json_array_size(want), l.count - 1);
        score(p, &l, false, logprob);
        for (int32_t t = 0; t + 1 < l.count; t++)
            if (!(fabs(logprob[t] - number_at(want, t)) <= tolerance))
                FAIL("sequence %zu, token %d: got %.9g, want %.9g", i, t + 1, logprob[t], number_at(want, t));
        check_next(p, &l, json_object_get(sequence, "last_logits_f64"), tolerance);
    }
}

static void check_greedy(Policy *p, const json_t *greedy) {
    Err err = {0};
    List prompt = list_of(json_object_get(greedy, "prompt")), want = list_of(json_object_get(greedy, "ids"));
    RolloutRequest r = {.prompt = prompt.ids, .prompt_length = prompt.count, .samples = 2,
                        .sampling = {.top_p = 1, .max_tokens = want.count, .ignore_eos = true}};
    Rollout out;
    OK(policy_rollout(p, &r, 1, NULL, &out, &err));
    for (int s = 0; s < 2; s++)
        for (int32_t t = 0; t < want.count; t++) CHECK_INT(out.completions[s].ids[t], want.ids[t]);
    rollout_free(&out);
}

// One gradient value by Hugging Face's name and the flat index within that tensor.
static double gradient_at(const Policy *p, const char *name, int64_t index) {
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        for (int j = 0; j < q->part_count; j++) {
            if (strcmp(q->parts[j].name, name) != 0) continue;
            int64_t at = q->parts[j].row * q->K + index;
            return (double)q->gradient[at] + (q->gradient2 ? q->gradient2[at] : 0);
        }
    }
    FAIL("no parameter %s", name);
}

static void check_gradients(Policy *p, const json_t *training, double loss_tolerance, double tolerance) {
    Err err = {0};
    List l = list_of(json_object_get(training, "ids"));
    Batch b = {0};
    batch_prompt(&b, l.ids, 1);
    batch_completion(&b, l.ids + 1, l.count - 1, NULL, NULL);
    float logprob[256], weight[256];
    double loss = 0;
    OK(policy_forward(p, batch_view(&b, 1), true, logprob, NULL, &err));
    for (int32_t t = 0; t < l.count - 1; t++) loss -= logprob[t] / (l.count - 1), weight[t] = -1.0f / (float)(l.count - 1);
    CHECK_NEAR(loss, json_number_value(json_object_get(training, "loss_f64")), loss_tolerance);
    policy_zero_gradients(p);
    OK(policy_backward(p, &b.packed, weight, NULL, &err));
    gradients_settle(p);
    batch_free(&b);
    double norm = json_number_value(json_object_get(training, "grad_norm_f64"));
    CHECK_NEAR(policy_gradient_norm(p), norm, tolerance * norm);
    const json_t *gradients = json_object_get(training, "grads");
    CHECK_INT(policy_parameter_count(p), json_object_size(gradients));
    for (int i = 0; i < policy_parameter_count(p); i++) {
        const char *name = policy_parameter_name(p, i);
        const json_t *want = json_object_get(gradients, name);
        if (!want) FAIL("%s isn't a parameter of this model", name);
        double l2 = json_number_value(json_object_get(want, "l2")), got = policy_parameter_gradient_norm(p, i);
        if (!(fabs(got - l2) <= tolerance * l2)) FAIL("%s: gradient norm %.9g, want %.9g", name, got, l2);
        const json_t *first = json_object_get(want, "first"), *top = json_object_get(want, "top_value");
        const json_t *top_index = json_object_get(want, "top_index");
        CHECK(json_array_size(first) > 0 && json_array_size(top) > 0);
        for (size_t k = 0; k < json_array_size(first); k++)
            CHECK_NEAR(gradient_at(p, name, (int64_t)k), number_at(first, (int64_t)k), tolerance * l2);
        for (size_t k = 0; k < json_array_size(top); k++) {
            int64_t at = json_integer_value(json_array_get(top_index, k));
            CHECK_NEAR(gradient_at(p, name, at), number_at(top, (int64_t)k), tolerance * l2);
        }
    }
}

// ---- checkpoints -----------------------------------------------------------------------------------------
static void check_checkpoint(const char *folder, const char *cases_path, const char *variant) {
    Err err = {0};
    Policy *p;
    json_t *cases = golden_open(cases_path);
    if (!variant_use(variant)) {
        json_decref(cases);
        return;
    }
    PolicyOptions options = {.precision = PRECISION_FP32, .threads = 1, .trainable = true};
    OK(policy_open(folder, &options, &p, &err));
    CHECK_INT(config_parameters(policy_config(p)), json_integer_value(json_object_get(cases, "parameters")));
    check_sequences(p, json_object_get(cases, "sequences"), 1e-4);
    check_gradients(p, json_object_get(cases, "training"), 1e-5, 1e-3);
    check_greedy(p, json_object_get(cases, "greedy"));
    policy_close(p);
    // bf16 is near: what a rounding of 2^-9 at each layer makes of a logprob.
    options.precision = PRECISION_BF16;
    OK(policy_open(folder, &options, &p, &err));
    check_sequences(p, json_object_get(cases, "sequences"), 0.15);
    check_gradients(p, json_object_get(cases, "training"), 0.02, 0.1);
    policy_close(p);
    variant_use(NULL);
    json_decref(cases);
}
static const char *const variants[] = {"reference", "generic", "avx2", "avx512", "avx512bf16"};
static void check_model(const char *name, const char *variant) {
    char folder[256], cases[300];
    snprintf(folder, sizeof folder, TEST_DATA "/models/%s", name);
    snprintf(cases, sizeof cases, "%s/cases.json", folder);
    check_checkpoint(folder, cases, variant);
}
static void check_variants(const char *name) {
    for (int i = 0; i < COUNT(variants); i++) check_model(name, variants[i]);
}
static void llama_tied(void) { check_variants("llama-tied"); }
static void qwen2(void) { check_variants("qwen2"); }
// The bits of all variants are the same (tests/kernels), so the best one is enough for the other families.
static void llama_rope3(void) { check_model("llama-rope3", NULL); }
static void mistral(void) { check_model("mistral-window", NULL); }
static void qwen3(void) { check_model("qwen3", NULL); }
static void gemma3(void) { check_model("gemma3", NULL), check_model("gemma3-legacy", NULL); }
static void phi3(void) { check_model("phi3", NULL); }
static void olmo2(void) { check_model("olmo2", NULL); }

// ---- GGUF ------------------------------------------------------------------------------------------------
static void gguf(void) {
    Err err = {0};
    Policy *p;
    json_t *expected = golden_open(TEST_DATA "/models/gguf/expected.json");
    size_t i;
    const json_t *file, *sequences = NULL;
    json_array_foreach(json_object_get(expected, "files"), i, file) {
        if (strcmp(json_string_value(json_object_get(file, "file")), "tiny-llama.gguf") == 0)
            sequences = json_object_get(file, "sequences");
    }
    CHECK(sequences);
    OK(policy_open(TEST_DATA "/models/gguf/tiny-llama.gguf", &(PolicyOptions){.threads = 2}, &p, &err));
    check_sequences(p, sequences, 1e-4);
    CHECK(policy_tokenizer(p));
    json_array_foreach(sequences, i, file) {
        const char *text = json_string_value(json_object_get(file, "text"));
        List want = list_of(json_object_get(file, "ids"));
        Ids got = {0};
        OK(tokenizer_encode(policy_tokenizer(p), text, strlen(text), false, &got, &err));
        CHECK_INT(got.count, want.count);
        CHECK(memcmp(got.data, want.ids, (size_t)want.count * 4) == 0);
        ids_free(&got);
    }
    policy_close(p);
    json_decref(expected);
}

// ---- SmolLM2 ---------------------------------------------------------------------------------------------
static void smollm2(void) {
    const char *path = TEST_DATA "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!file_exists(path)) SKIP("models/SmolLM2-135M-Instruct.Q4_1.gguf isn't there (scripts/get-model smollm2-135m)");
#ifdef RECKON_SANITIZED
    SKIP("135 million weights take too long under a sanitizer");
#endif
    Err err = {0};
    Policy *p;
    json_t *golden = golden_open(TEST_DATA "/models/smollm2-135m.json");
    const json_t *prompt = json_array_get(json_object_get(golden, "prompts"), 0);
    List ids = list_of(json_object_get(prompt, "ids")), top = list_of(json_object_get(prompt, "top_ids"));
    List more = list_of(json_object_get(prompt, "continuation_ids"));
    const json_t *top_want = json_object_get(prompt, "top_logprobs_f64"), *want = json_object_get(prompt, "continuation_logprobs_f64");
    OK(policy_open(path, &(PolicyOptions){.threads = 0}, &p, &err));
    int32_t got_ids[10];
    float got[10], logprob[256];
    OK(policy_top(p, ids.ids, ids.count, 10, got_ids, got, &err));
    for (int32_t i = 0; i < 10; i++) {
        CHECK_INT(got_ids[i], top.ids[i]);
        CHECK_NEAR(got[i], number_at(top_want, i), 1e-3);
    }
    Batch b = {0};
    batch_prompt(&b, ids.ids, ids.count);
    batch_completion(&b, more.ids, more.count, NULL, NULL);
    OK(policy_forward(p, batch_view(&b, 1), false, logprob, NULL, &err));
    double sum = 0;
    for (int32_t i = 0; i < more.count; i++) {
        CHECK_NEAR(logprob[i], number_at(want, i), 1e-3);
        sum += logprob[i];
    }
    CHECK_NEAR(sum, json_number_value(json_object_get(prompt, "continuation_sum_f64")), 5e-3);
    // Greedy decoding, up to where the reference's own gap is small.
    List greedy = list_of(json_object_get(prompt, "greedy_ids"));
    RolloutRequest r = {.prompt = ids.ids, .prompt_length = ids.count, .samples = 1,
                        .sampling = {.top_p = 1, .max_tokens = 8, .ignore_eos = true}};
    Rollout out;
    OK(policy_rollout(p, &r, 1, NULL, &out, &err));
    for (int32_t t = 0; t < 8; t++) CHECK_INT(out.completions[0].ids[t], greedy.ids[t]);
    rollout_free(&out);
    batch_free(&b);
    policy_close(p);
    json_decref(golden);
}

static const Test tests[] = {
    {"Llama, tied", llama_tied},
    {"Qwen2, sharded, biases", qwen2},
    {"Llama 3, scaled rotary positions, all biases", llama_rope3},
    {"Mistral, windows", mistral},
    {"Qwen3, norms of q and k", qwen3},
    {"Gemma 3, both generations of keys", gemma3},
    {"Phi-3, fused tensors", phi3},
    {"OLMo 2, norms of outputs", olmo2},
    {"GGUF", gguf},
    {"SmolLM2", smollm2},
};
TEST_MAIN(tests)
