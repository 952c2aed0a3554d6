// First fit over a list of pieces in the order of their offsets; see slab.h. A program holds some thousands of pieces at
// most, and takes them before its work begins, so a list is enough.
#include "slab.h"
#include <stdlib.h>
#include <string.h>

typedef struct Piece {
    size_t offset, bytes;
    bool taken;
} Piece;

struct Slab {
    Piece *pieces;
    int count, capacity;
    size_t taken, peak;
};

Slab *slab_open(size_t bytes) {
    Slab *s = xcalloc(1, sizeof *s);
    s->capacity = 64;
    s->pieces = xcalloc((size_t)s->capacity, sizeof *s->pieces);
    s->pieces[s->count++] = (Piece){.bytes = bytes / SLAB_ALIGNMENT * SLAB_ALIGNMENT};
    return s;
}

void slab_close(Slab *s) {
    if (!s) return;
    free(s->pieces);
    free(s);
}

static void insert(Slab *s, int at, Piece piece) {
    if (s->count == s->capacity) s->pieces = xrealloc(s->pieces, (size_t)(s->capacity *= 2) * sizeof *s->pieces);
    memmove(s->pieces + at + 1, s->pieces + at, (size_t)(s->count - at) * sizeof *s->pieces);
    s->pieces[at] = piece;
    s->count++;
}

static void remove_piece(Slab *s, int at) {
    memmove(s->pieces + at, s->pieces + at + 1, (size_t)(s->count - at - 1) * sizeof *s->pieces);
    s->count--;
}

bool slab_take(Slab *s, size_t bytes, size_t *offset) {
    size_t padded;
    if (!size_add(bytes ? bytes : 1, SLAB_ALIGNMENT - 1, &padded)) return false;
    padded = padded / SLAB_ALIGNMENT * SLAB_ALIGNMENT;
    for (int i = 0; i < s->count; i++) {
        Piece *p = &s->pieces[i];
        if (p->taken || p->bytes < padded) continue;
        Piece rest = {.offset = p->offset + padded, .bytes = p->bytes - padded};
        *offset = p->offset;
        p->bytes = padded;
        p->taken = true;
        s->taken += padded;
        if (s->taken > s->peak) s->peak = s->taken;
        if (rest.bytes) insert(s, i + 1, rest);
        return true;
    }
    return false;
}

void slab_give(Slab *s, size_t offset) {
    for (int i = 0; i < s->count; i++) {
        if (s->pieces[i].offset != offset || !s->pieces[i].taken) continue;
        s->pieces[i].taken = false;
        s->taken -= s->pieces[i].bytes;
        if (i + 1 < s->count && !s->pieces[i + 1].taken) {
            s->pieces[i].bytes += s->pieces[i + 1].bytes;
            remove_piece(s, i + 1);
        }
        if (i > 0 && !s->pieces[i - 1].taken) {
            s->pieces[i - 1].bytes += s->pieces[i].bytes;
            remove_piece(s, i);
        }
        return;
    }
}

size_t slab_piece_bytes(const Slab *s, size_t offset) {
    for (int i = 0; i < s->count; i++)
        if (s->pieces[i].offset == offset && s->pieces[i].taken) return s->pieces[i].bytes;
    return 0;
}

size_t slab_free_bytes(const Slab *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->count; i++) bytes += s->pieces[i].taken ? 0 : s->pieces[i].bytes;
    return bytes;
}

size_t slab_largest_hole(const Slab *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->count; i++)
        if (!s->pieces[i].taken && s->pieces[i].bytes > bytes) bytes = s->pieces[i].bytes;
    return bytes;
}

size_t slab_peak_bytes(const Slab *s) { return s->peak; }
