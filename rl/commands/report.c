// reckon report: writes the page of a run.
#include "accounts.h"
#include "command.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>

static bool run(const Args *args, Err *err) {
    const char *output = args_text(args, "output", NULL);
    TRY(report_write(args->positional[0], output, err));
    char *path = output ? xstrdup(output) : path_join(args->positional[0], "report.html");
    bool ok = printf("%s\n", path) > 0 || fail(err, ERR_IO, "stdout", "can't write");
    free(path);
    return ok;
}

const Command command_report = {
    .name = "report",
    .summary = "write the page of a run: verdicts, curves, samples, cost",
    .usage = "RUN [--output FILE]",
    .detail = "One self-contained HTML file that needs no network: what thinking was worth, how training went, samples to read, what it\n"
              "cost, and what was run. Written from the ledger alone, also while a run goes on. Prints the file's path.",
    .example = "reckon report runs/arithmetic",
    .positional_min = 1,
    .positional_max = 1,
    .options = (const Option[]){{.name = "output", .letter = 'o', .kind = OPTION_TEXT, .value = "FILE",
                                 .help = "where to write it (otherwise RUN/report.html)"},
                                OPTION_END},
    .run = run,
};
