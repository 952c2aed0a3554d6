// The tables of `recipe convert`: what another program's options are called here (recipe_programs.c).
#ifndef RECKON_RECIPE_CONVERT_H
#define RECKON_RECIPE_CONVERT_H
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

#endif
