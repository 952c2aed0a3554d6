// The learning rate of each step: a warm-up from 0, then one of the usual decays. Counted as transformers' get_scheduler
// does (its step s is our step s + 1), so that a run can be set beside TRL's.
#include "rl.h"
#include <math.h>

static const double pi = 3.14159265358979323846;

static double rising(CurveKind curve, double progress) {
    switch (curve) {
    case CURVE_LINEAR: return progress;
    case CURVE_COSINE: return 0.5 * (1 - exact_cos(pi * progress));
    case CURVE_ONE_MINUS_SQRT: return 1 - sqrt(1 - progress);
    }
    return progress;
}
static double falling(CurveKind curve, double cycles, double progress) {
    switch (curve) {
    case CURVE_LINEAR: return 1 - progress;
    case CURVE_COSINE: return 0.5 * (1 + exact_cos(pi * cycles * 2 * progress));
    case CURVE_ONE_MINUS_SQRT: return 1 - sqrt(progress);
    }
    return 1 - progress;
}
static double down_to(double final_share, double share) { return fmax(0, final_share + (1 - final_share) * share); }

// Warm-up, a constant stretch, decay over the last steps.
static double stable_share(const Optimizer *o, double s, double warmup, double steps) {
    double decay = o->decay_steps, stable = steps - warmup - decay, cycles = o->cycles > 0 ? o->cycles : 0.5;
    if (s < warmup) return down_to(o->final_share, rising(o->warmup_curve, s / warmup));
    if (s < warmup + stable) return 1;
    if (s < warmup + stable + decay) return down_to(o->final_share, falling(o->decay_curve, cycles, (s - warmup - stable) / decay));
    return o->final_share;
}

static double share_of(const Optimizer *o, double s, double warmup, double steps) {
    if (o->schedule == SCHEDULE_WSD) return stable_share(o, s, warmup, steps);
    if (s < warmup) return s / warmup;
    double span = steps - warmup > 1 ? steps - warmup : 1, progress = (s - warmup) / span, done = progress > 1 ? 1 : progress, timescale;
    double turns = o->cycles > 0 ? o->cycles : 1;
    switch (o->schedule) {
    case SCHEDULE_CONSTANT: return 1;
    case SCHEDULE_LINEAR: return down_to(o->final_share, fmax(0, (steps - s) / span));
    case SCHEDULE_COSINE: return down_to(o->final_share, 0.5 * (1 + exact_cos(pi * (o->cycles > 0 ? o->cycles * 2 : 1) * progress)));
    case SCHEDULE_COSINE_RESTARTS:
        return down_to(o->final_share, progress >= 1 ? 0 : 0.5 * (1 + exact_cos(pi * fmod(turns * progress, 1))));
    case SCHEDULE_POLYNOMIAL: return down_to(o->final_share, done >= 1 ? 0 : exact_pow(1 - done, o->power > 0 ? o->power : 1));
    case SCHEDULE_INVERSE_SQRT:
        timescale = o->timescale > 0 ? o->timescale : warmup > 0 ? warmup : 10000;
        return 1 / sqrt((s + timescale - warmup) / timescale);
    case SCHEDULE_WSD: break;
    }
    return 1;
}

double schedule_rate(const Optimizer *o, int step, int steps) {
    return o->learning_rate * share_of(o, step - 1, o->warmup > 0 ? o->warmup : 0, steps);
}
