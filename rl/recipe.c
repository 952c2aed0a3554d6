// Reading a recipe: a Lua file, evaluated behind the sandbox's wall, that returns one table. This file owns the order of
// things and what needs more than one key at once; single keys are the schema's (recipe_schema.c, recipe_check.c).
// The resolved recipe holds every value, defaults included. What only says where and how fast a run happens (folder,
// threads, prices) stands under "outside" there and doesn't enter the hash: a run is a function of the rest.
#include "recipe_parts.h"
#include "stages.h"
#include "embedded.h"
#include "files.h"
#include "sandbox.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mode_names[MODES] = {"think", "direct"};

enum { RECIPE_BYTES = 1 << 20 };

json_t *recipe_raw_at(const json_t *raw, const char *path) {
    char key[128];
    while (raw && *path) {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        raw = json_is_array(raw) ? json_array_get(raw, (size_t)strtol(key, NULL, 10) - 1) : json_object_get(raw, key);
        path += n + (path[n] == '.');
    }
    return (json_t *)(uintptr_t)raw;
}

// ---- sections that hold for all stages -------------------------------------------------------------------
static bool takes_section(const json_t *stage, const char *key) {
    const char *kind = json_string_value(json_object_get(stage, "$kind"));
    const StageRow *row = kind ? stage_row_named(kind) : NULL;
    return row && field_find(row->keys, key);
}
// A stage's own value goes before the shared one; an override of the command line before both, unless the stage's own
// value is one too.
static void take_over(json_t *stage, const char *section, const json_t *shared) {
    json_t *own = json_object_get(stage, section), *value;
    if (!own || (json_is_array(own) && json_array_size(own) == 0)) json_object_set_new(stage, section, own = json_object());
    if (!json_is_object(own)) return; // an error that resolving the stage reports
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)shared, key, value) {
        const json_t *before = json_object_get(own, key);
        bool stronger = json_object_get(value, "$set") && !json_object_get(before, "$set");
        if (!before || stronger) json_object_set(own, key, value);
    }
}
static bool share_sections(Build *b, Err *err) {
    json_t *stages = json_object_get(b->raw, "stages");
    for (const Field *f = recipe_fields; f->key; f++) {
        json_t *shared = f->shared ? json_object_get(b->raw, f->key) : NULL;
        if (!shared) continue;
        const Field alone[] = {{f->key, f->kind, f->help, .fields = f->fields}, FIELD_END};
        json_t *section = json_pack("{s:O}", f->key, shared), *checked = json_object();
        bool ok = recipe_resolve_section(&b->reading, alone, section, "", NULL, checked, err);
        json_decref(section);
        json_decref(checked);
        TRY(ok);
        for (size_t i = 0; i < json_array_size(stages); i++)
            if (takes_section(json_array_get(stages, i), f->key)) take_over(json_array_get(stages, i), f->key, shared);
    }
    return true;
}

// ---- what needs several keys at once ---------------------------------------------------------------------
static bool complete_name(Build *b, Err *err) {
    const char *path = b->reading.path, *slash = strrchr(path, '/');
    if (!is_given(b->out, "name")) {
        char stem[101];
        snprintf(stem, sizeof stem, "%s", slash ? slash + 1 : path);
        char *dot = strrchr(stem, '.');
        if (dot && dot != stem) *dot = 0;
        json_t *name = json_string(stem);
        json_object_set_new(b->out, "name", name ? name : json_string("run"));
    }
    const char *name = json_string_value(json_object_get(b->out, "name"));
    for (const char *p = name; *p; p++)
        if ((!isalnum((unsigned char)*p) && !strchr("._-", *p)) || name[0] == '.')
            return REJECT(b, ERR_DATA, "name", "'name': found \"%.100s\", expected letters, digits, '_', '-' and '.' only, "
                                               "since it names the run's folder", name);
    if (!is_given(b->out, "run")) json_object_set_new(b->out, "run", json_sprintf("runs/%s", name));
    return true;
}

static const char *const shape_keys[] = {"preset", "layers", "width", "heads", "kv_heads", "head_width", "feed_forward",
                                         "max_positions"};

// Bytes of the UTF-8 character at `p` (the text is valid UTF-8).
static size_t character_size(const char *p) {
    unsigned char c = (unsigned char)*p;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}
static bool check_characters(Build *b, Err *err) {
    const char *text = json_string_value(json_object_get(b->out, "characters"));
    int count = 0;
    for (const char *p = text; *p; p += character_size(p), count++)
        for (const char *q = text; q < p; q += character_size(q))
            if (character_size(p) == character_size(q) && memcmp(p, q, character_size(p)) == 0)
                return REJECT(b, ERR_DATA, "characters", "'characters': '%.*s' is listed twice", (int)character_size(p), p);
    b->r->config.vocabulary = 3 + count; // after <eos>, <think> and </think>
    return true;
}

static bool complete_shape(Build *b, json_t *m, Err *err) {
    const char *name = json_string_value(json_object_get(m, "preset"));
    const Preset *p = recipe_presets;
    if (!name) name = "tiny";
    while (strcmp(p->name, name) != 0) p++;
    json_object_set_new(m, "preset", json_string(name));
    bool wider = is_given(m, "width") && int_of(m, "width") != p->width;
    set_int_default(m, "layers", p->layers);
    set_int_default(m, "width", p->width);
    set_int_default(m, "kv_heads", is_given(m, "heads") ? int_of(m, "heads") : p->kv_heads);
    set_int_default(m, "heads", p->heads);
    set_int_default(m, "feed_forward", wider ? 3 * int_of(m, "width") : p->feed_forward);
    set_int_default(m, "max_positions", 1024);
    int width = int_of(m, "width"), heads = int_of(m, "heads"), kv_heads = int_of(m, "kv_heads");
    if (heads % kv_heads)
        return REJECT(b, ERR_DATA, "model.kv_heads", "'model.kv_heads': found %d, expected a divisor of the %d heads",
                      kv_heads, heads);
    if (!is_given(m, "head_width") && width % heads)
        return REJECT(b, ERR_DATA, "model.heads", "'model.heads': found %d, expected a divisor of the width %d, or head_width",
                      heads, width);
    set_int_default(m, "head_width", width / heads);
    if (int_of(m, "head_width") % 2)
        return REJECT(b, ERR_DATA, "model.head_width", "'model.head_width': found %d, expected an even number",
                      int_of(m, "head_width"));
    return true;
}

// Defaults of a mixture of experts; every size that config_check would refuse is refused here, by its key.
static bool complete_experts(Build *b, json_t *m, Err *err) {
    static const char *const keys[] = {"chosen", "feed_forward", "shared", "groups", "chosen_groups", "dense_layers", "scale", "latent"};
    json_t *e = json_object_get(m, "experts");
    if (!is_given(e, "count")) {
        for (int i = 0; i < COUNT(keys); i++)
            if (is_given(e, keys[i])) return REJECT(b, ERR_DATA, "model.experts", "'model.experts': missing key 'count', which makes experts");
        return true;
    }
    int count = int_of(e, "count");
    set_int_default(e, "chosen", count < 2 ? count : 2);
    set_int_default(e, "shared", 1);
    set_int_default(e, "groups", 1);
    set_int_default(e, "chosen_groups", 1);
    set_int_default(e, "dense_layers", 1);
    set_int_default(e, "latent", (int_of(m, "width") + 1) / 2);
    if (!is_given(e, "scale")) json_object_set_new(e, "scale", json_real(1));
    int width = int_of(m, "feed_forward") / (int_of(e, "chosen") + int_of(e, "shared"));
    set_int_default(e, "feed_forward", width > 0 ? width : 1);
    if (count % int_of(e, "groups") || int_of(e, "chosen_groups") > int_of(e, "groups"))
        return REJECT(b, ERR_DATA, "model.experts.groups", "'model.experts.groups': found %d of which %d are chosen, expected a divisor of the %d experts, and "
                      "no more chosen than there are", int_of(e, "groups"), int_of(e, "chosen_groups"), count);
    int open = count / int_of(e, "groups") * int_of(e, "chosen_groups");
    if (int_of(e, "chosen") > open)
        return REJECT(b, ERR_DATA, "model.experts.chosen", "'model.experts.chosen': found %d, expected at most the %d that can be chosen from",
                      int_of(e, "chosen"), open);
    if (int_of(e, "dense_layers") >= int_of(m, "layers"))
        return REJECT(b, ERR_DATA, "model.experts.dense_layers", "'model.experts.dense_layers': found %d of %d layers, expected some left for experts",
                      int_of(e, "dense_layers"), int_of(m, "layers"));
    return int_of(m, "head_width") >= 4 ||
           REJECT(b, ERR_DATA, "model.head_width", "'model.head_width': found %d, expected at least 4 with experts", int_of(m, "head_width"));
}

// Without a rank there is no adapter, and nothing else to say about one.
static bool complete_lora(Build *b, json_t *model, Err *err) {
    json_t *lora = json_object_get(model, "lora");
    bool more = is_given(lora, "alpha") || is_given(lora, "targets") || json_is_true(json_object_get(lora, "rs"));
    if (!is_given(lora, "rank") && json_is_true(json_object_get(model, "keep_blocks")))
        return REJECT(b, ERR_DATA, "model.keep_blocks", "'model.keep_blocks': only weights that an adapter leaves as they are stay in blocks; "
                                                        "give 'model.lora'");
    if (!is_given(lora, "rank"))
        return !more || REJECT(b, ERR_DATA, "model.lora", "'model.lora': missing key 'rank', which makes an adapter");
    if (!is_given(model, "path"))
        return REJECT(b, ERR_DATA, "model.lora", "'model.lora': an adapter needs 'model.path', a model to be put on");
    if (!is_given(lora, "alpha")) json_object_set_new(lora, "alpha", json_real(2.0 * int_of(lora, "rank")));
    return true;
}

static bool complete_model(Build *b, Err *err) {
    json_t *m = json_object_get(b->out, "model");
    bool from_path = is_given(m, "path");
    TRY(complete_lora(b, m, err));
    if (!is_given(b->out, "chat")) json_object_set_new(b->out, "chat", json_boolean(from_path));
    for (int i = 0; from_path && i < COUNT(shape_keys); i++) {
        char path[64];
        snprintf(path, sizeof path, "model.%s", shape_keys[i]);
        if (is_given(m, shape_keys[i]))
            return REJECT(b, ERR_DATA, path, "'%s': has no effect beside 'model.path'; expected one or the other", path);
    }
    if (from_path && is_given(json_object_get(m, "experts"), "count"))
        return REJECT(b, ERR_DATA, "model.experts", "'model.experts': has no effect beside 'model.path'; expected one or the other");
    if (from_path && is_given(b->out, "characters"))
        return REJECT(b, ERR_DATA, "characters", "'characters': the model of 'model.path' brings its own vocabulary");
    if (from_path) return true;
    if (json_is_true(json_object_get(b->out, "chat")))
        return REJECT(b, ERR_DATA, "chat", "'chat': a model from scratch has no chat template, expected false");
    if (!is_given(b->out, "characters"))
        return REJECT(b, ERR_DATA, "model", "missing key 'characters': a model from scratch needs its vocabulary, such as "
                                            "\"0123456789+=\"; or give 'model.path'");
    return complete_shape(b, m, err) && complete_experts(b, m, err) && check_characters(b, err);
}

static bool check_task_weights(Build *b, Err *err) {
    double sum = 0;
    json_t *task;
    size_t i;
    json_array_foreach(json_object_get(b->out, "tasks"), i, task) {
        sum += json_number_value(json_object_get(task, "weight"));
        bool chat = json_is_true(json_object_get(b->out, "chat"));
        if (json_object_get(task, "style") && !is_given(task, "style"))
            json_object_set_new(task, "style", json_string(chat ? "words" : "plain"));
    }
    return sum > 0 || REJECT(b, ERR_DATA, "tasks", "'tasks': all weights are 0, expected one above 0 at least");
}

// A restriction of a stage has to leave something to ask.
static bool check_stage_levels(Build *b, const json_t *stage, const char *path, Err *err) {
    json_t *task, *level, *have;
    size_t i, j, k;
    json_array_foreach(json_object_get(stage, "levels"), i, level) {
        bool found = false;
        json_array_foreach(json_object_get(b->out, "tasks"), j, task) {
            json_array_foreach(json_object_get(task, "levels"), k, have) found |= json_equal(level, have);
        }
        char at[80];
        snprintf(at, sizeof at, "%s.levels", path);
        if (!found)
            return REJECT(b, ERR_DATA, at, "'levels' in %s: level %lld is in none of the recipe's tasks", path,
                          (long long)json_integer_value(level));
    }
    return true;
}

static bool check_modes(Build *b, const json_t *stage, const char *path, Err *err) {
    const json_t *modes = json_object_get(stage, "modes");
    double sum = 0;
    for (int m = 0; m < MODES; m++) sum += json_number_value(json_object_get(modes, mode_names[m]));
    char at[80];
    snprintf(at, sizeof at, "%s.modes", path);
    return fabs(sum - 1) <= 1e-9 ||
           REJECT(b, ERR_DATA, at, "'modes' in %s: found shares that sum to %.6g, expected 1", path, sum);
}

// The clip range: what the recipe says, else as wide above as below, else the loss's paper.
static void complete_epsilon(json_t *algo) {
    const char *name = json_string_value(json_object_get(algo, "loss"));
    LossKind loss = 0;
    double low, high;
    while (loss < LOSS_TERMS_ONLY && strcmp(loss_name(loss), name) != 0) loss++;
    loss_epsilon(loss, &low, &high);
    bool given = is_given(algo, "epsilon_low");
    if (!given) json_object_set_new(algo, "epsilon_low", json_real(low));
    if (is_given(algo, "epsilon_high")) return;
    if (given && loss != LOSS_CISPO_CAP) json_object_set(algo, "epsilon_high", json_object_get(algo, "epsilon_low"));
    else json_object_set_new(algo, "epsilon_high", json_real(high));
}

static double number_of(const json_t *section, const char *key) { return json_number_value(json_object_get(section, key)); }

// What contradicts itself among the hyperparameters.
static bool check_algo(Build *b, json_t *algo, const json_t *sampling, const char *path, Err *err) {
    char at[96];
    double limit = number_of(sampling, "max_tokens"), buffer = number_of(algo, "overlong_buffer");
    const char *preset = json_string_value(json_object_get(algo, "preset")), *advantage = json_string_value(json_object_get(algo, "advantage"));
    if (strcmp(preset, "dapo") == 0 && buffer == 0) // 4096 of 20480 tokens there
        json_object_set_new(algo, "overlong_buffer", json_real(floor(limit / 5)));
    snprintf(at, sizeof at, "%s.algo.overlong_buffer", path);
    if (buffer > limit)
        return REJECT(b, ERR_DATA, at, "'algo.overlong_buffer' in %s: found %g, expected at most the %g of max_tokens", path, buffer, limit);
    snprintf(at, sizeof at, "%s.algo.kl_in_reward", path);
    if (json_is_true(json_object_get(algo, "kl_in_reward")) && number_of(algo, "kl") == 0)
        return REJECT(b, ERR_DATA, at, "'algo.kl_in_reward' in %s: has no effect without 'algo.kl'", path);
    snprintf(at, sizeof at, "%s.algo.reference_every", path);
    if (int_of(algo, "reference_every") > 0 && number_of(algo, "kl") == 0)
        return REJECT(b, ERR_DATA, at, "'algo.reference_every' in %s: has no effect without 'algo.kl'", path);
    snprintf(at, sizeof at, "%s.algo.refills", path);
    if (int_of(algo, "refills") > 0 && strcmp(advantage, "batch_mean") == 0)
        return REJECT(b, ERR_DATA, at, "'algo.refills' in %s: expected 0 beside advantage = \"batch_mean\", whose baseline is no group's", path);
    return true;
}

// A budget for thinking leaves room for an answer.
static bool check_budget(Build *b, const json_t *sampling, const char *path, const char *section, Err *err) {
    char at[96];
    snprintf(at, sizeof at, "%s.%sthink_tokens", path, section);
    if (int_of(sampling, "think_tokens") == 0 || int_of(sampling, "think_tokens") < int_of(sampling, "max_tokens")) return true;
    return REJECT(b, ERR_DATA, at, "'%sthink_tokens' in %s: found %d, expected less than the %d of max_tokens", section, path,
                  int_of(sampling, "think_tokens"), int_of(sampling, "max_tokens"));
}

static bool sampling_truncates(const json_t *sampling) {
    return number_of(sampling, "temperature") > 0 && (int_of(sampling, "top_k") > 0 || number_of(sampling, "top_p") < 1 || number_of(sampling, "min_p") > 0);
}
// Samples of older weights: what makes up for them, and what can't be together.
static bool check_rollout(Build *b, const json_t *stage, const char *path, Err *err) {
    const json_t *rollout = json_object_get(stage, "rollout"), *algo = json_object_get(stage, "algo"), *correction = json_object_get(algo, "correction");
    int partial = int_of(rollout, "partial");
    char at[96];
    snprintf(at, sizeof at, "%s.rollout.partial", path);
    if (partial > int_of(stage, "prompts"))
        return REJECT(b, ERR_DATA, at, "'rollout.partial' in %s: found %d, expected at most the %d prompts", path, partial, int_of(stage, "prompts"));
    snprintf(at, sizeof at, "%s.algo.correction.level", path);
    bool corrected = strcmp(json_string_value(json_object_get(correction, "level")), "off") || strcmp(json_string_value(json_object_get(correction, "reject")), "none");
    if ((partial > 0 || int_of(rollout, "staleness") > 0) && !corrected && !strcmp(json_string_value(json_object_get(algo, "loss")), "gpg"))
        return REJECT(b, ERR_DATA, at, "'algo.correction.level' in %s: expected token or sequence, as the rollout is stale and the loss gpg has no ratio", path);
    bool int8 = strcmp(json_string_value(json_object_get(rollout, "precision")), "int8") == 0, keep = strcmp(json_string_value(json_object_get(rollout, "activations")), "keep") == 0;
    snprintf(at, sizeof at, "%s.rollout.activations", path);
    if (keep && (int8 || partial > 0 || int_of(rollout, "staleness") > 0))
        return REJECT(b, ERR_DATA, at, "'rollout.activations' in %s: found keep, expected drop or auto beside rollout.%s: what samples isn't what is trained then", path,
                      int8 ? "precision = \"int8\"" : partial > 0 ? "partial" : "staleness");
    if (keep && sampling_truncates(json_object_get(stage, "sampling")))
        return REJECT(b, ERR_DATA, at, "'rollout.activations' in %s: found keep, expected drop or auto where top_k, top_p or min_p leaves tokens out", path);
    if (!int8) return true;
    snprintf(at, sizeof at, "%s.algo.correction.level", path);
    if (!corrected)
        return REJECT(b, ERR_DATA, at, "'algo.correction.level' in %s: found off, expected token or sequence (or algo.correction.reject) beside "
                                       "rollout.precision = \"int8\", whose samples are of another policy than the one that is trained", path);
    snprintf(at, sizeof at, "%s.rollout.precision", path);
    if (json_is_true(json_object_get(json_object_get(b->out, "model"), "keep_blocks")))
        return REJECT(b, ERR_DATA, at, "'rollout.precision' in %s: expected same beside model.keep_blocks: weights in blocks have no copy in 8 bits", path);
    return true;
}

bool recipe_check_grpo(Build *b, json_t *stage, const char *path, Err *err) {
    json_t *algo = json_object_get(stage, "algo"), *sampling = json_object_get(stage, "sampling");
    char at[96];
    complete_epsilon(algo);
    TRY(check_algo(b, algo, sampling, path, err) && check_rollout(b, stage, path, err));
    const char *advantage = json_string_value(json_object_get(algo, "advantage"));
    snprintf(at, sizeof at, "%s.group_size", path);
    if (int_of(stage, "group_size") == 1 && strcmp(advantage, "batch_mean") != 0 && strcmp(advantage, "reinforce_plus_plus") != 0)
        return REJECT(b, ERR_DATA, at, "'group_size' in %s: found 1, expected an integer from 2 beside advantage = \"%s\", which compares the "
                                       "samples of a prompt", path, advantage);
    int prompts = int_of(stage, "prompts"), minibatches = int_of(algo, "minibatches");
    snprintf(at, sizeof at, "%s.algo.minibatches", path);
    if (prompts % minibatches)
        return REJECT(b, ERR_DATA, at, "'algo.minibatches' in %s: found %d, expected a divisor of the %d prompts", path,
                      minibatches, prompts);
    return recipe_check_sampling(b, stage, path, err);
}

// What a stage samples has to fit into the model, its thinking into that.
bool recipe_check_sampling(Build *b, const json_t *stage, const char *path, Err *err) {
    const json_t *model = json_object_get(b->out, "model"), *sampling = json_object_get(stage, "sampling");
    char at[96];
    snprintf(at, sizeof at, "%s.sampling.max_tokens", path);
    if (!is_given(model, "path") && int_of(sampling, "max_tokens") >= int_of(model, "max_positions"))
        return REJECT(b, ERR_DATA, at, "'sampling.max_tokens' in %s: found %d, expected less than the model's max_positions %d",
                      path, int_of(sampling, "max_tokens"), int_of(model, "max_positions"));
    return check_budget(b, sampling, path, "sampling.", err);
}

// "grpo", "grpo 2", ...: names tell stages apart on the ledger.
static void name_stage(json_t *stages, size_t index) {
    json_t *stage = json_array_get(stages, index);
    const char *wanted = json_string_value(json_object_get(stage, is_given(stage, "name") ? "name" : "kind"));
    char name[96];
    snprintf(name, sizeof name, "%s", wanted);
    for (size_t i = 0, copy = 2; i < index; i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(stages, i), "name")), name) == 0) {
            snprintf(name, sizeof name, "%s %zu", wanted, copy++);
            i = (size_t)-1; // the new name may be taken too
        }
    json_object_set_new(stage, "name", json_string(name));
}

static bool complete_stages(Build *b, Err *err) {
    json_t *stages = json_object_get(b->out, "stages"), *stage, *evaluate = json_object_get(b->out, "evaluate");
    int longest = 0;
    size_t i;
    json_array_foreach(stages, i, stage) {
        char path[64], at[96];
        snprintf(path, sizeof path, "stages.%zu", i + 1);
        name_stage(stages, i);
        TRY(recipe_check_from(b, stage, path, err) && check_modes(b, stage, path, err) && check_stage_levels(b, stage, path, err));
        int warmup = int_of(json_object_get(stage, "optimizer"), "warmup");
        snprintf(at, sizeof at, "%s.optimizer.warmup", path);
        if (is_given(stage, "steps") && warmup > int_of(stage, "steps"))
            return REJECT(b, ERR_DATA, at, "'optimizer.warmup' in %s: found %d, expected at most the %d steps", path, warmup,
                          int_of(stage, "steps"));
        const StageRow *row = stage_row_named(json_string_value(json_object_get(stage, "kind")));
        if (row->check) TRY(row->check(b, stage, path, err));
        int tokens = int_of(json_object_get(stage, "sampling"), "max_tokens");
        longest = tokens > longest ? tokens : longest;
    }
    set_int_default(evaluate, "max_tokens", longest ? longest : 256);
    return check_budget(b, evaluate, "evaluate", "", err);
}

static void complete_limits(Build *b) {
    json_t *limits = json_object_get(b->out, "reward_limits");
    RewardLimits d = reward_default_limits();
    set_int_default(limits, "fuel", (int64_t)d.fuel);
    set_int_default(limits, "memory_mib", (int64_t)(d.memory >> 20));
    if (!is_given(limits, "seconds")) json_object_set_new(limits, "seconds", json_real(d.seconds));
    b->r->reward_limits = d;
    b->r->reward_limits.memory = (size_t)int_of(limits, "memory_mib") << 20;
}

// ---- files -----------------------------------------------------------------------------------------------
// A relative path as seen from `first`, or from `second` if only that one leads to something.
// ---- storing ---------------------------------------------------------------------------------------------
// The recipe's words for the correction, in the form that correction_compute takes.
static void complete_correction(Stage *stage) {
    static const Pool pools[] = {POOL_TOKEN, POOL_SUM, POOL_MEAN};
    Correction *c = &stage->algo.correction;
    if (c->high == 0) c->high = INFINITY;
    if (stage->reject == 0) return;
    int which = stage->reject - 1; // token, seq_sum, seq_mean with k1 k2 k3; seq_max with k2 k3
    Rejection *r = &c->rejections[c->rejection_count++];
    r->pool = which < 9 ? pools[which / 3] : POOL_MAX;
    r->statistic = which < 9 ? (Statistic)(which % 3) : which == 9 ? STATISTIC_K2 : STATISTIC_K3;
    r->low = -INFINITY, r->high = stage->reject_high;
    if (r->statistic != STATISTIC_K1) return;
    r->low = exact_log(stage->reject_low > 0 ? stage->reject_low : 1 / stage->reject_high), r->high = exact_log(stage->reject_high);
}

bool recipe_samples_int8(const Recipe *r) {
    bool any = false;
    for (int i = 0; i < r->stage_count; i++) any |= r->stages[i].rollout_precision == ROLLOUT_INT8;
    return any;
}

static bool store_stages(Build *b, Err *err) {
    Recipe *r = b->r;
    const json_t *list = json_object_get(b->out, "stages");
    r->stage_count = (int)json_array_size(list);
    r->stages = ARENA_NEW(&r->arena, Stage, r->stage_count);
    for (int i = 0; i < r->stage_count; i++) {
        const json_t *from = json_array_get(list, (size_t)i);
        Stage *stage = &r->stages[i];
        const StageRow *row = stage_row_named(json_string_value(json_object_get(from, "kind")));
        stage->kind = (StageKind)(row - stage_rows);
        stage->microbatch_tokens = int_of(b->out, "microbatch_tokens");
        stage->algo = algo_default();
        recipe_store(row->keys, from, stage, &r->arena);
        complete_correction(stage);
        TRY(recipe_locate_stage_files(b, stage, i, err));
        if (!stage->algo.objective) continue;
        char at[64];
        const char *path;
        snprintf(at, sizeof at, "stages.%d.algo.objective", i + 1);
        TRY(recipe_locate_input(b, at, "objective", stage->algo.objective, &path, err));
        stage->algo.objective = (char *)(uintptr_t)path;
    }
    return true;
}

// Half of a head's columns are rotated, an even number; values are as wide as a head.
static void store_experts(Recipe *r, int dense_layers) {
    ModelConfig *c = &r->config;
    int32_t rotated = c->head_width / 4 * 2;
    snprintf(c->model_type, sizeof c->model_type, "deepseek_v3");
    c->experts.shared *= c->experts.feed_forward;
    c->experts.group_best = c->experts.count / c->experts.groups > 1 ? 2 : 1;
    c->experts.sigmoid = c->experts.normalise = c->experts.correction = true;
    c->latent.P = c->rotary_width = rotated, c->latent.N = c->head_width - rotated, c->latent.V = c->head_width;
    c->latent.interleaved = true;
    c->kv_heads = c->heads;
    for (int i = dense_layers; i < c->layers; i++) c->layer[i] |= LAYER_EXPERTS;
}

static void store_config(Recipe *r, const json_t *model) {
    ModelConfig *c = &r->config;
    const json_t *dense = json_object_get(json_object_get(model, "experts"), "dense_layers");
    snprintf(c->model_type, sizeof c->model_type, "llama");
    if (c->experts.count) store_experts(r, (int)json_integer_value(dense));
    c->norm_eps = 1e-5;
    c->rope[0].theta = 10000;
    c->initializer_range = 0.02;
    c->tied = true;
    c->bos_id = c->pad_id = -1;
    c->stop_ids[0] = 0; // <eos> of a character vocabulary
    c->stop_count = 1;
}

static bool store(Build *b, Err *err) {
    Recipe *r = b->r;
    recipe_store(recipe_fields, b->out, r, &r->arena);
    r->lora.seed = r->seed;
    if (r->model_path)
        r->model_path = recipe_locate(&r->arena, ".", r->folder, r->model_path);
    else
        store_config(r, json_object_get(b->out, "model"));
    return recipe_store_tasks(b, err) && recipe_store_rewards(b, err) && store_stages(b, err);
}

// Moves what doesn't enter the hash under "outside" and hashes the rest.
static void seal(Build *b) {
    json_t *outside = json_object();
    for (const Field *f = recipe_fields; f->key; f++)
        if (f->outside) {
            json_object_set(outside, f->key, json_object_get(b->out, f->key));
            json_object_del(b->out, f->key);
        }
    Buf text = {0};
    json_write(b->out, &text);
    sha256_hex(text.data, text.size, b->r->hash);
    buf_free(&text);
    char *whole = realpath(b->r->path, NULL); // so that a run finds its scripts and data from anywhere
    json_object_set_new(outside, "recipe", json_string(whole ? whole : b->r->path));
    free(whole);
    json_object_set_new(b->out, "outside", outside);
    b->r->resolved = json_incref(b->out);
}

// ---- reading ---------------------------------------------------------------------------------------------
static bool build(Build *b, const char *const *sets, Err *err) {
    static const char *const lists[] = {"tasks", "rewards", "stages"};
    if (!json_is_object(b->raw) || json_object_get(b->raw, "$1"))
        return REJECT(b, ERR_DATA, "", "found a list, expected a table with named keys: name=, tasks=, stages=, ...");
    for (int i = 0; i < COUNT(lists); i++) recipe_name_elements(json_object_get(b->raw, lists[i]));
    for (; sets && *sets; sets++) TRY(recipe_apply_set(b->raw, *sets, err));
    TRY(share_sections(b, err));
    for (size_t i = 0; i < json_array_size(json_object_get(b->raw, "stages")); i++)
        preset_apply(json_array_get(json_object_get(b->raw, "stages"), i));
    TRY(recipe_resolve_section(&b->reading, recipe_fields, b->raw, "", NULL, b->out, err));
    TRY(recipe_resolve_tasks(b, err));
    TRY(recipe_resolve_rewards(b, err));
    Variant kinds[STAGE_KINDS + 1] = {0};
    for (int i = 0; i < STAGE_KINDS; i++) kinds[i] = (Variant){stage_rows[i].name, stage_rows[i].keys};
    TRY(recipe_resolve_variants(b, "stages", "stage", "grpo{steps=100}", kinds, err));
    TRY(complete_name(b, err) && complete_model(b, err) && check_task_weights(b, err) && complete_stages(b, err));
    complete_limits(b);
    TRY(store(b, err));
    seal(b);
    return true;
}

static char *folder_of(Arena *arena, const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = arena_strdup(arena, slash ? path : ".");
    if (slash) folder[slash == path ? 1 : slash - path] = 0;
    return folder;
}

// Builds from b->raw and lets go of everything but the recipe.
static bool finish(Build *b, bool ok, const char *const *sets, Recipe **out, Err *err) {
    ok = ok && build(b, sets, err);
    json_decref(b->raw);
    json_decref(b->out);
    recipe_lines_free(b->reading.lines);
    *out = ok ? b->r : NULL;
    if (!ok) recipe_free(b->r);
    return ok;
}

static Build start(const char *path, const char *recipe_path, const char *text, size_t size) {
    Build b = {.reading = {path, recipe_lines_read(text, size)}, .out = json_object(), .r = xcalloc(1, sizeof(Recipe))};
    b.r->path = arena_strdup(&b.r->arena, recipe_path);
    b.r->folder = folder_of(&b.r->arena, recipe_path);
    return b;
}

bool recipe_read(const char *path, const char *const *sets, Recipe **out, Err *err) {
    const char *constructors[STAGE_KINDS + 1] = {0};
    Buf text;
    for (int i = 0; i < STAGE_KINDS; i++) constructors[i] = stage_rows[i].name;
    *out = NULL;
    TRY(file_read(path, RECIPE_BYTES, &text, err));
    Build b = start(path, path, text.data, text.size);
    buf_free(&text);
    return finish(&b, sandbox_eval_file(path, constructors, NULL, &b.raw, err), sets, out, err);
}

// ---- the recipe of a run ---------------------------------------------------------------------------------
static bool unseal(json_t *resolved, const char *path, const char *run_folder, char **recipe_path, Err *err) {
    json_t *outside = json_object_get(resolved, "outside");
    if (!json_is_object(outside)) return fail(err, ERR_DATA, path, "lacks 'outside', expected a resolved recipe");
    const char *recipe = json_string_value(json_object_get(outside, "recipe"));
    *recipe_path = xstrdup(recipe ? recipe : path);
    json_object_update_missing(resolved, outside);
    json_object_del(resolved, "outside");
    json_object_del(resolved, "recipe");
    json_object_set_new(resolved, "run", json_string(run_folder)); // where it is now
    recipe_unname_elements(json_object_get(resolved, "tasks"), "kind");
    recipe_unname_elements(json_object_get(resolved, "rewards"), "script");
    json_t *stages = json_object_get(resolved, "stages");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        json_t *stage = json_array_get(stages, i);
        if (json_object_get(stage, "kind")) json_object_set(stage, "$kind", json_object_get(stage, "kind"));
        json_object_del(stage, "kind");
    }
    return true;
}

bool recipe_of_run(const char *run_folder, Recipe **out, Err *err) {
    char *path = path_join(run_folder, "recipe.resolved.json"), *recipe_path = NULL;
    json_t *resolved = NULL;
    *out = NULL;
    bool ok = json_read_file(path, 16 * RECIPE_BYTES, &resolved, err) &&
              unseal(resolved, path, run_folder, &recipe_path, err);
    if (ok) {
        Build b = start(path, recipe_path, "", 0);
        b.raw = json_incref(resolved);
        ok = finish(&b, true, NULL, out, err);
    }
    json_decref(resolved);
    free(recipe_path);
    free(path);
    return ok;
}

void recipe_free(Recipe *r) {
    if (!r) return;
    json_decref(r->resolved);
    arena_reset(&r->arena);
    free(r);
}
