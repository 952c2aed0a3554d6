// The learning rate of each step: a linear warm-up from 0, then constant, linear or cosine decay to a final share.
// Counted as transformers' get_scheduler does (its step s is our step s + 1), so that a run can be set beside TRL's.
#include "rl.h"

double schedule_rate(const Optimizer *o, int step, int steps) {
    double s = step - 1, warmup = o->warmup > 0 ? o->warmup : 0;
    if (s < warmup) return o->learning_rate * (s / warmup);
    double span = steps - warmup > 1 ? steps - warmup : 1, done = (s - warmup) / span, share = 1;
    if (done > 1) done = 1;
    switch (o->schedule) {
    case SCHEDULE_CONSTANT: return o->learning_rate;
    case SCHEDULE_LINEAR: share = 1 - done; break;
    case SCHEDULE_COSINE: share = 0.5 * (1 + exact_cos(3.14159265358979323846 * done)); break;
    }
    return o->learning_rate * (o->final_share + (1 - o->final_share) * share);
}
