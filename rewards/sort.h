// Sorting inside of a worker: the C library's qsort asks the system how much memory there is, which the process wall
// forbids. A heap sort: in place, no order of input makes it slow.
#ifndef RECKON_SORT_H
#define RECKON_SORT_H
#include <stdint.h>

// `compare` gets two of the pointers.
void sort_pointers(const void **list, int64_t count, int (*compare)(const void *a, const void *b, const void *context),
                   const void *context); // [count]

#endif
