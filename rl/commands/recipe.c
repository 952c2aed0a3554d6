// `reckon recipe convert`: a configuration of another program as a commented recipe. Every option is either set, named with
// the reason why there is nothing to set, or listed as one that has no equal here; none is dropped in silence.
#include "programs.h"
#include "command.h"
#include "config_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *shown(const char *path, const json_t *value, const char *why) {
    Buf text = {0};
    json_write(value, &text);
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.data[i] < 32) text.data[i] = ' ';
    char *line = xasprintf("%.100s = %.100s%s%s", path, text.data ? text.data : "", why ? ": " : "", why ? why : "");
    buf_free(&text);
    return line;
}
static void add_line(json_t *list, const char *path, const json_t *value, const char *why) {
    char *line = shown(path, value, why);
    json_t *text = json_string(line);
    json_array_append_new(list, text ? text : json_string(path));
    free(line);
}

static void take_option(const Program *p, Conversion *c, json_t *without, const char *path, json_t *value) {
    const OptionMap *row = program_row(p, path);
    if (!row) {
        add_line(without, path, value, NULL);
        return;
    }
    json_object_set(c->seen, row->theirs, value);
    if (json_is_null(value)) return; // its default
    if (!row->ours) {
        add_line(c->notes, path, value, row->note);
        return;
    }
    json_t *ours = row->words ? program_word(row, value) : json_incref(value);
    if (!ours || json_is_array(ours) || json_is_object(ours)) {
        add_line(without, path, value, "this value has no equal here");
        json_decref(ours);
        return;
    }
    size_t section = strcspn(row->ours, ".");
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)section, row->ours);
    if (!json_object_get(c->recipe, name)) json_object_set_new(c->recipe, name, json_object());
    json_object_set_new(json_object_get(c->recipe, name), row->ours + section + 1, ours);
}

static void walk(const Program *p, Conversion *c, json_t *without, const char *path, json_t *value) {
    if (!json_is_object(value) || json_object_size(value) == 0) {
        take_option(p, c, without, path, value);
        return;
    }
    const char *key;
    json_t *inner;
    json_object_foreach(value, key, inner) {
        char *below = xasprintf("%s%s%s", path, path[0] ? "." : "", key);
        walk(p, c, without, below, inner);
        free(below);
    }
}

// ---- writing -------------------------------------------------------------------------------------------------------
static void put_value(Buf *out, const json_t *value) {
    if (json_is_string(value)) {
        buf_puts(out, "\"");
        for (const char *s = json_string_value(value); *s; s++) {
            if (*s == '"' || *s == '\\') buf_puts(out, "\\");
            if ((unsigned char)*s < 32) buf_printf(out, "\\%03d", *s);
            else buf_append(out, s, 1);
        }
        buf_puts(out, "\"");
    } else json_write(value, out);
}
// The keys of a section as `key = value,`; those of "correction.low" stand in a table of their own, behind the others.
static void put_section(Buf *out, const char *indent, const json_t *section) {
    const char *key, *inner;
    json_t *value, *nested = json_object(), *table;
    json_object_foreach((json_t *)(uintptr_t)section, key, value) {
        const char *dot = strchr(key, '.');
        if (dot) {
            char *name = xasprintf("%.*s", (int)(dot - key), key);
            if (!json_object_get(nested, name)) json_object_set_new(nested, name, json_object());
            json_object_set(json_object_get(nested, name), dot + 1, value);
            free(name);
            continue;
        }
        buf_printf(out, "%s%s = ", indent, key);
        put_value(out, value);
        buf_puts(out, ",\n");
    }
    json_object_foreach(nested, key, table) {
        buf_printf(out, "%s%s = {", indent, key);
        bool first = true;
        json_object_foreach(table, inner, value) {
            buf_printf(out, "%s%s = ", first ? " " : ", ", inner);
            put_value(out, value);
            first = false;
        }
        buf_puts(out, " },\n");
    }
    json_decref(nested);
}
static void put_table(Buf *out, const char *name, const json_t *section) {
    if (json_object_size(section) == 0) return;
    buf_printf(out, "      %s = {\n", name);
    put_section(out, "        ", section);
    buf_puts(out, "      },\n");
}
static void put_lines(Buf *out, const char *title, const json_t *list) {
    if (json_array_size(list) == 0) return;
    buf_printf(out, "\n-- %s\n", title);
    for (size_t i = 0; i < json_array_size(list); i++) buf_printf(out, "--   %s\n", json_string_value(json_array_get(list, i)));
}

static void write_recipe(const Program *p, const char *file, const Conversion *c, const json_t *without, Buf *out) {
    const json_t *model = json_object_get(c->recipe, "model"), *stage = json_object_get(c->recipe, "stage");
    buf_printf(out, "-- Made from %s, a configuration of %s.\n", file, p->title);
    buf_puts(out, "return {\n");
    put_section(out, "  ", json_object_get(c->recipe, "recipe"));
    if (json_object_size(model)) buf_puts(out, "  model = {\n"), put_section(out, "    ", model), buf_puts(out, "  },\n");
    else buf_puts(out, "  model = { path = \"model\" }, -- the configuration names none\n");
    buf_puts(out, "  tasks = { { \"arithmetic\" } }, -- put your data here: { \"jsonl\", file = \"data.jsonl\" }\n");
    buf_puts(out, "  rewards = { \"correct\" },      -- put your rewards here: { \"./mine.lua\", weight = 1.0 }\n");
    buf_puts(out, "  stages = {\n    grpo {\n");
    if (!json_object_get(stage, "steps")) buf_puts(out, "      steps = 100, -- the configuration counts in epochs\n");
    put_section(out, "      ", stage);
    put_table(out, "sampling", json_object_get(c->recipe, "sampling"));
    put_table(out, "algo", json_object_get(c->recipe, "algo"));
    put_table(out, "optimizer", json_object_get(c->recipe, "optimizer"));
    buf_puts(out, "    },\n  },\n");
    if (json_object_size(json_object_get(c->recipe, "evaluate"))) {
        buf_puts(out, "  evaluate = {\n"), put_section(out, "    ", json_object_get(c->recipe, "evaluate")), buf_puts(out, "  },\n");
    }
    buf_puts(out, "}\n");
    put_lines(out, "Decided together with other options, or of no effect here:", c->notes);
    put_lines(out, "No equal here:", without);
}

static bool convert(const char *file, const Program *p, Err *err) {
    json_t *config, *without = json_array();
    Conversion c = {.seen = json_object(), .recipe = json_object(), .notes = json_array()};
    bool ok = config_read(file, &config, err);
    if (ok) {
        Buf out = {0};
        if (p->preset) json_object_set_new(c.recipe, "algo", json_pack("{s:s}", "preset", p->preset));
        walk(p, &c, without, "", config);
        p->finish(&c);
        write_recipe(p, file, &c, without, &out);
        ok = (fwrite(out.data, 1, out.size, stdout) == out.size && fflush(stdout) == 0) || fail(err, ERR_IO, "stdout", "can't write");
        buf_free(&out);
        json_decref(config);
    }
    json_decref(c.seen), json_decref(c.recipe), json_decref(c.notes), json_decref(without);
    return ok;
}

static bool run(const Args *args, Err *err) {
    const char *from = args_text(args, "from", NULL);
    if (strcmp(args->positional[0], "convert") != 0)
        return fail(err, ERR_USAGE, "recipe", "found '%.60s', expected convert", args->positional[0]);
    if (!from) return fail(err, ERR_USAGE, "recipe", "missing --from, the program whose configuration it is");
    const Program *p = program_named(from);
    return p ? convert(args->positional[1], p, err) : fail(err, ERR_USAGE, "recipe", "unknown program '%.60s'", from);
}

static const Option options[] = {
    {.name = "from", .kind = OPTION_CHOICE, .value = "trl|verl|openrlhf|prime", .help = "the program whose configuration it is"}, OPTION_END};
const Command command_recipe = {
    .name = "recipe",
    .summary = "turn another program's configuration into a recipe",
    .usage = "convert FILE --from trl|verl|openrlhf|prime",
    .detail = "FILE is JSON, YAML or TOML. Prints a recipe on stdout; its comments name every option that is decided elsewhere or has no\n"
              "equal here.",
    .example = "reckon recipe convert grpo.yaml --from trl > mine.lua",
    .positional_min = 2,
    .positional_max = 2,
    .options = options,
    .run = run,
};
