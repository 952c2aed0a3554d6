// What the files that read a recipe share: the schema's rows, the map from keys to lines, and the reading itself.
#ifndef RECKON_RECIPE_PARTS_H
#define RECKON_RECIPE_PARTS_H
#include "rl.h"
#include <stdlib.h>

// ---- the schema (recipe_schema.c) ------------------------------------------------------------------------
typedef enum FieldKind {
    FIELD_INT,     // int
    FIELD_INT64,   // uint64_t
    FIELD_NUMBER,  // double
    FIELD_BOOL,    // bool
    FIELD_TEXT,    // char *, NULL where there is none
    FIELD_CHOICE,  // int: the position in `choices`
    FIELD_INTS,    // int * and a count; distinct values
    FIELD_NUMBERS, // double * and a count
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
extern const Field script_task_fields[];  // the same of a task in Lua; further keys are the script's options
extern const Field sft_fields[], grpo_fields[], reject_fields[], distill_fields[], merge_fields[]; // into Stage; a kind's row names its own (stage_kinds.c)

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

// ---- a recipe under construction (recipe.c) -----------------------------------------------------------------
typedef struct Build {
    Reading reading;
    json_t *raw; // as the script returned it, with overrides in place
    json_t *out; // resolved
    Recipe *r;
} Build;

// What the script gave at a path, or NULL.
json_t *recipe_raw_at(const json_t *raw, const char *path);
#define REJECT(b, code, path, ...)                                                                           \
    recipe_fail(&(b)->reading, code, path, recipe_raw_at((b)->raw, path), err, __VA_ARGS__)

static inline bool is_given(const json_t *section, const char *key) {
    const json_t *v = json_object_get(section, key);
    return v && !json_is_null(v);
}
static inline int int_of(const json_t *section, const char *key) { return (int)json_integer_value(json_object_get(section, key)); }
static inline void set_int(json_t *section, const char *key, int64_t value) {
    json_object_set_new(section, key, json_integer(value));
}
// A default that follows from other keys.
static inline void set_int_default(json_t *section, const char *key, int64_t value) {
    if (!is_given(section, key)) set_int(section, key, value);
}

// ---- lists (recipe_lists.c) ------------------------------------------------------------------------------
// "correct", {"correct"} and {"correct", weight=2} all become {"$kind":"correct", ...}, and back, as a script returns it.
void recipe_name_elements(json_t *list);
void recipe_unname_elements(json_t *list, const char *kind_key);
// Elements whose first word names one of `variants`. Each resolved element has its kind under "kind".
bool recipe_resolve_variants(Build *b, const char *key, const char *what, const char *example, const Variant *variants, Err *err) MUST_CHECK;
bool recipe_resolve_tasks(Build *b, Err *err) MUST_CHECK;
bool recipe_resolve_rewards(Build *b, Err *err) MUST_CHECK;
bool recipe_store_tasks(Build *b, Err *err) MUST_CHECK;
bool recipe_store_rewards(Build *b, Err *err) MUST_CHECK; // after the tasks
// What a kind of stage needs that is more than one key: a function for each that its row names (recipe.c).
bool recipe_check_sft(Build *b, json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_grpo(Build *b, json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_reject(Build *b, json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_distill(Build *b, json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_merge(Build *b, json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_sampling(Build *b, const json_t *stage, const char *path, Err *err) MUST_CHECK;
bool recipe_check_from(Build *b, const json_t *stage, const char *path, Err *err) MUST_CHECK;
// The stage before `path` ("stages.3") of that name, resolved; NULL: there is none.
const json_t *recipe_earlier_stage(const Build *b, const char *path, const char *name);
// Paths of the files and models that a stage names.
bool recipe_locate_stage_files(Build *b, Stage *stage, int index, Err *err) MUST_CHECK;
// The path of a file that a recipe names: beside it, else in the working folder. The arena's.
char *recipe_locate(Arena *arena, const char *first, const char *second, const char *name);
bool recipe_locate_input(Build *b, const char *at, const char *what, const char *name, const char **out, Err *err) MUST_CHECK;

#endif
