// `reckon calc` against the numbers that TRL, verl, OpenRLHF, prime-rl, SkyRL, transformers, torch, scipy and statsmodels
// computed on the same inputs: every file, every case, every field. How many cases of a file may be declared unsupported is
// part of the table, so a case that stops being supported is a failure.
#include "../test.h"
#include "calc_cases.h"

static const struct {
    const char *kind, *file;
    int agreed, unsupported;
} files[] = {
    {"objective", "losses_trl_clip.json", 51, 0},     {"objective", "losses_trl_soft.json", 21, 0},
    {"objective", "losses_trl_sequence.json", 19, 0}, {"objective", "losses_verl_clip.json", 24, 0},
    {"objective", "losses_verl_other.json", 27, 0},   {"objective", "losses_openrlhf.json", 12, 0},
    {"objective", "losses_prime_rl.json", 7, 0},      {"objective", "importance_trl.json", 45, 0},
    {"objective", "importance_verl.json", 39, 0},     {"objective", "accumulation.json", 24, 0},
    {"advantage", "advantages_trl.json", 56, 0},      {"advantage", "advantages_verl.json", 36, 0},
    {"advantage", "advantages_others.json", 32, 0},   {"kl", "kl.json", 56, 0},
    {"schedule", "lr_schedules.json", 45, 0},         {"optimizer", "adamw.json", 11, 0},
    {"sample", "sampling.json", 134, 0},              {"statistics", "statistics.json", 83, 0},
    {"shaping", "rewards.json", 20, 0},               {"shaping", "overlong.json", 25, 6}, // six need a trainer
};

static void every_case(void) {
    for (int i = 0; i < COUNT(files); i++) {
        CaseCounts got = calc_compare(files[i].kind, files[i].file);
        if (got.agreed != files[i].agreed || got.unsupported != files[i].unsupported)
            FAIL("%s: %d agree and %d are unsupported, expected %d and %d", files[i].file, got.agreed, got.unsupported, files[i].agreed,
                 files[i].unsupported);
    }
}

static const Test tests[] = {{"every_case", every_case}};
TEST_MAIN(tests)
