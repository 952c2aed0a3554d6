// Activations of rollouts: a training pass that takes them from the rollout gives the gradients, logprobs and entropies, to the
// bit, of one that computes them; and it takes them only where they are those of its batch and of the weights of now.
#include "family_test.h"
#include "mixture_test.h"

// ---- batches ---------------------------------------------------------------------------------------------
// Every `stride`th sample from `from` on, at most `together` in a group, the requests forwards or backwards.
typedef struct Choice {
    int32_t from, stride, together;
    bool reversed;
} Choice;
static void pack_samples(Batch *b, const Requests *q, const Rollout *rollout, Choice choice, bool held) {
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = choice.reversed ? q->count - 1 - i : i, packed = 0;
        const Completion *c = first_completion(rollout, q, request);
        for (int32_t s = choice.from; s < q->list[request].samples; s += choice.stride) {
            if (packed++ % choice.together == 0) batch_prompt(b, q->list[request].prompt, q->list[request].prompt_length);
            batch_sample(b, &c[s], held);
        }
    }
}

// ---- the same gradients ----------------------------------------------------------------------------------
static void download_gradients(const Policy *p, float **out) {
    Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        out[i] = xmalloc((size_t)(q->N * q->K) * 4);
        memcpy(out[i], q->gradient, (size_t)(q->N * q->K) * 4);
    }
}
static void same_gradients(const Policy *p, float **want) {
    Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++)
        for (int64_t j = 0; j < q->N * q->K; j++)
            if (float_bits(q->gradient[j]) != float_bits(want[i][j]))
                FAIL("%s: gradient %lld of %s is %.9g restored, %.9g computed", context, (long long)j, q->parts[0].name, q->gradient[j], want[i][j]);
}
typedef struct Passed {
    double norm;
    float *values; // logprobs, entropies
} Passed;
static Passed pass(Policy *p, const Packed *batch, bool at_once) {
    Err err = {0};
    int32_t R = batch->target_count;
    Passed out = {.values = xmalloc((size_t)R * 8 + 8)};
    float *coefficient = xmalloc((size_t)R * 4 + 4);
    for (int32_t i = 0; i < R; i++) coefficient[i] = (float)(i % 5 - 2) / (float)(R + 1);
    policy_zero_gradients(p);
    if (at_once) OK(policy_forward_backward(p, batch, coefficient, coefficient, out.values, out.values + R, &err));
    else OK(policy_forward(p, batch, true, out.values, out.values + R, &err) && policy_backward(p, batch, coefficient, NULL, &err));
    out.norm = policy_gradient_norm(p);
    free(coefficient);
    return out;
}
static void compare_passes(Policy *p, const Requests *q, const Rollout *rollout, Choice choice) {
    Batch held = {0}, computed = {0};
    float *want[256];
    Parameter *parameter;
    double flops[3] = {policy_flops(p)};
    pack_samples(&held, q, rollout, choice, true);
    pack_samples(&computed, q, rollout, choice, false);
    const Packed *served = batch_view(&held, q->list[0].sampling.temperature), *plain = batch_view(&computed, q->list[0].sampling.temperature);
    free(pass(p, served, false).values); // what takes them leaves them as they were
    CHECK(policy_has_activations(p, served) && !policy_has_activations(p, plain));
    flops[0] = policy_flops(p);
    Passed a = pass(p, served, true);
    download_gradients(p, want);
    flops[1] = policy_flops(p);
    Passed b = pass(p, plain, true);
    flops[2] = policy_flops(p);
    CHECK(!policy_has_activations(p, served)); // their memory was needed
    CHECK(flops[2] - flops[1] > 1.05 * (flops[1] - flops[0]));
    if (memcmp(&a.norm, &b.norm, sizeof a.norm) != 0 || !(a.norm > 0)) FAIL("%s: norm of gradients %.17g restored, %.17g computed", context, a.norm, b.norm);
    same_gradients(p, want);
    for (int32_t t = 0; t < 2 * served->target_count; t++)
        if (float_bits(a.values[t]) != float_bits(b.values[t])) FAIL("%s: value %d is %.9g restored, %.9g computed", context, t, a.values[t], b.values[t]);
    for (int j = 0; (parameter = trained_parameter(p, j)); j++) free(want[j]);
    free(a.values), free(b.values);
    batch_free(&held), batch_free(&computed);
}

static void roll(Policy *p, const Requests *q, int32_t places, Rollout *out) {
    Err err = {0};
    OK(policy_rollout(p, q->list, q->count, &(RolloutOptions){.max_sequences = places, .retain = RETAIN_ALWAYS}, out, &err));
}
static void check_model(const ModelConfig *config, const char *name, Precision precision, int threads, int turn) {
    static const Choice choices[] = {{0, 1, 64, false}, {0, 1, 3, true}, {1, 3, 2, false}};
    const Sampling *sampling = &samplings[turn % 3];
    Policy *p = policy_make(config, NULL, precision, threads);
    Requests q;
    Rollout rollout, plain;
    Err err = {0};
    snprintf(context, sizeof context, "%s %s, %d threads, turn %d", name, precision_names[precision], threads, turn);
    requests_stream(&q, config->vocabulary, turn, sampling);
    OK(policy_rollout(p, q.list, q.count, NULL, &plain, &err));
    roll(p, &q, turn % 2 ? 3 : 0, &rollout);
    for (int32_t c = 0; c < rollout.count; c++) check_same(&rollout.completions[c], &plain.completions[c], -1, c);
    compare_passes(p, &q, &rollout, choices[turn % COUNT(choices)]);
    rollout_free(&rollout);
    rollout_free(&plain);
    policy_close(p);
}
static void restores_shapes(void) {
    for (int i = 0; i < COUNT(shapes); i++) {
        ModelConfig c = shape_config(&shapes[i]);
        check_model(&c, shapes[i].name, (Precision)(i % 2), 1 + i % 3, i);
    }
}
static void restores_families(void) {
    for (int i = 0; i < COUNT(kinds); i++) {
        if (kinds[i].rope == ROPE_DYNAMIC) continue; // its samples go on beyond what can be packed
        ModelConfig c = kind_config(&kinds[i]);
        check_model(&c, kinds[i].name, (Precision)(i % 2), 1 + i % 2, i);
    }
}
static void restores_variants(void) {
    ModelConfig c = shape_config(&shapes[1]);
    static const char *const names[] = {"generic", "avx2", "avx512", "avx512bf16", "reference"};
    for (int i = 0; i < COUNT(names); i++) {
        if (!variant_use(names[i])) continue;
        check_model(&c, names[i], PRECISION_BF16, 2, 3 + i);
    }
    variant_use(NULL);
}

// An adapter's gradients; the base has none.
static void restores_adapters(void) {
    ModelConfig c = shape_config(&shapes[1]);
    Err err = {0};
    char folder[] = "/tmp/reckon-retain-XXXXXX";
    CHECK(mkdtemp(folder));
    Policy *base = policy_make(&c, NULL, PRECISION_BF16, 1), *p;
    OK(policy_save(base, folder, "F32", &err));
    policy_close(base);
    OK(policy_open(folder, &(PolicyOptions){.precision = PRECISION_BF16, .threads = 2, .trainable = true, .lora = {.rank = 4, .alpha = 8, .seed = 3}}, &p, &err));
    Requests q;
    Rollout rollout;
    snprintf(context, sizeof context, "an adapter");
    for (int i = 0; i < 2; i++) { // B is zero at first
        requests_stream(&q, c.vocabulary, i, &samplings[1]);
        roll(p, &q, 0, &rollout);
        compare_passes(p, &q, &rollout, (Choice){0, 1, 64, false});
        rollout_free(&rollout);
        OK(policy_update(p, &(AdamW){.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .scale = 1}, &err));
    }
    policy_close(p);
}

// Turns and closed thinking: given tokens are part of the course, and have no record.
static void restores_courses(void) {
    ModelConfig c = shape_config(&shapes[2]);
    Policy *p = policy_make(&c, NULL, PRECISION_BF16, 2);
    Requests q;
    Rollout rollout;
    Err err = {0};
    snprintf(context, sizeof context, "turns");
    requests_stream(&q, c.vocabulary, 2, &samplings[0]);
    for (int32_t i = 0; i < q.count; i++) q.list[i].sampling.turn_tokens = i % 3 * 5, q.list[i].sampling.max_tokens += 60;
    Turns *t = xcalloc(1, sizeof *t);
    t->list = q.list, t->vocabulary = c.vocabulary;
    OK(policy_rollout(p, q.list, q.count, &(RolloutOptions){.turn_ended = turns_ended, .next_turn = turns_next, .context = t, .retain = RETAIN_ALWAYS}, &rollout, &err));
    int given = 0;
    for (int32_t i = 0; i < rollout.count; i++) given += rollout.completions[i].given != NULL;
    CHECK(given > 3);
    compare_passes(p, &q, &rollout, (Choice){0, 1, 2, false});
    rollout_free(&rollout);
    free(t);
    policy_close(p);
}

// ---- what isn't taken ------------------------------------------------------------------------------------
typedef struct Held {
    ModelConfig config;
    Policy *p;
    Requests q;
    Rollout rollout;
    Batch batch;
} Held;
static void held_open(Held *h) {
    *h = (Held){.config = shape_config(&shapes[0])};
    h->p = policy_make(&h->config, NULL, PRECISION_BF16, 1);
    requests_stream(&h->q, h->config.vocabulary, 1, &samplings[1]);
    roll(h->p, &h->q, 0, &h->rollout);
    pack_samples(&h->batch, &h->q, &h->rollout, (Choice){0, 1, 64, false}, true);
    CHECK(policy_has_activations(h->p, batch_view(&h->batch, 0.7)));
}
static bool is_held(Held *h) { return policy_has_activations(h->p, batch_view(&h->batch, 0.7)); }
static void held_close(Held *h) {
    batch_free(&h->batch);
    rollout_free(&h->rollout);
    policy_close(h->p);
}

static void takes_only_its_own_batch(void) {
    Held h;
    held_open(&h);
    CHECK(!policy_has_activations(h.p, batch_view(&h.batch, 0.71)));
    int32_t *const numbers[] = {&h.batch.tokens.data[0], &h.batch.tokens.data[h.batch.tokens.count - 1], &h.batch.target.data[3],
                                &h.batch.sequences[2].first_target, &h.batch.sequences[1].length};
    for (int i = 0; i < COUNT(numbers); i++) {
        *numbers[i] += 1;
        CHECK(!is_held(&h));
        *numbers[i] -= 1;
        CHECK(is_held(&h));
    }
    uint64_t *handle = &h.batch.sequences[1].activations, right = *handle;
    const uint64_t wrong[] = {0, right + 1, right + 100000, right + (1ULL << 32), right & 0xffffffff};
    for (int i = 0; i < COUNT(wrong); i++) {
        *handle = wrong[i];
        CHECK(!is_held(&h));
    }
    *handle = right;
    h.batch.packed.whole = true;
    CHECK(!is_held(&h));
    h.batch.packed.whole = false, h.batch.packed.vocabulary = h.config.vocabulary - 1;
    CHECK(!is_held(&h));
    h.batch.packed.vocabulary = 0;
    CHECK(is_held(&h));
    held_close(&h);
}

static void ends_with_the_weights(void) {
    Err err = {0};
    AdamW step = {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .scale = 1};
    for (int what = 0; what < 4; what++) {
        Held h;
        Rollout other;
        held_open(&h);
        Passed a = pass(h.p, batch_view(&h.batch, 0.7), true);
        CHECK(is_held(&h)); // a pass that takes them leaves them
        // Rollouts that keep nothing, and passes that keep nothing, leave them too.
        OK(policy_rollout(h.p, h.q.list, h.q.count, NULL, &other, &err));
        rollout_free(&other);
        OK(policy_forward(h.p, batch_view(&h.batch, 0.7), false, a.values, NULL, &err));
        CHECK(is_held(&h));
        Passed b = pass(h.p, batch_view(&h.batch, 0.7), false);
        free(a.values), free(b.values);
        if (what == 0) OK(policy_update(h.p, &step, &err));
        if (what == 1) policy_use_adapter(h.p, -1);
        if (what == 2) roll(h.p, &h.q, 0, &other), rollout_free(&other);
        if (what == 3) {
            h.batch.sequences[0].activations = 0;
            free(pass(h.p, batch_view(&h.batch, 0.7), true).values);
            h.batch.sequences[0].activations = h.rollout.completions[0].activations;
        }
        CHECK(!is_held(&h));
        Passed c = pass(h.p, batch_view(&h.batch, 0.7), true); // computed, then
        CHECK(c.norm > 0);
        free(c.values);
        held_close(&h);
    }
}

static void keep_nothing(Policy *p, const RolloutRequest *list, int32_t count, RolloutOptions o) {
    Err err = {0};
    Rollout rollout;
    OK(policy_rollout(p, list, count, &o, &rollout, &err));
    for (int32_t i = 0; i < rollout.count; i++) CHECK(rollout.completions[i].activations == 0);
    rollout_free(&rollout);
}
static void keeps_nothing_elsewhere(void) {
    ModelConfig dense = shape_config(&shapes[0]), mixture = mixture_config(0);
    Policy *p = policy_make(&dense, NULL, PRECISION_BF16, 1), *experts = policy_make(&mixture, NULL, PRECISION_BF16, 1);
    Requests q;
    requests_stream(&q, dense.vocabulary, 1, &samplings[3]); // truncated
    keep_nothing(p, q.list, q.count, (RolloutOptions){.retain = RETAIN_ALWAYS});
    requests_stream(&q, dense.vocabulary, 1, &samplings[0]);
    keep_nothing(p, q.list, q.count, (RolloutOptions){0});
    keep_nothing(p, q.list, q.count, (RolloutOptions){.retain = RETAIN_AUTO}); // the model is smaller than they are
    keep_nothing(p, q.list, q.count, (RolloutOptions){.retain = RETAIN_ALWAYS, .complete = q.count});
    keep_nothing(experts, q.list, q.count, (RolloutOptions){.retain = RETAIN_ALWAYS});
    policy_close(p), policy_close(experts);
}
// Small beside the weights, they are kept without being asked for.
static void keeps_what_is_small(void) {
    ModelConfig wide = shape_config(&shapes[4]);
    wide.vocabulary = 20000;
    Policy *p = policy_make(&wide, NULL, PRECISION_BF16, 1);
    Requests q;
    Rollout rollout;
    Err err = {0};
    requests_stream(&q, wide.vocabulary, 1, &samplings[0]);
    OK(policy_rollout(p, q.list, 2, &(RolloutOptions){.retain = RETAIN_AUTO}, &rollout, &err));
    CHECK(rollout.completions[0].activations != 0);
    rollout_free(&rollout);
    policy_close(p);
}

// Memory that a pass or a rollout asks for is refused, every third allocation in its turn; what is left can be closed.
static bool (*allocate)(const Device *d, size_t bytes, const char *what, void **out, Err *err);
static int allocations_left;
static bool refuse(const Device *d, size_t bytes, const char *what, void **out, Err *err) {
    if (allocations_left-- == 0) return fail(err, ERR_UNAVAILABLE, what, "is refused");
    return allocate(d, bytes, what, out, err);
}
static void survives_refused_memory(void) {
    ModelConfig c = shape_config(&shapes[0]);
    Requests q;
    requests_stream(&q, c.vocabulary, 1, &samplings[0]);
    for (int n = 0, refused = 1; refused; n += 3) {
        Policy *p = policy_make(&c, NULL, PRECISION_BF16, 1);
        Rollout rollout = {0};
        Batch b = {0};
        Err err = {0};
        allocate = p->device->allocate, allocations_left = n;
        p->device->allocate = refuse;
        bool ok = policy_rollout(p, q.list, q.count, &(RolloutOptions){.retain = RETAIN_ALWAYS}, &rollout, &err);
        if (ok) pack_samples(&b, &q, &rollout, (Choice){0, 1, 64, false}, n % 2);
        float *logprob = xcalloc((size_t)b.target.count + 1, sizeof *logprob);
        ok = ok && policy_forward(p, batch_view(&b, 1), true, logprob, NULL, &err);
        free(logprob);
        refused = !ok;
        if (refused) CHECK_STR(err.msg, "is refused");
        p->device->allocate = allocate;
        batch_free(&b), rollout_free(&rollout);
        policy_close(p);
    }
}

static const Test tests[] = {
    {"restores what shapes compute", restores_shapes},
    {"restores what families compute", restores_families},
    {"restores what variants compute", restores_variants},
    {"restores what an adapter's training computes", restores_adapters},
    {"restores courses with given tokens", restores_courses},
    {"takes only its own batch", takes_only_its_own_batch},
    {"ends with the weights", ends_with_the_weights},
    {"keeps nothing elsewhere", keeps_nothing_elsewhere},
    {"keeps what is small", keeps_what_is_small},
    {"survives refused memory", survives_refused_memory},
};
TEST_MAIN(tests)
