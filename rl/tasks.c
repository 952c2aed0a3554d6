// Where items come from: a weighted mixture of procedural problems and datasets, split into training and held-out ones.
// A training item is a pure function of (recipe, stage, index): any thread, rank or resumed run that asks for number i
// gets the same one. Held-out items depend on nothing but the task and its level, so that runs with different seeds are
// measured on the same questions; a problem is held out by a hash of itself, so that no seed can leak one into training.
#include "task_script.h"
#include "tasks_parts.h"
#include "files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Generator *const generators[] = {&arithmetic_generator, &countdown_generator, &environment_generator};

enum { MAX_LEVELS = 100 };
typedef struct Task {
    const TaskSpec *spec;
    const Generator *generator; // of a task in C, or NULL
    TaskScript *script;         // of a task in Lua, or NULL; without both it is a dataset
    bool words;                 // style of procedural prompts
    Dataset dataset;
} Task;
typedef struct LevelEntry {
    TaskLevel level;
    int task, group; // group of a dataset
} LevelEntry;
struct Tasks {
    const Recipe *recipe;
    Task *tasks;
    int task_count;
    LevelEntry *levels;
    int level_count;
    char hash[65];
};

bool split_held_out(const char *kind, const char *identity, size_t size, double share) {
    Buf b = {0};
    buf_printf(&b, "%s ", kind);
    buf_append(&b, identity, size);
    uint64_t h = hash64(b.data, b.size);
    buf_free(&b);
    return (double)(h >> 11) * 0x1p-53 < share;
}

// ---- open and close --------------------------------------------------------------------------------------
static void add_level(Tasks *t, int task, int group, TaskLevel level) {
    t->levels = xrealloc(t->levels, (size_t)(t->level_count + 1) * sizeof *t->levels);
    t->levels[t->level_count++] = (LevelEntry){level, task, group};
}

static bool open_dataset(Tasks *t, int index, Buf *described, Err *err) {
    Task *task = &t->tasks[index];
    TRY(dataset_read(task->spec->file, t->recipe->chat, t->recipe->held_out, &task->dataset, err));
    buf_printf(described, "jsonl %s\n", task->dataset.hash);
    for (int g = 0; g < task->dataset.group_count; g++) {
        const DatasetGroup *group = &task->dataset.groups[g];
        add_level(t, index, g, (TaskLevel){group->kind, group->level, group->distinct});
    }
    return true;
}

static bool open_script(Tasks *t, int index, Buf *described, Err *err) {
    Task *task = &t->tasks[index];
    TRY(task_script_open(task->spec->script, task->spec->options, &task->script, err));
    const TaskAbout *about = task_script_about(task->script);
    Buf options = {0};
    json_write(task->spec->options, &options);
    buf_printf(described, "%s %s %s\n", about->name, about->hash, options.data);
    buf_free(&options);
    for (int i = 0; i < task->spec->level_count; i++) {
        int level = task->spec->levels[i];
        if (level < 1 || level > about->levels)
            return fail(err, ERR_DATA, about->name, "found level %d, expected one from 1 to %d", level, about->levels);
        add_level(t, index, -1, (TaskLevel){about->name, level, task_script_distinct(task->script, level)});
    }
    return true;
}

static bool open_task(Tasks *t, int index, Buf *described, Err *err) {
    const Recipe *r = t->recipe;
    Task *task = &t->tasks[index];
    task->spec = &r->tasks[index];
    for (int i = 0; i < COUNT(generators); i++)
        if (strcmp(generators[i]->kind, task->spec->kind) == 0) task->generator = generators[i];
    if (task->spec->script) return open_script(t, index, described, err);
    if (!task->generator) return open_dataset(t, index, described, err);
    const Generator *g = task->generator;
    const char *style = json_string_value(json_object_get(task->spec->options, "style"));
    task->words = style && strcmp(style, "words") == 0;
    buf_printf(described, "%s %d\n", g->kind, g->version);
    for (int i = 0; i < task->spec->level_count; i++) {
        int level = task->spec->levels[i];
        if (level < 1 || level > g->levels)
            return fail(err, ERR_DATA, g->kind, "found level %d, expected one from 1 to %d", level, g->levels);
        add_level(t, index, -1, (TaskLevel){g->kind, level, g->distinct(level)});
    }
    return true;
}

bool tasks_open(const Recipe *r, Tasks **out, Err *err) {
    Tasks *t = xcalloc(1, sizeof *t);
    t->recipe = r;
    t->tasks = xcalloc((size_t)r->task_count, sizeof *t->tasks);
    *out = NULL;
    Buf described = {0};
    bool ok = true;
    for (; ok && t->task_count < r->task_count; t->task_count++) ok = open_task(t, t->task_count, &described, err);
    if (ok) sha256_hex(described.data, described.size, t->hash);
    buf_free(&described);
    if (ok)
        *out = t;
    else
        tasks_close(t);
    return ok;
}
void tasks_close(Tasks *t) {
    if (!t) return;
    for (int i = 0; i < t->recipe->task_count; i++) dataset_free(&t->tasks[i].dataset), task_script_close(t->tasks[i].script);
    free(t->tasks);
    free(t->levels);
    free(t);
}

int tasks_level_count(const Tasks *t) { return t->level_count; }
void tasks_level(const Tasks *t, int index, TaskLevel *out) { *out = t->levels[index].level; }
void tasks_hash(const Tasks *t, char out[65]) { memcpy(out, t->hash, 65); }

// ---- items -----------------------------------------------------------------------------------------------
static void release_json(void *value) { json_decref(value); }

static void problem_item(const Task *task, const Problem *p, int level, Arena *arena, Item *out) {
    const Generator *g = task->generator;
    *out = (Item){.kind = arena_strdup(arena, g->kind), .level = level};
    out->prompt = arena_strdup(arena, task->words ? p->words : p->plain);
    out->truth = arena_strdup(arena, p->truth);
    out->demonstration = arena_strdup(arena, p->demonstration);
    if (*p->truth) { // one more, or a number that wasn't given
        char *end, *wrong;
        long long number = strtoll(p->truth, &end, 10);
        wrong = *end ? xasprintf("%s+1", p->truth) : xasprintf("%lld", number + 1);
        out->wrong = arena_strdup(arena, wrong);
        free(wrong);
    }
    out->row = g->row(p);
    arena_defer(arena, release_json, out->row);
    out->hash = hash64(p->plain, strlen(p->plain));
}
// One problem at random, in a form that its identity can be told from. False: the script failed.
static bool draw_item(const Task *task, int level, Random *random, Arena *arena, Item *out, const char **identity, Err *err) {
    if (task->script) {
        uint64_t seed = (uint64_t)random_next(random) << 32;
        return task_script_draw(task->script, level, seed | random_next(random), arena, out, identity, err);
    }
    Problem p;
    task->generator->draw(random, level, &p);
    problem_item(task, &p, level, arena, out);
    *identity = arena_strdup(arena, p.identity);
    return true;
}
static const char *kind_of(const Task *task) { return task->script ? task_script_about(task->script)->name : task->generator->kind; }

static void copy_item(const Item *from, Arena *arena, Item *out) {
    *out = *from;
    out->kind = arena_strdup(arena, from->kind);
    out->prompt = arena_strdup(arena, from->prompt);
    out->truth = arena_strdup(arena, from->truth);
    if (from->demonstration) out->demonstration = arena_strdup(arena, from->demonstration);
    if (from->wrong) out->wrong = arena_strdup(arena, from->wrong);
    arena_defer(arena, release_json, json_incref(out->row)); // `messages` is a part of it
}

// ---- training --------------------------------------------------------------------------------------------
static bool among(const int *list, int count, int level) {
    for (int i = 0; i < count; i++)
        if (list[i] == level) return true;
    return !list;
}
static bool is_dataset(const Task *task) { return !task->generator && !task->script; }
// The task's levels that the stage asks for.
static int stage_levels(const Task *task, const Stage *stage, int *levels) {
    int n = 0;
    for (int i = 0; i < task->spec->level_count; i++)
        if (!stage || among(stage->levels, stage->level_count, task->spec->levels[i])) levels[n++] = task->spec->levels[i];
    return n;
}
static double stage_weight(const Task *task, const Stage *stage) {
    int levels[MAX_LEVELS];
    return is_dataset(task) || stage_levels(task, stage, levels) ? task->spec->weight : 0;
}

// A seeded permutation of 0..count-1 as a function (no table): four Feistel rounds over the next power of four, walking
// the cycle until the number is below count (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
uint64_t permuted(uint64_t index, uint64_t count, uint64_t key) {
    int half = 1;
    while (half < 32 && (uint64_t)1 << (2 * half) < count) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = index;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t mixed[3] = {key, round, right}, next = left ^ (hash64(mixed, sizeof mixed) & mask);
            left = right, right = next;
        }
        x = left << half | right;
    } while (x >= count);
    return x;
}

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t words[3] = {a, b, c};
    return hash64(words, sizeof words);
}

static bool draw_problem(const Tasks *t, const Task *task, int level, Random *random, Arena *arena, Item *out, Err *err) {
    for (int attempt = 0; attempt < 100000; attempt++) {
        const char *identity;
        TRY(draw_item(task, level, random, arena, out, &identity, err));
        if (!split_held_out(kind_of(task), identity, strlen(identity), t->recipe->held_out)) return true;
    }
    return fail(err, ERR_DATA, kind_of(task), "level %d: no problem left to train on with held_out=%g", level,
                t->recipe->held_out);
}

bool tasks_train_item(const Tasks *t, const Stage *stage, uint64_t index, Arena *arena, Item *out, Err *err) {
    uint64_t seed = t->recipe->seed, stage_key = stage ? hash64(stage->name, strlen(stage->name)) : 0;
    Random random = random_start(seed, STREAM_TASKS, mix(stage_key, index, 0));
    double sum = 0;
    int candidates = 0;
    const Task *chosen = NULL;
    for (int i = 0; i < t->task_count; i++) {
        double weight = stage_weight(&t->tasks[i], stage);
        sum += weight;
        candidates += weight > 0;
    }
    double at = random_double(&random) * sum;
    for (int i = 0; i < t->task_count; i++) {
        double weight = stage_weight(&t->tasks[i], stage);
        if (weight <= 0) continue;
        chosen = &t->tasks[i];
        if (at < weight) break;
        at -= weight;
    }
    if (!chosen) return fail(err, ERR_DATA, stage ? stage->name : "tasks", "no task has any of the stage's levels");
    if (!is_dataset(chosen)) {
        int levels[MAX_LEVELS], n = stage_levels(chosen, stage, levels);
        return draw_problem(t, chosen, levels[random_below(&random, (uint32_t)n)], &random, arena, out, err);
    }
    const Dataset *d = &chosen->dataset;
    uint64_t count = (uint64_t)d->train_count;
    // Alone, a dataset is passed through in epochs, each in an order of its own; in a mixture rows are drawn.
    uint64_t row = candidates == 1 ? permuted(index % count, count, mix(seed, stage_key, index / count))
                                   : (uint64_t)(random_double(&random) * (double)count);
    copy_item(&d->rows[d->train[row]].item, arena, out);
    return true;
}

// ---- training by shares of the levels ------------------------------------------------------------------------
static double rows_of_group(const Dataset *d, int group) {
    double rows = 0;
    for (int64_t i = 0; i < d->train_count; i++) rows += d->rows[d->train[i]].group == group;
    return rows;
}
void tasks_shares(const Tasks *t, const Stage *stage, double *shares) {
    double sum = 0;
    for (int i = 0; i < t->level_count; i++) {
        const LevelEntry *e = &t->levels[i];
        const Task *task = &t->tasks[e->task];
        int levels[MAX_LEVELS], n = is_dataset(task) ? 0 : stage_levels(task, stage, levels);
        double within = is_dataset(task) ? rows_of_group(&task->dataset, e->group) / (double)task->dataset.train_count
                                         : n > 0 && among(levels, n, e->level.level) ? 1.0 / n : 0;
        sum += shares[i] = task->spec->weight * within;
    }
    for (int i = 0; i < t->level_count && sum > 0; i++) shares[i] /= sum;
}

// A training row of the group by chance; a small group is looked for from a place by chance.
static const DatasetRow *row_of_group(const Dataset *d, int group, Random *random) {
    uint64_t count = (uint64_t)d->train_count, at = 0;
    for (int attempt = 0; attempt < 64; attempt++) {
        at = (uint64_t)(random_double(random) * (double)count);
        if (d->rows[d->train[at]].group == group) return &d->rows[d->train[at]];
    }
    for (uint64_t i = 0; i < count; i++, at = (at + 1) % count)
        if (d->rows[d->train[at]].group == group) break;
    return &d->rows[d->train[at]];
}

bool tasks_train_item_of(const Tasks *t, const Stage *stage, const double *shares, uint64_t index, Arena *arena, Item *out, Err *err) {
    Random random = random_start(t->recipe->seed, STREAM_TASKS, mix(hash64(stage->name, strlen(stage->name)), index, 1));
    double sum = 0, at;
    const LevelEntry *chosen = NULL;
    for (int i = 0; i < t->level_count; i++) sum += shares[i];
    at = random_double(&random) * sum;
    for (int i = 0; i < t->level_count; i++) {
        if (shares[i] <= 0) continue;
        chosen = &t->levels[i];
        if (at < shares[i]) break;
        at -= shares[i];
    }
    if (!chosen) return fail(err, ERR_DATA, stage->name, "no task has any of the stage's levels");
    const Task *task = &t->tasks[chosen->task];
    if (!is_dataset(task)) return draw_problem(t, task, chosen->level.level, &random, arena, out, err);
    copy_item(&row_of_group(&task->dataset, chosen->group, &random)->item, arena, out);
    return true;
}

// ---- held out --------------------------------------------------------------------------------------------
// A set of hashes with open addressing; false if the hash is in it already.
static bool add_hash(uint64_t *set, uint64_t mask, uint64_t hash) {
    hash |= hash == 0; // 0 marks an empty place
    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        if (set[i] == hash) return false;
        if (set[i] == 0) {
            set[i] = hash;
            return true;
        }
    }
}

static bool draw_held_out(const Tasks *t, const Task *task, const TaskLevel *level, int count, Arena *arena, Item *out, int *found,
                          Err *err) {
    char name[96];
    snprintf(name, sizeof name, "held out %s %d", level->kind, level->level);
    Random random = random_start(0, STREAM_TASKS, hash64(name, strlen(name)));
    uint64_t places = 64;
    while (places < 4 * (uint64_t)count) places *= 2;
    uint64_t *seen = xcalloc(places, sizeof *seen);
    // A small level may hold fewer than asked for: after 30 draws for each of its problems all have come up.
    int64_t draws = (int64_t)(100.0 * (count + 10) / t->recipe->held_out);
    if (level->distinct > 0 && 30 * level->distinct < draws) draws = 30 * level->distinct;
    bool ok = true;
    Arena scratch = {0};
    for (; ok && *found < count && draws > 0; draws--) {
        Item item;
        const char *identity;
        ok = draw_item(task, level->level, &random, &scratch, &item, &identity, err);
        if (ok && split_held_out(level->kind, identity, strlen(identity), t->recipe->held_out) && add_hash(seen, places - 1, item.hash))
            copy_item(&item, arena, &out[(*found)++]);
        arena_reset(&scratch);
    }
    free(seen);
    return ok;
}

bool tasks_held_out(const Tasks *t, int level_index, int count, Arena *arena, Item *out, int *found, Err *err) {
    *found = 0;
    if (level_index < 0 || level_index >= t->level_count)
        return fail(err, ERR_SOFTWARE, "tasks", "level number %d of %d", level_index, t->level_count);
    const LevelEntry *entry = &t->levels[level_index];
    const Task *task = &t->tasks[entry->task];
    if (!is_dataset(task)) return draw_held_out(t, task, &entry->level, count, arena, out, found, err);
    const Dataset *d = &task->dataset;
    for (int64_t i = 0; i < d->held_out_count && *found < count; i++)
        if (d->rows[d->held_out[i]].group == entry->group) copy_item(&d->rows[d->held_out[i]].item, arena, &out[(*found)++]);
    return true;
}
