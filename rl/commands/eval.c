// `reckon eval`: held-out accuracy of one or several models, by level and mode, with 95 % intervals.
#include "adapters.h"
#include "command.h"
#include "target.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void print_evaluation(const json_t *result) {
    const json_t *replayable = json_object_get(result, "replayable"), *levels = json_object_get(replayable, "levels");
    const char *mode = json_string_value(json_object_get(replayable, "mode"));
    size_t i;
    json_t *level;
    const char *adapter = json_string_value(json_object_get(result, "adapter"));
    printf("%s%s%s, %s mode (%.1f s)\n", json_string_value(json_object_get(result, "target")), adapter ? " with " : "", adapter ? adapter : "", mode,
           number(json_object_get(result, "measured"), "seconds"));
    printf("  %-20s %5s  %-24s %7s %9s %9s %9s\n", "task and level", "items", "accuracy (95 %)", "tokens", "truncated",
           "no score", "pass");
    json_array_foreach((json_t *)levels, i, level) {
        char name[64], accuracy[48];
        snprintf(name, sizeof name, "%.40s %.0f", json_string_value(json_object_get(level, "kind")), number(level, "level"));
        snprintf(accuracy, sizeof accuracy, "%5.1f %% (%.1f to %.1f)", 100 * number(level, "accuracy"),
                 100 * number(level, "low"), 100 * number(level, "high"));
        printf("  %-20s %5.0f  %-24s %7.1f %9.0f %9.0f %7.1f %%\n", name, number(level, "items"), accuracy,
               number(level, "tokens"), number(level, "truncated"), number(level, "unscored"), 100 * number(level, "pass"));
    }
}

static bool evaluate_mode(const Target *t, const char *adapter, Mode mode, int items, int samples, json_t *results, Err *err) {
    Evaluation e;
    TRY(evaluate(t->policy, t->recipe, t->tasks, t->rewards, mode, items, samples, &e, err));
    json_t *result = json_pack("{s:s,s:s,s:I,s:i,s:o,s:{s:f,s:f}}", "target", t->name, "model", t->model, "step",
                               (json_int_t)t->step, "samples", samples, "replayable", evaluation_json(&e, t->tasks),
                               "measured", "seconds", e.seconds, "tokens_per_second",
                               e.seconds > 0 ? (double)e.new_tokens / e.seconds : 0.0);
    evaluation_free(&e);
    if (!result) return fail(err, ERR_DATA, t->name, "its name isn't UTF-8");
    if (adapter) json_object_set_new(result, "adapter", json_string(adapter));
    json_array_append_new(results, result);
    return true;
}

static bool evaluate_target(const Args *args, const char *path, json_t *results, Err *err) {
    Target t;
    const char *mode = args_text(args, "mode", "both");
    int samples = (int)args_int(args, "samples", 0);
    TRY(target_open(path, args_text(args, "recipe", NULL), args_list(args, "set"), args_text(args, "device", NULL), &t, err));
    int items = (int)args_int(args, "items", t.recipe->compare_items > 0 ? t.recipe->compare_items : t.recipe->evaluate_items);
    AdapterList adapters = {0};
    bool ok = adapters_open(args, t.policy, &adapters, err);
    for (int i = 0; ok && i < adapters_turns(&adapters); i++) {
        const char *adapter = adapters_turn(&adapters, t.policy, i);
        for (Mode m = 0; ok && m < MODES; m++)
            if (!strcmp(mode, "both") || !strcmp(mode, mode_names[m])) ok = evaluate_mode(&t, adapter, m, items, samples, results, err);
    }
    adapters_free(&adapters);
    target_close(&t);
    return ok;
}

static bool run(const Args *args, Err *err) {
    json_t *out = json_object(), *results = json_array();
    json_object_set_new(out, "evaluations", results);
    bool ok = true;
    for (int i = 0; ok && i < args->positional_count; i++) {
        size_t before = json_array_size(results);
        ok = evaluate_target(args, args->positional[i], results, err);
        for (size_t k = before; ok && !args_flag(args, "json") && k < json_array_size(results); k++)
            print_evaluation(json_array_get(results, k));
    }
    if (ok && args_flag(args, "json")) ok = print_json(out, err);
    json_decref(out);
    return ok;
}

static const Option options[] = {
    {.name = "recipe", .kind = OPTION_TEXT, .value = "FILE", .help = "tasks, prompts and rewards for a MODEL"},
    {.name = "mode", .kind = OPTION_CHOICE, .value = "think|direct|both", .help = "how to ask (default: both)"},
    {.name = "items", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "held-out items of each task and level (default: the recipe's compare.items, else evaluate.items)", .low = 1, .high = 1e6},
    {.name = "samples", .kind = OPTION_INT, .value = "N", .help = "sampled answers an item; 0: one greedy answer (default)", .low = 0, .high = 1024},
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe"},
    OPTION_ADAPTERS,
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};
const Command command_eval = {
    .name = "eval",
    .summary = "accuracy on held-out items, by level and mode, with 95 % intervals",
    .usage = "RUN|RECIPE|MODEL... [options]",
    .detail = "A RUN is answered by its newest checkpoint, a RECIPE (.lua) by its run's, or by the model that it names where\n"
              "nothing is trained yet; a MODEL (a folder or a GGUF file) needs --recipe. An item is correct if the recipe's\n"
              "first reward gives it 1 or more. Intervals are Wilson's, of the greedy answer or the first sample; 'pass' is the\n"
              "share of all samples that are correct.",
    .example = "reckon eval runs/quickstart --mode think   # what the trained model gets right when it thinks",
    .positional_min = 1,
    .positional_max = 64,
    .options = options,
    .run = run,
};
