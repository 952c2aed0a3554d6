// Templates in the language of Jinja 2, as chat templates use it: compiled once into a tree, rendered many times.
//
// A template sees only the values it is given: no files, no imports, no mutable lists. What it does is capped (steps,
// output, memory, depth), so that a hostile one ends with an error. A Template is immutable and may be shared between threads.
#ifndef RECKON_TEMPLATE_H
#define RECKON_TEMPLATE_H
#include "json.h"

typedef struct Template Template;

// `where` names the template's file in errors, which add the line. The source must be UTF-8.
bool template_compile(const char *source, size_t size, const char *where, Template **out, Err *err) MUST_CHECK;
void template_free(Template *t);
// Whether the template reads a variable of this name, or has a {% generation %} block.
bool template_reads(const Template *t, const char *name);
bool template_marks_generation(const Template *t);

// [start, end) of what {% generation %} blocks printed, in code points of the text.
typedef struct TemplateSpan {
    int64_t start, end;
} TemplateSpan;
typedef struct TemplateResult {
    Buf text;
    TemplateSpan *spans; // [span_count]
    int span_count;
    bool raised;   // the template itself called raise_exception
    Buf exception; // with exactly this message
} TemplateResult;
void template_result_free(TemplateResult *r);

// `variables` is an object. `now` is the time that strftime_now shows, in seconds since 1970 (UTC); negative: the clock's, local.
// On failure `result` holds no text, but may tell of an exception.
bool template_render(const Template *t, const json_t *variables, int64_t now, TemplateResult *result, Err *err) MUST_CHECK;

// ---- chats -------------------------------------------------------------------------------------------------
// What transformers' apply_chat_template takes. Everything but `messages` may be NULL.
typedef struct ChatRequest {
    const json_t *messages;  // a list of objects
    const json_t *tools, *documents;
    const json_t *variables; // an object: further variables, such as enable_thinking
    const char *bos, *eos;   // texts of the tokens; NULL: not defined
    bool add_generation_prompt;
    bool continue_final_message; // the text ends where the last message's content ends
    int64_t now;             // as in template_render
} ChatRequest;
bool chat_render(const Template *t, const ChatRequest *request, TemplateResult *result, Err *err) MUST_CHECK;

#endif
