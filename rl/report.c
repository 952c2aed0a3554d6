// `reckon report`: what is known of a run or a comparison, read once and made into the document of report.h, then written in one
// of its formats. All of a run is read from one state of its ledger; recipe.lua and recipe.resolved.json are shown where they are
// there. A comparison is a file that `reckon compare` saved, or the newest one on the run's ledger.
#include "report.h"
#include "files.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_COMPARISON = 512 << 20 };

// ---- reading a run ---------------------------------------------------------------------------------------
static bool newest_object(const Ledger *l, const char *sql, int64_t argument, json_t **out, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    bool ok = ledger_query(l, sql, argument, 0, &s, err) && ledger_next(l, s, &more, err);
    *out = ok && more ? column_object(s, 0) : NULL;
    sqlite3_finalize(s);
    return ok;
}

// What was measured of a comparison is in the events, beside when it was made.
static bool read_comparison(Report *r, Err *err) {
    json_t *replayable, *event = NULL;
    int64_t step;
    TRY(newest_object(r->ledger, "SELECT replayable FROM evaluations WHERE name = 'compare' ORDER BY step DESC, position DESC LIMIT 1", 0, &replayable, err));
    if (!replayable) return true;
    bool ok = ledger_integer(r->ledger, "SELECT max(step) FROM evaluations WHERE name = 'compare'", 0, 0, &step, err) &&
              newest_object(r->ledger, "SELECT detail FROM events WHERE kind = 'evaluation' AND step = ? AND json_extract(detail, '$.name') = 'compare' "
                                       "ORDER BY seq DESC LIMIT 1", step, &event, err);
    if (ok) r->comparison = json_pack("{s:O,s:O?}", "replayable", replayable, "measured", json_object_get(event, "measured"));
    json_decref(replayable), json_decref(event);
    return ok;
}

static int64_t step_of(const char *name) {
    char *end;
    if (strncmp(name, "step-", 5)) return -1;
    int64_t step = strtoll(name + 5, &end, 10);
    return *end || end == name + 5 ? -1 : step;
}

// Of the newest checkpoint that has one, else of the model that the run began with, else of the recipe's characters.
static void open_tokenizer(Report *r) {
    char *folder = path_join(r->source, "checkpoints"), *newest = NULL;
    int64_t step = -1;
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (step_of(entry->d_name) > step) step = step_of(entry->d_name);
    if (d) closedir(d);
    if (step >= 0) newest = xasprintf("%s/step-%lld", folder, (long long)step);
    const char *model = json_string_value(json_object_get(json_object_get(r->recipe, "model"), "path"));
    const char *characters = json_string_value(json_object_get(r->recipe, "characters"));
    bool ok = newest && tokenizer_open(newest, &r->tokenizer, NULL);
    ok = ok || (model && tokenizer_open(model, &r->tokenizer, NULL)) || (characters && tokenizer_from_characters(characters, &r->tokenizer, NULL));
    if (!ok) r->tokenizer = NULL;
    free(folder), free(newest);
}

static bool read_run(Report *r, Err *err) {
    char *recipe = path_join(r->source, "recipe.resolved.json");
    if (!json_read_file(recipe, 16 << 20, &r->recipe, NULL)) r->recipe = NULL;
    free(recipe);
    TRY(cost_run(r->source, &r->cost, err) && ledger_open_read(r->source, &r->ledger, err) && ledger_freeze(r->ledger, err) &&
        ledger_head(r->ledger, &r->step, r->head, err));
    TRY(newest_object(r->ledger, "SELECT replayable FROM run", 0, &r->facts, err) &&
        newest_object(r->ledger, "SELECT detail FROM events WHERE kind = 'machine' ORDER BY seq DESC LIMIT 1", 0, &r->machine, err));
    return r->comparison || read_comparison(r, err);
}

static void name_report(Report *r) {
    const char *slash = strrchr(r->source, '/'), *name = json_text_or(r->recipe, "name", NULL);
    if (!name) name = json_text_or(json_object_get(r->comparison, "replayable"), "name", NULL);
    if (!name) name = slash && slash[1] ? slash + 1 : r->source;
    Buf visible = {0};
    text_visible(&visible, name, strlen(name));
    r->name = xstrndup(visible.data ? visible.data : "", visible.size);
    buf_free(&visible);
}

static bool read_source(Report *r, Err *err) {
    if (file_is_folder(r->source)) return read_run(r, err);
    if (!json_read_file(r->source, LARGEST_COMPARISON, &r->comparison, err)) return false;
    if (json_array_size(json_object_get(json_object_get(r->comparison, "replayable"), "arms")) == 0)
        return fail(err, ERR_DATA, r->source, "is not a comparison: found no arms, expected what `reckon compare --json` prints, or a run's folder");
    return true;
}

// ---- writing ---------------------------------------------------------------------------------------------
static bool make_sections(Report *r, Err *err) {
    r->sections = json_array();
    TRY(report_verdict(r, err));
    report_frontier(r);
    report_levels(r);
    TRY(report_curves(r, err));
    report_cost(r);
    return report_run(r, err);
}

static void write_json(const Report *r, Buf *out) {
    json_t *comparison = r->comparison ? json_copy(r->comparison) : json_null();
    if (r->comparison) json_object_del(comparison, "samples");
    json_t *document = json_pack("{s:s,s:s,s:s,s:O,s:o,s:O?,s:O?,s:O?}", "format", "reckon report 1", "language", r->korean ? "ko" : "en", "name", r->name,
                                 "sections", r->sections, "comparison", comparison, "cost", r->cost, "facts", r->facts, "machine", r->machine);
    json_write(document, out);
    buf_puts(out, "\n");
    json_decref(document);
}

static bool write_page(Report *r, Buf *out, Err *err) {
    SampleBlocks samples;
    if (r->ledger) open_tokenizer(r);
    TRY(report_samples(r, &samples, err));
    bool ok = report_html(r, &samples, out, err);
    sample_blocks_free(&samples);
    return ok;
}

static bool write_format(Report *r, ReportFormat format, Buf *out, Err *err) {
    switch (format) {
    case REPORT_HTML: return write_page(r, out, err);
    case REPORT_MARKDOWN: return report_markdown(r, out), true;
    case REPORT_CSV: return report_csv(r, out), true;
    case REPORT_JSON: return write_json(r, out), true;
    case REPORT_SVG: break;
    }
    report_svg(r, out);
    return out->size > 0 || fail(err, ERR_NOINPUT, r->source, "holds no comparison to draw a frontier of: `reckon compare` makes one");
}

bool report_make(const char *source, const ReportOptions *o, Buf *out, Err *err) {
    Report r = {.source = source, .korean = o->korean, .most_samples = o->samples};
    bool ok = read_source(&r, err);
    if (ok) name_report(&r);
    ok = ok && make_sections(&r, err) && write_format(&r, o->format, out, err);
    json_decref(r.sections), json_decref(r.comparison), json_decref(r.recipe), json_decref(r.cost), json_decref(r.facts), json_decref(r.machine);
    if (r.tokenizer) tokenizer_close(r.tokenizer);
    ledger_close(r.ledger);
    free(r.name);
    return ok;
}

bool report_write(const char *run_folder, const char *path, Err *err) {
    Buf out = {0};
    char *target = path ? xstrdup(path) : path_join(run_folder, "report.html");
    bool ok = report_make(run_folder, &(ReportOptions){.samples = REPORT_SAMPLES}, &out, err) && file_write_atomic(target, out.data, out.size, err);
    buf_free(&out);
    free(target);
    return ok;
}
