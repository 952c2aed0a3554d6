// What a run cost, summed over its ledger: tokens, FLOPs, seconds by stage and part, joules, money, CO2. Work that was done
// twice, evaluations and waste are counted, not hidden. Every figure says where it comes from, and what is not known
// is never 0:
//
//   FIGURE: {"value": number | "not measured" | "not stated" | "not known",
//            "source": "measured" (counted, a clock, a meter) | "computed" (from shapes) | "stated" (the recipe, a card) | "none"}
//   WORK:   {"steps", "prompt_tokens", "new_tokens", "trained_tokens", "flops", "seconds", "rollout_seconds",
//            "reward_seconds", "train_seconds", "optimizer_seconds", "cpu_seconds", "joules", "money", "co2_grams"}, each a FIGURE;
//            "device_joules" too where the device has a meter of its own; where an endpoint was asked "endpoint_answers",
//            "endpoint_tokens_in", "endpoint_tokens_out" (as it counts) and "endpoint_money", which is a part of "money"
//   {"currency": "EUR" | null, "stages": [WORK and "name", "kind", "purpose": "training" | "data generation"], "evaluations": WORK,
//    "repeated": WORK, "total": WORK,
//    "waste": {"groups_without_variance", "truncated_samples", "unscored_samples", "untrained_tokens", "repeated_flops"}
//              (FIGUREs, shares from 0 to 1), "cut_off": FIGURE (times that a run was continued; the step under way was lost),
//    "wasted_flops": of sampling what taught nothing, and of repeated work (cost_waste.c),
//    "state": {"how": "finished" | "failed" | "stopped" | "not ended", "why", "sessions"}, "devices": [{"device", "seconds"}],
//    "clock": {"seconds", "outside"}: from each start to its last event, and how much of that is in no step or evaluation (loading,
//    checkpoints, the step that was under way when a run ended),
//    "base_model": where its weights come from and what those cost (cost_waste.c),
//    "check": {"ok", "sums": [{"what", "parts", "whole", "ok"}]}}   // the parts against the ledger's rows, counted another way
#include "cost_parts.h"
#include "data.h"
#include "files.h"
#include "stages.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 64, MAX_DEVICES = 16 };

typedef struct Work {
    int64_t steps, prompt_tokens, new_tokens, trained_tokens;
    double flops, seconds, rollout, reward, train, optimizer, cpu, joules, device_joules;
    int64_t answers;              // of endpoints
    double tokens_in, tokens_out; // of these, as the endpoint counts; NaN: it didn't always say
} Work;

typedef struct Stated { // by the recipe; 0: not
    double watts, price_per_hour, price_per_kwh, co2_per_kwh, million_in, million_out;
    const char *currency; // inside `recipe`
    json_t *recipe; // recipe.resolved.json, NULL if it can't be read
} Stated;

typedef struct Account {
    Work stage[MAX_STAGES], evaluations, repeated, total;
    Work repeated_steps, whole; // for the check: of `repeated` the steps; and all of it counted without regard to rewinds
    char kind[MAX_STAGES][16];
    int stages;
    struct {
        int count;
        double flops, seconds, joules, whole_flops, whole_seconds, whole_joules;
    } comparisons; // that list their parts, and the sums of these
    int64_t continued, sessions;
    char how[24];
    json_t *why;
    char device[MAX_DEVICES][160];
    double device_seconds[MAX_DEVICES];
    int devices, at_device;
} Account;

// ---- what the recipe states ------------------------------------------------------------------------------
static const json_t *find_key(const json_t *j, const char *key, int depth) {
    const json_t *found = json_object_get(j, key);
    const char *name;
    json_t *value;
    if (found || depth == 0) return found;
    json_object_foreach((json_t *)(uintptr_t)j, name, value) {
        if (!found && json_is_object(value)) found = find_key(value, key, depth - 1);
    }
    return found;
}
static double stated_number(const json_t *recipe, const char *key) {
    const json_t *v = find_key(recipe, key, 2);
    return json_is_number(v) && json_number_value(v) > 0 ? json_number_value(v) : 0;
}
static void read_stated(const char *run_folder, Stated *s) {
    char *path = path_join(run_folder, "recipe.resolved.json");
    *s = (Stated){0};
    if (!json_read_file(path, 16 << 20, &s->recipe, NULL)) s->recipe = NULL;
    s->watts = stated_number(s->recipe, "watts");
    s->price_per_hour = stated_number(s->recipe, "price_per_hour");
    s->price_per_kwh = stated_number(s->recipe, "price_per_kwh");
    s->co2_per_kwh = stated_number(s->recipe, "co2_per_kwh");
    s->million_in = stated_number(s->recipe, "million_tokens_in"), s->million_out = stated_number(s->recipe, "million_tokens_out");
    s->currency = json_string_value(find_key(s->recipe, "currency", 2));
    free(path);
}

// ---- sums ------------------------------------------------------------------------------------------------
static double number_of(const json_t *object, const char *key) { // NaN where there is none
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static int64_t count_of(const json_t *object, const char *key) {
    double x = number_of(object, key);
    return x >= 0 && x < 9e15 ? (int64_t)x : 0;
}

static void add_work(Work *to, const Work *w) {
    to->steps += w->steps, to->prompt_tokens += w->prompt_tokens, to->new_tokens += w->new_tokens;
    to->trained_tokens += w->trained_tokens, to->flops += w->flops, to->seconds += w->seconds;
    to->rollout += w->rollout, to->reward += w->reward, to->train += w->train, to->optimizer += w->optimizer;
    to->cpu += w->cpu, to->joules += w->joules, to->device_joules += w->device_joules;
    to->answers += w->answers, to->tokens_in += w->tokens_in, to->tokens_out += w->tokens_out;
}
// One unmeasured second makes a sum of seconds unmeasured: NaN propagates by itself.
static void measured_of(const json_t *detail, Work *w) {
    w->seconds = number_of(detail, "seconds"), w->rollout = number_of(detail, "rollout");
    w->reward = number_of(detail, "reward"), w->train = number_of(detail, "train");
    w->optimizer = number_of(detail, "optimizer"), w->cpu = number_of(detail, "cpu_seconds");
    w->joules = number_of(detail, "joules"), w->device_joules = number_of(detail, "device_joules");
}

// A mean of an answer: a number, or of a spread its mean.
static double mean_of(const json_t *level, const char *key) {
    const json_t *spread = json_object_get(level, key);
    return json_is_object(spread) ? number_of(spread, "mean") : number_of(level, key);
}
// An evaluation's tokens and FLOPs: means per item times items, over levels, and over modes or arms where each has its own.
static void evaluated_of(const json_t *level, double seeds, Work *w) {
    double items = number_of(level, "items") * seeds;
    if (!(items > 0)) return;
    double prompt = number_of(level, "prompt_tokens"), tokens = mean_of(level, "tokens"), flops = number_of(level, "flops");
    if (prompt > 0) w->prompt_tokens += llround(prompt * items);
    if (tokens > 0) w->new_tokens += llround(tokens * items);
    w->flops += flops * items;
}
// A router's arm answers with what the others sampled.
static bool is_sampled(const json_t *arm) {
    const char *strategy = json_string_value(json_object_get(arm, "strategy")), *name = json_string_value(json_object_get(arm, "name"));
    return !(strategy && !strcmp(strategy, "routed")) && !(name && strstr(name, "routed"));
}
static void evaluation_of(const json_t *replayable, const json_t *measured, Work *w) {
    size_t i, k, arms = 0;
    json_t *level, *arm;
    double seconds = number_of(measured, "seconds"), by_level = 0, by_arm = 0;
    bool of_arms = json_object_get(replayable, "arms") != NULL; // a comparison's own levels only name them
    json_array_foreach(json_object_get(replayable, "levels"), i, level) {
        if (of_arms) break;
        evaluated_of(level, 1, w);
        for (int m = 0; m < 2; m++) evaluated_of(json_object_get(level, m ? "direct" : "think"), 1, w);
    }
    const json_t *work = json_object_get(replayable, "work"); // of a comparison: all that it took, a router's own items too
    w->prompt_tokens += count_of(work, "prompt_tokens"), w->new_tokens += count_of(work, "new_tokens");
    if (work) w->flops += number_of(work, "flops");
    json_array_foreach(json_object_get(replayable, "arms"), i, arm) {
        if (work || !is_sampled(arm)) continue;
        double seeds = number_of(arm, "seeds");
        json_array_foreach(json_object_get(arm, "levels"), k, level) evaluated_of(level, seeds > 0 ? seeds : 1, w);
    }
    json_array_foreach(json_object_get(measured, "arms"), i, arm) {
        if (is_sampled(arm)) by_arm += number_of(json_object_get(arm, "all"), "seconds"), arms++;
    }
    json_array_foreach(json_object_get(measured, "levels"), i, level) {
        for (int m = 0; m < 2; m++) by_level += number_of(json_object_get(level, m ? "direct" : "think"), "seconds");
    }
    w->seconds = !isnan(seconds) ? seconds : arms ? by_arm : i ? by_level : NAN;
    w->joules = number_of(measured, "joules"), w->device_joules = number_of(measured, "device_joules");
    w->rollout = w->seconds, w->cpu = NAN;
    w->steps = 1;
}

static bool sum_steps(const Ledger *l, Account *a, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT stage_index, max(kind), count(*), sum(prompt_tokens), sum(new_tokens), sum(trained_tokens), "
                              "sum(flops) FROM steps GROUP BY stage_index ORDER BY stage_index";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t i = column_int(s, 0);
        if (i < 0 || i >= MAX_STAGES) continue;
        a->stages = (int)i + 1;
        snprintf(a->kind[i], sizeof a->kind[i], "%s", column_string(s, 1));
        a->stage[i] = (Work){.steps = column_int(s, 2), .prompt_tokens = column_int(s, 3), .new_tokens = column_int(s, 4),
                             .trained_tokens = column_int(s, 5), .flops = column_real(s, 6)};
    }
    sqlite3_finalize(s);
    return ok;
}

// Which stage a step that stands belongs to; -1 for one that doesn't.
static bool stage_of(const Ledger *l, int64_t step, int *out, Err *err) {
    int64_t stage;
    TRY(ledger_integer(l, "SELECT stage_index FROM steps WHERE step = ?", step, -1, &stage, err));
    *out = stage >= 0 && stage < MAX_STAGES ? (int)stage : -1;
    return true;
}

static void add_measured(Work *to, const Work *w) {
    Work clocks = *w;
    clocks.steps = clocks.prompt_tokens = clocks.new_tokens = clocks.trained_tokens = 0, clocks.flops = 0;
    add_work(to, &clocks);
}

static void add_repeated_evaluation(Account *a, const json_t *replayable) {
    Work w = {0};
    evaluation_of(replayable, NULL, &w);
    w.steps = 0, w.seconds = w.rollout = w.cpu = w.joules = w.device_joules = 0; // its clocks are with the evaluations
    add_work(&a->repeated, &w);
}
// An evaluation that was made again after a resume and came to the same.
static bool add_again(const Ledger *l, int64_t step, const char *name, Account *a, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT name, replayable FROM evaluations WHERE step = ?", step, 0, &s, err), more = true;
    while (ok && name && (ok = ledger_next(l, s, &more, err)) && more) {
        if (strcmp(column_string(s, 0), name)) continue;
        json_t *replayable = column_object(s, 1);
        add_repeated_evaluation(a, replayable);
        json_decref(replayable);
        break;
    }
    sqlite3_finalize(s);
    return ok;
}

// Sessions of the run: each begins with the machine that it is on, and ends with how it ended, unless it was killed.
static void note_session(Account *a, const char *kind, const json_t *detail) {
    const char *device = json_string_value(json_object_get(detail, "device")), *host = json_string_value(json_object_get(detail, "host"));
    const char *how = json_string_value(json_object_get(detail, "how"));
    if (!strcmp(kind, "end")) {
        snprintf(a->how, sizeof a->how, "%s", how ? how : "not ended");
        json_decref(a->why);
        a->why = json_incref(json_object_get(detail, "why"));
        return;
    }
    char name[sizeof a->device[0]];
    snprintf(name, sizeof name, "%.60s%s%.80s", device ? device : "not known", host ? " on " : "", host ? host : "");
    snprintf(a->how, sizeof a->how, "not ended");
    a->sessions++;
    for (a->at_device = 0; a->at_device < a->devices; a->at_device++)
        if (!strcmp(a->device[a->at_device], name)) return;
    if (a->devices < MAX_DEVICES) strcpy(a->device[a->devices++], name);
    else a->at_device = MAX_DEVICES - 1;
}

// A stage's data or merged model put on record without a word on what that took, as runs did before it was measured: nothing.
static bool is_bare_record(const json_t *detail) {
    const char *name = json_string_value(json_object_get(detail, "name"));
    return name && (!strcmp(name, DATA_RECORD) || !strcmp(name, "merge")) && !json_object_get(detail, "measured");
}
// What an event took, whatever became of its step: the whole that the parts are held against.
static void note_whole(Account *a, const char *kind, const json_t *detail) {
    Work w = {0};
    bool step = !strcmp(kind, "step"), evaluation = !strcmp(kind, "evaluation");
    if (step || !strcmp(kind, "probe")) measured_of(detail, &w);
    else if (evaluation && is_bare_record(detail)) return;
    else if (evaluation) evaluation_of(NULL, json_object_get(detail, "measured"), &w);
    else return;
    w.steps = step;
    add_work(&a->whole, &w);
    if (a->devices == 0) strcpy(a->device[a->devices++], "not known");
    a->device_seconds[a->at_device] += w.seconds;
}

// A remainder below 0 is no part: the others then come to more than the whole.
static double sum_parts(const json_t *of, const char *key) {
    double sum = 0;
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(of, "parts"), i, part) {
        double x = number_of(part, key);
        sum += x < 0 ? 0 : x;
    }
    return sum;
}
static void note_parts(Account *a, const json_t *work, const json_t *measured) {
    if (json_object_get(work, "parts")) a->comparisons.flops += sum_parts(work, "flops"), a->comparisons.whole_flops += number_of(work, "flops"), a->comparisons.count++;
    if (!json_object_get(measured, "parts")) return;
    a->comparisons.seconds += sum_parts(measured, "seconds"), a->comparisons.whole_seconds += number_of(measured, "seconds");
    a->comparisons.joules += sum_parts(measured, "joules"), a->comparisons.whole_joules += number_of(measured, "joules");
    a->comparisons.count++;
}

// Measured values in the order they were written; a rewind moves the accounts of later steps to the repeated work.
static bool sum_events(const Ledger *l, Account *a, Err *err) {
    sqlite3_stmt *s;
    int64_t highest;
    TRY(ledger_integer(l, "SELECT count(*) FROM events WHERE kind = 'step'", 0, 0, &highest, err));
    Work *account = xcalloc((size_t)highest + 1, sizeof *account);
    static const char sql[] = "SELECT kind, step, detail FROM events WHERE kind IN ('step', 'rewind', 'repeated', 'evaluation', "
                              "'probe', 'resume', 'machine', 'end') ORDER BY seq";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        const char *kind = column_string(s, 0);
        int64_t step = column_int(s, 1);
        json_t *detail = column_object(s, 2);
        Work w = {0};
        note_whole(a, kind, detail);
        if (!strcmp(kind, "step") && step >= 1 && step <= highest) {
            measured_of(detail, &w);
            w.steps = 1;
            account[step] = w;
        } else if (!strcmp(kind, "rewind")) {
            for (int64_t i = step < 0 ? 1 : step + 1; i <= highest; i++) {
                if (account[i].steps) add_measured(&a->repeated, &account[i]);
                account[i] = (Work){0};
            }
        } else if (!strcmp(kind, "repeated") && !strcmp(json_string_value(json_object_get(detail, "work")) ?: "", "step")) {
            w = (Work){.steps = 1, .prompt_tokens = count_of(detail, "prompt_tokens"), .new_tokens = count_of(detail, "new_tokens"),
                       .trained_tokens = count_of(detail, "trained_tokens"), .flops = number_of(detail, "flops")};
            add_work(&a->repeated, &w), add_work(&a->repeated_steps, &w);
        } else if (!strcmp(kind, "repeated")) {
            add_repeated_evaluation(a, json_object_get(detail, "replayable"));
        } else if (!strcmp(kind, "evaluation")) {
            if (!is_bare_record(detail)) evaluation_of(NULL, json_object_get(detail, "measured"), &w);
            w.steps = 0;
            add_work(&a->evaluations, &w);
            note_parts(a, NULL, json_object_get(detail, "measured"));
            if (json_is_true(json_object_get(detail, "again")))
                ok = add_again(l, step, json_string_value(json_object_get(detail, "name")), a, err);
        } else if (!strcmp(kind, "probe")) {
            measured_of(detail, &w);
            w.rollout = w.seconds, w.reward = w.train = w.optimizer = 0;
            w.prompt_tokens = count_of(detail, "prompt_tokens"), w.new_tokens = count_of(detail, "new_tokens"), w.flops = number_of(detail, "flops");
            add_work(&a->evaluations, &w);
        } else if (!strcmp(kind, "resume")) {
            a->continued++;
        } else {
            note_session(a, kind, detail);
        }
        json_decref(detail);
    }
    sqlite3_finalize(s);
    for (int64_t i = 1; ok && i <= highest; i++) {
        int stage;
        if (!account[i].steps) continue;
        ok = stage_of(l, i, &stage, err);
        if (ok && stage >= 0) add_measured(&a->stage[stage], &account[i]);
    }
    free(account);
    return ok;
}

// Answers of endpoints are paid once, whatever became of their steps. A request that failed gave no tokens.
static bool sum_answers(const Ledger *l, Account *a, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT detail FROM events WHERE kind = '" ANSWER_EVENT "'", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *detail = column_object(s, 0);
        double stage = number_of(detail, "stage");
        if (stage >= 0 && stage < MAX_STAGES && !json_object_get(detail, "error"))
            add_work(&a->stage[(int)stage], &(Work){.answers = 1, .tokens_in = number_of(detail, "prompt_tokens"), .tokens_out = number_of(detail, "new_tokens")});
        json_decref(detail);
    }
    sqlite3_finalize(s);
    return ok;
}

static bool sum_evaluations(const Ledger *l, Account *a, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(l, "SELECT replayable FROM evaluations", 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        json_t *replayable = column_object(s, 0);
        Work w = {0};
        evaluation_of(replayable, NULL, &w);
        w.seconds = w.rollout = w.cpu = w.joules = w.device_joules = 0; // in its event
        add_work(&a->evaluations, &w);
        note_parts(a, json_object_get(replayable, "work"), NULL);
        json_decref(replayable);
    }
    sqlite3_finalize(s);
    return ok;
}

// ---- figures ---------------------------------------------------------------------------------------------
json_t *figure(double value, const char *source, const char *otherwise) {
    bool known = isfinite(value);
    return json_pack("{s:o, s:s}", "value", known ? json_real(value) : json_string(otherwise), "source", known ? source : "none");
}
static json_t *count_figure(int64_t value) {
    return json_pack("{s:I, s:s}", "value", (json_int_t)value, "source", "measured");
}

// Of endpoints: 0 where none was asked.
static double answers_money(const Work *w, const Stated *stated) {
    if (w->answers == 0) return 0;
    if (stated->million_in == 0 && stated->million_out == 0) return NAN;
    double in = stated->million_in > 0 ? stated->million_in * w->tokens_in : 0, out = stated->million_out > 0 ? stated->million_out * w->tokens_out : 0;
    return (in + out) / 1e6;
}
static void put_answers(json_t *j, const Work *w, const Stated *stated) {
    bool priced = stated->million_in > 0 || stated->million_out > 0;
    if (w->answers == 0) return;
    json_object_set_new(j, "endpoint_answers", count_figure(w->answers));
    json_object_set_new(j, "endpoint_tokens_in", figure(w->tokens_in, "measured", "not known"));
    json_object_set_new(j, "endpoint_tokens_out", figure(w->tokens_out, "measured", "not known"));
    json_object_set_new(j, "endpoint_money", figure(answers_money(w, stated), "stated", priced ? "not known" : "not stated"));
}

static json_t *work_json(const Work *w, const Stated *stated) {
    json_t *j = json_object();
    json_object_set_new(j, "steps", count_figure(w->steps));
    json_object_set_new(j, "prompt_tokens", count_figure(w->prompt_tokens));
    json_object_set_new(j, "new_tokens", count_figure(w->new_tokens));
    json_object_set_new(j, "trained_tokens", count_figure(w->trained_tokens));
    json_object_set_new(j, "flops", figure(w->flops, "computed", "not known"));
    json_object_set_new(j, "seconds", figure(w->seconds, "measured", "not measured"));
    json_object_set_new(j, "rollout_seconds", figure(w->rollout, "measured", "not measured"));
    json_object_set_new(j, "reward_seconds", figure(w->reward, "measured", "not measured"));
    json_object_set_new(j, "train_seconds", figure(w->train, "measured", "not measured"));
    json_object_set_new(j, "optimizer_seconds", figure(w->optimizer, "measured", "not measured"));
    json_object_set_new(j, "cpu_seconds", figure(w->cpu, "measured", "not measured"));
    // A meter first; else the watts that the recipe states, times the seconds; else nothing is claimed.
    bool metered = isfinite(w->joules);
    double joules = metered ? w->joules : stated->watts > 0 ? stated->watts * w->seconds : NAN, kwh = joules / 3.6e6;
    json_object_set_new(j, "joules", figure(joules, metered ? "measured" : "stated", "not measured"));
    // Of the device alone, where it has a meter of its own: it can be known where the processors' part isn't.
    if (w->steps && isfinite(w->device_joules)) json_object_set_new(j, "device_joules", figure(w->device_joules, "measured", ""));
    bool priced = stated->price_per_hour > 0 || stated->price_per_kwh > 0;
    double money = stated->price_per_hour * w->seconds / 3600 + (stated->price_per_kwh > 0 ? stated->price_per_kwh * kwh : 0);
    if (w->answers > 0) money = (priced ? money : 0) + answers_money(w, stated), priced |= stated->million_in > 0 || stated->million_out > 0; // half a bill is none
    put_answers(j, w, stated);
    json_object_set_new(j, "money", figure(priced ? money : NAN, "stated", priced ? "not known" : "not stated"));
    bool factor = stated->co2_per_kwh > 0;
    json_object_set_new(j, "co2_grams", figure(factor ? stated->co2_per_kwh * kwh : NAN, "stated", factor ? "not known" : "not stated"));
    return j;
}

static bool share(const Ledger *l, json_t *to, const char *name, const char *sql, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    bool ok = ledger_query(l, sql, 0, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok) json_object_set_new(to, name, figure(more ? column_real(s, 0) : NAN, "measured", "not known"));
    sqlite3_finalize(s);
    return ok;
}

static bool waste_json(const Ledger *l, const Account *a, json_t *waste, Err *err) {
    json_object_set_new(waste, "repeated_flops", figure(a->total.flops > 0 ? a->repeated.flops / a->total.flops : NAN, "computed", "not known"));
    return share(l, waste, "groups_without_variance", "SELECT 1.0 * sum(groups_without_variance) / sum(group_count) FROM steps", err) &&
           share(l, waste, "truncated_samples", "SELECT avg(finish = 'length') FROM samples", err) &&
           share(l, waste, "unscored_samples", "SELECT avg(verdict <> 'scored') FROM samples", err) &&
           share(l, waste, "untrained_tokens",
                 "SELECT 1.0 * sum(tokens) FILTER (WHERE NOT active OR NOT has_variance) / sum(tokens) FROM samples JOIN prompts USING "
                 "(step, prompt) JOIN steps USING (step) WHERE steps.kind = 'grpo'", err);
}

static void name_stage(json_t *stage, const Stated *stated, int index, const char *kind) {
    const json_t *entry = json_array_get(json_object_get(stated->recipe, "stages"), (size_t)index);
    const char *name = json_string_value(json_object_get(entry, "name"));
    json_object_set_new(stage, "name", json_string(name && name[0] ? name : kind[0] ? kind : "stage"));
    json_object_set_new(stage, "kind", json_string(kind));
    const StageRow *row = stage_row_named(kind);
    json_object_set_new(stage, "purpose", json_string(row && row->makes_data ? "data generation" : "training"));
}

// ---- the check -------------------------------------------------------------------------------------------
static bool sum_of(json_t *sums, const char *what, double parts, double whole) {
    bool both = isfinite(parts) && isfinite(whole), ok = both ? fabs(parts - whole) <= 1e-6 * fmax(fabs(whole), 1e-3) : isnan(parts) == isnan(whole);
    json_array_append_new(sums, json_pack("{s:s,s:o,s:o,s:b}", "what", what, "parts", json_number_or_name(parts), "whole", json_number_or_name(whole), "ok", (int)ok));
    return ok;
}
static bool check_answers(const Ledger *l, const Account *a, json_t *sums, bool *same, Err *err) {
    double parts = 0;
    int64_t whole;
    for (int i = 0; i < MAX_STAGES; i++) parts += (double)a->stage[i].answers;
    TRY(ledger_integer(l, "SELECT count(*) FROM events WHERE kind = '" ANSWER_EVENT "' AND json_extract(detail, '$.error') IS NULL", 0, 0, &whole, err));
    if (whole || parts > 0) *same &= sum_of(sums, "answers of endpoints", parts, (double)whole);
    return true;
}
// The parts as they are shown against all that is on the ledger, counted without regard to stages, rewinds and repeats.
static bool check_sums(const Ledger *l, const Account *a, json_t **out, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    Work steps = a->repeated_steps, whole = {0};
    for (int i = 0; i < a->stages; i++) add_work(&steps, &a->stage[i]);
    static const char sql[] = "SELECT sum(new_tokens), sum(trained_tokens), sum(flops) FROM (SELECT new_tokens, trained_tokens, flops FROM steps UNION ALL "
                              "SELECT json_extract(detail, '$.new_tokens'), json_extract(detail, '$.trained_tokens'), json_extract(detail, '$.flops') FROM events "
                              "WHERE kind = 'repeated' AND json_valid(detail) AND json_extract(detail, '$.work') = 'step')";
    bool ok = ledger_query(l, sql, 0, 0, &s, err) && ledger_next(l, s, &more, err);
    if (ok && more) whole.new_tokens = column_int(s, 0), whole.trained_tokens = column_int(s, 1), whole.flops = sqlite3_column_type(s, 2) == SQLITE_NULL ? 0 : column_real(s, 2);
    sqlite3_finalize(s);
    json_t *sums = json_array();
    bool same = sum_of(sums, "steps", (double)steps.steps, (double)a->whole.steps);
    same &= sum_of(sums, "new tokens of steps", (double)steps.new_tokens, (double)whole.new_tokens);
    same &= sum_of(sums, "trained tokens", (double)steps.trained_tokens, (double)whole.trained_tokens);
    same &= sum_of(sums, "FLOPs of steps", steps.flops, whole.flops);
    ok = ok && check_answers(l, a, sums, &same, err);
    same &= sum_of(sums, "seconds", a->total.seconds, a->whole.seconds);
    same &= sum_of(sums, "joules", a->total.joules, a->whole.joules);
    if (a->comparisons.count) {
        same &= sum_of(sums, "FLOPs of comparisons", a->comparisons.flops, a->comparisons.whole_flops);
        same &= sum_of(sums, "seconds of comparisons", a->comparisons.seconds, a->comparisons.whole_seconds);
        same &= sum_of(sums, "joules of comparisons", a->comparisons.joules, a->comparisons.whole_joules);
    }
    *out = json_pack("{s:b,s:o}", "ok", (int)same, "sums", sums);
    return ok;
}

// Sessions by the wall clock, up to their end where they have one; work that other commands did later is no session's.
static bool clock_json(const Ledger *l, const Account *a, json_t **out, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    static const char sql[] =
        "SELECT sum(span) FROM (SELECT (julianday(max(at)) - julianday(min(at))) * 86400.0 AS span FROM (SELECT at, kind, 2 * sum(kind = 'machine') OVER (ORDER BY "
        "seq) + coalesce(sum(kind = 'end') OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS session FROM events) GROUP BY session "
        "HAVING max(kind = 'machine'))";
    bool ok = ledger_query(l, sql, 0, 0, &s, err) && ledger_next(l, s, &more, err);
    double seconds = ok && more ? column_real(s, 0) : NAN, outside = seconds - a->total.seconds;
    sqlite3_finalize(s);
    if (ok) *out = json_pack("{s:o,s:o}", "seconds", figure(seconds, "measured", "not known"), "outside", figure(outside >= 0 ? outside : NAN, "measured", "not known"));
    return ok;
}

static json_t *devices_json(const Account *a) {
    json_t *out = json_array();
    for (int i = 0; i < a->devices; i++) {
        json_t *name = json_string(a->device[i]), *seconds = figure(a->device_seconds[i], "measured", "not measured");
        json_array_append_new(out, json_pack("{s:o,s:o,s:o}", "device", name ? name : json_string("not known"), "seconds", seconds, "hours",
                                             figure(a->device_seconds[i] / 3600, "measured", "not measured")));
    }
    return out;
}

static bool cost_read(const Ledger *l, const char *run_folder, const Stated *stated, json_t **out, Err *err) {
    Account *a = xcalloc(1, sizeof *a);
    bool ok = sum_steps(l, a, err) && sum_events(l, a, err) && sum_answers(l, a, err) && sum_evaluations(l, a, err);
    json_t *stages = json_array(), *waste = json_object();
    for (int i = 0; ok && i < a->stages; i++) {
        json_t *stage = work_json(&a->stage[i], stated);
        name_stage(stage, stated, i, a->kind[i]);
        json_array_append_new(stages, stage);
        add_work(&a->total, &a->stage[i]);
    }
    int64_t evaluations = a->evaluations.steps;
    a->evaluations.cpu = 0; // an evaluation's CPU time isn't told apart; the total is of the steps
    a->evaluations.steps = 0;
    add_work(&a->total, &a->evaluations);
    add_work(&a->total, &a->repeated);
    a->evaluations.steps = evaluations;
    a->evaluations.reward = a->evaluations.cpu = NAN; // inside its seconds, not told apart
    a->evaluations.train = a->evaluations.optimizer = 0;
    json_t *check = NULL, *wasted = NULL, *clock = NULL;
    ok = ok && waste_json(l, a, waste, err) && check_sums(l, a, &check, err) && clock_json(l, a, &clock, err) && wasted_flops(l, run_folder, a->repeated.flops, a->total.flops, &wasted, err);
    *out = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "currency", stated->currency ? json_string(stated->currency) : json_null(),
                     "stages", stages, "evaluations", work_json(&a->evaluations, stated), "repeated", work_json(&a->repeated, stated),
                     "total", work_json(&a->total, stated), "waste", waste, "cut_off", count_figure(a->continued));
    if (check) json_object_set_new(*out, "check", check);
    if (clock) json_object_set_new(*out, "clock", clock);
    if (wasted) json_object_set_new(*out, "wasted_flops", wasted);
    json_object_set_new(*out, "devices", devices_json(a));
    json_object_set_new(*out, "state", json_pack("{s:s,s:O?,s:I}", "how", a->sessions ? a->how : "not ended", "why", a->why, "sessions", (json_int_t)a->sessions));
    json_decref(a->why);
    free(a);
    if (ok) return true;
    json_decref(*out);
    *out = NULL;
    return false;
}

bool cost_run_at(const char *run_folder, int depth, json_t **out, Err *err) {
    Ledger *l;
    Stated stated;
    *out = NULL;
    TRY(ledger_open_read(run_folder, &l, err));
    read_stated(run_folder, &stated);
    bool ok = ledger_freeze(l, err) && cost_read(l, run_folder, &stated, out, err);
    if (ok) json_object_set_new(*out, "base_model", base_model(stated.recipe, depth));
    json_decref(stated.recipe);
    ledger_close(l);
    return ok;
}
bool cost_run(const char *run_folder, json_t **out, Err *err) { return cost_run_at(run_folder, 0, out, err); }
