// What a run cost, with its parts and where each figure comes from (cost.c), and what of it had no effect.
#include "report.h"
#include <string.h>

static void cost_row(json_t *sheet, const char *name, const json_t *work) {
    static const char *const keys[] = {"steps", "new_tokens", "trained_tokens", "flops", "seconds", "rollout_seconds", "reward_seconds", "train_seconds", "joules", "money"};
    json_t *row = sheet_row(sheet);
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
    json_array_foreach(json_object_get(r->cost, "stages"), i, stage) cost_row(sheet, json_text_or(stage, "name", "stage"), stage);
    cost_row(sheet, say(r, "evaluations"), json_object_get(r->cost, "evaluations"));
    cost_row(sheet, say(r, "work done twice"), json_object_get(r->cost, "repeated"));
    cost_row(sheet, say(r, "total"), json_object_get(r->cost, "total"));
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

// What is known besides: FLOPs without effect, hours by device, the base model, how the run ended, and whether the sums hold.
static void more_sheet(const Report *r, json_t *blocks) {
    static const char *const wasted[] = {"repeated", "groups_without_variance", "truncated_samples", "unscored_samples", "all"};
    static const char *const words[] = {"work done twice", "groups_without_variance", "truncated_samples", "unscored_samples", "total"};
    json_t *sheet = sheet_add(blocks, "wasted", say(r, "wasted FLOPs")), *device;
    size_t i;
    sheet_column(sheet, "what", say(r, "what"), "text");
    sheet_column(sheet, "flops", "FLOPs", "scaled");
    for (int k = 0; k < COUNT(wasted); k++) {
        json_t *row = sheet_row(sheet);
        cell_text(row, say(r, words[k]));
        cell_figure(row, json_object_get(json_object_get(r->cost, "wasted_flops"), wasted[k]));
    }
    json_object_set_new(sheet, "total", json_true());
    sheet = sheet_add(blocks, "devices", say(r, "hours by device"));
    sheet_column(sheet, "device", say(r, "device"), "text");
    sheet_column(sheet, "seconds", say(r, "time"), "seconds");
    json_array_foreach(json_object_get(r->cost, "devices"), i, device) {
        json_t *row = sheet_row(sheet);
        cell_text(row, json_text_or(device, "device", ""));
        cell_figure(row, json_object_get(device, "seconds"));
    }
}

static void base_sentence(const Report *r, json_t *blocks) {
    const json_t *base = json_object_get(r->cost, "base_model"), *total = json_object_get(base, "total");
    const char *source = json_text_or(base, "source", "none");
    Buf flops = {0};
    if (!json_is_object(base)) return;
    text_scaled(&flops, json_real_or_nan(json_object_get(total ? total : base, "flops"), "value"));
    paragraph_add(blocks, say_with(r, !strcmp(source, "ledger") ? "base ledger" : !strcmp(source, "card") ? "base card" : "base none", "path",
                                   json_text_or(base, "path", ""), "flops", flops.data, NULL));
    buf_free(&flops);
}

void report_cost(Report *r) {
    if (!r->cost) return;
    json_t *blocks = section_add(r, "cost", "what it cost", NULL);
    parts_sheet(r, blocks);
    waste_sheet(r, blocks);
    more_sheet(r, blocks);
    base_sentence(r, blocks);
    paragraph_add(blocks, json_string(say(r, json_is_true(json_object_get(json_object_get(r->cost, "check"), "ok")) ? "sums hold" : "sums fail")));
}
