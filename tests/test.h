// A test program is a table of named functions. Each returns nothing and reports through CHECK; the first failed
// CHECK ends its test. Output: one line a test ("ok", "FAIL", "skip" with its reason), then one line of totals.
// Exit status 1 if anything failed. With arguments, only tests whose name contains one of them run.
#ifndef RECKON_TEST_H
#define RECKON_TEST_H
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

typedef struct Test {
    const char *name;
    void (*run)(void);
} Test;

static jmp_buf test_exit;
static int test_state; // 0 ok, 1 failed, 2 skipped
static char test_message[2048];

#define FAIL(...)                                                                                            \
    do {                                                                                                     \
        int n_ = snprintf(test_message, sizeof test_message, "%s:%d: ", __FILE__, __LINE__);                  \
        snprintf(test_message + n_, sizeof test_message - (size_t)n_, __VA_ARGS__);                           \
        test_state = 1;                                                                                      \
        longjmp(test_exit, 1);                                                                               \
    } while (0)
#define SKIP(...)                                                                                            \
    do {                                                                                                     \
        snprintf(test_message, sizeof test_message, __VA_ARGS__);                                            \
        test_state = 2;                                                                                      \
        longjmp(test_exit, 1);                                                                               \
    } while (0)
#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) FAIL("expected %s", #cond);                                                             \
    } while (0)
#define CHECK_INT(got, want)                                                                                 \
    do {                                                                                                     \
        long long g_ = (long long)(got), w_ = (long long)(want);                                             \
        if (g_ != w_) FAIL("%s: got %lld, want %lld", #got, g_, w_);                                         \
    } while (0)
#define CHECK_STR(got, want)                                                                                 \
    do {                                                                                                     \
        const char *g_ = (got), *w_ = (want);                                                                \
        if (!g_ || strcmp(g_, w_) != 0) FAIL("%s: got \"%s\", want \"%s\"", #got, g_ ? g_ : "(null)", w_);   \
    } while (0)
// NaN never passes: the comparison is written so that it fails.
#define CHECK_NEAR(got, want, tolerance)                                                                     \
    do {                                                                                                     \
        double g_ = (got), w_ = (want), t_ = (tolerance);                                                    \
        if (!(fabs(g_ - w_) <= t_)) FAIL("%s: got %.17g, want %.17g within %g", #got, g_, w_, t_);           \
    } while (0)
// For calls that take an Err as `err`.
#define OK(call)                                                                                             \
    do {                                                                                                     \
        if (!(call)) FAIL("%s: %s", err.where, err.msg);                                                     \
    } while (0)

static inline void test_run(const Test *test) {
    test_state = 0;
    if (setjmp(test_exit) == 0) test->run();
}

static inline int test_main(int argc, char **argv, const Test *tests, size_t count) {
    int passed = 0, failed = 0, skipped = 0;
    for (size_t i = 0; i < count; i++) {
        int wanted = argc < 2;
        for (int a = 1; a < argc; a++) wanted |= strstr(tests[i].name, argv[a]) != NULL;
        if (!wanted) continue;
        test_run(&tests[i]);
        if (test_state == 0) {
            passed++;
            printf("ok   %s\n", tests[i].name);
        } else if (test_state == 1) {
            failed++;
            printf("FAIL %s: %s\n", tests[i].name, test_message);
        } else {
            skipped++;
            printf("skip %s: %s\n", tests[i].name, test_message);
        }
        fflush(stdout);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}
#define TEST_MAIN(table)                                                                                     \
    int main(int argc, char **argv) { return test_main(argc, argv, table, sizeof(table) / sizeof((table)[0])); }

#endif
