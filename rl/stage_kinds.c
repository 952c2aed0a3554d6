// The kinds of stages, a row each. Owns nothing but the table: keys are the schema's, steps are files of their own, and whoever
// needs to know what differs between kinds asks the row, so that a new kind is a new row.
#include "recipe_parts.h"
#include "stages.h"
#include <string.h>

const StageRow stage_rows[STAGE_KINDS] = {
    [STAGE_SFT] = {.name = "sft", .keys = sft_fields, .trains = true, .likely = 1, .check = recipe_check_sft,
                   .open = sft_open, .close = sft_close, .step = sft_step, .validate = sft_validate, .flops = plan_sft_flops},
    [STAGE_GRPO] = {.name = "grpo", .keys = grpo_fields, .samples = true, .trains = true, .likely = 0.5, .check = recipe_check_grpo,
                    .step = grpo_step, .flops = plan_grpo_flops},
    [STAGE_REJECT] = {.name = "reject", .keys = reject_fields, .samples = true, .keeps_weights = true, .makes_data = true, .likely = 0.5,
                      .check = recipe_check_reject, .open = teacher_open, .close = teacher_close, .step = reject_step, .end = reject_end,
                      .flops = plan_reject_flops},
    [STAGE_DISTILL] = {.name = "distill", .keys = distill_fields, .samples = true, .trains = true, .likely = 0.5, .check = recipe_check_distill,
                       .open = distill_open, .close = distill_close, .step = distill_step, .flops = plan_distill_flops},
    [STAGE_MERGE] = {.name = "merge", .keys = merge_fields, .likely = 1, .check = recipe_check_merge, .step = merge_step, .end = merge_end,
                     .flops = plan_merge_flops},
};

const StageRow *stage_row_named(const char *name) {
    for (int i = 0; i < STAGE_KINDS; i++)
        if (strcmp(stage_rows[i].name, name) == 0) return &stage_rows[i];
    return NULL;
}
