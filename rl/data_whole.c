// Rows that are learned as they stand, without a recipe's style around them: conversations as the tokenizer's chat template writes
// them, of which the assistant's turns are learned, and plain text, all of which is. Owns which ids of a row are learned. It
// refuses a template that writes the beginning of a conversation otherwise once more follows: then no prompt that the model will
// ever be asked with stands before the turn that it would learn here.
#include "chat.h"
#include "data.h"
#include <ctype.h>
#include <string.h>

typedef struct Turns {
    const Conversation *talk;
    const Tokenizer *tokenizer;
    Buf whole;  // the text of all messages
    Ids ids;    // of it
    Ids prefix; // of its beginning: token_at
} Turns;

static const json_t *message_at(const Turns *t, size_t i) { return json_array_get(t->talk->messages, i); }
static const char *content_of(const json_t *message) {
    const char *text = json_string_value(json_object_get(message, "content"));
    return text ? text : "";
}
static bool is_assistant(const json_t *message) { return strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0; }

// A call of tools may come without content.
static bool check_messages(const json_t *messages, Err *err) {
    const json_t *message;
    size_t i;
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return fail(err, ERR_DATA, "messages", "found %s, expected a list of {\"role\",\"content\"}", json_is_array(messages) ? "an empty list" : "no list");
    json_array_foreach(messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        const json_t *content = json_object_get(message, "content");
        bool calls = (!content || json_is_null(content)) && json_array_size(json_object_get(message, "tool_calls")) > 0;
        if (!role || (!calls && (!json_is_string(content) || strlen(json_string_value(content)) != json_string_length(content))))
            return fail(err, ERR_DATA, "messages", "number %zu lacks a text as 'role' or 'content'", i + 1);
    }
    if (is_assistant(json_array_get(messages, 0)))
        return fail(err, ERR_DATA, "messages", "found a first message of the assistant, expected another one's before it");
    const char *last = json_string_value(json_object_get(json_array_get(messages, i - 1), "role"));
    return strcmp(last, "assistant") == 0 ||
           fail(err, ERR_DATA, "messages", "found a last message of the role '%.40s', expected the assistant's, or a 'completion' beside 'messages'", last);
}

// The text of the first `count` messages; `asks`: and what the assistant's next one begins with.
static bool render(const Turns *t, size_t count, bool asks, Buf *out, Err *err) {
    json_t *first = json_array(), *variables = t->talk->mode == MODE_TEMPLATE ? NULL : thinking_variables((Mode)t->talk->mode);
    for (size_t i = 0; i < count; i++) json_array_append(first, json_array_get(t->talk->messages, i));
    ChatRequest request = {.messages = first, .tools = t->talk->tools, .variables = variables, .add_generation_prompt = asks, .now = DAY_OF_PROMPTS};
    bool ok = tokenizer_chat_render(t->tokenizer, &request, out, err);
    json_decref(first), json_decref(variables);
    return ok;
}

// Where that text ends within the whole one.
static bool border(const Turns *t, size_t count, bool asks, size_t *out, Err *err) {
    Buf text = {0};
    bool ok = render(t, count, asks, &text, err);
    if (ok && (text.size > t->whole.size || (text.size && memcmp(text.data, t->whole.data, text.size) != 0)))
        ok = fail(err, ERR_DATA, "messages", "the chat template writes the first %zu of %zu messages otherwise than when all are there, expected one that begins the "
                  "same%s", count, json_array_size(t->talk->messages), t->talk->last_turn ? "" : "; learn_turns = \"last\" needs that of the last turn only");
    *out = text.size;
    buf_free(&text);
    return ok;
}

// How many ids of the whole lie before byte `at`. One that lies on both sides counts with `over` alone.
static bool token_at(Turns *t, size_t at, bool over, int32_t *out, Err *err) {
    int32_t n = 0;
    t->prefix.count = 0;
    TRY(tokenizer_encode(t->tokenizer, t->whole.data, at, false, &t->prefix, err));
    while (n < t->prefix.count && n < t->ids.count && t->prefix.data[n] == t->ids.data[n]) n++;
    *out = n + (over && n < t->prefix.count && n < t->ids.count);
    return true;
}

// White space after the mark that ends a turn belongs to what follows: sampling stops at the mark. A turn without a mark ends
// with its white space.
static size_t turn_end(const Turns *t, size_t from, size_t to, const char *content) {
    size_t end = to, size = strlen(content);
    const char *text = t->whole.data;
    while (end > from && isspace((unsigned char)text[end - 1])) end--;
    while (size > 0 && isspace((unsigned char)content[size - 1])) size--;
    bool marked = size ? end - from < size || memcmp(text + end - size, content, size) != 0 : end > from;
    return marked ? end : to;
}

// Sets [first, last) of message i, in ids.
static bool find_turn(Turns *t, size_t i, int32_t *first, int32_t *last, Err *err) {
    size_t from, to;
    TRY(border(t, i, true, &from, err) && border(t, i + 1, false, &to, err));
    if (to > from) to = turn_end(t, from, to, content_of(message_at(t, i)));
    TRY(to > from || fail(err, ERR_DATA, "messages", "the chat template writes nothing for number %zu, expected a turn to learn", i + 1));
    return token_at(t, from, false, first, err) && token_at(t, to, true, last, err);
}

// The ids up to the first one that is learned, and those from there to the last one; given ones among these as -1 - id. The first
// id of all follows nothing, so that it can't be learned.
static bool split(const Ids *ids, const bool *learned, Ids *prompt, Ids *rest, Err *err) {
    int32_t first = 1, end = ids->count;
    while (first < end && !learned[first]) first++;
    while (end > first && !learned[end - 1]) end--;
    if (first >= end) return fail(err, ERR_DATA, "", "found %d tokens and none to learn, expected one at least after the first", ids->count);
    ids_append(prompt, ids->data, first);
    for (int32_t i = first; i < end; i++) ids_push(rest, learned[i] ? ids->data[i] : -1 - ids->data[i]);
    return true;
}

static bool learn_turns(Turns *t, Ids *prompt, Ids *rest, Err *err) {
    size_t count = json_array_size(t->talk->messages);
    TRY(render(t, count, false, &t->whole, err) && tokenizer_encode(t->tokenizer, t->whole.data ? t->whole.data : "", t->whole.size, false, &t->ids, err));
    bool *learned = xcalloc((size_t)t->ids.count + 1, sizeof *learned), ok = true;
    for (size_t i = t->talk->last_turn ? count - 1 : 0; ok && i < count; i++) {
        int32_t first = 0, last = 0;
        if (!is_assistant(message_at(t, i))) continue;
        ok = find_turn(t, i, &first, &last, err);
        for (int32_t k = first; ok && k < last; k++) learned[k] = true;
    }
    ok = ok && split(&t->ids, learned, prompt, rest, err);
    free(learned);
    return ok;
}

bool conversation_encode(const Tokenizer *tokenizer, const Conversation *talk, Ids *prompt, Ids *rest, Err *err) {
    Turns t = {.talk = talk, .tokenizer = tokenizer};
    TRY(check_messages(talk->messages, err));
    bool ok = learn_turns(&t, prompt, rest, err);
    buf_free(&t.whole), ids_free(&t.ids), ids_free(&t.prefix);
    return ok;
}

bool text_encode(const Tokenizer *tokenizer, const char *text, Ids *prompt, Ids *rest, Err *err) {
    Ids ids = {0};
    int32_t end = tokenizer_eos(tokenizer);
    TRY(*text || fail(err, ERR_DATA, "text", "found an empty text, expected one with content"));
    TRY(end >= 0 || fail(err, ERR_DATA, "tokenizer", "has no end-of-sequence token, expected one to end texts with"));
    bool ok = tokenizer_encode(tokenizer, text, strlen(text), true, &ids, err);
    if (ok && (ids.count == 0 || ids.data[ids.count - 1] != end)) ids_push(&ids, end);
    bool *learned = xmalloc((size_t)ids.count + 1);
    memset(learned, true, (size_t)ids.count + 1);
    ok = ok && split(&ids, learned, prompt, rest, err);
    free(learned), ids_free(&ids);
    return ok;
}
