// The cost of a run and of a campaign as tables on stdout.
#include "cost_parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static double known_number(const json_t *f) {
    const json_t *v = json_object_get(f, "value");
    return json_is_number(v) ? json_number_value(v) : NAN;
}
static void print_figure(const json_t *work, const char *key, int width) {
    const json_t *f = json_object_get(work, key), *value = json_object_get(f, "value");
    const char *source = json_string_value(json_object_get(f, "source"));
    char text[40];
    if (!json_is_number(value)) snprintf(text, sizeof text, "%s", json_is_string(value) ? json_string_value(value) : "");
    else snprintf(text, sizeof text, "%.*g%s", json_number_value(value) >= 1e4 ? 4 : 5, json_number_value(value),
                  source && !strcmp(source, "stated") ? "*" : "");
    if (json_is_integer(value)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    printf(" %*s", width, text);
}
// `unit`: a currency of its own, where rows have several; NULL: the head's.
static void print_work_in(const char *name, const json_t *work, const char *unit) {
    static const struct {
        const char *key;
        int width;
    } columns[] = {{"steps", 7}, {"new_tokens", 12}, {"trained_tokens", 14}, {"flops", 11}, {"seconds", 10}, {"joules", 13}, {"money", 11}};
    char tame[64];
    if (json_object_size(work) == 0) return; // no run has such a part
    snprintf(tame, sizeof tame, "%s", name ? name : "");
    text_tame(tame);
    printf("%-16.16s", tame);
    for (int i = 0; i < COUNT(columns); i++) print_figure(work, columns[i].key, columns[i].width);
    snprintf(tame, sizeof tame, "%s%s", unit ? " " : "", unit ? unit : "");
    text_tame(tame);
    printf("%s\n", tame);
}
static void print_work(const char *name, const json_t *work) { print_work_in(name, work, NULL); }

static void print_head(const json_t *cost) {
    const char *currency = json_string_value(json_object_get(cost, "currency"));
    char money[16];
    snprintf(money, sizeof money, "%s", currency ? currency : "money");
    text_tame(money);
    printf("%-16s %7s %12s %14s %11s %10s %13s %11s\n", "", "steps", "new tokens", "trained tokens", "FLOPs", "seconds", "joules", money);
}

// ---- below the table -------------------------------------------------------------------------------------
static void print_tame(const char *format, const char *text) {
    char tame[400];
    snprintf(tame, sizeof tame, "%s", text ? text : "");
    text_tame(tame);
    printf(format, tame);
}
static void print_named(const char *name, const json_t *f, const char *unit) {
    const json_t *value = json_object_get(f, "value"), *least = json_object_get(f, "at_least");
    const char *source = json_string_value(json_object_get(f, "source")), *word = json_string_value(value);
    printf("%-30s ", name);
    if (json_is_number(value)) printf("%.5g %s (%s)\n", json_number_value(value), unit, source ? source : "");
    else if (json_is_number(least)) printf("%s; at least %.5g %s\n", word ? word : "not known", json_number_value(least), unit);
    else printf("%s\n", word ? word : "not known");
}

static void print_base(const json_t *base) {
    const char *source = json_string_value(json_object_get(base, "source"));
    if (!json_is_object(base)) return;
    print_tame("\nbase model %s: ", json_string_value(json_object_get(base, "path")));
    const json_t *total = json_object_get(base, "total");
    if (total) {
        printf("from its run's ledger\n");
        print_named("  FLOPs", json_object_get(total, "flops"), "");
        print_named("  seconds", json_object_get(total, "seconds"), "s");
        print_base(json_object_get(base, "base_model"));
        return;
    }
    printf("%s\n", source && !strcmp(source, "card") ? "from its card" : "it has no card: what it cost is not known");
    print_named("  hours", json_object_get(base, "hours"), "h");
    print_named("  FLOPs", json_object_get(base, "flops"), "");
    print_named("  CO2", json_object_get(base, "co2_grams"), "g");
}

static void print_check(const json_t *check) {
    const json_t *sums = json_object_get(check, "failed") ? json_object_get(check, "failed") : json_object_get(check, "sums");
    size_t i;
    json_t *sum;
    if (json_is_true(json_object_get(check, "ok"))) {
        printf("\nThe parts add up to what the ledger holds in all.\n");
        return;
    }
    json_array_foreach(sums, i, sum) {
        if (json_is_true(json_object_get(sum, "ok"))) continue;
        print_tame("\nERROR: %s", json_string_value(json_object_get(sum, "what")));
        print_tame(" %s", json_string_value(json_object_get(sum, "path")));
        printf(": the parts come to %.10g, the whole is %.10g\n", json_number_value(json_object_get(sum, "parts")), json_number_value(json_object_get(sum, "whole")));
    }
}

// `total_of`: the document whose total, wasted FLOPs, devices and check these are.
static void print_more(const json_t *cost, const json_t *total_of) {
    static const struct {
        const char *key, *words;
    } rows[] = {{"repeated", "  repeated work"}, {"groups_without_variance", "  groups without variance"}, {"truncated_samples", "  samples cut off"},
                {"unscored_samples", "  samples without a score"}, {"all", "  all of it"}};
    const json_t *total = json_object_get(total_of, "total"), *wasted = json_object_get(cost, "wasted_flops");
    size_t i;
    json_t *device;
    printf("\nFLOPs without effect:\n");
    for (int k = 0; k < COUNT(rows); k++) print_named(rows[k].words, json_object_get(wasted, rows[k].key), "");
    printf("\n");
    json_array_foreach(json_object_get(cost, "devices"), i, device) {
        print_tame("%-30s ", json_string_value(json_object_get(device, "device")));
        printf("%.4g h\n", known_number(json_object_get(device, "seconds")) / 3600);
    }
    print_named("by the clock", json_object_get(json_object_get(cost, "clock"), "seconds"), "s");
    print_named("  outside steps, evaluations", json_object_get(json_object_get(cost, "clock"), "outside"), "s");
    if (json_object_get(total, "endpoint_answers")) {
        print_named("answers of endpoints", json_object_get(total, "endpoint_answers"), "");
        print_named("  tokens in", json_object_get(total, "endpoint_tokens_in"), "");
        print_named("  tokens out", json_object_get(total, "endpoint_tokens_out"), "");
        print_named("  money", json_object_get(total, "endpoint_money"), "");
    }
    print_named("energy", json_object_get(total, "joules"), "J");
    print_named("money", json_object_get(total, "money"), "");
    print_named("CO2", json_object_get(total, "co2_grams"), "g");
}

void cost_print(const json_t *cost) {
    size_t i;
    json_t *stage, *value;
    const char *key;
    print_head(cost);
    json_array_foreach(json_object_get(cost, "stages"), i, stage) print_work(json_string_value(json_object_get(stage, "name")), stage);
    print_work("evaluations", json_object_get(cost, "evaluations"));
    print_work("repeated work", json_object_get(cost, "repeated"));
    print_work("total", json_object_get(cost, "total"));
    printf("\n");
    json_object_foreach(json_object_get(cost, "waste"), key, value) {
        const json_t *x = json_object_get(value, "value");
        char name[40];
        snprintf(name, sizeof name, "%s", key);
        for (char *c = name; *c; c++) *c = *c == '_' ? ' ' : *c;
        if (json_is_number(x)) printf("%-26s %5.1f %%\n", name, 100 * json_number_value(x));
        else printf("%-26s not known\n", name);
    }
    print_more(cost, cost);
    print_base(json_object_get(cost, "base_model"));
    const json_t *state = json_object_get(cost, "state");
    print_tame("\nThis run: %s", json_string_value(json_object_get(state, "how")));
    printf(", in %lld session%s.\n", (long long)json_integer_value(json_object_get(state, "sessions")), json_integer_value(json_object_get(state, "sessions")) == 1 ? "" : "s");
    print_check(json_object_get(cost, "check"));
    printf("Tokens are counted, seconds are from the clock, FLOPs from shapes; * is from what the recipe states.\n");
}

void campaign_print(const json_t *cost) {
    size_t i;
    json_t *run, *base;
    const char *state;
    json_t *count;
    print_head(cost);
    json_array_foreach(json_object_get(cost, "runs"), i, run) {
        const char *path = json_string_value(json_object_get(run, "path")), *slash = path ? strrchr(path, '/') : NULL;
        bool own = !json_is_string(json_object_get(cost, "currency"));
        print_work_in(slash ? slash + 1 : path, json_object_get(run, "total"), own ? json_string_value(json_object_get(run, "currency")) : NULL);
    }
    printf("\n");
    print_work("training", json_object_get(cost, "training"));
    print_work("data generation", json_object_get(cost, "data_generation"));
    print_work("evaluations", json_object_get(cost, "evaluations"));
    print_work("repeated work", json_object_get(cost, "repeated"));
    print_work("total", json_object_get(cost, "total"));
    print_work("  of abandoned", json_object_get(cost, "abandoned"));
    printf("\n%zu run%s:", json_array_size(json_object_get(cost, "runs")), json_array_size(json_object_get(cost, "runs")) == 1 ? "" : "s");
    json_object_foreach(json_object_get(cost, "states"), state, count) printf(" %lld %s;", (long long)json_integer_value(count), state);
    printf("\n");
    print_more(cost, cost);
    json_array_foreach(json_object_get(cost, "inherited"), i, base) print_base(base);
    json_array_foreach(json_object_get(cost, "unreadable"), i, run) {
        print_tame("\nERROR: %s can't be read: ", json_string_value(json_object_get(run, "path")));
        print_tame("%s\n", json_string_value(json_object_get(run, "why")));
    }
    if (json_array_size(json_object_get(cost, "runs"))) print_check(json_object_get(cost, "check"));
    printf("Tokens are counted, seconds are from the clock, FLOPs from shapes; * is from what the recipes state. What left no ledger isn't here.\n");
}
