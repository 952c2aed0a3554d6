// What the two files that read verl's options share.
#ifndef RECKON_CALC_VERL_H
#define RECKON_CALC_VERL_H
#include "calc.h"

// The values of rollout_is, rollout_is_threshold, rollout_is_batch_normalize, rollout_rs, rollout_rs_threshold; NULL where
// they are not given.
typedef struct VerlCorrection {
    const json_t *is, *is_threshold, *normalize, *rs, *rs_threshold;
} VerlCorrection;
bool verl_correction(CalcCase *c, const VerlCorrection *o, Correction *out, Err *err) MUST_CHECK;
// "low_var_kl", "k1+", ...
bool verl_kl_form(CalcCase *c, const char *name, Kl *out) MUST_CHECK;

#endif
