// From an item to the ids that a completion continues, and to the ids of a completion worth imitating. Both take the
// mode's style from the recipe; the text of a chat comes from the tokenizer's own template. A demonstration is encoded
// apart from its prompt, because that is where sampling starts too: the border between them is always a token's border.
#include "rl.h"
#include <string.h>

// The item's messages with the style's system message before them and its instruction after the last question.
static json_t *styled_messages(const Item *item, const PromptStyle *style) {
    json_t *messages = item->messages ? json_deep_copy(item->messages)
                                      : json_pack("[{s:s, s:s}]", "role", "user", "content", item->prompt);
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (style->instruction)
        json_object_set_new(last, "content", json_sprintf("%s\n\n%s", json_string_value(json_object_get(last, "content")),
                                                          style->instruction));
    const char *role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    if (style->system && strcmp(role, "system") != 0)
        json_array_insert_new(messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", style->system));
    return messages;
}

static bool prompt_text(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Buf *text, Err *err) {
    const PromptStyle *style = &r->style[mode];
    if (r->chat) {
        json_t *messages = styled_messages(item, style);
        bool ok = tokenizer_chat(t, messages, true, text, err);
        json_decref(messages);
        TRY(ok);
    } else {
        if (style->system) buf_printf(text, "%s\n\n", style->system);
        buf_puts(text, item->prompt);
        if (style->instruction) buf_printf(text, "\n\n%s", style->instruction);
    }
    buf_puts(text, style->prefix);
    return true;
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

bool demonstration_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) {
    if (!item->truth) return fail(err, ERR_DATA, item->kind, "an item without an answer can't be demonstrated");
    if (mode == MODE_THINK && !item->demonstration)
        return fail(err, ERR_DATA, item->kind,
                    "an item without a demonstration can't teach think mode; expected a column 'demonstration', or "
                    "modes={direct=1} in the sft stage");
    int32_t end = r->chat ? tokenizer_id(t, "<|im_end|>") : -1;
    if (end < 0) end = tokenizer_eos(t);
    if (end < 0) return fail(err, ERR_DATA, "tokenizer", "has no end-of-sequence token, expected one to end completions with");
    Buf text = {0};
    if (mode == MODE_THINK) buf_printf(&text, "%s</think>", item->demonstration);
    buf_puts(&text, item->truth);
    bool ok = tokenizer_encode(t, text.data, text.size, false, out, err) || name_text(item, &text, err);
    buf_free(&text);
    if (ok) ids_push(out, end);
    return ok;
}
