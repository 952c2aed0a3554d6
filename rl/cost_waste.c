// FLOPs that had no effect, from the shapes of what was sampled and the model's configuration; and what is known of the cost of the
// weights that a run began with: from their own run's ledger, from the card that lies beside them, or nothing.
#include "cost_parts.h"
#include "files.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_POSITIONS = 1 << 20, DEEPEST_BASE = 8 };

// ---- sampling that taught nothing ------------------------------------------------------------------------
// FLOPs of the first n tokens of a sequence, with the head for each and without: [positions + 1].
typedef struct Prefix {
    double *with_head, *without;
    int64_t count;
} Prefix;
static void prefix_grow(Prefix *p, const ModelConfig *c, int64_t count) {
    if (count <= p->count && p->with_head) return;
    p->with_head = xrealloc(p->with_head, (size_t)(count + 1) * sizeof(double)), p->without = xrealloc(p->without, (size_t)(count + 1) * sizeof(double));
    if (p->count == 0) p->with_head[0] = p->without[0] = 0;
    for (int64_t i = p->count + 1; i <= count; i++) {
        p->with_head[i] = p->with_head[i - 1] + config_flops(c, (double)i, true);
        p->without[i] = p->without[i - 1] + config_flops(c, (double)i, false);
    }
    p->count = count;
}

static bool newest_config(const char *run_folder, ModelConfig *out) {
    char *folder = path_join(run_folder, "checkpoints");
    long long newest = -1;
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        long long step;
        char rest;
        if (sscanf(entry->d_name, "step-%lld%c", &step, &rest) == 1 && step > newest) newest = step;
    }
    if (d) closedir(d);
    char *checkpoint = xasprintf("%s/step-%lld", folder, newest);
    bool ok = newest >= 0 && policy_read_config(checkpoint, out, NULL);
    free(checkpoint), free(folder);
    return ok;
}

// A prompt is computed once for its group; a sample's tokens but the last are fed back. `sums`: flat groups, cut off, unscored.
static bool sum_waste(const Ledger *l, const ModelConfig *c, double sums[3], Err *err) {
    sqlite3_stmt *s;
    Prefix p = {0};
    static const char sql[] =
        "SELECT p.has_variance OR t.kind <> 'grpo', s.finish = 'length', s.verdict <> 'scored', length(p.ids) / 4, coalesce(length(s.course) / 4, s.tokens), s.sample = "
        "(SELECT min(sample) FROM samples AS f WHERE f.step = s.step AND f.prompt = s.prompt) FROM samples AS s JOIN prompts AS p USING (step, prompt) "
        "JOIN steps AS t USING (step) WHERE s.logprobs IS NOT NULL"; // an endpoint's cost no FLOPs here; only GRPO needs a variance
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        int64_t prompt = column_int(s, 3), tokens = column_int(s, 4), end = prompt + (tokens > 0 ? tokens - 1 : 0);
        bool flat = !column_int(s, 0), cut_off = column_int(s, 1), unscored = column_int(s, 2);
        if (prompt < 0 || tokens < 0 || end > MOST_POSITIONS || (!flat && !cut_off && !unscored)) continue;
        prefix_grow(&p, c, end);
        double flops = p.with_head[end] - p.with_head[prompt];
        if (flat && column_int(s, 5) && prompt > 0) flops += p.without[prompt - 1] + config_flops(c, (double)prompt, true);
        sums[flat ? 0 : cut_off ? 1 : 2] += flops;
    }
    sqlite3_finalize(s);
    free(p.with_head), free(p.without);
    return ok;
}

bool wasted_flops(const Ledger *l, const char *run_folder, double repeated, double total, json_t **out, Err *err) {
    static const char *const names[] = {"groups_without_variance", "truncated_samples", "unscored_samples"};
    ModelConfig config;
    double sums[3] = {0}, all = repeated;
    int64_t samples = 0;
    *out = NULL;
    TRY(ledger_integer(l, "SELECT count(*) FROM samples WHERE logprobs IS NOT NULL", 0, 0, &samples, err));
    bool known = samples == 0 || newest_config(run_folder, &config);
    if (known && samples) TRY(sum_waste(l, &config, sums, err));
    *out = json_pack("{s:o}", "repeated", figure(repeated, "computed", "not known"));
    for (int i = 0; i < COUNT(names); i++) {
        all += known ? sums[i] : NAN;
        json_object_set_new(*out, names[i], figure(known ? sums[i] : NAN, "computed", "not known"));
    }
    json_object_set_new(*out, "all", figure(all, "computed", "not known"));
    json_object_set_new(*out, "share", figure(total > 0 ? all / total : NAN, "computed", "not known"));
    return true;
}

// ---- the base model --------------------------------------------------------------------------------------
// "key: value" of a card's front matter, also where it is nested; the value is the caller's. NULL: not there.
static char *card_value(const char *card, const char *key) {
    const char *end = strncmp(card, "---\n", 4) ? NULL : strstr(card + 4, "\n---");
    size_t length = strlen(key);
    for (const char *line = end ? card + 4 : NULL; line && line < end;) {
        const char *next = strchr(line, '\n'), *start = line + strspn(line, " ");
        if (!strncmp(start, key, length) && start[length] == ':') {
            const char *value = start + length + 1;
            value += strspn(value, " \"'");
            size_t n = strcspn(value, "\n#\"'");
            while (n > 0 && value[n - 1] == ' ') n--;
            return n && n < 200 ? xstrndup(value, n) : NULL;
        }
        line = next && next < end ? next + 1 : NULL;
    }
    return NULL;
}
static json_t *card_figure(const char *card, const char *key) {
    char *text = card_value(card, key), *end = text;
    double value = text ? strtod(text, &end) : NAN;
    bool whole = text && end != text && !*end && isfinite(value);
    free(text);
    return figure(whole ? value : NAN, "stated", "not known");
}

static json_t *of_card(const char *path) {
    char *file = path_join(path, "README.md");
    Buf card;
    bool there = file_is_folder(path) && file_read(file, 4 << 20, &card, NULL);
    free(file);
    const char *text = there && card.data ? card.data : "";
    char *hardware = card_value(text, "hardware_used");
    json_t *device = hardware ? json_string(hardware) : NULL;
    json_t *out = json_pack("{s:o,s:s,s:o,s:o,s:o,s:o}", "path", json_string(path) ?: json_string("(not UTF-8)"), "source", there ? "card" : "none", "hours",
                            card_figure(text, "training_hours"), "flops", card_figure(text, "training_flops"), "co2_grams", card_figure(text, "emissions"),
                            "hardware", device ? device : json_string("not known"));
    free(hardware);
    if (there) buf_free(&card);
    return out;
}

// A checkpoint that lies in another run's folder: RUN of "RUN/checkpoints/step-N", the caller's, or NULL.
static char *run_of(const char *path) {
    const char *found = NULL;
    for (const char *at = path; (at = strstr(at, "/checkpoints/step-")); at++) found = at;
    char *run = found ? xstrndup(path, (size_t)(found - path)) : NULL, *ledger = run ? path_join(run, "ledger.db") : NULL;
    bool there = ledger && file_exists(ledger);
    free(ledger);
    if (!there) free(run), run = NULL;
    return run;
}

json_t *base_model(const json_t *recipe, int depth) {
    const char *path = json_string_value(json_object_get(json_object_get(recipe, "model"), "path"));
    if (!path) return json_null();
    char *run = depth < DEEPEST_BASE ? run_of(path) : NULL;
    json_t *cost = NULL, *out;
    if (run && cost_run_at(run, depth + 1, &cost, NULL)) {
        out = json_pack("{s:s,s:s,s:O,s:O?}", "path", path, "source", "ledger", "total", json_object_get(cost, "total"), "base_model",
                        json_object_get(cost, "base_model"));
    } else {
        out = of_card(path);
    }
    json_decref(cost);
    free(run);
    return out;
}
