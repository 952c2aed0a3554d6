// `reckon calc`: computes cases of reference numbers with the functions that training uses, under the option names of
// the program that made them. A case with an option that reckon doesn't have answers "unsupported" and names it.
#include "calc.h"
#include "command.h"
#include <string.h>

enum { FILE_LIMIT = 256 << 20 };

// What computes a case: by its kind and, where programs differ, by the program that its `source` begins with.
static const struct {
    const char *kind, *source;
    CalcFunction function;
    bool flat; // its answer stands in the case itself, not under "expected"
} functions[] = {
    {"objective", "trl ", trl_objective, false},
    {"objective", "verl ", verl_objective, false},
    {"objective", "openrlhf ", openrlhf_objective, false},
    {"objective", "prime-rl ", prime_objective, false},
    {"advantage", "trl ", trl_advantage, false},
    {"advantage", "verl ", verl_advantage, false},
    {"advantage", "openrlhf ", openrlhf_advantage, false},
    {"advantage", "prime-rl ", prime_advantage, false},
    {"advantage", "SkyRL ", skyrl_advantage, false},
    {"kl", "verl ", verl_kl, false},
    {"kl", "openrlhf ", openrlhf_kl, false},
    {"schedule", NULL, calc_schedule, false},
    {"optimizer", NULL, calc_optimizer, false},
    {"sample", NULL, calc_sample, false},
    {"statistics", NULL, calc_statistics, false},
    {"verify", NULL, calc_verify, true},
    {"extract", NULL, calc_extract, true},
    {"shaping", NULL, calc_shaping, false},
};

static CalcFunction function_of(const char *kind, CalcCase *c, bool *flat) {
    for (int i = 0; i < COUNT(functions); i++) {
        const char *source = functions[i].source;
        if (strcmp(kind, functions[i].kind) != 0) continue;
        *flat = functions[i].flat;
        if (!source || (c->source && !strncmp(source, c->source, strlen(source)))) return functions[i].function;
    }
    calc_unsupported(c, "source = \"%.100s\"", c->source ? c->source : "");
    return NULL;
}
static bool is_kind(const char *kind, Buf *all) {
    bool found = false;
    for (int i = 0; i < COUNT(functions); i++) {
        found |= !strcmp(functions[i].kind, kind);
        if (i && !strcmp(functions[i].kind, functions[i - 1].kind)) continue;
        buf_printf(all, "%s, ", functions[i].kind);
    }
    buf_puts(all, "template");
    return found || !strcmp(kind, "template");
}

static const char *text_of(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static bool run_case(const char *kind, CalcCase *c, const json_t *given, json_t *out, Err *err) {
    if (!json_is_object(given)) return calc_malformed(c, "", "an object", err);
    if (!json_is_object(c->config)) return calc_malformed(c, "config", "an object", err);
    if (!json_is_object(c->inputs)) return calc_malformed(c, "inputs", "an object", err);
    json_t *name = json_object_get(given, "name");
    if (name) json_object_set(out, "name", name);
    bool flat = false;
    CalcFunction function = function_of(kind, c, &flat);
    json_t *expected = json_object();
    bool ok = function && function(c, expected, err);
    if (ok && flat) json_object_update(out, expected);
    else if (ok) json_object_set(out, "expected", expected);
    else if (c->why[0]) json_object_set_new(out, "unsupported", json_string(c->why));
    json_decref(expected);
    return ok || c->why[0];
}

static const json_t *either(const json_t *given, const json_t *document, const char *key, const json_t *none) {
    const json_t *value = json_object_get(given, key);
    if (!value) value = json_object_get(document, key);
    return value ? value : none;
}

static bool run_cases(const char *kind, const char *file, const json_t *document, const json_t *none, json_t *results, Err *err) {
    const json_t *cases = json_object_get(document, "cases");
    if (!json_is_array(cases)) return fail(err, ERR_DATA, file, "expected an object with a list 'cases'");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *given = json_array_get(cases, i);
        CalcCase c = {.file = file, .index = (int)i, .source = text_of(given, "source"),
                      .config = either(given, document, "config", none), .inputs = either(given, document, "inputs", none),
                      .given = given, .document = document};
        if (!c.source) c.source = text_of(document, "source");
        json_t *out = json_object();
        json_array_append_new(results, out);
        bool ok = run_case(kind, &c, given, out, err);
        arena_reset(&c.arena);
        TRY(ok);
    }
    return true;
}

// Kinds whose files have a form of their own.
static bool run_document(const char *kind, const char *file, const json_t *document, const json_t *none, json_t *results, Err *err) {
    if (!strcmp(kind, "template")) return calc_template(file, document, results, err);
    return run_cases(kind, file, document, none, results, err);
}
static bool run(const Args *args, Err *err) {
    const char *kind = args->positional[0], *file = args->positional[1];
    Buf kinds = {0};
    bool known = is_kind(kind, &kinds);
    if (!known) fail(err, ERR_USAGE, "calc", "found kind '%.60s', expected one of %s", kind, kinds.data);
    buf_free(&kinds);
    TRY(known);
    json_t *document, *out = json_object(), *results = json_array(), *none = json_object();
    json_object_set_new(out, "cases", results);
    bool ok = json_read_file(file, FILE_LIMIT, &document, err);
    if (ok) {
        ok = run_document(kind, file, document, none, results, err) && print_json(out, err);
        json_decref(document);
    }
    json_decref(out), json_decref(none);
    return ok;
}

static const Option options[] = {{.name = "json", .kind = OPTION_FLAG, .help = "one JSON document (it prints nothing else)"},
                                 OPTION_END};
const Command command_calc = {
    .name = "calc",
    .summary = "compute cases of reference numbers with the functions that training uses",
    .usage = "KIND FILE",
    .detail = "KIND is objective, advantage, kl, schedule, optimizer, sample, statistics, verify, extract, shaping or template.\n"
              "FILE holds {\"cases\":[{\"name\",\"source\",\"config\",\"inputs\"}]}; `config` uses the option names of the program\n"
              "in `source` (trl, verl, openrlhf, prime-rl, SkyRL). Prints {\"cases\":[{\"name\",\"expected\"}]}; a case with an option\n"
              "that reckon doesn't have answers {\"name\",\"unsupported\"} with the option. `verify` prints {\"name\",\"equal\"} for\n"
              "inputs `gold` and `candidate`, `extract` {\"name\",\"answer_tag\"} for an input `text`. `template` renders chat templates:\n"
              "FILE holds {\"templates\":[{\"name\",\"source\",\"bos_token\",\"eos_token\"}], \"conversations\":{NAME:{\"messages\",\"tools\"}},\n"
              "\"cases\":[{\"template\",\"conversation\",\"add_generation_prompt\",\"continue_final_message\",\"kwargs\"}]}; it prints\n"
              "{\"cases\":[{\"rendered\"} or {\"error\":{\"type\",\"message\"}}]}.",
    .example = "reckon calc objective tests/data/rl/losses_trl_clip.json   # the losses, checked against TRL's numbers",
    .positional_min = 2,
    .positional_max = 2,
    .options = options,
    .run = run,
};
