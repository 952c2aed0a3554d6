// The objective of one minibatch, on the host, in double: from logprobs and advantages to the loss and its derivative
// by every token's logprob and entropy. Policies take those derivatives from here, so a new loss is a function and a
// row of the table below and touches no kernel.
//
// Every denominator is a number of the whole optimizer step (its sequences, its tokens, a constant), handed in by the
// caller, never one of the microbatch: splitting a step into microbatches or over ranks changes no gradient.
//
// A token under a zero mask takes no part: its logprobs are never read, so a NaN there stays there. A NaN in an active
// token is carried into loss and gradient, where the trainer sees it and skips the step.
#include "rl.h"
#include <assert.h>
#include <math.h>

// ---- the losses: a token's value and its derivative by the ratio r = exp(logprob - old_logprob) ----------
typedef struct Term {
    double value, dratio;
    bool clipped; // the clip range decides: no pull from this token
} Term;

// PPO's clipped surrogate: -min( min(r, delta) A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A ).
// Schulman et al. 2017, arXiv 1707.06347; delta (two-sided bound on r for A < 0): INTELLECT-2, arXiv 2505.07291.
// The derivative is the mean of both sides where they are equal, which only matters on the edges of the range.
static Term clipped_surrogate(const Algo *algo, double ratio, double advantage) {
    double low = 1 - algo->epsilon_low, high = 1 + algo->epsilon_high;
    bool capped = algo->delta > 0 && ratio > algo->delta;
    double free_side = (capped ? algo->delta : ratio) * advantage;
    double dfree = capped ? 0 : advantage;
    double clip_side = (ratio < low ? low : ratio > high ? high : ratio) * advantage;
    double dclip = ratio < low || ratio > high ? 0 : advantage;
    Term t = {.clipped = (ratio < low && advantage < 0) || (ratio > high && advantage > 0)};
    if (free_side < clip_side) t.value = -free_side, t.dratio = -dfree;
    else if (free_side > clip_side) t.value = -clip_side, t.dratio = -dclip;
    else t.value = -free_side, t.dratio = -(dfree + dclip) / 2; // also where either is NaN
    return t;
}

// What a token's loss is divided by.
typedef enum Denominator {
    PER_SEQUENCE_MEAN,   // active tokens of its sequence, then sequences of the step
    PER_STEP_TOKEN,      // active tokens of the optimizer step
    PER_ROLLOUT_TOKEN,   // active tokens of the generation batch, times the step's share of it
    PER_COMPLETION_LIMIT // sequences of the step times the longest completion allowed
} Denominator;

typedef struct Loss {
    Term (*term)(const Algo *algo, double ratio, double advantage);
    Denominator denominator;
} Loss;

static const Loss losses[] = {
    [LOSS_GRPO] = {clipped_surrogate, PER_SEQUENCE_MEAN},       // DeepSeekMath, arXiv 2402.03300
    [LOSS_BNPO] = {clipped_surrogate, PER_STEP_TOKEN},          // token mean; TRL's name, there by microbatch
    [LOSS_DR_GRPO] = {clipped_surrogate, PER_COMPLETION_LIMIT}, // arXiv 2503.20783
    [LOSS_DAPO] = {clipped_surrogate, PER_ROLLOUT_TOKEN},       // arXiv 2503.14476
};

// ---- the pass over a minibatch ---------------------------------------------------------------------------
static double token_weight(const ObjectiveInput *in, Denominator denominator, int64_t active) {
    double divisor = 0;
    switch (denominator) {
    case PER_SEQUENCE_MEAN: divisor = (double)active * in->step_sequences; break;
    case PER_STEP_TOKEN: divisor = in->step_tokens; break;
    case PER_ROLLOUT_TOKEN: divisor = in->rollout_tokens; break;
    case PER_COMPLETION_LIMIT: divisor = in->step_sequences * in->max_completion; break;
    }
    return divisor > 0 ? 1 / divisor : 0;
}

// k3 of Schulman, "Approximating KL divergence" (2020): exp(d) - d - 1 with d = ref - logprob, never negative. Its
// plain gradient is not the KL's; multiplied by the ratio, value and gradient are unbiased (DeepSeek-V3.2).
static void add_kl(const Algo *algo, double logprob, double ref, double ratio, double *value, double *dlogprob,
                   double *kl_sum) {
    double d = ref - logprob, k3 = exact_exp(d) - d - 1, dk3 = 1 - exact_exp(d);
    *kl_sum += k3;
    if (algo->kl == 0) return;
    double by = algo->kl_times_ratio ? ratio : 1;
    *value += algo->kl * k3 * by;
    *dlogprob += algo->kl * (algo->kl_times_ratio ? (dk3 + k3) * by : dk3);
}

static void sequence_loss(const Algo *algo, const ObjectiveInput *in, int sequence, int64_t start, ObjectiveOutput *out) {
    const Loss *loss = &losses[algo->loss];
    int64_t stop = start + in->length[sequence], active = 0;
    for (int64_t t = start; t < stop; t++) active += !in->mask || in->mask[t];
    double weight = token_weight(in, loss->denominator, active), sum = 0;
    double bonus = algo->entropy != 0 && in->step_tokens > 0 ? algo->entropy / in->step_tokens : 0;
    for (int64_t t = start; t < stop; t++) {
        out->dlogprob[t] = 0;
        if (out->dentropy) out->dentropy[t] = 0;
        if (in->mask && !in->mask[t]) continue;
        double advantage = in->token_advantage ? in->token_advantage[t] : in->advantage[sequence];
        double ratio = in->old_logprob ? exact_exp(in->logprob[t] - in->old_logprob[t]) : 1;
        Term term = loss->term(algo, ratio, advantage);
        // A clipped token has no pull even where its ratio overflows.
        double value = term.value, dlogprob = term.dratio == 0 ? 0 : term.dratio * ratio;
        if (in->ref_logprob)
            add_kl(algo, in->logprob[t], in->ref_logprob[t], ratio, &value, &dlogprob, &out->kl_sum);
        sum += value * weight;
        out->dlogprob[t] = dlogprob * weight;
        if (bonus != 0) {
            sum -= bonus * in->entropy[t];
            out->dentropy[t] = -bonus;
        }
        out->clipped += term.clipped;
        out->ratio_max = fmax(out->ratio_max, fabs(ratio - 1));
    }
    out->tokens += (double)active;
    out->loss += sum;
}

void objective_compute(const Algo *algo, const ObjectiveInput *in, ObjectiveOutput *out) {
    assert(algo->kl == 0 || in->ref_logprob);
    assert(algo->entropy == 0 || (in->entropy && out->dentropy));
    out->loss = out->kl_sum = out->clipped = out->tokens = out->ratio_max = 0;
    int64_t start = 0;
    for (int s = 0; s < in->sequences; s++) {
        sequence_loss(algo, in, s, start, out);
        start += in->length[s];
    }
}
