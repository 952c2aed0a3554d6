// The device that measures another one (profile.h).
#include "profile.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 256 }; // what comes beyond is added up in the last one

typedef struct Profile {
    Device timed; // first: a profiled device is its Profile
    Device *plain;
    ProfileRow rows[MOST_ROWS];
    int count;
} Profile;

static Profile *profile_of(const Device *d) { return (Profile *)(uintptr_t)d; }

// What is known of an operation's arguments beside its name: the shape of its matrix, and FLOPs.
typedef struct Shape {
    int64_t N, K;
    double flops;
} Shape;
static Shape product(int64_t M, int64_t N, int64_t K) { return (Shape){N, K, 2.0 * (double)M * (double)N * (double)K}; }
static Shape products(int64_t M, int64_t N, int64_t K, const Products *p) {
    Shape s = product(M, N, K);
    if (p->count && !p->start) s.flops *= p->count; // with a start they share the rows out
    return s;
}
static Shape shape_of_matmul(const MatmulArgs *a) { return products(a->M, a->N, a->K, &a->products); }
static Shape shape_of_matmul_grad(const MatmulGradArgs *a) { return products(a->T, a->N, a->K, &a->products); }
static Shape shape_of_head(const HeadArgs *a) { return product(a->M, a->V, a->C); }
static Shape shape_of_head_grad(const HeadGradArgs *a) {
    Shape s = shape_of_head(&a->forward);
    if (a->forward.logits) s.flops = 0;
    return s;
}
static Shape shape_of_none(const void *args) {
    (void)args;
    return (Shape){0};
}
#define SHAPE_OF(args)                                                                                       \
    _Generic((args), const MatmulArgs *: shape_of_matmul, const MatmulGradArgs *: shape_of_matmul_grad,      \
             const HeadArgs *: shape_of_head, const HeadGradArgs *: shape_of_head_grad, default: shape_of_none)(args)

static void add(Profile *p, const char *operation, Shape shape, double seconds) {
    int i = 0;
    while (i < p->count && (p->rows[i].operation != operation || p->rows[i].N != shape.N || p->rows[i].K != shape.K)) i++;
    if (i == MOST_ROWS) {
        i--;
        p->rows[i].operation = "others";
        p->rows[i].N = p->rows[i].K = 0;
    }
    if (i == p->count) p->rows[p->count++] = (ProfileRow){.operation = operation, .N = shape.N, .K = shape.K};
    p->rows[i].calls++;
    p->rows[i].seconds += seconds;
    p->rows[i].flops += shape.flops;
}

#define TIMED(name, Args)                                                                                    \
    static void name##_timed(const Device *d, const Args *args) {                                            \
        Profile *p = profile_of(d);                                                                          \
        double start = clock_seconds();                                                                      \
        p->plain->name(p->plain, args);                                                                      \
        add(p, #name, SHAPE_OF(args), clock_seconds() - start);                                              \
    }
RECKON_OPERATIONS(TIMED)

static void copy_timed(const Device *d, void *to, const void *from, size_t bytes) {
    Profile *p = profile_of(d);
    double start = clock_seconds();
    p->plain->copy(p->plain, to, from, bytes);
    add(p, "copy", (Shape){0}, clock_seconds() - start);
}
static void zero_timed(const Device *d, void *to, size_t bytes) {
    Profile *p = profile_of(d);
    double start = clock_seconds();
    p->plain->zero(p->plain, to, bytes);
    add(p, "zero", (Shape){0}, clock_seconds() - start);
}
static void close_timed(Device *d) {
    device_close(profile_of(d)->plain);
    free(profile_of(d));
}

bool profile_open(Device *plain, Device **out, Err *err) {
    if (!plain->is_host) return fail(err, ERR_UNAVAILABLE, "profile", "calls of %s are queued: what they took can't be seen from here", plain->variant);
    Profile *p = xcalloc(1, sizeof *p);
    p->plain = plain;
    p->timed = *plain; // whatever else it can do, it does as before
    p->timed.owners = 0;
    p->timed.copy = copy_timed, p->timed.zero = zero_timed, p->timed.close = close_timed;
#define FILL(name, Args) p->timed.name = name##_timed;
    RECKON_OPERATIONS(FILL)
    *out = &p->timed;
    return true;
}

static int by_seconds(const void *a, const void *b) {
    double x = ((const ProfileRow *)a)->seconds, y = ((const ProfileRow *)b)->seconds;
    return (x < y) - (x > y);
}
int profile_rows(Device *profiled, const ProfileRow **out) {
    Profile *p = profile_of(profiled);
    qsort(p->rows, (size_t)p->count, sizeof *p->rows, by_seconds);
    *out = p->rows;
    return p->count;
}
void profile_forget(Device *profiled) { profile_of(profiled)->count = 0; }
