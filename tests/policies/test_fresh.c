// Zeroing gradients only marks them: the first product writes, what nothing was added to reads as zeros. Whatever lay there before,
// the bits are those of adding to zeros, in every kind of model, with adapters, whole and split into microbatches.
#include "mixture_test.h"
#include "files.h"
#include <math.h>

// Groups: with completions, with none (no targets), with others.
static const int32_t groups[][3] = {{5, 3, 7}, {12, 1, 0}, {1, 2, 4}, {33, 2, 5}};
static const int orders[][MAX_GROUPS] = {{MAX_GROUPS}, {1, 2, 3, 4}, {2, 4}};

static Policy *open_one(const ModelConfig *c, Precision precision, const char *adapted) {
    Err err = {0};
    if (!adapted) return policy_make(c, NULL, precision, 1);
    Policy *p;
    PolicyOptions o = {.precision = precision, .threads = 1, .device = "cpu", .trainable = true, .lora = {.rank = 3, .alpha = 8, .seed = 3}};
    OK(policy_open(adapted, &o, &p, &err));
    Random r = random_start(3, STREAM_TEST, 4);
    Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++) {
        float *values = xmalloc((size_t)(q->N * q->K) * 4);
        for (int64_t j = 0; j < q->N * q->K; j++) values[j] = 0.1f * (float)random_normal(&r);
        OK(parameter_set(p, q, values, &err));
        free(values);
    }
    return p;
}
static void passes(Policy *p, const Data *d, const int *cuts) {
    for (int i = 0, from = 0; from < d->group_count; from = cuts[i++])
        train_microbatch(p, d, from, cuts[i] < d->group_count ? cuts[i] : d->group_count, 0);
    gradients_settle(p);
}
static void same_gradients(const Policy *p, const Policy *want) {
    const Parameter *q, *w;
    for (int i = 0; (q = trained_parameter(p, i)) && (w = trained_parameter(want, i)); i++)
        for (int part = 0; part < (q->gradient2 ? 2 : 1); part++) {
            const float *got = part ? q->gradient2 : q->gradient, *expected = part ? w->gradient2 : w->gradient;
            for (int64_t j = 0; j < q->N * q->K; j++)
                if (float_bits(got[j]) != float_bits(expected[j]))
                    FAIL("%s: number %lld of the gradient of %s is %.9g, expected %.9g", context, (long long)j, q->parts[0].name, got[j], expected[j]);
        }
}
static void rubbish(const Policy *p) {
    const Parameter *q;
    for (int i = 0; (q = trained_parameter(p, i)); i++)
        for (int64_t j = 0; q->matrix && j < q->N * q->K; j++) {
            q->gradient[j] = NAN;
            if (q->gradient2) q->gradient2[j] = NAN;
        }
}

static void check_model(const char *name, const ModelConfig *c, bool adapter) {
    Err err = {0};
    char folder[] = "/tmp/reckon-fresh-XXXXXX";
    if (adapter) {
        CHECK(mkdtemp(folder));
        Policy *base = policy_make(c, NULL, PRECISION_FP32, 1);
        OK(policy_save(base, folder, "F32", &err));
        policy_close(base);
    }
    Data *d = xcalloc(1, sizeof *d);
    data_make(d, c->vocabulary, groups, COUNT(groups), 61);
    for (int precision = 0; precision < 2; precision++)
        for (int k = precision; k < COUNT(orders); k += 2) {
            snprintf(context, sizeof context, "%s%s, %s, split %d", name, adapter ? ", adapter" : "", precision_names[precision], k);
            Policy *want = open_one(c, (Precision)precision, adapter ? folder : NULL), *p = open_one(c, (Precision)precision, adapter ? folder : NULL);
            passes(want, d, orders[k]); // never marked: what was allocated is zeros, and all is added to them
            for (int again = 0; again < (k ? 1 : 2); again++) {
                policy_zero_gradients(p);
                rubbish(p);
                passes(p, d, orders[k]);
                same_gradients(p, want);
            }
            CHECK(policy_gradient_norm(p) > 0);
            // A pass without targets, then none at all: nothing but zeros.
            policy_zero_gradients(p);
            rubbish(p);
            train_microbatch(p, d, 1, 2, 0);
            CHECK_NEAR(policy_gradient_norm(p), 0, 0);
            policy_zero_gradients(p);
            rubbish(p);
            for (int i = 0; i < policy_parameter_count(p); i++) CHECK_NEAR(policy_parameter_gradient_norm(p, i), 0, 0);
            policy_close(p), policy_close(want);
        }
    if (adapter) OK(folder_remove(folder, &err));
    free(d);
}

static void dense(void) {
    for (int i = 0; i < 4; i++) {
        ModelConfig c = shape_config(&shapes[i]);
        check_model(shapes[i].name, &c, i == 1);
    }
}
static void mixtures(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        ModelConfig c = mixture_config(kind);
        check_model(c.model_type, &c, false);
        check_model(c.model_type, &c, true);
    }
}

static const Test tests[] = {
    {"fresh gradients: dense models", dense},
    {"fresh gradients: mixtures, latent attention", mixtures},
};
TEST_MAIN(tests)
