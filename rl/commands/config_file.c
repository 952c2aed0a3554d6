// Reading a configuration: JSON, TOML (a file whose name ends in .toml), or YAML by libyaml's parser into the same JSON values. YAML's plain scalars become null,
// booleans and numbers as its core schema says, and also numbers such as 1e-6, which people write. Refused: anchors,
// several documents, keys that are not texts, nesting deeper than 64.
#include "config_file.h"
#include "files.h"
#include "toml.h"
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 64, FILE_LIMIT = 1 << 20 };

typedef struct Reader {
    const char *path;
    yaml_parser_t parser;
} Reader;

static bool refuse(const Reader *r, const yaml_mark_t *at, const char *what, Err *err) {
    char where[256];
    snprintf(where, sizeof where, "%s:%zu:%zu", r->path, at->line + 1, at->column + 1);
    return fail(err, ERR_DATA, where, "%s", what);
}
static bool next(Reader *r, yaml_event_t *event, Err *err) {
    if (yaml_parser_parse(&r->parser, event)) return true;
    return refuse(r, &r->parser.problem_mark, r->parser.problem ? r->parser.problem : "is not YAML", err);
}

static json_t *plain_scalar(const char *text) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"}, *const yes[] = {"true", "True", "TRUE"},
                            *const no[] = {"false", "False", "FALSE"};
    for (int i = 0; i < COUNT(nulls); i++)
        if (!strcmp(text, nulls[i])) return json_null();
    for (int i = 0; i < COUNT(yes); i++)
        if (!strcmp(text, yes[i])) return json_true();
    for (int i = 0; i < COUNT(no); i++)
        if (!strcmp(text, no[i])) return json_false();
    char *end;
    bool numeric = strspn(text, "+-.0123456789eE_") == strlen(text) && strpbrk(text, "0123456789") && !strchr(text, '_');
    long long whole = numeric ? strtoll(text, &end, 10) : 0;
    if (numeric && *end == 0) return json_integer(whole);
    double number = numeric ? strtod(text, &end) : 0;
    if (numeric && *end == 0) return json_real(number);
    return json_string(text);
}

static bool node(Reader *r, const yaml_event_t *event, int depth, json_t **out, Err *err);

static bool collection(Reader *r, const yaml_event_t *start, int depth, json_t **out, Err *err) {
    bool mapping = start->type == YAML_MAPPING_START_EVENT;
    *out = mapping ? json_object() : json_array();
    if (depth >= MAX_DEPTH) return refuse(r, &start->start_mark, "is nested more than 64 deep", err);
    for (;;) {
        yaml_event_t event;
        json_t *key = NULL, *value = NULL;
        TRY(next(r, &event, err));
        if (event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return true;
        }
        bool ok = true;
        char *name = NULL;
        if (mapping) {
            ok = event.type == YAML_SCALAR_EVENT || refuse(r, &event.start_mark, "a key is not a text", err);
            if (ok) name = xstrdup((const char *)event.data.scalar.value);
            yaml_event_delete(&event);
            ok = ok && next(r, &event, err);
            if (!ok) event = (yaml_event_t){0};
        }
        ok = ok && node(r, &event, depth + 1, &value, err);
        yaml_event_delete(&event);
        if (ok && mapping) ok = json_object_set(*out, name, value) == 0 || fail(err, ERR_DATA, r->path, "a key is not valid UTF-8");
        else if (ok) json_array_append(*out, value);
        free(name), json_decref(key), json_decref(value);
        TRY(ok);
    }
}

static bool node(Reader *r, const yaml_event_t *event, int depth, json_t **out, Err *err) {
    switch (event->type) {
    case YAML_SCALAR_EVENT: {
        const char *text = (const char *)event->data.scalar.value;
        bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        *out = plain ? plain_scalar(text) : json_string(text);
        return *out || refuse(r, &event->start_mark, "a text is not valid UTF-8", err);
    }
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT: return collection(r, event, depth, out, err);
    case YAML_ALIAS_EVENT: return refuse(r, &event->start_mark, "is an alias, which is not read", err);
    default: return refuse(r, &event->start_mark, "is not a value", err);
    }
}

static bool document(Reader *r, json_t **out, Err *err) {
    yaml_event_t event;
    for (;;) {
        TRY(next(r, &event, err));
        bool prologue = event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_START_EVENT;
        if (!prologue) break;
        yaml_event_delete(&event);
    }
    bool ok = node(r, &event, 0, out, err);
    yaml_event_delete(&event);
    for (bool more = ok; more;) {
        TRY(next(r, &event, err));
        ok = event.type != YAML_DOCUMENT_START_EVENT || refuse(r, &event.start_mark, "a second document", err);
        more = ok && event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    return ok;
}

bool config_read(const char *path, json_t **out, Err *err) {
    Buf text;
    *out = NULL;
    TRY(file_read(path, FILE_LIMIT, &text, err));
    size_t start = text.data ? strspn(text.data, " \t\r\n") : 0;
    size_t name = strlen(path);
    bool ok;
    if (name > 5 && !strcmp(path + name - 5, ".toml")) ok = toml_parse(text.data ? text.data : "", text.size, path, out, err);
    else if (text.data && text.data[start] == '{') ok = json_parse(text.data, text.size, path, 1, out, err);
    else {
        Reader r = {.path = path};
        ok = yaml_parser_initialize(&r.parser) || fail(err, ERR_SOFTWARE, path, "no memory for a parser");
        if (ok) {
            yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.data ? text.data : ""), text.size);
            ok = document(&r, out, err);
            yaml_parser_delete(&r.parser);
        }
    }
    ok = ok && (json_is_object(*out) || fail(err, ERR_DATA, path, "expected a table of options at the top"));
    buf_free(&text);
    if (!ok) json_decref(*out), *out = NULL;
    return ok;
}
