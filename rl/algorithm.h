// The mathematics of reinforcement learning on completions, free of models and files: advantages, losses, divergences,
// corrections of stale samples, schedules. Training and `reckon calc` call the same functions; docs of the numbers that
// they reproduce stand in tests/data/rl. Arrays are ragged: [N] is all tokens of all sequences, one after another.
#ifndef RECKON_ALGORITHM_H
#define RECKON_ALGORITHM_H
#include "base.h"

// ---- the losses (objective.c) ------------------------------------------------------------------------------
// In the order of the recipe's choices; LOSS_TERMS_ONLY is the divergence and the entropy bonus without any policy loss.
typedef enum LossKind {
    LOSS_GRPO, LOSS_BNPO, LOSS_DR_GRPO, LOSS_DAPO, LOSS_LUSPO, LOSS_GSPO, LOSS_GSPO_TOKEN, LOSS_CISPO, LOSS_CISPO_CAP, LOSS_SAPO,
    LOSS_VESPO, LOSS_GMPO, LOSS_GPG, LOSS_DRO, LOSS_DPPO_TV, LOSS_DPPO_KL, LOSS_CLIP_COV, LOSS_KL_COV, LOSS_PRIME, LOSS_PRIME_IPO,
    LOSS_TERMS_ONLY, LOSSES
} LossKind;
// What the importance ratio is taken of.
typedef enum RatioLevel {
    RATIO_OF_LOSS,        // what the loss's paper takes
    RATIO_TOKEN,          // r_t = exp(logprob - old)
    RATIO_SEQUENCE,       // s = exp(mean_t(logprob - old)), the gradient through every token
    RATIO_SEQUENCE_TOKEN, // the same value, the gradient through the token's own logprob only
    RATIO_GEOMETRIC       // as sequence, each log ratio clipped first, and one value a sequence (GMPO)
} RatioLevel;
// How token values become one number. Denominators are numbers of the step, never of a microbatch.
typedef enum Aggregate {
    AGGREGATE_OF_LOSS,
    AGGREGATE_SEQUENCE_MEAN,  // mean over sequences of the token mean
    AGGREGATE_STEP_TOKENS,    // sum / active tokens of the optimizer step
    AGGREGATE_ROLLOUT_TOKENS, // sum / active tokens of the generation batch, times the step's share of it
    AGGREGATE_CONSTANT,       // sum / (sequences * max_completion)
    AGGREGATE_SEQUENCE_SUM,   // sum / sequences
    AGGREGATE_SUM
} Aggregate;
// Estimators of KL(policy || reference) from one token, d = ref - logprob. With PLUS the value is the estimator's and the
// gradient is k2's, the only one that is unbiased.
typedef enum KlEstimator { KL_K3, KL_K1, KL_K2, KL_ABS, KL_K3_PLUS, KL_K1_PLUS, KL_K2_PLUS, KL_ABS_PLUS } KlEstimator;
typedef struct Kl {
    KlEstimator estimator;
    double log_bound;   // k3: d is clamped to +-this; 0: not
    double value_bound; // the value is clamped to +-this, without gradient beyond; 0: not
} Kl;
typedef struct KlTerm {
    double value, dlogprob;
} KlTerm;
// `frozen` is the logprob behind stop-gradients: the same number, kept still when derivatives are taken by differences.
KlTerm kl_term(const Kl *kl, double logprob, double frozen, double ref);
// Moves a coefficient towards the one that holds the divergence at `target` (Ziegler et al. 2019, arXiv 1909.08593).
double kl_controlled(double coefficient, double measured, double target, double samples, double horizon);

typedef enum AdvantageKind {
    ADVANTAGE_GROUP, ADVANTAGE_BATCH, ADVANTAGE_NONE, ADVANTAGE_GDPO, ADVANTAGE_RLOO, ADVANTAGE_REINFORCE_PLUS_PLUS,
    ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE, ADVANTAGE_OPO, ADVANTAGE_MAXRL, ADVANTAGE_PASSK, ADVANTAGE_GPG, ADVANTAGE_BATCH_MEAN,
    ADVANTAGES
} AdvantageKind;

// ---- corrections of samples from another policy than the one that is trained (correction.c) -----------------
typedef enum Pool { POOL_TOKEN, POOL_SUM, POOL_MEAN, POOL_MAX } Pool;
typedef enum Statistic {
    STATISTIC_K1,        // sampler - old: bounds are logs of ratios
    STATISTIC_K2,        // (old - sampler)^2 / 2
    STATISTIC_K3,        // exp(old - sampler) - 1 - (old - sampler)
    STATISTIC_BINARY_KL, // of "this token or another", sampler against old
    STATISTIC_TV         // |exp(old) - exp(sampler)|
} Statistic;
typedef struct Rejection { // what lies outside [low, high] doesn't take part
    Statistic statistic;
    Pool pool; // POOL_TOKEN drops tokens, the others whole sequences
    double low, high;
} Rejection;
typedef enum CorrectionLevel { CORRECTION_OFF, CORRECTION_TOKEN, CORRECTION_SEQUENCE } CorrectionLevel;
typedef enum CorrectionMode { CORRECTION_TRUNCATE, CORRECTION_MASK } CorrectionMode;
enum { MAX_REJECTIONS = 12 };
typedef struct Correction {
    CorrectionLevel level; // of the weight rho = exp(old - sampler): of the token, or of the sequence's sum
    CorrectionMode mode;   // outside [low, high]: clamped there, or 0
    double low, high;      // 0 and infinity: no bound
    double log_bound;      // log ratios (of the sequence: their sum) are clamped to +-this; 0: not
    bool normalize;        // weights are divided by their mean over the step
    int rejection_count;
    Rejection rejections[MAX_REJECTIONS];
} Correction;
// weight [N] (1 where there is no correction) and keep [N] (0 where a rejection drops the token), for all sequences of a
// step. `mask` may be NULL. An unscored token (sampler NaN) differs by 0. Under a zero mask the log ratio counts as 0.
void correction_compute(const Correction *c, int sequences, const int32_t *length, const double *old, const double *sampler,
                        const uint8_t *mask, double *weight, uint8_t *keep);
// Of the active tokens, those whose weight was outside of the bounds (cut back, or 0), or that a rejection dropped; `keep` as above. NaN: none
// is active.
double correction_share(const Correction *c, int sequences, const int32_t *length, const double *old, const double *sampler, const uint8_t *mask,
                        const uint8_t *keep);

// The algorithm's hyperparameters (recipe key `algo`).
typedef struct Algo {
    AdvantageKind advantage; // what the group's centred reward is divided by, or another estimator
    double advantage_eps;    // added to the standard deviation, 1e-4 as TRL
    double gamma;            // discount of REINFORCE++
    bool advantage_whiten;   // rloo: centred and scaled over the batch afterwards
    LossKind loss;
    RatioLevel ratio;
    Aggregate aggregate;
    double epsilon_low, epsilon_high; // clip range of the ratio
    double delta;                     // upper bound of the unclipped ratio; 0: none
    double dual_clip;                 // A < 0: the loss is at most -dual_clip A; 0: no bound
    double log_ratio_bound;           // token log ratios are clamped to +-this, without gradient beyond; 0: not
    double log_ratio_cap;             // upper bound of a sequence's log ratio; 0: none
    double length_eps;                // added to lengths that divide (verl: 1e-8)
    double sapo_positive, sapo_negative; // temperatures
    double vespo_k_positive, vespo_lambda_positive, vespo_k_negative, vespo_lambda_negative;
    double dro_beta;
    double ratio_cap;                 // dppo: upper bound of the detached ratio; 0: none
    double cov_share, cov_low, cov_high, cov_kl; // clip_cov, kl_cov: share of the tokens, range of covariances, weight
    double prime_advantage, prime_drift;         // prime: factor of the advantage, weight of the squared log ratio
    double kl;                        // beta against the reference; 0: no reference is held
    Kl kl_form;
    bool kl_times_ratio;              // the term is multiplied by the ratio, so that k3's mean stays unbiased off policy
    bool kl_in_reward;                // taken from the reward instead of added to the loss
    double kl_target, kl_horizon;     // kl_controlled after each step; target 0: fixed
    int reference_every;              // steps after which the reference becomes the policy of then; 0: never
    double entropy;                   // bonus coefficient
    bool entropy_as_loss;             // averaged as the loss is; false: mean over tokens
    double entropy_target;            // adaptive coefficient; 0: fixed
    double entropy_step, entropy_low, entropy_high;
    double top_entropy;               // share of tokens with the highest entropy that keep their policy loss; 1: all
    double off_policy_threshold;      // sequences with A < 0 that moved further (mean old - logprob) are dropped; 0: none
    Correction correction;
    int minibatches, epochs;          // per rollout
    bool mask_truncated;              // samples cut off at max_tokens are left out of the loss
    double overlong_buffer, overlong_penalty; // DAPO's soft punishment in the last tokens before max_tokens; 0: none
    int refills;                      // dynamic sampling: rounds that replace groups without variance
    char *objective;                  // a Lua file that replaces the loss; NULL: none
} Algo;
// Algo with every hyperparameter at its neutral or usual value, no divergence, no entropy bonus, no mask.
Algo algo_default(void);
const char *loss_name(LossKind loss);
RatioLevel loss_ratio(const Algo *algo);    // RATIO_OF_LOSS resolved
Aggregate loss_aggregate(const Algo *algo); // AGGREGATE_OF_LOSS resolved
// The clip range that the loss's paper uses, for recipes that don't say.
void loss_epsilon(LossKind loss, double *low, double *high);

// ---- the objective over one minibatch: O(tokens) on the host, in double ------------------------------------
typedef struct ObjectiveInput {
    int sequences;
    const int32_t *length;          // [sequences]
    const double *logprob;          // [N] current; values under a zero mask are never looked at
    const double *frozen;           // [N] the current ones as stop-gradients see them; NULL: `logprob`
    const double *old_logprob;      // [N] of the policy before this rollout's updates; NULL: the current ones (on policy)
    const double *sampler_logprob;  // [N] of the sampler, for the off-policy mask; NULL: old_logprob
    const double *ref_logprob;      // [N] or NULL
    const double *entropy;          // [N] or NULL
    const uint8_t *mask;            // [N] or NULL: all
    const double *weight;           // [N] of correction_compute or NULL: all 1
    bool weight_of_sequence;        // all tokens of a sequence share theirs
    const uint8_t *chosen;          // [N] clip_cov, kl_cov: the tokens that step_survey chose
    double entropy_threshold;       // top_entropy: tokens below it have no policy loss (step_survey)
    const double *advantage;        // [sequences]
    const double *token_advantage;  // [N] or NULL; where given it replaces `advantage`
    double max_completion;          // AGGREGATE_CONSTANT
    // Denominators of the whole step, so that no microbatch split changes a gradient:
    double step_sequences;          // B
    double step_tokens;             // active tokens of the optimizer step
    double rollout_tokens;          // active tokens of the whole generation batch, times its share
    double entropy_tokens;          // of the entropy bonus; 0: step_tokens
} ObjectiveInput;
typedef struct ObjectiveOutput {
    double loss;
    double *dlogprob; // [N]
    double *dentropy; // [N] or NULL
    double kl_sum, clipped, tokens, ratio_max; // statistics: sums over active tokens
    double clipped_low, clipped_high;          // of `clipped`: with a ratio below 1, above 1
} ObjectiveOutput;
void objective_compute(const Algo *algo, const ObjectiveInput *in, ObjectiveOutput *out);

// What a loss has to know of all tokens of the step: the entropy threshold of top_entropy and the tokens that clip_cov and
// kl_cov choose. `in` holds the whole step; chosen [N] is written where the loss asks for it.
bool objective_surveys(const Algo *algo);
void step_survey(const Algo *algo, const ObjectiveInput *in, double *entropy_threshold, uint8_t *chosen);
// The share-th quantile, interpolated linearly; sorts `values`. NaN if empty.
double quantile_sorting(double *values, int64_t count, double share);
// Adaptive entropy (Skywork-OR1, arXiv 2505.22312, as TRL steps it): the coefficient after a step of this mean entropy.
double entropy_controlled(const Algo *algo, double coefficient, double entropy);

// ---- advantages (advantage.c) ------------------------------------------------------------------------------
typedef struct AdvantageInput {
    AdvantageKind kind;
    double eps;              // added to deviations
    double variance_floor;   // least variance of a group
    bool scale;              // gdpo, passk: divide by the deviation of the group
    bool whiten;             // rloo: afterwards over the batch
    bool lone_keeps_reward;  // a group of one keeps its reward (verl) instead of 0 (TRL)
    bool keep_residue;       // groups without variance keep the rounding residue of r - mean instead of exact zeros
    int count;
    const int *group;        // [count] 0, 1, ...
    int groups;
    const double *reward;    // [count]
    const bool *scorable;    // [count] or NULL: all. False: leaves its group's baseline, and gets 0
    const double *length;    // [count] opo: active tokens
    int parts;               // gdpo
    const double *part;      // [count][parts], NaN where a part doesn't apply
    const double *part_weight; // [parts] or NULL: 1
} AdvantageInput;
// One advantage a sequence. *has_variance [groups] may be NULL.
void advantage_compute(const AdvantageInput *in, double *advantage, bool *has_variance);
// Whitens token values over the active ones: (x - mean) / sqrt(max(var, floor) + eps); inactive ones become 0.
typedef struct Whitening {
    double eps, floor;
    double count_eps; // added to the counts that sums are divided by (verl: 1e-8)
    bool biased;      // n in the variance, not n - 1
    bool mean_only;   // no division
    bool everywhere;  // inactive tokens are moved and scaled too
} Whitening;
void whiten_tokens(int64_t count, const uint8_t *mask, const Whitening *w, double *values);
// Discounted returns from token rewards, per sequence; past inactive tokens the return passes unchanged.
void discounted_returns(int sequences, const int32_t *length, const uint8_t *mask, const double *reward, double gamma, double *returns);
// Generalized advantages from token rewards and a critic's values (arXiv 1506.02438); inactive tokens are passed over where
// `skip`, else they count with the values and rewards given. returns = advantage + value.
typedef struct Gae {
    double gamma, lambda;
    bool skip;
} Gae;
void generalized_advantages(const Gae *gae, int sequences, const int32_t *length, const uint8_t *mask, const double *reward,
                            const double *value, double *advantage, double *returns);
// The optimal token baseline: at each position of a group sum(G W) / sum(W), G the return from there on, W the sum of
// |score|^2 = 1 - 2 p + sum(p^2) so far, by `weight`^2 where given. `packed` counts positions over active tokens only.
typedef struct TokenBaseline {
    int sequences;
    const int32_t *length, *group; // [sequences]
    int groups;
    const uint8_t *mask;           // [N] or NULL
    const double *reward;          // [N]
    const double *logprob;         // [N] of the policy that sampled
    const double *square_sum;      // [N] sum of squared probabilities over the vocabulary
    const double *weight;          // [N] or NULL
    bool packed;
    bool zero_tail;                // no baseline where only the longest sequence of a group has tokens
    double eps;
} TokenBaseline;
void token_baseline_advantages(const TokenBaseline *in, double *advantage, double *returns);
// DAPO's soft punishment (arXiv 2503.14476): 0 up to limit - buffer, then linear down to -1 at the limit and beyond.
double overlong_punishment(double length, double limit, double buffer);

#endif
