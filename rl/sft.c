// Supervised fine-tuning: the mean negative log-likelihood of the target tokens of a batch. Prompts are not scored.
#include "stages.h"
#include <stdlib.h>
#include <string.h>


typedef struct Example {
    Ids prompt, target;
} Example;

static bool make_example(const Trainer *t, const Stage *stage, uint64_t index, Arena *arena, Example *out, Err *err) {
    Item item;
    Mode mode = mode_of_prompt(t->recipe, stage, t->stage_index, index);
    TRY(tasks_train_item(t->tasks, stage, index, arena, &item, err));
    TRY(prompt_render(t->recipe, policy_tokenizer(t->policy), &item, mode, &out->prompt, err));
    return demonstration_render(t->recipe, policy_tokenizer(t->policy), &item, mode, &out->target, err);
}

static bool run_microbatch(const Trainer *t, Packing *packing, double total, StepReport *report, Err *err) {
    const Packed *batch = packing_view(packing);
    int64_t N = batch->target_count;
    if (N == 0) return true;
    Arena arena = {0};
    float *logprob = ARENA_NEW(&arena, float, N), *entropy = ARENA_NEW(&arena, float, N), *dlogprob = ARENA_NEW(&arena, float, N);
    bool ok = policy_forward(t->policy, batch, true, logprob, entropy, err);
    for (int64_t i = 0; ok && i < N; i++) {
        report->loss -= (double)logprob[i] / total;
        report->entropy += (double)entropy[i] / total;
        dlogprob[i] = (float)(-1.0 / total);
    }
    ok = ok && policy_backward(t->policy, batch, dlogprob, NULL, err);
    report->trained_tokens += N;
    arena_reset(&arena);
    return ok;
}

static bool train_on(const Trainer *t, const Stage *stage, const Example *examples, StepReport *report, Err *err) {
    int64_t total = 0, limit = stage->microbatch_tokens > 0 ? stage->microbatch_tokens : DEFAULT_MICROBATCH_TOKENS;
    for (int i = 0; i < stage->batch; i++) total += examples[i].target.count;
    Packing packing = {0};
    bool ok = true;
    policy_zero_gradients(t->policy);
    packing_reset(&packing, 1.0);
    for (int i = 0; ok && i < stage->batch; i++) {
        const Example *e = &examples[i];
        if (packing.tokens.count > 0 && packing.tokens.count + e->prompt.count + e->target.count > limit) {
            ok = run_microbatch(t, &packing, (double)total, report, err);
            packing_reset(&packing, 1.0);
        }
        packing_prompt(&packing, e->prompt.data, e->prompt.count);
        packing_completion(&packing, &(Completion){.ids = e->target.data, .length = e->target.count});
        report->prompt_tokens += e->prompt.count;
    }
    ok = ok && run_microbatch(t, &packing, (double)total, report, err);
    packing_free(&packing);
    return ok;
}

bool sft_step(const Trainer *t, int stage_step, StepReport *report, Err *err) {
    const Stage *stage = &t->recipe->stages[t->stage_index];
    Arena arena = {0};
    Example *examples = ARENA_NEW(&arena, Example, stage->batch);
    bool ok = true;
    for (int i = 0; ok && i < stage->batch; i++)
        ok = make_example(t, stage, (uint64_t)(stage_step - 1) * (uint64_t)stage->batch + (uint64_t)i, &arena, &examples[i], err);
    double start = clock_seconds();
    ok = ok && train_on(t, stage, examples, report, err);
    double now = clock_seconds();
    ok = ok && optimizer_apply(t->policy, &stage->optimizer, schedule_rate(&stage->optimizer, stage_step, stage->steps), report, err);
    report->measured.train = now - start;
    report->measured.optimizer = clock_seconds() - now;
    for (int i = 0; i < stage->batch; i++) ids_free(&examples[i].prompt), ids_free(&examples[i].target);
    arena_reset(&arena);
    return ok;
}
