// reckon tokenize: JSON lines in, JSON lines out, one for one and in order. A line that can't be done gives an error in
// its place and the next line goes on; the exit code tells at the end that there was one.
#include "command.h"
#include "tokenizer.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { LINE_LIMIT = 64 << 20 };

typedef enum LineState { LINE_READ, LINE_TOO_LONG, LINE_NONE } LineState;

// The next line of stdin without its end. Of a line beyond the limit the rest is read and dropped.
static LineState read_line(Buf *line) {
    line->size = 0;
    bool any = false, too_long = false;
    for (int c; (c = getc_unlocked(stdin)) != EOF;) {
        any = true;
        if (c == '\n') break;
        char byte = (char)c;
        if (line->size >= LINE_LIMIT)
            too_long = true;
        else
            buf_append(line, &byte, 1);
    }
    if (line->size && line->data[line->size - 1] == '\r') line->data[--line->size] = 0;
    return too_long ? LINE_TOO_LONG : any ? LINE_READ : LINE_NONE;
}

static bool is_blank(const Buf *line) {
    for (size_t i = 0; i < line->size; i++)
        if (line->data[i] != ' ' && line->data[i] != '\t') return false;
    return true;
}

// ---- the four requests -------------------------------------------------------------------------------------------
static json_t *ids_to_json(const Ids *ids) {
    json_t *list = json_array();
    for (int32_t i = 0; i < ids->count; i++) json_array_append_new(list, json_integer(ids->data[i]));
    return list;
}
static json_t *text_to_json(const Buf *text) { return json_stringn(text->data ? text->data : "", text->size); }

static bool read_ids(const json_t *list, const char *key, Ids *out, Err *err) {
    if (!json_is_array(list)) return fail(err, ERR_DATA, "", "'%s' is not a list, expected token ids", key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return fail(err, ERR_DATA, "", "%s[%zu] is not a token id", key, i);
        ids_push(out, (int32_t)json_integer_value(v));
    }
    return true;
}
static bool read_flag(const json_t *request, const char *key, bool *out, Err *err) {
    const json_t *v = json_object_get(request, key);
    *out = json_is_true(v);
    return !v || json_is_boolean(v) || fail(err, ERR_DATA, "", "'%s' is neither true nor false", key);
}

static bool do_text(const Tokenizer *t, const json_t *request, json_t *answer, Err *err) {
    const json_t *text = json_object_get(request, "text");
    bool special;
    Ids ids = {0};
    TRY(read_flag(request, "special", &special, err));
    if (!json_is_string(text)) return fail(err, ERR_DATA, "", "'text' is not a text");
    bool ok = tokenizer_encode(t, json_string_value(text), json_string_length(text), special, &ids, err);
    if (ok) json_object_set_new(answer, "ids", ids_to_json(&ids));
    ids_free(&ids);
    return ok;
}

static bool do_ids(const Tokenizer *t, const json_t *request, json_t *answer, Err *err) {
    Ids ids = {0};
    Buf with = {0}, without = {0};
    bool ok = read_ids(json_object_get(request, "ids"), "ids", &ids, err) &&
              tokenizer_decode(t, ids.data, ids.count, false, &with, err) &&
              tokenizer_decode(t, ids.data, ids.count, true, &without, err);
    if (ok) {
        json_object_set_new(answer, "text", text_to_json(&with));
        json_object_set_new(answer, "text_no_special", text_to_json(&without));
    }
    ids_free(&ids);
    buf_free(&with), buf_free(&without);
    return ok;
}

static bool do_messages(const Tokenizer *t, const json_t *request, json_t *answer, Err *err) {
    Ids ids = {0};
    Buf prompt = {0};
    bool generation;
    TRY(read_flag(request, "add_generation_prompt", &generation, err));
    bool ok = tokenizer_chat(t, json_object_get(request, "messages"), generation, &prompt, err) &&
              tokenizer_encode(t, prompt.data ? prompt.data : "", prompt.size, false, &ids, err);
    if (ok) {
        json_object_set_new(answer, "prompt", text_to_json(&prompt));
        json_object_set_new(answer, "ids", ids_to_json(&ids));
    }
    ids_free(&ids);
    buf_free(&prompt);
    return ok;
}

static bool do_stream(const Tokenizer *t, const json_t *request, json_t *answer, Err *err) {
    Ids ids = {0};
    Buf piece = {0};
    json_t *pieces = json_array();
    TokenStream *stream = token_stream_open(t);
    bool ok = read_ids(json_object_get(request, "stream"), "stream", &ids, err);
    for (int32_t i = 0; ok && i < ids.count; i++) {
        bool ready;
        ok = token_stream_push(stream, ids.data[i], &ready, &piece, err);
        if (ok) json_array_append_new(pieces, ready ? text_to_json(&piece) : json_null());
    }
    if (ok) json_object_set(answer, "pieces", pieces);
    json_decref(pieces);
    token_stream_close(stream);
    ids_free(&ids);
    buf_free(&piece);
    return ok;
}

static const struct Request {
    const char *key;    // what the line holds
    const char *option; // what it may hold besides
    bool (*run)(const Tokenizer *t, const json_t *request, json_t *answer, Err *err);
} requests[] = {
    {"text", "special", do_text},
    {"ids", "", do_ids},
    {"messages", "add_generation_prompt", do_messages},
    {"stream", "", do_stream},
};

static bool answer_request(const Tokenizer *t, const json_t *request, json_t *answer, Err *err) {
    const struct Request *found = NULL;
    for (int i = 0; i < COUNT(requests); i++) {
        if (!json_object_get(request, requests[i].key)) continue;
        if (found) return fail(err, ERR_DATA, "", "both '%s' and '%s', expected one of them", found->key, requests[i].key);
        found = &requests[i];
    }
    if (!found) return fail(err, ERR_DATA, "", "expected an object with 'text', 'ids', 'messages' or 'stream'");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)request, key, value) {
        if (strcmp(key, found->key) != 0 && strcmp(key, found->option) != 0)
            return fail(err, ERR_DATA, "", "unknown key '%.60s' beside '%s'", key, found->key);
    }
    return found->run(t, request, answer, err);
}

static bool answer_line(const Tokenizer *t, const Buf *line, long number, json_t *answer, Err *err) {
    json_t *request;
    TRY(json_parse(line->data, line->size, "stdin", number, &request, err));
    bool ok = answer_request(t, request, answer, err);
    json_decref(request);
    return ok;
}

// Messages quote input cut to a width, so a character may be cut too.
static json_t *message_of(const Err *problem) {
    char text[sizeof problem->where + sizeof problem->msg + 2];
    snprintf(text, sizeof text, "%s%s%s", problem->where, problem->where[0] ? ": " : "", problem->msg);
    json_t *message = json_string(text);
    if (message) return message;
    for (char *p = text; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    return json_string(text);
}

// ---- the command ---------------------------------------------------------------------------------------------------
// ASCII only: many readers take U+2028 or U+0085 for the end of a line.
static bool print_line(const json_t *answer, Err *err) {
    bool ok = json_dumpf(answer, stdout, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII) == 0;
    ok = ok && putchar('\n') != EOF && fflush(stdout) == 0;
    return ok || fail(err, ERR_IO, "stdout", "can't write: %s", strerror(errno));
}

static bool run_lines(const Tokenizer *t, Err *err) {
    Buf line = {0};
    long number = 0, failed = 0;
    bool ok = true;
    for (LineState state; ok && (state = read_line(&line)) != LINE_NONE;) {
        Err problem = {0};
        number++;
        if (number == 1 && line.size >= 3 && memcmp(line.data, "\xEF\xBB\xBF", 3) == 0)
            memmove(line.data, line.data + 3, (line.size -= 3) + 1);
        if (state == LINE_READ && is_blank(&line)) continue;
        json_t *answer = json_object();
        if (state == LINE_TOO_LONG)
            fail(&problem, ERR_DATA, "", "a line of more than %d bytes", LINE_LIMIT);
        else
            (void)!answer_line(t, &line, number, answer, &problem);
        if (problem.code) {
            failed++;
            json_object_clear(answer);
            json_object_set_new(answer, "error", message_of(&problem));
        }
        ok = print_line(answer, err);
        json_decref(answer);
    }
    buf_free(&line);
    if (ok && ferror(stdin)) return fail(err, ERR_IO, "stdin", "can't read: %s", strerror(errno));
    if (ok && failed) return fail(err, ERR_DATA, "stdin", "%ld lines could not be done; see their errors", failed);
    return ok;
}

static bool run(const Args *args, Err *err) {
    Tokenizer *t;
    TRY(tokenizer_open(args->positional[0], &t, err));
    bool ok = run_lines(t, err);
    tokenizer_close(t);
    return ok;
}

static const Option options[] = {OPTION_END};
const Command command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back, chat messages to a prompt",
    .usage = "MODEL < LINES",
    .detail = "MODEL is a folder with tokenizer.json or a .gguf file. Each line of stdin is a JSON object and gives one line:\n"
              "  {\"text\": ..}                               {\"ids\": [..]}; with \"special\": true also the automatic tokens\n"
              "  {\"ids\": [..]}                              {\"text\": .., \"text_no_special\": ..}\n"
              "  {\"messages\": [..], \"add_generation_prompt\": true}  {\"prompt\": .., \"ids\": [..]}\n"
              "  {\"stream\": [..ids]}                        {\"pieces\": [..]}, null where no whole character is ready\n"
              "A line that can't be done gives {\"error\": ..}, and the exit code is 65 at the end.",
    .example = "echo '{\"text\": \"12 + 35\"}' | reckon tokenize models/SmolLM2-135M-Instruct.Q4_1.gguf",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
