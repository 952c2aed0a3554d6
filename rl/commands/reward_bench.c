// reward bench: how many scores a second a script gives, process boundary included, in batches of 64 as in training, what
// the boundary adds to a batch, and the processor time of a score on both sides; and sample by sample the fuel and the time
// that it takes, with the slowest cases by name.
#include "reward_command.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, SLOWEST = 3, MOST_BATCHES = 1 << 16 };

typedef struct Timing {
    int index; // of the case
    double seconds;
    double fuel;
} Timing;

static int by_seconds(const void *a, const void *b) {
    double x = ((const Timing *)a)->seconds, y = ((const Timing *)b)->seconds;
    return (x > y) - (x < y);
}
static int by_fuel(const void *a, const void *b) {
    double x = ((const Timing *)a)->fuel, y = ((const Timing *)b)->fuel;
    return (x > y) - (x < y);
}

typedef struct Batches {
    double per_second;                     // scores
    double half, most;                     // seconds of a batch there and back: the median, and 99 of 100
    double added;                          // seconds of a batch in which no worker scored, on average
    double trainer_cpu, worker_cpu;        // processor seconds a score, on either side
} Batches;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Batches one after the other, over at least `duration`.
static bool measure_batches(RewardPool *pool, Cases *c, double duration, Batches *out, Err *err) {
    Verdict verdicts[BATCH];
    static double seconds[MOST_BATCHES]; // of each, the last ones replacing the first
    int64_t batches = 0, next = 0;
    RewardCounts before, after;
    reward_pool_counts(pool, &before);
    double cpu = clock_cpu_seconds(), start = clock_seconds(), now = start;
    for (; now - start < duration; batches++) {
        double began = now;
        for (int i = 0; i < BATCH; i++) {
            RewardSample s = c->list[next++ % c->count].sample;
            s.group = (int32_t)(BATCH * batches + i) & 0x3fffffff; // alone, whatever the case says
            TRY(reward_pool_submit(pool, &s, &verdicts[i], err));
        }
        TRY(reward_pool_finish(pool, err));
        now = clock_seconds();
        seconds[batches % MOST_BATCHES] = now - began;
    }
    double scored = (double)(BATCH * batches);
    size_t count = batches < MOST_BATCHES ? (size_t)batches : MOST_BATCHES;
    reward_pool_counts(pool, &after);
    qsort(seconds, count, sizeof *seconds, by_value);
    *out = (Batches){.per_second = scored / (now - start), .half = seconds[count / 2], .most = seconds[count * 99 / 100],
                     .added = ((now - start) - (after.busy - before.busy) / after.workers) / (double)batches,
                     .trainer_cpu = (clock_cpu_seconds() - cpu) / scored, .worker_cpu = (after.cpu - before.cpu) / scored};
    return true;
}

// Each case once alone (the best of three), there and back.
static bool measure_each(RewardPool *pool, Cases *c, Timing *timings, Err *err) { // timings [c->count]
    for (int i = 0; i < c->count; i++) {
        timings[i] = (Timing){.index = i, .seconds = 1e9};
        for (int k = 0; k < 3; k++) {
            double start = clock_seconds();
            TRY(reward_pool_submit(pool, &c->list[i].sample, &c->list[i].verdict, err));
            TRY(reward_pool_finish(pool, err));
            double seconds = clock_seconds() - start;
            if (seconds < timings[i].seconds) timings[i].seconds = seconds;
        }
        timings[i].fuel = (double)c->list[i].verdict.fuel;
    }
    return true;
}

static json_t *percentiles(Timing *t, int count, int (*compare)(const void *, const void *), bool seconds) {
    static const int at[] = {50, 90, 99, 100};
    json_t *out = json_object();
    qsort(t, (size_t)count, sizeof *t, compare);
    for (int i = 0; i < COUNT(at); i++) {
        char name[8];
        const Timing *p = &t[(int64_t)(count - 1) * at[i] / 100];
        snprintf(name, sizeof name, "p%d", at[i]);
        json_object_set_new(out, name, json_real(seconds ? p->seconds : p->fuel));
    }
    return out;
}
static double at(const json_t *o, const char *key) { return json_real_value(json_object_get(o, key)); }

static bool report(const Cases *c, Timing *timings, const Batches *b, bool as_json, Err *err) {
    json_t *fuel = percentiles(timings, c->count, by_fuel, false), *seconds = percentiles(timings, c->count, by_seconds, true), *slowest = json_array();
    for (int i = c->count - 1; i >= 0 && i >= c->count - SLOWEST; i--) {
        const Case *k = &c->list[timings[i].index];
        const char *name = json_string_value(json_object_get(k->row, "name"));
        json_array_append_new(slowest, json_pack("{s:s, s:f, s:f, s:s}", "case", name ? name : k->id, "seconds", timings[i].seconds, "fuel",
                                                 timings[i].fuel, "verdict", verdict_state_names[k->verdict.state]));
    }
    json_t *batch = json_pack("{s:i, s:f, s:f, s:f}", "samples", BATCH, "p50", b->half, "p99", b->most, "added", b->added);
    json_t *cpu = json_pack("{s:f, s:f}", "trainer", b->trainer_cpu, "workers", b->worker_cpu);
    json_t *out = json_pack("{s:f, s:o, s:o, s:i, s:o, s:o, s:o}", "scores_per_second", b->per_second, "batch_seconds", batch, "cpu_seconds", cpu, "cases", c->count, "fuel", fuel, "seconds", seconds, "slowest", slowest);
    bool ok = true;
    if (as_json) {
        ok = print_json(out, err);
    } else {
        printf("%.0f scores a second, in batches of %d\n", b->per_second, BATCH);
        printf("a batch:           half within %.3f ms, 99 of 100 within %.3f ms, of which %.3f ms nobody scored\n", 1e3 * b->half, 1e3 * b->most, 1e3 * b->added);
        printf("processor time:    %.2f us a score in the workers, %.2f us in the process that asks\n", 1e6 * b->worker_cpu, 1e6 * b->trainer_cpu);
        printf("fuel of a sample:  half below %.0f, 99 of 100 below %.0f, at most %.0f\n", at(fuel, "p50"), at(fuel, "p99"), at(fuel, "p100"));
        printf("there and back:    half below %.1f us, 99 of 100 below %.1f us, at most %.1f us\n", 1e6 * at(seconds, "p50"), 1e6 * at(seconds, "p99"), 1e6 * at(seconds, "p100"));
        for (size_t i = 0; i < json_array_size(slowest); i++) {
            const json_t *s = json_array_get(slowest, i);
            char name[100];
            printf("slow: %-30s %8.1f us, fuel %.0f, %s\n", visible(json_string_value(json_object_get(s, "case")), name, sizeof name), 1e6 * at(s, "seconds"),
                   at(s, "fuel"), json_string_value(json_object_get(s, "verdict")));
        }
    }
    json_decref(out);
    return ok;
}

bool reward_bench(const Args *args, Err *err) {
    Cases cases = {0};
    RewardSpec spec;
    RewardLimits limits;
    RewardPool *pool = NULL;
    json_t *options = NULL;
    const char *path = args_text(args, "cases", NULL);
    if (!path) return fail(err, ERR_USAGE, "reward bench", "--cases FILE.jsonl is needed");
    bool ok = reward_arguments(args, &spec, &limits, &options, err) && cases_read(path, &cases, err);
    if (ok && cases.count == 0) ok = fail(err, ERR_DATA, path, "no cases");
    if (ok) {
        Batches batches = {0};
        Timing *timings = xcalloc((size_t)cases.count, sizeof *timings);
        for (int i = 0; i < cases.count; i++) cases.list[i].sample.id = cases.list[i].id;
        ok = reward_pool_open(&spec, 1, (int)args_int(args, "workers", 1), &limits, &pool, err);
        if (ok && reward_pool_environment(pool)) ok = fail(err, ERR_DATA, spec.script, "is an environment, whose episodes take as long as the model: expected a script that scores");
        ok = ok && measure_each(pool, &cases, timings, err) && measure_batches(pool, &cases, args_number(args, "duration", 2), &batches, err);
        reward_pool_close(pool);
        ok = ok && report(&cases, timings, &batches, args_flag(args, "json"), err);
        free(timings);
    }
    cases_free(&cases);
    json_decref(options);
    return ok;
}
