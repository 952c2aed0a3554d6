// `reckon compare`: what thinking is worth on held-out items, level by level, and what GRPO added.
#include "adapters.h"
#include "command.h"
#include "target.h"
#include <stdio.h>

static int64_t last_step(const Recipe *r) {
    int64_t steps = 0;
    for (int i = 0; i < r->stage_count; i++) steps += r->stages[i].steps;
    return steps;
}

// The comparison of a finished run is part of what the run came to and goes on its ledger. That of one that will go on
// would make its chain differ from that of an uninterrupted run, so it doesn't.
static bool compare_finished(const Target *t, json_t **out, Err *err) {
    int lock;
    Ledger *ledger;
    TRY(run_lock(t->run_folder, &lock, err));
    bool ok = ledger_open(t->run_folder, true, &ledger, err);
    if (ok) {
        ok = compare_run(t->policy, t->recipe, t->tasks, t->rewards, ledger, t->step, out, err);
        ledger_close(ledger);
    }
    run_unlock(lock);
    return ok;
}

// With adapters: a comparison of each, none of them on the ledger.
static bool compare_adapters(const Args *args, Target *t, const AdapterList *adapters, Err *err) {
    json_t *all = json_array(), *out = json_pack("{s:O}", "comparisons", all);
    bool ok = true;
    for (int i = 0; ok && i < adapters->count; i++) {
        json_t *one = NULL;
        const char *name = adapters_turn(adapters, t->policy, i);
        ok = compare_run(t->policy, t->recipe, t->tasks, t->rewards, NULL, t->step, &one, err);
        if (!ok) break;
        json_object_set_new(one, "adapter", json_string(name));
        json_array_append_new(all, one);
        if (args_flag(args, "json")) continue;
        printf("%s%s\n", i ? "\n" : "", name);
        compare_print(one);
    }
    if (ok && args_flag(args, "json")) ok = print_json(out, err);
    json_decref(out), json_decref(all);
    return ok;
}
static bool compare_one(const Args *args, Target *t, Err *err) {
    json_t *out = NULL;
    bool whole = t->run_folder && t->step == last_step(t->recipe) && !args_given(args, "items");
    bool ok = whole ? compare_finished(t, &out, err) : compare_run(t->policy, t->recipe, t->tasks, t->rewards, NULL, t->step, &out, err);
    if (ok && args_flag(args, "json")) ok = print_json(out, err);
    else if (ok) compare_print(out);
    json_decref(out);
    return ok;
}

static bool run(const Args *args, Err *err) {
    Target t;
    AdapterList adapters = {0};
    TRY(target_open(args->positional[0], args_text(args, "recipe", NULL), args_list(args, "set"), args_text(args, "device", NULL), &t, err));
    t.recipe->compare_items = (int)args_int(args, "items", t.recipe->compare_items);
    bool ok = adapters_open(args, t.policy, &adapters, err) &&
              (adapters.count ? compare_adapters(args, &t, &adapters, err) : compare_one(args, &t, err));
    adapters_free(&adapters);
    target_close(&t);
    return ok;
}

static const Option options[] = {
    {.name = "recipe", .kind = OPTION_TEXT, .value = "FILE", .help = "tasks, prompts and rewards for a MODEL"},
    {.name = "items", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "held-out items of each task and level (default: the recipe's compare.items)", .low = 1, .high = 1e6},
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe"},
    OPTION_ADAPTERS,
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};
const Command command_compare = {
    .name = "compare",
    .summary = "is thinking worth it? both modes on the same held-out items, with intervals and costs",
    .usage = "RUN|RECIPE|MODEL [options]",
    .detail = "Answers the held-out items greedily in think and in direct mode and prints, for each level, accuracy (Wilson 95 %),\n"
              "tokens, FLOPs, seconds and the cost of a correct answer, the paired difference (bootstrap 95 %, McNemar's exact\n"
              "test) and a verdict. Where the run keeps its checkpoint from before GRPO, also what GRPO added. The result of a\n"
              "finished run, with the recipe's own number of items, goes on its ledger.",
    .example = "reckon compare runs/quickstart   # where thinking pays, and where it only costs",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
