// Rotary positions (Su et al. 2021): frequencies of every kind of scaling as transformers computes them, in double, and the
// tables of cosines and sines, rounded once.
//
// Two kinds depend on how long the whole sequence is: "dynamic" (its base grows with the length) and "longrope" (another
// list of divisors). Within the original length they don't. Beyond it a token's numbers would depend on tokens that come after
// it, which a sampler doesn't know. So:
// - "dynamic": each position turns as the last one of a sequence that ends there, in sampling and in every pass over what was
//   sampled. A token depends on those before it alone, and these are the angles that transformers' generation gives tokens
//   one by one behind a prompt within the original length: its cache keeps keys as they were turned then.
// - "longrope": sampling stops at the original length (rope_limit), since keys turned by both lists don't fit each other.
// A pass over whole sequences (Packed.whole, and of "longrope" any) has a table of its own for each that is longer, behind the
// common one; tokens find their row through Pass.angle.
#include "model.h"
#include <math.h>
#include <stdlib.h>

static int rope_count(const ModelConfig *c) { return c->local_rope ? 2 : 1; }

// Longest position whose row of the common table is right, 0: there is no such limit.
static int64_t common_limit(const ModelConfig *c, bool whole) {
    int64_t limit = 0;
    for (int k = 0; k < rope_count(c); k++) {
        const RopeConfig *r = &c->rope[k];
        bool other = r->kind == ROPE_LONGROPE || (whole && r->kind == ROPE_DYNAMIC);
        if (other && (!limit || r->original_positions < limit)) limit = r->original_positions;
    }
    return limit;
}
int64_t rope_limit(const ModelConfig *c) { return common_limit(c, false); }

// ---- frequencies -----------------------------------------------------------------------------------------
static const double two_pi = 6.28318530717958647692;
typedef struct Angles {
    int dim, count;  // elements that turn, as the configuration says, and pairs of them
    double *frequency; // [count]
    double factor;   // on cosines and sines
} Angles;

static void plain(double theta, double divisor, Angles *a) {
    for (int i = 0; i < a->count; i++) a->frequency[i] = 1.0 / exact_pow(theta, 2.0 * i / a->dim) / divisor;
}
static void llama3(const RopeConfig *r, Angles *a) {
    double old = r->original_positions;
    plain(r->theta, 1, a);
    for (int i = 0; i < a->count; i++) {
        double wavelength = two_pi / a->frequency[i];
        if (wavelength > old / r->low_frequency) {
            a->frequency[i] /= r->factor;
        } else if (wavelength >= old / r->high_frequency) {
            double smooth = (old / wavelength - r->low_frequency) / (r->high_frequency - r->low_frequency);
            a->frequency[i] = (1 - smooth) * a->frequency[i] / r->factor + smooth * a->frequency[i];
        }
    }
}
// Which pair turns `rotations` times over the original length.
static double yarn_pair(const RopeConfig *r, int dim, double rotations) {
    return dim * exact_log(r->original_positions / (rotations * two_pi)) / (2 * exact_log(r->theta));
}
static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * exact_log(factor) + 1; }
static void yarn(const RopeConfig *r, double factor, Angles *a) {
    double low = yarn_pair(r, a->dim, r->beta_fast), high = yarn_pair(r, a->dim, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = low > 0 ? low : 0, high = high < a->dim - 1 ? high : a->dim - 1;
    if (low == high) high += 0.001;
    for (int i = 0; i < a->count; i++) {
        double ramp = (i - low) / (high - low), power = exact_pow(r->theta, 2.0 * i / a->dim);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        a->frequency[i] = 1 / (factor * power) * ramp + 1 / power * (1 - ramp);
    }
    a->factor = r->mscale != 0 && r->mscale_all_dim != 0 ? yarn_mscale(factor, r->mscale) / yarn_mscale(factor, r->mscale_all_dim) : yarn_mscale(factor, 1);
}
static void longrope(const RopeConfig *r, double factor, int64_t length, Angles *a) {
    const double *divisor = length > r->original_positions ? r->long_factor : r->short_factor;
    for (int i = 0; i < a->count; i++) a->frequency[i] = 1.0 / (divisor[i] * exact_pow(r->theta, 2.0 * i / a->dim));
    a->factor = factor <= 1 ? 1 : sqrt(1 + exact_log(factor) / exact_log(r->original_positions));
}
// Those of a sequence of `length` positions.
static void find_frequencies(const ModelConfig *c, const RopeConfig *r, int64_t length, Angles *a) {
    double factor = r->factor != 0 ? r->factor : r->original_positions ? (double)c->max_positions / r->original_positions : 1;
    a->factor = 1;
    switch (r->kind) {
    case ROPE_DEFAULT: plain(r->theta, 1, a); break;
    case ROPE_LINEAR: plain(r->theta, factor, a); break;
    case ROPE_DYNAMIC: {
        double original = r->original_positions, longest = length > original ? (double)length : original;
        double growth = exact_pow(factor * longest / original - (factor - 1), (double)a->dim / (a->dim - 2));
        plain(r->theta * growth, 1, a);
        break;
    }
    case ROPE_LLAMA3: llama3(r, a); break;
    case ROPE_YARN: yarn(r, factor, a); break;
    case ROPE_LONGROPE: longrope(r, factor, length, a); break;
    }
    if (r->attention_factor != 0) a->factor = r->attention_factor;
}

static Angles angles_start(const ModelConfig *c) {
    Angles a = {.dim = c->rotary_width ? c->rotary_width : c->head_width, .count = config_rotary(c) / 2};
    a.frequency = xmalloc((size_t)a.count * sizeof *a.frequency);
    return a;
}
void rope_divisors(const ModelConfig *c, double *out) {
    Angles scaled = angles_start(c), unscaled = angles_start(c);
    find_frequencies(c, &c->rope[0], 0, &scaled);
    plain(c->rope[0].theta, 1, &unscaled);
    for (int i = 0; i < scaled.count; i++) out[i] = unscaled.frequency[i] / scaled.frequency[i];
    free(scaled.frequency), free(unscaled.frequency);
}
double rope_attention(const ModelConfig *c) {
    Angles a = angles_start(c);
    find_frequencies(c, &c->rope[0], 0, &a);
    free(a.frequency);
    return a.factor;
}

// ---- tables ----------------------------------------------------------------------------------------------
// Rows of positions 0 .. positions - 1 of a sequence of `length`; 0: of any, each position as the last of its own.
static void fill(const ModelConfig *c, const RopeConfig *r, int64_t length, int64_t positions, float *table) {
    int64_t R = config_rotary(c), same = length == 0 && r->kind == ROPE_DYNAMIC ? r->original_positions : positions;
    Angles a = angles_start(c);
    find_frequencies(c, r, length, &a);
    for (int64_t position = 0; position < positions; position++) {
        if (position >= same) find_frequencies(c, r, position + 1, &a);
        for (int i = 0; i < a.count; i++) {
            table[position * R + i] = (float)(exact_cos((double)position * a.frequency[i]) * a.factor);
            table[position * R + R / 2 + i] = (float)(exact_sin((double)position * a.frequency[i]) * a.factor);
        }
    }
    free(a.frequency);
}

// Both tables of `rows` rows; the first `positions` are filled as within the original length, the others by rope_stretch.
static bool tables_make(Policy *p, int64_t positions, int64_t rows, float *host[2], Err *err) {
    const ModelConfig *c = &p->config;
    int64_t R = config_rotary(c);
    p->cos_sin_positions = 0;
    for (int k = 0; k < rope_count(c); k++) {
        RESERVE(p->cos_sin[k], rows * R * 4);
        host[k] = xmalloc((size_t)(rows * R) * sizeof(float));
        fill(c, &c->rope[k], 0, positions, host[k]);
    }
    return true;
}
static void tables_send(Policy *p, int64_t positions, int64_t rows, float *host[2]) {
    for (int k = 0; k < 2; k++) {
        if (host[k]) p->device->upload(p->device, p->cos_sin[k], host[k], (size_t)(rows * config_rotary(&p->config)) * sizeof(float));
        free(host[k]);
    }
    p->cos_sin_positions = positions;
}
bool rope_reserve(Policy *p, int64_t positions, Err *err) {
    float *host[2] = {NULL, NULL};
    if (positions <= p->cos_sin_positions) return true;
    positions = (positions + 511) / 512 * 512;
    bool ok = tables_make(p, positions, positions, host, err);
    if (ok)
        tables_send(p, positions, positions, host);
    else
        free(host[0]), free(host[1]);
    return ok;
}

// ---- sequences beyond the original length ----------------------------------------------------------------
static int64_t group_length(const Packed *b, const PackedGroup *g) {
    return g->prompt_length + (g->sequence_count ? (int64_t)b->sequences[g->first_sequence].length : 0);
}
// A group's tokens look up its own rows, from row `first` on.
static void point_angles(const Packed *b, const PackedGroup *g, int64_t first, int32_t *angle) {
    for (int32_t i = 0; i < g->prompt_length; i++) angle[g->prompt_start + i] = (int32_t)(first + i);
    for (int32_t i = 0; g->sequence_count && i < b->sequences[g->first_sequence].length; i++)
        angle[b->sequences[g->first_sequence].start + i] = (int32_t)(first + g->prompt_length + i);
}
bool rope_stretch(Policy *p, const Packed *b, Err *err) {
    const ModelConfig *c = &p->config;
    Training *t = &p->training;
    int64_t limit = common_limit(c, b->whole), positions = p->cos_sin_positions, rows = positions, R = config_rotary(c);
    float *host[2] = {NULL, NULL};
    free(t->angle);
    t->angle = NULL;
    for (int g = 0; limit && g < b->group_count; g++) {
        int64_t length = group_length(b, &b->groups[g]);
        if (length <= limit) continue;
        if (b->groups[g].sequence_count > 1)
            return fail(err, ERR_DATA, "groups", "%d completions share a prompt in a sequence of %lld tokens, expected at most %lld: beyond, rotary positions "
                        "depend on each completion's length", b->groups[g].sequence_count, (long long)length, (long long)limit);
        rows += length;
    }
    if (rows == positions) return true;
    bool ok = tables_make(p, positions, rows, host, err);
    t->angle = xmalloc((size_t)b->token_count * sizeof *t->angle);
    for (int32_t i = 0; i < b->token_count; i++) t->angle[i] = p->paging.position[i];
    for (int64_t g = 0, at = positions; ok && g < b->group_count; g++) {
        int64_t length = group_length(b, &b->groups[g]);
        if (length <= limit) continue;
        for (int k = 0; k < rope_count(c); k++) fill(c, &c->rope[k], length, length, host[k] + at * R);
        point_angles(b, &b->groups[g], at, t->angle);
        at += length;
    }
    if (ok)
        tables_send(p, positions, rows, host);
    else
        free(host[0]), free(host[1]);
    return ok;
}
