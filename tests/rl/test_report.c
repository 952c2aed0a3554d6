// Cost, audit and the page of a run, on a made-up run with a hostile model.
#include "../test.h"
#include "accounts.h"
#include "made_run.h"
#include "report.h"
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>


static const char recipe_text[] = "{\"name\":\"</title><script>alert(1)</script>\",\"outside\":{\"currency\":\"EUR\",\"price_per_hour\":7200,"
                                  "\"watts\":100},\"stages\":[{\"name\":\"sft\"},{\"name\":\"<b>grpo</b>\"}]}";
static char folder[64];
static char *in_folder(const char *name) { return path_join(folder, name); }
static void put(const char *name, const char *text) {
    Err err = {0};
    char *path = in_folder(name);
    OK(file_write_atomic(path, text, strlen(text), &err));
    free(path);
}

// Steps 1 to 3 of sft, 4 to 8 of grpo; an evaluation of each mode after steps 4 and 8. `hostile` replaces what the
// model wrote.
static void make_run(const char *hostile) {
    Err err = {0};
    Ledger *l;
    char hash[65];
    strcpy(folder, "/tmp/reckon-report-XXXXXX");
    CHECK(mkdtemp(folder));
    put("recipe.resolved.json", recipe_text);
    put("recipe.lua", "return { name = \"</pre><script>x</script>\" }");
    json_t *recipe;
    Buf text = {0};
    OK(json_parse(recipe_text, strlen(recipe_text), "recipe", 1, &recipe, &err));
    json_object_del(recipe, "outside");
    json_write(recipe, &text);
    sha256_hex(text.data, text.size, hash);
    json_decref(recipe), buf_free(&text);
    OK(ledger_open(folder, false, &l, &err));
    json_t *facts = json_pack("{s:s, s:s}", "recipe_hash", hash, "<fact>", hostile ? "<img src=x onerror=alert(1)>" : "fine");
    OK(ledger_run(l, facts, NULL, &err));
    json_decref(facts);
    for (int64_t i = 1; i <= 8; i++) {
        Batch b = made_batch(i);
        for (int k = 0; hostile && k < b.episode_count; k++) b.episodes[k].text = (char *)(uintptr_t)hostile, b.episodes[k].text_size = strlen(hostile);
        if (hostile) b.prompts[0].item.prompt = b.prompts[0].item.truth = b.prompts[0].item.kind = (char *)(uintptr_t)hostile;
        StepReport s = made_report(i > 3 ? &b : NULL, i, i > 3);
        OK(ledger_step(l, &s, i > 3 ? &b : NULL, &err));
        made_free(&b);
        for (int m = 0; m < 2 && i % 4 == 0; m++) OK(made_evaluate(l, i, m ? "direct" : "think", &err));
    }
    ledger_close(l);
}
static void remove_run(void) {
    Err err = {0};
    OK(folder_remove(folder, &err));
}
static double value(const json_t *cost, const char *work, const char *key, const char **source) {
    const json_t *f = json_object_get(json_object_get(cost, work), key);
    *source = json_string_value(json_object_get(f, "source"));
    const json_t *v = json_object_get(f, "value");
    return json_is_number(v) ? json_number_value(v) : NAN;
}

// ---- cost ------------------------------------------------------------------------------------------------
static void costs_are_sums(void) {
    Err err = {0};
    json_t *cost;
    const char *source;
    Ledger *l;
    make_run(NULL);
    OK(cost_run(folder, &cost, &err));
    const json_t *grpo = json_array_get(json_object_get(cost, "stages"), 1);
    CHECK_STR(json_string_value(json_object_get(grpo, "name")), "<b>grpo</b>");
    CHECK_NEAR(json_number_value(json_object_get(json_object_get(grpo, "seconds"), "value")), 2.5, 1e-12);
    CHECK_INT(json_integer_value(json_object_get(json_object_get(grpo, "steps"), "value")), 5);
    CHECK_NEAR(value(cost, "evaluations", "seconds", &source), 6, 1e-12);
    CHECK_STR(source, "measured");
    CHECK_NEAR(value(cost, "evaluations", "new_tokens", &source), 5000, 0); // 4 of 100 items of 12.5 tokens
    CHECK_NEAR(value(cost, "evaluations", "flops", &source), 4e9, 0);
    CHECK_NEAR(value(cost, "total", "seconds", &source), 10, 1e-9);
    CHECK_NEAR(value(cost, "total", "flops", &source), 12e9, 1);
    CHECK_STR(source, "computed");
    CHECK_NEAR(value(cost, "total", "joules", &source), 1000, 1e-6); // 100 W stated, nothing measured
    CHECK_STR(source, "stated");
    CHECK_NEAR(value(cost, "total", "money", &source), 20, 1e-9);
    CHECK_NEAR(value(cost, "waste", "groups_without_variance", &source), 1.0 / 3, 1e-9);
    json_decref(cost);
    // Two steps and their evaluations are done again: their cost is added, not forgotten.
    OK(ledger_open(folder, true, &l, &err));
    OK(ledger_rewind(l, 6, &err));
    for (int64_t i = 7; i <= 8; i++) OK(made_step(l, i, &err));
    for (int m = 0; m < 2; m++) OK(made_evaluate(l, 8, m ? "direct" : "think", &err));
    OK(made_evaluate(l, 8, "think", &err));
    ledger_close(l);
    OK(cost_run(folder, &cost, &err));
    CHECK_NEAR(value(cost, "repeated", "steps", &source), 2, 0);
    CHECK_NEAR(value(cost, "repeated", "seconds", &source), 1, 1e-9);
    CHECK_NEAR(value(cost, "repeated", "flops", &source), 2e9 + 3e9, 1);
    CHECK_NEAR(value(cost, "total", "seconds", &source), 4 + 1 + 7 * 1.5, 1e-9);
    CHECK_NEAR(value(cost, "total", "flops", &source), 12e9 + 5e9, 1);
    json_decref(cost);
    // Without what the recipe states nothing is made up.
    put("recipe.resolved.json", "{}");
    OK(cost_run(folder, &cost, &err));
    const json_t *total = json_object_get(cost, "total");
    CHECK_STR(json_string_value(json_object_get(json_object_get(total, "joules"), "value")), "not measured");
    CHECK_STR(json_string_value(json_object_get(json_object_get(total, "money"), "value")), "not stated");
    CHECK_STR(json_string_value(json_object_get(json_object_get(total, "money"), "source")), "none");
    json_decref(cost);
    remove_run();
}

static bool sum_is_ok(const json_t *cost, const char *what) {
    size_t i;
    json_t *sum;
    json_array_foreach(json_object_get(json_object_get(cost, "check"), "sums"), i, sum)
        if (!strcmp(json_string_value(json_object_get(sum, "what")), what)) return json_is_true(json_object_get(sum, "ok"));
    FAIL("no sum '%s'", what);
}
// Eight steps of 5 J, and a comparison that a meter was read for; `else_joules` is what its last part says it took.
static json_t *cost_with_comparison(double else_joules, bool again) {
    Err err = {0};
    Ledger *l;
    json_t *cost;
    strcpy(folder, "/tmp/reckon-report-XXXXXX");
    CHECK(mkdtemp(folder));
    OK(ledger_open(folder, false, &l, &err));
    OK(made_run_facts(l, &err));
    for (int i = 1; i <= (again ? 10 : 8); i++) { // the last two once more
        int64_t step = i > 8 ? i - 2 : i;
        StepReport s = made_report(NULL, step, 0);
        s.measured.joules = 5;
        if (i == 9) OK(ledger_rewind(l, 6, &err));
        OK(ledger_step(l, &s, NULL, &err));
    }
    json_t *replayable = json_pack("{s:{s:i,s:i,s:f,s:[{s:s,s:f},{s:s,s:f}]}}", "work", "prompt_tokens", 40, "new_tokens", 300, "flops", 3e9, "parts", "what",
                                   "think", "flops", 2e9, "what", "direct", "flops", 1e9);
    json_t *measured = json_pack("{s:f,s:f,s:f,s:[{s:s,s:f,s:f},{s:s,s:f,s:f}]}", "seconds", 4.0, "joules", 70.0, "device_joules", 20.0, "parts", "what", "think",
                                 "seconds", 3.0, "joules", 50.0, "what", "all else", "seconds", 1.0, "joules", else_joules);
    OK(ledger_evaluation(l, 8, "compare", replayable, measured, &err));
    json_decref(replayable), json_decref(measured);
    ledger_close(l);
    OK(cost_run(folder, &cost, &err));
    remove_run();
    return cost;
}
static void comparisons_have_their_joules(void) {
    const char *source;
    json_t *cost = cost_with_comparison(20, false);
    CHECK_NEAR(value(cost, "evaluations", "joules", &source), 70, 1e-9);
    CHECK_STR(source, "measured");
    CHECK_NEAR(value(cost, "evaluations", "device_joules", &source), 20, 1e-9);
    CHECK_NEAR(value(cost, "evaluations", "flops", &source), 3e9, 0);
    CHECK_NEAR(value(cost, "total", "joules", &source), 8 * 5 + 70, 1e-9);
    CHECK_NEAR(value(cost, "total", "seconds", &source), 8 * 0.5 + 4, 1e-9);
    CHECK(json_is_true(json_object_get(json_object_get(cost, "check"), "ok")) && sum_is_ok(cost, "joules of comparisons") && sum_is_ok(cost, "joules"));
    json_decref(cost);
    cost = cost_with_comparison(20, true); // two steps twice: their joules count as repeated work
    CHECK_NEAR(value(cost, "repeated", "joules", &source), 10, 1e-9);
    CHECK_NEAR(value(cost, "total", "joules", &source), 10 * 5 + 70, 1e-9);
    CHECK(json_is_true(json_object_get(json_object_get(cost, "check"), "ok")));
    json_decref(cost);
    cost = cost_with_comparison(15, false); // 5 J of it are nowhere
    CHECK(json_is_false(json_object_get(json_object_get(cost, "check"), "ok")) && !sum_is_ok(cost, "joules of comparisons"));
    CHECK(sum_is_ok(cost, "seconds of comparisons") && sum_is_ok(cost, "FLOPs of comparisons") && sum_is_ok(cost, "joules"));
    json_decref(cost);
}

// ---- campaigns -------------------------------------------------------------------------------------------
static void into(const char *parent, const char *name, char out[96]) {
    snprintf(out, 96, "%.64s/%.16s", parent, name);
    CHECK(rename(folder, out) == 0);
}
static void ended(const char *run, const char *how) {
    Err err = {0};
    Ledger *l;
    OK(ledger_open(run, true, &l, &err));
    json_t *detail = json_pack("{s:s,s:s}", "how", how, "why", "a reason");
    OK(ledger_event(l, "end", detail, &err));
    json_decref(detail);
    ledger_close(l);
}
static const char *how_of(const json_t *run) { return json_string_value(json_object_get(json_object_get(run, "state"), "how")); }

// Whichever way a campaign is cut, by what was done or by run, the parts come to the total.
static void check_parts(const json_t *cost) {
    static const char *const keys[] = {"steps", "prompt_tokens", "new_tokens", "trained_tokens", "flops", "seconds", "cpu_seconds", "joules", "money"};
    static const char *const works[] = {"training", "data_generation", "evaluations", "repeated"};
    size_t i;
    json_t *run;
    for (int k = 0; k < COUNT(keys); k++) {
        const char *source;
        double by_work = 0, by_run = 0, abandoned = 0, total = value(cost, "total", keys[k], &source);
        for (int w = 0; w < COUNT(works); w++) // none of these runs generates data
            if (json_object_size(json_object_get(cost, works[w])) > 0) by_work += value(cost, works[w], keys[k], &source);
        json_array_foreach(json_object_get(cost, "runs"), i, run) {
            double own = value(run, "total", keys[k], &source);
            by_run += own;
            if (json_is_true(json_object_get(run, "abandoned"))) abandoned += own;
        }
        bool known = strcmp(keys[k], "cpu_seconds") != 0; // evaluations don't tell theirs
        if (known && !(fabs(by_run - total) <= 1e-9 * fabs(total))) FAIL("%s: the runs come to %.17g, the total is %.17g", keys[k], by_run, total);
        bool steps = !strcmp(keys[k], "steps"); // evaluations count as one each, and in no total
        if (known && !steps && !(fabs(by_work - total) <= 1e-9 * fabs(total))) FAIL("%s: the parts come to %.17g, the total is %.17g", keys[k], by_work, total);
        if (known && !(fabs(abandoned - value(cost, "abandoned", keys[k], &source)) <= 1e-9 * fabs(total))) FAIL("%s of abandoned runs: %.17g", keys[k], abandoned);
    }
}

// A finished run, a failed one, one that was killed and resumed, one in a folder of its own that was never gone on with.
static void campaigns_add_up(void) {
    Err err = {0};
    Ledger *l;
    json_t *cost;
    const char *source;
    char parent[64] = "/tmp/reckon-campaign-XXXXXX", a[96], b[96], c[96], d[96], deeper[96];
    CHECK(mkdtemp(parent));
    make_run(NULL), into(parent, "a", a), ended(a, "finished");
    make_run(NULL), into(parent, "b", b), ended(b, "failed");
    make_run(NULL), into(parent, "c", c);
    OK(ledger_open(c, true, &l, &err) && ledger_rewind(l, 6, &err));
    for (int64_t i = 7; i <= 8; i++) OK(made_step(l, i, &err));
    for (int m = 0; m < 2; m++) OK(made_evaluate(l, 8, m ? "direct" : "think", &err));
    ledger_close(l);
    ended(c, "finished");
    snprintf(deeper, sizeof deeper, "%.64s/deeper", parent);
    OK(folder_make(deeper, &err));
    make_run(NULL), into(deeper, "d", d);
    OK(cost_campaign(parent, &cost, &err));
    CHECK_INT(json_array_size(json_object_get(cost, "runs")), 4);
    CHECK(json_is_true(json_object_get(json_object_get(cost, "check"), "ok")));
    const json_t *states = json_object_get(cost, "states"), *runs = json_object_get(cost, "runs");
    CHECK_INT(json_integer_value(json_object_get(states, "finished")), 2);
    CHECK_INT(json_integer_value(json_object_get(states, "failed")), 1);
    CHECK_INT(json_integer_value(json_object_get(states, "killed")), 1);
    CHECK_STR(how_of(json_array_get(runs, 3)), "killed");
    CHECK(json_is_true(json_object_get(json_array_get(runs, 1), "abandoned")) && json_is_false(json_object_get(json_array_get(runs, 2), "abandoned")));
    CHECK_NEAR(value(cost, "total", "seconds", &source), 3 * 10 + 10 + 1 + 3, 1e-9); // two steps and two evaluations twice
    CHECK_NEAR(value(cost, "repeated", "steps", &source), 2, 0);
    CHECK_NEAR(value(cost, "training", "steps", &source), 32, 0);
    CHECK_NEAR(value(cost, "abandoned", "seconds", &source), 20, 1e-9);
    CHECK_NEAR(value(cost, "total", "money", &source), 2 * 44, 1e-9); // 7200 EUR an hour
    CHECK_STR(source, "stated");
    CHECK_NEAR(value(cost, "total", "flops", &source), 4 * 12e9 + 4e9, 1);
    check_parts(cost);
    const json_t *devices = json_object_get(cost, "devices");
    CHECK_INT(json_array_size(devices), 1);
    CHECK_NEAR(json_number_value(json_object_get(json_object_get(json_array_get(devices, 0), "seconds"), "value")), 44, 1e-9);
    json_decref(cost);
    // A run of another currency: no sum of money. One that states nothing: what is known of the sum, and no more.
    char *recipe = path_join(a, "recipe.resolved.json");
    static const char dollars[] = "{\"outside\":{\"currency\":\"USD\",\"price_per_hour\":1}}";
    OK(file_write_atomic(recipe, dollars, strlen(dollars), &err));
    OK(cost_campaign(parent, &cost, &err));
    CHECK_STR(json_string_value(json_object_get(json_object_get(json_object_get(cost, "total"), "money"), "value")), "not known");
    const json_t *joules = json_object_get(json_object_get(cost, "total"), "joules");
    CHECK_STR(json_string_value(json_object_get(joules, "value")), "not measured");
    CHECK_NEAR(json_number_value(json_object_get(joules, "at_least")), 100 * 34, 1e-6);
    json_decref(cost);
    free(recipe);
    // A row that is gone: the parts no longer come to the whole, and that is said.
    char *path = path_join(b, "ledger.db");
    sqlite3 *db;
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, "DELETE FROM steps WHERE step = 5", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    OK(cost_campaign(parent, &cost, &err));
    CHECK(json_is_false(json_object_get(json_object_get(cost, "check"), "ok")));
    CHECK_STR(json_string_value(json_object_get(json_array_get(json_object_get(json_object_get(cost, "check"), "failed"), 0), "path")), b);
    json_decref(cost);
    // A ledger that can't be read is named, and the others are told.
    OK(file_write_atomic(path, "no ledger", 9, &err));
    OK(cost_campaign(parent, &cost, &err));
    CHECK_INT(json_array_size(json_object_get(cost, "unreadable")), 1);
    CHECK_INT(json_array_size(json_object_get(cost, "runs")), 3);
    json_decref(cost);
    free(path);
    OK(folder_remove(parent, &err));
    CHECK(!cost_campaign(parent, &cost, &err) && err.code == ERR_NOINPUT);
}

// What a run began with: another run's checkpoint, a folder with a card, one without, nothing.
static void base_models(void) {
    Err err = {0};
    json_t *cost;
    char parent[64] = "/tmp/reckon-base-XXXXXX", a[96];
    CHECK(mkdtemp(parent));
    make_run(NULL), into(parent, "a", a);
    make_run(NULL);
    OK(cost_run(folder, &cost, &err));
    CHECK(json_is_null(json_object_get(cost, "base_model")));
    json_decref(cost);
    char *of_run = xasprintf("{\"model\":{\"path\":\"%s/checkpoints/step-8\"}}", a), *of_card = xasprintf("{\"model\":{\"path\":\"%s\"}}", parent);
    put("recipe.resolved.json", of_run);
    OK(cost_run(folder, &cost, &err));
    const json_t *base = json_object_get(cost, "base_model");
    CHECK_STR(json_text_or(base, "source", ""), "ledger");
    CHECK_NEAR(json_real_or_nan(json_object_get(json_object_get(base, "total"), "seconds"), "value"), 10, 1e-9);
    json_decref(cost);
    put("recipe.resolved.json", of_card);
    OK(cost_run(folder, &cost, &err));
    base = json_object_get(cost, "base_model");
    CHECK_STR(json_text_or(base, "source", ""), "none");
    CHECK_STR(json_text_or(json_object_get(base, "flops"), "value", ""), "not known");
    json_decref(cost);
    static const char card[] = "---\nlicense: mit\nco2_eq_emissions:\n  emissions: 1250.5 # grams\n  hardware_used: \"8 x H100\"\ntraining_hours: many\n---\ntraining_flops: 7\n";
    char *readme = path_join(parent, "README.md");
    OK(file_write_atomic(readme, card, strlen(card), &err));
    OK(cost_run(folder, &cost, &err));
    base = json_object_get(cost, "base_model");
    CHECK_STR(json_text_or(base, "source", ""), "card");
    CHECK_NEAR(json_real_or_nan(json_object_get(base, "co2_grams"), "value"), 1250.5, 0);
    CHECK_STR(json_text_or(json_object_get(base, "co2_grams"), "source", ""), "stated");
    CHECK_STR(json_text_or(base, "hardware", ""), "8 x H100");
    CHECK_STR(json_text_or(json_object_get(base, "hours"), "value", ""), "not known"); // no number
    CHECK_STR(json_text_or(json_object_get(base, "flops"), "value", ""), "not known"); // behind the front matter
    json_decref(cost);
    free(readme), free(of_run), free(of_card);
    remove_run();
    OK(folder_remove(parent, &err));
}

// ---- audit -----------------------------------------------------------------------------------------------
static bool audit_names(const char *what, Err *err) {
    json_t *audit;
    *err = (Err){0};
    bool ok = audit_run(folder, &audit, err);
    bool said = json_is_true(json_object_get(audit, "ok"));
    json_decref(audit);
    if (!what) return ok && said;
    return !ok && !said && err->code == ERR_FAILED && (strstr(err->where, what) || strstr(err->msg, what));
}
static void audit_finds_what_is_broken(void) {
    Err err = {0};
    make_run(NULL);
    if (!audit_names(NULL, &err)) FAIL("%s: %s", err.where, err.msg);
    put("recipe.resolved.json", "{\"watts\":1}");
    CHECK(audit_names("recipe.resolved.json", &err));
    put("recipe.resolved.json", recipe_text);
    CHECK(audit_names(NULL, &err));
    char *checkpoint = in_folder("checkpoints/step-4");
    OK(folder_make(checkpoint, &err));
    CHECK(audit_names("step-4", &err)); // a folder that is no checkpoint
    OK(folder_remove(checkpoint, &err));
    free(checkpoint);
    char *path = in_folder("ledger.db");
    sqlite3 *db;
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, "UPDATE samples SET reward = 1 - reward WHERE step = 6 AND sample = 3", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    CHECK(audit_names("samples, step 6, sample 3", &err));
    free(path);
    remove_run();
}

// ---- the page --------------------------------------------------------------------------------------------
static int count(const char *page, const char *what) {
    int n = 0;
    for (const char *p = page; (p = strstr(p, what)); p++) n++;
    return n;
}
static void text_is_only_text(void) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"<script>\"'&", "&lt;script&gt;&quot;&#39;&amp;"},
        {"a\xe2\x80\xa8" "b\xe2\x80\xa9" "c", "a⟨U+2028⟩b⟨U+2029⟩c"},
        {"\xe2\x80\xaetxt\xe2\x81\xa6\xd8\x9c", "⟨U+202E⟩txt⟨U+2066⟩⟨U+061C⟩"},
        {"\x1b[31m\x7f\r", "␛[31m␡␍"},
        {"\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80" "z", NULL},
        {"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n\t", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n\t"},
        {"\xe2\x80\x8b\xef\xbb\xbf\xc2\x85", "⟨U+200B⟩⟨U+FEFF⟩⟨U+0085⟩"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Buf b = {0};
        html_string(&b, cases[i].in);
        if (cases[i].out) CHECK_STR(b.data, cases[i].out);
        else CHECK(strspn(b.data, "\xef\xbf\xbd") == strlen(b.data) - 1);
        buf_free(&b);
    }
    Buf b = {0};
    html_text(&b, "a\0b", 3);
    CHECK_STR(b.data, "a␀b");
    buf_free(&b);
}

// Every string has both languages with the same names to fill in, and no key stands twice.
static void words_are_whole(void) {
    for (const Word *w = report_words; w->key; w++) {
        CHECK(w->english[0] && w->korean[0]);
        for (const Word *other = w + 1; other->key; other++)
            if (!strcmp(w->key, other->key)) FAIL("%s: twice in the table", w->key);
        for (const char *c = w->english; (c = strchr(c, '{')); c++) {
            char name[40];
            snprintf(name, sizeof name, "%.*s", (int)(strchr(c, '}') - c + 1), c);
            if (!strstr(w->korean, name)) FAIL("%s: the Korean text lacks %s", w->key, name);
        }
    }
    json_t *said = say_with(&(Report){.korean = false}, "samples found", "n", "3", "all", "<7>", NULL);
    CHECK_STR(json_string_value(said), "3 of <7> samples");
    json_decref(said);
}

static void made_report_of(const char *source, ReportFormat format, bool korean, Buf *out) {
    Err err = {0};
    *out = (Buf){0};
    OK(report_make(source, &(ReportOptions){.format = format, .korean = korean, .samples = 50}, out, &err));
}

static void page_holds_no_foreign_markup(void) {
    Buf safe, page;
    make_run(NULL);
    made_report_of(folder, REPORT_HTML, false, &safe);
    CHECK(audit_names(NULL, &(Err){0}));
    remove_run();
    make_run("</pre></script></style></title>--><script>alert(1)</script><img src=x onerror=alert(1)>\xe2\x80\xae\xe2\x80\xa8\x01\xff\"'><a href=javascript:1>");
    made_report_of(folder, REPORT_HTML, false, &page);
    // The same tags, however many the model wrote: the page's own.
    static const char *const tags[] = {"<script", "</script", "<style", "<img", "<a ", "</pre>", "</title>", "<iframe", "javascript:1\""};
    for (int i = 0; i < COUNT(tags); i++)
        if (count(page.data, tags[i]) != count(safe.data, tags[i]))
            FAIL("%s: %d times, expected %d", tags[i], count(page.data, tags[i]), count(safe.data, tags[i]));
    CHECK_INT(count(page.data, "\xe2\x80\xae") + count(page.data, "\xe2\x80\xa8") + count(page.data, "\x01"), 0);
    CHECK(count(page.data, "U+202E") > 10 && count(page.data, "\\u003cscript\\u003ealert(1)") > 10 && count(page.data, "&lt;img src=x") > 0);
    CHECK(strstr(page.data, "default-src 'none'; style-src 'sha256-") && !strstr(page.data, "unsafe-inline"));
    CHECK_INT(count(page.data, " style=") + count(page.data, " onclick=") + count(page.data, "src="), count(safe.data, "src=") + count(page.data, "img src=x onerror"));
    buf_free(&safe), buf_free(&page);
    remove_run();
}

// The numbers of every format are those of one document.
static void formats_agree(void) {
    static const char comparison[] = TEST_DATA "/comparison.json";
    Buf text;
    json_t *json;
    Err err = {0};
    made_report_of(comparison, REPORT_HTML, false, &text);
    CHECK(strstr(text.data, "Thinking pays.") && strstr(text.data, "87.5\xc2\xa0%") && strstr(text.data, "lang=\"en\""));
    buf_free(&text);
    made_report_of(comparison, REPORT_HTML, true, &text);
    CHECK(strstr(text.data, "생각하는 것이 이득입니다.") && strstr(text.data, "87.5\xc2\xa0%") && strstr(text.data, "lang=\"ko\""));
    buf_free(&text);
    made_report_of(comparison, REPORT_MARKDOWN, false, &text);
    CHECK(strstr(text.data, "**Thinking pays.**") && strstr(text.data, "| think | 87.5\xc2\xa0% (80.4\xc2\xa0% to 92.3\xc2\xa0%) |"));
    buf_free(&text);
    made_report_of(comparison, REPORT_CSV, false, &text);
    CHECK(strstr(text.data, "\"frontier\",\"arms\",\"think\",\"accuracy\",0.875,0.8039705973,0.9227650276,\r\n"));
    CHECK(strstr(text.data, "\"frontier\",\"frontier all flops\",\"votes\",\"efficient\",0,,,\r\n"));
    CHECK(strstr(text.data, "\"frontier\",\"frontier all flops\",\"think@16\",\"efficient\",1,,,\r\n"));
    buf_free(&text);
    made_report_of(comparison, REPORT_JSON, false, &text);
    OK(json_parse(text.data, text.size, "report", 1, &json, &err));
    CHECK_STR(json_string_value(json_object_get(json, "format")), "reckon report 1");
    CHECK(!json_object_get(json_object_get(json, "comparison"), "samples") && json_object_get(json_object_get(json, "comparison"), "measured"));
    json_decref(json);
    buf_free(&text);
    made_report_of(comparison, REPORT_SVG, false, &text);
    CHECK(!strncmp(text.data, "<svg xmlns=", 11) && count(text.data, "<circle") == 5 && count(text.data, "<line class=\"whisker") == 5);
    CHECK(!strstr(text.data, "<script") && !strstr(text.data, "href"));
    buf_free(&text);
    // A run without a comparison has no frontier, and a spreadsheet's formula is only text.
    make_run("=HYPERLINK(\"x\")");
    CHECK(!report_make(folder, &(ReportOptions){.format = REPORT_SVG}, &text, &err) && err.code == ERR_NOINPUT);
    made_report_of(folder, REPORT_CSV, false, &text);
    CHECK(!strstr(text.data, "\"=") && strstr(text.data, "\"training\",\"reward\""));
    buf_free(&text);
    remove_run();
}

static void page_of_an_empty_run(void) {
    Err err = {0};
    Ledger *l;
    strcpy(folder, "/tmp/reckon-report-XXXXXX");
    CHECK(mkdtemp(folder));
    CHECK(!report_write(folder, NULL, &err) && err.code == ERR_NOINPUT);
    OK(ledger_open(folder, false, &l, &err));
    CHECK(!report_write(folder, NULL, &err) && err.code == ERR_DATA); // no run is recorded yet
    json_t *facts = json_object();
    OK(ledger_run(l, facts, NULL, &err));
    json_decref(facts);
    OK(report_write(folder, NULL, &err)); // beside the writer, before the first step
    CHECK(!report_write(folder, "/does/not/exist/report.html", &err) && err.code == ERR_CANTCREAT);
    ledger_close(l);
    remove_run();
}

// Evaluations and a comparison of any shape: a page, not a crash.
static void odd_documents(void) {
    static const char *const documents[] = {
        "[]", "{}", "{\"levels\":7}", "{\"levels\":[7,null,\"x\",[]]}", "{\"mode\":\"think\",\"levels\":[{\"items\":-1,\"correct\":5}]}",
        "{\"mode\":\"think\",\"levels\":[{\"items\":1e300,\"correct\":1e300,\"low\":\"inf\",\"level\":\"x\"}]}",
        "{\"mode\":\"think\",\"levels\":[{\"items\":2,\"correct\":9,\"accuracy\":4.5}]}",
        "{\"levels\":[{\"kind\":\"a\",\"level\":1,\"think\":{\"tokens\":1e308,\"accuracy\":-9,\"low\":\"inf\"},\"direct\":7,\"verdict\":5,\"sentence\":{}}],\"gain\":[]}",
        "{\"levels\":[{\"kind\":\"a\",\"think\":{\"tokens\":null,\"accuracy\":null},\"direct\":{\"tokens\":0,\"accuracy\":0.5}}],\"all\":{}}",
        "{\"arms\":[7]}", "{\"arms\":[{}],\"pairs\":[{}]}", "{\"arms\":[{\"name\":5,\"levels\":7}],\"pairs\":[{\"a\":\"x\",\"b\":null,\"all\":{\"verdict\":3}}],\"levels\":[1,2],\"kinds\":[1,2]}",
        "{\"arms\":[{\"name\":\"a\",\"all\":{\"flops\":1e308,\"accuracy\":-4,\"low\":\"inf\"}},{\"name\":\"b\",\"all\":{\"flops\":5e-324,\"accuracy\":9}}],\"routers\":[1,{\"policies\":7}]}"};
    for (int i = 0; i < COUNT(documents); i++)
        for (int compare = 0; compare < 2; compare++) {
            Err err = {0};
            Ledger *l;
            json_t *j;
            make_run(NULL);
            OK(json_parse(documents[i], strlen(documents[i]), "document", 1, &j, &err));
            OK(ledger_open(folder, true, &l, &err));
            OK(ledger_evaluation(l, 8, compare ? "compare" : "think", j, j, &err));
            ledger_close(l);
            json_decref(j);
            OK(report_write(folder, NULL, &err));
            for (ReportFormat format = REPORT_MARKDOWN; format <= REPORT_SVG; format++) {
                Buf text = {0};
                if (!report_make(folder, &(ReportOptions){.format = format, .korean = true}, &text, &err)) CHECK_INT(err.code, ERR_NOINPUT);
                buf_free(&text);
            }
            remove_run();
        }
}

static const Test tests[] = {
    {"costs_are_sums", costs_are_sums},
    {"comparisons_have_their_joules", comparisons_have_their_joules},
    {"campaigns_add_up", campaigns_add_up},
    {"base_models", base_models},
    {"audit_finds_what_is_broken", audit_finds_what_is_broken},
    {"text_is_only_text", text_is_only_text},
    {"words_are_whole", words_are_whole},
    {"page_holds_no_foreign_markup", page_holds_no_foreign_markup},
    {"formats_agree", formats_agree},
    {"page_of_an_empty_run", page_of_an_empty_run},
    {"odd_documents", odd_documents},
};
TEST_MAIN(tests)
