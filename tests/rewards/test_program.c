// run.program: what it gives for programs that work, fail or attack, that it needs leave by name, that a clock's verdict is
// marked, and that nothing of it outlives the pool. Skipped, with the reason, where bubblewrap can't make a sandbox.
#include "../test.h"
#include "files.h"
#include "pool.h"
#include "program.h"
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/reckon-program-XXXXXX";
static char script_path[64];

static void need(ProgramLanguage language) {
    char why[256];
    program_why_not(language, why, sizeof why);
    if (why[0]) SKIP("%s", why);
}

// A pool whose script scores with `body`; `allow` is a JSON list.
static RewardPool *open_pool(const char *body, const char *allow, Err *err) {
    RewardPool *pool;
    RewardLimits limits = reward_default_limits();
    json_t *options = json_object(), *list = NULL;
    if (!script_path[0]) {
        CHECK(mkdtemp(folder));
        snprintf(script_path, sizeof script_path, "%s/mine.lua", folder);
    }
    char *source = xasprintf("return function(s) %s end", body);
    CHECK(file_write_atomic(script_path, source, strlen(source), err));
    free(source);
    if (allow) CHECK(json_parse(allow, strlen(allow), "allow", 1, &list, err));
    if (list) json_object_set_new(options, "allow", list);
    RewardSpec spec = {.script = script_path, .weight = 1, .options = options};
    bool ok = reward_pool_open(&spec, 1, 1, &limits, &pool, err);
    json_decref(options);
    unlink(script_path);
    return ok ? pool : NULL;
}

static Verdict score(RewardPool *pool, const char *program) {
    Err err = {0};
    Verdict v;
    RewardSample s = {.id = "test", .completion = program, .completion_size = strlen(program), .mode = "direct", .finish = "stop"};
    OK(reward_pool_submit(pool, &s, &v, &err));
    OK(reward_pool_finish(pool, &err));
    return v;
}

typedef struct Trial {
    const char *program, *want; // want: what r.ended .. ' ' .. (r.code or '') .. ' ' .. r.output .. r.errors must contain
} Trial;
static void run_trials(const char *language, const Trial *trials, int count) {
    Err err = {0};
    char *body = xasprintf("local r = run.program{lang = '%s', source = s.completion, input = '3 4\\n', seconds = 1, memory = 128} "
                           "error(r.ended .. ' ' .. (r.code or '') .. ' ' .. r.output .. r.errors:sub(-120))", language);
    RewardPool *pool = open_pool(body, "[\"program.python\",\"program.c\"]", &err);
    free(body);
    if (!pool) FAIL("%s", err.msg);
    for (int i = 0; i < count; i++) {
        Verdict v = score(pool, trials[i].program);
        CHECK_INT(v.state, VERDICT_ERROR);
        if (!strstr(v.why, trials[i].want)) FAIL("%s: got \"%s\", want \"%s\"", trials[i].program, v.why, trials[i].want);
        CHECK_INT(v.not_replayable, strncmp(trials[i].want, "time", 4) == 0);
    }
    CHECK_INT(reward_pool_deaths(pool), 0);
    reward_pool_close(pool);
}

static void python_is_shut_in(void) {
    need(PROGRAM_PYTHON);
    static const Trial trials[] = {
        {"a, b = map(int, input().split())\nprint(a + b)", "exit 0 7"},
        {"import sys; sys.exit(3)", "exit 3"},
        {"x = ", "SyntaxError"},
        {"while True: pass", "time"},
        {"import os\nos.fork()", "Operation not permitted"},
        {"import subprocess\nsubprocess.run(['true'])", "Operation not permitted"},
        {"import socket\nsocket.socket()", "Operation not permitted"},
        {"x = bytearray(1 << 30)", "MemoryError"},
        {"x = []\nwhile True: x.append(bytearray(1 << 20))", "MemoryError"},
        {"for i in range(99): open('/tmp/%d' % i, 'wb').write(b'x' * 9000000)", "No space left"},
        {"open('/tmp/big', 'wb').write(b'x' * 90000000)", "File too large"},
        {"open('/usr/mine', 'w')", "Read-only file system"},
        {"open('/mine', 'w')", "Read-only file system"},
        {"while True: print('x' * 60)", "output "},
        {"open('/etc/passwd')", "No such file"},
        {"open('/proc/self/environ')", "No such file"},
        {"import os\nprint(sorted(os.environ), os.getuid(), os.path.exists('/root'), os.path.exists('/home'))",
         "exit 0 ['HOME', 'LANG', 'PATH', 'PWD', 'PYTHONHASHSEED'] 65534 False False"},
        {"import os\nos.kill(-1, 9)", "No such process"}, // it sees nobody but itself and its init
        {"import threading, time\nfor i in range(200): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()", "can't start new thread"},
        {"import os\nprint(len(os.listdir('/tmp')))", "exit 0 0"}, // nothing is left of the ones before
        {"import ctypes\nctypes.string_at(0)", "signal 11"},
    };
    run_trials("python", trials, COUNT(trials));
}

static void c_is_shut_in(void) {
    need(PROGRAM_C);
    static const Trial trials[] = {
        {"#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d%d\", &a, &b); printf(\"%d\", a * b); }", "exit 0 12"},
        {"int main(void) { return 5; }", "exit 5"},
        {"int main(void) { return x; }", "compile"},
        {"#include \"/etc/shadow\"\nint main(void) { }", "No such file"},
        {"int main(void) { for (;;) ; }", "time"},
        {"int main(void) { *(volatile int *)0 = 1; }", "signal 11"},
        {"#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d\", fork()); }", "exit 0 -1"},
        {"#include <stdio.h>\n#include <stdlib.h>\nint main(void) { printf(\"%p\", malloc(1 << 30)); }", "exit 0 (nil)"},
        {"#include <stdio.h>\n#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) { printf(\"%ld %ld\", syscall(SYS_unshare, 0x10000000), "
         "syscall(SYS_memfd_create, \"x\", 0)); }", "exit 0 -1 -1"},
    };
    run_trials("c", trials, COUNT(trials));
}

static void tests_are_counted(void) {
    need(PROGRAM_PYTHON);
    Err err = {0};
    RewardPool *pool = open_pool("local r = run.program{lang = 'python', source = s.completion, tests = {{input = '1 2', output = '3\\n'}, "
                                 "{input = '5 6', output = '11'}, 'assert f(2) == 3', 'assert f(3) == 4'}} "
                                 "return {passed = r.passed, total = r.total, failed = r.failed or 0, ok = r.ok and 1 or 0}", "[\"program.python\"]", &err);
    if (!pool) FAIL("%s", err.msg);
    static const struct { const char *program; double failed, ok, passed; } trials[] = {
        {"import sys\ndef f(x): return x + 1\nt = sys.stdin.read()\nif t: print(sum(map(int, t.split())), ' \\n')", 0, 1, 4},
        {"import sys\ndef f(x): return 3\nt = sys.stdin.read()\nif t: print(sum(map(int, t.split())))", 4, 0, 3},
        {"import sys\nsys.exit(0)", 1, 0, 0},     // ending early passes nothing
        {"import os\nos._exit(0)", 1, 0, 0},
        {"print(3)\ndef f(x): return x + 1", 2, 0, 3},
    };
    for (int i = 0; i < COUNT(trials); i++) {
        Verdict v = score(pool, trials[i].program);
        if (v.state != VERDICT_SCORED || v.part_count != 4) FAIL("%s: %s", trials[i].program, v.why);
        CHECK_NEAR(v.parts[0].value, trials[i].failed, 0);
        CHECK_NEAR(v.parts[1].value, trials[i].ok, 0);
        CHECK_NEAR(v.parts[2].value, trials[i].passed, 0);
        CHECK(!v.not_replayable && v.fuel > 4 * 400000);
    }
    reward_pool_close(pool);
}

static void only_by_name(void) {
    Err err = {0};
    static const char *const others[] = {NULL, "[]", "[\"program.c\"]"};
    for (int i = 0; i < COUNT(others); i++) {
        RewardPool *pool = open_pool("return run.program{lang = 'python', source = ''}.passed", others[i], &err);
        if (!pool) FAIL("%s", err.msg);
        Verdict v = score(pool, "x");
        reward_pool_close(pool);
        if (v.state != VERDICT_ERROR || !strstr(v.why, "mine.lua:1: run.program isn't allowed here") || !strstr(v.why, "allow = {\"program.python\"}"))
            FAIL("%s", v.why);
    }
    CHECK(!open_pool("return 1", "[\"program.perl\"]", &err) && err.code == ERR_DATA && strstr(err.msg, "program.perl"));
    CHECK(!open_pool("return 1", "\"program.c\"", &err) && err.code == ERR_DATA);
}

static void wrong_arguments_are_named(void) {
    static const struct { const char *arguments, *want; } wrong[] = {
        {"{source = ''}", "lang: expected"}, {"{lang = 'perl', source = ''}", "lang: expected"}, {"{lang = 'python'}", "source is missing"},
        {"{lang = 'python', source = 5}", "source is a number"}, {"{lang = 'python', source = '', seconds = 0}", "seconds: expected"},
        {"{lang = 'python', source = '', memory = 1.5}", "memory: expected"}, {"{lang = 'python', source = '', test = {}}", "unknown setting 'test'"},
        {"{lang = 'python', source = '', tests = 'x'}", "tests is a string"}, {"{lang = 'python', source = '', tests = {5}}", "test 1 is a number"},
        {"{lang = 'python', source = '', input = ('x'):rep(5 << 20)}", "more than 4 MiB"}, {"5", "table expected"},
        {"{lang = 'python'}", "source"}, {"(function() error(run.program{lang = 'python', source = ('x'):rep(2 << 20)}.errors) end)()", "more than 1 MiB"},
    };
    Err err = {0};
    for (int i = 0; i < COUNT(wrong); i++) {
        char *body = xasprintf("run.program(%s)", wrong[i].arguments);
        RewardPool *pool = open_pool(body, "[\"program.python\"]", &err);
        free(body);
        if (!pool) FAIL("%s", err.msg);
        Verdict v = score(pool, "x");
        reward_pool_close(pool);
        if (v.state != VERDICT_ERROR || !strstr(v.why, wrong[i].want) || !strstr(v.why, "mine.lua:1: "))
            FAIL("%s: got \"%s\", want \"%s\"", wrong[i].arguments, v.why, wrong[i].want);
    }
}

// Programs cost fuel for the time that they may use, so the end of a budget is the same everywhere.
static void programs_cost_fuel(void) {
    need(PROGRAM_PYTHON);
    Err err = {0};
    RewardPool *pool = open_pool("for i = 1, 100 do run.program{lang = 'python', source = '', seconds = 60} end return 1", "[\"program.python\"]", &err);
    if (!pool) FAIL("%s", err.msg);
    Verdict v = score(pool, "x");
    CHECK(v.state == VERDICT_BUDGET && strstr(v.why, "out of fuel") && !v.not_replayable);
    reward_pool_close(pool);
}

// A worker that dies while its program runs: the program is gone with it, and the sample goes again.
static void a_death_takes_its_program_along(void) {
    need(PROGRAM_PYTHON);
    Err err = {0};
    RewardPool *pool = open_pool("return run.program{lang = 'python', source = s.completion}.passed", "[\"program.python\"]", &err);
    if (!pool) FAIL("%s", err.msg);
    CHECK_NEAR(score(pool, "").score, 1, 0);
    pid_t worker;
    CHECK_INT(reward_pool_pids(pool, &worker, 1), 1);
    Verdict v;
    const char *program = "import time\ntime.sleep(0.4)";
    RewardSample s = {.id = "test", .completion = program, .completion_size = strlen(program), .mode = "direct", .finish = "stop"};
    OK(reward_pool_submit(pool, &s, &v, &err));
    pid_t child = fork();
    if (child == 0) {
        usleep(150000);
        kill(worker, SIGKILL);
        _exit(0);
    }
    OK(reward_pool_finish(pool, &err));
    waitpid(child, NULL, 0);
    CHECK_NEAR(v.score, 1, 0);
    CHECK_INT(reward_pool_deaths(pool), 1);
    reward_pool_close(pool);
}

// What a worker in a script's hands could send: the runner reads it, refuses, and ends; it never runs what isn't allowed.
static void the_runner_refuses_nonsense(void) {
    static const uint32_t magic = 0x52574450;
    const uint32_t wrong[][6] = {
        {0, 0, 1, 64, 0, 0}, {magic, 1, 1, 64, 0, 0}, {magic, 77, 1, 64, 0, 0}, {magic, 0, 0, 64, 0, 0}, {magic, 0, 1u << 31, 64, 0, 0},
        {magic, 0, 1, 0, 0, 0}, {magic, 0, 1, 1u << 30, 0, 0}, {magic, 0, 1, 64, UINT32_MAX, 0}, {magic, 0, 1, 64, 0, UINT32_MAX},
        {magic, 0, 1, 64, 100, 0} /* and then nothing */};
    for (int i = 0; i < COUNT(wrong) + 20; i++) {
        int pair[2], status;
        char answer[64], bytes[400];
        Random r = random_start(7, STREAM_TEST, (uint64_t)i);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            close(pair[0]);
            program_runner_run(pair[1], 1u << PROGRAM_PYTHON);
        }
        close(pair[1]);
        for (int k = 0; k < (int)sizeof bytes; k++) bytes[k] = (char)random_next(&r);
        ssize_t sent = i < COUNT(wrong) ? write(pair[0], wrong[i], sizeof wrong[i]) : write(pair[0], bytes, sizeof bytes);
        shutdown(pair[0], SHUT_WR);
        ssize_t got = read(pair[0], answer, sizeof answer);
        close(pair[0]);
        CHECK(waitpid(child, &status, 0) == child);
        if (sent < 0 || got > 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) FAIL("message %d: %zd bytes back, status %x", i, got, (unsigned)status);
    }
}

static void cleanup(void) { CHECK(!script_path[0] || rmdir(folder) == 0); }

static const Test tests[] = {
    {"python_is_shut_in", python_is_shut_in},
    {"c_is_shut_in", c_is_shut_in},
    {"tests_are_counted", tests_are_counted},
    {"only_by_name", only_by_name},
    {"wrong_arguments_are_named", wrong_arguments_are_named},
    {"programs_cost_fuel", programs_cost_fuel},
    {"a_death_takes_its_program_along", a_death_takes_its_program_along},
    {"the_runner_refuses_nonsense", the_runner_refuses_nonsense},
    {"cleanup", cleanup},
};
TEST_MAIN(tests)
