// From advantages to new weights: minibatches of whole groups, packed into microbatches, one forward and one backward
// each. The denominators are those of the whole step, so that the split into microbatches changes no gradient.
//
// On the first minibatch after a rollout the policy is the one that sampled: its logprobs must be those of the sampler
// bit for bit (invariant 1), which is checked on every token of every such step.
#include "stages.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MICROBATCH_TOKENS = 4096 };

bool optimizer_apply(Policy *p, const Optimizer *o, double learning_rate, StepReport *report, Err *err) {
    double norm = policy_gradient_norm(p);
    report->gradient_norm = norm;
    report->learning_rate = learning_rate;
    if (!isfinite(norm)) {
        report->skipped = true;
        return true;
    }
    double scale = o->max_gradient_norm > 0 && norm > o->max_gradient_norm ? o->max_gradient_norm / (norm + 1e-6) : 1.0;
    return policy_update(p, &(AdamW){.learning_rate = learning_rate, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps,
                                     .weight_decay = o->weight_decay, .scale = scale}, err);
}

void advantages_assign(const Stage *stage, Batch *b, StepReport *report) {
    double *reward = ARENA_NEW(&b->arena, double, b->episode_count), *advantage = ARENA_NEW(&b->arena, double, b->episode_count);
    bool *scorable = ARENA_NEW(&b->arena, bool, b->episode_count), *variance = ARENA_NEW(&b->arena, bool, b->prompt_count);
    for (int i = 0; i < b->episode_count; i++) {
        scorable[i] = b->episodes[i].verdict.state == VERDICT_SCORED;
        reward[i] = scorable[i] ? b->episodes[i].verdict.score : 0;
    }
    int *group = ARENA_NEW(&b->arena, int, b->episode_count);
    for (int i = 0; i < b->episode_count; i++) group[i] = i / b->group_size;
    advantage_compute(&(AdvantageInput){.kind = stage->algo.advantage, .eps = stage->algo.advantage_eps, .scale = true, .count = b->episode_count,
                                        .group = group, .groups = b->prompt_count, .reward = reward, .scorable = scorable}, advantage, variance);
    for (int i = 0; i < b->episode_count; i++) {
        Episode *e = &b->episodes[i];
        e->active = scorable[i] && !(stage->algo.mask_truncated && e->completion.finish == FINISH_LENGTH);
        e->advantage = e->active ? advantage[i] : 0;
    }
    report->groups = b->prompt_count;
    for (int i = 0; i < b->prompt_count; i++) {
        b->prompts[i].has_variance = variance[i];
        report->groups_without_variance += !variance[i];
    }
}

void batch_free(Batch *b) {
    rollout_free(&b->rollout);
    arena_reset(&b->arena);
    *b = (Batch){0};
}

typedef struct Update {
    const Trainer *t;
    Batch *batch;
    StepReport *report;
    const Algo *algo;
    Packing packing;
    Episode **episodes; // of the microbatch
    int episode_count;
    double step_sequences, step_tokens, rollout_tokens;
    double loss, kl, clipped, tokens, ratio_max;
    bool on_policy;
} Update;

// Every active sequence has a gradient where the loss has terms besides the advantage.
static bool has_gradient(const Algo *a, const Episode *e) { return e->active && (e->advantage != 0 || a->kl > 0 || a->entropy != 0); }

static double *doubles(Arena *a, const float *x, int64_t n) {
    double *y = ARENA_NEW(a, double, n);
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

// Invariant 1, on every on-policy token.
static bool assert_same_bits(const Update *u, const float *logprob, Err *err) {
    int64_t at = 0;
    for (int i = 0; i < u->episode_count; i++) {
        const Episode *e = u->episodes[i];
        for (int32_t j = 0; j < e->completion.length; j++, at++)
            if (memcmp(&logprob[at], &e->completion.logprob[j], 4) != 0)
                return fail(err, ERR_SOFTWARE, "sampler and trainer",
                            "differ at step %lld prompt %d sample %d token %d (id %d): the sampler recorded %.9g, the trainer computes %.9g",
                            (long long)u->batch->step, e->prompt, e->sample, j, e->completion.ids[j], (double)e->completion.logprob[j],
                            (double)logprob[at]);
    }
    return true;
}

// One sequence at a time, added up in their order: the sums on the ledger don't depend on the split either.
static ObjectiveOutput objective_of(Update *u, Arena *a, const float *logprob, const float *entropy, const float *ref) {
    int64_t N = u->packing.target.count, at = 0;
    const double *now = doubles(a, logprob, N), *reference = ref ? doubles(a, ref, N) : NULL,
                 *spread = u->algo->entropy != 0 ? doubles(a, entropy, N) : NULL;
    ObjectiveOutput all = {.dlogprob = ARENA_NEW(a, double, N), .dentropy = spread ? ARENA_NEW(a, double, N) : NULL};
    for (int i = 0; i < u->episode_count; i++) {
        const Episode *e = u->episodes[i];
        int32_t length = e->completion.length;
        ObjectiveInput in = {.sequences = 1, .length = &length, .logprob = now + at, .old_logprob = doubles(a, e->completion.logprob, length),
                             .ref_logprob = reference ? reference + at : NULL, .entropy = spread ? spread + at : NULL,
                             .advantage = &e->advantage, .max_completion = u->batch->stage->sampling.max_tokens,
                             .step_sequences = u->step_sequences, .step_tokens = u->step_tokens, .rollout_tokens = u->rollout_tokens};
        ObjectiveOutput out = {.dlogprob = all.dlogprob + at, .dentropy = all.dentropy ? all.dentropy + at : NULL};
        objective_compute(u->algo, &in, &out);
        u->loss += out.loss;
        u->kl += out.kl_sum;
        u->clipped += out.clipped;
        u->tokens += out.tokens;
        if (out.ratio_max > u->ratio_max) u->ratio_max = out.ratio_max;
        at += length;
    }
    return all;
}

static float *floats(Arena *a, const double *x, int64_t n) {
    if (!x) return NULL;
    float *y = ARENA_NEW(a, float, n);
    for (int64_t i = 0; i < n; i++) y[i] = (float)x[i];
    return y;
}

static bool run_microbatch(Update *u, Arena *a, Err *err) {
    const Packed *batch = packing_view(&u->packing);
    int64_t N = batch->target_count;
    float *logprob = ARENA_NEW(a, float, N), *entropy = ARENA_NEW(a, float, N), *ref = NULL;
    if (u->t->reference) {
        ref = ARENA_NEW(a, float, N);
        TRY(policy_forward(u->t->reference, batch, false, ref, NULL, err));
    }
    TRY(policy_forward(u->t->policy, batch, true, logprob, entropy, err));
    if (u->on_policy) TRY(assert_same_bits(u, logprob, err));
    ObjectiveOutput out = objective_of(u, a, logprob, entropy, ref);
    u->report->trained_tokens += N;
    return policy_backward(u->t->policy, batch, floats(a, out.dlogprob, N), floats(a, out.dentropy, N), err);
}

static bool flush(Update *u, Err *err) {
    Arena arena = {0};
    bool ok = u->episode_count == 0 || run_microbatch(u, &arena, err);
    arena_reset(&arena);
    packing_reset(&u->packing, u->batch->stage->sampling.temperature);
    u->episode_count = 0;
    return ok;
}

// Packs one group; *used false where nothing of it has a gradient.
static void pack_group(Update *u, int prompt, bool *used) {
    Batch *b = u->batch;
    *used = false;
    for (int s = 0; s < b->group_size; s++) {
        Episode *e = &b->episodes[prompt * b->group_size + s];
        if (!has_gradient(u->algo, e)) continue;
        if (!*used) packing_prompt(&u->packing, b->prompts[prompt].ids.data, b->prompts[prompt].ids.count);
        *used = true;
        packing_completion(&u->packing, e->completion.ids, e->completion.length, e->completion.kept_start, e->completion.kept_ids);
        u->episodes[u->episode_count++] = e;
    }
}

static int64_t group_tokens(const Update *u, int prompt) {
    const Batch *b = u->batch;
    int64_t tokens = b->prompts[prompt].ids.count;
    for (int s = 0; s < b->group_size; s++) {
        const Episode *e = &b->episodes[prompt * b->group_size + s];
        if (has_gradient(u->algo, e)) tokens += e->completion.length;
    }
    return tokens;
}

// One optimizer step over groups [from, to).
static bool update_minibatch(Update *u, int from, int to, Err *err) {
    Batch *b = u->batch;
    int64_t limit = b->stage->microbatch_tokens > 0 ? b->stage->microbatch_tokens : DEFAULT_MICROBATCH_TOKENS;
    u->step_sequences = u->step_tokens = 0;
    for (int i = from * b->group_size; i < to * b->group_size; i++) {
        u->step_sequences++;
        u->step_tokens += b->episodes[i].active ? b->episodes[i].completion.length : 0;
    }
    policy_zero_gradients(u->t->policy);
    packing_reset(&u->packing, b->stage->sampling.temperature);
    for (int prompt = from; prompt < to; prompt++) {
        if (u->packing.tokens.count > 0 && u->packing.tokens.count + group_tokens(u, prompt) > limit) TRY(flush(u, err));
        bool used;
        pack_group(u, prompt, &used);
        u->report->groups_trained += used;
        if (u->t->progress) u->t->progress(u->t->progress_context, "training", (double)(prompt - from + 1) / (to - from));
    }
    return flush(u, err);
}

bool update_batch(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    const Stage *stage = b->stage;
    Update u = {.t = t, .batch = b, .report = report, .algo = &stage->algo, .on_policy = true};
    double rate = schedule_rate(&stage->optimizer, b->stage_step, stage->steps), start = clock_seconds();
    int minibatches = stage->algo.minibatches > 0 ? stage->algo.minibatches : 1, epochs = stage->algo.epochs > 0 ? stage->algo.epochs : 1;
    for (int i = 0; i < b->episode_count; i++)
        if (b->episodes[i].active) u.rollout_tokens += b->episodes[i].completion.length;
    u.rollout_tokens /= minibatches;
    u.episodes = ARENA_NEW(&b->arena, Episode *, b->episode_count);
    bool ok = true;
    for (int epoch = 0; ok && epoch < epochs; epoch++)
        for (int m = 0; ok && m < minibatches; m++) {
            int trained = report->groups_trained;
            ok = update_minibatch(&u, (int)((int64_t)b->prompt_count * m / minibatches), (int)((int64_t)b->prompt_count * (m + 1) / minibatches), err);
            u.on_policy = false;
            double now = clock_seconds();
            report->measured.train += now - start;
            // Without a gradient there is nothing to step along; AdamW's moments stay as they are.
            if (ok && report->groups_trained > trained) ok = optimizer_apply(t->policy, &stage->optimizer, rate, report, err);
            start = clock_seconds();
            report->measured.optimizer += start - now;
        }
    packing_free(&u.packing);
    report->learning_rate = rate;
    report->loss = u.loss / (epochs * minibatches);
    report->kl = u.tokens > 0 ? u.kl / u.tokens : 0;
    report->clip_share = u.tokens > 0 ? u.clipped / u.tokens : 0;
    report->ratio_max = u.ratio_max;
    return ok;
}
