// reckon tasks: what a recipe asks, before anything is spent: kinds, levels, how many problems there are, and samples
// of the held-out ones. Without a recipe, the procedural tasks that come with reckon.
#include "command.h"
#include "rl.h"
#include <stdio.h>
#include <stdlib.h>

static const Option options[] = {
    {.name = "level", .kind = OPTION_INT, .value = "N", .help = "only this level", .low = 0, .high = 1e6},
    {.name = "samples", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "items shown of each level (3)", .low = 0,
     .high = 10000},
    {.name = "set", .kind = OPTION_LIST, .value = "KEY=VALUE", .help = "override a key of the recipe"},
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END,
};

// The procedural tasks with all of their levels, as if a recipe had named them.
static Recipe *every_task(void) {
    static const struct {
        const char *kind;
        int levels;
    } kinds[] = {{"arithmetic", 6}, {"countdown", 3}};
    Recipe *r = xcalloc(1, sizeof *r);
    r->held_out = 0.1;
    r->task_count = COUNT(kinds);
    r->tasks = ARENA_NEW(&r->arena, TaskSpec, r->task_count);
    for (int i = 0; i < r->task_count; i++) {
        TaskSpec *task = &r->tasks[i];
        *task = (TaskSpec){.kind = arena_strdup(&r->arena, kinds[i].kind), .level_count = kinds[i].levels, .weight = 1};
        task->levels = ARENA_NEW(&r->arena, int, task->level_count);
        for (int level = 0; level < task->level_count; level++) task->levels[level] = level + 1;
    }
    return r;
}

static json_t *item_json(const Item *item) {
    json_t *out = json_pack("{s:s, s:s}", "prompt", item->prompt, "truth", item->truth);
    if (item->messages) json_object_set(out, "messages", item->messages);
    json_object_set_new(out, "demonstration", item->demonstration ? json_string(item->demonstration) : json_null());
    json_object_set(out, "row", item->row);
    return out;
}

static bool level_json(const Tasks *t, int index, int samples, json_t **out, Err *err) {
    Arena arena = {0};
    Item *items = ARENA_NEW(&arena, Item, samples + 1);
    TaskLevel level;
    int found;
    tasks_level(t, index, &level);
    bool ok = tasks_held_out(t, index, samples, &arena, items, &found, err);
    if (ok) {
        json_t *list = json_array();
        for (int i = 0; i < found; i++) json_array_append_new(list, item_json(&items[i]));
        *out = json_pack("{s:s, s:i, s:o, s:o}", "kind", level.kind, "level", level.level, "distinct",
                         level.distinct < 0 ? json_null() : json_integer(level.distinct), "samples", list);
    }
    arena_reset(&arena);
    return ok;
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
        printf("  %s\n", line.data);
        buf_free(&line);
    }
}

static bool show(const Args *args, const Tasks *t, Err *err) {
    json_t *levels = json_array();
    bool ok = true, any_level = !args_given(args, "level");
    for (int i = 0; ok && i < tasks_level_count(t); i++) {
        TaskLevel level;
        tasks_level(t, i, &level);
        if (!any_level && level.level != args_int(args, "level", 0)) continue;
        json_t *entry;
        ok = level_json(t, i, (int)args_int(args, "samples", 3), &entry, err);
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
    if (args->positional_count == 0)
        r = every_task();
    else
        TRY(recipe_read(args->positional[0], args_list(args, "set"), &r, err));
    bool ok = tasks_open(r, &t, err) && show(args, t, err);
    tasks_close(t);
    recipe_free(r);
    return ok;
}

const Command command_tasks = {
    .name = "tasks",
    .summary = "list kinds of problems, their levels and samples",
    .usage = "[RECIPE] [options]",
    .detail = "Reads a recipe and its data, checks both, and shows held-out problems of each level with the true answer and\n"
              "the demonstration that cold-start training imitates. Without a recipe: the procedural tasks.",
    .example = "reckon tasks scripts/recipes/quickstart.lua --level 3 --samples 5",
    .positional_min = 0,
    .positional_max = 1,
    .options = options,
    .run = run,
};
