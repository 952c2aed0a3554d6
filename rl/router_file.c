// router.json: the weights, what they were fitted for, and how questions are put to the model. Sealed by the SHA-256 of the
// rest, and bound to the hash of the model's files of weights (all of them, an adapter's base too): a router never speaks of a model
// that it hasn't seen.
//
// {"format": "reckon router 2", "model": HASH, "recipe": HASH, "fitted": items, "max_tokens",
//  "levels": [{"kind", "level"}], "features": ["..."], "mean": [..], "scale": [..],
//  "told": {"think": [..], "direct": [..], "threshold"}, "untold": {...},
//  "prompts": {"chat", "think": {"system", "instruction", "prefix"}, "direct": {...}}, "seal": HASH}
#include "router.h"
#include "files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "reckon router 2"
enum { MAX_ROUTER_LEVELS = 10000, MAX_ROUTER_TOKENS = 1000000 };

char *router_path(const char *model) {
    return file_is_folder(model) ? path_join(model, ROUTER_FILE) : xasprintf("%s.%s", model, ROUTER_FILE);
}

static json_t *numbers(const double *x, int n) {
    json_t *out = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(out, json_real(x[i]));
    return out;
}
static json_t *model_json(const RouterModel *m, double threshold) {
    return json_pack("{s:o,s:o,s:f}", "think", numbers(m->weight[MODE_THINK], m->width), "direct", numbers(m->weight[MODE_DIRECT], m->width),
                     "threshold", threshold);
}
static json_t *style_json(const PromptStyle *s) {
    return json_pack("{s:s?,s:s?,s:s}", "system", s->system, "instruction", s->instruction, "prefix", s->prefix ? s->prefix : "");
}
json_t *router_features(const Router *r) {
    json_t *out = json_pack("[s,s,s]", "prompt length (log of tokens)", "mean logprob of the direct answer", "least logprob of the direct answer");
    for (int i = 0; i < r->levels; i++) json_array_append_new(out, json_sprintf("%s %d", r->kind[i], r->level[i]));
    return out;
}
static json_t *document(const Router *r) {
    json_t *levels = json_array();
    for (int i = 0; i < r->levels; i++) json_array_append_new(levels, json_pack("{s:s,s:i}", "kind", r->kind[i], "level", r->level[i]));
    json_t *prompts = json_pack("{s:b,s:o,s:o}", "chat", (int)r->chat, "think", style_json(&r->style[MODE_THINK]), "direct",
                                style_json(&r->style[MODE_DIRECT]));
    return json_pack("{s:s,s:s,s:s,s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "format", FORMAT, "model", r->model_hash, "recipe", r->recipe_hash,
                     "fitted", r->fitted, "max_tokens", r->max_tokens, "levels", levels, "features", router_features(r), "mean",
                     numbers(r->mean, ROUTER_PLAIN), "scale", numbers(r->scale, ROUTER_PLAIN), "told", model_json(&r->told, r->threshold[0]),
                     "untold", model_json(&r->untold, r->threshold[1]), "prompts", prompts);
}

static void seal_of(const json_t *document, char out[65]) {
    Buf text = {0};
    json_write(document, &text);
    sha256_hex(text.data, text.size, out);
    buf_free(&text);
}
bool router_write(const Router *r, const char *path, Err *err) {
    json_t *j = document(r);
    if (!j) return fail(err, ERR_DATA, path, "a task's kind or a prompt isn't UTF-8");
    char seal[65];
    Buf text = {0};
    seal_of(j, seal);
    json_object_set_new(j, "seal", json_string(seal));
    json_write(j, &text);
    buf_puts(&text, "\n");
    bool ok = file_write_atomic(path, text.data, text.size, err);
    buf_free(&text);
    json_decref(j);
    return ok;
}

// ---- reading -----------------------------------------------------------------------------------------------
static bool read_numbers(const json_t *list, int n, double *out, const char *what, const char *path, Err *err) {
    if (!json_is_array(list) || json_array_size(list) != (size_t)n) return fail(err, ERR_DATA, path, "'%s': expected a list of %d numbers", what, n);
    for (int i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        if (!json_is_number(v)) return fail(err, ERR_DATA, path, "'%s': expected a list of %d numbers", what, n);
        out[i] = json_number_value(v);
    }
    return true;
}
static bool read_model(const json_t *j, int width, Router *r, RouterModel *m, double *threshold, const char *path, Err *err) {
    m->width = width;
    for (Mode mode = 0; mode < MODES; mode++) {
        m->weight[mode] = ARENA_NEW(&r->arena, double, width);
        TRY(read_numbers(json_object_get(j, mode_names[mode]), width, m->weight[mode], mode_names[mode], path, err));
    }
    const json_t *t = json_object_get(j, "threshold");
    *threshold = json_number_value(t);
    return json_is_number(t) || fail(err, ERR_DATA, path, "'threshold': expected a number");
}
static char *text_of(Router *r, const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));
    return s ? arena_strdup(&r->arena, s) : NULL;
}
static bool read_levels(const json_t *list, Router *r, const char *path, Err *err) {
    size_t n = json_array_size(list), i;
    json_t *one;
    if (!json_is_array(list) || n > MAX_ROUTER_LEVELS) return fail(err, ERR_DATA, path, "'levels': expected a list of at most %d", MAX_ROUTER_LEVELS);
    r->levels = (int)n;
    r->kind = ARENA_NEW(&r->arena, char *, n + 1);
    r->level = ARENA_NEW(&r->arena, int, n + 1);
    json_array_foreach((json_t *)(uintptr_t)list, i, one) {
        r->kind[i] = text_of(r, one, "kind");
        r->level[i] = (int)json_integer_value(json_object_get(one, "level"));
        if (!r->kind[i]) return fail(err, ERR_DATA, path, "'levels': expected a kind and a level each");
    }
    return true;
}
static bool read_document(const json_t *j, Router *r, const char *path, Err *err) {
    const json_t *prompts = json_object_get(j, "prompts");
    const char *model = json_string_value(json_object_get(j, "model")), *recipe = json_string_value(json_object_get(j, "recipe"));
    TRY(read_levels(json_object_get(j, "levels"), r, path, err));
    TRY(read_numbers(json_object_get(j, "mean"), ROUTER_PLAIN, r->mean, "mean", path, err) &&
        read_numbers(json_object_get(j, "scale"), ROUTER_PLAIN, r->scale, "scale", path, err));
    for (int i = 0; i < ROUTER_PLAIN; i++)
        if (!(r->scale[i] > 0)) return fail(err, ERR_DATA, path, "'scale': expected numbers above 0");
    TRY(read_model(json_object_get(j, "told"), 1 + ROUTER_PLAIN + r->levels, r, &r->told, &r->threshold[0], path, err) &&
        read_model(json_object_get(j, "untold"), 1 + ROUTER_PLAIN, r, &r->untold, &r->threshold[1], path, err));
    if (!model || strlen(model) != 64) return fail(err, ERR_DATA, path, "'model': expected a hash of 64 digits");
    const json_t *most = json_object_get(j, "max_tokens");
    if (json_integer_value(most) < 1 || json_integer_value(most) > MAX_ROUTER_TOKENS)
        return fail(err, ERR_DATA, path, "'max_tokens': expected a number from 1 to %d", MAX_ROUTER_TOKENS);
    snprintf(r->model_hash, sizeof r->model_hash, "%s", model);
    snprintf(r->recipe_hash, sizeof r->recipe_hash, "%.64s", recipe ? recipe : "");
    r->fitted = (int)json_integer_value(json_object_get(j, "fitted"));
    r->max_tokens = (int32_t)json_integer_value(most);
    r->chat = json_is_true(json_object_get(prompts, "chat"));
    for (Mode mode = 0; mode < MODES; mode++) {
        const json_t *style = json_object_get(prompts, mode_names[mode]);
        r->style[mode] = (PromptStyle){text_of(r, style, "system"), text_of(r, style, "instruction"), text_of(r, style, "prefix")};
        if (!r->style[mode].prefix) return fail(err, ERR_DATA, path, "'prompts': expected a prefix for think and one for direct");
    }
    return true;
}
bool router_read(const char *path, Router *out, Err *err) {
    json_t *j;
    char seal[65] = "";
    *out = (Router){0};
    TRY(json_read_file(path, 16 << 20, &j, err));
    const char *format = json_string_value(json_object_get(j, "format"));
    json_t *said = json_incref(json_object_get(j, "seal"));
    bool ok = (format && !strcmp(format, FORMAT)) || fail(err, ERR_DATA, path, "expected '" FORMAT "'");
    json_object_del(j, "seal");
    seal_of(j, seal);
    if (ok && (!json_is_string(said) || strcmp(json_string_value(said), seal) != 0)) ok = fail(err, ERR_DATA, path, "its seal doesn't fit its content");
    ok = ok && read_document(j, out, path, err);
    json_decref(said);
    json_decref(j);
    if (!ok) router_free(out);
    return ok;
}
bool router_of_model(const char *model, Router *out, Err *err) {
    char *path = router_path(model), hash[65];
    *out = (Router){0};
    bool ok = file_exists(path) ||
              fail(err, ERR_NOINPUT, path, "is not there: this model has no router; 'reckon compare %.200s --arm routed' fits one (with --recipe FILE where it isn't a run)", model);
    ok = ok && router_read(path, out, err) && policy_files_hash(model, hash, err);
    if (ok && strcmp(hash, out->model_hash) != 0)
        ok = fail(err, ERR_DATA, path, "was fitted for other weights (%.12s, found %.12s); 'reckon compare --arm routed' fits it again", out->model_hash, hash);
    if (!ok) router_free(out);
    free(path);
    return ok;
}
void router_free(Router *r) {
    arena_reset(&r->arena);
    *r = (Router){0};
}
