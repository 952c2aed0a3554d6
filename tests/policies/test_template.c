// Chat templates against jinja2 and transformers: whole prompts, and single features of the language; limits and errors.
#include "../test.h"
#include "files.h"
#include "template.h"

#define DATA TEST_DATA "/templates/"

static json_t *read_json(const char *path) {
    Err err = {0};
    json_t *root;
    OK(json_read_file(path, 16 << 20, &root, &err));
    return root;
}
static Template *compile(const char *source, size_t size) {
    Err err = {0};
    Template *t;
    if (!template_compile(source, size, "template", &t, &err)) FAIL("'%.300s': %s: %s", source, err.where, err.msg);
    return t;
}
static const json_t *null_is_absent(const json_t *v) { return json_is_null(v) ? NULL : v; }

// ---- whole prompts ---------------------------------------------------------------------------------------------------
static const json_t *named(const json_t *list, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (!strcmp(json_string_value(json_object_get(v, "name")), name)) return v;
    FAIL("no template '%s'", name);
}
static void check_spans(const json_t *want, const TemplateResult *got, const char *what) {
    if (!want) return;
    if ((size_t)got->span_count != json_array_size(want)) FAIL("%s: %d spans, want %zu", what, got->span_count, json_array_size(want));
    for (int i = 0; i < got->span_count; i++) {
        const json_t *span = json_array_get(want, (size_t)i);
        CHECK_INT(got->spans[i].start, json_integer_value(json_array_get(span, 0)));
        CHECK_INT(got->spans[i].end, json_integer_value(json_array_get(span, 1)));
    }
}
static void check_prompt(const json_t *root, const json_t *c, Template *t, const json_t *given) {
    Err err = {0};
    TemplateResult got;
    const char *name = json_string_value(json_object_get(c, "conversation"));
    const json_t *talk = json_object_get(json_object_get(root, "conversations"), name), *error = json_object_get(c, "error");
    ChatRequest q = {.messages = json_object_get(talk, "messages"), .tools = null_is_absent(json_object_get(talk, "tools")),
                     .variables = json_object_get(c, "kwargs"), .bos = json_string_value(json_object_get(given, "bos_token")),
                     .eos = json_string_value(json_object_get(given, "eos_token")),
                     .add_generation_prompt = json_is_true(json_object_get(c, "add_generation_prompt")),
                     .continue_final_message = json_is_true(json_object_get(c, "continue_final_message")), .now = -1};
    bool ok = chat_render(t, &q, &got, &err);
    if (ok != !error) FAIL("%s: %s", name, ok ? "rendered, want an error" : err.msg);
    if (ok) CHECK_STR(got.text.data, json_string_value(json_object_get(c, "rendered")));
    if (ok) check_spans(json_object_get(c, "generation_spans"), &got, name);
    bool raised = error && !strcmp(json_string_value(json_object_get(error, "type")), "TemplateError");
    CHECK(got.raised == raised);
    if (raised) CHECK_STR(got.exception.data, json_string_value(json_object_get(error, "message")));
    template_result_free(&got);
}
static void reference_prompts(void) {
    json_t *root = read_json(DATA "chat_templates.json"), *c;
    size_t i;
    CHECK(json_array_size(json_object_get(root, "cases")) >= 200);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *given = named(json_object_get(root, "templates"), json_string_value(json_object_get(c, "template")));
        const json_t *source = json_object_get(given, "source");
        Template *t = compile(json_string_value(source), json_string_length(source));
        check_prompt(root, c, t, given);
        template_free(t);
    }
    json_decref(root);
}

// ---- single features: what jinja2 gave for each -------------------------------------------------------------------
static void features(void) {
    json_t *root = read_json(DATA "features.json"), *variables = json_object_get(root, "variables"), *c;
    size_t i;
    CHECK(json_array_size(json_object_get(root, "cases")) >= 600);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        Err err = {0};
        Template *t;
        TemplateResult got = {0};
        const json_t *source = json_object_get(c, "source"), *want = json_object_get(c, "rendered");
        const char *text = json_string_value(source);
        bool ok = template_compile(text, json_string_length(source), "template", &t, &err) && template_render(t, variables, 0, &got, &err);
        if (ok != (want != NULL)) FAIL("'%s': %s, want %s", text, ok ? "rendered" : err.msg, want ? json_string_value(want) : "an error");
        if (ok && strcmp(got.text.data, json_string_value(want)) != 0)
            FAIL("'%s': got '%s', want '%s'", text, got.text.data, json_string_value(want));
        template_result_free(&got);
        template_free(t);
    }
    json_decref(root);
}

// ---- limits and errors -----------------------------------------------------------------------------------------------
// What hostile templates end with. The line is that of the place.
static void limits(void) {
    static const struct {
        const char *source, *where, *msg;
    } cases[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "template:1", "does not end within"},
        {"\n{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "template:2", "levels deep"},
        {"{{ 'x' * 1000000000000 }}", "template:1", "MiB"},
        {"{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x * 2 %}{% endfor %}", "template:1", "MiB"},
        {"{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('x', ns.x) %}{% endfor %}", "template:1", "MiB"},
        {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "template:1", "levels deep"},
        {"{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == [[]] }}{{ ns.x|tojson }}", "template:1", "levels deep"},
        {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "template:1", "levels deep"},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(3000) %}{% set ns.x = ns.x|map('abs') %}{% endfor %}{{ ns.x|list }}", "template:1", "levels deep"},
        {"{{ range(200000) }}", "template:1", "Range too big"},
        {"{{ '%9999999999d' % 1 }}", "template:1", "width too big"},
        {"{{ '{:9999999999}'.format(1) }}", "template:1", "Invalid format"},
        {"{{ 'x'|center(99999999999) }}", "template:1", "MiB"},
        {"{{ 9223372036854775807 + 1 }}", "template:1", "beyond 64 bits"},
        {"{{ (-9223372036854775807 - 1) // -1 }}", "template:1", "beyond 64 bits"},
        {"a\nb\n{{ [].append(1) }}", "template:3", "can't be changed"},
        {"{{ messages.pop() }}", "template:1", "'messages' is undefined"},
        {"{{ x.y }}", "template:1", "'x' is undefined"},
        {"{{ {}.y.z }}", "template:1", "'dict object' has no attribute 'y'"},
        {"{{ 'a' + 1 }}", "template:1", "unsupported operand"},
        {"{{ 1 / 0 }}", "template:1", "division by zero"},
        {"{{ [1, 'a']|sort }}", "template:1", "not supported between"},
        {"{{ 1|nofilter }}", "template:1", "no filter 'nofilter'"},
        {"{{ ''.__class__.__mro__ }}", "template:1", "has no attribute '__class__'"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        TemplateResult got;
        json_t *none = json_object();
        Template *t = compile(cases[i].source, strlen(cases[i].source));
        if (template_render(t, none, 0, &got, &err)) FAIL("'%s' rendered", cases[i].source);
        if (strcmp(err.where, cases[i].where) != 0 || !strstr(err.msg, cases[i].msg)) FAIL("'%s': %s: %s", cases[i].source, err.where, err.msg);
        CHECK(!got.raised && !got.text.size);
        template_result_free(&got);
        template_free(t);
        json_decref(none);
    }
}
static void refused(void) {
    static const struct {
        const char *source, *where, *msg;
    } cases[] = {
        {"{% if x %}", "template:1", "the template ends"},
        {"a\n{% endif %}", "template:2", "found the tag 'endif'"},
        {"{% include 'a' %}", "template:1", "found the tag 'include'"},
        {"{% for x in y %}\n{% else %}", "template:2", "the template ends"},
        {"{{ 'abc }}", "template:1", "doesn't end"},
        {"{{ 1 + }}", "template:1", "expected an expression"},
        {"{{ (1 }}", "template:1", ""},
        {"{{ a b }}", "template:1", "expected }}"},
        {"{% set 1 = 2 %}", "template:1", "can't assign"},
        {"{% break %}", "template:1", "only for loops"},
        {"{% for x in y %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}", "template:1", "only for loops"},
        {"{% macro f(a=1, b) %}{% endmacro %}", "template:1", "without a default"},
        {"{# a", "template:1", "comment"},
        {"{% raw %}", "template:1", "raw"},
        {"{{ '\\ud800' }}", "template:1", "malformed escape"},
        {"{{ 99999999999999999999 }}", "template:1", "out of range"},
        {"{{ a! }}", "template:1", "unexpected character '!'"},
        {"{{ a] }}", "template:1", "unexpected ']'"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Template *t;
        if (template_compile(cases[i].source, strlen(cases[i].source), "template", &t, &err)) FAIL("'%s' is accepted", cases[i].source);
        if (t || strcmp(err.where, cases[i].where) != 0 || !strstr(err.msg, cases[i].msg)) FAIL("'%s': %s: %s", cases[i].source, err.where, err.msg);
    }
    Buf deep = {0};
    Err err = {0};
    Template *t;
    buf_puts(&deep, "{{ ");
    for (int i = 0; i < 20000; i++) buf_puts(&deep, i % 2 ? "(" : "[");
    CHECK(!template_compile(deep.data, deep.size, "template", &t, &err) && strstr(err.msg, "deep"));
    buf_free(&deep);
}

static const Test tests[] = {
    {"reference_prompts", reference_prompts},
    {"features", features},
    {"limits", limits},
    {"refused", refused},
};
TEST_MAIN(tests)
