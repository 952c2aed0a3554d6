// The slow twins of a mixture of experts: routing, sorting, combining, their gradients, and the balance.
#include "reference.h"

// Softmax or sigmoid of one row.
static void scores_of(const Router *r, const float *logits, float *score) {
    float top = -INFINITY, lanes[16] = {0};
    for (int e = 0; e < r->experts; e++) top = logits[e] > top ? logits[e] : top;
    for (int e = 0; e < r->experts; e++) {
        score[e] = r->sigmoid ? sigmoid(logits[e]) : exp_reference(logits[e] - top);
        lanes[e % 16] += score[e];
    }
    float sum = tree_sum(lanes);
    for (int e = 0; e < r->experts && !r->sigmoid; e++) score[e] = score[e] / sum;
}

static float ordered(float x) { return x != x ? -INFINITY : x; }

// The largest keys that are open, one after the other, each closed when it is taken.
static int take_largest(const float *key, bool *open, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (open[i] && (best < 0 || key[i] > key[best])) best = i;
    open[best] = false;
    return best;
}

static void choose(const Router *r, const float *key, int32_t *choice) {
    bool open[MAX_EXPERTS], group_open[MAX_EXPERTS], chosen[MAX_EXPERTS] = {false};
    float group_key[MAX_EXPERTS];
    int size = r->experts / r->groups, count = 0;
    for (int g = 0; g < r->groups; g++) {
        bool left[MAX_EXPERTS];
        for (int i = 0; i < size; i++) left[i] = true;
        float sum = key[g * size + take_largest(key + g * size, left, size)];
        if (r->group_best > 1) sum = sum + key[g * size + take_largest(key + g * size, left, size)];
        group_key[g] = ordered(sum);
        group_open[g] = true;
    }
    for (int e = 0; e < r->experts; e++) open[e] = false;
    for (int i = 0; i < r->chosen_groups; i++) {
        int g = take_largest(group_key, group_open, r->groups);
        for (int e = g * size; e < (g + 1) * size; e++) open[e] = true;
    }
    for (int j = 0; j < r->chosen; j++) chosen[take_largest(key, open, r->experts)] = true;
    for (int e = 0; e < r->experts; e++)
        if (chosen[e]) choice[count++] = e;
}

void route_reference(const Team *team, const RouteArgs *a) {
    ONLY_FIRST
    const Router *r = &a->router;
    for (int64_t t = 0; t < a->T; t++) {
        float score[MAX_EXPERTS], key[MAX_EXPERTS], sum = 0, *weight = a->weight + t * r->chosen;
        int32_t *choice = a->choice + t * r->chosen;
        scores_of(r, a->logits + t * r->experts, score);
        for (int e = 0; e < r->experts; e++) key[e] = ordered(a->bias ? score[e] + a->bias[e] : score[e]);
        choose(r, key, choice);
        for (int j = 0; j < r->chosen; j++) sum += score[choice[j]];
        sum += 1e-20f;
        for (int j = 0; j < r->chosen; j++) weight[j] = (r->normalise ? score[choice[j]] / sum : score[choice[j]]) * r->scale;
    }
}

void route_grad_reference(const Team *team, const RouteGradArgs *a) {
    ONLY_FIRST
    const Router *r = &a->router;
    int E = r->experts, k = r->chosen, S = a->segments.count;
    for (int s = 0; s < S; s++)
        for (int64_t t = a->segments.start[s]; t < a->segments.start[s + 1]; t++) {
            float score[MAX_EXPERTS], d[MAX_EXPERTS] = {0}, sum = 0, dot = 0, lanes[16] = {0}, more[16] = {0};
            const float *logits = a->logits + t * E, *dweight = a->dweight + t * k;
            const int32_t *choice = a->choice + t * k;
            scores_of(r, logits, score);
            for (int j = 0; j < k; j++) sum += score[choice[j]], dot = fmaf(dweight[j], score[choice[j]], dot);
            sum += 1e-20f;
            dot = dot / sum;
            for (int j = 0; j < k; j++) d[choice[j]] = r->normalise ? (dweight[j] - dot) * r->scale / sum : dweight[j] * r->scale;
            if (a->balance != 0) {
                float b[MAX_EXPERTS], factor = a->balance * ((float)E / ((float)k * (float)(a->segments.start[s + 1] - a->segments.start[s])));
                for (int e = 0; e < E; e++) {
                    b[e] = factor * (float)(a->start[e * S + s + 1] - a->start[e * S + s]);
                    lanes[e % 16] += score[e], more[e % 16] = fmaf(b[e], score[e], more[e % 16]);
                }
                float all = tree_sum(lanes), mean = tree_sum(more) / all;
                for (int e = 0; e < E; e++) d[e] += r->sigmoid ? (b[e] - mean) / all : b[e];
                memset(lanes, 0, sizeof lanes);
            }
            for (int e = 0; e < E; e++) lanes[e % 16] = fmaf(d[e], score[e], lanes[e % 16]);
            float mean = tree_sum(lanes);
            for (int e = 0; e < E; e++) d[e] = r->sigmoid ? d[e] * (score[e] * (1.0f - score[e])) : score[e] * (d[e] - mean);
            if (a->z != 0) {
                float top = -INFINITY;
                memset(lanes, 0, sizeof lanes);
                for (int e = 0; e < E; e++) top = logits[e] > top ? logits[e] : top;
                for (int e = 0; e < E; e++) lanes[e % 16] += exp_reference(logits[e] - top);
                float all = tree_sum(lanes), factor = 2.0f * a->z * (top + (float)exact_log(all)) / all;
                for (int e = 0; e < E; e++) d[e] = fmaf(factor, exp_reference(logits[e] - top), d[e]);
            }
            for (int e = 0; e < E; e++) put(a->dlogits, t * E + e, d[e], a->dtype);
        }
}

void dispatch_reference(const Team *team, const DispatchArgs *a) {
    ONLY_FIRST
    int S = a->segments.count ? a->segments.count : 1, at = 0;
    for (int e = 0; e < a->experts; e++) {
        int before = at;
        for (int s = 0; s < S; s++) {
            a->start[e * S + s] = at;
            int64_t from = a->segments.count ? a->segments.start[s] : 0, to = a->segments.count ? a->segments.start[s + 1] : a->T;
            for (int64_t i = from * a->chosen; i < to * a->chosen; i++)
                if (a->choice[i] == e) a->token[at] = (int32_t)(i / a->chosen), a->place[i] = at++;
        }
        if (a->load) a->load[e] += at - before;
    }
    a->start[a->experts * S] = at;
}

void combine_reference(const Team *team, const CombineArgs *a) {
    ONLY_FIRST
    for (int64_t t = 0; t < a->T; t++)
        for (int64_t c = 0; c < a->C; c++) {
            float sum = 0, *y = a->y + t * a->C + c;
            for (int j = 0; j < a->chosen; j++)
                sum = fmaf(a->weight ? a->weight[t * a->chosen + j] : 1.0f, a->x[a->place[t * a->chosen + j] * a->C + c], sum);
            *y = a->add ? *y + sum : sum;
        }
}

void combine_grad_reference(const Team *team, const CombineGradArgs *a) {
    ONLY_FIRST
    for (int64_t i = 0; i < a->T * a->chosen; i++) {
        int64_t at = a->place[i] * a->F;
        float lanes[16] = {0}, weight = a->weight[i];
        for (int64_t f = 0; f < a->F; f++) {
            lanes[f % 16] = fmaf(a->dff[at + f], get(a->ff, at + f, a->dtype), lanes[f % 16]);
            a->dff[at + f] *= weight;
            put(a->ff, at + f, get(a->ff, at + f, a->dtype) * weight, a->dtype);
        }
        a->dweight[i] = tree_sum(lanes);
    }
}

void balance_reference(const Team *team, const BalanceArgs *a) {
    ONLY_FIRST
    int64_t total = 0;
    for (int e = 0; e < a->experts; e++) total += a->load[e];
    for (int e = 0; e < a->experts; e++) {
        int64_t over = a->load[e] * a->experts - total;
        a->bias[e] += over < 0 ? a->rate : over > 0 ? -a->rate : 0.0f;
        a->load[e] = 0;
    }
}
