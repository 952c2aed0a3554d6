// `calc template`: chat templates over conversations, as transformers' apply_chat_template renders them. Each template is compiled
// once. A case that fails gives {"error":{"type","message"}}: TemplateError where the template itself raised the
// message, SyntaxError where it can't be compiled, otherwise ValueError.
#include "calc.h"
#include "template.h"
#include <stdlib.h>
#include <string.h>

typedef struct Compiled {
    const json_t *given;
    Template *tree; // NULL if it can't be compiled
    Err err;
} Compiled;

static bool bad(const char *file, const char *place, size_t index, const char *expected, Err *err) {
    char where[256];
    snprintf(where, sizeof where, "%.180s: %s[%zu]", file, place, index);
    return fail(err, ERR_DATA, where, "expected %s", expected);
}
static bool compile_all(const char *file, const json_t *templates, Compiled *out, Err *err) {
    for (size_t i = 0; i < json_array_size(templates); i++) {
        const json_t *given = json_array_get(templates, i), *source = json_object_get(given, "source");
        const char *name = json_string_value(json_object_get(given, "name"));
        if (!name || !json_is_string(source)) return bad(file, "templates", i, "texts 'name' and 'source'", err);
        out[i].given = given;
        if (!template_compile(json_string_value(source), json_string_length(source), name, &out[i].tree, &out[i].err)) out[i].tree = NULL;
    }
    return true;
}
static const Compiled *find(const Compiled *all, size_t count, const char *name) {
    for (size_t i = 0; name && i < count; i++)
        if (!strcmp(json_string_value(json_object_get(all[i].given, "name")), name)) return &all[i];
    return NULL;
}

static json_t *error_json(const char *type, const char *message, size_t size) {
    return json_pack("{s:s, s:o?}", "type", type, "message", json_stringn(message, size));
}
static json_t *spans_json(const TemplateResult *result) {
    json_t *list = json_array();
    for (int i = 0; i < result->span_count; i++)
        json_array_append_new(list, json_pack("[I, I]", (json_int_t)result->spans[i].start, (json_int_t)result->spans[i].end));
    return list;
}
static const json_t *given_or_null(const json_t *value) { return json_is_null(value) ? NULL : value; }

static void render_case(const Compiled *t, const json_t *given, const json_t *conversation, json_t *out) {
    Err err = t->err;
    TemplateResult result = {0};
    ChatRequest request = {.messages = json_object_get(conversation, "messages"),
                           .tools = given_or_null(json_object_get(conversation, "tools")),
                           .documents = given_or_null(json_object_get(conversation, "documents")),
                           .variables = given_or_null(json_object_get(given, "kwargs")),
                           .bos = json_string_value(json_object_get(t->given, "bos_token")),
                           .eos = json_string_value(json_object_get(t->given, "eos_token")),
                           .add_generation_prompt = json_is_true(json_object_get(given, "add_generation_prompt")),
                           .continue_final_message = json_is_true(json_object_get(given, "continue_final_message")),
                           .now = -1};
    if (!t->tree) {
        json_object_set_new(out, "error", error_json("SyntaxError", err.msg, strlen(err.msg)));
    } else if (chat_render(t->tree, &request, &result, &err)) {
        json_object_set_new(out, "rendered", json_stringn(result.text.data, result.text.size));
        if (template_marks_generation(t->tree) && !request.continue_final_message)
            json_object_set_new(out, "generation_spans", spans_json(&result));
    } else if (result.raised) {
        json_object_set_new(out, "error", error_json("TemplateError", result.exception.data, result.exception.size));
    } else {
        json_object_set_new(out, "error", error_json("ValueError", err.msg, strlen(err.msg)));
    }
    template_result_free(&result);
}

bool calc_template(const char *file, const json_t *document, json_t *results, Err *err) {
    const json_t *templates = json_object_get(document, "templates"), *cases = json_object_get(document, "cases");
    const json_t *conversations = json_object_get(document, "conversations");
    if (!json_is_array(templates) || !json_is_object(conversations) || !json_is_array(cases))
        return fail(err, ERR_DATA, file, "expected an object with lists 'templates' and 'cases' and an object 'conversations'");
    size_t count = json_array_size(templates);
    Compiled *compiled = xcalloc(count + 1, sizeof *compiled);
    bool ok = compile_all(file, templates, compiled, err);
    for (size_t i = 0; ok && i < json_array_size(cases); i++) {
        const json_t *given = json_array_get(cases, i);
        const Compiled *t = find(compiled, count, json_string_value(json_object_get(given, "template")));
        const char *name = json_string_value(json_object_get(given, "conversation"));
        const json_t *conversation = name ? json_object_get(conversations, name) : NULL;
        json_t *out = json_object();
        json_array_append_new(results, out);
        ok = t && conversation ? true : bad(file, "cases", i, "the names of a template and of a conversation", err);
        if (ok) render_case(t, given, conversation, out);
    }
    for (size_t i = 0; i < count; i++) template_free(compiled[i].tree);
    free(compiled);
    return ok;
}
