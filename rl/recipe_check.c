// Turns what a recipe's script returned into a section where every key of the schema has a value of the right type and
// in range, or into an error that names the line, what was found and what was expected. Overrides of the command line
// (--set) go through the same rows: they wait in the raw recipe as text until the row that they meet gives them a type.
#include "recipe_parts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- errors ----------------------------------------------------------------------------------------------
// The first override at or inside a value, NULL if there is none.
static const char *override_in(const json_t *value) {
    const char *argument = json_string_value(json_object_get(value, "$argument")), *key;
    json_t *inner;
    if (argument) return argument;
    json_object_foreach((json_t *)(uintptr_t)value, key, inner) {
        if ((argument = override_in(inner))) return argument;
    }
    return NULL;
}

bool recipe_fail(const Reading *r, int code, const char *path, const json_t *value, Err *err, const char *format, ...) {
    char msg[sizeof err->msg], where[sizeof err->where];
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    const char *argument = override_in(value);
    if (argument) {
        snprintf(where, sizeof where, "--set %s", argument);
        return fail(err, code == ERR_DATA ? ERR_USAGE : code, where, "%s", msg);
    }
    snprintf(where, sizeof where, "%s:%ld", r->path, recipe_line(r->lines, path));
    return fail(err, code, where, "%s", msg);
}

// "stages.2.algo.kl" is shown as 'algo.kl' in stages.2.
static void show_path(const char *path, Buf *out) {
    const char *first = strchr(path, '.'), *second = first ? strchr(first + 1, '.') : NULL;
    if (second && first[1] >= '0' && first[1] <= '9')
        buf_printf(out, "'%s' in %.*s", second + 1, (int)(second - path), path);
    else
        buf_printf(out, "'%s'", path);
}

static void show_list(const json_t *list, Buf *out) {
    Buf text = {0};
    json_write(list, &text);
    buf_printf(out, "the list %.60s", text.data);
    buf_free(&text);
}
static void show_value(const json_t *value, Buf *out) {
    if (json_is_string(value))
        buf_printf(out, "the text \"%.60s\"", json_string_value(value));
    else if (json_is_integer(value))
        buf_printf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        buf_printf(out, "%.15g", json_real_value(value));
    else if (json_is_boolean(value))
        buf_puts(out, json_is_true(value) ? "true" : "false");
    else if (json_object_get(value, "$function"))
        buf_puts(out, "a function");
    else if (json_is_array(value))
        show_list(value, out);
    else
        buf_puts(out, "a table");
}

static bool wrong_value(const Reading *r, const Field *f, const char *path, const json_t *raw, const json_t *found,
                        Err *err) {
    Buf b = {0};
    show_path(path, &b);
    buf_puts(&b, ": found ");
    show_value(found, &b);
    buf_puts(&b, ", expected ");
    field_expected(f, &b);
    recipe_fail(r, ERR_DATA, path, raw, err, "%s", b.data);
    buf_free(&b);
    return false;
}

static bool unknown_key(const Reading *r, const Field *fields, const char *path, const char *key, const json_t *value,
                        Err *err) {
    const char *names[64] = {0};
    int n = 0;
    for (; fields[n].key && n < COUNT(names) - 1; n++) names[n] = fields[n].key;
    const char *near = nearest_name(key, names);
    Buf b = {0};
    buf_puts(&b, "unknown key ");
    show_path(path, &b);
    if (near) buf_printf(&b, ", did you mean '%s'?", near);
    for (int i = 0; !near && i < n; i++) buf_printf(&b, "%s%s", i ? ", " : "; expected one of ", names[i]);
    recipe_fail(r, ERR_DATA, path, value, err, "%s", b.data);
    buf_free(&b);
    return false;
}

static bool missing_key(const Reading *r, const Field *f, const char *path, Err *err) {
    Buf b = {0};
    buf_puts(&b, "missing key ");
    show_path(path, &b);
    buf_puts(&b, ": expected ");
    field_expected(f, &b);
    recipe_fail(r, ERR_DATA, path, NULL, err, "%s (%s)", b.data, f->help);
    buf_free(&b);
    return false;
}

// ---- overrides -------------------------------------------------------------------------------------------
// An element of a list by position from 1, or by its kind or name ("stages.grpo.steps").
static json_t *list_element(json_t *list, const char *key) {
    char *end;
    long position = strtol(key, &end, 10);
    if (*key && !*end) return position >= 1 ? json_array_get(list, (size_t)position - 1) : NULL;
    size_t i;
    json_t *element, *found = NULL;
    json_array_foreach(list, i, element) {
        const char *kind = json_string_value(json_object_get(element, "$kind"));
        const char *name = json_string_value(json_object_get(element, "name"));
        if ((name && strcmp(name, key) == 0) || (kind && strcmp(kind, key) == 0)) {
            if (found) return NULL; // two of them: the position has to say which
            found = element;
        }
    }
    return found;
}

bool recipe_apply_set(json_t *raw, const char *argument, Err *err) {
    char where[256], path[256];
    snprintf(where, sizeof where, "--set %.200s", argument);
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument || (size_t)(equals - argument) >= sizeof path)
        return fail(err, ERR_USAGE, where, "expected KEY=VALUE, such as stages.2.steps=5");
    snprintf(path, sizeof path, "%.*s", (int)(equals - argument), argument);
    json_t *at = raw, *value = json_pack("{s:s, s:s}", "$set", equals + 1, "$argument", argument);
    if (!value) return fail(err, ERR_USAGE, where, "is not UTF-8");
    for (char *key = path, *dot; at; key = dot + 1) {
        dot = strchr(key, '.');
        if (dot) *dot = 0;
        if (json_is_array(at) && dot) {
            json_t *list = at;
            at = list_element(list, key);
            if (!json_is_object(at)) {
                json_decref(value);
                return fail(err, ERR_USAGE, where, "there is no '%s' among the %zu of the list", key, json_array_size(list));
            }
            continue;
        }
        if (!json_is_object(at) || json_object_get(at, "$set")) break;
        if (!dot) {
            json_object_set_new(at, key, value);
            return true;
        }
        json_t *inner = json_object_get(at, key);
        if (!inner || (json_is_array(inner) && json_array_size(inner) == 0))
            json_object_set_new(at, key, inner = json_object());
        at = inner;
    }
    json_decref(value);
    return fail(err, ERR_USAGE, where, "expected the path of a key, such as stages.2.steps");
}

// The override's text as the field's type: text as it stands, everything else as JSON, a list without its brackets.
static json_t *override_value(const Field *f, const char *text) {
    if (f->kind == FIELD_TEXT || f->kind == FIELD_CHOICE) return json_string(text);
    Buf b = {0};
    bool list = (f->kind == FIELD_INTS || f->kind == FIELD_NUMBERS || f->kind == FIELD_TEXTS) && text[0] != '[';
    buf_printf(&b, list ? "[%s]" : "%s", text);
    json_t *value = json_loadb(b.data, b.size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    buf_free(&b);
    return value ? value : json_string(text);
}

// ---- values ----------------------------------------------------------------------------------------------
static bool in_range(const Field *f, double x) { return x <= f->high && (f->above ? x > f->low : x >= f->low); }
static bool is_whole(const json_t *v) {
    return json_is_integer(v) || (json_is_real(v) && fabs(json_real_value(v)) < 9e15 &&
                                  json_real_value(v) == floor(json_real_value(v)));
}
static bool good_text(const Field *f, const json_t *v) {
    return json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v) &&
           in_range(f, (double)json_string_length(v));
}
static bool good_choice(const Field *f, const json_t *v, int *index) {
    const char *text = json_string_value(v), *p = f->choices;
    for (*index = 0; text; ++*index) {
        const char *bar = strchr(p, '|');
        size_t n = bar ? (size_t)(bar - p) : strlen(p);
        if (strlen(text) == n && memcmp(text, p, n) == 0) return true;
        if (!bar) break;
        p = bar + 1;
    }
    return false;
}

static bool good_list(const Field *f, const json_t *v) {
    if (json_is_object(v) && json_object_size(v) == 0) return f->kind == FIELD_TEXTS; // {} in Lua
    if (!json_is_array(v) || (f->kind != FIELD_TEXTS && json_array_size(v) == 0)) return false;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *x = json_array_get(v, i);
        if (f->kind == FIELD_NUMBERS && (!json_is_number(x) || !in_range(f, json_number_value(x)))) return false;
        if (f->kind == FIELD_TEXTS ? !good_text(f, x) : (f->kind == FIELD_INTS && (!is_whole(x) || !in_range(f, json_number_value(x))))) return false;
    }
    return true;
}

// A copy of `v` in the field's own type, NULL if it isn't fit.
static json_t *fit_value(const Field *f, const json_t *v) {
    int index;
    switch (f->kind) {
    case FIELD_INT:
    case FIELD_INT64:
        if (!is_whole(v) || !in_range(f, json_number_value(v))) return NULL;
        return json_integer(json_is_integer(v) ? json_integer_value(v) : (json_int_t)json_real_value(v));
    case FIELD_NUMBER: return json_is_number(v) && in_range(f, json_number_value(v)) ? json_real(json_number_value(v)) : NULL;
    case FIELD_BOOL: return json_is_boolean(v) ? json_boolean(json_is_true(v)) : NULL;
    case FIELD_TEXT: return good_text(f, v) ? json_copy((json_t *)(uintptr_t)v) : NULL;
    case FIELD_CHOICE: return good_choice(f, v, &index) ? json_copy((json_t *)(uintptr_t)v) : NULL;
    case FIELD_INTS:
    case FIELD_NUMBERS:
    case FIELD_TEXTS:
        if (!good_list(f, v)) return NULL;
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(v); i++) {
            json_t *x = json_array_get(v, i);
            json_array_append_new(list, f->kind == FIELD_INTS ? json_integer((json_int_t)json_number_value(x)) : f->kind == FIELD_NUMBERS ? json_real(json_number_value(x)) : json_copy(x));
        }
        return list;
    case FIELD_SECTION:
    case FIELD_LIST: return NULL;
    }
    return NULL;
}

static bool repeats(const json_t *list, long long *which) {
    for (size_t i = 0; i < json_array_size(list); i++)
        for (size_t j = 0; j < i; j++)
            if (json_equal(json_array_get(list, i), json_array_get(list, j))) {
                *which = (long long)json_integer_value(json_array_get(list, i));
                return true;
            }
    return false;
}

static bool is_table(const json_t *v) {
    return (json_is_object(v) && !json_object_get(v, "$function") && !json_object_get(v, "$set") &&
            !json_object_get(v, "$1")) ||
           (json_is_array(v) && json_array_size(v) == 0);
}

static bool resolve_value(const Reading *r, const Field *f, const json_t *raw, const char *path, json_t **out, Err *err) {
    const char *text = json_string_value(json_object_get(raw, "$set"));
    if (f->kind == FIELD_SECTION && is_table(raw)) {
        *out = json_object();
        if (recipe_resolve_section(r, f->fields, raw, path, NULL, *out, err)) return true;
        json_decref(*out);
        *out = NULL;
        return false;
    }
    if (f->kind == FIELD_LIST && (json_is_array(raw) || is_table(raw))) {
        *out = json_incref((json_t *)(uintptr_t)raw);
        return true;
    }
    json_t *given = text ? override_value(f, text) : json_incref((json_t *)(uintptr_t)raw);
    *out = fit_value(f, given);
    long long which;
    if (!*out) {
        wrong_value(r, f, path, raw, given, err);
    } else if (f->kind == FIELD_INTS && repeats(*out, &which)) {
        json_decref(*out);
        *out = NULL;
        Buf b = {0};
        show_path(path, &b);
        recipe_fail(r, ERR_DATA, path, raw, err, "%s: %lld is listed twice", b.data, which);
        buf_free(&b);
    }
    json_decref(given);
    return *out != NULL;
}

static bool resolve_field(const Reading *r, const Field *f, const json_t *raw, const char *path, json_t *out, Err *err) {
    json_t *value = NULL, *stands_in = NULL;
    if (json_is_null(raw)) raw = NULL; // a resolved recipe has null where there is nothing
    if (!raw && f->required) return missing_key(r, f, path, err);
    if (!raw && f->otherwise) raw = stands_in = json_loads(f->otherwise, JSON_DECODE_ANY, NULL);
    if (!raw && f->kind == FIELD_SECTION) raw = stands_in = json_object();
    bool ok = !raw || resolve_value(r, f, raw, path, &value, err);
    json_decref(stands_in);
    if (ok) json_object_set_new(out, f->key, value ? value : json_null());
    return ok;
}

bool recipe_resolve_section(const Reading *r, const Field *fields, const json_t *raw, const char *path, json_t *rest,
                            json_t *out, Err *err) {
    const char *key;
    json_t *value;
    char inner[512];
    json_object_foreach((json_t *)(uintptr_t)raw, key, value) {
        if (strcmp(key, "$kind") == 0 || field_find(fields, key)) continue;
        snprintf(inner, sizeof inner, "%s%s%.100s", path, *path ? "." : "", key);
        if (!rest) return unknown_key(r, fields, inner, key, value, err);
        const char *text = json_string_value(json_object_get(value, "$set"));
        const Field any = {.kind = FIELD_NUMBER};
        json_object_set_new(rest, key, text ? override_value(&any, text) : json_incref(value));
    }
    for (; fields->key; fields++) {
        if (fields->shared) continue;
        snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", fields->key);
        TRY(resolve_field(r, fields, json_object_get(raw, fields->key), inner, out, err));
    }
    return true;
}

// ---- storing ---------------------------------------------------------------------------------------------
static void store_list(const Field *f, const json_t *v, char *base, Arena *arena) {
    size_t n = json_array_size(v);
    if (f->kind == FIELD_INTS) {
        int *list = ARENA_NEW(arena, int, n), count = (int)n;
        for (size_t i = 0; i < n; i++) list[i] = (int)json_integer_value(json_array_get(v, i));
        memcpy(base + f->offset, &list, sizeof list);
        memcpy(base + f->count_offset, &count, sizeof count);
        return;
    }
    if (f->kind == FIELD_NUMBERS) {
        double *list = ARENA_NEW(arena, double, n);
        int count = (int)n;
        for (size_t i = 0; i < n; i++) list[i] = json_number_value(json_array_get(v, i));
        memcpy(base + f->offset, &list, sizeof list);
        memcpy(base + f->count_offset, &count, sizeof count);
        return;
    }
    const char **list = n ? ARENA_NEW(arena, const char *, n + 1) : NULL;
    for (size_t i = 0; i < n; i++) list[i] = arena_strdup(arena, json_string_value(json_array_get(v, i)));
    memcpy(base + f->offset, &list, sizeof list);
}

static void store_value(const Field *f, const json_t *v, char *base, Arena *arena) {
    int i = (int)json_integer_value(v);
    uint64_t u = (uint64_t)json_integer_value(v);
    double x = json_number_value(v);
    bool b = json_is_true(v);
    char *text;
    switch (f->kind) {
    case FIELD_INT: memcpy(base + f->offset, &i, sizeof i); break;
    case FIELD_INT64: memcpy(base + f->offset, &u, sizeof u); break;
    case FIELD_NUMBER: memcpy(base + f->offset, &x, sizeof x); break;
    case FIELD_BOOL: memcpy(base + f->offset, &b, sizeof b); break;
    case FIELD_TEXT:
        text = arena_strdup(arena, json_string_value(v));
        memcpy(base + f->offset, &text, sizeof text);
        break;
    case FIELD_CHOICE:
        (void)good_choice(f, v, &i);
        memcpy(base + f->offset, &i, sizeof i);
        break;
    case FIELD_INTS:
    case FIELD_NUMBERS:
    case FIELD_TEXTS: store_list(f, v, base, arena); break;
    case FIELD_SECTION:
    case FIELD_LIST: break;
    }
}

void recipe_store(const Field *fields, const json_t *resolved, void *into, Arena *arena) {
    for (; fields->key; fields++) {
        const json_t *v = json_object_get(resolved, fields->key);
        if (!v || json_is_null(v)) continue;
        if (fields->kind == FIELD_SECTION) recipe_store(fields->fields, v, into, arena);
        if (fields->placed) store_value(fields, v, into, arena);
    }
}
