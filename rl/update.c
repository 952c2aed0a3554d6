// From advantages to new weights: minibatches of whole groups, packed into microbatches, one forward and one backward
// each. The denominators are those of the whole step, so that the split into microbatches changes no gradient.
//
// On the first minibatch after a rollout the policy is the one that sampled: its logprobs must be those of the sampler
// bit for bit (invariant 1), which is checked on every token of every such step. Where the rollout has kept its activations there is no forward
// pass to check it by: then one sample of the step, another one each time, is computed anew and compared. A stage that samples in 8 bits is
// never on policy in that sense: its samples are corrected as stale ones are.
#include "flight.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>


// ---- the load of experts -------------------------------------------------------------------------------------
double expert_imbalance(const ExpertLoad *l, int layer) {
    const int64_t *rows = l->rows + (int64_t)layer * l->experts;
    int64_t most = 0, all = 0;
    for (int e = 0; e < l->experts; e++) {
        all += rows[e];
        if (rows[e] > most) most = rows[e];
    }
    return all ? (double)most * l->experts / (double)all : NAN;
}
void expert_load_free(ExpertLoad *l) {
    free(l->layer), free(l->rows);
    *l = (ExpertLoad){0};
}

// Adds what the step's passes gave the experts, and lets the biases move where there was an update.
static bool take_expert_load(Policy *p, double rate, ExpertLoad *l, Err *err) {
    const ModelConfig *c = policy_config(p);
    int layers = policy_expert_layers(p), count = layers * c->experts.count;
    if (layers == 0) return true;
    if (!l->rows) {
        *l = (ExpertLoad){.layers = layers, .experts = c->experts.count, .layer = xcalloc((size_t)layers, sizeof *l->layer),
                          .rows = xcalloc((size_t)count, sizeof *l->rows)};
        for (int i = 0, n = 0; i < c->layers; i++)
            if (config_has_experts(c, i)) l->layer[n++] = i;
    }
    int64_t *rows = xcalloc((size_t)count, sizeof *rows);
    bool ok = policy_take_expert_load(p, rate, rows, err);
    for (int i = 0; i < count; i++) l->rows[i] += rows[i];
    free(rows);
    return ok;
}

bool optimizer_apply(Policy *p, const Optimizer *o, double learning_rate, StepReport *report, Err *err) {
    double norm = policy_gradient_norm(p);
    report->gradient_norm = norm;
    report->learning_rate = learning_rate;
    if (!isfinite(norm)) {
        report->skipped = true;
        return take_expert_load(p, 0, &report->experts, err);
    }
    double scale = o->max_gradient_norm > 0 && norm > o->max_gradient_norm ? o->max_gradient_norm / (norm + 1e-6) : 1.0;
    TRY(policy_update(p, &(AdamW){.learning_rate = learning_rate, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps,
                                  .weight_decay = o->weight_decay, .scale = scale}, err));
    return take_expert_load(p, o->expert_bias_rate, &report->experts, err);
}

void batch_free(Batch *b) {
    for (int i = 0; b->groups && i < b->prompt_count; i++) group_free(b->groups[i]);
    free(b->groups);
    rollout_free(&b->rollout);
    arena_reset(&b->arena);
    *b = (Batch){0};
}

typedef struct Update {
    const Trainer *t;
    Batch *batch;
    StepReport *report;
    Algo algo; // of the stage, with the coefficients of now
    Packing packing;
    Episode **episodes; // of the microbatch
    int episode_count;
    Episode **group; // what of one group has a gradient
    const Completion **completions; // theirs
    double step_sequences, step_tokens, rollout_tokens, entropy_threshold, entropy_tokens;
    double loss, kl, clipped, clipped_low, clipped_high, tokens, ratio_max, entropy;
    bool on_policy; // all tokens are of the weights of now
    bool fresh;     // the weights are still those of the step's start, which sampled
} Update;

static bool uses_reference(const Update *u) { return u->t->reference && u->algo.kl > 0 && !u->algo.kl_in_reward; }
static bool corrects(const Algo *a) { return a->correction.level != CORRECTION_OFF || a->correction.rejection_count > 0; }
static bool is_kept(const Episode *e, int32_t j) { return !e->keep || e->keep[j]; }

// Every active sequence has a gradient where the loss has terms besides the advantage; the drift terms of some losses are
// flat where the policy is still the one that sampled.
static bool has_gradient(const Update *u, const Episode *e) {
    const Algo *a = &u->algo;
    bool drifts = a->loss == LOSS_DRO || a->loss == LOSS_PRIME || a->loss == LOSS_PRIME_IPO || a->loss == LOSS_KL_COV;
    bool other = uses_reference(u) || a->entropy != 0 || u->t->script || (drifts && !u->on_policy);
    return e->active && e->completion.length > 0 && (e->advantage != 0 || e->token_advantage || other);
}

static double *doubles(Arena *a, const float *x, int64_t n) {
    double *y = ARENA_NEW(a, double, n);
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

// Whether the weights of the step's start drew this token. Versions are at most a few stretches.
static bool is_current(const Batch *b, const Episode *e, int32_t token) {
    for (int i = 0; i < e->version_count; token -= e->versions[i++].length)
        if (token < e->versions[i].length) return e->versions[i].version == b->step - 1;
    return true;
}

// Invariant 1, on every on-policy token.
static bool same_bits(const Update *u, const Episode *e, int32_t token, const char *what, float sampler, float trainer, Err *err) {
    if (memcmp(&sampler, &trainer, sizeof sampler) == 0) return true;
    return fail(err, ERR_SOFTWARE, "sampler and trainer",
                "differ at step %lld prompt %d sample %d token %d (id %d): the sampler recorded %s %.9g, the trainer computes %.9g",
                (long long)u->batch->step, e->prompt, e->sample, token, e->completion.ids[token], what, (double)sampler, (double)trainer);
}
// A token that older weights drew has another logprob by now; those of the step's own weights must have the same.
static bool assert_same_bits(const Update *u, const float *logprob, const float *entropy, Err *err) {
    int64_t at = 0;
    for (int i = 0; i < u->episode_count; i++) {
        const Episode *e = u->episodes[i];
        for (int32_t j = 0; j < e->completion.length; j++, at++) {
            if (!is_current(u->batch, e, j)) continue;
            TRY(same_bits(u, e, j, "logprob", e->completion.logprob[j], logprob[at], err));
            TRY(same_bits(u, e, j, "entropy", e->completion.entropy[j], entropy[at], err));
        }
    }
    return true;
}

// What one sequence hands to the objective; `now`, `entropy` and `ref` are its own stretch of the microbatch.
static ObjectiveInput input_of(const Update *u, Arena *a, const Episode *e, const double *now, const double *entropy, const double *ref) {
    int32_t length = e->completion.length;
    const float *old = e->old_logprob ? e->old_logprob : e->completion.logprob;
    return (ObjectiveInput){.sequences = 1, .length = &e->completion.length, .logprob = now, .old_logprob = doubles(a, old, length),
                            .sampler_logprob = e->old_logprob ? doubles(a, e->completion.logprob, length) : NULL, .ref_logprob = ref,
                            .entropy = entropy, .mask = e->keep, .weight = e->weight,
                            .weight_of_sequence = u->algo.correction.level == CORRECTION_SEQUENCE, .chosen = e->chosen,
                            .entropy_threshold = u->entropy_threshold, .advantage = &e->advantage, .token_advantage = e->token_advantage,
                            .max_completion = u->batch->stage->sampling.max_tokens, .step_sequences = u->step_sequences,
                            .step_tokens = u->step_tokens, .rollout_tokens = u->rollout_tokens, .entropy_tokens = u->entropy_tokens};
}

// One sequence at a time, added up in their order: the sums on the ledger don't depend on the split either.
static bool objective_of(Update *u, Arena *a, const float *logprob, const float *entropy, const float *ref, ObjectiveOutput *all, Err *err) {
    int64_t N = u->packing.target.count, at = 0;
    bool spreads = u->algo.entropy != 0 || u->entropy_threshold > 0 || u->t->script;
    const double *now = doubles(a, logprob, N), *reference = ref ? doubles(a, ref, N) : NULL, *spread = spreads ? doubles(a, entropy, N) : NULL;
    bool bonus = u->algo.entropy != 0 || u->t->script;
    *all = (ObjectiveOutput){.dlogprob = ARENA_NEW(a, double, N), .dentropy = bonus ? ARENA_NEW(a, double, N) : NULL};
    for (int i = 0; i < u->episode_count; i++) {
        const Episode *e = u->episodes[i];
        ObjectiveInput in = input_of(u, a, e, now + at, spread ? spread + at : NULL, reference ? reference + at : NULL);
        ObjectiveOutput out = {.dlogprob = all->dlogprob + at, .dentropy = all->dentropy ? all->dentropy + at : NULL};
        if (u->t->script) TRY(objective_script_compute(u->t->script, &u->algo, &in, &out, err));
        else objective_compute(&u->algo, &in, &out);
        for (int32_t j = 0; j < e->completion.length; j++)
            if (is_kept(e, j)) u->entropy += entropy[at + j];
        u->loss += out.loss;
        u->kl += out.kl_sum;
        u->clipped += out.clipped;
        u->clipped_low += out.clipped_low, u->clipped_high += out.clipped_high;
        u->tokens += out.tokens;
        if (out.ratio_max > u->ratio_max) u->ratio_max = out.ratio_max;
        at += e->completion.length;
    }
    return true;
}

static float *floats(Arena *a, const double *x, int64_t n) {
    if (!x) return NULL;
    float *y = ARENA_NEW(a, float, n);
    for (int64_t i = 0; i < n; i++) y[i] = (float)x[i];
    return y;
}

// On policy the sampler's numbers are the trainer's, bit for bit, so the objective needs no forward pass: both passes are
// queued at once, and the trainer's logprobs are compared afterwards.
static bool run_on_policy(Update *u, Arena *a, const Packed *batch, const float *ref, Err *err) {
    int64_t N = batch->target_count, at = 0;
    float *logprob = ARENA_NEW(a, float, N), *entropy = ARENA_NEW(a, float, N), *trained = ARENA_NEW(a, float, 2 * N);
    for (int i = 0; i < u->episode_count; at += u->episodes[i++]->completion.length) {
        const Completion *c = &u->episodes[i]->completion;
        memcpy(logprob + at, c->logprob, (size_t)c->length * sizeof *logprob);
        memcpy(entropy + at, c->entropy, (size_t)c->length * sizeof *entropy);
    }
    ObjectiveOutput out;
    TRY(objective_of(u, a, logprob, entropy, ref, &out, err));
    TRY(policy_forward_backward(u->t->policy, batch, floats(a, out.dlogprob, N), floats(a, out.dentropy, N), trained, trained + N, err));
    return assert_same_bits(u, trained, trained + N, err);
}

// Old logprobs or corrections: the objective waits for the trainer's own.
static bool run_stale(Update *u, Arena *a, const Packed *batch, const float *ref, Err *err) {
    int64_t N = batch->target_count;
    float *logprob = ARENA_NEW(a, float, N), *entropy = ARENA_NEW(a, float, N);
    TRY(policy_forward(u->t->policy, batch, true, logprob, entropy, err));
    if (u->fresh) TRY(assert_same_bits(u, logprob, entropy, err));
    ObjectiveOutput out;
    TRY(objective_of(u, a, logprob, entropy, ref, &out, err));
    return policy_backward(u->t->policy, batch, floats(a, out.dlogprob, N), floats(a, out.dentropy, N), err);
}

static bool run_microbatch(Update *u, Arena *a, Err *err) {
    const Packed *batch = packing_view(&u->packing);
    int64_t N = batch->target_count;
    float *ref = NULL;
    u->report->trained_tokens += N;
    bool spared = u->fresh && policy_has_activations(u->t->policy, batch);
    u->report->spared_tokens += spared ? N : 0;
    if (uses_reference(u)) {
        ref = ARENA_NEW(a, float, N);
        TRY(policy_forward(u->t->reference, batch, false, ref, NULL, err));
    }
    return u->on_policy && !corrects(&u->algo) ? run_on_policy(u, a, batch, ref, err) : run_stale(u, a, batch, ref, err);
}

static bool flush(Update *u, Err *err) {
    Arena arena = {0};
    bool ok = u->episode_count == 0 || run_microbatch(u, &arena, err);
    arena_reset(&arena);
    packing_reset(&u->packing, u->batch->stage->sampling.temperature);
    u->episode_count = 0;
    return ok;
}

// What of a group has a gradient; how many.
static int find_group(Update *u, int prompt) {
    const Batch *b = u->batch;
    int count = 0;
    for (int s = 0; s < b->group_size; s++) {
        Episode *e = &b->episodes[prompt * b->group_size + s];
        if (!has_gradient(u, e)) continue;
        u->group[count] = e;
        u->completions[count++] = &e->completion;
    }
    return count;
}

static bool pack_group(Update *u, int prompt, int count, int64_t limit, Err *err) {
    const Ids *ids = &u->batch->prompts[prompt].ids;
    for (int i = 0; i < count;) {
        PackingPart part = packing_part(ids->count, u->completions + i, count - i);
        if (packing_is_full(&u->packing, part.tokens, limit)) TRY(flush(u, err));
        packing_group(&u->packing, ids, u->completions + i, part.count);
        for (int end = i + part.count; i < end; i++) u->episodes[u->episode_count++] = u->group[i];
    }
    return true;
}

// Of all passes over groups [from, to).
static int64_t pass_tokens(Update *u, int from, int to) {
    int64_t tokens = 0;
    for (int prompt = from; prompt < to; prompt++) {
        int count = find_group(u, prompt);
        tokens += packing_tokens(u->batch->prompts[prompt].ids.count, u->completions, count);
    }
    return tokens;
}

// ---- what a step has to know of all its tokens -----------------------------------------------------------------
// The step as one input. On policy the sampler's own logprobs and entropies serve.
static bool survey(Update *u, int from, int to, Err *err) {
    Batch *b = u->batch;
    Arena a = {0};
    u->entropy_threshold = u->entropy_tokens = 0;
    if (!objective_surveys(&u->algo) || u->t->script) return true;
    if (!u->on_policy || corrects(&u->algo)) TRY(batch_logprobs(u->t->policy, b, LOGPROBS_NOW, from, to, err));
    int first = from * b->group_size, count = (to - from) * b->group_size;
    int64_t n = 0, at = 0;
    for (int i = 0; i < count; i++) n += b->episodes[first + i].completion.length;
    double *now = ARENA_NEW(&a, double, n + 1), *old = ARENA_NEW(&a, double, n + 1), *entropy = ARENA_NEW(&a, double, n + 1),
           *advantage = ARENA_NEW(&a, double, n + 1);
    uint8_t *mask = ARENA_NEW(&a, uint8_t, n + 1), *chosen = ARENA_NEW(&b->arena, uint8_t, n + 1);
    int32_t *length = ARENA_NEW(&a, int32_t, count + 1);
    for (int i = 0; i < count; i++) {
        Episode *e = &b->episodes[first + i];
        bool fresh = !u->on_policy || corrects(&u->algo);
        const float *lp = fresh ? e->now_logprob : e->completion.logprob, *spread = fresh ? e->now_entropy : e->completion.entropy;
        length[i] = e->completion.length, e->chosen = chosen + at;
        for (int32_t j = 0; j < length[i]; j++, at++) {
            now[at] = lp[j], entropy[at] = spread[j], old[at] = e->old_logprob ? e->old_logprob[j] : e->completion.logprob[j];
            advantage[at] = e->token_advantage ? e->token_advantage[j] : e->advantage;
            mask[at] = e->active && is_kept(e, j);
        }
    }
    ObjectiveInput in = {.sequences = count, .length = length, .logprob = now, .old_logprob = old, .entropy = entropy, .mask = mask,
                         .token_advantage = advantage};
    step_survey(&u->algo, &in, &u->entropy_threshold, chosen);
    for (int64_t t = 0; t < n; t++) u->entropy_tokens += mask[t] && entropy[t] >= u->entropy_threshold;
    arena_reset(&a);
    return true;
}

// Weights and rejections against the policy that sampled, over the whole rollout.
static bool correct(Update *u, Err *err) {
    Batch *b = u->batch;
    if (!corrects(&u->algo)) return true;
    TRY(batch_logprobs(u->t->policy, b, LOGPROBS_OLD, 0, b->prompt_count, err));
    int64_t n = 0, at = 0;
    for (int i = 0; i < b->episode_count; i++) n += b->episodes[i].completion.length;
    Arena a = {0};
    double *old = ARENA_NEW(&a, double, n + 1), *sampler = ARENA_NEW(&a, double, n + 1), *weight = ARENA_NEW(&b->arena, double, n + 1);
    uint8_t *mask = ARENA_NEW(&a, uint8_t, n + 1), *keep = ARENA_NEW(&b->arena, uint8_t, n + 1);
    int32_t *length = ARENA_NEW(&a, int32_t, b->episode_count + 1);
    for (int i = 0; i < b->episode_count; i++) {
        Episode *e = &b->episodes[i];
        length[i] = e->completion.length, e->weight = weight + at, e->keep = keep + at;
        for (int32_t j = 0; j < length[i]; j++, at++) old[at] = e->old_logprob[j], sampler[at] = e->completion.logprob[j], mask[at] = e->active;
    }
    double gap = 0, count = 0;
    for (int64_t t = 0; t < n; t++)
        if (mask[t] && isfinite(old[t] - sampler[t])) gap += fabs(old[t] - sampler[t]), count++;
    u->report->sampler_gap = count > 0 ? gap / count : 0;
    correction_compute(&u->algo.correction, b->episode_count, length, old, sampler, mask, weight, keep);
    u->report->corrected_share = correction_share(&u->algo.correction, b->episode_count, length, old, sampler, mask, keep);
    arena_reset(&a);
    return true;
}

// ---- where no forward pass was made ------------------------------------------------------------------------------
// The trainer's own numbers of one sample.
static bool check_sample(const Update *u, const Episode *e, Err *err) {
    Completion c = e->completion;
    Packing packing = {0};
    Arena a = {0};
    float *logprob = ARENA_NEW(&a, float, c.length), *entropy = ARENA_NEW(&a, float, c.length);
    const Completion *completions[] = {&c};
    c.activations = 0;
    packing_reset(&packing, u->batch->stage->sampling.temperature);
    packing_group(&packing, &u->batch->prompts[e->prompt].ids, completions, 1);
    bool ok = policy_forward(u->t->policy, packing_view(&packing), false, logprob, entropy, err);
    packing_free(&packing);
    for (int32_t j = 0; ok && j < c.length; j++)
        ok = same_bits(u, e, j, "logprob", c.logprob[j], logprob[j], err) && same_bits(u, e, j, "entropy", c.entropy[j], entropy[j], err);
    arena_reset(&a);
    return ok;
}
// Of those that were trained on in groups [from, to), another one each step.
static bool check_spared(const Update *u, int from, int to, Err *err) {
    const Episode *first = &u->batch->episodes[from * u->batch->group_size];
    int episodes = (to - from) * u->batch->group_size, count = 0;
    for (int i = 0; i < episodes; i++) count += has_gradient(u, &first[i]);
    if (!u->fresh || u->report->spared_tokens == 0 || count == 0) return true;
    int left = (int)((uint64_t)u->batch->step * 2654435761u % (uint64_t)count);
    while (!has_gradient(u, first) || left-- > 0) first++;
    return check_sample(u, first, err);
}

static double active_tokens(const Batch *b, int from, int to) {
    double tokens = 0;
    for (int i = from * b->group_size; i < to * b->group_size; i++)
        for (int32_t j = 0; b->episodes[i].active && j < b->episodes[i].completion.length; j++) tokens += is_kept(&b->episodes[i], j);
    return tokens;
}

// ---- coefficients that move ------------------------------------------------------------------------------------
static void take_coefficients(Update *u) {
    const AlgoState *s = u->t->algo_state;
    const Algo *a = &u->batch->stage->algo;
    if (!s || !s->started) return;
    if (a->kl_target > 0) u->algo.kl = s->kl;
    if (a->entropy_target > 0) u->algo.entropy = s->last_entropy <= a->entropy_target ? s->entropy : 0;
}
// Until a step has been measured an adaptive bonus does not act.
static void start_coefficients(Update *u) {
    const Algo *a = &u->batch->stage->algo;
    if (a->entropy_target > 0 && !(u->t->algo_state && u->t->algo_state->started)) u->algo.entropy = 0;
    take_coefficients(u);
}
static void move_coefficients(const Update *u) {
    AlgoState *s = u->t->algo_state;
    const Algo *a = &u->batch->stage->algo;
    if (!s || u->tokens <= 0) return;
    if (!s->started) *s = (AlgoState){.started = true, .kl = a->kl, .entropy = a->entropy, .last_entropy = INFINITY};
    double kl = a->kl_in_reward ? u->report->kl : u->kl / u->tokens;
    if (a->kl_target > 0) s->kl = kl_controlled(s->kl, kl, a->kl_target, u->batch->episode_count, a->kl_horizon);
    s->last_entropy = u->entropy / u->tokens;
    if (a->entropy_target > 0) s->entropy = entropy_controlled(a, s->entropy, s->last_entropy);
}

// ---- the step --------------------------------------------------------------------------------------------------
// One optimizer step over groups [from, to).
static bool update_minibatch(Update *u, int from, int to, Err *err) {
    Batch *b = u->batch;
    int64_t limit = microbatch_limit(b->stage, policy_on_host(u->t->policy));
    u->step_sequences = (double)(to - from) * b->group_size;
    u->step_tokens = active_tokens(b, from, to);
    TRY(survey(u, from, to, err));
    packing_routers(&u->packing, &b->stage->optimizer, pass_tokens(u, from, to));
    policy_zero_gradients(u->t->policy);
    packing_reset(&u->packing, b->stage->sampling.temperature);
    for (int prompt = from; prompt < to; prompt++) {
        int count = find_group(u, prompt);
        TRY(pack_group(u, prompt, count, limit, err));
        u->report->groups_trained += count > 0;
        if (u->t->progress) u->t->progress(u->t->progress_context, "training", (double)(prompt - from + 1) / (to - from));
    }
    return flush(u, err) && check_spared(u, from, to, err);
}

static bool run_minibatches(Update *u, double rate, int epochs, int minibatches, Err *err) {
    Batch *b = u->batch;
    double start = clock_seconds();
    for (int epoch = 0; epoch < epochs; epoch++)
        for (int m = 0; m < minibatches; m++) {
            int trained = u->report->groups_trained;
            TRY(update_minibatch(u, (int)((int64_t)b->prompt_count * m / minibatches), (int)((int64_t)b->prompt_count * (m + 1) / minibatches), err));
            u->on_policy = u->fresh = false;
            double now = clock_seconds();
            u->report->measured.train += now - start;
            // Without a gradient there is nothing to step along; AdamW's moments stay as they are.
            if (u->report->groups_trained > trained) TRY(optimizer_apply(u->t->policy, &b->stage->optimizer, rate, u->report, err));
            start = clock_seconds();
            u->report->measured.optimizer += start - now;
        }
    return true;
}

bool update_batch(const Trainer *t, Batch *b, StepReport *report, Err *err) {
    const Stage *stage = b->stage;
    bool same = stage->rollout_precision == ROLLOUT_SAME;
    Update u = {.t = t, .batch = b, .report = report, .algo = stage->algo, .on_policy = same && report->stale_tokens == 0, .fresh = same};
    double rate = schedule_rate(&stage->optimizer, b->stage_step, stage->steps);
    int minibatches = stage->algo.minibatches > 0 ? stage->algo.minibatches : 1, epochs = stage->algo.epochs > 0 ? stage->algo.epochs : 1;
    start_coefficients(&u);
    TRY(correct(&u, err));
    u.rollout_tokens = active_tokens(b, 0, b->prompt_count) / minibatches;
    u.episodes = ARENA_NEW(&b->arena, Episode *, b->episode_count);
    u.group = ARENA_NEW(&b->arena, Episode *, b->group_size);
    u.completions = ARENA_NEW(&b->arena, const Completion *, b->group_size);
    bool ok = run_minibatches(&u, rate, epochs, minibatches, err);
    packing_free(&u.packing);
    report->learning_rate = rate;
    report->loss = u.loss / (epochs * minibatches);
    if (!stage->algo.kl_in_reward) report->kl = u.tokens > 0 ? u.kl / u.tokens : 0;
    report->clip_share = u.tokens > 0 ? u.clipped / u.tokens : 0;
    report->clip_low = u.tokens > 0 ? u.clipped_low / u.tokens : 0;
    report->clip_high = u.tokens > 0 ? u.clipped_high / u.tokens : 0;
    report->ratio_max = u.ratio_max;
    if (ok) move_coefficients(&u);
    return ok;
}
