// doctor RUN: made-up runs of one symptom each, told from healthy ones; too short ones; evidence and advice name figures.
#include "../test.h"
#include "accounts.h"
#include "files.h"
#include <math.h>
#include <unistd.h>

enum { STEPS = 40 };
static char folder[64];

typedef struct Shape { // a figure at the start and at the end, straight in between
    double from, to;
} Shape;
typedef struct Case {
    const char *name, *symptom; // NULL: nothing is found
    Shape reward, entropy, length, truncated, flat, clip, kl, accuracy;
    double failed;
    bool skipped, peak; // peak: the reward rises to 0.8 in the middle
    bool supervised;
    Shape loss;
    Shape stale, corrected; // shares of the tokens; corrected below 0: there is no correction
    int staleness;
    bool dead; // one of four experts gets next to nothing
    bool int8;
} Case;
static const Case cases[] = {
    {.name = "healthy"},
    {"flat, too hard", "no variance", .flat = {0.3, 0.9}, .reward = {0.1, 0.2}},
    {"entropy gone", "entropy collapse", .entropy = {0.9, 0.01}, .reward = {0.3, 0.32}, .flat = {0.2, 0.45}},
    {"noise", "entropy explosion", .entropy = {0.6, 2.4}, .reward = {0.35, 0.3}},
    {"longer", "length without reward", .length = {40, 120}, .reward = {0.3, 0.31}},
    {"hacked", "reward hacking", .accuracy = {0.40, 0.39}, .reward = {0.2, 0.9}},
    {"cut off", "truncation", .truncated = {0.1, 0.7}},
    {"fell apart", "collapse", .peak = true, .reward = {0.3, 0.3}, .accuracy = {0.3, 0.3}},
    {"clipped", "steps too large", .clip = {0.1, 0.6}},
    {"still", "nothing moves", .reward = {0.3, 0.3}, .entropy = {0.9, 0.9}, .accuracy = {0.3, 0.3}},
    {"held by KL", "KL too strong", .kl = {0, 12}},
    {"too old", "stale samples", .stale = {0.9, 0.9}, .corrected = {0.05, 0.3}, .staleness = 3},
    {"old, not corrected", "stale samples", .stale = {0.9, 0.9}, .corrected = {-1, -1}, .staleness = 6},
    {.name = "a little old", .stale = {0.9, 0.9}, .corrected = {0.01, 0.02}, .staleness = 2},
    {"errors", "failing rewards", .failed = 0.1},
    {"NaN", "skipped steps", .skipped = true},
    {.name = "supervised", .supervised = true},
    {"rounded", "rollouts in 8 bits", .int8 = true},
    {.name = "starved", .symptom = "dead experts", .dead = true},
    {.name = "starved, supervised", .symptom = "dead experts", .supervised = true, .dead = true},
    {"worse", "rising loss", .supervised = true, .loss = {1, 3}},
};

// What a case doesn't say is healthy.
static double at(Shape s, Shape healthy, int step) {
    if (s.from == 0 && s.to == 0) s = healthy;
    return s.from + (s.to - s.from) * (step - 1) / (STEPS - 1);
}

static void write_step(Ledger *l, const Case *c, int step) {
    Err err = {0};
    Random r = random_start(1, STREAM_TEST, (uint64_t)step);
    double wobble = 0.02 * random_normal(&r);
    int failed = (int)(100 * c->failed);
    StepReport s = {.step = step, .stage_step = step, .kind = c->supervised ? STAGE_SFT : STAGE_GRPO, .loss = at(c->loss, (Shape){2, 1}, step), .learning_rate = 1e-4,
                    .gradient_norm = 1, .reward_mean = at(c->reward, (Shape){0.3, 0.6}, step) + wobble, .reward_std = 0.4, .entropy = at(c->entropy, (Shape){0.9, 0.6}, step),
                    .kl = at(c->kl, (Shape){0, 0.01}, step), .clip_share = at(c->clip, (Shape){0.05, 0.05}, step), .ratio_max = 0.2, .length_mean = at(c->length, (Shape){40, 44}, step),
                    .truncated_share = at(c->truncated, (Shape){0.02, 0.02}, step), .groups = 100, .groups_without_variance = (int)(100 * at(c->flat, (Shape){0.2, 0.2}, step)),
                    .stale_tokens = (int64_t)(100 * at(c->length, (Shape){40, 44}, step) * at(c->stale, (Shape){0, 0}, step)), .staleness = c->staleness,
                    .corrected_share = c->corrected.from < 0 ? NAN : at(c->corrected, (Shape){0, 0}, step), .sampler_gap = c->int8 ? 0.01 : 0, .skipped = c->skipped && step == 7, .measured = {.seconds = 1}};
    s.groups_trained = s.groups - s.groups_without_variance;
    s.verdicts[VERDICT_SCORED] = 100 - failed, s.verdicts[VERDICT_ERROR] = failed;
    if (c->peak) s.reward_mean = 0.3 + 0.5 * sin(3.14159 * (step - 1) / (STEPS - 1)) + wobble;
    int32_t layers[] = {1, 3};
    int64_t rows[] = {90, 110, 100, 80, 100, c->dead ? 3 : 60, 150, c->dead ? 0 : 70};
    s.experts = (ExpertLoad){.layers = 2, .experts = 4, .layer = layers, .rows = rows};
    OK(ledger_step(l, &s, NULL, &err));
    if (step != 1 && step != STEPS) return;
    json_t *e = json_pack("{s:s, s:[{s:i,s:f}]}", "mode", "think", "levels", "items", 4000, "accuracy", at(c->accuracy, (Shape){0.3, 0.5}, step)), *m = json_object();
    OK(ledger_evaluation(l, step, "think", e, m, &err));
    json_decref(e), json_decref(m);
}

static json_t *diagnose(const Case *c, int steps) {
    Err err = {0};
    Ledger *l;
    json_t *diagnosis, *facts = json_pack("{s:s}", "recipe_hash", "ab"), *machine = json_object();
    snprintf(folder, sizeof folder, "/tmp/reckon-diagnose-%d", (int)getpid());
    OK(folder_remove(folder, &err));
    OK(folder_make(folder, &err));
    char *path = path_join(folder, "recipe.resolved.json"), *text = xasprintf("{\"stages\": [{\"kind\": \"%s\", \"name\": \"main\", \"optimizer\": {\"learning_rate\": 0.0001}, "
                                                                           "\"sampling\": {\"max_tokens\": 128}, \"algo\": {\"kl\": 0.04}, \"rollout\": {\"precision\": \"%s\"}}]}",
                                                                           c->supervised ? "sft" : "grpo", c->int8 ? "int8" : "same");
    OK(file_write_atomic(path, text, strlen(text), &err));
    free(path), free(text);
    OK(ledger_open(folder, false, &l, &err));
    OK(ledger_run(l, facts, machine, &err));
    for (int step = 1; step <= steps; step++) write_step(l, c, step);
    ledger_close(l);
    OK(diagnose_run(folder, &diagnosis, &err));
    json_decref(facts), json_decref(machine);
    OK(folder_remove(folder, &err));
    return diagnosis;
}

static void each_symptom(void) {
    for (int i = 0; i < COUNT(cases); i++) {
        json_t *d = diagnose(&cases[i], STEPS), *findings = json_object_get(d, "findings"), *first = json_array_get(findings, 0);
        size_t expected = cases[i].symptom != NULL;
        if (json_array_size(findings) != expected)
            FAIL("%s: %zu findings, expected %zu; the first: %s", cases[i].name, json_array_size(findings), expected,
                 first ? json_string_value(json_object_get(first, "symptom")) : "-");
        if (first) {
            CHECK_STR(json_string_value(json_object_get(first, "symptom")), cases[i].symptom);
            CHECK_STR(json_string_value(json_object_get(first, "stage")), "main");
            CHECK(strpbrk(json_string_value(json_object_get(first, "seen")), "0123456789") && strlen(json_string_value(json_object_get(first, "change"))) > 20);
        }
        json_decref(d);
    }
}

static void short_runs(void) {
    json_t *d = diagnose(&cases[1], 7), *stage = json_array_get(json_object_get(d, "stages"), 0);
    CHECK(json_array_size(json_object_get(d, "findings")) == 0 && json_is_false(json_object_get(stage, "looked_at")));
    CHECK_INT(json_integer_value(json_object_get(stage, "steps")), 7);
    json_decref(d);
    Err err = {0};
    CHECK(!diagnose_run("/nowhere", &d, &err) && err.code == ERR_NOINPUT);
}

static const Test tests[] = {{"each symptom", each_symptom}, {"short runs", short_runs}};
TEST_MAIN(tests)
