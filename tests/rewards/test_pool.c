// The pool and both of its walls: every attack ends in its verdict with the pool alive, deaths are survived, scores
// depend on neither worker nor order, and a worker that gets out of Lua still can't open a file.
#include "../test.h"
#include "files.h"
#include "pool.h"
#include "worker.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/reckon-pool-XXXXXX";
static char script_path[64];

static RewardPool *open_pool(const char *source, int workers, const RewardLimits *limits, const json_t *options) {
    Err err = {0};
    RewardPool *pool;
    if (!script_path[0]) {
        CHECK(mkdtemp(folder));
        snprintf(script_path, sizeof script_path, "%s/mine.lua", folder);
    }
    OK(file_write_atomic(script_path, source, strlen(source), &err));
    RewardSpec spec = {.script = script_path, .weight = 1, .options = options};
    OK(reward_pool_open(&spec, 1, workers, limits, &pool, &err));
    unlink(script_path);
    return pool;
}

static RewardSample sample_of(const char *completion, const char *truth) {
    return (RewardSample){.id = "test", .completion = completion, .completion_size = strlen(completion), .truth = truth,
                          .mode = strstr(completion, "</think>") ? "think" : "direct", .finish = "stop", .seed = 5};
}

static Verdict score(RewardPool *pool, const RewardSample *sample) {
    Err err = {0};
    Verdict v;
    OK(reward_pool_submit(pool, sample, &v, &err));
    OK(reward_pool_finish(pool, &err));
    return v;
}

static RewardLimits quick_limits(void) {
    RewardLimits limits = reward_default_limits();
    limits.fuel = 1000000;
    limits.memory = 16 << 20;
    return limits;
}

// ---- attacks -------------------------------------------------------------------------------------------------------------
typedef struct Attack {
    const char *source; // of the score function's body; a whole script if it begins with '!'
    VerdictState state;
    const char *why; // a part of the reason; NULL: any
} Attack;

static void run_attacks(const Attack *attacks, int count) {
    RewardLimits limits = quick_limits();
    for (int i = 0; i < count; i++) {
        const Attack *a = &attacks[i];
        char *source = a->source[0] == '!' ? xstrdup(a->source + 1)
                                           : xasprintf("return function(sample) do %s end return 1 end", a->source);
        RewardPool *pool = open_pool(source, 1, &limits, NULL);
        free(source);
        RewardSample sample = sample_of("x", NULL);
        Verdict first = score(pool, &sample), second = score(pool, &sample);
        int64_t deaths = reward_pool_deaths(pool);
        reward_pool_close(pool);
        if (first.state != a->state)
            FAIL("%s: got %s (%s), want %s", a->source, verdict_state_names[first.state], first.why,
                 verdict_state_names[a->state]);
        if (a->why && !strstr(first.why, a->why)) FAIL("%s: got \"%s\", want \"%s\"", a->source, first.why, a->why);
        if (second.state != first.state || second.fuel != first.fuel || strcmp(second.why, first.why) != 0)
            FAIL("%s: the second run differs: %s (%s), fuel %llu and %llu", a->source, verdict_state_names[second.state],
                 second.why, (unsigned long long)first.fuel, (unsigned long long)second.fuel);
        CHECK_INT(deaths, 0);
        CHECK((first.state == VERDICT_SCORED) == isfinite(first.score));
    }
}

static void absent_or_error(void) {
    static const Attack attacks[] = {
        {"os.execute('id')", VERDICT_ERROR, "mine.lua:1: attempt to index a nil value (global 'os')"},
        {"os.exit(0)", VERDICT_ERROR, "'os'"},
        {"io.open('/etc/passwd')", VERDICT_ERROR, "'io'"},
        {"io.popen('id')", VERDICT_ERROR, "'io'"},
        {"require 'os'", VERDICT_ERROR, "'require'"},
        {"package.loadlib('libc.so.6', 'system')", VERDICT_ERROR, "'package'"},
        {"dofile('/etc/passwd')", VERDICT_ERROR, "'dofile'"},
        {"loadfile('/etc/passwd')", VERDICT_ERROR, "'loadfile'"},
        {"load('return 1')", VERDICT_ERROR, "'load'"},
        {"string.dump(print)", VERDICT_ERROR, "'dump'"},
        {"debug.sethook()", VERDICT_ERROR, "'debug'"},
        {"debug.getregistry()", VERDICT_ERROR, "'debug'"},
        {"setmetatable({}, {__gc = function() while true do end end})", VERDICT_ERROR, "__gc"},
        {"setmetatable({}, {__mode = 'k'})", VERDICT_ERROR, "weak tables"},
        {"collectgarbage('stop')", VERDICT_ERROR, "'collectgarbage'"},
        {"getmetatable('').__index = nil", VERDICT_ERROR, NULL},
        {"getmetatable('').__len = nil", VERDICT_ERROR, NULL},
        {"string.format('%p', {})", VERDICT_ERROR, "invalid conversion"},
        {"coroutine.close(coroutine.create(print))", VERDICT_ERROR, "'close'"},
        {"string.pack('i', 1)", VERDICT_ERROR, "'pack'"},
        {"local mt = {} local t = setmetatable({}, mt) mt.__gc = function() end setmetatable(t, mt)", VERDICT_ERROR, "__gc"},
        {"rawset(_G, 'x', 1) return _ENV.os.getenv('HOME')", VERDICT_ERROR, NULL},
        {"!return os.getenv('HOME')", VERDICT_ERROR, "'os'"},
        {"!return 5", VERDICT_ERROR, "expected a function or a table"},
        {"!return {}", VERDICT_ERROR, "score or group"},
        {"!", VERDICT_ERROR, "expected a function or a table"},
    };
    run_attacks(attacks, COUNT(attacks));
    // Bytecode and syntax errors don't even load.
    static const char *const broken[] = {"\x1bLua\x54", "return function("};
    for (int i = 0; i < COUNT(broken); i++) {
        Err err = {0};
        RewardPool *pool;
        RewardLimits limits = quick_limits();
        RewardSpec spec = {.script = script_path, .weight = 1};
        OK(file_write_atomic(script_path, broken[i], strlen(broken[i]), &err));
        CHECK(!reward_pool_open(&spec, 1, 1, &limits, &pool, &err) && err.code == ERR_DATA && !pool);
    }
    unlink(script_path);
}

static void budget(void) {
    static const Attack attacks[] = {
        {"while true do end", VERDICT_BUDGET, "mine.lua:1: out of fuel (the limit is 1000000 instructions)"},
        {"while true do pcall(function() while true do end end) end", VERDICT_BUDGET, "fuel"},
        {"local function h() return xpcall(error, h) end while true do xpcall(error, h) end", VERDICT_BUDGET, NULL},
        {"local function h(m) while true do end end while true do xpcall(error, h) end", VERDICT_BUDGET, "fuel"},
        {"while true do local x <close> = setmetatable({}, {__close = function() while true do end end}) end",
         VERDICT_BUDGET, "fuel"},
        {"local mt = {} mt.__close = function() for i = 1, 1e9 do local y <close> = setmetatable({}, mt) end end "
         "pcall(function() local x <close> = setmetatable({}, mt) end)", VERDICT_BUDGET, NULL},
        {"while true do coroutine.wrap(function() end)() end", VERDICT_BUDGET, "fuel"},
        {"while true do local c = coroutine.create(function() while true do end end) coroutine.resume(c) end",
         VERDICT_BUDGET, "fuel"},
        {"local function f() return 1 + f() end f()", VERDICT_BUDGET, "nested too deeply"},
        {"local function f() return 1 + f() end pcall(f)", VERDICT_BUDGET, "nested too deeply"},
        {"local function f() coroutine.wrap(f)() end pcall(f)", VERDICT_BUDGET, NULL},
        {"local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]",
         VERDICT_BUDGET, "nested too deeply"},
        {"local t = {} for i = 1, 100 do t[i] = i % 7 end table.sort(t, function(a, b) return true end)", VERDICT_BUDGET,
         "invalid order function"},
        {"return ('a'):rep(20000):find('.-.-.-.-b')", VERDICT_BUDGET, "fuel"},
        {"return ('a'):rep(28):find(('a?'):rep(28) .. ('a'):rep(29))", VERDICT_BUDGET, "fuel"},
        {"return ('a'):rep(300):find(('a?'):rep(300) .. ('a'):rep(300))", VERDICT_BUDGET, NULL},
        {"return (''):rep(math.maxinteger)", VERDICT_BUDGET, "fuel"},
        {"table.move(setmetatable({}, {__index = type}), 1, 1 << 62, 2, setmetatable({}, {__newindex = type}))",
         VERDICT_BUDGET, "fuel"},
        {"table.insert(setmetatable({}, {__len = function() return 1 << 62 end}), 1, 0)", VERDICT_BUDGET, NULL},
        {"local n = 0 table.insert(setmetatable({}, {__len = function() n = n + 1 return n > 1 and 1 << 62 or 0 end}), 1, 0) "
         "while n < 2 do end", VERDICT_BUDGET, "fuel"},
        {"table.unpack(setmetatable({}, {__index = type}), 1, 90000) while true do table.unpack({}, 1, 90000) end",
         VERDICT_BUDGET, "fuel"},
        {"return re.test(('a'):rep(40), '^(a+)+$(?<!a)')", VERDICT_BUDGET, "fuel"},
        {"local s = ('a'):rep(60000) return re.test(s, 'a*b|(a*)\\\\1c')", VERDICT_BUDGET, "fuel"},
        {"local s = ('a'):rep(1 << 20) local t = s .. 'b' local u = s .. 'b' while t == u do end", VERDICT_BUDGET, "fuel"},
        {"local s = ('a'):rep(1 << 20) while true do local t = s .. 'b' end", VERDICT_BUDGET, "fuel"},
        {"while true do json.decode('[1,2,3]') end", VERDICT_BUDGET, "fuel"},
        {"while true do string.format('%99.99f', 1e300) end", VERDICT_BUDGET, "fuel"},
        {"local t = {} for i = 1, 2000 do t[i] = i end for k in next, t do end", VERDICT_BUDGET, "fuel"},
        {"local t = {} for i = 1, 4096 do t['k' .. i] = i end local k = 'k1' "
         "for i = 1, 1e9 do t[k] = nil k = 'n' .. i t[k] = i end", VERDICT_BUDGET, "fuel"},
        {"::a:: goto a", VERDICT_BUDGET, "fuel"},
        {"while true do verify.equal('$(x+1)^{50}$', '$(1+x)^{50}$') end", VERDICT_BUDGET, "fuel"},
        {"local s = ('9^'):rep(2000) while true do verify.equal(s .. '9', s .. '8') end", VERDICT_BUDGET, "fuel"},
        {"local s = ('<answer>'):rep(1000) while true do extract.final(s) end", VERDICT_BUDGET, "fuel"},
        {"local s = ('{'):rep(1000) while true do extract.json(s) end", VERDICT_BUDGET, "fuel"},
        {"local s = ('a '):rep(10000) while true do shape.repetition(s, 100) end", VERDICT_BUDGET, "fuel"},
        {"local s = ('a'):rep(4000) while true do text.similarity(s, s .. 'b') end", VERDICT_BUDGET, "fuel"},
        {"local s = ('ế '):rep(4000) while true do text.language(s, 'vi') end", VERDICT_BUDGET, "fuel"},
        {"while true do run.lua('while true do end', 'x()') end", VERDICT_BUDGET, "fuel"},
        {"while true do run.lua('local s = (\"x\"):rep(1 << 40)', 'x()') end", VERDICT_BUDGET, "fuel"},
        {"while true do shape.kimi({1, 2, 3}, {true, true, true}) end", VERDICT_BUDGET, "fuel"},
        {"for _ in ('x'):rep(100000):gmatch('x-y') do end", VERDICT_BUDGET, "fuel"},
        {"!while true do end", VERDICT_BUDGET, "mine.lua:1: out of fuel"},
    };
    run_attacks(attacks, COUNT(attacks));
}

static void memory(void) {
    static const Attack attacks[] = {
        {"return #('x'):rep(1 << 40)", VERDICT_BUDGET, "out of memory (the limit is 16777216 bytes)"},
        {"local t = {} for i = 1, 1e9 do t[i] = {} end", VERDICT_BUDGET, NULL},
        {"local t = {} for i = 1, 1e9 do t[i] = i end", VERDICT_BUDGET, NULL},
        {"return table.concat(setmetatable({}, {__index = type, __len = function() return 1 << 40 end}))", VERDICT_BUDGET, NULL},
        {"return ('x'):rep(4000):gsub('x', ('y'):rep(100000))", VERDICT_BUDGET, NULL},
        {"local s = 'x' while true do s = s .. s end", VERDICT_BUDGET, "memory"},
        {"local s = 'x' while true do pcall(function() s = s .. s end) end", VERDICT_BUDGET, "memory"},
        {"local t = {} while true do t = {t} end", VERDICT_BUDGET, NULL},
        {"return #('x'):rep(20 << 20)", VERDICT_BUDGET, "memory"},
    };
    run_attacks(attacks, COUNT(attacks));
}

static void invalid_values(void) {
    static const Attack attacks[] = {
        {"return 0/0", VERDICT_ERROR, "mine.lua: the score is NaN, expected a finite number"},
        {"return 1/0", VERDICT_ERROR, "the score is inf"},
        {"return -1/0", VERDICT_ERROR, "the score is -inf"},
        {"return '1'", VERDICT_ERROR, "returned a string ('1')"},
        {"return true", VERDICT_ERROR, "returned a boolean (true)"},
        {"return", VERDICT_ERROR, "nil without a reason"},
        {"return nil, 5", VERDICT_ERROR, "nil without a reason"},
        {"return {1, 2}", VERDICT_ERROR, "a list instead of"},
        {"return {}", VERDICT_ERROR, "empty"},
        {"return {a = '1'}", VERDICT_ERROR, "part a is a string"},
        {"return {a = 1, b = 0/0}", VERDICT_ERROR, "b is NaN"},
        {"local t = {} for i = 1, 25 do t['p' .. i] = 1 end return t", VERDICT_ERROR, "more than 24 parts"},
        {"error(setmetatable({}, {__tostring = function() while true do end end}))", VERDICT_ERROR, "error object is a table"},
        {"error({code = 7, why = 'no'})", VERDICT_ERROR, "error object is a table ({code = 7, why = 'no'})"},
        {"local function f() error('deep') end local function g() f() end\n g()", VERDICT_ERROR, "mine.lua:1: deep (called from line 1, 2)"},
        {"local t = {} for i = 1, 100 do t['k' .. i] = i end error(t)", VERDICT_ERROR, "error object is a table"},
        {"error()", VERDICT_ERROR, "error object is a nil"},
        {"coroutine.yield(1)", VERDICT_ERROR, "outside a coroutine"},
        {"!return {group = function(samples) return {1, 2} end}", VERDICT_ERROR, "a list of 2 for 1 samples"},
        {"!return {group = function(samples) return 1 end}", VERDICT_ERROR, "expected a list"},
        {"!return {group = function(samples) return {'1'} end}", VERDICT_ERROR, "returned a string"},
        {"return nil, 'no truth'", VERDICT_ABSTAINED, "no truth"},
        {"!return {group = function(samples) return {false} end}", VERDICT_ABSTAINED, NULL},
    };
    run_attacks(attacks, COUNT(attacks));
}

static void no_effect(void) {
    static const Attack attacks[] = {
        {"for i = 1, 20000 do print('flood', i) end", VERDICT_SCORED, ""},
        {"if poisoned then error('poisoned') end poisoned = true string.rep = nil _G.pairs = nil math.random()",
         VERDICT_SCORED, ""},
        {"assert(math.type(3) == 'integer') math.type = nil text.trim = print json.null = 1 verify = nil", VERDICT_SCORED, ""},
        {"local n = 0 for k in pairs(_G) do n = n + 1 end _G['k' .. n] = 1 return n", VERDICT_SCORED, ""},
        {"local t = {} for i = 1, 1000 do t['k' .. i] = i end assert(#json.encode(t) > 1000)", VERDICT_SCORED, ""},
        {"assert(shape.repetition(('a b c '):rep(5000), 3) > 0.9)", VERDICT_SCORED, ""},
    };
    run_attacks(attacks, COUNT(attacks));
}

// ---- scores --------------------------------------------------------------------------------------------------------------
static void scores_and_parts(void) {
    RewardLimits limits = quick_limits();
    json_t *options = json_pack("{s:f, s:s}", "scale", 2.5, "lang", "ko"), *row = json_pack("{s:[i,n,s], s:n}", "k", 1, "x", "y");
    RewardPool *pool = open_pool("return {name = 'quality', score = function(s)\n"
                                 "assert(s.think == 'a' and s.answer == 'b' and s.mode == 'think' and s.step == 9)\n"
                                 "assert(s.row.k[3] == 'x' and s.row.k[2] == json.null and s.row.y == nil and s.truth == nil)\n"
                                 "assert(s.tokens == 3 and s.finish == 'stop' and options.lang == 'ko' and s.prompt == 'q')\n"
                                 "return {one = 1, half = options.scale} end}", 1, &limits, options);
    RewardSample s = sample_of("a</think>b", NULL);
    s.row = row, s.step = 9, s.tokens = 3, s.prompt = "q";
    Verdict v = score(pool, &s);
    if (v.state != VERDICT_SCORED) FAIL("%s", v.why);
    CHECK_NEAR(v.score, 3.5, 0);
    CHECK_INT(v.part_count, 2);
    CHECK_STR(v.parts[0].name, "quality.half");
    CHECK_NEAR(v.parts[0].value, 2.5, 0);
    CHECK_STR(v.parts[1].name, "quality.one");
    CHECK(v.fuel > 0 && v.fuel < 1000);
    char hash[65];
    reward_pool_hash(pool, hash);
    CHECK_INT(strlen(hash), 64);
    reward_pool_close(pool);
    json_decref(options), json_decref(row);
}

static void weights_and_worst_state(void) {
    Err err = {0};
    RewardLimits limits = quick_limits();
    RewardPool *pool;
    static const char mine[] = "return function(s) if s.answer == 'bad' then error('bad') end "
                               "if s.answer == 'none' then return nil, 'none' end return 3 end";
    OK(file_write_atomic(script_path, mine, sizeof mine - 1, &err));
    RewardSpec specs[] = {{.script = "correct", .weight = 1}, {.script = script_path, .weight = 0.5}};
    OK(reward_pool_open(specs, 2, 2, &limits, &pool, &err));
    unlink(script_path);
    RewardSample s = sample_of("t</think>7", "7");
    Verdict v = score(pool, &s);
    CHECK_NEAR(v.score, 2.5, 0);
    CHECK_STR(v.parts[0].name, "correct");
    CHECK_STR(v.parts[1].name, "mine");
    s = sample_of("t</think>bad", "7");
    v = score(pool, &s);
    CHECK(v.state == VERDICT_ERROR && isnan(v.score) && strstr(v.why, "mine.lua:1: bad"));
    CHECK_INT(v.part_count, 1);
    s = sample_of("t</think>none", "none");
    v = score(pool, &s);
    CHECK(v.state == VERDICT_SCORED && v.score == 1 && isnan(v.parts[1].value) && v.why[0] == 0);
    s = sample_of("t</think>none", NULL);
    v = score(pool, &s);
    CHECK(v.state == VERDICT_ABSTAINED && isnan(v.score));
    reward_pool_close(pool);
    RewardSpec unknown = {.script = "korrect", .weight = 1}, missing = {.script = "/nowhere/x.lua", .weight = 1};
    CHECK(!reward_pool_open(&unknown, 1, 1, &limits, &pool, &err) && err.code == ERR_NOINPUT);
    CHECK(strstr(err.msg, "correct") && strstr(err.msg, "format") && strstr(err.msg, "length"));
    CHECK(!reward_pool_open(&missing, 1, 1, &limits, &pool, &err) && err.code == ERR_NOINPUT);
}

static void groups_are_scored_together(void) {
    Err err = {0};
    RewardLimits limits = quick_limits();
    RewardPool *pool = open_pool("return {group = function(list) local out = {} for i, s in ipairs(list) do "
                                 "out[i] = #list * 10 + i if s.answer == 'skip' then out[i] = false end end return out end}", 2, &limits, NULL);
    static const char *const answers[] = {"a", "b", "c", "d", "skip", "e"};
    static const int32_t groups[] = {1, 1, 1, 2, 2, 3};
    static const double want[] = {31, 32, 33, 21, NAN, 11};
    Verdict v[6];
    for (int i = 0; i < 6; i++) {
        RewardSample s = sample_of(answers[i], NULL);
        s.group = groups[i];
        OK(reward_pool_submit(pool, &s, &v[i], &err));
    }
    OK(reward_pool_finish(pool, &err));
    for (int i = 0; i < 6; i++) {
        if (isnan(want[i])) CHECK(v[i].state == VERDICT_ABSTAINED);
        else CHECK_NEAR(v[i].score, want[i], 0);
    }
    reward_pool_close(pool);
}

static void score_hostile_completions(bool bare) {
    Err err = {0};
    RewardLimits limits = reward_default_limits();
    limits.bare = bare;
    RewardPool *pool;
    json_t *options = json_pack("{s:i, s:i}", "max", 100, "cache", 20);
    RewardSpec specs[] = {{.script = "correct", .weight = 1}, {.script = "format", .weight = 0.01},
                          {.script = "length", .weight = 0.0001, .options = options}};
    OK(reward_pool_open(specs, 3, 2, &limits, &pool, &err));
    char *parens = xmalloc((1 << 20) + 1);
    memset(parens, '(', 1 << 20);
    parens[1 << 20] = 0;
    const struct {
        const char *completion;
        size_t size; // 0: to the NUL
        const char *mode, *truth;
        double correct, format;
    } cases[] = {
        {"steps</think>42", 0, "think", "42", 1, 1},
        {"<think>steps</think> <answer>42</answer>", 0, "think", "42", 1, 1},
        {"42\0", 3, "direct", "42", 0, 1},
        {"4\0" "2", 3, "direct", "42", 0, 1},
        {"\xff\xfe</think>\xc3", 0, "think", "42", 0, 1},
        {parens, 0, "think", "42", 0, 0},
        {parens, 0, "direct", "42", 0, 1},
        {"it is </answer>42</answer>", 0, "direct", "42", 0, 1},
        {"x</think></answer>42", 0, "think", "42", 0, 1},
        {"the truth is 42</think>41", 0, "think", "42", 0, 1},
        {"<answer>42</answer></think>41", 0, "think", "42", 0, 1},
        {"<answer>42</answer> I never stop thinking", 0, "think", "42", 0, 0},
        {"x</think>40 41 42 43", 0, "think", "42", 0, 1},
        {"x</think>40, 41, 42, 43", 0, "think", "42", 0, 1},
        {"x</think>y</think>42", 0, "think", "42", 0, 0},
        {"a<think>x</think>42", 0, "think", "42", 1, 0},
        {"<think>x</think>42", 0, "direct", "42", 0, 0},
        {"", 0, "think", "42", 0, 0},
        {"</think>", 0, "think", "", 1, 0},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        RewardSample s = sample_of(cases[i].completion, cases[i].truth);
        if (cases[i].size) s.completion_size = cases[i].size;
        s.mode = cases[i].mode;
        s.tokens = 90;
        Verdict v = score(pool, &s);
        if (v.state != VERDICT_SCORED) FAIL("%.40s: %s %s", cases[i].completion, verdict_state_names[v.state], v.why);
        if (v.parts[0].value != cases[i].correct || v.parts[1].value != cases[i].format)
            FAIL("%.40s: correct %g, want %g; format %g, want %g", cases[i].completion, v.parts[0].value, cases[i].correct,
                 v.parts[1].value, cases[i].format);
        CHECK_NEAR(v.parts[2].value, -0.5, 0);
    }
    CHECK_INT(reward_pool_deaths(pool), 0);
    reward_pool_close(pool);
    json_decref(options);
    free(parens);
}

static void hostile_completions(void) { score_hostile_completions(false); }
static void hostile_completions_without_the_interpreters_wall(void) { score_hostile_completions(true); }

// No text of a model makes a shipped reward fail, run out of its budget or lose its process, with both walls or with one.
static void shipped_rewards_stand_hostile_text(void) {
    Err err = {0};
    int divisor = 1;
#ifdef RECKON_SANITIZED
    divisor = 10;
#endif
    json_t *lengths = json_pack("{s:i, s:i}", "max", 100, "cache", 20), *lang = json_pack("{s:s}", "lang", "ko"), *row = NULL;
    static const char row_text[] = "{\"schema\":{\"type\":\"object\"},\"tests\":[\"assert(f(1) == 2)\"],\"choices\":[\"1\",\"2\"]}";
    OK(json_parse(row_text, strlen(row_text), "row", 1, &row, &err));
    const struct { const char *name; const json_t *options; } shipped[] = {
        {"correct", NULL}, {"format", NULL}, {"length", lengths}, {"cosine", lengths}, {"repetition", NULL}, {"language", lang}, {"cost", NULL},
        {"code", NULL}, {"json_schema", NULL}, {"multiple_choice", NULL}};
    RewardSpec specs[COUNT(shipped)];
    for (int i = 0; i < COUNT(shipped); i++) specs[i] = (RewardSpec){.script = shipped[i].name, .weight = 1, .options = shipped[i].options};
    static const struct { const char *text; int times; } texts[] = {
        {"(", 1 << 20}, {"<answer>", 20000}, {"</answer>", 20000}, {"</think>", 20000}, {"<think>", 20000}, {"\\boxed{", 20000}, {"{\"a\":", 20000},
        {"[", 100000}, {"```lua\n", 20000}, {"1, ", 50000}, {"9", 100000}, {"\xff\xfe", 50000}, {"한", 50000}, {"a b ", 50000}, {"#### 7\n", 20000},
        {"\\frac{", 20000}, {"\xf0\x9f", 20000}, {"$x^", 20000}, {" ", 100000}, {"A. B. C. ", 20000}, {"while true do end ", 2000}};
    for (int bare = 0; bare < 2; bare++) {
        RewardPool *pool;
        RewardLimits limits = reward_default_limits();
        limits.bare = bare;
        OK(reward_pool_open(specs, COUNT(specs), 2, &limits, &pool, &err));
        for (int i = 0; i < COUNT(texts); i++) {
            Buf text = {0};
            bool think = i % 2 == bare;
            for (int k = 0; k < texts[i].times / divisor; k++) buf_puts(&text, texts[i].text);
            if (think) buf_append(&text, "\0</think>\0", 10);
            RewardSample s = {.id = "hostile", .completion = text.data, .completion_size = text.size, .truth = "A", .row = row, .finish = "stop",
                              .mode = think ? "think" : "direct", .tokens = 90, .prompt = "q"};
            Verdict v = score(pool, &s);
            buf_free(&text);
            if (v.state != VERDICT_SCORED) FAIL("%s (%d times): %s %s", texts[i].text, texts[i].times, verdict_state_names[v.state], v.why);
        }
        CHECK_INT(reward_pool_deaths(pool), 0);
        reward_pool_close(pool);
    }
    json_decref(lengths), json_decref(lang), json_decref(row);
}

static void overlong_is_punished_softly(void) {
    // Lengths and rewards of TRL's get_soft_overlong_punishment(100, 20).
    static const int lengths[] = {0, 1, 50, 79, 80, 81, 90, 99, 100, 101, 200};
    static const double want[] = {0, 0, 0, 0, 0, -0.05, -0.5, -0.95, -1, -1, -1};
    Err err = {0};
    RewardLimits limits = quick_limits();
    RewardPool *pool;
    json_t *options = json_pack("{s:i, s:i}", "max", 100, "cache", 20);
    RewardSpec spec = {.script = "length", .weight = 1, .options = options}, bare = {.script = "length", .weight = 1};
    OK(reward_pool_open(&spec, 1, 1, &limits, &pool, &err));
    for (int i = 0; i < COUNT(lengths); i++) {
        RewardSample s = sample_of("x", NULL);
        s.tokens = lengths[i];
        CHECK_NEAR(score(pool, &s).score, want[i], 1e-15);
    }
    reward_pool_close(pool);
    json_decref(options);
    OK(reward_pool_open(&bare, 1, 1, &limits, &pool, &err));
    RewardSample s = sample_of("x", NULL);
    Verdict v = score(pool, &s);
    CHECK(v.state == VERDICT_ERROR && strstr(v.why, "needs the options max and cache"));
    reward_pool_close(pool);
}

// ---- fuel ----------------------------------------------------------------------------------------------------------------
// Ten times the work costs about ten times the fuel, for calls whose work isn't seen by the interpreter.
static void fuel_follows_work(void) {
    static const char *const works[] = {
        "local t = {} for i = 1, n do t['k' .. i] = i end local s = json.encode(t)", "json.decode('[' .. ('1,'):rep(n) .. '1]')",
        "local t = {} for i = 1, n do t[i] = (i * 7919) % 10007 end table.sort(t)", "local s = (('ab'):rep(n)):upper()", "text.words(('ab '):rep(n))",
        "local t = {} for i = 1, n do t['k' .. i] = i end for k in pairs(t) do end", "re.all(('ab'):rep(n // 10), 'a')",
        "shape.repetition(('a b c '):rep(n), 3)", "text.language(('한 a '):rep(n), 'ko')", "extract.final(('<answer>'):rep(n))", "(('ab'):rep(n)):gsub('a', 'xy')",
    };
    RewardLimits limits = reward_default_limits();
    for (int i = 0; i < COUNT(works); i++) {
        char *source = xasprintf("return function(s) local n = s.tokens do %s end return 1 end", works[i]);
        RewardPool *pool = open_pool(source, 1, &limits, NULL);
        free(source);
        double fuel[2];
        for (int k = 0; k < 2; k++) {
            RewardSample s = sample_of("x", NULL);
            s.tokens = k ? 20000 : 2000;
            Verdict v = score(pool, &s);
            if (v.state != VERDICT_SCORED) FAIL("%s: %s", works[i], v.why);
            fuel[k] = (double)v.fuel;
        }
        reward_pool_close(pool);
        if (!(fuel[0] >= 100 && fuel[1] > 6 * fuel[0] && fuel[1] < 20 * fuel[0])) FAIL("%s: fuel %g, then %g", works[i], fuel[0], fuel[1]);
    }
}

// ---- determinism ---------------------------------------------------------------------------------------------------------
enum { MANY = 300 };
static void score_many(int workers, bool backwards, Verdict *out) {
    Err err = {0};
    RewardLimits limits = quick_limits();
    // A mapping more moves the pool's states to other addresses, and with them Lua's hash seeds and tables' places.
    size_t shift = (size_t)65536 * (size_t)(workers + backwards);
    void *shifter = mmap(NULL, shift, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RewardPool *pool = open_pool("local seen = {} return function(s) local t, sum, w = {}, 0, {}\n"
                                 "for i = 1, 50 + #s.answer do t[{}] = i seen[#seen + 1] = tostring({}) .. i\n"
                                 "w['k' .. i] = i w['k' .. i - 7] = nil w[{}] = 1 end\n"
                                 "for k, v in pairs(w) do sum = sum * 31 % 1000003 + v end\n"
                                 "for _, v in pairs(t) do sum = sum * 31 % 1000003 + v end\n"
                                 "if #s.answer % 7 == 3 then while true do end end\n"
                                 "if #s.answer % 7 == 4 then error(table.concat(seen, ',', 1, 3)) end\n"
                                 "return {sum = sum, r = math.random(), n = #seen, m = math.exp(math.random()) % 1} end",
                                 workers, &limits, NULL);
    char texts[MANY][64];
    for (int k = 0; k < MANY; k++) {
        int i = backwards ? MANY - 1 - k : k;
        memset(texts[i], 'x', 63);
        texts[i][i % 60] = 0;
        RewardSample s = sample_of(texts[i], NULL);
        s.seed = (uint64_t)i;
        OK(reward_pool_submit(pool, &s, &out[i], &err));
    }
    OK(reward_pool_finish(pool, &err));
    CHECK_INT(reward_pool_deaths(pool), 0);
    reward_pool_close(pool);
    munmap(shifter, shift);
}
static void same_scores_everywhere(void) {
    static Verdict base[MANY], other[MANY];
    score_many(1, false, base);
    for (int w = 1; w <= 4; w++) {
        score_many(w, w % 2 == 1, other);
        for (int i = 0; i < MANY; i++) {
            CHECK_INT(other[i].state, base[i].state);
            CHECK_STR(other[i].why, base[i].why);
            CHECK(other[i].fuel == base[i].fuel && other[i].part_count == base[i].part_count);
            CHECK(memcmp(&other[i].score, &base[i].score, sizeof(double)) == 0);
            for (int k = 0; k < base[i].part_count; k++) CHECK(other[i].parts[k].value == base[i].parts[k].value);
        }
    }
    CHECK(base[0].parts[2].value != base[60].parts[2].value); // same text, another seed
    CHECK(base[3].state == VERDICT_BUDGET && base[4].state == VERDICT_ERROR && base[5].state == VERDICT_SCORED);
}

// ---- deaths --------------------------------------------------------------------------------------------------------------
static pid_t kill_later(RewardPool *pool, int milliseconds) {
    pid_t pids[8];
    int n = reward_pool_pids(pool, pids, 8);
    pid_t child = fork();
    if (child == 0) {
        usleep((useconds_t)milliseconds * 1000);
        for (int i = 0; i < n; i++) kill(pids[i], SIGKILL);
        _exit(0);
    }
    return child;
}

static void a_death_is_forgiven_once(void) {
    RewardLimits limits = reward_default_limits();
    limits.fuel = 300000000;
    RewardPool *pool = open_pool("return function(s) for i = 1, 50000000 do end return 1 end", 1, &limits, NULL);
    RewardSample s = sample_of("x", NULL);
    pid_t child = kill_later(pool, 60);
    Verdict v = score(pool, &s);
    waitpid(child, NULL, 0);
    CHECK_INT(v.state, VERDICT_SCORED);
    CHECK_INT(reward_pool_deaths(pool), 1);
    reward_pool_close(pool);
}

static void the_clock_kills_twice(void) {
    RewardLimits limits = reward_default_limits();
    limits.fuel = UINT64_MAX / 2;
    limits.seconds = 0.1;
    RewardPool *pool = open_pool("return function(s) while s.answer == 'hang' do end return 1 end", 2, &limits, NULL);
    Err err = {0};
    Verdict v[40];
    for (int i = 0; i < 40; i++) {
        RewardSample s = sample_of(i == 13 ? "hang" : "fine", NULL);
        OK(reward_pool_submit(pool, &s, &v[i], &err));
    }
    OK(reward_pool_finish(pool, &err));
    for (int i = 0; i < 40; i++) CHECK_INT(v[i].state, i == 13 ? VERDICT_KILLED : VERDICT_SCORED);
    CHECK(strstr(v[13].why, "clock") && isnan(v[13].score));
    CHECK_INT(reward_pool_deaths(pool), 2);
    RewardSample s = sample_of("fine", NULL);
    CHECK_INT(score(pool, &s).state, VERDICT_SCORED);
    reward_pool_close(pool);
}

static void many_deaths_are_survived(void) {
    Err err = {0};
    RewardLimits limits = quick_limits();
    RewardPool *pool = open_pool("return function(s) return #s.answer end", 2, &limits, NULL);
    int scored = 0, killed = 0, deaths = 1000;
#ifdef RECKON_SANITIZED
    deaths = 200; // each of these processes takes long to start
#endif
    while (reward_pool_deaths(pool) < deaths) {
        Verdict v[8];
        pid_t pids[2];
        for (int i = 0; i < 8; i++) {
            RewardSample s = sample_of("abc", NULL);
            OK(reward_pool_submit(pool, &s, &v[i], &err));
        }
        int n = reward_pool_pids(pool, pids, 2);
        for (int i = 0; i < n; i++) kill(pids[i], SIGKILL);
        OK(reward_pool_finish(pool, &err));
        for (int i = 0; i < 8; i++) {
            if (v[i].state == VERDICT_SCORED && v[i].score == 3) scored++;
            else if (v[i].state == VERDICT_KILLED) killed++;
            else FAIL("%s: %s", verdict_state_names[v[i].state], v[i].why);
        }
    }
    CHECK(scored > deaths && killed * 10 < scored);
    RewardCounts counts;
    reward_pool_counts(pool, &counts);
    CHECK_INT(counts.not_replayable, killed);
    CHECK_INT(counts.workers, 2);
    CHECK(counts.busy >= 0 && counts.cpu >= 0);
    reward_pool_close(pool);
}

// ---- the process wall ----------------------------------------------------------------------------------------------------
enum { TRY_NOTHING, TRY_OPEN, TRY_SOCKET, TRY_FORK, TRY_EXEC_MEMORY, TRY_KILL, TRY_PTRACE_LIKE, TRIES };
_Noreturn static void behind_the_wall(int what, int fd) {
    Err err = {0};
    int stray = dup(fd); // must be closed by the wall
    if (!walls_close(fd, -1, 64 << 20, false, &err)) _exit(99);
    char byte = 'x';
    if (write(stray, &byte, 1) >= 0) _exit(98);
    if (environ && environ[0]) _exit(97);
#ifndef RECKON_SANITIZED
    if (malloc((size_t)1 << 30)) _exit(96);
#endif
    void *p = malloc(1 << 20);
    if (!p || write(3, &byte, 1) != 1) _exit(95);
    free(p);
    switch (what) {
    case TRY_OPEN: open("/etc/passwd", O_RDONLY); break;
    case TRY_SOCKET: socket(AF_INET, SOCK_STREAM, 0); break;
    case TRY_FORK: fork(); break;
    case TRY_EXEC_MEMORY: mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); break;
    case TRY_KILL: kill(getppid(), 0); break;
    case TRY_PTRACE_LIKE: mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0); break;
    default: break;
    }
    _exit(42);
}
static void the_process_wall_holds_alone(void) {
    if (!walls_have_seccomp()) SKIP("this system has no seccomp");
    for (int what = 0; what < TRIES; what++) {
        int pair[2], status;
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        pid_t child = fork();
        if (child == 0) behind_the_wall(what, pair[1]);
        CHECK(waitpid(child, &status, 0) == child);
        close(pair[0]), close(pair[1]);
        if (what == TRY_NOTHING) {
            if (!WIFEXITED(status)) FAIL("ended by signal %d", WTERMSIG(status));
            CHECK_INT(WEXITSTATUS(status), 42);
        } else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
            FAIL("attempt %d wasn't stopped (status %x)", what, (unsigned)status);
        }
    }
    json_t *walls = reward_walls();
    static const char *const here[] = {"interpreter", "seccomp", "no_new_privs", "file_limit", "cpu_time_watched", "descriptors_closed"};
    for (int i = 0; i < COUNT(here); i++)
        if (!json_is_true(json_object_get(walls, here[i]))) FAIL("%s", here[i]);
    CHECK(json_is_boolean(json_object_get(json_object_get(walls, "programs_in_bubblewrap"), "python")));
    json_decref(walls);
}

static void workers_end_with_the_pool(void) {
    RewardLimits limits = quick_limits();
    pid_t pids[2];
    RewardPool *pool = open_pool("return function() return 1 end", 2, &limits, NULL);
    RewardSample s = sample_of("x", NULL);
    score(pool, &s);
    int n = reward_pool_pids(pool, pids, 2);
    CHECK(n >= 1);
    reward_pool_close(pool);
    for (int i = 0; i < n; i++) CHECK(kill(pids[i], 0) != 0 && errno == ESRCH);
}

static void cleanup(void) { CHECK(!script_path[0] || rmdir(folder) == 0); }

static const Test tests[] = {
    {"absent_or_error", absent_or_error},
    {"budget", budget},
    {"memory", memory},
    {"invalid_values", invalid_values},
    {"no_effect", no_effect},
    {"scores_and_parts", scores_and_parts},
    {"weights_and_worst_state", weights_and_worst_state},
    {"groups_are_scored_together", groups_are_scored_together},
    {"hostile_completions", hostile_completions},
    {"hostile_completions_without_the_interpreters_wall", hostile_completions_without_the_interpreters_wall},
    {"shipped_rewards_stand_hostile_text", shipped_rewards_stand_hostile_text},
    {"overlong_is_punished_softly", overlong_is_punished_softly},
    {"fuel_follows_work", fuel_follows_work},
    {"same_scores_everywhere", same_scores_everywhere},
    {"a_death_is_forgiven_once", a_death_is_forgiven_once},
    {"the_clock_kills_twice", the_clock_kills_twice},
    {"many_deaths_are_survived", many_deaths_are_survived},
    {"the_process_wall_holds_alone", the_process_wall_holds_alone},
    {"workers_end_with_the_pool", workers_end_with_the_pool},
    {"cleanup", cleanup},
};
TEST_MAIN(tests)
