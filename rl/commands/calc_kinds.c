// The kinds of `calc` that no program's policy loss is part of: learning rates as transformers schedules them, AdamW with
// clipping as torch does it, and sampling as transformers' chain of logits processors does it.
#include "calc.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- schedules ---------------------------------------------------------------------------------------------
typedef struct ScheduleCase {
    const char *name, *warmup_type, *decay_type;
    double rate, warmup, steps, cycles, min_rate, min_share, power, end, timescale, decay, ratio;
} ScheduleCase;
#define AT(field) offsetof(ScheduleCase, field)
static const CalcOption schedule_options[] = {
    {"schedule", CALC_TEXT, AT(name), NULL},          {"lr", CALC_NUMBER, AT(rate), NULL},
    {"num_warmup_steps", CALC_NUMBER, AT(warmup), NULL}, {"num_training_steps", CALC_NUMBER, AT(steps), NULL},
    {"num_cycles", CALC_NUMBER, AT(cycles), NULL},    {"min_lr_rate", CALC_NUMBER, AT(min_share), NULL},
    {"min_lr", CALC_NUMBER, AT(min_rate), NULL},      {"power", CALC_NUMBER, AT(power), NULL},
    {"lr_end", CALC_NUMBER, AT(end), NULL},           {"timescale", CALC_NUMBER, AT(timescale), NULL},
    {"num_decay_steps", CALC_NUMBER, AT(decay), NULL}, {"warmup_type", CALC_TEXT, AT(warmup_type), NULL},
    {"decay_type", CALC_TEXT, AT(decay_type), NULL},  {"min_lr_ratio", CALC_NUMBER, AT(ratio), NULL},
    {"num_stable_steps", CALC_IDLE, 0, NULL},         {0},
};
#undef AT

static bool kind_of(const char *name, ScheduleKind *out) {
    int kind;
    bool known = name && calc_choice("trl", "lr_scheduler_type", "optimizer.schedule", name, &kind);
    *out = known ? (ScheduleKind)kind : SCHEDULE_CONSTANT;
    return known;
}

static bool curve_of(CalcCase *c, const char *name, CurveKind *out) {
    static const char *const names[] = {[CURVE_LINEAR] = "linear", [CURVE_COSINE] = "cosine", [CURVE_ONE_MINUS_SQRT] = "1-sqrt"};
    for (int i = 0; i < COUNT(names); i++)
        if (!strcmp(names[i], name)) {
            *out = (CurveKind)i;
            return true;
        }
    return calc_unsupported(c, "warmup_type or decay_type = \"%.60s\"", name);
}

bool calc_schedule(CalcCase *c, json_t *expected, Err *err) {
    ScheduleCase o = {.warmup_type = "linear", .decay_type = "cosine", .rate = NAN, .warmup = 0, .steps = NAN, .cycles = NAN, .min_rate = NAN,
                      .min_share = NAN, .power = 1, .end = 1e-7, .timescale = NAN, .decay = NAN, .ratio = 0};
    TRY(calc_options(c, schedule_options, &o, err));
    ScheduleKind kind;
    if (!kind_of(o.name, &kind)) return calc_unsupported(c, "schedule = \"%.60s\"", o.name ? o.name : "");
    if (isnan(o.rate)) return calc_malformed(c, "config.lr", "a number", err);
    bool constant = !strcmp(o.name, "constant");
    Optimizer p = {.learning_rate = o.rate, .schedule = kind, .warmup = constant ? 0 : (int)o.warmup, .power = o.power,
                   .cycles = isnan(o.cycles) ? 0 : o.cycles, .timescale = isnan(o.timescale) ? 0 : (int)o.timescale,
                   .decay_steps = isnan(o.decay) ? 0 : (int)o.decay};
    if (p.schedule == SCHEDULE_POLYNOMIAL) p.final_share = o.end / o.rate;
    if (p.schedule == SCHEDULE_WSD) p.final_share = o.ratio;
    if (!strcmp(o.name, "cosine_with_min_lr")) p.final_share = !isnan(o.min_share) ? o.min_share : !isnan(o.min_rate) ? o.min_rate / o.rate : 0;
    TRY(curve_of(c, o.warmup_type, &p.warmup_curve) && curve_of(c, o.decay_type, &p.decay_curve));
    json_t *rates = json_array();
    json_object_set_new(expected, "lr", rates);
    for (int step = 1; step <= 101; step++)
        json_array_append_new(rates, json_number_or_name(schedule_rate(&p, step, isnan(o.steps) ? 100 : (int)o.steps)));
    return true;
}

// ---- AdamW -------------------------------------------------------------------------------------------------
typedef struct AdamCase {
    double rate, betas[2], eps, decay, max_norm, clip_eps;
    const json_t *no_decay, *schedule;
} AdamCase;
#define AT(field) offsetof(AdamCase, field)
static const CalcOption adam_options[] = {
    {"lr", CALC_NUMBER, AT(rate), NULL},         {"betas", CALC_RANGE, AT(betas), NULL},
    {"eps", CALC_NUMBER, AT(eps), NULL},         {"weight_decay", CALC_NUMBER, AT(decay), NULL},
    {"max_grad_norm", CALC_NUMBER, AT(max_norm), NULL}, {"clip_eps", CALC_NUMBER, AT(clip_eps), NULL},
    {"no_decay", CALC_VALUE, AT(no_decay), NULL}, {"schedule", CALC_VALUE, AT(schedule), NULL},
    {0},
};
#undef AT

// The numbers of a nested list one after another; false where an element is neither.
static int64_t leaves(const json_t *value) {
    int64_t n = 0;
    if (!json_is_array(value)) return 1;
    for (size_t i = 0; i < json_array_size(value); i++) n += leaves(json_array_get(value, i));
    return n;
}
static bool flatten(const json_t *value, double **out) {
    if (json_is_number(value)) return *(*out)++ = json_number_value(value), true;
    if (!json_is_array(value)) return false;
    for (size_t i = 0; i < json_array_size(value); i++) TRY(flatten(json_array_get(value, i), out));
    return true;
}
static json_t *nested(const json_t *shape, const double **values) {
    if (!json_is_array(shape)) return json_number_or_name(*(*values)++);
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(shape); i++) json_array_append_new(list, nested(json_array_get(shape, i), values));
    return list;
}

typedef struct AdamState {
    int64_t count;
    double *weight, *mean, *square, *gradient;
    bool *decays;
} AdamState;

// The gradient's norm before clipping; then one step of decoupled decay and Adam.
static double adam_step(const AdamCase *o, AdamState *s, double rate, int step) {
    double squares = 0;
    for (int64_t i = 0; i < s->count; i++) squares += s->gradient[i] * s->gradient[i];
    double norm = sqrt(squares), scale = isnan(o->max_norm) ? 1 : fmin(1, o->max_norm / (norm + o->clip_eps));
    double b1 = o->betas[0], b2 = o->betas[1], c1 = 1 - pow(b1, step), c2 = sqrt(1 - pow(b2, step));
    for (int64_t i = 0; i < s->count; i++) {
        double g = s->gradient[i] * scale;
        s->mean[i] = b1 * s->mean[i] + (1 - b1) * g;
        s->square[i] = b2 * s->square[i] + (1 - b2) * g * g;
        if (s->decays[i]) s->weight[i] *= 1 - rate * o->decay;
        s->weight[i] -= rate / c1 * s->mean[i] / (sqrt(s->square[i]) / c2 + o->eps);
    }
    return norm;
}

static bool adam_schedule(CalcCase *c, const AdamCase *o, int steps, Optimizer *out, int *total) {
    const json_t *s = o->schedule, *name = json_is_object(s) ? json_object_get(s, "name") : s;
    *out = (Optimizer){.learning_rate = o->rate, .schedule = SCHEDULE_CONSTANT};
    *total = steps;
    if (!s || json_is_null(s)) return true;
    ScheduleKind kind;
    if (!kind_of(json_string_value(name), &kind) || kind == SCHEDULE_WSD || kind == SCHEDULE_POLYNOMIAL)
        return calc_unsupported(c, "schedule = \"%.60s\"", json_is_string(name) ? json_string_value(name) : "");
    out->schedule = kind;
    out->warmup = (int)json_integer_value(json_object_get(s, "warmup"));
    if (json_is_integer(json_object_get(s, "total"))) *total = (int)json_integer_value(json_object_get(s, "total"));
    return true;
}

static bool read_tensors(CalcCase *c, const AdamCase *o, const json_t *params, AdamState *s, Err *err) {
    s->count = leaves(params);
    s->weight = ARENA_NEW(&c->arena, double, s->count + 1), s->mean = ARENA_NEW(&c->arena, double, s->count + 1);
    s->square = ARENA_NEW(&c->arena, double, s->count + 1), s->gradient = ARENA_NEW(&c->arena, double, s->count + 1);
    s->decays = ARENA_NEW(&c->arena, bool, s->count + 1);
    double *at = s->weight;
    if (!json_is_array(params) || !flatten(params, &at)) return calc_malformed(c, "inputs.params", "a list of tensors of numbers", err);
    int64_t start = 0;
    for (size_t k = 0; k < json_array_size(params); k++) {
        bool decays = true;
        for (size_t i = 0; i < json_array_size(o->no_decay); i++)
            decays &= json_integer_value(json_array_get(o->no_decay, i)) != (json_int_t)k;
        for (int64_t n = leaves(json_array_get(params, k)); n > 0; n--) s->decays[start++] = decays;
    }
    return true;
}

bool calc_optimizer(CalcCase *c, json_t *expected, Err *err) {
    static const int told[] = {1, 2, 5, 10, 20};
    AdamCase o = {.rate = 1e-3, .betas = {0.9, 0.999}, .eps = 1e-8, .decay = 0.01, .max_norm = NAN, .clip_eps = 1e-6};
    const json_t *params = json_object_get(c->inputs, "params"), *grads = json_object_get(c->inputs, "grads");
    AdamState s;
    Optimizer schedule;
    int total, steps = (int)json_array_size(grads);
    TRY(calc_options(c, adam_options, &o, err));
    TRY(adam_schedule(c, &o, steps, &schedule, &total));
    TRY(read_tensors(c, &o, params, &s, err));
    json_t *norms = json_array(), *rates = json_array(), *after = json_object();
    json_object_set_new(expected, "grad_norms", norms), json_object_set_new(expected, "lr", rates);
    json_object_set_new(expected, "params_after_step", after);
    for (int step = 1; step <= steps; step++) {
        const json_t *gradient = json_array_get(grads, (size_t)step - 1);
        double *at = s.gradient, rate = schedule_rate(&schedule, step, total);
        if (leaves(gradient) != s.count || !flatten(gradient, &at)) return calc_malformed(c, "inputs.grads", "a tensor for each of params in every step", err);
        json_array_append_new(norms, json_number_or_name(adam_step(&o, &s, rate, step)));
        json_array_append_new(rates, json_number_or_name(rate));
        for (int i = 0; i < COUNT(told); i++) {
            char key[16];
            const double *weights = s.weight;
            snprintf(key, sizeof key, "%d", step);
            if (told[i] == step) json_object_set_new(after, key, nested(params, &weights));
        }
    }
    const double *mean = s.mean, *square = s.square;
    json_object_set_new(expected, "exp_avg", nested(params, &mean));
    json_object_set_new(expected, "exp_avg_sq", nested(params, &square));
    return true;
}
