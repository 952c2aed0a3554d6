// The ledger of a run: ledger.db in its folder. SQLite in WAL mode with synchronous=FULL, one transaction a step, so
// that a kill or a full disk at any instant leaves the last whole step. Two hash chains make every cell evident
// (ledger_rows.h). It refuses steps out of order, a second account of one evaluation that differs, and a database
// whose schema isn't exactly ours (no triggers or views of a stranger run here).
#include "ledger_rows.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x52434b4c, FORMAT = 4, BUSY_MILLISECONDS = 20000, LONGEST_VALUE = 256 << 20 };

const Table ledger_tables[TABLES] = {
    [T_RUN] = {"run",
               "CREATE TABLE run(id INTEGER PRIMARY KEY CHECK(id = 1), replayable TEXT NOT NULL, chain TEXT NOT NULL) "
               "STRICT",
               3, 2},
    [T_STEPS] = {"steps",
                 "CREATE TABLE steps(step INTEGER PRIMARY KEY, stage_index INTEGER, stage_step INTEGER, kind TEXT, loss "
                 "REAL, learning_rate REAL, gradient_norm REAL, reward_mean REAL, reward_std REAL, entropy REAL, kl "
                 "REAL, clip_share REAL, clip_low REAL, clip_high REAL, ratio_max REAL, length_mean REAL, think_mean REAL, answer_mean REAL, "
                 "truncated_share REAL, given_mean REAL, scored INTEGER, abstained INTEGER, error INTEGER, budget INTEGER, killed "
                 "INTEGER, group_count INTEGER, groups_without_variance INTEGER, groups_trained INTEGER, prompt_tokens "
                 "INTEGER, new_tokens INTEGER, trained_tokens INTEGER, stale_tokens INTEGER, staleness INTEGER, corrected_share REAL, flight_tokens INTEGER, skipped INTEGER, flops REAL, content TEXT NOT "
                 "NULL, chain TEXT NOT NULL) STRICT",
                 39, 37},
    [T_STEP_PARTS] = {"step_parts",
                      "CREATE TABLE step_parts(step INTEGER, position INTEGER, name TEXT, mean REAL, PRIMARY KEY(step, "
                      "position)) STRICT, WITHOUT ROWID",
                      4, 4},
    [T_STEP_EXPERTS] = {"step_experts",
                        "CREATE TABLE step_experts(step INTEGER, layer INTEGER, imbalance REAL, load BLOB, PRIMARY KEY(step, "
                        "layer)) STRICT, WITHOUT ROWID",
                        4, 4},
    [T_STEP_LEVELS] = {"step_levels",
                       "CREATE TABLE step_levels(step INTEGER, position INTEGER, kind TEXT, level INTEGER, prompts INTEGER, samples "
                       "INTEGER, passed INTEGER, share REAL, PRIMARY KEY(step, position)) STRICT, WITHOUT ROWID",
                       8, 8},
    [T_REPLACED] = {"replaced",
                    "CREATE TABLE replaced(step INTEGER, prompt INTEGER, attempt INTEGER, kind TEXT, level INTEGER, mode TEXT, "
                    "samples INTEGER, prompt_tokens INTEGER, tokens INTEGER, reward REAL, PRIMARY KEY(step, prompt, attempt)) STRICT, WITHOUT ROWID",
                    10, 10},
    [T_PROMPTS] = {"prompts",
                   "CREATE TABLE prompts(step INTEGER, prompt INTEGER, kind TEXT, level INTEGER, mode TEXT, text TEXT, "
                   "messages TEXT, truth TEXT, ids BLOB, has_variance INTEGER, hash TEXT NOT NULL, PRIMARY KEY(step, "
                   "prompt)) STRICT",
                   11, 10},
    [T_SAMPLES] = {"samples",
                   "CREATE TABLE samples(step INTEGER, sample INTEGER, prompt INTEGER, finish TEXT, tokens INTEGER, "
                   "think_tokens INTEGER, answer_tokens INTEGER, verdict TEXT, reward REAL, why TEXT, advantage REAL, "
                   "active INTEGER, completion TEXT, ids BLOB, logprobs BLOB, course BLOB, versions BLOB, hash TEXT NOT NULL, "
                   "PRIMARY KEY(step, sample)) STRICT",
                   18, 17},
    [T_PARTS] = {"parts",
                 "CREATE TABLE parts(step INTEGER, sample INTEGER, position INTEGER, name TEXT, value REAL, PRIMARY "
                 "KEY(step, sample, position)) STRICT, WITHOUT ROWID",
                 5, 5},
    [T_EVALUATIONS] = {"evaluations",
                       "CREATE TABLE evaluations(step INTEGER, position INTEGER, name TEXT NOT NULL, replayable TEXT "
                       "NOT NULL, chain TEXT NOT NULL, PRIMARY KEY(step, position)) STRICT",
                       5, 4},
    [T_EVENTS] = {"events",
                  "CREATE TABLE events(seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, kind TEXT NOT NULL, step "
                  "INTEGER, detail TEXT NOT NULL, chain TEXT NOT NULL) STRICT",
                  6, 5},
};
// ---- opening ---------------------------------------------------------------------------------------------
static bool run_sql(const Ledger *l, const char *sql, const char *doing, Err *err) {
    return sqlite3_exec(l->db, sql, NULL, NULL, NULL) == SQLITE_OK || ledger_failed(l, doing, err);
}

static bool connect(const char *path, int flags, Ledger **out, Err *err) {
    Ledger *l = xcalloc(1, sizeof *l);
    l->path = xstrdup(path);
    l->writable = flags & SQLITE_OPEN_READWRITE;
    l->insert = xcalloc(TABLES, sizeof *l->insert);
    l->beside = xcalloc(1, sizeof *l->beside);
    *out = l;
    if (sqlite3_open_v2(path, &l->db, flags, NULL) != SQLITE_OK)
        return ledger_failed(l, "opening", err);
    sqlite3_busy_timeout(l->db, BUSY_MILLISECONDS);
    sqlite3_limit(l->db, SQLITE_LIMIT_LENGTH, LONGEST_VALUE);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(l->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return run_sql(l, "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA synchronous=FULL", "opening", err);
}

static bool make_schema(Ledger *l, Err *err) {
    TRY(run_sql(l, "PRAGMA journal_mode=WAL; BEGIN", "creating", err));
    for (int i = 0; i < TABLES; i++) TRY(run_sql(l, ledger_tables[i].create, "creating", err));
    char pragmas[96];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", APPLICATION_ID, FORMAT);
    return run_sql(l, pragmas, "creating", err);
}

// Makes the whole database aside and links it into place: another process sees none or a whole one, and of two that
// start together one wins.
static bool create_database(const char *path, Err *err) {
    char *aside = xasprintf("%s.part.%ld", path, (long)getpid()), *wal = xasprintf("%s-wal", aside),
         *shm = xasprintf("%s-shm", aside);
    unlink(aside);
    Ledger *l;
    bool ok = connect(aside, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &l, err) && make_schema(l, err);
    ledger_close(l); // folds the log into the file, and syncs it
    if (ok && link(aside, path) != 0)
        ok = errno == EEXIST
                 ? fail(err, ERR_CANTCREAT, path, "is there already: continue that run with --resume, or choose another folder")
                 : fail(err, ERR_CANTCREAT, path, "can't create: %s", strerror(errno));
    unlink(aside), unlink(wal), unlink(shm);
    free(aside), free(wal), free(shm);
    return ok;
}

static bool check_schema(const Ledger *l, Err *err) {
    int64_t id, format, strangers = 0;
    TRY(ledger_integer(l, "PRAGMA application_id", 0, 0, &id, err) &&
        ledger_integer(l, "PRAGMA user_version", 0, 0, &format, err));
    if (id != APPLICATION_ID) return fail(err, ERR_DATA, l->path, "is an SQLite database, but not a ledger of reckon");
    if (format != FORMAT)
        return fail(err, ERR_DATA, l->path, "has format %lld, expected %d", (long long)format, FORMAT);
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'", 0, 0, &s, err), more = true;
    int known = 0;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        const char *sql = column_string(s, 0);
        bool ours = false;
        for (int i = 0; i < TABLES; i++) ours |= strcmp(sql, ledger_tables[i].create) == 0;
        known += ours, strangers += !ours;
    }
    sqlite3_finalize(s);
    if (ok && (strangers || known != TABLES))
        ok = fail(err, ERR_DATA, l->path, "the schema is not that of a ledger: %d of %d tables as expected, %lld others", known, TABLES,
                  (long long)strangers);
    return ok;
}

static bool open_checked(const char *run_folder, bool writable, Ledger **out, Err *err) {
    char *path = path_join(run_folder, "ledger.db"), *wal = xasprintf("%s-wal", path);
    bool ok = file_exists(path) || fail(err, ERR_NOINPUT, path, "is not there, expected the ledger of a run");
    if (ok && writable) {
        ok = connect(path, SQLITE_OPEN_READWRITE, out, err) && check_schema(*out, err);
    } else if (ok) {
        ok = connect(path, SQLITE_OPEN_READONLY, out, err) && check_schema(*out, err);
        if (!ok && access(run_folder, W_OK) != 0 && !file_exists(wal)) { // a read-only folder without a log: the file is all
            ledger_close(*out);
            char *uri = sqlite3_mprintf("file:%s?immutable=1", path);
            ok = connect(uri ? uri : path, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, out, err) && check_schema(*out, err);
            sqlite3_free(uri);
        }
    }
    if (!ok) {
        ledger_close(*out);
        *out = NULL;
    }
    free(path), free(wal);
    return ok;
}

bool ledger_open(const char *run_folder, bool resume, Ledger **out, Err *err) {
    *out = NULL;
    if (!resume) {
        char *path = path_join(run_folder, "ledger.db");
        bool ok = create_database(path, err);
        free(path);
        TRY(ok);
        TRY(folder_sync(run_folder, err));
    }
    return open_checked(run_folder, true, out, err);
}

bool ledger_open_read(const char *run_folder, Ledger **out, Err *err) {
    *out = NULL;
    return open_checked(run_folder, false, out, err);
}

void ledger_close(Ledger *l) {
    if (!l) return;
    Err lost;
    if (!ledger_settle(l, &lost)) log_line(LOG_WARN, "reckon: a step could not be put on its ledger: %s", lost.msg);
    for (int i = 0; i < TABLES; i++) sqlite3_finalize(l->insert[i]);
    sqlite3_close(l->db);
    free(l->insert), free(l->beside), free(l->path);
    free(l);
}

// ---- writing ---------------------------------------------------------------------------------------------
bool ledger_begin(Ledger *l, Err *err) { return ledger_settle(l, err) && run_sql(l, "BEGIN IMMEDIATE", "writing", err); }
bool ledger_finish(Ledger *l, bool ok, Err *err) {
    if (ok) ok = run_sql(l, "COMMIT", "writing", err);
    if (!ok && !sqlite3_get_autocommit(l->db)) sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
    return ok;
}

bool ledger_insert(Ledger *l, int table, const Value *values, Err *err) {
    const Table *t = &ledger_tables[table];
    sqlite3_stmt *s = l->insert[table];
    if (!s) {
        Buf sql = {0};
        buf_printf(&sql, "INSERT INTO %s VALUES(", t->name);
        for (int i = 0; i < t->columns; i++) buf_puts(&sql, i ? ",?" : "?");
        buf_puts(&sql, ")");
        int r = sqlite3_prepare_v2(l->db, sql.data, -1, &l->insert[table], NULL);
        buf_free(&sql);
        if (r != SQLITE_OK) return ledger_failed(l, "writing", err);
        s = l->insert[table];
    }
    for (int i = 0; i < t->columns; i++) {
        const Value *v = &values[i];
        int r = SQLITE_OK;
        switch (v->kind) {
        case VALUE_NULL: r = sqlite3_bind_null(s, i + 1); break;
        case VALUE_INT: r = sqlite3_bind_int64(s, i + 1, v->integer); break;
        case VALUE_REAL: r = sqlite3_bind_double(s, i + 1, v->real); break;
        case VALUE_TEXT: r = sqlite3_bind_text64(s, i + 1, v->data, v->size, SQLITE_STATIC, SQLITE_UTF8); break;
        case VALUE_BLOB: r = sqlite3_bind_blob64(s, i + 1, v->data, v->size, SQLITE_STATIC); break;
        }
        if (r == SQLITE_TOOBIG)
            return fail(err, ERR_DATA, l->path, "a value of %zu bytes for %s, expected at most %d", v->size, t->name,
                        LONGEST_VALUE);
        if (r != SQLITE_OK) return ledger_failed(l, "writing", err);
    }
    bool ok = sqlite3_step(s) == SQLITE_DONE || ledger_failed(l, "writing", err);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return ok;
}

bool ledger_set_text(Ledger *l, const char *sql, const char *text, int64_t key, int64_t key2, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, sql, 0, 0, &s, err);
    if (ok) {
        sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
        sqlite3_bind_int64(s, 2, key);
        if (sqlite3_bind_parameter_count(s) > 2) sqlite3_bind_int64(s, 3, key2);
        ok = sqlite3_step(s) == SQLITE_DONE || ledger_failed(l, "writing", err);
    }
    sqlite3_finalize(s);
    return ok;
}

bool ledger_append_event(Ledger *l, const char *kind, int64_t step, const json_t *detail, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    char previous[65] = "", chain[65] = "", at[40];
    int64_t seq = 1;
    bool ok = ledger_query(l, "SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1", 0, 0, &s, err) &&
              ledger_next(l, s, &more, err);
    if (ok && more) {
        seq = column_int(s, 0) + 1;
        snprintf(previous, sizeof previous, "%s", column_string(s, 1));
    }
    sqlite3_finalize(s);
    TRY(ok);
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(at + n, sizeof at - n, ".%03ldZ", now.tv_nsec / 1000000);
    json_t *empty = json_object();
    Buf text = {0}, row = {0};
    Value v[] = {value_int(seq), value_text(at), value_text(kind), step < 0 ? (Value){0} : value_int(step),
                 value_json(detail ? detail : empty, &text), value_text(chain)};
    row_append(&row, "events", v, ledger_tables[T_EVENTS].hashed);
    chain_link(previous, row.data, row.size, chain);
    v[5] = value_text(chain);
    ok = ledger_insert(l, T_EVENTS, v, err);
    json_decref(empty);
    buf_free(&text), buf_free(&row);
    return ok;
}

bool ledger_event(Ledger *l, const char *kind, const json_t *detail, Err *err) {
    TRY(ledger_begin(l, err));
    return ledger_finish(l, ledger_append_event(l, kind, -1, detail, err), err);
}

static bool compare_facts(const Ledger *l, const char *recorded, const json_t *now, Err *err) {
    json_t *then = NULL;
    if (!json_parse(recorded, strlen(recorded), l->path, 1, &then, err)) return false;
    const char *key;
    json_t *value;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        json_t *before = json_object_get(then, key);
        if (!ok || (before && json_equal(before, value))) continue;
        Buf a = {0}, b = {0};
        if (before) json_write(before, &a);
        json_write(value, &b);
        ok = fail(err, ERR_DATA, l->path, "this run was started with %s %.200s and can't go on with %.200s: its results would "
                  "no longer be a function of its recipe", key, before ? a.data : "unset", b.data);
        buf_free(&a), buf_free(&b);
    }
    if (ok && json_object_size(then) != json_object_size(now))
        ok = fail(err, ERR_DATA, l->path, "this run was started with %zu facts about itself, found %zu now",
                  json_object_size(then), json_object_size(now));
    json_decref(then);
    return ok;
}

// The second time (a resume) the facts must be the same; the machine may be another, and is recorded again.
bool ledger_run(Ledger *l, const json_t *replayable, const json_t *measured, Err *err) {
    sqlite3_stmt *s;
    bool there = false;
    TRY(ledger_begin(l, err));
    bool ok = ledger_query(l, "SELECT replayable FROM run", 0, 0, &s, err) && ledger_next(l, s, &there, err);
    if (ok && there) ok = compare_facts(l, column_string(s, 0), replayable, err);
    sqlite3_finalize(s);
    if (ok && !there) {
        Buf text = {0}, row = {0};
        char chain[65];
        Value v[] = {value_int(1), value_json(replayable, &text), {0}};
        row_append(&row, "run", v, ledger_tables[T_RUN].hashed);
        chain_link("", row.data, row.size, chain);
        v[2] = value_text(chain);
        ok = ledger_insert(l, T_RUN, v, err);
        buf_free(&text), buf_free(&row);
    }
    ok = ok && ledger_append_event(l, "machine", -1, measured, err);
    return ledger_finish(l, ok, err);
}

// ---- evaluations -----------------------------------------------------------------------------------------
// Links from `step` on are computed anew: an evaluation made later of an earlier step takes its place there, so that
// the head does not depend on when it was made.
static bool rechain(Ledger *l, int64_t step, Err *err) {
    char chain[65] = "";
    sqlite3_stmt *s;
    static const char sql[] =
        "SELECT 0 AS step, -2 AS position, chain, NULL, NULL FROM run"
        " UNION ALL SELECT step, -1, content, NULL, NULL FROM steps"
        " UNION ALL SELECT step, position, NULL, name, replayable FROM evaluations ORDER BY 1, 2";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    Buf row = {0};
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t at = column_int(s, 0), position = column_int(s, 1);
        if (position == -2) {
            snprintf(chain, sizeof chain, "%s", column_string(s, 2));
        } else if (position == -1) {
            chain_link(chain, column_string(s, 2), strlen(column_string(s, 2)), chain);
            if (at >= step) ok = ledger_set_text(l, "UPDATE steps SET chain = ? WHERE step = ?", chain, at, 0, err);
        } else {
            Value v[] = {value_int(at), value_int(position), value_column(s, 3), value_column(s, 4)};
            row.size = 0;
            row_append(&row, "evaluations", v, ledger_tables[T_EVALUATIONS].hashed);
            chain_link(chain, row.data, row.size, chain);
            if (at >= step)
                ok = ledger_set_text(l, "UPDATE evaluations SET chain = ? WHERE step = ? AND position = ?", chain, at, position, err);
        }
    }
    sqlite3_finalize(s);
    buf_free(&row);
    return ok;
}

// *known: the same name and content stands at this step already (made again after a resume).
static bool evaluation_known(const Ledger *l, int64_t step, const char *name, const Value *text, bool *known, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    *known = false;
    bool ok = ledger_query(l, "SELECT name, replayable FROM evaluations WHERE step = ?", step, 0, &s, err);
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        Value v = value_column(s, 1);
        *known |= !strcmp(column_string(s, 0), name) && v.size == text->size && !memcmp(v.data, text->data, v.size);
    }
    sqlite3_finalize(s);
    return ok;
}

static bool write_evaluation(Ledger *l, int64_t step, const char *name, const json_t *replayable, const json_t *measured,
                             Err *err) {
    int64_t last, position;
    bool known;
    char chain[65];
    TRY(chain_before(l, step, chain, err)); // an error if there is no run
    TRY(ledger_integer(l, "SELECT max(step) FROM steps", 0, 0, &last, err));
    if (step < 0 || step > last)
        return fail(err, ERR_SOFTWARE, l->path, "an evaluation at step %lld, expected 0 to %lld", (long long)step,
                    (long long)last);
    TRY(ledger_integer(l, "SELECT max(position) + 1 FROM evaluations WHERE step = ?", step, 0, &position, err));
    Buf text = {0};
    Value v[] = {value_int(step), value_int(position), value_text(name), value_json(replayable, &text), value_text(chain)};
    bool ok = evaluation_known(l, step, name, &v[3], &known, err);
    if (ok && !known) ok = ledger_insert(l, T_EVALUATIONS, v, err) && rechain(l, step, err);
    buf_free(&text);
    json_t *detail = json_object();
    json_object_set_new(detail, "name", json_string(name));
    json_object_set_new(detail, "again", json_boolean(known));
    if (measured) json_object_set(detail, "measured", (json_t *)(uintptr_t)measured);
    ok = ok && ledger_append_event(l, "evaluation", step, detail, err);
    json_decref(detail);
    return ok;
}

bool ledger_evaluation(Ledger *l, int64_t step, const char *name, const json_t *replayable, const json_t *measured,
                       Err *err) {
    TRY(ledger_begin(l, err));
    return ledger_finish(l, write_evaluation(l, step, name, replayable, measured, err), err);
}

// ---- rewind ----------------------------------------------------------------------------------------------
// Work that will be done twice moves to the events, whose chain is append-only: what a step cost that can't be asked of
// a clock (its measured values are there already), and what it came to: when it is done again, the content must be
// the same, which the audit checks.
static bool note_repeated_steps(Ledger *l, int64_t step, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT step, stage_index, kind, prompt_tokens, new_tokens, trained_tokens, flops, content FROM "
                              "steps WHERE step > ? ORDER BY step", step, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *j = json_object();
        json_object_set_new(j, "work", json_string("step"));
        json_object_set_new(j, "stage_index", json_integer(column_int(s, 1)));
        json_object_set_new(j, "stage", json_string(column_string(s, 2)));
        json_object_set_new(j, "prompt_tokens", json_integer(column_int(s, 3)));
        json_object_set_new(j, "new_tokens", json_integer(column_int(s, 4)));
        json_object_set_new(j, "trained_tokens", json_integer(column_int(s, 5)));
        json_object_set_new(j, "flops", json_number_or_name(column_real(s, 6)));
        json_object_set_new(j, "content", json_string(column_string(s, 7)));
        ok = ledger_append_event(l, "repeated", column_int(s, 0), j, err);
        json_decref(j);
    }
    sqlite3_finalize(s);
    return ok;
}
static bool note_repeated_evaluations(Ledger *l, int64_t step, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT step, name, replayable FROM evaluations WHERE step > ? ORDER BY step, position", step,
                           0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *j = json_object();
        json_object_set_new(j, "work", json_string("evaluation"));
        json_object_set_new(j, "name", json_string(column_string(s, 1)));
        json_object_set_new(j, "replayable", column_object(s, 2));
        ok = ledger_append_event(l, "repeated", column_int(s, 0), j, err);
        json_decref(j);
    }
    sqlite3_finalize(s);
    return ok;
}

static bool write_rewind(Ledger *l, int64_t step, Err *err) {
    int64_t last;
    TRY(ledger_integer(l, "SELECT max(step) FROM steps", 0, 0, &last, err));
    if (step > last || step < 0)
        return fail(err, ERR_DATA, l->path, "ends at step %lld, expected at least the checkpoint's step %lld",
                    (long long)last, (long long)step);
    if (step == last) return true;
    TRY(note_repeated_steps(l, step, err) && note_repeated_evaluations(l, step, err));
    static const int tables[] = {T_STEPS, T_STEP_PARTS, T_STEP_LEVELS, T_STEP_EXPERTS, T_REPLACED, T_PROMPTS, T_SAMPLES, T_PARTS, T_EVALUATIONS};
    for (int i = 0; i < COUNT(tables); i++) {
        char sql[96];
        snprintf(sql, sizeof sql, "DELETE FROM %s WHERE step > %lld", ledger_tables[tables[i]].name, (long long)step);
        TRY(run_sql(l, sql, "writing", err));
    }
    json_t *detail = json_pack("{s:I, s:I}", "to", (json_int_t)step, "from", (json_int_t)last);
    bool ok = ledger_append_event(l, "rewind", step, detail, err);
    json_decref(detail);
    return ok;
}

bool ledger_rewind(Ledger *l, int64_t step, Err *err) {
    TRY(ledger_begin(l, err));
    return ledger_finish(l, write_rewind(l, step, err), err);
}

bool ledger_head(Ledger *l, int64_t *step, char hash[65], Err *err) {
    TRY(ledger_integer(l, "SELECT max(step) FROM steps", 0, 0, step, err));
    return chain_before(l, *step, hash, err);
}
