// The plan of a run: memory, FLOPs and time, told before anything is spent. Lengths are upper bounds (max_tokens);
// prompts are measured on a few training items. Time is the FLOPs over what a short probe of this machine reaches, at
// the share of it that whole steps were seen to reach.
#include "stages.h"
#include "weights.h"
#include <stdio.h>
#include <stdlib.h>

// A whole step reaches about this share of what one large product does: norms, attention, sampling, updates.
static const double STEP_SHARE = 0.5;

static bool plan_config(const Recipe *r, ModelConfig *out, Err *err) {
    if (!r->model_path) {
        *out = r->config;
        return true;
    }
    Weights *w;
    TRY(weights_open(r->model_path, false, &w, err));
    *out = *weights_config(w);
    weights_close(w);
    return true;
}

static double stage_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    double length = prompt + answer;
    if (s->kind == STAGE_SFT) return (double)s->steps * s->batch * 3 * length * config_flops(c, length / 2, true);
    double samples = (double)s->batch * s->group_size;
    double decode = samples * answer * config_flops(c, length, true) + s->batch * prompt * config_flops(c, prompt / 2, false);
    double reference = s->algo.kl > 0 ? decode : 0, epochs = s->algo.epochs > 0 ? s->algo.epochs : 1;
    return s->steps * (decode + reference + 3 * decode * epochs);
}

double plan_step_flops(const ModelConfig *c, const Recipe *r, const Stage *s) {
    return stage_flops(c, s, r->chat ? 64 : 16, s->kind == STAGE_SFT ? 32 : s->sampling.max_tokens) / s->steps;
}

static json_t *stage_plan(const ModelConfig *c, const Stage *s, double prompt, double *total) {
    double answer = s->kind == STAGE_SFT ? 32 : s->sampling.max_tokens, flops = stage_flops(c, s, prompt, answer);
    *total += flops;
    return json_pack("{s:s,s:i,s:i,s:i,s:f,s:f,s:f}", "name", s->name, "steps", s->steps, "prompts", s->batch, "group_size",
                     s->kind == STAGE_SFT ? 1 : s->group_size, "prompt_tokens", prompt, "completion_tokens_at_most", answer,
                     "flops", flops);
}

bool plan_make(const Recipe *r, json_t **out, Err *err) {
    ModelConfig c;
    double rate, total = 0;
    TRY(plan_config(r, &c, err));
    TRY(probe_flops(recipe_device(r), r->precision, r->threads, 256, 512, 512, 0.1, &rate, err));
    int64_t packed = 0, cached = 0;
    json_t *stages = json_array();
    bool kl = false;
    for (int i = 0; i < r->stage_count; i++) {
        const Stage *s = &r->stages[i];
        double prompt = r->chat ? 64 : 16;
        json_array_append_new(stages, stage_plan(&c, s, prompt, &total));
        int64_t tokens = s->microbatch_tokens > 0 ? s->microbatch_tokens : 4096;
        if (tokens > packed) packed = tokens;
        int64_t cache = s->kind == STAGE_GRPO ? (int64_t)s->batch * s->group_size * (s->sampling.max_tokens + 32) : 0;
        if (cache > cached) cached = cache;
        kl |= s->kind == STAGE_GRPO && s->algo.kl > 0;
    }
    size_t weights = plan_weight_bytes(&c, r->precision, true) + (kl ? plan_weight_bytes(&c, r->precision, false) : 0);
    size_t pass = plan_training_bytes(&c, r->precision, packed), cache = plan_cache_bytes(&c, r->precision, cached);
    *out = json_pack("{s:I,s:{s:I,s:I,s:I,s:I},s:o,s:f,s:f,s:f}", "parameters", (json_int_t)config_parameters(&c), "memory",
                     "weights_and_optimizer", (json_int_t)weights, "training_pass", (json_int_t)pass, "cache", (json_int_t)cache,
                     "total", (json_int_t)(weights + pass + cache), "stages", stages, "flops", total, "probe_flops_per_second",
                     rate, "seconds", total / (rate * STEP_SHARE));
    return true;
}

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

void plan_print(const json_t *plan) {
    const json_t *memory = json_object_get(plan, "memory"), *stage;
    size_t i;
    log_line(LOG_INFO, "plan: %.2f M parameters; memory at most %.0f MiB (weights and optimizer %.0f, training pass %.0f, cache %.0f)",
             number(plan, "parameters") / 1e6, number(memory, "total") / 1048576, number(memory, "weights_and_optimizer") / 1048576,
             number(memory, "training_pass") / 1048576, number(memory, "cache") / 1048576);
    json_array_foreach(json_object_get(plan, "stages"), i, stage)
        log_line(LOG_INFO, "plan: stage '%s': %.0f steps of %.0f x %.0f samples, at most %.3g FLOPs", json_string_value(json_object_get(stage, "name")),
                 number(stage, "steps"), number(stage, "prompts"), number(stage, "group_size"), number(stage, "flops"));
    log_line(LOG_INFO, "plan: %.3g FLOPs at most, about %.0f min on this machine (estimate)", number(plan, "flops"), number(plan, "seconds") / 60);
}
