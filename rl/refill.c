// Dynamic sampling (DAPO, arXiv 2503.14476): groups whose rewards are all equal teach nothing, so they are replaced by
// groups of further prompts, a bounded number of times. What is still missing then is filled with such groups: they cost
// nothing in training, and a step keeps its size. Everything is a function of (recipe, step, round).
#include "stages.h"

static bool varies(const Batch *b, int prompt) {
    const Verdict *first = NULL;
    for (int s = 0; s < b->group_size; s++) {
        const Verdict *v = &b->episodes[prompt * b->group_size + s].verdict;
        if (v->state != VERDICT_SCORED) continue;
        if (!first) first = v;
        else if (v->score != first->score) return true;
    }
    return false;
}

static void take_group(Batch *b, int to, const Batch *from, int group) {
    b->prompts[to] = from->prompts[group];
    for (int s = 0; s < b->group_size; s++) {
        Episode *e = &b->episodes[to * b->group_size + s];
        *e = from->episodes[group * b->group_size + s];
        e->prompt = to;
    }
}

// The groups of round `r` that vary, or those that don't, as long as there is room.
static int take_round(Batch *b, int taken, const Batch *r, bool varying) {
    for (int g = 0; g < r->prompt_count && taken < b->prompt_count; g++)
        if (varies(r, g) == varying) take_group(b, taken++, r, g);
    return taken;
}

bool rollout_refilled(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    const Stage *stage = b->stage;
    int taken = 0;
    b->prompt_count = stage->batch, b->group_size = stage->group_size, b->episode_count = stage->batch * stage->group_size;
    b->prompts = ARENA_NEW(&b->arena, Prompt, b->prompt_count);
    b->episodes = ARENA_NEW(&b->arena, Episode, b->episode_count);
    b->rounds = ARENA_NEW(&b->arena, Batch, stage->algo.refills + 1);
    for (int round = 0; round <= stage->algo.refills && taken < b->prompt_count; round++) {
        Batch *r = &b->rounds[b->round_count++];
        StepReport one = {0};
        *r = (Batch){.step = b->step, .stage = stage, .stage_step = b->stage_step, .round = round, .wanted = b->prompt_count - taken};
        TRY(rollout_batch(t, r, &one, err) && rewards_collect(t, r, &one, err));
        levels_count(r, report);
        report->measured.reward += one.measured.reward;
        report->prompt_tokens += one.prompt_tokens, report->new_tokens += one.new_tokens;
        taken = take_round(b, taken, r, true);
    }
    for (int i = 0; i < b->round_count; i++) taken = take_round(b, taken, &b->rounds[i], false);
    return rewards_collect(t, b, report, err); // the means of what was kept
}
