// What `reckon watch` shows of a run, read from its ledger and its resolved recipe while the trainer writes. Each reading opens the
// ledger anew, sees one state of it, and leaves nothing behind; what is read is hostile and only ever becomes numbers and text.
#include "watch.h"
#include "files.h"
#include "ledger_rows.h"
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *safe_text(const char *text) {
    json_t *j = json_string(text);
    if (j) return j;
    char *ascii = xstrdup(text);
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    j = json_string(ascii);
    free(ascii);
    return j;
}

// ---- curves ----------------------------------------------------------------------------------------------
typedef struct Points {
    double *x, *y;
    int count, capacity;
} Points;
static void add_point(Points *p, double x, double y) {
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 256;
        p->x = xrealloc(p->x, (size_t)p->capacity * sizeof *p->x), p->y = xrealloc(p->y, (size_t)p->capacity * sizeof *p->y);
    }
    p->x[p->count] = x, p->y[p->count++] = y;
}

// Means over equal stretches of the steps.
static json_t *series_of(const char *name, const Points *p) {
    double from = p->x[0], to = p->x[p->count - 1], sum[WATCH_POINTS] = {0};
    int bins = to - from + 1 < WATCH_POINTS ? (int)(to - from) + 1 : WATCH_POINTS, count[WATCH_POINTS] = {0};
    for (int i = 0; i < p->count; i++) {
        int bin = to > from ? (int)((p->x[i] - from) / (to - from) * (bins - 1) + 0.5) : 0;
        sum[bin] += p->y[i], count[bin]++;
    }
    json_t *values = json_array();
    for (int i = 0; i < bins; i++) json_array_append_new(values, count[i] ? json_number_or_name(sum[i] / count[i]) : json_null());
    return json_pack("{s:o,s:f,s:f,s:o,s:o}", "name", safe_text(name), "from", from, "to", to, "now", json_number_or_name(p->y[p->count - 1]),
                     "values", values);
}

// `sql` gives (name, step, value), rows of one name together and in the order of their steps.
static bool add_panel(const Ledger *l, const char *title, const char *unit, const char *sql, json_t *panels, Err *err) {
    sqlite3_stmt *s;
    Points p = {0};
    char name[80] = "";
    json_t *series = json_array();
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        double x = column_real(s, 1), y = column_real(s, 2);
        if (!isfinite(x) || !isfinite(y)) continue;
        if (p.count && (strncmp(name, column_string(s, 0), sizeof name - 1) != 0 || x < p.x[p.count - 1])) {
            json_array_append_new(series, series_of(name, &p));
            p.count = 0;
        }
        if (!p.count) snprintf(name, sizeof name, "%s", column_string(s, 0));
        add_point(&p, x, y);
    }
    sqlite3_finalize(s);
    if (p.count) json_array_append_new(series, series_of(name, &p));
    free(p.x), free(p.y);
    if (ok && json_array_size(series)) json_array_append_new(panels, json_pack("{s:s,s:s,s:O}", "title", title, "unit", unit, "series", series));
    json_decref(series);
    return ok;
}

static const struct {
    const char *title, *unit, *sql;
} panels[] = {
    {"reward", "", "SELECT 'reward', step, reward_mean FROM steps WHERE reward_mean IS NOT NULL ORDER BY step"},
    {"held-out accuracy", "%",
     "SELECT substr(e.name, instr(e.name, ' ') + 1) || ' ' || (j.value ->> '$.level') || iif(e.name LIKE 'sampled%', ' sampled ', ' ') || "
     "(j.value ->> '$.kind'), e.step, 100.0 * (j.value ->> '$.accuracy') FROM "
     "(SELECT * FROM evaluations WHERE json_valid(replayable) AND (name LIKE 'greedy%' OR name LIKE 'sampled%')) e, json_each(e.replayable, "
     "'$.levels') j ORDER BY e.name, j.value ->> '$.kind', j.value ->> '$.level', e.step"},
    {"pass rate", "%", "SELECT kind || ' ' || level, step, 100.0 * passed / nullif(samples, 0) FROM step_levels ORDER BY kind, level, step"},
    {"parts of the reward", "",
     "SELECT name, step, mean FROM step_parts WHERE (SELECT count(DISTINCT name) FROM step_parts) > 1 ORDER BY name, step"},
    {"length", "tokens",
     "SELECT * FROM (SELECT 'thinking', step, think_mean FROM steps WHERE group_count > 0 ORDER BY step) UNION ALL "
     "SELECT * FROM (SELECT 'answer', step, answer_mean FROM steps WHERE group_count > 0 ORDER BY step)"},
    {"entropy", "nats", "SELECT 'entropy', step, entropy FROM steps WHERE group_count > 0 ORDER BY step"},
    {"KL", "nats", "SELECT 'KL', step, kl FROM steps WHERE group_count > 0 AND (SELECT max(abs(kl)) FROM steps) > 0 ORDER BY step"},
    {"cut off", "%", "SELECT 'cut off', step, 100.0 * truncated_share FROM steps WHERE group_count > 0 ORDER BY step"},
    {"groups without variance", "%",
     "SELECT 'groups', step, 100.0 * groups_without_variance / group_count FROM steps WHERE group_count > 0 ORDER BY step"},
    {"loss", "", "SELECT 'loss', step, loss FROM steps WHERE stage_index = (SELECT max(stage_index) FROM steps) ORDER BY step"},
    {"gradient norm", "", "SELECT 'norm', step, gradient_norm FROM steps ORDER BY step"},
};

// ---- samples, verdicts, time -----------------------------------------------------------------------------
static bool read_samples(const Ledger *l, json_t *out, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] =
        "SELECT s.step, p.text, p.truth, substr(s.completion, 1, 600), s.reward, s.verdict, s.finish FROM samples s JOIN prompts p ON p.step = s.step "
        "AND p.prompt = s.prompt WHERE s.step = (SELECT max(step) FROM samples) AND s.sample IN (SELECT min(sample) FROM samples WHERE step = "
        "(SELECT max(step) FROM samples) GROUP BY prompt) ORDER BY s.sample LIMIT 8";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more)
        json_array_append_new(out, json_pack("{s:I,s:o,s:o,s:o,s:o,s:o,s:o}", "step", (json_int_t)column_int(s, 0), "prompt", safe_text(column_string(s, 1)),
                                             "truth", safe_text(column_string(s, 2)), "completion", safe_text(column_string(s, 3)), "reward",
                                             json_number_or_name(column_real(s, 4)), "verdict", safe_text(column_string(s, 5)), "finish",
                                             safe_text(column_string(s, 6))));
    sqlite3_finalize(s);
    return ok;
}

static bool read_last(const Ledger *l, json_t *out, int64_t *step, int64_t *stage, int64_t *stage_step, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    *step = *stage = *stage_step = 0;
    bool ok = ledger_query(l, "SELECT step, stage_index, stage_step, scored, abstained, error, budget, killed, group_count FROM steps ORDER BY step DESC LIMIT 1",
                           0, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && more) {
        *step = column_int(s, 0), *stage = column_int(s, 1), *stage_step = column_int(s, 2);
        if (column_int(s, 8) > 0)
            json_object_set_new(out, "verdicts", json_pack("{s:I,s:I,s:I,s:I,s:I}", "scored", (json_int_t)column_int(s, 3), "abstained", (json_int_t)column_int(s, 4),
                                                           "error", (json_int_t)column_int(s, 5), "budget", (json_int_t)column_int(s, 6), "killed",
                                                           (json_int_t)column_int(s, 7)));
    }
    sqlite3_finalize(s);
    return ok;
}

// What the newest steps of the stage took, by their events.
static bool read_speed(const Ledger *l, int64_t step, int64_t stage_step, json_t *out, double *seconds, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    double sum = 0, tokens = NAN;
    int count = 0;
    *seconds = NAN;
    bool ok = ledger_query(l, "SELECT detail FROM events WHERE kind = 'step' AND step BETWEEN ?1 AND ?2 ORDER BY seq DESC LIMIT 20",
                           stage_step < 20 ? step - stage_step + 1 : step - 19, step, &s, err);
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *detail = column_object(s, 0);
        double one = json_number_value(json_object_get(detail, "seconds"));
        if (isfinite(one) && one > 0) sum += one, count++;
        if (isnan(tokens)) {
            const json_t *sampled = json_object_get(detail, "new_tokens_per_second"), *trained = json_object_get(detail, "trained_tokens_per_second");
            if (sampled || trained) tokens = json_number_value(sampled ? sampled : trained);
        }
        json_decref(detail);
    }
    sqlite3_finalize(s);
    if (count) *seconds = sum / count;
    json_object_set_new(out, "step_seconds", json_number_or_name(*seconds));
    json_object_set_new(out, "tokens_per_second", json_number_or_name(tokens));
    return ok;
}

// ---- the run ---------------------------------------------------------------------------------------------
static bool is_locked(const char *run_folder) {
    char *path = path_join(run_folder, "lock");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool locked = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    free(path);
    return locked;
}

static bool read_state(const Ledger *l, const char *run_folder, json_t *out, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    const char *state = is_locked(run_folder) ? "running" : "not running";
    bool ok = ledger_query(l, "SELECT kind, detail FROM events WHERE kind IN ('end', 'machine') ORDER BY seq DESC LIMIT 1", 0, 0, &s, err) &&
              ledger_next(l, s, &more, err);
    if (ok && more && !strcmp(column_string(s, 0), "end")) {
        json_t *detail = column_object(s, 1);
        const char *how = json_string_value(json_object_get(detail, "how"));
        if (how) state = !strcmp(how, "finished") ? "finished" : !strcmp(how, "stopped") ? "stopped" : "failed";
        json_decref(detail);
    }
    sqlite3_finalize(s);
    json_object_set_new(out, "state", json_string(state));
    return ok;
}

static bool read_stages(const char *run_folder, int64_t stage, int64_t stage_step, double step_seconds, json_t *out, Err *err) {
    json_t *recipe;
    char *path = path_join(run_folder, "recipe.resolved.json");
    bool ok = json_read_file(path, 64 << 20, &recipe, err);
    free(path);
    TRY(ok);
    const json_t *stages = json_object_get(recipe, "stages"), *one = json_array_get(stages, (size_t)stage);
    json_int_t steps = 0, of_stage = json_integer_value(json_object_get(one, "steps"));
    for (size_t i = 0; i < json_array_size(stages); i++) steps += json_integer_value(json_object_get(json_array_get(stages, i), "steps"));
    const char *name = json_string_value(json_object_get(recipe, "name")), *stage_name = json_string_value(json_object_get(one, "name"));
    json_object_set_new(out, "name", json_string(name ? name : run_folder));
    json_object_set_new(out, "steps", json_integer(steps));
    json_object_set_new(out, "stage", json_pack("{s:s,s:I,s:I}", "name", stage_name ? stage_name : "", "step", (json_int_t)stage_step, "steps", of_stage));
    json_object_set_new(out, "last_stage", json_boolean((size_t)stage + 1 >= json_array_size(stages)));
    json_object_set_new(out, "seconds_left", json_number_or_name((double)(of_stage - stage_step) * step_seconds));
    json_decref(recipe);
    return true;
}

bool watch_ledger(const Ledger *l, const char *run_folder, json_t *out, Err *err) {
    int64_t step, stage, stage_step;
    double seconds;
    json_t *drawn = json_array(), *samples = json_array();
    json_object_set_new(out, "panels", drawn), json_object_set_new(out, "samples", samples);
    TRY(read_last(l, out, &step, &stage, &stage_step, err));
    json_object_set_new(out, "step", json_integer(step));
    TRY(read_speed(l, step, stage_step, out, &seconds, err) && read_state(l, run_folder, out, err));
    TRY(read_stages(run_folder, stage, stage_step, seconds, out, err));
    for (int i = 0; i < COUNT(panels); i++) TRY(add_panel(l, panels[i].title, panels[i].unit, panels[i].sql, drawn, err));
    return read_samples(l, samples, err);
}

bool watch_read(const char *run_folder, json_t **out, Err *err) {
    Ledger *l;
    *out = NULL;
    TRY(ledger_open_read(run_folder, &l, err));
    json_t *j = json_object();
    bool ok = ledger_freeze(l, err) && watch_ledger(l, run_folder, j, err);
    ledger_close(l);
    if (ok) *out = j;
    else json_decref(j);
    return ok;
}
