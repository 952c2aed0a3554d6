// reckon report: the report of a run or a comparison, as a page or in another format.
#include "accounts.h"
#include "command.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ReportFormat format_of(const char *name) {
    static const char *const names[] = {"html", "md", "csv", "json", "svg"};
    int i = 0;
    while (i < COUNT(names) - 1 && strcmp(names[i], name)) i++;
    return (ReportFormat)i;
}

// Where the page goes: into a run's folder, or beside a comparison's file.
static char *page_path(const char *source) {
    if (file_is_folder(source)) return path_join(source, "report.html");
    size_t n = strlen(source);
    bool json = n > 5 && !strcmp(source + n - 5, ".json");
    return xasprintf("%.*s.html", (int)(json ? n - 5 : n), source);
}

static bool run(const Args *args, Err *err) {
    const char *source = args->positional[0], *output = args_text(args, "output", NULL);
    ReportOptions o = {.format = format_of(args_text(args, "format", "html")), .korean = !strcmp(args_text(args, "lang", "en"), "ko"),
                       .samples = (int)args_int(args, "samples", REPORT_SAMPLES)};
    Buf out = {0};
    char *path = output ? xstrdup(output) : page_path(source);
    bool show = output ? !strcmp(output, "-") : o.format != REPORT_HTML;
    bool ok = report_make(source, &o, &out, err);
    if (ok && show) {
        ok = fwrite(out.data, 1, out.size, stdout) == out.size && fflush(stdout) == 0;
        if (!ok) fail(err, ERR_IO, "stdout", "can't write");
    } else if (ok) {
        ok = file_write_atomic(path, out.data, out.size, err);
        if (ok && printf("%s\n", path) < 0) ok = fail(err, ERR_IO, "stdout", "can't write");
    }
    buf_free(&out);
    free(path);
    return ok;
}

const Command command_report = {
    .name = "report",
    .summary = "the report of a run or a comparison: verdict, frontier, curves, samples, cost",
    .usage = "RUN|COMPARISON [options]",
    .detail = "A page is one self-contained HTML file that needs no network: what thinking was worth, accuracy against cost, how training\n"
              "went, samples to read, what it cost, what was run and how to replay it. It is made from a run's ledger alone, also while the\n"
              "run goes on, or from a file that `reckon compare --save` wrote. A page goes to RUN/report.html (or beside the comparison) and\n"
              "its path is printed; the other formats hold the same numbers and go to stdout.",
    .example = "reckon report runs/arithmetic --lang ko",
    .positional_min = 1,
    .positional_max = 1,
    .options = (const Option[]){{.name = "format", .letter = 'f', .kind = OPTION_CHOICE, .value = "html|md|csv|json|svg",
                                 .help = "a page, Markdown, CSV (a row a number), JSON, or the frontier as SVG"},
                                {.name = "lang", .kind = OPTION_CHOICE, .value = "en|ko", .help = "English or Korean"},
                                {.name = "samples", .kind = OPTION_INT, .value = "N", .help = "samples that a page holds (2000)", .low = 0, .high = REPORT_MOST_SAMPLES},
                                {.name = "output", .letter = 'o', .kind = OPTION_TEXT, .value = "FILE", .help = "where to write it; -: to stdout"},
                                OPTION_END},
    .run = run,
};
