// Runs the built program's `calc` on a file of reference cases and compares each answer with the case's own
// `expected`, so that what is tested is the whole way: option table, readers, the functions that training uses.
#ifndef RECKON_CALC_CASES_H
#define RECKON_CALC_CASES_H
#include "../test.h"
#include "json.h"
#include <sys/wait.h>
#include <unistd.h>

typedef struct CaseCounts {
    int agreed, unsupported;
} CaseCounts;

// The exit code of `reckon calc KIND FILE`; its standard output lands in `out`, its standard error is dropped. RECKON_RUNNER is what
// runs a program of another machine (scripts/cross-check).
static inline int calc_run(const char *kind, const char *file, Buf *out) {
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);
    self[n] = 0;
    for (int i = 0; i < 2; i++) *strrchr(self, '/') = 0; // build/tests/NAME -> build
    const char *runner = getenv("RECKON_RUNNER");
    char *command = xasprintf("%s '%s/reckon' calc %s '%s' 2>/dev/null", runner ? runner : "", self, kind, file);
    FILE *pipe = popen(command, "r");
    free(command);
    CHECK(pipe);
    char chunk[4096];
    *out = (Buf){0};
    for (size_t got; (got = fread(chunk, 1, sizeof chunk, pipe)) > 0;) buf_append(out, chunk, got);
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool calc_agrees(const json_t *got, const json_t *want, double tolerance) {
    if (json_is_number(want) && json_is_number(got)) {
        double g = json_number_value(got), w = json_number_value(want);
        return fabs(g - w) <= tolerance * fmax(1, fabs(w));
    }
    if (json_is_object(want)) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)want, key, value) if (!calc_agrees(json_object_get(got, key), value, tolerance)) return false;
        return json_object_size(got) == json_object_size(want);
    }
    if (json_is_array(want)) {
        if (!json_is_array(got) || json_array_size(got) != json_array_size(want)) return false;
        for (size_t i = 0; i < json_array_size(want); i++)
            if (!calc_agrees(json_array_get(got, i), json_array_get(want, i), tolerance)) return false;
        return true;
    }
    return json_equal(got, want);
}

// Rows of equal logits: which of them stay is up to the sort, so only how many and their logprobs count.
static inline bool calc_is_ambiguous(const json_t *given) {
    const char *row = json_string_value(json_object_get(json_object_get(given, "inputs"), "logits"));
    return row && (!strcmp(row, "flat") || !strcmp(row, "ties"));
}
static inline int calc_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static inline json_t *calc_sorted(const json_t *list) {
    double values[256];
    size_t n = json_array_size(list);
    CHECK(n <= COUNT(values));
    for (size_t i = 0; i < n; i++) values[i] = json_number_value(json_array_get(list, i));
    qsort(values, n, sizeof *values, calc_ascending);
    json_t *sorted = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(sorted, json_real(values[i]));
    return sorted;
}
static inline bool calc_agrees_unordered(const json_t *got, const json_t *want) {
    json_t *g = calc_sorted(got), *w = calc_sorted(want);
    bool same = calc_agrees(g, w, 1e-9);
    json_decref(g), json_decref(w);
    return same;
}

static inline bool calc_not_compared(const char *key) {
    return !strncmp(key, "metrics", 7) || !strcmp(key, "sampling_metrics") || !strcmp(key, "splits") ||
           !strcmp(key, "state_after");
}

// Every case answers either its expected fields, no fewer and no more, or "unsupported".
static inline CaseCounts calc_compare(const char *kind, const char *name) {
    Err err = {0};
    Buf text;
    json_t *answer, *reference;
    char file[1024];
    snprintf(file, sizeof file, "%s/rl/%s", TEST_DATA, name);
    CHECK_INT(calc_run(kind, file, &text), 0);
    OK(json_parse(text.data, text.size, "calc", 1, &answer, &err));
    OK(json_read_file(file, 64 << 20, &reference, &err));
    json_t *got = json_object_get(answer, "cases"), *want = json_object_get(reference, "cases");
    CHECK_INT(json_array_size(got), json_array_size(want));
    CaseCounts counts = {0};
    for (size_t i = 0; i < json_array_size(want); i++) {
        json_t *g = json_array_get(got, i), *w = json_array_get(want, i), *value;
        const char *case_name = json_string_value(json_object_get(w, "name")), *key;
        CHECK_STR(json_string_value(json_object_get(g, "name")), case_name);
        if (json_object_get(g, "unsupported")) {
            counts.unsupported++;
            continue;
        }
        json_t *g_fields = json_object_get(g, "expected"), *w_fields = json_object_get(w, "expected");
        json_object_foreach(w_fields, key, value) {
            if (calc_not_compared(key)) continue;
            if (calc_is_ambiguous(w)) {
                if (strcmp(key, "logprobs_of_kept") == 0 && !calc_agrees_unordered(json_object_get(g_fields, key), value))
                    FAIL("%s: %s: %s differs", name, case_name, key);
                continue;
            }
            if (!calc_agrees(json_object_get(g_fields, key), value, 1e-9)) FAIL("%s: %s: %s differs", name, case_name, key);
        }
        json_object_foreach(g_fields, key, value)
            if (!value || !json_object_get(w_fields, key)) FAIL("%s: %s: %s was not asked for", name, case_name, key);
        counts.agreed++;
    }
    json_decref(answer), json_decref(reference), buf_free(&text);
    return counts;
}

// Writes `text` to a file, runs calc on it and returns the exit code; the output (may be NULL) is the caller's.
static inline int calc_text(const char *kind, const char *text, Buf *out) {
    char path[] = "/tmp/reckon-calc-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    Buf own = {0};
    int code = calc_run(kind, path, &own);
    unlink(path);
    if (out) *out = own;
    else buf_free(&own);
    return code;
}

#endif
