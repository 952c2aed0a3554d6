// Which products an adapter joins: target_modules (names, an expression, "all-linear"), exclude_modules, layers_to_transform,
// target_parameters, rank_pattern and alpha_pattern, as PEFT takes them. A name fits a module that bears it whole, or whose name
// ends with it after a dot; an expression must fit the whole name. Expressions are PCRE2's, under limits on steps and memory: a
// file that needs more is an error, not a wait.
//
// Mixtral's published modules lie in "block_sparse_moe"; newer releases of transformers say "mlp". Both names fit.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lora_match.h"
#include "names.h"
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 200000, MAX_PATTERNS = 1000, MAX_PATTERN_BYTES = 4096, MAX_STEPS = 100000, MAX_DEPTH = 1000, MAX_HEAP_KIB = 4096 };

typedef struct Expression {
    pcre2_code *code;
} Expression;
typedef struct NameList {
    NameEntry *sorted; // [count]
    bool *used;        // [count] of the list, by position
    int count;
} NameList;
typedef struct Pattern {
    Expression expression;
    double value;
} Pattern;
typedef struct PatternList {
    Pattern *items; // [count], the first that fits counts
    int count;
} PatternList;
struct LoraMatch {
    const LoraConfig *config;
    const char *where;
    bool all; // every product
    Expression expression, excluded_expression;
    NameList names, excluded, parameters;
    PatternList ranks, alphas;
    const json_t *layers; // an integer, a list of them, or NULL
    pcre2_match_context *context;
    pcre2_match_data *data;
};

// ---- opening ---------------------------------------------------------------------------------------------
static bool wrong(const LoraMatch *m, const char *key, const json_t *found, const char *expected, Err *err) {
    Buf text = {0};
    if (found) json_write(found, &text);
    fail(err, ERR_DATA, m->where, "%s is %.100s, expected %s", key, found ? text.data : "missing", expected);
    buf_free(&text);
    return false;
}
// An expression that must fit the whole text.
static bool expression_make(const LoraMatch *m, const char *key, const char *text, Expression *out, Err *err) {
    int code;
    PCRE2_SIZE at;
    if (strlen(text) > MAX_PATTERN_BYTES) return fail(err, ERR_DATA, m->where, "%s has an expression of %zu bytes, expected at most %d", key, strlen(text), MAX_PATTERN_BYTES);
    out->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (out->code) return true;
    char message[160] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
    return fail(err, ERR_DATA, m->where, "%s '%.100s' is not an expression: %s at %zu", key, text, message, (size_t)at);
}
static bool names_make(const LoraMatch *m, const char *key, const json_t *list, NameList *out, Err *err) {
    const json_t *item;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > MAX_NAMES)
        return wrong(m, key, list, "a list of names", err);
    out->sorted = xcalloc(json_array_size(list), sizeof *out->sorted);
    out->used = xcalloc(json_array_size(list), sizeof *out->used);
    json_array_foreach(list, i, item) {
        if (!json_is_string(item) || !json_string_value(item)[0]) return wrong(m, key, list, "a list of names", err);
        out->sorted[out->count] = (NameEntry){json_string_value(item), out->count};
        out->count++;
    }
    const char *twice = names_sort(out->sorted, out->count);
    return !twice || fail(err, ERR_DATA, m->where, "%s names '%.100s' twice", key, twice);
}
static bool patterns_make(const LoraMatch *m, const char *key, const json_t *object, bool whole, PatternList *out, Err *err) {
    const char *name;
    json_t *value;
    if (!object) return true;
    if (!json_is_object(object) || json_object_size(object) > MAX_PATTERNS) return wrong(m, key, object, "an object of names and numbers", err);
    out->items = xcalloc(json_object_size(object) + 1, sizeof *out->items);
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        Pattern *p = &out->items[out->count++];
        double number = json_number_value(value);
        bool fits = whole ? json_is_integer(value) && number >= 1 && number <= 4096 : json_is_number(value) && number > 0 && number < 1e9;
        if (!fits) return wrong(m, key, object, whole ? "ranks from 1 to 4096" : "numbers above 0", err);
        p->value = number;
        char *text = xasprintf("(.*\\.)?(%s)", name);
        bool ok = expression_make(m, key, text, &p->expression, err);
        free(text);
        TRY(ok);
    }
    return true;
}
// Empty in every way JSON has for it.
static const json_t *given(const json_t *selection, const char *key) {
    const json_t *v = json_object_get(selection, key);
    bool nothing = !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && json_object_size(v) == 0) ||
                   (json_is_array(v) && json_array_size(v) == 0) || (json_is_string(v) && !json_string_value(v)[0]);
    return nothing ? NULL : v;
}
static bool layers_make(LoraMatch *m, const json_t *layers, const json_t *pattern, bool names, Err *err) {
    const json_t *item, *only = json_is_array(pattern) && json_array_size(pattern) == 1 ? json_array_get(pattern, 0) : pattern;
    size_t i;
    if (pattern && !(json_is_string(only) && strcmp(json_string_value(only), "layers") == 0))
        return wrong(m, "layers_pattern", pattern, "\"layers\": nothing else holds layers", err);
    if (!layers) return true;
    if (!names) return wrong(m, "layers_to_transform", layers, "nothing where target_modules isn't a list of names", err);
    bool fits = json_is_integer(layers) || json_is_array(layers);
    json_array_foreach(layers, i, item) fits &= json_is_integer(item);
    if (!fits) return wrong(m, "layers_to_transform", layers, "the number of a layer, or a list of them", err);
    m->layers = layers;
    return true;
}
static bool open_selection(LoraMatch *m, const json_t *s, Err *err) {
    const json_t *targets = given(s, "target_modules"), *excluded = given(s, "exclude_modules"), *parameters = given(s, "target_parameters");
    const json_t *layers = json_is_integer(json_object_get(s, "layers_to_transform")) ? json_object_get(s, "layers_to_transform") : given(s, "layers_to_transform");
    if (!targets && !parameters) return wrong(m, "target_modules", json_object_get(s, "target_modules"), "a list of names of modules, an expression, or \"all-linear\"", err);
    m->all = json_is_string(targets) && strcmp(json_string_value(targets), "all-linear") == 0;
    if (json_is_string(targets) && !m->all) TRY(expression_make(m, "target_modules", json_string_value(targets), &m->expression, err));
    if (targets && !json_is_string(targets)) TRY(names_make(m, "target_modules", targets, &m->names, err));
    if (parameters) TRY(names_make(m, "target_parameters", parameters, &m->parameters, err));
    if (json_is_string(excluded)) TRY(expression_make(m, "exclude_modules", json_string_value(excluded), &m->excluded_expression, err));
    if (excluded && !json_is_string(excluded)) TRY(names_make(m, "exclude_modules", excluded, &m->excluded, err));
    return layers_make(m, layers, given(s, "layers_pattern"), m->names.count > 0, err) &&
           patterns_make(m, "rank_pattern", given(s, "rank_pattern"), true, &m->ranks, err) &&
           patterns_make(m, "alpha_pattern", given(s, "alpha_pattern"), false, &m->alphas, err);
}
bool lora_match_open(const LoraConfig *c, const char *where, LoraMatch **out, Err *err) {
    LoraMatch *m = xcalloc(1, sizeof *m);
    *m = (LoraMatch){.config = c, .where = where, .all = !c->selection};
    m->context = pcre2_match_context_create(NULL), m->data = pcre2_match_data_create(1, NULL);
    bool ok = (m->context && m->data) || fail(err, ERR_SOFTWARE, where, "no memory for an expression");
    if (ok) {
        pcre2_set_match_limit(m->context, MAX_STEPS);
        pcre2_set_depth_limit(m->context, MAX_DEPTH);
        pcre2_set_heap_limit(m->context, MAX_HEAP_KIB);
    }
    ok = ok && (!c->selection || open_selection(m, c->selection, err));
    *out = ok ? m : NULL;
    if (!ok) lora_match_close(m);
    return ok;
}
static void patterns_free(PatternList *l) {
    for (int i = 0; i < l->count; i++) pcre2_code_free(l->items[i].expression.code);
    free(l->items);
}
void lora_match_close(LoraMatch *m) {
    if (!m) return;
    pcre2_code_free(m->expression.code), pcre2_code_free(m->excluded_expression.code);
    patterns_free(&m->ranks), patterns_free(&m->alphas);
    NameList *lists[] = {&m->names, &m->excluded, &m->parameters};
    for (int i = 0; i < COUNT(lists); i++) free(lists[i]->sorted), free(lists[i]->used);
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    free(m);
}

// ---- matching --------------------------------------------------------------------------------------------
static bool fits(LoraMatch *m, const Expression *e, const char *text, bool *out, Err *err) {
    int rc = pcre2_match(e->code, (PCRE2_SPTR)text, strlen(text), 0, 0, m->data, m->context);
    *out = rc >= 0;
    return rc >= 0 || rc == PCRE2_ERROR_NOMATCH || fail(err, ERR_DATA, m->where, "an expression needs too many steps for '%.100s'", text);
}
// The whole name or an end of it after a dot is in the list.
static bool listed(NameList *l, const char *name) {
    for (const char *at = name; l->count && at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        int i = names_find(l->sorted, l->count, at);
        if (i < 0) continue;
        l->used[i] = true;
        return true;
    }
    return false;
}
static bool in_layers(const LoraMatch *m, int32_t layer) {
    const json_t *item;
    size_t i;
    if (!m->layers) return true;
    if (json_is_integer(m->layers)) return json_integer_value(m->layers) == layer;
    json_array_foreach(m->layers, i, item)
        if (json_integer_value(item) == layer) return true;
    return false;
}
static bool excludes(LoraMatch *m, const char *module, bool *out, Err *err) {
    *out = listed(&m->excluded, module);
    return *out || !m->excluded_expression.code || fits(m, &m->excluded_expression, module, out, err);
}
static bool names_module(LoraMatch *m, const LoraPlace *place, const char *module, bool *out, Err *err) {
    bool excluded;
    *out = false;
    TRY(excludes(m, module, &excluded, err));
    if (excluded) return true;
    *out = (m->all && place->usual) || (listed(&m->names, module) && in_layers(m, place->layer));
    return *out || !m->expression.code || fits(m, &m->expression, module, out, err);
}
static bool pattern_value(LoraMatch *m, const PatternList *l, const char *name, double *value, Err *err) {
    for (int i = 0; i < l->count; i++) {
        bool found;
        TRY(fits(m, &l->items[i].expression, name, &found, err));
        if (!found) continue;
        *value = l->items[i].value;
        return true;
    }
    return true;
}
// By one spelling of the names.
static bool match_names(LoraMatch *m, const LoraPlace *place, const char *module, const char *parameter, LoraChoice *out, Err *err) {
    const char *key = module;
    if (module) TRY(names_module(m, place, module, &out->chosen, err));
    if (!out->chosen) key = parameter, out->chosen = listed(&m->parameters, parameter);
    if (!out->chosen) return true;
    double rank = m->config->rank, alpha = m->config->alpha;
    TRY(pattern_value(m, &m->ranks, key, &rank, err) && pattern_value(m, &m->alphas, key, &alpha, err));
    out->rank = (int32_t)rank, out->alpha = alpha;
    return true;
}
bool lora_match(LoraMatch *m, const LoraPlace *place, LoraChoice *out, Err *err) {
    char module[160], parameter[160];
    *out = (LoraChoice){0};
    TRY(match_names(m, place, place->module, place->parameter, out, err));
    bool other = !out->chosen && lora_other_name(place->parameter, parameter, sizeof parameter);
    if (!other) return true;
    bool has = place->module && lora_other_name(place->module, module, sizeof module);
    return match_names(m, place, has ? module : NULL, parameter, out, err);
}
const char *lora_match_unused(const LoraMatch *m) {
    const NameList *lists[] = {&m->names, &m->parameters};
    for (int k = 0; k < COUNT(lists); k++)
        for (int i = 0; i < lists[k]->count; i++)
            if (!lists[k]->used[lists[k]->sorted[i].index]) return lists[k]->sorted[i].name;
    return NULL;
}
bool lora_other_name(const char *name, char *out, size_t size) {
    static const char published[] = ".block_sparse_moe.";
    const char *at = strstr(name, published);
    if (at) snprintf(out, size, "%.*s.mlp.%s", (int)(at - name), name, at + strlen(published));
    return at != NULL;
}
