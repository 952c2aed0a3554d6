// reckon cost: what a run or a campaign cost, failed and repeated work included.
#include "accounts.h"
#include "command.h"
#include "files.h"
#include <stdlib.h>

static bool holds_run(const char *folder) {
    char *ledger = path_join(folder, "ledger.db");
    bool there = file_exists(ledger);
    free(ledger);
    return there;
}

// A run's folder is told stage by stage; any other folder is a campaign of all runs below it.
static bool run(const Args *args, Err *err) {
    const char *folder = args->positional_count ? args->positional[0] : file_is_folder("runs") ? "runs" : ".";
    json_t *cost = NULL, *campaign = NULL;
    bool one = holds_run(folder), ok = cost_campaign(folder, &campaign, err);
    if (ok && one && json_array_size(json_object_get(campaign, "runs")) == 0) ok = cost_run(folder, &cost, err); // says why it can't be read
    if (ok) cost = json_incref(one ? json_array_get(json_object_get(campaign, "runs"), 0) : campaign);
    if (ok && args_flag(args, "json")) ok = print_json(cost, err);
    else if (ok && one) cost_print(cost);
    else if (ok) campaign_print(cost);
    if (ok && (!json_is_true(json_object_get(json_object_get(cost, "check"), "ok")) || json_array_size(json_object_get(cost, "unreadable"))))
        ok = fail(err, ERR_FAILED, folder, json_array_size(json_object_get(cost, "unreadable")) ? "a run's ledger can't be read: the sum lacks it"
                                                                                               : "the parts don't add up to the whole");
    json_decref(cost), json_decref(campaign);
    return ok;
}

const Command command_cost = {
    .name = "cost",
    .summary = "what a run or a campaign cost: tokens, FLOPs, hours, joules, money, CO2",
    .usage = "[FOLDER] [--json]",
    .detail = "Of a run: its stages, evaluations and work that was done twice. Of a folder of runs (default: runs, else this one): all runs\n"
              "below it, failed, killed, resumed and abandoned ones too, with what was wasted and the models they began with. Each figure\n"
              "names its source: measured, computed from shapes, stated by the recipe or a card; what is not known says so and is never 0.\n"
              "Exits 1 where the parts don't add up to what the ledgers hold.",
    .example = "reckon cost runs/arithmetic",
    .positional_min = 0,
    .positional_max = 1,
    .options = (const Option[]){{.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"}, OPTION_END},
    .run = run,
};
