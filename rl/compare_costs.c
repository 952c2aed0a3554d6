// The measured half of a comparison's document: seconds, joules and money of each arm, and what these say about pairs of arms. A
// batch's seconds and joules are shared out among its items by their FLOPs (by their tokens where FLOPs aren't known, evenly where
// tokens aren't either), so that
// ratios of costs get intervals from the same resamples as differences in accuracy.
#include "compare.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_SHARE 0.05 // of the time that threads wanted a processor: from there on their waiting is worth a note

// ---- the bill of every item ----------------------------------------------------------------------------------
typedef struct Bills {
    double *seconds, *joules, *money; // [count]; joules and money NaN where not known
    Bill *parts;                      // [count]
    bool measured;                    // joules, not an estimate from stated watts
} Bills;

static bool is_endpoint(const Comparison *c, int arm) { return !strcmp(c->models[c->arms.arms[arm].model].what, "endpoint"); }

static Bills bills_of(const Comparison *c, int arm) {
    const ArmResult *r = &c->results[arm];
    size_t n = (size_t)r->count + 1;
    Bills b = {xcalloc(n, sizeof(double)), xcalloc(n, sizeof(double)), xcalloc(n, sizeof(double)), xcalloc(n, sizeof(Bill)), true};
    double *weight = xcalloc((size_t)c->levels + 1, sizeof *weight);
    int *of_level = xcalloc((size_t)c->levels + 1, sizeof *of_level);
    for (int i = 0; i < r->count; i++) weight[r->items[i].level] += r->items[i].flops > 0 ? r->items[i].flops : r->items[i].tokens, of_level[r->items[i].level]++;
    for (int l = 0; l < c->levels; l++)
        if (of_level[l] > 0 && isnan(r->joules[l])) b.measured = false;
    for (int i = 0; i < r->count; i++) {
        const ArmItem *item = &r->items[i];
        double own = item->flops > 0 ? item->flops : item->tokens, share = weight[item->level] > 0 ? own / weight[item->level] : 1.0 / of_level[item->level];
        b.seconds[i] = share * r->seconds[item->level];
        b.joules[i] = b.measured ? share * r->joules[item->level] : is_endpoint(c, arm) ? NAN : c->prices.watts * b.seconds[i];
        b.parts[i] = prices_bill(&c->prices, is_endpoint(c, arm), b.seconds[i], b.joules[i], item->prompt_tokens, item->tokens);
        b.money[i] = b.parts[i].known ? b.parts[i].device + b.parts[i].energy + b.parts[i].tokens : NAN;
    }
    free(weight), free(of_level);
    return b;
}
static void bills_free(Bills *b) { free(b->seconds), free(b->joules), free(b->money), free(b->parts); }

// ---- an arm --------------------------------------------------------------------------------------------------
static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static json_t *latency_json(const ArmResult *r) {
    if (r->latency_count == 0) return json_null();
    int n = r->latency_count;
    double sum = 0, *sorted = xcalloc((size_t)n, sizeof *sorted);
    for (int i = 0; i < n; i++) sum += sorted[i] = r->latency[i];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_numbers);
    json_t *out = json_pack("{s:f,s:f,s:f}", "mean", sum / n, "median", n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2, "p95",
                            sorted[(int)ceil(0.95 * n) - 1]);
    free(sorted);
    return out;
}
// null where it isn't known, "inf" where nothing was correct.
static json_t *per_correct(double amount, double correct) {
    if (isnan(amount)) return json_null();
    return json_number_or_name(correct > 0 ? amount / correct : INFINITY);
}
static json_t *cost_json(const ArmResult *r, const Bills *b, const bool *which, bool latency) {
    double seconds = 0, joules = 0, money = 0, tokens = 0, correct = 0;
    Bill parts = {0};
    int n = 0;
    for (int i = 0; i < r->count; i++) {
        if (which && !which[r->items[i].level]) continue;
        n++;
        seconds += b->seconds[i], joules += b->joules[i], money += b->money[i];
        tokens += r->items[i].tokens, correct += r->items[i].correct;
        parts.device += b->parts[i].device, parts.energy += b->parts[i].energy, parts.tokens += b->parts[i].tokens;
    }
    json_t *shares = isnan(money) || n == 0 ? json_null() : json_pack("{s:f,s:f,s:f}", "device", parts.device / n, "energy", parts.energy / n, "tokens", parts.tokens / n);
    const char *source = isnan(joules) ? "not measured" : b->measured ? "measured" : "estimated";
    return json_pack("{s:f,s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:o,s:o}", "seconds", seconds, "seconds_per_item", json_number_or_name(seconds / n),
                     "tokens_per_second", json_number_or_name(seconds > 0 ? tokens / seconds : NAN), "latency", latency ? latency_json(r) : json_null(),
                     "joules_per_item", json_number_or_name(joules / n), "joules_source", source, "money_per_item", json_number_or_name(money / n),
                     "money_parts", shares, "cost_of_pass", n ? per_correct(money, correct) : json_null(), "joules_per_correct",
                     n ? per_correct(joules, correct) : json_null(), "seconds_per_correct", n ? per_correct(seconds, correct) : json_null());
}

// ---- a pair --------------------------------------------------------------------------------------------------
typedef struct Chosen {
    int n;
    double *right, *cost, *cost_a, *cost_b, *net; // [n]; right: the difference in right answers, cost: in money
    double seconds_a, seconds_b;
} Chosen;
static json_t *net_json(const Comparison *c, double value, Interval interval, const char *a, const char *b, json_t **verdict, json_t **sentence) {
    const char *word = interval.low > 0 ? "a" : interval.high < 0 ? "b" : "open", *unit = c->prices.currency;
    *verdict = json_string(word);
    double scale = money_scale_of(value);
    const char *of = scale == 1 ? "a question" : scale == 1e3 ? "a thousand questions" : "a million questions";
    *sentence = interval.low > 0   ? json_sprintf("at %g %s a correct answer %s is worth it: %+.3g %s %s over %s", c->worth, unit, a, scale * value, unit, of, b)
                : interval.high < 0 ? json_sprintf("at %g %s a correct answer %s is the better buy: %s is worth %+.3g %s %s", c->worth, unit, b, a, scale * value, unit, of)
                                    : json_sprintf("at %g %s a correct answer it is not settled which is worth more", c->worth, unit);
    return json_pack("{s:f,s:f,s:f}", "value", value, "low", interval.low, "high", interval.high);
}
static json_t *money_json(const Comparison *c, const ArmPair *p, const Bills *a, const Bills *b, const bool *which) {
    const ArmResult *x = &c->results[p->a], *y = &c->results[p->b];
    size_t size = (size_t)x->count + 1;
    double *memory = xcalloc(4 * size, sizeof *memory);
    Chosen s = {.right = memory, .cost_a = memory + size, .cost_b = memory + 2 * size, .net = memory + 3 * size};
    double right = 0, cost_a = 0, cost_b = 0;
    for (int i = 0; i < x->count && i < y->count; i++) {
        if (which && !which[x->items[i].level]) continue;
        s.right[s.n] = x->items[i].correct - y->items[i].correct;
        s.cost_a[s.n] = a->money[i], s.cost_b[s.n] = b->money[i];
        s.net[s.n] = c->worth * s.right[s.n] - (a->money[i] - b->money[i]);
        right += s.right[s.n], cost_a += a->money[i], cost_b += b->money[i];
        s.seconds_a += a->seconds[i], s.seconds_b += b->seconds[i];
        s.n++;
    }
    bool known = s.n > 0 && isfinite(cost_a) && isfinite(cost_b);
    Interval net = {NAN, NAN}, ratio = {NAN, NAN};
    PairedColumns paired = {.n = s.n, .differences = 1, .ratios = 1, .difference = {s.net}, .above = {s.cost_a}, .below = {s.cost_b}};
    if (known) paired_intervals(&paired, RESAMPLES, c->seed, CONFIDENCE, &net, &ratio);
    json_t *verdict = json_null(), *sentence = json_null(), *net_object = json_null();
    if (known && c->worth > 0)
        net_object = net_json(c, c->worth * right / s.n - (cost_a - cost_b) / s.n, net, c->arms.arms[p->a].name, c->arms.arms[p->b].name, &verdict, &sentence);
    Ratio money = {known && cost_b > 0 ? cost_a / cost_b : NAN, ratio.low, ratio.high};
    double error_price = right > 0 ? (cost_a - cost_b) / right : cost_a <= cost_b && right == 0 ? 0 : INFINITY;
    json_t *out = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "money", ratio_json(&money), "seconds_ratio",
                            json_number_or_name(s.seconds_b > 0 ? s.seconds_a / s.seconds_b : NAN), "error_price",
                            known ? json_number_or_name(error_price) : json_null(), "net", net_object, "verdict", verdict, "sentence", sentence);
    free(memory);
    return out;
}

// ---- when training has paid ----------------------------------------------------------------------------------
static double total(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum;
}
static double training_money(const Comparison *c, const TrainingBill *t) {
    double joules = isfinite(t->joules) ? t->joules : c->prices.watts * t->seconds;
    Bill b = prices_bill(&c->prices, false, t->seconds, joules, NAN, NAN);
    return t->known && b.known ? b.device + b.energy : NAN;
}
// From one model's arm to the same arm of one whose training cost `training` more: queries until what an answer saves, or is worth more,
// has repaid that.
static json_t *break_even_json(const Comparison *c, int from, int to, const Bills *bills, double training) {
    int n = c->results[to].count;
    double cost[2], right[2];
    const int arms[2] = {from, to};
    for (int i = 0; i < 2; i++) {
        cost[i] = total(bills[arms[i]].money, n) / n, right[i] = 0;
        for (int k = 0; k < n; k++) right[i] += c->results[arms[i]].items[k].correct / n;
    }
    AttemptCost attempts[2] = {{.pass_rate = right[0], .cost = cost[0]}, {.pass_rate = right[1], .cost = cost[1]}};
    double net = c->worth > 0 ? c->worth * (right[1] - right[0]) - (cost[1] - cost[0]) : cost[0] - cost[1];
    bool comparable = c->worth > 0 || right[1] >= right[0]; // cheaper but wrong more often repays nothing by itself
    double queries = net > 0 && comparable ? ceil(training / net) : INFINITY;
    double answers = break_even_queries(cost_of_pass(&attempts[0]).cost, cost_of_pass(&attempts[1]).cost, training);
    bool known = isfinite(training) && isfinite(cost[0]) && isfinite(cost[1]);
    char sentence[400];
    const char *a = c->arms.arms[from].name, *b = c->arms.arms[to].name, *unit = c->prices.currency;
    bool both = c->models[c->arms.arms[from].model].training.known && c->models[c->arms.arms[to].model].training.known;
    const char *what = both ? "what its training cost more" : "the training";
    if (!known) snprintf(sentence, sizeof sentence, "what training or an answer cost is not known");
    else if (c->worth > 0 && isfinite(queries)) snprintf(sentence, sizeof sentence, "%.0f questions repay %s (%.3g %s) at %g %s a correct answer: %.120s instead of %.120s", queries, what, training, unit, c->worth, unit, b, a);
    else if (c->worth > 0) snprintf(sentence, sizeof sentence, "%.120s instead of %.120s never repays %s (%.3g %s) at %g %s a correct answer", b, a, what, training, unit, c->worth, unit);
    else if (isfinite(answers)) snprintf(sentence, sizeof sentence, "%.0f correct answers repay %s (%.3g %s): %.120s instead of %.120s", ceil(answers), what, training, unit, b, a);
    else snprintf(sentence, sizeof sentence, "%.120s instead of %.120s never repays %s (%.3g %s) by what an answer costs alone", b, a, what, training, unit);
    return json_pack("{s:s,s:s,s:o,s:o,s:s}", "from", a, "to", b, "queries", known ? json_number_or_name(queries) : json_null(), "correct_answers",
                     known ? json_number_or_name(answers) : json_null(), "sentence", sentence);
}
// Of a model that is no run nothing is known but that it is there: it comes for nothing.
static json_t *break_evens(const Comparison *c, const Bills *bills) {
    json_t *out = json_array();
    ArmPair *pairs;
    int count = comparison_pairs(c, &pairs);
    for (int i = 0; i < count; i++) {
        int arms[2] = {pairs[i].a, pairs[i].b};
        const TrainingBill *t[2] = {&c->models[c->arms.arms[arms[0]].model].training, &c->models[c->arms.arms[arms[1]].model].training};
        const char *whats[2] = {c->models[c->arms.arms[arms[0]].model].what, c->models[c->arms.arms[arms[1]].model].what};
        bool part = !strcmp(whats[0], "checkpoint") || !strcmp(whats[1], "checkpoint"); // of a training whose other end isn't here
        if (part || strcmp(pairs[i].what, "models") || (!t[0]->known && !t[1]->known) || c->results[arms[0]].count == 0 || c->results[arms[1]].count == 0) continue;
        double money[2] = {t[0]->known ? training_money(c, t[0]) : 0, t[1]->known ? training_money(c, t[1]) : 0};
        int to = money[0] > money[1] || (isnan(money[0]) && !isnan(money[1])) ? 0 : 1; // the dearer one, or the one without a price
        json_array_append_new(out, break_even_json(c, arms[1 - to], arms[to], bills, money[to] - money[1 - to]));
    }
    free(pairs);
    return out;
}

// ---- the document --------------------------------------------------------------------------------------------
// {"levels": [..], "kinds": [..], "all": ..}: of one arm, or of a pair.
static void put_groups(const Comparison *c, json_t *to, const ArmPair *pair, int arm, const Bills *bills) {
    int *kind_of = xcalloc((size_t)c->levels + 1, sizeof *kind_of), kinds = comparison_kinds(c, kind_of);
    bool *which = xcalloc((size_t)c->levels + 1, sizeof *which);
    json_t *levels = json_array(), *of_kinds = json_array();
    for (int i = 0; i < c->levels + kinds + 1; i++) {
        bool all = i == c->levels + kinds;
        for (int l = 0; l < c->levels; l++) which[l] = all || (i < c->levels ? l == i : kind_of[l] == i - c->levels);
        json_t *one = pair ? money_json(c, pair, &bills[pair->a], &bills[pair->b], which) : cost_json(&c->results[arm], &bills[arm], which, all);
        if (all) json_object_set_new(to, "all", one);
        else json_array_append_new(i < c->levels ? levels : of_kinds, one);
    }
    json_object_set_new(to, "levels", levels);
    json_object_set_new(to, "kinds", of_kinds);
    free(kind_of), free(which);
}
static json_t *training_json(const Comparison *c, const TrainingBill *t) {
    if (!t->known) return json_null();
    return json_pack("{s:o,s:o,s:o,s:o,s:s}", "seconds", json_number_or_name(t->seconds), "joules", json_number_or_name(t->joules), "money",
                     json_number_or_name(training_money(c, t)), "flops", json_number_or_name(t->flops), "source", "the run's ledger");
}
// Of a part's threads: how much of the time in which they wanted a processor they had none; NaN: not known.
static double waited_share(const ArmResult *r) {
    double wanted = r->spent_cpu + r->spent_waiting;
    return wanted > 0 ? fmax(r->spent_waiting, 0) / wanted : NAN;
}
// Seconds on a machine that does other work hold some of that work, and not the same part of each arm's: whoever is to pay by them is told.
static json_t *processor_json(const Comparison *c, json_t *notes) {
    const ArmResult *r;
    char name[160], least_name[160] = "", most_name[160] = "";
    double cpu = 0, waited = 0, least = INFINITY, most = -INFINITY;
    for (int i = 0; comparison_part(c, i, &r, name); i++) {
        double share = waited_share(r);
        if (isnan(share)) continue;
        cpu += r->spent_cpu, waited += fmax(r->spent_waiting, 0);
        if (share < least) least = share, memcpy(least_name, name, sizeof name);
        if (share > most) most = share, memcpy(most_name, name, sizeof name);
    }
    if (!(cpu > 0)) return json_null();
    double share = waited / (cpu + waited);
    bool busy = cpu + waited > 0.1 && share > BUSY_SHARE;
    if (busy)
        json_array_append_new(notes, json_sprintf("the machine was busy: threads that answered waited for a processor %.0f %% of the time that they wanted one "
                                                  "(least: %s, %.0f %%; most: %s, %.0f %%): seconds%s are higher than on a quiet machine, and not alike for all arms",
                                                  100 * share, least_name, 100 * least, most_name, 100 * most,
                                                  isfinite(c->prices.device_hour) ? ", and prices by the hour," : ""));
    return json_pack("{s:f,s:f,s:f,s:b}", "seconds", cpu, "waited_seconds", waited, "waited_share", share, "busy", (int)busy);
}
// Seconds and joules of the parts, and what is left of the whole: loading models, timing answers, statistics.
static json_t *parts_json(const Comparison *c) {
    const ArmResult *r;
    char name[160];
    double seconds = c->spent_seconds, joules = c->spent_joules;
    json_t *parts = json_array();
    for (int i = 0; comparison_part(c, i, &r, name); i++) {
        seconds -= r->spent_seconds, joules -= r->spent_joules;
        json_array_append_new(parts, json_pack("{s:s,s:o,s:o,s:o,s:o}", "what", name, "seconds", json_number_or_name(r->spent_seconds), "joules",
                                               json_number_or_name(r->spent_joules), "processor_seconds", json_number_or_name(r->spent_cpu),
                                               "waited_share", json_number_or_name(waited_share(r))));
    }
    json_array_append_new(parts, json_pack("{s:s,s:o,s:o}", "what", "all else", "seconds", json_number_or_name(seconds), "joules", json_number_or_name(joules)));
    return parts;
}
json_t *comparison_measured(const Comparison *c) {
    json_t *models = json_array(), *arms = json_array(), *pairs = json_array(), *routers = json_array();
    Bills *bills = xcalloc((size_t)c->arms.count + 1, sizeof *bills);
    bool estimated = false;
    for (int i = 0; i < c->arms.count; i++) {
        bills[i] = bills_of(c, i);
        estimated = estimated || (!bills[i].measured && !is_endpoint(c, i));
    }
    for (int i = 0; i < c->model_count; i++) {
        const ComparedModel *m = &c->models[i];
        json_array_append_new(models, json_pack("{s:s,s:s?,s:s?,s:s,s:o}", "name", m->name, "path", m->path, "device", m->device, "variant", m->variant, "training",
                                                training_json(c, &m->training)));
        if (m->router) json_array_append_new(routers, json_pack("{s:i,s:s?}", "model", i, "file", m->router_file));
    }
    for (int i = 0; i < c->arms.count; i++) {
        json_t *arm = json_pack("{s:s}", "name", c->arms.arms[i].name);
        put_groups(c, arm, NULL, i, bills);
        json_array_append_new(arms, arm);
    }
    ArmPair *list;
    int count = comparison_pairs(c, &list);
    for (int i = 0; i < count; i++) {
        json_t *pair = json_pack("{s:s,s:s}", "a", c->arms.arms[list[i].a].name, "b", c->arms.arms[list[i].b].name);
        put_groups(c, pair, &list[i], 0, bills);
        json_array_append_new(pairs, pair);
    }
    const char *energy = !estimated && c->energy ? c->energy : isfinite(c->prices.watts) ? "stated watts" : "not measured";
    json_t *notes = json_array();
    for (int i = 0; i < c->model_count; i++)
        if (c->models[i].training.problem[0])
            json_array_append_new(notes, json_sprintf("what training %s cost isn't known: %s", c->models[i].name, c->models[i].training.problem));
    json_t *processor = processor_json(c, notes);
    json_t *out = json_pack("{s:o,s:o,s:s,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:f,s:o,s:o,s:o,s:o,s:o}", "prices", prices_json(&c->prices), "worth",
                            c->worth > 0 ? json_real(c->worth) : json_null(), "energy", energy, "latency_items", c->latency_items, "models", models,
                            "arms", arms, "pairs", pairs, "routers", routers, "training", c->model_count ? training_json(c, &c->models[0].training) : json_null(), "break_even", break_evens(c, bills),
                            "seconds", c->spent_seconds, "joules", json_number_or_name(c->spent_joules), "device_joules",
                            json_number_or_name(c->spent_device_joules), "parts", parts_json(c), "processor", processor, "notes", notes);
    for (int i = 0; i < c->arms.count; i++) bills_free(&bills[i]);
    free(bills), free(list);
    return out;
}
