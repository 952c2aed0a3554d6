// What surrounds a chat template: the variables it is given, and the two changes that transformers makes to the messages.
// Keys whose value is null are left out, and a message's reasoning is known under all of its names. To continue the last
// message, a mark is put behind its content and the text is cut at the mark. Where that can't be, the message is
// transformers', so that programs that know it find it.
#include "template_parts.h"
#include <string.h>

static const char mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";

static json_t *without_nulls(const json_t *message) {
    json_t *out = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)message, key, value) if (!json_is_null(value)) json_object_set(out, key, value);
    return out;
}
// reasoning_content, thinking and reasoning are one thing; templates read the first, or the second.
static json_t *with_reasoning(json_t *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (int i = 0; i < COUNT(names) && !reasoning; i++) reasoning = json_object_get(message, names[i]);
    if (!reasoning) return message;
    json_t *out = json_object();
    json_object_set(out, "thinking", reasoning);
    json_object_update(out, message);
    json_object_set(out, "reasoning_content", reasoning);
    json_decref(message);
    return out;
}
static bool copy_messages(const Template *t, const json_t *messages, json_t *out, Err *err) {
    if (!json_is_array(messages)) return fail(err, ERR_DATA, t->where, "messages is not a list");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) return fail(err, ERR_DATA, t->where, "messages[%zu] is not an object", i);
        json_array_append_new(out, with_reasoning(without_nulls(message)));
    }
    return true;
}

// ---- the last message, to be continued -----------------------------------------------------------------------------
static json_t *marked(const json_t *text) {
    Buf joined = {0};
    buf_append(&joined, json_string_value(text), json_string_length(text));
    buf_puts(&joined, mark);
    json_t *out = json_stringn(joined.data, joined.size);
    buf_free(&joined);
    return out;
}
// Marks the last text of the last message's content; `*text` is that text as it was.
static bool mark_last(const Template *t, json_t *messages, json_t **text, Err *err) {
    json_t *last = json_array_get(messages, json_array_size(messages) - 1), *content = json_object_get(last, "content");
    if (!content) return fail(err, ERR_DATA, t->where, "continue_final_message is set but the final message has no \"content\" to continue!");
    if (!strstr(t->source, "content")) return fail(err, ERR_DATA, t->where, "continue_final_message is set to \"content\" but this is not an accepted field in the chat_template");
    if (json_is_string(content)) {
        *text = json_incref(content);
        json_object_set_new(last, "content", marked(content));
        return true;
    }
    json_t *parts = json_deep_copy(content);
    json_object_set_new(last, "content", parts);
    for (size_t i = json_array_size(parts); i-- > 0;) {
        json_t *part = json_array_get(parts, i), *found = json_object_get(part, "text");
        if (!json_is_string(found)) continue;
        *text = json_incref(found);
        json_object_set_new(part, "text", marked(found));
        return true;
    }
    return fail(err, ERR_DATA, t->where, "continue_final_message is set but we could not find any text to continue in the final message!");
}
static size_t strip_right(const char *data, size_t size) {
    Text t = {data, (uint32_t)size, 0};
    while (size > 0) {
        size_t at = size - 1;
        while (at > 0 && ((unsigned char)data[at] & 0xC0) == 0x80) at--;
        if (!code_space(text_code(&t, (uint32_t)at, &(uint32_t){0}))) break;
        size = at;
    }
    return size;
}
static size_t strip_left(const char *data, size_t size) {
    Text t = {data, (uint32_t)size, 0};
    uint32_t at = 0, n;
    while (at < size && code_space(text_code(&t, at, &n))) at += n;
    return at;
}
// Cuts the text where the mark stands.
static bool cut_at_mark(const Template *t, const json_t *last, Buf *text, Err *err) {
    size_t bare = sizeof mark - 2, at = SIZE_MAX, end = strip_right(json_string_value(last), json_string_length(last));
    size_t start = strip_left(json_string_value(last), end);
    for (size_t i = 0; text->size >= bare && i <= text->size - bare; i++)
        if (memcmp(text->data + i, mark, bare) == 0) at = i;
    bool there = end == start || (text->data && memmem(text->data, text->size, json_string_value(last) + start, end - start));
    if (at == SIZE_MAX || !there)
        return fail(err, ERR_DATA, t->where, "continue_final_message is set but the final message does not appear in the chat after applying the chat template! This can "
                    "happen if the chat template deletes portions of the final message. Please verify the chat template and final message in your "
                    "chat to ensure they are compatible.");
    bool spaced = at + bare < text->size && text->data[at + bare] == ' ';
    text->size = spaced ? at : strip_right(text->data, at);
    text->data[text->size] = 0;
    return true;
}

// ---- rendering -------------------------------------------------------------------------------------------------------
static void set_or_none(json_t *variables, const char *name, const json_t *value) {
    json_object_set(variables, name, value ? (json_t *)value : json_null());
}
static json_t *variables_of(const ChatRequest *q, json_t *messages) {
    json_t *variables = json_object();
    if (q->bos) json_object_set_new(variables, "bos_token", json_string(q->bos));
    if (q->eos) json_object_set_new(variables, "eos_token", json_string(q->eos));
    if (q->variables) json_object_update(variables, (json_t *)q->variables);
    json_object_set(variables, "messages", messages);
    set_or_none(variables, "tools", q->tools);
    set_or_none(variables, "documents", q->documents);
    json_object_set_new(variables, "add_generation_prompt", json_boolean(q->add_generation_prompt));
    return variables;
}
bool chat_render(const Template *t, const ChatRequest *q, TemplateResult *result, Err *err) {
    json_t *messages = json_array(), *last = NULL;
    *result = (TemplateResult){0};
    bool ok = copy_messages(t, q->messages, messages, err);
    if (ok && q->continue_final_message && q->add_generation_prompt)
        ok = fail(err, ERR_DATA, t->where, "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the model to "
                    "continue the final message, and add_generation_prompt when you want to add a header that will prompt it to start a new assistant "
                    "message instead.");
    if (ok && q->continue_final_message) ok = mark_last(t, messages, &last, err);
    if (ok) {
        json_t *variables = variables_of(q, messages);
        ok = template_render(t, variables, q->now, result, err);
        json_decref(variables);
    }
    if (ok && last) ok = cut_at_mark(t, last, &result->text, err);
    json_decref(messages);
    json_decref(last);
    if (!ok) result->text.size = 0;
    return ok;
}
