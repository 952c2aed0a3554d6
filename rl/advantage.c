// Rewards to advantages: how much better a completion did than the others that answer the same prompt. The group is
// the baseline (GRPO, DeepSeekMath, arXiv 2402.03300); what the centred reward is divided by, or what else is taken as
// the baseline, is the choice here.
//
// A sample that has no score (its script abstained or failed) is left out of every mean and deviation and gets
// advantage 0: it is never taken for a reward of 0. A group whose rewards are all equal says nothing about which
// answer was better; its advantages are exactly 0, not the rounding residue of r - mean.
#include "algorithm.h"
#include <math.h>
#include <stdlib.h>

typedef struct Moments {
    int count;
    double mean, deviation; // sample standard deviation (n - 1); 0 below two values
    bool equal;             // all values are the same
} Moments;

// Of `values` over the members of a group, or of all where group is -1. A value counts if it is a number and scorable.
static bool counts(const AdvantageInput *in, const double *values, int i, int group) {
    return (group < 0 || in->group[i] == group) && (!in->scorable || in->scorable[i]) && values[i] == values[i];
}
static Moments moments(const AdvantageInput *in, const double *values, int group) {
    Moments m = {.equal = true, .mean = NAN};
    double sum = 0, first = NAN, squares = 0;
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, values, i, group)) continue;
        if (m.count++ == 0) first = values[i];
        m.equal &= values[i] == first;
        sum += values[i];
    }
    if (m.count == 0) return m;
    m.mean = sum / m.count;
    for (int i = 0; i < in->count; i++)
        if (counts(in, values, i, group)) squares += (values[i] - m.mean) * (values[i] - m.mean);
    if (m.count > 1 && !(m.equal && !in->keep_residue)) m.deviation = sqrt(fmax(squares / (m.count - 1), in->variance_floor));
    return m;
}

// A group of one: its own reward (verl: mean 0, deviation 1) or nothing.
static bool lone(const AdvantageInput *in, const Moments *m, double reward, double *advantage) {
    if (m->count != 1) return false;
    bool scales = in->kind == ADVANTAGE_GROUP || (in->kind == ADVANTAGE_GDPO && in->scale);
    *advantage = in->lone_keeps_reward ? reward / (scales ? 1 + in->eps : 1) : NAN; // NaN: out of a batch's normalization too, then 0
    return true;
}

// A = (R - mean) / divisor.
static void centred(const AdvantageInput *in, int g, const Moments *m, double divisor, double *advantage) {
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, in->reward, i, g)) continue;
        double own = 0;
        if (lone(in, m, in->reward[i], &own)) advantage[i] = own;
        else advantage[i] = m->equal && !in->keep_residue ? 0 : (in->reward[i] - m->mean) / divisor;
    }
}

// RLOO: A = R_i - mean of the others. Ahmadian et al. 2024, arXiv 2402.14740.
static void leave_one_out(const AdvantageInput *in, int g, const Moments *m, double *advantage) {
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, in->reward, i, g)) continue;
        double own = 0;
        if (lone(in, m, in->reward[i], &own)) advantage[i] = own;
        else advantage[i] = m->equal && !in->keep_residue ? 0 : (in->reward[i] - m->mean) * m->count / (m->count - 1);
    }
}

// OPO: the baseline sum(L R) / sum(L), L the length. arXiv 2505.23585.
static void length_weighted(const AdvantageInput *in, int g, const Moments *m, double *advantage) {
    double rewards = 0, lengths = 0;
    for (int i = 0; i < in->count; i++)
        if (counts(in, in->reward, i, g)) rewards += in->length[i] * in->reward[i], lengths += in->length[i];
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, in->reward, i, g)) continue;
        double own = 0;
        if (lone(in, m, in->reward[i], &own)) advantage[i] = own;
        else advantage[i] = m->equal && !in->keep_residue ? 0 : in->reward[i] - rewards / lengths;
    }
}

// MaxRL: A = (R - mean) / (mean + eps), 0 where the mean isn't positive and there is no eps. arXiv 2602.02710.
static void mean_normalized(const AdvantageInput *in, int g, const Moments *m, double *advantage) {
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, in->reward, i, g)) continue;
        double own = 0;
        if (in->lone_keeps_reward && lone(in, m, in->reward[i], &own)) advantage[i] = own;
        else advantage[i] = m->mean + in->eps <= 0 || (m->equal && !in->keep_residue) ? 0 : (in->reward[i] - m->mean) / (m->mean + in->eps);
    }
}

// Pass@k: only the best of a group, by how far it is ahead of the second. arXiv 2503.19595.
static void best_alone(const AdvantageInput *in, int g, const Moments *m, double *advantage) {
    int best = -1;
    double second = -INFINITY;
    for (int i = 0; i < in->count; i++) {
        if (!counts(in, in->reward, i, g)) continue;
        if (best < 0 || in->reward[i] > in->reward[best]) {
            if (best >= 0) second = fmax(second, in->reward[best]);
            best = i;
        } else second = fmax(second, in->reward[i]);
    }
    if (m->count >= 2) advantage[best] = (in->reward[best] - second) / (in->scale ? m->deviation + in->eps : 1);
}

// GDPO: each part of the reward normalized within its group, their weighted sum normalized over the batch. arXiv 2601.05242.
static void by_parts(const AdvantageInput *in, double *advantage) {
    double *part = xcalloc((size_t)in->count + 1, sizeof *part), *sum = xcalloc((size_t)in->count + 1, sizeof *sum);
    for (int k = 0; k < in->parts; k++) {
        for (int i = 0; i < in->count; i++) part[i] = in->part[(int64_t)i * in->parts + k];
        for (int g = 0; g < in->groups; g++) {
            Moments m = moments(in, part, g);
            double weight = in->part_weight ? in->part_weight[k] : 1;
            for (int i = 0; i < in->count; i++) {
                if (!counts(in, part, i, g)) continue;
                double z = m.equal && !in->keep_residue ? 0 : (part[i] - m.mean) / (in->scale ? m.deviation + in->eps : 1), own = 0;
                sum[i] += weight * (in->lone_keeps_reward && lone(in, &m, part[i], &own) ? own : z);
            }
        }
    }
    Moments m = moments(in, sum, -1);
    for (int i = 0; i < in->count; i++)
        if (!in->whiten) advantage[i] = counts(in, sum, i, -1) ? sum[i] : 0; // over tokens, by the caller
        else if (counts(in, sum, i, -1)) advantage[i] = m.equal && !in->keep_residue ? 0 : (sum[i] - m.mean) / (m.deviation + in->eps);
    free(part), free(sum);
}

// Over all samples that have a score.
static void normalize_batch(const AdvantageInput *in, double eps, double *advantage) {
    Moments m = moments(in, advantage, -1);
    for (int i = 0; i < in->count; i++)
        if (counts(in, advantage, i, -1)) advantage[i] = m.equal && !in->keep_residue ? 0 : (advantage[i] - m.mean) / (m.deviation + eps);
}

static void of_group(const AdvantageInput *in, int g, const Moments *m, const Moments *batch, double *advantage) {
    switch (in->kind) {
    case ADVANTAGE_GROUP: centred(in, g, m, m->deviation + in->eps, advantage); break;
    case ADVANTAGE_BATCH: centred(in, g, m, batch->deviation + in->eps, advantage); break;
    case ADVANTAGE_NONE: // Dr. GRPO, arXiv 2503.20783
    case ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE: centred(in, g, m, 1, advantage); break; // then whitened over tokens
    case ADVANTAGE_RLOO: leave_one_out(in, g, m, advantage); break;
    case ADVANTAGE_OPO: length_weighted(in, g, m, advantage); break;
    case ADVANTAGE_MAXRL: mean_normalized(in, g, m, advantage); break;
    case ADVANTAGE_PASSK: best_alone(in, g, m, advantage); break;
    case ADVANTAGE_GPG: centred(in, g, m, 1, advantage); break;
    default: break;
    }
}

// GPG: scaled by how many rewards are not 0. arXiv 2504.02546.
static void scale_gpg(const AdvantageInput *in, double *advantage) {
    double scored = 0, nonzero = 0;
    for (int i = 0; i < in->count; i++)
        if (counts(in, in->reward, i, -1)) scored++, nonzero += in->reward[i] != 0;
    for (int i = 0; i < in->count; i++) advantage[i] *= scored / fmax(nonzero, 1);
}

void advantage_compute(const AdvantageInput *in, double *advantage, bool *has_variance) {
    Moments batch = moments(in, in->reward, -1);
    for (int i = 0; i < in->count; i++) advantage[i] = 0;
    for (int g = 0; g < in->groups; g++) {
        Moments m = moments(in, in->reward, g);
        if (has_variance) has_variance[g] = !m.equal;
        of_group(in, g, &m, &batch, advantage);
    }
    for (int i = 0; i < in->count; i++) {
        bool scored = counts(in, in->reward, i, -1);
        if (in->kind == ADVANTAGE_REINFORCE_PLUS_PLUS) advantage[i] = scored ? in->reward[i] : 0;
        if (in->kind == ADVANTAGE_BATCH_MEAN) advantage[i] = scored ? in->reward[i] - batch.mean : 0;
    }
    if (in->kind == ADVANTAGE_GPG) scale_gpg(in, advantage);
    if (in->kind == ADVANTAGE_GDPO) by_parts(in, advantage);
    else if (in->whiten) normalize_batch(in, in->eps, advantage);
    for (int i = 0; i < in->count; i++)
        if (advantage[i] != advantage[i]) advantage[i] = 0;
}

// ---- over tokens -------------------------------------------------------------------------------------------
void whiten_tokens(int64_t count, const uint8_t *mask, const Whitening *w, double *values) {
    double sum = 0, squares = 0, n = 0;
    for (int64_t t = 0; t < count; t++)
        if (!mask || mask[t]) sum += values[t], n++;
    double mean = n > 0 ? sum / (n + w->count_eps) : 0;
    for (int64_t t = 0; t < count; t++)
        if (!mask || mask[t]) squares += (values[t] - mean) * (values[t] - mean);
    double variance = squares / (n + w->count_eps) * (w->biased ? 1 : n / (n - 1));
    double by = w->mean_only ? 1 : n > 1 ? 1 / sqrt(fmax(variance, w->floor) + w->eps) : 0;
    for (int64_t t = 0; t < count; t++) values[t] = w->everywhere || !mask || mask[t] ? (values[t] - mean) * by : 0;
}

void discounted_returns(int sequences, const int32_t *length, const uint8_t *mask, const double *reward, double gamma, double *returns) {
    int64_t end = 0;
    for (int s = 0; s < sequences; s++) {
        end += length[s];
        double running = 0;
        for (int64_t t = end - 1; t >= end - length[s]; t--) {
            bool active = !mask || mask[t];
            if (active) running = reward[t] + gamma * running;
            returns[t] = active ? running : 0;
        }
    }
}

double overlong_punishment(double length, double limit, double buffer) {
    if (!(buffer > 0) || length <= limit - buffer) return 0;
    return length >= limit ? -1 : (limit - buffer - length) / buffer;
}
