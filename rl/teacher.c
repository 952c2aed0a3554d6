// Teachers: another model (model_find) that a stage works with, which samples for it or whose distributions it learns. Owns what of
// it stands on the ledger: the SHA-256 of its files is a fact of the run, so that a run never goes on with another teacher. One that
// is asked over HTTP has a file of its own (teacher_endpoint.c).
#include "stages.h"
#include "checkpoint.h"
#include "files.h"
#include <stdlib.h>
#include <string.h>

double teacher_flops(const char *path) {
    enum { CONTEXT = 64 };
    Err ignored = {0};
    int64_t *steps = NULL;
    int count = 0;
    ModelConfig c;
    bool run = checkpoint_steps(path, &steps, &count, &ignored) && count > 0;
    char *model = run ? xasprintf("%s/checkpoints/step-%lld", path, (long long)steps[0]) : xstrdup(path);
    double flops = policy_read_config(model, &c, &ignored) ? config_flops(&c, CONTEXT, true) : 0;
    free(model), free(steps);
    return flops;
}

bool teacher_open(Trainer *t, const Stage *stage, Err *err) {
    char *model;
    if (!stage->teacher) return true;
    if (teacher_is_endpoint(stage)) return teacher_endpoint_open(t, stage, err);
    TRY(model_find(stage->teacher, &model, err));
    PolicyOptions o = {.precision = t->recipe->precision, .beside = t->policy, .keep_blocks = true};
    bool ok = policy_open(model, &o, &t->teacher, err);
    free(model);
    return ok && (policy_tokenizer(t->teacher) || fail(err, ERR_DATA, stage->teacher, "comes without a tokenizer, so it can't teach"));
}
void teacher_close(Trainer *t) {
    policy_close(t->teacher);
    t->teacher = NULL;
    teacher_endpoint_close(t);
}

bool teachers_hash(const Recipe *r, char out[65], Err *err) {
    Buf all = {0};
    bool ok = true;
    for (int i = 0; ok && i < r->stage_count; i++) {
        char *model = NULL, hash[65];
        if (!r->stages[i].teacher) continue;
        if (teacher_is_endpoint(&r->stages[i])) { // its files are elsewhere; the recipe names it
            ok = teacher_endpoint_check(&r->stages[i], err);
            continue;
        }
        ok = model_find(r->stages[i].teacher, &model, err) && policy_files_hash(model, hash, err);
        if (ok) buf_printf(&all, "%s%s", all.size ? "," : "", hash);
        free(model);
    }
    out[0] = 0;
    if (ok && all.size > 64) sha256_hex(all.data, all.size, out);
    else if (ok && all.size) memcpy(out, all.data, 65);
    buf_free(&all);
    return ok;
}
