// GGUF: values and metadata against what the gguf package wrote, and files that lie about themselves.
#include "../test.h"
#include "files.h"
#include "gguf.h"
#include <unistd.h>

static json_t *expected(void) {
    Err err = {0};
    json_t *j;
    OK(json_read_file(TEST_DATA "/models/gguf/expected.json", 1 << 20, &j, &err));
    return j;
}
static json_t *expected_file(json_t *all, const char *name) {
    size_t i;
    json_t *file;
    json_array_foreach(json_object_get(all, "files"), i, file)
        if (strcmp(json_string_value(json_object_get(file, "file")), name) == 0) return file;
    FAIL("no file %s in expected.json", name);
}

// Names, types, shapes, and the first values: 2 ulp of what is listed (to nine digits, hence the larger bound).
static void check_tensors(const char *name) {
    Err err = {0};
    json_t *all = expected(), *file = expected_file(all, name), *want;
    char path[512];
    snprintf(path, sizeof path, "%s/models/gguf/%s", TEST_DATA, name);
    Gguf *g;
    OK(gguf_open(path, &g, &err));
    size_t n;
    CHECK_INT(gguf_tensor_count(g), json_array_size(json_object_get(file, "tensors")));
    json_array_foreach(json_object_get(file, "tensors"), n, want) {
        const GgufTensor *t = gguf_tensor_find(g, json_string_value(json_object_get(want, "name")));
        CHECK(t);
        CHECK_STR(t->type->name, json_string_value(json_object_get(want, "type")));
        json_t *shape = json_object_get(want, "shape"), *first = json_object_get(want, "first");
        CHECK_INT(t->dims, json_array_size(shape));
        for (int d = 0; d < t->dims; d++) CHECK_INT(t->shape[d], json_integer_value(json_array_get(shape, (size_t)d)));
        float *values = xmalloc((size_t)t->count * sizeof *values);
        OK(storage_decode(t->type, t->data, t->count / t->type->block, path, t->name, values, &err));
        double sum = 0, abs_sum = 0;
        for (int64_t i = 0; i < t->count; i++) sum += values[i], abs_sum += fabs((double)values[i]);
        for (size_t i = 0; i < json_array_size(first); i++) {
            double x = json_number_value(json_array_get(first, i));
            CHECK_NEAR(values[i], x, 3e-7 * fabs(x));
        }
        double want_sum = json_number_value(json_object_get(want, "abs_sum"));
        CHECK_NEAR(abs_sum, want_sum, 1e-9 * want_sum);
        CHECK_NEAR(sum, json_number_value(json_object_get(want, "sum")), 1e-9 * want_sum);
        free(values);
    }
    gguf_close(g);
    json_decref(all);
}
static void blocks_of_32(void) { check_tensors("quants-32.gguf"); }
static void blocks_of_256(void) { check_tensors("quants-k.gguf"); }
static void small_tensors(void) { check_tensors("metadata.gguf"); }
static void whole_model(void) { check_tensors("tiny-llama.gguf"); }

static void metadata(void) {
    Err err = {0};
    json_t *all = expected(), *file = expected_file(all, "metadata.gguf"), *want;
    Gguf *g;
    OK(gguf_open(TEST_DATA "/models/gguf/metadata.gguf", &g, &err));
    const char *key;
    json_object_foreach(json_object_get(file, "metadata"), key, want) {
        // The gguf package left the empty string out of the file that it lists it for.
        if (strcmp(key, "test.empty") == 0) continue;
        const GgufValue *v = gguf_find(g, key);
        if (!v) FAIL("key %s is missing", key);
        json_t *got = gguf_value_json(v), *value = json_object_get(want, "value");
        if (!json_equal(got, value)) FAIL("key %s differs", key);
        CHECK_INT(v->array, strcmp(json_string_value(json_object_get(want, "type")), "array") == 0);
        json_decref(got);
    }
    int64_t alignment = 0;
    OK(gguf_get_int(g, "general.alignment", true, &alignment, &err));
    CHECK_INT(alignment, 128);
    GgufText text;
    CHECK(!gguf_get_text(g, "test.uint8", true, &text, &err));
    CHECK(strstr(err.msg, "'test.uint8' is uint8, expected string"));
    CHECK(!gguf_get_text(g, "absent", true, &text, &err) && gguf_get_text(g, "absent", false, &text, &err));
    gguf_close(g);
    json_decref(all);
}

// ---- files that lie --------------------------------------------------------------------------------------
static void put(Buf *b, uint64_t x, int size) {
    for (int i = 0; i < size; i++) buf_append(b, &(char){(char)(i < 8 ? x >> 8 * i : 0)}, 1);
}
static void put_text(Buf *b, const char *s) {
    put(b, strlen(s), 8);
    buf_puts(b, s);
}
static void put_header(Buf *b, uint32_t version, uint64_t tensors, uint64_t values) {
    buf_puts(b, "GGUF");
    put(b, version, 4);
    put(b, tensors, 8);
    put(b, values, 8);
}
static void put_u32(Buf *b, const char *key, uint32_t x) {
    put_text(b, key);
    put(b, GGUF_U32, 4);
    put(b, x, 4);
}
static void put_tensor(Buf *b, const char *name, int dims, const uint64_t *shape, uint32_t type, uint64_t offset) {
    put_text(b, name);
    put(b, (uint64_t)dims, 4);
    for (int i = 0; i < dims; i++) put(b, shape[i], 8);
    put(b, type, 4);
    put(b, offset, 8);
}
static void fill(Buf *b, size_t size, size_t more) {
    while (b->size % size) put(b, 0, 1);
    for (size_t i = 0; i < more; i++) put(b, 0, 1);
}
// Takes the bytes, opens them as a file, and expects `why` in the error; NULL: the file is fine.
static void expect(Buf *b, const char *why) {
    Err err = {0};
    char path[] = "/tmp/reckon-gguf-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    OK(write_all(fd, b->data ? b->data : "", b->size, path, &err));
    close(fd);
    buf_free(b);
    Gguf *g;
    bool ok = gguf_open(path, &g, &err);
    if (ok) gguf_close(g);
    unlink(path);
    if (!why) {
        OK(ok);
        return;
    }
    if (ok) FAIL("opened, expected the error '%s'", why);
    CHECK_INT(err.code, ERR_DATA);
    CHECK(strncmp(err.where, path, strlen(path)) == 0);
    if (!strstr(err.msg, why)) FAIL("got '%s', want '%s' in it", err.msg, why);
}

static void bad_headers(void) {
    Buf b = {0};
    expect(&b, "needs 4 bytes");
    buf_puts(&b, "GGML");
    fill(&b, 32, 0);
    expect(&b, "not a GGUF file");
    const uint32_t versions[] = {0, 1, 4, 0x7fffffff};
    for (int i = 0; i < COUNT(versions); i++) {
        put_header(&b, versions[i], 0, 0);
        expect(&b, "expected 2 or 3");
    }
    put_header(&b, 0x03000000, 0, 0);
    expect(&b, "big-endian");
    put_header(&b, 3, 0, UINT64_MAX);
    expect(&b, "metadata keys can't fit");
    put_header(&b, 3, UINT64_MAX, 0);
    expect(&b, "tensors can't fit");
    put_header(&b, 3, 1, 0);
    expect(&b, "1 tensors can't fit");
    put_header(&b, 2, 0, 0);
    expect(&b, NULL);
    buf_puts(&b, "GGUF");
    put(&b, 3, 4);
    put(&b, 0, 8);
    expect(&b, "needs 8 bytes, the file has 0 left");
}

static void bad_metadata(void) {
    Buf b = {0};
    put_header(&b, 3, 0, 1);
    put(&b, UINT64_C(1) << 63, 8);
    fill(&b, 1, 16);
    expect(&b, "needs 9223372036854775808 bytes");
    put_header(&b, 3, 0, 1);
    put_text(&b, "k");
    put(&b, GGUF_TEXT, 4);
    put(&b, UINT64_C(1) << 63, 8);
    expect(&b, "'k'");
    const GgufType items[] = {GGUF_TEXT, GGUF_U8, GGUF_I32, GGUF_F64};
    for (int i = 0; i < COUNT(items); i++) {
        put_header(&b, 3, 0, 1);
        put_text(&b, "k");
        put(&b, GGUF_ARRAY, 4);
        put(&b, items[i], 4);
        put(&b, UINT64_C(1) << 62, 8);
        fill(&b, 1, 8);
        expect(&b, "metadata key 'k'");
    }
    put_header(&b, 3, 0, 1);
    put_text(&b, "k");
    put(&b, GGUF_ARRAY, 4);
    put(&b, GGUF_ARRAY, 4);
    fill(&b, 1, 16);
    expect(&b, "array of arrays");
    put_header(&b, 3, 0, 1);
    put_text(&b, "k");
    put(&b, 13, 4);
    fill(&b, 1, 8);
    expect(&b, "value type 13");
    put_header(&b, 3, 0, 1);
    put_text(&b, "k");
    put(&b, GGUF_BOOL, 4);
    put(&b, 2, 1);
    fill(&b, 1, 8);
    expect(&b, "a bool of value 2");
    put_header(&b, 3, 0, 2);
    put_u32(&b, "same", 1);
    put_u32(&b, "same", 2);
    expect(&b, "'same' occurs twice");
    put_header(&b, 3, 0, 1);
    put_u32(&b, "\xff\xfe", 1);
    expect(&b, "isn't UTF-8");
    put_header(&b, 3, 0, 1);
    put_text(&b, "empty string");
    put(&b, GGUF_TEXT, 4);
    put_text(&b, "");
    expect(&b, NULL);
    put_header(&b, 3, 0, 1);
    put_u32(&b, "", 1);
    expect(&b, "a name of 0 bytes");
}

static void bad_alignment(void) {
    const uint32_t values[] = {0, 3, UINT32_C(1) << 31};
    Buf b = {0};
    for (int i = 0; i < COUNT(values); i++) {
        put_header(&b, 3, 0, 1);
        put_u32(&b, "general.alignment", values[i]);
        expect(&b, "expected a power of two");
    }
    put_header(&b, 3, 0, 1);
    put_text(&b, "general.alignment");
    put(&b, GGUF_I8, 4);
    put(&b, 32, 1);
    fill(&b, 1, 8);
    expect(&b, "expected uint32");
}

static void bad_tensors(void) {
    Buf b = {0};
    static const struct {
        int dims;
        uint64_t shape[5];
        uint32_t type;
        uint64_t offset;
        const char *why;
    } cases[] = {
        {1, {8}, 0, 0, NULL},
        {0, {0}, 0, 0, "0 dimensions"},
        {5, {1, 1, 1, 1, 1}, 0, 0, "5 dimensions"},
        {1, {0}, 0, 0, "overflows or is zero"},
        {2, {UINT64_C(1) << 32, UINT64_C(1) << 32}, 0, 0, "overflows"},
        {1, {UINT64_MAX}, 0, 0, "overflows"},
        {1, {INT64_MAX}, 0, 0, "size in bytes overflows"},
        {1, {INT64_MAX / 4}, 0, 0, "needs bytes"}, // fits 64 bits: the padding behind it must not wrap either
        {1, {16}, 0, 0, "needs bytes 0 to 64"},
        {1, {8}, 0, 32, "offset 32, expected 0"},
        {1, {8}, 0, UINT64_MAX - 31, "expected 0"},
        {1, {8}, 4, 0, "type 4 isn't known"},
        {1, {8}, 255, 0, "type 255 isn't known"},
        {1, {33}, 8, 0, "multiple of 32 for Q8_0"},
        {2, {128, 2}, 12, 0, "multiple of 256 for Q4_K"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        put_header(&b, 3, 1, 0);
        put_tensor(&b, "t", cases[i].dims, cases[i].shape, cases[i].type, cases[i].offset);
        fill(&b, 32, 32);
        expect(&b, cases[i].why);
    }
    for (int second = 0; second < 3; second++) { // overlap, a hole, and the only right place
        put_header(&b, 3, 2, 0);
        put_tensor(&b, "a", 1, (uint64_t[]){4}, 0, 0);
        put_tensor(&b, "b", 1, (uint64_t[]){4}, 0, (uint64_t[]){0, 64, 32}[second]);
        fill(&b, 32, 96);
        expect(&b, second < 2 ? "expected 32" : NULL);
    }
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){4}, 0, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){4}, 0, 32);
    fill(&b, 32, 96);
    expect(&b, "'a' occurs twice");
}

// Every prefix of a whole file is refused or opens; nothing is read past its end (the sanitizers watch).
static void truncation(void) {
    Err err = {0};
    Buf whole;
    OK(file_read(TEST_DATA "/models/gguf/metadata.gguf", 1 << 20, &whole, &err));
    char path[] = "/tmp/reckon-gguf-XXXXXX";
    int fd = mkstemp(path), opened = 0;
    CHECK(fd >= 0);
    OK(write_all(fd, whole.data, whole.size, path, &err));
    for (size_t n = whole.size; n-- > 0;) {
        CHECK(ftruncate(fd, (off_t)n) == 0);
        Gguf *g;
        if (gguf_open(path, &g, &err)) opened++, gguf_close(g);
    }
    close(fd);
    unlink(path);
    buf_free(&whole);
    CHECK(opened < 128); // only the padding after the last tensor may be missing
}

// So is every flipped bit; what opens is read whole.
static void flipped_bits(void) {
    Err err = {0};
    Buf whole;
    OK(file_read(TEST_DATA "/models/gguf/metadata.gguf", 1 << 20, &whole, &err));
    char path[] = "/tmp/reckon-gguf-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    OK(write_all(fd, whole.data, whole.size, path, &err));
    for (size_t bit = 0; bit < 8 * whole.size; bit++) {
        char byte = (char)(whole.data[bit / 8] ^ 1 << bit % 8);
        CHECK(pwrite(fd, &byte, 1, (off_t)(bit / 8)) == 1);
        Gguf *g;
        if (gguf_open(path, &g, &err)) {
            for (int i = 0; i < gguf_value_count(g); i++) json_decref(gguf_value_json(gguf_value_at(g, i)));
            for (int i = 0; i < gguf_tensor_count(g); i++) {
                const GgufTensor *t = gguf_tensor_at(g, i);
                float *values = xmalloc((size_t)t->count * sizeof *values);
                if (!storage_decode(t->type, t->data, t->count / t->type->block, path, t->name, values, &err)) CHECK_INT(err.code, ERR_DATA);
                free(values);
            }
            gguf_close(g);
        }
        CHECK(pwrite(fd, &whole.data[bit / 8], 1, (off_t)(bit / 8)) == 1);
    }
    close(fd);
    unlink(path);
    buf_free(&whole);
}

static const Test tests[] = {
    {"blocks of 32: values", blocks_of_32},
    {"blocks of 256: values", blocks_of_256},
    {"padded tensors: values", small_tensors},
    {"a whole model: values", whole_model},
    {"metadata of every type", metadata},
    {"bad headers", bad_headers},
    {"bad metadata", bad_metadata},
    {"bad alignment", bad_alignment},
    {"bad tensors", bad_tensors},
    {"every prefix of a file", truncation},
    {"every flipped bit of a file", flipped_bits},
};
TEST_MAIN(tests)
