// Groups of prompt and completions as one packed array. The last token of a completion predicts nothing and is left
// out of the pass; it is a target only. Tokens that were given to a completion are passed through and are no targets, so
// that all that comes after (logprobs, losses, masks, sums) knows of sampled tokens only.
#include "stages.h"
#include <stdlib.h>
#include <string.h>

void packing_reset(Packing *p, double temperature) {
    p->tokens.count = p->row.count = p->target.count = 0;
    p->packed = (Packed){.temperature = temperature, .router_balance = p->router_balance, .router_z = p->router_z};
}

void packing_routers(Packing *p, const Optimizer *o, int64_t tokens) {
    p->router_balance = tokens > 0 ? o->router_balance / (double)tokens : 0;
    p->router_z = tokens > 0 ? o->router_z / (double)tokens : 0;
}

static void *grown(void *data, int count, int *capacity, size_t size) {
    if (count < *capacity) return data;
    *capacity = 2 * *capacity + 16;
    return xrealloc(data, (size_t)*capacity * size);
}

void packing_prompt(Packing *p, const int32_t *prompt, int32_t length) {
    p->groups = grown(p->groups, p->packed.group_count, &p->group_capacity, sizeof *p->groups);
    p->groups[p->packed.group_count++] = (PackedGroup){
        .prompt_start = p->tokens.count, .prompt_length = length, .first_sequence = p->packed.sequence_count};
    ids_append(&p->tokens, prompt, length);
}

static void keep_sets(Packing *p, int32_t length, const int64_t *start, const int32_t *ids) {
    int64_t first = p->target.count, total = first ? p->kept_start[first] : 0, more = start[length];
    if (first + length + 1 > p->kept_starts_capacity) {
        p->kept_starts_capacity = 2 * (first + length + 1);
        p->kept_start = xrealloc(p->kept_start, (size_t)p->kept_starts_capacity * sizeof *p->kept_start);
    }
    if (total + more > p->kept_capacity) {
        p->kept_capacity = 2 * (total + more);
        p->kept_ids = xrealloc(p->kept_ids, (size_t)p->kept_capacity * sizeof *p->kept_ids);
    }
    for (int32_t i = 0; i <= length; i++) p->kept_start[first + i] = total + start[i];
    memcpy(p->kept_ids + total, ids, (size_t)more * sizeof *ids);
    p->packed.kept_start = p->kept_start;
}

void packing_completion(Packing *p, const Completion *c) {
    PackedGroup *g = &p->groups[p->packed.group_count - 1];
    const int32_t *all = completion_all(c);
    int32_t total = completion_total(c);
    p->sequences = grown(p->sequences, p->packed.sequence_count, &p->sequence_capacity, sizeof *p->sequences);
    p->sequences[p->packed.sequence_count++] = (PackedSequence){.start = p->tokens.count, .length = total - 1, .first_target = p->target.count, .activations = c->activations};
    g->sequence_count++;
    if (c->kept_start) keep_sets(p, c->length, c->kept_start, c->kept_ids);
    for (int32_t i = 0; i < total; i++) {
        if (c->given && c->given[i]) continue;
        ids_push(&p->row, i == 0 ? g->prompt_start + g->prompt_length - 1 : p->tokens.count + i - 1);
        ids_push(&p->target, all[i]);
    }
    ids_append(&p->tokens, all, total - 1);
}

// Where the prompt is long, its repetition costs an eighth at most.
int64_t packing_part_limit(int64_t prompt_length) { return 8 * prompt_length > 1024 ? 8 * prompt_length : 1024; }

PackingPart packing_part(int32_t prompt_length, const Completion *const *completions, int count) {
    PackingPart part = {.tokens = prompt_length};
    for (int64_t limit = packing_part_limit(prompt_length), more; part.count < count; part.count++, part.tokens += more) {
        more = completion_total(completions[part.count]) - 1;
        if (part.count > 0 && part.tokens + more > limit) break;
    }
    return part;
}

int64_t packing_tokens(int32_t prompt_length, const Completion *const *completions, int count) {
    int64_t tokens = 0;
    PackingPart part;
    for (int i = 0; i < count; i += part.count) {
        part = packing_part(prompt_length, completions + i, count - i);
        tokens += part.tokens;
    }
    return tokens;
}

bool packing_is_full(const Packing *p, int64_t tokens, int64_t limit) { return p->tokens.count > 0 && p->tokens.count + tokens > limit; }

void packing_group(Packing *p, const Ids *prompt, const Completion *const *completions, int count) {
    packing_prompt(p, prompt->data, prompt->count);
    for (int i = 0; i < count; i++) packing_completion(p, completions[i]);
}

const Packed *packing_view(Packing *p) {
    Packed *v = &p->packed;
    v->tokens = p->tokens.data, v->token_count = p->tokens.count;
    v->groups = p->groups, v->sequences = p->sequences;
    v->row = p->row.data, v->target = p->target.data, v->target_count = p->target.count;
    v->kept_ids = p->kept_ids;
    return v;
}

void packing_free(Packing *p) {
    ids_free(&p->tokens), ids_free(&p->row), ids_free(&p->target);
    free(p->groups), free(p->sequences), free(p->kept_start), free(p->kept_ids);
    *p = (Packing){0};
}
