// What sampling does: where it stops, what it refuses, what it draws, and what it keeps.
#include "policy_test.h"

static const PolicyOptions fp32 = {.precision = PRECISION_FP32, .threads = 1};
static Policy *small_policy(int stops) {
    ModelConfig c = shape_config(&shapes[0]);
    c.stop_count = stops;
    for (int i = 0; i < stops; i++) c.stop_ids[i] = 3 + 4 * i;
    return policy_make(&c, NULL, PRECISION_FP32, 1);
}

static const int32_t a_prompt[] = {4, 11, 2, 18, 0, 7};
static RolloutRequest request(int32_t samples, Sampling sampling) {
    if (sampling.top_p == 0) sampling.top_p = 1;
    if (sampling.max_tokens == 0) sampling.max_tokens = 24;
    return (RolloutRequest){.prompt = a_prompt, .prompt_length = COUNT(a_prompt), .samples = samples, .sampling = sampling,
                            .seed = 1};
}
static Rollout roll(Policy *p, const RolloutRequest *r) {
    Err err = {0};
    Rollout out;
    OK(policy_rollout(p, r, 1, NULL, &out, &err));
    CHECK_INT(out.count, r->samples);
    return out;
}

// ---- stopping --------------------------------------------------------------------------------------------
static void stop_ids(void) {
    Policy *p = small_policy(3); // 3, 7, 11
    RolloutRequest r = request(64, (Sampling){.temperature = 1});
    Rollout out = roll(p, &r);
    int stopped = 0;
    for (int i = 0; i < out.count; i++) {
        const Completion *c = &out.completions[i];
        CHECK(c->length >= 1 && c->length <= 24);
        for (int t = 0; t < c->length; t++) {
            bool stop = c->ids[t] == 3 || c->ids[t] == 7 || c->ids[t] == 11;
            CHECK(!stop || t == c->length - 1);
            if (t == c->length - 1) CHECK_INT(c->finish, stop ? FINISH_STOP : FINISH_LENGTH);
        }
        if (c->finish == FINISH_LENGTH) CHECK_INT(c->length, 24);
        stopped += c->finish == FINISH_STOP;
    }
    CHECK(stopped > 10);
    // The same draws go on where the end token is ignored.
    r.sampling.ignore_eos = true;
    Rollout on = roll(p, &r);
    for (int i = 0; i < on.count; i++) {
        CHECK_INT(on.completions[i].length, 24);
        CHECK_INT(on.completions[i].finish, FINISH_LENGTH);
        CHECK(memcmp(on.completions[i].ids, out.completions[i].ids, (size_t)out.completions[i].length * 4) == 0);
    }
    CHECK_INT(on.new_tokens, 64 * 24);
    CHECK_INT(on.prompt_tokens, COUNT(a_prompt));
    rollout_free(&out), rollout_free(&on);
    policy_close(p);
}

typedef struct Finished {
    int count;
    bool seen[64];
} Finished;
static void count_finished(void *context, int32_t r, int32_t sample, const Completion *c) {
    Finished *f = context;
    if (r == 0 && c->length > 0) f->count++, f->seen[sample] = true;
}
static bool stop_at_once(void *context, int64_t tokens, int32_t finished) {
    (void)tokens, (void)finished;
    ++*(int *)context;
    return false;
}
static void callbacks(void) {
    Err err = {0};
    Policy *p = small_policy(1);
    Rollout out;
    Finished f = {0};
    RolloutRequest r = request(64, (Sampling){.temperature = 1});
    OK(policy_rollout(p, &r, 1, &(RolloutOptions){.finished = count_finished, .context = &f}, &out, &err));
    CHECK_INT(f.count, 64);
    for (int i = 0; i < 64; i++) CHECK(f.seen[i]);
    rollout_free(&out);
    int calls = 0;
    r.sampling.max_tokens = 2000;
    CHECK(!policy_rollout(p, &r, 1, &(RolloutOptions){.progress = stop_at_once, .context = &calls}, &out, &err));
    CHECK_INT(err.code, ERR_INTERRUPTED);
    CHECK_INT(calls, 1);
    CHECK(!out.completions && out.count == 0);
    policy_close(p);
}

// The text of a completion up to the token where `stop` is complete; its length in tokens, 0 if it isn't there.
static int32_t stop_place(const Tokenizer *t, const Completion *c, const char *stop) {
    for (int32_t n = 1; n <= c->length; n++) {
        Err err = {0};
        Buf text = {0};
        OK(tokenizer_decode(t, c->ids, n, true, &text, &err));
        bool found = text.data && strstr(text.data, stop);
        buf_free(&text);
        if (found) return n;
    }
    return 0;
}

static void stop_strings(void) {
    Err err = {0};
    Tokenizer *t;
    OK(tokenizer_from_characters("abcdé\n", &t, &err));
    ModelConfig c = shape_config(&shapes[0]);
    c.vocabulary = tokenizer_size(t);
    Policy *p = policy_make(&c, t, PRECISION_FP32, 1);
    static const int32_t prompt[] = {3, 4, 5};
    RolloutRequest r = request(64, (Sampling){.temperature = 1, .max_tokens = 40, .ignore_eos = true});
    r.prompt = prompt, r.prompt_length = COUNT(prompt);
    Rollout free_run = roll(p, &r);
    // Strings of one to four characters that some sample is known to come to; and some that none does.
    Buf known[6] = {0};
    for (int k = 0; k < COUNT(known); k++) {
        const int32_t *ids = free_run.completions[k].ids;
        int n = 0;
        while (n < 1 + k % 4) n = *ids++ < 3 ? 0 : n + 1; // characters, no special tokens between
        OK(tokenizer_decode(t, ids - n, n, true, &known[k], &err));
    }
    const char *const lists[][3] = {{known[0].data}, {known[1].data}, {known[2].data}, {known[3].data},
                                    {known[4].data, known[5].data}, {"é"}, {"zz", known[3].data}, {"", "zz"}};
    for (int k = 0; k < COUNT(lists); k++) {
        r.sampling.stop = lists[k];
        Rollout out = roll(p, &r);
        int stopped = 0;
        for (int i = 0; i < out.count; i++) {
            const Completion *all = &free_run.completions[i], *got = &out.completions[i];
            int32_t want = 0;
            for (int s = 0; lists[k][s]; s++) {
                int32_t place = *lists[k][s] ? stop_place(t, all, lists[k][s]) : 0;
                if (place && (!want || place < want)) want = place;
            }
            CHECK_INT(got->length, want ? want : 40);
            CHECK_INT(got->finish, want ? FINISH_STOP : FINISH_LENGTH);
            CHECK(memcmp(got->ids, all->ids, (size_t)got->length * 4) == 0);
            stopped += want > 0;
        }
        if ((stopped > 0) != (k < COUNT(lists) - 1)) FAIL("'%s' stopped %d samples", lists[k][0], stopped);
        rollout_free(&out);
    }
    for (int k = 0; k < COUNT(known); k++) buf_free(&known[k]);
    // The tokenizer's own end token ends too.
    r.sampling.stop = NULL, r.sampling.ignore_eos = false;
    Rollout out = roll(p, &r);
    for (int i = 0; i < out.count; i++) {
        const Completion *one = &out.completions[i];
        for (int32_t k = 0; k < one->length; k++) CHECK(one->ids[k] != tokenizer_eos(t) || k == one->length - 1);
        CHECK_INT(one->finish, one->ids[one->length - 1] == tokenizer_eos(t) ? FINISH_STOP : FINISH_LENGTH);
    }
    rollout_free(&out), rollout_free(&free_run);
    policy_close(p);
}

// Thinking that is still open at its budget is closed by a given "</think>", and the answer goes on from there; thinking that
// ended in time is left alone. Up to the budget all is as without one.
static void thinking_budget(void) {
    Err err = {0};
    Tokenizer *t;
    OK(tokenizer_from_characters("abcdefghijklmnopqr", &t, &err));
    int32_t end = tokenizer_id(t, "</think>"), closed = 0, in_time = 0, stopped = 0;
    ModelConfig c = shape_config(&shapes[0]);
    c.vocabulary = tokenizer_size(t);
    Policy *p = policy_make(&c, t, PRECISION_FP32, 1);
    RolloutRequest r = request(64, (Sampling){.temperature = 1, .max_tokens = 30});
    Rollout free_run = roll(p, &r);
    r.sampling.think_tokens = 6;
    Rollout out = roll(p, &r);
    for (int i = 0; i < out.count; i++) {
        const Completion *all = &free_run.completions[i], *got = &out.completions[i];
        int32_t at = 0;
        while (at < all->length && at < 6 && all->ids[at] != end) at++;
        bool ends = at < 6;
        CHECK(memcmp(got->ids, all->ids, (size_t)(at < 6 ? at : 6) * 4) == 0);
        if (ends) {
            CHECK(!got->given && got->length == all->length && memcmp(got->ids, all->ids, (size_t)all->length * 4) == 0);
            *(at < all->length ? &in_time : &stopped) += 1;
            continue;
        }
        if (all->length == 6 && all->finish == FINISH_STOP) {
            stopped++;
            continue;
        }
        CHECK(got->given && got->total == got->length + 1 && got->total > 7 && got->given[6]);
        CHECK_INT(got->all[6], end);
        CHECK(got->total <= 30 && (got->finish == FINISH_STOP) == (got->all[got->total - 1] == tokenizer_eos(t)));
        closed++;
    }
    CHECK(closed > 10 && in_time > 3 && stopped > 3);
    rollout_free(&out), rollout_free(&free_run);
    r.sampling.think_tokens = 30;
    CHECK(!policy_rollout(p, &r, 1, NULL, &out, &err));
    CHECK_STR(err.msg, "think_tokens is 30, expected less than max_tokens, 30");
    policy_close(p);
}

// ---- what is refused -------------------------------------------------------------------------------------
static void refused(void) {
    Policy *p = small_policy(0);
    static const int32_t high[] = {4, 19}, negative[] = {-1};
    static const char *const stop[] = {"x", NULL};
    const Sampling plain = {.temperature = 1, .top_p = 1, .max_tokens = 8};
    Sampling long_one = plain, none = plain, text = plain;
    long_one.max_tokens = 2047, none.max_tokens = 0, text.stop = stop;
    const struct {
        RolloutRequest request;
        const char *message;
    } cases[] = {
        {{.prompt = a_prompt, .prompt_length = 2, .samples = 1, .sampling = long_one}, "exceed the model's 2048 positions"},
        {{.prompt = high, .prompt_length = 2, .samples = 1, .sampling = plain}, "id 19 at place 1, expected 0 to 18"},
        {{.prompt = negative, .prompt_length = 1, .samples = 1, .sampling = plain}, "id -1 at place 0"},
        {{.prompt = a_prompt, .prompt_length = 0, .samples = 1, .sampling = plain}, "is empty"},
        {{.prompt = a_prompt, .prompt_length = 1, .samples = 0, .sampling = plain}, "is empty"},
        {{.prompt = a_prompt, .prompt_length = 1, .samples = 1, .sampling = none}, "max_tokens is 0"},
        {{.prompt = a_prompt, .prompt_length = 1, .samples = 1, .sampling = text}, "stop strings need a tokenizer"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        Err err = {0};
        Rollout out;
        const RolloutRequest both[] = {request(1, plain), cases[i].request};
        CHECK(!policy_rollout(p, both, 2, NULL, &out, &err));
        CHECK_INT(err.code, ERR_DATA);
        CHECK_STR(err.where, "prompt 1");
        if (!strstr(err.msg, cases[i].message)) FAIL("got \"%s\", want \"%s\"", err.msg, cases[i].message);
    }
    // Up to the last position it goes.
    RolloutRequest r = request(1, (Sampling){.temperature = 1, .max_tokens = 2048 - COUNT(a_prompt)});
    Rollout out = roll(p, &r);
    CHECK_INT(out.completions[0].length, 2048 - COUNT(a_prompt));
    rollout_free(&out);
    Err err = {0};
    OK(policy_rollout(p, NULL, 0, NULL, &out, &err));
    CHECK_INT(out.count, 0);
    rollout_free(&out);
    policy_close(p);
}

static void refused_in_training(void) {
    Policy *p = small_policy(0), *frozen;
    Err err = {0};
    static const int32_t bad[] = {1, 30};
    int32_t row = 0, target = 25, far = 9;
    float logprob[4];
    PackedGroup group = {.prompt_length = 2}, empty = {.prompt_length = 0}, long_group = {.prompt_length = 2049};
    int32_t *many = xcalloc(2049, 4);
    Packed b = {.token_count = 2, .tokens = bad, .group_count = 1, .groups = &group, .temperature = 1};
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "id 30 at place 1, expected 0 to 18"));
    b.tokens = a_prompt, b.target_count = 1, b.row = &row, b.target = &target;
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "target 0 (id 25, row 0) is out of range"));
    target = 5, b.row = &far;
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "row 9"));
    b.row = &row, b.temperature = 0;
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "expected more than 0"));
    b.temperature = 1, b.groups = &empty;
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "empty prompt"));
    b.groups = &long_group, b.token_count = 2049, b.tokens = many;
    CHECK(!policy_forward(p, &b, false, logprob, NULL, &err) && strstr(err.msg, "a sequence of 2049 tokens, the model has 2048"));
    OK(policy_freeze_copy(p, &frozen, &err));
    b.groups = &group, b.token_count = 2, b.tokens = a_prompt;
    CHECK(!policy_forward(frozen, &b, true, logprob, NULL, &err) && strstr(err.msg, "only by a trainable policy"));
    CHECK(!policy_backward(frozen, &b, logprob, NULL, &err));
    policy_close(frozen), policy_close(p);
    free(many);
}

// ---- what is drawn ---------------------------------------------------------------------------------------
static void greedy(void) {
    Policy *p = small_policy(1);
    RolloutRequest r = request(5, (Sampling){.temperature = 0});
    Rollout first = roll(p, &r);
    for (int i = 1; i < first.count; i++) { // all samples are one
        CHECK_INT(first.completions[i].length, first.completions[0].length);
        CHECK(memcmp(first.completions[i].ids, first.completions[0].ids, (size_t)first.completions[0].length * 4) == 0);
    }
    r.seed = 99;
    Rollout second = roll(p, &r);
    r.sampling.temperature = 1, r.sampling.top_k = 1;
    Rollout top = roll(p, &r);
    const Completion *a = &first.completions[0], *b = &second.completions[0], *c = &top.completions[3];
    CHECK(a->length == b->length && a->length == c->length);
    for (int32_t t = 0; t < a->length; t++) {
        CHECK_INT(b->ids[t], a->ids[t]);
        CHECK_INT(c->ids[t], a->ids[t]);
        CHECK(c->logprob[t] == 0 && c->entropy[t] == 0);
        CHECK(a->logprob[t] < 0 && a->logprob[t] >= -logf(19) && a->entropy[t] > 0); // the likeliest of 19
    }
    CHECK(!a->kept_start);
    CHECK_INT(c->kept_start[c->length], c->length);
    rollout_free(&first), rollout_free(&second), rollout_free(&top);
    policy_close(p);
}

// Counts of the first token against the probabilities that `score` gives, by Pearson's chi-squared.
static void frequencies(void) {
    enum { SAMPLES = 4000, V = 19 };
    Policy *p = small_policy(0);
    for (int k = 0; k < 3; k++) {
        static const double temperatures[] = {1, 0.6, 1.6};
        Err err = {0};
        RolloutRequest r = request(SAMPLES, (Sampling){.temperature = temperatures[k], .max_tokens = 1});
        Rollout out = roll(p, &r);
        int32_t row[V], target[V], seen[V] = {0};
        for (int v = 0; v < V; v++) row[v] = COUNT(a_prompt) - 1, target[v] = v;
        float logprob[V], entropy[V];
        PackedGroup group = {.prompt_length = COUNT(a_prompt)};
        Packed b = {.token_count = COUNT(a_prompt), .tokens = a_prompt, .group_count = 1, .groups = &group, .target_count = V,
                    .row = row, .target = target, .temperature = temperatures[k]};
        OK(policy_forward(p, &b, false, logprob, entropy, &err));
        double total = 0, mean = 0, chi = 0;
        for (int v = 0; v < V; v++) total += exp((double)logprob[v]), mean -= exp((double)logprob[v]) * logprob[v];
        CHECK_NEAR(total, 1, 1e-5);
        for (int v = 0; v < V; v++) CHECK_NEAR(entropy[v], mean, 1e-5);
        for (int i = 0; i < SAMPLES; i++) seen[out.completions[i].ids[0]]++;
        // Rare ones together, so that each cell expects five or more.
        double rare = 0, rare_seen = 0;
        int cells = 0;
        for (int v = 0; v < V; v++) {
            double want = SAMPLES * exp((double)logprob[v]);
            if (want < 5) {
                rare += want, rare_seen += seen[v];
                continue;
            }
            chi += (seen[v] - want) * (seen[v] - want) / want;
            cells++;
        }
        if (rare > 0) chi += (rare_seen - rare) * (rare_seen - rare) / (rare < 1 ? 1 : rare);
        CHECK(cells > 4);
        CHECK_NEAR(chi, 0, 48); // 19 degrees of freedom: beyond 48 about once in 4,000 seeds, and the seed is fixed
        rollout_free(&out);
    }
    policy_close(p);
}

// Samples don't repeat each other, and seed, step and prompt number each give other draws.
static void draws_differ(void) {
    Policy *p = small_policy(0);
    RolloutRequest base = request(8, (Sampling){.temperature = 1.5}), others[3] = {base, base, base};
    others[0].seed = 2, others[1].step = 1, others[2].prompt_index = 1;
    Rollout a = roll(p, &base);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < i; j++) CHECK(memcmp(a.completions[i].ids, a.completions[j].ids, 24 * 4) != 0);
    for (int k = 0; k < COUNT(others); k++) {
        Rollout b = roll(p, &others[k]);
        for (int i = 0; i < 8; i++) CHECK(memcmp(a.completions[i].ids, b.completions[i].ids, 24 * 4) != 0);
        rollout_free(&b);
    }
    rollout_free(&a);
    policy_close(p);
}

// ---- what is kept ----------------------------------------------------------------------------------------
// The distribution at one place by policy_forward, all 19 ids asked for.
static void distribution(Policy *p, const Completion *c, int32_t length, double temperature, float *logprob) {
    Err err = {0};
    Batch b = {0};
    batch_prompt(&b, a_prompt, COUNT(a_prompt));
    batch_completion(&b, c->ids, length, NULL, NULL);
    Packed packed = *batch_view(&b, temperature);
    int32_t row[19], target[19];
    for (int v = 0; v < 19; v++) row[v] = packed.token_count - 1, target[v] = v;
    packed.row = row, packed.target = target, packed.target_count = 19;
    OK(policy_forward(p, &packed, false, logprob, NULL, &err));
    batch_free(&b);
}

// The kept set in double precision, from its definition; `unsure` where a border is too near to tell.
static int kept_by_definition(const float *logprob, const Sampling *s, bool *kept, bool *unsure) {
    int order[19], count = 19;
    *unsure = false;
    for (int v = 0; v < 19; v++) {
        int at = v;
        for (; at > 0 && logprob[order[at - 1]] < logprob[v]; at--) order[at] = order[at - 1];
        order[at] = v;
        kept[v] = false;
    }
    if (s->top_k > 0 && s->top_k < count) count = s->top_k;
    if (s->top_p < 1) {
        double total = 0, sum = 0;
        int n = 0;
        for (int i = 0; i < count; i++) total += exp((double)logprob[order[i]]);
        while (n < count && sum < s->top_p * total) {
            sum += exp((double)logprob[order[n++]]);
            if (fabs(sum - s->top_p * total) < 1e-5) *unsure = true;
        }
        count = n;
    }
    int n = 0;
    for (; n < count; n++) {
        double ratio = exp((double)logprob[order[n]] - logprob[order[0]]);
        if (s->min_p > 0 && fabs(ratio - s->min_p) < 1e-5) *unsure = true;
        if (ratio < s->min_p) break;
    }
    for (int i = 0; i < n; i++) kept[order[i]] = true;
    return n;
}

static void kept_sets(void) {
    static const Sampling cases[] = {
        {.temperature = 1, .top_k = 4, .top_p = 1},
        {.temperature = 0.7, .top_p = 0.75},
        {.temperature = 1.4, .top_p = 1, .min_p = 0.15},
        {.temperature = 1.2, .top_k = 9, .top_p = 0.9, .min_p = 0.05},
        {.temperature = 1, .top_k = 100, .top_p = 1},
        {.temperature = 1, .top_p = 1e-6},
        {.temperature = 1, .top_p = 1, .min_p = 1},
    };
    Policy *p = small_policy(0);
    int compared = 0;
    for (int k = 0; k < COUNT(cases); k++) {
        RolloutRequest r = request(4, cases[k]);
        r.sampling.max_tokens = 9;
        Rollout out = roll(p, &r);
        for (int i = 0; i < out.count; i++) {
            const Completion *c = &out.completions[i];
            CHECK(c->kept_start && c->kept_start[0] == 0);
            for (int32_t t = 0; t < c->length; t++) {
                float logprob[19];
                bool want[19], got[19] = {false}, unsure;
                int64_t from = c->kept_start[t], to = c->kept_start[t + 1];
                CHECK(to > from);
                for (int64_t j = from; j < to; j++) {
                    CHECK(c->kept_ids[j] >= 0 && c->kept_ids[j] < 19);
                    CHECK(j == from || c->kept_ids[j] > c->kept_ids[j - 1]);
                    got[c->kept_ids[j]] = true;
                }
                CHECK(got[c->ids[t]]);
                distribution(p, c, t, cases[k].temperature, logprob);
                int n = kept_by_definition(logprob, &cases[k], want, &unsure);
                double mass = 0;
                for (int v = 0; v < 19; v++) mass += got[v] ? exp((double)logprob[v]) : 0;
                CHECK_NEAR(c->logprob[t], logprob[c->ids[t]] - log(mass), 2e-5);
                if (unsure) continue;
                CHECK_INT(to - from, n);
                for (int v = 0; v < 19; v++) CHECK(got[v] == want[v]);
                compared++;
            }
        }
        rollout_free(&out);
    }
    CHECK(compared > 200);
    policy_close(p);
}

// ---- other ways to the same numbers ----------------------------------------------------------------------
static void frozen_copy(void) {
    for (int precision = 0; precision < 2; precision++)
        for (int i = 0; i < 3; i++) {
            Err err = {0};
            ModelConfig c = shape_config(&shapes[i]);
            Policy *p = policy_make(&c, NULL, (Precision)precision, 2), *frozen;
            OK(policy_freeze_copy(p, &frozen, &err));
            CHECK(policy_bytes(frozen) < policy_bytes(p) / 3);
            RolloutRequest r = request(6, (Sampling){.temperature = 1});
            Rollout a = roll(p, &r), b = roll(frozen, &r);
            Batch batch = {0};
            batch_prompt(&batch, a_prompt, COUNT(a_prompt));
            for (int s = 0; s < 6; s++) {
                CHECK(memcmp(a.completions[s].ids, b.completions[s].ids, 24 * 4) == 0);
                CHECK(memcmp(a.completions[s].logprob, b.completions[s].logprob, 24 * 4) == 0);
                batch_completion(&batch, a.completions[s].ids, 24, NULL, NULL);
            }
            float before[6 * 24], after[6 * 24], weights[6 * 24], logprob[6 * 24];
            const Packed *packed = batch_view(&batch, 1);
            OK(policy_forward(p, packed, true, before, NULL, &err));
            OK(policy_forward(frozen, packed, false, logprob, NULL, &err));
            CHECK(memcmp(before, logprob, sizeof before) == 0);
            // Training the one leaves the other as it was.
            for (int t = 0; t < 6 * 24; t++) weights[t] = 1;
            policy_zero_gradients(p);
            OK(policy_backward(p, packed, weights, NULL, &err));
            OK(policy_update(p, &(AdamW){.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .scale = 1}, &err));
            OK(policy_forward(p, packed, false, after, NULL, &err));
            OK(policy_forward(frozen, packed, false, logprob, NULL, &err));
            CHECK(memcmp(before, logprob, sizeof before) == 0);
            CHECK(memcmp(before, after, sizeof before) != 0);
            batch_free(&batch);
            rollout_free(&a), rollout_free(&b);
            policy_close(frozen), policy_close(p);
        }
}

// Empty completions, groups without any, prompts that fill their pages: neighbours don't notice.
static void empty_completions(void) {
    ModelConfig c = shape_config(&shapes[1]);
    Policy *p = policy_make(&c, NULL, PRECISION_FP32, 1);
    int32_t prompt[420], ids[40];
    Random r = random_start(3, STREAM_TEST, 0);
    random_ids(&r, c.vocabulary, 420, prompt);
    random_ids(&r, c.vocabulary, 40, ids);
    static const int32_t prompts[] = {1, 32, 33, 64, 420};
    for (int k = 0; k < COUNT(prompts); k++) {
        Err err = {0};
        float alone[40], among[40], entropy[40];
        Batch one = {0}, many = {0};
        batch_prompt(&one, prompt, prompts[k]);
        batch_completion(&one, ids, 40, NULL, NULL);
        OK(policy_forward(p, batch_view(&one, 1), false, alone, entropy, &err));
        batch_prompt(&many, prompt + 3, 417); // no completion at all
        batch_prompt(&many, prompt, prompts[k]);
        batch_completion(&many, NULL, 0, NULL, NULL);
        batch_completion(&many, ids, 40, NULL, NULL);
        batch_completion(&many, NULL, 0, NULL, NULL);
        batch_prompt(&many, prompt, 32);
        batch_completion(&many, NULL, 0, NULL, NULL);
        OK(policy_forward(p, batch_view(&many, 1), true, among, NULL, &err));
        CHECK(memcmp(alone, among, sizeof alone) == 0);
        float ones[40];
        for (int i = 0; i < 40; i++) ones[i] = 1;
        policy_zero_gradients(p);
        OK(policy_backward(p, &many.packed, ones, NULL, &err));
        double norm = policy_gradient_norm(p);
        policy_zero_gradients(p);
        OK(policy_forward(p, &one.packed, true, among, NULL, &err));
        OK(policy_backward(p, &one.packed, ones, NULL, &err));
        // Tokens that no loss depends on add zeros; a prompt's sums over its copies may stand in another order.
        CHECK_NEAR(policy_gradient_norm(p), norm, 1e-6 * norm);
        batch_free(&one), batch_free(&many);
    }
    // A pass without targets is fine, and its gradient is zero.
    Err err = {0};
    Batch b = {0};
    batch_prompt(&b, prompt, 5);
    OK(policy_forward(p, batch_view(&b, 1), true, NULL, NULL, &err));
    policy_zero_gradients(p);
    OK(policy_backward(p, &b.packed, NULL, NULL, &err));
    CHECK_NEAR(policy_gradient_norm(p), 0, 0);
    batch_free(&b);
    policy_close(p);
}

// More targets than tokens: one row may predict several.
static void many_targets(void) {
    for (int precision = 0; precision < 2; precision++) {
        Err err = {0};
        enum { R = 600 };
        int32_t *row = xcalloc(R, 4), *target = xcalloc(R, 4);
        float *logprob = xcalloc(R, 4), *ones = xcalloc(R, 4);
        for (int i = 0; i < R; i++) row[i] = i % 3, target[i] = i % 19, ones[i] = 1;
        PackedGroup group = {.prompt_length = 3};
        Packed b = {.token_count = 3, .tokens = a_prompt, .group_count = 1, .groups = &group, .target_count = R, .row = row,
                    .target = target, .temperature = 1};
        ModelConfig c = shape_config(&shapes[precision]);
        Policy *q = policy_make(&c, NULL, (Precision)precision, 1);
        OK(policy_forward(q, &b, true, logprob, NULL, &err));
        policy_zero_gradients(q);
        OK(policy_backward(q, &b, ones, NULL, &err));
        CHECK(isfinite(policy_gradient_norm(q)) && policy_gradient_norm(q) > 0);
        policy_close(q);
        free(row), free(target), free(logprob), free(ones);
    }
}

static void top(void) {
    for (int i = 0; i < COUNT(shapes); i++) {
        Err err = {0};
        ModelConfig c = shape_config(&shapes[i]);
        Policy *p;
        OK(policy_create(&c, NULL, 4, &fp32, &p, &err));
        int32_t prompt[300], ids[21];
        float logprobs[21], want, entropy;
        Random r = random_start(8, STREAM_TEST, 0);
        random_ids(&r, c.vocabulary, 300, prompt);
        static const int32_t lengths[] = {1, 32, 45, 300};
        for (int k = 0; k < COUNT(lengths); k++) {
            OK(policy_top(p, prompt, lengths[k], 21, ids, logprobs, &err));
            for (int j = 0; j < 21; j++) {
                if (j >= c.vocabulary) {
                    CHECK_INT(ids[j], -1);
                    continue;
                }
                if (j) CHECK(logprobs[j] <= logprobs[j - 1]);
                int32_t row = lengths[k] - 1;
                PackedGroup group = {.prompt_length = lengths[k]};
                Packed b = {.token_count = lengths[k], .tokens = prompt, .group_count = 1, .groups = &group, .target_count = 1,
                            .row = &row, .target = &ids[j], .temperature = 1};
                OK(policy_forward(p, &b, false, &want, &entropy, &err));
                CHECK_NEAR(logprobs[j], want, 2e-6);
            }
            // The likeliest is the greedy one.
            RolloutRequest one = {.prompt = prompt, .prompt_length = lengths[k], .samples = 1,
                                  .sampling = {.temperature = 0, .top_p = 1, .max_tokens = 1}};
            Rollout out = roll(p, &one);
            CHECK_INT(out.completions[0].ids[0], ids[0]);
            rollout_free(&out);
        }
        policy_close(p);
    }
}

static const Test tests[] = {
    {"stop ids", stop_ids},
    {"callbacks", callbacks},
    {"stop strings", stop_strings},
    {"thinking budget", thinking_budget},
    {"refused requests", refused},
    {"refused batches", refused_in_training},
    {"greedy", greedy},
    {"frequencies", frequencies},
    {"draws differ", draws_differ},
    {"kept sets", kept_sets},
    {"frozen copy", frozen_copy},
    {"empty completions", empty_completions},
    {"more targets than tokens", many_targets},
    {"policy_top", top},
};
TEST_MAIN(tests)
