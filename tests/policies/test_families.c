// Every dense family in small (family_test.h): what is sampled is what the training forward
// computes, to the bit; weights after training don't depend on threads and microbatches; a folder that was saved opens as the
// same model, and the configuration in it is the same one.
#include "family_test.h"
#include "export.h"
#include "files.h"
#include <unistd.h>

// Sampled, and computed again: together, backwards, alone; with other threads and other places.
static void sampler_is_trainer(void) {
    for (int i = 0; i < COUNT(kinds); i++)
        for (int precision = 0; precision < 2; precision++) {
            Err err = {0};
            Requests *q = xcalloc(1, sizeof *q);
            ModelConfig c = kind_config(&kinds[i]);
            Policy *p = policy_make(&c, NULL, (Precision)precision, 1 + i % 2);
            Rollout rollout;
            snprintf(context, sizeof context, "%s, %s", kinds[i].name, precision_names[precision]);
            requests_stream(q, c.vocabulary, i, &samplings[(2 * i + precision) % COUNT(samplings)]);
            q->count = 5;
            OK(policy_rollout(p, q->list, q->count, NULL, &rollout, &err));
            check_forward(p, q, &rollout, false, INT32_MAX, false);
            check_forward(p, q, &rollout, true, 1, true);
            check_alone(p, q, &rollout, 4);
            check_again(p, q, &rollout, 3, 2);
            rollout_free(&rollout);
            policy_close(p);
            free(q);
        }
}

static void weights_of_splits(void) {
    static const int32_t groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 2, 4}, {33, 2, 11}};
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, 70, groups, COUNT(groups), 31);
    for (int i = 0; i < COUNT(kinds); i++) {
        ModelConfig c = kind_config(&kinds[i]);
        char want[65] = "", got[65];
        for (int k = 0; k < 2; k++) {
            Err err = {0};
            Policy *p = policy_make(&c, NULL, (Precision)(i % 2), 1 + k);
            train_step(p, d, splits[k ? 3 : 0], 0);
            OK(policy_hash(p, k ? got : want, &err));
            policy_close(p);
        }
        if (strcmp(got, want) != 0) FAIL("%s: weights differ with the split and the threads", kinds[i].name);
    }
    free(d);
}

static char *read_text(const char *folder, const char *name) {
    Err err = {0};
    Buf text = {0};
    char *path = path_join(folder, name);
    OK(file_read(path, 1 << 24, &text, &err));
    free(path);
    return text.data;
}
// Saved, opened, saved: the same weights, the same configuration, the same bytes.
static void saved_and_opened(void) {
    for (int i = 0; i < COUNT(kinds); i++) {
        Err err = {0};
        ModelConfig c = kind_config(&kinds[i]);
        char first[] = "/tmp/reckon-family-XXXXXX", second[] = "/tmp/reckon-family-XXXXXX", want[65], got[65];
        CHECK(mkdtemp(first) && mkdtemp(second));
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1), *q;
        OK(policy_save(p, first, "F32", &err));
        OK(policy_open(first, &(PolicyOptions){.threads = 1, .trainable = true}, &q, &err));
        OK(policy_save(q, second, "F32", &err));
        OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
        CHECK_STR(got, want);
        if (memcmp(policy_config(q), &c, sizeof c) != 0) FAIL("%s: the configuration has changed on its way", kinds[i].name);
        char *a = read_text(first, "config.json"), *b = read_text(second, "config.json");
        CHECK_STR(b, a);
        free(a), free(b);
        policy_close(p), policy_close(q);
        OK(folder_remove(first, &err) && folder_remove(second, &err));
    }
}

// Through a GGUF file: the same weights (norms stored as 1 + weight but for a rounding) and the same numbers; or a refusal.
static void through_gguf(void) {
    int written = 0;
    for (int i = 0; i < COUNT(kinds); i++) {
        Err err = {0};
        ModelConfig c = kind_config(&kinds[i]);
        if (c.query_scalar != 0) c.query_scalar = c.head_width, c.qkv_bias = c.output_bias = false;
        if (i == 8) c.layer[0] = 0, c.layer[1] = c.layer[2] = LAYER_WINDOW, c.layers = 2; // full, then with a window: not regular
        char folder[] = "/tmp/reckon-family-XXXXXX", want[65], got[65];
        CHECK(mkdtemp(folder));
        char *file = path_join(folder, "model.gguf");
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1), *q;
        Weights *w;
        OK(policy_save(p, folder, "F32", &err));
        OK(weights_open(folder, false, &w, &err));
        bool irregular = c.local_rope && !config_window_pattern(&c), window = c.window && (!c.local_rope && strcmp(c.model_type, "phi3") != 0);
        bool refused = irregular || window || c.rope[0].kind == ROPE_DYNAMIC || (c.qkv_bias && (!strcmp(c.model_type, "olmo2") || !strcmp(c.model_type, "qwen3")));
        if (refused) {
            CHECK(!export_gguf(w, file, &(ExportOptions){.type = "F32"}, &err) && err.code == ERR_UNAVAILABLE && strstr(err.msg, "can't be written as GGUF"));
        } else {
            OK(export_gguf(w, file, &(ExportOptions){.type = "F32"}, &err));
            OK(policy_open(file, &(PolicyOptions){.threads = 1}, &q, &err));
            OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
            if (!c.norm_offset && strcmp(want, got) != 0) FAIL("%s: other weights", kinds[i].name);
            int32_t ids[60];
            float a[60], b[60];
            Random r = random_start(51, STREAM_TEST, (uint64_t)i);
            Batch batch = {0};
            random_ids(&r, c.vocabulary, 60, ids);
            batch_prompt(&batch, ids, 1), batch_completion(&batch, ids + 1, 59, NULL, NULL);
            OK(policy_forward(p, batch_view(&batch, 1), false, a, NULL, &err) && policy_forward(q, &batch.packed, false, b, NULL, &err));
            for (int t = 0; t < 59; t++) CHECK_NEAR(b[t], a[t], 2e-5);
            batch_free(&batch);
            policy_close(q);
            written++;
        }
        weights_close(w), policy_close(p);
        OK(folder_remove(folder, &err));
        free(file);
    }
    CHECK(written >= 7);
}

// Beyond the original length of "dynamic": what is sampled, and a pass over it, are what transformers' generation computes token
// by token with its cache, and a whole sequence is what it computes in one pass.
static void dynamic_positions(void) {
    static const char *const names[] = {"cached_logprobs", "whole_logprobs"};
    Err err = {0};
    json_t *cases;
    Policy *p;
    OK(json_read_file(TEST_DATA "/rope/llama-dynamic/cases.json", 1 << 20, &cases, &err));
    OK(policy_open(TEST_DATA "/rope/llama-dynamic", &(PolicyOptions){.threads = 1, .device = "cpu"}, &p, &err));
    const json_t *ids = json_object_get(cases, "ids");
    int32_t list[64], count = (int32_t)json_array_size(ids);
    CHECK(count <= 64 && count > 2 * p->config.max_positions);
    for (int32_t i = 0; i < count; i++) list[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    for (int whole = 0; whole < 2; whole++) {
        Batch b = {0};
        float logprob[64];
        batch_prompt(&b, list, 1);
        batch_completion(&b, list + 1, count - 1, NULL, NULL);
        Packed packed = *batch_view(&b, 1);
        packed.whole = whole;
        OK(policy_forward(p, &packed, false, logprob, NULL, &err));
        for (int32_t i = 0; i + 1 < count; i++) CHECK_NEAR(logprob[i], json_number_value(json_array_get(json_object_get(cases, names[whole]), (size_t)i)), 1e-4);
        batch_free(&b);
    }
    // A token depends on those before it alone: a shorter sequence has the same bits, though not as a whole.
    float all[64], some[64];
    for (int whole = 0; whole < 2; whole++) {
        for (int k = 0; k < 2; k++) {
            Batch b = {0};
            batch_prompt(&b, list, 1);
            batch_completion(&b, list + 1, (k ? 25 : count) - 1, NULL, NULL);
            Packed packed = *batch_view(&b, 1);
            packed.whole = whole;
            OK(policy_forward(p, &packed, false, k ? some : all, NULL, &err));
            batch_free(&b);
        }
        CHECK((memcmp(all, some, 24 * sizeof *all) == 0) == !whole);
    }
    json_decref(cases);
    policy_close(p);
}

// "longrope": sampling stops at the original length, and so do completions that share a prompt.
static void beyond_the_original_length(void) {
    Err err = {0};
    ModelConfig c = kind_config(&kinds[11]);
    c.rope[0].original_positions = 16;
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    int32_t ids[40];
    float shorter[40], longer[40];
    Random r = random_start(41, STREAM_TEST, 0);
    random_ids(&r, c.vocabulary, 40, ids);
    for (int length = 16; length <= 40; length += 24) {
        Batch b = {0};
        batch_prompt(&b, ids, 1);
        batch_completion(&b, ids + 1, length - 1, NULL, NULL);
        OK(policy_forward(p, batch_view(&b, 1), false, length == 16 ? shorter : longer, NULL, &err));
        batch_free(&b);
    }
    CHECK(shorter[0] != longer[0] || shorter[5] != longer[5]);
    RolloutRequest request = {.prompt = ids, .prompt_length = 10, .samples = 1, .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 7}};
    Rollout rollout;
    CHECK(!policy_rollout(p, &request, 1, NULL, &rollout, &err) && err.code == ERR_DATA && strstr(err.msg, "expected at most 16 together"));
    request.sampling.max_tokens = 6;
    OK(policy_rollout(p, &request, 1, NULL, &rollout, &err));
    rollout_free(&rollout);
    Batch b = {0};
    batch_prompt(&b, ids, 12);
    batch_completion(&b, ids + 12, 8, NULL, NULL), batch_completion(&b, ids + 20, 3, NULL, NULL);
    CHECK(!policy_forward(p, batch_view(&b, 1), false, longer, NULL, &err) && strstr(err.msg, "depend on each completion's length"));
    batch_free(&b);
    policy_close(p);
}

static const Test tests[] = {
    {"families: sampler and trainer", sampler_is_trainer},
    {"families: threads and microbatches", weights_of_splits},
    {"families: saved and opened", saved_and_opened},
    {"families: through GGUF", through_gguf},
    {"families: dynamic positions", dynamic_positions},
    {"families: beyond the original length", beyond_the_original_length},
};
TEST_MAIN(tests)
