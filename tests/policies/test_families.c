// Every dense family in small, with options that its published models use: what is sampled is what the training forward
// computes, to the bit; weights after training don't depend on threads and microbatches; a folder that was saved opens as the
// same model, and the configuration in it is the same one.
#include "invariants.h"
#include "files.h"
#include <unistd.h>

typedef struct Kind {
    const char *name, *model_type;
    int32_t window;
    const char *windowed; // a letter a layer: w or f
    RopeKind rope;
    bool tied, biases, partial, capped;
} Kind;
static const Kind kinds[] = {
    {"Mistral", "mistral", 5, "www", ROPE_DEFAULT, false, false, false, false},
    {"Mistral, windows of 33", "mistral", 33, "ww", ROPE_LINEAR, true, false, false, false},
    {"Llama 3", "llama", 0, "fff", ROPE_LLAMA3, false, true, false, false},
    {"Llama, yarn", "llama", 0, "ff", ROPE_YARN, true, false, false, false},
    {"Llama, dynamic", "llama", 0, "ff", ROPE_DYNAMIC, false, false, false, false},
    {"Qwen2, upper windows", "qwen2", 9, "fww", ROPE_YARN, false, true, false, false},
    {"Qwen3", "qwen3", 0, "ff", ROPE_DEFAULT, true, false, false, false},
    {"Qwen3, windows and biases", "qwen3", 40, "wfw", ROPE_DEFAULT, false, true, false, false},
    {"Gemma 3", "gemma3_text", 6, "wfw", ROPE_LINEAR, true, false, false, true},
    {"Gemma 3, regular windows", "gemma3_text", 34, "wwf", ROPE_DEFAULT, true, true, false, false},
    {"Phi-3", "phi3", 11, "ww", ROPE_DEFAULT, true, false, true, false},
    {"Phi-3, longrope", "phi3", 0, "ff", ROPE_LONGROPE, false, false, true, false},
    {"OLMo 2", "olmo2", 0, "fff", ROPE_DEFAULT, false, false, false, false},
    {"OLMo 2, tied, biases", "olmo2", 0, "ff", ROPE_LINEAR, true, true, false, false},
};

static RopeConfig kind_rope(const Kind *k, int32_t pairs) {
    RopeConfig r = {.kind = k->rope, .theta = 20000};
    if (k->rope == ROPE_LINEAR || k->rope == ROPE_DYNAMIC || k->rope == ROPE_LLAMA3 || k->rope == ROPE_YARN) r.factor = 4;
    if (k->rope == ROPE_LLAMA3) r.original_positions = 64, r.low_frequency = 1, r.high_frequency = 4;
    if (k->rope == ROPE_YARN) r.original_positions = 48, r.beta_fast = 32, r.beta_slow = 1, r.truncate = true;
    if (k->rope == ROPE_DYNAMIC) r.original_positions = 512;
    if (k->rope == ROPE_LONGROPE) {
        r.original_positions = 256;
        for (int32_t i = 0; i < pairs; i++) r.short_factor[i] = 1 + 0.1 * i, r.long_factor[i] = 1 + i;
    }
    return r;
}
static ModelConfig kind_config(const Kind *k) {
    ModelConfig c;
    memset(&c, 0, sizeof c);
    family_options(family_find(k->model_type), &c);
    c.layers = (int32_t)strlen(k->windowed), c.width = 24, c.heads = 4, c.kv_heads = 2, c.head_width = 10, c.feed_forward = 36;
    c.vocabulary = 70, c.max_positions = 512, c.initializer_range = 0.25, c.tied = k->tied;
    c.window = k->window;
    for (int i = 0; i < c.layers; i++) c.layer[i] = k->windowed[i] == 'w' ? LAYER_WINDOW : 0;
    const Family *f = family_find(k->model_type);
    if (f->bias == BIAS_ATTENTION || f->bias == BIAS_ALL) c.qkv_bias = c.output_bias = k->biases;
    c.mlp_bias = f->bias == BIAS_ALL && k->biases;
    if (k->partial) c.rotary_width = 6;
    if (f->query_scalar != 0) c.query_scalar = 13;
    if (k->capped) c.logit_softcap = 3;
    c.rope[0] = kind_rope(k, config_rotary(&c) / 2);
    c.bos_id = c.pad_id = -1;
    c.stop_ids[0] = 7, c.stop_count = 1;
    return c;
}

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

// Beyond the original length: a token's numbers depend on the length of the whole, so that sampling stops there, and so do
// completions that share a prompt.
static void beyond_the_original_length(void) {
    Err err = {0};
    ModelConfig c = kind_config(&kinds[4]);
    c.max_positions = c.rope[0].original_positions = 16;
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    int32_t ids[40];
    float shorter[40], longer[40];
    Random r = random_start(41, STREAM_TEST, 0);
    random_ids(&r, c.vocabulary, 40, ids);
    for (int length = 20; length <= 40; length += 20) {
        Batch b = {0};
        batch_prompt(&b, ids, 1);
        batch_completion(&b, ids + 1, length - 1, NULL, NULL);
        OK(policy_forward(p, batch_view(&b, 1), false, length == 20 ? shorter : longer, NULL, &err));
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
    {"families: beyond the original length", beyond_the_original_length},
};
TEST_MAIN(tests)
