// Malformed recipes, datasets and command lines: each with the exit code and the message that a user must get from the
// real program. A row says how to make its files, what to run in their folder, and what has to stand on stderr. To add
// one: files are written as given (or by `make`, for what can't be written as a text), argv follows "reckon".
#include "../test.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct InputFile {
    const char *name, *text;
    size_t size; // 0: up to the NUL
} InputFile;
typedef struct BadInput {
    const char *name;
    InputFile files[3];
    const char *argv[8];
    int exit_code;
    const char *stderr_has;
    void (*make)(const char *folder); // makes further files; may be NULL
} BadInput;

// A recipe with `body` on its second line and on; CHARS and ASK make it whole where the row is about something else.
#define RECIPE(body) {{"bad.lua", "return {\n" body "\n}"}}
#define CHARS "characters=\"0123456789+=\",\n"
#define ASK "tasks={{\"arithmetic\", levels={2}}},\n"
#define GO "stages={grpo{steps=1}},\n"
#define READ {"tasks", "bad.lua"}
#define WITH_DATA(rows) {{"bad.lua", "return {\n" CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}},\n" GO "}"}, {"d.jsonl", rows}}
#define WITH_CHAT(rows) {{"bad.lua", "return {model={path=\"m\"}, tasks={{\"jsonl\", file=\"d.jsonl\"}},\n" GO "}"}, {"d.jsonl", rows}}

static void put_file(const char *folder, const char *name, const void *data, size_t size) {
    Err err = {0};
    char *path = path_join(folder, name);
    bool ok = file_write_atomic(path, data, size, &err);
    free(path);
    OK(ok);
}
static void make_long_line(const char *folder) {
    size_t size = 17 << 20;
    char *text = xmalloc(size);
    memset(text, 'a', size);
    put_file(folder, "d.jsonl", text, size);
    free(text);
}
static void make_deep_json(const char *folder) {
    enum { DEPTH = 100000 };
    char *text = xmalloc(DEPTH);
    memset(text, '[', DEPTH);
    put_file(folder, "d.jsonl", text, DEPTH);
    free(text);
}
static void make_large_recipe(const char *folder) {
    size_t size = 2 << 20;
    char *text = xmalloc(size);
    memset(text, '-', size);
    put_file(folder, "bad.lua", text, size);
    free(text);
}
static void make_many_groups(const char *folder) {
    Buf text = {0};
    for (int i = 0; i < 300; i++) buf_printf(&text, "{\"prompt\":\"%d\",\"answer\":1,\"level\":%d}\n", i, i);
    put_file(folder, "d.jsonl", text.data, text.size);
    buf_free(&text);
}
static void make_folder(const char *folder) {
    Err err = {0};
    char *path = path_join(folder, "d.jsonl");
    bool ok = folder_make(path, &err);
    free(path);
    OK(ok);
}

#pragma GCC diagnostic ignored "-Wmissing-field-initializers" // most rows have no `make` and no size
static const BadInput rows[] = {
    // ---- recipes: the script --------------------------------------------------------------------------------
    {"no recipe", {{0}}, {"tasks", "absent.lua"}, 66, "absent.lua: can't open"},
    {"a folder as recipe", {{0}}, {"tasks", "."}, 66, "is a folder, expected a regular file"},
    {"Lua syntax", {{"bad.lua", "return {\n name = \n}"}}, READ, 65, "bad.lua:3"},
    {"returns nothing", {{"bad.lua", "local x = 1"}}, READ, 65, "expected one table"},
    {"an empty file", {{"bad.lua", ""}}, READ, 65, "expected one table"},
    {"a list", RECIPE("1, 2"), READ, 65, "found a list, expected a table with named keys"},
    {"names and positions", RECIPE(CHARS ASK GO "1, 2"), READ, 65, "both names and numbers"},
    {"a script that fails", {{"bad.lua", "\nerror('no luck')"}}, READ, 65, "no luck"},
    {"an endless script", {{"bad.lua", "while true do end"}}, READ, 65, "fuel"},
    {"a script that reads files", {{"bad.lua", "return {name=io.open('/etc/passwd'):read()}"}}, READ, 65, "bad.lua"},
    {"NaN", RECIPE(CHARS ASK GO "held_out=0/0"), READ, 65, "finite"},
    {"a large file", {{0}}, READ, 65, "is larger than", make_large_recipe},
    // ---- recipes: keys and values ---------------------------------------------------------------------------
    {"unknown key", RECIPE(CHARS ASK GO "nmae=\"x\""), READ, 65, "bad.lua:5: unknown key 'nmae', did you mean 'name'?"},
    {"unknown key, nothing near", RECIPE(CHARS ASK GO "zzz=1"), READ, 65, "unknown key 'zzz'; expected one of name, seed"},
    {"unknown key of a stage", RECIPE(CHARS ASK "stages={\ngrpo{steps=1,\nalgo={\nepsilonn=0.1}}}"), READ, 65,
     "bad.lua:7: unknown key 'algo.epsilonn' in stages.1, did you mean 'epsilon_low'?"},
    {"unknown key of a shared section", RECIPE(CHARS ASK GO "algo={klo=1}"), READ, 65,
     "bad.lua:5: unknown key 'algo.klo', did you mean 'kl'?"},
    {"unknown key of a task", RECIPE(CHARS "tasks={{\"arithmetic\", level={1}}}," GO), READ, 65,
     "bad.lua:3: unknown key 'level' in tasks.1, did you mean 'levels'?"},
    {"missing tasks", RECIPE(CHARS GO), READ, 65, "missing key 'tasks'"},
    {"missing stages", RECIPE(CHARS ASK), READ, 65, "missing key 'stages'"},
    {"missing steps", RECIPE(CHARS ASK "stages={\nsft{batch=2}}"), READ, 65,
     "bad.lua:5: missing key 'steps' in stages.1: expected an integer from 1 to 10000000"},
    {"text for a number", RECIPE(CHARS ASK "stages={grpo{steps=\"ten\"}}"), READ, 65,
     "bad.lua:4: 'steps' in stages.1: found the text \"ten\", expected an integer from 1"},
    {"fraction for an integer", RECIPE(CHARS ASK "stages={grpo{steps=1.5}}"), READ, 65, "found 1.5, expected an integer"},
    {"out of range", RECIPE(CHARS ASK "stages={grpo{steps=0}}"), READ, 65, "found 0, expected an integer from 1"},
    {"number for a truth value", RECIPE(CHARS ASK GO "chat=1"), READ, 65, "'chat': found 1, expected true or false"},
    {"function for a number", RECIPE(CHARS ASK GO "seed=function() end"), READ, 65, "found a function, expected an integer"},
    {"table for a text", RECIPE(CHARS ASK GO "name={a=1}"), READ, 65, "'name': found a table, expected a text"},
    {"number for a section", RECIPE(CHARS ASK GO "evaluate=5"), READ, 65, "'evaluate': found 5, expected a table"},
    {"a shared section that is none", RECIPE(CHARS ASK GO "algo=5"), READ, 65, "'algo': found 5, expected a table"},
    {"learning rate of 0", RECIPE(CHARS ASK GO "optimizer={learning_rate=0}"), READ, 65,
     "found 0, expected a number above 0 and at most 1"},
    {"negative KL", RECIPE(CHARS ASK "stages={grpo{steps=1, algo={kl=-1}}}"), READ, 65, "'algo.kl' in stages.1: found -1"},
    {"temperature of 0", RECIPE(CHARS ASK GO "sampling={temperature=0}"), READ, 65, "expected a number above 0"},
    {"unknown loss", RECIPE(CHARS ASK GO "algo={loss=\"ppo\"}"), READ, 65,
     "found the text \"ppo\", expected one of grpo, bnpo, dr_grpo, dapo"},
    {"group of one", RECIPE(CHARS ASK "stages={grpo{steps=1, group_size=1}}"), READ, 65, "expected an integer from 2"},
    {"held out everything", RECIPE(CHARS ASK GO "held_out=1"), READ, 65, "'held_out': found 1, expected a number from 0.001"},
    {"empty stop text", RECIPE(CHARS ASK GO "sampling={stop={\"\"}}"), READ, 65, "expected a list of texts"},
    {"NUL in a text", RECIPE(CHARS ASK GO "name=\"a\\0b\""), READ, 65, "'name': found the text"},
    {"no stages", RECIPE(CHARS ASK "stages={}"), READ, 65, "'stages': found 0 elements"},
    {"stages that are a section", RECIPE(CHARS ASK "stages={steps=1}"), READ, 65, "'stages'"},
    {"unknown stage", RECIPE(CHARS ASK "stages={{\"grop\", steps=1}}"), READ, 65, "unknown stage 'grop', did you mean 'grpo'?"},
    {"stage without a kind", RECIPE(CHARS ASK "stages={{steps=1}}"), READ, 65, "'stages.1': expected a stage, such as grpo"},
    {"unknown constructor", RECIPE(CHARS ASK "stages={ppo{steps=1}}"), READ, 65, "bad.lua:4"},
    {"unknown task", RECIPE(CHARS "tasks={\"arithmetc\"}," GO), READ, 65, "unknown task 'arithmetc', did you mean 'arithmetic'?"},
    {"task that is a number", RECIPE(CHARS "tasks={7}," GO), READ, 65, "'tasks.1': expected a task"},
    {"level that isn't there", RECIPE(CHARS "tasks={{\"arithmetic\", levels={7}}}," GO), READ, 65,
     "found the list [7], expected a list of integers from 1 to 6"},
    {"level listed twice", RECIPE(CHARS "tasks={{\"arithmetic\", levels={2,2}}}," GO), READ, 65, "2 is listed twice"},
    {"all weights 0", RECIPE(CHARS "tasks={{\"arithmetic\", weight=0}}," GO), READ, 65, "all weights are 0"},
    {"unknown reward", RECIPE(CHARS ASK GO "rewards={\"corect\"}"), READ, 65, "unknown reward 'corect', did you mean 'correct'?"},
    {"reward script that isn't there", RECIPE(CHARS ASK GO "rewards={\n{\"mine.lua\"}}"), READ, 66,
     "bad.lua:6: reward script 'mine.lua' isn't there"},
    {"reward weight", RECIPE(CHARS ASK GO "rewards={{\"correct\", weight=\"high\"}}"), READ, 65, "'weight' in rewards.1: found the text"},
    // ---- recipes: keys that don't go together ---------------------------------------------------------------
    {"no vocabulary", RECIPE(ASK GO), READ, 65, "missing key 'characters'"},
    {"character listed twice", RECIPE("characters=\"0120\"," ASK GO), READ, 65, "'0' is listed twice"},
    {"vocabulary beside a path", RECIPE("model={path=\"m\"}," CHARS ASK GO), READ, 65, "brings its own vocabulary"},
    {"shape beside a path", RECIPE("model={path=\"m\",\nlayers=2}," ASK GO), READ, 65, "bad.lua:3: 'model.layers': has no effect"},
    {"chat from scratch", RECIPE(CHARS ASK GO "chat=true"), READ, 65, "has no chat template"},
    {"heads", RECIPE(CHARS ASK GO "model={heads=4,\nkv_heads=3}"), READ, 65, "bad.lua:6: 'model.kv_heads': found 3"},
    {"width", RECIPE(CHARS ASK GO "model={width=100, heads=3}"), READ, 65, "expected a divisor of the width 100"},
    {"odd head", RECIPE(CHARS ASK GO "model={head_width=5}"), READ, 65, "found 5, expected an even number"},
    {"mode shares", RECIPE(CHARS ASK "stages={grpo{steps=1, modes={think=0.5}}}"), READ, 65, "sum to 0.5, expected 1"},
    {"stage level", RECIPE(CHARS ASK "stages={grpo{steps=1, levels={3}}}"), READ, 65, "level 3 is in none of the recipe's tasks"},
    {"minibatches", RECIPE(CHARS ASK "stages={grpo{steps=1, prompts=8, algo={minibatches=3}}}"), READ, 65,
     "found 3, expected a divisor of the 8 prompts"},
    {"warm-up", RECIPE(CHARS ASK "stages={sft{steps=5, optimizer={warmup=6}}}"), READ, 65, "found 6, expected at most the 5 steps"},
    {"completions beyond the context", RECIPE(CHARS ASK GO "sampling={max_tokens=99}, model={max_positions=64}"), READ, 65,
     "found 99, expected less than the model's max_positions 64"},
    {"a name that climbs", RECIPE(CHARS ASK GO "name=\"../x\""), READ, 65, "names the run's folder"},
    // ---- overrides ------------------------------------------------------------------------------------------
    {"override without a value", RECIPE(CHARS ASK GO), {"tasks", "bad.lua", "--set", "seed"}, 64, "--set seed: expected KEY=VALUE"},
    {"override of an unknown key", RECIPE(CHARS ASK GO), {"tasks", "bad.lua", "--set", "algo.epsilonn=1"}, 64,
     "--set algo.epsilonn=1: unknown key 'algo.epsilonn', did you mean 'epsilon_low'?"},
    {"override of a stage that isn't there", RECIPE(CHARS ASK GO), {"tasks", "bad.lua", "--set", "stages.2.steps=1"}, 64,
     "there is no '2' among the 1 of the list"},
    {"override out of range", RECIPE(CHARS ASK GO), {"tasks", "bad.lua", "--set", "stages.1.steps=-3"}, 64,
     "--set stages.1.steps=-3: 'steps' in stages.1: found -3, expected an integer from 1"},
    {"override of the wrong type", RECIPE(CHARS ASK GO), {"tasks", "bad.lua", "--set", "threads=many"}, 64,
     "--set threads=many: 'threads': found the text \"many\""},
    {"override inside a value", RECIPE(CHARS ASK GO "seed=1"), {"tasks", "bad.lua", "--set", "seed.x=1"}, 64,
     "expected the path of a key"},
    // ---- datasets -------------------------------------------------------------------------------------------
    {"no data file", RECIPE(CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}," GO), READ, 66, "bad.lua:3: data file 'd.jsonl' isn't there"},
    {"a folder as data", RECIPE(CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}," GO), READ, 66, "data file 'd.jsonl' isn't there", make_folder},
    {"no file key", RECIPE(CHARS "tasks={\"jsonl\"}," GO), READ, 65, "missing key 'file' in tasks.1"},
    {"empty data", WITH_DATA(""), READ, 65, "d.jsonl: found no rows"},
    {"only blank lines", WITH_DATA("\n  \n\r\n"), READ, 65, "found no rows"},
    {"bad JSON", WITH_DATA("{\"prompt\":\"a\",\"answer\":1}\n{\"prompt\":"), READ, 65, "d.jsonl:2:"},
    {"text after the row", WITH_DATA("{\"prompt\":\"a\",\"answer\":1} x"), READ, 65, "d.jsonl:1:"},
    {"duplicate key", WITH_DATA("{\"prompt\":\"a\",\"prompt\":\"b\",\"answer\":1}"), READ, 65, "duplicate"},
    {"a NaN literal", WITH_DATA("{\"prompt\":\"a\",\"answer\":NaN}"), READ, 65, "d.jsonl:1:"},
    {"a number beyond range", WITH_DATA("{\"prompt\":\"a\",\"answer\":\"1\",\"x\":1e400}"), READ, 65, "d.jsonl:1:"},
    {"a lone surrogate", WITH_DATA("{\"prompt\":\"\\ud800\",\"answer\":1}"), READ, 65, "d.jsonl:1:"},
    {"overlong UTF-8", WITH_DATA("{\"prompt\":\"\xc0\xaf\",\"answer\":1}"), READ, 65, "d.jsonl:1:"},
    {"nested without end", RECIPE(CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}," GO), READ, 65, "d.jsonl:1:", make_deep_json},
    {"a line without end", RECIPE(CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}," GO), READ, 65, "a line of 17825792 bytes", make_long_line},
    {"a row that is a list", WITH_DATA("[1]"), READ, 65, "d.jsonl:1:1: found a list, expected an object"},
    {"no question", WITH_DATA("{\"answer\":1}"), READ, 65, "d.jsonl:1:1: missing 'prompt' or 'messages'"},
    {"two questions", WITH_CHAT("{\"prompt\":\"a\",\"messages\":[],\"answer\":1}"), READ, 65, "both 'prompt' and 'messages'"},
    {"no answer", WITH_DATA("{\"prompt\":\"a\"}"), READ, 65, "d.jsonl:1:1: missing 'answer', expected a text or an integer"},
    {"an empty prompt", WITH_DATA("{\"prompt\": \" \\n\",\"answer\":1}"), READ, 65, "d.jsonl:1:12: 'prompt': found an empty text"},
    {"a prompt that is a number", WITH_DATA("{\"prompt\":7,\"answer\":1}"), READ, 65, "'prompt': found an integer, expected a text"},
    {"NUL in a prompt", WITH_DATA("{\"prompt\":\"a\\u0000\",\"answer\":1}"), READ, 65, "found a NUL character"},
    {"an answer that is a fraction", WITH_DATA("{\"prompt\":\"\xc3\xa9\xc3\xa9\",\"answer\":1.5}"), READ, 65,
     "d.jsonl:1:25: 'answer': found a number, expected a text or an integer"},
    {"an answer that is null", WITH_DATA("{\"prompt\":\"a\",\"answer\":null}"), READ, 65, "'answer': found null"},
    {"a level out of range", WITH_DATA("\n{\"prompt\":\"a\",\"answer\":1,\"level\":-1}"), READ, 65, "d.jsonl:2:34: 'level': found one out of range"},
    {"a level that is a text", WITH_DATA("{\"prompt\":\"a\",\"answer\":1,\"level\":\"hard\"}"), READ, 65, "'level': found a text"},
    {"a kind that is a number", WITH_DATA("{\"prompt\":\"a\",\"answer\":1,\"kind\":1}"), READ, 65, "'kind': found an integer"},
    {"an empty demonstration", WITH_DATA("{\"prompt\":\"a\",\"answer\":1,\"demonstration\":\"\"}"), READ, 65,
     "'demonstration': found an empty text"},
    {"messages without chat", WITH_DATA("{\"messages\":[],\"answer\":1}"), READ, 65, "plain text (chat=false), expected 'prompt'"},
    {"no messages", WITH_CHAT("{\"messages\":[],\"answer\":1}"), READ, 65, "found an empty list"},
    {"a message without content", WITH_CHAT("{\"messages\":[{\"role\":\"user\"}],\"answer\":1}"), READ, 65, "number 1 lacks a text"},
    {"an unknown role", WITH_CHAT("{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}],\"answer\":1}"), READ, 65, "the role 'tool'"},
    {"the assistant last", WITH_CHAT("{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}],\"answer\":1}"), READ, 65,
     "the last one is not the user's"},
    {"too many levels", RECIPE(CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}," GO), READ, 65, "more than 256 pairs", make_many_groups},
    {"all rows held out", {{"bad.lua", "return {" CHARS "tasks={{\"jsonl\", file=\"d.jsonl\"}}, held_out=0.9, " GO "}"},
                           {"d.jsonl", "{\"prompt\":\"a\",\"answer\":1}"}}, READ, 65, "rows are held out"},
    // ---- command lines --------------------------------------------------------------------------------------
    {"unknown command", {{0}}, {"trian"}, 64, "unknown command 'trian'"},
    {"unknown option", {{0}}, {"tasks", "--levle", "1"}, 64, "did you mean --level"},
    {"too many arguments", {{0}}, {"tasks", "a", "b"}, 64, "found 2 arguments"},
    {"an option without its value", {{0}}, {"tasks", "--level"}, 64, "--level needs a value"},
    {"a level that no task has", {{0}}, {"tasks", "--level", "9"}, 64, "found 9, expected a level of the tasks"},
    {"samples below 0", {{0}}, {"tasks", "--samples", "-1"}, 64, "expected a value from 0 to 10000"},
};

// ---- running -----------------------------------------------------------------------------------------------
static char program[4096]; // reckon beside this test's folder
static bool find_program(void) {
    char self[4000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return false;
    self[n] = 0;
    *strrchr(self, '/') = 0;
    snprintf(program, sizeof program, "%s/../reckon", self);
    return access(program, X_OK) == 0;
}

// Runs the row's command in `folder`; its stderr is appended to `text`.
static int run_row(const BadInput *row, const char *folder, Buf *text) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    pid_t child = fork();
    if (child == 0) {
        const char *argv[COUNT(row->argv) + 2] = {"reckon"};
        for (int i = 0; i < COUNT(row->argv); i++) argv[i + 1] = row->argv[i];
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0), dup2(null, 1), dup2(ends[1], 2);
        if (chdir(folder) == 0) execv(program, (char **)(uintptr_t)argv);
        _exit(127);
    }
    close(ends[1]);
    char chunk[4096];
    for (ssize_t n; (n = read(ends[0], chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR);)
        if (n > 0) buf_append(text, chunk, (size_t)n);
    close(ends[0]);
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void every_row(void) {
    char folder[64], complaints[1500] = "";
    int failed = 0;
    Err err = {0};
    if (!find_program()) FAIL("%.500s isn't built", program);
    for (int i = 0; i < COUNT(rows); i++) {
        const BadInput *row = &rows[i];
        snprintf(folder, sizeof folder, "/tmp/reckon-bad-%d", (int)getpid());
        OK(folder_make(folder, &err));
        for (int f = 0; f < COUNT(row->files) && row->files[f].name; f++)
            put_file(folder, row->files[f].name, row->files[f].text,
                     row->files[f].size ? row->files[f].size : strlen(row->files[f].text));
        if (row->make) row->make(folder);
        Buf text = {0};
        int code = run_row(row, folder, &text);
        OK(folder_remove(folder, &err));
        if (code != row->exit_code || !text.data || !strstr(text.data, row->stderr_has)) {
            size_t n = strlen(complaints);
            snprintf(complaints + n, sizeof complaints - n, "\n  %s: exit %d, expected %d; stderr: %.300s  expected: %s",
                     row->name, code, row->exit_code, text.data ? text.data : "", row->stderr_has);
            failed++;
        }
        buf_free(&text);
    }
    if (failed) FAIL("%d of %d rows%s", failed, COUNT(rows), complaints);
    printf("     %d rows\n", COUNT(rows));
}

static const Test tests[] = {{"every row", every_row}};
TEST_MAIN(tests)
