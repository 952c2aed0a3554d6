// The shipped rewards on their own cases (rewards/cases), the functions of shaping against the reference numbers, and
// what scripts may ask about texts, answers and programs.
#include "../test.h"
#include "files.h"
#include "score.h"
#include "sandbox.h"
#include "unicode.h"

// ---- cases --------------------------------------------------------------------------------------------------------
typedef struct Cases {
    const ScoreScripts *scripts;
    int count;
} Cases;

static int32_t whole(const json_t *row, const char *key) { return (int32_t)json_integer_value(json_object_get(row, key)); }

static bool judge_case(void *context, json_t *row, long line, Err *err) {
    Cases *c = context;
    const char *completion = json_string_value(json_object_get(row, "completion")), *mode = json_string_value(json_object_get(row, "mode"));
    RewardSample s = {.id = "case", .completion = completion, .completion_size = strlen(completion), .finish = "stop",
                      .truth = json_string_value(json_object_get(row, "truth")), .row = json_object_get(row, "row"),
                      .tokens = whole(row, "tokens"), .mode = mode ? mode : strstr(completion, "think>") ? "think" : "direct"};
    const json_t *expect = json_object_get(row, "expect");
    Verdict v;
    scripts_score(c->scripts, &s, 1, &v, NULL, NULL);
    c->count++;
    if (json_is_number(expect) && v.state == VERDICT_SCORED && fabs(v.score - json_number_value(expect)) <= 1e-12) return true;
    if (json_is_string(expect) && strcmp(json_string_value(expect), verdict_state_names[v.state]) == 0) return true;
    return fail(err, ERR_FAILED, "", "line %ld: got %s %g %s", line, verdict_state_names[v.state], v.score, v.why);
}

static void shipped_rewards(void) {
    static const struct { const char *name, *options; int cases; } rewards[] = {
        {"correct", "{}", 8}, {"format", "{}", 7}, {"length", "{\"max\": 100, \"cache\": 20}", 4}, {"cosine", "{\"max\": 100}", 5},
        {"repetition", "{}", 4}, {"language", "{\"lang\": \"ko\"}", 5}, {"cost", "{}", 3}, {"code", "{\"fuel\": 100000}", 6},
        {"json_schema", "{}", 8}, {"multiple_choice", "{}", 12}};
    for (int i = 0; i < COUNT(rewards); i++) {
        Err err = {0};
        ScoreScripts scripts;
        json_t *options = json_loads(rewards[i].options, 0, NULL);
        RewardLimits limits = reward_default_limits();
        RewardSpec spec = {.script = rewards[i].name, .weight = 1, .options = options};
        OK(scripts_open(&spec, 1, &limits, &scripts, &err));
        Cases cases = {.scripts = &scripts};
        char *path = xasprintf("%s/../../rewards/cases/%s.jsonl", TEST_DATA, rewards[i].name);
        if (!json_lines(path, 1 << 20, judge_case, &cases, &err)) FAIL("%s: %s", rewards[i].name, err.msg);
        CHECK(cases.count >= rewards[i].cases);
        scripts_close(&scripts);
        json_decref(options);
        free(path);
    }
}

// ---- what scripts may call ----------------------------------------------------------------------------------------
static const char *const truths[] = {
    "verify.equal('$\\\\frac{1}{2}$', '0.5') and not verify.equal('1', '2') and verify.equal(3, 3.0)",
    "extract.answer('<answer>1</answer> <answer> 2 </answer>') == '2' and extract.answer('2') == nil",
    "extract.boxed('\\\\boxed{\\\\frac{1}{2}}') == '\\\\frac{1}{2}' and extract.hash('#### 5\\n') == '5' and extract.number('a 5 b -6.') == '-6'",
    "extract.final('so 3') == '3' and extract.final('\\\\boxed{2} 3') == '2' and extract.final('none') == nil",
    "extract.code('```lua\\nx\\n```', 'lua') == 'x\\n' and extract.code('```c\\nx\\n```', 'lua') == nil and extract.code('```c\\nx\\n```') == 'x\\n'",
    "json.decode(extract.json('see {\"a\": [1]} there')).a[1] == 1 and extract.thinking('<think>a</think>b') == 'b' and extract.thinking('<think>a') == nil",
    "shape.soft_overlong(90, 100, 20) == -0.5 and shape.cosine(0, 10, 1, 0) == 1 and shape.cosine(20, 10, 1, 0) == 0 and shape.cosine(20, 10, 1, 0, true) == 1",
    "(function() local r = shape.kimi({40, 80, 120, 200}, {true, false, true, false}) return r[1] == 0.5 and r[2] == 0 and r[3] == 0 and r[4] == -0.5 end)()",
    "shape.repetition('a b a b', 2) == 1 - 2/3 and shape.repetition('', 1) == 0 and not pcall(shape.repetition, 'a', 0)",
    "shape.think_format('<think>a</think>b') == 1 and shape.tag_count('<think>\\na') == 0.25 and shape.reasoning_steps('First, Second,') == 2/3",
    "text.language('한국어 text', 'ko') == 3/7 and text.language('', 'ko') == 0 and not pcall(text.language, 'a', 'xx')",
    "text.language('カタカナと漢字', 'ja') == 1 and text.language('漢字', 'zh') == 1 and text.language('漢字', 'ja') == 0 and text.language('word', 'en') == 1",
    "text.language('Tôi có ba quả táo', 'vi') == 1 and text.language('three apples', 'vi') == 0 and text.language('12 + 5', 'vi') == 0",
    "text.scripts('aё한').cyrillic == 1/3 and text.scripts('aё한').hangul == 1/3 and text.scripts('').latin == 0 and text.scripts('ế').vietnamese == 1",
    "text.similarity('kitten', 'sitting') == 1 - 3/7 and text.similarity('', '') == 1 and text.similarity('a', '') == 0 and text.similarity('한', '한') == 1",
    "run.lua('x = 1', 'assert(x == 1)').passed == 1 and run.lua('x = ', 'y()').ok == false and run.lua('x = 1').total == 0",
    "run.lua('while true do end', 'y()', 10000).error:find('fuel') ~= nil and run.lua('error(\"no\")').error == 'program:1: no'",
    "run.lua('x = 5', {'assert(x == 5)', 'x = 6', 'assert(x == 5)', 'assert(y)'}).passed == 3",
    "run.lua('assert = print error = print pcall = nil string.format = nil', 'assert(false)').passed == 0",
    "run.lua('math.floor = function() return 5 end', 'assert(math.floor(2.5) == 2)').passed == 1",
    "run.lua('os.exit()').ok == false and not run.lua('run.lua(\"x = 1\")', nil, 1000000).ok and not pcall(run.program, {})",
};
static void scripts_may_ask(void) {
    char *path = xasprintf("/tmp/reckon-shipped-%d.lua", (int)random_below(&(Random){.key = random_key((uint64_t)(clock_seconds() * 1e9), STREAM_TEST)}, 1 << 30));
    for (int i = 0; i < COUNT(truths); i++) {
        Err err = {0};
        json_t *value;
        char *source = xasprintf("return {ok = (%s)}", truths[i]);
        OK(file_write_atomic(path, source, strlen(source), &err));
        bool ok = sandbox_eval_file(path, NULL, NULL, &value, &err);
        remove(path);
        free(source);
        if (!ok) FAIL("%s: %s: %s", truths[i], err.where, err.msg);
        bool held = json_is_true(json_object_get(value, "ok"));
        json_decref(value);
        if (!held) FAIL("not true: %s", truths[i]);
    }
    free(path);
}

static void words_of_any_bytes(void) {
    static const struct { const char *text; int words; } cases[] = {{"", 0}, {"  ", 0}, {"a", 1}, {" a", 1}, {"a ", 1}, {"a b", 2}, {"\xE3\x80\x80" "a\xC2\xA0" "b\xFF", 2}, {"\xF0\x9F", 1}};
    for (int i = 0; i < COUNT(cases); i++) {
        TextSpan text = {cases[i].text, strlen(cases[i].text)}, word;
        int n = 0;
        for (; unicode_word(&text, &word); n++) CHECK(word.size > 0);
        CHECK_INT(n, cases[i].words);
    }
    size_t size;
    char *lower = unicode_lower((TextSpan){"\xC3\x89" "A\xFF\xC8\xBA", 6}, &size);
    CHECK_INT(size, 7);
    CHECK(memcmp(lower, "\xC3\xA9" "a\xFF\xE2\xB1\xA5", 7) == 0);
    free(lower);
}

static const Test tests[] = {
    {"shipped_rewards", shipped_rewards},
    {"scripts_may_ask", scripts_may_ask},
    {"words_of_any_bytes", words_of_any_bytes},
};
TEST_MAIN(tests)
