// base: errors, buffers, random numbers against known answers, exact functions against libm.
#include "../test.h"
#include "base.h"
#include "files.h"
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

static void philox_known_answers(void) {
    // Vectors of the Random123 distribution (kat_vectors, philox4x32-10).
    uint32_t zero[4] = {0, 0, 0, 0}, out[4];
    random_bits((RandomKey){{0, 0}}, zero, out);
    CHECK(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c && out[3] == 0x9b00dbd8);
    uint32_t ones[4] = {~0u, ~0u, ~0u, ~0u};
    random_bits((RandomKey){{~0u, ~0u}}, ones, out);
    CHECK(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 && out[3] == 0x6d5451fd);
}

static void exact_functions(void) {
    Random r = random_start(1, STREAM_TEST, 0);
    for (int i = 0; i < 200000; i++) {
        double x = (random_double(&r) - 0.5) * 1400, y = random_double(&r) * 1e6 + 1e-300;
        double e = exp(x), l = log(y), a = (random_double(&r) - 0.5) * 1e6;
        CHECK_NEAR(exact_exp(x), e, 4e-16 * e);
        CHECK_NEAR(exact_log(y), l, 4e-16 * fabs(l) + 2e-16);
        CHECK_NEAR(exact_sin(a), sin(a), 1e-15);
        CHECK_NEAR(exact_cos(a), cos(a), 1e-15);
    }
    CHECK(exact_exp(1000) == INFINITY && exact_exp(-1000) == 0 && exact_log(0) == -INFINITY && exact_exp(0) == 1);
    CHECK(exact_exp(NAN) != exact_exp(NAN) && exact_log(-1) != exact_log(-1) && exact_log(1) == 0);
}

static void random_is_a_function(void) {
    RandomKey k = random_key(42, STREAM_TOKENS);
    CHECK(random_uniform(k, 1, 2, 3, 4) == random_uniform(k, 1, 2, 3, 4));
    CHECK(random_uniform(k, 1, 2, 3, 4) != random_uniform(k, 1, 2, 4, 3));
    double sum = 0, squares = 0;
    Random r = random_start(7, STREAM_TEST, 1);
    for (int i = 0; i < 100000; i++) {
        double x = random_normal(&r);
        sum += x, squares += x * x;
    }
    CHECK_NEAR(sum / 1e5, 0, 0.02);
    CHECK_NEAR(squares / 1e5, 1, 0.02);
    int seen[5] = {0};
    for (int i = 0; i < 5000; i++) seen[random_below(&r, 5)]++;
    for (int i = 0; i < 5; i++) CHECK(seen[i] > 850 && seen[i] < 1150);
}

static void atomic_files(void) {
    Err err = {0};
    char folder[] = "/tmp/reckon-test-XXXXXX";
    CHECK(mkdtemp(folder));
    char *path = path_join(folder, "a/b");
    CHECK(!file_write_atomic(path, "x", 1, &err) && err.code == ERR_CANTCREAT);
    char *sub = path_join(folder, "a");
    OK(folder_make(sub, &err));
    OK(file_write_atomic(path, "hello", 5, &err));
    Buf b;
    OK(file_read(path, 100, &b, &err));
    CHECK_STR(b.data, "hello");
    buf_free(&b);
    CHECK(!file_read(path, 4, &b, &err) && err.code == ERR_DATA);
    CHECK(!file_read(sub, 4, &b, &err) && err.code == ERR_NOINPUT);
    OK(folder_remove(folder, &err));
    CHECK(!file_exists(folder));
    free(path), free(sub);
}

// Two threads that want one processor: each second that one computes the other waits.
static void *compute(void *finished) {
    struct timespec t;
    do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    while (t.tv_nsec < 40000000 && t.tv_sec == 0);
    atomic_fetch_add((atomic_int *)finished, 1);
    return NULL;
}
static void waiting_is_measured(void) {
    double before = clock_waited_seconds(), cpu = clock_cpu_seconds();
    if (isnan(before)) SKIP("the kernel keeps no /proc/self/task/*/schedstat");
    pthread_t threads[2];
    pthread_attr_t one;
    cpu_set_t here;
    atomic_int finished = 0;
    CPU_ZERO(&here);
    CPU_SET((size_t)sched_getcpu(), &here);
    pthread_attr_init(&one);
    CHECK_INT(pthread_attr_setaffinity_np(&one, sizeof here, &here), 0);
    for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&threads[i], &one, compute, &finished), 0);
    double most = before;
    while (atomic_load(&finished) == 0) usleep(1000), most = fmax(most, clock_waited_seconds()); // a thread that has ended isn't counted any more
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    pthread_attr_destroy(&one);
    CHECK(most - before > 0.02);
    CHECK(clock_cpu_seconds() - cpu >= 0.08);
}

static const Test tests[] = {
    {"philox_known_answers", philox_known_answers},
    {"exact_functions", exact_functions},
    {"random_is_a_function", random_is_a_function},
    {"atomic_files", atomic_files},
    {"waiting_is_measured", waiting_is_measured},
};
TEST_MAIN(tests)
