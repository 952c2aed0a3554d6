// `reckon export`: a model as a Hugging Face folder, a GGUF file or a PEFT adapter. A run gives its newest whole
// checkpoint.
#include "command.h"
#include "export.h"
#include "lora_files.h"
#include "rl.h"
#include "files.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// "500MB", "2GiB", "1000000".
static bool read_size(const char *text, uint64_t *out, Err *err) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1000}, {"MB", 1000000}, {"GB", 1000000000}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end;
    *out = 0;
    if (!text) return true;
    double x = isdigit((unsigned char)text[0]) ? strtod(text, &end) : 0;
    for (int i = 0; x > 0 && x < 1e9 && i < COUNT(units); i++)
        if (strcmp(end, units[i].name) == 0) {
            *out = (uint64_t)(x * (double)units[i].bytes);
            if (*out) return true;
        }
    return fail(err, ERR_USAGE, "--shard-size", "'%.40s' is no size, expected a number and B, KB, MB, GB, KiB, MiB or GiB", text);
}

// The folder or file of the weights; the caller frees it.
static bool find_model(const char *path, char **out, Err *err) {
    char *inside = path_join(path, "recipe.resolved.json");
    bool run = file_exists(inside), found = false;
    free(inside);
    *out = NULL;
    if (!run) {
        if (!file_exists(path)) return fail(err, ERR_NOINPUT, path, "no such model or run");
        *out = xstrdup(path);
        return true;
    }
    Recipe *r = NULL;
    TrainState state;
    bool ok = recipe_of_run(path, &r, err) && checkpoint_latest(path, r->hash, &state, out, &found, err);
    if (r) recipe_free(r);
    return ok && (found || fail(err, ERR_NOINPUT, path, "this run has no checkpoint yet"));
}

// The base's weights, with the adapter merged where there is one.
static bool export_model(const char *to, const char *model, const char *adapter, const char *out, ExportOptions *o, Err *err) {
    Weights *w = NULL;
    Merge *merge = NULL;
    bool ok = weights_open(model, false, &w, err) && (!adapter || merge_open(adapter, w, &merge, err));
    if (merge) o->adds = merge_adds, o->add = merge_add, o->context = merge;
    ok = ok && (strcmp(to, "hf") == 0 ? export_hf(w, out, o, err) : export_gguf(w, out, o, err));
    merge_close(merge);
    if (w) weights_close(w);
    return ok;
}

static bool run(const Args *args, Err *err) {
    const char *to = args_text(args, "to", NULL), *out = args->positional_count > 1 ? args->positional[1] : args_text(args, "out", NULL);
    const char *adapter = args_text(args, "adapter", NULL);
    ExportOptions o = {.type = args_text(args, "type", NULL), .replace = args_flag(args, "force")};
    char *model = NULL, *base = NULL, hash[65];
    if (!to) return fail(err, ERR_USAGE, "export", "--to is missing, expected hf, gguf or peft");
    if (!out || (args->positional_count > 1 && args_given(args, "out")))
        return fail(err, ERR_USAGE, "export", "expected one place to write to: the second argument or --out");
    if (strcmp(to, "hf") != 0 && args_given(args, "shard-size")) return fail(err, ERR_USAGE, "--shard-size", "only a folder has shards");
    TRY(read_size(args_text(args, "shard-size", NULL), &o.shard_bytes, err));
    bool ok = find_model(args->positional[0], &model, err), is_adapter = ok && folder_is_adapter(model);
    if (is_adapter && adapter) ok = fail(err, ERR_USAGE, model, "is an adapter itself: --adapter has no place beside it");
    if (is_adapter && ok) adapter = model, ok = strcmp(to, "peft") == 0 || adapter_base(model, &base, hash, err);
    if (ok && strcmp(to, "peft") == 0)
        ok = adapter ? export_peft(adapter, is_adapter ? NULL : model, out, &o, err) : fail(err, ERR_USAGE, model, "has no adapter: --adapter names one");
    else
        ok = ok && export_model(to, base ? base : model, adapter, out, &o, err);
    free(model), free(base);
    return ok;
}

static const Option options[] = {
    {.name = "to", .kind = OPTION_CHOICE, .value = "hf|gguf|peft", .help = "a Hugging Face folder, a GGUF file or a PEFT adapter"},
    {.name = "out", .kind = OPTION_TEXT, .value = "PATH", .help = "where to, instead of the second argument"},
    {.name = "type", .kind = OPTION_TEXT, .value = "TYPE", .help = "of the weights: keep (as stored, the default), F32, F16, BF16; in GGUF also Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q6_K, Q4_K, Q4_K_M"},
    {.name = "adapter", .kind = OPTION_TEXT, .value = "DIR", .help = "merge this PEFT adapter into the weights; with --to peft, copy it"},
    {.name = "shard-size", .kind = OPTION_TEXT, .value = "SIZE", .help = "split a folder's weights into files of at most SIZE (5GB, 500MB)"},
    {.name = "force", .kind = OPTION_FLAG, .help = "replace what is there"},
    OPTION_END};

const Command command_export = {
    .name = "export",
    .summary = "write a model as a Hugging Face folder, a GGUF file or an adapter",
    .usage = "MODEL|RUN OUT --to hf|gguf|peft [--type TYPE] [--adapter DIR] [--shard-size SIZE] [--force]",
    .detail = "MODEL is a model folder or a .gguf file; of a RUN the newest checkpoint is taken. What is an adapter\n"
              "(a PEFT folder, or a run that trained one) is merged into its base, or with --to peft written as it is. A folder's tokenizer and template are carried\n"
              "over byte for byte, and so are the bytes of tensors whose type doesn't change. In GGUF, vectors are F32, and rows that a\n"
              "block type doesn't divide get one that does (Q4_K: Q5_0, Q6_K: Q8_0, else F16). Q4_K_M mixes Q4_K and Q6_K as llama.cpp does.",
    .example = "reckon export runs/arithmetic model.gguf --to gguf --type Q8_0",
    .positional_min = 1,
    .positional_max = 2,
    .options = options,
    .run = run,
};
