// The plan of a device's memory: pieces never overlap, holes merge, what doesn't fit is refused.
#include "slab.h"
#include "test.h"
#include <stdlib.h>
#include <string.h>

static void pieces_and_holes(void) {
    Slab *s = slab_open(10 * SLAB_ALIGNMENT + 100);
    size_t a, b, c, d;
    CHECK_INT(slab_free_bytes(s), 10 * SLAB_ALIGNMENT);
    CHECK(slab_take(s, 1, &a) && slab_take(s, 2 * SLAB_ALIGNMENT, &b) && slab_take(s, SLAB_ALIGNMENT + 1, &c));
    CHECK_INT(a, 0);
    CHECK_INT(b, SLAB_ALIGNMENT);
    CHECK_INT(c, 3 * SLAB_ALIGNMENT);
    CHECK_INT(slab_piece_bytes(s, c), 2 * SLAB_ALIGNMENT);
    CHECK(!slab_take(s, 6 * SLAB_ALIGNMENT, &d));
    CHECK(!slab_take(s, SIZE_MAX - 3, &d));
    CHECK_INT(slab_peak_bytes(s), 5 * SLAB_ALIGNMENT);
    slab_give(s, a), slab_give(s, c), slab_give(s, b);
    CHECK_INT(slab_peak_bytes(s), 5 * SLAB_ALIGNMENT); // what is given back stays counted
    CHECK_INT(slab_largest_hole(s), 10 * SLAB_ALIGNMENT);
    CHECK(slab_take(s, 10 * SLAB_ALIGNMENT, &d) && d == 0);
    CHECK(!slab_take(s, 0, &a));
    CHECK_INT(slab_peak_bytes(s), 10 * SLAB_ALIGNMENT);
    slab_close(s);
}

// A thousand random takes and gives against a map of who owns each unit.
static void random_course(void) {
    enum { UNITS = 300, PIECES = 64 };
    Slab *s = slab_open((size_t)UNITS * SLAB_ALIGNMENT);
    char owner[UNITS] = {0};
    size_t offset[PIECES] = {0}, units[PIECES] = {0};
    Random r = random_start(3, STREAM_TEST, 0);
    for (int step = 0; step < 4000; step++) {
        int i = (int)random_below(&r, PIECES);
        if (units[i]) {
            for (size_t u = 0; u < units[i]; u++) owner[offset[i] / SLAB_ALIGNMENT + u] = 0;
            slab_give(s, offset[i]);
            units[i] = 0;
            continue;
        }
        size_t want = 1 + random_below(&r, 12), at;
        if (!slab_take(s, want * SLAB_ALIGNMENT - random_below(&r, SLAB_ALIGNMENT), &at)) {
            CHECK(slab_largest_hole(s) < want * SLAB_ALIGNMENT);
            continue;
        }
        CHECK_INT(at % SLAB_ALIGNMENT, 0);
        for (size_t u = 0; u < want; u++) {
            CHECK_INT(owner[at / SLAB_ALIGNMENT + u], 0);
            owner[at / SLAB_ALIGNMENT + u] = 1;
        }
        offset[i] = at, units[i] = want;
    }
    size_t used = 0;
    for (int u = 0; u < UNITS; u++) used += (size_t)owner[u];
    CHECK_INT(slab_free_bytes(s), (UNITS - used) * SLAB_ALIGNMENT);
    slab_close(s);
}

static const Test tests[] = {
    {"pieces and holes", pieces_and_holes},
    {"a random course", random_course},
};
TEST_MAIN(tests)
