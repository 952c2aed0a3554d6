// The comparison for a person: one aligned table, the verdict of each level in words, what GRPO added. Plain text that
// reads the same in a terminal, a file or a mail.
#include "rl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}
static const char *text(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static const char *flops_text(double flops, char out[32]) {
    static const char *const units[] = {"", " K", " M", " G", " T", " P"};
    int unit = 0;
    while (flops >= 1000 && unit < COUNT(units) - 1) flops /= 1000, unit++;
    snprintf(out, 32, "%.3g%s", flops, units[unit]);
    return out;
}

// "0.012 EUR", "not stated", or "none correct" where the division has no answer.
static const char *cost_text(const json_t *cost, const char *key, const char *unit, char out[48]) {
    const json_t *value = json_object_get(cost, key);
    if (json_is_number(value)) snprintf(out, 48, "%.3g %s", json_number_value(value), unit);
    else snprintf(out, 48, "%s", !strcmp(text(cost, key), "inf") ? "none correct" : "not stated");
    return out;
}

static void print_row(const char *task, const char *mode, const json_t *result, const json_t *cost, const char *currency) {
    char accuracy[48], flops[32], price[48], energy[48];
    snprintf(accuracy, sizeof accuracy, "%5.1f %% (%.1f to %.1f)", 100 * number(result, "accuracy"), 100 * number(result, "low"),
             100 * number(result, "high"));
    printf("%-22s %-7s %5.0f  %-24s %7.1f %9s %10.2g  %-16s %s\n", task, mode, number(result, "items"), accuracy,
           number(result, "tokens"), flops_text(number(result, "flops"), flops), number(cost, "seconds_per_item"),
           cost_text(cost, "cost_per_correct", currency, price), cost_text(cost, "joules_per_correct", "J", energy));
}

static void level_name(const json_t *level, char out[64]) {
    snprintf(out, 64, "%.40s %lld%s", text(level, "kind"), (long long)json_integer_value(json_object_get(level, "level")),
             json_is_true(json_object_get(level, "hard")) ? " (hard)" : "");
}

static void print_modes(const json_t *replayable, const json_t *measured) {
    const char *currency = text(measured, "currency");
    const json_t *levels = json_object_get(replayable, "levels"), *costs = json_object_get(measured, "levels");
    printf("%-22s %-7s %5s  %-24s %7s %9s %10s  %-16s %s\n", "task and level", "mode", "items", "accuracy (95 %)", "tokens",
           "FLOPs", "seconds", "cost / correct", "energy / correct");
    for (size_t i = 0; i <= json_array_size(levels); i++) {
        bool pooled = i == json_array_size(levels);
        const json_t *level = pooled ? json_object_get(replayable, "all") : json_array_get(levels, i);
        const json_t *cost = pooled ? json_object_get(measured, "all") : json_array_get(costs, i);
        char name[64] = "all";
        if (!pooled) level_name(level, name);
        print_row(name, "think", json_object_get(level, "think"), json_object_get(cost, "think"), currency);
        print_row("", "direct", json_object_get(level, "direct"), json_object_get(cost, "direct"), currency);
    }
    printf("tokens, FLOPs and seconds are means an item, the prompt's FLOPs included\n");
}

static void print_verdicts(const json_t *levels) {
    size_t i;
    json_t *level;
    printf("\nis thinking worth it?\n");
    json_array_foreach((json_t *)levels, i, level) {
        char name[64];
        level_name(level, name);
        printf("  %-22s %s\n", name, text(level, "sentence"));
    }
    json_array_foreach((json_t *)levels, i, level) for (Mode m = 0; m < MODES; m++) {
        const json_t *mode = json_object_get(level, mode_names[m]);
        if (!(number(mode, "unscored") > 0)) continue;
        char name[64];
        level_name(level, name);
        printf("  note: %.0f of %.0f answers to %s in %s mode got no score; they count as wrong\n", number(mode, "unscored"),
               number(mode, "items"), name, mode_names[m]);
    }
}

static void print_gain(const json_t *replayable) {
    const json_t *gain = json_object_get(replayable, "gain"), *levels = json_object_get(gain, "levels");
    if (!json_is_object(gain)) return;
    size_t i;
    json_t *level;
    printf("\nwhat GRPO added (step %.0f to step %.0f)\n", number(replayable, "before_step"), number(replayable, "step"));
    json_array_foreach((json_t *)levels, i, level) for (Mode m = 0; m < MODES; m++) {
        const json_t *pair = json_object_get(level, mode_names[m]);
        char name[64];
        level_name(level, name);
        printf("  %-22s %-7s %5.1f %% to %5.1f %%  %+6.1f points (95 %%: %+.1f to %+.1f)  p = %.2g\n", m == 0 ? name : "",
               mode_names[m], 100 * number(pair, "b"), 100 * number(pair, "a"), 100 * number(pair, "difference"),
               100 * number(pair, "low"), 100 * number(pair, "high"), number(pair, "p"));
    }
    printf("  %s\n", text(gain, "sentence"));
}

void compare_print(const json_t *comparison) {
    const json_t *replayable = json_object_get(comparison, "replayable"), *measured = json_object_get(comparison, "measured");
    print_modes(replayable, measured);
    print_verdicts(json_object_get(replayable, "levels"));
    print_gain(replayable);
    fflush(stdout);
}
