// A mixture of experts: routing, sorting rows by expert, combining what experts give, their gradients, and the balance.
// Threads share tokens, or experts where rows are sorted; nothing is summed across them.
#include "simd.h"
#include "exact.h"

// ---- scores ----------------------------------------------------------------------------------------------
// Softmax or sigmoid of one row; lanes beyond E stay zero.
static void scores_of(const Router *r, const float *logits, float *score) {
    v16 top = v_set1(MINUS_INFINITY), sum = v_zero();
    int64_t E = r->experts;
    FOR_LANES(E) top = v_max(top, v_first(lanes_load(logits, c, n, false), (int)n, v_set1(MINUS_INFINITY)));
    v16 max = v_set1(r->sigmoid ? 0.0f : v_largest(top));
    FOR_LANES(E) {
        v16 x = lanes_load(logits, c, n, false);
        v16 s = v_first(r->sigmoid ? v_sigmoid(x) : v_exp(v_sub(x, max)), (int)n, v_zero());
        v_store(score + c, s);
        sum = v_add(sum, s);
    }
    if (r->sigmoid) return;
    v16 all = v_set1(v_sum(sum));
    for (int64_t c = 0; c < E; c += 16) v_store(score + c, v_div(v_load(score + c), all));
}

static float ordered(float x) { return x != x ? MINUS_INFINITY : x; }

static int take_largest(const float *key, bool *open, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (open[i] && (best < 0 || key[i] > key[best])) best = i;
    open[best] = false;
    return best;
}

// The sum of a group's one or two largest keys.
static float group_key(const float *key, int size, int best) {
    float first = key[0], second = MINUS_INFINITY;
    for (int i = 1; i < size; i++) {
        if (key[i] > first)
            second = first, first = key[i];
        else if (key[i] > second)
            second = key[i];
    }
    return ordered(best > 1 ? first + second : first);
}

static void choose(const Router *r, const float *key, int32_t *choice) {
    bool open[MAX_EXPERTS], group_open[MAX_EXPERTS];
    float keys[MAX_EXPERTS];
    int size = r->experts / r->groups;
    memset(open, r->groups == r->chosen_groups, (size_t)r->experts);
    if (r->groups > r->chosen_groups) {
        for (int g = 0; g < r->groups; g++) keys[g] = group_key(key + g * size, size, r->group_best), group_open[g] = true;
        for (int i = 0; i < r->chosen_groups; i++) memset(open + take_largest(keys, group_open, r->groups) * size, true, (size_t)size);
    }
    for (int j = 0; j < r->chosen; j++) { // into ascending order as they come
        int32_t e = take_largest(key, open, r->experts);
        int at = j;
        for (; at > 0 && choice[at - 1] > e; at--) choice[at] = choice[at - 1];
        choice[at] = e;
    }
}

void V(route)(const Team *team, const RouteArgs *a) {
    const Router *r = &a->router;
    float score[MAX_EXPERTS + 16], key[MAX_EXPERTS];
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        int32_t *choice = a->choice + t * r->chosen;
        float *weight = a->weight + t * r->chosen, sum = 0;
        scores_of(r, a->logits + t * r->experts, score);
        for (int e = 0; e < r->experts; e++) key[e] = ordered(a->bias ? score[e] + a->bias[e] : score[e]);
        choose(r, key, choice);
        for (int j = 0; j < r->chosen; j++) sum += score[choice[j]];
        sum += 1e-20f;
        for (int j = 0; j < r->chosen; j++) weight[j] = (r->normalise ? score[choice[j]] / sum : score[choice[j]]) * r->scale;
    }
}

// ---- gradient of the scores ------------------------------------------------------------------------------
// d [E] += the balancing loss's slopes along the scores; `s` is the segment.
static void add_balance(const RouteGradArgs *a, int s, const float *score, float *d) {
    const Router *r = &a->router;
    int64_t E = r->experts, S = a->segments.count;
    float factor = a->balance * ((float)E / ((float)r->chosen * (float)(a->segments.start[s + 1] - a->segments.start[s])));
    float b[MAX_EXPERTS + 16] = {0};
    v16 all = v_zero(), weighted = v_zero();
    for (int64_t e = 0; e < E; e++) b[e] = factor * (float)(a->start[e * S + s + 1] - a->start[e * S + s]);
    for (int64_t c = 0; c < E; c += 16) {
        all = v_add(all, v_load(score + c));
        weighted = v_fma(v_load(b + c), v_load(score + c), weighted);
    }
    float sum = v_sum(all), mean = v_sum(weighted) / sum;
    for (int64_t e = 0; e < E; e++) d[e] += r->sigmoid ? (b[e] - mean) / sum : b[e];
}

static void add_z(const RouteGradArgs *a, const float *logits, float *d) {
    int64_t E = a->router.experts;
    v16 top = v_set1(MINUS_INFINITY), sum = v_zero();
    FOR_LANES(E) top = v_max(top, v_first(lanes_load(logits, c, n, false), (int)n, v_set1(MINUS_INFINITY)));
    float max = v_largest(top);
    FOR_LANES(E) sum = v_add(sum, v_first(v_exp(v_sub(lanes_load(logits, c, n, false), v_set1(max))), (int)n, v_zero()));
    float all = v_sum(sum), factor = 2.0f * a->z * (max + (float)exact_log(all)) / all;
    FOR_LANES(E) v_store(d + c, v_fma(v_set1(factor), v_exp(v_sub(lanes_load(logits, c, n, false), v_set1(max))), v_load(d + c)));
}

static void route_grad_row(const RouteGradArgs *a, int s, int64_t t) {
    const Router *r = &a->router;
    int64_t E = r->experts;
    float score[MAX_EXPERTS + 16], d[MAX_EXPERTS + 16], sum = 0, dot = 0;
    const float *logits = a->logits + t * E, *dweight = a->dweight + t * r->chosen;
    const int32_t *choice = a->choice + t * r->chosen;
    memset(d, 0, (size_t)(E + 16) * sizeof *d);
    scores_of(r, logits, score);
    for (int j = 0; j < r->chosen; j++) sum += score[choice[j]], dot = fmaf(dweight[j], score[choice[j]], dot);
    sum += 1e-20f;
    dot = dot / sum;
    for (int j = 0; j < r->chosen; j++) d[choice[j]] = r->normalise ? (dweight[j] - dot) * r->scale / sum : dweight[j] * r->scale;
    if (a->balance != 0) add_balance(a, s, score, d);
    v16 one = v_set1(1.0f), weighted = v_zero();
    FOR_LANES(E) weighted = v_fma(v_first(v_load(d + c), (int)n, v_zero()), v_load(score + c), weighted);
    v16 mean = v_set1(v_sum(weighted));
    for (int64_t c = 0; c < E; c += 16) {
        v16 x = v_load(d + c), p = v_load(score + c);
        v_store(d + c, r->sigmoid ? v_mul(x, v_mul(p, v_sub(one, p))) : v_mul(p, v_sub(x, mean)));
    }
    if (a->z != 0) add_z(a, logits, d);
    FOR_LANES(E) lanes_store(a->dlogits, t * E + c, v_load(d + c), n, a->dtype == DTYPE_BF16);
}

void V(route_grad)(const Team *team, const RouteGradArgs *a) {
    for (int s = 0; s < a->segments.count; s++) {
        int64_t begin = a->segments.start[s], end = a->segments.start[s + 1];
        for (int64_t t = begin + (team->thread - begin % team->count + team->count) % team->count; t < end; t += team->count)
            route_grad_row(a, s, t);
    }
}

// ---- sorting ---------------------------------------------------------------------------------------------
// A sort by counting: one thread counts, which costs little beside the products, and each places the rows of its experts.
void V(dispatch)(const Team *team, const DispatchArgs *a) {
    int64_t S = a->segments.count ? a->segments.count : 1;
    if (team->thread == 0) {
        memset(a->start, 0, (size_t)(a->experts * S + 1) * sizeof *a->start);
        for (int64_t s = 0; s < S; s++) {
            int64_t from = a->segments.count ? a->segments.start[s] : 0, to = a->segments.count ? a->segments.start[s + 1] : a->T;
            for (int64_t i = from * a->chosen; i < to * a->chosen; i++) a->start[a->choice[i] * S + s]++;
        }
        int32_t at = 0;
        for (int64_t i = 0; i <= a->experts * S; i++) {
            int32_t count = a->start[i];
            a->start[i] = at;
            at += count;
        }
    }
    team_wait(team);
    int64_t first, last;
    int32_t next[MAX_EXPERTS];
    team_share(team, a->experts, 1, &first, &last);
    for (int64_t e = first; e < last; e++) {
        next[e] = a->start[e * S];
        if (a->load) a->load[e] += a->start[(e + 1) * S] - a->start[e * S];
    }
    for (int64_t i = 0; i < a->T * a->chosen; i++) {
        int32_t e = a->choice[i];
        if (e < first || e >= last) continue;
        a->token[next[e]] = (int32_t)(i / a->chosen);
        a->place[i] = next[e]++;
    }
}

// ---- combining -------------------------------------------------------------------------------------------
void V(combine)(const Team *team, const CombineArgs *a) {
    int64_t from, to;
    team_share(team, a->T, 1, &from, &to);
    for (int64_t t = from; t < to; t++) {
        const int32_t *place = a->place + t * a->chosen;
        const float *weight = a->weight ? a->weight + t * a->chosen : NULL;
        FOR_LANES(a->C) {
            v16 sum = v_zero();
            for (int j = 0; j < a->chosen; j++) sum = v_fma(v_set1(weight ? weight[j] : 1.0f), lanes_load(a->x, place[j] * a->C + c, n, false), sum);
            if (a->add) sum = v_add(lanes_load(a->y, t * a->C + c, n, false), sum);
            lanes_store(a->y, t * a->C + c, sum, n, false);
        }
    }
}

void V(combine_grad)(const Team *team, const CombineGradArgs *a) {
    bool half = a->dtype == DTYPE_BF16;
    int64_t from, to;
    team_share(team, a->T * a->chosen, 1, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t at = a->place[i] * a->F;
        v16 weight = v_set1(a->weight[i]), sum = v_zero();
        FOR_LANES(a->F) {
            v16 d = lanes_load(a->dff, at + c, n, false), f = lanes_load(a->ff, at + c, n, half);
            sum = v_fma(d, f, sum);
            lanes_store(a->dff, at + c, v_mul(d, weight), n, false);
            lanes_store(a->ff, at + c, v_mul(f, weight), n, half);
        }
        a->dweight[i] = v_sum(sum);
    }
}

void V(balance)(const Team *team, const BalanceArgs *a) {
    if (team->thread != 0) return;
    int64_t total = 0;
    for (int e = 0; e < a->experts; e++) total += a->load[e];
    for (int e = 0; e < a->experts; e++) {
        int64_t over = a->load[e] * a->experts - total;
        a->bias[e] += over < 0 ? a->rate : over > 0 ? -a->rate : 0.0f;
        a->load[e] = 0;
    }
}
