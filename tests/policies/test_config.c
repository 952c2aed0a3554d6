// Configurations: both generations of keys, what is refused and with which words, round trips, counts.
#include "../test.h"
#include "config.h"

static json_t *parse(const char *text) {
    Err err = {0};
    json_t *j = NULL;
    OK(json_parse(text, strlen(text), "inline", 1, &j, &err));
    return j;
}
static json_t *read_json(const char *name) {
    Err err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", TEST_DATA, name);
    json_t *j = NULL;
    OK(json_read_file(path, 1 << 20, &j, &err));
    return j;
}
// A small llama configuration with a few keys replaced (`changes` is a JSON object).
static bool change(const char *changes, ModelConfig *out, Err *err) {
    json_t *j = parse("{\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":80,\"num_attention_heads\":8,"
                      "\"num_key_value_heads\":2,\"intermediate_size\":96,\"vocab_size\":352,\"hidden_act\":\"silu\"}");
    json_t *c = parse(changes);
    json_object_update(j, c);
    bool ok = config_from_json(j, NULL, "config.json", out, err);
    json_decref(j);
    json_decref(c);
    return ok;
}

static void current_keys(void) {
    Err err = {0};
    ModelConfig c;
    json_t *j = read_json("llama-tied/config.json"), *g = read_json("llama-tied/generation_config.json");
    OK(config_from_json(j, g, "config.json", &c, &err));
    CHECK_STR(c.model_type, "llama");
    CHECK(c.layers == 2 && c.width == 80 && c.heads == 8 && c.kv_heads == 1 && c.head_width == 10 && c.feed_forward == 96);
    CHECK(c.vocabulary == 352 && c.max_positions == 512 && c.tied && !c.qkv_bias && !c.output_bias && !c.mlp_bias);
    CHECK(c.norm_eps == 1e-5 && c.rope[0].theta == 10000 && c.bos_id == 1 && c.pad_id == -1);
    CHECK(c.stop_count == 1 && c.stop_ids[0] == 2);
    json_t *cases = read_json("llama-tied/cases.json");
    CHECK_INT(config_parameters(&c), json_integer_value(json_object_get(cases, "parameters")));
    json_decref(cases);
    json_decref(j);
    json_decref(g);
}
static void legacy_keys(void) {
    Err err = {0};
    ModelConfig c;
    json_t *j = read_json("qwen2/config.json");
    OK(config_from_json(j, NULL, "config.json", &c, &err));
    CHECK_STR(c.model_type, "qwen2");
    CHECK(c.qkv_bias && !c.output_bias && !c.mlp_bias && !c.tied && c.rope[0].theta == 1e6 && c.head_width == 8 && c.kv_heads == 1);
    json_t *cases = read_json("qwen2/cases.json");
    CHECK_INT(config_parameters(&c), json_integer_value(json_object_get(cases, "parameters")));
    json_decref(cases);
    json_decref(j);
}
static void precedence(void) {
    Err err = {0};
    ModelConfig c;
    OK(change("{\"rope_theta\":5,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7}}", &c, &err));
    CHECK(c.rope[0].theta == 7);
    OK(change("{\"rope_theta\":5,\"rope_parameters\":{\"rope_type\":\"default\"}}", &c, &err));
    CHECK(c.rope[0].theta == 5);
    OK(change("{\"rope_scaling\":{\"type\":\"default\"},\"num_key_value_heads\":null,\"head_dim\":null}", &c, &err));
    CHECK(c.rope[0].theta == 10000 && c.norm_eps == 1e-6 && c.kv_heads == 8 && c.head_width == 10 && c.max_positions == 2048);
    OK(change("{\"head_dim\":6,\"num_attention_heads\":6,\"attention_bias\":true,\"mlp_bias\":true,\"pad_token_id\":-1}", &c, &err));
    CHECK(c.head_width == 6 && c.qkv_bias && c.output_bias && c.mlp_bias && c.pad_id == -1);
    json_t *j = parse("{\"model_type\":\"qwen2\",\"num_hidden_layers\":1,\"hidden_size\":8,\"num_attention_heads\":2,\"intermediate_size\":8,"
                      "\"vocab_size\":20,\"eos_token_id\":3,\"bos_token_id\":4,\"attention_bias\":false}");
    json_t *g = parse("{\"eos_token_id\":[5,6],\"bos_token_id\":7,\"pad_token_id\":8}");
    OK(config_from_json(j, g, "config.json", &c, &err));
    CHECK(c.stop_count == 2 && c.stop_ids[0] == 5 && c.stop_ids[1] == 6 && c.bos_id == 4 && c.pad_id == 8 && c.qkv_bias);
    json_decref(j);
    json_decref(g);
}

static void refused(void) {
    static const struct {
        const char *changes, *why;
    } cases[] = {
        {"{\"model_type\":\"mamba\"}", "model_type is \"mamba\", expected one of \"llama\", \"mistral\", "},
        {"{\"model_type\":null}", "model_type is missing"},
        {"{\"model_type\":3}", "model_type is 3"},
        {"{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", "low_freq_factor is 0"},
        {"{\"rope_scaling\":{\"rope_type\":\"mrope\",\"factor\":8}}", "rope_scaling.rope_type is \"mrope\", expected one of \"default\", \"linear\""},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", "factor is 0.5, expected 1 to 1e6"},
        {"{\"rope_scaling\":{\"type\":\"linear\"}}", "factor is 0, expected 1 to 1e6"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"beta_fast\":2}}", "rope_scaling.beta_fast is not supported with rope_type \"linear\""},
        {"{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":2,\"beta_fast\":1,\"beta_slow\":4}}", "beta_fast is 1"},
        {"{\"rope_parameters\":{\"rope_type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,1]}}", "expected a list of 5 numbers"},
        {"{\"rope_parameters\":{\"rope_type\":\"default\",\"factor\":2}}", "rope_parameters.factor is not supported"},
        {"{\"rope_parameters\":{\"full_attention\":{}}}", "rope_parameters.full_attention is not supported"},
        {"{\"rope_parameters\":{\"rope_theta\":\"x\"}}", "rope_theta is \"x\", expected a number"},
        {"{\"rope_scaling\":5}", "rope_scaling is 5"},
        {"{\"partial_rotary_factor\":0.5}", "partial_rotary_factor is 0.5"},
        {"{\"hidden_act\":\"gelu\"}", "hidden_act is \"gelu\""},
        {"{\"use_sliding_window\":true}", "use_sliding_window is true"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "there is no sliding_window"},
        {"{\"layer_types\":[\"full_attention\",\"linear_attention\"]}", "layer_types is \"linear_attention\", expected \"full_attention\" or"},
        {"{\"layer_types\":[\"full_attention\"]}", "expected a list with one entry a layer"},
        {"{\"sliding_window\":8}", "sliding_window is 8, expected null"},
        {"{\"final_logit_softcapping\":30}", "final_logit_softcapping is 30, expected null"},
        {"{\"clip_qkv\":8}", "clip_qkv is 8, expected false or null"},
        {"{\"moe_layers\":8}", "moe_layers is not supported; options are model_type, num_hidden_layers"},
        {"{\"quantization_config\":{}}", "quantization_config is not supported"},
        {"{\"hidden_size\":null}", "hidden_size is missing"},
        {"{\"hidden_size\":80.5}", "hidden_size is 80.5"},
        {"{\"hidden_size\":-80}", "hidden_size is -80"},
        {"{\"hidden_size\":4294967376}", "hidden_size is 4294967376"},
        {"{\"vocab_size\":\"352\"}", "vocab_size is \"352\""},
        {"{\"num_attention_heads\":7}", "doesn't divide hidden_size 80"},
        {"{\"num_key_value_heads\":3}", "expected a divisor of num_attention_heads 8"},
        {"{\"num_hidden_layers\":1000000000}", "num_hidden_layers is 1000000000, expected 1 to 1024"},
        {"{\"num_hidden_layers\":0}", "num_hidden_layers is 0"},
        {"{\"head_dim\":5}", "head_dim is 5, expected an even number"},
        {"{\"rms_norm_eps\":0}", "rms_norm_eps is 0"},
        {"{\"rms_norm_eps\":\"1e-5\"}", "rms_norm_eps is \"1e-5\""},
        {"{\"rope_theta\":-1}", "rope_theta is -1"},
        {"{\"tie_word_embeddings\":1}", "tie_word_embeddings is 1"},
        {"{\"attention_bias\":\"no\"}", "attention_bias is \"no\""},
        {"{\"bos_token_id\":352}", "bos_token_id is 352, expected less than vocab_size 352"},
        {"{\"eos_token_id\":[1,99999]}", "eos_token_id is 99999"},
        {"{\"eos_token_id\":\"</s>\"}", "eos_token_id is \"</s>\""},
        {"{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "lists 17 tokens"},
        {"{\"pad_token_id\":-2}", "pad_token_id is -2"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        ModelConfig c;
        if (change(cases[i].changes, &c, &err)) FAIL("%s was taken, expected '%s'", cases[i].changes, cases[i].why);
        CHECK_INT(err.code, ERR_DATA);
        CHECK_STR(err.where, "config.json");
        if (!strstr(err.msg, cases[i].why)) FAIL("%s: got '%s', want '%s' in it", cases[i].changes, err.msg, cases[i].why);
    }
    Err err = {0};
    ModelConfig c;
    json_t *list = parse("[1]");
    CHECK(!config_from_json(list, NULL, "config.json", &c, &err) && strstr(err.msg, "expected an object"));
    json_decref(list);
}

static void round_trip(void) {
    const char *changes[] = {
        "{}",
        "{\"attention_bias\":true,\"mlp_bias\":true,\"eos_token_id\":[4,5],\"bos_token_id\":1,\"pad_token_id\":2}",
        "{\"model_type\":\"qwen2\",\"tie_word_embeddings\":true,\"rope_theta\":123456.5,\"rms_norm_eps\":9.999999747378752e-06}",
    };
    for (int i = 0; i < COUNT(changes); i++) {
        Err err = {0};
        ModelConfig a, b;
        OK(change(changes[i], &a, &err));
        json_t *j = config_to_json(&a, "float32");
        CHECK_STR(json_string_value(json_object_get(j, "torch_dtype")), "float32");
        OK(config_from_json(j, NULL, "written", &b, &err));
        json_decref(j);
        CHECK(memcmp(&a, &b, sizeof a) == 0);
    }
}

// As models are published: keys of their own repositories, and of older programs.
static void published(void) {
    static const struct {
        const char *text;
        int32_t window, windows, rotary;
        RopeKind rope;
    } cases[] = {
        {"{\"model_type\":\"phi3\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":8,"
         "\"vocab_size\":20,\"full_attn_mod\":1,\"interpolate_factor\":1,\"lm_head_bias\":false,\"mlp_bias\":false,\"attention_bias\":false,"
         "\"partial_rotary_factor\":0.75,\"sliding_window\":262144,\"max_position_embeddings\":131072,\"original_max_position_embeddings\":4096,"
         "\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1,1,1,1,1],\"long_factor\":[1,2,3,4,5,6]},\"auto_map\":{\"AutoConfig\":\"x\"}}",
         262144, 2, 12, ROPE_LONGROPE},
        {"{\"model_type\":\"qwen2\",\"num_hidden_layers\":3,\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":8,"
         "\"vocab_size\":20,\"use_mrope\":false,\"use_sliding_window\":false,\"sliding_window\":32768,\"max_window_layers\":21,"
         "\"rope_scaling\":{\"factor\":4.0,\"original_max_position_embeddings\":32768,\"type\":\"yarn\"}}",
         0, 0, 0, ROPE_YARN},
        {"{\"model_type\":\"gemma3_text\",\"num_hidden_layers\":26,\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":1,\"intermediate_size\":8,"
         "\"vocab_size\":20,\"attn_logit_softcapping\":null,\"cache_implementation\":\"hybrid\",\"final_logit_softcapping\":null,\"head_dim\":256,"
         "\"query_pre_attn_scalar\":256,\"rope_local_base_freq\":10000,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
         "\"rope_theta\":1000000,\"sliding_window\":512,\"sliding_window_pattern\":6}",
         512, 22, 0, ROPE_LINEAR},
        {"{\"model_type\":\"mistral\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":8,"
         "\"vocab_size\":20,\"sliding_window\":null,\"head_dim\":null}",
         0, 0, 0, ROPE_DEFAULT},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        ModelConfig c;
        json_t *j = parse(cases[i].text);
        OK(config_from_json(j, NULL, "config.json", &c, &err));
        int windows = 0;
        for (int k = 0; k < c.layers; k++) windows += config_window(&c, k) > 0;
        CHECK_INT(c.window, cases[i].window);
        CHECK_INT(windows, cases[i].windows);
        CHECK_INT(c.rotary_width, cases[i].rotary);
        CHECK(c.rope[0].kind == cases[i].rope);
        json_decref(j);
    }
}

static void flops(void) {
    Err err = {0};
    ModelConfig c;
    OK(change("{}", &c, &err));
    // q 80x80, k and v 80x20, o 80x80, three of 80x96; attention: 80 wide, scores and values, over 10 positions.
    double layer = 2.0 * (6400 + 2 * 1600 + 6400 + 3 * 7680) + 4.0 * 80 * 10;
    CHECK_NEAR(config_flops(&c, 10, false), 2 * layer, 0);
    CHECK_NEAR(config_flops(&c, 10, true), 2 * layer + 2.0 * 80 * 352, 0);
}

static const Test tests[] = {
    {"current keys", current_keys}, {"legacy keys", legacy_keys}, {"which key counts", precedence},
    {"what is refused", refused},   {"round trip", round_trip},   {"as published", published},   {"flops", flops},
};
TEST_MAIN(tests)
