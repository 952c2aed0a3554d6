// Keys of config.json one at a time, for the files that read it.
#ifndef RECKON_CONFIG_PARTS_H
#define RECKON_CONFIG_PARTS_H
#include "family.h"

// JSON null counts as missing.
static inline const json_t *key_of(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}
static inline bool wrong(const char *path, const char *key, const json_t *found, const char *expected, Err *err) {
    Buf text = {0};
    if (found) json_write(found, &text);
    fail(err, ERR_DATA, path, "%s is %.100s%s, expected %s", key, found ? text.data : "missing", text.size > 100 ? "..." : "", expected);
    buf_free(&text);
    return false;
}
// A missing key leaves *out as it is where it isn't required.
static inline bool get_int(const json_t *config, const char *path, const char *key, bool required, int32_t *out, Err *err) {
    const json_t *v = key_of(config, key);
    if (!v && !required) return true;
    json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (n < 1 || n > INT32_MAX) return wrong(path, key, v, "an integer from 1 to 2147483647", err);
    *out = (int32_t)n;
    return true;
}
static inline bool get_number(const json_t *config, const char *path, const char *key, double *out, Err *err) {
    const json_t *v = key_of(config, key);
    if (!v) return true;
    if (!json_is_number(v)) return wrong(path, key, v, "a number", err);
    *out = json_number_value(v);
    return true;
}
static inline bool get_bool(const json_t *config, const char *path, const char *key, bool *out, Err *err) {
    const json_t *v = key_of(config, key);
    if (!v) return true;
    if (!json_is_boolean(v)) return wrong(path, key, v, "true or false", err);
    *out = json_is_true(v);
    return true;
}

// config_mixture.c: the keys of mixtures of experts and of latent attention. `known` tells whether the family has the key; `read`
// comes after the shapes and windows of the rest, `check` with the other ranges, `write` adds to what config.json has.
bool mixture_known(const Family *f, const char *key);
bool mixture_read(const json_t *config, const char *path, const Family *f, ModelConfig *out, Err *err) MUST_CHECK;
bool mixture_check(const ModelConfig *c, const char *where, Err *err) MUST_CHECK;
void mixture_write(const ModelConfig *c, json_t *out);

#endif
