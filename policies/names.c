#include "names.h"
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
    return strcmp(((const NameEntry *)a)->name, ((const NameEntry *)b)->name);
}
const char *names_sort(NameEntry *entries, int count) {
    if (count > 1) qsort(entries, (size_t)count, sizeof *entries, compare);
    for (int i = 1; i < count; i++)
        if (strcmp(entries[i - 1].name, entries[i].name) == 0) return entries[i].name;
    return NULL;
}
int names_find(const NameEntry *entries, int count, const char *name) {
    NameEntry key = {.name = name};
    if (count == 0) return -1;
    const NameEntry *found = bsearch(&key, entries, (size_t)count, sizeof *entries, compare);
    return found ? found->index : -1;
}
