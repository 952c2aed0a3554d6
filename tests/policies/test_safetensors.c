// safetensors: files that lie about themselves, each with the words it is refused with; and what is written comes back.
#include "../test.h"
#include "files.h"
#include "weights.h"
#include <sys/stat.h>
#include <unistd.h>

// ---- files that lie --------------------------------------------------------------------------------------
static char path[64];
static void temporary(void) { // names and makes an empty file
    strcpy(path, "/tmp/reckon-safetensors-XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
}
// Without a sync, which would take most of the time here.
static void put_bytes(const void *data, size_t size) {
    FILE *f = fopen(path, "we");
    CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
}
// Writes the bytes, opens them, expects `why` in the error; NULL: the file is fine.
static void expect_bytes(const void *data, size_t size, const char *why) {
    Err err = {0};
    temporary();
    put_bytes(data, size);
    Safetensors *s;
    bool ok = safetensors_open(path, &s, &err);
    if (ok) safetensors_close(s);
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
static void append_file(Buf *b, uint64_t claimed, const char *header, size_t header_size, size_t data_size) {
    for (int i = 0; i < 8; i++) buf_append(b, &(char){(char)(claimed >> 8 * i)}, 1);
    buf_append(b, header, header_size);
    for (size_t i = 0; i < data_size; i++) buf_append(b, "", 1);
}
static void expect(const char *header, size_t data_size, const char *why) {
    Buf b = {0};
    append_file(&b, strlen(header), header, strlen(header), data_size);
    expect_bytes(b.data, b.size, why);
    buf_free(&b);
}

static void bad_lengths(void) {
    expect_bytes("", 0, "has 0 bytes");
    expect_bytes("1234567", 7, "has 7 bytes");
    static const struct {
        uint64_t claimed;
        const char *why;
    } cases[] = {
        {3, "after its length"},
        {99999999, "after its length"},
        {100000001, "expected at most 100000000"},
        {UINT64_MAX, "expected at most 100000000"},
        {UINT64_MAX - 7, "expected at most 100000000"},
        {0, "does not begin with '{'"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Buf b = {0};
        append_file(&b, cases[i].claimed, "{}", 2, 0);
        expect_bytes(b.data, b.size, cases[i].why);
        buf_free(&b);
    }
}

static void bad_headers(void) {
    static const struct {
        const char *header;
        size_t data;
        const char *why;
    } cases[] = {
        {"{}", 0, NULL},
        {"{}   ", 0, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]}}", 0, NULL},
        {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, NULL},
        {"[]", 0, "does not begin with '{'"},
        {" {}", 0, "does not begin with '{'"},
        {"{\"a\xff\":1}", 0, "not valid JSON"},
        {"{\"a\":", 0, "not valid JSON"},
        {"{} x", 0, "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate object key"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "duplicate object key"},
        {"{\"a\":5}", 0, "expected an object"},
        {"{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[32],\"data_offsets\":[0,18]}}", 18, "unknown dtype 'Q4_0'"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype 'F33'"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype '(missing)'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "whole numbers from 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "whole numbers from 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "whole numbers from 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":\"1\",\"data_offsets\":[0,4]}}", 4, "shape is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "5 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "expected 4611686018427387904 elements"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,0]}}", 0, "not valid JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}", 6,
         "overlaps another"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "overlaps another"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12,
         "a hole before it"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "a hole before it"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "do not lie within"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "do not lie within"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "two whole numbers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "8 bytes of data, expected 3 elements of 4"},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "8 bytes of data, expected 2 elements of 2"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "1 bytes after the last tensor"},
        {"{}", 8, "8 bytes after the last tensor"},
        {"{\"__metadata__\":{\"format\":5}}", 0, "'format' isn't a string"},
        {"{\"__metadata__\":[]}", 0, "isn't an object"},
        {"{\"a\\u0000b\":{}}", 0, "not valid JSON"},
    };
    for (int i = 0; i < COUNT(cases); i++) expect(cases[i].header, cases[i].data, cases[i].why);
}

static void depth_bomb(void) {
    Buf b = {0};
    buf_puts(&b, "{\"a\":");
    for (int i = 0; i < 1000000; i++) buf_puts(&b, "[");
    expect(b.data, 0, "not valid JSON");
    buf_free(&b);
}
// Many tensors are legal; they must not take quadratic time.
static void many_tensors(void) {
    Err err = {0};
    Buf header = {0}, all = {0};
    enum { N = 100000 };
    for (int i = 0; i < N; i++)
        buf_printf(&header, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "{", i, i, i + 1);
    buf_puts(&header, "}");
    append_file(&all, header.size, header.data, header.size, N);
    temporary();
    put_bytes(all.data, all.size);
    Safetensors *s;
    OK(safetensors_open(path, &s, &err));
    unlink(path);
    CHECK_INT(safetensors_count(s), N);
    TensorInfo t;
    CHECK(safetensors_find(s, "t99999", &t) && !safetensors_find(s, "t100000", &t));
    const uint8_t *first = safetensors_bytes(s, "t0"), *last = safetensors_bytes(s, "t99999");
    CHECK_INT(last - first, N - 1);
    safetensors_close(s);
    buf_free(&header);
    buf_free(&all);
}
static void no_file(void) {
    Err err = {0};
    Safetensors *s;
    CHECK(!safetensors_open("/nonexistent/x.safetensors", &s, &err) && err.code == ERR_NOINPUT);
    CHECK(!safetensors_open("/tmp", &s, &err) && err.code == ERR_NOINPUT);
    temporary();
    unlink(path);
    CHECK(symlink(path, path) == 0); // a loop
    CHECK(!safetensors_open(path, &s, &err) && err.code == ERR_IO);
    unlink(path);
}
// Every truncation and every flipped bit of the header is refused or harmless (the sanitizers watch).
static void damage(void) {
    Err err = {0};
    Buf whole;
    OK(file_read(TEST_DATA "/models/gguf/metadata.expected.safetensors", 1 << 20, &whole, &err));
    temporary();
    int opened = 0;
    for (size_t n = 0; n < whole.size; n++) {
        put_bytes(whole.data, n);
        Safetensors *s;
        if (safetensors_open(path, &s, &err)) opened++, safetensors_close(s);
    }
    CHECK_INT(opened, 0);
    for (size_t bit = 0; bit < 8 * (whole.size - 68); bit++) {
        whole.data[bit / 8] ^= (char)(1 << bit % 8);
        put_bytes(whole.data, whole.size);
        Safetensors *s;
        if (safetensors_open(path, &s, &err)) {
            for (int i = 0; i < safetensors_count(s); i++) {
                TensorInfo t;
                float values[64];
                safetensors_at(s, i, &t);
                if (t.count <= 64 && !safetensors_read(s, t.name, values, &err)) CHECK_INT(err.code, ERR_DATA);
            }
            safetensors_close(s);
        }
        whole.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    unlink(path);
    buf_free(&whole);
}

// ---- dtypes and writing ----------------------------------------------------------------------------------
static void dtypes(void) {
    static const struct {
        const char *dtype;
        int size;
        uint64_t bits;
        float value;
    } cases[] = {
        {"F32", 4, 0xc0490fdb, -3.14159274f}, {"F16", 2, 0x3c00, 1},        {"F16", 2, 0x8001, -5.9604645e-8f},
        {"F16", 2, 0x03ff, 6.09755516e-5f},   {"F16", 2, 0x7bff, 65504},    {"F16", 2, 0x7c00, INFINITY},
        {"F16", 2, 0xfc00, -INFINITY},        {"BF16", 2, 0xc049, -3.140625f}, {"F64", 8, 0x3ff8000000000000, 1.5f},
        {"I8", 1, 0xff, -1},                  {"U8", 1, 0xff, 255},         {"I16", 2, 0xfffe, -2},
        {"U16", 2, 0xfffe, 65534},            {"I32", 4, 0xfffffffd, -3},   {"U32", 4, 0xfffffffd, 4294967293.0f},
        {"I64", 8, 0xfffffffffffffffc, -4},   {"U64", 8, 7, 7},             {"BOOL", 1, 1, 1},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        temporary();
        OK(safetensors_write(path, &(TensorOut){.name = "x", .dtype = cases[i].dtype, .dims = 1, .shape = {1}, .raw = &cases[i].bits}, 1, NULL, &err));
        Safetensors *s;
        OK(safetensors_open(path, &s, &err));
        float x = 0;
        OK(safetensors_read(s, "x", &x, &err));
        if (x != cases[i].value) FAIL("%s %llx: got %g, want %g", cases[i].dtype, (unsigned long long)cases[i].bits, x, cases[i].value);
        safetensors_close(s);
        unlink(path);
    }
    Err err = {0};
    temporary();
    OK(safetensors_write(path, &(TensorOut){.name = "x", .dtype = "F8_E4M3", .dims = 1, .shape = {1}, .raw = "x"}, 1, NULL, &err));
    Safetensors *s;
    OK(safetensors_open(path, &s, &err));
    float x;
    CHECK(!safetensors_read(s, "x", &x, &err) && err.code == ERR_DATA && strstr(err.msg, "F8_E4M3"));
    CHECK(!safetensors_read(s, "y", &x, &err) && err.code == ERR_DATA && strstr(err.msg, "no tensor 'y'"));
    safetensors_close(s);
    unlink(path);
}

static void writing(void) {
    Err err = {0};
    enum { N = 100001 }; // more than one chunk
    float *values = xmalloc(N * sizeof *values);
    Random r = random_start(3, STREAM_TEST, 0);
    for (int i = 0; i < N; i++) values[i] = (float)random_normal(&r);
    values[0] = 1.00390625f, values[1] = 1.01171875f, values[2] = NAN, values[3] = INFINITY, values[4] = 3.4e38f; // ties, and the end
    int64_t step = 42;
    TensorOut out[] = {
        {.name = "bf16", .dtype = "BF16", .dims = 1, .shape = {N}, .values = values},
        {.name = "fp32", .dtype = "F32", .dims = 2, .shape = {3, 5}, .values = values + 100},
        {.name = "step", .dtype = "I64", .dims = 0, .raw = &step},
        {.name = "none", .dtype = "F32", .dims = 2, .shape = {0, 7}, .values = values},
    };
    json_t *metadata = json_object();
    json_object_set_new(metadata, "note", json_string("kept"));
    temporary();
    OK(safetensors_write(path, out, COUNT(out), metadata, &err));
    CHECK_INT(json_object_size(metadata), 1);
    json_decref(metadata);
    Safetensors *s;
    OK(safetensors_open(path, &s, &err));
    CHECK_STR(json_string_value(json_object_get(safetensors_metadata(s), "format")), "pt");
    CHECK_STR(json_string_value(json_object_get(safetensors_metadata(s), "note")), "kept");
    CHECK(memcmp(safetensors_bytes(s, "step"), &step, 8) == 0);
    CHECK((uintptr_t)safetensors_bytes(s, "step") % 8 == 0 && (uintptr_t)safetensors_bytes(s, "fp32") % 4 == 0);
    CHECK(memcmp(safetensors_bytes(s, "fp32"), values + 100, 15 * 4) == 0);
    float *back = xmalloc(N * sizeof *back);
    OK(safetensors_read(s, "bf16", back, &err));
    CHECK(back[0] == 1.0f && back[1] == 1.015625f && back[2] != back[2] && back[3] == INFINITY && back[4] == INFINITY);
    for (int i = 5; i < N; i++) CHECK_NEAR(back[i], values[i], fabs((double)values[i]) / 256);
    OK(safetensors_read(s, "none", back, &err));
    safetensors_close(s);
    unlink(path);
    CHECK(!safetensors_write("/nonexistent/x", out, 1, NULL, &err) && err.code == ERR_CANTCREAT);
    CHECK(!safetensors_write(path, (TensorOut[]){out[1], out[1]}, 2, NULL, &err) && err.code == ERR_SOFTWARE && !file_exists(path));
    free(values);
    free(back);
}

static const Test tests[] = {
    {"bad lengths", bad_lengths},   {"bad headers", bad_headers}, {"depth bomb", depth_bomb},
    {"100,000 tensors", many_tensors}, {"no such file", no_file}, {"damaged files", damage},
    {"dtypes to fp32", dtypes},     {"writing", writing},
};
TEST_MAIN(tests)
