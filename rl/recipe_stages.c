// What stages say of one another and of files: whose weights they start with, whose rows they learn from, who samples for them.
// Owns the checks that need the stages before one; recipe.c calls them through the stages' rows.
#include "recipe_parts.h"
#include "files.h"
#include "stages.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const json_t *recipe_earlier_stage(const Build *b, const char *path, const char *name) {
    size_t before = (size_t)strtol(strchr(path, '.') + 1, NULL, 10) - 1;
    const json_t *stages = json_object_get(b->out, "stages");
    for (size_t i = 0; i < before; i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(stages, i), "name")), name) == 0) return json_array_get(stages, i);
    return NULL;
}

bool recipe_check_from(Build *b, const json_t *stage, const char *path, Err *err) {
    char at[96];
    const char *from = json_string_value(json_object_get(stage, "from"));
    snprintf(at, sizeof at, "%s.from", path);
    return !from || strcmp(from, "start") == 0 || recipe_earlier_stage(b, path, from) ||
           REJECT(b, ERR_DATA, at, "'from' in %s: found \"%.60s\", expected \"start\" or the name of a stage before this one", path, from);
}

// A source is the name of an earlier stage that makes rows, or else a file.
static bool check_source(Build *b, const char *path, const char *name, Err *err) {
    const json_t *stage = recipe_earlier_stage(b, path, name);
    char at[96];
    snprintf(at, sizeof at, "%s.data", path);
    if (!stage) {
        char *file = recipe_locate(&b->r->arena, b->r->folder, ".", name);
        return (file_exists(file) && !file_is_folder(file)) ||
               REJECT(b, ERR_NOINPUT, at, "'data' in %s: \"%.200s\" is neither a stage before this one nor a file (looked beside the recipe and in the "
                      "working folder)", path, name);
    }
    const StageRow *row = stage_row_named(json_string_value(json_object_get(stage, "kind")));
    return row->makes_data || REJECT(b, ERR_DATA, at, "'data' in %s: the stage \"%.60s\" is of the kind %s, which makes no rows; expected a reject stage",
                                     path, name, row->name);
}

bool recipe_check_sft(Build *b, json_t *stage, const char *path, Err *err) {
    const json_t *data = json_object_get(stage, "data"), *source;
    bool any = json_array_size(data) > 0, epochs = is_given(stage, "epochs"), steps = is_given(stage, "steps");
    char at[96];
    size_t i;
    snprintf(at, sizeof at, "%s.%s", path, any || !epochs ? "steps" : "epochs");
    if (!any && epochs) return REJECT(b, ERR_DATA, at, "'epochs' in %s: has no effect without 'data'", path);
    if (steps == epochs)
        return REJECT(b, ERR_DATA, at, epochs ? "'steps' in %s: found beside 'epochs', expected one of them" : any ? "missing key 'steps' in %s, or 'epochs'"
                                              : "missing key 'steps' in %s: expected an integer from 1 to 10000000 (optimizer or rollout steps of the stage)", path);
    snprintf(at, sizeof at, "%s.tasks_share", path);
    double share = json_number_value(json_object_get(stage, "tasks_share"));
    if (!any && share > 0) return REJECT(b, ERR_DATA, at, "'tasks_share' in %s: has no effect without 'data'", path);
    if (any && (int)(share * int_of(stage, "batch") + 0.5) >= int_of(stage, "batch"))
        return REJECT(b, ERR_DATA, at, "'tasks_share' in %s: of %d examples a step it leaves none to data", path, int_of(stage, "batch"));
    const char *turns = json_string_value(json_object_get(stage, "learn_turns"));
    snprintf(at, sizeof at, "%s.learn_turns", path);
    if (!any && json_array_size(json_object_get(stage, "validation")) == 0 && turns && strcmp(turns, "last") == 0)
        return REJECT(b, ERR_DATA, at, "'learn_turns' in %s: has no effect without 'data' or 'validation'", path);
    json_array_foreach(data, i, source) TRY(check_source(b, path, json_string_value(source), err));
    return true;
}

// Keys that nothing could come of are errors, before anything is paid for.
static bool check_endpoint(Build *b, const json_t *stage, const char *path, Err *err) {
    static const char *const unsent[] = {"top_k", "min_p", "think_tokens"};
    const char *teacher = json_string_value(json_object_get(stage, "teacher")), *model = teacher ? strchr(teacher, '#') : NULL;
    const json_t *sampling = json_object_get(stage, "sampling");
    bool asked = teacher && teacher_is_endpoint(&(Stage){.teacher = (char *)(uintptr_t)teacher});
    char at[96];
    snprintf(at, sizeof at, "%s.teacher_key_env", path);
    if (!asked && is_given(stage, "teacher_key_env"))
        return REJECT(b, ERR_DATA, at, "'teacher_key_env' in %s: has no effect where 'teacher' isn't an endpoint", path);
    snprintf(at, sizeof at, "%s.teacher", path);
    if (asked && (!model || !model[1] || strchr(model + 1, '#')))
        return REJECT(b, ERR_DATA, at, "'teacher' in %s: found \"%.200s\", expected #MODEL behind the URL: the model as the endpoint names it", path, teacher);
    for (int i = 0; asked && i < COUNT(unsent); i++) {
        snprintf(at, sizeof at, "%s.sampling.%s", path, unsent[i]);
        if (json_number_value(json_object_get(sampling, unsent[i])) > 0)
            return REJECT(b, ERR_DATA, at, "'sampling.%s' in %s: an endpoint isn't asked for it; temperature, top_p, max_tokens and stop are sent", unsent[i], path);
    }
    return true;
}

bool recipe_check_reject(Build *b, json_t *stage, const char *path, Err *err) {
    char at[96];
    snprintf(at, sizeof at, "%s.keep", path);
    if (int_of(stage, "keep") > int_of(stage, "group_size"))
        return REJECT(b, ERR_DATA, at, "'keep' in %s: found %d, expected at most the %d samples of a prompt", path, int_of(stage, "keep"),
                      int_of(stage, "group_size"));
    TRY(check_endpoint(b, stage, path, err));
    return recipe_check_sampling(b, stage, path, err);
}

// An endpoint gives texts, never the distributions that they were drawn from.
static bool check_distributions(Build *b, const json_t *stage, const char *path, double own, bool samples, Err *err) {
    char at[96];
    const char *teacher = json_string_value(json_object_get(stage, "teacher"));
    snprintf(at, sizeof at, "%s.%s", path, own > 0 ? "on_policy" : "off_policy");
    if (!teacher_is_endpoint(&(Stage){.teacher = (char *)(uintptr_t)teacher})) return true;
    if (own > 0 || !samples)
        return REJECT(b, ERR_DATA, at, "'teacher' in %s is an endpoint, which gives texts and no distributions: on_policy = 0 and off_policy = \"teacher\" "
                      "learn its samples; to learn distributions, on the policy's own samples too, the teacher has to be a model that reckon loads", path);
    for (int i = 0; i < 2; i++) {
        snprintf(at, sizeof at, "%s.%s", path, i ? "temperature" : "beta");
        if (recipe_raw_at(b->raw, at))
            return REJECT(b, ERR_DATA, at, "'%s' in %s: has no effect where 'teacher' is an endpoint, whose samples are learned as they are", i ? "temperature" : "beta", path);
    }
    return true;
}

bool recipe_check_distill(Build *b, json_t *stage, const char *path, Err *err) {
    const json_t *source;
    double own = json_number_value(json_object_get(stage, "on_policy"));
    bool any = json_array_size(json_object_get(stage, "data")) > 0, teacher = strcmp(json_string_value(json_object_get(stage, "off_policy")), "teacher") == 0;
    char at[96];
    size_t i;
    snprintf(at, sizeof at, "%s.data", path);
    if (any && (own >= 1 || teacher))
        return REJECT(b, ERR_DATA, at, "'data' in %s: has no effect where %s", path, teacher ? "'off_policy' is \"teacher\"" : "'on_policy' is 1");
    json_array_foreach(json_object_get(stage, "data"), i, source) TRY(check_source(b, path, json_string_value(source), err));
    TRY(check_distributions(b, stage, path, own, teacher, err) && check_endpoint(b, stage, path, err));
    return recipe_check_sampling(b, stage, path, err);
}

bool recipe_check_merge(Build *b, json_t *stage, const char *path, Err *err) {
    const json_t *models = json_object_get(stage, "models"), *shares = json_object_get(stage, "shares"), *share;
    char at[96];
    size_t i, count = json_array_size(models);
    double sum = 0;
    set_int_default(stage, "steps", 1);
    snprintf(at, sizeof at, "%s.steps", path);
    if (int_of(stage, "steps") != 1) return REJECT(b, ERR_DATA, at, "'steps' in %s: found %d, expected 1: models are merged at once", path, int_of(stage, "steps"));
    snprintf(at, sizeof at, "%s.models", path);
    if (count < 1) return REJECT(b, ERR_DATA, at, "'models' in %s: expected one at least", path);
    if (is_given(json_object_get(json_object_get(b->out, "model"), "lora"), "rank"))
        return REJECT(b, ERR_DATA, path, "'%s': models are merged, and this run trains an adapter; 'reckon export' merges one into its model", path);
    for (i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(models, i));
        if (strcmp(name, "start") == 0 || recipe_earlier_stage(b, path, name)) continue;
        if (!file_exists(recipe_locate(&b->r->arena, ".", b->r->folder, name)))
            return REJECT(b, ERR_NOINPUT, at, "'models' in %s: \"%.200s\" is neither \"start\", nor a stage before this one, nor a model that is there", path, name);
    }
    snprintf(at, sizeof at, "%s.shares", path);
    json_array_foreach(shares, i, share) sum += json_number_value(share);
    if (json_array_size(shares) == 0 || (json_array_size(shares) == count && sum > 0)) return true;
    return REJECT(b, ERR_DATA, at, "'shares' in %s: found %zu that sum to %g, expected one for each of the %zu models, above 0 in all", path, json_array_size(shares), sum, count);
}

bool recipe_locate_stage_files(Build *b, Stage *stage, int index, Err *err) {
    char path[64];
    snprintf(path, sizeof path, "stages.%d", index + 1);
    for (int i = 0; stage->data && stage->data[i]; i++)
        if (!recipe_earlier_stage(b, path, stage->data[i])) stage->data[i] = recipe_locate(&b->r->arena, b->r->folder, ".", stage->data[i]);
    for (int i = 0; stage->models && stage->models[i]; i++)
        if (strcmp(stage->models[i], "start") != 0 && !recipe_earlier_stage(b, path, stage->models[i]))
            stage->models[i] = recipe_locate(&b->r->arena, ".", b->r->folder, stage->models[i]);
    for (int i = 0; stage->validation && stage->validation[i]; i++) {
        const char *file;
        snprintf(path, sizeof path, "stages.%d.validation", index + 1);
        TRY(recipe_locate_input(b, path, "validation", stage->validation[i], &file, err));
        stage->validation[i] = file;
    }
    snprintf(path, sizeof path, "stages.%d", index + 1);
    if (!stage->teacher || teacher_is_endpoint(stage)) return true;
    stage->teacher = recipe_locate(&b->r->arena, ".", b->r->folder, stage->teacher);
    stage->teacher_flops = teacher_flops(stage->teacher);
    char at[96];
    snprintf(at, sizeof at, "%s.teacher", path);
    return file_exists(stage->teacher) || REJECT(b, ERR_NOINPUT, at, "teacher '%.200s' isn't there (looked in the working folder and beside the recipe)", stage->teacher);
}
