// The attacks that reward scripts have been seen to make, each against both walls: with all of them up the verdict is the
// stated one, the same a second time, and no worker dies; with the interpreter's wall taken away (Lua's own libraries, no
// budget) the wall around the process holds alone: the worker is killed or runs out of memory, and the samples between
// the attacks are scored as if nothing had been.
#include "../test.h"
#include "files.h"
#include "pool.h"
#include "worker.h"
#include <unistd.h>

enum { // what may come out with the process's wall alone
    SAME = 0, // as with both
    FORBIDDEN = 1, CLOCK = 2, ENDED = 4, // killed: a forbidden system call, too much time, its own exit
    MEMORY = 8,                          // a budget's end or an error, as no memory was given
    SCORES = 16,                         // no harm in it
};

static const struct Attack {
    const char *name, *source; // of the score function's body
    VerdictState state;
    const char *why; // a part of the reason
    int alone;
} attacks[] = {
    // absent, or an error
    {"os.execute", "os.execute('id')", VERDICT_ERROR, "'os'", FORBIDDEN},
    {"os.exit", "os.exit(0)", VERDICT_ERROR, "'os'", ENDED | FORBIDDEN},
    {"io.open", "io.open('/etc/passwd')", VERDICT_ERROR, "'io'", FORBIDDEN},
    {"io.popen", "io.popen('id')", VERDICT_ERROR, "'io'", FORBIDDEN},
    {"require", "require 'socket'", VERDICT_ERROR, "'require'", FORBIDDEN},
    {"package.loadlib", "package.loadlib('libc.so.6', 'system')()", VERDICT_ERROR, "'package'", FORBIDDEN},
    {"dofile", "dofile('/etc/passwd')", VERDICT_ERROR, "'dofile'", FORBIDDEN},
    {"loadfile", "loadfile('/etc/passwd')", VERDICT_ERROR, "'loadfile'", FORBIDDEN},
    {"load", "load('while true do end')()", VERDICT_ERROR, "'load'", CLOCK},
    {"string.dump", "string.dump(function() end)", VERDICT_ERROR, "'dump'", SCORES},
    {"bytecode", "load(string.dump(function() while true do end end), 'b', 'b')()", VERDICT_ERROR, "'dump'", CLOCK},
    {"debug.sethook", "debug.sethook() while true do end", VERDICT_ERROR, "'debug'", CLOCK},
    {"debug.getregistry", "local r = debug.getregistry() r[1] = nil while true do end", VERDICT_ERROR, "'debug'", CLOCK},
    {"__gc", "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()", VERDICT_ERROR, "__gc", CLOCK},
    {"collectgarbage", "collectgarbage('stop') while true do local t = {} end", VERDICT_ERROR, "'collectgarbage'", CLOCK | MEMORY},
    {"string metatable", "getmetatable('').__index = function() while true do end end return ('x').y", VERDICT_ERROR, NULL, CLOCK},
    // budget
    {"infinite loop", "while true do end", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"pcall loop", "while true do pcall(function() while true do end end) end", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"nested handlers", "local function h() return xpcall(error, h) end while true do xpcall(error, h) end", VERDICT_BUDGET, NULL, CLOCK},
    {"close loop", "while true do local x <close> = setmetatable({}, {__close = function() while true do end end}) end", VERDICT_BUDGET,
     "out of fuel", CLOCK},
    {"coroutine spam", "while true do coroutine.wrap(function() end)() end", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"deep recursion", "local function f() return 1 + f() end f()", VERDICT_BUDGET, "nested too deeply", MEMORY | CLOCK},
    {"invalid order", "local t = {} for i = 1, 100 do t[i] = i % 7 end table.sort(t, function() return true end)", VERDICT_BUDGET,
     "invalid order function", MEMORY | SCORES},
    {"slow pattern", "return ('a'):rep(20000):find('.-.-.-.-b')", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"optional letters", "return ('a'):rep(40):find(('a?'):rep(40) .. ('a'):rep(41))", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"empty rep", "return (''):rep(math.maxinteger)", VERDICT_BUDGET, "out of fuel", CLOCK},
    {"table.move", "table.move(setmetatable({}, {__index = type}), 1, 1 << 62, 2, setmetatable({}, {__newindex = type}))", VERDICT_BUDGET,
     "out of fuel", CLOCK},
    {"table.insert", "table.insert(setmetatable({}, {__len = function() return 1 << 62 end, __index = type, __newindex = type}), 1, 0)",
     VERDICT_BUDGET, NULL, CLOCK},
    // memory
    {"rep to 1 TB", "return #('x'):rep(1 << 40)", VERDICT_BUDGET, "out of memory", MEMORY | CLOCK | ENDED},
    {"table growth", "local t = {} for i = 1, 1e9 do t[i] = {} end", VERDICT_BUDGET, NULL, MEMORY | CLOCK},
    {"concat", "return table.concat(setmetatable({}, {__index = type, __len = function() return 1 << 40 end}))", VERDICT_BUDGET, NULL,
     MEMORY | CLOCK},
    {"gsub", "return ('x'):rep(40000):gsub('x', ('y'):rep(1000000))", VERDICT_BUDGET, NULL, MEMORY | CLOCK | ENDED},
    // invalid values
    {"NaN", "return 0/0", VERDICT_ERROR, "NaN", SAME},
    {"infinity", "return sample.step == 0 and 1/0 or -1/0", VERDICT_ERROR, "inf", SAME},
    {"a string", "return '1'", VERDICT_ERROR, "returned a string", SAME},
    {"wrong length", NULL, VERDICT_ERROR, "a list of 2 for 1 samples", SAME}, // of a group: group_attack
    {"__tostring", "error(setmetatable({}, {__tostring = function() while true do end end}))", VERDICT_ERROR, "error object is a table", SAME},
    {"yield", "coroutine.yield(1)", VERDICT_ERROR, "outside a coroutine", SAME},
    // no effect
    {"print flood", "for i = 1, 20000 do print('flood', i) end", VERDICT_SCORED, "", SCORES | FORBIDDEN},
    {"poisoned globals", "if poisoned then error('poisoned') end poisoned = true string.rep = nil _G.pairs = nil", VERDICT_SCORED, "", SAME},
};
enum { ATTACKS = sizeof attacks / sizeof attacks[0] };
static const char group_attack[] = "return {group = function(samples) return {1, 2} end}";

static char folder[] = "/tmp/reckon-attacks-XXXXXX";
static char script_path[64];

static RewardPool *open_pool(const char *source, int workers, const RewardLimits *limits) {
    Err err = {0};
    RewardPool *pool;
    if (!script_path[0]) {
        CHECK(mkdtemp(folder));
        snprintf(script_path, sizeof script_path, "%s/mine.lua", folder);
    }
    OK(file_write_atomic(script_path, source, strlen(source), &err));
    RewardSpec spec = {.script = script_path, .weight = 1};
    OK(reward_pool_open(&spec, 1, workers, limits, &pool, &err));
    unlink(script_path);
    return pool;
}

// All attacks in one script; a sample names its own. Any other sample scores the length of its answer.
static char *all_attacks(void) {
    Buf b = {0};
    buf_puts(&b, "local attacks = {\n");
    for (int i = 0; i < ATTACKS; i++)
        if (attacks[i].source) buf_printf(&b, "[%d] = function(sample) do %s end return 1 end,\n", i, attacks[i].source);
    buf_puts(&b, "}\nreturn function(sample) local a = attacks[sample.tokens] if a then return a(sample) end return #sample.answer end\n");
    return b.data;
}

static RewardSample attack_sample(int i) {
    return (RewardSample){.id = "attack", .completion = "x", .completion_size = 1, .mode = "direct", .finish = "stop", .tokens = i, .seed = 5};
}
static RewardSample good_sample(void) {
    return (RewardSample){.id = "good", .completion = "abc", .completion_size = 3, .mode = "direct", .finish = "stop", .tokens = -1};
}

// Every attack twice with a good sample after each, in one pool, which lives through all of it.
static void run_all(RewardPool *pool, Verdict out[ATTACKS][2]) {
    Err err = {0};
    Verdict good[ATTACKS][2];
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < ATTACKS; i++) {
            RewardSample a = attack_sample(i), g = good_sample();
            OK(reward_pool_submit(pool, &a, &out[i][k], &err));
            OK(reward_pool_submit(pool, &g, &good[i][k], &err));
        }
    OK(reward_pool_finish(pool, &err));
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < ATTACKS; i++)
            if (good[i][k].state != VERDICT_SCORED || good[i][k].score != 3)
                FAIL("the sample after '%s': %s (%s)", attacks[i].name, verdict_state_names[good[i][k].state], good[i][k].why);
}

static void check_as_stated(int i, const Verdict *v) {
    const struct Attack *a = &attacks[i];
    if (v->state != a->state || (a->why && !strstr(v->why, a->why)))
        FAIL("%s: got %s (%s), want %s (%s)", a->name, verdict_state_names[v->state], v->why, verdict_state_names[a->state], a->why ? a->why : "");
    CHECK((v->state == VERDICT_SCORED) == isfinite(v->score));
}

static RewardLimits quick_limits(void) {
    RewardLimits limits = reward_default_limits();
    limits.fuel = 2000000;
    limits.memory = 16 << 20;
    return limits;
}

static void both_walls(void) {
    CHECK_INT(ATTACKS, 40);
    static Verdict v[ATTACKS][2];
    RewardLimits limits = quick_limits();
    char *source = all_attacks();
    RewardPool *pool = open_pool(source, 2, &limits), *group = open_pool(group_attack, 1, &limits);
    free(source);
    run_all(pool, v);
    int64_t deaths = reward_pool_deaths(pool);
    RewardCounts counts;
    reward_pool_counts(pool, &counts);
    reward_pool_close(pool);
    Err err = {0};
    RewardSample one = attack_sample(0);
    for (int i = 0; i < ATTACKS; i++) {
        if (!attacks[i].source) { // the same script for all samples of a group
            OK(reward_pool_submit(group, &one, &v[i][0], &err) && reward_pool_finish(group, &err));
            v[i][1] = v[i][0];
        }
        check_as_stated(i, &v[i][0]);
        if (v[i][0].state != v[i][1].state || v[i][0].fuel != v[i][1].fuel || strcmp(v[i][0].why, v[i][1].why) != 0)
            FAIL("%s: %s (%s) with fuel %llu, then %s (%s) with %llu", attacks[i].name, verdict_state_names[v[i][0].state], v[i][0].why,
                 (unsigned long long)v[i][0].fuel, verdict_state_names[v[i][1].state], v[i][1].why, (unsigned long long)v[i][1].fuel);
    }
    reward_pool_close(group);
    CHECK_INT(deaths, 0);
    CHECK_INT(counts.not_replayable, 0);
}

static bool allowed_alone(const struct Attack *a, const Verdict *v) {
    bool killed = v->state == VERDICT_KILLED;
    if (!isfinite(v->score) == (v->state == VERDICT_SCORED) || v->not_replayable != killed) return false;
    if ((a->alone & FORBIDDEN) && killed && strstr(v->why, "signal 31")) return true; // SIGSYS
    if ((a->alone & CLOCK) && killed && strstr(v->why, "ended by the clock")) return true;
    if ((a->alone & ENDED) && killed && strstr(v->why, "died twice")) return true;
    if ((a->alone & MEMORY) && (v->state == VERDICT_BUDGET || v->state == VERDICT_ERROR)) return true;
    if ((a->alone & SCORES) && v->state == VERDICT_SCORED) return true;
    return a->alone == SAME && v->state == a->state;
}

static void the_process_wall_alone(void) {
    if (!walls_have_seccomp()) SKIP("this system has no seccomp");
    static Verdict v[ATTACKS][2];
    RewardLimits limits = quick_limits();
    limits.bare = true;
    limits.seconds = 0.04;
    char *source = all_attacks();
    RewardPool *pool = open_pool(source, 2, &limits), *group = open_pool(group_attack, 1, &limits);
    free(source);
    Err err = {0};
    static Verdict good[ATTACKS];
    RewardSample g = good_sample(), one = attack_sample(0);
    for (int i = 0; i < ATTACKS; i++) {
        RewardSample a = attack_sample(i);
        RewardPool *p = attacks[i].source ? pool : group;
        OK(reward_pool_submit(p, p == pool ? &a : &one, &v[i][0], &err) && reward_pool_submit(pool, &g, &good[i], &err));
    }
    OK(reward_pool_finish(pool, &err) && reward_pool_finish(group, &err));
    int killed = 0;
    int64_t deaths = reward_pool_deaths(pool);
    reward_pool_close(pool);
    reward_pool_close(group);
    for (int i = 0; i < ATTACKS; i++) {
        killed += v[i][0].state == VERDICT_KILLED;
        if (!allowed_alone(&attacks[i], &v[i][0])) FAIL("%s: %s (%s)", attacks[i].name, verdict_state_names[v[i][0].state], v[i][0].why);
        if (good[i].state != VERDICT_SCORED || good[i].score != 3)
            FAIL("the sample after '%s': %s (%s)", attacks[i].name, verdict_state_names[good[i].state], good[i].why);
    }
    if (deaths < 2 * killed || killed < 25) FAIL("%lld deaths, %d killed samples", (long long)deaths, killed);
}

static void cleanup(void) { CHECK(!script_path[0] || rmdir(folder) == 0); }

static const Test tests[] = {
    {"both_walls", both_walls},
    {"the_process_wall_alone", the_process_wall_alone},
    {"cleanup", cleanup},
};
TEST_MAIN(tests)
