// The loss on examples that are never learned: rows of files of their own, or what the tasks demonstrate of held-out problems.
// Measured at the end of a supervised stage and with each of its evaluations, as an evaluation on the ledger.
#include "accounts.h"
#include "data.h"
#include <stdlib.h>

enum { ROWS_AT_ONCE = 64 };

typedef struct Measure {
    const Trainer *t;
    const Stage *stage;
    double loss; // sum over target tokens
    int64_t tokens, examples;
} Measure;

static bool measure(Measure *m, Examples *e, Arena *arena, Err *err) {
    Packing packing = {0};
    TRY(examples_shape(m->stage, arena, e, err));
    packing_reset(&packing, 1.0);
    for (int i = 0; i < e->count; i++) {
        packing_prompt(&packing, e->prompts[i].data, e->prompts[i].count);
        packing_completion(&packing, &e->completions[i]);
    }
    const Packed *batch = packing_view(&packing);
    int64_t N = batch->target_count;
    float *logprob = ARENA_NEW(arena, float, N), *entropy = ARENA_NEW(arena, float, N);
    bool ok = policy_forward(m->t->policy, batch, false, logprob, entropy, err);
    for (int64_t i = 0; ok && i < N; i++) m->loss -= (double)logprob[i];
    m->tokens += N, m->examples += e->count;
    packing_free(&packing);
    return ok;
}

static bool measure_files(Measure *m, Err *err) {
    Stage files = *m->stage;
    Data *d = NULL;
    files.data = files.validation, files.epochs = 1, files.tasks_share = 0;
    TRY(data_open(m->t, &files, &d, err));
    int64_t count = data_count(d);
    bool ok = true;
    for (int64_t from = 0; ok && from < count; from += ROWS_AT_ONCE) {
        Arena arena = {0};
        Examples e;
        examples_start(&e, (int)(count - from < ROWS_AT_ONCE ? count - from : ROWS_AT_ONCE), &arena);
        for (int i = 0; ok && i < e.count; i++) ok = data_example(m->t, &files, d, (uint64_t)(from + i), &arena, &e.prompts[i], &e.completions[i], err);
        ok = ok && measure(m, &e, &arena, err);
        examples_free(&e, &arena);
    }
    data_close(d);
    return ok;
}

static bool measure_items(Measure *m, int level, Mode mode, Err *err) {
    const Trainer *t = m->t;
    const Tokenizer *tokenizer = policy_tokenizer(t->policy);
    Arena arena = {0};
    Examples e;
    Item *items = ARENA_NEW(&arena, Item, m->stage->validation_items);
    int found;
    bool ok = tasks_held_out(t->tasks, level, m->stage->validation_items, &arena, items, &found, err);
    examples_start(&e, ok ? found : 0, &arena);
    for (int i = 0; ok && i < e.count; i++) {
        ok = prompt_render(t->recipe, tokenizer, &items[i], mode, &e.prompts[i], err) &&
             demonstration_render(t->recipe, tokenizer, &items[i], mode, &e.targets[i], err);
        e.completions[i] = (Completion){.ids = e.targets[i].data, .length = e.targets[i].count};
    }
    ok = ok && measure(m, &e, &arena, err);
    examples_free(&e, &arena);
    return ok;
}

bool sft_validate(const Trainer *t, const Stage *stage, int64_t step, Err *err) {
    Measure m = {.t = t, .stage = stage};
    if (!stage->validation && stage->validation_items == 0) return true;
    EnergyMark before = energy_mark(t->energy);
    policy_forget_flops(t->policy);
    if (stage->validation) TRY(measure_files(&m, err));
    for (Mode mode = 0; stage->validation_items > 0 && mode < MODES; mode++)
        for (int level = 0; stage->mode_share[mode] > 0 && level < tasks_level_count(t->tasks); level++) TRY(measure_items(&m, level, mode, err));
    if (m.tokens == 0) return fail(err, ERR_DATA, stage->name, "no examples to validate with: nothing is held out");
    m.loss /= (double)m.tokens;
    json_t *found = json_pack("{s:s,s:f,s:f,s:I,s:I,s:{s:f}}", "stage", stage->name, "loss", m.loss, "perplexity", exact_exp(m.loss), "tokens",
                              (json_int_t)m.tokens, "examples", (json_int_t)m.examples, "work", "flops", policy_flops(t->policy));
    json_t *measured = energy_spent(t->energy, before);
    bool ok = ledger_evaluation(t->ledger, step, "validation", found, measured, err);
    json_decref(found), json_decref(measured);
    if (ok)
        log_line(LOG_INFO, "%s: validation loss %.4f (perplexity %.3f) over %lld tokens of %lld examples", stage->name, m.loss, exact_exp(m.loss),
                 (long long)m.tokens, (long long)m.examples);
    return ok;
}
