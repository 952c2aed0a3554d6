// A plan of one range of memory that is handed out in pieces and taken back: first fit, pieces next to each other merge. It
// keeps offsets only, so the range may be a device's memory. Not shared between threads.
#ifndef RECKON_SLAB_H
#define RECKON_SLAB_H
#include "base.h"

typedef struct Slab Slab;
enum { SLAB_ALIGNMENT = 256 };
Slab *slab_open(size_t bytes);
void slab_close(Slab *s);
bool slab_take(Slab *s, size_t bytes, size_t *offset) MUST_CHECK; // false where no hole is large enough
void slab_give(Slab *s, size_t offset);                           // an offset that was taken
size_t slab_piece_bytes(const Slab *s, size_t offset);            // of an offset that was taken, rounded up
size_t slab_free_bytes(const Slab *s);                            // in all holes together
size_t slab_largest_hole(const Slab *s);
size_t slab_peak_bytes(const Slab *s);                            // taken at the same time, at most so far

#endif
