// What the readers of tokenizer.json share: the file that is read, places in it for errors, and members of its objects.
#ifndef RECKON_TOKENIZER_READER_H
#define RECKON_TOKENIZER_READER_H
#include "tokenizer_parts.h"
#include <stdio.h>
#include <string.h>

typedef struct Reader {
    Tokenizer *t;
    const char *path; // of the file being read
    char place[256];
    bool hidden; // NUL is HIDDEN_NUL in keys
    Err *err;
} Reader;

// "FILE: FIELD", for an error; valid until the next call.
static inline const char *at(Reader *r, const char *format, ...) PRINTF_LIKE(2, 3);
static inline const char *at(Reader *r, const char *format, ...) {
    char field[128];
    va_list ap;
    va_start(ap, format);
    vsnprintf(field, sizeof field, format, ap);
    va_end(ap);
    snprintf(r->place, sizeof r->place, "%s: %s", r->path, field);
    return r->place;
}
static inline const json_t *get(const json_t *object, const char *key) { // NULL if missing or null
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}
static inline const char *get_text(const json_t *object, const char *key) { return json_string_value(get(object, key)); }
static inline bool type_is(const json_t *object, const char *type) {
    const char *found = get_text(object, "type");
    return found && strcmp(found, type) == 0;
}

#endif
