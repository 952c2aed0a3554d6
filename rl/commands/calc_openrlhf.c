// OpenRLHF's and prime-rl's policy losses, advantages and divergences, for `calc`. Options that a recipe has a key for are read by the
// rows of programs.c.
#include "calc.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

// ---- OpenRLHF: the policy loss -----------------------------------------------------------------------------
typedef struct OpenLoss {
    const char *gating;
    double bounds[2], tokens, sequences, dp_size;
    bool token_level;
    Stage stage; // what the recipe's keys say
} OpenLoss;
#define AT(field) offsetof(OpenLoss, field)
static const char *const open_loss_keys[] = {"loss", "epsilon_low", "epsilon_high", "dual_clip", "aggregate", "correction.level", "correction.mode", NULL};
static const CalcOption open_loss[] = {
    {"token_level_loss", CALC_FLAG, AT(token_level), NULL},
    {"is_correction_gating", CALC_TEXT, AT(gating), NULL},
    {"is_correction_threshold", CALC_RANGE, AT(bounds), NULL},
    {"batch_num_tokens", CALC_NUMBER, AT(tokens), NULL},
    {"global_batch_size", CALC_NUMBER, AT(sequences), NULL},
    {"dp_size", CALC_COUNT, AT(dp_size), NULL},
    {0},
};

static bool open_correction(CalcCase *c, const OpenLoss *o, Correction *out) {
    const Correction *asked = &o->stage.algo.correction;
    *out = (Correction){.level = CORRECTION_TOKEN, .mode = CORRECTION_MASK, .high = INFINITY};
    bool token = asked->level == CORRECTION_TOKEN, clip = asked->mode == CORRECTION_TRUNCATE, ratio = !strcmp(o->gating, "ratio");
    if (clip && (!token || !ratio)) return calc_unsupported(c, "is_correction_mode = \"clip\" beside %s", token ? "another gating than ratio" : "level seq");
    if (token && ratio) {
        out->mode = asked->mode, out->low = o->bounds[0], out->high = o->bounds[1];
        return true;
    }
    Rejection gate = {.pool = token ? POOL_TOKEN : POOL_MEAN, .low = o->bounds[0], .high = o->bounds[1]};
    if (ratio) { // the geometric mean of the ratios: k1 has the other sign
        gate.statistic = STATISTIC_K1;
        gate.low = -exact_log(o->bounds[1]), gate.high = o->bounds[0] > 0 ? -exact_log(o->bounds[0]) : INFINITY;
    } else if (!strcmp(o->gating, "binary_kl")) gate.statistic = STATISTIC_BINARY_KL;
    else if (!strcmp(o->gating, "tv")) gate.statistic = STATISTIC_TV;
    else return calc_unsupported(c, "is_correction_gating = \"%.60s\"", o->gating);
    out->rejections[out->rejection_count++] = gate;
    return true;
}

static bool open_algo(CalcCase *c, const OpenLoss *o, const LossInputs *in, Algo *a, ObjectiveInput *step) {
    *a = o->stage.algo;
    a->correction = algo_default().correction;
    if (a->loss == LOSS_GPG) return calc_unsupported(c, "policy_loss_type = \"reinforce\"");
    bool gspo = a->loss == LOSS_GSPO, by_token = a->aggregate == AGGREGATE_OF_LOSS ? o->token_level : a->aggregate == AGGREGATE_STEP_TOKENS;
    a->log_ratio_bound = gspo ? 0 : 20;
    a->aggregate = by_token && !gspo ? AGGREGATE_STEP_TOKENS : AGGREGATE_SEQUENCE_MEAN, a->length_eps = 1e-8;
    step->step_tokens = isnan(o->tokens) ? in->active : o->tokens;
    step->step_sequences = isnan(o->sequences) ? in->nonempty : o->sequences;
    return true;
}

bool openrlhf_objective(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages", "mask", "entropies", NULL};
    OpenLoss o = {.gating = "ratio", .bounds = {0.5, 5}, .token_level = true, .tokens = NAN, .sequences = NAN, .dp_size = 1,
                  .stage = {.algo = algo_default()}};
    o.stage.algo.correction.mode = CORRECTION_MASK;
    LossInputs in;
    Algo algo;
    TRY(calc_program_options(c, "openrlhf", open_loss_keys, open_loss, &o, &o.stage, err));
    TRY(calc_inputs_known(c, known));
    TRY(calc_loss_inputs(c, &in, err));
    ObjectiveInput step = calc_objective_input(&in);
    TRY(open_algo(c, &o, &in, &algo, &step));
    bool corrects = o.stage.algo.correction.level != CORRECTION_OFF;
    if (corrects && (!in.sampler || !in.old)) return calc_malformed(c, "inputs.sampler_logprobs", "numbers, and old_logprobs", err);
    if (corrects && algo.loss == LOSS_GSPO) step.old_logprob = in.sampler; // the ratio itself is taken to the sampler
    else if (corrects) {
        Correction k;
        double *weight = ARENA_NEW(&c->arena, double, in.shape.count + 1);
        uint8_t *keep = ARENA_NEW(&c->arena, uint8_t, in.shape.count + 1);
        TRY(open_correction(c, &o, &k));
        correction_compute(&k, in.shape.rows, in.shape.length, in.old, in.sampler, in.mask, weight, keep);
        for (int64_t t = 0; t < in.shape.count; t++) weight[t] *= keep[t]; // the denominators stay
        step.weight = weight;
    }
    ObjectiveOutput out = calc_objective_output(c, &in);
    TRY(calc_add_objective(c, &algo, &step, &in, o.dp_size, &out, err));
    json_object_set_new(expected, "loss", json_number_or_name(out.loss));
    json_object_set_new(expected, "dloss_dlogprobs", calc_ragged_json(&in.shape, out.dlogprob));
    return true;
}
#undef AT

// ---- OpenRLHF: advantages ----------------------------------------------------------------------------------
typedef struct OpenAdvantage {
    const char *estimator;
    double eps, gamma, lambda, kl, clip[2], group_size, buffer, limit, factor, stop_penalty;
    bool no_std_norm;
} OpenAdvantage;
#define AT(field) offsetof(OpenAdvantage, field)
static const CalcOption open_advantage[] = {
    {"estimator", CALC_TEXT, AT(estimator), NULL},
    {"eps", CALC_NUMBER, AT(eps), NULL},
    {"lambd", CALC_NUMBER, AT(lambda), NULL},
    {"kl_coef", CALC_NUMBER, AT(kl), NULL},
    {"no_std_norm", CALC_FLAG, AT(no_std_norm), NULL},
    {"clip_range", CALC_RANGE, AT(clip), NULL},
    {"G", CALC_COUNT, AT(group_size), NULL},
    {"overlong_buffer_len", CALC_NUMBER, AT(buffer), NULL},
    {"max_new_tokens", CALC_NUMBER, AT(limit), NULL},
    {"overlong_penalty_factor", CALC_NUMBER, AT(factor), NULL},
    {"stop_properly_penalty_coef", CALC_NUMBER, AT(stop_penalty), NULL},
    {0},
};

typedef struct OpenRows {
    int rows;
    double *reward;
    Ragged mask; // its shape
    const uint8_t *active;
} OpenRows;

static bool open_rows(CalcCase *c, OpenRows *out, Err *err) {
    int count;
    uint8_t *mask;
    TRY(calc_ragged(c, "mask", NULL, &out->mask, err));
    if (!out->mask.values) return calc_malformed(c, "inputs.mask", "a list of lists of 0 and 1", err);
    TRY(calc_mask(c, "mask", &out->mask, &mask, err) && calc_list(c, "rewards", &count, &out->reward, err));
    if (!out->reward || count != out->mask.rows) return calc_malformed(c, "inputs.rewards", "a number a row of the mask", err);
    out->rows = count, out->active = mask;
    return true;
}
static double active_tokens(const OpenRows *r, int row) {
    int64_t t = 0;
    double n = 0;
    for (int i = 0; i < row; i++) t += r->mask.length[i];
    for (int32_t k = 0; k < r->mask.length[row]; k++) n += r->active[t + k];
    return n;
}

// DAPO's overlong punishment, never below -factor; the stop penalty scales (>= 0) or replaces (< 0) a truncated sample's
// reward.
static bool shape_rewards(CalcCase *c, const OpenAdvantage *o, OpenRows *r, json_t *expected, Err *err) {
    const json_t *truncated = json_object_get(c->inputs, "truncated");
    if (isnan(o->buffer) && isnan(o->stop_penalty)) return true;
    if (!isnan(o->stop_penalty) && json_array_size(truncated) != (size_t)r->rows)
        return calc_malformed(c, "inputs.truncated", "true or false a row", err);
    for (int i = 0; i < r->rows; i++) {
        if (!isnan(o->buffer)) r->reward[i] += overlong_punishment(active_tokens(r, i), o->limit, o->buffer) * o->factor;
        const json_t *cut = json_array_get(truncated, (size_t)i);
        bool is_cut = json_is_true(cut) || json_integer_value(cut) != 0;
        if (!isnan(o->stop_penalty) && is_cut) r->reward[i] = o->stop_penalty >= 0 ? r->reward[i] * o->stop_penalty : o->stop_penalty;
    }
    json_object_set_new(expected, "shaped_rewards", calc_list_json(r->rows, r->reward));
    return true;
}

// A row's reward lands on its last active token, minus the divergence of every token, masked or not.
static void token_rewards(const OpenRows *r, const double *reward, const double clip[2], double coefficient, const double *kl, double *out) {
    int64_t t = 0;
    for (int i = 0; i < r->rows; i++) {
        int64_t last = t + r->mask.length[i] - 1, landing = last;
        for (int64_t k = t; k <= last; k++)
            if (r->active[k]) landing = k;
        for (int64_t k = t; k <= last; k++) out[k] = kl && coefficient > 0 ? -coefficient * kl[k] : 0;
        double value = isnan(clip[0]) ? reward[i] : fmax(clip[0], fmin(clip[1], reward[i]));
        if (landing >= t) out[landing] += value;
        t = last + 1;
    }
}

static bool open_returns(CalcCase *c, const OpenAdvantage *o, const OpenRows *r, const double *token_reward, double *advantage, double *returns, Err *err) {
    int64_t n = r->mask.count;
    double *masked = ARENA_NEW(&c->arena, double, n + 1), *value = ARENA_NEW(&c->arena, double, n + 1);
    bool gae = !strcmp(o->estimator, "gae");
    Ragged values;
    TRY(calc_ragged(c, "values", &r->mask, &values, err));
    if (gae && !values.values) return calc_malformed(c, "inputs.values", "a list of lists of numbers", err);
    for (int64_t t = 0; t < n; t++) masked[t] = r->active[t] ? token_reward[t] : 0, value[t] = gae && r->active[t] ? values.values[t] : 0;
    // Without a critic this is the discounted return, which masked tokens discount too.
    bool discounts = gae || !strcmp(o->estimator, "reinforce");
    Gae form = {.gamma = discounts ? o->gamma : 1, .lambda = gae ? o->lambda : 1};
    generalized_advantages(&form, r->rows, r->mask.length, r->active, masked, value, advantage, returns);
    return true;
}

bool openrlhf_advantage(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"rewards", "mask", "kl", "values", "truncated", NULL};
    OpenAdvantage o = {.estimator = "gae", .eps = NAN, .lambda = 1, .clip = {NAN, NAN}, .group_size = 1, .buffer = NAN, .limit = NAN,
                       .factor = 1, .stop_penalty = NAN};
    OpenRows r;
    Ragged kl;
    static const char *const keys[] = {"gamma", NULL};
    Stage stage = {.algo = algo_default()};
    int kind = ADVANTAGE_REINFORCE_PLUS_PLUS; // of gae, which a critic's values make
    TRY(calc_program_options(c, "openrlhf", keys, open_advantage, &o, &stage, err));
    TRY(calc_inputs_known(c, known));
    o.gamma = stage.algo.gamma;
    if (strcmp(o.estimator, "gae") != 0 && !calc_choice("openrlhf", "algo.advantage.estimator", "algo.advantage", o.estimator, &kind))
        return calc_unsupported(c, "estimator = \"%.60s\"", o.estimator);
    bool normalized = kind == ADVANTAGE_REINFORCE_PLUS_PLUS || kind == ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE; // over the batch's tokens afterwards
    TRY(open_rows(c, &r, err) && calc_ragged(c, "kl", &r.mask, &kl, err));
    if (r.rows % (int)o.group_size) return calc_malformed(c, "config.G", "a divisor of the rows", err);
    TRY(shape_rewards(c, &o, &r, expected, err));
    int *group = ARENA_NEW(&c->arena, int, r.rows + 1);
    for (int i = 0; i < r.rows; i++) group[i] = i / (int)o.group_size;
    double *centred = ARENA_NEW(&c->arena, double, r.rows + 1);
    AdvantageInput in = {.kind = (AdvantageKind)kind, .eps = isnan(o.eps) ? 1e-9 : o.eps, .count = r.rows, .group = group,
                         .groups = r.rows / (int)o.group_size, .reward = r.reward};
    advantage_compute(&in, centred, NULL);
    int64_t n = r.mask.count;
    double *reward = ARENA_NEW(&c->arena, double, n + 1), *advantage = ARENA_NEW(&c->arena, double, n + 1), *returns = ARENA_NEW(&c->arena, double, n + 1);
    token_rewards(&r, centred, o.clip, o.kl, kl.values, reward);
    TRY(open_returns(c, &o, &r, reward, advantage, returns, err));
    Whitening w = {.floor = 1e-8, .biased = true, .mean_only = o.no_std_norm, .everywhere = true};
    if (normalized) whiten_tokens(n, r.active, &w, advantage);
    json_object_set_new(expected, "advantages", calc_ragged_json(&r.mask, advantage));
    json_object_set_new(expected, "returns", calc_ragged_json(&r.mask, returns));
    return true;
}
#undef AT

// ---- OpenRLHF: the divergence ------------------------------------------------------------------------------
typedef struct OpenKl {
    const char *estimator;
    double weight_clip, coefficient, clip[2];
    bool unbiased;
} OpenKl;
static const CalcOption open_kl[] = {
    {"kl_estimator", CALC_TEXT, offsetof(OpenKl, estimator), NULL}, {"unbiased_gradient", CALC_FLAG, offsetof(OpenKl, unbiased), NULL},
    {"is_weight_clip", CALC_NUMBER, offsetof(OpenKl, weight_clip), NULL}, {"kl_coef", CALC_NUMBER, offsetof(OpenKl, coefficient), NULL},
    {"reward_clip_range", CALC_RANGE, offsetof(OpenKl, clip), NULL},      {0},
};

static bool open_reward(CalcCase *c, const OpenKl *o, json_t *expected, Err *err) {
    OpenRows r;
    Ragged kl;
    TRY(open_rows(c, &r, err) && calc_ragged(c, "kl", &r.mask, &kl, err));
    double *reward = ARENA_NEW(&c->arena, double, r.mask.count + 1);
    token_rewards(&r, r.reward, o->clip, o->coefficient, kl.values, reward);
    json_object_set_new(expected, "token_rewards", calc_ragged_json(&r.mask, reward));
    return true;
}

bool openrlhf_kl(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "ref_logprobs", "old_logprobs", "rewards", "kl", "mask", NULL};
    OpenKl o = {.estimator = "k1", .weight_clip = 10, .clip = {NAN, NAN}};
    int count, ref_count, old_count, plain;
    double *logprob, *ref, *old, *weight = NULL;
    TRY(calc_options(c, open_kl, &o, err));
    TRY(calc_inputs_known(c, known));
    if (json_object_get(c->inputs, "rewards")) return open_reward(c, &o, expected, err);
    if (!calc_choice("openrlhf", "algo.kl.estimator", "algo.kl_estimator", o.estimator, &plain)) return calc_unsupported(c, "kl_estimator = \"%.60s\"", o.estimator);
    TRY(calc_list(c, "logprobs", &count, &logprob, err) && calc_list(c, "ref_logprobs", &ref_count, &ref, err) &&
        calc_list(c, "old_logprobs", &old_count, &old, err));
    if (!logprob || !ref || count != ref_count || (old && old_count != count))
        return calc_malformed(c, "inputs.ref_logprobs", "as many numbers as logprobs has", err);
    if (o.unbiased && old) {
        weight = ARENA_NEW(&c->arena, double, count + 1);
        for (int t = 0; t < count; t++) weight[t] = fmin(exact_exp(logprob[t] - old[t]), o.weight_clip);
    }
    Kl kl = {.estimator = (KlEstimator)(o.unbiased ? plain + KL_K3_PLUS : plain), .value_bound = 10}; // the four with k2's gradient follow the plain ones
    return calc_kl_terms(c, &kl, weight, count, logprob, ref, expected);
}

// ---- prime-rl ----------------------------------------------------------------------------------------------
static const char *const prime_keys[] = {"loss", "epsilon_low", "prime_advantage", "prime_drift", NULL};
typedef struct PrimeLoss {
    double high, threshold; // of the two losses, the same key here
} PrimeLoss;
static const CalcOption prime_loss[] = {
    {"dppo_mask_high", CALC_NUMBER, offsetof(PrimeLoss, high), NULL}, {"ipo_threshold", CALC_NUMBER, offsetof(PrimeLoss, threshold), NULL}, {0}};

bool prime_objective(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages", "mask", "entropies", "rl_scale",
                                        "rl_weights", NULL};
    PrimeLoss o = {.high = 0.2, .threshold = 0.1};
    Stage stage = {.algo = algo_default()};
    Algo algo;
    LossInputs in;
    Ragged weights;
    stage.algo.loss = LOSS_PRIME;
    TRY(calc_program_options(c, "prime", prime_keys, prime_loss, &o, &stage, err));
    algo = stage.algo;
    TRY(calc_inputs_known(c, known));
    TRY(calc_loss_inputs(c, &in, err));
    TRY(calc_ragged(c, "rl_weights", &in.shape, &weights, err));
    const json_t *scale = json_object_get(c->inputs, "rl_scale");
    if (!in.sampler) return calc_malformed(c, "inputs.sampler_logprobs", "a list of lists of numbers", err);
    algo.epsilon_high = algo.loss == LOSS_PRIME_IPO ? o.threshold : o.high;
    ObjectiveInput step = calc_objective_input(&in);
    step.old_logprob = in.sampler;
    step.rollout_tokens = json_is_number(scale) ? json_number_value(scale) : in.active;
    step.weight = weights.values;
    if (weights.values) { // a weight of 0 takes the token out
        uint8_t *mask = ARENA_NEW(&c->arena, uint8_t, in.shape.count + 1);
        for (int64_t t = 0; t < in.shape.count; t++) mask[t] = (!in.mask || in.mask[t]) && weights.values[t] != 0;
        step.mask = mask;
    }
    ObjectiveOutput out = calc_objective_output(c, &in);
    TRY(calc_add_objective(c, &algo, &step, &in, 1, &out, err));
    json_object_set_new(expected, "loss", json_number_or_name(out.loss));
    json_object_set_new(expected, "dloss_dlogprobs", calc_ragged_json(&in.shape, out.dlogprob));
    return true;
}

typedef struct PrimeAdvantage {
    const char *estimator;
    const json_t *length_penalty;
} PrimeAdvantage;
static const CalcOption prime_options[] = {
    {"estimator", CALC_TEXT, offsetof(PrimeAdvantage, estimator), NULL},
    {"type", CALC_TEXT, offsetof(PrimeAdvantage, estimator), NULL},
    {"length_penalty", CALC_VALUE, offsetof(PrimeAdvantage, length_penalty), NULL},
    {"eps", CALC_NEUTRAL, 0, "0.0"},
    {0},
};

// Rewards less the group's mean reward times shares of the longest output, input and turns.
static bool penalize_length(CalcCase *c, const json_t *penalty, int count, double *reward, Err *err) {
    static const struct {
        const char *name, *long_name;
    } parts[] = {{"output", "num_output_tokens_weight"}, {"input", "num_input_tokens_weight"}, {"turns", "num_turns_weight"}};
    static const char *const keys[] = {"output_tokens", "total_tokens", "turns"};
    double *list[3], mean = 0;
    for (int k = 0; k < 3; k++) {
        int n;
        TRY(calc_list(c, keys[k], &n, &list[k], err));
        if (!list[k] || n != count) return calc_malformed(c, "inputs.output_tokens", "a number a reward, and total_tokens and turns", err);
    }
    for (int i = 0; i < count; i++) list[1][i] -= list[0][i], mean += reward[i] / count;
    for (int k = 0; k < 3; k++) {
        const json_t *w = json_object_get(penalty, parts[k].name);
        if (!w) w = json_object_get(penalty, parts[k].long_name);
        double most = 1;
        for (int i = 0; i < count; i++) most = fmax(most, list[k][i]);
        for (int i = 0; i < count; i++) reward[i] -= mean * json_number_value(w) * (list[k][i] / most);
    }
    return true;
}

bool prime_advantage(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"rewards", "output_tokens", "total_tokens", "turns", NULL};
    PrimeAdvantage o = {.estimator = "grpo_mean_only"};
    int count;
    double *reward;
    TRY(calc_options(c, prime_options, &o, err));
    TRY(calc_inputs_known(c, known));
    TRY(calc_list(c, "rewards", &count, &reward, err));
    if (!reward) return calc_malformed(c, "inputs.rewards", "a list of numbers", err);
    int kind;
    const char *named = strncmp(o.estimator, "grpo_", 5) ? o.estimator : "grpo"; // "grpo_mean_only" says what it is
    if (!calc_choice("prime", "algo.type", "algo.advantage", named, &kind)) return calc_unsupported(c, "estimator = \"%.60s\"", o.estimator);
    if (o.length_penalty && !json_is_null(o.length_penalty)) {
        if (kind == ADVANTAGE_MAXRL) return calc_unsupported(c, "length_penalty beside max_rl");
        TRY(penalize_length(c, o.length_penalty, count, reward, err));
    }
    double *advantage = ARENA_NEW(&c->arena, double, count + 1);
    int *group = ARENA_NEW(&c->arena, int, count + 1);
    AdvantageInput in = {.kind = (AdvantageKind)kind, .count = count, .group = group, .groups = 1, .reward = reward};
    advantage_compute(&in, advantage, NULL);
    json_object_set_new(expected, "advantages", calc_list_json(count, advantage));
    return true;
}
