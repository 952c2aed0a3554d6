// The slow twins of the divergences between two distributions (kernels/cpu/distill.c).
#include "reference.h"

static float log1p_reference(float e) {
    float s = e / (2.0f + e), z = s * s, p = 1.0f / 15;
    for (int n = 13; n > 0; n -= 2) p = fmaf(p, z, 1.0f / (float)n);
    return (s + s) * p;
}

// log q, log p and log m of id v in row m.
typedef struct Logs {
    float student, teacher, mixture;
} Logs;
static Logs logs_of(const DistillArgs *a, int64_t m, int64_t v) {
    Logs l = {.student = logit_reference(&a->student, m, v) - a->student.max[m] - a->student.log_sum[m],
              .teacher = logit_reference(&a->teacher, m, v) - a->teacher.max[m] - a->teacher.log_sum[m]};
    float high = l.teacher + (float)exact_log((double)a->beta), low = l.student + (float)exact_log((double)(1.0f - a->beta)), d = high - low;
    l.mixture = (high > low ? high : low) + log1p_reference(exp_reference(0.0f - (d > 0.0f - d ? d : 0.0f - d)));
    return l;
}

void distill_reference(const Team *team, const DistillArgs *a) {
    ONLY_FIRST
    int64_t V = a->student.V, blocks = vocab_padded(V) / VOCAB_BLOCK;
    float rest = 1.0f - a->beta;
    for (int64_t m = 0; m < a->student.M; m++) {
        double divergence = 0, centre = 0;
        for (int64_t b = 0; b < blocks; b++) {
            float sum[16] = {0}, part[16] = {0};
            for (int64_t v = b * VOCAB_BLOCK; v < V && v < (b + 1) * VOCAB_BLOCK; v++) {
                Logs l = logs_of(a, m, v);
                float p = exp_reference(l.teacher), q = exp_reference(l.student), value, own = 0;
                if (a->beta == 0)
                    value = p * (l.teacher - l.student);
                else if (a->beta == 1)
                    value = own = q * (l.student - l.teacher);
                else
                    own = rest * (q * (l.student - l.mixture)), value = fmaf(a->beta, p * (l.teacher - l.mixture), own);
                sum[v % 16] += value, part[v % 16] += own;
            }
            a->student.stats[m * blocks + b] = (VocabStats){.sum = tree_sum(sum), .weighted = tree_sum(part)};
            divergence += (double)tree_sum(sum), centre += (double)tree_sum(part);
        }
        a->divergence[m] = (float)divergence, a->centre[m] = (float)centre;
    }
}

void distill_grad_reference(const Team *team, const DistillGradArgs *g) {
    ONLY_FIRST
    const DistillArgs *a = &g->forward;
    const HeadArgs *s = &a->student;
    for (int64_t m = 0; m < s->M; m++)
        for (int64_t v = 0; v < g->ld; v++) {
            float out = 0;
            if (v < s->V) {
                Logs l = logs_of(a, m, v);
                float q = exp_reference(l.student);
                if (a->beta == 0)
                    out = q - exp_reference(l.teacher);
                else if (a->beta == 1)
                    out = q * (l.student - l.teacher - a->centre[m]);
                else
                    out = q * ((1.0f - a->beta) * (l.student - l.mixture) - a->centre[m]);
                out = out * g->weight[m] * s->inv_temperature[m];
                if (s->softcap != 0) { // 1 - tanh^2, of what was capped and scaled
                    float logit = logit_reference(s, m, v), capped = logit / (s->softcap * s->inv_temperature[m]);
                    out = out * (logit == -INFINITY ? 0.0f : fmaf(0.0f - capped, capped, 1.0f));
                }
            }
            put(g->dlogits, m * g->ld + v, out, s->dtype);
        }
}
