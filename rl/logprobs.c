// Logprobs of a whole batch under a policy, without gradients, packed as training packs them: the reference's where the
// reward needs them, the current policy's where stale samples are corrected, and both numbers of the current policy where
// a loss has to survey all tokens of an optimizer step.
#include "stages.h"
#include <string.h>


typedef struct Pass {
    Policy *policy;
    Batch *batch;
    LogprobField field;
    Packing packing;
    Episode **episodes;
    int episode_count;
} Pass;

static bool flush(Pass *p, Err *err) {
    Arena arena = {0};
    bool ok = true;
    if (p->episode_count > 0) {
        const Packed *packed = packing_view(&p->packing);
        int64_t at = 0, n = packed->target_count;
        float *logprob = ARENA_NEW(&arena, float, n), *entropy = ARENA_NEW(&arena, float, n);
        ok = policy_forward(p->policy, packed, false, logprob, entropy, err);
        for (int i = 0; ok && i < p->episode_count; i++) {
            Episode *e = p->episodes[i];
            size_t bytes = (size_t)e->completion.length * sizeof(float);
            float **to = p->field == LOGPROBS_REFERENCE ? &e->ref_logprob : p->field == LOGPROBS_OLD ? &e->old_logprob : &e->now_logprob;
            *to = ARENA_NEW(&p->batch->arena, float, e->completion.length + 1);
            memcpy(*to, logprob + at, bytes);
            if (p->field == LOGPROBS_NOW) {
                e->now_entropy = ARENA_NEW(&p->batch->arena, float, e->completion.length + 1);
                memcpy(e->now_entropy, entropy + at, bytes);
            }
            at += e->completion.length;
        }
    }
    arena_reset(&arena);
    packing_reset(&p->packing, p->batch->stage->sampling.temperature);
    p->episode_count = 0;
    return ok;
}

bool batch_logprobs(Policy *policy, Batch *b, LogprobField field, int from, int to, Err *err) {
    Pass p = {.policy = policy, .batch = b, .field = field, .episodes = ARENA_NEW(&b->arena, Episode *, b->episode_count + 1)};
    const Completion **completions = ARENA_NEW(&b->arena, const Completion *, b->group_size);
    int64_t limit = microbatch_limit(b->stage, policy_on_host(policy));
    bool ok = true;
    packing_reset(&p.packing, b->stage->sampling.temperature);
    for (int prompt = from; ok && prompt < to; prompt++) {
        Episode *episodes = &b->episodes[prompt * b->group_size];
        for (int s = 0; s < b->group_size; s++) completions[s] = &episodes[s].completion;
        for (int s = 0; ok && s < b->group_size;) {
            PackingPart part = packing_part(b->prompts[prompt].ids.count, completions + s, b->group_size - s);
            ok = !packing_is_full(&p.packing, part.tokens, limit) || flush(&p, err);
            packing_group(&p.packing, &b->prompts[prompt].ids, completions + s, part.count);
            for (int end = s + part.count; s < end; s++) p.episodes[p.episode_count++] = &episodes[s];
        }
    }
    ok = ok && flush(&p, err);
    packing_free(&p.packing);
    return ok;
}
