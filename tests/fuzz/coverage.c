// Which edges of the program an execution took: gcc's -fsanitize-coverage=trace-pc calls a function at each block, and
// a pair of blocks is a place in a table of counters. Built so by tests/fuzz/run only.
#include "fuzz.h"
#include <string.h>

enum { EDGES = 1 << 16 };

#ifdef RECKON_FUZZ_COVERAGE
static uint8_t counts[EDGES], reached[EDGES];
static uintptr_t previous;

void __sanitizer_cov_trace_pc(void);
__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) {
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    uintptr_t place = (here * 0x9E3779B97F4A7C15u) >> 48;
    uint8_t *count = &counts[(place ^ previous) % EDGES];
    if (*count < 255) ++*count;
    previous = place >> 1;
}

bool coverage_built(void) { return true; }
void coverage_start(void) {
    memset(counts, 0, sizeof counts);
    previous = 0;
}
void coverage_forget(void) { memset(reached, 0, sizeof reached); }

// 1, 2, 3, 4-7, 8-15, ... times are told apart.
__attribute__((no_sanitize_coverage)) static uint8_t bucket(uint8_t count) {
    return count < 4 ? (uint8_t)(1 << (count - 1)) : (uint8_t)(count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : count < 128 ? 64 : 128);
}
__attribute__((no_sanitize_coverage)) int coverage_new(void) {
    int found = 0;
    for (size_t i = 0; i < EDGES; i += 8) {
        uint64_t eight;
        memcpy(&eight, counts + i, 8);
        if (!eight) continue;
        for (size_t k = i; k < i + 8; k++) {
            if (!counts[k]) continue;
            uint8_t b = bucket(counts[k]);
            if (reached[k] & b) continue;
            reached[k] |= b;
            found++;
        }
    }
    return found;
}
#else
bool coverage_built(void) { return false; }
void coverage_start(void) {}
int coverage_new(void) { return 0; }
void coverage_forget(void) {}
#endif
