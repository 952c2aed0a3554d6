// Chat templates that amount to ChatML, recognised by their text.
#ifndef RECKON_TEMPLATE_H
#define RECKON_TEMPLATE_H
#include "json.h"

typedef struct ChatFormat ChatFormat;

// NULL if the template (Jinja source) is not one of the ChatML forms that template.c names.
ChatFormat *chat_format_read(const char *source);
void chat_format_free(ChatFormat *f);
// `where` names the template's file in errors; messages that it can't print are errors with their index.
bool chat_format_render(const ChatFormat *f, const char *where, const json_t *messages, bool add_generation_prompt,
                        Buf *out, Err *err) MUST_CHECK;

#endif
