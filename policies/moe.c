// Mixtures of experts in the place of a layer's feed-forward (Shazeer et al. 2017): the router's product, the choice, rows sorted by
// expert, one product over all of them for gate and up and one for down, and a weighted sum in the order of experts. Experts that
// every token goes to are an ordinary feed-forward beside these.
//
// A row's numbers depend on nobody beside it: its products are chains of its own, wherever it is sorted to. So decoding, prefill
// and training choose the same experts and give the same bits. Gradients of an expert's matrices run over its tokens in order, whole
// groups at a time, so that a split into microbatches changes no bit; the balancing loss is taken over groups for the same reason.
//
// The choice has no gradient; the weights of the chosen have, and the losses on the router (RouteGradArgs).
#include "model.h"

static Router router_of(const ModelConfig *c) {
    const ExpertsConfig *e = &c->experts;
    return (Router){.experts = e->count, .chosen = e->chosen, .groups = e->groups, .chosen_groups = e->chosen_groups,
                    .group_best = e->group_best, .sigmoid = e->sigmoid, .normalise = e->normalise, .scale = (float)e->scale};
}

// ---- buffers ---------------------------------------------------------------------------------------------
static bool any_experts(const ModelConfig *c) {
    for (int i = 0; i < c->layers; i++)
        if (config_has_experts(c, i)) return true;
    return false;
}

bool experts_reserve(Policy *p, int64_t rows, Err *err) {
    ExpertsWork *w = &p->work.experts;
    const ExpertsConfig *e = &p->config.experts;
    int64_t C = p->config.width, sorted = rows * e->chosen;
    if (!any_experts(&p->config)) return true;
    RESERVE(w->logits, rows * e->count * 4);
    RESERVE(w->weight, sorted * 4);
    RESERVE(w->choice, sorted * 4);
    RESERVE(w->place, sorted * 4);
    RESERVE(w->token, sorted * 4);
    RESERVE(w->start, (e->count + 1) * 4);
    RESERVE(w->x, act_bytes(p, sorted * C));
    RESERVE(w->gate_up, act_bytes(p, sorted * 2 * e->feed_forward));
    RESERVE(w->ff, act_bytes(p, sorted * e->feed_forward));
    RESERVE(w->out, sorted * C * 4);
    if (!e->shared) return true;
    RESERVE(w->shared_gate_up, act_bytes(p, rows * 2 * e->shared));
    RESERVE(w->shared_ff, act_bytes(p, rows * e->shared));
    return true;
}

bool experts_keep(Policy *p, ExpertsKept *k, int layer, int64_t rows, Err *err) {
    const ExpertsConfig *e = &p->config.experts;
    if (!config_has_experts(&p->config, layer)) return true;
    RESERVE(k->logits, rows * e->count * 4);
    RESERVE(k->weight, rows * e->chosen * 4);
    RESERVE(k->choice, rows * e->chosen * 4);
    RESERVE(k->gate_up, act_bytes(p, rows * e->chosen * 2 * e->feed_forward));
    if (e->shared) RESERVE(k->shared_gate_up, act_bytes(p, rows * 2 * e->shared));
    return true;
}

bool experts_train(Policy *p, int64_t rows, int groups, Err *err) {
    ExpertsTraining *t = &p->training.experts;
    const ExpertsConfig *e = &p->config.experts;
    int64_t sorted = rows * e->chosen, starts = (int64_t)e->count * groups + 1;
    if (!any_experts(&p->config)) return true;
    if (!t->load) RESERVE(t->load, (int64_t)p->config.layers * e->count * 8);
    if (starts > t->starts) {
        t->starts = 0;
        RESERVE(t->start, starts * 4);
        t->starts = starts;
    }
    if (rows <= t->rows) return true;
    t->rows = 0;
    RESERVE(t->dy, act_bytes(p, sorted * p->config.width));
    RESERVE(t->dgate_up, act_bytes(p, sorted * 2 * e->feed_forward));
    RESERVE(t->dff, sorted * e->feed_forward * 4);
    RESERVE(t->dweight, sorted * 4);
    RESERVE(t->dlogits, act_bytes(p, rows * e->count));
    if (e->shared) {
        RESERVE(t->dshared, act_bytes(p, rows * 2 * e->shared));
        RESERVE(t->dshared_ff, rows * e->shared * 4);
    }
    t->rows = rows;
    return true;
}

void experts_free(Policy *p) {
    ExpertsWork *w = &p->work.experts;
    ExpertsTraining *t = &p->training.experts;
    void *const memory[] = {w->logits, w->weight, w->choice, w->place, w->token, w->start, w->x, w->gate_up, w->ff, w->out, w->shared_gate_up,
                            w->shared_ff, t->start, t->dy, t->dgate_up, t->dff, t->dweight, t->dlogits, t->dshared, t->dshared_ff, t->load};
    for (int i = 0; i < COUNT(memory); i++) p->device->release(p->device, memory[i]);
    for (int l = 0; p->training.kept && l < p->config.layers; l++) {
        const ExpertsKept *k = &p->training.kept[l].experts;
        void *const kept[] = {k->logits, k->weight, k->choice, k->gate_up, k->shared_gate_up};
        for (int i = 0; i < COUNT(kept); i++) p->device->release(p->device, kept[i]);
    }
    *w = (ExpertsWork){0};
    *t = (ExpertsTraining){0};
}

// ---- forward ---------------------------------------------------------------------------------------------
static SwigluArgs swiglu_args(const Policy *p, int64_t T, int64_t F, const void *gate_up, void *y) {
    return (SwigluArgs){.T = T, .F = F, .gate = p->config.activation == ACTIVATION_GELU_TANH ? GATE_GELU_TANH : GATE_SILU, .dtype = p->dtype,
                        .gate_up = gate_up, .y = y};
}
static void gather(const Policy *p, int64_t rows, const int32_t *token, const void *x, void *y) {
    p->device->gather(p->device, &(GatherArgs){.T = rows, .C = p->config.width, .dtype = p->dtype, .row = token, .x = x, .y = y});
}

static void shared_forward(Policy *p, int64_t T, const Layer *l, void *gate_up) {
    Workspace *w = &p->work;
    if (!l->shared_gate_up.weight) return;
    linear_forward(p, &l->shared_gate_up, T, w->x, STORE_ACT, gate_up);
    SwigluArgs swiglu = swiglu_args(p, T, p->config.experts.shared, gate_up, w->experts.shared_ff);
    p->device->swiglu(p->device, &swiglu);
    linear_forward(p, &l->shared_down, T, w->experts.shared_ff, ADD_F32, w->h);
}

void experts_forward(Policy *p, int64_t T, int layer, const Kept *kept) {
    const ExpertsConfig *e = &p->config.experts;
    const Layer *l = &p->layers[layer];
    const Device *d = p->device;
    Workspace *work = &p->work;
    ExpertsWork *w = &work->experts;
    const ExpertsKept *k = kept ? &kept->experts : NULL;
    float *logits = k ? k->logits : w->logits, *weight = k ? k->weight : w->weight;
    int32_t *choice = k ? k->choice : w->choice;
    void *gate_up = k ? k->gate_up : w->gate_up;
    Sorted sorted = {.rows = T * e->chosen, .every = 1, .start = w->start};
    linear_forward(p, &l->router, T, work->x, STORE_F32, logits);
    d->route(d, &(RouteArgs){.T = T, .router = router_of(&p->config), .logits = logits, .bias = l->correction ? l->correction->values : NULL,
                             .choice = choice, .weight = weight});
    if (p->choices) d->copy(d, p->choices + (int64_t)layer * T * e->chosen, choice, (size_t)(T * e->chosen) * 4);
    d->dispatch(d, &(DispatchArgs){.T = T, .experts = e->count, .chosen = e->chosen, .choice = choice, .start = w->start, .token = w->token,
                                   .place = w->place});
    gather(p, sorted.rows, w->token, work->x, w->x);
    experts_product(p, &l->experts_gate_up, &sorted, w->x, STORE_ACT, gate_up);
    SwigluArgs swiglu = swiglu_args(p, sorted.rows, e->feed_forward, gate_up, w->ff);
    d->swiglu(d, &swiglu);
    experts_product(p, &l->experts_down, &sorted, w->ff, STORE_F32, w->out);
    d->combine(d, &(CombineArgs){.T = T, .C = p->config.width, .chosen = e->chosen, .place = w->place, .weight = weight, .x = w->out, .add = true,
                                 .y = work->h});
    shared_forward(p, T, l, k ? k->shared_gate_up : w->shared_gate_up);
}

// ---- backward --------------------------------------------------------------------------------------------
static void swiglu_back(const Policy *p, int64_t T, int64_t F, const void *gate_up, const float *dy, void *dgate_up) {
    p->device->swiglu_grad(p->device, &(SwigluGradArgs){.T = T, .F = F, .gate = p->config.activation == ACTIVATION_GELU_TANH ? GATE_GELU_TANH : GATE_SILU,
                                                        .dtype = p->dtype, .gate_up = gate_up, .dy = dy, .dgate_up = dgate_up});
}

// Adds to dwide.
static void shared_backward(const Backward *b, const Layer *l, const ExpertsKept *k) {
    Policy *p = b->p;
    const Training *t = &p->training;
    int64_t T = b->pass.T, F = p->config.experts.shared;
    if (!l->shared_gate_up.weight) return;
    SwigluArgs swiglu = swiglu_args(p, T, F, k->shared_gate_up, p->work.experts.shared_ff);
    p->device->swiglu(p->device, &swiglu);
    linear_backward(b, &l->shared_down, p->work.experts.shared_ff, t->dact, STORE_F32, t->experts.dshared_ff);
    swiglu_back(p, T, F, k->shared_gate_up, t->experts.dshared_ff, t->experts.dshared);
    linear_backward(b, &l->shared_gate_up, p->work.x, t->experts.dshared, ADD_F32, t->dwide);
}

void experts_backward(const Backward *b, int layer) {
    Policy *p = b->p;
    const ExpertsConfig *e = &p->config.experts;
    const Layer *l = &p->layers[layer];
    const Device *d = p->device;
    const ExpertsKept *k = &p->training.kept[layer].experts;
    const Training *training = &p->training;
    const ExpertsTraining *t = &training->experts;
    ExpertsWork *w = &p->work.experts;
    int64_t T = b->pass.T, C = p->config.width, rows = T * e->chosen, F = e->feed_forward;
    Sorted sorted = {.rows = rows, .every = b->groups.count, .start = t->start};
    d->dispatch(d, &(DispatchArgs){.T = T, .experts = e->count, .chosen = e->chosen, .choice = k->choice, .segments = b->groups, .start = t->start,
                                   .token = w->token, .place = w->place, .load = t->load + (int64_t)layer * e->count});
    SwigluArgs swiglu = swiglu_args(p, rows, F, k->gate_up, w->ff);
    d->swiglu(d, &swiglu);
    gather(p, rows, w->token, training->dact, t->dy);
    experts_input_gradient(b, &l->experts_down, &sorted, t->dy, t->dff);
    d->combine_grad(d, &(CombineGradArgs){.T = T, .F = F, .chosen = e->chosen, .dtype = p->dtype, .place = w->place, .weight = k->weight, .ff = w->ff,
                                          .dff = t->dff, .dweight = t->dweight});
    experts_weight_gradient(b, &l->experts_down, &sorted, w->ff, t->dy);
    swiglu_back(p, rows, F, k->gate_up, t->dff, t->dgate_up);
    gather(p, rows, w->token, p->work.x, w->x);
    experts_input_gradient(b, &l->experts_gate_up, &sorted, t->dgate_up, w->out);
    experts_weight_gradient(b, &l->experts_gate_up, &sorted, w->x, t->dgate_up);
    d->combine(d, &(CombineArgs){.T = T, .C = C, .chosen = e->chosen, .place = w->place, .x = w->out, .y = training->dwide});
    d->route_grad(d, &(RouteGradArgs){.T = T, .router = router_of(&p->config), .dtype = p->dtype, .logits = k->logits, .choice = k->choice,
                                      .dweight = t->dweight, .segments = b->groups, .start = t->start, .balance = t->balance, .z = t->z,
                                      .dlogits = t->dlogits});
    linear_backward(b, &l->router, p->work.x, t->dlogits, ADD_F32, training->dwide);
    shared_backward(b, l, k);
}

// ---- what others ask for ---------------------------------------------------------------------------------
int policy_expert_layers(const Policy *p) {
    int count = 0;
    for (int i = 0; i < p->config.layers; i++) count += config_has_experts(&p->config, i);
    return count;
}

bool policy_take_expert_load(Policy *p, double rate, int64_t *load, Err *err) {
    const Device *d = p->device;
    const ExpertsConfig *e = &p->config.experts;
    int64_t *all = p->training.experts.load;
    size_t bytes = (size_t)e->count * 8;
    for (int i = 0, n = 0; i < p->config.layers; i++) {
        if (!config_has_experts(&p->config, i)) continue;
        int64_t *own = all ? all + (int64_t)i * e->count : NULL;
        int64_t *to = load + (int64_t)n++ * e->count;
        for (int j = 0; j < e->count; j++) to[j] = 0;
        if (!own) continue;
        d->download(d, to, own, bytes);
        if (rate > 0 && !p->trained && p->layers[i].correction) // under an adapter the model stays as it is
            d->balance(d, &(BalanceArgs){.experts = e->count, .rate = (float)rate, .bias = p->layers[i].correction->values, .load = own});
        d->zero(d, own, bytes);
    }
    return d->finish(d, err);
}

bool policy_forward_experts(Policy *p, const Packed *batch, float *logprob, int32_t *choice, Err *err) {
    const Device *d = p->device;
    const ExpertsConfig *e = &p->config.experts;
    size_t layer_bytes = (size_t)batch->token_count * (size_t)e->chosen * 4;
    void *memory;
    TRY(d->allocate(d, layer_bytes * (size_t)p->config.layers + 4, "chosen experts", &memory, err));
    p->choices = memory;
    bool ok = policy_forward(p, batch, false, logprob, NULL, err);
    p->choices = NULL;
    for (int i = 0, n = 0; ok && i < p->config.layers; i++)
        if (config_has_experts(&p->config, i))
            d->download(d, choice + (int64_t)n++ * batch->token_count * e->chosen, (char *)memory + (size_t)i * layer_bytes, layer_bytes);
    ok = ok && d->finish(d, err);
    d->release(d, memory);
    return ok;
}
