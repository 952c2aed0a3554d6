// Models as files: folders, shards and GGUF under one interface; the order of rotary rows; and folders that lie.
#include "../test.h"
#include "files.h"
#include "weights.h"
#include <unistd.h>

static int64_t ulps(float a, float b) {
    int32_t x, y;
    memcpy(&x, &a, 4);
    memcpy(&y, &b, 4);
    int64_t p = x < 0 ? INT32_MIN - (int64_t)x : x, q = y < 0 ? INT32_MIN - (int64_t)y : y;
    return p > q ? p - q : q - p;
}
// Every dequantised value of a GGUF against the file of values beside it.
static void compare_values(const char *name) {
    Err err = {0};
    Weights *w;
    Safetensors *s;
    char path[512];
    snprintf(path, sizeof path, "%s/models/gguf/%s.gguf", TEST_DATA, name);
    OK(weights_open(path, true, &w, &err));
    CHECK(!weights_config(w) && weights_config_error(w));
    snprintf(path, sizeof path, "%s/models/gguf/%s.expected.safetensors", TEST_DATA, name);
    OK(safetensors_open(path, &s, &err));
    CHECK_INT(weights_count(w), safetensors_count(s));
    for (int i = 0; i < safetensors_count(s); i++) {
        TensorInfo want, got;
        safetensors_at(s, i, &want);
        CHECK(weights_find(w, want.name, &got) && got.dims == want.dims && got.count == want.count);
        float *a = xmalloc((size_t)want.count * 4), *b = xmalloc((size_t)want.count * 4);
        OK(safetensors_read(s, want.name, a, &err));
        OK(weights_read(w, want.name, want.dims, want.shape, b, &err));
        for (int64_t k = 0; k < want.count; k++)
            if (!(ulps(a[k], b[k]) <= 2)) FAIL("%s[%lld]: got %.9g, want %.9g", want.name, (long long)k, b[k], a[k]);
        free(a);
        free(b);
    }
    weights_close(w);
    safetensors_close(s);
}
static void values_of_32(void) { compare_values("quants-32"); }
static void values_of_256(void) { compare_values("quants-k"); }
static void values_padded(void) { compare_values("metadata"); }

static void folders(void) {
    static const struct {
        const char *path;
        int tensors;
        const char *name;
        int64_t shape[2];
    } cases[] = {
        {TEST_DATA "/models/llama-tied", 20, "model.layers.1.mlp.down_proj.weight", {80, 96}},
        {TEST_DATA "/models/qwen2", 27, "lm_head.weight", {288, 48}},
        {TEST_DATA "/models/gguf/tiny-llama.gguf", 20, "model.layers.1.mlp.down_proj.weight", {64, 256}},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Weights *w;
        OK(weights_open(cases[i].path, false, &w, &err));
        CHECK(weights_config(w) && !weights_config_error(w));
        CHECK_INT(weights_count(w), cases[i].tensors);
        int64_t sum = 0;
        for (int k = 0; k < weights_count(w); k++) {
            TensorInfo t;
            weights_at(w, k, &t);
            sum += t.count;
        }
        CHECK_INT(sum, config_parameters(weights_config(w)));
        TensorInfo t;
        CHECK(weights_find(w, cases[i].name, &t) && t.dims == 2 && t.shape[0] == cases[i].shape[0] && t.shape[1] == cases[i].shape[1]);
        float *values = xmalloc((size_t)t.count * 4);
        OK(weights_read(w, t.name, 2, cases[i].shape, values, &err));
        double sum_abs = 0;
        for (int64_t k = 0; k < t.count; k++) sum_abs += fabs((double)values[k]);
        CHECK(sum_abs > 0 && isfinite(sum_abs));
        CHECK(!weights_read(w, t.name, 1, cases[i].shape, values, &err) && strstr(err.msg, "has shape"));
        CHECK(!weights_read(w, "model.nothing", 1, cases[i].shape, values, &err) && strstr(err.msg, "'model.nothing' is missing"));
        json_t *metadata = weights_metadata(w);
        CHECK(json_is_object(metadata) && json_object_size(metadata) > 0);
        json_decref(metadata);
        free(values);
        weights_close(w);
    }
}
static void gguf_config(void) {
    Err err = {0};
    Weights *w;
    OK(weights_open(TEST_DATA "/models/gguf/tiny-llama.gguf", false, &w, &err));
    const ModelConfig *c = weights_config(w);
    CHECK_STR(c->model_type, "llama");
    CHECK(c->layers == 2 && c->width == 64 && c->heads == 4 && c->kv_heads == 2 && c->head_width == 16 && c->feed_forward == 256);
    CHECK(c->vocabulary == 1010 && c->max_positions == 512 && c->tied && !c->qkv_bias && c->rope[0].theta == 100000);
    CHECK(c->norm_eps == (double)1e-5f && c->bos_id == 0 && c->stop_count == 1 && c->stop_ids[0] == 1001);
    TensorInfo hf, own;
    CHECK(weights_find(w, "model.layers.0.self_attn.q_proj.weight", &hf) && weights_find(w, "blk.0.attn_q.weight", &own));
    CHECK_STR(own.name, hf.name);
    CHECK_STR(own.type, "Q4_0");
    // Head 1 of k is rows 16 to 31: its halves come from the even and odd rows of the file.
    float *raw = xmalloc(32 * 64 * 4), *rows = xmalloc(32 * 64 * 4);
    OK(weights_read_raw(w, "blk.0.attn_k.weight", raw, &err));
    OK(weights_read(w, "model.layers.0.self_attn.k_proj.weight", 2, (int64_t[]){32, 64}, rows, &err));
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 8; i++) CHECK(memcmp(rows + (16 + 8 * half + i) * 64, raw + (16 + 2 * i + half) * 64, 64 * 4) == 0);
    OK(weights_read_raw(w, "blk.0.attn_v.weight", raw, &err));
    OK(weights_read(w, "model.layers.0.self_attn.v_proj.weight", 2, (int64_t[]){32, 64}, rows, &err));
    CHECK(memcmp(raw, rows, 32 * 64 * 4) == 0);
    free(raw);
    free(rows);
    weights_close(w);
}

// ---- GGUF models that lie --------------------------------------------------------------------------------
static Buf tiny_llama(void) {
    Err err = {0};
    Buf whole;
    OK(file_read(TEST_DATA "/models/gguf/tiny-llama.gguf", 1 << 20, &whole, &err));
    return whole;
}
static void expect_gguf(Buf whole, const char *why) {
    Err err = {0};
    char path[] = "/tmp/reckon-weights-XXXXXX.gguf";
    int fd = mkstemps(path, 5);
    CHECK(fd >= 0);
    OK(write_all(fd, whole.data, whole.size, path, &err));
    close(fd);
    Weights *w;
    bool ok = weights_open(path, false, &w, &err);
    if (ok) weights_close(w);
    if (ok) FAIL("opened, expected the error '%s'", why);
    CHECK_INT(err.code, ERR_DATA);
    if (!strstr(err.msg, why)) FAIL("got '%s', want '%s' in it", err.msg, why);
    err = (Err){0};
    OK(weights_open(path, true, &w, &err)); // as a bag of tensors it is fine
    CHECK_STR(weights_config_error(w)->where, path);
    TensorInfo t;
    weights_at(w, 0, &t);
    CHECK_STR(t.name, "token_embd.weight");
    weights_close(w);
    unlink(path);
    buf_free(&whole);
}
// With one run of bytes replaced by another of the same length.
static void patched(const char *from, const void *to, size_t offset, size_t size, const char *why) {
    Buf whole = tiny_llama();
    char *at = memmem(whole.data, whole.size, from, strlen(from));
    CHECK(at);
    memcpy(at + offset, to, size);
    expect_gguf(whole, why);
}
// With one more metadata key, and a second one as long as it takes to leave the data aligned.
static void put_key(Buf *b, const char *key, size_t size, uint32_t type, const void *value, size_t value_size) {
    buf_append(b, &(uint64_t){size}, 8);
    buf_append(b, key, size);
    buf_append(b, &type, 4);
    buf_append(b, value, value_size);
}
static void inserted(const char *key, uint32_t type, const void *value, size_t size, const char *why) {
    Buf whole = tiny_llama(), out = {0};
    *(uint64_t *)(void *)(whole.data + 16) += 2;
    buf_append(&out, whole.data, 24);
    put_key(&out, key, strlen(key), type, value, size);
    size_t rest = (32 - (out.size - 24 + 8 + 1 + 4 + 1) % 32) % 32;
    put_key(&out, "padding padding padding padding p", 1 + rest, 0, "", 1);
    buf_append(&out, whole.data + 24, whole.size - 24);
    buf_free(&whole);
    expect_gguf(out, why);
}
static void bad_gguf_models(void) {
    // A number lies behind its key and four bytes of type.
#define NUMBER(key, x, why) patched(key, &(uint32_t){x}, strlen(key) + 4, 4, why)
    NUMBER("llama.block_count", 3, "'model.layers.2.input_layernorm.weight' is missing");
    NUMBER("llama.block_count", 1, "'blk.1.attn_norm.weight' has no place");
    NUMBER("llama.block_count", 1000000000, "num_hidden_layers is 1000000000");
    NUMBER("llama.attention.head_count", 0, "expected at least 1");
    NUMBER("llama.attention.head_count", 7, "doesn't divide the width 64");
    NUMBER("llama.attention.head_count_kv", 3, "num_key_value_heads is 3");
    NUMBER("llama.attention.head_count_kv", 4, "has shape [32, 64], expected [64, 64]");
    NUMBER("llama.rope.dimension_count", 8, "8 rotary dimensions");
    NUMBER("llama.embedding_length", 0x80000000, "llama.embedding_length is 2147483648");
    NUMBER("llama.feed_forward_length", 255, "has shape [256, 64], expected [255, 64]");
    NUMBER("llama.attention.layer_norm_rms_epsilon", 0x7fc00000, "rms_norm_eps is nan");
    NUMBER("llama.rope.freq_base", 0x7f800000, "rope_theta is inf");
    NUMBER("tokenizer.ggml.eos_token_id", 1010, "eos_token_id is 1010, expected less than vocab_size 1010");
    NUMBER("tokenizer.ggml.bos_token_id", 4000000000, "is no token id");
    patched("llama.block_count", "llama.block_cound", 0, 17, "'llama.block_count' is missing");
    patched("llama.block_count", &(uint32_t){6}, 17, 4, "'llama.block_count' is float32, expected integer");
    patched("general.architecture", "mamba", 32, 5, "general.architecture is 'mamba'");
    patched("output_norm.weight", "output_form.weight", 0, 18, "'model.norm.weight' is missing");
    patched("blk.1.ffn_up.weight", "blk.1.ffn_up.hheavy", 0, 19, "up_proj.weight' is missing");
#undef NUMBER
    float factor = -4;
    inserted("llama.rope.scaling.factor", 6, &factor, 4, "the rotary positions' factor is -4, expected 1 to 1e6");
    inserted("llama.rope.scaling.attn_factor", 6, &factor, 4, "llama.rope.scaling.attn_factor is -4, expected 1 without");
    inserted("llama.rope.scaling.yarn_log_multiplier", 6, &factor, 4, "yarn_log_multiplier is -4, expected 0: not supported");
    inserted("llama.rope.scaling.type", 8, "\4\0\0\0\0\0\0\0warn", 12, "llama.rope.scaling.type is 'warn', expected one of 'none', 'linear'");
    inserted("llama.rope.scaling.type", 8, "\10\0\0\0\0\0\0\0longrope", 16, "'rope_factors_short.weight' is missing");
    inserted("llama.attention.sliding_window", 4, &(uint32_t){8}, 4, "sliding_window is 8, expected 0: not supported for this architecture");
    inserted("llama.expert_count", 4, &(uint32_t){8}, 4, "llama.expert_used_count' is missing");
    inserted("llama.expert_count", 8, "\4\0\0\0\0\0\0\0yarn", 12, "'llama.expert_count' is string, expected integer");
    inserted("llama.attention.value_length", 4, &(uint32_t){8}, 4, "values of 8");
    inserted("llama.attention.key_length", 4, &(uint32_t){15}, 4, "heads of 15, but values of 15 and 16 rotary");
}

// ---- a small GGUF of either architecture, with biases ----------------------------------------------------
static void put_int(Buf *b, const char *architecture, const char *name, uint32_t value) {
    char *key = xasprintf("%s.%s", architecture, name);
    put_key(b, key, strlen(key), 4, &value, 4);
    free(key);
}
// Every tensor holds 0, 1, 2, ... so that a value tells its place in the file.
static char *small_gguf(const char *architecture, bool untied) {
    static const struct {
        const char *name;
        uint64_t rows, columns;
    } tensors[] = {
        {"token_embd.weight", 9, 8},   {"output_norm.weight", 8, 0},      {"blk.0.attn_norm.weight", 8, 0}, {"blk.0.ffn_norm.weight", 8, 0},
        {"blk.0.attn_q.weight", 8, 8}, {"blk.0.attn_k.weight", 4, 8},     {"blk.0.attn_v.weight", 4, 8},    {"blk.0.attn_output.weight", 8, 8},
        {"blk.0.attn_q.bias", 8, 0},   {"blk.0.attn_k.bias", 4, 0},       {"blk.0.attn_v.bias", 4, 0},      {"blk.0.ffn_gate.weight", 8, 8},
        {"blk.0.ffn_up.weight", 8, 8}, {"blk.0.ffn_down.weight", 8, 8},   {"blk.0.attn_output.bias", 8, 0}, {"output.weight", 9, 8},
    };
    bool llama = strcmp(architecture, "llama") == 0;
    Buf b = {0}, data = {0};
    uint64_t count = 0, text_size = strlen(architecture);
    float eps = 1e-6f;
    buf_append(&b, "GGUF\2\0\0\0\0\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0", 24);
    put_key(&b, "general.architecture", 20, 8, &text_size, 8);
    buf_append(&b, architecture, text_size);
    put_int(&b, architecture, "block_count", 1);
    put_int(&b, architecture, "embedding_length", 8);
    put_int(&b, architecture, "feed_forward_length", 8);
    put_int(&b, architecture, "context_length", 32);
    put_int(&b, architecture, "attention.head_count", 2);
    put_int(&b, architecture, "attention.head_count_kv", 1);
    char *key = xasprintf("%s.attention.layer_norm_rms_epsilon", architecture);
    put_key(&b, key, strlen(key), 6, &eps, 4);
    free(key);
    for (int i = 0; i < COUNT(tensors); i++) {
        if ((i == 14 && !llama) || (i == 15 && !untied)) continue;
        uint64_t rows = tensors[i].rows, columns = tensors[i].columns, n = columns ? rows * columns : rows;
        buf_append(&b, &(uint64_t){strlen(tensors[i].name)}, 8);
        buf_puts(&b, tensors[i].name);
        buf_append(&b, &(uint32_t){columns ? 2 : 1}, 4);
        if (columns) buf_append(&b, &columns, 8);
        buf_append(&b, &rows, 8);
        buf_append(&b, &(uint32_t){0}, 4);
        buf_append(&b, &(uint64_t){data.size}, 8);
        for (uint64_t k = 0; k < n; k++) buf_append(&data, &(float){(float)k}, 4);
        while (data.size % 32) buf_append(&data, "", 1);
        count++;
    }
    while (b.size % 32) buf_append(&b, "", 1);
    memcpy(b.data + 8, &count, 8);
    buf_append(&b, data.data, data.size);
    char path[] = "/tmp/reckon-weights-XXXXXX.gguf";
    int fd = mkstemps(path, 5);
    Err err = {0};
    CHECK(fd >= 0);
    OK(write_all(fd, b.data, b.size, path, &err));
    close(fd);
    buf_free(&b);
    buf_free(&data);
    return xstrdup(path);
}
static void gguf_architectures(void) {
    for (int llama = 0; llama < 2; llama++) {
        Err err = {0};
        Weights *w;
        char *path = small_gguf(llama ? "llama" : "qwen2", !llama);
        OK(weights_open(path, false, &w, &err));
        const ModelConfig *c = weights_config(w);
        CHECK_STR(c->model_type, llama ? "llama" : "qwen2");
        CHECK(c->qkv_bias && c->output_bias == llama && !c->mlp_bias && c->tied == llama && c->rope[0].theta == 10000 && c->head_width == 4);
        CHECK(c->bos_id == -1 && c->pad_id == -1 && c->stop_count == 0);
        // llama interleaves the halves of a head: 0 2 1 3 brings them back. qwen2 doesn't.
        const float order[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 1, 3, 4, 6, 5, 7}};
        float values[64];
        OK(weights_read(w, "model.layers.0.self_attn.q_proj.weight", 2, (int64_t[]){8, 8}, values, &err));
        for (int i = 0; i < 64; i++) CHECK(values[i] == 8 * order[llama][i / 8] + (float)(i % 8));
        OK(weights_read(w, "model.layers.0.self_attn.q_proj.bias", 1, (int64_t[]){8}, values, &err));
        for (int i = 0; i < 8; i++) CHECK(values[i] == order[llama][i]);
        OK(weights_read(w, "model.layers.0.self_attn.k_proj.bias", 1, (int64_t[]){4}, values, &err));
        for (int i = 0; i < 4; i++) CHECK(values[i] == order[llama][i]);
        OK(weights_read(w, "model.layers.0.self_attn.v_proj.bias", 1, (int64_t[]){4}, values, &err));
        for (int i = 0; i < 4; i++) CHECK(values[i] == (float)i);
        OK(weights_read_raw(w, "model.layers.0.self_attn.q_proj.bias", values, &err));
        for (int i = 0; i < 8; i++) CHECK(values[i] == (float)i);
        weights_close(w);
        unlink(path);
        free(path);
    }
}

// ---- folders that lie ------------------------------------------------------------------------------------
static char folder[64];
static void put_file(const char *name, const char *text) {
    Err err = {0};
    char *path = path_join(folder, name);
    OK(file_write_atomic(path, text, strlen(text), &err));
    free(path);
}
static void put_link(const char *name, const char *target) {
    char *path = path_join(folder, name);
    CHECK(symlink(target, path) == 0);
    free(path);
}
static void put_shard(const char *name, const char *tensor) {
    Err err = {0};
    char *path = path_join(folder, name);
    OK(safetensors_write(path, &(TensorOut){.name = tensor, .dtype = "F32", .dims = 1, .shape = {1}, .values = (float[]){1}}, 1, NULL, &err));
    free(path);
}
static void expect_folder(const char *index, int code, const char *why) {
    Err err = {0};
    Weights *w;
    put_file("model.safetensors.index.json", index);
    if (weights_open(folder, true, &w, &err)) FAIL("opened, expected '%s'", why);
    CHECK_INT(err.code, code);
    if (!strstr(err.msg, why)) FAIL("got '%s', want '%s' in it", err.msg, why);
}
static void bad_indexes(void) {
    Err err = {0};
    strcpy(folder, "/tmp/reckon-folder-XXXXXX");
    CHECK(mkdtemp(folder));
    Weights *w;
    CHECK(!weights_open(folder, true, &w, &err) && err.code == ERR_NOINPUT);
    put_shard("a.safetensors", "x");
    put_shard("b.safetensors", "y");
    static const char *const names[] = {
        "../../x", "../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", "", ".safetensors", ".a.safetensors", "a.bin", "a.safetensors\\u0000",
    };
    for (int i = 0; i < COUNT(names); i++) {
        char *index = xasprintf("{\"weight_map\":{\"x\":\"%s\"}}", names[i]);
        expect_folder(index, ERR_DATA, "expected the name of a .safetensors file in the same folder");
        free(index);
    }
    expect_folder("{\"weight_map\":{\"x\":5}}", ERR_DATA, "something that isn't text");
    expect_folder("{\"weight_map\":[]}", ERR_DATA, "weight_map is missing or empty");
    expect_folder("{\"weight_map\":{}}", ERR_DATA, "weight_map is missing or empty");
    expect_folder("[]", ERR_DATA, "weight_map is missing or empty");
    expect_folder("{\"weight_map\":", ERR_DATA, "not valid JSON");
    expect_folder("{\"weight_map\":{\"x\":\"a.safetensors\",\"x\":\"b.safetensors\"}}", ERR_DATA, "duplicate object key");
    expect_folder("{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"missing.safetensors\"}}", ERR_NOINPUT, "can't open");
    expect_folder("{\"weight_map\":{\"x\":\"a.safetensors\",\"z\":\"a.safetensors\"}}", ERR_DATA, "lists 2 tensors, but its files hold 1");
    expect_folder("{\"weight_map\":{\"x\":\"b.safetensors\"}}", ERR_DATA, "'y' lies in b.safetensors, but the index has it in no file");
    expect_folder("{\"weight_map\":{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}}", ERR_DATA, "but the index has it in");
    put_link("loop.safetensors", "loop.safetensors");
    expect_folder("{\"weight_map\":{\"x\":\"loop.safetensors\"}}", ERR_IO, "can't open");
    put_link("folder.safetensors", "/tmp");
    expect_folder("{\"weight_map\":{\"x\":\"folder.safetensors\"}}", ERR_NOINPUT, "expected a regular file");
    put_link("good.safetensors", "a.safetensors"); // as hubs' caches have them
    put_file("model.safetensors.index.json", "{\"weight_map\":{\"x\":\"good.safetensors\",\"y\":\"b.safetensors\"},\"metadata\":{\"total_size\":8}}");
    OK(weights_open(folder, true, &w, &err));
    CHECK_INT(weights_count(w), 2);
    CHECK_INT(weights_config_error(w)->code, ERR_NOINPUT); // no config.json
    weights_close(w);
    CHECK(!weights_open(folder, false, &w, &err) && err.code == ERR_NOINPUT && strstr(err.where, "config.json"));
    put_file("config.json", "{\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":8,\"num_attention_heads\":2,\"intermediate_size\":8,\"vocab_size\":9}");
    CHECK(!weights_open(folder, false, &w, &err) && err.code == ERR_DATA && strstr(err.msg, "'model.embed_tokens.weight' is missing"));
    OK(folder_remove(folder, &err));
    CHECK(!weights_open("/nonexistent", false, &w, &err) && err.code == ERR_NOINPUT);
    CHECK(!weights_open("/nonexistent.gguf", false, &w, &err) && err.code == ERR_NOINPUT);
    CHECK(!weights_open(TEST_DATA "/models/gguf/expected.json", true, &w, &err) && err.code == ERR_DATA && strstr(err.msg, "a .gguf file"));
}

// ---- a real model ----------------------------------------------------------------------------------------
static void smollm2(void) {
    const char *path = TEST_DATA "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!file_exists(path)) SKIP("models/SmolLM2-135M-Instruct.Q4_1.gguf isn't there; scripts/get-model smollm2-135m brings it");
    Err err = {0};
    Weights *w;
    json_t *reference, *want;
    OK(json_read_file(TEST_DATA "/models/smollm2-135m.json", 1 << 20, &reference, &err));
    OK(weights_open(path, false, &w, &err));
    const ModelConfig *c = weights_config(w);
    json_t *config = config_to_json(c, "float32"), *value;
    const char *key;
    json_object_foreach(json_object_get(reference, "config"), key, value)
        if (!json_equal(value, json_object_get(config, key))) FAIL("config key %s differs", key);
    json_decref(config);
    CHECK(c->stop_count == 1 && c->stop_ids[0] == 2 && c->bos_id == 1);
    CHECK_INT(config_parameters(c), 134515008);
    size_t n;
    json_array_foreach(json_object_get(reference, "dequantised"), n, want) {
        TensorInfo t;
        const char *name = json_string_value(json_object_get(want, "name"));
        CHECK(weights_find(w, name, &t));
        float *values = xmalloc((size_t)t.count * 4);
        OK(weights_read_raw(w, name, values, &err));
        double sum = 0, abs_sum = 0, want_sum = json_number_value(json_object_get(want, "abs_sum"));
        for (int64_t i = 0; i < t.count; i++) sum += values[i], abs_sum += fabs((double)values[i]);
        CHECK_NEAR(abs_sum, want_sum, 1e-9 * want_sum);
        CHECK_NEAR(sum, json_number_value(json_object_get(want, "sum")), 1e-9 * want_sum);
        json_t *first = json_object_get(want, "first"), *at = json_object_get(want, "at"), *at_values = json_object_get(want, "at_values");
        for (size_t i = 0; i < json_array_size(first); i++) {
            double x = json_number_value(json_array_get(first, i)), y = json_number_value(json_array_get(at_values, i));
            CHECK_NEAR(values[i], x, 3e-7 * fabs(x)); // eight digits are listed
            CHECK_NEAR(values[json_integer_value(json_array_get(at, i))], y, 3e-7 * fabs(y));
        }
        free(values);
    }
    weights_close(w);
    json_decref(reference);
}

static const Test tests[] = {
    {"values of blocks of 32", values_of_32},
    {"values of blocks of 256", values_of_256},
    {"values of padded tensors", values_padded},
    {"folders, shards, GGUF", folders},
    {"a GGUF's configuration and rows", gguf_config},
    {"GGUF models that lie", bad_gguf_models},
    {"llama and qwen2 in GGUF", gguf_architectures},
    {"folders that lie", bad_indexes},
    {"SmolLM2", smollm2},
};
TEST_MAIN(tests)
