// Divergences between a teacher's and a student's distribution: of each tile of rows and block of the vocabulary both tiles of
// logits are made beside each other, and nothing larger ever exists.
#include "head_tile.h"

enum { HALF_TILE = TILE / 2 }; // rows: one half of a thread's scratch is the student's, the other the teacher's

// log(1 + e) for e in [0, 1]: 2 atanh(e / (2 + e)) as a series, to within 2^-24 of itself.
INLINE v16 v_log1p(v16 e) {
    v16 s = v_div(e, v_add(v_set1(2.0f), e)), z = v_mul(s, s), p = v_set1(1.0f / 15);
    p = v_fma(p, z, v_set1(1.0f / 13));
    p = v_fma(p, z, v_set1(1.0f / 11));
    p = v_fma(p, z, v_set1(1.0f / 9));
    p = v_fma(p, z, v_set1(1.0f / 7));
    p = v_fma(p, z, v_set1(1.0f / 5));
    p = v_fma(p, z, v_set1(1.0f / 3));
    p = v_fma(p, z, v_set1(1.0f));
    return v_mul(v_add(s, s), p);
}

// A row's two distributions, and what beta makes of them.
typedef struct Pair {
    v16 student_max, student_log_sum, teacher_max, teacher_log_sum;
    v16 beta, rest, log_beta, log_rest; // rest: 1 - beta
    bool forward, reverse;              // beta is 0; is 1
} Pair;

static Pair pair_of(const DistillArgs *a, int64_t m) {
    float rest = 1.0f - a->beta;
    Pair p = {.forward = a->beta == 0, .reverse = a->beta == 1, .beta = v_set1(a->beta), .rest = v_set1(rest),
              .student_max = v_set1(a->student.max[m]), .student_log_sum = v_set1(a->student.log_sum[m]),
              .teacher_max = v_set1(a->teacher.max[m]), .teacher_log_sum = v_set1(a->teacher.log_sum[m])};
    p.log_beta = v_set1((float)exact_log((double)a->beta)), p.log_rest = v_set1((float)exact_log((double)rest));
    return p;
}

// log(beta p + (1 - beta) q)
INLINE v16 log_mixture(const Pair *pair, v16 lp, v16 lq) {
    v16 a = v_add(lp, pair->log_beta), b = v_add(lq, pair->log_rest), d = v_sub(a, b);
    return v_add(v_max(a, b), v_log1p(v_exp(v_sub(v_zero(), v_max(d, v_sub(v_zero(), d))))));
}

// What 16 columns add to the divergence and to the centre.
static void add_terms(const Pair *pair, v16 student, v16 teacher, int64_t columns, v16 *sum, v16 *centre) {
    v16 lq = v_sub(v_sub(student, pair->student_max), pair->student_log_sum);
    v16 lp = v_sub(v_sub(teacher, pair->teacher_max), pair->teacher_log_sum), value, part = v_zero();
    if (pair->forward) {
        value = v_mul(v_exp(lp), v_sub(lp, lq));
    } else if (pair->reverse) {
        value = part = v_mul(v_exp(lq), v_sub(lq, lp));
    } else {
        v16 lm = log_mixture(pair, lp, lq);
        part = v_mul(pair->rest, v_mul(v_exp(lq), v_sub(lq, lm)));
        value = v_fma(pair->beta, v_mul(v_exp(lp), v_sub(lp, lm)), part);
    }
    int n = columns < 16 ? (int)columns : 16;
    *sum = v_add(*sum, v_first(value, n, v_zero()));
    *centre = v_add(*centre, v_first(part, n, v_zero()));
}

INLINE v16 slope_of(const Pair *pair, v16 student, v16 teacher, v16 centre) {
    v16 lq = v_sub(v_sub(student, pair->student_max), pair->student_log_sum), q = v_exp(lq);
    v16 lp = v_sub(v_sub(teacher, pair->teacher_max), pair->teacher_log_sum);
    if (pair->forward) return v_sub(q, v_exp(lp));
    if (pair->reverse) return v_mul(q, v_sub(v_sub(lq, lp), centre));
    return v_mul(q, v_sub(v_mul(pair->rest, v_sub(lq, log_mixture(pair, lp, lq))), centre));
}

// The share of one thread: blocks where there are many, else rows.
typedef struct Share {
    int64_t b_from, b_to, m_from, m_to;
    float *student, *teacher; // [HALF_TILE][256] each
} Share;
static Share share_of(const Team *team, const DistillArgs *a) {
    int64_t blocks = blocks_of(a->student.V);
    Share s = {.b_to = blocks, .m_to = a->student.M, .student = a->scratch + (int64_t)team->thread * TILE * VOCAB_BLOCK};
    s.teacher = s.student + HALF_TILE * VOCAB_BLOCK;
    if (blocks >= 4 * team->count)
        team_share(team, blocks, 1, &s.b_from, &s.b_to);
    else
        team_share(team, a->student.M, 4, &s.m_from, &s.m_to);
    return s;
}
static int64_t both_logits(const Team *team, const DistillArgs *a, const Share *s, int64_t block, int64_t m) {
    int64_t rows = s->m_to - m < HALF_TILE ? s->m_to - m : HALF_TILE;
    block_logits(team, &a->student, block, m, rows, s->student, s->student, VOCAB_BLOCK);
    block_logits(team, &a->teacher, block, m, rows, s->teacher, s->teacher, VOCAB_BLOCK);
    return rows;
}

void V(distill)(const Team *team, const DistillArgs *a) {
    int64_t blocks = blocks_of(a->student.V), from, to;
    Share s = share_of(team, a);
    for (int64_t b = s.b_from; b < s.b_to; b++)
        for (int64_t m = s.m_from; m < s.m_to; m += HALF_TILE) {
            int64_t rows = both_logits(team, a, &s, b, m), columns = a->student.V - b * VOCAB_BLOCK;
            for (int64_t r = 0; r < rows; r++) {
                Pair pair = pair_of(a, m + r);
                v16 sum = v_zero(), centre = v_zero();
                for (int64_t c = 0; c < VOCAB_BLOCK && c < columns; c += 16)
                    add_terms(&pair, v_load(s.student + r * VOCAB_BLOCK + c), v_load(s.teacher + r * VOCAB_BLOCK + c), columns - c, &sum, &centre);
                a->student.stats[(m + r) * blocks + b] = (VocabStats){.sum = v_sum(sum), .weighted = v_sum(centre)};
            }
        }
    team_wait(team);
    team_share(team, a->student.M, 1, &from, &to);
    for (int64_t m = from; m < to; m++) {
        double divergence = 0, centre = 0;
        for (int64_t b = 0; b < blocks; b++)
            divergence += (double)a->student.stats[m * blocks + b].sum, centre += (double)a->student.stats[m * blocks + b].weighted;
        a->divergence[m] = (float)divergence, a->centre[m] = (float)centre;
    }
}

void V(distill_grad)(const Team *team, const DistillGradArgs *g) {
    const DistillArgs *a = &g->forward;
    bool half = a->student.dtype == DTYPE_BF16;
    int64_t blocks = blocks_of(a->student.V);
    Share s = share_of(team, a);
    float slopes[VOCAB_BLOCK] = {0};
    for (int64_t b = s.b_from; b < s.b_to; b++)
        for (int64_t m = s.m_from; m < s.m_to; m += HALF_TILE) {
            int64_t rows = both_logits(team, a, &s, b, m), columns = a->student.V - b * VOCAB_BLOCK;
            for (int64_t r = m; r < m + rows; r++) {
                Pair pair = pair_of(a, r);
                const float *student = s.student + (r - m) * VOCAB_BLOCK, *teacher = s.teacher + (r - m) * VOCAB_BLOCK;
                v16 centre = v_set1(a->centre[r]), weight = v_set1(g->weight[r]), scale = v_set1(a->student.inv_temperature[r]);
                if (a->student.softcap != 0) cap_slopes(&a->student, r, student, slopes);
                for (int64_t c = 0; c < VOCAB_BLOCK; c += 16) {
                    v16 d = v_mul(v_mul(slope_of(&pair, v_load(student + c), v_load(teacher + c), centre), weight), scale);
                    if (a->student.softcap != 0) d = v_mul(d, v_load(slopes + c));
                    int64_t left = columns - c < 0 ? 0 : columns - c < 16 ? columns - c : 16;
                    act_store(g->dlogits, r * g->ld + b * VOCAB_BLOCK + c, v_first(d, (int)left, v_zero()), half);
                }
            }
        }
    for (int64_t r = s.m_from; r < s.m_to && s.b_from < s.b_to && s.b_to == blocks; r++) // rows of the student's head beyond the vocabulary of both
        for (int64_t c = blocks * VOCAB_BLOCK; c < g->ld; c += 16) act_store(g->dlogits, r * g->ld + c, v_zero(), half);
}
