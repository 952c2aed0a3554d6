// The runner: each target in processes of its own (one a core, two at most), which share the numbers of executions
// between them; a crash ends only its process, and the parent tells what it was.
#include "fuzz.h"
#include "files.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef RECKON_SANITIZED
enum { EXECUTIONS = 20000, TICKS = 20 }; // a sanitizer makes everything some times slower
#else
enum { EXECUTIONS = 200000, TICKS = 4 };
#endif
enum { MEMORY = 256 << 20, TICK = 250000, MAX_JOBS = 2, CORPUS_LIMIT = 16 << 10 };

// ---- the corpus ----------------------------------------------------------------------------------------------
void corpus_add(FuzzCorpus *c, const void *data, size_t size) {
    if (size > FUZZ_INPUT) size = FUZZ_INPUT;
    if (c->count == c->capacity) {
        c->capacity = 2 * c->capacity + 16;
        c->inputs = xrealloc(c->inputs, (size_t)c->capacity * sizeof *c->inputs);
    }
    uint8_t *copy = xmalloc(size + 1);
    if (size) memcpy(copy, data, size);
    c->inputs[c->count++] = (FuzzInput){copy, size};
}
void corpus_add_text(FuzzCorpus *c, const char *text) { corpus_add(c, text, strlen(text)); }
static Buf read_whole(const char *path) {
    Buf b;
    Err err = {0};
    if (file_read(path, 64 << 20, &b, &err)) return b;
    err_print(&err);
    exit(err.code);
}
void corpus_add_file(FuzzCorpus *c, const char *path) {
    Buf b = read_whole(path);
    corpus_add(c, b.data, b.size);
    buf_free(&b);
}
void corpus_read(FuzzCorpus *c, const char *path) {
    if (!file_exists(path)) return;
    Buf b = read_whole(path);
    const uint8_t *p = (const uint8_t *)b.data, *end = p + b.size;
    while (end - p >= 2) {
        size_t size = (size_t)(p[0] | p[1] << 8);
        p += 2;
        if (size > (size_t)(end - p)) break;
        corpus_add(c, p, size);
        p += size;
    }
    buf_free(&b);
}
void corpus_free(FuzzCorpus *c) {
    for (int i = 0; i < c->count; i++) free(c->inputs[i].data);
    free(c->inputs);
    *c = (FuzzCorpus){0};
}

// ---- files in memory -----------------------------------------------------------------------------------------
static char folder[64];
static pid_t folder_owner;

const char *fuzz_folder(void) {
    if (folder_owner == getpid()) return folder;
    snprintf(folder, sizeof folder, "%s/reckon-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder)) {
        fprintf(stderr, "%s: %s\n", folder, strerror(errno));
        exit(ERR_CANTCREAT);
    }
    folder_owner = getpid();
    return folder;
}
static void folder_drop(void) {
    Err err;
    if (folder_owner == getpid() && !folder_remove(folder, &err)) err_print(&err);
    folder_owner = 0;
}
FuzzFile fuzz_file_open(const char *name) {
    Err err = {0};
    FuzzFile f = {.path = path_join(fuzz_folder(), name)};
    char *parent = xstrndup(f.path, (size_t)(strrchr(f.path, '/') - f.path));
    if (!folder_make(parent, &err)) err_print(&err);
    free(parent);
    f.fd = open(f.path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f.fd < 0) fuzz_broken("%s: %s", f.path, strerror(errno));
    return f;
}
void fuzz_file_set(const FuzzFile *f, const void *data, size_t size) {
    if (pwrite(f->fd, data, size, 0) != (ssize_t)size || ftruncate(f->fd, (off_t)size) != 0) fuzz_broken("%s: %s", f->path, strerror(errno));
}
void fuzz_file_copy(const char *name, const char *from) {
    FuzzFile f = fuzz_file_open(name);
    Buf b = read_whole(from);
    fuzz_file_set(&f, b.data, b.size);
    buf_free(&b);
    fuzz_file_close(&f);
}
void fuzz_file_close(FuzzFile *f) {
    close(f->fd);
    free(f->path);
}

// ---- one execution -------------------------------------------------------------------------------------------
typedef struct Report { // shared with the parent
    char message[1024];
    long executions;
    int kept; // inputs that found new edges
} Report;

static struct Current { // what the handlers need to know
    const FuzzTarget *target;
    Report *report;
    uint8_t input[FUZZ_INPUT];
    size_t size;
    uint8_t plain[FUZZ_INPUT];
    uint8_t *guarded; // [FUZZ_INPUT] and a page behind it that nobody may read
    long number, number_seen;
    int ticks;
} current;

// Writes the input aside and says how to run it again.
static void tell(const char *what) {
    char path[200];
    if (!current.report || current.report->message[0]) return;
    snprintf(path, sizeof path, "%s/reckon-fuzz-%s-%ld.input", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", current.target ? current.target->name : "start", current.number);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0 && write(fd, current.input, current.size) < 0) path[0] = 0;
    if (fd >= 0) close(fd);
    snprintf(current.report->message, sizeof current.report->message, "execution %ld: %s (--file %s %s)", current.number, what, current.target ? current.target->name : "", path);
}
_Noreturn void fuzz_broken(const char *format, ...) {
    char what[700];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    tell(what);
    if (!current.report) fprintf(stderr, "%s\n", what);
    folder_drop();
    _exit(3);
}
static void on_signal(int number) {
    if (number == SIGPROF) {
        if (current.number != current.number_seen) current.ticks = 0;
        current.number_seen = current.number;
        if (current.number >= 0 && ++current.ticks > TICKS) fuzz_broken("takes more than %.1f s of CPU time", TICKS * TICK * 1e-6);
        return;
    }
    char what[64];
    snprintf(what, sizeof what, "ended by signal %d", number);
    fuzz_broken("%s", what);
}

#ifdef RECKON_SANITIZED
void __sanitizer_set_death_callback(void (*callback)(void));
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "max_allocation_size_mb=256:allocator_may_return_null=0"; }
static void on_death(void) { tell("the sanitizer's report is above"); }
#endif

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct itimerval timer = {.it_interval = {.tv_usec = TICK}, .it_value = {.tv_usec = TICK}};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &timer, NULL);
#ifdef RECKON_SANITIZED
    __sanitizer_set_death_callback(on_death);
#else
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU};
    static uint8_t space[64 << 10]; // a stack of its own, for when the other one is used up
    stack_t stack = {.ss_sp = space, .ss_size = sizeof space};
    sigaltstack(&stack, NULL);
    for (int i = 0; i < COUNT(deadly); i++) sigaction(deadly[i], &action, NULL);
#endif
}

static void execute(void *shared) {
    size_t before = fuzz_memory_live(), after;
    fuzz_memory_watch(MEMORY);
    // What stays may be a cache, once; a leak comes again.
    for (int times = 0; times < 4; times++) {
#ifdef RECKON_SANITIZED
        uint8_t *data = xmalloc(current.size);
#else
        // Not every time: vector code that looks beyond an end, as it may, is slow next to a page without access.
        uint8_t *data = current.number < 0 || current.number % 32 == 0 ? current.guarded + FUZZ_INPUT - current.size : current.plain;
#endif
        if (current.size) memcpy(data, current.input, current.size);
        current.target->run(shared, data, current.size);
#ifdef RECKON_SANITIZED
        free(data);
#endif
        after = fuzz_memory_live();
        if (after <= before) return;
        if (times == 3) fuzz_broken("leaves %zu bytes behind each time", after - before);
        before = after;
    }
}

// ---- a target ------------------------------------------------------------------------------------------------
typedef struct Options {
    long executions;
    double seconds; // instead of executions, if above 0
    uint64_t seed;
    const char *keep, *file;
} Options;

static void run_input(void *shared, const uint8_t *data, size_t size, long number) {
    current.size = size;
    if (size && data != current.input) memcpy(current.input, data, size);
    current.number = number;
    coverage_start();
    execute(shared);
}

static int by_size(const void *a, const void *b) {
    const FuzzInput *x = a, *y = b;
    return x->size < y->size ? -1 : x->size > y->size;
}
// The short ones first; each that reaches what those before it didn't is kept.
static void keep_smallest(FuzzCorpus *corpus, void *shared, const char *path) {
    Buf out = {0};
    Err err = {0};
    qsort(corpus->inputs, (size_t)corpus->count, sizeof *corpus->inputs, by_size);
    coverage_forget();
    for (int i = 0; i < corpus->count; i++) {
        const FuzzInput *in = &corpus->inputs[i];
        run_input(shared, in->data, in->size, -1 - i);
        if (coverage_new() == 0 || out.size + in->size + 2 > CORPUS_LIMIT) continue;
        buf_append(&out, (uint8_t[]){(uint8_t)in->size, (uint8_t)(in->size >> 8)}, 2);
        buf_append(&out, in->data, in->size);
    }
    if (!file_write_atomic(path, out.data, out.size, &err)) err_print(&err);
    buf_free(&out);
}

static void mutate_and_run(const FuzzTarget *t, const FuzzCorpus *corpus, const Options *o, uint64_t stream, long i, void *shared) {
    Random random = random_start(o->seed, STREAM_TEST, stream + (uint64_t)i);
    size_t size = fuzz_mutate(&random, corpus, t->words, current.input);
    if (t->repair && random_below(&random, 2)) size = t->repair(current.input, size);
    run_input(shared, current.input, size, i);
}

static void run_target(const FuzzTarget *t, const Options *o, int job, int jobs) {
    FuzzCorpus corpus = {0};
    char path[512];
    uint64_t stream = hash64(t->name, strlen(t->name)) & ~0xFFFFFFFFull;
    double end = clock_seconds() + o->seconds;
    log_level_set(LOG_QUIET);
    current.target = t;
    current.number = -1;
    current.guarded = mmap(NULL, 2 * FUZZ_INPUT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (current.guarded == MAP_FAILED || mprotect(current.guarded + FUZZ_INPUT, FUZZ_INPUT, PROT_NONE) != 0) fuzz_broken("can't map a page");
    void *shared = t->open ? t->open(&corpus) : NULL;
    snprintf(path, sizeof path, TEST_DATA "/fuzz/%s.corpus", t->name);
    corpus_read(&corpus, path);
    if (corpus.count == 0) corpus_add(&corpus, "", 0);
    catch_signals();
    if (o->file) {
        Buf b = read_whole(o->file);
        run_input(shared, (const uint8_t *)b.data, b.size < FUZZ_INPUT ? b.size : FUZZ_INPUT, 0);
        buf_free(&b);
    }
    for (int i = job; i < corpus.count && !o->file; i += jobs) {
        run_input(shared, corpus.inputs[i].data, corpus.inputs[i].size, -1 - i);
        coverage_new();
    }
    long executions = t->rarely ? o->executions / t->rarely : o->executions;
    for (long i = job; !o->file && (o->seconds > 0 || i < executions); i += jobs) {
        mutate_and_run(t, &corpus, o, stream, i, shared);
        current.report->executions++;
        if (o->keep && coverage_new() > 0) {
            corpus_add(&corpus, current.input, current.size);
            current.report->kept++;
        }
        if (o->seconds > 0 && i % 256 < jobs && clock_seconds() > end) break;
    }
    if (o->keep) {
        snprintf(path, sizeof path, "%s/%s.corpus", o->keep, t->name);
        keep_smallest(&corpus, shared, path);
    }
    if (t->close) t->close(shared);
    corpus_free(&corpus);
    munmap(current.guarded, 2 * FUZZ_INPUT);
    folder_drop();
}

// ---- all of them ---------------------------------------------------------------------------------------------
static bool try_target(const FuzzTarget *t, const Options *o) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN), executions = 0;
    int jobs = o->keep || o->file || cores < 2 ? 1 : MAX_JOBS, kept = 0;
    pid_t pids[MAX_JOBS];
    char what[1100] = "";
    Report *reports = mmap(NULL, MAX_JOBS * sizeof *reports, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double start = clock_seconds();
    fflush(stdout);
    if (reports == MAP_FAILED) fuzz_broken("can't map the reports");
    for (int i = 0; i < jobs; i++) {
        pids[i] = fork();
        if (pids[i] != 0) continue;
        current.report = &reports[i];
        run_target(t, o, i, jobs);
        _exit(0);
    }
    for (int i = 0; i < jobs; i++) {
        int status = 0;
        while (pids[i] > 0 && waitpid(pids[i], &status, 0) < 0 && errno == EINTR) {}
        executions += reports[i].executions;
        kept += reports[i].kept;
        if (pids[i] > 0 && status == 0) continue;
        if (reports[i].message[0])
            snprintf(what, sizeof what, "%s", reports[i].message);
        else
            snprintf(what, sizeof what, "its process ended with status %d, signal %d", WEXITSTATUS(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    munmap(reports, MAX_JOBS * sizeof *reports);
    if (what[0])
        printf("FAIL %s: %s\n", t->name, what);
    else
        printf("ok   %s (%ld executions in %.1f s%s)\n", t->name, executions, clock_seconds() - start, o->keep ? ", with coverage" : "");
    if (o->keep) printf("     %d inputs found new edges\n", kept);
    return !what[0];
}

int fuzz_main(int argc, char **argv, const FuzzTarget *targets, int count) {
    Options o = {.executions = EXECUTIONS, .seed = 1};
    int passed = 0, failed = 0, words = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strncmp(argv[i], "--", 2) != 0) {
            argv[++words] = argv[i];
            continue;
        }
        if (!strcmp(argv[i], "--executions")) o.executions = atol(value);
        else if (!strcmp(argv[i], "--minutes")) o.seconds = 60 * atof(value);
        else if (!strcmp(argv[i], "--seed")) o.seed = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--keep")) o.keep = value;
        else if (!strcmp(argv[i], "--file") && i + 2 < argc) argv[++words] = argv[i + 1], o.file = argv[++i + 1];
        else {
            fprintf(stderr, "%s: unknown option, expected those in tests/fuzz/fuzz.h\n", argv[i]);
            return ERR_USAGE;
        }
        i++;
    }
    if (o.keep && !coverage_built()) {
        fprintf(stderr, "--keep: needs a build with coverage, see tests/fuzz/run\n");
        return ERR_USAGE;
    }
    for (int i = 0; i < count; i++) {
        bool wanted = words == 0;
        for (int w = 1; w <= words; w++) wanted |= o.file ? strcmp(targets[i].name, argv[w]) == 0 : strstr(targets[i].name, argv[w]) != NULL;
        if (!wanted) continue;
        if (try_target(&targets[i], &o)) passed++;
        else failed++;
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed != 0;
}
