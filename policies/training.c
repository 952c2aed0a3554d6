// Training passes: a packed batch goes to the device, the layers run, the head gives logprobs and entropies of the targets,
// and on the way back takes dLoss/dlogprob and dLoss/dentropy. Targets are walked in chunks, so that no [R, V] array of
// gradients is ever held.
#include "model.h"
#include <stdlib.h>
#include <string.h>

HeadArgs training_head(const Policy *p, int64_t from, int64_t count) {
    const Training *t = &p->training;
    const Staged *s = &t->staged;
    int64_t blocks = vocab_padded(s->vocabulary) / VOCAB_BLOCK;
    return (HeadArgs){.M = count, .V = s->vocabulary, .C = p->config.width, .dtype = p->dtype,
                      .x = (const char *)t->head_x + act_bytes(p, from * p->config.width), .w = p->head->packed,
                      .format = kept_format(p->head), .blocks = p->block_scratch,
                      .inv_temperature = s->inv_temperature + from,
                      .softcap = (float)p->config.logit_softcap, .target = s->target + from,
                      .kept_start = s->kept_start ? s->kept_start + from : NULL, .kept = s->kept,
                      .logprob = t->logprob + from, .entropy = t->entropy + from, .max = t->max + from,
                      .log_sum = t->log_sum + from, .stats = t->stats + from * blocks, .scratch = p->head_scratch};
}

// Targets [from, from + count) of a chunk that begins at `chunk`.
static void head_gradient(const Backward *b, int64_t chunk, int64_t from, int64_t count) {
    Policy *p = b->p;
    const Device *d = p->device;
    Training *t = &p->training;
    const Staged *s = &t->staged;
    HeadGradArgs gradient = {.forward = training_head(p, from, count), .dlogprob = s->dlogprob + from, .dentropy = s->dentropy ? s->dentropy + from : NULL,
                             .dlogits = (char *)t->dlogits + act_bytes(p, (from - chunk) * dlogits_stride(p)), .ld = dlogits_stride(p)};
    if (b->with_head) {
        gradient.forward.logits = t->logits;
        d->head(d, &gradient.forward);
    }
    d->head_grad(d, &gradient);
}
// Gradient of the head over one chunk of targets, and of the hidden states they came from.
static void head_chunk_gradient(const Backward *b, const HeadChunk *chunk, float *dfinal) {
    Policy *p = b->p;
    const Device *d = p->device;
    Training *t = &p->training;
    const Staged *s = &t->staged;
    int64_t C = p->config.width, V = p->config.vocabulary, ld = dlogits_stride(p), from = chunk->from, count = chunk->to - from;
    if (b->teacher)
        d->distill_grad(d, &(DistillGradArgs){.forward = distill_args(p, b->teacher, b->beta, from, count), .weight = s->dlogprob + from,
                                              .dlogits = t->dlogits, .ld = ld});
    for (int64_t at = from, step = b->with_head ? HEAD_TOGETHER : count; !b->teacher && at < chunk->to; at += step)
        head_gradient(b, from, at, chunk->to - at < step ? chunk->to - at : step);
    MatmulArgs back = {.M = count, .N = C, .K = V, .dtype = p->dtype, .x = t->dlogits, .ldx = ld, .store = STORE_F32, .y = t->head_dx, .ldy = C};
    if (p->head->kept) back.w = p->head->packed, back.format = kept_format(p->head), back.transposed = true, back.scratch = p->block_scratch;
    else linear_back_by(p, p->head, &back);
    d->matmul(d, &back);
    d->scatter(d, &(ScatterArgs){.T = count, .C = C, .row = s->row + from, .x = t->head_dx, .y = dfinal});
    MatmulGradArgs gradient = {.T = count, .N = V, .K = C, .dtype = p->dtype, .x = (const char *)t->head_x + act_bytes(p, from * C), .ldx = C,
                               .dy = t->dlogits, .ldy = ld, .dw = p->head->gradient, .written = gradient_begins(p->head),
                               .segments = {chunk->count, s->chunk_segments + chunk->first, t->chunk_segments + chunk->first}, .scratch = t->scratch};
    if (p->head->trained) d->matmul_grad(d, &gradient);
}

// ---- the two passes --------------------------------------------------------------------------------------
// Targets of one group must stand together, in the order of groups.
static bool find_segments(Policy *p, const Packed *b, Err *err) {
    Training *t = &p->training;
    if (b->group_count + 1 > t->segment_capacity) {
        t->segment_capacity = b->group_count + 1;
        t->target_segment = xrealloc(t->target_segment, (size_t)t->segment_capacity * sizeof(int32_t));
    }
    int32_t r = 0;
    for (int g = 0; g < b->group_count; g++) {
        t->target_segment[g] = r;
        int32_t end = g + 1 < b->group_count ? b->groups[g + 1].prompt_start : b->token_count;
        while (r < b->target_count && b->row[r] < end && b->row[r] >= b->groups[g].prompt_start) r++;
    }
    t->target_segment[b->group_count] = r;
    return r == b->target_count || fail(err, ERR_SOFTWARE, "targets", "target %d doesn't follow the order of groups", r);
}

// Segments: a group's targets, cut at multiples of head_chunk from its first. Chunks: whole segments, as many as fit.
static int32_t find_chunks(Policy *p, const Packed *b) {
    Training *t = &p->training;
    int32_t length = head_chunk(p), most = b->group_count + b->target_count / length + 1, entries = 0;
    if (most > t->chunk_capacity) {
        t->chunk_capacity = most;
        t->chunks = xrealloc(t->chunks, (size_t)most * sizeof *t->chunks);
        t->chunk_segments = xrealloc(t->chunk_segments, (size_t)most * 2 * sizeof *t->chunk_segments);
    }
    t->chunk_count = 0;
    for (int g = 0; g < b->group_count; g++)
        for (int32_t from = t->target_segment[g], end = t->target_segment[g + 1], to; from < end; from = to) {
            to = from + length < end ? from + length : end;
            HeadChunk *chunk = t->chunk_count ? &t->chunks[t->chunk_count - 1] : NULL;
            if (!chunk || to - chunk->from > length) {
                chunk = &t->chunks[t->chunk_count++];
                *chunk = (HeadChunk){.from = from, .first = entries};
                t->chunk_segments[entries++] = 0;
            }
            chunk->to = to;
            chunk->count++;
            t->chunk_segments[entries++] = to - chunk->from;
        }
    return entries;
}

static bool stage_batch(Policy *p, const Packed *b, Err *err) {
    Training *t = &p->training;
    Staged *s = &t->staged;
    const Paging *g = &p->paging;
    int32_t T = b->token_count, R = b->target_count;
    for (int32_t r = 0; r < R; r++) t->inv_temperature_host[r] = (float)(1.0 / b->temperature);
    *s = (Staged){.vocabulary = b->vocabulary ? b->vocabulary : p->config.vocabulary,
                  .pass = {.T = T, .pages = t->page_memory, .layer_bytes = t->restored ? 0 : (size_t)g->page_count * page_bytes(p),
                           .max_position = g->max_position, .max_run = g->max_run}};
    STAGE_ADD(&t->stage, b->tokens, T, &s->pass.tokens);
    STAGE_ADD(&t->stage, g->position, T, &s->pass.position);
    STAGE_ADD(&t->stage, t->angle, t->angle ? T : 0, &s->pass.angle);
    STAGE_ADD(&t->stage, g->table_start, T, &s->pass.table_start);
    STAGE_ADD(&t->stage, g->table, g->table_count, &s->pass.table);
    STAGE_ADD(&t->stage, g->slot_start, T + 1, &s->pass.slot_start);
    STAGE_ADD(&t->stage, g->slot, g->slot_count, &s->pass.slot);
    STAGE_ADD(&t->stage, g->unit, b->group_count + 1, &s->unit);
    STAGE_ADD(&t->stage, g->unit_page, b->group_count + 1, &s->unit_page);
    STAGE_ADD(&t->stage, g->unit_heads, p->config.latent.R ? b->group_count + 1 : 0, &s->unit_heads);
    STAGE_ADD(&t->stage, g->page_first_row, g->page_count, &s->page_first_row);
    STAGE_ADD(&t->stage, g->page_last_row, g->page_count, &s->page_last_row);
    STAGE_ADD(&t->stage, b->row, R, &s->row);
    STAGE_ADD(&t->stage, b->target, R, &s->target);
    STAGE_ADD(&t->stage, b->kept_start, b->kept_start ? R + 1 : 0, &s->kept_start);
    STAGE_ADD(&t->stage, b->kept_ids, b->kept_start ? b->kept_start[R] : 0, &s->kept);
    STAGE_ADD(&t->stage, t->inv_temperature_host, R, &s->inv_temperature);
    int32_t entries = find_chunks(p, b); // which may move them
    STAGE_ADD(&t->stage, t->chunk_segments, entries, &s->chunk_segments);
    STAGE_ADD(&t->stage, p->retained.row_slot, t->restored ? T : 0, &p->retained.row_slots);
    STAGE_ADD(&t->stage, p->retained.page_from, t->restored ? g->page_count : 0, &p->retained.page_froms);
    return stage_send(p, &t->stage, err);
}

// Queues the forward pass, or what stands for it; nothing is waited for.
bool training_forward(Policy *p, const Packed *batch, bool keep, Err *err) {
    const Device *d = p->device;
    Training *t = &p->training;
    if (keep && !p->trainable) return fail(err, ERR_SOFTWARE, "policy", "activations are kept only by a trainable policy");
    TRY(packed_check(p, batch, err));
    paging_build(batch, p->config.latent.R ? p->config.heads : 1, &p->paging);
    t->restored = keep && retain_find(p, batch);
    if (keep && !t->restored) retain_drop(p); // its memory
    TRY(training_reserve(p, batch, p->paging.page_count, t->restored ? ACTIVATIONS_RESTORED : keep ? ACTIVATIONS_KEPT : ACTIVATIONS_DROPPED, err));
    TRY(workspace_reserve(p, batch->token_count, err));
    TRY(rope_reserve(p, p->paging.max_position + 1, err) && rope_stretch(p, batch, err));
    TRY(find_segments(p, batch, err));
    TRY(stage_batch(p, batch, err));
    t->experts.balance = (float)batch->router_balance, t->experts.z = (float)batch->router_z;
    int64_t T = batch->token_count, R = batch->target_count;
    if (t->restored) restore_forward(p, batch);
    else transformer_forward(p, &t->staged.pass, keep ? t->kept : NULL);
    // A restored pass makes only the last product of attention again.
    if (t->restored) p->flops += 2.0 * (double)T * (double)p->config.layers * (double)(p->config.width * attention_width(&p->config));
    else if (T) p->flops += (double)T * config_flops(&p->config, p->paging.context / (double)T, false);
    if (R == 0) return true;
    d->gather(d, &(GatherArgs){.T = R, .C = p->config.width, .dtype = p->dtype, .row = t->staged.row, .x = p->work.final, .y = t->head_x});
    return true;
}

static void count_head(Policy *p, int64_t R) { p->flops += 2.0 * (double)R * p->config.width * p->config.vocabulary; }
void training_logprobs(Policy *p, int64_t R) {
    if (R == 0 || p->training.restored) return;
    HeadArgs head = training_head(p, 0, R);
    p->device->head(p->device, &head);
    count_head(p, R);
}
bool logits_reserve(Policy *p, int64_t R, Err *err) {
    Training *t = &p->training;
    int64_t rows = R < HEAD_TOGETHER ? R : HEAD_TOGETHER;
    if (rows <= t->logit_rows) return true;
    t->logit_rows = 0;
    RESERVE(t->logits, rows * vocab_padded(p->config.vocabulary) * 4);
    t->logit_rows = rows;
    return true;
}

// The logprobs and entropies of the pass that was queued; waits for what was queued up to here.
bool training_results(Policy *p, int64_t R, float *logprob, float *entropy, Err *err) {
    const Device *d = p->device;
    if (R) d->download(d, logprob, p->training.logprob, (size_t)R * 4);
    if (R && entropy) d->download(d, entropy, p->training.entropy, (size_t)R * 4);
    return d->finish(d, err);
}

bool training_backward(Backward *b, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) {
    Policy *p = b->p;
    const ModelConfig *c = &p->config;
    const Device *d = p->device;
    Training *t = &p->training;
    if (!p->trainable || !t->kept) return fail(err, ERR_SOFTWARE, "policy", "backward needs a forward pass that kept its activations");
    b->pass = t->staged.pass, b->groups = (Segments){batch->group_count, t->staged.unit, p->paging.unit};
    double flops_before = p->flops;
    int64_t T = b->pass.T, R = batch->target_count;
    size_t bytes = (size_t)T * (size_t)c->width * 4;
    if (T == 0) return true;
    STAGE_ADD(&t->coefficients, dlogprob, R, &t->staged.dlogprob);
    STAGE_ADD(&t->coefficients, dentropy, dentropy ? R : 0, &t->staged.dentropy);
    TRY(stage_send(p, &t->coefficients, err));
    if (lookups_apart(p)) TRY(lookups_begin(p, batch, err));
    d->zero(d, t->dwide, bytes);
    for (int i = 0; i < t->chunk_count; i++) head_chunk_gradient(b, &t->chunks[i], t->dwide);
    transformer_backward(b);
    p->flops = flops_before + 2.0 * (double)T * config_flops(c, p->paging.context / (double)T, false) +
               4.0 * (double)R * c->width * c->vocabulary;
    return true;
}

// A view's pass is its owner's, with the view's adapter in place.
static bool view_forward(Policy *view, const Packed *batch, float *logprob, float *entropy, Err *err) {
    Policy *p = view->owner;
    Adapter *before = p->active;
    p->active = view->active;
    bool ok = policy_forward(p, batch, false, logprob, entropy, err);
    p->active = before;
    return ok;
}

bool policy_forward(Policy *p, const Packed *batch, bool keep, float *logprob, float *entropy, Err *err) {
    if (p->owner) return keep ? fail(err, ERR_SOFTWARE, "policy", "a view keeps no activations") : view_forward(p, batch, logprob, entropy, err);
    TRY(training_forward(p, batch, keep, err));
    training_logprobs(p, batch->target_count);
    return training_results(p, batch->target_count, logprob, entropy, err);
}

bool policy_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, Err *err) {
    TRY(training_backward(&(Backward){.p = p}, batch, dlogprob, dentropy, err));
    return p->device->finish(p->device, err);
}

bool policy_forward_backward(Policy *p, const Packed *batch, const float *dlogprob, const float *dentropy, float *logprob,
                             float *entropy, Err *err) {
    TRY(training_forward(p, batch, true, err));
    bool together = p->device->is_host && !p->training.restored;
    if (together) TRY(logits_reserve(p, batch->target_count, err));
    if (together) count_head(p, batch->target_count);
    else training_logprobs(p, batch->target_count);
    TRY(training_backward(&(Backward){.p = p, .with_head = together}, batch, dlogprob, dentropy, err));
    return training_results(p, batch->target_count, logprob, entropy, err);
}
