// From an item to the ids that a completion continues, and to the ids of a completion worth imitating. Both take the
// mode's style from the recipe; the text of a chat comes from the tokenizer's own template. A demonstration is encoded
// apart from its prompt, because that is where sampling starts too: the border between them is always a token's border.
// So is what an environment says between two turns: a model's own ids are never encoded again.
#include "chat.h"
#include <string.h>

json_t *chat_styled(const json_t *talk, const PromptStyle *style) {
    json_t *messages = json_deep_copy(talk);
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (style->instruction)
        json_object_set_new(last, "content", json_sprintf("%s\n\n%s", json_string_value(json_object_get(last, "content")),
                                                          style->instruction));
    const char *role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    if (style->system && strcmp(role, "system") != 0)
        json_array_insert_new(messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", style->system));
    return messages;
}

static json_t *styled_messages(const Item *item, const PromptStyle *style) {
    json_t *alone = item->messages ? NULL : json_pack("[{s:s, s:s}]", "role", "user", "content", item->prompt);
    json_t *out = chat_styled(alone ? alone : item->messages, style);
    json_decref(alone);
    return out;
}

// What a template's own switch for thinking is set to; templates without one don't look at it.
json_t *thinking_variables(Mode mode) {
    return json_pack("{s:b, s:b}", "enable_thinking", mode == MODE_THINK, "thinking", mode == MODE_THINK);
}
static bool chat_text(const Tokenizer *t, const json_t *messages, int mode, int64_t now, Buf *text, Err *err) {
    json_t *variables = mode == MODE_TEMPLATE ? NULL : thinking_variables((Mode)mode);
    ChatRequest request = {.messages = messages, .variables = variables, .add_generation_prompt = true, .now = now};
    bool ok = tokenizer_chat_render(t, &request, text, err);
    json_decref(variables);
    return ok;
}
// Templates that know about thinking may have opened or closed it already: then the usual prefixes would do so twice.
static bool ends_with(const Buf *text, const char *tag) { // but for white space
    size_t end = text->size, size = strlen(tag);
    while (end > 0 && strchr(" \n\r\t", text->data[end - 1]) && text->data[end - 1]) end--;
    return end >= size && memcmp(text->data + end - size, tag, size) == 0;
}
static void add_prefix(Buf *text, const char *prefix) {
    bool opened = strcmp(prefix, "<think>") == 0 && ends_with(text, "<think>");
    bool closed = strcmp(prefix, "<think></think>") == 0 && ends_with(text, "</think>");
    if (!opened && !closed) buf_puts(text, prefix);
}
bool chat_prompt(const Tokenizer *t, const json_t *messages, int mode, const char *prefix, Ids *out, bool *thinking, Err *err) {
    Buf text = {0};
    if (!prefix) prefix = mode == MODE_TEMPLATE ? "" : mode == MODE_THINK ? "<think>" : "<think></think>";
    bool ok = chat_text(t, messages, mode, -1, &text, err);
    if (ok) add_prefix(&text, prefix);
    *thinking = ok && ends_with(&text, "<think>");
    ok = ok && tokenizer_encode(t, text.data ? text.data : "", text.size, false, out, err);
    buf_free(&text);
    return ok;
}

static bool prompt_text(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Buf *text, Err *err) {
    const PromptStyle *style = &r->style[mode];
    if (r->chat) {
        json_t *messages = styled_messages(item, style);
        bool ok = chat_text(t, messages, mode, DAY_OF_PROMPTS, text, err);
        json_decref(messages);
        TRY(ok);
        add_prefix(text, style->prefix);
        return true;
    }
    if (style->system) buf_printf(text, "%s\n\n", style->system);
    buf_puts(text, item->prompt);
    if (style->instruction) buf_printf(text, "\n\n%s", style->instruction);
    buf_puts(text, style->prefix);
    return true;
}

// What is left where another program has the template: an endpoint writes "<think>" itself, or doesn't.
bool prompt_words(const Recipe *r, const Item *item, Mode mode, json_t **messages, Buf *text, Err *err) {
    *messages = r->chat ? styled_messages(item, &r->style[mode]) : NULL;
    return r->chat || prompt_text(r, NULL, item, mode, text, err);
}

// An encoder's error knows the text's place, but not which text: a part of it is shown.
static bool name_text(const Item *item, const Buf *text, Err *err) {
    char what[sizeof err->msg];
    if (!err) return false;
    snprintf(what, sizeof what, "%s", err->msg);
    return fail(err, err->code, item->kind, "%.300s, in '%.200s'", what, text->data ? text->data : "");
}

bool prompt_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) {
    Buf text = {0};
    int32_t before = out->count;
    // A chat's template writes its own begin token; plain text gets the tokenizer's automatic one, if it has one.
    bool ok = prompt_text(r, t, item, mode, &text, err) &&
              (tokenizer_encode(t, text.data, text.size, !r->chat, out, err) || name_text(item, &text, err));
    buf_free(&text);
    return ok && (out->count > before || fail(err, ERR_DATA, item->kind, "a prompt without tokens, expected one at least"));
}

// A chat goes on where a model's message ends. What a template writes after such a message is found by rendering one whose
// content is known; the id that ended the model's turn is its own and isn't given again.
static bool chat_words(const Tokenizer *t, const json_t *words, Mode mode, int32_t end, Buf *text, Err *err) {
    static const char mark[] = "reckon-marks-this-turn";
    json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", "?", "role", "assistant", "content", mark);
    Buf whole = {0}, closing = {0};
    json_array_extend(messages, (json_t *)(uintptr_t)words);
    bool ok = chat_text(t, messages, mode, DAY_OF_PROMPTS, &whole, err) && (end < 0 || tokenizer_decode(t, &end, 1, false, &closing, err));
    json_decref(messages);
    const char *at = ok ? memmem(whole.data, whole.size, mark, sizeof mark - 1) : NULL;
    if (ok && !at) ok = fail(err, ERR_DATA, "chat template", "doesn't show a model's message as it is, so a chat can't go on after one");
    if (ok) {
        at += sizeof mark - 1;
        size_t left = (size_t)(whole.data + whole.size - at);
        bool closed = closing.size && left >= closing.size && memcmp(at, closing.data, closing.size) == 0;
        buf_append(text, at + (closed ? closing.size : 0), left - (closed ? closing.size : 0));
    }
    buf_free(&whole), buf_free(&closing);
    return ok;
}

bool words_render(const Recipe *r, const Tokenizer *t, const json_t *words, Mode mode, int32_t end, Ids *out, Err *err) {
    Buf text = {0};
    const json_t *message;
    size_t i;
    bool ok = true;
    if (json_is_string(words)) {
        buf_append(&text, json_string_value(words), json_string_length(words));
    } else if (r->chat) {
        ok = chat_words(t, words, mode, end, &text, err);
        if (ok) add_prefix(&text, r->style[mode].prefix);
    } else {
        json_array_foreach(words, i, message) buf_printf(&text, "\n%s", json_string_value(json_object_get(message, "content")));
        buf_printf(&text, "\n%s", r->style[mode].prefix);
    }
    ok = ok && tokenizer_encode(t, text.data ? text.data : "", text.size, false, out, err);
    buf_free(&text);
    return ok;
}

bool completion_encode(const Recipe *r, const Tokenizer *t, const char *text, size_t size, bool ends, Ids *out, Err *err) {
    int32_t end = r->chat ? tokenizer_id(t, "<|im_end|>") : -1;
    if (end < 0) end = tokenizer_eos(t);
    if (end < 0) return fail(err, ERR_DATA, "tokenizer", "has no end-of-sequence token, expected one to end completions with");
    TRY(tokenizer_encode(t, text, size, false, out, err));
    if (ends) ids_push(out, end);
    return true;
}

bool demonstration_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) {
    if (!item->truth) return fail(err, ERR_DATA, item->kind, "an item without an answer can't be demonstrated");
    if (mode == MODE_THINK && !item->demonstration)
        return fail(err, ERR_DATA, item->kind,
                    "an item without a demonstration can't teach think mode; expected a column 'demonstration', or "
                    "modes={direct=1} in the sft stage");
    Buf text = {0};
    if (mode == MODE_THINK) buf_printf(&text, "%s</think>", item->demonstration);
    buf_puts(&text, item->truth);
    bool ok = completion_encode(r, t, text.data, text.size, true, out, err) || name_text(item, &text, err);
    buf_free(&text);
    return ok;
}
