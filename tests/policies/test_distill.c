// Distillation of whole models: gradients against differences of the loss, bits that depend neither on threads nor on
// microbatches, heads padded to different sizes, and teachers that can't teach.
#include "policy_test.h"

enum { TARGETS = 64 };
typedef struct Lesson {
    Policy *student, *teacher;
    Batch batch;
    Packed packed;
    double beta;
    float weight[TARGETS], divergence[TARGETS], logprob[TARGETS], entropy[TARGETS];
} Lesson;

static Policy *beside(const Policy *p, const Shape *shape, int32_t vocabulary) {
    Err err = {0};
    ModelConfig c = shape_config(shape);
    c.vocabulary = vocabulary;
    Policy *out;
    PolicyOptions o = {.precision = policy_precision(p), .beside = p};
    OK(policy_create(&c, NULL, 11, &o, &out, &err));
    return out;
}
static void lesson_batch(Lesson *l, int32_t vocabulary) {
    static const int32_t prompts[] = {5, 32, 1, 37}, lengths[][2] = {{4, 3}, {2, 5}, {6, 3}, {1, 2}};
    int32_t ids[40];
    Random r = random_start(41, STREAM_TEST, 0);
    for (int g = 0; g < COUNT(prompts); g++) {
        random_ids(&r, vocabulary, prompts[g], ids);
        batch_prompt(&l->batch, ids, prompts[g]);
        for (int s = 0; s < 2; s++) {
            random_ids(&r, vocabulary, lengths[g][s], ids);
            batch_completion(&l->batch, ids, lengths[g][s], NULL, NULL);
        }
    }
    l->packed = *batch_view(&l->batch, 0.8);
    CHECK(l->packed.target_count <= TARGETS);
    for (int i = 0; i < TARGETS; i++) l->weight[i] = (float)random_normal(&r) / 8;
}
static Lesson lesson_open(int shape, int teacher_shape, Precision precision, int threads, double beta) {
    ModelConfig c = shape_config(&shapes[shape]);
    Lesson l = {.student = policy_make(&c, NULL, precision, threads), .beta = beta};
    l.teacher = beside(l.student, &shapes[teacher_shape], c.vocabulary);
    lesson_batch(&l, c.vocabulary);
    return l;
}
static void lesson_close(Lesson *l) {
    policy_close(l->teacher), policy_close(l->student);
    batch_free(&l->batch);
}
static double loss_of(Lesson *l) {
    Err err = {0};
    double loss = 0;
    OK(policy_distill(l->student, l->teacher, &l->packed, l->beta, NULL, l->divergence, l->logprob, l->entropy, &err));
    for (int32_t i = 0; i < l->packed.target_count; i++) {
        CHECK(l->divergence[i] > 0 && l->logprob[i] <= 0 && l->entropy[i] >= 0);
        loss += (double)l->weight[i] * l->divergence[i];
    }
    return loss;
}

static double loss_at(Lesson *l, Parameter *q, const float *before, const float *gradient, double step) {
    for (int64_t i = 0; i < q->N * q->K; i++) q->values[i] = (float)(before[i] + step * gradient[i]);
    if (q->matrix)
        l->student->device->pack(l->student->device, &(PackArgs){.w = q->values, .N = q->N, .K = q->K, .dtype = l->student->dtype, .packed = q->packed,
                                                                 .transposed = q->transposed});
    return loss_of(l);
}
// Along its own gradient the slope is the gradient's norm.
static void gradients(void) {
    static const double betas[] = {0, 1, 0.3};
    for (int i = 0; i < COUNT(betas); i++) {
        Err err = {0};
        Lesson l = lesson_open(i % 2, 2, PRECISION_FP32, 1, betas[i]);
        policy_zero_gradients(l.student);
        OK(policy_distill(l.student, l.teacher, &l.packed, l.beta, l.weight, l.divergence, l.logprob, l.entropy, &err));
        gradients_settle(l.student);
        for (int k = 0; k < l.student->parameter_count; k++) {
            Parameter *q = &l.student->parameters[k];
            int64_t count = q->N * q->K;
            float *before = xmalloc((size_t)count * 4), *gradient = xmalloc((size_t)count * 4);
            double norm = 0;
            memcpy(before, q->values, (size_t)count * 4);
            for (int64_t j = 0; j < count; j++) {
                gradient[j] = q->gradient[j] + (q->gradient2 ? q->gradient2[j] : 0);
                norm += (double)gradient[j] * gradient[j];
            }
            CHECK(norm > 1e-6);
            double h = fmin(0.05, 0.004 / sqrt(norm)) / sqrt(norm); // a step that moves the loss by 0.004, and twice that: what remains is of the fourth order
            double near = (loss_at(&l, q, before, gradient, h) - loss_at(&l, q, before, gradient, -h)) / (2 * h);
            double far = (loss_at(&l, q, before, gradient, 2 * h) - loss_at(&l, q, before, gradient, -2 * h)) / (4 * h);
            CHECK_NEAR((4 * near - far) / 3 / norm, 1, 5e-3);
            loss_at(&l, q, before, gradient, 0);
            free(before), free(gradient);
        }
        lesson_close(&l);
    }
}

// Groups one by one or all at once, with one, two or three threads: the same gradients and divergences, bit for bit.
static void bits(void) {
    for (int precision = 0; precision < 2; precision++) {
        Err err = {0};
        char first[65] = "";
        float divergence[TARGETS] = {0};
        for (int threads = 1; threads <= 3; threads++)
            for (int split = 0; split < 2; split++) {
                Lesson l = lesson_open(1 + precision, 3, (Precision)precision, threads, 0.5);
                policy_zero_gradients(l.student);
                int32_t target = 0;
                for (int g = 0; split && g < l.packed.group_count; g++) {
                    Packed one = l.packed;
                    PackedGroup group = l.packed.groups[g];
                    PackedSequence sequences[2];
                    int32_t start = group.prompt_start, end = g + 1 < l.packed.group_count ? l.packed.groups[g + 1].prompt_start : l.packed.token_count;
                    int32_t rows[TARGETS], count = 0;
                    for (int s = 0; s < 2; s++) sequences[s] = l.packed.sequences[group.first_sequence + s], sequences[s].start -= start;
                    while (target + count < l.packed.target_count && l.packed.row[target + count] < end) rows[count] = l.packed.row[target + count] - start, count++;
                    group.prompt_start = 0, group.first_sequence = 0;
                    one.tokens += start, one.token_count = end - start, one.groups = &group, one.group_count = 1, one.sequences = sequences, one.sequence_count = 2;
                    one.row = rows, one.target += target, one.target_count = count;
                    OK(policy_distill(l.student, l.teacher, &one, l.beta, l.weight + target, l.divergence + target, l.logprob, l.entropy, &err));
                    target += count;
                }
                if (!split) OK(policy_distill(l.student, l.teacher, &l.packed, l.beta, l.weight, l.divergence, l.logprob, l.entropy, &err));
                AdamW a = {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .scale = 1};
                OK(policy_update(l.student, &a, &err));
                char hash[65];
                OK(policy_hash(l.student, hash, &err));
                if (!*first) memcpy(first, hash, sizeof first), memcpy(divergence, l.divergence, sizeof divergence);
                CHECK_STR(hash, first);
                for (int32_t i = 0; i < l.packed.target_count; i++) CHECK(float_bits(l.divergence[i]) == float_bits(divergence[i]));
                lesson_close(&l);
            }
    }
}

// A head with rows for more ids than the teacher's: what both have is compared, and a target beyond it is refused.
static void padded_heads(void) {
    Err err = {0};
    Lesson l = lesson_open(3, 1, PRECISION_BF16, 1, 1);
    policy_close(l.teacher);
    l.teacher = beside(l.student, &shapes[1], 560);
    loss_of(&l);
    double whole = l.divergence[0];
    policy_close(l.teacher);
    l.teacher = beside(l.student, &shapes[1], 20);
    CHECK(!policy_distill(l.student, l.teacher, &l.packed, 1, NULL, l.divergence, l.logprob, l.entropy, &err));
    CHECK_INT(err.code, ERR_DATA);
    CHECK(whole > 0);
    lesson_close(&l);
}

// A copy teaches nothing.
static void copy_teaches_nothing(void) {
    Err err = {0};
    Lesson l = lesson_open(0, 1, PRECISION_BF16, 1, 0.5);
    policy_close(l.teacher);
    OK(policy_freeze_copy(l.student, &l.teacher, &err));
    policy_zero_gradients(l.student);
    OK(policy_distill(l.student, l.teacher, &l.packed, 0, l.weight, l.divergence, l.logprob, l.entropy, &err));
    for (int32_t i = 0; i < l.packed.target_count; i++) CHECK_NEAR(l.divergence[i], 0, 1e-6);
    CHECK(policy_gradient_norm(l.student) < 1e-6);
    lesson_close(&l);
}

static void other_tokenizers(void) {
    static const struct {
        const char *teacher, *want;
    } cases[] = {{"0123456789+= ", ""}, {"0123456789+= -", "tokens"}, {"0123456789*= ", "token "}};
    Err err = {0};
    for (int i = 0; i < COUNT(cases); i++) {
        Policy *p[2];
        for (int k = 0; k < 2; k++) {
            Tokenizer *t;
            OK(tokenizer_from_characters(k ? cases[i].teacher : "0123456789+= ", &t, &err));
            ModelConfig c = shape_config(&shapes[0]);
            c.vocabulary = tokenizer_size(t);
            PolicyOptions o = {.threads = 1, .device = "cpu", .beside = k ? p[0] : NULL};
            OK(policy_create(&c, t, 3, &o, &p[k], &err));
        }
        err = (Err){0};
        bool ok = policy_check_teacher(p[0], p[1], "stages[1].teacher", &err);
        CHECK(ok == !*cases[i].want);
        if (!ok) {
            CHECK_INT(err.code, ERR_DATA);
            CHECK_STR(err.where, "stages[1].teacher");
            if (!strstr(err.msg, cases[i].want)) FAIL("message: %s", err.msg);
        }
        policy_close(p[1]), policy_close(p[0]);
    }
}

static const Test tests[] = {
    {"gradients", gradients},
    {"bits", bits},
    {"padded heads", padded_heads},
    {"a copy teaches nothing", copy_teaches_nothing},
    {"other tokenizers", other_tokenizers},
};
TEST_MAIN(tests)
