// `reckon compare`: arms on the same held-out items. A target is a run, a recipe, a model's folder or file; the first says what is
// asked (or --recipe does), and each is asked in the words of its own recipe.
#include "adapters.h"
#include "command.h"
#include "compare_run.h"
#include "files.h"
#include "target.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODELS = 64 };

typedef struct Chosen {
    Target targets[MAX_MODELS];
    char *names[MAX_MODELS];
    ModelChoice models[MAX_MODELS];
    EndpointOptions endpoints[MAX_MODELS]; // of models that are asked over HTTP
    char *urls[MAX_MODELS];
    int count; // of models; with adapters, of targets[0] with each of them
    AdapterList adapters;
    Policy *policy; // of targets[0], with adapters
    Tasks *tasks;
    RewardPool *rewards;
    Judges judges;
    json_t *notes;
} Chosen;

static int64_t last_step(const Recipe *r) {
    int64_t steps = 0;
    for (int i = 0; i < r->stage_count; i++) steps += r->stages[i].steps;
    return steps;
}

// ---- which models ------------------------------------------------------------------------------------------
static char *name_of(const Target *t) {
    if (t->run_folder) return xstrdup(t->recipe->name);
    size_t n = strlen(t->model), start;
    while (n > 1 && t->model[n - 1] == '/') n--;
    for (start = n; start > 0 && t->model[start - 1] != '/'; start--) {}
    return xstrndup(t->model + start, n - start);
}
static const char *kind_of(const Target *t) {
    size_t n = strlen(t->model);
    char *adapter = path_join(t->model, "adapter_config.json");
    bool is_adapter = file_exists(adapter);
    free(adapter);
    if (t->run_folder) return "run";
    if (n > 5 && !strcmp(t->model + n - 5, ".gguf")) return "gguf";
    if (is_adapter) return "adapter";
    return strstr(t->model, "/checkpoints/step-") ? "checkpoint" : "model";
}
// Two of one name are told apart by a number; takes `name`.
static char *distinct_name(const Chosen *c, char *name) {
    char *out = xstrdup(name);
    for (int number = 2, i = 0; i < c->count; i++) {
        if (strcmp(c->names[i], out) != 0) continue;
        free(out);
        out = xasprintf("%s-%d", name, number++);
        i = -1;
    }
    free(name);
    return out;
}
static bool is_url(const char *text) { return !strncmp(text, "http://", 7) || !strncmp(text, "https://", 8); }
// "[NAME=]https://host/v1#MODEL": asked in the words of the first target's recipe.
static bool add_endpoint(const Args *args, Chosen *c, const char *text, const char *url, Err *err) {
    const char *model = strchr(url, '#');
    if (!model || !model[1]) return fail(err, ERR_USAGE, text, "expected #MODEL behind the URL: the model as the endpoint names it");
    if (c->count == 0) return fail(err, ERR_USAGE, text, "expected a run, a recipe or a model before an endpoint: it says what is asked");
    int at = c->count;
    const char *short_name = strrchr(model, '/') && strrchr(model, '/')[1] ? strrchr(model, '/') + 1 : model + 1;
    c->urls[at] = xstrndup(url, (size_t)(model - url));
    c->endpoints[at] = (EndpointOptions){.url = c->urls[at], .model = model + 1, .key_env = args_text(args, "endpoint-key-env", NULL), .retries = -1};
    Endpoint *probe; // a wrong URL or an empty key is said before models are loaded
    TRY(endpoint_open(&c->endpoints[at], &probe, err));
    endpoint_close(probe);
    c->names[at] = distinct_name(c, url > text ? xstrndup(text, (size_t)(url - text - 1)) : xstrdup(short_name));
    c->models[at] = (ModelChoice){.name = c->names[at], .path = c->urls[at], .what = "endpoint", .recipe = c->targets[0].recipe, .step = -1,
                                  .endpoint = &c->endpoints[at]};
    c->count++;
    return true;
}
static bool add_model(const Args *args, Chosen *c, const char *text, bool may_be_named, Err *err) {
    if (c->count == MAX_MODELS) return fail(err, ERR_USAGE, "compare", "expected at most %d models", MAX_MODELS);
    static const char *const no_sets[] = {NULL};
    Recipe *first = c->count ? c->targets[0].recipe : NULL;
    Target *t = &c->targets[c->count];
    const char *equals = may_be_named && !is_url(text) && !file_exists(text) ? strchr(text, '=') : NULL, *path = equals ? equals + 1 : text;
    if (is_url(path)) return add_endpoint(args, c, text, path, err);
    if (!strcmp(path, "base")) {
        if (!first || !first->model_path) return fail(err, ERR_USAGE, text, "expected a recipe before it whose model has a path");
        path = first->model_path;
    }
    TRY(target_find(path, args_text(args, "recipe", NULL), first, first ? no_sets : args_list(args, "set"), t, err));
    c->names[c->count] = distinct_name(c, equals ? xstrndup(text, (size_t)(equals - text)) : name_of(t));
    c->models[c->count] = (ModelChoice){.name = c->names[c->count], .path = t->model, .what = kind_of(t), .recipe = t->recipe,
                                        .step = t->run_folder ? t->step : -1};
    c->count++;
    return true;
}

// What another run held out may have been among what this one was trained on.
static void note_other_tasks(Chosen *c) {
    for (int i = 1; i < c->count; i++) {
        if (c->models[i].endpoint) continue;
        const Recipe *a = c->targets[0].recipe, *b = c->targets[i].recipe;
        bool same = json_equal(json_object_get(a->resolved, "tasks"), json_object_get(b->resolved, "tasks")) && a->held_out == b->held_out;
        if (!same) json_array_append_new(c->notes, json_sprintf("%s was made with other tasks or another share held out: items here may have been among those it was trained on", c->names[i]));
    }
}

// ---- opening -----------------------------------------------------------------------------------------------
// Reward workers are forked before weights are loaded and threads started.
static bool open_items(const Args *args, Chosen *c, const char *const *arms, Err *err) {
    const Recipe *r = c->targets[0].recipe;
    note_other_tasks(c);
    TRY(tasks_open(r, &c->tasks, err));
    TRY(reward_pool_open(r->rewards, r->reward_count, r->reward_workers, &r->reward_limits, &c->rewards, err));
    TRY(judges_open(arms, r, &c->judges, err));
    if (!args_list(args, "adapter")[0]) return true;
    if (c->count > 1) return fail(err, ERR_USAGE, "--adapter", "found several models beside adapters, expected one base");
    PolicyOptions options = {.precision = r->precision, .threads = r->threads, .device = args_text(args, "device", recipe_device(r)), .keep_blocks = r->keep_blocks};
    TRY(policy_open(c->targets[0].model, &options, &c->policy, err) && adapters_open(args, c->policy, &c->adapters, err));
    for (int i = 0; i < c->adapters.count; i++)
        c->models[i] = (ModelChoice){.name = c->adapters.name[i], .what = c->adapters.index[i] < 0 ? c->models[0].what : "adapter", .recipe = r,
                                     .policy = c->policy, .has_adapter = true, .adapter = c->adapters.index[i], .step = -1};
    c->count = c->adapters.count;
    return true;
}
static void close_all(Chosen *c) {
    judges_close(&c->judges);
    adapters_free(&c->adapters);
    if (c->policy) policy_close(c->policy);
    if (c->rewards) reward_pool_close(c->rewards);
    if (c->tasks) tasks_close(c->tasks);
    for (int i = MAX_MODELS - 1; i >= 0; i--) { // the first owns the recipe of those without one
        free(c->names[i]), free(c->urls[i]);
        target_close(&c->targets[i]);
    }
    json_decref(c->notes);
}

// ---- the comparison ----------------------------------------------------------------------------------------
static bool options_of(const Args *args, const Chosen *c, CompareSetup *out, Err *err) {
    const Recipe *r = c->targets[0].recipe;
    compare_defaults(r, out);
    if (args_list(args, "arm")[0]) out->arms = args_list(args, "arm");
    out->tasks = c->tasks, out->rewards = c->rewards, out->judges = &c->judges, out->models = c->models, out->model_count = c->count;
    out->device = args_text(args, "device", NULL);
    out->items = (int)args_int(args, "items", out->items > 0 ? out->items : 400);
    out->seeds = (int)args_int(args, "seeds", out->seeds);
    out->latency = (int)args_int(args, "latency", out->latency);
    out->temperature = args_number(args, "temperature", out->temperature);
    out->margin = args_number(args, "margin", 100 * out->margin) / 100;
    out->worth = args_number(args, "worth", out->worth);
    out->samples = args_flag(args, "samples");
    out->notes = c->notes;
    out->step = c->models[0].step;
    out->gain = c->count == 1;
    return !args_given(args, "prices") || prices_read(args_text(args, "prices", NULL), &out->prices, err);
}
// The comparison of a finished run, with the recipe's own settings, is part of what the run came to and goes on its ledger. That of
// one that will go on would make its chain differ from that of an uninterrupted run, so it doesn't.
static bool is_the_runs_own(const Args *args, const Chosen *c) {
    static const char *const changes[] = {"items", "margin", "seeds", "temperature"};
    bool own = c->count == 1 && !c->policy && c->targets[0].run_folder && c->targets[0].step == last_step(c->targets[0].recipe);
    for (int i = 0; i < COUNT(changes); i++) own = own && !args_given(args, changes[i]);
    return own && !args_list(args, "arm")[0];
}
static bool keep_on_ledger(const Target *t, const json_t *document, Err *err) {
    int lock;
    Ledger *ledger;
    TRY(run_lock(t->run_folder, &lock, err));
    bool ok = ledger_open(t->run_folder, true, &ledger, err);
    if (ok) {
        ok = ledger_evaluation(ledger, t->step, "compare", json_object_get(document, "replayable"), json_object_get(document, "measured"), err);
        ledger_close(ledger);
    }
    run_unlock(lock);
    return ok;
}
static bool save(const char *path, const json_t *document, Err *err) {
    Buf text = {0};
    json_write(document, &text);
    buf_puts(&text, "\n");
    bool ok = file_write_atomic(path, text.data, text.size, err);
    buf_free(&text);
    return ok;
}
static bool compare(const Args *args, Chosen *c, Err *err) {
    CompareSetup setup;
    json_t *out = NULL;
    const char *file = args_text(args, "save", NULL);
    TRY(options_of(args, c, &setup, err) && compare_models(&setup, &out, err));
    bool ok = !is_the_runs_own(args, c) || keep_on_ledger(&c->targets[0], out, err);
    ok = ok && (!file || save(file, out, err));
    if (ok && args_flag(args, "json")) ok = print_json(out, err);
    else if (ok) compare_print(out);
    json_decref(out);
    return ok;
}

static bool run(const Args *args, Err *err) {
    Chosen *c = xcalloc(1, sizeof *c);
    const char *const *more = args_list(args, "model");
    bool ok = args->positional_count > 0 || more[0] || fail(err, ERR_USAGE, "compare", "expected a run, a recipe or a model");
    c->notes = json_array();
    for (int i = 0; ok && i < args->positional_count; i++) ok = add_model(args, c, args->positional[i], false, err);
    for (; ok && *more; more++) ok = add_model(args, c, *more, true, err);
    if (ok) {
        const char *const *arms = args_list(args, "arm")[0] ? args_list(args, "arm") : (const char *const *)c->targets[0].recipe->compare_arms;
        ok = open_items(args, c, arms, err) && compare(args, c, err);
    }
    close_all(c);
    free(c);
    return ok;
}

static const Option options[] = {
    {.name = "model", .kind = OPTION_LIST, .value = "[NAME=]M", .help = "one more model on the same items: a run, a checkpoint, a folder, a .gguf; 'base': the recipe's own; an endpoint (below)"},
    {.name = "endpoint-key-env", .kind = OPTION_TEXT, .value = "VAR", .help = "environment variable with the key of endpoints; the key is kept nowhere"},
    {.name = "recipe", .kind = OPTION_TEXT, .value = "FILE", .help = "tasks, prompts and rewards for a MODEL"},
    {.name = "arm", .kind = OPTION_LIST, .value = "ARM", .help = "what is compared (below); default: the recipe's compare.arms, else think and direct"},
    {.name = "items", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "held-out items of each task and level (default: the recipe's compare.items)", .low = 1, .high = 1e6},
    {.name = "margin", .kind = OPTION_NUMBER, .value = "POINTS", .help = "a difference within it makes none (2)", .low = 0, .high = 50},
    {.name = "worth", .kind = OPTION_NUMBER, .value = "W", .help = "of a correct answer, in the prices' currency", .low = 0, .high = 1e9},
    {.name = "prices", .kind = OPTION_TEXT, .value = "FILE", .help = "price sheet in JSON: currency, source, price_per_hour, price_per_kwh, million_tokens_in, million_tokens_out, watts"},
    {.name = "seeds", .kind = OPTION_INT, .value = "N", .help = "of arms that sample (3)", .low = 1, .high = 64},
    {.name = "temperature", .kind = OPTION_NUMBER, .value = "T", .help = "of arms that sample (the recipe's evaluate.temperature)", .low = 1e-3, .high = 10},
    {.name = "latency", .kind = OPTION_INT, .value = "N", .help = "items answered one at a time, to time them (10)", .low = 0, .high = 10000},
    {.name = "samples", .kind = OPTION_FLAG, .help = "the document keeps every answer, word for word"},
    {.name = "save", .kind = OPTION_TEXT, .value = "FILE", .help = "keep the document, for 'reckon report FILE'"},
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe"},
    OPTION_ADAPTERS,
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};
const Command command_compare = {
    .name = "compare",
    .summary = "is thinking worth it? arms on the same held-out items, with intervals, costs and verdicts",
    .usage = "[RUN|RECIPE|MODEL...] [--model M]... [--arm ARM]... [options]",
    .detail = "Every arm answers the same held-out items. Prints, for each level, accuracy (Wilson 95 %), tokens, FLOPs, seconds and the\n"
              "cost of a correct answer; for each pair of arms the paired difference (bootstrap 95 %, McNemar's exact test, Holm's\n"
              "correction) and a verdict. Where a run keeps its checkpoint from before GRPO, also what GRPO added. The result of a\n"
              "finished run, with the recipe's own settings, goes on its ledger.\n"
              "ARM is think or direct, as it is (greedy), with thinking closed after N tokens (think@64), or with a strategy:\n"
              "direct:sampled, direct:majority=8, think:best=4,REWARD. Or: votes (as many direct votes as think's tokens pay for), budgets\n"
              "or budgets=16,32 (think at each), routed (a router fitted on items of its own; kept beside the weights). MODEL/ARM is one model's.\n"
              "A model may be an OpenAI-compatible endpoint: --model NAME=https://host/v1#MODEL, asked in the words of the first target's\n"
              "recipe. It has no FLOPs, and tokens as it counts them; think@N, budgets and routed are for models of yours.",
    .example = "reckon compare runs/quickstart --arm votes --arm budgets --arm routed --worth 0.02",
    .positional_min = 0,
    .positional_max = MAX_MODELS,
    .options = options,
    .run = run,
};
