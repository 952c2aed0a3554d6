// reckon cost: what a run cost, failed and repeated work included.
#include "accounts.h"
#include "command.h"

static bool run(const Args *args, Err *err) {
    json_t *cost;
    bool ok = cost_run(args->positional[0], &cost, err);
    if (ok && args_flag(args, "json")) ok = print_json(cost, err);
    else if (ok) cost_print(cost);
    json_decref(cost);
    return ok;
}

const Command command_cost = {
    .name = "cost",
    .summary = "what a run cost: tokens, FLOPs, seconds, joules, money",
    .usage = "RUN [--json]",
    .detail = "Sums over the run's ledger, by stage, with evaluations and work that was done twice. Each figure names its source:\n"
              "measured, computed from shapes, stated by the recipe; what is not known says so and is never 0.",
    .example = "reckon cost runs/arithmetic",
    .positional_min = 1,
    .positional_max = 1,
    .options = (const Option[]){{.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"}, OPTION_END},
    .run = run,
};
