// Fuzzing of what faces a worker, a script or a model's text: both ends of the pipe protocol, verify, extract, the
// script's library json, our reader of JSON.
#include "../../rewards/pool.c" // both ends of the pipe are private to their files: the pool's
#include "../../rewards/worker.c" // and the worker's
#include "extract.h"
#include "fuzz.h"
#include "script.h"
#include "verify.h"

// ---- the pipe: a batch as a worker reads it --------------------------------------------------------------------
typedef struct PipeShared {
    ScoreScripts scripts, none; // scoring takes most of the time and isn't the protocol: one in 16 is scored
    WorkerStatus status;
} PipeShared;

static json_t *a_row(void) { return json_pack("{s:[i,s,n,b], s:{s:f}}", "k", 1, "x", 1, "deep", "pi", 3.25); }
static void add_batches(FuzzCorpus *seeds) {
    json_t *row = a_row();
    RewardSample samples[] = {
        {.completion = "a\0b</think>42", .completion_size = 13, .truth = "42", .row = row, .tokens = 5, .step = 6, .seed = 7, .mode = "think", .finish = "length", .id = "step 1"},
        {.completion = "", .prompt = "1+1=", .mode = "direct", .finish = "stop"},
        {.completion = "x", .completion_size = 1, .messages = row, .group = 3},
    };
    for (int jobs = 1; jobs <= 3; jobs++) {
        Buf b = {0};
        for (int j = 0; j < jobs; j++) {
            write_u32(&b, (uint32_t)(j + 1));
            write_u32(&b, (uint32_t)j);
            for (int i = 0; i < j; i++) write_sample(&b, &samples[(i + jobs) % 3]);
        }
        corpus_add(seeds, b.data, b.size);
        buf_free(&b);
    }
    for (int i = 0; i < 3; i++) {
        Buf b = {0};
        write_u32(&b, 9);
        write_u32(&b, 1);
        write_sample(&b, &samples[i]);
        corpus_add(seeds, b.data, b.size);
        buf_free(&b);
    }
    EnvironmentCall call = {.kind = ENVIRONMENT_STEP, .row = row, .prompt = "p", .mode = "think", .finish = "stop", .state = row, .action = "7", .action_size = 1, .turn = 1};
    Buf b = {0};
    write_u32(&b, 5);
    write_u32(&b, ENVIRONMENT_JOB);
    write_call(&b, &call, 0);
    corpus_add(seeds, b.data, b.size);
    buf_free(&b);
    json_decref(row);
}
static void *worker_open(FuzzCorpus *seeds) {
    PipeShared *s = xcalloc(1, sizeof *s);
    RewardLimits limits = reward_default_limits();
    RewardSpec specs[] = {{.script = "calculator", .weight = 1}, {.script = "length", .weight = 1}};
    Err err = {0};
    limits.fuel = 100000;
    add_batches(seeds);
    if (!scripts_open(specs, 2, &limits, &s->scripts, &err)) fuzz_broken("%s: %s", err.where, err.msg);
    return s;
}
static void worker_fuzz(void *shared, const uint8_t *data, size_t size) {
    PipeShared *s = shared;
    Reader r = {.at = (const char *)data, .end = (const char *)data + size};
    Buf reply = {0};
    for (int jobs = 0; jobs < 64 && r.at < r.end; jobs++)
        if (!serve_job(size % 16 ? &s->none : &s->scripts, &s->status, &r, &reply)) break;
    buf_free(&reply);
}
static void worker_close(void *shared) {
    PipeShared *s = shared;
    scripts_close(&s->scripts);
    free(s);
}

// ---- the pipe: replies as the pool reads them ------------------------------------------------------------------
// The input is what a worker wrote while four jobs are at it: with two samples, none (what are the scripts?), one, and a
// call of an environment. All in one batch, or two and two.
static const uint32_t pool_samples[4] = {2, 0, 1, ENVIRONMENT_JOB};
static void add_replies(FuzzCorpus *seeds) {
    Verdict scored = {.state = VERDICT_SCORED, .score = 1.5, .fuel = 77, .part_count = 2}, failed = {.state = VERDICT_ERROR, .score = NAN, .why = "x.lua:1: no"};
    snprintf(scored.parts[0].name, sizeof scored.parts[0].name, "a");
    snprintf(scored.parts[1].name, sizeof scored.parts[1].name, "b.c");
    scored.parts[1].value = NAN;
    ScriptsLook look = {.grouped = true, .environments = 1, .environment = {.name = "shop", .turns = 3}};
    EnvironmentReply turn = {.state = VERDICT_SCORED, .fuel = 5, .part_count = 1, .parts = {{.name = "env", .value = 0.5}}};
    for (uint32_t batches = 1; batches <= 2; batches++) {
        Buf b = {0};
        for (uint32_t part = 0; part < batches; part++) {
            size_t start = b.size;
            BatchHeader head = {.magic = REPLY_MAGIC, .jobs = 4 / batches};
            buf_append(&b, &head, sizeof head);
            for (uint32_t i = part * head.jobs; i < (part + 1) * head.jobs; i++) {
                write_u32(&b, i + 1);
                write_u32(&b, pool_samples[i]);
                if (i == 0) write_verdict(&b, &scored), write_verdict(&b, &failed);
                if (i == 1) write_look(&b, &look);
                if (i == 2) write_verdict(&b, &scored);
                if (i == 3) write_reply(&b, &turn, "{\"n\":1}", "\"hello\"");
            }
            head.size = (uint32_t)(b.size - start - sizeof head);
            memcpy(b.data + start, &head, sizeof head);
        }
        corpus_add(seeds, b.data, b.size);
        buf_free(&b);
    }
}
static void *pool_open(FuzzCorpus *seeds) {
    add_replies(seeds);
    return NULL;
}
static void pool_fuzz(void *shared, const uint8_t *data, size_t size) {
    (void)shared;
    for (int batches = 1; batches <= 2; batches++) {
        RewardPool p = {.workers = 1, .control = -1, .unfinished = 4};
        Verdict verdicts[3];
        EnvironmentReply answer = {0};
        Slot *s = &p.slots[0];
        s->fd = -1;
        queue_init(&s->sent);
        queue_init(&p.waiting);
        for (uint32_t i = 0, out = 0; i < 4; i++) {
            Job *j = job_new(&p);
            j->samples = pool_samples[i];
            j->out = xcalloc(2, sizeof *j->out);
            for (uint32_t k = 0; i < 3 && k < j->samples; k++) j->out[k] = &verdicts[out++];
            if (i == 3) j->reply = &answer;
            queue_push(&s->sent, j);
        }
        s->batches = batches;
        s->last_batch[0] = s->last_batch[1] = 4 / batches;
        // It comes in two pieces, as from a socket.
        size_t half = size / 2;
        buf_append(&s->in, data, half);
        if (take_replies(&p, s)) {
            buf_append(&s->in, data + half, size - half);
            if (take_replies(&p, s)) FUZZ_CHECK(p.unfinished == s->sent.count && s->batches >= 0);
        }
        FUZZ_CHECK(p.unfinished >= 0 && p.unfinished <= 4);
        environment_reply_free(&answer);
        look_free(&p.look);
        queue_free(&s->sent);
        buf_free(&s->in);
    }
}
// The header's length is that of what follows; true of one message.
static size_t pool_repair(uint8_t *data, size_t size) {
    BatchHeader head;
    if (size < sizeof head) return size;
    memcpy(&head, data, sizeof head);
    head.magic = REPLY_MAGIC;
    head.size = (uint32_t)(size - sizeof head);
    memcpy(data, &head, sizeof head);
    return size;
}

// ---- verify ------------------------------------------------------------------------------------------------------
// An input is a truth and an answer, with a byte 1 between them.
static const char *const verify_words[] = {
    "\\frac{", "\\dfrac{1}{2}", "\\sqrt{", "\\sqrt[3]{", "\\boxed{", "\\pi", "\\pm", "\\cup", "\\infty", "\\text{ cm}", "\\begin{pmatrix}", "\\end{pmatrix}", "\\left(", "\\right)", "\\%", "\\circ",
    "\\times", "\\cdot", "\\{", "\\}", "^{2}", "_{10}", "1/2", "1 1/2", "1,000", "0.5", "50%", "1e9", "e", "i", "x^2", "x=", "log", "sin", "(1,2)", "[0,1)", "{1,2}", "\\in", "!", "\xE4\xB8\x87", "\xE5\x84\x84",
    "\xEB\xA7\x8C", "\xEC\x96\xB5", "\xEC\x82\xBC", "ngh\xC3\xACn", "tri\xE1\xBB\x87u", "\xE4\xB8\x83\xE5\x8D\x81", " km", " hours", "$", "or", "and", "\\overline{", "0.\\overline{3}", "<", "\\le", "\\binom{", "|", "mod", "\1", NULL};

static void add_pairs(FuzzCorpus *seeds) {
    Err err = {0};
    json_t *document;
    if (!json_read_file(TEST_DATA "/rl/verify.json", 1 << 20, &document, &err)) fuzz_broken("%s: %s", err.where, err.msg);
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(document, "cases"), i, row) {
        const json_t *inputs = json_object_get(row, "inputs");
        char *pair = xasprintf("%s\1%s", json_string_value(json_object_get(inputs, "gold")), json_string_value(json_object_get(inputs, "candidate")));
        corpus_add_text(seeds, pair);
        free(pair);
    }
    json_decref(document);
}
static void *verify_open(FuzzCorpus *seeds) {
    add_pairs(seeds);
    return NULL;
}
static void verify_fuzz(void *shared, const uint8_t *data, size_t size) {
    (void)shared;
    const char *text = (const char *)data, *middle = size ? memchr(text, 1, size) : NULL;
    TextSpan truth = {text, middle ? (size_t)(middle - text) : size}, answer = {middle ? middle + 1 : text, middle ? size - truth.size - 1 : size};
    uint64_t steps;
    verify_equal(truth, answer, &steps);
    FUZZ_CHECK(steps < 2000000);
}

// ---- extract -----------------------------------------------------------------------------------------------------
static const char *const extract_words[] = {"<think>", "</think>", "<answer>", "</answer>", "<answer >", "\\boxed{", "\\fbox{", "####", "```", "```json\n", "```python\n", "{", "}", "[", "]", "\"", "\\\"", "\n", "-1,234.5", "42", "\xE3\x80\x80", NULL};
static void *extract_open(FuzzCorpus *seeds) {
    static const char *const texts[] = {
        "<think>2+2</think><answer>4</answer>", "<think>a", "a</think>b", "<answer><answer>1</answer>2</answer>", "so \\boxed{\\frac{1}{2}} and \\boxed 5", "#### 1,234\n#### 5", "it is -3.50 or 1,000,000.",
        "```json\n{\"a\": [1, \"}\", {}]}\n```", "```python\nprint(1)\n```\n```\nx\n```", "{\"a\":\"\\\"\"} [1,2", "<answer> \xE3\x80\x80 x </answer>", "\\boxed{a\\}b}", "",
    };
    for (int i = 0; i < COUNT(texts); i++) corpus_add_text(seeds, texts[i]);
    return NULL;
}
static void inside(TextSpan part, TextSpan whole) {
    FUZZ_CHECK(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}
static void extract_fuzz(void *shared, const uint8_t *data, size_t size) {
    static bool (*const how[])(TextSpan, TextSpan *) = {extract_after_thinking, extract_answer_tag, extract_boxed, extract_hash, extract_number, extract_json, extract_last_tag};
    TextSpan text = {(const char *)data, size}, think, answer, out;
    (void)shared;
    for (int i = 0; i < COUNT(how); i++) {
        out = text;
        if (how[i](text, &out)) inside(out, text);
    }
    static const char *const languages[] = {NULL, "json", "lua"};
    for (int i = 0; i < COUNT(languages); i++)
        if (extract_code(text, languages[i], &out)) inside(out, text);
    inside(extract_trim(text), text);
    for (int think_mode = 0; think_mode < 2; think_mode++) {
        completion_cut(text.data, text.size, think_mode, &think, &answer);
        FUZZ_CHECK(think.size + answer.size <= size);
    }
}

// ---- JSON --------------------------------------------------------------------------------------------------------
static const char *const json_words[] = {"{", "}", "[", "]", "\"a\":", "\"a\":1,", "null", "true", "false", "NaN", "Infinity", "-0", "1e400", "1E-400", "0.1", "9223372036854775808", "-9223372036854775809", "\\u0000",
                                         "\\ud83d\\ude00", "\\ud800", "\\/", "\\", "[[[[[[[[", "]]]]]]]]", "/**/", ",", ",}", "\xEF\xBB\xBF", "\r\n", "\t", "\"\"", "1.7976931348623157e308", NULL};
static void add_json(FuzzCorpus *seeds) {
    static const char *const texts[] = {
        "{}", "[]", "null", "0", "\"\"", "{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\\n\\u00e9\\ud83d\\ude00\"}}", "[1,-2,3.5,1e10,-0.0,123456789012345678]", "[[[[[[]]]]]]",
        "{\"\":{\"\":[{}]}}", " \t\r\n[ 1 , 2 ] ", "\"\\u0000\xF0\x9F\x98\x80\"", "[0.1,1e-7,1e22,4.9e-324,1.7976931348623157e308]", "{\"prompt\":\"1+1=\",\"truth\":\"2\",\"kind\":\"sum\",\"level\":3}",
    };
    for (int i = 0; i < COUNT(texts); i++) corpus_add_text(seeds, texts[i]);
}
static void *json_open(FuzzCorpus *seeds) {
    add_json(seeds);
    return NULL;
}
// What was read is written, and read again the same, as text too.
static void json_fuzz(void *shared, const uint8_t *data, size_t size) {
    json_t *value, *again;
    Err err = {0};
    Buf text = {0}, second = {0};
    (void)shared;
    if (!json_parse((const char *)data, size, "input", 1, &value, &err)) {
        FUZZ_CHECK(err.code == ERR_DATA && err.where[0] && err.msg[0] && !value);
        return;
    }
    json_write(value, &text);
    if (!json_parse(text.data, text.size, "written", 1, &again, &err)) fuzz_broken("what was written doesn't read: %s: %s", err.where, err.msg);
    json_write(again, &second);
    FUZZ_CHECK(text.size == second.size && memcmp(text.data, second.data, text.size) == 0);
    json_decref(value), json_decref(again);
    buf_free(&text), buf_free(&second);
}

// The script decodes the completion, encodes it, decodes and encodes again.
static const char json_script[] = "return function(s)\n"
                                  "  local value = json.decode(s.completion)\n"
                                  "  if value == nil then return 0 end\n"
                                  "  local text = json.encode(value)\n"
                                  "  if json.encode(json.decode(text)) ~= text then error('not the same: ' .. text) end\n"
                                  "  return 1\n"
                                  "end\n";
static void *library_open(FuzzCorpus *seeds) {
    ScoreScripts *scripts = xcalloc(1, sizeof *scripts);
    RewardLimits limits = reward_default_limits();
    Err err = {0};
    FuzzFile f = fuzz_file_open("round_trip.lua");
    fuzz_file_set(&f, json_script, sizeof json_script - 1);
    add_json(seeds);
    RewardSpec spec = {.script = f.path, .weight = 1};
    if (!scripts_open(&spec, 1, &limits, scripts, &err)) fuzz_broken("%s: %s", err.where, err.msg);
    fuzz_file_close(&f);
    return scripts;
}
static void library_fuzz(void *shared, const uint8_t *data, size_t size) {
    Verdict v;
    RewardSample sample = {.completion = (const char *)data, .completion_size = size, .mode = "direct", .finish = "stop"};
    scripts_score(shared, &sample, 1, &v, NULL, NULL);
    if (v.state != VERDICT_SCORED && !strstr(v.why, "nested") && !strstr(v.why, "UTF-8")) fuzz_broken("%s: %s", verdict_state_names[v.state], v.why);
}
static void library_close(void *shared) {
    scripts_close(shared);
    free(shared);
}

static const FuzzTarget targets[] = {
    {.name = "pipe_worker", .open = worker_open, .run = worker_fuzz, .close = worker_close, .words = json_words},
    {.name = "pipe_pool", .open = pool_open, .run = pool_fuzz, .repair = pool_repair},
    {.name = "verify", .open = verify_open, .run = verify_fuzz, .words = verify_words},
    {.name = "extract", .open = extract_open, .run = extract_fuzz, .words = extract_words},
    {.name = "json", .open = json_open, .run = json_fuzz, .words = json_words},
    {.name = "json_library", .open = library_open, .run = library_fuzz, .close = library_close, .words = json_words},
};
int main(int argc, char **argv) { return fuzz_main(argc, argv, targets, COUNT(targets)); }
