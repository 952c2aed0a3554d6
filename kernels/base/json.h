// The one reader of JSON: jansson with our limits. Duplicate keys, trailing text, NaN, Infinity, numbers out of
// range, invalid UTF-8 and lone surrogates are errors with file:line:column; \u0000 is a legal character.
#ifndef RECKON_JSON_H
#define RECKON_JSON_H
#include "base.h"
#include <jansson.h>

// A whole file holding one JSON value. Exit codes: 66 not there, 65 malformed or larger than `limit` bytes.
bool json_read_file(const char *path, size_t limit, json_t **out, Err *err) MUST_CHECK;
// One value from memory; `path` and `line` (1-based) only name the place in errors.
bool json_parse(const char *text, size_t size, const char *path, long line, json_t **out, Err *err) MUST_CHECK;

// JSON Lines: calls `row` for each non-empty line with its 1-based number until it returns false. A byte-order mark
// at the start, CRLF and a missing final newline are fine. A line over `line_limit` bytes is an error. A file whose
// name ends in ".zst" is decompressed.
typedef bool (*JsonRow)(void *context, json_t *value, long line, Err *err);
bool json_lines(const char *path, size_t line_limit, JsonRow row, void *context, Err *err) MUST_CHECK;

// Compact text with sorted keys and 17 significant digits (so doubles round-trip): canonical, fit for hashing.
void json_write(const json_t *value, Buf *out);
// A number; NaN and infinities become null, "inf", "-inf".
json_t *json_number_or_name(double x);

#endif
