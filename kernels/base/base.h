// What every room may use: errors, logging, checked sizes, growing buffers, arenas, the counter-based random
// generator and clocks. It owns no global state but the log level, set once by main before any thread starts.
#ifndef RECKON_BASE_H
#define RECKON_BASE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- errors ----------------------------------------------------------------------------------------------
// A function that can fail returns bool and takes `Err *` last. Codes are exit codes of sysexits.h.
enum {
    ERR_FAILED = 1,       // an expectation failed
    ERR_USAGE = 64,       // the command line
    ERR_DATA = 65,        // a file's content
    ERR_NOINPUT = 66,     // a file that isn't there
    ERR_UNAVAILABLE = 69, // something needed isn't there (a library, a device, a feature)
    ERR_SOFTWARE = 70,    // our own fault
    ERR_CANTCREAT = 73,   // an output that can't be made
    ERR_IO = 74,          // reading or writing failed
    ERR_TEMPFAIL = 75,    // locked, try later
    ERR_INTERRUPTED = 130,
    ERR_TERMINATED = 143,
};

typedef struct Err {
    int code;        // one of the above, 0 if none
    char where[256]; // file, file:line or file:line:column, tensor, option; may be empty
    char msg[768];   // what was found, and what was expected
} Err;

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        if (!(call)) return false;                                                                           \
    } while (0)
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

// Fills `err` (may be NULL) and returns false, so that `return fail(...)` reads well.
bool fail(Err *err, int code, const char *where, const char *format, ...) PRINTF_LIKE(4, 5);
// Prints "reckon: WHERE: MSG" on stderr.
void err_print(const Err *err);

// ---- log -------------------------------------------------------------------------------------------------
// Lines for a person, on stderr, with control characters of the text made visible.
typedef enum LogLevel { LOG_QUIET, LOG_WARN, LOG_INFO, LOG_DEBUG } LogLevel;
void log_level_set(LogLevel level);
void log_line(LogLevel level, const char *format, ...) PRINTF_LIKE(2, 3);

// ---- memory ----------------------------------------------------------------------------------------------
// Sizes that come from files go through these before any allocation; false on overflow.
static inline bool size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

// malloc family that ends the process with exit code 71 and a message when memory is out. For small things;
// what is sized by input or model uses mem_alloc and returns the error.
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *format, ...) PRINTF_LIKE(1, 2);

// Zeroed memory, aligned to 64 bytes (2 MiB and huge pages where it is large). Free with mem_free.
bool mem_alloc(size_t bytes, const char *what, void **out, Err *err) MUST_CHECK;
void mem_free(void *p);

// A region that is freed as a whole. Not shared between threads.
typedef struct Arena {
    struct ArenaBlock *head;
    struct ArenaDeferred *deferred;
    size_t used; // bytes handed out
} Arena;
void *arena_alloc(Arena *a, size_t bytes); // zeroed, aligned to 64 bytes, never NULL
char *arena_strdup(Arena *a, const char *s);
void arena_reset(Arena *a); // frees all
// `release(object)` is called by arena_reset: for things that need more than free, such as a json_t. Latest first.
void arena_defer(Arena *a, void (*release)(void *), void *object);
#define ARENA_NEW(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (size_t)(n)))

// A growing byte buffer. `data` is NUL-terminated after every call (the NUL isn't counted), NULL while empty.
typedef struct Buf {
    char *data;
    size_t size, capacity;
} Buf;
void buf_append(Buf *b, const void *data, size_t size);
void buf_puts(Buf *b, const char *s);
void buf_printf(Buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buf_free(Buf *b);

// A growing list of token ids.
typedef struct Ids {
    int32_t *data;
    int32_t count, capacity;
} Ids;
void ids_push(Ids *ids, int32_t id);
void ids_append(Ids *ids, const int32_t *data, int32_t count);
void ids_free(Ids *ids);

// The nearest of `names` (NULL-terminated) by edit distance, else the one that shares its first four letters or more;
// NULL if none is near. For "did you mean".
const char *nearest_name(const char *name, const char *const *names);

// ---- random numbers --------------------------------------------------------------------------------------
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a pure function of key
// and counter, so a number never depends on who asks first. The key is (seed, stream); the counter is up to the
// caller: (step, prompt, sample, position) for a token.
typedef struct RandomKey {
    uint32_t key[2];
} RandomKey;
// Streams keep uses of one seed apart.
enum { STREAM_WEIGHTS = 1, STREAM_TOKENS, STREAM_TASKS, STREAM_SHUFFLE, STREAM_BOOTSTRAP, STREAM_SCRIPT, STREAM_TEST, STREAM_ADAPTER };
RandomKey random_key(uint64_t seed, uint32_t stream);
void random_bits(RandomKey key, const uint32_t counter[4], uint32_t out[4]);
// In [0, 1), 53 bits.
double random_uniform(RandomKey key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3);

// A sequential generator over the same function, for shuffles and task generators.
typedef struct Random {
    RandomKey key;
    uint64_t stream, counter;
    uint32_t bits[4];
    int left;
} Random;
Random random_start(uint64_t seed, uint32_t stream, uint64_t substream);
uint32_t random_next(Random *r);
uint32_t random_below(Random *r, uint32_t bound); // uniform in [0, bound), without bias; bound > 0
double random_double(Random *r);                  // uniform in [0, 1)
double random_normal(Random *r);                  // Box-Muller on our own log and cosine: the same bits everywhere

// ---- exact functions (double) ----------------------------------------------------------------------------
// libm picks variants by CPU; these don't. Error below 2 ulp over the ranges used; NaN and infinities propagate.
double exact_exp(double x);
double exact_log(double x);
double exact_sin(double x); // |x| <= 2^30
double exact_cos(double x);
double exact_pow(double x, double y); // x > 0

// ---- clocks ----------------------------------------------------------------------------------------------
double clock_seconds(void);     // monotonic
double clock_cpu_seconds(void); // of this process, all threads
// How long threads of this process were ready to run and had no processor, because other work (or more threads than processors) had
// it: all that run now together, since each began. NaN where the kernel doesn't tell.
double clock_waited_seconds(void);
size_t memory_peak_bytes(void); // resident high-water mark of this process

#endif
