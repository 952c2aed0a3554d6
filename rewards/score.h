// Scoring samples with loaded scripts, inside of one process. The pool's workers call this; so may tests.
#ifndef RECKON_SCORE_H
#define RECKON_SCORE_H
#include "reward.h"
#include "script.h"

typedef struct ScoreScript {
    Sandbox *box;
    char name[24]; // of its part, unless the script gives one
    double weight;
    char *task; // scores samples of this task only; NULL: all
} ScoreScript;

typedef struct ScoreScripts {
    ScoreScript *list;
    int count;
    RewardLimits limits;
    unsigned programs; // languages of programs that some script may run
    char hash[65]; // of all sources
} ScoreScripts;

// Reads, compiles and freezes the scripts; nothing of them runs yet. Free with scripts_close, also after a failure.
bool scripts_open(const RewardSpec *specs, int count, const RewardLimits *limits, ScoreScripts *out, Err *err) MUST_CHECK;
void scripts_close(ScoreScripts *scripts);
// Scores samples that belong together: each alone by scripts without a `group` function, all at once by the others.
// `progress` (may be NULL) is called before a sample, or before a group with its size.
void scripts_score(const ScoreScripts *scripts, const RewardSample *samples, int count, Verdict *out,
                   void (*progress)(void *context, int samples), void *context);

#endif
