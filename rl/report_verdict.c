// What comes first: the verdict in a headline, four figures and a line for each kind of task. A run that has no comparison yet
// shows its newest held-out evaluations beside its first ones.
#include "prices.h"
#include "report_comparison.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINES = 24 };

// ---- figures ---------------------------------------------------------------------------------------------
static void tile(json_t *tiles, const char *name, const char *text, const char *note) {
    json_array_append_new(tiles, json_pack("{s:s,s:o,s:o}", "name", name, "text", visible_string(text), "note", visible_string(note)));
}

// "87.5 % / 37.5 %", and under it whose they are.
static void tile_of_two(json_t *tiles, const char *name, const json_t *pair, double a, double b, void (*write)(Buf *, double),
                        const char *unit) {
    Buf text = {0}, note = {0};
    if (isnan(a) && isnan(b)) return;
    write(&text, a), buf_puts(&text, " / "), write(&text, b);
    if (unit[0]) buf_printf(&text, " %s", unit);
    buf_printf(&note, "%s / %s", json_text_or(pair, "a", "a"), json_text_or(pair, "b", "b"));
    tile(tiles, name, text.data, note.data);
    buf_free(&text), buf_free(&note);
}

// What training cost: of the run's own ledger, else as the comparison tells.
static void training_tile(const Report *r, json_t *tiles) {
    const json_t *total = json_object_get(r->cost, "total"), *training = json_object_get(measured_of(r), "training");
    double seconds, money, flops;
    if (total) {
        seconds = json_real_or_nan(json_object_get(total, "seconds"), "value"), money = json_real_or_nan(json_object_get(total, "money"), "value");
        flops = json_real_or_nan(json_object_get(total, "flops"), "value");
    } else {
        seconds = json_real_or_nan(training, "seconds"), money = json_real_or_nan(training, "money"), flops = json_real_or_nan(training, "flops");
    }
    if (isnan(seconds) && isnan(money) && isnan(flops)) return;
    Buf text = {0}, note = {0};
    if (!isnan(money)) text_number(&text, money), buf_printf(&text, " %s", currency_of(r));
    else text_seconds(&text, seconds, r->korean);
    if (!isnan(money)) text_seconds(&note, seconds, r->korean), buf_puts(&note, ", ");
    text_scaled(&note, flops), buf_puts(&note, " FLOPs");
    tile(tiles, say(r, total ? "tile run" : "tile training"), text.data, note.data);
    buf_free(&text), buf_free(&note);
}

static json_t *tiles_of(const Report *r, const json_t *pair) {
    Scope all = {SCOPE_ALL, 0};
    const json_t *a = scoped(arm_named(r, json_text_or(pair, "a", "")), all), *b = scoped(arm_named(r, json_text_or(pair, "b", "")), all);
    const json_t *cost_a = scoped(arm_cost(r, json_text_or(pair, "a", "")), all), *cost_b = scoped(arm_cost(r, json_text_or(pair, "b", "")), all);
    double pass_a = json_real_or_nan(cost_a, "cost_of_pass"), pass_b = json_real_or_nan(cost_b, "cost_of_pass");
    json_t *tiles = json_array();
    char scale[40];
    json_t *passes = say_with(r, "tile pass", "n", money_scale_text(r, scale), NULL);
    double n = money_scale(r);
    tile_of_two(tiles, say(r, "tile correct"), pair, json_real_or_nan(a, "accuracy"), json_real_or_nan(b, "accuracy"), text_percent, "");
    tile_of_two(tiles, say(r, "tile tokens"), pair, mean_of(a, "tokens"), mean_of(b, "tokens"), text_number, "");
    if (!isnan(pass_a) || !isnan(pass_b)) tile_of_two(tiles, json_string_value(passes), pair, n * pass_a, n * pass_b, text_number, currency_of(r));
    else tile_of_two(tiles, say(r, "tile flops"), pair, json_real_or_nan(a, "flops_per_correct"), json_real_or_nan(b, "flops_per_correct"), text_scaled, "");
    training_tile(r, tiles);
    json_decref(passes);
    return tiles;
}

// ---- lines under the headline ----------------------------------------------------------------------------
static void worth_line(const Report *r, const json_t *pair, json_t *lines) {
    const json_t *money = scoped(pair_cost(r, pair), (Scope){SCOPE_ALL, 0}), *net = json_object_get(money, "net");
    double worth = json_real_or_nan(measured_of(r), "worth");
    if (isnan(worth) || !json_is_object(net)) return;
    const char *verdict = json_text_or(money, "verdict", "open");
    double scale = money_scale_of(worth), net_value = json_real_or_nan(net, "value"), net_scale = fmax(1000, money_scale_of(net_value));
    char text[40], value[40], key[32], many[40], of_net[40];
    json_t *answers = scale > 1 ? say_with(r, "n correct answers", "n", number_text(scale, many), NULL) : json_string(say(r, "a correct answer"));
    snprintf(key, sizeof key, "worth %s", !strcmp(verdict, "a") ? "a" : !strcmp(verdict, "b") ? "b" : "open");
    json_array_append_new(lines, say_with(r, key, "worth", number_text(scale * worth, text), "currency", currency_of(r), "m", json_string_value(answers), "a",
                                          json_text_or(pair, "a", "a"), "b", json_text_or(pair, "b", "b"), "net",
                                          number_text(fabs(net_scale * net_value), value), "n", number_text(net_scale, of_net), NULL));
    json_decref(answers);
}

static void error_price_line(const Report *r, const json_t *pair, json_t *lines) {
    double price = json_real_or_nan(scoped(pair_cost(r, pair), (Scope){SCOPE_ALL, 0}), "error_price");
    double scale = money_scale_of(price);
    char text[40], many[40];
    if (!isfinite(price) || price <= 0) return; // it never pays, or always
    json_array_append_new(lines, say_with(r, scale > 1 ? "error price many" : "error price", "a", json_text_or(pair, "a", "a"), "b", json_text_or(pair, "b", "b"),
                                          "price", number_text(scale * price, text), "n", number_text(scale, many), "currency", currency_of(r), NULL));
}

static void break_even_lines(const Report *r, json_t *lines) {
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(measured_of(r), "break_even"), i, entry) {
        double queries = json_real_or_nan(entry, "queries");
        char text[40];
        if (i >= 3 || isnan(queries)) continue;
        const char *key = !isinf(queries) ? "break-even" : isnan(json_real_or_nan(measured_of(r), "worth")) ? "break-even never" : "break-even never worth";
        json_array_append_new(lines, say_with(r, key, "n", number_text(queries, text), "from",
                                              json_text_or(entry, "from", ""), "to", json_text_or(entry, "to", ""), NULL));
    }
}

static void gain_line(const Report *r, json_t *lines) {
    const json_t *hard = json_object_get(json_object_get(replayable_of(r), "gain"), "hard_think");
    double low = json_real_or_nan(hard, "low"), high = json_real_or_nan(hard, "high");
    bool differs = json_real_or_nan(hard, "p") < 0.05; // as the interval, the test has to agree
    char before[40], after[40], points[40], lows[40], highs[40];
    if (!json_is_object(hard)) return;
    const char *key = low > 0 && differs ? "gain up" : high < 0 && differs ? "gain down" : "gain open";
    json_array_append_new(lines, say_with(r, key, "before", share_text(json_real_or_nan(hard, "b"), before), "after",
                                          share_text(json_real_or_nan(hard, "a"), after), "points", points_text(json_real_or_nan(hard, "difference"), points),
                                          "low", points_text(low, lows), "high", points_text(high, highs), NULL));
}

static void router_line(const Report *r, json_t *lines) {
    const json_t *router = json_array_get(json_object_get(replayable_of(r), "routers"), 0), *policy = NULL;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(router, "policies"), i, entry) {
        if (!strcmp(json_text_or(entry, "name", ""), "routed")) policy = entry;
    }
    if (!policy) return;
    char accuracy[40], tokens[40], share[40];
    json_array_append_new(lines, say_with(r, "router line", "accuracy", share_text(json_real_or_nan(policy, "accuracy"), accuracy), "tokens",
                                          number_text(json_real_or_nan(policy, "tokens"), tokens), "share",
                                          share_text(json_real_or_nan(policy, "thinks"), share), NULL));
}

// Under it, small: that seconds, and what is paid by them, hold other work of the machine.
static void busy_note(const Report *r, json_t *blocks) {
    const json_t *processor = json_object_get(measured_of(r), "processor");
    double least = INFINITY, most = 0;
    size_t i;
    json_t *part;
    char share[40], low[40], high[40];
    if (!json_is_true(json_object_get(processor, "busy"))) return;
    json_array_foreach(json_object_get(measured_of(r), "parts"), i, part) {
        double waited = json_real_or_nan(part, "waited_share");
        if (isfinite(waited)) least = fmin(least, waited), most = fmax(most, waited);
    }
    if (!isfinite(least)) return;
    paragraph_add(blocks, say_with(r, "busy note", "share", share_text(json_real_or_nan(processor, "waited_share"), share), "least", share_text(least, low),
                                   "most", share_text(most, high), NULL));
}

// ---- with a comparison -----------------------------------------------------------------------------------
// In how many of the parts the verdict is another one than over all: a mean must not hide them.
static void parts_line(const Report *r, const json_t *pair, ScopeKind kind, json_t *lines) {
    size_t n = scope_count(r, kind), think = 0, direct = 0;
    for (size_t i = 0; i < n; i++) {
        const char *tone = verdict_tone(pair, scoped(pair, (Scope){kind, i}));
        think += !strcmp(tone, "think"), direct += !strcmp(tone, "direct");
    }
    if (n < 2 || think == n || direct == n) return;
    char a[40], b[40], c[40], d[40];
    json_array_append_new(lines, say_with(r, kind == SCOPE_KIND ? "parts kinds" : "parts levels", "think", number_text((double)think, a), "direct",
                                          number_text((double)direct, b), "other", number_text((double)(n - think - direct), c), "n",
                                          number_text((double)n, d), NULL));
}

static void list_parts(Report *r, json_t *blocks, const json_t *pair, ScopeKind kind) {
    size_t n = scope_count(r, kind);
    if (n < 1 || n > MOST_LINES) return;
    json_t *items = json_array();
    json_object_set_new(block_add(blocks, "list"), "items", items);
    for (size_t i = 0; i < n; i++) {
        char name[128];
        const json_t *difference = scoped(pair, (Scope){kind, i});
        scope_name(r, (Scope){kind, i}, name);
        json_array_append_new(items, json_pack("{s:o,s:s,s:o}", "name", visible_string(name), "tone", verdict_tone(pair, difference), "text",
                                               verdict_sentence(r, pair, difference)));
    }
}

static void compared(Report *r) {
    const json_t *pair = main_pair(r);
    json_t *blocks = section_add(r, "verdict", "verdict", NULL);
    json_t *headline = block_add(blocks, "headline"), *lines = json_array();
    const json_t *all = scoped(pair, (Scope){SCOPE_ALL, 0});
    json_object_set_new(headline, "text", pair ? verdict_headline(r, pair, all) : json_string(say(r, "headline arms")));
    json_object_set_new(headline, "tone", json_string(verdict_tone(pair, all)));
    json_object_set_new(headline, "lines", lines);
    json_object_set_new(headline, "tiles", pair ? tiles_of(r, pair) : json_array());
    if (!pair) return;
    json_array_append_new(lines, verdict_sentence(r, pair, all));
    worth_line(r, pair, lines);
    error_price_line(r, pair, lines);
    if (is_modes(pair)) parts_line(r, pair, scope_count(r, SCOPE_KIND) > 1 ? SCOPE_KIND : SCOPE_LEVEL, lines);
    router_line(r, lines);
    gain_line(r, lines);
    break_even_lines(r, lines);
    if (scope_count(r, SCOPE_KIND) > 1) list_parts(r, blocks, pair, SCOPE_KIND);
    list_parts(r, blocks, pair, SCOPE_LEVEL);
    size_t i;
    json_t *note;
    json_array_foreach(json_object_get(replayable_of(r), "notes"), i, note) {
        if (json_is_string(note) && i < 20) paragraph_add(blocks, note_said(r, json_string_value(note)));
    }
    busy_note(r, blocks);
}

// ---- without one -----------------------------------------------------------------------------------------
typedef struct Newest { // evaluations of one name: the first and the last that stand
    char name[64];
    int64_t first_step, last_step;
    json_t *first, *last;
} Newest;
enum { MOST_NAMES = 8 };

static bool read_evaluations(const Report *r, Newest *out, int *count, Err *err) {
    sqlite3_stmt *s;
    static const char sql[] = "SELECT step, name, replayable FROM evaluations WHERE name NOT IN ('compare', 'model') ORDER BY step, position";
    bool ok = ledger_query(r->ledger, sql, 0, 0, &s, err), more = true;
    while (ok && (ok = ledger_next(r->ledger, s, &more, err)) && more) {
        const char *name = column_string(s, 1);
        int i = 0;
        while (i < *count && strcmp(out[i].name, name)) i++;
        if (i == MOST_NAMES || strlen(name) >= sizeof out[i].name) continue;
        if (i == *count) {
            ++*count;
            strcpy(out[i].name, name);
            out[i].first_step = column_int(s, 0), out[i].first = column_object(s, 2);
        }
        json_decref(out[i].last);
        out[i].last_step = column_int(s, 0), out[i].last = column_object(s, 2);
    }
    sqlite3_finalize(s);
    return ok;
}

static void accuracy_cell(json_t *row, const json_t *level) {
    cell_interval(row, json_real_or_nan(level, "accuracy"), json_real_or_nan(level, "low"), json_real_or_nan(level, "high"));
}

static void evaluation_rows(json_t *sheet, const Newest *n) {
    size_t i;
    json_t *level;
    json_array_foreach(json_object_get(n->last, "levels"), i, level) {
        if (!json_is_object(level)) continue;
        char name[160];
        snprintf(name, sizeof name, "%.80s %lld, %.60s", json_text_or(level, "kind", ""), (long long)json_integer_value(json_object_get(level, "level")), n->name);
        json_t *row = sheet_row(sheet);
        cell_text(row, name);
        accuracy_cell(row, n->first_step < n->last_step ? json_array_get(json_object_get(n->first, "levels"), i) : NULL);
        accuracy_cell(row, level);
        cell_number(row, json_real_or_nan(level, "items"));
        cell_number(row, json_real_or_nan(level, "tokens"));
        cell_number(row, json_real_or_nan(level, "flops"));
    }
}

// Of all its levels, first and last.
static double pooled(const json_t *evaluation) {
    double items = 0, correct = 0;
    size_t i;
    json_t *level;
    json_array_foreach(json_object_get(evaluation, "levels"), i, level) {
        items += json_real_or_nan(level, "items"), correct += json_real_or_nan(level, "correct");
    }
    return correct / items;
}
static void evaluation_line(const Report *r, const Newest *n, json_t *lines) {
    char first[40], last[40], step[40];
    if (isnan(pooled(n->last))) return;
    json_array_append_new(lines, say_with(r, n->first_step < n->last_step ? "evaluated from to" : "evaluated", "name", n->name, "first",
                                          share_text(pooled(n->first), first), "last", share_text(pooled(n->last), last), "step",
                                          number_text((double)n->last_step, step), NULL));
}

static bool not_compared(Report *r, Err *err) {
    Newest found[MOST_NAMES] = {0};
    int count = 0;
    bool ok = read_evaluations(r, found, &count, err);
    json_t *blocks = section_add(r, "verdict", "verdict", NULL), *headline = block_add(blocks, "headline"), *lines = json_array(), *tiles = json_array();
    json_object_set_new(headline, "text", json_string(say(r, count ? "headline evaluated" : "headline nothing")));
    json_object_set_new(headline, "tone", json_string(""));
    json_object_set_new(headline, "lines", lines);
    json_object_set_new(headline, "tiles", tiles);
    training_tile(r, tiles);
    for (int i = 0; i < count; i++) evaluation_line(r, &found[i], lines);
    json_array_append_new(lines, json_string(say(r, "how to compare")));
    if (count) {
        json_t *sheet = sheet_add(blocks, "evaluations", say(r, "evaluations"));
        sheet_column(sheet, "part", say(r, "level and mode"), "text");
        sheet_column(sheet, "before", say(r, "first"), "share");
        sheet_column(sheet, "after", say(r, "last"), "share");
        sheet_column(sheet, "items", say(r, "items"), "number");
        sheet_column(sheet, "tokens", say(r, "tokens"), "number");
        sheet_column(sheet, "flops", "FLOPs", "scaled");
        for (int i = 0; i < count; i++) evaluation_rows(sheet, &found[i]);
    }
    for (int i = 0; i < count; i++) json_decref(found[i].first), json_decref(found[i].last);
    return ok;
}

bool report_verdict(Report *r, Err *err) {
    if (json_array_size(json_object_get(replayable_of(r), "arms")) > 0) return compared(r), true;
    return !r->ledger || not_compared(r, err);
}
