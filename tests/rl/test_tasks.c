// Tasks: every problem's truth and demonstration are recomputed here, the split never leaks, items are a function of
// (recipe, stage, index), datasets are read as they stand, and the countdown script scores what it should.
#include "../test.h"
#include "files.h"
#include "rl.h"
#include "../../rl/tasks_parts.h"
#include <lauxlib.h>
#include <lualib.h>
#include <unistd.h>
#include <zstd.h>

static TaskSpec spec(const char *kind, int *levels, int count, double weight) {
    return (TaskSpec){.kind = (char *)(uintptr_t)kind, .levels = levels, .level_count = count, .weight = weight};
}
static int all_levels[] = {1, 2, 3, 4, 5, 6};

// ---- procedural problems ---------------------------------------------------------------------------------
// "12+34=46,46+56=102": every step is right; the last result is returned.
static long check_steps(const char *text) {
    long result = 0;
    for (const char *p = text; *p;) {
        char *end;
        long a = strtol(p, &end, 10);
        char sign = *end;
        long b = strtol(end + 1, &end, 10);
        CHECK(*end == '=');
        result = strtol(end + 1, &end, 10);
        long want = sign == '+' ? a + b : sign == '-' ? a - b : sign == '*' ? a * b : b && a % b == 0 ? a / b : -1;
        if (result != want) FAIL("a wrong step in %s", text);
        CHECK(*end == ',' || !*end);
        p = end + (*end == ',');
    }
    return result;
}

static void arithmetic_is_right(void) {
    for (int level = 1; level <= 6; level++) {
        Random random = random_start(3, STREAM_TEST, (uint64_t)level);
        for (int i = 0; i < 2000; i++) {
            Problem p;
            arithmetic_generator.draw(&random, level, &p);
            long value = p.numbers[0];
            for (int k = 1; k < p.count; k++) value = level < 5 ? value + p.numbers[k] : value * p.numbers[k];
            CHECK_INT(strtol(p.truth, NULL, 10), value);
            CHECK_INT(check_steps(p.demonstration), value);
            char plain[96] = "";
            for (int k = 0; k < p.count; k++)
                snprintf(plain + strlen(plain), sizeof plain - strlen(plain), "%s%d", k ? (level < 5 ? "+" : "*") : "", p.numbers[k]);
            strcat(plain, "=");
            CHECK_STR(p.plain, plain);
            CHECK(!strncmp(p.words, "What is ", 8) && p.words[strlen(p.words) - 1] == '?');
        }
        CHECK(arithmetic_generator.distinct(level) >= 1000);
    }
}

static void demonstrations_as_written(void) {
    // A product: partial products, then their sum; a zero digit needs no step.
    Random random = random_start(1, STREAM_TEST, 0);
    bool seen_round = false, seen_other = false;
    for (int i = 0; i < 5000 && !(seen_round && seen_other); i++) {
        Problem p;
        char want[256];
        arithmetic_generator.draw(&random, 5, &p);
        int a = p.numbers[0], b = p.numbers[1], tens = b / 10 * 10;
        if (b % 10)
            snprintf(want, sizeof want, "%d*%d=%d,%d*%d=%d,%d+%d=%d", a, tens, a * tens, a, b % 10, a * (b % 10), a * tens,
                     a * (b % 10), a * b);
        else
            snprintf(want, sizeof want, "%d*%d=%d", a, b, a * b);
        CHECK_STR(p.demonstration, want);
        seen_round |= b % 10 == 0, seen_other |= b % 10 != 0;
    }
    CHECK(seen_round && seen_other);
}

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}
// Draws from every level give at least 1,000 different problems; the small levels' counts are exact.
static void enough_distinct_problems(void) {
    enum { DRAWS = 120000 };
    const Generator *const generators[] = {&arithmetic_generator, &countdown_generator};
    uint64_t *hashes = xmalloc(DRAWS * sizeof *hashes);
    for (int g = 0; g < 2; g++)
        for (int level = 1; level <= generators[g]->levels; level++) {
            Random random = random_start(5, STREAM_TEST, (uint64_t)level);
            int64_t known = generators[g]->distinct(level), different = 0;
            int draws = known > 0 && known < 10000 ? DRAWS : 5000;
            for (int i = 0; i < draws; i++) {
                Problem p;
                generators[g]->draw(&random, level, &p);
                hashes[i] = hash64(p.plain, strlen(p.plain));
            }
            qsort(hashes, (size_t)draws, sizeof *hashes, compare_hashes);
            for (int i = 0; i < draws; i++) different += i == 0 || hashes[i] != hashes[i - 1];
            CHECK(different >= 1000);
            if (draws == DRAWS) CHECK_INT(different, known);
        }
    free(hashes);
}

// ---- countdown and its script ----------------------------------------------------------------------------
static lua_State *countdown_script(void) {
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    if (luaL_dofile(L, TEST_DATA "/../../scripts/tasks/countdown.lua")) FAIL("%s", lua_tostring(L, -1));
    lua_setglobal(L, "score");
    return L;
}
// -1 for an abstention.
static int countdown_score(lua_State *L, const int *numbers, int count, int target, const char *answer) {
    lua_getglobal(L, "score");
    lua_newtable(L);
    lua_pushstring(L, answer);
    lua_setfield(L, -2, "answer");
    lua_newtable(L);
    lua_newtable(L);
    for (int i = 0; i < count; i++) lua_pushinteger(L, numbers[i]), lua_rawseti(L, -2, i + 1);
    lua_setfield(L, -2, "numbers");
    if (target) lua_pushinteger(L, target), lua_setfield(L, -2, "target");
    lua_setfield(L, -2, "row");
    if (lua_pcall(L, 1, 1, 0)) FAIL("%s: %s", answer, lua_tostring(L, -1));
    int score = lua_isnil(L, -1) ? -1 : (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return score;
}

static void countdown_is_solvable(void) {
    lua_State *L = countdown_script();
    for (int level = 1; level <= 3; level++) {
        Random random = random_start(9, STREAM_TEST, (uint64_t)level);
        for (int i = 0; i < 2000; i++) {
            Problem p;
            countdown_generator.draw(&random, level, &p);
            CHECK(p.count == level + 2 && p.target >= 10 && p.target <= 999);
            CHECK_INT(check_steps(p.demonstration), p.target);
            if (countdown_score(L, p.numbers, p.count, p.target, p.truth) != 1)
                FAIL("%s is no solution of %s", p.truth, p.plain);
            CHECK_INT(countdown_score(L, p.numbers, p.count, p.target + 1, p.truth), 0);
        }
    }
    lua_close(L);
}

static void countdown_script_judges(void) {
    static const struct {
        const char *answer;
        int score;
    } cases[] = {{"(3+4)*5", 1}, {" ( 3 + 4 ) * 5 ", 1}, {"5*(4+3)", 1},  {"35", 0},          {"(3+4)*5=35", 0},
                 {"7*5", 0},     {"(3+4)*5*1", 0},       {"(3+4*5", 0},   {"(3+4)*5)", 0},    {"", 0},
                 {"()", 0},      {"3+4+", 0},            {"(3+4)(5)", 0}, {"os.exit()", 0},   {"(3+4)*5;", 0},
                 {"-3", 0},      {"(3+4)*5 extra", 0},   {"3/0", 0},      {"(((((((((((((((((", 0}};
    static const int numbers[] = {3, 4, 5}, eighths[] = {3, 3, 8, 8};
    lua_State *L = countdown_script();
    for (int i = 0; i < COUNT(cases); i++)
        if (countdown_score(L, numbers, 3, 35, cases[i].answer) != cases[i].score)
            FAIL("'%s': expected %d", cases[i].answer, cases[i].score);
    CHECK_INT(countdown_score(L, eighths, 4, 24, "8/(3-8/3)"), 1); // only fractions get there
    CHECK_INT(countdown_score(L, numbers, 3, 0, "3"), -1);
    char *deep = xmalloc(1 << 20);
    memset(deep, '(', (1 << 20) - 1);
    deep[(1 << 20) - 1] = 0;
    CHECK_INT(countdown_score(L, numbers, 3, 35, deep), 0);
    free(deep);
    lua_close(L);
}

// ---- items -----------------------------------------------------------------------------------------------
// The sorted operands of "34+12=": what must not be on both sides of the split.
static void sorted_operands(const Item *item, int *out, int *count) {
    const json_t *numbers = json_object_get(item->row, "numbers");
    *count = (int)json_array_size(numbers);
    for (int i = 0; i < *count; i++) {
        int x = (int)json_integer_value(json_array_get(numbers, (size_t)i)), j = i;
        for (; j > 0 && out[j - 1] > x; j--) out[j] = out[j - 1];
        out[j] = x;
    }
}

static void split_never_leaks(void) {
    enum { HELD = 300, TRAIN = 20000 };
    TaskSpec task = spec("arithmetic", (int[]){2}, 1, 1);
    Recipe r = {.seed = 4, .tasks = &task, .task_count = 1, .held_out = 0.1};
    Err err = {0};
    Tasks *t;
    OK(tasks_open(&r, &t, &err));
    Arena arena = {0};
    Item *held = ARENA_NEW(&arena, Item, HELD);
    int found, n;
    OK(tasks_held_out(t, 0, HELD, &arena, held, &found, &err));
    CHECK_INT(found, HELD);
    bool taken[100][100] = {0};
    for (int i = 0; i < HELD; i++) {
        int x[8];
        sorted_operands(&held[i], x, &n);
        taken[x[0]][x[1]] = true;
        for (int j = 0; j < i; j++) CHECK(held[i].hash != held[j].hash && strcmp(held[i].prompt, held[j].prompt) != 0);
    }
    for (int i = 0; i < TRAIN; i++) {
        Item item;
        int x[8];
        Arena one = {0};
        OK(tasks_train_item(t, NULL, (uint64_t)i, &one, &item, &err));
        sorted_operands(&item, x, &n);
        if (taken[x[0]][x[1]]) FAIL("%s is trained on and held out", item.prompt);
        arena_reset(&one);
    }
    arena_reset(&arena);
    tasks_close(t);
}

static void held_out_is_always_the_same(void) {
    TaskSpec task = spec("arithmetic", all_levels, 6, 1);
    Err err = {0};
    char *first = NULL;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        Recipe r = {.seed = seed, .tasks = &task, .task_count = 1, .held_out = 0.1};
        Tasks *t;
        Arena arena = {0};
        Item items[600];
        Buf all = {0};
        OK(tasks_open(&r, &t, &err));
        CHECK_INT(tasks_level_count(t), 6);
        for (int level = 0; level < 6; level++) {
            TaskLevel l;
            int found;
            tasks_level(t, level, &l);
            CHECK(l.level == level + 1 && l.distinct >= 1000 && !strcmp(l.kind, "arithmetic"));
            OK(tasks_held_out(t, level, 600, &arena, items, &found, &err));
            CHECK_INT(found, 600); // every level has the 400 that a comparison asks for
            for (int i = 0; i < found; i++) buf_puts(&all, items[i].prompt);
            OK(tasks_held_out(t, level, 5, &arena, items, &found, &err));
            CHECK(found == 5 && strstr(all.data, items[4].prompt)); // fewer are the first of more
        }
        if (first)
            CHECK_STR(all.data, first);
        else
            first = xstrdup(all.data);
        buf_free(&all);
        arena_reset(&arena);
        tasks_close(t);
    }
    free(first);
}

static void a_small_level_gives_what_it_has(void) {
    TaskSpec task = spec("arithmetic", (int[]){2}, 1, 1);
    Recipe r = {.seed = 4, .tasks = &task, .task_count = 1, .held_out = 0.02};
    Err err = {0};
    Tasks *t;
    Arena arena = {0};
    OK(tasks_open(&r, &t, &err));
    Item *items = ARENA_NEW(&arena, Item, 5000);
    int found, exact = 0;
    OK(tasks_held_out(t, 0, 5000, &arena, items, &found, &err));
    for (int a = 10; a < 100; a++)
        for (int b = 10; b < 100; b++) {
            char identity[32];
            int n = snprintf(identity, sizeof identity, "%d+%d=", a < b ? a : b, a < b ? b : a);
            exact += split_held_out("arithmetic", identity, (size_t)n, 0.02);
        }
    CHECK(exact > 80);
    CHECK_INT(found, exact);
    arena_reset(&arena);
    tasks_close(t);
}

static void training_items_are_a_function(void) {
    TaskSpec specs[] = {spec("arithmetic", (int[]){2, 4, 6}, 3, 3), spec("countdown", (int[]){1}, 1, 1)};
    Recipe r = {.seed = 11, .tasks = specs, .task_count = 2, .held_out = 0.1};
    Stage a = {.name = (char[]){"a"}}, b = {.name = (char[]){"b"}, .levels = (int[]){4}, .level_count = 1};
    Err err = {0};
    Tasks *t, *again;
    OK(tasks_open(&r, &t, &err));
    OK(tasks_open(&r, &again, &err));
    int countdown = 0, per_level[7] = {0}, same_in_b = 0;
    enum { N = 4000 };
    for (uint64_t i = 0; i < N; i++) {
        Arena arena = {0};
        Item x, y, z;
        OK(tasks_train_item(t, &a, N - i, &arena, &x, &err));
        OK(tasks_train_item(again, &a, N - i, &arena, &y, &err));
        OK(tasks_train_item(t, &b, N - i, &arena, &z, &err));
        CHECK(!strcmp(x.prompt, y.prompt) && !strcmp(x.truth, y.truth) && x.hash == y.hash && json_equal(x.row, y.row));
        countdown += !strcmp(x.kind, "countdown");
        if (!strcmp(x.kind, "arithmetic")) per_level[x.level]++;
        CHECK(!strcmp(z.kind, "arithmetic") && z.level == 4); // countdown has no level 4
        same_in_b += !strcmp(x.prompt, z.prompt);
        arena_reset(&arena);
    }
    // Binomial shares: 4 standard deviations.
    CHECK_NEAR(countdown, N / 4.0, 4 * sqrt(N * 0.25 * 0.75));
    CHECK_NEAR(per_level[2], N / 4.0, 4 * sqrt(N * 0.25 * 0.75));
    CHECK_NEAR(per_level[6], N / 4.0, 4 * sqrt(N * 0.25 * 0.75));
    CHECK_INT(same_in_b, 0);
    tasks_close(t);
    tasks_close(again);
}

// ---- datasets --------------------------------------------------------------------------------------------
static char folder[64];
static const char *write_file(const char *name, const char *text, size_t size) {
    static char path[128];
    Err err = {0};
    snprintf(folder, sizeof folder, "/tmp/reckon-tasks-%d", (int)getpid());
    OK(folder_make(folder, &err));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(file_write_atomic(path, text, size, &err));
    return path;
}

static void dataset_rows(void) {
    static const char text[] =
        "\xEF\xBB\xBF{\"prompt\":\"One?\",\"answer\":\"1\",\"level\":2,\"kind\":\"count\",\"demonstration\":\"0+1=1\"}\r\n"
        "\n   \n"
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"Two?\"}],\"answer\":-2,\"extra\":[1]}\n"
        "{\"answer\":\"3\",\"prompt\":\"\xe2\x82\xac \\u20ac?\"}"; // no newline at the end
    Dataset d;
    Err err = {0};
    char hash[65];
    OK(dataset_read(write_file("d.jsonl", text, sizeof text - 1), true, 0.0, &d, &err));
    OK(folder_remove(folder, &err));
    sha256_hex(text, sizeof text - 1, hash);
    CHECK_STR(d.hash, hash);
    CHECK(d.count == 3 && d.train_count == 3 && d.held_out_count == 0 && d.group_count == 2);
    const Item *one = &d.rows[0].item, *two = &d.rows[1].item;
    CHECK(!strcmp(one->prompt, "One?") && !strcmp(one->truth, "1") && one->level == 2 && !strcmp(one->kind, "count"));
    CHECK(!strcmp(one->demonstration, "0+1=1") && one->messages == NULL);
    CHECK(!strcmp(two->prompt, "Two?") && !strcmp(two->truth, "-2") && two->level == 1 && !strcmp(two->kind, "jsonl"));
    CHECK(json_array_size(two->messages) == 2 && json_object_get(two->row, "extra") && two->demonstration == NULL);
    CHECK_STR(d.rows[2].item.prompt, "\xe2\x82\xac \xe2\x82\xac?");
    dataset_free(&d);
}

// verl's layout, compressed; and compressed files that aren't whole.
static void dataset_of_verl(void) {
    static const char text[] =
        "{\"data_source\":\"gsm8k\",\"prompt\":[{\"role\":\"user\",\"content\":\"Two?\"}],\"ability\":\"math\","
        "\"reward_model\":{\"style\":\"rule\",\"ground_truth\":\"2\"},\"extra_info\":{\"index\":0}}\n"
        "{\"data_source\":\"gsm8k\",\"prompt\":[{\"role\":\"user\",\"content\":\"Three?\"}],\"reward_model\":{\"ground_truth\":3}}\n";
    char packed[1024];
    size_t size = ZSTD_compress(packed, sizeof packed, text, sizeof text - 1, 3);
    CHECK(!ZSTD_isError(size));
    Dataset d;
    Err err = {0};
    OK(dataset_read(write_file("d.jsonl.zst", packed, size), true, 0.0, &d, &err));
    CHECK_INT(d.count, 2);
    const Item *one = &d.rows[0].item, *two = &d.rows[1].item;
    CHECK(!strcmp(one->kind, "gsm8k") && !strcmp(one->prompt, "Two?") && !strcmp(one->truth, "2") && json_array_size(one->messages) == 1);
    CHECK(!strcmp(two->truth, "3") && json_object_get(one->row, "extra_info"));
    dataset_free(&d);
    CHECK(!dataset_read(write_file("d.jsonl.zst", packed, size - 5), true, 0.0, &d, &err) && strstr(err.msg, "it ends within a frame"));
    CHECK(!dataset_read(write_file("d.jsonl.zst", text, 40), true, 0.0, &d, &err) && strstr(err.msg, "isn't whole zstd data"));
    OK(folder_remove(folder, &(Err){0}));
}

static void dataset_epochs_and_split(void) {
    enum { ROWS = 1000 };
    Buf text = {0};
    for (int i = 0; i < ROWS; i++) buf_printf(&text, "{\"prompt\":\"q%d\",\"answer\":%d,\"level\":%d}\n", i, i, i % 2);
    TaskSpec task = spec("jsonl", NULL, 0, 1);
    task.file = (char *)(uintptr_t)write_file("d.jsonl", text.data, text.size);
    buf_free(&text);
    Recipe r = {.seed = 2, .tasks = &task, .task_count = 1, .held_out = 0.2};
    Stage stage = {.name = (char[]){"s"}};
    Err err = {0};
    Tasks *t;
    OK(tasks_open(&r, &t, &err));
    OK(folder_remove(folder, &err));
    Arena arena = {0};
    Item *held = ARENA_NEW(&arena, Item, ROWS);
    bool is_held[ROWS] = {0};
    int held_count = 0, found;
    CHECK_INT(tasks_level_count(t), 2);
    for (int l = 0; l < 2; l++) {
        TaskLevel level;
        tasks_level(t, l, &level);
        CHECK_INT(level.distinct, ROWS / 2);
        OK(tasks_held_out(t, l, ROWS, &arena, held, &found, &err));
        for (int i = 0; i < found; i++) {
            CHECK_INT(held[i].level, level.level);
            CHECK(!is_held[atoi(held[i].truth)]);
            is_held[atoi(held[i].truth)] = true;
        }
        held_count += found;
    }
    CHECK_NEAR(held_count, 200, 4 * sqrt(ROWS * 0.2 * 0.8));
    // Two epochs: each training row exactly twice, in two different orders.
    int times[ROWS] = {0}, train = ROWS - held_count, same_place = 0, *first = ARENA_NEW(&arena, int, train);
    for (int i = 0; i < 2 * train; i++) {
        Item item;
        Arena one = {0};
        OK(tasks_train_item(t, &stage, (uint64_t)i, &one, &item, &err));
        int row = atoi(item.truth);
        times[row]++;
        if (i < train)
            first[i] = row;
        else
            same_place += first[i - train] == row;
        arena_reset(&one);
    }
    for (int i = 0; i < ROWS; i++) CHECK_INT(times[i], is_held[i] ? 0 : 2);
    CHECK(same_place < 20);
    arena_reset(&arena);
    tasks_close(t);
}

static const Test tests[] = {
    {"arithmetic is right", arithmetic_is_right},
    {"demonstrations as written", demonstrations_as_written},
    {"enough distinct problems", enough_distinct_problems},
    {"countdown is solvable", countdown_is_solvable},
    {"the countdown script judges", countdown_script_judges},
    {"the split never leaks", split_never_leaks},
    {"held out is always the same", held_out_is_always_the_same},
    {"a small level gives what it has", a_small_level_gives_what_it_has},
    {"training items are a function", training_items_are_a_function},
    {"dataset rows", dataset_rows},
    {"data sets in verl's layout", dataset_of_verl},
    {"dataset epochs and split", dataset_epochs_and_split},
};
TEST_MAIN(tests)
