// Problems that an environment makes up itself: an item is a level and a number, nothing more. The environment's reset
// function sees both in its row, draws the rest with math.random, whose seed follows from them, and opens the episode.
#include "tasks_parts.h"
#include <stdio.h>

static void draw(Random *random, int level, Problem *p) {
    *p = (Problem){.count = 1, .numbers = {(int)random_below(random, 1u << 30)}, .target = level};
    snprintf(p->plain, sizeof p->plain, "%d:%d", level, p->numbers[0]);
    snprintf(p->words, sizeof p->words, "%s", p->plain);
    snprintf(p->identity, sizeof p->identity, "%s", p->plain);
}

static int64_t distinct(int level) {
    (void)level;
    return -1; // only the environment knows
}

static json_t *row(const Problem *p) { return json_pack("{s:i, s:i}", "level", p->target, "number", p->numbers[0]); }

const Generator environment_generator = {"environment", 64, 1, distinct, draw, row};
