// TRL's option names (GRPOConfig of TRL 1.x) onto reckon's own, for `calc`. What TRL can do and reckon can't is a
// CALC_NEUTRAL row: any value but the one that switches it off makes the case unsupported.
#include "calc.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct TrlLoss {
    const char *loss_type, *mode;
    double epsilon, epsilon_high, delta, beta, entropy_coef;
    double max_completion_length, gradient_accumulation_steps, steps_per_generation;
    bool use_bias_correction_kl;
} TrlLoss;
#define AT(field) offsetof(TrlLoss, field)

static const CalcOption loss_options[] = {
    {"loss_type", CALC_TEXT, AT(loss_type), NULL},
    {"mode", CALC_TEXT, AT(mode), NULL},
    {"epsilon", CALC_NUMBER, AT(epsilon), NULL},
    {"epsilon_high", CALC_NUMBER, AT(epsilon_high), NULL}, // null: epsilon
    {"delta", CALC_NUMBER, AT(delta), NULL},
    {"beta", CALC_NUMBER, AT(beta), NULL},
    {"use_bias_correction_kl", CALC_FLAG, AT(use_bias_correction_kl), NULL},
    {"entropy_coef", CALC_NUMBER, AT(entropy_coef), NULL},
    {"max_completion_length", CALC_COUNT, AT(max_completion_length), NULL},
    {"gradient_accumulation_steps", CALC_COUNT, AT(gradient_accumulation_steps), NULL},
    {"steps_per_generation", CALC_COUNT, AT(steps_per_generation), NULL},
    {"importance_sampling_level", CALC_NEUTRAL, 0, "\"token\""},
    {"top_entropy_quantile", CALC_NEUTRAL, 0, "1.0"},
    {"off_policy_mask_threshold", CALC_NEUTRAL, 0, "null"},
    {"use_adaptive_entropy", CALC_NEUTRAL, 0, "false"},
    {"use_vllm", CALC_NEUTRAL, 0, "false"},
    {"num_processes", CALC_NEUTRAL, 0, "1"},
    {"entropy_coef_min", CALC_IDLE, 0, NULL}, // these four: use_adaptive_entropy
    {"entropy_coef_max", CALC_IDLE, 0, NULL},
    {"entropy_coef_delta", CALC_IDLE, 0, NULL},
    {"entropy_target", CALC_IDLE, 0, NULL},
    {"sapo_temperature_pos", CALC_IDLE, 0, NULL}, // loss_type sapo
    {"sapo_temperature_neg", CALC_IDLE, 0, NULL},
    {"vespo_k_pos", CALC_IDLE, 0, NULL}, // loss_type vespo
    {"vespo_lambda_pos", CALC_IDLE, 0, NULL},
    {"vespo_k_neg", CALC_IDLE, 0, NULL},
    {"vespo_lambda_neg", CALC_IDLE, 0, NULL},
    {"vllm_importance_sampling_correction", CALC_IDLE, 0, NULL}, // these four: use_vllm
    {"vllm_importance_sampling_mode", CALC_IDLE, 0, NULL},
    {"vllm_importance_sampling_clip_min", CALC_IDLE, 0, NULL},
    {"vllm_importance_sampling_clip_max", CALC_IDLE, 0, NULL},
    {0},
};

static const struct {
    const char *trl;
    LossKind kind;
} loss_types[] = {{"grpo", LOSS_GRPO}, {"bnpo", LOSS_BNPO}, {"dr_grpo", LOSS_DR_GRPO}, {"dapo", LOSS_DAPO}};

static bool trl_algo(CalcCase *c, TrlLoss *o, Algo *algo, Err *err) {
    *o = (TrlLoss){.mode = "train", .epsilon = NAN, .epsilon_high = NAN, .delta = NAN, .use_bias_correction_kl = true,
                   .max_completion_length = NAN, .gradient_accumulation_steps = 1, .steps_per_generation = 1};
    TRY(calc_options(c, loss_options, o, err));
    if (!o->loss_type) return calc_malformed(c, "config.loss_type", "it to be given", err);
    int kind = 0;
    while (kind < COUNT(loss_types) && strcmp(loss_types[kind].trl, o->loss_type) != 0) kind++;
    if (kind == COUNT(loss_types)) return calc_unsupported(c, "loss_type = \"%.60s\"", o->loss_type);
    if (strcmp(o->mode, "train") != 0 && strcmp(o->mode, "eval") != 0) return calc_unsupported(c, "mode = \"%.60s\"", o->mode);
    if (isnan(o->epsilon)) return calc_malformed(c, "config.epsilon", "a number", err);
    if (o->delta <= 0) return calc_unsupported(c, "delta = %g", o->delta);
    *algo = (Algo){.loss = loss_types[kind].kind, .epsilon_low = o->epsilon, .delta = isnan(o->delta) ? 0 : o->delta, .kl = o->beta,
                   .epsilon_high = isnan(o->epsilon_high) ? o->epsilon : o->epsilon_high,
                   .kl_times_ratio = o->use_bias_correction_kl, .entropy = o->entropy_coef};
    if (algo->loss == LOSS_DR_GRPO && isnan(o->max_completion_length))
        return calc_malformed(c, "config.max_completion_length", "an integer of at least 1", err);
    if (!strcmp(o->mode, "eval")) o->gradient_accumulation_steps = o->steps_per_generation = 1;
    return true;
}

static bool trl_inputs(CalcCase *c, const Algo *algo, Ragged *shape, ObjectiveInput *in, Err *err) {
    static const char *const known[] = {"logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages",
                                        "mask", "entropies", "num_items_in_batch", "completion_mask", "tool_mask", NULL};
    TRY(calc_inputs_known(c, known));
    Ragged old, ref, entropies;
    uint8_t *mask, *completion, *tool;
    TRY(calc_ragged(c, "logprobs", NULL, shape, err));
    if (!shape->values) return calc_malformed(c, "inputs.logprobs", "a list of lists of numbers", err);
    TRY(calc_ragged(c, "old_logprobs", shape, &old, err) && calc_ragged(c, "ref_logprobs", shape, &ref, err) &&
        calc_ragged(c, "entropies", shape, &entropies, err) && calc_mask(c, "mask", shape, &mask, err) &&
        calc_mask(c, "completion_mask", shape, &completion, err) && calc_mask(c, "tool_mask", shape, &tool, err));
    // The loss sees the product of both masks, which is what `mask` holds.
    if (!mask && (completion || tool)) return calc_malformed(c, "inputs.mask", "it beside completion_mask and tool_mask", err);
    if (algo->kl != 0 && !ref.values) return calc_malformed(c, "inputs.ref_logprobs", "numbers, as beta isn't 0", err);
    if (algo->entropy != 0 && !entropies.values)
        return calc_malformed(c, "inputs.entropies", "numbers, as entropy_coef isn't 0", err);
    *in = (ObjectiveInput){.sequences = shape->rows, .length = shape->length, .logprob = shape->values,
                           .old_logprob = old.values, .ref_logprob = algo->kl != 0 ? ref.values : NULL,
                           .entropy = entropies.values, .mask = mask};
    const json_t *advantages = json_object_get(c->inputs, "advantages");
    if (json_is_array(json_array_get(advantages, 0))) {
        Ragged by_token;
        TRY(calc_ragged(c, "advantages", shape, &by_token, err));
        in->token_advantage = by_token.values;
        return true;
    }
    int count;
    double *values;
    TRY(calc_list(c, "advantages", &count, &values, err));
    if (!values || count != shape->rows) return calc_malformed(c, "inputs.advantages", "a number a sequence", err);
    in->advantage = values;
    return true;
}

bool trl_objective(CalcCase *c, json_t *expected, Err *err) {
    TrlLoss o;
    Algo algo;
    Ragged shape;
    ObjectiveInput in;
    TRY(trl_algo(c, &o, &algo, err));
    TRY(trl_inputs(c, &algo, &shape, &in, err));
    double active = 0;
    for (int64_t i = 0; i < shape.count; i++) active += !in.mask || in.mask[i];
    const json_t *items = json_object_get(c->inputs, "num_items_in_batch");
    if (items && !json_is_null(items) && !json_is_number(items))
        return calc_malformed(c, "inputs.num_items_in_batch", "a number", err);
    double rollout_tokens = json_is_number(items) ? json_number_value(items) : active;
    in.max_completion = isnan(o.max_completion_length) ? 0 : (int32_t)o.max_completion_length;
    in.step_sequences = shape.rows * o.gradient_accumulation_steps;
    in.step_tokens = active * o.gradient_accumulation_steps;
    in.rollout_tokens = rollout_tokens * o.gradient_accumulation_steps / o.steps_per_generation;
    ObjectiveOutput out = {.dlogprob = ARENA_NEW(&c->arena, double, shape.count + 1),
                           .dentropy = ARENA_NEW(&c->arena, double, shape.count + 1)};
    objective_compute(&algo, &in, &out);
    json_object_set_new(expected, "loss", json_number_or_name(out.loss));
    json_object_set_new(expected, "dloss_dlogprobs", calc_ragged_json(&shape, out.dlogprob));
    if (algo.entropy != 0) json_object_set_new(expected, "dloss_dentropies", calc_ragged_json(&shape, out.dentropy));
    return true;
}

// ---- advantages ------------------------------------------------------------------------------------------
typedef struct TrlAdvantage {
    const char *estimator;
    double eps, num_generations;
} TrlAdvantage;

static const CalcOption advantage_options[] = {
    {"estimator", CALC_NEUTRAL, 0, "\"grpo\""},
    {"multi_objective_aggregation", CALC_NEUTRAL, 0, "\"sum_then_normalize\""},
    {"std", CALC_NEUTRAL, 0, "\"sample standard deviation (divisor n-1) over the non-NaN values\""},
    {"eps", CALC_NUMBER, offsetof(TrlAdvantage, eps), NULL},
    {"num_generations", CALC_COUNT, offsetof(TrlAdvantage, num_generations), NULL},
    {"scale_rewards", CALC_IDLE, 0, NULL}, // read by scale_rewards(): a text or a flag
    {0},
};

static bool scale_rewards(CalcCase *c, AdvantageKind *out, Err *err) {
    static const struct {
        const char *trl;
        AdvantageKind kind;
    } names[] = {{"group", ADVANTAGE_GROUP}, {"batch", ADVANTAGE_BATCH}, {"none", ADVANTAGE_NONE}};
    const json_t *value = json_object_get(c->config, "scale_rewards");
    *out = ADVANTAGE_GROUP;
    if (!value || json_is_true(value)) return true;
    *out = ADVANTAGE_NONE;
    if (json_is_false(value)) return true;
    if (!json_is_string(value)) return calc_malformed(c, "config.scale_rewards", "a text or a flag", err);
    for (int i = 0; i < COUNT(names); i++)
        if (!strcmp(names[i].trl, json_string_value(value))) {
            *out = names[i].kind;
            return true;
        }
    return calc_unsupported(c, "scale_rewards = \"%.60s\"", json_string_value(value));
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

bool trl_advantage(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"rewards_per_func", "reward_weights", NULL};
    TrlAdvantage o = {.eps = 1e-4, .num_generations = NAN};
    AdvantageKind kind;
    Ragged rewards;
    int weights;
    double *weight;
    TRY(calc_options(c, advantage_options, &o, err));
    TRY(scale_rewards(c, &kind, err));
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
    weigh(&rewards, weight, reward, scorable);
    advantage_compute(kind, o.eps, rewards.rows / (int)o.num_generations, (int)o.num_generations, reward, scorable,
                      advantage, NULL);
    json_t *list = json_array();
    for (int row = 0; row < rewards.rows; row++) json_array_append_new(list, json_number_or_name(advantage[row]));
    json_object_set_new(expected, "advantages", list);
    return true;
}
