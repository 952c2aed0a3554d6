// Supervised fine-tuning: the mean negative log-likelihood of the target tokens of a batch. Prompts are not scored. What is learned
// are the tasks' demonstrations, rows of data (data.h), or both side by side.
#include "data.h"
#include <stdlib.h>
#include <string.h>


// The environment plays its own demonstrations, where there is one; otherwise the items carry them.
static bool demonstrate(const Trainer *t, const Stage *stage, int stage_step, Arena *arena, Examples *out, Err *err) {
    const Tokenizer *tokenizer = policy_tokenizer(t->policy);
    int n = out->count;
    Item *all = ARENA_NEW(arena, Item, n), **items = ARENA_NEW(arena, Item *, n);
    Mode *modes = ARENA_NEW(arena, Mode, n);
    for (int i = 0; i < n; i++) {
        uint64_t index = (uint64_t)(stage_step - 1) * (uint64_t)n + (uint64_t)i;
        items[i] = &all[i];
        modes[i] = mode_of_prompt(t->recipe, stage, t->stage_index, index);
        TRY(tasks_train_item(t->tasks, stage, index, arena, &all[i], err));
    }
    if (reward_pool_environment(t->rewards)) {
        DialogueSetup setup = {.recipe = t->recipe, .policy = t->policy, .rewards = t->rewards, .count = n, .samples = 1, .items = items,
                               .modes = modes, .arena = arena, .step = (uint64_t)stage_step};
        return dialogues_demonstrate(&setup, out->prompts, out->completions, arena, err);
    }
    for (int i = 0; i < n; i++) {
        TRY(prompt_render(t->recipe, tokenizer, &all[i], modes[i], &out->prompts[i], err));
        TRY(demonstration_render(t->recipe, tokenizer, &all[i], modes[i], &out->targets[i], err));
        out->completions[i] = (Completion){.ids = out->targets[i].data, .length = out->targets[i].count};
    }
    return true;
}

// Rows of data first, then what the tasks demonstrate.
bool examples_make(const Trainer *t, const Stage *stage, int stage_step, Arena *arena, Examples *out, Err *err) {
    const Data *data = t->work;
    int rows = data ? data_rows_of_step(data, stage, stage_step) : 0, full = data ? data_rows_of_step(data, stage, 1) : 0;
    for (int i = 0; i < rows; i++)
        TRY(data_example(t, stage, data, (uint64_t)(stage_step - 1) * (uint64_t)full + (uint64_t)i, arena, &out->prompts[i], &out->completions[i], err));
    int tasks = (int)(stage->tasks_share * stage->batch + 0.5);
    out->count = data ? rows + tasks : stage->batch;
    Examples rest = {.count = out->count - rows, .prompts = out->prompts + rows, .targets = out->targets + rows, .completions = out->completions + rows};
    return rest.count == 0 || demonstrate(t, stage, stage_step, arena, &rest, err);
}

bool likelihood_microbatch(const Trainer *t, Packing *packing, double total, StepReport *report, Err *err) {
    const Packed *batch = packing_view(packing);
    int64_t N = batch->target_count;
    if (N == 0) return true;
    Arena arena = {0};
    float *logprob = ARENA_NEW(&arena, float, N), *entropy = ARENA_NEW(&arena, float, N), *dlogprob = ARENA_NEW(&arena, float, N);
    for (int64_t i = 0; i < N; i++) dlogprob[i] = (float)(-1.0 / total);
    bool ok = policy_forward_backward(t->policy, batch, dlogprob, NULL, logprob, entropy, err);
    for (int64_t i = 0; ok && i < N; i++) {
        report->loss -= (double)logprob[i] / total;
        report->entropy += (double)entropy[i] / total;
    }
    report->trained_tokens += N;
    arena_reset(&arena);
    return ok;
}

static bool train_on(const Trainer *t, const Stage *stage, const Examples *examples, StepReport *report, Err *err) {
    int64_t total = 0, limit = microbatch_limit(stage, policy_on_host(t->policy));
    for (int i = 0; i < examples->count; i++) total += examples->completions[i].length;
    Packing packing = {0};
    bool ok = true;
    int64_t tokens = 0; // a target's last token is in no pass
    for (int i = 0; i < examples->count; i++) tokens += examples->prompts[i].count + completion_total(&examples->completions[i]) - 1;
    packing_routers(&packing, &stage->optimizer, tokens);
    policy_zero_gradients(t->policy);
    packing_reset(&packing, 1.0);
    for (int i = 0; ok && i < examples->count; i++) {
        const Completion *c = &examples->completions[i];
        const Ids *prompt = &examples->prompts[i];
        if (packing_is_full(&packing, prompt->count + completion_total(c) - 1, limit)) {
            ok = likelihood_microbatch(t, &packing, (double)total, report, err);
            packing_reset(&packing, 1.0);
        }
        packing_prompt(&packing, prompt->data, prompt->count);
        packing_completion(&packing, c);
        report->prompt_tokens += prompt->count + completion_total(c) - c->length;
        report->given_mean += (completion_total(c) - c->length) / (double)examples->count;
    }
    ok = ok && likelihood_microbatch(t, &packing, (double)total, report, err);
    packing_free(&packing);
    return ok;
}

bool sft_open(Trainer *t, const Stage *stage, Err *err) {
    Data *data = NULL;
    TRY(!stage->data || data_open(t, stage, &data, err));
    t->work = data;
    return true;
}
void sft_close(Trainer *t) { data_close(t->work); }

void examples_start(Examples *e, int count, Arena *arena) {
    *e = (Examples){.count = count, .capacity = count, .prompts = ARENA_NEW(arena, Ids, count), .targets = ARENA_NEW(arena, Ids, count),
                    .completions = ARENA_NEW(arena, Completion, count)};
}
void examples_free(Examples *e, Arena *arena) {
    for (int i = 0; i < e->capacity; i++) ids_free(&e->prompts[i]), ids_free(&e->targets[i]);
    arena_reset(arena);
}

bool sft_step(const Trainer *t, const Stage *stage, Batch *batch, StepReport *report, Err *err) {
    (void)batch;
    Arena arena = {0};
    Examples examples;
    examples_start(&examples, stage->batch, &arena);
    bool ok = examples_make(t, stage, report->stage_step, &arena, &examples, err) && examples_shape(stage, &arena, &examples, err);
    double start = clock_seconds();
    ok = ok && train_on(t, stage, &examples, report, err);
    double now = clock_seconds();
    ok = ok && optimizer_apply(t->policy, &stage->optimizer, schedule_rate(&stage->optimizer, report->stage_step, stage->steps), report, err);
    report->measured.train = now - start;
    report->measured.optimizer = clock_seconds() - now;
    examples_free(&examples, &arena);
    return ok;
}
