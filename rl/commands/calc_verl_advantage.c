// verl's advantage estimators and its divergence in the reward, for `calc` (names: programs.c); SkyRL's maximum-likelihood
// estimator has the same form.
#include "calc_verl.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct VerlAdvantage {
    const char *estimator;
    double eps, gamma, lambda, f_norm;
    bool scale, zero_tail;
    const json_t *keys, *weights;
} VerlAdvantage;
#define AT(field) offsetof(VerlAdvantage, field)

static const CalcOption options[] = {
    {"estimator", CALC_TEXT, AT(estimator), NULL},
    {"adv_estimator", CALC_TEXT, AT(estimator), NULL},
    {"eps", CALC_NUMBER, AT(eps), NULL},
    {"epsilon", CALC_NUMBER, AT(eps), NULL},
    {"norm_adv_by_std_in_grpo", CALC_FLAG, AT(scale), NULL},
    {"lam", CALC_NUMBER, AT(lambda), NULL},
    {"f_norm", CALC_NUMBER, AT(f_norm), NULL},
    {"handle_zero_tail", CALC_FLAG, AT(zero_tail), NULL},
    {"gdpo_reward_keys", CALC_VALUE, AT(keys), NULL},
    {"gdpo_reward_weights", CALC_VALUE, AT(weights), NULL},
    {0},
};

// Rewards by token, the mask and the groups of a case.
typedef struct Rows {
    Ragged rewards;
    const uint8_t *mask;
    int *group, groups;
    double *score, *length; // [rows] sums of the rewards; active tokens
} Rows;

bool calc_groups(CalcCase *c, int rows, int **group, int *groups, Err *err) {
    const json_t *list = json_object_get(c->inputs, "group");
    *group = ARENA_NEW(&c->arena, int, rows + 1);
    *groups = 0;
    if (json_array_size(list) != (size_t)rows) return calc_malformed(c, "inputs.group", "an element a row", err);
    for (int i = 0; i < rows; i++) {
        int same = 0;
        while (same < i && !json_equal(json_array_get(list, (size_t)same), json_array_get(list, (size_t)i))) same++;
        (*group)[i] = same < i ? (*group)[same] : (*groups)++;
    }
    return true;
}

static bool read_rows(CalcCase *c, const char *key, Rows *out, Err *err) {
    uint8_t *mask;
    *out = (Rows){0};
    TRY(calc_ragged(c, key, NULL, &out->rewards, err));
    if (!out->rewards.values) return calc_malformed(c, "inputs.token_level_rewards", "a list of lists of numbers", err);
    TRY(calc_mask(c, "mask", &out->rewards, &mask, err) && calc_groups(c, out->rewards.rows, &out->group, &out->groups, err));
    out->mask = mask;
    out->score = ARENA_NEW(&c->arena, double, out->rewards.rows + 1);
    out->length = ARENA_NEW(&c->arena, double, out->rewards.rows + 1);
    int64_t t = 0;
    for (int i = 0; i < out->rewards.rows; i++)
        for (int32_t k = 0; k < out->rewards.length[i]; k++, t++)
            out->score[i] += out->rewards.values[t], out->length[i] += !mask || mask[t];
    return true;
}

static const Whitening verl_whitening = {.eps = 1e-8, .count_eps = 1e-8};

// One value a sequence over its active tokens.
static double *spread(CalcCase *c, const Rows *r, const double *value) {
    double *out = ARENA_NEW(&c->arena, double, r->rewards.count + 1);
    int64_t t = 0;
    for (int i = 0; i < r->rewards.rows; i++)
        for (int32_t k = 0; k < r->rewards.length[i]; k++, t++) out[t] = !r->mask || r->mask[t] ? value[i] : 0;
    return out;
}

static bool answer(const Rows *r, json_t *expected, const double *advantage, const double *returns) {
    json_object_set_new(expected, "advantages", calc_ragged_json(&r->rewards, advantage));
    if (returns) json_object_set_new(expected, "returns", calc_ragged_json(&r->rewards, returns));
    return true;
}

// ---- estimators with one value a sequence ------------------------------------------------------------------
static bool is_named(const VerlAdvantage *o, const char *estimator) { return !strcmp(o->estimator, estimator); }

static bool read_parts(CalcCase *c, const VerlAdvantage *o, int rows, AdvantageInput *in, Err *err) {
    const json_t *parts = json_object_get(c->inputs, "component_rewards");
    int n = (int)json_array_size(o->keys);
    double *part = ARENA_NEW(&c->arena, double, (int64_t)rows * n + 1), *weight = ARENA_NEW(&c->arena, double, n + 1);
    if (n == 0) return calc_malformed(c, "config.gdpo_reward_keys", "a list of names", err);
    for (int k = 0; k < n; k++) {
        const char *key = json_string_value(json_array_get(o->keys, (size_t)k));
        const json_t *values = key ? json_object_get(parts, key) : NULL, *w = json_array_get(o->weights, (size_t)k);
        if (json_array_size(values) != (size_t)rows) return calc_malformed(c, "inputs.component_rewards", "a value a row for each of gdpo_reward_keys", err);
        for (int i = 0; i < rows; i++) part[(int64_t)i * n + k] = json_number_value(json_array_get(values, (size_t)i));
        weight[k] = w ? json_number_value(w) : 1;
    }
    in->parts = n, in->part = part, in->part_weight = weight;
    return true;
}

// A lone member of pass@k is an error there.
static bool check_passk(CalcCase *c, const Rows *r) {
    for (int g = 0; g < r->groups; g++) {
        int members = 0;
        for (int i = 0; i < r->rewards.rows; i++) members += r->group[i] == g;
        if (members < 2) return calc_unsupported(c, "pass@k of a group of one, which verl refuses");
    }
    return true;
}

static bool outcome(CalcCase *c, const VerlAdvantage *o, AdvantageKind kind, json_t *expected, Err *err) {
    Rows r;
    TRY(read_rows(c, "token_level_rewards", &r, err));
    int rows = r.rewards.rows;
    AdvantageInput in = {.kind = kind, .eps = o->eps, .scale = o->scale, .lone_keeps_reward = !is_named(o, "rloo_vectorized"),
                         .count = rows, .group = r.group, .groups = r.groups, .reward = r.score, .length = r.length};
    if (is_named(o, "grpo_vectorized")) in.variance_floor = o->eps;
    if (in.kind == ADVANTAGE_GROUP && !o->scale) in.kind = ADVANTAGE_NONE;
    if (in.kind == ADVANTAGE_GDPO) TRY(read_parts(c, o, rows, &in, err));
    if (in.kind == ADVANTAGE_PASSK) TRY(check_passk(c, &r));
    double *advantage = ARENA_NEW(&c->arena, double, rows + 1);
    advantage_compute(&in, advantage, NULL);
    for (int i = 0; in.kind == ADVANTAGE_GPG && i < rows; i++) advantage[i] /= o->f_norm;
    double *tokens = spread(c, &r, advantage);
    if (kind == ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE || kind == ADVANTAGE_GDPO) whiten_tokens(r.rewards.count, r.mask, &verl_whitening, tokens);
    return answer(&r, expected, tokens, tokens);
}

// ---- estimators by token -----------------------------------------------------------------------------------
static bool reinforce_plus_plus(CalcCase *c, const VerlAdvantage *o, json_t *expected, Err *err) {
    Rows r;
    TRY(read_rows(c, "token_level_rewards", &r, err));
    int64_t n = r.rewards.count;
    double *returns = ARENA_NEW(&c->arena, double, n + 1), *advantage = ARENA_NEW(&c->arena, double, n + 1);
    discounted_returns(r.rewards.rows, r.rewards.length, r.mask, r.rewards.values, o->gamma, returns);
    memcpy(advantage, returns, (size_t)n * sizeof *returns);
    whiten_tokens(n, r.mask, &verl_whitening, advantage);
    return answer(&r, expected, advantage, returns);
}

static bool remax(CalcCase *c, const VerlAdvantage *o, json_t *expected, Err *err) {
    Rows r;
    int count;
    double *baseline;
    (void)o;
    TRY(read_rows(c, "token_level_rewards", &r, err) && calc_list(c, "reward_baselines", &count, &baseline, err));
    if (!baseline || count != r.rewards.rows) return calc_malformed(c, "inputs.reward_baselines", "a number a row", err);
    double *returns = ARENA_NEW(&c->arena, double, r.rewards.count + 1), *advantage = spread(c, &r, baseline);
    int64_t end = 0;
    for (int i = 0; i < r.rewards.rows; i++) {
        double running = 0;
        end += r.rewards.length[i];
        for (int64_t t = end - 1; t >= end - r.rewards.length[i]; t--) {
            if (!r.mask || r.mask[t]) running += r.rewards.values[t];
            returns[t] = running, advantage[t] = running - advantage[t];
        }
    }
    return answer(&r, expected, advantage, returns);
}

static bool gae(CalcCase *c, const VerlAdvantage *o, json_t *expected, Err *err) {
    Rows r;
    Ragged values;
    TRY(read_rows(c, "token_level_rewards", &r, err) && calc_ragged(c, "values", &r.rewards, &values, err));
    if (!values.values) return calc_malformed(c, "inputs.values", "a list of lists of numbers", err);
    double *returns = ARENA_NEW(&c->arena, double, r.rewards.count + 1), *advantage = ARENA_NEW(&c->arena, double, r.rewards.count + 1);
    generalized_advantages(&(Gae){o->gamma, o->lambda, true}, r.rewards.rows, r.rewards.length, r.mask, r.rewards.values, values.values,
                           advantage, returns);
    Whitening all = verl_whitening;
    all.everywhere = true;
    whiten_tokens(r.rewards.count, r.mask, &all, advantage);
    return answer(&r, expected, advantage, returns);
}

static bool token_baseline(CalcCase *c, const VerlAdvantage *o, json_t *expected, Err *err) {
    Rows r;
    Ragged logprob, squares, weight;
    TRY(read_rows(c, "token_level_rewards", &r, err) && calc_ragged(c, "old_log_probs", &r.rewards, &logprob, err) &&
        calc_ragged(c, "sum_pi_squared", &r.rewards, &squares, err) && calc_ragged(c, "rollout_is_weights", &r.rewards, &weight, err));
    if (!logprob.values || !squares.values) return calc_malformed(c, "inputs.old_log_probs", "lists of numbers, and sum_pi_squared", err);
    double *returns = ARENA_NEW(&c->arena, double, r.rewards.count + 1), *advantage = ARENA_NEW(&c->arena, double, r.rewards.count + 1);
    TokenBaseline in = {.sequences = r.rewards.rows, .length = r.rewards.length, .group = r.group, .groups = r.groups, .mask = r.mask,
                        .reward = r.rewards.values, .logprob = logprob.values, .square_sum = squares.values, .weight = weight.values,
                        .packed = !strcmp(o->estimator, "tir_optimal_token_baseline"), .zero_tail = o->zero_tail, .eps = o->eps};
    token_baseline_advantages(&in, advantage, returns);
    return answer(&r, expected, advantage, returns);
}

static const struct {
    const char *verl;
    bool (*function)(CalcCase *c, const VerlAdvantage *o, json_t *expected, Err *err);
    double eps;
    bool zero_tail;
} by_token[] = {{"reinforce_plus_plus", reinforce_plus_plus, 0, false},
                {"remax", remax, 0, false},
                {"gae", gae, 0, false},
                {"optimal_token_baseline", token_baseline, 1e-8, false},
                {"tir_optimal_token_baseline", token_baseline, 1e-8, true}};

bool verl_advantage(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"token_level_rewards", "mask", "group", "reward_baselines", "values", "old_log_probs", "sum_pi_squared",
                                        "rollout_is_weights", "component_rewards", NULL};
    VerlAdvantage o = {.estimator = "gae", .eps = NAN, .lambda = 1, .f_norm = 1, .scale = true};
    const json_t *name = json_object_get(c->config, "estimator");
    for (int i = 0; i < COUNT(by_token); i++)
        if (json_is_string(name) && !strcmp(json_string_value(name), by_token[i].verl)) o.zero_tail = by_token[i].zero_tail, o.eps = by_token[i].eps;
    static const char *const keys[] = {"gamma", NULL};
    Stage stage = {.algo = algo_default()};
    int kind;
    TRY(calc_program_options(c, "verl", keys, options, &o, &stage, err));
    TRY(calc_inputs_known(c, known));
    o.gamma = stage.algo.gamma;
    if (isnan(o.eps)) o.eps = 1e-6;
    for (int i = 0; i < COUNT(by_token); i++)
        if (is_named(&o, by_token[i].verl)) return by_token[i].function(c, &o, expected, err);
    if (calc_choice("verl", "algorithm.adv_estimator", "algo.advantage", o.estimator, &kind)) return outcome(c, &o, (AdvantageKind)kind, expected, err);
    return calc_unsupported(c, "estimator = \"%.60s\"", o.estimator);
}

bool skyrl_advantage(CalcCase *c, json_t *expected, Err *err) {
    VerlAdvantage o = {.estimator = "max_rl", .eps = 1e-6, .scale = true};
    Rows r;
    TRY(calc_options(c, options, &o, err));
    if (strcmp(o.estimator, "max_rl") != 0 && strcmp(o.estimator, "maxrl") != 0) return calc_unsupported(c, "estimator = \"%.60s\"", o.estimator);
    TRY(read_rows(c, "token_level_rewards", &r, err));
    double *advantage = ARENA_NEW(&c->arena, double, r.rewards.rows + 1);
    AdvantageInput in = {.kind = ADVANTAGE_MAXRL, .eps = o.eps, .lone_keeps_reward = true, .count = r.rewards.rows, .group = r.group,
                         .groups = r.groups, .reward = r.score};
    advantage_compute(&in, advantage, NULL);
    return answer(&r, expected, spread(c, &r, advantage), NULL);
}

// ---- the divergence ----------------------------------------------------------------------------------------
bool calc_kl_terms(CalcCase *c, const Kl *kl, const double *weight, int64_t count, const double *logprob, const double *ref, json_t *expected) {
    double *value = ARENA_NEW(&c->arena, double, count + 1), *gradient = ARENA_NEW(&c->arena, double, count + 1);
    for (int64_t t = 0; t < count; t++) {
        KlTerm term = kl_term(kl, logprob[t], logprob[t], ref[t]);
        value[t] = term.value, gradient[t] = term.dlogprob * (weight ? weight[t] : 1);
    }
    json_object_set_new(expected, "kl", calc_list_json((int)count, value));
    json_object_set_new(expected, "dsum_dlogprobs", calc_list_json((int)count, gradient));
    return true;
}

typedef struct VerlKl {
    const char *penalty;
    double coefficient, eps, initial, target, horizon, steps;
} VerlKl;
static const CalcOption kl_options[] = {
    {"kl_penalty", CALC_TEXT, offsetof(VerlKl, penalty), NULL},   {"kl_coef", CALC_NUMBER, offsetof(VerlKl, coefficient), NULL},
    {"eps", CALC_NUMBER, offsetof(VerlKl, eps), NULL},            {"init_kl_coef", CALC_NUMBER, offsetof(VerlKl, initial), NULL},
    {"target_kl", CALC_NUMBER, offsetof(VerlKl, target), NULL},   {"horizon", CALC_NUMBER, offsetof(VerlKl, horizon), NULL},
    {"n_steps", CALC_NUMBER, offsetof(VerlKl, steps), NULL},      {0},
};

static bool controller(CalcCase *c, const VerlKl *o, json_t *expected, Err *err) {
    int count;
    double *kl, coefficient = o->initial;
    TRY(calc_list(c, "kl", &count, &kl, err));
    if (!kl || isnan(o->target) || isnan(o->horizon) || isnan(o->steps))
        return calc_malformed(c, "inputs.kl", "numbers, and target_kl, horizon and n_steps in the config", err);
    for (int i = 0; i < count; i++) kl[i] = coefficient = kl_controlled(coefficient, kl[i], o->target, o->steps, o->horizon);
    json_object_set_new(expected, "kl_coef", calc_list_json(count, kl));
    return true;
}

static bool in_reward(CalcCase *c, const VerlKl *o, const Kl *kl, json_t *expected, Err *err) {
    Rows r;
    Ragged old, ref;
    TRY(read_rows(c, "token_level_scores", &r, err) && calc_ragged(c, "old_logprobs", &r.rewards, &old, err) &&
        calc_ragged(c, "ref_logprobs", &r.rewards, &ref, err));
    if (!old.values || !ref.values) return calc_malformed(c, "inputs.old_logprobs", "lists of numbers, and ref_logprobs", err);
    int rows = r.rewards.rows;
    double mean = 0, *advantage = ARENA_NEW(&c->arena, double, rows + 1);
    int64_t t = 0;
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int32_t k = 0; k < r.rewards.length[i]; k++, t++) {
            if (r.mask && !r.mask[t]) continue;
            double value = kl_term(kl, old.values[t], old.values[t], ref.values[t]).value;
            sum += value, r.score[i] -= o->coefficient * value, r.rewards.values[t] -= o->coefficient * value;
        }
        mean += sum / (r.length[i] + 1e-8) / rows;
    }
    json_object_set_new(expected, "token_level_rewards", calc_ragged_json(&r.rewards, r.rewards.values));
    json_object_set_new(expected, "mean_kl", json_number_or_name(mean));
    AdvantageInput in = {.kind = ADVANTAGE_GROUP, .eps = isnan(o->eps) ? 1e-6 : o->eps, .scale = true, .lone_keeps_reward = true, .count = rows,
                         .group = r.group, .groups = r.groups, .reward = r.score};
    advantage_compute(&in, advantage, NULL);
    json_object_set_new(expected, "grpo_advantages", calc_ragged_json(&r.rewards, spread(c, &r, advantage)));
    in.kind = ADVANTAGE_RLOO;
    advantage_compute(&in, advantage, NULL);
    json_object_set_new(expected, "rloo_advantages", calc_ragged_json(&r.rewards, spread(c, &r, advantage)));
    return true;
}

bool verl_kl(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "ref_logprobs", "old_logprobs", "token_level_scores", "mask", "group", "kl", NULL};
    VerlKl o = {.penalty = "kl", .eps = NAN, .initial = NAN, .target = NAN, .horizon = NAN, .steps = NAN};
    Kl kl;
    int count, ref_count;
    double *logprob, *ref;
    TRY(calc_options(c, kl_options, &o, err));
    TRY(calc_inputs_known(c, known));
    if (!isnan(o.initial)) return controller(c, &o, expected, err);
    TRY(verl_kl_form(c, o.penalty, &kl));
    if (json_object_get(c->inputs, "token_level_scores")) return in_reward(c, &o, &kl, expected, err);
    TRY(calc_list(c, "logprobs", &count, &logprob, err) && calc_list(c, "ref_logprobs", &ref_count, &ref, err));
    if (!logprob || !ref || count != ref_count) return calc_malformed(c, "inputs.ref_logprobs", "as many numbers as logprobs has", err);
    return calc_kl_terms(c, &kl, NULL, count, logprob, ref, expected);
}
