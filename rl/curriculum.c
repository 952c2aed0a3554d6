// The curriculum of a stage. By level: of each task only the first of the stage's levels is asked at first; the next one opens when
// the open ones' samples passed more often than the threshold over the last `window` steps, all of them taken since the last opening.
// By pass rate: each level's share is weighted by 4 p (1 - p) of its pass rate p over the last `window` steps, and by at least `floor`,
// so that levels that are solved or out of reach are drawn less; a level that was not drawn within the window counts as unknown: 1.
//
// Shares are a function of the counts alone and counts are integers, so a replay gives the same prompts; the counts are a part of
// the checkpoint, the shares stand on the ledger (step_levels).
#include "curriculum.h"
#include "tasks_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Rung { // one level of one task
    const char *kind; // the tasks' own
    int level;
    double base;      // share without a curriculum; 0: not a level of the stage
    int64_t *samples, *passed; // [window], of the last steps, by step modulo window
} Rung;
struct Curriculum {
    const CurriculumRule *rule;
    Rung *rungs;   // [count], as tasks_level has them
    int *open;     // [count] by level: the highest open level of the rung's task
    int *since;    // [count] steps since it opened
    double *shares;
    int count;
    int64_t steps; // counted so far
};

static bool same_kind(const char *a, const char *b) { return strncmp(a, b, sizeof((LevelCount *)0)->kind - 1) == 0; }

static double pass_rate(const Rung *r, int window, double *samples) {
    double passed = 0;
    *samples = 0;
    for (int i = 0; i < window; i++) *samples += (double)r->samples[i], passed += (double)r->passed[i];
    return *samples > 0 ? passed / *samples : NAN;
}

// ---- shares ----------------------------------------------------------------------------------------------
static double weight_of(const Curriculum *c, int i) {
    const CurriculumRule *rule = c->rule;
    double samples;
    if (rule->by == CURRICULUM_LEVEL) return c->rungs[i].level <= c->open[i];
    double p = pass_rate(&c->rungs[i], rule->window, &samples);
    return samples > 0 ? rule->floor + (1 - rule->floor) * 4 * p * (1 - p) : 1;
}
// By level a task keeps its share among the tasks; by pass rate tasks are weighed against each other too.
static void set_shares(Curriculum *c) {
    double sum = 0;
    for (int i = 0; i < c->count; i++) {
        double all = 0, weighted = 0;
        for (int k = 0; k < c->count && c->rule->by == CURRICULUM_LEVEL; k++) {
            if (!same_kind(c->rungs[i].kind, c->rungs[k].kind)) continue;
            all += c->rungs[k].base, weighted += c->rungs[k].base * weight_of(c, k);
        }
        c->shares[i] = c->rungs[i].base * weight_of(c, i) * (weighted > 0 ? all / weighted : 1);
        sum += c->shares[i];
    }
    for (int i = 0; i < c->count; i++) c->shares[i] = sum > 0 ? c->shares[i] / sum : c->rungs[i].base;
}

// ---- levels that open --------------------------------------------------------------------------------------
// The stage's lowest level of a kind above `above`; `above` itself where there is none.
static int next_level(const Curriculum *c, const char *kind, int above) {
    int next = above;
    for (int i = 0; i < c->count; i++) {
        const Rung *r = &c->rungs[i];
        if (r->base > 0 && r->level > above && same_kind(r->kind, kind) && (next == above || r->level < next)) next = r->level;
    }
    return next;
}
static bool is_passed(const Curriculum *c, int rung) {
    double passed = 0, samples = 0;
    for (int i = 0; i < c->count; i++) {
        const Rung *r = &c->rungs[i];
        double n, p = pass_rate(r, c->rule->window, &n);
        if (!same_kind(r->kind, c->rungs[rung].kind) || r->level > c->open[rung] || n == 0) continue;
        passed += p * n, samples += n;
    }
    return samples > 0 && passed / samples > c->rule->threshold;
}
static void open_levels(Curriculum *c) {
    bool *up = xcalloc((size_t)c->count, sizeof *up);
    for (int i = 0; i < c->count; i++) {
        c->since[i]++;
        up[i] = c->since[i] >= c->rule->window && is_passed(c, i) && next_level(c, c->rungs[i].kind, c->open[i]) > c->open[i];
    }
    for (int i = 0; i < c->count; i++)
        if (up[i]) c->open[i] = next_level(c, c->rungs[i].kind, c->open[i]), c->since[i] = 0;
    free(up);
}

// ---- steps -------------------------------------------------------------------------------------------------
const double *curriculum_shares(const Curriculum *c) { return c ? c->shares : NULL; }

static LevelCount *row_of(LevelCounts *counts, const Rung *r) {
    for (int i = 0; i < counts->count; i++)
        if (counts->rows[i].level == r->level && same_kind(counts->rows[i].kind, r->kind)) return &counts->rows[i];
    counts->rows = xrealloc(counts->rows, (size_t)(counts->count + 1) * sizeof *counts->rows);
    LevelCount *row = &counts->rows[counts->count++];
    *row = (LevelCount){.level = r->level, .share = NAN};
    snprintf(row->kind, sizeof row->kind, "%s", r->kind);
    return row;
}

void curriculum_step(Curriculum *c, LevelCounts *counts) {
    if (!c) return;
    int64_t at = c->steps++ % c->rule->window;
    for (int i = 0; i < c->count; i++) {
        Rung *r = &c->rungs[i];
        if (r->base <= 0) continue;
        LevelCount *row = row_of(counts, r);
        row->share = (row->share == row->share ? row->share : 0) + c->shares[i];
        r->samples[at] = row->samples, r->passed[at] = row->passed;
    }
    if (c->rule->by == CURRICULUM_LEVEL) open_levels(c);
    set_shares(c);
}

// ---- the checkpoint's part -----------------------------------------------------------------------------------
static json_t *counts_json(const int64_t *counts, int window) {
    json_t *list = json_array();
    for (int i = 0; i < window; i++) json_array_append_new(list, json_integer(counts[i]));
    return list;
}
json_t *curriculum_state(const Curriculum *c) {
    if (!c) return NULL;
    json_t *rungs = json_array();
    for (int i = 0; i < c->count; i++)
        json_array_append_new(rungs, json_pack("{s:s,s:i,s:i,s:i,s:o,s:o}", "kind", c->rungs[i].kind, "level", c->rungs[i].level, "open", c->open[i],
                                               "since", c->since[i], "samples", counts_json(c->rungs[i].samples, c->rule->window), "passed",
                                               counts_json(c->rungs[i].passed, c->rule->window)));
    return json_pack("{s:I,s:o}", "steps", (json_int_t)c->steps, "levels", rungs);
}

static bool take_state(Curriculum *c, const json_t *state, Err *err) {
    const json_t *rungs = json_object_get(state, "levels"), *steps = json_object_get(state, "steps");
    bool ok = json_is_integer(steps) && json_integer_value(steps) >= 0 && json_array_size(rungs) == (size_t)c->count;
    c->steps = json_integer_value(steps);
    for (int i = 0; ok && i < c->count; i++) {
        const json_t *one = json_array_get(rungs, (size_t)i), *samples = json_object_get(one, "samples"), *passed = json_object_get(one, "passed");
        ok = json_array_size(samples) == (size_t)c->rule->window && json_array_size(passed) == (size_t)c->rule->window;
        c->open[i] = (int)json_integer_value(json_object_get(one, "open")), c->since[i] = (int)json_integer_value(json_object_get(one, "since"));
        for (int k = 0; ok && k < c->rule->window; k++) {
            c->rungs[i].samples[k] = json_integer_value(json_array_get(samples, (size_t)k));
            c->rungs[i].passed[k] = json_integer_value(json_array_get(passed, (size_t)k));
        }
    }
    return ok || fail(err, ERR_DATA, "the checkpoint's curriculum", "found %zu levels after %lld steps, expected %d of windows of %d steps",
                      json_array_size(rungs), (long long)c->steps, c->count, c->rule->window);
}

// ---- open and close ------------------------------------------------------------------------------------------
bool curriculum_open(const Tasks *t, const Stage *stage, const json_t *state, Curriculum **out, Err *err) {
    *out = NULL;
    if (stage->curriculum.by == CURRICULUM_NONE) return true;
    Curriculum *c = xcalloc(1, sizeof *c);
    size_t n = (size_t)tasks_level_count(t), window = (size_t)stage->curriculum.window;
    *c = (Curriculum){.rule = &stage->curriculum, .count = (int)n, .rungs = xcalloc(n, sizeof *c->rungs), .open = xcalloc(n, sizeof(int)),
                      .since = xcalloc(n, sizeof(int)), .shares = xcalloc(n, sizeof(double))};
    tasks_shares(t, stage, c->shares);
    for (int i = 0; i < c->count; i++) {
        TaskLevel level;
        tasks_level(t, i, &level);
        c->rungs[i] = (Rung){.kind = level.kind, .level = level.level, .base = c->shares[i], .samples = xcalloc(window, sizeof(int64_t)),
                             .passed = xcalloc(window, sizeof(int64_t))};
    }
    for (int i = 0; i < c->count; i++) c->open[i] = next_level(c, c->rungs[i].kind, -1);
    bool ok = !state || take_state(c, state, err);
    if (ok) set_shares(c);
    *out = ok ? c : NULL;
    if (!ok) curriculum_close(c);
    return ok;
}
void curriculum_close(Curriculum *c) {
    if (!c) return;
    for (int i = 0; i < c->count; i++) free(c->rungs[i].samples), free(c->rungs[i].passed);
    free(c->rungs), free(c->open), free(c->since), free(c->shares);
    free(c);
}
