// Finds the recipe and the weights of a target, then opens what answering its held-out items takes.
#include "target.h"
#include "data.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}
static bool is_run(const char *path) {
    char *inside = path_join(path, "recipe.resolved.json");
    bool yes = file_exists(inside);
    free(inside);
    return yes;
}

// The newest whole checkpoint of a run; *found false if it has none.
static bool take_checkpoint(Target *t, const char *run_folder, bool *found, Err *err) {
    TrainState state;
    *found = false;
    char *checkpoints = path_join(run_folder, "checkpoints");
    bool any = file_is_folder(checkpoints);
    free(checkpoints);
    if (!any) return true;
    TRY(checkpoint_latest(run_folder, t->recipe->hash, &state, &t->model, found, err));
    if (!*found) return true;
    t->run_folder = xstrdup(run_folder);
    t->recipe->run_folder = arena_strdup(&t->recipe->arena, run_folder); // a run may have been moved
    t->step = state.step;
    return run_count_steps(t->recipe, err);
}

static bool find_run(Target *t, const char *const *sets, Err *err) {
    if (sets[0]) return fail(err, ERR_USAGE, "--set", "a run keeps the settings it was made with; give its recipe instead");
    bool found;
    TRY(recipe_of_run(t->name, &t->recipe, err));
    TRY(take_checkpoint(t, t->name, &found, err));
    return found || fail(err, ERR_NOINPUT, t->name, "this run has no checkpoint yet");
}

static bool find_recipe(Target *t, const char *const *sets, Err *err) {
    bool found;
    TRY(recipe_read(t->name, sets, &t->recipe, err));
    TRY(take_checkpoint(t, t->recipe->run_folder, &found, err));
    if (found) return true;
    if (!t->recipe->model_path)
        return fail(err, ERR_NOINPUT, t->recipe->run_folder, "there is no checkpoint yet; 'reckon train %s' makes one", t->name);
    t->model = xstrdup(t->recipe->model_path);
    return true;
}

static bool find(Target *t, const char *recipe_path, Recipe *otherwise, const char *const *sets, Err *err) {
    if (!file_exists(t->name)) return fail(err, ERR_NOINPUT, t->name, "no such run, recipe or model");
    if (is_run(t->name)) return find_run(t, sets, err);
    if (ends_with(t->name, ".lua")) return find_recipe(t, sets, err);
    if (!recipe_path && otherwise) {
        t->recipe = otherwise;
        t->borrowed = true;
        t->model = xstrdup(t->name);
        return true;
    }
    if (!recipe_path)
        return fail(err, ERR_USAGE, t->name, "a model alone doesn't say what to ask it; expected --recipe FILE beside it");
    TRY(recipe_read(recipe_path, sets, &t->recipe, err));
    t->model = xstrdup(t->name);
    return true;
}

bool target_find(const char *path, const char *recipe_path, Recipe *otherwise, const char *const *sets, Target *out, Err *err) {
    *out = (Target){.name = path};
    bool ok = find(out, recipe_path, otherwise, sets, err);
    if (!ok) target_close(out);
    return ok;
}
bool target_open(const char *path, const char *recipe_path, const char *const *sets, const char *device, Target *out, Err *err) {
    *out = (Target){.name = path};
    bool ok = find(out, recipe_path, NULL, sets, err);
    const Recipe *r = out->recipe;
    ok = ok && tasks_open(r, &out->tasks, err) &&
         reward_pool_open(r->rewards, r->reward_count, r->reward_workers, &r->reward_limits, &out->rewards, err);
    if (ok) {
        PolicyOptions options = {.precision = r->precision, .threads = r->threads, .device = device ? device : recipe_device(r), .keep_blocks = r->keep_blocks};
        ok = policy_open(out->model, &options, &out->policy, err);
    }
    if (!ok) target_close(out);
    return ok;
}

void target_close(Target *t) {
    if (t->policy) policy_close(t->policy);
    if (t->rewards) reward_pool_close(t->rewards);
    if (t->tasks) tasks_close(t->tasks);
    if (t->recipe && !t->borrowed) recipe_free(t->recipe);
    free(t->model), free(t->run_folder);
    *t = (Target){0};
}

bool on_model(const Args *args, bool (*run)(const Args *args, Err *err), Err *err) {
    char *model;
    TRY(model_find(args->positional[0], &model, err));
    Args found = *args;
    const char *words[] = {model};
    found.positional = words;
    bool ok = run(&found, err);
    free(model);
    return ok;
}
