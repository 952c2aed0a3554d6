// A teacher that is asked over HTTP: rows of its samples and where they are said to come from, learning them, what they cost, going on
// without paying twice, and what is refused before anything is sent.
#include "accounts.h"
#include "endpoint_test.h"
#include "train_test.h"
#include <math.h>

enum { STEPS = 3, PROMPTS = 4, GROUP = 4, ALL = STEPS * PROMPTS * GROUP };
static const char reject_recipe[] =
    "return {seed=11, model={preset='mini', max_positions=32}, characters='0123456789=hm', threads=1,\n"
    " tasks={{'jsonl', file='data.jsonl'}}, held_out=0.2, rewards={'right.lua'}, evaluate={items=0}, sampling={max_tokens=8},\n"
    " cost={million_tokens_in=2, million_tokens_out=10, currency='EUR'},\n"
    " stages={ reject{teacher='%s#%s', %s steps=3, prompts=4, group_size=4, keep=1, modes={think=0.5, direct=0.5}},\n"
    "          sft{data={'reject'}, epochs=1, batch=4, modes={think=0.5, direct=0.5}} } }";
static const char distill_recipe[] =
    "return {seed=5, model={preset='mini', max_positions=32}, characters='0123456789=hm', threads=1,\n"
    " tasks={{'jsonl', file='data.jsonl'}}, held_out=0.2, rewards={'right.lua'}, evaluate={items=0}, sampling={max_tokens=8},\n"
    " stages={ distill{teacher='%s#%s', %s steps=%d, prompts=8, group_size=1, modes={think=0.5, direct=0.5}, optimizer={learning_rate=5e-3}} } }";

static void write_data(void) {
    Buf rows = {0};
    for (int i = 0; i < 300; i++) buf_printf(&rows, "{\"prompt\":\"%03d=\",\"answer\":\"%d\"}\n", i, i % 10);
    scratch_file("data.jsonl", rows.data);
    buf_free(&rows);
    scratch_file("right.lua", "return function(s) return s.answer == s.truth and 1 or 0 end");
}
static TrainedRun train_rejected(const Server *s, const char *model, const char *more, bool resume, bool whole) {
    char *recipe = xasprintf(reject_recipe, s->url, model, more);
    write_data();
    TrainedRun run = train_from(resume, "run", recipe, NULL, -1);
    free(recipe);
    if (whole) TRAINED(run);
    return run;
}

// ---- rows ----------------------------------------------------------------------------------------------------
static void check_row(const json_t *row, const char *host) {
    const json_t *origin = json_object_get(row, "origin"), *endpoint = json_object_get(origin, "endpoint");
    const char *mode = json_string_value(json_object_get(row, "mode")), *text = json_string_value(json_object_get(row, "completion"));
    CHECK(json_is_null(json_object_get(origin, "model")));
    CHECK_STR(json_string_value(json_object_get(endpoint, "host")), host);
    CHECK_STR(json_string_value(json_object_get(endpoint, "model")), "digit");
    CHECK_NEAR(json_number_value(json_object_get(origin, "score")), 1, 0);
    CHECK_INT((int)json_integer_value(json_object_get(origin, "seed")), 11);
    CHECK_INT((int)strlen(json_string_value(json_object_get(origin, "recipe"))), 64);
    CHECK_STR(json_string_value(json_object_get(row, "answer")), json_string_value(json_object_get(row, "truth")));
    CHECK_INT(strncmp(text, "hm</think>", 10) == 0, strcmp(mode, "think") == 0);
    CHECK(json_array_size(json_object_get(row, "ids")) >= 2); // an answer, and its end
}
typedef struct Rows {
    int count;
    const char *host;
} Rows;
static bool each_row(void *context, json_t *row, long line, Err *err) {
    Rows *r = context;
    (void)line, (void)err;
    check_row(row, r->host);
    r->count++;
    return true;
}

static double money_of(const json_t *work, const char *key) { return json_number_value(json_object_get(json_object_get(work, key), "value")); }
static void check_cost(const TrainedRun *run) {
    json_t *cost;
    Err err = {0};
    OK(cost_run(run->folder, &cost, &err));
    const json_t *first = json_array_get(json_object_get(cost, "stages"), 0), *total = json_object_get(cost, "total");
    double in = 7.0 * ALL, out = ask(run, "SELECT sum(json_extract(detail, '$.new_tokens')) FROM events WHERE kind = 'answer'");
    CHECK(out > 2.0 * ALL && out < 10.0 * ALL); // both modes
    CHECK_NEAR(money_of(first, "endpoint_answers"), ALL, 0);
    CHECK_NEAR(money_of(first, "endpoint_tokens_in"), in, 0);
    CHECK_NEAR(money_of(total, "endpoint_tokens_out"), out, 0);
    CHECK_NEAR(money_of(total, "endpoint_money"), (2 * in + 10 * out) / 1e6, 1e-12);
    CHECK_NEAR(money_of(total, "money"), (2 * in + 10 * out) / 1e6, 1e-12);
    CHECK_NEAR(money_of(first, "flops"), 0, 0);
    CHECK(json_is_true(json_object_get(json_object_get(cost, "check"), "ok")));
    json_decref(cost);
}

static void rows_say_where_from(void) {
    Server s = start_server();
    TrainedRun run = train_rejected(&s, "digit", "", false, true);
    Rows rows = {.host = s.url + strlen("http://")};
    char *host = xstrndup(rows.host, strcspn(rows.host, "/")), *file = path_join(run.folder, "data/1-reject.jsonl");
    Err err = {0};
    rows.host = host;
    OK(json_lines(file, 1 << 20, each_row, &rows, &err));
    CHECK(rows.count >= 4 && rows.count <= STEPS * PROMPTS);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM events WHERE kind = 'answer' AND json_extract(detail, '$.error') IS NULL"), ALL);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM samples WHERE logprobs IS NULL AND tokens > 1 AND reward = 1"), ALL);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM steps WHERE kind = 'reject' AND new_tokens = 0 AND flops = 0 AND reward_mean = 1 AND entropy IS NULL"), STEPS);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM events WHERE kind = 'not replayable'"), 1);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM steps WHERE kind = 'sft' AND loss > 0"), (rows.count + 3) / 4);
    CHECK_INT((int)ask(&run, "SELECT json_extract(replayable, '$.model') IS NULL AND json_extract(replayable, '$.endpoint.model') = 'digit' FROM evaluations WHERE name = 'data'"), 1);
    check_cost(&run);
    json_t *diagnosis, *audit;
    OK(diagnose_run(run.folder, &diagnosis, &err));
    const json_t *data = json_object_get(json_array_get(json_object_get(diagnosis, "stages"), 0), "data");
    CHECK_INT((int)json_integer_value(json_object_get(data, "sampled")), ALL);
    CHECK_INT((int)json_integer_value(json_object_get(data, "rows")), rows.count);
    json_decref(diagnosis);
    OK(audit_run(run.folder, &audit, &err));
    json_decref(audit);
    free(host), free(file);
    stop_server(&s);
    scratch_remove();
}

// What an endpoint doesn't count is not known, and never 0.
static void tokens_that_nobody_counts(void) {
    Server s = start_server();
    TrainedRun run = train_rejected(&s, "digit-uncounted", "", false, true);
    json_t *cost;
    Err err = {0};
    OK(cost_run(run.folder, &cost, &err));
    const json_t *total = json_object_get(cost, "total");
    CHECK_STR(json_string_value(json_object_get(json_object_get(total, "endpoint_tokens_out"), "value")), "not known");
    CHECK_STR(json_string_value(json_object_get(json_object_get(total, "money"), "value")), "not known");
    json_decref(cost);
    stop_server(&s);
    scratch_remove();
}

// ---- going on ------------------------------------------------------------------------------------------------
// The 21st and 22nd request are refused: step 2 of 3 fails, and with no checkpoint since the start the first one is done again.
static void nothing_is_paid_twice(void) {
    Server s = start_server();
    TrainedRun run = train_rejected(&s, "digit-strikes", "teacher_requests=1,", false, false);
    CHECK(!run.ok && run.err.code == ERR_UNAVAILABLE);
    if (!strstr(run.err.msg, "2 of 16 requests of step 2 failed") || !strstr(run.err.msg, "answers 403: not today")) FAIL("message: %s", run.err.msg);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM events WHERE kind = 'answer'"), 20);
    TrainedRun again = train_rejected(&s, "digit-strikes", "teacher_requests=1,", true, true);
    CHECK_INT((int)ask(&again, "SELECT count(*) FROM events WHERE kind = 'answer'"), ALL);
    CHECK_INT((int)ask(&again, "SELECT count(*) FROM samples WHERE reward = 1"), ALL);
    CHECK_INT((int)ask(&again, "SELECT count(*) FROM events WHERE kind = 'repeated' AND step = 1"), 1);
    CHECK_INT((int)ask(&again, "SELECT (SELECT json_extract(detail, '$.content') FROM events WHERE kind = 'repeated' AND step = 1) = content FROM steps WHERE step = 1"), 1);
    CHECK_INT((int)ask(&again, "SELECT count(*) FROM events WHERE kind = 'not replayable'"), 1);
    json_t *audit;
    Err err = {0};
    OK(audit_run(run.folder, &audit, &err));
    json_decref(audit);
    stop_server(&s);
    scratch_remove();
}

// Numbers of requests: with every step's answers kept, each stands on the ledger once.
static void every_answer_once(void) {
    Server s = start_server();
    TrainedRun run = train_rejected(&s, "digit-numbered", "", false, true);
    CHECK_INT((int)ask(&run, "SELECT count(DISTINCT json_extract(detail, '$.new_tokens')) FROM events WHERE kind = 'answer'"), ALL);
    char *last = path_join(run.folder, "checkpoints");
    Err err = {0};
    for (int step = 1; step <= STEPS + 4; step++) {
        char *folder = xasprintf("%s/step-%d", last, step);
        OK(!file_exists(folder) || folder_remove(folder, &err));
        free(folder);
    }
    free(last);
    TrainedRun again = train_rejected(&s, "digit-numbered", "", true, true); // from the very first step on
    CHECK_INT((int)ask(&again, "SELECT count(*) FROM events WHERE kind = 'answer'"), ALL);
    CHECK_INT((int)ask(&again, "SELECT max(json_extract(detail, '$.new_tokens')) FROM events WHERE kind = 'answer'"), ALL);
    stop_server(&s);
    scratch_remove();
}

static void some_may_fail(void) {
    Server s = start_server();
    char *recipe = xasprintf(reject_recipe, s.url, "digit-fails", "");
    write_data();
    TrainedRun run = train_from(false, "run", recipe, (const char *const[]){"max_failed_share=0.9", "seed=12", NULL}, -1);
    free(recipe);
    TRAINED(run);
    int failed = (int)ask(&run, "SELECT count(*) FROM samples WHERE verdict = 'error' AND why = 'answers 400: not that one' AND tokens = 0");
    CHECK(failed > 0 && failed < ALL);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM samples WHERE reward = 1"), ALL - failed);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM events WHERE kind = 'answer' AND json_extract(detail, '$.error') IS NOT NULL"), failed);
    CHECK_INT((int)ask(&run, "SELECT json_extract(replayable, '$.unscored') FROM evaluations WHERE name = 'data'"), failed);
    stop_server(&s);
    scratch_remove();
}

// ---- learning ------------------------------------------------------------------------------------------------
static void its_samples_are_learned(void) {
    Server s = start_server();
    char *recipe = xasprintf(distill_recipe, s.url, "digit", "on_policy=0, off_policy='teacher',", 40);
    write_data();
    TrainedRun run = train_run("run", recipe, NULL, 40);
    free(recipe);
    TRAINED(run);
    double first = ask(&run, "SELECT avg(loss) FROM steps WHERE step <= 4"), last = ask(&run, "SELECT avg(loss) FROM steps WHERE step > 36");
    if (!(last < 0.5 * first)) FAIL("loss %g at first, %g in the end", first, last);
    CHECK_INT((int)ask(&run, "SELECT count(*) FROM steps WHERE trained_tokens > 15 AND flops > 0 AND entropy > 0 AND groups_trained = 8"), 40);
    stop_server(&s);
    scratch_remove();
}

// ---- refusals ------------------------------------------------------------------------------------------------
static void refusals(void) {
    Server s = start_server();
    const struct {
        bool distils;
        const char *model, *more, *says;
        int code;
    } cases[] = {
        {true, "digit", "", "gives texts and no distributions", ERR_DATA},
        {true, "digit", "on_policy=0,", "gives texts and no distributions", ERR_DATA},
        {true, "digit", "on_policy=0.5, off_policy='teacher',", "gives texts and no distributions", ERR_DATA},
        {true, "digit", "on_policy=0, off_policy='teacher', beta=0,", "'beta' in stages.1: has no effect", ERR_DATA},
        {true, "digit", "on_policy=0, off_policy='teacher', temperature=2,", "'temperature' in stages.1: has no effect", ERR_DATA},
        {false, "digit", "sampling={top_k=5},", "isn't asked for it", ERR_DATA},
        {false, "digit", "sampling={think_tokens=3},", "isn't asked for it", ERR_DATA},
        {false, "", "", "expected #MODEL", ERR_DATA},
        {false, "digit", "teacher_key_env='RECKON_TEST_NO_SUCH_KEY',", "expected the endpoint's key in it", ERR_NOINPUT},
        {false, "not-json", "", "an answer in JSON", ERR_UNAVAILABLE},
        {false, "wrong-json", "", "a text as", ERR_UNAVAILABLE},
    };
    write_data();
    for (int i = 0; i < COUNT(cases); i++) {
        char *recipe = cases[i].distils ? xasprintf(distill_recipe, s.url, cases[i].model, cases[i].more, 2) : xasprintf(reject_recipe, s.url, cases[i].model, cases[i].more);
        TrainedRun run = train_from(false, "run", recipe, NULL, -1);
        free(recipe);
        if (run.ok || run.err.code != cases[i].code || !strstr(run.err.msg, cases[i].says))
            FAIL("case %d: %s, code %d, %s: %s; expected code %d and '%s'", i, run.ok ? "trained" : "failed", run.err.code, run.err.where, run.err.msg, cases[i].code, cases[i].says);
    }
    stop_server(&s);
    scratch_remove();
}

static const Test tests[] = {
    {"rows say where they are from", rows_say_where_from},
    {"tokens that nobody counts", tokens_that_nobody_counts},
    {"nothing is paid twice", nothing_is_paid_twice},
    {"every answer once", every_answer_once},
    {"some may fail", some_may_fail},
    {"its samples are learned", its_samples_are_learned},
    {"refusals", refusals},
};
TEST_MAIN(tests)
