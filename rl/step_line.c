// A step in one line for a person, at most STEP_LINE columns: figures in the order of how much they are looked at. What does not
// fit is left out, the least telling first; figures that say nothing (no KL, nothing cut off) are left out anyway. All of them
// stand on the ledger.
#include "stages.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_LINE = 118, PIECES = 16, PIECE = 160 };
typedef struct Line {
    char piece[PIECES][PIECE];
    int rank[PIECES]; // the highest is left out first; 0: never
    int count;
} Line;

static void put(Line *l, int rank, const char *format, ...) PRINTF_LIKE(3, 4);
static void put(Line *l, int rank, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vsnprintf(l->piece[l->count], PIECE, format, ap);
    va_end(ap);
    l->rank[l->count++] = rank;
}

static size_t width(const Line *l) {
    size_t n = 0;
    for (int i = 0; i < l->count; i++) n += strlen(l->piece[i]) + (i > 0 ? 2 : 0);
    return n;
}
static void leave_out(Line *l) {
    int worst = -1;
    for (int i = 0; i < l->count; i++)
        if (l->rank[i] > 0 && (worst < 0 || l->rank[i] > l->rank[worst])) worst = i;
    if (worst < 0) return;
    memmove(l->piece[worst], l->piece[worst + 1], sizeof l->piece[0] * (size_t)(l->count - worst - 1));
    memmove(&l->rank[worst], &l->rank[worst + 1], sizeof l->rank[0] * (size_t)(l->count - worst - 1));
    l->count--;
}

static void put_parts(Line *l, const StepReport *s) {
    char text[PIECE] = "";
    for (int i = 0; i < s->part_count && s->part_count > 1; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%.20s %.2f", i ? ", " : "parts ", s->part_name[i], s->part_mean[i]);
    }
    if (text[0]) put(l, 9, "%s", text);
}

// Levels of one task: "pass 98|60|12 %"; with several tasks their names stand before.
static void put_levels(Line *l, const LevelCounts *c) {
    char text[PIECE] = "pass ";
    bool named = false;
    for (int i = 1; i < c->count; i++) named |= strcmp(c->rows[i].kind, c->rows[0].kind) != 0;
    for (int level = 0, shown = 0; level < 100 && c->count > 0; level++)
        for (int i = 0; i < c->count; i++) {
            const LevelCount *row = &c->rows[i];
            size_t n = strlen(text);
            if (row->level != level || row->samples == 0) continue;
            snprintf(text + n, sizeof text - n, "%s%.12s%s%d:%.0f", shown++ ? " " : "", named ? row->kind : "", named ? " " : "", row->level,
                     100.0 * (double)row->passed / (double)row->samples);
        }
    if (c->count > 0) put(l, 3, "%s %%", text);
}

static void put_time(Line *l, const StepReport *s, double left) {
    double busy = s->measured.rollout + s->measured.train + s->measured.optimizer, tokens = (double)(s->new_tokens + s->trained_tokens);
    put(l, 5, "%.2f s", s->measured.seconds);
    if (s->new_tokens > 0)
        put(l, 10, "sampling %.2f rewards %.2f training %.2f", s->measured.rollout, s->measured.reward, s->measured.train + s->measured.optimizer);
    if (busy > 0 && tokens > 0) put(l, 7, "%.0f tok/s", tokens / busy);
    if (left >= 3600) put(l, 1, "%d h %02d min left", (int)left / 3600, (int)left / 60 % 60);
    else if (left == left) put(l, 1, "%d:%02d left", (int)left / 60, (int)left % 60);
}

static void put_sampled(Line *l, const StepReport *s) {
    if (s->kind == STAGE_DISTILL) put(l, 0, "divergence %.4f", s->loss);
    if (s->reward_mean != s->reward_mean && s->new_tokens == 0) { // examples: nothing was sampled
        put(l, 2, "length %.1f", s->length_mean), put(l, 3, "entropy %.3f", s->entropy), put(l, 8, "norm %.2f", s->gradient_norm);
        return;
    }
    int failed = s->verdicts[VERDICT_ERROR] + s->verdicts[VERDICT_BUDGET] + s->verdicts[VERDICT_KILLED];
    put(l, 0, "reward %.3f", s->reward_mean);
    put_parts(l, s);
    put_levels(l, &s->levels);
    if (s->think_mean > 0) put(l, 2, "length %.0f+%.0f", s->think_mean, s->answer_mean);
    else put(l, 2, "length %.1f", s->length_mean);
    if (s->given_mean > 0) put(l, 5, "given %.1f", s->given_mean);
    if (s->truncated_share > 0) put(l, 2, "cut %.0f %%", 100 * s->truncated_share);
    put(l, 3, "entropy %.3f", s->entropy);
    if (s->kl != 0 && s->kl == s->kl) put(l, 4, "KL %.3g", s->kl);
    if (s->clip_share > 0) put(l, 6, "clipped %.1f+%.1f %%", 100 * s->clip_low, 100 * s->clip_high);
    put(l, 8, "norm %.2f", s->gradient_norm);
    if (s->kind == STAGE_GRPO) put(l, 4, "flat %d/%d", s->groups_without_variance, s->groups);
    if (failed > 0) put(l, 0, "%d verdicts failed", failed);
}

void step_line(const Stage *stage, const StepReport *s, double left, Buf *out) {
    Line *l = xcalloc(1, sizeof *l);
    put(l, 0, "%.40s %d/%d", stage->name, s->stage_step, stage->steps);
    if (stage_row(stage)->samples) put_sampled(l, s);
    else put(l, 0, "loss %.4f", s->loss), put(l, 2, "norm %.2f", s->gradient_norm);
    if (s->skipped) put(l, 0, "skipped: no finite gradient");
    put_time(l, s, left);
    for (int before = l->count + 1; width(l) > STEP_LINE && l->count < before;) before = l->count, leave_out(l);
    for (int i = 0; i < l->count; i++) buf_printf(out, "%s%s", i == 0 ? "" : i == 1 ? ": " : ", ", l->piece[i]);
    free(l);
}
