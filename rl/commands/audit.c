// reckon audit: proves a run's folder, or prints the head of its replayable chain.
#include "accounts.h"
#include "command.h"
#include <stdio.h>

static bool print_head(const char *folder, bool json, Err *err) {
    Ledger *l;
    int64_t step;
    char head[65];
    bool ok = ledger_open_read(folder, &l, err) && ledger_head(l, &step, head, err);
    ledger_close(l);
    TRY(ok);
    if (!json) return printf("%s\n", head) > 0 || fail(err, ERR_IO, "stdout", "can't write");
    json_t *j = json_pack("{s:s, s:I}", "head", head, "step", (json_int_t)step);
    ok = print_json(j, err);
    json_decref(j);
    return ok;
}

static bool run(const Args *args, Err *err) {
    if (args_flag(args, "head")) return print_head(args->positional[0], args_flag(args, "json"), err);
    json_t *audit, *check;
    size_t i;
    Err printing;
    bool ok = audit_run(args->positional[0], &audit, err);
    if (audit && args_flag(args, "json")) {
        if (!print_json(audit, &printing) && ok) {
            *err = printing;
            ok = false;
        }
    } else if (audit) {
        json_array_foreach(json_object_get(audit, "checks"), i, check)
            printf("%-5s %-14s %s\n", json_is_true(json_object_get(check, "ok")) ? "ok" : "FAIL",
                   json_string_value(json_object_get(check, "name")), json_string_value(json_object_get(check, "found")));
        printf("\nhead of the replayable chain, at step %lld:\n%s\n", (long long)json_integer_value(json_object_get(audit, "step")),
               json_string_value(json_object_get(audit, "head")));
    }
    json_decref(audit);
    return ok;
}

const Command command_audit = {
    .name = "audit",
    .summary = "prove that a run's ledger, recipe and checkpoints are whole",
    .usage = "RUN [--head] [--json]",
    .detail = "Recomputes every hash of the ledger's two chains, compares the recipe and every section of every checkpoint, and names\n"
              "the first row or section that does not hold (exit code 1). The head of the replayable chain is a function of the\n"
              "recipe: two runs of one recipe on the same instruction variant have the same head. --head prints it, unproved.",
    .example = "reckon audit runs/arithmetic",
    .positional_min = 1,
    .positional_max = 1,
    .options = (const Option[]){{.name = "head", .kind = OPTION_FLAG, .help = "print only the head of the replayable chain"},
                                {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
                                OPTION_END},
    .run = run,
};
