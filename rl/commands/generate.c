// reckon generate: completions of a prompt, with the log-probability of every token.
#include "adapters.h"
#include "command.h"
#include "ids.h"
#include "router.h"
#include "target.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool prompt_from_text(const Args *args, const Policy *p, Ids *out, Err *err) {
    const Tokenizer *t = policy_tokenizer(p);
    const char *text = args_text(args, "prompt", "");
    if (!t) return fail(err, ERR_NOINPUT, args->positional[0], "has no tokenizer: give the prompt as --ids FILE");
    bool chat = args_flag(args, "chat") || (!args_flag(args, "raw") && tokenizer_has_chat(t));
    if (!chat) return tokenizer_encode(t, text, strlen(text), false, out, err);
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", text);
    if (!messages) return fail(err, ERR_DATA, "--prompt", "is not valid UTF-8");
    Buf rendered = {0};
    bool ok = tokenizer_chat(t, messages, true, &rendered, err) && tokenizer_encode(t, rendered.data, rendered.size, false, out, err);
    json_decref(messages);
    buf_free(&rendered);
    return ok;
}

static bool completion_json(const Policy *p, const Completion *c, json_t **out, Err *err) {
    json_t *ids = json_array(), *logprobs = json_array(), *text = json_null();
    const int32_t *all = completion_all(c);
    for (int32_t i = 0, sampled = 0; i < completion_total(c); i++) { // a given token has no logprob
        json_array_append_new(ids, json_integer(all[i]));
        json_array_append_new(logprobs, c->given && c->given[i] ? json_null() : json_number_or_name(c->logprob[sampled++]));
    }
    Buf b = {0};
    bool ok = !policy_tokenizer(p) || tokenizer_decode(policy_tokenizer(p), all, completion_total(c), true, &b, err);
    if (ok && policy_tokenizer(p)) text = json_stringn(b.data ? b.data : "", b.size);
    buf_free(&b);
    *out = json_pack("{s:o,s:o?,s:o,s:s}", "ids", ids, "text", text, "logprobs", logprobs, "finish",
                     c->finish == FINISH_STOP ? "stop" : "length");
    return ok;
}

static bool rollout_json(const Policy *p, const Rollout *rollout, json_t **out, Err *err) {
    double seconds = rollout->prefill_seconds + rollout->decode_seconds;
    json_t *all = json_array();
    bool ok = true;
    for (int32_t i = 0; ok && i < rollout->count; i++) {
        json_t *one = NULL;
        ok = completion_json(p, &rollout->completions[i], &one, err);
        json_array_append_new(all, one);
    }
    *out = json_pack("{s:o,s:f}", "completions", all, "tokens_per_second", seconds > 0 ? (double)rollout->new_tokens / seconds : 0.0);
    return ok;
}
static void print_texts(const json_t *result) {
    const json_t *one;
    const char *name = json_string_value(json_object_get(result, "adapter"));
    size_t i;
    if (name) printf("[%s]\n", name);
    json_array_foreach(json_object_get(result, "completions"), i, one) {
        const char *text = json_string_value(json_object_get(one, "text"));
        for (const char *c = text ? text : ""; *c; c++)
            if ((unsigned char)*c >= 0x20 || *c == '\n' || *c == '\t') putchar(*c); // a terminal must not obey a model
        putchar('\n');
    }
    fflush(stdout); // before what was held is given back, which takes a while
}

// One document without --adapter or with one; with several, one of each adapter.
static bool answer(const Args *args, Policy *p, const RolloutRequest *requests, int count, Err *err) {
    AdapterList adapters;
    TRY(adapters_open(args, p, &adapters, err));
    json_t *results = json_array(), *out = results;
    bool ok = true;
    for (int i = 0; ok && i < adapters_turns(&adapters); i++) {
        const char *name = adapters_turn(&adapters, p, i);
        Rollout rollout = {0};
        json_t *one = NULL;
        ok = policy_rollout(p, requests, count, NULL, &rollout, err) && rollout_json(p, &rollout, &one, err);
        rollout_free(&rollout);
        if (one && name) json_object_set_new(one, "adapter", json_string(name));
        if (one) json_array_append_new(results, one);
        if (ok && !args_flag(args, "json")) print_texts(one);
    }
    if (adapters.count > 1) out = json_pack("{s:O}", "adapters", results);
    else if (ok) out = json_incref(json_array_get(results, 0));
    if (ok && args_flag(args, "json")) ok = print_json(out, err);
    if (out != results) json_decref(out);
    json_decref(results);
    adapters_free(&adapters);
    return ok;
}

static Sampling sampling_of(const Args *args) {
    return (Sampling){.temperature = args_number(args, "temperature", 1), .top_k = (int32_t)args_int(args, "top-k", 0), .top_p = args_number(args, "top-p", 1),
                      .min_p = args_number(args, "min-p", 0), .max_tokens = (int32_t)args_int(args, "max-tokens", 128), .stop = args_list(args, "stop"),
                      .ignore_eos = args_flag(args, "ignore-eos"), .think_tokens = (int32_t)args_int(args, "think-tokens", 0)};
}

// ---- in a mode ---------------------------------------------------------------------------------------------
// The question is put as in training where a router tells how; else as chats do, or as plain text with the mode's prefix.
static void style_of(const Policy *p, const Router *router, Recipe *out) {
    static char think[] = "<think>", direct[] = "<think></think>";
    *out = (Recipe){.chat = tokenizer_has_chat(policy_tokenizer(p)), .style = {{.prefix = think}, {.prefix = direct}}};
    if (!router->max_tokens) return;
    out->chat = router->chat;
    for (Mode m = 0; m < MODES; m++) out->style[m] = router->style[m];
}
static bool answer_in(const Args *args, Policy *p, const Router *router, const Recipe *style, Mode mode, Ids *prompt, Rollout *out, Err *err) {
    char *text = xstrdup(args_text(args, "prompt", "")), kind[] = "--prompt";
    Item item = {.kind = kind, .prompt = text};
    bool ok = prompt_render(style, policy_tokenizer(p), &item, mode, prompt, err);
    free(text);
    Sampling sampling = sampling_of(args);
    if (mode == MODE_DIRECT) sampling.think_tokens = 0;
    if (router->max_tokens > 0 && !args_given(args, "max-tokens")) sampling.max_tokens = router->max_tokens;
    RolloutRequest request = {.prompt = prompt->data, .prompt_length = prompt->count, .samples = (int32_t)args_int(args, "n", 1),
                              .seed = (uint64_t)args_int(args, "seed", 0), .sampling = sampling};
    return ok && policy_rollout(p, &request, 1, NULL, out, err);
}
static bool generate_in_mode(const Args *args, Policy *p, const Router *router, Err *err) {
    const char *mode = args_text(args, "mode", "think");
    bool automatic = !strcmp(mode, "auto"), thinks = !strcmp(mode, "think");
    Recipe style;
    Ids prompt = {0};
    Rollout rollout = {0};
    json_t *out = NULL, *gain = json_null();
    if (!policy_tokenizer(p)) return fail(err, ERR_NOINPUT, args->positional[0], "has no tokenizer, which --mode needs");
    style_of(p, router, &style);
    bool ok = answer_in(args, p, router, &style, thinks ? MODE_THINK : MODE_DIRECT, &prompt, &rollout, err);
    if (ok && automatic) {
        double by;
        thinks = router_thinks_about(router, prompt.count, &rollout.completions[0], &by);
        gain = json_real(by);
        if (thinks) {
            rollout_free(&rollout);
            rollout = (Rollout){0};
            prompt.count = 0;
            ok = answer_in(args, p, router, &style, MODE_THINK, &prompt, &rollout, err);
        }
    }
    ok = ok && rollout_json(p, &rollout, &out, err);
    if (ok) {
        json_object_set_new(out, "mode", json_string(mode_names[thinks ? MODE_THINK : MODE_DIRECT]));
        json_object_set(out, "gain", gain);
        if (args_flag(args, "json")) ok = print_json(out, err);
        else print_texts(out);
    }
    rollout_free(&rollout);
    ids_free(&prompt);
    json_decref(out);
    json_decref(gain);
    return ok;
}
// The router of the model, where it has one; --mode auto can't do without.
static bool read_router(const Args *args, Router *out, Err *err) {
    Err why = {0};
    bool automatic = !strcmp(args_text(args, "mode", ""), "auto");
    if (automatic && args_int(args, "n", 1) != 1) return fail(err, ERR_USAGE, "-n", "expected one completion in mode auto");
    if (router_of_model(args->positional[0], out, &why) || (why.code == ERR_NOINPUT && !automatic)) return true;
    return fail(err, why.code, why.where, "%s", why.msg);
}

static bool generate(const Args *args, Policy *p, Err *err) {
    Ids *lists = NULL;
    int count = 1;
    bool ok;
    if (args_given(args, "ids")) {
        ok = ids_read(args_text(args, "ids", NULL), &lists, &count, err);
    } else {
        lists = xcalloc(1, sizeof *lists);
        ok = prompt_from_text(args, p, &lists[0], err);
    }
    RolloutRequest *requests = xcalloc((size_t)count + 1, sizeof *requests);
    for (int i = 0; ok && i < count; i++)
        requests[i] = (RolloutRequest){.prompt = lists[i].data, .prompt_length = lists[i].count, .samples = (int32_t)args_int(args, "n", 1),
                                       .seed = (uint64_t)args_int(args, "seed", 0), .prompt_index = (uint32_t)i,
                                       .sampling = sampling_of(args)};
    ok = ok && answer(args, p, requests, count, err);
    for (int i = 0; i < count; i++) ids_free(&lists[i]);
    free(lists), free(requests);
    return ok;
}

static bool run_model(const Args *args, Err *err) {
    if (args_given(args, "ids") == args_given(args, "prompt")) return fail(err, ERR_USAGE, "generate", "expected one of --prompt TEXT and --ids FILE");
    if (args_flag(args, "raw") && args_flag(args, "chat")) return fail(err, ERR_USAGE, "generate", "expected at most one of --raw and --chat");
    PolicyOptions o = {.precision = strcmp(args_text(args, "precision", "fp32"), "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32,
                       .threads = (int)args_int(args, "threads", 0), .device = args_text(args, "device", NULL), .keep_blocks = args_flag(args, "keep-blocks"), .in_file = true};
    Policy *p = NULL;
    Router router = {0};
    bool in_mode = args_given(args, "mode");
    if (in_mode && (args_given(args, "ids") || args_flag(args, "raw") || args_flag(args, "chat") || args_list(args, "adapter")[0]))
        return fail(err, ERR_USAGE, "--mode", "goes with --prompt alone: the mode says how the question is put");
    bool ok = (!in_mode || read_router(args, &router, err)) && policy_open(args->positional[0], &o, &p, err) &&
              (in_mode ? generate_in_mode(args, p, &router, err) : generate(args, p, err));
    if (p) policy_close(p);
    router_free(&router);
    return ok;
}
static bool run(const Args *args, Err *err) { return on_model(args, run_model, err); }

static const Option options[] = {
    {.name = "prompt", .kind = OPTION_TEXT, .value = "TEXT", .help = "what to complete or answer"},
    {.name = "ids", .kind = OPTION_TEXT, .value = "FILE", .help = "instead: a JSON list of token ids, or a list of such lists"},
    {.name = "mode", .kind = OPTION_CHOICE, .value = "think|direct|auto", .help = "how to answer; auto: directly, and by thinking where the model's router says so"},
    {.name = "n", .letter = 'n', .kind = OPTION_INT, .value = "N", .help = "completions of each prompt (1)", .low = 1, .high = 65536},
    {.name = "max-tokens", .kind = OPTION_INT, .value = "N", .help = "longest completion (128)", .low = 1, .high = 1e6},
    {.name = "temperature", .kind = OPTION_NUMBER, .value = "T", .help = "0: greedy (1)", .low = 0, .high = 100},
    {.name = "top-k", .kind = OPTION_INT, .value = "K", .help = "sample from the K likeliest tokens", .low = 0, .high = 1e7},
    {.name = "top-p", .kind = OPTION_NUMBER, .value = "P", .help = "sample from the likeliest tokens of mass P", .low = 1e-6, .high = 1},
    {.name = "min-p", .kind = OPTION_NUMBER, .value = "P", .help = "drop tokens less than P times as likely as the likeliest", .low = 0, .high = 1},
    {.name = "stop", .kind = OPTION_LIST, .value = "TEXT", .help = "end at this text"},
    {.name = "seed", .kind = OPTION_INT, .value = "S", .help = "of the draws (0)"},
    {.name = "think-tokens", .kind = OPTION_INT, .value = "N", .help = "close open thinking after N tokens with a given </think>", .low = 1, .high = 1e6},
    {.name = "ignore-eos", .kind = OPTION_FLAG, .help = "go on past end-of-sequence tokens"},
    OPTION_ADAPTERS,
    {.name = "precision", .kind = OPTION_CHOICE, .value = "fp32|bf16", .help = "of weights and activations (fp32)"},
    {.name = "raw", .kind = OPTION_FLAG, .help = "the prompt is plain text"},
    {.name = "chat", .kind = OPTION_FLAG, .help = "the prompt is a user's message (the default where the model has a chat template)"},
    {.name = "threads", .kind = OPTION_INT, .value = "N", .help = "threads (all cores)", .low = 1, .high = 256},
    {.name = "keep-blocks", .kind = OPTION_FLAG, .help = "keep a GGUF's 8, 6, 5 and 4 bit weights as they are: less memory, slower"},
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END};

const Command command_generate = {
    .name = "generate",
    .summary = "complete a prompt",
    .usage = "MODEL --prompt TEXT|--ids FILE [-n N] [--max-tokens N] [--temperature T] [--seed S] --json",
    .detail = "MODEL is a run, a Hugging Face folder, a .gguf file or a PEFT adapter's folder. The same seed gives the same tokens, whatever the\n"
              "number of completions. With several --adapter the base is loaded once, and each answers in turn.",
    .example = "reckon generate models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt 'What is 17 + 25?' --temperature 0 --precision bf16",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
