// What a run cost, with its parts and where each figure comes from (cost.c), and what of it had no effect.
#include "report.h"
#include <string.h>

static void cost_row(const Report *r, json_t *sheet, const char *name, const json_t *work) {
    static const char *const keys[] = {"steps", "new_tokens", "trained_tokens", "flops", "seconds", "rollout_seconds", "reward_seconds", "train_seconds", "joules", "money"};
    json_t *row = sheet_row(sheet);
    (void)r;
    cell_text(row, name);
    for (int i = 0; i < COUNT(keys); i++) cell_figure(row, json_object_get(work, keys[i]));
}

static void parts_sheet(const Report *r, json_t *blocks) {
    json_t *sheet = sheet_add(blocks, "cost", say(r, "cost by part")), *stage;
    size_t i;
    sheet_column(sheet, "part", say(r, "part"), "text");
    sheet_column(sheet, "steps", say(r, "steps"), "number");
    sheet_column(sheet, "new_tokens", say(r, "tokens sampled"), "scaled");
    sheet_column(sheet, "trained_tokens", say(r, "tokens trained"), "scaled");
    sheet_column(sheet, "flops", "FLOPs", "scaled");
    sheet_column(sheet, "seconds", say(r, "time"), "seconds");
    sheet_column(sheet, "rollout_seconds", say(r, "sampling"), "seconds");
    sheet_column(sheet, "reward_seconds", say(r, "waiting for rewards"), "seconds");
    sheet_column(sheet, "train_seconds", say(r, "training"), "seconds");
    sheet_column(sheet, "joules", say(r, "joules"), "scaled");
    sheet_column(sheet, "money", json_text_or(r->cost, "currency", say(r, "money")), "number");
    json_array_foreach(json_object_get(r->cost, "stages"), i, stage) cost_row(r, sheet, json_text_or(stage, "name", "stage"), stage);
    cost_row(r, sheet, say(r, "evaluations"), json_object_get(r->cost, "evaluations"));
    cost_row(r, sheet, say(r, "work done twice"), json_object_get(r->cost, "repeated"));
    cost_row(r, sheet, say(r, "total"), json_object_get(r->cost, "total"));
    json_object_set_new(sheet, "total", json_true());
    json_object_set_new(sheet, "note", json_string(say(r, "cost note")));
}

static void waste_sheet(const Report *r, json_t *blocks) {
    static const char *const keys[] = {"groups_without_variance", "untrained_tokens", "truncated_samples", "unscored_samples", "repeated_flops"};
    json_t *sheet = sheet_add(blocks, "waste", say(r, "without effect"));
    sheet_column(sheet, "what", say(r, "what"), "text");
    sheet_column(sheet, "share", say(r, "share"), "share");
    for (int i = 0; i < COUNT(keys); i++) {
        json_t *row = sheet_row(sheet);
        cell_text(row, say(r, keys[i]));
        cell_figure(row, json_object_get(json_object_get(r->cost, "waste"), keys[i]));
    }
}

void report_cost(Report *r) {
    if (!r->cost) return;
    json_t *blocks = section_add(r, "cost", "what it cost", NULL);
    parts_sheet(r, blocks);
    waste_sheet(r, blocks);
}
