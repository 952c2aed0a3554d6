// Files of the source tree that the binary carries (written by scripts/embed at build time).
#ifndef RECKON_EMBEDDED_H
#define RECKON_EMBEDDED_H
#include <stddef.h>

typedef struct EmbeddedFile {
    const char *name;   // base name, such as "correct.lua"
    const char *folder; // base name of the folder it lay in, such as "rewards"
    const char *data; // NUL-terminated for convenience; `size` does not count that NUL
    size_t size;
} EmbeddedFile;

extern const EmbeddedFile embedded_files[]; // ends with a row whose name is NULL

#endif
