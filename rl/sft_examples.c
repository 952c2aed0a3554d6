// What becomes of a supervised example before it is learned: of how long it may be, and whether its prompt is learned too. Refuses
// an example whose prompt leaves nothing to learn.
#include "stages.h"
#include <string.h>

// Its first `total` tokens; what was given at their end teaches nothing and goes too.
static void cut(Completion *c, int32_t total) {
    if (!c->given) {
        c->length = total;
        return;
    }
    while (total > 0 && c->given[total - 1]) total--;
    c->total = total, c->length = 0;
    for (int32_t i = 0; i < total; i++) c->length += !c->given[i];
}

// All tokens but the first one are learned.
static void learn_prompt(Arena *arena, Ids *prompt, Completion *c) {
    int32_t total = completion_total(c), count = prompt->count - 1 + total;
    int32_t *ids = ARENA_NEW(arena, int32_t, count);
    memcpy(ids, prompt->data + 1, (size_t)(prompt->count - 1) * sizeof *ids);
    memcpy(ids + prompt->count - 1, completion_all(c), (size_t)total * sizeof *ids);
    prompt->count = 1;
    *c = (Completion){.ids = ids, .length = count};
}

bool examples_shape(const Stage *stage, Arena *arena, Examples *e, Err *err) {
    for (int i = 0; i < e->count; i++) {
        Completion *c = &e->completions[i];
        int32_t prompt = e->prompts[i].count, total = completion_total(c), longest = stage->max_length;
        if (longest > 0 && prompt + total > longest && !stage->cut_long)
            return fail(err, ERR_DATA, stage->name, "an example has %d tokens (%d of them its prompt), max_length allows %d; too_long = \"cut\" would cut it",
                        prompt + total, prompt, longest);
        if (longest > 0 && prompt + total > longest) cut(c, longest > prompt ? longest - prompt : 0);
        if (completion_total(c) == 0)
            return fail(err, ERR_DATA, stage->name, "a prompt of %d tokens leaves nothing to learn within max_length %d", prompt, longest);
        if (stage->learn_prompts) learn_prompt(arena, &e->prompts[i], c);
    }
    return true;
}
