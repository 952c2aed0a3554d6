// What `eval` and `compare` are pointed at: a run, a recipe, or a model with a recipe that says what to ask it.
#ifndef RECKON_TARGET_H
#define RECKON_TARGET_H
#include "command.h"
#include "rl.h"

typedef struct Target {
    const char *name; // as given
    Recipe *recipe;
    Tasks *tasks;
    RewardPool *rewards;
    Policy *policy;
    char *model;      // folder or file of the weights
    char *run_folder; // NULL if the weights aren't a run's
    int64_t step;     // of the run; 0 otherwise
    bool borrowed;    // the recipe is another target's
} Target;

// `path`: a run folder, a recipe (.lua; its run's newest checkpoint, or the model that it names where there is none) or
// a model, for which `recipe_path` names the recipe. `sets` are overrides of the recipe (NULL-terminated). Opens all in
// the order they need: reward workers are forked before weights are loaded and threads started.
bool target_open(const char *path, const char *recipe_path, const char *const *sets, const char *device, Target *out, Err *err) MUST_CHECK;
// Only finds the recipe and the weights. `otherwise`: the recipe of a model that comes without one; borrowed. May be NULL.
bool target_find(const char *path, const char *recipe_path, Recipe *otherwise, const char *const *sets, Target *out, Err *err) MUST_CHECK;
void target_close(Target *t);
// Runs a command on the model that its first word means (model_find): of a run, its newest checkpoint.
bool on_model(const Args *args, bool (*run)(const Args *args, Err *err), Err *err) MUST_CHECK;

#endif
