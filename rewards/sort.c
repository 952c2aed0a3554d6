// Heap sort of pointers.
#include "sort.h"

typedef int (*Compare)(const void *a, const void *b, const void *context);

static void swap(const void **list, int64_t a, int64_t b) {
    const void *t = list[a];
    list[a] = list[b], list[b] = t;
}

static void sift(const void **list, int64_t at, int64_t count, Compare compare, const void *context) {
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && compare(list[child], list[child + 1], context) < 0) child++;
        if (compare(list[at], list[child], context) >= 0) return;
        swap(list, at, child);
    }
}

void sort_pointers(const void **list, int64_t count, Compare compare, const void *context) {
    for (int64_t i = count / 2 - 1; i >= 0; i--) sift(list, i, count, compare, context);
    for (int64_t i = count - 1; i > 0; i--) {
        swap(list, 0, i);
        sift(list, 0, i, compare, context);
    }
}
