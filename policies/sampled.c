// The copy of weights in 8 bits that rollouts may multiply by (RolloutOptions.int8): which matrices have one, and what it takes. It
// is written where a matrix is packed, from the same fp32 numbers, so it is never older than they are. Experts and the factors of
// latent attention are many products in one call and stay as they are; so do routers, whose choices a small error would turn.
#include "model.h"

static bool is_dense(const Policy *p, const Parameter *q) {
    switch (q->role) {
    case ROLE_QKV:
    case ROLE_OUTPUT:
    case ROLE_GATE_UP:
    case ROLE_DOWN:
    case ROLE_Q:
    case ROLE_Q_A:
    case ROLE_KV_A:
    case ROLE_SHARED_GATE_UP:
    case ROLE_SHARED_DOWN: return true;
    default: return q == p->head;
    }
}

bool int8_choose(Policy *p, Err *err) {
    if (!p->device->is_host)
        return fail(err, ERR_UNAVAILABLE, p->device->variant, "has no products in 8 bits; rollouts in int8 are for the CPU only");
    for (int i = 0; i < p->parameter_count; i++) {
        Parameter *q = &p->parameters[i];
        q->sampled_int8 = q->matrix && !q->block[0] && is_dense(p, q);
    }
    p->has_int8 = true;
    return true;
}

// Passes multiply by the copy from here on, until in_int8 is false again.
bool int8_begin(Policy *p, const RolloutOptions *o, Err *err) {
    if (!p->has_int8) return fail(err, ERR_SOFTWARE, "rollout", "in 8 bits, of a policy that has no such weights");
    if (o->cache) return fail(err, ERR_SOFTWARE, "rollout", "in 8 bits, into a cache whose prompts others go on with");
    p->in_int8 = true;
    return true;
}

size_t int8_longest_row(const Policy *p) {
    int64_t longest = 0;
    for (int i = 0; i < p->parameter_count; i++)
        if (p->parameters[i].sampled_int8 && int8_row_bytes(p->parameters[i].K) > longest) longest = int8_row_bytes(p->parameters[i].K);
    return (size_t)longest;
}
