// The objective of one minibatch, on the host, in double: from logprobs and advantages to the loss and its derivative
// by every token's logprob and entropy. Policies take those derivatives from here, so a new loss is a function and a
// row of the table below and touches no kernel.
//
// Every denominator is a number of the whole optimizer step (its sequences, its tokens, a constant), handed in by the
// caller, never one of the microbatch: splitting a step into microbatches or over ranks changes no gradient. What a loss
// has to know of all tokens at once (objective_survey.c) is handed in as well.
//
// A token under a zero mask takes no part: its logprobs are never read, so a NaN there stays there. A NaN in an active
// token is carried into loss and gradient, where the trainer sees it and skips the step.
//
// Notation: A advantage, lp logprob, old the policy before this rollout's updates, r = exp(lp - old), s = exp(mean of
// lp - old over the sequence), p = exp(lp), q = exp(old), sg stop-gradient: the number counts, its derivative doesn't.
#include "algorithm.h"
#include <assert.h>
#include <math.h>

// ---- the losses: a token's value, its derivatives by the ratio and by lp itself ----------------------------
typedef struct Token {
    double logprob, frozen, old; // frozen: lp behind stop-gradients
    double ratio, frozen_ratio;  // r or s, as the loss's level says
    double advantage;
    double log_weight;           // vespo: of the whole sequence, clamped
    bool chosen;                 // clip_cov, kl_cov
} Token;
typedef struct Term {
    double value, dratio, dlogprob;
    bool clipped; // the clip range decides: no pull, or a bounded one, from this token
} Term;

// PPO's clipped surrogate: -min( min(r, delta) A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A ), for A < 0 at most
// -dual_clip A. Schulman et al. 2017, arXiv 1707.06347; delta: INTELLECT-2, arXiv 2505.07291; dual clip: arXiv 1912.09729.
// The derivative is the mean of both sides where they are equal, which only matters on the edges of the range.
static Term clipped_surrogate(const Algo *a, const Token *t) {
    double low = 1 - a->epsilon_low, high = 1 + a->epsilon_high, ratio = t->ratio, advantage = t->advantage;
    bool capped = a->delta > 0 && ratio > a->delta;
    double free_side = (capped ? a->delta : ratio) * advantage;
    double dfree = capped ? 0 : advantage;
    double clip_side = (ratio < low ? low : ratio > high ? high : ratio) * advantage;
    double dclip = ratio < low || ratio > high ? 0 : advantage;
    Term term = {.clipped = (ratio < low && advantage < 0) || (ratio > high && advantage > 0)};
    if (free_side < clip_side) term.value = -free_side, term.dratio = -dfree;
    else if (free_side > clip_side) term.value = -clip_side, term.dratio = -dclip;
    else term.value = -free_side, term.dratio = -(dfree + dclip) / 2; // also where either is NaN
    if (a->dual_clip > 0 && advantage < 0 && term.value > -a->dual_clip * advantage)
        term = (Term){.value = -a->dual_clip * advantage, .clipped = true};
    return term;
}

// CISPO: -sg(clip(r, 1 - epsilon_low, 1 + epsilon_high)) A lp. MiniMax-M1, arXiv 2506.13585; verl, slime, NeMo.
static Term cispo(const Algo *a, const Token *t) {
    double low = 1 - a->epsilon_low, high = 1 + a->epsilon_high, r = t->frozen_ratio, w = r < low ? low : r > high ? high : r;
    return (Term){.value = -w * t->advantage * t->logprob, .dlogprob = -w * t->advantage, .clipped = r < low || r > high};
}
// The form of the same name in TRL: -sg(min(r, epsilon_high)) A lp, the cap being epsilon_high itself.
static Term cispo_cap(const Algo *a, const Token *t) {
    bool capped = t->frozen_ratio > a->epsilon_high;
    double w = capped ? a->epsilon_high : t->frozen_ratio;
    return (Term){.value = -w * t->advantage * t->logprob, .dlogprob = -w * t->advantage, .clipped = capped};
}

// SAPO: -(4/tau) sigmoid(tau (r - 1)) A; tau by the sign of A. arXiv 2511.20347.
static Term sapo(const Algo *a, const Token *t) {
    double tau = t->advantage > 0 ? a->sapo_positive : a->sapo_negative;
    double gate = 1 / (1 + exact_exp(-tau * (t->ratio - 1)));
    return (Term){.value = -gate * 4 / tau * t->advantage, .dratio = -4 * gate * (1 - gate) * t->advantage};
}

// VESPO: -sg(phi(W)) A lp, phi = exp(lambda + k log W - lambda W), W the ratio of the whole sequence; (k, lambda) by the
// sign of A. As in TRL.
static Term vespo(const Algo *a, const Token *t) {
    bool positive = t->advantage >= 0;
    double k = positive ? a->vespo_k_positive : a->vespo_k_negative;
    double lambda = fmax(positive ? a->vespo_lambda_positive : a->vespo_lambda_negative, 1e-4);
    double phi = exact_exp(lambda + k * t->log_weight - lambda * exact_exp(t->log_weight));
    return (Term){.value = -phi * t->advantage * t->logprob, .dlogprob = -phi * t->advantage};
}

// GMPO: -exp(mean of the log ratios, each clipped to [-epsilon_low, epsilon_high] on the side that A's sign names) A, once
// a sequence. arXiv 2507.20673.
static Term gmpo(const Algo *a, const Token *t) {
    (void)a;
    return (Term){.value = -t->ratio * t->advantage, .dratio = -t->advantage};
}

// GPG, and REINFORCE: -A lp. arXiv 2504.02546.
static Term gpg(const Algo *a, const Token *t) {
    (void)a;
    return (Term){.value = -t->advantage * t->logprob, .dlogprob = -t->advantage};
}

// DRO: -(A lp - beta/2 (lp - old)^2). arXiv 2405.19107.
static Term dro(const Algo *a, const Token *t) {
    double d = t->logprob - t->old;
    return (Term){.value = -(t->advantage * t->logprob - a->dro_beta / 2 * d * d), .dlogprob = -(t->advantage - a->dro_beta * d)};
}

// DPPO: -sg(min(r, cap) valid) A lp: a trust region on probabilities instead of ratios. arXiv 2602.04879.
static Term trusted(const Algo *a, const Token *t, bool valid) {
    double w = a->ratio_cap > 0 && t->frozen_ratio > a->ratio_cap ? a->ratio_cap : t->frozen_ratio;
    if (!valid) w = 0;
    return (Term){.value = -w * t->advantage * t->logprob, .dlogprob = -w * t->advantage, .clipped = !valid};
}
// valid: p - q <= epsilon_high for A > 0, p - q >= -epsilon_low otherwise.
static bool moved_within(const Algo *a, const Token *t) {
    double moved = exact_exp(t->frozen) - exact_exp(t->old);
    return t->advantage > 0 ? moved <= a->epsilon_high : moved >= -a->epsilon_low;
}
static Term dppo_tv(const Algo *a, const Token *t) { return trusted(a, t, moved_within(a, t)); }
// valid: the divergence of "this token or another" from q to p is within the bound, or the move is inward.
static Term dppo_kl(const Algo *a, const Token *t) {
    double p = exact_exp(t->frozen), q = exact_exp(t->old);
    double kl = q * (t->old - t->frozen) + (1 - q) * exact_log((1 - q + 1e-8) / (1 - p + 1e-8));
    return trusted(a, t, t->advantage > 0 ? kl <= a->epsilon_high || p <= q : kl <= a->epsilon_low || p >= q);
}

// Clip-Cov: the clipped surrogate, 0 for the tokens chosen by (A - mean A)(lp - mean lp). arXiv 2505.22617.
static Term clip_cov(const Algo *a, const Token *t) { return t->chosen ? (Term){.clipped = true} : clipped_surrogate(a, t); }
// KL-Cov: -A r, plus cov_kl |lp - old| for the tokens with the highest covariances. Same paper.
static Term kl_cov(const Algo *a, const Token *t) {
    Term term = {.value = -t->advantage * t->ratio, .dratio = -t->advantage};
    double d = t->logprob - t->old;
    if (t->chosen) term.value += a->cov_kl * fabs(d), term.dlogprob = a->cov_kl * ((d > 0) - (d < 0));
    return term;
}

// prime-rl: -keep prime_advantage A r + prime_drift (lp - old)^2; keep as DPPO's valid. INTELLECT-3.
static Term drifting(const Algo *a, const Token *t, bool keep) {
    double d = t->logprob - t->old, advantage = keep ? a->prime_advantage * t->advantage : 0;
    return (Term){.value = -advantage * t->ratio + a->prime_drift * d * d, .dratio = -advantage, .dlogprob = 2 * a->prime_drift * d,
                  .clipped = !keep};
}
static Term prime(const Algo *a, const Token *t) { return drifting(a, t, moved_within(a, t)); }
// The same with keep: |p - q| <= epsilon_high.
static Term prime_ipo(const Algo *a, const Token *t) {
    return drifting(a, t, fabs(exact_exp(t->frozen) - exact_exp(t->old)) <= a->epsilon_high);
}
static Term terms_only(const Algo *a, const Token *t) {
    (void)a, (void)t;
    return (Term){0};
}

typedef struct Loss {
    const char *name;
    Term (*term)(const Algo *algo, const Token *token);
    RatioLevel ratio;
    Aggregate aggregate;
    double epsilon_low, epsilon_high; // of the paper
} Loss;
static const Loss losses[LOSSES] = {
    [LOSS_GRPO] = {"grpo", clipped_surrogate, RATIO_TOKEN, AGGREGATE_SEQUENCE_MEAN, 0.2, 0.2},       // DeepSeekMath, arXiv 2402.03300
    [LOSS_BNPO] = {"bnpo", clipped_surrogate, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},         // token mean; TRL: by microbatch
    [LOSS_DR_GRPO] = {"dr_grpo", clipped_surrogate, RATIO_TOKEN, AGGREGATE_CONSTANT, 0.2, 0.2},      // arXiv 2503.20783
    [LOSS_DAPO] = {"dapo", clipped_surrogate, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 0.2, 0.2},      // arXiv 2503.14476
    [LOSS_LUSPO] = {"luspo", clipped_surrogate, RATIO_SEQUENCE, AGGREGATE_SEQUENCE_SUM, 2e-3, 2.5e-3}, // arXiv 2602.05261
    [LOSS_GSPO] = {"gspo", clipped_surrogate, RATIO_SEQUENCE, AGGREGATE_SEQUENCE_MEAN, 3e-4, 4e-4},  // arXiv 2507.18071
    [LOSS_GSPO_TOKEN] = {"gspo_token", clipped_surrogate, RATIO_SEQUENCE_TOKEN, AGGREGATE_SEQUENCE_MEAN, 3e-4, 4e-4}, // its section 4.3
    [LOSS_CISPO] = {"cispo", cispo, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 1, 4},
    [LOSS_CISPO_CAP] = {"cispo_cap", cispo_cap, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 0, 5},
    [LOSS_SAPO] = {"sapo", sapo, RATIO_TOKEN, AGGREGATE_SEQUENCE_MEAN, 0.2, 0.2},
    [LOSS_VESPO] = {"vespo", vespo, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 0.2, 0.2},
    [LOSS_GMPO] = {"gmpo", gmpo, RATIO_GEOMETRIC, AGGREGATE_SEQUENCE_MEAN, 0.4, 0.4},
    [LOSS_GPG] = {"gpg", gpg, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},
    [LOSS_DRO] = {"dro", dro, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},
    [LOSS_DPPO_TV] = {"dppo_tv", dppo_tv, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},
    [LOSS_DPPO_KL] = {"dppo_kl", dppo_kl, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.05, 0.05},
    [LOSS_CLIP_COV] = {"clip_cov", clip_cov, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},
    [LOSS_KL_COV] = {"kl_cov", kl_cov, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0.2, 0.2},
    [LOSS_PRIME] = {"prime", prime, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 0.2, 0.2},
    [LOSS_PRIME_IPO] = {"prime_ipo", prime_ipo, RATIO_TOKEN, AGGREGATE_ROLLOUT_TOKENS, 0.1, 0.1},
    [LOSS_TERMS_ONLY] = {"terms_only", terms_only, RATIO_TOKEN, AGGREGATE_STEP_TOKENS, 0, 0},
};

const char *loss_name(LossKind loss) { return losses[loss].name; }
RatioLevel loss_ratio(const Algo *algo) { return algo->ratio != RATIO_OF_LOSS ? algo->ratio : losses[algo->loss].ratio; }
Aggregate loss_aggregate(const Algo *algo) {
    return algo->aggregate != AGGREGATE_OF_LOSS ? algo->aggregate : losses[algo->loss].aggregate;
}
void loss_epsilon(LossKind loss, double *low, double *high) { *low = losses[loss].epsilon_low, *high = losses[loss].epsilon_high; }

Algo algo_default(void) {
    return (Algo){.advantage_eps = 1e-4, .gamma = 1, .loss = LOSS_DAPO, .epsilon_low = 0.2, .epsilon_high = 0.2, .sapo_positive = 1,
                  .sapo_negative = 1.05, .vespo_k_positive = 2, .vespo_lambda_positive = 3, .vespo_k_negative = 3,
                  .vespo_lambda_negative = 2, .dro_beta = 0.1, .ratio_cap = 20, .cov_share = 2e-4, .cov_low = 1, .cov_high = 5,
                  .cov_kl = 1, .prime_advantage = 1, .prime_drift = 1e-3, .kl_horizon = 10000, .entropy_step = 0.005, .entropy_high = 1,
                  .top_entropy = 1, .correction = {.high = INFINITY}, .minibatches = 1, .epochs = 1, .overlong_penalty = 1};
}

// ---- the divergence from the reference ---------------------------------------------------------------------
static double clamp(double x, double bound) { return bound > 0 ? fmax(-bound, fmin(bound, x)) : x; }

// Schulman, "Approximating KL divergence" (2020): k1 = lp - ref, k2 = k1^2 / 2, k3 = exp(-k1) - 1 + k1, never negative.
static KlTerm kl_plain(const Kl *kl, KlEstimator estimator, double logprob, double ref) {
    double k1 = logprob - ref, d = estimator == KL_K3 ? clamp(-k1, kl->log_bound) : -k1;
    KlTerm term = {k1, 1};
    if (estimator == KL_ABS) term = (KlTerm){fabs(k1), (k1 > 0) - (k1 < 0)};
    if (estimator == KL_K2) term = (KlTerm){k1 * k1 / 2, k1};
    if (estimator == KL_K3) term = (KlTerm){exact_exp(d) - d - 1, d == -k1 || d != d ? 1 - exact_exp(d) : 0};
    if (kl->value_bound > 0 && fabs(term.value) > kl->value_bound) term = (KlTerm){clamp(term.value, kl->value_bound), 0};
    return term;
}
KlTerm kl_term(const Kl *kl, double logprob, double frozen, double ref) {
    static const KlEstimator plain[] = {[KL_K3_PLUS] = KL_K3, [KL_K1_PLUS] = KL_K1, [KL_K2_PLUS] = KL_K2, [KL_ABS_PLUS] = KL_ABS};
    if (kl->estimator < KL_K3_PLUS) return kl_plain(kl, kl->estimator, logprob, ref);
    const Kl free_of_bounds = {.estimator = KL_K2};
    KlTerm k2 = kl_plain(&free_of_bounds, KL_K2, logprob, ref), there = kl_plain(&free_of_bounds, KL_K2, frozen, ref);
    return (KlTerm){k2.value - there.value + kl_plain(kl, plain[kl->estimator], frozen, ref).value, k2.dlogprob};
}
double kl_controlled(double coefficient, double measured, double target, double samples, double horizon) {
    return coefficient * (1 + clamp(measured / target - 1, 0.2) * samples / horizon);
}
double entropy_controlled(const Algo *a, double coefficient, double entropy) {
    return entropy <= a->entropy_target ? fmin(coefficient + a->entropy_step, a->entropy_high) : fmax(coefficient - a->entropy_step, a->entropy_low);
}

// ---- the pass over a minibatch -----------------------------------------------------------------------------
// A sequence as its loss sees it: what is shared by its tokens.
typedef struct Sequence {
    int64_t start, stop, active; // [start, stop) of the arrays
    int64_t ratio_tokens;        // tokens the mean log ratio is taken over
    double divisor;              // of that mean
    double log_ratio, frozen_log_ratio; // the mean; not of RATIO_TOKEN
    bool capped;                 // log_ratio_cap decides: no gradient through the ratio
    double log_weight;           // vespo
    double moved;                // mean of sampler - lp
} Sequence;

static bool is_active(const ObjectiveInput *in, int64_t t) { return !in->mask || in->mask[t]; }
static double frozen_at(const ObjectiveInput *in, int64_t t) { return in->frozen ? in->frozen[t] : in->logprob[t]; }
static double old_at(const ObjectiveInput *in, int64_t t) { return in->old_logprob ? in->old_logprob[t] : frozen_at(in, t); }
static double advantage_at(const ObjectiveInput *in, int s, int64_t t) { return in->token_advantage ? in->token_advantage[t] : in->advantage[s]; }
static bool has_entropy_enough(const ObjectiveInput *in, int64_t t) {
    return !(in->entropy_threshold > 0) || in->entropy[t] >= in->entropy_threshold;
}

// A token's log ratio as it enters its sequence's mean, and whether a gradient flows through it.
static double entering_log_ratio(const Algo *a, RatioLevel level, double d, double advantage, bool *flows) {
    *flows = true;
    if (level != RATIO_GEOMETRIC) return d;
    double bound = advantage > 0 ? fmin(d, a->epsilon_high) : fmax(d, -a->epsilon_low);
    *flows = bound == d || d != d;
    return bound;
}
static bool enters_ratio(const ObjectiveInput *in, RatioLevel level, int64_t t) {
    return is_active(in, t) && (level != RATIO_GEOMETRIC || has_entropy_enough(in, t));
}

// VESPO's weight: log ratios of the tokens within +-20, corrections of stale samples within [log 1e-8, 20].
static double whole_log_weight(const ObjectiveInput *in, const Sequence *q) {
    const double lowest = exact_log(1e-8);
    double sum = 0;
    for (int64_t t = q->start; t < q->stop; t++)
        if (is_active(in, t)) sum += clamp(frozen_at(in, t) - old_at(in, t), 20);
    for (int64_t t = q->start; in->weight && t < (in->weight_of_sequence && q->stop > q->start ? q->start + 1 : q->stop); t++)
        sum += fmax(lowest, fmin(20, in->weight[t] > 0 ? exact_log(in->weight[t]) : lowest));
    return fmax(lowest, fmin(20, sum));
}

static Sequence sequence_of(const Algo *a, const ObjectiveInput *in, int s, int64_t start) {
    RatioLevel level = loss_ratio(a);
    Sequence q = {.start = start, .stop = start + in->length[s]};
    double sum = 0, frozen_sum = 0, moved = 0;
    for (int64_t t = q.start; t < q.stop; t++) {
        if (!is_active(in, t)) continue;
        bool flows;
        q.active++;
        double sampler = in->sampler_logprob ? in->sampler_logprob[t] : old_at(in, t), away = sampler - frozen_at(in, t);
        moved += in->sampler_logprob && sampler != sampler ? 0 : away;
        if (level == RATIO_TOKEN || !enters_ratio(in, level, t)) continue;
        q.ratio_tokens++;
        double advantage = advantage_at(in, s, t);
        sum += entering_log_ratio(a, level, in->logprob[t] - old_at(in, t), advantage, &flows);
        frozen_sum += entering_log_ratio(a, level, frozen_at(in, t) - old_at(in, t), advantage, &flows);
    }
    q.divisor = a->length_eps > 0 && level == RATIO_GEOMETRIC ? (double)q.ratio_tokens + a->length_eps : fmax((double)q.ratio_tokens, 1);
    q.log_ratio = sum / q.divisor, q.frozen_log_ratio = frozen_sum / q.divisor;
    q.capped = a->log_ratio_cap > 0 && q.log_ratio > a->log_ratio_cap;
    if (q.capped) q.log_ratio = q.frozen_log_ratio = a->log_ratio_cap;
    q.moved = moved / fmax((double)q.active, 1);
    if (a->loss == LOSS_VESPO) q.log_weight = whole_log_weight(in, &q);
    return q;
}

static double token_weight(const Algo *a, const ObjectiveInput *in, const Sequence *q) {
    double divisor = 1;
    switch (loss_aggregate(a)) {
    case AGGREGATE_SEQUENCE_MEAN: divisor = ((double)q->active + a->length_eps) * in->step_sequences; break;
    case AGGREGATE_ROLLOUT_TOKENS: divisor = in->rollout_tokens; break;
    case AGGREGATE_CONSTANT: divisor = in->step_sequences * in->max_completion; break;
    case AGGREGATE_SEQUENCE_SUM: divisor = in->step_sequences; break;
    case AGGREGATE_SUM: break;
    case AGGREGATE_STEP_TOKENS:
    case AGGREGATE_OF_LOSS: divisor = in->step_tokens; break;
    }
    return divisor > 0 ? 1 / divisor : 0;
}

// One token with the ratio of its loss's level; *flows false where nothing flows back through that ratio.
static Token token_of(const Algo *a, const ObjectiveInput *in, const Sequence *q, int s, int64_t t, bool *flows) {
    RatioLevel level = loss_ratio(a);
    Token k = {.logprob = in->logprob[t], .frozen = frozen_at(in, t), .old = old_at(in, t), .advantage = advantage_at(in, s, t),
               .log_weight = q->log_weight, .chosen = in->chosen && in->chosen[t]};
    double log_ratio = k.logprob - k.old, frozen = k.frozen - k.old;
    if (level == RATIO_TOKEN) {
        *flows = !(a->log_ratio_bound > 0 && fabs(log_ratio) > a->log_ratio_bound);
        log_ratio = clamp(log_ratio, a->log_ratio_bound), frozen = clamp(frozen, a->log_ratio_bound);
    } else {
        *flows = !q->capped;
        frozen = q->frozen_log_ratio;
        log_ratio = level == RATIO_SEQUENCE_TOKEN ? k.logprob - k.frozen + frozen : q->log_ratio;
    }
    k.ratio = log_ratio == 0 ? 1 : exact_exp(log_ratio);
    k.frozen_ratio = frozen == log_ratio ? k.ratio : exact_exp(frozen);
    return k;
}

// What multiplies a token's policy loss: the off-policy mask (a sequence with A < 0 that has moved too far, DeepSeek-V3.2,
// arXiv 2512.02556), the entropy mask (Wang et al. 2025, arXiv 2506.01939), the correction of stale samples.
static double policy_factor(const Algo *a, const ObjectiveInput *in, const Sequence *q, const Token *k, int64_t t) {
    if (a->off_policy_threshold > 0 && !(k->advantage >= 0 || q->moved <= a->off_policy_threshold)) return 0;
    if (!has_entropy_enough(in, t)) return 0;
    return in->weight && a->loss != LOSS_VESPO ? in->weight[t] : 1;
}

// Adds what flows back through a sequence's ratio to each of its tokens.
static void spread_ratio(const Algo *a, const ObjectiveInput *in, const Sequence *q, int s, double dratio, ObjectiveOutput *out) {
    RatioLevel level = loss_ratio(a);
    if (dratio == 0 || q->capped) return;
    double each = dratio * exact_exp(q->log_ratio) / q->divisor;
    for (int64_t t = q->start; t < q->stop; t++) {
        bool flows;
        if (!enters_ratio(in, level, t)) continue;
        entering_log_ratio(a, level, in->logprob[t] - old_at(in, t), advantage_at(in, s, t), &flows);
        if (flows) out->dlogprob[t] += each;
    }
}

// One value a sequence (GMPO): the mean over sequences. The geometric mean of no tokens is 1.
static double whole_sequence_loss(const Algo *a, const ObjectiveInput *in, const Sequence *q, int s, ObjectiveOutput *out) {
    double advantage = in->token_advantage ? 0 : in->advantage[s], log_weight = 0, length = (double)q->active + a->length_eps;
    for (int64_t t = q->start; t < q->stop; t++) {
        if (!is_active(in, t)) continue;
        if (in->token_advantage) advantage += in->token_advantage[t] / length;
        if (in->weight) log_weight += exact_log(in->weight[t] + 1e-10) / length;
    }
    if (!in->token_advantage && a->length_eps > 0) advantage *= (double)q->active / length;
    double ratio = exact_exp(q->log_ratio), share = in->step_sequences > 0 ? exact_exp(log_weight) / in->step_sequences : 0;
    Term term = losses[a->loss].term(a, &(Token){.ratio = ratio, .frozen_ratio = ratio, .advantage = advantage});
    spread_ratio(a, in, q, s, term.dratio * share, out);
    return term.value * share;
}

static void count_token(const Token *k, const Term *term, ObjectiveOutput *out) {
    out->clipped += term->clipped;
    out->clipped_low += term->clipped && k->frozen_ratio < 1;
    out->clipped_high += term->clipped && k->frozen_ratio > 1;
    out->ratio_max = fmax(out->ratio_max, fabs(k->frozen_ratio - 1));
}

static void sequence_loss(const Algo *a, const ObjectiveInput *in, int s, int64_t start, ObjectiveOutput *out) {
    Sequence q = sequence_of(a, in, s, start);
    RatioLevel level = loss_ratio(a);
    double weight = token_weight(a, in, &q), sum = 0, through_ratio = 0, tokens = in->entropy_tokens > 0 ? in->entropy_tokens : in->step_tokens;
    double bonus = a->entropy == 0 ? 0 : a->entropy_as_loss ? a->entropy * weight : tokens > 0 ? a->entropy / tokens : 0;
    for (int64_t t = q.start; t < q.stop; t++) {
        out->dlogprob[t] = 0;
        if (out->dentropy) out->dentropy[t] = 0;
    }
    for (int64_t t = q.start; t < q.stop; t++) {
        if (!is_active(in, t)) continue;
        bool flows;
        Token k = token_of(a, in, &q, s, t, &flows);
        Term term = losses[a->loss].term(a, &k);
        count_token(&k, &term, out);
        double factor = level == RATIO_GEOMETRIC ? 0 : policy_factor(a, in, &q, &k, t);
        // A token without a pull has none even where its ratio or its weight overflows.
        double value = factor == 0 ? 0 : term.value * factor, dlogprob = term.dlogprob == 0 || factor == 0 ? 0 : term.dlogprob * factor;
        double dratio = term.dratio == 0 || factor == 0 ? 0 : term.dratio * factor;
        if (in->ref_logprob && !a->kl_in_reward) {
            KlTerm kl = kl_term(&a->kl_form, k.logprob, k.frozen, in->ref_logprob[t]);
            out->kl_sum += kl.value;
            double by = a->kl_times_ratio ? k.ratio : 1;
            if (a->kl != 0) {
                value += a->kl * kl.value * by, dlogprob += a->kl * kl.dlogprob * by;
                if (a->kl_times_ratio) dratio += a->kl * kl.value;
            }
        }
        if (level == RATIO_SEQUENCE || level == RATIO_GEOMETRIC) through_ratio += dratio * weight;
        else if (flows && dratio != 0) dlogprob += dratio * k.ratio;
        sum += value * weight;
        out->dlogprob[t] += dlogprob * weight;
        if (bonus != 0 && has_entropy_enough(in, t)) {
            sum -= bonus * in->entropy[t];
            out->dentropy[t] = -bonus;
        }
    }
    spread_ratio(a, in, &q, s, through_ratio, out);
    if (level == RATIO_GEOMETRIC && a->loss != LOSS_TERMS_ONLY) sum += whole_sequence_loss(a, in, &q, s, out);
    out->tokens += (double)q.active;
    out->loss += sum;
}

void objective_compute(const Algo *algo, const ObjectiveInput *in, ObjectiveOutput *out) {
    assert(algo->kl == 0 || algo->kl_in_reward || in->ref_logprob);
    assert(algo->entropy == 0 || (in->entropy && out->dentropy));
    out->loss = out->kl_sum = out->clipped = out->clipped_low = out->clipped_high = out->tokens = out->ratio_max = 0;
    int64_t start = 0;
    for (int s = 0; s < in->sequences; s++) {
        sequence_loss(algo, in, s, start, out);
        start += in->length[s];
    }
}
