// sandbox: evaluating a file to JSON, its errors, the libraries against known results, and cutting completions.
#include "../test.h"
#include "files.h"
#include "reward.h"
#include "sandbox.h"
#include <unistd.h>

static char folder[] = "/tmp/reckon-sandbox-XXXXXX";
static char path[64];

static bool eval(const char *source, json_t **out, Err *err) {
    static const char *const names[] = {"grpo", "sft", NULL};
    if (!path[0]) {
        CHECK(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/recipe.lua", folder);
    }
    CHECK(file_write_atomic(path, source, strlen(source), err));
    json_t *variables = json_pack("{s:i, s:[s,n]}", "seed", 7, "list", "a");
    bool ok = sandbox_eval_file(path, names, variables, out, err);
    json_decref(variables);
    unlink(path);
    return ok;
}

static void expect_json(const char *source, const char *want) {
    Err err = {0};
    json_t *value;
    Buf text = {0};
    OK(eval(source, &value, &err));
    json_write(value, &text);
    json_decref(value);
    CHECK_STR(text.data, want);
    buf_free(&text);
}

static void tables_become_json(void) {
    expect_json("return {a=1, b={1,2.5,'x'}, c=true, f=function() end, n=json.null, s=seed, l=#list}",
                "{\"a\":1,\"b\":[1,2.5,\"x\"],\"c\":true,\"f\":{\"$function\":1},\"l\":2,\"n\":null,\"s\":7}");
    expect_json("return {stages={sft{steps=1}, grpo{lr=1e-3}}}",
                "{\"stages\":[{\"$kind\":\"sft\",\"steps\":1},{\"$kind\":\"grpo\",\"lr\":0.001}]}");
    expect_json("return {{'correct', weight=2}, {'x'}}", "[{\"$1\":\"correct\",\"weight\":2},[\"x\"]]");
    expect_json("local t = {} for i = 1, 3 do t[i] = i end return t", "[1,2,3]");
    expect_json("return {}", "{}");
}

static const struct {
    const char *source, *message;
    long line; // 0: the file as a whole
} failures[] = {
    {"return 1", "the script returned number, expected one table", 0},
    {"return {a={b=0/0}}", "a.b: a number that isn't finite", 0},
    {"return {a={1/0}}", "a[1]: a number that isn't finite", 0},
    {"return {1, 2, x=2}", "both names and numbers as keys", 0},
    {"local t = {} t.t = t return t", "nested more than 100 deep, or a cycle", 0},
    {"return {'\\xff'}", "[1]: a string that isn't valid UTF-8", 0},
    {"return {a=coroutine.create(print)}", "a: a thread, expected data", 0},
    {"return {[1.5]=1}", "a key that is neither a string nor in 1..n", 0},
    {"\n\nreturn {", "unexpected symbol near <eof>", 3},
    {"\nerror('no')", "no", 2},
    {"\n\nwhile true do end", "out of fuel (the limit is 50000000 instructions)", 3},
    {"local x <const> = 1\nx.y.z = 2", "attempt to index a number value", 2},
    {"\x1bLua", "attempt to load a binary chunk (mode is 't')", 0},
};
static void errors_name_their_place(void) {
    for (int i = 0; i < COUNT(failures); i++) {
        Err err = {0};
        json_t *value;
        char where[80];
        CHECK(!eval(failures[i].source, &value, &err) && !value);
        CHECK_INT(err.code, ERR_DATA);
        if (!strstr(err.msg, failures[i].message)) FAIL("%s: got \"%s\"", failures[i].source, err.msg);
        snprintf(where, sizeof where, failures[i].line ? "%s:%ld" : "%s", path, failures[i].line);
        CHECK_STR(err.where, where);
    }
    Err err = {0};
    json_t *value;
    CHECK(!sandbox_eval_file("/nowhere/x.lua", NULL, NULL, &value, &err) && err.code == ERR_NOINPUT);
}

// Each is an expression that must be true.
static const char *const truths[] = {
    // patterns, against the results that the reference manual gives or implies
    "select('#', ('hello'):find('l')) == 2 and ('hello'):find('l') == 3",
    "('hello world'):match('^(%w+)') == 'hello'",
    "('key = value'):match('^(%w+)%s*=%s*(%w+)$') == 'key'",
    "('[[x]]'):find('[[]') == 1 and ('a]b'):find('[]]') == 2 and ('a^b'):find('[%^]') == 2",
    "('x^y'):find('[x^]', 2) == 2 and ('abc'):find('[^a]') == 2 and ('a-z'):find('[a%-z]', 2) == 2",
    "('THE (quick) fox'):find('%((%a+)%)') == 5",
    "('f(a(b)c)d'):match('%b()') == '(a(b)c)'",
    "('THE (quick) fox'):gsub('%f[%a]%a+', 'X') == 'X (X) X'",
    "('abc'):gsub('', '-') == '-a-b-c-'",
    "('abc'):gsub('%w', '%0%0') == 'aabbcc' and select(2, ('abc'):gsub('%w', '%0', 2)) == 2",
    "('hello world'):gsub('(%w+) (%w+)', '%2 %1') == 'world hello'",
    "('$name is $age'):gsub('%$(%w+)', {name='Lua', age=5}) == 'Lua is 5'",
    "('4 5'):gsub('%d', function(d) return d * 2 end) == '8 10'",
    "('abc'):gsub('b', function() return nil end) == 'abc'",
    "('aXbX'):gsub('^a', 'c') == 'cXbX'",
    "('abc'):match('()b()') == 2",
    "('\"it\\'s\"'):match('([\"\\'])(.-)%1') == '\"'",
    "('a.b'):find('.', 1, true) == 2 and ('a.b'):find('.', 2, true) == 2 and ('abc'):find('', 10) == nil",
    "('abc'):find('', 4) == 4 and ('abc'):find('b', -2) == 2 and ('aaa'):find('a-$') == 1",
    "('0x1F'):match('%x+', 3) == '1F' and ('a\\0b'):match('%z') == nil and ('a\\0b'):find('\\0') == 2",
    "(function() local n = 0 for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do n = n + v end return n end)() == 3",
    "(function() local n = 0 for w in ('abc'):gmatch('') do n = n + 1 end return n end)() == 4",
    "not pcall(string.find, 'a', '[a') and not pcall(string.find, 'a', '%') and not pcall(string.find, 'a', '(a')",
    "not pcall(string.gsub, 'a', 'a', '%2') and not pcall(string.find, 'a', '%1')",
    // format, rep
    "('%5.2f|%d|%s|%%|%x'):format(3.14159, 42, nil, 255) == ' 3.14|42|nil|%|ff'",
    "('%-5s|%5s|%.2s'):format('ab', 'cd', 'efg') == 'ab   |   cd|ef' and ('%c%c'):format(72, 105) == 'Hi'",
    "('%g %i %s'):format(0.1, 3.0, 1.5) == '0.1 3 1.5' and ('%s'):format(('x'):rep(200)) == ('x'):rep(200)",
    "not pcall(string.format, '%d', 1.5) and not pcall(string.format, '%p', {}) and not pcall(string.format, '%d')",
    "('ab'):rep(3, ',') == 'ab,ab,ab' and ('x'):rep(0) == '' and ('x'):rep(-1) == ''",
    // tables
    "(function() local t = {3,1,2} table.sort(t) return table.concat(t, ',') end)() == '1,2,3'",
    "(function() local t = {5,2,8,1,9,3,7} table.sort(t, function(a, b) return a > b end) return table.concat(t) end)() "
    "== '9875321'",
    "(function() local t = {1,2,4} table.insert(t, 3, 3) table.insert(t, 5) return table.concat(t) end)() == '12345'",
    "(function() local t = {1,2,3} return table.remove(t, 1) * 10 + table.remove(t) + #t end)() == 14",
    "table.concat(table.move({1,2,3}, 1, 3, 2)) == '1123' and table.concat(table.move({1,2,3}, 2, 3, 1)) == '233'",
    "select('#', table.unpack({1,nil,3}, 1, 3)) == 3 and table.pack(1,nil).n == 2",
    // order, addresses
    "(function() local s = '' for k in pairs({c=1, b=2, 10, 20, [-1]=0, [1.5]=3, [true]=1}) do s = s .. tostring(k) end "
    "return s end)() == '-111.52bctrue'",
    "next({b=1, a=2}) == 'a' and next({b=1, a=2}, 'a') == 'b' and next({b=1, a=2}, 'b') == nil",
    "(function() local n, t = 0, {a=1, b=2, c=3} for k in pairs(t) do t[k] = nil n = n + 1 end return n end)() == 3",
    "tostring({}) == 'table' and tostring(print) == 'function' and ('%s'):format({}) == 'table'",
    // mathematics
    "math.log(1000, 10) == 3 and math.log(8, 2) == 3 and math.exp(0) == 1 and math.floor(-1.5) == -2",
    "math.random(5) <= 5 and math.random(3, 3) == 3 and math.random() < 1 and not pcall(math.random, 2, 1)",
    // coroutines, errors
    "(function() local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end) "
    "return co(1) * 100 + co(10) end)() == 220",
    "select(2, pcall(error, {code=7})).code == 7 and select(2, pcall(error, 'x', 0)) == 'x'",
    "select(2, xpcall(function() error('x', 0) end, function(m) return m .. '!' end)) == 'x!'",
    "select('#', xpcall(function(...) return ... end, print, 1, 2)) == 3",
    "(function() local co = coroutine.create(function() pcall(coroutine.yield, 1) return 2 end) coroutine.resume(co) "
    "return select(2, coroutine.resume(co)) == 2 and coroutine.status(co) == 'dead' end)()",
    // json, text, re, verify
    "json.decode('{\"a\":[1,null,\"x\"],\"b\":null}').a[2] == json.null and json.decode('{\"b\":null}').b == nil",
    "json.encode({b={1,2}, a='x'}) == '{\"a\":\"x\",\"b\":[1,2]}' and select('#', json.decode('[1')) == 2",
    "json.encode({1, 2.5, 'a\\n\\1\\\"/\\\\', true, json.null, {}, 1e20, -0.0}) == '[1,2.5,\"a\\\\n\\\\u0001\\\\\"/\\\\\\\\\",true,null,{},1e20,-0.0]'",
    "json.encode('x') == '\"x\"' and json.encode({[1]='a'}) == '[\"a\"]' and json.encode({b={c=1,a={2}}}) == '{\"b\":{\"a\":[2],\"c\":1}}'",
    "(function() local t = {} for i = 1, 300 do t['k' .. i] = ('y'):rep(i) end local u = json.decode(json.encode(t)) for k, v in pairs(t) do "
    "if u[k] ~= v then return false end end return true end)()",
    "select(2, pcall(json.encode, {a={0/0}})):find('json.encode: a[1]: a number that isn', 1, true) == 1 and select(2, pcall(json.encode, {1, x=2})):find('both names') == 14",
    "select(2, pcall(json.encode, {1, nil, 3})):find('holes') == 26 and select(2, pcall(json.encode, {[1.5]=1})):find('neither') and "
    "select(2, pcall(json.encode, {b='\\xff'})):find('b: a string that isn') and select(2, pcall(json.encode, print)):find('a function, expected data') ~= nil",
    "(function() local t = {} t.t = t return select(2, pcall(json.encode, t)):find('nested more than 100') ~= nil end)()",
    "text.trim('  a b\\n') == 'a b' and #text.words(' a  b c ') == 3 and text.count('aaa', 'aa') == 1",
    "#text.lines('a\\nb\\n') == 2 and text.split('a,b,,c', ',')[3] == '' and text.length('h\xC3\xA9\xFF') == 3",
    "text.starts('abc', 'ab') and text.ends('abc', 'bc') and text.contains('abc', 'b') and not text.ends('c', 'bc')",
    "re.match('x=12, y=3', '(\\\\w)=(\\\\d+)') == 'x' and re.find('abc', 'b+') == 2 and re.test('A', '(?i)a')",
    "#re.all('a1b22', '\\\\d+') == 2 and re.all('a=1,b=2', '(\\\\w)=(\\\\d)')[2][1] == 'b' and #re.all('abc', 'x*') == 4",
    "re.replace('2024-05', '(\\\\d+)-(\\\\d+)', '$2/$1 $$') == '05/2024 $' and re.replace('abc', '', '-') == '-a-b-c-'",
    "#re.all('\\xffa1b22', '\\\\d+') == 2 and re.replace('\\xff\u00e91', '(?=1)|\u00e9', '-') == '\\xff--1' and re.replace('\u00e9\ud55c1', '', '.') == '.\u00e9.\ud55c.1.'",
    "re.replace('\u00e9\ud55c1', '(.)', '<$1>') == '<\u00e9><\ud55c><1>' and #re.all('\ud55c\ud55c', '.') == 2 and #re.all('\ud55c', 'x*') == 2",
    "re.match('\\xff12', '\\\\d+') == '12' and re.match('ac', 'a(b)?(c)') == false and not pcall(re.test, '', '(')",
    "verify.equal('1,234', '1234.0') and verify.equal('1/2', '0.5') and verify.equal(' +7 ', 7) and not verify.equal('1,23', 123)",
    "verify.equal('-0', '0') and verify.equal('2/6', '1/3') and not verify.equal('1/3', '0.3333333333333333')",
    "verify.equal('\xE2\x88\x92" "3', '-3') and verify.equal('.5', '1/2') and not verify.equal('1/0', '1/0 ') == false",
    "not verify.equal('0.1000000000000000000000000000000000001', '0.1') and verify.equal('cat ', ' cat')",
};
static void libraries_keep_their_word(void) {
    for (int i = 0; i < COUNT(truths); i++) {
        Err err = {0};
        json_t *value;
        char *source = xasprintf("return {ok = (%s)}", truths[i]);
        bool ok = eval(source, &value, &err);
        free(source);
        if (!ok) FAIL("%s: %s: %s", truths[i], err.where, err.msg);
        bool held = json_is_true(json_object_get(value, "ok"));
        json_decref(value);
        if (!held) FAIL("not true: %s", truths[i]);
    }
}

static const struct {
    const char *completion;
    bool think_mode;
    const char *think, *answer;
} cuts[] = {
    {"steps</think> 42 ", true, "steps", "42"},
    {"steps", true, "steps", ""},
    {"a</think>b</think>c", true, "a", "b</think>c"},
    {" 42\n", false, "", "42"},
    {"x</think>y", false, "", "x</think>y"},
    {"<answer>1</answer></think><answer> 2 </answer> so", true, "<answer>1</answer>", "2"},
    {"</think><answer>1</answer><answer>2</answer>", true, "", "2"},
    {"</think><answer>1</answer> 2</answer>", true, "", "1"},
    {"</think>2</answer>", true, "", "2</answer>"},
    {"</think><answer>2", true, "", "<answer>2"},
    {"</think><answer><answer>89</answer></answer>", true, "", "89"},
    {"", true, "", ""},
    {"", false, "", ""},
};
static void completions_are_cut(void) {
    for (int i = 0; i < COUNT(cuts); i++) {
        TextSpan think, answer;
        completion_cut(cuts[i].completion, strlen(cuts[i].completion), cuts[i].think_mode, &think, &answer);
        if (think.size != strlen(cuts[i].think) || memcmp(think.data, cuts[i].think, think.size) != 0)
            FAIL("%s: thinking is \"%.*s\"", cuts[i].completion, (int)think.size, think.data);
        if (answer.size != strlen(cuts[i].answer) || memcmp(answer.data, cuts[i].answer, answer.size) != 0)
            FAIL("%s: answer is \"%.*s\"", cuts[i].completion, (int)answer.size, answer.data);
    }
}

static void cleanup(void) { CHECK(!path[0] || rmdir(folder) == 0); }

static const Test tests[] = {
    {"tables_become_json", tables_become_json},
    {"errors_name_their_place", errors_name_their_place},
    {"libraries_keep_their_word", libraries_keep_their_word},
    {"completions_are_cut", completions_are_cut},
    {"cleanup", cleanup},
};
TEST_MAIN(tests)
