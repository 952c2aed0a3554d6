// Model files out: what goes out and comes back is the same to the bit, quantisers err as little as they should, and a
// header that lies about an extent gets nothing written.
#include "../test.h"
#include "export.h"
#include "files.h"
#include "weights_private.h"
#include <unistd.h>

static char folder[64]; // of this run

static const char *made(const char *name) {
    static char paths[8][128];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}
static const char *data(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/models/%s", TEST_DATA, name);
    return path;
}
static void fresh_folder(void) {
    Err err = {0};
    snprintf(folder, sizeof folder, "/tmp/reckon-export-%ld", (long)getpid());
    if (file_exists(folder)) OK(folder_remove(folder, &err));
    OK(folder_make(folder, &err));
}
static void clean_up(void) {
    Err err = {0};
    OK(folder_remove(folder, &err));
}

static void export_to(const char *from, const char *to, const char *type, uint64_t shard_bytes, bool gguf) {
    Err err = {0};
    Weights *w;
    ExportOptions o = {.type = type, .shard_bytes = shard_bytes};
    OK(weights_open(from, false, &w, &err));
    if (gguf)
        OK(export_gguf(w, to, &o, &err));
    else
        OK(export_hf(w, to, &o, &err));
    weights_close(w);
}
// Every tensor of `a` is in `b` with the same bits.
static void check_same(const char *a_path, const char *b_path) {
    Err err = {0};
    Weights *a, *b;
    OK(weights_open(a_path, false, &a, &err));
    OK(weights_open(b_path, false, &b, &err));
    CHECK_INT(weights_count(a), weights_count(b));
    CHECK_INT(weights_config(a)->tied, weights_config(b)->tied);
    CHECK_INT(weights_config(a)->stop_count, weights_config(b)->stop_count);
    for (int i = 0; i < weights_count(a); i++) {
        TensorInfo t;
        weights_at(a, i, &t);
        size_t bytes = (size_t)t.count * sizeof(float);
        float *x = xmalloc(bytes), *y = xmalloc(bytes);
        OK(weights_read(a, t.name, t.dims, t.shape, x, &err));
        OK(weights_read(b, t.name, t.dims, t.shape, y, &err));
        if (memcmp(x, y, bytes) != 0) FAIL("%s: other bits after %s", t.name, b_path);
        free(x), free(y);
    }
    weights_close(a), weights_close(b);
}

// ---- there and back --------------------------------------------------------------------------------------
static void round_trips(void) {
    static const char *const models[] = {"llama-tied", "qwen2", "gguf/tiny-llama.gguf"};
    static const char *const types[] = {"F32", "F16", "BF16"};
    for (int m = 0; m < COUNT(models); m++)
        for (int t = 0; t < COUNT(types); t++) {
            fresh_folder();
            export_to(data(models[m]), made("a"), types[t], 0, false);
            export_to(made("a"), made("a.gguf"), NULL, 0, true);
            export_to(made("a.gguf"), made("b"), types[t], 0, false);
            export_to(made("b"), made("b.gguf"), types[t], 0, true);
            check_same(made("a"), made("a.gguf"));
            check_same(made("a"), made("b"));
            check_same(made("a"), made("b.gguf"));
            clean_up();
        }
}
static void keeps_bytes(void) {
    Err err = {0};
    fresh_folder();
    export_to(data("gguf/tiny-llama.gguf"), made("kept.gguf"), NULL, 0, true);
    check_same(data("gguf/tiny-llama.gguf"), made("kept.gguf"));
    Weights *a, *b;
    OK(weights_open(data("gguf/tiny-llama.gguf"), false, &a, &err));
    OK(weights_open(made("kept.gguf"), false, &b, &err));
    json_t *before = weights_metadata(a), *after = weights_metadata(b);
    json_object_del(before, "general.alignment"), json_object_del(before, "general.file_type");
    json_object_del(before, "general.quantization_version"), json_object_del(after, "general.quantization_version");
    CHECK(json_equal(before, after));
    json_decref(before), json_decref(after);
    weights_close(a), weights_close(b);
    export_to(data("qwen2"), made("qwen2"), NULL, 0, false);
    for (int i = 0; i < 2; i++) {
        const char *names[] = {"config.json", "generation_config.json"};
        Buf x = {0}, y = {0};
        char *from = path_join(data("qwen2"), names[i]), *to = path_join(made("qwen2"), names[i]);
        OK(file_read(from, 1 << 20, &x, &err));
        OK(file_read(to, 1 << 20, &y, &err));
        CHECK(x.size == y.size && memcmp(x.data, y.data, x.size) == 0);
        buf_free(&x), buf_free(&y);
        free(from), free(to);
    }
    clean_up();
}
static void shards(void) {
    fresh_folder();
    export_to(data("llama-tied"), made("sharded"), "BF16", 40000, false);
    export_to(data("llama-tied"), made("whole"), "BF16", 0, false);
    CHECK(file_exists(made("sharded/model.safetensors.index.json")) && !file_exists(made("sharded/model.safetensors")));
    CHECK(file_exists(made("whole/model.safetensors")));
    check_same(made("whole"), made("sharded"));
    clean_up();
}

// ---- quantisers ------------------------------------------------------------------------------------------
// Root mean square error over root mean square, normal weights: about the levels of ggml's own quantisers.
static void quantisers(void) {
    static const struct {
        const char *type;
        double most;
    } cases[] = {{"Q8_0", 0.0061}, {"Q4_0", 0.094}, {"Q4_1", 0.080}, {"Q5_0", 0.047}, {"Q5_1", 0.039}, {"Q4_K", 0.073}, {"Q6_K", 0.0195}};
    enum { COUNT_VALUES = 256 * 64 };
    float *x = xmalloc(COUNT_VALUES * 4), *y = xmalloc(COUNT_VALUES * 4);
    uint8_t *packed = xmalloc(COUNT_VALUES * 4);
    Random r = random_start(7, STREAM_TEST, 0);
    for (int i = 0; i < COUNT_VALUES; i++) x[i] = (float)random_normal(&r) * 0.02f;
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        const StorageType *t = storage_by_name(cases[i].type);
        double e = 0, s = 0;
        OK(storage_encode(t, x, COUNT_VALUES / t->block, "test", "x", packed, &err));
        OK(storage_decode(t, packed, COUNT_VALUES / t->block, "test", "x", y, &err));
        for (int k = 0; k < COUNT_VALUES; k++) {
            e += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
            s += (double)x[k] * (double)x[k];
        }
        if (!(sqrt(e / s) <= cases[i].most)) FAIL("%s: relative error %.4f, expected at most %.4f", cases[i].type, sqrt(e / s), cases[i].most);
        // What decodes comes back: a block's own values are on its grid.
        OK(storage_encode(t, y, COUNT_VALUES / t->block, "test", "x", packed, &err));
        float zeros[256] = {0}, back[256];
        OK(storage_encode(t, zeros, 256 / t->block, "test", "x", packed, &err));
        OK(storage_decode(t, packed, 256 / t->block, "test", "x", back, &err));
        for (int k = 0; k < 256; k++) CHECK_NEAR(back[k], 0, 0);
        x[5] = NAN;
        CHECK(!storage_encode(t, x, 1, "test", "x", packed, &err));
        x[5] = 0.01f;
    }
    free(x), free(y), free(packed);
}
static void halves(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        float x = half_to_float((uint16_t)h);
        if (x == x) CHECK_INT(half_from_float(x), h);
    }
    CHECK_INT(half_from_float(65519.99f), 0x7bff);
    CHECK_INT(half_from_float(65520.0f), 0x7c00);
    CHECK_INT(half_from_float(1.0f + 0x1p-11f), 0x3c00);         // ties go to even
    CHECK_INT(half_from_float(1.0f + 3 * 0x1p-11f), 0x3c02);
    CHECK_INT(half_from_float(0x1p-25f), 0);
    CHECK_INT(half_from_float(0x1.8p-25f), 1);
    Err err = {0};
    float big = 70000;
    uint8_t out[4];
    CHECK(!storage_encode(storage_by_name("F16"), &big, 1, "test", "x", out, &err));
    CHECK_INT(err.code, ERR_DATA);
}

// ---- files that lie, places that are taken -----------------------------------------------------------------
// A header's extents are checked when it is opened; here they are changed afterwards, as if that check had been passed.
static void extents(void) {
    fresh_folder();
    for (int kind = 0; kind < 6; kind++) {
        Err err = {0};
        Weights *w;
        ExportOptions o = {0};
        OK(weights_open(kind % 2 ? data("gguf/tiny-llama.gguf") : data("llama-tied"), false, &w, &err));
        WeightTensor *t = &w->tensors[3];
        if (kind / 2 == 0) t->info.bytes += 1 << 20;
        if (kind / 2 == 1) t->info.shape[0] *= 4096, t->info.count *= 4096, t->info.bytes *= 4096;
        if (kind / 2 == 2) t->data += 1 << 24;
        bool ok = kind % 2 ? export_gguf(w, made("lie.gguf"), &o, &err) : export_hf(w, made("lie"), &o, &err);
        CHECK(!ok);
        CHECK_INT(err.code, ERR_DATA);
        CHECK(!file_exists(made("lie")) && !file_exists(made("lie.gguf")));
        weights_close(w);
    }
    clean_up();
}
static void taken_places(void) {
    Err err = {0};
    Weights *w;
    ExportOptions o = {0};
    fresh_folder();
    OK(weights_open(data("llama-tied"), false, &w, &err));
    OK(folder_make(made("empty"), &err));
    OK(export_hf(w, made("empty"), &o, &err));
    CHECK(!export_hf(w, made("empty"), &o, &err));
    CHECK_INT(err.code, ERR_CANTCREAT);
    OK(export_gguf(w, made("x.gguf"), &o, &err));
    CHECK(!export_gguf(w, made("x.gguf"), &o, &err));
    o.replace = true;
    OK(export_hf(w, made("empty"), &o, &err));
    OK(export_gguf(w, made("x.gguf"), &o, &err));
    check_same(made("empty"), made("x.gguf"));
    o.type = "Q8_0";
    CHECK(!export_hf(w, made("blocks"), &o, &err));
    CHECK_INT(err.code, ERR_USAGE);
    o.type = "Q9";
    CHECK(!export_gguf(w, made("blocks.gguf"), &o, &err));
    CHECK_INT(err.code, ERR_USAGE);
    weights_close(w);
    clean_up();
}

static const Test tests[] = {
    {"round trips are bitwise", round_trips},
    {"what isn't changed is carried over", keeps_bytes},
    {"shards", shards},
    {"quantisers", quantisers},
    {"halves", halves},
    {"extents are checked again", extents},
    {"taken places and unknown types", taken_places},
};
TEST_MAIN(tests)
