// Rollouts that end early and go on later, and requests that come while others decode: under the same weights, what comes out is
// bit for bit what one rollout of everything gives, however many sequences are decoded at once.
#include "policy_test.h"

enum { GROUPS = 7, SAMPLES = 3, LONGEST = 40 };
typedef struct World {
    Policy *p;
    RolloutRequest requests[GROUPS];
    int32_t prompts[GROUPS][48];
} World;

static void world_open(World *w, Sampling sampling) {
    Err err = {0};
    Tokenizer *t;
    OK(tokenizer_from_characters("ab</think>xyz", &t, &err));
    ModelConfig c = shape_config(&shapes[1]);
    c.vocabulary = tokenizer_size(t);
    c.stop_count = 1, c.stop_ids[0] = tokenizer_eos(t);
    w->p = policy_make(&c, t, PRECISION_FP32, 1);
    Random r = random_start(11, STREAM_TEST, 0);
    sampling.max_tokens = LONGEST;
    if (sampling.top_p == 0) sampling.top_p = 1;
    for (int i = 0; i < GROUPS; i++) {
        random_ids(&r, c.vocabulary, 48, w->prompts[i]);
        w->requests[i] = (RolloutRequest){.prompt = w->prompts[i], .prompt_length = 1 + 9 * i % 48, .samples = SAMPLES, .sampling = sampling, .seed = 5, .step = 2,
                                          .prompt_index = (uint32_t)i};
    }
}

static void same_completion(const Completion *a, const Completion *b, const char *what) {
    if (a->length != b->length || a->finish != b->finish || completion_total(a) != completion_total(b))
        FAIL("%s: %d tokens of %d, finish %d; expected %d of %d, %d", what, a->length, completion_total(a), a->finish, b->length, completion_total(b), b->finish);
    size_t bytes = (size_t)a->length * 4;
    if (a->length && (memcmp(a->ids, b->ids, bytes) || memcmp(a->logprob, b->logprob, bytes) || memcmp(a->entropy, b->entropy, bytes)))
        FAIL("%s: ids, logprobs or entropies differ", what);
    if (memcmp(completion_all(a), completion_all(b), (size_t)completion_total(a) * 4)) FAIL("%s: the courses differ", what);
    for (int32_t i = 0; a->kept_start && b->kept_start && i <= a->length; i++)
        if (a->kept_start[i] != b->kept_start[i]) FAIL("%s: the kept sets differ at token %d", what, i);
    if (a->kept_start && a->length && memcmp(a->kept_ids, b->kept_ids, (size_t)a->kept_start[a->length] * 4)) FAIL("%s: the kept ids differ", what);
}

static bool is_complete(const Rollout *r, int group) {
    for (int s = 0; s < SAMPLES; s++)
        if (r->completions[group * SAMPLES + s].finish == FINISH_PAUSED) return false;
    return true;
}

// One piece after the other until all is complete; each piece twice, with room for all and for one group at a time.
static void in_pieces(const World *w, const Rollout *whole, int complete, const char *what) {
    Err err = {0};
    Rollout at = {0};
    int pieces = 0, paused = 1;
    for (; paused > 0; pieces++) {
        RolloutRequest requests[GROUPS];
        Rollout next, narrow;
        int done = 0;
        for (int i = 0; i < GROUPS; i++) {
            requests[i] = w->requests[i];
            requests[i].carried = pieces ? &at.completions[i * SAMPLES] : NULL;
            requests[i].due = i == 4 && pieces == 1;
            done += pieces && is_complete(&at, i);
        }
        int wanted = done + complete < GROUPS ? done + complete : GROUPS;
        OK(policy_rollout(w->p, requests, GROUPS, &(RolloutOptions){.complete = wanted}, &next, &err));
        OK(policy_rollout(w->p, requests, GROUPS, &(RolloutOptions){.complete = wanted, .max_sequences = SAMPLES}, &narrow, &err));
        CHECK_INT(next.count, GROUPS * SAMPLES);
        CHECK_INT(next.new_tokens, narrow.new_tokens);
        int complete_now = 0;
        for (int i = 0; i < next.count; i++) same_completion(&narrow.completions[i], &next.completions[i], what);
        for (int i = 0; i < GROUPS; i++) complete_now += is_complete(&next, i);
        CHECK(complete_now >= wanted);
        if (pieces == 1) CHECK(is_complete(&next, 4));
        rollout_free(&narrow), rollout_free(&at);
        at = next;
        paused = GROUPS - complete_now;
    }
    if (complete == 1 && pieces < 2) FAIL("%s: %d pieces", what, pieces);
    for (int i = 0; i < at.count; i++) same_completion(&at.completions[i], &whole->completions[i], what);
    rollout_free(&at);
}

static void pieces(void) {
    static const Sampling cases[] = {{.temperature = 1}, {.temperature = 1.3, .top_k = 4}, {.temperature = 1, .think_tokens = 9}, {.temperature = 0.8, .think_tokens = 25, .top_p = 0.9}};
    for (int k = 0; k < COUNT(cases); k++) {
        World w;
        Err err = {0};
        Rollout whole;
        world_open(&w, cases[k]);
        OK(policy_rollout(w.p, w.requests, GROUPS, NULL, &whole, &err));
        for (int complete = 1; complete < 6; complete += 2) {
            char what[64];
            snprintf(what, sizeof what, "sampling %d, %d groups at a time", k, complete);
            in_pieces(&w, &whole, complete, what);
        }
        rollout_free(&whole);
        policy_close(w.p);
    }
}

// ---- requests that come later ----------------------------------------------------------------------------
typedef struct Source {
    const World *w;
    int given, finished[GROUPS];
    bool hesitates; // says that none is ready until it is waited for
} Source;
static bool next_request(void *context, bool wait, RolloutRequest *out, bool *there, Err *err) {
    Source *s = context;
    (void)err;
    *there = s->given < GROUPS && (wait || !s->hesitates);
    if (*there) *out = s->w->requests[s->given++];
    return true;
}
static void one_finished(void *context, int32_t request, int32_t sample, const Completion *c) {
    (void)sample, (void)c;
    ((Source *)context)->finished[request]++;
}

static void later_requests(void) {
    World w;
    Err err = {0};
    Rollout whole, out;
    world_open(&w, (Sampling){.temperature = 1});
    RolloutRequest longest = w.requests[0]; // the first one bounds the others
    for (int i = 1; i < GROUPS; i++)
        if (w.requests[i].prompt_length > longest.prompt_length) longest = w.requests[i], w.requests[i] = w.requests[0], w.requests[0] = longest;
    OK(policy_rollout(w.p, w.requests, GROUPS, NULL, &whole, &err));
    for (int k = 0; k < 4; k++) {
        Source s = {.w = &w, .given = 1, .hesitates = k & 1};
        RolloutOptions o = {.more_requests = GROUPS, .next_request = next_request, .finished = one_finished, .context = &s, .max_sequences = k & 2 ? SAMPLES : 0};
        OK(policy_rollout(w.p, w.requests, 1, &o, &out, &err));
        CHECK_INT(out.count, whole.count);
        for (int i = 0; i < out.count; i++) same_completion(&out.completions[i], &whole.completions[i], "later requests");
        for (int i = 0; i < GROUPS; i++) CHECK_INT(s.finished[i], SAMPLES);
        rollout_free(&out);
    }
    Source s = {.w = &w, .given = 1};
    w.requests[1].prompt_length = w.requests[0].prompt_length + 1;
    CHECK(!policy_rollout(w.p, w.requests, 1, &(RolloutOptions){.more_requests = 1, .next_request = next_request, .context = &s}, &out, &err));
    CHECK_INT(err.code, ERR_SOFTWARE);
    rollout_free(&whole);
    policy_close(w.p);
}

static const Test tests[] = {
    {"in pieces", pieces},
    {"requests that come later", later_requests},
};
TEST_MAIN(tests)
