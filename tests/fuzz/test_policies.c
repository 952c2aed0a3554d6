// Fuzzing of what describes a model: safetensors and their index, GGUF, tokenizer.json, config.json, chat templates, and
// the text that a tokenizer is given. Files lie in memory and are opened the way a model is.
#include "fuzz.h"
#include "files.h"
#include "gguf.h"
#include "template.h"
#include "tokenizer.h"
#include "weights.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool refused(const Err *err) { // an error that tells where and what
    FUZZ_CHECK(err->code >= ERR_USAGE && err->code != ERR_SOFTWARE && err->where[0] && err->msg[0]);
    FUZZ_CHECK(memchr(err->msg, 0, sizeof err->msg) && memchr(err->where, 0, sizeof err->where));
    return true;
}

// ---- safetensors -------------------------------------------------------------------------------------------------
static const char *const safetensors_words[] = {"\"dtype\":\"F32\"", "\"BF16\"", "\"F16\"", "\"F64\"", "\"I64\"", "\"U8\"", "\"F8_E4M3\"", "\"BOOL\"", "\"shape\":[2,2]", "\"shape\":[]", "[0]", "\"data_offsets\":[0,16]",
                                                "\"__metadata__\":{\"format\":\"pt\"},", "\"a\":", "4294967296", "9223372036854775807", "-1", "1.0", "1e3", ",", "{", "}", NULL};

static void set_length(uint8_t *file, uint64_t length) {
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)(length >> 8 * i);
}
static void add_safetensors(FuzzCorpus *seeds, const char *header, size_t data) {
    uint8_t file[FUZZ_INPUT] = {0};
    size_t n = strlen(header);
    set_length(file, n);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data; i++) file[8 + n + i] = (uint8_t)(i * 37);
    corpus_add(seeds, file, 8 + n + data);
}
static void add_safetensors_seeds(FuzzCorpus *seeds) {
    add_safetensors(seeds, "{}", 0);
    add_safetensors(seeds, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16);
    add_safetensors(seeds, "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]},\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
                           "\"c\":{\"dtype\":\"F16\",\"shape\":[1,1,1,2],\"data_offsets\":[14,18]}}", 18);
    add_safetensors(seeds, "{\"e\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[0,0]},\"f\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}   ", 8);
}
// The length is that of the header: up to the brace that ends it, or to the end of the file.
static size_t safetensors_repair(uint8_t *data, size_t size) {
    int depth = 0;
    size_t end = size;
    if (size < 8) return size;
    for (size_t i = 8; i < size && end == size; i++) {
        depth += data[i] == '{' ? 1 : data[i] == '}' ? -1 : 0;
        if (data[i] == '}' && depth == 0) end = i + 1;
    }
    set_length(data, end - 8);
    return size;
}

typedef struct OneFile {
    FuzzFile file, other;
    char *folder;
} OneFile;
static void one_file_close(void *shared) {
    OneFile *s = shared;
    fuzz_file_close(&s->file);
    if (s->other.path) fuzz_file_close(&s->other);
    free(s->folder);
    free(s);
}

static void *safetensors_start(FuzzCorpus *seeds) {
    OneFile *s = xcalloc(1, sizeof *s);
    s->file = fuzz_file_open("model.safetensors");
    add_safetensors_seeds(seeds);
    return s;
}
static void safetensors_fuzz(void *shared, const uint8_t *data, size_t size) {
    OneFile *s = shared;
    Safetensors *file;
    Err err = {0};
    size_t covered = 0;
    fuzz_file_set(&s->file, data, size);
    if (!safetensors_open(s->file.path, &file, &err)) {
        FUZZ_CHECK(refused(&err) && !file);
        return;
    }
    for (int i = 0; i < safetensors_count(file); i++) {
        TensorInfo t, again;
        safetensors_at(file, i, &t);
        FUZZ_CHECK(t.count >= 0 && t.bytes <= size && safetensors_find(file, t.name, &again) && again.bytes == t.bytes);
        covered += t.bytes;
        float *values = xmalloc((size_t)(t.count < FUZZ_INPUT ? t.count + 1 : FUZZ_INPUT) * sizeof *values);
        if (t.count < FUZZ_INPUT && !safetensors_read(file, t.name, values, &err)) refused(&err);
        free(values);
    }
    FUZZ_CHECK(covered <= size);
    safetensors_close(file);
}

// ---- the index -----------------------------------------------------------------------------------------------------
static const char *const index_words[] = {"\"weight_map\":{", "\"a\":\"one.safetensors\"", "\"b\":\"two.safetensors\"", "../", "/", ".safetensors", "\"metadata\":{\"total_size\":32},", "null", "loop.safetensors",
                                          "missing.safetensors", "\\u0000", "{", "}", ",", NULL};
static void *index_start(FuzzCorpus *seeds) {
    OneFile *s = xcalloc(1, sizeof *s);
    FuzzCorpus shards = {0};
    static const char *const names[] = {"m/one.safetensors", "m/two.safetensors"};
    add_safetensors(&shards, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16);
    add_safetensors(&shards, "{\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
    for (int i = 0; i < shards.count; i++) {
        FuzzFile f = fuzz_file_open(names[i]);
        fuzz_file_set(&f, shards.inputs[i].data, shards.inputs[i].size);
        fuzz_file_close(&f);
    }
    corpus_free(&shards);
    s->file = fuzz_file_open("m/model.safetensors.index.json");
    s->folder = path_join(fuzz_folder(), "m");
    corpus_add_text(seeds, "{\"metadata\":{\"total_size\":32},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    corpus_add_text(seeds, "{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    corpus_add_text(seeds, "{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"../m/two.safetensors\"}}");
    return s;
}
static void index_fuzz(void *shared, const uint8_t *data, size_t size) {
    OneFile *s = shared;
    Weights *w;
    Err err = {0};
    fuzz_file_set(&s->file, data, size);
    if (!weights_open(s->folder, true, &w, &err)) {
        FUZZ_CHECK(refused(&err) && !w);
        return;
    }
    for (int i = 0; i < weights_count(w); i++) {
        TensorInfo t;
        weights_at(w, i, &t);
        FUZZ_CHECK(t.count == 4 && (!strcmp(t.name, "a") || !strcmp(t.name, "b")));
    }
    json_decref(weights_metadata(w));
    weights_close(w);
}

// ---- GGUF ----------------------------------------------------------------------------------------------------------
static const char *const gguf_words[] = {"GGUF", "general.architecture", "llama", "qwen2", "general.alignment", "llama.block_count", "tokenizer.ggml.model", "gpt2", "tokenizer.ggml.tokens", "tokenizer.ggml.merges",
                                         "tokenizer.ggml.token_type", "tokenizer.ggml.scores", "tokenizer.ggml.pre", "token_embd.weight", "blk.0.attn_q.weight", NULL};

static void put(Buf *b, uint64_t x, size_t width) { buf_append(b, &x, width); }
static void put_text(Buf *b, const char *s) {
    put(b, strlen(s), 8);
    buf_puts(b, s);
}
static void put_number(Buf *b, const char *key, uint32_t value) {
    put_text(b, key);
    put(b, GGUF_U32, 4);
    put(b, value, 4);
}
static void put_word(Buf *b, const char *key, const char *value) {
    put_text(b, key);
    put(b, GGUF_TEXT, 4);
    put_text(b, value);
}
static void put_list(Buf *b, const char *key, const char *const *items, int count) {
    put_text(b, key);
    put(b, GGUF_ARRAY, 4);
    put(b, GGUF_TEXT, 4);
    put(b, (uint64_t)count, 8);
    for (int i = 0; i < count; i++) put_text(b, items[i]);
}
static void put_tensor(Buf *b, const char *name, uint64_t rows, uint64_t columns, uint64_t offset) {
    put_text(b, name);
    put(b, rows ? 2 : 1, 4);
    put(b, columns, 8);
    if (rows) put(b, rows, 8);
    put(b, 0, 4); // F32
    put(b, offset, 8);
}
// A model of one layer whose width, heads and vocabulary are as small as they get, with its vocabulary.
static void add_tiny_model(FuzzCorpus *seeds) {
    static const struct { const char *name; uint64_t rows, columns; } tensors[] = {
        {"token_embd.weight", 5, 2}, {"output_norm.weight", 0, 2}, {"blk.0.attn_norm.weight", 0, 2}, {"blk.0.attn_q.weight", 2, 2}, {"blk.0.attn_k.weight", 2, 2}, {"blk.0.attn_v.weight", 2, 2},
        {"blk.0.attn_output.weight", 2, 2}, {"blk.0.ffn_norm.weight", 0, 2}, {"blk.0.ffn_gate.weight", 2, 2}, {"blk.0.ffn_up.weight", 2, 2}, {"blk.0.ffn_down.weight", 2, 2}};
    static const char *const tokens[] = {"a", "b", "ab", "\xC4\xA0", "<|end|>"}, *const merges[] = {"a b"};
    Buf b = {0};
    uint64_t offset = 0;
    buf_puts(&b, "GGUF");
    put(&b, 3, 4), put(&b, COUNT(tensors), 8), put(&b, 15, 8);
    put_word(&b, "general.architecture", "llama");
    put_number(&b, "llama.block_count", 1), put_number(&b, "llama.embedding_length", 2), put_number(&b, "llama.feed_forward_length", 2);
    put_number(&b, "llama.context_length", 16), put_number(&b, "llama.attention.head_count", 1), put_number(&b, "llama.attention.head_count_kv", 1);
    put_text(&b, "llama.attention.layer_norm_rms_epsilon"), put(&b, GGUF_F32, 4), put(&b, 0x3727C5AC, 4);
    put_word(&b, "tokenizer.ggml.model", "gpt2"), put_word(&b, "tokenizer.ggml.pre", "gpt-2");
    put_list(&b, "tokenizer.ggml.tokens", tokens, COUNT(tokens)), put_list(&b, "tokenizer.ggml.merges", merges, COUNT(merges));
    put_text(&b, "tokenizer.ggml.token_type"), put(&b, GGUF_ARRAY, 4), put(&b, GGUF_I32, 4), put(&b, 5, 8);
    for (int i = 0; i < 5; i++) put(&b, i == 4 ? 3 : 1, 4);
    put_number(&b, "tokenizer.ggml.eos_token_id", 4), put_number(&b, "general.alignment", 32);
    for (int i = 0; i < COUNT(tensors); i++) {
        put_tensor(&b, tensors[i].name, tensors[i].rows, tensors[i].columns, offset);
        offset += ((tensors[i].rows ? tensors[i].rows : 1) * tensors[i].columns * 4 + 31) / 32 * 32;
    }
    while (b.size % 32) put(&b, 0, 1);
    for (uint64_t i = 0; i < offset; i++) put(&b, i & 63, 1);
    corpus_add(seeds, b.data, b.size);
    buf_free(&b);
}
static void *gguf_start(FuzzCorpus *seeds) {
    OneFile *s = xcalloc(1, sizeof *s);
    Buf b = {0};
    s->file = fuzz_file_open("model.gguf");
    buf_puts(&b, "GGUF");
    put(&b, 3, 4), put(&b, 0, 8), put(&b, 0, 8);
    corpus_add(seeds, b.data, b.size);
    buf_free(&b);
    add_tiny_model(seeds);
    corpus_add_file(seeds, TEST_DATA "/models/gguf/metadata.gguf");
    return s;
}
static void use_tokenizer(const Tokenizer *t, const char *text, size_t size) {
    Ids ids = {0};
    Buf back = {0}, piece = {0};
    Err err = {0};
    bool ready;
    if (tokenizer_encode(t, text, size, true, &ids, &err)) {
        for (int32_t i = 0; i < ids.count; i++) FUZZ_CHECK(ids.data[i] >= 0 && ids.data[i] < tokenizer_size(t));
        if (!tokenizer_decode(t, ids.data, ids.count, false, &back, &err)) fuzz_broken("its own ids don't decode: %s", err.msg);
        TokenStream *stream = token_stream_open(t);
        for (int32_t i = 0; i < ids.count && i < 64; i++)
            if (!token_stream_push(stream, ids.data[i], &ready, &piece, &err)) fuzz_broken("its own ids don't stream: %s", err.msg);
        token_stream_close(stream);
    } else {
        refused(&err);
    }
    ids_free(&ids);
    buf_free(&back), buf_free(&piece);
}
static const char a_text[] = "ab a <|end|>12 \xED\x95\x9C\xEA\xB8\x80 \xF0\x9F\x98\x80 it's\n\n <s>x";
static void gguf_fuzz(void *shared, const uint8_t *data, size_t size) {
    OneFile *s = shared;
    Weights *w;
    Tokenizer *t;
    Err err = {0};
    fuzz_file_set(&s->file, data, size);
    if (weights_open(s->file.path, true, &w, &err)) {
        for (int i = 0; i < weights_count(w); i++) {
            TensorInfo info;
            weights_at(w, i, &info);
            FUZZ_CHECK(info.bytes <= size && info.count >= 0);
            if (info.count > 65536) continue;
            float *values = xmalloc((size_t)(info.count + 1) * sizeof *values);
            if (!weights_read_raw(w, info.name, values, &err)) refused(&err);
            if (!weights_read(w, info.name, info.dims, info.shape, values, &err)) refused(&err);
            free(values);
        }
        json_decref(weights_metadata(w));
        weights_close(w);
        if (tokenizer_open(s->file.path, &t, &err)) {
            use_tokenizer(t, a_text, sizeof a_text - 1);
            tokenizer_close(t);
        } else {
            refused(&err);
        }
    } else {
        FUZZ_CHECK(refused(&err) && !w);
    }
}

// ---- tokenizer.json ------------------------------------------------------------------------------------------------
static const char *const tokenizer_words[] = {
    "\"type\":\"BPE\"", "\"type\":\"ByteLevel\"", "\"type\":\"Metaspace\"", "\"type\":\"Split\"", "\"type\":\"Digits\"", "\"type\":\"Sequence\"", "\"type\":\"Unigram\"", "\"type\":\"NFC\"", "\"type\":\"NFKC\"", "\"type\":\"Replace\"",
    "\"type\":\"Prepend\"", "\"type\":\"Strip\"", "\"type\":\"Lowercase\"", "\"type\":\"ByteFallback\"", "\"type\":\"Fuse\"", "\"type\":\"TemplateProcessing\"", "\"merges\":[", "\"vocab\":{", "\"a b\"", "[\"a\",\"b\"]", "\"unk_id\":0",
    "\"<0x41>\":", "\"<0x-1>\":", "\"id\":", "\"special\":true", "\"lstrip\":true", "\"rstrip\":true", "\"single_word\":true", "\"normalized\":true", "\"pretokenizers\":[", "\"pattern\":{\"Regex\":\"\\\\p{L}+\"}", "\"pattern\":{\"String\":\" \"}",
    "\"Regex\":\"(a*)*b\"", "\"behavior\":\"Isolated\"", "\"add_prefix_space\":true", "\"use_regex\":false", "\"unk_token\":\"a\"", "\"byte_fallback\":true", "\"ignore_merges\":true", "\"dropout\":0.1", "\"continuing_subword_prefix\":\"##\"",
    "\"decoders\":[", "\"normalizers\":[", "\"precompiled_charsmap\":\"AAAA\"", "\"prepend_scheme\":\"first\"", "\"replacement\":\"\xE2\x96\x81\"", "2147483647", "-1", "null", "[]", "{}", NULL};

static void *tokenizer_start(FuzzCorpus *seeds) {
    OneFile *s = xcalloc(1, sizeof *s);
    static const char *const names[] = {"bytelevel", "characters", "metaspace", "unigram", "wordpiece"};
    s->file = fuzz_file_open("t/tokenizer.json");
    s->folder = path_join(fuzz_folder(), "t");
    for (int i = 0; i < COUNT(names); i++) {
        char *path = xasprintf(TEST_DATA "/fuzz/tokenizer_json/%s.json", names[i]);
        corpus_add_file(seeds, path);
        free(path);
    }
    return s;
}
static void tokenizer_fuzz(void *shared, const uint8_t *data, size_t size) {
    OneFile *s = shared;
    Tokenizer *t;
    Err err = {0};
    fuzz_file_set(&s->file, data, size);
    if (!tokenizer_open(s->folder, &t, &err)) {
        FUZZ_CHECK(refused(&err) && !t);
        return;
    }
    use_tokenizer(t, a_text, sizeof a_text - 1);
    tokenizer_close(t);
}

// ---- config.json ---------------------------------------------------------------------------------------------------
static const char *const config_words[] = {
    "\"model_type\":\"llama\"", "\"qwen2\"", "\"qwen3\"", "\"mistral\"", "\"mixtral\"", "\"gemma3_text\"", "\"phi3\"", "\"olmo2\"", "\"qwen3_moe\"", "\"deepseek_v3\"", "\"deepseek_v2\"", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}",
    "\"rope_type\":\"llama3\"", "\"type\":\"linear\"", "\"factor\":2.0", "\"sliding_window\":4", "\"layer_types\":[\"full_attention\"]", "\"num_experts\":4", "\"num_local_experts\":4", "\"num_experts_per_tok\":2", "\"n_routed_experts\":8",
    "\"q_lora_rank\":16", "\"kv_lora_rank\":16", "\"qk_rope_head_dim\":8", "\"first_k_dense_replace\":1", "\"n_group\":2", "\"quantization_config\":{}", "\"hidden_act\":\"gelu\"", "\"head_dim\":3", "\"num_key_value_heads\":0", "\"num_hidden_layers\":1000000000",
    "\"eos_token_id\":[1,2]", "\"tie_word_embeddings\":true", "\"attention_bias\":true", "null", "0", "-1", "2147483648", "1e308", "1e-320", NULL};
static void *config_start(FuzzCorpus *seeds) {
    static const char *const models[] = {"llama-tied", "llama-rope3", "qwen2", "qwen3", "qwen3-moe", "mistral-window", "mixtral", "gemma3", "gemma3-legacy", "phi3", "olmo2", "deepseek-v2-lite", "deepseek-v3", "deepseek-v3-yarn"};
    for (int i = 0; i < COUNT(models); i++) {
        char *path = xasprintf(TEST_DATA "/models/%s/config.json", models[i]);
        corpus_add_file(seeds, path);
        free(path);
    }
    corpus_add_text(seeds, "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_attention_heads\":2,\"num_hidden_layers\":1,\"intermediate_size\":8,\"vocab_size\":10,\"max_position_embeddings\":16,\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0}");
    return NULL;
}
static void config_fuzz(void *shared, const uint8_t *data, size_t size) {
    json_t *json, *again;
    ModelConfig c;
    Err err = {0};
    (void)shared;
    if (!json_parse((const char *)data, size, "config.json", 1, &json, &err)) return;
    if (config_from_json(json, size % 2 ? json : NULL, "config.json", &c, &err)) {
        FUZZ_CHECK(c.layers > 0 && c.width > 0 && c.heads > 0 && c.vocabulary > 0);
        FUZZ_CHECK(config_parameters(&c) > 0);
        FUZZ_CHECK(config_flops(&c, 16, true) > 0);
        again = config_to_json(&c, "float32");
        FUZZ_CHECK(again);
        ModelConfig d;
        if (!config_from_json(again, NULL, "written.json", &d, &err)) fuzz_broken("what was written doesn't read: %s: %s", err.where, err.msg);
        FUZZ_CHECK(d.layers == c.layers && d.width == c.width && d.heads == c.heads && d.vocabulary == c.vocabulary);
        json_decref(again);
    } else {
        refused(&err);
    }
    json_decref(json);
}

// ---- chat templates --------------------------------------------------------------------------------------------------
static const char *const template_words[] = {
    "{% for message in messages %}", "{% endfor %}", "{% if ", "{% elif ", "{% else %}", "{% endif %}", "{% set x = ", "{{ ", " }}", "{%- ", " -%}", "{# ", " #}", "message.role", "message['content']", "messages[0]", "messages[1:]", "loop.first", "loop.last",
    "loop.index0", "loop.previtem", "loop.cycle(1,2)", "add_generation_prompt", "bos_token", "eos_token", "tools", "namespace(a=1)", "ns.a = ns.a + 1", "| trim", "| tojson", "| tojson(indent=2)", "| length", "| join(', ')", "| upper", "| replace('a','b')",
    "| selectattr('role','equalto','user')", "| list", "| default('x')", "| map(attribute='role')", "is defined", "is none", "is string", "is mapping", "not in", "range(1000000000)", "raise_exception('no')", "strftime_now('%d %b %Y')", "{% macro f(a, b=1) %}",
    "{% endmacro %}", "f(1)", "{% break %}", "{% continue %}", "'a' * 1000000", "~", "//", "%", "**", "[::-1]", ".split('</think>')", ".strip()", ".startswith('a')", ".items()", "caller()", "{% generation %}", "{% raw %}", "{% endraw %}", "{% filter upper %}", NULL};
typedef struct TemplateShared {
    json_t *messages, *tools;
} TemplateShared;
static void *template_start(FuzzCorpus *seeds) {
    static const char *const sources[] = {
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
        "{%- set ns = namespace(found=false) -%}{%- for m in messages[::-1] -%}{%- if m.role == 'system' and not ns.found -%}{%- set ns.found = true -%}{{- m.content | trim -}}{%- endif -%}{%- endfor -%}{%- macro show(x) -%}<{{ x | upper }}>{%- endmacro -%}{{ show(messages[0].role) }}",
        "{% if tools %}{{ tools | tojson(indent=4) }}{% endif %}{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v | length }}{{ ', ' if not loop.last }}{% endfor %}",
        "{# a comment #}{% set x = messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list %}{{ x | join(' ') }}{{ 'a,b'.split(',')[-1] }}{{ 7 // 2 }}{{ 2 ** 3 }}{{ [1, 2] + [3] }}{{ 'x' in 'xyz' }}",
    };
    TemplateShared *s = xcalloc(1, sizeof *s);
    Err err = {0};
    static const char messages[] = "[{\"role\":\"system\",\"content\":\"Be short.\"},{\"role\":\"user\",\"content\":\" <b>1+1=?</b> \"},{\"role\":\"assistant\",\"content\":\"<think>\\n1\\n</think>\\n2\"},{\"role\":\"user\",\"content\":\"\xED\x95\x9C\"}]";
    if (!json_parse(messages, sizeof messages - 1, "messages", 1, &s->messages, &err)) fuzz_broken("%s", err.msg);
    s->tools = json_pack("[{s:s, s:{s:s, s:s, s:{s:s, s:{}}}}]", "type", "function", "function", "name", "f", "description", "\"<&>", "parameters", "type", "object", "properties");
    for (int i = 0; i < COUNT(sources); i++) corpus_add_text(seeds, sources[i]);
    corpus_add_file(seeds, TEST_DATA "/tokenizers/smollm-style/chat_template.jinja");
    return s;
}
static void template_fuzz(void *shared, const uint8_t *data, size_t size) {
    TemplateShared *s = shared;
    Template *t;
    Err err = {0};
    json_t *utf8 = json_stringn((const char *)data, size); // what reads templates refuses other bytes
    json_decref(utf8);
    if (!utf8) return;
    if (!template_compile((const char *)data, size, "template", &t, &err)) {
        FUZZ_CHECK(refused(&err) && !t);
        return;
    }
    for (int tools = 0; tools < 2; tools++) {
        ChatRequest request = {.messages = s->messages, .tools = tools ? s->tools : NULL, .bos = "<s>", .eos = "</s>", .add_generation_prompt = tools, .now = 1700000000};
        TemplateResult result = {0};
        if (!chat_render(t, &request, &result, &err)) refused(&err);
        for (int i = 0; i < result.span_count; i++) FUZZ_CHECK(result.spans[i].start <= result.spans[i].end);
        template_result_free(&result);
    }
    template_free(t);
}
static void template_stop(void *shared) {
    TemplateShared *s = shared;
    json_decref(s->messages), json_decref(s->tools);
    free(s);
}

// ---- text: UTF-8, pre-tokenizers ---------------------------------------------------------------------------------------
enum { TOKENIZERS = 4 };
static const char *const text_words[] = {"'s", "'re", "'LL", "<|im_start|>", "<|endoftext|>", "<|im_end|>", "  ", "\n\n", "\r\n", "123", "1234567", "\xC2\xA0", "\xE3\x80\x80", "\xED\x95\x9C\xEA\xB5\xAD", "ti\xE1\xBA\xBFng", "e\xCC\x81", "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA9",
                                         "\xE6\xBC\xA2", "\xC5\xBF", "...", "def f(x):\n    return x", NULL};
static void *text_start(FuzzCorpus *seeds) {
    static const char *const names[TOKENIZERS] = {"gpt2-bytelevel", "llama3-style", "qwen2-style", "smollm-style"};
    Tokenizer **all = xcalloc(TOKENIZERS, sizeof *all);
    Err err = {0};
    for (int i = 0; i < TOKENIZERS; i++) {
        char *path = xasprintf(TEST_DATA "/tokenizers/%s", names[i]);
        if (!tokenizer_open(path, &all[i], &err)) fuzz_broken("%s: %s", err.where, err.msg);
        free(path);
    }
    corpus_add_text(seeds, a_text);
    corpus_add_text(seeds, "Hello, world! It's 2024-05-06, I'm 37.5% sure.\n\n\tx = y[0] ** 2  # why?\r\n   ");
    corpus_add_text(seeds, "\xEC\x82\xBC\xEB\xA7\x8C \xEC\x98\xA4\xEC\xB2\x9C \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xA7\xE3\x81\x99\xE3\x80\x82 m\xE1\xBB\x99t hai ba \xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82");
    corpus_add_text(seeds, "<|im_start|>user\n1+1<|im_end|>\n<think>\n</think>");
    corpus_add_text(seeds, "ke\xCC\x81"); // ends within what a scanner that looks one byte ahead takes for a character
    return all;
}
static void text_fuzz(void *shared, const uint8_t *data, size_t size) {
    Tokenizer **all = shared;
    for (int i = 0; i < TOKENIZERS; i++)
        if (size % TOKENIZERS == (size_t)i) use_tokenizer(all[i], (const char *)data, size);
}
static void text_stop(void *shared) {
    Tokenizer **all = shared;
    for (int i = 0; i < TOKENIZERS; i++) tokenizer_close(all[i]);
    free(all);
}

static const FuzzTarget targets[] = {
    {.name = "safetensors", .open = safetensors_start, .run = safetensors_fuzz, .close = one_file_close, .words = safetensors_words, .repair = safetensors_repair},
    {.name = "safetensors_index", .open = index_start, .run = index_fuzz, .close = one_file_close, .words = index_words},
    {.name = "gguf", .open = gguf_start, .run = gguf_fuzz, .close = one_file_close, .words = gguf_words},
    {.name = "tokenizer_json", .open = tokenizer_start, .run = tokenizer_fuzz, .close = one_file_close, .words = tokenizer_words},
    {.name = "config", .open = config_start, .run = config_fuzz, .words = config_words},
    {.name = "chat_template", .open = template_start, .run = template_fuzz, .close = template_stop, .words = template_words},
    {.name = "text", .open = text_start, .run = text_fuzz, .close = text_stop, .words = text_words},
};
int main(int argc, char **argv) { return fuzz_main(argc, argv, targets, COUNT(targets)); }
