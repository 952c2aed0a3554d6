// reckon tasks: what a recipe asks, before anything is spent: kinds, levels, how many problems there are, and samples
// of the held-out ones, with what the task's own check says of the truth and of an answer that is wrong. Without a recipe,
// the tasks that come with reckon.
#include "command.h"
#include "rl.h"
#include "task_script.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Option options[] = {
    {.name = "level", .kind = OPTION_INT, .value = "N", .help = "only this level", .low = 0, .high = 1e6},
    {.name = "samples", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "items shown of each level (3)", .low = 0,
     .high = 10000},
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe"},
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END,
};

// ---- the tasks that come with reckon -------------------------------------------------------------------------
static const struct {
    const char *kind;
    int levels;
} kinds[] = {{"arithmetic", 6}, {"countdown", 3}};
static const char *const languages[] = {"en", "ko", "ja", "vi"}; // of word_problems

static void drop_json(void *value) { json_decref(value); }

// A task with all of its levels, as if a recipe had named it. `language` may be NULL.
static bool add_task(Recipe *r, const char *name, int levels, const char *language, Err *err) {
    TaskSpec *task = &r->tasks[r->task_count++];
    *task = (TaskSpec){.kind = arena_strdup(&r->arena, name), .weight = 1, .level_count = levels};
    if (language) {
        task->options = json_pack("{s:s}", "language", language);
        arena_defer(&r->arena, drop_json, task->options);
    }
    if (levels == 0) {
        TaskScript *t;
        TRY(task_script_open(name, task->options, &t, err));
        task->script = task->kind, task->level_count = task_script_about(t)->levels, task->scores = task_script_about(t)->scores;
        task_script_close(t);
    }
    task->levels = ARENA_NEW(&r->arena, int, task->level_count);
    for (int level = 0; level < task->level_count; level++) task->levels[level] = level + 1;
    return true;
}

// Those of the name `only`; NULL: all.
static bool shipped_tasks(const char *only, Recipe **out, Err *err) {
    Recipe *r = *out = xcalloc(1, sizeof *r);
    r->held_out = 0.1;
    r->reward_limits = reward_default_limits();
    char name[64];
    int scripts = 0;
    while (task_script_shipped(scripts, name)) scripts++;
    r->tasks = ARENA_NEW(&r->arena, TaskSpec, COUNT(kinds) + scripts + COUNT(languages));
    for (int i = 0; i < COUNT(kinds); i++)
        if (!only || !strcmp(only, kinds[i].kind)) TRY(add_task(r, kinds[i].kind, kinds[i].levels, NULL, err));
    for (int i = 0; i < scripts; i++) {
        (void)task_script_shipped(i, name);
        bool speaks = !strcmp(name, "word_problems");
        for (int k = 0; k < (speaks ? COUNT(languages) : 1); k++)
            if (!only || !strcmp(only, name)) TRY(add_task(r, name, 0, speaks ? languages[k] : NULL, err));
    }
    return true;
}
static bool open_recipe(const Args *args, Recipe **out, Err *err) {
    const char *what = args->positional_count ? args->positional[0] : NULL;
    TRY(shipped_tasks(what, out, err));
    if ((*out)->task_count > 0) return true;
    recipe_free(*out);
    *out = NULL;
    return recipe_read(what, args_list(args, "set"), out, err);
}

// ---- what the checks say -----------------------------------------------------------------------------------
typedef struct Checked {
    Verdict truth, wrong;
} Checked;

static bool check(RewardPool *pool, const Item *items, int count, Checked *out, Err *err) {
    for (int i = 0; i < count; i++)
        for (int wrong = 0; wrong < 2; wrong++) {
            const char *answer = wrong ? items[i].wrong : items[i].truth;
            if (!answer) continue;
            RewardSample sample = {.id = items[i].kind, .prompt = items[i].prompt, .completion = answer, .completion_size = strlen(answer),
                                   .truth = items[i].truth, .row = items[i].row, .finish = "stop", .mode = "direct", .task = items[i].kind,
                                   .group = 2 * i + wrong};
            TRY(reward_pool_submit(pool, &sample, wrong ? &out[i].wrong : &out[i].truth, err));
        }
    return reward_pool_finish(pool, err);
}
static json_t *verdict_json(const Verdict *v) {
    if (v->state == VERDICT_SCORED) return json_real(v->score);
    return json_sprintf("%s: %s", verdict_state_names[v->state], v->why);
}

static json_t *item_json(const Item *item, const Checked *checked) {
    json_t *out = json_pack("{s:s, s:s}", "prompt", item->prompt, "truth", item->truth);
    if (item->messages) json_object_set(out, "messages", item->messages);
    json_object_set_new(out, "demonstration", item->demonstration ? json_string(item->demonstration) : json_null());
    json_object_set_new(out, "truth_scores", verdict_json(&checked->truth));
    if (item->wrong) {
        json_object_set_new(out, "wrong", json_string(item->wrong));
        json_object_set_new(out, "wrong_scores", verdict_json(&checked->wrong));
    }
    json_object_set(out, "row", item->row);
    return out;
}

static bool level_json(const Tasks *t, RewardPool *pool, int index, int samples, json_t **out, Err *err) {
    Arena arena = {0};
    Item *items = ARENA_NEW(&arena, Item, samples + 1);
    Checked *checked = ARENA_NEW(&arena, Checked, samples + 1);
    TaskLevel level;
    int found;
    tasks_level(t, index, &level);
    bool ok = tasks_held_out(t, index, samples, &arena, items, &found, err) && check(pool, items, found, checked, err);
    if (ok) {
        json_t *list = json_array();
        for (int i = 0; i < found; i++) json_array_append_new(list, item_json(&items[i], &checked[i]));
        *out = json_pack("{s:s, s:i, s:o, s:o}", "kind", level.kind, "level", level.level, "distinct",
                         level.distinct < 0 ? json_null() : json_integer(level.distinct), "samples", list);
    }
    arena_reset(&arena);
    return ok;
}

// "; scores 1.0" and "; wrong: "8" 0.0".
static void print_check(Buf *line, const json_t *item, const char *word, const char *answer, const char *key) {
    const json_t *score = json_object_get(item, key);
    if (!score) return;
    buf_printf(line, "; %s ", word);
    if (answer) {
        json_write(json_object_get(item, answer), line);
        buf_puts(line, " ");
    }
    if (json_is_number(score)) buf_printf(line, "%g", json_number_value(score));
    else buf_puts(line, json_string_value(score));
}

static void print_level(const json_t *level) {
    const json_t *distinct = json_object_get(level, "distinct"), *item;
    printf("%s, level %d", json_string_value(json_object_get(level, "kind")),
           (int)json_integer_value(json_object_get(level, "level")));
    if (json_is_integer(distinct)) printf(", %lld distinct problems", (long long)json_integer_value(distinct));
    printf("\n");
    size_t i;
    json_array_foreach(json_object_get(level, "samples"), i, item) {
        Buf line = {0};
        json_write(json_object_get(item, "prompt"), &line); // as JSON: a data set's control characters stay visible
        buf_puts(&line, "  ");
        json_write(json_object_get(item, "truth"), &line);
        if (json_is_string(json_object_get(item, "demonstration"))) {
            buf_puts(&line, "  by ");
            json_write(json_object_get(item, "demonstration"), &line);
        }
        print_check(&line, item, "scores", NULL, "truth_scores");
        print_check(&line, item, "wrong:", "wrong", "wrong_scores");
        printf("  %s\n", line.data);
        buf_free(&line);
    }
}

static bool show(const Args *args, const Tasks *t, RewardPool *pool, Err *err) {
    json_t *levels = json_array();
    bool ok = true, any_level = !args_given(args, "level");
    for (int i = 0; ok && i < tasks_level_count(t); i++) {
        TaskLevel level;
        tasks_level(t, i, &level);
        if (!any_level && level.level != args_int(args, "level", 0)) continue;
        json_t *entry;
        ok = level_json(t, pool, i, (int)args_int(args, "samples", 3), &entry, err);
        if (ok) json_array_append_new(levels, entry);
    }
    if (ok && json_array_size(levels) == 0)
        ok = fail(err, ERR_USAGE, "tasks --level", "found %lld, expected a level of the tasks",
                  (long long)args_int(args, "level", 0));
    char hash[65];
    tasks_hash(t, hash);
    json_t *document = json_pack("{s:o, s:s}", "levels", levels, "hash", hash);
    if (ok && args_flag(args, "json")) ok = print_json(document, err);
    for (size_t i = 0; ok && !args_flag(args, "json") && i < json_array_size(levels); i++)
        print_level(json_array_get(levels, i));
    json_decref(document);
    return ok;
}

static bool run(const Args *args, Err *err) {
    Recipe *r = NULL;
    Tasks *t = NULL;
    RewardPool *pool = NULL;
    bool ok = open_recipe(args, &r, err);
    if (ok) {
        RewardSpec *specs = ARENA_NEW(&r->arena, RewardSpec, r->task_count);
        ok = reward_pool_open(specs, recipe_task_rewards(r, 1, specs), 1, &r->reward_limits, &pool, err) && tasks_open(r, &t, err) &&
             show(args, t, pool, err);
    }
    tasks_close(t);
    reward_pool_close(pool);
    recipe_free(r);
    return ok;
}

const Command command_tasks = {
    .name = "tasks",
    .summary = "list kinds of problems, their levels and samples",
    .usage = "[RECIPE|TASK] [options]",
    .detail = "Reads a recipe and its data, checks both, and shows held-out problems of each level with the true answer and\n"
              "the demonstration that cold-start training imitates. With the name of a task: that one; without either: all tasks that\n"
              "come with reckon. Each sample shows what the task's own check gives for the truth and for a wrong answer.",
    .example = "reckon tasks scripts/recipes/quickstart.lua --level 3 --samples 5",
    .positional_min = 0,
    .positional_max = 1,
    .options = options,
    .run = run,
};
