// --adapter, of the commands that answer with a model: several adapters on one base, opened once.
#ifndef RECKON_ADAPTERS_H
#define RECKON_ADAPTERS_H
#include "command.h"
#include "policy.h"

enum { MAX_ADAPTERS = 64 };
typedef struct AdapterList {
    char *name[MAX_ADAPTERS]; // as answers are labelled
    int index[MAX_ADAPTERS];  // of the policy; -1: the base alone
    int count;                // 0: none was asked for, and the policy stays as it was opened
} AdapterList;

#define OPTION_ADAPTERS                                                                                      \
    {.name = "adapter", .kind = OPTION_LIST, .value = "[NAME=]DIR", .help = "a PEFT adapter on top of the model; 'none': the model alone"}

// Opens what --adapter names, each a folder, or NAME=DIR to name it otherwise than by the folder. Names are distinct.
bool adapters_open(const Args *args, Policy *p, AdapterList *out, Err *err) MUST_CHECK;
void adapters_free(AdapterList *a);
// How many times a command answers, and what the policy answers with at turn `i`; the name, or NULL without --adapter.
static inline int adapters_turns(const AdapterList *a) { return a->count ? a->count : 1; }
const char *adapters_turn(const AdapterList *a, Policy *p, int i);

#endif
