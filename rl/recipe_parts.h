// What the files that read a recipe share: the schema's rows, the map from keys to lines, and the reading itself.
#ifndef RECKON_RECIPE_PARTS_H
#define RECKON_RECIPE_PARTS_H
#include "rl.h"

// ---- the schema (recipe_schema.c) ------------------------------------------------------------------------
typedef enum FieldKind {
    FIELD_INT,     // int
    FIELD_INT64,   // uint64_t
    FIELD_NUMBER,  // double
    FIELD_BOOL,    // bool
    FIELD_TEXT,    // char *, NULL where there is none
    FIELD_CHOICE,  // int: the position in `choices`
    FIELD_INTS,    // int * and a count; distinct values
    FIELD_TEXTS,   // NULL-terminated list of non-empty texts
    FIELD_SECTION, // a table with `fields` of its own, stored in the same struct
    FIELD_LIST,    // a list whose elements recipe.c resolves by their kind
} FieldKind;

// One key of a recipe: validation, default, where its value is stored, and what it means.
typedef struct Field {
    const char *key;
    FieldKind kind;
    const char *help;
    double low, high;      // inclusive range of numbers, of a list's numbers, and of a text's bytes
    bool above;            // `low` itself is out of range
    const char *choices;   // "fp32|bf16", in the order of the enum
    const char *otherwise; // the default as JSON; NULL: none, the key may stay out
    bool required;
    bool shared;           // a section that stages take over where they don't say otherwise
    bool outside;          // says where and how fast, not what: kept out of the recipe's hash
    bool placed;           // has a place in the struct:
    size_t offset, count_offset;
    const struct Field *fields; // of a section
} Field;
#define FIELD_END {0}

// A kind of task or stage: its name is the first word of the element, its fields are the rest.
typedef struct Variant {
    const char *name;
    const Field *fields;
} Variant;

extern const Field recipe_fields[];       // into Recipe
extern const Field reward_fields[];       // into RewardSpec; further keys are the script's options
extern const Variant task_variants[];     // into TaskSpec
extern const Variant stage_variants[];    // into Stage, in the order of StageKind

typedef struct Preset {
    const char *name;
    int layers, width, heads, kv_heads, feed_forward;
} Preset;
extern const Preset recipe_presets[]; // ends with a row whose name is NULL

// Gives a raw grpo stage the defaults of the preset that its algo names, if any (presets.c).
void preset_apply(json_t *stage);

const Field *field_find(const Field *fields, const char *key);
void field_expected(const Field *f, Buf *out); // "an integer from 1 to 6"

// ---- lines (recipe_lines.c) ------------------------------------------------------------------------------
// Where the keys of literal tables stand: "stages.2.algo.kl" -> 14. Positions count from 1.
typedef struct RecipeLines RecipeLines;
RecipeLines *recipe_lines_read(const char *text, size_t size);
void recipe_lines_free(RecipeLines *l);
// The line of a path; else of the first mention of its last key, else of the nearest table around it, else 1.
long recipe_line(const RecipeLines *l, const char *path);

// ---- validation (recipe_check.c) -------------------------------------------------------------------------
typedef struct Reading {
    const char *path;
    RecipeLines *lines;
} Reading;

// Fills `err` with RECIPE:LINE of `path`, or with the --set argument that `value` (may be NULL) came from.
bool recipe_fail(const Reading *r, int code, const char *path, const json_t *value, Err *err, const char *format, ...)
    PRINTF_LIKE(6, 7);
// Puts "a.b=c" into the raw recipe as {"$set": "c", "$argument": "a.b=c"}; resolving gives it the field's type.
bool recipe_apply_set(json_t *raw, const char *argument, Err *err) MUST_CHECK;
// Checks `raw` against `fields` and writes every field to `out`, defaults included, null where there is none.
// With `rest`, unknown keys go there instead of being errors.
bool recipe_resolve_section(const Reading *r, const Field *fields, const json_t *raw, const char *path, json_t *rest,
                            json_t *out, Err *err) MUST_CHECK;
// Stores a resolved section into the struct that the fields' offsets speak of. Memory is the arena's.
void recipe_store(const Field *fields, const json_t *resolved, void *into, Arena *arena);

#endif
