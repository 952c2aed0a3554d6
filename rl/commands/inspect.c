// `reckon inspect`: what a model file holds, or the values of one tensor. It reads any file whose headers are sound, a
// model that reckon can't run too (its configuration is then shown as it stands). Text from the file reaches the
// terminal only as escaped ASCII. Values are printed straight from the decoded tensor, since as a tree of JSON they
// would take many times its size.
#include "command.h"
#include "rl.h"
#include "weights.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the whole file --------------------------------------------------------------------------------------
// What the weights are stored as, in the words of config.json; GGUF's are dequantised to float32.
static const char *dtype_of(const Weights *w) {
    const json_t *config = weights_config_json(w);
    const char *dtype = json_string_value(json_object_get(config, "dtype"));
    if (!dtype) dtype = json_string_value(json_object_get(config, "torch_dtype"));
    return dtype ? dtype : "float32";
}
static json_t *config_of(const Weights *w) {
    if (weights_config(w)) return config_to_json(weights_config(w), dtype_of(w));
    const json_t *raw = weights_config_json(w);
    return raw ? json_deep_copy(raw) : json_null();
}
static int64_t parameters_of(const Weights *w) {
    if (weights_config(w)) return config_parameters(weights_config(w));
    int64_t sum = 0;
    for (int i = 0; i < weights_count(w); i++) {
        TensorInfo t;
        weights_at(w, i, &t);
        if (__builtin_add_overflow(sum, t.count, &sum)) return INT64_MAX; // tensors of no bytes may claim any count
    }
    return sum;
}
static json_t *shape_of(const TensorInfo *t) {
    json_t *shape = json_array();
    for (int d = 0; d < t->dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
    return shape;
}
static json_t *tensors_of(const Weights *w) {
    json_t *list = json_array();
    for (int i = 0; i < weights_count(w); i++) {
        TensorInfo t;
        weights_at(w, i, &t);
        json_t *row = json_object();
        json_object_set_new(row, "name", json_string(weights_own_name(w, i)));
        json_object_set_new(row, "type", json_string(t.type));
        json_object_set_new(row, "shape", shape_of(&t));
        json_object_set_new(row, "bytes", json_integer((json_int_t)t.bytes));
        json_array_append_new(list, row);
    }
    return list;
}

// A value as one line of ASCII, cut to `limit` characters.
static void print_value(const char *label, const json_t *value, int limit) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("  %-40s %.*s%s\n", label, limit, text ? text : "", text && strlen(text) > (size_t)limit ? "..." : "");
    free(text);
}
static void print_object(const char *title, const json_t *object) {
    const char *key;
    json_t *value;
    printf("%s\n", title);
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        json_t *name = json_string(key);
        char *label = json_dumps(name, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        print_value(label, value, 76);
        free(label);
        json_decref(name);
    }
}
static void print_text(const Weights *w, const json_t *config, const json_t *tensors, const json_t *metadata) {
    const Err *why = weights_config_error(w);
    if (why) printf("not a model that reckon runs: %s\n", why->msg);
    if (json_is_object(config)) print_object("config", config);
    print_object("metadata", metadata);
    printf("tensors\n");
    size_t i, bytes = 0;
    json_t *t;
    json_array_foreach(tensors, i, t) {
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        char *name = json_dumps(json_object_get(t, "name"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        printf("  %-44s %-8s %-16s %12" JSON_INTEGER_FORMAT " bytes\n", name, json_string_value(json_object_get(t, "type")), shape,
               json_integer_value(json_object_get(t, "bytes")));
        bytes += (size_t)json_integer_value(json_object_get(t, "bytes"));
        free(shape);
        free(name);
    }
    printf("%zu tensors, %" PRId64 " parameters, %.1f MiB\n", json_array_size(tensors), parameters_of(w), (double)bytes / 1048576.0);
}
static bool flushed(Err *err) {
    return (fflush(stdout) == 0 && !ferror(stdout)) || fail(err, ERR_IO, "stdout", "can't write: %s", strerror(errno));
}
static bool inspect_file(const Weights *w, bool json, Err *err) {
    json_t *all = json_object(), *config = config_of(w), *tensors = tensors_of(w), *metadata = weights_metadata(w);
    json_object_set_new(all, "config", config);
    json_object_set_new(all, "parameters", json_integer(parameters_of(w)));
    json_object_set_new(all, "tensors", tensors);
    json_object_set_new(all, "metadata", metadata);
    if (!json) print_text(w, config, tensors, metadata);
    bool ok = json ? print_json(all, err) : flushed(err);
    json_decref(all);
    return ok;
}

// ---- one tensor ------------------------------------------------------------------------------------------
// Nine digits name an fp32 exactly. A JSON real always has a point or an exponent.
static void print_real(float x) {
    char text[32];
    if (x != x || isinf(x)) {
        fputs(x != x ? "null" : x > 0 ? "\"inf\"" : "\"-inf\"", stdout);
        return;
    }
    snprintf(text, sizeof text, "%.9g", (double)x);
    if (!strpbrk(text, ".e")) strcat(text, ".0");
    fputs(text, stdout);
}
static void print_tensor_json(const char *name, const TensorInfo *t, const float *values) {
    json_t *title = json_string(name), *shape = shape_of(t);
    char *name_text = json_dumps(title, JSON_ENCODE_ANY), *shape_text = json_dumps(shape, JSON_COMPACT);
    printf("{\"name\":%s,\"type\":\"%s\",\"shape\":%s,\"values\":[", name_text, t->type, shape_text);
    for (int64_t i = 0; i < t->count; i++) {
        if (i) putchar(',');
        print_real(values[i]);
    }
    printf("]}\n");
    free(name_text);
    free(shape_text);
    json_decref(title);
    json_decref(shape);
}
static void print_tensor_text(const char *name, const TensorInfo *t, const float *values) {
    double sum = 0, squares = 0;
    float low = INFINITY, high = -INFINITY;
    int64_t not_finite = 0;
    for (int64_t i = 0; i < t->count; i++) {
        if (!isfinite(values[i])) {
            not_finite++;
            continue;
        }
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
        sum += values[i], squares += (double)values[i] * values[i];
    }
    json_t *shape = shape_of(t), *title = json_string(name);
    print_value("name", title, 200);
    print_value("shape", shape, 200);
    json_decref(title);
    json_decref(shape);
    printf("  %-40s %s, %zu bytes\n", "type", t->type, t->bytes);
    int64_t finite = t->count - not_finite;
    if (finite) printf("  %-40s %g to %g, mean %g, root mean square %g\n", "values", low, high, sum / (double)finite, sqrt(squares / (double)finite));
    if (not_finite) printf("  %-40s %" PRId64 "\n", "NaN or infinite", not_finite);
    printf("  %-40s", "first");
    for (int64_t i = 0; i < t->count && i < 8; i++) printf(" %.9g", (double)values[i]);
    printf("\n");
}
static bool inspect_tensor(const Weights *w, const char *name, bool json, Err *err) {
    int i = weights_position(w, name);
    if (i < 0) return fail(err, ERR_DATA, weights_path(w), "has no tensor '%.100s'; 'reckon inspect' without --tensor lists them", name);
    TensorInfo t;
    size_t bytes;
    void *memory;
    weights_at(w, i, &t);
    if (!size_mul((size_t)t.count, sizeof(float), &bytes)) return fail(err, ERR_DATA, weights_path(w), "tensor '%.100s' is too large", name);
    TRY(mem_alloc(bytes, "the tensor's values", &memory, err));
    bool ok = weights_read_raw(w, weights_own_name(w, i), memory, err);
    if (ok) (json ? print_tensor_json : print_tensor_text)(weights_own_name(w, i), &t, memory);
    mem_free(memory);
    return ok && flushed(err);
}

// ---- what a recipe would need of it ----------------------------------------------------------------------
static bool inspect_plan(const char *model, const char *recipe, bool json, Err *err) {
    char *set = xasprintf("model.path=%s", model);
    const char *sets[] = {set, NULL};
    Recipe *r = NULL;
    json_t *plan = NULL;
    bool ok = recipe_read(recipe, sets, &r, err) && plan_make(r, &plan, err);
    if (ok && json) ok = print_json(plan, err);
    else if (ok) {
        plan_print(plan);
        printf("peak memory about %.0f MiB, where completions reach max_tokens and prompts are as long as the longest of the first items\n", json_number_value(json_object_get(json_object_get(plan, "memory"), "peak")) / 1048576);
        ok = flushed(err);
    }
    json_decref(plan);
    if (r) recipe_free(r);
    free(set);
    return ok;
}

static bool run(const Args *args, Err *err) {
    if (args_given(args, "plan")) {
        if (args_given(args, "tensor")) return fail(err, ERR_USAGE, "inspect", "expected at most one of --tensor and --plan");
        return inspect_plan(args->positional[0], args_text(args, "plan", NULL), args_flag(args, "json"), err);
    }
    Weights *w;
    TRY(weights_open(args->positional[0], true, &w, err));
    const char *tensor = args_text(args, "tensor", NULL);
    bool json = args_flag(args, "json");
    bool ok = tensor ? inspect_tensor(w, tensor, json, err) : inspect_file(w, json, err);
    weights_close(w);
    return ok;
}

static const Option options[] = {
    {.name = "tensor", .kind = OPTION_TEXT, .value = "NAME", .help = "show this tensor's values, as it lies in the file, in fp32"},
    {.name = "plan", .kind = OPTION_TEXT, .value = "RECIPE", .help = "what training this model by a recipe takes: memory, FLOPs, time"},
    {.name = "json", .kind = OPTION_FLAG, .help = "print one JSON document on stdout"},
    OPTION_END,
};
const Command command_inspect = {
    .name = "inspect",
    .summary = "show what a model file holds",
    .usage = "FILE [--tensor NAME | --plan RECIPE] [--json]",
    .detail = "FILE is a model folder (config.json and safetensors), a .gguf file or a .safetensors file. Prints the configuration, the\n"
              "number of parameters, the metadata and each tensor's name, type, shape and bytes. With --tensor, the dequantised values\n"
              "of one, row by row; a GGUF's tensors are found by its own names and by Hugging Face's.",
    .example = "reckon inspect models/model.gguf --tensor token_embd.weight --json",
    .positional_min = 1,
    .positional_max = 1,
    .options = options,
    .run = run,
};
