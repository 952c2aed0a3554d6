// A stage that trains on nothing: the policy's weights become the weighted mean of models, of earlier stages' ends, of files, runs, or
// adapters, each merged into its base. It is
// one step, on the ledger with the hash of each model; checkpoints of stages' ends and of the start are kept in every run.
#include "accounts.h"
#include "data.h"
#include "files.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t stage_end_step(const Recipe *r, const char *name) {
    int64_t at = 0;
    for (int i = 0; i < r->stage_count; i++) {
        at += r->stages[i].steps;
        if (strcmp(r->stages[i].name, name) == 0) return at;
    }
    return strcmp(name, "start") == 0 ? 0 : -1;
}

// A stage's checkpoint is verified before it is read; the caller frees *out.
static bool find_model(const Trainer *t, const char *name, char **out, Err *err) {
    int64_t step = stage_end_step(t->recipe, name);
    TrainState state;
    if (step < 0) return model_find(name, out, err); // a run's newest checkpoint, or the path itself
    *out = xasprintf("%s/checkpoints/step-%lld", t->recipe->run_folder, (long long)step);
    return checkpoint_verify(*out, &state, err);
}

// Shares that sum to 1; all the same where the recipe says none.
static void shares_of(const Stage *stage, int count, double *out) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += stage->shares ? stage->shares[i] : 1;
    for (int i = 0; i < count; i++) out[i] = (stage->shares ? stage->shares[i] : 1) / sum;
}

static bool record_merge(const Trainer *t, const Stage *stage, const double *shares, char (*hashes)[65], int64_t last, EnergyMark before, Err *err) {
    json_t *models = json_array();
    for (int i = 0; stage->models[i]; i++)
        json_array_append_new(models, json_pack("{s:s,s:f,s:s}", "model", stage->models[i], "share", shares[i], "sha256", hashes[i]));
    json_t *record = json_pack("{s:s,s:o}", "stage", stage->name, "models", models);
    json_t *measured = energy_spent(t->energy, before);
    bool ok = ledger_evaluation(t->ledger, last, "merge", record, measured, err);
    json_decref(record), json_decref(measured);
    return ok;
}

bool merge_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) {
    (void)t, (void)stage, (void)batch, (void)err;
    report->loss = report->learning_rate = report->gradient_norm = report->entropy = report->kl = report->clip_share = report->ratio_max = NAN;
    return true;
}

bool merge_end(const Trainer *t, const Stage *stage, int64_t first, int64_t last, Err *err) {
    int count = 0;
    EnergyMark before = energy_mark(t->energy);
    (void)first;
    while (stage->models[count]) count++;
    char **paths = xcalloc((size_t)count, sizeof *paths), (*hashes)[65] = xcalloc((size_t)count, sizeof *hashes);
    double *shares = xcalloc((size_t)count, sizeof *shares);
    bool ok = true;
    shares_of(stage, count, shares);
    for (int i = 0; ok && i < count; i++) ok = find_model(t, stage->models[i], &paths[i], err);
    ok = ok && policy_average(t->policy, (const char *const *)paths, shares, count, hashes, err) && record_merge(t, stage, shares, hashes, last, before, err);
    for (int i = 0; i < count; i++) free(paths[i]);
    free(paths), free(hashes), free(shares);
    return ok;
}
