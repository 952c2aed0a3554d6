// Loading by all threads: the packed form is byte for byte what packing the same numbers from memory gives, from every kind of
// file; matrices that are used within the file until decoding begins give the same bits before and after; and of several bad tensors
// the first one is told, whichever thread meets it.
#include "export.h"
#include "policy_test.h"
#include "test_folder.h"
#include <unistd.h>

static const Shape loaded[] = {
    {"tied, interleaved in GGUF", 2, 256, 4, 2, 64, 512, 300, true, false, false},
    {"biases of q, k, v", 2, 64, 4, 2, 16, 96, 131, false, true, false},
    {"rows that aren't whole groups", 1, 40, 4, 2, 20, 72, 70, true, true, true},
};
static const char *const forms[] = {"folder", "F16", "BF16", "Q8_0", "Q4_K"};

static void write_model(const Shape *s, const char *form) {
    Err err = {0};
    ModelConfig c = shape_config(s);
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    folder_start();
    OK(policy_save(p, inside("a"), strcmp(form, "folder") == 0 ? "BF16" : "F32", &err));
    policy_close(p);
    if (strcmp(form, "folder") == 0) return;
    Weights *w;
    OK(weights_open(inside("a"), false, &w, &err));
    OK(export_gguf(w, inside("a.gguf"), &(ExportOptions){.type = form}, &err));
    weights_close(w);
}
static Policy *open_model(const char *form, PolicyOptions o) {
    Err err = {0};
    Policy *p;
    OK(policy_open(inside(strcmp(form, "folder") == 0 ? "a" : "a.gguf"), &o, &p, &err));
    return p;
}
static void same_packed(const Policy *a, const Policy *b, const char *what) {
    for (int i = 0; i < a->parameter_count; i++) {
        const Parameter *x = &a->parameters[i], *y = &b->parameters[i];
        if (!x->matrix) CHECK(memcmp(x->values, y->values, (size_t)(x->N * x->K) * 4) == 0);
        else if (memcmp(x->packed, y->packed, act_bytes(a, packed_size(x)))) FAIL("%s: %s is packed otherwise", what, x->parts[0].name);
    }
}
static Rollout roll(Policy *p, int32_t tokens) {
    Err err = {0};
    Rollout out;
    int32_t prompt[40];
    Random r = random_start(5, STREAM_TEST, 0);
    random_ids(&r, policy_config(p)->vocabulary, 40, prompt);
    RolloutRequest request = {.prompt = prompt, .prompt_length = 40, .samples = 2, .sampling = {.temperature = 1, .top_p = 1, .max_tokens = tokens, .ignore_eos = true}};
    OK(policy_rollout(p, &request, 1, NULL, &out, &err));
    return out;
}
static void same_rollout(Policy *a, Policy *b, int32_t tokens, const char *what) {
    Rollout x = roll(a, tokens), y = roll(b, tokens);
    for (int i = 0; i < 2; i++) {
        if (memcmp(x.completions[i].ids, y.completions[i].ids, (size_t)tokens * 4) || memcmp(x.completions[i].logprob, y.completions[i].logprob, (size_t)tokens * 4))
            FAIL("%s: other bits of %d tokens", what, (int)tokens);
    }
    rollout_free(&x), rollout_free(&y);
}
// Masters are read as numbers and packed from memory: the way that frozen matrices don't go.
static void packed_as_masters(const Shape *s, const char *form) {
    for (int precision = 0; precision < 2; precision++) {
        Policy *masters = open_model(form, (PolicyOptions){.precision = (Precision)precision, .threads = 1, .device = "cpu", .trainable = true});
        Policy *frozen = open_model(form, (PolicyOptions){.precision = (Precision)precision, .threads = 3, .device = "cpu"});
        char what[96];
        snprintf(what, sizeof what, "%s as %s in %s", s->name, form, precision_names[precision]);
        same_packed(frozen, masters, what);
        policy_close(masters), policy_close(frozen);
    }
}

static int in_file_count(const Policy *p) {
    int count = 0;
    for (int i = 0; i < p->parameter_count; i++) count += p->parameters[i].in_file;
    return count;
}
static void within_the_file(const Shape *s, const char *form, PolicyOptions o) {
    Err err = {0};
    Policy *whole = open_model(form, o);
    o.in_file = true;
    Policy *p = open_model(form, o);
    int before = in_file_count(p);
    bool can = s->width % 32 == 0 && strcmp(form, "F16");
    if ((before > 0) != can) FAIL("%s as %s: %d matrices within the file", s->name, form, before);
    char a[65], b[65];
    OK(policy_hash(whole, a, &err) && policy_hash(p, b, &err));
    if (o.precision == PRECISION_FP32) CHECK_STR(b, a);
    same_rollout(p, whole, 1, form);
    CHECK_INT(in_file_count(p), before);
    same_rollout(p, whole, 9, form);
    CHECK_INT(in_file_count(p), 0);
    CHECK(!p->file);
    same_packed(p, whole, form);
    same_rollout(p, whole, 3, form);
    policy_close(p), policy_close(whole);
    policy_close(open_model(form, o)); // without having decoded
}
static void from_every_form(void) {
    for (int s = 0; s < COUNT(loaded); s++)
        for (int f = 0; f < COUNT(forms); f++) {
            if (forms[f][0] == 'Q' && loaded[s].width % 256) continue;
            write_model(&loaded[s], forms[f]);
            packed_as_masters(&loaded[s], forms[f]);
            within_the_file(&loaded[s], forms[f], (PolicyOptions){.precision = (Precision)(f % 2), .threads = 1 + s, .device = "cpu"});
            folder_end();
        }
}

// Two tensors of a type whose values can't be read.
static void first_error(void) {
    Err err = {0};
    ModelConfig c = shape_config(&loaded[0]);
    Policy *made = policy_make(&c, NULL, PRECISION_FP32, 1), *p;
    folder_start();
    OK(policy_save(made, inside("a"), "F32", &err));
    Safetensors *old;
    OK(safetensors_open(inside("a/model.safetensors"), &old, &err));
    int count = safetensors_count(old);
    TensorOut *tensors = xcalloc((size_t)count, sizeof *tensors);
    for (int i = 0; i < count; i++) {
        TensorInfo t;
        safetensors_at(old, i, &t);
        bool bad = strstr(t.name, "layers.0.mlp.down_proj") || strstr(t.name, "layers.1.self_attn.o_proj") || strstr(t.name, "layers.1.mlp");
        tensors[i] = (TensorOut){.name = t.name, .dtype = bad ? "F8_E4M3" : "F32", .dims = t.dims, .shape = {t.shape[0], t.shape[1]},
                                 .raw = safetensors_bytes(old, t.name)};
    }
    OK(safetensors_write(inside("b.safetensors"), tensors, count, NULL, &err));
    safetensors_close(old);
    CHECK(rename(inside("b.safetensors"), inside("a/model.safetensors")) == 0);
    for (int i = 0; i < 40; i++) {
        PolicyOptions o = {.precision = (Precision)(i % 2), .threads = 1 + i % 4, .device = "cpu", .trainable = i % 8 == 7, .in_file = i % 3 == 0};
        CHECK(!policy_open(inside("a"), &o, &p, &err) && err.code == ERR_DATA);
        if (!strstr(err.msg, "layers.0.mlp.down_proj") || !strstr(err.msg, "F8_E4M3")) FAIL("told with %d threads: %s", o.threads, err.msg);
    }
    free(tensors);
    policy_close(made);
    folder_end();
}

static const Test tests[] = {
    {"loading: from every form of file", from_every_form},
    {"loading: of several errors the first", first_error},
};
TEST_MAIN(tests)
