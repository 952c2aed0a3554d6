// The pool: every thread works once a run, waits hold phases apart, shares cover everything exactly once, pools come
// and go, and denormals are flushed inside a run and only there.
#include "../test.h"
#include "base.h"
#include "threads.h"
#include <float.h>
#include <pthread.h>

enum { MAX = 8, ROUNDS = 50 };

// Plain memory on purpose: the thread sanitizer sees whether the pool's barriers order it.
typedef struct Board {
    int runs[MAX];
    int64_t cell[2][MAX];
    long wrong;
    int64_t total;
} Board;

static void count_runs(const Team *team, const void *args) {
    Board *b = *(Board *const *)args;
    b->runs[team->thread]++;
}

static void every_thread_runs_once(void) {
    for (int count = 1; count <= MAX; count++) {
        Err err = {0};
        Pool *p;
        OK(pool_open(count, &p, &err));
        CHECK_INT(pool_count(p), count);
        Board board = {0}, *b = &board;
        for (int i = 0; i < ROUNDS; i++) {
            pool_run(p, count_runs, &b);
            for (int t = 0; t < MAX; t++) CHECK_INT(board.runs[t], t < count ? i + 1 : 0);
        }
        pool_close(p);
    }
}

// Each phase reads what every other thread wrote in the phase before; with two halves in turn, one
// wait a phase keeps them apart.
static void phases(const Team *team, const void *args) {
    Board *b = *(Board *const *)args;
    for (int phase = 0; phase < 10; phase++) {
        b->cell[phase % 2][team->thread] = phase * 100 + team->thread;
        team_wait(team);
        for (int t = 0; t < team->count; t++)
            if (b->cell[phase % 2][t] != phase * 100 + t) __atomic_fetch_add(&b->wrong, 1, __ATOMIC_RELAXED);
    }
}

static void waits_hold_phases_apart(void) {
    for (int count = 1; count <= MAX; count++) {
        Err err = {0};
        Pool *p;
        OK(pool_open(count, &p, &err));
        Board board = {0}, *b = &board;
        for (int i = 0; i < 10; i++) pool_run(p, phases, &b);
        pool_close(p);
        CHECK_INT(board.wrong, 0);
    }
}

static void shares_cover_everything_once(void) {
    for (int count = 1; count <= 9; count++)
        for (int64_t total = 0; total < 70; total++)
            for (int64_t grain = 1; grain <= 17; grain++) {
                int64_t end = 0, least = total, most = 0;
                for (int thread = 0; thread < count; thread++) {
                    Team team = {.thread = thread, .count = count};
                    int64_t from, to;
                    team_share(&team, total, grain, &from, &to);
                    CHECK_INT(from, end); // the next begins where the last ended
                    CHECK(to >= from && to <= total && (from % grain == 0 || from == total));
                    end = to;
                    int64_t grains = (to - from + grain - 1) / grain;
                    if (grains < least) least = grains;
                    if (grains > most) most = grains;
                }
                CHECK_INT(end, total);
                CHECK(total < 1 || most - least <= 1); // fair
            }
    Team last = {.thread = 255, .count = 256};
    int64_t from, to, huge = INT64_C(1) << 50;
    team_share(&last, huge, 16, &from, &to);
    CHECK(to == huge && to - from == huge / 256);
}

static void pools_come_and_go(void) {
    for (int i = 0; i < 60; i++) {
        Err err = {0};
        Pool *p;
        int count = i % MAX + 1;
        OK(pool_open(count, &p, &err));
        Board board = {0}, *b = &board;
        for (int k = 0; k < i % 3; k++) pool_run(p, count_runs, &b); // sometimes never run
        pool_close(p);
        for (int t = 0; t < MAX; t++) CHECK_INT(board.runs[t], t < count ? i % 3 : 0);
    }
    pool_close(NULL);
}

static void pools_live_side_by_side(void) {
    Err err = {0};
    Pool *one, *other;
    OK(pool_open(3, &one, &err));
    OK(pool_open(2, &other, &err));
    Board a = {0}, c = {0}, *first = &a, *second = &c;
    for (int i = 0; i < ROUNDS; i++) {
        pool_run(one, phases, &first);
        pool_run(other, count_runs, &second);
    }
    CHECK_INT(a.wrong, 0);
    CHECK_INT(c.runs[0] + c.runs[1] + c.runs[2], 2 * ROUNDS);
    pool_close(one);
    pool_close(other);
}

// A pool belongs to whoever calls it, one at a time, not to the thread that made it.
static void *run_elsewhere(void *arg) {
    Pool *p = ((void **)arg)[0];
    Board *b = ((void **)arg)[1];
    for (int i = 0; i < ROUNDS; i++) pool_run(p, count_runs, &b);
    return NULL;
}
static void another_thread_may_call(void) {
    Err err = {0};
    Pool *p;
    Board board = {0}, *b = &board;
    OK(pool_open(3, &p, &err));
    pool_run(p, count_runs, &b);
    pthread_t thread;
    void *arg[] = {p, b};
    CHECK_INT(pthread_create(&thread, NULL, run_elsewhere, arg), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    pool_run(p, count_runs, &b);
    pool_close(p);
    for (int t = 0; t < 3; t++) CHECK_INT(board.runs[t], ROUNDS + 2);
}

static void too_many_threads(void) {
    Err err = {0};
    Pool *p;
    CHECK(!pool_open(100000, &p, &err));
    CHECK_INT(err.code, ERR_USAGE);
    CHECK(strstr(err.msg, "found 100000, expected at most 256"));
    OK(pool_open(0, &p, &err)); // as many as the process may use
    CHECK(pool_count(p) >= 1);
    pool_close(p);
    OK(pool_open(-3, &p, &err));
    CHECK(pool_count(p) >= 1);
    pool_close(p);
}

// A denormal that goes in counts as zero, and one that would come out is zero.
static void sum_denormals(const Team *team, const void *args) {
    Board *b = *(Board *const *)args;
    volatile float tiny = 1e-40f, small = FLT_MIN;
    volatile double tiny_double = 1e-310;
    b->cell[0][team->thread] = tiny * 1e30f != 0;
    b->cell[1][team->thread] = small * 0.5f != 0 || tiny_double * 2 != 0;
}
static void denormals_are_flushed_inside_only(void) {
#if defined(__x86_64__) || defined(__aarch64__)
    Err err = {0};
    Pool *p;
    OK(pool_open(4, &p, &err));
    for (int i = 0; i < 3; i++) {
        Board board = {0}, *b = &board;
        pool_run(p, sum_denormals, &b);
        for (int t = 0; t < 4; t++) CHECK(board.cell[0][t] == 0 && board.cell[1][t] == 0);
        volatile float tiny = 1e-40f, small = FLT_MIN;
        CHECK(tiny * 1e30f != 0 && small * 0.5f != 0);
    }
    pool_close(p);
#else
    SKIP("the pool flushes denormals on x86-64 and aarch64 only");
#endif
}

static const Test tests[] = {
    {"every thread runs once", every_thread_runs_once},
    {"waits hold phases apart", waits_hold_phases_apart},
    {"shares cover everything once", shares_cover_everything_once},
    {"pools come and go", pools_come_and_go},
    {"pools live side by side", pools_live_side_by_side},
    {"another thread may call", another_thread_may_call},
    {"too many threads", too_many_threads},
    {"denormals are flushed inside only", denormals_are_flushed_inside_only},
};
TEST_MAIN(tests)
