// Evaluations against a model, tasks and rewards made up at the boundary: a "model" that answers what it is told to, a
// tokenizer whose ids are characters. Tests what evaluate.c adds: requests, text, token counts, FLOPs, what is correct.
#include "../../rl/accounts.h"
#include "../../rl/stages.h"
#include "../test.h"
#include "rl.h"

// ---- the world around ------------------------------------------------------------------------------------
const char *const mode_names[MODES] = {"think", "direct"};
enum { EOS = 0, THINK_END = 2, LEVEL_COUNT = 3 };

static struct {
    bool think_token;          // the vocabulary has "</think>" as one token
    const char *answer;        // what the model writes; '|' stands for the token "</think>" or its characters
    bool stops;                // it ends with end of sequence, otherwise by length
    int32_t max_tokens;        // seen in the requests
    double temperature;
    int submitted, requests;
    uint64_t seed_sum;
    char last_text[256];
} world;

const ModelConfig *policy_config(const Policy *p) {
    (void)p;
    static const ModelConfig config;
    return &config;
}
// So that FLOPs spell out which tokens were counted: 1 a token, 1000 a head, and a millionth of the context.
double config_flops(const ModelConfig *c, double context, bool with_head) {
    (void)c;
    return 1 + (with_head ? 1000 : 0) + context * 1e-6;
}
const Tokenizer *policy_tokenizer(const Policy *p) { return (const Tokenizer *)(const void *)p; }
int32_t tokenizer_eos(const Tokenizer *t) { return (void)t, EOS; }
int32_t tokenizer_id(const Tokenizer *t, const char *token) {
    (void)t;
    return !strcmp(token, "</think>") && world.think_token ? THINK_END : -1;
}
bool tokenizer_decode(const Tokenizer *t, const int32_t *ids, int32_t count, bool skip_special, Buf *out, Err *err) {
    (void)t, (void)err;
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == THINK_END && !skip_special) buf_puts(out, "</think>");
        else if (ids[i] == EOS) buf_puts(out, "<eos>");
        else buf_append(out, &(char){(char)ids[i]}, 1);
    return true;
}

bool policy_rollout(Policy *p, const RolloutRequest *requests, int32_t count, const RolloutOptions *options, Rollout *out,
                    Err *err) {
    (void)p, (void)options, (void)err;
    *out = (Rollout){0};
    for (int i = 0; i < count; i++) out->count += requests[i].samples;
    out->completions = xcalloc((size_t)out->count, sizeof(Completion));
    for (int i = 0; i < out->count; i++) {
        Ids ids = {0};
        for (const char *s = world.answer; *s; s++)
            if (*s != '|') ids_push(&ids, *s);
            else if (world.think_token) ids_push(&ids, THINK_END);
            else for (const char *e = "</think>"; *e; e++) ids_push(&ids, *e);
        if (world.stops) ids_push(&ids, EOS);
        out->completions[i] = (Completion){.length = ids.count, .ids = ids.data, .logprob = xcalloc((size_t)ids.count + 1, sizeof(float)), .finish = world.stops ? FINISH_STOP : FINISH_LENGTH};
        out->new_tokens += ids.count;
    }
    world.requests += count;
    world.temperature = requests[0].sampling.temperature, world.max_tokens = requests[0].sampling.max_tokens;
    return true;
}
double energy_joules(Energy *e) { return (void)e, NAN; }
void rollout_free(Rollout *r) {
    for (int i = 0; i < r->count; i++) free(r->completions[i].ids), free(r->completions[i].logprob);
    free(r->completions);
}

int tasks_level_count(const Tasks *t) { return (void)t, LEVEL_COUNT; }
void tasks_level(const Tasks *t, int index, TaskLevel *out) { (void)t, *out = (TaskLevel){"sums", index + 1, 100}; }
// The third level has no held-out items at all.
bool tasks_held_out(const Tasks *t, int level, int count, Arena *arena, Item *out, int *found, Err *err) {
    (void)t, (void)err;
    *found = level == 2 ? 0 : count < 4 ? count : 4;
    for (int i = 0; i < *found; i++)
        out[i] = (Item){.kind = arena_strdup(arena, "sums"), .level = level + 1, .prompt = arena_strdup(arena, "1+1"),
                        .truth = arena_strdup(arena, i < 3 ? "2" : "3")};
    return true;
}
bool prompt_render(const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, Ids *out, Err *err) {
    (void)r, (void)t, (void)mode, (void)err;
    for (const char *s = item->prompt; *s; s++) ids_push(out, *s);
    return true;
}

// No environment among the rewards.
bool dialogues_open(const DialogueSetup *setup, Dialogues **out, Err *err) { return (void)setup, (void)err, *out = NULL, true; }
void dialogues_close(Dialogues *d) { (void)d; }
bool dialogue_prompt(const Dialogues *d, const Recipe *r, const Tokenizer *t, const Item *item, Mode mode, int index, Ids *out, Err *err) {
    return (void)d, (void)index, prompt_render(r, t, item, mode, out, err);
}
const char *const *dialogue_stops(Dialogues *d, int index, const char *const *stop) { return (void)d, (void)index, stop; }
bool dialogue_turn_ended(Dialogues *d, int32_t request, int32_t sample, const Completion *c) { return (void)d, (void)request, (void)sample, (void)c, false; }
bool dialogue_next_turn(Dialogues *d, bool wait, NextTurn *out, Err *err) { return (void)d, (void)wait, (void)out, (void)err, true; }
const EnvironmentResult *dialogue_result(const Dialogues *d, int32_t request, int32_t sample) { return (void)d, (void)request, (void)sample, NULL; }

// Two rewards: "match" gives 0.5 twice in its parts if the text ends with the truth, "bonus" always gives 5.
bool reward_pool_submit(RewardPool *pool, const RewardSample *s, Verdict *out, Err *err) {
    (void)pool, (void)err;
    size_t n = strlen(s->truth);
    bool right = s->completion_size >= n && !strcmp(s->completion + s->completion_size - n, s->truth);
    *out = (Verdict){.state = VERDICT_SCORED, .score = 5, .part_count = 3};
    strcpy(out->parts[0].name, "match.a"), strcpy(out->parts[1].name, "match.b"), strcpy(out->parts[2].name, "matching");
    out->parts[0].value = out->parts[1].value = right ? 0.5 : 0;
    out->parts[2].value = 5;
    if (strstr(s->completion, "boom")) *out = (Verdict){.state = VERDICT_ERROR, .score = NAN};
    world.submitted++, world.seed_sum += s->seed;
    snprintf(world.last_text, sizeof world.last_text, "%s", s->completion);
    return true;
}
bool reward_pool_finish(RewardPool *pool, Err *err) { return (void)pool, (void)err, true; }

// ---- tests -----------------------------------------------------------------------------------------------
static const Recipe recipe = {.seed = 5, .evaluate_sampling = {.temperature = 0.7, .max_tokens = 33}};

static Evaluation answer(Mode mode, const char *text, bool think_token, bool stops, int samples) {
    Err err = {0};
    Evaluation e;
    memset(&world, 0, sizeof world);
    world.answer = text, world.think_token = think_token, world.stops = stops;
    char policy;
    OK(evaluate((Policy *)(void *)&policy, &recipe, NULL, NULL, mode, 4, samples, &e, &err));
    return e;
}

static void thinking_is_counted(void) {
    for (int token = 0; token < 2; token++) {
        int32_t end = token ? 1 : 8;
        Evaluation e = answer(MODE_THINK, "ab|2", token, true, 0);
        CHECK_INT(e.count, 8);
        CHECK_INT(e.items[0].think_tokens, 2 + end);
        CHECK_INT(e.items[0].answer_tokens, 2); // with end of sequence
        CHECK_INT(e.items[0].tokens, 4 + end);
        CHECK_STR(e.items[0].completion, "ab</think>2");
        CHECK_STR(world.last_text, "ab</think>2");
        CHECK(!e.items[0].truncated);
        evaluation_free(&e);
        e = answer(MODE_THINK, "abc", token, false, 0);
        CHECK(e.items[0].truncated && e.items[0].think_tokens == 3 && e.items[0].answer_tokens == 0);
        evaluation_free(&e);
        e = answer(MODE_DIRECT, "a|2", token, true, 0);
        CHECK(e.items[0].think_tokens == 0 && e.items[0].answer_tokens == 3 + end);
        evaluation_free(&e);
    }
    Evaluation e = answer(MODE_THINK, "", true, true, 0); // nothing but the end
    CHECK(e.items[0].tokens == 1 && e.items[0].think_tokens == 1);
    evaluation_free(&e);
}

static void first_reward_decides(void) {
    Evaluation e = answer(MODE_DIRECT, "2", true, true, 0);
    for (int i = 0; i < 8; i++) CHECK(e.items[i].correct == (i % 4 < 3) && e.items[i].pass == (i % 4 < 3));
    evaluation_free(&e);
    e = answer(MODE_DIRECT, "boom 2", true, true, 0);
    CHECK(!e.items[0].correct && e.items[0].verdict == VERDICT_ERROR);
    evaluation_free(&e);
}

static void cost_of_an_answer(void) {
    // Prompt of 3: heads for the last only; 4 new tokens: the last is never fed back.
    Evaluation e = answer(MODE_DIRECT, "123", true, true, 0);
    double want = 3 + 1000 + (1 + 2 + 3) * 1e-6 + 3 * 1001 + (4 + 5 + 6) * 1e-6;
    CHECK_NEAR(e.items[0].flops, want, 1e-9);
    CHECK_INT(e.items[0].prompt_tokens, 3);
    CHECK_INT(e.new_tokens, 8 * 4);
    evaluation_free(&e);
    e = answer(MODE_DIRECT, "123", true, true, 5);
    CHECK_NEAR(e.items[0].flops, want, 1e-9); // of one answer, not of five
    evaluation_free(&e);
}

static void greedy_and_sampled_requests(void) {
    Evaluation e = answer(MODE_THINK, "2", true, true, 0);
    CHECK(world.temperature == 0 && world.max_tokens == 33 && world.submitted == 8 && world.requests == 8);
    uint64_t think = world.seed_sum;
    evaluation_free(&e);
    e = answer(MODE_DIRECT, "2", true, true, 3);
    CHECK(world.temperature == 0.7 && world.submitted == 24 && world.seed_sum != think);
    evaluation_free(&e);
}

static void document(void) {
    Evaluation e = answer(MODE_DIRECT, "2", true, true, 0);
    json_t *j = evaluation_json(&e, NULL), *levels = json_object_get(j, "levels"), *first = json_array_get(levels, 0);
    CHECK_STR(json_string_value(json_object_get(j, "mode")), "direct");
    CHECK_INT(json_array_size(levels), LEVEL_COUNT);
    CHECK_STR(json_string_value(json_object_get(first, "outcomes")), "1110");
    CHECK_NEAR(json_real_value(json_object_get(first, "accuracy")), 0.75, 0);
    CHECK_NEAR(json_real_value(json_object_get(first, "tokens")), 2, 0);
    json_t *empty = json_array_get(levels, 2);
    CHECK(json_is_null(json_object_get(empty, "accuracy")) && json_integer_value(json_object_get(empty, "items")) == 0);
    json_decref(j);
    evaluation_free(&e);
}

static const Test tests[] = {
    {"thinking_is_counted", thinking_is_counted},
    {"first_reward_decides", first_reward_decides},
    {"cost_of_an_answer", cost_of_an_answer},
    {"greedy_and_sampled_requests", greedy_and_sampled_requests},
    {"document", document},
};
TEST_MAIN(tests)
