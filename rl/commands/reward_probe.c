// reward probe: what does a reward let through? For each row of the data it scores a right answer and a dozen kinds of
// junk that a policy could drift into, and counts the junk that scores above a share of what the right answer scores.
// Where a right answer scores 0 or less (a penalty), junk must not score above it.
#include "reward_command.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_LIMIT = 64 << 20, LONG_WORDS = 4000 };
static const double TINY = 1e-9;

typedef struct Row {
    json_t *data;
    char *truth; // as text
    const char *prompt;
} Row;
typedef struct Rows {
    const char *path;
    Row *list;
    int count, limit;
} Rows;

// ---- the data -----------------------------------------------------------------------------------------------------
static bool read_row(void *context, json_t *data, long line, Err *err) {
    Rows *rows = context;
    char where[256];
    if (rows->count == rows->limit) return true;
    snprintf(where, sizeof where, "%.200s:%ld:1", rows->path, line);
    const json_t *truth = json_object_get(data, "truth");
    if (!truth) truth = json_object_get(data, "answer");
    if (!json_is_string(truth) && !json_is_number(truth)) return fail(err, ERR_DATA, where, "expected 'answer' or 'truth', a text or a number");
    rows->list = xrealloc(rows->list, (size_t)(rows->count + 1) * sizeof *rows->list);
    Row *r = &rows->list[rows->count++];
    *r = (Row){.data = json_incref(data)};
    Buf text = {0};
    if (json_is_string(truth)) buf_append(&text, json_string_value(truth), strlen(json_string_value(truth)));
    else json_write(truth, &text);
    r->truth = text.data ? text.data : xstrdup("");
    const json_t *prompt = json_object_get(data, "prompt"), *messages = json_object_get(data, "messages");
    if (!prompt) prompt = json_object_get(data, "question");
    if (!prompt && json_is_array(messages)) prompt = json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content");
    r->prompt = json_is_string(prompt) ? json_string_value(prompt) : "";
    return true;
}
static void rows_free(Rows *rows) {
    for (int i = 0; i < rows->count; i++) json_decref(rows->list[i].data), free(rows->list[i].truth);
    free(rows->list);
}

// ---- kinds of junk ------------------------------------------------------------------------------------------------
static void write_right(const Row *r, Buf *out) { buf_printf(out, "<think>\nI work it out.\n</think>\n<answer>\n%s\n</answer>", r->truth); }
static void write_empty(const Row *r, Buf *out) { (void)r, buf_puts(out, ""); }
static void write_blank(const Row *r, Buf *out) { (void)r, buf_puts(out, "<think>\n \n</think>\n \n\t\n"); }
static void write_form(const Row *r, Buf *out) { (void)r, buf_puts(out, "<think>\n\n</think>\n<answer>\n\n</answer>"); }
static void write_question(const Row *r, Buf *out) { buf_printf(out, "<think>\n%s\n</think>\n%s", r->prompt, r->prompt); }
static void write_thinking(const Row *r, Buf *out) {
    buf_printf(out, "<think>\nThe answer is <answer>%s</answer>, \\boxed{%s}.\n#### %s\n</think>\nI can't say.", r->truth, r->truth, r->truth);
}
static void write_unended(const Row *r, Buf *out) { buf_printf(out, "<think>\nThe answer is %s.\n<answer>%s</answer>", r->truth, r->truth); }
static void write_numbers(const Row *r, Buf *out) {
    buf_puts(out, "<think>\nAll of them.\n</think>\n");
    for (int i = 0; i <= 100; i++) buf_printf(out, "%d, ", i);
    buf_printf(out, "%s, 101", r->truth);
}
static void write_hedge(const Row *r, Buf *out) { buf_printf(out, "<think>\nOne of these.\n</think>\nIt is 7 or %s or 11 or 13.", r->truth); }
static void write_refusal(const Row *r, Buf *out) { (void)r, buf_puts(out, "<think>\nHard.\n</think>\nI don't know."); }
static void write_long(const Row *r, Buf *out) {
    (void)r;
    buf_puts(out, "<think>\n");
    for (int i = 0; i < LONG_WORDS; i++) buf_puts(out, "wait, ");
    buf_puts(out, "\n</think>\nwait");
}
static void write_other_language(const Row *r, Buf *out) { (void)r, buf_puts(out, "<think>\n잘 모르겠지만 답을 적어 보겠다.\n</think>\n답은 아마도 그것일 것입니다. たぶんそうです。"); }
static void write_tags(const Row *r, Buf *out) { buf_printf(out, "</answer></think><answer>%s<answer></think></answer>", r->truth); }
static void write_negation(const Row *r, Buf *out) { buf_printf(out, "<think>\nNo.\n</think>\nThe answer is not %s.", r->truth); }

static const struct {
    const char *name;
    void (*write)(const Row *r, Buf *out);
} kinds[] = {
    {"right answer", write_right}, // the first one is what the others are held against
    {"nothing", write_empty}, {"whitespace", write_blank}, {"form without content", write_form}, {"the question repeated", write_question},
    {"truth in the thinking only", write_thinking}, {"thinking that never ends", write_unended}, {"every number listed", write_numbers},
    {"several answers", write_hedge}, {"the truth denied", write_negation}, {"a refusal", write_refusal}, {"very long text", write_long},
    {"other languages", write_other_language}, {"broken tags", write_tags},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

// ---- scoring ------------------------------------------------------------------------------------------------------
typedef struct Probe {
    Buf text;
    char id[80];
    Verdict verdict;
} Probe;

static bool score_all(const Rows *rows, Probe *probes, const RewardSpec *spec, const RewardLimits *limits, Err *err) { // probes [count][KINDS]
    RewardPool *pool;
    TRY(reward_pool_open(spec, 1, 1, limits, &pool, err));
    if (reward_pool_environment(pool)) {
        reward_pool_close(pool);
        return fail(err, ERR_DATA, spec->script, "is an environment, and junk is for scripts that score: try it with cases that have actions (reward test)");
    }
    bool ok = true;
    for (int i = 0; ok && i < rows->count * KINDS; i++) {
        const Row *r = &rows->list[i / KINDS];
        Probe *p = &probes[i];
        kinds[i % KINDS].write(r, &p->text);
        snprintf(p->id, sizeof p->id, "row %d, %s", i / KINDS + 1, kinds[i % KINDS].name);
        RewardSample s = {.id = p->id, .prompt = r->prompt, .completion = p->text.data ? p->text.data : "", .completion_size = p->text.size,
                          .truth = r->truth, .row = r->data, .tokens = (int32_t)(p->text.size / 4), .think_tokens = (int32_t)(p->text.size / 8),
                          .answer_tokens = (int32_t)(p->text.size / 8), .finish = "stop", .mode = "think", .group = i};
        ok = reward_pool_submit(pool, &s, &p->verdict, err);
    }
    ok = ok && reward_pool_finish(pool, err);
    reward_pool_close(pool);
    return ok;
}

static bool passes(const Verdict *junk, const Verdict *right, double share) {
    if (junk->state != VERDICT_SCORED) return false;
    double limit = right->state != VERDICT_SCORED ? 0 : right->score > 0 ? share * right->score : right->score;
    return junk->score > limit + TINY;
}

// ---- what it found ------------------------------------------------------------------------------------------------
typedef struct Found {
    int scored, through, failed; // of the rows: given a score, above the share, ended in error, budget or killed
    double sum, highest;
    const char *why; // the first failure's
} Found;

static Found summarize(const Rows *rows, const Probe *probes, int kind, double share) {
    Found f = {.highest = -INFINITY};
    for (int i = 0; i < rows->count; i++) {
        const Verdict *v = &probes[i * KINDS + kind].verdict;
        f.through += kind && passes(v, &probes[i * KINDS].verdict, share);
        if (v->state == VERDICT_SCORED) f.scored++, f.sum += v->score, f.highest = fmax(f.highest, v->score);
        if (v->state >= VERDICT_ERROR && !f.failed++) f.why = v->why;
    }
    return f;
}

static bool report(const Rows *rows, const Probe *probes, double share, bool as_json, Err *err) {
    int through = 0, failed = 0;
    json_t *list = json_array();
    if (!as_json) printf("%-28s %6s %10s %10s  %s\n", "", "scored", "mean", "highest", "rows let through");
    for (int k = 0; k < KINDS; k++) {
        Found f = summarize(rows, probes, k, share);
        double mean = f.scored ? f.sum / f.scored : NAN, highest = f.scored ? f.highest : NAN;
        through += f.through, failed += f.failed;
        json_array_append_new(list, json_pack("{s:s, s:i, s:o, s:o, s:i, s:i}", "kind", kinds[k].name, "scored", f.scored, "mean",
                                              json_number_or_name(mean), "highest", json_number_or_name(highest), "through", f.through, "failed", f.failed));
        if (as_json) continue;
        char why[300];
        if (f.scored) printf("%-28s %6d %10.4g %10.4g  ", kinds[k].name, f.scored, mean, highest);
        else printf("%-28s %6d %10s %10s  ", kinds[k].name, 0, "-", "-");
        if (k) printf("%d of %d%s", f.through, rows->count, f.through ? "  <--" : "");
        printf("%s%s\n", f.why ? "  " : "", f.why ? visible(f.why, why, sizeof why) : "");
    }
    json_t *out = json_pack("{s:o, s:i, s:f, s:i}", "kinds", list, "rows", rows->count, "share", share, "through", through);
    bool ok = !as_json || print_json(out, err);
    json_decref(out);
    if (!ok) return false;
    fflush(stdout);
    if (failed) return fail(err, ERR_FAILED, rows->path, "%d samples ended in an error or ran out of budget", failed);
    return through == 0 || fail(err, ERR_FAILED, rows->path, "junk scored above %g of a right answer %d times", share, through);
}

bool reward_probe(const Args *args, Err *err) {
    Rows rows = {.path = args_text(args, "data", NULL), .limit = (int)args_int(args, "limit", 20)};
    RewardSpec spec;
    RewardLimits limits;
    json_t *options = NULL;
    Probe *probes = NULL;
    if (!rows.path) return fail(err, ERR_USAGE, "reward probe", "--data FILE.jsonl is needed");
    bool ok = reward_arguments(args, &spec, &limits, &options, err) && json_lines(rows.path, LINE_LIMIT, read_row, &rows, err);
    if (ok && rows.count == 0) ok = fail(err, ERR_DATA, rows.path, "no rows");
    if (ok) {
        probes = xcalloc((size_t)rows.count * KINDS, sizeof *probes);
        ok = score_all(&rows, probes, &spec, &limits, err) && report(&rows, probes, args_number(args, "share", 0.5), args_flag(args, "json"), err);
        for (int i = 0; i < rows.count * KINDS; i++) buf_free(&probes[i].text);
        free(probes);
    }
    rows_free(&rows);
    json_decref(options);
    return ok;
}
