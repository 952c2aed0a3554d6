// Stages that hand something on: rejection sampling, what is made of its rows, weights of an earlier stage. Each must come to the
// same bits from any checkpoint, and refuse what was changed between two stages.
#include "accounts.h"
#include "data.h"
#include "export.h"
#include "train_test.h"
#include "weights.h"
#include <math.h>

#define MODEL "model={preset='mini', max_positions=64}, characters='0123456789+-*/=,()', threads=1, evaluate={items=0}, "
#define ARITHMETIC "tasks={{'arithmetic', levels={1,2}}}, rewards={'ones.lua'}, "
static const char ones[] = "return function(s)\n local _, n = s.completion:gsub('1', '')\n return n\nend";
static const char pipeline[] =
    "return {" MODEL ARITHMETIC "keep_checkpoints=100, stages={"
    "sft{name='base', steps=3, batch=4, checkpoint_every=1, optimizer={learning_rate=1e-3}}, "
    "reject{steps=3, prompts=8, group_size=4, threshold=1, keep=2, checkpoint_every=1, modes={think=0.5, direct=0.5}, sampling={max_tokens=24}}, "
    "sft{name='again', from='base', data={'reject'}, epochs=2, tasks_share=0.25, batch=6, checkpoint_every=1, optimizer={learning_rate=1e-3}}, "
    "grpo{steps=2, from='start', prompts=3, group_size=4, checkpoint_every=1, algo={kl=0.1}, sampling={max_tokens=12}, optimizer={learning_rate=1e-3}}}}";

static json_t *record_of(const TrainedRun *run) {
    Ledger *l;
    Err err = {0};
    json_t *record = NULL;
    OK(ledger_open_read(run->folder, &l, &err));
    bool ok = data_record(l, "reject", &record, &err);
    ledger_close(l);
    OK(ok && record);
    return record;
}
static int64_t count(const json_t *record, const char *key) { return json_integer_value(json_object_get(record, key)); }

// From every checkpoint, and with the file gone that will be made again.
static void from_every_checkpoint(void) {
    scratch_file("ones.lua", ones);
    TrainedRun whole = train_run("run", pipeline, NULL, -1);
    TRAINED(whole);
    int64_t last = (int64_t)ask(&whole, "SELECT max(step) FROM steps");
    whole = train_run("run", pipeline, NULL, last);
    TRAINED(whole);
    for (int64_t from = last - 1; from >= 0; from--) {
        Err err = {0};
        for (int64_t step = last; step > from; step--) {
            char *path = xasprintf("%s/checkpoints/step-%lld", whole.folder, (long long)step);
            bool ok = folder_remove(path, &err);
            free(path);
            OK(ok);
        }
        char *data = path_join(whole.folder, "data");
        bool ok = from >= 6 || folder_remove(data, &err);
        free(data);
        OK(ok);
        TrainedRun again = train_from(true, "run", pipeline, NULL, last);
        TRAINED(again);
        if (strcmp(again.weights, whole.weights) || strcmp(again.head, whole.head))
            FAIL("from step %lld: weights %.16s head %.16s, without a stop %.16s and %.16s", (long long)from, again.weights, again.head, whole.weights, whole.head);
    }
    json_t *audit;
    Err err = {0};
    OK(audit_run(whole.folder, &audit, &err));
    json_decref(audit);
    scratch_remove();
}

typedef struct Rows {
    int64_t count, think;
    double least;
} Rows;
static bool look_at_row(void *context, json_t *row, long line, Err *err) {
    Rows *r = context;
    const json_t *origin = json_object_get(row, "origin"), *ids = json_object_get(row, "ids");
    const char *completion = json_string_value(json_object_get(row, "completion")), *mode = json_string_value(json_object_get(row, "mode"));
    double score = json_number_value(json_object_get(origin, "score")), ones_there = 0;
    for (const char *c = completion ? completion : ""; *c; c++) ones_there += *c == '1';
    bool whole = completion && mode && json_string_length(json_object_get(origin, "model")) == 64 && json_string_length(json_object_get(origin, "recipe")) == 64 &&
                 json_integer_value(json_object_get(origin, "step")) >= 4 && json_object_get(json_object_get(origin, "parts"), "ones") &&
                 json_array_size(ids) > 0;
    r->count++;
    r->think += mode && !strcmp(mode, "think");
    r->least = score < r->least ? score : r->least;
    return (whole && score == ones_there) || fail(err, ERR_DATA, "row", "line %ld is not as expected", line);
}
// What is kept reaches the threshold, comes with where it is from, and the counts add up.
static void rows_say_where_they_are_from(void) {
    Err err = {0};
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", pipeline, NULL, -1);
    TRAINED(run);
    json_t *record = record_of(&run);
    CHECK_INT(count(record, "sampled"), 96);
    CHECK_INT(count(record, "rows") + count(record, "unscored") + count(record, "cut_off") + count(record, "below_threshold") + count(record, "duplicates") +
              count(record, "surplus"), 96);
    CHECK(count(record, "rows") > 0 && count(record, "below_threshold") > 0 && count(record, "cut_off") > 0);
    CHECK_INT(count(record, "prompts"), 24);
    Rows rows = {.least = 1e9};
    char *path = path_join(run.folder, json_string_value(json_object_get(record, "file")));
    bool ok = json_lines(path, 1 << 20, look_at_row, &rows, &err);
    free(path);
    OK(ok);
    CHECK_INT(rows.count, count(record, "rows"));
    CHECK(rows.least >= 1 && rows.think > 0 && rows.think < rows.count);
    CHECK_INT((int64_t)ask(&run, "SELECT count(*) FROM steps WHERE stage_index = 2"), (2 * rows.count + 3) / 4); // two epochs, four of six examples a step
    CHECK(ask(&run, "SELECT count(*) FROM steps WHERE kind = 'reject' AND trained_tokens = 0 AND loss IS NULL") == 3);
    CHECK(ask(&run, "SELECT kl FROM steps WHERE stage_index = 3 ORDER BY step LIMIT 1") == 0); // measured against the start that it goes from
    json_decref(record);
    scratch_remove();
}

// A file that was edited between two stages: the stage that reads it says so, and the audit too.
static void an_edited_file_is_refused(void) {
    Err err = {0};
    scratch_file("ones.lua", ones);
    TrainedRun run = train_run("run", pipeline, NULL, -1);
    TRAINED(run);
    json_t *record = record_of(&run), *audit = NULL;
    char *path = path_join(run.folder, json_string_value(json_object_get(record, "file")));
    Buf text = {0};
    bool ok = file_read(path, 1 << 24, &text, &err);
    if (ok) text.data[text.size / 2] ^= 1;
    ok = ok && file_write_atomic(path, text.data, text.size, &err);
    buf_free(&text);
    free(path), json_decref(record);
    OK(ok);
    int64_t last = (int64_t)ask(&run, "SELECT max(step) FROM steps");
    for (int64_t step = last; step > 6; step--) {
        char *checkpoint = xasprintf("%s/checkpoints/step-%lld", run.folder, (long long)step);
        ok = ok && folder_remove(checkpoint, &err);
        free(checkpoint);
    }
    OK(ok);
    run = train_from(true, "run", pipeline, NULL, -1);
    CHECK(!run.ok);
    CHECK_INT(run.err.code, ERR_DATA);
    CHECK(strstr(run.err.msg, "the file was changed since") && strstr(run.err.where, "2-reject.jsonl"));
    CHECK(!audit_run(run.folder, &audit, &err));
    CHECK(strstr(err.where, "2-reject.jsonl"));
    json_decref(audit);
    scratch_remove();
}

// A file of the user's own, in every form, and what is wrong with others.
static void files_of_the_users_own(void) {
    static const struct {
        const char *rows, *problem; // NULL: it trains
    } cases[] = {
        {"{\"prompt\":\"1+1=\",\"completion\":\"2\"}\n{\"prompt\":\"1+2=\",\"thinking\":\"1+2=3\",\"answer\":\"3\"}\n"
         "{\"prompt\":\"1+3=\",\"completion\":\"1+3=4</think>4\"}\n{\"prompt\":\"7\",\"answer\":\"1\",\"ids\":[1,2],\"tokenizer\":\"another\"}\n", NULL},
        {"{\"prompt\":\"1+1=\"}\n", "data.jsonl:1: missing 'completion', or 'answer'"},
        {"{\"prompt\":\"1\",\"answer\":\"1\"}\n{\"answer\":\"2\"}\n", "data.jsonl:2: missing 'prompt' or 'messages'"},
        {"[1]\n", "expected an object"},
        {"{\"prompt\":1,\"answer\":\"2\"}\n", "'prompt': expected a text"},
        {"{\"prompt\":\"1\",\"answer\":\"2\",\"mode\":\"loud\"}\n", "expected think or direct"},
        {"{\"prompt\":\"1\",\"completion\":\"2\",\"mode\":\"think\"}\n", "expected thinking that ends with </think>"},
        {"{\"prompt\":\"1\",\"answer\":\"2\",\"mode\":\"think\"}\n", "missing 'thinking' in think mode"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"1\"}],\"answer\":\"2\"}\n", "chat=false"},
        {"{\"prompt\":\"1\",\"answer\":\"two\"}\n", "two"},
        {"{\"prompt\":\"11111111111111111111111111111111111111111111111111111111\",\"answer\":\"1111111111111\"}\n", "the model takes 64"},
        {"{\"prompt\":\"1\\u0000\",\"answer\":\"2\"}\n", "NUL"},
        {"{\"prompt\":\"1\",\"answer\":\"2\"\n", "data.jsonl:1"},
        {"\n", "no rows"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        scratch_file("data.jsonl", cases[i].rows);
        TrainedRun run = train_run("run", "return {" MODEL "tasks={{'arithmetic', levels={1}}}, stages={sft{data={'data.jsonl'}, epochs=3, batch=2}}}", NULL, -1);
        if (!cases[i].problem) TRAINED(run);
        if (!cases[i].problem) CHECK(ask(&run, "SELECT max(step) FROM steps") == 6);
        char said[1100];
        snprintf(said, sizeof said, "%s: %s", run.err.where, run.err.msg);
        if (cases[i].problem && (run.ok || !strstr(said, cases[i].problem))) FAIL("case %d: found '%s', expected '%s'", i, run.ok ? "it trains" : said, cases[i].problem);
        scratch_remove();
    }
}

static void recipes_that_can_not_be(void) {
    static const struct {
        const char *stages, *problem;
    } cases[] = {
        {"sft{}", "missing key 'steps'"},
        {"sft{epochs=2}", "without 'data'"},
        {"sft{steps=2, tasks_share=0.5}", "'tasks_share' in stages.1: has no effect without 'data'"},
        {"sft{steps=1, data={'nowhere'}}", "neither a stage before this one nor a file"},
        {"sft{steps=1, name='a'}, sft{steps=1, data={'a'}}", "makes no rows"},
        {"sft{data={'reject'}, epochs=1}, reject{steps=1}", "neither a stage before this one nor a file"},
        {"reject{steps=1}, sft{data={'reject'}, epochs=1, steps=1}", "expected one of them"},
        {"reject{steps=1}, sft{data={'reject'}}", "or 'epochs'"},
        {"sft{steps=1, from='later'}, sft{steps=1, name='later'}", "expected \"start\" or the name of a stage before this one"},
        {"reject{steps=1, keep=9}", "expected at most the 8 samples of a prompt"},
        {"reject{steps=1, similarity=0}", "expected a number above 0"},
        {"reject{steps=1, teacher='nobody'}", "isn't there"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        char *recipe = xasprintf("return {" MODEL "tasks={{'arithmetic', levels={1}}}, sampling={max_tokens=8}, stages={%s}}", cases[i].stages);
        TrainedRun run = train_run("run", recipe, NULL, -1);
        free(recipe);
        if (run.ok || !strstr(run.err.msg, cases[i].problem)) FAIL("%s: found '%s', expected '%s'", cases[i].stages, run.ok ? "it trains" : run.err.msg, cases[i].problem);
        scratch_remove();
    }
}

// Another run teaches: its rows carry its hash, and what it samples costs FLOPs.
static void a_run_as_teacher(void) {
    scratch_file("ones.lua", ones);
    TrainedRun teacher = train_run("teacher", "return {" MODEL ARITHMETIC "seed=5, stages={sft{steps=2, batch=4}}}", NULL, 2);
    TRAINED(teacher);
    char *recipe = xasprintf("return {" MODEL ARITHMETIC "stages={reject{steps=2, prompts=8, group_size=2, threshold=1, teacher='%s', sampling={max_tokens=24}}, "
                             "sft{data={'reject'}, epochs=1, batch=4}}}", teacher.folder);
    TrainedRun run = train_run("run", recipe, NULL, -1), again = train_run("again", recipe, NULL, -1);
    free(recipe);
    TRAINED(run);
    TRAINED(again);
    json_t *record = record_of(&run), *second = record_of(&again);
    CHECK(json_equal(record, second));
    CHECK(ask(&run, "SELECT json_extract(replayable, '$.sha256') = (SELECT json_extract(replayable, '$.model') FROM evaluations WHERE name = 'data') FROM "
                    "evaluations WHERE name = 'model'") == 0);
    CHECK(ask(&run, "SELECT min(flops) FROM steps") > 0);
    json_decref(record), json_decref(second);
    scratch_remove();
}

static void near_duplicates(void) {
    static const struct {
        const char *question, *completion;
        bool there;
    } cases[] = {
        {"How many apples are left?", "Four apples are left, since three of seven are gone.", false},
        {"How many apples are left?", "Four apples are left, since three of seven are gone.", true},
        {"how  many apples\tare left? ", "FOUR apples are left,\nsince three of seven are gone.", true},
        {"How many apples are left?", "Four apples are left, since three of seven are gone now.", true},
        {"How many apples are left?", "Seven less three is four.", false},
        {"How many pears does she still have then?", "Four apples are left, since three of seven are gone.", false},
        {"\xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4", "", false},
        {"\xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4", " ", true},
        {"", "", false},
    };
    NearDuplicates *n = near_duplicates_open(5, 0.8);
    for (int i = 0; i < COUNT(cases); i++)
        if (near_duplicates_has(n, cases[i].question, cases[i].completion) != cases[i].there) FAIL("case %d: expected %s", i, cases[i].there ? "a duplicate" : "none");
    char text[64];
    int found = 0;
    for (int i = 0; i < 2000; i++) { // hundreds of buckets, and each text twice
        snprintf(text, sizeof text, "%d times %d and %d", i % 1000 * 7919, i % 1000 * 104729, i % 1000 * 1299709);
        found += near_duplicates_has(n, text, text);
    }
    CHECK_INT(found, 1000);
    near_duplicates_close(n);
}

// The mean of a model with itself is that model, bit for bit; shares decide; the ledger names what went in.
static void merges(void) {
    static const char recipe[] = "return {" MODEL "tasks={{'arithmetic', levels={1}}}, keep_checkpoints=100, stages={sft{name='a', steps=2, batch=4, "
                                 "optimizer={learning_rate=1e-3}}, merge{%s}, sft{name='b', steps=1, batch=4, optimizer={learning_rate=1e-3}}}}";
    static const struct {
        const char *keys, *problem;
        int same_as; // the step whose weights it comes to; -1: of none
    } cases[] = {
        {"models={'a'}", NULL, 2},
        {"models={'a', 'start'}, shares={3, 0}", NULL, 2},
        {"models={'start', 'a', 'a'}, shares={0.5, 0, 0}", NULL, 0},
        {"models={'a', 'start'}", NULL, -1},
        {"models={'a', 'start'}, shares={1}", "expected one for each of the 2 models", 0},
        {"models={'a', 'start'}, shares={0, 0}", "above 0 in all", 0},
        {"models={'a', 'start'}, shares={1, 'x'}", "expected a list of numbers", 0},
        {"models={'b'}", "neither", 0},
        {"models={'a'}, steps=2", "merged at once", 0},
        {"models={}", "expected one at least", 0},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        char text[700], hash[3][65];
        snprintf(text, sizeof text, recipe, cases[i].keys);
        TrainedRun run = train_run("run", text, NULL, -1);
        if (cases[i].problem && (run.ok || !strstr(run.err.msg, cases[i].problem)))
            FAIL("%s: found '%s', expected '%s'", cases[i].keys, run.ok ? "it trains" : run.err.msg, cases[i].problem);
        if (!cases[i].problem) {
            Err err = {0};
            static const int steps[] = {0, 2, 3};
            TRAINED(run);
            bool ok = true;
            for (int k = 0; k < 3; k++) {
                char *path = xasprintf("%s/checkpoints/step-%d/model.safetensors", run.folder, steps[k]);
                ok = ok && sha256_file(path, hash[k], &err);
                free(path);
            }
            OK(ok);
            int same = !strcmp(hash[2], hash[0]) ? 0 : !strcmp(hash[2], hash[1]) ? 2 : -1;
            if (same != cases[i].same_as) FAIL("%s: the weights are those of step %d, expected %d", cases[i].keys, same, cases[i].same_as);
            CHECK(ask(&run, "SELECT count(*) FROM steps WHERE kind = 'merge' AND trained_tokens = 0") == 1);
            CHECK(ask(&run, "SELECT length(json_extract(replayable, '$.models[0].sha256')) FROM evaluations WHERE name = 'merge'") == 64);
            char *last = path_join(run.folder, "checkpoints/step-4"), *merged = path_join(run.folder, "checkpoints/step-3");
            ok = folder_remove(last, &err) && folder_remove(merged, &err);
            free(last), free(merged);
            OK(ok);
            TrainedRun again = train_from(true, "run", text, NULL, 4);
            TRAINED(again);
        }
        scratch_remove();
    }
}

// The largest difference of a layer's tensor between two folders of weights: W of one, and the mean of several others.
static double farthest(const char *of, const char *const *others, int count) {
    enum { N = 4096 };
    Err err = {0};
    Weights *w;
    static float got[N], one[N];
    double mean[N] = {0}, most = 0;
    OK(weights_open(of, false, &w, &err));
    int64_t width = weights_config(w)->width, shape[2] = {width, width};
    const char *name = "model.layers.0.self_attn.q_proj.weight";
    CHECK(width * width <= N);
    bool ok = weights_read(w, name, 2, shape, got, &err);
    weights_close(w);
    for (int i = 0; ok && i < count; i++) {
        ok = weights_open(others[i], false, &w, &err) && weights_read(w, name, 2, shape, one, &err);
        for (int64_t k = 0; k < width * width; k++) mean[k] += (double)one[k] / count;
        if (w) weights_close(w);
    }
    OK(ok);
    for (int64_t k = 0; k < width * width; k++) most = fmax(most, fabs(got[k] - mean[k]));
    return most;
}
static char *exported(const char *base, const char *adapter, const char *name) {
    Err err = {0};
    Weights *w;
    Merge *m = NULL;
    char *out = path_join(scratch_folder(), name);
    OK(weights_open(base, false, &w, &err));
    bool ok = merge_open(adapter, w, &m, &err);
    ExportOptions o = {.type = "F32", .replace = true, .adds = merge_adds, .add = merge_add, .context = m};
    ok = ok && export_hf(w, out, &o, &err);
    merge_close(m), weights_close(w);
    OK(ok);
    return out;
}

// Two runs that trained adapters on one base: each counts as the base with its adapter merged, as `export` makes it.
static void merges_adapters(void) {
    static const char on_base[] = "return {threads=1, chat=false, evaluate={items=0}, model={path='%s', precision='fp32'%s}, tasks={{'arithmetic', levels={1}}}, stages={%s}}";
    static const char lora[] = ", lora={rank=4, alpha=8}", learn[] = "sft{steps=2, batch=4, optimizer={learning_rate=2e-2}}";
    TrainedRun base = train_run("base", "return {" MODEL "tasks={{'arithmetic', levels={1}}}, stages={sft{steps=2, batch=4, optimizer={learning_rate=1e-3}}}}", NULL, 2);
    TRAINED(base);
    char *start = xasprintf("%s/checkpoints/step-2", base.folder), *adapter = xasprintf(on_base, start, lora, learn);
    TrainedRun a = train_run("a", adapter, NULL, 2), b = train_run("b", adapter, (const char *const[]){"seed=9", NULL}, 2);
    TRAINED(a);
    TRAINED(b);
    char *both = xasprintf("merge{models={'%s', '%s'}}, sft{steps=1, batch=4}", a.folder, b.folder), *recipe = xasprintf(on_base, start, "", both);
    TrainedRun merged = train_run("merged", recipe, NULL, 2);
    TRAINED(merged);
    char *adapters[2] = {xasprintf("%s/checkpoints/step-2", a.folder), xasprintf("%s/checkpoints/step-2", b.folder)}, *got = xasprintf("%s/checkpoints/step-1", merged.folder);
    char *whole[2] = {exported(start, adapters[0], "whole-a"), exported(start, adapters[1], "whole-b")};
    CHECK(farthest(whole[0], (const char *const *)&start, 1) > 1e-4 && farthest(whole[0], (const char *const *)&whole[1], 1) > 1e-4);
    double off = farthest(got, (const char *const *)whole, 2);
    if (!(off <= 1e-7)) FAIL("the mean of both is off by %g", off);
    CHECK(ask(&merged, "SELECT json_extract(replayable, '$.models[0].sha256') <> json_extract(replayable, '$.models[1].sha256') FROM evaluations WHERE name = 'merge'") == 1);
    char *own = xasprintf("%s, merge{models={'sft'}}", learn), *refused = xasprintf(on_base, start, lora, own); // nothing holds the mean's rank
    TrainedRun none = train_run("none", refused, NULL, -1);
    CHECK(!none.ok && strstr(none.err.msg, "this run trains an adapter"));
    free(start), free(adapter), free(both), free(recipe), free(adapters[0]), free(adapters[1]), free(got), free(whole[0]), free(whole[1]), free(own), free(refused);
    scratch_remove();
}

static const Test tests[] = {
    {"merges", merges},
    {"merges adapters", merges_adapters},
    {"from every checkpoint", from_every_checkpoint},
    {"rows say where they are from", rows_say_where_they_are_from},
    {"an edited file is refused", an_edited_file_is_refused},
    {"files of the user's own", files_of_the_users_own},
    {"recipes that can not be", recipes_that_can_not_be},
    {"a run as teacher", a_run_as_teacher},
    {"near-duplicates", near_duplicates},
};
TEST_MAIN(tests)
