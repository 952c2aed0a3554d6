// TRL's losses and advantages (GRPOConfig and RLOOConfig of TRL 1.x), for `calc`. Options that a recipe has a key for are read by the
// rows of programs.c; here stands what is a case's alone.
#include "calc.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct TrlLoss {
    const char *mode, *is_mode;
    double entropy_target, is_min, is_max;
    double max_completion_length, gradient_accumulation_steps, steps_per_generation, processes;
    bool adaptive_entropy, use_vllm, is_correction;
} TrlLoss;
#define AT(field) offsetof(TrlLoss, field)

static const char *const loss_keys[] = {
    "loss", "ratio", "epsilon_low", "epsilon_high", "delta", "kl", "kl_times_ratio", "entropy", "entropy_low", "entropy_high", "entropy_step", "top_entropy",
    "off_policy_threshold", "sapo_positive", "sapo_negative", "vespo_k_positive", "vespo_lambda_positive", "vespo_k_negative", "vespo_lambda_negative", NULL};
static const CalcOption loss_options[] = {
    {"mode", CALC_TEXT, AT(mode), NULL},
    {"use_adaptive_entropy", CALC_FLAG, AT(adaptive_entropy), NULL},
    {"entropy_target", CALC_NUMBER, AT(entropy_target), NULL},
    {"max_completion_length", CALC_COUNT, AT(max_completion_length), NULL},
    {"gradient_accumulation_steps", CALC_COUNT, AT(gradient_accumulation_steps), NULL},
    {"steps_per_generation", CALC_COUNT, AT(steps_per_generation), NULL},
    {"num_processes", CALC_COUNT, AT(processes), NULL},
    {"use_vllm", CALC_FLAG, AT(use_vllm), NULL},
    {"vllm_importance_sampling_correction", CALC_FLAG, AT(is_correction), NULL},
    {"vllm_importance_sampling_mode", CALC_TEXT, AT(is_mode), NULL},
    {"vllm_importance_sampling_clip_min", CALC_NUMBER, AT(is_min), NULL},
    {"vllm_importance_sampling_clip_max", CALC_NUMBER, AT(is_max), NULL},
    {"vllm_importance_sampling_cap", CALC_NUMBER, AT(is_max), NULL}, // the older name
    {0},
};

static const struct {
    const char *trl;
    CorrectionLevel level;
    CorrectionMode mode;
} is_modes[] = {{"token_truncate", CORRECTION_TOKEN, CORRECTION_TRUNCATE}, {"token_mask", CORRECTION_TOKEN, CORRECTION_MASK},
                {"sequence_truncate", CORRECTION_SEQUENCE, CORRECTION_TRUNCATE}, {"sequence_mask", CORRECTION_SEQUENCE, CORRECTION_MASK}};

static bool set_correction(CalcCase *c, const TrlLoss *o, Algo *algo) {
    int mode = 0;
    if (!o->use_vllm || !o->is_correction) return true;
    while (mode < COUNT(is_modes) && strcmp(is_modes[mode].trl, o->is_mode) != 0) mode++;
    if (mode == COUNT(is_modes)) return calc_unsupported(c, "vllm_importance_sampling_mode = \"%.60s\"", o->is_mode);
    algo->correction = (Correction){.level = is_modes[mode].level, .mode = is_modes[mode].mode, .low = isnan(o->is_min) ? 0 : o->is_min,
                                    .high = isnan(o->is_max) ? INFINITY : o->is_max};
    return true;
}

static bool is_given(const CalcCase *c, const char *option) {
    const json_t *value = json_object_get(c->config, option);
    return value && !json_is_null(value);
}
static bool trl_algo(CalcCase *c, TrlLoss *o, Algo *algo, Err *err) {
    Stage stage = {.algo = algo_default()};
    stage.algo.ratio = RATIO_TOKEN, stage.algo.kl_times_ratio = true;
    stage.algo.epsilon_low = stage.algo.epsilon_high = stage.algo.delta = stage.algo.off_policy_threshold = NAN;
    *o = (TrlLoss){.mode = "train", .is_mode = "sequence_mask", .entropy_target = 0.2, .is_min = NAN, .is_max = NAN, .is_correction = true,
                   .max_completion_length = NAN, .gradient_accumulation_steps = 1, .steps_per_generation = 1, .processes = 1};
    TRY(calc_program_options(c, "trl", loss_keys, loss_options, o, &stage, err));
    *algo = stage.algo;
    if (!is_given(c, "loss_type")) return calc_malformed(c, "config.loss_type", "it to be given", err);
    if (strcmp(o->mode, "train") != 0 && strcmp(o->mode, "eval") != 0) return calc_unsupported(c, "mode = \"%.60s\"", o->mode);
    if (isnan(algo->epsilon_low)) return calc_malformed(c, "config.epsilon", "a number", err);
    if (algo->delta <= 0) return calc_unsupported(c, "delta = %g", algo->delta);
    if (algo->off_policy_threshold < 0) return calc_unsupported(c, "off_policy_mask_threshold = %g", algo->off_policy_threshold);
    if (algo->loss == LOSS_GMPO) algo->ratio = RATIO_GEOMETRIC;
    if (isnan(algo->epsilon_high)) algo->epsilon_high = algo->epsilon_low;
    if (isnan(algo->delta)) algo->delta = 0;
    algo->off_policy_threshold = isnan(algo->off_policy_threshold) ? 0 : fmax(algo->off_policy_threshold, 1e-300);
    // The experimental trainers add the plain estimator.
    bool experimental = c->source && (strstr(c->source, "gmpo") || strstr(c->source, "gspo_token"));
    algo->kl_times_ratio = algo->kl_times_ratio && !experimental;
    TRY(set_correction(c, o, algo));
    if (algo->loss == LOSS_DR_GRPO && isnan(o->max_completion_length))
        return calc_malformed(c, "config.max_completion_length", "an integer of at least 1", err);
    if (!strcmp(o->mode, "eval")) o->gradient_accumulation_steps = o->steps_per_generation = 1;
    return true;
}

static double entropy_tokens(const LossInputs *in, const ObjectiveInput *step) {
    double n = 0;
    for (int64_t t = 0; t < in->shape.count; t++) n += (!in->mask || in->mask[t]) && in->entropy[t] >= step->entropy_threshold;
    return n;
}

// An adaptive coefficient is applied where the entropy of the step before was at most its target.
static bool gate_entropy(CalcCase *c, const TrlLoss *o, Algo *algo, Err *err) {
    if (!o->adaptive_entropy) return true;
    const json_t *last = json_object_get(json_object_get(c->inputs, "state"), "last_world_entropy");
    const json_t *coefficient = json_object_get(json_object_get(c->inputs, "state"), "entropy_coef");
    bool infinite = !last || (json_is_string(last) && !strcmp(json_string_value(last), "inf"));
    if (!infinite && !json_is_number(last)) return calc_malformed(c, "inputs.state.last_world_entropy", "a number or \"inf\"", err);
    if (json_is_number(coefficient)) algo->entropy = json_number_value(coefficient);
    if (infinite || json_number_value(last) > o->entropy_target) algo->entropy = 0;
    return true;
}

static json_t *entropy_mask_json(CalcCase *c, const LossInputs *in, double threshold) {
    double *kept = ARENA_NEW(&c->arena, double, in->shape.count + 1);
    for (int64_t t = 0; t < in->shape.count; t++) kept[t] = (!in->mask || in->mask[t]) && in->entropy[t] >= threshold;
    json_t *rows = json_array();
    for (int64_t s = 0, t = 0; s < in->shape.rows; s++) {
        json_t *row = json_array();
        for (int32_t i = 0; i < in->shape.length[s]; i++, t++) json_array_append_new(row, json_integer(kept[t] != 0));
        json_array_append_new(rows, row);
    }
    return rows;
}

static bool correct(CalcCase *c, const Algo *algo, const LossInputs *in, ObjectiveInput *step, json_t *expected, Err *err) {
    int64_t n = in->shape.count;
    const Correction *k = &algo->correction;
    if (k->level == CORRECTION_OFF) return true;
    if (!in->sampler || !in->old) return calc_malformed(c, "inputs.sampler_logprobs", "numbers, and old_logprobs", err);
    if (k->mode == CORRECTION_TRUNCATE && k->low == 0 && isinf(k->high))
        return calc_unsupported(c, "truncation without a bound, which TRL refuses");
    double *weight = ARENA_NEW(&c->arena, double, n + 1);
    correction_compute(k, in->shape.rows, in->shape.length, in->old, in->sampler, in->mask, weight, ARENA_NEW(&c->arena, uint8_t, n + 1));
    step->weight = weight, step->weight_of_sequence = k->level == CORRECTION_SEQUENCE;
    json_t *rows = step->weight_of_sequence ? json_array() : calc_ragged_json(&in->shape, weight);
    for (int64_t s = 0, t = 0; step->weight_of_sequence && s < in->shape.rows; t += in->shape.length[s++])
        json_array_append_new(rows, json_pack("[o]", json_number_or_name(in->shape.length[s] ? weight[t] : 1)));
    json_object_set_new(expected, "importance_sampling_ratio", rows);
    return true;
}

bool trl_objective(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages", "mask", "entropies",
                                        "num_items_in_batch", "completion_mask", "tool_mask", "state", NULL};
    TrlLoss o;
    Algo algo;
    LossInputs in;
    uint8_t *completion_mask, *tool_mask;
    TRY(trl_algo(c, &o, &algo, err));
    TRY(calc_inputs_known(c, known));
    TRY(calc_loss_inputs(c, &in, err));
    TRY(calc_mask(c, "completion_mask", &in.shape, &completion_mask, err) && calc_mask(c, "tool_mask", &in.shape, &tool_mask, err));
    for (int64_t i = 0; completion_mask && tool_mask && i < in.shape.count; i++)
        if (!in.mask || in.mask[i] != (completion_mask[i] & tool_mask[i]))
            return calc_malformed(c, "inputs.mask", "the product of completion_mask and tool_mask", err);
    const json_t *items = json_object_get(c->inputs, "num_items_in_batch");
    if (items && !json_is_null(items) && !json_is_number(items)) return calc_malformed(c, "inputs.num_items_in_batch", "a number", err);
    TRY(gate_entropy(c, &o, &algo, err));
    double accumulated = o.gradient_accumulation_steps, tokens = json_is_number(items) ? json_number_value(items) : in.active;
    ObjectiveInput step = calc_objective_input(&in);
    step.max_completion = o.max_completion_length;
    step.step_sequences = in.shape.rows * accumulated, step.step_tokens = in.active * accumulated;
    step.rollout_tokens = fmax(tokens, 1) * accumulated / o.steps_per_generation / o.processes;
    TRY(correct(c, &algo, &in, &step, expected, err));
    if (algo.top_entropy < 1 && in.entropy) {
        step_survey(&algo, &step, &step.entropy_threshold, NULL);
        step.entropy_tokens = entropy_tokens(&in, &step) * accumulated;
        if (!strstr(c->source, "micro-batch")) json_object_set_new(expected, "entropy_mask", entropy_mask_json(c, &in, step.entropy_threshold));
    }
    ObjectiveOutput out = calc_objective_output(c, &in);
    TRY(calc_add_objective(c, &algo, &step, &in, 1, &out, err));
    json_object_set_new(expected, "loss", json_number_or_name(out.loss));
    json_object_set_new(expected, "dloss_dlogprobs", calc_ragged_json(&in.shape, out.dlogprob));
    if (algo.entropy != 0) json_object_set_new(expected, "dloss_dentropies", calc_ragged_json(&in.shape, out.dentropy));
    return true;
}

// ---- advantages ------------------------------------------------------------------------------------------
typedef struct TrlAdvantage {
    const char *estimator, *aggregation;
    double eps, num_generations, beta, clip[2];
    bool normalize;
} TrlAdvantage;

static const CalcOption advantage_options[] = {
    {"estimator", CALC_TEXT, offsetof(TrlAdvantage, estimator), NULL},
    {"multi_objective_aggregation", CALC_TEXT, offsetof(TrlAdvantage, aggregation), NULL},
    {"std", CALC_IDLE, 0, NULL}, // says in words that the divisor is n - 1
    {"eps", CALC_NUMBER, offsetof(TrlAdvantage, eps), NULL},
    {"num_generations", CALC_COUNT, offsetof(TrlAdvantage, num_generations), NULL},
    {"normalize_advantages", CALC_FLAG, offsetof(TrlAdvantage, normalize), NULL},
    {"reward_clip_range", CALC_RANGE, offsetof(TrlAdvantage, clip), NULL},
    {"beta", CALC_NUMBER, offsetof(TrlAdvantage, beta), NULL},
    {0},
};

static bool advantage_kind(CalcCase *c, const TrlAdvantage *o, AdvantageInput *in) {
    if (!strcmp(o->estimator, "rloo")) in->kind = ADVANTAGE_RLOO, in->whiten = o->normalize;
    else if (!strcmp(o->estimator, "gdpo") || !strcmp(o->aggregation, "normalize_then_sum")) in->kind = ADVANTAGE_GDPO, in->whiten = true;
    else if (strcmp(o->estimator, "grpo") != 0) return calc_unsupported(c, "estimator = \"%.60s\"", o->estimator);
    else if (strcmp(o->aggregation, "sum_then_normalize") != 0)
        return calc_unsupported(c, "multi_objective_aggregation = \"%.60s\"", o->aggregation);
    return true;
}

// Weighted sums over the reward functions that scored a row, as the reward pool sums them; a row without any is not
// scorable.
static void weigh(const Ragged *rewards, const double *weight, double *reward, bool *scorable) {
    const double *value = rewards->values;
    for (int row = 0; row < rewards->rows; row++)
        for (int k = 0; k < rewards->length[row]; k++, value++) {
            if (isnan(*value)) continue;
            reward[row] += *value * (weight ? weight[k] : 1);
            scorable[row] = true;
        }
}

// The divergence that RLOO takes from the reward: the sum of k1 over the completion.
static bool take_divergence(CalcCase *c, const TrlAdvantage *o, int rows, double *reward, Err *err) {
    Ragged old, ref;
    int count;
    double *length;
    TRY(calc_ragged(c, "old_logprobs", NULL, &old, err));
    TRY(calc_ragged(c, "ref_logprobs", old.values ? &old : NULL, &ref, err) && calc_list(c, "lengths", &count, &length, err));
    for (int i = 0; !isnan(o->clip[0]) && i < rows; i++) reward[i] = fmax(o->clip[0], fmin(o->clip[1], reward[i]));
    if (o->beta == 0) return true;
    if (!old.values || !ref.values || old.rows != rows) return calc_malformed(c, "inputs.old_logprobs", "a row a completion, and ref_logprobs", err);
    if (length && count != rows) return calc_malformed(c, "inputs.lengths", "a number a completion", err);
    for (int64_t row = 0, t = 0; row < rows; t += old.length[row++])
        for (int32_t i = 0; i < old.length[row] && (!length || i < length[row]); i++)
            reward[row] -= o->beta * (old.values[t + i] - ref.values[t + i]);
    return true;
}

bool trl_advantage(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"rewards_per_func", "reward_weights", "old_logprobs", "ref_logprobs", "lengths", NULL};
    TrlAdvantage o = {.estimator = "grpo", .aggregation = "sum_then_normalize", .eps = 1e-4, .num_generations = NAN, .clip = {NAN, NAN}};
    Ragged rewards;
    int weights;
    double *weight;
    static const char *const keys[] = {"advantage", NULL};
    Stage stage = {.algo = algo_default()};
    TRY(calc_program_options(c, "trl", keys, advantage_options, &o, &stage, err));
    AdvantageInput in = {.kind = stage.algo.advantage, .eps = o.eps, .scale = true};
    TRY(advantage_kind(c, &o, &in));
    TRY(calc_inputs_known(c, known));
    TRY(calc_ragged(c, "rewards_per_func", NULL, &rewards, err) && calc_list(c, "reward_weights", &weights, &weight, err));
    if (!rewards.values) return calc_malformed(c, "inputs.rewards_per_func", "a list of lists of numbers", err);
    if (isnan(o.num_generations) || rewards.rows % (int)o.num_generations)
        return calc_malformed(c, "config.num_generations", "a number that divides the rows of rewards_per_func", err);
    for (int row = 0; row < rewards.rows; row++)
        if (rewards.length[row] != (weight ? weights : rewards.length[0]))
            return calc_malformed(c, "inputs.rewards_per_func", "a value for each weight in every row", err);
    double *reward = ARENA_NEW(&c->arena, double, rewards.rows + 1), *advantage = ARENA_NEW(&c->arena, double, rewards.rows + 1);
    bool *scorable = ARENA_NEW(&c->arena, bool, rewards.rows + 1);
    int *group = ARENA_NEW(&c->arena, int, rewards.rows + 1);
    weigh(&rewards, weight, reward, scorable);
    TRY(take_divergence(c, &o, rewards.rows, reward, err));
    for (int i = 0; i < rewards.rows; i++) group[i] = i / (int)o.num_generations;
    in.count = rewards.rows, in.group = group, in.groups = rewards.rows / (int)o.num_generations, in.reward = reward, in.scorable = scorable;
    in.parts = rewards.rows ? rewards.length[0] : 0, in.part = rewards.values, in.part_weight = weight;
    advantage_compute(&in, advantage, NULL);
    json_object_set_new(expected, "advantages", calc_list_json(rewards.rows, advantage));
    return true;
}
