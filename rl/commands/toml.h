// TOML 1.0 into JSON values (toml.c).
#ifndef RECKON_TOML_H
#define RECKON_TOML_H
#include "json.h"

// The document of `size` bytes as an object; dates and times become texts as they are written. Errors name file:line:column.
bool toml_parse(const char *text, size_t size, const char *path, json_t **out, Err *err) MUST_CHECK;

#endif
