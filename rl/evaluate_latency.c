// How long a person waits: items answered one at a time, the way a single user would be. Throughput, where many are answered
// together, is measured by the evaluation itself.
#include "compare_run.h"
#include <string.h>

static bool time_one(Policy *p, const Recipe *r, const EvaluateOptions *o, const Item *item, int samples, uint32_t index, double *seconds, Err *err) {
    Ids prompt = {0};
    Rollout rollout = {0};
    Sampling sampling = o->sampling ? *o->sampling : r->evaluate_sampling;
    if (o->samples <= 0 && !o->level_samples) sampling.temperature = 0;
    if (o->mode == MODE_DIRECT) sampling.think_tokens = 0;
    double start = clock_seconds();
    bool ok = prompt_render(r, policy_tokenizer(p), item, o->mode, &prompt, err);
    RolloutRequest request = {.prompt = prompt.data, .prompt_length = prompt.count, .samples = samples, .sampling = sampling, .seed = r->seed,
                              .prompt_index = index};
    ok = ok && policy_rollout(p, &request, 1, NULL, &rollout, err);
    *seconds = clock_seconds() - start;
    if (ok) rollout_free(&rollout);
    ids_free(&prompt);
    return ok;
}

bool evaluate_latency(Policy *p, const Recipe *r, const Tasks *t, RewardPool *rewards, const EvaluateOptions *o, int count, double *seconds,
                      int *measured, Err *err) {
    int levels = tasks_level_count(t);
    *measured = 0;
    if (reward_pool_environment(rewards)) return true;
    Arena arena = {0};
    bool ok = true;
    for (int l = 0; ok && l < levels; l++) {
        int wanted = count / levels + (l < count % levels), found = 0;
        if (wanted > o->items) wanted = o->items;
        Item *items = ARENA_NEW(&arena, Item, wanted + 1);
        ok = tasks_held_out(t, l, wanted, &arena, items, &found, err);
        // A strategy's draws of one answer: those of its first seed.
        int samples = o->level_samples ? o->level_samples[l] : o->samples > 0 ? o->samples : 1;
        for (int i = 0; ok && i < found; i++) {
            ok = time_one(p, r, o, &items[i], samples, (uint32_t)*measured, &seconds[*measured], err);
            if (ok) ++*measured;
        }
    }
    arena_reset(&arena);
    return ok;
}
