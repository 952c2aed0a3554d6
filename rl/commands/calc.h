// What `calc` and the option tables of the other programs share: one case of a file, and its readers. A reader or a
// table ends a case in one of three ways: a result, "unsupported" with the reason (false, `why` filled, `err` not),
// or a malformed file (false, `err` filled with the place).
#ifndef RECKON_CALC_H
#define RECKON_CALC_H
#include "rl.h"

typedef struct CalcCase {
    const char *file;
    int index;
    const char *source;     // the program and version whose numbers the case holds; NULL if the file doesn't say
    const json_t *config, *inputs;
    Arena arena;            // of everything read from the case
    char why[256];          // unsupported: the option and its value
} CalcCase;

// Ragged numbers of an input, [rows][length[row]], concatenated.
typedef struct Ragged {
    int rows;
    int32_t *length;
    int64_t count;
    double *values;
} Ragged;

bool calc_unsupported(CalcCase *c, const char *format, ...) PRINTF_LIKE(2, 3); // returns false
// `path` is where in the case, such as "inputs.mask"; returns false.
bool calc_malformed(const CalcCase *c, const char *path, const char *expected, Err *err);

// Each reads inputs[key]. An absent or null input gives `values` NULL. Numbers may be null (NaN), "inf" and "-inf".
// `shape` (may be NULL) is what a ragged input has to agree with.
bool calc_ragged(CalcCase *c, const char *key, const Ragged *shape, Ragged *out, Err *err) MUST_CHECK;
bool calc_list(CalcCase *c, const char *key, int *count, double **values, Err *err) MUST_CHECK;
bool calc_mask(CalcCase *c, const char *key, const Ragged *shape, uint8_t **mask, Err *err) MUST_CHECK;
// Every input of the case is one of `names` (NULL-terminated) or null; otherwise the case is unsupported.
bool calc_inputs_known(CalcCase *c, const char *const *names);

json_t *calc_ragged_json(const Ragged *shape, const double *values);

// A row of a program's option table.
typedef enum CalcOptionKind {
    CALC_NUMBER,  // to a double at `offset`; null leaves what is there
    CALC_COUNT,   // to a double, an integer of at least 1; a text means 1
    CALC_FLAG,    // to a bool
    CALC_TEXT,    // to a const char *
    CALC_NEUTRAL, // only the value `neutral` (as JSON) is what reckon computes
    CALC_IDLE,    // plays no part unless an option refused by another row is on
} CalcOptionKind;
typedef struct CalcOption {
    const char *name;
    CalcOptionKind kind;
    size_t offset;
    const char *neutral;
} CalcOption;
// Reads the case's config through a table that ends with a row without a name; an option without a row is unsupported.
bool calc_options(CalcCase *c, const CalcOption *table, void *out, Err *err) MUST_CHECK;

// One program's tables: calc_trl.c and its like.
typedef bool (*CalcFunction)(CalcCase *c, json_t *expected, Err *err);
bool trl_objective(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;
bool trl_advantage(CalcCase *c, json_t *expected, Err *err) MUST_CHECK;

#endif
