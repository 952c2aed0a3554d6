// How much memory is held: every malloc of the process (libraries' too) goes through here. Under the address sanitizer
// its own count serves, and limits on single requests (see fuzz.c) stand in for the limit on the sum.
#include "fuzz.h"
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#ifdef RECKON_SANITIZED
size_t __sanitizer_get_current_allocated_bytes(void);
size_t fuzz_memory_live(void) { return __sanitizer_get_current_allocated_bytes(); }
void fuzz_memory_watch(size_t most) { (void)most; }
#else
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

static size_t live, limit = SIZE_MAX; // targets run in one thread

size_t fuzz_memory_live(void) { return live; }
void fuzz_memory_watch(size_t most) { limit = live + most; }

static void *counted(void *p) {
    if (p) live += malloc_usable_size(p);
    return p;
}
static void check(size_t size) { // before it is asked for
    if (size <= limit && live <= limit - size) return;
    limit = SIZE_MAX;
    fuzz_broken("%zu bytes were asked for with %zu held", size, live);
}

void *malloc(size_t size) {
    check(size);
    return counted(__libc_malloc(size));
}
void *calloc(size_t count, size_t size) {
    size_t all;
    if (!size_mul(count, size, &all)) {
        errno = ENOMEM;
        return NULL;
    }
    check(all);
    return counted(__libc_calloc(count, size));
}
void *realloc(void *p, size_t size) {
    size_t before = p ? malloc_usable_size(p) : 0;
    if (size > before) check(size - before);
    void *q = __libc_realloc(p, size);
    if (q || size == 0) {
        live -= before;
        counted(q);
    }
    return q;
}
void *memalign(size_t align, size_t size) {
    check(size);
    return counted(__libc_memalign(align, size));
}
void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }
int posix_memalign(void **out, size_t align, size_t size) {
    void *p = memalign(align, size);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}
void free(void *p) {
    if (p) live -= malloc_usable_size(p);
    __libc_free(p);
}
#endif
