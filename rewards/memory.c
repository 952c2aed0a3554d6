// Size classes of 16 bytes up to 1 KiB, then four a doubling up to LARGE; free blocks are chained per class, never
// joined. All of the bookkeeping of small blocks lies at the start of the region itself, so that a snapshot holds it.
#include "memory.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STEP = 16, FINE = 64, LARGE = 32768, CLASSES = FINE + 1 + 4 * 5 };

typedef struct FreeBlock {
    struct FreeBlock *next;
} FreeBlock;

typedef struct Region {
    size_t top;  // bytes handed out from the region, this header included
    size_t live; // bytes in use, small and large
    bool frozen;
    FreeBlock *free[CLASSES];
} Region;

typedef struct LargeBlock {
    struct LargeBlock *next, **link;
    _Alignas(16) char data[];
} LargeBlock;

struct SandboxMemory {
    size_t limit, region_size;
    Region *region;
    LargeBlock *large;
};

bool memory_open(size_t limit, SandboxMemory **out, Err *err) {
    *out = NULL;
    // Blocks of different classes never share memory, so the region is larger than what may be live in it.
    size_t size = 2 * limit + (4 << 20);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return fail(err, 71, "script", "out of memory: %zu bytes of address space asked for", size);
    SandboxMemory *m = xcalloc(1, sizeof *m);
    m->limit = limit;
    m->region = p;
    m->region_size = size;
    m->region->top = (sizeof(Region) + STEP - 1) / STEP * STEP;
    *out = m;
    return true;
}

void memory_unlimit(SandboxMemory *m) { m->limit = SIZE_MAX / 2; }

static void drop_large(SandboxMemory *m) {
    for (LargeBlock *b = m->large, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    m->large = NULL;
}
void memory_close(SandboxMemory *m) {
    if (!m) return;
    drop_large(m);
    munmap(m->region, m->region_size);
    free(m);
}

static int class_of(size_t size, size_t *rounded) {
    if (size <= STEP * FINE) {
        *rounded = (size + STEP - 1) / STEP * STEP;
        return (int)(*rounded / STEP);
    }
    int shift = 63 - __builtin_clzll(size - 1) - 2; // a quarter of the power of two below
    size_t step = (size_t)1 << shift;
    *rounded = (size + step - 1) / step * step;
    return FINE + 1 + (shift - 8) * 4 + (int)((*rounded >> shift) - 5);
}

static bool in_region(const SandboxMemory *m, const void *p) {
    return (uintptr_t)p - (uintptr_t)m->region < m->region_size;
}

static void *small_take(SandboxMemory *m, size_t size) {
    size_t rounded;
    Region *r = m->region;
    if (size > LARGE) { // only before the snapshot: the code of a long script
        rounded = (size + STEP - 1) / STEP * STEP;
    } else {
        int k = class_of(size, &rounded);
        FreeBlock *b = r->free[k];
        if (b) {
            r->free[k] = b->next;
            return b;
        }
    }
    if (rounded > m->region_size - r->top) return NULL;
    void *p = (char *)r + r->top;
    r->top += rounded;
    return p;
}

static void *take(SandboxMemory *m, size_t size) {
    Region *r = m->region;
    if (size > m->limit || r->live > m->limit - size) return NULL;
    void *p;
    if (size > LARGE && r->frozen) {
        LargeBlock *b = malloc(sizeof *b + size);
        if (!b) return NULL;
        b->next = m->large;
        b->link = &m->large;
        if (b->next) b->next->link = &b->next;
        m->large = b;
        p = b->data;
    } else {
        p = small_take(m, size);
    }
    if (p) r->live += size;
    return p;
}

static void give(SandboxMemory *m, void *p, size_t size) {
    Region *r = m->region;
    r->live -= size;
    if (in_region(m, p)) {
        if (size > LARGE) return;
        size_t rounded;
        FreeBlock *b = p;
        int k = class_of(size, &rounded);
        b->next = r->free[k];
        r->free[k] = b;
        return;
    }
    LargeBlock *b = (LargeBlock *)((char *)p - offsetof(LargeBlock, data));
    *b->link = b->next;
    if (b->next) b->next->link = b->link;
    free(b);
}

void *memory_realloc(SandboxMemory *m, void *block, size_t old_size, size_t new_size) {
    if (new_size == 0) {
        if (block) give(m, block, old_size);
        return NULL;
    }
    if (!block) return take(m, new_size);
    size_t old_rounded = 0, new_rounded = 1;
    if (old_size <= LARGE && new_size <= LARGE) {
        class_of(old_size, &old_rounded), class_of(new_size, &new_rounded);
        if (old_rounded == new_rounded && (new_size <= old_size || m->region->live <= m->limit - (new_size - old_size))) {
            m->region->live += new_size - old_size;
            return block;
        }
    }
    void *p = take(m, new_size);
    if (!p) {
        if (new_size > old_size) return NULL;
        m->region->live -= old_size - new_size;
        return block;
    }
    memcpy(p, block, old_size < new_size ? old_size : new_size);
    give(m, block, old_size);
    return p;
}

void *memory_snapshot(SandboxMemory *m, size_t *size) {
    m->region->frozen = true;
    *size = m->region->top;
    return memcpy(xmalloc(*size), m->region, *size);
}
void memory_restore(SandboxMemory *m, const void *snapshot, size_t size) {
    drop_large(m);
    memcpy(m->region, snapshot, size);
}
