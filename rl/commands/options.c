// Parsing and help from one table of options.
#include "command.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const Option option_json = {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"};

static int option_index(const Command *c, const char *name, size_t size) {
    for (int i = 0; c->options[i].name; i++)
        if (strlen(c->options[i].name) == size && memcmp(c->options[i].name, name, size) == 0) return i;
    return -1;
}
static int known_index(const Args *args, const char *name) {
    int i = option_index(args->command, name, strlen(name));
    if (i < 0) abort(); // a command asks for an option that its table lacks
    return i;
}

bool args_given(const Args *args, const char *name) { return args->values[known_index(args, name)] != NULL; }
bool args_flag(const Args *args, const char *name) { return args_given(args, name); }
const char *args_text(const Args *args, const char *name, const char *otherwise) {
    const char *v = args->values[known_index(args, name)];
    return v ? v : otherwise;
}
int64_t args_int(const Args *args, const char *name, int64_t otherwise) {
    const char *v = args_text(args, name, NULL);
    return v ? strtoll(v, NULL, 10) : otherwise;
}
double args_number(const Args *args, const char *name, double otherwise) {
    const char *v = args_text(args, name, NULL);
    return v ? strtod(v, NULL) : otherwise;
}
const char *const *args_list(const Args *args, const char *name) {
    static const char *const none[] = {NULL};
    const char **list = args->lists[known_index(args, name)];
    return list ? (const char *const *)list : none;
}

static bool unknown_option(const Command *c, const char *given, Err *err) {
    const char *names[49] = {0};
    for (int i = 0; c->options[i].name; i++) names[i] = c->options[i].name;
    const char *near = nearest_name(given + (given[1] == '-' ? 2 : 1), names);
    return fail(err, ERR_USAGE, c->name, "unknown option '%.60s'%s%s; see 'reckon %s --help'", given,
                near ? ", did you mean --" : "", near ? near : "", c->name);
}

static bool check_value(const Command *c, const Option *o, const char *value, Err *err) {
    char where[64], *end;
    snprintf(where, sizeof where, "%s --%s", c->name, o->name);
    if (o->kind == OPTION_INT || o->kind == OPTION_NUMBER) {
        errno = 0;
        double x = o->kind == OPTION_INT ? (double)strtoll(value, &end, 10) : strtod(value, &end);
        if (end == value || *end || errno == ERANGE || !isfinite(x))
            return fail(err, ERR_USAGE, where, "found '%.60s', expected %s", value,
                        o->kind == OPTION_INT ? "an integer" : "a number");
        if (o->low < o->high && !(x >= o->low && x <= o->high))
            return fail(err, ERR_USAGE, where, "found %.60s, expected a value from %g to %g", value, o->low, o->high);
    }
    if (o->kind == OPTION_CHOICE) {
        size_t n = strlen(value);
        for (const char *p = o->value; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
            if (strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == 0)) return true;
        return fail(err, ERR_USAGE, where, "found '%.60s', expected one of %s", value, o->value);
    }
    return true;
}

bool args_parse(const Command *c, int argc, char **argv, Args *out, Err *err) {
    *out = (Args){.command = c, .positional = xcalloc((size_t)argc + 1, sizeof(char *))};
    bool only_positional = false;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (only_positional || a[0] != '-' || a[1] == 0) {
            out->positional[out->positional_count++] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            only_positional = true;
            continue;
        }
        int k = -1;
        const char *value = NULL;
        if (a[1] == '-') {
            const char *equals = strchr(a, '=');
            k = option_index(c, a + 2, equals ? (size_t)(equals - a - 2) : strlen(a + 2));
            if (equals) value = equals + 1;
        } else if (a[2] == 0) {
            for (int j = 0; c->options[j].name; j++)
                if (c->options[j].letter == a[1]) k = j;
        }
        if (k < 0) return unknown_option(c, a, err);
        const Option *o = &c->options[k];
        if (o->kind == OPTION_FLAG) {
            if (value) return fail(err, ERR_USAGE, c->name, "--%s takes no value", o->name);
            value = "true";
        } else if (!value) {
            if (i + 1 >= argc)
                return fail(err, ERR_USAGE, c->name, "--%s needs a value (%s)", o->name, o->value ? o->value : "TEXT");
            value = argv[++i];
        }
        TRY(check_value(c, o, value, err));
        out->values[k] = value;
        if (o->kind == OPTION_LIST) {
            int n = 0;
            while (out->lists[k] && out->lists[k][n]) n++;
            out->lists[k] = xrealloc((void *)out->lists[k], (size_t)(n + 2) * sizeof(char *));
            out->lists[k][n] = value;
            out->lists[k][n + 1] = NULL;
        }
    }
    if (out->positional_count < c->positional_min || out->positional_count > c->positional_max)
        return fail(err, ERR_USAGE, c->name, "found %d arguments, expected: reckon %s %s", out->positional_count, c->name,
                    c->usage);
    return true;
}

void args_free(Args *args) {
    free((void *)args->positional);
    for (int i = 0; i < COUNT(args->lists); i++) free((void *)args->lists[i]);
}

void command_help(const Command *c) {
    printf("reckon %s: %s\n\nusage: reckon %s %s\n", c->name, c->summary, c->name, c->usage);
    if (c->detail) printf("\n%s\n", c->detail);
    if (c->options[0].name) printf("\noptions:\n");
    for (const Option *o = c->options; o->name; o++) {
        char left[80];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ',
                 o->letter ? ", " : "  ", o->name, o->kind == OPTION_FLAG ? "" : " ",
                 o->kind == OPTION_FLAG ? "" : o->value ? o->value : "TEXT");
        printf("  %-30s %s", left, o->help);
        if (o->low < o->high) printf(" (%g to %g)", o->low, o->high);
        printf("%s\n", o->kind == OPTION_LIST ? " (may be repeated)" : "");
    }
    printf("\nexample:\n  %s\n", c->example);
}

bool print_json(const json_t *value, Err *err) {
    Buf text = {0};
    json_write(value, &text);
    buf_puts(&text, "\n");
    bool ok = fwrite(text.data, 1, text.size, stdout) == text.size && fflush(stdout) == 0;
    buf_free(&text);
    return ok || fail(err, ERR_IO, "stdout", "can't write: %s", strerror(errno));
}
