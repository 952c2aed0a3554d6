// What the files of `reckon cost` share; nothing else includes it.
#ifndef RECKON_COST_PARTS_H
#define RECKON_COST_PARTS_H
#include "accounts.h"
#include "ledger_rows.h"

// A figure with its source (cost.c); NaN: `otherwise`, of no source.
json_t *figure(double value, const char *source, const char *otherwise);
// cost_run; `depth` counts the runs that led here by way of their base models.
bool cost_run_at(const char *run_folder, int depth, json_t **out, Err *err) MUST_CHECK;

// cost_waste.c: FLOPs without effect, each counted once, in this order:
// {"repeated", "groups_without_variance", "truncated_samples", "unscored_samples", "all"} (FIGUREs)
bool wasted_flops(const Ledger *l, const char *run_folder, double repeated, double total, json_t **out, Err *err) MUST_CHECK;
// {"path", "source": "ledger" | "card" | "none", "steps"..: of a ledger its WORK; of a card "hours", "flops", "co2_grams" (FIGUREs), "hardware"}; null: from scratch
json_t *base_model(const json_t *recipe, int depth);

#endif
