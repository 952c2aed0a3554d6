// `calc verify`, `calc extract` and `calc shaping`: whether two answers are equal, what a text says its answer is, and
// what the shaping of rewards makes of lengths and texts, each by the functions that reward scripts call.
#include "calc.h"
#include "extract.h"
#include "verify.h"
#include <stdio.h>
#include <string.h>

static bool read_text(const CalcCase *c, const char *key, TextSpan *out, Err *err) {
    char path[96];
    const json_t *value = json_object_get(c->inputs, key);
    snprintf(path, sizeof path, "inputs.%s", key);
    if (!json_is_string(value)) return calc_malformed(c, path, "a text", err);
    *out = (TextSpan){json_string_value(value), json_string_length(value)};
    return true;
}

bool calc_verify(CalcCase *c, json_t *expected, Err *err) {
    TextSpan gold, candidate;
    TRY(read_text(c, "gold", &gold, err));
    TRY(read_text(c, "candidate", &candidate, err));
    const json_t *category = json_object_get(c->given, "category"); // names the case where it has no name
    if (category && !json_object_get(c->given, "name")) json_object_set(expected, "name", (json_t *)(uintptr_t)category);
    json_object_set_new(expected, "equal", json_boolean(verify_equal(gold, candidate, NULL)));
    return true;
}

bool calc_extract(CalcCase *c, json_t *expected, Err *err) {
    TextSpan text, answer;
    TRY(read_text(c, "text", &text, err));
    bool found = extract_answer_tag(text, &answer);
    json_object_set_new(expected, "answer_tag", found ? json_stringn(answer.data, answer.size) : json_null());
    return true;
}
