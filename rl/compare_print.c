// The comparison for a person: one aligned table, the verdict of each pair of arms in words, what GRPO added, what pays. Plain text that
// reads the same in a terminal, a file or a mail.
#include "compare.h"
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
    if (isnan(flops)) snprintf(out, 32, "unknown");
    else snprintf(out, 32, "%.3g%s", flops, units[unit]);
    return out;
}
static const char *tokens_text(double tokens, char out[32]) {
    if (isnan(tokens)) snprintf(out, 32, "unknown");
    else snprintf(out, 32, "%.1f", tokens);
    return out;
}

// "0.012", with its unit where it has one; "not stated", or "none correct" where the division has no answer.
static const char *cost_text(const json_t *cost, const char *key, double scale, const char *unit, const char *unknown, char out[48]) {
    const json_t *value = json_object_get(cost, key);
    if (json_is_number(value)) snprintf(out, 48, "%.3g%.16s", scale * json_number_value(value), unit);
    else snprintf(out, 48, "%s", !strcmp(text(cost, key), "inf") ? "none correct" : unknown);
    return out;
}

typedef struct Layout {
    int name;     // columns of an arm's name
    double scale; // of money: as many correct answers
} Layout;
// Names and prices of all arms fit one table.
static Layout layout_of(const json_t *replayable, const json_t *measured) {
    Layout l = {.name = 14};
    double least = INFINITY, money;
    size_t i;
    json_t *arm;
    json_array_foreach(json_object_get(replayable, "arms"), i, arm) l.name = (int)fmax(l.name, (double)strlen(text(arm, "name")));
    json_array_foreach(json_object_get(measured, "arms"), i, arm)
        if ((money = number(json_object_get(arm, "all"), "money_per_item")) > 0) least = fmin(least, money);
    l.name = l.name > 48 ? 48 : l.name;
    l.scale = isfinite(least) ? money_scale_of(least) : 1;
    return l;
}

static void print_row(const char *task, const char *arm, const json_t *result, const json_t *cost, Layout l) {
    char accuracy[48], flops[32], tokens[32], price[48], energy[48];
    const char *estimated = !strcmp(text(cost, "joules_source"), "estimated") ? " J (estimate)" : " J";
    snprintf(accuracy, sizeof accuracy, "%5.1f %% (%.1f to %.1f)", 100 * number(result, "accuracy"), 100 * number(result, "low"),
             100 * number(result, "high"));
    printf("%-20s %-*s %5.0f  %-24s %7s %8s %8.2g  %-20s %s\n", task, l.name, arm, number(result, "items"), accuracy,
           tokens_text(number(json_object_get(result, "tokens"), "mean"), tokens), flops_text(number(result, "flops"), flops), number(cost, "seconds_per_item"),
           cost_text(cost, "cost_of_pass", l.scale, "", "not stated", price), cost_text(cost, "joules_per_correct", 1, estimated, "not measured", energy));
}

static void level_name(const json_t *level, char out[64]) {
    snprintf(out, 64, "%.40s %lld%s", text(level, "kind"), (long long)json_integer_value(json_object_get(level, "level")),
             json_is_true(json_object_get(level, "hard")) ? " (hard)" : "");
}

static void print_arms(const json_t *replayable, const json_t *measured) {
    const char *currency = text(json_object_get(measured, "prices"), "currency");
    const json_t *levels = json_object_get(replayable, "levels"), *arms = json_object_get(replayable, "arms"), *costs = json_object_get(measured, "arms");
    Layout l = layout_of(replayable, measured);
    char price[40] = "cost of a right one";
    if (*currency) snprintf(price, sizeof price, "%.16s%s right", currency, l.scale == 1 ? " each" : l.scale == 1e3 ? " a thousand" : " a million");
    printf("%-20s %-*s %5s  %-24s %7s %8s %8s  %-20s %s\n", "task and level", l.name, "arm", "items", "accuracy (95 %)", "tokens", "FLOPs", "seconds",
           price, "energy / correct");
    for (size_t i = 0; i <= json_array_size(levels); i++) {
        bool pooled = i == json_array_size(levels);
        char name[64] = "all";
        if (!pooled) level_name(json_array_get(levels, i), name);
        for (size_t a = 0; a < json_array_size(arms); a++) {
            const json_t *arm = json_array_get(arms, a), *cost = json_array_get(costs, a);
            const json_t *result = pooled ? json_object_get(arm, "all") : json_array_get(json_object_get(arm, "levels"), i);
            const json_t *bill = pooled ? json_object_get(cost, "all") : json_array_get(json_object_get(cost, "levels"), i);
            print_row(a ? "" : name, text(arm, "name"), result, bill, l);
        }
    }
    printf("tokens, FLOPs and seconds are means an item, the prompt's FLOPs included; seconds of a batch\n");
}
static void print_latency(const json_t *replayable, const json_t *measured) {
    const json_t *arms = json_object_get(replayable, "arms"), *costs = json_object_get(measured, "arms");
    Layout l = layout_of(replayable, measured);
    bool any = false;
    for (size_t a = 0; a < json_array_size(arms); a++) {
        const json_t *latency = json_object_get(json_object_get(json_array_get(costs, a), "all"), "latency");
        if (!json_is_object(latency)) continue;
        if (!any) printf("\none at a time, on %.0f items: seconds of an answer, median (95th percentile)\n", number(measured, "latency_items"));
        printf("  %-*s  %.2g (%.2g)\n", l.name, text(json_array_get(arms, a), "name"), number(latency, "median"), number(latency, "p95"));
        any = true;
    }
}

static void print_seeds(const json_t *replayable) {
    size_t a, k;
    json_t *arm, *one;
    json_array_foreach(json_object_get(replayable, "arms"), a, arm) {
        const json_t *seeds = json_object_get(json_object_get(arm, "all"), "seeds");
        if (!json_is_object(seeds)) continue;
        printf("seeds of %s:", text(arm, "name"));
        json_array_foreach(json_object_get(seeds, "accuracy"), k, one) printf(" %.1f %%%s", 100 * json_number_value(one), k + 1 < json_array_size(json_object_get(seeds, "accuracy")) ? "," : "");
        printf("; variance between them %.2g, within %.2g; standard error %.2f points\n", number(seeds, "between"), number(seeds, "within"), 100 * number(seeds, "error"));
    }
}

// ---- verdicts ------------------------------------------------------------------------------------------------
// Of the first pair every level, of the others the kinds: the document has all.
static void print_pair(const json_t *replayable, const json_t *pair, const json_t *money, const char *currency, bool in_full) {
    const json_t *levels = json_object_get(replayable, "levels"), *kinds = json_object_get(replayable, "kinds");
    size_t count = json_array_size(levels), of_kinds = json_array_size(kinds);
    for (size_t i = 0; i < count + of_kinds; i++) {
        char name[64];
        bool kind = i >= count;
        if (kind && count == of_kinds) break; // a kind is its only level
        if (!kind && !in_full && count != of_kinds) continue;
        if (kind) snprintf(name, sizeof name, "all %.40s", text(json_array_get(kinds, i - count), "kind"));
        else level_name(json_array_get(levels, i), name);
        const json_t *one = json_array_get(json_object_get(pair, kind ? "kinds" : "levels"), kind ? i - count : i);
        const json_t *price = json_array_get(json_object_get(money, kind ? "kinds" : "levels"), kind ? i - count : i);
        printf("  %-20s %s\n", name, text(one, "sentence"));
        if (*text(price, "sentence")) printf("  %-20s %s\n", "", text(price, "sentence"));
        double error = number(price, "error_price"), scale = money_scale_of(error);
        if (error > 0)
            printf("  %-20s %s pays where %s more than %.3g %s\n", "", text(pair, "a"),
                   scale == 1 ? "a wrong answer costs" : scale == 1e3 ? "a thousand wrong answers cost" : "a million wrong answers cost", scale * error, currency);
    }
}
static void print_verdicts(const json_t *replayable, const json_t *measured) {
    size_t i;
    json_t *pair;
    json_array_foreach(json_object_get(replayable, "pairs"), i, pair) {
        if (!strcmp(text(pair, "what"), "modes") && i == 0) printf("\nis thinking worth it?\n");
        else printf("\n%s against %s\n", text(pair, "a"), text(pair, "b"));
        print_pair(replayable, pair, json_array_get(json_object_get(measured, "pairs"), i), text(json_object_get(measured, "prices"), "currency"), i == 0 || json_array_size(json_object_get(replayable, "pairs")) <= 2);
    }
    const json_t *arms = json_object_get(replayable, "arms");
    for (size_t a = 0; a < json_array_size(arms); a++) {
        const json_t *arm = json_array_get(arms, a), *all = json_object_get(arm, "all");
        if (number(all, "unscored") > 0)
            printf("  note: %.0f answer%s of %s got no score and count%s as wrong\n", number(all, "unscored"), number(all, "unscored") == 1 ? "" : "s", text(arm, "name"),
                   number(all, "unscored") == 1 ? "s" : "");
        bool best = !strcmp(text(arm, "strategy"), "best");
        if (number(all, "abstained") > 0)
            printf("  note: %s had no answer %.0f time%s, as no draw %s; that counts as wrong\n", text(arm, "name"), number(all, "abstained"),
                   number(all, "abstained") == 1 ? "" : "s", best ? "got a score from its script" : "held one");
    }
    json_t *note;
    json_array_foreach(json_object_get(replayable, "notes"), i, note) printf("  note: %s\n", json_string_value(note));
    json_array_foreach(json_object_get(measured, "notes"), i, note) printf("  note: %s\n", json_string_value(note));
}

static void print_router(const json_t *replayable, const json_t *measured) {
    size_t i, k;
    json_t *router, *policy;
    json_array_foreach(json_object_get(replayable, "routers"), i, router) {
        printf("\nthe router of %s, fitted on %.0f items of its own, judged on %.0f\n", text(router, "model"),
               number(json_object_get(router, "items"), "fitted"), number(json_object_get(router, "items"), "judged"));
        json_array_foreach(json_object_get(router, "policies"), k, policy) {
            char flops[32];
            printf("  %-22s %5.1f %% (%.1f to %.1f), %.1f tokens, %s FLOPs, thinks about %.0f %%\n", text(policy, "name"), 100 * number(policy, "accuracy"),
                   100 * number(policy, "low"), 100 * number(policy, "high"), number(policy, "tokens"), flops_text(number(policy, "flops"), flops),
                   100 * number(policy, "thinks"));
        }
        const char *file = text(json_array_get(json_object_get(measured, "routers"), i), "file");
        if (*file) printf("  kept as %s; 'reckon generate --mode auto' uses it\n", file);
    }
}

static void print_gain(const json_t *replayable) {
    const json_t *gain = json_object_get(replayable, "gain"), *levels = json_object_get(gain, "levels");
    if (!json_is_object(gain)) return;
    printf("\nwhat GRPO added (step %.0f to step %.0f)\n", number(replayable, "before_step"), number(replayable, "step"));
    for (size_t i = 0; i < json_array_size(levels); i++)
        for (Mode m = 0; m < MODES; m++) {
            const json_t *pair = json_object_get(json_array_get(levels, i), mode_names[m]);
            char name[64];
            level_name(json_array_get(json_object_get(replayable, "levels"), i), name);
            char points[24], low[24], high[24];
            printf("  %-22s %-7s %5.1f %% to %5.1f %%  %6s points (95 %%: %s to %s)  p = %.2g\n", m == 0 ? name : "", mode_names[m], 100 * number(pair, "b"),
                   100 * number(pair, "a"), points_signed(number(pair, "difference"), points), points_signed(number(pair, "low"), low),
                   points_signed(number(pair, "high"), high), number(pair, "p"));
            const json_t *tokens = json_object_get(pair, "tokens");
            double ratio = number(tokens, "value");
            if (ratio < 0.95 || ratio > 1.05)
                printf("  %-22s %-7s %.2f times the tokens (95 %%: %.2f to %.2f)\n", "", "", ratio, number(tokens, "low"), number(tokens, "high"));
        }
    printf("  %s\n", text(gain, "sentence"));
}
static void print_break_even(const json_t *measured) {
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(measured, "break_even"), i, one) printf("%s  %s\n", i ? "" : "\nhas training paid?\n", text(one, "sentence"));
}

void compare_print(const json_t *comparison) {
    const json_t *replayable = json_object_get(comparison, "replayable"), *measured = json_object_get(comparison, "measured");
    print_arms(replayable, measured);
    print_latency(replayable, measured);
    print_seeds(replayable);
    print_verdicts(replayable, measured);
    print_router(replayable, measured);
    print_gain(replayable);
    print_break_even(measured);
    fflush(stdout);
}
