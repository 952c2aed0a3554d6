// Distillation from a teacher's distributions (Agarwal et al. 2024, "GKD"): at each place of a completion the policy learns the whole
// distribution that the teacher has there, not one token of it. In a share of the steps, drawn from the seed, the completions
// are the policy's own samples (on-policy: it learns where it goes itself), scored and on the ledger as in GRPO; in the others
// they are examples as sft has them, or the teacher's samples. The loss is the mean divergence over all completion tokens of the
// step. Rewards are reported and change nothing. Of a teacher that is asked over HTTP there are no distributions: its samples are
// learned as sft learns examples.
#include "stages.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What a step learns from: `samples` completions each of `count` prompts.
typedef struct Lesson {
    int count, samples;
    const Ids **prompts;            // [count]
    const Completion **completions; // [count * samples]
    double total;                   // completion tokens of the step
} Lesson;

bool distill_open(Trainer *t, const Stage *stage, Err *err) {
    TRY(sft_open(t, stage, err) && teacher_open(t, stage, err));
    return t->endpoint || policy_check_teacher(t->policy, t->teacher, stage->teacher, err);
}
void distill_close(Trainer *t) {
    sft_close(t);
    teacher_close(t);
}

static bool learn_microbatch(const Trainer *t, const Stage *stage, Packing *packing, double total, StepReport *report, Err *err) {
    const Packed *batch = packing_view(packing);
    int64_t N = batch->target_count;
    if (t->endpoint) return likelihood_microbatch(t, packing, total, report, err);
    if (N == 0) return true;
    Arena arena = {0};
    float *divergence = ARENA_NEW(&arena, float, N), *logprob = ARENA_NEW(&arena, float, N), *entropy = ARENA_NEW(&arena, float, N);
    float *weight = ARENA_NEW(&arena, float, N);
    for (int64_t i = 0; i < N; i++) weight[i] = (float)(1.0 / total);
    bool ok = policy_distill(t->policy, t->teacher, batch, stage->beta, weight, divergence, logprob, entropy, err);
    for (int64_t i = 0; ok && i < N; i++) {
        report->loss += (double)divergence[i] / total;
        report->entropy += (double)entropy[i] / total;
    }
    report->trained_tokens += N;
    arena_reset(&arena);
    return ok;
}

static bool learn(const Trainer *t, const Stage *stage, const Lesson *l, StepReport *report, Err *err) {
    int64_t limit = microbatch_limit(stage, policy_on_host(t->policy)), tokens = 0;
    Packing packing = {0};
    bool ok = true;
    for (int i = 0; i < l->count; i++) tokens += packing_tokens(l->prompts[i]->count, l->completions + i * l->samples, l->samples);
    packing_routers(&packing, &stage->optimizer, tokens);
    policy_zero_gradients(t->policy);
    packing_reset(&packing, stage->temperature);
    for (int i = 0; ok && i < l->count; i++) {
        const Completion *const *completions = l->completions + i * l->samples;
        PackingPart part;
        for (int s = 0; ok && s < l->samples; s += part.count) {
            part = packing_part(l->prompts[i]->count, completions + s, l->samples - s);
            if (packing_is_full(&packing, part.tokens, limit)) {
                ok = learn_microbatch(t, stage, &packing, l->total, report, err);
                packing_reset(&packing, stage->temperature);
            }
            packing_group(&packing, l->prompts[i], completions + s, part.count);
        }
    }
    ok = ok && learn_microbatch(t, stage, &packing, l->total, report, err);
    packing_free(&packing);
    return ok;
}

// A request that failed has nothing to learn: each sample stands alone, with its prompt.
static bool answered_lesson(Batch *batch, Lesson *l) {
    *l = (Lesson){.samples = 1, .prompts = ARENA_NEW(&batch->arena, const Ids *, batch->episode_count),
                  .completions = ARENA_NEW(&batch->arena, const Completion *, batch->episode_count)};
    for (int i = 0; i < batch->episode_count; i++) {
        const Completion *c = &batch->episodes[i].completion;
        if (c->length == 0) continue;
        l->prompts[l->count] = &batch->prompts[i / batch->group_size].ids;
        l->completions[l->count++] = c;
    }
    return true;
}

// Prompts with the completions that `sampler` gives them.
static bool sample_lesson(const Trainer *t, Policy *sampler, Batch *batch, Lesson *l, StepReport *report, Err *err) {
    Trainer with = *t;
    with.policy = sampler;
    TRY(sample_and_score(&with, batch, report, err));
    report->groups = batch->prompt_count;
    report->entropy = 0; // of the policy, where it learns
    if (t->endpoint) return answered_lesson(batch, l);
    *l = (Lesson){.count = batch->prompt_count, .samples = batch->group_size, .prompts = ARENA_NEW(&batch->arena, const Ids *, batch->prompt_count),
                  .completions = ARENA_NEW(&batch->arena, const Completion *, batch->episode_count)};
    for (int i = 0; i < batch->prompt_count; i++) l->prompts[i] = &batch->prompts[i].ids;
    for (int i = 0; i < batch->episode_count; i++) l->completions[i] = &batch->episodes[i].completion;
    return true;
}

static bool example_lesson(const Trainer *t, const Stage *stage, Examples *e, Arena *arena, Lesson *l, StepReport *report, Err *err) {
    TRY(examples_make(t, stage, report->stage_step, arena, e, err));
    *l = (Lesson){.count = e->count, .samples = 1, .prompts = ARENA_NEW(arena, const Ids *, e->count),
                  .completions = ARENA_NEW(arena, const Completion *, e->count)};
    for (int i = 0; i < e->count; i++) {
        const Completion *c = l->completions[i] = &e->completions[i];
        l->prompts[i] = &e->prompts[i];
        report->prompt_tokens += e->prompts[i].count + completion_total(c) - c->length;
        report->length_mean += c->length / (double)e->count;
        report->given_mean += (completion_total(c) - c->length) / (double)e->count;
    }
    return true;
}

bool distill_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) {
    Arena arena = {0};
    Examples examples;
    Lesson l = {0};
    double draw = random_uniform(random_key(t->recipe->seed, STREAM_SHUFFLE), (uint32_t)t->stage_index, (uint32_t)report->stage_step, 0, 3);
    bool own = draw < stage->on_policy, sampled = own || stage->off_policy == OFF_POLICY_TEACHER;
    examples_start(&examples, stage->batch, &arena);
    bool ok = sampled ? sample_lesson(t, own || t->endpoint ? t->policy : t->teacher, batch, &l, report, err)
                      : example_lesson(t, stage, &examples, &arena, &l, report, err);
    report->kl = report->clip_share = report->ratio_max = NAN;
    double start = clock_seconds();
    for (int i = 0; ok && i < l.count * l.samples; i++) l.total += l.completions[i]->length;
    ok = ok && learn(t, stage, &l, report, err);
    double now = clock_seconds();
    ok = ok && optimizer_apply(t->policy, &stage->optimizer, schedule_rate(&stage->optimizer, report->stage_step, stage->steps), report, err);
    report->measured.train = now - start;
    report->measured.optimizer = clock_seconds() - now;
    report->groups_trained = sampled ? report->groups : l.count;
    examples_free(&examples, &arena);
    return ok;
}
