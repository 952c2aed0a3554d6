// A look before a stage of GRPO spends anything: a few samples on its first prompts, as its steps will draw them. Where most
// are cut off at max_tokens their rewards say nothing about answers, and the stage is refused with the setting to change.
// Nothing of it enters a step: the samples have a step number of their own, 0.
#include "stages.h"
#include <stdio.h>
#include <stdlib.h>

enum { GRAM = 4, LEAST_GRAMS = 12 };

typedef struct Gram {
    int32_t ids[GRAM];
} Gram;
static int compare_grams(const void *a, const void *b) {
    const int32_t *x = a, *y = b;
    for (int i = 0; i < GRAM; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

// More than half of its runs of four tokens have been there before.
static bool repeats_itself(const Completion *c) {
    int32_t count = c->length - GRAM + 1, repeats = 0;
    if (count < LEAST_GRAMS) return false;
    Gram *grams = xmalloc((size_t)count * sizeof *grams);
    for (int32_t i = 0; i < count; i++)
        for (int k = 0; k < GRAM; k++) grams[i].ids[k] = c->ids[i + k];
    qsort(grams, (size_t)count, sizeof *grams, compare_grams);
    for (int32_t i = 1; i < count; i++) repeats += compare_grams(&grams[i], &grams[i - 1]) == 0;
    free(grams);
    return 2 * repeats > count;
}

bool probe_stage(const Trainer *t, const Stage *stage, ProbeReport *out, Err *err) {
    Stage small = *stage;
    Trainer now = *t;
    now.flight = NULL;
    small.algo.refills = small.staleness = small.partial = 0;
    StepReport report = {0};
    *out = (ProbeReport){0};
    small.group_size = stage->group_size < 4 ? stage->group_size : 4;
    if (small.group_size > stage->probe) small.group_size = stage->probe;
    small.batch = stage->probe / small.group_size < stage->batch ? stage->probe / small.group_size : stage->batch;
    Batch b = {.stage = &small, .stage_step = 1};
    Err ignored = {0};
    bool ok = rollout_batch(&now, &b, &report, err);
    ok = reward_pool_finish(t->rewards, ok ? err : &ignored) && ok; // verdicts go to where the batch lies
    double cut = 0, cut_repetitive = 0, n = b.episode_count;
    for (int i = 0; ok && i < b.episode_count; i++) {
        const Completion *c = &b.episodes[i].completion;
        bool repetitive = repeats_itself(c), truncated = c->finish == FINISH_LENGTH;
        cut += truncated, cut_repetitive += truncated && repetitive;
        out->repetitive += repetitive / n, out->length += c->length / n;
    }
    out->samples = b.episode_count;
    out->truncated = n > 0 ? cut / n : 0;
    out->cut_repetitive = cut > 0 ? cut_repetitive / cut : 0;
    out->prompt_tokens = report.prompt_tokens, out->new_tokens = report.new_tokens;
    batch_free(&b);
    return ok;
}

bool probe_judge(const Stage *stage, int stage_index, const ProbeReport *p, Err *err) {
    if (p->truncated <= stage->max_truncated) return true;
    char at[64];
    snprintf(at, sizeof at, "stages.%d", stage_index + 1);
    if (p->cut_repetitive > 0.5)
        return fail(err, ERR_DATA, at, "%.0f %% of %d samples drawn before step 1 would be cut off at sampling.max_tokens = %d, and most of these repeat "
                    "themselves: a longer limit won't help; lower sampling.temperature, set sampling.stop, train the model first, or allow "
                    "it with max_truncated", 100 * p->truncated, p->samples, stage->sampling.max_tokens);
    return fail(err, ERR_DATA, at, "%.0f %% of %d samples drawn before step 1 would be cut off at sampling.max_tokens = %d: raise it, close long "
                "thinking with sampling.think_tokens, set sampling.stop, or allow it with max_truncated", 100 * p->truncated, p->samples,
                stage->sampling.max_tokens);
}
