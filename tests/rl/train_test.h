// Small runs for the tests of the trainer: a recipe's text and its scripts in, a finished run's folder out. The runs
// happen in this process, so that the sanitizers see all of them.
#ifndef RECKON_TRAIN_TEST_H
#define RECKON_TRAIN_TEST_H
#include "../test.h"
#include "files.h"
#include "rl.h"
#include <sqlite3.h>
#include <unistd.h>

typedef struct TrainedRun {
    bool ok;
    Err err;
    char folder[96];
    char weights[65], head[65]; // of the last checkpoint, of the chain
} TrainedRun;

static inline const char *scratch_folder(void) {
    static char folder[64];
    // In memory where that can be: these runs sync after every step.
    snprintf(folder, sizeof folder, "%s/reckon-train-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
    return folder;
}

static inline void scratch_file(const char *name, const char *text) {
    Err err = {0};
    OK(folder_make(scratch_folder(), &err));
    char *path = path_join(scratch_folder(), name);
    bool ok = file_write_atomic(path, text, strlen(text), &err);
    free(path);
    OK(ok);
}

static inline void scratch_remove(void) {
    Err err = {0};
    OK(folder_remove(scratch_folder(), &err));
}

// Trains `recipe` in SCRATCH/`name`, from the start or, with `resume`, from its newest checkpoint; a failure is left in the
// result. `sets` may be NULL; `last_step` -1: not known, and then nothing is looked at.
static inline TrainedRun train_from(bool resume, const char *name, const char *recipe, const char *const *sets, int64_t last_step) {
    TrainedRun run = {0};
    Recipe *r = NULL;
    const char *all[16] = {0};
    int count = 0;
    snprintf(run.folder, sizeof run.folder, "%s/%s", scratch_folder(), name);
    char *folder = xasprintf("run=%s", run.folder), *path = path_join(scratch_folder(), "recipe.lua");
    for (; sets && sets[count] && count < 14; count++) all[count] = sets[count];
    all[count] = folder;
    log_level_set(LOG_WARN);
    scratch_file("recipe.lua", recipe);
    Err err = {0};
    if (!resume) OK(folder_remove(run.folder, &err)); // of a test that failed
    run.ok = recipe_read(path, all, &r, &run.err) && train(r, &(TrainOptions){.resume = resume}, &run.err);
    if (r) recipe_free(r);
    free(folder), free(path);
    if (!run.ok || last_step < 0) return run;
    char *weights = xasprintf("%s/checkpoints/step-%lld/model.safetensors", run.folder, (long long)last_step);
    if (!file_exists(weights)) { // an adapter's
        free(weights);
        weights = xasprintf("%s/checkpoints/step-%lld/adapter_model.safetensors", run.folder, (long long)last_step);
    }
    bool ok = sha256_file(weights, run.weights, &err);
    free(weights);
    OK(ok);
    Ledger *l;
    int64_t step;
    OK(ledger_open_read(run.folder, &l, &err));
    ok = ledger_head(l, &step, run.head, &err);
    ledger_close(l);
    OK(ok);
    CHECK_INT(step, last_step);
    return run;
}
static inline TrainedRun train_run(const char *name, const char *recipe, const char *const *sets, int64_t last_step) {
    return train_from(false, name, recipe, sets, last_step);
}
#define TRAINED(run)                                                                                         \
    do {                                                                                                     \
        if (!(run).ok) FAIL("%s: %s", (run).err.where, (run).err.msg);                                       \
    } while (0)

// The first column of a query's first row on a run's ledger; NaN for null.
static inline double ask(const TrainedRun *run, const char *sql) {
    char path[160];
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    double value = NAN;
    snprintf(path, sizeof path, "%s/ledger.db", run->folder);
    bool ok = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
              sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    if (ok && sqlite3_column_type(s, 0) != SQLITE_NULL) value = sqlite3_column_double(s, 0);
    char why[200];
    snprintf(why, sizeof why, "%s", sqlite3_errmsg(db));
    sqlite3_finalize(s);
    sqlite3_close(db);
    if (!ok) FAIL("%s: %s", sql, why);
    return value;
}

#endif
