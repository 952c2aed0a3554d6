// reckon train: runs a recipe.
#include "command.h"
#include "rl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool run_recipe(const Args *args, Recipe *r, Err *err) {
    json_t *plan;
    TRY(plan_make(r, &plan, err));
    plan_print(plan);
    bool dry = args_flag(args, "dry-run"), ok = true;
    if (dry && args_flag(args, "json")) ok = print_json(plan, err);
    json_decref(plan);
    if (!ok || dry) return ok;
    TrainOptions o = {.resume = args_flag(args, "resume"), .compare = !args_flag(args, "no-compare")};
    TRY(train(r, &o, err));
    log_line(LOG_INFO, "the report: %s/report.html", r->run_folder);
    return true;
}

static bool run(const Args *args, Err *err) {
    Recipe *r;
    const char *const *sets = args_list(args, "set");
    int count = 0;
    while (sets[count]) count++;
    // --run, --threads, --device and --tensorboard are overrides with names of their own.
    const char **all = xcalloc((size_t)count + 5, sizeof *all);
    memcpy(all, sets, (size_t)count * sizeof *all);
    char *folder = args_given(args, "run") ? xasprintf("run=%s", args_text(args, "run", "")) : NULL;
    char *threads = args_given(args, "threads") ? xasprintf("threads=%s", args_text(args, "threads", "")) : NULL;
    char *device = args_given(args, "device") ? xasprintf("device=%s", args_text(args, "device", "")) : NULL;
    if (folder) all[count++] = folder;
    if (threads) all[count++] = threads;
    if (device) all[count++] = device;
    if (args_flag(args, "tensorboard")) all[count++] = "tensorboard=true";
    bool ok = recipe_read(args->positional[0], all, &r, err);
    if (ok) {
        ok = run_recipe(args, r, err);
        recipe_free(r);
    }
    free(all), free(folder), free(threads), free(device);
    return ok;
}

static const Option options[] = {
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe, such as stages.2.steps=50"},
    {.name = "run", .kind = OPTION_TEXT, .value = "FOLDER", .help = "the run's folder (the recipe's, or runs/NAME)"},
    {.name = "resume", .kind = OPTION_FLAG, .help = "go on from the newest checkpoint of the run's folder"},
    {.name = "dry-run", .kind = OPTION_FLAG, .help = "check the recipe, tell the plan, and stop"},
    {.name = "no-compare", .kind = OPTION_FLAG, .help = "leave out the comparison at the end"},
    {.name = "threads", .kind = OPTION_INT, .value = "N", .help = "threads (all cores)", .low = 1, .high = 256},
    {.name = "tensorboard", .kind = OPTION_FLAG, .help = "also write TensorBoard's event files into the run's folder"},
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "with --dry-run: print the plan as one JSON document on stdout"},
    OPTION_END};

const Command command_train = {
    .name = "train",
    .summary = "run a recipe: fine-tuning, GRPO, evaluations, comparison, report",
    .usage = "RECIPE [--set KEY=VALUE]... [--run FOLDER] [--resume] [--dry-run]",
    .detail = "Leaves in the run's folder: recipe.lua, recipe.resolved.json, ledger.db, checkpoints/, report.html;\n"
              "`reckon watch RUN` draws it live. TERM and INT save what is\n"
              "done; --resume goes on from there, or after a kill from the newest checkpoint, to the same bits.",
    .example = "reckon train scripts/recipes/quickstart.lua --set stages.1.steps=100 --run runs/try",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
