// The audit: proves from a run's folder alone that its ledger is whole (both hash chains), that the recipe is the one
// that the ledger names, that every checkpoint is whole and stands on the chain, and that the report is of this run.
// It refuses to pass a run on what it could not check: such a check says so.
#include "accounts.h"
#include "checkpoint.h"
#include "data.h"
#include "files.h"
#include "ledger_rows.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Audit {
    const char *folder;
    Ledger *ledger;
    json_t *checks, *facts; // facts: of the run, replayable
    Err *first;             // the first thing found broken
    int failed;
} Audit;

static void note(Audit *a, const char *name, bool ok, const char *format, ...) PRINTF_LIKE(4, 5);
static void note(Audit *a, const char *name, bool ok, const char *format, ...) {
    char text[1200];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    text_tame(text);
    json_t *found = json_string(text);
    json_array_append_new(a->checks, json_pack("{s:s, s:b, s:o}", "name", name, "ok", ok, "found", found ? found : json_string("(not UTF-8)")));
}
static void note_failure(Audit *a, const char *name, const Err *err) {
    note(a, name, false, "%s: %s", err->where, err->msg);
    if (a->failed++ == 0) fail(a->first, ERR_FAILED, err->where, "%s", err->msg);
}

static bool damaged_pages(const Ledger *l, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    bool ok = ledger_query(l, "PRAGMA quick_check(1)", 0, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && strcmp(column_string(s, 0), "ok")) ok = fail(err, ERR_FAILED, l->path, "SQLite finds: %.400s", column_string(s, 0));
    sqlite3_finalize(s);
    return ok;
}

static void check_ledger(Audit *a) {
    Err err = {0};
    LedgerCounts c;
    if (!damaged_pages(a->ledger, &err)) note_failure(a, "database", &err);
    else note(a, "database", true, "every page is whole");
    if (!ledger_verify(a->ledger, &c, &err)) {
        note_failure(a, "chains", &err);
        return;
    }
    note(a, "chains", true, "%lld steps, %lld prompts, %lld samples, %lld evaluations and %lld events, each row by its hash and both chains "
         "from first to last", (long long)c.steps, (long long)c.prompts, (long long)c.samples, (long long)c.evaluations,
         (long long)c.events);
    note(a, "repeated work", true, "%lld steps were done again, %lld came to the same content", (long long)c.repeated, (long long)c.repeated_same);
}

// No damage, but whoever repeats the run has to know.
static void check_replayable(Audit *a) {
    Err err = {0};
    int64_t events = 0;
    if (!ledger_integer(a->ledger, "SELECT count(*) FROM events WHERE kind = '" NOT_REPLAYABLE "'", 0, 0, &events, &err)) note_failure(a, "replay", &err);
    else if (events) note(a, "replay", true, "this run is not replayable: %lld times, verdicts were decided by a clock or a process's death, or answers are an endpoint's", (long long)events);
    else note(a, "replay", true, "no verdict was decided by a clock");
}

static const char *recipe_hash(const Audit *a) { return json_string_value(json_object_get(a->facts, "recipe_hash")); }

static void check_recipe(Audit *a) {
    Err err = {0};
    json_t *recipe = NULL;
    char *path = path_join(a->folder, "recipe.resolved.json"), hash[65] = "";
    if (!json_read_file(path, 16 << 20, &recipe, &err)) {
        note_failure(a, "recipe", &err);
    } else {
        Buf text = {0};
        json_object_del(recipe, "outside"); // what only says where and how fast a run happens isn't hashed
        json_write(recipe, &text);
        sha256_hex(text.data, text.size, hash);
        buf_free(&text);
        if (!recipe_hash(a)) {
            fail(&err, ERR_FAILED, a->ledger->path, "the facts of the run name no recipe_hash");
            note_failure(a, "recipe", &err);
        } else if (strcmp(hash, recipe_hash(a))) {
            fail(&err, ERR_FAILED, path, "its content gives hash %s, the ledger names %.64s", hash, recipe_hash(a));
            note_failure(a, "recipe", &err);
        } else {
            note(a, "recipe", true, "recipe.resolved.json is the one of the ledger (%s)", hash);
        }
    }
    json_decref(recipe);
    free(path);
}

// A checkpoint names the chain's link at its step; evaluations made after it added links of their own.
static bool on_the_chain(const Audit *a, const TrainState *s, bool *found, Err *err) {
    sqlite3_stmt *q;
    bool more = true;
    *found = false;
    bool ok = ledger_query(a->ledger, "SELECT chain FROM steps WHERE step = ?1 UNION ALL SELECT chain FROM evaluations WHERE step = ?1 UNION "
                                      "ALL SELECT chain FROM run WHERE ?1 = 0", s->step, 0, &q, err);
    while (ok && (ok = ledger_next(a->ledger, q, &more, err)) && more) *found |= !strcmp(column_string(q, 0), s->chain);
    sqlite3_finalize(q);
    return ok;
}

static bool check_checkpoint(const Audit *a, int64_t step, Err *err) {
    char *path = checkpoint_path(a->folder, step, NULL), recipe[65];
    TrainState state;
    bool found;
    bool ok = checkpoint_verify(path, &state, err) && checkpoint_recipe(path, recipe, err) && on_the_chain(a, &state, &found, err);
    if (ok && state.step != step) ok = fail(err, ERR_FAILED, path, STATE_FILE " says step %lld", (long long)state.step);
    if (ok && !found) ok = fail(err, ERR_FAILED, path, "its chain %.16s... is not on the ledger at step %lld", state.chain, (long long)step);
    if (ok && recipe_hash(a) && strcmp(recipe, recipe_hash(a)))
        ok = fail(err, ERR_FAILED, path, "was made with recipe %.16s..., the ledger names %.16s...", recipe, recipe_hash(a));
    free(path);
    return ok;
}

static void check_checkpoints(Audit *a) {
    int64_t *steps;
    int count, whole = 0;
    Err err = {0};
    if (!checkpoint_steps(a->folder, &steps, &count, &err)) note_failure(a, "checkpoints", &err);
    for (int i = count - 1; i >= 0; i--) {
        if (check_checkpoint(a, steps[i], &err)) whole++;
        else note_failure(a, "checkpoints", &err);
    }
    if (whole == count) note(a, "checkpoints", true, "%d, every section of each by its checksum, each on the chain", count);
    free(steps);
}

// Rows that stages made are still what they wrote. The ledger's names of files are hostile too.
static bool check_file(const Audit *a, const json_t *record, Err *err) {
    const char *name = json_string_value(json_object_get(record, "file")), *expected = json_string_value(json_object_get(record, "sha256"));
    char hash[65];
    if (!name || !expected || strncmp(name, "data/", 5) != 0 || strchr(name + 5, '/') || name[5] == '.')
        return fail(err, ERR_FAILED, a->ledger->path, "a record of rows names no file of this run");
    char *path = path_join(a->folder, name);
    bool ok = sha256_file(path, hash, err);
    if (ok && strcmp(hash, expected) != 0) ok = fail(err, ERR_FAILED, path, "its content gives hash %s, the ledger names %.64s", hash, expected);
    free(path);
    return ok;
}
static void check_data(Audit *a) {
    sqlite3_stmt *s;
    Err err = {0};
    bool more = true;
    int files = 0, whole = 0;
    bool ok = ledger_query(a->ledger, "SELECT replayable FROM evaluations WHERE name = '" DATA_RECORD "' ORDER BY step", 0, 0, &s, &err);
    while (ok && (ok = ledger_next(a->ledger, s, &more, &err)) && more) {
        json_t *record = column_object(s, 0);
        files++;
        if (check_file(a, record, &err)) whole++;
        else note_failure(a, "data", &err);
        json_decref(record);
    }
    sqlite3_finalize(s);
    if (!ok) note_failure(a, "data", &err);
    else if (files && whole == files) note(a, "data", true, "%d files of rows that stages made, each by its hash", files);
}

// The report carries the head that it was written of, in a line that only this program writes.
static void check_report(Audit *a, const char *head) {
    char *path = path_join(a->folder, "report.html"), mark[128];
    Err err = {0};
    Buf page = {0};
    if (!file_exists(path)) {
        note(a, "report", true, "there is none");
    } else if (!file_read(path, 256 << 20, &page, &err)) {
        note_failure(a, "report", &err);
    } else {
        snprintf(mark, sizeof mark, "<meta name=\"reckon-head\" content=\"%s\">", head);
        bool present = strstr(page.data, mark) != NULL;
        note(a, "report", true, present ? "report.html is of this head" : "report.html is of an older state: write it anew with 'reckon report'");
    }
    buf_free(&page);
    free(path);
}

bool audit_run(const char *run_folder, json_t **out, Err *err) {
    Audit a = {.folder = run_folder, .checks = json_array(), .first = err};
    char head[65] = "";
    int64_t step = 0;
    sqlite3_stmt *s = NULL;
    bool more = false;
    *out = NULL;
    bool ok = ledger_open_read(run_folder, &a.ledger, err) && ledger_freeze(a.ledger, err) && ledger_head(a.ledger, &step, head, err) &&
              ledger_query(a.ledger, "SELECT replayable FROM run", 0, 0, &s, err) && ledger_next(a.ledger, s, &more, err);
    if (ok) a.facts = more ? column_object(s, 0) : json_object();
    sqlite3_finalize(s);
    if (ok) {
        check_ledger(&a);
        check_replayable(&a);
        check_recipe(&a);
        check_checkpoints(&a);
        check_data(&a);
        check_report(&a, head);
        *out = json_pack("{s:b, s:s, s:I, s:O}", "ok", a.failed == 0, "head", head, "step", (json_int_t)step, "checks", a.checks);
    }
    json_decref(a.checks);
    json_decref(a.facts);
    ledger_close(a.ledger);
    return ok && a.failed == 0;
}
