// A talk's cache of keys and values: each turn's tokens, logprobs and entropies are bitwise those of a rollout that computes the
// whole prompt, for every kind of attention, where the next prompt goes on, where it parts ways, and where it is shorter.
#include "family_test.h"
#include "mixture_test.h"

typedef struct Turn {
    int32_t same;  // of what the cache holds
    int32_t fresh; // ids after them
    int32_t max_tokens;
} Turn;
static const Turn turns[] = {{0, 37, 9}, {46, 5, 40}, {60, 1, 3}, {30, 90, 20}, {139, 0, 70}, {3, 1, 2}, {0, 12, 5}, {16, 200, 33}};

static Rollout roll(Policy *p, const Ids *prompt, int turn, PromptCache *cache) {
    Err err = {0};
    RolloutRequest r = {.prompt = prompt->data, .prompt_length = prompt->count, .samples = 1, .seed = 9, .step = (uint32_t)turn,
                        .sampling = {.temperature = turn % 3 ? 0.9 : 0, .top_p = 1, .top_k = turn % 4 ? 0 : 11, .max_tokens = turns[turn].max_tokens}};
    Rollout out;
    OK(policy_rollout(p, &r, 1, &(RolloutOptions){.cache = cache}, &out, &err));
    return out;
}
static void check_turns_of(Policy *p, uint64_t seed) {
    Random r = random_start(seed, STREAM_TEST, 0);
    PromptCache *cache = prompt_cache_open(p);
    Ids course = {0};
    for (int turn = 0; turn < COUNT(turns); turn++) {
        const Turn *t = &turns[turn];
        int32_t fresh[256], known = course.count - 1, same = t->same < course.count ? t->same : course.count;
        random_ids(&r, policy_config(p)->vocabulary, t->fresh, fresh);
        if (same < course.count && t->fresh) fresh[0] = (course.data[same] + 1) % policy_config(p)->vocabulary;
        course.count = same;
        ids_append(&course, fresh, t->fresh);
        Rollout with = roll(p, &course, turn, cache), without = roll(p, &course, turn, NULL);
        int32_t kept = same < known ? same : known < 0 ? 0 : known; // nothing was computed for the last token
        CHECK_INT(with.kept_tokens, kept < course.count - 1 ? kept : course.count - 1);
        CHECK_INT(without.kept_tokens, 0);
        CHECK_INT(with.prompt_tokens, course.count);
        check_same(with.completions, without.completions, turn, 0);
        ids_append(&course, completion_all(with.completions), completion_total(with.completions));
        rollout_free(&with), rollout_free(&without);
    }
    prompt_cache_close(cache);
    ids_free(&course);
}
static void families(void) {
    for (int i = 0; i < COUNT(kinds); i++) {
        ModelConfig c = kind_config(&kinds[i]);
        if (c.rope[0].kind == ROPE_LONGROPE) c.rope[0].original_positions = 512;
        if (c.rope[0].kind == ROPE_DYNAMIC) c.max_positions = 128; // four times the original length, as far as the course goes
        Policy *p = policy_make(&c, NULL, (Precision)(i % 2), 1 + i % 2);
        snprintf(context, sizeof context, "%s", kinds[i].name);
        check_turns_of(p, (uint64_t)i);
        policy_close(p);
    }
}
static void mixtures(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        ModelConfig c = mixture_config(kind);
        Policy *p = policy_make(&c, NULL, (Precision)(kind % 2), 1);
        snprintf(context, sizeof context, "%s", c.model_type);
        check_turns_of(p, (uint64_t)kind);
        policy_close(p);
    }
}
static void one_at_a_time(void) {
    Err err = {0};
    ModelConfig c = shape_config(&shapes[0]);
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    PromptCache *cache = prompt_cache_open(p);
    int32_t ids[] = {1, 2, 3};
    RolloutRequest r = {.prompt = ids, .prompt_length = 3, .samples = 2, .sampling = {.temperature = 1, .top_p = 1, .max_tokens = 2}};
    Rollout out;
    CHECK(!policy_rollout(p, &r, 1, &(RolloutOptions){.cache = cache}, &out, &err) && err.code == ERR_SOFTWARE);
    prompt_cache_close(cache), policy_close(p);
}

static const Test tests[] = {
    {"prompt cache: families", families},
    {"prompt cache: mixtures and latent attention", mixtures},
    {"prompt cache: one sample of one prompt", one_at_a_time},
};
TEST_MAIN(tests)
