// The router's part of a comparison: a split of its own is answered in both modes, the router is fitted on it, and judged on the
// comparison's items against always thinking, always answering directly, and the best that any router could do.
#include "compare_run.h"
#include "accounts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEWEST_ITEMS = 30 };

// ---- fitting -------------------------------------------------------------------------------------------------
static bool answer_split(const RouterSetup *s, Evaluation out[MODES], Err *err) {
    const CompareSetup *c = s->compare;
    for (Mode m = 0; m < MODES; m++) {
        EvaluateOptions o = {.mode = m, .items = c->items, .skip = c->items, .sampling = &c->recipe->evaluate_sampling, .energy = s->energy};
        log_line(LOG_INFO, "comparing: the router's own items are answered in %s mode", mode_names[m]);
        if (!evaluate_with(s->policy, s->choice->recipe, c->tasks, c->rewards, &o, &out[m], err)) return false;
    }
    return out[MODE_DIRECT].count >= FEWEST_ITEMS ||
           fail(err, ERR_DATA, "routed", "found %d held-out items beside the compared ones, expected at least %d to fit a router on: lower compare.items",
                out[MODE_DIRECT].count, FEWEST_ITEMS);
}
static char *keep_text(Router *r, const char *text) { return text ? arena_strdup(&r->arena, text) : NULL; }
static void describe(const RouterSetup *s, Router *r) {
    const Recipe *recipe = s->choice->recipe;
    r->levels = tasks_level_count(s->compare->tasks);
    r->kind = ARENA_NEW(&r->arena, char *, r->levels + 1);
    r->level = ARENA_NEW(&r->arena, int, r->levels + 1);
    for (int i = 0; i < r->levels; i++) {
        TaskLevel level;
        tasks_level(s->compare->tasks, i, &level);
        r->kind[i] = keep_text(r, level.kind);
        r->level[i] = level.level;
    }
    snprintf(r->recipe_hash, sizeof r->recipe_hash, "%s", recipe->hash);
    r->chat = recipe->chat;
    for (Mode m = 0; m < MODES; m++)
        r->style[m] = (PromptStyle){keep_text(r, recipe->style[m].system), keep_text(r, recipe->style[m].instruction), keep_text(r, recipe->style[m].prefix)};
    r->max_tokens = s->compare->recipe->evaluate_sampling.max_tokens;
}

// ---- judging -------------------------------------------------------------------------------------------------
static json_t *policy_json(const char *name, const ArmResult *think, const ArmResult *direct, const bool *thinks, bool asks_direct) {
    int n = direct->count, right = 0, thought = 0;
    double tokens = 0, flops = 0;
    for (int i = 0; i < n; i++) {
        thought += thinks[i];
        right += thinks[i] ? think->right[i] : direct->right[i];
        if (!thinks[i] || asks_direct) tokens += direct->items[i].tokens, flops += direct->items[i].flops;
        if (thinks[i]) tokens += think->items[i].tokens, flops += think->items[i].flops;
    }
    Interval interval = wilson_interval(right, n, CONFIDENCE);
    return json_pack("{s:s,s:o,s:f,s:f,s:o,s:o,s:o}", "name", name, "accuracy", json_number_or_name((double)right / n), "low", interval.low, "high",
                     interval.high, "tokens", json_number_or_name(tokens / n), "flops", json_number_or_name(flops / n), "thinks",
                     json_number_or_name((double)thought / n));
}
// What `thinks` would be for each policy; the best possible one thinks only where that makes the answer right.
static json_t *policies_json(const RouterSetup *s, const bool *told, const bool *untold) {
    const ArmResult *think = s->think_result, *direct = s->direct_result;
    bool *always = xcalloc((size_t)direct->count + 1, sizeof *always), *never = xcalloc((size_t)direct->count + 1, sizeof *never),
         *best = xcalloc((size_t)direct->count + 1, sizeof *best);
    for (int i = 0; i < direct->count; i++) always[i] = true, best[i] = think->right[i] && !direct->right[i];
    json_t *out = json_array();
    json_array_append_new(out, policy_json("always think", think, direct, always, false));
    json_array_append_new(out, policy_json("always direct", think, direct, never, true));
    json_array_append_new(out, policy_json("routed", think, direct, told, true));
    json_array_append_new(out, policy_json("routed, task not told", think, direct, untold, true));
    json_array_append_new(out, policy_json("best possible", think, direct, best, true));
    free(always), free(never), free(best);
    return out;
}
static json_t *against(const RouterSetup *s, const ArmResult *routed, const ArmResult *other, const char *name, Contrast *c) {
    contrast_make(routed, other, NULL, s->compare->recipe->seed, c);
    contrast_judge(c, s->compare->margin);
    return contrast_json(c, &(ContrastNames){"routed", name, false}, s->compare->margin);
}

// In right answers a FLOP: what thinking costs more at the stated worth, where thinking is timed and priced.
static double price_of_flops(const RouterSetup *s) {
    const ArmResult *t = s->think_result;
    double flops = 0, seconds = 0;
    const Prices *p = &s->compare->prices;
    for (int i = 0; i < t->count; i++) flops += t->items[i].flops;
    for (int l = 0; l < t->levels; l++) seconds += t->seconds[l];
    Bill b = prices_bill(p, false, seconds, p->watts * seconds, 0, 0);
    bool known = s->compare->worth > 0 && b.known && flops > 0;
    return known ? (b.device + b.energy) / flops / s->compare->worth : 0;
}

static bool save(const RouterSetup *s, Router *r, ComparedModel *model) {
    Err err = {0};
    if (!s->choice->path) return true;
    char *path = router_path(s->choice->path);
    if (policy_files_hash(s->choice->path, r->model_hash, &err) && router_write(r, path, &err)) {
        model->router_file = path;
        return true;
    }
    log_line(LOG_WARN, "the router was not saved: %s: %s", err.where, err.msg);
    free(path);
    return false;
}

static void decide(const Router *r, const RouterItem *items, int n, bool *told, bool *untold) {
    for (int i = 0; i < n; i++) {
        RouterItem item = items[i];
        told[i] = router_thinks(r, &item);
        item.level = -1;
        untold[i] = router_thinks(r, &item);
    }
}

bool router_compare(const RouterSetup *s, ComparedModel *model, ArmResult *out, Err *err) {
    Evaluation split[MODES] = {0};
    Router r = {0};
    int n = s->direct->count;
    RouterItem *items = NULL, *fit = NULL;
    bool *told = xcalloc((size_t)n + 1, sizeof *told), *untold = xcalloc((size_t)n + 1, sizeof *untold);
    bool ok = answer_split(s, split, err);
    if (ok) {
        fit = xcalloc((size_t)split[MODE_DIRECT].count + 1, sizeof *fit), items = xcalloc((size_t)n + 1, sizeof *items);
        router_items(&split[MODE_THINK], &split[MODE_DIRECT], fit);
        router_items(s->think, s->direct, items);
        describe(s, &r);
        router_fit(&r, fit, split[MODE_DIRECT].count, s->compare->margin, price_of_flops(s));
        decide(&r, items, n, told, untold);
        arm_result_routed(s->think_result, s->direct_result, told, out);
        for (Mode m = 0; m < MODES; m++) {
            for (int i = 0; i < split[m].count; i++) {
                out->spent_flops += split[m].items[i].flops, out->spent_tokens += split[m].items[i].tokens;
                out->spent_prompt_tokens += split[m].items[i].prompt_tokens;
            }
            out->spent_cpu += split[m].cpu_seconds, out->spent_waiting += split[m].waited_seconds;
            for (int l = 0; l < out->levels; l++) out->spent_seconds += split[m].level_seconds[l], out->spent_joules += split[m].level_joules[l];
        }
        Contrast think, direct;
        json_t *with_think = against(s, out, s->think_result, "think", &think), *with_direct = against(s, out, s->direct_result, "direct", &direct);
        char sentence[256], points[24], low[24], high[24];
        snprintf(sentence, sizeof sentence, "routed: %.1f %% right, %s points against always thinking (95 %%: %s to %s) for %.2f times its FLOPs",
                 100 * think.a, points_signed(think.difference, points), points_signed(think.interval.low, low), points_signed(think.interval.high, high),
                 think.flops.value);
        model->router = json_pack("{s:s,s:o,s:{s:i,s:i},s:o,s:o,s:o,s:f,s:s}", "model", model->name, "features", router_features(&r), "items", "fitted",
                                  r.fitted, "judged", n, "policies", policies_json(s, told, untold), "against_think", with_think, "against_direct",
                                  with_direct, "threshold", r.threshold[0], "sentence", sentence);
        save(s, &r, model);
    }
    for (Mode m = 0; m < MODES; m++) evaluation_free(&split[m]);
    free(items), free(fit), free(told), free(untold);
    router_free(&r);
    return ok;
}
