// A small model of ours beside endpoints on the same items: what is counted, what isn't known, what fails.
#include "compare_run.h"
#include "endpoint_test.h"
#include "report.h"
#include "train_test.h"
#include <math.h>

enum { ITEMS = 20 };
static const char recipe[] =
    "return {seed=11, model={preset='mini', max_positions=32}, characters='0123456789=', threads=1,\n"
    " tasks={{'jsonl', file='data.jsonl'}}, held_out=0.2, rewards={'right.lua'},\n"
    " stages={ sft{steps=2, batch=8, modes={direct=1}} }, evaluate={items=0, max_tokens=3} }";

static TrainedRun train_small(void) {
    Buf rows = {0};
    for (int i = 0; i < 300; i++) buf_printf(&rows, "{\"prompt\":\"%03d=\",\"answer\":\"%d\"}\n", i, i % 10);
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    scratch_file("right.lua", "return function(s) return s.answer == s.truth and 1 or 0 end");
    TrainedRun run = train_run("run", recipe, NULL, 2);
    TRAINED(run);
    return run;
}

typedef struct Compared {
    Recipe *recipe, chat; // chat: the same, asked as messages
    Tasks *tasks;
    RewardPool *rewards;
    ModelChoice models[3];
    EndpointOptions endpoints[3];
    CompareSetup setup;
} Compared;
static const char *const no_arms[] = {NULL};

static void open_all(Compared *c, const TrainedRun *run, const char *path) {
    static char think[] = "THINK", direct[] = "AT ONCE";
    Err err = {0};
    OK(recipe_of_run(run->folder, &c->recipe, &err));
    c->chat = *c->recipe;
    c->chat.chat = true, c->chat.style[MODE_THINK].instruction = think, c->chat.style[MODE_DIRECT].instruction = direct;
    OK(tasks_open(c->recipe, &c->tasks, &err));
    OK(reward_pool_open(c->recipe->rewards, c->recipe->reward_count, c->recipe->reward_workers, &c->recipe->reward_limits, &c->rewards, &err));
    compare_defaults(c->recipe, &c->setup);
    c->models[0] = (ModelChoice){.name = "own", .path = path, .what = "run", .recipe = c->recipe, .step = 2};
    c->setup.tasks = c->tasks, c->setup.rewards = c->rewards, c->setup.models = c->models, c->setup.model_count = 1, c->setup.items = ITEMS;
    c->setup.arms = no_arms, c->setup.latency = 2, c->setup.gain = false, c->setup.samples = true;
    c->setup.prices = (Prices){.currency = "EUR", .device_hour = 1, .kwh = NAN, .tokens_in = 1, .tokens_out = 10, .watts = NAN};
}
static void add_endpoint(Compared *c, const Server *s, const char *name, const char *model, bool chat) {
    int at = c->setup.model_count++;
    c->endpoints[at] = (EndpointOptions){.url = s->url, .model = model, .retries = 0};
    c->models[at] = (ModelChoice){.name = name, .path = s->url, .what = "endpoint", .recipe = chat ? &c->chat : c->recipe, .step = -1, .endpoint = &c->endpoints[at]};
}
static void close_all(Compared *c) {
    reward_pool_close(c->rewards);
    tasks_close(c->tasks);
    recipe_free(c->recipe);
}

// ---- reading the document ------------------------------------------------------------------------------------
static const json_t *arm_of(const json_t *half, const char *name) {
    size_t i;
    json_t *arm;
    json_array_foreach(json_object_get(half, "arms"), i, arm)
        if (!strcmp(json_string_value(json_object_get(arm, "name")), name)) return json_object_get(arm, "all");
    return NULL;
}
static double number(const json_t *object, const char *key, const char *inner) {
    const json_t *value = json_object_get(object, key);
    if (inner) value = json_object_get(value, inner);
    return json_is_number(value) ? json_number_value(value) : NAN;
}
static bool is_null(const json_t *object, const char *key) { return json_is_null(json_object_get(object, key)); }
// Each note also has a Korean form.
static int count_notes(const json_t *replayable, const char *words) {
    const Report korean = {.korean = true};
    size_t i;
    json_t *note;
    int found = 0;
    json_array_foreach(json_object_get(replayable, "notes"), i, note) {
        json_t *said = note_said(&korean, json_string_value(note));
        if (json_equal(said, note)) FAIL("in no other language: %s", json_string_value(note));
        json_decref(said);
    }
    json_array_foreach(json_object_get(replayable, "notes"), i, note) found += strstr(json_string_value(note), words) != NULL;
    return found;
}

static void check_known(const json_t *replayable, const json_t *measured) {
    const json_t *think = arm_of(replayable, "chat/think"), *direct = arm_of(replayable, "chat/direct"), *cost = arm_of(measured, "chat/think");
    const json_t *model = json_array_get(json_object_get(replayable, "models"), 1);
    CHECK_STR(json_string_value(json_object_get(model, "what")), "endpoint");
    CHECK(is_null(model, "hash") && is_null(model, "parameters"));
    CHECK_NEAR(number(think, "accuracy", NULL), 1, 0);
    CHECK_NEAR(number(direct, "accuracy", NULL), 1, 0);
    CHECK_NEAR(number(think, "tokens", "mean"), 10, 0);
    CHECK_NEAR(number(think, "think_tokens", "mean"), 6, 0);
    CHECK_NEAR(number(think, "answer_tokens", "p95"), 4, 0);
    CHECK_NEAR(number(direct, "think_tokens", "mean"), 0, 0);
    CHECK_NEAR(number(direct, "answer_tokens", "mean"), 2, 0);
    CHECK_NEAR(number(think, "prompt_tokens", NULL), 7, 0);
    CHECK(is_null(think, "flops") && is_null(think, "flops_per_correct") && is_null(think, "outcome_efficiency"));
    CHECK_NEAR(number(cost, "money_per_item", NULL), (7 * 1 + 10 * 10) / 1e6, 1e-15);
    CHECK(is_null(cost, "joules_per_item") && number(cost, "seconds", NULL) > 0 && number(cost, "latency", "mean") > 0);
    CHECK(number(arm_of(replayable, "own/think"), "flops", NULL) > 0 && number(arm_of(measured, "own/think"), "money_per_item", NULL) > 0);
}
// A third of the numbers is refused.
static void check_failures(const json_t *replayable, const json_t *samples) {
    const json_t *think = arm_of(replayable, "partly/think"), *sample;
    int refused = (int)number(think, "unscored", NULL), unanswered = 0, others = 0;
    size_t i;
    CHECK(refused > 0 && refused < ITEMS);
    CHECK_NEAR(number(think, "correct", NULL), ITEMS - refused, 0);
    CHECK_NEAR(number(think, "tokens", "mean"), 10.0 * (ITEMS - refused) / ITEMS, 1e-12);
    CHECK(json_is_null(json_object_get(json_object_get(think, "think_tokens"), "mean"))); // thought, and nobody says how much
    CHECK_INT(count_notes(replayable, "requests of partly/think weren't answered and count as wrong, with no tokens; the first: http://127.0.0.1"), 1);
    json_array_foreach(samples, i, sample) {
        bool own = !strcmp(json_string_value(json_object_get(sample, "arm")), "partly/think");
        unanswered += own && !strcmp(json_string_value(json_object_get(sample, "finish")), "none");
        others += own && !strcmp(json_string_value(json_object_get(sample, "text")), "hm</think>1");
    }
    CHECK(unanswered == refused && others > 0);
}

static void ours_beside_endpoints(void) {
    Server s = start_server();
    TrainedRun run = train_small();
    Err err = {0};
    Compared c = {0};
    json_t *out = NULL;
    char path[200];
    snprintf(path, sizeof path, "%s/checkpoints/step-2", run.folder);
    open_all(&c, &run, path);
    add_endpoint(&c, &s, "chat", "digit", true);
    add_endpoint(&c, &s, "partly", "digit-fails", false);
    OK(compare_models(&c.setup, &out, &err));
    const json_t *replayable = json_object_get(out, "replayable");
    CHECK(replayable && json_is_object(json_object_get(out, "measured")));
    check_known(replayable, json_object_get(out, "measured"));
    check_failures(replayable, json_object_get(out, "samples"));
    CHECK(is_null(json_object_get(replayable, "work"), "flops"));
    CHECK_INT(count_notes(replayable, "another time its answers may differ"), 2);
    CHECK_INT(count_notes(replayable, "asked the same in both"), 0);
    json_decref(out);
    close_all(&c);
    stop_server(&s);
    scratch_remove();
}

static void check_printed(const json_t *out) {
    char line[400];
    FILE *file = tmpfile();
    int unknown = 0;
    CHECK(file);
    fflush(stdout);
    int kept = dup(1);
    dup2(fileno(file), 1);
    compare_print(out);
    fflush(stdout);
    dup2(kept, 1), close(kept);
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        unknown += strstr(line, "unknown  unknown") != NULL;
        CHECK(!strstr(line, "nan"));
    }
    fclose(file);
    CHECK_INT(unknown, 6);
}

// Neither tokens nor money are known, and draws vote all the same.
static void what_is_not_counted(void) {
    Server s = start_server();
    TrainedRun run = train_small();
    Err err = {0};
    Compared c = {0};
    json_t *out = NULL;
    static const char *const arms[] = {"think", "direct", "direct:majority=3", NULL};
    open_all(&c, &run, NULL);
    c.setup.model_count = 0, c.setup.step = -1;
    add_endpoint(&c, &s, "silent", "digit-uncounted", true);
    c.chat.style[MODE_THINK].instruction = c.chat.style[MODE_DIRECT].instruction; // no word for thinking
    c.setup.arms = arms;
    OK(compare_models(&c.setup, &out, &err));
    const json_t *replayable = json_object_get(out, "replayable"), *votes = arm_of(replayable, "direct:majority=3");
    const json_t *cost = arm_of(json_object_get(out, "measured"), "direct:majority=3");
    CHECK_NEAR(number(votes, "accuracy", NULL), 1, 0);
    CHECK(is_null(votes, "prompt_tokens") && is_null(votes, "tokens_per_correct") && json_is_null(json_object_get(json_object_get(votes, "tokens"), "mean")));
    CHECK(is_null(cost, "money_per_item") && is_null(cost, "cost_of_pass") && is_null(cost, "money_parts") && number(cost, "seconds_per_item", NULL) > 0);
    CHECK_INT(count_notes(replayable, "asked the same in both"), 1);
    check_printed(out);
    json_decref(out);
    close_all(&c);
    stop_server(&s);
    scratch_remove();
}

static void what_can_not_be(void) {
    static const char *const budget[] = {"think@4", NULL}, *const routed[] = {"routed", NULL};
    const struct {
        const char *model, *const *arms, *problem;
    } cases[] = {
        {"digit", budget, "thinking can't be closed"},
        {"digit", routed, "log-probabilities"},
        {"repeats-key", no_arms, "none of 20 requests was answered; the first: http://127.0.0.1"},
    };
    Server s = start_server();
    TrainedRun run = train_small();
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Compared c = {0};
        json_t *out = NULL;
        open_all(&c, &run, NULL);
        c.setup.model_count = 0, c.setup.step = -1, c.setup.arms = cases[i].arms;
        add_endpoint(&c, &s, "x", cases[i].model, true);
        bool ok = compare_models(&c.setup, &out, &err);
        close_all(&c);
        if (ok || !strstr(err.msg, cases[i].problem)) FAIL("case %d: found '%s', expected '%s'", i, err.msg, cases[i].problem);
    }
    stop_server(&s);
    scratch_remove();
}

static const Test tests[] = {
    {"ours beside endpoints", ours_beside_endpoints},
    {"what is not counted", what_is_not_counted},
    {"what can not be", what_can_not_be},
};
TEST_MAIN(tests)
