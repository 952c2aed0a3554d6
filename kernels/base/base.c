#include "base.h"
#include "cores.h"
#include "exact.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

// ---- errors and log --------------------------------------------------------------------------------------
bool fail(Err *err, int code, const char *where, const char *format, ...) {
    if (!err) return false;
    char msg[sizeof err->msg]; // `where` and the arguments may point into `err` itself
    char place[sizeof err->where];
    snprintf(place, sizeof place, "%s", where ? where : "");
    va_list ap;
    va_start(ap, format);
    vsnprintf(msg, sizeof msg, format, ap);
    va_end(ap);
    err->code = code;
    memcpy(err->where, place, sizeof place);
    memcpy(err->msg, msg, sizeof msg);
    return false;
}

static LogLevel log_level = LOG_INFO;
void log_level_set(LogLevel level) { log_level = level; }

// A terminal must not obey what a file or a model wrote: control characters are shown as \xNN.
static void put_visible(const char *text) {
    char out[4096];
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p && n + 8 < sizeof out; p++) {
        if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f)
            n += (size_t)snprintf(out + n, sizeof out - n, "\\x%02x", *p);
        else
            out[n++] = (char)*p;
    }
    out[n++] = '\n';
    fwrite(out, 1, n, stderr);
}

void log_line(LogLevel level, const char *format, ...) {
    if (level > log_level) return;
    char text[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    put_visible(text);
}

void err_print(const Err *err) {
    char text[1200];
    snprintf(text, sizeof text, "reckon: %s%s%s", err->where, err->where[0] ? ": " : "", err->msg);
    put_visible(text);
}

// ---- memory ----------------------------------------------------------------------------------------------
static void *checked(void *p, size_t size) {
    if (!p && size) {
        fprintf(stderr, "reckon: out of memory (%zu bytes asked for)\n", size);
        _exit(71);
    }
    return p;
}
void *xmalloc(size_t size) { return checked(malloc(size ? size : 1), size); }
void *xcalloc(size_t count, size_t size) { return checked(calloc(count ? count : 1, size ? size : 1), count * size); }
void *xrealloc(void *p, size_t size) { return checked(realloc(p, size ? size : 1), size); }
char *xstrdup(const char *s) { return xstrndup(s, strlen(s)); }
char *xstrndup(const char *s, size_t n) {
    char *p = xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}
char *xasprintf(const char *format, ...) {
    Buf b = {0};
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    b.data = xmalloc((size_t)n + 1);
    vsnprintf(b.data, (size_t)n + 1, format, again);
    va_end(again);
    return b.data;
}

// Large memory comes from calloc, which knows when the system gave it zeroed: nothing is written twice, and a page is made by
// the thread that first writes it. What calloc gave stands in the bytes before, which mem_free reads. The last part stands on
// small pages, or each block would take up to 2 MiB more than it holds.
enum { HUGE = 2 << 20, HEAD = 64 };
bool mem_alloc(size_t bytes, const char *what, void **out, Err *err) {
    size_t align = bytes >= 2 * (size_t)HUGE ? HUGE : HEAD, padded;
    *out = NULL;
    if (!size_add(bytes ? bytes : 1, 2 * align + HEAD, &padded) || padded > SIZE_MAX / 2)
        return fail(err, ERR_DATA, what, "a size of %zu bytes can't be addressed", bytes);
    char *given = calloc(1, padded);
    if (!given) return fail(err, 71, what, "out of memory: %.1f MiB asked for", (double)bytes / 1048576.0);
    char *p = given + HEAD;
    p += -(uintptr_t)p & (align - 1);
    memcpy(p - sizeof given, &given, sizeof given);
    if (align == HUGE) {
        madvise(p, bytes / HUGE * HUGE, MADV_HUGEPAGE);
        memory_spread(p, bytes);
    }
    *out = p;
    return true;
}
void mem_free(void *p) {
    char *given = NULL;
    if (p) memcpy(&given, (char *)p - sizeof given, sizeof given);
    free(given);
}

typedef struct ArenaBlock {
    struct ArenaBlock *next;
    size_t used, size;
    _Alignas(64) char data[];
} ArenaBlock;

void *arena_alloc(Arena *a, size_t bytes) {
    bytes = (bytes + 63) & ~(size_t)63;
    ArenaBlock *b = a->head;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > 65536 ? bytes : 65536;
        b = checked(aligned_alloc(64, (sizeof *b + size + 63) & ~(size_t)63), size);
        *b = (ArenaBlock){.next = a->head, .size = size};
        a->head = b;
    }
    void *p = b->data + b->used;
    b->used += bytes;
    a->used += bytes;
    return memset(p, 0, bytes);
}
char *arena_strdup(Arena *a, const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}
typedef struct ArenaDeferred {
    struct ArenaDeferred *next;
    void (*release)(void *);
    void *object;
} ArenaDeferred;
void arena_defer(Arena *a, void (*release)(void *), void *object) {
    ArenaDeferred *d = ARENA_NEW(a, ArenaDeferred, 1);
    *d = (ArenaDeferred){a->deferred, release, object};
    a->deferred = d;
}
void arena_reset(Arena *a) {
    for (ArenaDeferred *d = a->deferred; d; d = d->next) d->release(d->object);
    for (ArenaBlock *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (Arena){0};
}

static void buf_reserve(Buf *b, size_t more) {
    size_t need = b->size + more + 1;
    if (need <= b->capacity) return;
    b->capacity = need < 2 * b->capacity ? 2 * b->capacity : need < 64 ? 64 : need;
    b->data = xrealloc(b->data, b->capacity);
}
void buf_append(Buf *b, const void *data, size_t size) {
    buf_reserve(b, size);
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = 0;
}
void buf_puts(Buf *b, const char *s) { buf_append(b, s, strlen(s)); }
void buf_printf(Buf *b, const char *format, ...) {
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    buf_reserve(b, (size_t)n);
    vsnprintf(b->data + b->size, (size_t)n + 1, format, again);
    va_end(again);
    b->size += (size_t)n;
}
void buf_free(Buf *b) {
    free(b->data);
    *b = (Buf){0};
}

void ids_append(Ids *ids, const int32_t *data, int32_t count) {
    if (ids->count + count > ids->capacity) {
        ids->capacity = ids->count + count > 2 * ids->capacity ? ids->count + count + 16 : 2 * ids->capacity;
        ids->data = xrealloc(ids->data, (size_t)ids->capacity * sizeof *data);
    }
    if (count) memcpy(ids->data + ids->count, data, (size_t)count * sizeof *data);
    ids->count += count;
}
void ids_push(Ids *ids, int32_t id) { ids_append(ids, &id, 1); }
void ids_free(Ids *ids) {
    free(ids->data);
    *ids = (Ids){0};
}

// ---- names ----------------------------------------------------------------------------------------------
static int edit_distance(const char *a, const char *b) {
    int n = (int)strlen(b), row[64];
    if (n > 63 || strlen(a) > 63) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}
static const char *longest_shared_start(const char *name, const char *const *names) {
    const char *best = NULL;
    size_t most = 3;
    for (; *names; names++) {
        size_t n = 0;
        while (name[n] && name[n] == (*names)[n]) n++;
        if (n > most) most = n, best = *names;
    }
    return best;
}
const char *nearest_name(const char *name, const char *const *names) {
    const char *const *all = names;
    const char *best = NULL;
    int least = 1 + (int)strlen(name) / 3;
    for (; *names; names++) {
        int d = edit_distance(name, *names);
        if (d <= least && (!best || d < least)) least = d, best = *names;
    }
    return best ? best : longest_shared_start(name, all);
}

// ---- random numbers --------------------------------------------------------------------------------------
RandomKey random_key(uint64_t seed, uint32_t stream) {
    // The stream is mixed through one block, so that neighbouring seeds and streams share nothing.
    RandomKey raw = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    uint32_t counter[4] = {stream, 0x7265636b, 0x6f6e, 0}, out[4];
    random_bits(raw, counter, out);
    return (RandomKey){{out[0], out[1]}};
}

void random_bits(RandomKey key, const uint32_t counter[4], uint32_t out[4]) { philox_block(key.key, counter, out); }
double random_uniform(RandomKey key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    return philox_uniform(key.key, c0, c1, c2, c3);
}

Random random_start(uint64_t seed, uint32_t stream, uint64_t substream) {
    return (Random){.key = random_key(seed, stream), .stream = substream};
}
uint32_t random_next(Random *r) {
    if (r->left == 0) {
        uint32_t counter[4] = {(uint32_t)r->counter, (uint32_t)(r->counter >> 32), (uint32_t)r->stream,
                               (uint32_t)(r->stream >> 32)};
        random_bits(r->key, counter, r->bits);
        r->counter++;
        r->left = 4;
    }
    return r->bits[--r->left];
}
uint32_t random_below(Random *r, uint32_t bound) {
    uint32_t floor = (uint32_t)-bound % bound; // 2^32 mod bound: values below it would be favoured
    for (;;) {
        uint64_t product = (uint64_t)random_next(r) * bound;
        if ((uint32_t)product >= floor) return (uint32_t)(product >> 32);
    }
}
double random_double(Random *r) {
    uint32_t high = random_next(r), low = random_next(r);
    return unit_double(high, low);
}
double random_normal(Random *r) {
    double u = 1.0 - random_double(r), v = random_double(r); // u in (0, 1]
    return sqrt(-2.0 * exact_log(u)) * exact_cos(6.283185307179586477 * v);
}

// ---- exact functions -------------------------------------------------------------------------------------
double exact_exp(double x) { return exp_double(x); }
double exact_log(double x) { return log_double(x); }

// Reduction to [-pi/4, pi/4] by pi/2 in three parts (Cody and Waite), then Taylor-like polynomials of fdlibm.
static double sin_kernel(double r) {
    double z = r * r;
    return r + r * z * (-1.66666666666666324348e-01 +
                        z * (8.33333333332248946124e-03 +
                             z * (-1.98412698298579493134e-04 +
                                  z * (2.75573137070700676789e-06 +
                                       z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
}
static double cos_kernel(double r) {
    double z = r * r;
    double p = z * (4.16666666666666019037e-02 +
                    z * (-1.38888888888741095749e-03 +
                         z * (2.48015872894767294178e-05 +
                              z * (-2.75573143513906633035e-07 +
                                   z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)))));
    return 1.0 - (0.5 * z - z * p);
}
static double reduce(double x, int *quadrant) {
    double n = floor(x * 6.36619772367581382433e-01 + 0.5);
    double r = x - n * 1.57079632673412561417e+00; // 33 bits of pi/2: exact for n < 2^20
    r -= n * 6.07710050630396597660e-11;
    r -= n * 2.02226624879595063154e-21;
    *quadrant = (int)((int64_t)n & 3);
    return r;
}
double exact_sin(double x) {
    int q;
    double r = reduce(x, &q), v = q & 1 ? cos_kernel(r) : sin_kernel(r);
    return q & 2 ? -v : v;
}
double exact_cos(double x) {
    int q;
    double r = reduce(x, &q), v = q & 1 ? sin_kernel(r) : cos_kernel(r);
    return q == 1 || q == 2 ? -v : v;
}
double exact_pow(double x, double y) { return exact_exp(y * exact_log(x)); }

// ---- clocks ----------------------------------------------------------------------------------------------
static double read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
double clock_seconds(void) { return read_clock(CLOCK_MONOTONIC); }
double clock_cpu_seconds(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }
double clock_waited_seconds(void) {
    double sum = 0;
    int read = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        char path[64];
        unsigned long long waited; // nanoseconds; the number before it is the time on a processor
        snprintf(path, sizeof path, "/proc/self/task/%.20s/schedstat", task->d_name);
        FILE *f = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!f) continue; // a thread that has ended meanwhile
        if (fscanf(f, "%*u %llu", &waited) == 1) sum += 1e-9 * (double)waited, read++;
        fclose(f);
    }
    if (tasks) closedir(tasks);
    return read ? sum : (double)NAN;
}
size_t memory_peak_bytes(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}
