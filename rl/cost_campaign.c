// What a campaign cost: one run, or every run below a folder, finished, failed, killed and abandoned ones alike.
//
//   {"folder", "runs": [cost of a run (cost.c) and "path"; its state's "how" is "running" or "killed" too, "abandoned": bool],
//    "states": {"finished": N, ...}, "training", "data_generation", "evaluations", "repeated", "total": WORK, "abandoned": WORK (of that
//    total), "wasted_flops", "devices", "clock", "inherited": [base models, each once], "unreadable": [{"path", "why"}], "currency", "check"}
//
// A sum with a part that isn't known isn't known; what is known of it stands in "at_least". Runs that state different currencies have
// no sum of money. Work that left no ledger (generate, chat, comparisons of bare models) can't be told and isn't claimed.
#include "cost_parts.h"
#include "files.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEEPEST_FOLDER = 6, MOST_RUNS = 10000 };

// ---- runs below a folder ---------------------------------------------------------------------------------
typedef struct Runs {
    char **path;
    int count;
} Runs;

static bool is_run(const char *folder) {
    char *ledger = path_join(folder, "ledger.db");
    bool there = file_exists(ledger);
    free(ledger);
    return there;
}
static void find_runs(const char *folder, int depth, Runs *out) {
    if (is_run(folder)) { // what lies in a run's own folder belongs to it
        if (out->count == MOST_RUNS) return;
        out->path = xrealloc(out->path, (size_t)(out->count + 1) * sizeof *out->path);
        out->path[out->count++] = xstrdup(folder);
        return;
    }
    DIR *d = depth < DEEPEST_FOLDER ? opendir(folder) : NULL;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        struct stat s;
        if (entry->d_name[0] == '.') continue;
        char *path = path_join(folder, entry->d_name);
        if (lstat(path, &s) == 0 && S_ISDIR(s.st_mode)) find_runs(path, depth + 1, out); // links are not followed
        free(path);
    }
    if (d) closedir(d);
}
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// ---- sums of figures -------------------------------------------------------------------------------------
// Of two sources the weaker one: what was stated taints what was measured, unless one of them adds nothing.
static const char *weaker(const json_t *a, const json_t *b) {
    static const char *const order[] = {"measured", "computed", "stated"};
    const json_t *both[] = {a, b};
    int worst[2] = {0, 0}; // of all, of those that aren't 0
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < COUNT(order); i++) {
            const char *source = json_string_value(json_object_get(both[k], "source"));
            bool counts = json_number_value(json_object_get(both[k], "value")) != 0;
            if (!source || strcmp(source, order[i])) continue;
            if (i > worst[0]) worst[0] = i;
            if (counts && i > worst[1]) worst[1] = i;
        }
    bool any = json_number_value(json_object_get(a, "value")) != 0 || json_number_value(json_object_get(b, "value")) != 0;
    return order[worst[any]];
}
static double known_of(const json_t *f) {
    const json_t *v = json_object_get(f, "value"), *least = json_object_get(f, "at_least");
    return json_is_number(v) ? json_number_value(v) : json_is_number(least) ? json_number_value(least) : 0;
}
static json_t *figure_sum(const json_t *a, const json_t *b) {
    const json_t *x = json_object_get(a, "value"), *y = json_object_get(b, "value");
    if (!a || !b) return json_deep_copy(a ? a : b);
    double sum = known_of(a) + known_of(b);
    if (json_is_integer(x) && json_is_integer(y))
        return json_pack("{s:I,s:s}", "value", json_integer_value(x) + json_integer_value(y), "source", weaker(a, b));
    if (json_is_number(x) && json_is_number(y)) return figure(sum, weaker(a, b), "");
    json_t *out = json_deep_copy(json_is_number(x) ? b : a);
    if (sum != 0) json_object_set_new(out, "at_least", json_real(sum));
    return out;
}
static bool is_figure(const json_t *j) { return json_object_get(j, "value") && json_object_get(j, "source"); }
// Adds each figure of `from` to that of `to`.
static void add_figures(json_t *to, const json_t *from) {
    const char *key;
    json_t *f;
    json_object_foreach((json_t *)(uintptr_t)from, key, f) {
        if (is_figure(f) && strcmp(key, "share")) json_object_set_new(to, key, figure_sum(json_object_get(to, key), f));
    }
}

static void add_devices(json_t *to, const json_t *from) {
    size_t i, k;
    json_t *device, *known;
    json_array_foreach(from, i, device) {
        const char *name = json_string_value(json_object_get(device, "device"));
        bool found = false;
        json_array_foreach(to, k, known) {
            const char *other = json_string_value(json_object_get(known, "device"));
            if (found || !name || !other || strcmp(name, other)) continue;
            add_figures(known, device);
            found = true;
        }
        if (!found) json_array_append_new(to, json_deep_copy(device));
    }
}

static void add_inherited(json_t *list, const json_t *base) {
    size_t i;
    json_t *known;
    const char *path = json_string_value(json_object_get(base, "path"));
    if (!path) return;
    json_array_foreach(list, i, known) {
        const char *other = json_string_value(json_object_get(known, "path"));
        if (other && !strcmp(other, path)) return;
    }
    json_array_append(list, (json_t *)(uintptr_t)base);
}

// ---- a campaign ------------------------------------------------------------------------------------------
typedef struct Campaign {
    json_t *runs, *states, *training, *data, *evaluations, *repeated, *total, *abandoned, *wasted, *devices, *inherited, *unreadable, *failed, *clock;
    json_t *currency; // of the first run that states a price; false where they differ
} Campaign;

// What the ledger can't know of itself: whether its process is still at work.
static void settle_state(json_t *run, const char *path) {
    json_t *state = json_object_get(run, "state");
    const char *how = json_string_value(json_object_get(state, "how"));
    if (how && !strcmp(how, "not ended")) json_object_set_new(state, "how", json_string(run_is_locked(path) ? "running" : "killed"));
    how = json_string_value(json_object_get(state, "how"));
    json_object_set_new(run, "abandoned", json_boolean(how && strcmp(how, "finished") && strcmp(how, "running")));
}

static void note_currency(Campaign *c, const json_t *run) {
    const json_t *money = json_object_get(json_object_get(json_object_get(run, "total"), "money"), "value"), *currency = json_object_get(run, "currency");
    if (!json_is_number(money)) return;
    if (!c->currency) c->currency = json_incref((json_t *)(uintptr_t)currency);
    else if (!json_is_false(c->currency) && !json_equal(c->currency, currency)) json_decref(c->currency), c->currency = json_false();
}

static void add_run(Campaign *c, json_t *run) {
    size_t i;
    json_t *stage, *sum;
    const char *how = json_string_value(json_object_get(json_object_get(run, "state"), "how"));
    json_t *of_state = json_object_get(c->states, how ? how : "killed");
    json_object_set_new(c->states, how ? how : "killed", json_integer(json_integer_value(of_state) + 1));
    json_array_foreach(json_object_get(run, "stages"), i, stage) {
        const char *purpose = json_string_value(json_object_get(stage, "purpose"));
        add_figures(purpose && !strcmp(purpose, "data generation") ? c->data : c->training, stage);
    }
    add_figures(c->evaluations, json_object_get(run, "evaluations")), add_figures(c->repeated, json_object_get(run, "repeated"));
    add_figures(c->clock, json_object_get(run, "clock"));
    add_figures(c->total, json_object_get(run, "total")), add_figures(c->wasted, json_object_get(run, "wasted_flops"));
    if (json_is_true(json_object_get(run, "abandoned"))) add_figures(c->abandoned, json_object_get(run, "total"));
    add_devices(c->devices, json_object_get(run, "devices"));
    add_inherited(c->inherited, json_object_get(run, "base_model"));
    note_currency(c, run);
    json_array_foreach(json_object_get(json_object_get(run, "check"), "sums"), i, sum) {
        if (json_is_true(json_object_get(sum, "ok"))) continue;
        json_t *failed = json_deep_copy(sum);
        json_object_set(failed, "path", json_object_get(run, "path"));
        json_array_append_new(c->failed, failed);
    }
    json_array_append(c->runs, run);
}

// The campaign's parts against its total, and its devices' seconds against the total's.
static void check_campaign(Campaign *c) {
    static const char *const keys[] = {"new_tokens", "trained_tokens", "flops", "seconds"};
    const json_t *parts[] = {c->training, c->data, c->evaluations, c->repeated};
    for (int k = 0; k <= COUNT(keys); k++) {
        const char *key = k < COUNT(keys) ? keys[k] : "seconds";
        double sum = 0, whole = known_of(json_object_get(c->total, key));
        size_t i;
        json_t *device;
        if (!json_is_number(json_object_get(json_object_get(c->total, key), "value"))) continue;
        for (int p = 0; p < COUNT(parts) && k < COUNT(keys); p++) sum += known_of(json_object_get(parts[p], key));
        json_array_foreach(c->devices, i, device) sum += k < COUNT(keys) ? 0 : known_of(json_object_get(device, "seconds"));
        if (fabs(sum - whole) <= 1e-6 * fmax(fabs(whole), 1e-3)) continue;
        json_array_append_new(c->failed, json_pack("{s:s,s:f,s:f,s:b}", "what", k < COUNT(keys) ? key : "seconds by device", "parts", sum, "whole", whole, "ok", 0));
    }
}

static json_t *campaign_json(Campaign *c, const char *folder) {
    if (json_is_false(c->currency)) { // what is in different currencies can't be added
        json_t *works[] = {c->training, c->data, c->evaluations, c->repeated, c->total, c->abandoned};
        for (int i = 0; i < COUNT(works); i++)
            if (json_object_get(works[i], "money")) json_object_set_new(works[i], "money", figure(NAN, "", "not known"));
    }
    json_t *check = json_pack("{s:b,s:O}", "ok", json_array_size(c->failed) == 0, "failed", c->failed);
    json_t *name = json_string(folder);
    return json_pack("{s:o,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:O,s:o,s:o}", "folder", name ? name : json_string("(not UTF-8)"), "runs", c->runs, "states",
                     c->states, "training", c->training, "data_generation", c->data, "evaluations", c->evaluations, "repeated", c->repeated, "total", c->total,
                     "abandoned", c->abandoned, "wasted_flops", c->wasted, "devices", c->devices, "inherited", c->inherited, "unreadable", c->unreadable, "clock", c->clock, "check",
                     check, "currency", json_is_string(c->currency) ? json_incref(c->currency) : json_null());
}

static void campaign_free(Campaign *c) {
    json_t *all[] = {c->runs, c->states, c->training, c->data, c->evaluations, c->repeated, c->total, c->abandoned, c->wasted, c->devices, c->inherited,
                     c->unreadable, c->failed, c->clock, c->currency};
    for (int i = 0; i < COUNT(all); i++) json_decref(all[i]);
}

bool cost_campaign(const char *folder, json_t **out, Err *err) {
    Runs runs = {0};
    *out = NULL;
    find_runs(folder, 0, &runs);
    if (runs.count == 0) {
        char *ledger = path_join(folder, "ledger.db");
        fail(err, ERR_NOINPUT, ledger, "is not there, expected the ledger of a run, or runs in folders below");
        free(ledger);
        return false;
    }
    qsort(runs.path, (size_t)runs.count, sizeof *runs.path, by_name);
    Campaign c = {json_array(), json_object(), json_object(), json_object(), json_object(), json_object(), json_object(), json_object(), json_object(),
                  json_array(), json_array(), json_array(), json_array(), json_object(), NULL};
    for (int i = 0; i < runs.count; i++) {
        json_t *run = NULL;
        Err why = {0};
        if (cost_run(runs.path[i], &run, &why)) {
            json_t *path = json_string(runs.path[i]);
            json_object_set_new(run, "path", path ? path : json_string("(not UTF-8)"));
            settle_state(run, runs.path[i]);
            add_run(&c, run);
        } else {
            json_t *path = json_string(runs.path[i]), *text = json_string(why.msg);
            json_array_append_new(c.unreadable, json_pack("{s:o,s:o}", "path", path ? path : json_string("(not UTF-8)"), "why", text ? text : json_string("")));
        }
        json_decref(run);
        free(runs.path[i]);
    }
    free(runs.path);
    check_campaign(&c);
    *out = campaign_json(&c, folder);
    campaign_free(&c);
    return true;
}
