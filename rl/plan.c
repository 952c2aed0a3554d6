// The plan of a run: memory, FLOPs and time, told before anything is spent. Lengths are upper bounds (max_tokens);
// prompts are measured on a few training items. Time is the FLOPs over what a short probe of this machine reaches, at
// the share of it that whole steps were seen to reach.
#include "plan_memory.h"
#include "cores.h"
#include "data.h"
#include <stdio.h>
#include <stdlib.h>

// A whole step reaches about this share of what one large product does: norms, attention, sampling, updates.
static const double STEP_SHARE = 0.5;

static bool plan_config(const Recipe *r, ModelConfig *out, Err *err) {
    if (!r->model_path) {
        *out = r->config;
        return true;
    }
    return policy_read_config(r->model_path, out, err);
}

// Room for a prompt beside each sample's tokens.
enum { PROMPT_ROOM = 32 };

double plan_sft_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    double length = prompt + answer;
    return (double)s->steps * s->batch * 3 * length * config_flops(c, length / 2, true);
}
double plan_grpo_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    double length = prompt + answer;
    double samples = (double)s->batch * s->group_size;
    double decode = samples * answer * config_flops(c, length, true) + s->batch * prompt * config_flops(c, prompt / 2, false);
    double reference = s->algo.kl > 0 ? decode : 0, epochs = s->algo.epochs > 0 ? s->algo.epochs : 1;
    return s->steps * (decode + reference + 3 * decode * epochs);
}

double plan_reject_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    if (teacher_is_endpoint(s)) return 0; // none of this machine's
    double samples = (double)s->batch * s->group_size;
    return s->steps * (samples * answer * config_flops(c, prompt + answer, true) + s->batch * prompt * config_flops(c, prompt / 2, false));
}

// Sampling, the teacher's forward pass, and the policy's two.
double plan_distill_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    double tokens = (double)s->batch * (s->group_size * answer + prompt), pass = config_flops(c, (prompt + answer) / 2, true);
    double sampling = s->off_policy == OFF_POLICY_TEACHER ? s->on_policy * pass + (1 - s->on_policy) * s->teacher_flops : s->on_policy * pass;
    return s->steps * tokens * (sampling + s->teacher_flops + 3 * pass);
}
double plan_merge_flops(const ModelConfig *c, const Stage *s, double prompt, double answer) {
    (void)s, (void)prompt, (void)answer;
    return 2 * (double)config_parameters(c);
}

// Tokens of an answer: as many as may be sampled, or a guess of what a demonstration has.
static double answer_tokens(const Stage *s) { return stage_row(s)->samples ? s->sampling.max_tokens : 32; }

double plan_step_flops(const ModelConfig *c, const Recipe *r, const Stage *s) {
    Stage one = *s;
    one.steps = 1;
    return stage_row(s)->flops(c, &one, r->chat ? 64 : 16, answer_tokens(s));
}

// What a teacher that is asked over HTTP could cost; null: no price is stated.
static json_t *endpoint_plan(const Recipe *r, const Stage *s, double prompt, double answer) {
    double requests = (double)s->steps * s->batch * s->group_size, in = requests * prompt, out = requests * answer;
    bool priced = r->million_tokens_in > 0 || r->million_tokens_out > 0;
    json_t *plan = teacher_endpoint_name(s);
    json_object_set_new(plan, "requests", json_integer((json_int_t)requests));
    json_object_set_new(plan, "prompt_tokens", json_real(in));
    json_object_set_new(plan, "new_tokens_at_most", json_real(out));
    json_object_set_new(plan, "money_at_most", priced ? json_real((r->million_tokens_in * in + r->million_tokens_out * out) / 1e6) : json_null());
    json_object_set_new(plan, "currency", r->currency ? json_string(r->currency) : json_null());
    return plan;
}

static json_t *stage_plan(const ModelConfig *c, const Recipe *r, const Stage *s, double prompt, double *total) {
    int64_t steps = stage_steps_at_most(r, s);
    double answer = answer_tokens(s), flops = (double)steps * plan_step_flops(c, r, s);
    *total += flops;
    json_t *plan = json_pack("{s:s,s:s,s:I,s:i,s:i,s:f,s:f,s:f,s:b}", "name", s->name, "kind", stage_row(s)->name, "steps", (json_int_t)steps, "prompts", s->batch, "group_size",
                     stage_row(s)->samples ? s->group_size : 1, "prompt_tokens", prompt, "completion_tokens_at_most", answer,
                     "flops", flops, "at_most", s->steps == 0);
    if (teacher_is_endpoint(s)) json_object_set_new(plan, "endpoint", endpoint_plan(r, s, prompt, answer));
    return plan;
}

// ---- memory ----------------------------------------------------------------------------------------------
// What can't wait: more groups decoded at once only save time.
static size_t least(const PlanMemory *m) { return m->weights + m->pass + m->one_group; }

// The largest microbatch that fits, in powers of two; 0: none.
static bool microbatch_that_fits(const ModelConfig *c, const Recipe *r, const PlanLength *lengths, PlanChoice choice, size_t available, int64_t *fits,
                                 Err *err) {
    *fits = 0;
    for (choice.limit = microbatch_limit(&(Stage){0}, choice.on_host) / 2; choice.limit >= 16 && !*fits; choice.limit /= 2) {
        PlanMemory m;
        TRY(plan_memory(c, r, lengths, &choice, &m, err));
        if (least(&m) <= available) *fits = choice.limit;
    }
    return true;
}

static double mib(size_t bytes) { return (double)bytes / 1048576; }

static bool check_room(const ModelConfig *c, const Recipe *r, const PlanLength *lengths, PlanChoice choice, const PlanMemory *whole, size_t available, Err *err) {
    PlanMemory m = *whole;
    if (least(&m) <= available) return true;
    int64_t fits;
    TRY(microbatch_that_fits(c, r, lengths, choice, available, &fits, err));
    if (!fits && choice.precision == PRECISION_FP32) {
        PlanMemory half;
        choice.precision = PRECISION_BF16;
        TRY(plan_memory(c, r, lengths, &choice, &half, err));
        if (least(&half) <= available) fits = INT64_MAX;
        else TRY(microbatch_that_fits(c, r, lengths, choice, available, &fits, err));
    }
    Buf advice = {0};
    if (fits && choice.precision != r->precision) buf_puts(&advice, "precision = \"bf16\"");
    if (fits && fits < INT64_MAX) buf_printf(&advice, "%smicrobatch_tokens = %lld", advice.size ? " and " : "", (long long)fits);
    if (fits) buf_puts(&advice, " would fit");
    else buf_puts(&advice, "neither bf16 nor a smaller microbatch_tokens would do: a smaller group_size, max_tokens or model needs less");
    fail(err, ERR_UNAVAILABLE, recipe_device(r) ? recipe_device(r) : "device",
         "the run needs %.0f MiB (weights and optimizer %.0f, training pass %.0f, one group's cache %.0f), %.0f MiB can be had: %.0f MiB short; %s",
         mib(least(&m)), mib(m.weights), mib(m.pass), mib(m.one_group), mib(available), mib(least(&m) - available), advice.data);
    buf_free(&advice);
    return false;
}

// Ledger, scripts, samples, report: what a run holds beyond what a plan needs, whatever the model.
static size_t program_bytes(const Recipe *r) {
    bool samples = false;
    for (int i = 0; i < r->stage_count; i++) samples |= stage_row(&r->stages[i])->samples;
    return (size_t)(samples ? 8 : 2) << 19;
}

bool plan_make(const Recipe *r, json_t **out, Err *err) {
    ModelConfig c;
    double rate, total = 0;
    size_t available;
    TRY(plan_config(r, &c, err));
    TRY(probe_flops(recipe_device(r), r->precision, r->threads, 256, 512, 512, 0.1, &rate, &available, err));
    PlanMemory m;
    PlanChoice choice = {.precision = r->precision, .on_host = available == SIZE_MAX, .limit = INT64_MAX};
    if (!choice.on_host && recipe_samples_int8(r))
        return fail(err, ERR_UNAVAILABLE, "rollout.precision", "found int8, which is for the CPU only; this device wants \"same\"");
    for (int i = 0; i < r->stage_count; i++)
        if (r->stages[i].activations == RETAIN_ALWAYS && (!choice.on_host || !config_can_retain(&c)))
            return fail(err, ERR_UNAVAILABLE, "rollout.activations", "stage '%s': found keep, which is for dense models on the CPU; expected drop or auto", r->stages[i].name);
    PlanLength *lengths = xcalloc((size_t)r->stage_count + 1, sizeof *lengths);
    plan_lengths(r, lengths);
    bool ok = plan_memory(&c, r, lengths, &choice, &m, err) && check_room(&c, r, lengths, choice, &m, available, err);
    free(lengths);
    TRY(ok);
    json_t *stages = json_array();
    for (int i = 0; i < r->stage_count; i++)
        json_array_append_new(stages, stage_plan(&c, r, &r->stages[i], r->chat ? 64 : 16, &total));
    // Resident at the most: the program as it stands now, what the policy asks for, and a tensor on its way to a file.
    size_t held = m.weights + m.pass + m.cache, start = m.weights + m.largest, moving = r->lora.rank > 0 ? 0 : m.largest;
    size_t peak = memory_peak_bytes() + program_bytes(r) + (held + moving > start ? held + moving : start);
    *out = json_pack("{s:I,s:{s:I,s:I,s:I,s:I,s:I,s:s},s:o,s:f,s:f,s:f}", "parameters", (json_int_t)config_parameters(&c), "memory",
                     "weights_and_optimizer", (json_int_t)m.weights, "training_pass", (json_int_t)m.pass, "cache", (json_int_t)m.cache,
                     "total", (json_int_t)(m.weights + m.pass + m.cache), "peak", (json_int_t)peak, "assumes",
                     "completions reach max_tokens; prompts are as long as the longest of the first items", "stages", stages, "flops", total, "probe_flops_per_second",
                     rate, "seconds", total / (rate * STEP_SHARE));
    Cores cores = cores_find();
    json_object_set_new(*out, "cores", json_pack("{s:i,s:i,s:o,s:i}", "allowed", cores.allowed, "usable", cores.usable, "control_group",
                                                 cores.where[0] ? json_real(cores.limit) : json_null(), "threads", r->threads ? r->threads : cores.usable));
    return true;
}

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void print_endpoint(const json_t *e) {
    char money[80] = "no price of tokens is stated";
    if (!e) return;
    if (json_is_number(json_object_get(e, "money_at_most")))
        snprintf(money, sizeof money, "at most %.4g %.16s", number(e, "money_at_most"), json_string_value(json_object_get(e, "currency")) ?: "");
    log_line(LOG_INFO, "plan: %.0f requests to %s for %s, about %.3g tokens in, at most %.3g out: %s", number(e, "requests"),
             json_string_value(json_object_get(e, "host")), json_string_value(json_object_get(e, "model")), number(e, "prompt_tokens"),
             number(e, "new_tokens_at_most"), money);
}

void plan_print(const json_t *plan) {
    const json_t *memory = json_object_get(plan, "memory"), *stage;
    size_t i;
    log_line(LOG_INFO, "plan: %.2f M parameters; memory at most %.0f MiB (weights and optimizer %.0f, training pass %.0f, cache %.0f)",
             number(plan, "parameters") / 1e6, number(memory, "total") / 1048576, number(memory, "weights_and_optimizer") / 1048576,
             number(memory, "training_pass") / 1048576, number(memory, "cache") / 1048576);
    json_array_foreach(json_object_get(plan, "stages"), i, stage) {
        log_line(LOG_INFO, "plan: stage '%s': %s%.0f steps of %.0f x %.0f samples, at most %.3g FLOPs", json_string_value(json_object_get(stage, "name")),
                 json_is_true(json_object_get(stage, "at_most")) ? "at most " : "", number(stage, "steps"), number(stage, "prompts"), number(stage, "group_size"), number(stage, "flops"));
        print_endpoint(json_object_get(stage, "endpoint"));
    }
    const json_t *cores = json_object_get(plan, "cores");
    char limit[64] = "";
    if (json_is_real(json_object_get(cores, "control_group"))) snprintf(limit, sizeof limit, ", whose control group gives it time for %.3g", number(cores, "control_group"));
    log_line(LOG_INFO, "plan: %.0f threads; this process may run on %.0f cores%s", number(cores, "threads"), number(cores, "allowed"), limit);
    log_line(LOG_INFO, "plan: %.3g FLOPs at most, about %.0f min on this machine (estimate)", number(plan, "flops"), number(plan, "seconds") / 60);
}
