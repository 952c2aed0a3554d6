// The router: its fit against known coefficients and against an optimum found elsewhere, what it looks at, its thresholds, and
// its file, which nothing but the model that it was fitted for may use.
#include "../test.h"
#include "compare.h"
#include "files.h"
#include "router.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

static double logistic(double z) { return 1 / (1 + exp(-z)); }

// ---- made-up items -------------------------------------------------------------------------------------------
enum { MANY = 6000, LEVELS = 3 };
static char *kinds[LEVELS] = {(char *)"sums", (char *)"sums", (char *)"words"};
static int level_numbers[LEVELS] = {1, 2, 1};
static Router empty(int levels) { return (Router){.levels = levels, .kind = kinds, .level = level_numbers}; }

// In terms of log(prompt tokens), mean and least logprob, and of each level.
typedef struct Truth {
    double constant, weight[ROUTER_PLAIN], level[LEVELS];
} Truth;
static const Truth truths[MODES] = {{1.2, {0.3, 0.8, -0.2}, {0, -0.5, 0.7}}, {4.5, {-0.9, 1.5, 0.4}, {0.8, 0, -1.1}}};
static double right_by(const Truth *t, const RouterItem *item) {
    return logistic(t->constant + t->weight[0] * log(item->prompt_tokens) + t->weight[1] * item->mean_logprob + t->weight[2] * item->min_logprob +
                    (item->level >= 0 ? t->level[item->level] : 0));
}
static double even(Random *r) { return random_double(r); }
static RouterItem *draw(int n, uint64_t seed) {
    RouterItem *items = xcalloc((size_t)n, sizeof *items);
    Random r = random_start(seed, STREAM_TEST, 0);
    for (int i = 0; i < n; i++) {
        RouterItem *item = &items[i];
        *item = (RouterItem){.level = (int)(even(&r) * LEVELS), .prompt_tokens = floor(8 + 200 * even(&r)), .mean_logprob = -2 * even(&r), .think_cost = 30, .direct_cost = 5};
        item->min_logprob = item->mean_logprob - 3 * even(&r);
        item->think_right = even(&r) < right_by(&truths[MODE_THINK], item), item->direct_right = even(&r) < right_by(&truths[MODE_DIRECT], item);
    }
    return items;
}

// ---- the fit -------------------------------------------------------------------------------------------------
// What chances a router gives a question, by its own weights.
static double chance(const Router *r, const RouterModel *m, Mode mode, const RouterItem *item) {
    double x[ROUTER_PLAIN] = {log(item->prompt_tokens), item->mean_logprob, item->min_logprob}, z = m->weight[mode][0];
    for (int k = 0; k < ROUTER_PLAIN; k++) z += m->weight[mode][1 + k] * (x[k] - r->mean[k]) / r->scale[k];
    if (m == &r->told) z += m->weight[mode][1 + ROUTER_PLAIN + item->level];
    return logistic(z);
}
static void known_coefficients(void) {
    RouterItem *items = draw(MANY, 1), *others = draw(400, 2);
    Router r = empty(LEVELS);
    router_fit(&r, items, MANY, 0.02, 0);
    CHECK_INT(r.fitted, MANY);
    for (Mode mode = 0; mode < MODES; mode++) {
        const double *weight = r.told.weight[mode];
        // Six thousand items: a standard error of a standardised weight is about 0.04; least and mean logprob go together.
        for (int k = 0; k < ROUTER_PLAIN; k++) CHECK_NEAR(weight[1 + k] / r.scale[k], truths[mode].weight[k], 0.25);
        for (int l = 1; l < LEVELS; l++) // only differences between levels are told apart from the constant
            CHECK_NEAR(weight[4 + l] - weight[4], truths[mode].level[l] - truths[mode].level[0], 0.25);
    }
    double worst = 0;
    for (int i = 0; i < 400; i++) {
        for (Mode mode = 0; mode < MODES; mode++) worst = fmax(worst, fabs(chance(&r, &r.told, mode, &others[i]) - right_by(&truths[mode], &others[i])));
        double gain = chance(&r, &r.told, MODE_THINK, &others[i]) - chance(&r, &r.told, MODE_DIRECT, &others[i]);
        CHECK_NEAR(router_gain(&r, &others[i]), gain, 1e-12);
        CHECK_INT(router_thinks(&r, &others[i]), gain > r.threshold[0]);
        others[i].level = -1;
        gain = chance(&r, &r.untold, MODE_THINK, &others[i]) - chance(&r, &r.untold, MODE_DIRECT, &others[i]);
        CHECK_NEAR(router_gain(&r, &others[i]), gain, 1e-12);
        CHECK_INT(router_thinks(&r, &others[i]), gain > r.threshold[1]);
    }
    CHECK(worst < 0.06);
    free(items), free(others);
    router_free(&r);
}

// Where the fit ends, the penalised likelihood has no slope: the ridge is 1 on every standardised weight, 1e-6 on the constant.
static void no_slope_left(void) {
    RouterItem *items = draw(500, 3);
    Router r = empty(LEVELS);
    router_fit(&r, items, 500, 0.02, 0);
    for (Mode mode = 0; mode < MODES; mode++) {
        double slope[1 + ROUTER_PLAIN + LEVELS];
        for (int k = 0; k < COUNT(slope); k++) slope[k] = -(k == 0 ? 1e-6 : 1) * r.told.weight[mode][k];
        for (int i = 0; i < 500; i++) {
            double x[ROUTER_PLAIN] = {log(items[i].prompt_tokens), items[i].mean_logprob, items[i].min_logprob};
            double off = (mode == MODE_THINK ? items[i].think_right : items[i].direct_right) - chance(&r, &r.told, mode, &items[i]);
            slope[0] += off, slope[1 + ROUTER_PLAIN + items[i].level] += off;
            for (int k = 0; k < ROUTER_PLAIN; k++) slope[1 + k] += off * (x[k] - r.mean[k]) / r.scale[k];
        }
        for (int k = 0; k < COUNT(slope); k++) CHECK_NEAR(slope[k], 0, 1e-9);
    }
    free(items);
    router_free(&r);
}

// ---- an optimum found elsewhere ------------------------------------------------------------------------------
// scipy 1.17.1 (minimize, BFGS, on the same penalised likelihood) on these 24 items.
static void against_scipy(void) {
    static const struct {
        double tokens, mean, least;
        bool think, direct;
    } rows[] = {
        {44, -0.511, -2.304, 0, 0}, {46, -1.845, -1.99, 1, 0}, {46, -0.104, -0.888, 1, 0}, {29, -1.088, -3.958, 1, 1},
        {22, -0.364, -4.701, 1, 0}, {9, -0.278, -3.365, 1, 1}, {60, -0.011, -3.879, 0, 1}, {15, -0.579, -5.386, 1, 0},
        {18, -0.363, -5.206, 1, 0}, {29, -0.598, -2.404, 1, 1}, {9, -0.664, -4.751, 1, 0}, {50, -0.676, -2.226, 0, 0},
        {25, -0.37, -2.733, 1, 1}, {6, -1.898, -3.686, 1, 0}, {31, -0.732, -3.625, 1, 1}, {16, -1.247, -6.019, 1, 1},
        {57, -1.884, -3.606, 1, 0}, {54, -0.926, -3.875, 0, 1}, {23, -0.073, -4.802, 1, 1},
        {44, -0.725, -1.466, 1, 0}, {10, -0.625, -2.209, 1, 1}, {14, -1.442, -2.989, 1, 0},
        {10, -1.973, -4.641, 1, 1}, {43, -0.688, -1.939, 0, 1},
    };
    static const double wanted[MODES][1 + ROUTER_PLAIN] = {{1.9897599088, -1.4964917559, -0.4973715148, -0.0489597593},
                                                           {-0.0005098496, -0.0209404373, 0.3256681988, -0.2492867349}};
    RouterItem items[COUNT(rows)];
    for (int i = 0; i < COUNT(rows); i++)
        items[i] = (RouterItem){.level = -1, .prompt_tokens = rows[i].tokens, .mean_logprob = rows[i].mean, .min_logprob = rows[i].least,
                                .think_right = rows[i].think, .direct_right = rows[i].direct};
    Router r = empty(0);
    router_fit(&r, items, COUNT(rows), 0, 0);
    for (Mode mode = 0; mode < MODES; mode++)
        for (int k = 0; k <= ROUTER_PLAIN; k++) {
            CHECK_NEAR(r.untold.weight[mode][k], wanted[mode][k], 1e-8);
            CHECK_NEAR(r.told.weight[mode][k], wanted[mode][k], 1e-8); // no levels to tell
        }
    router_free(&r);
}

// ---- what it looks at ----------------------------------------------------------------------------------------
static void confidence(void) {
    float logprob[] = {-0.5f, -2.25f, -0.25f};
    Completion c = {.length = 3, .logprob = logprob};
    double mean, least;
    completion_confidence(&c, &mean, &least);
    CHECK_NEAR(mean, -1, 1e-12);
    CHECK_NEAR(least, -2.25, 0);
    c.length = 0;
    completion_confidence(&c, &mean, &least);
    CHECK(mean == 0 && least == 0);
    c = (Completion){.length = 3};
    completion_confidence(&c, &mean, &least);
    CHECK(mean == 0 && least == 0);

    RouterItem *items = draw(300, 5);
    Router r = empty(LEVELS);
    router_fit(&r, items, 300, 0.02, 0);
    c = (Completion){.length = 3, .logprob = logprob};
    RouterItem item = {.level = -1, .prompt_tokens = 40, .mean_logprob = -1, .min_logprob = -2.25};
    double gain;
    CHECK_INT(router_thinks_about(&r, 40, &c, &gain), router_thinks(&r, &item));
    CHECK_NEAR(gain, router_gain(&r, &item), 1e-12);
    free(items);
    router_free(&r);
}

static void items_of_evaluations(void) {
    Draw draws[2] = {{.mean_logprob = -0.5, .min_logprob = -1.5}, {.mean_logprob = -9, .min_logprob = -9}};
    EvaluatedItem think = {.level_index = 2, .correct = true, .prompt_tokens = 99, .flops = 7, .draws = &draws[1]};
    EvaluatedItem direct = {.level_index = 2, .correct = false, .prompt_tokens = 17, .flops = 3, .draws = &draws[0]};
    RouterItem item;
    router_items(&(Evaluation){.count = 1, .items = &think}, &(Evaluation){.count = 1, .items = &direct}, &item);
    CHECK_INT(item.level, 2);
    CHECK(item.prompt_tokens == 17 && item.mean_logprob == -0.5 && item.min_logprob == -1.5); // of the direct answer
    CHECK(item.think_right && !item.direct_right && item.think_cost == 7 && item.direct_cost == 3);
}

// ---- thresholds ----------------------------------------------------------------------------------------------
// `n` items of a level, alike in all else: so many are right by thinking, so many directly.
static void alike(RouterItem *out, int level, int n, int think, int direct) {
    for (int i = 0; i < n; i++)
        out[i] = (RouterItem){.level = level, .prompt_tokens = 20, .mean_logprob = -1, .min_logprob = -2, .think_right = i < think, .direct_right = i < direct,
                              .think_cost = 30, .direct_cost = 5};
}
static void check_levels(const Router *r, bool first, bool second, bool third) {
    const bool wanted[LEVELS] = {first, second, third};
    for (int l = 0; l < LEVELS; l++) {
        RouterItem item = {.level = l, .prompt_tokens = 20, .mean_logprob = -1, .min_logprob = -2};
        CHECK_INT(router_thinks(r, &item), wanted[l]);
    }
}
static void thresholds(void) {
    static const struct {
        int think[LEVELS], direct[LEVELS];
        double tolerance, price;
        bool thinks[LEVELS];
    } cases[] = {
        {{100, 100, 100}, {100, 2, 100}, 0, 0, {false, true, false}},    // where thinking gains
        {{100, 98, 100}, {95, 3, 100}, 0, 0, {true, true, false}},       // both gains are needed
        {{100, 98, 100}, {95, 3, 100}, 0.02, 0, {false, true, false}},   // the small one is worth less than 2 points of 300 items
        {{100, 98, 100}, {95, 3, 100}, 0.01, 0, {true, true, false}},    // but more than 1
        {{50, 50, 50}, {100, 100, 100}, 0, 0, {false, false, false}},    // thinking harms
        {{100, 10, 90}, {10, 100, 60}, 0, 0, {true, false, false}},      // as good as the better of the two, and no better than that
        {{100, 100, 100}, {40, 70, 92}, 0, 0.01, {true, false, false}},  // a thought costs 0.3 right answers
        {{100, 100, 100}, {40, 70, 92}, 0, 0.001, {true, true, true}},   // 0.03
        {{100, 100, 100}, {40, 70, 92}, 0, 0.1, {false, false, false}},  // 3: nothing is worth that
    };
    for (int c = 0; c < COUNT(cases); c++) {
        RouterItem items[300];
        Router r = empty(LEVELS);
        for (int l = 0; l < LEVELS; l++) alike(items + 100 * l, l, 100, cases[c].think[l], cases[c].direct[l]);
        router_fit(&r, items, 300, cases[c].tolerance, cases[c].price);
        check_levels(&r, cases[c].thinks[0], cases[c].thinks[1], cases[c].thinks[2]);
        if (cases[c].price > 0) CHECK_NEAR(r.threshold[0], cases[c].price * 30, 1e-12);
        router_free(&r);
    }
}
// Items that look the same are never parted, whatever came of them.
static void alike_are_one(void) {
    RouterItem items[60];
    Router r = empty(0);
    alike(items, -1, 60, 60, 57);
    router_fit(&r, items, 60, 0.02, 0); // one of the three would do
    for (int i = 0; i < 60; i++) CHECK(router_thinks(&r, &items[i]));
    router_free(&r);
}

// ---- degenerate data -----------------------------------------------------------------------------------------
static void check_finite(const Router *r) {
    for (Mode mode = 0; mode < MODES; mode++)
        for (int k = 0; k < r->told.width; k++) CHECK(isfinite(r->told.weight[mode][k]) && (k >= r->untold.width || isfinite(r->untold.weight[mode][k])));
    for (int k = 0; k < ROUTER_PLAIN; k++) CHECK(isfinite(r->mean[k]) && r->scale[k] > 0);
    CHECK(isfinite(r->threshold[0]) && isfinite(r->threshold[1]));
}
static void degenerate_data(void) {
    static const struct {
        int n, think, direct;
        bool thinks;
    } cases[] = {{90, 90, 90, false}, {90, 0, 0, false}, {90, 90, 0, true}, {90, 0, 90, false}, {1, 1, 0, true}, {1, 0, 1, false}, {0, 0, 0, false}};
    for (int c = 0; c < COUNT(cases); c++)
        for (int levels = 0; levels < 2; levels++) { // one kind, or none told
            RouterItem items[90], question = {.level = levels - 1, .prompt_tokens = 20, .mean_logprob = -1, .min_logprob = -2};
            Router r = empty(levels);
            alike(items, levels - 1, cases[c].n, cases[c].think, cases[c].direct);
            router_fit(&r, items, cases[c].n, 0.02, 0);
            check_finite(&r);
            CHECK_INT(router_thinks(&r, &question), cases[c].thinks);
            question.prompt_tokens = 0, question.mean_logprob = -1e3, question.min_logprob = -1e3; // far from all that it was fitted on
            CHECK(isfinite(router_gain(&r, &question)));
            router_free(&r);
        }
    // Confidence that parts right from wrong without an error: the weights stay finite, and the parting holds.
    RouterItem items[80];
    Router r = empty(0);
    for (int i = 0; i < 80; i++)
        items[i] = (RouterItem){.level = -1, .prompt_tokens = 20, .mean_logprob = i < 40 ? -0.1 : -3, .min_logprob = -4, .think_right = true, .direct_right = i < 40};
    router_fit(&r, items, 80, 0, 0);
    check_finite(&r);
    for (int i = 0; i < 80; i++) CHECK_INT(router_thinks(&r, &items[i]), i >= 40);
    router_free(&r);
}

// ---- the file ------------------------------------------------------------------------------------------------
static char folder[64];
static const char *at(const char *name) {
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}
static void copy(const char *from, const char *name) {
    Err err = {0};
    Buf data;
    char source[160];
    snprintf(source, sizeof source, "%s/%s", from, name);
    OK(file_read(source, 16 << 20, &data, &err));
    OK(file_write_atomic(at(name), data.data, data.size, &err));
    buf_free(&data);
}
static void copy_model(const char *from, const char *const *names) {
    strcpy(folder, "/tmp/reckon-router-XXXXXX");
    CHECK(mkdtemp(folder));
    for (; *names; names++) copy(from, *names);
}
static void flip(const char *name) { // the last byte
    Err err = {0};
    Buf data;
    OK(file_read(at(name), 16 << 20, &data, &err));
    data.data[data.size - 1] ^= 1;
    OK(file_write_atomic(at(name), data.data, data.size, &err));
    buf_free(&data);
}
static Router fitted(void) {
    static char think[] = "<think>", direct[] = "<think></think>", say[] = "Give the number alone.";
    RouterItem *items = draw(300, 7);
    Router r = empty(LEVELS);
    router_fit(&r, items, 300, 0.02, 0);
    free(items);
    r.chat = true, r.max_tokens = 72;
    r.style[MODE_THINK] = (PromptStyle){.prefix = think}, r.style[MODE_DIRECT] = (PromptStyle){.instruction = say, .prefix = direct};
    strcpy(r.recipe_hash, "of the recipe");
    return r;
}
static void write_for(Router *r, const char *model) {
    Err err = {0};
    char *path = router_path(model);
    OK(policy_files_hash(model, r->model_hash, &err));
    OK(router_write(r, path, &err));
    free(path);
}
static void same_router(const Router *a, const Router *b) {
    RouterItem *items = draw(50, 8);
    for (int i = 0; i < 50; i++) {
        CHECK(router_gain(a, &items[i]) == router_gain(b, &items[i])); // bit by bit
        items[i].level = -1;
        CHECK(router_gain(a, &items[i]) == router_gain(b, &items[i]));
    }
    CHECK(a->threshold[0] == b->threshold[0] && a->threshold[1] == b->threshold[1]);
    CHECK(a->levels == b->levels && a->fitted == b->fitted && a->max_tokens == b->max_tokens && a->chat == b->chat);
    for (int l = 0; l < a->levels; l++) {
        CHECK_STR(a->kind[l], b->kind[l]);
        CHECK_INT(a->level[l], b->level[l]);
    }
    CHECK(!b->style[MODE_THINK].instruction && !b->style[MODE_DIRECT].system);
    CHECK_STR(b->style[MODE_THINK].prefix, a->style[MODE_THINK].prefix);
    CHECK_STR(b->style[MODE_DIRECT].instruction, a->style[MODE_DIRECT].instruction);
    CHECK_STR(b->recipe_hash, a->recipe_hash);
    free(items);
}
static const char *const plain_files[] = {"config.json", "model.safetensors", NULL};
static void round_trip(void) {
    Err err = {0};
    Router r = fitted(), back;
    copy_model("tests/data/models/tiny-llama", plain_files);
    CHECK(!router_of_model(folder, &back, &err));
    CHECK(err.code == ERR_NOINPUT && strstr(err.where, "router.json") && strstr(err.msg, "reckon compare")); // it names what makes one
    write_for(&r, folder);
    OK(router_of_model(folder, &back, &err));
    same_router(&r, &back);
    router_free(&back), router_free(&r);
    OK(folder_remove(folder, &err));
}
// A changed byte of any file of weights, of several, of an adapter's base.
static void bound_to_the_weights(void) {
    static const char *const shards[] = {"config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                         "model-00003-of-00003.safetensors", NULL};
    static const struct {
        const char *from;
        const char *const *files;
        const char *changed;
    } cases[] = {{"tests/data/models/tiny-llama", plain_files, "model.safetensors"}, {"tests/data/models/qwen2", shards, "model-00002-of-00003.safetensors"}};
    for (int c = 0; c < COUNT(cases); c++) {
        Err err = {0};
        Router r = fitted(), back;
        copy_model(cases[c].from, cases[c].files);
        write_for(&r, folder);
        OK(router_of_model(folder, &back, &err));
        router_free(&back);
        flip(cases[c].changed);
        CHECK(!router_of_model(folder, &back, &err));
        CHECK_INT(err.code, ERR_DATA);
        CHECK(strstr(err.where, "router.json") && strstr(err.msg, "fitted for other weights") && strstr(err.msg, "reckon compare"));
        CHECK(!back.levels && !back.kind);
        flip(cases[c].changed);
        OK(router_of_model(folder, &back, &err));
        router_free(&back), router_free(&r);
        OK(folder_remove(folder, &err));
    }
}

// ---- malformed files -----------------------------------------------------------------------------------------
// Sets `key` (of the object `in`, or of all of it) to the JSON text `value`, NULL: drops it; sealed anew, so that the seal isn't what is refused.
static void edit(const char *path, const char *in, const char *key, const char *value) {
    Err err = {0};
    json_t *all, *object;
    Buf text = {0};
    char seal[65];
    OK(json_read_file(path, 1 << 20, &all, &err));
    object = in ? json_object_get(all, in) : all;
    if (value) json_object_set_new(object, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else json_object_del(object, key);
    json_object_del(all, "seal");
    json_write(all, &text);
    sha256_hex(text.data, text.size, seal);
    json_object_set_new(all, "seal", json_string(seal));
    text.size = 0;
    json_write(all, &text);
    OK(file_write_atomic(path, text.data, text.size, &err));
    buf_free(&text);
    json_decref(all);
}
static void malformed(void) {
    static const struct {
        const char *in, *key, *value, *says;
    } cases[] = {
        {NULL, "format", "\"reckon router 1\"", "expected 'reckon router"},
        {NULL, "format", NULL, "expected 'reckon router"},
        {NULL, "levels", "7", "'levels'"},
        {NULL, "levels", "[{\"level\":1},{\"level\":2},{\"level\":3}]", "'levels'"},
        {NULL, "levels", "[]", "'think'"}, // the weights are for three
        {NULL, "mean", "[1,2]", "'mean'"},
        {NULL, "mean", "[1,2,\"3\"]", "'mean'"},
        {NULL, "scale", "[1,0,1]", "'scale'"},
        {NULL, "scale", "[1,-1,1]", "'scale'"},
        {NULL, "told", "null", "'think'"},
        {"told", "think", "[1,2,3]", "'think'"},
        {"untold", "direct", NULL, "'direct'"},
        {"untold", "direct", "[1,2,3,4,5]", "'direct'"},
        {"told", "threshold", "\"0.1\"", "'threshold'"},
        {"untold", "threshold", NULL, "'threshold'"},
        {NULL, "prompts", NULL, "'prompts'"},
        {"prompts", "think", "{\"system\":\"s\"}", "'prompts'"},
        {NULL, "max_tokens", "0", "'max_tokens'"},
        {NULL, "max_tokens", "-5", "'max_tokens'"},
        {NULL, "max_tokens", "99999999999", "'max_tokens'"},
        {NULL, "model", NULL, "'model'"},
        {NULL, "model", "\"abc\"", "'model'"},
    };
    Err err = {0};
    Router r = fitted(), back;
    strcpy(folder, "/tmp/reckon-router-XXXXXX");
    CHECK(mkdtemp(folder));
    memset(r.model_hash, 'a', 64);
    for (int c = 0; c < COUNT(cases); c++) {
        OK(router_write(&r, at("router.json"), &err));
        edit(at("router.json"), cases[c].in, cases[c].key, cases[c].value);
        if (router_read(at("router.json"), &back, &err)) FAIL("case %d, %s: it was read", c, cases[c].key);
        CHECK_INT(err.code, ERR_DATA);
        if (!strstr(err.msg, cases[c].says)) FAIL("case %d: got \"%s\", expected it to name %s", c, err.msg, cases[c].says);
        CHECK(!back.levels && !back.kind);
    }
    static const char *const texts[] = {"", "[]", "7", "{", "{}", "{\"format\":\"reckon router 2\"}", "\xff"};
    for (int c = 0; c < COUNT(texts); c++) {
        OK(file_write_atomic(at("router.json"), texts[c], strlen(texts[c]), &err));
        CHECK(!router_read(at("router.json"), &back, &err));
    }
    OK(router_write(&r, at("router.json"), &err));
    Buf text; // one digit, and the seal as it was
    OK(file_read(at("router.json"), 1 << 20, &text, &err));
    char *digit = strstr(text.data, "\"fitted\":300");
    CHECK(digit);
    digit[strlen("\"fitted\":")] = '4';
    OK(file_write_atomic(at("router.json"), text.data, text.size, &err));
    buf_free(&text);
    CHECK(!router_read(at("router.json"), &back, &err));
    CHECK(strstr(err.msg, "seal"));
    router_free(&r);
    OK(folder_remove(folder, &err));
}

static const Test tests[] = {
    {"router known coefficients", known_coefficients},
    {"router no slope left", no_slope_left},
    {"router against scipy", against_scipy},
    {"router confidence", confidence},
    {"router items of evaluations", items_of_evaluations},
    {"router thresholds", thresholds},
    {"router alike are one", alike_are_one},
    {"router degenerate data", degenerate_data},
    {"router round trip", round_trip},
    {"router bound to the weights", bound_to_the_weights},
    {"router malformed", malformed},
};
TEST_MAIN(tests)
