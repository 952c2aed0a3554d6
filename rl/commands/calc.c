// `reckon calc`: computes cases of reference numbers with the functions that training uses, under the option names of
// the program that made them. A case with an option that reckon doesn't have answers "unsupported" and names it.
#include "calc.h"
#include "command.h"
#include <string.h>

enum { FILE_LIMIT = 256 << 20 };

static const struct {
    const char *prefix; // of a case's `source`
    CalcFunction objective, advantage;
} programs[] = {
    {"trl ", trl_objective, trl_advantage},
};

static CalcFunction function_of(const char *kind, CalcCase *c) {
    for (int i = 0; c->source && i < COUNT(programs); i++)
        if (!strncmp(programs[i].prefix, c->source, strlen(programs[i].prefix)))
            return strcmp(kind, "objective") == 0 ? programs[i].objective : programs[i].advantage;
    calc_unsupported(c, "source = \"%.100s\"", c->source ? c->source : "");
    return NULL;
}

static const char *text_of(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static bool run_case(const char *kind, CalcCase *c, const json_t *given, json_t *out, Err *err) {
    if (!json_is_object(c->config)) return calc_malformed(c, "config", "an object", err);
    if (!json_is_object(c->inputs)) return calc_malformed(c, "inputs", "an object", err);
    json_t *name = json_object_get(given, "name");
    if (name) json_object_set(out, "name", name);
    CalcFunction function = function_of(kind, c);
    json_t *expected = json_object();
    bool ok = function && function(c, expected, err);
    if (ok) json_object_set(out, "expected", expected);
    else if (c->why[0]) json_object_set_new(out, "unsupported", json_string(c->why));
    json_decref(expected);
    return ok || c->why[0];
}

static bool run_cases(const char *kind, const char *file, const json_t *document, json_t *results, Err *err) {
    const json_t *cases = json_object_get(document, "cases");
    if (!json_is_array(cases)) return fail(err, ERR_DATA, file, "expected an object with a list 'cases'");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *given = json_array_get(cases, i);
        CalcCase c = {.file = file, .index = (int)i, .source = text_of(given, "source"),
                      .config = json_object_get(given, "config"), .inputs = json_object_get(given, "inputs")};
        if (!c.source) c.source = text_of(document, "source");
        json_t *out = json_object();
        json_array_append_new(results, out);
        bool ok = run_case(kind, &c, given, out, err);
        arena_reset(&c.arena);
        TRY(ok);
    }
    return true;
}

static bool run(const Args *args, Err *err) {
    const char *kind = args->positional[0], *file = args->positional[1];
    if (strcmp(kind, "objective") != 0 && strcmp(kind, "advantage") != 0)
        return fail(err, ERR_USAGE, "calc", "found kind '%.60s', expected objective or advantage", kind);
    json_t *document, *out = json_object(), *results = json_array();
    json_object_set_new(out, "cases", results);
    bool ok = json_read_file(file, FILE_LIMIT, &document, err);
    if (ok) {
        ok = run_cases(kind, file, document, results, err) && print_json(out, err);
        json_decref(document);
    }
    json_decref(out);
    return ok;
}

static const Option options[] = {{.name = "json", .kind = OPTION_FLAG, .help = "one JSON document (it prints nothing else)"},
                                 OPTION_END};
const Command command_calc = {
    .name = "calc",
    .summary = "compute cases of reference numbers with the functions that training uses",
    .usage = "objective|advantage FILE",
    .detail = "FILE holds {\"cases\":[{\"name\",\"source\",\"config\",\"inputs\"}]}; `config` uses the option names of the program\n"
              "in `source` (TRL). Prints {\"cases\":[{\"name\",\"expected\"}]}; a case with an option that reckon doesn't have\n"
              "answers {\"name\",\"unsupported\"} with the option.",
    .example = "reckon calc objective tests/data/rl/losses_trl_clip.json   # the losses, checked against TRL's numbers",
    .positional_min = 2,
    .positional_max = 2,
    .options = options,
    .run = run,
};
