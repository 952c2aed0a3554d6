// reckon chat: a talk with a model in the terminal, or through a pipe. Each turn renders the whole talk by the model's chat
// template, as training does (what it begins with that the last turn computed isn't computed again), and samples one answer,
// shown as it comes: thinking dimmed or folded, then the answer, then what it cost. In mode auto the direct answer isn't shown
// before the model's router has decided that it stands. What the model writes can't control the terminal (rl/chat_text.c).
#include "adapters.h"
#include "chat.h"
#include "command.h"
#include "router.h"
#include "target.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_LIMIT = 1 << 20 };
enum { MODE_ROUTED = MODE_TEMPLATE + 1 };
static const char *const chat_modes[] = {[MODE_THINK] = "think", [MODE_DIRECT] = "direct", [MODE_TEMPLATE] = "template", [MODE_ROUTED] = "auto"};

typedef struct Talk {
    const Args *args;
    Policy *policy;
    PromptCache *cache; // of the talk so far
    const Tokenizer *tokenizer;
    Router router;      // fitted on chats; otherwise `no_router` tells why there is none
    Err no_router;      // code 0: there is one
    json_t *messages, *turns; // so far; `turns` is what --json prints
    int mode, turn;
    bool json, fold, color, terminal;
    char *system; // NULL: the template's own
} Talk;

// An answer that is being sampled, and what it took.
typedef struct Answer {
    Talk *talk;
    int mode;
    bool hidden; // until the router has looked at it
    const Completion *completion;
    TokenStream *stream;
    ChatText text;
    int32_t shown, think_tokens; // of the course so far
    int32_t open, close;         // ids of the tags that aren't text; -1: none
    bool ended, dimmed, failed;
    Err err;
    bool fits, interrupted; // fits: into the model's context
    bool thinks;            // hidden: what the router says, by
    double gain;            //   how much likelier a right answer becomes
    const char *finish;
    int64_t prompt_tokens, kept_tokens;
    double seconds, decode_seconds, flops;
    json_t *put; // the talk as it was put to the model
} Answer;

static volatile sig_atomic_t interrupted; // set by SIGINT: the answer stops, the talk goes on
static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void say(const Talk *t, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(const Talk *t, const char *format, ...) {
    va_list args;
    fflush(stdout);
    if (t->color) fputs("\x1b[2m", stderr);
    fputs("  ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs(t->color ? "\x1b[0m\n" : "\n", stderr);
}

// ---- showing an answer -----------------------------------------------------------------------------------------------
static void dim(Answer *a, bool on) {
    if (a->dimmed != on && a->talk->color) fputs(on ? "\x1b[2m" : "\x1b[0m", stdout);
    if (a->dimmed && !on && !a->talk->color) fputs("\n</think>", stdout);
    if (!a->dimmed && on && !a->talk->color) fputs("<think>\n", stdout);
    if (a->dimmed && !on) fputs("\n", stdout);
    a->dimmed = on;
}
static void show_part(void *context, bool thinking, const char *data, size_t size) {
    Answer *a = context;
    if (a->hidden || a->talk->json || (thinking && a->talk->fold)) return;
    dim(a, thinking);
    fwrite(data, 1, size, stdout);
    fflush(stdout);
}
static bool show_token(Answer *a, int32_t id) {
    bool ready;
    Buf piece = {0};
    a->think_tokens += a->text.thinking;
    if (id == a->open || id == a->close) {
        chat_text_tag(&a->text, id == a->open, show_part, a);
        return true;
    }
    bool ok = token_stream_push(a->stream, id, &ready, &piece, &a->err);
    if (ok && ready) chat_text_push(&a->text, piece.data, piece.size, show_part, a);
    buf_free(&piece);
    return ok;
}
static bool stops(const Answer *a) {
    const char *const *stop = args_list(a->talk->args, "stop");
    for (; stop && *stop; stop++)
        if (a->text.answer.size && memmem(a->text.answer.data, a->text.answer.size, *stop, strlen(*stop))) return true;
    return false;
}
// Called behind each token.
static void show_new(Answer *a, const Completion *c) {
    const int32_t *all = completion_all(c);
    a->completion = c;
    for (; !a->failed && a->shown < completion_total(c); a->shown++) a->failed = !show_token(a, all[a->shown]);
}
static bool turn_ended(void *context, int32_t request, int32_t sample, const Completion *c) {
    (void)request, (void)sample;
    Answer *a = context;
    show_new(a, c);
    a->ended = a->failed || interrupted || stops(a);
    return c->finish != FINISH_STOP;
}
static bool next_turn(void *context, bool wait, NextTurn *out, Err *err) {
    (void)wait, (void)err;
    const Answer *a = context;
    *out = (NextTurn){.done = a->ended};
    return true;
}
static void finished(void *context, int32_t request, int32_t sample, const Completion *c) {
    (void)request, (void)sample;
    show_new(context, c);
}
static void end_showing(Answer *a) {
    const Talk *t = a->talk;
    dim(a, false);
    if (t->fold && a->think_tokens && !t->json) say(t, "(thinking: %d tokens)", a->think_tokens);
    if (!t->json) putchar('\n');
}
static void show_hidden(Answer *a) {
    a->hidden = false;
    if (a->text.think.size) show_part(a, true, a->text.think.data, a->text.think.size);
    if (a->text.answer.size) show_part(a, false, a->text.answer.data, a->text.answer.size);
    end_showing(a);
}

// ---- a turn ------------------------------------------------------------------------------------------------------------
static json_t *buf_json(const Buf *b) { return json_stringn(b->data ? b->data : "", b->size); }

static void keep_answer(Talk *t, const Answer *a) {
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content", buf_json(&a->text.answer));
    if (a->text.think.size) json_object_set_new(message, "reasoning_content", buf_json(&a->text.think));
    json_array_remove(t->messages, json_array_size(t->messages) - 1); // the question stays as it was put
    json_array_append(t->messages, json_array_get(a->put, json_array_size(a->put) - 1));
    json_array_append_new(t->messages, message);
}
// `aside`: the direct answer that the router didn't let stand, or NULL.
static void account(Talk *t, const Answer *a, const Answer *aside, const json_t *question) {
    int32_t answered = a->shown - a->think_tokens;
    double seconds = a->seconds + (aside ? aside->seconds : 0), flops = a->flops + (aside ? aside->flops : 0);
    double price = args_number(t->args, "price-per-hour", 0) * seconds / 3600; // 0: not stated
    char money[64] = "", before[64] = "";
    if (price > 0) snprintf(money, sizeof money, ", %.3g %.16s", price, args_text(t->args, "currency", "EUR"));
    if (aside) snprintf(before, sizeof before, "direct answer put aside %d, then ", aside->shown);
    json_t *dropped = aside ? json_pack("{s:o, s:I, s:I, s:i}", "answer", buf_json(&aside->text.answer), "prompt_tokens", (json_int_t)aside->prompt_tokens,
                                        "kept_tokens", (json_int_t)aside->kept_tokens, "tokens", aside->shown) : json_null();
    bool routed = t->mode == MODE_ROUTED && !(aside ? aside : a)->interrupted;
    json_array_append_new(t->turns, json_pack("{s:O, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:i, s:i, s:f, s:f, s:o, s:s}", "user", question, "mode", chat_modes[a->mode],
                                              "gain", routed ? json_real((aside ? aside : a)->gain) : json_null(), "put_aside", dropped, "think",
                                              buf_json(&a->text.think), "answer", buf_json(&a->text.answer), "prompt_tokens", (json_int_t)a->prompt_tokens,
                                              "kept_tokens", (json_int_t)a->kept_tokens, "think_tokens", a->think_tokens, "answer_tokens", answered, "seconds",
                                              seconds, "flops", flops, "price", price > 0 ? json_real(price) : json_null(), "finish", a->finish));
    if (t->json) return;
    say(t, "%sprompt %lld (%lld of them known), thinking %d, answer %d tokens; %.1f s (%.1f tokens/s), %.3g FLOPs%s%s", before, (long long)a->prompt_tokens,
        (long long)a->kept_tokens, a->think_tokens, answered, seconds, a->decode_seconds > 0 ? (double)a->shown / a->decode_seconds : 0.0, flops, money,
        !strcmp(a->finish, "length") ? "; cut off (--max-tokens or the context's end)" : a->interrupted ? "; interrupted" : "");
}
static Sampling sampling_of(const Talk *t, int mode, int32_t room) {
    const Args *args = t->args;
    int64_t most = args_int(args, "max-tokens", t->mode == MODE_ROUTED ? t->router.max_tokens : 1024); // what the router was fitted with
    int32_t think = mode == MODE_DIRECT ? 0 : (int32_t)args_int(args, "think-tokens", 0);
    return (Sampling){.temperature = args_number(args, "temperature", 1), .top_k = (int32_t)args_int(args, "top-k", 0), .top_p = args_number(args, "top-p", 1),
                      .min_p = args_number(args, "min-p", 0), .max_tokens = most < room ? (int32_t)most : room, .ignore_eos = args_flag(args, "ignore-eos"),
                      .think_tokens = think, .turn_tokens = 1};
}
// A tag that is a special token isn't part of the decoded text.
static int32_t hidden_tag(const Tokenizer *t, const char *tag) {
    int32_t id = tokenizer_id(t, tag);
    Buf text = {0};
    Err err = {0};
    bool seen = id >= 0 && tokenizer_decode(t, &id, 1, true, &text, &err) && text.size;
    buf_free(&text);
    return seen ? -1 : id;
}
// With a router, questions are put as they were when it was fitted.
static bool put_talk(const Talk *t, const json_t *messages, int mode, json_t **put, Ids *out, bool *thinking, Err *err) {
    const PromptStyle *style = t->no_router.code || mode >= MODES ? NULL : &t->router.style[mode];
    *put = style ? chat_styled(messages, style) : json_deep_copy(messages);
    return chat_prompt(t->tokenizer, *put, mode, style ? style->prefix : NULL, out, thinking, err);
}
// A router knows questions, not talks: the prompt that it looks at is the last question's own.
static bool ask_router(const Talk *t, Answer *a, const Completion *c, Err *err) {
    json_t *alone = json_array(), *put = NULL;
    size_t count = json_array_size(t->messages);
    Ids prompt = {0};
    bool thinking;
    if (t->system) json_array_append(alone, json_array_get(t->messages, 0));
    json_array_append(alone, json_array_get(t->messages, count - 1));
    bool ok = put_talk(t, alone, MODE_DIRECT, &put, &prompt, &thinking, err);
    if (ok) a->thinks = router_thinks_about(&t->router, prompt.count, c, &a->gain);
    ids_free(&prompt);
    json_decref(alone), json_decref(put);
    return ok;
}
static bool sample(Talk *t, Answer *a, const Ids *prompt, int32_t room, bool thinking, Err *err) {
    RolloutRequest request = {.prompt = prompt->data, .prompt_length = prompt->count, .samples = 1, .seed = (uint64_t)args_int(t->args, "seed", 0),
                              .step = (uint32_t)t->turn, .sampling = sampling_of(t, a->mode, room)};
    RolloutOptions options = {.cache = t->cache, .turn_ended = turn_ended, .next_turn = next_turn, .finished = finished, .context = a};
    Rollout out;
    double start = clock_seconds(), flops = policy_flops(t->policy);
    chat_text_start(&a->text, thinking);
    interrupted = 0;
    TRY(policy_rollout(t->policy, &request, 1, &options, &out, err));
    bool ok = !a->failed || fail(err, a->err.code, a->err.where, "%s", a->err.msg);
    chat_text_end(&a->text, show_part, a);
    if (!a->hidden) end_showing(a);
    a->interrupted = interrupted;
    a->finish = interrupted ? "interrupted" : out.completions[0].finish == FINISH_STOP || a->ended ? "stop" : "length";
    a->prompt_tokens = out.prompt_tokens, a->kept_tokens = out.kept_tokens, a->decode_seconds = out.decode_seconds;
    a->seconds = clock_seconds() - start, a->flops = policy_flops(t->policy) - flops;
    ok = ok && (!a->hidden || ask_router(t, a, &out.completions[0], err));
    a->completion = NULL;
    rollout_free(&out);
    return ok;
}
static bool attempt(Talk *t, int mode, bool hidden, Answer *a, Err *err) {
    Ids prompt = {0};
    bool thinking = false;
    int32_t context = config_context(policy_config(t->policy));
    *a = (Answer){.talk = t, .mode = mode, .hidden = hidden, .open = hidden_tag(t->tokenizer, "<think>"), .close = hidden_tag(t->tokenizer, "</think>"),
                  .stream = token_stream_open(t->tokenizer)};
    bool ok = put_talk(t, t->messages, mode, &a->put, &prompt, &thinking, err);
    a->fits = ok && prompt.count < context;
    if (ok && !a->fits) say(t, "the talk is %d tokens long and the model's context is %d: shorten the message, or /reset", prompt.count, context);
    if (a->fits) ok = sample(t, a, &prompt, context - prompt.count, thinking, err);
    ids_free(&prompt);
    return ok;
}
static void answer_free(Answer *a) {
    chat_text_free(&a->text);
    token_stream_close(a->stream);
    json_decref(a->put);
}
// The direct answer first, and a thought where the router wants one.
static bool answer_routed(Talk *t, const json_t *question, Err *err) {
    Answer direct = {0}, thought = {0};
    if (t->terminal) say(t, "answering directly; shown once the router has looked at it");
    bool ok = attempt(t, MODE_DIRECT, true, &direct, err), fits = direct.fits, thinks = ok && fits && direct.thinks && !direct.interrupted;
    if (thinks) {
        ok = attempt(t, MODE_THINK, false, &thought, err);
        thinks = thought.fits;
    }
    if (ok && fits) {
        if (!thinks) show_hidden(&direct);
        keep_answer(t, thinks ? &thought : &direct);
        account(t, thinks ? &thought : &direct, thinks ? &direct : NULL, question);
    }
    answer_free(&direct), answer_free(&thought);
    return ok;
}
static bool answer_plain(Talk *t, const json_t *question, Err *err) {
    Answer a = {0};
    bool ok = attempt(t, t->mode, false, &a, err);
    if (ok && a.fits) {
        keep_answer(t, &a);
        account(t, &a, NULL, question);
    }
    answer_free(&a);
    return ok;
}
// Answers the user's line; a line that can't be answered is taken back.
static bool answer(Talk *t, const char *line, Err *err) {
    json_t *question = json_string(line);
    if (!question) {
        say(t, "that isn't UTF-8 text");
        return true;
    }
    size_t turns = json_array_size(t->turns);
    json_array_append_new(t->messages, json_pack("{s:s, s:O}", "role", "user", "content", question));
    bool ok = t->mode == MODE_ROUTED ? answer_routed(t, question, err) : answer_plain(t, question, err);
    if (json_array_size(t->turns) == turns) json_array_remove(t->messages, json_array_size(t->messages) - 1);
    else t->turn++;
    json_decref(question);
    return ok;
}

// ---- commands ------------------------------------------------------------------------------------------------------------
static void start_again(Talk *t) {
    json_array_clear(t->messages);
    if (t->system) json_array_append_new(t->messages, json_pack("{s:s, s:s}", "role", "system", "content", t->system));
}
static void set_system(Talk *t, const char *text) {
    json_t *valid = *text ? json_string(text) : NULL;
    if (*text && !valid) {
        say(t, "that isn't UTF-8 text");
        return;
    }
    json_decref(valid);
    free(t->system);
    t->system = *text ? xstrdup(text) : NULL;
    start_again(t);
    say(t, "a new talk, with %s", *text ? "this system message" : "the template's own system message");
}
static void set_mode(Talk *t, const char *name) {
    int mode = 0;
    while (mode < COUNT(chat_modes) && strcmp(name, chat_modes[mode]) != 0) mode++;
    if (mode == COUNT(chat_modes)) {
        say(t, "found mode '%.40s', expected think, direct, auto or template; it is %s", name, chat_modes[t->mode]);
    } else if (mode == MODE_ROUTED && t->no_router.code) {
        say(t, "mode auto needs a router: %s %s; it stays %s", t->no_router.where, t->no_router.msg, chat_modes[t->mode]);
    } else {
        t->mode = mode;
        say(t, "mode %s", name);
    }
}
// False: the talk is over.
static bool command(Talk *t, const char *line) {
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    char name[16] = "";
    if (n < sizeof name) memcpy(name, line, n), name[n] = 0;
    if (!strcmp(name, "/quit") || !strcmp(name, "/exit")) return false;
    if (!strcmp(name, "/mode")) set_mode(t, rest);
    else if (!strcmp(name, "/system")) set_system(t, rest);
    else if (!strcmp(name, "/reset")) start_again(t), say(t, "a new talk");
    else if (!strcmp(name, "/fold")) t->fold = !t->fold, say(t, "thinking is %s", t->fold ? "folded" : "shown");
    else
        say(t, "%s/mode think|direct|auto   how to answer (%s); auto: by the model's router; template: as its template does\n"
               "  /system TEXT              begin again with this system message\n"
               "  /reset                    begin again\n  /fold                     fold thinking, or show it\n  /quit                     leave; "
               "a line that begins with // is sent with one /",
            !strcmp(name, "/help") ? "" : "unknown command; there are\n  ", chat_modes[t->mode]);
    return true;
}

// The next line without its end; false at the end of the input.
static bool read_line(Talk *t, Buf *line, bool *too_long) {
    line->size = 0;
    *too_long = false;
    if (t->terminal) fputs(t->color ? "\x1b[1m> \x1b[0m" : "> ", stdout);
    fflush(stdout);
    bool any = false;
    for (int c; (c = getc(stdin)) != EOF;) {
        any = true;
        if (c == '\n') break;
        char byte = (char)c;
        if (line->size >= LINE_LIMIT) *too_long = true;
        else buf_append(line, &byte, 1);
    }
    while (line->size && (line->data[line->size - 1] == '\r' || line->data[line->size - 1] == ' ')) line->data[--line->size] = 0;
    return any;
}
static bool talk(Talk *t, Err *err) {
    Buf line = {0};
    bool ok = true, too_long;
    while (ok && read_line(t, &line, &too_long)) {
        const char *text = line.data;
        if (!line.size) continue;
        if (too_long || memchr(text, 0, line.size)) say(t, "expected a line of text of at most %d bytes", LINE_LIMIT);
        else if (text[0] != '/') ok = answer(t, text, err);
        else if (text[1] == '/') ok = answer(t, text + 1, err);
        else if (!command(t, text)) break;
    }
    buf_free(&line);
    if (ok && t->terminal) putchar('\n');
    return ok;
}

// Without --mode a router is used where there is one; one that can't be used is told of, but no reason not to talk.
static bool choose_mode(const Args *args, Talk *t, Err *err) {
    const char *model = args->positional[0], *mode = args_text(args, "mode", NULL);
    if (args_list(args, "adapter")[0]) fail(&t->no_router, ERR_USAGE, "--adapter", "a router speaks of a model alone, without another adapter on top");
    else if (router_of_model(model, &t->router, &t->no_router) && !t->router.chat)
        fail(&t->no_router, ERR_DATA, ROUTER_FILE, "was fitted on plain prompts, and a talk is put through the chat template; a recipe with chat = true, and 'reckon compare --arm routed', fit one for talks");
    bool broken = t->no_router.code && t->no_router.code != ERR_NOINPUT && t->no_router.code != ERR_USAGE;
    if (!mode) {
        if (broken) say(t, "the model's router isn't used: %s %s", t->no_router.where, t->no_router.msg);
        mode = t->no_router.code ? "template" : "auto";
    }
    while (strcmp(mode, chat_modes[t->mode]) != 0) t->mode++;
    return t->mode != MODE_ROUTED || !t->no_router.code || fail(err, t->no_router.code, t->no_router.where, "%s", t->no_router.msg);
}
static bool open_talk(const Args *args, Talk *t, Err *err) {
    const char *model = args->positional[0], *system = args_text(args, "system", NULL);
    t->tokenizer = policy_tokenizer(t->policy);
    if (!t->tokenizer) return fail(err, ERR_NOINPUT, model, "has no tokenizer, expected a model to talk to");
    if (!tokenizer_has_chat(t->tokenizer)) return fail(err, ERR_DATA, model, "has no chat template; 'reckon generate' completes plain text");
    t->json = args_flag(args, "json");
    t->fold = args_flag(args, "fold");
    t->terminal = isatty(0) && isatty(1) && !t->json;
    t->color = t->terminal && isatty(2) && !getenv("NO_COLOR");
    t->messages = json_array();
    t->turns = json_array();
    t->system = system ? xstrdup(system) : NULL;
    json_t *valid = json_string(system ? system : "");
    if (!valid) return fail(err, ERR_USAGE, "--system", "is not UTF-8 text");
    json_decref(valid);
    TRY(choose_mode(args, t, err));
    start_again(t);
    struct sigaction action = {.sa_handler = on_interrupt}, old;
    if (t->terminal && !sigaction(SIGINT, NULL, &old) && old.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
    if (t->terminal) say(t, "%s, context %d tokens; /help lists commands", model, config_context(policy_config(t->policy)));
    return true;
}
static bool converse(const Args *args, Policy *p, Err *err) {
    Talk t = {.args = args, .policy = p};
    AdapterList adapters;
    TRY(adapters_open(args, p, &adapters, err));
    bool ok = adapters.count <= 1 || fail(err, ERR_USAGE, "--adapter", "found %d of them, expected one at most", adapters.count);
    if (ok) adapters_turn(&adapters, p, 0);
    t.cache = prompt_cache_open(p);
    ok = ok && open_talk(args, &t, err) && talk(&t, err);
    if (ok && t.json) {
        json_t *out = json_pack("{s:O}", "turns", t.turns);
        ok = print_json(out, err);
        json_decref(out);
    }
    json_decref(t.messages), json_decref(t.turns);
    free(t.system);
    router_free(&t.router);
    prompt_cache_close(t.cache);
    adapters_free(&adapters);
    return ok;
}
static bool run_model(const Args *args, Err *err) {
    PolicyOptions o = {.precision = strcmp(args_text(args, "precision", "fp32"), "bf16") == 0 ? PRECISION_BF16 : PRECISION_FP32,
                       .threads = (int)args_int(args, "threads", 0), .device = args_text(args, "device", NULL), .keep_blocks = args_flag(args, "keep-blocks")};
    Policy *p = NULL;
    bool ok = policy_open(args->positional[0], &o, &p, err) && converse(args, p, err);
    policy_close(p);
    return ok;
}
static bool run(const Args *args, Err *err) { return on_model(args, run_model, err); }

static const Option options[] = {
    {.name = "mode", .kind = OPTION_CHOICE, .value = "think|direct|auto|template", .help = "how to answer; auto: directly, and by thinking where the model's router says so (auto where it has one, else as its template does)"},
    {.name = "system", .kind = OPTION_TEXT, .value = "TEXT", .help = "system message (the template's own)"},
    {.name = "fold", .kind = OPTION_FLAG, .help = "show only how long the thinking was"},
    {.name = "max-tokens", .kind = OPTION_INT, .value = "N", .help = "longest answer, thinking included (1024; in mode auto the router's)", .low = 1, .high = 1e6},
    {.name = "temperature", .kind = OPTION_NUMBER, .value = "T", .help = "0: greedy (1)", .low = 0, .high = 100},
    {.name = "top-k", .kind = OPTION_INT, .value = "K", .help = "sample from the K likeliest tokens", .low = 0, .high = 1e7},
    {.name = "top-p", .kind = OPTION_NUMBER, .value = "P", .help = "sample from the likeliest tokens of mass P", .low = 1e-6, .high = 1},
    {.name = "min-p", .kind = OPTION_NUMBER, .value = "P", .help = "drop tokens less than P times as likely as the likeliest", .low = 0, .high = 1},
    {.name = "stop", .kind = OPTION_LIST, .value = "TEXT", .help = "end an answer that has this text"},
    {.name = "seed", .kind = OPTION_INT, .value = "S", .help = "of the draws (0)"},
    {.name = "think-tokens", .kind = OPTION_INT, .value = "N", .help = "close open thinking after N tokens with a given </think>", .low = 1, .high = 1e6},
    {.name = "ignore-eos", .kind = OPTION_FLAG, .help = "go on past end-of-sequence tokens"},
    {.name = "price-per-hour", .kind = OPTION_NUMBER, .value = "P", .help = "of this machine: each answer's share is shown", .low = 0, .high = 1e9},
    {.name = "currency", .kind = OPTION_TEXT, .value = "NAME", .help = "of that price (EUR)"},
    OPTION_ADAPTERS,
    {.name = "precision", .kind = OPTION_CHOICE, .value = "fp32|bf16", .help = "of weights and activations (fp32)"},
    {.name = "threads", .kind = OPTION_INT, .value = "N", .help = "threads (all cores)", .low = 1, .high = 256},
    {.name = "keep-blocks", .kind = OPTION_FLAG, .help = "keep a GGUF's 8, 6, 5 and 4 bit weights as they are: less memory, slower"},
    OPTION_DEVICE,
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout at the end, and nothing before"},
    OPTION_END};
const Command command_chat = {
    .name = "chat",
    .summary = "talk to a model",
    .usage = "MODEL [--mode think|direct|auto|template] [--system TEXT] [options]",
    .detail = "MODEL is a run, a Hugging Face folder, a .gguf file or a PEFT adapter's folder, with a chat template. A line is a message; /help lists\n"
              "commands. Behind each answer stands what it cost. Ctrl-C stops an answer. Lines may come through a pipe.\n"
              "In mode auto the direct answer is shown once the model's router (router.json beside the weights, which 'reckon compare\n"
              "--arm routed' fits) lets it stand; else it is put aside, thinking is shown as it comes, and both are counted.",
    .example = "reckon chat models/SmolLM2-135M-Instruct.Q4_1.gguf --temperature 0 --precision bf16",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
