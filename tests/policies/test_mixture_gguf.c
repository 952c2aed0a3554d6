// Mixtures of experts through GGUF files: every tensor comes back to the bit, from files of one form and of another, in shards and
// as stored; what readers of the format take for granted is refused where a model says otherwise; and so are shapes that lie.
#include "mixture_test.h"
#include "export.h"
#include "test_folder.h"

static ModelConfig gguf_config(int kind) {
    ModelConfig c = mixture_config(kind);
    if (kind == 1)
        for (int i = 0; i < c.layers; i++) c.layer[i] = LAYER_EXPERTS;
    if (kind == 1) c.experts.normalise = true;
    if (kind == 2) c.experts.groups = c.experts.chosen_groups = 1;
    if (kind >= 2)
        c.rope[0] = (RopeConfig){.kind = ROPE_YARN, .theta = 10000, .factor = 4, .original_positions = 512, .beta_fast = 32, .beta_slow = 1,
                                 .truncate = true, .mscale = 0.707, .mscale_all_dim = 0.707};
    return c;
}
static void write_gguf(const char *from, const char *to, const char *type) {
    Err err = {0};
    Weights *w;
    OK(weights_open(from, false, &w, &err));
    OK(export_gguf(w, to, &(ExportOptions){.type = type}, &err));
    weights_close(w);
}
static void write_folder(const char *from, const char *to, uint64_t shard_bytes) {
    Err err = {0};
    Weights *w;
    OK(weights_open(from, false, &w, &err));
    OK(export_hf(w, to, &(ExportOptions){.type = "F32", .shard_bytes = shard_bytes}, &err));
    weights_close(w);
}
static void check_hash(const char *path, const char *want, const ModelConfig *c) {
    Err err = {0};
    Policy *p;
    char got[65];
    OK(policy_open(path, &(PolicyOptions){.threads = 1}, &p, &err));
    OK(policy_hash(p, got, &err));
    if (strcmp(got, want) != 0) FAIL("%s: other weights in %s", c->model_type, path);
    const ModelConfig *o = policy_config(p);
    CHECK_STR(o->model_type, c->model_type);
    CHECK(memcmp(&o->experts, &c->experts, sizeof o->experts) == 0 && memcmp(&o->latent, &c->latent, sizeof o->latent) == 0);
    CHECK(memcmp(o->layer, c->layer, sizeof o->layer) == 0);
    CHECK_NEAR(o->rope[0].mscale_all_dim, c->rope[0].mscale_all_dim, 0);
    policy_close(p);
}
static void there_and_back(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        Err err = {0};
        ModelConfig c = gguf_config(kind);
        char want[65];
        folder_start();
        Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
        OK(policy_hash(p, want, &err));
        OK(policy_save(p, inside("a"), "F32", &err));
        policy_close(p);
        write_gguf(inside("a"), inside("a.gguf"), "F32");
        write_gguf(inside("a.gguf"), inside("b.gguf"), NULL);
        write_folder(inside("b.gguf"), inside("b"), 20000);
        write_gguf(inside("b"), inside("c.gguf"), "keep");
        check_hash(inside("a.gguf"), want, &c);
        check_hash(inside("b"), want, &c);
        check_hash(inside("c.gguf"), want, &c);
        write_gguf(inside("a"), inside("d.gguf"), "BF16");
        write_folder(inside("d.gguf"), inside("d"), 0);
        write_gguf(inside("d"), inside("e.gguf"), "BF16");
        Policy *q;
        OK(policy_open(inside("d"), &(PolicyOptions){.threads = 1}, &q, &err));
        OK(policy_hash(q, want, &err));
        policy_close(q);
        check_hash(inside("d.gguf"), want, &c);
        check_hash(inside("e.gguf"), want, &c);
        folder_end();
    }
}

// As converters wrote it before the product was split.
static void whole_product(void) {
    Err err = {0};
    char want[65];
    Policy *p;
    folder_start();
    OK(policy_open(TEST_DATA "/models/deepseek-v2-lite", &(PolicyOptions){.threads = 1}, &p, &err));
    OK(policy_hash(p, want, &err));
    check_hash(TEST_DATA "/models/gguf/deepseek2-whole.gguf", want, policy_config(p));
    write_gguf(TEST_DATA "/models/gguf/deepseek2-whole.gguf", inside("kept.gguf"), "F32");
    check_hash(inside("kept.gguf"), want, policy_config(p));
    Weights *w;
    OK(weights_open(inside("kept.gguf"), false, &w, &err));
    CHECK(weights_find(w, "blk.0.attn_kv_b.weight", &(TensorInfo){0}) && !weights_find(w, "blk.0.attn_k_b.weight", &(TensorInfo){0}));
    weights_close(w), policy_close(p);
    folder_end();
}

// An expert, a split product and their neighbours by name, in shapes of their own.
static void names(void) {
    Err err = {0};
    Weights *w;
    TensorInfo t;
    ModelConfig c = gguf_config(3);
    folder_start();
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    OK(policy_save(p, inside("a"), "F32", &err));
    policy_close(p);
    write_gguf(inside("a"), inside("a.gguf"), "F32");
    OK(weights_open(inside("a.gguf"), false, &w, &err));
    CHECK(weights_find(w, "blk.1.ffn_up_exps.weight", &t) && t.dims == 3 && t.shape[0] == 6 && t.shape[1] == 9 && t.shape[2] == 30);
    CHECK(weights_find(w, "model.layers.1.mlp.experts.5.up_proj.weight", &t) && t.dims == 2 && t.shape[0] == 9 && t.shape[1] == 30);
    CHECK(weights_find(w, "blk.0.attn_k_b.weight", &t) && t.dims == 3 && t.shape[0] == 4 && t.shape[1] == 13 && t.shape[2] == 7);
    CHECK(weights_find(w, "blk.0.attn_v_b.weight", &t) && t.shape[1] == 9 && t.shape[2] == 13);
    float all[6 * 9 * 30], one[9 * 30];
    OK(weights_read_raw(w, "blk.1.ffn_up_exps.weight", all, &err));
    OK(weights_read(w, "model.layers.1.mlp.experts.4.up_proj.weight", 2, (int64_t[]){9, 30}, one, &err));
    CHECK(memcmp(all + 4 * 9 * 30, one, sizeof one) == 0);
    weights_close(w);
    folder_end();
}

static void refused(void (*change)(ModelConfig *c), int kind, const char *why) {
    Err err = {0};
    Weights *w;
    ModelConfig c = gguf_config(kind);
    change(&c);
    folder_start();
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    OK(policy_save(p, inside("a"), "F32", &err));
    OK(weights_open(inside("a"), false, &w, &err));
    CHECK(!export_gguf(w, inside("a.gguf"), &(ExportOptions){.type = "F32"}, &err) && err.code == ERR_UNAVAILABLE);
    if (!strstr(err.msg, why)) FAIL("refused for '%s', expected '%s'", err.msg, why);
    CHECK(!file_exists(inside("a.gguf")));
    weights_close(w), policy_close(p);
    folder_end();
}
static void dense_layer(ModelConfig *c) { c->layer[1] = 0; }
static void not_normalised(ModelConfig *c) { c->experts.normalise = false; }
static void best_of_groups(ModelConfig *c) { c->experts.groups = 3, c->experts.chosen_groups = 2; }
static void none_shared(ModelConfig *c) { c->experts.shared = 0; }
static void in_halves(ModelConfig *c) { c->latent.interleaved = false; }
static void two_scales(ModelConfig *c) { c->rope[0].mscale = 1; }
static void with_biases(ModelConfig *c) { c->qkv_bias = c->output_bias = true; }
static void refusals(void) {
    refused(dense_layer, 1, "without experts");
    refused(not_normalised, 1, "norm_topk_prob");
    refused(best_of_groups, 2, "groups");
    refused(none_shared, 3, "shared");
    refused(in_halves, 3, "halves");
    refused(two_scales, 3, "mscale");
    refused(with_biases, 3, "biases");
}

// The number that the metadata gives is not the number of experts in the tensors.
static void lying_count(void) {
    Err err = {0};
    ModelConfig c = gguf_config(0);
    Buf file = {0};
    folder_start();
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1), *q;
    OK(policy_save(p, inside("a"), "F32", &err));
    policy_close(p);
    write_gguf(inside("a"), inside("a.gguf"), "F32");
    OK(file_read(inside("a.gguf"), 1 << 24, &file, &err));
    char *at = memmem(file.data, file.size, "llama.expert_count", 18);
    CHECK(at != NULL);
    at[22] = 5; // behind the name, its type
    OK(file_write_atomic(inside("b.gguf"), file.data, file.size, &err));
    CHECK(!policy_open(inside("b.gguf"), &(PolicyOptions){.threads = 1}, &q, &err) && err.code == ERR_DATA && strstr(err.msg, "expected [5, 26, 30]"));
    buf_free(&file);
    folder_end();
}

// Experts, embedding and head that stay in blocks: what is sampled is what the trainer computes, both are bitwise what the decoded
// base gives, and an adapter's gradients are as near as another order of sums leaves them.
static void kept_blocks(void) {
    static const char *const types[] = {"Q8_0", "Q4_1", "Q5_0", "Q4_0"};
    static const int32_t groups[][3] = {{5, 3, 7}, {32, 1, 9}, {1, 2, 4}};
    for (int kind = 0; kind < KINDS; kind++) {
        Err err = {0};
        ModelConfig c = gguf_config(kind);
        char file[128], a[65], b[65];
        c.width = 64, c.experts.feed_forward = kind ? 32 : 64, c.feed_forward = 64;
        if (kind >= 2) c.experts.shared = 64;
        snprintf(context, sizeof context, "%s, %s", c.model_type, types[kind]);
        folder_start();
        Policy *made = policy_make(&c, NULL, PRECISION_FP32, 1), *plain, *kept;
        OK(policy_save(made, inside("a"), "F32", &err));
        policy_close(made);
        snprintf(file, sizeof file, "%s", inside("a.gguf"));
        write_gguf(inside("a"), file, types[kind]);
        PolicyOptions o = {.precision = (Precision)(kind % 2), .threads = 1 + kind / 2, .device = "cpu", .trainable = true, .lora = {.rank = 4, .alpha = 8}};
        OK(policy_open(file, &o, &plain, &err));
        o.keep_blocks = true;
        OK(policy_open(file, &o, &kept, &err));
        const Layer *last = &kept->layers[c.layers - 1];
        CHECK(last->experts_gate_up.weight->kept && last->experts_down.weight->kept && kept->embedding->kept && kept->head->kept);
        CHECK(policy_bytes(kept) < policy_bytes(plain));
        OK(policy_hash(kept, a, &err) && policy_hash(plain, b, &err));
        if (o.precision == PRECISION_FP32) CHECK_STR(a, b);
        Requests *q = xcalloc(1, sizeof *q);
        Rollout with, without;
        requests_stream(q, c.vocabulary, kind, &samplings[kind]);
        q->count = 3;
        OK(policy_rollout(kept, q->list, q->count, NULL, &with, &err) && policy_rollout(plain, q->list, q->count, NULL, &without, &err));
        check_forward(kept, q, &with, false, INT32_MAX, false);
        for (int32_t i = 0; i < with.count; i++) check_same(&with.completions[i], &without.completions[i], i, 0);
        rollout_free(&with), rollout_free(&without);
        Data *d = xcalloc(1, sizeof *d);
        data_make(d, c.vocabulary, groups, COUNT(groups), 24);
        policy_zero_gradients(plain), policy_zero_gradients(kept);
        train_microbatch(plain, d, 0, 3, 0), train_microbatch(kept, d, 0, 3, 0);
        for (int k = 0; k < policy_parameter_count(plain); k++) {
            double want = policy_parameter_gradient_norm(plain, k);
            CHECK_NEAR(policy_parameter_gradient_norm(kept, k), want, (kind % 2 ? 2e-2 : 1e-5) * want);
        }
        free(d), free(q);
        policy_close(plain), policy_close(kept);
        folder_end();
    }
}

static const Test tests[] = {
    {"mixtures in GGUF: there and back", there_and_back}, {"mixtures in GGUF: a product that is whole", whole_product},
    {"mixtures in GGUF: names", names},                   {"mixtures in GGUF: what can't be said", refusals},
    {"mixtures in GGUF: a count that lies", lying_count}, {"mixtures in GGUF: experts in blocks", kept_blocks},
};
TEST_MAIN(tests)
