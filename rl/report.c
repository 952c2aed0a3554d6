// The page of a run: report.html, one file without network, script libraries or fonts. Its policy allows nothing but
// its own style and script, each named by its hash; text of models and data is only ever text (report_text.c). All of
// it is read from one state of the ledger; recipe.lua and recipe.resolved.json are shown where they are there.
#include "report.h"
#include "embedded.h"
#include "files.h"
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Page {
    const char *folder;
    Ledger *ledger;
    json_t *facts, *machine, *recipe, *cost;
    int64_t step;
    char head[65];
} Page;

// ---- frame -----------------------------------------------------------------------------------------------
static bool embedded(const char *name, const EmbeddedFile **out, Err *err) {
    for (const EmbeddedFile *f = embedded_files; f->name; f++)
        if (!strcmp(f->name, name)) return *out = f, true;
    return fail(err, ERR_SOFTWARE, name, "is not carried inside this binary");
}

// 'sha256-...' as a content security policy names a style or script.
static void policy_hash_of(const EmbeddedFile *f, char out[64]) {
    char hex[65];
    unsigned char digest[32];
    sha256_hex(f->data, f->size, hex);
    for (int i = 0; i < 32; i++) digest[i] = (unsigned char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest);
}

static const char *run_name(const Page *p) {
    const char *slash = strrchr(p->folder, '/');
    return json_text_or(p->recipe, "name", slash && slash[1] ? slash + 1 : p->folder);
}

static void head(Buf *out, const Page *p, const EmbeddedFile *style, const EmbeddedFile *script) {
    char style_hash[64], script_hash[64];
    policy_hash_of(style, style_hash), policy_hash_of(script, script_hash);
    buf_printf(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" "
                    "content=\"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n"
                    "<meta name=\"reckon-head\" content=\"%s\">\n<title>", style_hash, script_hash, p->head);
    html_string(out, run_name(p));
    buf_puts(out, " &middot; reckon</title>\n<style>");
    buf_append(out, style->data, style->size);
    buf_puts(out, "</style></head>\n<body><div class=\"page\"><header class=\"top\"><p class=\"eyebrow\">reckon run report</p><h1>");
    html_string(out, run_name(p));
    buf_printf(out, "</h1><nav><a href=\"#verdict\">Verdict</a>");
    if (p->step) buf_puts(out, "<a href=\"#training\">Training</a><a href=\"#samples\">Samples</a>");
    buf_puts(out, "<a href=\"#cost\">Cost</a><a href=\"#run\">What was run</a><button id=\"theme\" type=\"button\" hidden>dark / light</button></nav>"
                  "</header>\n<main>\n");
}

// ---- cost ------------------------------------------------------------------------------------------------
static void figure_cell(Buf *out, const json_t *work, const char *key, const char *label, void (*format)(Buf *, double)) {
    const json_t *f = json_object_get(work, key), *value = json_object_get(f, "value");
    buf_printf(out, "<td data-label=\"%s\"><span>", label);
    if (json_is_number(value)) {
        format(out, json_number_value(value));
        if (!strcmp(json_text_or(f, "source", ""), "stated")) buf_puts(out, "&nbsp;*");
    } else {
        buf_puts(out, "<span class=\"muted\">");
        html_json(out, value);
        buf_puts(out, "</span>");
    }
    buf_puts(out, "</span></td>");
}
static void cost_row(Buf *out, const char *name, const json_t *work, bool all) {
    buf_printf(out, "<tr%s><td class=\"words\">", all ? " class=\"all\"" : "");
    html_string(out, name);
    buf_puts(out, "</td>");
    figure_cell(out, work, "steps", "steps", html_number);
    figure_cell(out, work, "new_tokens", "tokens sampled", html_scaled);
    figure_cell(out, work, "trained_tokens", "tokens trained", html_scaled);
    figure_cell(out, work, "flops", "FLOPs", html_scaled);
    figure_cell(out, work, "seconds", "time", html_seconds);
    figure_cell(out, work, "rollout_seconds", "sampling", html_seconds);
    figure_cell(out, work, "reward_seconds", "waiting for rewards", html_seconds);
    figure_cell(out, work, "train_seconds", "training", html_seconds);
    figure_cell(out, work, "joules", "joules", html_scaled);
    figure_cell(out, work, "money", "money", html_number);
    buf_puts(out, "</tr>\n");
}
static void waste(Buf *out, const json_t *cost) {
    static const struct {
        const char *key, *words;
    } rows[] = {{"groups_without_variance", "of groups had equal rewards and taught nothing"},
                {"untrained_tokens", "of sampled tokens entered no update"},
                {"truncated_samples", "of completions were cut off at the longest allowed"},
                {"unscored_samples", "of completions got no score"},
                {"repeated_flops", "of all FLOPs were done twice, after a run was cut off"}};
    buf_puts(out, "<div class=\"card wide\"><h3>Of which without effect</h3><ul class=\"waste\">");
    for (int i = 0; i < COUNT(rows); i++) {
        buf_puts(out, "<li><b>");
        html_percent(out, json_real_or_nan(json_object_get(json_object_get(cost, "waste"), rows[i].key), "value"));
        buf_printf(out, "</b> %s</li>", rows[i].words);
    }
    buf_puts(out, "</ul></div>\n");
}
static void cost_section(Buf *out, const json_t *cost) {
    size_t i;
    json_t *stage;
    const char *currency = json_text_or(cost, "currency", "money");
    buf_puts(out, "<section id=\"cost\"><h2>What it cost</h2>\n<div class=\"card scroll wide\"><table class=\"stack\"><thead><tr><th></th><th>steps</th>"
                  "<th>tokens sampled</th><th>tokens trained</th><th>FLOPs</th><th>time</th><th>sampling</th><th>waiting for rewards</th><th>training</th><th>joules</th><th>");
    html_string(out, currency);
    buf_puts(out, "</th></tr></thead><tbody>\n");
    json_array_foreach(json_object_get(cost, "stages"), i, stage) cost_row(out, json_text_or(stage, "name", "stage"), stage, false);
    cost_row(out, "evaluations", json_object_get(cost, "evaluations"), false);
    cost_row(out, "work done twice", json_object_get(cost, "repeated"), false);
    cost_row(out, "total", json_object_get(cost, "total"), true);
    buf_puts(out, "</tbody></table></div>\n<p class=\"note\">Tokens are counted, seconds are from the clock, FLOPs are computed from shapes; * is "
                  "computed from what the recipe states. What was not measured says so.</p>\n");
    waste(out, cost);
    buf_puts(out, "</section>\n");
}

// ---- what was run ----------------------------------------------------------------------------------------
static void facts_card(Buf *out, const char *title, const json_t *facts) {
    const char *key;
    json_t *value;
    if (json_object_size(facts) == 0) return;
    buf_printf(out, "<div class=\"card\"><h3>%s</h3><dl class=\"facts-list\">", title);
    json_object_foreach((json_t *)(uintptr_t)facts, key, value) {
        char *name = xstrdup(key);
        for (char *c = name; *c; c++) *c = *c == '_' ? ' ' : *c;
        buf_puts(out, "<dt>");
        html_string(out, name);
        buf_puts(out, "</dt><dd>");
        html_json(out, value);
        buf_puts(out, "</dd>");
        free(name);
    }
    buf_puts(out, "</dl></div>\n");
}

static void source(Buf *out, const Page *p, const char *file, const char *title) {
    Buf text;
    char *path = path_join(p->folder, file);
    if (file_read(path, 1 << 20, &text, NULL)) {
        buf_printf(out, "<details><summary>%s</summary><pre class=\"source\">", title);
        html_text(out, text.data, text.size);
        buf_puts(out, "</pre></details>\n");
        buf_free(&text);
    }
    free(path);
}

// What happened besides steps and evaluations: starts, resumes, checkpoints, warnings.
static bool happenings(Buf *out, const Ledger *l, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT at, kind, step, detail FROM (SELECT * FROM events WHERE kind NOT IN ('step', 'evaluation', 'repeated') ORDER "
                              "BY seq DESC LIMIT 100) ORDER BY seq";
    bool ok = ledger_query(l, sql, 0, 0, &s, err), more = true;
    buf_puts(out, "<details><summary>What happened, by the clock</summary><div class=\"card scroll wide\"><table><tbody>\n");
    while (ok && (ok = ledger_next(l, s, &more, err)) && more) {
        buf_puts(out, "<tr><td class=\"words\">");
        html_string(out, column_string(s, 0));
        buf_puts(out, "</td><td class=\"words\">");
        html_string(out, column_string(s, 1));
        buf_puts(out, "</td><td class=\"words wrap\">");
        html_string(out, column_string(s, 3));
        buf_puts(out, "</td></tr>\n");
    }
    sqlite3_finalize(s);
    buf_puts(out, "</tbody></table></div></details>\n");
    return ok;
}

// Whether verdicts that a clock decided make a replay come out otherwise.
static bool replay_note(Buf *out, const Ledger *l, Err *err) {
    int64_t times = 0;
    TRY(ledger_integer(l, "SELECT count(*) FROM events WHERE kind = '" NOT_REPLAYABLE "'", 0, 0, &times, err));
    if (times)
        buf_printf(out, "<p><strong>This run is not replayable.</strong> %s verdicts of rewards were decided by a clock or by the death of a process "
                        "(below, by the clock: &ldquo;" NOT_REPLAYABLE "&rdquo;); another run may come to others.</p>\n", times == 1 ? "Once," : "More than once,");
    return true;
}

static bool run_section(Buf *out, const Page *p, Err *err) {
    buf_puts(out, "<section id=\"run\"><h2>What was run</h2>\n");
    TRY(replay_note(out, p->ledger, err));
    buf_puts(out, "<p>The replayable part of this run is a function of its recipe. The same binary and "
                  "recipe on the same instruction variant end with the same head:</p>\n<div class=\"card\"><dl class=\"facts-list\"><dt>steps</dt>");
    buf_printf(out, "<dd>%lld</dd><dt>head of the replayable chain</dt><dd>%s</dd><dt>to replay</dt><dd>reckon train ", (long long)p->step, p->head);
    html_string(out, p->folder);
    buf_puts(out, "/recipe.lua --set run_folder=replayed</dd><dt>to compare the heads</dt><dd>reckon audit replayed --head</dd>"
                  "<dt>to prove this run</dt><dd>reckon audit ");
    html_string(out, p->folder);
    buf_puts(out, "</dd></dl></div>\n<div class=\"two\">\n");
    facts_card(out, "Facts that fix the result", p->facts);
    facts_card(out, "The machine", p->machine);
    buf_puts(out, "</div>\n");
    source(out, p, "recipe.lua", "The recipe as it was written");
    source(out, p, "recipe.resolved.json", "Every setting of the recipe, defaults included");
    TRY(happenings(out, p->ledger, err));
    buf_puts(out, "</section>\n");
    return true;
}

// ---- the page --------------------------------------------------------------------------------------------
static bool read_facts(Page *p, Err *err) {
    sqlite3_stmt *s;
    bool more = false;
    bool ok = ledger_query(p->ledger, "SELECT replayable FROM run", 0, 0, &s, err) && ledger_next(p->ledger, s, &more, err);
    if (ok) p->facts = more ? column_object(s, 0) : json_object();
    sqlite3_finalize(s);
    TRY(ok);
    ok = ledger_query(p->ledger, "SELECT detail FROM events WHERE kind = 'machine' ORDER BY seq DESC LIMIT 1", 0, 0, &s, err) &&
         ledger_next(p->ledger, s, &more, err);
    if (ok) p->machine = more ? column_object(s, 0) : json_object();
    sqlite3_finalize(s);
    return ok;
}

static bool page(Buf *out, const Page *p, Err *err) {
    const EmbeddedFile *style = NULL, *script = NULL;
    TRY(embedded("report.css", &style, err) && embedded("report.js", &script, err));
    head(out, p, style, script);
    TRY(report_verdicts(out, p->ledger, err) && report_curves(out, p->ledger, p->recipe, err) && report_samples(out, p->ledger, err));
    cost_section(out, p->cost);
    TRY(run_section(out, p, err));
    buf_printf(out, "</main>\n<footer>Written by reckon " RECKON_VERSION " from the ledger at step %lld, head %.16s. This file needs no network.</footer>"
                    "</div>\n<script>", (long long)p->step, p->head);
    buf_append(out, script->data, script->size);
    buf_puts(out, "</script></body></html>\n");
    return true;
}

bool report_write(const char *run_folder, const char *path, Err *err) {
    Page p = {.folder = run_folder};
    Buf out = {0};
    char *recipe = path_join(run_folder, "recipe.resolved.json"), *target = path ? xstrdup(path) : path_join(run_folder, "report.html");
    if (!json_read_file(recipe, 16 << 20, &p.recipe, NULL)) p.recipe = NULL;
    bool ok = cost_run(run_folder, &p.cost, err) && ledger_open_read(run_folder, &p.ledger, err) && ledger_freeze(p.ledger, err) &&
              ledger_head(p.ledger, &p.step, p.head, err) && read_facts(&p, err) && page(&out, &p, err) &&
              file_write_atomic(target, out.data, out.size, err);
    buf_free(&out);
    json_decref(p.facts), json_decref(p.machine), json_decref(p.recipe), json_decref(p.cost);
    ledger_close(p.ledger);
    free(recipe), free(target);
    return ok;
}
