// Rejection sampling. A step samples completions of the tasks' prompts and scores them with the recipe's rewards, as GRPO does, and
// trains on nothing. The stage's end reads all its samples back from the ledger, keeps the best of each prompt, leaves out
// near-duplicates, and writes the rows with where each came from: aside, synced, renamed, its hash and its counts on the ledger.
// So the file is a function of the ledger, and a run that was killed at any point makes the same one.
//
// A sample that was cut off, that could not be scored or that repeats another is never kept, however good its score.
#include "accounts.h"
#include "data.h"
#include "files.h"
#include "ledger_rows.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- sampling --------------------------------------------------------------------------------------------
bool reject_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) {
    (void)stage; // the batch knows it
    Trainer sampler = *t;
    if (t->teacher) sampler.policy = t->teacher;
    report->loss = report->learning_rate = report->gradient_norm = report->kl = report->clip_share = report->ratio_max = NAN;
    return sample_and_score(&sampler, batch, report, err);
}

// ---- choosing --------------------------------------------------------------------------------------------
// The stage's rows in the making.
typedef struct Choice {
    const Trainer *t;
    const Stage *stage;
    NearDuplicates *kept;
    Buf rows;
    char model[65], tokenizer[65]; // model: empty where another program's answers are sampled
    int64_t sampled, unscored, cut_off, below, duplicates, surplus, prompts, prompts_kept, count;
} Choice;

typedef struct Sample { // one that may be kept
    int64_t sample;
    double score;
    int64_t tokens;
    uint32_t drawn; // random order
    char *text;
    int32_t *ids; // [count] as the ledger has them: a given one as -1 - id
    int64_t count;
} Sample;

static int compare_samples(const void *a, const void *b) {
    const Sample *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->tokens != y->tokens) return x->tokens < y->tokens ? -1 : 1;
    if (x->drawn != y->drawn) return x->drawn < y->drawn ? -1 : 1;
    return x->sample < y->sample ? -1 : x->sample > y->sample;
}

// Column `ids` where nothing was given, else `course`.
static void take_ids(sqlite3_stmt *s, Sample *out) {
    int column = sqlite3_column_type(s, 6) == SQLITE_BLOB ? 6 : 5;
    const void *data = sqlite3_column_blob(s, column);
    size_t size = data ? (size_t)sqlite3_column_bytes(s, column) : 0;
    out->count = (int64_t)(size / sizeof *out->ids);
    out->ids = xmalloc(size + 1);
    if (data) memcpy(out->ids, data, size);
}

// Samples of one prompt that reach the threshold, in the order in which they are kept.
static bool read_samples(Choice *c, int64_t step, int64_t prompt, Sample **out, int *count, Err *err) {
    const Stage *stage = c->stage;
    sqlite3_stmt *s;
    bool ok = ledger_query(c->t->ledger, "SELECT sample, finish, verdict, reward, tokens, ids, course, completion FROM samples WHERE step = ? AND prompt = ? "
                           "ORDER BY sample", step, prompt, &s, err), more = true;
    *out = xcalloc((size_t)stage->group_size, sizeof **out);
    *count = 0;
    while (ok && (ok = ledger_next(c->t->ledger, s, &more, err)) && more) {
        c->sampled++;
        if (strcmp(column_string(s, 2), verdict_state_names[VERDICT_SCORED])) c->unscored++;
        else if (strcmp(column_string(s, 1), "stop")) c->cut_off++;
        else if (!(column_real(s, 3) >= stage->threshold)) c->below++;
        else if (*count < stage->group_size) {
            Sample *sample = &(*out)[(*count)++];
            uint32_t bits[4];
            random_bits(random_key(c->t->recipe->seed, STREAM_SHUFFLE), (uint32_t[]){(uint32_t)step, (uint32_t)column_int(s, 0), 0, 2}, bits);
            *sample = (Sample){.sample = column_int(s, 0), .score = column_real(s, 3), .drawn = bits[0], .text = xstrdup(column_string(s, 7))};
            sample->tokens = stage->choose == 0 ? column_int(s, 4) : stage->choose == 1 ? -column_int(s, 4) : 0;
            take_ids(s, sample);
        }
    }
    sqlite3_finalize(s);
    qsort(*out, (size_t)*count, sizeof **out, compare_samples);
    return ok;
}

// ---- rows ------------------------------------------------------------------------------------------------
static void set_text(json_t *row, const char *key, const char *text, size_t size) {
    json_t *value = json_stringn(text, size);
    json_object_set_new(row, key, value ? value : json_null()); // a model's bytes may be no UTF-8: then the ids alone say it
}

static bool read_parts(const Choice *c, int64_t step, int64_t sample, json_t *parts, Err *err) {
    sqlite3_stmt *s;
    bool ok = ledger_query(c->t->ledger, "SELECT name, value FROM parts WHERE step = ? AND sample = ? ORDER BY position", step, sample, &s, err), more = true;
    while (ok && (ok = ledger_next(c->t->ledger, s, &more, err)) && more)
        json_object_set_new(parts, column_string(s, 0), json_number_or_name(column_real(s, 1)));
    sqlite3_finalize(s);
    return ok;
}

// `p` is the prompt's row on the ledger: step, prompt, kind, level, mode, text, messages, truth.
static bool write_row(Choice *c, sqlite3_stmt *p, const Sample *sample, Err *err) {
    const Recipe *r = c->t->recipe;
    json_t *row = json_object(), *ids = json_array(), *parts = json_object(), *messages = NULL;
    int64_t step = column_int(p, 0);
    bool ok = read_parts(c, step, sample->sample, parts, err);
    if (sqlite3_column_type(p, 6) == SQLITE_TEXT) ok = ok && json_parse(column_string(p, 6), strlen(column_string(p, 6)), "ledger.db", 1, &messages, err);
    if (messages) json_object_set_new(row, "messages", messages);
    else set_text(row, "prompt", column_string(p, 5), strlen(column_string(p, 5)));
    TextSpan thinking, answer;
    completion_cut(sample->text, strlen(sample->text), strcmp(column_string(p, 4), mode_names[MODE_THINK]) == 0, &thinking, &answer);
    set_text(row, "completion", sample->text, strlen(sample->text));
    set_text(row, "thinking", thinking.data, thinking.size);
    set_text(row, "answer", answer.data, answer.size);
    set_text(row, "truth", column_string(p, 7), strlen(column_string(p, 7)));
    set_text(row, "kind", column_string(p, 2), strlen(column_string(p, 2)));
    json_object_set_new(row, "level", json_integer(column_int(p, 3)));
    json_object_set_new(row, "mode", json_string(column_string(p, 4)));
    for (int64_t i = 0; i < sample->count; i++) json_array_append_new(ids, json_integer(sample->ids[i]));
    json_object_set_new(row, "ids", ids);
    json_object_set_new(row, "tokenizer", json_string(c->tokenizer));
    json_t *origin = json_pack("{s:s?,s:s,s:I,s:s,s:I,s:I,s:I,s:o,s:O}", "model", c->model[0] ? c->model : NULL, "recipe", r->hash, "seed", (json_int_t)r->seed,
                               "stage", c->stage->name, "step", (json_int_t)step, "prompt", (json_int_t)column_int(p, 1), "sample",
                               (json_int_t)(sample->sample % c->stage->group_size), "score", json_number_or_name(sample->score), "parts", parts);
    if (!c->model[0]) json_object_set_new(origin, "endpoint", teacher_endpoint_name(c->stage));
    json_object_set_new(row, "origin", origin);
    json_decref(parts);
    if (ok) json_write(row, &c->rows), buf_puts(&c->rows, "\n");
    json_decref(row);
    c->count++;
    return ok;
}

static bool choose_samples(Choice *c, sqlite3_stmt *p, Err *err) {
    Sample *samples;
    int count, kept = 0;
    bool ok = read_samples(c, column_int(p, 0), column_int(p, 1), &samples, &count, err);
    const char *question = sqlite3_column_type(p, 6) == SQLITE_TEXT ? column_string(p, 6) : column_string(p, 5);
    for (int i = 0; ok && i < count; i++) {
        if (kept == c->stage->keep) c->surplus++;
        else if (near_duplicates_has(c->kept, question, samples[i].text)) c->duplicates++;
        else ok = write_row(c, p, &samples[i], err), kept++;
    }
    for (int i = 0; i < count; i++) free(samples[i].text), free(samples[i].ids);
    free(samples);
    c->prompts++;
    c->prompts_kept += kept > 0;
    return ok;
}

// ---- the file --------------------------------------------------------------------------------------------
char *data_file_name(const Recipe *r, const Stage *stage) {
    char *name = xasprintf("data/%d-%s.jsonl", (int)(stage - r->stages) + 1, stage->name);
    for (char *c = strchr(name, '/') + 1; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c)) *c = '_';
    return name;
}

static bool write_file(const Choice *c, int64_t last, EnergyMark before, Err *err) {
    const Recipe *r = c->t->recipe;
    char *name = data_file_name(r, c->stage), *path = path_join(r->run_folder, name), *folder = path_join(r->run_folder, "data"), hash[65];
    sha256_hex(c->rows.data, c->rows.size, hash);
    bool ok = folder_make(folder, err) && folder_sync(r->run_folder, err) && file_write_atomic(path, c->rows.data, c->rows.size, err);
    json_t *record = json_pack("{s:s,s:s,s:s,s:s?,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "stage", c->stage->name, "file", name, "sha256", hash, "model",
                               c->model[0] ? c->model : NULL, "rows", (json_int_t)c->count, "sampled", (json_int_t)c->sampled, "unscored", (json_int_t)c->unscored, "cut_off",
                               (json_int_t)c->cut_off, "below_threshold", (json_int_t)c->below, "duplicates", (json_int_t)c->duplicates, "surplus",
                               (json_int_t)c->surplus, "prompts", (json_int_t)c->prompts, "prompts_kept", (json_int_t)c->prompts_kept);
    if (!c->model[0]) json_object_set_new(record, "endpoint", teacher_endpoint_name(c->stage));
    json_t *measured = energy_spent(c->t->energy, before);
    ok = ok && ledger_evaluation(c->t->ledger, last, DATA_RECORD, record, measured, err);
    json_decref(record), json_decref(measured);
    if (ok)
        log_line(LOG_INFO, "%s: %lld rows of %lld samples in %s (%lld below the threshold, %lld cut off, %lld unscored, %lld near-duplicates, %lld more than "
                 "%d a prompt; %lld of %lld prompts)", c->stage->name, (long long)c->count, (long long)c->sampled, path, (long long)c->below, (long long)c->cut_off,
                 (long long)c->unscored, (long long)c->duplicates, (long long)c->surplus, c->stage->keep, (long long)c->prompts_kept, (long long)c->prompts);
    free(name), free(path), free(folder);
    return ok;
}

bool reject_end(const Trainer *t, const Stage *stage, int64_t first, int64_t last, Err *err) {
    const Policy *sampler = t->teacher ? t->teacher : t->policy;
    Choice c = {.t = t, .stage = stage};
    EnergyMark before = energy_mark(t->energy);
    sqlite3_stmt *p;
    TRY(t->endpoint || policy_hash(sampler, c.model, err));
    tokenizer_hash(policy_tokenizer(sampler), c.tokenizer);
    c.kept = near_duplicates_open(stage->ngram, stage->similarity);
    bool ok = ledger_query(t->ledger, "SELECT step, prompt, kind, level, mode, text, messages, truth FROM prompts WHERE step BETWEEN ? AND ? ORDER BY step, prompt",
                           first, last, &p, err), more = true;
    while (ok && (ok = ledger_next(t->ledger, p, &more, err)) && more) ok = choose_samples(&c, p, err);
    sqlite3_finalize(p);
    if (ok && c.count == 0)
        ok = fail(err, ERR_FAILED, stage->name, "none of %lld samples can be kept: %lld score below the threshold of %g, %lld are cut off, %lld unscored; "
                  "a lower threshold, more steps or a policy that has learned more would keep some", (long long)c.sampled, (long long)c.below,
                  stage->threshold, (long long)c.cut_off, (long long)c.unscored);
    ok = ok && write_file(&c, last, before, err);
    near_duplicates_close(c.kept);
    buf_free(&c.rows);
    return ok;
}
