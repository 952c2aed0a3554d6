// Recipes: defaults, stored values, overrides, lines, the hash, and the shipped ones. Malformed recipes are in
// test_bad_input.c.
#include "../test.h"
#include "files.h"
#include "rl.h"
#include "../../rl/recipe_parts.h"
#include "stages.h"
#include <unistd.h>

#define MINIMAL "characters=\"0123456789+=\", tasks={{\"arithmetic\", levels={2,3}}}, stages={grpo{steps=10}}"

static char folder[64];
static const char *write_file(const char *name, const char *text) {
    static char path[128];
    Err err = {0};
    snprintf(folder, sizeof folder, "/tmp/reckon-recipe-%d", (int)getpid());
    OK(folder_make(folder, &err));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(file_write_atomic(path, text, strlen(text), &err));
    return path;
}
static Recipe *read_with(const char *text, const char *const *sets) {
    Err err = {0};
    Recipe *r = NULL;
    OK(recipe_read(write_file("my_run.lua", text), sets, &r, &err));
    OK(folder_remove(folder, &err));
    return r;
}

static void defaults_follow_trl(void) {
    Recipe *r = read_with("return {" MINIMAL "}", NULL);
    CHECK_STR(r->name, "my_run");
    CHECK_STR(r->run_folder, "runs/my_run");
    CHECK_INT(r->seed, 1);
    CHECK(r->model_path == NULL && !r->chat && r->precision == PRECISION_BF16);
    CHECK_STR(r->style[MODE_THINK].prefix, "<think>");
    CHECK_STR(r->style[MODE_DIRECT].prefix, "<think></think>");
    CHECK(r->style[MODE_THINK].system == NULL);
    CHECK_INT(r->stage_count, 1);
    const Stage *s = &r->stages[0];
    CHECK(s->kind == STAGE_GRPO && s->steps == 10 && s->batch == 8 && s->group_size == 8 && s->levels == NULL);
    CHECK_STR(s->name, "grpo");
    CHECK(s->mode_share[MODE_THINK] == 1 && s->mode_share[MODE_DIRECT] == 0);
    CHECK(s->algo.advantage == ADVANTAGE_GROUP && s->algo.advantage_eps == 1e-4 && s->algo.loss == LOSS_DAPO);
    CHECK(s->algo.epsilon_low == 0.2 && s->algo.epsilon_high == 0.2 && s->algo.delta == 0 && s->algo.kl == 0);
    CHECK(s->algo.minibatches == 1 && s->algo.epochs == 1 && !s->algo.mask_truncated);
    CHECK(s->optimizer.learning_rate == 1e-6 && s->optimizer.beta1 == 0.9 && s->optimizer.max_gradient_norm == 1);
    CHECK(s->sampling.temperature == 1 && s->sampling.top_k == 0 && s->sampling.top_p == 1 && s->sampling.max_tokens == 256);
    CHECK(s->sampling.stop == NULL && s->microbatch_tokens == 0);
    CHECK_INT(r->reward_count, 1);
    CHECK_STR(r->rewards[0].script, "correct");
    CHECK(r->rewards[0].weight == 1 && r->rewards[0].options == NULL && r->max_failed_share == 0.1);
    CHECK(r->reward_limits.fuel == reward_default_limits().fuel);
    CHECK(r->evaluate_sampling.max_tokens == 256 && r->keep_checkpoints == 2);
    CHECK_STR(json_string_value(json_object_get(r->tasks[0].options, "style")), "plain");
    // A tiny Llama with a token for each character after <eos>, <think> and </think>.
    CHECK_STR(r->config.model_type, "llama");
    CHECK(r->config.layers == 4 && r->config.width == 128 && r->config.head_width == 32 && r->config.feed_forward == 384);
    CHECK(r->config.vocabulary == 15 && r->config.stop_count == 1 && r->config.stop_ids[0] == 0 && r->config.tied);
    Err err = {0};
    OK(config_check(&r->config, "recipe", &err));
    recipe_free(r);
}

static void values_are_stored(void) {
    Recipe *r = read_with(
        "return { name='x', seed=9007199254740991, characters='ab\xc3\xa9',\n"
        " model={preset='mini', width=96, heads=4, kv_heads=2, precision='fp32', max_positions=300},\n"
        " tasks={{'arithmetic', levels={5}, weight=2, style='words'}, {'countdown'}}, held_out=0.25,\n"
        " prompts={think={system='S', instruction='I', prefix='P'}},\n"
        " rewards={'correct', {'format', weight=0.1, tags={'a','b'}}},\n"
        " optimizer={learning_rate=1e-3, schedule='cosine'}, algo={kl=0.5},\n"
        " stages={ sft{steps=3, batch=4, modes={direct=1}, optimizer={schedule='constant'}},\n"
        "  grpo{steps=5, levels={5}, prompts=6, group_size=2, sampling={stop={'\\n'}, top_k=3, max_tokens=20},\n"
        "   algo={loss='dr_grpo', advantage='none', epsilon_low=0.1, minibatches=3}}, grpo{steps=1, algo={kl=0}} },\n"
        " evaluate={items=7, samples=2}, compare={items=9}, cost={watts=65, currency='USD'}, threads=2, run='/tmp/q',\n"
        " microbatch_tokens=512, reward_limits={memory_mib=3} }",
        NULL);
    CHECK(r->seed == 9007199254740991u && r->config.vocabulary == 6 && r->precision == PRECISION_FP32);
    CHECK(r->config.layers == 2 && r->config.width == 96 && r->config.head_width == 24 && r->config.kv_heads == 2);
    CHECK(r->config.feed_forward == 288 && r->config.max_positions == 300);
    CHECK(r->task_count == 2 && r->tasks[0].weight == 2 && r->tasks[0].levels[0] == 5 && r->tasks[1].level_count == 3);
    CHECK_STR(r->tasks[1].kind, "countdown");
    CHECK_STR(json_string_value(json_object_get(r->tasks[0].options, "style")), "words");
    CHECK_STR(r->style[MODE_THINK].instruction, "I");
    CHECK_STR(r->style[MODE_DIRECT].prefix, "<think></think>");
    CHECK(r->reward_count == 2 && r->rewards[1].weight == 0.1);
    CHECK_INT(json_array_size(json_object_get(r->rewards[1].options, "tags")), 2);
    CHECK(json_object_get(r->rewards[1].options, "weight") == NULL);
    const Stage *s = r->stages;
    CHECK(s[0].kind == STAGE_SFT && s[0].batch == 4 && s[0].mode_share[MODE_DIRECT] == 1 && s[0].mode_share[MODE_THINK] == 0);
    CHECK(s[0].optimizer.learning_rate == 1e-3 && s[0].optimizer.schedule == SCHEDULE_CONSTANT);
    CHECK(s[1].optimizer.schedule == SCHEDULE_COSINE && s[1].algo.kl == 0.5 && s[2].algo.kl == 0);
    CHECK(s[1].algo.loss == LOSS_DR_GRPO && s[1].algo.advantage == ADVANTAGE_NONE && s[1].algo.epsilon_high == 0.1);
    CHECK(s[1].sampling.top_k == 3 && !strcmp(s[1].sampling.stop[0], "\n") && s[1].sampling.stop[1] == NULL);
    CHECK_STR(s[1].name, "grpo");
    CHECK_STR(s[2].name, "grpo 2");
    CHECK(r->evaluate_items == 7 && r->evaluate_samples == 2 && r->compare_items == 9 && r->threads == 2);
    CHECK(r->watts == 65 && !strcmp(r->currency, "USD") && s[0].microbatch_tokens == 512);
    CHECK_INT(r->reward_limits.memory, 3 << 20);
    CHECK_INT(json_integer_value(json_object_get(json_object_get(r->resolved, "model"), "feed_forward")), 288);
    recipe_free(r);
}

static void overrides(void) {
    const char *sets[] = {"stages.2.steps=5",    "algo.kl=0.001", "name=7",        "stages.sft.modes.direct=0.25",
                          "stages.1.modes.think=0.75", "stages.3.algo.kl=0.2", "tasks.1.levels=3,4", "stages.3.sampling.stop=[\"x\"]",
                          "rewards.1.weight=3", "rewards.1.depth=4", "model.width=64", "evaluate.items=1e2", NULL};
    Recipe *r = read_with("return {characters='01', tasks={{'arithmetic', levels={2,3}}}, rewards={'correct'}, "
                          "stages={sft{steps=1}, grpo{steps=2, algo={kl=0.5}}, grpo{name='last', steps=2, algo={kl=0.5}}}}",
                          sets);
    CHECK_STR(r->name, "7");
    CHECK_INT(r->stages[1].steps, 5);
    CHECK(r->stages[1].algo.kl == 0.001); // for all stages, before what they say themselves
    CHECK(r->stages[2].algo.kl == 0.2);   // but not before an override of their own
    CHECK(r->stages[0].mode_share[MODE_DIRECT] == 0.25);
    CHECK(r->tasks[0].level_count == 2 && r->tasks[0].levels[1] == 4);
    CHECK_STR(r->stages[2].sampling.stop[0], "x");
    CHECK(r->rewards[0].weight == 3 && json_integer_value(json_object_get(r->rewards[0].options, "depth")) == 4);
    CHECK(r->config.width == 64 && r->evaluate_items == 100);
    recipe_free(r);
}

static void hash_is_of_what_counts(void) {
    static const struct {
        const char *set;
        bool same;
    } cases[] = {{"run=/tmp/elsewhere", true}, {"threads=3", true},          {"reward_workers=1", true},
                 {"cost.watts=10", true},      {"microbatch_tokens=99", true}, {"keep_checkpoints=5", true},
                 {"seed=2", false},            {"stages.1.steps=11", false}, {"held_out=0.2", false},
                 {"model.layers=3", false},    {"stages.1.steps=10", true}};
    Recipe *base = read_with("return {" MINIMAL "}", NULL);
    CHECK_INT(strlen(base->hash), 64);
    for (int i = 0; i < COUNT(cases); i++) {
        const char *sets[] = {cases[i].set, NULL};
        Recipe *r = read_with("-- another comment\nreturn {" MINIMAL "}", sets);
        if ((strcmp(r->hash, base->hash) == 0) != cases[i].same) FAIL("%s: the hash is %s", cases[i].set, cases[i].same ? "another" : "the same");
        recipe_free(r);
    }
    const json_t *outside = json_object_get(base->resolved, "outside");
    CHECK(json_object_get(outside, "run") && json_object_get(outside, "threads") && !json_object_get(base->resolved, "run"));
    // The resolved recipe without "outside" is what was hashed.
    json_t *copy = json_copy(base->resolved);
    json_object_del(copy, "outside");
    Buf text = {0};
    char hash[65];
    json_write(copy, &text);
    sha256_hex(text.data, text.size, hash);
    CHECK_STR(hash, base->hash);
    buf_free(&text);
    json_decref(copy);
    recipe_free(base);
}

static void lines_of_keys(void) {
    static const char text[] = "-- return { name = 1 }\n"               // 1
                               "local common = { kl = 1 }\n"            // 2
                               "local function f() return { a = 1 } end\n" // 3
                               "if common then f() end\n"               // 4
                               "return {\n"                             // 5
                               "  name = \"x, }\",\n"                   // 6
                               "  model = { --[[ multi\n"               // 7
                               "line ]] path = [[a\n"                   // 8
                               "b]], precision = 'fp32' },\n"           // 9
                               "  other = function() return { b = 1, c = { 2 } } end,\n" // 10
                               "  stages = { sft{ steps = 1 },\n"       // 11
                               "    grpo({ steps = 2,\n"                // 12
                               "      algo = common, [\"levels\"] = {1,\n" // 13
                               "        2}; batch = 1 + 2 == 3 and { x = 1 }.x,\n" // 14
                               "      last = 1 }) },\n"                 // 15
                               "  end_ = 1 }\n";                        // 16
    static const struct {
        const char *path;
        long line;
    } cases[] = {{"name", 6},           {"model", 7},          {"model.path", 8},       {"model.precision", 9},
                 {"stages.1.steps", 11}, {"stages.2", 12},      {"stages.2.steps", 12},  {"stages.2.algo", 13},
                 {"stages.2.algo.kl", 2}, {"stages.2.levels", 13}, {"stages.2.levels.2", 14}, {"stages.2.batch", 14},
                 {"stages.2.last", 15},  {"end_", 16},          {"stages.2.absent", 12}, {"absent", 1},
                 {"other.zzz", 10}};
    RecipeLines *l = recipe_lines_read(text, sizeof text - 1);
    for (int i = 0; i < COUNT(cases); i++)
        if (recipe_line(l, cases[i].path) != cases[i].line)
            FAIL("%s: got line %ld, want %ld", cases[i].path, recipe_line(l, cases[i].path), cases[i].line);
    recipe_lines_free(l);
    // Never trusts a text to end well.
    for (size_t n = 0; n < sizeof text; n++) recipe_lines_free(recipe_lines_read(text, n));
}

// Every row says what it means, has a range where it needs one, and a default that is fit.
static void check_fields(const Field *fields) {
    for (const Field *f = fields; f->key; f++) {
        if (!f->help || !*f->help) FAIL("%s has no help", f->key);
        bool ranged = f->kind != FIELD_BOOL && f->kind != FIELD_CHOICE && f->kind != FIELD_SECTION && f->kind != FIELD_LIST;
        if (ranged && !(f->low < f->high)) FAIL("%s has no range", f->key);
        if ((f->kind == FIELD_SECTION) != (f->fields != NULL)) FAIL("%s: a section has fields", f->key);
        if ((f->kind == FIELD_CHOICE) != (f->choices != NULL)) FAIL("%s: a choice has choices", f->key);
        if (f->fields) check_fields(f->fields);
    }
}
static void schema_is_whole(void) {
    check_fields(recipe_fields);
    check_fields(reward_fields);
    for (int i = 0; i < STAGE_KINDS; i++) check_fields(stage_rows[i].keys);
    for (const Variant *v = task_variants; v->name; v++) check_fields(v->fields);
}

// A run's resolved recipe gives the same recipe back, from another folder too.
static void recipe_comes_back_from_a_run(void) {
    Err err = {0};
    const char *sets[] = {"stages.2.algo.kl=0.25", "run=/tmp/first", "threads=2", NULL};
    write_file("mine.lua", "return function() return 1 end");
    write_file("data.jsonl", "{\"prompt\":\"a\",\"answer\":1}");
    Recipe *r, *again;
    OK(recipe_read(write_file("a.lua", "return {characters='01+=', rewards={{'mine.lua', weight=2, depth={1}}, 'correct'}, "
                                       "tasks={{'arithmetic', levels={2}}, {'jsonl', file='data.jsonl'}}, prompts={think={system='s'}},"
                                       "stages={sft{steps=2}, grpo{steps=3}, grpo{steps=4, levels={2}}}}"),
                   sets, &r, &err));
    Buf text = {0}, text_again = {0};
    json_write(r->resolved, &text);
    write_file("recipe.resolved.json", text.data);
    OK(recipe_of_run(folder, &again, &err));
    CHECK_STR(again->hash, r->hash);
    CHECK_STR(again->run_folder, folder);
    CHECK(again->stages[1].algo.kl == 0.25 && again->threads == 2 && again->stages[2].levels[0] == 2);
    CHECK(again->rewards[0].weight == 2 && json_object_get(again->rewards[0].options, "depth"));
    CHECK(file_exists(again->rewards[0].script) && file_exists(again->tasks[1].file));
    json_object_set_new(json_object_get(again->resolved, "outside"), "run", json_string("/tmp/first"));
    json_write(again->resolved, &text_again);
    CHECK_STR(text_again.data, text.data);
    recipe_free(again);
    write_file("recipe.resolved.json", "{\"name\":\"x\"}");
    CHECK(!recipe_of_run(folder, &again, &err) && err.code == ERR_DATA && again == NULL);
    OK(folder_remove(folder, &err));
    buf_free(&text);
    buf_free(&text_again);
    recipe_free(r);
}

static void shipped_recipes(void) {
    static const char *const names[] = {"quickstart", "smollm2_arithmetic", "think_less", "r1_pipeline", "r1_zero", "small_alone"};
    for (int i = 0; i < COUNT(names); i++) {
        char path[512];
        Err err = {0};
        Recipe *r;
        snprintf(path, sizeof path, "%s/../../scripts/recipes/%s.lua", TEST_DATA, names[i]);
        OK(recipe_read(path, NULL, &r, &err));
        CHECK(r->stage_count >= 1 && r->evaluate_items >= 100);
        recipe_free(r);
    }
}

static const Test tests[] = {
    {"defaults follow TRL", defaults_follow_trl},
    {"values are stored", values_are_stored},
    {"overrides", overrides},
    {"the hash is of what counts", hash_is_of_what_counts},
    {"lines of keys", lines_of_keys},
    {"the schema is whole", schema_is_whole},
    {"a recipe comes back from a run", recipe_comes_back_from_a_run},
    {"shipped recipes", shipped_recipes},
};
TEST_MAIN(tests)
