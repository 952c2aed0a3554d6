// Advantages that differ from token to token and need more than rewards: a critic's values, or how much each token moved
// the policy. Recipes don't offer them, since no critic is trained here; they serve comparisons with other programs.
#include "algorithm.h"
#include <math.h>
#include <stdlib.h>

void generalized_advantages(const Gae *gae, int sequences, const int32_t *length, const uint8_t *mask, const double *reward,
                            const double *value, double *advantage, double *returns) {
    int64_t end = 0;
    for (int s = 0; s < sequences; s++) {
        end += length[s];
        double next = 0, running = 0;
        for (int64_t t = end - 1; t >= end - length[s]; t--) {
            double here = reward[t] + gae->gamma * next - value[t] + gae->gamma * gae->lambda * running;
            if (!gae->skip || !mask || mask[t]) running = here, next = value[t];
            advantage[t] = running;
            returns[t] = running + value[t];
        }
    }
}

// ---- the optimal token baseline ----------------------------------------------------------------------------
typedef struct Rows {
    const TokenBaseline *in;
    int64_t *start;       // [sequences]
    int32_t *active;      // [sequences] active tokens
    double *energy;       // [N] W
} Rows;
static bool is_active(const TokenBaseline *in, int64_t t) { return !in->mask || in->mask[t]; }

static void fill_rows(Rows *r, double *returns) {
    const TokenBaseline *in = r->in;
    int64_t start = 0;
    for (int s = 0; s < in->sequences; start += in->length[s++]) {
        r->start[s] = start;
        double energy = 0, running = 0;
        for (int64_t t = start; t < start + in->length[s]; t++) {
            if (is_active(in, t)) {
                double weight = in->weight ? in->weight[t] : 1;
                energy += (1 - 2 * exact_exp(in->logprob[t]) + in->square_sum[t]) * weight * weight;
                r->active[s]++;
            }
            r->energy[t] = energy;
        }
        for (int64_t t = start + in->length[s] - 1; t >= start; t--) {
            if (is_active(in, t)) running += in->reward[t];
            returns[t] = running;
        }
    }
}

// The token at a group's position: the position-th of the row, or the position-th active one. -1: none takes part.
static int64_t token_at(const Rows *r, int s, int32_t position) {
    const TokenBaseline *in = r->in;
    if (!in->packed) {
        int64_t t = r->start[s] + position;
        return position < in->length[s] && is_active(in, t) ? t : -1;
    }
    for (int64_t t = r->start[s]; t < r->start[s] + in->length[s]; t++)
        if (is_active(in, t) && position-- == 0) return t;
    return -1;
}

// The one longest sequence of a group and the length of the second longest.
static void tail_of(const Rows *r, int group, int *longest, int32_t *second) {
    int32_t most = -1;
    *longest = -1, *second = -1;
    for (int s = 0; s < r->in->sequences; s++) {
        if (r->in->group[s] != group || (r->in->packed && r->active[s] == 0)) continue;
        if (r->active[s] > most) *second = most, most = r->active[s], *longest = s;
        else if (r->active[s] > *second) *second = r->active[s];
    }
    if (most == *second) *longest = -1;
}

static void group_advantages(const Rows *r, int group, int32_t position, const double *returns, double *advantage) {
    const TokenBaseline *in = r->in;
    double weighted = 0, energy = 0;
    int members = 0, longest;
    int32_t second;
    tail_of(r, group, &longest, &second);
    for (int s = 0; s < in->sequences; s++) {
        if (in->group[s] != group || (in->packed && r->active[s] == 0)) continue;
        members++;
        int64_t t = token_at(r, s, position);
        if (t >= 0) weighted += returns[t] * r->energy[t], energy += r->energy[t];
    }
    for (int s = 0; s < in->sequences; s++) {
        int64_t t = in->group[s] == group ? token_at(r, s, position) : -1;
        if (t < 0) continue;
        bool bare = members == 1 || (in->zero_tail && s == longest && position >= second);
        advantage[t] = returns[t] - (bare ? 0 : weighted / (energy + in->eps));
    }
}

void token_baseline_advantages(const TokenBaseline *in, double *advantage, double *returns) {
    int64_t n = 0;
    int32_t widest = 0;
    for (int s = 0; s < in->sequences; s++) n += in->length[s], widest = in->length[s] > widest ? in->length[s] : widest;
    Rows r = {.in = in, .start = xcalloc((size_t)in->sequences + 1, sizeof(int64_t)), .active = xcalloc((size_t)in->sequences + 1, sizeof(int32_t)),
              .energy = xcalloc((size_t)n + 1, sizeof(double))};
    fill_rows(&r, returns);
    for (int64_t t = 0; t < n; t++) advantage[t] = 0;
    for (int g = 0; g < in->groups; g++)
        for (int32_t position = 0; position < widest; position++) group_advantages(&r, g, position, returns, advantage);
    free(r.start), free(r.active), free(r.energy);
}
