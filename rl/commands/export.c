// `reckon export`: a model as a Hugging Face folder, a GGUF file or a PEFT adapter. A run gives its newest whole
// checkpoint.
#include "command.h"
#include "export.h"
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

static bool run(const Args *args, Err *err) {
    const char *to = args_text(args, "to", NULL), *out = args->positional_count > 1 ? args->positional[1] : args_text(args, "out", NULL);
    ExportOptions o = {.type = args_text(args, "type", NULL), .replace = args_flag(args, "force")};
    char *model = NULL;
    Weights *w = NULL;
    if (!to) return fail(err, ERR_USAGE, "export", "--to is missing, expected hf or gguf");
    if (!out || (args->positional_count > 1 && args_given(args, "out")))
        return fail(err, ERR_USAGE, "export", "expected one place to write to: the second argument or --out");
    if (strcmp(to, "hf") != 0 && args_given(args, "shard-size")) return fail(err, ERR_USAGE, "--shard-size", "only a folder has shards");
    TRY(read_size(args_text(args, "shard-size", NULL), &o.shard_bytes, err));
    bool ok = find_model(args->positional[0], &model, err) && weights_open(model, false, &w, err) &&
              (strcmp(to, "hf") == 0 ? export_hf(w, out, &o, err) : export_gguf(w, out, &o, err));
    if (w) weights_close(w);
    free(model);
    return ok;
}

static const Option options[] = {
    {.name = "to", .kind = OPTION_CHOICE, .value = "hf|gguf", .help = "a Hugging Face folder or a GGUF file"},
    {.name = "out", .kind = OPTION_TEXT, .value = "PATH", .help = "where to, instead of the second argument"},
    {.name = "type", .kind = OPTION_TEXT, .value = "TYPE", .help = "of the weights: keep (as stored, the default), F32, F16, BF16; in GGUF also Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q6_K, Q4_K, Q4_K_M"},
    {.name = "shard-size", .kind = OPTION_TEXT, .value = "SIZE", .help = "split a folder's weights into files of at most SIZE (5GB, 500MB)"},
    {.name = "force", .kind = OPTION_FLAG, .help = "replace what is there"},
    OPTION_END};

const Command command_export = {
    .name = "export",
    .summary = "write a model as a Hugging Face folder or a GGUF file",
    .usage = "MODEL|RUN OUT --to hf|gguf [--type TYPE] [--shard-size SIZE] [--force]",
    .detail = "MODEL is a model folder or a .gguf file; of a RUN the newest checkpoint is taken. A folder's tokenizer and template are carried\n"
              "over byte for byte, and so are the bytes of tensors whose type doesn't change. In GGUF, vectors are F32, and rows that a\n"
              "block type doesn't divide get one that does (Q4_K: Q5_0, Q6_K: Q8_0, else F16). Q4_K_M mixes Q4_K and Q6_K as llama.cpp does.",
    .example = "reckon export runs/arithmetic model.gguf --to gguf --type Q8_0",
    .positional_min = 1,
    .positional_max = 2,
    .options = options,
    .run = run,
};
