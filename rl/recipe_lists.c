// The recipe's lists: tasks, rewards and stages, each element named by its first word. A task is one in C, a file of rows, or
// a script in Lua; a reward is a script; {"task"} among the rewards stands for what the recipe's tasks check with.
#include "recipe_parts.h"
#include "embedded.h"
#include "files.h"
#include "task_script.h"
#include <stdio.h>
#include <string.h>

enum { MAX_ELEMENTS = 1000 };

// ---- lists of tasks, rewards and stages ------------------------------------------------------------------
void recipe_name_elements(json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *element = json_array_get(list, i), *kind = element;
        if (json_is_array(element) && json_array_size(element) == 1) kind = json_array_get(element, 0);
        if (json_is_object(element)) kind = json_object_get(element, "$1");
        if (!json_is_string(kind)) continue;
        json_t *named = json_is_object(element) ? json_copy(element) : json_object();
        json_object_set(named, "$kind", kind);
        json_object_del(named, "$1");
        json_array_set_new(list, i, named);
    }
}

static bool ends_in_lua(const char *name) {
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".lua") == 0;
}

// Tasks in Lua: of reckon's own, or a path.
static bool is_script(const char *kind) {
    if (ends_in_lua(kind)) return true;
    char name[64];
    for (int i = 0; task_script_shipped(i, name); i++)
        if (strcmp(name, kind) == 0) return true;
    return false;
}

static bool unknown_kind(Build *b, const char *path, const char *what, const char *kind, const Variant *variants,
                         Err *err) {
    enum { MOST = 64 };
    char shipped[MOST][64];
    const char *names[2 * MOST + 1] = {0};
    int count = 0;
    Buf all = {0};
    for (int i = 0; variants[i].name && i < MOST; i++) names[count++] = variants[i].name;
    for (int i = 0; variants == task_variants && i < MOST && task_script_shipped(i, shipped[i]); i++) names[count++] = shipped[i];
    for (int i = 0; i < count; i++) buf_printf(&all, "%s%s", i ? ", " : "", names[i]);
    if (variants == task_variants) buf_puts(&all, " or a path that ends in .lua");
    const char *near = nearest_name(kind, names);
    REJECT(b, ERR_DATA, path, "unknown %s '%.60s'%s%s%s; expected one of %s", what, kind, near ? ", did you mean '" : "",
           near ? near : "", near ? "'?" : "", all.data);
    buf_free(&all);
    return false;
}

static bool list_size(Build *b, const char *key, const json_t *list, Err *err) {
    size_t n = json_array_size(list);
    return (n >= 1 && n <= MAX_ELEMENTS) ||
           REJECT(b, ERR_DATA, key, "'%s': found %zu elements, expected 1 to %d", key, n, MAX_ELEMENTS);
}

// A task in Lua: its levels are what the script says, and further keys are its options.
static bool resolve_script_task(Build *b, const char *kind, const json_t *element, const char *path, json_t *out, Err *err) {
    json_t *options = json_object();
    bool ok = recipe_resolve_section(&b->reading, script_task_fields, element, path, options, out, err);
    json_object_set_new(out, "options", options);
    const char *script = kind;
    TaskScript *t = NULL;
    Err why = {0};
    if (ok && ends_in_lua(kind)) ok = recipe_locate_input(b, path, "task script", kind, &script, err);
    if (ok && !task_script_open(script, options, &t, &why)) ok = REJECT(b, why.code, path, "'%s': %s: %s", path, why.where, why.msg);
    if (!ok) return false;
    int levels = task_script_about(t)->levels;
    task_script_close(t);
    json_t *list = json_object_get(out, "levels"), *level;
    size_t i;
    char at[96];
    snprintf(at, sizeof at, "%s.levels", path);
    json_array_foreach(list, i, level)
        if (json_integer_value(level) > levels)
            return REJECT(b, ERR_DATA, at, "'levels' in %s: found %lld, expected levels from 1 to %d", path, (long long)json_integer_value(level), levels);
    if (json_array_size(list)) return true;
    json_object_set_new(out, "levels", list = json_array());
    for (int l = 1; l <= levels; l++) json_array_append_new(list, json_integer(l));
    return true;
}

bool recipe_resolve_variants(Build *b, const char *key, const char *what, const char *example, const Variant *variants, Err *err) {
    json_t *list = json_object_get(b->out, key), *resolved = json_array(), *element;
    json_incref(list);
    json_object_set_new(b->out, key, resolved);
    bool ok = list_size(b, key, list, err);
    size_t i;
    json_array_foreach(list, i, element) {
        char path[64];
        snprintf(path, sizeof path, "%s.%zu", key, i + 1);
        const char *kind = json_string_value(json_object_get(element, "$kind"));
        const Variant *v = variants;
        while (ok && kind && v->name && strcmp(v->name, kind) != 0) v++;
        if (ok && !kind) ok = REJECT(b, ERR_DATA, path, "'%s': expected a %s, such as %s", path, what, example);
        bool script = ok && variants == task_variants && !v->name && is_script(kind);
        if (ok && !v->name && !script) ok = unknown_kind(b, path, what, kind, variants, err);
        if (!ok) break;
        json_t *out = json_object();
        json_array_append_new(resolved, out);
        ok = script ? resolve_script_task(b, kind, element, path, out, err)
                    : recipe_resolve_section(&b->reading, v->fields, element, path, NULL, out, err);
        json_object_set_new(out, "kind", json_string(kind));
    }
    json_decref(list);
    return ok;
}

bool recipe_resolve_tasks(Build *b, Err *err) {
    return recipe_resolve_variants(b, "tasks", "task", "{\"arithmetic\", levels={1,2}}", task_variants, err);
}

bool recipe_resolve_rewards(Build *b, Err *err) {
    json_t *list = json_object_get(b->out, "rewards"), *resolved = json_array(), *element;
    json_incref(list);
    json_object_set_new(b->out, "rewards", resolved);
    bool ok = list_size(b, "rewards", list, err);
    size_t i;
    json_array_foreach(list, i, element) {
        char path[64];
        snprintf(path, sizeof path, "rewards.%zu", i + 1);
        json_t *script = json_object_get(element, "$kind");
        if (ok && !script)
            ok = REJECT(b, ERR_DATA, path, "'%s': expected a reward, such as {\"correct\"} or {\"./mine.lua\", weight=0.5}",
                        path);
        if (!ok) break;
        json_t *out = json_object(), *options = json_object();
        json_array_append_new(resolved, out);
        ok = recipe_resolve_section(&b->reading, reward_fields, element, path, options, out, err);
        json_object_set(out, "script", script);
        json_object_set_new(out, "options", options);
    }
    json_decref(list);
    return ok;
}

char *recipe_locate(Arena *arena, const char *first, const char *second, const char *name) {
    char *a = name[0] == '/' ? xstrdup(name) : path_join(first, name), *b = path_join(second, name);
    const char *taken = name[0] != '/' && !file_exists(a) && file_exists(b) ? b : a;
    while (strncmp(taken, "./", 2) == 0 && taken[2] != '/') taken += 2;
    char *path = arena_strdup(arena, taken);
    free(a);
    free(b);
    return path;
}
bool recipe_locate_input(Build *b, const char *at, const char *what, const char *name, const char **out, Err *err) {
    *out = recipe_locate(&b->r->arena, b->r->folder, ".", name);
    return (file_exists(*out) && !file_is_folder(*out)) ||
           REJECT(b, ERR_NOINPUT, at, "%s '%.200s' isn't there (looked beside the recipe and in the working folder)", what,
                  name);
}

static bool shipped_reward(Build *b, const char *at, const char *name, Err *err) {
    enum { MOST = 128 };
    char stems[MOST][64];
    const char *names[MOST + 1] = {0};
    for (int i = 0; embedded_files[i].name && i < MOST; i++) {
        const char *file = embedded_files[i].name, *dot = strrchr(file, '.');
        snprintf(stems[i], sizeof stems[i], "%.*s", (int)(dot ? dot - file : (long)strlen(file)), file);
        names[i] = stems[i];
        if (dot && strcmp(dot, ".lua") == 0 && strcmp(stems[i], name) == 0) return true;
    }
    const char *near = nearest_name(name, names);
    return REJECT(b, ERR_DATA, at, "unknown reward '%.60s'%s%s%s; expected a shipped one or a path that ends in .lua", name,
                  near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void forget_json(void *value) { json_decref(value); }
static const json_t *keep_json(Arena *arena, json_t *value) {
    arena_defer(arena, forget_json, value);
    return value;
}

static bool store_script_task(Build *b, const json_t *from, const char *at, TaskSpec *task, Err *err) {
    Recipe *r = b->r;
    const char *script = task->kind;
    TaskScript *t;
    if (ends_in_lua(script)) TRY(recipe_locate_input(b, at, "task script", script, &script, err));
    recipe_store(script_task_fields, from, task, &r->arena);
    task->script = arena_strdup(&r->arena, script);
    task->options = json_incref(json_object_get(from, "options"));
    keep_json(&r->arena, task->options);
    TRY(task_script_open(script, task->options, &t, err));
    task->kind = arena_strdup(&r->arena, task_script_about(t)->name);
    task->scores = task_script_about(t)->scores;
    task_script_close(t);
    return true;
}

bool recipe_store_tasks(Build *b, Err *err) {
    Recipe *r = b->r;
    const json_t *list = json_object_get(b->out, "tasks");
    r->task_count = (int)json_array_size(list);
    r->tasks = ARENA_NEW(&r->arena, TaskSpec, r->task_count);
    for (int i = 0; i < r->task_count; i++) {
        const json_t *from = json_array_get(list, (size_t)i);
        TaskSpec *task = &r->tasks[i];
        char at[64];
        snprintf(at, sizeof at, "tasks.%d", i + 1);
        task->kind = arena_strdup(&r->arena, json_string_value(json_object_get(from, "kind")));
        const Variant *v = task_variants;
        while (v->name && strcmp(v->name, task->kind) != 0) v++;
        if (!v->name) {
            TRY(store_script_task(b, from, at, task, err));
            continue;
        }
        recipe_store(v->fields, from, task, &r->arena);
        task->options = json_object();
        keep_json(&r->arena, task->options);
        json_object_set(task->options, "style", json_object_get(from, "style"));
        if (!task->file) continue;
        const char *path;
        snprintf(at, sizeof at, "tasks.%d.file", i + 1);
        TRY(recipe_locate_input(b, at, "data file", task->file, &path, err));
        task->file = (char *)(uintptr_t)path;
    }
    return true;
}

int recipe_task_rewards(const Recipe *r, double weight, RewardSpec *out) {
    int count = 0;
    for (int i = 0; i < r->task_count; i++) {
        const TaskSpec *task = &r->tasks[i];
        bool known = false;
        for (int j = 0; j < i; j++) known |= strcmp(r->tasks[j].kind, task->kind) == 0;
        if (known) continue;
        RewardSpec *reward = &out[count++];
        *reward = (RewardSpec){.weight = weight, .task = task->file ? "*" : task->kind}; // a file's rows have kinds of their own
        reward->script = task->script && task->scores ? task->script : strcmp(task->kind, "countdown") == 0 ? "countdown" : "correct";
        if (task->script) reward->options = task->options;
    }
    return count;
}

bool recipe_store_rewards(Build *b, Err *err) {
    Recipe *r = b->r;
    const json_t *list = json_object_get(b->out, "rewards");
    int count = (int)json_array_size(list);
    r->rewards = ARENA_NEW(&r->arena, RewardSpec, count * (r->task_count + 1));
    for (int i = 0; i < count; i++) {
        const json_t *from = json_array_get(list, (size_t)i);
        RewardSpec reward = {0};
        char at[64];
        snprintf(at, sizeof at, "rewards.%d", i + 1);
        recipe_store(reward_fields, from, &reward, &r->arena);
        const char *script = arena_strdup(&r->arena, json_string_value(json_object_get(from, "script")));
        json_t *options = json_object_get(from, "options");
        if (json_object_size(options)) reward.options = keep_json(&r->arena, json_incref(options));
        if (strcmp(script, "task") == 0) {
            r->reward_count += recipe_task_rewards(r, reward.weight, r->rewards + r->reward_count);
            continue;
        }
        if (ends_in_lua(script)) TRY(recipe_locate_input(b, at, "reward script", script, &script, err));
        else TRY(shipped_reward(b, at, script, err));
        reward.script = script;
        r->rewards[r->reward_count++] = reward;
    }
    return true;
}

void recipe_unname_elements(json_t *list, const char *kind_key) {
    json_t *element;
    size_t i;
    json_array_foreach(list, i, element) {
        json_t *options = json_object_get(element, "options");
        if (json_object_get(element, kind_key)) json_object_set(element, "$1", json_object_get(element, kind_key));
        json_object_del(element, kind_key);
        if (!json_is_object(options)) continue;
        json_object_update_missing(element, options);
        json_object_del(element, "options");
    }
}
