// Arms answer: model after model, each opened once, its arms in their order, so that what an arm is measured by (think's tokens,
// which pay for votes) is known when its turn comes. All arms get the same items; the draws of one are forgotten before the next.
#include "accounts.h"
#include "compare_run.h"
#include "files.h"
#include "recipe_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- judges --------------------------------------------------------------------------------------------------
static bool judge_add(const char *name, const Recipe *r, Judges *out, Err *err) {
    for (int i = 0; i < out->count; i++)
        if (!strcmp(out->name[i], name)) return true;
    if (out->count == COUNT(out->name)) return fail(err, ERR_USAGE, name, "more than %d reward scripts choose among answers", COUNT(out->name));
    Arena paths = {0};
    size_t n = strlen(name);
    bool is_path = n > 4 && !strcmp(name + n - 4, ".lua");
    RewardSpec spec = {.script = is_path ? recipe_locate(&paths, r->folder, ".", name) : name, .weight = 1};
    bool ok = reward_pool_open(&spec, 1, r->reward_workers, &r->reward_limits, &out->pool[out->count], err);
    if (ok) out->name[out->count++] = xstrdup(name);
    arena_reset(&paths);
    return ok;
}
bool judges_open(const char *const *arms, const Recipe *r, Judges *out, Err *err) {
    *out = (Judges){0};
    for (; arms && *arms; arms++) {
        const char *at = strstr(*arms, ":best="), *comma = at ? strchr(at, ',') : NULL;
        if (comma && comma[1] && !judge_add(comma + 1, r, out, err)) {
            judges_close(out);
            return false;
        }
    }
    return true;
}
void judges_close(Judges *j) {
    for (int i = 0; i < j->count; i++) reward_pool_close(j->pool[i]), free(j->name[i]);
    *j = (Judges){0};
}
static RewardPool *judge_of(const Judges *j, const Arm *arm) {
    for (int i = 0; arm->reward && j && i < j->count; i++)
        if (!strcmp(j->name[i], arm->reward)) return j->pool[i];
    return NULL;
}

// ---- one arm -------------------------------------------------------------------------------------------------
typedef struct Runner {
    const CompareSetup *setup;
    Comparison *c;
    Energy *energy;
    int model;
    Policy *policy;
    Endpoint *endpoint; // instead of a policy
    bool metered;       // a model's device has a meter of its own
    const Recipe *recipe;
    Evaluation greedy[MODES]; // of this model's think and direct arms, kept for its router; count 0: not yet
} Runner;

// Direct answers that think's tokens pay for, at each level: at least one.
static void equal_cost_draws(const ArmResult *think, const ArmResult *direct, int seeds, int levels, int *out) {
    double *t = xcalloc((size_t)levels + 1, sizeof *t), *d = xcalloc((size_t)levels + 1, sizeof *d);
    for (int i = 0; i < think->count; i++) {
        t[think->items[i].level] += think->items[i].tokens;
        d[direct->items[i].level] += direct->items[i].tokens;
    }
    for (int l = 0; l < levels; l++) {
        double k = d[l] > 0 ? floor(t[l] / d[l]) : 1;
        out[l] = (int)fmin(fmax(k, 1), 256) * seeds;
    }
    free(t), free(d);
}

static bool evaluate_arm(const Runner *r, const Arm *arm, const EvaluateOptions *o, Evaluation *e, Err *err) {
    if (!r->endpoint) return evaluate_with(r->policy, r->recipe, r->setup->tasks, r->setup->rewards, o, e, err);
    EndpointAnswers answers;
    TRY(evaluate_endpoint(r->endpoint, r->recipe, r->setup->tasks, r->setup->rewards, o, e, &answers, err));
    if (answers.failed)
        json_array_append_new(r->c->notes, json_sprintf("%d of %d requests of %s weren't answered and count as wrong, with no tokens; the first: %s",
                                                        answers.failed, answers.asked, arm->name, answers.problem));
    return true;
}
static bool time_arm(const Runner *r, const EvaluateOptions *o, ArmResult *out, Err *err) {
    out->latency = xcalloc((size_t)r->setup->latency, sizeof(double));
    if (r->endpoint) return endpoint_latency(r->endpoint, r->recipe, r->setup->tasks, o, r->setup->latency, out->latency, &out->latency_count, err);
    return evaluate_latency(r->policy, r->recipe, r->setup->tasks, r->setup->rewards, o, r->setup->latency, out->latency, &out->latency_count, err);
}
static bool answer_arm(Runner *r, int index, Err *err) {
    const Arm *arm = &r->c->arms.arms[index];
    ArmResult *out = &r->c->results[index];
    Sampling sampling = r->setup->recipe->evaluate_sampling;
    bool greedy = arm->strategy == STRATEGY_GREEDY, usual = greedy && !arm->budget;
    int *draws = xcalloc((size_t)r->c->levels + 1, sizeof *draws);
    sampling.temperature = arm->temperature;
    if (arm->budget && (sampling.think_tokens == 0 || sampling.think_tokens > arm->budget)) sampling.think_tokens = arm->budget;
    EvaluateOptions o = {.mode = arm->mode, .items = r->setup->items, .samples = greedy ? 0 : arm->k * arm->seeds, .sampling = &sampling,
                         .detail = true, .energy = r->energy};
    if (arm->equal_to >= 0) {
        int direct = arm_find(&r->c->arms, r->model, STRATEGY_GREEDY, MODE_DIRECT, 0);
        equal_cost_draws(&r->c->results[arm->equal_to], &r->c->results[direct], arm->seeds, r->c->levels, draws);
        o.level_samples = draws;
    }
    Evaluation e;
    log_line(LOG_INFO, "comparing: %s answers the held-out items", arm->name);
    bool ok = evaluate_arm(r, arm, &o, &e, err);
    if (ok) {
        ok = arm_result(arm, &e, r->c->levels, judge_of(r->setup->judges, arm), r->c->seed, out, err);
        if (ok && out->unjudged > 0)
            json_array_append_new(r->c->notes, json_sprintf("the script of %s failed on %lld of %lld draws, which couldn't be chosen; the first: %s", arm->name,
                                                            (long long)out->unjudged, (long long)out->judged, out->unjudged_why));
        if (ok && r->c->samples) ok = samples_append(r->c->samples, arm, &e, r->policy ? policy_tokenizer(r->policy) : NULL, err);
        if (ok && r->setup->latency > 0) {
            o.samples = greedy ? 0 : arm->k; // of one answer, not of every seed's
            for (int l = 0; l < r->c->levels; l++) draws[l] /= arm->seeds;
            ok = time_arm(r, &o, out, err);
        }
        if (ok && usual) r->greedy[arm->mode] = e;
        else evaluation_free(&e);
    }
    free(draws);
    return ok;
}
static bool answer_routed(Runner *r, const ModelChoice *choice, int index, Err *err) {
    const Comparison *c = r->c;
    int think = arm_find(&c->arms, r->model, STRATEGY_GREEDY, MODE_THINK, 0), direct = arm_find(&c->arms, r->model, STRATEGY_GREEDY, MODE_DIRECT, 0);
    RouterSetup s = {.compare = r->setup, .choice = choice, .policy = r->policy, .think = &r->greedy[MODE_THINK], .direct = &r->greedy[MODE_DIRECT],
                     .think_result = &c->results[think], .direct_result = &c->results[direct], .energy = r->energy};
    return router_compare(&s, &r->c->models[r->model], &r->c->results[index], err);
}

// ---- one model -----------------------------------------------------------------------------------------------
static bool describe_model(Runner *r, Err *err) {
    ComparedModel *m = &r->c->models[r->model];
    const char *device = r->setup->device ? r->setup->device : recipe_device(r->recipe);
    m->parameters = config_parameters(policy_config(r->policy));
    m->device = xstrdup(device ? device : "default");
    snprintf(m->variant, sizeof m->variant, "%s", policy_variant(r->policy));
    return policy_hash(r->policy, m->hash, err);
}
static bool answer_arms(Runner *r, const ModelChoice *choice, Err *err) {
    bool ok = true;
    for (int i = 0; ok && i < r->c->arms.count; i++) {
        if (r->c->arms.arms[i].model != r->model) continue;
        ok = r->c->arms.arms[i].strategy == STRATEGY_ROUTED ? answer_routed(r, choice, i, err) : answer_arm(r, i, err);
    }
    for (Mode m = 0; m < MODES; m++) evaluation_free(&r->greedy[m]);
    return ok;
}
static bool same_words(const PromptStyle *a, const PromptStyle *b) {
    const char *x[] = {a->system, a->instruction}, *y[] = {b->system, b->instruction};
    for (int i = 0; i < 2; i++)
        if ((x[i] != NULL) != (y[i] != NULL) || (x[i] && strcmp(x[i], y[i]) != 0)) return false;
    return true;
}
static bool answer_endpoint(Runner *r, const ModelChoice *choice, Err *err) {
    ComparedModel *m = &r->c->models[r->model];
    r->policy = NULL, r->recipe = choice->recipe;
    snprintf(m->variant, sizeof m->variant, "%.63s", choice->endpoint->model);
    TRY(endpoint_open(choice->endpoint, &r->endpoint, err));
    json_array_append_new(r->c->notes, json_sprintf("%s answers over the network: another time its answers may differ, and its tokens are another tokenizer's", choice->name));
    if (r->recipe->chat && same_words(&r->recipe->style[MODE_THINK], &r->recipe->style[MODE_DIRECT]))
        json_array_append_new(r->c->notes, json_sprintf("the recipe has no words of its own for a mode: %s was asked the same in both", choice->name));
    if (r->recipe->evaluate_sampling.think_tokens > 0)
        json_array_append_new(r->c->notes, json_sprintf("the thinking of %s wasn't closed after evaluate.think_tokens: an endpoint's can't be", choice->name));
    bool ok = answer_arms(r, choice, err);
    endpoint_close(r->endpoint);
    r->endpoint = NULL;
    return ok;
}
static bool answer_model(Runner *r, const ModelChoice *choice, Err *err) {
    if (choice->endpoint) return answer_endpoint(r, choice, err);
    const Recipe *own = choice->recipe;
    PolicyOptions options = {.precision = own->precision, .threads = own->threads, .device = r->setup->device ? r->setup->device : recipe_device(own),
                             .keep_blocks = own->keep_blocks};
    bool opened = !choice->policy, ok = true;
    r->policy = choice->policy;
    r->recipe = own;
    if (opened) ok = policy_open(choice->path, &options, &r->policy, err);
    if (!ok) return false;
    if (choice->has_adapter) policy_use_adapter(r->policy, choice->adapter);
    energy_watch(r->energy, r->policy);
    r->metered = r->metered || isfinite(energy_device_joules(r->energy));
    ok = describe_model(r, err);
    ok = ok && answer_arms(r, choice, err);
    energy_watch(r->energy, NULL);
    if (opened) policy_close(r->policy);
    return ok;
}

// ---- the model before GRPO -----------------------------------------------------------------------------------
// The step at which the last GRPO stage that follows other stages began, where its checkpoint is still there.
static char *checkpoint_before_grpo(const Recipe *r, int64_t final_step, int64_t *step) {
    int64_t at = 0, found = 0;
    for (int i = 0; i < r->stage_count; i++) {
        if (r->stages[i].kind == STAGE_GRPO && i > 0 && r->stages[i - 1].kind != STAGE_GRPO) found = at;
        at += r->stages[i].steps;
    }
    if (found <= 0 || found >= final_step || !r->run_folder) return NULL;
    char *folder = xasprintf("%s/checkpoints/step-%lld", r->run_folder, (long long)found);
    *step = found;
    if (file_is_folder(folder)) return folder;
    free(folder);
    return NULL;
}
static bool answer_before(Runner *r, const char *folder, Err *err) {
    const Recipe *recipe = r->setup->recipe;
    PolicyOptions options = {.precision = recipe->precision, .threads = recipe->threads, .keep_blocks = recipe->keep_blocks,
                             .beside = r->setup->models[0].policy, .device = r->setup->device ? r->setup->device : recipe_device(recipe)};
    Policy *before;
    TRY(policy_open(folder, &options, &before, err));
    energy_watch(r->energy, before);
    bool ok = true;
    for (Mode m = 0; ok && m < MODES; m++) {
        Arm arm = {.mode = m, .strategy = STRATEGY_GREEDY, .k = 1, .seeds = 1, .equal_to = -1};
        EvaluateOptions o = {.mode = m, .items = r->setup->items, .energy = r->energy};
        Evaluation e;
        log_line(LOG_INFO, "comparing: the model before GRPO answers the held-out items in %s mode", mode_names[m]);
        ok = evaluate_with(before, recipe, r->setup->tasks, r->setup->rewards, &o, &e, err);
        if (!ok) break;
        ok = arm_result(&arm, &e, r->c->levels, NULL, r->c->seed, &r->c->before[m], err);
        evaluation_free(&e);
    }
    energy_watch(r->energy, NULL);
    policy_close(before);
    return ok;
}
static bool answer_gain(Runner *r, Err *err) {
    int arm[MODES];
    for (Mode m = 0; m < MODES; m++) arm[m] = arm_find(&r->c->arms, 0, STRATEGY_GREEDY, m, 0);
    if (!r->setup->gain || r->setup->step < 0 || arm[MODE_THINK] < 0 || arm[MODE_DIRECT] < 0) return true;
    char *folder = checkpoint_before_grpo(r->setup->recipe, r->setup->step, &r->c->before_step);
    if (!folder) r->c->before_step = -1;
    bool ok = !folder || answer_before(r, folder, err);
    for (Mode m = 0; m < MODES; m++) r->c->after[m] = r->c->results[arm[m]];
    free(folder);
    return ok;
}

// ---- all of it -----------------------------------------------------------------------------------------------
static void training_bill(const ModelChoice *m, TrainingBill *out) {
    json_t *cost;
    Err err = {0};
    *out = (TrainingBill){0};
    if (m->step < 0 || !m->recipe->run_folder) return;
    if (!cost_run(m->recipe->run_folder, &cost, &err)) {
        snprintf(out->problem, sizeof out->problem, "%.100s: %.250s", err.where, err.msg);
        return;
    }
    const json_t *total = json_object_get(cost, "total");
    const char *keys[] = {"seconds", "joules", "flops"};
    double *to[] = {&out->seconds, &out->joules, &out->flops};
    for (int i = 0; i < COUNT(keys); i++) {
        const json_t *figure = json_object_get(total, keys[i]), *v = json_object_get(figure, "value"), *source = json_object_get(figure, "source");
        bool stated = json_is_string(source) && !strcmp(json_string_value(source), "stated"); // watts are ours to apply
        *to[i] = json_is_number(v) && !stated ? json_number_value(v) : NAN;
    }
    out->known = isfinite(out->seconds);
    json_decref(cost);
}
void compare_defaults(const Recipe *r, CompareSetup *out) {
    *out = (CompareSetup){.recipe = r, .arms = (const char *const *)r->compare_arms, .items = r->compare_items, .seeds = r->compare_seeds,
                          .latency = r->compare_latency, .temperature = r->evaluate_sampling.temperature, .margin = r->compare_margin,
                          .worth = r->compare_worth, .gain = true, .step = -1};
    if (!(out->temperature > 0)) out->temperature = 1;
    prices_of_recipe(r, &out->prices);
}

// What an endpoint can't do is said before anything is answered.
static bool check_arm(const CompareSetup *s, const Arm *arm, Err *err) {
    if (arm->reward && !judge_of(s->judges, arm)) return fail(err, ERR_USAGE, arm->name, "its reward script has no worker");
    if (!s->models[arm->model].endpoint) return true;
    if (arm->budget)
        return fail(err, ERR_USAGE, arm->name, "an endpoint's thinking can't be closed after so many tokens; name a model of yours, as MODEL/think@%d", arm->budget);
    if (arm->strategy == STRATEGY_ROUTED)
        return fail(err, ERR_USAGE, arm->name, "an endpoint doesn't tell the log-probabilities that a router looks at; name a model of yours, as MODEL/routed");
    return true;
}
static bool start(const CompareSetup *s, Comparison *c, Err *err) {
    const char **names = xcalloc((size_t)s->model_count + 1, sizeof *names);
    c->models = xcalloc((size_t)s->model_count + 1, sizeof *c->models);
    c->model_count = s->model_count;
    for (int i = 0; i < s->model_count; i++) {
        const ModelChoice *m = &s->models[i];
        names[i] = m->name;
        c->models[i] = (ComparedModel){.name = xstrdup(m->name), .path = m->path ? xstrdup(m->path) : NULL, .what = m->what, .step = m->step};
    }
    ArmDefaults d = {.models = names, .model_count = s->model_count, .seeds = s->seeds, .temperature = s->temperature,
                     .max_tokens = s->recipe->evaluate_sampling.max_tokens};
    bool ok = arms_parse(s->arms, &d, &c->arms, err);
    c->results = xcalloc((size_t)c->arms.count + 1, sizeof *c->results);
    for (int i = 0; ok && i < c->arms.count; i++) ok = check_arm(s, &c->arms.arms[i], err);
    free(names);
    return ok;
}
static void finish(Comparison *c) {
    for (int i = 0; i < c->arms.count; i++) arm_result_free(&c->results[i]);
    for (Mode m = 0; m < MODES; m++) arm_result_free(&c->before[m]);
    for (int i = 0; i < c->model_count; i++) {
        free(c->models[i].name), free(c->models[i].path), free(c->models[i].device), free(c->models[i].router_file);
        json_decref(c->models[i].router);
    }
    arms_free(&c->arms);
    free(c->models), free(c->results);
    json_decref(c->notes);
    json_decref(c->samples);
}
bool compare_models(const CompareSetup *s, json_t **out, Err *err) {
    double began = clock_seconds();
    Comparison c = {.name = s->recipe->name, .recipe_hash = s->recipe->hash, .seed = s->recipe->seed, .levels = tasks_level_count(s->tasks),
                    .step = s->step, .before_step = -1, .margin = s->margin, .worth = s->worth, .prices = s->prices, .latency_items = s->latency,
                    .energy = "RAPL", .notes = s->notes ? json_incref(s->notes) : json_array(), .samples = s->samples ? json_array() : NULL};
    TaskLevel *levels = xcalloc((size_t)c.levels + 1, sizeof *levels);
    for (int i = 0; i < c.levels; i++) tasks_level(s->tasks, i, &levels[i]);
    c.level = levels;
    Runner r = {.setup = s, .c = &c, .energy = energy_open(NULL, NULL)};
    *out = NULL;
    bool ok = start(s, &c, err);
    for (r.model = 0; ok && r.model < s->model_count; r.model++) ok = answer_model(&r, &s->models[r.model], err);
    ok = ok && answer_gain(&r, err);
    if (ok) {
        for (int i = 0; i < c.model_count; i++) training_bill(&s->models[i], &c.models[i].training);
        c.spent_seconds = clock_seconds() - began, c.spent_joules = energy_joules(r.energy);
        c.spent_device_joules = r.metered ? energy_device_joules(r.energy) : NAN;
        if (r.metered) c.energy = "RAPL and NVML";
        *out = comparison_json(&c);
        if (!*out) ok = fail(err, ERR_DATA, s->recipe->name, "a name, a task's kind or the currency isn't UTF-8");
    }
    energy_close(r.energy);
    finish(&c);
    free(levels);
    return ok;
}

bool compare_run(Policy *policy, const Recipe *r, const Tasks *t, RewardPool *rewards, const Judges *judges, Ledger *ledger, int64_t step,
                 json_t **out, Err *err) {
    CompareSetup s;
    compare_defaults(r, &s);
    char *path = r->run_folder ? xasprintf("%s/checkpoints/step-%lld", r->run_folder, (long long)step) : NULL;
    ModelChoice model = {.name = r->name, .path = path, .what = "run", .recipe = r, .policy = policy, .step = step};
    s.tasks = t, s.rewards = rewards, s.judges = judges, s.models = &model, s.model_count = 1, s.step = step;
    bool ok = compare_models(&s, out, err);
    if (ok && ledger)
        ok = ledger_evaluation(ledger, step, "compare", json_object_get(*out, "replayable"), json_object_get(*out, "measured"), err);
    free(path);
    if (!ok && *out) json_decref(*out), *out = NULL;
    return ok;
}
