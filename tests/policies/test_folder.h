// A folder of a test's own: made, named into, removed with all that is in it.
#ifndef RECKON_TEST_FOLDER_H
#define RECKON_TEST_FOLDER_H
#include "../test.h"
#include "files.h"
#include <unistd.h>

static char folder[64];
static inline void folder_start(void) {
    strcpy(folder, "/tmp/reckon-policies-XXXXXX");
    CHECK(mkdtemp(folder));
}
static inline void folder_end(void) {
    Err err = {0};
    OK(folder_remove(folder, &err));
}
static inline const char *inside(const char *name) {
    static char paths[4][96];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

#endif
