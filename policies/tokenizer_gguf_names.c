// The pre-tokenizers that GGUF files name ("tokenizer.ggml.pre"), as tokenizer.json writes them. A name that isn't here is
// refused with the list of those that are: another split gives other ids, and nobody would see why.
#include "tokenizer_parts.h"
#include <stdio.h>
#include <string.h>

#define BYTE_LEVEL(regex)                                                                                    \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": " regex "}"
#define SPLIT(pattern)                                                                                       \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" pattern "\"}, \"behavior\": \"Isolated\", \"invert\": false}"
#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"pretokenizers\": [" steps "]}"
#define SPLIT_ONE(pattern) SEQUENCE(SPLIT(pattern) ", " BYTE_LEVEL("false"))
#define DIGITS "{\"type\": \"Digits\", \"individual_digits\": true}"

// Twice escaped: once for C, once for JSON.
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define LLAMA3(numbers)                                                                                      \
    CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" numbers "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" SPACES
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LEAD "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define CASED(ending, numbers)                                                                               \
    LEAD UPPER "*" LOWER "+" ending "|" LEAD UPPER "+" LOWER "*" ending "|" numbers                                \
               "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|" SPACES
#define DEEPSEEK3                                                                                            \
    "[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\\\r\\\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+"  \
    "| ?[\\\\p{P}\\\\p{S}]+[\\\\r\\\\n]*|" SPACES
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"
#define BLOOM " ?[^(\\\\s|.,!?…。，、।۔،)]+"
// The letters of cased scripts, as DeepSeek's first models list them.
#define DEEPSEEK_LETTERS                                                                                     \
    "A-Za-z\\\\x{b5}\\\\x{c0}-\\\\x{d6}\\\\x{d8}-\\\\x{f6}\\\\x{f8}-\\\\x{1ba}\\\\x{1bc}-\\\\x{1bf}" \
    "\\\\x{1c4}-\\\\x{293}\\\\x{295}-\\\\x{2af}\\\\x{370}-\\\\x{373}\\\\x{376}-\\\\x{377}" \
    "\\\\x{37b}-\\\\x{37d}\\\\x{37f}\\\\x{386}\\\\x{388}-\\\\x{38a}\\\\x{38c}\\\\x{38e}-\\\\x{3a1}" \
    "\\\\x{3a3}-\\\\x{3f5}\\\\x{3f7}-\\\\x{481}\\\\x{48a}-\\\\x{52f}\\\\x{531}-\\\\x{556}" \
    "\\\\x{10a0}-\\\\x{10c5}\\\\x{13a0}-\\\\x{13f5}\\\\x{13f8}-\\\\x{13fd}\\\\x{1c90}-\\\\x{1cba}" \
    "\\\\x{1cbd}-\\\\x{1cbf}\\\\x{1d00}-\\\\x{1d2b}\\\\x{1d6b}-\\\\x{1d77}\\\\x{1d79}-\\\\x{1d9a}" \
    "\\\\x{1e00}-\\\\x{1f15}\\\\x{1f18}-\\\\x{1f1d}\\\\x{1f20}-\\\\x{1f45}\\\\x{1f48}-\\\\x{1f4d}" \
    "\\\\x{1f50}-\\\\x{1f57}\\\\x{1f59}\\\\x{1f5b}\\\\x{1f5d}\\\\x{1f5f}-\\\\x{1f7d}" \
    "\\\\x{1f80}-\\\\x{1fb4}\\\\x{1fb6}-\\\\x{1fbc}\\\\x{1fbe}\\\\x{1fc2}-\\\\x{1fc4}" \
    "\\\\x{1fc6}-\\\\x{1fcc}\\\\x{1fd0}-\\\\x{1fd3}\\\\x{1fd6}-\\\\x{1fdb}\\\\x{1fe0}-\\\\x{1fec}" \
    "\\\\x{1ff2}-\\\\x{1ff4}\\\\x{1ff6}-\\\\x{1ffc}\\\\x{2102}\\\\x{2107}\\\\x{210a}-\\\\x{2113}" \
    "\\\\x{2115}\\\\x{2119}-\\\\x{211d}\\\\x{2124}\\\\x{2126}\\\\x{2128}\\\\x{212a}-\\\\x{212d}" \
    "\\\\x{212f}-\\\\x{2134}\\\\x{2139}\\\\x{213c}-\\\\x{213f}\\\\x{2145}-\\\\x{2149}\\\\x{214e}" \
    "\\\\x{2183}-\\\\x{2184}\\\\x{2c00}-\\\\x{2c7b}\\\\x{2c7e}-\\\\x{2ce4}\\\\x{2ceb}-\\\\x{2cee}" \
    "\\\\x{2cf2}-\\\\x{2cf3}\\\\x{a640}-\\\\x{a66d}\\\\x{a680}-\\\\x{a69b}\\\\x{a722}-\\\\x{a76f}" \
    "\\\\x{a771}-\\\\x{a787}\\\\x{a78b}-\\\\x{a78e}\\\\x{ab70}-\\\\x{abbf}\\\\x{fb00}-\\\\x{fb06}" \
    "\\\\x{fb13}-\\\\x{fb17}\\\\x{ff21}-\\\\x{ff3a}\\\\x{ff41}-\\\\x{ff5a}\\\\x{10400}-\\\\x{1044f}" \
    "\\\\x{104b0}-\\\\x{104d3}\\\\x{104d8}-\\\\x{104fb}\\\\x{10c80}-\\\\x{10cb2}\\\\x{10cc0}-\\\\x{10cf2}" \
    "\\\\x{118a0}-\\\\x{118df}\\\\x{1e900}-\\\\x{1e943}"

static const char gpt2[] = BYTE_LEVEL("true");
static const char llama3[] = SPLIT_ONE(LLAMA3("\\\\p{N}{1,3}"));
static const char qwen2[] = SPLIT_ONE(LLAMA3("\\\\p{N}"));
static const char digits_gpt2[] = SEQUENCE(DIGITS ", " BYTE_LEVEL("true"));
static const char o200k[] = SPLIT_ONE(CASED(CONTRACTIONS "?", "\\\\p{N}{1,3}"));
static const char bloom[] = SPLIT_ONE(BLOOM);
static const char deepseek3[] = SEQUENCE(SPLIT("\\\\p{N}{1,3}") ", " SPLIT("[一-龥\u3040-ゟ゠-ヿ]+") ", " SPLIT(DEEPSEEK3) ", "
                                         BYTE_LEVEL("false"));
static const char qwen35[] = SPLIT_ONE(CONTRACTIONS
    "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|" SPACES);
static const char nfc[] = "{\"type\": \"NFC\"}";

static const struct Known {
    const char *name;
    GgufPre pre;
} known[] = {
    {"gpt-2", {gpt2, NULL, false, false}},
    // What readers of GGUF do where a converter did not know the model.
    {"default",
     {SEQUENCE(SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+") ", " SPLIT(GPT2) ", " SPLIT("\\\\p{N}+") ", "
               SPLIT("[0-9][0-9][0-9]") ", " BYTE_LEVEL("false")), NULL, false, false}},
    {"smollm", {digits_gpt2, NULL, false, false}},
    {"llama-bpe", {llama3, NULL, true, true}},
    {"qwen2", {qwen2, nfc, false, false}},
    {"llama3", {llama3, NULL, true, true}},
    {"llama-v3", {llama3, NULL, true, true}},
    {"falcon3", {llama3, NULL, true, true}},
    {"lfm2", {llama3, NULL, true, true}},
    {"llama4", {o200k, NULL, false, false}},
    {"gpt-4o", {o200k, NULL, false, false}},
    {"tekken", {SPLIT_ONE(CASED("", "\\\\p{N}")), NULL, true, true}},
    {"deepseek-llm",
     {SEQUENCE(SPLIT("[\\\\r\\\\n]") ", " SPLIT("\\\\s?[" DEEPSEEK_LETTERS "]+") ", "
               SPLIT("\\\\s?[!-/:-~！-／：-～‘-‟　-。]+") ", " SPLIT("\\\\s+$") ", " SPLIT("[一-龥ࠀ-一가-\uD7FF]+") ", "
               SPLIT("\\\\p{N}+") ", " BYTE_LEVEL("false")), NULL, false, false}},
    {"deepseek-coder",
     {SEQUENCE(SPLIT("[\\\\r\\\\n]") ", " SPLIT("\\\\s?\\\\p{L}+") ", " SPLIT("\\\\s?\\\\p{P}+") ", "
               SPLIT("[一-龥ࠀ-一가-\uD7FF]+") ", " DIGITS ", " BYTE_LEVEL("false")), NULL, false, false}},
    {"deepseek-v3", {deepseek3, NULL, false, false}},
    {"hunyuan-dense", {deepseek3, NULL, false, false}},
    {"deepseek-r1-qwen", {qwen2, nfc, false, false}},
    {"qwen35", {qwen35, nfc, false, false}},
    {"stablelm2", {qwen2, NULL, false, false}},
    {"hunyuan", {qwen2, NULL, false, false}},
    {"megrez", {qwen2, NULL, false, false}},
    {"dbrx", {llama3, NULL, false, false}},
    {"smaug-bpe", {llama3, NULL, false, false}},
    {"chatglm-bpe", {llama3, NULL, false, false}},
    {"glm4", {llama3, NULL, false, false}},
    {"olmo", {gpt2, NULL, false, false}},
    {"mpt", {gpt2, NULL, false, false}},
    {"jais", {gpt2, NULL, false, false}},
    {"trillion", {gpt2, NULL, false, false}},
    {"phi-2", {gpt2, NULL, false, false}},
    {"roberta-bpe", {gpt2, NULL, false, false}},
    {"modern-bert", {gpt2, NULL, false, false}},
    {"exaone4", {gpt2, NULL, false, false}},
    {"granite-docling", {gpt2, NULL, false, false}},
    {"starcoder", {digits_gpt2, NULL, false, false}},
    {"refact", {digits_gpt2, NULL, false, false}},
    {"command-r", {digits_gpt2, NULL, false, false}},
    {"codeshell", {digits_gpt2, NULL, false, false}},
    {"exaone", {digits_gpt2, NULL, false, false}},
    {"minerva-7b", {digits_gpt2, NULL, false, false}},
    {"bloom", {bloom, NULL, false, false}},
    {"poro-chat", {bloom, NULL, false, false}},
    {"gpt3-finnish", {bloom, NULL, false, false}},
    {"viking", {SEQUENCE(SPLIT(BLOOM) ", " DIGITS ", " BYTE_LEVEL("false")), NULL, false, false}},
    {"falcon",
     {SEQUENCE(SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|`]+") ", " SPLIT(GPT2) ", " SPLIT("[0-9][0-9][0-9]") ", "
               BYTE_LEVEL("false")), NULL, false, false}},
};

void gguf_pre_list(Buf *out) {
    for (int i = 0; i < COUNT(known); i++) buf_printf(out, i ? ", %s" : "%s", known[i].name);
}

// ---- the other way round -----------------------------------------------------------------------------------------------
static bool same_key(const json_t *a, const json_t *b, const char *key, const json_t *otherwise) {
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    x = x ? x : otherwise, y = y ? y : otherwise;
    return x == y || json_equal(x, y);
}
// Patterns; some writers escape a quotation mark.
static bool same_pattern(const json_t *a, const json_t *b) {
    const json_t *p = json_object_get(a, "pattern"), *q = json_object_get(b, "pattern");
    const char *x = json_string_value(json_object_get(p, "Regex")), *y = json_string_value(json_object_get(q, "Regex"));
    if (!x || !y) return p == q || json_equal(p, q);
    while (*x && *y) {
        x += x[0] == '\\' && x[1] == '"', y += y[0] == '\\' && y[1] == '"';
        if (x[0] != y[0]) return false;
        if (x[0] == '\\' && x[1]) { // with what it escapes
            if (x[1] != y[1]) return false;
            x++, y++;
        }
        x++, y++;
    }
    return *x == *y;
}
// Steps or normalizers that do the same; trim_offsets changes no id.
static bool same_step(const json_t *a, const json_t *b) {
    return same_key(a, b, "type", NULL) && same_pattern(a, b) && same_key(a, b, "behavior", NULL) && same_key(a, b, "invert", json_false()) &&
           same_key(a, b, "individual_digits", json_false()) && same_key(a, b, "use_regex", json_true()) && same_key(a, b, "add_prefix_space", json_false());
}
static const json_t *steps_of(const json_t *json, const char *list, size_t *count) {
    const json_t *steps = json_object_get(json, list);
    *count = json_is_array(steps) ? json_array_size(steps) : json_is_object(json) ? 1 : 0;
    return steps;
}
static bool same_steps(const json_t *a, const json_t *b, const char *list) {
    size_t n, m;
    const json_t *x = steps_of(a, list, &n), *y = steps_of(b, list, &m);
    bool same = n == m;
    for (size_t i = 0; same && i < n; i++) same = same_step(x ? json_array_get(x, i) : a, y ? json_array_get(y, i) : b);
    return same;
}
static bool same_text(const json_t *given, const char *known_text, const char *list) {
    json_t *json = known_text ? json_loads(known_text, 0, NULL) : json_null();
    bool same = json && same_steps(given, json, list);
    json_decref(json);
    return same;
}
const char *gguf_pre_name(const json_t *pre_tokenizer, const json_t *normalizer, bool ignore_merges) {
    for (int i = 0; i < COUNT(known); i++) {
        const GgufPre *k = &known[i].pre;
        if (k->ignore_merges == ignore_merges && same_text(pre_tokenizer, k->pre_tokenizer, "pretokenizers") && same_text(normalizer, k->normalizer, "normalizers"))
            return known[i].name;
    }
    return NULL;
}

bool gguf_pre_find(const char *name, const char *path, GgufPre *out, Err *err) {
    for (int i = 0; i < COUNT(known); i++)
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].pre;
            return true;
        }
    char where[256];
    Buf names = {0};
    gguf_pre_list(&names);
    snprintf(where, sizeof where, "%s: tokenizer.ggml.pre", path);
    fail(err, ERR_DATA, where, "found '%.60s'; supported are %s", name, names.data);
    buf_free(&names);
    return false;
}
