// Environments: the shipped ones on their own cases, episodes whose state outlives any worker, what ends an episode, and
// the messages of calls, whatever bytes they hold.
#include "../test.h"
#include "environment.h"
#include "files.h"
#include "pool.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/reckon-environment-XXXXXX";
static char path[2][64];

static bool open_scripts(const char *first, const char *second, int workers, RewardPool **out, Err *err) {
    const char *sources[] = {first, second};
    RewardSpec specs[2];
    RewardLimits limits = reward_default_limits();
    limits.fuel = 200000, limits.memory = 16 << 20;
    if (!path[0][0]) CHECK(mkdtemp(folder));
    for (int i = 0; i < (second ? 2 : 1); i++) {
        snprintf(path[i], sizeof path[i], "%s/mine%d.lua", folder, i);
        TRY(file_write_atomic(path[i], sources[i], strlen(sources[i]), err));
        specs[i] = (RewardSpec){.script = path[i], .weight = i ? 0.5 : 1};
    }
    return reward_pool_open(specs, second ? 2 : 1, workers, &limits, out, err);
}
static RewardPool *open_pool(const char *source, const char *second, int workers) {
    Err err = {0};
    RewardPool *pool;
    OK(open_scripts(source, second, workers, &pool, &err));
    return pool;
}

static EnvironmentResult play(RewardPool *pool, const char *const *texts, int count, json_t **said) {
    Err err = {0};
    EnvironmentResult result;
    json_t *actions = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(actions, json_string(texts[i]));
    EnvironmentCall about = {.id = "test", .mode = "direct", .seed = 9};
    OK(episode_play(pool, &about, actions, said, &result, &err));
    json_decref(actions);
    return result;
}

// ---- shipped -------------------------------------------------------------------------------------------------------------
typedef struct Shipped {
    RewardPool *pool;
    int count;
} Shipped;

static bool judge_case(void *context, json_t *row, long line, Err *err) {
    Shipped *c = context;
    const json_t *actions = json_object_get(row, "actions"), *says = json_object_get(row, "says"), *expect = json_object_get(row, "expect");
    const char *mode = json_string_value(json_object_get(row, "mode"));
    EnvironmentCall about = {.id = "case", .row = json_object_get(row, "row"), .prompt = json_string_value(json_object_get(row, "prompt")),
                             .truth = json_string_value(json_object_get(row, "truth")), .mode = mode ? mode : "direct"};
    json_t *said;
    EnvironmentResult result;
    Verdict v;
    TRY(episode_play(c->pool, &about, json_is_array(actions) ? actions : NULL, &said, &result, err));
    RewardSample s = {.id = "case", .completion = "", .mode = "direct", .finish = "stop", .environment = &result};
    TRY(reward_pool_submit(c->pool, &s, &v, err) && reward_pool_finish(c->pool, err));
    bool as_said = !says || json_equal(says, said);
    json_decref(said);
    c->count++;
    bool right = json_is_number(expect) ? v.state == VERDICT_SCORED && fabs(v.score - json_number_value(expect)) <= 1e-12
                                        : strcmp(json_string_value(expect), verdict_state_names[v.state]) == 0;
    return (right && as_said) || fail(err, ERR_FAILED, "", "line %ld: got %s %g %s%s", line, verdict_state_names[v.state], v.score, v.why, as_said ? "" : ", and said something else");
}

static void shipped_environments(void) {
    static const struct { const char *name; int cases; } all[] = {{"guess", 6}, {"calculator", 9}, {"shop", 6}};
    for (int i = 0; i < COUNT(all); i++) {
        Err err = {0};
        RewardSpec spec = {.script = all[i].name, .weight = 1};
        RewardLimits limits = reward_default_limits();
        Shipped cases = {0};
        OK(reward_pool_open(&spec, 1, 1, &limits, &cases.pool, &err));
        CHECK(reward_pool_environment(cases.pool)->demonstrates);
        char *file = xasprintf("%s/../../rewards/cases/%s.jsonl", TEST_DATA, all[i].name);
        if (!json_lines(file, 1 << 20, judge_case, &cases, &err)) FAIL("%s: %s", all[i].name, err.msg);
        CHECK(cases.count >= all[i].cases);
        reward_pool_close(cases.pool);
        free(file);
    }
}

// ---- episodes ------------------------------------------------------------------------------------------------------------
// A random walk that also keeps all that it has seen.
static const char walk[] =
    "local seen = 0\n"
    "return { stop = { '!', '!?' }, turns = 5,\n"
    "  reset = function(row, sample) return { at = math.random(1000), log = {}, mode = sample.mode }, 'go ' end,\n"
    "  step = function(state, action, turn)\n"
    "    for i = 1, 5000 do seen = seen + 1 end\n    seen = seen - 4999\n"
    "    state.at = state.at + math.random(1000)\n"
    "    state.log[#state.log + 1] = action .. ':' .. state.at .. ':' .. seen .. ':' .. turn.number .. tostring(turn.last)\n"
    "    return state, table.concat(state.log, ' '), { steps = 1, a = #action }, action == 'end'\n"
    "  end }";

static void episodes_outlive_workers(void) {
    static const char *const texts[] = {"one", "two", "three", "four", "end"};
    json_t *first = NULL, *said;
    for (int kills = 0; kills < 2; kills++) {
        RewardPool *pool = open_pool(walk, NULL, 1 + kills);
        const RewardEnvironment *e = reward_pool_environment(pool);
        CHECK(e && e->turns == 5 && !e->demonstrates);
        CHECK_STR(e->stop[0], "!");
        CHECK_STR(e->stop[1], "!?");
        CHECK(!e->stop[2]);
        for (int i = 0; i < 3; i++) {
            Err err = {0};
            EnvironmentReply extra;
            pid_t pids[2];
            int n = reward_pool_pids(pool, pids, 2);
            // A worker that dies with a call on its way, and between two episodes.
            EnvironmentCall call = {.kind = ENVIRONMENT_RESET, .seed = 1};
            OK(reward_pool_call(pool, &call, &extra, &err));
            for (int k = 0; kills && k < n; k++) kill(pids[k], SIGKILL);
            EnvironmentResult r = play(pool, texts, 5, &said);
            CHECK(extra.arrived && extra.state == VERDICT_SCORED);
            environment_reply_free(&extra);
            CHECK_INT(r.state, VERDICT_SCORED);
            CHECK_INT(r.part_count, 2);
            CHECK_STR(r.parts[0].name, "a");
            CHECK(r.parts[0].value == 18 && r.parts[1].value == 5);
            CHECK_INT(json_array_size(said), 6);
            CHECK(strstr(json_string_value(json_array_get(said, 5)), ":1:5true") && strstr(json_string_value(json_array_get(said, 5)), ":1:4false"));
            if (first && !json_equal(first, said)) FAIL("an episode went another way after a worker's death");
            if (!first) first = json_incref(said);
            json_decref(said);
        }
        reward_pool_close(pool);
    }
    json_decref(first);
}

// An episode's score joins the other scripts' by its weight; only the environment's is known to the worker already.
static void scores_beside_other_scripts(void) {
    static const char *const texts[] = {"end"};
    Err err = {0};
    RewardPool *pool = open_pool(walk, "return function(s) return #s.completion end", 1);
    EnvironmentResult r = play(pool, texts, 1, NULL);
    RewardSample s = {.id = "s", .completion = "abcd", .completion_size = 4, .mode = "direct", .finish = "stop", .environment = &r};
    Verdict v, without;
    OK(reward_pool_submit(pool, &s, &v, &err));
    s.environment = NULL;
    OK(reward_pool_submit(pool, &s, &without, &err));
    OK(reward_pool_finish(pool, &err));
    CHECK_INT(v.state, VERDICT_SCORED);
    CHECK_NEAR(v.score, 3 + 1 + 0.5 * 4, 1e-12);
    CHECK_INT(v.part_count, 3);
    CHECK_STR(v.parts[0].name, "mine0.a");
    CHECK(v.fuel >= r.fuel && r.fuel > 0);
    CHECK_INT(without.state, VERDICT_ERROR);
    CHECK(strstr(without.why, "is an environment, which scores episodes"));
    reward_pool_close(pool);
}

static void what_ends_an_episode(void) {
    static const struct { const char *step; VerdictState state; const char *why; } cases[] = {
        {"while true do end", VERDICT_BUDGET, "out of fuel"},
        {"error('no such door')", VERDICT_ERROR, "no such door"},
        {"return nil, 'not this one'", VERDICT_ABSTAINED, "not this one"},
        {"return nil", VERDICT_ERROR, "step returned nil"},
        {"return { f = print }", VERDICT_ERROR, "a function, expected data"},
        {"local t = {} t.t = t return t", VERDICT_ERROR, "json.encode"},
        {"local t = {1} for i = 1, 60 do t = { t, t } end return t", VERDICT_BUDGET, "out of fuel"},
        {"return ('x'):rep(2 << 20)", VERDICT_BUDGET, ""},
        {"return {}, 5", VERDICT_ERROR, "what it says is a number"},
        {"return {}, {}", VERDICT_ERROR, "without messages"},
        {"return {}, { { role = 'user' } }", VERDICT_ERROR, "message 1"},
        {"return {}, nil, 0/0", VERDICT_ERROR, "expected a finite number"},
        {"return {}, nil, { 1 }", VERDICT_ERROR, "the reward is a list"},
        {"return {}, nil, { a = 'x' }", VERDICT_ERROR, "part a of the reward"},
        {"return {}, nil, true", VERDICT_ERROR, "the reward is a boolean"},
    };
    static const char *const texts[] = {"x"};
    for (int i = 0; i < COUNT(cases); i++) {
        char source[512];
        snprintf(source, sizeof source, "return { reset = function() return {} end, step = function(state, action, turn) %s end }", cases[i].step);
        RewardPool *pool = open_pool(source, NULL, 1);
        EnvironmentResult r = play(pool, texts, 1, NULL);
        if (r.state != cases[i].state || !strstr(r.why, cases[i].why)) FAIL("%s: got %s: %s", cases[i].step, verdict_state_names[r.state], r.why);
        reward_pool_close(pool);
    }
}

static void what_is_no_environment(void) {
    Err err = {0};
    RewardPool *pool;
    EnvironmentReply reply;
    EnvironmentResult result;
    EnvironmentCall call = {.id = "here"};
    CHECK(!open_scripts(walk, walk, 1, &pool, &err));
    CHECK_STR(err.msg, "2 of the scripts are environments, expected one at most");
    static const char *const none[] = {"return function(s) return 1 end", "return { reset = function() end }", "error('at once')",
                                       "return { reset = print, step = print, turns = 0 }", "return { reset = print, step = print, stop = 'x' }"};
    for (int i = 0; i < COUNT(none); i++) {
        pool = open_pool(none[i], NULL, 1);
        CHECK(!reward_pool_environment(pool));
        CHECK(!reward_pool_call(pool, &call, &reply, &err));
        CHECK_STR(err.msg, "none of the scripts is an environment");
        CHECK(!episode_play(pool, &call, NULL, NULL, &result, &err));
        reward_pool_close(pool);
    }
    pool = open_pool(walk, NULL, 1);
    CHECK(!episode_play(pool, &call, NULL, NULL, &result, &err));
    CHECK_STR(err.msg, "it has no function demonstrate to play by");
    reward_pool_close(pool);
}

// ---- messages ------------------------------------------------------------------------------------------------------------
static void messages_survive_any_bytes(void) {
    Random random = random_start(4, STREAM_TEST, 0);
    Buf all[3] = {{0}};
    json_t *row = json_pack("{s:i}", "k", 1);
    EnvironmentCall call = {.kind = ENVIRONMENT_STEP, .row = row, .prompt = "p", .mode = "think", .state = row, .action = "a\0b", .action_size = 3, .turn = 2, .seed = 7}, call_back;
    EnvironmentReply reply = {.state = VERDICT_SCORED, .done = true, .fuel = 9, .part_count = 1, .parts = {{"a", 2}}}, reply_back;
    char *stops[] = {(char[]){"x"}, (char[]){"yy"}, NULL};
    ScriptsLook look = {.environments = 1, .environment = {.script = 1, .turns = 3, .stop = stops, .name = "n"}}, look_back;
    int script;
    write_call(&all[0], &call, 3);
    write_reply(&all[1], &reply, "{\"a\":1}", "[{\"role\":\"user\",\"content\":\"c\"}]");
    write_look(&all[2], &look);
    Reader r = {.at = all[0].data, .end = all[0].data + all[0].size};
    CHECK(read_call(&r, &call_back, &script) && r.at == r.end && script == 3 && call_back.action_size == 3 && json_equal(call_back.state, row));
    call_free(&call_back);
    r = (Reader){.at = all[1].data, .end = all[1].data + all[1].size};
    CHECK(read_reply(&r, &reply_back) && r.at == r.end && reply_back.done && reply_back.parts[0].value == 2 && json_array_size(reply_back.messages) == 1);
    environment_reply_free(&reply_back);
    r = (Reader){.at = all[2].data, .end = all[2].data + all[2].size};
    CHECK(read_look(&r, &look_back) && r.at == r.end);
    CHECK_STR(look_back.environment.stop[1], "yy");
    look_free(&look_back);
    for (int i = 0; i < 30000; i++) {
        const Buf *from = &all[i % 3];
        size_t size = i % 5 ? from->size : random_below(&random, (uint32_t)from->size);
        char *bytes = xmalloc(size + 1);
        memcpy(bytes, from->data, size);
        for (uint32_t c = random_below(&random, 5); size && c > 0; c--) bytes[random_below(&random, (uint32_t)size)] = (char)random_next(&random);
        r = (Reader){.at = bytes, .end = bytes + size};
        if (i % 3 == 0) {
            (void)!read_call(&r, &call_back, &script);
            call_free(&call_back);
        } else if (i % 3 == 1) {
            if (read_reply(&r, &reply_back)) CHECK(reply_back.part_count <= MAX_REWARD_PARTS && reply_back.state <= VERDICT_BUDGET);
            environment_reply_free(&reply_back);
        } else {
            (void)!read_look(&r, &look_back);
            look_free(&look_back);
        }
        free(bytes);
    }
    for (int i = 0; i < 3; i++) buf_free(&all[i]);
    json_decref(row);
    Err err = {0};
    if (path[0][0]) OK(folder_remove(folder, &err));
}

static const Test tests[] = {
    {"shipped environments", shipped_environments},
    {"episodes outlive workers", episodes_outlive_workers},
    {"scores beside other scripts", scores_beside_other_scripts},
    {"what ends an episode", what_ends_an_episode},
    {"what is no environment", what_is_no_environment},
    {"messages survive any bytes", messages_survive_any_bytes},
};
TEST_MAIN(tests)
