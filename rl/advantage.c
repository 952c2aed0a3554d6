// Rewards to advantages: how much better a completion did than the others that answer the same prompt. The group is
// the baseline (GRPO, DeepSeekMath, arXiv 2402.03300); what the centred reward is divided by is the choice here.
//
// A sample that has no score (its script abstained or failed) is left out of every mean and deviation and gets
// advantage 0: it is never taken for a reward of 0. A group whose rewards are all equal says nothing about which
// answer was better; its advantages are exactly 0, not the rounding residue of r - mean.
#include "rl.h"
#include <math.h>

typedef struct Moments {
    int count;
    double mean, deviation; // sample standard deviation (n - 1); NaN below two values
    bool equal;             // all values are the same
} Moments;

static Moments moments(int count, const double *reward, const bool *scorable) {
    Moments m = {.equal = true, .deviation = NAN, .mean = NAN};
    double sum = 0, first = NAN;
    for (int i = 0; i < count; i++) {
        if (!scorable[i]) continue;
        if (m.count++ == 0) first = reward[i];
        m.equal &= reward[i] == first;
        sum += reward[i];
    }
    if (m.count == 0) return m;
    m.mean = sum / m.count;
    double squares = 0;
    for (int i = 0; i < count; i++)
        if (scorable[i]) squares += (reward[i] - m.mean) * (reward[i] - m.mean);
    if (m.count > 1) m.deviation = m.equal ? 0 : sqrt(squares / (m.count - 1));
    return m;
}

void advantage_compute(AdvantageKind kind, double eps, int groups, int group_size, const double *reward,
                       const bool *scorable, double *advantage, bool *has_variance) {
    Moments batch = moments(groups * group_size, reward, scorable);
    for (int g = 0; g < groups; g++) {
        int start = g * group_size;
        Moments group = moments(group_size, reward + start, scorable + start);
        if (has_variance) has_variance[g] = !group.equal;
        double divisor = 1; // ADVANTAGE_NONE: Dr. GRPO, arXiv 2503.20783
        if (kind == ADVANTAGE_GROUP) divisor = group.deviation + eps;
        if (kind == ADVANTAGE_BATCH) divisor = batch.deviation + eps;
        for (int i = start; i < start + group_size; i++)
            advantage[i] = scorable[i] && !group.equal ? (reward[i] - group.mean) / divisor : 0;
    }
}
