// The likeliest next tokens after a list of ids.
#include "model.h"
#include <stdlib.h>

typedef struct Candidate {
    float logit;
    int32_t id;
} Candidate;
static int by_logit(const void *x, const void *y) {
    const Candidate *a = x, *b = y;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

bool policy_top(Policy *p, const int32_t *ids, int32_t count, int32_t top, int32_t *top_ids, float *top_logprobs, Err *err) {
    int32_t V = p->config.vocabulary, row = count - 1, target = 0;
    PackedGroup group = {.prompt_length = count};
    Packed batch = {.token_count = count, .tokens = ids, .group_count = 1, .groups = &group, .target_count = 1,
                    .row = &row, .target = &target, .temperature = 1, .whole = true};
    float logprob;
    TRY(policy_forward(p, &batch, false, &logprob, NULL, err)); // leaves the row's hidden state in training.head_x
    const Device *d = p->device;
    Training *t = &p->training;
    size_t bytes = (size_t)vocab_padded(V) * sizeof(float);
    float *logits, max, log_sum;
    TRY(d->allocate(d, bytes, "logits", (void **)&logits, err));
    HeadArgs head = {.M = 1, .V = V, .C = p->config.width, .dtype = p->dtype, .x = t->head_x, .w = p->head->packed, .format = kept_format(p->head), .blocks = p->block_scratch,
                     .inv_temperature = t->staged.inv_temperature, .softcap = (float)p->config.logit_softcap, .logits = logits, .max = t->max, .log_sum = t->log_sum,
                     .stats = t->stats, .scratch = p->head_scratch};
    d->head(d, &head);
    float *read = xmalloc(bytes);
    d->download(d, read, logits, bytes);
    d->download(d, &max, t->max, sizeof max), d->download(d, &log_sum, t->log_sum, sizeof log_sum);
    d->release(d, logits);
    Candidate *all = xmalloc((size_t)V * sizeof *all);
    for (int32_t v = 0; v < V; v++) all[v] = (Candidate){read[v], v};
    qsort(all, (size_t)V, sizeof *all, by_logit);
    for (int32_t i = 0; i < top; i++) {
        top_ids[i] = i < V ? all[i].id : -1;
        top_logprobs[i] = i < V ? (all[i].logit - max) - log_sum : 0;
    }
    free(all), free(read);
    return d->finish(d, err);
}
