// From an item's draws to an arm's answer. Sampled: each seed's draw is an answer. Majority: answers that the checker holds
// equal vote together; empty ones abstain; of as many votes the answer that came first wins; where all abstain there is no
// answer. Best of k: the draw with the highest score of the reward script, the first of these; draws without a score stand back.
#include "arm.h"
#include "verify.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- choosing among k draws --------------------------------------------------------------------------------
static TextSpan answer_of(const Draw *d, Mode mode) {
    TextSpan think, answer;
    completion_cut(d->text, d->text_size, mode == MODE_THINK, &think, &answer);
    return text_trim(answer);
}
static bool same_answer(TextSpan a, TextSpan b) {
    return (a.size == b.size && memcmp(a.data, b.data, a.size) == 0) || verify_equal(a, b, NULL);
}

// -1: all abstain.
static int most_voted(const Draw *draws, int k, Mode mode) {
    TextSpan *answers = xcalloc((size_t)k, sizeof *answers);
    int *votes = xcalloc((size_t)k, sizeof *votes), best = -1;
    for (int i = 0; i < k; i++) {
        answers[i] = answer_of(&draws[i], mode);
        if (answers[i].size == 0) continue;
        int first = 0;
        while (first < i && !(votes[first] > 0 && same_answer(answers[first], answers[i]))) first++;
        votes[first]++;
    }
    for (int i = 0; i < k; i++)
        if (votes[i] > 0 && (best < 0 || votes[i] > votes[best])) best = i;
    free(answers), free(votes);
    return best;
}
static int highest_scored(const Verdict *verdicts, int k) {
    int best = -1;
    for (int i = 0; i < k; i++)
        if (verdicts[i].state == VERDICT_SCORED && (best < 0 || verdicts[i].score > verdicts[best].score)) best = i;
    return best;
}
static int choose(const Arm *arm, const Draw *draws, const Verdict *verdicts, int k) {
    if (arm->strategy == STRATEGY_MAJORITY) return most_voted(draws, k, arm->mode);
    if (arm->strategy == STRATEGY_BEST) return highest_scored(verdicts, k);
    return 0;
}

// ---- the reward that chooses -------------------------------------------------------------------------------
static bool submit(const Arm *arm, const EvaluatedItem *item, int at, int s, RewardPool *judge, uint64_t seed, Verdict *out, Err *err) {
    const Draw *d = &item->draws[s];
    char *id = xasprintf("best of %d, item %d draw %d", arm->k, at + 1, s + 1);
    // The judge never sees the true answer, nor the columns that hold it: it has to tell good answers as it would in use.
    json_t *row = item->item->row ? json_copy(item->item->row) : NULL;
    json_object_del(row, "answer"), json_object_del(row, "reward_model");
    RewardSample sample = {.id = id, .prompt = item->prompt, .messages = item->messages, .completion = d->text, .completion_size = d->text_size,
                           .row = row, .tokens = d->tokens, .think_tokens = d->think_tokens,
                           .answer_tokens = d->answer_tokens, .finish = d->truncated ? "length" : "stop", .mode = mode_names[arm->mode],
                           .task = item->item->kind, .group = at, .seed = seed ^ ((uint64_t)at << 20) ^ (uint64_t)s};
    bool ok = reward_pool_submit(judge, &sample, out, err);
    free(id);
    json_decref(row);
    return ok;
}
// A script that scores nothing at all chooses nothing: that is its fault, and no answer's.
static bool any_scored(const Arm *arm, const Verdict *verdicts, int64_t n, Err *err) {
    int64_t first = -1;
    for (int64_t i = 0; i < n; i++) {
        if (verdicts[i].state == VERDICT_SCORED) return true;
        if (first < 0 && verdicts[i].why[0]) first = i;
    }
    return first < 0 || fail(err, ERR_DATA, arm->name, "%.100s scored none of %lld draws, so that it can't choose the best; the first: %.250s", arm->reward,
                             (long long)n, verdicts[first].why);
}
// Draws on which it failed can't be chosen, and are told of; to abstain is its right.
static void count_failures(const Evaluation *e, const Verdict *verdicts, ArmResult *out) {
    for (int i = 0; i < e->count; i++)
        for (int s = 0; s < e->items[i].draw_count; s++, verdicts++) {
            if (e->items[i].draws[s].unanswered) continue;
            bool failed = verdicts->state != VERDICT_SCORED && verdicts->state != VERDICT_ABSTAINED;
            out->judged++;
            if (failed && out->unjudged++ == 0) snprintf(out->unjudged_why, sizeof out->unjudged_why, "%.255s", verdicts->why);
        }
}
static bool judge_all(const Arm *arm, const Evaluation *e, RewardPool *judge, uint64_t seed, Verdict *out, Err *err) {
    Verdict *all = out;
    for (int i = 0; i < e->count; i++)
        for (int s = 0; s < e->items[i].draw_count; s++, out++) {
            if (e->items[i].draws[s].unanswered) *out = (Verdict){.state = VERDICT_ERROR, .score = NAN}; // nothing to be chosen
            else TRY(submit(arm, &e->items[i], i, s, judge, seed, out, err));
        }
    return reward_pool_finish(judge, err) && any_scored(arm, all, out - all, err);
}

// ---- one answer --------------------------------------------------------------------------------------------
static double counted(int32_t tokens) { return tokens < 0 ? NAN : tokens; } // by whoever drew them
// Tokens up to the end of a correct draw's answer.
static double until_truth(const Draw *d) {
    if (d->tokens_to_truth == TRUTH_UNKNOWN) return NAN;
    return d->tokens_to_truth >= 0 ? d->tokens_to_truth : counted(d->tokens);
}
// Adds what the k draws of one seed came to; `by` is one over the seeds.
static bool add_answer(const Arm *arm, const EvaluatedItem *from, const Draw *draws, const Verdict *verdicts, int k, double by, ArmItem *to) {
    int chosen = choose(arm, draws, verdicts, k);
    bool right = chosen >= 0 && draws[chosen].correct;
    bool found = false;
    double tokens = 0, until = 0;
    for (int i = 0; i < k; i++) {
        const Draw *d = &draws[i];
        if (!found && d->correct) found = true, until = tokens + until_truth(d);
        tokens += counted(d->tokens);
        to->pass += by / k * d->correct;
        to->tokens += by * counted(d->tokens), to->think_tokens += by * counted(d->think_tokens), to->answer_tokens += by * counted(d->answer_tokens);
        to->prompt_tokens += by * d->given_tokens, to->flops += by * d->flops;
        to->truncated += d->truncated, to->unscored += d->verdict != VERDICT_SCORED;
    }
    to->prompt_tokens += by * (counted(from->prompt_tokens) - from->draws[0].given_tokens); // once: the draws share it
    to->flops += by * from->prompt_flops;
    to->correct += by * right;
    to->abstained += chosen < 0;
    if (right && found && tokens != 0) to->efficiency += by * until / tokens;
    return right;
}

static void spend(const Evaluation *e, ArmResult *out) {
    for (int i = 0; i < e->count; i++) {
        const EvaluatedItem *item = &e->items[i];
        out->spent_flops += item->prompt_flops;
        out->spent_prompt_tokens += counted(item->prompt_tokens) - item->draws[0].given_tokens;
        for (int s = 0; s < item->draw_count; s++) {
            out->spent_flops += item->draws[s].flops, out->spent_tokens += counted(item->draws[s].tokens);
            out->spent_prompt_tokens += item->draws[s].given_tokens;
        }
    }
    for (int l = 0; l < out->levels; l++) out->spent_seconds += e->level_seconds[l], out->spent_joules += e->level_joules[l];
    out->spent_cpu += e->cpu_seconds, out->spent_waiting += e->waited_seconds;
}

static void open_result(int count, int seeds, int levels, ArmResult *out) {
    *out = (ArmResult){.count = count, .seeds = seeds, .levels = levels};
    out->items = xcalloc((size_t)count + 1, sizeof *out->items);
    out->right = xcalloc((size_t)count * (size_t)seeds + 1, 1);
    out->k = xcalloc((size_t)levels + 1, sizeof *out->k);
    out->seconds = xcalloc((size_t)levels + 1, sizeof *out->seconds);
    out->joules = xcalloc((size_t)levels + 1, sizeof *out->joules);
}
bool arm_result(const Arm *arm, const Evaluation *e, int levels, RewardPool *judge, uint64_t seed, ArmResult *out, Err *err) {
    int64_t draws = 0;
    for (int i = 0; i < e->count; i++) draws += e->items[i].draw_count;
    Verdict *verdicts = arm->strategy == STRATEGY_BEST ? xcalloc((size_t)draws + 1, sizeof *verdicts) : NULL;
    if (verdicts && !judge_all(arm, e, judge, seed, verdicts, err)) {
        free(verdicts);
        return false;
    }
    open_result(e->count, arm->seeds, levels, out);
    if (verdicts) count_failures(e, verdicts, out);
    int64_t first = 0;
    for (int i = 0; i < e->count; i++) {
        const EvaluatedItem *item = &e->items[i];
        int k = item->draw_count / arm->seeds;
        out->items[i].level = item->level_index;
        out->k[item->level_index] = k;
        for (int s = 0; s < arm->seeds; s++)
            out->right[(int64_t)s * e->count + i] =
                add_answer(arm, item, item->draws + s * k, verdicts ? verdicts + first + s * k : NULL, k, 1.0 / arm->seeds, &out->items[i]);
        first += item->draw_count;
    }
    for (int l = 0; l < out->levels; l++) out->seconds[l] = e->level_seconds[l] / arm->seeds, out->joules[l] = e->level_joules[l] / arm->seeds;
    spend(e, out);
    free(verdicts);
    return true;
}

// ---- routed ------------------------------------------------------------------------------------------------
static void add_thinking(const ArmItem *think, ArmItem *to) {
    to->correct = think->correct, to->pass = think->pass;
    to->tokens += think->tokens, to->think_tokens += think->think_tokens, to->answer_tokens += think->answer_tokens;
    to->prompt_tokens += think->prompt_tokens, to->flops += think->flops;
    to->truncated = think->truncated, to->unscored = think->unscored;
    to->efficiency = to->tokens > 0 && think->correct > 0 ? (to->tokens - think->tokens + think->efficiency * think->tokens) / to->tokens : 0;
}
// A batch's seconds and joules are shared out among its items by their FLOPs.
void arm_result_routed(const ArmResult *think, const ArmResult *direct, const bool *thinks, ArmResult *out) {
    open_result(direct->count, 1, direct->levels, out);
    double *all = xcalloc((size_t)out->levels + 1, sizeof *all), *sent = xcalloc((size_t)out->levels + 1, sizeof *sent);
    for (int i = 0; i < out->count; i++) {
        int level = direct->items[i].level;
        out->items[i] = direct->items[i];
        out->right[i] = direct->right[i];
        all[level] += think->items[i].flops;
        if (!thinks[i]) continue;
        sent[level] += think->items[i].flops;
        add_thinking(&think->items[i], &out->items[i]);
        out->right[i] = think->right[i];
    }
    for (int l = 0; l < out->levels; l++) {
        double share = all[l] > 0 ? sent[l] / all[l] : 0;
        out->k[l] = 1;
        out->seconds[l] = direct->seconds[l] + share * think->seconds[l];
        out->joules[l] = direct->joules[l] + share * think->joules[l];
    }
    free(all), free(sent);
}

void arm_result_free(ArmResult *r) {
    free(r->items), free(r->right), free(r->k), free(r->seconds), free(r->joules), free(r->latency);
    *r = (ArmResult){0};
}
