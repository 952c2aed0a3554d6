// Malformed recipes, datasets, models, runs and command lines: each with the exit code and the message that a user must get
// from the real program. A row says how to make its files, what to run in their folder, and what has to stand on stderr.
// To add one: files are written as given (or by `make`, for what can't be written as a text), argv follows "reckon". A row
// with MODEL gets a whole tiny model in the folder m first, and then does to it what it says.
#include "../test.h"
#include "files.h"
#include "rl.h"
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
    const char *argv[10];
    int exit_code;
    const char *stderr_has;
    void (*make)(const char *folder); // makes further files; may be NULL
    // What is done to a file in m, in this order; all may be left out.
    const char *change, *from, *to; // replaces one text of the file `change`
    const char *remove;
    const char *cut; // the file `cut` keeps its first `keep` bytes
    size_t keep;
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
    char *path = path_join(folder, name), *slash = strrchr(path, '/');
    *slash = 0;
    bool ok = folder_make(path, &err);
    *slash = '/';
    ok = ok && file_write_atomic(path, data, size, &err);
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

static void make_model(const char *folder) {
    Err err = {0};
    Tokenizer *t;
    Policy *p;
    OK(tokenizer_from_characters("0123456789+=", &t, &err));
    ModelConfig c = {.model_type = "llama", .layers = 2, .width = 16, .heads = 4, .kv_heads = 2, .head_width = 4, .feed_forward = 24,
                     .vocabulary = tokenizer_size(t), .max_positions = 32, .norm_eps = 1e-5, .rope = {{.theta = 10000}},
                     .initializer_range = 0.02, .tied = true, .bos_id = -1, .pad_id = -1, .stop_count = 1};
    c.stop_ids[0] = tokenizer_eos(t);
    OK(policy_create(&c, t, 1, &(PolicyOptions){.precision = PRECISION_FP32, .threads = 1}, &p, &err));
    char *path = path_join(folder, "m");
    bool ok = folder_make(path, &err) && policy_save(p, path, "F32", &err);
    free(path);
    policy_close(p);
    OK(ok);
}
static void make_model_and_lists(const char *folder) {
    make_model(folder);
    put_file(folder, "far.json", "[[1,2,999]]", 11);
    put_file(folder, "text.json", "[[1,\"2\"]]", 9);
    put_file(folder, "empty.json", "[[]]", 4);
    put_file(folder, "short.json", "[[1,2", 5);
    put_file(folder, "object.json", "{}", 2);
    put_file(folder, "minus.json", "[[1,-2]]", 8);
    put_file(folder, "good.json", "[[1,2,3]]", 9);
    Buf text = {0};
    for (int i = 0; i < 40; i++) buf_printf(&text, "%s%d", i ? "," : "[[", 3 + i % 9);
    buf_puts(&text, "]]");
    put_file(folder, "long.json", text.data, text.size);
    buf_free(&text);
}
// A file of an index that isn't there.
static void make_lost_shard(const char *folder) {
    make_model(folder);
    put_file(folder, "m/model.safetensors.index.json", "{\"weight_map\":{\"model.norm.weight\":\"model-00001-of-00002.safetensors\"}}", 71);
}
static void make_climbing_shard(const char *folder) {
    make_model(folder);
    put_file(folder, "m/model.safetensors.index.json", "{\"weight_map\":{\"model.norm.weight\":\"../../x.safetensors\"}}", 58);
}

// Does to m's files what the row asks for.
static void spoil_model(const BadInput *row, const char *folder) {
    Err err = {0};
    const char *names[] = {row->change, row->cut, row->remove};
    for (int i = 0; i < COUNT(names); i++) {
        if (!names[i]) continue;
        char path[256];
        snprintf(path, sizeof path, "%s/m/%s", folder, names[i]);
        Buf text = {0};
        OK(file_read(path, 1 << 20, &text, &err));
        if (i == 0) {
            size_t n = strlen(row->from), m = strlen(row->to);
            char *at = memmem(text.data, text.size, row->from, n);
            if (!at) FAIL("%s: %s holds no %s: %.300s", row->name, names[i], row->from, text.data);
            Buf changed = {0};
            buf_append(&changed, text.data, (size_t)(at - text.data));
            buf_append(&changed, row->to, m);
            buf_append(&changed, at + n, text.size - (size_t)(at - text.data) - n);
            OK(file_write_atomic(path, changed.data, changed.size, &err));
            buf_free(&changed);
        } else if (i == 1) {
            CHECK(row->keep < text.size);
            OK(file_write_atomic(path, text.data, row->keep, &err));
        } else {
            CHECK_INT(unlink(path), 0);
        }
        buf_free(&text);
    }
}

#define MODEL {{0}}
#define ASK_MODEL {"generate", "m", "--prompt", "1", "--max-tokens", "2", "--threads", "1"}
#define CHANGED(file, old, new) make_model, file, old, new
#define REMOVED(file) make_model, .remove = file
#define CUT(file, size) make_model, .cut = file, .keep = size
#define SIZED(bytes) {{"x.gguf", bytes, sizeof(bytes) - 1}}
#define INSPECT {"inspect", "x.gguf"}
#define GGUF3 "GGUF\3\0\0\0"
#define ZERO8 "\0\0\0\0\0\0\0\0"
// A recipe that `train` runs up to its fault.
#define TRAIN {"train", "bad.lua", "--run", "r"}
#define SMALL "threads=1, reward_workers=1, reward_limits={fuel=100000}, model={preset=\"mini\", max_positions=64}, sampling={max_tokens=8},\n" CHARS
#define TRAINED_DATA(rows) {{"bad.lua", "return {\n" SMALL "tasks={{\"jsonl\", file=\"d.jsonl\"}},\n" GO "}"}, {"d.jsonl", rows}}

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
    // ---- model folders --------------------------------------------------------------------------------------
    {"no model", {{0}}, {"generate", "absent", "--prompt", "1"}, 66, "absent"},
    {"an empty folder as model", {{"e/x", ""}}, {"generate", "e", "--prompt", "1"}, 66, "e/model.safetensors: can't open"},
    {"a text as model", {{"x.txt", "hello"}}, {"generate", "x.txt", "--prompt", "1"}, 65, "x.txt: expected a model folder"},
    {"no config.json", MODEL, ASK_MODEL, 66, "m/config.json: can't open", REMOVED("config.json")},
    {"config.json cut off", MODEL, ASK_MODEL, 65, "m/config.json:", CUT("config.json", 40)},
    {"config.json that is empty", MODEL, ASK_MODEL, 65, "m/config.json:", CUT("config.json", 0)},
    {"unknown model_type", MODEL, ASK_MODEL, 65, "model_type is \"mamba\"", CHANGED("config.json", "\"llama\"", "\"mamba\"")},
    {"no hidden_size", MODEL, ASK_MODEL, 65, "hidden is not supported", CHANGED("config.json", "\"hidden_size\"", "\"hidden\"")},
    {"heads that don't divide", MODEL, ASK_MODEL, 65, "num_key_value_heads is 3, expected a divisor of num_attention_heads 4",
     CHANGED("config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")},
    {"an odd head", MODEL, ASK_MODEL, 65, "head_dim is 5, expected an even number", CHANGED("config.json", "\"head_dim\": 4", "\"head_dim\": 5")},
    {"10^9 layers", MODEL, ASK_MODEL, 65, "num_hidden_layers is 1000000000", CHANGED("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000")},
    {"a layer too many", MODEL, ASK_MODEL, 65, "tensor 'model.layers.2.", CHANGED("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")},
    {"a layer too few", MODEL, ASK_MODEL, 65, "has no place in a llama model", CHANGED("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")},
    {"another width", MODEL, ASK_MODEL, 65, "has shape [", CHANGED("config.json", "\"hidden_size\": 16", "\"hidden_size\": 32")},
    {"a vocabulary of another size", MODEL, ASK_MODEL, 65, "model.embed_tokens.weight' has shape [15, 16], expected [14, 16]",
     CHANGED("config.json", "\"vocab_size\": 15", "\"vocab_size\": 14")},
    {"an end token out of range", MODEL, ASK_MODEL, 65, "eos_token_id", CHANGED("config.json", "\"eos_token_id\": 0", "\"eos_token_id\": 99"),
     .remove = "generation_config.json"},
    {"norms without an epsilon", MODEL, ASK_MODEL, 65, "rms_norm_eps is 1", CHANGED("config.json", "\"rms_norm_eps\": 1.0000000000000001e-5", "\"rms_norm_eps\": 1.0")},
    {"no weights", MODEL, ASK_MODEL, 66, "m/model.safetensors", REMOVED("model.safetensors")},
    {"a shard that isn't there", MODEL, ASK_MODEL, 66, "m/model-00001-of-00002.safetensors: can't open", make_lost_shard, .remove = "model.safetensors"},
    {"a shard outside of the folder", MODEL, ASK_MODEL, 65, "expected the name of a .safetensors file in the same folder", make_climbing_shard,
     .remove = "model.safetensors"},
    {"weights cut off", MODEL, ASK_MODEL, 65, "data_offsets", CUT("model.safetensors", 6000)},
    {"weights cut off in the header", MODEL, ASK_MODEL, 65, "m/model.safetensors: a header of", CUT("model.safetensors", 100)},
    {"weights of seven bytes", MODEL, ASK_MODEL, 65, "has 7 bytes, expected at least 8", CUT("model.safetensors", 7)},
    {"weights of another name", MODEL, ASK_MODEL, 65, "model.norm", CHANGED("model.safetensors", "model.norm.weight", "model.nrom.weight")},
    {"weights of an unknown type", MODEL, ASK_MODEL, 65, "unknown dtype 'Q99'", CHANGED("model.safetensors", "\"F32\"", "\"Q99\"")},
    {"a tokenizer larger than the embedding", MODEL, ASK_MODEL, 65, "the tokenizer has", CHANGED("tokenizer.json", "\"added_tokens\": [",
     "\"added_tokens\": [{\"id\":15,\"content\":\"<x>\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},")},
    {"tokenizer.json cut off", MODEL, ASK_MODEL, 65, "m/tokenizer.json:", CUT("tokenizer.json", 200)},
    {"a text without a tokenizer", MODEL, ASK_MODEL, 66, "has no tokenizer: give the prompt as --ids FILE", REMOVED("tokenizer.json")},
    {"a character that isn't in the vocabulary", MODEL, {"generate", "m", "--prompt", "x"}, 65, "the character 'x' (U+0078) at byte 0", make_model},
    {"a chat without a template", MODEL, {"generate", "m", "--prompt", "1", "--chat"}, 65, "has no chat template", make_model},
    {"a tensor that isn't there", MODEL, {"inspect", "m", "--tensor", "no.such"}, 65, "has no tensor 'no.such'", make_model},
    // ---- GGUF files -----------------------------------------------------------------------------------------
    {"GGUF: empty", {{"x.gguf", ""}}, INSPECT, 65, "x.gguf"},
    {"GGUF: another magic", SIZED("GGML\3\0\0\0" ZERO8 ZERO8), INSPECT, 65, "does not begin with 'GGUF'"},
    {"GGUF: version 1", SIZED("GGUF\1\0\0\0" ZERO8 ZERO8), INSPECT, 65, "version"},
    {"GGUF: version 99", SIZED("GGUF\143\0\0\0" ZERO8 ZERO8), INSPECT, 65, "version"},
    {"GGUF: big-endian", SIZED("GGUF\0\0\0\3" ZERO8 ZERO8), INSPECT, 65, "big-endian"},
    {"GGUF: cut off after the magic", SIZED("GGUF\3\0"), INSPECT, 65, "x.gguf"},
    {"GGUF: -1 tensors", SIZED(GGUF3 "\377\377\377\377\377\377\377\377" ZERO8), INSPECT, 65, "tensors"},
    {"GGUF: -1 keys", SIZED(GGUF3 ZERO8 "\377\377\377\377\377\377\377\377"), INSPECT, 65, "metadata"},
    {"GGUF: a key of 2^63 bytes", SIZED(GGUF3 ZERO8 "\1\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\200"), INSPECT, 65, "byte"},
    {"GGUF: nothing inside", SIZED(GGUF3 ZERO8 ZERO8), {"generate", "x.gguf", "--prompt", "1"}, 65, "general.architecture"},
    // ---- generate, score, bench -----------------------------------------------------------------------------
    {"no prompt", MODEL, {"generate", "m"}, 64, "expected one of --prompt TEXT and --ids FILE", make_model},
    {"two prompts", MODEL, {"generate", "m", "--prompt", "1", "--ids", "good.json"}, 64, "expected one of --prompt TEXT and --ids FILE",
     make_model_and_lists},
    {"raw and chat", MODEL, {"generate", "m", "--prompt", "1", "--raw", "--chat"}, 64, "at most one of --raw and --chat", make_model},
    {"a temperature below 0", MODEL, {"generate", "m", "--prompt", "1", "--temperature", "-1"}, 64,
     "generate --temperature: found -1, expected a value from 0 to 100", make_model},
    {"a temperature that is a text", MODEL, {"generate", "m", "--prompt", "1", "--temperature", "hot"}, 64, "found 'hot', expected a number", make_model},
    {"a temperature that is NaN", MODEL, {"generate", "m", "--prompt", "1", "--temperature", "nan"}, 64, "found 'nan', expected a number", make_model},
    {"no completions", MODEL, {"generate", "m", "--prompt", "1", "-n", "0"}, 64, "found 0, expected a value from 1", make_model},
    {"half a token", MODEL, {"generate", "m", "--prompt", "1", "--max-tokens", "1.5"}, 64, "found '1.5', expected an integer", make_model},
    {"an integer out of range", MODEL, {"generate", "m", "--prompt", "1", "--seed", "99999999999999999999"}, 64, "expected an integer", make_model},
    {"an unknown precision", MODEL, {"generate", "m", "--prompt", "1", "--precision", "fp8"}, 64, "expected one of fp32|bf16", make_model},
    {"a flag with a value", MODEL, {"generate", "m", "--prompt", "1", "--raw=1"}, 64, "--raw takes no value", make_model},
    {"no ids", MODEL, {"score", "m"}, 64, "--ids FILE is missing", make_model},
    {"ids that aren't there", MODEL, {"score", "m", "--ids", "none.json"}, 66, "none.json", make_model},
    {"ids out of range", MODEL, {"score", "m", "--ids", "far.json"}, 65, "999", make_model_and_lists},
    {"ids below 0", MODEL, {"score", "m", "--ids", "minus.json"}, 65, "isn't a token id", make_model_and_lists},
    {"ids that are texts", MODEL, {"score", "m", "--ids", "text.json"}, 65, "place 1 isn't a token id", make_model_and_lists},
    {"an empty list of ids", MODEL, {"score", "m", "--ids", "empty.json"}, 65, "expected a list of at least one token id", make_model_and_lists},
    {"ids cut off", MODEL, {"score", "m", "--ids", "short.json"}, 65, "short.json:1:", make_model_and_lists},
    {"ids in an object", MODEL, {"score", "m", "--ids", "object.json"}, 65, "expected a list of lists of token ids", make_model_and_lists},
    {"ids beyond the context", MODEL, {"score", "m", "--ids", "long.json"}, 65, "32", make_model_and_lists},
    {"a prompt beyond the context", MODEL, {"generate", "m", "--ids", "long.json", "--max-tokens", "2"}, 65, "32", make_model_and_lists},
    {"a completion beyond the context", MODEL, {"generate", "m", "--ids", "good.json", "--max-tokens", "500"}, 65, "32", make_model_and_lists},
    {"an unknown kind of bench", MODEL, {"bench", "fast", "--model", "m"}, 64, "found 'fast', expected decode, train, step, gemm, tokenize or machine", make_model},
    {"a bench without a model", {{0}}, {"bench", "decode"}, 64, "--model MODEL is missing"},
    {"a group that doesn't divide the batch", MODEL, {"bench", "decode", "--model", "m", "--batch", "4", "--group", "3"}, 64, "expected a divisor of the batch, 4", make_model},
    {"a group of one to learn from", MODEL, {"bench", "step", "--model", "m", "--group", "1"}, 64, "expected at least 2", make_model},
    {"no group with variance", MODEL, {"bench", "step", "--model", "m", "--prompts", "2", "--flat-groups", "2"}, 64, "expected less than the prompts, 2", make_model},
    {"an unknown kind of calc", {{0}}, {"calc", "tensor", "x.json"}, 64, "found kind 'tensor', expected one of objective, advantage"},
    {"calc without cases", {{"x.json", "{}"}}, {"calc", "objective", "x.json"}, 65, "expected an object with a list 'cases'"},
    {"a variant that isn't there", MODEL, {"generate", "m", "--prompt", "1"}, 64, "RECKON_CPU", make_model},
    // ---- a run's folder -------------------------------------------------------------------------------------
    {"report of no run", {{"r/x", ""}}, {"report", "r"}, 66, "r/ledger.db: is not there, expected the ledger of a run"},
    {"cost of no run", {{"r/x", ""}}, {"cost", "r"}, 66, "r/ledger.db: is not there, expected the ledger of a run"},
    {"audit of no run", {{"r/x", ""}}, {"audit", "r"}, 66, "r/ledger.db: is not there, expected the ledger of a run"},
    {"head of no run", {{0}}, {"audit", "absent", "--head"}, 66, "absent/ledger.db: is not there"},
    {"audit of something else", {{"r/ledger.db", "SQLite format 4"}}, {"audit", "r"}, 65, "r/ledger.db"},
    {"eval of nothing", {{0}}, {"eval", "absent"}, 66, "absent: no such run, recipe or model"},
    {"compare of nothing", {{0}}, {"compare", "absent"}, 66, "absent: no such run, recipe or model"},
    {"compare an endpoint without its model", {{0}}, {"compare", "--model", "x=http://127.0.0.1:9/v1"}, 64, "expected #MODEL behind the URL"},
    {"compare an endpoint alone", {{0}}, {"compare", "--model", "x=http://127.0.0.1:9/v1#m"}, 64, "a model before an endpoint"},
    {"eval of a folder that is no run", {{"r/x", ""}}, {"eval", "r"}, 64, "expected --recipe FILE beside it"},
    {"eval of a recipe without a run", RECIPE(CHARS ASK GO "run=\"r\""), {"eval", "bad.lua"}, 66, "there is no checkpoint yet"},
    // ---- train ----------------------------------------------------------------------------------------------
    {"train without a recipe", {{0}}, {"train"}, 64, "expected: reckon train RECIPE"},
    {"train a recipe that isn't there", {{0}}, {"train", "absent.lua"}, 66, "absent.lua: can't open"},
    {"train with threads that are a text", RECIPE(SMALL ASK GO), {"train", "bad.lua", "--threads", "all"}, 64, "found 'all', expected an integer"},
    {"train a model that isn't there", RECIPE("model={path=\"nowhere\"}, chat=false, sampling={max_tokens=8}," ASK GO), TRAIN, 66, "nowhere"},
    {"train a reward that isn't there", RECIPE(SMALL ASK GO "rewards={\"./mine.lua\"}"), TRAIN, 66, "mine.lua' isn't there"},
    {"train a reward with a syntax error", {{"bad.lua", "return {" SMALL ASK GO "rewards={\"mine.lua\"}}"}, {"mine.lua", "return function(s)\n return +\nend"}},
     TRAIN, 65, "mine.lua:2: unexpected symbol near '+'"},
    {"train a reward that returns nothing", {{"bad.lua", "return {" SMALL ASK GO "rewards={\"mine.lua\"}}"}, {"mine.lua", "local x = 1"}}, TRAIN, 65,
     "mine: the script returned nil, expected a function or a table"},
    {"train a reward that returns a text", {{"bad.lua", "return {" SMALL ASK GO "rewards={\"mine.lua\"}}"}, {"mine.lua", "return function() return '1' end"}},
     TRAIN, 65, "could not be scored (more than 10 %)"},
    {"train a reward without end", {{"bad.lua", "return {" SMALL ASK GO "rewards={\"mine.lua\"}}"}, {"mine.lua", "return function() while true do end end"}},
     TRAIN, 65, "budget"},
    {"train on bad rows", TRAINED_DATA("{\"prompt\":\"1\",\"answer\":1}\n{\"prompt\":\"1\""), TRAIN, 65, "d.jsonl:2:"},
    {"train on characters that aren't in the vocabulary", TRAINED_DATA("{\"prompt\":\"one?\",\"answer\":1}\n{\"prompt\":\"one!\",\"answer\":2}\n"),
     TRAIN, 65, "the character 'o' (U+006F) at byte 0 is not in the vocabulary, in 'one"},
    {"train on prompts beyond the context", TRAINED_DATA("{\"prompt\":\"1111111111111111111111111111111111111111111111111111111111111111111111\",\"answer\":1}\n"
     "{\"prompt\":\"2111111111111111111111111111111111111111111111111111111111111111111111\",\"answer\":1}\n"), TRAIN, 65, "64"},
    {"imitate without demonstrations", {{"bad.lua", "return {" SMALL "tasks={{\"jsonl\", file=\"d.jsonl\"}}, stages={sft{steps=1}}}"},
     {"d.jsonl", "{\"prompt\":\"1\",\"answer\":1}\n{\"prompt\":\"2\",\"answer\":1}"}}, TRAIN, 65, "expected a column 'demonstration'"},
    {"a run's folder that can't be made", {{"bad.lua", "return {" SMALL ASK GO "}"}, {"file", ""}}, {"train", "bad.lua", "--run", "file/r"}, 73, "file"},
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
        if (strstr(row->stderr_has, "RECKON_CPU")) setenv("RECKON_CPU", "abacus", 1);
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
        spoil_model(row, folder);
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
