// A tied embedding's gradient from lookups: rows only for ids that occurred, in an array that grows with a step's microbatches,
// added once to the head's. Gradients have the same bits whatever the split; what was read can be added to.
#include "family_test.h"
#include <math.h>

static float *gradients_of(const Policy *p, int64_t *count) {
    const Parameter *q = p->embedding;
    *count = q->N * q->K;
    float *out = xmalloc((size_t)*count * 4);
    p->device->download(p->device, out, q->gradient, (size_t)*count * 4);
    return out;
}
static void same_bits(const char *what, const Policy *p, const Policy *want) {
    for (int i = 0; i < p->parameter_count; i++) {
        const Parameter *q = &p->parameters[i], *w = &want->parameters[i];
        for (int64_t j = 0; j < q->N * q->K; j++)
            if (float_bits(q->gradient[j]) != float_bits(w->gradient[j]))
                FAIL("%s, %s: number %lld of %s is %.9g, expected %.9g", context, what, (long long)j, q->parts[0].name, q->gradient[j], w->gradient[j]);
    }
}
static Policy *with_gradients(const ModelConfig *c, Precision precision, int threads, const Data *d, const int *cuts) {
    Policy *p = policy_make(c, NULL, precision, threads);
    policy_zero_gradients(p);
    for (int i = 0, from = 0; from < d->group_count; from = cuts[i++])
        train_microbatch(p, d, from, cuts[i] < d->group_count ? cuts[i] : d->group_count, 0);
    return p;
}

// Groups share ids, in 19 ids nearly all of them; the third group repeats the first one's prompt.
static const int32_t groups[][3] = {{5, 3, 7}, {32, 1, 9}, {5, 2, 4}, {33, 2, 5}, {60, 4, 40}};
static Data *data_of(int32_t vocabulary) {
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, vocabulary, groups, COUNT(groups), 51);
    memcpy(d->groups[2].prompt, d->groups[0].prompt, 5 * sizeof(int32_t));
    for (int t = 10; t < 30; t++) d->groups[1].prompt[t] = d->groups[1].prompt[t % 3];
    return d;
}

static const int tied[] = {0, 2, 4};
static void splits_change_no_bit(void) {
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < COUNT(tied); i++) {
            ModelConfig c = shape_config(&shapes[tied[i]]);
            Data *d = data_of(c.vocabulary);
            snprintf(context, sizeof context, "%s, %s", shapes[tied[i]].name, precision_names[precision]);
            Policy *want = with_gradients(&c, (Precision)precision, 1, d, splits[0]);
            gradients_settle(want);
            for (int k = 1; k < COUNT(splits); k++) {
                Policy *p = with_gradients(&c, (Precision)precision, 1 + k % 3, d, splits[k]);
                gradients_settle(p);
                same_bits("another split", p, want);
                policy_close(p);
            }
            policy_close(want);
            free(d);
        }
}

// Rows are there for the ids that occurred and no others; the array grows by what later microbatches bring.
static void rows_grow(void) {
    ModelConfig c = shape_config(&shapes[4]);
    Data *d = data_of(c.vocabulary);
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    const Lookups *l = &p->lookups;
    policy_zero_gradients(p);
    CHECK_INT(l->count, 0);
    int64_t before = 0;
    int grown = 0;
    for (int g = 0; g < d->group_count; g++) {
        train_microbatch(p, d, g, g + 1, 0);
        grown += before > 0 && l->capacity > before;
        before = l->capacity;
        CHECK(l->count <= l->capacity && l->capacity < c.vocabulary);
    }
    CHECK(grown >= 2);
    char *occurred = xcalloc((size_t)c.vocabulary, 1);
    int32_t ids = 0;
    for (int g = 0; g < d->group_count; g++) {
        for (int t = 0; t < d->groups[g].prompt_length; t++) occurred[d->groups[g].prompt[t]] = 1;
        for (int s = 0; s < d->groups[g].samples; s++)
            for (int t = 0; t < d->groups[g].lengths[s]; t++) occurred[d->groups[g].ids[s][t]] = 1;
    }
    for (int32_t id = 0; id < c.vocabulary; id++) {
        ids += occurred[id];
        CHECK_INT(l->row_of[id] >= 0, occurred[id]);
    }
    CHECK_INT(l->count, ids);
    // The same step again: nothing grows any more, and nothing is left of the first one.
    gradients_settle(p);
    CHECK_INT(l->count, 0);
    int64_t count, again;
    float *first = gradients_of(p, &count);
    policy_zero_gradients(p);
    for (int g = 0; g < d->group_count; g++) train_microbatch(p, d, g, g + 1, 0);
    CHECK_INT(l->capacity, before);
    gradients_settle(p);
    float *second = gradients_of(p, &again);
    for (int64_t j = 0; j < count; j++) CHECK_INT(float_bits(second[j]), float_bits(first[j]));
    free(first), free(second), free(occurred), free(d);
    policy_close(p);
}

// Reading between two microbatches: the same gradient but for rounding. Zeroing forgets lookups that nobody read.
static void read_between(void) {
    for (int i = 0; i < COUNT(tied); i++) {
        ModelConfig c = shape_config(&shapes[tied[i]]);
        Data *d = data_of(c.vocabulary);
        snprintf(context, sizeof context, "%s", shapes[tied[i]].name);
        Policy *want = with_gradients(&c, PRECISION_FP32, 1, d, splits[1]), *p = policy_make(&c, NULL, PRECISION_FP32, 1);
        train_microbatch(p, d, 4, 5, 0);
        policy_zero_gradients(p);
        for (int g = 0; g < d->group_count; g++) {
            train_microbatch(p, d, g, g + 1, 0);
            if (g % 2) CHECK(policy_gradient_norm(p) > 0);
        }
        gradients_settle(want), gradients_settle(p);
        gradients_settle(p); // once more changes nothing
        int64_t count;
        float *got = gradients_of(p, &count), *whole = gradients_of(want, &count);
        double norm = 0, off = 0;
        for (int64_t j = 0; j < count; j++) norm += (double)whole[j] * whole[j], off += ((double)got[j] - whole[j]) * ((double)got[j] - whole[j]);
        if (!(norm > 0 && sqrt(off) <= 1e-6 * sqrt(norm))) FAIL("%s: off by %.3g of %.3g", context, sqrt(off), sqrt(norm));
        free(got), free(whole), free(d);
        policy_close(want), policy_close(p);
    }
}

static const Test tests[] = {
    {"lookups: splits change no bit", splits_change_no_bit},
    {"lookups: rows grow", rows_grow},
    {"lookups: read between microbatches", read_between},
};
TEST_MAIN(tests)
