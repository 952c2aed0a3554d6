// The comparison's arithmetic on made-up evaluations: pairs, verdicts, which levels are hard, costs that aren't known,
// and the printed table.
#include "../test.h"
#include "compare.h"
#include <unistd.h>

enum { LEVELS = 4, ITEMS = 200 };
static const TaskLevel levels[LEVELS] = {{"sums", 1, 5000}, {"sums", 2, 5000}, {"sums", 3, 5000}, {"words", 1, -1}};

// Accuracy by level; item k of a level is correct where k * 7 mod ITEMS lies under it, so that what the weaker mode gets
// right the stronger one does too; at level index 1 each mode has its own favourites.
static Evaluation make(Mode mode, const double accuracy[LEVELS], int tokens) {
    Evaluation e = {.mode = mode, .count = LEVELS * ITEMS};
    e.items = ARENA_NEW(&e.arena, EvaluatedItem, e.count);
    e.level_seconds = ARENA_NEW(&e.arena, double, LEVELS);
    for (int l = 0; l < LEVELS; l++) {
        e.level_seconds[l] = 10 * (l + 1);
        for (int k = 0; k < ITEMS; k++) {
            EvaluatedItem *item = &e.items[l * ITEMS + k];
            *item = (EvaluatedItem){.level_index = l, .correct = (k * 7 + (l == 1 ? 90 * (int)mode : 0)) % ITEMS < accuracy[l] * ITEMS, .tokens = tokens,
                                    .answer_tokens = tokens, .prompt_tokens = 9, .flops = 1e9, .verdict = VERDICT_SCORED};
            item->pass = item->correct;
        }
    }
    return e;
}

typedef struct Setup {
    Evaluation think, direct, think_before, direct_before;
    Comparison c;
    json_t *out, *replayable, *measured;
} Setup;

static void compare(Setup *s, double price, double watts, bool before) {
    static const double think[LEVELS] = {0.99, 0.9, 0.6, 0}, direct[LEVELS] = {1.0, 0.87, 0.1, 0};
    static const double think_was[LEVELS] = {0.98, 0.9, 0.4, 0};
    *s = (Setup){.think = make(MODE_THINK, think, 30), .direct = make(MODE_DIRECT, direct, 5),
               .think_before = make(MODE_THINK, think_was, 30), .direct_before = make(MODE_DIRECT, direct, 5)};
    s->c = (Comparison){.seed = 3, .levels = LEVELS, .level = levels, .step = 90, .before_step = 30, .price_per_hour = price,
                       .watts = watts, .currency = price > 0 ? "EUR" : NULL};
    s->c.after[MODE_THINK] = &s->think, s->c.after[MODE_DIRECT] = &s->direct;
    if (before) s->c.before[MODE_THINK] = &s->think_before, s->c.before[MODE_DIRECT] = &s->direct_before;
    s->out = comparison_json(&s->c);
    CHECK(s->out);
    s->replayable = json_object_get(s->out, "replayable"), s->measured = json_object_get(s->out, "measured");
}
static void end(Setup *s) {
    json_decref(s->out);
    evaluation_free(&s->think), evaluation_free(&s->direct);
    evaluation_free(&s->think_before), evaluation_free(&s->direct_before);
}

static const json_t *at(const json_t *object, const char *path) {
    char name[64];
    while (object && *path) {
        size_t n = strcspn(path, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        object = json_is_array(object) ? json_array_get(object, (size_t)atoi(name)) : json_object_get(object, name);
        path += n + (path[n] == '/');
    }
    return object;
}
static double number_at(const json_t *object, const char *path) {
    const json_t *value = at(object, path);
    return json_is_number(value) ? json_number_value(value) : NAN;
}
static const char *text_at(const json_t *object, const char *path) { return json_string_value(at(object, path)); }

static void levels_and_verdicts(void) {
    Setup s;
    compare(&s, 0, 0, true);
    CHECK_STR(text_at(s.replayable, "levels/0/verdict"), "direct is as good");
    CHECK(strstr(text_at(s.replayable, "levels/0/sentence"), "6.0 times cheaper"));
    CHECK_STR(text_at(s.replayable, "levels/1/verdict"), "not settled"); // +3 points, up to more than 5
    CHECK_STR(text_at(s.replayable, "levels/2/verdict"), "thinking pays");
    CHECK(strstr(text_at(s.replayable, "levels/2/sentence"), "thinking pays: +50.0 points"));
    CHECK_STR(text_at(s.replayable, "levels/3/verdict"), "neither works");
    CHECK_NEAR(number_at(s.replayable, "levels/2/difference/difference"), 0.5, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "levels/2/think/accuracy"), 0.6, 1e-12);
    CHECK_INT(number_at(s.replayable, "levels/2/difference/only_a"), 100);
    CHECK_NEAR(number_at(s.replayable, "levels/2/difference/p"), mcnemar_exact(100, 0), 1e-40);
    double low = number_at(s.replayable, "levels/2/difference/low"), high = number_at(s.replayable, "levels/2/difference/high");
    CHECK(low > 0.42 && low < 0.45 && high > 0.55 && high < 0.58);
    CHECK_INT(strlen(text_at(s.replayable, "levels/0/think/outcomes")), ITEMS);
    CHECK_INT(number_at(s.replayable, "all/think/items"), LEVELS * ITEMS);
    CHECK_NEAR(number_at(s.replayable, "all/difference/difference"), (0.99 + 0.9 + 0.6 - 1 - 0.87 - 0.1) / 4, 1e-12);
    const bool hard[LEVELS] = {false, false, true, true}; // the upper half of sums; words has one level
    for (int l = 0; l < LEVELS; l++) CHECK(json_is_true(json_object_get(json_array_get(at(s.replayable, "levels"), (size_t)l), "hard")) == hard[l]);
    end(&s);
}

// Ten items on which both agree, or five on which only thinking is right, settle nothing.
static void few_items_settle_nothing(void) {
    for (int right = 0; right < 2; right++) {
        EvaluatedItem items[MODES][10];
        double seconds[1] = {1};
        Evaluation e[MODES];
        for (Mode m = 0; m < MODES; m++) {
            for (int i = 0; i < 10; i++) items[m][i] = (EvaluatedItem){.correct = right || m == MODE_THINK, .tokens = 3};
            e[m] = (Evaluation){.mode = m, .count = right ? 10 : 5, .items = items[m], .level_seconds = seconds};
        }
        Comparison c = {.levels = 1, .level = levels, .after = {&e[0], &e[1]}};
        json_t *out = comparison_json(&c);
        CHECK_STR(text_at(out, "replayable/levels/0/verdict"), "not settled");
        json_decref(out);
    }
}

static void gain_over_sft(void) {
    Setup s;
    compare(&s, 0, 0, true);
    CHECK_INT(number_at(s.replayable, "before_step"), 30);
    CHECK_INT(number_at(s.replayable, "gain/hard_think/items"), 2 * ITEMS);
    CHECK_NEAR(number_at(s.replayable, "gain/hard_think/difference"), 0.1, 1e-12);
    CHECK(number_at(s.replayable, "gain/hard_think/low") > 0.05);
    CHECK_NEAR(number_at(s.replayable, "gain/levels/2/think/b"), 0.4, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "gain/levels/2/direct/difference"), 0, 0);
    CHECK(!strncmp(text_at(s.replayable, "gain/sentence"), "GRPO improved hard items", 24));
    end(&s);
    compare(&s, 0, 0, false);
    CHECK(json_is_null(at(s.replayable, "gain")) && json_is_null(at(s.replayable, "before_step")));
    end(&s);
}

static void costs(void) {
    Setup s;
    compare(&s, 3.6, 100, false);
    CHECK_NEAR(number_at(s.measured, "levels/2/think/cost_per_correct"), 3.6 * 30 / 3600 / 120, 1e-15);
    CHECK_NEAR(number_at(s.measured, "levels/2/direct/joules_per_correct"), 100 * 30.0 / 20, 1e-12);
    CHECK_STR(text_at(s.measured, "levels/3/think/cost_per_correct"), "inf");
    CHECK_NEAR(number_at(s.measured, "all/direct/seconds"), 100, 1e-12);
    CHECK_NEAR(number_at(s.measured, "levels/0/think/seconds_per_item"), 10.0 / ITEMS, 1e-15);
    CHECK_STR(text_at(s.measured, "currency"), "EUR");
    end(&s);
    compare(&s, 0, 0, false);
    CHECK_STR(text_at(s.measured, "levels/2/think/cost_per_correct"), "not stated");
    CHECK_STR(text_at(s.measured, "levels/3/think/joules_per_correct"), "not stated");
    CHECK_STR(text_at(s.measured, "price_per_hour"), "not stated");
    CHECK(json_is_null(at(s.measured, "currency")));
    end(&s);
}

// The replayable half knows nothing of clocks and prices.
static void replayable_is_replayable(void) {
    Setup a, b;
    compare(&a, 0, 0, true), compare(&b, 2, 50, true);
    for (int l = 0; l < LEVELS; l++) b.think.level_seconds[l] = 1;
    json_t *again = comparison_json(&b.c);
    CHECK(json_equal(a.replayable, json_object_get(again, "replayable")));
    CHECK(!json_equal(a.measured, json_object_get(again, "measured")));
    json_decref(again), end(&a), end(&b);
}

static void no_items(void) {
    Evaluation none[MODES] = {{.mode = MODE_THINK}, {.mode = MODE_DIRECT}};
    double seconds[LEVELS] = {0};
    none[0].level_seconds = none[1].level_seconds = seconds;
    Comparison c = {.levels = LEVELS, .level = levels, .after = {&none[0], &none[1]}};
    json_t *out = comparison_json(&c);
    CHECK(out && json_is_null(at(out, "replayable/levels/0/difference/difference")));
    CHECK_STR(text_at(out, "replayable/levels/0/verdict"), "not settled");
    CHECK(json_is_null(at(out, "replayable/all/token_ratio")));
    json_decref(out);
}

static void printed_table(void) {
    Setup s;
    compare(&s, 3.6, 0, true);
    FILE *file = tmpfile();
    CHECK(file);
    fflush(stdout);
    int saved = dup(1);
    dup2(fileno(file), 1);
    compare_print(s.out);
    dup2(saved, 1);
    close(saved);
    rewind(file);
    char line[512];
    int lines = 0, found = 0;
    while (fgets(line, sizeof line, file)) {
        lines++;
        if (strlen(line) > 140) FAIL("a line of %zu columns: %s", strlen(line), line);
        found += strstr(line, "thinking pays: +50.0 points") || strstr(line, "none correct") || strstr(line, "not stated");
        CHECK(!strstr(line, "nan"));
    }
    fclose(file);
    CHECK(lines > 20 && found > 8);
    end(&s);
}

static const Test tests[] = {
    {"levels_and_verdicts", levels_and_verdicts},
    {"few_items_settle_nothing", few_items_settle_nothing},
    {"gain_over_sft", gain_over_sft},
    {"costs", costs},
    {"replayable_is_replayable", replayable_is_replayable},
    {"no_items", no_items},
    {"printed_table", printed_table},
};
TEST_MAIN(tests)
