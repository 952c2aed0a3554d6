// From verdicts to advantages: the reward of each episode with what the recipe adds to it (the soft punishment of overlong
// answers, the divergence from the reference), and who takes part in the loss.
#include "stages.h"
#include <math.h>

static double kl_weight(const Trainer *t, const Algo *a) {
    return t && t->algo_state && t->algo_state->started && a->kl_target > 0 ? t->algo_state->kl : a->kl;
}

// The sum over the completion, under the policy that sampled; *tokens and *sum are of the whole batch.
static double divergence_of(const Algo *a, const Episode *e, double *sum, double *tokens) {
    double of_episode = 0;
    for (int32_t j = 0; j < e->completion.length; j++) {
        double logprob = e->completion.logprob[j];
        of_episode += kl_term(&a->kl_form, logprob, logprob, e->ref_logprob[j]).value;
    }
    *sum += of_episode, *tokens += e->completion.length;
    return of_episode;
}

typedef struct Rewards {
    double *reward, *length, *part; // [episodes], [episodes], [episodes][parts]
    bool *scorable;
    int *group, parts;
} Rewards;

static int part_count(const Batch *b) {
    int most = 0;
    for (int i = 0; i < b->episode_count; i++)
        if (b->episodes[i].verdict.part_count > most) most = b->episodes[i].verdict.part_count;
    return most;
}

static Rewards rewards_of(const Trainer *t, const Stage *stage, Batch *b, StepReport *report) {
    const Algo *a = &stage->algo;
    int n = b->episode_count, parts = part_count(b);
    Rewards r = {.reward = ARENA_NEW(&b->arena, double, n), .length = ARENA_NEW(&b->arena, double, n), .scorable = ARENA_NEW(&b->arena, bool, n),
                 .part = ARENA_NEW(&b->arena, double, (int64_t)n * parts + 1), .group = ARENA_NEW(&b->arena, int, n), .parts = parts};
    double divergence = 0, tokens = 0;
    for (int i = 0; i < n; i++) {
        const Episode *e = &b->episodes[i];
        r.group[i] = i / b->group_size;
        r.length[i] = e->completion.length;
        r.scorable[i] = e->verdict.state == VERDICT_SCORED;
        for (int k = 0; k < parts; k++) r.part[(int64_t)i * parts + k] = k < e->verdict.part_count ? e->verdict.parts[k].value : NAN;
        if (!r.scorable[i]) continue;
        r.reward[i] = e->verdict.score;
        r.reward[i] += a->overlong_penalty * overlong_punishment(r.length[i], stage->sampling.max_tokens, a->overlong_buffer);
        if (a->kl_in_reward && e->ref_logprob) r.reward[i] -= kl_weight(t, a) * divergence_of(a, e, &divergence, &tokens);
    }
    if (a->kl_in_reward && tokens > 0) report->kl = divergence / tokens;
    return r;
}

// REINFORCE++: returns by token, whitened over the tokens of the batch. With the divergence in the reward each token
// carries its own; the score stands on the last one.
static void by_token(const Trainer *t, const Stage *stage, Batch *b, const Rewards *r, const double *advantage) {
    const Algo *a = &stage->algo;
    int64_t tokens = 0, at = 0;
    for (int i = 0; i < b->episode_count; i++) tokens += b->episodes[i].completion.length;
    double *values = ARENA_NEW(&b->arena, double, tokens + 1);
    uint8_t *mask = ARENA_NEW(&b->arena, uint8_t, tokens + 1);
    int32_t *length = ARENA_NEW(&b->arena, int32_t, b->episode_count + 1);
    bool returns = a->advantage == ADVANTAGE_REINFORCE_PLUS_PLUS;
    for (int i = 0; i < b->episode_count; i++) {
        const Episode *e = &b->episodes[i];
        length[i] = e->completion.length;
        for (int32_t j = 0; j < length[i]; j++, at++) {
            mask[at] = r->scorable[i];
            if (!returns) values[at] = advantage[i];
            else if (a->kl_in_reward && e->ref_logprob) {
                double logprob = e->completion.logprob[j], k = kl_term(&a->kl_form, logprob, logprob, e->ref_logprob[j]).value;
                values[at] = -kl_weight(t, a) * k;
            }
            if (returns && j == length[i] - 1) {
                values[at] += e->verdict.state == VERDICT_SCORED ? e->verdict.score : 0;
                values[at] += a->overlong_penalty * overlong_punishment(length[i], stage->sampling.max_tokens, a->overlong_buffer);
            }
        }
    }
    if (returns) discounted_returns(b->episode_count, length, mask, values, a->gamma, values);
    whiten_tokens(tokens, mask, &(Whitening){.eps = 1e-8}, values);
    at = 0;
    for (int i = 0; i < b->episode_count; at += length[i++]) b->episodes[i].token_advantage = values + at;
}

void advantages_assign(const Trainer *t, const Stage *stage, Batch *b, StepReport *report) {
    const Algo *a = &stage->algo;
    Rewards r = rewards_of(t, stage, b, report);
    double *advantage = ARENA_NEW(&b->arena, double, b->episode_count);
    bool *variance = ARENA_NEW(&b->arena, bool, b->prompt_count);
    advantage_compute(&(AdvantageInput){.kind = a->advantage, .eps = a->advantage_eps, .scale = true,
                                        .whiten = a->advantage_whiten || a->advantage == ADVANTAGE_GDPO, .count = b->episode_count,
                                        .group = r.group, .groups = b->prompt_count, .reward = r.reward, .scorable = r.scorable,
                                        .length = r.length, .parts = r.parts, .part = r.part}, advantage, variance);
    bool tokens = a->advantage == ADVANTAGE_REINFORCE_PLUS_PLUS || a->advantage == ADVANTAGE_REINFORCE_PLUS_PLUS_BASELINE;
    if (tokens) by_token(t, stage, b, &r, advantage);
    for (int i = 0; i < b->episode_count; i++) {
        Episode *e = &b->episodes[i];
        e->active = r.scorable[i] && !(a->mask_truncated && e->completion.finish == FINISH_LENGTH);
        if (tokens && e->completion.length > 0) advantage[i] = e->token_advantage[e->completion.length - 1];
        e->advantage = e->active ? advantage[i] : 0;
    }
    report->groups = b->prompt_count;
    report->groups_without_variance = 0;
    for (int i = 0; i < b->prompt_count; i++) {
        b->prompts[i].has_variance = variance[i];
        report->groups_without_variance += !variance[i];
    }
}
