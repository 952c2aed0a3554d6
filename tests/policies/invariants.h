// The machinery of the tests of invariants 1 and 2, for any device: requests of many kinds, the comparisons of what was
// sampled with what the training forward gives, and training steps over made-up data.
#ifndef RECKON_INVARIANTS_H
#define RECKON_INVARIANTS_H
#include "policy_test.h"

// ---- requests --------------------------------------------------------------------------------------------
enum { MAX_REQUESTS = 64, MAX_PROMPT = 70 };
typedef struct Requests {
    RolloutRequest list[MAX_REQUESTS];
    int32_t prompts[MAX_REQUESTS][MAX_PROMPT];
    int32_t count;
} Requests;

static inline void requests_add(Requests *q, int32_t vocabulary, int32_t prompt_length, int32_t samples, int32_t max_tokens,
                         const Sampling *sampling) {
    int32_t i = q->count++;
    Random r = random_start(11, STREAM_TEST, (uint64_t)(100 + i));
    random_ids(&r, vocabulary, prompt_length, q->prompts[i]);
    q->list[i] = (RolloutRequest){.prompt = q->prompts[i], .prompt_length = prompt_length, .samples = samples,
                                  .sampling = *sampling, .seed = 5, .step = 3, .prompt_index = (uint32_t)i};
    q->list[i].sampling.max_tokens = max_tokens;
}

// 1, 3, 17 and 64 samples of one prompt each; `turn` moves the lengths on.
static inline void requests_groups(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    static const int32_t samples[] = {1, 3, 17, 64, 2};
    static const int32_t lengths[] = {31, 32, 33, 64, 1, 70, 63, 65, 2, 30, 34, 48};
    static const int32_t most[] = {33, 32, 15, 9, 40};
    q->count = 0;
    for (int i = 0; i < COUNT(samples); i++)
        requests_add(q, vocabulary, lengths[(i + turn) % COUNT(lengths)], samples[i], most[i], sampling);
}

// Many small requests: with few places the batch is refilled all the time.
static inline void requests_stream(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    q->count = 0;
    for (int i = 0; i < 14; i++)
        requests_add(q, vocabulary, 1 + (i * 23 + turn * 5) % MAX_PROMPT, 1 + (i + turn) % 3, 1 + (i * 11) % 21, sampling);
}

// The same prompt in requests of their own.
static inline void requests_separate(Requests *q, int32_t vocabulary, int turn, const Sampling *sampling) {
    q->count = 0;
    for (int i = 0; i < 17; i++) {
        requests_add(q, vocabulary, 20 + turn % 20, 1, 8, sampling);
        memcpy(q->prompts[i], q->prompts[0], sizeof q->prompts[0]);
    }
}

static const Sampling samplings[] = {
    {.temperature = 1, .top_p = 1},
    {.temperature = 0.7, .top_p = 1},
    {.temperature = 1.3, .top_p = 1},
    {.temperature = 1, .top_k = 5, .top_p = 1},
    {.temperature = 0.7, .top_p = 0.8},
    {.temperature = 1.3, .top_p = 1, .min_p = 0.1},
    {.temperature = 1.3, .top_k = 20, .top_p = 0.9, .min_p = 0.02},
    {.temperature = 0, .top_p = 1},
};

// ---- comparing -------------------------------------------------------------------------------------------
static char context[256]; // the case, for messages

static inline void check_bits(const char *what, float got, float want, int32_t request, int32_t sample, int32_t token) {
    if (float_bits(got) != float_bits(want))
        FAIL("%s: %s of request %d, sample %d, token %d: got %.9g (%08x), recorded %.9g (%08x)", context, what, request,
             sample, token, got, float_bits(got), want, float_bits(want));
}

static const Completion *first_completion(const Rollout *rollout, const Requests *q, int32_t request) {
    const Completion *c = rollout->completions;
    for (int32_t i = 0; i < request; i++) c += q->list[i].samples;
    return c;
}

// Forward over all requests, in this order, groups of at most `together` samples: equal to what was recorded.
static inline void check_forward(Policy *p, const Requests *q, const Rollout *rollout, bool reversed, int32_t together, bool keep) {
    Err err = {0};
    Batch b = {0};
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = reversed ? q->count - 1 - i : i;
        const RolloutRequest *r = &q->list[request];
        const Completion *c = first_completion(rollout, q, request);
        for (int32_t s = 0; s < r->samples; s++) {
            if (s % together == 0) batch_prompt(&b, r->prompt, r->prompt_length);
            batch_course(&b, &c[s]);
        }
    }
    float *logprob = xmalloc((size_t)b.target.count * 4), *entropy = xmalloc((size_t)b.target.count * 4);
    OK(policy_forward(p, batch_view(&b, q->list[0].sampling.temperature), keep, logprob, entropy, &err));
    int32_t at = 0;
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = reversed ? q->count - 1 - i : i;
        const Completion *c = first_completion(rollout, q, request);
        for (int32_t s = 0; s < q->list[request].samples; s++)
            for (int32_t t = 0; t < c[s].length; t++, at++) {
                check_bits("logprob", logprob[at], c[s].logprob[t], request, s, t);
                check_bits("entropy", entropy[at], c[s].entropy[t], request, s, t);
            }
    }
    CHECK_INT(at, b.target.count);
    free(logprob), free(entropy);
    batch_free(&b);
}

// Every `stride`th sequence in a pass of its own.
static inline void check_alone(Policy *p, const Requests *q, const Rollout *rollout, int32_t stride) {
    Err err = {0};
    int32_t index = 0;
    float logprob[64], entropy[64];
    for (int32_t request = 0; request < q->count; request++)
        for (int32_t s = 0; s < q->list[request].samples; s++, index++) {
            if (index % stride != 0) continue;
            const Completion *c = &rollout->completions[index];
            Batch b = {0};
            batch_prompt(&b, q->list[request].prompt, q->list[request].prompt_length);
            batch_course(&b, c);
            OK(policy_forward(p, batch_view(&b, q->list[request].sampling.temperature), false, logprob, entropy, &err));
            for (int32_t t = 0; t < c->length; t++) {
                check_bits("logprob alone", logprob[t], c->logprob[t], request, s, t);
                check_bits("entropy alone", entropy[t], c->entropy[t], request, s, t);
            }
            batch_free(&b);
        }
}

static inline void check_same(const Completion *got, const Completion *want, int32_t request, int32_t sample) {
    for (int32_t t = 0; t < got->length && t < want->length; t++) {
        if (got->ids[t] != want->ids[t])
            FAIL("%s: request %d, sample %d, token %d: sampled %d, then %d", context, request, sample, t, want->ids[t], got->ids[t]);
        check_bits("logprob sampled again", got->logprob[t], want->logprob[t], request, sample, t);
        check_bits("entropy sampled again", got->entropy[t], want->entropy[t], request, sample, t);
    }
    CHECK_INT(got->length, want->length);
    CHECK_INT(got->finish, want->finish);
    CHECK_INT(completion_total(got), completion_total(want));
    CHECK(!got->given == !want->given);
    if (got->given) CHECK(memcmp(got->all, want->all, (size_t)want->total * 4) == 0 && memcmp(got->given, want->given, (size_t)want->total) == 0);
    CHECK(!got->kept_start == !want->kept_start);
    if (!got->kept_start) return;
    CHECK(memcmp(got->kept_start, want->kept_start, (size_t)(want->length + 1) * sizeof(int64_t)) == 0);
    CHECK(memcmp(got->kept_ids, want->kept_ids, (size_t)want->kept_start[want->length] * sizeof(int32_t)) == 0);
}

// ---- turns -----------------------------------------------------------------------------------------------
// Answers to the turns of samples, as an environment gives them: so many ids, a function of who asks and in which turn.
// `patience` moves when they come: the newest or the oldest first, at once or only after some polls.
enum { MOST_TURNS = 4, MOST_GIVEN = 34, MAX_WAITING = 128 };
typedef struct Turns {
    const RolloutRequest *list;
    int32_t vocabulary, patience, polls, waiting_count, asked, answered;
    struct { int32_t request, sample; } waiting[MAX_WAITING];
    int32_t turn[MAX_REQUESTS][64];
    int32_t ids[MOST_GIVEN];
} Turns;

static inline bool turns_ended(void *context_, int32_t request, int32_t sample, const Completion *c) {
    Turns *t = context_;
    if (c->length % 7 == 6 || ++t->turn[request][sample] >= MOST_TURNS) return false;
    CHECK(t->waiting_count < MAX_WAITING);
    t->waiting[t->waiting_count].request = request;
    t->waiting[t->waiting_count++].sample = sample;
    t->asked++;
    return true;
}
static inline bool turns_next(void *context_, bool wait, NextTurn *out, Err *err) {
    Turns *t = context_;
    (void)err;
    if (t->waiting_count == 0 || (!wait && t->polls++ % (1 + t->patience) != 0)) return true;
    int32_t at = t->patience % 2 ? t->waiting_count - 1 : 0;
    int32_t request = t->waiting[at].request, sample = t->waiting[at].sample, turn = t->turn[request][sample];
    memmove(&t->waiting[at], &t->waiting[at + 1], (size_t)(t->waiting_count - at - 1) * sizeof t->waiting[0]);
    t->waiting_count--, t->answered++;
    Random r = random_start(13, STREAM_TEST, t->list[request].prompt_index * 1000 + (uint64_t)sample * 10 + (uint64_t)turn);
    *out = (NextTurn){.request = request, .sample = sample, .ids = t->ids, .count = (int32_t)random_below(&r, MOST_GIVEN)};
    if (random_below(&r, 8) == 0) out->done = true;
    if (random_below(&r, 8) == 0) out->count = 0;
    random_ids(&r, t->vocabulary, out->count, t->ids);
    return true;
}
static inline void roll_turns(Policy *p, const RolloutRequest *list, int32_t count, int32_t patience, int32_t places, Rollout *out) {
    Err err = {0};
    Turns *t = xcalloc(1, sizeof *t);
    t->list = list, t->vocabulary = policy_config(p)->vocabulary, t->patience = patience;
    OK(policy_rollout(p, list, count, &(RolloutOptions){.max_sequences = places, .turn_ended = turns_ended, .next_turn = turns_next, .context = t}, out, &err));
    CHECK(t->asked > 0 && t->asked == t->answered);
    free(t);
}

// Episodes of several turns: what the training forward computes for the whole of them is what was recorded, and neither the
// order in which answers come nor the number of places can be seen.
static inline void check_turns(Policy *p, Requests *q, bool thorough) {
    Rollout rollout, again;
    int64_t given = 0, prompts = 0, sampled = 0;
    for (int32_t i = 0; i < q->count; i++) {
        q->list[i].sampling.turn_tokens = i % 3 * 5;
        q->list[i].sampling.max_tokens += thorough ? 60 : 30;
        prompts += q->list[i].prompt_length;
    }
    roll_turns(p, q->list, q->count, 0, 0, &rollout);
    for (int32_t i = 0; i < rollout.count; i++) {
        const Completion *c = &rollout.completions[i];
        int32_t at = 0;
        sampled += c->length, given += completion_total(c) - c->length;
        for (int32_t k = 0; c->given && k < c->total; k++)
            if (!c->given[k]) CHECK_INT(c->all[k], c->ids[at++]);
        if (c->given) CHECK(at == c->length && !c->given[c->total - 1]);
    }
    CHECK(given > 0);
    CHECK_INT(rollout.new_tokens, sampled);
    CHECK_INT(rollout.prompt_tokens, prompts + given);
    check_forward(p, q, &rollout, false, INT32_MAX, true);
    if (thorough) check_forward(p, q, &rollout, true, 1, false);
    for (int patience = 1; patience < (thorough ? 4 : 2); patience++) {
        roll_turns(p, q->list, q->count, patience, patience * 3, &again);
        for (int32_t request = 0; request < q->count; request++)
            for (int32_t s = 0; s < q->list[request].samples; s++)
                check_same(&first_completion(&again, q, request)[s], &first_completion(&rollout, q, request)[s], request, s);
        rollout_free(&again);
    }
    rollout_free(&rollout);
}

// The same requests, the list turned by `rotation`, with so many places: the same completions.
static inline void check_again(Policy *p, const Requests *q, const Rollout *rollout, int32_t rotation, int32_t max_sequences) {
    Err err = {0};
    Rollout again;
    Requests turned = {.count = q->count};
    for (int32_t i = 0; i < q->count; i++) turned.list[i] = q->list[(i + rotation) % q->count];
    OK(policy_rollout(p, turned.list, q->count, &(RolloutOptions){.max_sequences = max_sequences}, &again, &err));
    CHECK_INT(again.count, rollout->count);
    CHECK_INT(again.new_tokens, rollout->new_tokens);
    for (int32_t i = 0; i < q->count; i++) {
        int32_t request = (i + rotation) % q->count;
        const Completion *got = first_completion(&again, &turned, i), *want = first_completion(rollout, q, request);
        for (int32_t s = 0; s < q->list[request].samples; s++) check_same(&got[s], &want[s], request, s);
    }
    rollout_free(&again);
}

// One request alone.
static inline void check_single(Policy *p, const Requests *q, const Rollout *rollout, int32_t request) {
    Err err = {0};
    Rollout again;
    OK(policy_rollout(p, &q->list[request], 1, NULL, &again, &err));
    for (int32_t s = 0; s < q->list[request].samples; s++)
        check_same(&again.completions[s], &first_completion(rollout, q, request)[s], request, s);
    rollout_free(&again);
}

static inline ModelConfig stopping_config(const Shape *shape) {
    ModelConfig c = shape_config(shape);
    c.stop_count = c.vocabulary < 100 ? 1 : MAX_STOP_IDS; // so that samples end at different times
    for (int i = 0; i < c.stop_count; i++) c.stop_ids[i] = i * (c.vocabulary / 16) + 1;
    return c;
}

// ---- training --------------------------------------------------------------------------------------------
enum { MAX_GROUPS = 8 };
typedef struct Data {
    int group_count;
    struct {
        int32_t prompt[80], prompt_length, samples;
        int32_t ids[6][520], lengths[6];
    } groups[MAX_GROUPS];
} Data;

static inline void data_make(Data *d, int32_t vocabulary, const int32_t (*groups)[3], int count, uint64_t seed) {
    Random r = random_start(seed, STREAM_TEST, 2);
    d->group_count = count;
    for (int g = 0; g < count; g++) {
        d->groups[g].prompt_length = groups[g][0];
        d->groups[g].samples = groups[g][1];
        random_ids(&r, vocabulary, groups[g][0], d->groups[g].prompt);
        for (int s = 0; s < groups[g][1]; s++) {
            d->groups[g].lengths[s] = groups[g][2] - s; // ragged, odd and even; zero where it comes to that
            if (d->groups[g].lengths[s] < 0) d->groups[g].lengths[s] = 0;
            random_ids(&r, vocabulary, d->groups[g].lengths[s], d->groups[g].ids[s]);
        }
    }
}

// Groups [from, to): forward, coefficients that depend on place and logprob, backward.
static inline void train_microbatch(Policy *p, const Data *d, int from, int to, int step) {
    Err err = {0};
    Batch b = {0};
    for (int g = from; g < to; g++) {
        batch_prompt(&b, d->groups[g].prompt, d->groups[g].prompt_length);
        for (int s = 0; s < d->groups[g].samples; s++)
            batch_completion(&b, d->groups[g].ids[s], d->groups[g].lengths[s], NULL, NULL);
    }
    int32_t R = b.target.count;
    const Packed *packed = batch_view(&b, 0.9);
    float *values = xmalloc((size_t)R * 4 * sizeof(float)), *logprob = values, *entropy = values + R;
    float *dlogprob = values + 2 * R, *dentropy = values + 3 * R;
    OK(policy_forward(p, packed, true, logprob, entropy, &err));
    int32_t at = 0;
    for (int g = from; g < to; g++) {
        RandomKey key = random_key((uint64_t)g, STREAM_TEST);
        for (int s = 0; s < d->groups[g].samples; s++)
            for (int32_t t = 0; t < d->groups[g].lengths[s]; t++, at++) {
                float advantage = (float)(2 * random_uniform(key, (uint32_t)step, (uint32_t)s, (uint32_t)t, 0) - 1);
                dlogprob[at] = advantage - 0.01f * logprob[at];
                dentropy[at] = 0.1f * advantage + 0.001f * entropy[at];
            }
    }
    CHECK_INT(at, R);
    OK(policy_backward(p, packed, dlogprob, dentropy, &err));
    free(values);
    batch_free(&b);
}

static inline void train_step(Policy *p, const Data *d, const int *cuts, int step) {
    policy_zero_gradients(p);
    for (int i = 0, from = 0; from < d->group_count; from = cuts[i++])
        train_microbatch(p, d, from, cuts[i] < d->group_count ? cuts[i] : d->group_count, step);
    double norm = policy_gradient_norm(p);
    CHECK(norm > 0 && isfinite(norm));
    Err err = {0};
    OK(policy_update(p, &(AdamW){.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1,
                                 .scale = norm > 1 ? 1 / norm : 1}, &err));
}

// Ends of microbatches, in groups.
static const int splits[][MAX_GROUPS] = {
    {MAX_GROUPS}, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, MAX_GROUPS}, {4, MAX_GROUPS},
};

#endif
