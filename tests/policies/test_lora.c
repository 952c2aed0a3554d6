// Adapters: PEFT's numbers, invariants 1 and 2 with an adapter on, what is frozen stays, the base alone as a view, and files
// that say what can't be done.
#include "invariants.h"
#include "export.h"
#include "files.h"
#include "test_folder.h"

// ---- PEFT's numbers --------------------------------------------------------------------------------------
static json_t *cases_of(const char *name) {
    Err err = {0};
    json_t *cases;
    char path[256];
    snprintf(path, sizeof path, "%s/models/%s-lora/cases.json", TEST_DATA, name);
    OK(json_read_file(path, 1 << 24, &cases, &err));
    return cases;
}
static Policy *open_pair(const char *name, Precision precision, bool trainable) {
    Err err = {0};
    Policy *p;
    char base[256], adapter[256];
    snprintf(base, sizeof base, "%s/models/%s", TEST_DATA, name);
    snprintf(adapter, sizeof adapter, "%s/models/%s-lora", TEST_DATA, name);
    PolicyOptions o = {.precision = precision, .threads = 1, .device = "cpu", .trainable = trainable, .adapter = adapter};
    OK(policy_open(base, &o, &p, &err));
    return p;
}
// Log-probabilities of a list of ids, the first its prompt.
static int score_ids(Policy *p, const json_t *ids, bool keep, float *logprob, Batch *b) {
    Err err = {0};
    int count = (int)json_array_size(ids);
    int32_t list[256];
    CHECK(count <= 256);
    for (int i = 0; i < count; i++) list[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    batch_prompt(b, list, 1);
    batch_completion(b, list + 1, count - 1, NULL, NULL);
    OK(policy_forward(p, batch_view(b, 1), keep, logprob, NULL, &err));
    return count - 1;
}
static void check_logprobs(Policy *p, const json_t *cases, double tolerance) {
    const json_t *sequence;
    size_t i;
    json_array_foreach(json_object_get(cases, "sequences"), i, sequence) {
        const json_t *want = json_object_get(sequence, "next_logprobs_f64");
        float logprob[256];
        Batch b = {0};
        int n = score_ids(p, json_object_get(sequence, "ids"), false, logprob, &b);
        CHECK_INT(n, json_array_size(want));
        for (int k = 0; k < n; k++) CHECK_NEAR(logprob[k], json_number_value(json_array_get(want, (size_t)k)), tolerance);
        batch_free(&b);
    }
}
static void check_grads(Policy *p, const json_t *cases) {
    Err err = {0};
    const json_t *sequences = json_object_get(cases, "sequences"), *longest = NULL, *sequence, *grads = json_object_get(json_object_get(cases, "training"), "grads");
    size_t i;
    json_array_foreach(sequences, i, sequence) {
        const json_t *ids = json_object_get(sequence, "ids");
        if (json_array_size(ids) > json_array_size(longest)) longest = ids;
    }
    float logprob[256], dlogprob[256];
    Batch b = {0};
    int n = score_ids(p, longest, true, logprob, &b);
    for (int k = 0; k < n; k++) dlogprob[k] = -1.0f / (float)n;
    policy_zero_gradients(p);
    OK(policy_backward(p, batch_view(&b, 1), dlogprob, NULL, &err));
    CHECK_INT(policy_parameter_count(p), json_object_size(grads));
    for (int k = 0; k < policy_parameter_count(p); k++) {
        const json_t *want = json_object_get(grads, policy_parameter_name(p, k));
        if (!want) FAIL("%s is no tensor of the adapter", policy_parameter_name(p, k));
        double l2 = json_number_value(json_object_get(want, "l2"));
        CHECK_NEAR(policy_parameter_gradient_norm(p, k), l2, 1e-3 * l2);
    }
    batch_free(&b);
}
// W + s B A, in either format, gives what the adapter gives.
static void merged(const char *name, const json_t *cases) {
    for (int gguf = 0; gguf < 2; gguf++) {
        Err err = {0};
        Weights *w;
        Merge *m;
        Policy *p;
        char base[256], adapter[256];
        snprintf(base, sizeof base, "%s/models/%s", TEST_DATA, name);
        snprintf(adapter, sizeof adapter, "%s/models/%s-lora", TEST_DATA, name);
        OK(weights_open(base, false, &w, &err));
        OK(merge_open(adapter, w, &m, &err));
        ExportOptions o = {.type = "F32", .add = merge_add, .adds = merge_adds, .context = m};
        if (gguf) OK(export_gguf(w, inside("merged.gguf"), &o, &err));
        else OK(export_hf(w, inside("merged"), &o, &err));
        merge_close(m), weights_close(w);
        OK(policy_open(inside(gguf ? "merged.gguf" : "merged"), &(PolicyOptions){.threads = 1, .device = "cpu"}, &p, &err));
        check_logprobs(p, cases, 1e-4);
        policy_close(p);
    }
}
static void golden(void) {
    // The tiny ones: patterns, layers, exclusions; latent attention, routers, and experts that are one parameter of their layer.
    static const char *const names[] = {"llama-tied", "qwen2", "tiny-llama", "tiny-deepseek-v3", "tiny-mixtral"};
    for (int i = 0; i < COUNT(names); i++) {
        json_t *cases = cases_of(names[i]);
        Err err = {0};
        Policy *p = open_pair(names[i], PRECISION_FP32, true);
        check_logprobs(p, cases, 1e-4);
        check_grads(p, cases);
        folder_start();
        OK(policy_save(p, inside("copy"), "F32", &err));
        policy_close(p);
        // The folder of the adapter finds its base beside it.
        char path[256];
        snprintf(path, sizeof path, "%s/models/%s-lora", TEST_DATA, names[i]);
        PolicyOptions o = {.threads = 1, .device = "cpu"};
        OK(policy_open(path, &o, &p, &err));
        check_logprobs(p, cases, 1e-4);
        // What is written is what was read, and reads the same.
        OK(policy_add_adapter(p, inside("copy"), &err));
        policy_use_adapter(p, 1);
        check_logprobs(p, cases, 1e-4);
        Safetensors *a, *c;
        snprintf(path, sizeof path, "%s/models/%s-lora/adapter_model.safetensors", TEST_DATA, names[i]);
        OK(safetensors_open(path, &a, &err));
        OK(safetensors_open(inside("copy/adapter_model.safetensors"), &c, &err));
        CHECK_INT(safetensors_count(a), safetensors_count(c));
        for (int k = 0; k < safetensors_count(a); k++) {
            TensorInfo t;
            safetensors_at(a, k, &t);
            const void *same = safetensors_bytes(c, t.name);
            CHECK(same && memcmp(same, safetensors_bytes(a, t.name), t.bytes) == 0);
        }
        safetensors_close(a), safetensors_close(c);
        policy_close(p);
        merged(names[i], cases);
        folder_end();
        json_decref(cases);
    }
}

// ---- an adapter that changes something, on a base of random weights -----------------------------------------
static void move_adapter(Policy *p, Adapter *a, uint64_t seed) {
    Err err = {0};
    Random r = random_start(seed, STREAM_TEST, 2);
    for (int i = 0; i < a->count; i++) {
        const Parameter *q = &a->parameters[i];
        float *values = xcalloc((size_t)(q->N * q->K), sizeof *values);
        for (int k = 0; k < q->part_count; k++)
            for (int64_t row = 0; row < q->parts[k].rows; row++)
                for (int64_t j = 0, n = q->scale != 0 ? q->rank : q->K; j < n; j++)
                    values[(q->parts[k].row + row) * q->K + j] = (float)(0.2 * random_normal(&r));
        OK(parameter_set(p, q, values, &err));
        free(values);
    }
}
// A base in a folder, and on it a new adapter that isn't zero.
static Policy *adapted(const Shape *shape, Precision precision, int threads, bool trainable, int32_t rank, bool rslora, bool moved) {
    Err err = {0};
    ModelConfig c = stopping_config(shape);
    if (!file_exists(inside(shape->name))) {
        Policy *base = policy_make(&c, NULL, PRECISION_FP32, 1);
        OK(policy_save(base, inside(shape->name), "F32", &err));
        policy_close(base);
    }
    PolicyOptions o = {.precision = precision, .threads = threads, .device = "cpu", .trainable = trainable,
                       .lora = {.rank = rank, .alpha = 6, .rslora = rslora, .seed = 3}};
    Policy *p;
    OK(policy_open(inside(shape->name), &o, &p, &err));
    if (moved) move_adapter(p, p->active, 5);
    return p;
}

static void invariant_1(void) {
    static const char *const names[] = {"reference", "generic", "avx2", "avx512", "avx512bf16"};
    folder_start();
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < 3; i++) {
            Requests *q = xcalloc(1, sizeof *q);
            Rollout first = {0};
            for (int v = 0; v < COUNT(names); v++) {
                Err err = {0};
                if (!variant_use(names[v])) continue;
                snprintf(context, sizeof context, "adapter, %s, %s, %s", shapes[i].name, precision_names[precision], names[v]);
                Policy *p = adapted(&shapes[i], (Precision)precision, 1 + i % 2, true, 3 + 2 * i, i % 2, true);
                q->count = 0;
                requests_stream(q, p->config.vocabulary, i, &samplings[(i + precision) % COUNT(samplings)]);
                q->count = v == 0 ? 2 : 5;
                Rollout rollout;
                OK(policy_rollout(p, q->list, q->count, &(RolloutOptions){.max_sequences = 4}, &rollout, &err));
                check_forward(p, q, &rollout, false, INT32_MAX, true);
                check_forward(p, q, &rollout, true, 1, false);
                check_alone(p, q, &rollout, 5);
                for (int32_t k = 0; v > 0 && k < first.count && k < rollout.count; k++) check_same(&rollout.completions[k], &first.completions[k], k, 0);
                if (v == 0) first = rollout;
                else rollout_free(&rollout);
                policy_close(p);
            }
            rollout_free(&first);
            free(q);
        }
    variant_use(NULL);
    folder_end();
}

static const int32_t groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 5, 4}, {33, 2, 11}, {7, 4, 3}, {64, 1, 1}, {31, 6, 5}};
static void base_hash_of(const Policy *p, char out[65]) {
    Err err = {0};
    Policy copy = *p;
    copy.active = NULL;
    OK(policy_hash(&copy, out, &err));
}
static void invariant_2(void) {
    folder_start();
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < 2; i++) {
            char want[65] = "", got[65], before[65], after[65];
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, shapes[i].vocabulary, groups, COUNT(groups), 21);
            for (int k = 0; k < COUNT(splits); k++) {
                Err err = {0};
                Policy *p = adapted(&shapes[i], (Precision)precision, 1 + k % 3, true, 5, false, false);
                base_hash_of(p, before);
                for (int step = 0; step < 2; step++) train_step(p, d, splits[k], step);
                base_hash_of(p, after);
                CHECK_STR(after, before);
                OK(policy_hash(p, got, &err));
                if (k == 0) memcpy(want, got, sizeof want);
                else if (strcmp(got, want) != 0) FAIL("%s, %s: split %d gives another adapter", shapes[i].name, precision_names[precision], k);
                policy_close(p);
            }
            free(d);
        }
    folder_end();
}

// Saved in the middle, opened again with its moments, it ends with the same bits; another base is refused.
static void goes_on(void) {
    Err err = {0};
    char want[65], got[65];
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, shapes[1].vocabulary, groups, COUNT(groups), 24);
    folder_start();
    PolicyOptions o = {.precision = PRECISION_BF16, .threads = 1, .device = "cpu", .trainable = true};
    Policy *p = adapted(&shapes[1], PRECISION_BF16, 1, true, 5, true, false), *q;
    for (int step = 0; step < 2; step++) train_step(p, d, splits[0], step);
    OK(policy_save(p, inside("saved"), "F32", &err));
    OK(policy_save_optimizer(p, inside("saved/optimizer.safetensors"), &err));
    CHECK(!file_exists(inside("saved/model.safetensors")));
    OK(policy_open(inside("saved"), &o, &q, &err));
    CHECK(policy_trains_adapter(q));
    OK(policy_load_optimizer(q, inside("saved/optimizer.safetensors"), &err));
    OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
    CHECK_STR(got, want);
    train_step(p, d, splits[0], 2), train_step(q, d, splits[1], 2);
    OK(policy_hash(p, want, &err) && policy_hash(q, got, &err));
    CHECK_STR(got, want);
    policy_close(p), policy_close(q);
    ModelConfig c = stopping_config(&shapes[1]);
    p = policy_make(&c, NULL, PRECISION_FP32, 1);
    train_step(p, d, splits[0], 0);
    OK(policy_save(p, inside(shapes[1].name), "F32", &err));
    policy_close(p);
    CHECK(!policy_open(inside("saved"), &o, &q, &err));
    CHECK(strstr(err.msg, "was trained on"));
    folder_end();
    free(d);
}

// ---- views and switching -----------------------------------------------------------------------------------
static void check_same_logprobs(Policy *a, Policy *b, bool same) {
    Err err = {0};
    Batch batch = {0};
    Random r = random_start(9, STREAM_TEST, 0);
    int32_t ids[40];
    float x[64], y[64];
    random_ids(&r, policy_config(a)->vocabulary, 40, ids);
    batch_prompt(&batch, ids, 7);
    batch_completion(&batch, ids + 7, 33, NULL, NULL);
    const Packed *v = batch_view(&batch, 1);
    OK(policy_forward(a, v, false, x, NULL, &err) && policy_forward(b, v, false, y, NULL, &err));
    if ((memcmp(x, y, (size_t)v->target_count * 4) == 0) != same) FAIL("%s", same ? "other logprobs" : "the adapter changes nothing");
    batch_free(&batch);
}
static void views(void) {
    Err err = {0};
    folder_start();
    for (int precision = 0; precision < 2; precision++) {
        Policy *p = adapted(&shapes[2], (Precision)precision, 1, true, 4, false, true), *base, *view, *copy, *other;
        PolicyOptions o = {.precision = (Precision)precision, .threads = 1, .device = "cpu"};
        OK(policy_open(inside(shapes[2].name), &o, &base, &err));
        size_t before = policy_bytes(p);
        OK(policy_view(p, NULL, &view, &err));
        CHECK_INT(policy_bytes(view), 0);
        check_same_logprobs(view, base, true);
        check_same_logprobs(p, base, false);
        OK(policy_freeze_copy(p, &copy, &err));
        check_same_logprobs(copy, p, true);
        OK(policy_save(p, inside("adapter"), "F32", &err));
        move_adapter(p, p->trained, 77);
        check_same_logprobs(copy, p, false);
        OK(policy_view(p, inside("adapter"), &other, &err));
        check_same_logprobs(copy, other, true);
        CHECK_INT(policy_bytes(p), before);
        OK(policy_add_adapter(base, inside("adapter"), &err));
        policy_use_adapter(base, 0);
        check_same_logprobs(base, copy, true);
        policy_use_adapter(base, -1);
        check_same_logprobs(base, view, true);
        policy_close(view), policy_close(copy), policy_close(other), policy_close(p), policy_close(base);
    }
    folder_end();
}

// ---- a base that stays in blocks ----------------------------------------------------------------------------
// The same bits forward as the base that was decoded when it was read; gradients as near as another order of sums leaves them.
static void blocks(void) {
    static const char *const types[] = {"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K", "Q4_K_M"};
    folder_start();
    for (int t = 0; t < COUNT(types); t++) {
        Err err = {0};
        Weights *w;
        ExportOptions e = {.type = types[t]};
        snprintf(context, sizeof context, "%s", types[t]);
        OK(weights_open(TEST_DATA "/models/gguf/tiny-llama.gguf", false, &w, &err));
        OK(export_gguf(w, inside(types[t]), &e, &err));
        weights_close(w);
        char *path = xasprintf("%s.gguf", inside(types[t]));
        CHECK(rename(inside(types[t]), path) == 0);
        for (int precision = 0; precision < 2; precision++) {
            Policy *plain, *kept;
            PolicyOptions o = {.precision = (Precision)precision, .threads = 1 + t % 2, .device = "cpu", .trainable = true, .lora = {.rank = 4, .alpha = 8}};
            OK(policy_open(path, &o, &plain, &err));
            o.keep_blocks = true;
            OK(policy_open(path, &o, &kept, &err));
            CHECK(policy_bytes(kept) < policy_bytes(plain));
            move_adapter(plain, plain->trained, 5), move_adapter(kept, kept->trained, 5);
            check_same_logprobs(plain, kept, true);
            char a[65], b[65];
            OK(policy_hash(kept, a, &err) && policy_hash(plain, b, &err));
            if (precision == 0) CHECK_STR(a, b);
            Data *d = xcalloc(1, sizeof *d);
            data_make(d, plain->config.vocabulary, groups, 3, 24);
            policy_zero_gradients(plain), policy_zero_gradients(kept);
            train_microbatch(plain, d, 0, 3, 0), train_microbatch(kept, d, 0, 3, 0);
            for (int k = 0; k < policy_parameter_count(plain); k++) {
                double want = policy_parameter_gradient_norm(plain, k);
                CHECK_NEAR(policy_parameter_gradient_norm(kept, k), want, (precision ? 2e-2 : 1e-5) * want);
            }
            free(d);
            policy_close(plain), policy_close(kept);
        }
        free(path);
    }
    folder_end();
}

// ---- files that say what can't be done ----------------------------------------------------------------------
static void refused(void) {
    static const struct {
        const char *change, *message;
        bool trainable;
    } cases[] = {
        {"{\"use_dora\": true}", "use_dora", false},
        {"{\"lora_dropout\": 0.1}", "lora_dropout", true},
        {"{\"bias\": \"all\"}", "bias", false},
        {"{\"modules_to_save\": [\"lm_head\"]}", "modules_to_save", false},
        {"{\"rank_pattern\": {\"q_proj\": 2}}", "has not the shape [2, ", false},
        {"{\"rank_pattern\": {\"q_proj\": 0}}", "rank_pattern", false},
        {"{\"rank_pattern\": {\"q_(proj\": 2}}", "is not an expression", false},
        {"{\"alpha_pattern\": [1]}", "alpha_pattern", false},
        {"{\"target_modules\": \"(q_proj\"}", "is not an expression", false},
        {"{\"target_modules\": \".*embed.*\"}", "model.embed_tokens is a target, expected a product of the layers", false},
        {"{\"target_modules\": \"(a|aa|aaa|.*)*(.*)*(.*)*(.*)*b\"}", "too many steps", false},
        {"{\"target_modules\": null}", "target_modules", false},
        {"{\"exclude_modules\": [\"q_proj\"]}", "has no place", false},
        {"{\"layers_to_transform\": [0]}", "has no place", false},
        {"{\"layers_to_transform\": \"0\"}", "layers_to_transform", false},
        {"{\"layers_pattern\": \"blocks\"}", "layers_pattern", false},
        {"{\"target_parameters\": [\"mlp.experts.gate_up_proj\"], \"target_modules\": null}", "names no product of this model", false},
        {"{\"init_lora_weights\": \"pissa\"}", "init_lora_weights", false},
        {"{\"use_newest_thing\": true}", "use_newest_thing", false},
        {"{\"peft_type\": \"IA3\"}", "peft_type", false},
        {"{\"r\": 0}", "r is 0", false},
        {"{\"r\": 5}", "has not the shape", false},
        {"{\"target_modules\": [\"q_proj\"]}", "has no place", false},
        {"{\"target_modules\": [\"x_proj\"]}", "names no product of this model, expected some of q_proj, k_proj, v_proj, o_proj", false},
        {"{\"target_modules\": [\"q_proj\", \"lm_head\"]}", "lm_head", false},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Buf data = {0};
        json_t *config, *change;
        Policy *p;
        folder_start();
        OK(json_read_file(TEST_DATA "/models/qwen2-lora/adapter_config.json", 1 << 20, &config, &err));
        OK(json_parse(cases[i].change, strlen(cases[i].change), "case", 1, &change, &err));
        json_object_update(config, change);
        char *text = json_dumps(config, 0);
        OK(file_write_atomic(inside("adapter_config.json"), text, strlen(text), &err));
        OK(file_read(TEST_DATA "/models/qwen2-lora/adapter_model.safetensors", 1 << 20, &data, &err));
        OK(file_write_atomic(inside("adapter_model.safetensors"), data.data, data.size, &err));
        PolicyOptions o = {.threads = 1, .device = "cpu", .adapter = folder, .trainable = cases[i].trainable};
        CHECK(!policy_open(TEST_DATA "/models/qwen2", &o, &p, &err));
        CHECK_INT(err.code, ERR_DATA);
        if (!strstr(err.msg, cases[i].message)) FAIL("%s: \"%s\", expected \"%s\" in it", cases[i].change, err.msg, cases[i].message);
        free(text), buf_free(&data), json_decref(config), json_decref(change);
        folder_end();
    }
}

static const Test tests[] = {
    {"PEFT's numbers", golden},
    {"invariant 1 with an adapter", invariant_1},
    {"invariant 2 with an adapter", invariant_2},
    {"saved, opened, gone on with", goes_on},
    {"views and switching", views},
    {"a base in blocks", blocks},
    {"what is refused", refused},
};
TEST_MAIN(tests)
