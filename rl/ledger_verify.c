// The proof of a ledger: recomputes every row's hash and both chains, and names the first row that doesn't hold.
// Beyond the chains it checks what a chain alone can't show: rows that belong to no step, a chain cut off at its end
// (each step is also an event, and SQLite remembers the highest event), sums that contradict their samples, and
// repeated steps that did not come to the same content.
#include "ledger_rows.h"
#include "files.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool broken(const Ledger *l, Err *err, const char *place, const char *format, ...) PRINTF_LIKE(4, 5);
static bool broken(const Ledger *l, Err *err, const char *place, const char *format, ...) {
    char where[sizeof err->where], what[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    snprintf(where, sizeof where, "%s: %s", l->path, place);
    return fail(err, ERR_FAILED, where, "%s", what);
}

static void append_columns(Buf *out, int table, sqlite3_stmt *s) {
    Value v[MAX_COLUMNS];
    for (int i = 0; i < ledger_tables[table].hashed; i++) v[i] = value_column(s, i);
    row_append(out, ledger_tables[table].name, v, ledger_tables[table].hashed);
}

// Appends all rows that a query gives as rows of `table`.
static bool append_rows(const Ledger *l, int table, const char *sql, int64_t first, int64_t second, Buf *out, int64_t *count,
                        Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, sql, first, second, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        append_columns(out, table, s);
        if (count) ++*count;
    }
    sqlite3_finalize(s);
    return ok;
}

// Prompts or samples of a step: their stored hashes enter the content; with `check` each is recomputed first.
static bool append_hashes(const Ledger *l, int table, int64_t step, bool check, Buf *content, LedgerCounts *counts, Err *err) {
    bool samples = table == T_SAMPLES, more = true;
    const char *name = samples ? "sample" : "prompt";
    sqlite3_stmt *s;
    Buf row = {0};
    int64_t expected = 0;
    char sql[96], place[80], hash[65];
    snprintf(sql, sizeof sql, "SELECT * FROM %ss WHERE step = ? ORDER BY %s", name, name);
    bool ok = ledger_query(l, sql, step, 0, &s, err);
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t index = column_int(s, 1);
        const char *stored = column_string(s, ledger_tables[table].hashed);
        snprintf(place, sizeof place, "%ss, step %lld, %s %lld", name, (long long)step, name, (long long)index);
        if (check && index != expected) ok = broken(l, err, place, "expected %s %lld next", name, (long long)expected);
        if (ok && check) {
            row.size = 0;
            append_columns(&row, table, s);
            if (samples)
                ok = append_rows(l, T_PARTS, "SELECT * FROM parts WHERE step = ? AND sample = ? ORDER BY position", step,
                                 index, &row, &counts->parts, err);
            sha256_hex(row.data, row.size, hash);
            if (ok && strcmp(hash, stored)) ok = broken(l, err, place, "the row's content gives hash %s, it holds %.64s", hash, stored);
        }
        buf_append(content, stored, strlen(stored));
        expected++;
    }
    sqlite3_finalize(s);
    buf_free(&row);
    if (counts && samples) counts->samples += expected;
    if (counts && !samples) counts->prompts += expected;
    return ok;
}

bool step_content(const Ledger *l, int64_t step, bool check, LedgerCounts *counts, char out[65], Err *err) {
    Buf content = {0};
    bool ok = append_rows(l, T_STEPS, "SELECT * FROM steps WHERE step = ?", step, 0, &content, NULL, err) &&
              append_rows(l, T_STEP_PARTS, "SELECT * FROM step_parts WHERE step = ? ORDER BY position", step, 0, &content,
                          counts ? &counts->step_parts : NULL, err) &&
              append_rows(l, T_STEP_LEVELS, "SELECT * FROM step_levels WHERE step = ? ORDER BY position", step, 0, &content,
                          counts ? &counts->step_levels : NULL, err) &&
              append_rows(l, T_STEP_EXPERTS, "SELECT * FROM step_experts WHERE step = ? ORDER BY layer", step, 0, &content,
                          counts ? &counts->step_experts : NULL, err) &&
              append_rows(l, T_REPLACED, "SELECT * FROM replaced WHERE step = ? ORDER BY prompt, attempt", step, 0, &content,
                          counts ? &counts->replaced : NULL, err) &&
              append_hashes(l, T_PROMPTS, step, check, &content, counts, err) &&
              append_hashes(l, T_SAMPLES, step, check, &content, counts, err);
    if (ok) sha256_hex(content.data, content.size, out);
    buf_free(&content);
    return ok;
}

// ---- the replayable chain --------------------------------------------------------------------------------
static bool verify_run(const Ledger *l, char chain[65], Err *err) {
    sqlite3_stmt *s;
    bool more = false, again = false;
    bool ok = ledger_query(l, "SELECT * FROM run", 0, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && !more) ok = broken(l, err, "run", "no run is recorded");
    if (ok) {
        Buf row = {0};
        append_columns(&row, T_RUN, s);
        chain_link("", row.data, row.size, chain);
        buf_free(&row);
        if (strcmp(chain, column_string(s, 2)))
            ok = broken(l, err, "run", "the facts of the run give hash %s, the row holds %.64s", chain, column_string(s, 2));
        ok = ok && ledger_next(l, s, &again, err);
        if (ok && again) ok = broken(l, err, "run", "more than one run is recorded");
    }
    sqlite3_finalize(s);
    return ok;
}

static bool verify_evaluations(const Ledger *l, int64_t step, char chain[65], LedgerCounts *counts, Err *err) {
    sqlite3_stmt *s;
    Buf row = {0};
    bool ok = ledger_query(l, "SELECT * FROM evaluations WHERE step = ? ORDER BY position", step, 0, &s, err), more = true;
    char place[80];
    for (int64_t expected = 0; ok && (ok = ledger_next(l, s, &more, err)) && more; expected++) {
        snprintf(place, sizeof place, "evaluations, step %lld, position %lld", (long long)step, (long long)column_int(s, 1));
        row.size = 0;
        append_columns(&row, T_EVALUATIONS, s);
        chain_link(chain, row.data, row.size, chain);
        if (strcmp(chain, column_string(s, 4)))
            ok = broken(l, err, place, "the chain gives %s, the row holds %.64s", chain, column_string(s, 4));
        else if (column_int(s, 1) != expected)
            ok = broken(l, err, place, "expected position %lld", (long long)expected);
        counts->evaluations++;
    }
    sqlite3_finalize(s);
    buf_free(&row);
    return ok;
}

// A step's sums against its samples, to which belong those in flight before it, and not those after it or of replaced groups; a step without
// samples on the ledger (sft) has none to check, and tokens of another program's samples are none of its own.
static bool verify_sums(const Ledger *l, int64_t step, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    char place[48];
    snprintf(place, sizeof place, "steps, step %lld", (long long)step);
    static const char sql[] =
        "SELECT count(*), sum(tokens) FILTER (WHERE logprobs IS NOT NULL), sum(verdict = 'scored'), sum(verdict = 'abstained'), sum(verdict = 'error'),"
        " sum(verdict = 'budget'), sum(verdict = 'killed'), t.new_tokens + coalesce((SELECT flight_tokens FROM steps WHERE step = t.step - 1), 0)"
        " - t.flight_tokens - coalesce((SELECT sum(tokens) FROM replaced WHERE step = t.step), 0), t.scored, t.abstained, t.error, t.budget, t.killed,"
        " avg(reward) FILTER (WHERE verdict = 'scored'), t.reward_mean"
        " FROM samples AS s JOIN steps AS t ON t.step = s.step WHERE s.step = ?";
    bool ok = ledger_query(l, sql, step, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && more && column_int(s, 0) > 0) {
        static const char *const names[] = {"new tokens", "scored samples", "abstentions", "errors", "budget verdicts", "kills"};
        for (int i = 0; ok && i < COUNT(names); i++)
            if (column_int(s, 1 + i) != column_int(s, 7 + i))
                ok = broken(l, err, place, "says %lld %s, its samples %lld", (long long)column_int(s, 7 + i), names[i],
                            (long long)column_int(s, 1 + i));
        double samples = column_real(s, 13), said = column_real(s, 14);
        if (ok && !isnan(said) && !(fabs(samples - said) <= 1e-6 * (1 + fabs(said))))
            ok = broken(l, err, place, "says mean reward %.9g, its samples %.9g", said, samples);
    }
    sqlite3_finalize(s);
    return ok;
}

static bool verify_steps(const Ledger *l, char chain[65], LedgerCounts *counts, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT step, content, chain FROM steps ORDER BY step", 0, 0, &s, err), more = true;
    char place[48], content[65];
    for (int64_t expected = 1; ok && (ok = ledger_next(l, s, &more, err)) && more; expected++) {
        int64_t step = column_int(s, 0);
        snprintf(place, sizeof place, "steps, step %lld", (long long)step);
        if (step != expected) {
            ok = broken(l, err, place, "expected step %lld next", (long long)expected);
            break;
        }
        ok = step_content(l, step, true, counts, content, err);
        if (ok && strcmp(content, column_string(s, 1)))
            ok = broken(l, err, place, "the step's content gives hash %s, the row holds %.64s", content, column_string(s, 1));
        if (!ok) break;
        chain_link(chain, content, 64, chain);
        if (strcmp(chain, column_string(s, 2)))
            ok = broken(l, err, place, "the chain gives %s, the row holds %.64s", chain, column_string(s, 2));
        counts->steps++;
        ok = ok && verify_sums(l, step, err) && verify_evaluations(l, step, chain, counts, err);
    }
    sqlite3_finalize(s);
    return ok;
}

// Every row was visited: none stands beside the chain.
static bool verify_counts(const Ledger *l, const LedgerCounts *c, Err *err) {
    const struct {
        int table;
        int64_t visited;
    } all[] = {{T_STEPS, c->steps},     {T_STEP_PARTS, c->step_parts},   {T_STEP_LEVELS, c->step_levels}, {T_STEP_EXPERTS, c->step_experts}, {T_REPLACED, c->replaced}, {T_PROMPTS, c->prompts}, {T_SAMPLES, c->samples},
               {T_PARTS, c->parts},     {T_EVALUATIONS, c->evaluations}, {T_EVENTS, c->events}};
    for (int i = 0; i < COUNT(all); i++) {
        char sql[64];
        int64_t there;
        const char *name = ledger_tables[all[i].table].name;
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", name);
        TRY(ledger_integer(l, sql, 0, 0, &there, err));
        if (there != all[i].visited)
            return broken(l, err, name, "%lld rows, but only %lld belong to the chain", (long long)there, (long long)all[i].visited);
    }
    return true;
}

// ---- the chain of measured things ------------------------------------------------------------------------
static bool verify_events(const Ledger *l, LedgerCounts *counts, Err *err) {
    sqlite3_stmt *s;
    Buf row = {0};
    char chain[65] = "", place[64];
    bool ok = ledger_query(l, "SELECT * FROM events ORDER BY seq", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        snprintf(place, sizeof place, "events, row %lld", (long long)column_int(s, 0));
        row.size = 0;
        append_columns(&row, T_EVENTS, s);
        chain_link(chain, row.data, row.size, chain);
        if (strcmp(chain, column_string(s, 5)))
            ok = broken(l, err, place, "the chain gives %s, the row holds %.64s", chain, column_string(s, 5));
        counts->events++;
        if (ok && column_int(s, 0) != counts->events) ok = broken(l, err, place, "expected row %lld", (long long)counts->events);
    }
    sqlite3_finalize(s);
    buf_free(&row);
    int64_t highest = 0;
    ok = ok && ledger_integer(l, "SELECT seq FROM sqlite_sequence WHERE name = 'events'", 0, 0, &highest, err);
    if (ok && highest != counts->events)
        ok = broken(l, err, "events", "ends at row %lld, but %lld were written", (long long)counts->events, (long long)highest);
    return ok;
}

// The newest account of each step in the events is the one that stands; rewound ones must have come to the same.
static bool verify_accounts(const Ledger *l, int64_t steps, LedgerCounts *counts, Err *err) {
    int64_t capacity = steps + 1;
    char(*last)[65] = xcalloc((size_t)capacity, sizeof *last), place[64];
    sqlite3_stmt *s;
    int64_t end = 0;
    bool ok = ledger_query(l, "SELECT seq, kind, step, detail FROM events WHERE kind IN ('step', 'repeated', 'rewind') ORDER BY "
                              "seq", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        const char *kind = column_string(s, 1);
        int64_t step = column_int(s, 2);
        json_t *detail = column_object(s, 3);
        const char *content = json_string_value(json_object_get(detail, "content"));
        if (!strcmp(kind, "step")) {
            end = step;
            if (content && step >= 1 && step <= steps) {
                if (last[step][0]) counts->repeated++;
                if (last[step][0] && strcmp(last[step], content)) {
                    snprintf(place, sizeof place, "events, row %lld", (long long)column_int(s, 0));
                    ok = broken(l, err, place, "step %lld was done again and came to %.64s, at first to %s: the run does not replay",
                                (long long)step, content, last[step]);
                }
                if (last[step][0] && ok) counts->repeated_same++;
                snprintf(last[step], sizeof last[step], "%s", content);
            }
        } else if (!strcmp(kind, "rewind")) {
            end = step;
        }
        json_decref(detail);
    }
    sqlite3_finalize(s);
    if (ok && end != steps)
        ok = broken(l, err, "steps", "ends at step %lld, but the events know %lld", (long long)steps, (long long)end);
    for (int64_t i = 1; ok && i <= steps; i++) {
        snprintf(place, sizeof place, "steps, step %lld", (long long)i);
        ok = ledger_query(l, "SELECT content FROM steps WHERE step = ?", i, 0, &s, err) && ledger_next(l, s, &more, err);
        if (ok && strcmp(column_string(s, 0), last[i]))
            ok = broken(l, err, place, "its content is %.64s, the events say %s", column_string(s, 0), last[i]);
        sqlite3_finalize(s);
    }
    free(last);
    return ok;
}

bool ledger_verify(const Ledger *l, LedgerCounts *counts, Err *err) {
    char chain[65];
    *counts = (LedgerCounts){0};
    return verify_run(l, chain, err) && verify_evaluations(l, 0, chain, counts, err) && verify_steps(l, chain, counts, err) &&
           verify_events(l, counts, err) && verify_counts(l, counts, err) && verify_accounts(l, counts->steps, counts, err);
}
