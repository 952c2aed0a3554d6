// One step of GRPO, in the order of the design's sentence: rollout, rewards, advantage, update. Each stage of it has a file of its
// own; here only their order stands, and what a clock sees of them.
#include "stages.h"
#include <math.h>

bool sample_and_score(const Trainer *t, Batch *batch, StepReport *report, Err *err) {
    double start = clock_seconds();
    RewardCounts before, after;
    reward_pool_counts(t->rewards, &before);
    TRY(rollout_batch(t, batch, report, err) && rewards_collect(t, batch, report, err));
    batch_levels(batch, report);
    double both = clock_seconds() - start; // sampling, and waiting for verdicts
    reward_pool_counts(t->rewards, &after);
    report->measured.rollout = both - report->measured.reward;
    report->measured.reward_idle = fmax(0, both - (after.busy - before.busy) / after.workers);
    return true;
}

bool grpo_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) {
    TRY(sample_and_score(t, batch, report, err));
    if (stage->algo.kl_in_reward) TRY(batch_logprobs(t->reference, batch, LOGPROBS_REFERENCE, 0, batch->prompt_count, err));
    advantages_assign(t, stage, batch, report);
    return update_batch(t, batch, report, err);
}
