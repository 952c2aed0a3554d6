// The ledger: every changed cell is found, a rewind comes back to the same head, kills and full disks leave it whole.
#include "../test.h"
#include "made_run.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>


static char folder[64];
static void new_folder(void) {
    strcpy(folder, "/tmp/reckon-ledger-XXXXXX");
    CHECK(mkdtemp(folder));
}
static void remove_folder(void) {
    Err err = {0};
    OK(folder_remove(folder, &err));
}
// A run of `steps` steps with evaluations at 0 and every second step; its head in `head`.
static void make_run(int64_t steps, char head[65]) {
    Err err = {0};
    Ledger *l;
    int64_t last;
    OK(ledger_open(folder, false, &l, &err));
    OK(made_run_facts(l, &err));
    OK(made_evaluate(l, 0, "think", &err));
    for (int64_t i = 1; i <= steps; i++) {
        OK(made_step(l, i, &err));
        if (i % 2 == 0) OK(made_evaluate(l, i, "think", &err));
    }
    OK(ledger_head(l, &last, head, &err));
    CHECK_INT(last, steps);
    ledger_close(l);
}
static bool verifies(Err *err) {
    Ledger *l;
    LedgerCounts counts;
    bool ok = ledger_open_read(folder, &l, err) && ledger_verify(l, &counts, err);
    ledger_close(l);
    return ok;
}
static void sql_on(const char *sql) {
    char path[128];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) FAIL("%s: %s", sql, why);
    sqlite3_close(db);
}

static void same_run_same_head(void) {
    char first[65], second[65], other[65];
    Err err = {0};
    new_folder();
    make_run(4, first);
    OK(verifies(&err));
    remove_folder();
    new_folder();
    make_run(4, second);
    remove_folder();
    CHECK_STR(second, first);
    new_folder();
    make_run(3, other);
    CHECK(strcmp(other, first) != 0);
    remove_folder();
}

// Each cell of each row is changed in turn; the proof must fail each time and hold again after.
static void every_changed_cell_is_found(void) {
    char head[65], path[128];
    Err err = {0};
    sqlite3 *db;
    int tried = 0;
    new_folder();
    make_run(2, head);
    OK(verifies(&err));
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    for (int t = 0; t < TABLES; t++) {
        const Table *table = &ledger_tables[t];
        for (int column = 0; column < table->columns; column++) {
            char sql[512];
            sqlite3_stmt *s, *u;
            snprintf(sql, sizeof sql, "SELECT * FROM %s LIMIT 3 OFFSET 1", table->name);
            if (t == T_RUN) snprintf(sql, sizeof sql, "SELECT * FROM run");
            CHECK_INT(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
            CHECK_INT(sqlite3_step(s), SQLITE_ROW);
            const char *name = sqlite3_column_name(s, column);
            int type = sqlite3_column_type(s, column);
            // The key of all tables: their first columns up to three.
            int keys = t == T_PARTS || t == T_REPLACED ? 3 : t == T_RUN || t == T_STEPS || t == T_EVENTS ? 1 : 2;
            sqlite3_value *old = sqlite3_value_dup(sqlite3_column_value(s, column));
            int64_t key[3] = {0};
            char where[128] = "";
            for (int k = 0; k < keys; k++) {
                key[k] = sqlite3_column_int64(s, k);
                char one[64];
                snprintf(one, sizeof one, "%s%s = %lld", k ? " AND " : "", sqlite3_column_name(s, k),
                         (long long)key[k] + (k == column ? 1000 : 0));
                strcat(where, one);
            }
            const char *change = type == SQLITE_INTEGER ? "%s + 1000" : type == SQLITE_FLOAT ? "%s * (1 + 2.3e-16) + 1e-300"
                                 : type == SQLITE_BLOB ? "CAST(substr(%s, 2) AS BLOB)" : type == SQLITE_TEXT ? "%s || ' '" : NULL;
            char value[96], before[128] = "";
            for (int k = 0; k < keys; k++) {
                char one[64];
                snprintf(one, sizeof one, "%s%s = %lld", k ? " AND " : "", sqlite3_column_name(s, k), (long long)key[k]);
                strcat(before, one);
            }
            char column_name[40];
            snprintf(column_name, sizeof column_name, "%s", name);
            sqlite3_finalize(s);
            if (t == T_RUN && column == 0) { // CHECK(id = 1) holds this one
                sqlite3_value_free(old);
                continue;
            }
            if (change) snprintf(value, sizeof value, change, column_name);
            else snprintf(value, sizeof value, "%s", strcmp(column_name, "course") && strcmp(column_name, "versions") ? "1" : "x'01'"); // NULL in what was made
            snprintf(sql, sizeof sql, "UPDATE %s SET %s = %s WHERE %s", table->name, column_name, value, before);
            CHECK_INT(sqlite3_prepare_v2(db, sql, -1, &u, NULL), SQLITE_OK);
            if (sqlite3_step(u) != SQLITE_DONE) FAIL("%s: %s", sql, sqlite3_errmsg(db));
            CHECK_INT(sqlite3_changes(db), 1);
            sqlite3_finalize(u);
            err = (Err){0};
            if (verifies(&err)) FAIL("%s was not found", sql);
            if (err.code != ERR_FAILED) FAIL("%s: code %d, %s: %s", sql, err.code, err.where, err.msg);
            snprintf(sql, sizeof sql, "UPDATE %s SET %s = ?1 WHERE %s", table->name, column_name, where);
            CHECK_INT(sqlite3_prepare_v2(db, sql, -1, &u, NULL), SQLITE_OK);
            sqlite3_bind_value(u, 1, old);
            CHECK_INT(sqlite3_step(u), SQLITE_DONE);
            CHECK_INT(sqlite3_changes(db), 1);
            sqlite3_finalize(u);
            sqlite3_value_free(old);
            tried++;
        }
    }
    sqlite3_close(db);
    OK(verifies(&err));
    CHECK_INT(tried, 112); // all cells of a row of each table, but the run's id
    remove_folder();
}

static void rows_taken_or_added_are_found(void) {
    static const struct {
        const char *sql, *place;
    } cases[] = {
        {"DELETE FROM samples WHERE step = 2 AND sample = 11", "step 2"},
        {"DELETE FROM samples WHERE step = 2 AND sample = 4", "sample 5"},
        {"DELETE FROM parts WHERE step = 1 AND sample = 0 AND position = 1", "samples, step 1, sample 0"},
        {"DELETE FROM steps WHERE step = 4", "step"},
        {"DELETE FROM steps WHERE step = 2", "step 3"},
        {"DELETE FROM evaluations WHERE step = 2", "steps, step 3"},
        {"DELETE FROM events WHERE seq = 3", "events, row 4"},
        {"DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)", "events"},
        {"INSERT INTO parts VALUES(99, 0, 0, 'x', 1)", "parts"},
        {"INSERT INTO evaluations VALUES(99, 0, 'x', '{}', 'y')", "evaluations"},
        {"DELETE FROM run", "run"},
        {"UPDATE samples SET completion = 'No', hash = 'ff' WHERE step = 3 AND sample = 2", "samples, step 3, sample 2"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        char head[65];
        Err err = {0};
        new_folder();
        make_run(4, head);
        sql_on(cases[i].sql);
        if (verifies(&err)) FAIL("not found: %s", cases[i].sql);
        if (!strstr(err.where, cases[i].place)) FAIL("%s: named '%s: %s', expected '%s'", cases[i].sql, err.where, err.msg, cases[i].place);
        remove_folder();
    }
}

static void rewind_returns_to_the_same_head(void) {
    char whole[65], head[65];
    Err err = {0};
    Ledger *l;
    int64_t step;
    new_folder();
    make_run(6, whole);
    OK(ledger_open(folder, true, &l, &err));
    OK(ledger_rewind(l, 3, &err));
    OK(ledger_head(l, &step, head, &err));
    CHECK_INT(step, 3);
    CHECK(!ledger_rewind(l, 5, &err) && err.code == ERR_DATA);
    CHECK(!made_step(l, 6, &err) && err.code == ERR_SOFTWARE);
    for (int64_t i = 4; i <= 6; i++) {
        OK(made_step(l, i, &err));
        if (i % 2 == 0) OK(made_evaluate(l, i, "think", &err));
    }
    OK(made_evaluate(l, 6, "think", &err)); // a resumed run may do its last one again
    OK(ledger_head(l, &step, head, &err));
    CHECK_STR(head, whole);
    int64_t repeated;
    OK(ledger_integer(l, "SELECT count(*) FROM events WHERE kind = 'repeated' AND detail LIKE '%new_tokens%'", 0, 0, &repeated, &err));
    CHECK_INT(repeated, 3);
    LedgerCounts counts;
    OK(ledger_verify(l, &counts, &err));
    CHECK_INT(counts.repeated, 3);
    CHECK_INT(counts.repeated_same, 3);
    // A repeated step that comes out otherwise is named.
    OK(ledger_rewind(l, 5, &err));
    Batch b = made_batch(7);
    StepReport s = made_report(&b, 6, 1);
    OK(ledger_step(l, &s, &b, &err));
    made_free(&b);
    CHECK(!ledger_verify(l, &counts, &err) && strstr(err.msg, "does not replay"));
    ledger_close(l);
    remove_folder();
}

// A step written beside: the same head, and every later call waits for it; what failed is the next call's error, once.
static void step_written_beside(void) {
    char whole[65], head[65];
    Err err = {0};
    Ledger *l;
    int64_t step;
    new_folder();
    make_run(0, head);
    OK(ledger_open(folder, true, &l, &err));
    for (int64_t i = 1; i <= 3; i++) {
        StepReport s = made_report(NULL, i, 0);
        OK(ledger_step(l, &s, NULL, &err));
    }
    OK(ledger_head(l, &step, whole, &err));
    OK(ledger_rewind(l, 0, &err));
    for (int64_t i = 1; i <= 3; i++) {
        StepReport s = made_report(NULL, i, 0);
        OK(ledger_step_beside(l, &s, NULL, &err));
    }
    OK(ledger_head(l, &step, head, &err));
    CHECK_INT(step, 3);
    CHECK_STR(head, whole);

    Batch b = made_batch(5);
    StepReport wrong = made_report(&b, 5, 1);
    b.groups = NULL; // they are of its arena, and no batch of a run has them there
    OK(ledger_step_beside(l, &wrong, &b, &err));
    CHECK(b.prompts == NULL);
    CHECK(!ledger_event(l, "lost", NULL, &err) && err.code == ERR_SOFTWARE && strstr(err.msg, "step 5"));
    OK(ledger_event(l, "kept", NULL, &err));
    StepReport again = made_report(NULL, 7, 0);
    OK(ledger_step_beside(l, &again, NULL, &err));
    CHECK(!ledger_head(l, &step, head, NULL)); // who asks without an error is told too
    OK(ledger_head(l, &step, head, &err));
    CHECK_INT(step, 3);
    StepReport last = made_report(NULL, 4, 0);
    OK(ledger_step_beside(l, &last, NULL, &err));
    ledger_close(l); // waits
    OK(verifies(&err));
    OK(ledger_open_read(folder, &l, &err) && ledger_head(l, &step, head, &err));
    CHECK_INT(step, 4);
    ledger_close(l);
    remove_folder();
}

static void late_evaluation_takes_its_place(void) {
    char first[65], second[65];
    Err err = {0};
    Ledger *l;
    int64_t step;
    for (int late = 0; late < 2; late++) {
        new_folder();
        OK(ledger_open(folder, false, &l, &err));
        CHECK(!made_step(l, 1, &err) && err.code == ERR_DATA); // the run's facts come first
        OK(made_run_facts(l, &err));
        for (int64_t i = 1; i <= 5; i++) {
            OK(made_step(l, i, &err));
            if (i == 2 && !late) OK(made_evaluate(l, 2, "direct", &err));
        }
        if (late) OK(made_evaluate(l, 2, "direct", &err));
        CHECK(!made_evaluate(l, 6, "direct", &err) && err.code == ERR_SOFTWARE);
        OK(ledger_head(l, &step, late ? second : first, &err));
        ledger_close(l);
        OK(verifies(&err));
        remove_folder();
    }
    CHECK_STR(second, first);
}

static void other_facts_are_refused(void) {
    char head[65];
    Err err = {0};
    Ledger *l;
    new_folder();
    make_run(1, head);
    CHECK(!ledger_open(folder, false, &l, &err) && err.code == ERR_CANTCREAT && strstr(err.msg, "--resume"));
    OK(ledger_open(folder, true, &l, &err));
    OK(made_run_facts(l, &err)); // the same: fine
    json_t *facts = json_pack("{s:s, s:s}", "recipe_hash", "cd", "version", RECKON_VERSION);
    CHECK(!ledger_run(l, facts, NULL, &err) && err.code == ERR_DATA && strstr(err.msg, "recipe_hash \"ab\""));
    json_decref(facts);
    ledger_close(l);
    OK(verifies(&err));
    remove_folder();
    CHECK(!ledger_open(folder, true, &l, &err) && err.code == ERR_NOINPUT);
    CHECK(!ledger_open_read(folder, &l, &err) && err.code == ERR_NOINPUT);
}

static void *open_new(void *out) {
    Err err = {0};
    Ledger *l;
    *(int *)out = ledger_open(folder, false, &l, &err) ? 0 : err.code;
    ledger_close(l);
    return NULL;
}
static int child(void (*work)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        work();
        _exit(0);
    }
    return pid;
}
static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status;
}
static void append_events(void) {
    Err err = {0};
    Ledger *l;
    if (!ledger_open(folder, true, &l, &err)) _exit(1);
    for (int i = 0; i < 40; i++)
        if (!ledger_event(l, "test", NULL, &err)) _exit(2);
    ledger_close(l);
}
static void two_openers(void) {
    Err err = {0};
    for (int round = 0; round < 5; round++) { // of two that create, one wins
        new_folder();
        pid_t pids[2];
        int codes[2];
        for (int i = 0; i < 2; i++) {
            fflush(stdout);
            if ((pids[i] = fork()) == 0) {
                int code;
                open_new(&code);
                _exit(code);
            }
        }
        for (int i = 0; i < 2; i++) codes[i] = WEXITSTATUS(wait_for(pids[i]));
        CHECK_INT(codes[0] + codes[1], ERR_CANTCREAT);
        remove_folder();
    }
    char head[65];
    new_folder(); // two that write: both chains stay whole
    make_run(2, head);
    pid_t a = child(append_events), b = child(append_events);
    CHECK_INT(wait_for(a), 0);
    CHECK_INT(wait_for(b), 0);
    Ledger *l;
    int64_t events;
    OK(ledger_open_read(folder, &l, &err)); // and a reader that opens beside a writer
    OK(ledger_integer(l, "SELECT count(*) FROM events WHERE kind = 'test'", 0, 0, &events, &err));
    ledger_close(l);
    CHECK_INT(events, 80);
    OK(verifies(&err));
    remove_folder();
}

static void write_for_ever(void) {
    Err err = {0};
    Ledger *l;
    int64_t step;
    char head[65];
    bool there = ledger_open(folder, true, &l, &err);
    if (!there && !ledger_open(folder, false, &l, &err)) _exit(1);
    if (!made_run_facts(l, &err)) _exit(2);
    for (;;) {
        if (!ledger_head(l, &step, head, &err) || !made_step(l, step + 1, &err)) _exit(3);
        if (step % 5 == 4 && !ledger_rewind(l, step - 1, &err)) _exit(4);
        if (step % 2 && !made_evaluate(l, step - 1, "think", &err)) _exit(5);
    }
}
static void kills_leave_it_whole(void) {
    Err err = {0};
    Random r = random_start(3, STREAM_TEST, 0);
    new_folder();
    int64_t before = 0;
    for (int i = 0; i < 20; i++) {
        pid_t pid = child(write_for_ever);
        // On a slow machine a writer that never gets anything done proves nothing: it is given longer.
        usleep((1000 + random_below(&r, 60000)) << (before > 0 ? 0 : i / 4));
        kill(pid, SIGKILL);
        int status = wait_for(pid);
        if (!WIFSIGNALED(status)) FAIL("the writer ended by itself with %d", WEXITSTATUS(status));
        char path[128];
        snprintf(path, sizeof path, "%s/ledger.db", folder);
        Ledger *l;
        int64_t events = 0, runs = 0;
        if (!file_exists(path)) continue;
        OK(ledger_open(folder, true, &l, &err));
        OK(ledger_integer(l, "SELECT count(*) FROM run", 0, 0, &runs, &err));
        OK(ledger_integer(l, "SELECT max(seq) FROM events", 0, 0, &events, &err));
        ledger_close(l);
        CHECK(events >= before);
        before = events;
        if (runs) OK(verifies(&err));
    }
    CHECK(before > 0);
    remove_folder();
}

static void write_until_full(void) {
    Err err = {0};
    Ledger *l;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {600000, 600000};
    setrlimit(RLIMIT_FSIZE, &limit);
    if (!ledger_open(folder, true, &l, &err)) _exit(1);
    int64_t step;
    char head[65], after[65];
    while (ledger_head(l, &step, head, &err) && made_step(l, step + 1, &err)) {}
    if (err.code != ERR_IO || !strstr(err.msg, "stays whole")) _exit(2);
    int64_t same;
    if (!ledger_head(l, &same, after, &err) || same != step || strcmp(after, head)) _exit(3);
    ledger_close(l);
}
static void full_disk(void) {
    char head[65];
    Err err = {0};
    new_folder();
    make_run(2, head);
    CHECK_INT(WEXITSTATUS(wait_for(child(write_until_full))), 0);
    OK(verifies(&err));
    Ledger *l;
    int64_t step;
    OK(ledger_open(folder, true, &l, &err));
    OK(ledger_head(l, &step, head, &err));
    CHECK(step > 2);
    OK(made_step(l, step + 1, &err)); // with room again it goes on
    ledger_close(l);
    OK(verifies(&err));
    remove_folder();
}

// Bytes of the file are changed at random: every call returns, and says so or (a free byte) verifies.
static void damaged_files_are_errors(void) {
    char head[65], path[128];
    Err err = {0};
    new_folder();
    make_run(3, head);
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    sql_on("PRAGMA wal_checkpoint(TRUNCATE)");
    Buf whole;
    OK(file_read(path, 1 << 26, &whole, &err));
    Random r = random_start(4, STREAM_TEST, 0);
    int found = 0;
    for (int i = 0; i < 150; i++) {
        Buf b = {0};
        buf_append(&b, whole.data, whole.size);
        for (int k = 0; k < 3; k++) b.data[i < 100 && k == 0 ? (uint32_t)i : random_below(&r, (uint32_t)b.size)] ^= (char)(1 + random_below(&r, 255));
        size_t size = i % 10 == 9 ? random_below(&r, (uint32_t)b.size) : b.size;
        OK(file_write_atomic(path, b.data, size, &err));
        buf_free(&b);
        err = (Err){0};
        if (!verifies(&err)) {
            found++;
            if (!err.code || !err.msg[0]) FAIL("damage %d: no message", i);
        }
        Ledger *l;
        int64_t step;
        if (ledger_open(folder, true, &l, &err)) {
            bool ok = ledger_head(l, &step, head, &err) && ledger_rewind(l, 1, &err) && made_step(l, 2, &err);
            (void)ok;
        }
        ledger_close(l);
    }
    CHECK(found > 60);
    OK(file_write_atomic(path, "not a database, but long enough to be looked at as one........................................", 90, &err));
    CHECK(!verifies(&err) && err.code == ERR_DATA);
    sqlite3 *db; // another program's database, and ours with a stranger's trigger
    unlink(path);
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, "CREATE TABLE run(id)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    CHECK(!verifies(&err) && err.code == ERR_DATA && strstr(err.msg, "not a ledger"));
    OK(file_write_atomic(path, whole.data, whole.size, &err));
    OK(verifies(&err));
    sql_on("CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM samples; END");
    CHECK(!verifies(&err) && err.code == ERR_DATA && strstr(err.msg, "schema"));
    buf_free(&whole);
    remove_folder();
}

// What a model wrote is kept byte for byte: NUL, invalid UTF-8, nothing at all; NaN and minus zero too.
static void any_bytes(void) {
    Err err = {0};
    Ledger *l;
    new_folder();
    OK(ledger_open(folder, false, &l, &err));
    OK(made_run_facts(l, &err));
    Batch b = made_batch(1);
    StepReport s = made_report(&b, 1, 1);
    b.episodes[0].text = "a\0b\xff\xfe</script>", b.episodes[0].text_size = 14;
    b.episodes[1].text = NULL, b.episodes[1].text_size = 0;
    b.episodes[2].text = "", b.episodes[2].text_size = 0;
    b.episodes[3].advantage = -0.0;
    b.prompts[0].item.prompt = NULL, b.prompts[1].ids.count = 0, b.prompts[1].ids.data = NULL;
    s.loss = INFINITY, s.kl = -INFINITY, s.gradient_norm = NAN;
    OK(ledger_step(l, &s, &b, &err));
    made_free(&b);
    LedgerCounts counts;
    OK(ledger_verify(l, &counts, &err));
    CHECK_INT(counts.samples, MADE_SAMPLES);
    sqlite3_stmt *q;
    bool more;
    OK(ledger_query(l, "SELECT completion, typeof(completion) FROM samples ORDER BY sample", 0, 0, &q, &err));
    OK(ledger_next(l, q, &more, &err));
    CHECK_INT(sqlite3_column_bytes(q, 0), 14);
    CHECK(!memcmp(sqlite3_column_text(q, 0), "a\0b\xff\xfe</script>", 14));
    OK(ledger_next(l, q, &more, &err));
    CHECK_STR((const char *)sqlite3_column_text(q, 1), "null");
    sqlite3_finalize(q);
    ledger_close(l);
    remove_folder();
}

static const Test tests[] = {
    {"same_run_same_head", same_run_same_head},
    {"every_changed_cell_is_found", every_changed_cell_is_found},
    {"rows_taken_or_added_are_found", rows_taken_or_added_are_found},
    {"rewind_returns_to_the_same_head", rewind_returns_to_the_same_head},
    {"step_written_beside", step_written_beside},
    {"late_evaluation_takes_its_place", late_evaluation_takes_its_place},
    {"other_facts_are_refused", other_facts_are_refused},
    {"two_openers", two_openers},
    {"kills_leave_it_whole", kills_leave_it_whole},
    {"full_disk", full_disk},
    {"damaged_files_are_errors", damaged_files_are_errors},
    {"any_bytes", any_bytes},
};
TEST_MAIN(tests)
