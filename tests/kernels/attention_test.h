// Packed groups with their page tables, heads of many shapes and the table of angles: what the tests of RoPE and attention
// share, on the CPU and on CUDA devices.
#ifndef RECKON_ATTENTION_TEST_H
#define RECKON_ATTENTION_TEST_H
#include "ops_test.h"

// Groups as training packs them: a prompt's whole pages are shared by its completions, its last, partly filled page has
// a copy per completion; the prompt's own rows see the first copy.
enum { MAX_ROWS = 1024, MAX_PAGES = 96, MAX_SLOTS = 2048 };
typedef struct Group {
    int prompt, count;
    int length[4]; // of the completions
} Group;
typedef struct Layout {
    int64_t T;
    int pages, units, slots, tables;
    int32_t *position, *table_start, *table, *unit, *unit_page;
    int64_t *slot_start, *slot;
} Layout;

static inline void place_group(Layout *l, const Group *g) {
    int whole = g->prompt / PAGE, rest = g->prompt % PAGE, first = l->pages, copies = g->count > 0 ? g->count : 1, copy[4], start[4];
    l->unit[l->units] = (int32_t)l->T, l->unit_page[l->units++] = l->pages;
    l->pages += whole;
    for (int s = 0; s < copies; s++) {
        int own = (g->prompt + (g->count ? g->length[s] : 0) + PAGE - 1) / PAGE - whole;
        copy[s] = l->pages, start[s] = l->tables;
        for (int i = 0; i < whole; i++) l->table[l->tables++] = first + i;
        for (int i = 0; i < own; i++) l->table[l->tables++] = l->pages++;
    }
    int completion_start[4];
    memcpy(completion_start, start, sizeof start);
    for (int i = 0; i < g->prompt; i++) {
        l->position[l->T] = i, l->table_start[l->T] = start[0], l->slot_start[l->T++] = l->slots;
        if (i < whole * PAGE)
            l->slot[l->slots++] = (first + i / PAGE) * PAGE + i % PAGE;
        else
            for (int s = 0; s < copies && rest; s++) l->slot[l->slots++] = copy[s] * PAGE + i % PAGE;
    }
    for (int s = 0; s < g->count; s++)
        for (int i = 0; i < g->length[s]; i++) {
            int p = g->prompt + i;
            l->position[l->T] = p, l->table_start[l->T] = completion_start[s], l->slot_start[l->T++] = l->slots;
            l->slot[l->slots++] = (int64_t)l->table[completion_start[s] + p / PAGE] * PAGE + p % PAGE;
        }
}
static inline Layout layout_of(const Group *groups, int count) {
    Layout l = {0};
    l.position = guarded("position", MAX_ROWS * 4), l.table_start = guarded("table_start", MAX_ROWS * 4);
    l.table = guarded("table", MAX_PAGES * 16), l.unit = guarded("unit", 64), l.unit_page = guarded("unit_page", 64);
    l.slot_start = guarded("slot_start", (MAX_ROWS + 1) * 8), l.slot = guarded("slot", MAX_SLOTS * 8);
    for (int i = 0; i < count; i++) place_group(&l, &groups[i]);
    l.unit[l.units] = (int32_t)l.T, l.unit_page[l.units] = l.pages, l.slot_start[l.T] = l.slots;
    CHECK(l.T <= MAX_ROWS && l.pages <= MAX_PAGES && l.slots <= MAX_SLOTS);
    return l;
}

typedef struct Heads {
    int heads, kv_heads, D;
} Heads;
// Windows within a page, over borders of pages, and none.
static inline int32_t any_window(Random *r) {
    static const int32_t windows[] = {0, 0, 0, 1, 7, 32, 33, 50};
    return windows[random_below(r, LENGTH(windows))];
}
// How many of a head's elements turn: all (said in either way), or some.
static inline int32_t any_rotary(Random *r, int D) {
    uint32_t kind = random_below(r, 4);
    return kind == 0 ? D : kind < 3 || D < 8 ? 0 : D / 4 * 2;
}
static inline float *cosines(int64_t positions, int64_t D) {
    float *table = guarded("cos_sin", (size_t)(positions * D) * 4);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < D / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / (double)D);
            table[p * D + i] = (float)cos(angle), table[p * D + D / 2 + i] = (float)sin(angle);
        }
    return table;
}

#endif
