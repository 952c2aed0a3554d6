// Reading a run's ledger for what is wrong with its training, and what to change: one row of `symptoms` each, a function over
// the stage's steps that says what it saw. Beginnings and ends are the first and last quarter of a stage; nothing is said of a
// stage of fewer than 8 steps. Thresholds stand in the functions; they are rules of thumb, and the evidence is told with them.
#include "accounts.h"
#include "data.h"
#include "files.h"
#include "ledger_rows.h"
#include "stages.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Columns of `steps`, in the order of the query.
enum { C_REWARD, C_STD, C_ENTROPY, C_KL, C_CLIP, C_RATIO, C_LENGTH, C_TRUNCATED, C_NORM, C_LOSS, C_FLAT, C_FAILED, C_SKIPPED, C_RATE, C_STALE, C_LAG, C_CORRECTED, COLUMNS };
static const char steps_sql[] =
    "SELECT step, reward_mean, reward_std, entropy, kl, clip_share, ratio_max, length_mean, truncated_share, gradient_norm, loss, "
    "1.0 * groups_without_variance / nullif(group_count, 0), 1.0 * (error + budget + killed) / nullif(scored + abstained + error + budget + killed, 0), "
    "skipped, learning_rate, stale_tokens / nullif(length_mean * (scored + abstained + error + budget + killed), 0), staleness, corrected_share FROM steps WHERE stage_index = ?1 ORDER BY step";
enum { LEAST_STEPS = 8 };

typedef struct Trace {
    const Ledger *ledger;
    const json_t *stage; // of the resolved recipe
    char name[64];
    double *column[COLUMNS]; // [count]
    int count, capacity;
    int64_t first_step, last_step;
    double solved;           // share of samples that reached the best reward among groups without variance, NaN without such
    double before, after;    // held-out accuracy at the stage's start and end, NaN where not evaluated
    double items;            // evaluated at its end
    double sampler_gap;      // mean |logprob of the policy - of the sampler|; NaN where nothing is corrected
    double idle_experts;     // share of the experts that got less than a tenth of the mean at the end; NaN without experts
} Trace;

// ---- figures ---------------------------------------------------------------------------------------------
static double mean_of(const Trace *t, int column, int from, int to) {
    double sum = 0;
    int n = 0;
    for (int i = from; i < to; i++)
        if (isfinite(t->column[column][i])) sum += t->column[column][i], n++;
    return n ? sum / n : NAN;
}
static double start_of(const Trace *t, int column) { return mean_of(t, column, 0, t->count / 4); }
static double end_of(const Trace *t, int column) { return mean_of(t, column, t->count - t->count / 4, t->count); }
static double gain_of(const Trace *t, int column) { return end_of(t, column) - start_of(t, column); }
static double setting(const Trace *t, const char *section, const char *key) {
    const json_t *o = section ? json_object_get(t->stage, section) : t->stage, *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}
// What noise would do to the difference of two quarters' mean rewards, two standard errors.
static double noise_of(const Trace *t, int column) {
    int n = t->count / 4;
    double m = end_of(t, column), sum = 0;
    for (int i = t->count - n; i < t->count; i++) sum += (t->column[column][i] - m) * (t->column[column][i] - m);
    return n > 1 ? 2 * sqrt(2 * sum / (n - 1) / n) : NAN;
}

// ---- symptoms --------------------------------------------------------------------------------------------
// True with what was seen in `seen` and what to change in `change`.
typedef bool (*Look)(const Trace *t, Buf *seen, Buf *change);

static bool flat_groups(const Trace *t, Buf *seen, Buf *change) {
    double share = end_of(t, C_FLAT);
    if (!(share > 0.5)) return false;
    buf_printf(seen, "%.0f %% of the groups at the end have samples of one reward only, so they teach nothing", 100 * share);
    if (t->solved > 0.5)
        buf_puts(change, "the problems have become too easy: ask higher levels, or replace such groups (algo.refills)");
    else if (isfinite(t->solved))
        buf_puts(change, "the problems are too hard, no sample is right: ask lower levels, sample larger groups (group_size), or begin with sft");
    else
        buf_puts(change, "ask levels that some samples get right and some wrong, or replace such groups (algo.refills)");
    return true;
}
static bool entropy_collapse(const Trace *t, Buf *seen, Buf *change) {
    double first = start_of(t, C_ENTROPY), last = end_of(t, C_ENTROPY);
    if (!(last < 0.15 * first) || gain_of(t, C_REWARD) > 0.1 || end_of(t, C_FLAT) < 0.3) return false;
    buf_printf(seen, "entropy fell from %.3g to %.3g nats a token while the reward moved by %+.3f: the policy stopped exploring", first, last, gain_of(t, C_REWARD));
    buf_printf(change, "a lower learning rate than %g, an entropy bonus (algo.entropy), a higher upper clip (algo.epsilon_high), or a higher temperature",
               setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool entropy_explosion(const Trace *t, Buf *seen, Buf *change) {
    double first = start_of(t, C_ENTROPY), last = end_of(t, C_ENTROPY);
    if (!(last > 2 * first && last - first > 0.3) || gain_of(t, C_REWARD) > 0) return false;
    buf_printf(seen, "entropy rose from %.3g to %.3g nats a token and the reward moved by %+.3f: the policy is becoming noise", first, last, gain_of(t, C_REWARD));
    buf_printf(change, "a lower learning rate than %g, or less entropy bonus", setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool longer_not_better(const Trace *t, Buf *seen, Buf *change) {
    double first = start_of(t, C_LENGTH), last = end_of(t, C_LENGTH);
    if (!(last > 1.5 * first && last - first > 8) || gain_of(t, C_REWARD) > 0.03) return false;
    buf_printf(seen, "completions grew from %.0f to %.0f tokens while the reward moved by %+.3f", first, last, gain_of(t, C_REWARD));
    buf_puts(change, "a price for tokens (the rewards `cost` or `length`), a loss that doesn't favour long samples (algo.loss = \"dr_grpo\"), or a smaller max_tokens");
    return true;
}
static bool reward_hacking(const Trace *t, Buf *seen, Buf *change) {
    double gain = gain_of(t, C_REWARD), held_out = t->after - t->before, noise = 2 * sqrt(0.5 / fmax(t->items, 1));
    if (!(gain > 0.1) || !(held_out < fmin(0.02, gain / 5)) || noise > gain) return false;
    buf_printf(seen, "the reward in training rose by %.3f, accuracy on held-out items went from %.1f to %.1f %%", gain, 100 * t->before, 100 * t->after);
    buf_puts(change, "read samples with high rewards in the report; try `reckon reward probe` on the reward; more data where it was passed through many times");
    return true;
}
static bool cut_off(const Trace *t, Buf *seen, Buf *change) {
    double share = end_of(t, C_TRUNCATED), most = setting(t, "sampling", "max_tokens");
    if (!(share > 0.25)) return false;
    buf_printf(seen, "%.0f %% of the samples at the end are cut off at max_tokens (%.0f)", 100 * share, most);
    buf_puts(change, "a larger sampling.max_tokens, a budget for thinking (sampling.think_tokens), or soft punishment of long samples (the reward `length`)");
    return true;
}
static bool collapse(const Trace *t, Buf *seen, Buf *change) {
    double best = -INFINITY, last = end_of(t, C_REWARD);
    int n = t->count / 4, at = 0;
    for (int i = 0; i + n <= t->count; i++) {
        double m = mean_of(t, C_REWARD, i, i + n);
        if (m > best) best = m, at = i;
    }
    if (!(best - last > 0.1) || !(best - last > 2 * noise_of(t, C_REWARD))) return false;
    buf_printf(seen, "the reward was %.3f around step %lld and is %.3f at the end", best, (long long)(t->first_step + at + n / 2), last);
    buf_printf(change, "a lower learning rate than %g, or larger groups: too large steps unlearn what was learned; an earlier checkpoint may be the better model",
               setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool too_fast(const Trace *t, Buf *seen, Buf *change) {
    double clip = end_of(t, C_CLIP), ratio = end_of(t, C_RATIO);
    if (!(clip > 0.3)) return false;
    buf_printf(seen, "%.0f %% of the tokens are clipped, ratios differ from 1 by up to %.2g", 100 * clip, ratio);
    buf_printf(change, "a lower learning rate than %g, or fewer epochs and minibatches a step", setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool nothing_moves(const Trace *t, Buf *seen, Buf *change) {
    double gain = gain_of(t, C_REWARD), entropy = fabs(gain_of(t, C_ENTROPY)) / fmax(start_of(t, C_ENTROPY), 1e-9);
    if (t->count < 20 || !(fabs(gain) < 0.01) || !(fabs(gain) <= noise_of(t, C_REWARD)) || !(entropy < 0.02) || end_of(t, C_FLAT) > 0.5 ||
        !(start_of(t, C_STD) > 0))
        return false;
    buf_printf(seen, "reward (%+.3f) and entropy (%+.1f %%) are at the end what they were at the start", gain, 100 * gain_of(t, C_ENTROPY) / start_of(t, C_ENTROPY));
    buf_printf(change, "a higher learning rate than %g, or more steps", setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool stuck_kl(const Trace *t, Buf *seen, Buf *change) {
    double weight = setting(t, "algo", "kl"), kl = end_of(t, C_KL), reach = end_of(t, C_STD);
    if (!(weight > 0) || !(weight * kl > 0.5 * reach)) return false;
    buf_printf(seen, "the divergence from the reference is %.3g nats; at the weight %g it costs %.3g, beside a spread of rewards of %.3g", kl, weight, weight * kl, reach);
    buf_puts(change, "a smaller algo.kl, or a reference that moves (algo.reference_every)");
    return true;
}
static bool failing_rewards(const Trace *t, Buf *seen, Buf *change) {
    double share = mean_of(t, C_FAILED, 0, t->count);
    if (!(share > 0.01)) return false;
    buf_printf(seen, "%.1f %% of the verdicts are errors, over budget or killed", 100 * share);
    buf_puts(change, "the reward script: `reckon report` lists the reasons, `reckon reward test` shows them");
    return true;
}
static bool skipped_steps(const Trace *t, Buf *seen, Buf *change) {
    double share = mean_of(t, C_SKIPPED, 0, t->count);
    if (!(share > 0)) return false;
    buf_printf(seen, "%.0f step(s) were skipped because a gradient was NaN or infinite", share * t->count);
    buf_printf(change, "a lower learning rate than %g, fp32 instead of bf16, or a tighter max_gradient_norm", setting(t, "optimizer", "learning_rate"));
    return true;
}
static bool dead_experts(const Trace *t, Buf *seen, Buf *change) {
    if (!(t->idle_experts > 0.1)) return false;
    buf_printf(seen, "%.0f %% of the experts got less than a tenth of the mean share of the tokens at the end", 100 * t->idle_experts);
    double bias = setting(t, "optimizer", "expert_bias_rate"), balance = setting(t, "optimizer", "router_balance");
    buf_printf(change, "optimizer.expert_bias_rate (%g) or optimizer.router_balance (%g): a larger one evens out the load; the report draws it", bias, balance);
    return true;
}
// Samples of older weights. What a bounded weight makes up for is a ratio near 1; where many ratios are far from it, or nothing is made up for
// beyond the loss's own clipping, the steps between sampling and training are too many, or too large.
static bool too_stale(const Trace *t, Buf *seen, Buf *change) {
    double share = end_of(t, C_STALE), lag = end_of(t, C_LAG), cut = end_of(t, C_CORRECTED), clip = end_of(t, C_CLIP);
    bool corrected = isfinite(cut), much = corrected ? cut > 0.1 : clip > 0.2 || lag > 4;
    if (!(share > 0.05) || !much) return false;
    buf_printf(seen, "%.0f %% of the tokens at the end are of weights up to %.0f steps older", 100 * fmin(share, 1), lag);
    if (corrected) buf_printf(seen, ", and the correction cuts back, zeroes or drops %.0f %% of all tokens", 100 * cut);
    else buf_printf(seen, ", no correction weighs them, and %.0f %% of all tokens are clipped", 100 * clip);
    buf_printf(change, "fewer steps between sampling and training (rollout.staleness, rollout.partial, rollout.carry), or a lower learning rate than %g%s",
               setting(t, "optimizer", "learning_rate"), corrected ? "" : "; algo.correction weighs such tokens");
    return true;
}
static bool rounded_samples(const Trace *t, Buf *seen, Buf *change) {
    const char *precision = json_string_value(json_object_get(json_object_get(t->stage, "rollout"), "precision"));
    if (!precision || strcmp(precision, "int8") != 0) return false;
    buf_puts(seen, "samples are drawn with weights in 8 bits, so their log-probabilities aren't the trainer's");
    if (isfinite(t->sampler_gap)) buf_printf(seen, "; they differ by %.2g nats a token on average, which algo.correction makes up for", t->sampler_gap);
    buf_puts(change, t->sampler_gap > 0.05 ? "rollout.precision = \"same\": the difference is large" : "nothing, unless the same numbers are wanted: rollout.precision = \"same\"");
    return true;
}
static bool rising_loss(const Trace *t, Buf *seen, Buf *change) { // supervised stages
    double first = start_of(t, C_LOSS), last = end_of(t, C_LOSS);
    if (!(last > first)) return false;
    buf_printf(seen, "the loss went from %.3g to %.3g", first, last);
    buf_printf(change, "a lower learning rate than %g, or a longer warm-up", setting(t, "optimizer", "learning_rate"));
    return true;
}

typedef struct Symptom {
    const char *name;
    bool supervised; // looked for in stages of supervised training; else in those that sample
    Look look;
} Symptom;
static const Symptom symptoms[] = {
    {"no variance", false, flat_groups},
    {"entropy collapse", false, entropy_collapse},
    {"entropy explosion", false, entropy_explosion},
    {"length without reward", false, longer_not_better},
    {"reward hacking", false, reward_hacking},
    {"truncation", false, cut_off},
    {"collapse", false, collapse},
    {"steps too large", false, too_fast},
    {"nothing moves", false, nothing_moves},
    {"KL too strong", false, stuck_kl},
    {"stale samples", false, too_stale},
    {"failing rewards", false, failing_rewards},
    {"rollouts in 8 bits", false, rounded_samples},
    {"dead experts", false, dead_experts},
    {"dead experts", true, dead_experts},
    {"skipped steps", false, skipped_steps},
    {"skipped steps", true, skipped_steps},
    {"rising loss", true, rising_loss},
};

// ---- reading ---------------------------------------------------------------------------------------------
static bool read_steps(Trace *t, int stage, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(t->ledger, steps_sql, stage, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(t->ledger, s, &more, err)) && more) {
        if (t->count == t->capacity) {
            t->capacity = t->capacity ? 2 * t->capacity : 256;
            for (int i = 0; i < COLUMNS; i++) t->column[i] = xrealloc(t->column[i], (size_t)t->capacity * sizeof(double));
        }
        t->last_step = column_int(s, 0);
        if (!t->count) t->first_step = t->last_step;
        for (int i = 0; i < COLUMNS; i++) t->column[i][t->count] = column_real(s, i + 1);
        t->count++;
    }
    sqlite3_finalize(s);
    return ok;
}

// Of the samples in the last quarter's groups without variance: the share with a positive reward.
static bool read_flat(Trace *t, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    t->solved = NAN;
    TRY(ledger_query(t->ledger, "SELECT avg(s.reward > 0) FROM samples s JOIN prompts p ON p.step = s.step AND p.prompt = s.prompt WHERE "
                                "s.step BETWEEN ?1 AND ?2 AND p.has_variance = 0 AND s.verdict = 'scored'",
                     t->last_step - t->count / 4, t->last_step, &s, err));
    bool ok = ledger_next(t->ledger, s, &more, err);
    if (ok && more) t->solved = column_real(s, 0);
    sqlite3_finalize(s);
    return ok;
}

// Rows of each expert ([experts] i64 a layer), added up over the last quarter.
static bool read_experts(Trace *t, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    int64_t layer = -1, sum[1024] = {0};
    double idle = 0, all = 0;
    int experts = 0;
    bool ok = ledger_query(t->ledger, "SELECT layer, load FROM step_experts WHERE step BETWEEN ?1 AND ?2 ORDER BY layer, step",
                           t->last_step - t->count / 4 + 1, t->last_step, &s, err);
    while (ok && (ok = ledger_next(t->ledger, s, &more, err))) {
        if (!more || column_int(s, 0) != layer) { // a layer is whole
            double mean = 0;
            for (int i = 0; i < experts; i++) mean += (double)sum[i] / experts;
            for (int i = 0; i < experts; i++) idle += (double)sum[i] < mean / 10, all++;
            memset(sum, 0, sizeof sum);
            experts = 0;
        }
        if (!more) break;
        layer = column_int(s, 0);
        const char *load = sqlite3_column_blob(s, 1);
        int count = sqlite3_column_bytes(s, 1) / (int)sizeof *sum;
        if (count > COUNT(sum)) count = COUNT(sum);
        for (int i = 0; load && i < count; i++) {
            int64_t rows;
            memcpy(&rows, load + (size_t)i * sizeof rows, sizeof rows);
            if (rows > 0 && rows < INT64_MAX / 1000000) sum[i] += rows;
        }
        experts = count;
    }
    sqlite3_finalize(s);
    t->idle_experts = all > 0 ? idle / all : NAN;
    return ok;
}

static bool read_gap(Trace *t, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    t->sampler_gap = NAN;
    TRY(ledger_query(t->ledger, "SELECT avg(json_extract(detail, '$.sampler_gap')) FROM events WHERE kind = 'step' AND json_valid(detail) AND "
                                "step BETWEEN ?1 AND ?2", t->first_step, t->last_step, &s, err));
    bool ok = ledger_next(t->ledger, s, &more, err);
    if (ok && more && sqlite3_column_type(s, 0) != SQLITE_NULL) t->sampler_gap = column_real(s, 0);
    sqlite3_finalize(s);
    return ok;
}

static double accuracy_of(const json_t *evaluation, double *items) {
    double correct = 0, count = 0;
    const json_t *level;
    size_t i;
    json_array_foreach(json_object_get(evaluation, "levels"), i, level) {
        count += json_number_value(json_object_get(level, "items"));
        correct += json_number_value(json_object_get(level, "items")) * json_number_value(json_object_get(level, "accuracy"));
    }
    *items = count;
    return count > 0 ? correct / count : NAN;
}
// The first evaluation at or after the stage's start (or the last one before it) and the last within it, of one name.
static bool read_accuracy(Trace *t, Err *err) {
    sqlite3_stmt *s;
    bool more = true;
    char name[64] = "";
    t->before = t->after = NAN;
    bool ok = ledger_query(t->ledger, "SELECT step, name, replayable FROM evaluations WHERE step <= ?2 AND name != 'compare' ORDER BY step, position",
                           0, t->last_step, &s, err);
    while (ok && (ok = ledger_next(t->ledger, s, &more, err)) && more) {
        json_t *evaluation = json_loads(column_string(s, 2), JSON_DECODE_ANY, NULL);
        double items, accuracy = accuracy_of(evaluation, &items);
        json_decref(evaluation);
        if (!isfinite(accuracy)) continue;
        if (!name[0]) snprintf(name, sizeof name, "%s", column_string(s, 1));
        if (strcmp(name, column_string(s, 1)) != 0) continue;
        if (column_int(s, 0) < t->first_step || !isfinite(t->before)) t->before = accuracy;
        t->after = accuracy, t->items = items;
    }
    sqlite3_finalize(s);
    return ok;
}

static void look_at(const Trace *t, bool supervised, json_t *findings) {
    for (int i = 0; i < COUNT(symptoms); i++) {
        Buf seen = {0}, change = {0};
        if (symptoms[i].supervised == supervised && symptoms[i].look(t, &seen, &change))
            json_array_append_new(findings, json_pack("{s:s,s:s,s:s,s:s}", "stage", t->name, "symptom", symptoms[i].name, "seen", seen.data, "change", change.data));
        buf_free(&seen), buf_free(&change);
    }
}

static bool diagnose_stage(const Ledger *l, const json_t *stage, int index, json_t *stages, json_t *findings, Err *err) {
    Trace t = {.ledger = l, .stage = stage};
    const char *kind = json_string_value(json_object_get(stage, "kind")), *name = json_string_value(json_object_get(stage, "name"));
    snprintf(t.name, sizeof t.name, "%s", name ? name : kind ? kind : "stage");
    text_tame(t.name);
    bool supervised = kind && strcmp(kind, "sft") == 0, ok = read_steps(&t, index, err);
    bool enough = ok && t.count >= LEAST_STEPS;
    if (enough && !supervised) ok = read_flat(&t, err) && read_accuracy(&t, err) && read_gap(&t, err);
    if (ok && enough) ok = read_experts(&t, err);
    const StageRow *row = kind ? stage_row_named(kind) : NULL;
    if (ok && enough && row && row->trains) look_at(&t, supervised, findings); // a stage that only samples can't learn wrongly
    json_t *made = NULL;
    if (ok && row && row->makes_data && name) ok = data_record(l, name, &made, err);
    if (ok && t.count) json_array_append_new(stages, json_pack("{s:s,s:i,s:b,s:O?}", "name", t.name, "steps", t.count, "looked_at", enough, "data", made));
    json_decref(made);
    for (int i = 0; i < COLUMNS; i++) free(t.column[i]);
    return ok;
}

bool diagnose_run(const char *run_folder, json_t **out, Err *err) {
    Ledger *l;
    json_t *recipe = NULL;
    char *path = path_join(run_folder, "recipe.resolved.json");
    *out = NULL;
    bool ok = json_read_file(path, 16 << 20, &recipe, err);
    free(path);
    if (!ok) return false;
    ok = ledger_open_read(run_folder, &l, err);
    json_t *stages = json_array(), *findings = json_array(), *stage;
    size_t i;
    json_array_foreach(json_object_get(recipe, "stages"), i, stage)
        if (ok) ok = diagnose_stage(l, stage, (int)i, stages, findings, err);
    ledger_close(l);
    json_decref(recipe);
    *out = json_pack("{s:o,s:o}", "stages", stages, "findings", findings);
    if (!ok) json_decref(*out), *out = NULL;
    return ok;
}

// Each sample is in one of these counts.
static void print_data(const json_t *data) {
    static const struct {
        const char *key, *words;
    } counts[] = {{"sampled", "samples"}, {"rows", "kept"}, {"below_threshold", "below the threshold"}, {"duplicates", "near-duplicates left out"},
                  {"cut_off", "cut off"}, {"unscored", "unscored"}, {"surplus", "more than one prompt may have"}};
    if (!json_is_object(data)) return;
    for (int i = 0; i < COUNT(counts); i++)
        printf("%s%lld %s", i ? ", " : "  ", (long long)json_integer_value(json_object_get(data, counts[i].key)), counts[i].words);
    printf("\n");
}

void diagnose_print(const json_t *diagnosis) {
    const json_t *entry;
    size_t i;
    json_array_foreach(json_object_get(diagnosis, "stages"), i, entry) {
        printf("%s: %lld steps%s\n", json_string_value(json_object_get(entry, "name")), (long long)json_integer_value(json_object_get(entry, "steps")),
               json_is_true(json_object_get(entry, "looked_at")) ? "" : ", too few to say anything");
        print_data(json_object_get(entry, "data"));
    }
    json_array_foreach(json_object_get(diagnosis, "findings"), i, entry)
        printf("\n%s (%s)\n  seen:   %s\n  change: %s\n", json_string_value(json_object_get(entry, "symptom")), json_string_value(json_object_get(entry, "stage")),
               json_string_value(json_object_get(entry, "seen")), json_string_value(json_object_get(entry, "change")));
    if (json_array_size(json_object_get(diagnosis, "findings")) == 0) printf("nothing wrong was found\n");
}
