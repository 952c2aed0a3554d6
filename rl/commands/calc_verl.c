// verl's policy losses and rollout correction, for `calc`; options that a recipe has a key for are read by the rows of programs.c. verl adds three aggregated
// terms: the policy loss, the entropy bonus and the divergence. The first may have an aggregation of its own (GSPO, SAPO,
// GMPO) or a mask of its own (bypass mode), so it is computed apart.
#include "calc_verl.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct VerlLoss {
    const char *loss_mode, *kl_type;
    double high, scale_factor, kl, cov_share, kl_cov_share, dp_size, tokens, sequences;
    bool use_kl;
    const json_t *bypass;
    VerlCorrection correction;
    Stage stage; // what the recipe's keys say
} VerlLoss;
#define AT(field) offsetof(VerlLoss, field)

static const char *const loss_keys[] = {"aggregate", "epsilon_low", "dual_clip", "sapo_positive", "sapo_negative", "entropy", "cov_low", "cov_high", "cov_kl",
                                        "dro_beta", NULL};
static const CalcOption loss_options[] = {
    {"loss_mode", CALC_TEXT, AT(loss_mode), NULL}, // bypass_mode is one of them
    {"loss_scale_factor", CALC_NUMBER, AT(scale_factor), NULL},
    {"clip_ratio_high", CALC_NUMBER, AT(high), NULL},
    {"use_kl_loss", CALC_FLAG, AT(use_kl), NULL},
    {"kl_loss_coef", CALC_NUMBER, AT(kl), NULL},
    {"kl_loss_type", CALC_TEXT, AT(kl_type), NULL},
    {"clip_cov_ratio", CALC_NUMBER, AT(cov_share), NULL},
    {"clip_cov_order", CALC_IDLE, 0, NULL}, // says in words which of the candidates were taken: the first ones
    {"kl_cov_ratio", CALC_NUMBER, AT(kl_cov_share), NULL},
    {"dp_size", CALC_COUNT, AT(dp_size), NULL},
    {"batch_num_tokens", CALC_NUMBER, AT(tokens), NULL},
    {"global_batch_size", CALC_NUMBER, AT(sequences), NULL},
    {"rollout_correction", CALC_VALUE, AT(bypass), NULL},
    {"rollout_is", CALC_VALUE, AT(correction.is), NULL},
    {"rollout_is_threshold", CALC_VALUE, AT(correction.is_threshold), NULL},
    {"rollout_is_batch_normalize", CALC_VALUE, AT(correction.normalize), NULL},
    {"rollout_rs", CALC_VALUE, AT(correction.rs), NULL},
    {"rollout_rs_threshold", CALC_VALUE, AT(correction.rs_threshold), NULL},
    {0},
};

// ---- rollout correction ------------------------------------------------------------------------------------
// "2.0", 2.0 or "0.5_2.0"; *low is NaN where there is one number only.
static bool threshold_of(const char *text, double *low, double *high) {
    char *end;
    *low = NAN;
    *high = strtod(text, &end);
    if (end == text) return false;
    if (*end == '_') {
        const char *second = end + 1;
        *low = *high, *high = strtod(second, &end);
        if (end == second) return false;
    }
    return *end == 0 && *high > 0 && !(*low <= 0) && !(*low > *high);
}
static bool text_of_number(const json_t *value, char *out, size_t size) {
    if (json_is_string(value)) snprintf(out, size, "%s", json_string_value(value));
    else if (json_is_number(value)) snprintf(out, size, "%.17g", json_number_value(value));
    else return false;
    return true;
}

static const struct {
    const char *verl;
    Pool pool;
} pools[] = {{"token_", POOL_TOKEN}, {"seq_sum_", POOL_SUM}, {"seq_mean_", POOL_MEAN}, {"seq_max_", POOL_MAX}};

static bool rejection_of(CalcCase *c, const char *name, const char *spec, Rejection *out) {
    double low, high;
    int pool = 0;
    while (pool < COUNT(pools) && strncmp(pools[pool].verl, name, strlen(pools[pool].verl)) != 0) pool++;
    const char *kind = pool < COUNT(pools) ? name + strlen(pools[pool].verl) : "";
    if (strlen(kind) != 2 || kind[0] != 'k' || kind[1] < '1' || kind[1] > '3' || (kind[1] == '1' && pools[pool].pool == POOL_MAX))
        return calc_unsupported(c, "rollout_rs = \"%.60s\"", name);
    if (!threshold_of(spec, &low, &high) || (kind[1] != '1' && !isnan(low)))
        return calc_unsupported(c, "rollout_rs_threshold = \"%.60s\" for %.60s", spec, name);
    *out = (Rejection){.statistic = (Statistic)(kind[1] - '1'), .pool = pools[pool].pool, .low = -INFINITY, .high = high};
    if (kind[1] == '1') out->low = exact_log(isnan(low) ? 1 / high : low), out->high = exact_log(high);
    return true;
}

// The next of a list separated by commas, without spaces; false at its end.
static bool next_word(const char **text, char *out, size_t size) {
    while (**text == ' ' || **text == ',') ++*text;
    size_t n = strcspn(*text, ", ");
    snprintf(out, size, "%.*s", (int)n, *text);
    *text += n;
    return n > 0;
}

static bool rejections_of(CalcCase *c, const VerlCorrection *o, Correction *out, Err *err) {
    char spec[128], first[64], name[64], seen[MAX_REJECTIONS][64];
    if (!json_is_string(o->rs)) return calc_malformed(c, "config.rollout_rs", "a text or null", err);
    if (!text_of_number(o->rs_threshold, spec, sizeof spec)) return calc_malformed(c, "config.rollout_rs_threshold", "a number or a text", err);
    const char *names = json_string_value(o->rs), *specs = spec;
    bool shared = !strchr(spec, ',');
    if (shared && !next_word(&specs, first, sizeof first)) return calc_malformed(c, "config.rollout_rs_threshold", "a threshold", err);
    while (next_word(&names, name, sizeof name)) {
        bool again = false;
        for (int i = 0; i < out->rejection_count; i++) again |= !strcmp(seen[i], name);
        if (again) continue;
        if (out->rejection_count == MAX_REJECTIONS || (!shared && !next_word(&specs, first, sizeof first)))
            return calc_malformed(c, "config.rollout_rs_threshold", "one threshold, or one for each of rollout_rs", err);
        snprintf(seen[out->rejection_count], sizeof seen[0], "%s", name);
        TRY(rejection_of(c, name, first, &out->rejections[out->rejection_count]));
        out->rejection_count++;
    }
    return true;
}

bool verl_correction(CalcCase *c, const VerlCorrection *o, Correction *out, Err *err) {
    char spec[128];
    double low;
    *out = (Correction){.high = INFINITY, .log_bound = 20, .normalize = json_is_true(o->normalize)};
    if (o->is && !json_is_null(o->is) && !json_is_null(o->is_threshold)) {
        const char *level = json_string_value(o->is);
        if (!level || (strcmp(level, "token") != 0 && strcmp(level, "sequence") != 0))
            return calc_unsupported(c, "rollout_is = \"%.60s\"", level ? level : "");
        out->level = strcmp(level, "token") == 0 ? CORRECTION_TOKEN : CORRECTION_SEQUENCE;
        if (!o->is_threshold) snprintf(spec, sizeof spec, "2.0");
        else if (!text_of_number(o->is_threshold, spec, sizeof spec)) return calc_malformed(c, "config.rollout_is_threshold", "a number or a text", err);
        if (!threshold_of(spec, &low, &out->high)) return calc_unsupported(c, "rollout_is_threshold = \"%.60s\"", spec);
        if (!isnan(low)) out->mode = CORRECTION_MASK, out->low = low;
    }
    return !o->rs || json_is_null(o->rs) || rejections_of(c, o, out, err);
}

// ---- the loss ----------------------------------------------------------------------------------------------
static const struct {
    LossKind loss;
    double log_ratio_bound, log_ratio_cap;
    Aggregate aggregate; // AGGREGATE_OF_LOSS: as loss_agg_mode says
} modes[] = {
    {LOSS_DAPO, 20, 0, AGGREGATE_OF_LOSS}, {LOSS_GSPO_TOKEN, 0, 10, AGGREGATE_OF_LOSS},   {LOSS_SAPO, 20, 0, AGGREGATE_SEQUENCE_MEAN},
    {LOSS_CISPO, 20, 0, AGGREGATE_OF_LOSS}, {LOSS_GMPO, 0, 0, AGGREGATE_SEQUENCE_MEAN},   {LOSS_DPPO_TV, 20, 0, AGGREGATE_OF_LOSS},
    {LOSS_DPPO_KL, 20, 0, AGGREGATE_OF_LOSS},
};

// `mode` is the policy loss; the options' own may be bypass_mode.
static bool policy_algo(CalcCase *c, const VerlLoss *o, const char *mode, Algo *a) {
    int loss;
    *a = o->stage.algo;
    if (!calc_choice("verl", "policy_loss.loss_mode", "algo.loss", mode, &loss)) return calc_unsupported(c, "loss_mode = \"%.60s\"", mode);
    a->loss = (LossKind)loss;
    for (int i = 0; i < COUNT(modes); i++) {
        if (modes[i].loss != a->loss) continue;
        a->log_ratio_bound = modes[i].log_ratio_bound, a->log_ratio_cap = modes[i].log_ratio_cap;
        if (modes[i].aggregate != AGGREGATE_OF_LOSS) a->aggregate = modes[i].aggregate;
    }
    a->length_eps = 1e-8, a->entropy = 0; // a term of its own
    const json_t *both = json_object_get(c->config, "clip_ratio");
    a->epsilon_high = !isnan(o->high) ? o->high : json_is_number(both) ? json_number_value(both) : 0.2;
    a->ratio_cap = a->dual_clip;
    if (a->loss != LOSS_DAPO) a->dual_clip = 0;
    a->cov_share = a->loss == LOSS_KL_COV ? o->kl_cov_share : o->cov_share;
    return a->loss != LOSS_DRO || a->dro_beta > 0 || calc_unsupported(c, "dro_beta = %g, which verl refuses", a->dro_beta);
}

static ObjectiveInput step_of(const VerlLoss *o, const LossInputs *in) {
    ObjectiveInput step = calc_objective_input(in);
    int32_t widest = 0;
    for (int s = 0; s < in->shape.rows; s++) widest = in->shape.length[s] > widest ? in->shape.length[s] : widest;
    step.step_tokens = isnan(o->tokens) ? in->active : o->tokens;
    step.step_sequences = isnan(o->sequences) ? in->nonempty : o->sequences;
    step.max_completion = isnan(o->scale_factor) ? widest : o->scale_factor;
    step.sampler_logprob = NULL;
    return step;
}
// 0 / 0, as a mean over nothing is there.
static bool over_nothing(Aggregate aggregate, const ObjectiveInput *step) {
    return aggregate == AGGREGATE_STEP_TOKENS ? step->step_tokens == 0 : aggregate != AGGREGATE_SUM && step->step_sequences == 0;
}

// The mask of `in` without what the correction rejects, and the counts that go with it.
static void narrow(CalcCase *c, LossInputs *in, const uint8_t *keep) {
    uint8_t *mask = ARENA_NEW(&c->arena, uint8_t, in->shape.count + 1);
    int64_t t = 0;
    in->active = in->nonempty = 0;
    for (int s = 0; s < in->shape.rows; s++) {
        double of_sequence = 0;
        for (int32_t i = 0; i < in->shape.length[s]; i++, t++) of_sequence += mask[t] = (!in->mask || in->mask[t]) && keep[t];
        in->active += of_sequence, in->nonempty += of_sequence > 0;
    }
    in->mask = mask;
}

typedef struct Corrected {
    LossInputs in; // with the narrowed mask
    double *weight; // or NULL
} Corrected;
static bool correct(CalcCase *c, const VerlCorrection *o, const LossInputs *in, const double *old, const double *sampler, Corrected *out, Err *err) {
    Correction k;
    int64_t n = in->shape.count;
    uint8_t *keep = ARENA_NEW(&c->arena, uint8_t, n + 1);
    *out = (Corrected){.in = *in, .weight = ARENA_NEW(&c->arena, double, n + 1)};
    TRY(verl_correction(c, o, &k, err));
    if (!old || !sampler) return calc_malformed(c, "inputs.sampler_logprobs", "numbers, and old_logprobs", err);
    correction_compute(&k, in->shape.rows, in->shape.length, old, sampler, in->mask, out->weight, keep);
    for (int64_t t = 0; t < n; t++)
        if (in->mask && !in->mask[t]) out->weight[t] = 0;
    if (k.level == CORRECTION_OFF) out->weight = NULL;
    narrow(c, &out->in, keep);
    return true;
}

static bool policy_loss(CalcCase *c, const VerlLoss *o, const Corrected *k, const char *mode, const double *weight, ObjectiveOutput *out, Err *err) {
    Algo algo;
    TRY(policy_algo(c, o, mode, &algo));
    ObjectiveInput step = step_of(o, &k->in);
    step.weight = weight;
    if (algo.loss == LOSS_GMPO) step.step_sequences = k->in.shape.rows; // a plain mean
    TRY(calc_add_objective(c, &algo, &step, &k->in, algo.loss == LOSS_GMPO ? 1 : o->dp_size, out, err));
    if (over_nothing(loss_aggregate(&algo), &step)) out->loss = NAN;
    return true;
}

// The policy loss of the sampler's own correction: the current policy against the one that sampled.
static bool bypass_loss(CalcCase *c, const VerlLoss *o, const LossInputs *in, ObjectiveOutput *out, Err *err) {
    const json_t *r = o->bypass;
    if (!json_is_object(r)) return calc_malformed(c, "config.rollout_correction", "an object, as loss_mode is bypass_mode", err);
    const char *type = json_string_value(json_object_get(r, "loss_type"));
    bool reinforce = type && !strcmp(type, "reinforce");
    if (type && !reinforce && strcmp(type, "ppo_clip") != 0) return calc_unsupported(c, "rollout_correction.loss_type = \"%.60s\"", type);
    VerlCorrection v = {.is = json_object_get(r, "rollout_is"), .is_threshold = json_object_get(r, "rollout_is_threshold"),
                        .normalize = json_object_get(r, "rollout_is_batch_normalize"), .rs = json_object_get(r, "rollout_rs"),
                        .rs_threshold = json_object_get(r, "rollout_rs_threshold")};
    Corrected k;
    TRY(correct(c, &v, in, in->shape.values, in->old, &k, err));
    return policy_loss(c, o, &k, reinforce ? "gpg" : "vanilla", reinforce ? k.weight : NULL, out, err);
}

bool verl_kl_form(CalcCase *c, const char *name, Kl *out) {
    int estimator;
    if (!calc_choice("verl", "algorithm.kl_penalty", "algo.kl_estimator", name, &estimator)) return calc_unsupported(c, "KL estimator \"%.60s\"", name);
    bool bounded = estimator == KL_K3 || estimator == KL_K3_PLUS;
    *out = (Kl){.estimator = (KlEstimator)estimator, .log_bound = bounded ? 20 : 0, .value_bound = bounded ? 10 : 0};
    return true;
}

// The entropy bonus and the divergence, aggregated as loss_agg_mode says.
static bool other_terms(CalcCase *c, const VerlLoss *o, const LossInputs *in, ObjectiveOutput *out, Err *err) {
    Algo a = algo_default();
    if (o->stage.algo.entropy == 0 && !o->use_kl) return true;
    a.loss = LOSS_TERMS_ONLY, a.entropy = o->stage.algo.entropy, a.entropy_as_loss = true, a.length_eps = 1e-8, a.aggregate = o->stage.algo.aggregate;
    if (o->use_kl) {
        a.kl = o->kl;
        TRY(verl_kl_form(c, o->kl_type, &a.kl_form));
    }
    ObjectiveInput step = step_of(o, in);
    return calc_add_objective(c, &a, &step, in, o->dp_size, out, err);
}

static json_t *mask_json(const LossInputs *in) {
    json_t *rows = json_array();
    for (int64_t s = 0, t = 0; s < in->shape.rows; s++) {
        json_t *row = json_array();
        for (int32_t i = 0; i < in->shape.length[s]; i++, t++) json_array_append_new(row, json_integer(!in->mask || in->mask[t]));
        json_array_append_new(rows, row);
    }
    return rows;
}

bool verl_objective(CalcCase *c, json_t *expected, Err *err) {
    static const char *const known[] = {"logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages", "mask", "entropies",
                                        "rollout_is_weights", NULL};
    VerlLoss o = {.loss_mode = "vanilla", .kl_type = "low_var_kl", .high = NAN, .scale_factor = NAN, .kl = 0.001, .cov_share = 2e-4, .kl_cov_share = 2e-4,
                  .dp_size = 1, .tokens = NAN, .sequences = NAN, .stage = {.algo = algo_default()}};
    o.stage.algo.aggregate = AGGREGATE_STEP_TOKENS, o.stage.algo.dual_clip = 3, o.stage.algo.cov_kl = 0.1, o.stage.algo.dro_beta = NAN;
    Ragged weights;
    Corrected k = {0};
    TRY(calc_program_options(c, "verl", loss_keys, loss_options, &o, &o.stage, err));
    TRY(calc_inputs_known(c, known));
    TRY(calc_loss_inputs(c, &k.in, err));
    TRY(calc_ragged(c, "rollout_is_weights", &k.in.shape, &weights, err));
    bool corrects = o.correction.is || o.correction.rs || o.correction.is_threshold;
    if (corrects) {
        LossInputs whole = k.in;
        TRY(correct(c, &o.correction, &whole, whole.old, whole.sampler, &k, err));
        json_object_set_new(expected, "modified_mask", mask_json(&k.in));
        json_object_set_new(expected, "rollout_is_weights", k.weight ? calc_ragged_json(&k.in.shape, k.weight) : json_null());
    }
    ObjectiveOutput out = calc_objective_output(c, &k.in);
    if (!strcmp(o.loss_mode, "bypass_mode")) TRY(bypass_loss(c, &o, &k.in, &out, err));
    else TRY(policy_loss(c, &o, &k, o.loss_mode, weights.values ? weights.values : k.weight, &out, err));
    TRY(other_terms(c, &o, &k.in, &out, err));
    json_object_set_new(expected, "loss", json_number_or_name(out.loss));
    json_object_set_new(expected, "dloss_dlogprobs", calc_ragged_json(&k.in.shape, out.dlogprob));
    if (o.stage.algo.entropy != 0) json_object_set_new(expected, "dloss_dentropies", calc_ragged_json(&k.in.shape, out.dentropy));
    return true;
}
