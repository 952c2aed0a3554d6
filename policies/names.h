// Names to positions: a sorted index for the tens of thousands of tensors or keys that a file may hold.
#ifndef RECKON_NAMES_H
#define RECKON_NAMES_H
#include "base.h"

typedef struct NameEntry {
    const char *name; // not owned
    int index;
} NameEntry;

// Sorts in place. NULL, or a name that occurs twice.
const char *names_sort(NameEntry *entries, int count);
// Position given with the name, -1 if missing.
int names_find(const NameEntry *entries, int count, const char *name);

#endif
