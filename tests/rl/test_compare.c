// The comparison's arithmetic on made-up evaluations: pairs, verdicts, which levels are hard, costs that aren't known,
// and the printed table.
#include "../test.h"
#include "compare.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { LEVELS = 4, ITEMS = 200 };
static const TaskLevel levels[LEVELS] = {{"sums", 1, 5000}, {"sums", 2, 5000}, {"sums", 3, 5000}, {"words", 1, -1}};

// Accuracy by level; item k of a level is correct where k * 7 mod ITEMS lies under it, so that what the weaker mode gets
// right the stronger one does too; at level index 1 each mode has its own favourites.
static ArmResult make(Mode mode, const double accuracy[LEVELS], int tokens) {
    ArmResult r = {.count = LEVELS * ITEMS, .seeds = 1, .levels = LEVELS};
    r.items = xcalloc(LEVELS * ITEMS, sizeof *r.items), r.right = xcalloc(LEVELS * ITEMS, 1), r.k = xcalloc(LEVELS, sizeof *r.k);
    r.seconds = xcalloc(LEVELS, sizeof(double)), r.joules = xcalloc(LEVELS, sizeof(double));
    for (int l = 0; l < LEVELS; l++) {
        r.seconds[l] = 10 * (l + 1), r.joules[l] = NAN, r.k[l] = 1;
        for (int k = 0; k < ITEMS; k++) {
            int at = l * ITEMS + k;
            r.right[at] = (k * 7 + (l == 1 ? 90 * (int)mode : 0)) % ITEMS < accuracy[l] * ITEMS;
            r.items[at] = (ArmItem){.level = l, .correct = r.right[at], .pass = r.right[at], .tokens = tokens, .answer_tokens = tokens,
                                    .prompt_tokens = 9, .flops = 1e9, .efficiency = r.right[at] * 0.5};
        }
    }
    return r;
}

typedef struct Setup {
    Arm arms[MODES];
    ArmResult results[MODES];
    ComparedModel model;
    Comparison c;
    json_t *out, *replayable, *measured;
} Setup;

static void compare(Setup *s, double price, double watts, bool before) {
    static const double think[LEVELS] = {0.99, 0.9, 0.6, 0}, direct[LEVELS] = {1.0, 0.87, 0.1, 0};
    static const double think_was[LEVELS] = {0.98, 0.9, 0.4, 0};
    static char names[MODES][8] = {"think", "direct"}, model[] = "model";
    *s = (Setup){.results = {make(MODE_THINK, think, 30), make(MODE_DIRECT, direct, 5)}, .model = {.name = model, .what = "run", .step = 90}};
    for (Mode m = 0; m < MODES; m++) s->arms[m] = (Arm){.name = names[m], .mode = m, .k = 1, .seeds = 1, .equal_to = -1};
    s->c = (Comparison){.seed = 3, .levels = LEVELS, .level = levels, .step = 90, .before_step = before ? 30 : -1, .margin = 0.05, .models = &s->model,
                        .model_count = 1, .arms = {s->arms, MODES}, .results = s->results,
                        .prices = {.device_hour = price > 0 ? price : NAN, .kwh = NAN, .tokens_in = NAN, .tokens_out = NAN, .watts = watts > 0 ? watts : NAN}};
    if (price > 0) strcpy(s->c.prices.currency, "EUR");
    if (before) {
        s->c.before[MODE_THINK] = make(MODE_THINK, think_was, 30), s->c.before[MODE_DIRECT] = make(MODE_DIRECT, direct, 5);
        for (Mode m = 0; m < MODES; m++) s->c.after[m] = s->results[m];
    }
    s->out = comparison_json(&s->c);
    CHECK(s->out);
    s->replayable = json_object_get(s->out, "replayable"), s->measured = json_object_get(s->out, "measured");
}
static void end(Setup *s) {
    json_decref(s->out);
    for (Mode m = 0; m < MODES; m++) {
        arm_result_free(&s->results[m]);
        arm_result_free(&s->c.before[m]);
    }
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
    CHECK_STR(text_at(s.out, "format"), "reckon comparison 2");
    CHECK_STR(text_at(s.replayable, "pairs/0/a"), "think");
    CHECK_STR(text_at(s.replayable, "pairs/0/levels/0/verdict"), "same"); // -1 point
    CHECK(strstr(text_at(s.replayable, "pairs/0/levels/0/sentence"), "direct is as good and 6.0 times cheaper"));
    CHECK_STR(text_at(s.replayable, "pairs/0/levels/1/verdict"), "open"); // +3 points, up to more than 5
    CHECK(number_at(s.replayable, "pairs/0/levels/1/more_items") > 0);
    CHECK(strstr(text_at(s.replayable, "pairs/0/levels/1/sentence"), "more items needed"));
    CHECK_STR(text_at(s.replayable, "pairs/0/levels/2/verdict"), "a");
    CHECK(strstr(text_at(s.replayable, "pairs/0/levels/2/sentence"), "thinking pays: +50.0 points"));
    CHECK_STR(text_at(s.replayable, "pairs/0/levels/3/verdict"), "neither");
    CHECK_NEAR(number_at(s.replayable, "pairs/0/levels/2/difference"), 0.5, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "arms/0/levels/2/accuracy"), 0.6, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "arms/0/levels/2/outcome_efficiency"), 0.3, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "arms/0/levels/2/tokens_per_correct"), 50, 1e-12);
    CHECK_INT(number_at(s.replayable, "pairs/0/levels/2/only_a"), 100);
    CHECK_NEAR(number_at(s.replayable, "pairs/0/levels/2/p"), mcnemar_exact(100, 0), 1e-40);
    CHECK(number_at(s.replayable, "pairs/0/levels/1/p_holm") >= number_at(s.replayable, "pairs/0/levels/1/p"));
    double low = number_at(s.replayable, "pairs/0/levels/2/low"), high = number_at(s.replayable, "pairs/0/levels/2/high");
    CHECK(low > 0.42 && low < 0.45 && high > 0.55 && high < 0.58);
    CHECK_NEAR(number_at(s.replayable, "pairs/0/levels/2/tokens/value"), 6, 1e-12);
    CHECK_NEAR(number_at(s.replayable, "pairs/0/levels/2/tokens/low"), 6, 1e-9); // every item's is 6
    CHECK_INT(strlen(text_at(s.replayable, "arms/0/levels/0/outcomes")), ITEMS);
    CHECK_INT(number_at(s.replayable, "arms/0/all/items"), LEVELS * ITEMS);
    CHECK_INT(json_array_size(at(s.replayable, "kinds")), 2);
    CHECK_INT(number_at(s.replayable, "pairs/0/kinds/0/items"), 3 * ITEMS);
    CHECK_NEAR(number_at(s.replayable, "pairs/0/all/difference"), (0.99 + 0.9 + 0.6 - 1 - 0.87 - 0.1) / 4, 1e-12);
    const bool hard[LEVELS] = {false, false, true, true}; // the upper half of sums; words has one level
    for (int l = 0; l < LEVELS; l++) CHECK(json_is_true(json_object_get(json_array_get(at(s.replayable, "levels"), (size_t)l), "hard")) == hard[l]);
    end(&s);
}

// The same share is the same number wherever it stands: one printed as 89.3 % beside one printed as 89.4 % would be two results.
static void one_share_is_one_number(void) {
    enum { MANY = 2000 };
    ArmItem *items = xcalloc(MANY, sizeof *items);
    uint8_t *hits = xcalloc(MANY, 1);
    int k = 1;
    double nothing = NAN;
    char kind[] = "sums", name[] = "think", model[] = "model";
    const TaskLevel level = {kind, 1, 5000};
    Arm arm = {.name = name, .k = 1, .seeds = 1, .equal_to = -1};
    ComparedModel m = {.name = model, .what = "run", .step = -1};
    for (int right = 187; right < MANY; right += 800) { // a tie of the tenths of a per cent
        for (int i = 0; i < MANY; i++) hits[i] = i < right, items[i] = (ArmItem){.correct = hits[i], .tokens = 1, .flops = 1};
        ArmResult r = {.count = MANY, .seeds = 1, .levels = 1, .items = items, .right = hits, .k = &k, .seconds = &nothing, .joules = &nothing};
        Comparison all = {.levels = 1, .level = &level, .step = -1, .before_step = -1, .models = &m, .model_count = 1, .arms = {&arm, 1}, .results = &r};
        json_t *out = comparison_json(&all);
        Contrast c;
        CHECK(number_at(out, "replayable/arms/0/all/accuracy") == right / 2000.0);
        contrast_make(&r, &r, NULL, 1, &c);
        CHECK(c.a == right / 2000.0 && c.b == right / 2000.0);
        json_decref(out);
    }
    free(items), free(hits);
}

// Ten items on which both agree, or five on which only thinking is right, settle nothing.
static void few_items_settle_nothing(void) {
    for (int right = 0; right < 2; right++) {
        ArmItem items[MODES][10];
        uint8_t hits[MODES][10];
        ArmResult r[MODES];
        Contrast c;
        for (Mode m = 0; m < MODES; m++) {
            for (int i = 0; i < 10; i++) hits[m][i] = right || m == MODE_THINK, items[m][i] = (ArmItem){.correct = hits[m][i], .tokens = 3, .flops = 1};
            r[m] = (ArmResult){.count = right ? 10 : 5, .seeds = 1, .levels = 1, .items = items[m], .right = hits[m]};
        }
        contrast_make(&r[0], &r[1], NULL, 1, &c);
        contrast_judge(&c, 0.05);
        CHECK_STR(verdict_codes[c.verdict], "open");
        CHECK(c.more_items > 0);
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
    CHECK_NEAR(number_at(s.measured, "arms/0/levels/2/cost_of_pass"), 3.6 * 30 / 3600 / 120, 1e-15);
    CHECK_NEAR(number_at(s.measured, "arms/1/levels/2/joules_per_correct"), 100 * 30.0 / 20, 1e-12);
    CHECK_STR(text_at(s.measured, "arms/0/levels/2/joules_source"), "estimated");
    CHECK_STR(text_at(s.measured, "energy"), "stated watts");
    CHECK_STR(text_at(s.measured, "arms/0/levels/3/cost_of_pass"), "inf");
    CHECK_NEAR(number_at(s.measured, "arms/1/all/seconds"), 100, 1e-9);
    CHECK_NEAR(number_at(s.measured, "arms/0/levels/0/seconds_per_item"), 10.0 / ITEMS, 1e-15);
    CHECK_STR(text_at(s.measured, "prices/currency"), "EUR");
    CHECK_NEAR(number_at(s.measured, "pairs/0/levels/2/money/value"), 1, 1e-12); // both took as long
    CHECK_NEAR(number_at(s.measured, "pairs/0/levels/2/error_price"), 0, 1e-12);
    end(&s);
    compare(&s, 0, 0, false);
    CHECK(json_is_null(at(s.measured, "arms/0/levels/2/cost_of_pass")) && json_is_null(at(s.measured, "arms/0/levels/2/joules_per_correct")));
    CHECK_STR(text_at(s.measured, "arms/0/levels/2/joules_source"), "not measured");
    CHECK(json_is_null(at(s.measured, "prices/device_hour")) && json_is_null(at(s.measured, "prices/currency")));
    end(&s);
}

// At a price of tokens thinking costs six times as much; whether it is worth it is a matter of what a right answer is worth.
static void worth_decides(void) {
    static const struct {
        double worth;
        const char *verdict;
    } cases[] = {{1e-7, "b"}, {1e-3, "a"}};
    for (int i = 0; i < COUNT(cases); i++) {
        Setup s;
        compare(&s, 0, 0, false);
        s.c.prices.tokens_out = 1, s.c.worth = cases[i].worth;
        strcpy(s.c.prices.currency, "EUR");
        json_t *out = comparison_json(&s.c);
        const json_t *level = at(out, "measured/pairs/0/levels/2");
        CHECK_STR(text_at(level, "verdict"), cases[i].verdict);
        CHECK_NEAR(number_at(level, "money/value"), 6, 1e-9);
        CHECK_NEAR(number_at(level, "error_price"), 25e-6 / 0.5, 1e-15);
        CHECK_NEAR(number_at(level, "net/value"), cases[i].worth * 0.5 - 25e-6, 1e-15);
        json_decref(out);
        end(&s);
    }
}

// An arm of several seeds: shares per item, a test by flips of signs, variances between and within.
static void several_seeds(void) {
    Setup s;
    compare(&s, 0, 0, false);
    ArmResult *r = &s.results[MODE_THINK];
    r->seeds = 2;
    r->right = xrealloc(r->right, 2 * LEVELS * ITEMS);
    for (int i = 0; i < r->count; i++) {
        r->right[r->count + i] = r->right[i] && i % 4 != 0;
        r->items[i].correct = (r->right[i] + r->right[r->count + i]) / 2.0;
    }
    json_t *out = comparison_json(&s.c);
    const json_t *result = at(out, "replayable/arms/0/levels/2"), *seeds = at(result, "seeds");
    double first = number_at(seeds, "accuracy/0"), second = number_at(seeds, "accuracy/1"), mean = (first + second) / 2;
    CHECK_NEAR(first, 0.6, 1e-12);
    CHECK_NEAR(number_at(result, "accuracy"), mean, 1e-12);
    CHECK_NEAR(number_at(seeds, "between"), (first - second) * (first - second) / 2, 1e-12);
    CHECK_NEAR(number_at(seeds, "within"), (first * (1 - first) + second * (1 - second)) / 2 / ITEMS, 1e-12);
    CHECK_STR(text_at(out, "replayable/pairs/0/levels/2/test"), "sign flips");
    CHECK(number_at(out, "replayable/pairs/0/levels/2/p") < 0.001);
    json_decref(out);
    end(&s);
}

// The replayable half knows nothing of clocks and prices.
static void replayable_is_replayable(void) {
    Setup a, b;
    compare(&a, 0, 0, true), compare(&b, 2, 50, true);
    for (int l = 0; l < LEVELS; l++) b.results[MODE_THINK].seconds[l] = 1;
    json_t *again = comparison_json(&b.c);
    CHECK(json_equal(a.replayable, json_object_get(again, "replayable")));
    CHECK(!json_equal(a.measured, json_object_get(again, "measured")));
    json_decref(again), end(&a), end(&b);
}

static void no_items(void) {
    Setup s;
    compare(&s, 1, 0, false);
    for (Mode m = 0; m < MODES; m++) s.results[m].count = 0;
    json_t *out = comparison_json(&s.c);
    CHECK(out && json_is_null(at(out, "replayable/pairs/0/levels/0/difference")));
    CHECK_STR(text_at(out, "replayable/pairs/0/levels/0/verdict"), "open");
    CHECK(json_is_null(at(out, "replayable/pairs/0/all/tokens")));
    CHECK(json_is_null(at(out, "replayable/arms/0/all/accuracy")));
    json_decref(out);
    end(&s);
}

static void print_at(Setup *s, double price, const char *column, const char *error) {
    s->c.prices.device_hour = price;
    json_object_set_new(s->out, "measured", comparison_measured(&s->c));
    FILE *file = tmpfile();
    CHECK(file);
    fflush(stdout);
    int saved = dup(1);
    dup2(fileno(file), 1);
    compare_print(s->out);
    dup2(saved, 1);
    close(saved);
    rewind(file);
    char line[512];
    int lines = 0, found = 0, columns = 0, errors = 0;
    while (fgets(line, sizeof line, file)) {
        lines++;
        if (strlen(line) > 150) FAIL("a line of %zu columns: %s", strlen(line), line);
        found += strstr(line, "thinking pays: +50.0 points") || strstr(line, "none correct") || strstr(line, "not measured");
        columns += strstr(line, column) != NULL, errors += strstr(line, error) != NULL;
        CHECK(!strstr(line, "nan") && !strstr(line, "+0.0") && !strstr(line, "-0.0"));
    }
    fclose(file);
    CHECK(lines > 20 && found > 8);
    CHECK_INT(columns, 1);
    if (errors < 1) FAIL("nowhere '%s'", error);
}
// Prices as small as those of small models are told for a thousand or a million answers.
static void printed_table(void) {
    static const struct {
        double price;
        const char *column, *error;
    } cases[] = {{3600, "EUR each right", "where a wrong answer costs more than 0.15 EUR"},
                 {36, "EUR a thousand right", "where a thousand wrong answers cost more than 1.5 EUR"},
                 {3.6e-3, "EUR a million right", "where a million wrong answers cost more than 0.15 EUR"}};
    Setup s;
    compare(&s, 3600, 0, true);
    for (int l = 0; l < LEVELS; l++) s.results[MODE_THINK].seconds[l] *= 1.5;
    for (int i = 0; i < COUNT(cases); i++) print_at(&s, cases[i].price, cases[i].column, cases[i].error);
    end(&s);
}

// ---- arms ----------------------------------------------------------------------------------------------------
static void arms_by_name(void) {
    Err err = {0};
    static const char *const models[] = {"a", "a/b"};
    ArmDefaults d = {.models = models, .model_count = 2, .seeds = 3, .temperature = 0.7, .max_tokens = 40};
    const char *const texts[] = {"votes", "budgets", "a/direct:majority=5", "a/b/think@7:best=4,mine.lua", "think", NULL};
    ArmList arms;
    OK(arms_parse(texts, &d, &arms, &err));
    static const char *const names[] = {"a/think", "a/direct", "a/votes", "a/think@20", "a/think@10", "a/think@5", "a/think@2", "a/direct:majority=5",
                                        "a/b/think", "a/b/direct", "a/b/votes", "a/b/think@20", "a/b/think@10", "a/b/think@5", "a/b/think@2",
                                        "a/b/think@7:best=4,mine.lua"};
    CHECK_INT(arms.count, COUNT(names));
    for (int i = 0; i < COUNT(names); i++) CHECK_STR(arms.arms[i].name, names[i]);
    CHECK_INT(arms.arms[2].equal_to, 0);
    CHECK(arms.arms[7].k == 5 && arms.arms[7].seeds == 3 && arms.arms[7].temperature == 0.7);
    CHECK(arms.arms[15].budget == 7 && arms.arms[15].k == 4 && !strcmp(arms.arms[15].reward, "mine.lua"));
    arms_free(&arms);
    static const char *const wrong[] = {"thinking", "direct@5", "think@0", "think@x", "direct:majority", "direct:best=3", "budgets=4,", "votes=3", ""};
    for (int i = 0; i < COUNT(wrong); i++) {
        const char *const one[] = {wrong[i], NULL};
        CHECK(!arms_parse(one, &d, &arms, &err) && err.code == ERR_USAGE);
    }
}

// Draws of one item: what the strategies make of them.
static void strategies(void) {
    static char texts[][8] = {"7", "", "12", "12.0", "7"};
    static Draw draws[5];
    static Item item = {.level = 1};
    char kind[] = "sums";
    item.kind = kind;
    for (int i = 0; i < 5; i++)
        draws[i] = (Draw){.text = texts[i], .text_size = strlen(texts[i]), .correct = i == 2 || i == 3, .tokens = 2 + i, .answer_tokens = 2 + i, .flops = 10,
                          .verdict = VERDICT_SCORED, .tokens_to_truth = i == 2 ? 1 : -1};
    EvaluatedItem one = {.draws = draws, .draw_count = 5, .item = &item, .prompt_tokens = 9, .prompt_flops = 100};
    Evaluation e = {.count = 1, .items = &one, .level_seconds = &(double){3}, .level_joules = &(double){NAN}};
    static const struct {
        Strategy strategy;
        int draws, seeds;
        double correct, tokens;
        int abstained;
    } cases[] = {
        {STRATEGY_GREEDY, 1, 1, 0, 2, 0},
        {STRATEGY_MAJORITY, 5, 1, 0, 20, 0},   // 7 and 12 have two votes each: 7 came first
        {STRATEGY_MAJORITY, 4, 1, 1, 14, 0},   // 12 and 12.0 are one answer
        {STRATEGY_SAMPLED, 4, 4, 0.5, 3.5, 0},
        {STRATEGY_MAJORITY, 4, 2, 0.5, 7, 0},  // {7, silent} and {12, 12.0}
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Arm arm = {.mode = MODE_DIRECT, .strategy = cases[i].strategy, .k = cases[i].draws / cases[i].seeds, .seeds = cases[i].seeds, .equal_to = -1};
        ArmResult r;
        one.draw_count = cases[i].draws;
        OK(arm_result(&arm, &e, 1, NULL, 1, &r, &err));
        CHECK_NEAR(r.items[0].correct, cases[i].correct, 1e-12);
        CHECK_NEAR(r.items[0].tokens, cases[i].tokens, 1e-12);
        CHECK_NEAR(r.items[0].flops, 100 + 10.0 * arm.k, 1e-12); // the prompt once
        CHECK_INT(r.items[0].abstained, cases[i].abstained);
        CHECK_NEAR(r.seconds[0], 3.0 / cases[i].seeds, 1e-12);
        if (i == 2) CHECK_NEAR(r.items[0].efficiency, (2 + 3 + 1) / 14.0, 1e-12); // two wrong draws, then the first token of the third
        arm_result_free(&r);
    }
    for (int i = 0; i < 5; i++) draws[i].text_size = 0;
    ArmResult r;
    Err err = {0};
    Arm arm = {.mode = MODE_DIRECT, .strategy = STRATEGY_MAJORITY, .k = 5, .seeds = 1, .equal_to = -1};
    one.draw_count = 5;
    OK(arm_result(&arm, &e, 1, NULL, 1, &r, &err));
    CHECK(r.items[0].abstained == 1 && r.items[0].correct == 0);
    arm_result_free(&r);
}

// A script that chooses among draws: it fails on some, abstains from others, and may leave an item without an answer. One that
// scores nothing at all is at fault itself. It is told neither the truth nor the column that it comes from.
static void best_of_without_scores(void) {
    static char texts[2][4][8] = {{"bad", "odd", "3", "1"}, {"odd", "bad", "bad", "odd"}}, file[64] = "/tmp/reckon-best-XXXXXX.lua";
    static const char script[] = "return function(s)\n if s.truth or s.row.answer or s.row.reward_model or s.row.level ~= 7 then error('it saw ' .. tostring(s.truth)) end\n"
                                 " if s.completion == 'bad' then error('no good') end\n if s.completion == 'odd' then return nil, 'odd' end\n"
                                 " return tonumber(s.completion)\nend\n";
    char kind[] = "sums", name[] = "direct:best=4,mine", reward[] = "mine";
    Err err = {0};
    int descriptor = mkstemps(file, 4);
    CHECK(descriptor >= 0 && write(descriptor, script, strlen(script)) == (ssize_t)strlen(script) && close(descriptor) == 0);
    json_t *row = json_pack("{s:s,s:{s:s},s:i}", "answer", "3", "reward_model", "ground_truth", "3", "level", 7);
    Item item = {.level = 1, .kind = kind, .row = row};
    Draw draws[2][4];
    EvaluatedItem items[2];
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 4; k++)
            draws[i][k] = (Draw){.text = texts[i][k], .text_size = strlen(texts[i][k]), .correct = !strcmp(texts[i][k], "3"), .tokens = 1, .answer_tokens = 1,
                                 .verdict = VERDICT_SCORED, .tokens_to_truth = -1};
        items[i] = (EvaluatedItem){.draws = draws[i], .draw_count = 4, .item = &item, .prompt_tokens = 2};
    }
    RewardSpec spec = {.script = file, .weight = 1};
    RewardLimits limits = reward_default_limits();
    RewardPool *judge;
    OK(reward_pool_open(&spec, 1, 1, &limits, &judge, &err));
    Arm arm = {.name = name, .mode = MODE_DIRECT, .strategy = STRATEGY_BEST, .k = 4, .seeds = 1, .reward = reward, .equal_to = -1};
    Evaluation e = {.count = 2, .items = items, .level_seconds = &(double){1}, .level_joules = &(double){NAN}};
    ArmResult r;
    bool ok = arm_result(&arm, &e, 1, judge, 1, &r, &err);
    if (!ok) FAIL("%s: %s", err.where, err.msg);
    CHECK(r.right[0] == 1 && r.items[0].abstained == 0); // 3 is the highest of 3 and 1
    CHECK(r.right[1] == 0 && r.items[1].abstained == 1 && r.items[1].correct == 0);
    CHECK_NEAR(r.items[1].tokens, 4, 0); // paid all the same
    CHECK_INT(r.judged, 8);
    CHECK_INT(r.unjudged, 3);
    CHECK(strstr(r.unjudged_why, "no good"));
    arm_result_free(&r);
    e.items = items + 1, e.count = 1;
    CHECK(!arm_result(&arm, &e, 1, judge, 1, &r, &err) && err.code == ERR_DATA);
    CHECK_STR(err.where, name);
    CHECK(strstr(err.msg, "mine scored none of 4 draws") && strstr(err.msg, "the first: odd"));
    for (int k = 0; k < 4; k++) draws[1][k].unanswered = true; // an endpoint that was silent: the script isn't to blame
    OK(arm_result(&arm, &e, 1, judge, 1, &r, &err));
    CHECK(r.items[0].abstained == 1 && r.judged == 0 && r.unjudged == 0);
    arm_result_free(&r);
    reward_pool_close(judge);
    json_decref(row);
    unlink(file);
}

// What the threads waited for a processor is told, with the arms between which it lies, where it is more than a twentieth.
static void a_busy_machine_is_told(void) {
    Setup s;
    compare(&s, 1, 0, false);
    CHECK(json_is_null(at(s.measured, "processor")) && json_array_size(at(s.measured, "notes")) == 0); // nothing known of it
    CHECK(json_is_null(at(s.measured, "parts/0/waited_share")));
    static const double waited[][MODES] = {{0.1, 0.4}, {3, 1}};
    for (int i = 0; i < COUNT(waited); i++) {
        for (Mode m = 0; m < MODES; m++) s.results[m].spent_cpu = 9, s.results[m].spent_waiting = waited[i][m];
        json_t *measured = comparison_measured(&s.c);
        CHECK_NEAR(number_at(measured, "processor/seconds"), 18, 1e-12);
        CHECK_NEAR(number_at(measured, "processor/waited_share"), (waited[i][0] + waited[i][1]) / (18 + waited[i][0] + waited[i][1]), 1e-12);
        CHECK_NEAR(number_at(measured, "parts/1/waited_share"), waited[i][1] / (9 + waited[i][1]), 1e-12);
        CHECK(json_is_true(at(measured, "processor/busy")) == (i == 1));
        CHECK_INT(json_array_size(at(measured, "notes")), i);
        const char *note = i ? text_at(measured, "notes/0") : NULL;
        if (i) CHECK(note && strstr(note, "18 % of the time that they wanted one (least: direct, 10 %; most: think, 25 %)") && strstr(note, "prices by the hour"));
        json_decref(measured);
    }
    end(&s);
}

// Two models' answers, the second one's training known: how many answers repay it. 100 items; 36 EUR an hour.
typedef struct Repaid {
    double right[2], seconds[2];  // per cent, of all items
    double training[2];           // seconds; 0: it is no run
    double worth, queries, answers;
    const char *sentence;
} Repaid;
static void check_repaid(const Repaid *x) {
    enum { COUNTED = 100 };
    static char names[2][16] = {"base/direct", "tuned/direct"}, model[] = "m";
    const TaskLevel level = {"sums", 1, 5000};
    Arm arms[2];
    ComparedModel models[2];
    ArmResult results[2];
    for (int i = 0; i < 2; i++) {
        arms[i] = (Arm){.name = names[i], .model = i, .mode = MODE_DIRECT, .k = 1, .seeds = 1, .equal_to = -1};
        models[i] = (ComparedModel){.name = model, .what = x->training[i] > 0 ? "run" : "model", .step = -1,
                                    .training = {.known = x->training[i] > 0, .seconds = x->training[i], .joules = NAN, .flops = 1e9}};
        results[i] = (ArmResult){.count = COUNTED, .seeds = 1, .levels = 1, .items = xcalloc(COUNTED, sizeof(ArmItem)), .right = xcalloc(COUNTED, 1),
                                 .k = xcalloc(1, sizeof(int)), .seconds = xcalloc(1, sizeof(double)), .joules = xcalloc(1, sizeof(double))};
        results[i].k[0] = 1, results[i].seconds[0] = x->seconds[i], results[i].joules[0] = NAN;
        for (int k = 0; k < COUNTED; k++) results[i].right[k] = k < x->right[i], results[i].items[k] = (ArmItem){.correct = k < x->right[i], .tokens = 1, .flops = 1};
    }
    Comparison c = {.levels = 1, .level = &level, .step = -1, .before_step = -1, .margin = 0.02, .models = models, .model_count = 2, .arms = {arms, 2},
                    .results = results, .worth = x->worth,
                    .prices = {.currency = "EUR", .device_hour = 36, .kwh = NAN, .tokens_in = NAN, .tokens_out = NAN, .watts = NAN}};
    json_t *measured = comparison_measured(&c);
    const json_t *found = at(measured, "break_even/0");
    CHECK_INT(json_array_size(at(measured, "break_even")), 1);
    const char *keys[] = {"queries", "correct_answers"};
    const double expected[] = {x->queries, x->answers};
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(found, keys[i]);
        double number = json_is_number(v) ? json_number_value(v) : json_is_string(v) ? INFINITY : NAN;
        bool same = isinf(expected[i]) ? isinf(number) : fabs(number - expected[i]) <= 1e-9 * expected[i];
        if (!same) FAIL("'%s': %s %g, expected %g", x->sentence, keys[i], number, expected[i]);
    }
    if (!strstr(text_at(found, "sentence"), x->sentence)) FAIL("found '%s', expected '%s'", text_at(found, "sentence"), x->sentence);
    json_decref(measured);
    for (int i = 0; i < 2; i++) arm_result_free(&results[i]);
}
static void training_is_repaid(void) {
    static const Repaid cases[] = {
        // 0.1 EUR a question each, 40 more of 100 right at 1 EUR: 0.4 EUR a question against 36 EUR
        {{50, 90}, {1000, 1000}, {0, 3600}, 1, 90, 36 / (0.1 / 0.5 - 0.1 / 0.9), "90 questions repay the training (36 EUR) at 1 EUR a correct answer: tuned/direct instead of base/direct"},
        // as often right for half the price: 0.05 EUR a question
        {{90, 90}, {1000, 500}, {0, 3599}, 0, 720, 35.99 / (0.1 / 0.9 - 0.05 / 0.9), "648 correct answers repay the training (36 EUR)"},
        // right more often, and dearer: by itself that saves nothing, but a right answer comes cheaper
        {{10, 90}, {500, 1000}, {0, 3600}, 0, INFINITY, 36 / (0.05 / 0.1 - 0.1 / 0.9), "93 correct answers repay the training (36 EUR)"},
        // cheaper, and wrong more often: nothing is repaid by that, whatever a right answer comes to
        {{90, 10}, {1000, 10}, {0, 3600}, 1, INFINITY, 36 / (0.1 / 0.9 - 0.001 / 0.1), "tuned/direct instead of base/direct never repays the training (36 EUR) at 1 EUR a correct answer"},
        {{90, 80}, {500, 1000}, {0, 3600}, 0, INFINITY, INFINITY, "never repays the training (36 EUR) by what an answer costs alone"},
        // two runs: what the second one's training cost more
        {{50, 90}, {1000, 1000}, {1800, 3600}, 1, 45, 18 / (0.1 / 0.5 - 0.1 / 0.9), "45 questions repay what its training cost more (18 EUR)"},
    };
    for (int i = 0; i < COUNT(cases); i++) check_repaid(&cases[i]);
}

static void price_sheets(void) {
    Prices p = {.device_hour = 3.6, .kwh = 0.36, .tokens_in = 2, .tokens_out = 10};
    Bill b = prices_bill(&p, false, 10, 1e6, 1e6, 1e6); // a device pays hours and energy
    CHECK(b.known);
    CHECK_NEAR(b.device, 0.01, 1e-15);
    CHECK_NEAR(b.energy, 0.1, 1e-15);
    CHECK_NEAR(b.tokens, 0, 0);
    b = prices_bill(&p, true, 10, NAN, 1e6, 1e6); // an endpoint tokens
    CHECK_NEAR(b.tokens, 12, 1e-12);
    CHECK_NEAR(b.device + b.energy, 0, 0);
    CHECK(!prices_bill(&(Prices){.device_hour = NAN, .kwh = NAN, .tokens_in = NAN, .tokens_out = NAN}, false, 1, 1, 1, 1).known);
}

static const Test tests[] = {
    {"levels_and_verdicts", levels_and_verdicts},
    {"one_share_is_one_number", one_share_is_one_number},
    {"few_items_settle_nothing", few_items_settle_nothing},
    {"gain_over_sft", gain_over_sft},
    {"costs", costs},
    {"worth_decides", worth_decides},
    {"several_seeds", several_seeds},
    {"arms_by_name", arms_by_name},
    {"strategies", strategies},
    {"best_of_without_scores", best_of_without_scores},
    {"a_busy_machine_is_told", a_busy_machine_is_told},
    {"training_is_repaid", training_is_repaid},
    {"price_sheets", price_sheets},
    {"replayable_is_replayable", replayable_is_replayable},
    {"no_items", no_items},
    {"printed_table", printed_table},
};
TEST_MAIN(tests)
