// What the tests of whole policies share: small models of odd shapes, the variants this machine has, and batches packed
// by hand. Vectors (norms, biases) are moved off 1 and 0, so that leaving one out would show.
#ifndef RECKON_POLICY_TEST_H
#define RECKON_POLICY_TEST_H
#include "../test.h"
#include "model.h"

typedef struct Shape {
    const char *name;
    int32_t layers, width, heads, kv_heads, head_width, feed_forward, vocabulary;
    bool tied, qkv_bias, all_biases;
} Shape;

static const Shape shapes[] = {
    {"19 ids, tied, 5 heads on one", 2, 32, 5, 1, 8, 40, 19, true, false, false},
    {"300 ids, odd widths, q k v biases, 3 heads on one", 2, 45, 3, 1, 16, 37, 300, false, true, false},
    {"700 ids, tied, all biases, 2 heads on one", 1, 40, 4, 2, 20, 64, 700, true, true, true},
    {"300 ids, heads of 64", 1, 64, 2, 2, 64, 72, 300, false, false, false},
    {"3300 ids, tied", 1, 24, 2, 1, 8, 24, 3300, true, true, false},
};
static const char *const precision_names[] = {"fp32", "bf16"};

static inline ModelConfig shape_config(const Shape *s) {
    ModelConfig c = {.layers = s->layers, .width = s->width, .heads = s->heads, .kv_heads = s->kv_heads,
                     .head_width = s->head_width, .feed_forward = s->feed_forward, .vocabulary = s->vocabulary,
                     .max_positions = 2048, .norm_eps = 1e-5, .rope = {{.theta = 10000}}, .initializer_range = 0.25,
                     .tied = s->tied, .qkv_bias = s->qkv_bias, .output_bias = s->all_biases, .mlp_bias = s->all_biases,
                     .bos_id = -1, .pad_id = -1};
    snprintf(c.model_type, sizeof c.model_type, "%s", s->qkv_bias && !s->all_biases ? "qwen2" : "llama");
    return c;
}

static inline Policy *policy_make_on(const char *device, const ModelConfig *c, Tokenizer *tokenizer, Precision precision, int threads) {
    Err err = {0};
    Policy *p;
    PolicyOptions options = {.precision = precision, .threads = threads, .device = device, .trainable = true};
    OK(policy_create(c, tokenizer, 7, &options, &p, &err));
    Random r = random_start(7, STREAM_TEST, 1);
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i];
        if (q->matrix) continue;
        float *values = xmalloc((size_t)q->N * sizeof *values);
        p->device->download(p->device, values, q->values, (size_t)q->N * sizeof *values);
        for (int64_t j = 0; j < q->N; j++) values[j] += (float)(0.2 * random_normal(&r));
        p->device->upload(p->device, q->values, values, (size_t)q->N * sizeof *values);
        free(values);
    }
    return p;
}
static inline Policy *policy_make(const ModelConfig *c, Tokenizer *tokenizer, Precision precision, int threads) {
    return policy_make_on("cpu", c, tokenizer, precision, threads);
}

// Takes the variant for policies made from now on; false where the processor lacks it. NULL: the best.
static inline bool variant_use(const char *name) {
    Err err = {0};
    Device *d;
    unsetenv("RECKON_CPU");
    if (!name) return true;
    bool ok = device_open_cpu(name, 1, &d, &err);
    if (!ok && err.code != ERR_UNAVAILABLE) FAIL("%s: %s", name, err.msg);
    if (ok) {
        device_close(d);
        setenv("RECKON_CPU", name, 1);
    }
    return ok;
}

static inline void random_ids(Random *r, int32_t vocabulary, int32_t count, int32_t *out) {
    for (int32_t i = 0; i < count; i++) out[i] = (int32_t)random_below(r, (uint32_t)vocabulary);
}

static inline uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// ---- packed batches --------------------------------------------------------------------------------------
typedef struct Batch {
    Packed packed;
    Ids tokens, row, target, kept;
    PackedGroup *groups;
    PackedSequence *sequences;
    int64_t *kept_start;
    bool truncated;
} Batch;

static inline void batch_prompt(Batch *b, const int32_t *prompt, int32_t length) {
    b->groups = xrealloc(b->groups, (size_t)(b->packed.group_count + 1) * sizeof *b->groups);
    b->groups[b->packed.group_count++] = (PackedGroup){.prompt_start = b->tokens.count, .prompt_length = length,
                                                       .first_sequence = b->packed.sequence_count};
    ids_append(&b->tokens, prompt, length);
}

// The whole completion is in the pass, its last token too, which predicts nothing.
// A completion with what was given to it; only its sampled tokens are targets.
static inline void batch_course(Batch *b, const Completion *c) {
    PackedGroup *g = &b->groups[b->packed.group_count - 1];
    const int32_t *all = completion_all(c);
    int32_t total = completion_total(c), sampled = 0;
    b->sequences = xrealloc(b->sequences, (size_t)(b->packed.sequence_count + 1) * sizeof *b->sequences);
    b->sequences[b->packed.sequence_count++] = (PackedSequence){.start = b->tokens.count, .length = total};
    g->sequence_count++;
    b->kept_start = xrealloc(b->kept_start, (size_t)(b->target.count + c->length + 1) * sizeof *b->kept_start);
    if (c->kept_start) b->truncated = true;
    for (int32_t i = 0; i < total; i++) {
        if (c->given && c->given[i]) continue;
        b->kept_start[b->target.count] = b->kept.count;
        if (c->kept_start) ids_append(&b->kept, c->kept_ids + c->kept_start[sampled], (int32_t)(c->kept_start[sampled + 1] - c->kept_start[sampled]));
        ids_push(&b->row, i == 0 ? g->prompt_start + g->prompt_length - 1 : b->tokens.count + i - 1);
        ids_push(&b->target, all[i]);
        sampled++;
    }
    b->kept_start[b->target.count] = b->kept.count;
    ids_append(&b->tokens, all, total);
}

// As training packs a sample: its last token predicts nothing and stays out. `held`: its activations are named.
static inline void batch_sample(Batch *b, const Completion *c, bool held) {
    int32_t first = b->target.count;
    batch_course(b, c);
    PackedSequence *q = &b->sequences[b->packed.sequence_count - 1];
    b->tokens.count--, q->length--, q->first_target = first, q->activations = held ? c->activations : 0;
}

static inline void batch_completion(Batch *b, const int32_t *ids, int32_t length, const int64_t *kept_start,
                                    const int32_t *kept_ids) {
    batch_course(b, &(Completion){.length = length, .ids = (int32_t *)(uintptr_t)ids, .kept_start = (int64_t *)(uintptr_t)kept_start,
                                  .kept_ids = (int32_t *)(uintptr_t)kept_ids});
}

static inline const Packed *batch_view(Batch *b, double temperature) {
    Packed *v = &b->packed;
    v->tokens = b->tokens.data, v->token_count = b->tokens.count;
    v->groups = b->groups, v->sequences = b->sequences;
    v->row = b->row.data, v->target = b->target.data, v->target_count = b->target.count;
    v->temperature = temperature > 0 ? temperature : 1;
    v->kept_start = b->truncated ? b->kept_start : NULL;
    v->kept_ids = b->kept.data;
    return v;
}

static inline void batch_free(Batch *b) {
    ids_free(&b->tokens), ids_free(&b->row), ids_free(&b->target), ids_free(&b->kept);
    free(b->groups), free(b->sequences), free(b->kept_start);
    *b = (Batch){0};
}

#endif
