// What the options of TRL, verl, OpenRLHF and prime-rl are called here: one table a program (programs.c), which `recipe convert` turns
// configurations into recipes with, and `calc` reads the options of its cases by.
#ifndef RECKON_PROGRAMS_H
#define RECKON_PROGRAMS_H
#include "json.h"

typedef struct OptionMap {
    const char *theirs; // an option's name, or the end of its dotted path
    const char *ours;   // "algo.kl", "stage.steps", "model.path"; NULL: only read by `finish`, or of no effect here
    const char *words;  // for words: "group=group|none=none"; NULL: the value itself
    const char *note;   // why there is nothing to set, where `ours` is NULL
} OptionMap;

// What has been read: every leaf under its row's name, and the recipe under construction.
typedef struct Conversion {
    json_t *seen;   // {row's name: value}
    json_t *recipe; // {"stage":{..},"algo":{..},"optimizer":{..},"sampling":{..},"model":{..}}
    json_t *notes;  // list of texts
} Conversion;
typedef struct Program {
    const char *name, *title, *preset;
    const OptionMap *options;         // ends with a row without a name
    void (*finish)(Conversion *c);    // what several options decide together
} Program;
extern const Program programs[]; // ends with a row without a name

const Program *program_named(const char *name); // NULL: there is none
// "actor.clip_ratio" is the row of the path "actor_rollout_ref.actor.clip_ratio". The longest row wins; NULL: none.
const OptionMap *program_row(const Program *p, const char *path);
// The word of a recipe that a row's words map a text or a flag to, new; NULL: none.
json_t *program_word(const OptionMap *row, const json_t *value);

#endif
