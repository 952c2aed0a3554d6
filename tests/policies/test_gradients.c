// The backward pass of whole models against finite differences of the loss, in fp32. The loss is a sum over targets of
// a logprob + b entropy with coefficients of either sign. Differences are central, at two widths, extrapolated
// (Richardson), so what remains is the rounding of fp32 logprobs: about 1e-6 of the loss's terms, over the width.
//
// Two looks at each tensor: along its own gradient, where the derivative is the gradient's norm; and along random
// directions, where it is a sum in which each element has its say.
#include "policy_test.h"

typedef struct Case {
    const char *name;
    int shape;
    double temperature;
    bool entropy, kept;
} Case;

typedef struct Problem {
    Policy *p;
    Batch batch;
    Packed packed;
    float *logprob, *entropy, *dlogprob, *dentropy; // [R]
    bool with_entropy;
} Problem;

// Prompts that end in the middle of a page, at its end, and after one token; several completions, one empty.
static void problem_batch(Problem *m, const Case *c) {
    static const int32_t prompts[] = {5, 32, 1, 37};
    static const int32_t lengths[][3] = {{4, 0, 3}, {2, 5, 1}, {6, 2, 3}, {1, 3, 2}};
    int32_t V = m->p->config.vocabulary, prompt[40], ids[8], kept[8 * 6];
    Random r = random_start(31, STREAM_TEST, (uint64_t)c->shape);
    for (int g = 0; g < COUNT(prompts); g++) {
        random_ids(&r, V, prompts[g], prompt);
        batch_prompt(&m->batch, prompt, prompts[g]);
        for (int s = 0; s < 3; s++) {
            int64_t start[9] = {0};
            for (int32_t t = 0; t < lengths[g][s]; t++) {
                // Six ids a third of the vocabulary apart, give or take; the target is one of them.
                int64_t n = start[t];
                for (int32_t k = 0; k < 6; k++) kept[n++] = (int32_t)((int64_t)k * V / 6 + random_below(&r, (uint32_t)V / 6));
                start[t + 1] = n;
                ids[t] = c->kept ? kept[n - 1 - random_below(&r, 6)] : (int32_t)random_below(&r, (uint32_t)V);
            }
            batch_completion(&m->batch, ids, lengths[g][s], c->kept ? start : NULL, kept);
        }
    }
}

static Problem problem_open(const Case *c, Precision precision) {
    ModelConfig config = shape_config(&shapes[c->shape]);
    Problem m = {.p = policy_make(&config, NULL, precision, 1), .with_entropy = c->entropy};
    problem_batch(&m, c);
    m.packed = *batch_view(&m.batch, c->temperature);
    int32_t R = m.packed.target_count;
    m.logprob = xcalloc((size_t)R * 4, sizeof(float));
    m.entropy = m.logprob + R, m.dlogprob = m.logprob + 2 * R, m.dentropy = m.logprob + 3 * R;
    Random r = random_start(32, STREAM_TEST, 0);
    for (int32_t i = 0; i < R; i++) m.dlogprob[i] = (float)random_normal(&r), m.dentropy[i] = (float)random_normal(&r);
    return m;
}
static void problem_close(Problem *m) {
    policy_close(m->p);
    batch_free(&m->batch);
    free(m->logprob);
}

static double loss_of(Problem *m, bool keep) {
    Err err = {0};
    double loss = 0;
    OK(policy_forward(m->p, &m->packed, keep, m->logprob, m->entropy, &err));
    for (int32_t i = 0; i < m->packed.target_count; i++) {
        CHECK(isfinite(m->logprob[i]) && m->logprob[i] <= 0);
        loss += (double)m->dlogprob[i] * m->logprob[i] + (m->with_entropy ? (double)m->dentropy[i] * m->entropy[i] : 0);
    }
    return loss;
}

static void repack(const Policy *p, const Parameter *q) {
    if (q->matrix)
        p->device->pack(p->device, &(PackArgs){.w = q->values, .N = q->N, .K = q->K, .dtype = p->dtype, .packed = q->packed,
                                               .transposed = q->transposed});
}

// Loss at values + width * direction.
static double loss_at(Problem *m, Parameter *q, const float *before, const double *direction, double width) {
    for (int64_t i = 0; i < q->N * q->K; i++) q->values[i] = (float)(before[i] + width * direction[i]);
    repack(m->p, q);
    return loss_of(m, false);
}

static double slope_along(Problem *m, Parameter *q, const double *direction, double width) {
    size_t bytes = (size_t)(q->N * q->K) * 4;
    float *before = xmalloc(bytes);
    memcpy(before, q->values, bytes);
    double near = (loss_at(m, q, before, direction, width) - loss_at(m, q, before, direction, -width)) / (2 * width);
    double far = (loss_at(m, q, before, direction, 2 * width) - loss_at(m, q, before, direction, -2 * width)) / (4 * width);
    memcpy(q->values, before, bytes);
    repack(m->p, q);
    free(before);
    return (4 * near - far) / 3;
}

static double gradient_of(const Parameter *q, int64_t i) { return (double)q->gradient[i] + (q->gradient2 ? q->gradient2[i] : 0); }

static void check_parameter(Problem *m, Parameter *q, Random *r, const char *name) {
    int64_t count = q->N * q->K;
    double *direction = xcalloc((size_t)count, sizeof *direction), norm = 0;
    for (int64_t i = 0; i < count; i++) norm += gradient_of(q, i) * gradient_of(q, i);
    norm = sqrt(norm);
    CHECK(norm > 1e-3 && isfinite(norm));
    for (int look = 0; look < 3; look++) {
        double length = 0, want = 0;
        for (int64_t i = 0; i < count; i++) {
            direction[i] = look == 0 ? gradient_of(q, i) : random_normal(r);
            length += direction[i] * direction[i];
        }
        length = sqrt(length);
        for (int64_t i = 0; i < count; i++) direction[i] /= length, want += direction[i] * gradient_of(q, i);
        // So wide that the loss moves by about 0.2 along the gradient.
        double width = look == 0 ? 0.1 / norm : 0.1 / norm * fmin(4, sqrt((double)count) / 4 + 1), got;
        if (width > 0.02) width = 0.02;
        got = slope_along(m, q, direction, width);
        double tolerance = 1e-3 * norm + 2e-5 / width;
        if (!(fabs(got - want) <= tolerance))
            FAIL("%s, %s, look %d: slope %.9g, gradient says %.9g, tolerance %.2g, norm %.4g", name, q->parts[0].name, look, got,
                 want, tolerance, norm);
        if (look == 0) CHECK(tolerance < 0.05 * norm); // a look that could not fail isn't one
    }
    free(direction);
}

static const Case cases[] = {
    {"plain, tied", 0, 1, false, false},
    {"entropy and temperature, tied", 0, 0.7, true, false},
    {"kept sets, odd widths, biases", 1, 1, false, true},
    {"kept sets, entropy, temperature, odd widths, biases", 1, 1.4, true, true},
    {"entropy, all biases, tied", 2, 1, true, false},
    {"temperature, wide heads, a head of its own", 3, 1.3, false, false},
    {"entropy, many blocks of the vocabulary", 4, 0.9, true, false},
};

static void finite_differences(void) {
    for (int k = 0; k < COUNT(cases); k++) {
        Err err = {0};
        Problem m = problem_open(&cases[k], PRECISION_FP32);
        Random r = random_start(33, STREAM_TEST, (uint64_t)k);
        loss_of(&m, true);
        policy_zero_gradients(m.p);
        OK(policy_backward(m.p, &m.packed, m.dlogprob, m.with_entropy ? m.dentropy : NULL, &err));
        gradients_settle(m.p);
        for (int i = 0; i < m.p->parameter_count; i++) check_parameter(&m, &m.p->parameters[i], &r, cases[k].name);
        problem_close(&m);
    }
}

// Backward adds: twice gives twice, and zero_gradients forgets.
static void gradients_add(void) {
    Err err = {0};
    Problem m = problem_open(&cases[3], PRECISION_FP32);
    double once[64], all;
    int count = policy_parameter_count(m.p);
    CHECK(count <= COUNT(once));
    loss_of(&m, true);
    policy_zero_gradients(m.p);
    OK(policy_backward(m.p, &m.packed, m.dlogprob, m.dentropy, &err));
    all = policy_gradient_norm(m.p);
    double squares = 0;
    for (int i = 0; i < count; i++) once[i] = policy_parameter_gradient_norm(m.p, i), squares += once[i] * once[i];
    CHECK_NEAR(sqrt(squares), all, 1e-9 * all);
    loss_of(&m, true);
    OK(policy_backward(m.p, &m.packed, m.dlogprob, m.dentropy, &err));
    for (int i = 0; i < count; i++) CHECK_NEAR(policy_parameter_gradient_norm(m.p, i), 2 * once[i], 1e-5 * once[i]);
    policy_zero_gradients(m.p);
    CHECK_NEAR(policy_gradient_norm(m.p), 0, 0);
    problem_close(&m);
}

// bf16 rounds what products read; its gradients point the same way.
static void bf16_is_near(void) {
    for (int k = 0; k < COUNT(cases); k++) {
        Err err = {0};
        Problem a = problem_open(&cases[k], PRECISION_FP32), b = problem_open(&cases[k], PRECISION_BF16);
        Problem *both[] = {&a, &b};
        for (int i = 0; i < 2; i++) {
            loss_of(both[i], true);
            policy_zero_gradients(both[i]->p);
            OK(policy_backward(both[i]->p, &both[i]->packed, both[i]->dlogprob, both[i]->with_entropy ? both[i]->dentropy : NULL, &err));
            gradients_settle(both[i]->p);
        }
        for (int i = 0; i < a.p->parameter_count; i++) {
            const Parameter *x = &a.p->parameters[i], *y = &b.p->parameters[i];
            double xx = 0, yy = 0, xy = 0;
            for (int64_t j = 0; j < x->N * x->K; j++) {
                double u = gradient_of(x, j), v = gradient_of(y, j);
                xx += u * u, yy += v * v, xy += u * v;
            }
            double cosine = xy / sqrt(xx * yy), ratio = sqrt(yy / xx);
            if (!(cosine > 0.99 && fabs(ratio - 1) < 0.1))
                FAIL("%s, %s: cosine %.4f, ratio of norms %.4f", cases[k].name, x->parts[0].name, cosine, ratio);
        }
        problem_close(&a), problem_close(&b);
    }
}

// AdamW's first step from fresh moments moves each weight by the learning rate against its gradient's sign; matrices
// decay, vectors don't. A tied matrix has two parts of a gradient, and their sum decides.
static void first_step(void) {
    for (int k = 0; k < 3; k++) {
        Err err = {0};
        Problem m = problem_open(&cases[k], PRECISION_FP32);
        double before = loss_of(&m, true);
        policy_zero_gradients(m.p);
        OK(policy_backward(m.p, &m.packed, m.dlogprob, m.with_entropy ? m.dentropy : NULL, &err));
        float *values[64];
        for (int i = 0; i < m.p->parameter_count; i++) {
            const Parameter *q = &m.p->parameters[i];
            values[i] = xmalloc((size_t)(q->N * q->K) * 4);
            memcpy(values[i], q->values, (size_t)(q->N * q->K) * 4);
        }
        OK(policy_update(m.p, &(AdamW){.learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-9, .weight_decay = 0.2, .scale = 0.5}, &err));
        for (int i = 0; i < m.p->parameter_count; i++) {
            const Parameter *q = &m.p->parameters[i];
            for (int64_t j = 0; j < q->N * q->K; j++) {
                double g = 0.5 * gradient_of(q, j), decayed = values[i][j] * (q->matrix ? 1 - 1e-3 * 0.2 : 1);
                if (g != 0 && fabs(g) < 1e-5) continue;
                CHECK_NEAR(q->values[j], decayed - 1e-3 * g / (fabs(g) + 1e-9), 1e-6);
            }
            free(values[i]);
        }
        CHECK(loss_of(&m, false) < before); // the packed matrices moved too
        problem_close(&m);
    }
}

static const Test tests[] = {
    {"gradients: finite differences", finite_differences},
    {"gradients: added up", gradients_add},
    {"gradients: bf16", bf16_is_near},
    {"gradients: a first step", first_step},
};
TEST_MAIN(tests)
